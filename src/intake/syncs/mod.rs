//! Another company's list of subscribers, reconciled with ours and perhaps applied: `Reconciler` does it for the command line
//! and for the daemon; the routes are in `routes.rs`.
//!
//! A list is read twice and never held: the first time to know how often each account is told and whether all of it is
//! there, the second time to compare a few hundred accounts at once with what is stored. What differs goes into the store as
//! it is found. Applying reads it all once more, and only if that gives the plan that was asked for is anything changed, by
//! the same deeds as pushes, each under the condition that its account is as it was when it was compared.

mod apply;
mod engine;
mod facts;
mod folder;
mod keep;
mod read;
mod routes;
mod stored;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::Notify;

use super::catalogs::Catalogs;
use super::deeds::Ground;
use super::problem::Problem;
use super::writer::Writer;
use crate::mediation::Profile;
use crate::reconcile::Steps;
use crate::store::{Store, StoreError};
use crate::telemetry::Heartbeats;
use crate::vocabulary::{Clock, SourceId, TenantId, Timestamp};

pub use apply::Applied;
pub use engine::Found;
pub(super) use folder::run as watch;
pub(super) use routes::routes;
pub use routes::shown;
pub use routes::text_of;
pub use stored::{Asked, HASH_DIGITS_MIN, NotApplied, apply_kept};
pub(super) use worker::run;

/// Reconciles lists, and applies plans.
#[derive(Clone)]
pub struct Reconciler {
    store: Store,
    clock: Clock,
    catalogs: Catalogs,
    writer: Writer,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Order {
    /// Under which its findings are kept.
    pub sync: String,
    pub tenant: TenantId,
    pub source: SourceId,
    /// The instant the list tells of.
    pub as_of: Timestamp,
    /// What changed here less than so long before it is in flight.
    pub grace_seconds: i64,
    /// Who says that everybody is in the list.
    pub said_complete: Option<String>,
    /// How many records a manifest says it has.
    pub told_records: Option<u64>,
    /// Losses that are allowed a day; `None`: the usual.
    pub allow_deletions: Option<u64>,
    /// The steps that are wanted; `None`: all.
    pub only: Option<Steps>,
    /// What matches is kept as a finding too.
    pub with_matched: bool,
    pub actor: String,
}

/// Where a list is. It is read more than once.
#[derive(Debug, Clone)]
pub enum Input {
    File(PathBuf),
    /// What was sent for a reconciliation.
    Sent(String),
}

/// How it is written.
#[derive(Debug)]
pub enum Form {
    /// Account documents, one a line.
    Documents,
    /// By a source's profile.
    Profile(Box<Profile>),
}

/// Told as it goes on: what is done, how far, and of how many.
pub type Progress = dyn Fn(&'static str, u64, u64) + Send + Sync;

/// Changed less than so long before the list's instant: the list need not know of it.
pub const GRACE_SECONDS: i64 = 15 * 60;

#[derive(Debug, Error)]
pub enum SyncError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the list cannot be read: {0}")]
    List(String),
    #[error("there is no tenant {0} with a catalog")]
    NoCatalog(TenantId),
    #[error("today's plan is {0}: something changed since; look at it again")]
    PlanMoved(String),
    #[error("{0}; an operator can allow more")]
    Guarded(String),
    #[error("a sum of money does not fit: {0}")]
    Money(#[from] crate::vocabulary::MoneyError),
}

impl Reconciler {
    /// For a process that serves nothing else. Its writer ends with it.
    pub fn alone(store: Store, clock: Clock) -> Self {
        let catalogs = Catalogs::default();
        let ground = Ground {
            sealer: store.sealer().clone(),
            catalogs: catalogs.clone(),
            prices: Default::default(),
            sources: Default::default(),
            memory: Default::default(),
        };
        let jobs: Arc<Notify> = Arc::default();
        let (writer, tasks) = Writer::new(&store, &clock, &ground, &jobs, &Heartbeats::new());
        tokio::spawn(tasks.run());
        Self { store, clock, catalogs, writer }
    }

    pub(super) fn of(app: &super::App) -> Self {
        let (store, clock) = (app.store.clone(), app.clock.clone());
        Self { store, clock, catalogs: app.catalogs.clone(), writer: app.writer.clone() }
    }
}

/// A catalog that cannot be read is a matter of the store or of the tenant's name.
fn no_catalog(tenant: &TenantId) -> impl Fn(Problem) -> SyncError + '_ {
    move |problem| match problem.status().is_server_error() {
        true => SyncError::Store(StoreError::Unavailable("the catalog cannot be read".to_owned())),
        false => SyncError::NoCatalog(tenant.clone()),
    }
}
