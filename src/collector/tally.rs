//! What is counted of one client (RFC 4671, the counters of an accounting server's client entry), each counter looked up
//! once and then kept.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::HashMap;
use prometheus_client::metrics::counter::Counter;

use crate::radius::{PacketView, attribute};
use crate::telemetry::{Metrics, Nas, NasKind, NasReason};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// The counters of one configured client.
#[derive(Debug)]
pub struct Tally {
    /// In the order of [`Kind`].
    requests: [Counter; KINDS.len()],
    pub duplicates: Counter,
    pub responses: Counter,
    /// Requests whose commit failed: their NAS sends them again.
    pub not_recorded: Counter,
    /// When it last signed with its previous secret, microseconds of Unix time; 0 for never.
    previous_secret_at: AtomicI64,
}

/// What an accepted packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Start,
    Stop,
    Interim,
    On,
    Off,
    Other,
    Status,
}

const KINDS: [(Kind, &str); 7] = [
    (Kind::Start, "start"),
    (Kind::Stop, "stop"),
    (Kind::Interim, "interim"),
    (Kind::On, "on"),
    (Kind::Off, "off"),
    (Kind::Other, "other"),
    (Kind::Status, "status"),
];

impl Kind {
    /// What an Accounting-Request reports, by its Acct-Status-Type.
    pub fn of(view: &PacketView<'_>) -> Self {
        match view.first(attribute::ACCT_STATUS_TYPE) {
            Some([0, 0, 0, 1]) => Self::Start,
            Some([0, 0, 0, 2]) => Self::Stop,
            Some([0, 0, 0, 3]) => Self::Interim,
            Some([0, 0, 0, 7]) => Self::On,
            Some([0, 0, 0, 8]) => Self::Off,
            _ => Self::Other,
        }
    }
}

impl Tally {
    fn new(metrics: &Metrics, client: &str) -> Self {
        let requests =
            KINDS.map(|(_, kind)| metrics.radius_requests.get_or_create(&NasKind::new(client, kind)).clone());
        Self {
            requests,
            duplicates: metrics.radius_duplicates.get_or_create(&Nas::new(client)).clone(),
            responses: metrics.radius_responses.get_or_create(&Nas::new(client)).clone(),
            previous_secret_at: AtomicI64::new(0),
            not_recorded: metrics.radius_dropped.get_or_create(&NasReason::new(client, "not_recorded")).clone(),
        }
    }

    pub fn previous_secret(&self, now: Timestamp) {
        self.previous_secret_at.fetch_max(to_micros(now), Ordering::Relaxed);
    }

    pub fn request(&self, kind: Kind) {
        self.requests[kind as usize].inc();
    }
}

/// The tallies of all clients that sent something, by name: a reload changes clients and keeps their counts.
pub struct Tallies {
    metrics: Metrics,
    by_client: Mutex<HashMap<String, Arc<Tally>>>,
}

impl Tallies {
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, by_client: Mutex::default() }
    }

    /// When each client that did so last signed with its previous secret.
    pub fn previous_secrets(&self) -> Vec<(String, Timestamp)> {
        let tallies = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        let used = |tally: &Tally| match tally.previous_secret_at.load(Ordering::Relaxed) {
            0 => None,
            at => from_micros(at),
        };
        tallies.iter().filter_map(|(client, tally)| Some((client.clone(), used(tally)?))).collect()
    }

    pub fn of(&self, client: &str) -> Arc<Tally> {
        // Only whole entries are ever inserted.
        let mut tallies = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tally) = tallies.get(client) {
            return Arc::clone(tally);
        }
        let tally = Arc::new(Tally::new(&self.metrics, client));
        tallies.insert(client.to_owned(), Arc::clone(&tally));
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_at_their_own_place() {
        for (at, (kind, _)) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }

    #[test]
    fn counts_of_a_client_are_kept_apart_and_over_lookups() {
        let metrics = Metrics::new();
        let tallies = Tallies::new(metrics.clone());
        tallies.of("bng1").request(Kind::Stop);
        tallies.of("bng1").responses.inc();
        tallies.of("bng2").responses.inc_by(5);
        let text = metrics.render();
        for line in [
            "lastmile_radius_requests_total{nas=\"bng1\",kind=\"stop\"} 1\n",
            "lastmile_radius_responses_total{nas=\"bng1\"} 1\n",
            "lastmile_radius_responses_total{nas=\"bng2\"} 5\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
