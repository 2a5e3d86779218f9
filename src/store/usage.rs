//! Sessions and usage as people and billing systems look at them: lists, one account's usage, exports.

use serde::Serialize;
use sqlx::FromRow;

use super::sessions::StoredSession;
use super::{StoreError, Tx, on, sessions};
use crate::billing::view::digits;
use crate::usage::{Cuts, Wide, entry_bounds, mark};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// A session with the names of who owns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionView {
    pub id: i64,
    pub user: Option<String>,
    pub session: String,
    pub incarnation: i64,
    pub in_octets: i64,
    pub out_octets: i64,
    pub nas: String,
    pub started_at: Timestamp,
    pub last_event_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub state: String,
    pub seconds: i64,
    pub tenant: Option<String>,
    pub source: Option<String>,
    pub account: Option<String>,
    pub service: Option<String>,
    pub framed_ip: Option<String>,
    pub framed_prefix: Option<String>,
    pub calling_station: Option<String>,
    pub terminate_cause: Option<i64>,
    pub flags: Vec<&'static str>,
}

/// Which sessions a list shows, in the order of their numbers.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    pub tenant: Option<String>,
    pub source: Option<String>,
    pub account_id: Option<i64>,
    pub user: Option<String>,
    pub session: Option<String>,
    pub nas: Option<String>,
    pub state: Option<String>,
    /// Only sessions nobody owns.
    pub unattributed: bool,
    /// Only rows after this one.
    pub after: i64,
    pub limit: i64,
}

/// Usage nobody owns yet, by user name and NAS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unattributed {
    pub user: Option<String>,
    pub nas: String,
    pub sessions: i64,
    #[serde(serialize_with = "as_digits")]
    pub in_octets: i128,
    #[serde(serialize_with = "as_digits")]
    pub out_octets: i128,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}

/// A ledger entry with the names of what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct UsageEntry {
    #[serde(skip)]
    pub account_id: i64,
    pub tenant: String,
    pub source: String,
    pub account: String,
    pub service: String,
    pub sequence: i64,
    pub nas: String,
    pub session: String,
    #[serde(skip)]
    pub from_at: i64,
    #[serde(skip)]
    pub until_at: i64,
    pub in_octets: i64,
    pub out_octets: i64,
    pub seconds: i64,
    pub sessions: i64,
    pub cause: String,
    #[serde(skip)]
    pub recorded_at: i64,
}

/// Usage of one service in one piece of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUsage {
    /// The service's external id.
    pub service: String,
    /// When it begins, microseconds.
    pub from_at: i64,
    pub amount: Wide,
}

macro_rules! select_view {
    ($($rest:literal),+) => {
        concat!(
            "SELECT session.id, session.user_name, session.session, session.incarnation, session.in_octets,
                    session.out_octets, session.nas, session.started_at, session.last_event_at, session.ended_at,
                    session.state, session.seconds, account.tenant, account.source,
                    account.external_id AS account, service.external_id AS service, session.framed_ip, session.framed_prefix,
                    session.calling_station, session.terminate_cause, session.flags
             FROM session LEFT JOIN account ON account.id = session.account_id
                          LEFT JOIN service ON service.id = session.service_id ",
            $($rest),+
        )
    };
}

macro_rules! select_list {
    ($of:literal) => {
        select_view!(
            "WHERE session.id > $1
               AND (CAST($2 AS TEXT) IS NULL OR account.tenant = $2)
               AND (CAST($4 AS TEXT) IS NULL OR session.user_name = $4)
               AND (CAST($5 AS TEXT) IS NULL OR session.session = $5)
               AND (CAST($6 AS TEXT) IS NULL OR session.nas = $6)
               AND (CAST($7 AS TEXT) IS NULL OR session.state = $7)
               AND ($8 = 0 OR session.service_id IS NULL)
               AND (CAST($9 AS TEXT) IS NULL OR account.source = $9)
               AND ",
            $of,
            " ORDER BY session.id LIMIT $10"
        )
    };
}
const LIST: &str = select_list!("CAST($3 AS BIGINT) IS NULL");
// With an index of its own.
const LIST_OF_ACCOUNT: &str = select_list!("session.account_id = CAST($3 AS BIGINT)");
const ONE: &str = select_view!("WHERE session.id = $1");
// A session that only informs (the mark 256) is nobody's usage.
// Sums that may leave 64 bits come as two halves: how often 2^32, and the rest.
const UNATTRIBUTED: &str = "SELECT user_name, nas, COUNT(*), CAST(SUM(in_octets / 4294967296) AS BIGINT),
        CAST(SUM(in_octets % 4294967296) AS BIGINT), CAST(SUM(out_octets / 4294967296) AS BIGINT),
        CAST(SUM(out_octets % 4294967296) AS BIGINT), MIN(started_at), MAX(last_event_at)
     FROM session WHERE service_id IS NULL AND (flags & 256) = 0
     GROUP BY user_name, nas ORDER BY MAX(last_event_at) DESC, user_name, nas LIMIT $1";
