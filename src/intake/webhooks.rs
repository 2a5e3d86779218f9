//! Webhooks over HTTP: a tenant's endpoints, their secrets, what waits for them and what was given up.

use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{ADMINS, Caller, OPERATORS, READERS};
use super::idempotency::{Asking, Once, again};
use super::problem::Problem;
use super::request::{Asked, At, Document, PageQuery, cursor, limit, page};
use crate::outgoing::{SigningKey, Target};
use crate::store::events::{self, EventType, NewEvent};
use crate::store::outlets::{self, Change, DeliveryRow, NewOutlet, OutletKind, OutletRow, REPLAY_MAX, Replayed, Shape};
use crate::store::{StoreError, Tx, audit};
use crate::vocabulary::hex;
use crate::vocabulary::{Faults, Secret, Timestamp};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change, remove))
        .routes(routes!(rotate))
        .routes(routes!(deliveries))
        .routes(routes!(replay))
        .routes(routes!(test))
}

/// Endpoints of one tenant.
const WEBHOOKS_MAX: i64 = 100;
const TYPES_MAX: usize = 50;
const DESCRIPTION_MAX: usize = 200;
/// How long a rotated secret signs too, unless the caller says otherwise.
const KEEP_HOURS: u32 = 24;
const KEEP_HOURS_MAX: u32 = 24 * 30;
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(5);

