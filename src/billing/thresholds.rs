//! Thresholds of a service's use: how far it is from each, which are crossed now, and what follows for the service.
//!
//! In: an account's facts with all usage of one period, the tariffs, what was crossed before. Out: what to tell, what to arm
//! again, which treatments hold, and how much more must be used before it is worth looking again. What counts as used is
//! what the bill counts, before it is quantized.
//!
//! A threshold acts **once** in a period of a service. It is its tariff, its charge and its `at`; its bound is a quantity
//! that moves with the allowance. What was crossed stays crossed when usage is corrected downwards. When a change of the
//! account moves the bound above what was used (more allowance, another proration), the threshold is armed again and what
//! it did is undone; a bound that moves down tells nothing twice. Only the tariff in force acts: after a change of plan the
//! old tariff's restrictions end, and the new tariff counts from its own first day.
//!
//! A percentage is of everything there is: where an allowance is shared, rolled over or topped up, of what all that share it
//! have together, against what all of them use. A quantity is of the service's own use. A prepaid charge is used up when
//! nothing is there at all, used or not. No member of a pool of n can bring the pool over a bound before one of them has
//! used an n-th of what is missing: that is how far each is from it, so that nobody adds up a pool for every record.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{AccountFacts, Grant, RunContext, ServiceFacts, TariffBook};
use super::groups::{chains, due, is_shared};
use super::items::{Item, items_of, of_period};
use super::run::{RunError, for_each_step, rate_alone};
use super::tariff::{ChargeKind, Direction, Level, Meter, PartPrice, Threshold, ThresholdAction, ThresholdAt, Usage};
use crate::account::Treatment;
use crate::vocabulary::{Exact, ExactError, Timestamp};

/// How a service stands to one threshold of its tariff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Place in the family; 0 of an account alone.
    pub account: usize,
    /// Index into `AccountFacts::services`.
    pub service: usize,
    pub key: ThresholdKey,
    /// Version of the tariff.
    pub version: u32,
    pub actions: Vec<ThresholdAction>,
    /// In the charge's unit.
    pub bound: Exact,
    pub used: Exact,
    pub unit: &'static str,
    /// A prepaid charge's end: reached also where nothing was used and nothing is there.
    pub stops: bool,
    /// What must at least come to the service's totals before it can be crossed.
    pub distance: Distance,
}

/// What makes a threshold the same one as before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThresholdKey {
    pub tariff: String,
    /// Id of the usage charge.
    pub meter: String,
    /// As the tariff writes it, `80%` or `500 GB`.
    pub at: String,
}

/// A threshold that was crossed in this period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub key: ThresholdKey,
    /// When it was crossed.
    pub bound: Exact,
    /// It may be crossed once more.
    pub rearmed: bool,
}

/// How far the totals of a service are from the nearest threshold, each in its own count; `None`: out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Distance {
    pub in_octets: Option<i64>,
    pub out_octets: Option<i64>,
    /// Both directions together.
    pub octets: Option<i64>,
    pub seconds: Option<i64>,
    pub sessions: Option<i64>,
}

/// What follows for one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict<'s> {
    /// Crossed now, for the first time or again.
    pub crossed: Vec<&'s Standing>,
    /// Crossed before, and no longer beyond the bound after that was moved.
    pub rearmed: Vec<&'s Standing>,
    /// What holds the service until the period ends.
    pub treatments: BTreeSet<Treatment>,
}

/// How far a service is from whatever a threshold may stand at, its own and those of whom it shares an allowance with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    pub account: usize,
    /// Index into `AccountFacts::services`.
    pub service: usize,
    pub distance: Distance,
}

/// Whether anything a service's thresholds may stand at depends on more than the service's own use in the period: other
/// services, earlier periods, top-ups.
pub fn depends_on_others(service: &ServiceFacts, grants: &[Grant], tariffs: &TariffBook) -> bool {
    let mut charges = service
        .stretches
        .iter()
        .flat_map(|stretch| tariffs.get(&stretch.tariff).map(Vec::as_slice).unwrap_or_default())
        .flat_map(|version| &version.tariff.charges);
    let is_topped = |id: &str| grants.iter().any(|grant| grant.charge == id);
    charges.any(|charge| matches!(&charge.kind, ChargeKind::Usage(usage) if is_shared(usage) || is_topped(&charge.id)))
}

