//! From what was counted to what is priced: units, quantizing of sessions and days, weights, prices of parts, calls and
//! peaks.
//!
//! A class of its own price costs that, whatever the window; any other usage weighs its class's weight times its
//! window's, and is priced by the charge's model, or by its window's own price.

use super::calendar::CalendarError;
use super::calls::{is_billed, rate_calls};
use super::facts::UsageEntry;
use super::measure::{Counted, CountedPart, count};
use super::peak::{SLOT_SECONDS, octets_of_peak};
use super::price::whole_steps;
use super::run::RunError;
use super::tariff::{Charge, Level, Meter, Model, PartPrice, Rates, Usage};
use crate::vocabulary::{Exact, Timestamp, Zone};

/// A usage charge's quantity, and how it comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metered {
    pub counted: Counted,
    /// Σ of the parts' raw quantities: octets, seconds or sessions.
    pub raw: i64,
    pub events: u64,
    /// What the allowance and the model see, in the charge's unit: Σ weight × quantity of the parts without own price.
    pub quantity: Exact,
    /// What the parts with a price of their own cost.
    pub apart: Exact,
    /// Empty where the charge tells nothing apart.
    pub parts: Vec<Part>,
}

/// The usage of one class and window, or the calls to one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub class: Option<String>,
    pub window: Option<String>,
    /// Of calls: the beginning of the numbers called, and how many there were.
    pub prefix: Option<String>,
    pub calls: Option<u64>,
    pub raw: i64,
    /// In the charge's unit, quantized where sessions or days are.
    pub quantity: Exact,
    /// How often it counts in the charge's quantity; a part with a price of its own does not.
    pub weight: Exact,
    pub own_price: Option<Exact>,
    /// What it costs by its own price.
    pub amount: Exact,
}

/// Counts and weighs. **Errors**: usage below zero, or an exact value that left 128 bits; the account's bill stops.
pub fn meter(
    charge: &Charge,
    usage: &Usage,
    zone: &Zone,
    coverage: &[(Timestamp, Timestamp)],
    entries: &[UsageEntry],
) -> Result<Metered, RunError> {
    match &usage.model {
        Model::Rates(rates) => return calls(charge, usage, rates, zone, coverage, entries),
        _ if usage.meter == Meter::PeakBps95 => return peak(charge, usage, zone, coverage, entries),
        _ => {}
    }
    metered_sum(charge, usage, count(usage, zone, coverage, entries)?)
}

/// Weighs what was counted. **Errors**: as `meter`.
pub fn metered_sum(charge: &Charge, usage: &Usage, counted: Counted) -> Result<Metered, RunError> {
    let negative = |quantity: i128| RunError::NegativeUsage { charge: charge.id.clone(), quantity };
    let (mut raw, mut quantity, mut apart) = (0i128, Exact::ZERO, Exact::ZERO);
    let mut parts = Vec::with_capacity(counted.parts.len());
    for counted in &counted.parts {
        if let Some(below) = counted.counts.iter().find(|count| **count < 0) {
            return Err(negative(*below));
        }
        let part = weigh(charge, usage, counted)?;
        raw += counted.total();
        quantity = quantity.checked_add(part.quantity.checked_mul(part.weight)?)?;
        apart = apart.checked_add(part.amount)?;
        parts.push(part);
    }
    if usage.windows.is_empty() && usage.classes.is_empty() {
        parts.clear();
    }
    let events = u64::try_from(counted.sessions).map_err(|_| negative(counted.sessions))?;
    let raw = i64::try_from(raw).map_err(|_| too_much(charge, raw))?;
    Ok(Metered { counted, raw, events, quantity, apart, parts })
}

