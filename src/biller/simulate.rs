//! Rates a period's recorded history at other prices, an account at a time; writes nothing.
//!
//! In: a tariff in the place of every version of its id, or the question which plan would have cost least. Out: one
//! account after the other, so that memory is bounded by the largest account, and sums at the end. Beside it the same
//! history is rated at the prices that were in force and compared with the lines that were issued: the control.

use std::collections::BTreeMap;

use super::BillerError;
use super::build::{CHUNK, flush};
use super::edges::Edges;
use crate::account::ServiceType;
use crate::billing::facts::RunContext;
use crate::billing::run::RunError;
use crate::billing::simulate::{BestPlan, Comparison, Offer, best_plan, compare, control, period_lines, with_tariff};
use crate::billing::tariff::Tariff;
use crate::store::billing::{self, BilledAccount};
use crate::store::simulate::{RecordedPeriod, recorded_period};
use crate::store::{Store, Tx, catalog, rating};
use crate::vocabulary::{Clock, Period};

/// What is to be simulated.
#[derive(Debug, Clone)]
pub struct Simulation {
    pub tenant: String,
    /// `None`: every cycle that has a period of this name.
    pub cycle: Option<String>,
    pub period: String,
    pub tariff: Option<Tariff>,
    /// Whether to look for the cheapest plan of each service.
    pub best_plan: bool,
}

/// One account's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulated {
    pub source: String,
    pub account: String,
    pub cycle: String,
    pub period: Period,
    /// `None`: nothing of it has the tariff, or no tariff was given.
    pub comparison: Option<Comparison>,
    pub best: Vec<BestPlan>,
    /// `None`: nothing was issued for the period; empty: the lines were reproduced to the last digit.
    pub control: Option<Vec<String>>,
    /// The account could not be rated.
    pub failed: Option<String>,
}

/// What was simulated, besides the accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub accounts: u64,
    /// Cycle and first day of each period.
    pub periods: Vec<(String, String)>,
}

