//! Reads a tariff from TOML: every key of CONTRACT §5, every fault with its place.
//!
//! What the contract allows and this release cannot rate is a fault that says so: a price that is silently left out would
//! be a wrong cent on every invoice.

mod count;
mod parts;
mod rates;
mod terms;
mod usage;

use std::collections::BTreeSet;

use super::bound;
use super::{
    Apply, Audience, Charge, ChargeKind, Discount, LineRounding, Proration, Recurring, RefundOnEnd, Scope, Tariff,
    TaxLevel, TaxTags, Threshold, Timing, TopUp, digest,
};
use crate::account::HoldKind;
use crate::vocabulary::{Currency, Date, Exact, Rounding, Section, Value};
use count::count;
use terms::{discount, stops, taxes, threshold, top_up};
use usage::usage;

/// Reads the keys of one tariff; `canonical` is their canonical text. `None` when a fault was noted in the section.
pub fn read_section(mut section: Section<'_>, canonical: String) -> Option<Tariff> {
    let id = section.required("id").and_then(|value| identifier(&value));
    let version = section.required("version").and_then(|value| value.integer(1..1 << 31));
    let currency = section.required_parsed::<Currency>("currency");
    let effective_from = section.required_parsed::<Date>("effective_from");
    let apply = section.choice("apply", APPLY);
    let retroactive = section.flag("retroactive");
    let audience = audience(&mut section);
    let rounding = rounding(&mut section, currency);
    let jurisdiction = optional_tag(&mut section, "jurisdiction");
    let charges: Vec<Option<Charge>> = section.sections("charge").into_iter().map(charge).collect();
    let names = charge_ids(&mut section, &charges);
    let discounts: Vec<Option<Discount>> = section
        .sections("discount")
        .into_iter()
        .enumerate()
        .map(|(index, item)| discount(item, index, &names))
        .collect();
    let tax_level = rounding.map(|(_, level)| level);
    let taxes = taxes(&mut section, &names, tax_level);
    let thresholds: Vec<Option<Threshold>> =
        section.sections("threshold").into_iter().map(|item| threshold(item, &charges)).collect();
    let top_ups: Vec<Option<TopUp>> =
        section.sections("top_up").into_iter().map(|item| top_up(item, &charges)).collect();
    let top_ups = top_ups.into_iter().collect::<Option<Vec<TopUp>>>();
    top_up_ids(&mut section, top_ups.as_deref().unwrap_or_default());
    let charges = charges.into_iter().collect::<Option<Vec<Charge>>>();
    let discounts = discounts.into_iter().collect::<Option<Vec<Discount>>>();
    discount_ids(&mut section, discounts.as_deref().unwrap_or_default());
    let mut fits = true;
    for charge in charges.iter().flatten() {
        if let Some(detail) = bound::fault_of(charge, discounts.as_deref().unwrap_or_default()) {
            section.fault(detail);
            fits = false;
        }
    }
    section.finish();
    fits.then_some(())?;
    let jurisdiction = jurisdiction?;
    let mut charges = charges?;
    for charge in &mut charges {
        charge.tags.jurisdiction = charge.tags.jurisdiction.take().or_else(|| jurisdiction.clone());
    }
    let (rounding, tax_level) = rounding?;
    let mut thresholds = thresholds.into_iter().collect::<Option<Vec<Threshold>>>()?;
    thresholds.extend(stops(&charges, &thresholds));
    Some(Tariff {
        id: id?,
        version: u32::try_from(version?).ok()?,
        currency: currency?,
        effective_from: effective_from?,
        apply: apply.unwrap_or(Apply::Split),
        retroactive: retroactive.unwrap_or(false),
        audience: audience?,
        rounding,
        tax_level,
        charges,
        discounts: discounts?,
        taxes: taxes?,
        thresholds,
        top_ups: top_ups?,
        digest: digest(&canonical),
        document: canonical,
    })
}

fn audience(section: &mut Section<'_>) -> Option<Audience> {
    let word = section.value("for");
    let term = section.value("term_months");
    let months = match &term {
        Some(value) => u32::try_from(value.integer(1..MOST_TERM_MONTHS + 1)?).ok()?,
        None => DEFAULT_TERM_MONTHS,
    };
    let renewing = Audience::Renewing { term_months: months };
    let audience = match word {
        Some(value) => value.choice(&[("all", Audience::All), ("new", Audience::New), ("renewing", renewing)])?,
        None => Audience::All,
    };
    if let Some(value) = term.filter(|_| audience != renewing) {
        value.fault("`term_months` goes with `for = \"renewing\"`");
        return None;
    }
    Some(audience)
}

