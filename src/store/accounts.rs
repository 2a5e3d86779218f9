//! Accounts and their services: the desired document as stored, its revisions, the history that billing reads.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{StoreError, Tx, on, thresholds};
use crate::account::{Account, ServiceFacts, ServiceType};
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
    pub document: &'a Account,
    pub etag: &'a str,
    pub source_revision: Option<i64>,
    /// When something changes by itself.
    pub wake_at: Option<Timestamp>,
}

/// One service as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRow {
    pub id: i64,
    pub account_id: i64,
    pub external_id: String,
    pub service_type: ServiceType,
    pub plan: String,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// A service's facts from an instant on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactsRow {
    pub service_id: i64,
    pub from_at: Timestamp,
    pub facts: ServiceFacts,
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

const FIND: &str = select_account!("WHERE tenant = $1 AND source = $2 AND external_id = $3");
const FIND_LOCKED: &str = select_account!("WHERE tenant = $1 AND source = $2 AND external_id = $3 FOR UPDATE");
const BY_ID: &str = select_account!("WHERE id = $1");
const BY_ID_LOCKED: &str = select_account!("WHERE id = $1 FOR UPDATE");
const LIST: &str = select_account!(
    "WHERE tenant = $1
       AND ($2 IS NULL OR source = $2)
       AND ($3 = 1 OR closed_at IS NULL)
       AND id > $4
     ORDER BY id LIMIT $5"
);
const INSERT: &str = "INSERT INTO account
         (tenant, source, external_id, revision, source_revision, status, bill_cycle, document, etag, created_at,
          updated_at, wake_at)
     VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8, $9, $9, $10)
     RETURNING id";
const UPDATE: &str = "UPDATE account
     SET revision = revision + 1, source_revision = $2, status = $3, bill_cycle = $4, document = $5, etag = $6,
         updated_at = $7, wake_at = $8, stale_pushes = 0, close_at = NULL, closed_at = NULL
     WHERE id = $1";
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
const SERVICES: &str = "SELECT id, account_id, external_id, type, plan, created_at, ended_at FROM service
     WHERE account_id = $1 ORDER BY id LIMIT 10000";
const INSERT_SERVICES_SQLITE: &str = "INSERT INTO service (account_id, external_id, type, plan, created_at, updated_at)
     SELECT ?, json_extract(new.value, '$[0]'), json_extract(new.value, '$[1]'), json_extract(new.value, '$[2]'), ?, ?
     FROM json_each(?) AS new WHERE TRUE
     RETURNING id, external_id";
const INSERT_SERVICES_POSTGRES: &str =
    "INSERT INTO service (account_id, external_id, type, plan, created_at, updated_at)
     SELECT $1, new.id, new.type, new.plan, $2, $3
     FROM UNNEST($4::TEXT[], $5::TEXT[], $6::TEXT[]) AS new (id, type, plan)
     RETURNING id, external_id";
const INSERT_ALL_FACTS_SQLITE: &str = "INSERT INTO service_history (service_id, account_id, from_at, detail)
     SELECT json_extract(new.value, '$[0]'), ?, ?, json_extract(new.value, '$[1]') FROM json_each(?) AS new";
const INSERT_ALL_FACTS_POSTGRES: &str = "INSERT INTO service_history (service_id, account_id, from_at, detail)
     SELECT new.id, $1, $2, new.detail FROM UNNEST($3::BIGINT[], $4::TEXT[]) AS new (id, detail)";
const UPDATE_SERVICE: &str = "UPDATE service SET type = $2, plan = $3, ended_at = $4, updated_at = $5 WHERE id = $1";
const LAST_FACTS: &str =
    "SELECT detail FROM service_history WHERE service_id = $1 ORDER BY from_at DESC, id DESC LIMIT 1";
const INSERT_FACTS: &str =
    "INSERT INTO service_history (service_id, account_id, from_at, detail) VALUES ($1, $2, $3, $4)";
const CATALOG_VERSION: &str = "SELECT catalog_version FROM tenant WHERE id = $1";
const CATALOG: &str = "SELECT document FROM catalog_version WHERE tenant = $1 AND version = $2";
const FACTS: &str = "SELECT service_id, from_at, detail FROM service_history
     WHERE account_id = $1 ORDER BY service_id, from_at, id LIMIT 100000";

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

