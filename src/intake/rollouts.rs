//! Rollouts over HTTP: counted, begun, followed, stopped, taken back.
//!
//! Behind which CMTS a modem is, and how many of its modems may boot in a minute, is the configuration's; `Network` is how
//! the daemon lends it to this room.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, OPERATORS, READERS};
use super::idempotency::{Once, again};
use super::problem::Problem;
use super::request::{Asked, At, Document, OptionalDocument, cursor, limit, page};
use crate::provision::{Phase, RolloutMode, RolloutPolicy};
use crate::store::rollout_scope::{Choice, Which, choose};
use crate::store::rollouts::{self, NewRollout, Rollout, RolloutFilter, Turn};
use crate::vocabulary::MacAddress;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, start))
        .routes(routes!(show))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(cancel))
        .routes(routes!(rollback))
}

/// The CMTS of the installation as this room sees them.
#[derive(Clone)]
pub struct Network {
    /// The name of the CMTS behind which an address is.
    pub cmts_of: Arc<dyn Fn(IpAddr) -> Option<String> + Send + Sync>,
    /// Modems that may boot in a minute behind the CMTS that bears least; `None`: none is configured.
    pub resets_per_minute: Arc<dyn Fn() -> Option<u32> + Send + Sync>,
}

impl Default for Network {
    /// Without a CMTS.
    fn default() -> Self {
        Self { cmts_of: Arc::new(|_| None), resets_per_minute: Arc::new(|| None) }
    }
}

/// Which modems, and how; what is absent is as in `lastmile rollout start`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    /// `held`, `behind` or `all`; without it `macs` says which.
    which: Option<Which>,
    plan: Option<String>,
    model: Option<String>,
    cmts: Option<String>,
    #[serde(default)]
    macs: Vec<String>,
    mode: Option<RolloutMode>,
    canary: Option<u32>,
    per_minute: Option<u32>,
    halt_percent: Option<u32>,
    back_within_seconds: Option<u32>,
    #[serde(default)]
    in_window: bool,
    reason: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RolloutQuery {
    state: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberQuery {
    phase: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

const REASON_MAX: usize = 200;
const USUAL_REASON: &str = "by an operator";

/// Rollouts of the tenant, the newest first.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/rollouts",
    params(("tenant" = String, Path), ("state" = Option<String>, Query), ("limit" = Option<i64>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of rollouts with their counts")))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<RolloutQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    whole_tenant(&caller)?;
    let limit = limit(query.limit)?;
    let filter = RolloutFilter {
        tenant: Some(caller.tenant.to_string()),
        state: query.state,
        before: cursor(query.cursor.as_deref())?,
        limit,
        ..RolloutFilter::default()
    };
    let listed = rollouts::list(&mut app.store.read().await?, &filter).await?;
    let last = listed.last().map(|rollout| rollout.id.to_string());
    Ok(Json(page(listed.iter().map(shown).collect(), limit, last)))
}

/// Begins a rollout over the modems that are named, or with `dry_run` counts them: modems, boots, voice, by CMTS.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/rollouts",
    params(("tenant" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = serde_json::Value, description = "which (held, behind, all) or macs; plan, model, cmts; mode \
        (next_boot, reset, reset_all), canary, per_minute, halt_percent, back_within_seconds, in_window, reason, dry_run"),
    responses((status = 200, description = "Counted; nothing is begun, or no modem is concerned"),
        (status = 201, description = "Begun: its id and its scope")))]
async fn start(State(app): State<App>, caller: Caller, once: Once, body: Document) -> Result<Response, Problem> {
    caller.may(OPERATORS)?;
    whole_tenant(&caller)?;
    let asking = once.of(&body.octets);
    if let Some(kept) = asking.answered(&mut app.store.read().await?, caller.tenant.as_str()).await? {
        return Ok(again(kept));
    }
    let asked: StartBody =
        serde_json::from_value(body.value).map_err(|error| Problem::bad_request(format!("{error}.")))?;
    let choice = choice(&asked)?;
    let policy = policy(&asked, (app.network.resets_per_minute)())?;
    let reason = reason(asked.reason)?;
    let (members, scope) =
        choose(&app.store, caller.tenant.as_str(), &choice, policy.mode, app.network.cmts_of.as_ref()).await?;
    if asked.dry_run || members.is_empty() {
        let nothing = json!({ "id": null, "dry_run": asked.dry_run, "scope": scope });
        return Ok((StatusCode::OK, Json(nothing)).into_response());
    }
    let new = NewRollout { tenant: caller.tenant.as_str(), reason: &reason, policy: &policy, by: &caller.actor };
    let now = app.clock.now();
    let mut tx = app.store.write().await?;
    let id = rollouts::begin(&mut tx, &new, &members, now).await?.ok_or_else(Problem::not_found)?;
    let answer = json!({ "id": id.to_string(), "dry_run": false, "scope": scope });
    let status = StatusCode::CREATED;
    asking.keep(&mut tx, caller.tenant.as_str(), status.as_u16(), &answer.to_string(), now).await?;
    tx.commit().await?;
    Ok((status, Json(answer)).into_response())
}

/// A rollout with its policy and counts, and a page of its devices; `phase` narrows them.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/rollouts/{rollout}",
    params(("tenant" = String, Path), ("rollout" = String, Path), ("phase" = Option<String>, Query),
        ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "The rollout; `members` is a page"), (status = 404, description = "No such rollout")))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<MemberQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    whole_tenant(&caller)?;
    let limit = limit(query.limit)?;
    let phase: Option<Phase> =
        query.phase.map(|text| text.parse()).transpose().map_err(|error| Problem::bad_request(format!("{error}.")))?;
    let after = cursor(query.cursor.as_deref())?;
    let mut tx = app.store.read().await?;
    let filter = RolloutFilter {
        tenant: Some(caller.tenant.to_string()),
        id: Some(path.1.parse().map_err(|_| Problem::not_found())?),
        ..RolloutFilter::default()
    };
    let rollout = rollouts::list(&mut tx, &filter).await?.pop().ok_or_else(Problem::not_found)?;
    let members = rollouts::members(&mut tx, rollout.id, phase, after, limit).await?;
    let last = members.last().map(|member| member.position.to_string());
    let mut answer = shown(&rollout);
    answer["members"] = page(members.iter().map(|member| json!(member)).collect(), limit, last);
    Ok(Json(answer))
}

