//! Accounts over HTTP: the push and its siblings. Checks the request, hands the deed to the writer, answers what is durable.

use axum::Json;
use axum::extract::State;
use axum::http::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, HANDLERS, PUSHERS, READERS};
use super::deeds::{Close, Deed, Done, OfService, Push};
use super::idempotency::Once;
use super::problem::Problem;
use super::request::{Asked, At, Document, OptionalDocument, cursor, limit, page};
use super::view;
use super::writer::Refusal;
use crate::account::{Conditions, Hold, HoldBilling, HoldKind, Moment, Tags, merge, operator_hold, parse};
use crate::store::accounts::{self, AccountRow};
use crate::telemetry::Outcome;
use crate::vocabulary::{AccountKey, Fault, Timestamp};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(put, show, delete))
        .routes(routes!(list))
        .routes(routes!(patch_service))
        .routes(routes!(suspend))
        .routes(routes!(resume))
        .routes(routes!(reprovision))
}

/// How often a push is checked again because the catalog changed under it.
const CHECKS_MAX: usize = 3;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceQuery {
    source: Option<String>,
}

/// Full desired state of an account.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/accounts/{id}",
    params(("tenant" = String, Path), ("id" = String, Path, description = "External id of the account"),
        ("source" = Option<String>, Query), ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header), ("Lastmile-Actor" = Option<String>, Header)),
    request_body(content = serde_json::Value, description = "The account document"),
    responses((status = 201, description = "Created"),
        (status = 200, description = "Updated, unchanged or stale; of a source that is observed: what it would have changed"),
        (status = 202, description = "It takes service away, as too many did before it: it waits for an operator (`held`)"),
        (status = 409, description = "Revision reused, something is held by another account, or was given up by one not \
            long ago (`quarantined`: each of `conflicts` has `quarantined_until`)"),
        (status = 412, description = "A condition does not hold"),
        (status = 422, description = "Every fault of the document")))]
async fn put(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<SourceQuery>,
    headers: HeaderMap,
    body: Document,
) -> Result<Response, Problem> {
    caller.may(PUSHERS)?;
    let key = caller.account(query.source.as_deref(), &path.1)?;
    let conditions = conditions(&headers)?;
    let outcome = push(&app, &caller, &key, &body.value, &conditions).await;
    count(&app, &outcome);
    outcome.map(answer)
}

/// Checks a document and pushes it, again where the catalog changed meanwhile.
async fn push(
    app: &App,
    caller: &Caller,
    key: &AccountKey,
    document: &Value,
    conditions: &Conditions,
) -> Result<Done, Problem> {
    let mut catalog = match app.catalogs.remembered(&key.tenant) {
        Some(catalog) => catalog,
        None => app.catalogs.current(&mut app.store.read().await?, &key.tenant).await?,
    };
    for _ in 0..CHECKS_MAX {
        let pushed = match parse(document, key, &catalog.known) {
            Ok(pushed) => pushed,
            Err(faults) => {
                let newest = app.catalogs.current(&mut app.store.read().await?, &key.tenant).await?;
                if newest.version == catalog.version {
                    return Err(Problem::invalid(faults));
                }
                catalog = newest;
                continue;
            }
        };
        let deed = Deed::Push(Box::new(Push {
            key: key.clone(),
            actor: caller.actor.clone(),
            pushed,
            conditions: conditions.clone(),
            catalog_version: catalog.version,
            origin: None,
            released: false,
        }));
        match app.writer.perform(deed).await {
            Ok(done) => return Ok(done),
            Err(Refusal::Problem(problem)) => return Err(problem),
            Err(Refusal::CatalogMoved) => {
                catalog = app.catalogs.current(&mut app.store.read().await?, &key.tenant).await?;
            }
        }
    }
    Err(Problem::unavailable("The catalog is changing; send it again."))
}

