//! Looks, unasked, whether the rows in other programs' databases still are as desired; what differs is listed and healed by
//! the element's own job, behind every push.
//!
//! One daemon at a time walks the elements of a kind in the order of their rows, slowly enough that nobody notices. How far
//! it is stands in the store. Elements with a job under way are passed over: they are being brought there anyway.

use std::time::Duration;

use super::backend::{ApplyError, Backends};
use crate::provision::{ElementKind, ElementState};
use crate::store::drift::{self, Sweep};
use crate::store::elements::{self, ElementRow};
use crate::store::{Store, StoreError, billing, jobs};
use crate::telemetry::{Heartbeat, Metrics, Target};
use crate::vocabulary::{Clock, Timestamp};

/// Rows looked at between two pauses: about a hundred a second.
const PAGE: i64 = 50;
const PAUSE: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(5);
const AWAY_PAUSE: Duration = Duration::from_secs(60);
const CLAIM: Duration = Duration::from_secs(120);
const KEEP_HEALED: Duration = Duration::from_secs(90 * 24 * 3600);

/// The sweeper of all kinds.
#[derive(Clone)]
pub struct Sweeper {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Metrics,
    pub backends: Backends,
    /// From the beginning of one sweep to that of the next.
    pub every: Duration,
}

impl Sweeper {
    /// Sweeps one kind for ever.
    pub async fn run(self, kind: ElementKind, beat: Heartbeat) -> Result<(), StoreError> {
        loop {
            beat.beat();
            // An outage is told by the parts that watch the databases; here it only means: later.
            let pause = match self.turn(kind).await {
                Ok(true) => PAUSE,
                Ok(false) => IDLE,
                Err(_) => IDLE,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks at the next page; `false`: nothing is due.
    async fn turn(&self, kind: ElementKind) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut tx = self.store.read().await?;
        let mut sweep = drift::sweep(&mut tx, kind.as_str()).await?;
        let due = sweep.finished_at.is_none_or(|at| now.duration_since(at).as_secs() >= self.every_seconds());
        if sweep.started_at.is_none() && !due {
            return Ok(false);
        }
        let page = elements::of_kind(&mut tx, kind, sweep.after, PAGE).await?;
        drop(tx);
        if !self.claim(kind, now).await? {
            return Ok(false);
        }
        sweep.started_at = sweep.started_at.or(Some(now));
        let mut differing = Vec::new();
        for element in &page {
            sweep.after = element.id;
            if !settled(element) {
                continue;
            }
            match self.backends.check(&self.store, element, now).await {
                Ok(Some(detail)) => differing.push((element, Some(detail))),
                Ok(None) => differing.push((element, None)),
                Err(ApplyError::Away(_)) => {
                    tokio::time::sleep(AWAY_PAUSE).await;
                    return Ok(true);
                }
                // Its own job tells what is wrong with it.
                Err(_) => {}
            }
        }
        if (page.len() as i64) < PAGE {
            sweep = Sweep { after: 0, started_at: None, finished_at: Some(now) };
        }
        self.record(kind, &sweep, differing, now).await?;
        Ok(true)
    }

    async fn claim(&self, kind: ElementKind, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.store.write_derived().await?;
        let until = now.checked_add(CLAIM).unwrap_or(Timestamp::MAX);
        let ours = billing::claim(&mut tx, &format!("sweep {kind}"), self.store.owner(), until, now).await?;
        tx.commit().await?;
        Ok(ours)
    }

    async fn record(
        &self,
        kind: ElementKind,
        sweep: &Sweep,
        looked_at: Vec<(&ElementRow, Option<String>)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.store.write_derived().await?;
        for (element, detail) in looked_at {
            // It may have been pushed while it was compared.
            let same = elements::by_id(&mut tx, element.id)
                .await?
                .is_some_and(|now| now.desired_revision == element.desired_revision && now.state == element.state);
            match detail {
                Some(detail) if same => {
                    drift::found(&mut tx, element.id, &detail, now).await?;
                    jobs::wake_to_heal(&mut tx, element.id, now).await?;
                    self.metrics.drift_found.get_or_create(&Target::new(kind.as_str())).inc();
                    tracing::warn!(
                        element = element.id,
                        account.id = element.account_id,
                        "The {kind} rows of element {} differ from what is desired; they are written anew. See `lastmile drift \
                         list`.",
                        element.id
                    );
                }
                Some(_) => {}
                None => {
                    drift::healed(&mut tx, &[element.id], now).await?;
                }
            }
        }
        drift::keep_sweep(&mut tx, kind.as_str(), sweep).await?;
        if sweep.started_at.is_none() {
            drift::forget(&mut tx, now.checked_sub(KEEP_HEALED).unwrap_or(Timestamp::UNIX_EPOCH)).await?;
        }
        tx.commit().await
    }

    fn every_seconds(&self) -> i64 {
        i64::try_from(self.every.as_secs()).unwrap_or(i64::MAX)
    }
}

/// Whether the outside should be as desired by now.
fn settled(element: &ElementRow) -> bool {
    matches!(element.state, ElementState::Applied | ElementState::Gone)
        && element.applied_revision == Some(element.desired_revision)
}
