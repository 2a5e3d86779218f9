//! What a person may ask of us: legal holds, the rows that tell who an account's person is, and taking them out. Totals, lines
//! and the audit's chain stay; who it was does not.

pub mod devices;
mod erase;
mod export;
mod inputs;
mod postings;
mod words;

use std::collections::BTreeSet;

pub use erase::{Asked, erase};
pub use export::rows_of;
use serde::Serialize;

use super::accounts::AccountRow;
use super::journal::RedactedSession;
use super::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// A legal hold that stands, or stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LegalHold {
    pub reason: String,
    pub case: Option<String>,
    pub placed_by: String,
    pub from_at: Timestamp,
    pub lifted_at: Option<Timestamp>,
    pub lifted_by: Option<String>,
}

/// Everything that tells who an account's person is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// As they stand in documents and columns.
    pub words: BTreeSet<String>,
    /// As octets, as they stand in packets too.
    pub octets: Vec<Vec<u8>>,
    pub sessions: Vec<RedactedSession>,
    /// (MAC, from, until) as the account held them; microseconds.
    pub macs: Vec<(String, i64, i64)>,
}

/// What an erasure took out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    pub sessions: u64,
    pub leases: u64,
    pub elements: u64,
    pub deeds: u64,
    pub calls: u64,
    /// What billing systems sent, as it came, that named the person.
    pub inputs: u64,
    /// Changes that waited for an operator, and what was observed.
    pub waiting: u64,
    /// Descriptions of charges, and of their lines.
    pub charges: u64,
    /// Answers, exceptions, events, deliveries, findings and faults in which the person was named.
    pub mentions: u64,
    /// Files of watched folders by which the account came: they stand where they are.
    pub files: Vec<String>,
}

const PLACE_HOLD: &str = "INSERT INTO legal_hold (account_id, reason, case_number, placed_by, from_at)
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (account_id) WHERE lifted_at IS NULL DO NOTHING";
const LIFT_HOLD: &str =
    "UPDATE legal_hold SET lifted_at = $2, lifted_by = $3 WHERE account_id = $1 AND lifted_at IS NULL";
const HOLDS: &str = "SELECT reason, case_number, placed_by, from_at, lifted_at, lifted_by FROM legal_hold
     WHERE account_id = $1 ORDER BY from_at DESC LIMIT 100";
const HELD_ACCOUNTS: &str =
    "SELECT account_id FROM legal_hold WHERE lifted_at IS NULL ORDER BY account_id LIMIT 1000000";
const LIVING_ELEMENTS: &str = "SELECT COUNT(*) FROM element WHERE account_id = $1 AND (state <> 'gone'
     OR EXISTS (SELECT 1 FROM job WHERE job.element_id = element.id AND job.finished_at IS NULL))";
const OPEN_SESSIONS: &str = "SELECT COUNT(*) FROM session WHERE account_id = $1 AND ended_at IS NULL";
const QUARANTINED: &str = "SELECT COUNT(*) FROM quarantine
     WHERE account_id = $1 AND until_at > $2 AND released_at IS NULL";
const HELD_VALUES: &str = "SELECT kind, value, from_at, until_at FROM holder WHERE account_id = $1
     ORDER BY id LIMIT 100000";
const SESSIONS: &str = "SELECT nas, session, started_at, user_name, framed_ip, framed_prefix,
        calling_station FROM session WHERE account_id = $1 ORDER BY id LIMIT 1000000";
const ERASURE: &str = "SELECT erased_at FROM erasure WHERE account_id = $1";
const SCRUB_OLD_SESSIONS: &str = "UPDATE session SET user_name = NULL, framed_ip = NULL, framed_prefix = NULL,
        calling_station = NULL
     WHERE id IN (SELECT session.id FROM session JOIN account ON account.id = session.account_id
        WHERE account.tenant = $1 AND session.ended_at < $2
          AND (session.user_name IS NOT NULL OR session.framed_ip IS NOT NULL OR session.framed_prefix IS NOT NULL
               OR session.calling_station IS NOT NULL)
          AND NOT EXISTS (SELECT 1 FROM legal_hold
                          WHERE legal_hold.account_id = session.account_id AND legal_hold.lifted_at IS NULL)
        ORDER BY session.id LIMIT $3)";
