//! Simulations over one account: the old prices give the issued lines, other prices their difference.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::*;
use crate::billing::calendar::{BillCycle, Every};
use crate::billing::facts::{CorrectionPolicy, PriceOverride, ServiceFacts, Stretch, TariffBook};
use crate::vocabulary::{Exact, Zone};

const TARIFF: &str = r#"
id = "res-100"
version = 1
currency = "USD"
effective_from = "2026-01-01"
[[charge]]
id = "access"
type = "recurring"
amount = "49.95"
[[charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
quantize = { to = "1 MB" }
allowance = { amount = "100", prorate = true }
model = "graduated"
tiers = [{ up_to = "500", unit_amount = "0.05" }, { unit_amount = "0.02", flat_amount = "1" }]
proration = "tiers"
maximum = "60"
[[discount]]
kind = "percent"
value = "10"
applies_to = ["access", "data"]
cycles = 3
[[tax]]
id = "sales"
rate = "8.25"
"#;

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant of the test")
}

fn tariff(text: &str) -> Tariff {
    Tariff::read("t.toml", text).expect("a sound tariff")
}

fn flat() -> String {
    let usage = TARIFF.split("[[charge]]\nid = \"data\"").next().expect("a beginning");
    format!("{}[[tax]]\nid = \"sales\"\nrate = \"8.25\"\n", usage.replace("res-100", "flat").replace("49.95", "79.95"))
}

fn context(period: &str) -> RunContext {
    let cycle = BillCycle {
        id: "c15".to_owned(),
        anchor_day: 15,
        every: Every::Month,
        zone: Zone::get("America/Chicago").expect("a zone"),
        timezone: "America/Chicago".to_owned(),
    };
    let period = cycle.named(period).expect("a period");
    let known = |text: &str| vec![KnownVersion { tariff: tariff(text), known_at: at("2026-01-01T00:00:00Z") }];
    RunContext {
        now: period.end,
        cycle,
        period,
        batch: Some("b1".to_owned()),
        tariffs: TariffBook::from([("res-100".to_owned(), known(TARIFF)), ("flat".to_owned(), known(&flat()))]).into(),
        backdate_days: 400,
        wholesale: Vec::new(),
        corrections: CorrectionPolicy::default(),
        closures: BTreeMap::new(),
        causes: Default::default(),
    }
}

static OCTOBER: LazyLock<RunContext> = LazyLock::new(|| context("2026-10-15"));
/// As `OCTOBER`, the tariff in force simulated.
static SAME: LazyLock<RunContext> = LazyLock::new(|| with_tariff(&OCTOBER, &tariff(TARIFF)));

fn facts(stretches: Vec<Stretch>) -> AccountFacts {
    let service = ServiceFacts {
        id: "1".to_owned(),
        times: 1,
        began_at: stretches.first().map(|stretch| stretch.from),
        stretches,
        ..ServiceFacts::default()
    };
    AccountFacts {
        tenant: "acme".to_owned(),
        source: "default".to_owned(),
        account: "100234".to_owned(),
        services: vec![service],
        ..AccountFacts::default()
    }
}

fn since(from: &str) -> Vec<Stretch> {
    vec![Stretch { from: at(from), until: None, tariff: "res-100".to_owned() }]
}

fn entry(sequence: i64, from: Timestamp, octets: i64) -> UsageEntry {
    let until = Timestamp::from_second(from.as_second() + 3600).expect("in range");
    let (class, call, in_octets) = (None, None, octets / 7);
    UsageEntry {
        sequence,
        session: 1,
        class,
        call,
        from,
        until,
        in_octets,
        out_octets: octets,
        seconds: 3600,
        sessions: 1,
    }
}

fn of_period(facts: &AccountFacts, context: &RunContext) -> Vec<StoredLine> {
    facts.issued.iter().filter(|line| line.line.period == context.period).cloned().collect()
}

#[test]
fn other_prices_give_the_difference_of_each_item_with_tax() {
    let mut facts = facts(since("2026-05-15T05:00:00Z"));
    facts.services[0].usage = vec![entry(1, at("2026-11-02T10:00:00Z"), 140_000_000_000)];
    let context = context("2026-10-15");
    let dearer = tariff(&TARIFF.replace("version = 1", "version = 2").replace("49.95", "59.95"));
    let changed = with_tariff(&context, &dearer);
    let found = compare(&facts, &context, &changed, "res-100").expect("rated").expect("it has the tariff");
    // 160 GB, 60 of them at 0.05 = 3.00, and 0.25 tax; 49.95 + 4.12 tax, 59.95 + 4.95 tax.
    assert_eq!((found.before.minor, found.after.minor), (4995 + 412 + 325, 5995 + 495 + 325));
    let items = [ItemDifference {
        service: "1".to_owned(),
        addon: None,
        charge: "access".to_owned(),
        before: 5407,
        after: 6490,
    }];
    assert_eq!(found.items, items);
    assert_eq!(compare(&facts, &context, &changed, "flat").expect("rated"), None);
}

#[test]
fn tariff_without_the_charge_takes_it_away() {
    let mut facts = facts(since("2026-05-15T05:00:00Z"));
    facts.services[0].usage = vec![entry(1, at("2026-11-02T10:00:00Z"), 140_000_000_000)];
    let context = context("2026-10-15");
    let without = tariff(&flat().replace("\"flat\"", "\"res-100\"").replace("79.95", "49.95"));
    let found = compare(&facts, &context, &with_tariff(&context, &without), "res-100").expect("rated");
    let found = found.expect("it has the tariff");
    assert_eq!(found.items.iter().map(|item| (item.before, item.after)).collect::<Vec<_>>(), [(325, 0)]);
}

#[test]
fn changed_lines_and_lost_usage_are_seen_by_the_control() {
    let context = context("2026-10-15");
    let mut facts = facts(since("2026-05-15T05:00:00Z"));
    facts.services[0].usage = vec![entry(1, at("2026-11-02T10:00:00Z"), 140_000_000_000)];
    facts.issued = lines(&facts, &context).expect("rated").lines;
    let issued = of_period(&facts, &context);
    let replay = |facts: &AccountFacts| period_lines(facts, &context).expect("rated");
    assert!(control(&issued, &replay(&facts)).is_empty());
    let mut dearer = issued.clone();
    dearer[1].basis.amount_minor += 1;
    assert_eq!(control(&dearer, &replay(&facts)).len(), 1);
    assert_eq!(control(&issued[..1], &replay(&facts)).len(), 1, "a line is missing");
    facts.services[0].usage[0].out_octets -= 1;
    assert_eq!(control(&issued, &replay(&facts)).len(), 1, "quantized, it costs the same; one octet is seen");
}

#[test]
fn control_names_what_is_only_on_one_side() {
    let context = context("2026-10-15");
    let mut facts = facts(since("2026-05-15T05:00:00Z"));
    // Within the allowance: the line costs nothing, and its octets count all the same.
    facts.services[0].usage = vec![entry(1, at("2026-11-02T10:00:00Z"), 7_000_000_000)];
    facts.issued = lines(&facts, &context).expect("rated").lines;
    let issued = of_period(&facts, &context);
    let replayed = period_lines(&facts, &context).expect("rated");
    assert_eq!(issued[1].basis.amount_minor, 0);
    assert_eq!(control(&issued, &replayed[..1]), ["1 data version 1: 0 was issued, nothing is due"]);
    assert_eq!(control(&issued[..1], &replayed), ["1 data: 0 is due, nothing was issued"]);
    assert_eq!(control(&issued, &replayed[1..]), ["1 access version 1: 49.95 was issued, nothing is due"]);
    // What is nothing on both counts is none.
    let mut nothing = issued.clone();
    nothing[1].basis.quantity_raw = 0;
    assert_eq!(control(&nothing, &replayed[..1]), Vec::<String>::new());
    assert_eq!(control(&issued[..1], &nothing), Vec::<String>::new());
    // Of several lines of an item the newest holds, in whatever order they are given.
    let mut corrected = issued[1].clone();
    corrected.basis.revision = 1;
    corrected.basis.quantity_raw += 5;
    for lines in
        [[issued[0].clone(), issued[1].clone(), corrected.clone()], [corrected, issued[1].clone(), issued[0].clone()]]
    {
        assert_eq!(
            control(&lines, &replayed),
            ["1 data version 1: quantity_raw is 8000000005 in its lines and 8000000000 replayed"]
        );
    }
    let mut taxed = issued.clone();
    taxed[0].basis.taxes[0].amount_minor += 1;
    assert!(control(&taxed, &replayed)[0].contains("tax is"));
}

#[test]
fn cheapest_plan_is_named_with_what_it_would_have_saved() {
    let context = context("2026-10-15");
    let offers = ["flat", "res-100"].map(|id| Offer { plan: format!("plan-{id}"), tariff: id.to_owned() });
    let best = |facts: &AccountFacts| {
        best_plan(facts, &context, ("1", "plan-res-100"), &offers).expect("rated").expect("it is billed")
    };
    let mut facts = facts(since("2026-05-15T05:00:00Z"));
    let light = best(&facts);
    assert_eq!((light.plan.as_str(), light.best_plan.as_str()), ("plan-res-100", "plan-res-100"));
    facts.services[0].usage = vec![entry(1, at("2026-11-02T10:00:00Z"), 1_400_000_000_000)];
    let heavy = best(&facts);
    // 1,600 GB: 500 at 0.05, 1,000 at 0.02 and 1.00 more = 46.00, + 49.95 + taxes 3.80 and 4.12; flat 79.95 + 6.60.
    assert_eq!((heavy.cost.minor, heavy.best_cost.minor), (4600 + 380 + 4995 + 412, 7995 + 660));
    assert_eq!(heavy.best_plan, "plan-flat");
    let own = PriceOverride { charge: None, amount: Exact::ONE, from: None, until: None };
    facts.services[0].price_overrides.push(own);
    assert_eq!(best(&facts).best_plan, "plan-res-100", "an own price stays with the present plan");
    assert_eq!(best_plan(&facts, &context, ("2", "plan-flat"), &offers).expect("rated"), None);
}

#[test]
fn lost_octets_cost_what_the_next_ones_would_have() {
    let context = context("2026-10-15");
    let mut facts = facts(since("2026-05-15T05:00:00Z"));
    facts.services[0].usage = vec![entry(1, at("2026-11-02T10:00:00Z"), 140_000_000_000)];
    let lost = |octets: i128, facts: &AccountFacts| marginal(facts, &context, "1", octets).expect("rated");
    // 10 GB more at 0.05, and the tax of 3.50 instead of that of 3.00.
    assert_eq!(lost(10_000_000_000, &facts).map(|money| money.minor), Some(50 + 29 - 25));
    facts.services[0].stretches[0].tariff = "flat".to_owned();
    assert_eq!(lost(10_000_000_000, &facts), None);
}

#[test]
fn lost_octets_are_those_of_their_service_and_of_its_directions() {
    let context = context("2026-10-15");
    let mut facts = facts(since("2026-05-15T05:00:00Z"));
    let mut other = facts.services[0].clone();
    other.id = "2".to_owned();
    other.usage = vec![entry(2, at("2026-11-02T10:00:00Z"), 140_000_000_000)];
    let mut addon = other.clone();
    addon.addon = Some("ip x1".to_owned());
    facts.services.insert(0, addon);
    facts.services.push(other);
    // Service 1 has its allowance still, service 2 is beyond it: 160 GB of 100.
    let lost = |service: &str, octets: i128| {
        marginal(&facts, &context, service, octets).expect("rated").map(|money| money.minor)
    };
    assert_eq!(lost("2", 10_000_000_000), Some(50 + 29 - 25));
    assert_eq!(lost("1", 10_000_000_000), Some(0));
    assert_eq!((lost("2", 0), lost("3", 10_000_000_000)), (Some(0), None));
    // Only what goes up is metered; an eighth of the service's usage went up, so of 80 GB 10 do.
    let mut context = context.clone();
    let text =
        TARIFF.replace("direction = \"sum\"", "direction = \"up\"").replace("amount = \"100\"", "amount = \"20\"");
    let known = KnownVersion { tariff: tariff(&text), known_at: at("2026-01-01T00:00:00Z") };
    Arc::make_mut(&mut context.tariffs).insert("res-100".to_owned(), vec![known]);
    let lost = marginal(&facts, &context, "2", 80_000_000_000).expect("rated").expect("it is metered");
    assert_eq!(lost.minor, 50 + 4);
}

proptest! {
    #![proptest_config(crate::vocabulary::cases(10_000))]

    /// Invariant 14: the prices in force give the issued lines, whenever their usage came and whatever was corrected.
    #[test]
    fn old_tariff_reproduces_what_was_issued(
        octets in prop::collection::vec((-20_000_000_000i64..90_000_000_000, 0i64..740), 0..9),
        cuts in prop::collection::btree_set(0usize..9, 0..3),
        began in 0i64..80, change in 0i64..40, exempt in any::<bool>(), own in prop::option::of(1i128..90),
    ) {
        let context = &*OCTOBER;
        let start = at("2026-10-15T05:00:00Z").as_second();
        let second = |second: i64| Timestamp::from_second(second).expect("in range");
        let from = second(start - began * 86_400 + 7_777);
        let until = second(start + change * 86_400 + 4_321);
        let flat = Stretch { from: until, until: None, tariff: "flat".to_owned() };
        let stretch = Stretch { from, until: Some(until), tariff: "res-100".to_owned() };
        let mut account = facts(vec![stretch, flat]);
        account.tax_exempt = exempt;
        let amount = own.map(Exact::from_int);
        account.services[0].price_overrides =
            amount.map(|amount| PriceOverride { charge: None, amount, from: None, until: None }).into_iter().collect();
        let mut all: Vec<UsageEntry> = octets.iter().enumerate()
            .map(|(index, (octets, hour))| entry(index as i64 + 2, second(start + hour * 3600), *octets)).collect();
        all.insert(0, entry(1, second(start), 500_000_000_000));
        let mut replayed = account.clone();
        replayed.services[0].usage.clone_from(&all);
        for end in cuts.into_iter().filter(|cut| *cut < all.len()).chain([all.len()]) {
            account.services[0].usage = all[..end].to_vec();
            account.watermark = end as i64;
            let fresh = lines(&account, context).expect("rated").lines;
            account.issued.extend(fresh);
        }
        let issued = of_period(&account, context);
        let again = period_lines(&replayed, context).expect("rated");
        prop_assert_eq!(control(&issued, &again), Vec::<String>::new());
        if let Some(found) = compare(&replayed, context, &SAME, "res-100").expect("rated") {
            prop_assert_eq!(&found.items, &vec![]);
            let issued: i64 = issued.iter().map(|line| cost(line).expect("fits")).sum();
            prop_assert_eq!((found.before.minor, found.after.minor), (issued, issued));
        }
    }
}
