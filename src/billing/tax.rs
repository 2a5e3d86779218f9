//! Taxes of one rounded amount: exclusive on top, inclusive taken out, compound on the taxes before.
//!
//! Net plus inclusive taxes is the amount to the last unit, whatever the rates.

use std::borrow::Cow;

use super::facts::AccountFacts;
use super::tariff::{Charge, ChargeKind, LineRounding, Tariff, Tax};
use crate::vocabulary::{Exact, ExactError, Money, MoneyError};

/// One tax of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaxAmount {
    pub id: String,
    /// Percent.
    pub rate: Exact,
    pub fixed: Option<Exact>,
    pub jurisdiction: Option<String>,
    pub inclusive: bool,
    pub base: Money,
    pub amount: Money,
}

/// The taxes of one charge, and those of them that the account pays.
#[derive(Debug, Clone)]
pub struct TaxesDue<'t> {
    pub all: Cow<'t, [Tax]>,
    pub paid: Cow<'t, [Tax]>,
}

/// Who is exempt from what.
#[derive(Debug, Clone, Copy)]
pub struct Exemption<'e> {
    pub all: bool,
    pub taxes: &'e [String],
}

impl<'e> Exemption<'e> {
    pub fn of(facts: &'e AccountFacts) -> Self {
        Self { all: facts.tax_exempt, taxes: &facts.exempt_from }
    }
}

impl<'t> TaxesDue<'t> {
    /// The taxes of a charge of a tariff. A deposit is nobody's income and has none.
    pub fn of(tariff: &'t Tariff, charge: &Charge, exempt: Exemption<'_>) -> Self {
        if matches!(charge.kind, ChargeKind::Deposit { .. }) {
            return Self { all: Cow::Borrowed(&[]), paid: Cow::Borrowed(&[]) };
        }
        let concerns = |tax: &Tax| tax.applies_to.as_ref().is_none_or(|list| list.contains(&charge.id));
        let all: Cow<'t, [Tax]> = match tariff.taxes.iter().all(concerns) {
            true => Cow::Borrowed(&tariff.taxes),
            false => tariff.taxes.iter().filter(|tax| concerns(tax)).cloned().collect(),
        };
        let paid = match exempt.all {
            true => Cow::Borrowed(&[][..]),
            false if all.iter().any(|tax| exempt.taxes.contains(&tax.id)) => {
                all.iter().filter(|tax| !exempt.taxes.contains(&tax.id)).cloned().collect()
            }
            false => all.clone(),
        };
        Self { all, paid }
    }

    /// What an amount with all inclusive taxes is without those that the account does not pay.
    pub fn without_exempt(&self, amount: Exact) -> Result<Exact, ExactError> {
        if self.all.len() == self.paid.len() {
            return Ok(amount);
        }
        amount.checked_div(inclusive_factor(&self.all)?)?.checked_mul(inclusive_factor(&self.paid)?)
    }
}

/// The taxes of `amount`, which is gross of inclusive and net of exclusive tax. Taxes come in their order.
pub fn levy(taxes: &[Tax], amount: Money, rounding: LineRounding) -> Result<Vec<TaxAmount>, MoneyError> {
    let mut levied = vec![None; taxes.len()];
    let net = take_inclusive(taxes, amount, rounding, &mut levied)?;
    let mut before = Money::zero(amount.currency);
    for (tax, slot) in taxes.iter().zip(levied.iter_mut()) {
        if let Some(fixed) = tax.fixed {
            // What costs nothing, or is given back, has no fixed tax.
            let due = if net.minor > 0 { round(fixed, amount, rounding)? } else { Money::zero(amount.currency) };
            *slot = Some(tax_amount(tax, net, due));
        } else if !tax.inclusive {
            let base = if tax.compound { net.checked_add(before)? } else { net };
            let exact = base.exact().checked_mul(hundredth(tax.rate)).map_err(overflow)?;
            *slot = Some(tax_amount(tax, base, round(exact, amount, rounding)?));
        }
        if let Some(levied) = slot {
            before = before.checked_add(levied.amount)?;
        }
    }
    Ok(levied.into_iter().flatten().collect())
}

/// The taxes of `amount` before any rounding, one for each of `taxes`.
pub fn levy_exact(taxes: &[Tax], amount: Exact) -> Result<Vec<Exact>, ExactError> {
    let net = amount.checked_div(inclusive_factor(taxes)?)?;
    let mut levied = vec![Exact::ZERO; taxes.len()];
    for (index, share) in inclusive_shares(taxes)? {
        levied[index] = net.checked_mul(share)?;
    }
    let mut before = Exact::ZERO;
    for (index, tax) in taxes.iter().enumerate() {
        if !tax.inclusive {
            let base = if tax.compound { net.checked_add(before)? } else { net };
            levied[index] = match tax.fixed {
                Some(fixed) if net > Exact::ZERO => fixed,
                Some(_) => Exact::ZERO,
                None => base.checked_mul(hundredth(tax.rate))?,
            };
        }
        before = before.checked_add(levied[index])?;
    }
    Ok(levied)
}

/// What an amount with inclusive taxes is divided by to become net.
pub fn inclusive_factor(taxes: &[Tax]) -> Result<Exact, ExactError> {
    let mut factor = Exact::ONE;
    for (_, share) in inclusive_shares(taxes)? {
        factor = factor.checked_add(share)?;
    }
    Ok(factor)
}

