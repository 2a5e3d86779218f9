//! Reads what `billing` needs of a period that runs: for a balance, and for thresholds. Usage that is in no ledger entry yet
//! counts as a bill run would write it; nothing is written here.
//!
//! Prices are remembered by the version of the catalog, for whoever asks often.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::ToSpan;

use super::billing::{self as rows, BilledAccount};
use super::charges::PostedRow;
use super::cycles::{self, Timetable};
use super::grants::GrantRow;
use super::ledger::Cutting;
use super::rating::{IssuedLines, RatingError, Running, Services, complete, relatives, services_of};
use super::thresholds::{Look, Totals};
use super::{StoreError, Tx, catalog, charges, grants, ledger, on, thresholds};
use crate::billing::balance::{Balance, balance as balanced};
use crate::billing::facts::{AccountFacts, Causes, RunContext, TariffBook, UsageEntry};
use crate::billing::history::PlanTariffs;
use crate::billing::run::{RunError, lines, lines_since};
use crate::billing::thresholds::{
    Distance, Standing, depends_on_others, nearest, shared_standings, standings as standing,
};
use crate::catalog::Catalog;
use crate::usage::Cuts;
use crate::vocabulary::{Period, Timestamp, from_micros};

/// A tenant's prices as of one version of its catalog.
#[derive(Debug)]
pub struct Prices {
    pub version: i64,
    applied_at: Timestamp,
    pub catalog: Catalog,
    timetable: Timetable,
    tariffs: Arc<TariffBook>,
    plans: PlanTariffs,
}

/// Remembers every tenant's newest prices; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PriceBook {
    remembered: Arc<Mutex<HashMap<String, Arc<Prices>>>>,
}

/// How a service stands to its thresholds.
#[derive(Debug)]
pub enum Judged {
    /// The period is over for good, or no longer one of the account's.
    Gone,
    /// Its usage cannot be rated as it is.
    Unratable { period: Period, error: RunError },
    Known {
        period: Period,
        /// Of this service alone.
        standings: Vec<Standing>,
        /// Totals that are at most what the standings were counted from.
        totals: Totals,
        /// What must come to them before anything can be crossed.
        distance: Distance,
        /// Those it shares an allowance with.
        others: Vec<Other>,
    },
}

/// A service that shares an allowance with the one that is looked at.
#[derive(Debug)]
pub struct Other {
    pub account_id: i64,
    pub service_id: i64,
    pub facts_id: i64,
    pub totals: Totals,
    pub distance: Distance,
    pub standings: Vec<Standing>,
}

const VERSION: &str = "SELECT catalog_version FROM tenant WHERE id = $1";

/// For so long after its end a period's thresholds still tell of themselves: a report may have been on its way.
pub const LATE_HOURS: i64 = 24;

impl PriceBook {
    /// The prices in force; `None`: no such tenant.
    pub async fn of(&self, tx: &mut Tx, tenant: &str) -> Result<Option<Arc<Prices>>, StoreError> {
        let version: Option<i64> = on!(tx, c => sqlx::query_scalar(VERSION).bind(tenant).fetch_optional(c).await)?;
        let Some(version) = version else { return Ok(None) };
        let known = self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned();
        if let Some(known) = known.filter(|known| known.version == version) {
            return Ok(Some(known));
        }
        let Some(prices) = read(tx, tenant).await? else { return Ok(None) };
        let prices = Arc::new(prices);
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.insert(tenant.to_owned(), prices.clone());
        Ok(Some(prices))
    }
}

/// The prices of a tenant, for whoever asks once.
pub async fn read(tx: &mut Tx, tenant: &str) -> Result<Option<Prices>, StoreError> {
    let Some(in_force) = catalog::in_force(tx, tenant).await? else { return Ok(None) };
    Ok(Some(Prices {
        version: in_force.version,
        applied_at: in_force.applied_at,
        timetable: Timetable::of(&in_force.catalog),
        catalog: in_force.catalog,
        tariffs: catalog::tariff_book(tx, tenant).await?.into(),
        plans: catalog::plan_tariffs(tx, tenant).await?,
    }))
}

impl Prices {
    /// The context of the cycle's period at an instant; `None`: there is no such cycle.
    fn context(&self, cycle: &str, at: Timestamp, now: Timestamp) -> Option<Result<RunContext, RatingError>> {
        let cycle = self.catalog.cycles.get(cycle)?.calendar.clone();
        let period = match cycle.period_at(at) {
            Ok(period) => period,
            Err(error) => return Some(Err(error.into())),
        };
        Some(Ok(RunContext {
            period,
            cycle,
            now,
            batch: None,
            tariffs: self.tariffs.clone(),
            backdate_days: self.catalog.backdate_days,
            wholesale: self.catalog.wholesale.clone(),
            corrections: self.catalog.corrections.clone(),
            closures: Default::default(),
            causes: Causes { catalog_at: Some(self.applied_at), ..Causes::default() },
        }))
    }
}

