//! A service's history as the store keeps it becomes the stretches a run bills.
//!
//! The latest facts say when billing begins and ends, the facts of each time say what was billed then: the plan, the
//! cycle, holds that stop billing. A plan means the tariff its catalog named at that time, the first catalog for all
//! time before.

use std::collections::BTreeMap;

use jiff::ToSpan;

use super::calendar::{BillCycle, CalendarError};
use super::facts::{PriceOverride, PromoWindow, ServiceFacts, Stretch};
use super::tariff::Scope;
use crate::account::{HoldBilling, HoldKind, ServiceFacts as Recorded, Status};
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

/// What the service, its add-ons, its voice lines and its holds are billed for on `cycle`.
pub fn billed(
    pushed: &ServiceHistory,
    cycle: &BillCycle,
    plans: &PlanTariffs,
    backdate_days: u32,
) -> Result<Vec<ServiceFacts>, CalendarError> {
    let service = &with_scheduled(pushed);
    let (Some((pushed_at, first)), Some((_, latest))) = (service.facts.first(), service.facts.last()) else {
        return Ok(Vec::new());
    };
    let earliest = pushed_at.checked_sub((i64::from(backdate_days) * 24).hours()).unwrap_or(Timestamp::MIN);
    let begins = match latest.billing_from {
        Some(on) => Some(cycle.midnight(on)?.max(earliest)),
        None => started_at(service, first, *pushed_at),
    };
    let ends = latest.billing_until.map(|on| cycle.midnight(on)).transpose()?;
    let timeline = Timeline { service, plans, begins, ends, during: None };
    let price_overrides = price_overrides(service, cycle)?;
    let promos = promos(service, cycle)?;
    let here = |facts: &Recorded| facts.bill_cycle == cycle.id;
    let main = timeline.stretches(&|facts: &Recorded, _| here(facts).then(|| facts.plan.clone()));
    let elsewhere = timeline.stretches(&|facts: &Recorded, _| (!here(facts)).then(|| facts.plan.clone()));
    let common = ServiceFacts {
        id: service.id.clone(),
        times: 1,
        began_at: begins,
        promos,
        tax_jurisdiction: latest.tax_jurisdiction.clone(),
        ..ServiceFacts::default()
    };
    let mut billed = vec![ServiceFacts { stretches: main, elsewhere, price_overrides, ..common.clone() }];
    for port in ports(service) {
        let plan_at = |facts: &Recorded, here: bool| (here && facts.lines.contains(&port)).then(|| facts.plan.clone());
        billed.push(ServiceFacts {
            addon: Some(format!("line {port}")),
            scope: Scope::Line,
            stretches: timeline.stretches(&|facts, _| plan_at(facts, here(facts))),
            elsewhere: timeline.stretches(&|facts, _| plan_at(facts, !here(facts))),
            ..common.clone()
        });
    }
    for kind in holds_without_billing(service) {
        let held = Timeline { during: Some(kind), ..timeline };
        billed.push(ServiceFacts {
            addon: Some(format!("hold {kind}")),
            scope: Scope::Hold(kind),
            stretches: held.stretches(&|facts, _| here(facts).then(|| facts.plan.clone())),
            elsewhere: held.stretches(&|facts, _| (!here(facts)).then(|| facts.plan.clone())),
            ..common.clone()
        });
    }
    for (id, quantity) in addons(service) {
        let mut dates = Vec::new();
        for addon in service.facts.iter().flat_map(|(_, facts)| &facts.addons).filter(|addon| addon.id == id) {
            dates.extend(addon.from.map(|on| cycle.midnight(on)).transpose()?);
            dates.extend(addon.until.map(|on| cycle.midnight(on)).transpose()?);
        }
        let plan_at = |facts: &Recorded, at: Timestamp, here: bool| {
            let today = cycle.day_of(at);
            let inside = |from: Option<Date>, until: Option<Date>| {
                from.is_none_or(|from| from <= today) && until.is_none_or(|until| today < until)
            };
            let addon = facts.addons.iter().find(|addon| addon.id == id && addon.quantity == quantity)?;
            (here && inside(addon.from, addon.until)).then(|| addon.plan.clone())
        };
        let stretches = timeline.cut_at(&dates, &|facts, at| plan_at(facts, at, here(facts)));
        let elsewhere = timeline.cut_at(&dates, &|facts, at| plan_at(facts, at, !here(facts)));
        let began_at = stretches.iter().chain(&elsewhere).map(|stretch| stretch.from).min();
        billed.push(ServiceFacts {
            // Another quantity is another item: the one before ends, as a plan does.
            addon: Some(format!("{id} x{quantity}")),
            times: quantity,
            stretches,
            elsewhere,
            began_at,
            ..common.clone()
        });
    }
    Ok(billed)
}

