//! Invoice lines and bill cycles as TMF678 reads them.

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::services::{Pairs, account_of};
use super::{list, listed, listing, selection, shown};
use crate::billing::lines::StoredLine;
use crate::catalog::{Close, Cycle};
use crate::intake::App;
use crate::intake::caller::{Party, READERS};
use crate::intake::problem::Problem;
use crate::intake::request::{Asked, At};
use crate::store::faces::{self, LineScope, Part};
use crate::store::{Tx, billing, catalog};
use crate::tmf;
use crate::vocabulary::{SourceId, Timestamp};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_rates))
        .routes(routes!(show_rate))
        .routes(routes!(list_cycles))
        .routes(routes!(show_cycle))
}

const RATE_FILTERS: [&str; 9] = [
    "billingAccount.id",
    "name",
    "type",
    "isBilled",
    "date",
    "periodCoverage.startDateTime",
    "periodCoverage.endDateTime",
    "product.id",
    "taxExcludedAmount.value",
];
const CYCLE_FILTERS: [&str; 3] = ["id", "name", "billingPeriod"];

/// Lines of closed batches, in the order in which the batches were closed; `billingAccount.id` is the account's.
#[utoipa::path(get, path = "/tmf-api/customerBillManagement/v4/appliedCustomerBillingRate",
    params(("fields" = Option<String>, Query), ("offset" = Option<i64>, Query), ("limit" = Option<i64>, Query),
        ("source" = Option<String>, Query), ("billingAccount.id" = Option<String>, Query),
        ("name" = Option<String>, Query), ("type" = Option<String>, Query), ("isBilled" = Option<bool>, Query),
        ("date" = Option<String>, Query), ("periodCoverage.startDateTime" = Option<String>, Query),
        ("periodCoverage.endDateTime" = Option<String>, Query), ("product.id" = Option<String>, Query),
        ("taxExcludedAmount.value" = Option<String>, Query)),
    responses((status = 200, description = "All that were asked for"), (status = 206, description = "A part of them")))]
async fn list_rates(State(app): State<App>, party: Party, Asked(pairs): Asked<Pairs>) -> Result<Response, Problem> {
    let caller = party.caller()?;
    caller.may(READERS)?;
    let listing = listing(&pairs, &RATE_FILTERS)?;
    let mut tx = app.store.read_snapshot().await?;
    let mut scope = LineScope {
        tenant: caller.tenant.to_string(),
        source: caller.source(listing.source.as_deref())?.map(|source| source.to_string()),
        account_id: None,
    };
    let search = match listing.value("billingAccount.id") {
        None => Some(Search { scope }),
        Some(id) => account_of(&caller, listing.source.as_deref(), id, &mut tx).await?.map(|account_id| {
            scope.account_id = Some(account_id);
            Search { scope }
        }),
    };
    list(search.map(super::Search::Rates), &listing, &["billingAccount.id"], app.clock.now(), &mut tx).await
}

/// One line of a closed batch.
#[utoipa::path(get, path = "/tmf-api/customerBillManagement/v4/appliedCustomerBillingRate/{line}",
    params(("line" = String, Path), ("fields" = Option<String>, Query)),
    responses((status = 200, description = "The line"), (status = 404, description = "No such line")))]
async fn show_rate(
    State(app): State<App>,
    party: Party,
    At(id): At<String>,
    Asked(pairs): Asked<Pairs>,
) -> Result<Response, Problem> {
    let caller = party.caller()?;
    caller.may(READERS)?;
    let selection = selection(&pairs)?;
    let found = billing::line(&mut app.store.read().await?, &id).await?.map(|(_, stored)| stored);
    let is_own = |stored: &StoredLine| {
        stored.line.tenant == caller.tenant.as_str()
            && caller.source.as_ref().is_none_or(|source| stored.basis.source == source.as_str())
    };
    let stored = found.filter(is_own).ok_or_else(Problem::not_found)?;
    Ok(shown(rate(&stored), &selection))
}

/// The bill cycles of the catalog, each with its running period.
#[utoipa::path(get, path = "/tmf-api/customerBillManagement/v4/billCycle",
    params(("fields" = Option<String>, Query), ("offset" = Option<i64>, Query), ("limit" = Option<i64>, Query),
        ("id" = Option<String>, Query), ("name" = Option<String>, Query), ("billingPeriod" = Option<String>, Query)),
    responses((status = 200, description = "All that were asked for"), (status = 206, description = "A part of them")))]
async fn list_cycles(State(app): State<App>, party: Party, Asked(pairs): Asked<Pairs>) -> Result<Response, Problem> {
    let caller = party.caller()?;
    caller.may(READERS)?;
    let listing = listing(&pairs, &CYCLE_FILTERS)?;
    let known = catalog::in_force(&mut app.store.read().await?, caller.tenant.as_str()).await?;
    let cycles = known.into_iter().flat_map(|known| known.catalog.cycles.into_values());
    let mut taken: Vec<Value> = Vec::new();
    for found in cycles {
        taken.extend(cycle(&found, app.clock.now()).filter(|shown| listing.takes(shown)));
    }
    let total = i64::try_from(taken.len()).unwrap_or(i64::MAX);
    let skipped = usize::try_from(listing.offset).unwrap_or(usize::MAX);
    let most = usize::try_from(listing.limit).unwrap_or(usize::MAX);
    Ok(listed(taken.into_iter().skip(skipped).take(most).collect(), total, &listing))
}

/// One bill cycle with its running period.
#[utoipa::path(get, path = "/tmf-api/customerBillManagement/v4/billCycle/{cycle}",
    params(("cycle" = String, Path), ("fields" = Option<String>, Query)),
    responses((status = 200, description = "The cycle"), (status = 404, description = "No such cycle")))]
async fn show_cycle(
    State(app): State<App>,
    party: Party,
    At(id): At<String>,
    Asked(pairs): Asked<Pairs>,
) -> Result<Response, Problem> {
    let caller = party.caller()?;
    caller.may(READERS)?;
    let selection = selection(&pairs)?;
    let known = catalog::in_force(&mut app.store.read().await?, caller.tenant.as_str()).await?;
    let found = known.and_then(|known| cycle(known.catalog.cycles.get(&id)?, app.clock.now()));
    Ok(shown(found.ok_or_else(Problem::not_found)?, &selection))
}

/// `None`: its time leaves the calendar.
fn cycle(cycle: &Cycle, now: Timestamp) -> Option<Value> {
    let closes = match cycle.close {
        Close::Manual => "by a person",
        Close::Auto => "by itself",
    };
    tmf::cycle(&cycle.calendar, closes, now).ok()
}

fn rate(stored: &StoredLine) -> Value {
    let source: SourceId = stored.basis.source.parse().unwrap_or_default();
    tmf::rate(&stored.line, &source)
}

/// Lines.
pub(super) struct Search {
    scope: LineScope,
}

impl Search {
    pub(super) async fn count(&self, tx: &mut Tx) -> Result<i64, Problem> {
        Ok(faces::count_lines(tx, &self.scope).await?)
    }

    pub(super) async fn part(&self, part: Part, tx: &mut Tx) -> Result<Vec<Value>, Problem> {
        Ok(faces::lines(tx, &self.scope, part).await?.iter().map(rate).collect())
    }
}
