//! Sessions as folded from the journal: loaded and saved in bulk by the fold, which alone writes them.
//!
//! A row's columns are what lists and indexes need; `body` is the fold's own state and the truth. Bulk statements send
//! their rows as one JSON array or as multi-row `VALUES` with `?` to SQLite, as arrays to PostgreSQL (HOUSE, decision 4).

use std::net::IpAddr;
use std::sync::Arc;

use sqlx::FromRow;

use super::bulk::{Bulk, Values};
use super::{StoreError, Tx, on};
use crate::usage::SessionState;
use crate::vocabulary::{Timestamp, to_micros};

/// One incarnation with everything the fold keeps of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSession {
    /// `None` until it is saved for the first time.
    pub id: Option<i64>,
    pub nas: String,
    pub session: String,
    pub incarnation: i64,
    pub user_name: Option<String>,
    pub owner: Option<Owner>,
    pub framed_ip: Option<IpAddr>,
    pub framed_prefix: Option<String>,
    pub calling_station: Option<String>,
    pub terminate_cause: Option<u32>,
    /// RADIUS Class, as it was sent first.
    pub class: Option<String>,
    /// What its usage is called where it is rated otherwise; decided once, when its owner was found.
    pub usage_class: Option<Arc<str>>,
    /// A record was older than the fold remembers: all records must be read again.
    pub refold: bool,
    pub state: SessionState,
}

/// The account and service a session's usage belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    pub account_id: i64,
    pub service_id: i64,
}

macro_rules! select_session {
    ($rest:literal) => {
        concat!(
            "SELECT session.id, session.nas, session.session, session.incarnation, session.user_name,
                    session.account_id, session.service_id, session.framed_ip, session.framed_prefix,
                    session.calling_station, session.terminate_cause, session.class, session.usage_class,
                    session.refold, session.body ",
            $rest
        )
    };
}

const OF_KEYS_SQLITE: &str = select_session!(
    "FROM json_each($1) AS key CROSS JOIN session
     WHERE session.nas = key.value ->> 0 AND session.session = key.value ->> 1
     ORDER BY session.id"
);
// OFFSET keeps the planner from beginning with the table, which it takes for empty until it was analysed.
const OF_KEYS_POSTGRES: &str = select_session!(
    "FROM UNNEST($1::TEXT[], $2::TEXT[]) AS key (nas, session) CROSS JOIN LATERAL
       (SELECT * FROM session AS held WHERE held.nas = key.nas AND held.session = key.session OFFSET 0) AS session
     ORDER BY session.id"
);
const OF_IDS_SQLITE: &str = select_session!(
    "FROM json_each($1) AS key CROSS JOIN session ON session.id = key.value
     ORDER BY session.id"
);
const OF_IDS_POSTGRES: &str = select_session!("FROM session WHERE session.id = ANY($1) ORDER BY session.id");
const PENDING_OF_ACCOUNTS_SQLITE: &str = select_session!(
    "FROM json_each($1) AS key CROSS JOIN session ON session.account_id = key.value
     WHERE session.pending ORDER BY session.id"
);
const PENDING_OF_ACCOUNTS_POSTGRES: &str =
    select_session!("FROM session WHERE session.account_id = ANY($1) AND session.pending ORDER BY session.id");
const HAS_PENDING_SQLITE: &str = "SELECT CAST(EXISTS (SELECT 1 FROM json_each($1) AS key CROSS JOIN session
       ON session.account_id = key.value WHERE session.pending) AS BIGINT)";
const HAS_PENDING_POSTGRES: &str =
    "SELECT EXISTS (SELECT 1 FROM session WHERE session.account_id = ANY($1) AND session.pending)::INT::BIGINT";
