//! Runs whose usage is told apart or whose allowance is shared: windows, classes, pools, rollover, calls and peaks.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::tests::{at, close, context, entry, facts, run, summary, total, version};
use super::*;
use crate::billing::explain::{PoolGround, explain};
use crate::billing::facts::Grant;
use crate::billing::facts::{PeriodSum, ServiceFacts, Stretch, UsageEntry};
use crate::billing::groups::{last_period, newer};
use crate::vocabulary::Timestamp;

/// A tariff with one usage charge `data` of these keys.
fn priced(id: &str, keys: &str) -> String {
    format!(
        "id = \"{id}\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"data\"\n\
         type = \"usage\"\n{keys}\n"
    )
}

pub(super) fn octets(keys: &str) -> String {
    format!("meter = \"octets\"\ndirection = \"sum\"\nunit = \"GB\"\nmodel = \"standard\"\nunit_amount = \"1\"\n{keys}")
}

pub(super) fn rated_by(period: &str, keys: &str) -> RunContext {
    let mut context = context(period);
    Arc::make_mut(&mut context.tariffs)
        .insert("res-100".to_owned(), vec![version(&priced("res-100", keys), "2026-01-01T00:00:00Z")]);
    context
}

/// So many minutes later: no two runs are made at one moment.
pub(super) fn later(mut context: RunContext, minutes: usize) -> RunContext {
    context.now = Timestamp::from_second(context.now.as_second() + 60 * minutes as i64).expect("in range");
    context
}

pub(super) fn of_data(lines: &[StoredLine]) -> Vec<String> {
    summary(lines).into_iter().filter(|line| line.starts_with("data")).collect()
}

/// Every line recomputes to itself from the ledger entries up to its watermark.
pub(super) fn explained(facts: &AccountFacts, context: &RunContext) -> Vec<String> {
    explained_of(std::slice::from_ref(facts), context)
}

/// As `explained`, of accounts that share an allowance.
fn explained_of(family: &[AccountFacts], context: &RunContext) -> Vec<String> {
    let mut differences = Vec::new();
    for facts in family {
        for stored in facts.issued.iter().filter(|stored| stored.line.usage.is_some()) {
            let before = facts
                .issued
                .iter()
                .find(|other| other.item() == stored.item() && other.basis.revision + 1 == stored.basis.revision);
            let watermark = stored.line.usage.as_ref().map_or(0, |usage| usage.watermark);
            let service = stored.line.service.clone().unwrap_or_default();
            let entries = entries_of(facts, &service, watermark);
            let tariff = &context.tariffs[&stored.line.tariff.id][0].tariff;
            let ground = stored.basis.pool.as_ref().map(|pool| ground_of(family, facts, stored, pool, context));
            let found = explain(stored, before, tariff, None, &entries, ground.as_ref());
            differences.extend(found.expect("recomputed").differences);
        }
    }
    differences
}

fn entries_of(facts: &AccountFacts, service: &str, watermark: i64) -> Vec<UsageEntry> {
    let own = facts.services.iter().filter(|known| known.id == service).flat_map(|known| &known.usage);
    own.filter(|entry| entry.sequence <= watermark).cloned().collect()
}

/// What the store would have of it.
fn ground_of(
    family: &[AccountFacts],
    facts: &AccountFacts,
    stored: &StoredLine,
    pool: &PoolBasis,
    context: &RunContext,
) -> PoolGround {
    let account = |name: &Option<String>| match name {
        Some(name) => family.iter().find(|facts| facts.account == *name).expect("a relative"),
        None => facts,
    };
    let member = |member: &PoolMember| {
        let tariff = context.tariffs[&member.tariff][0].tariff.clone();
        (tariff, entries_of(account(&member.account), &member.service, member.watermark))
    };
    let tariff = &context.tariffs[&stored.line.tariff.id][0].tariff;
    let ChargeKind::Usage(usage) = &tariff.charge(&stored.line.charge).expect("its charge").kind else {
        panic!("a usage charge")
    };
    let pooled = usage.pool();
    let mut newest = None;
    for other in family.iter().flat_map(|facts| &facts.issued) {
        let own = pooled == Pool::Parent || other.line.account == stored.line.account;
        let of_chain = own && (pooled != Pool::Service || other.line.service == stored.line.service);
        let earlier = other.line.period.start < stored.line.period.start;
        if of_chain && earlier && other.line.created_at <= stored.line.created_at {
            newest = newer(newest, other);
        }
    }
    let granted = family
        .iter()
        .flat_map(|facts| &facts.grants)
        .filter(|grant| pool.grants.iter().any(|named| named.id == grant.id));
    let basis = |grant: &Grant| GrantBasis {
        id: grant.id.clone(),
        until: grant.until.map(|until| last_period(&context.cycle, until).expect("in range")),
        amount: Ratio(Exact::ratio(i128::from(grant.amount), i128::from(usage.unit_size())).expect("in range")),
        elsewhere: Ratio::default(),
    };
    PoolGround {
        members: pool.members.iter().map(member).collect(),
        before: newest.and_then(|line: &StoredLine| line.basis.carry.clone()).unwrap_or_default(),
        grants: granted.map(basis).collect(),
        ..PoolGround::default()
    }
}

pub(super) const GB: i64 = 1_000_000_000;

