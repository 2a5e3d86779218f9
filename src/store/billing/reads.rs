//! What a bill run reads of accounts: who is billed, what they were billed, which entries of the ledger are wanted.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::{instant, parsed};
use crate::billing::facts::UsageEntry;
use crate::billing::lines::StoredLine;
use crate::store::sessions::json;
use crate::store::{StoreError, Tx, on};
use crate::vocabulary::{Period, Timestamp, to_micros};

/// An account a run has to look at.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct BilledAccount {
    pub id: i64,
    pub source: String,
    pub external_id: String,
    /// The cycle it is on now.
    pub bill_cycle: String,
}

const ACCOUNTS: &str = "SELECT id, source, external_id, bill_cycle FROM account
     WHERE tenant = $1 AND id > $2
       AND (bill_cycle = $3 OR EXISTS
            (SELECT 1 FROM line WHERE line.account_id = account.id AND line.cycle = $3)
            OR EXISTS (SELECT 1 FROM left_cycle WHERE left_cycle.account_id = account.id AND left_cycle.cycle = $3))
     ORDER BY id LIMIT $4";
const BILLED_OF_SQLITE: &str =
    "SELECT account.id FROM json_each($1) AS key CROSS JOIN account ON account.id = key.value
     WHERE account.bill_cycle = $2 OR EXISTS
            (SELECT 1 FROM line WHERE line.account_id = account.id AND line.cycle = $2)
        OR EXISTS (SELECT 1 FROM left_cycle WHERE left_cycle.account_id = account.id AND left_cycle.cycle = $2)
     ORDER BY account.id";
const BILLED_OF_POSTGRES: &str = "SELECT id FROM account
     WHERE id = ANY($1) AND (bill_cycle = $2 OR EXISTS
            (SELECT 1 FROM line WHERE line.account_id = account.id AND line.cycle = $2)
        OR EXISTS (SELECT 1 FROM left_cycle WHERE left_cycle.account_id = account.id AND left_cycle.cycle = $2))
     ORDER BY id";
const COUNT_ACCOUNTS: &str = "SELECT COUNT(*) FROM account WHERE tenant = $1 AND (bill_cycle = $2 OR EXISTS
     (SELECT 1 FROM left_cycle WHERE left_cycle.account_id = account.id AND left_cycle.cycle = $2))";
const ISSUED: &str = "SELECT line.document FROM line JOIN batch ON batch.id = line.batch
     WHERE line.account_id = $1 AND line.cycle = $2 AND (batch.state <> 'building' OR batch.id = $3)
     ORDER BY line.period_start_at, line.id LIMIT 1000000";
const ELSEWHERE: &str = "SELECT line.document FROM line JOIN batch ON batch.id = line.batch
     WHERE line.account_id = $1 AND line.cycle <> $2 AND batch.state <> 'building'
       AND line.kind IN ('usage', 'adjustment', 'credit')
     ORDER BY line.period_start_at, line.id LIMIT 1000000";
// A line of long ago that is the first of its item is looked at only for its watermark; lines of before there was one, and
// what is not billed period by period, whole. What is left out is told, without its document.
macro_rules! issued_of {
    ($from:literal) => {
        concat!(
            "SELECT line.account_id, line.period_start_at, line.watermark,
                CASE WHEN line.period_end_at > $3 OR NOT (line.kind = 'recurring'
                    OR (line.kind = 'usage' AND line.watermark IS NOT NULL)) THEN line.document END AS document ",
            $from,
            " line.cycle = $2 AND batch.state <> 'building'
             ORDER BY line.account_id, line.period_start_at, line.id"
        )
    };
}
const ISSUED_OF_SQLITE: &str = issued_of!(
    "FROM json_each($1) AS key CROSS JOIN line ON line.account_id = key.value JOIN batch ON batch.id = line.batch WHERE"
);
const ISSUED_OF_POSTGRES: &str =
    issued_of!("FROM line JOIN batch ON batch.id = line.batch WHERE line.account_id = ANY($1) AND");
// Both take what is wanted as (number, account, service or none, after, until, from, before): `number` finds its way back.
const WANTED_SQLITE: &str = "SELECT key.value ->> 0 AS number, ledger.service_id, ledger.sequence,
        ledger.session_id, ledger.class, CASE WHEN ledger.session_id < 0 THEN
        (SELECT destination FROM call_record WHERE call_record.id = -ledger.session_id) END AS called, ledger.from_at,
        ledger.until_at, ledger.in_octets, ledger.out_octets, ledger.seconds, ledger.sessions
     FROM json_each($1) AS key CROSS JOIN ledger ON ledger.account_id = key.value ->> 1
     WHERE ledger.sequence > key.value ->> 3 AND ledger.sequence <= key.value ->> 4
       AND (key.value ->> 2 IS NULL OR ledger.service_id = key.value ->> 2)
       AND ledger.until_at >= key.value ->> 5 AND ledger.from_at < key.value ->> 6
     ORDER BY number, ledger.sequence";
