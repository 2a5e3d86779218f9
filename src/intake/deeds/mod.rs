//! What is done to an account inside one transaction: read, decide (pure rooms), write. The writer calls it; nothing here
//! touches the network or commits.

mod close;
mod push;
mod service;
pub(super) mod threshold;
mod wake;

use serde_json::Value;

use super::catalogs::Catalogs;
use super::idempotency::{AskError, Asking};
use super::problem::Problem;
use crate::account::{Account, Conditions, Hold, Pushed, SecretDigests, ServiceFacts, Status};
use crate::provision::OperatorHold;
use crate::store::running::PriceBook;
use crate::store::{Sealer, StoreError, Tx, accounts, holds, secrets};
use crate::vocabulary::{AccountKey, Timestamp};

/// One deed, complete: nothing more is needed from the request.
#[derive(Debug)]
pub enum Deed {
    Push(Box<Push>),
    Close(Close),
    Suspend {
        of: OfService,
        hold: Hold,
        reason: Option<String>,
    },
    Resume {
        of: OfService,
    },
    Reprovision {
        of: OfService,
    },
    /// Something of the account changes by itself now.
    Wake {
        account_id: i64,
    },
    /// A service may have crossed a threshold in the period that began at `period_start_at`.
    Look {
        account_id: i64,
        service_id: i64,
        period_start_at: i64,
    },
}

#[derive(Debug)]
pub struct Push {
    pub key: AccountKey,
    pub actor: String,
    pub pushed: Pushed,
    pub conditions: Conditions,
    /// Version of the catalog it was checked against.
    pub catalog_version: i64,
}

#[derive(Debug)]
pub struct Close {
    pub key: AccountKey,
    pub actor: String,
    /// `None`: now.
    pub effective: Option<crate::account::Moment>,
    pub source_revision: Option<i64>,
    pub conditions: Conditions,
}

/// A service, who wants something of it, and the request's idempotency.
#[derive(Debug)]
pub struct OfService {
    pub key: AccountKey,
    pub service: String,
    pub actor: String,
    pub asking: Asking,
}

/// What is answered once the transaction is durable.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    pub status: u16,
    pub etag: Option<String>,
    pub body: Value,
    /// How the push counts in the metrics.
    pub outcome: &'static str,
}

impl Done {
    /// Whether jobs may be due because of it.
    pub fn changed(&self) -> bool {
        !matches!(self.outcome, "unchanged" | "stale" | "replayed")
    }
}

/// Why nothing is written.
#[derive(Debug)]
pub enum Stop {
    /// Refused, perhaps after something was written: the caller undoes it.
    Refused(Problem),
    /// Refused before anything was written: there is nothing to undo.
    Declined(Problem),
    /// The catalog changed since the document was checked: check it again.
    CatalogMoved,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Stop::Store(error)
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Stop::Refused(problem)
    }
}

impl From<AskError> for Stop {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Store(error) => Stop::Store(error),
            AskError::Reused => Stop::Refused(error.into()),
        }
    }
}

/// What a deed may look at besides the database.
#[derive(Clone)]
pub struct Ground {
    pub sealer: Sealer,
    pub catalogs: Catalogs,
    pub prices: PriceBook,
}

/// Does it. On `Stop` the caller undoes what was written.
pub async fn perform(deed: &Deed, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    match deed {
        Deed::Push(asked) => push::push(asked, tx, ground, now).await,
        Deed::Close(asked) => close::close(asked, tx, ground, now).await,
        Deed::Suspend { of, hold, reason } => service::suspend(of, hold, reason.as_deref(), tx, ground, now).await,
        Deed::Resume { of } => service::resume(of, tx, ground, now).await,
        Deed::Reprovision { of } => service::reprovision(of, tx, now).await,
        Deed::Wake { account_id } => wake::wake(*account_id, tx, ground, now).await,
        Deed::Look { account_id, service_id, period_start_at } => {
            threshold::look((*service_id, *period_start_at), *account_id, tx, ground, now).await
        }
    }
}

/// The account a deed is about; deeds of one account are never done at the same time.
pub fn subject(deed: &Deed) -> String {
    match deed {
        Deed::Push(asked) => accounts::subject(&asked.key),
        Deed::Close(asked) => accounts::subject(&asked.key),
        Deed::Suspend { of, .. } | Deed::Resume { of } | Deed::Reprovision { of } => accounts::subject(&of.key),
        Deed::Wake { account_id } | Deed::Look { account_id, .. } => account_id.to_string(),
    }
}

async fn operator_holds(tx: &mut Tx, account_id: i64) -> Result<Vec<OperatorHold>, StoreError> {
    Ok(holds::living(tx, account_id).await?.into_iter().map(|row| row.held).collect())
}

async fn known_digests(tx: &mut Tx, account_id: i64) -> Result<SecretDigests, StoreError> {
    let known = secrets::digests(tx, account_id).await?;
    Ok(known.into_iter().map(|(service, field, digest)| ((service, field), digest)).collect())
}

/// Brings the service rows and their history to the document; returns (external id, row) of what it names.
async fn settle_services(
    tx: &mut Tx,
    account_id: i64,
    account: &Account,
    held: &[OperatorHold],
    new_account: bool,
    now: Timestamp,
) -> Result<Vec<(String, i64)>, StoreError> {
    let known = match new_account {
        true => Vec::new(),
        false => accounts::services(tx, account_id).await?,
    };
    let covering = |id: &str| -> Vec<Hold> {
        let covers = |held: &&OperatorHold| held.service.as_deref().is_none_or(|service| service == id);
        held.iter().filter(covers).map(|held| held.hold.clone()).collect()
    };
    let mut rows = Vec::new();
    let mut new = Vec::new();
    for service in &account.services {
        let facts = ServiceFacts::of(account, service, &covering(&service.id));
        match known.iter().find(|row| row.external_id == service.id) {
            None => new.push((service.id.as_str(), facts)),
            Some(row) => {
                let ended = facts.status == Status::Terminated;
                accounts::update_service(tx, row, &facts, ended, now).await?;
                rows.push((service.id.clone(), row.id));
            }
        }
    }
    rows.extend(accounts::insert_services(tx, account_id, &new, now).await?);
    for gone in known.iter().filter(|row| row.ended_at.is_none() && account.service(&row.external_id).is_none()) {
        accounts::end_service(tx, gone, now).await?;
    }
    Ok(rows)
}