/// As `standings`, of accounts whose allowances are more than each item's own, with all usage that a run of the context's
/// period needs; and how far each service that takes part is from the nearest.
///
/// **Errors**: as `standings`.
pub fn shared_standings(
    family: &[AccountFacts],
    context: &RunContext,
    at: Timestamp,
) -> Result<(Vec<Standing>, Vec<Reach>), RunError> {
    let items = items_of(family, context)?;
    let chains = chains(family, &items, context)?;
    let due = due(family, &items, &chains);
    // What there is and what was used of it, by item; and the steps of the period.
    let mut pools: BTreeMap<usize, (Exact, Exact)> = BTreeMap::new();
    let mut steps: Vec<Vec<usize>> = Vec::new();
    for_each_step(family, context, &items, (&chains, &due), &mut |step, rated| {
        if step.period.start == context.period.start {
            let quantities = rated.iter().filter_map(|rated| rated.metered.as_ref()).map(|metered| metered.quantity);
            let used = quantities.clone().try_fold(Exact::ZERO, Exact::checked_add)?;
            let mut there =
                rated.iter().filter_map(|rated| rated.allotment.as_ref()).map(|allotment| allotment.available);
            let there = there.next_back().unwrap_or(Exact::ZERO);
            pools.extend(step.members.iter().map(|index| (*index, (there, used))));
            steps.push(step.members.clone());
        }
        Ok(true)
    })?;
    let mut found: Vec<Standing> = Vec::new();
    let mut missing: BTreeMap<usize, Exact> = BTreeMap::new();
    for (index, item) in items.iter().enumerate().filter(|(_, item)| item.period.start == context.period.start) {
        let ChargeKind::Usage(usage) = &item.charge.kind else { continue };
        let in_force = item.coverage.iter().any(|(from, until)| *from <= at && at < *until);
        let thresholds = &item.version.tariff.thresholds;
        let mut own = thresholds.iter().filter(|threshold| threshold.meter == item.charge.id).peekable();
        if !in_force || own.peek().is_none() {
            continue;
        }
        let rated = rate_alone(&family[item.account], context, item)?;
        let quantity = rated.metered.as_ref().map_or(Exact::ZERO, |metered| metered.quantity);
        for threshold in own {
            let pool = pools.get(&index).filter(|_| matches!(threshold.at, ThresholdAt::Percent(_)));
            let standing = match pool {
                Some((there, used)) => {
                    let Some(bound) = bound_of(threshold, Some(*there))? else { continue };
                    Standing { distance: Distance::default(), ..standing(item, usage, threshold, bound, *used)? }
                }
                None => {
                    let Some(bound) = bound_of(threshold, rated.priced.allowance)? else { continue };
                    standing(item, usage, threshold, bound, quantity)?
                }
            };
            if pool.is_some() && !standing.is_crossed() {
                let more = standing.bound.checked_sub(standing.used)?;
                let known = missing.entry(index).or_insert(more);
                *known = more.min(*known);
            }
            let same = |other: &&mut Standing| {
                (other.account, other.service) == (standing.account, standing.service) && other.key == standing.key
            };
            match found.iter_mut().find(same) {
                Some(same) => same.actions.extend(standing.actions),
                None => found.push(standing),
            }
        }
    }
    let mut reaches: BTreeMap<(usize, usize), Distance> = BTreeMap::new();
    for standing in &found {
        let reach = reaches.entry((standing.account, standing.service)).or_default();
        // What is crossed and has acted keeps nobody waiting.
        let ahead = if standing.is_crossed() { Distance::default() } else { standing.distance };
        *reach = reach.nearer(ahead);
    }
    for members in &steps {
        let least = members.iter().filter_map(|index| missing.get(index)).copied().reduce(Exact::min);
        let count = Exact::from_int(members.len().max(1) as i128);
        for index in members {
            let (item, ChargeKind::Usage(usage)) = (&items[*index], &items[*index].charge.kind) else { continue };
            let reach = reaches.entry((item.account, item.service)).or_default();
            if let Some(least) = least {
                *reach = reach.nearer(distance(usage, least.checked_div(count)?)?);
            }
        }
    }
    let reach = |((account, service), distance): ((usize, usize), Distance)| Reach { account, service, distance };
    Ok((found, reaches.into_iter().map(reach).collect()))
}