// OFFSET keeps the planner from beginning with the table, which it takes for empty until it was analysed.
const WANTED_POSTGRES: &str = "SELECT key.number, entry.service_id, entry.sequence,
        entry.session_id, entry.class, CASE WHEN entry.session_id < 0 THEN
        (SELECT destination FROM call_record WHERE call_record.id = -entry.session_id) END AS called, entry.from_at, entry.until_at,
        entry.in_octets, entry.out_octets, entry.seconds, entry.sessions
     FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::BIGINT[])
            AS key (number, account, service, after, until, begins, ends)
     CROSS JOIN LATERAL (SELECT * FROM ledger WHERE ledger.account_id = key.account
            AND ledger.sequence > key.after AND ledger.sequence <= key.until OFFSET 0) AS entry
     WHERE (key.service IS NULL OR entry.service_id = key.service)
       AND entry.until_at >= key.begins AND entry.from_at < key.ends
     ORDER BY key.number, entry.sequence";
const OF_PERIOD: &str = "SELECT service_id, sequence, session_id, class, CASE WHEN ledger.session_id < 0 THEN
        (SELECT destination FROM call_record WHERE call_record.id = -ledger.session_id) END AS called,
        from_at, until_at, in_octets, out_octets, seconds, sessions
     FROM ledger
     WHERE account_id = $1 AND service_id = $2 AND from_at < $4 AND until_at >= $3 AND sequence <= $5
     ORDER BY sequence LIMIT 10000000";
const CLOSURES: &str = "SELECT period_start_at, CAST(MIN(closed_at) AS BIGINT) FROM batch
     WHERE tenant = $1 AND cycle = $2 AND state <> 'building'
     GROUP BY period_start_at ORDER BY period_start_at LIMIT 100000";

/// Accounts that are, or were, billed on a cycle, after row `after`.
pub async fn accounts(
    tx: &mut Tx,
    tenant: &str,
    cycle: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<BilledAccount>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(ACCOUNTS).bind(tenant).bind(after).bind(cycle).bind(limit).fetch_all(c).await)?)
}

/// Those of these accounts that are, or were, billed on a cycle.
pub async fn billed_of(tx: &mut Tx, cycle: &str, ids: &[i64]) -> Result<HashSet<i64>, StoreError> {
    let found: Vec<i64> = match tx {
        Tx::Sqlite(held) => {
            sqlx::query_scalar(BILLED_OF_SQLITE).bind(json(&ids)).bind(cycle).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_scalar(BILLED_OF_POSTGRES).bind(ids).bind(cycle).fetch_all(&mut **transaction).await?
        }
    };
    Ok(found.into_iter().collect())
}

pub async fn count_accounts(tx: &mut Tx, tenant: &str, cycle: &str) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(COUNT_ACCOUNTS).bind(tenant).bind(cycle).fetch_one(c).await)?)
}

/// Every visible line of an account on a cycle, and those of a draft that is named.
pub async fn issued(
    tx: &mut Tx,
    account_id: i64,
    cycle: &str,
    draft: Option<&str>,
) -> Result<Vec<StoredLine>, StoreError> {
    let rows: Vec<String> = on!(tx, c => sqlx::query_scalar(ISSUED)
        .bind(account_id)
        .bind(cycle)
        .bind(draft)
        .fetch_all(c)
        .await)?;
    rows.iter().map(|document| parsed(document)).collect()
}

/// Every visible line of an account's usage on other cycles.
pub async fn usage_elsewhere(tx: &mut Tx, account_id: i64, cycle: &str) -> Result<Vec<StoredLine>, StoreError> {
    let rows: Vec<String> =
        on!(tx, c => sqlx::query_scalar(ELSEWHERE).bind(account_id).bind(cycle).fetch_all(c).await)?;
    rows.iter().map(|document| parsed(document)).collect()
}

/// A line that was issued, as far as it is needed.
#[derive(Debug, Clone, PartialEq)]
pub enum IssuedLine {
    Whole(Box<StoredLine>),
    /// One of long ago, and up to which ledger sequence it has seen usage.
    Seen {
        period_start: Timestamp,
        watermark: Option<i64>,
    },
}

/// The visible lines of these accounts on a cycle, with their account; the error is that one line's. Of periods that ended by
/// `since` only what cannot be left out.
pub async fn issued_of(
    tx: &mut Tx,
    account_ids: &[i64],
    cycle: &str,
    since: Timestamp,
) -> Result<Vec<(i64, Result<IssuedLine, StoreError>)>, StoreError> {
    let since = to_micros(since);
    let rows: Vec<(i64, i64, Option<i64>, Option<String>)> = match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(ISSUED_OF_SQLITE)
                .bind(json(&account_ids))
                .bind(cycle)
                .bind(since)
                .fetch_all(&mut *held.transaction)
                .await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(ISSUED_OF_POSTGRES)
                .bind(account_ids)
                .bind(cycle)
                .bind(since)
                .fetch_all(&mut **transaction)
                .await?
        }
    };
    let read = |start: i64, watermark: Option<i64>, document: Option<String>| match document {
        Some(document) => Ok(IssuedLine::Whole(Box::new(parsed(&document)?))),
        None => Ok(IssuedLine::Seen { period_start: instant(start, "line")?, watermark }),
    };
    Ok(rows.into_iter().map(|(account, start, seen, document)| (account, read(start, seen, document))).collect())
}

