//! Requests seen lately: a copy of one that is being committed waits for that commit, a copy of one that was committed
//! is answered at once, without a second record.
//!
//! Source: RFC 5080 section 2.2.2. Only identical copies (address, port, identifier, authenticator) are known here; a
//! report that was signed anew is another request, and the fold knows it by its content.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use foldhash::HashMap;
use jiff::SignedDuration;

use crate::vocabulary::Timestamp;

/// What makes two datagrams the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestKey {
    pub port: usize,
    pub source: SocketAddr,
    pub identifier: u8,
    pub authenticator: [u8; 16],
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// Never seen: commit it.
    New,
    /// Its first copy is being committed; the answer will be sent for this copy too.
    Committing,
    /// It is durable: answer now.
    Committed,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Committing { copies: u8 },
    Committed,
}

/// The requests of the last thirty seconds, at most `REQUESTS_MAX`.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Requests>);

#[derive(Debug, Default)]
struct Requests {
    states: HashMap<RequestKey, State>,
    /// Committed requests, oldest first.
    committed: VecDeque<(Timestamp, RequestKey)>,
}

impl Seen {
    /// Looks a request up; a new one is being committed from now on.
    pub fn sight(&self, key: RequestKey, now: Timestamp) -> Sighting {
        let mut requests = self.lock();
        requests.forget_before(now);
        match requests.states.get_mut(&key) {
            Some(State::Committing { copies }) => {
                *copies = copies.saturating_add(1).min(COPIES_ANSWERED_MAX);
                Sighting::Committing
            }
            Some(State::Committed) => Sighting::Committed,
            None => {
                requests.states.insert(key, State::Committing { copies: 0 });
                Sighting::New
            }
        }
    }

    /// These requests are durable now. Gives for each how many copies came meanwhile.
    pub fn committed(&self, keys: impl Iterator<Item = RequestKey>, now: Timestamp) -> Vec<u8> {
        let mut requests = self.lock();
        keys.map(|key| {
            requests.committed.push_back((now, key));
            match requests.states.insert(key, State::Committed) {
                Some(State::Committing { copies }) => copies,
                _ => 0,
            }
        })
        .collect()
    }

    /// These requests were not committed, or nobody knows: the next copy is a new request.
    pub fn failed(&self, keys: impl Iterator<Item = RequestKey>) {
        let mut requests = self.lock();
        for key in keys {
            requests.states.remove(&key);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Requests> {
        // No half-written state survives here: every step is one insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Requests {
    fn forget_before(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.committed.front() {
            if self.committed.len() <= REQUESTS_MAX && now.duration_since(*at) < LIFETIME {
                break;
            }
            self.states.remove(key);
            self.committed.pop_front();
        }
    }
}

/// RFC 5080 section 2.2.2: at least 5, at most 30 seconds.
const LIFETIME: SignedDuration = SignedDuration::from_secs(30);
/// About 15 MiB when full; at a higher rate answers are remembered for less long.
const REQUESTS_MAX: usize = 131_072;
/// Copies of one request that are answered after its commit.
const COPIES_ANSWERED_MAX: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::parse_instant;

    fn at(second: i64) -> Timestamp {
        parse_instant("2026-11-22T03:00:00Z").expect("an instant") + SignedDuration::from_secs(second)
    }

    fn key(identifier: u8) -> RequestKey {
        RequestKey {
            port: 0,
            source: "192.0.2.1:4000".parse().expect("an address"),
            identifier,
            authenticator: [identifier; 16],
        }
    }

    #[test]
    fn a_copy_waits_for_the_commit_and_is_answered_at_once_after_it() {
        let seen = Seen::default();
        assert_eq!(seen.sight(key(1), at(0)), Sighting::New);
        assert_eq!(seen.sight(key(1), at(0)), Sighting::Committing);
        assert_eq!(seen.committed([key(1)].into_iter(), at(0)), [1]);
        assert_eq!(seen.sight(key(1), at(29)), Sighting::Committed);
        assert_eq!(seen.sight(key(1), at(30)), Sighting::New);
    }

    #[test]
    fn a_copy_after_a_failed_commit_is_a_new_request() {
        let seen = Seen::default();
        seen.sight(key(1), at(0));
        seen.failed([key(1)].into_iter());
        assert_eq!(seen.sight(key(1), at(0)), Sighting::New);
    }

    #[test]
    fn another_authenticator_is_another_request() {
        let seen = Seen::default();
        seen.sight(key(1), at(0));
        let signed_anew = RequestKey { authenticator: [9; 16], ..key(1) };
        assert_eq!(seen.sight(signed_anew, at(0)), Sighting::New);
    }

    #[test]
    fn the_number_of_requests_is_bounded() {
        let seen = Seen::default();
        let keys = (0..REQUESTS_MAX + 10).map(|index| RequestKey { port: index, ..key(1) });
        seen.committed(keys, at(0));
        seen.sight(RequestKey { port: 0, ..key(2) }, at(0));
        assert_eq!(seen.lock().committed.len(), REQUESTS_MAX);
        assert_eq!(seen.lock().states.len(), REQUESTS_MAX + 1);
    }
}
