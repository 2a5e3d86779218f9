//! The invariants of rating, each for thousands of made-up accounts: what holds whatever the tariff, the usage and the
//! order in which it becomes known.
//!
//! An account, its tariff and its usage are drawn at random; runs see the usage in pieces, as runs do. Each property is
//! tried with 1,000 cases at every change, and with 10,000 where the long proofs are asked for.
//!
//! | invariant | property, and what proves it further |
//! |---|---|
//! | 1 conservation | `octets_are_conserved`; `measure::tests::octets_are_conserved` with windows and classes, `allowance::tests::allowance_is_conserved` |
//! | 2 order, chunks, threads | `order_changes_no_byte`, `chunks_and_threads_change_no_byte`; `usage::tests::any_order_and_any_duplicates_give_the_same_ledger`; over both databases the journey `same_bytes` |
//! | 3 any split is the whole | `any_watermarks_telescope`; `run::shared_tests::shared_allowances_telescope` |
//! | 4 repeated, killed | `repeated_run_says_nothing`; journeys in `batches` that kill a run |
//! | 5 telescoping | `any_watermarks_telescope`, `retroactive_version_replaces_the_old_one` |
//! | 6 shape of prices | `graduated_prices_have_no_hole`, `parts_and_wholes_differ_by_the_direction_of_tiers`, `volume_is_its_definition` |
//! | 7 limits | `limits_bound_what_is_billed_so_far` |
//! | 8 proration | `parts_of_a_period_add_up`; `run::offer_tests::change_and_change_back_at_one_instant_is_nothing` |
//! | 9 scale | `units_are_only_factors` |
//! | 10 bounds | `bounds_belong_to_the_tier_below` |
//! | 11 sums | `a_line_adds_up`, `taxes_are_those_of_the_sum`; `tax_batch::tests::allocated_parts_sum_to_the_groups_tax` |
//! | 12 calendar | `calendar::tests::periods_tile_time`, `calendar::tests::anchor_comes_back_after_short_months` |
//! | 13 preview | `preview_is_the_later_run` |
//! | 14 simulation | `simulate::tests::old_tariff_reproduces_what_was_issued` |
//! | 15 extremes | `any_count_is_exact_or_stops`; `tariff::tests::prices_that_exact_arithmetic_cannot_hold_are_refused` |
//! | 16 tenants | `no_line_is_two_tenants`; over HTTP the journeys in `tenants` |
//! | 17 inclusive tax | `net_and_inclusive_tax_are_the_gross`, `tax::tests::net_and_inclusive_taxes_are_the_gross` |

use std::collections::{BTreeMap, BTreeSet};

use jiff::ToSpan;
use proptest::prelude::*;

use super::calendar::{BillCycle, Every};
use super::facts::{
    AccountFacts, Causes, CorrectionPolicy, KnownVersion, RunContext, ServiceFacts, Stretch, TariffBook, UsageEntry,
};
use super::lines::StoredLine;
use super::price::{Measure, price};
use super::run::{RunError, lines, looks_back};
use super::tariff::{Charge, ChargeKind, Model, Tariff, Usage};
use crate::vocabulary::{Exact, Money, Timestamp, Zone};

/// A made-up tariff: an access charge, a usage charge of any model, and taxes.
#[derive(Debug, Clone)]
struct Offer {
    model: usize,
    prices: [u32; 3],
    bounds: [u32; 2],
    allowance: Option<u32>,
    prorate: bool,
    quantize: Option<usize>,
    limits: Option<(u32, u32)>,
    discount: Option<u32>,
    taxes: usize,
    proration: usize,
    direction: usize,
}

const MODELS: [&str; 6] = ["standard", "graduated", "volume", "package", "percentage", "graduated_percentage"];
const QUANTA: [&str; 4] = ["1 MB", "1 GB", "0.1 GB", "10 MB"];
const PRORATIONS: [&str; 4] = ["actual_days", "fixed_30", "per_second", "none"];
const DIRECTIONS: [&str; 4] = ["sum", "up", "down", "max"];
const TAXES: [&str; 5] = [
    "",
    "[[tax]]\nid = \"vat\"\nrate = \"20\"\ninclusive = true\n",
    "[[tax]]\nid = \"sales\"\nrate = \"8.25\"\n",
    "[[tax]]\nid = \"gst\"\nrate = \"5\"\n[[tax]]\nid = \"qst\"\nrate = \"9.975\"\ncompound = true\n",
    "[[tax]]\nid = \"vat\"\nrate = \"19\"\ninclusive = true\n[[tax]]\nid = \"fee\"\nrate = \"1.5\"\n",
];

