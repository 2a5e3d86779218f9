//! Reads a count charge: who is counted, when, and the model that prices the number.

use super::usage::pricing;
use crate::account::{ServiceType, Status};
use crate::billing::tariff::{Count, CountRule, Counted};
use crate::vocabulary::{Section, Value};

pub(super) fn count(section: &mut Section<'_>) -> Option<Count> {
    let what = section.required("count").and_then(|value| value.choice(WHAT));
    let types = list(section.value("service_types"), |value| value.parse::<ServiceType>());
    let plans = list(section.value("plans"), |value| value.text().map(str::to_owned));
    let statuses = list(section.value("statuses"), |value| value.parse::<Status>());
    let rule = rule(section);
    let pricing = pricing(section);
    let statuses = statuses.map(|list| if list.is_empty() { vec![Status::Active] } else { list });
    Some(Count { what: what?, types: types?, plans: plans?, statuses: statuses?, rule: rule?, pricing: pricing? })
}

fn rule(section: &mut Section<'_>) -> Option<CountRule> {
    let word = section.required("rule")?.choice(RULES)?;
    let day = section.value("day");
    match (word, day) {
        (CountRule::ActiveOn(_), Some(value)) => {
            value.integer(1..MOST_DAYS + 1).and_then(|day| u16::try_from(day).ok()).map(CountRule::ActiveOn)
        }
        (CountRule::ActiveOn(_), None) => {
            section.fault("`day` is missing: the day of the period, counted from 1, on which a subscriber counts");
            None
        }
        (_, Some(value)) => {
            value.fault("`day` goes with `rule = \"active_on\"`");
            None
        }
        (rule, None) => Some(rule),
    }
}

/// The values of a list; an absent one is empty.
fn list<'d, T>(value: Option<Value<'d>>, read: impl Fn(&Value<'d>) -> Option<T>) -> Option<Vec<T>> {
    match value {
        Some(value) => value.list()?.iter().map(read).collect(),
        None => Some(Vec::new()),
    }
}

const WHAT: &[(&str, Counted)] = &[("subscribers", Counted::Accounts), ("services", Counted::Services)];
const RULES: &[(&str, CountRule)] = &[
    ("active_on", CountRule::ActiveOn(1)),
    ("any", CountRule::Any),
    ("average_daily", CountRule::AverageDaily),
    ("peak", CountRule::Peak),
];
/// Days of the longest period there is.
const MOST_DAYS: u64 = 1900;
