//! The same facts give the same lines to the byte, in whatever order they came and however a run divides its work; on both
//! databases.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use lastmile::biller::{Kept, Order, Pace, close_period_at};
use lastmile::billing::lines::Line;
use lastmile::store::Store;
use lastmile::store::billing::{self, LineFilter};
use lastmile::vocabulary::Clock;
use serde_json::Value;

use crate::harness::acme::{CATALOG, Report, internet, last_period, midnight, radclient};
use crate::harness::daemon::Site;
use crate::harness::truth::store_config;
use crate::harness::wait_for;

const ACCOUNTS: u32 = 12;
const SOON: Duration = Duration::from_secs(120);

#[test]
fn order_chunks_and_threads_change_no_byte_of_the_lines_on_sqlite() {
    journey(&Site::sqlite(), &Site::sqlite());
}

#[test]
fn order_chunks_and_threads_change_no_byte_of_the_lines_on_postgres() {
    journey(&Site::postgres(), &Site::postgres());
}

fn journey(site: &Site, turned: &Site) {
    let now = Timestamp::now();
    fill(site, now, false);
    fill(turned, now, true);
    let expected = lines(site, now, Pace { chunk: 1, threads: 1, ..Pace::default() });
    let usage = expected.values().filter(|line| line["kind"] == "usage" && line["amount"] != "0.00");
    assert!(usage.count() > 6, "there is something to compare: {expected:#?}");
    for chunk in [1, 7, 1000] {
        for threads in [1, 2, 4] {
            let found = lines(site, now, Pace { chunk, threads, ..Pace::default() });
            assert_eq!(text(&found), text(&expected), "chunks of {chunk}, {threads} threads");
        }
    }
    // Where the records came in another order the ledger has other entries, corrections among them; nothing else tells.
    let found = lines(turned, now, Pace { chunk: 7, threads: 2, ..Pace::default() });
    assert_eq!(text(&without_entries(found)), text(&without_entries(expected.clone())));
    // A closing writes the lines of its preview, however many transactions it takes.
    for (site, lines) in [(site, 1), (turned, 7)] {
        let expected = self::lines(site, now, Pace::default());
        let stored = closed(site, now, Pace { chunk: 5, threads: 2, lines });
        assert_eq!(text(&stored), text(&expected), "transactions of {lines} lines");
    }
}

/// Accounts and their records, in order or from the end, some of them twice.
fn fill(site: &Site, now: Timestamp, turned: bool) {
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let (start, end) = last_period(now);
    let mut accounts: Vec<u32> = (1..=ACCOUNTS).collect();
    let mut reports = Vec::new();
    for number in &accounts {
        for (session, hours) in [(1, -200), (2, -100), (3, -4)] {
            let gigabytes = |part: u64| u64::from(number * session) * part * 123_456_789;
            for (kind, after, part) in [("Start", 0, 0), ("Interim-Update", 2, 3), ("Stop", 9, 10)] {
                reports.push((*number, session, kind, midnight(end) + (hours + after).hours(), after, gigabytes(part)));
            }
        }
    }
    if turned {
        accounts.reverse();
        reports.reverse();
        let copies: Vec<_> = reports.iter().step_by(5).cloned().collect();
        reports.extend(copies);
    }
    for number in accounts {
        let mut account = internet(number);
        account["services"][0]["billing_from"] = Value::from(start.to_string());
        let path = format!("acme/accounts/{number}");
        assert_eq!(daemon.api(&key, "PUT", &path, Some(&account)).status, 201);
    }
    for (number, session, kind, at, after, octets) in reports {
        let (user, session) = (format!("user{number}@acme"), format!("s-{number}-{session}"));
        let seconds = u64::try_from(after * 3600).expect("not before the start");
        let report =
            Report { user: &user, session: &session, kind, at, seconds, in_octets: octets / 3, out_octets: octets };
        assert!(radclient(site.radius_port, &report));
    }
    wait_for("the sessions are folded", SOON, || {
        let sessions = site.json(&["session", "list", "--limit", "100"]);
        let sessions = sessions.as_array().expect("sessions").clone();
        (sessions.iter().filter(|session| session["state"] == "stopped").count() == 36).then_some(())
    });
    daemon.stop();
}

/// The lines of a preview of the last period, by id, as JSON.
fn lines(site: &Site, now: Timestamp, pace: Pace) -> BTreeMap<String, Value> {
    let order = order(now, true);
    with_store(site, async |store| {
        let mut kept = Kept::default();
        let report = close_period_at(pace, &store, &Clock::fixed(now), &order, &mut kept).await.expect("a preview");
        assert_eq!((report.accounts, report.failed.len()), (u64::from(ACCOUNTS), 0));
        let count = kept.0.len();
        let shown = by_id(kept.0);
        assert_eq!(shown.len(), count);
        shown
    })
}

/// Closes the last period. Its stored lines without their batch, by id, as JSON.
fn closed(site: &Site, now: Timestamp, pace: Pace) -> BTreeMap<String, Value> {
    let order = order(now, false);
    with_store(site, async |store| {
        let mut kept = Kept::default();
        let report = close_period_at(pace, &store, &Clock::fixed(now), &order, &mut kept).await.expect("a closing");
        let filter =
            LineFilter { tenant: Some("acme".to_owned()), batch: report.batch, limit: 1000, ..Default::default() };
        let stored = billing::lines(&mut store.read().await.expect("a look"), &filter).await.expect("lines");
        let mut stored = by_id(stored.into_iter().map(|stored| stored.line).collect());
        stored.values_mut().for_each(|line| line["batch"] = Value::Null);
        stored
    })
}

fn order(now: Timestamp, dry_run: bool) -> Order {
    let (tenant, cycle, period) = ("acme".to_owned(), "c15".to_owned(), Some(last_period(now).0.to_string()));
    Order { tenant, cycle, period, dry_run, rerate: false }
}

fn by_id(lines: Vec<Line>) -> BTreeMap<String, Value> {
    lines.into_iter().map(|line| (line.id.clone(), serde_json::to_value(line).expect("a line is data"))).collect()
}

fn with_store<T>(site: &Site, work: impl AsyncFnOnce(Store) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(&store_config(site)).await.expect("the store opens");
        let outcome = work(store.clone()).await;
        store.close().await;
        outcome
    })
}

/// The lines without what they say of the ledger's entries: how many there are, up to which one, and their digest.
fn without_entries(mut lines: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    for line in lines.values_mut() {
        line["usage"] = Value::Null;
    }
    lines
}

fn text(lines: &BTreeMap<String, Value>) -> String {
    serde_json::to_string_pretty(lines).expect("JSON")
}
