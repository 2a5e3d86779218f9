//! The audit: who did what to whom, appended in the transaction of the deed itself and never changed.

use serde_json::Value as Json;

use super::many::{Many, Of};
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
    pub detail: &'a Json,
}

/// One deed as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    pub id: i64,
    pub at: Timestamp,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub detail: Json,
}

static APPEND: Many<7> = Many::new(
    [
        ("at", Of::Integer),
        ("tenant", Of::Text),
        ("actor", Of::Text),
        ("action", Of::Text),
        ("account_id", Of::Integer),
        ("subject", Of::Text),
        ("detail", Of::Text),
    ],
    "INSERT INTO audit (at, tenant, actor, action, account_id, subject, detail)
     SELECT at, tenant, actor, action, account_id, subject, detail FROM new",
);
const OF_ACCOUNT: &str = "SELECT id, at, actor, action, subject, detail FROM audit
     WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";

/// Appends one deed to the transaction it belongs to.
pub async fn append(tx: &mut Tx, entry: &Entry<'_>, now: Timestamp) -> Result<(), StoreError> {
    append_all(tx, std::slice::from_ref(entry), now).await
}

/// Appends deeds to the transaction they belong to.
pub async fn append_all(tx: &mut Tx, entries: &[Entry<'_>], now: Timestamp) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        let [actor, action, subject] = [entry.actor, entry.action, entry.subject].map(Into::into);
        let (tenant, account_id) = (entry.tenant.into(), entry.account_id.into());
        rows.push([to_micros(now).into(), tenant, actor, action, account_id, subject, entry.detail.to_string().into()]);
    }
    APPEND.execute(tx, rows).await
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
