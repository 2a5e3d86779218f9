//! Reads a usage charge: meter, unit, allowance and the pricing model with its tiers.

use std::collections::BTreeMap;

use super::rates::rates;
use super::{MOST_PLACES, ROUNDING, decimal, optional, optional_decimal, parts, places_of, positive};
use crate::billing::tariff::unit::{Measured, Meter, Unit};
use crate::billing::tariff::{Allowance, Direction, Level, Model, Pool, Quantize, Rollover, Tier, Tiers, Usage};
use crate::vocabulary::{Exact, Rounding, Section, Value};

pub(super) fn usage(section: &mut Section<'_>) -> Option<Usage> {
    let meter = section.required("meter").and_then(|value| value.choice(METERS));
    let direction = match (section.value("direction"), meter) {
        (Some(value), Some(meter)) if meter.has_direction() => value.choice(DIRECTIONS),
        (Some(value), Some(meter)) => {
            value.fault(format!("{} have no direction", meter.as_str()));
            None
        }
        (Some(_), None) => None,
        (None, Some(meter)) if meter.has_direction() => {
            section.fault("`direction` is missing: up, down, sum or max of the octets");
            None
        }
        (None, _) => Some(Direction::Sum),
    };
    let unit = unit(section, meter);
    let quantize = match section.value("quantize") {
        Some(value) => quantize(&value, unit).map(|(step, level)| (Some(step), level)),
        None => Some((None, Level::Cycle)),
    };
    let windows = match section.value("windows") {
        Some(value) => parts::windows(&value),
        None => Some(Vec::new()),
    };
    let classes = match section.value("classes") {
        Some(value) => parts::classes(&value, meter),
        None => Some(BTreeMap::new()),
    };
    let allowance = match section.value("allowance") {
        Some(value) => allowance(&value).map(Some),
        None => Some(None),
    };
    let prepaid = optional(section, "prepaid", false, |value| value.flag());
    let is_prepaid = prepaid == Some(true);
    // What costs nothing beyond what is there has no price to say.
    let priceless = match is_prepaid {
        true => refuse(section, PREPAID_HAS_NO, "a prepaid charge, which bills nothing beyond what is there"),
        false => Some(()),
    };
    let apart = match meter {
        Some(Meter::Calls | Meter::PeakBps95) if is_prepaid => {
            section.fault("only octets, seconds and sessions can be prepaid");
            None
        }
        Some(Meter::Calls) => refuse(section, CALLS_HAVE_NO, "calls, which are rated one by one"),
        Some(Meter::PeakBps95) => refuse(section, PEAKS_HAVE_NO, "a peak rate, which is one number"),
        _ => refuse(section, &["rates", "increments"], "anything but calls"),
    };
    let (model, blocks) = match meter {
        Some(Meter::Calls) => (rates(section).map(Model::Rates), false),
        _ if is_prepaid => (Some(Model::Standard { unit_amount: Exact::ZERO }), false),
        _ => model(section)?,
    };
    let block = match section.value("block").filter(|_| meter != Some(Meter::Calls)) {
        Some(value) if !blocks => {
            value.fault("`block` goes with the models standard, graduated and volume");
            None
        }
        Some(value) => block(&value).map(Some),
        None => Some(None),
    };
    let minimum = optional_decimal(section, "minimum");
    let maximum = optional_decimal(section, "maximum");
    if let (Some(Some(minimum)), Some(Some(maximum))) = (minimum, maximum)
        && minimum > maximum
    {
        section.fault("`minimum` is above `maximum`");
        return None;
    }
    let prorate_tiers =
        optional(section, "proration", false, |value| value.choice(&[("none", false), ("tiers", true)]));
    let (quantize, quantize_at) = quantize?;
    if meter == Some(Meter::PeakBps95) && quantize_at != Level::Cycle {
        section.fault("a peak rate is one number of the cycle; quantize it at level cycle");
        return None;
    }
    apart?;
    priceless?;
    Some(Usage {
        meter: meter?,
        direction: direction?,
        unit: unit?,
        quantize,
        quantize_at,
        allowance: allowance?,
        windows: windows?,
        classes: classes?,
        model: model?.in_units_of(unit?.size()),
        block: block?,
        minimum: minimum?.filter(|minimum| !minimum.is_zero()),
        maximum: maximum?,
        prorate_tiers: prorate_tiers?,
        prepaid: prepaid?,
    })
}

/// Faults for keys that do not go with the meter. `None`: there were some.
fn refuse(section: &mut Section<'_>, keys: &[&'static str], what: &str) -> Option<()> {
    let mut sound = Some(());
    for key in keys {
        if let Some(value) = section.value(key) {
            value.fault(format!("`{key}` does not go with {what}"));
            sound = None;
        }
    }
    sound
}

