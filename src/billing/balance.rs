//! What an account has used and owes of the period that runs: the lines a bill run would emit for it now, with what is left
//! of their allowances.

use serde::Serialize;

use super::facts::RunContext;
use super::lines::{BucketShape, StoredLine, TaxShape};
use super::tariff::ChargeKind;
use crate::vocabulary::{Exact, Period};

/// The balance of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// External id.
    pub account: String,
    pub cycle: String,
    pub period: Period,
    /// The last ledger sequence that counted; a run with the same one emits the same.
    pub watermark: i64,
    /// What is not invoiced yet of the period, in the order of the invoice.
    pub items: Vec<BalanceItem>,
}

/// One charge of one service so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BalanceItem {
    /// External id.
    pub service: Option<String>,
    pub charge: String,
    pub used: String,
    pub unit: String,
    /// What the price includes in this period, with what was carried and topped up for all that share it; `None`: nothing.
    pub allowance: Option<String>,
    pub allowance_left: Option<String>,
    /// Of an allowance that is shared, rolled over or topped up: everything there is, in the order in which it is used up.
    /// It stands with the last of those that share it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<BucketShape>,
    pub amount: String,
    pub tax: Vec<TaxShape>,
    pub currency: String,
}

/// The balance that follows from the lines a run of the context's period would emit; those of other periods are left out.
pub fn balance(account: &str, watermark: i64, context: &RunContext, lines: &[StoredLine]) -> Balance {
    let running = lines.iter().filter(|stored| stored.line.period == context.period);
    Balance {
        account: account.to_owned(),
        cycle: context.cycle.id.clone(),
        period: context.period.clone(),
        watermark,
        items: running.map(|stored| item(context, stored)).collect(),
    }
}

fn item(context: &RunContext, stored: &StoredLine) -> BalanceItem {
    let line = &stored.line;
    let versions = context.tariffs.get(&line.tariff.id).map(Vec::as_slice).unwrap_or_default();
    let version = versions.iter().find(|version| version.tariff.version == line.tariff.version);
    let charge = version.and_then(|version| version.tariff.charge(&line.charge));
    let allowance = charge.and_then(|charge| match &charge.kind {
        ChargeKind::Usage(usage) => usage.allowance,
        _ => None,
    });
    let included = allowance.and_then(|allowance| {
        let share = if allowance.prorate { stored.basis.share.0 } else { Exact::ONE };
        allowance.amount.checked_mul(share).ok()
    });
    let left = included.and_then(|included| included.checked_sub(stored.basis.allowance_used.0).ok());
    let shared = line.allowance.as_ref();
    BalanceItem {
        service: line.service.clone(),
        charge: line.charge.clone(),
        used: stored.basis.quantity.0.to_string(),
        unit: line.unit.clone(),
        allowance: shared.and_then(|shared| shared.available.clone()).or(included.map(|included| included.to_string())),
        allowance_left: shared.and_then(|shared| shared.left.clone()).or(left.map(|left| left.to_string())),
        buckets: shared.map(|shared| shared.buckets.clone()).unwrap_or_default(),
        amount: line.amount.clone(),
        tax: line.tax.clone(),
        currency: line.currency.clone(),
    }
}

#[cfg(test)]
mod tests;
