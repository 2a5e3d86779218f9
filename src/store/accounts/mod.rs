//! Accounts: the desired document as stored, and its revisions. Their services stand in `services.rs`.

mod services;

use std::collections::HashMap;

use serde_json::Value as Json;
pub use services::{
    FactsRow, KnownService, ServiceChange, ServiceRow, change_services, facts, facts_of, known_services, service_ids,
    services, with_service,
};

use super::many::{Many, Of};
use super::{StoreError, Tx, on};
use crate::account::Account;
use crate::vocabulary::{AccountKey, TenantId, Timestamp, from_micros, to_micros};

/// One account as stored. A closed one is a tombstone.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountRow {
    pub id: i64,
    pub tenant: String,
    pub source: String,
    pub external_id: String,
    /// Ours: counts every change of the desired content.
    pub revision: i64,
    /// The source's own.
    pub source_revision: Option<i64>,
    pub document: Account,
    pub etag: String,
    pub stale_pushes: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// When it closes, if that is arranged.
    pub close_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
}

/// What a push writes.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    pub key: &'a AccountKey,
    /// The row it has; `None`: it is new.
    pub id: Option<i64>,
    /// The cycle it was billed on before.
    pub cycle_before: Option<&'a str>,
    pub document: &'a Account,
    pub etag: &'a str,
    pub source_revision: Option<i64>,
    /// When something changes by itself.
    pub wake_at: Option<Timestamp>,
}

macro_rules! select_account {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, source, external_id, revision, source_revision, document, etag, stale_pushes,
                    created_at, updated_at, close_at, closed_at FROM account ",
            $rest
        )
    };
}

const ROW_OF: &str = "SELECT id FROM account WHERE tenant = $1 AND source = $2 AND external_id = $3";
const FIND: &str = select_account!("WHERE tenant = $1 AND source = $2 AND external_id = $3");
/// Not `FOR UPDATE`: whoever writes a row that names the account (a job's result, twice in one transaction) would wait for it
/// with the element in hand that we wait for next.
const FIND_LOCKED: &str = select_account!("WHERE tenant = $1 AND source = $2 AND external_id = $3 FOR NO KEY UPDATE");
macro_rules! these_accounts {
    ($rest:literal) => {
        concat!(
            "SELECT account.id, account.tenant, account.source, account.external_id, account.revision,
                    account.source_revision, account.document, account.etag, account.stale_pushes, account.created_at,
                    account.updated_at, account.close_at, account.closed_at
             FROM new CROSS JOIN account
             WHERE account.tenant = new.tenant AND account.source = new.source
               AND account.external_id = new.external_id
             ORDER BY account.id ",
            $rest
        )
    };
}
const KEY_COLUMNS: [(&str, Of); 3] = [("tenant", Of::Text), ("source", Of::Text), ("external_id", Of::Text)];
static THESE: Many<3> = Many::new(KEY_COLUMNS, these_accounts!(""));
static THESE_LOCKED: Many<3> = Many::new(KEY_COLUMNS, these_accounts!("FOR NO KEY UPDATE OF account"));
static THESE_BY_ID: Many<1> = Many::new(
    [("id", Of::Integer)],
    "SELECT account.id, account.tenant, account.source, account.external_id, account.revision,
            account.source_revision, account.document, account.etag, account.stale_pushes, account.created_at,
            account.updated_at, account.close_at, account.closed_at
     FROM new CROSS JOIN account WHERE account.id = new.id ORDER BY account.id",
);
const BY_ID: &str = select_account!("WHERE id = $1");
static BY_IDS: Many<1> = Many::new(
    [("id", Of::Integer)],
    "SELECT account.id, account.tenant, account.source, account.external_id, account.revision, account.source_revision,
            account.document, account.etag, account.stale_pushes, account.created_at, account.updated_at,
            account.close_at, account.closed_at
     FROM new CROSS JOIN account WHERE account.id = new.id ORDER BY account.id",
);
const BY_ID_LOCKED: &str = select_account!("WHERE id = $1 FOR NO KEY UPDATE");
const LIST: &str = select_account!(
    "WHERE tenant = $1
       AND ($2 IS NULL OR source = $2)
       AND ($3 = 1 OR closed_at IS NULL)
       AND id > $4
     ORDER BY id LIMIT $5"
);
static INSERT: Many<10> = Many::new(
    [
        ("tenant", Of::Text),
        ("source", Of::Text),
        ("external_id", Of::Text),
        ("source_revision", Of::Integer),
        ("status", Of::Text),
        ("bill_cycle", Of::Text),
        ("document", Of::Text),
        ("etag", Of::Text),
        ("at", Of::Integer),
        ("wake_at", Of::Integer),
    ],
    "INSERT INTO account
         (tenant, source, external_id, revision, source_revision, status, bill_cycle, document, etag, created_at,
          updated_at, wake_at)
     SELECT tenant, source, external_id, 1, source_revision, status, bill_cycle, document, etag, at, at, wake_at FROM new
     RETURNING id, tenant, source, external_id",
);
static UPDATE: Many<7> = Many::new(
    [
        ("id", Of::Integer),
        ("source_revision", Of::Integer),
        ("status", Of::Text),
        ("document", Of::Text),
        ("etag", Of::Text),
        ("at", Of::Integer),
        ("wake_at", Of::Integer),
    ],
    "UPDATE account
     SET revision = account.revision + 1, source_revision = new.source_revision, status = new.status,
         document = new.document, etag = new.etag, updated_at = new.at, wake_at = new.wake_at, stale_pushes = 0,
         close_at = NULL, closed_at = NULL
     FROM new WHERE account.id = new.id",
);
// SQLite writes an index anew for each column that a statement sets, and few accounts change this one.
static MOVE: Many<2> = Many::new(
    [("id", Of::Integer), ("cycle", Of::Text)],
    "UPDATE account SET bill_cycle = new.cycle FROM new WHERE account.id = new.id",
);
static SEEN_MANY: Many<2> = Many::new(
    [("id", Of::Integer), ("source_revision", Of::Integer)],
    "UPDATE account SET source_revision = new.source_revision, stale_pushes = 0 FROM new WHERE account.id = new.id",
);
const LEAVE_CYCLE: &str = "INSERT INTO left_cycle (account_id, cycle, left_at) VALUES ($1, $2, $3)
     ON CONFLICT (account_id, cycle) DO UPDATE SET left_at = excluded.left_at";
