//! One account's lines of one run: `billed(W)` of every item, less what earlier lines of the item have charged.
//!
//! Each line is the difference of two rounded cumulative amounts, so that lines add up to rating everything at once, in
//! whole cents too. An item without a new cause has no new line, so a repeated run emits nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::allowance::{Bucket, Carry, Shared, Source};
use super::calendar::CalendarError;
use super::charges::{NAMELESS, PostedBasis};
use super::count::CountList;
use super::facts::{AccountFacts, PeriodSum, RunContext, TariffBook};
use super::groups::{Chain, Step, chains, due, issued_carry, share_step};
use super::handshake::Tree;
use super::items::{Item, items_of};
pub use super::items::{lines_since, looked_at_everywhere, looks_back};
use super::lines::{
    AdjustmentShape, AllowanceShape, Basis, BucketShape, CountShape, GrantBasis, GrantTaken, GrantedShape,
    HandshakeShape, ItemKey, Line, LineKind, PartShape, PoolBasis, PoolMember, Ratio, StoredLine, TariffRef, TaxShape,
    TaxSum, TierShape, UsageShape, line_id,
};
use super::measure::{count_sum, sum_suffices};
use super::parts::{Metered, meter, metered_sum};
use super::price::{AdjustmentKind, Measure, Priced, price_with};
use super::tariff::{Charge, ChargeKind, Counted as CountedWhat, Pool, Recurring, Tariff, TaxLevel, Unit};
use super::tax::{Exemption, TaxAmount, TaxesDue, levy, levy_exact};
use super::tax_batch;
use crate::usage::Fingerprint;
use crate::vocabulary::{Currency, Date, Exact, ExactError, Money, MoneyError, Period};

/// Why an account's bill stopped. The account has no lines in the batch, and somebody must look.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RunError {
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    #[error(transparent)]
    Exact(#[from] ExactError),
    #[error(transparent)]
    Money(#[from] MoneyError),
    #[error("tariff {tariff} version {version} was billed and is no longer known")]
    UnknownVersion { tariff: String, version: u32 },
    #[error("the usage of charge {charge} adds up to {quantity}, which is below zero")]
    NegativeUsage { charge: String, quantity: i128 },
    #[error(
        "the usage of charge {charge} adds up to {quantity}, more than 64 bits hold; look at its sessions with \
         `session list --account`, and at the NAS that reported them"
    )]
    TooMuchUsage { charge: String, quantity: i128 },
    #[error("charge {charge} of service {service}: {why}; look at its prices and at its usage")]
    Beyond { charge: String, service: String, why: String },
    #[error("what is stored of the account cannot be read: {0}")]
    Unreadable(String),
    #[error(
        "charge {charge} has no rate for calls to numbers that begin with {beginning}; name one, or a rate for every number"
    )]
    NoRate { charge: String, beginning: String },
    #[error("posted charge {id} cannot be rated: {why}")]
    Posted { id: String, why: String },
    #[error("tenant {0} is none of whose parent this one is; its subscribers cannot be counted")]
    NoChild(String),
    #[error(
        "charge {charge} is shared by the accounts of {head}, and {account} is not billed on the same cycle; put all of them \
         on one, or take the pool out of its tariff"
    )]
    OtherCycle { head: String, account: String, charge: String },
    #[error("charge {charge} shares an allowance among tariffs that count it in different units; give all of them one")]
    PoolUnits { charge: String },
    #[error("it shares an allowance with an account that cannot be rated: {why}")]
    Relative { why: String },
    #[error("the account has more open periods than a run bills at once")]
    TooManyPeriods,
}

impl RunError {
    /// Says which charge it is of, where the numbers alone do not.
    fn of(self, item: &Item<'_>) -> Self {
        match self {
            RunError::Exact(_) | RunError::Money(_) => RunError::Beyond {
                charge: item.key.charge.clone(),
                service: item.key.service.clone(),
                why: self.to_string(),
            },
            other => other,
        }
    }
}

/// What a run has for one account.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunResult {
    pub lines: Vec<StoredLine>,
    pub held: Vec<Held>,
    /// Whom the count lines counted, to be kept with them.
    pub counts: Vec<CountList>,
}

/// A correction that the tenant's policy keeps off the invoice. It is reported, never dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub key: ItemKey,
    pub period: Period,
    pub amount: Money,
    pub reason: HeldReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldReason {
    /// A debit older than `debit_max_age`.
    TooOld,
    /// Below `min_amount`, with all such corrections of the account added up.
    TooSmall,
}

/// Usage that must be in the facts before the account can be rated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageNeed {
    /// Index into the family; 0 of an account alone.
    pub account: usize,
    /// Index into `AccountFacts::services`.
    pub service: usize,
    pub period: Period,
}

