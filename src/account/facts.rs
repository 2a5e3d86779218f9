//! What billing needs to know of a service, as it was from an instant on; rating reads these, never the live document.

use serde::{Deserialize, Serialize};

use super::hold::Hold;
use super::known::ServiceType;
use super::model::{Account, Addon, PriceOverride, Promo, Scheduled, Service, Status, TaxExempt};
use crate::vocabulary::Date;

/// A service's history is a list of these, each from an instant on (`service_history.detail`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFacts {
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    pub plan: String,
    pub bill_cycle: String,
    /// The stricter of the account's and the service's; `terminated` once it left the document or the account closed.
    pub status: Status,
    #[serde(default)]
    pub tax_exempt: TaxExempt,
    /// External id of the account above its account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_jurisdiction: Option<String>,
    /// Ports of the enabled voice lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_from: Option<Date>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_until: Option<Date>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_override: Option<PriceOverride>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addons: Vec<Addon>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub promos: Vec<Promo>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduled: Vec<Scheduled>,
    /// Holds on the account or the service, an operator's too; in force by their own edges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<Hold>,
}

impl ServiceFacts {
    /// The facts of one service of an account. `operator_holds` are those that cover it.
    pub fn of(account: &Account, service: &Service, operator_holds: &[Hold]) -> Self {
        Self {
            service_type: service.service_type,
            plan: service.plan.clone(),
            bill_cycle: account.bill_cycle.clone(),
            status: account.status_of(service),
            tax_exempt: account.tax_exempt.clone(),
            parent: account.parent.clone(),
            tax_jurisdiction: service.tax_jurisdiction.clone(),
            lines: service.lines.iter().filter(|line| line.enabled).map(|line| line.port).collect(),
            billing_from: service.billing_from,
            billing_until: service.billing_until,
            price_override: service.price_override.clone(),
            addons: service.addons.clone(),
            promos: service.promos.clone(),
            scheduled: service.scheduled.clone(),
            holds: account.holds.iter().chain(operator_holds).cloned().collect(),
        }
    }
}
