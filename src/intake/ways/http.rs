//! Foreign records over HTTP: who sends proves itself by an API key or as its profile asks, and is answered in its own words.
//! What came before, what was put aside of it, and trying that again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Json;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::inbox::{detailed, shown};
use super::{Arrived, ReplayError, actor, callback, read, replay, take};
use crate::intake::App;
use crate::intake::caller::{Caller, HANDLERS, PUSHERS, READERS};
use crate::intake::desk::Desk;
use crate::intake::problem::Problem;
use crate::intake::request::{Asked, At, cursor, limit, octets, page};
use crate::intake::sources::{Shelved, Source, SourceSettings};
use crate::mediation::{Outcome, Verify};
use crate::store::ingest::{self, IngestFilter, Way};
use crate::telemetry::Reason;
use crate::vocabulary::{SourceId, TenantId};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(post))
        .routes(routes!(head))
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(replay_one))
}

/// Octets of one request.
const BODY_MAX: usize = 8 * 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceQuery {
    source: Option<String>,
}

/// A record of a billing system, as it writes it; read by a source profile.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/ingest/{profile}",
    params(("tenant" = String, Path), ("profile" = String, Path, description = "Name of the source profile"),
        ("source" = Option<String>, Query), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = String, content_type = "application/octet-stream",
        description = "What the profile reads: JSON, XML, separated values, fixed columns, a form, an environment"),
    responses((status = "2XX", description = "Kept and done, in the words of the profile's [reply]; without words: how many \
            changes, ignored, held and quarantined, and what became of each record",
            content((Value = "application/json"), (String = "text/plain"), (String = "text/xml"), (String = "application/xml"))),
        (status = "4XX", description = "As the profile answers what it puts aside",
            content((Value = "application/json"), (Value = "application/problem+json"), (String = "text/plain"),
                (String = "text/xml"), (String = "application/xml"))),
        (status = 422, description = "As the profile answers what it puts aside",
            content((Value = "application/json"), (Value = "application/problem+json"), (String = "text/plain"),
                (String = "text/xml"), (String = "application/xml"))),
        (status = 401, description = "The source did not prove itself"),
        (status = 404, description = "No such profile"),
        (status = 503, description = "Nothing is stored; send it again")))]
async fn post(
    State(app): State<App>,
    At(path): At<(String, String)>,
    Asked(query): Asked<SourceQuery>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let tenant = TenantId::parse(&path.0).map_err(|_| Problem::not_found())?;
    let settings = app.sources.now();
    let caller = match is_key(&parts.headers) {
        true => Some(Caller::from_request_parts(&mut parts, &app).await?),
        false => None,
    };
    let event = idempotency_key(&parts.headers)?;
    let body = octets(Request::from_parts(parts.clone(), body), BODY_MAX).await?;
    let sender = match &caller {
        Some(caller) => by_key(caller, &settings, &tenant, &path.1, query.source.as_deref())?,
        None => by_proof(&settings, &tenant, (&path.1, query.source.as_deref()), &parts.headers, &body, peer)
            .ok_or_else(|| unproven(&app))?,
    };
    let Sender { profile, source, ways } = sender;
    let (mut octets, mut records) = read(&profile, body.to_vec()).await?;
    let (source, actor) = match &caller {
        Some(caller) => (source.clone(), format!("{}, {}", actor(&source, &profile), caller.actor)),
        None => {
            // A secret in the records tells which of several sources it is.
            let way = ways.iter().find(|way| shares(&profile, way, &records)).ok_or_else(|| unproven(&app))?;
            if let Some(Verify::Callback { .. }) = &profile.profile.verify {
                (octets, records) = confirmed(&app, &profile, way, records).await?;
            }
            (way.source.clone(), actor(&way.source, &profile))
        }
    };
    let event = event.or_else(|| match records.as_slice() {
        [one] => one.event.clone(),
        _ => None,
    });
    let arrived =
        Arrived { tenant, source, actor, profile: Arc::clone(&profile), way: Way::Http, event, octets, records };
    let taken = take(&Desk::of(&app), &app.metrics, arrived).await?;
    let (status, content_type, body) = taken.answer(&profile.profile);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    if let Ok(content_type) = HeaderValue::from_str(&content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    if let Ok(id) = HeaderValue::from_str(&taken.ingest) {
        headers.insert(HeaderName::from_static("lastmile-ingest"), id);
    }
    Ok(response)
}

/// Whether anybody listens: some billing systems ask before they send.
#[utoipa::path(head, path = "/v1/tenants/{tenant}/ingest/{profile}",
    params(("tenant" = String, Path), ("profile" = String, Path)),
    responses((status = 200, description = "Records may be sent here")))]
