//! Corrections that a tenant's policy keeps off the invoice: what each run found held, in force once its batch is closed.

use sqlx::FromRow;

use super::bulk::{Bulk, Values};
use super::sessions::json;
use super::{StoreError, Tx, on};
use crate::billing::lines::ItemKey;
use crate::billing::run::{Held, HeldReason};
use crate::vocabulary::{Currency, Money, Period, Timestamp, from_micros, to_micros};

/// What one run says of one item: held, or no longer held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub account_id: i64,
    pub key: ItemKey,
    /// `None`: it is no longer held.
    pub held: Option<Held>,
}

/// A held correction as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCorrection {
    pub tenant: String,
    pub source: String,
    pub account: String,
    pub cycle: String,
    pub service: String,
    pub charge: String,
    pub tariff: String,
    pub period: Period,
    pub amount: Money,
    /// `too_old` or `too_small`.
    pub reason: String,
    pub held_at: Timestamp,
    /// The run that found it so.
    pub batch: String,
}

static INSERT_SQLITE: Bulk = Bulk::new(
    "INSERT INTO held_correction (batch, account_id, cycle, service, addon, charge, tariff, tariff_version,
        period_start_at, period_end_at, amount_minor, currency, reason, held_at)",
    14,
    "",
);
const INSERT_POSTGRES: &str = "INSERT INTO held_correction (batch, account_id, cycle, service, addon, charge, tariff,
        tariff_version, period_start_at, period_end_at, amount_minor, currency, reason, held_at)
     SELECT $1, new.account_id, $2, new.service, new.addon, new.charge, new.tariff, new.tariff_version,
        new.period_start_at, new.period_end_at, new.amount_minor, new.currency, new.reason, $3
     FROM UNNEST($4::BIGINT[], $5::TEXT[], $6::TEXT[], $7::TEXT[], $8::TEXT[], $9::BIGINT[], $10::BIGINT[],
        $11::BIGINT[], $12::BIGINT[], $13::TEXT[], $14::TEXT[])
        AS new (account_id, service, addon, charge, tariff, tariff_version, period_start_at, period_end_at,
            amount_minor, currency, reason)";
const KEYS_SQLITE: &str = "SELECT held.account_id, held.service, held.addon, held.charge, held.tariff,
        held.tariff_version, held.period_start_at
     FROM json_each($1) AS key CROSS JOIN held_correction AS held ON held.account_id = key.value
     JOIN batch ON batch.id = held.batch
     WHERE held.cycle = $2 AND batch.state <> 'building'
     ORDER BY held.account_id";
const KEYS_POSTGRES: &str = "SELECT held.account_id, held.service, held.addon, held.charge, held.tariff,
        held.tariff_version, held.period_start_at
     FROM held_correction AS held JOIN batch ON batch.id = held.batch
     WHERE held.account_id = ANY($1) AND held.cycle = $2 AND batch.state <> 'building'
     ORDER BY held.account_id";
// What a run says replaces what runs before it said; then its own "no longer held" have done their work.
const SUPERSEDE: &str = "DELETE FROM held_correction
     WHERE batch <> $1 AND EXISTS (SELECT 1 FROM held_correction AS newer
         WHERE newer.batch = $1 AND newer.account_id = held_correction.account_id
           AND newer.cycle = held_correction.cycle AND newer.service = held_correction.service
           AND newer.addon = held_correction.addon AND newer.charge = held_correction.charge
           AND newer.tariff = held_correction.tariff AND newer.tariff_version = held_correction.tariff_version
           AND newer.period_start_at = held_correction.period_start_at)
       AND batch IN (SELECT id FROM batch WHERE batch.state <> 'building')";
