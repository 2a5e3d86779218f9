//! Runs over one account: what is due, what is corrected, and that everything telescopes.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::billing::calendar::{BillCycle, Every};
use crate::billing::facts::{
    Causes, CorrectionPolicy, KnownVersion, PeriodSum, ServiceFacts, Stretch, TariffBook, UsageEntry,
};
use crate::billing::tariff::Tariff;
use crate::vocabulary::{Timestamp, Zone};

pub(in crate::billing) const TARIFF: &str = r#"
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
allowance = { amount = "100" }
model = "graduated"
tiers = [{ up_to = "500", unit_amount = "0.05" }, { unit_amount = "0.02" }]
[[tax]]
id = "sales"
rate = "8.25"
"#;

pub(in crate::billing) fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant of the test")
}

pub(in crate::billing) fn version(text: &str, known_at: &str) -> KnownVersion {
    KnownVersion { tariff: Tariff::read("t.toml", text).expect("a sound tariff"), known_at: at(known_at) }
}

pub(in crate::billing) fn context(period: &str) -> RunContext {
    let cycle = BillCycle {
        id: "c15".to_owned(),
        anchor_day: 15,
        every: Every::Month,
        zone: Zone::get("America/Chicago").expect("a zone"),
        timezone: "America/Chicago".to_owned(),
    };
    let period = cycle.named(period).expect("a period");
    RunContext {
        now: period.end,
        cycle,
        period,
        batch: Some("b1".to_owned()),
        tariffs: TariffBook::from([("res-100".to_owned(), vec![version(TARIFF, "2026-01-01T00:00:00Z")])]).into(),
        backdate_days: 400,
        wholesale: Vec::new(),
        corrections: CorrectionPolicy::default(),
        closures: BTreeMap::new(),
        causes: Causes::default(),
    }
}

/// One internet service from `from` on.
pub(in crate::billing) fn facts(from: &str) -> AccountFacts {
    let stretch = Stretch { from: at(from), until: None, tariff: "res-100".to_owned() };
    let service = ServiceFacts {
        id: "1".to_owned(),
        times: 1,
        began_at: Some(at(from)),
        stretches: vec![stretch],
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

pub(in crate::billing) fn entry(sequence: i64, from: &str, octets: i64) -> UsageEntry {
    let from = at(from);
    let until = Timestamp::from_second(from.as_second() + 3600).expect("in range");
    UsageEntry {
        sequence,
        session: sequence,
        class: None,
        call: None,
        from,
        until,
        in_octets: 0,
        out_octets: octets,
        seconds: 3600,
        sessions: 1,
    }
}

pub(in crate::billing) fn summary(lines: &[StoredLine]) -> Vec<String> {
    let line = |stored: &StoredLine| {
        let line = &stored.line;
        let start = &line.period.start.to_string()[..10];
        format!("{} {start} {} {} {}", line.charge, line.kind.as_str(), line.quantity, line.amount)
    };
    lines.iter().map(line).collect()
}

pub(in crate::billing) fn run(facts: &AccountFacts, context: &RunContext) -> Vec<StoredLine> {
    lines(facts, context).expect("an account that can be rated").lines
}

/// Runs, and keeps the lines as the store would.
pub(in crate::billing) fn close(facts: &mut AccountFacts, context: &RunContext) -> Vec<StoredLine> {
    let lines = run(facts, context);
    facts.issued.extend(lines.iter().cloned());
    lines
}

pub(in crate::billing) fn total(facts: &AccountFacts, charge: &str) -> i64 {
    let minor = |amount: &str| amount.replace('.', "").parse::<i64>().expect("an amount in cents");
    facts.issued.iter().filter(|line| line.line.charge == charge).map(|line| minor(&line.line.amount)).sum()
}

#[test]
fn run_emits_partial_first_period_its_arrears_and_the_next_advance() {
    let mut facts = facts("2026-11-01T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-11-02T10:00:00Z", 123_456_000_000)];
    facts.watermark = 1;
    let lines = run(&facts, &context("2026-10-15"));
    assert_eq!(
        summary(&lines),
        [
            "access 2026-10-15 recurring 1 22.56",
            "data 2026-10-15 usage 123.456 1.17",
            "access 2026-11-15 recurring 1 49.95",
        ]
    );
    let data = &lines[1].line;
    assert_eq!((data.amount_exact.as_str(), data.rounding_residue.as_str()), ("1.1728", "-0.0028"));
    assert_eq!((data.quantity_raw.as_str(), data.allowance_used.as_str()), ("123456000000", "100"));
    assert_eq!(data.tax[0].amount, "0.10");
    assert_eq!(data.usage.as_ref().map(|usage| (usage.watermark, usage.records)), Some((1, 1)));
}

#[test]
fn same_facts_twice_emit_nothing() {
    let mut facts = facts("2026-11-01T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-11-02T10:00:00Z", 1)];
    facts.watermark = 1;
    let context = context("2026-10-15");
    assert_eq!(close(&mut facts, &context).len(), 3);
    assert!(run(&facts, &context).is_empty());
}