impl Offer {
    fn text(&self, id: &str, version: u32, effective_from: &str, keys: &str) -> String {
        let [a, b, c] = self.prices.map(cents);
        let [low, high] = self.bounds;
        let price = match MODELS[self.model] {
            "standard" => format!("unit_amount = \"{a}\""),
            "package" => format!("package_size = \"{low}\"\npackage_amount = \"{a}\"\nfree_units = \"{}\"", high % 7),
            "percentage" => format!("rate = \"{a}\"\nfixed_amount = \"{b}\""),
            "graduated_percentage" => {
                format!("tiers = [{{ up_to = \"{low}\", rate = \"{a}\" }}, {{ rate = \"{b}\" }}]")
            }
            _ => format!(
                "tiers = [{{ up_to = \"{low}\", unit_amount = \"{a}\" }}, {{ up_to = \"{}\", unit_amount = \"{b}\", \
                 flat_amount = \"{c}\" }}, {{ unit_amount = \"{c}\" }}]",
                low + high
            ),
        };
        let mut usage = format!("model = \"{}\"\n{price}\n", MODELS[self.model]);
        if let Some(amount) = self.allowance {
            usage.push_str(&format!("allowance = {{ amount = \"{amount}\", prorate = {} }}\n", self.prorate));
        }
        if let Some(quantum) = self.quantize {
            usage.push_str(&format!("quantize = {{ to = \"{}\" }}\n", QUANTA[quantum]));
        }
        if let Some((minimum, more)) = self.limits {
            usage.push_str(&format!("minimum = \"{}\"\nmaximum = \"{}\"\n", cents(minimum), cents(minimum + more)));
        }
        let discount = self.discount.map_or(String::new(), |percent| {
            format!("[[discount]]\nkind = \"percent\"\nvalue = \"{percent}\"\napplies_to = [\"data\"]\n")
        });
        format!(
            "id = \"{id}\"\nversion = {version}\ncurrency = \"USD\"\neffective_from = \"{effective_from}\"\n{keys}\n\
             [[charge]]\nid = \"access\"\ntype = \"recurring\"\namount = \"49.95\"\nproration = \"{}\"\n\
             [[charge]]\nid = \"data\"\ntype = \"usage\"\nmeter = \"octets\"\ndirection = \"{}\"\nunit = \"GB\"\n{usage}\
             {discount}{}",
            PRORATIONS[self.proration], DIRECTIONS[self.direction], TAXES[self.taxes]
        )
    }

    fn tariff(&self) -> Tariff {
        read(&self.text("offer", 1, "2020-01-01", ""))
    }
}

fn read(text: &str) -> Tariff {
    Tariff::read("offer.toml", text).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"))
}

fn cents(minor: u32) -> String {
    format!("{}.{:02}", minor / 100, minor % 100)
}

fn offer() -> impl Strategy<Value = Offer> {
    let maybe = |most: u32| prop::option::of(0..most);
    let usage = (0..MODELS.len(), [1u32..900, 1..900, 1..900], [1u32..300, 1..300], maybe(200), any::<bool>());
    let rest = (
        prop::option::of(0..QUANTA.len()),
        prop::option::of((0u32..500, 0u32..9_000)),
        maybe(101),
        0..TAXES.len(),
        0..PRORATIONS.len(),
        0..DIRECTIONS.len(),
    );
    (usage, rest).prop_map(
        |((model, prices, bounds, allowance, prorate), (quantize, limits, discount, taxes, proration, direction))| {
            Offer { model, prices, bounds, allowance, prorate, quantize, limits, discount, taxes, proration, direction }
        },
    )
}

/// Usage as it becomes known: (minute after the first period's start, octets up, octets down), some of it taken back.
fn usage(most: usize) -> impl Strategy<Value = Vec<(i64, i64, i64)>> {
    prop::collection::vec((0i64..84_000, 0i64..40_000_000_000, 0i64..90_000_000_000), 1..most)
}

/// A tier: how long it is in KB, its unit amount in 1/10,000 and its flat amount in cents. The last one has no end.
#[derive(Debug, Clone, Copy)]
struct Step {
    length_kb: u32,
    unit_amount: u32,
    flat_cents: u32,
}

fn tier() -> impl Strategy<Value = Step> {
    (1u32..200_000_000, 0u32..20_000, prop_oneof![Just(0u32), 1u32..500])
        .prop_map(|(length_kb, unit_amount, flat_cents)| Step { length_kb, unit_amount, flat_cents })
}

fn tiered(model: &str, tiers: &[Step]) -> String {
    let mut bound = 0u64;
    let last = tiers.len() - 1;
    let list = tiers.iter().enumerate().map(|(place, tier)| {
        bound += u64::from(tier.length_kb);
        let up_to = match place == last {
            true => String::new(),
            false => format!("up_to = \"{}.{:06}\", ", bound / 1_000_000, bound % 1_000_000),
        };
        let unit = format!("{}.{:04}", tier.unit_amount / 10_000, tier.unit_amount % 10_000);
        format!("{{ {up_to}unit_amount = \"{unit}\", flat_amount = \"{}\" }}", cents(tier.flat_cents))
    });
    let list: Vec<String> = list.collect();
    format!(
        "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2020-01-01\"\n[[charge]]\nid = \"data\"\n\
         type = \"usage\"\nmeter = \"octets\"\ndirection = \"sum\"\nunit = \"GB\"\nmodel = \"{model}\"\n\
         tiers = [{}]\n",
        list.join(", ")
    )
}

const FIRST_PERIOD: &str = "2026-10-15";
const SETTLING: [&str; 4] = [FIRST_PERIOD, "2026-11-15", "2026-12-15", "2027-01-15"];

fn cycle() -> BillCycle {
    BillCycle {
        id: "c15".to_owned(),
        anchor_day: 15,
        every: Every::Month,
        zone: Zone::get("America/Chicago").expect("a zone"),
        timezone: "America/Chicago".to_owned(),
    }
}

fn known(tariff: Tariff) -> KnownVersion {
    KnownVersion { tariff, known_at: Timestamp::UNIX_EPOCH }
}

fn context(period: &str, tariffs: Vec<KnownVersion>) -> RunContext {
    let cycle = cycle();
    let period = cycle.named(period).expect("a period");
    let mut book = TariffBook::new();
    for version in tariffs {
        book.entry(version.tariff.id.clone()).or_default().push(version);
    }
    RunContext {
        now: period.end,
        cycle,
        period,
        batch: Some("b1".to_owned()),
        tariffs: book.into(),
        backdate_days: 400,
        wholesale: Vec::new(),
        corrections: CorrectionPolicy::default(),
        closures: BTreeMap::new(),
        causes: Causes::default(),
    }
}

