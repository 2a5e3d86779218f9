//! The life of one job, decided from values alone: (state, event) in, the next state out.
//!
//! A job brings one element from what is applied to what is desired. It is level-triggered: it carries no command, only
//! the revision it was claimed for, and whoever does it reads the newest desired content at that moment. An element has
//! at most one job; a newer desired revision supersedes whatever the job was doing. This file never reads a clock, a
//! database or a source of randomness; `now`, the lease and the random number come in with the event.
//!
//! ```text
//!                 supersede, requeue, lease expired
//!      ┌───────────────────────────────────────────────┐
//!      ▼             claim                              │
//!  ┌─────────┐ ───────────────► ┌─────────┐  succeed    │   ┌──────┐
//!  │ pending │                  │ running │ ────────────┼─► │ done │
//!  └─────────┘ ◄─────────────── └─────────┘             │   └──────┘
//!      │    superseded meanwhile  │  ▲   │ fail         │   ┌────────┐
//!      │                    retry │  │   └──────────────┼─► │ failed │
//!      │ cancel                   ▼  │ claim, when due  │   └────────┘
//!      │                        ┌─────────┐             │       │ cancel
//!      │                        │ waiting │ ────────────┘       ▼
//!      │       (retry, or later) └─────────┘                 ┌───────────┐
//!      │                             └───── cancel ───────► │ cancelled │
//!      └──────────────────────────────────────────────────► └───────────┘
//! ```
//!
//! A job of several steps (a modem: offer, reset, fetch, confirm) ends an attempt with `later`: the next attempt looks at
//! the facts anew and takes the next step. A job that a person can mend only (`fail`) stays `failed` until a newer push or `job retry`; everything else is
//! retried for ever, at most an hour apart. A running job cannot be cancelled: what it does to the outside is under way.

use std::time::Duration;

use thiserror::Error;

use crate::vocabulary::Timestamp;

/// Delays before the second, third, … attempt; the last one repeats for ever.
const BACKOFF_SECONDS: [u64; 5] = [5, 30, 120, 600, 3600];

/// A delay is moved by at most this part of itself, up or down, so that a thousand jobs that failed together do not
/// come back together.
const JITTER_PERCENT: u64 = 20;

/// Where a job stands. The variants carry exactly what that state knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Due now. `attempts` already made for this revision.
    Pending { attempts: u32 },
    /// A daemon acts on `revision` and must report before `lease_until`; `newer` tells that a newer revision waits.
    Running { revision: i64, attempts: u32, lease_until: Timestamp, newer: bool },
    /// A passing fault stopped it; it is due again at `retry_at`.
    Waiting { attempts: u32, retry_at: Timestamp, reason: String },
    /// `revision` is applied.
    Done { revision: i64 },
    /// A person must mend something first.
    Failed { attempts: u32, reason: String },
    /// An operator withdrew it; the element stays as it is.
    Cancelled,
}

/// What can happen to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// A daemon takes it to apply `revision`, promising to report before `lease_until`.
    Claim { now: Timestamp, revision: i64, lease_until: Timestamp },
    /// The revision it was claimed for is applied.
    Succeed,
    /// It did not work out and may next time; `random` spreads the next attempt.
    Retry { now: Timestamp, random: u64, reason: String },
    /// One step of several is done; the next is due at `at`, because of `reason`. Nothing failed.
    Later { at: Timestamp, reason: String },
    /// It cannot work until a person mends something.
    Fail { reason: String },
    /// An operator withdraws it.
    Cancel,
    /// A newer desired revision was stored.
    Supersede,
    /// An operator asks for it again, from now.
    Requeue,
    /// The daemon that ran it did not report in time.
    LeaseExpired { now: Timestamp },
}

/// Why an event does not apply. The state is unchanged; whoever sent the event was late or asked in vain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JobError {
    #[error("the job is not due before {0}")]
    NotDue(Timestamp),
    #[error("the job is running; wait until it ended")]
    Running,
    #[error("the job is not running any more; its result came too late and is dropped")]
    NotRunning,
    #[error("the job has already ended")]
    Ended,
}

impl JobState {
    /// A job as it is first stored.
    pub const NEW: JobState = JobState::Pending { attempts: 0 };