#[test]
fn late_usage_is_a_line_on_its_original_period() {
    let mut facts = facts("2026-10-15T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-11-02T10:00:00Z", 150_000_000_000)];
    facts.watermark = 1;
    close(&mut facts, &context("2026-10-15"));
    facts.services[0].usage.push(entry(2, "2026-11-03T10:00:00Z", 10_000_000_000));
    facts.watermark = 2;
    let lines = close(&mut facts, &context("2026-11-15"));
    let late = &lines[0];
    assert_eq!(summary(&lines[..1]), ["data 2026-10-15 adjustment 10 0.50"]);
    assert_eq!(late.line.corrects.as_deref(), Some(facts.issued[1].line.id.as_str()));
    assert_eq!(late.line.adjustments[0].kind, "already_issued");
}

/// F4: a peer bills 1400 and then 1300 units in blocks of 1000 as 2 + 2 blocks; cumulative truth is 3.
#[test]
fn progressive_billing_of_blocks_adds_up_to_the_cumulative_truth() {
    let blocks = TARIFF.replace("allowance = { amount = \"100\" }", "").replace(
        "model = \"graduated\"\ntiers = [{ up_to = \"500\", unit_amount = \"0.05\" }, { unit_amount = \"0.02\" }]",
        "model = \"package\"\npackage_size = \"1000\"\npackage_amount = \"1\"",
    );
    let mut context = context("2026-10-15");
    Arc::make_mut(&mut context.tariffs).insert("res-100".to_owned(), vec![version(&blocks, "2026-01-01T00:00:00Z")]);
    let mut facts = facts("2026-10-15T05:00:00Z");
    for (sequence, octets) in [(1, 1_400_000_000_000), (2, 1_300_000_000_000)] {
        facts.services[0].usage.push(entry(sequence, "2026-11-02T10:00:00Z", octets));
        facts.watermark = sequence;
        close(&mut facts, &context);
    }
    assert_eq!(total(&facts, "data"), 300);
}

#[test]
fn downward_correction_is_a_credit() {
    let mut facts = facts("2026-10-15T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-11-02T10:00:00Z", 150_000_000_000)];
    facts.watermark = 1;
    let context = context("2026-10-15");
    close(&mut facts, &context);
    facts.services[0].usage.push(entry(2, "2026-11-02T10:00:00Z", -20_000_000_000));
    facts.watermark = 2;
    let lines = run(&facts, &context);
    assert_eq!(summary(&lines), ["data 2026-10-15 credit -20 -1.00"]);
    assert_eq!(lines[0].line.tax[0].amount, "-0.09");
}

#[test]
fn plan_change_inside_a_period_splits_the_days() {
    let mut context = context("2026-10-15");
    let other = TARIFF.replace("res-100", "res-300").replace("49.95", "69.95");
    Arc::make_mut(&mut context.tariffs).insert("res-300".to_owned(), vec![version(&other, "2026-01-01T00:00:00Z")]);
    let mut facts = facts("2026-10-15T05:00:00Z");
    facts.services[0].stretches[0].until = Some(at("2026-11-01T20:00:00Z"));
    let next = Stretch { from: at("2026-11-01T20:00:00Z"), until: None, tariff: "res-300".to_owned() };
    facts.services[0].stretches.push(next);
    let lines = run(&facts, &context);
    let access: Vec<String> = summary(&lines).into_iter().filter(|line| line.starts_with("access")).collect();
    // 17 of 31 days of 49.95, then 14 of 31 of 69.95.
    assert_eq!(
        access,
        [
            "access 2026-10-15 recurring 1 27.39",
            "access 2026-10-15 recurring 1 31.59",
            "access 2026-11-15 recurring 1 69.95"
        ]
    );
}

