//! Prices one quantity of one charge, exactly: quantize, allowance, model, discount, maximum, minimum, in this order.
//!
//! Nothing is rounded here but the quantity, where the tariff says so. A part of a price is never rounded at all.

use super::tariff::{Charge, ChargeKind, Discount, DiscountKind, Level, Model, Quantize, Tariff, Tier, Tiers, Usage};
use crate::vocabulary::{Exact, ExactError};

/// What is priced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// Usage in the charge's unit before the cycle's sum is quantized; how many times a recurring or one-off amount is due.
    pub quantity: Exact,
    /// What parts of the usage cost that have a price of their own.
    pub apart: Exact,
    /// Sessions, for prices per event.
    pub events: u64,
    /// The billed part of the period, from 0 to 1.
    pub share: Exact,
    /// What of a shared allowance is used here; `None`: the charge's own allowance is all there is.
    pub granted: Option<Exact>,
    /// Periods since the one the service's billing began in; discounts end by it.
    pub cycle_index: u32,
}

/// A price with its whole computation: `amount` = Σ tiers + Σ adjustments, for recurring charges Σ adjustments alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    /// After quantizing.
    pub quantity: Exact,
    pub allowance: Option<Exact>,
    pub allowance_used: Exact,
    pub tiers: Vec<PricedTier>,
    pub adjustments: Vec<Adjustment>,
    pub amount: Exact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PricedTier {
    pub quantity: Exact,
    pub unit_amount: Exact,
    pub flat_amount: Exact,
    pub amount: Exact,
}

/// One step of the computation that is no tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    pub kind: AdjustmentKind,
    pub amount: Exact,
    /// Which discount it is, in words.
    pub origin: Option<String>,
}

/// A conditional discount that is given for a part of the billed time, above 0 and at most 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    pub discount: String,
    pub part: Exact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdjustmentKind {
    /// The full price of a recurring or one-off charge.
    Price,
    /// Usage in windows and classes that have a price of their own.
    OwnPrice,
    /// What the unbilled part of the period takes off.
    Proration,
    Discount,
    Maximum,
    Minimum,
    /// Inclusive taxes an exempt account does not pay.
    TaxExempt,
    /// What earlier lines of the same item have charged.
    AlreadyIssued,
}

impl AdjustmentKind {
    pub fn as_str(self) -> &'static str {
        match self {
            AdjustmentKind::Price => "price",
            AdjustmentKind::OwnPrice => "own_price",
            AdjustmentKind::Proration => "proration",
            AdjustmentKind::Discount => "discount",
            AdjustmentKind::Maximum => "maximum",
            AdjustmentKind::Minimum => "minimum",
            AdjustmentKind::TaxExempt => "tax_exempt",
            AdjustmentKind::AlreadyIssued => "already_issued",
        }
    }
}

impl Measure {
    /// A whole first period.
    pub fn whole(quantity: Exact, events: u64) -> Self {
        Self { quantity, apart: Exact::ZERO, events, share: Exact::ONE, granted: None, cycle_index: 0 }
    }
}

/// The exact price of a charge. **Errors**: an exact value left 128 bits; the account's bill stops.
pub fn price(tariff: &Tariff, charge: &Charge, measure: &Measure) -> Result<Priced, ExactError> {
    price_with(tariff, charge, measure, &[])
}

/// As `price`, with the conditional discounts that are given.
pub fn price_with(
    tariff: &Tariff,
    charge: &Charge,
    measure: &Measure,
    granted: &[Granted],
) -> Result<Priced, ExactError> {
    let mut priced = match &charge.kind {
        ChargeKind::Recurring(recurring) => fixed(recurring.amount, measure)?,
        ChargeKind::OneOff { amount } | ChargeKind::Deposit { amount } => {
            fixed(*amount, &Measure { share: Exact::ONE, ..*measure })?
        }
        ChargeKind::Usage(usage) => used(usage, measure)?,
        ChargeKind::Count(count) => used(&count.pricing, measure)?,
    };
    let discounts = tariff.discounts.iter().filter(|discount| discount.applies_to.contains(&charge.id));
    let share = match &charge.kind {
        ChargeKind::Usage(usage) if !usage.prorate_tiers => Exact::ONE,
        ChargeKind::OneOff { .. } | ChargeKind::Deposit { .. } | ChargeKind::Count(_) => Exact::ONE,
        _ => measure.share,
    };
    for discount in discounts {
        let part = match granted.iter().find(|granted| granted.discount == discount.id) {
            _ if discount.condition.is_always() => {
                let runs = discount.cycles.is_none_or(|cycles| measure.cycle_index < cycles);
                if runs { Exact::ONE } else { continue }
            }
            Some(granted) => granted.part,
            None => continue,
        };
        let off = discount_of(discount, priced.amount, share, part)?;
        priced.adjust(AdjustmentKind::Discount, off.checked_neg()?)?;
        if let (false, Some(step)) = (off.is_zero(), priced.adjustments.last_mut()) {
            step.origin = discount.origin.clone();
        }
    }
    match &charge.kind {
        ChargeKind::Usage(usage) => limit(usage, &mut priced, share)?,
        ChargeKind::Count(count) => limit(&count.pricing, &mut priced, share)?,
        _ => {}
    }
    Ok(priced)
}

