//! Allowances that are more than one item's own: pooled over services, rolled over into later periods, or topped up.
//!
//! In: what each member of one period has of its own and has used, what was carried there, and the top-ups that may be
//! used in it. Out: what each may use, out of which bucket, and what is carried on. A member uses its own allowance first;
//! what is left of everybody's, what was carried and what was topped up goes to those that need more, in the order of the
//! members. **Buckets are used up in the order in which they expire**; of those that expire with the same period first
//! what was carried, then the period's own, then top-ups in the order they were made. What is carried into a period beyond
//! `max` is lost, the earliest to expire first; top-ups know no `max`. A top-up counts for all of the periods it may be
//! used in, whenever in them it was made; what another cycle's periods have used of one is not there. So all of it follows
//! from the periods' sums alone: no order of the records changes it, and late usage moves it on through the later periods.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lines::Ratio;
use super::tariff::Rollover;
use crate::vocabulary::{Exact, ExactError};

/// One item of a period that takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its own allowance of the period.
    pub own: Exact,
    /// What was used of it, quantized.
    pub quantity: Exact,
}

/// A top-up that may be used in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usable {
    pub id: String,
    /// The last period it may be used in, as the cycle counts periods.
    pub until: i64,
    pub amount: Exact,
    /// What periods of other cycles have used of it.
    pub elsewhere: Exact,
}

/// Unused allowance on its way into later periods, as a line keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carry {
    /// The period it is left from, as the cycle counts periods.
    pub period: i64,
    /// By the last period it may be used in, ascending.
    pub left: Vec<Left>,
    /// What is left of top-ups that may still be used, those that are used up included: one that is not here was never
    /// used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granted: Vec<GrantLeft>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub until: i64,
    pub amount: Ratio,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantLeft {
    pub id: String,
    pub amount: Ratio,
    /// What periods of other cycles had of what this cycle's have not used; `amount` is without it.
    #[serde(default, skip_serializing_if = "Ratio::is_zero")]
    pub elsewhere: Ratio,
}

/// What one period makes of what was carried into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Allowance each member uses.
    pub used: Vec<Exact>,
    /// What was there from earlier periods, without top-ups.
    pub carried_in: Exact,
    /// All there was: the members' own, carried and topped up.
    pub available: Exact,
    /// What all members used, within what was there or not.
    pub wanted: Exact,
    /// In the order in which they are used up.
    pub buckets: Vec<Bucket>,
    pub carry: Carry,
}

/// A part of what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub source: Source,
    /// The last period it may be used in.
    pub until: i64,
    pub amount: Exact,
    pub used: Exact,
}

/// Where a bucket comes from, in the order in which those that expire together are used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Carried,
    /// The members' allowance of the period itself.
    Own,
    Grant(String),
}

impl Bucket {
    pub fn left(&self) -> Result<Exact, ExactError> {
        self.amount.checked_sub(self.used)
    }
}

impl Carry {
    /// Nothing is carried from wherever it comes.
    pub fn or_nothing(self) -> Self {
        if self.is_empty() { Self::default() } else { self }
    }

    pub fn is_empty(&self) -> bool {
        self.left.is_empty() && self.granted.is_empty()
    }

    /// Whether later periods go on from it as from the other: what other cycles have of a top-up by now is asked anew.
    pub fn goes_on_as(&self, other: &Self) -> bool {
        let rests = |carry: &Self| -> Result<Vec<(String, Exact)>, ExactError> {
            carry.granted.iter().map(|left| Ok((left.id.clone(), left.rest()?))).collect()
        };
        let same = rests(self).ok().is_some_and(|own| rests(other).is_ok_and(|others| own == others));
        (self.period, &self.left) == (other.period, &other.left) && same
    }

    /// What of it a period can go on from: what has not expired, and these top-ups.
    pub fn reaching(&self, period: i64, is_usable: &dyn Fn(&str) -> bool) -> Self {
        let left = self.left.iter().copied().filter(|left| left.until >= period).collect();
        let granted = self.granted.iter().filter(|left| is_usable(&left.id)).cloned().collect();
        Self { period: 0, left, granted }
    }
}

impl GrantLeft {
    /// What the periods of this cycle have not used of it.
    fn rest(&self) -> Result<Exact, ExactError> {
        self.amount.0.checked_add(self.elsewhere.0)
    }
}