/// An account by its row.
pub async fn by_id(tx: &mut Tx, id: i64) -> Result<Option<AccountRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(BY_ID).bind(id).fetch_optional(c).await)?;
    row.map(AccountRow::try_from).transpose()
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

/// Stores a new account and returns its row.
///
/// **Errors**: `Conflict` when another transaction stored it in the meantime.
pub async fn insert(tx: &mut Tx, key: &AccountKey, new: &Written<'_>, now: Timestamp) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(INSERT)
        .bind(key.tenant.as_str())
        .bind(key.source.as_str())
        .bind(&key.external_id)
        .bind(new.source_revision)
        .bind(new.document.status.as_str())
        .bind(&new.document.bill_cycle)
        .bind(json(new.document)?)
        .bind(new.etag)
        .bind(to_micros(now))
        .bind(new.wake_at.map(to_micros))
        .fetch_one(c)
        .await)?)
}

/// Replaces the desired content; a closed account lives again.
pub async fn update(tx: &mut Tx, id: i64, new: &Written<'_>, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(UPDATE)
        .bind(id)
        .bind(new.source_revision)
        .bind(new.document.status.as_str())
        .bind(&new.document.bill_cycle)
        .bind(json(new.document)?)
        .bind(new.etag)
        .bind(to_micros(now))
        .bind(new.wake_at.map(to_micros))
        .execute(c)
        .await.map(drop))?;
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

/// The services of an account, ended ones too.
pub async fn services(tx: &mut Tx, account_id: i64) -> Result<Vec<ServiceRow>, StoreError> {
    let rows: Vec<RawService> = on!(tx, c => sqlx::query_as(SERVICES).bind(account_id).fetch_all(c).await)?;
    rows.into_iter().map(ServiceRow::try_from).collect()
}

/// Stores services that are not there yet, with their first facts; returns their rows by external id.
pub async fn insert_services(
    tx: &mut Tx,
    account_id: i64,
    new: &[(&str, ServiceFacts)],
    now: Timestamp,
) -> Result<BTreeMap<String, i64>, StoreError> {
    if new.is_empty() {
        return Ok(BTreeMap::new());
    }
    let now = to_micros(now);
    let rows: Vec<(&str, &str, &str)> =
        new.iter().map(|(id, facts)| (*id, facts.service_type.as_str(), facts.plan.as_str())).collect();
    let inserted: Vec<(i64, String)> = match tx {
        Tx::Sqlite(held) => {
            let query = sqlx::query_as(INSERT_SERVICES_SQLITE).bind(account_id).bind(now).bind(now).bind(json(&rows)?);
            query.fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            let query = sqlx::query_as(INSERT_SERVICES_POSTGRES).bind(account_id).bind(now).bind(now);
            let column = |pick: fn(&(&str, &str, &str)) -> String| rows.iter().map(pick).collect::<Vec<String>>();
            let query = query.bind(column(|row| row.0.to_owned())).bind(column(|row| row.1.to_owned()));
            query.bind(column(|row| row.2.to_owned())).fetch_all(&mut **transaction).await?
        }
    };
    let ids: BTreeMap<String, i64> = inserted.into_iter().map(|(id, external_id)| (external_id, id)).collect();
    let mut details = Vec::new();
    for (external_id, facts) in new {
        if let Some(id) = ids.get(*external_id) {
            details.push((*id, json(facts)?));
        }
    }
    match tx {
        Tx::Sqlite(held) => {
            let query = sqlx::query(INSERT_ALL_FACTS_SQLITE).bind(account_id).bind(now).bind(json(&details)?);
            query.execute(&mut *held.transaction).await?;
        }
        Tx::Postgres(transaction) => {
            let (services, details): (Vec<i64>, Vec<String>) = details.into_iter().unzip();
            let query = sqlx::query(INSERT_ALL_FACTS_POSTGRES).bind(account_id).bind(now).bind(services).bind(details);
            query.execute(&mut **transaction).await?;
        }
    }
    Ok(ids)
}