/// The price of a count: model, block, minimum and maximum. What it meters is the count, so the meter says nothing.
pub(super) fn pricing(section: &mut Section<'_>) -> Option<Usage> {
    let (model, blocks) = model(section)?;
    let block = match section.value("block") {
        Some(value) if !blocks => {
            value.fault("`block` goes with the models standard, graduated and volume");
            None
        }
        Some(value) => block(&value).map(Some),
        None => Some(None),
    };
    let minimum = optional_decimal(section, "minimum");
    let maximum = optional_decimal(section, "maximum");
    if let (Some(Some(minimum)), Some(Some(maximum))) = (minimum, maximum)
        && minimum > maximum
    {
        section.fault("`minimum` is above `maximum`");
        return None;
    }
    Some(Usage {
        model: model?.in_units_of(Unit::Session.size()),
        block: block?,
        minimum: minimum?.filter(|minimum| !minimum.is_zero()),
        maximum: maximum?,
        ..Usage::of_nothing()
    })
}

fn unit(section: &mut Section<'_>, meter: Option<Meter>) -> Option<Unit> {
    let meter = meter?;
    let value = match (section.value("unit"), meter) {
        (None, Meter::Sessions) => return Some(Unit::Session),
        (None, _) => {
            section.fault("`unit` is missing; a quantity without its unit is no price");
            return None;
        }
        (Some(value), _) => value,
    };
    let unit: Unit = value.parse()?;
    if unit.meter() != meter.counted_as() {
        value.fault(format!("{unit} is no unit of {}", meter.as_str()));
        return None;
    }
    Some(unit)
}

fn quantize(value: &Value<'_>, unit: Option<Unit>) -> Option<(Quantize, Level)> {
    let mut section = value.section()?;
    let to = section.required("to");
    let mode = optional(&mut section, "mode", Rounding::Up, |value| value.choice(ROUNDING));
    let level = optional(&mut section, "level", Level::Cycle, |value| value.choice(LEVELS));
    section.finish();
    let to = to?;
    let measured: Measured = to.parse()?;
    let unit = unit?;
    if measured.unit.meter() != unit.meter() {
        to.fault(format!("{} cannot be counted in {unit}", measured.unit));
        return None;
    }
    let step = step_of(&to, measured, unit)?;
    Some((Quantize { step, mode: mode? }, level?))
}

/// A step in the charge's unit.
pub(super) fn step_of(place: &Value<'_>, measured: Measured, unit: Unit) -> Option<Exact> {
    let ratio = Exact::ratio(i128::from(measured.unit.size()), i128::from(unit.size())).ok()?;
    match measured.amount.checked_mul(ratio) {
        Ok(step) if step > Exact::ZERO && places_of(measured.amount) <= MOST_PLACES => Some(step),
        _ => {
            place.fault(format!("must be above zero with at most {MOST_PLACES} decimal places"));
            None
        }
    }
}

fn block(value: &Value<'_>) -> Option<Quantize> {
    let mut section = value.section()?;
    let size = positive(section.required("size"));
    let mode = optional(&mut section, "mode", Rounding::Up, |value| value.choice(ROUNDING));
    section.finish();
    Some(Quantize { step: size?, mode: mode? })
}

fn allowance(value: &Value<'_>) -> Option<Allowance> {
    let mut section = value.section()?;
    let amount = decimal(section.required("amount"));
    let prorate = optional(&mut section, "prorate", false, |value| value.flag());
    let pool = match section.value("pool") {
        Some(value) => {
            value.choice(&[("service", Pool::Service), ("account", Pool::Account), ("parent", Pool::Parent)])
        }
        None => Some(Pool::Service),
    };
    let rollover = match section.value("rollover") {
        Some(value) => value.section().and_then(rollover).map(Some),
        None => Some(None),
    };
    section.finish();
    Some(Allowance { amount: amount?, prorate: prorate?, pool: pool?, rollover: rollover? })
}

fn rollover(mut section: Section<'_>) -> Option<Rollover> {
    let max = decimal(section.required("max"));
    let expires_cycles = match section.value("expires_cycles") {
        Some(value) => value.integer(1..MOST_ROLLOVER_CYCLES + 1),
        None => Some(1),
    };
    section.finish();
    Some(Rollover { max: max?, expires_cycles: u32::try_from(expires_cycles?).ok()? })
}

/// The model, and whether blocks may go with it. The outer `None`: the word itself is wrong.
fn model(section: &mut Section<'_>) -> Option<(Option<Model>, bool)> {
    let kind = section.required("model")?.choice(MODELS)?;
    let mut kept = true;
    for (key, kinds) in MODEL_KEYS {
        if !kinds.contains(&kind)
            && section.value(key).is_some_and(|value| {
                value.fault(format!("`{key}` does not belong to model {}", kind.as_str()));
                true
            })
        {
            kept = false;
        }
    }
    let model = match kind {
        ModelKind::Standard => {
            decimal(section.required("unit_amount")).map(|unit_amount| Model::Standard { unit_amount })
        }
        ModelKind::Graduated => tiers(section, "unit_amount").map(Model::Graduated),
        ModelKind::Volume => tiers(section, "unit_amount").map(Model::Volume),
        ModelKind::GraduatedPercentage => tiers(section, "rate").map(Model::GraduatedPercentage),
        ModelKind::Package => {
            let size = positive(section.required("package_size"));
            let amount = decimal(section.required("package_amount"));
            let free_units = optional_decimal(section, "free_units");
            (|| Some(Model::Package { size: size?, amount: amount?, free_units: free_units?.unwrap_or(Exact::ZERO) }))()
        }
        ModelKind::Percentage => {
            let rate = decimal(section.required("rate"));
            let fixed = optional_decimal(section, "fixed_amount");
            (|| Some(Model::Percentage { rate: rate?, fixed_amount: fixed?.unwrap_or(Exact::ZERO) }))()
        }
    };
    let blocks = matches!(kind, ModelKind::Standard | ModelKind::Graduated | ModelKind::Volume);
    Some((model.filter(|_| kept), blocks))
}

