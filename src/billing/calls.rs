//! Rates telephone calls: each call by the rate of the longest prefix of the number called.
//!
//! A call belongs to the moment it began. Its length is billed in increments: the first one whole, then further ones
//! begun. A call costs its connection fee and its billed time, at least the rate's minimum; nothing is rounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::facts::UsageEntry;
use super::parts::Part;
use super::run::RunError;
use super::tariff::{Charge, Rate, Rates};
use crate::vocabulary::{Exact, ExactError, Timestamp};

/// All calls of the billed time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RatedCalls {
    /// Seconds talked.
    pub seconds: i64,
    pub calls: u64,
    /// Billed time in the charge's unit.
    pub quantity: Exact,
    pub amount: Exact,
    /// By prefix.
    pub parts: Vec<Part>,
}

/// Whether the entry is of a call that began in the billed time.
pub fn is_billed(entry: &UsageEntry, coverage: &[(Timestamp, Timestamp)]) -> bool {
    entry.call.is_some() && coverage.iter().any(|(from, until)| *from <= entry.from && entry.from < *until)
}

/// Rates the calls among the entries. **Errors**: a call that no prefix fits; the account's bill stops, because a call
/// that is left out is a wrong cent.
pub fn rate_calls(
    charge: &Charge,
    rates: &Rates,
    unit_size: u64,
    coverage: &[(Timestamp, Timestamp)],
    entries: &[UsageEntry],
) -> Result<RatedCalls, RunError> {
    // An entry that takes a call back is of the same call.
    let mut calls: BTreeMap<i64, (&Arc<str>, i64, i64)> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| is_billed(entry, coverage)) {
        let Some(called) = &entry.call else { continue };
        let call = calls.entry(entry.session).or_insert((called, 0, 0));
        call.1 += entry.seconds;
        call.2 += entry.sessions;
    }
    let mut by_prefix: BTreeMap<&str, Part> = BTreeMap::new();
    let mut all = RatedCalls { seconds: 0, calls: 0, quantity: Exact::ZERO, amount: Exact::ZERO, parts: Vec::new() };
    for (called, seconds, count) in calls.into_values().filter(|(_, _, count)| *count != 0) {
        let (prefix, rate) = rates.of(called).ok_or_else(|| RunError::NoRate {
            charge: charge.id.clone(),
            // Enough to find the missing rate, too little to tell whom was called.
            beginning: called.chars().take(SHOWN_DIGITS).collect(),
        })?;
        let billed = Exact::ratio(i128::from(rate.billed_seconds(seconds)), i128::from(unit_size))?;
        let amount = billed.checked_mul(rate.unit_amount)?.checked_add(rate.connection)?.max(rate.minimum);
        let part = by_prefix.entry(prefix).or_insert_with(|| Part::of_prefix(prefix, rate.unit_amount));
        part.raw = part.raw.checked_add(seconds).ok_or(ExactError::Overflow)?;
        part.calls = part.calls.map(|calls| calls + count.unsigned_abs());
        part.quantity = part.quantity.checked_add(billed)?;
        part.amount = part.amount.checked_add(amount)?;
        all.seconds = all.seconds.checked_add(seconds).ok_or(ExactError::Overflow)?;
        all.calls += count.unsigned_abs();
        all.quantity = all.quantity.checked_add(billed)?;
        all.amount = all.amount.checked_add(amount)?;
    }
    all.parts = by_prefix.into_values().collect();
    Ok(all)
}

impl Rates {
    /// The rate of the longest prefix of the number, and that prefix.
    pub fn of(&self, called: &str) -> Option<(&str, &Rate)> {
        let ends = called.char_indices().map(|(at, c)| at + c.len_utf8()).rev().chain([0]);
        ends.filter_map(|end| called.get(..end))
            .find_map(|beginning| self.by_prefix.get_key_value(beginning).map(|(prefix, rate)| (prefix.as_str(), rate)))
    }
}

impl Rate {
    /// The first increment whole, then whole further ones.
    pub fn billed_seconds(&self, seconds: i64) -> i64 {
        let (first, then) = (i64::from(self.first_seconds), i64::from(self.then_seconds));
        if seconds <= first { first } else { first + (seconds - first + then - 1) / then * then }
    }
}

