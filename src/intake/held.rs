//! Changes of billing systems that wait for an operator, over HTTP: looked at, released, dropped.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, OPERATORS, READERS};
use super::deeds::{Deed, Settle};
use super::desk::Desk;
use super::problem::Problem;
use super::request::{Asked, At, cursor, limit, page};
use crate::account::Loss;
use crate::store::StoreError;
use crate::store::breaker::{self, HeldChange};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(release)).routes(routes!(drop_one))
}

/// A change that waits, as lists show it: what it takes away, and nothing that is sealed.
pub fn shown(held: &HeldChange) -> Value {
    json!({
        "id": held.id.to_string(),
        "tenant": held.key.tenant,
        "source": held.key.source,
        "account": held.key.external_id,
        "service": held.service,
        "kind": held.kind.as_str(),
        "reasons": held.losses.iter().map(Loss::words).collect::<Vec<_>>(),
        "source_revision": held.source_revision,
        "sent_by": held.actor,
        "origin": held.origin,
        "times": held.times,
        "held_at": held.held_at,
        "updated_at": held.updated_at,
    })
}

/// Why an operator's decision was not done.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    #[error("nothing with this number waits")]
    NotFound,
    #[error("{}", .0.document()["detail"].as_str().unwrap_or("it was refused"))]
    Refused(Problem),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Desk {
    /// Does a change that waits now, whatever it takes away, or drops it.
    ///
    /// **Errors**: as `SettleError`; it waits on.
    pub async fn settle(&self, held: &HeldChange, release: bool, by: &str) -> Result<Value, SettleError> {
        let settle = Settle { key: held.key.clone(), id: held.id, actor: by.to_owned(), release };
        match self.perform(Deed::Settle(settle)).await {
            Ok(done) => Ok(done.body),
            Err(problem) if problem.status() == axum::http::StatusCode::NOT_FOUND => Err(SettleError::NotFound),
            Err(problem) => Err(SettleError::Refused(problem)),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldQuery {
    source: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// What waits, the oldest first.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/held",
    params(("tenant" = String, Path), ("source" = Option<String>, Query), ("limit" = Option<i64>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of changes that wait")))]
async fn list(State(app): State<App>, caller: Caller, Asked(query): Asked<HeldQuery>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let source = caller.source(query.source.as_deref())?;
    let source = source.as_ref().map(crate::vocabulary::SourceId::as_str);
    let after = cursor(query.cursor.as_deref())?;
    let mut tx = app.store.read().await?;
    let held = breaker::list(&mut tx, Some(caller.tenant.as_str()), source, after, limit).await?;
    let last = held.last().map(|held| held.id.to_string());
    Ok(Json(page(held.iter().map(shown).collect(), limit, last)))
}

/// One that waits.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/held/{held}",
    params(("tenant" = String, Path), ("held" = String, Path)),
    responses((status = 200, description = "The change"), (status = 404, description = "Nothing with this number waits")))]
async fn show(State(app): State<App>, caller: Caller, At(path): At<(String, String)>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    Ok(Json(shown(&owned(&app, &caller, &path.1).await?)))
}

/// Does it now, whatever it takes away.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/held/{held}/release",
    params(("tenant" = String, Path), ("held" = String, Path)),
    responses((status = 200, description = "Done: the account, or what is closed"),
        (status = 404, description = "Nothing with this number waits"),
        (status = 409, description = "It cannot be done now"), (status = 422, description = "The catalog no longer has it")))]
async fn release(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
) -> Result<Json<Value>, Problem> {
    settle(&app, &caller, &path.1, true).await
}

/// Drops it: the account stays as it is until its source sends it again.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/held/{held}/drop",
    params(("tenant" = String, Path), ("held" = String, Path)),
    responses((status = 200, description = "Dropped"), (status = 404, description = "Nothing with this number waits")))]
async fn drop_one(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
) -> Result<Json<Value>, Problem> {
    settle(&app, &caller, &path.1, false).await
}

async fn settle(app: &App, caller: &Caller, id: &str, release: bool) -> Result<Json<Value>, Problem> {
    caller.may(OPERATORS)?;
    let held = owned(app, caller, id).await?;
    match Desk::of(app).settle(&held, release, &caller.actor).await {
        Ok(body) => Ok(Json(body)),
        Err(SettleError::NotFound) => Err(Problem::not_found()),
        Err(SettleError::Refused(problem)) => Err(problem),
        Err(SettleError::Store(error)) => Err(error.into()),
    }
}

async fn owned(app: &App, caller: &Caller, id: &str) -> Result<HeldChange, Problem> {
    let id = id.parse().map_err(|_| Problem::not_found())?;
    let held = breaker::one(&mut app.store.read().await?, id).await?;
    let held = held.filter(|held| held.key.tenant == caller.tenant);
    let bound = |held: &HeldChange| caller.source.as_ref().is_none_or(|source| *source == held.key.source);
    held.filter(bound).ok_or_else(Problem::not_found)
}