/// Every threshold of the tariffs in force at `at`, of all services, in the context's period.
///
/// **Errors**: usage that cannot be rated; nothing is known of the account's thresholds then.
pub fn standings(facts: &AccountFacts, context: &RunContext, at: Timestamp) -> Result<Vec<Standing>, RunError> {
    let mut found: Vec<Standing> = Vec::new();
    for index in 0..facts.services.len() {
        for item in of_period(facts, index, &context.period, context)? {
            let ChargeKind::Usage(usage) = &item.charge.kind else { continue };
            let in_force = item.coverage.iter().any(|(from, until)| *from <= at && at < *until);
            let thresholds = &item.version.tariff.thresholds;
            let mut own = thresholds.iter().filter(|threshold| threshold.meter == item.charge.id).peekable();
            if !in_force || own.peek().is_none() {
                continue;
            }
            let rated = rate_alone(facts, context, &item)?;
            let used = match &rated.metered {
                Some(metered) => metered.quantity,
                None => Exact::ZERO,
            };
            for threshold in own {
                let Some(bound) = bound_of(threshold, rated.priced.allowance)? else { continue };
                let standing = standing(&item, usage, threshold, bound, used)?;
                match found.iter_mut().find(|other| other.service == index && other.key == standing.key) {
                    Some(same) => same.actions.extend(standing.actions),
                    None => found.push(standing),
                }
            }
        }
    }
    Ok(found)
}

/// What follows for a service from its standings and what was crossed before.
pub fn decide<'s>(standings: &'s [Standing], marks: &[Mark]) -> Verdict<'s> {
    let mut verdict = Verdict::default();
    for standing in standings {
        let mark = marks.iter().find(|mark| mark.key == standing.key);
        let holds = match mark {
            Some(mark) if !mark.rearmed && (standing.is_crossed() || mark.bound == standing.bound) => true,
            Some(mark) if !mark.rearmed => {
                verdict.rearmed.push(standing);
                false
            }
            _ if standing.is_crossed() => {
                verdict.crossed.push(standing);
                true
            }
            _ => false,
        };
        if holds {
            verdict.treatments.extend(standing.actions.iter().filter_map(treatment));
        }
    }
    verdict
}

/// The nearest of what is not crossed, count by count. What is crossed and has acted keeps nobody waiting.
pub fn nearest(standings: &[Standing]) -> Distance {
    let ahead = standings.iter().filter(|standing| !standing.is_crossed()).map(|standing| standing.distance);
    ahead.fold(Distance::default(), Distance::nearer)
}

impl Standing {
    pub fn is_crossed(&self) -> bool {
        self.used >= self.bound && (self.stops || !self.used.is_zero())
    }

    pub fn notifies(&self) -> bool {
        self.actions.contains(&ThresholdAction::Notify)
    }
}

impl Distance {
    fn nearer(self, other: Self) -> Self {
        let least = |a: Option<i64>, b: Option<i64>| a.into_iter().chain(b).min();
        Self {
            in_octets: least(self.in_octets, other.in_octets),
            out_octets: least(self.out_octets, other.out_octets),
            octets: least(self.octets, other.octets),
            seconds: least(self.seconds, other.seconds),
            sessions: least(self.sessions, other.sessions),
        }
    }
}

fn standing(
    item: &Item<'_>,
    usage: &Usage,
    threshold: &Threshold,
    bound: Exact,
    used: Exact,
) -> Result<Standing, RunError> {
    let tariff = &item.version.tariff;
    Ok(Standing {
        account: item.account,
        service: item.service,
        key: ThresholdKey { tariff: tariff.id.clone(), meter: threshold.meter.clone(), at: text_of(threshold, usage) },
        version: tariff.version,
        actions: threshold.actions.clone(),
        bound,
        used,
        unit: usage.unit.as_str(),
        stops: usage.prepaid && is_all(threshold),
        distance: distance(usage, bound.checked_sub(used)?)?,
    })
}

/// `None`: a percentage of an allowance the charge does not have.
fn bound_of(threshold: &Threshold, allowance: Option<Exact>) -> Result<Option<Exact>, ExactError> {
    match (threshold.at, allowance) {
        (ThresholdAt::Quantity(quantity), _) => Ok(Some(quantity)),
        (ThresholdAt::Percent(percent), Some(allowance)) => {
            percent.checked_div(Exact::from_int(100))?.checked_mul(allowance).map(Some)
        }
        (ThresholdAt::Percent(_), None) => Ok(None),
    }
}

fn is_all(threshold: &Threshold) -> bool {
    matches!(threshold.at, ThresholdAt::Percent(percent) if percent >= Exact::from_int(100))
}

