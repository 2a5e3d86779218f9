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

use super::keep::Keeping;
use super::stored::{self, NotApplied};
use crate::intake::App;
use crate::intake::caller::{Caller, OPERATORS, READERS};
use crate::intake::idempotency::{Once, again};
use crate::intake::problem::Problem;
use crate::intake::request::{Asked, At, Document, limit, page};
use crate::mediation::Scope;
use crate::reconcile::{Class, Report, Steps};
use crate::store::syncs::{self, NewSync, SyncRow};
use crate::store::{StoreError, Tx};
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
    sha256: Option<String>,
    records: Option<u64>,
    only: Option<String>,
}

/// Takes a list of a source's subscribers: account documents, one a line, or what `profile` reads. It is compared behind the
/// answer. A last line `{"trailer": {"records": N}}` proves that everybody is in it, a manifest (`sha256` of the octets, and
/// `records`) does, or the sender says so with `complete=true`. `only` names the steps to plan: create, update, close.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/syncs",
    params(("tenant" = String, Path), ("source" = Option<String>, Query), ("profile" = Option<String>, Query),
        ("as_of" = Option<String>, Query), ("complete" = Option<bool>, Query), ("sha256" = Option<String>, Query),
        ("records" = Option<u64>, Query), ("only" = Option<String>, Query), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = String, content_type = "application/octet-stream", description = "The list"),
    responses((status = 202, description = "Kept; its id and state"), (status = 400, description = "The query is wrong, the \
        body ended early, or it is not what its manifest is of"), (status = 413, description = "The list is too long")))]
async fn send(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<SendQuery>,
    once: Once,
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
    let only = query.only.as_deref().map(str::parse::<Steps>).transpose();
    let only = only.map_err(|words| Problem::bad_request(format!("only: {words}.")))?;
    if let Some(name) = &query.profile {
        let shelved = app.sources.now().shelf.named(name);
        let shelved = shelved.ok_or_else(|| Problem::bad_request("profile is none that is known here."))?;
        if shelved.profile.scope != Scope::Full {
            return Err(Problem::bad_request("This profile tells parts of accounts; a list has whole ones."));
        }
    }
    app.catalogs.current(&mut app.store.read().await?, &caller.tenant).await?;
    let name = format!("{}\u{0}{source}\u{0}{}\u{0}{}", caller.tenant, to_micros(now), app.store.owner());
    let id = format!("sy_{}", hex(&Sha256::digest(name.as_bytes())[..12]));
    let said = match (&query.sha256, query.complete) {
        (Some(_), _) => Some(format!("a manifest ({})", caller.actor)),
        (None, true) => Some(format!("the sender's word ({})", caller.actor)),
        (None, false) => None,
    };
    let new = NewSync {
        id: &id,
        tenant: caller.tenant.as_str(),
        source: source.as_str(),
        profile: query.profile.as_deref(),
        said_complete: said.as_deref(),
        told_records: query.records,
        only: only.as_ref(),
        as_of,
        requested_by: &caller.actor,
    };
    let mut keeping = Keeping::begin(&app, &new).await?;
    let kept = receive(&mut keeping, request.into_body()).await;
    let (octets, digest) = match kept {
        Ok(()) => keeping.end().await?,
        Err(problem) => {
            keeping.drop_all().await?;
            return Err(problem);
        }
    };
    let asking = once.of(digest.as_bytes());
    let mut tx = app.store.write().await?;
    let answered = asking.answered(&mut tx, caller.tenant.as_str()).await;
    let is_other = query.sha256.is_some_and(|told| !told.eq_ignore_ascii_case(&digest));
    if is_other || !matches!(answered, Ok(None)) {
        syncs::forget_one(&mut tx, &id).await?;
        tx.commit().await?;
        let other = || format!("The manifest is of another list: this one has the SHA-256 {digest}.");
        return answered?.map(again).ok_or_else(|| Problem::bad_request(other()));
    }
    syncs::received(&mut tx, &id, octets).await?;
    let body = json!({ "id": id, "source": source, "state": "received", "octets": octets });
    asking.keep(&mut tx, caller.tenant.as_str(), 202, &body.to_string(), now).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

/// Keeps what comes, piece by piece.
async fn receive(keeping: &mut Keeping<'_>, mut body: Body) -> Result<(), Problem> {
    let ended = || Problem::bad_request("The body ended before it was complete.");
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| ended())?.into_data() else { continue };
        if keeping.octets() + data.len() as u64 > LIST_MAX {
            return Err(Problem::too_large(usize::try_from(LIST_MAX).unwrap_or(usize::MAX)));
        }
        keeping.add(&data).await?;
    }
    Ok(())
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
    let text = text_of(&mut app.store.read().await?, &row.id, &report).await?;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(CONTENT_TYPE, plain)], text).into_response())
}