#[test]
fn end_inside_a_paid_period_gives_the_rest_back() {
    let mut facts = facts("2026-10-15T05:00:00Z");
    close(&mut facts, &context("2026-10-15"));
    facts.services[0].stretches[0].until = Some(at("2026-11-20T06:00:00Z"));
    let lines = run(&facts, &context("2026-11-15"));
    // 5 of 30 days stay paid: 8.33 (8.325) of 49.95.
    assert_eq!(summary(&lines)[0], "access 2026-11-15 credit 0 -41.62");
    assert_eq!(lines.len(), 2);
}

#[test]
fn refund_none_keeps_the_last_period_paid() {
    let text = TARIFF.replace("amount = \"49.95\"", "amount = \"49.95\"\nrefund_on_end = \"none\"");
    let mut facts = facts("2026-10-15T05:00:00Z");
    let mut first = context("2026-10-15");
    Arc::make_mut(&mut first.tariffs).insert("res-100".to_owned(), vec![version(&text, "2026-01-01T00:00:00Z")]);
    close(&mut facts, &first);
    facts.services[0].stretches[0].until = Some(at("2026-11-20T06:00:00Z"));
    let mut second = context("2026-11-15");
    second.tariffs = first.tariffs;
    assert_eq!(summary(&run(&facts, &second)), ["data 2026-11-15 usage 0 0.00"]);
}

#[test]
fn version_known_after_closing_changes_nothing_unless_retroactive() {
    let mut facts = facts("2026-10-15T05:00:00Z");
    let mut context = context("2026-10-15");
    close(&mut facts, &context);
    context.closures.insert(context.period.start, context.now);
    let second = TARIFF.replace("version = 1", "version = 2").replace("49.95", "59.95");
    let versions = Arc::make_mut(&mut context.tariffs).get_mut("res-100").expect("the tariff");
    versions.push(version(&second, "2026-12-01T00:00:00Z"));
    let lines = run(&facts, &context);
    assert!(lines.iter().all(|line| line.line.period.start > context.period.start), "{:?}", summary(&lines));
    let retroactive = second.replace("[[charge]]\nid = \"access\"", "retroactive = true\n[[charge]]\nid = \"access\"");
    Arc::make_mut(&mut context.tariffs).get_mut("res-100").expect("the tariff")[1] =
        version(&retroactive, "2026-12-01T00:00:00Z");
    let lines = run(&facts, &context);
    let closed: Vec<String> = summary(&lines).into_iter().filter(|line| line.contains("access 2026-10-15")).collect();
    assert_eq!(closed, ["access 2026-10-15 credit -1 -49.95", "access 2026-10-15 recurring 1 59.95"]);
}

#[test]
fn new_version_splits_the_running_period() {
    let mut context = context("2026-10-15");
    let second = TARIFF.replace("version = 1", "version = 2").replace("49.95", "59.95");
    let second = second.replace("2026-01-01", "2026-11-01");
    Arc::make_mut(&mut context.tariffs)
        .get_mut("res-100")
        .expect("the tariff")
        .push(version(&second, "2026-10-20T00:00:00Z"));
    let lines = run(&facts("2026-10-15T05:00:00Z"), &context);
    let access: Vec<String> = summary(&lines).into_iter().filter(|line| line.contains("access 2026-10-15")).collect();
    // 17 of 31 days of 49.95 and 14 of 31 of 59.95.
    assert_eq!(access, ["access 2026-10-15 recurring 1 27.39", "access 2026-10-15 recurring 1 27.07"]);
}

#[test]
fn version_for_the_next_period_leaves_the_running_one_and_counts_in_all_after_it() {
    let second = TARIFF.replace("version = 1", "version = 2\napply = \"next_period\"").replace("49.95", "59.95");
    let second = version(&second.replace("2026-01-01", "2026-11-01"), "2026-10-20T00:00:00Z");
    let known = |period: &str| {
        let mut context = context(period);
        Arc::make_mut(&mut context.tariffs).get_mut("res-100").expect("the tariff").push(second.clone());
        context
    };
    let mut facts = facts("2026-10-15T05:00:00Z");
    let access = |lines: Vec<StoredLine>| {
        let lines = summary(&lines).into_iter();
        lines.filter(|line| line.starts_with("access")).collect::<Vec<String>>()
    };
    assert_eq!(
        access(close(&mut facts, &known("2026-10-15"))),
        ["access 2026-10-15 recurring 1 49.95", "access 2026-11-15 recurring 1 59.95"]
    );
    assert_eq!(access(close(&mut facts, &known("2026-11-15"))), ["access 2026-12-15 recurring 1 59.95"]);
}

