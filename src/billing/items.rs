//! The items of a run: for every service, period and charge what is billed, before any price is computed.
//!
//! Arrears are due up to the run's period, advances up to the one after it. Periods further back than the tenant's
//! `backdate_days` are looked at only where usage arrived late for a charge that was billed there.

use std::collections::{BTreeMap, BTreeSet};

use jiff::ToSpan;
use sha2::{Digest, Sha256};

use super::count::Tally;
use super::coverage::{self, BilledPart, Edges, Piece};
use super::deposit::deposits;
use super::facts::{AccountFacts, KnownVersion, PriceOverride, RunContext, ServiceFacts, UsageEntry};
use super::groups::{Sharing, grants_of, taken_elsewhere};
use super::lines::{ItemKey, StoredLine};
use super::offer;
use super::price::Granted;
use super::run::{RunError, shares_with_others};
use super::tariff::{Charge, ChargeKind, Pool, Proration, Recurring, Timing};
use crate::vocabulary::{Exact, Period, Timestamp, hex};

/// One charge of one service in one period.
pub struct Item<'r> {
    pub key: ItemKey,
    /// Place in the family that is rated together.
    pub account: usize,
    pub service: usize,
    pub version: &'r KnownVersion,
    pub charge: &'r Charge,
    pub period: Period,
    pub coverage: Vec<(Timestamp, Timestamp)>,
    pub share: Exact,
    pub cycle_index: u32,
    /// This subscriber's own amount of a recurring charge.
    pub own_amount: Option<Exact>,
    /// Conditional discounts.
    pub granted: Vec<Granted>,
    /// Whom a count charge counts.
    pub tally: Option<Tally>,
    /// A deposit that is given back.
    pub returned: bool,
    /// Index into `AccountFacts::posted`.
    pub posted: Option<usize>,
    /// The last line of the item, and the first one.
    pub issued: Option<&'r StoredLine>,
    pub original: Option<&'r str>,
    /// Digest of what the price depends on besides usage, in this program's form.
    pub inputs: String,
    /// It is not what it was at the item's last line.
    pub changed: bool,
    /// Usage arrived since the item's last line.
    pub late: bool,
    /// A correction of it was held back before, or a person wants it rated anew.
    pub asked: bool,
}

impl Item<'_> {
    pub fn is_usage(&self) -> bool {
        matches!(self.charge.kind, ChargeKind::Usage(_))
    }

    /// Whether the whole period is billed, so that its sum says what its entries say.
    pub fn is_whole(&self) -> bool {
        self.coverage == [(self.period.start, self.period.end)]
    }

    /// Whether anything can have changed since the item's last line: a correction needs a cause.
    pub fn has_cause(&self) -> bool {
        match self.issued {
            None => true,
            Some(_) => self.asked || self.changed || (self.late && self.is_usage()),
        }
    }
}

/// The items of all these accounts, account by account.
pub fn items_of<'r>(family: &'r [AccountFacts], context: &'r RunContext) -> Result<Vec<Item<'r>>, RunError> {
    let mut found = Vec::new();
    for (account, facts) in family.iter().enumerate() {
        found.extend(items(facts, context)?.into_iter().map(|item| Item { account, ..item }));
    }
    Ok(found)
}

/// Every item of the account that is due or was billed, in the order of the invoice.
fn items<'r>(facts: &'r AccountFacts, context: &'r RunContext) -> Result<Vec<Item<'r>>, RunError> {
    let issued = Issued::of(facts);
    let settled = settled_before(facts, context)?;
    let mut found: Found<'r> = BTreeMap::new();
    for (index, service) in facts.services.iter().enumerate() {
        for (period, recent) in periods(service, &issued, context, settled)? {
            for item in items_of_period(facts, index, &period, context, &issued)? {
                if recent || (item.issued.is_some() && item.is_usage() && item.late) {
                    let order = item.version.tariff.charges.iter().position(|charge| charge.id == item.charge.id);
                    found.insert((item.key.clone(), order), item);
                }
            }
        }
    }
    add_deposits(facts, context, &issued, &mut found)?;
    add_posted(facts, context, &issued, &mut found)?;
    let known: BTreeSet<ItemKey> = found.keys().map(|(key, _)| key.clone()).collect();
    // In a settled period nothing is no longer due.
    let open = |key: &&ItemKey| settled.is_none_or(|settled| key.period_start >= settled);
    for key in issued.keys().filter(open).filter(|key| !known.contains(key)) {
        if let Some(item) = withdrawn(facts, key, context, &issued)? {
            found.insert((key.clone(), None), item);
        }
    }
    let mut items: Vec<Item<'r>> = found.into_values().collect();
    items.sort_by_key(|item| (item.service, item.period.start));
    Ok(items)
}

