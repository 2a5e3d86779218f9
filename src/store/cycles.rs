//! The bill cycles, windows and classes of the catalogs in force, for whoever cuts usage and rates nothing.

use std::collections::{BTreeSet, HashSet};

use jiff::ToSpan;

use super::{StoreError, Tx, fold, on};
use crate::billing::calendar::{BillCycle, CalendarError};
use crate::billing::class::ClassRule;
use crate::billing::tariff::{Charge, ChargeKind, Level, Meter, Tariff, Usage};
use crate::billing::window::{self, Window};
use crate::catalog::{self, Bundle, Catalog};
use crate::usage::Straddling;
use crate::vocabulary::{Period, Timestamp, to_micros};

const VERSIONS: &str = "SELECT id, catalog_version FROM tenant ORDER BY id LIMIT 100000";
const DOCUMENT: &str = "SELECT document FROM catalog_version WHERE tenant = $1 AND version = $2";
const OF_ACCOUNT: &str = "SELECT tenant.id, tenant.catalog_version, account.bill_cycle
     FROM account JOIN tenant ON tenant.id = account.tenant WHERE account.id = $1";

/// The version of each tenant's catalog that is in force.
pub async fn versions(tx: &mut Tx) -> Result<Vec<(String, i64)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(VERSIONS).fetch_all(c).await)?)
}

/// What a catalog says of time: where periods and windows begin, and what is told apart by it.
#[derive(Debug, Clone, Default)]
pub struct Timetable {
    pub cycles: Vec<BillCycle>,
    /// To which period usage between two reports belongs that an edge lies between.
    pub straddling: Straddling,
    /// Of all its tariffs.
    pub windows: Vec<Window>,
    /// A charge rounds each day by itself.
    pub by_day: bool,
    pub classes: Vec<ClassRule>,
    /// Plans whose tariff meters a peak rate.
    pub peak_plans: BTreeSet<String>,
}

impl Timetable {
    /// What a catalog says.
    pub fn of(catalog: &Catalog) -> Self {
        let usage_of = |tariff: &Tariff| -> Vec<Usage> {
            let usage = |charge: &Charge| match &charge.kind {
                ChargeKind::Usage(usage) => Some((**usage).clone()),
                _ => None,
            };
            tariff.charges.iter().filter_map(usage).collect()
        };
        let has_peak = |tariff: &Tariff| usage_of(tariff).iter().any(|usage| usage.meter == Meter::PeakBps95);
        let peaks: BTreeSet<&str> = catalog.tariffs.iter().filter(|t| has_peak(t)).map(|t| t.id.as_str()).collect();
        let plans = catalog.plan_tariffs();
        let peak_plans =
            plans.into_iter().filter(|(_, tariff)| peaks.contains(tariff.as_str())).map(|(plan, _)| plan).collect();
        let charges: Vec<Usage> = catalog.tariffs.iter().flat_map(usage_of).collect();
        Self {
            straddling: catalog.period_usage,
            windows: charges.iter().flat_map(|usage| usage.windows.clone()).collect(),
            by_day: charges.iter().any(|usage| usage.quantize.is_some() && usage.quantize_at == Level::Day),
            peak_plans,
            classes: catalog.classes.clone(),
            cycles: catalog.cycles.values().map(|cycle| cycle.calendar.clone()).collect(),
        }
    }

    /// Where entries are cut besides at whole hours and the edges of periods, ascending. **Errors**: the time leaves the
    /// calendar.
    pub fn cuts(&self, cycle: &BillCycle, from: Timestamp, until: Timestamp) -> Result<Vec<Timestamp>, CalendarError> {
        let mut cuts = window::edges(&self.windows, &cycle.zone, from, until)?;
        if self.by_day {
            cuts.extend(window::midnights(&cycle.zone, from, until)?);
        }
        // Every entry is cut at whole hours.
        cuts.retain(|cut| to_micros(*cut) % HOUR != 0);
        cuts.sort();
        cuts.dedup();
        Ok(cuts)
    }
}

/// Where the fold cuts what these accounts use in a period. What waits longer than a month was cut by the fold.
pub async fn flush_cuts(
    tx: &mut Tx,
    timetable: &Timetable,
    cycle: &BillCycle,
    period: &Period,
    account_ids: &[i64],
) -> Result<(Vec<Timestamp>, HashSet<i64>), StoreError> {
    let from = period.start.checked_sub((31 * 24).hours()).unwrap_or(period.start);
    let mut at = timetable.cuts(cycle, from, period.end).unwrap_or_default();
    at.extend([period.start, period.end]);
    at.sort();
    at.dedup();
    let plans: Vec<&str> = timetable.peak_plans.iter().map(String::as_str).collect();
    let fine = match plans.is_empty() {
        true => Vec::new(),
        false => fold::accounts_on_plans(tx, account_ids, &plans).await?,
    };
    Ok((at, fine.into_iter().map(|(account, _)| account).collect()))
}

/// The timetable of one version of a tenant's catalog, empty when there is no such version.
pub async fn of_catalog(tx: &mut Tx, tenant: &str, version: i64) -> Result<Timetable, StoreError> {
    let document: Option<String> =
        on!(tx, c => sqlx::query_scalar(DOCUMENT).bind(tenant).bind(version).fetch_optional(c).await)?;
    Ok(document.as_deref().map(timetable).unwrap_or_default())
}

/// The timetable of the tenant's catalog in force.
pub async fn in_force(tx: &mut Tx, tenant: &str) -> Result<Timetable, StoreError> {
    let known = versions(tx).await?.into_iter().find(|(id, _)| id == tenant);
    match known {
        Some((_, version)) => of_catalog(tx, tenant, version).await,
        None => Ok(Timetable::default()),
    }
}

/// The cycle an account follows now; `None` when its catalog does not know it any more.
pub async fn of_account(tx: &mut Tx, account_id: i64) -> Result<Option<BillCycle>, StoreError> {
    let found: Option<(String, i64, String)> =
        on!(tx, c => sqlx::query_as(OF_ACCOUNT).bind(account_id).fetch_optional(c).await)?;
    let Some((tenant, version, cycle)) = found else { return Ok(None) };
    Ok(of_catalog(tx, &tenant, version).await?.cycles.into_iter().find(|known| known.id == cycle))
}

/// A catalog was checked when it was applied; one that cannot be read any more has no cycles, and usage stays uncut.
fn timetable(document: &str) -> Timetable {
    let Ok(bundle) = serde_json::from_str::<Bundle>(document) else { return Default::default() };
    catalog::read(&bundle).map(|catalog| Timetable::of(&catalog)).unwrap_or_default()
}

const HOUR: i64 = 3_600_000_000;
