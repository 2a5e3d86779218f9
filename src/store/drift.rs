//! Where the outside differs from what is desired: found by a sweep or a poll, listed, and healed by the element's job.

use serde::Serialize;

use super::many::{Many, Of};
use super::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    pub id: i64,
    #[serde(skip)]
    pub element_id: i64,
    pub tenant: String,
    /// External id of the account.
    pub account: String,
    pub kind: String,
    pub key: String,
    pub detail: String,
    pub found_at: Option<Timestamp>,
    pub healed_at: Option<Timestamp>,
}

/// How far the sweep of one kind is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Elements up to this row were looked at.
    pub after: i64,
    /// `None`: none is under way.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

const FOUND: &str = "INSERT INTO drift (element_id, detail, found_at, seen_at) VALUES ($1, $2, $3, $3)
     ON CONFLICT (element_id) WHERE healed_at IS NULL DO UPDATE SET detail = $2, seen_at = $3";
static HEALED: Many<2> = Many::new(
    [("element", Of::Integer), ("at", Of::Integer)],
    "UPDATE drift SET healed_at = new.at FROM new WHERE drift.element_id = new.element AND drift.healed_at IS NULL",
);
const LIST: &str = "SELECT drift.id, drift.element_id, element.tenant, account.external_id, element.kind, element.key,
            drift.detail, drift.found_at, drift.healed_at
     FROM drift JOIN element ON element.id = drift.element_id JOIN account ON account.id = element.account_id
     WHERE ($1 IS NULL OR element.tenant = $1) AND ($2 OR drift.healed_at IS NULL)
       AND ($3 IS NULL OR element.kind = $3) AND drift.id > $4
       AND (CAST($6 AS TEXT) IS NULL OR account.source = $6)
     ORDER BY drift.id LIMIT $5";
const COUNT_OPEN: &str = "SELECT element.kind, COUNT(*) FROM drift JOIN element ON element.id = drift.element_id
     WHERE drift.healed_at IS NULL GROUP BY element.kind ORDER BY element.kind";
const FORGET: &str = "DELETE FROM drift WHERE healed_at < $1";
const SWEEP: &str = "SELECT after_id, started_at, finished_at FROM sweep WHERE kind = $1";
const KEEP_SWEEP: &str = "INSERT INTO sweep (kind, after_id, started_at, finished_at) VALUES ($1, $2, $3, $4)
     ON CONFLICT (kind) DO UPDATE SET after_id = $2, started_at = $3, finished_at = $4";

/// Lists a difference, or says again that it is there.
pub async fn found(tx: &mut Tx, element_id: i64, detail: &str, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(FOUND).bind(element_id).bind(detail).bind(to_micros(now)).execute(c).await.map(drop))?;
    Ok(())
}

/// The elements are as desired again.
pub async fn healed(tx: &mut Tx, elements: &[i64], now: Timestamp) -> Result<(), StoreError> {
    HEALED.execute(tx, elements.iter().map(|id| [(*id).into(), to_micros(now).into()]).collect()).await
}

/// Differences after row `after`, open ones unless `all`; `source` narrows to a tenant's billing system, `kind` to one kind
/// of element.
pub async fn list(
    tx: &mut Tx,
    (tenant, source): (Option<&str>, Option<&str>),
    kind: Option<&str>,
    all: bool,
    after: i64,
    limit: i64,
) -> Result<Vec<Drift>, StoreError> {
    type Row = (i64, i64, String, String, String, String, String, i64, Option<i64>);
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(tenant)
        .bind(all)
        .bind(kind)
        .bind(after)
        .bind(limit)
        .bind(source)
        .fetch_all(c)
        .await)?;
    let drift = |(id, element_id, tenant, account, kind, key, detail, found_at, healed_at): Row| Drift {
        id,
        element_id,
        tenant,
        account,
        kind,
        key,
        detail,
        found_at: from_micros(found_at),
        healed_at: healed_at.and_then(from_micros),
    };
    Ok(rows.into_iter().map(drift).collect())
}

/// Open differences by kind of element.
pub async fn count_open(tx: &mut Tx) -> Result<Vec<(String, i64)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(COUNT_OPEN).fetch_all(c).await)?)
}

/// Forgets what was healed before an instant.
pub async fn forget(tx: &mut Tx, before: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(FORGET).bind(to_micros(before)).execute(c).await.map(drop))?;
    Ok(())
}

/// How far the sweep of a kind is.
pub async fn sweep(tx: &mut Tx, kind: &str) -> Result<Sweep, StoreError> {
    let row: Option<(i64, Option<i64>, Option<i64>)> =
        on!(tx, c => sqlx::query_as(SWEEP).bind(kind).fetch_optional(c).await)?;
    Ok(row.map_or_else(Sweep::default, |(after, started_at, finished_at)| Sweep {
        after,
        started_at: started_at.and_then(from_micros),
        finished_at: finished_at.and_then(from_micros),
    }))
}

/// Keeps how far the sweep of a kind is.
pub async fn keep_sweep(tx: &mut Tx, kind: &str, sweep: &Sweep) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(KEEP_SWEEP)
        .bind(kind)
        .bind(sweep.after)
        .bind(sweep.started_at.map(to_micros))
        .bind(sweep.finished_at.map(to_micros))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}
