//! The collector on loopback, over a real SQLite journal: what is answered, what is not, and what stands in the journal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Fed, Feed, NasClient, NasTable, Sockets, Wiring, run};
use crate::radius::{IdentityRule, PacketView, Profile, RequestBuilder, response_is_genuine};
use crate::store::journal::{self, JournalRow};
use crate::store::{Store, StoreConfig};
use crate::telemetry::{Heartbeats, Metrics, Nas, NasReason};
use crate::vocabulary::{BitRate, Clock, Secret, parse_instant};

struct Fixture {
    store: Store,
    metrics: Metrics,
    fed: Fed,
    table: watch::Sender<Arc<NasTable>>,
    stop: watch::Sender<bool>,
    collector: JoinHandle<std::io::Result<()>>,
    address: SocketAddr,
    _directory: TempDir,
}

impl Fixture {
    async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    async fn start_at(bind: &str) -> Self {
        Self::start_with(bind, true).await
    }

    /// Without `tables` the database has none yet.
    async fn start_with(bind: &str, tables: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = StoreConfig {
            url: format!("sqlite://{}", directory.path().join("lastmile.db").display()),
            key_file: None,
            previous_key_file: None,
            owner: "test".to_owned(),
        };
        let store = Store::open(&config).await.expect("a store");
        if tables {
            // Before the collector: two connections that open a new file at once refuse one another.
            store.migrate().await.expect("tables");
        }
        let metrics = Metrics::new();
        let (stop, stopping) = watch::channel(false);
        let table = NasTable::new(vec![client("bng1", "127.0.0.0/8"), client("bng6", "::1")]);
        let (table, nas) = watch::channel(Arc::new(table));
        let (feed, fed) = Feed::new();
        let wiring = Wiring {
            store: store.clone(),
            clock: Clock::fixed(parse_instant("2026-11-22T03:00:00Z").expect("an instant")),
            metrics: metrics.clone(),
            nas,
            feed,
            hearts: Heartbeats::new(),
            stopping,
        };
        let socket = UdpSocket::bind(bind).await.expect("a socket");
        let address = socket.local_addr().expect("an address");
        let collector = tokio::spawn(run(Sockets { accounting: vec![socket], radsec: None }, wiring));
        Self { store, metrics, fed, table, stop, collector, address, _directory: directory }
    }

    async fn journal(&self) -> Vec<JournalRow> {
        let mut tx = self.store.read_journal().await.expect("a transaction");
        let mut rows = Vec::new();
        for lane in journal::lanes(&mut tx).await.expect("lanes") {
            rows.extend(journal::read_after(&mut tx, lane, 0, 1000).await.expect("rows"));
        }
        rows
    }

    fn dropped(&self, nas: &str, reason: &str) -> u64 {
        self.metrics.radius_dropped.get_or_create(&NasReason::new(nas, reason)).get()
    }
}

/// A NAS with one socket.
struct Sender(UdpSocket);

impl Sender {
    async fn to(address: SocketAddr) -> Self {
        let local = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(local).await.expect("a socket");
        socket.connect(address).await.expect("a route");
        Self(socket)
    }

    async fn ask(&self, octets: &[u8]) -> Option<Vec<u8>> {
        self.0.send(octets).await.expect("sent");
        self.answer().await
    }

    async fn answer(&self) -> Option<Vec<u8>> {
        let mut room = [0; 4096];
        let length = timeout(ANSWER_LIMIT, self.0.recv(&mut room)).await.ok()?.expect("received");
        Some(room[..length].to_vec())
    }

    /// Nothing comes, although a later request is answered.
    async fn is_silent_about(&self, octets: &[u8]) {
        self.0.send(octets).await.expect("sent");
        let probe = status(250, "s");
        let answer = self.ask(&probe).await.expect("the probe is answered");
        assert_eq!(answer[1], 250, "something else than the probe was answered");
    }
}

fn client(name: &str, network: &str) -> NasClient {
    NasClient {
        name: name.into(),
        network: Some(network.parse().expect("a network")),
        secret: Some(Secret::new("s")),
        previous_secret: Some(Secret::new("old")),
        certificates: Vec::new(),
        message_authenticator: false,
        profile: Arc::clone(Profile::standard()),
        identity: IdentityRule::Client,
        max_rate: BitRate::from_bits_per_second(10_000_000_000),
        interim_seconds: 600,
        tenants: None,
    }
}

fn start(identifier: u8, secret: &str) -> Vec<u8> {
    let session = format!("session-{identifier}");
    let builder = RequestBuilder::accounting(identifier).integer(40, 1).text(44, &session).octets(33, b"proxy");
    builder.sign(&Secret::new(secret)).expect("small")
}

fn status(identifier: u8, secret: &str) -> Vec<u8> {
    RequestBuilder::status_server(identifier, [identifier; 16]).sign(&Secret::new(secret)).expect("small")
}