/// The tenant's webhooks, by id, without their secrets.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/webhooks",
    params(("tenant" = String, Path), ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of webhooks")))]
async fn list(State(app): State<App>, caller: Caller, Asked(query): Asked<PageQuery>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let mut tx = app.store.read().await?;
    let after = query.cursor.as_deref().unwrap_or("");
    let rows = outlets::of_tenant(&mut tx, caller.tenant.as_str(), OutletKind::Webhook, after, limit).await?;
    let last = rows.last().map(|row| row.id.clone());
    Ok(Json(page(rows.iter().map(shown).collect(), limit, last)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBody {
    pub url: String,
    #[serde(default)]
    pub types: Vec<String>,
    #[serde(default)]
    pub description: String,
    pub secret: Option<Secret>,
}

/// Makes a webhook for what happens from now on. Its secret is shown only in this answer.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/webhooks",
    params(("tenant" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = serde_json::Value,
        description = "url (https, on the public Internet), types (absent or empty: all), description, secret (whsec_…; absent: one is made)"),
    responses((status = 201, description = "The webhook, with its secret"),
        (status = 409, description = "The tenant has as many as it may"), (status = 422, description = "Every fault")))]
async fn create(State(app): State<App>, caller: Caller, once: Once, body: Document) -> Result<Response, Problem> {
    caller.may(ADMINS)?;
    let tenant = caller.tenant.as_str();
    let asking = once.of(&body.octets);
    if let Some(kept) = asking.answered(&mut app.store.read().await?, tenant).await? {
        return Ok(again(kept));
    }
    let asked: NewBody = read(body)?;
    let registered = register(&app, &caller, asked, Shape::Standard, &asking, shown).await?;
    Ok((StatusCode::CREATED, Json(registered)).into_response())
}

/// Makes a webhook; how it is shown is the caller's, but for its secret where one was made.
///
/// **Errors**: every fault; 409 when the tenant has as many as it may.
pub(super) async fn register(
    app: &App,
    caller: &Caller,
    asked: NewBody,
    shape: Shape,
    asking: &Asking,
    shown: impl Fn(&OutletRow) -> Value,
) -> Result<Value, Problem> {
    let tenant = caller.tenant.as_str();
    let mut faults = Faults::new();
    check(app, Some(&asked.url), Some(&asked.types), Some(&asked.description), &mut faults).await;
    if let Some(Err(error)) = asked.secret.as_ref().map(SigningKey::parse) {
        faults.add("/secret", error.to_string());
    }
    faults.settle(()).map_err(Problem::invalid)?;
    let (id, made) = (new_id()?, new_secret().map_err(no_randomness)?);
    let given = asked.secret.is_some();
    let secret = asked.secret.unwrap_or(made);
    let sealed = app.store.sealer().seal(&outlets::secret_place(tenant, &id), &secret)?;
    let now = app.clock.now();
    let mut tx = app.store.write().await?;
    if outlets::count(&mut tx, tenant, OutletKind::Webhook).await? >= WEBHOOKS_MAX {
        let detail = format!("A tenant has at most {WEBHOOKS_MAX} webhooks.");
        return Err(Problem::conflict("webhooks", "Too many webhooks", detail));
    }
    let new = NewOutlet {
        id: &id,
        tenant,
        kind: OutletKind::Webhook,
        shape,
        url: &asked.url,
        types: &asked.types,
        description: &asked.description,
        secret: Some(&sealed),
    };
    outlets::insert(&mut tx, &new, now).await?;
    let detail = json!({ "host": host(&asked.url), "types": asked.types });
    note(&mut tx, caller, "webhook.create", &id, &detail, now).await?;
    let row = outlets::one(&mut tx, tenant, &id).await?.ok_or_else(Problem::internal)?;
    let mut answer = shown(&row);
    // What is kept for a repeated request must not hold the secret in clear.
    asking.keep(&mut tx, tenant, StatusCode::CREATED.as_u16(), &answer.to_string(), now).await?;
    tx.commit().await?;
    if !given {
        answer["secret"] = json!(secret.expose());
    }
    Ok(answer)
}

/// One webhook.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/webhooks/{id}", params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "The webhook"), (status = 404, description = "No such webhook")))]
async fn show(State(app): State<App>, caller: Caller, At(path): At<(String, String)>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let row = found(&mut app.store.read().await?, &caller, &path.1).await?;
    Ok(Json(shown(&row)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    url: Option<String>,
    types: Option<Vec<String>>,
    description: Option<String>,
    /// `enabled` or `disabled`.
    state: Option<Wanted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Enabled,
    Disabled,
}

/// Changes a webhook. One that is enabled again goes on where it stood.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}/webhooks/{id}", params(("tenant" = String, Path), ("id" = String, Path)),
    request_body(content = serde_json::Value, description = "url, types, description, state (enabled or disabled); what is absent stays"),
    responses((status = 200, description = "The webhook"), (status = 404, description = "No such webhook"),
        (status = 422, description = "Every fault")))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    body: Document,
) -> Result<Json<Value>, Problem> {
    caller.may(ADMINS)?;
    let asked: ChangeBody = read(body)?;
    let mut faults = Faults::new();
    check(&app, asked.url.as_deref(), asked.types.as_deref(), asked.description.as_deref(), &mut faults).await;
    faults.settle(()).map_err(Problem::invalid)?;
    let enabled = asked.state.map(|state| state == Wanted::Enabled);
    let detail = json!({ "host": asked.url.as_deref().and_then(host), "types": asked.types, "enabled": enabled });
    let change = Change { url: asked.url, types: asked.types, description: asked.description, enabled };
    let now = app.clock.now();
    let mut tx = app.store.write().await?;
    found(&mut tx, &caller, &path.1).await?;
    outlets::update(&mut tx, caller.tenant.as_str(), &path.1, &change, now).await?;
    note(&mut tx, &caller, "webhook.update", &path.1, &detail, now).await?;
    let row = found(&mut tx, &caller, &path.1).await?;
    tx.commit().await?;
    Ok(Json(shown(&row)))
}

/// Takes a webhook away, with everything that waits for it.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/webhooks/{id}", params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 204, description = "It is gone"), (status = 404, description = "No such webhook")))]
async fn remove(State(app): State<App>, caller: Caller, At(path): At<(String, String)>) -> Result<StatusCode, Problem> {
    caller.may(ADMINS)?;
    unregister(&app, &caller, &path.1, |_| true).await
}

/// Takes a webhook away, if it is one of those meant.
pub(super) async fn unregister(
    app: &App,
    caller: &Caller,
    id: &str,
    is_meant: impl Fn(&OutletRow) -> bool,
) -> Result<StatusCode, Problem> {
    let mut tx = app.store.write().await?;
    let row = found(&mut tx, caller, id).await?;
    if !is_meant(&row) {
        return Err(Problem::not_found());
    }
    outlets::delete(&mut tx, caller.tenant.as_str(), &row.id).await?;
    note(&mut tx, caller, "webhook.delete", &row.id, &json!({ "host": host(&row.url) }), app.clock.now()).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RotateBody {
    secret: Option<Secret>,
    keep_hours: Option<u32>,
}

/// Gives a webhook a new secret, shown only in this answer. For `keep_hours` (24) every delivery is signed with both.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/webhooks/{id}/rotate", params(("tenant" = String, Path), ("id" = String, Path)),
    request_body(content = serde_json::Value, description = "secret (absent: one is made), keep_hours (0 to 720)"),
    responses((status = 200, description = "The webhook, with its secret"), (status = 404, description = "No such webhook"),
        (status = 422, description = "Every fault")))]
async fn rotate(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    body: super::request::OptionalDocument,
) -> Result<Json<Value>, Problem> {
    caller.may(ADMINS)?;
    let asked: RotateBody = read(body.0)?;
    let mut faults = Faults::new();
    if let Some(Err(error)) = asked.secret.as_ref().map(SigningKey::parse) {
        faults.add("/secret", error.to_string());
    }
    let hours = asked.keep_hours.unwrap_or(KEEP_HOURS);
    if hours > KEEP_HOURS_MAX {
        faults.add("/keep_hours", format!("must be at most {KEEP_HOURS_MAX}"));
    }
    faults.settle(()).map_err(Problem::invalid)?;
    let given = asked.secret.is_some();
    let secret = match asked.secret {
        Some(secret) => secret,
        None => new_secret().map_err(no_randomness)?,
    };
    let tenant = caller.tenant.as_str();
    let sealed = app.store.sealer().seal(&outlets::secret_place(tenant, &path.1), &secret)?;
    let now = app.clock.now();
    let until = now.checked_add(jiff::SignedDuration::from_hours(i64::from(hours))).unwrap_or(Timestamp::MAX);
    let mut tx = app.store.write().await?;
    found(&mut tx, &caller, &path.1).await?;
    outlets::rotate(&mut tx, (tenant, &path.1), &sealed, until, now).await?;
    note(&mut tx, &caller, "webhook.rotate", &path.1, &json!({ "keep_hours": hours }), now).await?;
    let row = found(&mut tx, &caller, &path.1).await?;
    tx.commit().await?;
    let mut answer = shown(&row);
    if !given {
        answer["secret"] = json!(secret.expose());
    }
    Ok(Json(answer))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeliveryQuery {
    state: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Events that were not delivered at their first attempt, by number: `pending`, `delivered` later, or `dead` (given up).
#[utoipa::path(get, path = "/v1/tenants/{tenant}/webhooks/{id}/deliveries",
    params(("tenant" = String, Path), ("id" = String, Path), ("state" = Option<String>, Query), ("limit" = Option<i64>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of deliveries"), (status = 404, description = "No such webhook")))]
async fn deliveries(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<DeliveryQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let after = cursor(query.cursor.as_deref())?.unwrap_or(0);
    let mut tx = app.store.read().await?;
    let row = found(&mut tx, &caller, &path.1).await?;
    let rows = outlets::deliveries(&mut tx, &row.id, after, query.state.as_deref(), limit).await?;
    let last = rows.last().map(|row| row.sequence.to_string());
    let items = rows.iter().map(|delivery| self::delivery(&row, delivery)).collect();
    Ok(Json(page(items, limit, last)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    event: Option<i64>,
    from: Option<i64>,
    to: Option<i64>,
    #[serde(default)]
    dead: bool,
}

/// Sends events again, under the ids they had: one, a range of numbers, or all that were given up. At most 10,000 at once.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/webhooks/{id}/replay", params(("tenant" = String, Path), ("id" = String, Path)),
    request_body(content = serde_json::Value, description = "event (a sequence), or from and to, or dead: true"),
    responses((status = 202, description = "How many are sent again"), (status = 404, description = "No such webhook")))]
async fn replay(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    body: Document,
) -> Result<Response, Problem> {
    caller.may(OPERATORS)?;
    let asked: ReplayBody = read(body)?;
    let what = match (asked.event, asked.from, asked.to, asked.dead) {
        (Some(event), None, None, false) => Replayed::Range { from: event, to: event },
        (None, Some(from), Some(to), false) if from <= to && to - from < REPLAY_MAX => Replayed::Range { from, to },
        (None, None, None, true) => Replayed::Dead,
        _ => {
            let detail = format!("Name event, or from and to (at most {REPLAY_MAX} numbers), or dead: true.");
            return Err(Problem::bad_request(detail));
        }
    };
    let now = app.clock.now();
    let mut tx = app.store.write().await?;
    let row = found(&mut tx, &caller, &path.1).await?;
    let count = outlets::replay(&mut tx, &row, what, now).await?;
    let detail =
        json!({ "event": asked.event, "from": asked.from, "to": asked.to, "dead": asked.dead, "count": count });
    note(&mut tx, &caller, "webhook.replay", &row.id, &detail, now).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "replayed": count }))).into_response())
}

/// Sends a `webhook.test` event to this webhook alone, whatever types it wants.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/webhooks/{id}/test", params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 202, description = "The event that is sent"), (status = 404, description = "No such webhook")))]
async fn test(State(app): State<App>, caller: Caller, At(path): At<(String, String)>) -> Result<Response, Problem> {
    caller.may(OPERATORS)?;
    let mut tx = app.store.write().await?;
    let row = found(&mut tx, &caller, &path.1).await?;
    let sequence = try_out(&mut tx, &row, app.clock.now()).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "event": format!("{}.{sequence}", row.tenant) }))).into_response())
}