const SHOWN_DIGITS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::tariff::{ChargeKind, Model, Tariff};
    use proptest::prelude::*;

    const RATES: &str = "rates = [\n\
        { prefix = \"+1\", unit_amount = \"0.02\", connection = \"0.05\" },\n\
        { prefix = \"+1800\", unit_amount = \"0\", connection = \"0\" },\n\
        { prefix = \"+4420\", unit_amount = \"0.10\", increments = \"1/1\", minimum = \"0.25\" },\n]";

    fn charge(rates: &str) -> Charge {
        let text = format!(
            "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"calls\"\n\
             type = \"usage\"\nmeter = \"calls\"\nunit = \"min\"\nincrements = \"60/30\"\n{rates}\n"
        );
        Tariff::read("t.toml", &text).expect("a sound tariff of the test").charges.remove(0)
    }

    fn call(id: i64, called: &str, seconds: i64) -> UsageEntry {
        let from = Timestamp::from_second(1_793_491_200 + id).expect("in range");
        let until = Timestamp::from_second(from.as_second() + seconds).expect("in range");
        let call = Some(Arc::from(called));
        UsageEntry {
            sequence: id,
            session: -id,
            class: None,
            call,
            from,
            until,
            in_octets: 0,
            out_octets: 0,
            seconds,
            sessions: 1,
        }
    }

    fn rated(charge: &Charge, entries: &[UsageEntry]) -> Result<RatedCalls, RunError> {
        let ChargeKind::Usage(usage) = &charge.kind else { panic!("a usage charge") };
        let Model::Rates(rates) = &usage.model else { panic!("rates") };
        let coverage = [(entries[0].from, Timestamp::MAX)];
        rate_calls(charge, rates, usage.unit_size(), &coverage, entries)
    }

    #[test]
    fn each_call_costs_by_its_longest_prefix() {
        let charge = charge(RATES);
        for (called, seconds, amount) in [
            ("+15125550100", 1, "0.07"),
            ("+15125550100", 60, "0.07"),
            ("+15125550100", 61, "0.08"),
            ("+15125550100", 90, "0.08"),
            ("+15125550100", 91, "0.09"),
            ("+18005550100", 600, "0"),
            ("+442071234567", 30, "0.25"),
            ("+442071234567", 180, "0.3"),
        ] {
            assert_eq!(
                rated(&charge, &[call(1, called, seconds)]).expect(called).amount.to_string(),
                amount,
                "{called} {seconds}"
            );
        }
        let all = [call(1, "+15125550100", 61), call(2, "+15125550101", 10), call(3, "+18005550100", 600)];
        let found = rated(&charge, &all).expect("rated");
        assert_eq!(
            (found.calls, found.seconds, found.quantity.to_string(), found.amount.to_string()),
            (3, 671, "12.5".into(), "0.15".into())
        );
        let parts: Vec<String> = found
            .parts
            .iter()
            .map(|part| format!("{:?} {:?} {} {}", part.prefix, part.calls, part.raw, part.amount))
            .collect();
        assert_eq!(parts, ["Some(\"+1\") Some(2) 71 0.15", "Some(\"+1800\") Some(1) 600 0"]);
    }

    #[test]
    fn a_call_that_no_prefix_fits_stops_the_bill_and_one_taken_back_does_not() {
        let stray = call(1, "+33123456789", 10);
        let expected = RunError::NoRate { charge: "calls".to_owned(), beginning: "+33123".to_owned() };
        assert_eq!(rated(&charge(RATES), std::slice::from_ref(&stray)), Err(expected));
        let back = UsageEntry { sequence: 2, seconds: -10, sessions: -1, ..stray.clone() };
        assert_eq!(rated(&charge(RATES), &[stray.clone(), back]).map(|found| found.calls), Ok(0));
        let everything = RATES.replace("rates = [", "rates = [{ prefix = \"\", unit_amount = \"1\" },");
        assert_eq!(rated(&charge(&everything), &[stray]).map(|found| found.amount), Ok(Exact::ONE));
    }

    #[test]
    fn a_call_is_billed_where_it_begins() {
        let one = call(0, "+1512", 60);
        let before = |seconds: i64| Timestamp::from_second(one.from.as_second() + seconds).expect("in range");
        for (from, until, billed) in [(0, 1, true), (-5, 0, false), (1, 60, false), (-5, 5, true)] {
            assert_eq!(is_billed(&one, &[(before(from), before(until))]), billed, "{from} to {until}");
        }
        let data = UsageEntry { call: None, ..one.clone() };
        assert!(!is_billed(&data, &[(before(0), before(60))]), "octets are no call");
    }

    proptest! {
        #![proptest_config(crate::vocabulary::cases(10_000))]

        /// Billed time covers the call, by less than an increment more, and never shrinks with the call.
        #[test]
        fn increments_cover_the_call(first in 0u32..200, then in 1u32..100, seconds in 1i64..10_000) {
            let rate = Rate { unit_amount: Exact::ONE, connection: Exact::ZERO, minimum: Exact::ZERO, first_seconds: first, then_seconds: then };
            let billed = rate.billed_seconds(seconds);
            prop_assert!(billed >= seconds && (billed < seconds + i64::from(then) || billed == i64::from(first)));
            prop_assert!(rate.billed_seconds(seconds + 1) >= billed);
            prop_assert_eq!((billed - i64::from(first)) % i64::from(then), 0);
        }
    }
}
