//! Everything real networks and NAS do wrong, each fault alone and all mixed, from several seeds: every octet is found.
//!
//! The load generator of this repository (`examples/accounting_load`) sends the faults and knows the truth. It fails by
//! itself when a report is never answered, a copy signed anew is not, or a forged packet is.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::acme::{CATALOG, ZONE, internet};
use crate::harness::daemon::{Daemon, NAS_SECRET, Site};
use crate::harness::truth::{each_row, octets_by_session};
use crate::harness::{long_or, program};

/// Name, options of the generator. Percentages of reports or sessions.
const FAULTS: &[(&str, &str)] = &[
    ("nothing", ""),
    ("copies byte by byte", "--duplicates 50"),
    ("copies signed anew", "--resigned 50"),
    ("overtaking reports", "--reorder 100"),
    ("answers that do not arrive", "--drop-answers 30"),
    ("answers that do not arrive, asked for by the same octets", "--drop-answers 30 --resend same"),
    ("lost Starts", "--lost-starts 50"),
    ("lost Interims", "--lost-interims 50"),
    ("lost Stops", "--lost-stops 50"),
    ("forged packets", "--forged 50"),
    ("counters beyond 32 bits", "--wraps 100"),
    ("wraps without Gigawords", "--wraps 100 --no-gigawords --nas-identifier narrow"),
    ("counters that begin anew", "--resets 100 --octets-max 50000000"),
    ("session ids used again", "--reuse 100"),
    ("NAS that reboot", "--reboots 100 --lost-stops 30"),
    ("NAS with wrong clocks", "--skewed 50 --skew-seconds -7200"),
    ("no Event-Timestamp", "--no-event-timestamp --nas-identifier timeless --interims 1"),
    ("Message-Authenticators", "--message-authenticator --duplicates 20"),
    ("several source addresses", "--sources 127.0.0.1,127.0.0.2,127.0.0.3 --sockets 3 --window 256"),
    ("a rate, whatever is answered", "--rate 400 --duplicates 10"),
];

const MIXED: &str = "--duplicates 15 --resigned 10 --reorder 20 --drop-answers 10 --resend mixed --lost-starts 5 \
    --lost-interims 5 --lost-stops 5 --forged 10 --wraps 10 --resets 10 --reuse 10 --reboots 40 --octets-max 50000000 \
    --sources 127.0.0.1,127.0.0.2 --sockets 2";

const USERS: u32 = 40;
const NAS: &str = "4";

#[test]
fn each_fault_alone_loses_no_octet_on_sqlite() {
    each_fault_alone(&Site::sqlite());
}

#[test]
fn each_fault_alone_loses_no_octet_on_postgres() {
    each_fault_alone(&Site::postgres());
}

#[test]
fn all_faults_and_a_kill_lose_no_octet_on_sqlite() {
    all_mixed(&Site::sqlite());
}

#[test]
fn all_faults_and_a_kill_lose_no_octet_on_postgres() {
    all_mixed(&Site::postgres());
}

fn each_fault_alone(site: &Site) {
    let daemon = prepared(site);
    let sessions = long_or(2000, 120);
    for (seed, (name, options)) in FAULTS.iter().enumerate() {
        let load = Load::start(site, 100 + seed as u64, sessions, options);
        load.check(site, name);
    }
    daemon.stop();
}

fn all_mixed(site: &Site) {
    let mut daemon = prepared(site);
    for seed in 1..=u64::from(long_or(20, 3)) {
        let load = Load::start(site, seed, long_or(5000, 400), MIXED);
        std::thread::sleep(Duration::from_millis(200 + seed * 7919 % 800));
        daemon.kill();
        daemon = site.start();
        load.check(site, &format!("all faults and a kill, seed {seed}"));
    }
    daemon.stop();
}

/// Half a month each side of a period's edge: what was used before it is known to the octet.
#[test]
fn usage_is_cut_at_the_edge_of_a_period_to_the_octet() {
    let site = Site::sqlite();
    let daemon = prepared(&site);
    let (_, edge) = crate::harness::acme::last_period(jiff::Timestamp::now());
    let edge = edge.in_tz(ZONE).expect("a known zone").timestamp();
    let options = format!("--boundary {} --reorder 20 --lost-interims 20 --resigned 20", edge.as_second());
    let load = Load::start(&site, 77, long_or(3000, 300), &options);
    let truth = load.check(&site, "sessions across an edge");
    let mut before = BTreeMap::new();
    each_row(&truth, |row| {
        let octets = |name: &str| row(name).parse::<i64>().expect("octets");
        before.insert(row("session"), (octets("in_before_prorata"), octets("out_before_prorata")));
    });
    let ledger = || {
        let mut found: BTreeMap<String, (i64, i64)> = before.keys().map(|id| (id.clone(), (0, 0))).collect();
        each_row(&site.succeed(&["export", "usage", "--format", "csv"]), |row| {
            let until: jiff::Timestamp = row("to").parse().expect("an instant");
            if until <= edge {
                let sum = found.entry(row("session")).or_default();
                sum.0 += row("in_octets").parse::<i64>().expect("octets");
                sum.1 += row("out_octets").parse::<i64>().expect("octets");
            }
        });
        found
    };
    let found = ledger();
    let wrong: Vec<_> = before.iter().filter(|(session, octets)| found.get(*session) != Some(octets)).collect();
    println!("PROOF: sessions across an edge {} wrong before it {}", before.len(), wrong.len());
    for (session, octets) in wrong.iter().take(5) {
        println!("{session}: {:?} instead of {octets:?}", found.get(*session));
    }
    assert!(wrong.is_empty());
    daemon.stop();
}