impl Priced {
    /// A charge that is not due at all: not even its minimum.
    pub fn nothing() -> Self {
        Self {
            quantity: Exact::ZERO,
            allowance: None,
            allowance_used: Exact::ZERO,
            tiers: Vec::new(),
            adjustments: Vec::new(),
            amount: Exact::ZERO,
        }
    }

    /// Adds a step; a step of nothing is none.
    pub fn adjust(&mut self, kind: AdjustmentKind, amount: Exact) -> Result<(), ExactError> {
        if !amount.is_zero() {
            self.amount = self.amount.checked_add(amount)?;
            self.adjustments.push(Adjustment { kind, amount, origin: None });
        }
        Ok(())
    }
}

/// A fixed amount, times its quantity, for the billed part of the period.
fn fixed(amount: Exact, measure: &Measure) -> Result<Priced, ExactError> {
    let full = amount.checked_mul(measure.quantity)?;
    let part = full.checked_mul(measure.share)?;
    let mut priced = Priced {
        quantity: measure.quantity,
        allowance: None,
        allowance_used: Exact::ZERO,
        tiers: Vec::new(),
        adjustments: Vec::new(),
        amount: Exact::ZERO,
    };
    priced.adjust(AdjustmentKind::Price, full)?;
    priced.adjust(AdjustmentKind::Proration, part.checked_sub(full)?)?;
    Ok(priced)
}

fn used(usage: &Usage, measure: &Measure) -> Result<Priced, ExactError> {
    let quantity = quantity_of(usage, measure)?;
    let allowance = allowance_of(usage, measure)?;
    let allowance_used = measure.granted.or(allowance).map_or(Exact::ZERO, |allowance| allowance.min(quantity));
    let mut beyond = quantity.checked_sub(allowance_used)?;
    if let Some(block) = usage.block {
        beyond = whole_steps(beyond, block)?;
    }
    let scale = if usage.prorate_tiers { measure.share } else { Exact::ONE };
    let (tiers, amount) = match laddered(&usage.model, beyond, scale) {
        Some(found) => found,
        None => tiers_of(&usage.model, beyond, scale, measure.events)?,
    };
    let mut priced = Priced { quantity, allowance, allowance_used, tiers, adjustments: Vec::new(), amount };
    priced.adjust(AdjustmentKind::OwnPrice, measure.apart)?;
    Ok(priced)
}

/// Graduated tiers in whole numbers; `None`: it takes fractions.
fn laddered(model: &Model, quantity: Exact, scale: Exact) -> Option<(Vec<PricedTier>, Exact)> {
    let (Model::Graduated(tiers) | Model::GraduatedPercentage(tiers)) = model else { return None };
    tiers.ladder.as_ref().filter(|_| scale == Exact::ONE)?.price(&tiers.list, quantity)
}

/// The tiers of a quantity and their sum, in fractions.
fn tiers_of(model: &Model, beyond: Exact, scale: Exact, events: u64) -> Result<(Vec<PricedTier>, Exact), ExactError> {
    let tiers = match model {
        // Priced one by one, apart.
        Model::Rates(_) => Vec::new(),
        Model::Standard { unit_amount } => vec![tier_of(beyond, *unit_amount, Exact::ZERO)?],
        Model::Graduated(tiers) | Model::GraduatedPercentage(tiers) => graduated(tiers, beyond, scale)?,
        Model::Volume(tiers) => volume(tiers, beyond, scale)?,
        Model::Package { size, amount, free_units } => {
            let priced = beyond.checked_sub(*free_units)?.max(Exact::ZERO);
            let packages = Exact::from_int(priced.checked_div(*size)?.ceil());
            vec![tier_of(packages, *amount, Exact::ZERO)?]
        }
        Model::Percentage { rate, fixed_amount } => {
            let flat = fixed_amount.checked_mul(Exact::from_int(i128::from(events)))?;
            vec![tier_of(beyond, rate.checked_div(Exact::from_int(100))?, flat)?]
        }
    };
    let mut amount = Exact::ZERO;
    for tier in &tiers {
        amount = amount.checked_add(tier.amount)?;
    }
    Ok((tiers, amount))
}