/// The items of one service in one period that is looked at by itself, as what it used so far is.
pub fn of_period<'r>(
    facts: &'r AccountFacts,
    index: usize,
    period: &Period,
    context: &'r RunContext,
) -> Result<Vec<Item<'r>>, RunError> {
    items_of_period(facts, index, period, context, &Issued::of(facts))
}

type Found<'r> = BTreeMap<(ItemKey, Option<usize>), Item<'r>>;

fn add_deposits<'r>(
    facts: &'r AccountFacts,
    context: &'r RunContext,
    issued: &Issued<'r>,
    found: &mut Found<'r>,
) -> Result<(), RunError> {
    let window = window_start(context);
    for (index, service) in facts.services.iter().enumerate() {
        let mut was_taken = false;
        for part in deposits(service, context)? {
            let billed = (Exact::ONE, vec![part.coverage]);
            let mut item = build(facts, index, part.version, part.charge, &part.period, billed, context, issued)?;
            let due = part.period.end > window || item.issued.is_some();
            // What was never taken is not given back.
            was_taken = if part.returned { was_taken } else { due };
            if due && was_taken {
                item.returned = part.returned;
                found.insert((item.key.clone(), None), item);
            }
        }
    }
    Ok(())
}

fn add_posted<'r>(
    facts: &'r AccountFacts,
    context: &'r RunContext,
    issued: &Issued<'r>,
    found: &mut Found<'r>,
) -> Result<(), RunError> {
    for (number, posted) in facts.posted.iter().enumerate() {
        let addon = posted.facts().addon;
        let Some(index) = facts.services.iter().position(|service| service.addon == addon) else { continue };
        let (period, day) = posted.due(&context.cycle)?;
        if period.start <= context.period.start {
            let billed = (Exact::ONE, vec![day]);
            let mut item = build(facts, index, &posted.version, posted.charge(), &period, billed, context, issued)?;
            item.posted = Some(number);
            found.insert((item.key.clone(), None), item);
        }
    }
    Ok(())
}

/// The lines of earlier runs, by item.
struct Issued<'r> {
    lines: BTreeMap<ItemKey, (&'r StoredLine, &'r StoredLine)>,
    /// Up to which ledger sequence runs have looked, by the start of the newest period they looked at.
    looked: BTreeMap<Timestamp, i64>,
}

/// Up to which ledger sequence every billed period was looked at; what comes behind it must be among an account's usage.
///
/// A run looks at its own period and at older ones. One of an older period, made behind that of a later, has seen usage of
/// the later period go by without looking at it.
pub fn looked_at_everywhere(facts: &AccountFacts) -> i64 {
    looked(facts).last_key_value().map_or(0, |(_, sequence)| *sequence)
}

/// Lines of periods that end later are always needed; of older ones, where a run does not look back, only what they have
/// seen of the ledger.
pub fn lines_since(context: &RunContext) -> Result<Timestamp, RunError> {
    let mut charges = context.tariffs.values().flatten().flat_map(|version| &version.tariff.charges);
    let carries_on = charges.any(|charge| match &charge.kind {
        ChargeKind::Usage(usage) => usage.allowance.is_some_and(|allowance| allowance.rollover.is_some()),
        _ => false,
    });
    // What is carried on stands on the line of whatever period it comes from.
    if carries_on { Ok(Timestamp::MIN) } else { Ok(context.cycle.previous(&context.period)?.start) }
}