fn prepared(site: &Site) -> Daemon {
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let daemon = site.start();
    for user in 0..USERS {
        let answer = daemon.api(&key, "PUT", &format!("acme/accounts/a{user}"), Some(&internet(user)));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    daemon
}

/// A run of the generator.
struct Load {
    generator: Child,
    truth: std::path::PathBuf,
}

impl Load {
    fn start(site: &Site, seed: u64, sessions: u32, options: &str) -> Self {
        let truth = site.path(&format!("truth-{seed}.csv"));
        let generator = Command::new(program("examples/accounting_load"))
            .args(["--target", &format!("127.0.0.1:{}", site.radius_port), "--secret", NAS_SECRET])
            .args(["--seed", &seed.to_string(), "--sessions", &sessions.to_string(), "--users", &USERS.to_string()])
            .args(["--nas", NAS, "--retry-ms", "300", "--sends", "200"])
            .args(options.split_whitespace())
            .arg("--truth")
            .arg(&truth)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the load generator runs");
        Self { generator, truth }
    }

    /// Waits for its end and for the fold; every session of it must be found to the octet, in its user's ledger too.
    fn check(self, site: &Site, name: &str) -> String {
        let output = self.generator.wait_with_output().expect("the generator ends");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {}{told}", String::from_utf8_lossy(&output.stderr));
        let text = std::fs::read_to_string(&self.truth).expect("the truth");
        let truth = sums(&text, false);
        assert!(!truth.is_empty(), "{name}");
        let started = Instant::now();
        let wrong = loop {
            let found = sums(&site.succeed(&["export", "sessions", "--format", "csv"]), true);
            let wrong: Vec<String> = truth
                .iter()
                .filter(|(session, octets)| found.get(*session).copied().unwrap_or_default() != **octets)
                .map(|(session, octets)| format!("{session:?}: {:?} instead of {octets:?}", found.get(session)))
                .collect();
            if wrong.is_empty() || started.elapsed() > Duration::from_secs(60) {
                break wrong;
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        println!("PROOF: adversary, {name}: sessions {} wrong {}", truth.len(), wrong.len());
        println!("{name}: {}", told.trim());
        assert!(wrong.is_empty(), "{name}: {:#?}", &wrong[..wrong.len().min(10)]);
        check_ledger(site, name, &truth);
        text
    }
}

/// What ended stands in the ledger as a whole; an open session's running hour may still be missing.
fn check_ledger(site: &Site, name: &str, truth: &BTreeMap<(String, String), (u64, u64)>) {
    let mut open: BTreeSet<String> = BTreeSet::new();
    each_row(&site.succeed(&["export", "sessions", "--format", "csv"]), |row| {
        if row("ended_at").is_empty() {
            open.insert(row("session"));
        }
    });
    let started = Instant::now();
    let wrong = loop {
        let found = octets_by_session(site, "usage");
        let wrong: Vec<String> = truth
            .iter()
            .filter(|((_, session), _)| !open.contains(session))
            .filter(|((_, session), octets)| found.get(session).copied().unwrap_or_default() != **octets)
            .map(|((_, session), octets)| format!("{session}: {:?} instead of {octets:?}", found.get(session)))
            .collect();
        if wrong.is_empty() || started.elapsed() > Duration::from_secs(30) {
            break wrong;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(wrong.is_empty(), "{name}, ledger: {:#?}", &wrong[..wrong.len().min(10)]);
}

/// Octets up and down by (user, session). A truth's sessions with unanswered reports are left out; there are none when
/// the generator succeeded.
fn sums(csv: &str, stored: bool) -> BTreeMap<(String, String), (u64, u64)> {
    let mut sums: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    each_row(csv, |row| {
        if !stored {
            assert_eq!(row("unacked"), "0");
        }
        let sum = sums.entry((row("user"), row("session"))).or_default();
        sum.0 += row("in_octets").parse::<u64>().expect("octets");
        sum.1 += row("out_octets").parse::<u64>().expect("octets");
    });
    sums
}
