//! The bill cycles of the catalogs in force, for whoever cuts time into periods and rates nothing.

use super::{StoreError, Tx, on};
use crate::billing::calendar::{BillCycle, Every};
use crate::vocabulary::Zone;

const VERSIONS: &str = "SELECT id, catalog_version FROM tenant ORDER BY id LIMIT 100000";
const DOCUMENT: &str = "SELECT document FROM catalog_version WHERE tenant = $1 AND version = $2";
const OF_ACCOUNT: &str = "SELECT tenant.id, tenant.catalog_version, account.bill_cycle
     FROM account JOIN tenant ON tenant.id = account.tenant WHERE account.id = $1";

/// The version of each tenant's catalog that is in force.
pub async fn versions(tx: &mut Tx) -> Result<Vec<(String, i64)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(VERSIONS).fetch_all(c).await)?)
}

/// The cycles of one version of a tenant's catalog; none when there is no such version.
pub async fn of_catalog(tx: &mut Tx, tenant: &str, version: i64) -> Result<Vec<BillCycle>, StoreError> {
    let document: Option<String> =
        on!(tx, c => sqlx::query_scalar(DOCUMENT).bind(tenant).bind(version).fetch_optional(c).await)?;
    Ok(document.as_deref().map(cycles_of).unwrap_or_default())
}

/// The cycle an account follows now; `None` when its catalog does not know it any more.
pub async fn of_account(tx: &mut Tx, account_id: i64) -> Result<Option<BillCycle>, StoreError> {
    let found: Option<(String, i64, String)> =
        on!(tx, c => sqlx::query_as(OF_ACCOUNT).bind(account_id).fetch_optional(c).await)?;
    let Some((tenant, version, cycle)) = found else { return Ok(None) };
    Ok(of_catalog(tx, &tenant, version).await?.into_iter().find(|known| known.id == cycle))
}

fn cycles_of(document: &str) -> Vec<BillCycle> {
    let Ok(document) = serde_json::from_str::<serde_json::Value>(document) else { return Vec::new() };
    let cycles = document.get("bill_cycle").and_then(serde_json::Value::as_array).map_or(&[][..], Vec::as_slice);
    cycles.iter().filter_map(cycle_of).collect()
}

fn cycle_of(value: &serde_json::Value) -> Option<BillCycle> {
    let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str);
    let timezone = text("timezone").unwrap_or("UTC").to_owned();
    let every = value.get("every");
    let count = |key: &str| every.and_then(|every| every.get(key)).and_then(serde_json::Value::as_u64);
    let every = match (text("every"), count("days"), count("months")) {
        (Some("week"), ..) => Every::Week,
        (Some("day"), ..) => Every::Day,
        (_, Some(days), _) => Every::Days(u16::try_from(days).ok()?),
        (_, _, Some(months)) => Every::Months(u16::try_from(months).ok()?),
        _ => Every::Month,
    };
    let anchor_day = value.get("anchor_day").and_then(serde_json::Value::as_u64).unwrap_or(1);
    Some(BillCycle {
        id: text("id")?.to_owned(),
        anchor_day: u8::try_from(anchor_day).ok()?,
        every,
        zone: Zone::get(&timezone).ok()?,
        timezone,
    })
}
