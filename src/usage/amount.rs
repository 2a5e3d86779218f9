//! Amounts of usage, and the buckets they fall into: quarter hours of UTC, cut also where billing periods begin.
//!
//! In: an amount and the stretch of time it was used in. Out: parts that always add up to it. Every zone in use is a
//! multiple of 15 minutes from UTC, so that quarters regroup exactly into the hours and days of any subscriber.

use super::FoldError;
use crate::vocabulary::{Timestamp, to_micros};

/// Octets, seconds and sessions; negative where an earlier entry is corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    pub in_octets: i64,
    pub out_octets: i64,
    pub seconds: i64,
    pub sessions: i64,
}

/// Usage that is not in the ledger yet, by the start of its bucket in microseconds, ascending. No bucket is zero.
///
/// A session has few of them and grows at the end, which a sorted vector holds best.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Buckets(Vec<(i64, Amount)>);

/// Usage of one ledger entry: at most one UTC hour, never across a period edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerBucket {
    pub from_at: i64,
    pub until_at: i64,
    pub amount: Amount,
}

impl Amount {
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// **Errors**: the sum leaves 64 bits: the record is quarantined, never clamped.
    pub fn plus(self, other: Self) -> Result<Self, FoldError> {
        let add = |a: i64, b: i64| a.checked_add(b).ok_or(FoldError::Overflow);
        Ok(Self {
            in_octets: add(self.in_octets, other.in_octets)?,
            out_octets: add(self.out_octets, other.out_octets)?,
            seconds: add(self.seconds, other.seconds)?,
            sessions: add(self.sessions, other.sessions)?,
        })
    }

    pub fn negated(self) -> Self {
        // Amounts begin as counters of at most i64::MAX, so that the negation fits.
        Self {
            in_octets: -self.in_octets,
            out_octets: -self.out_octets,
            seconds: -self.seconds,
            sessions: -self.sessions,
        }
    }
}

impl Buckets {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (i64, Amount)> + '_ {
        self.0.iter().copied()
    }

    pub fn add(&mut self, start: i64, amount: Amount) -> Result<(), FoldError> {
        match self.place(start) {
            Ok(at) => {
                let sum = self.0[at].1.plus(amount)?;
                if sum.is_zero() {
                    self.0.remove(at);
                } else {
                    self.0[at].1 = sum;
                }
            }
            Err(_) if amount.is_zero() => {}
            Err(at) => self.0.insert(at, (start, amount)),
        }
        Ok(())
    }

    pub fn merge(&mut self, other: &Buckets) -> Result<(), FoldError> {
        other.iter().try_for_each(|(start, amount)| self.add(start, amount))
    }

    /// The octets alone, without seconds and sessions.
    pub fn without_time(&self) -> Result<Self, FoldError> {
        let mut octets = Self::default();
        for (start, amount) in self.iter() {
            octets.add(start, Amount { seconds: 0, sessions: 0, ..amount })?;
        }
        Ok(octets)
    }

    /// Whether `merge` would succeed.
    pub(super) fn takes(&self, other: &Buckets) -> Result<(), FoldError> {
        other.iter().try_for_each(|(start, amount)| match self.place(start) {
            Ok(at) => self.0[at].1.plus(amount).map(drop),
            Err(_) => Ok(()),
        })
    }

    /// The sum of all buckets.
    pub fn total(&self) -> Result<Amount, FoldError> {
        self.iter().try_fold(Amount::default(), |sum, (_, amount)| sum.plus(amount))
    }

    fn place(&self, start: i64) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if *last < start => Err(self.0.len()),
            _ => self.0.binary_search_by_key(&start, |(start, _)| *start),
        }
    }

    /// Takes out what is ready for the ledger: whole hours (cut at `edges`) that start before `before`, and that end
    /// at or before `complete_until`.
    pub fn take(&mut self, before: i64, complete_until: i64, edges: &[Timestamp]) -> Vec<LedgerBucket> {
        let mut taken: Vec<LedgerBucket> = Vec::new();
        let mut kept = Vec::new();
        for (start, amount) in std::mem::take(&mut self.0) {
            let (from_at, until_at) = entry_bounds(start, edges);
            if start >= before || until_at > complete_until {
                kept.push((start, amount));
                continue;
            }
            match taken.last_mut() {
                Some(last) if last.from_at == from_at => match last.amount.plus(amount) {
                    Ok(sum) => last.amount = sum,
                    // A second entry for the same hour carries what one cannot hold.
                    Err(FoldError::Overflow) => taken.push(LedgerBucket { from_at, until_at, amount }),
                },
                _ => taken.push(LedgerBucket { from_at, until_at, amount }),
            }
        }
        self.0 = kept;
        taken.retain(|bucket| !bucket.amount.is_zero());
        taken
    }

    /// Adds `amount`, used evenly over `[from, until]`, cut at quarter hours and `edges`.
    ///
    /// The part before an instant t is floor(amount · (t − from) / (until − from)); a part is the difference of two of
    /// these. So any cutting adds up to `amount`, and cutting finer regroups to cutting coarser. A stretch without
    /// length counts as the moment before `until`.
    pub fn spread(&mut self, from: i64, until: i64, amount: Amount, edges: &[Timestamp]) -> Result<(), FoldError> {
        if amount.is_zero() {
            return Ok(());
        }
        if until <= from {
            return self.add(key_of(until - 1, QUARTER, edges), amount);
        }
        let grain = if until - from > FINE_SPAN { HOUR } else { QUARTER };
        let mut done = Amount::default();
        let mut at = from;
        while at < until {
            let cut = next_cut(at, grain, edges).min(until);
            let upto = amount.share(cut - from, until - from);
            self.add(key_of(at, grain, edges), upto.plus(done.negated())?)?;
            done = upto;
            at = cut;
        }
        Ok(())
    }
}

