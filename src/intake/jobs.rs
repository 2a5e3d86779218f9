//! Jobs over HTTP: the list, one job, asking for one again.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, HANDLERS, READERS};
use super::problem::Problem;
use super::request::{Asked, At, cursor, limit, page};
use crate::store::jobs::{self, JobFilter, JobRow};
use crate::store::{accounts, audit};
use crate::vocabulary::AccountKey;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(retry))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobQuery {
    state: Option<String>,
    account: Option<String>,
    source: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// A job as the API shows it.
pub(super) fn shown(job: &JobRow) -> Value {
    json!({
        "id": job.id.to_string(),
        "source": job.source,
        "account": job.account,
        "kind": job.kind,
        "key": job.key,
        "state": job.state.word(),
        "attempts": job.attempts,
        "target_revision": job.target_revision,
        "desired_revision": job.desired_revision,
        "run_at": job.run_at,
        "last_error": job.last_error,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "finished_at": job.finished_at,
    })
}

/// Whether a job is of the caller's tenant, and of its source where the key is bound to one.
fn is_own(job: &JobRow, caller: &Caller) -> bool {
    job.tenant == caller.tenant.as_str() && caller.source.as_ref().is_none_or(|source| job.source == source.as_str())
}

/// Jobs of the tenant, the newest first.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/jobs", responses((status = 200, description = "A page of jobs")),
    params(("tenant" = String, Path), ("state" = Option<String>, Query), ("account" = Option<String>, Query),
        ("source" = Option<String>, Query), ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)))]
async fn list(State(app): State<App>, caller: Caller, Asked(query): Asked<JobQuery>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let mut tx = app.store.read().await?;
    let account_id = match &query.account {
        None => None,
        Some(id) => {
            let key: AccountKey = caller.account(query.source.as_deref(), id)?;
            Some(accounts::find(&mut tx, &key).await?.ok_or_else(Problem::not_found)?.id)
        }
    };
    let filter = JobFilter {
        tenant: Some(caller.tenant.to_string()),
        account_id,
        source: caller.source(query.source.as_deref())?.map(|source| source.to_string()),
        state: query.state,
        before: cursor(query.cursor.as_deref())?,
        limit,
        ..JobFilter::default()
    };
    let rows = jobs::list(&mut tx, &filter).await?;
    let last = rows.last().map(|job| job.id.to_string());
    Ok(Json(page(rows.iter().map(shown).collect(), limit, last)))
}

/// One job.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/jobs/{job}", params(("tenant" = String, Path), ("job" = String, Path)),
    responses((status = 200, description = "The job"), (status = 404, description = "No such job")))]
async fn show(State(app): State<App>, caller: Caller, At(path): At<(String, String)>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let mut tx = app.store.read().await?;
    let id = path.1.parse().map_err(|_| Problem::not_found())?;
    let job = jobs::one(&mut tx, id).await?.filter(|job| is_own(job, &caller));
    Ok(Json(shown(&job.ok_or_else(Problem::not_found)?)))
}

/// Asks for a failed or waiting job again, from now.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/jobs/{job}/retry",
    params(("tenant" = String, Path), ("job" = String, Path)),
    responses((status = 202, description = "It is due again"), (status = 404, description = "No such job"),
        (status = 409, description = "It is running")))]
async fn retry(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
) -> Result<(axum::http::StatusCode, Json<Value>), Problem> {
    caller.may(HANDLERS)?;
    let id = path.1.parse().map_err(|_| Problem::not_found())?;
    let now = app.clock.now();
    let mut tx = app.store.write().await?;
    let known = jobs::one(&mut tx, id).await?.filter(|job| is_own(job, &caller));
    let known = known.ok_or_else(Problem::not_found)?;
    let again = match jobs::retry(&mut tx, id, now).await?.ok_or_else(Problem::not_found)? {
        Ok(again) => again,
        Err(refusal) => return Err(Problem::conflict("job-state", "The job cannot be asked for", refusal.to_string())),
    };
    let entry = audit::Entry {
        tenant: Some(caller.tenant.as_str()),
        actor: &caller.actor,
        action: "job.retry",
        account_id: Some(known.account_id),
        subject: &format!("{} {}", known.kind, known.key),
        detail: &json!({ "job": known.id }),
    };
    audit::append(&mut tx, &entry, now).await?;
    tx.commit().await?;
    Ok((axum::http::StatusCode::ACCEPTED, Json(shown(&again))))
}
