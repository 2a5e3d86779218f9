//! Heartbeats: each service loop beats once a turn, a turn that failed included, so that an outage of the database is no
//! reason for a restart and a loop that hangs is one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The pulse of one loop. Beat at least every ten seconds, also when there is nothing to do.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All loops that must turn.
#[derive(Debug, Clone, Default)]
pub struct Heartbeats(Arc<Mutex<Vec<(String, Heartbeat)>>>);

impl Heartbeats {
    pub fn new() -> Self {
        Self::default()
    }

    /// A new pulse under `name`; from now on the watchdog waits for it.
    pub fn register(&self, name: impl Into<String>) -> Heartbeat {
        let beat = Heartbeat::default();
        self.lock().push((name.into(), beat.clone()));
        beat
    }

    /// A watch that has seen nothing yet.
    pub fn watch(&self) -> Watch {
        Watch { hearts: self.clone(), seen: Vec::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(String, Heartbeat)>> {
        // A list of names cannot be left half-written by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares pulses between two looks.
#[derive(Debug)]
pub struct Watch {
    hearts: Heartbeats,
    /// Counts at the last look at which everything had turned.
    seen: Vec<u64>,
}

impl Watch {
    /// The names of the loops that have not turned since the last look that found all of them turned. Empty: feed the
    /// watchdog.
    pub fn silent(&mut self) -> Vec<String> {
        let hearts = self.hearts.lock();
        let silent: Vec<String> = hearts
            .iter()
            .enumerate()
            .filter(|(at, (_, heart))| heart.count() <= self.seen.get(*at).copied().unwrap_or(0))
            .map(|(_, (name, _))| name.clone())
            .collect();
        if silent.is_empty() {
            self.seen = hearts.iter().map(|(_, heart)| heart.count()).collect();
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_that_stopped_turning_is_named() {
        let hearts = Heartbeats::new();
        let (fold, tftp) = (hearts.register("fold"), hearts.register("tftp"));
        let mut watch = hearts.watch();
        fold.beat();
        assert_eq!(watch.silent(), ["tftp"]);
        tftp.beat();
        assert!(watch.silent().is_empty());
        tftp.beat();
        assert_eq!(watch.silent(), ["fold"]);
    }
}
