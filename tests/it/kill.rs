//! `kill -9` at any moment under load: what was answered is in the journal, and folded exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lastmile::radius::PacketView;
use lastmile::store::{Store, StoreConfig, journal};

use crate::harness::acme::{CATALOG, internet};
use crate::harness::daemon::Site;
use crate::harness::nas::{Acked, Nas};
use crate::harness::wait_for;

const LINKS: u32 = 12;

#[test]
fn killed_daemon_on_sqlite_keeps_what_it_answered() {
    killed_daemon_keeps_what_it_answered(&Site::sqlite(), cycles(20, 500));
}

#[test]
fn killed_daemon_on_postgres_keeps_what_it_answered() {
    killed_daemon_keeps_what_it_answered(&Site::postgres(), cycles(8, 100));
}

fn cycles(usual: u32, long: u32) -> u32 {
    if std::env::var("LASTMILE_TESTS_LONG").as_deref() == Ok("1") { long } else { usual }
}

fn killed_daemon_keeps_what_it_answered(site: &Site, cycles: u32) {
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let mut daemon = Some(site.start());
    for link in 0..LINKS {
        let body = internet(link);
        let answer = daemon.as_ref().expect("running").api(&key, "PUT", &format!("acme/accounts/a{link}"), Some(&body));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    let began = jiff::Timestamp::now().as_second() - 3_000_000;
    let nas = Nas::start(site.radius_port, LINKS, "k", began);
    let (mut acked_before_kill, mut pushed) = (0, BTreeSet::new());
    for cycle in 0..cycles {
        // Any moment: the start of the daemon, its catching up, full load.
        std::thread::sleep(Duration::from_millis(20 + u64::from(cycle * 7919 % 600)));
        let id = format!("k{cycle}");
        let bearer = format!("Bearer {key}");
        let answer = crate::harness::http::request(
            site.http_port,
            "PUT",
            &format!("/v1/tenants/acme/accounts/{id}"),
            &[("Authorization", bearer.as_str())],
            Some(&internet(1000 + cycle).to_string()),
        );
        if answer.is_ok_and(|answer| answer.status == 201) {
            pushed.insert(id);
        }
        daemon.take().expect("running").kill();
        let acked = nas.acked();
        acked_before_kill = acked.len();
        let stored = stored_reports(site);
        let lost: Vec<&Acked> = acked.iter().filter(|report| !stored.contains(*report)).collect();
        assert!(lost.is_empty(), "cycle {cycle}: answered but not stored: {lost:?}");
        daemon = Some(site.spawn());
    }
    let truth = nas.finish();
    assert!(!truth.finished.is_empty(), "some sessions ended");
    let wrong = wait_for_truth(site, &truth.finished);
    println!(
        "cycles {cycles} acked {} (before the last kill {acked_before_kill}) sessions {} lost 0 wrong {}",
        truth.acked.len(),
        truth.finished.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    let daemon = daemon.expect("running");
    for id in pushed {
        assert_eq!(daemon.api(&key, "GET", &format!("acme/accounts/{id}"), None).status, 200, "{id} was answered");
    }
}

/// Every report that stands in the journal, read as any other program would.
fn stored_reports(site: &Site) -> BTreeSet<Acked> {
    let config = std::fs::read_to_string(&site.config).expect("the configuration");
    let value = |key: &str| {
        let line = config.lines().find(|line| line.starts_with(key)).expect("a key of the configuration");
        line.split('"').nth(1).expect("a text").to_owned()
    };
    let config = StoreConfig {
        url: value("url"),
        key_file: Some(value("key_file").into()),
        previous_key_file: None,
        owner: "reader".to_owned(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(&config).await.expect("the store opens");
        let mut tx = store.read_journal().await.expect("a transaction");
        let mut found = BTreeSet::new();
        for lane in journal::lanes(&mut tx).await.expect("lanes") {
            let mut seq = 0;
            loop {
                let rows = journal::read_after(&mut tx, lane, seq, 5000).await.expect("rows");
                let Some(last) = rows.last() else { break };
                seq = last.seq;
                found.extend(rows.iter().map(|row| report_of(&row.entry.packet)));
            }
        }
        drop(tx);
        store.close().await;
        found
    })
}

fn report_of(packet: &[u8]) -> Acked {
    let view = PacketView::parse(packet).expect("a stored packet is whole");
    let integer = |kind: u8| {
        let value = view.first(kind).expect("an attribute the NAS sent");
        u32::from_be_bytes(value.try_into().expect("four octets"))
    };
    let session = String::from_utf8_lossy(view.first(44).expect("a session")).into_owned();
    (session, integer(40), integer(46))
}

/// Waits until the folded sessions equal the truth; gives what is still wrong after the limit.
fn wait_for_truth(site: &Site, truth: &BTreeMap<String, (String, u64, u64)>) -> Vec<String> {
    let wrong = || {
        let csv = site.succeed(&["export", "sessions", "--format", "csv"]);
        let mut got: BTreeMap<&str, (&str, u64, u64)> = BTreeMap::new();
        for line in csv.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let sums = got.entry(fields[1]).or_insert((fields[0], 0, 0));
            sums.1 += fields[2].parse::<u64>().expect("octets");
            sums.2 += fields[3].parse::<u64>().expect("octets");
        }
        truth
            .iter()
            .filter(|(session, (user, up, down))| got.get(session.as_str()) != Some(&(user.as_str(), *up, *down)))
            .map(|(session, expected)| format!("{session}: {:?} instead of {expected:?}", got.get(session.as_str())))
            .collect::<Vec<String>>()
    };
    let start = std::time::Instant::now();
    loop {
        let left = wrong();
        if left.is_empty() || start.elapsed() > Duration::from_secs(30) {
            return left;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn sigterm_answers_what_is_committed_and_stops_in_time() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let daemon = site.start();
    let nas = Nas::start(site.radius_port, LINKS, "t", jiff::Timestamp::now().as_second() - 100_000);
    wait_for("some answers", Duration::from_secs(10), || (nas.acked().len() > 200).then_some(()));
    let took = daemon.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let acked = nas.acked();
    let stored = stored_reports(&site);
    assert!(acked.iter().all(|report| stored.contains(report)));
    let _daemon = site.start();
    nas.finish();
}
