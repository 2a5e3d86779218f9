//! Charges posted for an account. They are written once; what becomes of one on an invoice is its line.

use super::sessions::json;
use super::{StoreError, Tx, on};
use crate::billing::charges::Posting;
use crate::vocabulary::{Currency, Date, Timestamp, from_micros, to_micros};

/// One posted charge as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedRow {
    pub id: i64,
    /// The bill cycle that bills it.
    pub cycle: String,
    pub on: Date,
    /// The tenant's when it was posted.
    pub currency: Currency,
    pub posting: Posting,
    pub posted_by: String,
    pub created_at: Timestamp,
}

/// What is written of a new one.
#[derive(Debug, Clone, Copy)]
pub struct NewCharge<'a> {
    pub tenant: &'a str,
    pub account_id: i64,
    pub cycle: &'a str,
    pub on: Date,
    pub currency: Currency,
    pub posting: &'a Posting,
    pub posted_by: &'a str,
}

const INSERT: &str = "INSERT INTO posted_charge (tenant, account_id, external_id, cycle, on_date, currency, document,
        posted_by, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id";
macro_rules! select_charge {
    ($rest:literal) => {
        concat!(
            "SELECT id, cycle, on_date, currency, document, posted_by, created_at FROM posted_charge WHERE account_id = $1 ",
            $rest
        )
    };
}
const OF_ACCOUNTS_SQLITE: &str = "SELECT charge.account_id, charge.id, charge.cycle, charge.on_date, charge.currency,
        charge.document, charge.posted_by, charge.created_at
     FROM json_each($1) AS key CROSS JOIN posted_charge AS charge ON charge.account_id = key.value
     WHERE charge.cycle = $2 ORDER BY charge.account_id, charge.id";
const OF_ACCOUNTS_POSTGRES: &str = "SELECT account_id, id, cycle, on_date, currency, document, posted_by, created_at
     FROM posted_charge WHERE account_id = ANY($1) AND cycle = $2 ORDER BY account_id, id";
const LIST: &str = select_charge!("AND id > $2 ORDER BY id LIMIT $3");
const OF_ID: &str = select_charge!("AND id = $2");
const NAMED: &str = select_charge!("AND external_id = $2");

/// Stores a posted charge and returns its row.
///
/// **Errors**: `Conflict` when the account has one of the same external id.
pub async fn insert(tx: &mut Tx, new: &NewCharge<'_>, now: Timestamp) -> Result<i64, StoreError> {
    let document = serde_json::to_string(new.posting).map_err(|error| StoreError::Database(error.to_string()))?;
    Ok(on!(tx, c => sqlx::query_scalar(INSERT)
        .bind(new.tenant)
        .bind(new.account_id)
        .bind(&new.posting.id)
        .bind(new.cycle)
        .bind(new.on.to_string())
        .bind(new.currency.as_str())
        .bind(&document)
        .bind(new.posted_by)
        .bind(to_micros(now))
        .fetch_one(c)
        .await)?)
}

/// What a cycle has to bill of these accounts, with the account; the error is that one row's.
pub async fn of_accounts(
    tx: &mut Tx,
    accounts: &[i64],
    cycle: &str,
) -> Result<Vec<(i64, Result<PostedRow, StoreError>)>, StoreError> {
    let rows: Vec<OwnedRow> = match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(OF_ACCOUNTS_SQLITE)
                .bind(json(&accounts))
                .bind(cycle)
                .fetch_all(&mut *held.transaction)
                .await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(OF_ACCOUNTS_POSTGRES).bind(accounts).bind(cycle).fetch_all(&mut **transaction).await?
        }
    };
    Ok(rows.into_iter().map(|row| (row.account_id, row.charge.try_into())).collect())
}

/// An account's posted charges after one, in the order they came.
pub async fn list(tx: &mut Tx, account_id: i64, after: i64, limit: i64) -> Result<Vec<PostedRow>, StoreError> {
    let rows: Vec<Row> =
        on!(tx, c => sqlx::query_as(LIST).bind(account_id).bind(after).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(PostedRow::try_from).collect()
}

/// The one with the billing system's own id.
pub async fn named(tx: &mut Tx, account_id: i64, external_id: &str) -> Result<Option<PostedRow>, StoreError> {
    let row: Option<Row> =
        on!(tx, c => sqlx::query_as(NAMED).bind(account_id).bind(external_id).fetch_optional(c).await)?;
    row.map(PostedRow::try_from).transpose()
}

/// The one of an id as its line and the API name it.
pub async fn of_id(tx: &mut Tx, account_id: i64, id: &str) -> Result<Option<PostedRow>, StoreError> {
    let Some(id) = row_of(id) else { return Ok(None) };
    let row: Option<Row> = on!(tx, c => sqlx::query_as(OF_ID).bind(account_id).bind(id).fetch_optional(c).await)?;
    row.map(PostedRow::try_from).transpose()
}

/// Id of a posted charge, as its line and the API name it.
pub fn public_id(id: i64) -> String {
    format!("{PUBLIC}{id}")
}

/// The row of a posted charge by its id.
pub(super) fn row_of(id: &str) -> Option<i64> {
    id.strip_prefix(PUBLIC)?.parse().ok()
}

const PUBLIC: &str = "ch_";

#[derive(sqlx::FromRow)]
struct OwnedRow {
    account_id: i64,
    #[sqlx(flatten)]
    charge: Row,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    cycle: String,
    on_date: String,
    currency: String,
    document: String,
    posted_by: String,
    created_at: i64,
}

impl TryFrom<Row> for PostedRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt =
            |column: &'static str| StoreError::Corrupt { table: "posted_charge", column, id: row.id.to_string() };
        Ok(Self {
            on: row.on_date.parse().map_err(|_| corrupt("on_date"))?,
            currency: row.currency.parse().map_err(|_| corrupt("currency"))?,
            posting: serde_json::from_str(&row.document).map_err(|_| corrupt("document"))?,
            created_at: from_micros(row.created_at).ok_or_else(|| corrupt("created_at"))?,
            id: row.id,
            cycle: row.cycle,
            posted_by: row.posted_by,
        })
    }
}
