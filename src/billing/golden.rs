//! The lines of every model of price, byte for byte, each beside its arithmetic on paper.
//!
//! A file of `tests/golden/lines` is: the arithmetic, as comments; `=== tariff`, one or more; `=== facts`, services and
//! their usage; `=== lines`, what the runs emit. `LASTMILE_GOLDEN=write` writes the lines anew for the reviewer to check
//! against the arithmetic, which nobody writes but a person.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::calendar::{BillCycle, Every};
use super::facts::{
    AccountFacts, Causes, CorrectionPolicy, KnownVersion, RunContext, ServiceFacts, Stretch, TariffBook, UsageEntry,
};
use super::lines::StoredLine;
use super::run::lines;
use super::tariff::Tariff;
use crate::vocabulary::{Timestamp, Zone};

/// The facts of a golden file. A line of `usage`: from, until, octets up, octets down, and what else it is:
/// `service=2`, `class=voip`, `call=4930`, `run=2` where the run before did not know it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    runs: Vec<String>,
    service: Vec<Service>,
    #[serde(default)]
    usage: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    id: String,
    tariff: String,
    #[serde(default = "first_start")]
    from: String,
}

fn first_start() -> String {
    "2026-10-15T05:00:00Z".to_owned()
}

macro_rules! golden {
    ($($name:ident)*) => {
        $(#[test] fn $name() { check(stringify!($name)); })*

        #[test]
        fn every_golden_file_has_its_test() {
            let mut files: Vec<String> = std::fs::read_dir(folder()).expect("the folder").flatten()
                .filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".txt")?.to_owned())).collect();
            files.sort();
            assert_eq!(files, [$(stringify!($name)),*]);
        }
    };
}

golden! {
    allowance_pooled
    allowance_prorated
    allowance_rollover
    calls
    classes
    flat_at_zero
    graduated
    graduated_blocks
    graduated_percentage
    late_usage
    minimum_and_maximum
    one_off_and_deposit
    package
    peak_95
    percentage
    quantized
    recurring
    rounding
    standard
    standard_blocks
    taxes_exclusive
    taxes_inclusive
    taxes_over_the_batch
    tiers_prorated
    volume
    windows
}

fn check(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).expect("the golden file");
    let (given, expected) = text.split_once("=== lines\n").expect("the lines come last");
    let (tariffs, facts) = given.split_once("=== facts\n").expect("the facts come before them");
    let tariffs = tariffs.split("=== tariff\n").skip(1).map(|text| Tariff::read(name, text).expect("a sound tariff"));
    let found = emitted(tariffs.collect(), &toml::from_str(facts).expect("facts as they are described above"));
    if std::env::var("LASTMILE_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, format!("{given}=== lines\n{found}")).expect("the golden file can be written");
    }
    assert_eq!(found, expected, "{name} differs");
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lines")
}

fn emitted(tariffs: Vec<Tariff>, golden: &Facts) -> String {
    let mut book = TariffBook::new();
    for tariff in tariffs {
        let version = KnownVersion { tariff, known_at: Timestamp::UNIX_EPOCH };
        book.entry(version.tariff.id.clone()).or_default().push(version);
    }
    let services = golden.service.iter().map(|service| {
        let from = at(&service.from);
        let stretches = vec![Stretch { from, until: None, tariff: service.tariff.clone() }];
        ServiceFacts { id: service.id.clone(), times: 1, began_at: Some(from), stretches, ..ServiceFacts::default() }
    });
    let mut facts = AccountFacts {
        tenant: "acme".to_owned(),
        source: "default".to_owned(),
        account: "100234".to_owned(),
        services: services.collect(),
        ..AccountFacts::default()
    };
    let mut text = String::new();
    for (run, period) in (1..).zip(&golden.runs) {
        for (sequence, usage) in (1..).zip(&golden.usage) {
            let (known_in, service, entry) = usage_entry(sequence, usage);
            let service = facts.services.iter_mut().find(|known| known.id == service).expect("a service of the file");
            if known_in == run {
                service.usage.push(entry);
                facts.watermark = facts.watermark.max(sequence);
            }
        }
        let made = lines(&facts, &context(period, &book)).expect("an account that can be rated").lines;
        text.push_str(&format!("--- run of {period}\n"));
        made.iter().for_each(|line| text.push_str(&shown(line)));
        facts.issued.extend(made);
    }
    text
}

fn usage_entry(sequence: i64, text: &str) -> (u32, &str, UsageEntry) {
    let words: Vec<&str> = text.split(' ').collect();
    let more = |key: &str| words[4..].iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let (from, until) = (at(words[0]), at(words[1]));
    let octets = |place: usize| words[place].parse::<i64>().expect("octets");
    let entry = UsageEntry {
        sequence,
        session: sequence,
        class: more("class").map(Arc::from),
        call: more("call").map(Arc::from),
        from,
        until,
        in_octets: octets(2),
        out_octets: octets(3),
        seconds: until.as_second() - from.as_second(),
        sessions: 1,
    };
    (more("run").map_or(1, |run| run.parse().expect("a number")), more("service").unwrap_or("1"), entry)
}

fn context(period: &str, book: &TariffBook) -> RunContext {
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
        tariffs: book.clone().into(),
        backdate_days: 400,
        wholesale: Vec::new(),
        corrections: CorrectionPolicy::default(),
        closures: BTreeMap::new(),
        causes: Causes::default(),
    }
}

/// A line as JSON, a key a row, without what says the same in every line of these files.
fn shown(stored: &StoredLine) -> String {
    let Value::Object(line) = serde_json::to_value(&stored.line).expect("a line is plain data") else {
        return String::new();
    };
    let same = ["tenant", "account", "cycle", "tariff", "currency", "usage", "batch", "created_at"];
    let rows = line.iter().filter(|(key, value)| !same.contains(&key.as_str()) && !value.is_null());
    let rows: Vec<String> = rows.map(|(key, value)| format!("  \"{key}\": {value}")).collect();
    format!("{{\n{}\n}}\n", rows.join(",\n"))
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant of the file")
}
