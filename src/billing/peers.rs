//! What peers were measured or read to get wrong, each as a test with the peer's own numbers.
//!
//! F1, F2, F7 and F9 are `price::tests`, F4 is in `run::tests`, F11 is `invariants::chunks_and_threads_change_no_byte`;
//! the rest is here. F5 and F12 are habits, not defects: late usage on its own period is F6, use beyond the last bound is
//! `invariants::bounds_belong_to_the_tier_below`.

use std::sync::Arc;

use super::facts::{AccountFacts, RunContext, UsageEntry};
use super::lines::StoredLine;
use super::run::tests::{close, context, entry, facts, run, summary, total, version};
use super::run::{RunError, lines};
use crate::vocabulary::{Currency, Exact, Money};

const GB: i64 = 1_000_000_000;

/// A tariff with one usage charge by the GB, in force for the period.
fn priced(period: &str, keys: &str) -> RunContext {
    priced_by("GB", period, keys)
}

fn priced_by(unit: &str, period: &str, keys: &str) -> RunContext {
    let text = format!(
        "id = \"res-100\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"data\"\n\
         type = \"usage\"\nmeter = \"octets\"\nunit = \"{unit}\"\n{keys}\n"
    );
    let mut context = context(period);
    Arc::make_mut(&mut context.tariffs).insert("res-100".to_owned(), vec![version(&text, "2026-01-01T00:00:00Z")]);
    context
}

fn using(entries: Vec<UsageEntry>) -> AccountFacts {
    let mut facts = facts("2026-08-15T05:00:00Z");
    facts.watermark = entries.iter().map(|entry| entry.sequence).max().unwrap_or(0);
    facts.services[0].usage = entries;
    facts
}

fn of_period(lines: Vec<StoredLine>, context: &RunContext) -> StoredLine {
    lines.into_iter().find(|stored| stored.line.period == context.period).expect("a line of the period")
}

/// F3: a peer (Meteroid) takes a block size of tiered prices and never uses it.
#[test]
fn f3_blocks_of_tiered_prices_are_priced() {
    let tiers =
        "tiers = [{ up_to = \"20\", unit_amount = \"1\" }, { unit_amount = \"0.5\" }]\nblock = { size = \"10\" }";
    for (model, amount) in [("graduated", "25.00"), ("volume", "15.00")] {
        let context = priced("2026-10-15", &format!("direction = \"sum\"\nmodel = \"{model}\"\n{tiers}"));
        let facts = using(vec![entry(1, "2026-10-20T15:00:00Z", 20 * GB + 1)]);
        assert_eq!(of_period(run(&facts, &context), &context).line.amount, amount, "30 GB, {model}");
    }
}

/// F3: the same peer makes 0 of a total below zero; here it is a credit.
#[test]
fn f3_a_total_below_zero_is_a_credit() {
    let context = priced("2026-10-15", "direction = \"sum\"\nmodel = \"standard\"\nunit_amount = \"0.5\"");
    let mut facts = using(vec![entry(1, "2026-10-20T15:00:00Z", 30 * GB)]);
    close(&mut facts, &context);
    facts.services[0].usage.push(entry(2, "2026-10-20T15:00:00Z", -30 * GB));
    facts.watermark = 2;
    assert_eq!(summary(&close(&mut facts, &context)), ["data 2026-10-15 credit -30 -15.00"]);
    assert_eq!(total(&facts, "data"), 0);
}

/// F3: the same peer rounds parts of a line by themselves, so that they do not add up to it: three tiers of a third of a
/// cent each are one cent.
#[test]
fn f3_parts_of_a_line_are_not_rounded() {
    let tiers = "tiers = [{ up_to = \"1\", unit_amount = \"0.0034\" }, { up_to = \"2\", unit_amount = \"0.0034\" }, \
                 { unit_amount = \"0.0034\" }]";
    let context = priced("2026-10-15", &format!("direction = \"sum\"\nmodel = \"graduated\"\n{tiers}"));
    let line = of_period(run(&using(vec![entry(1, "2026-10-20T15:00:00Z", 3 * GB)]), &context), &context).line;
    let parts: Vec<&str> = line.tiers.iter().map(|tier| tier.amount_exact.as_str()).collect();
    assert_eq!((parts, line.amount_exact.as_str()), (vec!["0.0034"; 3], "0.0102"));
    assert_eq!((line.amount.as_str(), line.rounding_residue.as_str()), ("0.01", "-0.0002"));
}

/// F6: a peer (Kill Bill) leaves out late usage that is older than two periods, and stops with an illegal state where late
/// usage is less than what was billed. Here both are lines on the period they are of, however old.
#[test]
fn f6_late_usage_of_any_age_is_billed_up_and_down() {
    let standard = "direction = \"sum\"\nmodel = \"standard\"\nunit_amount = \"0.05\"";
    let mut facts = using(vec![entry(1, "2026-08-20T15:00:00Z", 100 * GB)]);
    for period in ["2026-08-15", "2026-09-15", "2026-10-15", "2026-11-15"] {
        close(&mut facts, &priced(period, standard));
    }
    for (sequence, gigabytes, expected) in [(2, 10, "adjustment 10 0.50"), (3, -30, "credit -30 -1.50")] {
        facts.services[0].usage.push(entry(sequence, "2026-08-20T15:00:00Z", gigabytes * GB));
        facts.watermark = sequence;
        let lines = close(&mut facts, &priced("2026-12-15", standard));
        let late: Vec<String> = summary(&lines).into_iter().filter(|line| line.contains("2026-08-15")).collect();
        assert_eq!(late, [format!("data 2026-08-15 {expected}")]);
    }
    assert_eq!(total(&facts, "data"), 400);
}

