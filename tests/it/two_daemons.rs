//! Several daemons on one PostgreSQL: a NAS goes to and fro between them, one dies, the other folds on within seconds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::harness::acme::{CATALOG, Report, internet, radclient};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::nas::{Habits, Nas};
use crate::harness::truth::{StoredReports, octets_by_session, wrong_after};
use crate::harness::{long_or, wait_for};

const LINKS: u32 = 12;

#[test]
fn nas_fails_over_between_two_daemons_and_nothing_is_lost_or_double() {
    let (first, second) = pair();
    let (mut one, mut two) = (Some(first.start()), Some(second.start()));
    push_accounts(&first, one.as_ref().expect("running"));
    let mut habits = Habits::new(first.radius_port, LINKS, "d", jiff::Timestamp::now().as_second() - 20_000_000);
    habits.collectors.push(SocketAddr::from(([127, 0, 0, 1], second.radius_port)));
    let nas = Nas::with(&habits);
    let mut stored = StoredReports::default();
    let mut checked = 0;
    let rounds = long_or(60, 6);
    for round in 0..rounds {
        std::thread::sleep(Duration::from_millis(300 + u64::from(round * 7919 % 700)));
        let (site, daemon) = if round % 2 == 0 { (&first, &mut one) } else { (&second, &mut two) };
        daemon.take().expect("running").kill();
        let acked = nas.acked();
        stored.read_on(site);
        let missing = stored.missing(&acked[checked..]);
        assert!(missing.is_empty(), "round {round}: answered but not stored: {missing:?}");
        checked = acked.len();
        // Its neighbour serves alone for a while.
        std::thread::sleep(Duration::from_millis(500));
        *daemon = Some(site.start());
    }
    let truth = nas.finish();
    let missing = StoredReports::of(&first).missing(&truth.acked).len();
    let wrong = wrong_after(&second, &truth, true, Duration::from_secs(60));
    println!(
        "PROOF: two daemons, kills {rounds}: acked {} lost {missing} sessions {} wrong {}",
        truth.acked.len(),
        truth.finished.len(),
        wrong.len()
    );
    assert_eq!(truth.given_up, 0);
    assert_eq!(missing, 0);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn fold_is_taken_over_within_seconds_of_a_death_and_at_once_after_a_stop() {
    let (first, second) = pair();
    let one = first.start();
    push_accounts(&first, &one);
    let two = second.start();
    // Whichever of them folds, one of the two deaths is its.
    let folded = |site: &Site, name: &str| {
        let since = Instant::now();
        let now = jiff::Timestamp::now();
        let report = |kind, at, seconds| Report {
            user: "user1@acme",
            session: name,
            kind,
            at,
            seconds,
            in_octets: 10 * seconds,
            out_octets: 0,
        };
        assert!(radclient(site.radius_port, &report("Start", now - jiff::SignedDuration::from_secs(60), 0)));
        assert!(radclient(site.radius_port, &report("Stop", now, 60)));
        wait_for("the survivor folds", Duration::from_secs(30), || {
            (octets_by_session(site, "usage").get(name) == Some(&(600, 0))).then_some(())
        });
        since.elapsed()
    };
    one.kill();
    let after_first_death = folded(&second, "death-1");
    let one = first.start();
    folded(&first, "both-1");
    two.kill();
    let after_second_death = folded(&first, "death-2");
    let two = second.start();
    folded(&second, "both-2");
    one.stop();
    let after_first_stop = folded(&second, "stop-1");
    let one = first.start();
    folded(&first, "both-3");
    two.stop();
    let after_second_stop = folded(&first, "stop-2");
    println!(
        "PROOF: fold taken over after kill -9: {after_first_death:?}, {after_second_death:?}; after a stop: \
         {after_first_stop:?}, {after_second_stop:?}"
    );
    for death in [after_first_death, after_second_death] {
        assert!(death < Duration::from_secs(10), "{death:?}");
    }
    for stop in [after_first_stop, after_second_stop] {
        assert!(stop < Duration::from_secs(2), "{stop:?}");
    }
    one.stop();
}

/// Two sites on one database, each with ports of its own.
fn pair() -> (Site, Site) {
    let first = Site::postgres();
    let second = first.twin();
    first.prepare(CATALOG);
    (first, second)
}

fn push_accounts(site: &Site, daemon: &Daemon) {
    let key = site.key("acme", "push");
    for link in 0..LINKS {
        let answer = daemon.api(&key, "PUT", &format!("acme/accounts/a{link}"), Some(&internet(link)));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
}
