//! API keys: who a key stands for and whether it still does. Only the SHA-256 of a key is ever stored.

use std::str::FromStr;

use super::{StoreError, Tx, on};
use crate::vocabulary::{Role, SourceId, TenantId, Timestamp, from_micros, to_micros};

/// One API key without the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    pub id: String,
    /// `None` only for the role `platform`.
    pub tenant: Option<TenantId>,
    pub role: Role,
    /// The one source it may act for; `None`: every source of its tenant.
    pub source: Option<SourceId>,
    pub name: String,
    pub hash: Vec<u8>,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

macro_rules! select_key {
    ($rest:literal) => {
        concat!("SELECT id, tenant, role, source, name, hash, created_at, revoked_at FROM api_key ", $rest)
    };
}

const INSERT: &str = "INSERT INTO api_key (id, tenant, role, source, name, hash, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7)";
const BY_HASH: &str = select_key!("WHERE hash = $1");
const LIST: &str = select_key!("WHERE ($1 IS NULL OR tenant = $1) ORDER BY created_at, id LIMIT 10000");
const REVOKE: &str = "UPDATE api_key SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";

/// Stores a new key. **Errors**: `Conflict` when the id or the hash is there already.
pub async fn insert(tx: &mut Tx, key: &KeyRow) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(INSERT)
        .bind(&key.id)
        .bind(key.tenant.as_ref().map(TenantId::as_str))
        .bind(key.role.as_str())
        .bind(key.source.as_ref().map(SourceId::as_str))
        .bind(&key.name)
        .bind(key.hash.as_slice())
        .bind(to_micros(key.created_at))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// The key with this SHA-256, revoked or not.
pub async fn by_hash(tx: &mut Tx, hash: &[u8]) -> Result<Option<KeyRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(BY_HASH).bind(hash).fetch_optional(c).await)?;
    row.map(KeyRow::try_from).transpose()
}

/// All keys, or those of one tenant, the oldest first.
pub async fn list(tx: &mut Tx, tenant: Option<&str>) -> Result<Vec<KeyRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST).bind(tenant).fetch_all(c).await)?;
    rows.into_iter().map(KeyRow::try_from).collect()
}

/// Ends a key. `false`: not there, or revoked before.
pub async fn revoke(tx: &mut Tx, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    let rows = on!(tx, c => sqlx::query(REVOKE)
        .bind(id)
        .bind(to_micros(now))
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    tenant: Option<String>,
    role: String,
    source: Option<String>,
    name: String,
    hash: Vec<u8>,
    created_at: i64,
    revoked_at: Option<i64>,
}

impl TryFrom<Row> for KeyRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "api_key", column, id: row.id.clone() };
        let revoked_at = row.revoked_at.map(|at| from_micros(at).ok_or_else(|| corrupt("revoked_at"))).transpose()?;
        Ok(Self {
            tenant: row.tenant.as_deref().map(TenantId::parse).transpose().map_err(|_| corrupt("tenant"))?,
            role: Role::from_str(&row.role).map_err(|_| corrupt("role"))?,
            source: row.source.as_deref().map(SourceId::parse).transpose().map_err(|_| corrupt("source"))?,
            created_at: from_micros(row.created_at).ok_or_else(|| corrupt("created_at"))?,
            revoked_at,
            id: row.id.clone(),
            name: row.name,
            hash: row.hash,
        })
    }
}
