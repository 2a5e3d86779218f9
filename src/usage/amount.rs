//! Amounts of usage, and the buckets they fall into: quarter hours of UTC, cut also where billing periods and windows begin.
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

/// Where usage is cut besides at whole hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cuts<'a> {
    /// Starts of billing periods, and edges of windows; ascending.
    pub at: &'a [Timestamp],
    /// Every five minutes: the account is billed for its peak rate.
    pub fine: bool,
}

/// Usage of one ledger entry: at most one UTC hour, never across a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerBucket {
    pub from_at: i64,
    pub until_at: i64,
    pub amount: Amount,
}

/// Sums of amounts over any time and any number of sessions: 128 bits hold them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wide {
    pub in_octets: i128,
    pub out_octets: i128,
    pub seconds: i128,
    pub sessions: i128,
}

impl Wide {
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// As many 64-bit amounts as a database can hold are far from the end of 128 bits.
    pub fn plus(self, other: Self) -> Self {
        Self {
            in_octets: self.in_octets + other.in_octets,
            out_octets: self.out_octets + other.out_octets,
            seconds: self.seconds + other.seconds,
            sessions: self.sessions + other.sessions,
        }
    }
}

impl From<Amount> for Wide {
    fn from(amount: Amount) -> Self {
        Self {
            in_octets: amount.in_octets.into(),
            out_octets: amount.out_octets.into(),
            seconds: amount.seconds.into(),
            sessions: amount.sessions.into(),
        }
    }
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