#[test]
fn nothing_is_billed_further_back_than_the_backdate_limit() {
    let mut context = context("2026-10-15");
    context.backdate_days = 40;
    let lines = run(&facts("2026-01-01T06:00:00Z"), &context);
    let starts: Vec<String> = summary(&lines).iter().map(|line| line[..17].to_owned()).collect();
    assert_eq!(
        starts,
        ["access 2026-09-15", "data 2026-09-15 u", "access 2026-10-15", "data 2026-10-15 u", "access 2026-11-15"]
    );
}

#[test]
fn late_usage_of_a_billed_period_beyond_the_limit_is_billed_and_of_one_that_was_not_is_none() {
    let mut facts = facts("2026-06-15T05:00:00Z");
    for period in ["2026-08-15", "2026-09-15"] {
        let mut context = context(period);
        context.backdate_days = 40;
        close(&mut facts, &context);
    }
    let late =
        vec![entry(1, "2026-08-20T10:00:00Z", 150_000_000_000), entry(2, "2026-06-20T10:00:00Z", 150_000_000_000)];
    facts.watermark = 2;
    let mut context = context("2026-12-15");
    context.backdate_days = 40;
    let found = |facts: &AccountFacts| {
        let lines = summary(&run(facts, &context));
        lines.into_iter().filter(|line| line.contains("2026-08") || line.contains("2026-06")).collect::<Vec<String>>()
    };
    facts.services[0].usage.clone_from(&late);
    assert_eq!(found(&facts), ["data 2026-08-15 adjustment 150 2.50"], "by its entries");
    facts.services[0].sums = Some(sums(&late, &context));
    facts.services[0].usage.clear();
    assert_eq!(found(&facts), ["data 2026-08-15 adjustment 150 2.50"], "by the sums of its periods");
}

#[test]
fn period_that_ended_where_the_limit_lies_is_beyond_it() {
    let starts = |backdate_days: u32| {
        let mut context = context("2026-08-15");
        context.backdate_days = backdate_days;
        let lines = run(&facts("2026-01-01T06:00:00Z"), &context);
        let data = lines.iter().filter(|line| line.line.charge == "data");
        data.map(|line| context.cycle.name(&line.line.period)).collect::<Vec<String>>()
    };
    // September 15 less 31 days is August 15, at the same hour.
    assert_eq!(starts(31), ["2026-08-15"]);
    assert_eq!(starts(32), ["2026-07-15", "2026-08-15"]);
}

#[test]
fn account_that_became_exempt_gets_its_taxes_back_with_their_base() {
    let mut facts = facts("2026-10-15T05:00:00Z");
    let context = context("2026-10-15");
    close(&mut facts, &context);
    facts.tax_exempt = true;
    let lines = run(&facts, &context);
    assert_eq!(summary(&lines[..1]), ["access 2026-10-15 adjustment 0 0.00"]);
    let [tax] = &lines[0].line.tax[..] else { panic!("{lines:?}") };
    assert_eq!((tax.id.as_str(), tax.base.as_str(), tax.amount.as_str()), ("sales", "-49.95", "-4.12"));
}

#[test]
fn sessions_are_counted_by_the_session() {
    let text = TARIFF
        .replace(
            "meter = \"octets\"\ndirection = \"sum\"\nunit = \"GB\"\nquantize = { to = \"1 MB\" }",
            "meter = \"sessions\"",
        )
        .replace("allowance = { amount = \"100\" }", "");
    let mut context = context("2026-10-15");
    Arc::make_mut(&mut context.tariffs).insert("res-100".to_owned(), vec![version(&text, "2026-01-01T00:00:00Z")]);
    let mut facts = facts("2026-10-15T05:00:00Z");
    facts.services[0].usage = (1..=3).map(|sequence| entry(sequence, "2026-11-02T10:00:00Z", 7)).collect();
    let line = &run(&facts, &context)[1].line;
    assert_eq!((line.quantity.as_str(), line.unit.as_str(), line.amount_exact.as_str()), ("3", "session", "0.15"));
}

