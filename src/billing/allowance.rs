//! Allowances that are more than one item's own: pooled over the services of an account, or rolled over into later
//! periods.
//!
//! In: what each member of one period has of its own and has used, and what was carried there. Out: what each may use, and
//! what is carried on. A member uses its own allowance first; what is left of everybody's, and what was carried, goes to
//! those that need more, in the order of the members. Carried allowance is used before that of the period, the earliest to
//! expire first; what is carried into a period beyond `max` is lost, the earliest to expire first. All of it follows from
//! the period's sums alone, so that no order of the records changes it, and late usage moves it on through the later
//! periods.

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

/// Unused allowance on its way into later periods, as a line keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carry {
    /// The period it is left from, as the cycle counts periods.
    pub period: i64,
    /// By the last period it may be used in, ascending.
    pub left: Vec<Left>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub until: i64,
    pub amount: Ratio,
}

/// What one period makes of what was carried into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Allowance each member uses.
    pub used: Vec<Exact>,
    /// What was there from earlier periods.
    pub carried_in: Exact,
    pub carry: Carry,
}

/// Shares out one period. `rollover`: how what is left is carried on; `None`: not at all.
pub fn share(
    before: &Carry,
    period: i64,
    rollover: Option<Rollover>,
    members: &[Member],
) -> Result<Shared, ExactError> {
    let mut left = match rollover {
        Some(rollover) => carried_into(before, period, rollover)?,
        None => Vec::new(),
    };
    let carried_in = sum(left.iter().map(|left| left.amount.0))?;
    let mut used = Vec::with_capacity(members.len());
    let mut rest = carried_in;
    let mut fresh = Exact::ZERO;
    for member in members {
        let own = member.own.min(member.quantity);
        rest = rest.checked_add(member.own.checked_sub(own)?)?;
        fresh = fresh.checked_add(member.own)?;
        used.push(own);
    }
    for (used, member) in used.iter_mut().zip(members) {
        let more = member.quantity.checked_sub(*used)?.min(rest);
        rest = rest.checked_sub(more)?;
        *used = used.checked_add(more)?;
    }
    let mut open = sum(used.iter().copied())?;
    for carried in &mut left {
        let taken = open.min(carried.amount.0);
        open = open.checked_sub(taken)?;
        carried.amount = Ratio(carried.amount.0.checked_sub(taken)?);
    }
    if let Some(rollover) = rollover {
        let amount = Ratio(fresh.checked_sub(open)?);
        left.push(Left { until: period + i64::from(rollover.expires_cycles), amount });
    }
    left.retain(|left| !left.amount.0.is_zero());
    Ok(Shared { used, carried_in, carry: Carry { period, left } })
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
        let shared = share(&Carry::default(), 7, None, &members).expect("in range");
        assert_eq!(numbers(&shared.used), [170, 30, 100]);
        assert_eq!(shared.carry.left, []);
    }

    #[test]
    fn unused_allowance_is_carried_up_to_its_limit_and_used_first() {
        let first = share(&Carry::default(), 1, Some(ONE_CYCLE()), &[member(100, 30)]).expect("in range");
        assert_eq!(first.carry.left, [Left { until: 2, amount: Ratio(whole(70)) }]);
        let second = share(&first.carry, 2, Some(ONE_CYCLE()), &[member(100, 120)]).expect("in range");
        assert_eq!((second.carried_in, numbers(&second.used)), (whole(50), vec![120]));
        assert_eq!(second.carry.left, [Left { until: 3, amount: Ratio(whole(30)) }]);
        let third = share(&second.carry, 4, Some(ONE_CYCLE()), &[member(100, 120)]).expect("in range");
        assert_eq!((third.carried_in, numbers(&third.used)), (whole(0), vec![100]), "it has expired");
    }

    #[test]
    fn what_expires_first_is_used_first_and_lost_first() {
        let rollover = Rollover { max: whole(50), expires_cycles: 3 };
        let before = Carry {
            period: 4,
            left: vec![Left { until: 7, amount: Ratio(whole(40)) }, Left { until: 5, amount: Ratio(whole(30)) }],
        };
        let shared = share(&before, 5, Some(rollover), &[member(10, 15)]).expect("in range");
        // 20 of the 30 are lost, the other 10 are used, then 5 of the 40; nothing of the period's own.
        let left = [Left { until: 7, amount: Ratio(whole(35)) }, Left { until: 8, amount: Ratio(whole(10)) }];
        assert_eq!(shared.carry.left, left);
    }

    proptest! {
        #![proptest_config(crate::vocabulary::cases(10_000))]

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
            let shared = share(&Carry { period: 4, left }, 5, Some(rollover), &members).expect("in range");
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
