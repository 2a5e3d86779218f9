//! What is known of billing systems as a whole: the epochs of their revisions, and what one that is only observed would
//! have changed.

use serde_json::Value as Json;

use super::{StoreError, Tx, on};
use crate::account::Loss;
use crate::vocabulary::{AccountKey, Timestamp, from_micros, to_micros};

/// An epoch of a source's revisions; before the first one opened by hand there is epoch 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    pub epoch: i64,
    pub opened_at: Timestamp,
    pub opened_by: String,
    pub reason: Option<String>,
}

/// What the last push of an observed source would have done to an account.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    pub account: String,
    /// `create`, `update`, `unchanged`, `stale` or `close`.
    pub would: String,
    /// Pointers to what differs.
    pub places: Json,
    pub losses: Vec<Loss>,
    pub times: i64,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}

const EPOCHS: &str = "SELECT epoch, opened_at, opened_by, reason FROM source_epoch
     WHERE tenant = $1 AND source = $2 ORDER BY epoch DESC LIMIT 1000";
const OPEN: &str = "INSERT INTO source_epoch (tenant, source, epoch, opened_at, opened_by, reason)
     SELECT $1, $2, COALESCE(MAX(epoch), 0) + 1, $3, $4, $5 FROM source_epoch WHERE tenant = $1 AND source = $2
     RETURNING epoch";
const LAST_ACCOUNT: &str = "SELECT COALESCE(MAX(id), 0) FROM account";
const NEXT_ACCOUNTS: &str = "SELECT id FROM account
     WHERE tenant = $1 AND source = $2 AND id > $3 AND id <= $4 ORDER BY id LIMIT $5";
const RESET: &str = "UPDATE account SET source_revision = NULL, stale_pushes = 0
     WHERE tenant = $1 AND source = $2 AND id > $3 AND id <= $4";
const RESET_HELD: &str = "UPDATE held_change SET source_revision = NULL WHERE tenant = $1 AND source = $2";
const OBSERVE: &str =
    "INSERT INTO observation (tenant, source, account, would, places, losses, times, first_at, last_at)
     VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7)
     ON CONFLICT (tenant, source, account) DO UPDATE
     SET would = excluded.would, places = excluded.places, losses = excluded.losses,
         times = observation.times + 1, last_at = excluded.last_at";
const OBSERVATIONS: &str = "SELECT account, would, places, losses, times, first_at, last_at FROM observation
     WHERE tenant = $1 AND source = $2 AND ($3 IS NULL OR would = $3) AND account > $4 ORDER BY account LIMIT $5";
const COUNTS: &str = "SELECT would, COUNT(*) FROM observation
     WHERE tenant = $1 AND source = $2 GROUP BY would ORDER BY would LIMIT 100";
const FORGET: &str = "DELETE FROM observation WHERE tenant = $1 AND source = $2";

/// The epochs of a source that were opened, the newest first.
pub async fn epochs(tx: &mut Tx, tenant: &str, source: &str) -> Result<Vec<Epoch>, StoreError> {
    let rows: Vec<(i64, i64, String, Option<String>)> =
        on!(tx, c => sqlx::query_as(EPOCHS).bind(tenant).bind(source).fetch_all(c).await)?;
    let epoch = |(epoch, opened_at, opened_by, reason)| {
        let corrupt =
            || StoreError::Corrupt { table: "source_epoch", column: "opened_at", id: format!("{source}/{epoch}") };
        Ok(Epoch { epoch, opened_at: from_micros(opened_at).ok_or_else(corrupt)?, opened_by, reason })
    };
    rows.into_iter().map(epoch).collect()
}

/// Opens the next epoch of a source; returns its number and the last account there is: revisions of accounts up to it are
/// reset by `reset_revisions`.
pub async fn open_epoch(
    tx: &mut Tx,
    (tenant, source): (&str, &str),
    by: &str,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(i64, i64), StoreError> {
    let epoch: i64 = on!(tx, c => sqlx::query_scalar(OPEN)
        .bind(tenant)
        .bind(source)
        .bind(to_micros(now))
        .bind(by)
        .bind(reason)
        .fetch_one(c)
        .await)?;
    on!(tx, c => sqlx::query(RESET_HELD).bind(tenant).bind(source).execute(c).await.map(drop))?;
    let last: i64 = on!(tx, c => sqlx::query_scalar(LAST_ACCOUNT).fetch_one(c).await)?;
    Ok((epoch, last))
}

/// Forgets the revisions of the next accounts in (`after`, `last`], at most `limit`: the next push of each counts anew.
/// Returns the last account of them; `None`: there are no more.
pub async fn reset_revisions(
    tx: &mut Tx,
    (tenant, source): (&str, &str),
    after: i64,
    last: i64,
    limit: i64,
) -> Result<Option<i64>, StoreError> {
    let next: Vec<i64> = on!(tx, c => sqlx::query_scalar(NEXT_ACCOUNTS)
        .bind(tenant)
        .bind(source)
        .bind(after)
        .bind(last)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let Some(until) = next.last().copied() else { return Ok(None) };
    on!(tx, c => sqlx::query(RESET).bind(tenant).bind(source).bind(after).bind(until).execute(c).await.map(drop))?;
    Ok(Some(until))
}

/// Notes what a push would have done.
pub async fn observe(
    tx: &mut Tx,
    key: &AccountKey,
    would: &str,
    places: &[String],
    losses: &[Loss],
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(OBSERVE)
        .bind(key.tenant.as_str())
        .bind(key.source.as_str())
        .bind(&key.external_id)
        .bind(would)
        .bind(serde_json::json!(places).to_string())
        .bind(serde_json::json!(losses).to_string())
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// What was observed of a source, by account, after account `after`; `would`: only those.
pub async fn observations(
    tx: &mut Tx,
    (tenant, source): (&str, &str),
    would: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<Observation>, StoreError> {
    type Row = (String, String, String, String, i64, i64, i64);
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(OBSERVATIONS)
        .bind(tenant)
        .bind(source)
        .bind(would)
        .bind(after)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let observation = |(account, would, places, losses, times, first_at, last_at): Row| {
        let corrupt = |column| StoreError::Corrupt { table: "observation", column, id: account.clone() };
        Ok(Observation {
            places: serde_json::from_str(&places).map_err(|_| corrupt("places"))?,
            losses: serde_json::from_str(&losses).map_err(|_| corrupt("losses"))?,
            first_at: from_micros(first_at).ok_or_else(|| corrupt("first_at"))?,
            last_at: from_micros(last_at).ok_or_else(|| corrupt("last_at"))?,
            would,
            times,
            account,
        })
    };
    rows.into_iter().map(observation).collect()
}

/// How many accounts by what would have been done to them.
pub async fn observed_counts(tx: &mut Tx, tenant: &str, source: &str) -> Result<Vec<(String, i64)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(COUNTS).bind(tenant).bind(source).fetch_all(c).await)?)
}

/// Forgets what was observed.
pub async fn forget_observations(tx: &mut Tx, tenant: &str, source: &str) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(FORGET).bind(tenant).bind(source).execute(c).await.map(drop))?;
    Ok(())
}
