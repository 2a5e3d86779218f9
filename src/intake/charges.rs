//! Charges posted for an account over HTTP: one-off charges, credits, deposits and their return. Each is stored once and
//! billed by the next run of the account's cycle that closes the period of its day.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::ToSpan;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{CHARGERS, Caller, READERS};
use super::idempotency::{Once, again};
use super::problem::Problem;
use super::request::{Asked, At, Document, cursor, limit, page};
use crate::billing::charges::{PostedCharge, Posting};
use crate::catalog::Catalog;
use crate::store::accounts::AccountRow;
use crate::store::charges::{self, NewCharge, PostedRow};
use crate::store::rating::posted_by;
use crate::store::{Tx, accounts, audit, catalog};
use crate::vocabulary::{Date, Fault, Timestamp};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(post, list))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChargeQuery {
    source: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Posts a charge: `type` is one_off, credit, deposit or deposit_return; `amount` is of one piece and above zero. With an
/// `id` of its own, or an Idempotency-Key, it is safe to repeat.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/accounts/{id}/charges",
    params(("tenant" = String, Path), ("id" = String, Path), ("source" = Option<String>, Query),
        ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = serde_json::Value, description = "type, amount, quantity, id, service, description, on, tariff, \
        charge, tax_category, tax_jurisdiction"),
    responses((status = 201, description = "The stored charge"), (status = 200, description = "It was there already"),
        (status = 404, description = "No such account"), (status = 409, description = "The id has another charge"),
        (status = 422, description = "Every fault")))]
async fn post(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<ChargeQuery>,
    once: Once,
    body: Document,
) -> Result<Response, Problem> {
    caller.may(CHARGERS)?;
    let key = caller.account(query.source.as_deref(), &path.1)?;
    let (posting, faults) = Posting::read(&body.value);
    let asking = once.of(&body.octets);
    let tenant = caller.tenant.as_str();
    let mut tx = app.store.write().await?;
    if let Some(kept) = asking.answered(&mut tx, tenant).await? {
        return Ok(again(kept));
    }
    let row = accounts::find_locked(&mut tx, &key).await?.ok_or_else(Problem::not_found)?;
    if faults.is_empty()
        && let Some(id) = &posting.id
        && let Some(known) = charges::named(&mut tx, row.id, id).await?
    {
        if known.posting != posting {
            let detail = format!("Charge {id:?} of this account was posted before with other content.");
            return Err(Problem::conflict("charge-reused", "Charge id reused", detail));
        }
        return Ok(Json(shown(&known)).into_response());
    }
    let now = app.clock.now();
    let in_force = catalog::in_force(&mut tx, tenant).await?.ok_or_else(Problem::not_found)?.catalog;
    let on = checked(&mut tx, (&posting, faults), &row, &in_force, now).await?;
    let new = NewCharge {
        tenant,
        account_id: row.id,
        cycle: &row.document.bill_cycle,
        on,
        currency: in_force.currency,
        posting: &posting,
        posted_by: &caller.actor,
    };
    let id = charges::insert(&mut tx, &new, now).await?;
    let answer = shown(&PostedRow {
        id,
        cycle: row.document.bill_cycle.clone(),
        on,
        currency: in_force.currency,
        posting: posting.clone(),
        posted_by: caller.actor.clone(),
        created_at: now,
    });
    let detail = json!({ "charge": answer["id"], "type": posting.kind, "amount": posting.amount });
    let entry = audit::Entry {
        tenant: Some(tenant),
        actor: &caller.actor,
        action: "charge.post",
        account_id: Some(row.id),
        subject: &accounts::subject(&key),
        detail: &detail,
    };
    audit::append(&mut tx, &entry, now).await?;
    asking.keep(&mut tx, tenant, StatusCode::CREATED.as_u16(), &answer.to_string(), now).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Checks what a charge names, beside the faults it has by itself, and gives its day.
async fn checked(
    tx: &mut Tx,
    (posting, mut faults): (&Posting, Vec<Fault>),
    row: &AccountRow,
    in_force: &Catalog,
    now: Timestamp,
) -> Result<Date, Problem> {
    let mut fault = |pointer: &str, detail: String| faults.push(Fault { pointer: pointer.to_owned(), detail });
    let cycle = in_force.cycles.get(&row.document.bill_cycle).map(|cycle| &cycle.calendar);
    let today = cycle.map_or_else(|| now.to_zoned(in_force.zone.clone()).date(), |cycle| cycle.day_of(now));
    let on = posting.on.unwrap_or(today);
    let earliest = today.checked_sub(i64::from(in_force.backdate_days).days()).unwrap_or(Date::MIN);
    let latest = today.checked_add(MOST_DAYS_AHEAD.days()).unwrap_or(Date::MAX);
    if on < earliest || latest < on {
        fault("/on", format!("must be from {earliest} to {latest}"));
    }
    if let Some(service) = &posting.service
        && !accounts::services(tx, row.id).await?.iter().any(|known| known.external_id == *service)
    {
        fault("/service", format!("{service:?} is no service of this account"));
    }
    let book = catalog::tariff_book(tx, &row.tenant).await?;
    let base = posting.tariff.as_ref().and_then(|name| posted_by(&book, name, on, now));
    match &posting.tariff {
        Some(name) if base.is_none() => fault("/tariff", format!("there is no tariff {name:?}")),
        _ if faults.is_empty() => {
            if let Err(why) = PostedCharge::of("checked", posting, on, base, in_force.currency, now) {
                faults.push(Fault { pointer: "/charge".to_owned(), detail: why });
            }
        }
        _ => {}
    }
    if faults.is_empty() { Ok(on) } else { Err(Problem::invalid(faults)) }
}

/// Charges posted for an account, in the order they came.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/accounts/{id}/charges",
    params(("tenant" = String, Path), ("id" = String, Path), ("source" = Option<String>, Query),
        ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of charges"), (status = 404, description = "No such account")))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    At(path): At<(String, String)>,
    Asked(query): Asked<ChargeQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let key = caller.account(query.source.as_deref(), &path.1)?;
    let limit = limit(query.limit)?;
    let after = cursor(query.cursor.as_deref())?.unwrap_or(0);
    let mut tx = app.store.read().await?;
    let row = accounts::find(&mut tx, &key).await?.ok_or_else(Problem::not_found)?;
    let rows = charges::list(&mut tx, row.id, after, limit).await?;
    let last = rows.last().map(|row| row.id.to_string());
    Ok(Json(page(rows.iter().map(shown).collect(), limit, last)))
}

fn shown(row: &PostedRow) -> Value {
    json!({
        "id": charges::public_id(row.id),
        "charge": row.posting,
        "cycle": row.cycle,
        "on": row.on,
        "posted_by": row.posted_by,
        "created_at": row.created_at,
    })
}

const MOST_DAYS_AHEAD: i64 = 400;