    /// The word in the database, the API and `job list`.
    pub fn word(&self) -> &'static str {
        match self {
            JobState::Pending { .. } => "pending",
            JobState::Running { .. } => "running",
            JobState::Waiting { .. } => "waiting",
            JobState::Done { .. } => "done",
            JobState::Failed { .. } => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    /// The next state, or why the event changes nothing.
    pub fn step(self, event: JobEvent) -> Result<JobState, JobError> {
        use JobState::{Cancelled, Done, Failed, Pending, Running, Waiting};
        match (self, event) {
            (Pending { attempts }, JobEvent::Claim { revision, lease_until, .. }) => {
                Ok(Running { revision, attempts: attempts.saturating_add(1), lease_until, newer: false })
            }
            (Waiting { attempts, retry_at, .. }, JobEvent::Claim { now, revision, lease_until }) => {
                if now < retry_at {
                    return Err(JobError::NotDue(retry_at));
                }
                Ok(Running { revision, attempts: attempts.saturating_add(1), lease_until, newer: false })
            }
            (Running { .. }, JobEvent::Claim { .. } | JobEvent::Cancel | JobEvent::Requeue) => Err(JobError::Running),
            (Done { .. } | Failed { .. } | Cancelled, JobEvent::Claim { .. }) => Err(JobError::Ended),

            // Whatever the outcome: it was about a revision that nobody wants any more, so the newest is tried at once.
            (
                Running { newer: true, .. },
                JobEvent::Succeed | JobEvent::Retry { .. } | JobEvent::Later { .. } | JobEvent::Fail { .. },
            ) => Ok(JobState::NEW),
            (Running { revision, newer: false, .. }, JobEvent::Succeed) => Ok(Done { revision }),
            (Running { attempts, newer: false, .. }, JobEvent::Retry { now, random, reason }) => {
                let retry_at = now.checked_add(backoff(attempts, random)).unwrap_or(Timestamp::MAX);
                Ok(Waiting { attempts, retry_at, reason })
            }
            (Running { attempts, newer: false, .. }, JobEvent::Later { at, reason }) => {
                Ok(Waiting { attempts, retry_at: at, reason })
            }
            (Running { attempts, newer: false, .. }, JobEvent::Fail { reason }) => Ok(Failed { attempts, reason }),
            (
                Pending { .. } | Waiting { .. } | Done { .. } | Failed { .. } | Cancelled,
                JobEvent::Succeed
                | JobEvent::Retry { .. }
                | JobEvent::Later { .. }
                | JobEvent::Fail { .. }
                | JobEvent::LeaseExpired { .. },
            ) => Err(JobError::NotRunning),

            (Running { attempts, lease_until, .. }, JobEvent::LeaseExpired { now }) => {
                if now < lease_until {
                    Err(JobError::Running)
                } else {
                    Ok(Pending { attempts })
                }
            }

            (Pending { .. } | Waiting { .. } | Failed { .. }, JobEvent::Cancel) => Ok(Cancelled),
            (Done { .. } | Cancelled, JobEvent::Cancel) => Err(JobError::Ended),

            (Running { revision, attempts, lease_until, .. }, JobEvent::Supersede) => {
                Ok(Running { revision, attempts, lease_until, newer: true })
            }
            (
                Pending { .. } | Waiting { .. } | Done { .. } | Failed { .. } | Cancelled,
                JobEvent::Supersede | JobEvent::Requeue,
            ) => Ok(JobState::NEW),
        }
    }
}

/// The delay after the `attempts`-th attempt in vain (1 is the first): 5 s, 30 s, 2 min, 10 min, then an hour, moved by
/// up to a fifth either way by `random`.
pub fn backoff(attempts: u32, random: u64) -> Duration {
    let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX).min(BACKOFF_SECONDS.len() - 1);
    let base_ms = BACKOFF_SECONDS[index] * 1000;
    let spread_ms = base_ms * JITTER_PERCENT / 100;
    Duration::from_millis(base_ms - spread_ms + random % (2 * spread_ms + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number of seconds is an instant")
    }

    fn states() -> Vec<JobState> {
        vec![
            JobState::Pending { attempts: 2 },
            JobState::Running { revision: 7, attempts: 3, lease_until: at(100), newer: false },
            JobState::Running { revision: 7, attempts: 3, lease_until: at(100), newer: true },
            JobState::Waiting { attempts: 3, retry_at: at(100), reason: "locked".into() },
            JobState::Done { revision: 7 },
            JobState::Failed { attempts: 3, reason: "no model".into() },
            JobState::Cancelled,
        ]
    }

    /// One line a state, one column an event: claim before 100 s, claim after, succeed, retry, fail, cancel, supersede,
    /// requeue, lease expired before 100 s, after, later.
    const TABLE: [(&str, [&str; 11]); 7] = [
        ("pending", ["run3", "run3", "late", "late", "late", "cancelled", "new", "new", "late", "late", "late"]),
        ("running", ["busy", "busy", "done7", "wait3", "failed", "busy", "newer", "busy", "busy", "pending3", "later"]),
        ("running, newer", ["busy", "busy", "new", "new", "new", "busy", "newer", "busy", "busy", "pending3", "new"]),
        ("waiting", ["notdue", "run4", "late", "late", "late", "cancelled", "new", "new", "late", "late", "late"]),
        ("done", ["ended", "ended", "late", "late", "late", "ended", "new", "new", "late", "late", "late"]),
        ("failed", ["ended", "ended", "late", "late", "late", "cancelled", "new", "new", "late", "late", "late"]),
        ("cancelled", ["ended", "ended", "late", "late", "late", "ended", "new", "new", "late", "late", "late"]),
    ];

    fn events() -> [JobEvent; 11] {
        [
            JobEvent::Claim { now: at(99), revision: 9, lease_until: at(200) },
            JobEvent::Claim { now: at(100), revision: 9, lease_until: at(200) },
            JobEvent::Succeed,
            JobEvent::Retry { now: at(50), random: 0, reason: "again".into() },
            JobEvent::Fail { reason: "never".into() },
            JobEvent::Cancel,
            JobEvent::Supersede,
            JobEvent::Requeue,
            JobEvent::LeaseExpired { now: at(99) },
            JobEvent::LeaseExpired { now: at(100) },
            JobEvent::Later { at: at(70), reason: "booting".into() },
        ]
    }

    fn short(result: Result<JobState, JobError>) -> String {
        match result {
            Ok(JobState::Pending { attempts: 0 }) => "new".into(),
            Ok(JobState::Pending { attempts }) => format!("pending{attempts}"),
            Ok(JobState::Running { newer: true, .. }) => "newer".into(),
            Ok(JobState::Running { revision, attempts, lease_until, .. }) => {
                assert_eq!((revision, lease_until), (9, at(200)), "a claim is for the revision it names");
                format!("run{attempts}")
            }
            Ok(JobState::Waiting { retry_at, reason, .. }) if reason == "booting" => {
                assert_eq!(retry_at, at(70), "the next step is due when it said");
                "later".into()
            }
            Ok(JobState::Waiting { attempts, retry_at, reason }) => {
                assert_eq!(
                    (retry_at, reason.as_str()),
                    (at(50 + 96), "again"),
                    "the third attempt waits two minutes less a fifth"
                );
                format!("wait{attempts}")
            }
            Ok(JobState::Done { revision }) => format!("done{revision}"),
            Ok(JobState::Failed { .. }) => "failed".into(),
            Ok(JobState::Cancelled) => "cancelled".into(),
            Err(JobError::NotDue(_)) => "notdue".into(),
            Err(JobError::Running) => "busy".into(),
            Err(JobError::NotRunning) => "late".into(),
            Err(JobError::Ended) => "ended".into(),
        }
    }

    #[test]
    fn every_pair_of_state_and_event_has_its_outcome() {
        for (state, (name, expected)) in states().into_iter().zip(TABLE) {
            for (event, outcome) in events().into_iter().zip(expected) {
                assert_eq!(short(state.clone().step(event.clone())), outcome, "{name} + {event:?}");
            }
        }
    }

    #[test]
    fn backoff_grows_to_an_hour_and_stays_within_a_fifth() {
        for (attempts, seconds) in [(0, 5), (1, 5), (2, 30), (3, 120), (4, 600), (5, 3600), (6, 3600), (u32::MAX, 3600)]
        {
            for random in [0, 1, 12_345, u64::MAX / 2, u64::MAX] {
                let delay = backoff(attempts, random).as_millis();
                assert!(delay >= seconds * 800 && delay <= seconds * 1200, "attempt {attempts}: {delay} ms");
            }
        }
    }

    #[test]
    fn jobs_that_failed_together_come_back_apart() {
        let delays: std::collections::HashSet<_> = (0..100).map(|random| backoff(1, random * 7919)).collect();
        assert!(delays.len() > 50, "{} different delays", delays.len());
    }
}
