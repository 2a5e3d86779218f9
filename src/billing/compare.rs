//! Shadow billing: another system's lines against ours, every difference with the reason it most likely has.
//!
//! In: their lines, ours, each with as much of a key as theirs have. Out: one difference for each key that does not agree
//! to the cent. Nothing here decides who is right.

use std::collections::BTreeMap;

use serde_json::json;

use super::month_end::Finding;
use crate::vocabulary::{Currency, Exact, ExactError, Money};

/// What is compared: as much as the other system tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub account: String,
    pub service: Option<String>,
    pub charge: Option<String>,
    /// First day of the line's own period.
    pub period: Option<String>,
}

/// One of their lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Theirs {
    pub key: Key,
    pub amount: i64,
    pub tax: Option<i64>,
}

/// One of our lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    pub key: Key,
    pub amount: i64,
    /// Exclusive taxes of the line.
    pub tax: i64,
    /// The unrounded amount, major units.
    pub exact: Exact,
    pub nature: Nature,
}

/// What one of our lines is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// The share of the period that was billed, and the days the period has.
    Recurring {
        share: Exact,
        days: i64,
    },
    Usage,
    Other,
}

/// Why the two differ, as far as the numbers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// They bill it and we do not.
    MissingHere,
    /// We bill it and they do not.
    MissingThere,
    /// They bill the same thing more than once.
    Duplicate,
    /// The same exact amount, rounded otherwise.
    Rounding,
    /// Net and gross taken for one another, or only the taxes differ.
    Tax,
    /// The full price against a part of it, or parts counted otherwise.
    Proration,
    /// Usage counted otherwise.
    Usage,
    Other,
}

/// Every key on which the two do not agree, in the order of the keys.
pub fn compare(theirs: &[Theirs], ours: &[Ours], currency: Currency) -> Result<Vec<Finding>, ExactError> {
    let mut both: BTreeMap<&Key, (Vec<&Theirs>, Vec<&Ours>)> = BTreeMap::new();
    theirs.iter().for_each(|line| both.entry(&line.key).or_default().0.push(line));
    ours.iter().for_each(|line| both.entry(&line.key).or_default().1.push(line));
    let mut found = Vec::new();
    for (key, (theirs, ours)) in both {
        if let Some(class) = classify(&theirs, &ours, currency)? {
            found.push(finding(key, class, &theirs, &ours, currency)?);
        }
    }
    Ok(found)
}

/// `None`: they agree.
pub fn classify(theirs: &[&Theirs], ours: &[&Ours], currency: Currency) -> Result<Option<Class>, ExactError> {
    let (there, here) = (Sums::of_theirs(theirs)?, Sums::of_ours(ours)?);
    let same_tax = there.tax.is_none_or(|tax| tax == here.tax.unwrap_or(0));
    if there.amount == here.amount && same_tax {
        return Ok(None);
    }
    if ours.is_empty() {
        return Ok(Some(Class::MissingHere));
    }
    if theirs.is_empty() {
        return Ok(Some(Class::MissingThere));
    }
    if there.amount == here.amount || there.amount == sum(here.amount, here.tax.unwrap_or(0))? {
        return Ok(Some(Class::Tax));
    }
    if theirs.len() > 1 && without_copies(theirs)? == here.amount {
        return Ok(Some(Class::Duplicate));
    }
    if is_rounding(there.amount, ours, currency)? {
        return Ok(Some(Class::Rounding));
    }
    if ours.iter().any(|line| line.nature == Nature::Usage) {
        return Ok(Some(Class::Usage));
    }
    Ok(Some(if is_proration(there.amount, ours, currency)? { Class::Proration } else { Class::Other }))
}

struct Sums {
    amount: i64,
    tax: Option<i64>,
}

impl Sums {
    fn of_theirs(lines: &[&Theirs]) -> Result<Self, ExactError> {
        let amount = lines.iter().try_fold(0, |all, line| sum(all, line.amount))?;
        let tax = match lines.iter().any(|line| line.tax.is_some()) {
            true => Some(lines.iter().try_fold(0, |all, line| sum(all, line.tax.unwrap_or(0)))?),
            false => None,
        };
        Ok(Self { amount, tax })
    }

    fn of_ours(lines: &[&Ours]) -> Result<Self, ExactError> {
        let amount = lines.iter().try_fold(0, |all, line| sum(all, line.amount))?;
        Ok(Self { amount, tax: Some(lines.iter().try_fold(0, |all, line| sum(all, line.tax))?) })
    }
}

fn sum(a: i64, b: i64) -> Result<i64, ExactError> {
    a.checked_add(b).ok_or(ExactError::Overflow)
}