/// Stops moving devices for now; what is under way ends.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/rollouts/{rollout}/pause",
    params(("tenant" = String, Path), ("rollout" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, description = "The rollout, paused"), (status = 404, description = "No such rollout"),
        (status = 409, description = "It does not run")))]
async fn pause(
    State(app): State<App>,
    caller: Caller,
    at: At<(String, String)>,
    once: Once,
    body: OptionalDocument,
) -> Result<Response, Problem> {
    turn(&app, &caller, &at, once, body, Turn::Pause).await
}

/// Goes on with a paused or halted rollout.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/rollouts/{rollout}/resume",
    params(("tenant" = String, Path), ("rollout" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, description = "The rollout, running"), (status = 404, description = "No such rollout"),
        (status = 409, description = "It neither pauses nor was halted")))]
async fn resume(
    State(app): State<App>,
    caller: Caller,
    at: At<(String, String)>,
    once: Once,
    body: OptionalDocument,
) -> Result<Response, Problem> {
    turn(&app, &caller, &at, once, body, Turn::Resume).await
}

/// Ends a rollout; the devices it has not reached stay as they are.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/rollouts/{rollout}/cancel",
    params(("tenant" = String, Path), ("rollout" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, description = "The rollout, cancelled"), (status = 404, description = "No such rollout"),
        (status = 409, description = "It has ended")))]
async fn cancel(
    State(app): State<App>,
    caller: Caller,
    at: At<(String, String)>,
    once: Once,
    body: OptionalDocument,
) -> Result<Response, Problem> {
    turn(&app, &caller, &at, once, body, Turn::Cancel).await
}

/// Takes back what a rollout moved: its accounts return to the catalog before, at its rate, as a rollout of its own.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/rollouts/{rollout}/rollback",
    params(("tenant" = String, Path), ("rollout" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, description = "The rollout, and in `by` the one that takes it back"),
        (status = 404, description = "No such rollout"), (status = 409, description = "It was taken back before")))]
