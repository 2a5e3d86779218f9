//! What a person must look at before a month's bills go out: each finding says what it is about, its numbers, what to do.
//!
//! In: facts of the batch and of what stands behind it. Out: findings; the same facts give the same ids, so that what was
//! waived stays waived until its numbers change.

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::vocabulary::{Currency, Timestamp, hex};

/// Something a check or a comparison has found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub kind: &'static str,
    /// What it is about.
    pub subject: String,
    /// A sentence for a person.
    pub detail: String,
    /// What to do about it.
    pub advice: &'static str,
    pub numbers: Value,
}

impl Finding {
    /// Its id in a period of a cycle. Numbers that grow by themselves are no part of it.
    pub fn id(&self, tenant: &str, cycle: &str, period_start: Timestamp) -> String {
        let mut hash = Sha256::new();
        let numbers = if GROWING.contains(&self.kind) { String::new() } else { self.numbers.to_string() };
        let start = period_start.as_microsecond().to_string();
        for part in [tenant, cycle, &start, self.kind, &self.subject, &numbers] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        format!("fd_{}", hex(&hash.finalize()[..ID_BYTES]))
    }
}

/// An account's bill of a period, and what its earlier periods came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// `source/account`.
    pub account: String,
    pub currency: Currency,
    pub minor: i128,
    pub earlier_minor: i128,
    pub earlier_periods: i64,
}

/// What is odd about a bill.
pub fn judge(bill: &Bill) -> Option<Finding> {
    let money = |minor: i128| bill.currency.shown(minor);
    let amount = money(bill.minor);
    let (minor, earlier, periods) = (bill.minor, bill.earlier_minor, i128::from(bill.earlier_periods));
    let finding = |kind, detail: String, advice| {
        let numbers = json!({ "amount": amount, "currency": bill.currency, "earlier": money(bill.earlier_minor),
            "earlier_periods": bill.earlier_periods });
        Some(Finding { kind, subject: bill.account.clone(), detail, advice, numbers })
    };
    if bill.minor == 0 {
        let detail = format!("The bill of {} is 0.", bill.account);
        return finding("zero_bill", detail, "Look at its plan and price with `bill run --dry-run`, or waive it.");
    }
    if bill.minor < 0 {
        let detail = format!("The bill of {} is {amount} {}.", bill.account, bill.currency);
        return finding("negative_bill", detail, "Look at its credits with `line list --account`, or waive it.");
    }
    if earlier > 0 && minor * periods > earlier * HIGH {
        let average = money(earlier / periods);
        let detail = format!(
            "The bill of {} is {amount} {}, more than three times the {average} of its {} earlier periods.",
            bill.account, bill.currency, bill.earlier_periods
        );
        return finding("high_bill", detail, "Explain its largest line with `line explain`, or waive it.");
    }
    None
}

const ID_BYTES: usize = 10;
/// A bill is high above this many averages.
const HIGH: i128 = 3;
/// Kinds whose numbers move while somebody looks; waived once, they stay so for the period.
const GROWING: [&str; 4] = ["silent_nas", "watermark_lag", "unattributed_usage", "open_exception"];

#[cfg(test)]
mod tests {
    use super::*;

    fn bill(minor: i128, earlier_minor: i128, earlier_periods: i64) -> Bill {
        let currency = "USD".parse().expect("a currency");
        Bill { account: "default/1".to_owned(), currency, minor, earlier_minor, earlier_periods }
    }

    #[test]
    fn bill_is_odd_when_it_is_nothing_negative_or_above_three_averages() {
        let kind = |bill: &Bill| judge(bill).map(|finding| finding.kind);
        assert_eq!(kind(&bill(0, 5000, 1)), Some("zero_bill"));
        assert_eq!(kind(&bill(-1, 5000, 1)), Some("negative_bill"));
        assert_eq!(kind(&bill(15_000, 10_000, 2)), None);
        assert_eq!(kind(&bill(15_001, 10_000, 2)), Some("high_bill"));
        let beyond = i128::from(i64::MAX) * 7;
        assert_eq!(kind(&bill(beyond, 0, 0)), None);
        assert_eq!(kind(&bill(beyond, beyond, 1)), None);
        assert_eq!(kind(&bill(beyond, i128::from(i64::MAX) * 2, 1)), Some("high_bill"));
        assert_eq!(kind(&bill(5_000, 0, 2)), None, "three times nothing is no measure");
    }

    #[test]
    fn waived_bill_is_found_again_when_its_numbers_change() {
        let start = Timestamp::UNIX_EPOCH;
        let id = |bill: &Bill| judge(bill).expect("odd").id("acme", "c15", start);
        assert_eq!(id(&bill(40_000, 10_000, 1)), id(&bill(40_000, 10_000, 1)));
        assert_ne!(id(&bill(40_000, 10_000, 1)), id(&bill(90_000, 10_000, 1)));
    }
}
