//! Connections over a pipe and a real SQLite journal: what is answered, what ends a connection, what stands in the journal.
//! TLS itself is the business of the integration tests.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::certificate::Presented;
use super::connection::{Connection, Ended};
use crate::collector::commit::Committer;
use crate::collector::door::Door;
use crate::collector::tally::Tallies;
use crate::collector::{Feed, NasClient, NasTable, QUEUE_MAX, Wiring};
use crate::radius::{IdentityRule, PacketView, Profile, RequestBuilder, StreamVersion, response_is_genuine};
use crate::store::journal::{self, JournalRow};
use crate::store::{Store, StoreConfig};
use crate::telemetry::{Heartbeats, Metrics, NasReason};
use crate::vocabulary::{BitRate, Clock, Secret, parse_instant};

struct Fixture {
    store: Store,
    metrics: Metrics,
    door: Option<Arc<Door>>,
    table: watch::Sender<Arc<NasTable>>,
    stop: watch::Sender<bool>,
    committer: JoinHandle<()>,
    connections: usize,
    _directory: TempDir,
}

impl Fixture {
    async fn start() -> Self {
        let fixture = Self::without_tables().await;
        fixture.store.migrate().await.expect("tables");
        fixture
    }

    async fn without_tables() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = StoreConfig {
            url: format!("sqlite://{}", directory.path().join("lastmile.db").display()),
            key_file: None,
            previous_key_file: None,
            owner: "test".to_owned(),
        };
        let store = Store::open(&config).await.expect("a store");
        let metrics = Metrics::new();
        let (stop, stopping) = watch::channel(false);
        let (table, nas) = watch::channel(Arc::new(NasTable::new(vec![client("bng1")])));
        let wiring = Wiring {
            store: store.clone(),
            clock: Clock::fixed(parse_instant("2026-11-22T03:00:00Z").expect("an instant")),
            metrics: metrics.clone(),
            nas,
            feed: Feed::new().0,
            hearts: Heartbeats::new(),
            stopping: stopping.clone(),
        };
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        let committer = Committer::new(&wiring, Vec::new(), queued);
        let door = Some(Arc::new(Door::new(&wiring, queue, committer.seen(), Arc::new(Tallies::new(metrics.clone())))));
        let committer = tokio::spawn(committer.run(wiring.hearts.register("RADIUS journal"), stopping));
        Self { store, metrics, door, table, stop, committer, connections: 1 << 32, _directory: directory }
    }

    fn connect(&mut self) -> Peer {
        self.connect_as(StreamVersion::Historic, Duration::from_secs(60))
    }

    fn connect_as(&mut self, version: StreamVersion, idle: Duration) -> Peer {
        self.connections += 1;
        let source = "192.0.2.1:4000".parse().expect("an address");
        let connection = Connection { number: self.connections, source, presented: presented(), version, idle };
        let (ours, theirs) = tokio::io::duplex(PIPE_OCTETS);
        let door = Arc::clone(self.door.as_ref().expect("not stopped"));
        Peer { pipe: theirs, served: tokio::spawn(connection.run(ours, door, self.stop.subscribe())) }
    }

    async fn journal(&self) -> Vec<JournalRow> {
        let mut tx = self.store.read_journal().await.expect("a transaction");
        let mut rows = Vec::new();
        for lane in journal::lanes(&mut tx).await.expect("lanes") {
            rows.extend(journal::read_after(&mut tx, lane, 0, 10_000).await.expect("rows"));
        }
        rows
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.metrics.radius_dropped.get_or_create(&NasReason::new("bng1", reason)).get()
    }
}

/// The NAS at the other end.
struct Peer {
    pipe: DuplexStream,
    served: JoinHandle<Ended>,
}

impl Peer {
    async fn send(&mut self, octets: &[u8]) {
        self.pipe.write_all(octets).await.expect("the connection stands");
    }

    /// The next answer, or `None` when the connection was closed.
    async fn answer(&mut self) -> Option<Vec<u8>> {
        let mut octets = vec![0; 4];
        timeout(LIMIT, self.pipe.read_exact(&mut octets)).await.expect("in time").ok()?;
        octets.resize(usize::from(u16::from_be_bytes([octets[2], octets[3]])), 0);
        self.pipe.read_exact(&mut octets[4..]).await.expect("a whole packet");
        Some(octets)
    }

    async fn ended(self) -> Ended {
        timeout(LIMIT, self.served).await.expect("in time").expect("no panic")
    }
}

fn presented() -> Presented {
    Presented::read(b"the certificate of bng1")
}

fn client(name: &str) -> NasClient {
    NasClient {
        name: name.into(),
        network: None,
        secret: None,
        previous_secret: None,
        certificates: vec![presented().names[0].clone()],
        message_authenticator: false,
        profile: Arc::clone(Profile::standard()),
        identity: IdentityRule::Client,
        max_rate: BitRate::from_bits_per_second(10_000_000_000),
        interim_seconds: 600,
        tenants: None,
    }
}

