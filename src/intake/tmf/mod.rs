//! TM Forum's open APIs over the same store, deeds and walls as our own: service activation (TMF640), service inventory (TMF638),
//! usage (TMF635), customer bills (TMF678). Requests in their words in, their documents out (`crate::tmf` has the words).
//!
//! No address names a tenant: the caller's key does, or for a platform's key the header `Lastmile-Tenant`. Refusals are the
//! rooms' own problems, told in TM Forum's shape.

mod bills;
mod hub;
mod monitors;
mod orders;
mod services;
mod usages;

use axum::Json;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;

use super::App;
use super::problem::Problem;
use crate::store::Tx;
use crate::store::faces::Part;
use crate::tmf::Listing;
use crate::vocabulary::Timestamp;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(services::routes())
        .merge(orders::routes())
        .merge(monitors::routes())
        .merge(hub::routes())
        .merge(usages::routes())
        .merge(bills::routes())
}

/// Below this all faces stand.
pub(super) const BASE: &str = "/tmf-api/";
/// Resources that one question may look at, where the database cannot answer it alone.
const LOOKED_AT_MAX: i64 = 50_000;
const LOOKED_AT_ONCE: i64 = 500;

/// What a list is made of.
enum Search {
    Services(services::Search),
    Monitors(monitors::Search),
    Usage(usages::Search),
    Rates(bills::Search),
}

impl Search {
    async fn count(&self, tx: &mut Tx) -> Result<i64, Problem> {
        match self {
            Search::Services(of) => of.count(tx).await,
            Search::Monitors(of) => of.count(tx).await,
            Search::Usage(of) => of.count(tx).await,
            Search::Rates(of) => of.count(tx).await,
        }
    }

    async fn part(&self, part: Part, now: Timestamp, tx: &mut Tx) -> Result<Vec<Value>, Problem> {
        match self {
            Search::Services(of) => of.part(part, now, tx).await,
            Search::Monitors(of) => of.part(part, tx).await,
            Search::Usage(of) => of.part(part, tx).await,
            Search::Rates(of) => of.part(part, tx).await,
        }
    }
}

/// Answers a list. `paths` are the filters that `search` has taken over; for others every resource is looked at.
async fn list(
    search: Option<Search>,
    listing: &Listing,
    paths: &[&str],
    now: Timestamp,
    tx: &mut Tx,
) -> Result<Response, Problem> {
    let Some(search) = search else { return Ok(listed(Vec::new(), 0, listing)) };
    let there = search.count(tx).await?;
    if listing.is_about(paths) {
        let part = Part { offset: listing.offset, limit: listing.limit };
        let items = if part.offset < there { search.part(part, now, tx).await? } else { Vec::new() };
        return Ok(listed(items, there, listing));
    }
    if there > LOOKED_AT_MAX {
        let detail = format!(
            "This asks about {there} resources, more than the {LOOKED_AT_MAX} that are looked at one by one: ask about one account."
        );
        return Err(Problem::bad_request(detail));
    }
    let (mut taken, mut items, mut offset) = (0, Vec::new(), 0);
    while offset < there {
        for item in search.part(Part { offset, limit: LOOKED_AT_ONCE }, now, tx).await? {
            if !listing.takes(&item) {
                continue;
            }
            if taken >= listing.offset && taken - listing.offset < listing.limit {
                items.push(item);
            }
            taken += 1;
        }
        offset += LOOKED_AT_ONCE;
    }
    Ok(listed(items, taken, listing))
}

const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");
const RESULT_COUNT: HeaderName = HeaderName::from_static("x-result-count");

/// A list, or 206 and a part of one, with how many there are.
fn listed(items: Vec<Value>, total: i64, listing: &Listing) -> Response {
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let status = if count < total { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let items: Vec<Value> = items.into_iter().map(|item| listing.select(item)).collect();
    let mut response = (status, Json(Value::Array(items))).into_response();
    response.headers_mut().insert(TOTAL_COUNT, HeaderValue::from(total));
    response.headers_mut().insert(RESULT_COUNT, HeaderValue::from(count));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn shown(item: Value, listing: &Listing) -> Response {
    let mut response = Json(listing.select(item)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The query of a list. **Errors**: what it does not know.
fn listing(pairs: &[(String, String)], paths: &[&str]) -> Result<Listing, Problem> {
    Listing::read(pairs, paths).map_err(Problem::bad_request)
}

/// The query of one resource: `fields` alone.
fn selection(pairs: &[(String, String)]) -> Result<Listing, Problem> {
    match pairs.iter().find(|(key, _)| key != "fields") {
        Some((key, _)) => {
            let shown: String = key.chars().take(60).collect();
            Err(Problem::bad_request(format!("{shown:?} is no parameter here; there is fields.")))
        }
        None => listing(pairs, &[]),
    }
}

/// Tells refusals below `BASE` in TM Forum's shape.
pub(super) async fn faced(request: Request, next: Next) -> Response {
    let below = request.uri().path().starts_with(BASE);
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) if below => refused(&problem, response),
        _ => response,
    }
}

fn refused(problem: &Problem, response: Response) -> Response {
    // Their APIs know no 422: whatever is wrong with a request is 400.
    let status = match problem.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    };
    let (word, title, detail, faults) = problem.parts();
    let mut message = detail.to_owned();
    for fault in faults.iter().take(FAULTS_TOLD) {
        message.push_str(&format!(" {}: {}.", fault.pointer, fault.detail.trim_end_matches('.')));
    }
    let mut error = json!({
        "code": word,
        "reason": title,
        "message": message,
        "status": status.as_u16().to_string(),
        "referenceError": format!("urn:lastmile:problem:{word}"),
        "@type": "Error",
        "@baseType": "Error",
        "@schemaLocation": "/openapi.json#/components/schemas/TmfError",
    });
    if !faults.is_empty() {
        error["errors"] = json!(faults);
    }
    let (mut parts, _) = response.into_parts();
    parts.status = status;
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, axum::body::Body::from(error.to_string()))
}

/// Faults that stand in the message too; `errors` has all of them.
const FAULTS_TOLD: usize = 5;
