//! What posted top-ups grant. Written once, with the charge; what is left of one follows from the lines.

use super::charges::public_id;
use super::sessions::json;
use super::{StoreError, Tx, on};
use crate::billing::facts::Grant;
use crate::billing::tariff::Pool;
use crate::billing::top_up::NewGrant;
use crate::vocabulary::{Exact, Timestamp, from_micros, to_micros};

/// One top-up as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRow {
    pub grant: Grant,
    /// The tariff its price is of.
    pub tariff: String,
    /// Of one piece; `None`: it costs nothing.
    pub price: Option<Exact>,
    /// The bill cycle it was posted on.
    pub cycle: String,
}

/// For whom a top-up is written.
#[derive(Debug, Clone, Copy)]
pub struct For<'a> {
    /// The posted charge.
    pub charge_id: i64,
    pub account_id: i64,
    pub cycle: &'a str,
    /// External id.
    pub service: &'a str,
    pub tariff: &'a str,
    /// Whose family the account is of.
    pub head: &'a str,
}

const INSERT: &str =
    "INSERT INTO allowance_grant (id, account_id, cycle, service, tariff, charge, pool, head, amount, price,
        from_at, until_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
macro_rules! select_grant {
    ($rest:literal) => {
        concat!(
            "SELECT granted.account_id, granted.id, granted.service, granted.tariff, granted.charge, granted.pool,
                granted.head, granted.amount, granted.price, granted.cycle, granted.from_at, granted.until_at ",
            $rest
        )
    };
}
const OF_ACCOUNTS_SQLITE: &str = select_grant!(
    "FROM json_each($1) AS key CROSS JOIN allowance_grant AS granted ON granted.account_id = key.value
     ORDER BY granted.account_id, granted.id"
);
const OF_ACCOUNTS_POSTGRES: &str = select_grant!(
    "FROM allowance_grant AS granted WHERE granted.account_id = ANY($1) ORDER BY granted.account_id, granted.id"
);
const THESE_SQLITE: &str = select_grant!(
    "FROM json_each($1) AS key CROSS JOIN allowance_grant AS granted ON granted.id = key.value ORDER BY granted.id"
);
const THESE_POSTGRES: &str =
    select_grant!("FROM allowance_grant AS granted WHERE granted.id = ANY($1) ORDER BY granted.id");

/// Stores what a posted charge grants. **Errors**: `Conflict` when that charge has granted before.
pub async fn insert(tx: &mut Tx, whose: &For<'_>, new: &NewGrant) -> Result<(), StoreError> {
    let head = (new.pool == Pool::Parent).then_some(whose.head);
    on!(tx, c => sqlx::query(INSERT)
        .bind(whose.charge_id)
        .bind(whose.account_id)
        .bind(whose.cycle)
        .bind(whose.service)
        .bind(whose.tariff)
        .bind(&new.charge)
        .bind(word(new.pool))
        .bind(head)
        .bind(new.amount)
        .bind(new.price.map(|price| price.to_string()))
        .bind(to_micros(new.from))
        .bind(new.until.map(to_micros))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// The top-ups of these accounts, on whatever cycle they were posted, with the account, in the order they came; those of
/// another cycle than `cycle` are foreign. The error is that one row's.
pub async fn of_accounts(
    tx: &mut Tx,
    accounts: &[i64],
    cycle: &str,
) -> Result<Vec<(i64, Result<GrantRow, StoreError>)>, StoreError> {
    let rows: Vec<Row> = match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(OF_ACCOUNTS_SQLITE).bind(json(&accounts)).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(OF_ACCOUNTS_POSTGRES).bind(accounts).fetch_all(&mut **transaction).await?
        }
    };
    let seen_from = |row: Row| {
        let mut read = GrantRow::try_from(row);
        read.iter_mut().for_each(|read| read.grant.foreign = read.cycle != cycle);
        read
    };
    Ok(rows.into_iter().map(|row| (row.account_id, seen_from(row))).collect())
}

/// Top-ups by their posted charges.
pub async fn these(tx: &mut Tx, ids: &[i64]) -> Result<Vec<GrantRow>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(THESE_SQLITE).bind(json(&ids)).fetch_all(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => sqlx::query_as(THESE_POSTGRES).bind(ids).fetch_all(&mut **transaction).await?,
    };
    rows.into_iter().map(GrantRow::try_from).collect()
}

fn word(pool: Pool) -> &'static str {
    match pool {
        Pool::Service => "service",
        Pool::Account => "account",
        Pool::Parent => "parent",
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    account_id: i64,
    id: i64,
    service: String,
    tariff: String,
    charge: String,
    pool: String,
    head: Option<String>,
    amount: i64,
    price: Option<String>,
    cycle: String,
    from_at: i64,
    until_at: Option<i64>,
}

impl TryFrom<Row> for GrantRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt =
            |column: &'static str| StoreError::Corrupt { table: "allowance_grant", column, id: row.id.to_string() };
        let at = |micros: i64, column: &'static str| -> Result<Timestamp, StoreError> {
            from_micros(micros).ok_or_else(|| corrupt(column))
        };
        let pool = match row.pool.as_str() {
            "service" => Pool::Service,
            "account" => Pool::Account,
            "parent" => Pool::Parent,
            _ => return Err(corrupt("pool")),
        };
        Ok(Self {
            price: row.price.as_deref().map(|price| price.parse().map_err(|_| corrupt("price"))).transpose()?,
            grant: Grant {
                from: at(row.from_at, "from_at")?,
                until: row.until_at.map(|until| at(until, "until_at")).transpose()?,
                id: public_id(row.id),
                pool,
                head: row.head,
                service: row.service,
                charge: row.charge,
                amount: row.amount,
                foreign: false,
            },
            tariff: row.tariff,
            cycle: row.cycle,
        })
    }
}