fn authenticator(octets: &[u8]) -> [u8; 16] {
    PacketView::parse(octets).expect("our own packet").authenticator()
}

#[tokio::test]
async fn answered_record_stands_in_the_journal() {
    let mut fixture = Fixture::start().await;
    let nas = Sender::to(fixture.address).await;
    let request = start(7, "s");
    let answer = nas.ask(&request).await.expect("an answer");
    assert!(response_is_genuine(&answer, 7, &authenticator(&request), &Secret::new("s")));
    let states = PacketView::parse(&answer).expect("well formed").all(33).map(<[u8]>::to_vec).collect::<Vec<_>>();
    assert_eq!(states, [b"proxy".to_vec()]);
    let rows = fixture.journal().await;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].seq, &*rows[0].entry.nas, &rows[0].entry.packet), (1, "bng1", &request));
    assert_eq!(rows[0].entry.source, nas.0.local_addr().expect("an address").into());
    let told = timeout(ANSWER_LIMIT, fixture.fed.recv()).await.expect("the fold is told").expect("a commit");
    assert_eq!((told.first_seq, told.entries.len()), (1, 1));
}

#[tokio::test]
async fn copy_is_answered_again_and_recorded_once() {
    let fixture = Fixture::start().await;
    let nas = Sender::to(fixture.address).await;
    let request = start(7, "s");
    let first = nas.ask(&request).await.expect("an answer");
    assert_eq!(nas.ask(&request).await, Some(first));
    assert_eq!(fixture.journal().await.len(), 1);
    assert_eq!(fixture.metrics.radius_duplicates.get_or_create(&Nas::new("bng1")).get(), 1);
}

#[tokio::test]
async fn burst_of_copies_is_answered_as_often_and_recorded_once() {
    let fixture = Fixture::start().await;
    let nas = Sender::to(fixture.address).await;
    let request = start(7, "s");
    for _ in 0..4 {
        nas.0.send(&request).await.expect("sent");
    }
    for _ in 0..4 {
        assert_eq!(nas.answer().await.expect("an answer")[1], 7);
    }
    assert_eq!(fixture.journal().await.len(), 1);
}

#[tokio::test]
async fn previous_secret_is_answered_with_the_previous_secret() {
    let fixture = Fixture::start().await;
    let nas = Sender::to(fixture.address).await;
    let request = start(7, "old");
    let answer = nas.ask(&request).await.expect("an answer");
    assert!(response_is_genuine(&answer, 7, &authenticator(&request), &Secret::new("old")));
}

#[tokio::test]
async fn what_cannot_be_interpreted_is_journalled_and_answered() {
    let fixture = Fixture::start().await;
    let nas = Sender::to(fixture.address).await;
    let request = RequestBuilder::accounting(9)
        .octets(40, &[1])
        .octets(26, &[0, 0, 0, 9, 1, 99])
        .sign(&Secret::new("s"))
        .expect("small");
    assert!(nas.ask(&request).await.is_some());
    assert_eq!(fixture.journal().await.len(), 1);
}

#[tokio::test]
async fn passwords_are_blanked_in_the_journal() {
    let fixture = Fixture::start().await;
    let nas = Sender::to(fixture.address).await;
    let request = RequestBuilder::accounting(9).integer(40, 1).octets(2, &[7; 16]).sign(&Secret::new("s"));
    nas.ask(&request.expect("small")).await.expect("an answer");
    let rows = fixture.journal().await;
    let kept = PacketView::parse(&rows[0].entry.packet).expect("well formed");
    assert_eq!(kept.first(2), Some(&[0; 16][..]));
}

#[tokio::test]
async fn padding_is_neither_verified_nor_kept() {
    let fixture = Fixture::start().await;
    let nas = Sender::to(fixture.address).await;
    let request = start(7, "s");
    let padded = [&request[..], &[0; 5000]].concat();
    assert!(nas.ask(&padded).await.is_some());
    assert_eq!(fixture.journal().await[0].entry.packet, request);
}

#[tokio::test]
async fn forged_malformed_and_foreign_packets_meet_silence() {
    let fixture = Fixture::start().await;
    let nas = Sender::to(fixture.address).await;
    let mut forged = start(1, "s");
    *forged.last_mut().expect("octets") ^= 1;
    let mut access = status(2, "s");
    access[0] = 1;
    let unsigned = [&[12, 3, 0, 20][..], &[1; 16]].concat();
    let mut cut = start(4, "s");
    cut.pop();
    for packet in [&forged, &start(5, "wrong"), &access, &unsigned, &status(6, "wrong"), &cut, &vec![], &vec![4; 3]] {
        nas.is_silent_about(packet).await;
    }
    assert_eq!(fixture.dropped("bng1", "bad_authenticator"), 2);
    assert_eq!(fixture.dropped("bng1", "wrong_code"), 1);
    assert_eq!(fixture.dropped("bng1", "bad_message_authenticator"), 2);
    assert_eq!(fixture.dropped("bng1", "malformed"), 3);
    assert_eq!(fixture.journal().await.len(), 0);
}

