//! The catalog in force of each tenant, read once a version and remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::problem::Problem;
use crate::account::Known;
use crate::store::{Tx, accounts};
use crate::vocabulary::TenantId;

/// One version of a tenant's catalog, as far as accounts depend on it.
#[derive(Debug)]
pub struct TenantCatalog {
    pub version: i64,
    pub known: Known,
}

/// Remembers catalogs by version; cheap to clone.
#[derive(Clone, Default)]
pub struct Catalogs {
    remembered: Arc<Mutex<HashMap<TenantId, Arc<TenantCatalog>>>>,
}

impl Catalogs {
    /// The newest version remembered; it may be overtaken, which the writer finds out.
    pub fn remembered(&self, tenant: &TenantId) -> Option<Arc<TenantCatalog>> {
        self.lock().get(tenant).cloned()
    }

    /// The version in force. **Errors**: 404 when there is no such tenant.
    pub async fn current(&self, tx: &mut Tx, tenant: &TenantId) -> Result<Arc<TenantCatalog>, Problem> {
        let version = accounts::catalog_version(tx, tenant).await?.ok_or_else(Problem::not_found)?;
        if let Some(known) = self.remembered(tenant).filter(|known| known.version == version) {
            return Ok(known);
        }
        let document = accounts::catalog_document(tx, tenant, version).await?;
        let known = document.as_deref().and_then(known).ok_or_else(|| {
            tracing::error!(%tenant, version, "The stored catalog cannot be read; pushes of this tenant are refused.");
            Problem::internal()
        })?;
        let catalog = Arc::new(TenantCatalog { version, known });
        self.lock().insert(tenant.clone(), catalog.clone());
        Ok(catalog)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TenantId, Arc<TenantCatalog>>> {
        // A map of finished values cannot be left half-written by a panic.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn known(document: &str) -> Option<Known> {
    use crate::account::{DocsisProfile, KnownPlan, RadiusProfile};
    let bundle: serde_json::Value = serde_json::from_str(document).ok()?;
    let text = bundle["files"][bundle["main"].as_str()?].as_str()?;
    let table: toml::Table = text.parse().ok()?;
    let mut known = Known::default();
    for domain in table["tenant"]["mail_domains"].as_array()? {
        known.mail_domains.insert(domain.as_str()?.to_owned());
    }
    for cycle in table["bill_cycle"].as_array()? {
        known.bill_cycles.insert(cycle["id"].as_str()?.to_owned());
    }
    for plan in table["plan"].as_array()? {
        let docsis: Option<DocsisProfile> = plan.get("docsis").and_then(|d| d.clone().try_into().ok());
        let radius: Option<RadiusProfile> = plan.get("radius").and_then(|d| d.clone().try_into().ok());
        let service = plan.get("service").and_then(|s| s.as_str()?.parse().ok());
        known.plans.insert(plan["id"].as_str()?.to_owned(), KnownPlan { service, docsis, radius, quota_mb: None });
    }
    Some(known)
}
