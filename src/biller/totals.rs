//! The sums of a batch, by currency.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::billing::lines::Line;
use crate::vocabulary::{Currency, Money};

/// Sums of the lines of one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    pub currency: String,
    pub lines: u64,
    /// Σ amount of the lines.
    pub amount: String,
    /// Exclusive and inclusive taxes.
    pub tax: String,
    /// Σ amount + exclusive tax.
    pub total: String,
}

#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub lines: u64,
    sums: BTreeMap<String, Sum>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    lines: u64,
    amount: i64,
    tax: i64,
    exclusive: i64,
}

impl Totals {
    pub fn add(&mut self, line: &Line) {
        self.lines += 1;
        let sum = self.sums.entry(line.currency.clone()).or_default();
        sum.lines += 1;
        sum.amount = sum.amount.saturating_add(line.amount_minor());
        for tax in &line.tax {
            sum.tax = sum.tax.saturating_add(tax.amount_minor());
            if !tax.inclusive {
                sum.exclusive = sum.exclusive.saturating_add(tax.amount_minor());
            }
        }
    }

    pub fn list(&self) -> Vec<Total> {
        let shown = |(code, sum): (&String, &Sum)| {
            let currency: Currency = code.parse().ok()?;
            let money = |minor: i64| Money::new(minor, currency).to_string();
            Some(Total {
                currency: code.clone(),
                lines: sum.lines,
                amount: money(sum.amount),
                tax: money(sum.tax),
                total: money(sum.amount.saturating_add(sum.exclusive)),
            })
        };
        self.sums.iter().filter_map(shown).collect()
    }
}