/// Ledger entries that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub account_id: i64,
    /// `None`: of all services.
    pub service_id: Option<i64>,
    /// Sequences in `(after, until]`.
    pub after: i64,
    pub until: i64,
    /// That touch this stretch; `None`: of all time.
    pub touching: Option<(Timestamp, Timestamp)>,
}

/// The entries of each of these, with their service, in the order of their sequence.
pub async fn usage_wanted(tx: &mut Tx, wanted: &[Wanted]) -> Result<Vec<Vec<(i64, UsageEntry)>>, StoreError> {
    let mut found: Vec<Vec<(i64, UsageEntry)>> = wanted.iter().map(|_| Vec::new()).collect();
    if wanted.is_empty() {
        return Ok(found);
    }
    let keys = wanted.iter().enumerate().map(|(number, wanted)| {
        let (from, before) = wanted.touching.map_or((i64::MIN, i64::MAX), |(a, b)| (to_micros(a), to_micros(b)));
        (number as i64, wanted.account_id, wanted.service_id, wanted.after, wanted.until, from, before)
    });
    let keys: Vec<_> = keys.collect();
    let rows: Vec<WantedRow> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(WANTED_SQLITE).bind(json(&keys)).fetch_all(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => {
            sqlx::query_as(WANTED_POSTGRES)
                .bind(keys.iter().map(|key| key.0).collect::<Vec<_>>())
                .bind(keys.iter().map(|key| key.1).collect::<Vec<_>>())
                .bind(keys.iter().map(|key| key.2).collect::<Vec<_>>())
                .bind(keys.iter().map(|key| key.3).collect::<Vec<_>>())
                .bind(keys.iter().map(|key| key.4).collect::<Vec<_>>())
                .bind(keys.iter().map(|key| key.5).collect::<Vec<_>>())
                .bind(keys.iter().map(|key| key.6).collect::<Vec<_>>())
                .fetch_all(&mut **transaction)
                .await?
        }
    };
    for row in rows {
        let service = row.entry.service_id;
        let place = usize::try_from(row.number).ok().and_then(|number| found.get_mut(number));
        if let Some(list) = place {
            list.push((service, row.entry.entry()?));
        }
    }
    Ok(found)
}

/// Ledger entries of a service that touch a period, up to a sequence.
pub async fn usage_of_period(
    tx: &mut Tx,
    account_id: i64,
    service_id: i64,
    period: &Period,
    watermark: i64,
) -> Result<Vec<UsageEntry>, StoreError> {
    let rows: Vec<UsageRow> = on!(tx, c => sqlx::query_as(OF_PERIOD)
        .bind(account_id)
        .bind(service_id)
        .bind(to_micros(period.start))
        .bind(to_micros(period.end))
        .bind(watermark)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(UsageRow::entry).collect()
}

/// When each period of a cycle was first closed.
pub async fn closures(tx: &mut Tx, tenant: &str, cycle: &str) -> Result<BTreeMap<Timestamp, Timestamp>, StoreError> {
    let rows: Vec<(i64, Option<i64>)> =
        on!(tx, c => sqlx::query_as(CLOSURES).bind(tenant).bind(cycle).fetch_all(c).await)?;
    rows.into_iter()
        .filter_map(|(start, closed)| Some((start, closed?)))
        .map(|(start, closed)| Ok((instant(start, "batch")?, instant(closed, "batch")?)))
        .collect()
}

#[derive(sqlx::FromRow)]
struct UsageRow {
    service_id: i64,
    sequence: i64,
    session_id: i64,
    class: Option<String>,
    called: Option<String>,
    from_at: i64,
    until_at: i64,
    in_octets: i64,
    out_octets: i64,
    seconds: i64,
    sessions: i64,
}

impl UsageRow {
    fn entry(self) -> Result<UsageEntry, StoreError> {
        Ok(UsageEntry {
            sequence: self.sequence,
            session: self.session_id,
            class: self.class.map(Arc::from),
            call: self.called.map(Arc::from),
            from: instant(self.from_at, "ledger")?,
            until: instant(self.until_at, "ledger")?,
            in_octets: self.in_octets,
            out_octets: self.out_octets,
            seconds: self.seconds,
            sessions: self.sessions,
        })
    }
}

#[derive(sqlx::FromRow)]
struct WantedRow {
    number: i64,
    #[sqlx(flatten)]
    entry: UsageRow,
}