/// Whether a run looks at periods before its own, and must have their lines.
pub fn looks_back(facts: &AccountFacts, context: &RunContext) -> Result<bool, RunError> {
    let Some(settled) = settled_before(facts, context)? else { return Ok(true) };
    let issued = Issued::of(facts);
    for service in &facts.services {
        if periods(service, &issued, context, Some(settled))?.iter().any(|(period, _)| period.start < settled) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The start before which periods can have changed by their usage alone: an earlier run has looked at them, and nothing else
/// has changed since. `None`: every period must be looked at.
///
/// Whoever lets another thing move what an account is billed tells of it in `unchanged_since`, or says no here.
fn settled_before(facts: &AccountFacts, context: &RunContext) -> Result<Option<Timestamp>, RunError> {
    let Some(unchanged) = facts.unchanged_since else { return Ok(None) };
    // Other accounts are counted anew, and use what is shared with them; a top-up is used in whatever period needs it; what
    // was held back is looked at again in every run.
    let counts = facts.services.iter().any(|service| service.census.is_some());
    let shares = !facts.grants.is_empty() || shares_with_others(facts, &context.tariffs);
    if counts || shares || !facts.held.is_empty() || !carries_in_order(facts) {
        return Ok(None);
    }
    let before = context.cycle.previous(&context.period)?;
    let of_run_before = |line: &StoredLine| {
        // Paid in advance of this period, or used in the one before it: the run has looked at all that came before.
        line.line.period.start >= context.period.start
            || (line.line.usage.is_some() && line.line.period.start >= before.start)
    };
    let looked = facts.issued.iter().any(|line| of_run_before(line) && line.line.created_at > unchanged);
    Ok(looked.then_some(context.period.start))
}

/// Whether no line that carries something on was made after one of a later period, which might not know of it.
fn carries_in_order(facts: &AccountFacts) -> bool {
    let mut made: BTreeMap<Timestamp, Timestamp> = BTreeMap::new();
    for line in facts.issued.iter().filter(|line| line.basis.carry.is_some()) {
        let newest = made.entry(line.line.period.start).or_insert(line.line.created_at);
        *newest = line.line.created_at.max(*newest);
    }
    made.values().is_sorted()
}

fn looked(facts: &AccountFacts) -> BTreeMap<Timestamp, i64> {
    let mut looked = facts.looked.clone();
    for line in &facts.issued {
        if let Some(usage) = &line.line.usage {
            let sequence = looked.entry(line.line.period.start).or_default();
            *sequence = usage.watermark.max(*sequence);
        }
    }
    // Whoever looked at a period has looked at those before it.
    let mut newest = 0;
    for sequence in looked.values_mut().rev() {
        newest = newest.max(*sequence);
        *sequence = newest;
    }
    looked
}

impl<'r> Issued<'r> {
    fn of(facts: &'r AccountFacts) -> Self {
        let mut lines: BTreeMap<ItemKey, (&'r StoredLine, &'r StoredLine)> = BTreeMap::new();
        for line in &facts.issued {
            let entry = lines.entry(line.item()).or_insert((line, line));
            if line.basis.revision < entry.0.basis.revision {
                entry.0 = line;
            }
            if line.basis.revision > entry.1.basis.revision {
                entry.1 = line;
            }
        }
        Self { lines, looked: looked(facts) }
    }

    /// The last ledger sequence of which a run has looked at what it is to this period.
    fn looked_at(&self, period_start: Timestamp) -> i64 {
        self.looked.range(period_start..).next().map_or(0, |(_, sequence)| *sequence)
    }

    fn keys(&self) -> impl Iterator<Item = &ItemKey> {
        self.lines.keys()
    }
}

/// The periods to look at, each with whether it is inside the backdate window; those that are settled only where usage came
/// late.
fn periods(
    service: &ServiceFacts,
    issued: &Issued<'_>,
    context: &RunContext,
    settled: Option<Timestamp>,
) -> Result<Vec<(Period, bool)>, RunError> {
    let cycle = &context.cycle;
    let last = cycle.next(&context.period)?;
    let window = window_start(context);
    let mut found = BTreeMap::new();
    if let Some(first) = service.stretches.first() {
        let open = settled.map_or(window, |settled| settled.max(window));
        let mut period = cycle.period_at(first.from.max(open).min(last.start))?;
        loop {
            let next = cycle.next(&period)?;
            let end = period.start >= last.start;
            if period.end > window {
                found.insert(period.start, (period, true));
            }
            if end {
                break;
            }
            if found.len() > MOST_PERIODS {
                return Err(RunError::TooManyPeriods);
            }
            period = next;
        }
    }
    let sums = service.sums.iter().flatten();
    let late = sums.filter(|(start, sum)| sum.last_sequence > issued.looked_at(**start));
    for period in late.map(|(start, _)| cycle.period_at(*start)) {
        let period = period?;
        if period.start <= context.period.start {
            let recent = period.end > window;
            found.entry(period.start).or_insert((period, recent));
        }
    }
    let everywhere = issued.looked.last_key_value().map_or(0, |(_, sequence)| *sequence);
    for entry in service.usage.iter().filter(|entry| entry.sequence > everywhere) {
        // An entry may reach over the edge of a period.
        let last_moment = entry.until.checked_sub(1.microsecond()).unwrap_or(entry.until).max(entry.from);
        for period in [cycle.period_at(entry.from)?, cycle.period_at(last_moment)?] {
            if period.start <= context.period.start && entry.sequence > issued.looked_at(period.start) {
                let recent = period.end > window;
                found.entry(period.start).or_insert((period, recent));
            }
        }
    }
    Ok(found.into_values().collect())
}

/// Nothing that ended before is billed for the first time or changed by a change of the account.
pub fn window_start(context: &RunContext) -> Timestamp {
    context.period.end.checked_sub((i64::from(context.backdate_days) * 24).hours()).unwrap_or(Timestamp::MIN)
}

fn items_of_period<'r>(
    facts: &'r AccountFacts,
    index: usize,
    period: &Period,
    context: &'r RunContext,
    issued: &Issued<'r>,
) -> Result<Vec<Item<'r>>, RunError> {
    let service = &facts.services[index];
    let days = coverage::pieces(service, period, context, Edges::Days)?;
    let exact = coverage::pieces(service, period, context, Edges::Exact)?;
    let mut versions: Vec<&'r KnownVersion> = Vec::new();
    for piece in days.iter().chain(&exact) {
        if !versions.iter().any(|version| std::ptr::eq(*version, piece.version)) {
            versions.push(piece.version);
        }
    }
    let closing = period.start <= context.period.start;
    let mut items = Vec::new();
    for version in versions {
        for charge in &version.tariff.charges {
            let due = match &charge.kind {
                ChargeKind::Recurring(Recurring { timing: Timing::Advance, .. }) | ChargeKind::OneOff { .. } => true,
                ChargeKind::Recurring(_) => closing,
                ChargeKind::Count(_) => closing && service.census.is_some(),
                // Deposits have two sides, and are found apart.
                ChargeKind::Deposit { .. } => false,
                // An add-on has no meter of its own: what is used is the service's.
                ChargeKind::Usage(_) => closing && service.addon.is_none(),
            };
            let pieces = if is_by_second(charge) { &exact } else { &days };
            let own: Vec<&Piece<'_>> = pieces.iter().filter(|piece| std::ptr::eq(piece.version, version)).collect();
            if !due || own.is_empty() || charge.scope() != service.scope {
                continue;
            }
            if let Some((share, coverage)) = billed_part(service, charge, version, &own, period, context)? {
                items.push(build(facts, index, version, charge, period, (share, coverage), context, issued)?);
            }
        }
    }
    Ok(items)
}

