//! Which items of a run share an allowance, in which order their periods follow, and which of them a run must rate.
//!
//! A cause in one item moves the allowance of those that share it, and of their later periods where it is carried on.

use std::collections::BTreeMap;

use super::allowance::{Carry, Member, Shared, share};
use super::calendar::CalendarError;
use super::facts::{AccountFacts, RunContext};
use super::items::Item;
use super::price::{Measure, allowance_of, quantity_of};
use super::run::RunError;
use super::tariff::{Allowance, ChargeKind, Pool, Rollover, Usage};
use crate::vocabulary::{Exact, Period, Timestamp};

/// The items of one period that share an allowance, in the order in which they are served.
pub struct Step {
    pub period: Period,
    /// Places in the list of items.
    pub members: Vec<usize>,
}

/// The steps of one shared allowance, period by period.
pub type Chain = Vec<Step>;

/// Every shared allowance among the items.
pub fn chains(items: &[Item<'_>]) -> Vec<Chain> {
    let mut chains: BTreeMap<(&str, Option<&str>), BTreeMap<Timestamp, Step>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let Some(allowance) = shared_allowance(item) else { continue };
        let service = (allowance.pool == Pool::Service).then_some(item.key.service.as_str());
        let chain = chains.entry((&item.key.charge, service)).or_default();
        let step =
            chain.entry(item.period.start).or_insert_with(|| Step { period: item.period.clone(), members: Vec::new() });
        step.members.push(index);
    }
    chains.into_values().map(|chain| chain.into_values().collect()).collect()
}

/// Which items must be rated: those with a cause, and those a cause moves through a shared allowance.
pub fn due(items: &[Item<'_>], chains: &[Chain]) -> Vec<bool> {
    let mut due: Vec<bool> = items.iter().map(Item::has_cause).collect();
    for chain in chains {
        let mut moved = false;
        for step in chain {
            let carries = step.members.iter().any(|index| rollover_of(&items[*index]).is_some());
            moved = (moved && carries) || step.members.iter().any(|index| due[*index]);
            step.members.iter().for_each(|index| due[*index] |= moved);
        }
    }
    due
}

/// What the members of a step use, given what was carried there.
pub fn share_step(
    items: &[Item<'_>],
    step: &Step,
    measures: &[&Measure],
    before: &Carry,
    context: &RunContext,
) -> Result<Shared, RunError> {
    let members: Result<Vec<Member>, RunError> =
        step.members.iter().zip(measures).map(|(index, measure)| member(&items[*index], measure)).collect();
    let rollover = step.members.iter().rev().find_map(|index| rollover_of(&items[*index]));
    Ok(share(before, ordinal(context, &step.period)?, rollover, &members?)?)
}

/// What the lines issued so far carry into the period: that of the newest period before it.
pub fn issued_carry(facts: &AccountFacts, items: &[Item<'_>], step: &Step) -> Carry {
    let first = &items[step.members[0]];
    let pooled = shared_allowance(first).is_some_and(|allowance| allowance.pool == Pool::Account);
    let of_chain = facts.issued.iter().filter(|line| {
        line.line.charge == first.key.charge
            && (pooled || line.line.service.as_deref() == Some(&first.key.service))
            && line.line.period.start < step.period.start
    });
    // Of several lines of a period the newest run's holds.
    let newest = of_chain.filter(|line| line.basis.carry.is_some()).max_by_key(|line| {
        let watermark = line.line.usage.as_ref().map_or(0, |usage| usage.watermark);
        (line.line.period.start, line.line.created_at, watermark, line.basis.revision)
    });
    newest.and_then(|line| line.basis.carry.clone()).unwrap_or_default()
}

fn member(item: &Item<'_>, measure: &Measure) -> Result<Member, RunError> {
    let Some(usage) = usage_of(item).filter(|_| !item.coverage.is_empty()) else {
        return Ok(Member { own: Exact::ZERO, quantity: Exact::ZERO });
    };
    let own = allowance_of(usage, measure)?.unwrap_or(Exact::ZERO);
    Ok(Member { own, quantity: quantity_of(usage, measure)? })
}

fn ordinal(context: &RunContext, period: &Period) -> Result<i64, CalendarError> {
    context.cycle.ordinal(period)
}

fn usage_of<'i>(item: &'i Item<'_>) -> Option<&'i Usage> {
    match &item.charge.kind {
        ChargeKind::Usage(usage) => Some(usage),
        _ => None,
    }
}

fn shared_allowance(item: &Item<'_>) -> Option<Allowance> {
    let allowance = usage_of(item)?.allowance?;
    (allowance.pool == Pool::Account || allowance.rollover.is_some()).then_some(allowance)
}

fn rollover_of(item: &Item<'_>) -> Option<Rollover> {
    shared_allowance(item)?.rollover
}
