//! What NAS tell and how it is taken, on both databases: streams that only inform, NAS behind a proxy, clocks that are
//! off, owners by address and MAC, and the tenant's policy at a period's edge.

use std::sync::Arc;

use lastmile::collector::fold::Fold;
use lastmile::collector::{Feed, NasClient, NasTable};
use lastmile::radius::{IdentityRule, Profile, RequestBuilder};
use lastmile::store::journal::JournalEntry;
use lastmile::store::sessions::{self, StoredSession};
use lastmile::telemetry::{Heartbeats, Metrics};
use lastmile::vocabulary::{BitRate, Clock, Secret};
use tokio::sync::watch;

use crate::fold::{BASE, Bench, at, on_postgres, on_sqlite, secret};

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::on_sqlite(|bench| Box::pin(super::$name(bench))); })*
        }
        mod postgres_15 {
            $(#[test] fn $name() { super::on_postgres(|bench| Box::pin(super::$name(bench))); })*
        }
    };
}

on_both!(
    service_session_is_listed_and_never_billed,
    reboot_of_one_nas_behind_a_proxy_leaves_the_others_alone,
    clock_that_is_behind_is_learned_and_folded_again_alike,
    usage_attaches_by_address_prefix_and_mac_once,
    report_policy_gives_a_straddling_delta_to_the_period_of_its_report,
    impossible_rise_is_kept_and_marked,
);

async fn service_session_is_listed_and_never_billed(mut bench: Bench) {
    bench.account("ada@acme").await;
    let service = |packet: RequestBuilder| packet.vendor(4874, 83, b"video(100m)");
    send(
        &mut bench,
        vec![
            (100, report("s1", 1, 0, None)),
            (100, service(report("s1:v", 1, 0, None))),
            (7_300, report("s1", 2, 7_200, Some((7_200, 9_000)))),
            (7_300, service(report("s1:v", 2, 7_200, Some((7_200, 4_000))))),
        ],
    )
    .await;
    turn(&bench, client("juniper", IdentityRule::Client)).await;
    let informative = session(&bench, "bng1", "s1:v").await;
    assert_eq!(informative.state.totals().in_octets, 4_000, "it is shown");
    assert_eq!(informative.state.word(), "stopped");
    assert_eq!(bench.number("SELECT COUNT(*) FROM ledger WHERE session_id = 2").await, 0);
    assert_eq!(bench.totals().await, [(9_000, 1)]);
    assert_eq!(bench.number("SELECT COUNT(*) FROM session WHERE (flags & 256) <> 0").await, 1);
}

async fn reboot_of_one_nas_behind_a_proxy_leaves_the_others_alone(mut bench: Bench) {
    let of = |packet: RequestBuilder, nas: &str| packet.text(32, nas);
    let on = || RequestBuilder::accounting(1).integer(40, 7).integer(55, event(900));
    send(
        &mut bench,
        vec![
            (310, of(report("s1", 3, 300, Some((300, 50))), "olt-1")),
            (310, of(report("s1", 3, 300, Some((300, 70))), "olt-2")),
            (901, of(on(), "olt-1")),
        ],
    )
    .await;
    turn(&bench, client("default", IdentityRule::NasIdentifier)).await;
    let (one, two) = (session(&bench, "bng1/olt-1", "s1").await, session(&bench, "bng1/olt-2", "s1").await);
    assert_eq!((one.state.word(), one.state.ended_at()), ("closed", Some(BASE + 300_000_000)));
    assert_eq!((two.state.word(), two.state.totals().in_octets), ("open", 70));
}