/// Fills in the inclusive taxes and answers the net amount.
fn take_inclusive(
    taxes: &[Tax],
    amount: Money,
    rounding: LineRounding,
    levied: &mut [Option<TaxAmount>],
) -> Result<Money, MoneyError> {
    let factor = inclusive_factor(taxes).map_err(overflow)?;
    let net_exact = amount.exact().checked_div(factor).map_err(overflow)?;
    let mut net = amount;
    let mut amounts = Vec::new();
    for (index, share) in inclusive_shares(taxes).map_err(overflow)? {
        let tax = round(net_exact.checked_mul(share).map_err(overflow)?, amount, rounding)?;
        net = net.checked_sub(tax)?;
        amounts.push((index, tax));
    }
    let mut base = net;
    for (index, tax) in amounts {
        let own_base = if taxes[index].compound { base } else { net };
        levied[index] = Some(tax_amount(&taxes[index], own_base, tax));
        base = base.checked_add(tax)?;
    }
    Ok(net)
}

/// Each inclusive tax as a part of the net amount.
fn inclusive_shares(taxes: &[Tax]) -> Result<Vec<(usize, Exact)>, ExactError> {
    let mut shares = Vec::new();
    let mut before = Exact::ONE;
    for (index, tax) in taxes.iter().enumerate().filter(|(_, tax)| tax.inclusive) {
        let base = if tax.compound { before } else { Exact::ONE };
        let share = base.checked_mul(hundredth(tax.rate))?;
        before = before.checked_add(share)?;
        shares.push((index, share));
    }
    Ok(shares)
}

fn tax_amount(tax: &Tax, base: Money, amount: Money) -> TaxAmount {
    TaxAmount {
        id: tax.id.clone(),
        rate: tax.rate,
        fixed: tax.fixed,
        jurisdiction: tax.jurisdiction.clone(),
        inclusive: tax.inclusive,
        base,
        amount,
    }
}

fn round(exact: Exact, like: Money, rounding: LineRounding) -> Result<Money, MoneyError> {
    Money::round(exact, like.currency, like.currency.minor_digits(), rounding.mode)
}

fn hundredth(rate: Exact) -> Exact {
    rate.checked_div(Exact::from_int(100)).expect("a tax rate is bounded when its tariff is read")
}

fn overflow(_: ExactError) -> MoneyError {
    MoneyError::Overflow
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vocabulary::Rounding;

    const HALF_UP: LineRounding = LineRounding { mode: Rounding::HalfUp, places: 2 };

    fn tax(id: &str, rate: &str, inclusive: bool, compound: bool) -> Tax {
        Tax {
            id: id.to_owned(),
            rate: rate.parse().expect("a rate"),
            fixed: None,
            applies_to: None,
            jurisdiction: None,
            inclusive,
            compound,
            order: 1,
        }
    }

    fn usd(minor: i64) -> Money {
        Money::new(minor, "USD".parse().expect("USD"))
    }

    fn amounts(taxes: &[Tax], minor: i64) -> Vec<i64> {
        levy(taxes, usd(minor), HALF_UP).expect("in range").iter().map(|tax| tax.amount.minor).collect()
    }

    #[test]
    fn exclusive_tax_is_on_top() {
        assert_eq!(amounts(&[tax("vat", "20", false, false)], 1235), [247]);
    }

    #[test]
    fn compound_tax_is_levied_on_the_taxes_before_it() {
        assert_eq!(amounts(&[tax("gst", "5", false, false), tax("qst", "10", false, true)], 10000), [500, 1050]);
    }

    #[test]
    fn inclusive_tax_is_taken_out() {
        assert_eq!(amounts(&[tax("vat", "20", true, false)], 12000), [2000]);
        assert_eq!(amounts(&[tax("vat", "19", true, false)], 100), [16]);
    }

    #[test]
    fn exclusive_tax_beside_an_inclusive_one_is_on_the_net() {
        assert_eq!(amounts(&[tax("vat", "20", true, false), tax("fee", "1", false, false)], 12000), [2000, 100]);
    }

    #[test]
    fn credit_carries_the_mirrored_tax() {
        assert_eq!(amounts(&[tax("vat", "20", false, false)], -1235), [-247]);
    }

    #[test]
    fn fixed_tax_is_due_on_what_costs_something_alone() {
        let licence = Tax { fixed: Some("0.75".parse().expect("an amount")), ..tax("licence", "0", false, false) };
        for (minor, due) in [(1, 75), (0, 0), (-500, 0)] {
            assert_eq!(amounts(std::slice::from_ref(&licence), minor), [due], "{minor}");
            let exact = levy_exact(std::slice::from_ref(&licence), usd(minor).exact()).expect("in range");
            assert_eq!(exact[0], usd(due).exact(), "{minor}");
        }
        let both = [licence, tax("on_it", "10", false, true)];
        assert_eq!(amounts(&both, 1000), [75, 108], "a compound tax is on a fixed one, too");
    }

    proptest! {
        #![proptest_config(crate::vocabulary::cases(1_000))]

        /// Invariant 17, with compound rates.
        #[test]
        fn net_and_inclusive_taxes_are_the_gross(minor in -1_000_000_000i64..1_000_000_000, a in 0u32..3000, b in 0u32..3000) {
            let rate = |r: u32| format!("{}.{:02}", r / 100, r % 100);
            let taxes = [tax("a", &rate(a), true, false), tax("b", &rate(b), true, true)];
            let levied = levy(&taxes, usd(minor), HALF_UP).expect("in range");
            let net = levied[0].base.minor;
            prop_assert_eq!(net + levied.iter().map(|tax| tax.amount.minor).sum::<i64>(), minor);
        }
    }
}
