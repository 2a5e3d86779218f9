//! Reconciliations over HTTP: a list is sent in one request of any length, kept sealed, and compared behind it; its plan is
//! looked at and applied by its hash.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::read::place;
use crate::intake::App;
use crate::intake::caller::{Caller, OPERATORS, READERS};
use crate::intake::problem::Problem;
use crate::intake::request::{Asked, At, Document, limit, page};
use crate::mediation::{Profile, Scope};
use crate::reconcile::{Class, Report};
use crate::store::syncs::{self, NewSync, SyncRow};
use crate::vocabulary::{Timestamp, from_micros, hex, parse_instant, to_micros};

pub(in crate::intake) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(send, list))
        .routes(routes!(show))
        .routes(routes!(plan))
        .routes(routes!(report))
        .routes(routes!(apply))
}

/// May send a list and apply its plan.
const SENDERS: &[crate::vocabulary::Role] =
    &[crate::vocabulary::Role::Push, crate::vocabulary::Role::Operator, crate::vocabulary::Role::Admin];
/// Octets of one list.
const LIST_MAX: u64 = 16 << 30;
/// Octets of a piece as it is kept.
const PIECE: usize = 1 << 20;
/// Findings of a text report; the plan has all of them.
const ROWS_MAX: i64 = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SendQuery {
    source: Option<String>,
    profile: Option<String>,
    as_of: Option<String>,
    #[serde(default)]
    complete: bool,
}

/// Takes a list of a source's subscribers: account documents, one a line, or what `profile` reads. It is compared behind the
/// answer. `complete=true` says that everybody is in it; a last line `{"trailer": {"records": N}}` proves it.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/syncs",
    params(("tenant" = String, Path), ("source" = Option<String>, Query), ("profile" = Option<String>, Query),
        ("as_of" = Option<String>, Query), ("complete" = Option<bool>, Query)),
    request_body(content = String, content_type = "application/octet-stream", description = "The list"),
    responses((status = 202, description = "Kept; its id and state"), (status = 400, description = "The query is wrong, or \
        the body ended early"), (status = 413, description = "The list is too long")))]
async fn send(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<SendQuery>,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(SENDERS)?;
    let source = caller.source(query.source.as_deref())?.unwrap_or_default();
    let now = app.clock.now();
    let as_of = match &query.as_of {
        None => now,
        Some(text) => parse_instant(text)
            .ok_or_else(|| Problem::bad_request("as_of must be an instant, 2026-11-01T00:00:00Z."))?,
    };
    if let Some(name) = &query.profile {
        let profile = Profile::named(name).ok_or_else(|| Problem::bad_request("profile is none that is shipped."))?;
        if profile.scope != Scope::Full {
            return Err(Problem::bad_request("This profile tells parts of accounts; a list has whole ones."));
        }
    }
    app.catalogs.current(&mut app.store.read().await?, &caller.tenant).await?;
    let name = format!("{}\u{0}{source}\u{0}{}\u{0}{}", caller.tenant, to_micros(now), app.store.owner());
    let id = format!("sy_{}", hex(&Sha256::digest(name.as_bytes())[..12]));
    let said = query.complete.then(|| format!("the sender's word ({})", caller.actor));
    let new = NewSync {
        id: &id,
        tenant: caller.tenant.as_str(),
        source: source.as_str(),
        profile: query.profile.as_deref(),
        said_complete: said.as_deref(),
        as_of,
        requested_by: &caller.actor,
    };
    let mut tx = app.store.write().await?;
    syncs::create(&mut tx, &new, now).await?;
    tx.commit().await?;
    let octets = keep(&app, &id, request.into_body()).await?;
    let mut tx = app.store.write().await?;
    syncs::received(&mut tx, &id, octets).await?;
    tx.commit().await?;
    let body = json!({ "id": id, "source": source, "state": "received", "octets": octets });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

/// Keeps what comes, sealed piece by piece.
async fn keep(app: &App, id: &str, mut body: Body) -> Result<i64, Problem> {
    let ended = || Problem::bad_request("The body ended before it was complete.");
    let (mut held, mut number, mut octets) = (Vec::with_capacity(PIECE), 0i64, 0u64);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| ended())?.into_data() else { continue };
        octets += data.len() as u64;
        if octets > LIST_MAX {
            return Err(Problem::too_large(usize::try_from(LIST_MAX).unwrap_or(usize::MAX)));
        }
        held.extend_from_slice(&data);
        while held.len() >= PIECE {
            let rest = held.split_off(PIECE);
            keep_piece(app, id, number, &held).await?;
            (held, number) = (rest, number + 1);
        }
    }
    if !held.is_empty() {
        keep_piece(app, id, number, &held).await?;
    }
    Ok(i64::try_from(octets).unwrap_or(i64::MAX))
}

