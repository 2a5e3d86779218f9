//! A service's history as the store keeps it becomes the stretches a run bills.
//!
//! The latest facts say when billing begins and ends, the facts of each time say what was billed then: the plan, the
//! cycle, holds that stop billing. A plan means the tariff its catalog named at that time, the first catalog for all
//! time before.

use std::collections::BTreeMap;

use jiff::ToSpan;

use super::calendar::{BillCycle, CalendarError};
use super::facts::{PriceOverride, ServiceFacts, Stretch};
use crate::account::{HoldBilling, ServiceFacts as Recorded, Status};
use crate::vocabulary::{Date, Timestamp};

/// Everything known of one service.
#[derive(Debug, Clone)]
pub struct ServiceHistory {
    /// External id.
    pub id: String,
    /// Facts from an instant on, in order.
    pub facts: Vec<(Timestamp, Recorded)>,
}

/// The tariff of every plan, from an instant on, in order.
pub type PlanTariffs = Vec<(Timestamp, BTreeMap<String, String>)>;

/// What the service and each of its add-ons are billed for on `cycle`.
pub fn billed(
    service: &ServiceHistory,
    cycle: &BillCycle,
    plans: &PlanTariffs,
    backdate_days: u32,
) -> Result<Vec<ServiceFacts>, CalendarError> {
    let (Some((pushed_at, first)), Some((_, latest))) = (service.facts.first(), service.facts.last()) else {
        return Ok(Vec::new());
    };
    let earliest = pushed_at.checked_sub((i64::from(backdate_days) * 24).hours()).unwrap_or(Timestamp::MIN);
    let begins = match latest.billing_from {
        Some(on) => cycle.midnight(on)?.max(earliest),
        None => started_at(service, first, *pushed_at),
    };
    let ends = latest.billing_until.map(|on| cycle.midnight(on)).transpose()?;
    let timeline = Timeline { service, plans, begins, ends };
    let price_override = price_override(latest, cycle)?;
    let main = timeline.stretches(&|facts: &Recorded, _| (facts.bill_cycle == cycle.id).then(|| facts.plan.clone()));
    let mut billed = vec![ServiceFacts {
        id: service.id.clone(),
        addon: None,
        times: 1,
        stretches: main,
        began_at: Some(begins),
        price_override,
        usage: Vec::new(),
        sums: None,
    }];
    for (id, quantity) in addons(service) {
        let mut dates = Vec::new();
        for addon in service.facts.iter().flat_map(|(_, facts)| &facts.addons).filter(|addon| addon.id == id) {
            dates.extend(addon.from.map(|on| cycle.midnight(on)).transpose()?);
            dates.extend(addon.until.map(|on| cycle.midnight(on)).transpose()?);
        }
        let plan_at = |facts: &Recorded, at: Timestamp| {
            let today = cycle.day_of(at);
            let inside = |from: Option<Date>, until: Option<Date>| {
                from.is_none_or(|from| from <= today) && until.is_none_or(|until| today < until)
            };
            let addon = facts.addons.iter().find(|addon| addon.id == id && addon.quantity == quantity)?;
            (facts.bill_cycle == cycle.id && inside(addon.from, addon.until)).then(|| addon.plan.clone())
        };
        let stretches = timeline.cut_at(&dates, &plan_at);
        let began_at = stretches.first().map(|stretch| stretch.from);
        billed.push(ServiceFacts {
            id: service.id.clone(),
            // Another quantity is another item: the one before ends, as a plan does.
            addon: Some(format!("{id} x{quantity}")),
            times: quantity,
            stretches,
            began_at,
            price_override: None,
            usage: Vec::new(),
            sums: None,
        });
    }
    Ok(billed)
}

/// Without a date a service bills from its first push; one that was pushed pending, from when it no longer was.
fn started_at(service: &ServiceHistory, first: &Recorded, pushed_at: Timestamp) -> Timestamp {
    if first.status != Status::Pending {
        return pushed_at;
    }
    let active = service.facts.iter().find(|(_, facts)| facts.status != Status::Pending);
    active.map_or(Timestamp::MAX, |(at, _)| *at)
}

