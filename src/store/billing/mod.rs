//! Batches and invoice lines. Lines are written once; a batch shows with its last row, and one that a crash left unfinished
//! is emptied and built again. What a bill run reads of accounts stands in `reads.rs`.

mod pull;
mod reads;

pub use pull::{Names, Place, PlaceError, Pulled, documents, names, pull, texts};
pub use reads::{
    BilledAccount, IssuedLine, Wanted, accounts, billed_of, closures, count_accounts, issued, issued_of,
    usage_elsewhere, usage_of_period, usage_wanted,
};

use serde_json::Value;

use super::bulk::{Bulk, Values};
use super::{StoreError, Tx, on};
use crate::billing::lines::StoredLine;
use crate::vocabulary::{Period, Timestamp, from_micros, to_micros};

/// One batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRow {
    pub id: String,
    pub tenant: String,
    pub cycle: String,
    pub period: Period,
    pub run: i64,
    /// `building`, `draft`, `checked`, `closed` or `acknowledged`.
    pub state: String,
    pub lines: i64,
    /// JSON, as `bill run --json` prints it.
    pub totals: String,
    /// JSON: the hashes of the tenants its lines count; `None`: it was closed before they were kept.
    pub handshakes: Option<String>,
    /// SHA-256 of the lines, in hexadecimal digits; `None` while it is being built, and of those closed before it was kept.
    pub digest: Option<String>,
    /// `digest` as it was when the batch was closed, where a line has lost its description since.
    pub closed_digest: Option<String>,
    pub created_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub acknowledged_at: Option<Timestamp>,
    /// Where bills are approved before they are closed: when it was found clean, when and by whom it was approved.
    pub checked_at: Option<Timestamp>,
    pub approved_at: Option<Timestamp>,
    pub approved_by: Option<String>,
}

/// A line on its way into a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLine {
    pub account_id: i64,
    pub stored: StoredLine,
    pub amount_minor: i64,
    /// `stored` as JSON.
    pub document: String,
}

/// Which lines a list shows; lines of batches that are still being built never show.
#[derive(Debug, Clone, Default)]
pub struct LineFilter {
    pub tenant: Option<String>,
    pub cycle: Option<String>,
    pub period_start: Option<Timestamp>,
    pub account_id: Option<i64>,
    /// Only of this account and everything below it; needs `tenant`.
    pub under: Option<(String, String)>,
    pub batch: Option<String>,
    /// Also the lines of a batch that still is a draft; needs `batch`.
    pub drafts: bool,
    /// The id after which the page begins.
    pub after: Option<String>,
    pub limit: i64,
}

const LAST_RUN: &str = "SELECT CAST(COALESCE(MAX(run), 0) AS BIGINT) FROM batch
     WHERE tenant = $1 AND cycle = $2 AND period_start_at = $3 AND state <> 'building'";
const UNFINISHED: &str = "SELECT id FROM batch
     WHERE tenant = $1 AND cycle = $2 AND state = 'building' AND (stage IS NULL OR period_start_at = $3) LIMIT 1000";
const DROP_LINES: &str = "DELETE FROM line WHERE id IN (SELECT id FROM line WHERE batch = $1 LIMIT 5000)";
const UNSTAGE: &str = "UPDATE batch SET stage = NULL WHERE id = $1 AND state = 'building'";
const DROP_HELD: &str = "DELETE FROM held_correction WHERE batch = $1";
const DROP_BATCH: &str = "DELETE FROM batch WHERE id = $1 AND state = 'building'";
const INSERT_BATCH: &str =
    "INSERT INTO batch (id, tenant, cycle, period_start_at, period_end_at, timezone, run, state, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, 'building', $8)";
macro_rules! insert_lines {
    ($values:literal) => {
        concat!(
            "INSERT INTO line (id, batch, tenant, account_id, service, charge, kind, cycle, period_start_at,
                period_end_at, amount_minor, currency, corrects, document, created_at, watermark)",
            $values
        )
    };
}
static INSERT_LINES_SQLITE: Bulk = Bulk::new(insert_lines!(""), 16, "");
const INSERT_LINES_POSTGRES: &str = insert_lines!(
    " SELECT new.id, $1, $2, new.account_id, new.service, new.charge, new.kind, $3, new.period_start_at,
        new.period_end_at, new.amount_minor, new.currency, new.corrects, new.document, new.created_at, new.watermark
     FROM UNNEST($4::TEXT[], $5::BIGINT[], $6::TEXT[], $7::TEXT[], $8::TEXT[], $9::BIGINT[], $10::BIGINT[],
        $11::BIGINT[], $12::TEXT[], $13::TEXT[], $14::TEXT[], $15::BIGINT[], $16::BIGINT[])
        AS new (id, account_id, service, charge, kind, period_start_at, period_end_at, amount_minor, currency,
            corrects, document, created_at, watermark)"
);
const CLOSE_BATCH: &str = "UPDATE batch SET state = 'closed', lines = $2, totals = $3, digest = $4, handshakes = $5,
        closed_at = $6
     WHERE id = $1 AND state = 'building'";
