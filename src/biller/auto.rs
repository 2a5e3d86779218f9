//! Closes the periods of cycles with `close = "auto"`, `grace` after their end. Which daemon does it is a matter of the
//! claim each run takes; a period that was closed once is left alone.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;

use super::{BillerError, Order, Watch, close_period};
use crate::billing::lines::StoredLine;
use crate::catalog::Close;
use crate::store::rating::RatingError;
use crate::store::{Store, billing, catalog};
use crate::telemetry::{Heartbeat, Metrics, Outcome};
use crate::vocabulary::{Clock, Period, Timestamp};

/// The service that closes periods by itself.
pub struct AutoClose {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Metrics,
    pub heart: Heartbeat,
}

impl AutoClose {
    /// Looks every few seconds for due periods until `stopping` says so; a run that has begun is finished.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) -> Result<(), Infallible> {
        while !*stopping.borrow() {
            self.heart.beat();
            if let Err(error) = self.close_due().await {
                tracing::warn!("Due periods were not looked for: {error}. Trying again in {LOOK_SECONDS} s.");
            }
            tokio::select! {
                _ = tokio::time::sleep(Duration::from_secs(LOOK_SECONDS)) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        }
        Ok(())
    }

    async fn close_due(&self) -> Result<(), BillerError> {
        let now = self.clock.now();
        for (order, period) in self.due(now).await? {
            // Another daemon may have closed it while we were at the ones before.
            if self.runs(&order, &period).await? > 0 {
                continue;
            }
            let mut watch = Beating { heart: &self.heart, metrics: &self.metrics };
            let outcome = match close_period(&self.store, &self.clock, &order, &mut watch).await {
                Ok(_) => "closed",
                // Another process is at it; the next look finds it closed.
                Err(BillerError::Busy(_)) => continue,
                Err(error) => {
                    tracing::error!(
                        "Cycle {} of {} was not closed: {error}. Trying again in {LOOK_SECONDS} s.",
                        order.cycle,
                        order.tenant
                    );
                    "failed"
                }
            };
            self.metrics.bill_runs.get_or_create(&Outcome::new(outcome)).inc();
        }
        Ok(())
    }

    /// The latest ended period of every automatic cycle whose grace is over and that has accounts and no batch.
    async fn due(&self, now: Timestamp) -> Result<Vec<(Order, Period)>, BillerError> {
        let mut tx = self.store.read().await?;
        let mut due = Vec::new();
        for tenant in catalog::tenants(&mut tx).await? {
            let Some(in_force) = catalog::in_force(&mut tx, &tenant).await? else { continue };
            for (id, cycle) in in_force.catalog.cycles.iter().filter(|(_, cycle)| cycle.close == Close::Auto) {
                let period = cycle.calendar.latest_ended(now).map_err(RatingError::from)?;
                let ripe = now.as_second() - period.end.as_second() >= cycle.grace_seconds;
                if ripe
                    && billing::runs_of(&mut tx, &tenant, id, &period).await? == 0
                    && billing::draft_of(&mut tx, &tenant, id).await?.is_none()
                    && billing::count_accounts(&mut tx, &tenant, id).await? > 0
                {
                    let name = cycle.calendar.name(&period);
                    let order = Order {
                        tenant: tenant.clone(),
                        cycle: id.clone(),
                        period: Some(name),
                        dry_run: false,
                        rerate: false,
                    };
                    due.push((order, period));
                }
            }
        }
        Ok(due)
    }

    async fn runs(&self, order: &Order, period: &Period) -> Result<i64, BillerError> {
        let mut tx = self.store.read().await?;
        Ok(billing::runs_of(&mut tx, &order.tenant, &order.cycle, period).await?)
    }
}

/// Keeps the watchdog fed during long runs.
struct Beating<'a> {
    heart: &'a Heartbeat,
    metrics: &'a Metrics,
}

impl Watch for Beating<'_> {
    fn account(&mut self, _done: u64, _of: u64) {
        self.heart.beat();
    }
    fn line(&mut self, _line: &StoredLine) {
        self.metrics.bill_lines.inc();
    }
}

const LOOK_SECONDS: u64 = 10;
