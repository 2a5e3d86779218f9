//! Reads what `billing` needs of a run, an account, a line, and hands it the facts; what they mean is decided there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use thiserror::Error;

use super::accounts::FactsRow;
use super::billing::{self as rows, BilledAccount, Wanted};
use super::{StoreError, Tx, accounts, catalog, held, ledger, ledger_totals};
use crate::billing::calendar::CalendarError;
use crate::billing::explain::{Explanation, explain as explained, own_amount};
use crate::billing::facts::{AccountFacts, Causes, RunContext, ServiceFacts, UsageEntry};
use crate::billing::history::{PlanTariffs, ServiceHistory, billed};
use crate::billing::lines::{ItemKey, StoredLine};
use crate::billing::run::{RunError, usage_needed};
use crate::billing::tariff::{ChargeKind, Tariff};
use crate::vocabulary::Timestamp;

/// Why a run, an account or a line cannot be looked at.
#[derive(Debug, Error)]
pub enum RatingError {
    #[error("there is no tenant {0}")]
    NoTenant(String),
    #[error("tenant {tenant} has no bill cycle {cycle}")]
    NoCycle { tenant: String, cycle: String },
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The calendar, prices and closures of a run. `period`: as a person names it; `None`: the latest ended one.
pub async fn context(
    tx: &mut Tx,
    tenant: &str,
    cycle: &str,
    period: Option<&str>,
    now: Timestamp,
) -> Result<RunContext, RatingError> {
    let in_force =
        catalog::in_force(tx, tenant).await?.ok_or_else(|| RatingError::NoTenant(tenant.to_owned()))?.catalog;
    let known = in_force
        .cycles
        .get(cycle)
        .ok_or_else(|| RatingError::NoCycle { tenant: tenant.to_owned(), cycle: cycle.to_owned() })?;
    let calendar = known.calendar.clone();
    let period = match period {
        Some(name) => calendar.named(name)?,
        None => calendar.latest_ended(now)?,
    };
    Ok(RunContext {
        cycle: calendar,
        period,
        now,
        batch: None,
        tariffs: catalog::tariff_book(tx, tenant).await?,
        backdate_days: in_force.backdate_days,
        corrections: in_force.corrections,
        closures: rows::closures(tx, tenant, cycle).await?,
        causes: Causes::default(),
    })
}

/// One account's facts, with the usage its items need. The inner error stops this account only.
pub async fn facts(
    tx: &mut Tx,
    account: &BilledAccount,
    tenant: &str,
    context: &RunContext,
    plans: &PlanTariffs,
) -> Result<Result<AccountFacts, RunError>, StoreError> {
    let found = facts_of(tx, std::slice::from_ref(account), tenant, context, plans).await?;
    Ok(found.into_iter().next().expect("one result for each account"))
}

/// The facts of many accounts with a handful of statements, in the order of the accounts.
pub async fn facts_of(
    tx: &mut Tx,
    accounts: &[BilledAccount],
    tenant: &str,
    context: &RunContext,
    plans: &PlanTariffs,
) -> Result<Vec<Result<AccountFacts, RunError>>, StoreError> {
    let ids: Vec<i64> = accounts.iter().map(|account| account.id).collect();
    let mut stored: HashMap<i64, Stored> = ids.iter().map(|id| (*id, Stored::default())).collect();
    let place = |account: i64, stored: &mut HashMap<i64, Stored>, take: &mut dyn FnMut(&mut Stored)| {
        stored.get_mut(&account).into_iter().for_each(take);
    };
    for (account, service, external_id) in accounts::service_ids(tx, &ids).await? {
        place(account, &mut stored, &mut |one| one.services.extend([(service, external_id.clone())]));
    }
    for (account, row) in accounts::facts_of(tx, &ids).await? {
        place(account, &mut stored, &mut |one| one.take(row.clone(), |one, row| one.history.push(row)));
    }
    for (account, line) in rows::issued_of(tx, &ids, &context.cycle.id).await? {
        place(account, &mut stored, &mut |one| one.take(line.clone(), |one, line| one.issued.push(line)));
    }
    for (account, key) in held::keys_of(tx, &ids, &context.cycle.id).await? {
        place(account, &mut stored, &mut |one| one.held.extend([key.clone()]));
    }
    for (account, sequence) in ledger::last_sequences(tx, &ids).await? {
        place(account, &mut stored, &mut |one| one.watermark = sequence);
    }
    let mut found: Vec<Result<Gathered, RunError>> = accounts
        .iter()
        .map(|account| gather(account, stored.remove(&account.id).unwrap_or_default(), tenant, context, plans))
        .collect();
    read_usage(tx, &mut found, context, &[]).await?;
    Ok(found.into_iter().map(|one| one.map(|one| one.facts)).collect())
}

/// What is stored of one account.
#[derive(Default)]
struct Stored {
    services: BTreeMap<i64, String>,
    history: Vec<FactsRow>,
    issued: Vec<StoredLine>,
    held: BTreeSet<ItemKey>,
    watermark: i64,
    /// The first row of it that cannot be read: that stops this account, and no other.
    unreadable: Option<StoreError>,
}

impl Stored {
    fn take<T>(&mut self, row: Result<T, StoreError>, keep: impl FnOnce(&mut Self, T)) {
        match row {
            Ok(row) => keep(self, row),
            Err(error) => {
                self.unreadable.get_or_insert(error);
            }
        }
    }
}

/// An account's facts, and the row of each of its services.
struct Gathered {
    account_id: i64,
    facts: AccountFacts,
    rows: Vec<i64>,
}

fn gather(
    account: &BilledAccount,
    stored: Stored,
    tenant: &str,
    context: &RunContext,
    plans: &PlanTariffs,
) -> Result<Gathered, RunError> {
    if let Some(error) = stored.unreadable {
        return Err(RunError::Unreadable(error.to_string()));
    }
    let services = services(stored.history, &stored.services, context, plans)?;
    let Services { tax_exempt, services, rows } = services;
    let facts = AccountFacts {
        tenant: tenant.to_owned(),
        source: account.source.clone(),
        account: account.external_id.clone(),
        tax_exempt,
        services,
        issued: stored.issued,
        held: stored.held,
        watermark: stored.watermark,
    };
    Ok(Gathered { account_id: account.id, facts, rows })
}

/// What an account's services are billed for, without usage.
pub(super) struct Services {
    pub tax_exempt: bool,
    pub services: Vec<ServiceFacts>,
    /// The row of each.
    pub rows: Vec<i64>,
}

/// The services of one account.
pub(super) async fn services_of(
    tx: &mut Tx,
    account_id: i64,
    context: &RunContext,
    plans: &PlanTariffs,
) -> Result<Result<Services, RunError>, StoreError> {
    let ids: BTreeMap<i64, String> =
        accounts::services(tx, account_id).await?.into_iter().map(|row| (row.id, row.external_id)).collect();
    Ok(services(accounts::facts(tx, account_id).await?, &ids, context, plans))
}

fn services(
    rows: Vec<FactsRow>,
    ids: &BTreeMap<i64, String>,
    context: &RunContext,
    plans: &PlanTariffs,
) -> Result<Services, RunError> {
    let mut histories: BTreeMap<i64, ServiceHistory> = BTreeMap::new();
    let mut tax_exempt = (Timestamp::MIN, false);
    for row in rows {
        if row.from_at >= tax_exempt.0 {
            tax_exempt = (row.from_at, row.facts.tax_exempt);
        }
        let Some(id) = ids.get(&row.service_id) else { continue };
        let history =
            histories.entry(row.service_id).or_insert_with(|| ServiceHistory { id: id.clone(), facts: Vec::new() });
        history.facts.push((row.from_at, row.facts));
    }
    let mut services = Vec::new();
    let mut rows = Vec::new();
    for (row, history) in &histories {
        let found = billed(history, &context.cycle, plans, context.backdate_days)?;
        rows.extend(std::iter::repeat_n(*row, found.len()));
        services.extend(found);
    }
    Ok(Services { tax_exempt: tax_exempt.1, services, rows })
}

/// Adds the usage that the items need. `pending`: ledger entries that are not written yet, with their service, numbered on
/// from the ledger's last.
pub(super) async fn complete(
    tx: &mut Tx,
    account: &BilledAccount,
    tenant: &str,
    context: &RunContext,
    Services { tax_exempt, services, rows }: Services,
    issued: Vec<StoredLine>,
    pending: &[(i64, UsageEntry)],
) -> Result<Result<AccountFacts, RunError>, StoreError> {
    let written = ledger::last_sequences(tx, &[account.id]).await?.get(&account.id).copied().unwrap_or(0);
    let held = held::keys_of(tx, &[account.id], &context.cycle.id).await?.into_iter().map(|(_, key)| key).collect();
    let facts = AccountFacts {
        tenant: tenant.to_owned(),
        source: account.source.clone(),
        account: account.external_id.clone(),
        tax_exempt,
        services,
        issued,
        held,
        watermark: pending.iter().map(|(_, entry)| entry.sequence).fold(written, i64::max),
    };
    let mut one = [Ok(Gathered { account_id: account.id, facts, rows })];
    read_usage(tx, &mut one, context, pending).await?;
    let [one] = one;
    Ok(one.map(|one| one.facts))
}

/// First the sums that were kept, or what is new since the last run, then everything of the periods that turn out to need
/// their entries. `pending` is of the one account there is.
async fn read_usage(
    tx: &mut Tx,
    found: &mut [Result<Gathered, RunError>],
    context: &RunContext,
    pending: &[(i64, UsageEntry)],
) -> Result<(), StoreError> {
    let mut metered: Vec<&mut Gathered> =
        found.iter_mut().flatten().filter(|one| meters_usage(&one.facts, context)).collect();
    read_sums(tx, &mut metered, context).await?;
    read_late(tx, &mut metered).await?;
    for one in metered {
        take_pending(one, pending, context);
    }
    read_periods(tx, found, context).await
}

/// Counts entries that are not written yet as if they were.
fn take_pending(one: &mut Gathered, pending: &[(i64, UsageEntry)], context: &RunContext) {
    for (service, row) in one.facts.services.iter_mut().zip(&one.rows) {
        for (_, entry) in pending.iter().filter(|(id, _)| id == row) {
            let start = context.cycle.period_at(entry.from).map(|period| period.start);
            if service.addon.is_none() {
                // Also beside sums: some charges look at single entries.
                service.usage.push(entry.clone());
            }
            match (&mut service.sums, start) {
                (Some(sums), Ok(start)) => sums.entry(start).or_default().count(entry),
                // A day outside of the calendar: nothing is billed there.
                (Some(_), Err(_)) => {}
                (None, _) => {}
            }
        }
    }
}

fn meters_usage(facts: &AccountFacts, context: &RunContext) -> bool {
    facts.services.iter().flat_map(|service| &service.stretches).any(|stretch| {
        let versions = context.tariffs.get(&stretch.tariff).map(Vec::as_slice).unwrap_or_default();
        versions
            .iter()
            .flat_map(|version| &version.tariff.charges)
            .any(|charge| matches!(charge.kind, ChargeKind::Usage(_)))
    })
}

/// The sums that were kept of each service; where they cannot be used, entries are read below.
async fn read_sums(tx: &mut Tx, metered: &mut [&mut Gathered], context: &RunContext) -> Result<(), StoreError> {
    let ids: Vec<i64> = metered.iter().flat_map(|one| one.rows.iter().copied()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let sums = ledger_totals::of_services(tx, &ids, &context.cycle).await?;
    for one in metered.iter_mut() {
        for (service, row) in one.facts.services.iter_mut().zip(&one.rows) {
            service.sums = sums.get(row).cloned().flatten();
        }
    }
    Ok(())
}

/// What is new since each account's last run, of services without sums.
async fn read_late(tx: &mut Tx, metered: &mut [&mut Gathered]) -> Result<(), StoreError> {
    let mut without: Vec<&mut &mut Gathered> =
        metered.iter_mut().filter(|one| one.facts.services.iter().any(|service| service.sums.is_none())).collect();
    let wanted: Vec<Wanted> = without
        .iter()
        .map(|one| {
            let seen = one.facts.issued.iter().filter_map(|line| line.line.usage.as_ref()).map(|usage| usage.watermark);
            Wanted {
                account_id: one.account_id,
                service_id: None,
                after: seen.max().unwrap_or(0),
                until: one.facts.watermark,
                touching: None,
            }
        })
        .collect();
    let late = rows::usage_wanted(tx, &wanted).await?;
    for (one, late) in without.iter_mut().zip(late) {
        let Gathered { facts, rows, .. } = &mut ***one;
        for (service, row) in facts.services.iter_mut().zip(rows) {
            if service.addon.is_none() && service.sums.is_none() {
                service.usage.extend(late.iter().filter(|(id, _)| id == row).map(|(_, entry)| entry.clone()));
            }
        }
    }
    Ok(())
}

/// Everything of the periods that turn out to need their entries.
async fn read_periods(
    tx: &mut Tx,
    found: &mut [Result<Gathered, RunError>],
    context: &RunContext,
) -> Result<(), StoreError> {
    let mut wanted = Vec::new();
    let mut places = Vec::new();
    for (index, slot) in found.iter_mut().enumerate() {
        let Ok(one) = slot else { continue };
        match usage_needed(&one.facts, context) {
            Ok(needs) => {
                for need in needs {
                    wanted.push(Wanted {
                        account_id: one.account_id,
                        service_id: Some(one.rows[need.service]),
                        after: 0,
                        until: one.facts.watermark,
                        touching: Some((need.period.start, need.period.end)),
                    });
                    places.push((index, need.service));
                }
            }
            Err(error) => *slot = Err(error),
        }
    }
    let entries = rows::usage_wanted(tx, &wanted).await?;
    for ((index, service), entries) in places.into_iter().zip(entries) {
        let Ok(one) = &mut found[index] else { continue };
        let usage = &mut one.facts.services[service].usage;
        usage.extend(entries.into_iter().map(|(_, entry)| entry));
        usage.sort_by_key(|entry| entry.sequence);
        usage.dedup_by_key(|entry| entry.sequence);
    }
    Ok(())
}

/// A line with all that it was made from.
#[derive(Debug, Clone)]
pub struct LineGround {
    pub account_id: i64,
    /// `None`: the line is of no service, or of one that is not there any more.
    pub service_id: Option<i64>,
    pub stored: StoredLine,
    /// The item's line before this one.
    pub before: Option<StoredLine>,
    pub tariff: Tariff,
    /// Ledger entries of the service that touch the period, up to the line's watermark.
    pub entries: Vec<UsageEntry>,
}

impl LineGround {
    pub fn explain(&self) -> Result<Explanation, RunError> {
        let own = own_amount(&self.stored, &self.tariff);
        explained(&self.stored, self.before.as_ref(), &self.tariff, own, &self.entries)
    }
}

/// A line's whole computation from its ledger entries; `None`: there is no such line.
pub async fn explain(tx: &mut Tx, tenant: Option<&str>, id: &str) -> Result<Option<Explanation>, RatingError> {
    match line_ground(tx, tenant, id).await? {
        Some(ground) => Ok(Some(ground.explain()?)),
        None => Ok(None),
    }
}

/// A line and what it was made from; `None`: there is no such line.
pub async fn line_ground(tx: &mut Tx, tenant: Option<&str>, id: &str) -> Result<Option<LineGround>, RatingError> {
    let Some((account_id, stored)) = rows::line(tx, id).await? else { return Ok(None) };
    if tenant.is_some_and(|tenant| tenant != stored.line.tenant) {
        return Ok(None);
    }
    let line = &stored.line;
    let mut book = catalog::tariff_book(tx, &line.tenant).await?;
    let versions = book.remove(&line.tariff.id).unwrap_or_default();
    let version = versions
        .into_iter()
        .find(|version| version.tariff.version == line.tariff.version)
        .ok_or_else(|| RunError::UnknownVersion { tariff: line.tariff.id.clone(), version: line.tariff.version })?;
    let issued = rows::issued(tx, account_id, &line.cycle).await?;
    let before = issued
        .into_iter()
        .find(|other| other.item() == stored.item() && other.basis.revision + 1 == stored.basis.revision);
    let services = accounts::services(tx, account_id).await?;
    let service = services.into_iter().find(|row| Some(&row.external_id) == line.service.as_ref());
    let service_id = service.map(|row| row.id);
    let entries = match (&line.usage, service_id) {
        (Some(usage), Some(service)) => {
            rows::usage_of_period(tx, account_id, service, &line.period, usage.watermark).await?
        }
        _ => Vec::new(),
    };
    Ok(Some(LineGround { account_id, service_id, stored, before, tariff: version.tariff, entries }))
}