#[tokio::test]
async fn unknown_nas_meets_silence() {
    let fixture = Fixture::start().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    fixture.table.send_replace(Arc::new(NasTable::new(vec![client("elsewhere", "192.0.2.0/24")])));
    stranger.send_to(&start(1, "s"), fixture.address).await.expect("sent");
    let silence = timeout(Duration::from_millis(200), stranger.recv(&mut [0; 64])).await;
    assert!(silence.is_err(), "a stranger was answered");
    assert_eq!(fixture.dropped("", "unknown_nas"), 1);
    fixture.table.send_replace(Arc::new(NasTable::new(vec![client("reloaded", "127.0.0.1")])));
    let nas = Sender::to(fixture.address).await;
    assert!(nas.ask(&start(1, "s")).await.is_some());
    assert_eq!(&*fixture.journal().await[0].entry.nas, "reloaded");
}

#[tokio::test]
async fn ipv6_is_served_like_ipv4() {
    let fixture = Fixture::start_at("[::]:0").await;
    let nas = Sender::to(SocketAddr::new("::1".parse().expect("an address"), fixture.address.port())).await;
    assert!(nas.ask(&start(1, "s")).await.is_some());
    assert_eq!(&*fixture.journal().await[0].entry.nas, "bng6");
}

#[tokio::test]
async fn answer_comes_from_the_address_that_was_asked() {
    let fixture = Fixture::start_at("0.0.0.0:0").await;
    for asked in ["127.0.0.1", "127.0.0.2", "127.1.2.3"] {
        let address = SocketAddr::new(asked.parse().expect("an address"), fixture.address.port());
        let nas = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        nas.send_to(&start(1, "s"), address).await.expect("sent");
        let mut room = [0; 4096];
        let (_, from) = timeout(ANSWER_LIMIT, nas.recv_from(&mut room)).await.expect("an answer").expect("received");
        assert_eq!(from, address);
    }
}

#[tokio::test]
async fn nothing_is_answered_while_the_journal_cannot_be_written_and_everything_after() {
    let fixture = Fixture::start_with("127.0.0.1:0", false).await;
    let nas = Sender::to(fixture.address).await;
    let request = start(1, "s");
    for packet in [&request, &status(2, "s"), &request] {
        nas.0.send(packet).await.expect("sent");
        assert!(
            timeout(Duration::from_millis(200), nas.0.recv(&mut [0; 64])).await.is_err(),
            "answered without a commit"
        );
    }
    assert!(fixture.metrics.journal_failures.get() >= 2);
    fixture.store.migrate().await.expect("tables");
    assert!(nas.ask(&status(3, "s")).await.is_some());
    assert!(nas.ask(&request).await.is_some());
    assert_eq!(fixture.journal().await.len(), 1);
}

#[tokio::test]
async fn status_server_leaves_no_record() {
    let fixture = Fixture::start().await;
    let nas = Sender::to(fixture.address).await;
    let request = status(3, "s");
    let answer = nas.ask(&request).await.expect("an answer");
    assert!(response_is_genuine(&answer, 3, &authenticator(&request), &Secret::new("s")));
    assert_eq!(fixture.journal().await.len(), 0);
}

#[tokio::test]
async fn stopping_answers_what_is_queued_and_ends() {
    let fixture = Fixture::start().await;
    let nas = Sender::to(fixture.address).await;
    assert!(nas.ask(&start(0, "s")).await.is_some());
    for identifier in 1..=100 {
        nas.0.send(&start(identifier, "s")).await.expect("sent");
    }
    fixture.stop.send_replace(true);
    let mut answered = 0;
    while let Some(_answer) = timeout(Duration::from_millis(500), nas.answer()).await.ok().flatten() {
        answered += 1;
    }
    assert_eq!(fixture.journal().await.len(), answered + 1);
    let ended = timeout(ANSWER_LIMIT, fixture.collector).await.expect("in time").expect("no panic");
    assert!(ended.is_ok());
}

#[tokio::test]
async fn requests_that_queue_during_a_commit_share_the_next_one() {
    let fixture = Fixture::start().await;
    let nas = Sender::to(fixture.address).await;
    for identifier in 0..200 {
        nas.0.send(&start(identifier, "s")).await.expect("sent");
    }
    for _ in 0..200 {
        assert!(nas.answer().await.is_some());
    }
    let rows = fixture.journal().await;
    assert_eq!(rows.len(), 200);
    let order: Vec<i64> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(order, (1..=200).collect::<Vec<i64>>());
    let text = fixture.metrics.render();
    let commits = text.lines().find_map(|line| line.strip_prefix("lastmile_journal_batch_records_count "));
    let commits: u64 = commits.expect("the histogram").parse().expect("a number");
    assert!(commits < 200, "{commits} commits for 200 records");
}

const ANSWER_LIMIT: Duration = Duration::from_secs(5);