#[test]
fn line_tells_windows_and_classes_apart_and_recomputes() {
    let context = rated_by(
        "2026-10-15",
        &octets(
            "allowance = { amount = \"5\" }\n\
             windows = [{ id = \"night\", days = \"mon-sun\", from = \"01:00\", to = \"07:00\", weight = \"0.5\" }]\n\
             classes = { zero-rated = \"0\", voip = { unit_amount = \"0.25\" } }",
        ),
    );
    let mut facts = facts("2026-10-15T05:00:00Z");
    let of = |entry: UsageEntry, class: &str| UsageEntry { class: Some(Arc::from(class)), ..entry };
    facts.services[0].usage = vec![
        // In Chicago it is 10:00, then 02:00.
        entry(1, "2026-10-20T15:00:00Z", 10 * GB),
        entry(2, "2026-10-20T07:00:00Z", 4 * GB),
        of(entry(3, "2026-10-20T15:00:00Z", 7 * GB), "zero-rated"),
        of(entry(4, "2026-10-20T15:00:00Z", 8 * GB), "voip"),
    ];
    facts.watermark = 4;
    let lines = close(&mut facts, &context);
    let line = &lines[0].line;
    // 10 + 4 x 0.5 are 12, 5 of them free; 8 x 0.25 apart.
    assert_eq!((line.quantity_raw.as_str(), line.quantity.as_str()), ("29000000000", "12"));
    assert_eq!((line.amount.as_str(), line.adjustments[0].kind.as_str()), ("9.00", "own_price"));
    let part =
        |part: &PartShape| format!("{:?} {:?} {} {}", part.class, part.window, part.quantity_raw, part.amount_exact);
    let parts: Vec<String> = line.parts.iter().map(part).collect();
    assert_eq!(
        parts,
        [
            "None None 10000000000 0",
            "None Some(\"night\") 4000000000 0",
            "Some(\"voip\") None 8000000000 2",
            "Some(\"zero-rated\") None 7000000000 0"
        ]
    );
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
    // A ledger that says otherwise does not explain the line.
    facts.services[0].usage[2].class = None;
    assert!(!explained(&facts, &context).is_empty());
}

#[test]
fn minimum_is_of_the_whole_period_and_late_usage_fills_it_first() {
    let context = rated_by("2026-10-15", &octets("minimum = \"5\""));
    let mut facts = facts("2026-10-15T05:00:00Z");
    let mut billed = Vec::new();
    for (sequence, gigabytes) in [(1, 3), (2, 1), (3, 4)] {
        facts.services[0].usage.push(entry(sequence, "2026-10-20T15:00:00Z", gigabytes * GB));
        facts.watermark = sequence;
        billed.extend(of_data(&close(&mut facts, &context)));
    }
    assert_eq!(
        billed,
        ["data 2026-10-15 usage 3 5.00", "data 2026-10-15 adjustment 1 0.00", "data 2026-10-15 adjustment 4 3.00"]
    );
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
}

const ROLLOVER: &str = "allowance = { amount = \"100\", rollover = { max = \"50\", expires_cycles = 1 } }";

#[test]
fn unused_allowance_rolls_over_and_late_usage_moves_it_on() {
    let mut facts = facts("2026-08-15T05:00:00Z");
    let periods = ["2026-08-15", "2026-09-15", "2026-10-15"];
    facts.services[0].usage = vec![
        entry(1, "2026-08-20T15:00:00Z", 30 * GB),
        entry(2, "2026-09-20T15:00:00Z", 120 * GB),
        entry(3, "2026-10-20T15:00:00Z", 160 * GB),
    ];
    facts.watermark = 3;
    let mut issued = Vec::new();
    for period in periods {
        issued.extend(of_data(&close(&mut facts, &rated_by(period, &octets(ROLLOVER)))));
    }
    // 70 left, 50 of them carried; 30 left of 150; 160 of 130.
    assert_eq!(
        issued,
        ["data 2026-08-15 usage 30 0.00", "data 2026-09-15 usage 120 0.00", "data 2026-10-15 usage 160 30.00"]
    );
    let shape = facts.issued[1].line.allowance.clone().expect("a shared allowance");
    assert_eq!(
        (shape.carried_in.as_str(), shape.used.as_str(), shape.carried_on.as_deref()),
        ("50", "120", Some("30"))
    );
    // 60 more in August leave 10: September has 110 and 120 to bill, October its own 100 alone.
    facts.services[0].usage.push(entry(4, "2026-08-21T15:00:00Z", 60 * GB));
    facts.watermark = 4;
    let context = later(rated_by("2026-10-15", &octets(ROLLOVER)), 1);
    let late = of_data(&close(&mut facts, &context));
    assert_eq!(
        late,
        [
            "data 2026-08-15 adjustment 60 0.00",
            "data 2026-09-15 adjustment 0 10.00",
            "data 2026-10-15 adjustment 0 30.00"
        ]
    );
    assert!(of_data(&close(&mut facts, &context)).is_empty());
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
}

/// A run whose policy holds corrections below 15.00 back.
fn held_below_fifteen(period: &str, keys: &str, minutes: usize) -> RunContext {
    let mut context = later(rated_by(period, &octets(keys)), minutes);
    context.corrections.min_amount = "15".parse().ok();
    context
}

#[test]
fn correction_that_is_held_back_carries_on_what_was_issued() {
    let mut facts = facts("2026-08-15T05:00:00Z");
    facts.services[0].usage =
        vec![entry(1, "2026-08-20T15:00:00Z", 30 * GB), entry(2, "2026-09-20T15:00:00Z", 140 * GB)];
    facts.watermark = 2;
    for period in ["2026-08-15", "2026-09-15"] {
        close(&mut facts, &held_below_fifteen(period, ROLLOVER, 0));
    }
    assert_eq!(total(&facts, "data"), 0, "50 are carried into September, of whose 150 it uses 140");
    // 80 more in August are 10 beyond its allowance, and nothing is left to carry.
    facts.services[0].usage.push(entry(3, "2026-08-21T15:00:00Z", 80 * GB));
    facts.watermark = 3;
    let context = held_below_fifteen("2026-09-15", ROLLOVER, 1);
    let found = super::lines(&facts, &context).expect("rated");
    let held: Vec<(String, i64)> = found.held.iter().map(|held| (held.key.charge.clone(), held.amount.minor)).collect();
    assert_eq!((of_data(&found.lines), held), (Vec::new(), vec![("data".to_owned(), 1_000)]));
}

