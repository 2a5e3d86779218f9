//! What an answer means, and when an event is sent again.
//!
//! Only 2xx is success. A redirect is a failure and is never followed; 410 ends the endpoint; 429, 502, 504 and Retry-After
//! ask for a pause of everything. What failed is tried ten times over three days, then put aside for a person.
//!
//! **Source**: Standard Webhooks 1.0.0, "Operational considerations".

use std::time::Duration;

use crate::vocabulary::Timestamp;

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The receiver answered with a status, and may have said when to come back.
    Status { code: u16, retry_after: Option<Duration> },
    /// It did not answer; why, for a person.
    Failed(String),
    /// It did, and what it would take can never be right: for a person.
    Refused(String),
    /// It has it; the answer knows no status.
    Taken,
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// Again at `at`; the whole outlet waits until `pause`.
    Again {
        at: Timestamp,
        pause: Option<Timestamp>,
    },
    /// A person must look.
    Dead,
    /// The endpoint is gone for good; the event stays, should somebody enable it again.
    Gone,
}

/// Pauses after the first attempt, the second and so on. Together with the first this is ten attempts in 75 hours.
const PAUSES: [Duration; 9] = [
    seconds(5),
    seconds(5 * 60),
    seconds(30 * 60),
    seconds(2 * 3600),
    seconds(5 * 3600),
    seconds(10 * 3600),
    seconds(14 * 3600),
    seconds(20 * 3600),
    seconds(24 * 3600),
];
/// A pause is up to this part longer, so that what failed together does not come back together.
const JITTER: f64 = 0.2;
/// A receiver may not put us off for longer.
const RETRY_AFTER_MAX: Duration = seconds(24 * 3600);
/// The pause of an outlet whose receiver is overloaded and does not say until when: doubled with each failure in a row.
const SLOW_FIRST: Duration = seconds(1);
const SLOW_MAX: Duration = seconds(300);

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Judges an attempt. `attempts` counts this one too; `failures` are those of the outlet in a row; `random` is from 0 to 1.
pub fn judge(answer: &Answer, attempts: i64, failures: i64, now: Timestamp, random: f64) -> Verdict {
    let (code, retry_after) = match answer {
        Answer::Taken => return Verdict::Delivered,
        Answer::Refused(_) => return Verdict::Dead,
        Answer::Status { code: 200..=299, .. } => return Verdict::Delivered,
        Answer::Status { code: 410, .. } => return Verdict::Gone,
        Answer::Status { code, retry_after } => (Some(*code), *retry_after),
        Answer::Failed(_) => (None, None),
    };
    let index = usize::try_from(attempts.max(1) - 1).unwrap_or(usize::MAX);
    let Some(pause) = PAUSES.get(index) else { return Verdict::Dead };
    let retry_after = retry_after.map(|asked| asked.min(RETRY_AFTER_MAX));
    let overloaded = matches!(code, Some(429 | 502 | 504));
    let slow = match (retry_after, overloaded) {
        (Some(asked), _) => Some(asked),
        (None, true) => {
            let doubled = 2u32.saturating_pow(u32::try_from(failures.clamp(0, 16)).unwrap_or(0));
            Some(SLOW_FIRST.saturating_mul(doubled).min(SLOW_MAX))
        }
        (None, false) => None,
    };
    let pause = pause.mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0)).max(slow.unwrap_or_default());
    Verdict::Again { at: later(now, pause), pause: slow.map(|slow| later(now, slow)) }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-01T00:00:00Z".parse().expect("an instant")
    }

    fn status(code: u16) -> Answer {
        Answer::Status { code, retry_after: None }
    }

    #[test]
    fn what_fails_is_tried_ten_times_over_three_days() {
        let (mut at, mut attempts) = (now(), 1);
        let mut waited = Vec::new();
        while let Verdict::Again { at: next, .. } = judge(&status(500), attempts, 0, at, 0.0) {
            waited.push(next.duration_since(at).as_secs());
            (at, attempts) = (next, attempts + 1);
        }
        assert_eq!(waited, [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]);
        assert_eq!(attempts, 10, "the tenth was the last");
        let days = at.duration_since(now()).as_secs() / 86_400;
        assert_eq!(days, 3);
    }

    #[test]
    fn jitter_only_lengthens() {
        for (random, least, most) in [(0.0, 5_000, 5_000), (0.5, 5_400, 5_600), (1.0, 6_000, 6_000)] {
            let Verdict::Again { at, .. } = judge(&status(500), 1, 0, now(), random) else { panic!("again") };
            let waited = at.duration_since(now()).as_millis();
            assert!((least..=most).contains(&waited), "{random}: {waited}");
        }
    }

    #[test]
    fn an_answer_decides() {
        for code in [200, 201, 202, 204, 299] {
            assert_eq!(judge(&status(code), 1, 0, now(), 0.0), Verdict::Delivered, "{code}");
        }
        for code in [100, 301, 302, 307, 308, 400, 401, 404, 409, 500, 503] {
            assert!(matches!(judge(&status(code), 1, 0, now(), 0.0), Verdict::Again { pause: None, .. }), "{code}");
        }
        assert_eq!(judge(&status(410), 3, 0, now(), 0.0), Verdict::Gone);
        assert_eq!(judge(&Answer::Failed("no answer".into()), 10, 0, now(), 0.0), Verdict::Dead);
        assert_eq!(judge(&Answer::Refused("no such mailbox".into()), 1, 0, now(), 0.0), Verdict::Dead);
    }

    #[test]
    fn an_overloaded_receiver_is_left_alone() {
        let pause = |answer: &Answer, failures| match judge(answer, 1, failures, now(), 0.0) {
            Verdict::Again { at, pause } => {
                let seconds = |until: Timestamp| until.duration_since(now()).as_secs();
                (seconds(at), pause.map(seconds))
            }
            other => panic!("{other:?}"),
        };
        for code in [429, 502, 504] {
            assert_eq!(pause(&status(code), 0), (5, Some(1)), "{code}");
            assert_eq!(pause(&status(code), 4), (16, Some(16)), "{code}");
            assert_eq!(pause(&status(code), 40), (300, Some(300)), "{code}");
        }
        let asked = |code, seconds| Answer::Status { code, retry_after: Some(Duration::from_secs(seconds)) };
        assert_eq!(pause(&asked(503, 120), 0), (120, Some(120)));
        assert_eq!(pause(&asked(429, 2), 0), (5, Some(2)));
        assert_eq!(pause(&asked(429, 10_000_000), 0), (86_400, Some(86_400)), "nobody puts us off for ever");
    }
}