async fn rollback(
    State(app): State<App>,
    caller: Caller,
    at: At<(String, String)>,
    once: Once,
    body: OptionalDocument,
) -> Result<Response, Problem> {
    turn(&app, &caller, &at, once, body, Turn::RollBack).await
}

async fn turn(
    app: &App,
    caller: &Caller,
    At(path): &At<(String, String)>,
    once: Once,
    OptionalDocument(body): OptionalDocument,
    turn: Turn,
) -> Result<Response, Problem> {
    caller.may(OPERATORS)?;
    whole_tenant(caller)?;
    body.nothing()?;
    let id: i64 = path.1.parse().map_err(|_| Problem::not_found())?;
    let asking = once.of(&body.octets);
    let mut tx = app.store.write().await?;
    if let Some(kept) = asking.answered(&mut tx, caller.tenant.as_str()).await? {
        return Ok(again(kept));
    }
    let rollout = rollouts::locked(&mut tx, id).await?.filter(|rollout| rollout.tenant == caller.tenant.as_str());
    let rollout = rollout.ok_or_else(Problem::not_found)?;
    let now = app.clock.now();
    let by = match rollouts::turn(&mut tx, &rollout, turn, &caller.actor, now).await? {
        Ok(by) => by,
        Err(refusal) => {
            return Err(Problem::conflict("rollout-state", "The rollout is in another state", format!("{refusal}.")));
        }
    };
    let mut answer = shown(&rollouts::locked(&mut tx, id).await?.ok_or_else(Problem::not_found)?);
    if let Some(by) = by {
        answer["by"] = json!(by.to_string());
    }
    asking.keep(&mut tx, caller.tenant.as_str(), StatusCode::OK.as_u16(), &answer.to_string(), now).await?;
    tx.commit().await?;
    Ok(Json(answer).into_response())
}

/// A rollout as the API shows it.
fn shown(rollout: &Rollout) -> Value {
    let mut shown = json!(rollout);
    shown["id"] = json!(rollout.id.to_string());
    shown
}

/// A rollout reaches accounts of every source; a key bound to one has no say in it.
fn whole_tenant(caller: &Caller) -> Result<(), Problem> {
    match &caller.source {
        None => Ok(()),
        Some(source) => Err(Problem::forbidden(format!(
            "This key is bound to source {source}; a rollout concerns all of a tenant."
        ))),
    }
}

fn choice(asked: &StartBody) -> Result<Choice, Problem> {
    let mac = |text: &String| {
        text.parse::<MacAddress>().map_err(|error| Problem::bad_request(format!("macs: {text:?}: {error}.")))
    };
    let choice = Choice {
        which: asked.which,
        plan: asked.plan.clone(),
        model: asked.model.clone(),
        cmts: asked.cmts.clone(),
        macs: asked.macs.iter().map(mac).collect::<Result<_, _>>()?,
    };
    match choice.names_some() {
        true => Ok(choice),
        false => {
            Err(Problem::bad_request("Say which modems: \"which\" is held, behind or all, or \"macs\" names them."))
        }
    }
}

fn policy(asked: &StartBody, slowest: Option<u32>) -> Result<RolloutPolicy, Problem> {
    let usual = RolloutPolicy::default();
    let policy = RolloutPolicy {
        mode: asked.mode.unwrap_or(usual.mode),
        canary: asked.canary.unwrap_or(usual.canary),
        per_minute: asked.per_minute.unwrap_or(usual.per_minute).min(slowest.unwrap_or(u32::MAX)).max(1),
        halt_percent: asked.halt_percent.unwrap_or(usual.halt_percent),
        back_within_seconds: asked.back_within_seconds.unwrap_or(usual.back_within_seconds),
        in_window: asked.in_window,
        keep_held: false,
    };
    match policy.halt_percent {
        0..=100 => Ok(policy),
        _ => Err(Problem::bad_request("halt_percent must be 0 to 100.")),
    }
}

fn reason(asked: Option<String>) -> Result<String, Problem> {
    let reason = asked.unwrap_or_else(|| USUAL_REASON.to_owned());
    // It stands in the log, where a line feed would begin another line.
    match reason.chars().count() {
        1..=REASON_MAX if !reason.chars().any(char::is_control) => Ok(reason),
        _ => {
            Err(Problem::bad_request(format!("reason must be 1 to {REASON_MAX} characters, none a control character.")))
        }
    }
}