#[test]
fn held_correction_of_one_of_several_moves_what_is_carried_once_and_for_all() {
    let keys = ROLLOVER.replace("rollover", "pool = \"account\", rollover");
    let mut facts = facts("2026-08-15T05:00:00Z");
    with_second_service(&mut facts);
    facts.services[0].usage =
        vec![entry(1, "2026-08-20T15:00:00Z", 30 * GB), entry(2, "2026-09-20T15:00:00Z", 240 * GB)];
    facts.watermark = 2;
    for period in ["2026-08-15", "2026-09-15"] {
        close(&mut facts, &held_below_fifteen(period, &keys, 0));
    }
    assert_eq!(total(&facts, "data"), 0, "50 are carried into September, of whose 250 it uses 240");
    // 180 more in August: all 200 are used, and 10 beyond. The correction of service 1 is held; the line of service 2 tells
    // that nothing is left to carry.
    facts.services[0].usage.push(entry(3, "2026-08-21T15:00:00Z", 180 * GB));
    facts.watermark = 3;
    let context = held_below_fifteen("2026-09-15", &keys, 1);
    let found = super::lines(&facts, &context).expect("rated");
    assert_eq!(
        of_data(&found.lines),
        [
            "data 2026-09-15 adjustment 0 40.00",
            "data 2026-08-15 adjustment 0 0.00",
            "data 2026-09-15 adjustment 0 0.00"
        ],
        "{:?}",
        found.held
    );
    facts.issued.extend(found.lines);
    assert_eq!(of_data(&run(&facts, &context)), Vec::<String>::new(), "a repeated run");
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
}

#[test]
fn small_corrections_that_are_worth_a_line_together_carry_on_what_they_say() {
    let two = format!("{}\n[[charge]]\nid = \"more\"\ntype = \"usage\"\n{}", octets(ROLLOVER), octets(""));
    let held = |period: &str, minutes: usize| {
        let mut context = later(rated_by(period, &two), minutes);
        context.corrections.min_amount = "15".parse().ok();
        context
    };
    let mut facts = facts("2026-08-15T05:00:00Z");
    facts.services[0].usage =
        vec![entry(1, "2026-08-20T15:00:00Z", 95 * GB), entry(2, "2026-09-20T15:00:00Z", 104 * GB)];
    facts.watermark = 2;
    for period in ["2026-08-15", "2026-09-15"] {
        close(&mut facts, &held(period, 0));
    }
    // 8 more in August: 3 of `data` and 8 of `more` are small, and together too; 14 more are not, and 4 that were carried
    // into September are to be paid there, which by itself is small.
    facts.services[0].usage.push(entry(3, "2026-08-21T15:00:00Z", 8 * GB));
    facts.watermark = 3;
    assert_eq!(run(&facts, &held("2026-09-15", 1)), []);
    facts.services[0].usage.push(entry(4, "2026-08-21T15:00:00Z", 6 * GB));
    facts.watermark = 4;
    let lines = summary(&close(&mut facts, &held("2026-09-15", 1)));
    assert_eq!(
        lines,
        [
            "data 2026-08-15 adjustment 14 9.00",
            "more 2026-08-15 adjustment 14 14.00",
            "data 2026-09-15 adjustment 0 4.00"
        ]
    );
    assert_eq!(summary(&run(&facts, &held("2026-09-15", 1))), Vec::<String>::new(), "a repeated run");
}

/// The sums of a service's periods, as the store keeps them.
fn sums_of(entries: &[UsageEntry], context: &RunContext) -> BTreeMap<Timestamp, PeriodSum> {
    let mut sums: BTreeMap<Timestamp, PeriodSum> = BTreeMap::new();
    for entry in entries {
        let period = context.cycle.period_at(entry.from).expect("in range");
        sums.entry(period.start).or_default().count(entry);
    }
    sums
}

#[test]
fn share_of_a_pool_that_changes_below_a_cent_is_kept_on_a_line() {
    let context = rated_by(
        "2026-10-15",
        &octets("allowance = { amount = \"100\", pool = \"account\" }").replace("\"1\"", "\"0.05\""),
    );
    let mut facts = facts("2026-10-15T05:00:00Z");
    let mut other = facts.services[0].clone();
    other.id = "2".to_owned();
    facts.services.push(other);
    facts.services[0].usage = vec![entry(1, "2026-10-20T15:00:00Z", 150 * GB)];
    facts.services[1].usage = vec![entry(2, "2026-10-20T15:00:00Z", 60 * GB)];
    facts.watermark = 2;
    close(&mut facts, &context);
    // Service 2 uses 10 MB more of its own: service 1 has so much less, 0.0005, and no cent changes.
    facts.services[1].usage.push(entry(3, "2026-10-21T15:00:00Z", GB / 100));
    facts.watermark = 3;
    let lines = close(&mut facts, &context);
    assert_eq!(of_data(&lines), ["data 2026-10-15 adjustment 0 0.00", "data 2026-10-15 adjustment 0.01 0.00"]);
    assert_eq!(lines[0].line.allowance_used, "-0.01");
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
}