async fn keep_piece(app: &App, id: &str, number: i64, piece: &[u8]) -> Result<(), Problem> {
    let sealed = app.store.sealer().seal_bytes(&place(id, number), piece)?;
    let mut tx = app.store.write().await?;
    syncs::add_part(&mut tx, id, number, &sealed).await?;
    Ok(tx.commit().await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    source: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Reconciliations, the newest first.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/syncs",
    params(("tenant" = String, Path), ("source" = Option<String>, Query), ("limit" = Option<i64>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of reconciliations")))]
async fn list(State(app): State<App>, caller: Caller, Asked(query): Asked<ListQuery>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let source = caller.source(query.source.as_deref())?;
    let before = query.cursor.as_deref().map(newest_cursor).transpose()?;
    let before = before.as_ref().map(|(at, id)| (*at, id.as_str()));
    let source = source.as_ref().map(crate::vocabulary::SourceId::as_str);
    let rows = syncs::list(&mut app.store.read().await?, caller.tenant.as_str(), source, before, limit).await?;
    let last = rows.last().map(|row| format!("{}.{}", to_micros(row.created_at), row.id));
    Ok(Json(page(rows.iter().map(shown).collect(), limit, last)))
}

/// One reconciliation with its report.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/syncs/{id}",
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "Its state, and when it is planned its report"),
        (status = 404, description = "No such reconciliation")))]
async fn show(State(app): State<App>, caller: Caller, At(path): At<(String, String)>) -> Result<Json<Value>, Problem> {
    let row = find(&app, &caller, &path.1).await?;
    let mut body = shown(&row);
    body["report"] = json!(row.report);
    Ok(Json(body))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanQuery {
    class: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// The plan, and what differs: each subscriber and service that is not the same on both sides.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/syncs/{id}/plan",
    params(("tenant" = String, Path), ("id" = String, Path), ("class" = Option<String>, Query),
        ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "The plan's hash and counts, and a page of findings"),
        (status = 404, description = "No such reconciliation"), (status = 409, description = "It is not planned yet")))]
async fn plan(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<PlanQuery>,
) -> Result<Json<Value>, Problem> {
    let row = find(&app, &caller, &path.1).await?;
    let limit = limit(query.limit)?;
    let class = query.class.as_deref().map(str::parse::<Class>).transpose();
    let class = class.map_err(|words| Problem::bad_request(format!("class: {words}.")))?;
    let report = row.report.ok_or_else(not_planned)?;
    let after = query.cursor.as_deref().map(finding_cursor).transpose()?;
    let after = after.as_ref().map(|(account, number)| (account.as_str(), *number));
    let found = syncs::findings(&mut app.store.read().await?, &row.id, class, after, limit).await?;
    let last = found.last().map(|(number, finding)| format!("{number}.{}", hex(finding.account.as_bytes())));
    let mut body = page(found.iter().map(|(_, finding)| json!(finding)).collect(), limit, last);
    body["plan"] = json!(report.plan);
    Ok(Json(body))
}

/// The report as a text for the other company.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/syncs/{id}/report",
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "The text", body = String, content_type = "text/plain"),
        (status = 404, description = "No such reconciliation"), (status = 409, description = "It is not planned yet")))]
