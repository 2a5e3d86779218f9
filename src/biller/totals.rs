//! The sums of a batch, by currency. A sum that would leave 64 bits is refused, never clamped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::store::billing::NewLine;
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

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    pub lines: u64,
    sums: BTreeMap<String, Sum>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    lines: u64,
    amount: i64,
    tax: i64,
    total: i64,
}

impl Totals {
    /// The sums with these lines; `None`: one of them would leave 64 bits.
    pub fn with(&self, lines: &[NewLine]) -> Option<Self> {
        let mut grown = self.clone();
        for new in lines {
            let line = &new.stored.line;
            grown.lines += 1;
            let sum = grown.sums.entry(line.currency.clone()).or_default();
            sum.lines += 1;
            sum.amount = sum.amount.checked_add(new.amount_minor)?;
            sum.total = sum.total.checked_add(new.amount_minor)?;
            for tax in &line.tax {
                sum.tax = sum.tax.checked_add(tax.amount_minor())?;
                if !tax.inclusive {
                    sum.total = sum.total.checked_add(tax.amount_minor())?;
                }
            }
        }
        Some(grown)
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
                total: money(sum.total),
            })
        };
        self.sums.iter().filter_map(shown).collect()
    }
}
