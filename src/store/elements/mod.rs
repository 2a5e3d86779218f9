//! Elements: what must be provisioned and how far it is. A push settles the elements of an account and wakes their jobs
//! in one transaction (`settle.rs`); services record what they saw applied, offered or fetched (`progress.rs`). Contents
//! hold no secrets.

mod progress;
mod settle;

use std::collections::HashMap;
use std::str::FromStr;

pub use progress::{Progress, record_fetched, record_offered, record_report};
pub(in crate::store) use progress::{Reached, Stepped, Troubled, record_all, record_trouble};
pub use settle::{After, Settled, Settling, Standing, places_beyond, settle, settle_all, settle_moved};

use super::many::{Many, Of, Value};
use super::{StoreError, Tx, jobs, on};
use crate::provision::{Content, ElementKind, ElementState};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// One element as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ElementRow {
    pub id: i64,
    pub tenant: String,
    pub account_id: i64,
    pub kind: ElementKind,
    pub key: String,
    /// External ids of the services it serves.
    pub services: Vec<String>,
    pub desired: Content,
    /// The desired content before the newest one.
    pub previous: Option<Content>,
    /// The content last brought there.
    pub applied: Option<Content>,
    pub desired_revision: i64,
    pub offered_revision: Option<i64>,
    pub fetched_revision: Option<i64>,
    pub confirmed_revision: Option<i64>,
    pub applied_revision: Option<i64>,
    pub state: ElementState,
    /// How we know that the applied revision is in force, one sentence.
    pub evidence: Option<String>,
    pub last_error: Option<String>,
    pub last_seen_at: Option<Timestamp>,
    pub last_seen_from: Option<String>,
    pub updated_at: Timestamp,
}

macro_rules! these_elements {
    ($rest:literal) => {
        concat!(
            "SELECT element.id, element.tenant, element.account_id, element.kind, element.key, element.services,
                    element.desired, element.previous, element.applied, element.desired_revision,
                    element.offered_revision, element.fetched_revision, element.confirmed_revision,
                    element.applied_revision, element.state, element.evidence, element.last_error,
                    element.last_seen_at, element.last_seen_from, element.updated_at
             FROM new CROSS JOIN element ",
            $rest
        )
    };
}
macro_rules! select_element {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, account_id, kind, key, services, desired, previous, applied, desired_revision,
                    offered_revision, fetched_revision, confirmed_revision, applied_revision, state, evidence,
                    last_error, last_seen_at, last_seen_from, updated_at FROM element ",
            $rest
        )
    };
}

const OF_ACCOUNT: &str = select_element!("WHERE account_id = $1 ORDER BY kind, key LIMIT 10000");
const BY_KEY: &str = select_element!("WHERE kind = $1 AND key = $2");
const BY_ID: &str = select_element!("WHERE id = $1");
const BY_ID_LOCKED: &str = select_element!("WHERE id = $1 FOR UPDATE");
const OF_KIND: &str = select_element!("WHERE kind = $1 AND id > $2 ORDER BY id LIMIT $3");
const CHANGED_SINCE: &str =
    select_element!("WHERE kind = $1 AND (updated_at, id) > ($2, $3) ORDER BY updated_at, id LIMIT $4");
static BY_IDS: Many<1> =
    Many::new([("element", Of::Integer)], these_elements!("WHERE element.id = new.element ORDER BY element.id"));
static BY_IDS_LOCKED: Many<1> = Many::new(
    [("element", Of::Integer)],
    these_elements!("WHERE element.id = new.element ORDER BY element.id FOR UPDATE OF element"),
);
static OF_ACCOUNTS: Many<1> = Many::new(
    [("account", Of::Integer)],
    these_elements!("WHERE element.account_id = new.account ORDER BY element.id"),
);
static OF_ACCOUNTS_LOCKED: Many<1> = Many::new(
    [("account", Of::Integer)],
    these_elements!("WHERE element.account_id = new.account ORDER BY element.id FOR UPDATE OF element"),
);
const PLACE: [(&str, Of); 2] = [("kind", Of::Text), ("key", Of::Text)];
static BY_PLACES: Many<2> =
    Many::new(PLACE, these_elements!("WHERE element.kind = new.kind AND element.key = new.key ORDER BY element.id"));
