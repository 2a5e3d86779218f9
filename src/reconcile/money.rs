//! What a difference in counts is worth: services more or fewer, times what one of them costs in a period.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::classify::Kind;
use super::tally::Cell;
use crate::account::{ServiceType, Status};
use crate::vocabulary::{Currency, Exact, Money, MoneyError, Rounding};

/// What one active service of a plan costs in a period, before taxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    pub amount: Exact,
    pub currency: Currency,
    /// Where that stands, in words.
    pub by: String,
}

/// The worth of a difference; `amount` is rounded once, half away from zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    pub plan: String,
    /// Active services: ours without theirs.
    pub delta: i64,
    /// `None`: the plan has no price of its own.
    pub rate: Option<String>,
    pub amount: Option<String>,
    pub currency: Option<Currency>,
    pub by: Option<String>,
}

/// The worth of each plan's difference, plans without one left out.
///
/// **Errors**: an amount that does not fit.
pub fn effects(kinds: &BTreeMap<Kind, Cell>, rates: &BTreeMap<String, Rate>) -> Result<Vec<Effect>, MoneyError> {
    let mut found = Vec::new();
    for (kind, cell) in kinds.iter().filter(|(kind, _)| kind.status == Status::Active) {
        let count = |count: u64| i64::try_from(count).map_err(|_| MoneyError::Overflow);
        let delta = count(cell.ours)? - count(cell.theirs)?;
        if delta == 0 {
            continue;
        }
        let rate = rates.get(&kind.plan);
        let amount = rate.map(|rate| {
            let exact = rate.amount.checked_mul(Exact::from_int(i128::from(delta)));
            let exact = exact.map_err(|_| MoneyError::Overflow)?;
            Money::round(exact, rate.currency, rate.currency.minor_digits(), Rounding::HalfUp)
        });
        found.push(Effect {
            service_type: kind.service_type,
            plan: kind.plan.clone(),
            delta,
            rate: rate.map(|rate| rate.amount.to_string()),
            amount: amount.transpose()?.map(|amount| amount.to_string()),
            currency: rate.map(|rate| rate.currency),
            by: rate.map(|rate| rate.by.clone()),
        });
    }
    Ok(found)
}
