//! What a verification reads besides the journal: sessions by id, their columns, running totals, names to tell.

use std::collections::HashSet;

use super::sessions::json;
use super::{StoreError, Tx, on};
use crate::usage::Amount;

/// The columns of a session that lists and exports show; its body is the fold's.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SessionColumns {
    pub id: i64,
    pub nas: String,
    pub session: String,
    pub started_at: i64,
    pub in_octets: i64,
    pub out_octets: i64,
    pub seconds: i64,
}

const COLUMNS_SQLITE: &str = "SELECT session.id, nas, session, started_at, in_octets, out_octets, seconds
     FROM json_each($1) AS key CROSS JOIN session ON session.id = key.value ORDER BY session.id";
const COLUMNS_POSTGRES: &str = "SELECT id, nas, session, started_at, in_octets, out_octets, seconds
     FROM session WHERE id = ANY($1) ORDER BY id";
const SESSIONS_AFTER: &str = "SELECT id, nas, session, started_at, in_octets, out_octets, seconds
     FROM session WHERE id > $1 ORDER BY id LIMIT $2";
const ACCOUNTS_AFTER: &str = "SELECT id FROM account WHERE id > $1 ORDER BY id LIMIT $2";
const TOTALS: &str = "SELECT usage_total.service_id, period_start_at, in_octets, out_octets, seconds, sessions
     FROM usage_total JOIN service ON service.id = usage_total.service_id
     WHERE service.account_id = $1 ORDER BY usage_total.service_id, period_start_at LIMIT 100000";
const SET_TOTAL: &str =
    "INSERT INTO usage_total (service_id, period_start_at, in_octets, out_octets, seconds, sessions)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (service_id, period_start_at) DO UPDATE SET in_octets = excluded.in_octets,
        out_octets = excluded.out_octets, seconds = excluded.seconds, sessions = excluded.sessions";
const MOVED: &str = "SELECT DISTINCT line.account_id FROM line JOIN account ON account.id = line.account_id
     WHERE line.cycle <> account.bill_cycle ORDER BY line.account_id LIMIT 10000000";
const NAMES: &str = "SELECT account.tenant, account.external_id, service.external_id FROM service
     JOIN account ON account.id = service.account_id WHERE service.id = $1";

/// The columns of these sessions, by id.
pub async fn columns(tx: &mut Tx, ids: &[i64]) -> Result<Vec<SessionColumns>, StoreError> {
    Ok(match tx {
        Tx::Sqlite(held) => sqlx::query_as(COLUMNS_SQLITE).bind(json(&ids)).fetch_all(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => sqlx::query_as(COLUMNS_POSTGRES).bind(ids).fetch_all(&mut **transaction).await?,
    })
}

/// The next sessions by id.
pub async fn sessions_after(tx: &mut Tx, id: i64, limit: i64) -> Result<Vec<SessionColumns>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(SESSIONS_AFTER).bind(id).bind(limit).fetch_all(c).await)?)
}

/// The next accounts by id.
pub async fn accounts_after(tx: &mut Tx, id: i64, limit: i64) -> Result<Vec<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(ACCOUNTS_AFTER).bind(id).bind(limit).fetch_all(c).await)?)
}

/// (service, period start, amount) of an account's running totals.
pub async fn totals(tx: &mut Tx, account: i64) -> Result<Vec<(i64, i64, Amount)>, StoreError> {
    let rows: Vec<(i64, i64, i64, i64, i64, i64)> =
        on!(tx, c => sqlx::query_as(TOTALS).bind(account).fetch_all(c).await)?;
    let amount = |(service, period, in_octets, out_octets, seconds, sessions)| {
        (service, period, Amount { in_octets, out_octets, seconds, sessions })
    };
    Ok(rows.into_iter().map(amount).collect())
}

/// Puts a running total in the place of what stands there.
pub async fn set_total(tx: &mut Tx, service: i64, period: i64, amount: Amount) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(SET_TOTAL)
        .bind(service)
        .bind(period)
        .bind(amount.in_octets)
        .bind(amount.out_octets)
        .bind(amount.seconds)
        .bind(amount.sessions)
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

/// Accounts with lines on a cycle they no longer follow.
pub async fn moved_accounts(tx: &mut Tx) -> Result<HashSet<i64>, StoreError> {
    let rows: Vec<i64> = on!(tx, c => sqlx::query_scalar(MOVED).fetch_all(c).await)?;
    Ok(rows.into_iter().collect())
}

/// Tenant, account and service as they are called outside.
pub async fn names(tx: &mut Tx, service: i64) -> Result<Option<(String, String, String)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(NAMES).bind(service).fetch_optional(c).await)?)
}
