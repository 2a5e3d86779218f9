//! Reads a tariff from TOML: every key of CONTRACT §5, every fault with its place.
//!
//! What the contract allows and this release cannot rate is a fault that says so: a price that is silently left out would
//! be a wrong cent on every invoice.

use std::collections::BTreeSet;

use super::bound;
use super::unit::{Measured, Meter, Unit};
use super::{
    Allowance, Apply, Charge, ChargeKind, Direction, Discount, DiscountKind, LineRounding, Model, Proration, Quantize,
    Recurring, RefundOnEnd, Tariff, Tax, Threshold, ThresholdAction, ThresholdAt, Tier, Tiers, Timing, Usage, digest,
};
use crate::vocabulary::{Currency, Date, Exact, Rounding, Section, Value};

/// Reads the keys of one tariff; `canonical` is their canonical text. `None` when a fault was noted in the section.
pub fn read_section(mut section: Section<'_>, canonical: String) -> Option<Tariff> {
    let id = section.required("id").and_then(|value| identifier(&value));
    let version = section.required("version").and_then(|value| value.integer(1..1 << 31));
    let currency = section.required_parsed::<Currency>("currency");
    let effective_from = section.required_parsed::<Date>("effective_from");
    let apply = section.choice("apply", APPLY);
    let retroactive = section.flag("retroactive");
    let rounding = rounding(&mut section, currency);
    let charges: Vec<Option<Charge>> = section.sections("charge").into_iter().map(charge).collect();
    let names = charge_ids(&mut section, &charges);
    let discounts: Vec<Option<Discount>> =
        section.sections("discount").into_iter().map(|item| discount(item, &names)).collect();
    let taxes = taxes(&mut section);
    let thresholds: Vec<Option<Threshold>> =
        section.sections("threshold").into_iter().map(|item| threshold(item, &charges)).collect();
    let charges = charges.into_iter().collect::<Option<Vec<Charge>>>();
    let discounts = discounts.into_iter().collect::<Option<Vec<Discount>>>();
    let mut fits = true;
    for charge in charges.iter().flatten() {
        if let Some(detail) = bound::fault_of(charge, discounts.as_deref().unwrap_or_default()) {
            section.fault(detail);
            fits = false;
        }
    }
    section.finish();
    fits.then_some(())?;
    Some(Tariff {
        id: id?,
        version: u32::try_from(version?).ok()?,
        currency: currency?,
        effective_from: effective_from?,
        apply: apply.unwrap_or(Apply::Split),
        retroactive: retroactive.unwrap_or(false),
        rounding: rounding?,
        charges: charges?,
        discounts: discounts?,
        taxes: taxes?,
        thresholds: thresholds.into_iter().collect::<Option<Vec<Threshold>>>()?,
        digest: digest(&canonical),
        document: canonical,
    })
}

fn rounding(section: &mut Section<'_>, currency: Option<Currency>) -> Option<LineRounding> {
    let digits = currency.map_or(MOST_MINOR_DIGITS, |currency| currency.minor_digits());
    let Some(value) = section.value("rounding") else {
        return Some(LineRounding { mode: Rounding::HalfUp, places: digits });
    };
    let mut table = value.section()?;
    let mode = match table.value("line") {
        Some(value) => value.choice(ROUNDING)?,
        None => Rounding::HalfUp,
    };
    let places = match table.value("line_dp") {
        Some(value) => u32::try_from(value.integer(0..u64::from(digits) + 1)?).ok()?,
        None => digits,
    };
    table.finish();
    Some(LineRounding { mode, places })
}

fn charge(mut section: Section<'_>) -> Option<Charge> {
    let id = section.required("id").and_then(|value| identifier(&value));
    let kind_value = section.required("type")?;
    let kind = match kind_value.choice(CHARGE_TYPES)? {
        ChargeType::Recurring => recurring(&mut section).map(ChargeKind::Recurring),
        ChargeType::OneOff => decimal(section.required("amount")).map(|amount| ChargeKind::OneOff { amount }),
        ChargeType::Usage => usage(&mut section).map(|usage| ChargeKind::Usage(Box::new(usage))),
        ChargeType::Refused(why) => {
            kind_value.fault(why);
            return None;
        }
    };
    section.finish();
    Some(Charge { id: id?, kind: kind? })
}

fn recurring(section: &mut Section<'_>) -> Option<Recurring> {
    let amount = decimal(section.required("amount"));
    let timing = optional(section, "timing", Timing::Advance, |value| value.choice(TIMING));
    let proration = optional(section, "proration", Proration::ActualDays, |value| value.choice(PRORATION));
    let refund_on_end = optional(section, "refund_on_end", RefundOnEnd::Prorata, |value| value.choice(REFUND));
    Some(Recurring { amount: amount?, timing: timing?, proration: proration?, refund_on_end: refund_on_end? })
}

