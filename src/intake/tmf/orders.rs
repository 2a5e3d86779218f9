//! Orders of TMF640: a service made, changed, ended. Each becomes the account's document and goes the way of every push: the same
//! checks, walls and breaker.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderValue, LOCATION};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::services::{named, one};
use crate::account::{Conditions, Tags};
use crate::intake::App;
use crate::intake::accounts::{CHECKS_MAX, count, push};
use crate::intake::caller::{Caller, PUSHERS, Party};
use crate::intake::catalogs::TenantCatalog;
use crate::intake::deeds::Done;
use crate::intake::idempotency::{Once, again};
use crate::intake::problem::Problem;
use crate::intake::request::{Asked, At, Document};
use crate::store::accounts::{self, AccountRow};
use crate::tmf::{self, ACTIVATION, ItemId, Order};
use crate::vocabulary::{AccountKey, Fault, hex};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(change, remove))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceQuery {
    source: Option<String>,
}

/// Orders a service. A related party in the role customer, user, subscriber or account is its account, which is made where it is
/// not there; serviceSpecification is a plan of the catalog; characteristics are the fields of a service as accounts have them,
/// with `device` (the device itself, or its id) and, for a new account, `billCycle`.
#[utoipa::path(post, path = "/tmf-api/ServiceActivationAndConfiguration/v4/service",
    params(("source" = Option<String>, Query), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = serde_json::Value, description = "state, serviceSpecification, relatedParty, serviceCharacteristic; what else there is is kept"),
    responses((status = 201, description = "The service; its state is that of the network, so it is not active yet"),
        (status = 202, description = "Its source is only observed, so it was not made"),
        (status = 409, description = "It is there, or something it needs is held by another")))]
async fn create(
    State(app): State<App>,
    party: Party,
    once: Once,
    Asked(query): Asked<SourceQuery>,
    body: Document,
) -> Result<Response, Problem> {
    party.may(PUSHERS)?;
    let order = Order::read(&body.value, true).map_err(Problem::invalid)?;
    let caller = party.caller_for(order.tenant.as_ref())?;
    let asking = once.of(&body.octets);
    let tenant = caller.tenant.as_str();
    let account = order.account.as_ref().map_or("", |(id, _)| id.as_str());
    let key = caller.account(query.source.as_deref(), account)?;
    let item = match (&order.service, asking.derived()) {
        (Some(named), _) => named.clone(),
        (None, Some(derived)) => format!("s-{derived}"),
        (None, None) => new_id()?,
    };
    let id = ItemId { source: key.source.clone(), account: key.external_id.clone(), item };
    if let Some(kept) = asking.answered(&mut app.store.read().await?, tenant).await? {
        return Ok(located(again(kept), &id));
    }
    // The same request again, whose answer was lost with the daemon, finds what it made.
    let repeated = order.service.is_none();
    let now = app.clock.now();
    let made = settle(&app, &caller, &key, Some(&order), |row, catalog| {
        let known = row.map(|row| &row.document);
        match known.and_then(|account| account.service(&id.item)) {
            Some(_) if repeated => return Ok(None),
            Some(_) => {
                let detail = format!("The account has a service {} already; PATCH changes it.", id.item);
                return Err(Problem::conflict("service-exists", "The service exists", detail));
            }
            None => {}
        }
        order.document(known, &id.item, &catalog.known, now).map(Some).map_err(Problem::invalid)
    })
    .await?;
    let shown = shown(&app, &key, &id).await?;
    if let Some(done) = made.filter(is_waiting) {
        return Ok(waiting(shown, &id, &done));
    }
    let shown = shown.ok_or_else(Problem::not_found)?;
    let mut tx = app.store.write().await?;
    asking.keep(&mut tx, tenant, StatusCode::CREATED.as_u16(), &shown.to_string(), now).await?;
    tx.commit().await?;
    Ok(located((StatusCode::CREATED, Json(shown)).into_response(), &id))
}

/// Changes a service. What is not named stays; characteristics are changed by name, and one whose value is null goes. The state
/// `inactive` suspends, `active` resumes, `terminated` ends.
#[utoipa::path(patch, path = "/tmf-api/ServiceActivationAndConfiguration/v4/service/{service}",
    params(("service" = String, Path, description = "account:service")),
    request_body(content = serde_json::Value, description = "A merge patch of the service"),
    responses((status = 200, description = "The service; its state is that of the network, which may not know yet"),
        (status = 202, description = "It takes service away, as too many did before it: it waits for an operator"),
        (status = 404, description = "No such service"),
        (status = 409, description = "Something it needs is held by another")))]
async fn change(State(app): State<App>, party: Party, At(id): At<String>, body: Document) -> Result<Response, Problem> {
    party.may(PUSHERS)?;
    let order = Order::read(&body.value, false).map_err(Problem::invalid)?;
    let caller = party.caller_for(order.tenant.as_ref())?;
    let (id, key) = named(&caller, &id)?;
    stays(&order, &id)?;
    let now = app.clock.now();
    let done = settle(&app, &caller, &key, Some(&order), |row, catalog| {
        let known = row.map(|row| &row.document);
        known.and_then(|account| account.service(&id.item)).ok_or_else(Problem::not_found)?;
        order.document(known, &id.item, &catalog.known, now).map(Some).map_err(Problem::invalid)
    })
    .await?;
    let shown = shown(&app, &key, &id).await?;
    if let Some(done) = done.filter(is_waiting) {
        return Ok(waiting(shown, &id, &done));
    }
    Ok(uncached(Json(shown.ok_or_else(Problem::not_found)?).into_response()))
}