/// Without a date a service bills from its first push; one that was pushed pending, from when it no longer was. `None`:
/// it is pending still.
fn started_at(service: &ServiceHistory, first: &Recorded, pushed_at: Timestamp) -> Option<Timestamp> {
    if first.status != Status::Pending {
        return Some(pushed_at);
    }
    service.facts.iter().find(|(_, facts)| facts.status != Status::Pending).map(|(at, _)| *at)
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

/// The history with the changes that waited for a day, each from its day on.
fn with_scheduled(service: &ServiceHistory) -> ServiceHistory {
    let mut facts = Vec::new();
    for (index, (from, pushed)) in service.facts.iter().enumerate() {
        let until = service.facts.get(index + 1).map(|(next, _)| *next);
        facts.push((*from, pushed.clone()));
        facts.extend(pushed.scheduled_between(*from, until));
    }
    ServiceHistory { id: service.id.clone(), facts }
}

fn ports(service: &ServiceHistory) -> Vec<u8> {
    let mut found: Vec<u8> = service.facts.iter().flat_map(|(_, facts)| &facts.lines).copied().collect();
    found.sort();
    found.dedup();
    found
}

fn holds_without_billing(service: &ServiceHistory) -> Vec<HoldKind> {
    let holds = service.facts.iter().flat_map(|(_, facts)| &facts.holds);
    let mut kinds: Vec<HoldKind> =
        holds.filter(|hold| hold.billing == HoldBilling::None).map(|hold| hold.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// Promotions with their time. Without a first day one begins when it was heard of; one that is no longer said ends then.
fn promos(service: &ServiceHistory, cycle: &BillCycle) -> Result<Vec<PromoWindow>, CalendarError> {
    let mut windows: Vec<PromoWindow> = Vec::new();
    // Index into `windows` of those the facts before said.
    let mut running: BTreeMap<String, usize> = BTreeMap::new();
    for (index, (at, facts)) in service.facts.iter().enumerate() {
        for (code, window) in std::mem::take(&mut running) {
            if facts.promos.iter().any(|promo| promo.code == code) {
                running.insert(code, window);
            } else {
                let ends = cycle.midnight(cycle.day_of(*at))?;
                windows[window].until = Some(windows[window].until.map_or(ends, |until| until.min(ends)));
            }
        }
        for promo in &facts.promos {
            let heard = if index == 0 { Timestamp::MIN } else { cycle.midnight(cycle.day_of(*at))? };
            let from = promo.from.map(|on| cycle.midnight(on)).transpose()?;
            let until = promo.until.map(|on| cycle.midnight(on)).transpose()?;
            match running.get(&promo.code) {
                Some(window) => {
                    let window = &mut windows[*window];
                    window.from = from.unwrap_or(window.from);
                    window.until = until;
                }
                None => {
                    let code = promo.code.clone();
                    running.insert(code.clone(), windows.len());
                    windows.push(PromoWindow { code, from: from.unwrap_or(heard), until });
                }
            }
        }
    }
    Ok(windows)
}

/// The subscriber's own prices. The first one said without a first day counts from ever; another one after it, from the
/// day it was heard of: what was billed before keeps its price.
fn price_overrides(service: &ServiceHistory, cycle: &BillCycle) -> Result<Vec<PriceOverride>, CalendarError> {
    let mut found: Vec<PriceOverride> = Vec::new();
    let mut before = None;
    for (at, facts) in &service.facts {
        if facts.price_override == before {
            continue;
        }
        let heard = cycle.midnight(cycle.day_of(*at))?;
        let first = facts.price_override.as_ref().and_then(|own| own.from).map(|on| cycle.midnight(on)).transpose()?;
        // One that says its days ends what was said before where it begins, or begins anew in its place.
        let ends = first.unwrap_or(heard);
        for earlier in &mut found {
            earlier.until = Some(earlier.until.map_or(ends, |until| until.min(ends)));
        }
        before = facts.price_override.clone();
        let Some(own) = &before else { continue };
        // The document's amount was checked when it was pushed.
        let Ok(amount) = own.amount.parse() else { continue };
        found.push(PriceOverride {
            charge: own.charge.clone(),
            amount,
            from: first.or_else(|| (!found.is_empty()).then_some(heard)),
            until: own.until.map(|on| cycle.midnight(on)).transpose()?,
        });
    }
    Ok(found)
}

#[derive(Clone, Copy)]
struct Timeline<'h> {
    service: &'h ServiceHistory,
    plans: &'h PlanTariffs,
    /// `None`: it has not begun.
    begins: Option<Timestamp>,
    ends: Option<Timestamp>,
    /// Only the time in which a hold of this kind stops billing; `None`: only the time in which none does.
    during: Option<HoldKind>,
}

type PlanAt<'p> = dyn Fn(&Recorded, Timestamp) -> Option<String> + 'p;

impl Timeline<'_> {
    fn stretches(&self, plan_at: &PlanAt<'_>) -> Vec<Stretch> {
        self.cut_at(&[], plan_at)
    }

    /// Cuts time wherever anything can change, asks what is billed in each part, and joins equal neighbours.
    fn cut_at(&self, more: &[Timestamp], plan_at: &PlanAt<'_>) -> Vec<Stretch> {
        let Some(begins) = self.begins else { return Vec::new() };
        let mut cuts: Vec<Timestamp> = vec![begins];
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
        cuts.retain(|at| *at >= begins);
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
        if self.ends.is_some_and(|ends| ends <= at) {
            return None;
        }
        let facts = in_force(&self.service.facts, at)?;
        let stops = |kind: Option<HoldKind>| {
            facts.holds.iter().any(|hold| {
                hold.billing == HoldBilling::None && hold.in_force(at) && kind.is_none_or(|kind| hold.kind == kind)
            })
        };
        let left_out = match self.during {
            Some(kind) => !stops(Some(kind)),
            None => stops(None),
        };
        // A billing end of its own outlives the termination: a contract may run on.
        let over = facts.status == Status::Terminated && self.ends.is_none();
        if left_out || over {
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
            tax_exempt: crate::account::TaxExempt::default(),
            parent: None,
            tax_jurisdiction: None,
            lines: Vec::new(),
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

    fn facts_of(facts: Vec<(&str, Recorded)>) -> Vec<ServiceFacts> {
        let facts = facts.into_iter().map(|(from, facts)| (at(from), facts)).collect();
        let names = ["a", "b", "ip", "tv"].map(|plan| (plan.to_owned(), format!("tariff-{plan}")));
        let plans = vec![(at("2026-01-01T00:00:00Z"), BTreeMap::from(names))];
        billed(&ServiceHistory { id: "1".to_owned(), facts }, &cycle(), &plans, 400).expect("in range")
    }

    /// Addon, times, began, and each stretch as tariff, first and last day.
    fn beside(facts: &[ServiceFacts]) -> Vec<String> {
        let day = |at: Timestamp| at.to_string()[..10].to_owned();
        let stretch = |stretch: &Stretch| {
            format!("{} {}..{}", stretch.tariff, day(stretch.from), stretch.until.map(day).unwrap_or_default())
        };
        let list = |stretches: &[Stretch]| stretches.iter().map(stretch).collect::<Vec<String>>().join(", ");
        let of = |facts: &ServiceFacts| {
            let began = facts.began_at.map(day).unwrap_or_default();
            let addon = facts.addon.as_deref().unwrap_or("");
            format!("{addon} {} {began} [{}] [{}]", facts.times, list(&facts.stretches), list(&facts.elsewhere))
        };
        facts.iter().skip(1).map(of).collect()
    }

    fn addon(id: &str, quantity: u32, from: Option<&str>, until: Option<&str>) -> crate::account::Addon {
        let date = |text: &str| text.parse::<Date>().expect("a date");
        let plan = id.to_owned();
        crate::account::Addon { id: id.to_owned(), plan, quantity, from: from.map(date), until: until.map(date) }
    }

    #[test]
    fn addon_is_billed_on_its_own_days_and_another_quantity_is_another_item() {
        let with = |addons: Vec<crate::account::Addon>| Recorded { addons, ..recorded("a") };
        let bounded = addon("ip", 1, Some("2026-11-08"), Some("2026-11-20"));
        let facts = facts_of(vec![
            ("2026-11-05T00:00:00Z", with(vec![bounded.clone(), addon("tv", 2, None, None)])),
            ("2026-11-12T00:00:00Z", with(vec![bounded, addon("tv", 3, None, None)])),
        ]);
        assert_eq!(
            beside(&facts),
            [
                "ip x1 1 2026-11-08 [tariff-ip 2026-11-08..2026-11-20] []",
                "tv x2 2 2026-11-05 [tariff-tv 2026-11-05..2026-11-12] []",
                "tv x3 3 2026-11-12 [tariff-tv 2026-11-12..] []",
            ]
        );
        assert!(facts.iter().all(|facts| facts.id == "1"));
    }

    #[test]
    fn addon_of_time_on_another_cycle_is_billed_there() {
        let here = Recorded { addons: vec![addon("ip", 1, None, None)], ..recorded("a") };
        let there = Recorded { bill_cycle: "c2".to_owned(), ..here.clone() };
        let facts = facts_of(vec![("2026-11-05T00:00:00Z", here), ("2026-11-12T00:00:00Z", there)]);
        assert_eq!(beside(&facts), ["ip x1 1 2026-11-05 [tariff-ip 2026-11-05..2026-11-12] [tariff-ip 2026-11-12..]"]);
        assert_eq!(facts[0].elsewhere.len(), 1);
    }

    #[test]
    fn voice_lines_are_billed_while_they_are_there() {
        let with = |lines: Vec<u8>| Recorded { lines, ..recorded("a") };
        let facts = facts_of(vec![
            ("2026-11-05T00:00:00Z", with(vec![1])),
            ("2026-11-10T00:00:00Z", with(vec![1, 2])),
            ("2026-11-15T00:00:00Z", with(vec![2])),
        ]);
        assert_eq!(
            beside(&facts),
            [
                "line 1 1 2026-11-05 [tariff-a 2026-11-05..2026-11-15] []",
                "line 2 1 2026-11-05 [tariff-a 2026-11-10..] []"
            ]
        );
        assert!(facts[1..].iter().all(|facts| facts.scope == Scope::Line));
    }

    #[test]
    fn time_of_a_hold_is_billed_apart_and_holds_that_bill_are_none() {
        let hold = |kind: HoldKind, billing: HoldBilling| Hold {
            kind,
            treatment: None,
            billing,
            from: Some(at("2026-11-10T00:00:00Z")),
            until: Some(at("2026-11-12T00:00:00Z")),
        };
        let holds = vec![hold(HoldKind::Seasonal, HoldBilling::None), hold(HoldKind::Abuse, HoldBilling::Full)];
        let facts = facts_of(vec![("2026-11-05T00:00:00Z", Recorded { holds, ..recorded("a") })]);
        assert_eq!(beside(&facts), ["hold seasonal 1 2026-11-05 [tariff-a 2026-11-10..2026-11-12] []"]);
        assert_eq!(facts[1].scope, Scope::Hold(HoldKind::Seasonal));
    }

    #[test]
    fn hold_of_time_on_another_cycle_is_billed_there() {
        let hold = Hold {
            kind: HoldKind::Seasonal,
            treatment: None,
            billing: HoldBilling::None,
            from: None,
            until: Some(at("2026-11-20T00:00:00Z")),
        };
        let here = Recorded { holds: vec![hold], ..recorded("a") };
        let there = Recorded { bill_cycle: "c2".to_owned(), ..here.clone() };
        let facts = facts_of(vec![("2026-11-05T00:00:00Z", here), ("2026-11-12T00:00:00Z", there)]);
        assert_eq!(
            beside(&facts),
            ["hold seasonal 1 2026-11-05 [tariff-a 2026-11-05..2026-11-12] [tariff-a 2026-11-12..2026-11-20]"]
        );
    }

    #[test]
    fn pending_service_bills_from_when_it_is_no_longer_pending() {
        let pending = Recorded { status: Status::Pending, ..recorded("a") };
        let facts = vec![("2026-11-05T00:00:00Z", pending.clone()), ("2026-11-09T00:00:00Z", recorded("a"))];
        assert_eq!(shown(facts, 400), ["tariff-a 2026-11-09T00:00:00Z open"]);
        assert_eq!(shown(vec![("2026-11-05T00:00:00Z", pending.clone())], 400), Vec::<String>::new());
        assert_eq!(facts_of(vec![("2026-11-05T00:00:00Z", pending)])[0].began_at, None);
    }

    #[test]
    fn billing_end_cuts_and_outlives_a_termination() {
        let until = Some("2026-11-20".parse().expect("a date"));
        let ends = Recorded { billing_until: until, ..recorded("a") };
        assert_eq!(
            shown(vec![("2026-11-05T00:00:00Z", ends.clone())], 400),
            ["tariff-a 2026-11-05T00:00:00Z 2026-11-20T00:00:00Z"]
        );
        let over = Recorded { status: Status::Terminated, ..ends.clone() };
        let facts = vec![("2026-11-05T00:00:00Z", ends), ("2026-11-08T00:00:00Z", over)];
        assert_eq!(shown(facts, 400), ["tariff-a 2026-11-05T00:00:00Z 2026-11-20T00:00:00Z"]);
    }

    #[test]
    fn plan_is_the_tariff_its_catalog_named_at_the_time() {
        let tariffs = |name: &str| BTreeMap::from([("a".to_owned(), name.to_owned())]);
        let plans =
            vec![(at("2026-11-01T00:00:00Z"), tariffs("first")), (at("2026-11-10T00:00:00Z"), tariffs("second"))];
        let history = ServiceHistory { id: "1".to_owned(), facts: vec![(at("2026-10-20T00:00:00Z"), recorded("a"))] };
        let facts = billed(&history, &cycle(), &plans, 400).expect("in range");
        let found: Vec<&str> = facts[0].stretches.iter().map(|stretch| stretch.tariff.as_str()).collect();
        assert_eq!(found, ["first", "second"], "the first catalog counts for all time before");
        assert_eq!(facts[0].stretches[1].from, at("2026-11-10T00:00:00Z"));
    }
}