fn usage(section: &mut Section<'_>) -> Option<Usage> {
    for (key, what) in REFUSED_USAGE {
        if let Some(value) = section.value(key) {
            value.fault(format!("{what} cannot be rated by this release; take `{key}` out"));
        }
    }
    let refused = REFUSED_USAGE.iter().any(|(key, _)| section.value(key).is_some());
    let meter_value = section.required("meter");
    let meter = meter_value.as_ref().and_then(|value| match value.choice(METERS)? {
        Some(meter) => Some(meter),
        None => {
            value.fault("peak_bps_95 cannot be rated by this release");
            None
        }
    });
    let direction = match (section.value("direction"), meter) {
        (Some(value), Some(Meter::Octets)) => value.choice(DIRECTIONS),
        (Some(value), Some(meter)) => {
            value.fault(format!("{} have no direction", meter.as_str()));
            None
        }
        (Some(_), None) => None,
        (None, Some(Meter::Octets)) => {
            section.fault("`direction` is missing: up, down, sum or max of the octets");
            None
        }
        (None, _) => Some(Direction::Sum),
    };
    let unit = unit(section, meter);
    let quantize = match section.value("quantize") {
        Some(value) => quantize(&value, unit).map(Some),
        None => Some(None),
    };
    let allowance = match section.value("allowance") {
        Some(value) => allowance(&value).map(Some),
        None => Some(None),
    };
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
    let prorate_tiers =
        optional(section, "proration", false, |value| value.choice(&[("none", false), ("tiers", true)]));
    if refused {
        return None;
    }
    Some(Usage {
        meter: meter?,
        direction: direction?,
        unit: unit?,
        quantize: quantize?,
        allowance: allowance?,
        model: model?,
        block: block?,
        minimum: minimum?.filter(|minimum| !minimum.is_zero()),
        maximum: maximum?,
        prorate_tiers: prorate_tiers?,
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
    if unit.meter() != meter {
        value.fault(format!("{unit} is no unit of {}", meter.as_str()));
        return None;
    }
    Some(unit)
}

fn quantize(value: &Value<'_>, unit: Option<Unit>) -> Option<Quantize> {
    let mut section = value.section()?;
    let to = section.required("to");
    let mode = optional(&mut section, "mode", Rounding::Up, |value| value.choice(ROUNDING));
    let level = section.value("level");
    let level_is_cycle = match &level {
        Some(value) => {
            match value.choice(&[("cycle", true), ("day", false), ("session", false)])? {
                true => true,
                false => {
                    value.fault("this release quantizes the sum of a cycle only; sessions and days cannot be rounded one by one");
                    false
                }
            }
        }
        None => true,
    };
    section.finish();
    let to = to?;
    let measured: Measured = to.parse()?;
    let unit = unit?;
    if measured.unit.meter() != unit.meter() {
        to.fault(format!("{} cannot be counted in {unit}", measured.unit));
        return None;
    }
    let step = step_of(&to, measured, unit)?;
    level_is_cycle.then_some(Quantize { step, mode: mode? })
}

/// A step in the charge's unit.
fn step_of(place: &Value<'_>, measured: Measured, unit: Unit) -> Option<Exact> {
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
    let mut refused = false;
    for (key, what) in [("rollover", "rollover of an allowance"), ("pool", "an allowance pooled over services")] {
        if let Some(value) = section.value(key) {
            value.fault(format!("{what} cannot be rated by this release; take `{key}` out"));
            refused = true;
        }
    }
    section.finish();
    (!refused).then_some(())?;
    Some(Allowance { amount: amount?, prorate: prorate? })
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
    Some(Tiers { list, flat_at_zero: flat_at_zero? })
}

fn charge_ids(section: &mut Section<'_>, charges: &[Option<Charge>]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    for charge in charges.iter().flatten() {
        if !seen.insert(charge.id.as_str()) {
            section.fault(format!("charge `{}` is there twice", charge.id));
        }
    }
    if charges.is_empty() {
        section.fault("a tariff has at least one [[charge]]");
    }
    charges.iter().flatten().map(|charge| charge.id.clone()).collect()
}

fn discount(mut section: Section<'_>, charges: &[String]) -> Option<Discount> {
    let percent = section.required("kind").and_then(|value| value.choice(&[("percent", true), ("amount", false)]));
    let place = section.required("value");
    let value = decimal(place.clone());
    let named = match section.value("applies_to") {
        Some(list) => list.list()?.iter().map(|item| known_charge(item, charges)).collect::<Option<Vec<String>>>(),
        None => Some(charges.to_vec()),
    };
    let cycles = match section.value("cycles") {
        Some(value) => value.integer(1..10_000).map(|cycles| u32::try_from(cycles).ok()),
        None => Some(None),
    };
    if let Some(named) = &named {
        if named.is_empty() {
            section.fault("the discount applies to no charge");
            return None;
        }
        if percent == Some(false) && named.len() != 1 {
            section.fault("an amount discount names exactly one charge in `applies_to` in this release");
            return None;
        }
    }
    section.finish();
    let kind = match (percent?, value?) {
        (true, value) if value > Exact::from_int(100) => {
            place?.fault("is more than 100 percent");
            return None;
        }
        (true, value) => DiscountKind::Percent(value),
        (false, value) => DiscountKind::Amount(value),
    };
    Some(Discount { kind, applies_to: named?, cycles: cycles? })
}

fn known_charge(value: &Value<'_>, charges: &[String]) -> Option<String> {
    let text = value.text()?;
    if !charges.iter().any(|charge| charge == text) {
        value.fault(format!("there is no charge `{text}` in this tariff"));
        return None;
    }
    Some(text.to_owned())
}

fn taxes(section: &mut Section<'_>) -> Option<Vec<Tax>> {
    let mut list = Vec::new();
    let mut sound = true;
    for (index, mut item) in section.sections("tax").into_iter().enumerate() {
        let id = item.required("id").and_then(|value| identifier(&value));
        let rate = decimal(item.required("rate"));
        let inclusive = optional(&mut item, "inclusive", false, |value| value.flag());
        let compound = optional(&mut item, "compound", false, |value| value.flag());
        let order = item.value("order").map_or(Some(index as u64 + 1), |value| value.integer(0..1000));
        let tax = (|| {
            let order = u32::try_from(order?).ok()?;
            Some(Tax { id: id?, rate: rate?, inclusive: inclusive?, compound: compound?, order })
        })();
        if let Some(tax) = &tax {
            if list.iter().any(|other: &Tax| other.id == tax.id) {
                item.fault(format!("tax `{}` is there twice", tax.id));
                sound = false;
            }
            if tax.rate > Exact::from_int(MOST_TAX_PERCENT) || places_of(tax.rate) > MOST_RATE_PLACES {
                item.fault(format!(
                    "a tax rate is at most {MOST_TAX_PERCENT} percent with at most {MOST_RATE_PLACES} decimal places"
                ));
                sound = false;
            }
        }
        item.finish();
        sound &= tax.is_some();
        list.extend(tax);
    }
    if list.len() > MOST_TAXES {
        section.fault(format!("at most {MOST_TAXES} taxes are levied on a tariff"));
        sound = false;
    }
    list.sort_by_key(|tax| tax.order);
    sound.then_some(list)
}

fn threshold(mut section: Section<'_>, charges: &[Option<Charge>]) -> Option<Threshold> {
    let at = section.required("at");
    let meter = section.required("meter");
    let actions = section.required("do");
    section.finish();
    let meter = meter?;
    let name = meter.text()?;
    let usage = charges.iter().flatten().find(|charge| charge.id == name).and_then(|charge| match &charge.kind {
        ChargeKind::Usage(usage) => Some(usage),
        _ => None,
    });
    let Some(usage) = usage else {
        // A charge with faults of its own is no news here.
        if charges.iter().all(Option::is_some) {
            meter.fault(format!("there is no usage charge `{name}` in this tariff"));
        }
        return None;
    };
    let at = threshold_at(&at?, usage);
    let actions: Vec<Option<ThresholdAction>> = actions?.list()?.iter().map(action).collect();
    Some(Threshold { at: at?, meter: name.to_owned(), actions: actions.into_iter().collect::<Option<Vec<_>>>()? })
}

fn threshold_at(place: &Value<'_>, usage: &Usage) -> Option<ThresholdAt> {
    let text = place.text()?;
    let Some(percent) = text.strip_suffix('%') else {
        let measured: Measured = place.parse()?;
        if measured.unit.meter() != usage.meter {
            place.fault(format!("{} is no unit of {}", measured.unit, usage.meter.as_str()));
            return None;
        }
        return step_of(place, measured, usage.unit).map(ThresholdAt::Quantity);
    };
    match percent.parse::<Exact>() {
        Ok(percent) if percent > Exact::ZERO && usage.allowance.is_some() => Some(ThresholdAt::Percent(percent)),
        Ok(percent) if percent > Exact::ZERO => {
            place.fault("the charge has no allowance to take a percentage of");
            None
        }
        _ => {
            place.fault(format!("{text:?} is no percentage above zero"));
            None
        }
    }
}

fn action(value: &Value<'_>) -> Option<ThresholdAction> {
    match value.text()? {
        "notify" => Some(ThresholdAction::Notify),
        "disconnect" => Some(ThresholdAction::Disconnect),
        other => match other.strip_prefix("throttle:") {
            Some(profile) if !profile.is_empty() => Some(ThresholdAction::Throttle(profile.to_owned())),
            _ => {
                value.fault(format!("{other:?} is not one of notify, throttle:PROFILE, disconnect"));
                None
            }
        },
    }
}

/// The value of `read`, or `default` where the key is absent; `None` where it is wrong.
fn optional<'d, T>(
    section: &mut Section<'d>,
    key: &'static str,
    default: T,
    read: impl FnOnce(Value<'d>) -> Option<T>,
) -> Option<T> {
    match section.value(key) {
        Some(value) => read(value),
        None => Some(default),
    }
}

fn optional_decimal(section: &mut Section<'_>, key: &'static str) -> Option<Option<Exact>> {
    match section.value(key) {
        Some(value) => decimal(Some(value)).map(Some),
        None => Some(None),
    }
}

/// A decimal from zero on, with bounded digits.
fn decimal(value: Option<Value<'_>>) -> Option<Exact> {
    let value = value?;
    let number: Exact = value.parse()?;
    if number.is_negative() || places_of(number) > MOST_PLACES || number > Exact::from_int(MOST_WHOLE) {
        value.fault(format!("must be from 0 to {MOST_WHOLE} with at most {MOST_PLACES} decimal places"));
        return None;
    }
    Some(number)
}

fn positive(value: Option<Value<'_>>) -> Option<Exact> {
    let number = decimal(value.clone())?;
    if number.is_zero() {
        value?.fault("must be above zero");
        return None;
    }
    Some(number)
}

fn places_of(number: Exact) -> u32 {
    number.decimal_places().unwrap_or(u32::MAX)
}

/// Ids of tariffs, charges and taxes appear in files, URLs and invoices.
fn identifier(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
        value.fault("an id has 1 to 64 of the characters A-Z a-z 0-9 - _ .");
        return None;
    }
    Some(text.to_owned())
}