fn text_of(threshold: &Threshold, usage: &Usage) -> String {
    match threshold.at {
        ThresholdAt::Percent(percent) => format!("{percent}%"),
        ThresholdAt::Quantity(quantity) => format!("{quantity} {}", usage.unit),
    }
}

fn distance(usage: &Usage, missing: Exact) -> Result<Distance, ExactError> {
    let by_sum = usage.quantize_at == Level::Cycle && usage.classes.values().all(|class| class.direction.is_none());
    if !by_sum || matches!(usage.meter, Meter::Calls | Meter::PeakBps95) {
        // Any growth may bring it there.
        return Ok(Distance { octets: Some(1), seconds: Some(1), sessions: Some(1), ..Distance::default() });
    }
    let prices = usage.windows.iter().map(|window| window.price);
    let heaviest =
        prices.chain(usage.classes.values().map(|class| class.price)).fold(Exact::ONE, |most, price| match price {
            PartPrice::Weight(weight) => most.max(weight),
            PartPrice::Own(_) => most,
        });
    // A class's weight and a window's multiply.
    let missing = missing.checked_div(heaviest.checked_mul(heaviest)?)?;
    let raw = missing.checked_mul(Exact::from_int(i128::from(usage.unit_size())))?.ceil().max(1);
    let raw = Some(i64::try_from(raw).unwrap_or(i64::MAX));
    Ok(match (usage.meter, usage.direction) {
        (Meter::Octets, Direction::Up) => Distance { in_octets: raw, ..Distance::default() },
        (Meter::Octets, Direction::Down) => Distance { out_octets: raw, ..Distance::default() },
        (Meter::Octets, Direction::Sum) => Distance { octets: raw, ..Distance::default() },
        // Whichever direction is the larger one then, it has grown by at least that much.
        (Meter::Octets, Direction::Max) => Distance { in_octets: raw, out_octets: raw, ..Distance::default() },
        (Meter::Seconds, _) => Distance { seconds: raw, ..Distance::default() },
        (Meter::Sessions, _) => Distance { sessions: raw, ..Distance::default() },
        (Meter::Calls | Meter::PeakBps95, _) => Distance { seconds: Some(1), ..Distance::default() },
    })
}

