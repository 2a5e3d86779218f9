//! Watches whose reports are late: a NAS that falls silent while subscribers are on is usage that nobody counts.
//!
//! In: what the fold stored of each NAS identity, and the configured intervals. Out: gauges, one line when a NAS falls
//! silent and one when it is back, and the time of the last use of a previous secret in the store. RFC 4671 counts packets;
//! this is about those that do not come.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::SignedDuration;
use tokio::sync::watch;

use super::nas::NasTable;
use super::tally::Tallies;
use super::{Wiring, stopped};
use crate::store::nas::{NasReports, note_previous_secret, previous_secrets, reports};
use crate::store::{Store, StoreError};
use crate::telemetry::{Heartbeat, Metrics, Nas};
use crate::vocabulary::{Clock, Timestamp, from_micros};

/// How a NAS keeps to its interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportState {
    /// It reports, or has nothing to report.
    Fresh,
    /// It has open sessions and sent nothing for three intervals.
    Overdue,
    /// The configuration has no such NAS any more.
    Gone,
}

/// How a NAS keeps to the interval of its client; `None`: it has no client any more.
pub fn report_state(found: &NasReports, interim_seconds: Option<u32>, now: Timestamp) -> ReportState {
    let Some(seconds) = interim_seconds else { return ReportState::Gone };
    let limit = SignedDuration::from_secs(i64::from(seconds) * SILENT_INTERVALS);
    match from_micros(found.last_seen_at) {
        Some(last) if found.open_sessions > 0 && now.duration_since(last) > limit => ReportState::Overdue,
        _ => ReportState::Fresh,
    }
}

/// The watch over all NAS.
pub struct Vigil {
    store: Store,
    clock: Clock,
    metrics: Metrics,
    nas: watch::Receiver<Arc<NasTable>>,
    tallies: Arc<Tallies>,
    overdue: HashSet<String>,
    shown: HashSet<String>,
    /// Uses of previous secrets that are stored already.
    noted: HashSet<(String, Timestamp)>,
}

impl Vigil {
    pub fn new(wiring: &Wiring, tallies: Arc<Tallies>) -> Self {
        Self {
            store: wiring.store.clone(),
            clock: wiring.clock.clone(),
            metrics: wiring.metrics.clone(),
            nas: wiring.nas.clone(),
            tallies,
            overdue: HashSet::new(),
            shown: HashSet::new(),
            noted: HashSet::new(),
        }
    }

    /// Looks every quarter of a minute until the daemon stops.
    pub async fn run(mut self, beat: Heartbeat, mut stopping: watch::Receiver<bool>) {
        loop {
            beat.beat();
            if let Err(error) = self.look().await {
                // Whoever needs to know is told by the journal; nothing is lost here.
                tracing::debug!("NAS reports not looked at: {error}. Trying again.");
            }
            for _ in 0..BEATS_A_LOOK {
                beat.beat();
                tokio::select! {
                    () = stopped(&mut stopping) => return,
                    () = tokio::time::sleep(super::BEAT_EVERY) => {}
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        self.keep_previous_secrets().await?;
        let mut tx = self.store.read().await?;
        let found = reports(&mut tx, NAS_MAX).await?;
        let secrets = previous_secrets(&mut tx).await?;
        tx.rollback().await?;
        for (client, at) in secrets {
            self.metrics.nas_previous_secret_timestamp_seconds.get_or_create(&Nas::new(client)).set(at / 1_000_000);
        }
        let (now, table) = (self.clock.now(), Arc::clone(&self.nas.borrow()));
        let mut shown = HashSet::with_capacity(found.len());
        for nas in &found {
            let seconds = table.of_identity(&nas.nas).map(|client| client.interim_seconds);
            let state = report_state(nas, seconds, now);
            if state == ReportState::Gone {
                continue;
            }
            self.show(nas, state, now);
            self.tell(nas, state, seconds.unwrap_or_default(), now);
            shown.insert(nas.nas.clone());
        }
        for gone in self.shown.difference(&shown) {
            let label = Nas::new(gone);
            self.metrics.nas_last_report_age_seconds.remove(&label);
            self.metrics.nas_reports_overdue.remove(&label);
            self.metrics.nas_sessions_open.remove(&label);
            self.metrics.nas_sessions_stale.remove(&label);
            self.overdue.remove(gone);
        }
        self.shown = shown;
        Ok(())
    }

    async fn keep_previous_secrets(&mut self) -> Result<(), StoreError> {
        let used: HashSet<_> = self.tallies.previous_secrets().into_iter().collect();
        if used.is_subset(&self.noted) {
            return Ok(());
        }
        let mut tx = self.store.write_derived().await?;
        for (client, at) in used.difference(&self.noted) {
            note_previous_secret(&mut tx, client, *at).await?;
        }
        tx.commit().await?;
        self.noted = used;
        Ok(())
    }

    fn show(&self, nas: &NasReports, state: ReportState, now: Timestamp) {
        let label = Nas::new(&nas.nas);
        let age = from_micros(nas.last_seen_at).map_or(0.0, |last| now.duration_since(last).as_secs_f64());
        // A clock that was set back gives no negative age.
        self.metrics.nas_last_report_age_seconds.get_or_create(&label).set(age.max(0.0));
        self.metrics.nas_reports_overdue.get_or_create(&label).set(i64::from(state == ReportState::Overdue));
        self.metrics.nas_sessions_open.get_or_create(&label).set(nas.open_sessions);
        self.metrics.nas_sessions_stale.get_or_create(&label).set(nas.stale_sessions);
    }

    fn tell(&mut self, nas: &NasReports, state: ReportState, interim_seconds: u32, now: Timestamp) {
        let name = &nas.nas;
        if state == ReportState::Overdue && self.overdue.insert(name.clone()) {
            let silent = from_micros(nas.last_seen_at).map_or(0, |last| now.duration_since(last).as_secs() / 60);
            tracing::warn!(
                nas.name = name,
                "NAS {name} has sent nothing for {silent} min while {} sessions are open; it should report every \
                 {interim_seconds} s. Their usage since then is known when it reports again. Look at the NAS and the way \
                 from it to us.",
                nas.open_sessions
            );
        } else if state == ReportState::Fresh && self.overdue.remove(name) {
            tracing::info!(nas.name = name, "NAS {name} reports again, or has no session open any more.");
        }
    }
}

/// As the fold's: sessions are called stale after the same time.
const SILENT_INTERVALS: i64 = 3;
/// With three seconds a beat a quarter of a minute.
const BEATS_A_LOOK: u32 = 5;
/// Identities looked at; a larger network needs its own way to watch them.
const NAS_MAX: i64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{parse_instant, to_micros};

    #[test]
    fn only_a_silent_nas_with_open_sessions_is_overdue() {
        let last = parse_instant("2026-11-22T03:00:00Z").expect("an instant");
        let found = |open_sessions| NasReports {
            nas: "bng1".to_owned(),
            first_seen_at: 0,
            last_seen_at: to_micros(last),
            rebooted_at: None,
            open_sessions,
            stale_sessions: 0,
        };
        let after = |seconds| last + SignedDuration::from_secs(seconds);
        assert_eq!(report_state(&found(1), Some(600), after(1800)), ReportState::Fresh);
        assert_eq!(report_state(&found(1), Some(600), after(1801)), ReportState::Overdue);
        assert_eq!(report_state(&found(0), Some(600), after(9999)), ReportState::Fresh);
        assert_eq!(report_state(&found(1), Some(3600), after(1801)), ReportState::Fresh);
        assert_eq!(report_state(&found(1), None, after(0)), ReportState::Gone);
    }
}
