//! What happened with an account, from every table that knows something of it, the newest first.

use serde::Serialize;

use super::accounts::AccountRow;
use super::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moment {
    pub at: Timestamp,
    /// `deed`, `job`, `session.started`, `session.ended`, `lease`, `line`, `charge`, `hold`, `exception`, `event`, `call`.
    pub kind: String,
    pub subject: String,
    pub detail: String,
}

/// Each gives at, kind, subject, detail: $1 is the account, $2 since and $3 until when, $4 how many.
const OF_ACCOUNT: [&str; 9] = [
    "SELECT at, 'deed' AS kind, action AS subject, actor || ' ' || detail AS detail FROM audit
     WHERE account_id = $1 AND at >= $2 AND at < $3 ORDER BY id DESC LIMIT $4",
    "SELECT job.updated_at, 'job' AS kind, element.kind || ' ' || element.key,
            job.state || COALESCE(': ' || job.last_error, '')
     FROM job JOIN element ON element.id = job.element_id
     WHERE job.account_id = $1 AND job.updated_at >= $2 AND job.updated_at < $3 ORDER BY job.id DESC LIMIT $4",
    "SELECT started_at, 'session.started' AS kind, nas || ' ' || session,
            COALESCE(user_name, '-') || ' ' || COALESCE(framed_ip, framed_prefix, '-') || ' ' || COALESCE(calling_station, '-')
     FROM session WHERE account_id = $1 AND started_at >= $2 AND started_at < $3 ORDER BY started_at DESC LIMIT $4",
    "SELECT ended_at, 'session.ended' AS kind, nas || ' ' || session,
            CAST(in_octets AS TEXT) || ' up, ' || CAST(out_octets AS TEXT) || ' down'
     FROM session WHERE account_id = $1 AND ended_at >= $2 AND ended_at < $3 ORDER BY ended_at DESC LIMIT $4",
    "SELECT address_lease.since_at, 'lease' AS kind, address_lease.kind || ' ' || address_lease.mac,
            address_lease.address || ' at ' || address_lease.cmts
     FROM address_lease JOIN holder ON holder.kind = 'mac'
          AND holder.value IN (address_lease.mac, address_lease.behind)
          AND holder.from_at < address_lease.until_at
          AND (holder.until_at IS NULL OR holder.until_at > address_lease.since_at)
     WHERE holder.account_id = $1 AND address_lease.since_at >= $2 AND address_lease.since_at < $3
     ORDER BY address_lease.since_at DESC LIMIT $4",
    "SELECT line.created_at, 'line' AS kind, line.id, line.charge || ' ' || COALESCE(line.service, '-') || ' in ' || line.batch
     FROM line JOIN batch ON batch.id = line.batch
     WHERE line.account_id = $1 AND batch.state <> 'building' AND line.created_at >= $2 AND line.created_at < $3
     ORDER BY line.created_at DESC LIMIT $4",
    "SELECT created_at, 'charge' AS kind, COALESCE(external_id, '-'), posted_by FROM posted_charge
     WHERE account_id = $1 AND created_at >= $2 AND created_at < $3 ORDER BY id DESC LIMIT $4",
    "SELECT from_at, 'hold' AS kind, kind || ' ' || COALESCE(service, '-'), placed_by FROM operator_hold
     WHERE account_id = $1 AND from_at >= $2 AND from_at < $3 ORDER BY id DESC LIMIT $4",
    "SELECT started_at, 'call' AS kind, number || ' to ' || destination, CAST(seconds AS TEXT) || ' s' FROM call_record
     WHERE account_id = $1 AND started_at >= $2 AND started_at < $3 ORDER BY started_at DESC LIMIT $4",
];
const EXCEPTIONS: &str = "SELECT opened_at, 'exception' AS kind, kind AS subject, detail FROM exception
     WHERE subject = $1 AND tenant = $2 AND opened_at >= $3 AND opened_at < $4 ORDER BY id DESC LIMIT $5";

type Row = (i64, String, String, String);

/// What happened in `[since, until)`, the newest first, at most `limit`.
pub async fn of_account(
    tx: &mut Tx,
    account: &AccountRow,
    since: Timestamp,
    until: Timestamp,
    limit: i64,
) -> Result<Vec<Moment>, StoreError> {
    let (since, until) = (to_micros(since), to_micros(until));
    let mut rows: Vec<Row> = Vec::new();
    for statement in OF_ACCOUNT {
        let found: Vec<Row> = on!(&mut *tx, c => sqlx::query_as(statement)
            .bind(account.id)
            .bind(since)
            .bind(until)
            .bind(limit)
            .fetch_all(c)
            .await)?;
        rows.extend(found);
    }
    let subject = format!("{}/{}/{}", account.tenant, account.source, account.external_id);
    let found: Vec<Row> = on!(tx, c => sqlx::query_as(EXCEPTIONS)
        .bind(subject)
        .bind(&account.tenant)
        .bind(since)
        .bind(until)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.extend(found);
    rows.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let moment = |(at, kind, subject, detail): Row| {
        let at =
            from_micros(at).ok_or_else(|| StoreError::Corrupt { table: "timeline", column: "at", id: at.to_string() });
        Ok(Moment { at: at?, kind, subject, detail })
    };
    rows.into_iter().map(moment).collect()
}
