//! The queue of what a person must look at, over HTTP.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, READERS};
use super::problem::Problem;
use super::request::{Asked, cursor, limit, page};
use crate::store::exceptions::{self, ExceptionFilter};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExceptionQuery {
    kind: Option<String>,
    #[serde(default)]
    all: bool,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Open exceptions of the tenant, the newest first; `all=true` also shows released and sleeping ones.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/exceptions",
    params(("tenant" = String, Path), ("kind" = Option<String>, Query), ("all" = Option<bool>, Query),
        ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of exceptions")))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<ExceptionQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let filter = ExceptionFilter {
        tenant: Some(caller.tenant.to_string()),
        kind: query.kind,
        all: query.all,
        before: cursor(query.cursor.as_deref())?,
        limit,
    };
    let mut tx = app.store.read().await?;
    let rows = exceptions::list(&mut tx, &filter, app.clock.now()).await?;
    let last = rows.last().map(|row| row.id.to_string());
    let shown = rows.iter().map(|row| {
        json!({
            "id": row.id.to_string(),
            "kind": row.kind,
            "subject": row.subject,
            "detail": row.detail,
            "occurrences": row.occurrences,
            "opened_at": row.opened_at,
            "updated_at": row.updated_at,
            "snoozed_until": row.snoozed_until,
            "released_at": row.released_at,
            "released_by": row.released_by,
        })
    });
    Ok(Json(page(shown.collect(), limit, last)))
}
