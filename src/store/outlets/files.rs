//! Files that outlets have written: what was begun, and what stands in its place.

use crate::store::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, to_micros};

/// A file of an outlet.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct FileRow {
    pub outlet: String,
    pub name: String,
    pub batch: String,
    /// `writing` or `placed`.
    pub state: String,
    pub sha256: String,
    pub documents: i64,
}

const BEGIN: &str = "INSERT INTO export_file (outlet, name, batch, state, sha256, documents, written_at)
     VALUES ($1, $2, $3, 'writing', $4, $5, $6) ON CONFLICT DO NOTHING";
const OF_BATCH: &str =
    "SELECT outlet, name, batch, state, sha256, documents FROM export_file WHERE outlet = $1 AND batch = $2";
const PLACED: &str = "UPDATE export_file SET state = 'placed' WHERE outlet = $1 AND batch = $2";

/// The file of a batch.
pub async fn of_batch(tx: &mut Tx, outlet: &str, batch: &str) -> Result<Option<FileRow>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(OF_BATCH).bind(outlet).bind(batch).fetch_optional(c).await)?)
}

/// Notes that a whole file is about to be put into its place. `false`: the outlet has used the name, or written the batch.
pub async fn begin(tx: &mut Tx, file: &FileRow, now: Timestamp) -> Result<bool, StoreError> {
    let done = on!(tx, c => sqlx::query(BEGIN)
        .bind(&file.outlet)
        .bind(&file.name)
        .bind(&file.batch)
        .bind(&file.sha256)
        .bind(file.documents)
        .bind(to_micros(now))
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    Ok(done == 1)
}

/// Notes that it stands there.
pub async fn placed(tx: &mut Tx, outlet: &str, batch: &str) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(PLACED).bind(outlet).bind(batch).execute(c).await.map(drop))?;
    Ok(())
}