const DRAFT_BATCH: &str = "UPDATE batch SET stage = 'draft', lines = $2, totals = $3, digest = $4, handshakes = $5
     WHERE id = $1 AND state = 'building'";
const NEXT_CLOSED: &str = "INSERT INTO batch_sequence (tenant, last) SELECT tenant, 1 FROM batch WHERE id = $1
     ON CONFLICT (tenant) DO UPDATE SET last = batch_sequence.last + 1 RETURNING last";
const NUMBER_CLOSED: &str = "UPDATE batch SET closed_sequence = $2 WHERE id = $1";
const CHECK_BATCH: &str = "UPDATE batch SET stage = $3, checked_at = $4
     WHERE id = $1 AND tenant = $2 AND state = 'building' AND stage IS NOT NULL";
const APPROVE_BATCH: &str = "UPDATE batch SET state = 'closed', stage = NULL, approved_at = $3, approved_by = $4,
        closed_at = $3
     WHERE id = $1 AND tenant = $2 AND state = 'building' AND stage = 'checked'";
const ACKNOWLEDGE: &str = "UPDATE batch SET state = 'acknowledged', acknowledged_at = $3
     WHERE id = $1 AND tenant = $2 AND state = 'closed'";
macro_rules! select_lines {
    ($below:literal, $under:literal) => {
        concat!(
            $below,
            "SELECT line.document FROM line JOIN batch ON batch.id = line.batch
             WHERE (batch.state <> 'building' OR ($10 = 1 AND batch.stage IS NOT NULL))
               AND ($1 IS NULL OR line.tenant = $1)
               AND ($2 IS NULL OR line.cycle = $2)
               AND ($3 = 0 OR line.period_start_at = $4)
               AND ($5 = 0 OR line.account_id = $6)
               AND ($7 IS NULL OR line.batch = $7)
               AND line.id > $8 ",
            $under,
            " ORDER BY line.id LIMIT $9"
        )
    };
}
const LINES: &str = select_lines!("", "");
const LINES_UNDER: &str = select_lines!(
    "WITH RECURSIVE below (external_id) AS (
         SELECT CAST($12 AS TEXT)
         UNION
         SELECT account_parent.child FROM below JOIN account_parent
           ON account_parent.tenant = $1 AND account_parent.source = $11 AND account_parent.parent = below.external_id
     ) ",
    "AND line.account_id IN (SELECT account.id FROM below JOIN account
           ON account.tenant = $1 AND account.source = $11 AND account.external_id = below.external_id)"
);
const SUMS_OF_PERIOD: &str = "SELECT line.account_id, line.currency, CAST(SUM(line.amount_minor) AS BIGINT), COUNT(*)
     FROM line JOIN batch ON batch.id = line.batch
     WHERE line.tenant = $1 AND line.cycle = $2 AND line.period_start_at = $3 AND batch.state <> 'building'
     GROUP BY line.account_id, line.currency ORDER BY line.account_id, line.currency LIMIT 100000000";
const LINE: &str = "SELECT line.account_id, line.document FROM line JOIN batch ON batch.id = line.batch
     WHERE line.id = $1 AND (batch.state <> 'building' OR batch.stage IS NOT NULL)";
const CLAIM: &str = "INSERT INTO claim (name, claimed_by, claimed_until) VALUES ($1, $2, $3)
     ON CONFLICT (name) DO UPDATE SET claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until
     WHERE claim.claimed_until < $4 OR claim.claimed_by = excluded.claimed_by";
const RELEASE: &str = "DELETE FROM claim WHERE name = $1 AND claimed_by = $2";