fn is_by_second(charge: &Charge) -> bool {
    matches!(&charge.kind, ChargeKind::Recurring(recurring) if recurring.proration == Proration::PerSecond)
}

fn billed_part(
    service: &ServiceFacts,
    charge: &Charge,
    version: &KnownVersion,
    pieces: &[&Piece<'_>],
    period: &Period,
    context: &RunContext,
) -> Result<Option<BilledPart>, RunError> {
    let cycle = &context.cycle;
    match &charge.kind {
        ChargeKind::Recurring(recurring) => {
            let Recurring { proration, timing, refund_on_end, .. } = recurring;
            Ok(coverage::recurring_share(cycle, period, pieces, *proration, *timing, *refund_on_end)?)
        }
        ChargeKind::OneOff { .. } => {
            // Due where the service has this tariff for the first time, whatever the version and the cycle.
            let first = coverage::first_on(service, &version.tariff.id);
            let here = first
                .is_some_and(|first| pieces.first().is_some_and(|piece| piece.from <= first && first < piece.until));
            Ok(here.then(|| (Exact::ONE, coverage::coverage(pieces))))
        }
        ChargeKind::Deposit { .. } => Ok(None),
        ChargeKind::Count(_) => Ok(Some((Exact::ONE, coverage::coverage(pieces)))),
        ChargeKind::Usage(_) => {
            let covered = coverage::coverage(pieces);
            Ok(Some((coverage::day_share(cycle, period, &covered)?, covered)))
        }
    }
}

/// An item that was billed and is no longer due at all: its lines are taken back.
fn withdrawn<'r>(
    facts: &'r AccountFacts,
    key: &ItemKey,
    context: &'r RunContext,
    issued: &Issued<'r>,
) -> Result<Option<Item<'r>>, RunError> {
    let (_, last) = issued.lines[key];
    let ahead = context.cycle.next(&context.period)?;
    if last.line.period.end <= window_start(context) || last.line.period.start > ahead.start {
        return Ok(None);
    }
    let version = context
        .tariffs
        .get(&key.tariff)
        .and_then(|versions| versions.iter().find(|version| version.tariff.version == key.version))
        .ok_or_else(|| RunError::UnknownVersion { tariff: key.tariff.clone(), version: key.version })?;
    let charge = version
        .tariff
        .charge(&key.charge)
        .ok_or_else(|| RunError::UnknownVersion { tariff: key.tariff.clone(), version: key.version })?;
    let is_advance = match &charge.kind {
        ChargeKind::Recurring(recurring) => recurring.timing == Timing::Advance,
        ChargeKind::OneOff { .. } | ChargeKind::Deposit { .. } => true,
        ChargeKind::Usage(_) | ChargeKind::Count(_) => false,
    };
    if last.line.period.start > context.period.start && !is_advance {
        // A run of an older period does not look at what is due after it, and takes nothing of it back.
        return Ok(None);
    }
    let Some(index) = facts.services.iter().position(|service| service.id == key.service && service.addon == key.addon)
    else {
        return Ok(None);
    };
    let nothing = (Exact::ZERO, Vec::new());
    build(facts, index, version, charge, &last.line.period, nothing, context, issued).map(Some)
}