/// Appends the event that only this webhook is told.
pub async fn try_out(tx: &mut Tx, row: &OutletRow, now: Timestamp) -> Result<i64, StoreError> {
    let payload = json!({ "webhook": row.id });
    let event = NewEvent { tenant: &row.tenant, kind: EventType::WebhookTest, subject: &row.id, payload: &payload };
    events::append(tx, &event, now).await
}

async fn found(tx: &mut Tx, caller: &Caller, id: &str) -> Result<OutletRow, Problem> {
    let row = outlets::one(tx, caller.tenant.as_str(), id).await?;
    row.filter(|row| row.kind == OutletKind::Webhook).ok_or_else(Problem::not_found)
}

async fn note(
    tx: &mut Tx,
    caller: &Caller,
    action: &str,
    subject: &str,
    detail: &Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let tenant = Some(caller.tenant.as_str());
    audit::append(tx, &audit::Entry { tenant, actor: &caller.actor, action, account_id: None, subject, detail }, now)
        .await
}

/// **Errors**: a field that is missing, of another kind or not known.
fn read<T: DeserializeOwned>(body: Document) -> Result<T, Problem> {
    serde_json::from_value(body.value).map_err(|error| Problem::bad_request(error.to_string()))
}

/// What may not be registered. The guard looks again at every connection.
async fn check(app: &App, url: Option<&str>, types: Option<&[String]>, description: Option<&str>, faults: &mut Faults) {
    if let Some(url) = url
        && let Err(detail) = reachable(app, url).await
    {
        faults.add("/url", detail);
    }
    let types = types.unwrap_or_default();
    if types.len() > TYPES_MAX {
        faults.add("/types", format!("has more than {TYPES_MAX} types"));
    }
    for (index, kind) in types.iter().enumerate() {
        if !EventType::ALL.iter().any(|known| known.as_str() == kind) {
            let known: Vec<&str> = EventType::ALL.iter().map(|known| known.as_str()).collect();
            faults.add(format!("/types/{index}"), format!("is no type of event; there are {}", known.join(", ")));
        }
    }
    if let Some(text) = description
        && (text.chars().count() > DESCRIPTION_MAX || text.chars().any(char::is_control))
    {
        faults.add("/description", format!("is at most {DESCRIPTION_MAX} visible characters"));
    }
}

