//! What the plant knows of an account from outside of accounting: leases and answers of its modems; and its sessions beside it.

use super::{StoreError, Tx, on};

/// A stretch of time in which a modem had an address.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct OnlineStretch {
    pub mac: String,
    pub cmts: String,
    pub since_at: i64,
    /// When it was last seen with it.
    pub seen_at: i64,
}

// A holder of the MAC at the time: a modem that went to another account was that one's later.
const LEASES: &str = "SELECT address_lease.mac, address_lease.cmts, address_lease.since_at, address_lease.seen_at
     FROM holder JOIN address_lease ON address_lease.mac = holder.value
     WHERE holder.account_id = $1 AND holder.kind = 'mac' AND address_lease.kind = 'cm'
       AND address_lease.since_at < $3 AND address_lease.seen_at > $2
       AND holder.from_at < address_lease.seen_at
       AND (holder.until_at IS NULL OR holder.until_at > address_lease.since_at)
     ORDER BY address_lease.since_at, address_lease.mac LIMIT 100000";
const ANSWERS: &str =
    "SELECT element.key, device.answered_at FROM element JOIN device ON device.element_id = element.id
     WHERE element.account_id = $1 AND element.kind = 'cm' AND device.answered_at >= $2 AND device.answered_at < $3
     ORDER BY element.key LIMIT 1000";
const SPANS: &str = "SELECT started_at, last_event_at FROM session
     WHERE account_id = $1 AND started_at < $3 AND last_event_at >= $2 AND (flags & 256) = 0
     ORDER BY started_at, id LIMIT 1000000";

/// Leases of the account's modems that touch `[start, end)`.
pub async fn leases(tx: &mut Tx, account: i64, start: i64, end: i64) -> Result<Vec<OnlineStretch>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(LEASES).bind(account).bind(start).bind(end).fetch_all(c).await)?)
}

/// The account's modems that last answered the poller in `[start, end)`, with when.
pub async fn answers(tx: &mut Tx, account: i64, start: i64, end: i64) -> Result<Vec<(String, i64)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(ANSWERS).bind(account).bind(start).bind(end).fetch_all(c).await)?)
}

/// From the start to the last report of the account's sessions that touch `[start, end)`.
pub async fn session_spans(tx: &mut Tx, account: i64, start: i64, end: i64) -> Result<Vec<(i64, i64)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(SPANS).bind(account).bind(start).bind(end).fetch_all(c).await)?)
}
