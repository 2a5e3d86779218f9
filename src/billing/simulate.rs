//! What a period would have cost at other prices: the same facts are rated again, and compared item by item.
//!
//! A simulation knows no lines: the period is rated at once, from nothing. So with the prices that were in force it must
//! give what all lines of the period add up to; `control` says whether it does.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::ToSpan;
use jiff::civil::Date;

use super::facts::{AccountFacts, KnownVersion, RunContext, UsageEntry};
use super::lines::{ItemKey, StoredLine};
use super::run::{RunError, UsageNeed, lines, usage_needed};
use super::tariff::{Apply, ChargeKind, Tariff};
use crate::vocabulary::{Currency, ExactError, Money, Timestamp};

/// One account's period at two prices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Both with exclusive tax.
    pub before: Money,
    pub after: Money,
    /// Items whose amount or tax differs.
    pub items: Vec<ItemDifference>,
}

/// One charge of one service at two prices, in minor units, exclusive tax included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemDifference {
    pub service: String,
    pub addon: Option<String>,
    pub charge: String,
    pub before: i64,
    pub after: i64,
}

/// The plan that would have cost least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BestPlan {
    pub service: String,
    pub plan: String,
    /// The account's whole period, one-off charges left out, exclusive tax included.
    pub cost: Money,
    pub best_plan: String,
    pub best_cost: Money,
}

/// A plan that can be bought, with its tariff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub plan: String,
    pub tariff: String,
}

/// The run's context with `tariff` as the only version of its id there ever was.
pub fn with_tariff(context: &RunContext, tariff: &Tariff) -> RunContext {
    let mut always = tariff.clone();
    always.effective_from = Date::constant(1970, 1, 1);
    always.apply = Apply::Split;
    let mut changed = context.clone();
    let version = KnownVersion { tariff: always, known_at: Timestamp::MIN };
    Arc::make_mut(&mut changed.tariffs).insert(tariff.id.clone(), vec![version]);
    changed
}

/// Which ledger entries `period_lines` wants of an account.
pub fn period_usage_needed(facts: &AccountFacts, context: &RunContext) -> Result<Vec<UsageNeed>, RunError> {
    usage_needed(&unissued(facts, context), &of_period(context))
}

/// Every line the context's period has, as if none had been issued.
pub fn period_lines(facts: &AccountFacts, context: &RunContext) -> Result<Vec<StoredLine>, RunError> {
    let found = lines(&unissued(facts, context), &of_period(context))?.lines;
    Ok(found.into_iter().filter(|line| line.line.period == context.period).collect())
}

/// Compares an account's period at two prices; `None`: none of its items has a tariff called `tariff`.
pub fn compare(
    facts: &AccountFacts,
    before: &RunContext,
    after: &RunContext,
    tariff: &str,
) -> Result<Option<Comparison>, RunError> {
    let (before, after) = (period_lines(facts, before)?, period_lines(facts, after)?);
    let touched = before.iter().chain(&after).find(|stored| stored.line.tariff.id == tariff);
    let Some(currency) = touched.and_then(|stored| stored.line.currency.parse::<Currency>().ok()) else {
        return Ok(None);
    };
    let mut sums: BTreeMap<(String, Option<String>, String), (i64, i64)> = BTreeMap::new();
    for (lines, side) in [(&before, 0), (&after, 1)] {
        for stored in lines {
            let key = stored.item();
            let sum = sums.entry((key.service, key.addon, key.charge)).or_default();
            let sum = if side == 0 { &mut sum.0 } else { &mut sum.1 };
            *sum = sum.checked_add(cost(stored)?).ok_or(crate::vocabulary::MoneyError::Overflow)?;
        }
    }
    let total = |lines: &[StoredLine]| sum_of(lines, currency);
    let items = sums
        .into_iter()
        .filter(|(_, (before, after))| before != after)
        .map(|((service, addon, charge), (before, after))| ItemDifference { service, addon, charge, before, after })
        .collect();
    Ok(Some(Comparison { before: total(&before)?, after: total(&after)?, items }))
}

