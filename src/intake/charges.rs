//! Charges posted for an account over HTTP: one-off charges, credits, deposits and their return, top-ups. Each is stored
//! once and billed by the next run of the account's cycle that closes the period of its day. A top-up counts at once, and
//! what had stopped without it goes on.

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
use crate::billing::calendar::BillCycle;
use crate::billing::charges::{PostedCharge, Posting, PostingKind};
use crate::billing::facts::TariffBook;
use crate::billing::top_up::{NewGrant, new_grant};
use crate::catalog::Catalog;
use crate::store::accounts::AccountRow;
use crate::store::charges::{self, NewCharge, PostedRow};
use crate::store::grants::{self, For, GrantRow};
use crate::store::rating::posted_by;
use crate::store::{Tx, accounts, audit, catalog, thresholds};
use crate::vocabulary::{Date, Fault, Timestamp, to_micros};

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

/// Posts a charge: `type` is one_off, credit, deposit, deposit_return or top_up; `amount` is of one piece and above zero. A
/// top-up names a `top_up` of its service's tariff, or a usage `charge` and how much of it to `grant`. With an `id` of its
/// own, or an Idempotency-Key, it is safe to repeat.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/accounts/{id}/charges",
    params(("tenant" = String, Path), ("id" = String, Path), ("source" = Option<String>, Query),
        ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = serde_json::Value, description = "type, amount, quantity, id, service, description, on, tariff, \
        charge, top_up, grant, valid, tax_category, tax_jurisdiction"),
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
        let granted = granted_by(&mut tx, std::slice::from_ref(&known)).await?;
        return Ok(Json(shown(&known, granted.first())).into_response());
    }
    let now = app.clock.now();
    let in_force = catalog::in_force(&mut tx, tenant).await?.ok_or_else(Problem::not_found)?.catalog;
    let (on, granting) = checked(&mut tx, (&posting, faults), &row, &in_force, now).await?;
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
    if let Some(granting) = &granting {
        grant(&mut tx, id, &row, granting, &in_force, now).await?;
    }
    let stored = PostedRow {
        id,
        cycle: row.document.bill_cycle.clone(),
        on,
        currency: in_force.currency,
        posting: posting.clone(),
        posted_by: caller.actor.clone(),
        created_at: now,
    };
    let granted = granted_by(&mut tx, std::slice::from_ref(&stored)).await?;
    let answer = shown(&stored, granted.first());
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

/// A top-up that can be granted.
struct Granting {
    service_id: i64,
    service: String,
    tariff: String,
    new: NewGrant,
}

/// Writes what a top-up grants, and has the service looked at, which may have stopped without it.
async fn grant(
    tx: &mut Tx,
    charge_id: i64,
    row: &AccountRow,
    granting: &Granting,
    in_force: &Catalog,
    now: Timestamp,
) -> Result<(), Problem> {
    let whose = For {
        charge_id,
        account_id: row.id,
        cycle: &row.document.bill_cycle,
        service: &granting.service,
        tariff: &granting.tariff,
        head: row.document.parent.as_deref().unwrap_or(&row.external_id),
    };
    grants::insert(tx, &whose, &granting.new).await?;
    let cycle = in_force.cycles.get(&row.document.bill_cycle).map(|cycle| &cycle.calendar);
    let period = cycle.and_then(|cycle| cycle.period_at(now).ok());
    if let Some(period) = period {
        thresholds::ask_one(tx, granting.service_id, to_micros(period.start)).await?;
    }
    Ok(())
}

/// What these posted charges have granted, those that are top-ups.
async fn granted_by(tx: &mut Tx, rows: &[PostedRow]) -> Result<Vec<GrantRow>, Problem> {
    let top_ups = rows.iter().filter(|row| row.posting.kind == PostingKind::TopUp);
    Ok(grants::these(tx, &top_ups.map(|row| row.id).collect::<Vec<_>>()).await?)
}

