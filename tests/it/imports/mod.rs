//! Accounting recorded elsewhere comes in: twice, before and after the wire, beside a running daemon, and from files
//! that are cut off or hostile. Sums are compared with what the recorded sessions really used.

mod detail;
mod radacct;
mod samis;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::harness::acme::Report;
use crate::harness::daemon::Site;
use crate::harness::wait_for;

/// Octets (in, out) and state of a session.
type Sums = BTreeMap<String, (u64, u64, String)>;

/// A session as it really was: Start, three Interims, Stop, ten minutes apart.
struct Truth {
    user: String,
    session: String,
    began: Timestamp,
    in_octets: u64,
    out_octets: u64,
}

/// Sessions of yesterday; every third passes 2^32.
fn truths(prefix: &str, count: u64) -> Vec<Truth> {
    let yesterday = Timestamp::now().as_second() - 86_400;
    (0..count)
        .map(|number| Truth {
            user: format!("user{}@acme", number % 5),
            session: format!("{prefix}{number}"),
            began: Timestamp::from_second(yesterday - yesterday % 3600 + (number as i64) * 7).expect("yesterday"),
            in_octets: 1_000_003 * (number + 1) + if number % 3 == 0 { 1 << 32 } else { 0 },
            out_octets: 40_000_019 * (number + 1) + if number % 3 == 0 { 3 << 32 } else { 0 },
        })
        .collect()
}

impl Truth {
    /// Its five reports: kind, seconds since it began, octets so far.
    fn reports(&self) -> Vec<Report<'_>> {
        ["Start", "Interim-Update", "Interim-Update", "Interim-Update", "Stop"]
            .into_iter()
            .zip(0u64..)
            .map(|(kind, part)| Report {
                user: &self.user,
                session: &self.session,
                kind,
                at: Timestamp::from_second(self.began.as_second() + part as i64 * 600).expect("an instant"),
                seconds: part * 600,
                in_octets: self.in_octets * part / 4,
                out_octets: self.out_octets * part / 4,
            })
            .collect()
    }

    fn sums(truths: &[Self]) -> Sums {
        let ended = |t: &Truth| (t.in_octets, t.out_octets, "stopped".to_owned());
        truths.iter().map(|truth| (truth.session.clone(), ended(truth))).collect()
    }
}

/// What the sessions hold now.
fn sums(site: &Site) -> Sums {
    let text = site.succeed(&["export", "sessions", "--format", "csv"]);
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    rows.records()
        .map(|row| {
            let row = row.expect("a row");
            let octets = |at: usize| row[at].parse().expect("octets");
            (row[1].to_owned(), (octets(2), octets(3), row[7].to_owned()))
        })
        .collect()
}

fn wait_for_sums(site: &Site, expected: &Sums) {
    let waited = std::time::Instant::now();
    while sums(site) != *expected {
        assert!(waited.elapsed() < Duration::from_secs(30), "{:#?}\n{}", sums(site), site.log_text());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The rows of the usage ledger, as they are exported.
fn ledger(site: &Site) -> String {
    site.succeed(&["export", "usage", "--format", "csv"])
}

/// Every entry of before is there still: entries are only added.
fn assert_holds(after: &str, before: &str) {
    let after: std::collections::BTreeSet<&str> = after.lines().collect();
    let gone: Vec<&str> = before.lines().filter(|line| !after.contains(line)).collect();
    assert!(gone.is_empty(), "{gone:#?}");
}

/// Runs an import that must end with this exit code; gives its summary and what it said.
fn import(site: &Site, arguments: &[&str], exit: i32) -> (Value, String) {
    let all = [&["--json", "import"], arguments].concat();
    let output = site.lastmile(&all);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {said}");
    let summary = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (summary, said)
}

/// (read, new, known, refused).
fn counts(summary: &Value) -> (u64, u64, u64, u64) {
    let number = |name: &str| summary[name].as_u64().expect("a number");
    (number("read"), number("new"), number("known"), number("refused"))
}

/// Accounts for the five users.
fn subscribers(site: &Site) {
    site.prepare(crate::harness::acme::CATALOG);
    let key = site.key("acme", "push");
    let daemon = site.start();
    for user in 0..5 {
        let account = crate::harness::acme::internet(user);
        let answer = daemon.api(&key, "PUT", &format!("acme/accounts/a{user}"), Some(&account));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    daemon.stop();
}

fn used_by_ledger(site: &Site) -> (u64, u64) {
    let text = ledger(site);
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    let headings = rows.headers().expect("headings").clone();
    let column = |name: &str| headings.iter().position(|found| found == name).expect("a column");
    let (up, down) = (column("in_octets"), column("out_octets"));
    rows.records().fold((0, 0), |(sum_in, sum_out), row| {
        let row = row.expect("a row");
        let octets = |at: usize| row[at].parse::<i64>().expect("octets").cast_unsigned();
        (sum_in + octets(up), sum_out + octets(down))
    })
}

fn write(site: &Site, name: &str, text: &str) -> String {
    let path = site.path(name);
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

fn wait_until_folded(site: &Site, sessions: usize) {
    wait_for("the records are folded", Duration::from_secs(30), || (sums(site).len() >= sessions).then_some(()));
}

/// A whole text from parts.
fn concat<'a>(parts: impl Iterator<Item = &'a Truth>, one: impl Fn(&mut String, &Truth)) -> String {
    parts.fold(String::new(), |mut text, truth| {
        one(&mut text, truth);
        text
    })
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a String takes everything");
    text.push('\n');
}
