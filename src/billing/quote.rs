//! Prices a tariff for quantities somebody names: what `tariff price` prints. No account, no calendar, one whole period.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lines::{TaxShape, TierShape};
use super::price::{Measure, Priced, price, whole_steps};
use super::tariff::{Charge, ChargeKind, Level, Meter, Tariff};
use super::tax::{Exemption, TaxesDue, levy};
use crate::vocabulary::{Exact, ExactError, Fault, Faults, Money, MoneyError};

/// The quantities to price, by charge id.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// In the charge's unit, before it is quantized.
    #[serde(default)]
    pub quantities: BTreeMap<String, String>,
    /// How many events, for prices per event.
    #[serde(default)]
    pub events: BTreeMap<String, u64>,
}

/// Every charge of the tariff with its price, and the sum with exclusive tax.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quote {
    pub lines: Vec<QuoteLine>,
    pub total: String,
    pub currency: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuoteLine {
    pub charge: String,
    pub quantity: String,
    pub allowance_used: String,
    pub amount_exact: String,
    pub amount: String,
    pub tiers: Vec<TierShape>,
    pub adjustments: Vec<super::lines::AdjustmentShape>,
    pub tax: Vec<TaxShape>,
}

#[derive(Debug, thiserror::Error)]
pub enum QuoteError {
    #[error("the quantities name what the tariff does not have")]
    Sample(Vec<Fault>),
    #[error(transparent)]
    Exact(#[from] ExactError),
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// Prices every charge of `tariff`; a usage or count charge the sample does not name was not used.
/// Promotions, bundles and trials are a subscriber's, and none is here.
pub fn quote(tariff: &Tariff, sample: &Sample) -> Result<Quote, QuoteError> {
    let quantities = checked(tariff, sample).map_err(QuoteError::Sample)?;
    let mut total = Money::zero(tariff.currency);
    let mut lines = Vec::with_capacity(tariff.charges.len());
    for charge in &tariff.charges {
        let quantity = match &charge.kind {
            // What a call costs depends on the number called, which a sample does not name.
            ChargeKind::Usage(usage) if usage.meter == Meter::Calls => Exact::ZERO,
            ChargeKind::Usage(usage) => {
                let quantity = quantities.get(charge.id.as_str()).copied().unwrap_or(Exact::ZERO);
                match usage.quantize {
                    // A sample is the usage of one session on one day.
                    Some(step) if usage.quantize_at != Level::Cycle => whole_steps(quantity, step)?,
                    _ => quantity,
                }
            }
            ChargeKind::Count(_) => quantities.get(charge.id.as_str()).copied().unwrap_or(Exact::ZERO),
            _ => Exact::ONE,
        };
        let events = sample.events.get(&charge.id).copied().unwrap_or(0);
        let priced = price(tariff, charge, &Measure::whole(quantity, events))?;
        let rounding = tariff.rounding;
        let amount = Money::round(priced.amount, tariff.currency, rounding.places, rounding.mode)?;
        let nobody = Exemption { all: false, taxes: &[] };
        let taxes = levy(&TaxesDue::of(tariff, charge, nobody).paid, amount, rounding)?;
        total = total.checked_add(amount)?;
        for tax in taxes.iter().filter(|tax| !tax.inclusive) {
            total = total.checked_add(tax.amount)?;
        }
        lines.push(line(charge, &priced, amount, taxes.iter().map(TaxShape::of).collect()));
    }
    Ok(Quote { lines, total: total.to_string(), currency: tariff.currency.to_string() })
}

fn line(charge: &Charge, priced: &Priced, amount: Money, tax: Vec<TaxShape>) -> QuoteLine {
    QuoteLine {
        charge: charge.id.clone(),
        quantity: priced.quantity.to_string(),
        allowance_used: priced.allowance_used.to_string(),
        amount_exact: priced.amount.to_string(),
        amount: amount.to_string(),
        tiers: priced.tiers.iter().map(TierShape::of).collect(),
        adjustments: priced.adjustments.iter().map(super::lines::AdjustmentShape::of).collect(),
        tax,
    }
}

fn checked<'s>(tariff: &Tariff, sample: &'s Sample) -> Result<BTreeMap<&'s str, Exact>, Vec<Fault>> {
    let mut faults = Faults::new();
    let mut quantities = BTreeMap::new();
    let is_usage = |id: &str| match tariff.charge(id).map(|charge| &charge.kind) {
        Some(ChargeKind::Usage(usage)) => usage.meter != Meter::Calls,
        Some(ChargeKind::Count(_)) => true,
        _ => false,
    };
    for (id, text) in &sample.quantities {
        let pointer = format!("/quantities/{id}");
        match text.parse::<Exact>() {
            _ if !is_usage(id) => faults
                .add(pointer, format!("tariff {} has no usage charge `{id}` that a quantity could price", tariff.id)),
            Ok(quantity) if quantity.is_negative() => faults.add(pointer, "a quantity is not below zero"),
            Ok(quantity) => {
                quantities.insert(id.as_str(), quantity);
            }
            Err(error) => faults.add(pointer, error.to_string()),
        }
    }
    for id in sample.events.keys().filter(|id| !is_usage(id)) {
        faults.add(format!("/events/{id}"), format!("there is no usage charge `{id}` in tariff {}", tariff.id));
    }
    faults.settle(quantities)
}

#[cfg(test)]
mod tests;
