//! Devices over HTTP: each modem with its desired, offered and fetched revision and the file it must be given.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, HANDLERS, READERS};
use super::idempotency::{Once, again};
use super::problem::Problem;
use super::request::{Asked, At, OptionalDocument, cursor, limit, page};
use crate::store::devices::{Whose, ask_reset, details};
use crate::store::leases;
use crate::store::plant::{DeviceFilter, devices};
use crate::vocabulary::{MacAddress, SourceId};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(reset))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceQuery {
    account: Option<String>,
    source: Option<String>,
    /// In any of the usual spellings.
    mac: Option<String>,
    /// Instead devices that asked and that no account has; for who may see every tenant's.
    unknown: Option<bool>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// One device with everything known of it: its evidence, the last reset, its levels and what they mean.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/devices/{mac}",
    params(("tenant" = String, Path), ("mac" = String, Path)),
    responses((status = 200, description = "The device"), (status = 404, description = "No account has it")))]
async fn show(State(app): State<App>, caller: Caller, At(path): At<(String, String)>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let mac: MacAddress = path.1.parse().map_err(|_| Problem::not_found())?;
    let source = caller.source(None)?.map(|source| source.to_string());
    let filter = DeviceFilter {
        tenant: Some(caller.tenant.to_string()),
        source,
        mac: Some(mac),
        limit: 1,
        ..DeviceFilter::default()
    };
    let mut tx = app.store.read().await?;
    let device = devices(&mut tx, app.store.sealer(), &filter).await?.pop().ok_or_else(Problem::not_found)?;
    let details = details(&mut tx, device.id).await?;
    let mut shown = json!(device);
    if let (Some(shown), Value::Object(details)) = (shown.as_object_mut(), json!(details)) {
        shown.extend(details);
    }
    Ok(Json(shown))
}

/// Makes a device boot, whatever it runs; its job sends the reset. With voice it waits for a silent line.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/devices/{mac}/reset",
    params(("tenant" = String, Path), ("mac" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, description = "The job that resets it"), (status = 404, description = "No account has it")))]
async fn reset(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    once: Once,
    OptionalDocument(body): OptionalDocument,
) -> Result<Response, Problem> {
    caller.may(HANDLERS)?;
    body.nothing()?;
    let asking = once.of(&body.octets);
    let mac: MacAddress = path.1.parse().map_err(|_| Problem::not_found())?;
    let whose = Whose { tenant: Some(caller.tenant.as_str()), source: caller.source.as_ref().map(SourceId::as_str) };
    let now = app.clock.now();
    let mut tx = app.store.write().await?;
    if let Some(kept) = asking.answered(&mut tx, caller.tenant.as_str()).await? {
        return Ok(again(kept));
    }
    let asked = ask_reset(&mut tx, mac, whose, &caller.actor, now).await?;
    let (_, job) = asked.ok_or_else(Problem::not_found)?;
    let answer = json!({ "mac": mac.to_string(), "job": job.to_string() });
    let status = StatusCode::ACCEPTED;
    asking.keep(&mut tx, caller.tenant.as_str(), status.as_u16(), &answer.to_string(), now).await?;
    tx.commit().await?;
    Ok((status, Json(answer)).into_response())
}

/// Devices of the tenant, in the order they came.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/devices", responses((status = 200, description = "A page of devices")),
    params(("tenant" = String, Path), ("account" = Option<String>, Query), ("source" = Option<String>, Query),
        ("mac" = Option<String>, Query), ("unknown" = Option<bool>, Query), ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<DeviceQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    if query.unknown == Some(true) {
        return unknown(&app, &query, limit).await;
    }
    let mac: Option<MacAddress> = query
        .mac
        .map(|text| text.parse())
        .transpose()
        .map_err(|error| Problem::bad_request(format!("mac: {error}.")))?;
    // An account is named within its source, which is `default` unless said otherwise; without one the list spans all.
    let (source, account) = match &query.account {
        Some(id) => {
            let key = caller.account(query.source.as_deref(), id)?;
            (Some(key.source), Some(key.external_id))
        }
        None => (caller.source(query.source.as_deref())?, None),
    };
    let filter = DeviceFilter {
        tenant: Some(caller.tenant.to_string()),
        source: source.map(|source| source.to_string()),
        account,
        mac,
        after: cursor(query.cursor.as_deref())?.unwrap_or(0),
        limit,
    };
    let mut tx = app.store.read().await?;
    let listed = devices(&mut tx, app.store.sealer(), &filter).await?;
    let last = listed.last().map(|device| device.id.to_string());
    let shown = listed.iter().map(|device| json!(device)).collect();
    Ok(Json(page(shown, limit, last)))
}

/// What asked and belongs to no account: whichever tenant sells the subscriber, it is found here.
async fn unknown(app: &App, query: &DeviceQuery, limit: i64) -> Result<Json<Value>, Problem> {
    if query.account.is_some() || query.source.is_some() || query.mac.is_some() {
        return Err(Problem::bad_request(
            "unknown: such devices have no account, source or known MAC to ask by.".to_owned(),
        ));
    }
    let after = query.cursor.clone().unwrap_or_default();
    let mut tx = app.store.read().await?;
    let listed = leases::unknown(&mut tx, &after, limit).await?;
    let last = listed.last().map(|device| device.mac.clone());
    let shown = listed.iter().map(|device| json!(device)).collect();
    Ok(Json(page(shown, limit, last)))
}