fn radsec() -> Secret {
    Secret::new("radsec")
}

fn start(identifier: u8) -> Vec<u8> {
    let session = format!("session-{identifier}");
    RequestBuilder::accounting(identifier).integer(40, 1).text(44, &session).sign(&radsec()).expect("small")
}

fn status(identifier: u8) -> Vec<u8> {
    RequestBuilder::status_server(identifier, [identifier; 16]).sign(&radsec()).expect("small")
}

/// The same request as RADIUS/1.1.
fn with_token(token: u32, request: &[u8]) -> Vec<u8> {
    let mut octets = request.to_vec();
    octets[1] = 0;
    octets[4..20].fill(0);
    octets[4..8].copy_from_slice(&token.to_be_bytes());
    octets
}

#[tokio::test]
async fn record_is_answered_with_the_secret_of_the_rfc_and_stands_in_the_journal() {
    let mut fixture = Fixture::start().await;
    let mut nas = fixture.connect();
    let request = start(7);
    nas.send(&request).await;
    let answer = nas.answer().await.expect("an answer");
    let authenticator = PacketView::parse(&request).expect("well formed").authenticator();
    assert!(response_is_genuine(&answer, 7, &authenticator, &radsec()));
    let rows = fixture.journal().await;
    assert_eq!(rows.len(), 1);
    assert_eq!((&*rows[0].entry.nas, rows[0].entry.source.to_string().as_str()), ("bng1", "192.0.2.1:4000"));
    assert_eq!(rows[0].entry.packet, request);
    drop(nas.pipe);
    assert!(matches!(timeout(LIMIT, nas.served).await.expect("in time").expect("no panic"), Ended::Peer));
}

#[tokio::test]
async fn identifiers_belong_to_their_connection() {
    let mut fixture = Fixture::start().await;
    let (mut first, mut second) = (fixture.connect(), fixture.connect());
    for nas in [&mut first, &mut second] {
        nas.send(&start(7)).await;
        assert_eq!(nas.answer().await.expect("an answer")[1], 7);
    }
    assert_eq!(fixture.journal().await.len(), 2, "the same identifier on another connection is another request");
    second.send(&start(7)).await;
    assert_eq!(second.answer().await.expect("an answer")[1], 7);
    assert_eq!(fixture.journal().await.len(), 2, "a copy on the same connection is not");
}

#[tokio::test]
async fn what_is_malformed_or_forged_ends_the_connection_after_the_answers_before_it() {
    let mut fixture = Fixture::start().await;
    let mut forged = start(2);
    *forged.last_mut().expect("octets") ^= 1;
    let mut overfull = start(3);
    // The last attribute leaves the packet.
    let length = overfull.len();
    overfull[length - 10] = 200;
    let unsigned = [&[12, 3, 0, 20][..], &[1; 16]].concat();
    for (octets, reason) in [
        (forged, "bad_authenticator"),
        (overfull, "malformed"),
        (vec![4, 4, 0, 19], "malformed"),
        (vec![4, 4, 16, 1], "malformed"),
        (unsigned, "bad_message_authenticator"),
    ] {
        let before = fixture.dropped(reason);
        let mut nas = fixture.connect();
        nas.send(&[&start(1)[..], &octets, &start(9)].concat()).await;
        assert_eq!(nas.answer().await.expect("what came before is answered")[1], 1);
        assert_eq!(nas.answer().await, None, "{reason}");
        assert!(matches!(nas.ended().await, Ended::Malformed(_) | Ended::Refused(_)), "{reason}");
        assert_eq!(fixture.dropped(reason), before + 1);
    }
    let sessions: Vec<u8> = fixture.journal().await.iter().map(|row| row.entry.packet[1]).collect();
    assert_eq!(sessions, [1; 5], "nothing behind it is taken");
}

#[tokio::test]
async fn what_an_accounting_server_does_not_do_is_declined_or_passed_over() {
    let mut fixture = Fixture::start().await;
    let mut nas = fixture.connect();
    let access = [&[1, 5, 0, 20][..], &[1; 16]].concat();
    let mut coa = RequestBuilder::accounting(6).sign(&radsec()).expect("small");
    coa[0] = 43;
    let sum = {
        use md5::Digest;
        let mut digest = md5::Md5::new();
        digest.update([&coa[..4], &[0; 16], &coa[20..], b"radsec"].concat());
        digest.finalize()
    };
    coa[4..20].copy_from_slice(&sum);
    nas.send(&[&access[..], &coa, &start(7)].concat()).await;
    let declined = nas.answer().await.expect("an answer");
    assert_eq!(declined[..2], [45, 6], "CoA-NAK, and nothing for the Access-Request");
    assert_eq!(PacketView::parse(&declined).expect("well formed").first(101), Some(&406u32.to_be_bytes()[..]));
    assert_eq!(nas.answer().await.expect("the connection stays")[..2], [5, 7]);
    assert_eq!(fixture.dropped("wrong_code"), 2);
}

