//! Counts a usage charge's quantity from ledger entries.
//!
//! An entry that straddles an edge of the billed time is spread over its own time by cumulative floor, so that any
//! cutting adds up to the entry.

use sha2::{Digest, Sha256};

use super::facts::UsageEntry;
use super::tariff::{Direction, Meter, Usage};
use crate::vocabulary::Timestamp;

/// What was counted, and the fingerprint of the entries it was counted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Octets, seconds or sessions.
    pub quantity: i128,
    pub sessions: i128,
    pub records: u64,
    /// SHA-256 over the entries in the order of their sequence.
    pub digest: String,
}

/// Counts what `charge` meters in the billed time.
pub fn count(charge: &Usage, coverage: &[(Timestamp, Timestamp)], entries: &[UsageEntry]) -> Counted {
    let mut sums = [0i128; 4];
    let mut hash = Sha256::new();
    let mut records = 0;
    let mut ordered: Vec<&UsageEntry> = entries.iter().collect();
    ordered.sort_by_key(|entry| entry.sequence);
    for entry in ordered {
        let counts = [entry.in_octets, entry.out_octets, entry.seconds];
        let mut inside = false;
        for (from, until) in coverage {
            let Some(window) = overlap(entry, *from, *until) else { continue };
            inside = true;
            for (sum, total) in sums.iter_mut().zip(counts) {
                *sum += part(total, entry, window);
            }
            if *from <= entry.from && entry.from < *until {
                sums[3] += i128::from(entry.sessions);
            }
        }
        if inside {
            records += 1;
            fingerprint(&mut hash, entry);
        }
    }
    let [up, down, seconds, sessions] = sums;
    let quantity = match (charge.meter, charge.direction) {
        (Meter::Octets, Direction::Up) => up,
        (Meter::Octets, Direction::Down) => down,
        (Meter::Octets, Direction::Sum) => up + down,
        (Meter::Octets, Direction::Max) => up.max(down),
        (Meter::Seconds, _) => seconds,
        (Meter::Sessions, _) => sessions,
    };
    let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Counted { quantity, sessions, records, digest }
}

/// Octets up and down in the billed time.
pub(super) fn octets(coverage: &[(Timestamp, Timestamp)], entries: &[UsageEntry]) -> [i128; 2] {
    let mut sums = [0i128; 2];
    for entry in entries {
        for window in coverage.iter().filter_map(|(from, until)| overlap(entry, *from, *until)) {
            sums[0] += part(entry.in_octets, entry, window);
            sums[1] += part(entry.out_octets, entry, window);
        }
    }
    sums
}

/// The part of the entry's time that lies in `[from, until)`. An entry without duration lies where it starts.
fn overlap(entry: &UsageEntry, from: Timestamp, until: Timestamp) -> Option<(Timestamp, Timestamp)> {
    if entry.from >= entry.until {
        return (from <= entry.from && entry.from < until).then_some((entry.from, entry.until));
    }
    let window = (entry.from.max(from), entry.until.min(until));
    (window.0 < window.1).then_some(window)
}

fn part(total: i64, entry: &UsageEntry, window: (Timestamp, Timestamp)) -> i128 {
    let total = i128::from(total);
    let length = i128::from(entry.until.as_microsecond() - entry.from.as_microsecond());
    if length <= 0 {
        return total;
    }
    let running = |at: Timestamp| total * i128::from(at.as_microsecond() - entry.from.as_microsecond()) / length;
    running(window.1) - running(window.0)
}

fn fingerprint(hash: &mut Sha256, entry: &UsageEntry) {
    let numbers = [
        entry.sequence,
        entry.from.as_microsecond(),
        entry.until.as_microsecond(),
        entry.in_octets,
        entry.out_octets,
        entry.seconds,
        entry.sessions,
    ];
    for number in numbers {
        hash.update(number.to_be_bytes());
    }
}
