//! Answers to requests that came with an `Idempotency-Key`, kept so that the same request again does nothing new.

use super::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, to_micros};

/// What was answered to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Of method, address and body of the first request.
    pub request_digest: String,
    pub status: u16,
    pub response: String,
}

const FIND: &str = "SELECT request_digest, status, response FROM idempotency WHERE tenant = $1 AND key = $2";
const KEEP: &str = "INSERT INTO idempotency (tenant, key, request_digest, status, response, created_at)
     VALUES ($1, $2, $3, $4, $5, $6)";
const FORGET: &str = "DELETE FROM idempotency WHERE created_at < $1";

/// The answer a key already has.
pub async fn find(tx: &mut Tx, tenant: &str, key: &str) -> Result<Option<Kept>, StoreError> {
    let row: Option<(String, i64, String)> =
        on!(tx, c => sqlx::query_as(FIND).bind(tenant).bind(key).fetch_optional(c).await)?;
    row.map(|(request_digest, status, response)| {
        let status = u16::try_from(status).map_err(|_| StoreError::Corrupt {
            table: "idempotency",
            column: "status",
            id: key.to_owned(),
        })?;
        Ok(Kept { request_digest, status, response })
    })
    .transpose()
}

/// Keeps an answer, in the transaction of the deed.
///
/// **Errors**: `Conflict` when the same key is being answered at this moment.
pub async fn keep(tx: &mut Tx, tenant: &str, key: &str, kept: &Kept, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(KEEP)
        .bind(tenant)
        .bind(key)
        .bind(&kept.request_digest)
        .bind(i64::from(kept.status))
        .bind(&kept.response)
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Forgets answers given before an instant.
pub async fn forget(tx: &mut Tx, before: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(FORGET).bind(to_micros(before)).execute(c).await.map(drop))?;
    Ok(())
}
