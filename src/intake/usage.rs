//! Sessions and usage over HTTP: what the fold made of accounting, without a key to any other tenant's.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, READERS};
use super::history::Case;
use super::problem::Problem;
use super::request::{Asked, At, cursor, limit, page};
use crate::billing::view::{self, By, ViewError};
use crate::store::usage::{SessionFilter, list as list_sessions, of_account};
use crate::store::{accounts, cycles};
use crate::usage::Wide;
use crate::vocabulary::{Timestamp, parse_instant};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(sessions)).routes(routes!(usage))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionQuery {
    account: Option<String>,
    source: Option<String>,
    user: Option<String>,
    session: Option<String>,
    nas: Option<String>,
    /// `open`, `stale`, `stopped` or `closed`.
    state: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Sessions of the tenant's subscribers, in the order they were first heard of.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/sessions",
    responses((status = 200, description = "A page of sessions")),
    params(("tenant" = String, Path), ("account" = Option<String>, Query), ("source" = Option<String>, Query),
        ("user" = Option<String>, Query), ("session" = Option<String>, Query), ("nas" = Option<String>, Query),
        ("state" = Option<String>, Query), ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query),
        ("Lastmile-Case" = Option<String>, Header)))]
async fn sessions(
    State(app): State<App>,
    caller: Caller,
    case: Case,
    Asked(query): Asked<SessionQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    // Who asks for one person's sessions leaves a deed; who pages through all of them looks for nobody.
    let of_somebody = query.account.is_some() || query.user.is_some() || query.session.is_some();
    let mut tx = if of_somebody { app.store.write().await? } else { app.store.read().await? };
    let account_id = match &query.account {
        None => None,
        Some(id) => {
            let key = caller.account(query.source.as_deref(), id)?;
            Some(accounts::find(&mut tx, &key).await?.ok_or_else(Problem::not_found)?.id)
        }
    };
    if of_somebody {
        let subject = query.account.clone().unwrap_or_else(|| "a user's sessions".to_owned());
        case.look(&app, &mut tx, &caller, "history.sessions", (account_id, &subject), &json!({})).await?;
    }
    let filter = SessionFilter {
        tenant: Some(caller.tenant.to_string()),
        source: caller.source(query.source.as_deref())?.map(|source| source.to_string()),
        account_id,
        user: query.user,
        session: query.session,
        nas: query.nas,
        state: query.state,
        unattributed: false,
        after: cursor(query.cursor.as_deref())?.unwrap_or(0),
        limit,
    };
    let listed = list_sessions(&mut tx, &filter).await?;
    tx.commit().await?;
    let last = listed.last().map(|session| session.id.to_string());
    Ok(Json(page(listed.iter().map(|session| json!(session)).collect(), limit, last)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageQuery {
    source: Option<String>,
    from: Option<String>,
    to: Option<String>,
    by: Option<String>,
}

/// An account's usage in `[from, to)`, by service and hour, day or billing period; without a range the running period.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/accounts/{account}/usage",
    responses((status = 200, description = "Usage and its total"), (status = 404, description = "No such account")),
    params(("tenant" = String, Path), ("account" = String, Path), ("source" = Option<String>, Query),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query), ("by" = Option<String>, Query)))]
async fn usage(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<UsageQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let by: By = query.by.as_deref().unwrap_or("cycle").parse().map_err(|error| bad("by", error))?;
    let (from, to) = (instant("from", query.from.as_deref())?, instant("to", query.to.as_deref())?);
    let key = caller.account(query.source.as_deref(), &path.1)?;
    let mut tx = app.store.read().await?;
    let id = accounts::find(&mut tx, &key).await?.ok_or_else(Problem::not_found)?.id;
    let cycle = cycles::of_account(&mut tx, id).await?.unwrap_or_else(view::fallback_cycle);
    let period = cycle.period_at(from.unwrap_or_else(|| app.clock.now())).map_err(|error| bad("from", error))?;
    let (from, to) = (from.unwrap_or(period.start), to.unwrap_or(period.end));
    if from >= to {
        return Err(Problem::bad_request("`from` must be before `to`."));
    }
    let edges = view::edges(&cycle, from, to).map_err(|error| bad("from", error))?;
    let pieces = of_account(&mut tx, id, from, to, &edges).await?;
    let rows = view::sum(pieces.into_iter().map(|piece| (piece.service, piece.from_at, piece.amount)), &cycle, by);
    let rows = rows.map_err(|error: ViewError| bad("by", error))?;
    let total = view::total(&rows);
    let items: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut item = amounts(row.amount);
            item["service"] = json!(row.service);
            item["from"] = json!(row.from);
            item["to"] = json!(row.until);
            item
        })
        .collect();
    Ok(Json(json!({
        "account": key.external_id,
        "source": key.source,
        "cycle": cycle.id,
        "timezone": cycle.timezone,
        "from": from,
        "to": to,
        "items": items,
        "total": amounts(total),
    })))
}

fn amounts(amount: Wide) -> Value {
    json!({
        "in_octets": view::digits(amount.in_octets),
        "out_octets": view::digits(amount.out_octets),
        "seconds": view::digits(amount.seconds),
        "sessions": view::digits(amount.sessions),
    })
}

fn instant(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let read = |text| parse_instant(text).ok_or_else(|| bad(name, "write for example 2026-11-01T00:00:00Z"));
    text.map(read).transpose()
}

fn bad(name: &str, reason: impl std::fmt::Display) -> Problem {
    Problem::bad_request(format!("{name}: {reason}."))
}
