//! Counts a usage charge's quantity from ledger entries.
//!
//! An entry that straddles an edge of the billed time is spread over its own time by cumulative floor, so that any
//! cutting adds up to the entry.

use sha2::{Digest, Sha256};

use super::facts::{PeriodSum, UsageEntry};
use super::tariff::{Direction, Meter, Usage};
use crate::usage::Fingerprint;
use crate::vocabulary::Timestamp;

/// What was counted, and the fingerprint of the entries it was counted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Octets, seconds or sessions.
    pub quantity: i128,
    pub sessions: i128,
    pub records: u64,
    /// The fingerprint of the entries, whatever their order.
    pub digest: String,
}

/// Counts what `charge` meters in the billed time.
pub fn count(charge: &Usage, coverage: &[(Timestamp, Timestamp)], entries: &[UsageEntry]) -> Counted {
    let mut sums = [0i128; 4];
    let mut fingerprint = Fingerprint::default();
    let mut records = 0;
    for entry in entries {
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
            fingerprint.add(Fingerprint::of(numbers(entry)));
        }
    }
    counted(charge, sums, records, fingerprint)
}

/// Counts from the sum of a period that is billed as a whole: the same as `count` gives for its entries.
pub fn count_sum(charge: &Usage, sum: &PeriodSum) -> Counted {
    let sums = [sum.in_octets, sum.out_octets, sum.seconds, sum.sessions];
    counted(charge, sums, sum.records, sum.fingerprint)
}

/// Whether the sum of a period is enough to count this charge; what looks at single entries says no here.
pub fn sum_suffices(charge: &Usage) -> bool {
    // Whoever adds a key decides here.
    let Usage {
        meter: Meter::Octets | Meter::Seconds | Meter::Sessions,
        direction: _,
        unit: _,
        quantize: _,
        allowance: _,
        model: _,
        block: _,
        minimum: _,
        maximum: _,
        prorate_tiers: _,
    } = charge;
    true
}

/// The digest of the entries in the form of lines before sums were kept: SHA-256 in the order of their sequence.
pub fn first_digest(coverage: &[(Timestamp, Timestamp)], entries: &[UsageEntry]) -> String {
    let inside = |entry: &&UsageEntry| coverage.iter().any(|(from, until)| overlap(entry, *from, *until).is_some());
    let mut ordered: Vec<&UsageEntry> = entries.iter().filter(inside).collect();
    ordered.sort_by_key(|entry| entry.sequence);
    let mut hash = Sha256::new();
    for number in ordered.into_iter().flat_map(numbers) {
        hash.update(number.to_be_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn counted(charge: &Usage, [up, down, seconds, sessions]: [i128; 4], records: u64, print: Fingerprint) -> Counted {
    let quantity = match (charge.meter, charge.direction) {
        (Meter::Octets, Direction::Up) => up,
        (Meter::Octets, Direction::Down) => down,
        (Meter::Octets, Direction::Sum) => up + down,
        (Meter::Octets, Direction::Max) => up.max(down),
        (Meter::Seconds, _) => seconds,
        (Meter::Sessions, _) => sessions,
    };
    Counted { quantity, sessions, records, digest: print.digest(records) }
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

fn numbers(entry: &UsageEntry) -> [i64; 7] {
    [
        entry.sequence,
        entry.from.as_microsecond(),
        entry.until.as_microsecond(),
        entry.in_octets,
        entry.out_octets,
        entry.seconds,
        entry.sessions,
    ]
}
