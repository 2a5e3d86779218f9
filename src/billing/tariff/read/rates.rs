//! Reads what calls cost, by the beginning of the number called.

use std::collections::BTreeMap;

use super::{decimal, optional_decimal};
use crate::billing::tariff::{Rate, Rates};
use crate::vocabulary::{Exact, Section, Value};

pub(super) fn rates(section: &mut Section<'_>) -> Option<Rates> {
    let usual = match section.value("increments") {
        Some(value) => increments(&value),
        None => Some((1, 1)),
    };
    let place = section.required("rates")?;
    let items = place.list()?;
    if items.is_empty() || items.len() > MOST_RATES {
        place.fault(format!("1 to {MOST_RATES} rates are expected"));
        return None;
    }
    let mut by_prefix = BTreeMap::new();
    let mut sound = true;
    for item in &items {
        let Some((prefix, rate)) = usual.and_then(|usual| rate(item, usual)) else {
            sound = false;
            continue;
        };
        if by_prefix.insert(prefix.clone(), rate).is_some() {
            item.fault(format!("prefix {prefix:?} is there twice"));
            sound = false;
        }
    }
    sound.then_some(Rates { by_prefix })
}

fn rate(value: &Value<'_>, usual: (u32, u32)) -> Option<(String, Rate)> {
    let mut section = value.section()?;
    let prefix = section.required("prefix").and_then(|value| prefix(&value));
    let unit_amount = decimal(section.required("unit_amount"));
    let connection = optional_decimal(&mut section, "connection");
    let minimum = optional_decimal(&mut section, "minimum");
    let increments = match section.value("increments") {
        Some(value) => increments(&value),
        None => Some(usual),
    };
    section.finish();
    let (first_seconds, then_seconds) = increments?;
    let rate = Rate {
        unit_amount: unit_amount?,
        connection: connection?.unwrap_or(Exact::ZERO),
        minimum: minimum?.unwrap_or(Exact::ZERO),
        first_seconds,
        then_seconds,
    };
    Some((prefix?, rate))
}

/// `+`, digits; empty stands for every number.
fn prefix(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let digits = text.strip_prefix('+').unwrap_or(text);
    if text.len() > MOST_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'*' || b == b'#') {
        value.fault(format!("{text:?} is no beginning of a number; write for example +1512"));
        return None;
    }
    Some(text.to_owned())
}

/// `60/30`: the first 60 seconds whole, then 30 by 30.
fn increments(value: &Value<'_>) -> Option<(u32, u32)> {
    let text = value.text()?;
    let found = text.split_once('/').and_then(|(first, then)| Some((first.parse().ok()?, then.parse().ok()?)));
    let found = found.filter(|(first, then)| *first <= MOST_SECONDS && (1..=MOST_SECONDS).contains(then));
    if found.is_none() {
        value.fault(format!("{text:?} are no increments; write for example 60/30"));
    }
    found
}

const MOST_RATES: usize = 20_000;
const MOST_DIGITS: usize = 20;
const MOST_SECONDS: u32 = 86_400;
