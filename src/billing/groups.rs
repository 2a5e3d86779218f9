//! Which items of a run share an allowance, in which order their periods follow, and which of them a run must rate.
//!
//! A cause in one item moves the allowance of those that share it, and of their later periods where it is carried on.
//! Items may be of several accounts: a family's, which are rated together.

use std::collections::BTreeMap;

use jiff::ToSpan;

use super::allowance::{Carry, Member, Shared, Usable, share};
use super::calendar::{BillCycle, CalendarError};
use super::facts::{AccountFacts, Grant, RunContext};
use super::items::Item;
use super::lines::StoredLine;
use super::price::{Measure, allowance_of, quantity_of};
use super::run::RunError;
use super::tariff::{Allowance, ChargeKind, Pool, Rollover, Unit, Usage};
use crate::vocabulary::{Exact, ExactError, Period, Timestamp};

/// The items of one period that share an allowance, in the order in which they are served.
pub struct Step<'r> {
    pub period: Period,
    /// Places in the list of items.
    pub members: Vec<usize>,
    /// Top-ups that may be used in the period, in the order they were made.
    grants: Vec<&'r Grant>,
}

/// The steps of one shared allowance, period by period.
pub struct Chain<'r> {
    sharing: Sharing<'r>,
    pub steps: Vec<Step<'r>>,
}

