//! What systemd hears from us: ready, status, reloading, stopping, and the watchdog's feed.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::telemetry::{Heartbeats, Watch};

/// Every socket is bound.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The line `systemctl status` shows.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// A reload begins; `ready` ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_) => send(&[NotifyState::Reloading]),
    }
}

pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("Stopping: answering what is committed.")]);
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told our state; it may restart us.");
    }
}

/// Feeds systemd's watchdog for as long as every loop turns.
pub struct Feeder {
    watch: Watch,
    every: Duration,
    fed: bool,
}

impl Feeder {
    /// `None` when no watchdog waits for us.
    pub fn new(hearts: &Heartbeats) -> Option<Self> {
        let limit = sd_notify::watchdog_enabled()?;
        Some(Self { watch: hearts.watch(), every: limit / LOOKS_PER_LIMIT, fed: true })
    }

    /// Returns when it is time for the next `look`.
    pub async fn wait(&self) {
        tokio::time::sleep(self.every).await;
    }

    /// Feeds the watchdog if every loop has turned since it was last fed; names the silent ones once otherwise.
    pub fn look(&mut self) {
        let silent = self.watch.silent();
        if silent.is_empty() {
            send(&[NotifyState::Watchdog]);
        } else if self.fed {
            tracing::warn!(loops = silent.join(", "), "A loop has not turned; the watchdog is not fed until it does.");
        }
        self.fed = silent.is_empty();
    }
}

/// One missed look is no reason to be killed.
const LOOKS_PER_LIMIT: u32 = 4;