/// F7: a peer (Lago) makes 0 of usage below zero before it makes a fee. Here the account's bill stops and says why.
#[test]
fn f7_usage_below_zero_is_not_made_nothing() {
    let context = priced("2026-10-15", "direction = \"sum\"\nmodel = \"standard\"\nunit_amount = \"0.05\"");
    let facts = using(vec![entry(1, "2026-10-20T15:00:00Z", -GB)]);
    let error = lines(&facts, &context).expect_err("there is nothing to take back");
    assert_eq!(error, RunError::NegativeUsage { charge: "data".to_owned(), quantity: i128::from(-GB) });
}

/// F8: a peer (CGRateS) adds binary fractions; its own tests expect 0.3001 and 0.30006 where 0.3 is meant.
#[test]
fn f8_tenths_add_up_to_tenths() {
    let context = priced("2026-10-15", "direction = \"sum\"\nmodel = \"standard\"\nunit_amount = \"0.1\"");
    let thrice = (1..=3).map(|sequence| entry(sequence, "2026-10-20T15:00:00Z", GB)).collect();
    assert_eq!(of_period(run(&using(thrice), &context), &context).line.amount_exact, "0.3");
}

/// F9: a peer (BillRun) adds a million lines in binary fractions to 24333150.6800003313; it is 24333150.68.
#[test]
fn f9_a_million_lines_add_up_to_the_cent() {
    let usd: Currency = "USD".parse().expect("USD");
    let exact: Exact = "24.33315068".parse().expect("a decimal");
    let thousand = |one: Exact| (0..1_000).try_fold(Exact::ZERO, |sum, _| sum.checked_add(one)).expect("in range");
    let sum = thousand(thousand(exact));
    let (mut rounded, line) = (Money::zero(usd), Money::new(2433, usd));
    for _ in 0..1_000_000 {
        rounded = rounded.checked_add(line).expect("in range");
    }
    assert_eq!((sum.to_string().as_str(), rounded.minor), ("24333150.68", 2_433_000_000));
}

/// F10: a peer (Freeside) counts all octets of a session in the cycle in which it stops, and nothing of one that never
/// stops. Here a session over a period's edge is in both, and an open one is billed for what its reports say.
#[test]
fn f10_octets_are_billed_in_the_cycle_they_flowed_in() {
    let keys = "direction = \"sum\"\nmodel = \"standard\"\nunit_amount = \"1\"";
    let edge = entry(1, "2026-11-15T05:15:00Z", 4 * GB);
    // An hour of a session that is still open: the session itself is counted when it begins.
    let open = UsageEntry { sessions: 0, ..entry(2, "2026-11-20T15:00:00Z", 5 * GB) };
    let mut facts = using(vec![edge, open]);
    let of_data = |lines: Vec<StoredLine>| {
        summary(&lines).into_iter().filter(|line| !line.contains(" 0 ")).collect::<Vec<String>>()
    };
    // Three quarters of the hour lie before midnight in Chicago.
    assert_eq!(of_data(close(&mut facts, &priced("2026-10-15", keys))), ["data 2026-10-15 usage 3 3.00"]);
    assert_eq!(of_data(close(&mut facts, &priced("2026-11-15", keys))), ["data 2026-11-15 usage 6 6.00"]);
}

/// F10: the same peer prints what the subscriber sent as downloaded, and what it received as uploaded.
#[test]
fn f10_up_is_what_the_subscriber_sent() {
    let both = UsageEntry { in_octets: GB, ..entry(1, "2026-10-20T15:00:00Z", 3 * GB) };
    for (direction, quantity) in [("up", "1"), ("down", "3"), ("sum", "4"), ("max", "3")] {
        let context =
            priced("2026-10-15", &format!("direction = \"{direction}\"\nmodel = \"standard\"\nunit_amount = \"1\""));
        assert_eq!(
            of_period(run(&using(vec![both.clone()]), &context), &context).line.quantity,
            quantity,
            "{direction}"
        );
    }
}

/// F10: the same peer holds the sum of all days so far, not the day's, against what is set for a day, and knows GiB alone.
/// Here each day is by itself, and both units are what they say.
#[test]
fn f10_days_and_units_are_what_they_say() {
    let keys = |unit: &str| {
        format!(
            "direction = \"sum\"\nmodel = \"standard\"\nunit_amount = \"1\"\n\
             quantize = {{ to = \"1 {unit}\", level = \"day\" }}"
        )
    };
    let days = ["2026-10-20T15:00:00Z", "2026-10-21T15:00:00Z", "2026-10-22T15:00:00Z"];
    let facts = using((1..).zip(days).map(|(sequence, day)| entry(sequence, day, GB + 1)).collect());
    for (unit, expected) in [("GB", "6"), ("GiB", "3")] {
        let context = priced_by(unit, "2026-10-15", &keys(unit));
        assert_eq!(of_period(run(&facts, &context), &context).line.quantity, expected, "{unit}");
    }
}
