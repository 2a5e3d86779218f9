//! Ten thousand sessions of pushed users, every octet found again, also after a kill in the middle.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::acme::{CATALOG, internet};
use crate::harness::daemon::{NAS_SECRET, Site};
use crate::harness::{program, wait_for};

const SESSIONS: u32 = 10_000;
const USERS: u32 = 100;

#[test]
fn ten_thousand_sessions_on_sqlite_are_found_to_the_octet() {
    every_octet_is_found_again(&Site::sqlite());
}

#[test]
fn ten_thousand_sessions_on_postgres_are_found_to_the_octet() {
    every_octet_is_found_again(&Site::postgres());
}

fn every_octet_is_found_again(site: &Site) {
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let daemon = site.start();
    for user in 0..USERS {
        let answer = daemon.api(&key, "PUT", &format!("acme/accounts/a{user}"), Some(&internet(user)));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    let truth = site.path("truth.csv");
    let mut load = Command::new(program("examples/accounting_load"))
        .args(["--target", &format!("127.0.0.1:{}", site.radius_port), "--secret", NAS_SECRET])
        .args(["--sessions", &SESSIONS.to_string(), "--users", &USERS.to_string(), "--retry-ms", "300"])
        .args(["--duplicates", "10", "--reorder", "10", "--sends", "200", "--truth"])
        .arg(&truth)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the load generator runs");
    // In the middle of it the daemon is killed, and started again.
    std::thread::sleep(Duration::from_millis(1500));
    daemon.kill();
    let daemon = site.start();
    wait_for("the load ends", Duration::from_secs(300), || load.try_wait().expect("the generator's state"));
    let truth = sums(&std::fs::read_to_string(&truth).expect("the truth"));
    assert_eq!(truth.len(), SESSIONS as usize);
    let started = Instant::now();
    let wrong = loop {
        let found = sums(&site.succeed(&["export", "sessions", "--format", "csv"]));
        let wrong = truth.iter().filter(|(session, octets)| found.get(*session) != Some(octets)).count();
        if (wrong == 0 && found.len() == truth.len()) || started.elapsed() > Duration::from_secs(60) {
            break wrong;
        }
        std::thread::sleep(Duration::from_millis(300));
    };
    println!("PROOF: sessions {SESSIONS} wrong {wrong}");
    assert_eq!(wrong, 0);
    let unattributed = site.json(&["usage", "unattributed"]);
    assert_eq!(unattributed.as_array().map(Vec::len), Some(0), "every session belongs to a pushed user");
    // Derived state is what the journal gives again, also while the daemon runs.
    let verdict = site.json(&["audit", "verify"]);
    assert_eq!((&verdict["equal"], &verdict["differences"]), (&true.into(), &0.into()), "{verdict}");
    assert!(verdict["records"].as_u64() >= Some(u64::from(SESSIONS) * 2), "{verdict}");
    daemon.stop();
}

/// Octets up and down by (user, session).
fn sums(csv: &str) -> BTreeMap<(String, String), (u64, u64)> {
    let mut sums = BTreeMap::new();
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let sum: &mut (u64, u64) = sums.entry((fields[0].to_owned(), fields[1].to_owned())).or_default();
        sum.0 += fields[2].parse::<u64>().expect("octets");
        sum.1 += fields[3].parse::<u64>().expect("octets");
    }
    sums
}