#[test]
fn entries_that_only_touch_the_billed_time_are_no_part_of_its_records() {
    let mut facts = facts("2026-10-20T05:00:00Z");
    let before = entry(1, "2026-10-20T04:00:00Z", 5);
    let after = entry(2, "2026-11-15T06:00:00Z", 7);
    facts.services[0].usage = vec![before, after, entry(3, "2026-11-02T10:00:00Z", 11)];
    facts.watermark = 3;
    let lines = run(&facts, &context("2026-10-15"));
    let line = &lines.iter().find(|line| line.line.charge == "data").expect("usage").line;
    assert_eq!((line.quantity_raw.as_str(), line.usage.as_ref().map(|usage| usage.records)), ("11", Some(1)));
}

#[test]
fn small_and_old_corrections_are_held_and_reported() {
    let mut facts = facts("2026-10-15T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-11-02T10:00:00Z", 150_000_000_000)];
    facts.watermark = 1;
    let mut context = context("2026-10-15");
    close(&mut facts, &context);
    facts.services[0].usage.push(entry(2, "2026-11-03T10:00:00Z", 200_000_000));
    facts.watermark = 2;
    context.corrections.min_amount = Some("0.05".parse().expect("a decimal"));
    let result = lines(&facts, &context).expect("rated");
    assert!(result.lines.is_empty());
    assert_eq!((result.held[0].reason, result.held[0].amount.minor), (HeldReason::TooSmall, 1));
}

#[test]
fn held_corrections_of_an_account_are_added_up_until_they_are_worth_a_line() {
    let mut facts = facts("2026-10-15T05:00:00Z");
    let mut other = facts.services[0].clone();
    other.id = "2".to_owned();
    facts.services.push(other);
    let mut context = context("2026-10-15");
    context.corrections.min_amount = Some("0.05".parse().expect("a decimal"));
    facts.services[0].usage = vec![entry(1, "2026-11-02T10:00:00Z", 150_000_000_000)];
    facts.services[1].usage = vec![entry(2, "2026-11-02T10:00:00Z", 150_000_000_000)];
    facts.watermark = 2;
    close(&mut facts, &context);
    // Three cents of one service are held.
    facts.services[0].usage.push(entry(3, "2026-11-03T10:00:00Z", 600_000_000));
    facts.watermark = 3;
    let first = lines(&facts, &context).expect("rated");
    assert_eq!((first.lines.len(), first.held[0].amount.minor), (0, 3));
    facts.held.insert(first.held[0].key.clone());
    // The next run has them still, and with two of the other they are five: both are billed.
    let later = super::tests::context("2026-11-15");
    let later = RunContext { corrections: context.corrections.clone(), ..later };
    facts.services[1].usage.push(entry(4, "2026-11-03T10:00:00Z", 400_000_000));
    facts.watermark = 4;
    let second = lines(&facts, &later).expect("rated");
    assert!(second.held.is_empty(), "{:?}", second.held);
    let corrections: Vec<String> =
        summary(&second.lines).into_iter().filter(|line| line.contains("adjustment")).collect();
    assert_eq!(corrections, ["data 2026-10-15 adjustment 0.6 0.03", "data 2026-10-15 adjustment 0.4 0.02"]);
}

#[test]
fn held_correction_is_held_again_although_later_lines_saw_more_of_the_ledger() {
    let mut facts = facts("2026-10-15T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-11-02T10:00:00Z", 150_000_000_000)];
    facts.watermark = 1;
    let mut context = context("2026-10-15");
    context.corrections.min_amount = Some("0.05".parse().expect("a decimal"));
    close(&mut facts, &context);
    facts.services[0].usage.push(entry(2, "2026-11-03T10:00:00Z", 600_000_000));
    facts.services[0].usage.push(entry(3, "2026-11-20T10:00:00Z", 1_000_000_000));
    facts.watermark = 3;
    let mut next = super::tests::context("2026-11-15");
    next.corrections = context.corrections.clone();
    let result = lines(&facts, &next).expect("rated");
    facts.held = result.held.iter().map(|held| held.key.clone()).collect();
    facts.issued.extend(result.lines);
    assert_eq!(facts.held.len(), 1);
    let mut third = super::tests::context("2026-12-15");
    third.corrections = context.corrections;
    assert_eq!(lines(&facts, &third).expect("rated").held.len(), 1, "it is not forgotten");
    third.corrections.min_amount = Some("0.02".parse().expect("a decimal"));
    let released = summary(&lines(&facts, &third).expect("rated").lines);
    assert!(released.contains(&"data 2026-10-15 adjustment 0.6 0.03".to_owned()), "{released:?}");
}

