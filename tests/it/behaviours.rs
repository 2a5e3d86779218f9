//! The table of behaviours beside this file: each has a line, each test it names exists. And the property that no single
//! room can show: periods of any zone sum to the session.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lastmile::billing::calendar::{BillCycle, Every};
use lastmile::usage::{
    Amount, Counting, Cuts, FoldFacts, Record, RecordFlags, RecordKind, SessionState, Straddling, Told, mark,
};
use lastmile::vocabulary::{Timestamp, Zone, from_micros, parse_instant, to_micros};
use proptest::prelude::*;

const TABLE: &str = include_str!("behaviours.md");
const BEHAVIOURS: usize = 52;

#[test]
fn every_behaviour_has_a_line_and_its_tests_exist() {
    let rows: Vec<(usize, &str)> = TABLE
        .lines()
        .filter_map(|line| {
            let (number, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
            Some((number.parse().ok()?, rest))
        })
        .collect();
    assert_eq!(rows.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (1..=BEHAVIOURS).collect::<Vec<_>>());
    let mut wrong = Vec::new();
    for (number, row) in rows {
        let named = tests_of(row.rsplit_once(" | ").expect("two columns").1);
        if named.is_empty() {
            wrong.push(format!("{number}: no test"));
        }
        for (file, function) in named {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            let text = fs::read_to_string(&path).unwrap_or_default();
            if !text.contains(&format!("fn {function}(")) {
                wrong.push(format!("{number}: {file} has no {function}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// (file, function) of a cell: the words in backquotes, a path naming the file of those behind it.
fn tests_of(cell: &str) -> Vec<(&str, &str)> {
    let mut file = "";
    let mut tests = Vec::new();
    for quoted in cell.split('`').skip(1).step_by(2) {
        if quoted.contains('/') {
            file = quoted;
        } else {
            tests.push((file, quoted));
        }
    }
    tests
}

#[test]
fn marks_of_sessions_have_words() {
    for bit in 0..10 {
        assert_eq!(mark::words(1 << bit).len(), 1, "the mark {}", 1 << bit);
    }
}

fn report(kind: RecordKind, at: i64, seconds: i64, octets: u64) -> Record {
    let instant = |at: i64| from_micros(at * 1_000_000).expect("in range");
    Record {
        nas: "bng1".into(),
        session: "s1".into(),
        kind,
        user: None,
        event_at: instant(at),
        arrived_at: instant(at + 1),
        told: Told::default(),
        session_seconds: Some(seconds.unsigned_abs()),
        in_octets: Some(octets),
        out_octets: Some(octets / 7),
        gigawords: true,
        class: None,
        framed_ip: None,
        framed_prefix: None,
        calling_station: None,
        terminate_cause: None,
        counting: Counting::default(),
        flags: RecordFlags::default(),
    }
}

/// The starts of a cycle's periods around this time.
fn edges(cycle: &BillCycle, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let mut edges = Vec::new();
    let mut period = cycle.period_at(from).expect("a period");
    while period.start <= until {
        edges.push(period.start);
        period = cycle.next(&period).expect("a period");
    }
    edges
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Days of 23, 24 and 25 hours, and zones off by quarters of an hour.
    #[test]
    fn periods_of_any_zone_sum_to_the_session(
        zone in proptest::sample::select(vec![
            "UTC", "America/Chicago", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns",
        ]),
        start in proptest::sample::select(vec![
            "2026-03-07T12:00:00Z", "2026-03-28T09:17:00Z", "2026-10-24T20:00:01Z", "2026-10-31T23:59:59Z",
        ]),
        steps in proptest::collection::vec((1i64..50_000, 0u64..9_000_000_000), 1..25),
        by_report in any::<bool>(),
    ) {
        let cycle = BillCycle {
            id: "daily".into(),
            anchor_day: 1,
            every: Every::Day,
            zone: Zone::get(zone).expect("a zone"),
            timezone: zone.into(),
        };
        let began = to_micros(parse_instant(start).expect("an instant")) / 1_000_000;
        let last = began + steps.iter().map(|(seconds, _)| seconds).sum::<i64>();
        let instant = |at: i64| from_micros(at * 1_000_000).expect("in range");
        let edges = edges(&cycle, instant(began - 86_400), instant(last + 86_400));
        let straddling = if by_report { Straddling::Report } else { Straddling::Prorata };
        let facts = FoldFacts {
            gigawords: true, max_bits_per_second: u64::MAX, edges: &edges, cuts: Cuts::at(&edges), straddling, rebooted_at: None,
        };
        let mut state = SessionState::new(&facts);
        let (mut at, mut octets) = (began, 0);
        let mut by_report_truth: BTreeMap<usize, i64> = BTreeMap::new();
        for (index, (seconds, grown)) in steps.iter().enumerate() {
            (at, octets) = (at + seconds, octets + grown);
            let kind = if index + 1 == steps.len() { RecordKind::Stop } else { RecordKind::Interim };
            state.fold(&report(kind, at, at - began, octets), &facts).expect("fits");
            let period = edges.partition_point(|edge| to_micros(*edge) < at * 1_000_000);
            *by_report_truth.entry(period).or_default() += grown.cast_signed();
        }
        let mut sums: BTreeMap<usize, Amount> = BTreeMap::new();
        for (start, amount) in state.pending().iter() {
            let period = edges.partition_point(|edge| to_micros(*edge) <= start);
            let sum = sums.entry(period).or_default();
            *sum = sum.plus(amount).expect("fits");
        }
        let total = sums.values().try_fold(Amount::default(), |sum, part| sum.plus(*part)).expect("fits");
        prop_assert_eq!(total, state.totals());
        prop_assert_eq!(total.in_octets, octets.cast_signed());
        prop_assert_eq!(total.seconds, at - began);
        if by_report {
            let found: BTreeMap<usize, i64> =
                sums.iter().map(|(period, sum)| (*period, sum.in_octets)).filter(|(_, octets)| *octets != 0).collect();
            by_report_truth.retain(|_, octets| *octets != 0);
            prop_assert_eq!(found, by_report_truth);
        }
    }
}