/// What the allowance and the model see.
pub(super) fn quantity_of(usage: &Usage, measure: &Measure) -> Result<Exact, ExactError> {
    match usage.quantize {
        Some(quantize) if usage.quantize_at == Level::Cycle => whole_steps(measure.quantity, quantize),
        _ => Ok(measure.quantity),
    }
}

/// The charge's own allowance in the billed part of the period.
pub(super) fn allowance_of(usage: &Usage, measure: &Measure) -> Result<Option<Exact>, ExactError> {
    match usage.allowance {
        Some(allowance) if allowance.prorate => allowance.amount.checked_mul(measure.share).map(Some),
        Some(allowance) => Ok(Some(allowance.amount)),
        None => Ok(None),
    }
}

/// The quantity in whole steps.
pub(super) fn whole_steps(quantity: Exact, quantize: Quantize) -> Result<Exact, ExactError> {
    let steps = quantize.mode.whole(quantity.checked_div(quantize.step)?);
    Exact::from_int(steps).checked_mul(quantize.step)
}

/// Each part of the quantity at the price of its tier (previous bound, bound].
fn graduated(tiers: &Tiers, quantity: Exact, scale: Exact) -> Result<Vec<PricedTier>, ExactError> {
    if quantity.is_zero() {
        return nothing_used(tiers, scale);
    }
    let mut parts = Vec::new();
    let mut below = Exact::ZERO;
    for tier in &tiers.list {
        if quantity <= below {
            break;
        }
        let bound = match tier.up_to {
            Some(up_to) => up_to.checked_mul(scale)?.min(quantity),
            None => quantity,
        };
        let part = bound.checked_sub(below)?;
        parts.push(tier_of(part, tier.unit_amount, tier.flat_amount.checked_mul(scale)?)?);
        below = bound;
    }
    Ok(parts)
}

/// The whole quantity at the price of the tier it reaches.
fn volume(tiers: &Tiers, quantity: Exact, scale: Exact) -> Result<Vec<PricedTier>, ExactError> {
    if quantity.is_zero() {
        return nothing_used(tiers, scale);
    }
    for tier in &tiers.list {
        let reached = match tier.up_to {
            Some(up_to) => quantity <= up_to.checked_mul(scale)?,
            None => true,
        };
        if reached {
            return Ok(vec![tier_of(quantity, tier.unit_amount, tier.flat_amount.checked_mul(scale)?)?]);
        }
    }
    Ok(Vec::new())
}

fn nothing_used(tiers: &Tiers, scale: Exact) -> Result<Vec<PricedTier>, ExactError> {
    match tiers.list.first() {
        Some(Tier { unit_amount, flat_amount, .. }) if tiers.flat_at_zero => {
            Ok(vec![tier_of(Exact::ZERO, *unit_amount, flat_amount.checked_mul(scale)?)?])
        }
        _ => Ok(Vec::new()),
    }
}

fn tier_of(quantity: Exact, unit_amount: Exact, flat_amount: Exact) -> Result<PricedTier, ExactError> {
    let amount = quantity.checked_mul(unit_amount)?.checked_add(flat_amount)?;
    Ok(PricedTier { quantity, unit_amount, flat_amount, amount })
}

fn discount_of(discount: &Discount, amount: Exact, share: Exact, part: Exact) -> Result<Exact, ExactError> {
    match discount.kind {
        DiscountKind::Percent(percent) => {
            amount.checked_mul(part)?.checked_mul(percent.checked_div(Exact::from_int(100))?)
        }
        DiscountKind::Amount(value) => Ok(value.checked_mul(share)?.checked_mul(part)?.min(amount)),
    }
}

fn limit(usage: &Usage, priced: &mut Priced, scale: Exact) -> Result<(), ExactError> {
    if let Some(maximum) = usage.maximum {
        let maximum = maximum.checked_mul(scale)?;
        if priced.amount > maximum {
            priced.adjust(AdjustmentKind::Maximum, maximum.checked_sub(priced.amount)?)?;
        }
    }
    if let Some(minimum) = usage.minimum {
        let minimum = minimum.checked_mul(scale)?;
        if priced.amount < minimum {
            priced.adjust(AdjustmentKind::Minimum, minimum.checked_sub(priced.amount)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
