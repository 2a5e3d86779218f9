//! Batches and invoice lines, and what a bill run reads of accounts. Lines are written once; a batch shows with its last
//! row, and one that a crash left unfinished is emptied and built again.

use std::collections::BTreeMap;

use super::{StoreError, Tx, on};
use crate::billing::facts::UsageEntry;
use crate::billing::lines::StoredLine;
use crate::vocabulary::{Period, Timestamp, from_micros, to_micros};

/// An account a run has to look at.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct BilledAccount {
    pub id: i64,
    pub source: String,
    pub external_id: String,
    /// Its last ledger entry.
    pub ledger_sequence: i64,
}

/// One batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRow {
    pub id: String,
    pub tenant: String,
    pub cycle: String,
    pub period: Period,
    pub run: i64,
    pub state: String,
    pub lines: i64,
    /// JSON, as `bill run --json` prints it.
    pub totals: String,
    pub created_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub acknowledged_at: Option<Timestamp>,
}

/// Which lines a list shows; lines of batches that are still being built never show.
#[derive(Debug, Clone, Default)]
pub struct LineFilter {
    pub tenant: Option<String>,
    pub cycle: Option<String>,
    pub period_start: Option<Timestamp>,
    pub account_id: Option<i64>,
    pub batch: Option<String>,
    /// The id after which the page begins.
    pub after: Option<String>,
    pub limit: i64,
}

const ACCOUNTS: &str = "SELECT id, source, external_id,
        CAST(COALESCE((SELECT sequence FROM ledger WHERE account_id = account.id
            ORDER BY sequence DESC LIMIT 1), 0) AS BIGINT) AS ledger_sequence
     FROM account
     WHERE tenant = $1 AND id > $2
       AND (bill_cycle = $3 OR EXISTS
            (SELECT 1 FROM line WHERE line.account_id = account.id AND line.cycle = $3))
     ORDER BY id LIMIT $4";
const COUNT_ACCOUNTS: &str = "SELECT COUNT(*) FROM account WHERE tenant = $1 AND bill_cycle = $2";
const SEQUENCE: &str = "SELECT CAST(COALESCE((SELECT sequence FROM ledger WHERE account_id = $1
     ORDER BY sequence DESC LIMIT 1), 0) AS BIGINT)";
const ISSUED: &str = "SELECT line.document FROM line JOIN batch ON batch.id = line.batch
     WHERE line.account_id = $1 AND line.cycle = $2 AND batch.state <> 'building'
     ORDER BY line.period_start_at, line.id LIMIT 1000000";
const LATE: &str =
    "SELECT service_id, sequence, from_at, until_at, in_octets, out_octets, seconds, sessions FROM ledger
     WHERE account_id = $1 AND sequence > $2 AND sequence <= $3 ORDER BY sequence LIMIT 10000000";
const OF_PERIOD: &str = "SELECT service_id, sequence, from_at, until_at, in_octets, out_octets, seconds, sessions
     FROM ledger
     WHERE account_id = $1 AND service_id = $2 AND from_at < $4 AND until_at >= $3 AND sequence <= $5
     ORDER BY sequence LIMIT 10000000";
const CLOSURES: &str = "SELECT period_start_at, CAST(MIN(closed_at) AS BIGINT) FROM batch
     WHERE tenant = $1 AND cycle = $2 AND state <> 'building'
     GROUP BY period_start_at ORDER BY period_start_at LIMIT 100000";
const LAST_RUN: &str = "SELECT CAST(COALESCE(MAX(run), 0) AS BIGINT) FROM batch
     WHERE tenant = $1 AND cycle = $2 AND period_start_at = $3 AND state <> 'building'";
const UNFINISHED: &str = "SELECT id FROM batch WHERE tenant = $1 AND cycle = $2 AND state = 'building' LIMIT 1000";
const DROP_LINES: &str = "DELETE FROM line WHERE batch = $1";
const DROP_BATCH: &str = "DELETE FROM batch WHERE id = $1 AND state = 'building'";
const INSERT_BATCH: &str =
    "INSERT INTO batch (id, tenant, cycle, period_start_at, period_end_at, timezone, run, state, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, 'building', $8)";
const INSERT_LINE: &str = "INSERT INTO line (id, batch, tenant, account_id, service, charge, kind, cycle,
        period_start_at, period_end_at, amount_minor, currency, corrects, document, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
const CLOSE_BATCH: &str = "UPDATE batch SET state = 'closed', lines = $2, totals = $3, closed_at = $4
     WHERE id = $1 AND state = 'building'";
const ACKNOWLEDGE: &str = "UPDATE batch SET state = 'acknowledged', acknowledged_at = $3
     WHERE id = $1 AND tenant = $2 AND state = 'closed'";
const LINES: &str = "SELECT line.document FROM line JOIN batch ON batch.id = line.batch
     WHERE batch.state <> 'building'
       AND ($1 IS NULL OR line.tenant = $1)
       AND ($2 IS NULL OR line.cycle = $2)
       AND ($3 = 0 OR line.period_start_at = $4)
       AND ($5 = 0 OR line.account_id = $6)
       AND ($7 IS NULL OR line.batch = $7)
       AND line.id > $8
     ORDER BY line.id LIMIT $9";
