//! What accounts of the tenant gave up and is kept from others for a while, over HTTP.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, READERS};
use super::problem::Problem;
use super::request::{Asked, limit, page};
use crate::store::quarantine::{self, KeptFilter};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuarantineQuery {
    #[serde(default)]
    all: bool,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Mail addresses, phone numbers and static addresses that the tenant's accounts gave up, by kind and value; `all=true` also shows those
/// that are free again.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/quarantine",
    params(("tenant" = String, Path), ("all" = Option<bool>, Query), ("limit" = Option<i64>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of what is kept, each with until when")))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<QuarantineQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let after = match &query.cursor {
        Some(cursor) => {
            let place = cursor.split_once(':').map(|(kind, value)| (kind.to_owned(), value.to_owned()));
            Some(place.ok_or_else(|| Problem::bad_request("cursor is not one that was answered."))?)
        }
        None => None,
    };
    let filter = KeptFilter { tenant: Some(caller.tenant.to_string()), kind: None, all: query.all, after, limit };
    let rows = quarantine::list(&mut app.store.read().await?, &filter, app.clock.now()).await?;
    let last = rows.last().map(|kept| format!("{}:{}", kept.kind.as_str(), kept.value));
    let shown = rows.iter().map(|kept| {
        json!({
            "kind": kept.kind.as_str(),
            "value": kept.value,
            "source": kept.source,
            "account": kept.account,
            "from_at": kept.from_at,
            "until_at": kept.until_at,
            "released_at": kept.released_at,
            "released_by": kept.released_by,
        })
    });
    Ok(Json(page(shown.collect(), limit, last)))
}
