//! The bill cycles of the catalogs in force, for whoever cuts time into periods and rates nothing.

use super::{StoreError, Tx, on};
use crate::billing::calendar::BillCycle;
use crate::catalog::{self, Bundle};
use crate::usage::Straddling;

const VERSIONS: &str = "SELECT id, catalog_version FROM tenant ORDER BY id LIMIT 100000";
const DOCUMENT: &str = "SELECT document FROM catalog_version WHERE tenant = $1 AND version = $2";
const OF_ACCOUNT: &str = "SELECT tenant.id, tenant.catalog_version, account.bill_cycle
     FROM account JOIN tenant ON tenant.id = account.tenant WHERE account.id = $1";

/// The version of each tenant's catalog that is in force.
pub async fn versions(tx: &mut Tx) -> Result<Vec<(String, i64)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(VERSIONS).fetch_all(c).await)?)
}

/// The cycles of one version of a tenant's catalog, none when there is no such version; and to which period it gives
/// usage between two reports that an edge lies between.
pub async fn of_catalog(tx: &mut Tx, tenant: &str, version: i64) -> Result<(Vec<BillCycle>, Straddling), StoreError> {
    let document: Option<String> =
        on!(tx, c => sqlx::query_scalar(DOCUMENT).bind(tenant).bind(version).fetch_optional(c).await)?;
    Ok(document.as_deref().map(cycles_of).unwrap_or_default())
}

/// The cycle an account follows now; `None` when its catalog does not know it any more.
pub async fn of_account(tx: &mut Tx, account_id: i64) -> Result<Option<BillCycle>, StoreError> {
    let found: Option<(String, i64, String)> =
        on!(tx, c => sqlx::query_as(OF_ACCOUNT).bind(account_id).fetch_optional(c).await)?;
    let Some((tenant, version, cycle)) = found else { return Ok(None) };
    Ok(of_catalog(tx, &tenant, version).await?.0.into_iter().find(|known| known.id == cycle))
}

/// A catalog was checked when it was applied; one that cannot be read any more has no cycles, and usage stays uncut.
fn cycles_of(document: &str) -> (Vec<BillCycle>, Straddling) {
    let Ok(bundle) = serde_json::from_str::<Bundle>(document) else { return Default::default() };
    let Ok(catalog) = catalog::read(&bundle) else { return Default::default() };
    (catalog.cycles.into_values().map(|cycle| cycle.calendar).collect(), catalog.period_usage)
}
