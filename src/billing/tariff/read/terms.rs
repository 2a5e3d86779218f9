//! Reads what is laid on charges: discounts, taxes, thresholds of their use, and top-ups.

use super::usage::step_of;
use super::{decimal, identifier, optional, optional_tag, places_of, positive};
use crate::account::Treatment;
use crate::billing::tariff::unit::Measured;
use crate::billing::tariff::{
    Charge, ChargeKind, Condition, Discount, DiscountKind, Tax, TaxLevel, Threshold, ThresholdAction, ThresholdAt,
    TopUp, Usage, Validity,
};
use crate::billing::top_up::{takes_top_ups, whole};
use crate::vocabulary::{Exact, Section, Value};

pub(super) fn discount(mut section: Section<'_>, index: usize, charges: &[String]) -> Option<Discount> {
    let id = match section.value("id") {
        Some(value) => identifier(&value),
        None => Some(format!("discount-{}", index + 1)),
    };
    let origin = optional_tag(&mut section, "origin");
    let condition = condition(&mut section);
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
    let condition = condition?;
    let origin = origin?.or_else(|| condition.name());
    Some(Discount { id: id?, origin, kind, applies_to: named?, cycles: cycles?, condition })
}

fn condition(section: &mut Section<'_>) -> Option<Condition> {
    let promo = optional_tag(section, "promo");
    let requires = match section.value("requires") {
        Some(value) => {
            let list = value.list()?;
            if list.is_empty() || list.len() > MOST_REQUIRED {
                value.fault(format!("a bundle requires 1 to {MOST_REQUIRED} tariffs"));
                return None;
            }
            list.iter().map(identifier).collect::<Option<Vec<String>>>()
        }
        None => Some(Vec::new()),
    };
    let trial_days = match section.value("trial_days") {
        Some(value) => value.integer(1..MOST_TRIAL_DAYS + 1).and_then(|days| u32::try_from(days).ok()).map(Some),
        None => Some(None),
    };
    Some(Condition { promo: promo?, requires: requires?, trial_days: trial_days? })
}

impl Condition {
    /// What the line calls a discount that has no name of its own.
    fn name(&self) -> Option<String> {
        match self {
            Condition { promo: Some(code), .. } => Some(format!("promotion {code}")),
            Condition { requires, .. } if !requires.is_empty() => Some(format!("bundle with {}", requires.join(", "))),
            Condition { trial_days: Some(days), .. } => Some(format!("trial of {days} days")),
            _ => None,
        }
    }
}

fn known_charge(value: &Value<'_>, charges: &[String]) -> Option<String> {
    let text = value.text()?;
    if !charges.iter().any(|charge| charge == text) {
        value.fault(format!("there is no charge `{text}` in this tariff"));
        return None;
    }
    Some(text.to_owned())
}

