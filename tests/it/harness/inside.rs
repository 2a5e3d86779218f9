//! The daemon inside this process, on a clock that a test moves.

use std::time::Duration;

use lastmile::daemon::Daemon;
use lastmile::daemon::config::Config;
use lastmile::vocabulary::{Clock, Timestamp};

use super::daemon::Site;
use super::http::{self, Answer};
use super::wait_for;

/// A running daemon; stopped when dropped.
pub struct Inside {
    pub clock: Clock,
    pub http_port: u16,
    runtime: tokio::runtime::Runtime,
    daemon: Option<Daemon>,
}

impl Inside {
    /// Starts the site's daemon here, its clock on the machine's time, and waits until it is ready.
    pub fn start(site: &Site) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let config = Config::load(&site.config).expect("a configuration").config;
        let clock = Clock::new(now);
        let daemon = runtime.block_on(Daemon::start(&config, clock.clone())).expect("the daemon starts");
        let inside = Self { clock, http_port: site.http_port, runtime, daemon: Some(daemon) };
        wait_for("the daemon is ready", Duration::from_secs(20), || {
            http::request(inside.http_port, "GET", "/readyz", &[], None).ok().filter(|answer| answer.status == 200)
        });
        inside
    }

    /// Lets days pass.
    pub fn pass_days(&self, days: i64) {
        self.clock.advance_micros(days * 86_400_000_000);
    }

    /// One request with a bearer key below `/v1/tenants/`; sent again as long as the database is too busy (503).
    pub fn api(&self, key: &str, method: &str, path: &str, body: Option<&serde_json::Value>) -> Answer {
        let bearer = format!("Bearer {key}");
        let body = body.map(ToString::to_string);
        let path = format!("/v1/tenants/{path}");
        let headers = [("Authorization", bearer.as_str())];
        wait_for("the API answers", Duration::from_secs(30), || {
            let answer = http::request(self.http_port, method, &path, &headers, body.as_deref()).expect("an answer");
            (answer.status != 503).then_some(answer)
        })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            self.runtime.block_on(daemon.stop());
        }
    }
}

/// The tests' own clock is the machine's.
fn now() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a year after 1970");
    Timestamp::UNIX_EPOCH.checked_add(since).expect("an instant")
}
