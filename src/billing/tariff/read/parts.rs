//! Reads what splits a usage charge's quantity: windows of the week and classes of traffic.

use std::collections::BTreeMap;

use super::{decimal, identifier, places_of};
use crate::billing::tariff::{ClassPrice, Direction, Meter, PartPrice};
use crate::billing::window::{DAY_MINUTES, Window};
use crate::vocabulary::{Exact, Section, Value};

pub(super) fn windows(value: &Value<'_>) -> Option<Vec<Window>> {
    let items = value.list()?;
    if items.len() > MOST_PARTS {
        value.fault(format!("at most {MOST_PARTS} windows belong to a charge"));
        return None;
    }
    let windows: Vec<Option<Window>> = items.iter().map(window).collect();
    let windows = windows.into_iter().collect::<Option<Vec<Window>>>()?;
    for (index, window) in windows.iter().enumerate() {
        if windows[..index].iter().any(|other| other.id == window.id) {
            items[index].fault(format!("window `{}` is there twice", window.id));
            return None;
        }
    }
    Some(windows)
}

fn window(value: &Value<'_>) -> Option<Window> {
    let mut section = value.section()?;
    let id = section.required("id").and_then(|value| identifier(&value));
    let days = section.required("days").and_then(|value| value.parse());
    let from_value = section.required("from");
    let from = from_value.as_ref().and_then(minute_of_day);
    let until = section.required("to").and_then(|value| minute_of_day(&value));
    let price = part_price(&mut section);
    section.finish();
    // 00:00 ends the day, as 24:00 does.
    let (from, until) = (from?, until.map(|until| if until == 0 { DAY_MINUTES } else { until })?);
    if from == DAY_MINUTES || from == until {
        from_value?.fault("a window begins before 24:00 and is longer than nothing");
        return None;
    }
    Some(Window { id: id?, days: days?, from, until, price: price? })
}

/// `HH:MM`, up to `24:00`.
fn minute_of_day(value: &Value<'_>) -> Option<u16> {
    let text = value.text()?;
    let two = |part: &str| (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok())?;
    let minute = text.split_once(':').and_then(|(hours, minutes)| {
        let (hours, minutes): (u16, u16) = (two(hours)?, two(minutes)?);
        (hours <= 24 && minutes < 60).then_some(hours * 60 + minutes)
    });
    // Usage is kept by quarter hours, and every zone is a multiple of them from UTC.
    let minute = minute.filter(|minute| *minute <= DAY_MINUTES && minute % 15 == 0);
    if minute.is_none() {
        value.fault(format!("{text:?} is no quarter hour of a day; write for example 01:30"));
    }
    minute
}

/// Classes by name: a decimal is the class's own price per unit, a table says more.
pub(super) fn classes(value: &Value<'_>, meter: Option<Meter>) -> Option<BTreeMap<String, ClassPrice>> {
    let entries = value.section()?.entries();
    if entries.len() > MOST_PARTS {
        value.fault(format!("at most {MOST_PARTS} classes belong to a charge"));
        return None;
    }
    let mut classes = BTreeMap::new();
    let mut sound = true;
    for (name, value) in entries {
        match class(&value, meter) {
            Some(class) => drop(classes.insert(name, class)),
            None => sound = false,
        }
    }
    sound.then_some(classes)
}

fn class(value: &Value<'_>, meter: Option<Meter>) -> Option<ClassPrice> {
    if value.is_text() {
        let price = decimal(Some(value.clone()))?;
        return Some(ClassPrice { price: PartPrice::Own(price), direction: None });
    }
    let mut section = value.section()?;
    let price = part_price(&mut section);
    let direction = match section.value("direction") {
        Some(place) if meter.is_some_and(|meter| meter != Meter::Octets) => {
            place.fault("only octets have a direction");
            None
        }
        Some(place) => place.choice(CLASS_DIRECTIONS).map(Some),
        None => Some(None),
    };
    section.finish();
    Some(ClassPrice { price: price?, direction: direction? })
}

fn part_price(section: &mut Section<'_>) -> Option<PartPrice> {
    let (weight, own) = (section.value("weight"), section.value("unit_amount"));
    match (weight, own) {
        (Some(place), None) => {
            let weight = decimal(Some(place.clone()))?;
            if weight > Exact::from_int(MOST_WEIGHT) || places_of(weight) > MOST_WEIGHT_PLACES {
                place.fault(format!(
                    "a weight is at most {MOST_WEIGHT} with at most {MOST_WEIGHT_PLACES} decimal places"
                ));
                return None;
            }
            Some(PartPrice::Weight(weight))
        }
        (None, Some(place)) => decimal(Some(place)).map(PartPrice::Own),
        _ => {
            section.fault("either `weight` or `unit_amount` says how it is rated");
            None
        }
    }
}

const CLASS_DIRECTIONS: &[(&str, Direction)] =
    &[("up", Direction::Up), ("down", Direction::Down), ("sum", Direction::Sum)];
const MOST_PARTS: usize = 50;
const MOST_WEIGHT: i128 = 100;
const MOST_WEIGHT_PLACES: u32 = 4;
