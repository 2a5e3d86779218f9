//! The sums of a batch, by currency. They may leave 64 bits; what a single account owes may not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::store::billing::NewLine;
use crate::vocabulary::Currency;

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
    amount: i128,
    tax: i128,
    total: i128,
}

impl Totals {
    /// The sums with the lines of one more account. **Errors**: what it owes is more than an amount of money holds.
    pub fn with(&self, lines: &[NewLine]) -> Result<Self, String> {
        let mut own: BTreeMap<&str, Sum> = BTreeMap::new();
        for new in lines {
            let line = &new.stored.line;
            let sum = own.entry(line.currency.as_str()).or_default();
            sum.lines += 1;
            sum.amount += i128::from(new.amount_minor);
            sum.total += i128::from(new.amount_minor);
            for tax in &line.tax {
                let amount = i128::from(tax.amount_minor());
                sum.tax += amount;
                sum.total += if tax.inclusive { 0 } else { amount };
            }
        }
        let mut grown = self.clone();
        for (currency, own) in own {
            let holds = |sum: i128| i64::try_from(sum).is_ok();
            if ![own.amount, own.tax, own.total].into_iter().all(holds) {
                let owed =
                    currency.parse::<Currency>().map_or_else(|_| own.total.to_string(), |of| of.shown(own.total));
                return Err(format!(
                    "its {} lines come to {owed} {currency}, more than 64 bits of minor units hold",
                    own.lines
                ));
            }
            grown.lines += own.lines;
            let sum = grown.sums.entry(currency.to_owned()).or_default();
            sum.lines += own.lines;
            sum.amount += own.amount;
            sum.tax += own.tax;
            sum.total += own.total;
        }
        Ok(grown)
    }

    pub fn list(&self) -> Vec<Total> {
        let shown = |(code, sum): (&String, &Sum)| {
            let currency: Currency = code.parse().ok()?;
            let money = |minor: i128| currency.shown(minor);
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
