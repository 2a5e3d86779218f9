//! Holds that operators set by hand; no push touches them.

use std::collections::HashMap;

use super::many::{Many, Of};
use super::{StoreError, Tx, on};
use crate::account::{Hold, HoldBilling};
use crate::provision::OperatorHold;
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// One operator hold as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRow {
    pub id: i64,
    pub placed_by: String,
    pub held: OperatorHold,
}

const LIVING: &str = "SELECT id, service, kind, treatment, billing, placed_by, from_at, until_at FROM operator_hold
     WHERE account_id = $1 AND lifted_at IS NULL ORDER BY id LIMIT 1000";
static LIVING_OF: Many<1> = Many::new(
    [("account", Of::Integer)],
    "SELECT account_id, id, service, kind, treatment, billing, placed_by, from_at, until_at
     FROM new CROSS JOIN operator_hold WHERE account_id = new.account AND lifted_at IS NULL
     ORDER BY id",
);
const LIVING_OF_TENANT: &str =
    "SELECT operator_hold.account_id, operator_hold.id, operator_hold.service, operator_hold.kind,
        operator_hold.treatment, operator_hold.billing, operator_hold.placed_by, operator_hold.from_at,
        operator_hold.until_at
     FROM operator_hold JOIN account ON account.id = operator_hold.account_id
     WHERE account.tenant = $1 AND operator_hold.lifted_at IS NULL ORDER BY operator_hold.id LIMIT 10000000";
const PLACE: &str = "INSERT INTO operator_hold
         (account_id, service, kind, treatment, billing, placed_by, from_at, until_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const LIFT: &str = "UPDATE operator_hold SET lifted_at = $2 WHERE id = $1";

/// The holds on an account or one of its services that nobody has lifted.
pub async fn living(tx: &mut Tx, account_id: i64) -> Result<Vec<HoldRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIVING).bind(account_id).fetch_all(c).await)?;
    rows.into_iter().map(HoldRow::try_from).collect()
}

/// As `living`, by account, for many; one without any is absent.
pub async fn living_of(tx: &mut Tx, accounts: &[i64]) -> Result<HashMap<i64, Vec<HoldRow>>, StoreError> {
    let rows: Vec<OfAccount> = LIVING_OF.fetch(tx, accounts.iter().map(|id| [(*id).into()]).collect()).await?;
    let mut all: HashMap<i64, Vec<HoldRow>> = HashMap::new();
    for OfAccount { account_id, hold } in rows {
        all.entry(account_id).or_default().push(HoldRow::try_from(hold)?);
    }
    Ok(all)
}

/// As `living`, by account, for every account of a tenant that has any.
pub async fn living_of_tenant(tx: &mut Tx, tenant: &str) -> Result<HashMap<i64, Vec<OperatorHold>>, StoreError> {
    let rows: Vec<OfAccount> = on!(tx, c => sqlx::query_as(LIVING_OF_TENANT).bind(tenant).fetch_all(c).await)?;
    let mut all: HashMap<i64, Vec<OperatorHold>> = HashMap::new();
    for OfAccount { account_id, hold } in rows {
        all.entry(account_id).or_default().push(HoldRow::try_from(hold)?.held);
    }
    Ok(all)
}

/// Places a hold.
pub async fn place(
    tx: &mut Tx,
    account_id: i64,
    held: &OperatorHold,
    by: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let billing = match held.hold.billing {
        HoldBilling::Full => "full",
        HoldBilling::None => "none",
    };
    on!(tx, c => sqlx::query(PLACE)
        .bind(account_id)
        .bind(held.service.as_deref())
        .bind(held.hold.kind.as_str())
        .bind(held.hold.treatment.as_ref().map(ToString::to_string))
        .bind(billing)
        .bind(by)
        .bind(to_micros(held.hold.from.unwrap_or(now)))
        .bind(held.hold.until.map(to_micros))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Lifts one hold.
pub async fn lift(tx: &mut Tx, id: i64, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(LIFT).bind(id).bind(to_micros(now)).execute(c).await.map(drop))?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct OfAccount {
    account_id: i64,
    #[sqlx(flatten)]
    hold: Row,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    service: Option<String>,
    kind: String,
    treatment: Option<String>,
    billing: Option<String>,
    placed_by: String,
    from_at: i64,
    until_at: Option<i64>,
}

impl TryFrom<Row> for HoldRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt =
            |column: &'static str| StoreError::Corrupt { table: "operator_hold", column, id: row.id.to_string() };
        let instant = |column: &'static str, at: i64| from_micros(at).ok_or_else(|| corrupt(column));
        let hold = Hold {
            kind: row.kind.parse().map_err(|_| corrupt("kind"))?,
            treatment: row.treatment.as_deref().map(str::parse).transpose().map_err(|_| corrupt("treatment"))?,
            billing: match row.billing.as_deref() {
                Some("none") => HoldBilling::None,
                Some("full") | None => HoldBilling::Full,
                Some(_) => return Err(corrupt("billing")),
            },
            from: Some(instant("from_at", row.from_at)?),
            until: row.until_at.map(|at| instant("until_at", at)).transpose()?,
        };
        Ok(Self { id: row.id, placed_by: row.placed_by, held: OperatorHold { service: row.service, hold } })
    }
}
