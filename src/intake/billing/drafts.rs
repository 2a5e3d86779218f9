//! Drafts over HTTP: check, approve, discard; findings and their waivers; corrections that policy holds back.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::super::caller::{BILLERS, Caller, READERS};
use super::super::problem::Problem;
use super::super::request::{Asked, At, Document};
use super::orders::PeriodOrder;
use super::{BillAsk, note};
use crate::store::findings::{self, Place};
use crate::store::{catalog, held};
use crate::vocabulary::Timestamp;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(check))
        .routes(routes!(approve))
        .routes(routes!(discard))
        .routes(routes!(list_findings))
        .routes(routes!(waive))
        .routes(routes!(list_held))
}

/// Looks at what a person must know before a period's bills go out. A draft without open findings becomes checked.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/bill-checks", params(("tenant" = String, Path)),
    request_body(content = serde_json::Value, description = "cycle, period (its first day or month)"),
    responses((status = 200, description = "passed, and every finding with subject, numbers and what to do"),
        (status = 404, description = "No such cycle"), (status = 422, description = "Every fault of the body")))]
async fn check(State(app): State<App>, caller: Caller, body: Document) -> Result<Json<Value>, Problem> {
    caller.may(BILLERS)?;
    let asked = PeriodOrder::read(&body.value, false)?;
    let tenant = caller.tenant.to_string();
    let cycle = asked.cycle.clone();
    let checked = app.biller.ask(BillAsk::Check { tenant, cycle: asked.cycle, period: asked.period }).await?;
    // A draft without open findings is a checked one from now on.
    let mut tx = app.store.write().await?;
    let detail = json!({ "batch": checked["batch"], "passed": checked["passed"] });
    note(&mut tx, &caller, "bill.check", &cycle, &detail, app.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(checked))
}

/// Approves a checked draft: it is closed, and its lines are pulled from here on. Again is no fault.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/batches/{id}/approve",
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "The batch"), (status = 404, description = "No such batch"),
        (status = 409, description = "It is no checked draft")))]
async fn approve(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
) -> Result<Json<Value>, Problem> {
    caller.may(BILLERS)?;
    let (tenant, by) = (caller.tenant.to_string(), caller.actor.clone());
    Ok(Json(app.biller.ask(BillAsk::Approve { tenant, batch: path.1, by }).await?))
}

/// Throws a draft away. The next run makes a new one.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/batches/{id}/discard",
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "It is gone"), (status = 404, description = "No such batch"),
        (status = 409, description = "It is no draft")))]
async fn discard(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
) -> Result<Json<Value>, Problem> {
    caller.may(BILLERS)?;
    let tenant = caller.tenant.to_string();
    let discarded = app.biller.ask(BillAsk::Discard { tenant, batch: path.1.clone() }).await?;
    let mut tx = app.store.write().await?;
    note(&mut tx, &caller, "bill.discard", &path.1, &json!({}), app.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(discarded))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeriodQuery {
    cycle: String,
    period: Option<String>,
}

/// What the last check and the last comparison of a period found, waived or not.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/bill-findings",
    params(("tenant" = String, Path), ("cycle" = String, Query), ("period" = Option<String>, Query)),
    responses((status = 200, description = "The findings"), (status = 404, description = "No such cycle")))]
async fn list_findings(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<PeriodQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let mut tx = app.store.read().await?;
    let in_force = catalog::in_force(&mut tx, caller.tenant.as_str()).await?.ok_or_else(Problem::not_found)?;
    let cycle = in_force.catalog.cycles.get(&query.cycle).ok_or_else(Problem::not_found)?;
    let period = match &query.period {
        Some(name) => cycle.calendar.named(name),
        None => cycle.calendar.latest_ended(app.clock.now()),
    };
    let period = period.map_err(|error| Problem::bad_request(error.to_string()))?;
    let place = Place { tenant: caller.tenant.as_str(), cycle: &query.cycle, period_start: period.start };
    let found = findings::list(&mut tx, place, None, Timestamp::UNIX_EPOCH, LIST_MAX).await?;
    Ok(Json(json!({ "items": found, "next": null })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WaiveBody {
    reason: String,
}

/// Lives with a finding, and says why.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/bill-findings/{id}/waive",
    params(("tenant" = String, Path), ("id" = String, Path)),
    request_body(content = serde_json::Value, description = "reason"),
    responses((status = 200, description = "It is waived"), (status = 404, description = "No such finding")))]
async fn waive(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    body: Document,
) -> Result<Json<Value>, Problem> {
    caller.may(BILLERS)?;
    let asked: WaiveBody =
        serde_json::from_value(body.value).map_err(|error| Problem::bad_request(error.to_string()))?;
    if asked.reason.trim().is_empty() {
        return Err(Problem::bad_request("reason must say why."));
    }
    let mut tx = app.store.write().await?;
    let tenant = Some(caller.tenant.as_str());
    let waived = findings::waive(&mut tx, tenant, &path.1, &caller.actor, &asked.reason, app.clock.now()).await?;
    tx.commit().await?;
    if !waived {
        return Err(Problem::not_found());
    }
    Ok(Json(json!({ "waived": path.1, "by": caller.actor, "reason": asked.reason })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldQuery {
    cycle: Option<String>,
}

/// Corrections that the tenant's policy keeps off the invoices.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/held-corrections",
    params(("tenant" = String, Path), ("cycle" = Option<String>, Query)),
    responses((status = 200, description = "The corrections")))]
async fn list_held(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<HeldQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let mut tx = app.store.read().await?;
    let rows = held::list(&mut tx, caller.tenant.as_str(), query.cycle.as_deref(), None, LIST_MAX).await?;
    let item = |held: &held::HeldCorrection| {
        json!({
            "source": held.source, "account": held.account, "cycle": held.cycle, "service": held.service,
            "charge": held.charge, "tariff": held.tariff, "period": held.period, "amount": held.amount.to_string(),
            "currency": held.amount.currency, "reason": held.reason, "held_at": held.held_at, "batch": held.batch,
        })
    };
    Ok(Json(json!({ "items": rows.iter().map(item).collect::<Vec<_>>(), "next": null })))
}

/// Rows of an answer.
const LIST_MAX: i64 = 10_000;
