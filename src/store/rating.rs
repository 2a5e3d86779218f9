//! Reads what `billing` needs of a run, an account, a line, and hands it the facts; what they mean is decided there.

use std::collections::BTreeMap;

use thiserror::Error;

use super::billing::{self as rows, BilledAccount};
use super::{StoreError, Tx, accounts, catalog};
use crate::billing::calendar::CalendarError;
use crate::billing::explain::{Explanation, explain as explained, own_amount};
use crate::billing::facts::{AccountFacts, RunContext, ServiceFacts, UsageEntry};
use crate::billing::history::{PlanTariffs, ServiceHistory, billed};
use crate::billing::lines::StoredLine;
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
    let services = match services_of(tx, account.id, context, plans).await? {
        Ok(services) => services,
        Err(error) => return Ok(Err(error)),
    };
    let issued = rows::issued(tx, account.id, &context.cycle.id).await?;
    complete(tx, account, tenant, context, services, issued, &[]).await
}

/// What an account's services are billed for, without usage.
pub(super) struct Services {
    pub tax_exempt: bool,
    pub services: Vec<ServiceFacts>,
    /// The row of each.
    pub rows: Vec<i64>,
}

pub(super) async fn services_of(
    tx: &mut Tx,
    account_id: i64,
    context: &RunContext,
    plans: &PlanTariffs,
) -> Result<Result<Services, RunError>, StoreError> {
    let ids: BTreeMap<i64, String> =
        accounts::services(tx, account_id).await?.into_iter().map(|row| (row.id, row.external_id)).collect();
    let mut histories: BTreeMap<i64, ServiceHistory> = BTreeMap::new();
    let mut tax_exempt = (Timestamp::MIN, false);
    for row in accounts::facts(tx, account_id).await? {
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
        match billed(history, &context.cycle, plans, context.backdate_days) {
            Ok(found) => {
                rows.extend(std::iter::repeat_n(*row, found.len()));
                services.extend(found);
            }
            Err(error) => return Ok(Err(error.into())),
        }
    }
    Ok(Ok(Services { tax_exempt: tax_exempt.1, services, rows }))
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
    let written = rows::ledger_sequence(tx, account.id).await?;
    let mut facts = AccountFacts {
        tenant: tenant.to_owned(),
        source: account.source.clone(),
        account: account.external_id.clone(),
        tax_exempt,
        services,
        issued,
        watermark: pending.iter().map(|(_, entry)| entry.sequence).fold(written, i64::max),
    };
    if meters_usage(&facts, context) {
        read_usage(tx, account.id, &mut facts, &rows, context, pending).await
    } else {
        Ok(Ok(facts))
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

/// First what is new since the last run, then everything of the periods that turn out to need it.
async fn read_usage(
    tx: &mut Tx,
    account_id: i64,
    facts: &mut AccountFacts,
    rows: &[i64],
    context: &RunContext,
    pending: &[(i64, UsageEntry)],
) -> Result<Result<AccountFacts, RunError>, StoreError> {
    let seen = facts.issued.iter().filter_map(|line| line.line.usage.as_ref()).map(|usage| usage.watermark);
    let seen = seen.max().unwrap_or(0);
    let late = rows::usage_after(tx, account_id, seen, facts.watermark).await?;
    for (service_id, entry) in late.into_iter().chain(pending.iter().copied()) {
        for (service, row) in facts.services.iter_mut().zip(rows) {
            if service.addon.is_none() && *row == service_id {
                service.usage.push(entry);
            }
        }
    }
    let needs = match usage_needed(facts, context) {
        Ok(needs) => needs,
        Err(error) => return Ok(Err(error)),
    };
    for need in needs {
        let found = rows::usage_of_period(tx, account_id, rows[need.service], &need.period, facts.watermark).await?;
        let usage = &mut facts.services[need.service].usage;
        usage.extend(found);
        usage.sort_by_key(|entry| entry.sequence);
        usage.dedup_by_key(|entry| entry.sequence);
    }
    Ok(Ok(facts.clone()))
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