static BY_PLACES_LOCKED: Many<2> = Many::new(
    PLACE,
    these_elements!(
        "WHERE element.kind = new.kind AND element.key = new.key ORDER BY element.id FOR UPDATE OF element"
    ),
);

/// The elements of an account, removed ones included.
pub async fn of_account(tx: &mut Tx, account_id: i64) -> Result<Vec<ElementRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(OF_ACCOUNT).bind(account_id).fetch_all(c).await)?;
    rows.into_iter().map(ElementRow::try_from).collect()
}

/// One element by what it is.
pub async fn by_key(tx: &mut Tx, kind: ElementKind, key: &str) -> Result<Option<ElementRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(BY_KEY).bind(kind.as_str()).bind(key).fetch_optional(c).await)?;
    row.map(ElementRow::try_from).transpose()
}

/// One element by its row.
pub async fn by_id(tx: &mut Tx, id: i64) -> Result<Option<ElementRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(BY_ID).bind(id).fetch_optional(c).await)?;
    row.map(ElementRow::try_from).transpose()
}

/// Elements by their ids.
pub(super) async fn by_ids(tx: &mut Tx, ids: &[i64]) -> Result<HashMap<i64, ElementRow>, StoreError> {
    let rows = fetch(tx, &BY_IDS, ids.iter().map(|id| [(*id).into()]).collect()).await?;
    Ok(rows.into_iter().map(|element| (element.id, element)).collect())
}

/// As `by_ids`; on PostgreSQL nobody else changes them until the transaction ends.
pub(super) async fn by_ids_locked(tx: &mut Tx, ids: &[i64]) -> Result<HashMap<i64, ElementRow>, StoreError> {
    let statement = locked(tx, &BY_IDS, &BY_IDS_LOCKED);
    let rows = fetch(tx, statement, ids.iter().map(|id| [(*id).into()]).collect()).await?;
    Ok(rows.into_iter().map(|element| (element.id, element)).collect())
}

/// The elements of accounts, removed ones included.
pub async fn of_accounts(tx: &mut Tx, accounts: &[i64]) -> Result<Vec<ElementRow>, StoreError> {
    fetch(tx, &OF_ACCOUNTS, accounts.iter().map(|id| [(*id).into()]).collect()).await
}

/// As `of_accounts`; on PostgreSQL nobody else changes them until the transaction ends.
pub async fn of_accounts_locked(tx: &mut Tx, accounts: &[i64]) -> Result<Vec<ElementRow>, StoreError> {
    let statement = locked(tx, &OF_ACCOUNTS, &OF_ACCOUNTS_LOCKED);
    fetch(tx, statement, accounts.iter().map(|id| [(*id).into()]).collect()).await
}

/// Elements by what they are; on PostgreSQL nobody else changes them until the transaction ends.
pub async fn by_places_locked(tx: &mut Tx, places: &[(ElementKind, &str)]) -> Result<Vec<ElementRow>, StoreError> {
    let statement = locked(tx, &BY_PLACES, &BY_PLACES_LOCKED);
    fetch(tx, statement, places.iter().map(|(kind, key)| [kind.as_str().into(), (*key).into()]).collect()).await
}

fn locked<const N: usize>(tx: &Tx, sqlite: &'static Many<N>, postgres: &'static Many<N>) -> &'static Many<N> {
    match tx {
        Tx::Sqlite(_) => sqlite,
        Tx::Postgres(_) => postgres,
    }
}