/// Appends the facts of a known service where they differ from the last. `ended`: it is no longer desired. A running period
/// whose thresholds were looked at is looked at again then.
pub async fn update_service(
    tx: &mut Tx,
    known: &ServiceRow,
    facts: &ServiceFacts,
    ended: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    let last: Option<String> = on!(tx, c => sqlx::query_scalar(LAST_FACTS).bind(known.id).fetch_optional(c).await)?;
    let detail = json(facts)?;
    if last.as_deref() == Some(detail.as_str()) && known.ended_at.is_some() == ended {
        return Ok(());
    }
    let ended_at = ended.then(|| known.ended_at.unwrap_or(now));
    on!(tx, c => sqlx::query(UPDATE_SERVICE)
        .bind(known.id)
        .bind(facts.service_type.as_str())
        .bind(&facts.plan)
        .bind(ended_at.map(to_micros))
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    append_facts(tx, known.account_id, known.id, detail, now).await?;
    thresholds::ask_again(tx, known.id, now).await
}

/// Ends a service that is no longer in the document: its last facts, now terminated.
pub async fn end_service(tx: &mut Tx, known: &ServiceRow, now: Timestamp) -> Result<(), StoreError> {
    let last: Option<String> = on!(tx, c => sqlx::query_scalar(LAST_FACTS).bind(known.id).fetch_optional(c).await)?;
    let corrupt =
        || StoreError::Corrupt { table: "service_history", column: "detail", id: format!("of service {}", known.id) };
    let last = last.ok_or_else(corrupt)?;
    let last: ServiceFacts = serde_json::from_str(&last).map_err(|_| corrupt())?;
    let facts = ServiceFacts { status: crate::account::Status::Terminated, ..last };
    update_service(tx, known, &facts, true, now).await
}

async fn append_facts(
    tx: &mut Tx,
    account_id: i64,
    service_id: i64,
    detail: String,
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(INSERT_FACTS)
        .bind(service_id)
        .bind(account_id)
        .bind(to_micros(now))
        .bind(detail)
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// The version of the tenant's catalog in force. `None`: no such tenant.
pub async fn catalog_version(tx: &mut Tx, tenant: &TenantId) -> Result<Option<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(CATALOG_VERSION).bind(tenant.as_str()).fetch_optional(c).await)?)
}

/// One version of a tenant's catalog as stored.
pub async fn catalog_document(tx: &mut Tx, tenant: &TenantId, version: i64) -> Result<Option<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(CATALOG).bind(tenant.as_str()).bind(version).fetch_optional(c).await)?)
}

/// The facts of all services of an account, by service and time.
pub async fn facts(tx: &mut Tx, account_id: i64) -> Result<Vec<FactsRow>, StoreError> {
    let rows: Vec<(i64, i64, String)> = on!(tx, c => sqlx::query_as(FACTS).bind(account_id).fetch_all(c).await)?;
    rows.into_iter()
        .map(|(service_id, from_at, detail)| {
            let corrupt = |column: &'static str| StoreError::Corrupt {
                table: "service_history",
                column,
                id: format!("of service {service_id}"),
            };
            Ok(FactsRow {
                service_id,
                from_at: from_micros(from_at).ok_or_else(|| corrupt("from_at"))?,
                facts: serde_json::from_str(&detail).map_err(|_| corrupt("detail"))?,
            })
        })
        .collect()
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(format!("a document cannot be written: {error}")))
}

/// The account as the audit shows it.
pub fn subject(key: &AccountKey) -> String {
    format!("{}/{}/{}", key.tenant, key.source, key.external_id)
}

/// What an audit row says of a change: the revision it led to and what the source called it.
pub fn audit_detail(revision: i64, source_revision: Option<i64>, etag: &str) -> Value {
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

#[derive(sqlx::FromRow)]
struct RawService {
    id: i64,
    account_id: i64,
    external_id: String,
    r#type: String,
    plan: String,
    created_at: i64,
    ended_at: Option<i64>,
}

impl TryFrom<RawService> for ServiceRow {
    type Error = StoreError;

    fn try_from(row: RawService) -> Result<Self, StoreError> {
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "service", column, id: row.id.to_string() };
        Ok(Self {
            service_type: row.r#type.parse().map_err(|_| corrupt("type"))?,
            created_at: from_micros(row.created_at).ok_or_else(|| corrupt("created_at"))?,
            ended_at: row.ended_at.map(|at| from_micros(at).ok_or_else(|| corrupt("ended_at"))).transpose()?,
            id: row.id,
            account_id: row.account_id,
            external_id: row.external_id,
            plan: row.plan,
        })
    }
}