const NEWEST_SQLITE: &str = "SELECT CAST(COALESCE(MAX(id), 0) AS BIGINT) FROM session";
const NEXT_IDS_POSTGRES: &str = "SELECT nextval('session_id_seq') FROM generate_series(1::BIGINT, $1)";
macro_rules! insert {
    ($($rest:expr),*) => {
        concat!(
            "INSERT INTO session (id, nas, session, incarnation, user_name, account_id, service_id, state, started_at,
                last_event_at, ended_at, in_octets, out_octets, seconds, framed_ip, framed_prefix, calling_station,
                terminate_cause, flags, pending, refold, body, class, usage_class)",
            $($rest),*
        )
    };
}
macro_rules! or_update {
    () => {
        " ON CONFLICT (id) DO UPDATE SET
            user_name = excluded.user_name, account_id = excluded.account_id, service_id = excluded.service_id,
            state = excluded.state, started_at = excluded.started_at, last_event_at = excluded.last_event_at,
            ended_at = excluded.ended_at, in_octets = excluded.in_octets, out_octets = excluded.out_octets,
            seconds = excluded.seconds, framed_ip = excluded.framed_ip,
            framed_prefix = excluded.framed_prefix, calling_station = excluded.calling_station,
            terminate_cause = excluded.terminate_cause, flags = excluded.flags, pending = excluded.pending,
            refold = excluded.refold, body = excluded.body, class = excluded.class,
            usage_class = excluded.usage_class"
    };
}
macro_rules! from_arrays {
    () => {
        " SELECT * FROM UNNEST($1::BIGINT[], $2::TEXT[], $3::TEXT[], $4::BIGINT[], $5::TEXT[], $6::BIGINT[],
            $7::BIGINT[], $8::TEXT[], $9::BIGINT[], $10::BIGINT[], $11::BIGINT[], $12::BIGINT[], $13::BIGINT[],
            $14::BIGINT[], $15::TEXT[], $16::TEXT[], $17::TEXT[], $18::BIGINT[], $19::BIGINT[], $20::BOOLEAN[],
            $21::BOOLEAN[], $22::BYTEA[], $23::TEXT[], $24::TEXT[])"
    };
}
// New rows apart: to look for what one might stand in the way of costs as much again as writing it.
static INSERT_SQLITE: Bulk = Bulk::new(insert!(), 24, "");
static SAVE_SQLITE: Bulk = Bulk::new(insert!(), 24, or_update!());
const INSERT_POSTGRES: &str = insert!(from_arrays!());
const SAVE_POSTGRES: &str = insert!(from_arrays!(), or_update!());
// `UNION` leaves out what two keys find; each arm has an index of its own.
const UNATTRIBUTED_HELD: &str = "SELECT session.id FROM holder JOIN session
       ON LOWER(session.user_name) = LOWER(holder.value)
     WHERE holder.id > $1 AND holder.kind = 'username' AND session.service_id IS NULL AND session.id > $2
     UNION SELECT session.id FROM holder JOIN session ON session.framed_ip = holder.value
     WHERE holder.id > $1 AND holder.kind = 'address' AND session.service_id IS NULL AND session.id > $2
     UNION SELECT session.id FROM holder JOIN session ON session.framed_prefix = holder.value
     WHERE holder.id > $1 AND holder.kind = 'address' AND session.service_id IS NULL AND session.id > $2
     UNION SELECT session.id FROM holder JOIN session ON session.calling_station = holder.value
     WHERE holder.id > $1 AND holder.kind = 'mac' AND session.service_id IS NULL AND session.id > $2
     ORDER BY 1 LIMIT $3";
const NEWEST_HOLDER: &str = "SELECT CAST(COALESCE(MAX(id), 0) AS BIGINT) FROM holder";
const REBOOTED: &str = "SELECT id FROM session
     WHERE nas = $1 AND ended_at IS NULL AND started_at <= $2 AND last_event_at <= $2
     ORDER BY started_at LIMIT $3";
const TO_REFOLD: &str = "SELECT id FROM session WHERE refold ORDER BY id LIMIT $1";
const COUNT_TO_REFOLD: &str = "SELECT COUNT(*) FROM session WHERE refold";
// The mark 32: a counter rose faster than the link can carry.
const IMPOSSIBLE: &str = "SELECT session.nas, session.session FROM session
     WHERE (session.flags & 32) <> 0 AND NOT EXISTS (SELECT 1 FROM exception
         WHERE exception.kind = 'impossible_rate' AND exception.subject = session.nas || '/' || session.session)
     ORDER BY session.id LIMIT $1";
