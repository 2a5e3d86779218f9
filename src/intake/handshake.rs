//! The handshake over HTTP: the hash of a tenant's services of a day, and the way down to the lines that differ.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, READERS};
use super::problem::Problem;
use super::request::Asked;
use crate::store::handshake::{HandshakeDay, HandshakeError, tree};
use crate::vocabulary::{Date, Zone};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(root)).routes(routes!(descend))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootQuery {
    on: Option<Date>,
    source: Option<String>,
    timezone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescendQuery {
    path: Option<String>,
    on: Option<Date>,
    source: Option<String>,
    timezone: Option<String>,
}

/// One hash over (service, plan, status) of every service at the end of the day `on`, yesterday unless named, in the tenant's
/// zone or `timezone`. Whoever has the same services computes the same hash; `provisional` says that the day is not over.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/handshake",
    params(("tenant" = String, Path), ("on" = Option<String>, Query), ("source" = Option<String>, Query),
        ("timezone" = Option<String>, Query)),
    responses((status = 200, description = "The root and how many services it is of")))]
async fn root(State(app): State<App>, caller: Caller, Asked(query): Asked<RootQuery>) -> Result<Json<Value>, Problem> {
    let day = day(&app, &caller, (query.on, query.source, query.timezone)).await?;
    Ok(Json(json!({
        "day": day.day, "timezone": day.timezone, "provisional": day.provisional, "rows": day.tree.len(),
        "root": day.tree.root(),
    })))
}

/// One node of the tree: its children, or its lines where they are few.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/handshake/descend",
    params(("tenant" = String, Path), ("path" = Option<String>, Query, description = "Hexadecimal digits; the root without"),
        ("on" = Option<String>, Query), ("source" = Option<String>, Query), ("timezone" = Option<String>, Query)),
    responses((status = 200, description = "The node"), (status = 400, description = "That is no path")))]
async fn descend(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<DescendQuery>,
) -> Result<Json<Value>, Problem> {
    let day = day(&app, &caller, (query.on, query.source, query.timezone)).await?;
    let node = day.tree.node(query.path.as_deref().unwrap_or_default());
    let node = node.ok_or_else(|| Problem::bad_request("path must be at most 64 hexadecimal digits."))?;
    let mut body = json!(node);
    body["day"] = json!(day.day);
    Ok(Json(body))
}

async fn day(
    app: &App,
    caller: &Caller,
    (on, source, timezone): (Option<Date>, Option<String>, Option<String>),
) -> Result<HandshakeDay, Problem> {
    caller.may(READERS)?;
    let source = caller.source(source.as_deref())?;
    let zone = timezone.map(|name| Zone::get(&name).map(|zone| (name, zone))).transpose();
    let zone = zone.map_err(|_| Problem::bad_request("timezone must be a name such as America/Chicago."))?;
    let source = source.as_ref().map(crate::vocabulary::SourceId::as_str);
    let mut tx = app.store.read_snapshot().await?;
    tree(&mut tx, caller.tenant.as_str(), source, on, zone, app.clock.now()).await.map_err(|error| match error {
        HandshakeError::NoTenant(_) => Problem::not_found(),
        HandshakeError::Day(_) | HandshakeError::Future => Problem::bad_request(format!("on: {error}.")),
        HandshakeError::Store(error) => error.into(),
    })
}