/// Who shares an allowance; accounts by their place in the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing<'r> {
    Service(usize, &'r str),
    Account(usize),
    /// The accounts under one head, and the head itself.
    Family(&'r str),
}

/// Every shared allowance among the items, which are of the accounts of `family`.
///
/// **Errors**: accounts that share one are billed on other cycles, or charges that share one count in other units.
pub fn chains<'r>(
    family: &'r [AccountFacts],
    items: &[Item<'r>],
    context: &RunContext,
) -> Result<Vec<Chain<'r>>, RunError> {
    let mut chains: BTreeMap<(&str, Sharing<'r>), BTreeMap<Timestamp, Step<'r>>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let Some(usage) = usage_of(item) else { continue };
        let sharing = sharing_of(family, item, usage);
        let grants = grants_of(family, sharing, &item.charge.id, &item.period);
        if !is_shared(usage) && grants.is_empty() {
            continue;
        }
        if let Sharing::Family(head) = sharing {
            one_cycle(family, head, item, context)?;
        }
        let chain = chains.entry((&item.charge.id, sharing)).or_default();
        let new = || Step { period: item.period.clone(), members: Vec::new(), grants };
        let step = chain.entry(item.period.start).or_insert_with(new);
        let unit = |index: &usize| usage_of(&items[*index]).map(|usage| usage.unit);
        if step.members.first().is_some_and(|first| unit(first) != Some(usage.unit)) {
            return Err(RunError::PoolUnits { charge: item.charge.id.clone() });
        }
        step.members.push(index);
    }
    let chain = |((_, sharing), steps): ((&str, Sharing<'r>), BTreeMap<Timestamp, Step<'r>>)| Chain {
        sharing,
        steps: steps.into_values().collect(),
    };
    Ok(chains.into_iter().map(chain).collect())
}

/// Whether an allowance of the charge is ever more than one item's own, top-ups aside.
pub fn is_shared(usage: &Usage) -> bool {
    usage.prepaid || shared_allowance(usage).is_some()
}

/// Which items must be rated: those with a cause, and those a cause moves through a shared allowance, be it one of an earlier
/// run that did not look at them.
pub fn due(family: &[AccountFacts], items: &[Item<'_>], chains: &[Chain<'_>]) -> Vec<bool> {
    let mut due: Vec<bool> = items.iter().map(Item::has_cause).collect();
    for chain in chains {
        let mut moved = false;
        for step in &chain.steps {
            let rolls = step.members.iter().any(|index| rollover_of(&items[*index]).is_some());
            let carries = rolls || step.grants.iter().any(|grant| grant.from < step.period.start);
            let caused = step.members.iter().any(|index| due[*index]) || is_stale(family, items, chain, step);
            moved = (moved && carries) || caused;
            step.members.iter().for_each(|index| due[*index] |= moved);
        }
    }
    due
}

/// What the members of a step use, given what was carried there.
pub fn share_step(
    family: &[AccountFacts],
    items: &[Item<'_>],
    step: &Step<'_>,
    measures: &[&Measure],
    before: &Carry,
    context: &RunContext,
) -> Result<(Shared, Vec<Usable>), RunError> {
    let members: Result<Vec<Member>, RunError> =
        step.members.iter().zip(measures).map(|(index, measure)| member(&items[*index], measure)).collect();
    let rollover = step.members.iter().rev().find_map(|index| rollover_of(&items[*index]));
    let usable = usable(family, step, usage_of(&items[step.members[0]]), &context.cycle)?;
    let period = context.cycle.ordinal(&step.period)?;
    Ok((share(before, period, rollover, &members?, &usable)?, usable))
}

/// What the lines issued so far carry into the period: that of the newest period before it.
pub fn issued_carry(family: &[AccountFacts], items: &[Item<'_>], chain: &Chain<'_>, step: &Step<'_>) -> Carry {
    let earlier = |start: Timestamp| start < step.period.start;
    let newest = newest_of(family, (items, chain, step), &earlier);
    newest.and_then(|line| line.basis.carry.clone()).unwrap_or_default()
}

/// Whether the period's lines went on from something else than what is carried into it by now: a run of an older period
/// corrects that one, and leaves the later ones to theirs.
fn is_stale(family: &[AccountFacts], items: &[Item<'_>], chain: &Chain<'_>, step: &Step<'_>) -> bool {
    let here = |start: Timestamp| start == step.period.start;
    let newest = newest_of(family, (items, chain, step), &here);
    let Some(pool) = newest.and_then(|line| line.basis.pool.as_ref()) else { return false };
    !pool.goes_on_from(&issued_carry(family, items, chain, step))
}

/// The newest line of a chain that tells what is carried on, of periods that begin so.
fn newest_of<'f>(
    family: &'f [AccountFacts],
    (items, chain, step): (&[Item<'_>], &Chain<'_>, &Step<'_>),
    begins: &dyn Fn(Timestamp) -> bool,
) -> Option<&'f StoredLine> {
    let charge = &items[step.members[0]].key.charge;
    let mut newest: Option<&StoredLine> = None;
    for (account, facts) in family.iter().enumerate() {
        for line in &facts.issued {
            let of_chain = match chain.sharing {
                Sharing::Service(own, service) => own == account && line.line.service.as_deref() == Some(service),
                Sharing::Account(own) => own == account,
                Sharing::Family(head) => facts.head_at(last_moment(&line.line.period)) == head,
            };
            if of_chain && line.line.charge == *charge && begins(line.line.period.start) {
                newest = newer(newest, line);
            }
        }
    }
    newest
}

/// Of several lines of a period the newest run's holds; of lines of several periods the newest period's.
pub fn newer<'l>(known: Option<&'l StoredLine>, line: &'l StoredLine) -> Option<&'l StoredLine> {
    if line.basis.carry.is_none() {
        return known;
    }
    let order = |line: &StoredLine| {
        let watermark = line.line.usage.as_ref().map_or(0, |usage| usage.watermark);
        (line.line.period.start, line.line.created_at, watermark, line.basis.revision)
    };
    Some(known.filter(|known| order(known) > order(line)).unwrap_or(line))
}

/// The item's own allowance and its quantity.
pub fn member(item: &Item<'_>, measure: &Measure) -> Result<Member, RunError> {
    match usage_of(item).filter(|_| !item.coverage.is_empty()) {
        Some(usage) => Ok(member_of(usage, measure)?),
        None => Ok(Member { own: Exact::ZERO, quantity: Exact::ZERO }),
    }
}

/// What a usage charge has of its own and has used.
pub fn member_of(usage: &Usage, measure: &Measure) -> Result<Member, ExactError> {
    let own = allowance_of(usage, measure)?.unwrap_or(Exact::ZERO);
    Ok(Member { own, quantity: quantity_of(usage, measure)? })
}

/// How what is left of a charge's allowance is carried on.
pub fn rollover(usage: &Usage) -> Option<Rollover> {
    shared_allowance(usage)?.rollover
}

/// The top-ups of a shared allowance that may be used in a period: those that had begun when it ended.
pub fn grants_of<'r>(
    family: &'r [AccountFacts],
    sharing: Sharing<'_>,
    charge: &str,
    period: &Period,
) -> Vec<&'r Grant> {
    let mut found = Vec::new();
    for (account, facts) in family.iter().enumerate() {
        found.extend(facts.grants.iter().filter(|grant| {
            let its_own = match sharing {
                Sharing::Service(own, service) => {
                    grant.pool == Pool::Service && own == account && grant.service == service
                }
                Sharing::Account(own) => grant.pool == Pool::Account && own == account,
                Sharing::Family(head) => grant.pool == Pool::Parent && grant.head.as_deref() == Some(head),
            };
            let in_time = grant.from < period.end && grant.until.is_none_or(|until| period.start < until);
            its_own && in_time && grant.charge == charge && (!grant.foreign || is_billed_here(facts, grant, period))
        }));
    }
    found
}

/// Whether this cycle bills the account in the part of the period in which a top-up is there: one that was posted on another
/// cycle pays for nothing that was used before it, where that one still billed.
fn is_billed_here(facts: &AccountFacts, grant: &Grant, period: &Period) -> bool {
    let from = grant.from.max(period.start);
    let services = facts.services.iter().filter(|service| service.addon.is_none());
    let mut stretches = services.flat_map(|service| &service.stretches);
    stretches.any(|stretch| stretch.from < period.end && stretch.until.is_none_or(|until| from < until))
}

/// What periods of other cycles have used of a top-up, by the newest line of each; in octets, seconds or sessions.
pub fn taken_elsewhere(family: &[AccountFacts], id: &str) -> Result<Exact, ExactError> {
    let mut newest: BTreeMap<(&str, Timestamp), &StoredLine> = BTreeMap::new();
    for line in family.iter().flat_map(|facts| &facts.issued_elsewhere) {
        let mut named = line.basis.pool.iter().flat_map(|pool| &pool.grants);
        if named.any(|grant| grant.id == id) {
            let key = (line.line.cycle.as_str(), line.line.period.start);
            if let Some(line) = newer(newest.get(&key).copied(), line) {
                newest.insert(key, line);
            }
        }
    }
    newest.into_values().try_fold(Exact::ZERO, |sum, line| sum.checked_add(taken_of(line, id)?))
}

/// What the period of a line used of a top-up.
fn taken_of(line: &StoredLine, id: &str) -> Result<Exact, ExactError> {
    let taken = line.basis.pool.iter().flat_map(|pool| &pool.taken).find(|taken| taken.id == id);
    if let Some(taken) = taken {
        return Ok(taken.amount.0);
    }
    // Nothing; or a line from before it was said, whose buckets are in the unit of its charge.
    let mut buckets = line.line.allowance.iter().flat_map(|shape| &shape.buckets);
    let used = buckets.find(|bucket| bucket.id.as_deref() == Some(id)).map(|bucket| bucket.used.parse::<Exact>());
    let unit = line.line.unit.parse::<Unit>().map_or(1, |unit| unit.size());
    used.transpose()?.unwrap_or(Exact::ZERO).checked_mul(Exact::from_int(i128::from(unit)))
}

/// Who shares an item's allowance.
pub fn sharing_of<'r>(family: &'r [AccountFacts], item: &Item<'r>, usage: &Usage) -> Sharing<'r> {
    match usage.pool() {
        Pool::Service => Sharing::Service(item.account, &family[item.account].services[item.service].id),
        Pool::Account => Sharing::Account(item.account),
        Pool::Parent => Sharing::Family(family[item.account].head_at(last_moment(&item.period))),
    }
}

/// Top-ups by the numbers of periods and in the unit of the charge.
fn usable(
    family: &[AccountFacts],
    step: &Step<'_>,
    usage: Option<&Usage>,
    cycle: &BillCycle,
) -> Result<Vec<Usable>, RunError> {
    let unit = usage.map_or(1, Usage::unit_size);
    let usable = |grant: &&Grant| -> Result<Usable, RunError> {
        let until = match grant.until {
            Some(until) => last_period(cycle, until)?,
            None => NO_END,
        };
        let amount = Exact::ratio(i128::from(grant.amount), i128::from(unit))?;
        let elsewhere = taken_elsewhere(family, &grant.id)?.checked_div(Exact::from_int(i128::from(unit)))?;
        Ok(Usable { id: grant.id.clone(), until, amount, elsewhere })
    };
    step.grants.iter().map(usable).collect()
}

/// The number of the period that a time ends in.
pub fn last_period(cycle: &BillCycle, until: Timestamp) -> Result<i64, CalendarError> {
    cycle.ordinal(&cycle.period_at(before(until))?)
}

/// Pools over several accounts are periods of one calendar: a relative that another cycle bills in the period stops all.
fn one_cycle(family: &[AccountFacts], head: &str, item: &Item<'_>, context: &RunContext) -> Result<(), RunError> {
    let period = &item.period;
    for facts in family.iter().filter(|facts| facts.head_at(last_moment(period)) == head) {
        let stretches = facts.services.iter().filter(|service| service.addon.is_none()).flat_map(|s| &s.elsewhere);
        let here = |from: Timestamp, until: Option<Timestamp>| {
            from < period.end && until.is_none_or(|until| period.start < until)
        };
        let pools = |tariff: &str| {
            let versions = context.tariffs.get(tariff).map(Vec::as_slice).unwrap_or_default();
            let charges = versions.iter().filter_map(|version| version.tariff.charge(&item.charge.id));
            charges
                .into_iter()
                .any(|charge| matches!(&charge.kind, ChargeKind::Usage(usage) if usage.pool() == Pool::Parent))
        };
        if { stretches }.any(|stretch| here(stretch.from, stretch.until) && pools(&stretch.tariff)) {
            let (account, charge) = (facts.account.clone(), item.charge.id.clone());
            return Err(RunError::OtherCycle { head: head.to_owned(), account, charge });
        }
    }
    Ok(())
}

fn last_moment(period: &Period) -> Timestamp {
    before(period.end)
}

fn before(instant: Timestamp) -> Timestamp {
    instant.checked_sub(1.microsecond()).unwrap_or(instant)
}

fn usage_of<'i>(item: &'i Item<'_>) -> Option<&'i Usage> {
    match &item.charge.kind {
        ChargeKind::Usage(usage) => Some(usage),
        _ => None,
    }
}

fn shared_allowance(usage: &Usage) -> Option<Allowance> {
    usage.allowance.filter(|allowance| allowance.pool != Pool::Service || allowance.rollover.is_some())
}

fn rollover_of(item: &Item<'_>) -> Option<Rollover> {
    rollover(usage_of(item)?)
}

/// The number of no period: a top-up that does not expire is used last.
pub const NO_END: i64 = i64::MAX;