impl Amount {
    /// floor(self · part / whole), rounding towards minus infinity so that parts of either sign telescope.
    fn share(self, part: i64, whole: i64) -> Self {
        let floor = |value: i64| {
            let product = i128::from(value) * i128::from(part);
            i64::try_from(product.div_euclid(i128::from(whole))).expect("a share is no larger than the whole")
        };
        Self {
            in_octets: floor(self.in_octets),
            out_octets: floor(self.out_octets),
            seconds: floor(self.seconds),
            sessions: floor(self.sessions),
        }
    }
}

/// Start of the bucket that holds `at`.
pub(super) fn bucket_of(at: i64, edges: &[Timestamp]) -> i64 {
    key_of(at, QUARTER, edges)
}

/// Where the ledger entry of a bucket begins and ends.
pub fn entry_bounds(start: i64, edges: &[Timestamp]) -> (i64, i64) {
    (key_of(start, HOUR, edges), next_cut(start, HOUR, edges))
}

fn key_of(at: i64, grain: i64, edges: &[Timestamp]) -> i64 {
    let floor = at - at.rem_euclid(grain);
    let after = edges.partition_point(|edge| to_micros(*edge) <= at);
    match after.checked_sub(1).map(|index| to_micros(edges[index])) {
        Some(edge) => floor.max(edge),
        None => floor,
    }
}

fn next_cut(at: i64, grain: i64, edges: &[Timestamp]) -> i64 {
    let grid = at - at.rem_euclid(grain) + grain;
    let after = edges.partition_point(|edge| to_micros(*edge) <= at);
    edges.get(after).map_or(grid, |edge| grid.min(to_micros(*edge)))
}

/// One UTC hour in microseconds.
pub(super) const HOUR: i64 = 3_600_000_000;
const QUARTER: i64 = HOUR / 4;
/// Longer gaps between two reports are cut at hours only, to bound the number of buckets.
const FINE_SPAN: i64 = 7 * 24 * HOUR;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::vocabulary::from_micros;
    use proptest::prelude::*;

    fn at(micros: i64) -> Timestamp {
        from_micros(micros).expect("in range")
    }

    fn octets(in_octets: i64) -> Amount {
        Amount { in_octets, out_octets: in_octets / 3, seconds: 7, sessions: 0 }
    }

    #[test]
    fn usage_of_an_instant_belongs_to_the_moment_before_it() {
        let mut buckets = Buckets::default();
        buckets.spread(HOUR, HOUR, octets(9), &[]).expect("fits");
        assert_eq!(buckets.iter().map(|(start, _)| start).collect::<Vec<_>>(), vec![HOUR - QUARTER]);
    }

    #[test]
    fn an_edge_inside_a_quarter_splits_the_entry() {
        let edge = HOUR + QUARTER / 3;
        let mut buckets = Buckets::default();
        buckets.spread(HOUR, HOUR + QUARTER, octets(300), &[at(edge)]).expect("fits");
        let taken = buckets.take(i64::MAX, i64::MAX, &[at(edge)]);
        assert_eq!(
            taken.iter().map(|b| (b.from_at, b.until_at, b.amount.in_octets)).collect::<Vec<_>>(),
            vec![(HOUR, edge, 100), (edge, 2 * HOUR, 200)]
        );
    }

    #[test]
    fn only_complete_hours_leave() {
        let mut buckets = Buckets::default();
        buckets.spread(HOUR, 3 * HOUR, octets(800), &[]).expect("fits");
        let taken = buckets.take(i64::MAX, 2 * HOUR + QUARTER, &[]);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].amount.in_octets, 400);
        assert_eq!(buckets.total().expect("fits").in_octets, 400);
    }

    proptest! {
        #[test]
        fn cutting_at_more_edges_never_changes_sums(
            from in 0i64..40 * HOUR, length in 0i64..400 * HOUR, value in -5_000_000_000i64..5_000_000_000,
            cuts in proptest::collection::btree_set(0i64..500 * HOUR, 0..12),
        ) {
            let edges: Vec<Timestamp> = cuts.iter().map(|cut| at(*cut)).collect();
            let (mut plain, mut cut) = (Buckets::default(), Buckets::default());
            plain.spread(from, from + length, octets(value), &[]).expect("fits");
            cut.spread(from, from + length, octets(value), &edges).expect("fits");
            prop_assert_eq!(plain.total().expect("fits"), octets(value));
            prop_assert_eq!(cut.total().expect("fits"), octets(value));
            let hours = |buckets: &Buckets| {
                let mut sums = BTreeMap::<i64, i64>::new();
                for (start, amount) in buckets.iter() {
                    *sums.entry(start - start.rem_euclid(HOUR)).or_default() += amount.in_octets;
                }
                sums.retain(|_, sum| *sum != 0);
                sums
            };
            prop_assert_eq!(hours(&plain), hours(&cut));
        }
    }
}
