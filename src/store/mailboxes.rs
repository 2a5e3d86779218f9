//! When a mailbox must be looked at again although nobody changed it: its grace is over, a former address ends, a
//! session could not be ended yet. The provisioner writes the instant, and whoever finds it due wakes the mailbox's job.

use super::{StoreError, Tx, jobs, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

const AT: &str = "SELECT at FROM mailbox_wake WHERE element_id = $1";
const SET: &str = "INSERT INTO mailbox_wake (element_id, at) VALUES ($1, $2)
     ON CONFLICT (element_id) DO UPDATE SET at = excluded.at";
const CLEAR: &str = "DELETE FROM mailbox_wake WHERE element_id = $1";
const DUE: &str = "SELECT element_id FROM mailbox_wake WHERE at <= $1 ORDER BY at, element_id LIMIT $2";

/// When an element is looked at again; `None`: when it changes.
pub async fn wake_at(tx: &mut Tx, element_id: i64) -> Result<Option<Timestamp>, StoreError> {
    let at: Option<i64> = on!(tx, c => sqlx::query_scalar(AT).bind(element_id).fetch_optional(c).await)?;
    Ok(at.and_then(from_micros))
}

/// Sets it, or takes it back.
pub async fn set_wake(tx: &mut Tx, element_id: i64, at: Option<Timestamp>) -> Result<(), StoreError> {
    match at {
        Some(at) => {
            on!(tx, c => sqlx::query(SET).bind(element_id).bind(to_micros(at)).execute(c).await.map(drop))?;
        }
        None => on!(tx, c => sqlx::query(CLEAR).bind(element_id).execute(c).await.map(drop))?,
    }
    Ok(())
}

/// Whether any is due.
pub async fn is_due(tx: &mut Tx, now: Timestamp) -> Result<bool, StoreError> {
    let due: Vec<i64> = on!(tx, c => sqlx::query_scalar(DUE).bind(to_micros(now)).bind(1i64).fetch_all(c).await)?;
    Ok(!due.is_empty())
}

/// Gives jobs to at most `limit` elements whose instant has come. Returns how many.
pub async fn wake_due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<usize, StoreError> {
    let due: Vec<i64> = on!(tx, c => sqlx::query_scalar(DUE).bind(to_micros(now)).bind(limit).fetch_all(c).await)?;
    for element_id in &due {
        jobs::wake(tx, *element_id, jobs::LANE_BULK, now).await?;
        set_wake(tx, *element_id, None).await?;
    }
    Ok(due.len())
}