fn began() -> Timestamp {
    cycle().named(FIRST_PERIOD).expect("a period").start
}

fn account(stretches: Vec<Stretch>) -> AccountFacts {
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

fn on_offer() -> AccountFacts {
    account(vec![Stretch { from: began(), until: None, tariff: "offer".to_owned() }])
}

/// Entries of an hour, also over a period's edge; every fifth takes back an earlier one, as a correction of the ledger does.
fn entries(usage: &[(i64, i64, i64)]) -> Vec<UsageEntry> {
    let mut made: Vec<UsageEntry> = Vec::new();
    for (index, (minute, up, down)) in usage.iter().enumerate() {
        let sequence = i64::try_from(index).expect("few") + 1;
        let from = began() + (*minute).minutes();
        let entry = UsageEntry {
            sequence,
            session: sequence,
            class: None,
            call: None,
            from,
            until: from + 1.hour(),
            in_octets: *up,
            out_octets: *down,
            seconds: 3600,
            sessions: 1,
        };
        let taken_back = (index % 5 == 4).then(|| made[index - 1].clone()).filter(|earlier| earlier.in_octets >= 0);
        made.push(match taken_back {
            Some(earlier) => UsageEntry {
                sequence,
                in_octets: -earlier.in_octets,
                out_octets: -earlier.out_octets,
                seconds: -earlier.seconds,
                sessions: -earlier.sessions,
                ..earlier
            },
            None => entry,
        });
    }
    made
}

fn rated(facts: &AccountFacts, context: &RunContext) -> Vec<StoredLine> {
    lines(facts, context).expect("an account that can be rated").lines
}

/// Runs with the first `known` entries and keeps the lines, as the store does.
fn close(facts: &mut AccountFacts, context: &RunContext, entries: &[UsageEntry], known: usize) -> Vec<StoredLine> {
    facts.services[0].usage = entries[..known].to_vec();
    facts.watermark = i64::try_from(known).expect("few");
    let made = rated(facts, context);
    facts.issued.extend(made.iter().cloned());
    made
}

#[test]
fn run_looks_back_where_something_changed_or_usage_came_late() {
    let offer = Offer {
        model: 1,
        prices: [10, 5, 2],
        bounds: [50, 100],
        allowance: None,
        prorate: false,
        quantize: None,
        limits: None,
        discount: None,
        taxes: 2,
        proration: 0,
        direction: 0,
    };
    let entries = entries(&[(10, 5, 5), (800, 7, 7), (20, 9, 9)]);
    let context = |period| context(period, vec![known(offer.tariff())]);
    let mut facts = on_offer();
    facts.unchanged_since = Some(Timestamp::UNIX_EPOCH);
    assert_eq!(looks_back(&facts, &context(SETTLING[0])), Ok(true), "it was never billed");
    close(&mut facts, &context(SETTLING[0]), &entries, 1);
    assert_eq!(looks_back(&facts, &context(SETTLING[1])), Ok(false));
    close(&mut facts, &context(SETTLING[1]), &entries, 2);
    let next = context(SETTLING[2]);
    assert_eq!(looks_back(&facts, &next), Ok(false));
    // The run of another period than the one before tells nothing of that one.
    assert_eq!(looks_back(&facts, &context(SETTLING[3])), Ok(true));
    let late = AccountFacts { watermark: 3, ..facts.clone() };
    let late =
        AccountFacts { services: vec![ServiceFacts { usage: entries.clone(), ..late.services[0].clone() }], ..late };
    assert_eq!(looks_back(&late, &next), Ok(true), "usage came for the first period");
    for unchanged_since in [None, Some(next.period.start + 1.hour()), Some(Timestamp::MAX)] {
        let changed = AccountFacts { unchanged_since, ..facts.clone() };
        assert_eq!(looks_back(&changed, &next), Ok(true), "{unchanged_since:?}");
    }
}

fn sum(parts: impl IntoIterator<Item = Exact>) -> Exact {
    parts.into_iter().fold(Exact::ZERO, |sum, part| sum.checked_add(part).expect("in range"))
}

fn decimal(text: &str) -> Exact {
    text.parse().expect("a decimal")
}

/// Amount and each tax of all lines of an item, by what makes them the same item.
fn sums_by_item(issued: &[StoredLine]) -> BTreeMap<String, (i64, BTreeMap<String, i64>, i128)> {
    let mut sums: BTreeMap<String, (i64, BTreeMap<String, i64>, i128)> = BTreeMap::new();
    for stored in issued {
        let sum = sums.entry(format!("{:?}", stored.item())).or_default();
        sum.0 += stored.line.amount_minor();
        sum.2 += stored.line.quantity_raw.parse::<i128>().expect("a count");
        for tax in &stored.line.tax {
            *sum.1.entry(tax.id.clone()).or_default() += tax.amount_minor();
        }
    }
    // What was issued and taken back again is as if it had never been.
    sums.retain(|_, (amount, taxes, raw)| {
        taxes.retain(|_, tax| *tax != 0);
        *amount != 0 || !taxes.is_empty() || *raw != 0
    });
    sums
}

fn counted(direction: usize, entries: &[UsageEntry]) -> i128 {
    let up: i128 = entries.iter().map(|entry| i128::from(entry.in_octets)).sum();
    let down: i128 = entries.iter().map(|entry| i128::from(entry.out_octets)).sum();
    match DIRECTIONS[direction] {
        "up" => up,
        "down" => down,
        "max" => up.max(down),
        _ => up + down,
    }
}

proptest! {
    #![proptest_config(crate::vocabulary::cases(1_000))]

    /// 1: every octet of the ledger is in the raw quantity of exactly one line, and of a line's quantity every unit is
    /// allowance or in a tier; what quantizing adds is below its step.
    #[test]
    fn octets_are_conserved(offer in offer(), usage in usage(12)) {
        // Up and down of different periods have no common maximum.
        let offer = Offer { direction: offer.direction % 3, ..offer };
        let entries = entries(&usage);
        let mut facts = on_offer();
        for period in ["2026-10-15", "2026-11-15"] {
            close(&mut facts, &context(period, vec![known(offer.tariff())]), &entries, entries.len());
        }
        let raw: i128 = facts.issued.iter().filter(|line| line.line.charge == "data")
            .map(|line| line.line.quantity_raw.parse::<i128>().expect("a count")).sum();
        prop_assert_eq!(raw, counted(offer.direction, &entries));
        let step = offer.quantize.map(|quantum| ["0.001", "1", "0.1", "0.01"][quantum]);
        for stored in facts.issued.iter().filter(|line| line.line.charge == "data") {
            let quantity = stored.basis.quantity.0;
            let exact = Exact::ratio(i128::from(stored.basis.quantity_raw), 1_000_000_000).expect("a ratio");
            let added = quantity.checked_sub(exact).expect("in range");
            match step {
                None => prop_assert_eq!(added, Exact::ZERO),
                Some(step) => prop_assert!(!added.is_negative() && added < decimal(step)),
            }
            if !matches!(MODELS[offer.model], "package") {
                let tiers = sum(stored.line.tiers.iter().map(|tier| decimal(&tier.quantity)));
                prop_assert_eq!(tiers.checked_add(stored.basis.allowance_used.0).expect("in range"), quantity);
            }
        }
    }

    /// 2: the order in which entries, earlier lines and versions of a tariff are given never changes a byte of the lines.
    #[test]
    fn order_changes_no_byte(
        offer in offer(), later in offer(), usage in usage(10), turn in 0usize..10, known_first in 0usize..10,
    ) {
        let versions = vec![known(offer.tariff()), known(read(&later.text("offer", 2, "2026-11-01", "")))];
        let straight = context(FIRST_PERIOD, versions.clone());
        let turned = context(FIRST_PERIOD, versions.into_iter().rev().collect());
        let mut facts = on_offer();
        let entries = entries(&usage);
        for known in [known_first.min(entries.len()) / 2, known_first.min(entries.len())] {
            close(&mut facts, &straight, &entries, known);
        }
        facts.services[0].usage = entries;
        facts.watermark = i64::try_from(usage.len()).expect("few");
        let bytes = |facts: &AccountFacts, context| serde_json::to_string(&rated(facts, context)).expect("JSON");
        let expected = bytes(&facts, &straight);
        let turn = turn % usage.len();
        facts.services[0].usage.rotate_left(turn);
        facts.services[0].usage.reverse();
        facts.issued.reverse();
        prop_assert_eq!(bytes(&facts, &turned), expected);
    }

    /// 2: accounts rated in chunks of any size by any number of threads at once have the same lines, to the byte.
    #[test]
    fn chunks_and_threads_change_no_byte(
        offer in offer(), accounts in prop::collection::vec(usage(4), 1..7), chunk in 1usize..5, threads in 1usize..5,
    ) {
        let context = context(FIRST_PERIOD, vec![known(offer.tariff())]);
        let facts: Vec<AccountFacts> = accounts.iter().enumerate().map(|(number, usage)| {
            let mut facts = AccountFacts { account: number.to_string(), ..on_offer() };
            facts.services[0].usage = entries(usage);
            facts.watermark = i64::try_from(usage.len()).expect("few");
            facts
        }).collect();
        let bytes = |facts: &AccountFacts| serde_json::to_string(&rated(facts, &context)).expect("JSON");
        let expected: Vec<String> = facts.iter().map(bytes).collect();
        let mut found = Vec::new();
        for chunk in facts.chunks(chunk) {
            let part = chunk.len().div_ceil(threads);
            found.extend(std::thread::scope(|scope| {
                let parts: Vec<_> = chunk.chunks(part)
                    .map(|part| scope.spawn(|| part.iter().map(bytes).collect::<Vec<String>>())).collect();
                parts.into_iter().flat_map(|part| part.join().expect("no panic")).collect::<Vec<String>>()
            }));
        }
        prop_assert_eq!(found, expected);
    }

    /// 3 and 5: runs at any watermarks, of one period or the next, with entries that take others back, add up to rating
    /// everything once: amounts in whole cents, every tax, every octet.
    #[test]
    fn any_watermarks_telescope(offer in offer(), usage in usage(12), cuts in prop::collection::btree_set(0usize..12, 0..4)) {
        let entries = entries(&usage);
        let tariff = || vec![known(offer.tariff())];
        let both = [context("2026-10-15", tariff()), context("2026-11-15", tariff())];
        let mut once = on_offer();
        close(&mut once, &both[1], &entries, entries.len());
        let mut parts = on_offer();
        for (turn, known) in cuts.into_iter().filter(|cut| *cut < entries.len()).enumerate() {
            // A prefix that takes back what it does not hold cannot be.
            // Also the older period behind the later one.
            let context = &both[turn % 2];
            let mut trial = parts.clone();
            trial.services[0].usage = entries[..known].to_vec();
            trial.watermark = i64::try_from(known).expect("few");
            match lines(&trial, context) {
                Ok(_) => { close(&mut parts, context, &entries, known); }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
        close(&mut parts, &both[1], &entries, entries.len());
        prop_assert_eq!(sums_by_item(&parts.issued), sums_by_item(&once.issued));
    }

    /// 4: a run that is repeated says nothing, and lines have ids of their own.
    #[test]
    fn repeated_run_says_nothing(offer in offer(), usage in usage(8)) {
        let context = context(FIRST_PERIOD, vec![known(offer.tariff())]);
        let entries = entries(&usage);
        let mut facts = on_offer();
        close(&mut facts, &context, &entries, entries.len() / 2);
        close(&mut facts, &context, &entries, entries.len());
        prop_assert!(rated(&facts, &context).is_empty());
        let ids: BTreeSet<&str> = facts.issued.iter().map(|line| line.line.id.as_str()).collect();
        prop_assert_eq!(ids.len(), facts.issued.len());
    }

    /// 4: what a run takes for settled, because an earlier one has looked at it and nothing but usage has come since, has no
    /// line; late usage has, whatever it is late for.
    #[test]
    fn settled_periods_have_the_lines_of_those_that_are_looked_at(
        offer in offer(), usage in usage(12), mut turns in prop::collection::vec(0usize..12, 4)
    ) {
        let entries = entries(&usage);
        turns.sort();
        let (mut looked_at, mut settled) = (on_offer(), on_offer());
        settled.unchanged_since = Some(Timestamp::UNIX_EPOCH);
        for (period, known_entries) in SETTLING.iter().zip(turns) {
            let context = context(period, vec![known(offer.tariff())]);
            let known_entries = known_entries.min(entries.len());
            let mut trial = looked_at.clone();
            trial.services[0].usage = entries[..known_entries].to_vec();
            trial.watermark = i64::try_from(known_entries).expect("few");
            // What is taken back before it came in stops the account, however it is looked at.
            if lines(&trial, &context).is_ok() {
                let made = close(&mut looked_at, &context, &entries, known_entries);
                prop_assert_eq!(close(&mut settled, &context, &entries, known_entries), made);
            }
        }
    }

    /// 5: a retroactive version replaces what the closed period cost: afterwards its items are what the new version alone
    /// would have made of it, and the old version's add up to nothing.
    #[test]
    fn retroactive_version_replaces_the_old_one(before in offer(), after in offer(), usage in usage(8)) {
        let entries = entries(&usage);
        let old = read(&before.text("offer", 1, "2020-01-01", ""));
        let new = read(&after.text("offer", 2, "2020-01-01", "retroactive = true"));
        let mut facts = on_offer();
        let mut first = context(FIRST_PERIOD, vec![known(old.clone())]);
        close(&mut facts, &first, &entries, entries.len());
        first.closures.insert(first.period.start, first.now);
        let known_at = first.now + 1.hour();
        let both = vec![known(old), KnownVersion { tariff: new.clone(), known_at }];
        let mut second = context(FIRST_PERIOD, both);
        second.closures = first.closures.clone();
        close(&mut facts, &second, &entries, entries.len());
        let mut alone = on_offer();
        close(&mut alone, &context(FIRST_PERIOD, vec![known(new)]), &entries, entries.len());
        prop_assert_eq!(sums_by_item(&facts.issued), sums_by_item(&alone.issued));
    }

    /// 7: maximum and minimum bound what is billed of a period so far, at whatever watermark; late usage fills the minimum
    /// first.
    #[test]
    fn limits_bound_what_is_billed_so_far(
        offer in offer(), usage in usage(6), minimum in 0u32..3_000, more in 0u32..5_000,
        cuts in prop::collection::btree_set(0usize..6, 0..3),
    ) {
        let offer = Offer { limits: Some((minimum, more)), taxes: 0, ..offer };
        let context = context(FIRST_PERIOD, vec![known(offer.tariff())]);
        let entries = entries(&usage);
        let mut facts = on_offer();
        for known in cuts.into_iter().filter(|cut| *cut < entries.len()).chain([entries.len()]) {
            close(&mut facts, &context, &entries, known);
            let of_data = facts.issued.iter().filter(|line| line.line.charge == "data");
            let so_far: i64 = of_data.map(|line| line.line.amount_minor()).sum();
            prop_assert!(i64::from(minimum) <= so_far && so_far <= i64::from(minimum + more), "{so_far}");
        }
    }

    /// 8: however often a plan is changed inside a period and back, the parts of the access charge add up to its price.
    #[test]
    fn parts_of_a_period_add_up(offer in offer(), seconds in prop::collection::btree_set(1i64..2_600_000, 0..5)) {
        let mut stretches: Vec<Stretch> = Vec::new();
        let names = ["offer", "copy"];
        let edges: Vec<Timestamp> = seconds.iter().map(|second| began() + (*second).seconds()).collect();
        for (turn, from) in std::iter::once(began()).chain(edges.iter().copied()).enumerate() {
            if let Some(last) = stretches.last_mut() {
                last.until = Some(from);
            }
            stretches.push(Stretch { from, until: None, tariff: names[turn % 2].to_owned() });
        }
        let copy = read(&offer.text("copy", 1, "2020-01-01", ""));
        let context = context(FIRST_PERIOD, vec![known(offer.tariff()), known(copy)]);
        let made = rated(&account(stretches), &context);
        let of_period = made.iter().filter(|line| line.line.charge == "access" && line.line.period == context.period);
        prop_assert_eq!(sum(of_period.map(|line| line.basis.amount_exact.0)), decimal("49.95"));
    }

    /// 6: graduated prices never fall with use, and where no flat amount is due at a bound, one octet beyond it
    /// costs one octet's price: there is no hole and no step between tiers.
    #[test]
    fn graduated_prices_have_no_hole(offer in offer(), near in 0usize..2, octets in 0i64..600_000_000_000) {
        let offer = Offer { model: 1, limits: None, discount: None, quantize: None, allowance: None, ..offer };
        let tariff = offer.tariff();
        let charge = usage_charge(&tariff);
        let at = |octets: i128| {
            let quantity = Exact::ratio(octets, 1_000_000_000).expect("a ratio");
            price(&tariff, charge, &Measure::whole(quantity, 0)).expect("in range").amount
        };
        prop_assert!(at(i128::from(octets)) <= at(i128::from(octets) + 1));
        let Model::Graduated(tiers) = &usage_of(charge).model else { unreachable!("the model is set above") };
        let tier = &tiers.list[near];
        let bound = tier.up_to.expect("the last tier alone is open").checked_mul(Exact::from_int(1_000_000_000));
        let bound = bound.expect("in range").floor();
        let next = &tiers.list[near + 1];
        let octet = |price: Exact| price.checked_mul(Exact::ratio(1, 1_000_000_000).expect("a ratio")).expect("in range");
        let step = |from: i128| at(from + 1).checked_sub(at(from)).expect("in range");
        prop_assert_eq!(step(bound - 1), octet(tier.unit_amount));
        prop_assert_eq!(step(bound), octet(next.unit_amount).checked_add(next.flat_amount).expect("in range"));
    }

    /// 6: a volume price is the whole quantity at the price of the tier (bound before, bound] it lies in.
    #[test]
    fn volume_is_its_definition(offer in offer(), octets in 0i64..900_000_000_000) {
        let offer = Offer { model: 2, limits: None, discount: None, quantize: None, allowance: None, ..offer };
        let tariff = offer.tariff();
        let charge = usage_charge(&tariff);
        let quantity = Exact::ratio(i128::from(octets), 1_000_000_000).expect("a ratio");
        let amount = price(&tariff, charge, &Measure::whole(quantity, 0)).expect("in range").amount;
        let [a, b, c] = offer.prices.map(|price| decimal(&cents(price)));
        let (low, high) = (offer.bounds[0], offer.bounds[0] + offer.bounds[1]);
        let is_within = |bound: u32| quantity <= Exact::from_int(i128::from(bound));
        let expected = match quantity {
            quantity if quantity.is_zero() => Exact::ZERO,
            quantity if is_within(low) => quantity.checked_mul(a).expect("in range"),
            quantity if is_within(high) => quantity.checked_mul(b).and_then(|price| price.checked_add(c)).expect("in range"),
            quantity => quantity.checked_mul(c).expect("in range"),
        };
        prop_assert_eq!(amount, expected);
    }

    /// 6: without flat amounts, two parts of a use cost together at least what the whole costs where each tier is cheaper
    /// than the one before, and at most that where each is dearer.
    #[test]
    fn parts_and_wholes_differ_by_the_direction_of_tiers(
        tiers in prop::collection::vec(tier(), 1..5), a in 0i64..600_000_000_000, b in 0i64..600_000_000_000,
    ) {
        let mut prices: Vec<u32> = tiers.iter().map(|tier| tier.unit_amount).collect();
        prices.sort_unstable();
        let cost = |tariff: &Tariff, octets: i64| {
            let quantity = Exact::ratio(i128::from(octets), 1_000_000_000).expect("a ratio");
            price(tariff, usage_charge(tariff), &Measure::whole(quantity, 0)).expect("in range").amount
        };
        let with = |prices: &[u32]| {
            let priced = tiers.iter().zip(prices).map(|(tier, price)| Step { unit_amount: *price, flat_cents: 0, ..*tier });
            read(&tiered("graduated", &priced.collect::<Vec<Step>>()))
        };
        let rising = with(&prices);
        prices.reverse();
        let falling = with(&prices);
        let parts = |tariff: &Tariff| cost(tariff, a).checked_add(cost(tariff, b)).expect("in range");
        prop_assert!(parts(&rising) <= cost(&rising, a + b));
        prop_assert!(parts(&falling) >= cost(&falling, a + b));
    }

    /// 10: a tier is (bound before, bound]: an octet below, at and above every bound, graduated and volume prices are what
    /// whole numbers of octets and of hundredths of a cent make of them.
    #[test]
    fn bounds_belong_to_the_tier_below(
        tiers in prop::collection::vec(tier(), 1..5), near in 0usize..5, off in -2i64..=2, volume in any::<bool>(),
    ) {
        let bounds: Vec<i128> = tiers.iter().scan(0, |sum, tier| {
            *sum += i128::from(tier.length_kb) * 1_000;
            Some(*sum)
        }).collect();
        let octets = (bounds[near % bounds.len()] + i128::from(off)).max(1);
        let tariff = read(&tiered(if volume { "volume" } else { "graduated" }, &tiers));
        let quantity = Exact::ratio(octets, 1_000_000_000).expect("a ratio");
        let amount = price(&tariff, usage_charge(&tariff), &Measure::whole(quantity, 0)).expect("in range").amount;
        // In 1/10,000 of the unit price times octets, so that nothing is divided.
        let flat = |tier: &Step| i128::from(tier.flat_cents) * 100 * 1_000_000_000;
        let (mut expected, mut below) = (0i128, 0i128);
        let last = tiers.len() - 1;
        for (place, tier) in tiers.iter().enumerate() {
            let bound = if place == last { i128::MAX } else { bounds[place] };
            if volume && octets <= bound {
                expected = octets * i128::from(tier.unit_amount) + flat(tier);
                break;
            }
            if !volume && octets > below {
                expected += (octets.min(bound) - below) * i128::from(tier.unit_amount) + flat(tier);
            }
            below = bound;
        }
        prop_assert_eq!(amount, Exact::ratio(expected, 10_000 * 1_000_000_000).expect("a ratio"));
    }

    /// 9: rating in GB, in MB and in octets with prices scaled to match is the same to the last digit; GiB differs from GB
    /// by its factor alone.
    #[test]
    fn units_are_only_factors(price_cents in 1u32..10_000, octets in 0i64..i64::MAX) {
        let priced = |unit: &str, amount: &str| {
            let text = format!(
                "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"data\"\n\
                 type = \"usage\"\nmeter = \"octets\"\ndirection = \"sum\"\nunit = \"{unit}\"\nmodel = \"standard\"\n\
                 unit_amount = \"{amount}\"\n"
            );
            let tariff = read(&text);
            let charge = usage_charge(&tariff);
            let size = i128::from(usage_of(charge).unit_size());
            let quantity = Exact::ratio(i128::from(octets), size).expect("a ratio");
            price(&tariff, charge, &Measure::whole(quantity, 0)).expect("in range").amount
        };
        let shifted = |places: usize| {
            let digits = format!("{price_cents:0>width$}", width = places + 3);
            let (whole, rest) = digits.split_at(digits.len() - places - 2);
            format!("{whole}.{rest}")
        };
        let in_gb = priced("GB", &shifted(0));
        prop_assert_eq!(priced("MB", &shifted(3)), in_gb);
        prop_assert_eq!(priced("octet", &shifted(9)), in_gb);
        let factor = Exact::ratio(1_000_000_000, 1 << 30).expect("a ratio");
        prop_assert_eq!(priced("GiB", &shifted(0)), in_gb.checked_mul(factor).expect("in range"));
    }

    /// 11: tiers and steps add up to the exact amount, that and the residue to the line; taxes to what the rounded line owes.
    #[test]
    fn a_line_adds_up(offer in offer(), usage in usage(8), known_first in 0usize..8) {
        let entries = entries(&usage);
        let context = context(FIRST_PERIOD, vec![known(offer.tariff())]);
        let mut facts = on_offer();
        close(&mut facts, &context, &entries, known_first.min(entries.len()));
        close(&mut facts, &context, &entries, entries.len());
        for stored in &facts.issued {
            let line = &stored.line;
            let tiers = line.tiers.iter().map(|tier| &tier.amount_exact);
            let steps = tiers.chain(line.adjustments.iter().map(|step| &step.amount_exact));
            // Decimals that do not end are shown cut; the exact amount is compared where all of them end.
            let shown: Vec<&String> = steps.chain([&line.amount_exact, &line.rounding_residue]).collect();
            if shown.iter().all(|text| text.split_once('.').is_none_or(|(_, places)| places.len() < 20)) {
                let parts = sum(shown[..shown.len() - 2].iter().map(|text| decimal(text)));
                prop_assert_eq!(parts, decimal(&line.amount_exact));
                let amount = parts.checked_add(decimal(&line.rounding_residue)).expect("in range");
                prop_assert_eq!(amount, decimal(&line.amount));
            }
        }
    }

    /// 11: whenever its usage came, an item's lines carry together exactly the taxes of their sum: each rounded once, a
    /// compound one on what the one before it made.
    #[test]
    fn taxes_are_those_of_the_sum(
        offer in offer(), usage in usage(8), known_first in 0usize..8, compound in any::<bool>(),
    ) {
        let offer = Offer { taxes: if compound { 3 } else { 2 }, ..offer };
        let entries = entries(&usage);
        let context = context(FIRST_PERIOD, vec![known(offer.tariff())]);
        let mut facts = on_offer();
        close(&mut facts, &context, &entries, known_first.min(entries.len()));
        close(&mut facts, &context, &entries, entries.len());
        // Thousandths of a percent, half away from zero.
        let levied = |base: i64, rate: i64| {
            let exact = i128::from(base) * i128::from(rate);
            i64::try_from((exact.abs() + 50_000) / 100_000 * exact.signum()).expect("fits")
        };
        for (item, (amount, taxes, _)) in sums_by_item(&facts.issued) {
            let due = |id: &str| taxes.get(id).copied().unwrap_or(0);
            match compound {
                false => prop_assert_eq!(due("sales"), levied(amount, 8_250), "{}", item),
                true => {
                    let gst = levied(amount, 5_000);
                    prop_assert_eq!((due("gst"), due("qst")), (gst, levied(amount + gst, 9_975)), "{}", item);
                }
            }
        }
    }

    /// 13: a preview has the lines of the later run at the same watermark, but for the batch.
    #[test]
    fn preview_is_the_later_run(offer in offer(), usage in usage(8)) {
        let mut facts = on_offer();
        facts.services[0].usage = entries(&usage);
        facts.watermark = i64::try_from(usage.len()).expect("few");
        let run = context(FIRST_PERIOD, vec![known(offer.tariff())]);
        let preview = RunContext { batch: None, ..run.clone() };
        let mut made = rated(&facts, &run);
        for line in &mut made {
            let batch = line.line.batch.take();
            prop_assert_eq!(batch.as_deref(), Some("b1"));
        }
        prop_assert_eq!(rated(&facts, &preview), made);
    }

    /// 15: whatever 63 bits count is priced exactly, or the account's bill stops: never a wrap, never a clamp.
    #[test]
    fn any_count_is_exact_or_stops(offer in offer(), octets in prop_oneof![Just(0i64), Just(i64::MAX), 0..i64::MAX]) {
        let tariff = offer.tariff();
        let charge = usage_charge(&tariff);
        let quantity = Exact::ratio(i128::from(octets), 1_000_000_000).expect("a ratio");
        let priced = price(&tariff, charge, &Measure::whole(quantity, 1)).expect("bounds were checked when it was read");
        let parts = priced.tiers.iter().map(|tier| tier.amount).chain(priced.adjustments.iter().map(|step| step.amount));
        prop_assert_eq!(sum(parts), priced.amount);
        if octets == 0 && offer.limits.is_none() && MODELS[offer.model] != "percentage" {
            prop_assert_eq!(priced.amount, Exact::ZERO);
        }
        // Two such entries leave 63 bits: the account stops, and says so.
        let mut facts = on_offer();
        let most = UsageEntry { in_octets: octets, out_octets: octets, ..entries(&[(1, 0, 0)])[0].clone() };
        facts.services[0].usage = vec![most.clone(), UsageEntry { sequence: 2, ..most }];
        facts.watermark = 2;
        match lines(&facts, &context(FIRST_PERIOD, vec![known(tariff)])) {
            Err(error) => {
                let loud = matches!(error, RunError::Exact(_) | RunError::Money(_) | RunError::TooMuchUsage { .. } | RunError::Beyond { .. });
                prop_assert!(octets > i64::MAX / 4 && loud, "{error}");
            }
            Ok(made) => {
                let raw: i128 = made.lines.iter().filter(|line| line.line.charge == "data")
                    .map(|line| line.line.quantity_raw.parse::<i128>().expect("a count")).sum();
                prop_assert_eq!(raw, counted(offer.direction, &facts.services[0].usage));
            }
        }
    }

    /// 16: the same account of another tenant, source or cycle has other lines, also where their names run together: no id
    /// is ever shared.
    #[test]
    fn no_line_is_two_tenants(offer in offer(), usage in usage(4)) {
        let context = context(FIRST_PERIOD, vec![known(offer.tariff())]);
        let mut facts = on_offer();
        facts.services[0].usage = entries(&usage);
        facts.watermark = i64::try_from(usage.len()).expect("few");
        let ids = |tenant: &str, source: &str, account: &str, context: &RunContext| -> BTreeSet<String> {
            let [tenant, source, account] = [tenant, source, account].map(str::to_owned);
            let of = AccountFacts { tenant, source, account, ..facts.clone() };
            rated(&of, context).into_iter().map(|line| line.line.id).collect()
        };
        let mut seen = ids("acme", "default", "100234", &context);
        let others = [
            ("zeta", "default", "100234"), ("acm", "edefault", "100234"), ("acme", "second", "100234"),
            ("acme", "default1", "00234"), ("acme", "default", "100235"),
        ];
        let mut other_cycle = context.clone();
        other_cycle.cycle.id = "d15".to_owned();
        let others = others.map(|(tenant, source, account)| ids(tenant, source, account, &context));
        for other in others.into_iter().chain([ids("acme", "default", "100234", &other_cycle)]) {
            prop_assert!(!other.is_empty() && seen.is_disjoint(&other));
            seen.extend(other);
        }
    }

    /// 17: of a price with inclusive tax, net and tax are the gross exactly, on every line and on all of them together.
    #[test]
    fn net_and_inclusive_tax_are_the_gross(offer in offer(), usage in usage(8), known_first in 0usize..8) {
        let offer = Offer { taxes: 1, ..offer };
        let entries = entries(&usage);
        let context = context(FIRST_PERIOD, vec![known(offer.tariff())]);
        let mut facts = on_offer();
        close(&mut facts, &context, &entries, known_first.min(entries.len()));
        close(&mut facts, &context, &entries, entries.len());
        for line in facts.issued.iter().map(|stored| &stored.line) {
            let tax = &line.tax[0];
            let base: i64 = tax.base.replace('.', "").parse().expect("cents");
            prop_assert_eq!(base + tax.amount_minor(), line.amount_minor());
        }
        for stored in &facts.issued {
            let gross = Money::new(stored.basis.amount_minor, "USD".parse().expect("USD"));
            let net = gross.exact().checked_div(decimal("1.2")).expect("in range");
            let kept = Exact::ratio(i128::from(stored.basis.taxes[0].base_minor), 100).expect("a ratio");
            let distance = net.checked_sub(kept).expect("in range");
            prop_assert!(distance <= decimal("0.005") && distance >= decimal("-0.005"));
        }
    }
}

fn usage_charge(tariff: &Tariff) -> &Charge {
    tariff.charges.iter().find(|charge| matches!(charge.kind, ChargeKind::Usage(_))).expect("a usage charge")
}

fn usage_of(charge: &Charge) -> &Usage {
    match &charge.kind {
        ChargeKind::Usage(usage) => usage,
        other => panic!("{other:?}"),
    }
}
