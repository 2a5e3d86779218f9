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
    /// `None`: it concerns the installation.
    pub tenant: Option<String>,
    pub actor: String,
    pub action: String,
    /// (source, external id) of the account it concerns.
    pub account: Option<(String, String)>,
    pub subject: String,
    pub detail: Json,
    /// Its place in the chain; `None` for a second after it was done.
    pub sequence: Option<i64>,
    /// Subject and detail went with their person.
    pub erased: bool,
}

/// Which deeds a list shows.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter<'a> {
    pub tenant: Option<&'a str>,
    pub account_id: Option<i64>,
    /// Only those done since.
    pub since: Option<Timestamp>,
    /// Only those whose actor has this in it, whatever its case.
    pub actor: Option<&'a str>,
    /// Only those whose action begins so.
    pub action: Option<&'a str>,
    /// Only rows before this one; lists run from the newest back.
    pub before: Option<i64>,
    pub limit: i64,
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
const LIST: &str = "SELECT audit.id, audit.at, audit.tenant, audit.actor, audit.action, audit.subject, audit.detail,
        account.source, account.external_id, audit.chain_sequence,
        (audit.chain_sequence IS NOT NULL AND audit.chain_salt IS NULL) AS erased
     FROM audit LEFT JOIN account ON account.id = audit.account_id
     WHERE ($1 IS NULL OR audit.tenant = $1)
       AND ($2 IS NULL OR audit.account_id = $2)
       AND audit.at >= $3
       AND LOWER(audit.actor) LIKE $4 ESCAPE '!'
       AND audit.action LIKE $5 ESCAPE '!'
       AND audit.id < $6
     ORDER BY audit.id DESC LIMIT $7";
// With an account the index of its rows is the way, and on SQLite only a plain comparison takes it.
const LIST_OF_ACCOUNT: &str = "SELECT audit.id, audit.at, audit.tenant, audit.actor, audit.action, audit.subject,
        audit.detail, account.source, account.external_id, audit.chain_sequence,
        (audit.chain_sequence IS NOT NULL AND audit.chain_salt IS NULL) AS erased
     FROM audit LEFT JOIN account ON account.id = audit.account_id
     WHERE ($1 IS NULL OR audit.tenant = $1)
       AND audit.account_id = $2
       AND audit.at >= $3
       AND LOWER(audit.actor) LIKE $4 ESCAPE '!'
       AND audit.action LIKE $5 ESCAPE '!'
       AND audit.id < $6
     ORDER BY audit.id DESC LIMIT $7";

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

/// Deeds, the newest first.
pub async fn list(tx: &mut Tx, filter: &AuditFilter<'_>) -> Result<Vec<AuditRow>, StoreError> {
    let text = if filter.account_id.is_some() { LIST_OF_ACCOUNT } else { LIST };
    let actor = filter.actor.map_or_else(|| "%".to_owned(), |actor| format!("%{}%", literal(&actor.to_lowercase())));
    let action = filter.action.map_or_else(|| "%".to_owned(), |action| format!("{}%", literal(action)));
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(text)
        .bind(filter.tenant)
        .bind(filter.account_id)
        .bind(filter.since.map_or(i64::MIN, to_micros))
        .bind(actor)
        .bind(action)
        .bind(filter.before.unwrap_or(i64::MAX))
        .bind(filter.limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(AuditRow::try_from).collect()
}

/// What was done to an account, the newest first, before row `before`.
pub async fn of_account(
    tx: &mut Tx,
    account_id: i64,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<AuditRow>, StoreError> {
    list(tx, &AuditFilter { account_id: Some(account_id), before, limit, ..AuditFilter::default() }).await
}

/// A text in which LIKE finds nothing but itself.
pub(super) fn literal(text: &str) -> String {
    text.replace('!', "!!").replace('%', "!%").replace('_', "!_")
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    at: i64,
    tenant: Option<String>,
    actor: String,
    action: String,
    subject: String,
    detail: String,
    source: Option<String>,
    external_id: Option<String>,
    chain_sequence: Option<i64>,
    erased: bool,
}

impl TryFrom<Row> for AuditRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "audit", column, id: row.id.to_string() };
        Ok(Self {
            at: from_micros(row.at).ok_or_else(|| corrupt("at"))?,
            detail: serde_json::from_str(&row.detail).map_err(|_| corrupt("detail"))?,
            id: row.id,
            tenant: row.tenant,
            actor: row.actor,
            action: row.action,
            account: row.source.zip(row.external_id),
            subject: row.subject,
            sequence: row.chain_sequence,
            erased: row.erased,
        })
    }
}