/// One account.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/accounts/{id}",
    params(("tenant" = String, Path), ("id" = String, Path), ("source" = Option<String>, Query)),
    responses((status = 200, description = "The stored account without secrets"),
        (status = 304, description = "It is as If-None-Match says"), (status = 404, description = "No such account")))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<SourceQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(READERS)?;
    let key = caller.account(query.source.as_deref(), &path.1)?;
    let mut tx = app.store.read().await?;
    let row = accounts::find(&mut tx, &key).await?.filter(|row| row.closed_at.is_none());
    let row = row.ok_or_else(Problem::not_found)?;
    let body = view::account(&mut tx, &row).await?;
    // Progress of provisioning does not change the tag, so a 304 is given only to those who ask for it.
    if headers.contains_key(IF_NONE_MATCH) && !conditions(&headers)?.hold(Some(&row.etag)) {
        return Ok((StatusCode::NOT_MODIFIED, tag_header(&row.etag)).into_response());
    }
    Ok(answer(Done { status: 200, etag: Some(row.etag), body, outcome: "read" }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    source: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Accounts of the tenant in the order they came.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/accounts",
    params(("tenant" = String, Path), ("source" = Option<String>, Query), ("limit" = Option<i64>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of accounts")))]
async fn list(State(app): State<App>, caller: Caller, Asked(query): Asked<ListQuery>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let source = caller.source(query.source.as_deref())?;
    let after = cursor(query.cursor.as_deref())?;
    let mut tx = app.store.read().await?;
    let source = source.as_ref().map(crate::vocabulary::SourceId::as_str);
    let rows: Vec<AccountRow> = accounts::list(&mut tx, caller.tenant.as_str(), source, false, after, limit).await?;
    let last = rows.last().map(|row| row.id.to_string());
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        items.push(view::account(&mut tx, row).await?);
    }
    Ok(Json(page(items, limit, last)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CloseQuery {
    source: Option<String>,
    effective: Option<String>,
    source_revision: Option<i64>,
}

/// Closes an account and takes down what is provisioned for it.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/accounts/{id}",
    params(("tenant" = String, Path), ("id" = String, Path), ("source" = Option<String>, Query),
        ("effective" = Option<String>, Query, description = "A date or an instant; now when missing"),
        ("source_revision" = Option<i64>, Query)),
    responses((status = 202, description = "Closing, or `held`: it waits for an operator, since too much was taken away"), (status = 204, description = "Closed before"),
        (status = 200, description = "Stale"), (status = 404, description = "No such account")))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<CloseQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(PUSHERS)?;
    let key = caller.account(query.source.as_deref(), &path.1)?;
    if query.source_revision.is_some_and(|revision| revision < 0) {
        return Err(Problem::bad_request("source_revision must not be negative."));
    }
    let effective = query.effective.as_deref().map(moment).transpose()?;
    let deed = Deed::Close(Close {
        key,
        actor: caller.actor,
        effective,
        source_revision: query.source_revision,
        conditions: conditions(&headers)?,
        origin: None,
        released: false,
    });
    let outcome = app.writer.perform(deed).await.map_err(refused);
    count(&app, &outcome);
    outcome.map(answer)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PatchQuery {
    source: Option<String>,
    source_revision: Option<i64>,
}

/// Changes a part of one service (JSON Merge Patch, RFC 7396).
#[utoipa::path(patch, path = "/v1/tenants/{tenant}/accounts/{id}/services/{service}",
    params(("tenant" = String, Path), ("id" = String, Path), ("service" = String, Path),
        ("source" = Option<String>, Query), ("source_revision" = Option<i64>, Query)),
    request_body(content = serde_json::Value, description = "A merge patch of the service"),
    responses((status = 200, description = "The account; of a source that is observed: what it would have changed"),
        (status = 202, description = "It takes service away, as too many did before it: it waits for an operator (`held`)"),
        (status = 404, description = "No such service"),
        (status = 422, description = "Every fault of the result")))]
async fn patch_service(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String, String)>,
    Asked(query): Asked<PatchQuery>,
    headers: HeaderMap,
    body: Document,
) -> Result<Response, Problem> {
    caller.may(PUSHERS)?;
    let key = caller.account(query.source.as_deref(), &path.1)?;
    let asked = conditions(&headers)?;
    if !body.value.is_object() {
        let detail = "must be an object: a merge patch of the service".to_owned();
        return Err(Problem::invalid(vec![Fault { pointer: String::new(), detail }]));
    }
    let mut outcome = Err(Problem::unavailable("The account is changing; send it again."));
    for _ in 0..CHECKS_MAX {
        outcome = patch_once(&app, &caller, &key, &path.2, &body.value, query.source_revision, &asked).await;
        // Without a condition of the caller's own, a change in between is only a reason to look again.
        let overtaken = outcome.as_ref().is_err_and(|problem| problem.status() == StatusCode::PRECONDITION_FAILED);
        if !overtaken || asked.if_match.is_some() {
            break;
        }
    }
    count(&app, &outcome);
    outcome.map(answer)
}

async fn patch_once(
    app: &App,
    caller: &Caller,
    key: &AccountKey,
    service: &str,
    patch: &Value,
    source_revision: Option<i64>,
    asked: &Conditions,
) -> Result<Done, Problem> {
    let row = accounts::find(&mut app.store.read().await?, key).await?.filter(|row| row.closed_at.is_none());
    let row = row.ok_or_else(Problem::not_found)?;
    let place = row.document.services.iter().position(|known| known.id == service).ok_or_else(Problem::not_found)?;
    let mut document = json!(row.document);
    let merged = with_removed_secrets(merge(&document["services"][place], patch), patch);
    if merged["id"] != json!(service) {
        let detail = "cannot be changed by a patch".to_owned();
        return Err(Problem::invalid(vec![Fault { pointer: "/id".to_owned(), detail }]));
    }
    document["services"][place] = merged;
    if let Some(revision) = source_revision {
        document["source_revision"] = json!(revision);
    }
    if !asked.hold(Some(&row.etag)) {
        return Err(Problem::precondition_failed("The account is not as the request expects it."));
    }
    let conditions = Conditions { if_match: Some(Tags::Listed(vec![row.etag])), if_none_match: None };
    let prefix = format!("/services/{place}");
    push(app, caller, key, &document, &conditions).await.map_err(|problem| problem.below(&prefix))
}

/// A merge patch takes `null` out of the result, but for a password it means: remove the stored one.
fn with_removed_secrets(mut merged: Value, patch: &Value) -> Value {
    if let (Some(target), Some(patch)) = (merged.as_object_mut(), patch.as_object()) {
        for (key, value) in patch {
            if key == "password" && value.is_null() {
                target.insert(key.clone(), Value::Null);
            } else if value.is_object()
                && let Some(inner) = target.get_mut(key)
            {
                *inner = with_removed_secrets(inner.take(), value);
            }
        }
    }
    merged
}

/// Places an operator's hold on a service.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/accounts/{id}/services/{service}/suspend",
    params(("tenant" = String, Path), ("id" = String, Path), ("service" = String, Path),
        ("source" = Option<String>, Query), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = Option<serde_json::Value>,
        description = "Optional: kind (admin), treatment, billing, from, until, reason"),
    responses((status = 200, description = "The account"),
        (status = 202, description = "Too much was taken away before it: it waits for an operator (`held`)"),
        (status = 404, description = "No such service")))]