async fn report(State(app): State<App>, caller: Caller, At(path): At<(String, String)>) -> Result<Response, Problem> {
    let row = find(&app, &caller, &path.1).await?;
    let report = row.report.ok_or_else(not_planned)?;
    let mut text = report.head();
    text.push_str("\nWhat differs:\n");
    let found = syncs::findings(&mut app.store.read().await?, &row.id, None, None, ROWS_MAX).await?;
    text.extend(found.iter().map(|(_, finding)| Report::row(finding)));
    if found.len() as i64 == ROWS_MAX {
        text.push_str("  … and more.\n");
    }
    text.push_str(&report.foot());
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(CONTENT_TYPE, plain)], text).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyBody {
    plan: String,
    allow_deletions: Option<u64>,
}

/// Has a plan applied, if it still is the plan: everything is compared anew first. `allow_deletions` is an operator's word.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/syncs/{id}/apply",
    params(("tenant" = String, Path), ("id" = String, Path)),
    request_body(content = serde_json::Value, description = "plan: its hash; allow_deletions: how much may go"),
    responses((status = 202, description = "It is being applied"), (status = 400, description = "The body is wrong"),
        (status = 403, description = "Not for this key"), (status = 404, description = "No such reconciliation"),
        (status = 409, description = "It is not planned, or the plan has another hash, or takes too much away")))]
async fn apply(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    body: Document,
) -> Result<Response, Problem> {
    caller.may(SENDERS)?;
    let asked: ApplyBody =
        serde_json::from_value(body.value).map_err(|error| Problem::bad_request(format!("{error}.")))?;
    if asked.allow_deletions.is_some() {
        caller.may(OPERATORS)?;
    }
    let row = find(&app, &caller, &path.1).await?;
    let report = row.report.as_ref().ok_or_else(not_planned)?;
    if let (Some(refused), None) = (&report.plan.refused, asked.allow_deletions) {
        return Err(Problem::conflict("plan-guarded", "The plan takes too much away", format!("{refused}.")));
    }
    let mut tx = app.store.write().await?;
    let applying = syncs::ask_to_apply(&mut tx, &row.id, &asked.plan, asked.allow_deletions, &caller.actor).await?;
    if !applying {
        tx.rollback().await?;
        let detail = format!("The plan of this reconciliation is {}, and its state {}.", report.plan.hash, row.state);
        return Err(Problem::conflict("plan-moved", "Another plan", detail));
    }
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": row.id, "state": "applying" }))).into_response())
}

async fn find(app: &App, caller: &Caller, id: &str) -> Result<SyncRow, Problem> {
    caller.may(READERS)?;
    let row = syncs::find(&mut app.store.read().await?, caller.tenant.as_str(), id).await?;
    let row = row.filter(|row| caller.source.as_ref().is_none_or(|bound| bound.as_str() == row.source));
    row.ok_or_else(Problem::not_found)
}

fn not_planned() -> Problem {
    Problem::conflict("not-planned", "Not planned yet", "The list is not compared yet, or could not be.")
}

fn shown(row: &SyncRow) -> Value {
    let result = row.result.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    json!({
        "id": row.id,
        "source": row.source,
        "profile": row.profile,
        "as_of": row.as_of,
        "state": row.state,
        "octets": row.octets,
        "plan": row.report.as_ref().map(|report| json!(report.plan)),
        "result": result,
        "error": row.error,
        "requested_by": row.requested_by,
        "applied_by": row.applied_by,
        "created_at": row.created_at,
    })
}

fn newest_cursor(text: &str) -> Result<(Timestamp, String), Problem> {
    let parts = text.split_once('.');
    let cursor = parts.and_then(|(at, id)| Some((from_micros(at.parse().ok()?)?, id.to_owned())));
    cursor.ok_or_else(|| Problem::bad_request("cursor must be the `next` of a page."))
}

fn finding_cursor(text: &str) -> Result<(String, i64), Problem> {
    let cursor = || {
        let (number, digits) = text.split_once('.')?;
        let octets =
            digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        let account = String::from_utf8(octets.collect::<Option<Vec<u8>>>()?).ok()?;
        Some((account, number.parse().ok()?))
    };
    cursor().ok_or_else(|| Problem::bad_request("cursor must be the `next` of a page."))
}