/// Calls are counted whole, where they began.
fn calls(
    charge: &Charge,
    usage: &Usage,
    rates: &Rates,
    zone: &Zone,
    coverage: &[(Timestamp, Timestamp)],
    entries: &[UsageEntry],
) -> Result<Metered, RunError> {
    let calls: Vec<UsageEntry> = entries.iter().filter(|entry| is_billed(entry, coverage)).cloned().collect();
    let rated = rate_calls(charge, rates, usage.unit_size(), coverage, &calls)?;
    Ok(Metered {
        counted: count(usage, zone, coverage, &calls)?,
        raw: rated.seconds,
        events: rated.calls,
        quantity: rated.quantity,
        apart: rated.amount,
        parts: rated.parts,
    })
}

/// One slot's octets stand for the period; the quantity is their rate.
fn peak(
    charge: &Charge,
    usage: &Usage,
    zone: &Zone,
    coverage: &[(Timestamp, Timestamp)],
    entries: &[UsageEntry],
) -> Result<Metered, RunError> {
    let counted = count(usage, zone, coverage, entries)?;
    let octets = octets_of_peak(usage.direction, coverage, entries);
    if octets < 0 {
        return Err(RunError::NegativeUsage { charge: charge.id.clone(), quantity: octets });
    }
    let unit = SLOT_SECONDS * i128::from(usage.unit_size());
    Ok(Metered {
        events: u64::try_from(counted.sessions).unwrap_or(0),
        counted,
        raw: i64::try_from(octets).map_err(|_| too_much(charge, octets))?,
        quantity: Exact::ratio(octets * BITS_OF_AN_OCTET, unit)?,
        apart: Exact::ZERO,
        parts: Vec::new(),
    })
}

impl Part {
    /// Calls to numbers that begin alike; none yet.
    pub fn of_prefix(prefix: &str, unit_amount: Exact) -> Self {
        Self {
            class: None,
            window: None,
            prefix: Some(prefix.to_owned()),
            calls: Some(0),
            raw: 0,
            quantity: Exact::ZERO,
            weight: Exact::ZERO,
            own_price: Some(unit_amount),
            amount: Exact::ZERO,
        }
    }
}

fn too_much(charge: &Charge, quantity: i128) -> RunError {
    RunError::TooMuchUsage { charge: charge.id.clone(), quantity }
}

fn weigh(charge: &Charge, usage: &Usage, counted: &CountedPart) -> Result<Part, RunError> {
    let class = counted.class.as_ref().map(|class| &usage.classes[&**class]);
    let window = counted.window.map(|index| &usage.windows[index]);
    let (mut weight, mut own_price) = (Exact::ONE, None);
    for price in [class.map(|class| class.price), window.map(|window| window.price)].into_iter().flatten() {
        match price {
            PartPrice::Weight(more) => weight = weight.checked_mul(more)?,
            // The class is asked first.
            PartPrice::Own(price) => own_price = own_price.or(Some(price)),
        }
    }
    let mut quantity = Exact::ZERO;
    for count in &counted.counts {
        let exact = Exact::ratio(*count, i128::from(usage.unit_size()))?;
        let each = match usage.quantize {
            Some(step) if usage.quantize_at != Level::Cycle => whole_steps(exact, step)?,
            _ => exact,
        };
        quantity = quantity.checked_add(each)?;
    }
    let amount = match own_price {
        Some(price) => {
            let billed = match usage.quantize {
                Some(step) if usage.quantize_at == Level::Cycle => whole_steps(quantity, step)?,
                _ => quantity,
            };
            billed.checked_mul(weight)?.checked_mul(price)?
        }
        None => Exact::ZERO,
    };
    Ok(Part {
        class: counted.class.as_ref().map(|class| class.to_string()),
        window: window.map(|window| window.id.clone()),
        prefix: None,
        calls: None,
        raw: i64::try_from(counted.total()).map_err(|_| too_much(charge, counted.total()))?,
        quantity,
        weight: if own_price.is_some() { Exact::ZERO } else { weight },
        own_price,
        amount,
    })
}

/// The zone in which a period's edges were cut; windows and days are cut in it, too.
pub fn zone_of(timezone: &str) -> Result<Zone, CalendarError> {
    Zone::get(timezone).map_err(|_| CalendarError::Zone(timezone.to_owned()))
}

const BITS_OF_AN_OCTET: i128 = 8;