async fn suspend(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String, String)>,
    Asked(query): Asked<SourceQuery>,
    once: Once,
    OptionalDocument(body): OptionalDocument,
) -> Result<Response, Problem> {
    let default = Hold { kind: HoldKind::Admin, treatment: None, billing: HoldBilling::Full, from: None, until: None };
    let (hold, reason) = operator_hold(&body.value, default).map_err(Problem::invalid)?;
    let of = of_service(caller, path, &query, once, &body.octets)?;
    let done = app.writer.perform(Deed::Suspend { of, hold, reason }).await.map_err(refused)?;
    Ok(answer(done))
}

/// Lifts the operator's hold of a service.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/accounts/{id}/services/{service}/resume",
    params(("tenant" = String, Path), ("id" = String, Path), ("service" = String, Path),
        ("source" = Option<String>, Query), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, description = "The account"), (status = 404, description = "No such service")))]
async fn resume(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String, String)>,
    Asked(query): Asked<SourceQuery>,
    once: Once,
    OptionalDocument(body): OptionalDocument,
) -> Result<Response, Problem> {
    let of = of_service(caller, path, &query, once, &body.octets)?;
    let done = app.writer.perform(Deed::Resume { of }).await.map_err(refused)?;
    Ok(answer(done))
}

/// Brings everything of a service there again although nothing changed.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/accounts/{id}/services/{service}/reprovision",
    params(("tenant" = String, Path), ("id" = String, Path), ("service" = String, Path),
        ("source" = Option<String>, Query), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, description = "Jobs are due"), (status = 404, description = "No such service")))]
