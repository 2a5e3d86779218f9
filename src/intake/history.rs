//! What is asked at 3 a.m. over HTTP: find anything by its name, who had an address, what happened with an account. Whoever
//! looks at addresses and sessions leaves a deed in the audit, with the case it is for (`Lastmile-Case`).

use std::net::IpAddr;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use jiff::ToSpan;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, READERS, TRACERS};
use super::problem::Problem;
use super::request::{Asked, At, limit, page};
use crate::store::find::{self, Within};
use crate::store::{Tx, accounts, audit, leases, timeline};
use crate::vocabulary::{Timestamp, parse_instant};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(find_any)).routes(routes!(who)).routes(routes!(account_timeline))
}

/// The number of the case somebody looks for; an extractor.
pub struct Case(Option<String>);

const CASE_MAX: usize = 128;

impl FromRequestParts<App> for Case {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("lastmile-case") else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or_default().trim();
        match (1..=CASE_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
            true => Ok(Self(Some(text.to_owned()))),
            false => Err(Problem::bad_request(format!("Lastmile-Case must be 1 to {CASE_MAX} visible characters."))),
        }
    }
}

impl Case {
    /// Notes in the audit that somebody looks at history, in the transaction that reads it.
    ///
    /// **Errors**: the tenant asks for a case, and none is named.
    pub async fn look(
        &self,
        app: &App,
        tx: &mut Tx,
        caller: &Caller,
        action: &str,
        (account_id, subject): (Option<i64>, &str),
        detail: &Value,
    ) -> Result<(), Problem> {
        if self.0.is_none() && app.catalogs.current(tx, &caller.tenant).await?.known.history_needs_case {
            let detail = "This tenant asks for the number of the case: Lastmile-Case.";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "case-needed", "A case is needed", detail));
        }
        let mut detail = detail.clone();
        detail["case"] = json!(self.0);
        let entry = audit::Entry {
            tenant: Some(caller.tenant.as_str()),
            actor: &caller.actor,
            action,
            account_id,
            subject,
            detail: &detail,
        };
        Ok(audit::append(tx, &entry, app.clock.now()).await?)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FindQuery {
    q: String,
    source: Option<String>,
    limit: Option<i64>,
}

/// Whatever has this id or name: account, service, MAC, login, mailbox, number, address, session, line, batch; only when
/// nothing has, the accounts whose document has the word in it.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/find",
    params(("tenant" = String, Path), ("q" = String, Query), ("source" = Option<String>, Query),
        ("limit" = Option<i64>, Query)),
    responses((status = 200, description = "What was found; perhaps nothing")))]
async fn find_any(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<FindQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let limit = limit(query.limit)?;
    let word = query.q.trim();
    if word.is_empty() || word.len() > WORD_MAX {
        return Err(Problem::bad_request(format!("q must be 1 to {WORD_MAX} octets.")));
    }
    let source = caller.source(query.source.as_deref())?;
    let within = Within {
        tenant: Some(caller.tenant.as_str()),
        source: source.as_ref().map(crate::vocabulary::SourceId::as_str),
    };
    let found = find::find(&mut app.store.read().await?, word, within, limit).await?;
    Ok(Json(page(found.iter().map(|found| json!(found)).collect(), limit, None)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhoQuery {
    address: String,
    at: Option<String>,
}

/// Which of the tenant's subscribers had an address at an instant (now when it is not named): by DHCP, by RADIUS, as a static
/// address.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/who",
    params(("tenant" = String, Path), ("address" = String, Query), ("at" = Option<String>, Query),
        ("Lastmile-Case" = Option<String>, Header)),
    responses((status = 200, description = "Who had it; perhaps nobody of this tenant")))]
async fn who(
    State(app): State<App>,
    caller: Caller,
    case: Case,
    Asked(query): Asked<WhoQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(TRACERS)?;
    let address: IpAddr =
        query.address.parse().map_err(|_| Problem::bad_request("address must be an IPv4 or IPv6 address."))?;
    let at = instant("at", query.at.as_deref())?.unwrap_or_else(|| app.clock.now());
    let mut tx = app.store.write().await?;
    let mut found = leases::holders_at(&mut tx, address.to_canonical(), at).await?;
    let source = caller.source.as_ref().map(|source| source.as_str());
    found.retain(|holder| {
        holder.tenant.as_deref() == Some(caller.tenant.as_str())
            && source.is_none_or(|source| holder.account_source.as_deref() == Some(source))
    });
    let detail = json!({ "address": address, "at": at });
    for holder in &found {
        let of = (holder.account_id, holder.account.as_deref().unwrap_or_default());
        case.look(&app, &mut tx, &caller, "history.who", of, &detail).await?;
    }
    if found.is_empty() {
        case.look(&app, &mut tx, &caller, "history.who", (None, "nobody"), &json!({})).await?;
    }
    tx.commit().await?;
    Ok(Json(json!({ "items": found, "next": null })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimelineQuery {
    source: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<i64>,
}

/// What happened with an account in `[from, to)`, the newest first: deeds, jobs, sessions, leases, lines, charges, holds, calls,
/// exceptions. Without a range the last 30 days.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/accounts/{id}/timeline",
    params(("tenant" = String, Path), ("id" = String, Path), ("source" = Option<String>, Query),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query), ("limit" = Option<i64>, Query),
        ("Lastmile-Case" = Option<String>, Header)),
    responses((status = 200, description = "What happened"), (status = 404, description = "No such account")))]
async fn account_timeline(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    case: Case,
    Asked(query): Asked<TimelineQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(TRACERS)?;
    let limit = limit(query.limit)?;
    let key = caller.account(query.source.as_deref(), &path.1)?;
    let to = instant("to", query.to.as_deref())?.unwrap_or_else(|| app.clock.now());
    let usual = to.checked_sub((USUAL_DAYS * 24).hours()).unwrap_or(to);
    let from = instant("from", query.from.as_deref())?.unwrap_or(usual);
    let mut tx = app.store.write().await?;
    let row = accounts::find(&mut tx, &key).await?.ok_or_else(Problem::not_found)?;
    let subject = accounts::subject_of(&row);
    let detail = json!({ "from": from, "to": to });
    case.look(&app, &mut tx, &caller, "history.timeline", (Some(row.id), &subject), &detail).await?;
    tx.commit().await?;
    let moments = timeline::of_account(&mut app.store.read().await?, &row, from, to, limit).await?;
    Ok(Json(page(moments.iter().map(|moment| json!(moment)).collect(), limit, None)))
}

fn instant(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let bad = || Problem::bad_request(format!("{name}: write for example 2026-11-01T00:00:00Z."));
    text.map(|text| parse_instant(text).ok_or_else(bad)).transpose()
}

const WORD_MAX: usize = 200;
/// How far back a timeline goes unless it is told.
const USUAL_DAYS: i64 = 30;