const DROP_OLD_LEASES: &str = "DELETE FROM address_lease
     WHERE id IN (SELECT address_lease.id FROM address_lease
        JOIN holder ON holder.kind = 'mac' AND holder.value IN (address_lease.mac, address_lease.behind)
             AND holder.from_at < address_lease.until_at
             AND (holder.until_at IS NULL OR holder.until_at > address_lease.since_at)
        JOIN account ON account.id = holder.account_id
        WHERE account.tenant = $1 AND address_lease.until_at < $2
          AND NOT EXISTS (SELECT 1 FROM legal_hold
                          WHERE legal_hold.account_id = account.id AND legal_hold.lifted_at IS NULL)
        ORDER BY address_lease.id LIMIT $3)";
const DROP_OLD_ANSWERS: &str = "DELETE FROM idempotency WHERE tenant = $1 AND key IN
        (SELECT key FROM idempotency WHERE tenant = $1 AND created_at < $2 ORDER BY key LIMIT $3)";

/// Places a legal hold; `false`: one stands already.
pub async fn hold(
    tx: &mut Tx,
    account_id: i64,
    reason: &str,
    case: Option<&str>,
    by: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let placed = on!(tx, c => sqlx::query(PLACE_HOLD)
        .bind(account_id)
        .bind(reason)
        .bind(case)
        .bind(by)
        .bind(to_micros(now))
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(placed == 1)
}

/// Lifts the legal hold; `false`: none stands.
pub async fn lift(tx: &mut Tx, account_id: i64, by: &str, now: Timestamp) -> Result<bool, StoreError> {
    let lifted = on!(tx, c => sqlx::query(LIFT_HOLD)
        .bind(account_id)
        .bind(to_micros(now))
        .bind(by)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(lifted == 1)
}

/// The legal holds of an account, the newest first.
pub async fn holds(tx: &mut Tx, account_id: i64) -> Result<Vec<LegalHold>, StoreError> {
    type Row = (String, Option<String>, String, i64, Option<i64>, Option<String>);
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(HOLDS).bind(account_id).fetch_all(c).await)?;
    let instant = |at: i64| {
        from_micros(at).ok_or_else(|| StoreError::Corrupt {
            table: "legal_hold",
            column: "from_at",
            id: account_id.to_string(),
        })
    };
    let hold = |(reason, case, placed_by, from_at, lifted_at, lifted_by): Row| {
        let lifted_at = lifted_at.map(instant).transpose()?;
        Ok(LegalHold { reason, case, placed_by, from_at: instant(from_at)?, lifted_at, lifted_by })
    };
    rows.into_iter().map(hold).collect()
}

/// Accounts under a legal hold.
pub async fn held_accounts(tx: &mut Tx) -> Result<BTreeSet<i64>, StoreError> {
    let ids: Vec<i64> = on!(tx, c => sqlx::query_scalar(HELD_ACCOUNTS).fetch_all(c).await)?;
    Ok(ids.into_iter().collect())
}

/// When the account's person was erased; `None`: never.
pub async fn erased_at(tx: &mut Tx, account_id: i64) -> Result<Option<Timestamp>, StoreError> {
    let at: Option<i64> = on!(tx, c => sqlx::query_scalar(ERASURE).bind(account_id).fetch_optional(c).await)?;
    Ok(at.and_then(from_micros))
}

/// Why the person of an account cannot be erased now, each with what to do; empty: they can.
pub async fn obstacles(tx: &mut Tx, row: &AccountRow, now: Timestamp) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    if let Some(hold) = holds(tx, row.id).await?.into_iter().find(|hold| hold.lifted_at.is_none()) {
        found.push(format!("it is under a legal hold since {:.0} ({}); lift that first", hold.from_at, hold.reason));
    }
    if row.closed_at.is_none() {
        found.push("it is not closed; close it and let it be deprovisioned first".to_owned());
    }
    let count = |count: i64, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let elements: i64 = on!(&mut *tx, c => sqlx::query_scalar(LIVING_ELEMENTS).bind(row.id).fetch_one(c).await)?;
    found.extend(count(elements, "of its elements are not taken down yet; see `job list`"));
    let open: i64 = on!(&mut *tx, c => sqlx::query_scalar(OPEN_SESSIONS).bind(row.id).fetch_one(c).await)?;
    found.extend(count(open, "of its sessions are open; end them with `session disconnect`"));
    let kept: i64 = on!(tx, c => sqlx::query_scalar(QUARANTINED).bind(row.id).bind(to_micros(now)).fetch_one(c).await)?;
    found.extend(count(kept, "of its addresses or numbers are kept from others; wait, or `quarantine release` them"));
    Ok(found)
}

