//! Reads one account's period for a simulation: facts, recorded usage, and the lines that were issued for it.

use std::collections::BTreeMap;

use super::billing::{self as rows, BilledAccount};
use super::{StoreError, Tx, accounts, rating};
use crate::account::ServiceType;
use crate::billing::facts::{AccountFacts, RunContext};
use crate::billing::history::PlanTariffs;
use crate::billing::lines::StoredLine;
use crate::billing::run::RunError;
use crate::billing::simulate::{carries_into, period_usage_needed, put_usage};

/// An account's period as it was recorded.
#[derive(Debug, Clone)]
pub struct RecordedPeriod {
    /// Without lines but those that carry allowance into the period; the usage is that which the issued lines were made from, or all of it when there are none.
    pub facts: AccountFacts,
    /// Lines of the period.
    pub issued: Vec<StoredLine>,
    /// Type and plan of each service at the end of the period, by external id.
    pub plans: BTreeMap<String, (ServiceType, String)>,
}

/// Reads the period of `contexts[0]` with the usage that any of the contexts prices; with `all`, whatever there is.
pub async fn recorded_period(
    tx: &mut Tx,
    account: &BilledAccount,
    tenant: &str,
    contexts: &[&RunContext],
    plans: &PlanTariffs,
    all: bool,
) -> Result<Result<RecordedPeriod, RunError>, StoreError> {
    let context = contexts[0];
    let mut facts = match rating::facts(tx, account, tenant, context, plans).await? {
        Ok(facts) => facts,
        Err(error) => return Ok(Err(error)),
    };
    // With whom it shares an allowance is recorded as it is.
    let mut relatives = std::mem::take(&mut facts.relatives);
    for relative in &mut relatives {
        if let Err(error) = recorded(tx, relative, contexts, false).await? {
            return Ok(Err(error));
        }
    }
    let issued = match recorded(tx, &mut facts, contexts, all).await? {
        Ok(issued) => issued,
        Err(error) => return Ok(Err(error)),
    };
    facts.relatives = relatives;
    let services = accounts::services(tx, account.id).await?;
    let mut found_plans = BTreeMap::new();
    for row in accounts::facts(tx, account.id).await? {
        let Some(service) = services.iter().find(|service| service.id == row.service_id) else { continue };
        let known = found_plans.contains_key(&service.external_id);
        if row.from_at < context.period.end || !known {
            found_plans.insert(service.external_id.clone(), (row.facts.service_type, row.facts.plan));
        }
    }
    Ok(Ok(RecordedPeriod { facts, issued, plans: found_plans }))
}

/// Puts the recorded usage of the period into an account's facts and takes its lines out.
async fn recorded(
    tx: &mut Tx,
    facts: &mut AccountFacts,
    contexts: &[&RunContext],
    all: bool,
) -> Result<Result<Vec<StoredLine>, RunError>, StoreError> {
    let (context, account_id) = (contexts[0], facts.place);
    // Entries are read as of the lines' watermark, which no sum can tell.
    facts.services.iter_mut().for_each(|service| service.sums = None);
    let (issued, earlier): (Vec<StoredLine>, Vec<StoredLine>) = std::mem::take(&mut facts.issued)
        .into_iter()
        .filter(|line| line.line.period == context.period || carries_into(line, context))
        .partition(|line| line.line.period == context.period);
    facts.issued = earlier;
    let seen = issued.iter().filter_map(|line| line.line.usage.as_ref()).map(|usage| usage.watermark).max();
    facts.watermark = seen.unwrap_or(facts.watermark);
    let mut wanted: BTreeMap<usize, Vec<crate::vocabulary::Period>> = BTreeMap::new();
    if all {
        let main = facts.services.iter().enumerate().filter(|(_, service)| service.addon.is_none());
        wanted.extend(main.map(|(index, _)| (index, vec![context.period.clone()])));
    }
    for context in contexts {
        let needs = match period_usage_needed(facts, context) {
            Ok(needs) => needs,
            Err(error) => return Ok(Err(error)),
        };
        for need in needs {
            let periods = wanted.entry(need.service).or_default();
            if !periods.contains(&need.period) {
                periods.push(need.period);
            }
        }
    }
    let services = accounts::services(tx, account_id).await?;
    for index in 0..facts.services.len() {
        let mut entries = Vec::new();
        let row = services.iter().find(|service| service.external_id == facts.services[index].id);
        if let Some(row) = row {
            for period in wanted.get(&index).into_iter().flatten() {
                entries.extend(rows::usage_of_period(tx, account_id, row.id, period, facts.watermark).await?);
            }
        }
        put_usage(facts, index, entries);
    }
    Ok(Ok(issued))
}
