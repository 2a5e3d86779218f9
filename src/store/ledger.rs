//! The usage ledger: appended to, never updated, with a dense sequence per account; and the running totals beside it.
//!
//! `flush` is how a bill run asks for usage whose hour is not complete yet. Whoever changes sessions or the ledger
//! takes a turn of the fold's claim or interrupts it, so that no two processes fold at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;
use sqlx::FromRow;

use super::bulk::{Bulk, Values};
use super::sessions::{self, Owner, StoredSession, json};
use super::{StoreError, Tx, fold, ledger_totals, on};
use crate::usage::{Amount, Cuts, LedgerBucket};
use crate::vocabulary::{Timestamp, to_micros};

/// Why an entry was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its hour was complete, or its session over.
    Usage,
    /// A record came late, for an hour that had been written.
    Late,
    /// The session's owner was found.
    Attached,
    /// A bill run asked.
    Flush,
    /// All records of a session were read again, and this is the difference.
    Refold,
    /// A telephone call.
    Call,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Usage => "usage",
            Cause::Late => "late",
            Cause::Attached => "attached",
            Cause::Flush => "flush",
            Cause::Refold => "refold",
            Cause::Call => "call",
        }
    }
}

/// An entry on its way into the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    pub owner: Owner,
    pub session_id: i64,
    pub bucket: LedgerBucket,
    pub cause: Cause,
    /// Start of the account's period that it begins in; `None` while the account's cycle is unknown.
    pub period_start_at: Option<i64>,
    /// The session's class of usage.
    pub class: Option<Arc<str>>,
}

/// Where an account's usage is cut.
#[derive(Debug, Clone, Copy)]
pub struct Cutting<'a> {
    /// Where its billing periods begin, ascending, as far as usage can reach.
    pub edges: &'a [Timestamp],
    /// These, and where the fold cuts entries besides.
    pub cuts: Cuts<'a>,
}

/// Where each account's usage is cut.
pub type CuttingOf<'a> = dyn Fn(i64) -> Cutting<'a> + Sync + 'a;

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct LedgerEntry {
    pub account_id: i64,
    pub sequence: i64,
    pub service_id: i64,
    pub session_id: i64,
    pub from_at: i64,
    pub until_at: i64,
    pub in_octets: i64,
    pub out_octets: i64,
    pub seconds: i64,
    pub sessions: i64,
    pub cause: String,
    pub recorded_at: i64,
    /// The class of usage, where it is rated otherwise.
    pub class: Option<String>,
    /// The number called, where it is a call.
    pub called: Option<String>,
}

// The newest by the index, whatever the planner believes of the table: MAX may read all of an account's entries.
const LAST_SQLITE: &str = "SELECT key.value, CAST(COALESCE(
        (SELECT sequence FROM ledger WHERE account_id = key.value ORDER BY sequence DESC LIMIT 1), 0) AS BIGINT)
     FROM json_each($1) AS key";
const LAST_POSTGRES: &str = "SELECT key.id, COALESCE(
        (SELECT sequence FROM ledger WHERE account_id = key.id ORDER BY sequence DESC LIMIT 1), 0)
     FROM UNNEST($1::BIGINT[]) AS key (id)";
static APPEND_SQLITE: Bulk = Bulk::new(
    "INSERT INTO ledger (account_id, sequence, service_id, session_id, from_at, until_at, in_octets, out_octets, seconds,
     sessions, cause, recorded_at, class)",
    13,
    "",
);
const APPEND_POSTGRES: &str = "INSERT INTO ledger (account_id, sequence, service_id, session_id, from_at, until_at,
     in_octets, out_octets, seconds, sessions, cause, class, recorded_at)
     SELECT entry.*, $13 FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[],
     $6::BIGINT[], $7::BIGINT[], $8::BIGINT[], $9::BIGINT[], $10::BIGINT[], $11::TEXT[], $12::TEXT[]) AS entry";
// A sum that would leave 64 bits stays behind the ledger: SQLite would make an inexact real of it, and PostgreSQL an error
// that stops the fold of everybody.
macro_rules! add_totals_tail {
    () => {
        " ON CONFLICT (service_id, period_start_at) DO UPDATE SET
            in_octets = usage_total.in_octets + excluded.in_octets,
            out_octets = usage_total.out_octets + excluded.out_octets,
            seconds = usage_total.seconds + excluded.seconds, sessions = usage_total.sessions + excluded.sessions
          WHERE usage_total.in_octets <= 9223372036854775807
                - CASE WHEN excluded.in_octets > 0 THEN excluded.in_octets ELSE 0 END
            AND usage_total.out_octets <= 9223372036854775807
                - CASE WHEN excluded.out_octets > 0 THEN excluded.out_octets ELSE 0 END"
    };
}
static ADD_TOTALS_SQLITE: Bulk = Bulk::new(
    "INSERT INTO usage_total (service_id, period_start_at, in_octets, out_octets, seconds, sessions)",
    6,
    add_totals_tail!(),
);
const ADD_TOTALS_POSTGRES: &str = concat!(
    "INSERT INTO usage_total (service_id, period_start_at, in_octets, out_octets, seconds, sessions)
     SELECT * FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[])",
    add_totals_tail!()
);
const OF_SESSION: &str = "SELECT account_id, sequence, service_id, session_id, from_at, until_at, in_octets,
        out_octets, seconds, sessions, cause, recorded_at, class, CASE WHEN session_id < 0 THEN
        (SELECT destination FROM call_record WHERE call_record.id = -ledger.session_id) END AS called FROM ledger
     WHERE account_id = $1 AND session_id = $2 ORDER BY sequence LIMIT 1000000";