#[tokio::test]
async fn radius_1_1_answers_by_token_and_signs_nothing() {
    let mut fixture = Fixture::start().await;
    let mut nas = fixture.connect_as(StreamVersion::V1_1, Duration::from_secs(60));
    nas.send(&[with_token(0xdead_beef, &start(1)), with_token(1, &status(1))].concat()).await;
    let answers = [nas.answer().await.expect("an answer"), nas.answer().await.expect("an answer")];
    for (token, answer) in [(0xdead_beefu32, &answers[0]), (1, &answers[1])] {
        assert_eq!(answer[..4], [5, 0, 0, 20]);
        assert_eq!(answer[4..8], token.to_be_bytes());
        assert_eq!(answer[8..], [0; 12]);
    }
    // RFC 9765 section 4.2.2: over TLS nothing is a copy.
    nas.send(&with_token(0xdead_beef, &start(2))).await;
    assert!(nas.answer().await.is_some());
    assert_eq!(fixture.journal().await.len(), 2);
}

#[tokio::test]
async fn without_a_commit_nothing_is_answered_and_the_connection_ends() {
    let mut fixture = Fixture::without_tables().await;
    for request in [start(1), status(2)] {
        let mut nas = fixture.connect();
        nas.send(&request).await;
        assert_eq!(nas.answer().await, None);
        assert!(matches!(nas.ended().await, Ended::Unanswered));
    }
    assert_eq!(fixture.dropped("not_recorded"), 1);
    fixture.store.migrate().await.expect("tables");
    let mut nas = fixture.connect();
    nas.send(&status(3)).await;
    assert_eq!(nas.answer().await.expect("the watchdog is answered")[1], 3);
    assert_eq!(fixture.journal().await.len(), 0);
}

#[tokio::test]
async fn nas_that_does_not_read_its_answers_holds_up_nobody_else() {
    let mut fixture = Fixture::start().await;
    let (mut deaf, mut other) = (fixture.connect(), fixture.connect());
    // More answers than the pipe and the writer's queue hold: in the end its requests are not read any more.
    let mut sent = 0;
    loop {
        let request = RequestBuilder::accounting(1).integer(40, 3).integer(46, sent).text(44, "deaf");
        let request = request.octets(33, &[7; 200]).sign(&radsec()).expect("small");
        if timeout(Duration::from_secs(1), deaf.pipe.write_all(&request)).await.is_err() {
            break;
        }
        sent += 1;
        assert!(sent < 5_000, "its requests are read without end");
    }
    assert!(sent > 100, "{sent}");
    for identifier in 0..20 {
        other.send(&start(identifier)).await;
        assert_eq!(other.answer().await.expect("an answer")[1], identifier);
    }
}

#[tokio::test]
async fn quiet_connection_and_half_a_packet_end_in_time() {
    let mut fixture = Fixture::start().await;
    let quiet = fixture.connect_as(StreamVersion::Historic, Duration::from_millis(50));
    assert!(matches!(quiet.ended().await, Ended::Idle(_)));
    let mut half = fixture.connect_as(StreamVersion::Historic, Duration::from_millis(50));
    half.send(&start(1)[..10]).await;
    assert!(matches!(half.ended().await, Ended::Stalled));
}

#[tokio::test]
async fn reload_ends_connections_of_removed_nas_only() {
    let mut fixture = Fixture::start().await;
    let mut nas = fixture.connect();
    nas.send(&start(1)).await;
    assert!(nas.answer().await.is_some());
    fixture.table.send_replace(Arc::new(NasTable::new(vec![client("renamed")])));
    nas.send(&start(2)).await;
    assert!(nas.answer().await.is_some());
    let rows = fixture.journal().await;
    let names: Vec<&str> = rows.iter().map(|row| &*row.entry.nas).collect();
    assert_eq!(names, ["bng1", "renamed"]);
    fixture.table.send_replace(Arc::default());
    nas.send(&start(3)).await;
    assert_eq!(nas.answer().await, None);
    assert!(matches!(nas.ended().await, Ended::Removed));
}

#[tokio::test]
async fn stopping_answers_what_was_taken_and_ends() {
    let mut fixture = Fixture::start().await;
    let mut nas = fixture.connect();
    let requests: Vec<u8> = (0..100).flat_map(start).collect();
    nas.send(&requests).await;
    assert!(nas.answer().await.is_some());
    fixture.door = None;
    fixture.stop.send_replace(true);
    let mut answered = 1;
    while nas.answer().await.is_some() {
        answered += 1;
    }
    assert!(matches!(nas.ended().await, Ended::Stopping));
    assert_eq!(fixture.journal().await.len(), answered);
    timeout(LIMIT, &mut fixture.committer).await.expect("the committer ends").expect("no panic");
}

const LIMIT: Duration = Duration::from_secs(10);
const PIPE_OCTETS: usize = 64 * 1024;