/// Checks what a charge names, beside the faults it has by itself, and gives its day and what it grants.
async fn checked(
    tx: &mut Tx,
    (posting, mut faults): (&Posting, Vec<Fault>),
    row: &AccountRow,
    in_force: &Catalog,
    now: Timestamp,
) -> Result<(Date, Option<Granting>), Problem> {
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
    if posting.kind == PostingKind::TopUp {
        let granting = match cycle {
            Some(cycle) if faults.is_empty() => granting(tx, posting, row, (in_force, cycle, &book), on, now).await?,
            Some(_) => Err(Vec::new()),
            None => {
                Err(vec![Fault { pointer: "/type".to_owned(), detail: "the account has no bill cycle".to_owned() }])
            }
        };
        return match granting {
            Ok(granting) => Ok((on, Some(granting))),
            Err(more) => {
                faults.extend(more);
                Err(Problem::invalid(faults))
            }
        };
    }
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
    if faults.is_empty() { Ok((on, None)) } else { Err(Problem::invalid(faults)) }
}

/// What a top-up grants: of the service it names, or of the only one it can be for, by the tariff of its plan.
async fn granting(
    tx: &mut Tx,
    posting: &Posting,
    row: &AccountRow,
    (in_force, cycle, book): (&Catalog, &BillCycle, &TariffBook),
    on: Date,
    now: Timestamp,
) -> Result<Result<Granting, Vec<Fault>>, Problem> {
    let mut found = Vec::new();
    let mut faults = Vec::new();
    for service in accounts::services(tx, row.id).await?.into_iter().filter(|service| service.ended_at.is_none()) {
        if posting.service.as_ref().is_some_and(|name| *name != service.external_id) {
            continue;
        }
        let tariff = in_force.plans.get(&service.plan).and_then(|plan| plan.tariff.clone());
        let base = tariff.as_ref().and_then(|name| posted_by(book, name, on, now));
        let Some(base) = base else { continue };
        match new_grant(posting, base, cycle, on) {
            Ok(new) => found.push(Granting {
                service_id: service.id,
                service: service.external_id,
                tariff: base.id.clone(),
                new,
            }),
            Err(fault) => faults.push(fault),
        }
    }
    let refused =
        |pointer: &str, detail: &str| Ok(Err(vec![Fault { pointer: pointer.to_owned(), detail: detail.to_owned() }]));
    match (found.pop(), found.is_empty()) {
        (Some(granting), true) => Ok(Ok(granting)),
        (Some(_), false) => refused("/service", "is required: several services of the account could be topped up"),
        (None, _) if faults.is_empty() => refused("/service", "no service of the account has a tariff"),
        (None, _) => {
            faults.dedup();
            Ok(Err(faults))
        }
    }
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
    let granted = granted_by(&mut tx, &rows).await?;
    let of = |row: &PostedRow| granted.iter().find(|known| known.grant.id == charges::public_id(row.id));
    Ok(Json(page(rows.iter().map(|row| shown(row, of(row))).collect(), limit, last)))
}

fn shown(row: &PostedRow, granted: Option<&GrantRow>) -> Value {
    let mut shown = json!({
        "id": charges::public_id(row.id),
        "charge": row.posting,
        "cycle": row.cycle,
        "on": row.on,
        "posted_by": row.posted_by,
        "created_at": row.created_at,
    });
    if let Some(GrantRow { grant, tariff, price, cycle: _ }) = granted {
        // Octets, seconds or sessions; to be used in all of the billing periods from the one of its day to its end.
        shown["granted"] = json!({
            "service": grant.service,
            "tariff": tariff,
            "charge": grant.charge,
            "amount": grant.amount.to_string(),
            "price": price.map(|price| price.to_string()),
            "from": grant.from,
            "until": grant.until,
        });
    }
    shown
}

const MOST_DAYS_AHEAD: i64 = 400;