const SEEN: &str = "UPDATE account SET source_revision = $2, stale_pushes = 0 WHERE id = $1";
const COUNT_STALE: &str = "UPDATE account SET stale_pushes = stale_pushes + 1 WHERE id = $1 RETURNING stale_pushes";
const CLOSE_LATER: &str =
    "UPDATE account SET close_at = $2, wake_at = $3, source_revision = $4, updated_at = $5 WHERE id = $1";
const CLOSE: &str = "UPDATE account
     SET closed_at = $2, close_at = $2, wake_at = NULL, source_revision = $3, status = 'terminated',
         revision = revision + 1, updated_at = $2
     WHERE id = $1";
const WAKE: &str = "UPDATE account SET wake_at = $2 WHERE id = $1";
const DUE: &str = "SELECT id FROM account WHERE wake_at <= $1 ORDER BY wake_at, id LIMIT $2";
const CATALOG_VERSION: &str = "SELECT catalog_version FROM tenant WHERE id = $1";
const CATALOG: &str = "SELECT document FROM catalog_version WHERE tenant = $1 AND version = $2";

/// An account, closed or not.
pub async fn find(tx: &mut Tx, key: &AccountKey) -> Result<Option<AccountRow>, StoreError> {
    find_by(tx, key, FIND).await
}

/// As `find`; on PostgreSQL nobody else changes it until the transaction ends.
pub async fn find_locked(tx: &mut Tx, key: &AccountKey) -> Result<Option<AccountRow>, StoreError> {
    let statement = match tx {
        Tx::Sqlite(_) => FIND,
        Tx::Postgres(_) => FIND_LOCKED,
    };
    find_by(tx, key, statement).await
}

async fn find_by(tx: &mut Tx, key: &AccountKey, statement: &'static str) -> Result<Option<AccountRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(statement)
        .bind(key.tenant.as_str())
        .bind(key.source.as_str())
        .bind(&key.external_id)
        .fetch_optional(c)
        .await)?;
    row.map(AccountRow::try_from).transpose()
}

/// Accounts by their keys, closed ones too; on PostgreSQL nobody else changes them until the transaction ends.
pub async fn these_locked(tx: &mut Tx, keys: &[&AccountKey]) -> Result<Vec<AccountRow>, StoreError> {
    let statement = match tx {
        Tx::Sqlite(_) => &THESE,
        Tx::Postgres(_) => &THESE_LOCKED,
    };
    let rows =
        keys.iter().map(|key| [key.tenant.as_str().into(), key.source.as_str().into(), (&key.external_id).into()]);
    let rows: Vec<Row> = statement.fetch(tx, rows.collect()).await?;
    rows.into_iter().map(AccountRow::try_from).collect()
}