const MARK_STALE: &str = "UPDATE session SET state = 'stale'
     WHERE state = 'open' AND ended_at IS NULL AND last_event_at < $2
       AND (nas = $1 OR (nas >= $3 AND nas < $4))";
const COUNT_OPEN: &str = "SELECT COUNT(*) FROM session WHERE ended_at IS NULL";

/// All incarnations of these (NAS identity, Acct-Session-Id) pairs.
pub async fn of_keys(tx: &mut Tx, keys: &[(&str, &str)]) -> Result<Vec<StoredSession>, StoreError> {
    let rows: Vec<Row> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(OF_KEYS_SQLITE).bind(json(&keys)).fetch_all(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => {
            let (nas, sessions): (Vec<&str>, Vec<&str>) = keys.iter().copied().unzip();
            sqlx::query_as(OF_KEYS_POSTGRES).bind(nas).bind(sessions).fetch_all(&mut **transaction).await?
        }
    };
    rows.into_iter().map(StoredSession::try_from).collect()
}

/// The sessions of these ids that exist.
pub async fn of_ids(tx: &mut Tx, ids: &[i64]) -> Result<Vec<StoredSession>, StoreError> {
    of_numbers(tx, ids, OF_IDS_SQLITE, OF_IDS_POSTGRES).await
}

/// The sessions of these accounts that have usage not in the ledger yet.
pub async fn pending_of_accounts(tx: &mut Tx, account_ids: &[i64]) -> Result<Vec<StoredSession>, StoreError> {
    of_numbers(tx, account_ids, PENDING_OF_ACCOUNTS_SQLITE, PENDING_OF_ACCOUNTS_POSTGRES).await
}

/// Whether any of these accounts has usage that is not in the ledger yet.
pub async fn any_pending(tx: &mut Tx, account_ids: &[i64]) -> Result<bool, StoreError> {
    let any: i64 = match tx {
        Tx::Sqlite(held) => {
            sqlx::query_scalar(HAS_PENDING_SQLITE).bind(json(&account_ids)).fetch_one(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_scalar(HAS_PENDING_POSTGRES).bind(account_ids).fetch_one(&mut **transaction).await?
        }
    };
    Ok(any != 0)
}

/// Writes new and changed sessions; new ones get their ids.
pub async fn save(tx: &mut Tx, sessions: &mut [&mut StoredSession]) -> Result<(), StoreError> {
    let (mut new, known): (Vec<&mut StoredSession>, Vec<&mut StoredSession>) =
        sessions.iter_mut().map(|session| &mut **session).partition(|session| session.id.is_none());
    if !new.is_empty() {
        number(tx, &mut new).await?;
        write(tx, &new, &INSERT_SQLITE, INSERT_POSTGRES).await?;
    }
    if !known.is_empty() {
        write(tx, &known, &SAVE_SQLITE, SAVE_POSTGRES).await?;
    }
    Ok(())
}

async fn write(
    tx: &mut Tx,
    sessions: &[&mut StoredSession],
    sqlite: &'static Bulk,
    postgres: &'static str,
) -> Result<(), StoreError> {
    let columns: Vec<Columns<'_>> = sessions.iter().map(|session| Columns::of(session)).collect();
    match tx {
        Tx::Sqlite(held) => {
            let put = |c: &Columns<'_>, row: &mut Values| {
                row.put(c.id).put(c.nas).put(c.session).put(c.incarnation);
                row.put(c.user_name).put(c.account_id).put(c.service_id).put(c.state);
                row.put(c.started_at).put(c.last_event_at).put(c.ended_at);
                row.put(c.in_octets).put(c.out_octets).put(c.seconds);
                row.put(c.framed_ip.as_deref()).put(c.framed_prefix).put(c.calling_station).put(c.terminate_cause);
                row.put(c.flags).put(c.pending).put(c.refold).put(c.body.as_slice());
                row.put(c.class).put(c.usage_class);
            };
            sqlite.execute(held, &columns, put).await?;
        }
        Tx::Postgres(transaction) => {
            macro_rules! column {
                ($field:ident) => {
                    columns.iter().map(|c| c.$field).collect::<Vec<_>>()
                };
            }
            sqlx::query(postgres)
                .bind(column!(id))
                .bind(column!(nas))
                .bind(column!(session))
                .bind(column!(incarnation))
                .bind(column!(user_name))
                .bind(column!(account_id))
                .bind(column!(service_id))
                .bind(column!(state))
                .bind(column!(started_at))
                .bind(column!(last_event_at))
                .bind(column!(ended_at))
                .bind(column!(in_octets))
                .bind(column!(out_octets))
                .bind(column!(seconds))
                .bind(columns.iter().map(|c| c.framed_ip.as_deref()).collect::<Vec<_>>())
                .bind(column!(framed_prefix))
                .bind(column!(calling_station))
                .bind(column!(terminate_cause))
                .bind(column!(flags))
                .bind(column!(pending))
                .bind(column!(refold))
                .bind(columns.iter().map(|c| c.body.as_slice()).collect::<Vec<_>>())
                .bind(column!(class))
                .bind(column!(usage_class))
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

/// Sessions nobody owns whose user name has a holder newer than `after_holder`, by id after `after_session`.
pub async fn unattributed_held(
    tx: &mut Tx,
    after_holder: i64,
    after_session: i64,
    limit: i64,
) -> Result<Vec<i64>, StoreError> {
    let ids = on!(tx, c => sqlx::query_scalar(UNATTRIBUTED_HELD)
        .bind(after_holder)
        .bind(after_session)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    Ok(ids)
}

/// (NAS identity, Acct-Session-Id) of sessions whose counters rose faster than their link can carry, and of which nobody
/// was told yet.
pub async fn impossible(tx: &mut Tx, limit: i64) -> Result<Vec<(String, String)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(IMPOSSIBLE).bind(limit).fetch_all(c).await)?)
}

/// The newest holder's number; 0 when there is none. It tells whether looking for owners again is worth it.
pub async fn newest_holder(tx: &mut Tx) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(NEWEST_HOLDER).fetch_one(c).await)?)
}

