//! Which accounts do not simply follow the newest catalog: those held on the version before until a rollout moves them, and
//! those on their way. An account without a row is on the newest.

use std::collections::HashMap;

use super::many::{Many, Of};
use super::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, to_micros};

/// One account's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Following {
    /// The version it is on, or comes from.
    pub from_version: i64,
    /// It stays there until it is moved; otherwise it is looked at next.
    pub held: bool,
}

const OF: &str = "SELECT from_version, held FROM catalog_follow WHERE account_id = $1";
static OF_MANY: Many<1> = Many::new(
    [("id", Of::Integer)],
    "SELECT account_id, from_version, held FROM new CROSS JOIN catalog_follow WHERE account_id = new.id",
);
const ARRIVED: &str = "DELETE FROM catalog_follow WHERE account_id = $1";
const MOVE_ONE: &str = "UPDATE catalog_follow SET held = FALSE, since_at = $2 WHERE account_id = $1";
const WAKE_ONE: &str = "UPDATE account SET wake_at = $2
     WHERE id = $1 AND closed_at IS NULL AND (wake_at IS NULL OR wake_at > $2)";
const HOLD_ONE: &str = "INSERT INTO catalog_follow (account_id, from_version, held, since_at) VALUES ($1, $2, TRUE, $3)
     ON CONFLICT (account_id) DO UPDATE SET from_version = $2, held = TRUE, since_at = $3";
// Whoever is held on an even older version stays there when held again.
const HOLD_WOKEN: &str = "INSERT INTO catalog_follow (account_id, from_version, held, since_at)
     SELECT id, $2, TRUE, $3 FROM account WHERE tenant = $1 AND closed_at IS NULL AND wake_at = $3
     ON CONFLICT (account_id) DO UPDATE SET held = TRUE";
const MOVE_WOKEN: &str = "INSERT INTO catalog_follow (account_id, from_version, held, since_at)
     SELECT id, $2, FALSE, $3 FROM account WHERE tenant = $1 AND closed_at IS NULL AND wake_at = $3
     ON CONFLICT (account_id) DO UPDATE SET held = FALSE, since_at = $3";
const HELD: &str = "SELECT COUNT(*) FROM catalog_follow JOIN account ON account.id = catalog_follow.account_id
     WHERE account.tenant = $1 AND catalog_follow.held AND account.closed_at IS NULL";

/// Where an account is; `None`: on the newest.
pub async fn of(tx: &mut Tx, account_id: i64) -> Result<Option<Following>, StoreError> {
    let row: Option<(i64, bool)> = on!(tx, c => sqlx::query_as(OF).bind(account_id).fetch_optional(c).await)?;
    Ok(row.map(|(from_version, held)| Following { from_version, held }))
}

/// As `of`, for many; those on the newest are absent.
pub async fn of_many(tx: &mut Tx, accounts: &[i64]) -> Result<HashMap<i64, Following>, StoreError> {
    let rows: Vec<(i64, i64, bool)> = OF_MANY.fetch(tx, accounts.iter().map(|id| [(*id).into()]).collect()).await?;
    Ok(rows.into_iter().map(|(id, from_version, held)| (id, Following { from_version, held })).collect())
}

/// The account is on the newest version.
pub async fn arrived(tx: &mut Tx, account_id: i64) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(ARRIVED).bind(account_id).execute(c).await.map(drop))?;
    Ok(())
}

/// Sends a held account on its way: it is looked at next.
pub async fn set_off(tx: &mut Tx, account_id: i64, now: Timestamp) -> Result<(), StoreError> {
    let at = to_micros(now);
    on!(tx, c => sqlx::query(MOVE_ONE).bind(account_id).bind(at).execute(c).await.map(drop))?;
    on!(tx, c => sqlx::query(WAKE_ONE).bind(account_id).bind(at).execute(c).await.map(drop))?;
    Ok(())
}

/// Takes an account back to a version of before, where it stays.
pub async fn hold(tx: &mut Tx, account_id: i64, version: i64, now: Timestamp) -> Result<(), StoreError> {
    let at = to_micros(now);
    on!(tx, c => sqlx::query(HOLD_ONE).bind(account_id).bind(version).bind(at).execute(c).await.map(drop))?;
    on!(tx, c => sqlx::query(WAKE_ONE).bind(account_id).bind(at).execute(c).await.map(drop))?;
    Ok(())
}

/// The accounts of a tenant that were woken at `at` because of its newest catalog come from `from_version`: held there,
/// or on their way as some of many.
pub(super) async fn mark_woken(
    tx: &mut Tx,
    tenant: &str,
    from_version: i64,
    held: bool,
    at: i64,
) -> Result<(), StoreError> {
    let statement = if held { HOLD_WOKEN } else { MOVE_WOKEN };
    on!(tx, c => sqlx::query(statement).bind(tenant).bind(from_version).bind(at).execute(c).await.map(drop))?;
    Ok(())
}

/// How many living accounts of a tenant are held on a version of before.
pub async fn count_held(tx: &mut Tx, tenant: &str) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(HELD).bind(tenant).fetch_one(c).await)?)
}