async fn clock_that_is_behind_is_learned_and_folded_again_alike(mut bench: Bench) {
    bench.account("ada@acme").await;
    // Two hours behind, a report every ten minutes, each a second on its way.
    let reports =
        (1..=12u32).map(|i| (i64::from(i) * 600 + 7_201, report("s1", 3, i * 600, Some((i * 600, i * 1_000)))));
    send(&mut bench, reports.collect()).await;
    turn(&bench, client("default", IdentityRule::Client)).await;
    let offset = bench.number("SELECT CAST(SUM(offset_s) AS BIGINT) FROM nas_clock WHERE nas = 'bng1'").await;
    assert_eq!(offset, 7_200, "a zone's, not the way of the packets");
    let before = session(&bench, "bng1", "s1").await;
    assert_eq!((before.state.totals().in_octets, before.incarnation), (12_000, 1), "one session, each octet once");
    assert_eq!(before.state.last_at(), BASE + (7_200 + 7_200) * 1_000_000, "by our clock");
    assert_eq!(bench.totals().await, [(12_000, 1)]);
    assert_eq!(bench.number("SELECT COUNT(*) FROM exception WHERE kind = 'nas_clock'").await, 1);
    for statement in
        ["DELETE FROM usage_total", "DELETE FROM ledger", "DELETE FROM session", "DELETE FROM fold_watermark"]
    {
        bench.sql(statement).await;
    }
    turn(&bench, client("default", IdentityRule::Client)).await;
    assert_eq!(session(&bench, "bng1", "s1").await.state, before.state);
    assert_eq!(bench.number("SELECT COUNT(*) FROM nas_clock").await, 1, "nothing is learned twice");
}

async fn usage_attaches_by_address_prefix_and_mac_once(mut bench: Bench) {
    let stop = |id: &str| RequestBuilder::accounting(1).integer(40, 2).text(44, id).integer(55, event(600));
    let counted = |packet: RequestBuilder, octets| packet.integer(46, 600).integer(42, octets).integer(43, 0);
    let by_address = counted(stop("by-address").address(8, "192.0.2.7".parse().expect("an address")), 100);
    let by_mac = counted(stop("by-mac").text(31, "00-1A-2B-3C-4D-5E"), 20);
    let by_prefix = counted(stop("by-prefix").octets(123, &[0, 56, 0x20, 0x01, 0x0d, 0xb8, 0, 7, 0xab]), 40_000);
    let by_nothing = counted(stop("by-nothing").address(8, "192.0.2.8".parse().expect("an address")), 3);
    send(&mut bench, vec![(601, by_address), (602, by_mac), (603, by_nothing), (604, by_prefix)]).await;
    turn(&bench, client("default", IdentityRule::Client)).await;
    for id in ["by-address", "by-mac", "by-prefix", "by-nothing"] {
        assert_eq!(session(&bench, "bng1", id).await.owner, None, "nobody holds anything yet");
    }
    bench.account("ada@acme").await;
    let from_at = BASE + 500_000_000;
    for (kind, value) in [("address", "192.0.2.7"), ("mac", "00:1a:2b:3c:4d:5e"), ("address", "2001:db8:7:ab00::/56")] {
        let insert = "INSERT INTO holder (kind, value, account_id, service_id, from_at)";
        bench.sql(&format!("{insert} VALUES ('{kind}', '{value}', 7, 70, {from_at})")).await;
    }
    // Given to somebody only after that session was over.
    let later = BASE + 700_000_000;
    bench
        .sql(&format!(
            "INSERT INTO holder (kind, value, account_id, service_id, from_at) VALUES ('address', '192.0.2.8', 7, 70, {later})"
        ))
        .await;
    for _ in 0..2 {
        turn(&bench, client("default", IdentityRule::Client)).await;
    }
    assert_eq!(bench.totals().await, [(40_120, 3)]);
    assert_eq!(session(&bench, "bng1", "by-nothing").await.owner, None, "before its holder an address was another's");
}

async fn report_policy_gives_a_straddling_delta_to_the_period_of_its_report(mut bench: Bench) {
    bench.account("ada@acme").await;
    // 2026-12-01T00:00:00Z, where the second period begins.
    let edge = 21 * 86_400u32;
    let reports = || {
        vec![
            (i64::from(edge) - 599, report("s1", 1, edge - 600, None)),
            (i64::from(edge) - 299, report("s1", 3, edge - 300, Some((300, 1_000)))),
            (i64::from(edge) + 901, report("s1", 3, edge + 900, Some((1_500, 13_000)))),
        ]
    };
    send(&mut bench, reports()).await;
    turn(&bench, client("default", IdentityRule::Client)).await;
    assert_eq!(periods(&bench).await, (4_000, 9_000), "pro rata: a quarter of 12,000 before the edge");
    for statement in [
        "UPDATE catalog_version SET document = REPLACE(document, 'timezone = ', 'period_usage = \\\"report\\\"\\ntimezone = ')",
        "UPDATE catalog_version SET version = 2",
        "UPDATE tenant SET catalog_version = 2",
        "DELETE FROM usage_total",
        "DELETE FROM ledger",
        "DELETE FROM session",
        "DELETE FROM fold_watermark",
    ] {
        bench.sql(statement).await;
    }
    turn(&bench, client("default", IdentityRule::Client)).await;
    assert_eq!(periods(&bench).await, (1_000, 12_000), "all of it in the later one");
}