#[test]
fn carried_allowance_that_changes_is_kept_on_a_line_of_its_own_and_reaches_the_later_periods() {
    let mut facts = facts("2026-08-15T05:00:00Z");
    let periods = ["2026-08-15", "2026-09-15", "2026-10-15"];
    facts.services[0].usage = vec![
        entry(1, "2026-08-20T15:00:00Z", 50 * GB),
        entry(2, "2026-09-20T15:00:00Z", 20 * GB),
        entry(3, "2026-10-20T15:00:00Z", 150 * GB),
    ];
    facts.watermark = 3;
    let rollover = ROLLOVER.replace("\"50\"", "\"100\"");
    let mut issued = Vec::new();
    for period in periods {
        issued.extend(of_data(&close(&mut facts, &rated_by(period, &octets(&rollover)))));
    }
    // 50 left; they pay for September's 20, so that its own 100 go on: 200 for October.
    assert_eq!(
        issued,
        ["data 2026-08-15 usage 50 0.00", "data 2026-09-15 usage 20 0.00", "data 2026-10-15 usage 150 0.00"]
    );
    // 45 GB more of August: 5 are left, September uses as much as before and 15 of its own: 85 go on, 185 for October.
    facts.services[0].usage.push(entry(4, "2026-08-21T15:00:00Z", 45 * GB));
    facts.watermark = 4;
    let mut context = rated_by("2026-10-15", &octets(&rollover));
    let hour = jiff::SignedDuration::from_hours(1);
    context.now = context.now.checked_add(hour).expect("an instant");
    assert_eq!(
        of_data(&close(&mut facts, &context)),
        [
            "data 2026-08-15 adjustment 45 0.00",
            "data 2026-09-15 adjustment 0 0.00",
            "data 2026-10-15 adjustment 0 0.00"
        ]
    );
    // 40 GB more of October, 5 of them beyond its 185.
    facts.services[0].usage.push(entry(5, "2026-10-21T15:00:00Z", 40 * GB));
    facts.watermark = 5;
    context.now = context.now.checked_add(hour).expect("an instant");
    assert_eq!(of_data(&close(&mut facts, &context)), ["data 2026-10-15 adjustment 40 5.00"]);
    assert_eq!(of_data(&run(&facts, &context)), Vec::<String>::new());
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
}

#[test]
fn run_of_an_older_period_leaves_the_later_ones_alone_and_loses_nothing_of_them() {
    let (older, newer) = (rated_by("2026-09-15", &octets("")), rated_by("2026-10-15", &octets("")));
    for kept in [true, false] {
        let mut facts = facts("2026-09-15T05:00:00Z");
        let tell = |facts: &mut AccountFacts, entries: &[UsageEntry]| {
            facts.watermark = entries.last().expect("an entry").sequence;
            facts.services[0].sums = kept.then(|| sums_of(entries, &older));
            facts.services[0].usage = if kept { Vec::new() } else { entries.to_vec() };
        };
        let mut entries = vec![entry(1, "2026-09-20T15:00:00Z", 3 * GB), entry(2, "2026-10-20T15:00:00Z", 5 * GB)];
        tell(&mut facts, &entries);
        close(&mut facts, &older);
        close(&mut facts, &newer);
        assert!(run(&facts, &older).is_empty(), "nothing is new");
        entries.extend([entry(3, "2026-10-21T15:00:00Z", GB), entry(4, "2026-09-21T15:00:00Z", GB)]);
        tell(&mut facts, &entries);
        assert_eq!(looked_at_everywhere(&facts), 2);
        assert_eq!(of_data(&close(&mut facts, &older)), ["data 2026-09-15 adjustment 1 1.00"]);
        assert_eq!(looked_at_everywhere(&facts), 2, "the later period has not been looked at since");
        assert_eq!(of_data(&close(&mut facts, &newer)), ["data 2026-10-15 adjustment 1 1.00"]);
        assert_eq!(looked_at_everywhere(&facts), 4);
    }
}

#[test]
fn run_of_an_older_period_moves_what_is_carried_and_the_next_run_of_a_later_one_corrects_it() {
    for keep_unchanged in [false, true] {
        let mut facts = facts("2026-08-15T05:00:00Z");
        facts.unchanged_since = keep_unchanged.then_some(at("2026-08-15T05:00:00Z"));
        facts.services[0].usage =
            vec![entry(1, "2026-08-20T15:00:00Z", 30 * GB), entry(2, "2026-09-20T15:00:00Z", 140 * GB)];
        facts.watermark = 2;
        for period in ["2026-08-15", "2026-09-15", "2026-10-15"] {
            close(&mut facts, &rated_by(period, &octets(ROLLOVER)));
        }
        facts.services[0].usage.push(entry(3, "2026-08-21T15:00:00Z", 60 * GB));
        facts.watermark = 3;
        let older = close(&mut facts, &later(rated_by("2026-08-15", &octets(ROLLOVER)), 200_000));
        assert_eq!(of_data(&older), ["data 2026-08-15 adjustment 60 0.00"]);
        // 10 were left of August, and September has used 140.
        let context = later(rated_by("2026-10-15", &octets(ROLLOVER)), 200_000);
        assert_eq!(
            of_data(&close(&mut facts, &context)),
            ["data 2026-09-15 adjustment 0 30.00", "data 2026-10-15 adjustment 0 0.00"],
            "{keep_unchanged}"
        );
        assert_eq!(of_data(&run(&facts, &context)), Vec::<String>::new());
        assert_eq!(explained(&facts, &context), Vec::<String>::new());
    }
}