#[test]
fn newer_program_rates_no_closed_period_by_itself() {
    let mut facts = facts("2026-10-15T05:00:00Z");
    let mut context = context("2026-10-15");
    close(&mut facts, &context);
    // Given: the program before this one had rated otherwise.
    for line in facts.issued.iter_mut().filter(|line| line.line.charge == "access") {
        line.basis.amount_minor += 200;
    }
    // When: the program is replaced by a newer one, whose inputs have another form.
    context.causes.engine += 1;
    // Then: nothing is corrected until a person asks, and then that period alone.
    assert_eq!(summary(&run(&facts, &context)), Vec::<String>::new());
    context.causes.rerate = Some(context.period.start);
    assert_eq!(summary(&run(&facts, &context)), ["access 2026-10-15 credit 0 -2.00"]);
}

#[test]
fn change_is_still_a_cause_for_a_line_of_an_older_program() {
    let mut facts = facts("2026-10-15T05:00:00Z");
    let mut context = context("2026-10-15");
    close(&mut facts, &context);
    context.causes.engine += 1;
    facts.services[0].stretches[0].until = Some(at("2026-11-01T05:00:00Z"));
    assert_eq!(summary(&run(&facts, &context))[0], "access 2026-10-15 credit 0 -22.56");
}

/// The sums that the store keeps while it writes these entries.
fn sums(entries: &[UsageEntry], context: &RunContext) -> BTreeMap<Timestamp, PeriodSum> {
    let mut sums: BTreeMap<Timestamp, PeriodSum> = BTreeMap::new();
    for entry in entries {
        let start = context.cycle.period_at(entry.from).expect("in range").start;
        sums.entry(start).or_default().count(entry);
    }
    sums
}

#[test]
fn sum_of_a_period_says_nothing_of_a_part_of_it() {
    let context = context("2026-10-15");
    let mut facts = facts("2026-11-01T05:00:00Z");
    let entries = vec![entry(1, "2026-10-20T10:00:00Z", 500_000_000), entry(2, "2026-11-02T10:00:00Z", 3_000_000_000)];
    facts.services[0].sums = Some(sums(&entries, &context));
    facts.services[0].usage = entries;
    facts.watermark = 2;
    assert_eq!(usage_needed(&facts, &context).expect("in range").len(), 1);
    let lines = run(&facts, &context);
    let line = &lines.iter().find(|line| line.line.charge == "data").expect("usage").line;
    assert_eq!((line.quantity_raw.as_str(), line.usage.as_ref().map(|usage| usage.records)), ("3000000000", Some(1)));
}

#[test]
fn usage_is_needed_only_where_something_changed() {
    let mut facts = facts("2026-08-15T05:00:00Z");
    let first = usage_needed(&facts, &context("2026-10-15")).expect("in range");
    assert_eq!(first.len(), 3);
    close(&mut facts, &context("2026-10-15"));
    let next = usage_needed(&facts, &context("2026-11-15")).expect("in range");
    assert_eq!(next.iter().map(|need| need.period.start.to_string()).collect::<Vec<_>>(), ["2026-11-15T06:00:00Z"]);
}

#[test]
fn sum_of_prorated_parts_is_the_whole_price() {
    for proration in ["actual_days", "fixed_30", "per_second"] {
        let text = TARIFF.replace("49.95\"", &format!("49.95\"\nproration = \"{proration}\""));
        let other = text.replace("res-100", "copy");
        let mut context = context("2026-10-15");
        Arc::make_mut(&mut context.tariffs).insert("res-100".to_owned(), vec![version(&text, "2026-01-01T00:00:00Z")]);
        Arc::make_mut(&mut context.tariffs).insert("copy".to_owned(), vec![version(&other, "2026-01-01T00:00:00Z")]);
        for change in ["2026-10-15T05:00:01Z", "2026-10-31T12:00:00Z", "2026-11-14T23:59:59Z"] {
            let mut facts = facts("2026-10-15T05:00:00Z");
            facts.services[0].stretches[0].until = Some(at(change));
            facts.services[0].stretches.push(Stretch { from: at(change), until: None, tariff: "copy".to_owned() });
            let lines = run(&facts, &context);
            let of_period = lines
                .iter()
                .filter(|line| line.line.charge == "access" && line.line.period.start == context.period.start);
            let sum =
                of_period.fold(Exact::ZERO, |sum, line| sum.checked_add(line.basis.amount_exact.0).expect("fits"));
            assert_eq!(sum.to_string(), "49.95", "{proration} {change}");
        }
    }
}

