//! `kill -9` at any moment under load: what was answered is in the journal, and folded exactly once.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::acme::{CATALOG, internet};
use crate::harness::daemon::Site;
use crate::harness::nas::Nas;
use crate::harness::truth::{StoredReports, wrong_after};
use crate::harness::{long_or, wait_for};

const LINKS: u32 = 12;

#[test]
fn killed_daemon_on_sqlite_keeps_what_it_answered() {
    killed_daemon_keeps_what_it_answered(&Site::sqlite(), long_or(500, 20));
}

#[test]
fn killed_daemon_on_postgres_keeps_what_it_answered() {
    killed_daemon_keeps_what_it_answered(&Site::postgres(), long_or(100, 8));
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
    let began = jiff::Timestamp::now().as_second() - 20_000_000;
    let nas = Nas::start(site.radius_port, LINKS, "k", began);
    let mut stored = StoredReports::default();
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
        stored.read_on(site);
        let lost = stored.missing(&acked[acked_before_kill..]);
        assert!(lost.is_empty(), "cycle {cycle}: answered but not stored: {lost:?}");
        acked_before_kill = acked.len();
        daemon = Some(site.spawn());
    }
    let truth = nas.finish();
    assert!(!truth.finished.is_empty(), "some sessions ended");
    let lost = StoredReports::of(site).missing(&truth.acked).len();
    let wrong = wrong_after(site, &truth, true, Duration::from_secs(30));
    println!(
        "PROOF: kill -9, cycles {cycles}: acked {} (before the last kill {acked_before_kill}) sessions {} lost {lost} wrong {}",
        truth.acked.len(),
        truth.finished.len(),
        wrong.len()
    );
    assert_eq!(lost, 0);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let daemon = daemon.expect("running");
    for id in pushed {
        assert_eq!(daemon.api(&key, "GET", &format!("acme/accounts/{id}"), None).status, 200, "{id} was answered");
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
    assert!(StoredReports::of(&site).missing(&acked).is_empty());
    let _daemon = site.start();
    nas.finish();
}