#[test]
fn usage_of_every_period_that_rollover_moves_is_asked_for() {
    let mut facts = facts("2026-08-15T05:00:00Z");
    for period in ["2026-08-15", "2026-09-15", "2026-10-15"] {
        close(&mut facts, &rated_by(period, &octets(ROLLOVER)));
    }
    facts.services[0].usage = vec![entry(1, "2026-09-20T15:00:00Z", GB)];
    facts.watermark = 1;
    let needs = usage_needed(&facts, &rated_by("2026-10-15", &octets(ROLLOVER))).expect("in range");
    let starts: Vec<String> = needs.iter().map(|need| need.period.start.to_string()).collect();
    assert_eq!(starts, ["2026-09-15T05:00:00Z", "2026-10-15T05:00:00Z"]);
}

fn with_second_service(facts: &mut AccountFacts) {
    let stretch = Stretch { from: at("2026-08-15T05:00:00Z"), until: None, tariff: "res-100".to_owned() };
    facts.services.push(ServiceFacts { id: "2".to_owned(), stretches: vec![stretch], ..facts.services[0].clone() });
    facts.services[1].usage.clear();
}

#[test]
fn services_of_an_account_share_a_pooled_allowance() {
    let keys = octets("allowance = { amount = \"100\", pool = \"account\" }");
    let context = rated_by("2026-10-15", &keys);
    let mut facts = facts("2026-10-15T05:00:00Z");
    with_second_service(&mut facts);
    facts.services[1].stretches[0].from = at("2026-10-15T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-10-20T15:00:00Z", 150 * GB)];
    facts.services[1].usage = vec![entry(2, "2026-10-20T15:00:00Z", 80 * GB)];
    facts.watermark = 2;
    let lines = close(&mut facts, &context);
    assert_eq!(of_data(&lines), ["data 2026-10-15 usage 150 30.00", "data 2026-10-15 usage 80 0.00"]);
    // Late usage of the second service takes its own allowance back from the first.
    facts.services[1].usage.push(entry(3, "2026-10-21T15:00:00Z", 15 * GB));
    facts.watermark = 3;
    let late = close(&mut facts, &context);
    assert_eq!(of_data(&late), ["data 2026-10-15 adjustment 0 15.00", "data 2026-10-15 adjustment 15 0.00"]);
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
}

#[test]
fn calls_are_billed_by_destination() {
    let keys = "meter = \"calls\"\nunit = \"min\"\nincrements = \"60/60\"\n\
                rates = [{ prefix = \"+1\", unit_amount = \"0.02\" }, { prefix = \"+1800\", unit_amount = \"0\" }]";
    let context = rated_by("2026-10-15", keys);
    let mut facts = facts("2026-10-15T05:00:00Z");
    let call = |sequence: i64, from: &str, called: &str, seconds: i64| UsageEntry {
        session: -sequence,
        call: Some(Arc::from(called)),
        until: Timestamp::from_second(at(from).as_second() + seconds).expect("in range"),
        seconds,
        ..entry(sequence, from, 0)
    };
    facts.services[0].usage = vec![
        call(1, "2026-10-20T15:00:00Z", "+15125550100", 61),
        call(2, "2026-10-20T16:00:00Z", "+18005550100", 600),
        // Began in the period and ended in the next one.
        call(3, "2026-11-15T05:59:30Z", "+15125550100", 60),
        call(4, "2026-11-15T06:00:00Z", "+15125550100", 60),
    ];
    facts.watermark = 4;
    let lines = close(&mut facts, &context);
    assert_eq!(of_data(&lines), ["data 2026-10-15 usage 13 0.06"]);
    let line = &lines[0].line;
    assert_eq!((line.quantity_raw.as_str(), line.usage.as_ref().map(|usage| usage.records)), ("721", Some(3)));
    assert_eq!(line.parts.iter().map(|part| part.calls).collect::<Vec<_>>(), [Some(2), Some(1)]);
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
    facts.services[0].usage.push(call(5, "2026-10-22T15:00:00Z", "+33123456789", 60));
    facts.watermark = 5;
    assert!(matches!(lines_of(&facts, &context), Err(RunError::NoRate { .. })));
}

fn lines_of(facts: &AccountFacts, context: &RunContext) -> Result<RunResult, RunError> {
    super::lines(facts, context)
}

#[test]
fn peak_is_the_percentile_of_the_billed_time() {
    let keys =
        "meter = \"peak_bps_95\"\ndirection = \"down\"\nunit = \"Mbps\"\nmodel = \"standard\"\nunit_amount = \"2\"";
    let context = rated_by("2026-10-15", keys);
    let mut facts = facts("2026-10-15T05:00:00Z");
    // 8,940 slots of a period of 31 days and an hour; one hour in sixteen at 12 Mbit/s is more than a twentieth.
    let hours = (0i64..745).step_by(16);
    facts.services[0].usage = hours
        .enumerate()
        .map(|(index, hour)| {
            let from = Timestamp::from_second(at("2026-10-15T05:00:00Z").as_second() + hour * 3600).expect("in range");
            entry(index as i64 + 1, &from.to_string(), 5_400_000_000)
        })
        .collect();
    facts.watermark = facts.services[0].usage.len() as i64;
    let lines = close(&mut facts, &context);
    assert_eq!(of_data(&lines), ["data 2026-10-15 usage 12 24.00"]);
    assert_eq!(lines[0].line.unit, "Mbps");
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
    // Fewer hours are forgiven.
    let count = facts.services[0].usage.len();
    facts.services[0].usage.truncate(count - 12);
    facts.issued.clear();
    assert_eq!(of_data(&run(&facts, &context)), ["data 2026-10-15 usage 0 0.00"]);
}

pub(super) fn grant(id: &str, gigabytes: i64, from: &str, until: Option<&str>) -> Grant {
    Grant {
        id: id.to_owned(),
        pool: Pool::Service,
        head: None,
        service: "1".to_owned(),
        charge: "data".to_owned(),
        amount: gigabytes * GB,
        from: at(from),
        until: until.map(at),
        foreign: false,
    }
}

