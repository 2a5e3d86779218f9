//! Says what is dropped and why, at most once a minute per cause and NAS; the counters have every single one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::SignedDuration;

use crate::vocabulary::Timestamp;

/// Remembers what was said when.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<HashMap<(&'static str, String), Said>>);

#[derive(Debug)]
struct Said {
    at: Timestamp,
    kept_back: u64,
}

impl Complaints {
    /// `Some(n)` when this may be said now, n being how many were kept back since the last time; `None` to be quiet.
    pub fn due(&self, cause: &'static str, subject: &str, now: Timestamp) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = said.get_mut(&(cause, subject.to_owned())) {
            let age = now.duration_since(last.at);
            // A clock that was set back must not silence us.
            if age < EVERY && age >= SignedDuration::ZERO {
                last.kept_back += 1;
                return None;
            }
            last.at = now;
            return Some(std::mem::take(&mut last.kept_back));
        }
        if said.len() >= SUBJECTS_MAX {
            return None;
        }
        said.insert((cause, subject.to_owned()), Said { at: now, kept_back: 0 });
        Some(0)
    }
}

/// " 12 more were kept back." or nothing.
pub fn and_more(kept_back: u64) -> String {
    if kept_back == 0 { String::new() } else { format!(" {kept_back} more since the last such line.") }
}

const EVERY: SignedDuration = SignedDuration::from_secs(60);
/// Causes times configured clients; subjects are names from the configuration, never addresses from the network.
const SUBJECTS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::parse_instant;

    #[test]
    fn a_cause_is_said_once_a_minute_and_counted_meanwhile() {
        let complaints = Complaints::default();
        let at = |second: i64| {
            parse_instant("2026-11-22T03:00:00Z").expect("an instant") + SignedDuration::from_secs(second)
        };
        assert_eq!(complaints.due("malformed", "bng1", at(0)), Some(0));
        assert_eq!(complaints.due("malformed", "bng1", at(1)), None);
        assert_eq!(complaints.due("malformed", "bng2", at(1)), Some(0));
        assert_eq!(complaints.due("malformed", "bng1", at(59)), None);
        assert_eq!(complaints.due("malformed", "bng1", at(60)), Some(2));
        assert_eq!(complaints.due("malformed", "bng1", at(-500)), Some(0));
    }
}
