//! What a way in needs of the daemon, and what a command needs that does the same without one: the store, the clock, the
//! sources as they are now, and the writer through which every account goes.

use std::sync::Arc;

use super::App;
use super::catalogs::Catalogs;
use super::deeds::{Deed, Done, Ground};
use super::problem::Problem;
use super::sources::{SourceSettings, Sources};
use super::writer::{Refusal, Writer};
use crate::store::{Store, StoreError, audit, exceptions, sources};
use crate::telemetry::Heartbeats;
use crate::vocabulary::{Clock, SourceId, TenantId};

/// Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) sources: Sources,
    writer: Writer,
}

/// Accounts whose revisions a new epoch resets in one transaction.
const RESET_AT_ONCE: i64 = 2_000;

impl Desk {
    pub(super) fn of(app: &App) -> Self {
        Self {
            store: app.store.clone(),
            clock: app.clock.clone(),
            sources: app.sources.clone(),
            writer: app.writer.clone(),
        }
    }

    /// One for a command, with a writer of its own that runs as long as this is kept.
    pub fn alone(store: &Store, clock: &Clock, settings: SourceSettings) -> Self {
        let sources = Sources::new(settings);
        let ground = Ground {
            sealer: store.sealer().clone(),
            catalogs: Catalogs::default(),
            prices: Default::default(),
            sources: sources.clone(),
            memory: Default::default(),
        };
        // The daemon's provisioner looks for jobs by itself.
        let (writer, tasks) = Writer::new(store, clock, &ground, &Arc::default(), &Heartbeats::new());
        tokio::spawn(tasks.run());
        Self { store: store.clone(), clock: clock.clone(), sources, writer }
    }

    pub(super) async fn perform(&self, deed: Deed) -> Result<Done, Problem> {
        match self.writer.perform(deed).await {
            Ok(done) => Ok(done),
            Err(Refusal::Problem(problem)) => Err(problem),
            Err(Refusal::CatalogMoved) => Err(Problem::unavailable("The catalog is changing; send it again.")),
        }
    }

    /// Opens the next epoch of a source's revisions: the next push of each account counts anew, whatever its number.
    ///
    /// **Errors**: the database; done again, it opens one more epoch, which does no harm.
    pub async fn open_epoch(
        &self,
        tenant: &TenantId,
        source: &SourceId,
        by: &str,
        reason: Option<&str>,
    ) -> Result<i64, StoreError> {
        let of = (tenant.as_str(), source.as_str());
        let now = self.clock.now();
        let mut tx = self.store.write().await?;
        let (epoch, last) = sources::open_epoch(&mut tx, of, by, reason, now).await?;
        let entry = audit::Entry {
            tenant: Some(tenant.as_str()),
            actor: by,
            action: "source.epoch",
            account_id: None,
            subject: &format!("{tenant}/{source}"),
            detail: &serde_json::json!({ "epoch": epoch, "reason": reason }),
        };
        audit::append(&mut tx, &entry, now).await?;
        exceptions::release_subject(&mut tx, super::deeds::STALE_KIND, &format!("{tenant}/{source}"), by, now).await?;
        tx.commit().await?;
        // Step by step: accounts that are pushed meanwhile wait only for a moment.
        let mut after = 0;
        loop {
            let mut tx = self.store.write().await?;
            let until = sources::reset_revisions(&mut tx, of, after, last, RESET_AT_ONCE).await?;
            tx.commit().await?;
            match until {
                Some(until) => after = until,
                None => return Ok(epoch),
            }
        }
    }
}