/// What the account has used and owes of the period that runs: what `bill run --dry-run` of that period would emit for it.
pub async fn balance(
    tx: &mut Tx,
    prices: &Prices,
    cycle: &str,
    account: &BilledAccount,
    now: Timestamp,
) -> Result<Balance, RatingError> {
    let tenant = prices.catalog.tenant.as_str();
    let no_cycle = || RatingError::NoCycle { tenant: tenant.to_owned(), cycle: cycle.to_owned() };
    let mut context = prices.context(cycle, now, now).ok_or_else(no_cycle)??;
    context.closures = rows::closures(tx, tenant, cycle).await?;
    let own = services_of(tx, account.id, &context, &prices.plans).await??;
    let until = context.period.end.min(now);
    let family = family(tx, prices, account, own, &context, until).await?;
    let mut found = Vec::with_capacity(family.len());
    for one in complete(tx, family, tenant, &context).await? {
        found.push(one.map(|one| one.facts));
    }
    let place = found.iter().position(|one| one.as_ref().is_ok_and(|facts| facts.place == account.id));
    let mut facts = match place {
        Some(place) => found.remove(place)?,
        // What stops it is said of it, or of whom it shares an allowance with.
        None => return Err(found.into_iter().find_map(Result::err).unwrap_or(RunError::TooManyPeriods).into()),
    };
    facts.relatives = found.into_iter().flatten().collect();
    let found = lines(&facts, &context)?.lines;
    Ok(balanced(&facts.account, facts.watermark, &context, &found))
}

/// How a service stands to the thresholds of its tariff in the period it was asked for.
pub async fn standings(tx: &mut Tx, prices: &Prices, look: &Look, now: Timestamp) -> Result<Judged, StoreError> {
    let Some(start) = from_micros(look.period_start_at) else { return Ok(Judged::Gone) };
    // A start outside of the calendar is none of the account's periods either.
    let Some(Ok(context)) = prices.context(&look.cycle, start, now) else { return Ok(Judged::Gone) };
    let period = context.period.clone();
    let told_until = period.end.checked_add(LATE_HOURS.hours()).unwrap_or(Timestamp::MAX);
    if period.start != start || told_until <= now {
        return Ok(Judged::Gone);
    }
    let services = match services_of(tx, look.account_id, &context, &prices.plans).await? {
        Ok(services) => services,
        Err(error) => return Ok(Judged::Unratable { period, error }),
    };
    let last = period.end.checked_sub(1.microsecond()).unwrap_or(period.end);
    let at = now.min(last).max(period.start);
    let own = services
        .rows
        .iter()
        .zip(&services.services)
        .position(|(row, service)| *row == look.service_id && service.addon.is_none());
    let Some(own) = own else { return Ok(Judged::Gone) };
    let granted = grants::of_accounts(tx, &[look.account_id], &look.cycle).await?;
    let granted = granted.into_iter().map(|(_, row)| row.map(|row| row.grant)).collect::<Result<Vec<_>, _>>()?;
    if depends_on_others(&services.services[own], &granted, &context.tariffs) {
        return shared(tx, prices, look, (services, context), at).await;
    }
    let totals = thresholds::totals(tx, look.service_id, look.period_start_at).await?;
    let Services { exempt, services, .. } = services;
    let mut facts = AccountFacts {
        tenant: look.tenant.clone(),
        source: look.source.clone(),
        account: look.account.clone(),
        tax_exempt: exempt.is_all(),
        exempt_from: exempt.taxes().to_vec(),
        services,
        ..AccountFacts::default()
    };
    let written = rows::usage_of_period(tx, look.account_id, look.service_id, &period, i64::MAX).await?;
    let pending = pending(tx, prices, look.account_id, period.end, &context).await?;
    let mine = pending.into_iter().filter(|(service, _)| *service == look.service_id).map(|(_, entry)| entry);
    facts.services[own].usage = written.into_iter().chain(mine).collect();
    match standing(&facts, &context, at) {
        Ok(mut standings) => {
            standings.retain(|standing| standing.service == own);
            let distance = nearest(&standings);
            Ok(Judged::Known { period, standings, totals, distance, others: Vec::new() })
        }
        Err(error) => Ok(Judged::Unratable { period, error }),
    }
}