/// Ends a service and takes it off its account, with the device that nothing else needs.
#[utoipa::path(delete, path = "/tmf-api/ServiceActivationAndConfiguration/v4/service/{service}",
    params(("service" = String, Path, description = "account:service")),
    responses((status = 204, description = "It is gone"),
        (status = 202, description = "It waits for an operator, since too much was taken away"),
        (status = 404, description = "No such service")))]
async fn remove(State(app): State<App>, party: Party, At(id): At<String>) -> Result<Response, Problem> {
    party.may(PUSHERS)?;
    let caller = party.caller()?;
    let (id, key) = named(&caller, &id)?;
    let done = settle(&app, &caller, &key, None, |row, _| {
        let known = row.map(|row| &row.document).filter(|account| account.service(&id.item).is_some());
        let account = known.ok_or_else(Problem::not_found)?;
        Ok(Some((tmf::without(account, &id.item), 0)))
    })
    .await?;
    match done.filter(is_waiting) {
        Some(done) => Ok(waiting(shown(&app, &key, &id).await?, &id, &done)),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// Reads an account, lets `plan` say what it must be, and pushes that, again where the account changed meanwhile. `None`: there
/// was nothing to push.
async fn settle(
    app: &App,
    caller: &Caller,
    key: &AccountKey,
    order: Option<&Order>,
    plan: impl Fn(Option<&AccountRow>, &TenantCatalog) -> Result<Option<(Value, usize)>, Problem>,
) -> Result<Option<Done>, Problem> {
    let mut outcome = Err(Problem::unavailable("The account is changing; send it again."));
    for _ in 0..CHECKS_MAX {
        let mut tx = app.store.read().await?;
        let row = accounts::find(&mut tx, key).await?.filter(|row| row.closed_at.is_none());
        let catalog = app.catalogs.current(&mut tx, &key.tenant).await?;
        drop(tx);
        let Some((document, place)) = plan(row.as_ref(), &catalog)? else { return Ok(None) };
        let conditions = match row {
            Some(row) => Conditions { if_match: Some(Tags::Listed(vec![row.etag])), if_none_match: None },
            None => Conditions { if_match: None, if_none_match: Some(Tags::Any) },
        };
        let told = |problem: Problem| match order {
            Some(order) => problem.repointed(|pointer| order.pointer(place, pointer)),
            None => problem,
        };
        outcome = push(app, caller, key, &document, &conditions).await.map_err(told);
        if !overtaken(&outcome) {
            break;
        }
    }
    count(app, &outcome);
    match overtaken(&outcome) {
        true => Err(Problem::unavailable("The account is changing; send it again.")),
        false => outcome.map(Some),
    }
}

fn overtaken(outcome: &Result<Done, Problem>) -> bool {
    outcome.as_ref().is_err_and(|problem| problem.status() == StatusCode::PRECONDITION_FAILED)
}

/// A change goes to the service of the address and leaves it with its account.
fn stays(order: &Order, id: &ItemId) -> Result<(), Problem> {
    let mut faults = Vec::new();
    let mut fault = |pointer: &str, detail: String| faults.push(Fault { pointer: pointer.to_owned(), detail });
    if order.service.as_ref().is_some_and(|named| *named != id.item) {
        fault("/id", "cannot be changed".to_owned());
    }
    if order.account.as_ref().is_some_and(|(account, _)| *account != id.account) {
        fault("/relatedParty", format!("names another account than {}, to which the service belongs", id.account));
    }
    if faults.is_empty() { Ok(()) } else { Err(Problem::invalid(faults)) }
}

async fn shown(app: &App, key: &AccountKey, id: &ItemId) -> Result<Option<Value>, Problem> {
    one(key, id, ACTIVATION, app.clock.now(), &mut app.store.read_snapshot().await?).await
}

/// Whether nothing was done yet: an operator decides, or the source is only observed.
fn is_waiting(done: &Done) -> bool {
    matches!(done.outcome, "held" | "observed" | "stale")
}

/// The service as it is, with a note of what was not done.
fn waiting(shown: Option<Value>, id: &ItemId, done: &Done) -> Response {
    let note = match done.body["held"]["id"].as_str() {
        Some(held) => format!("Not done yet: it takes service away and waits for an operator as held change {held}."),
        None => "Not done: this billing system is only observed.".to_owned(),
    };
    let mut body = shown.unwrap_or_else(|| json!({ "id": id.to_string(), "href": id.href(), "@type": "Service" }));
    let note = json!({ "text": note, "author": "lastmile", "@type": "Note" });
    match body["note"].as_array_mut() {
        Some(notes) => notes.push(note),
        None => body["note"] = json!([note]),
    }
    uncached((StatusCode::ACCEPTED, Json(body)).into_response())
}

fn located(mut response: Response, id: &ItemId) -> Response {
    if let Ok(href) = HeaderValue::from_str(&id.href()) {
        response.headers_mut().insert(LOCATION, href);
    }
    uncached(response)
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An id for a service whose sender has none for it.
fn new_id() -> Result<String, Problem> {
    let mut octets = [0u8; 8];
    getrandom::fill(&mut octets).map_err(|error| {
        tracing::error!("The system has no randomness: {error}. A service got no id.");
        Problem::internal()
    })?;
    Ok(format!("s-{}", hex(octets)))
}