const ENTRIES: &str = "SELECT ledger.account_id, account.tenant, account.source, account.external_id AS account,
        service.external_id AS service, ledger.sequence, COALESCE(session.nas, '') AS nas,
        COALESCE(session.session, '') AS session, ledger.from_at,
        ledger.until_at, ledger.in_octets, ledger.out_octets, ledger.seconds, ledger.sessions, ledger.cause,
        ledger.recorded_at
     FROM ledger JOIN account ON account.id = ledger.account_id
                 JOIN service ON service.id = ledger.service_id
                 LEFT JOIN session ON session.id = ledger.session_id
     WHERE (ledger.account_id, ledger.sequence) > ($1, $2)
       AND (CAST($3 AS TEXT) IS NULL OR account.tenant = $3)
     ORDER BY ledger.account_id, ledger.sequence LIMIT $4";
const OF_ACCOUNT: &str = "SELECT service.external_id, ledger.from_at,
        CAST(SUM(ledger.in_octets / 4294967296) AS BIGINT), CAST(SUM(ledger.in_octets % 4294967296) AS BIGINT),
        CAST(SUM(ledger.out_octets / 4294967296) AS BIGINT), CAST(SUM(ledger.out_octets % 4294967296) AS BIGINT),
        CAST(SUM(ledger.seconds) AS BIGINT), CAST(SUM(ledger.sessions) AS BIGINT)
     FROM ledger JOIN service ON service.id = ledger.service_id
     WHERE ledger.account_id = $1 AND ledger.from_at >= $2 AND ledger.from_at < $3
     GROUP BY service.external_id, ledger.from_at, ledger.until_at
     ORDER BY service.external_id, ledger.from_at LIMIT 1000000";
const ACCOUNTS_NAMED: &str = "SELECT id, tenant, source FROM account
     WHERE external_id = $1
       AND (CAST($2 AS TEXT) IS NULL OR tenant = $2)
       AND (CAST($3 AS TEXT) IS NULL OR source = $3)
     ORDER BY id LIMIT $4";
const SERVICE_NAME: &str = "SELECT external_id FROM service WHERE id = $1";

/// A page of sessions.
pub async fn list(tx: &mut Tx, filter: &SessionFilter) -> Result<Vec<SessionView>, StoreError> {
    let list = if filter.account_id.is_some() { LIST_OF_ACCOUNT } else { LIST };
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(list)
        .bind(filter.after)
        .bind(filter.tenant.as_deref())
        .bind(filter.account_id)
        .bind(filter.user.as_deref())
        .bind(filter.session.as_deref())
        .bind(filter.nas.as_deref())
        .bind(filter.state.as_deref())
        .bind(i64::from(filter.unattributed))
        .bind(filter.source.as_deref())
        .bind(filter.limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(SessionView::try_from).collect()
}

/// One session with what the fold keeps of it.
pub async fn one(tx: &mut Tx, id: i64) -> Result<Option<(SessionView, StoredSession)>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(ONE).bind(id).fetch_optional(c).await)?;
    let Some(view) = row.map(SessionView::try_from).transpose()? else { return Ok(None) };
    let stored = sessions::of_ids(tx, &[id]).await?.pop();
    Ok(stored.map(|stored| (view, stored)))
}

/// Usage of user names nobody holds, the latest first.
pub async fn unattributed(tx: &mut Tx, limit: i64) -> Result<Vec<Unattributed>, StoreError> {
    type Found = (Option<String>, String, i64, i64, i64, i64, i64, i64, i64);
    let rows: Vec<Found> = on!(tx, c => sqlx::query_as(UNATTRIBUTED).bind(limit).fetch_all(c).await)?;
    rows.into_iter()
        .map(|(user, nas, sessions, in_high, in_low, out_high, out_low, first_at, last_at)| {
            let (in_octets, out_octets) = (whole(in_high, in_low), whole(out_high, out_low));
            let at = |micros, column| {
                from_micros(micros).ok_or(StoreError::Corrupt { table: "session", column, id: nas.clone() })
            };
            let (first_at, last_at) = (at(first_at, "started_at")?, at(last_at, "last_event_at")?);
            Ok(Unattributed { user, nas: nas.clone(), sessions, in_octets, out_octets, first_at, last_at })
        })
        .collect()
}