/// As `standings`, of a service whose allowance is more than its own of the period.
async fn shared(
    tx: &mut Tx,
    prices: &Prices,
    look: &Look,
    (services, mut context): (Services, RunContext),
    at: Timestamp,
) -> Result<Judged, StoreError> {
    let period = context.period.clone();
    let tenant = prices.catalog.tenant.as_str();
    context.closures = rows::closures(tx, tenant, &look.cycle).await?;
    // The period is looked at whatever was issued of it.
    context.causes.rerate = Some(period.start);
    let account = BilledAccount {
        id: look.account_id,
        source: look.source.clone(),
        external_id: look.account.clone(),
        bill_cycle: look.cycle.clone(),
    };
    let family = match family(tx, prices, &account, services, &context, period.end).await {
        Ok(family) => family,
        Err(RatingError::Store(error)) => return Err(error),
        Err(RatingError::Run(error)) => return Ok(Judged::Unratable { period, error }),
        Err(other) => return Err(StoreError::Database(other.to_string())),
    };
    // Of the same moment as the usage: guards must not promise more than was counted.
    let members: Vec<i64> = family.iter().flat_map(|one| one.services.rows.iter().copied()).collect();
    let places = thresholds::places(tx, &members, look.period_start_at).await?;
    let mut found = Vec::with_capacity(family.len());
    for one in complete(tx, family, tenant, &context).await? {
        match one {
            Ok(one) => found.push((one.account_id, one.rows, one.facts)),
            Err(error) => return Ok(Judged::Unratable { period, error }),
        }
    }
    let facts: Vec<AccountFacts> = found.iter_mut().map(|(_, _, facts)| std::mem::take(facts)).collect();
    let (standings, reaches) = match shared_standings(&facts, &context, at) {
        Ok(found) => found,
        Err(error) => return Ok(Judged::Unratable { period, error }),
    };
    let mut others: BTreeMap<i64, Other> = BTreeMap::new();
    let row_of = |account: usize, service: usize| (found[account].0, found[account].1[service]);
    for reach in &reaches {
        let (account_id, service_id) = row_of(reach.account, reach.service);
        let place = places.get(&service_id).copied().unwrap_or_default();
        let (facts_id, totals, distance) = (place.facts_id, place.totals(), reach.distance);
        let standings = Vec::new();
        others.insert(service_id, Other { account_id, service_id, facts_id, totals, distance, standings });
    }
    for standing in standings {
        let (_, service_id) = row_of(standing.account, standing.service);
        if let Some(other) = others.get_mut(&service_id) {
            other.standings.push(standing);
        }
    }
    let own = others.remove(&look.service_id);
    let totals = places.get(&look.service_id).copied().unwrap_or_default().totals();
    let (standings, distance) = own.map(|own| (own.standings, own.distance)).unwrap_or_default();
    Ok(Judged::Known { period, standings, totals, distance, others: others.into_values().collect() })
}

/// What is known of an account and of those that may share an allowance with it, in their order.
async fn family(
    tx: &mut Tx,
    prices: &Prices,
    account: &BilledAccount,
    own: Services,
    context: &RunContext,
    until: Timestamp,
) -> Result<Vec<Running>, RatingError> {
    let cycle = context.cycle.id.clone();
    let tenant = prices.catalog.tenant.as_str();
    let since = lines_since(context).unwrap_or(Timestamp::MIN);
    let members = relatives(tx, tenant, account, context).await?;
    let (mut own, mut found) = (Some(own), Vec::with_capacity(members.len()));
    for member in members {
        let is_own = member.id == account.id;
        let services = match own.take_if(|_| is_own) {
            Some(services) => services,
            None => services_of(tx, member.id, context, &prices.plans).await??,
        };
        let mut issued = IssuedLines::default();
        for (_, line) in rows::issued_of(tx, &[member.id], &cycle, since).await? {
            issued.take(line?);
        }
        let posted = charges::of_accounts(tx, &[member.id], &cycle).await?;
        let posted: Vec<PostedRow> = posted.into_iter().map(|(_, row)| row).collect::<Result<_, _>>()?;
        let granted = grants::of_accounts(tx, &[member.id], &cycle).await?;
        let grants: Vec<GrantRow> = granted.into_iter().map(|(_, row)| row).collect::<Result<_, _>>()?;
        found.push(Running { account: member, services, issued, posted, grants, pending: Vec::new() });
    }
    for one in &mut found {
        one.pending = pending(tx, prices, one.account.id, until, context).await?;
    }
    Ok(found)
}

/// What a flush until `until` would write for the account, with its service, numbered as it would number it.
async fn pending(
    tx: &mut Tx,
    prices: &Prices,
    account_id: i64,
    until: Timestamp,
    context: &RunContext,
) -> Result<Vec<(i64, UsageEntry)>, StoreError> {
    let written = ledger::last_sequences(tx, &[account_id]).await?.get(&account_id).copied().unwrap_or(0);
    let (cycle, period) = (&context.cycle, &context.period);
    let (at, fine) = cycles::flush_cuts(tx, &prices.timetable, cycle, period, &[account_id]).await?;
    let edges = [period.start, period.end];
    let cuts = Cuts { at: &at, fine: fine.contains(&account_id) };
    let entries = ledger::pending(tx, &[account_id], until, &|_| Cutting { edges: &edges, cuts }).await?;
    let corrupt = |session: i64| StoreError::Corrupt { table: "session", column: "body", id: session.to_string() };
    (written + 1..)
        .zip(entries)
        .map(|(sequence, entry)| {
            let at = |micros: i64| from_micros(micros).ok_or_else(|| corrupt(entry.session_id));
            let amount = entry.bucket.amount;
            let usage = UsageEntry {
                sequence,
                session: entry.session_id,
                class: entry.class.clone(),
                call: None,
                from: at(entry.bucket.from_at)?,
                until: at(entry.bucket.until_at)?,
                in_octets: amount.in_octets,
                out_octets: amount.out_octets,
                seconds: amount.seconds,
                sessions: amount.sessions,
            };
            Ok((entry.owner.service_id, usage))
        })
        .collect()
}