/// Every difference between what was issued for the period and what rating it from nothing gives; empty: the same to the
/// last digit. A correction that is due and not issued yet is such a difference.
pub fn control(issued: &[StoredLine], replayed: &[StoredLine]) -> Vec<String> {
    let mut newest: BTreeMap<ItemKey, &StoredLine> = BTreeMap::new();
    for line in issued {
        let known = newest.entry(line.item()).or_insert(line);
        if line.basis.revision > known.basis.revision {
            *known = line;
        }
    }
    let mut again: BTreeMap<ItemKey, &StoredLine> = replayed.iter().map(|line| (line.item(), line)).collect();
    let mut differences = Vec::new();
    for (key, line) in newest {
        let name = format!("{} {} version {}", key.service, key.charge, key.version);
        let kept = &line.basis;
        let Some(replayed) = again.remove(&key) else {
            if kept.amount_minor != 0 || kept.quantity_raw != 0 {
                differences.push(format!("{name}: {} was issued, nothing is due", kept.amount_exact.0));
            }
            continue;
        };
        let now = &replayed.basis;
        let mut compare = |what: &str, kept: String, now: String| {
            if kept != now {
                differences.push(format!("{name}: {what} is {kept} in its lines and {now} replayed"));
            }
        };
        compare("quantity_raw", kept.quantity_raw.to_string(), now.quantity_raw.to_string());
        compare("amount_exact", kept.amount_exact.0.to_string(), now.amount_exact.0.to_string());
        compare("amount", kept.amount_minor.to_string(), now.amount_minor.to_string());
        let due = |basis: &super::lines::Basis| -> Vec<(String, i64)> {
            let levied = basis.taxes.iter().filter(|tax| tax.amount_minor != 0);
            levied.map(|tax| (tax.id.clone(), tax.amount_minor)).collect()
        };
        compare("tax", format!("{:?}", due(kept)), format!("{:?}", due(now)));
    }
    for (key, line) in again {
        if line.basis.amount_minor != 0 || line.basis.quantity_raw != 0 {
            let (service, charge) = (key.service, key.charge);
            differences.push(format!("{service} {charge}: {} is due, nothing was issued", line.basis.amount_exact.0));
        }
    }
    differences
}

/// The cheapest of `offers` for one service, the rest of the account as it is; of equal ones the present plan, else the
/// first by name. An own price belongs to the plan it was made for, so that it counts for the present plan alone.
///
/// `None`: the service is not billed in the period.
pub fn best_plan(
    facts: &AccountFacts,
    context: &RunContext,
    (service, plan): (&str, &str),
    offers: &[Offer],
) -> Result<Option<BestPlan>, RunError> {
    let lines = repeating(period_lines(facts, context)?, context);
    let Some(currency) = lines.iter().find_map(|stored| stored.line.currency.parse::<Currency>().ok()) else {
        return Ok(None);
    };
    if !lines.iter().any(|stored| stored.line.service.as_deref() == Some(service) && stored.basis.addon.is_none()) {
        return Ok(None);
    }
    let cost = sum_of(&lines, currency)?;
    let mut best = (cost, plan.to_owned());
    for offer in offers.iter().filter(|offer| offer.plan != plan) {
        let mut other = facts.clone();
        for main in other.services.iter_mut().filter(|known| known.id == service && known.addon.is_none()) {
            main.price_overrides.clear();
            main.stretches.iter_mut().for_each(|stretch| stretch.tariff.clone_from(&offer.tariff));
        }
        let lines = repeating(period_lines(&other, context)?, context);
        let costs = sum_of(&lines, currency)?;
        let priced = lines
            .iter()
            .any(|stored| stored.line.service.as_deref() == Some(service) && stored.line.tariff.id == offer.tariff);
        if priced && costs.minor < best.0.minor {
            best = (costs, offer.plan.clone());
        }
    }
    let (service, plan) = (service.to_owned(), plan.to_owned());
    Ok(Some(BestPlan { service, plan, cost, best_plan: best.1, best_cost: best.0 }))
}