/// Which ledger entries `lines` wants, given facts whose `usage` holds at least the entries beyond `looked_at_everywhere`.
pub fn usage_needed(facts: &AccountFacts, context: &RunContext) -> Result<Vec<UsageNeed>, RunError> {
    usage_needed_of(std::slice::from_ref(facts), context)
}

/// As `usage_needed`, of accounts that are rated together.
pub fn usage_needed_of(family: &[AccountFacts], context: &RunContext) -> Result<Vec<UsageNeed>, RunError> {
    let items = items_of(family, context)?;
    let due = due(family, &items, &chains(family, &items, context)?);
    let mut needs: Vec<UsageNeed> = Vec::new();
    let needy = |item: &Item<'_>| item.is_usage() && whole_sum(&family[item.account], item).is_none();
    for (item, _) in items.iter().zip(due).filter(|(item, due)| *due && needy(item)) {
        let need = UsageNeed { account: item.account, service: item.service, period: item.period.clone() };
        if !needs.contains(&need) {
            needs.push(need);
        }
    }
    Ok(needs)
}

/// The account's lines of the run, with its relatives at its side.
pub fn lines(facts: &AccountFacts, context: &RunContext) -> Result<RunResult, RunError> {
    if facts.relatives.is_empty() {
        let mut found = rate_together(std::slice::from_ref(facts), context)?;
        return Ok(found.pop().unwrap_or_default());
    }
    let (family, own) = family_of(facts);
    lines_of(&family, context).into_iter().nth(own).expect("one result for each account")
}

/// The account among its relatives, in their order, and its place there.
pub fn family_of(facts: &AccountFacts) -> (Vec<AccountFacts>, usize) {
    let mut family = facts.relatives.clone();
    family.push(AccountFacts { relatives: Vec::new(), ..facts.clone() });
    family.sort_by_key(|one| one.place);
    let own = family.iter().position(|one| one.place == facts.place).unwrap_or(0);
    (family, own)
}

/// The lines of accounts that share an allowance, in their order. An account that cannot be rated stops those that share
/// one with others, and only them.
pub fn lines_of(family: &[AccountFacts], context: &RunContext) -> Vec<Result<RunResult, RunError>> {
    let error = match rate_together(family, context) {
        Ok(found) => return found.into_iter().map(Ok).collect(),
        Err(error) => error,
    };
    if let [_] = family {
        return vec![Err(error)];
    }
    let alone = |facts: &AccountFacts| match shares_with_others(facts, &context.tariffs) {
        true => Err(error.clone()),
        false => lines(facts, context),
    };
    family.iter().map(alone).collect()
}

/// Whether anything the account is billed for shares an allowance with other accounts.
pub fn shares_with_others(facts: &AccountFacts, tariffs: &TariffBook) -> bool {
    let stretches = facts.services.iter().flat_map(|service| service.stretches.iter().chain(&service.elsewhere));
    stretches.into_iter().any(|stretch| {
        let versions = tariffs.get(&stretch.tariff).map(Vec::as_slice).unwrap_or_default();
        versions.iter().any(|version| pools_over_accounts(&version.tariff))
    })
}

/// Whether a charge of the tariff shares its allowance with other accounts.
pub fn pools_over_accounts(tariff: &Tariff) -> bool {
    let over = |charge: &Charge| matches!(&charge.kind, ChargeKind::Usage(usage) if usage.pool() == Pool::Parent);
    tariff.charges.iter().any(over)
}