proptest! {
    #![proptest_config(crate::vocabulary::cases(64))]

    /// Billing at any sequence of watermarks, with entries in any order, adds up to rating everything at once.
    #[test]
    fn any_split_of_usage_telescopes(
        octets in prop::collection::vec((0i64..90_000_000_000, 0i64..700), 1..20),
        cuts in prop::collection::btree_set(0usize..20, 0..6),
        shuffle in any::<u64>(),
    ) {
        let context = context("2026-10-15");
        let start = at("2026-10-15T05:00:00Z").as_second();
        let entries: Vec<UsageEntry> = octets.iter().enumerate().map(|(index, (octets, hour))| {
            let from = Timestamp::from_second(start + hour * 3600).expect("in range");
            entry(index as i64 + 1, &from.to_string(), *octets)
        }).collect();
        let mut once = facts("2026-10-15T05:00:00Z");
        once.services[0].usage = entries.clone();
        let rotation = (shuffle % entries.len() as u64) as usize;
        once.services[0].usage.rotate_left(rotation);
        once.watermark = entries.len() as i64;
        close(&mut once, &context);

        let mut parts = facts("2026-10-15T05:00:00Z");
        let ends = cuts.into_iter().filter(|cut| *cut < entries.len()).chain([entries.len()]);
        for end in ends {
            parts.services[0].usage = entries[..end].to_vec();
            parts.watermark = end as i64;
            close(&mut parts, &context);
        }
        prop_assert_eq!(total(&parts, "data"), total(&once, "data"));
        let tax = |facts: &AccountFacts| facts.issued.iter().flat_map(|line| line.line.tax.iter())
            .map(|tax| tax.amount.replace('.', "").parse::<i64>().expect("cents")).sum::<i64>();
        prop_assert_eq!(tax(&parts), tax(&once));
    }

    /// A period closed from its sum has the line it has from its entries, to the last octet of its digest; late usage too.
    #[test]
    fn sums_bill_what_entries_bill(
        octets in prop::collection::vec((-5_000_000_000i64..90_000_000_000, 0i64..1400), 1..30),
        first in 0usize..30,
    ) {
        let start = at("2026-10-15T05:00:00Z").as_second();
        let entries: Vec<UsageEntry> = octets.iter().enumerate().map(|(index, (octets, hour))| {
            let from = Timestamp::from_second(start + hour * 3600).expect("in range");
            entry(index as i64 + 1, &from.to_string(), octets.abs())
        }).collect();
        let (mut by_entries, mut by_sums) = (facts("2026-10-15T05:00:00Z"), facts("2026-10-15T05:00:00Z"));
        for (period, end) in [("2026-10-15", first.min(entries.len())), ("2026-11-15", entries.len())] {
            let context = context(period);
            by_entries.services[0].usage = entries[..end].to_vec();
            by_sums.services[0].sums = Some(sums(&entries[..end], &context));
            (by_entries.watermark, by_sums.watermark) = (end as i64, end as i64);
            let needed = usage_needed(&by_sums, &context).expect("in range");
            prop_assert!(needed.is_empty(), "{needed:?}");
            let (from_entries, from_sums) = (close(&mut by_entries, &context), close(&mut by_sums, &context));
            prop_assert_eq!(from_entries, from_sums);
        }
    }

    /// Line = exact amount + residue, and corrections are differences of whole cents.
    #[test]
    fn residue_explains_every_rounding(octets in 0i64..900_000_000_000) {
        let mut facts = facts("2026-10-20T05:00:00Z");
        facts.services[0].usage = vec![entry(1, "2026-11-02T10:00:00Z", octets)];
        for line in run(&facts, &context("2026-10-15")) {
            let priced = line.basis.amount_exact.0;
            let amount: Exact = line.line.amount.parse().expect("a decimal");
            let residue = amount.checked_sub(priced).expect("fits");
            prop_assert_eq!(residue.to_string(), line.line.rounding_residue);
        }
    }
}