const NEWS: &str = "SELECT own.account_id FROM held_correction AS own
     WHERE own.batch = $1 AND NOT EXISTS (SELECT 1 FROM held_correction AS older JOIN batch ON batch.id = older.batch
         WHERE older.batch <> $1 AND batch.state <> 'building' AND older.account_id = own.account_id
           AND older.cycle = own.cycle AND older.service = own.service AND older.addon = own.addon
           AND older.charge = own.charge AND older.tariff = own.tariff
           AND older.tariff_version = own.tariff_version AND older.period_start_at = own.period_start_at
           AND older.amount_minor = own.amount_minor AND older.reason = own.reason)
     ORDER BY own.account_id LIMIT 1";
const FORGET_RELEASED: &str = "DELETE FROM held_correction WHERE batch = $1 AND reason = 'none'";
const LIST: &str = "SELECT account.tenant, account.source, account.external_id AS account, held.cycle, held.service,
        held.charge, held.tariff, held.period_start_at, held.period_end_at, batch.timezone, held.amount_minor,
        held.currency, held.reason, held.held_at, held.batch
     FROM held_correction AS held JOIN batch ON batch.id = held.batch JOIN account ON account.id = held.account_id
     WHERE account.tenant = $1 AND ($2 IS NULL OR held.cycle = $2) AND held.reason <> 'none'
       AND (batch.state <> 'building' OR held.batch = $3)
     ORDER BY account.external_id, held.period_start_at, held.service, held.charge LIMIT $4";

/// The items of these accounts with a correction that closed runs hold back.
pub async fn keys_of(tx: &mut Tx, account_ids: &[i64], cycle: &str) -> Result<Vec<(i64, ItemKey)>, StoreError> {
    let rows: Vec<KeyRow> = match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(KEYS_SQLITE).bind(json(&account_ids)).bind(cycle).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(KEYS_POSTGRES).bind(account_ids).bind(cycle).fetch_all(&mut **transaction).await?
        }
    };
    rows.into_iter().map(|row| Ok((row.account_id, row.key()?))).collect()
}

/// Writes what a run says. It counts once the run's batch is closed.
pub async fn insert(
    tx: &mut Tx,
    (batch, cycle): (&str, &str),
    verdicts: &[Verdict],
    now: Timestamp,
) -> Result<(), StoreError> {
    if verdicts.is_empty() {
        return Ok(());
    }
    let rows: Vec<Columns<'_>> = verdicts.iter().map(Columns::of).collect();
    match tx {
        Tx::Sqlite(held) => {
            let put = |c: &Columns<'_>, row: &mut Values| {
                row.put(batch).put(c.account_id).put(cycle).put(c.service).put(c.addon).put(c.charge).put(c.tariff);
                row.put(c.version).put(c.start).put(c.end).put(c.minor).put(c.currency.as_str()).put(c.reason);
                row.put(to_micros(now));
            };
            INSERT_SQLITE.execute(held, &rows, put).await?;
        }
        Tx::Postgres(transaction) => {
            macro_rules! column {
                ($field:ident) => {
                    rows.iter().map(|c| c.$field).collect::<Vec<_>>()
                };
            }
            sqlx::query(INSERT_POSTGRES)
                .bind(batch)
                .bind(cycle)
                .bind(to_micros(now))
                .bind(column!(account_id))
                .bind(column!(service))
                .bind(column!(addon))
                .bind(column!(charge))
                .bind(column!(tariff))
                .bind(column!(version))
                .bind(column!(start))
                .bind(column!(end))
                .bind(column!(minor))
                .bind(rows.iter().map(|c| c.currency.as_str()).collect::<Vec<_>>())
                .bind(column!(reason))
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

/// Whether the batch says anything of held corrections that was not said before: another amount or reason, one more or one
/// less.
pub async fn is_news(tx: &mut Tx, batch: &str) -> Result<bool, StoreError> {
    let told: Option<i64> = on!(tx, c => sqlx::query_scalar(NEWS).bind(batch).fetch_optional(c).await)?;
    Ok(told.is_some())
}

/// The batch is closed: what it says of held corrections is in force from here on.
pub async fn settle(tx: &mut Tx, batch: &str) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(SUPERSEDE).bind(batch).execute(c).await.map(drop))?;
    on!(tx, c => sqlx::query(FORGET_RELEASED).bind(batch).execute(c).await.map(drop))?;
    Ok(())
}