/// A word that is passed through; `None` where it is wrong.
fn optional_tag(section: &mut Section<'_>, key: &'static str) -> Option<Option<String>> {
    let Some(value) = section.value(key) else { return Some(None) };
    let text = value.text()?;
    if text.is_empty() || text.len() > 64 || text.chars().any(char::is_control) {
        value.fault("has 1 to 64 printable characters");
        return None;
    }
    Some(Some(text.to_owned()))
}

fn top_up_ids(section: &mut Section<'_>, top_ups: &[TopUp]) {
    for (index, top_up) in top_ups.iter().enumerate() {
        if top_ups[..index].iter().any(|other| other.id == top_up.id) {
            section.fault(format!("top-up `{}` is there twice", top_up.id));
        }
    }
}

fn discount_ids(section: &mut Section<'_>, discounts: &[Discount]) {
    for (index, discount) in discounts.iter().enumerate() {
        if discounts[..index].iter().any(|other| other.id == discount.id) {
            section.fault(format!("discount `{}` is there twice", discount.id));
        }
    }
}

fn rounding(section: &mut Section<'_>, currency: Option<Currency>) -> Option<(LineRounding, TaxLevel)> {
    let digits = currency.map_or(MOST_MINOR_DIGITS, |currency| currency.minor_digits());
    let Some(value) = section.value("rounding") else {
        return Some((LineRounding { mode: Rounding::HalfUp, places: digits }, TaxLevel::Line));
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
    let level = optional(&mut table, "tax_level", TaxLevel::Line, |value| value.choice(TAX_LEVELS))?;
    table.finish();
    Some((LineRounding { mode, places }, level))
}

fn charge(mut section: Section<'_>) -> Option<Charge> {
    let id = section.required("id").and_then(|value| identifier(&value));
    let kind_value = section.required("type")?;
    let kind = match kind_value.choice(CHARGE_TYPES)? {
        ChargeType::Recurring => recurring(&mut section).map(ChargeKind::Recurring),
        ChargeType::OneOff => decimal(section.required("amount")).map(|amount| ChargeKind::OneOff { amount }),
        ChargeType::Deposit => decimal(section.required("amount")).map(|amount| ChargeKind::Deposit { amount }),
        ChargeType::Count => count(&mut section).map(|count| ChargeKind::Count(Box::new(count))),
        ChargeType::Usage => usage(&mut section).map(|usage| ChargeKind::Usage(Box::new(usage))),
    };
    let category = optional_tag(&mut section, "tax_category");
    let jurisdiction = optional_tag(&mut section, "jurisdiction");
    section.finish();
    Some(Charge { id: id?, kind: kind?, tags: TaxTags { category: category?, jurisdiction: jurisdiction? } })
}

fn recurring(section: &mut Section<'_>) -> Option<Recurring> {
    let amount = decimal(section.required("amount"));
    let timing = optional(section, "timing", Timing::Advance, |value| value.choice(TIMING));
    let proration = optional(section, "proration", Proration::ActualDays, |value| value.choice(PRORATION));
    let refund_on_end = optional(section, "refund_on_end", RefundOnEnd::Prorata, |value| value.choice(REFUND));
    let scope = scope(section);
    Some(Recurring {
        amount: amount?,
        timing: timing?,
        proration: proration?,
        refund_on_end: refund_on_end?,
        scope: scope?,
    })
}

fn scope(section: &mut Section<'_>) -> Option<Scope> {
    let per = section.value("per");
    let hold = section.value("during_hold");
    match (per, hold) {
        (None, None) => Some(Scope::Service),
        (Some(value), None) => {
            value.choice(&[("service", Scope::Service), ("line", Scope::Line), ("account", Scope::Account)])
        }
        (None, Some(value)) => value.parse::<HoldKind>().map(Scope::Hold),
        (Some(value), Some(_)) => {
            value.fault("a charge during a hold is per service; take `per` or `during_hold` out");
            None
        }
    }
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
    Deposit,
    Usage,
    Count,
}

const CHARGE_TYPES: &[(&str, ChargeType)] = &[
    ("recurring", ChargeType::Recurring),
    ("one_off", ChargeType::OneOff),
    ("usage", ChargeType::Usage),
    ("count", ChargeType::Count),
    ("deposit", ChargeType::Deposit),
];
const TAX_LEVELS: &[(&str, TaxLevel)] = &[("line", TaxLevel::Line), ("batch", TaxLevel::Batch)];
const DEFAULT_TERM_MONTHS: u32 = 12;
const MOST_TERM_MONTHS: u64 = 120;
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
const MOST_MINOR_DIGITS: u32 = 3;
const MOST_PLACES: u32 = 12;
const MOST_WHOLE: i128 = 1_000_000_000_000;
