//! The hub of TMF640: listeners are the tenant's webhooks, told in TM Forum's envelope. The same guard of addresses, the same
//! signatures and attempts; what waits for them and what was given up stands with the other webhooks.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, LOCATION};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::intake::App;
use crate::intake::caller::{ADMINS, Party};
use crate::intake::idempotency::{Once, again};
use crate::intake::problem::Problem;
use crate::intake::request::{At, Document};
use crate::intake::webhooks::{NewBody, register, unregister};
use crate::store::outlets::{OutletRow, Shape};
use crate::tmf::{ACTIVATION, listens_to};
use crate::vocabulary::Fault;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(remove))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscription {
    callback: String,
    query: Option<String>,
}

/// Registers a listener for what happens from now on. The answer holds, once, the secret its deliveries are signed with (Standard
/// Webhooks).
#[utoipa::path(post, path = "/tmf-api/ServiceActivationAndConfiguration/v4/hub",
    params(("Idempotency-Key" = Option<String>, Header)),
    request_body(content = serde_json::Value,
        description = "callback (https, on the public Internet), query (eventType=NAME,NAME; absent: every event)"),
    responses((status = 201, description = "The subscription, with its secret"),
        (status = 409, description = "The tenant has as many as it may")))]
async fn create(State(app): State<App>, party: Party, once: Once, body: Document) -> Result<Response, Problem> {
    let caller = party.caller()?;
    caller.may(ADMINS)?;
    let asking = once.of(&body.octets);
    if let Some(kept) = asking.answered(&mut app.store.read().await?, caller.tenant.as_str()).await? {
        return Ok(again(kept));
    }
    let asked: Subscription =
        serde_json::from_value(body.value).map_err(|error| Problem::bad_request(error.to_string()))?;
    let query = asked.query.unwrap_or_default();
    let listened =
        listens_to(&query).map_err(|detail| Problem::invalid(vec![Fault { pointer: "/query".to_owned(), detail }]))?;
    let new = NewBody { url: asked.callback, types: listened.types, description: query, secret: None };
    let registered = register(&app, &caller, new, Shape::Tmf, &asking, shown).await;
    let registered = registered.map_err(|problem| problem.repointed(pointer))?;
    let href = format!("{ACTIVATION}/hub/{}", registered["id"].as_str().unwrap_or_default());
    let mut response = (StatusCode::CREATED, Json(registered)).into_response();
    if let Ok(href) = HeaderValue::from_str(&href) {
        response.headers_mut().insert(LOCATION, href);
    }
    Ok(response)
}

/// Takes a listener away, with everything that waits for it.
#[utoipa::path(delete, path = "/tmf-api/ServiceActivationAndConfiguration/v4/hub/{listener}",
    params(("listener" = String, Path)),
    responses((status = 204, description = "It is gone"), (status = 404, description = "No such listener")))]
async fn remove(State(app): State<App>, party: Party, At(id): At<String>) -> Result<StatusCode, Problem> {
    let caller = party.caller()?;
    caller.may(ADMINS)?;
    unregister(&app, &caller, &id, |row| row.shape == Shape::Tmf).await
}

fn shown(row: &OutletRow) -> Value {
    let mut shown = json!({ "id": row.id, "callback": row.url, "@type": "EventSubscription" });
    if !row.description.is_empty() {
        shown["query"] = json!(row.description);
    }
    shown
}

/// The pointers of a webhook as those of a subscription.
fn pointer(pointer: &str) -> String {
    match pointer {
        "/url" => "/callback".to_owned(),
        _ => "/query".to_owned(),
    }
}