async fn fetch<const N: usize>(
    tx: &mut Tx,
    statement: &Many<N>,
    rows: Vec<[Value<'_>; N]>,
) -> Result<Vec<ElementRow>, StoreError> {
    let rows: Vec<Row> = statement.fetch(tx, rows).await?;
    rows.into_iter().map(ElementRow::try_from).collect()
}

/// Elements of one kind in the order of their rows, after row `after`.
pub async fn of_kind(tx: &mut Tx, kind: ElementKind, after: i64, limit: i64) -> Result<Vec<ElementRow>, StoreError> {
    let rows: Vec<Row> =
        on!(tx, c => sqlx::query_as(OF_KIND).bind(kind.as_str()).bind(after).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(ElementRow::try_from).collect()
}

/// Elements of one kind changed after (`since`, row `after`), in the order of change.
pub async fn changed_since(
    tx: &mut Tx,
    kind: ElementKind,
    since: Timestamp,
    after: i64,
    limit: i64,
) -> Result<Vec<ElementRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(CHANGED_SINCE)
        .bind(kind.as_str())
        .bind(to_micros(since))
        .bind(after)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(ElementRow::try_from).collect()
}

/// Asks for an account's elements again although nothing changed; `service` narrows it to the elements of one service.
/// Returns the jobs.
pub async fn reprovision(
    tx: &mut Tx,
    account_id: i64,
    service: Option<&str>,
    now: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let mut woken = Vec::new();
    for row in of_account(tx, account_id).await? {
        if row.state == ElementState::Gone || service.is_some_and(|id| !row.services.iter().any(|s| s == id)) {
            continue;
        }
        woken.push(jobs::wake(tx, row.id, jobs::LANE_SINGLE, now).await?);
    }
    Ok(woken)
}

/// Reads and, on PostgreSQL, locks an element. Whoever locks both locks the element before its job.
pub(super) async fn by_id_locked(tx: &mut Tx, id: i64) -> Result<Option<ElementRow>, StoreError> {
    let row: Option<Row> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(BY_ID).bind(id).fetch_optional(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => sqlx::query_as(BY_ID_LOCKED).bind(id).fetch_optional(&mut **transaction).await?,
    };
    row.map(ElementRow::try_from).transpose()
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(format!("a document cannot be written: {error}")))
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    tenant: String,
    account_id: i64,
    kind: String,
    key: String,
    services: String,
    desired: String,
    previous: Option<String>,
    applied: Option<String>,
    desired_revision: i64,
    offered_revision: Option<i64>,
    fetched_revision: Option<i64>,
    confirmed_revision: Option<i64>,
    applied_revision: Option<i64>,
    state: String,
    evidence: Option<String>,
    last_error: Option<String>,
    last_seen_at: Option<i64>,
    last_seen_from: Option<String>,
    updated_at: i64,
}

impl TryFrom<Row> for ElementRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let id = row.id;
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "element", column, id: id.to_string() };
        // What was applied once may have a shape of an older version: then it is only not known to be equal.
        let past = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
        Ok(Self {
            id,
            tenant: row.tenant,
            account_id: row.account_id,
            kind: ElementKind::from_str(&row.kind).map_err(|_| corrupt("kind"))?,
            key: row.key,
            services: serde_json::from_str(&row.services).map_err(|_| corrupt("services"))?,
            desired: serde_json::from_str(&row.desired).map_err(|_| corrupt("desired"))?,
            previous: past(row.previous),
            applied: past(row.applied),
            desired_revision: row.desired_revision,
            offered_revision: row.offered_revision,
            fetched_revision: row.fetched_revision,
            confirmed_revision: row.confirmed_revision,
            applied_revision: row.applied_revision,
            state: ElementState::from_str(&row.state).map_err(|_| corrupt("state"))?,
            evidence: row.evidence,
            last_error: row.last_error,
            last_seen_at: row
                .last_seen_at
                .map(|at| from_micros(at).ok_or_else(|| corrupt("last_seen_at")))
                .transpose()?,
            last_seen_from: row.last_seen_from,
            updated_at: from_micros(row.updated_at).ok_or_else(|| corrupt("updated_at"))?,
        })
    }
}
