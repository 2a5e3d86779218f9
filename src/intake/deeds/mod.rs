//! What is done to an account inside one transaction: read, decide (pure rooms), write. The writer calls it; nothing here
//! touches the network or commits.

mod close;
pub(super) mod guard;
mod holding;
pub(super) mod ingest;
mod push;
mod service;
mod settle;
#[cfg(test)]
mod tests;
pub(super) mod threshold;
mod wake;

use ingest::Ingest;
pub use push::STALE_KIND;
use serde_json::Value;

use super::catalogs::Catalogs;
use super::idempotency::{AskError, Asking};
use super::problem::Problem;
use super::sources::Sources;
use crate::account::{Account, Conditions, Hold, Pushed, SecretDigests, ServiceFacts, Status};
use crate::provision::OperatorHold;
use crate::store::accounts::{KnownService, ServiceChange};
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
    /// Records of a billing system, read by its profile.
    Ingest(Box<Ingest>),
    /// An operator decides on a change that waits.
    Settle(Settle),
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
    /// The profile and the input it came by.
    pub origin: Option<Value>,
    /// An operator let it pass, whatever it takes away.
    pub released: bool,
}

/// An operator's decision on a change that waits.
#[derive(Debug)]
pub struct Settle {
    pub key: AccountKey,
    pub id: i64,
    pub actor: String,
    /// Do it; else it is dropped.
    pub release: bool,
}

#[derive(Debug)]
pub struct Close {
    pub key: AccountKey,
    pub actor: String,
    /// `None`: now.
    pub effective: Option<crate::account::Moment>,
    pub source_revision: Option<i64>,
    pub conditions: Conditions,
    pub origin: Option<Value>,
    pub released: bool,
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
        !matches!(self.outcome, "unchanged" | "stale" | "replayed" | "held" | "observed")
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

impl Deed {
    fn push(&self) -> Option<&Push> {
        if let Deed::Push(asked) = self { Some(asked) } else { None }
    }
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
    pub sources: Sources,
    pub memory: guard::Memory,
}

/// Does deeds one after the other, pushes that follow one another together; the outcomes are in their order. On `Stop`,
/// and on an error, the caller undoes what was written.
pub async fn perform(
    deeds: &[Deed],
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<Vec<Result<Done, Stop>>, StoreError> {
    let mut outcomes = Vec::with_capacity(deeds.len());
    for alike in deeds.chunk_by(|one, next| matches!((one, next), (Deed::Push(_), Deed::Push(_)))) {
        let pushes: Vec<&Push> = alike.iter().filter_map(Deed::push).collect();
        match &alike[0] {
            Deed::Push(_) => outcomes.extend(push::push_all(&pushes, tx, ground, now).await?),
            other => outcomes.push(perform_one(other, tx, ground, now).await),
        }
    }
    Ok(outcomes)
}

async fn perform_one(deed: &Deed, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    match deed {
        Deed::Push(asked) => {
            let mut one = push::push_all(&[asked], tx, ground, now).await?;
            one.pop().unwrap_or_else(|| Err(Problem::internal().into()))
        }
        Deed::Close(asked) => close::close(asked, tx, ground, now).await,
        Deed::Suspend { of, hold, reason } => {
            let asked = service::Suspension { hold, reason: reason.as_deref(), released: false };
            service::suspend(of, asked, tx, ground, now).await
        }
        Deed::Resume { of } => service::resume(of, tx, ground, now).await,
        Deed::Reprovision { of } => service::reprovision(of, tx, now).await,
        Deed::Ingest(asked) => ingest::ingest(asked, tx, ground, now).await,
        Deed::Settle(asked) => settle::settle(asked, tx, ground, now).await,
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
        Deed::Settle(asked) => accounts::subject(&asked.key),
        // What a source sends is done in the order in which it came, whatever its accounts.
        Deed::Ingest(asked) => format!("{}/{}", asked.tenant, asked.source),
        Deed::Wake { account_id } | Deed::Look { account_id, .. } => account_id.to_string(),
    }
}

async fn operator_holds(tx: &mut Tx, account_id: i64) -> Result<Vec<OperatorHold>, StoreError> {
    Ok(holds::living(tx, account_id).await?.into_iter().map(|row| row.held).collect())
}

async fn known_digests(tx: &mut Tx, account_id: i64) -> Result<SecretDigests, StoreError> {
    Ok(secrets::digests(tx, &[account_id]).await?.remove(&account_id).unwrap_or_default())
}

/// What changes in the services of an account and their history, so that they are as the document says; `known` are those
/// it has.
fn service_changes(
    account_id: i64,
    account: &Account,
    known: &[KnownService],
    held: &[OperatorHold],
    now: Timestamp,
) -> Result<Vec<ServiceChange>, StoreError> {
    let account = &*account.at(now);
    let covering = |id: &str| -> Vec<Hold> {
        let covers = |held: &&OperatorHold| held.service.as_deref().is_none_or(|service| service == id);
        held.iter().filter(covers).map(|held| held.hold.clone()).collect()
    };
    let mut changes = Vec::new();
    for service in &account.services {
        let facts = ServiceFacts::of(account, service, &covering(&service.id));
        match known.iter().find(|known| known.row.external_id == service.id) {
            None => changes.push(ServiceChange::new(account_id, &service.id, facts)?),
            Some(known) => {
                let ended = facts.status == Status::Terminated;
                changes.extend(known.change(facts, ended, now)?);
            }
        }
    }
    let gone =
        |known: &&KnownService| known.row.ended_at.is_none() && account.service(&known.row.external_id).is_none();
    for gone in known.iter().filter(gone) {
        changes.extend(gone.end(now)?);
    }
    Ok(changes)
}

/// Brings the service rows and their history to the document.
async fn settle_services(
    tx: &mut Tx,
    account_id: i64,
    account: &Account,
    held: &[OperatorHold],
    now: Timestamp,
) -> Result<(), StoreError> {
    let known = accounts::known_services(tx, &[account_id]).await?;
    let changes = service_changes(account_id, account, &known, held, now)?;
    accounts::change_services(tx, &changes, now).await?;
    Ok(())
}