/// Everything that tells who the account's person is, as it stands now.
pub async fn identity(tx: &mut Tx, row: &AccountRow) -> Result<Identity, StoreError> {
    let mut words = row.document.identity();
    let mut macs = Vec::new();
    let held: Vec<(String, String, i64, Option<i64>)> =
        on!(&mut *tx, c => sqlx::query_as(HELD_VALUES).bind(row.id).fetch_all(c).await)?;
    for (kind, value, from, until) in held.into_iter().filter(|(_, value, ..)| !value.starts_with(ERASED)) {
        if kind == "mac" {
            macs.push((value.clone(), from, until.unwrap_or(i64::MAX)));
        }
        words.insert(value);
    }
    type Session = (String, String, i64, Option<String>, Option<String>, Option<String>, Option<String>);
    let rows: Vec<Session> = on!(tx, c => sqlx::query_as(SESSIONS).bind(row.id).fetch_all(c).await)?;
    let mut sessions = Vec::with_capacity(rows.len());
    for (nas, session, started_at, user, address, prefix, station) in rows {
        words.extend([user, address, prefix, station].into_iter().flatten());
        sessions.push(RedactedSession { nas, session, from: started_at - ARRIVAL_SLACK });
    }
    let mut octets: BTreeSet<Vec<u8>> = BTreeSet::new();
    for word in &words {
        octets.extend(words::written(word));
    }
    Ok(Identity { words, octets: octets.into_iter().collect(), sessions, macs })
}

/// Takes names and addresses out of a tenant's sessions that ended before `before`, and drops its leases of that age, at most
/// `limit` of each. Accounts under a legal hold keep theirs.
pub async fn forget_sessions(tx: &mut Tx, tenant: &str, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
    let mut gone = 0;
    for statement in [SCRUB_OLD_SESSIONS, DROP_OLD_LEASES] {
        gone += bounded(tx, statement, tenant, before, limit).await?;
    }
    Ok(gone)
}

/// Drops answers that are kept for repeated requests, made before `before`, at most `limit`.
pub async fn forget_answers(tx: &mut Tx, tenant: &str, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
    bounded(tx, DROP_OLD_ANSWERS, tenant, before, limit).await
}

async fn bounded(
    tx: &mut Tx,
    statement: &'static str,
    tenant: &str,
    before: Timestamp,
    limit: i64,
) -> Result<u64, StoreError> {
    Ok(on!(tx, c => sqlx::query(statement)
        .bind(tenant)
        .bind(to_micros(before))
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?)
}

const ERASED: &str = "erased:";
/// Records may arrive so much before what they tell, microseconds: a clock that is a week ahead.
const ARRIVAL_SLACK: i64 = 7 * 86_400_000_000;
