//! The services of accounts, and the history of their facts that billing reads.

use std::collections::{BTreeSet, HashMap};

use super::json;
use crate::account::{ServiceFacts, ServiceType, Status};
use crate::store::many::{Many, Of};
use crate::store::{StoreError, Tx, families, on, sessions, thresholds};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

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

/// A service with the facts of it that stand last in its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownService {
    pub row: ServiceRow,
    /// As stored.
    pub last: Option<String>,
}

/// A service as it is from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceChange {
    pub account_id: i64,
    /// The row it has; `None`: it is new.
    pub id: Option<i64>,
    pub external_id: String,
    pub facts: ServiceFacts,
    /// `facts` as text.
    pub detail: String,
    /// Since when it is no longer desired.
    pub ended_at: Option<Timestamp>,
}

/// A service's facts from an instant on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactsRow {
    pub service_id: i64,
    pub from_at: Timestamp,
    pub facts: ServiceFacts,
}

const WITH_SERVICE: &str = "SELECT account.external_id FROM service JOIN account ON account.id = service.account_id
     WHERE service.external_id = $3 AND service.ended_at IS NULL AND account.tenant = $1 AND account.source = $2
       AND account.closed_at IS NULL
     ORDER BY account.id LIMIT 2";
const SERVICES: &str = "SELECT id, account_id, external_id, type, plan, created_at, ended_at FROM service
     WHERE account_id = $1 ORDER BY id LIMIT 10000";
static KNOWN_SERVICES: Many<1> = Many::new(
    [("id", Of::Integer)],
    "SELECT service.id, service.account_id, service.external_id, service.type, service.plan, service.created_at,
            service.ended_at,
            (SELECT detail FROM service_history
             WHERE service_history.account_id = service.account_id AND service_history.service_id = service.id
             ORDER BY service_history.from_at DESC, service_history.id DESC LIMIT 1) AS last
     FROM new CROSS JOIN service WHERE service.account_id = new.id
     ORDER BY service.id",
);
static INSERT_SERVICES: Many<5> = Many::new(
    [
        ("account_id", Of::Integer),
        ("external_id", Of::Text),
        ("type", Of::Text),
        ("plan", Of::Text),
        ("at", Of::Integer),
    ],
    "INSERT INTO service (account_id, external_id, type, plan, created_at, updated_at)
     SELECT account_id, external_id, type, plan, at, at FROM new
     RETURNING id, account_id, external_id",
);
static UPDATE_SERVICES: Many<5> = Many::new(
    [("id", Of::Integer), ("type", Of::Text), ("plan", Of::Text), ("ended_at", Of::Integer), ("at", Of::Integer)],
    "UPDATE service SET type = new.type, plan = new.plan, ended_at = new.ended_at, updated_at = new.at
     FROM new WHERE service.id = new.id",
);
static INSERT_FACTS: Many<4> = Many::new(
    [("service_id", Of::Integer), ("account_id", Of::Integer), ("at", Of::Integer), ("detail", Of::Text)],
    "INSERT INTO service_history (service_id, account_id, from_at, detail)
     SELECT service_id, account_id, at, detail FROM new",
);
const SERVICE_IDS_SQLITE: &str = "SELECT service.account_id, service.id, service.external_id
     FROM json_each($1) AS key CROSS JOIN service ON service.account_id = key.value ORDER BY service.id";
const SERVICE_IDS_POSTGRES: &str =
    "SELECT account_id, id, external_id FROM service WHERE account_id = ANY($1) ORDER BY id";
const ALL_FACTS_SQLITE: &str = "SELECT history.account_id, history.service_id, history.from_at, history.detail
     FROM json_each($1) AS key CROSS JOIN service_history AS history ON history.account_id = key.value
     ORDER BY history.account_id, history.service_id, history.from_at, history.id";
const ALL_FACTS_POSTGRES: &str = "SELECT account_id, service_id, from_at, detail FROM service_history
     WHERE account_id = ANY($1) ORDER BY account_id, service_id, from_at, id";
const FACTS: &str = "SELECT service_id, from_at, detail FROM service_history
     WHERE account_id = $1 ORDER BY service_id, from_at, id LIMIT 100000";

/// The services of an account, ended ones too.
pub async fn services(tx: &mut Tx, account_id: i64) -> Result<Vec<ServiceRow>, StoreError> {
    let rows: Vec<RawService> = on!(tx, c => sqlx::query_as(SERVICES).bind(account_id).fetch_all(c).await)?;
    rows.into_iter().map(ServiceRow::try_from).collect()
}

/// External ids of the accounts of a source that have a service with this external id now, at most two.
pub async fn with_service(
    tx: &mut Tx,
    (tenant, source): (&str, &str),
    service: &str,
) -> Result<Vec<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(WITH_SERVICE)
        .bind(tenant)
        .bind(source)
        .bind(service)
        .fetch_all(c)
        .await)?)
}

/// The services of accounts, ended ones too, in the order they came.
pub async fn known_services(tx: &mut Tx, accounts: &[i64]) -> Result<Vec<KnownService>, StoreError> {
    let rows = accounts.iter().map(|id| [(*id).into()]).collect();
    let rows: Vec<RawKnown> = KNOWN_SERVICES.fetch(tx, rows).await?;
    rows.into_iter().map(|RawKnown { row, last }| Ok(KnownService { row: row.try_into()?, last })).collect()
}

/// (account, service row, external id) of the services of these accounts, ended ones too.
pub async fn service_ids(tx: &mut Tx, accounts: &[i64]) -> Result<Vec<(i64, i64, String)>, StoreError> {
    Ok(match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(SERVICE_IDS_SQLITE).bind(sessions::json(&accounts)).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(SERVICE_IDS_POSTGRES).bind(accounts).fetch_all(&mut **transaction).await?
        }
    })
}

