//! What applying a catalog changes, before anything is written: tariff versions, prices, plans, modems.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Catalog, Plan};
use crate::account::ServiceType;
use crate::vocabulary::{Fault, Faults};

/// The blast radius of a catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Effect {
    pub tenant: String,
    /// Nothing differs from the version in force.
    pub unchanged: bool,
    /// `id` and version.
    pub new_tariff_versions: Vec<String>,
    pub added_plans: Vec<String>,
    pub removed_plans: Vec<String>,
    pub changed_plans: Vec<PlanChange>,
    pub added_cycles: Vec<String>,
    pub removed_cycles: Vec<String>,
    /// Mail domains it names that are another tenant's; addresses in them are refused at a push.
    pub mail_domains_elsewhere: Vec<String>,
    /// Accounts with a service on a changed plan or tariff.
    pub accounts: i64,
    /// Modems whose file changes: each needs a new boot to take it.
    pub reboots: i64,
    /// Of them, those that carry voice.
    pub reboots_with_voice: i64,
}

/// How a plan differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanChange {
    pub plan: String,
    /// `price`, `modem`, `radius`, `mailbox`.
    pub touches: Vec<&'static str>,
    /// Living services on it.
    pub services: i64,
}

/// Compares a catalog with the one in force and the tariff versions known so far (id, version → digest).
///
/// **Errors**: a tariff version whose content changed, a cycle that changed its calendar.
pub fn compare(
    new: &Catalog,
    old: Option<&Catalog>,
    known: &BTreeMap<(String, u32), String>,
) -> Result<Effect, Vec<Fault>> {
    let mut faults = Faults::new();
    let mut effect = Effect { tenant: new.tenant.to_string(), ..Effect::default() };
    let mut repriced = BTreeSet::new();
    for tariff in &new.tariffs {
        match known.get(&(tariff.id.clone(), tariff.version)) {
            Some(digest) if *digest == tariff.digest => {}
            Some(_) => faults.add(
                format!("tariff {} version {}", tariff.id, tariff.version),
                "was applied with other content and never changes; give the change a new version",
            ),
            None => {
                effect.new_tariff_versions.push(format!("{} version {}", tariff.id, tariff.version));
                repriced.insert(tariff.id.as_str());
            }
        }
    }
    let Some(old) = old else {
        effect.added_plans = new.plans.keys().cloned().collect();
        effect.added_cycles = new.cycles.keys().cloned().collect();
        return faults.settle(effect);
    };
    effect.unchanged = old.bundle.digest() == new.bundle.digest();
    for (id, plan) in &new.plans {
        match old.plans.get(id) {
            None => effect.added_plans.push(id.clone()),
            Some(before) => {
                let touches = touches(before, plan, &repriced);
                if !touches.is_empty() {
                    effect.changed_plans.push(PlanChange { plan: id.clone(), touches, services: 0 });
                }
            }
        }
    }
    effect.removed_plans = old.plans.keys().filter(|id| !new.plans.contains_key(*id)).cloned().collect();
    for (id, cycle) in &new.cycles {
        match old.cycles.get(id) {
            None => effect.added_cycles.push(id.clone()),
            // Lines are kept by the start of their period: another calendar under the same name would bill twice.
            Some(before) if before.calendar != cycle.calendar => faults.add(
                format!("bill_cycle {id}"),
                "changes its calendar; give the new calendar a new id and move the accounts",
            ),
            Some(_) => {}
        }
    }
    effect.removed_cycles = old.cycles.keys().filter(|id| !new.cycles.contains_key(*id)).cloned().collect();
    faults.settle(effect)
}

fn touches(before: &Plan, after: &Plan, repriced: &BTreeSet<&str>) -> Vec<&'static str> {
    let mut touches = Vec::new();
    if before.tariff != after.tariff || after.tariff.as_deref().is_some_and(|tariff| repriced.contains(tariff)) {
        touches.push("price");
    }
    if before.docsis != after.docsis || before.addon != after.addon || before.voice != after.voice {
        touches.push("modem");
    }
    if before.radius != after.radius {
        touches.push("radius");
    }
    if before.quota_mb != after.quota_mb && after.service == Some(ServiceType::Email) {
        touches.push("mailbox");
    }
    touches
}
