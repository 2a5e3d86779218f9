//! The 95th percentile of five-minute rates: what a link is billed for that is sold by its peak.
//!
//! The billed time is cut into slots of five minutes; a slot in which nothing was used counts as zero. An entry's octets are
//! spread evenly over its time, and entries of accounts billed this way are kept by five minutes. The slots are sorted,
//! and the first one is taken that at least 95 % of them do not exceed, so that the highest twentieth costs nothing.

use super::facts::UsageEntry;
use super::measure::{overlap, part};
use super::tariff::Direction;
use crate::vocabulary::Timestamp;

/// Octets of the slot that 95 % of the slots do not exceed. `Max`: the larger of the two directions' own.
pub fn octets_of_peak(direction: Direction, coverage: &[(Timestamp, Timestamp)], entries: &[UsageEntry]) -> i128 {
    let mut slots: Vec<(i128, i128)> = Vec::new();
    for (from, until) in coverage {
        let first = slots.len();
        let length = until.as_microsecond() - from.as_microsecond();
        let count = usize::try_from((length + SLOT - 1) / SLOT).unwrap_or(0);
        slots.resize(first + count, (0, 0));
        for entry in entries {
            let Some((begins, ends)) = overlap(entry, *from, *until) else { continue };
            let slot_of = |at: Timestamp| (at.as_microsecond() - from.as_microsecond()) / SLOT;
            let edge = |slot: i64| Timestamp::from_microsecond(from.as_microsecond() + slot * SLOT);
            let mut slot = slot_of(begins);
            let mut at = begins;
            loop {
                let next = edge(slot + 1).unwrap_or(ends).min(ends);
                let place = &mut slots[first + usize::try_from(slot).expect("a slot of the coverage")];
                place.0 += part(i128::from(entry.in_octets), entry, (at, next));
                place.1 += part(i128::from(entry.out_octets), entry, (at, next));
                if next >= ends {
                    break;
                }
                (slot, at) = (slot + 1, next);
            }
        }
    }
    let of = |octets: fn(&(i128, i128)) -> i128| percentile(slots.iter().map(octets).collect());
    match direction {
        Direction::Up => of(|slot| slot.0),
        Direction::Down => of(|slot| slot.1),
        Direction::Sum => of(|slot| slot.0 + slot.1),
        Direction::Max => of(|slot| slot.0).max(of(|slot| slot.1)),
    }
}

/// The nearest rank: of n values in order the one at ⌈95 n / 100⌉, counted from 1.
fn percentile(mut values: Vec<i128>) -> i128 {
    values.sort_unstable();
    let rank = (values.len() * PERCENT).div_ceil(100);
    rank.checked_sub(1).map_or(0, |index| values[index])
}

/// Seconds of a slot: a rate is its octets · 8 / this.
pub const SLOT_SECONDS: i128 = 300;
const SLOT: i64 = 300_000_000;
const PERCENT: usize = 95;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_793_491_200 + second).expect("in range")
    }

    fn entry(from: i64, until: i64, down: i64) -> UsageEntry {
        UsageEntry {
            sequence: from,
            session: 1,
            class: None,
            call: None,
            from: at(from),
            until: at(until),
            in_octets: down / 10,
            out_octets: down,
            seconds: until - from,
            sessions: 0,
        }
    }

    #[test]
    fn highest_twentieth_of_the_slots_costs_nothing() {
        let coverage = [(at(0), at(100 * 300))];
        let mut entries: Vec<UsageEntry> = (0..100).map(|slot| entry(slot * 300, slot * 300 + 300, 1_000)).collect();
        for slot in 0..5 {
            entries[slot * 7].out_octets = 900_000;
        }
        assert_eq!(octets_of_peak(Direction::Down, &coverage, &entries), 1_000);
        entries[99].out_octets = 900_000;
        assert_eq!(octets_of_peak(Direction::Down, &coverage, &entries), 900_000);
        assert_eq!(octets_of_peak(Direction::Up, &coverage, &entries), 100);
        assert_eq!(octets_of_peak(Direction::Max, &coverage, &entries), 900_000);
        assert_eq!(octets_of_peak(Direction::Sum, &coverage, &entries), 900_100);
    }

    #[test]
    fn slots_without_usage_count_as_zero() {
        let entries = [entry(0, 300, 1_000), entry(600, 900, 1_000)];
        assert_eq!(octets_of_peak(Direction::Down, &[(at(0), at(40 * 300))], &entries), 0);
        assert_eq!(octets_of_peak(Direction::Down, &[(at(0), at(39 * 300))], &entries), 1_000, "38 of 39 are below");
        assert_eq!(octets_of_peak(Direction::Down, &[], &entries), 0);
    }

    proptest! {
        #![proptest_config(crate::vocabulary::cases(10_000))]

        /// Against the definition, computed the slow way; and an hour counts as its twelve slots do.
        #[test]
        fn percentile_is_the_nearest_rank(values in prop::collection::vec(0i64..50, 1..60)) {
            let coverage = [(at(0), at(300 * values.len() as i64))];
            let entries: Vec<UsageEntry> =
                values.iter().enumerate().map(|(slot, value)| entry(slot as i64 * 300, slot as i64 * 300 + 300, *value)).collect();
            let found = octets_of_peak(Direction::Down, &coverage, &entries);
            let below = values.iter().filter(|value| i128::from(**value) < found).count();
            let up_to = values.iter().filter(|value| i128::from(**value) <= found).count();
            prop_assert!(up_to * 100 >= values.len() * 95, "{} of {} are up to {}", up_to, values.len(), found);
            prop_assert!(below * 100 < values.len() * 95, "{} of {} are below {}", below, values.len(), found);
            let hour = entry(0, 3_600, values[0] * 12);
            let twelve: Vec<UsageEntry> = (0..12).map(|slot| entry(slot * 300, slot * 300 + 300, values[0])).collect();
            let day = [(at(0), at(7_200))];
            prop_assert_eq!(
                octets_of_peak(Direction::Down, &day, &[hour]),
                octets_of_peak(Direction::Down, &day, &twelve)
            );
        }
    }
}
