//! The sealer of the audit: gives each deed its place in its tenant's chain within a second of its commit, and publishes
//! signed heads. Each chain is claimed by its row, so that any number of daemons may seal; a chain that does not end as its
//! head says is left alone, loudly, until a person has looked.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use crate::audit::{Break, Head};
use crate::store::audit_chain::{self, Meeting, Sealed};
use crate::store::{Store, StoreError, exceptions};
use crate::telemetry::{Heartbeat, Metrics, Tenant};
use crate::vocabulary::Clock;

/// The task that seals the audit.
pub struct Chain {
    store: Store,
    clock: Clock,
    metrics: Metrics,
    beat: Heartbeat,
    known: HashMap<String, Known>,
    complained: Option<Instant>,
}

/// What this process last did with a chain.
#[derive(Default)]
struct Known {
    head: Option<Head>,
    published: Option<Instant>,
    told: bool,
    refused: Option<Instant>,
}

impl Chain {
    pub fn new(store: Store, clock: Clock, metrics: Metrics, beat: Heartbeat) -> Self {
        Self { store, clock, metrics, beat, known: HashMap::new(), complained: None }
    }

    /// Seals until it is dropped.
    pub async fn run(mut self) -> Result<(), Infallible> {
        loop {
            self.beat.beat();
            // The database's own outage is logged by the part that watches it.
            if let Err(error) = self.turn().await
                && !error.is_unavailable()
                && self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY)
            {
                tracing::warn!("The audit is not sealed: {error}. Deeds are kept and sealed later; trying again.");
                self.complained = Some(Instant::now());
            }
            self.publish();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Seals whatever waits now.
    ///
    /// **Errors**: the database; what was not sealed waits.
    pub async fn turn(&mut self) -> Result<(), StoreError> {
        let mut tx = self.store.read().await?;
        let waiting = audit_chain::waiting(&mut tx).await?;
        tx.rollback().await?;
        for tenant in waiting {
            if self.known.get(&tenant).is_some_and(|known| known.refused.is_some_and(|at| at.elapsed() < REFUSED_FOR)) {
                continue;
            }
            while self.step(&tenant).await? {
                self.beat.beat();
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// One bounded step. `true`: there may be more.
    async fn step(&mut self, tenant: &str) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let known = self.known.entry(tenant.to_owned()).or_default();
        let mut tx = self.store.write().await?;
        let sealed =
            audit_chain::seal(&mut tx, self.store.sealer(), tenant, known.head.as_ref(), (STEP, Meeting::Pass), now)
                .await?;
        match sealed {
            Sealed::Nothing => {
                tx.rollback().await?;
                Ok(false)
            }
            Sealed::Deeds { count, head } => {
                tx.commit().await?;
                self.metrics.audit_sealed.inc_by(count as u64);
                self.metrics.audit_chain_sequence.get_or_create(&Tenant::new(shown(tenant))).set(head.sequence);
                (known.head, known.told, known.refused) = (Some(head), false, None);
                Ok(count as i64 == STEP)
            }
            Sealed::Refused(broken) => {
                tx.rollback().await?;
                known.refused = Some(Instant::now());
                self.refuse(&broken).await?;
                Ok(false)
            }
        }
    }

    async fn refuse(&self, broken: &Break) -> Result<(), StoreError> {
        let tenant = shown(&broken.tenant);
        tracing::error!(
            "The audit chain of {tenant} is broken at deed {}: {}. Nothing is sealed behind it until a person has looked: \
             `lastmile audit verify`.",
            broken.sequence,
            broken.why
        );
        let mut tx = self.store.write().await?;
        let of = (!broken.tenant.is_empty()).then_some(broken.tenant.as_str());
        let detail = format!("deed {}: {}", broken.sequence, broken.why);
        exceptions::open(&mut tx, of, BROKEN, &format!("audit of {tenant}"), &detail, self.clock.now()).await?;
        tx.commit().await
    }

    /// Tells new heads to the log, each chain's at most once a minute: what is kept there cannot be written anew here.
    fn publish(&mut self) {
        for (tenant, known) in &mut self.known {
            let Some(head) = &known.head else { continue };
            if !known.told && known.published.is_none_or(|at| at.elapsed() >= PUBLISH_EVERY) {
                let signature = head.to_string();
                tracing::info!(tenant = shown(tenant), sequence = head.sequence, "Audit head: {signature}");
                (known.told, known.published) = (true, Some(Instant::now()));
            }
        }
    }
}

fn shown(tenant: &str) -> &str {
    if tenant.is_empty() { "-" } else { tenant }
}

/// Kind of the exception that a broken chain opens.
const BROKEN: &str = "audit_chain";
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Deeds of one transaction.
const STEP: i64 = 1024;
const PUBLISH_EVERY: Duration = Duration::from_secs(60);
const REFUSED_FOR: Duration = Duration::from_secs(60);
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
