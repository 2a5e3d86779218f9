//! A tenant's catalog over HTTP: the one in force, and putting another in its place.

use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, READERS};
use super::problem::Problem;
use super::request::{Asked, BODY_MAX, octets};
use crate::catalog::{Bundle, read};
use crate::store::catalog::{Applied, ApplyError, apply, assess, in_force};
use crate::vocabulary::{Fault, Role};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show, put))
}

/// The catalog in force, with the texts it was applied from.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/catalog", params(("tenant" = String, Path)),
    responses((status = 200, description = "The catalog"), (status = 404, description = "No such tenant")))]
async fn show(State(app): State<App>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let mut tx = app.store.read().await?;
    let current = in_force(&mut tx, caller.tenant.as_str()).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(json!({
        "version": current.version,
        "digest": current.catalog.bundle.digest(),
        "applied_at": current.applied_at,
        "applied_by": current.applied_by,
        "main": current.catalog.bundle.main,
        "files": current.catalog.bundle.files,
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutQuery {
    #[serde(default)]
    dry_run: bool,
    /// What it changes in accounts waits for a rollout.
    #[serde(default)]
    hold: bool,
}

/// Puts a catalog in force: a TOML text, or JSON `{"main", "files"}` as GET shows it. All of it or nothing.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/catalog",
    params(("tenant" = String, Path), ("dry_run" = Option<bool>, Query), ("hold" = Option<bool>, Query)),
    request_body(content = String, content_type = "application/toml"),
    responses((status = 200, description = "The version in force and what changed"),
        (status = 422, description = "Every fault, each with its place")))]
async fn put(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<PutQuery>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    caller.may(&[Role::Admin])?;
    let octets = octets(request, BODY_MAX).await?;
    let text = std::str::from_utf8(&octets).map_err(|_| Problem::bad_request("The body is not UTF-8."))?;
    let bundle = match serde_json::from_str::<Bundle>(text) {
        Ok(bundle) => bundle,
        Err(_) => Bundle::single("catalog.toml", text),
    };
    let catalog = read(&bundle).map_err(Problem::invalid)?;
    if catalog.tenant != caller.tenant {
        let detail = format!("The catalog is of tenant {}, the address of {}.", catalog.tenant, caller.tenant);
        return Err(Problem::invalid(vec![Fault { pointer: bundle.main.clone(), detail }]));
    }
    let now = app.clock.now();
    let assessed = assess(&mut app.store.read().await?, &catalog, now).await.map_err(refused)?;
    if query.dry_run {
        return Ok(told(&assessed, true));
    }
    let mut tx = app.store.write().await?;
    let applied = apply(&mut tx, &catalog, assessed, query.hold, &caller.actor, now).await.map_err(refused)?;
    tx.commit().await?;
    Ok(told(&applied, false))
}

fn told(applied: &Applied, dry_run: bool) -> Json<Value> {
    Json(json!({ "version": applied.version, "dry_run": dry_run, "effect": applied.effect }))
}

fn refused(error: ApplyError) -> Problem {
    match error {
        ApplyError::Refused(faults) => Problem::invalid(faults),
        ApplyError::Store(error) => error.into(),
    }
}