/// What a line's allowance was made of.
fn buckets(stored: &StoredLine) -> Vec<String> {
    let shape = stored.line.allowance.as_ref().expect("a shared allowance");
    let bucket = |bucket: &BucketShape| {
        let name = bucket.id.clone().unwrap_or_else(|| format!("{:?}", bucket.kind).to_lowercase());
        format!("{name} {} of {}", bucket.used, bucket.quantity)
    };
    shape.buckets.iter().map(bucket).collect()
}

#[test]
fn top_up_is_used_when_the_periods_own_is_and_lives_on_to_its_end() {
    let keys = octets("allowance = { amount = \"100\" }");
    let mut facts = facts("2026-08-15T05:00:00Z");
    facts.services[0].usage = vec![
        entry(1, "2026-08-20T15:00:00Z", 130 * GB),
        entry(2, "2026-09-20T15:00:00Z", 115 * GB),
        entry(3, "2026-10-20T15:00:00Z", 108 * GB),
    ];
    facts.watermark = 3;
    // Posted when August's usage was there already; it ends with the period that begins in September.
    facts.grants = vec![grant("ch_1", 50, "2026-09-10T05:00:00Z", Some("2026-10-15T05:00:00Z"))];
    let mut issued = Vec::new();
    for period in ["2026-08-15", "2026-09-15", "2026-10-15"] {
        issued.extend(of_data(&close(&mut facts, &rated_by(period, &keys))));
    }
    assert_eq!(
        issued,
        ["data 2026-08-15 usage 130 0.00", "data 2026-09-15 usage 115 0.00", "data 2026-10-15 usage 108 8.00"]
    );
    let lines: Vec<&StoredLine> = facts.issued.iter().filter(|line| line.line.charge == "data").collect();
    assert_eq!(buckets(lines[0]), ["included 100 of 100", "ch_1 30 of 50"]);
    assert_eq!(buckets(lines[1]), ["included 100 of 100", "ch_1 15 of 20"]);
    assert!(lines[2].line.allowance.is_none(), "it has expired");
    assert_eq!(explained(&facts, &rated_by("2026-10-15", &keys)), Vec::<String>::new());
    // Another amount in the store than the line was made with explains it no more.
    facts.grants[0].amount += GB;
    assert!(!explained(&facts, &rated_by("2026-10-15", &keys)).is_empty());
}

#[test]
fn late_usage_takes_a_top_up_away_from_the_later_periods() {
    let keys = octets("");
    let mut facts = facts("2026-09-15T05:00:00Z");
    facts.services[0].usage =
        vec![entry(1, "2026-09-20T15:00:00Z", 10 * GB), entry(2, "2026-10-20T15:00:00Z", 35 * GB)];
    facts.watermark = 2;
    facts.grants = vec![grant("ch_1", 50, "2026-09-16T05:00:00Z", None)];
    for period in ["2026-09-15", "2026-10-15"] {
        close(&mut facts, &rated_by(period, &keys));
    }
    assert_eq!(total(&facts, "data"), 0);
    facts.services[0].usage.push(entry(3, "2026-09-21T15:00:00Z", 20 * GB));
    facts.watermark = 3;
    let context = later(rated_by("2026-10-15", &keys), 1);
    let late = close(&mut facts, &context);
    // 30 are used in September, so that October has 20 for its 35.
    assert_eq!(of_data(&late), ["data 2026-09-15 adjustment 20 0.00", "data 2026-10-15 adjustment 0 15.00"]);
    assert!(of_data(&close(&mut facts, &context)).is_empty());
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
}

#[test]
fn top_up_that_comes_after_the_bill_gives_the_difference_back() {
    let keys = octets("allowance = { amount = \"100\" }");
    let mut facts = facts("2026-09-15T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-09-20T15:00:00Z", 130 * GB)];
    facts.watermark = 1;
    assert_eq!(of_data(&close(&mut facts, &rated_by("2026-09-15", &keys))), ["data 2026-09-15 usage 130 30.00"]);
    facts.grants = vec![grant("ch_1", 20, "2026-10-10T05:00:00Z", Some("2026-10-15T05:00:00Z"))];
    let context = rated_by("2026-10-15", &keys);
    let lines = close(&mut facts, &context);
    assert_eq!(of_data(&lines)[0], "data 2026-09-15 credit 0 -20.00");
    assert!(of_data(&close(&mut facts, &context)).is_empty());
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
}

#[test]
fn prepaid_charge_bills_nothing_beyond_what_is_there() {
    let keys = "meter = \"octets\"\ndirection = \"sum\"\nunit = \"GB\"\nprepaid = true";
    let context = rated_by("2026-10-15", keys);
    let mut facts = facts("2026-10-15T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-10-20T15:00:00Z", 12 * GB)];
    facts.watermark = 1;
    facts.grants = vec![grant("ch_1", 10, "2026-10-20T05:00:00Z", None)];
    let lines = close(&mut facts, &context);
    assert_eq!(of_data(&lines), ["data 2026-10-15 usage 12 0.00"]);
    assert_eq!((lines[0].line.allowance_used.as_str(), buckets(&lines[0])), ("10", vec!["ch_1 10 of 10".to_owned()]));
    // What was used beyond it is taken from the next top-up of the period.
    facts.grants.push(grant("ch_2", 5, "2026-10-21T05:00:00Z", None));
    let lines = close(&mut facts, &context);
    assert_eq!(buckets(&lines[0]), ["ch_1 10 of 10", "ch_2 2 of 5"]);
    assert_eq!(lines[0].line.allowance.as_ref().and_then(|shape| shape.left.clone()).as_deref(), Some("3"));
    assert_eq!(explained(&facts, &context), Vec::<String>::new());
}

