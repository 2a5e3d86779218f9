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
    /// Microseconds of Unix time; so is the other.
    pub ended_at: Option<i64>,
    pub closed_at: Option<i64>,
    pub in_octets: i64,
    pub out_octets: i64,
}

/// Usage of a period that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownerless {
    pub user_name: Option<String>,
    pub nas: String,
    pub sessions: i64,
    pub octets: i128,
}

/// A NAS with sessions of a period that it has not told the end of.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct BehindNas {
    pub nas: String,
    /// Arrival of its last report, microseconds of Unix time.
    pub last_seen_at: i64,
    pub open_sessions: i64,
}

// A sum over many lines may leave 64 bits: it is read in two parts, of whole milliards and of the rest.
const BILLS: &str = "SELECT account.source, account.external_id, own.currency, own.high, own.low,
        CAST(COALESCE(earlier.high, 0) AS BIGINT), CAST(COALESCE(earlier.low, 0) AS BIGINT),
        CAST(COALESCE(earlier.periods, 0) AS BIGINT)
     FROM (SELECT line.account_id, line.currency, CAST(SUM(line.amount_minor / 1000000000) AS BIGINT) AS high,
              CAST(SUM(line.amount_minor % 1000000000) AS BIGINT) AS low
           FROM batch JOIN line ON line.batch = batch.id
           WHERE batch.tenant = $2 AND batch.cycle = $3 AND batch.period_start_at = $4
             AND (batch.state <> 'building' OR batch.id = $1)
             AND line.account_id IN (SELECT account_id FROM line WHERE batch = $1)
           GROUP BY line.account_id, line.currency) AS own
     JOIN account ON account.id = own.account_id
     LEFT JOIN (SELECT line.account_id, line.currency, CAST(SUM(line.amount_minor / 1000000000) AS BIGINT) AS high,
                   CAST(SUM(line.amount_minor % 1000000000) AS BIGINT) AS low,
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
        account.status, service.ended_at, account.closed_at, usage_total.in_octets, usage_total.out_octets
     FROM account JOIN service ON service.account_id = account.id
     JOIN usage_total ON usage_total.service_id = service.id
     WHERE account.tenant = $1 AND account.bill_cycle = $2 AND usage_total.period_start_at = $3
       AND (usage_total.in_octets > 0 OR usage_total.out_octets > 0)
       AND (service.ended_at <= $3 OR account.closed_at <= $3 OR account.status = 'pending')
     ORDER BY account.id, service.id LIMIT $4";
// A session that only informs (the mark 256) is nobody's usage.
const OWNERLESS: &str = "SELECT user_name, nas, COUNT(*) AS sessions,
        CAST(SUM(in_octets / 1000000000) + SUM(out_octets / 1000000000) AS BIGINT) AS high,
        CAST(SUM(in_octets % 1000000000) + SUM(out_octets % 1000000000) AS BIGINT) AS low
     FROM session
     WHERE service_id IS NULL AND (flags & 256) = 0 AND started_at < $2 AND last_event_at >= $1
       AND (in_octets > 0 OR out_octets > 0)
     GROUP BY user_name, nas ORDER BY nas, user_name LIMIT $3";
// Of a session that was heard of after the period's end everything of the period is here.
const BEHIND: &str = "SELECT session.nas, nas_identity.last_seen_at, COUNT(*) AS open_sessions
     FROM session JOIN nas_identity ON nas_identity.nas = session.nas
     LEFT JOIN account ON account.id = session.account_id
     WHERE session.ended_at IS NULL AND session.started_at < $3 AND session.last_event_at < $3
       AND (session.flags & 256) = 0 AND nas_identity.last_seen_at >= $2
       AND (account.tenant = $1 OR (session.account_id IS NULL AND $4 = 1))
     GROUP BY session.nas, nas_identity.last_seen_at ORDER BY session.nas LIMIT $5";

/// The bill of the period of everybody with a line in the batch, with the same account's bills of up to `back` earlier
/// periods. What batches of the period before this one came to is part of it.
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
    let rows: Vec<BillRow> = on!(tx, c => sqlx::query_as(BILLS)
        .bind(batch)
        .bind(tenant)
        .bind(cycle)
        .bind(start)
        .bind(since)
        .fetch_all(c)
        .await)?;
    let bill = |(source, account, currency, high, low, earlier_high, earlier_low, earlier_periods): BillRow| {
        let corrupt = |_| StoreError::Corrupt { table: "line", column: "currency", id: account.clone() };
        let currency: Currency = currency.parse().map_err(corrupt)?;
        let (minor, earlier_minor) = (whole(high, low), whole(earlier_high, earlier_low));
        Ok(Bill { account: format!("{source}/{account}"), currency, minor, earlier_minor, earlier_periods })
    };
    rows.into_iter().map(bill).collect()
}

/// Source, account, currency; the bill, the earlier bills, each in two parts; periods of these.
type BillRow = (String, String, String, i64, i64, i64, i64, i64);

/// A sum that was read in milliards and the rest.
fn whole(high: i64, low: i64) -> i128 {
    i128::from(high) * 1_000_000_000 + i128::from(low)
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
    let rows: Vec<(Option<String>, String, i64, i64, i64)> = on!(tx, c => sqlx::query_as(OWNERLESS)
        .bind(to_micros(period.start))
        .bind(to_micros(period.end))
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let found =
        |(user_name, nas, sessions, high, low)| Ownerless { user_name, nas, sessions, octets: whole(high, low) };
    Ok(rows.into_iter().map(found).collect())
}

/// NAS that reported in the period or later and have sessions of it that were last heard of before its end: the tenant's,
/// and with `alone` nobody's.
pub async fn behind(
    tx: &mut Tx,
    tenant: &str,
    period: &Period,
    alone: bool,
    limit: i64,
) -> Result<Vec<BehindNas>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(BEHIND)
        .bind(tenant)
        .bind(to_micros(period.start))
        .bind(to_micros(period.end))
        .bind(i64::from(alone))
        .bind(limit)
        .fetch_all(c)
        .await)?)
}