macro_rules! select_batch {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, cycle, period_start_at, period_end_at, timezone, run, COALESCE(stage, state) AS state,
                    lines, totals, handshakes, digest, closed_digest, created_at, closed_at, acknowledged_at, checked_at,
                    approved_at, approved_by
             FROM batch ",
            $rest
        )
    };
}
const BATCHES: &str = select_batch!(
    "WHERE tenant = $1 AND (state <> 'building' OR ($4 = 1 AND stage IS NOT NULL)) AND ($2 IS NULL OR id > $2)
     ORDER BY id LIMIT $3"
);
const DRAFT_OF: &str = select_batch!("WHERE tenant = $1 AND cycle = $2 AND stage IS NOT NULL ORDER BY id LIMIT 1");
const LAST_OF: &str = select_batch!(
    "WHERE tenant = $1 AND cycle = $2 AND period_start_at = $3 AND (state <> 'building' OR stage IS NOT NULL)
     ORDER BY run DESC LIMIT 1"
);
const BATCHES_OF: &str = select_batch!(
    "WHERE tenant = $1 AND cycle = $2 AND period_start_at = $3 AND (state <> 'building' OR stage IS NOT NULL)
     ORDER BY run LIMIT 10000"
);
const TENANT_OF: &str = "SELECT tenant FROM batch WHERE id = $1";
const BATCH: &str = select_batch!("WHERE tenant = $1 AND id = $2");

/// How many visible runs a period has had.
pub async fn runs_of(tx: &mut Tx, tenant: &str, cycle: &str, period: &Period) -> Result<i64, StoreError> {
    let start = to_micros(period.start);
    Ok(on!(tx, c => sqlx::query_scalar(LAST_RUN).bind(tenant).bind(cycle).bind(start).fetch_one(c).await)?)
}

/// Batches that killed runs of a cycle left, which nobody has seen, and the draft of this period, which a new run replaces.
pub async fn unfinished(tx: &mut Tx, tenant: &str, cycle: &str, period: &Period) -> Result<Vec<String>, StoreError> {
    let start = to_micros(period.start);
    Ok(on!(tx, c => sqlx::query_scalar(UNFINISHED).bind(tenant).bind(cycle).bind(start).fetch_all(c).await)?)
}