const LINE: &str = "SELECT line.account_id, line.document FROM line JOIN batch ON batch.id = line.batch
     WHERE line.id = $1 AND batch.state <> 'building'";
const CLAIM: &str = "INSERT INTO claim (name, claimed_by, claimed_until) VALUES ($1, $2, $3)
     ON CONFLICT (name) DO UPDATE SET claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until
     WHERE claim.claimed_until < $4 OR claim.claimed_by = excluded.claimed_by";
const RELEASE: &str = "DELETE FROM claim WHERE name = $1 AND claimed_by = $2";

macro_rules! select_batch {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, cycle, period_start_at, period_end_at, timezone, run, state, lines, totals, created_at,
                    closed_at, acknowledged_at FROM batch ",
            $rest
        )
    };
}
const BATCHES: &str =
    select_batch!("WHERE tenant = $1 AND state <> 'building' AND ($2 IS NULL OR id > $2) ORDER BY id LIMIT $3");
const BATCH: &str = select_batch!("WHERE tenant = $1 AND id = $2");

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

pub async fn count_accounts(tx: &mut Tx, tenant: &str, cycle: &str) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(COUNT_ACCOUNTS).bind(tenant).bind(cycle).fetch_one(c).await)?)
}

/// The account's last ledger entry, now.
pub async fn ledger_sequence(tx: &mut Tx, account_id: i64) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(SEQUENCE).bind(account_id).fetch_one(c).await)?)
}

/// Every visible line of an account on a cycle.
pub async fn issued(tx: &mut Tx, account_id: i64, cycle: &str) -> Result<Vec<StoredLine>, StoreError> {
    let rows: Vec<String> = on!(tx, c => sqlx::query_scalar(ISSUED).bind(account_id).bind(cycle).fetch_all(c).await)?;
    rows.iter().map(|document| parsed(document)).collect()
}

/// Ledger entries of an account with a sequence in `(after, until]`, with their service.
pub async fn usage_after(
    tx: &mut Tx,
    account_id: i64,
    after: i64,
    until: i64,
) -> Result<Vec<(i64, UsageEntry)>, StoreError> {
    let rows: Vec<UsageRow> =
        on!(tx, c => sqlx::query_as(LATE).bind(account_id).bind(after).bind(until).fetch_all(c).await)?;
    rows.into_iter().map(|row| Ok((row.service_id, row.entry()?))).collect()
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

/// How many visible runs a period has had.
pub async fn runs_of(tx: &mut Tx, tenant: &str, cycle: &str, period: &Period) -> Result<i64, StoreError> {
    let start = to_micros(period.start);
    Ok(on!(tx, c => sqlx::query_scalar(LAST_RUN).bind(tenant).bind(cycle).bind(start).fetch_one(c).await)?)
}

/// Takes away what unfinished runs of a cycle left. Nobody has seen it.
pub async fn drop_unfinished(tx: &mut Tx, tenant: &str, cycle: &str) -> Result<(), StoreError> {
    let ids: Vec<String> = on!(tx, c => sqlx::query_scalar(UNFINISHED).bind(tenant).bind(cycle).fetch_all(c).await)?;
    for id in ids {
        drop_batch(tx, &id).await?;
    }
    Ok(())
}

/// Takes away a batch that is still being built.
pub async fn drop_batch(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(DROP_LINES).bind(id).execute(c).await.map(drop))?;
    on!(tx, c => sqlx::query(DROP_BATCH).bind(id).execute(c).await.map(drop))?;
    Ok(())
}

/// Begins a batch that nobody sees yet.
pub async fn begin_batch(tx: &mut Tx, batch: &BatchRow) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(INSERT_BATCH)
        .bind(&batch.id)
        .bind(&batch.tenant)
        .bind(&batch.cycle)
        .bind(to_micros(batch.period.start))
        .bind(to_micros(batch.period.end))
        .bind(&batch.period.timezone)
        .bind(batch.run)
        .bind(to_micros(batch.created_at))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Writes an account's lines of a batch. `amount_minor` of each comes with it.
pub async fn insert_lines(
    tx: &mut Tx,
    batch: &str,
    account_id: i64,
    lines: &[(StoredLine, i64)],
) -> Result<(), StoreError> {
    for (stored, amount_minor) in lines {
        let line = &stored.line;
        let document = serde_json::to_string(stored).map_err(|error| StoreError::Database(error.to_string()))?;
        on!(tx, c => sqlx::query(INSERT_LINE)
            .bind(&line.id)
            .bind(batch)
            .bind(&line.tenant)
            .bind(account_id)
            .bind(&line.service)
            .bind(&line.charge)
            .bind(line.kind.as_str())
            .bind(&line.cycle)
            .bind(to_micros(line.period.start))
            .bind(to_micros(line.period.end))
            .bind(*amount_minor)
            .bind(&line.currency)
            .bind(&line.corrects)
            .bind(&document)
            .bind(to_micros(line.created_at))
            .execute(c)
            .await.map(drop))?;
    }
    Ok(())
}