/// What `octets` more of a service's usage in the period would have cost, exclusive tax included; they are up and down as
/// its other usage is. `None`: nothing meters them.
pub fn marginal(
    facts: &AccountFacts,
    context: &RunContext,
    service: &str,
    octets: i128,
) -> Result<Option<Money>, RunError> {
    let before = period_lines(facts, context)?;
    let metered = before.iter().filter(|stored| stored.line.usage.is_some());
    let covered = metered
        .filter(|stored| stored.line.service.as_deref() == Some(service))
        .filter_map(|stored| Some((stored.basis.coverage.last()?.1, stored.line.currency.parse::<Currency>().ok()?)))
        .max_by_key(|(until, _)| *until);
    let Some((until, currency)) = covered else { return Ok(None) };
    let mut more = facts.clone();
    let Some(main) = more.services.iter_mut().find(|known| known.id == service && known.addon.is_none()) else {
        return Ok(None);
    };
    let sum =
        |count: fn(&UsageEntry) -> i64| main.usage.iter().map(|entry| i128::from(count(entry)).max(0)).sum::<i128>();
    let (up, down) = (sum(|entry| entry.in_octets), sum(|entry| entry.out_octets));
    let up = if up + down > 0 { octets.checked_mul(up).ok_or(ExactError::Overflow)? / (up + down) } else { 0 };
    let fits = |octets: i128| i64::try_from(octets).map_err(|_| ExactError::Overflow);
    let at = until.checked_sub(1.microsecond()).unwrap_or(until);
    let sequence = main.usage.iter().map(|entry| entry.sequence).max().unwrap_or(0) + 1;
    main.usage.push(UsageEntry {
        sequence,
        session: 0,
        class: None,
        call: None,
        from: at,
        until: at,
        in_octets: fits(up)?,
        out_octets: fits(octets - up)?,
        seconds: 0,
        sessions: 0,
    });
    let after = sum_of(&period_lines(&more, context)?, currency)?;
    Ok(Some(after.checked_sub(sum_of(&before, currency)?)?))
}

/// Entries of one service of the facts, in place of what is there.
pub fn put_usage(facts: &mut AccountFacts, service: usize, mut entries: Vec<UsageEntry>) {
    entries.sort_by_key(|entry| entry.sequence);
    entries.dedup_by_key(|entry| entry.sequence);
    facts.services[service].usage = entries;
}

/// As if nothing of the period had been issued. What earlier periods carry into it stays.
fn unissued(facts: &AccountFacts, context: &RunContext) -> AccountFacts {
    let earlier = |stored: &&StoredLine| carries_into(stored, context);
    AccountFacts {
        issued: facts.issued.iter().filter(earlier).cloned().collect(),
        relatives: facts.relatives.iter().map(|relative| unissued(relative, context)).collect(),
        ..facts.clone()
    }
}

/// Whether a line says what an earlier period carries into the context's.
pub fn carries_into(stored: &StoredLine, context: &RunContext) -> bool {
    stored.basis.carry.is_some() && stored.line.period.start < context.period.start
}

/// No period before the context's own.
fn of_period(context: &RunContext) -> RunContext {
    RunContext { backdate_days: 1, ..context.clone() }
}

fn repeating(lines: Vec<StoredLine>, context: &RunContext) -> Vec<StoredLine> {
    let is_one_off = |stored: &StoredLine| {
        let line = &stored.line;
        let versions = context.tariffs.get(&line.tariff.id).map(Vec::as_slice).unwrap_or_default();
        let version = versions.iter().find(|version| version.tariff.version == line.tariff.version);
        let charge = version.and_then(|version| version.tariff.charge(&line.charge));
        charge.is_some_and(|charge| matches!(charge.kind, ChargeKind::OneOff { .. } | ChargeKind::Deposit { .. }))
    };
    lines.into_iter().filter(|stored| !is_one_off(stored)).collect()
}

fn sum_of(lines: &[StoredLine], currency: Currency) -> Result<Money, RunError> {
    let mut total = Money::zero(currency);
    for stored in lines {
        total = total.checked_add(Money::new(cost(stored)?, stored.line.currency.parse()?))?;
    }
    Ok(total)
}

/// Amount and exclusive tax, in minor units.
fn cost(stored: &StoredLine) -> Result<i64, RunError> {
    let exclusive = stored.line.tax.iter().filter(|tax| !tax.inclusive).map(super::lines::TaxShape::amount_minor);
    let sum = exclusive.chain([stored.line.amount_minor()]).try_fold(0i64, i64::checked_add);
    Ok(sum.ok_or(crate::vocabulary::MoneyError::Overflow)?)
}

#[cfg(test)]
mod tests;