/// Their sum with each amount counted once.
fn without_copies(theirs: &[&Theirs]) -> Result<i64, ExactError> {
    let mut amounts: Vec<i64> = theirs.iter().map(|line| line.amount).collect();
    amounts.sort_unstable();
    amounts.dedup();
    amounts.into_iter().try_fold(0, sum)
}

/// Less than a whole minor unit a line from the exact sum: some rounding gives it.
fn is_rounding(there: i64, ours: &[&Ours], currency: Currency) -> Result<bool, ExactError> {
    let exact = ours.iter().try_fold(Exact::ZERO, |all, line| all.checked_add(line.exact))?;
    let off = distance(Money::new(there, currency).exact(), exact)?;
    let unit = Money::new(1, currency).exact();
    let lines = i128::try_from(ours.len()).map_err(|_| ExactError::Overflow)?;
    Ok(off < unit.checked_mul(Exact::from_int(lines))?)
}

/// They bill the full price, or so many days of it, of 30 or of the period's, and we another part.
fn is_proration(there: i64, ours: &[&Ours], currency: Currency) -> Result<bool, ExactError> {
    let [Ours { exact, nature: Nature::Recurring { share, days }, .. }] = ours else { return Ok(false) };
    if share.is_zero() {
        return Ok(false);
    }
    let full = exact.checked_div(*share)?;
    let there = Money::new(there, currency).exact();
    let unit = Money::new(1, currency).exact();
    for of in [30, *days] {
        for part in 0..=of {
            let expected = full.checked_mul(Exact::ratio(i128::from(part), i128::from(of))?)?;
            if distance(there, expected)? < unit {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn distance(a: Exact, b: Exact) -> Result<Exact, ExactError> {
    let difference = a.checked_sub(b)?;
    if difference.is_negative() { difference.checked_neg() } else { Ok(difference) }
}

fn finding(
    key: &Key,
    class: Class,
    theirs: &[&Theirs],
    ours: &[&Ours],
    currency: Currency,
) -> Result<Finding, ExactError> {
    let (there, here) = (Sums::of_theirs(theirs)?, Sums::of_ours(ours)?);
    let money = |minor: i64| Money::new(minor, currency).to_string();
    let off = there.amount.checked_sub(here.amount).ok_or(ExactError::Overflow)?;
    let (kind, why, advice) = class.words();
    let parts = [Some(&key.account), key.service.as_ref(), key.charge.as_ref(), key.period.as_ref()];
    let subject: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    let subject = subject.join(" ");
    Ok(Finding {
        kind,
        detail: format!("{subject}: they bill {}, we bill {}: {why}.", money(there.amount), money(here.amount)),
        subject,
        advice,
        numbers: json!({
            "theirs": money(there.amount), "ours": money(here.amount), "difference": money(off),
            "their_lines": theirs.len(), "our_lines": ours.len(), "their_tax": there.tax.map(money),
            "our_tax": here.tax.map(money), "currency": currency,
        }),
    })
}

impl Class {
    /// Kind of the finding, what it says, what to do.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        const MISSING_HERE: &str = "Push the account or service, or accept it.";
        const MISSING_THERE: &str = "Ask the other system why it does not bill it, or accept it.";
        const LOOK: &str = "Explain our line with `line explain`; then mend the price or accept the difference.";
        match self {
            Class::MissingHere => ("compare.missing_here", "it is missing here", MISSING_HERE),
            Class::MissingThere => ("compare.missing_there", "it is missing there", MISSING_THERE),
            Class::Duplicate => ("compare.duplicate", "they bill the same amount more than once", MISSING_THERE),
            Class::Rounding => ("compare.rounding", "the same exact amount rounded otherwise", LOOK),
            Class::Tax => ("compare.tax", "the taxes differ, or one is net and the other gross", LOOK),
            Class::Proration => ("compare.proration", "another part of the period is billed", LOOK),
            Class::Usage => ("compare.usage", "usage is counted or priced otherwise", LOOK),
            Class::Other => ("compare.other", "no rule explains it", LOOK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd() -> Currency {
        "USD".parse().expect("a currency")
    }

    fn key(charge: &str) -> Key {
        Key { account: "1".to_owned(), service: None, charge: Some(charge.to_owned()), period: None }
    }

    fn theirs(amount: i64, tax: Option<i64>) -> Theirs {
        Theirs { key: key("access"), amount, tax }
    }

    fn ours(amount: i64, tax: i64, exact: &str, nature: Nature) -> Ours {
        Ours { key: key("access"), amount, tax, exact: exact.parse().expect("a decimal"), nature }
    }

    fn whole() -> Nature {
        Nature::Recurring { share: Exact::ONE, days: 31 }
    }

    fn part(days: i128) -> Nature {
        Nature::Recurring { share: Exact::ratio(days, 31).expect("a share"), days: 31 }
    }

    #[test]
    fn every_difference_has_its_class() {
        let full = ours(4995, 412, "49.95", whole());
        let usage = ours(117, 10, "1.1728", Nature::Usage);
        let halves = vec![ours(2500, 0, "25", whole()), ours(2495, 0, "24.95", whole())];
        // 17 of 31 days of 49.95 are 27.3919…
        let partial = Ours { exact: Exact::ratio(4995 * 17, 3100).expect("fits"), ..ours(2739, 226, "0", part(17)) };
        type Case = (&'static str, Vec<Theirs>, Vec<Ours>, Option<Class>);
        let table: Vec<Case> = vec![
            ("the same", vec![theirs(4995, Some(412))], vec![full.clone()], None),
            ("the same, taxes not told", vec![theirs(4995, None)], vec![full.clone()], None),
            ("in two lines", vec![theirs(4000, None), theirs(995, None)], vec![full.clone()], None),
            ("only there", vec![theirs(4995, None)], vec![], Some(Class::MissingHere)),
            ("only here", vec![], vec![full.clone()], Some(Class::MissingThere)),
            ("nothing against nothing there", vec![], vec![ours(0, 0, "0", Nature::Usage)], None),
            ("billed twice", vec![theirs(4995, None), theirs(4995, None)], vec![full.clone()], Some(Class::Duplicate)),
            ("billed twice as a sum", vec![theirs(4995, None), theirs(4995, None)], halves, Some(Class::Duplicate)),
            ("gross there", vec![theirs(5407, None)], vec![full.clone()], Some(Class::Tax)),
            ("other taxes", vec![theirs(4995, Some(400))], vec![full.clone()], Some(Class::Tax)),
            ("rounded up", vec![theirs(118, None)], vec![usage.clone()], Some(Class::Rounding)),
            ("other octets", vec![theirs(125, None)], vec![usage], Some(Class::Usage)),
            ("full price there", vec![theirs(4995, None)], vec![partial.clone()], Some(Class::Proration)),
            ("30 days there", vec![theirs(2831, None)], vec![partial], Some(Class::Proration)),
            ("another price", vec![theirs(5995, None)], vec![full], Some(Class::Other)),
        ];
        for (what, theirs, ours, class) in table {
            let (theirs, ours): (Vec<&Theirs>, Vec<&Ours>) = (theirs.iter().collect(), ours.iter().collect());
            assert_eq!(classify(&theirs, &ours, usd()), Ok(class), "{what}");
        }
    }

    #[test]
    fn keys_that_agree_are_no_findings() {
        let mut other = theirs(100, None);
        other.key = key("fee");
        let found = compare(&[theirs(4995, None), other], &[ours(4995, 0, "49.95", whole())], usd()).expect("sums fit");
        assert_eq!(found.iter().map(|one| one.kind).collect::<Vec<_>>(), ["compare.missing_here"]);
        assert_eq!(found[0].numbers["theirs"], "1.00");
    }

    #[test]
    fn sums_that_overflow_are_an_error() {
        let lines = [theirs(i64::MAX, None), theirs(i64::MAX, None)];
        assert_eq!(compare(&lines, &[], usd()), Err(ExactError::Overflow));
    }

    #[test]
    fn finding_says_what_both_bill_and_why_they_may_differ() {
        let found = compare(&[theirs(5995, Some(495))], &[ours(4995, 412, "49.95", whole())], usd()).expect("sums fit");
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!((finding.kind, finding.subject.as_str()), ("compare.other", "1 access"));
        assert_eq!(finding.detail, "1 access: they bill 59.95, we bill 49.95: no rule explains it.");
        assert!(finding.advice.starts_with("Explain our line"));
        assert_eq!(
            finding.numbers,
            json!({
                "theirs": "59.95", "ours": "49.95", "difference": "10.00", "their_lines": 1, "our_lines": 1,
                "their_tax": "4.95", "our_tax": "4.12", "currency": "USD",
            })
        );
        for (class, kind, advice) in [
            (Class::MissingHere, "compare.missing_here", "Push"),
            (Class::MissingThere, "compare.missing_there", "Ask"),
            (Class::Duplicate, "compare.duplicate", "Ask"),
            (Class::Rounding, "compare.rounding", "Explain"),
            (Class::Tax, "compare.tax", "Explain"),
            (Class::Proration, "compare.proration", "Explain"),
            (Class::Usage, "compare.usage", "Explain"),
        ] {
            let words = class.words();
            assert!(words.0 == kind && words.1.len() > 10 && words.2.starts_with(advice), "{words:?}");
        }
    }
}
