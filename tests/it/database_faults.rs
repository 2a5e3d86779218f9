//! PostgreSQL killed, frozen, and cut off around a COMMIT: no answer that is not true, nothing double, back within seconds.

use std::time::{Duration, Instant};

use crate::harness::acme::{CATALOG, internet};
use crate::harness::chaos::{CommitCutter, Cut};
use crate::harness::daemon::Site;
use crate::harness::nas::{Nas, Truth};
use crate::harness::postgres::Cluster;
use crate::harness::truth::{StoredReports, wrong_after};
use crate::harness::{http, long_or, temp_dir, wait_for};

const LINKS: u32 = 12;
/// From the database's return to the first answer (issue's figure).
const BACK: Duration = Duration::from_secs(5);

#[test]
fn killed_postgres_is_survived_and_answers_come_soon_after_its_return() {
    let mut cluster = Cluster::start(&[]);
    let site = Site::new(temp_dir(), &cluster.database());
    let daemon = prepared(&site);
    let nas = start_nas(&site, "k");
    let mut slowest = Duration::ZERO;
    let rounds = long_or(30, 3);
    for round in 0..rounds {
        std::thread::sleep(Duration::from_millis(300 + u64::from(round * 7919 % 500)));
        let back = if round % 2 == 0 {
            cluster.kill_9();
            std::thread::sleep(Duration::from_millis(500));
            cluster.launch(&[]);
            Instant::now()
        } else {
            // One backend: the server throws all others out and recovers by itself.
            cluster.kill_a_backend();
            Instant::now()
        };
        slowest = slowest.max(first_answer(&nas, back));
    }
    println!("PROOF: PostgreSQL killed {rounds} times: slowest first answer {slowest:?}");
    all_is_true(&site, nas.finish(), "killed PostgreSQL");
    assert!(slowest < BACK, "{slowest:?}");
    daemon.stop();
}

#[test]
fn frozen_postgres_is_never_answered_for() {
    let cluster = Cluster::start(&[]);
    let site = Site::new(temp_dir(), &cluster.database());
    let daemon = prepared(&site);
    let nas = start_nas(&site, "f");
    let mut slowest = Duration::ZERO;
    for seconds in [2, 7] {
        wait_for("accounting is answered", Duration::from_secs(10), || {
            nas.first_answer_after(Instant::now() - Duration::from_millis(100))
        });
        cluster.signal_all("STOP");
        // What was committed before may still be on its way.
        std::thread::sleep(Duration::from_millis(300));
        let frozen = Instant::now();
        std::thread::sleep(Duration::from_secs(seconds) - Duration::from_millis(300));
        assert_eq!(nas.answers_after(frozen), 0, "a frozen database made nothing durable");
        if seconds > 4 {
            assert_eq!(status(&site, "/readyz"), 503);
            assert_eq!(status(&site, "/healthz"), 200);
        }
        cluster.signal_all("CONT");
        slowest = slowest.max(first_answer(&nas, Instant::now()));
    }
    println!("PROOF: PostgreSQL frozen twice: slowest first answer {slowest:?}");
    all_is_true(&site, nas.finish(), "frozen PostgreSQL");
    assert!(slowest < BACK, "{slowest:?}");
    daemon.stop();
}

#[test]
fn connection_cut_between_commit_and_its_answer_counts_nothing_twice() {
    let cluster = Cluster::start(&[]);
    let cutter = CommitCutter::before(cluster.port);
    let url = cluster.database();
    let behind = url.replace(&format!(":{}/", cluster.port), &format!(":{}/", cutter.port));
    assert_ne!(url, behind);
    let site = Site::new(temp_dir(), &behind);
    let daemon = prepared(&site);
    let nas = start_nas(&site, "u");
    let rounds = long_or(100, 10);
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        std::thread::sleep(Duration::from_millis(100 + u64::from(round * 7919 % 150)));
        cutter.arm(if round % 3 == 2 { Cut::BeforeCommit } else { Cut::AfterCommit });
        wait_for("the connection is cut", Duration::from_secs(10), || (cutter.cuts() == round + 1).then_some(()));
        slowest = slowest.max(first_answer(&nas, Instant::now()));
    }
    let stored_before_stop = StoredReports::of(&site);
    println!(
        "PROOF: commits cut {rounds}: slowest first answer {slowest:?}, {} reports stored",
        stored_before_stop.len()
    );
    all_is_true(&site, nas.finish(), "cut commits");
    assert!(slowest < BACK, "{slowest:?}");
    daemon.stop();
}

fn prepared(site: &Site) -> crate::harness::daemon::Daemon {
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let daemon = site.start();
    for link in 0..LINKS {
        let answer = daemon.api(&key, "PUT", &format!("acme/accounts/a{link}"), Some(&internet(link)));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    daemon
}

fn start_nas(site: &Site, prefix: &str) -> Nas {
    Nas::start(site.radius_port, LINKS, prefix, jiff::Timestamp::now().as_second() - 20_000_000)
}

/// How long after `since` the first report was answered.
fn first_answer(nas: &Nas, since: Instant) -> Duration {
    let at = wait_for("accounting is answered again", Duration::from_secs(20), || nas.first_answer_after(since));
    at.duration_since(since)
}

fn all_is_true(site: &Site, truth: Truth, what: &str) {
    let missing = StoredReports::of(site).missing(&truth.acked).len();
    let wrong = wrong_after(site, &truth, true, Duration::from_secs(60));
    println!(
        "PROOF: {what}: acked {} lost {missing} sessions {} wrong {}",
        truth.acked.len(),
        truth.finished.len(),
        wrong.len()
    );
    assert_eq!(truth.given_up, 0);
    assert_eq!(missing, 0);
    assert!(!truth.finished.is_empty());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn status(site: &Site, path: &str) -> u16 {
    http::request(site.http_port, "GET", path, &[], None).expect("an answer").status
}