/// A report as the text for the other company, with at most `ROWS_MAX` rows.
pub async fn text_of(tx: &mut Tx, id: &str, report: &Report) -> Result<String, StoreError> {
    let mut text = report.head();
    text.push_str("\nWhat differs:\n");
    let found = syncs::findings(tx, id, None, None, ROWS_MAX).await?;
    text.extend(found.iter().map(|(_, finding)| Report::row(finding)));
    if found.is_empty() {
        text.push_str("  nothing\n");
    }
    if found.len() as i64 == ROWS_MAX {
        text.push_str("  … and more.\n");
    }
    text.push_str(&report.foot());
    Ok(text)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyBody {
    plan: String,
    allow_deletions: Option<u64>,
}

/// Has a plan applied, if it still is the plan: everything is compared anew first. `allow_deletions` is an operator's word.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/syncs/{id}/apply",
    params(("tenant" = String, Path), ("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = serde_json::Value, description = "plan: its hash; allow_deletions: how much may go"),
    responses((status = 202, description = "It is being applied"), (status = 400, description = "The body is wrong"),
        (status = 403, description = "Not for this key"), (status = 404, description = "No such reconciliation"),
        (status = 409, description = "It is not planned, its list is not kept, or the plan has another hash or takes too \
            much away")))]
async fn apply(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    once: Once,
    body: Document,
) -> Result<Response, Problem> {
    caller.may(SENDERS)?;
    let asking = once.of(&body.octets);
    let asked: ApplyBody =
        serde_json::from_value(body.value).map_err(|error| Problem::bad_request(format!("{error}.")))?;
    if asked.allow_deletions.is_some() {
        caller.may(OPERATORS)?;
    }
    let row = find(&app, &caller, &path.1).await?;
    let mut tx = app.store.write().await?;
    if let Some(answer) = asking.answered(&mut tx, caller.tenant.as_str()).await? {
        return Ok(again(answer));
    }
    // A few digits of a hash are for people.
    if let Some(report) = row.report.as_ref().filter(|report| report.plan.hash != asked.plan) {
        return Err(refused(NotApplied::Other { hash: report.plan.hash.clone(), state: row.state.clone() }));
    }
    let wanted = stored::Asked { plan: &asked.plan, allow_deletions: asked.allow_deletions, by: &caller.actor };
    stored::ask(&mut tx, &row, wanted).await.map_err(refused)?;
    let answer = json!({ "id": row.id, "state": "applying" });
    asking.keep(&mut tx, caller.tenant.as_str(), 202, &answer.to_string(), app.clock.now()).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

async fn find(app: &App, caller: &Caller, id: &str) -> Result<SyncRow, Problem> {
    caller.may(READERS)?;
    let row = syncs::find(&mut app.store.read().await?, caller.tenant.as_str(), id).await?;
    let row = row.filter(|row| caller.source.as_ref().is_none_or(|bound| bound.as_str() == row.source));
    row.ok_or_else(Problem::not_found)
}

fn refused(refused: NotApplied) -> Problem {
    match refused {
        NotApplied::NotPlanned(_) => not_planned(),
        NotApplied::NotKept => Problem::conflict(
            "list-not-kept",
            "The list is not kept",
            "A command read it from a file, or it was empty.",
        ),
        NotApplied::Guarded(why) => {
            Problem::conflict("plan-guarded", "The plan takes too much away", format!("{why}."))
        }
        NotApplied::Other { hash, state } => {
            let detail = format!("The plan of this reconciliation is {hash}, and its state {state}.");
            Problem::conflict("plan-moved", "Another plan", detail)
        }
        NotApplied::Store(error) => error.into(),
    }
}

fn not_planned() -> Problem {
    Problem::conflict("not-planned", "Not planned yet", "The list is not compared yet, or could not be.")
}

/// A reconciliation as lists show it.
pub fn shown(row: &SyncRow) -> Value {
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