fn addons(service: &ServiceHistory) -> Vec<(String, u32)> {
    let mut found: Vec<(String, u32)> = service
        .facts
        .iter()
        .flat_map(|(_, facts)| &facts.addons)
        .map(|addon| (addon.id.clone(), addon.quantity))
        .collect();
    found.sort();
    found.dedup();
    found
}

fn price_override(facts: &Recorded, cycle: &BillCycle) -> Result<Option<PriceOverride>, CalendarError> {
    let Some(own) = &facts.price_override else { return Ok(None) };
    // The document's amount was checked when it was pushed.
    let Ok(amount) = own.amount.parse() else { return Ok(None) };
    Ok(Some(PriceOverride {
        charge: own.charge.clone(),
        amount,
        from: own.from.map(|on| cycle.midnight(on)).transpose()?,
        until: own.until.map(|on| cycle.midnight(on)).transpose()?,
    }))
}

struct Timeline<'h> {
    service: &'h ServiceHistory,
    plans: &'h PlanTariffs,
    begins: Timestamp,
    ends: Option<Timestamp>,
}

type PlanAt<'p> = dyn Fn(&Recorded, Timestamp) -> Option<String> + 'p;

impl Timeline<'_> {
    fn stretches(&self, plan_at: &PlanAt<'_>) -> Vec<Stretch> {
        self.cut_at(&[], plan_at)
    }

    /// Cuts time wherever anything can change, asks what is billed in each part, and joins equal neighbours.
    fn cut_at(&self, more: &[Timestamp], plan_at: &PlanAt<'_>) -> Vec<Stretch> {
        let mut cuts: Vec<Timestamp> = vec![self.begins];
        cuts.extend(self.ends);
        cuts.extend(more);
        cuts.extend(self.plans.iter().skip(1).map(|(at, _)| *at));
        for (at, facts) in &self.service.facts {
            cuts.push(*at);
            for hold in facts.holds.iter().filter(|hold| hold.billing == HoldBilling::None) {
                cuts.extend(hold.from);
                cuts.extend(hold.until);
            }
        }
        cuts.retain(|at| *at >= self.begins);
        cuts.sort();
        cuts.dedup();
        let mut stretches: Vec<Stretch> = Vec::new();
        for (index, from) in cuts.iter().enumerate() {
            let until = cuts.get(index + 1).copied();
            let Some(tariff) = self.tariff_at(*from, plan_at) else { continue };
            match stretches.last_mut() {
                Some(last) if last.tariff == tariff && last.until == Some(*from) => last.until = until,
                _ => stretches.push(Stretch { from: *from, until, tariff }),
            }
        }
        stretches
    }

    fn tariff_at(&self, at: Timestamp, plan_at: &PlanAt<'_>) -> Option<String> {
        if at < self.begins || self.ends.is_some_and(|ends| ends <= at) {
            return None;
        }
        let facts = in_force(&self.service.facts, at)?;
        let held = facts.holds.iter().any(|hold| hold.billing == HoldBilling::None && hold.in_force(at));
        // A billing end of its own outlives the termination: a contract may run on.
        let over = facts.status == Status::Terminated && self.ends.is_none();
        if held || over {
            return None;
        }
        let plan = plan_at(facts, at)?;
        in_force(self.plans, at)?.get(&plan).cloned()
    }
}