async fn head(_method: Method) -> StatusCode {
    // The same for every tenant and profile: who asks has proven nothing.
    StatusCode::OK
}

/// Who sends: the profile and its source; without a key those of the configuration that it may be.
struct Sender {
    profile: Arc<Shelved>,
    source: SourceId,
    ways: Vec<Source>,
}

fn is_key(headers: &HeaderMap) -> bool {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    header.and_then(|text| text.split_once(' ')).is_some_and(|(_, text)| text.trim().starts_with("lm_"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or("").trim().trim_matches('"');
    if text.is_empty() || text.len() > 255 {
        return Err(Problem::bad_request("Idempotency-Key must be 1 to 255 visible ASCII characters."));
    }
    Ok(Some(format!("key {text}")))
}

/// A caller with an API key may use any profile there is.
fn by_key(
    caller: &Caller,
    settings: &SourceSettings,
    tenant: &TenantId,
    profile: &str,
    source: Option<&str>,
) -> Result<Sender, Problem> {
    caller.may(PUSHERS)?;
    let shelved = settings.shelf.named(profile).ok_or_else(Problem::not_found)?;
    let named = caller.source(source)?;
    let mut configured = settings.by_profile(tenant, profile).map(|one| one.source.clone());
    let source = match (named, configured.next()) {
        (Some(named), _) => named,
        (None, None) => SourceId::default(),
        (None, Some(first)) if configured.all(|other| other == first) => first,
        (None, Some(_)) => {
            return Err(Problem::bad_request("Several sources use this profile; name one with `source`."));
        }
    };
    Ok(Sender { profile: shelved, source, ways: Vec::new() })
}

/// A source without a key: of those that use this profile, the ones whose proof holds as far as headers, body and address
/// tell. `None`: nobody's.
fn by_proof(
    settings: &SourceSettings,
    tenant: &TenantId,
    (profile, source): (&str, Option<&str>),
    headers: &HeaderMap,
    body: &[u8],
    peer: SocketAddr,
) -> Option<Sender> {
    let shelved = settings.shelf.named(profile)?;
    let verify = shelved.profile.verify.as_ref()?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let proves = |way: &&Source| {
        source.is_none_or(|source| way.source.as_str() == source)
            && way.sends_from(peer.ip())
            && (!matches!(verify, Verify::Address) || !way.addresses.is_empty())
            && verify.signed(header, body, &way.secrets())
    };
    let ways: Vec<Source> = settings.by_profile(tenant, profile).filter(proves).cloned().collect();
    let source = ways.first()?.source.clone();
    Some(Sender { profile: shelved, source, ways })
}

/// Whether every record has the secret that the profile asks of it.
pub(super) fn shares(profile: &Shelved, way: &Source, records: &[Outcome]) -> bool {
    let Some(verify) = &profile.profile.verify else { return false };
    records.iter().all(|record| verify.shares(record.proof.as_deref(), &way.secrets()))
}

/// Asks the source back what happened, and reads its answer in place of what came.
async fn confirmed(
    app: &App,
    profile: &Arc<Shelved>,
    way: &Source,
    records: Vec<Outcome>,
) -> Result<(Vec<u8>, Vec<Outcome>), Problem> {
    let (Some(asked), [one]) = (&way.callback, records.as_slice()) else { return Err(unproven(app)) };
    let Some(path) = &one.proof else { return Err(unproven(app)) };
    match callback::ask(asked, path).await {
        Ok(Some(answer)) => read(profile, answer).await,
        Ok(None) => Err(unproven(app)),
        Err(reason) => {
            app.metrics.ingest_refused.get_or_create(&Reason::new("callback")).inc();
            tracing::warn!(source = %way.source, "Source could not be asked back: {reason}. It must send it again.");
            Err(Problem::unavailable("The source could not be asked back; send it again."))
        }
    }
}

fn unproven(app: &App) -> Problem {
    app.metrics.ingest_refused.get_or_create(&Reason::new("unproven")).inc();
    static TOLD: AtomicI64 = AtomicI64::new(i64::MIN);
    let now = app.clock.now().as_second();
    let told = TOLD.load(Ordering::Relaxed);
    // Whoever has proven nothing must not fill the log.
    if now.saturating_sub(told) >= 60 && TOLD.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    {
        tracing::warn!(
            "A request to ingest was refused: its sender did not prove itself. The next minute is not told."
        );
    }
    let detail = "An API key is needed (Authorization: Bearer KEY), or the proof that the source's profile asks for.";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "Not authorized", detail)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    source: Option<String>,
    #[serde(default)]
    open: bool,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// What billing systems sent, the newest first; `open=true`: only where records were put aside.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/ingests",
    params(("tenant" = String, Path), ("source" = Option<String>, Query), ("open" = Option<bool>, Query),
        ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of inputs")))]
async fn list(State(app): State<App>, caller: Caller, Asked(query): Asked<ListQuery>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let source = caller.source(query.source.as_deref())?;
    let filter = IngestFilter {
        tenant: Some(caller.tenant.to_string()),
        source: source.map(|source| source.to_string()),
        open: query.open,
        before: cursor(query.cursor.as_deref())?,
        limit,
    };
    let rows = ingest::list(&mut app.store.read().await?, &filter).await?;
    let last = rows.last().map(|row| row.id.to_string());
    Ok(Json(page(rows.iter().map(shown).collect(), limit, last)))
}

/// One input with the records that were put aside, at most 1000 of them.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/ingests/{ingest}",
    params(("tenant" = String, Path), ("ingest" = String, Path)),
    responses((status = 200, description = "The input"), (status = 404, description = "No such input")))]
async fn show(State(app): State<App>, caller: Caller, At(path): At<(String, String)>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let mut tx = app.store.read().await?;
    let row = owned(&caller, &path.1, &mut tx).await?;
    Ok(Json(detailed(&mut tx, &row).await?))
}

async fn owned(caller: &Caller, id: &str, tx: &mut crate::store::Tx) -> Result<ingest::IngestRow, Problem> {
    let id = id.parse().map_err(|_| Problem::not_found())?;
    let row = ingest::one(tx, id).await?.filter(|row| row.tenant == caller.tenant.as_str());
    let bound = |row: &ingest::IngestRow| caller.source.as_ref().is_none_or(|source| source.as_str() == row.source);
    row.filter(bound).ok_or_else(Problem::not_found)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayQuery {
    #[serde(default)]
    force: bool,
}

/// Reads what was put aside of an input again, by the profile as it is now.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/ingests/{ingest}/replay",
    params(("tenant" = String, Path), ("ingest" = String, Path),
        ("force" = Option<bool>, Query, description = "Also for accounts that changed since it came")),
    responses((status = 200, description = "What became of it"), (status = 404, description = "No such input"),
        (status = 409, description = "What came is no longer kept, or its profile is gone")))]
async fn replay_one(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<ReplayQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(HANDLERS)?;
    let row = owned(&caller, &path.1, &mut app.store.read().await?).await?;
    let replayed = replay(&Desk::of(&app), &row, query.force, &caller.actor).await.map_err(|error| match error {
        ReplayError::Gone | ReplayError::NoProfile(_) => {
            Problem::conflict("cannot-replay", "Cannot be replayed", format!("{error}."))
        }
        ReplayError::Refused(problem) => problem,
        ReplayError::Store(error) => error.into(),
    })?;
    Ok(Json(replayed.document()))
}
