//! What a check of a month's end reads: the bills of a batch beside earlier ones, who is not billed, usage nobody pays for.

use super::{StoreError, Tx, on};
use crate::billing::month_end::Bill;
use crate::vocabulary::{Currency, Period, Timestamp, to_micros};

/// An account by its names.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Unbilled {
    pub source: String,
    pub account: String,
    pub created_at: i64,
}

/// Usage of a service that should have none.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct StrayUsage {
    pub source: String,
    pub account: String,
    pub service: String,
    pub status: String,
    pub octets: i64,
}

/// Usage of a period that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Ownerless {
    pub user_name: Option<String>,
    pub nas: String,
    pub sessions: i64,
    pub octets: i64,
}

const BILLS: &str = "SELECT account.source, account.external_id, own.currency, own.minor,
        CAST(COALESCE(earlier.minor, 0) AS BIGINT), CAST(COALESCE(earlier.periods, 0) AS BIGINT)
     FROM (SELECT line.account_id, line.currency, CAST(SUM(line.amount_minor) AS BIGINT) AS minor
           FROM line WHERE line.batch = $1 GROUP BY line.account_id, line.currency) AS own
     JOIN account ON account.id = own.account_id
     LEFT JOIN (SELECT line.account_id, line.currency, CAST(SUM(line.amount_minor) AS BIGINT) AS minor,
                   COUNT(DISTINCT batch.period_start_at) AS periods
                FROM batch JOIN line ON line.batch = batch.id
                WHERE batch.tenant = $2 AND batch.cycle = $3 AND batch.state <> 'building'
                  AND batch.period_start_at < $4 AND batch.period_start_at >= $5
                GROUP BY line.account_id, line.currency) AS earlier
       ON earlier.account_id = own.account_id AND earlier.currency = own.currency
     ORDER BY own.account_id, own.currency";
const STARTS_BEFORE: &str = "SELECT DISTINCT period_start_at FROM batch
     WHERE tenant = $1 AND cycle = $2 AND state <> 'building' AND period_start_at < $3
     ORDER BY period_start_at DESC LIMIT $4";
const NEVER_BILLED: &str = "SELECT source, external_id AS account, created_at FROM account
     WHERE tenant = $1 AND bill_cycle = $2 AND status = 'active' AND closed_at IS NULL AND created_at < $3
       AND NOT EXISTS (SELECT 1 FROM line JOIN batch ON batch.id = line.batch
            WHERE line.account_id = account.id AND (batch.state <> 'building' OR batch.id = $4))
     ORDER BY id LIMIT $5";
const STRAY_USAGE: &str = "SELECT account.source, account.external_id AS account, service.external_id AS service,
        account.status, usage_total.in_octets + usage_total.out_octets AS octets
     FROM account JOIN service ON service.account_id = account.id
     JOIN usage_total ON usage_total.service_id = service.id
     WHERE account.tenant = $1 AND account.bill_cycle = $2 AND usage_total.period_start_at = $3
       AND (usage_total.in_octets > 0 OR usage_total.out_octets > 0)
       AND (service.ended_at <= $3 OR account.closed_at <= $3 OR account.status = 'pending')
     ORDER BY account.id, service.id LIMIT $4";
// A session that only informs (the mark 256) is nobody's usage.
const OWNERLESS: &str = "SELECT user_name, nas, COUNT(*) AS sessions,
        CAST(SUM(in_octets + out_octets) AS BIGINT) AS octets
     FROM session
     WHERE service_id IS NULL AND (flags & 256) = 0 AND started_at < $2 AND last_event_at >= $1
     GROUP BY user_name, nas HAVING SUM(in_octets + out_octets) > 0 ORDER BY nas, user_name LIMIT $3";

/// Every bill of a batch, with the same account's bills of up to `back` earlier periods.
pub async fn bills(
    tx: &mut Tx,
    (tenant, cycle, batch): (&str, &str, &str),
    period: &Period,
    back: i64,
) -> Result<Vec<Bill>, StoreError> {
    let start = to_micros(period.start);
    let starts: Vec<i64> = on!(tx, c => sqlx::query_scalar(STARTS_BEFORE).bind(tenant).bind(cycle).bind(start).bind(back)
        .fetch_all(c).await)?;
    let since = starts.last().copied().unwrap_or(start);
    let rows: Vec<(String, String, String, i64, i64, i64)> = on!(tx, c => sqlx::query_as(BILLS)
        .bind(batch)
        .bind(tenant)
        .bind(cycle)
        .bind(start)
        .bind(since)
        .fetch_all(c)
        .await)?;
    let bill =
        |(source, account, currency, minor, earlier_minor, earlier_periods): (String, String, String, _, _, _)| {
            let currency: Currency = currency.parse().map_err(|_| StoreError::Corrupt {
                table: "line",
                column: "currency",
                id: account.clone(),
            })?;
            Ok(Bill { account: format!("{source}/{account}"), currency, minor, earlier_minor, earlier_periods })
        };
    rows.into_iter().map(bill).collect()
}

/// Active accounts older than `until` without any line, in this batch or another.
pub async fn never_billed(
    tx: &mut Tx,
    (tenant, cycle, batch): (&str, &str, &str),
    until: Timestamp,
    limit: i64,
) -> Result<Vec<Unbilled>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(NEVER_BILLED)
        .bind(tenant)
        .bind(cycle)
        .bind(to_micros(until))
        .bind(batch)
        .bind(limit)
        .fetch_all(c)
        .await)?)
}

/// Services that used octets in the period and had ended before it, or were never provisioned.
pub async fn stray_usage(
    tx: &mut Tx,
    (tenant, cycle): (&str, &str),
    period_start: Timestamp,
    limit: i64,
) -> Result<Vec<StrayUsage>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(STRAY_USAGE)
        .bind(tenant)
        .bind(cycle)
        .bind(to_micros(period_start))
        .bind(limit)
        .fetch_all(c)
        .await)?)
}

/// Usage of sessions that touch the period and have no owner, whoever's they are.
pub async fn ownerless(tx: &mut Tx, period: &Period, limit: i64) -> Result<Vec<Ownerless>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(OWNERLESS)
        .bind(to_micros(period.start))
        .bind(to_micros(period.end))
        .bind(limit)
        .fetch_all(c)
        .await)?)
}