/// Shares out one period. `rollover`: how what is left is carried on; `None`: not at all. `grants`: the top-ups that may
/// be used in this period, in the order they were made.
pub fn share(
    before: &Carry,
    period: i64,
    rollover: Option<Rollover>,
    members: &[Member],
    grants: &[Usable],
) -> Result<Shared, ExactError> {
    let carried = match rollover {
        Some(rollover) => carried_into(before, period, rollover)?,
        None => Vec::new(),
    };
    let carried_in = sum(carried.iter().map(|left| left.amount.0))?;
    let fresh = sum(members.iter().map(|member| member.own))?;
    let own_until = period + rollover.map_or(0, |rollover| i64::from(rollover.expires_cycles));
    let mut buckets: Vec<Bucket> = carried
        .iter()
        .map(|left| (Source::Carried, left.until, left.amount.0))
        .chain([(Source::Own, own_until, fresh)])
        .map(|(source, until, amount)| Bucket { source, until, amount, used: Exact::ZERO })
        .collect();
    let mut rests: BTreeMap<&str, Exact> = BTreeMap::new();
    for grant in grants {
        let rest = rest_of(before, grant)?;
        let amount = rest.checked_sub(grant.elsewhere)?.max(Exact::ZERO);
        buckets.push(Bucket { source: Source::Grant(grant.id.clone()), until: grant.until, amount, used: Exact::ZERO });
        rests.insert(&grant.id, rest);
    }
    // Stable: those that expire together stay in the order of their sources.
    buckets.sort_by_key(|bucket| bucket.until);
    let available = sum(buckets.iter().map(|bucket| bucket.amount))?;
    let used = shares(members, available, fresh)?;
    let mut open = sum(used.iter().copied())?;
    for bucket in &mut buckets {
        bucket.used = open.min(bucket.amount);
        open = open.checked_sub(bucket.used)?;
    }
    let mut carry = Carry { period, ..Carry::default() };
    for bucket in &buckets {
        let amount = Ratio(bucket.left()?);
        match &bucket.source {
            Source::Own if rollover.is_none() => {}
            Source::Carried | Source::Own if amount.0.is_zero() => {}
            Source::Carried | Source::Own => carry.left.push(Left { until: bucket.until, amount }),
            Source::Grant(_) if bucket.until <= period => {}
            Source::Grant(id) => {
                let rest = rests.get(id.as_str()).copied().unwrap_or(bucket.amount);
                let elsewhere = Ratio(rest.checked_sub(bucket.amount)?);
                carry.granted.push(GrantLeft { id: id.clone(), amount, elsewhere });
            }
        }
    }
    let wanted = sum(members.iter().map(|member| member.quantity))?;
    Ok(Shared { used, carried_in, available, wanted, buckets, carry })
}

/// What each member uses of what is there: its own first, the rest in their order.
fn shares(members: &[Member], available: Exact, fresh: Exact) -> Result<Vec<Exact>, ExactError> {
    let mut used = Vec::with_capacity(members.len());
    let mut rest = available.checked_sub(fresh)?;
    for member in members {
        let own = member.own.min(member.quantity);
        rest = rest.checked_add(member.own.checked_sub(own)?)?;
        used.push(own);
    }
    for (used, member) in used.iter_mut().zip(members) {
        let more = member.quantity.checked_sub(*used)?.min(rest);
        rest = rest.checked_sub(more)?;
        *used = used.checked_add(more)?;
    }
    Ok(used)
}

/// What the periods of this cycle before this one have not used of a top-up.
fn rest_of(before: &Carry, grant: &Usable) -> Result<Exact, ExactError> {
    let known = before.granted.iter().find(|left| left.id == grant.id);
    known.map_or(Ok(grant.amount), GrantLeft::rest)
}

/// What of it has not expired and is within `max`.
fn carried_into(before: &Carry, period: i64, rollover: Rollover) -> Result<Vec<Left>, ExactError> {
    let mut left: Vec<Left> = before.left.iter().copied().filter(|left| left.until >= period).collect();
    left.sort_by_key(|left| left.until);
    let mut beyond = sum(left.iter().map(|left| left.amount.0))?.checked_sub(rollover.max)?.max(Exact::ZERO);
    for carried in &mut left {
        let lost = beyond.min(carried.amount.0);
        beyond = beyond.checked_sub(lost)?;
        carried.amount = Ratio(carried.amount.0.checked_sub(lost)?);
    }
    Ok(left)
}