    /// Takes out what is ready for the ledger: whole hours (cut at `cuts`) that start before `before`, and that end
    /// at or before `complete_until`.
    pub fn take(&mut self, before: i64, complete_until: i64, cuts: Cuts<'_>) -> Vec<LedgerBucket> {
        let mut taken: Vec<LedgerBucket> = Vec::new();
        let mut kept = Vec::new();
        for (start, amount) in std::mem::take(&mut self.0) {
            let (from_at, until_at) = entry_bounds(start, cuts);
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

    /// Adds `amount`, used evenly over `[from, until]`, cut at quarter hours and `cuts`.
    ///
    /// The part before an instant t is amount · (t − from) / (until − from), cut towards zero; a part is the difference
    /// of two of these. So any cutting adds up to `amount`, and cutting finer regroups to cutting coarser. A stretch without
    /// length counts as the moment before `until`.
    pub fn spread(&mut self, from: i64, until: i64, amount: Amount, cuts: Cuts<'_>) -> Result<(), FoldError> {
        if amount.is_zero() {
            return Ok(());
        }
        if until <= from {
            return self.add(bucket_of(until - 1, cuts), amount);
        }
        let grain = if until - from > FINE_SPAN { cuts.entry() } else { cuts.bucket() };
        let mut done = Amount::default();
        let mut at = from;
        while at < until {
            let cut = next_cut(at, grain, cuts.at).min(until);
            let upto = amount.share(cut - from, until - from);
            self.add(key_of(at, grain, cuts.at), upto.plus(done.negated())?)?;
            done = upto;
            at = cut;
        }
        Ok(())
    }

    /// Takes back what a ledger entry holds, spread over its time as whoever counts it spreads it.
    pub fn take_back(&mut self, entry: &LedgerBucket, cuts: Cuts<'_>) -> Result<(), FoldError> {
        if entry_bounds(entry.from_at, cuts).1 >= entry.until_at {
            return self.add(entry.from_at, entry.amount.negated());
        }
        // It was written before it was known that it must be cut here.
        self.spread(entry.from_at, entry.until_at, Amount { sessions: 0, ..entry.amount }.negated(), cuts)?;
        self.add(entry.from_at, Amount { sessions: -entry.amount.sessions, ..Amount::default() })
    }
}

impl<'a> Cuts<'a> {
    pub const NONE: Cuts<'static> = Cuts { at: &[], fine: false };

    pub fn at(at: &'a [Timestamp]) -> Self {
        Self { at, fine: false }
    }

    /// Nobody's cuts: ledger entries are whole hours.
    pub fn is_none(self) -> bool {
        self.at.is_empty() && !self.fine
    }

    fn bucket(self) -> i64 {
        if self.fine { FIVE_MINUTES } else { QUARTER }
    }

    fn entry(self) -> i64 {
        if self.fine { FIVE_MINUTES } else { HOUR }
    }
}

impl Amount {
    /// self · part / whole, cut towards zero, so that an amount and its opposite cancel part by part.
    fn share(self, part: i64, whole: i64) -> Self {
        let share = |value: i64| {
            let product = i128::from(value) * i128::from(part);
            i64::try_from(product / i128::from(whole)).expect("a share is no larger than the whole")
        };
        Self {
            in_octets: share(self.in_octets),
            out_octets: share(self.out_octets),
            seconds: share(self.seconds),
            sessions: share(self.sessions),
        }
    }
}

/// Start of the bucket that holds `at`.
pub(super) fn bucket_of(at: i64, cuts: Cuts<'_>) -> i64 {
    key_of(at, cuts.bucket(), cuts.at)
}

/// Where the ledger entry of a bucket begins and ends.
pub fn entry_bounds(start: i64, cuts: Cuts<'_>) -> (i64, i64) {
    (key_of(start, cuts.entry(), cuts.at), next_cut(start, cuts.entry(), cuts.at))
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
pub(super) const QUARTER: i64 = HOUR / 4;
const FIVE_MINUTES: i64 = HOUR / 12;
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
        buckets.spread(HOUR, HOUR, octets(9), Cuts::NONE).expect("fits");
        assert_eq!(buckets.iter().map(|(start, _)| start).collect::<Vec<_>>(), vec![HOUR - QUARTER]);
    }

    #[test]
    fn an_edge_inside_a_quarter_splits_the_entry() {
        let edge = HOUR + QUARTER / 3;
        let mut buckets = Buckets::default();
        buckets.spread(HOUR, HOUR + QUARTER, octets(300), Cuts::at(&[at(edge)])).expect("fits");
        let taken = buckets.take(i64::MAX, i64::MAX, Cuts::at(&[at(edge)]));
        assert_eq!(
            taken.iter().map(|b| (b.from_at, b.until_at, b.amount.in_octets)).collect::<Vec<_>>(),
            vec![(HOUR, edge, 100), (edge, 2 * HOUR, 200)]
        );
    }

    #[test]
    fn only_complete_hours_leave() {
        let mut buckets = Buckets::default();
        buckets.spread(HOUR, 3 * HOUR, octets(800), Cuts::NONE).expect("fits");
        let taken = buckets.take(i64::MAX, 2 * HOUR + QUARTER, Cuts::NONE);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].amount.in_octets, 400);
        assert_eq!(buckets.total().expect("fits").in_octets, 400);
    }

    #[test]
    fn peaks_are_kept_by_five_minutes() {
        let fine = Cuts { at: &[], fine: true };
        let mut buckets = Buckets::default();
        buckets.spread(HOUR, HOUR + QUARTER, octets(300), fine).expect("fits");
        let taken = buckets.take(i64::MAX, i64::MAX, fine);
        assert_eq!(
            taken.iter().map(|b| (b.until_at - b.from_at, b.amount.in_octets)).collect::<Vec<_>>(),
            [(FIVE_MINUTES, 100); 3]
        );
    }

    #[test]
    fn entry_from_before_a_cut_is_taken_back_as_it_is_counted() {
        let edge = [at(HOUR + HOUR / 2)];
        let mut fresh = Buckets::default();
        fresh.add(HOUR, octets(10)).expect("fits");
        fresh.add(HOUR + HOUR / 2, octets(90)).expect("fits");
        let written = LedgerBucket { from_at: HOUR, until_at: 2 * HOUR, amount: octets(100) };
        fresh.take_back(&written, Cuts::at(&edge)).expect("fits");
        let taken = fresh.take(i64::MAX, i64::MAX, Cuts::at(&edge));
        // With the entry's own halves, 50 and 50, these make 10 and 90.
        assert_eq!(taken.iter().map(|entry| entry.amount.in_octets).collect::<Vec<_>>(), [-40, 40]);
    }

    proptest! {
        #[test]
        fn cutting_at_more_edges_never_changes_sums(
            from in 0i64..40 * HOUR, length in 0i64..400 * HOUR, value in -5_000_000_000i64..5_000_000_000,
            cuts in proptest::collection::btree_set(0i64..500 * HOUR, 0..12),
        ) {
            let edges: Vec<Timestamp> = cuts.iter().map(|cut| at(*cut)).collect();
            let (mut plain, mut cut) = (Buckets::default(), Buckets::default());
            plain.spread(from, from + length, octets(value), Cuts::NONE).expect("fits");
            cut.spread(from, from + length, octets(value), Cuts::at(&edges)).expect("fits");
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
