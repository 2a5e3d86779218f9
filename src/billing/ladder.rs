//! Graduated tiers in whole numbers: the bounds over one denominator, the prices over another, both found once when the
//! tariff is read. In: a quantity. Out: its tiers and their sum, the same as exact fractions give, or nothing where the
//! quantity is no multiple of the denominator; then the fractions are the way.

use super::price::PricedTier;
use super::tariff::Tier;
use crate::vocabulary::{Denominator, Exact};

/// The tiers of a charge, for a period that is billed whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// What quantities and bounds are whole multiples of.
    quantity: Denominator,
    /// What amounts are whole multiples of: that of quantities times that of prices.
    amount: Denominator,
    rungs: Vec<Rung>,
    /// Each tier but the last, passed as a whole.
    passed: Vec<PricedTier>,
}

/// One tier, in multiples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rung {
    below: i128,
    /// The last tier has none.
    up_to: Option<i128>,
    unit_amount: i128,
    flat_amount: i128,
    /// What all tiers below cost together.
    before: i128,
}

impl Ladder {
    /// `unit_size`: what is counted, in one unit of the quantity. `None`: the numbers leave 128 bits.
    pub fn of(list: &[Tier], unit_size: u64) -> Option<Self> {
        let bounds = list.iter().filter_map(|tier| tier.up_to);
        let quantity = common(bounds, i128::from(unit_size))?;
        let price = common(list.iter().flat_map(|tier| [tier.unit_amount, tier.flat_amount]), 1)?;
        let amount = quantity.value().checked_mul(price.value()).map(Denominator::of)?;
        let (mut rungs, mut passed) = (Vec::with_capacity(list.len()), Vec::with_capacity(list.len()));
        let (mut below, mut before) = (0, 0i128);
        for tier in list {
            let up_to = match tier.up_to {
                Some(up_to) => Some(quantity.over(up_to)?),
                None => None,
            };
            let unit_amount = price.over(tier.unit_amount)?;
            let flat_amount = amount.over(tier.flat_amount)?;
            rungs.push(Rung { below, up_to, unit_amount, flat_amount, before });
            let Some(up_to) = up_to else { break };
            let whole = (up_to - below).checked_mul(unit_amount)?.checked_add(flat_amount)?;
            passed.push(PricedTier {
                quantity: quantity.under(up_to - below),
                unit_amount: tier.unit_amount,
                flat_amount: tier.flat_amount,
                amount: amount.under(whole),
            });
            (below, before) = (up_to, before.checked_add(whole)?);
        }
        Some(Self { quantity, amount, rungs, passed })
    }

    /// The tiers of a quantity above zero, and what they cost together; `list` is what the ladder was made of. `None`: ask
    /// the fractions.
    pub fn price(&self, list: &[Tier], quantity: Exact) -> Option<(Vec<PricedTier>, Exact)> {
        let used = self.quantity.over(quantity).filter(|used| *used > 0)?;
        let place = self.rungs.iter().position(|rung| rung.up_to.is_none_or(|up_to| used <= up_to))?;
        let (rung, tier) = (&self.rungs[place], list.get(place)?);
        let part = used - rung.below;
        let amount = part.checked_mul(rung.unit_amount)?.checked_add(rung.flat_amount)?;
        let sum = rung.before.checked_add(amount)?;
        let mut tiers = Vec::with_capacity(place + 1);
        tiers.extend_from_slice(&self.passed[..place]);
        tiers.push(PricedTier {
            quantity: self.quantity.under(part),
            unit_amount: tier.unit_amount,
            flat_amount: tier.flat_amount,
            amount: self.amount.under(amount),
        });
        Some((tiers, self.amount.under(sum)))
    }
}

/// The least denominator of which all of these and `first` are parts.
fn common(numbers: impl Iterator<Item = Exact>, first: i128) -> Option<Denominator> {
    let mut least = first;
    for number in numbers {
        // least / den, reduced, is what the least common multiple has more than each of the two.
        let more = Exact::ratio(number.denominator(), least).ok()?.numerator();
        least = least.checked_mul(more)?;
    }
    Some(Denominator::of(least))
}
