//! The audit: who did what to whom, appended in the transaction of the deed itself and never changed.

use serde_json::Value;

use super::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// What is noted of a deed.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// `None`: it concerns the installation.
    pub tenant: Option<&'a str>,
    /// The person or program that did it.
    pub actor: &'a str,
    /// What was done, for example `account.update`.
    pub action: &'a str,
    pub account_id: Option<i64>,
    /// To what, in the outside's words.
    pub subject: &'a str,
    /// No secrets.
    pub detail: &'a Value,
}

/// One deed as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    pub id: i64,
    pub at: Timestamp,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub detail: Value,
}

const APPEND: &str = "INSERT INTO audit (at, tenant, actor, action, account_id, subject, detail)
     VALUES ($1, $2, $3, $4, $5, $6, $7)";
const OF_ACCOUNT: &str = "SELECT id, at, actor, action, subject, detail FROM audit
     WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";

/// Appends one deed to the transaction it belongs to.
pub async fn append(tx: &mut Tx, entry: &Entry<'_>, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(APPEND)
        .bind(to_micros(now))
        .bind(entry.tenant)
        .bind(entry.actor)
        .bind(entry.action)
        .bind(entry.account_id)
        .bind(entry.subject)
        .bind(entry.detail.to_string())
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// What was done to an account, the newest first, before row `before`.
pub async fn of_account(
    tx: &mut Tx,
    account_id: i64,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<AuditRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(OF_ACCOUNT)
        .bind(account_id)
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(AuditRow::try_from).collect()
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    at: i64,
    actor: String,
    action: String,
    subject: String,
    detail: String,
}

impl TryFrom<Row> for AuditRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "audit", column, id: row.id.to_string() };
        Ok(Self {
            at: from_micros(row.at).ok_or_else(|| corrupt("at"))?,
            detail: serde_json::from_str(&row.detail).map_err(|_| corrupt("detail"))?,
            id: row.id,
            actor: row.actor,
            action: row.action,
            subject: row.subject,
        })
    }
}
