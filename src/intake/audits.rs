//! The audit over HTTP, for a tenant's administrators: who did what to whom, the newest first.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{ADMINS, Caller};
use super::problem::Problem;
use super::request::{Asked, cursor, limit, page};
use crate::store::accounts;
use crate::store::audit::{self, AuditFilter, AuditRow};
use crate::vocabulary::parse_instant;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    account: Option<String>,
    source: Option<String>,
    since: Option<String>,
    actor: Option<String>,
    action: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Deeds, the newest first: of one account, since an instant, by an actor (a part of its name), of actions that begin so.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/audit",
    params(("tenant" = String, Path), ("account" = Option<String>, Query), ("source" = Option<String>, Query),
        ("since" = Option<String>, Query), ("actor" = Option<String>, Query), ("action" = Option<String>, Query),
        ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of deeds"), (status = 404, description = "No such account")))]
async fn list(State(app): State<App>, caller: Caller, Asked(query): Asked<AuditQuery>) -> Result<Json<Value>, Problem> {
    caller.may(ADMINS)?;
    let limit = limit(query.limit)?;
    let since = query.since.as_deref().map(|text| {
        parse_instant(text).ok_or_else(|| Problem::bad_request("since: write for example 2026-11-01T00:00:00Z."))
    });
    let since = since.transpose()?;
    let mut tx = app.store.read().await?;
    // A key of one source must not see what was done to other sources' accounts.
    let account_id = match &query.account {
        Some(id) => {
            let key = caller.account(query.source.as_deref(), id)?;
            Some(accounts::find(&mut tx, &key).await?.ok_or_else(Problem::not_found)?.id)
        }
        None if caller.source.is_some() => {
            return Err(Problem::bad_request("A key of one source must name an account."));
        }
        None => None,
    };
    let filter = AuditFilter {
        tenant: Some(caller.tenant.as_str()),
        account_id,
        since,
        actor: query.actor.as_deref(),
        action: query.action.as_deref(),
        before: cursor(query.cursor.as_deref())?,
        limit,
    };
    let rows = audit::list(&mut tx, &filter).await?;
    let last = rows.last().map(|row| row.id.to_string());
    Ok(Json(page(rows.iter().map(shown).collect(), limit, last)))
}

/// A deed as HTTP and the command line show it.
pub fn shown(deed: &AuditRow) -> Value {
    json!({
        "id": deed.id.to_string(),
        "at": deed.at,
        "tenant": deed.tenant,
        "sequence": deed.sequence,
        "actor": deed.actor,
        "action": deed.action,
        "source": deed.account.as_ref().map(|(source, _)| source),
        "account": deed.account.as_ref().map(|(_, account)| account),
        "subject": if deed.erased { Value::Null } else { json!(deed.subject) },
        "detail": deed.detail,
        "erased": deed.erased,
    })
}