/// Open sessions of an identity that all of its reports put at or before its reboot.
pub async fn rebooted(tx: &mut Tx, nas: &str, rebooted_at: i64, limit: i64) -> Result<Vec<i64>, StoreError> {
    let ids = on!(tx, c => sqlx::query_scalar(REBOOTED).bind(nas).bind(rebooted_at).bind(limit).fetch_all(c).await)?;
    Ok(ids)
}

/// Sessions whose records must all be read again.
pub async fn to_refold(tx: &mut Tx, limit: i64) -> Result<Vec<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(TO_REFOLD).bind(limit).fetch_all(c).await)?)
}

/// How many sessions wait for that.
pub async fn count_to_refold(tx: &mut Tx) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(COUNT_TO_REFOLD).fetch_one(c).await)?)
}

/// Calls open sessions of a configured client stale that have not reported since `silent_since`. Invents no end.
pub async fn mark_stale(tx: &mut Tx, client: &str, silent_since: Timestamp) -> Result<u64, StoreError> {
    // Identities of a client are its own name, or `client/inner`; '0' is the octet after '/'.
    let (from, until) = (format!("{client}/"), format!("{client}0"));
    let done = on!(tx, c => sqlx::query(MARK_STALE)
        .bind(client)
        .bind(to_micros(silent_since))
        .bind(&from)
        .bind(&until)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(done)
}

/// How many sessions are open.
pub async fn count_open(tx: &mut Tx) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(COUNT_OPEN).fetch_one(c).await)?)
}

async fn of_numbers(
    tx: &mut Tx,
    numbers: &[i64],
    sqlite: &'static str,
    postgres: &'static str,
) -> Result<Vec<StoredSession>, StoreError> {
    let rows: Vec<Row> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(sqlite).bind(json(&numbers)).fetch_all(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => sqlx::query_as(postgres).bind(numbers).fetch_all(&mut **transaction).await?,
    };
    rows.into_iter().map(StoredSession::try_from).collect()
}

