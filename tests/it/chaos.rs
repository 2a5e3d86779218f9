//! Accounting through a network that drops, doubles, reorders and damages datagrams both ways: nothing lost, nothing double.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::harness::acme::{CATALOG, internet};
use crate::harness::chaos::{BadNetwork, Faults};
use crate::harness::daemon::Site;
use crate::harness::long_or;
use crate::harness::nas::{Habits, Nas, REPORTS};
use crate::harness::truth::{StoredReports, octets_by_session, wrong_after};

#[test]
fn bad_network_loses_and_doubles_nothing() {
    // 10,000 reports, or 100,000.
    let (links, sessions) = (long_or(200, 100), u64::from(long_or(100, 20)));
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let daemon = site.start();
    for link in 0..links {
        let answer = daemon.api(&key, "PUT", &format!("acme/accounts/a{link}"), Some(&internet(link)));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    let seed = 0x1eaf;
    let network =
        BadNetwork::before(site.radius_port, Faults { dropped: 30, doubled: 50, held: 30, damaged: 10, seed });
    let mut habits = Habits::new(network.port, links, "c", jiff::Timestamp::now().as_second() - 3_000_000);
    habits.collectors = vec![SocketAddr::from(([127, 0, 0, 1], network.port))];
    habits.resend_after = Duration::from_millis(150);
    habits.sessions = Some(sessions);
    let truth = Nas::with(&habits).wait();
    let missing = StoredReports::of(&site).missing(&truth.acked).len();
    let wrong = wrong_after(&site, &truth, true, Duration::from_secs(120));
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "PROOF: bad network (seed {seed:#x}): passed {} dropped {} doubled {} held {} damaged {}; acked {} given up {} lost \
         {missing} wrong {}",
        count(&network.counts.passed),
        count(&network.counts.dropped),
        count(&network.counts.doubled),
        count(&network.counts.held),
        count(&network.counts.damaged),
        truth.acked.len(),
        truth.given_up,
        wrong.len()
    );
    assert_eq!(truth.given_up, 0);
    assert_eq!(truth.acked.len() as u64, u64::from(links) * sessions * u64::from(REPORTS));
    assert_eq!(missing, 0);
    assert!(wrong.is_empty(), "{wrong:#?}");
    // A damaged datagram must not have made a session of its own.
    assert_eq!(octets_by_session(&site, "sessions").len(), truth.finished.len());
    daemon.stop();
}