/// Takes away some lines of a batch that is not closed; with the last of them the batch. `true`: it is gone.
pub async fn drop_some(tx: &mut Tx, id: &str) -> Result<bool, StoreError> {
    // Half a draft must never be approved.
    let open = on!(tx, c => sqlx::query(UNSTAGE).bind(id).execute(c).await.map(|done| done.rows_affected()))?;
    if open == 0 {
        return Err(StoreError::Conflict { constraint: format!("batch {id} is not open any more") });
    }
    let gone = on!(tx, c => sqlx::query(DROP_LINES).bind(id).execute(c).await.map(|done| done.rows_affected()))?;
    if gone > 0 {
        return Ok(false);
    }
    on!(tx, c => sqlx::query(DROP_HELD).bind(id).execute(c).await.map(drop))?;
    on!(tx, c => sqlx::query(DROP_BATCH).bind(id).execute(c).await.map(drop))?;
    Ok(true)
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

/// Writes lines of a batch.
pub async fn insert_lines(
    tx: &mut Tx,
    (batch, tenant, cycle): (&str, &str, &str),
    lines: &[NewLine],
) -> Result<(), StoreError> {
    match tx {
        Tx::Sqlite(held) => {
            let put = |new: &NewLine, row: &mut Values| {
                let line = &new.stored.line;
                row.put(line.id.as_str()).put(batch).put(tenant).put(new.account_id).put(line.service.as_deref());
                row.put(line.charge.as_str()).put(line.kind.as_str()).put(cycle);
                row.put(to_micros(line.period.start)).put(to_micros(line.period.end)).put(new.amount_minor);
                row.put(line.currency.as_str()).put(line.corrects.as_deref()).put(new.document.as_str());
                row.put(to_micros(line.created_at)).put(line.usage.as_ref().map(|usage| usage.watermark));
            };
            INSERT_LINES_SQLITE.execute(held, lines, put).await?;
        }
        Tx::Postgres(transaction) => {
            macro_rules! column {
                ($read:expr) => {
                    lines.iter().map($read).collect::<Vec<_>>()
                };
            }
            sqlx::query(INSERT_LINES_POSTGRES)
                .bind(batch)
                .bind(tenant)
                .bind(cycle)
                .bind(column!(|new| new.stored.line.id.as_str()))
                .bind(column!(|new| new.account_id))
                .bind(column!(|new| new.stored.line.service.as_deref()))
                .bind(column!(|new| new.stored.line.charge.as_str()))
                .bind(column!(|new| new.stored.line.kind.as_str()))
                .bind(column!(|new| to_micros(new.stored.line.period.start)))
                .bind(column!(|new| to_micros(new.stored.line.period.end)))
                .bind(column!(|new| new.amount_minor))
                .bind(column!(|new| new.stored.line.currency.as_str()))
                .bind(column!(|new| new.stored.line.corrects.as_deref()))
                .bind(column!(|new| new.document.as_str()))
                .bind(column!(|new| to_micros(new.stored.line.created_at)))
                .bind(column!(|new| new.stored.line.usage.as_ref().map(|usage| usage.watermark)))
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

impl BatchRow {
    /// Totals and handshakes as JSON. `null`: they were not kept.
    pub fn sums(&self) -> (Value, Value) {
        let read = |text: &str| serde_json::from_str(text).unwrap_or_default();
        (read(&self.totals), self.handshakes.as_deref().map_or(Value::Null, read))
    }
}

/// What is said of a whole batch with its final row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing<'a> {
    pub lines: i64,
    /// JSON.
    pub totals: &'a str,
    /// JSON.
    pub handshakes: &'a str,
    pub digest: &'a str,
}

/// The final row: the batch and all its lines are visible from here on. Who pulls finds them behind all that were closed
/// before: other closings of the tenant wait until the transaction ends.
pub async fn close_batch(tx: &mut Tx, id: &str, closing: &Closing<'_>, now: Timestamp) -> Result<(), StoreError> {
    let changed = on!(tx, c => sqlx::query(CLOSE_BATCH)
        .bind(id)
        .bind(closing.lines)
        .bind(closing.totals)
        .bind(closing.digest)
        .bind(closing.handshakes)
        .bind(to_micros(now))
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    if changed == 1 {
        number(tx, id).await
    } else {
        Err(StoreError::Conflict { constraint: format!("batch {id} is no longer being built") })
    }
}

async fn number(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    let sequence: i64 = on!(tx, c => sqlx::query_scalar(NEXT_CLOSED).bind(id).fetch_one(c).await)?;
    on!(tx, c => sqlx::query(NUMBER_CLOSED).bind(id).bind(sequence).execute(c).await.map(drop))?;
    Ok(())
}

/// All lines of the batch are there, and it waits for a check and an approval; nobody pulls them yet.
pub async fn leave_draft(tx: &mut Tx, id: &str, closing: &Closing<'_>) -> Result<(), StoreError> {
    let changed = on!(tx, c => sqlx::query(DRAFT_BATCH)
        .bind(id)
        .bind(closing.lines)
        .bind(closing.totals)
        .bind(closing.digest)
        .bind(closing.handshakes)
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict { constraint: format!("batch {id} is no longer being built") })
    }
}

/// Says of a draft whether its check passed. `false`: there is no such draft.
pub async fn mark_checked(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    passed: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let stage = if passed { "checked" } else { "draft" };
    let at = passed.then(|| to_micros(now));
    let changed = on!(tx, c => sqlx::query(CHECK_BATCH).bind(id).bind(tenant).bind(stage).bind(at).execute(c).await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Approves a checked draft, which closes it. `false`: it is no checked draft.
pub async fn approve(tx: &mut Tx, tenant: &str, id: &str, by: &str, now: Timestamp) -> Result<bool, StoreError> {
    let at = to_micros(now);
    let changed = on!(tx, c => sqlx::query(APPROVE_BATCH).bind(id).bind(tenant).bind(at).bind(by).execute(c).await
        .map(|done| done.rows_affected()))?;
    if changed == 1 {
        number(tx, id).await?;
    }
    Ok(changed == 1)
}

/// The draft of a cycle; there is one at most.
pub async fn draft_of(tx: &mut Tx, tenant: &str, cycle: &str) -> Result<Option<BatchRow>, StoreError> {
    let row: Option<RawBatch> =
        on!(tx, c => sqlx::query_as(DRAFT_OF).bind(tenant).bind(cycle).fetch_optional(c).await)?;
    row.map(BatchRow::try_from).transpose()
}

/// The latest batch of a period, a draft too.
pub async fn last_of(
    tx: &mut Tx,
    tenant: &str,
    cycle: &str,
    period_start: Timestamp,
) -> Result<Option<BatchRow>, StoreError> {
    let start = to_micros(period_start);
    let row: Option<RawBatch> =
        on!(tx, c => sqlx::query_as(LAST_OF).bind(tenant).bind(cycle).bind(start).fetch_optional(c).await)?;
    row.map(BatchRow::try_from).transpose()
}

/// Notes that the billing system has taken a batch. `false`: there is no such closed batch, or it was taken before.
pub async fn acknowledge(tx: &mut Tx, tenant: &str, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    let changed = on!(tx, c => sqlx::query(ACKNOWLEDGE).bind(id).bind(tenant).bind(to_micros(now)).execute(c).await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Closed batches of a tenant by id, after one; with `drafts` those that wait for approval, too.
pub async fn batches(
    tx: &mut Tx,
    tenant: &str,
    after: Option<&str>,
    drafts: bool,
    limit: i64,
) -> Result<Vec<BatchRow>, StoreError> {
    let drafts = i64::from(drafts);
    let rows: Vec<RawBatch> =
        on!(tx, c => sqlx::query_as(BATCHES).bind(tenant).bind(after).bind(limit).bind(drafts).fetch_all(c).await)?;
    rows.into_iter().map(BatchRow::try_from).collect()
}

/// One batch, also while it is being built.
pub async fn batch(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<BatchRow>, StoreError> {
    let row: Option<RawBatch> = on!(tx, c => sqlx::query_as(BATCH).bind(tenant).bind(id).fetch_optional(c).await)?;
    row.map(BatchRow::try_from).transpose()
}

/// The batches of a period, a draft too, in the order of their runs.
pub async fn batches_of(
    tx: &mut Tx,
    tenant: &str,
    cycle: &str,
    period_start: Timestamp,
) -> Result<Vec<BatchRow>, StoreError> {
    let start = to_micros(period_start);
    let rows: Vec<RawBatch> =
        on!(tx, c => sqlx::query_as(BATCHES_OF).bind(tenant).bind(cycle).bind(start).fetch_all(c).await)?;
    rows.into_iter().map(BatchRow::try_from).collect()
}

/// Whose a batch is.
pub async fn tenant_of(tx: &mut Tx, id: &str) -> Result<Option<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(TENANT_OF).bind(id).fetch_optional(c).await)?)
}

/// Visible lines.
pub async fn lines(tx: &mut Tx, filter: &LineFilter) -> Result<Vec<StoredLine>, StoreError> {
    let statement = if filter.under.is_some() { LINES_UNDER } else { LINES };
    let rows: Vec<String> = on!(tx, c => {
        let query = sqlx::query_scalar(statement)
        .bind(&filter.tenant)
        .bind(&filter.cycle)
        .bind(i64::from(filter.period_start.is_some()))
        .bind(filter.period_start.map_or(0, to_micros))
        .bind(i64::from(filter.account_id.is_some()))
        .bind(filter.account_id.unwrap_or(0))
        .bind(&filter.batch)
        .bind(filter.after.as_deref().unwrap_or(""))
        .bind(filter.limit)
        .bind(i64::from(filter.drafts && filter.batch.is_some()));
        let query = match &filter.under {
            Some((source, account)) => query.bind(source).bind(account),
            None => query,
        };
        query.fetch_all(c).await
    })?;
    rows.iter().map(|document| parsed(document)).collect()
}

/// (account, currency, sum in minor units, lines) of the lines of closed batches of a period.
pub async fn sums_of_period(
    tx: &mut Tx,
    tenant: &str,
    cycle: &str,
    period_start: Timestamp,
) -> Result<Vec<(i64, String, i64, i64)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(SUMS_OF_PERIOD)
        .bind(tenant)
        .bind(cycle)
        .bind(to_micros(period_start))
        .fetch_all(c)
        .await)?)
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
    handshakes: Option<String>,
    digest: Option<String>,
    closed_digest: Option<String>,
    created_at: i64,
    closed_at: Option<i64>,
    acknowledged_at: Option<i64>,
    checked_at: Option<i64>,
    approved_at: Option<i64>,
    approved_by: Option<String>,
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
            handshakes: row.handshakes,
            digest: row.digest,
            closed_digest: row.closed_digest,
            created_at: at(row.created_at)?,
            closed_at: row.closed_at.map(at).transpose()?,
            acknowledged_at: row.acknowledged_at.map(at).transpose()?,
            checked_at: row.checked_at.map(at).transpose()?,
            approved_at: row.approved_at.map(at).transpose()?,
            approved_by: row.approved_by,
        })
    }
}