#[expect(clippy::too_many_arguments, reason = "one item is made of all of them, and only here")]
fn build<'r>(
    facts: &'r AccountFacts,
    index: usize,
    version: &'r KnownVersion,
    charge: &'r Charge,
    period: &Period,
    (share, coverage): BilledPart,
    context: &RunContext,
    issued: &Issued<'r>,
) -> Result<Item<'r>, RunError> {
    let service = &facts.services[index];
    let key = ItemKey {
        service: service.id.clone(),
        addon: service.addon.clone(),
        period_start: period.start,
        tariff: version.tariff.id.clone(),
        version: version.tariff.version,
        charge: charge.id.clone(),
    };
    let lines = issued.lines.get(&key);
    let cycle_index = cycle_index(service, period, context)?;
    let touches = |entry: &UsageEntry| entry.from < period.end && period.start < entry.until.max(entry.from);
    let looked_at = issued.looked_at(period.start);
    let late = match &service.sums {
        Some(sums) => sums.get(&period.start).is_some_and(|sum| sum.last_sequence > looked_at),
        None => service
            .usage
            .iter()
            .any(|entry| entry.sequence > looked_at && (period.contains(entry.from) || touches(entry))),
    };
    let own_amount = own_amount(service, charge, &coverage);
    let granted = match coverage.is_empty() {
        true => Vec::new(),
        false => offer::granted(facts, service, (&version.tariff, charge), cycle_index, &coverage, context)?,
    };
    let tally = match (&charge.kind, &service.census) {
        (ChargeKind::Count(count), Some(census)) if !coverage.is_empty() => {
            Some(super::count::tally(count, census, &context.cycle, period, &coverage)?)
        }
        _ => None,
    };
    let topped = match &charge.kind {
        ChargeKind::Usage(usage) => topped(facts, service, charge, usage, period)?,
        _ => Vec::new(),
    };
    let inputs = |engine: u32| {
        let mut text = inputs_text(engine, version, &coverage, share, cycle_index, facts.tax_exempt, service.times);
        if let Some(amount) = own_amount {
            text.push_str(&format!("|{amount}"));
        }
        // Said only where it is so: what was billed without must find its inputs unchanged.
        for granted in &granted {
            text.push_str(&format!("|{} {}", granted.discount, granted.part));
        }
        for (grant, elsewhere) in &topped {
            text.push_str(&format!("|top-up {}", grant.id));
            if !elsewhere.is_zero() {
                text.push_str(&format!(" less {elsewhere}"));
            }
        }
        if !facts.exempt_from.is_empty() {
            text.push_str(&format!("|exempt {}", facts.exempt_from.join(" ")));
        }
        if let Some(tally) = &tally {
            text.push_str(&format!("|{}", tally.list.digest()));
        }
        short_digest(&text)
    };
    let now = inputs(context.causes.engine);
    // A newer program compares an older line in the older form.
    let then = lines.map(|(_, last)| last.basis.engine).filter(|engine| *engine != context.causes.engine).map(inputs);
    Ok(Item {
        account: 0,
        service: index,
        version,
        charge,
        period: period.clone(),
        changed: lines.is_some_and(|(_, last)| last.basis.inputs != *then.as_ref().unwrap_or(&now)),
        coverage,
        share,
        cycle_index,
        own_amount,
        granted,
        tally,
        returned: false,
        posted: None,
        issued: lines.map(|(_, last)| *last),
        original: lines.map(|(first, _)| first.line.id.as_str()),
        inputs: now,
        late,
        asked: lines.is_some() && (facts.held.contains(&key) || context.causes.rerate == Some(period.start)),
        key,
    })
}