/// The facts of all services of an account, by service and time.
pub async fn facts(tx: &mut Tx, account_id: i64) -> Result<Vec<FactsRow>, StoreError> {
    let rows: Vec<(i64, i64, String)> = on!(tx, c => sqlx::query_as(FACTS).bind(account_id).fetch_all(c).await)?;
    rows.into_iter().map(|(service_id, from_at, detail)| facts_row(service_id, from_at, &detail)).collect()
}

/// The facts of all services of these accounts, by account, service and time; the error is that one row's.
pub async fn facts_of(tx: &mut Tx, accounts: &[i64]) -> Result<Vec<(i64, Result<FactsRow, StoreError>)>, StoreError> {
    let rows: Vec<(i64, i64, i64, String)> = match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(ALL_FACTS_SQLITE).bind(sessions::json(&accounts)).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(ALL_FACTS_POSTGRES).bind(accounts).fetch_all(&mut **transaction).await?
        }
    };
    let read =
        |(account, service, from_at, detail): (i64, i64, i64, String)| (account, facts_row(service, from_at, &detail));
    Ok(rows.into_iter().map(read).collect())
}

/// Stores new services, and the next facts of known ones; a running period of theirs whose thresholds were looked at is
/// looked at again. Returns the rows of the new ones by account and external id.
pub async fn change_services(
    tx: &mut Tx,
    changes: &[ServiceChange],
    now: Timestamp,
) -> Result<HashMap<(i64, String), i64>, StoreError> {
    let at = to_micros(now);
    let (mut new, mut known) = (Vec::new(), Vec::new());
    for change in changes {
        let [service_type, plan] = [change.facts.service_type.as_str(), &change.facts.plan].map(Into::into);
        match change.id {
            None => {
                new.push([change.account_id.into(), (&change.external_id).into(), service_type, plan, at.into()]);
            }
            Some(id) => {
                known.push([id.into(), service_type, plan, change.ended_at.map(to_micros).into(), at.into()]);
            }
        }
    }
    let inserted: Vec<(i64, i64, String)> = INSERT_SERVICES.fetch(tx, new).await?;
    UPDATE_SERVICES.execute(tx, known).await?;
    let rows: HashMap<(i64, String), i64> =
        inserted.into_iter().map(|(id, account_id, external_id)| ((account_id, external_id), id)).collect();
    let mut facts = Vec::with_capacity(changes.len());
    for change in changes {
        let id = change.id.or_else(|| rows.get(&(change.account_id, change.external_id.clone())).copied());
        let id = id.ok_or_else(|| StoreError::Database("a new service got no row".to_owned()))?;
        facts.push([id.into(), change.account_id.into(), at.into(), (&change.detail).into()]);
    }
    INSERT_FACTS.execute(tx, facts).await?;
    let parents = changes.iter().filter_map(|change| Some((change.account_id, change.facts.parent.as_deref()?)));
    let parents: BTreeSet<(i64, &str)> = parents.collect();
    if !parents.is_empty() {
        families::note(tx, &parents).await?;
    }
    let known: Vec<i64> = changes.iter().filter_map(|change| change.id).collect();
    thresholds::ask_again(tx, &known, now).await?;
    Ok(rows)
}

impl KnownService {
    /// What changes with its next facts; `None`: nothing. `ended`: it is no longer desired.
    pub fn change(
        &self,
        facts: ServiceFacts,
        ended: bool,
        now: Timestamp,
    ) -> Result<Option<ServiceChange>, StoreError> {
        let (row, detail) = (&self.row, json(&facts)?);
        if self.last.as_deref() == Some(detail.as_str()) && row.ended_at.is_some() == ended {
            return Ok(None);
        }
        let ended_at = ended.then(|| row.ended_at.unwrap_or(now));
        let (account_id, external_id) = (row.account_id, row.external_id.clone());
        Ok(Some(ServiceChange { account_id, id: Some(row.id), external_id, facts, detail, ended_at }))
    }

    /// Ends a service that is no longer in the document: its last facts, now terminated.
    pub fn end(&self, now: Timestamp) -> Result<Option<ServiceChange>, StoreError> {
        let last = self.last.as_deref().and_then(|last| serde_json::from_str(last).ok());
        let last: ServiceFacts = last.ok_or_else(|| StoreError::Corrupt {
            table: "service_history",
            column: "detail",
            id: format!("of service {}", self.row.id),
        })?;
        self.change(ServiceFacts { status: Status::Terminated, ..last }, true, now)
    }
}

impl ServiceChange {
    /// A service that the account does not have yet.
    pub fn new(account_id: i64, external_id: &str, facts: ServiceFacts) -> Result<Self, StoreError> {
        let detail = json(&facts)?;
        Ok(Self { account_id, id: None, external_id: external_id.to_owned(), facts, detail, ended_at: None })
    }
}

fn facts_row(service_id: i64, from_at: i64, detail: &str) -> Result<FactsRow, StoreError> {
    let corrupt = |column: &'static str| StoreError::Corrupt {
        table: "service_history",
        column,
        id: format!("of service {service_id}"),
    };
    Ok(FactsRow {
        service_id,
        from_at: from_micros(from_at).ok_or_else(|| corrupt("from_at"))?,
        facts: serde_json::from_str(detail).map_err(|_| corrupt("detail"))?,
    })
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

#[derive(sqlx::FromRow)]
struct RawKnown {
    #[sqlx(flatten)]
    row: RawService,
    last: Option<String>,
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