/// Octets of the running totals before and from the second period.
async fn periods(bench: &Bench) -> (i64, i64) {
    let second = BASE + 21 * 86_400 * 1_000_000;
    let sum = "SELECT CAST(COALESCE(SUM(in_octets), 0) AS BIGINT) FROM usage_total WHERE period_start_at";
    (bench.number(&format!("{sum} < {second}")).await, bench.number(&format!("{sum} >= {second}")).await)
}

async fn impossible_rise_is_kept_and_marked(mut bench: Bench) {
    bench.account("ada@acme").await;
    // 3.3 GB in 5 minutes on a port of 10 Mbit/s.
    let (first, second) = (report("s1", 3, 300, Some((300, 1_000))), report("s1", 3, 600, Some((600, 3_300_000_000))));
    send(&mut bench, vec![(301, first), (601, second)]).await;
    let slow =
        NasClient { max_rate: BitRate::from_bits_per_second(10_000_000), ..client("default", IdentityRule::Client) };
    turn(&bench, slow).await;
    let marked = session(&bench, "bng1", "s1").await;
    assert_ne!(marked.state.marks() & lastmile::usage::mark::RATE_DOUBTFUL, 0);
    assert_eq!(bench.number("SELECT COUNT(*) FROM exception WHERE kind = 'impossible_rate'").await, 1);
}

fn client(profile: &str, identity: IdentityRule) -> NasClient {
    NasClient {
        name: "bng1".into(),
        network: Some("127.0.0.1".parse().expect("a network")),
        secret: Some(Secret::new("s")),
        previous_secret: None,
        certificates: Vec::new(),
        message_authenticator: false,
        profile: Profile::named(profile).expect("shipped"),
        identity,
        max_rate: BitRate::from_bits_per_second(10_000_000_000),
        interim_seconds: 600,
        tenants: None,
    }
}

/// A fold of its own, by this configuration, that folds everything there is.
async fn turn(bench: &Bench, client: NasClient) {
    let (nas, nas_seen) = watch::channel(Arc::new(NasTable::new(vec![client])));
    let (feed, clock) = (Feed::new().1, Clock::fixed(at(40 * 86_400)));
    let beat = Heartbeats::new().register("fold");
    let mut fold = Fold::new(bench.store.clone(), clock, feed, nas_seen, Metrics::new(), beat);
    fold.turn().await.expect("folds");
    fold.release().await.expect("lets go");
    drop(nas);
}

/// Journals packets that arrived so many seconds after the base.
async fn send(bench: &mut Bench, packets: Vec<(i64, RequestBuilder)>) {
    let entry = |(arrived, packet): (i64, RequestBuilder)| JournalEntry {
        arrived_at: at(arrived),
        nas: "bng1".into(),
        source: std::net::SocketAddr::from(([127, 0, 0, 1], 4000)).into(),
        packet: packet.sign(&secret()).expect("fits"),
    };
    let entries: Vec<JournalEntry> = packets.into_iter().map(entry).collect();
    bench.writer.append(&entries).await.expect("stored");
}

fn event(seconds: u32) -> u32 {
    u32::try_from(BASE / 1_000_000).expect("a time of ours") + seconds
}

/// `counted`: session time and octets in.
fn report(session: &str, status: u32, at: u32, counted: Option<(u32, u32)>) -> RequestBuilder {
    let packet =
        RequestBuilder::accounting(1).integer(40, status).text(44, session).text(1, "ada@acme").integer(55, event(at));
    match counted {
        Some((seconds, octets)) => packet.integer(46, seconds).integer(42, octets).integer(43, 0),
        None => packet,
    }
}

async fn session(bench: &Bench, nas: &str, id: &str) -> StoredSession {
    let mut tx = bench.store.read().await.expect("a transaction");
    let mut found = sessions::of_keys(&mut tx, &[(nas, id)]).await.expect("sessions");
    assert_eq!(found.len(), 1, "one incarnation of {id}");
    found.remove(0)
}
