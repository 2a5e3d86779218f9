//! Refuses prices whose exact value could leave 128 bits for some count of octets below 2^63.
//!
//! An amount is a fraction over the common denominator of the unit, the allowance, the bounds, the price and the
//! discounts; the sum of the bits of all factors bounds its numerator. What passes here can be rated for any usage.

use super::{Charge, ChargeKind, Discount, DiscountKind, Model, PartPrice, Rate, Usage};
use crate::vocabulary::Exact;

/// Why the charge cannot be rated exactly; `None` when it can.
pub fn fault_of(charge: &Charge, discounts: &[Discount]) -> Option<String> {
    let mut bits = PERIOD_BITS + SPARE_BITS;
    for discount in discounts.iter().filter(|discount| discount.applies_to.contains(&charge.id)) {
        bits += match discount.kind {
            // The factor left of the amount has the denominator of value / 100.
            DiscountKind::Percent(value) => bits_of(100 * value.denominator()),
            DiscountKind::Amount(value) => bits_of(value.denominator()),
        };
        // Given for a part of the billed time, in days or in microseconds.
        bits += if discount.condition.is_always() { 0 } else { PERIOD_BITS };
    }
    bits += match &charge.kind {
        ChargeKind::Recurring(recurring) => number_bits(recurring.amount) + PERIOD_SECOND_BITS,
        ChargeKind::OneOff { amount } | ChargeKind::Deposit { amount } => number_bits(*amount),
        ChargeKind::Usage(usage) => usage_bits(usage),
        ChargeKind::Count(count) => usage_bits(&count.pricing),
    };
    (bits > EXACT_BITS).then(|| {
        format!(
            "charge `{}` has too many digits: its amounts would need {bits} bits and exact arithmetic has {EXACT_BITS}; \
             use fewer decimal places or a larger unit",
            charge.id
        )
    })
}

fn usage_bits(usage: &Usage) -> u32 {
    let (mut prices, bounds) = numbers(&usage.model);
    let parts = usage.windows.iter().map(|window| window.price);
    let mut weight_places = 0;
    let mut weight_bits = 0;
    for part in parts.chain(usage.classes.values().map(|class| class.price)) {
        match part {
            PartPrice::Own(price) => prices.push(price),
            PartPrice::Weight(weight) => {
                weight_places = weight_places.max(weight.decimal_places().unwrap_or(0));
                weight_bits = weight_bits.max(bits_of(weight.ceil()));
            }
        }
    }
    // A class's weight and a window's multiply.
    weight_bits = 2 * (weight_bits + bits_of(10i128.pow(weight_places)) - 1);
    let price_scale = prices.iter().map(|number| number.denominator()).max().unwrap_or(1);
    let price_bits = prices.iter().map(|number| bits_of(number.ceil()) + bits_of(price_scale)).max().unwrap_or(0);
    let mut steps: Vec<Exact> = bounds;
    steps.extend(usage.allowance.map(|allowance| allowance.amount));
    let rollover = usage.allowance.and_then(|allowance| allowance.rollover);
    steps.extend(rollover.map(|rollover| rollover.max));
    // What is carried has the days of other periods as denominator, too.
    let carried = usage.allowance.is_some_and(|allowance| allowance.prorate && rollover.is_some());
    let carried_bits = if carried { PERIOD_BITS } else { 0 };
    steps.extend(usage.quantize.map(|quantize| quantize.step));
    steps.extend(usage.block.map(|block| block.step));
    let step_scale = steps.iter().map(|number| number.denominator()).max().unwrap_or(1);
    let limits = [usage.minimum, usage.maximum];
    let limit_bits = limits.iter().flatten().map(|limit| bits_of(limit.denominator())).max().unwrap_or(0);
    QUANTITY_BITS + carried_bits + weight_bits + price_bits + bits_of(step_scale) + limit_bits
}

/// The prices and the quantities of a model.
fn numbers(model: &Model) -> (Vec<Exact>, Vec<Exact>) {
    match model {
        Model::Standard { unit_amount } => (vec![*unit_amount], Vec::new()),
        Model::Graduated(tiers) | Model::Volume(tiers) | Model::GraduatedPercentage(tiers) => (
            tiers.list.iter().flat_map(|tier| [tier.unit_amount, tier.flat_amount]).collect(),
            tiers.list.iter().filter_map(|tier| tier.up_to).collect(),
        ),
        Model::Package { size, amount, free_units } => (vec![*amount], vec![*size, *free_units]),
        Model::Percentage { rate, fixed_amount } => {
            let rate = rate.checked_div(Exact::from_int(100)).unwrap_or(*rate);
            (vec![rate, *fixed_amount], Vec::new())
        }
        Model::Rates(rates) => {
            let of = |rate: &Rate| [rate.unit_amount, rate.connection, rate.minimum];
            (rates.by_prefix.values().flat_map(of).collect(), Vec::new())
        }
    }
}

fn number_bits(number: Exact) -> u32 {
    bits_of(number.numerator()) + bits_of(number.denominator())
}

fn bits_of(number: i128) -> u32 {
    i128::BITS - number.unsigned_abs().leading_zeros()
}

const EXACT_BITS: u32 = 127;
/// 2^63 octets; a unit only divides them, and multiplies the denominator by as much.
const QUANTITY_BITS: u32 = 63;
/// A prorated bound or allowance has the days of its period as denominator.
const PERIOD_BITS: u32 = 10;
/// Microseconds of 400 days, for amounts prorated by time.
const PERIOD_SECOND_BITS: u32 = 45;
/// Sums of tiers.
const SPARE_BITS: u32 = 7;