fn treatment(action: &ThresholdAction) -> Option<Treatment> {
    match action {
        ThresholdAction::Notify => None,
        ThresholdAction::Throttle(profile) => Some(Treatment::Throttle(profile.clone())),
        ThresholdAction::Disconnect => Some(Treatment::Block),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::billing::calendar::{BillCycle, Every};
    use crate::billing::facts::{CorrectionPolicy, KnownVersion, ServiceFacts, Stretch, TariffBook, UsageEntry};
    use crate::billing::tariff::Tariff;
    use crate::vocabulary::Zone;

    const TARIFF: &str = r#"
id = "t"
version = 1
currency = "USD"
effective_from = "2026-01-01"
[[charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
allowance = { amount = "100", prorate = true }
model = "standard"
unit_amount = "1"
[[threshold]]
at = "80%"
meter = "data"
do = ["notify"]
[[threshold]]
at = "120 GB"
meter = "data"
do = ["throttle:slow", "notify"]
[[threshold]]
at = "300 GB"
meter = "data"
do = ["disconnect"]
"#;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant of the test")
    }

    fn context(tariffs: &[&str]) -> RunContext {
        let cycle = BillCycle {
            id: "c1".to_owned(),
            anchor_day: 1,
            every: Every::Month,
            zone: Zone::UTC,
            timezone: "UTC".to_owned(),
        };
        let mut book = TariffBook::new();
        for text in tariffs {
            let tariff = Tariff::read("t.toml", text).expect("a sound tariff");
            book.entry(tariff.id.clone()).or_default().push(KnownVersion { tariff, known_at: Timestamp::MIN });
        }
        RunContext {
            period: cycle.named("2026-11").expect("a period"),
            now: at("2026-11-20T00:00:00Z"),
            cycle,
            batch: None,
            tariffs: book.into(),
            backdate_days: 400,
            wholesale: Vec::new(),
            corrections: CorrectionPolicy::default(),
            closures: BTreeMap::new(),
            causes: Default::default(),
        }
    }

    fn facts(stretches: &[(&str, Option<&str>, &str)], usage: Vec<UsageEntry>) -> AccountFacts {
        let stretch = |(from, until, tariff): &(&str, Option<&str>, &str)| Stretch {
            from: at(from),
            until: until.map(at),
            tariff: (*tariff).to_owned(),
        };
        let service = ServiceFacts {
            id: "s1".to_owned(),
            times: 1,
            stretches: stretches.iter().map(stretch).collect(),
            usage,
            ..ServiceFacts::default()
        };
        AccountFacts {
            tenant: "acme".to_owned(),
            source: "default".to_owned(),
            account: "1".to_owned(),
            services: vec![service],
            ..AccountFacts::default()
        }
    }

    fn used(day: u32, gigabytes: i64) -> UsageEntry {
        let from = at(&format!("2026-11-{day:02}T10:00:00Z"));
        let until = Timestamp::from_second(from.as_second() + 3600).expect("in range");
        let sequence = i64::from(day);
        let (in_octets, out_octets) = (gigabytes * 100_000_000, gigabytes * 900_000_000);
        let (class, call) = (None, None);
        UsageEntry { sequence, session: 1, class, call, from, until, in_octets, out_octets, seconds: 3600, sessions: 1 }
    }

    const ALL_TIME: [(&str, Option<&str>, &str); 1] = [("2026-01-01T00:00:00Z", None, "t")];
    const NOW: &str = "2026-11-20T00:00:00Z";

    fn shown(standings: &[Standing]) -> Vec<String> {
        let line = |standing: &Standing| {
            let octets = standing.distance.octets.unwrap_or(0);
            format!("{} {} of {}, {octets} away", standing.key.at, standing.used, standing.bound)
        };
        standings.iter().map(line).collect()
    }

    fn words(verdict: &Verdict<'_>) -> String {
        let list = |of: &[&Standing]| of.iter().map(|standing| standing.key.at.as_str()).collect::<Vec<_>>().join(" ");
        let holds: Vec<String> = verdict.treatments.iter().map(ToString::to_string).collect();
        format!("crossed [{}] rearmed [{}] holds [{}]", list(&verdict.crossed), list(&verdict.rearmed), holds.join(" "))
    }

    fn mark(at: &str, bound: i64, rearmed: bool) -> Mark {
        let key = ThresholdKey { tariff: "t".to_owned(), meter: "data".to_owned(), at: at.to_owned() };
        Mark { key, bound: Exact::from_int(i128::from(bound)), rearmed }
    }

    #[test]
    fn what_was_used_stands_against_every_bound() {
        let found = standings(&facts(&ALL_TIME, vec![used(3, 85)]), &context(&[TARIFF]), at(NOW)).expect("rated");
        assert_eq!(
            shown(&found),
            ["80% 85 of 80, 1 away", "120 GB 85 of 120, 35000000000 away", "300 GB 85 of 300, 215000000000 away"]
        );
        assert_eq!(words(&decide(&found, &[])), "crossed [80%] rearmed [] holds []");
        assert_eq!(nearest(&found).octets, Some(35_000_000_000), "the next one");
        assert_eq!(nearest(&found).seconds, None);
    }

    #[test]
    fn a_threshold_acts_once_and_stays_through_corrections() {
        let beyond = standings(&facts(&ALL_TIME, vec![used(3, 130)]), &context(&[TARIFF]), at(NOW)).expect("rated");
        assert_eq!(words(&decide(&beyond, &[])), "crossed [80% 120 GB] rearmed [] holds [throttle:slow]");
        let marks = [mark("80%", 80, false), mark("120 GB", 120, false)];
        assert_eq!(words(&decide(&beyond, &marks)), "crossed [] rearmed [] holds [throttle:slow]");
        let corrected = facts(&ALL_TIME, vec![used(3, 130), used(4, -60)]);
        let corrected = standings(&corrected, &context(&[TARIFF]), at(NOW)).expect("rated");
        assert_eq!(words(&decide(&corrected, &marks)), "crossed [] rearmed [] holds [throttle:slow]");
    }

    #[test]
    fn a_bound_that_moves_up_arms_again_and_one_that_moves_down_does_not() {
        let now = standings(&facts(&ALL_TIME, vec![used(3, 85)]), &context(&[TARIFF]), at(NOW)).expect("rated");
        // It was crossed when the allowance was half as large, or twice.
        assert_eq!(words(&decide(&now, &[mark("80%", 40, false)])), "crossed [] rearmed [] holds []");
        assert_eq!(words(&decide(&now, &[mark("80%", 160, false)])), "crossed [] rearmed [] holds []");
        assert_eq!(words(&decide(&now, &[mark("120 GB", 60, false)])), "crossed [80%] rearmed [120 GB] holds []");
        assert_eq!(words(&decide(&now, &[mark("80%", 40, true)])), "crossed [80%] rearmed [] holds []");
    }

    #[test]
    fn a_service_that_began_in_the_middle_has_its_part_of_the_allowance() {
        let began = [("2026-11-16T00:00:00Z", None, "t")];
        let found = standings(&facts(&began, vec![used(3, 85), used(17, 39)]), &context(&[TARIFF]), at(NOW));
        assert_eq!(shown(&found.expect("rated"))[0], "80% 39 of 40, 1000000000 away", "usage before it is not its own");
    }

    #[test]
    fn only_the_tariff_in_force_acts_and_counts_from_its_first_day() {
        let other = TARIFF.replace("id = \"t\"", "id = \"u\"").replace("300 GB", "310 GB");
        let changed =
            [("2026-01-01T00:00:00Z", Some("2026-11-11T00:00:00Z"), "t"), ("2026-11-11T00:00:00Z", None, "u")];
        let usage = vec![used(3, 130), used(12, 10)];
        let context = context(&[TARIFF, &other]);
        let found = standings(&facts(&changed, usage.clone()), &context, at(NOW)).expect("rated");
        let of: Vec<&str> = found.iter().map(|standing| standing.key.tariff.as_str()).collect();
        assert_eq!(of, ["u", "u", "u"]);
        assert_eq!(shown(&found)[1], "120 GB 10 of 120, 110000000000 away");
        let marks = [mark("80%", 80, false), mark("120 GB", 120, false)];
        assert_eq!(words(&decide(&found, &marks)), "crossed [] rearmed [] holds []", "the old tariff's throttle ends");
        let before = standings(&facts(&changed, usage), &context, at("2026-11-05T00:00:00Z")).expect("rated");
        assert!(before.iter().all(|standing| standing.key.tariff == "t"));
    }

    #[test]
    fn nothing_used_crosses_nothing() {
        let none = TARIFF.replace("amount = \"100\"", "amount = \"0\"");
        let found = standings(&facts(&ALL_TIME, Vec::new()), &context(&[&none]), at(NOW)).expect("rated");
        assert_eq!(words(&decide(&found, &[])), "crossed [] rearmed [] holds []");
        let found = standings(&facts(&ALL_TIME, vec![used(3, 1)]), &context(&[&none]), at(NOW)).expect("rated");
        assert_eq!(words(&decide(&found, &[])), "crossed [80%] rearmed [] holds []");
    }

    #[test]
    fn each_meter_waits_in_its_own_count() {
        let by = |text: &str| {
            let tariff = TARIFF.replace("direction = \"sum\"", text);
            let found = standings(&facts(&ALL_TIME, vec![used(3, 10)]), &context(&[&tariff]), at(NOW)).expect("rated");
            nearest(&found)
        };
        let (down, max) = (71_000_000_000, 71_000_000_000);
        assert_eq!(by("direction = \"down\""), Distance { out_octets: Some(down), ..Distance::default() });
        assert_eq!(by("direction = \"up\"").in_octets, Some(79_000_000_000));
        let larger = by("direction = \"max\"");
        assert_eq!((larger.in_octets, larger.out_octets), (Some(max), Some(max)));
        let hours = TARIFF
            .replace("meter = \"octets\"\ndirection = \"sum\"\nunit = \"GB\"", "meter = \"seconds\"\nunit = \"h\"");
        let hours = hours.replace("120 GB", "120 h").replace("300 GB", "300 h");
        let found = standings(&facts(&ALL_TIME, vec![used(3, 10)]), &context(&[&hours]), at(NOW)).expect("rated");
        assert_eq!(nearest(&found), Distance { seconds: Some(79 * 3600), ..Distance::default() });
        let logins = TARIFF.replace(
            "meter = \"octets\"\ndirection = \"sum\"\nunit = \"GB\"",
            "meter = \"sessions\"\nunit = \"session\"",
        );
        let logins = logins.replace("120 GB", "120 session").replace("300 GB", "300 session");
        let found = standings(&facts(&ALL_TIME, vec![used(3, 10)]), &context(&[&logins]), at(NOW)).expect("rated");
        let near = nearest(&found);
        assert!(near.sessions.is_some(), "{near:?}");
        assert_eq!(near, Distance { sessions: near.sessions, ..Distance::default() });
    }

    const POOLED: &str = r#"
id = "t"
version = 1
currency = "USD"
effective_from = "2026-01-01"
[[charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
allowance = { amount = "100", pool = "account" }
model = "standard"
unit_amount = "1"
[[threshold]]
at = "80%"
meter = "data"
do = ["notify"]
[[threshold]]
at = "100%"
meter = "data"
do = ["disconnect"]
[[threshold]]
at = "90 GB"
meter = "data"
do = ["notify"]
"#;

    fn of_two(usage: [Vec<UsageEntry>; 2]) -> AccountFacts {
        let [first, second] = usage;
        let mut facts = facts(&ALL_TIME, first);
        let other = ServiceFacts { id: "s2".to_owned(), usage: second, ..facts.services[0].clone() };
        facts.services.push(other);
        facts
    }

    fn shared_of(facts: &AccountFacts, context: &RunContext) -> (Vec<Standing>, Vec<Reach>) {
        shared_standings(std::slice::from_ref(facts), context, at(NOW)).expect("rated")
    }

    fn topped(gigabytes: i64) -> Grant {
        Grant {
            id: "ch_1".to_owned(),
            pool: crate::billing::tariff::Pool::Account,
            head: None,
            service: "s1".to_owned(),
            charge: "data".to_owned(),
            amount: gigabytes * 1_000_000_000,
            from: at("2026-11-02T00:00:00Z"),
            until: None,
            foreign: false,
        }
    }

    #[test]
    fn percentage_of_a_pool_is_of_what_all_of_it_have_and_use() {
        let context = context(&[POOLED]);
        let mut facts = of_two([vec![used(3, 95)], vec![used(4, 70)]]);
        let (found, reaches) = shared_of(&facts, &context);
        let shown: Vec<String> =
            found.iter().map(|one| format!("{} {} {} of {}", one.service, one.key.at, one.used, one.bound)).collect();
        assert_eq!(
            shown,
            [
                "0 80% 165 of 160",
                "0 100% 165 of 200",
                "0 90 GB 95 of 90",
                "1 80% 165 of 160",
                "1 100% 165 of 200",
                "1 90 GB 70 of 90"
            ]
        );
        // 35 are missing in the pool, half of them for each; the second needs 20 for its own bound.
        let away: Vec<Option<i64>> = reaches.iter().map(|reach| reach.distance.octets).collect();
        assert_eq!(away, [Some(17_500_000_000), Some(17_500_000_000)]);
        assert_eq!(words(&decide(&found[..3], &[])), "crossed [80% 90 GB] rearmed [] holds []");
        // A top-up moves what is a percentage, and arms it again.
        facts.grants = vec![topped(20)];
        let (found, _) = shared_of(&facts, &context);
        assert_eq!(words(&decide(&found[..3], &[mark("80%", 160, false)])), "crossed [90 GB] rearmed [80%] holds []");
    }

    #[test]
    fn prepaid_service_stops_with_its_last_bucket_and_goes_on_with_the_next() {
        let prepaid = "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\n\
            id = \"data\"\ntype = \"usage\"\nmeter = \"octets\"\ndirection = \"sum\"\nunit = \"GB\"\nprepaid = true\n";
        let context = context(&[prepaid]);
        let verdict = |usage: Vec<UsageEntry>, gigabytes: &[i64], marks: &[Mark]| {
            let mut facts = facts(&ALL_TIME, usage);
            let grant = |(index, amount): (usize, &i64)| Grant {
                id: format!("ch_{index}"),
                pool: crate::billing::tariff::Pool::Service,
                ..topped(*amount)
            };
            facts.grants = gigabytes.iter().enumerate().map(grant).collect();
            let (found, _) = shared_of(&facts, &context);
            words(&decide(&found, marks))
        };
        assert_eq!(verdict(Vec::new(), &[], &[]), "crossed [100%] rearmed [] holds [block]", "nothing is there");
        assert_eq!(verdict(Vec::new(), &[10], &[mark("100%", 0, false)]), "crossed [] rearmed [100%] holds []");
        assert_eq!(
            verdict(vec![used(3, 11)], &[10], &[mark("100%", 0, true)]),
            "crossed [100%] rearmed [] holds [block]"
        );
        let stopped = [mark("100%", 10, false)];
        assert_eq!(verdict(vec![used(3, 11)], &[10], &stopped), "crossed [] rearmed [] holds [block]");
        assert_eq!(verdict(vec![used(3, 11)], &[10, 5], &stopped), "crossed [] rearmed [100%] holds []");
        // Too small a top-up for what was used beyond the last one.
        assert_eq!(verdict(vec![used(3, 16)], &[10, 5], &stopped), "crossed [] rearmed [] holds [block]");
    }

    proptest! {
        #![proptest_config(crate::vocabulary::cases(2_000))]

        /// As below, for two services that share an allowance: whoever looks when one of them has grown by its distance
        /// sees what both cross as soon as they do.
        #[test]
        fn looking_when_a_guard_of_the_pool_says_so_misses_nothing(
            reports in prop::collection::vec((0usize..2, 0i64..60_000_000_000), 1..30),
            extra in 0i64..50,
        ) {
            let context = context(&[POOLED]);
            let mut usage: [Vec<UsageEntry>; 2] = Default::default();
            let mut always: [Vec<Mark>; 2] = Default::default();
            let mut guarded: [Vec<Mark>; 2] = Default::default();
            let mut guards: [Option<i64>; 2] = [None; 2];
            let mut totals = [0i64; 2];
            for (index, (service, octets)) in reports.into_iter().enumerate() {
                let sequence = i64::try_from(index).expect("few");
                usage[service].push(UsageEntry { sequence, in_octets: 0, out_octets: octets, ..used(3, 0) });
                totals[service] += octets;
                let mut facts = of_two(usage.clone());
                facts.grants.extend((extra > 0).then(|| topped(extra)));
                let (found, reaches) = shared_of(&facts, &context);
                let cross = |marks: &mut [Vec<Mark>; 2]| {
                    for (place, marks) in marks.iter_mut().enumerate() {
                        let own: Vec<Standing> = found.iter().filter(|one| one.service == place).cloned().collect();
                        let crossed = decide(&own, marks).crossed.into_iter();
                        let new: Vec<Mark> = crossed
                            .map(|one| Mark { key: one.key.clone(), bound: one.bound, rearmed: false })
                            .collect();
                        marks.extend(new);
                    }
                };
                cross(&mut always);
                if guards[service].is_none_or(|guard| totals[service] >= guard) {
                    cross(&mut guarded);
                    for reach in &reaches {
                        let away = reach.distance.octets.unwrap_or(i64::MAX);
                        guards[reach.service] = Some(totals[reach.service].saturating_add(away));
                    }
                }
                prop_assert_eq!(&always, &guarded);
            }
        }

        /// Whoever looks only when the totals have grown by the distance told sees every threshold as soon as it is
        /// crossed, and each once: the same marks as whoever looks after every report.
        #[test]
        fn looking_when_the_guard_says_so_misses_nothing(
            reports in prop::collection::vec((0i64..40_000_000_000, 0i64..40_000_000_000), 1..40),
            direction in prop::sample::select(vec!["up", "down", "sum", "max"]),
        ) {
            let tariff = TARIFF.replace("direction = \"sum\"", &format!("direction = \"{direction}\""));
            let context = context(&[&tariff]);
            let mut usage: Vec<UsageEntry> = Vec::new();
            let (mut always, mut guarded): (Vec<Mark>, Vec<Mark>) = Default::default();
            let mut guard: Option<(i64, i64, i64)> = None;
            let (mut up, mut down) = (0i64, 0i64);
            for (index, (in_octets, out_octets)) in reports.into_iter().enumerate() {
                let sequence = i64::try_from(index).expect("few");
                usage.push(UsageEntry { sequence, in_octets, out_octets, ..used(3, 0) });
                (up, down) = (up + in_octets, down + out_octets);
                let found = standings(&facts(&ALL_TIME, usage.clone()), &context, at(NOW)).expect("rated");
                let cross = |marks: &mut Vec<Mark>| {
                    let crossed: Vec<Mark> = decide(&found, marks)
                        .crossed
                        .iter()
                        .map(|standing| Mark { key: standing.key.clone(), bound: standing.bound, rearmed: false })
                        .collect();
                    marks.extend(crossed);
                };
                cross(&mut always);
                let due = guard.is_none_or(|(ups, downs, both)| up >= ups || down >= downs || up + down >= both);
                if due {
                    cross(&mut guarded);
                    let near = nearest(&found);
                    let from = |total: i64, distance: Option<i64>| distance.map_or(i64::MAX, |more| total + more);
                    guard = Some((from(up, near.in_octets), from(down, near.out_octets), from(up + down, near.octets)));
                }
                prop_assert_eq!(&always, &guarded);
            }
        }
    }
}
