//! What is stored of the network's NAS: when each last reported, what it has open, and when a client last used its previous
//! secret.

use std::collections::HashMap;

use sqlx::FromRow;

use super::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, to_micros};

/// What one NAS identity reported.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct NasReports {
    /// The client's name, or `client/inner` behind a proxy.
    pub nas: String,
    /// Arrival of its first report, microseconds of Unix time; so are the others.
    pub first_seen_at: i64,
    pub last_seen_at: i64,
    /// Event time of its newest Accounting-On or -Off.
    pub rebooted_at: Option<i64>,
    pub open_sessions: i64,
    /// Open ones that sent nothing for three of its intervals.
    pub stale_sessions: i64,
}

const REPORTS: &str = "SELECT nas_identity.nas, first_seen_at, last_seen_at, rebooted_at,
        CAST(COALESCE(held.open_sessions, 0) AS BIGINT) AS open_sessions,
        CAST(COALESCE(held.stale_sessions, 0) AS BIGINT) AS stale_sessions
     FROM nas_identity LEFT JOIN (
        SELECT nas, COUNT(*) AS open_sessions, SUM(CASE WHEN state = 'stale' THEN 1 ELSE 0 END) AS stale_sessions
        FROM session WHERE ended_at IS NULL GROUP BY nas
     ) AS held ON held.nas = nas_identity.nas
     ORDER BY nas_identity.nas LIMIT $1";
const NOTE_PREVIOUS_SECRET: &str = "INSERT INTO nas_client (client, previous_secret_at) VALUES ($1, $2)
     ON CONFLICT (client) DO UPDATE SET previous_secret_at = excluded.previous_secret_at
     WHERE nas_client.previous_secret_at < excluded.previous_secret_at";
const PREVIOUS_SECRETS: &str = "SELECT client, previous_secret_at FROM nas_client ORDER BY client LIMIT 100000";

/// All identities that ever reported, by name; at most `limit`.
pub async fn reports(tx: &mut Tx, limit: i64) -> Result<Vec<NasReports>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(REPORTS).bind(limit).fetch_all(c).await)?)
}

/// Remembers that a client signed with its previous secret; an older use changes nothing.
pub async fn note_previous_secret(tx: &mut Tx, client: &str, used_at: Timestamp) -> Result<(), StoreError> {
    let at = to_micros(used_at);
    on!(tx, c => sqlx::query(NOTE_PREVIOUS_SECRET).bind(client).bind(at).execute(c).await.map(drop))?;
    Ok(())
}

/// When each client last signed with a previous secret, microseconds of Unix time.
pub async fn previous_secrets(tx: &mut Tx) -> Result<HashMap<String, i64>, StoreError> {
    let rows: Vec<(String, i64)> = on!(tx, c => sqlx::query_as(PREVIOUS_SECRETS).fetch_all(c).await)?;
    Ok(rows.into_iter().collect())
}