/// Simulates; `watch` gets each account, and how many of how many are done.
///
/// **Errors**: there is no such tenant, cycle or period; the database.
pub async fn simulate(
    store: &Store,
    clock: &Clock,
    order: &Simulation,
    watch: &mut (dyn FnMut(Simulated, u64, u64) + Send),
) -> Result<Outcome, BillerError> {
    let now = clock.now();
    let mut tx = store.read().await?;
    let mut grounds = Vec::new();
    let mut total = 0;
    for cycle in cycles(&mut tx, order).await? {
        let context = rating::context(&mut tx, &order.tenant, &cycle, Some(&order.period), now).await;
        match context {
            Ok(context) => {
                total += u64::try_from(billing::count_accounts(&mut tx, &order.tenant, &cycle).await?).unwrap_or(0);
                grounds.push(context);
            }
            // A period is named by its start, so that one name is not every cycle's.
            Err(rating::RatingError::Calendar(_)) if order.cycle.is_none() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let plans = catalog::plan_tariffs(&mut tx, &order.tenant).await?;
    let offers = offers(&mut tx, &order.tenant).await?;
    let known = catalog::in_force(&mut tx, &order.tenant).await?;
    let edges = known.map(|known| Edges::of(&known.catalog, now)).unwrap_or_default();
    tx.rollback().await?;
    let mut outcome = Outcome::default();
    for context in grounds {
        outcome.periods.push((context.cycle.id.clone(), context.cycle.name(&context.period)));
        let changed = order.tariff.as_ref().map(|tariff| with_tariff(&context, tariff));
        let ground = Ground {
            order,
            context: &context,
            changed: changed.as_ref(),
            plans: &plans,
            offers: &offers,
            edges: &edges,
        };
        let mut after = 0;
        loop {
            let accounts = ground.chunk(store, after).await?;
            let Some(last) = accounts.last() else { break };
            after = last.0;
            for (_, simulated) in accounts {
                outcome.accounts += 1;
                watch(simulated, outcome.accounts, total.max(outcome.accounts));
            }
        }
    }
    Ok(outcome)
}

struct Ground<'g> {
    order: &'g Simulation,
    context: &'g RunContext,
    changed: Option<&'g RunContext>,
    plans: &'g crate::billing::history::PlanTariffs,
    offers: &'g BTreeMap<ServiceType, Vec<Offer>>,
    edges: &'g Edges,
}

impl Ground<'_> {
    /// The next accounts after a row, each with its row.
    async fn chunk(&self, store: &Store, after: i64) -> Result<Vec<(i64, Simulated)>, BillerError> {
        let closed = self.context.closures.contains_key(&self.context.period.start);
        // What a period that is not closed yet has in its open hours is written only to be read, as for a preview.
        let mut tx = if closed { store.read_snapshot().await? } else { store.write().await? };
        let (tenant, cycle) = (&self.order.tenant, &self.context.cycle.id);
        let accounts = billing::accounts(&mut tx, tenant, cycle, after, CHUNK).await?;
        if !closed && !accounts.is_empty() {
            flush(&mut tx, &accounts, self.context, self.edges).await?;
        }
        let mut done = Vec::with_capacity(accounts.len());
        for account in &accounts {
            done.push((account.id, self.account(&mut tx, account).await?));
        }
        tx.rollback().await?;
        Ok(done)
    }

    async fn account(&self, tx: &mut Tx, account: &BilledAccount) -> Result<Simulated, BillerError> {
        let mut contexts = vec![self.context];
        contexts.extend(self.changed);
        let (tenant, all) = (&self.order.tenant, self.order.best_plan);
        let read = recorded_period(tx, account, tenant, &contexts, self.plans, all).await?;
        let mut simulated = Simulated {
            source: account.source.clone(),
            account: account.external_id.clone(),
            cycle: self.context.cycle.id.clone(),
            period: self.context.period.clone(),
            comparison: None,
            best: Vec::new(),
            control: None,
            failed: None,
        };
        if let Err(error) = read.and_then(|read| self.rate(&read, &mut simulated)) {
            simulated.failed = Some(error.to_string());
        }
        Ok(simulated)
    }

    fn rate(&self, read: &RecordedPeriod, into: &mut Simulated) -> Result<(), RunError> {
        if !read.issued.is_empty() {
            into.control = Some(control(&read.issued, &period_lines(&read.facts, self.context)?));
        }
        if let (Some(changed), Some(tariff)) = (self.changed, &self.order.tariff) {
            into.comparison = compare(&read.facts, self.context, changed, &tariff.id)?;
        }
        if self.order.best_plan {
            let context = self.changed.unwrap_or(self.context);
            for (service, (service_type, plan)) in &read.plans {
                let offers = self.offers.get(service_type).map(Vec::as_slice).unwrap_or_default();
                into.best.extend(best_plan(&read.facts, context, (service, plan), offers)?);
            }
        }
        Ok(())
    }
}

async fn cycles(tx: &mut Tx, order: &Simulation) -> Result<Vec<String>, BillerError> {
    if let Some(cycle) = &order.cycle {
        return Ok(vec![cycle.clone()]);
    }
    let known = catalog::in_force(tx, &order.tenant).await?;
    let known = known.ok_or_else(|| rating::RatingError::NoTenant(order.tenant.clone()))?;
    Ok(known.catalog.cycles.keys().cloned().collect())
}

/// Plans that can be bought as a service of their own, by type, in the order of their names.
async fn offers(tx: &mut Tx, tenant: &str) -> Result<BTreeMap<ServiceType, Vec<Offer>>, BillerError> {
    let mut offers: BTreeMap<ServiceType, Vec<Offer>> = BTreeMap::new();
    let Some(known) = catalog::in_force(tx, tenant).await? else { return Ok(offers) };
    for plan in known.catalog.plans.values().filter(|plan| plan.addon.is_none()) {
        if let (Some(service), Some(tariff)) = (plan.service, &plan.tariff) {
            offers.entry(service).or_default().push(Offer { plan: plan.id.clone(), tariff: tariff.clone() });
        }
    }
    Ok(offers)
}