async fn reprovision(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String, String)>,
    Asked(query): Asked<SourceQuery>,
    once: Once,
    OptionalDocument(body): OptionalDocument,
) -> Result<Response, Problem> {
    let of = of_service(caller, path, &query, once, &body.octets)?;
    let done = app.writer.perform(Deed::Reprovision { of }).await.map_err(refused)?;
    Ok(answer(done))
}

fn of_service(
    caller: Caller,
    path: (String, String, String),
    query: &SourceQuery,
    once: Once,
    body: &[u8],
) -> Result<OfService, Problem> {
    caller.may(HANDLERS)?;
    let key = caller.account(query.source.as_deref(), &path.1)?;
    Ok(OfService { key, service: path.2, actor: caller.actor, asking: once.of(body) })
}

fn conditions(headers: &HeaderMap) -> Result<Conditions, Problem> {
    let tags = |name: HeaderName| -> Result<Option<Tags>, Problem> {
        let Some(value) = headers.get(&name) else { return Ok(None) };
        let tags = value.to_str().ok().and_then(Tags::parse);
        tags.map(Some).ok_or_else(|| Problem::bad_request(format!("{name} must be * or quoted tags.")))
    };
    Ok(Conditions { if_match: tags(IF_MATCH)?, if_none_match: tags(IF_NONE_MATCH)? })
}

fn moment(text: &str) -> Result<Moment, Problem> {
    let day = || text.parse().ok().filter(|_| text.len() == 10).map(Moment::Day);
    let instant = || text.parse::<Timestamp>().ok().map(Moment::Instant);
    day().or_else(instant).ok_or_else(|| Problem::bad_request("effective must be a date or an instant."))
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Problem(problem) => problem,
        Refusal::CatalogMoved => Problem::unavailable("The catalog is changing; send it again."),
    }
}

fn count(app: &App, outcome: &Result<Done, Problem>) {
    let word = match outcome {
        Ok(done) => done.outcome,
        Err(problem) if problem.status().is_server_error() => "failed",
        Err(_) => "refused",
    };
    app.metrics.pushes.get_or_create(&Outcome::new(word)).inc();
}

fn tag_header(tag: &str) -> [(HeaderName, HeaderValue); 1] {
    // A tag is hex digits.
    [(ETAG, HeaderValue::from_str(&format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\"")))]
}

fn answer(done: Done) -> Response {
    let status = StatusCode::from_u16(done.status).unwrap_or(StatusCode::OK);
    if status == StatusCode::NO_CONTENT {
        return status.into_response();
    }
    let mut response = (status, Json(done.body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(tag) = done.etag {
        let [(name, value)] = tag_header(&tag);
        response.headers_mut().insert(name, value);
    }
    response
}