const FAMILY: &str = "allowance = { amount = \"100\", pool = \"parent\" }";

/// Two accounts under the head "P", which has no service of its own here.
fn family(from: &str) -> Vec<AccountFacts> {
    let one = |number: i64| AccountFacts {
        account: format!("A{number}"),
        parents: vec![(Timestamp::MIN, Some("P".to_owned()))],
        place: number,
        ..facts(from)
    };
    vec![one(1), one(2)]
}

fn close_all(family: &mut [AccountFacts], context: &RunContext) -> Vec<Vec<String>> {
    let found = super::lines_of(family, context);
    let mut shown = Vec::new();
    for (facts, found) in family.iter_mut().zip(found) {
        let lines = found.expect("an account that can be rated").lines;
        shown.push(of_data(&lines));
        facts.issued.extend(lines);
    }
    shown
}

#[test]
fn accounts_of_a_parent_share_an_allowance_and_late_usage_of_one_corrects_the_other() {
    let context = rated_by("2026-10-15", &octets(FAMILY));
    let mut family = family("2026-10-15T05:00:00Z");
    family[0].services[0].usage = vec![entry(1, "2026-10-20T15:00:00Z", 150 * GB)];
    family[1].services[0].usage = vec![entry(1, "2026-10-20T15:00:00Z", 70 * GB)];
    family.iter_mut().for_each(|facts| facts.watermark = 1);
    let before = family.clone();
    let billed = close_all(&mut family, &context);
    assert_eq!(billed, [vec!["data 2026-10-15 usage 150 20.00"], vec!["data 2026-10-15 usage 70 0.00"]]);
    // The same beside its relatives, one account at a time, in whatever order they are given.
    for own in 0..2 {
        let mut alone = before[own].clone();
        alone.relatives = before.iter().filter(|facts| facts.place != alone.place).cloned().collect();
        let lines = super::lines(&alone, &context).expect("rated").lines;
        assert_eq!(lines, family[own].issued);
    }
    family[1].services[0].usage.push(entry(2, "2026-10-21T15:00:00Z", 20 * GB));
    family[1].watermark = 2;
    let late = close_all(&mut family, &context);
    assert_eq!(late, [vec!["data 2026-10-15 adjustment 0 20.00"], vec!["data 2026-10-15 adjustment 20 0.00"]]);
    assert_eq!(close_all(&mut family, &context), [Vec::<String>::new(), Vec::new()]);
    assert_eq!(explained_of(&family, &context), Vec::<String>::new());
    // A ledger of the other that says otherwise does not explain the line of the one.
    family[1].services[0].usage[0].out_octets -= GB;
    let faults = explained_of(&family[..], &context);
    assert!(faults.iter().any(|fault| fault.contains("shared allowance")), "{faults:?}");
}

#[test]
fn who_has_another_parent_or_none_shares_nothing() {
    let context = rated_by("2026-10-15", &octets(FAMILY));
    let mut family = family("2026-10-15T05:00:00Z");
    family[0].services[0].usage = vec![entry(1, "2026-10-20T15:00:00Z", 150 * GB)];
    family[0].watermark = 1;
    // It left in the middle of the period: what it was at the end of the period counts.
    family[1].parents.push((at("2026-10-25T05:00:00Z"), None));
    let billed = close_all(&mut family, &context);
    assert_eq!(billed, [vec!["data 2026-10-15 usage 150 50.00"], vec!["data 2026-10-15 usage 0 0.00"]]);
}

#[test]
fn family_with_an_account_on_another_cycle_is_stopped_and_nobody_else() {
    let mut context = rated_by("2026-10-15", &octets(FAMILY));
    Arc::make_mut(&mut context.tariffs).insert(
        "own".to_owned(),
        vec![version(&priced("own", &octets("allowance = { amount = \"1\" }")), "2026-01-01T00:00:00Z")],
    );
    let mut family = family("2026-10-15T05:00:00Z");
    let mut third = family[1].clone();
    (third.account, third.place) = ("A3".to_owned(), 3);
    third.services[0].stretches[0].tariff = "own".to_owned();
    family.push(third);
    let moved = &mut family[1].services[0];
    moved.elsewhere = std::mem::take(&mut moved.stretches);
    let found = super::lines_of(&family, &context);
    let stopped = |found: &Result<RunResult, RunError>| matches!(found, Err(RunError::OtherCycle { account, .. }) if account == "A2");
    assert!(stopped(&found[0]) && stopped(&found[1]), "{found:?}");
    assert_eq!(of_data(&found[2].as_ref().expect("it shares nothing").lines), ["data 2026-10-15 usage 0 0.00"]);
}

