//! Taxes rounded once over an account's lines of a batch (`tax_level = "batch"`), and given to the lines by largest
//! remainder: the invoice owes the tax of its sum, and its lines still add up to it.
//!
//! A line's part is the difference of two exact cumulative taxes; a group is all parts of one tax at one rate. The base
//! that a line shows is the one its tax would have alone.

use std::collections::BTreeMap;

use super::facts::AccountFacts;
use super::lines::{Basis, Ratio, StoredLine};
use crate::vocabulary::{Currency, Exact, ExactError, Money, MoneyError, Rounding};

/// One line's part of a group, in minor units.
struct Part {
    line: usize,
    tax: usize,
    exact: Exact,
}

type Groups = BTreeMap<(String, String, String, bool), Vec<Part>>;

/// Rounds the taxes of the new lines that are rounded over the batch. They are all the lines of the account's run.
pub fn settle(facts: &AccountFacts, lines: &mut [StoredLine]) -> Result<(), MoneyError> {
    let mut groups = Groups::new();
    for (index, stored) in lines.iter().enumerate() {
        let Ok(currency) = stored.line.currency.parse::<Currency>() else { continue };
        let before = before(facts, stored);
        for (tax, sum) in stored.basis.taxes.iter().enumerate() {
            let Some(now) = sum.exact else { continue };
            let exact = now.0.checked_sub(exact_before(before, &sum.id, currency)).map_err(overflow)?;
            let key = (sum.id.clone(), sum.rate.clone(), stored.line.currency.clone(), sum.inclusive);
            groups.entry(key).or_default().push(Part { line: index, tax, exact });
        }
    }
    for ((_, _, currency, _), parts) in groups {
        let currency: Currency = currency.parse()?;
        let exact: Vec<Exact> = parts.iter().map(|part| part.exact).collect();
        for (part, minor) in parts.iter().zip(allocated(&exact, currency)?) {
            let stored = &mut lines[part.line];
            let charged = before(facts, stored).map_or(0, |before| charged(before, &stored.basis.taxes[part.tax].id));
            stored.basis.taxes[part.tax].amount_minor = charged.checked_add(minor).ok_or(MoneyError::Overflow)?;
            let shape = &mut stored.line.tax[part.tax];
            shape.amount = Money::new(minor, currency).to_string();
            shape.amount_exact = Some(part.exact.to_string());
        }
    }
    Ok(())
}

/// Whole minor units for exact amounts of major units: their sum is the sum's own rounding, and no part is moved by a
/// unit or more. Of equal remainders the first gets it.
pub fn allocated(exact: &[Exact], currency: Currency) -> Result<Vec<i64>, MoneyError> {
    let scale = Exact::from_int(10i128.pow(currency.minor_digits()));
    let mut sum = Exact::ZERO;
    let mut parts = Vec::with_capacity(exact.len());
    for amount in exact {
        let minor = amount.checked_mul(scale).map_err(overflow)?;
        sum = sum.checked_add(minor).map_err(overflow)?;
        let floor = minor.floor();
        parts.push((floor, minor.checked_sub(Exact::from_int(floor)).map_err(overflow)?));
    }
    let mut rest = Rounding::HalfUp.whole(sum) - parts.iter().map(|(floor, _)| floor).sum::<i128>();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|one, other| parts[*other].1.cmp(&parts[*one].1).then(one.cmp(other)));
    let mut whole: Vec<i128> = parts.iter().map(|(floor, _)| *floor).collect();
    for index in order {
        if rest > 0 {
            whole[index] += 1;
            rest -= 1;
        }
    }
    whole.into_iter().map(|minor| i64::try_from(minor).map_err(|_| MoneyError::Overflow)).collect()
}

/// What earlier lines have charged of a tax, before rounding.
pub fn exact_before(before: Option<&Basis>, tax: &str, currency: Currency) -> Exact {
    let sum = before.and_then(|before| before.taxes.iter().find(|sum| sum.id == tax));
    match sum {
        Some(sum) => sum.exact.map_or_else(|| Money::new(sum.amount_minor, currency).exact(), |Ratio(exact)| exact),
        None => Exact::ZERO,
    }
}

fn before<'f>(facts: &'f AccountFacts, stored: &StoredLine) -> Option<&'f Basis> {
    let revision = stored.basis.revision.checked_sub(1)?;
    let item = stored.item();
    facts.issued.iter().find(|line| line.basis.revision == revision && line.item() == item).map(|line| &line.basis)
}

fn charged(before: &Basis, tax: &str) -> i64 {
    before.taxes.iter().find(|sum| sum.id == tax).map_or(0, |sum| sum.amount_minor)
}

fn overflow(_: ExactError) -> MoneyError {
    MoneyError::Overflow
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_thirds_of_a_cent_make_one_cent() {
        // 0.01 / 3 each: 0.333… cents, floor 0, sum 1: the first gets it.
        let third = Exact::ratio(1, 300).expect("a ratio");
        assert_eq!(allocated(&[third; 3], "USD".parse().expect("USD")).expect("fits"), [1, 0, 0]);
    }

    #[test]
    fn larger_remainder_is_served_first() {
        let exact = |text: &str| text.parse::<Exact>().expect("a decimal");
        // 8.1 + 8.7 + 8.4 cents = 25.2, rounded 25; floors 8 + 8 + 8 = 24; the rest goes to 8.7.
        let parts = [exact("0.081"), exact("0.087"), exact("0.084")];
        assert_eq!(allocated(&parts, "USD".parse().expect("USD")).expect("fits"), [8, 9, 8]);
    }

    proptest! {
        #![proptest_config(crate::vocabulary::cases(10_000))]

        /// Parts add up to the rounded sum, and none is a whole unit off.
        #[test]
        fn allocated_parts_sum_to_the_groups_tax(parts in prop::collection::vec(-1_000_000i128..1_000_000, 1..30)) {
            let usd: Currency = "USD".parse().expect("USD");
            let exact: Vec<Exact> = parts.iter().map(|part| Exact::ratio(*part, 12_500).expect("a ratio")).collect();
            let whole = allocated(&exact, usd).expect("fits");
            let sum = exact.iter().fold(Exact::ZERO, |sum, part| sum.checked_add(*part).expect("fits"));
            let rounded = Money::round(sum, usd, 2, Rounding::HalfUp).expect("fits");
            prop_assert_eq!(whole.iter().sum::<i64>(), rounded.minor);
            for (part, minor) in exact.iter().zip(whole) {
                let off = Money::new(minor, usd).exact().checked_sub(*part).expect("fits");
                let cent: Exact = "0.01".parse().expect("a cent");
                prop_assert!(off < cent && off > cent.checked_neg().expect("fits"));
            }
        }
    }
}