/// The value from an instant on; the first one for all time before.
fn in_force<T>(list: &[(Timestamp, T)], at: Timestamp) -> Option<&T> {
    list.iter().rev().find(|(from, _)| *from <= at).or_else(|| list.first()).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Hold, HoldKind, ServiceType};
    use crate::billing::calendar::Every;
    use crate::vocabulary::Zone;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant of the test")
    }

    fn cycle() -> BillCycle {
        BillCycle {
            id: "c1".to_owned(),
            anchor_day: 1,
            every: Every::Month,
            zone: Zone::UTC,
            timezone: "UTC".to_owned(),
        }
    }

    fn recorded(plan: &str) -> Recorded {
        Recorded {
            service_type: ServiceType::Internet,
            plan: plan.to_owned(),
            bill_cycle: "c1".to_owned(),
            status: Status::Active,
            tax_exempt: false,
            billing_from: None,
            billing_until: None,
            price_override: None,
            addons: Vec::new(),
            promos: Vec::new(),
            scheduled: Vec::new(),
            holds: Vec::new(),
        }
    }

    fn shown(facts: Vec<(&str, Recorded)>, backdate_days: u32) -> Vec<String> {
        let facts = facts.into_iter().map(|(from, facts)| (at(from), facts)).collect();
        let service = ServiceHistory { id: "1".to_owned(), facts };
        let names = ["a", "b"].map(|plan| (plan.to_owned(), format!("tariff-{plan}")));
        let plans = vec![(at("2026-01-01T00:00:00Z"), BTreeMap::from(names))];
        let billed = billed(&service, &cycle(), &plans, backdate_days).expect("in range");
        let until = |stretch: &Stretch| stretch.until.map_or("open".to_owned(), |until| until.to_string());
        billed[0]
            .stretches
            .iter()
            .map(|stretch| format!("{} {} {}", stretch.tariff, stretch.from, until(stretch)))
            .collect()
    }

    #[test]
    fn service_without_a_date_bills_from_its_first_push() {
        assert_eq!(shown(vec![("2026-11-05T09:00:00Z", recorded("a"))], 400), ["tariff-a 2026-11-05T09:00:00Z open"]);
    }

    #[test]
    fn billing_begins_where_the_latest_facts_say_but_not_beyond_the_limit() {
        let facts = Recorded { billing_from: Some("2026-11-01".parse().expect("a date")), ..recorded("a") };
        let first = shown(vec![("2026-11-05T09:00:00Z", facts.clone())], 400);
        assert_eq!(first, ["tariff-a 2026-11-01T00:00:00Z open"]);
        let near = shown(vec![("2026-11-05T09:00:00Z", facts)], 2);
        assert_eq!(near, ["tariff-a 2026-11-03T09:00:00Z open"]);
    }

    #[test]
    fn change_of_plan_and_termination_cut_the_time() {
        let ended = Recorded { status: Status::Terminated, ..recorded("b") };
        let facts = vec![
            ("2026-11-05T09:00:00Z", recorded("a")),
            ("2026-11-10T09:00:00Z", recorded("b")),
            ("2026-11-20T09:00:00Z", ended),
        ];
        assert_eq!(
            shown(facts, 400),
            [
                "tariff-a 2026-11-05T09:00:00Z 2026-11-10T09:00:00Z",
                "tariff-b 2026-11-10T09:00:00Z 2026-11-20T09:00:00Z"
            ]
        );
    }

    #[test]
    fn hold_that_stops_billing_leaves_a_gap() {
        let hold = Hold {
            kind: HoldKind::Seasonal,
            treatment: None,
            billing: HoldBilling::None,
            from: Some(at("2026-11-10T00:00:00Z")),
            until: Some(at("2026-11-12T00:00:00Z")),
        };
        let facts = Recorded { holds: vec![hold], ..recorded("a") };
        assert_eq!(
            shown(vec![("2026-11-05T00:00:00Z", facts)], 400),
            ["tariff-a 2026-11-05T00:00:00Z 2026-11-10T00:00:00Z", "tariff-a 2026-11-12T00:00:00Z open"]
        );
    }

    #[test]
    fn time_on_another_cycle_is_not_billed_here() {
        let other = Recorded { bill_cycle: "c2".to_owned(), ..recorded("a") };
        let facts = vec![("2026-11-05T00:00:00Z", recorded("a")), ("2026-11-10T00:00:00Z", other)];
        assert_eq!(shown(facts, 400), ["tariff-a 2026-11-05T00:00:00Z 2026-11-10T00:00:00Z"]);
    }
}
