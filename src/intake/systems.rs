//! Billing systems of a tenant over HTTP: how each comes in and how it is guarded, what one that is only observed would have
//! changed, and the next epoch of its revisions.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, OPERATORS, READERS};
use super::desk::Desk;
use super::problem::Problem;
use super::request::{Asked, At, Document, OptionalDocument, limit, page};
use super::sources::SourceSettings;
use crate::account::Loss;
use crate::store::sources::Observation;
use crate::store::{StoreError, Tx, breaker, sources};
use crate::vocabulary::{SourceId, TenantId, Timestamp};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(observations)).routes(routes!(epoch))
}

/// A source as it is guarded and comes in. No secrets.
pub async fn shown(
    tx: &mut Tx,
    settings: &SourceSettings,
    tenant: &TenantId,
    source: &SourceId,
    now: Timestamp,
) -> Result<Value, StoreError> {
    let of = (tenant.as_str(), source.as_str());
    let ways = settings.of(tenant, source);
    let ways: Vec<Value> = ways
        .map(|way| {
            let profiles = way.profiles.iter().filter_map(|name| settings.shelf.named(name));
            let profiles: Vec<Value> =
                profiles.map(|one| json!({ "name": one.profile.name, "digest": one.digest })).collect();
            json!({ "profiles": profiles, "inbox": way.inbox, "listen": way.listen })
        })
        .collect();
    let configured = settings.of(tenant, source).next();
    let limits = configured.map(|source| source.breaker).unwrap_or_default();
    let observed: serde_json::Map<String, Value> = sources::observed_counts(tx, of.0, of.1)
        .await?
        .into_iter()
        .map(|(would, count)| (would, json!(count)))
        .collect();
    let epochs = sources::epochs(tx, of.0, of.1).await?;
    Ok(json!({
        "tenant": tenant,
        "source": source,
        "mode": if configured.is_some_and(|source| source.observe) { "observe" } else { "live" },
        "ways": ways,
        "breaker": { "percent": limits.percent, "accounts": limits.accounts },
        "living": breaker::living(tx, of.0, of.1).await?,
        "taken_in_24_hours": breaker::taken(tx, of.0, of.1, now).await?,
        "held": breaker::count_of(tx, of.0, of.1).await?,
        "epoch": epochs.first().map_or(0, |epoch| epoch.epoch),
        "observed": observed,
    }))
}

/// What an observed source would have done to an account.
pub fn observation(seen: &Observation) -> Value {
    json!({
        "account": seen.account,
        "would": seen.would,
        "places": seen.places,
        "losses": seen.losses.iter().map(Loss::words).collect::<Vec<_>>(),
        "times": seen.times,
        "first_at": seen.first_at,
        "last_at": seen.last_at,
    })
}

/// The sources of a tenant that are configured, and `default`, in order.
pub fn named(settings: &SourceSettings, tenant: &TenantId) -> Vec<SourceId> {
    let mut all: Vec<SourceId> =
        settings.sources.iter().filter(|one| one.tenant == *tenant).map(|one| one.source.clone()).collect();
    all.push(SourceId::default());
    all.sort();
    all.dedup();
    all
}

/// The tenant's sources: ways in, guard, what is held and observed.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/sources",
    params(("tenant" = String, Path)), responses((status = 200, description = "The sources")))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let settings = app.sources.now();
    let mut tx = app.store.read().await?;
    let mut items = Vec::new();
    for source in named(&settings, &caller.tenant) {
        if caller.source.as_ref().is_none_or(|bound| *bound == source) {
            items.push(shown(&mut tx, &settings, &caller.tenant, &source, app.clock.now()).await?);
        }
    }
    Ok(Json(json!({ "items": items, "next": null })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObservationQuery {
    would: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// What a source with `mode = "observe"` would have changed, by account: the last push of each.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/sources/{source}/observations",
    params(("tenant" = String, Path), ("source" = String, Path),
        ("would" = Option<String>, Query, description = "create, update, unchanged, stale or close"),
        ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of observations")))]
async fn observations(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<ObservationQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let source = caller.source(Some(&path.1))?.unwrap_or_default();
    let of = (caller.tenant.as_str(), source.as_str());
    let after = query.cursor.unwrap_or_default();
    let mut tx = app.store.read().await?;
    let seen = sources::observations(&mut tx, of, query.would.as_deref(), &after, limit).await?;
    let last = seen.last().map(|seen| seen.account.clone());
    Ok(Json(page(seen.iter().map(observation).collect(), limit, last)))
}

/// Opens the next epoch of a source's revisions, after it was restored from a backup: lower ones count anew.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/sources/{source}/epoch",
    params(("tenant" = String, Path), ("source" = String, Path)),
    request_body(content = Option<serde_json::Value>, description = "Optional: reason"),
    responses((status = 200, description = "The epoch that is open now")))]
async fn epoch(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    OptionalDocument(body): OptionalDocument,
) -> Result<Json<Value>, Problem> {
    caller.may(OPERATORS)?;
    let source = caller.source(Some(&path.1))?.unwrap_or_default();
    let reason = reason(&body)?;
    let epoch = Desk::of(&app).open_epoch(&caller.tenant, &source, &caller.actor, reason).await?;
    Ok(Json(json!({ "source": source, "epoch": epoch })))
}

fn reason(body: &Document) -> Result<Option<&str>, Problem> {
    let known = body.value.as_object().is_some_and(|fields| fields.keys().all(|key| key == "reason"));
    let reason = &body.value["reason"];
    if !known || !(reason.is_null() || reason.as_str().is_some_and(|text| text.len() <= 500)) {
        return Err(Problem::bad_request("The body may have a `reason`, a text of at most 500 octets."));
    }
    Ok(reason.as_str())
}