/// The row of an account, closed or not.
pub(super) async fn row_of(
    tx: &mut Tx,
    tenant: &str,
    source: &str,
    external_id: &str,
) -> Result<Option<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(ROW_OF).bind(tenant).bind(source).bind(external_id).fetch_optional(c).await)?)
}

/// As `these_locked`, to look at only.
pub async fn these(tx: &mut Tx, keys: &[&AccountKey]) -> Result<Vec<AccountRow>, StoreError> {
    let rows =
        keys.iter().map(|key| [key.tenant.as_str().into(), key.source.as_str().into(), (&key.external_id).into()]);
    let rows: Vec<Row> = THESE.fetch(tx, rows.collect()).await?;
    rows.into_iter().map(AccountRow::try_from).collect()
}

/// Accounts by their rows.
pub async fn these_by_id(tx: &mut Tx, ids: &[i64]) -> Result<Vec<AccountRow>, StoreError> {
    let rows: Vec<Row> = THESE_BY_ID.fetch(tx, ids.iter().map(|id| [(*id).into()]).collect()).await?;
    rows.into_iter().map(AccountRow::try_from).collect()
}

/// An account by its row.
pub async fn by_id(tx: &mut Tx, id: i64) -> Result<Option<AccountRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(BY_ID).bind(id).fetch_optional(c).await)?;
    row.map(AccountRow::try_from).transpose()
}

/// As `by_id`, for many.
pub async fn by_ids(tx: &mut Tx, ids: &[i64]) -> Result<Vec<AccountRow>, StoreError> {
    let rows: Vec<Row> = BY_IDS.fetch(tx, ids.iter().map(|id| [(*id).into()]).collect()).await?;
    rows.into_iter().map(AccountRow::try_from).collect()
}

/// As `by_id`; on PostgreSQL nobody else changes it until the transaction ends.
pub async fn by_id_locked(tx: &mut Tx, id: i64) -> Result<Option<AccountRow>, StoreError> {
    let statement = match tx {
        Tx::Sqlite(_) => BY_ID,
        Tx::Postgres(_) => BY_ID_LOCKED,
    };
    let row: Option<Row> = on!(tx, c => sqlx::query_as(statement).bind(id).fetch_optional(c).await)?;
    row.map(AccountRow::try_from).transpose()
}

/// Accounts of a tenant in the order they came, after row `after`; with `closed` the tombstones too.
pub async fn list(
    tx: &mut Tx,
    tenant: &str,
    source: Option<&str>,
    closed: bool,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<AccountRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(tenant)
        .bind(source)
        .bind(i64::from(closed))
        .bind(after.unwrap_or(0))
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(AccountRow::try_from).collect()
}

/// Stores accounts and returns their rows, in the order of `accounts`: new ones, and known ones whose desired content is
/// replaced; a closed one lives again.
///
/// **Errors**: `Conflict` when another transaction stored a new one in the meantime.
pub async fn write(tx: &mut Tx, accounts: &[Written<'_>], now: Timestamp) -> Result<Vec<i64>, StoreError> {
    let now = to_micros(now);
    let (mut new, mut known, mut moved) = (Vec::new(), Vec::new(), Vec::new());
    for account in accounts {
        let (key, document) = (account.key, account.document);
        let (status, cycle, text) = (document.status.as_str(), &document.bill_cycle, json(document)?);
        let (revision, wake_at) = (account.source_revision.into(), account.wake_at.map(to_micros).into());
        let (status, text, tag) = (status.into(), text.into(), account.etag.into());
        match account.id {
            None => {
                let cycle = cycle.into();
                let [tenant, source, id] = [key.tenant.as_str(), key.source.as_str(), &key.external_id].map(Into::into);
                new.push([tenant, source, id, revision, status, cycle, text, tag, now.into(), wake_at]);
            }
            Some(id) => {
                if account.cycle_before != Some(cycle) {
                    moved.push([id.into(), cycle.into()]);
                }
                known.push([id.into(), revision, status, text, tag, now.into(), wake_at]);
            }
        }
    }
    let inserted: Vec<(i64, String, String, String)> = INSERT.fetch(tx, new).await?;
    UPDATE.execute(tx, known).await?;
    MOVE.execute(tx, moved).await?;
    let places = inserted
        .iter()
        .map(|(id, tenant, source, external_id)| ((tenant.as_str(), source.as_str(), external_id.as_str()), *id));
    let ids: HashMap<(&str, &str, &str), i64> = places.collect();
    let id_of = |account: &Written<'_>| {
        let key = account.key;
        account.id.or_else(|| ids.get(&(key.tenant.as_str(), key.source.as_str(), key.external_id.as_str())).copied())
    };
    let lost = || StoreError::Database("a new account got no row".to_owned());
    accounts.iter().map(|account| id_of(account).ok_or_else(lost)).collect()
}

