//! Jobs as TMF640's monitors: the list, and one.

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::services::{Pairs, account_of};
use super::{list, listing, selection, shown};
use crate::intake::App;
use crate::intake::caller::{Caller, Party, READERS};
use crate::intake::problem::Problem;
use crate::intake::request::{Asked, At};
use crate::store::Tx;
use crate::store::elements::ElementRow;
use crate::store::faces::{self, JobScope, Part, Stage};
use crate::store::jobs::JobRow;
use crate::tmf::{self, ItemId, Listing, MonitorState};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_all)).routes(routes!(show))
}

const FILTERS: [&str; 2] = ["state", "sourceHref"];

/// Jobs, the newest first: what is being brought into force, and what became of it. `sourceHref` is a service's.
#[utoipa::path(get, path = "/tmf-api/ServiceActivationAndConfiguration/v4/monitor",
    params(("fields" = Option<String>, Query), ("offset" = Option<i64>, Query), ("limit" = Option<i64>, Query),
        ("source" = Option<String>, Query), ("state" = Option<String>, Query), ("sourceHref" = Option<String>, Query)),
    responses((status = 200, description = "All that were asked for"), (status = 206, description = "A part of them")))]
async fn list_all(State(app): State<App>, party: Party, Asked(pairs): Asked<Pairs>) -> Result<Response, Problem> {
    let caller = party.caller()?;
    caller.may(READERS)?;
    let listing = listing(&pairs, &FILTERS)?;
    let mut tx = app.store.read_snapshot().await?;
    let search = search(&caller, &listing, &mut tx).await?;
    // A service's monitors are looked for among its account's.
    let by_database: &[&str] = if listing.value("sourceHref").is_some() { &[] } else { &["state"] };
    let by_database = if known_state(&listing) { by_database } else { &[] };
    list(search.map(super::Search::Monitors), &listing, by_database, app.clock.now(), &mut tx).await
}

fn known_state(listing: &Listing) -> bool {
    listing.value("state").is_none_or(|word| MonitorState::ALL.iter().any(|state| state.as_str() == word))
}

/// One monitor, by the id of its job.
#[utoipa::path(get, path = "/tmf-api/ServiceActivationAndConfiguration/v4/monitor/{monitor}",
    params(("monitor" = String, Path), ("fields" = Option<String>, Query)),
    responses((status = 200, description = "The monitor"), (status = 404, description = "No such monitor")))]
async fn show(
    State(app): State<App>,
    party: Party,
    At(id): At<String>,
    Asked(pairs): Asked<Pairs>,
) -> Result<Response, Problem> {
    let caller = party.caller()?;
    caller.may(READERS)?;
    let selection = selection(&pairs)?;
    let id: i64 = id.parse().map_err(|_| Problem::not_found())?;
    let found = faces::with_elements(&mut app.store.read_snapshot().await?, &[id]).await?.pop();
    let is_own = |job: &JobRow| {
        job.tenant == caller.tenant.as_str()
            && caller.source.as_ref().is_none_or(|source| job.source == source.as_str())
    };
    let (job, element) = found.filter(|(job, _)| is_own(job)).ok_or_else(Problem::not_found)?;
    Ok(shown(monitor(&job, &element, None), &selection))
}

/// A list of monitors.
pub(super) struct Search {
    scope: JobScope,
    /// The service they must serve.
    of: Option<ItemId>,
}

async fn search(caller: &Caller, listing: &Listing, tx: &mut Tx) -> Result<Option<Search>, Problem> {
    let stage = match listing.value("state") {
        Some("InProgress") => Stage::Open,
        Some("Completed") => Stage::Done,
        Some("InError") => Stage::Failed,
        _ => Stage::Any,
    };
    let mut scope = JobScope {
        tenant: caller.tenant.to_string(),
        source: caller.source(listing.source.as_deref())?.map(|source| source.to_string()),
        account_id: None,
        stage,
    };
    let Some(href) = listing.value("sourceHref") else { return Ok(Some(Search { scope, of: None })) };
    let Some(id) = ItemId::of_href(href) else { return Ok(None) };
    let source = Some(id.source.as_str());
    let Some(account_id) = account_of(caller, source, &id.account, tx).await? else { return Ok(None) };
    scope.account_id = Some(account_id);
    Ok(Some(Search { scope, of: Some(id) }))
}

impl Search {
    pub(super) async fn count(&self, tx: &mut Tx) -> Result<i64, Problem> {
        Ok(faces::count_jobs(tx, &self.scope).await?)
    }

    pub(super) async fn part(&self, part: Part, tx: &mut Tx) -> Result<Vec<Value>, Problem> {
        let rows = faces::jobs(tx, &self.scope, part).await?;
        Ok(rows.iter().map(|(job, element)| monitor(job, element, self.of.as_ref())).collect())
    }
}

/// A job's monitor; where it is looked for by one of several services, it is that one's.
fn monitor(job: &JobRow, element: &ElementRow, of: Option<&ItemId>) -> Value {
    let mut services = element.services.clone();
    services.sort_by_key(|service| of.is_none_or(|of| of.item != *service));
    let id = |service: String| {
        Some(ItemId { source: job.source.parse().ok()?, account: job.account.clone(), item: service })
    };
    let services: Vec<ItemId> = services.into_iter().filter_map(id).collect();
    let answer = job.last_error.as_deref().or(element.evidence.as_deref().filter(|_| job.finished_at.is_some()));
    let state = match Stage::of(job, element) {
        Stage::Done => MonitorState::Completed,
        Stage::Failed => MonitorState::InError,
        Stage::Any | Stage::Open => MonitorState::InProgress,
    };
    tmf::monitor(job.id, state, (element.kind, &element.key), job.target_revision, &services, answer)
}