/// What is held of a tenant's, by account; with `draft` also what that draft would hold.
pub async fn list(
    tx: &mut Tx,
    tenant: &str,
    cycle: Option<&str>,
    draft: Option<&str>,
    limit: i64,
) -> Result<Vec<HeldCorrection>, StoreError> {
    let rows: Vec<Row> =
        on!(tx, c => sqlx::query_as(LIST).bind(tenant).bind(cycle).bind(draft).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(HeldCorrection::try_from).collect()
}

struct Columns<'a> {
    account_id: i64,
    service: &'a str,
    addon: &'a str,
    charge: &'a str,
    tariff: &'a str,
    version: i64,
    start: i64,
    end: i64,
    minor: i64,
    currency: String,
    reason: &'static str,
}

impl<'a> Columns<'a> {
    fn of(verdict: &'a Verdict) -> Self {
        let key = &verdict.key;
        let start = to_micros(key.period_start);
        let held = verdict.held.as_ref();
        Self {
            account_id: verdict.account_id,
            service: &key.service,
            addon: key.addon.as_deref().unwrap_or(""),
            charge: &key.charge,
            tariff: &key.tariff,
            version: i64::from(key.version),
            start,
            end: held.map_or(start, |held| to_micros(held.period.end)),
            minor: held.map_or(0, |held| held.amount.minor),
            currency: held.map_or_else(String::new, |held| held.amount.currency.to_string()),
            reason: held.map_or("none", |held| word(held.reason)),
        }
    }
}

fn word(reason: HeldReason) -> &'static str {
    match reason {
        HeldReason::TooOld => "too_old",
        HeldReason::TooSmall => "too_small",
    }
}

#[derive(FromRow)]
struct KeyRow {
    account_id: i64,
    service: String,
    addon: String,
    charge: String,
    tariff: String,
    tariff_version: i64,
    period_start_at: i64,
}

impl KeyRow {
    fn key(self) -> Result<ItemKey, StoreError> {
        Ok(ItemKey {
            period_start: instant(self.period_start_at)?,
            version: u32::try_from(self.tariff_version).map_err(|_| corrupt("tariff_version", self.tariff_version))?,
            service: self.service,
            addon: Some(self.addon).filter(|addon| !addon.is_empty()),
            tariff: self.tariff,
            charge: self.charge,
        })
    }
}

#[derive(FromRow)]
struct Row {
    tenant: String,
    source: String,
    account: String,
    cycle: String,
    service: String,
    charge: String,
    tariff: String,
    period_start_at: i64,
    period_end_at: i64,
    timezone: String,
    amount_minor: i64,
    currency: String,
    reason: String,
    held_at: i64,
    batch: String,
}

impl TryFrom<Row> for HeldCorrection {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let currency: Currency = row.currency.parse().map_err(|_| corrupt("currency", row.amount_minor))?;
        Ok(Self {
            period: Period {
                start: instant(row.period_start_at)?,
                end: instant(row.period_end_at)?,
                timezone: row.timezone,
            },
            amount: Money::new(row.amount_minor, currency),
            held_at: instant(row.held_at)?,
            tenant: row.tenant,
            source: row.source,
            account: row.account,
            cycle: row.cycle,
            service: row.service,
            charge: row.charge,
            tariff: row.tariff,
            reason: row.reason,
            batch: row.batch,
        })
    }
}

fn instant(micros: i64) -> Result<Timestamp, StoreError> {
    from_micros(micros).ok_or_else(|| corrupt("an instant", micros))
}

fn corrupt(column: &'static str, id: i64) -> StoreError {
    StoreError::Corrupt { table: "held_correction", column, id: id.to_string() }
}
