//! Whose usage may cross a threshold: services on plans whose tariff has any, and of them those that no guard covers.
//!
//! In: which services' totals changed in the fold's transaction. Out: wishes that somebody looks at them, in the same
//! transaction, so that neither a crash nor a record folded again loses one or acts twice. It rates nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::store::thresholds::{self, Changed};
use crate::store::{StoreError, Tx, catalog};
use crate::usage::Amount;

/// The plans with thresholds, of all tenants.
#[derive(Debug, Default)]
pub(super) struct Watch {
    plans: HashSet<(String, String)>,
}

impl Watch {
    /// The plans of these catalogs.
    pub async fn of(tx: &mut Tx, versions: &[(String, i64)]) -> Result<Self, StoreError> {
        let mut plans = HashSet::new();
        for (tenant, _) in versions {
            match catalog::plans_with_thresholds(tx, tenant).await {
                Ok(found) => plans.extend(found.into_iter().map(|plan| (tenant.clone(), plan))),
                // Its pushes and bills say so louder; its usage is folded all the same.
                Err(StoreError::Corrupt { .. }) => {
                    tracing::error!(tenant, "The stored tariffs cannot be read: no threshold of this tenant acts.");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { plans })
    }

    /// Whether there is any threshold at all; without one nothing need be noted.
    pub fn is_idle(&self) -> bool {
        self.plans.is_empty()
    }

    /// Asks for looks at the services whose totals changed by these amounts, by (service, period start).
    pub async fn ask(&self, tx: &mut Tx, changes: &BTreeMap<(i64, i64), Amount>) -> Result<(), StoreError> {
        if self.is_idle() || changes.is_empty() {
            return Ok(());
        }
        let services: Vec<i64> = changes.keys().map(|(service, _)| *service).collect();
        let plans = thresholds::plans_of(tx, &services).await?;
        let plans: HashMap<i64, (String, String)> =
            plans.into_iter().map(|(service, tenant, plan)| (service, (tenant, plan))).collect();
        let changed: Vec<Changed> = changes
            .iter()
            .filter(|((service, _), _)| plans.get(service).is_some_and(|plan| self.plans.contains(plan)))
            .map(|((service_id, period_start_at), amount)| Changed {
                service_id: *service_id,
                period_start_at: *period_start_at,
                down: goes_down(amount),
            })
            .collect();
        thresholds::ask(tx, &changed).await
    }
}

fn goes_down(amount: &Amount) -> bool {
    [amount.in_octets, amount.out_octets, amount.seconds, amount.sessions].into_iter().any(i64::is_negative)
}