#[derive(Clone, Copy)]
enum ChargeType {
    Recurring,
    OneOff,
    Usage,
    Refused(&'static str),
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

const CHARGE_TYPES: &[(&str, ChargeType)] = &[
    ("recurring", ChargeType::Recurring),
    ("one_off", ChargeType::OneOff),
    ("usage", ChargeType::Usage),
    ("count", ChargeType::Refused("count charges cannot be rated by this release")),
    ("deposit", ChargeType::Refused("deposits cannot be held by this release")),
];
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
const REFUSED_USAGE: &[(&str, &str)] = &[("windows", "a time window"), ("classes", "a traffic class")];
const APPLY: &[(&str, Apply)] = &[("split", Apply::Split), ("next_period", Apply::NextPeriod)];
const ROUNDING: &[(&str, Rounding)] =
    &[("half_up", Rounding::HalfUp), ("half_even", Rounding::HalfEven), ("up", Rounding::Up), ("down", Rounding::Down)];
const TIMING: &[(&str, Timing)] = &[("advance", Timing::Advance), ("arrears", Timing::Arrears)];
const PRORATION: &[(&str, Proration)] = &[
    ("none", Proration::None),
    ("actual_days", Proration::ActualDays),
    ("fixed_30", Proration::Fixed30),
    ("per_second", Proration::PerSecond),
];
const REFUND: &[(&str, RefundOnEnd)] = &[("none", RefundOnEnd::None), ("prorata", RefundOnEnd::Prorata)];
const METERS: &[(&str, Option<Meter>)] = &[
    ("octets", Some(Meter::Octets)),
    ("seconds", Some(Meter::Seconds)),
    ("sessions", Some(Meter::Sessions)),
    ("peak_bps_95", None),
];
const DIRECTIONS: &[(&str, Direction)] =
    &[("up", Direction::Up), ("down", Direction::Down), ("sum", Direction::Sum), ("max", Direction::Max)];
const MOST_MINOR_DIGITS: u32 = 3;
const MOST_PLACES: u32 = 12;
const MOST_WHOLE: i128 = 1_000_000_000_000;
const MOST_TIERS: usize = 100;
const MOST_TAXES: usize = 8;
const MOST_TAX_PERCENT: i128 = 1000;
const MOST_RATE_PLACES: u32 = 6;
