//! How far the clocks of NAS are off, and since when: appended by the fold, read by whoever dates a record.

use super::{StoreError, Tx, on};

/// An offset that is in force for records that arrived from an instant on.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ClockOffset {
    pub nas: String,
    /// Microseconds since 1970.
    pub from_at: i64,
    /// Added to Event-Timestamp; 0 is a clock that is right again.
    pub offset_s: i64,
    /// Minutes whose reports agreed.
    pub samples: i64,
}

const ALL: &str = "SELECT nas, from_at, offset_s, samples FROM nas_clock ORDER BY nas, from_at LIMIT 1000000";
const OF_NAS: &str =
    "SELECT nas, from_at, offset_s, samples FROM nas_clock WHERE nas = $1 ORDER BY from_at LIMIT 10000";
const APPEND: &str = "INSERT INTO nas_clock (nas, from_at, offset_s, samples) VALUES ($1, $2, $3, $4)";

/// Every offset there ever was, of each NAS the oldest first.
pub async fn all(tx: &mut Tx) -> Result<Vec<ClockOffset>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(ALL).fetch_all(c).await)?)
}

/// Those of one NAS identity, the oldest first.
pub async fn of_nas(tx: &mut Tx, nas: &str) -> Result<Vec<ClockOffset>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(OF_NAS).bind(nas).fetch_all(c).await)?)
}

/// Adds one.
pub async fn append(tx: &mut Tx, offset: &ClockOffset) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(APPEND)
        .bind(&offset.nas)
        .bind(offset.from_at)
        .bind(offset.offset_s)
        .bind(offset.samples)
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

/// The offset in force for what arrived at `arrived_at`, of one NAS's offsets, the oldest first.
pub fn in_force(offsets: &[ClockOffset], arrived_at: i64) -> i64 {
    let after = offsets.partition_point(|offset| offset.from_at <= arrived_at);
    after.checked_sub(1).map_or(0, |index| offsets[index].offset_s)
}