async fn reachable(app: &App, url: &str) -> Result<(), String> {
    let target = Target::parse(url).map_err(|error| error.to_string())?;
    let addresses = match target.host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => {
            let looking = tokio::net::lookup_host((target.host.as_str(), target.port));
            let found = tokio::time::timeout(LOOK_UP_PATIENCE, looking).await;
            match found {
                Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
                Ok(Err(_)) | Err(_) => return Err(format!("names {}, which cannot be looked up", target.host)),
            }
        }
    };
    app.allowed.of(&target, &addresses).map(drop).map_err(|error| error.to_string())
}

fn host(url: &str) -> Option<String> {
    Target::parse(url).ok().map(|target| target.host)
}

fn new_id() -> Result<String, Problem> {
    let mut octets = [0u8; 9];
    getrandom::fill(&mut octets).map_err(no_randomness)?;
    Ok(format!("wh_{}", hex(octets)))
}

/// A secret from the system's randomness.
///
/// **Errors**: the system has no randomness.
pub fn new_secret() -> Result<Secret, getrandom::Error> {
    let mut octets = [0u8; 32];
    getrandom::fill(&mut octets)?;
    Ok(SigningKey::text(&octets))
}

fn no_randomness(error: getrandom::Error) -> Problem {
    tracing::error!("The system has no randomness: {error}. A webhook got no secret.");
    Problem::internal()
}

/// A webhook as the API and the command line show it.
pub fn shown(row: &OutletRow) -> Value {
    json!({
        "id": row.id,
        "url": row.url,
        "types": row.types,
        "shape": row.shape.as_str(),
        "description": row.description,
        "state": if row.enabled { "enabled" } else { "disabled" },
        "because": row.because,
        "previous_secret_until": row.previous.as_ref().map(|(_, until)| until),
        "position": row.position,
        "slow_until": (row.slow_until > Timestamp::UNIX_EPOCH).then_some(row.slow_until),
        "failures": row.failures,
        "failing_since": row.failing_since,
        "delivered": row.delivered,
        "last_delivered_at": row.last_delivered_at,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    })
}

/// A delivery as the API and the command line show it.
pub fn delivery(row: &OutletRow, delivery: &DeliveryRow) -> Value {
    json!({
        "event": format!("{}.{}", row.tenant, delivery.sequence),
        "sequence": delivery.sequence,
        "subject": delivery.subject,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "next_at": delivery.next_at,
        "status": delivery.status,
        "detail": delivery.detail,
        "updated_at": delivery.updated_at,
    })
}
