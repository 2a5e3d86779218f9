//! Discounts that hold for a time only: promotions, bundles, trials. Each is given for the part of the billed time in which
//! all it asks for is there.

use jiff::ToSpan;

use super::calendar::{BillCycle, CalendarError, days_between};
use super::facts::{AccountFacts, RunContext, ServiceFacts, Stretch};
use super::price::Granted;
use super::run::RunError;
use super::tariff::{Charge, ChargeKind, Discount, Proration, Scope, Tariff};
use crate::vocabulary::{Exact, Timestamp};

/// Time in order, without overlap; `None`: without an end.
type Windows = Vec<(Timestamp, Option<Timestamp>)>;

/// The conditional discounts of a charge that the billed time has a part of.
pub fn granted(
    facts: &AccountFacts,
    service: &ServiceFacts,
    (tariff, charge): (&Tariff, &Charge),
    cycle_index: u32,
    coverage: &[(Timestamp, Timestamp)],
    context: &RunContext,
) -> Result<Vec<Granted>, RunError> {
    let mut found = Vec::new();
    let conditional = tariff.discounts.iter().filter(|discount| !discount.condition.is_always());
    for discount in conditional.filter(|discount| discount.applies_to.contains(&charge.id)) {
        let windows = windows(facts, service, discount, cycle_index, context)?;
        let part = part(charge, coverage, &windows, &context.cycle)?;
        if !part.is_zero() {
            found.push(Granted { discount: discount.id.clone(), part });
        }
    }
    Ok(found)
}

/// When everything the discount asks for is there.
fn windows(
    facts: &AccountFacts,
    service: &ServiceFacts,
    discount: &Discount,
    cycle_index: u32,
    context: &RunContext,
) -> Result<Windows, RunError> {
    let cycle = &context.cycle;
    let condition = &discount.condition;
    let mut windows: Windows = vec![(Timestamp::MIN, None)];
    match (&condition.promo, discount.cycles) {
        (Some(code), cycles) => {
            let mut promos = Windows::new();
            for promo in service.promos.iter().filter(|promo| promo.code == *code) {
                // A promotion counts its periods from where it begins for this service.
                let begins = promo.from.max(service.began_at.unwrap_or(promo.from));
                let until = match cycles {
                    Some(cycles) => earlier(promo.until, Some(after_cycles(cycle, begins, cycles)?)),
                    None => promo.until,
                };
                promos.push((begins, until));
            }
            windows = intersected(&windows, &joined(promos));
        }
        (None, Some(cycles)) if cycle_index >= cycles => return Ok(Windows::new()),
        _ => {}
    }
    for tariff in &condition.requires {
        let own = facts.services.iter().filter(|service| service.scope == Scope::Service);
        let stretches = own.flat_map(|service| service.stretches.iter().chain(&service.elsewhere));
        let mut with = Windows::new();
        for stretch in stretches.filter(|stretch| stretch.tariff == *tariff) {
            with.push(in_days(stretch, cycle)?);
        }
        windows = intersected(&windows, &joined(with));
    }
    if let (Some(days), Some(began)) = (condition.trial_days, service.began_at) {
        let first = cycle.day_of(began);
        let end = first.checked_add(i64::from(days).days()).map_err(|_| CalendarError::OutOfRange)?;
        windows = intersected(&windows, &vec![(Timestamp::MIN, Some(cycle.midnight(end)?))]);
    }
    Ok(windows)
}

fn after_cycles(cycle: &BillCycle, begins: Timestamp, cycles: u32) -> Result<Timestamp, CalendarError> {
    let mut period = cycle.period_at(begins)?;
    for _ in 1..cycles {
        period = cycle.next(&period)?;
    }
    Ok(period.end)
}

fn in_days(stretch: &Stretch, cycle: &BillCycle) -> Result<(Timestamp, Option<Timestamp>), CalendarError> {
    let from = cycle.midnight(cycle.day_of(stretch.from))?;
    Ok((from, stretch.until.map(|until| cycle.midnight(cycle.day_of(until))).transpose()?))
}

/// The part of the billed time that lies in the windows, from 0 to 1. What is not prorated has the discount when its first
/// moment has.
fn part(
    charge: &Charge,
    coverage: &[(Timestamp, Timestamp)],
    windows: &Windows,
    cycle: &BillCycle,
) -> Result<Exact, RunError> {
    let Some((first, _)) = coverage.first() else { return Ok(Exact::ZERO) };
    let by_time = match &charge.kind {
        ChargeKind::Recurring(recurring) => match recurring.proration {
            Proration::None => None,
            proration => Some(proration == Proration::PerSecond),
        },
        ChargeKind::Usage(_) => Some(false),
        ChargeKind::OneOff { .. } | ChargeKind::Deposit { .. } | ChargeKind::Count(_) => None,
    };
    let Some(by_second) = by_time else {
        let inside = windows.iter().any(|(from, until)| from <= first && until.is_none_or(|until| *first < until));
        return Ok(if inside { Exact::ONE } else { Exact::ZERO });
    };
    let length = |from: Timestamp, until: Timestamp| match by_second {
        true => i128::from(until.as_microsecond() - from.as_microsecond()),
        false => i128::from(days_between(cycle.day_of(from), cycle.day_of(until))),
    };
    let (mut whole, mut inside) = (0, 0);
    for (from, until) in coverage {
        whole += length(*from, *until);
        for (begins, ends) in windows {
            let (from, until) = (*from.max(begins), ends.map_or(*until, |ends| ends.min(*until)));
            if from < until {
                inside += length(from, until);
            }
        }
    }
    if whole == 0 { Ok(Exact::ZERO) } else { Ok(Exact::ratio(inside, whole)?) }
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

fn joined(mut windows: Windows) -> Windows {
    windows.sort_by_key(|(from, _)| *from);
    let mut joined = Windows::new();
    for (from, until) in windows {
        match joined.last_mut() {
            Some((_, end)) if end.is_none_or(|end| from <= end) => {
                *end = match (*end, until) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    _ => None,
                };
            }
            _ => joined.push((from, until)),
        }
    }
    joined
}

fn intersected(one: &Windows, other: &Windows) -> Windows {
    let mut found = Windows::new();
    for (from, until) in one {
        for (other_from, other_until) in other {
            let (from, until) = (*from.max(other_from), earlier(*until, *other_until));
            if until.is_none_or(|until| from < until) {
                found.push((from, until));
            }
        }
    }
    found
}