async fn number(tx: &mut Tx, new: &mut [&mut StoredSession]) -> Result<(), StoreError> {
    let ids: Vec<i64> = match tx {
        Tx::Sqlite(held) => {
            // Nobody else writes while this transaction holds the write lock.
            let newest: i64 = sqlx::query_scalar(NEWEST_SQLITE).fetch_one(&mut *held.transaction).await?;
            (newest + 1..).take(new.len()).collect()
        }
        Tx::Postgres(transaction) => {
            let count = i64::try_from(new.len()).expect("a batch is bounded");
            sqlx::query_scalar(NEXT_IDS_POSTGRES).bind(count).fetch_all(&mut **transaction).await?
        }
    };
    new.iter_mut().zip(ids).for_each(|(session, id)| session.id = Some(id));
    Ok(())
}

pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}

/// A session spread over its columns.
struct Columns<'a> {
    id: Option<i64>,
    nas: &'a str,
    session: &'a str,
    incarnation: i64,
    user_name: Option<&'a str>,
    account_id: Option<i64>,
    service_id: Option<i64>,
    state: &'static str,
    started_at: i64,
    last_event_at: i64,
    ended_at: Option<i64>,
    in_octets: i64,
    out_octets: i64,
    seconds: i64,
    framed_ip: Option<String>,
    framed_prefix: Option<&'a str>,
    calling_station: Option<&'a str>,
    terminate_cause: Option<i64>,
    flags: i64,
    pending: bool,
    refold: bool,
    body: Vec<u8>,
    class: Option<&'a str>,
    usage_class: Option<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(stored: &'a StoredSession) -> Self {
        let totals = stored.state.totals();
        Self {
            id: stored.id,
            nas: &stored.nas,
            session: &stored.session,
            incarnation: stored.incarnation,
            user_name: stored.user_name.as_deref(),
            account_id: stored.owner.map(|owner| owner.account_id),
            service_id: stored.owner.map(|owner| owner.service_id),
            state: stored.state.word(),
            started_at: stored.state.started_at(),
            last_event_at: stored.state.last_at(),
            ended_at: stored.state.ended_at(),
            in_octets: totals.in_octets,
            out_octets: totals.out_octets,
            seconds: totals.seconds,
            framed_ip: stored.framed_ip.map(|address| address.to_string()),
            framed_prefix: stored.framed_prefix.as_deref(),
            calling_station: stored.calling_station.as_deref(),
            terminate_cause: stored.terminate_cause.map(i64::from),
            flags: i64::from(stored.state.marks()),
            pending: !stored.state.pending().is_empty(),
            refold: stored.refold,
            body: stored.state.encode(),
            class: stored.class.as_deref(),
            usage_class: stored.usage_class.as_deref(),
        }
    }
}

#[derive(FromRow)]
struct Row {
    id: i64,
    nas: String,
    session: String,
    incarnation: i64,
    user_name: Option<String>,
    account_id: Option<i64>,
    service_id: Option<i64>,
    framed_ip: Option<String>,
    framed_prefix: Option<String>,
    calling_station: Option<String>,
    terminate_cause: Option<i64>,
    class: Option<String>,
    usage_class: Option<String>,
    refold: bool,
    body: Vec<u8>,
}

impl TryFrom<Row> for StoredSession {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "session", column, id: row.id.to_string() };
        let state = SessionState::decode(&row.body).map_err(|_| corrupt("body"))?;
        let owner = match (row.account_id, row.service_id) {
            (Some(account_id), Some(service_id)) => Some(Owner { account_id, service_id }),
            (None, None) => None,
            _ => return Err(corrupt("service_id")),
        };
        let framed_ip = row.framed_ip.as_deref().map(str::parse).transpose().map_err(|_| corrupt("framed_ip"))?;
        let terminate_cause =
            row.terminate_cause.map(u32::try_from).transpose().map_err(|_| corrupt("terminate_cause"))?;
        Ok(Self {
            id: Some(row.id),
            nas: row.nas,
            session: row.session,
            incarnation: row.incarnation,
            user_name: row.user_name,
            owner,
            framed_ip,
            framed_prefix: row.framed_prefix,
            calling_station: row.calling_station,
            terminate_cause,
            class: row.class,
            usage_class: row.usage_class.map(Arc::from),
            refold: row.refold,
            state,
        })
    }
}