/// (id, tenant, source) of the accounts with this external id, for people who do not say whose they mean.
pub async fn accounts_named(
    tx: &mut Tx,
    external_id: &str,
    tenant: Option<&str>,
    source: Option<&str>,
    limit: i64,
) -> Result<Vec<(i64, String, String)>, StoreError> {
    let rows = on!(tx, c => sqlx::query_as(ACCOUNTS_NAMED)
        .bind(external_id)
        .bind(tenant)
        .bind(source)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    Ok(rows)
}

/// A page of ledger entries after (account, sequence), for exports.
pub async fn entries(
    tx: &mut Tx,
    tenant: Option<&str>,
    (account_id, sequence): (i64, i64),
    limit: i64,
) -> Result<Vec<UsageEntry>, StoreError> {
    let rows = on!(tx, c => sqlx::query_as(ENTRIES)
        .bind(account_id)
        .bind(sequence)
        .bind(tenant)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    Ok(rows)
}

/// An account's usage in `[from, until)`: what the ledger holds, and what is not in it yet. Pieces are at most an hour.
pub async fn of_account(
    tx: &mut Tx,
    account_id: i64,
    from: Timestamp,
    until: Timestamp,
    edges: &[Timestamp],
) -> Result<Vec<ServiceUsage>, StoreError> {
    let (from, until) = (to_micros(from), to_micros(until));
    type Found = (String, i64, i64, i64, i64, i64, i64, i64);
    let rows: Vec<Found> =
        on!(tx, c => sqlx::query_as(OF_ACCOUNT).bind(account_id).bind(from).bind(until).fetch_all(c).await)?;
    let mut usage: Vec<ServiceUsage> = rows
        .into_iter()
        .map(|(service, from_at, in_high, in_low, out_high, out_low, seconds, sessions)| {
            let (in_octets, out_octets) = (whole(in_high, in_low), whole(out_high, out_low));
            let amount = Wide { in_octets, out_octets, seconds: seconds.into(), sessions: sessions.into() };
            ServiceUsage { service, from_at, amount }
        })
        .collect();
    for stored in sessions::pending_of_accounts(tx, &[account_id]).await? {
        let Some(owner) = stored.owner else { continue };
        let service: String = on!(tx, c => sqlx::query_scalar(SERVICE_NAME).bind(owner.service_id).fetch_one(c).await)?;
        for (start, amount) in stored.state.pending().iter() {
            let (from_at, _) = entry_bounds(start, Cuts::at(edges));
            if (from..until).contains(&start) {
                usage.push(ServiceUsage { service: service.clone(), from_at, amount: amount.into() });
            }
        }
    }
    Ok(usage)
}

/// A sum of two halves.
fn whole(high: i64, low: i64) -> i128 {
    (i128::from(high) << 32) + i128::from(low)
}

fn as_digits<S: serde::Serializer>(sum: &i128, serializer: S) -> Result<S::Ok, S::Error> {
    digits(*sum).serialize(serializer)
}

impl UsageEntry {
    pub fn from(&self) -> Option<Timestamp> {
        from_micros(self.from_at)
    }

    pub fn until(&self) -> Option<Timestamp> {
        from_micros(self.until_at)
    }

    pub fn recorded(&self) -> Option<Timestamp> {
        from_micros(self.recorded_at)
    }
}

#[derive(FromRow)]
struct Row {
    id: i64,
    user_name: Option<String>,
    session: String,
    incarnation: i64,
    in_octets: i64,
    out_octets: i64,
    nas: String,
    started_at: i64,
    last_event_at: i64,
    ended_at: Option<i64>,
    state: String,
    seconds: i64,
    tenant: Option<String>,
    source: Option<String>,
    account: Option<String>,
    service: Option<String>,
    framed_ip: Option<String>,
    framed_prefix: Option<String>,
    calling_station: Option<String>,
    terminate_cause: Option<i64>,
    flags: i64,
}

impl TryFrom<Row> for SessionView {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let at = |micros, column| {
            from_micros(micros).ok_or_else(|| StoreError::Corrupt { table: "session", column, id: row.id.to_string() })
        };
        Ok(Self {
            id: row.id,
            user: row.user_name,
            session: row.session,
            incarnation: row.incarnation,
            in_octets: row.in_octets,
            out_octets: row.out_octets,
            nas: row.nas,
            started_at: at(row.started_at, "started_at")?,
            last_event_at: at(row.last_event_at, "last_event_at")?,
            ended_at: row.ended_at.map(|micros| at(micros, "ended_at")).transpose()?,
            state: row.state,
            seconds: row.seconds,
            tenant: row.tenant,
            source: row.source,
            account: row.account,
            service: row.service,
            framed_ip: row.framed_ip,
            framed_prefix: row.framed_prefix,
            calling_station: row.calling_station,
            terminate_cause: row.terminate_cause,
            flags: mark::words(row.flags),
        })
    }
}
