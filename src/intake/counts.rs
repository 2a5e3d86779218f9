//! How many subscribers and services a tenant and its child tenants have, by the rules that count charges use.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, READERS};
use super::problem::Problem;
use super::request::Asked;
use crate::billing::calendar::{BillCycle, Every};
use crate::billing::count::{Census, tally};
use crate::billing::tariff::{Count, CountRule, Counted};
use crate::store::{catalog, census};
use crate::vocabulary::{Date, Period};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(counts))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CountQuery {
    on: Option<Date>,
    from: Option<Date>,
    until: Option<Date>,
    rule: Option<String>,
    of: Option<String>,
}

/// Counts by service type, plan and status: on the day `on` (rule active_on), or from `from` to before `until` by the rule
/// any, average_daily or peak. `of` is one tenant, itself or a child; without it all of them.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/subscriber-counts",
    params(("tenant" = String, Path), ("on" = Option<String>, Query), ("from" = Option<String>, Query),
        ("until" = Option<String>, Query), ("rule" = Option<String>, Query), ("of" = Option<String>, Query)),
    responses((status = 200, description = "The counts"), (status = 404, description = "No such child tenant")))]
async fn counts(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<CountQuery>,
) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let own = caller.tenant.to_string();
    let mut tx = app.store.read().await?;
    let in_force = catalog::in_force(&mut tx, &own).await?.ok_or_else(Problem::not_found)?.catalog;
    let days = BillCycle {
        id: "days".to_owned(),
        anchor_day: 1,
        every: Every::Day,
        zone: in_force.zone.clone(),
        timezone: in_force.timezone.clone(),
    };
    let rule = rule(query.rule.as_deref())?;
    let period = period(&days, &query, rule)?;
    let mut tenants = vec![own.clone()];
    tenants.extend(census::children(&mut tx, &own).await?);
    if let Some(of) = &query.of {
        tenants.retain(|tenant| tenant == of);
        if tenants.is_empty() {
            return Err(Problem::not_found());
        }
    }
    let mut items = Vec::new();
    for tenant in tenants {
        let census = census::census(&mut tx, &tenant).await?;
        items.extend(rows(&census, rule, &days, &period)?);
    }
    Ok(Json(json!({ "rule": rule.name(), "period": period, "items": items })))
}

fn rule(word: Option<&str>) -> Result<CountRule, Problem> {
    match word {
        None | Some("active_on") => Ok(CountRule::ActiveOn(1)),
        Some("any") => Ok(CountRule::Any),
        Some("average_daily") => Ok(CountRule::AverageDaily),
        Some("peak") => Ok(CountRule::Peak),
        Some(_) => Err(Problem::bad_request("rule must be active_on, any, average_daily or peak.")),
    }
}

fn period(days: &BillCycle, query: &CountQuery, rule: CountRule) -> Result<Period, Problem> {
    let unreadable = |_| Problem::bad_request("A date is out of range.");
    let one_day = matches!(rule, CountRule::ActiveOn(_));
    match (one_day, query.on, query.from, query.until) {
        (true, Some(on), None, None) => days.period_at(days.midnight(on).map_err(unreadable)?).map_err(unreadable),
        (false, None, Some(from), Some(until)) if from < until && (until - from).get_days() <= MOST_DAYS => {
            Ok(Period {
                start: days.midnight(from).map_err(unreadable)?,
                end: days.midnight(until).map_err(unreadable)?,
                timezone: days.timezone.clone(),
            })
        }
        (true, ..) => Err(Problem::bad_request("The rule active_on needs `on`, and nothing else.")),
        (false, ..) => Err(Problem::bad_request(format!(
            "This rule needs `from` and a later `until`, at most {MOST_DAYS} days apart, and not `on`."
        ))),
    }
}

fn rows(census: &Census, rule: CountRule, days: &BillCycle, period: &Period) -> Result<Vec<Value>, Problem> {
    let kinds: BTreeSet<_> =
        census.members.iter().map(|member| (member.service_type, member.plan.clone(), member.status)).collect();
    let coverage = [(period.start, period.end)];
    let mut items = Vec::new();
    for (service_type, plan, status) in kinds {
        let of = |what: Counted| {
            let count = Count::of(what, rule, (vec![service_type], vec![plan.clone()], vec![status]));
            tally(&count, census, days, period, &coverage).map_err(|_| Problem::internal())
        };
        let (subscribers, services) = (of(Counted::Accounts)?, of(Counted::Services)?);
        if services.raw > 0 {
            items.push(json!({
                "tenant": census.tenant,
                "service": service_type,
                "plan": plan,
                "status": status,
                "subscribers": subscribers.quantity.to_string(),
                "services": services.quantity.to_string(),
            }));
        }
    }
    Ok(items)
}

const MOST_DAYS: i32 = 366;