pub(super) fn taxes(section: &mut Section<'_>, charges: &[String], level: Option<TaxLevel>) -> Option<Vec<Tax>> {
    let mut list = Vec::new();
    let mut sound = true;
    for (index, mut item) in section.sections("tax").into_iter().enumerate() {
        let id = item.required("id").and_then(|value| identifier(&value));
        let amount = item.value("amount");
        let rate = match &amount {
            Some(_) => match item.value("rate") {
                Some(value) => {
                    value.fault("a tax has a `rate` or a fixed `amount`, not both");
                    None
                }
                None => Some(Exact::ZERO),
            },
            None => decimal(item.required("rate")),
        };
        let fixed = match amount.clone() {
            Some(value) => decimal(Some(value)).map(Some),
            None => Some(None),
        };
        let applies_to = match item.value("applies_to") {
            Some(value) => value.list().and_then(|list| {
                list.iter().map(|item| known_charge(item, charges)).collect::<Option<Vec<String>>>().map(Some)
            }),
            None => Some(None),
        };
        let jurisdiction = optional_tag(&mut item, "jurisdiction");
        let inclusive = optional(&mut item, "inclusive", false, |value| value.flag());
        let compound = optional(&mut item, "compound", false, |value| value.flag());
        let order = item.value("order").map_or(Some(index as u64 + 1), |value| value.integer(0..1000));
        let tax = (|| {
            let order = u32::try_from(order?).ok()?;
            Some(Tax {
                id: id?,
                rate: rate?,
                fixed: fixed?,
                applies_to: applies_to?,
                jurisdiction: jurisdiction?,
                inclusive: inclusive?,
                compound: compound?,
                order,
            })
        })();
        if let (Some(Tax { fixed: Some(_), inclusive, compound, .. }), Some(value)) = (&tax, &amount) {
            if *inclusive || *compound {
                value.fault("a fixed tax is neither inclusive nor compound");
                sound = false;
            }
            if level == Some(TaxLevel::Batch) {
                value.fault("a fixed tax is levied on lines; it does not go with `tax_level = \"batch\"`");
                sound = false;
            }
        }
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

pub(super) fn threshold(mut section: Section<'_>, charges: &[Option<Charge>]) -> Option<Threshold> {
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
        if measured.unit.meter() != usage.meter.counted_as() {
            place.fault(format!("{} is no unit of {}", measured.unit, usage.meter.as_str()));
            return None;
        }
        return step_of(place, measured, usage.unit).map(ThresholdAt::Quantity);
    };
    match percent.parse::<Exact>() {
        Ok(percent) if percent > Exact::ZERO && (usage.allowance.is_some() || usage.prepaid) => {
            Some(ThresholdAt::Percent(percent))
        }
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

/// A prepaid charge ends the service when it is used up, unless a threshold of its own at 100 % says what else.
pub(super) fn stops(charges: &[Charge], thresholds: &[Threshold]) -> Vec<Threshold> {
    let all = ThresholdAt::Percent(Exact::from_int(100));
    let prepaid = charges.iter().filter(|charge| matches!(&charge.kind, ChargeKind::Usage(usage) if usage.prepaid));
    let said = |id: &str| thresholds.iter().any(|threshold| threshold.meter == id && threshold.at == all);
    let stop =
        |charge: &Charge| Threshold { at: all, meter: charge.id.clone(), actions: vec![ThresholdAction::Disconnect] };
    prepaid.filter(|charge| !said(&charge.id)).map(stop).collect()
}

pub(super) fn top_up(mut section: Section<'_>, charges: &[Option<Charge>]) -> Option<TopUp> {
    let id = section.required("id").and_then(|value| identifier(&value));
    let meter = section.required("charge");
    let place = section.required("amount");
    let price = match section.value("price") {
        Some(value) => positive(Some(value)).map(Some),
        None => Some(None),
    };
    let valid = match section.value("valid") {
        Some(value) => value.parse(),
        None => Some(Validity::Always),
    };
    section.finish();
    let meter = meter?;
    let name = meter.text()?;
    let usage = charges.iter().flatten().find(|charge| charge.id == name).and_then(|charge| match &charge.kind {
        ChargeKind::Usage(usage) => Some(usage),
        _ => None,
    });
    let Some(usage) = usage else {
        if charges.iter().all(Option::is_some) {
            meter.fault(format!("there is no usage charge `{name}` in this tariff"));
        }
        return None;
    };
    if !takes_top_ups(usage) {
        meter.fault("only octets, seconds and sessions can be topped up");
        return None;
    }
    let place = place?;
    let amount = positive(Some(place.clone()))?;
    if let Err(why) = whole(amount, usage.unit_size()) {
        place.fault(why);
        return None;
    }
    Some(TopUp { id: id?, charge: name.to_owned(), amount, price: price?, valid: valid? })
}

fn action(value: &Value<'_>) -> Option<ThresholdAction> {
    match value.text()? {
        "notify" => Some(ThresholdAction::Notify),
        "disconnect" => Some(ThresholdAction::Disconnect),
        other => match other.strip_prefix("throttle:") {
            // The word is a hold's treatment later on.
            Some(profile) if other.parse::<Treatment>().is_ok() => Some(ThresholdAction::Throttle(profile.to_owned())),
            _ => {
                value.fault(format!("{other:?} is not one of notify, throttle:PROFILE, disconnect"));
                None
            }
        },
    }
}

const MOST_TAXES: usize = 8;
const MOST_REQUIRED: usize = 16;
const MOST_TRIAL_DAYS: u64 = 366;
const MOST_TAX_PERCENT: i128 = 1000;
const MOST_RATE_PLACES: u32 = 6;