/// The account's top-ups that count for an item, with what other cycles' periods used of them: a new one is a cause, and so is
/// another use of it there. One that another account of the family posted is a cause there, and moves the others with it.
fn topped<'r>(
    facts: &'r AccountFacts,
    service: &ServiceFacts,
    charge: &Charge,
    usage: &super::tariff::Usage,
    period: &Period,
) -> Result<Vec<(&'r super::facts::Grant, Exact)>, RunError> {
    let sharing = match usage.pool() {
        Pool::Service => Sharing::Service(0, &service.id),
        Pool::Account => Sharing::Account(0),
        Pool::Parent => {
            let last = period.end.checked_sub(1.microsecond()).unwrap_or(period.end);
            Sharing::Family(facts.head_at(last))
        }
    };
    let own = std::slice::from_ref(facts);
    let found = grants_of(own, sharing, &charge.id, period).into_iter();
    found.map(|grant| Ok((grant, taken_elsewhere(own, &grant.id)?))).collect()
}

fn cycle_index(service: &ServiceFacts, period: &Period, context: &RunContext) -> Result<u32, RunError> {
    let Some(began) = service.began_at else { return Ok(0) };
    let first = context.cycle.ordinal(&context.cycle.period_at(began)?)?;
    Ok(u32::try_from(context.cycle.ordinal(period)? - first).unwrap_or(0))
}

/// Changes when, and only when, something a price depends on has changed. The form is part of what is stored.
fn inputs_text(
    engine: u32,
    version: &KnownVersion,
    coverage: &[(Timestamp, Timestamp)],
    share: Exact,
    cycle_index: u32,
    tax_exempt: bool,
    times: u32,
) -> String {
    let edges: Vec<String> =
        coverage.iter().map(|(from, until)| format!("{}-{}", from.as_microsecond(), until.as_microsecond())).collect();
    // Discounts end by the index; where none does, the index is no input.
    let ending = version.tariff.discounts.iter().any(|discount| discount.cycles.is_some());
    let index = if ending { cycle_index } else { 0 };
    format!(
        "{engine}|{}|{}|{}/{}|{index}|{tax_exempt}|{times}",
        version.tariff.digest,
        edges.join(","),
        share.numerator(),
        share.denominator()
    )
}

fn short_digest(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes())[..16])
}

fn own_amount(service: &ServiceFacts, charge: &Charge, coverage: &[(Timestamp, Timestamp)]) -> Option<Exact> {
    let (begins, _) = coverage.first()?;
    let in_force = |own: &&PriceOverride| {
        own.charge.as_ref().is_none_or(|id| *id == charge.id)
            && own.from.is_none_or(|from| from <= *begins)
            && own.until.is_none_or(|until| *begins < until)
    };
    let own = service.price_overrides.iter().rev().find(in_force)?;
    matches!(charge.kind, ChargeKind::Recurring(_)).then_some(own.amount)
}

const MOST_PERIODS: usize = 500;
/// The form of a line's inputs and usage digest. Raise it when either changes; the older forms stay.
pub const ENGINE: u32 = 2;
