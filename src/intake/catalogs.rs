//! The catalog in force of each tenant, read once a version and remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::problem::Problem;
use crate::account::Known;
use crate::billing::calendar::BillCycle;
use crate::catalog::{self, Bundle};
use crate::store::{Tx, accounts};
use crate::vocabulary::{TenantId, Zone};

/// One version of a tenant's catalog, as far as accounts depend on it.
#[derive(Debug)]
pub struct TenantCatalog {
    pub version: i64,
    pub known: Known,
    /// Bill cycles by id, for what is to change with the next one.
    pub cycles: BTreeMap<String, BillCycle>,
    /// Of the tenant's days.
    pub zone: Zone,
}

/// Versions of before that are kept read.
const OLDS_KEPT: usize = 64;

/// By tenant and version.
type Olds = HashMap<(TenantId, i64), Arc<TenantCatalog>>;

type Remembered = Arc<Mutex<HashMap<TenantId, Arc<TenantCatalog>>>>;

/// Remembers catalogs by version; cheap to clone.
#[derive(Clone, Default)]
pub struct Catalogs {
    remembered: Remembered,
    /// Versions of before, as far as accounts are still on them.
    olds: Arc<Mutex<Olds>>,
    /// The catalogs in force as one transaction saw them.
    seen: Option<Remembered>,
}

impl Catalogs {
    /// The newest version remembered; it may be overtaken, which the writer finds out.
    pub fn remembered(&self, tenant: &TenantId) -> Option<Arc<TenantCatalog>> {
        self.lock().get(tenant).cloned()
    }

    /// The same memory for the deeds of one transaction: each tenant's version is read once in it.
    pub fn of_transaction(&self) -> Self {
        Self { remembered: self.remembered.clone(), olds: self.olds.clone(), seen: Some(Arc::default()) }
    }

    /// The version in force. **Errors**: 404 when there is no such tenant.
    pub async fn current(&self, tx: &mut Tx, tenant: &TenantId) -> Result<Arc<TenantCatalog>, Problem> {
        let Some(seen) = &self.seen else { return self.read(tx, tenant).await };
        let known = locked(seen).get(tenant).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let catalog = self.read(tx, tenant).await?;
        locked(seen).insert(tenant.clone(), catalog.clone());
        Ok(catalog)
    }

    /// A version of before, for accounts that have not moved yet. Few are on their way at once: some are kept read.
    pub async fn version(&self, tx: &mut Tx, tenant: &TenantId, version: i64) -> Result<Arc<TenantCatalog>, Problem> {
        let current = self.current(tx, tenant).await?;
        if current.version == version {
            return Ok(current);
        }
        let key = (tenant.clone(), version);
        if let Some(known) = self.olds().get(&key).cloned() {
            return Ok(known);
        }
        let document = accounts::catalog_document(tx, tenant, version).await?;
        let catalog = document.as_deref().and_then(|text| read(version, text)).ok_or_else(Problem::internal)?;
        let mut olds = self.olds();
        if olds.len() >= OLDS_KEPT {
            olds.clear();
        }
        olds.insert(key, catalog.clone());
        Ok(catalog)
    }

    fn olds(&self) -> std::sync::MutexGuard<'_, Olds> {
        self.olds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, tx: &mut Tx, tenant: &TenantId) -> Result<Arc<TenantCatalog>, Problem> {
        let version = accounts::catalog_version(tx, tenant).await?.ok_or_else(Problem::not_found)?;
        if let Some(known) = self.remembered(tenant).filter(|known| known.version == version) {
            return Ok(known);
        }
        let document = accounts::catalog_document(tx, tenant, version).await?;
        let catalog = document.as_deref().and_then(|text| read(version, text)).ok_or_else(|| {
            tracing::error!(%tenant, version, "The stored catalog cannot be read; pushes of this tenant are refused.");
            Problem::internal()
        })?;
        self.lock().insert(tenant.clone(), catalog.clone());
        Ok(catalog)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TenantId, Arc<TenantCatalog>>> {
        locked(&self.remembered)
    }
}

fn locked<T>(map: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A map of finished values cannot be left half-written by a panic.
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(version: i64, document: &str) -> Option<Arc<TenantCatalog>> {
    let bundle: Bundle = serde_json::from_str(document).ok()?;
    let catalog = catalog::read(&bundle).ok()?;
    let known = catalog.known();
    let cycles = catalog.cycles.into_iter().map(|(id, cycle)| (id, cycle.calendar)).collect();
    Some(Arc::new(TenantCatalog { version, known, cycles, zone: catalog.zone }))
}