const OF_ACCOUNT: &str = "SELECT account_id, sequence, service_id, session_id, from_at, until_at, in_octets,
        out_octets, seconds, sessions, cause, recorded_at, class, CASE WHEN session_id < 0 THEN
        (SELECT destination FROM call_record WHERE call_record.id = -ledger.session_id) END AS called FROM ledger
     WHERE account_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
const AFTER: &str = "SELECT account_id, sequence, service_id, session_id, from_at, until_at, in_octets,
        out_octets, seconds, sessions, cause, recorded_at, class, CASE WHEN session_id < 0 THEN
        (SELECT destination FROM call_record WHERE call_record.id = -ledger.session_id) END AS called FROM ledger
     WHERE (account_id, sequence) > ($1, $2) ORDER BY account_id, sequence LIMIT $3";

/// Appends entries with the next sequences of their accounts, in the order given.
pub async fn append(tx: &mut Tx, entries: &[NewEntry], now: Timestamp) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let sequences = number(tx, entries).await?;
    ledger_totals::add(tx, entries, &sequences).await?;
    let rows: Vec<(i64, &NewEntry)> = sequences.into_iter().zip(entries).collect();
    let now = to_micros(now);
    match tx {
        Tx::Sqlite(held) => {
            let put = |(sequence, entry): &(i64, &NewEntry), row: &mut Values| {
                let bucket = &entry.bucket;
                row.put(entry.owner.account_id).put(*sequence).put(entry.owner.service_id);
                row.put(entry.session_id).put(bucket.from_at).put(bucket.until_at);
                row.put(bucket.amount.in_octets).put(bucket.amount.out_octets);
                row.put(bucket.amount.seconds).put(bucket.amount.sessions);
                row.put(entry.cause.as_str()).put(now).put(entry.class.as_deref());
            };
            APPEND_SQLITE.execute(held, &rows, put).await?;
        }
        Tx::Postgres(transaction) => {
            let column = |read: fn(&NewEntry) -> i64| entries.iter().map(read).collect::<Vec<i64>>();
            sqlx::query(APPEND_POSTGRES)
                .bind(column(|entry| entry.owner.account_id))
                .bind(rows.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>())
                .bind(column(|entry| entry.owner.service_id))
                .bind(column(|entry| entry.session_id))
                .bind(column(|entry| entry.bucket.from_at))
                .bind(column(|entry| entry.bucket.until_at))
                .bind(column(|entry| entry.bucket.amount.in_octets))
                .bind(column(|entry| entry.bucket.amount.out_octets))
                .bind(column(|entry| entry.bucket.amount.seconds))
                .bind(column(|entry| entry.bucket.amount.sessions))
                .bind(entries.iter().map(|entry| entry.cause.as_str()).collect::<Vec<_>>())
                .bind(entries.iter().map(|entry| entry.class.as_deref()).collect::<Vec<_>>())
                .bind(now)
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

/// Adds to the running totals of (service, period start).
pub async fn add_totals(tx: &mut Tx, changes: &BTreeMap<(i64, i64), Amount>) -> Result<(), StoreError> {
    let rows: Vec<(i64, i64, Amount)> = changes
        .iter()
        .filter(|(_, amount)| !amount.is_zero())
        .map(|((service, period), amount)| (*service, *period, *amount))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    match tx {
        Tx::Sqlite(held) => {
            let put = |(service, period, amount): &(i64, i64, Amount), row: &mut Values| {
                row.put(*service).put(*period).put(amount.in_octets);
                row.put(amount.out_octets).put(amount.seconds).put(amount.sessions);
            };
            ADD_TOTALS_SQLITE.execute(held, &rows, put).await?;
        }
        Tx::Postgres(transaction) => {
            let column = |read: fn(&(i64, i64, Amount)) -> i64| rows.iter().map(read).collect::<Vec<i64>>();
            sqlx::query(ADD_TOTALS_POSTGRES)
                .bind(column(|(service, ..)| *service))
                .bind(column(|(_, period, _)| *period))
                .bind(column(|(.., amount)| amount.in_octets))
                .bind(column(|(.., amount)| amount.out_octets))
                .bind(column(|(.., amount)| amount.seconds))
                .bind(column(|(.., amount)| amount.sessions))
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

/// Writes into the ledger what the sessions of these accounts used before `until` and is not there yet. Call it at the
/// start of a bill run's transaction; the fold waits until that ends. Gives the number of entries written.
pub async fn flush(
    tx: &mut Tx,
    account_ids: &[i64],
    until: Timestamp,
    cutting: &CuttingOf<'_>,
    now: Timestamp,
) -> Result<usize, StoreError> {
    fold::interrupt(tx).await?;
    let (mut pending, entries) = take_pending(tx, account_ids, until, cutting).await?;
    let changed: Vec<i64> = entries.iter().map(|entry| entry.session_id).collect();
    let mut changed: Vec<_> =
        pending.iter_mut().filter(|stored| stored.id.is_some_and(|id| changed.contains(&id))).collect();
    sessions::save(tx, &mut changed).await?;
    append(tx, &entries, now).await?;
    Ok(entries.len())
}

/// What `flush` would write now, in its order; nothing is written. For whoever only looks at a period that runs.
pub async fn pending(
    tx: &mut Tx,
    account_ids: &[i64],
    until: Timestamp,
    cutting: &CuttingOf<'_>,
) -> Result<Vec<NewEntry>, StoreError> {
    Ok(take_pending(tx, account_ids, until, cutting).await?.1)
}

async fn take_pending(
    tx: &mut Tx,
    account_ids: &[i64],
    until: Timestamp,
    cutting: &CuttingOf<'_>,
) -> Result<(Vec<StoredSession>, Vec<NewEntry>), StoreError> {
    let mut pending = sessions::pending_of_accounts(tx, account_ids).await?;
    let mut entries = Vec::new();
    for stored in &mut pending {
        let (Some(owner), Some(session_id)) = (stored.owner, stored.id) else { continue };
        let Cutting { edges, cuts } = cutting(owner.account_id);
        // Gathered in quarter hours, told as five minutes it would be a peak that never was.
        if stored.refold && cuts.fine {
            continue;
        }
        for bucket in stored.state.take_until(until, cuts) {
            let after = edges.partition_point(|edge| to_micros(*edge) <= bucket.from_at);
            let period_start_at = after.checked_sub(1).map(|index| to_micros(edges[index]));
            let class = stored.usage_class.clone();
            entries.push(NewEntry { owner, session_id, bucket, cause: Cause::Flush, period_start_at, class });
        }
    }
    Ok((pending, entries))
}

/// The last sequence of each of these accounts; 0 where the ledger holds nothing.
pub async fn last_sequences(tx: &mut Tx, accounts: &[i64]) -> Result<HashMap<i64, i64>, StoreError> {
    let last: Vec<(i64, i64)> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(LAST_SQLITE).bind(json(&accounts)).fetch_all(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => sqlx::query_as(LAST_POSTGRES).bind(accounts).fetch_all(&mut **transaction).await?,
    };
    Ok(last.into_iter().collect())
}

/// What the ledger holds of one session.
pub async fn of_session(tx: &mut Tx, account_id: i64, session_id: i64) -> Result<Vec<LedgerEntry>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(OF_SESSION).bind(account_id).bind(session_id).fetch_all(c).await)?)
}

/// The entries of an account after a sequence, in order.
pub async fn of_account(tx: &mut Tx, account_id: i64, after: i64, limit: i64) -> Result<Vec<LedgerEntry>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(OF_ACCOUNT).bind(account_id).bind(after).bind(limit).fetch_all(c).await)?)
}