/// The final row: the batch and all its lines are visible from here on.
pub async fn close_batch(tx: &mut Tx, id: &str, lines: i64, totals: &str, now: Timestamp) -> Result<(), StoreError> {
    let changed = on!(tx, c => sqlx::query(CLOSE_BATCH)
        .bind(id)
        .bind(lines)
        .bind(totals)
        .bind(to_micros(now))
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict { constraint: format!("batch {id} is no longer being built") })
    }
}

/// Notes that the billing system has taken a batch. `false`: there is no such closed batch, or it was taken before.
pub async fn acknowledge(tx: &mut Tx, tenant: &str, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    let changed = on!(tx, c => sqlx::query(ACKNOWLEDGE).bind(id).bind(tenant).bind(to_micros(now)).execute(c).await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Closed batches of a tenant by id, after one.
pub async fn batches(tx: &mut Tx, tenant: &str, after: Option<&str>, limit: i64) -> Result<Vec<BatchRow>, StoreError> {
    let rows: Vec<RawBatch> =
        on!(tx, c => sqlx::query_as(BATCHES).bind(tenant).bind(after).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(BatchRow::try_from).collect()
}

/// One batch, also while it is being built.
pub async fn batch(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<BatchRow>, StoreError> {
    let row: Option<RawBatch> = on!(tx, c => sqlx::query_as(BATCH).bind(tenant).bind(id).fetch_optional(c).await)?;
    row.map(BatchRow::try_from).transpose()
}

/// Visible lines.
pub async fn lines(tx: &mut Tx, filter: &LineFilter) -> Result<Vec<StoredLine>, StoreError> {
    let rows: Vec<String> = on!(tx, c => sqlx::query_scalar(LINES)
        .bind(&filter.tenant)
        .bind(&filter.cycle)
        .bind(i64::from(filter.period_start.is_some()))
        .bind(filter.period_start.map_or(0, to_micros))
        .bind(i64::from(filter.account_id.is_some()))
        .bind(filter.account_id.unwrap_or(0))
        .bind(&filter.batch)
        .bind(filter.after.as_deref().unwrap_or(""))
        .bind(filter.limit)
        .fetch_all(c)
        .await)?;
    rows.iter().map(|document| parsed(document)).collect()
}

/// One visible line with the row of its account.
pub async fn line(tx: &mut Tx, id: &str) -> Result<Option<(i64, StoredLine)>, StoreError> {
    let row: Option<(i64, String)> = on!(tx, c => sqlx::query_as(LINE).bind(id).fetch_optional(c).await)?;
    row.map(|(account_id, document)| Ok((account_id, parsed(&document)?))).transpose()
}

/// Claims a piece of work until an instant. `false`: another owner has it.
pub async fn claim(tx: &mut Tx, name: &str, owner: &str, until: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
    let changed = on!(tx, c => sqlx::query(CLAIM)
        .bind(name)
        .bind(owner)
        .bind(to_micros(until))
        .bind(to_micros(now))
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Gives a claim back.
pub async fn release(tx: &mut Tx, name: &str, owner: &str) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(RELEASE).bind(name).bind(owner).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) fn parsed(document: &str) -> Result<StoredLine, StoreError> {
    serde_json::from_str(document).map_err(|_| StoreError::Corrupt {
        table: "line",
        column: "document",
        id: document.chars().take(60).collect(),
    })
}

pub(super) fn instant(micros: i64, table: &'static str) -> Result<Timestamp, StoreError> {
    from_micros(micros).ok_or_else(|| StoreError::Corrupt { table, column: "an instant", id: micros.to_string() })
}

#[derive(sqlx::FromRow)]
struct UsageRow {
    service_id: i64,
    sequence: i64,
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
struct RawBatch {
    id: String,
    tenant: String,
    cycle: String,
    period_start_at: i64,
    period_end_at: i64,
    timezone: String,
    run: i64,
    state: String,
    lines: i64,
    totals: String,
    created_at: i64,
    closed_at: Option<i64>,
    acknowledged_at: Option<i64>,
}

impl TryFrom<RawBatch> for BatchRow {
    type Error = StoreError;
    fn try_from(row: RawBatch) -> Result<Self, StoreError> {
        let at = |micros: i64| instant(micros, "batch");
        Ok(Self {
            id: row.id,
            tenant: row.tenant,
            cycle: row.cycle,
            period: Period { start: at(row.period_start_at)?, end: at(row.period_end_at)?, timezone: row.timezone },
            run: row.run,
            state: row.state,
            lines: row.lines,
            totals: row.totals,
            created_at: at(row.created_at)?,
            closed_at: row.closed_at.map(at).transpose()?,
            acknowledged_at: row.acknowledged_at.map(at).transpose()?,
        })
    }
}