fn rate_together(family: &[AccountFacts], context: &RunContext) -> Result<Vec<RunResult>, RunError> {
    let items = items_of(family, context)?;
    let chains = chains(family, &items, context)?;
    let due = due(family, &items, &chains);
    // Small corrections of an account are added up: together they may be worth a line each, and then what they carry on stands.
    let mut worth: Vec<BTreeSet<Currency>> = family.iter().map(|_| BTreeSet::new()).collect();
    let found = loop {
        let found = changes(family, context, &items, (&chains, &due), &worth)?;
        let known = worth.clone();
        for (account, worth) in worth.iter_mut().enumerate() {
            let own = items.iter().zip(&found).filter(|(item, _)| item.account == account);
            worth.extend(worth_of(context, own.filter_map(|(_, change)| change.as_ref()))?);
        }
        if known == worth {
            break found;
        }
    };
    let mut of_accounts: Vec<Vec<(Item<'_>, Change)>> = family.iter().map(|_| Vec::new()).collect();
    for (item, change) in items.into_iter().zip(found) {
        if let Some(change) = change {
            of_accounts[item.account].push((item, change));
        }
    }
    family.iter().zip(of_accounts).map(|(facts, found)| result_of(facts, found)).collect()
}

/// What every due item wants. `worth`: in which currencies small corrections of an account are not held back.
fn changes(
    family: &[AccountFacts],
    context: &RunContext,
    items: &[Item<'_>],
    (chains, due): (&[Chain<'_>], &[bool]),
    worth: &[BTreeSet<Currency>],
) -> Result<Vec<Option<Change>>, RunError> {
    let mut found: Vec<Option<Change>> = items.iter().map(|_| None).collect();
    let wanted = |item: &Item<'_>, rated: &Rated| {
        let change = changed(&family[item.account], context, item, rated)?;
        let release = |change: Change| match change.reason {
            Some(HeldReason::TooSmall) if worth[item.account].contains(&change.amount.currency) => {
                Change { reason: None, ..change }
            }
            _ => change,
        };
        Ok::<_, RunError>(change.map(release))
    };
    for_each_step(family, context, items, (chains, due), &mut |step, rated| {
        for (index, rated) in step.members.iter().zip(rated) {
            found[*index] = wanted(&items[*index], &rated)?;
        }
        // What goes on stands on the line of the last, and later runs read it there.
        let last = step.members.last().and_then(|index| found[*index].as_ref());
        Ok(last.is_none_or(|change| change.reason.is_none()))
    })?;
    let mut shared = vec![false; items.len()];
    chains.iter().flat_map(|chain| &chain.steps).flat_map(|step| &step.members).for_each(|index| shared[*index] = true);
    for (index, item) in items.iter().enumerate().filter(|(index, _)| due[*index] && !shared[*index]) {
        let facts = &family[item.account];
        let rated = measured(facts, context, item).and_then(|measured| rate(facts, item, measured, None));
        found[index] = wanted(item, &rated.map_err(|error| error.of(item))?)?;
    }
    Ok(found)
}

/// The currencies in which the small corrections among these come to more than the tenant holds back.
fn worth_of<'c>(context: &RunContext, changes: impl Iterator<Item = &'c Change>) -> Result<Vec<Currency>, RunError> {
    let mut sums: BTreeMap<Currency, Money> = BTreeMap::new();
    for change in changes.filter(|change| change.reason == Some(HeldReason::TooSmall)) {
        let sum = sums.entry(change.amount.currency).or_insert(Money::zero(change.amount.currency));
        *sum = sum.checked_add(change.amount)?;
    }
    let mut found = Vec::new();
    for (currency, sum) in sums {
        if !is_small(context, sum)? {
            found.push(currency);
        }
    }
    Ok(found)
}

/// The lines of one account, less what its tenant's policy holds back.
fn result_of(facts: &AccountFacts, found: Vec<(Item<'_>, Change)>) -> Result<RunResult, RunError> {
    let mut result = RunResult::default();
    for (item, Change { line, amount, reason }) in found {
        match reason {
            Some(reason) => {
                result.held.push(Held { period: item.period.clone(), key: item.key, amount, reason });
            }
            None => {
                result.counts.extend(item.tally.map(|tally| tally.list));
                result.lines.push(*line);
            }
        }
    }
    tax_batch::settle(facts, &mut result.lines)?;
    Ok(result)
}

/// Takes what a step was rated at, and says whether it stands.
type TakeStep<'t> = &'t mut dyn FnMut(&Step<'_>, Vec<Rated>) -> Result<bool, RunError>;

/// Rates the periods of shared allowances in which something is due, each with what the one before it carries on. `take`
/// says whether what it was given stands; what is held back does not, and what was issued is carried on instead.
pub fn for_each_step(
    family: &[AccountFacts],
    context: &RunContext,
    items: &[Item<'_>],
    (chains, due): (&[Chain<'_>], &[bool]),
    take: TakeStep<'_>,
) -> Result<(), RunError> {
    for chain in chains {
        // What the step before has left; `None`: it is not rated now, and its lines tell.
        let mut carry: Option<Carry> = None;
        for step in &chain.steps {
            if !step.members.iter().any(|index| due[*index]) {
                carry = None;
                continue;
            }
            let before = carry.take().unwrap_or_else(|| issued_carry(family, items, chain, step));
            let (shared, rated) = rate_step(family, context, items, step, before.or_nothing())?;
            carry = take(step, rated)?.then_some(shared.carry);
        }
    }
    Ok(())
}

/// Rates the items of one period that share an allowance.
fn rate_step(
    family: &[AccountFacts],
    context: &RunContext,
    items: &[Item<'_>],
    step: &Step<'_>,
    before: Carry,
) -> Result<(Shared, Vec<Rated>), RunError> {
    let measured: Vec<Measured> = step
        .members
        .iter()
        .map(|index| measured(&family[items[*index].account], context, &items[*index]))
        .collect::<Result<_, _>>()?;
    let measures: Vec<&Measure> = measured.iter().map(|measured| &measured.measure).collect();
    let (shared, usable) = share_step(family, items, step, &measures, &before, context)?;
    // An allowance of nothing is no bucket.
    let there = |bucket: &&Bucket| !bucket.amount.is_zero() || matches!(bucket.source, Source::Grant(_));
    let buckets = shared.buckets.iter().filter(there).map(|bucket| BucketShape::of(bucket, &context.cycle));
    let buckets: Vec<BucketShape> = buckets.collect::<Result<_, RunError>>()?;
    let members = pool_members(family, items, step);
    let taken = taken(&shared, unit_size_of(&items[step.members[0]]))?;
    let mut rated = Vec::with_capacity(measured.len());
    for (place, ((index, measured), used)) in step.members.iter().zip(measured).zip(&shared.used).enumerate() {
        let item = &items[*index];
        let is_last = place + 1 == step.members.len();
        let allotment = Allotment {
            used: *used,
            carried_in: shared.carried_in,
            available: shared.available,
            wanted: shared.wanted,
            buckets: if is_last { buckets.clone() } else { Vec::new() },
            carry: is_last.then(|| shared.carry.clone()),
            pool: PoolBasis {
                period: shared.carry.period,
                before: before.clone(),
                grants: usable.iter().map(GrantBasis::of).collect(),
                place,
                members: members.iter().map(|member| member.seen_from(&family[item.account].account)).collect(),
                taken: if is_last { taken.clone() } else { Vec::new() },
            },
        };
        let one = rate(&family[item.account], item, measured, Some(allotment));
        rated.push(one.map_err(|error| error.of(item))?);
    }
    Ok((shared, rated))
}

/// What a step used of each top-up, for periods of other cycles.
fn taken(shared: &Shared, unit_size: u64) -> Result<Vec<GrantTaken>, ExactError> {
    let unit = Exact::from_int(i128::from(unit_size));
    let mut found = Vec::new();
    for bucket in shared.buckets.iter().filter(|bucket| !bucket.used.is_zero()) {
        if let Source::Grant(id) = &bucket.source {
            found.push(GrantTaken { id: id.clone(), amount: Ratio(bucket.used.checked_mul(unit)?) });
        }
    }
    Ok(found)
}

fn unit_size_of(item: &Item<'_>) -> u64 {
    match &item.charge.kind {
        ChargeKind::Usage(usage) => usage.unit_size(),
        _ => 1,
    }
}

/// Who shares an allowance in a period, as a line keeps it; nobody where there is only one.
fn pool_members(family: &[AccountFacts], items: &[Item<'_>], step: &Step<'_>) -> Vec<PoolMember> {
    if step.members.len() < 2 {
        return Vec::new();
    }
    let member = |index: &usize| {
        let item = &items[*index];
        PoolMember {
            account: Some(family[item.account].account.clone()),
            service: item.key.service.clone(),
            tariff: item.key.tariff.clone(),
            version: item.key.version,
            coverage: item.coverage.clone(),
            share: Ratio(item.share),
            watermark: family[item.account].watermark,
        }
    };
    step.members.iter().map(member).collect()
}

/// A line an item wants, and why policy might hold it back.
struct Change {
    line: Box<StoredLine>,
    amount: Money,
    reason: Option<HeldReason>,
}

fn changed(
    facts: &AccountFacts,
    context: &RunContext,
    item: &Item<'_>,
    rated: &Rated,
) -> Result<Option<Change>, RunError> {
    let Some(line) = difference(facts, context, item, rated)? else { return Ok(None) };
    let amount = change_of(item, rated)?;
    let reason = held(context, item, amount)?;
    Ok(Some(Change { line: Box::new(line), amount, reason }))
}

/// What is priced of an item, before any price is computed.
struct Measured {
    metered: Option<Metered>,
    quantity_raw: i64,
    measure: Measure,
}

/// What an item uses of an allowance that is not its own alone.
#[derive(Debug, Clone)]
pub struct Allotment {
    pub used: Exact,
    pub carried_in: Exact,
    /// All there was for all that share it, and what they used, within that or not.
    pub available: Exact,
    pub wanted: Exact,
    /// On the last item of a period.
    pub buckets: Vec<BucketShape>,
    /// On the last item of a period.
    pub carry: Option<Carry>,
    pub pool: PoolBasis,
}

/// An item's whole price so far.
pub struct Rated {
    pub metered: Option<Metered>,
    pub quantity_raw: i64,
    pub priced: Priced,
    pub allotment: Option<Allotment>,
    pub amount: Money,
    pub taxes: Vec<TaxAmount>,
    /// The taxes before rounding, where they are rounded over the batch.
    pub taxes_exact: Option<Vec<Exact>>,
}

fn measured(facts: &AccountFacts, context: &RunContext, item: &Item<'_>) -> Result<Measured, RunError> {
    let service = &facts.services[item.service];
    let metered = match &item.charge.kind {
        ChargeKind::Usage(usage) => Some(match whole_sum(facts, item) {
            Some(sum) => metered_sum(item.charge, usage, count_sum(usage, sum))?,
            None => meter(item.charge, usage, &context.cycle.zone, &item.coverage, &service.usage)?,
        }),
        _ => None,
    };
    let (quantity_raw, quantity) = match &metered {
        Some(metered) => (metered.raw, metered.quantity),
        None if item.coverage.is_empty() => (0, Exact::ZERO),
        None => match (&item.charge.kind, &item.tally) {
            (ChargeKind::Count(_), Some(tally)) => (tally.raw, tally.quantity),
            (ChargeKind::Count(_), None) => (0, Exact::ZERO),
            _ => {
                let times = if item.returned { -i64::from(service.times) } else { i64::from(service.times) };
                (times, Exact::from_int(i128::from(times)))
            }
        },
    };
    let measure = Measure {
        quantity,
        apart: metered.as_ref().map_or(Exact::ZERO, |metered| metered.apart),
        events: metered.as_ref().map_or(0, |metered| metered.events),
        share: item.share,
        granted: None,
        cycle_index: item.cycle_index,
    };
    Ok(Measured { metered, quantity_raw, measure })
}

/// An item's whole price so far, as if it shared its allowance with nobody.
pub fn rate_alone(facts: &AccountFacts, context: &RunContext, item: &Item<'_>) -> Result<Rated, RunError> {
    rate(facts, item, measured(facts, context, item)?, None)
}

/// Rates an item from nothing: price, one rounding, taxes.
fn rate(
    facts: &AccountFacts,
    item: &Item<'_>,
    measured: Measured,
    allotment: Option<Allotment>,
) -> Result<Rated, RunError> {
    let tariff = &item.version.tariff;
    let Measured { metered, quantity_raw, measure } = measured;
    let measure = Measure { granted: allotment.as_ref().map(|allotment| allotment.used), ..measure };
    let charge = own_charge(item);
    let mut priced = match item.coverage.is_empty() {
        true => Priced::nothing(),
        false => price_with(tariff, &charge, &measure, &item.granted)?,
    };
    let due = TaxesDue::of(tariff, &charge, Exemption::of(facts));
    let net = due.without_exempt(priced.amount)?;
    priced.adjust(AdjustmentKind::TaxExempt, net.checked_sub(priced.amount)?)?;
    let rounding = tariff.rounding;
    let amount = Money::round(priced.amount, tariff.currency, rounding.places, rounding.mode)?;
    let taxes = levy(&due.paid, amount, rounding)?;
    let taxes_exact = match tariff.tax_level {
        TaxLevel::Line => None,
        TaxLevel::Batch => Some(levy_exact(&due.paid, amount.exact())?),
    };
    Ok(Rated { metered, quantity_raw, priced, allotment, amount, taxes, taxes_exact })
}

/// The sum of the item's period, where it says as much as the entries: the period is billed as a whole.
fn whole_sum<'f>(facts: &'f AccountFacts, item: &Item<'_>) -> Option<&'f PeriodSum> {
    let ChargeKind::Usage(usage) = &item.charge.kind else { return None };
    let sums = facts.services[item.service].sums.as_ref()?;
    (item.is_whole() && sum_suffices(usage)).then(|| sums.get(&item.period.start).unwrap_or(&NOTHING_USED))
}

/// The charge, with the subscriber's own amount where there is one.
fn own_charge<'r>(item: &Item<'r>) -> Cow<'r, Charge> {
    match (&item.charge.kind, item.own_amount) {
        (ChargeKind::Recurring(recurring), Some(amount)) => {
            let kind = ChargeKind::Recurring(Recurring { amount, ..recurring.clone() });
            Cow::Owned(Charge { kind, ..item.charge.clone() })
        }
        _ => Cow::Borrowed(item.charge),
    }
}

/// The line that brings the item's earlier lines to what it costs now; `None` when they are there already.
fn difference(
    facts: &AccountFacts,
    context: &RunContext,
    item: &Item<'_>,
    rated: &Rated,
) -> Result<Option<StoredLine>, RunError> {
    let before = item.issued.map(|line| &line.basis);
    let change = change_of(item, rated)?;
    let taxes = tax_sums(rated, before);
    let tax_moved = taxes.iter().any(|(sum, charged)| match sum.exact {
        None => sum.amount_minor != *charged,
        Some(exact) => tax_batch::exact_before(before, &sum.id, tariff_currency(item)) != exact.0,
    });
    let raw_change = rated.quantity_raw - before.map_or(0, |before| before.quantity_raw);
    let allotment = rated.allotment.as_ref();
    let allowance_moved = before.is_some_and(|before| {
        let used = match before.granted {
            Some(granted) => Some(granted.0) != allotment.map(|now| now.used),
            None => allotment.is_some() && before.allowance_used.0 != rated.priced.allowance_used,
        };
        // What was billed before it shared anything carried nothing on.
        let carries = |carry: &Carry| match &before.carry {
            Some(before) => !before.goes_on_as(carry),
            None => !carry.is_empty(),
        };
        used || allotment.and_then(|now| now.carry.as_ref()).is_some_and(carries)
    });
    if before.is_some() && change.minor == 0 && raw_change == 0 && !tax_moved && !allowance_moved {
        return Ok(None);
    }
    let mut priced = rated.priced.clone();
    let total_exact = priced.amount;
    if let Some(before) = before {
        priced.adjust(AdjustmentKind::AlreadyIssued, before.amount_exact.0.checked_neg()?)?;
    }
    let revision = before.map_or(0, |before| before.revision + 1);
    let tariff = &item.version.tariff;
    let less = |now: Exact, before: Option<Ratio>| now.checked_sub(before.map_or(Exact::ZERO, |ratio| ratio.0));
    let residue = change.exact().checked_sub(priced.amount)?;
    let line = Line {
        id: line_id(&facts.tenant, &facts.source, &facts.account, &context.cycle.id, &item.key, revision),
        tenant: facts.tenant.clone(),
        account: facts.account.clone(),
        service: Some(item.key.service.clone()).filter(|id| !id.is_empty()),
        charge: item.key.charge.clone(),
        kind: kind_of(item, change),
        cycle: context.cycle.id.clone(),
        period: item.period.clone(),
        tariff: TariffRef { id: tariff.id.clone(), version: tariff.version, digest: tariff.digest.clone() },
        description: describe(facts, context, item, rated),
        quantity_raw: raw_change.to_string(),
        quantity: less(priced.quantity, before.map(|before| before.quantity))?.to_string(),
        unit: unit_of(item).to_owned(),
        allowance_used: less(priced.allowance_used, before.map(|before| before.allowance_used))?.to_string(),
        tiers: priced.tiers.iter().map(TierShape::of).collect(),
        adjustments: priced.adjustments.iter().map(AdjustmentShape::of).collect(),
        amount_exact: priced.amount.to_string(),
        amount: change.to_string(),
        rounding_residue: residue.to_string(),
        tax: tax_shapes(&taxes, before, tariff.currency)?,
        tax_category: item.charge.tags.category.clone(),
        tax_jurisdiction: facts.services[item.service]
            .tax_jurisdiction
            .clone()
            .or_else(|| item.charge.tags.jurisdiction.clone()),
        currency: tariff.currency.to_string(),
        corrects: item.original.map(str::to_owned),
        allowance: allotment.map(|allotment| allowance_shape(&priced, allotment)).transpose()?,
        parts: rated.metered.iter().flat_map(|metered| &metered.parts).map(PartShape::of).collect(),
        usage: rated.metered.as_ref().map(|metered| UsageShape {
            watermark: facts.watermark,
            records: metered.counted.records,
            digest: metered.counted.digest.clone(),
        }),
        count: item.tally.as_ref().map(|tally| CountShape {
            tenant: tally.list.tenant.clone(),
            rule: tally.list.rule.clone(),
            days: tally.list.days.clone(),
            members: tally.list.members.len() as u64,
            digest: tally.list.digest(),
            handshake: handshake(facts, context, item, &tally.list.days),
        }),
        batch: context.batch.clone(),
        created_at: context.now,
    };
    let basis = Basis {
        source: facts.source.clone(),
        engine: context.causes.engine,
        addon: item.key.addon.clone(),
        revision,
        coverage: item.coverage.clone(),
        share: Ratio(item.share),
        cycle_index: item.cycle_index,
        tax_exempt: facts.tax_exempt,
        exempt_from: facts.exempt_from.clone(),
        discounts: item.granted.iter().map(GrantedShape::of).collect(),
        posted: item
            .posted
            .map(|number| PostedBasis { posting: facts.posted[number].posting.clone(), currency: tariff.currency }),
        times: facts.services[item.service].times,
        events: rated.metered.as_ref().map_or(0, |metered| metered.events),
        quantity_raw: rated.quantity_raw,
        quantity: Ratio(priced.quantity),
        allowance_used: Ratio(priced.allowance_used),
        amount_exact: Ratio(total_exact),
        amount_minor: rated.amount.minor,
        taxes: taxes.into_iter().map(|(sum, _)| sum).collect(),
        granted: allotment.map(|allotment| Ratio(allotment.used)),
        carry: allotment.and_then(|allotment| allotment.carry.clone()),
        pool: allotment.map(|allotment| allotment.pool.clone()),
        inputs: item.inputs.clone(),
    };
    Ok(Some(StoredLine { line, basis }))
}

fn allowance_shape(priced: &Priced, allotment: &Allotment) -> Result<AllowanceShape, ExactError> {
    let carried = |carry: &Carry| carry.left.iter().try_fold(Exact::ZERO, |sum, left| sum.checked_add(left.amount.0));
    let taken = allotment.available.min(allotment.wanted);
    Ok(AllowanceShape {
        own: priced.allowance.unwrap_or(Exact::ZERO).to_string(),
        carried_in: allotment.carried_in.to_string(),
        used: allotment.used.to_string(),
        available: Some(allotment.available.to_string()),
        left: Some(allotment.available.checked_sub(taken)?.to_string()),
        carried_on: allotment.carry.as_ref().map(carried).transpose()?.map(|sum| sum.to_string()),
        buckets: allotment.buckets.clone(),
    })
}

fn change_of(item: &Item<'_>, rated: &Rated) -> Result<Money, MoneyError> {
    let before = item.issued.map_or(0, |line| line.basis.amount_minor);
    rated.amount.checked_sub(Money::new(before, rated.amount.currency))
}

fn kind_of(item: &Item<'_>, change: Money) -> LineKind {
    match (&item.charge.kind, item.issued) {
        (_, Some(_)) if change.minor < 0 => LineKind::Credit,
        (_, Some(_)) => LineKind::Adjustment,
        (ChargeKind::Recurring(_), None) => LineKind::Recurring,
        (ChargeKind::OneOff { .. }, None) if change.minor < 0 => LineKind::Credit,
        (ChargeKind::OneOff { .. }, None) => LineKind::OneOff,
        (ChargeKind::Deposit { .. }, None) => LineKind::Deposit,
        (ChargeKind::Count(_), None) => LineKind::Count,
        (ChargeKind::Usage(_), None) => LineKind::Usage,
    }
}

fn tariff_currency(item: &Item<'_>) -> Currency {
    item.version.tariff.currency
}

fn unit_of(item: &Item<'_>) -> &'static str {
    match &item.charge.kind {
        ChargeKind::Recurring(_) => "period",
        ChargeKind::OneOff { .. } | ChargeKind::Deposit { .. } => "piece",
        ChargeKind::Count(count) => match count.what {
            CountedWhat::Accounts => "subscriber",
            CountedWhat::Services => "service",
        },
        ChargeKind::Usage(usage) if usage.unit == Unit::Session => "session",
        ChargeKind::Usage(usage) => usage.unit.as_str(),
    }
}

/// Cumulative taxes, each with what earlier lines have charged; a tax no longer due is there with nothing.
fn tax_sums(rated: &Rated, before: Option<&Basis>) -> Vec<(TaxSum, i64)> {
    let levied = &rated.taxes;
    let earlier = before.map(|before| before.taxes.as_slice()).unwrap_or_default();
    let mut sums: Vec<(TaxSum, i64)> = levied
        .iter()
        .enumerate()
        .map(|(index, tax)| {
            let sum = TaxSum {
                fixed: tax.fixed.map(|fixed| fixed.to_string()),
                jurisdiction: tax.jurisdiction.clone(),
                exact: rated.taxes_exact.as_ref().map(|exact| Ratio(exact[index])),
                id: tax.id.clone(),
                rate: tax.rate.to_string(),
                inclusive: tax.inclusive,
                base_minor: tax.base.minor,
                amount_minor: tax.amount.minor,
            };
            let before = earlier.iter().find(|other| other.id == tax.id).map_or(0, |other| other.amount_minor);
            (sum, before)
        })
        .collect();
    for gone in earlier.iter().filter(|old| !levied.iter().any(|tax| tax.id == old.id)) {
        let exact = gone.exact.map(|_| Ratio(Exact::ZERO));
        sums.push((TaxSum { base_minor: 0, amount_minor: 0, exact, ..gone.clone() }, gone.amount_minor));
    }
    sums
}

fn tax_shapes(sums: &[(TaxSum, i64)], before: Option<&Basis>, currency: Currency) -> Result<Vec<TaxShape>, MoneyError> {
    let earlier = before.map(|before| before.taxes.as_slice()).unwrap_or_default();
    let base_before = |id: &str| earlier.iter().find(|tax| tax.id == id).map_or(0, |tax| tax.base_minor);
    let less = |now: i64, before: i64| Money::new(now, currency).checked_sub(Money::new(before, currency));
    sums.iter()
        .map(|(sum, before)| {
            Ok(TaxShape {
                id: sum.id.clone(),
                rate: sum.rate.clone(),
                fixed: sum.fixed.clone(),
                jurisdiction: sum.jurisdiction.clone(),
                amount_exact: None,
                inclusive: sum.inclusive,
                base: less(sum.base_minor, base_before(&sum.id))?.to_string(),
                amount: less(sum.amount_minor, *before)?.to_string(),
            })
        })
        .collect()
}

fn held(context: &RunContext, item: &Item<'_>, change: Money) -> Result<Option<HeldReason>, RunError> {
    if item.issued.is_none() {
        return Ok(None);
    }
    if let Some(days) = context.corrections.debit_max_age_days
        && change.minor > 0
        && context.now.as_second() - item.period.end.as_second() > i64::from(days) * 86_400
    {
        return Ok(Some(HeldReason::TooOld));
    }
    Ok((change.minor != 0 && is_small(context, change)?).then_some(HeldReason::TooSmall))
}

fn is_small(context: &RunContext, change: Money) -> Result<bool, RunError> {
    let amount = change.exact();
    let size = if amount.is_negative() { amount.checked_neg()? } else { amount };
    Ok(context.corrections.min_amount.is_some_and(|least| size < least))
}

/// The hash of the counted tenant's services on the day that counts, else on the period's last one, once it is over.
fn handshake(facts: &AccountFacts, context: &RunContext, item: &Item<'_>, days: &str) -> Option<HandshakeShape> {
    let census = facts.services[item.service].census.as_ref()?;
    let cycle = &context.cycle;
    let last = item.period.end.checked_sub(jiff::Span::new().microseconds(1)).ok()?;
    let day: Date = days.parse().ok().unwrap_or_else(|| cycle.day_of(last));
    let end = cycle.midnight(day.tomorrow().ok()?).ok()?;
    let at = end.checked_sub(jiff::Span::new().microseconds(1)).ok()?;
    let shape = || {
        let root = Tree::of(census, None, at, day).root();
        HandshakeShape { day, timezone: cycle.timezone.clone(), root }
    };
    (end <= context.now).then(shape)
}

fn describe(facts: &AccountFacts, context: &RunContext, item: &Item<'_>, rated: &Rated) -> String {
    let cycle = &context.cycle;
    let time = |from, until| format!("{} to {}", cycle.day_of(from), cycle.day_of(until));
    let billed: Vec<String> = item.coverage.iter().map(|(from, until)| time(*from, *until)).collect();
    let what = match &item.charge.kind {
        ChargeKind::Usage(usage) => {
            let included = match rated.priced.allowance {
                Some(allowance) => format!(", {allowance} {} included", usage.unit),
                None => String::new(),
            };
            format!("{} {}{included}", rated.priced.quantity, usage.unit)
        }
        ChargeKind::Count(_) => {
            let days = item.tally.as_ref().map(|tally| format!(" ({}, {})", tally.list.rule, tally.list.days));
            format!("{} {}{}", rated.priced.quantity, unit_of(item), days.unwrap_or_default())
        }
        _ if item.share == Exact::ONE || item.coverage.is_empty() => String::new(),
        _ => {
            let days = cycle.days(&item.period);
            let part = item.share.checked_mul(Exact::from_int(i128::from(days))).unwrap_or(item.share);
            format!("{part} of {days} days")
        }
    };
    let time = if billed.is_empty() { time(item.period.start, item.period.end) } else { billed.join(" and ") };
    let about = if what.is_empty() { String::new() } else { format!(": {what}") };
    let correction = if item.issued.is_some() { "Correction of " } else { "" };
    if let Some(posted) = item.posted.map(|number| &facts.posted[number]) {
        let words = posted.posting.description.clone().or_else(|| posted.posting.charge.clone());
        return format!("{correction}{}, {}", words.unwrap_or_else(|| NAMELESS.to_owned()), posted.on);
    }
    let correction = if item.returned { "Return of " } else { correction };
    let addon = item.key.addon.as_ref().map(|addon| format!(" ({addon})")).unwrap_or_default();
    format!("{correction}{} {}{addon}, {time}{about}", item.key.tariff, item.key.charge)
}

const NOTHING_USED: PeriodSum = PeriodSum {
    last_sequence: 0,
    records: 0,
    fingerprint: Fingerprint([0; 8]),
    in_octets: 0,
    out_octets: 0,
    seconds: 0,
    sessions: 0,
};

#[cfg(test)]
mod mover_tests;
#[cfg(test)]
mod offer_tests;
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
pub(super) mod tests;