proptest! {
    #![proptest_config(crate::vocabulary::cases(1_000))]

    /// Billing at any sequence of watermarks and top-ups adds up to rating everything at once, for services, accounts and
    /// families, in any order of the accounts' list; and every line explains itself from everybody's entries.
    #[test]
    fn topped_up_pools_telescope(
        used in prop::collection::vec((0i64..90_000_000_000, 0i64..91, 0usize..2), 1..12),
        granted in prop::collection::vec((1i64..60, 0i64..91, prop::option::of(0usize..3), 0usize..2), 0..4),
        cuts in prop::collection::btree_set(0usize..12, 0..4),
        pool in prop::sample::select(vec!["service", "account", "parent"]),
        rolls in any::<bool>(),
    ) {
        let rollover = if rolls { ", rollover = { max = \"15\", expires_cycles = 2 }" } else { "" };
        let keys = octets(&format!("allowance = {{ amount = \"20\", pool = \"{pool}\", prorate = true{rollover} }}"));
        let start = at("2026-08-15T05:00:00Z").as_second();
        let day = |day: i64| Timestamp::from_second(start + day * 86_400).expect("in range").to_string();
        let entries: Vec<(usize, UsageEntry)> = used
            .iter()
            .enumerate()
            .map(|(index, (octets, on, owner))| (*owner, entry(index as i64 + 1, &day(*on), *octets)))
            .collect();
        let ends = ["2026-09-15T05:00:00Z", "2026-10-15T05:00:00Z", "2026-11-15T06:00:00Z"];
        let kind = match pool {
            "service" => Pool::Service,
            "account" => Pool::Account,
            _ => Pool::Parent,
        };
        let top_ups: Vec<(usize, Grant)> = granted
            .iter()
            .enumerate()
            .filter(|(_, (_, on, until, _))| until.is_none_or(|until| at(&day(*on)) < at(ends[until])))
            .map(|(index, (gigabytes, on, until, owner))| {
                let new = grant(&format!("ch_{index}"), *gigabytes, &day(*on), until.map(|until| ends[until]));
                (*owner, Grant { pool: kind, head: (pool == "parent").then(|| "P".to_owned()), ..new })
            })
            .collect();
        let fill = |family: &mut [AccountFacts], count: usize, all: bool| {
            for (place, facts) in family.iter_mut().enumerate() {
                let own = entries[..count].iter().filter(|(owner, _)| *owner == place);
                facts.services[0].usage = own.map(|(_, entry)| entry.clone()).collect();
                facts.watermark = count as i64;
                // The last one comes with the last usage.
                let known = if all { top_ups.len() } else { top_ups.len().saturating_sub(1) };
                let own = top_ups[..known].iter().filter(|(owner, _)| *owner == place);
                facts.grants = own.map(|(_, grant)| grant.clone()).collect();
            }
        };
        let periods = ["2026-08-15", "2026-09-15", "2026-10-15"];
        let sum = |family: &[AccountFacts]| family.iter().map(|facts| total(facts, "data")).sum::<i64>();
        let mut once = family("2026-08-15T05:00:00Z");
        fill(&mut once, entries.len(), true);
        for period in periods {
            close_all(&mut once, &rated_by(period, &keys));
        }
        let mut parts = family("2026-08-15T05:00:00Z");
        let ends = cuts.into_iter().filter(|cut| *cut < entries.len()).chain([entries.len()]);
        for (place, end) in ends.enumerate() {
            fill(&mut parts, end, end == entries.len());
            let first = if place == 0 { 0 } else { periods.len() - 1 };
            for period in &periods[first..] {
                close_all(&mut parts, &later(rated_by(period, &keys), place));
            }
        }
        prop_assert_eq!(sum(&parts), sum(&once));
        let context = rated_by("2026-10-15", &keys);
        prop_assert_eq!(close_all(&mut parts, &context).concat(), Vec::<String>::new(), "a repeated run");
        prop_assert_eq!(explained_of(&once, &context), Vec::<String>::new());
        prop_assert_eq!(explained_of(&parts, &context), Vec::<String>::new());
    }

    /// Billing at any sequence of watermarks adds up to rating everything at once, also where allowance is shared by
    /// services and carried from period to period.
    #[test]
    fn shared_allowances_telescope(
        used in prop::collection::vec((0i64..90_000_000_000, 0i64..91, 0usize..2), 1..16),
        cuts in prop::collection::btree_set(0usize..16, 0..5),
        pooled in any::<bool>(), max in 0i64..60, expires in 1u32..4,
    ) {
        let pool = if pooled { "account" } else { "service" };
        let keys = octets(&format!(
            "allowance = {{ amount = \"20\", pool = \"{pool}\", prorate = true, \
             rollover = {{ max = \"{max}\", expires_cycles = {expires} }} }}"
        ));
        let start = at("2026-08-15T05:00:00Z").as_second();
        let entries: Vec<(usize, UsageEntry)> = used.iter().enumerate().map(|(index, (octets, day, service))| {
            let from = Timestamp::from_second(start + day * 86_400).expect("in range");
            (*service, entry(index as i64 + 1, &from.to_string(), *octets))
        }).collect();
        let fresh = || {
            let mut facts = facts("2026-08-15T05:00:00Z");
            with_second_service(&mut facts);
            facts.services[1].stretches[0].from = at("2026-08-25T05:00:00Z");
            facts
        };
        let fill = |facts: &mut AccountFacts, count: usize| {
            for (place, service) in facts.services.iter_mut().enumerate() {
                let own = entries[..count].iter().filter(|(owner, _)| *owner == place);
                service.usage = own.map(|(_, entry)| entry.clone()).collect();
            }
            facts.watermark = count as i64;
        };
        let periods = ["2026-08-15", "2026-09-15", "2026-10-15"];
        let mut once = fresh();
        fill(&mut once, entries.len());
        for period in periods {
            close(&mut once, &rated_by(period, &keys));
        }
        let mut parts = fresh();
        let ends = cuts.into_iter().filter(|cut| *cut < entries.len()).chain([entries.len()]);
        for (place, end) in ends.enumerate() {
            fill(&mut parts, end);
            // Closed one after the other at first; what comes later is corrected by the newest period's runs.
            let first = if place == 0 { 0 } else { periods.len() - 1 };
            for period in &periods[first..] {
                close(&mut parts, &rated_by(period, &keys));
            }
        }
        prop_assert_eq!(total(&parts, "data"), total(&once, "data"));
        let context = rated_by("2026-10-15", &keys);
        prop_assert_eq!(explained(&once, &context), Vec::<String>::new());
    }
}