fn sum(amounts: impl IntoIterator<Item = Exact>) -> Result<Exact, ExactError> {
    amounts.into_iter().try_fold(Exact::ZERO, Exact::checked_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(number: i64) -> Exact {
        Exact::from_int(i128::from(number))
    }

    fn member(own: i64, quantity: i64) -> Member {
        Member { own: whole(own), quantity: whole(quantity) }
    }

    fn numbers(amounts: &[Exact]) -> Vec<i128> {
        amounts.iter().map(|amount| amount.floor()).collect()
    }

    const ONE_CYCLE: fn() -> Rollover = || Rollover { max: whole(50), expires_cycles: 1 };

    #[test]
    fn own_allowance_goes_first_and_the_rest_to_whoever_needs_more() {
        let members = [member(100, 250), member(100, 30), member(100, 150)];
        let shared = share(&Carry::default(), 7, None, &members, &[]).expect("in range");
        assert_eq!(numbers(&shared.used), [170, 30, 100]);
        assert_eq!(shared.carry.left, []);
    }

    #[test]
    fn unused_allowance_is_carried_up_to_its_limit_and_used_first() {
        let first = share(&Carry::default(), 1, Some(ONE_CYCLE()), &[member(100, 30)], &[]).expect("in range");
        assert_eq!(first.carry.left, [Left { until: 2, amount: Ratio(whole(70)) }]);
        let second = share(&first.carry, 2, Some(ONE_CYCLE()), &[member(100, 120)], &[]).expect("in range");
        assert_eq!((second.carried_in, numbers(&second.used)), (whole(50), vec![120]));
        assert_eq!(second.carry.left, [Left { until: 3, amount: Ratio(whole(30)) }]);
        let third = share(&second.carry, 4, Some(ONE_CYCLE()), &[member(100, 120)], &[]).expect("in range");
        assert_eq!((third.carried_in, numbers(&third.used)), (whole(0), vec![100]), "it has expired");
    }

    #[test]
    fn what_expires_first_is_used_first_and_lost_first() {
        let rollover = Rollover { max: whole(50), expires_cycles: 3 };
        let before = Carry {
            period: 4,
            left: vec![Left { until: 7, amount: Ratio(whole(40)) }, Left { until: 5, amount: Ratio(whole(30)) }],
            ..Carry::default()
        };
        let shared = share(&before, 5, Some(rollover), &[member(10, 15)], &[]).expect("in range");
        // 20 of the 30 are lost, the other 10 are used, then 5 of the 40; nothing of the period's own.
        let left = [Left { until: 7, amount: Ratio(whole(35)) }, Left { until: 8, amount: Ratio(whole(10)) }];
        assert_eq!(shared.carry.left, left);
    }

    fn granted(id: &str, until: i64, amount: i64) -> Usable {
        Usable { id: id.to_owned(), until, amount: whole(amount), elsewhere: Exact::ZERO }
    }

    fn shown(buckets: &[Bucket]) -> Vec<String> {
        let name = |source: &Source| match source {
            Source::Carried => "carried".to_owned(),
            Source::Own => "own".to_owned(),
            Source::Grant(id) => id.clone(),
        };
        buckets.iter().map(|bucket| format!("{} {} of {}", name(&bucket.source), bucket.used, bucket.amount)).collect()
    }

    #[test]
    fn buckets_are_used_up_in_the_order_in_which_they_expire() {
        let before = Carry {
            period: 4,
            left: vec![Left { until: 5, amount: Ratio(whole(10)) }],
            granted: vec![GrantLeft { id: "old".to_owned(), amount: Ratio(whole(7)), elsewhere: Ratio::default() }],
        };
        let rollover = Some(Rollover { max: whole(50), expires_cycles: 2 });
        let grants = [granted("old", 5, 30), granted("long", 9, 40), granted("short", 6, 20)];
        let shared = share(&before, 5, rollover, &[member(100, 132)], &grants).expect("in range");
        assert_eq!(
            shown(&shared.buckets),
            ["carried 10 of 10", "old 7 of 7", "short 20 of 20", "own 95 of 100", "long 0 of 40"]
        );
        assert_eq!(shared.carry.left, [Left { until: 7, amount: Ratio(whole(5)) }]);
        let left: Vec<(&str, i128)> =
            shared.carry.granted.iter().map(|left| (left.id.as_str(), left.amount.0.floor())).collect();
        // What is used up is remembered as long as it might be taken for new; what expires here is gone.
        assert_eq!(left, [("short", 0), ("long", 40)]);
        // Without rollover the period's own goes first.
        let alone = share(&Carry::default(), 5, None, &[member(100, 130)], &[granted("boost", 5, 50)]);
        assert_eq!(shown(&alone.expect("in range").buckets), ["own 100 of 100", "boost 30 of 50"]);
    }

    proptest! {
        #![proptest_config(crate::vocabulary::cases(10_000))]

        /// Over any number of periods: own + granted = used + left + expired, each top-up is used at most once and only
        /// in its time, and nobody goes without while there is some left.
        #[test]
        fn topped_up_allowance_is_conserved_over_periods(
            periods in prop::collection::vec(prop::collection::vec((0i64..100, 0i64..200), 1..4), 1..7),
            grants in prop::collection::vec((0i64..6, 0i64..4, 1i64..300), 0..5),
            max in prop::option::of(0i64..150), expires_cycles in 1u32..4,
        ) {
            let total = |amounts: Vec<Exact>| sum(amounts).expect("in range");
            let plus = |a: Exact, b: Exact| a.checked_add(b).expect("in range");
            let minus = |a: Exact, b: Exact| a.checked_sub(b).expect("in range");
            let on_its_way = |carry: &Carry| {
                let left = carry.left.iter().map(|left| left.amount.0);
                total(left.chain(carry.granted.iter().map(|left| left.amount.0)).collect())
            };
            let rollover = max.map(|max| Rollover { max: whole(max), expires_cycles });
            let mut carry = Carry::default();
            let (mut put_in, mut taken, mut expired) = (Exact::ZERO, Exact::ZERO, Exact::ZERO);
            let mut of_grants = vec![Exact::ZERO; grants.len()];
            for (period, members) in (0i64..).zip(&periods) {
                let members: Vec<Member> = members.iter().map(|(own, quantity)| member(*own, *quantity)).collect();
                let known = grants.iter().enumerate();
                let here: Vec<Usable> = known
                    .filter(|(_, (from, more, _))| *from <= period && period <= from + more)
                    .map(|(index, (from, more, amount))| granted(&index.to_string(), from + more, *amount))
                    .collect();
                let new = grants.iter().filter(|(from, _, _)| *from == period).map(|(_, _, amount)| whole(*amount));
                let own = members.iter().map(|member| member.own);
                put_in = plus(put_in, total(own.chain(new).collect()));
                let shared = share(&carry, period, rollover, &members, &here).expect("in range");
                let used = total(shared.used.clone());
                taken = plus(taken, used);
                prop_assert_eq!(used, shared.available.min(shared.wanted));
                prop_assert_eq!(used, total(shared.buckets.iter().map(|bucket| bucket.used).collect()));
                prop_assert!(shared.buckets.is_sorted_by_key(|bucket| bucket.until));
                // A later bucket is touched only when all before it are empty.
                let touched = shared.buckets.iter().rposition(|bucket| !bucket.used.is_zero()).unwrap_or(0);
                prop_assert!(shared.buckets[..touched].iter().all(|bucket| bucket.used == bucket.amount));
                for bucket in &shared.buckets {
                    if let Source::Grant(id) = &bucket.source {
                        let sum = &mut of_grants[id.parse::<usize>().expect("an index")];
                        *sum = plus(*sum, bucket.used);
                    }
                }
                // What was carried beyond `max` or its time, and what may not be used after this period.
                let still = |left: &&Left| left.until >= period && rollover.is_some();
                let live = total(carry.left.iter().filter(still).map(|left| left.amount.0).collect());
                let all = total(carry.left.iter().map(|left| left.amount.0).collect());
                let lost = minus(live, max.map_or(Exact::ZERO, whole)).max(Exact::ZERO);
                let ends_here = |bucket: &&Bucket| match bucket.source {
                    Source::Own => rollover.is_none(),
                    Source::Carried => false,
                    Source::Grant(_) => bucket.until == period,
                };
                let ended = shared.buckets.iter().filter(ends_here).map(|bucket| bucket.left().expect("in range"));
                expired = [minus(all, live), lost].into_iter().chain(ended).fold(expired, plus);
                carry = shared.carry;
                prop_assert_eq!(put_in, plus(taken, plus(on_its_way(&carry), expired)));
            }
            for (used, (_, _, amount)) in of_grants.iter().zip(&grants) {
                prop_assert!(*used <= whole(*amount), "a top-up of {} gave {}", amount, used);
            }
        }

        /// Nothing is lost or made: carried + own = used + carried on; nobody uses more than was used, and nobody goes
        /// without while there is some left.
        #[test]
        fn allowance_is_conserved(
            left in prop::collection::vec((5i64..9, 0i64..100), 0..4),
            members in prop::collection::vec((0i64..200, 0i64..300), 1..5),
            max in 0i64..300, expires_cycles in 1u32..5,
        ) {
            let left = left.into_iter().map(|(until, amount)| Left { until, amount: Ratio(whole(amount)) }).collect();
            let members: Vec<Member> = members.into_iter().map(|(own, quantity)| member(own, quantity)).collect();
            let rollover = Rollover { max: whole(max), expires_cycles };
            let shared = share(&Carry { period: 4, left, ..Carry::default() }, 5, Some(rollover), &members, &[]).expect("in range");
            let total = |amounts: Vec<Exact>| sum(amounts).expect("in range");
            let own = total(members.iter().map(|member| member.own).collect());
            let quantity = total(members.iter().map(|member| member.quantity).collect());
            let used = total(shared.used.clone());
            let on = total(shared.carry.left.iter().map(|left| left.amount.0).collect());
            let available = own.checked_add(shared.carried_in).expect("in range");
            prop_assert_eq!(available, used.checked_add(on).expect("in range"));
            prop_assert_eq!(used, available.min(quantity));
            prop_assert!(shared.carried_in <= whole(max));
            prop_assert!(shared.used.iter().zip(&members).all(|(used, member)| *used >= member.own.min(member.quantity)));
        }
    }
}