fn tiers(section: &mut Section<'_>, price: &'static str) -> Option<Tiers> {
    let flat_at_zero = optional(section, "charge_flat_at_zero", false, |value| value.flag());
    let place = section.required("tiers")?;
    let items = place.list()?;
    let mut list = Vec::with_capacity(items.len());
    let mut bound = Exact::ZERO;
    let last = items.len().saturating_sub(1);
    let mut sound = !items.is_empty();
    if !sound || items.len() > MOST_TIERS {
        place.fault(format!("1 to {MOST_TIERS} tiers are expected"));
        return None;
    }
    for (index, item) in items.iter().enumerate() {
        let mut tier = item.section()?;
        let up_to = tier.value("up_to");
        match &up_to {
            Some(value) if index == last => {
                value.fault("the last tier has no `up_to`: nothing above it would be priced");
                sound = false;
            }
            None if index < last => {
                tier.fault("`up_to` is missing; only the last tier has none");
                sound = false;
            }
            _ => {}
        }
        let up_to = match up_to {
            Some(value) => {
                let edge = positive(Some(value.clone()))?;
                if edge <= bound {
                    value.fault("bounds of tiers must rise");
                    sound = false;
                }
                bound = edge;
                Some(edge)
            }
            None => None,
        };
        let amount = match (price, tier.value("flat_amount")) {
            // A tier with a flat amount alone is common: its units cost nothing.
            ("unit_amount", Some(_)) => optional_decimal(&mut tier, price).map(|amount| amount.unwrap_or(Exact::ZERO)),
            _ => decimal(tier.required(price)),
        };
        let flat = optional_decimal(&mut tier, "flat_amount");
        tier.finish();
        let amount = amount?;
        let unit_amount = if price == "rate" { amount.checked_div(Exact::from_int(100)).ok()? } else { amount };
        list.push(Tier { up_to, unit_amount, flat_amount: flat?.unwrap_or(Exact::ZERO) });
    }
    sound.then_some(())?;
    Some(Tiers { list, flat_at_zero: flat_at_zero?, ladder: None })
}

#[derive(Clone, Copy, PartialEq)]
enum ModelKind {
    Standard,
    Graduated,
    Volume,
    Package,
    Percentage,
    GraduatedPercentage,
}

impl ModelKind {
    fn as_str(self) -> &'static str {
        MODELS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

const MODELS: &[(&str, ModelKind)] = &[
    ("standard", ModelKind::Standard),
    ("graduated", ModelKind::Graduated),
    ("volume", ModelKind::Volume),
    ("package", ModelKind::Package),
    ("percentage", ModelKind::Percentage),
    ("graduated_percentage", ModelKind::GraduatedPercentage),
];
const MODEL_KEYS: &[(&str, &[ModelKind])] = &[
    ("unit_amount", &[ModelKind::Standard]),
    ("tiers", &[ModelKind::Graduated, ModelKind::Volume, ModelKind::GraduatedPercentage]),
    ("charge_flat_at_zero", &[ModelKind::Graduated, ModelKind::Volume, ModelKind::GraduatedPercentage]),
    ("package_size", &[ModelKind::Package]),
    ("package_amount", &[ModelKind::Package]),
    ("free_units", &[ModelKind::Package]),
    ("rate", &[ModelKind::Percentage]),
    ("fixed_amount", &[ModelKind::Percentage]),
];
const CALLS_HAVE_NO: &[&str] = &["model", "allowance", "windows", "classes", "quantize", "block", "proration"];
const PEAKS_HAVE_NO: &[&str] = &["windows", "classes", "rates", "increments"];
const PREPAID_HAS_NO: &[&str] = &[
    "model",
    "unit_amount",
    "tiers",
    "charge_flat_at_zero",
    "package_size",
    "package_amount",
    "free_units",
    "rate",
    "fixed_amount",
    "block",
    "minimum",
    "maximum",
    "proration",
];
const LEVELS: &[(&str, Level)] = &[("cycle", Level::Cycle), ("day", Level::Day), ("session", Level::Session)];
const METERS: &[(&str, Meter)] = &[
    ("octets", Meter::Octets),
    ("seconds", Meter::Seconds),
    ("sessions", Meter::Sessions),
    ("calls", Meter::Calls),
    ("peak_bps_95", Meter::PeakBps95),
];
const DIRECTIONS: &[(&str, Direction)] =
    &[("up", Direction::Up), ("down", Direction::Down), ("sum", Direction::Sum), ("max", Direction::Max)];
const MOST_TIERS: usize = 100;
const MOST_ROLLOVER_CYCLES: u64 = 120;