/// As `record_seen`, for many.
pub async fn record_all_seen(tx: &mut Tx, seen: &[(i64, Option<i64>)]) -> Result<(), StoreError> {
    SEEN_MANY.execute(tx, seen.iter().map(|(id, revision)| [(*id).into(), (*revision).into()]).collect()).await
}

/// Notes that an account is billed on another cycle from now on; the one it leaves still bills what was.
pub async fn leave_cycle(tx: &mut Tx, id: i64, cycle: &str, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(LEAVE_CYCLE).bind(id).bind(cycle).bind(to_micros(now)).execute(c).await.map(drop))?;
    Ok(())
}

/// Notes the source's newest revision of an unchanged account.
pub async fn record_seen(tx: &mut Tx, id: i64, source_revision: Option<i64>) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(SEEN).bind(id).bind(source_revision).execute(c).await.map(drop))?;
    Ok(())
}

/// Counts one more stale push; returns how many came since the last good one.
pub async fn count_stale(tx: &mut Tx, id: i64) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(COUNT_STALE).bind(id).fetch_one(c).await)?)
}

/// Arranges that the account closes at `close_at`; it is looked at again at `wake_at`.
pub async fn close_later(
    tx: &mut Tx,
    id: i64,
    close_at: Timestamp,
    wake_at: Timestamp,
    source_revision: Option<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(CLOSE_LATER)
        .bind(id)
        .bind(to_micros(close_at))
        .bind(to_micros(wake_at))
        .bind(source_revision)
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Turns the account into a tombstone.
pub async fn close(tx: &mut Tx, id: i64, source_revision: Option<i64>, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(CLOSE)
        .bind(id)
        .bind(to_micros(now))
        .bind(source_revision)
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Sets when the account is looked at again.
pub async fn wake_at(tx: &mut Tx, id: i64, at: Option<Timestamp>) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(WAKE).bind(id).bind(at.map(to_micros)).execute(c).await.map(drop))?;
    Ok(())
}

/// Accounts that must be looked at by `now`, the longest due first.
pub async fn due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(DUE).bind(to_micros(now)).bind(limit).fetch_all(c).await)?)
}

/// The version of the tenant's catalog in force. `None`: no such tenant.
pub async fn catalog_version(tx: &mut Tx, tenant: &TenantId) -> Result<Option<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(CATALOG_VERSION).bind(tenant.as_str()).fetch_optional(c).await)?)
}

/// One version of a tenant's catalog as stored.
pub async fn catalog_document(tx: &mut Tx, tenant: &TenantId, version: i64) -> Result<Option<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(CATALOG).bind(tenant.as_str()).bind(version).fetch_optional(c).await)?)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(format!("a document cannot be written: {error}")))
}

/// The account as the audit shows it.
pub fn subject(key: &AccountKey) -> String {
    format!("{}/{}/{}", key.tenant, key.source, key.external_id)
}

/// As `subject`, of a stored account.
pub fn subject_of(row: &AccountRow) -> String {
    format!("{}/{}/{}", row.tenant, row.source, row.external_id)
}

/// What an audit row says of a change: the revision it led to and what the source called it.
pub fn audit_detail(revision: i64, source_revision: Option<i64>, etag: &str) -> Json {
    serde_json::json!({ "revision": revision, "source_revision": source_revision, "etag": etag })
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    tenant: String,
    source: String,
    external_id: String,
    revision: i64,
    source_revision: Option<i64>,
    document: String,
    etag: String,
    stale_pushes: i64,
    created_at: i64,
    updated_at: i64,
    close_at: Option<i64>,
    closed_at: Option<i64>,
}

impl TryFrom<Row> for AccountRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "account", column, id: row.id.to_string() };
        let instant = |column: &'static str, at: i64| from_micros(at).ok_or_else(|| corrupt(column));
        Ok(Self {
            document: serde_json::from_str(&row.document).map_err(|_| corrupt("document"))?,
            created_at: instant("created_at", row.created_at)?,
            updated_at: instant("updated_at", row.updated_at)?,
            close_at: row.close_at.map(|at| instant("close_at", at)).transpose()?,
            closed_at: row.closed_at.map(|at| instant("closed_at", at)).transpose()?,
            id: row.id,
            tenant: row.tenant,
            source: row.source,
            external_id: row.external_id,
            revision: row.revision,
            source_revision: row.source_revision,
            etag: row.etag,
            stale_pushes: row.stale_pushes,
        })
    }
}