/// The entries of the installation after (account, sequence), in order; for exports.
pub async fn after(tx: &mut Tx, account_id: i64, sequence: i64, limit: i64) -> Result<Vec<LedgerEntry>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(AFTER).bind(account_id).bind(sequence).bind(limit).fetch_all(c).await)?)
}

impl LedgerEntry {
    pub fn bucket(&self) -> LedgerBucket {
        let amount = Amount {
            in_octets: self.in_octets,
            out_octets: self.out_octets,
            seconds: self.seconds,
            sessions: self.sessions,
        };
        LedgerBucket { from_at: self.from_at, until_at: self.until_at, amount }
    }
}

/// The sequence of each entry: every account's next ones, without a gap. Whoever appends has the fold's turn, so that
/// nobody else appends meanwhile.
async fn number(tx: &mut Tx, entries: &[NewEntry]) -> Result<Vec<i64>, StoreError> {
    let accounts: BTreeSet<i64> = entries.iter().map(|entry| entry.owner.account_id).collect();
    let accounts: Vec<i64> = accounts.into_iter().collect();
    let mut last = last_sequences(tx, &accounts).await?;
    let mut next = |account: i64| {
        let last = last.entry(account).or_default();
        *last += 1;
        *last
    };
    Ok(entries.iter().map(|entry| next(entry.owner.account_id)).collect())
}
