//! The TFTP server and the plant behind it, with Debian's `tftp` and curl as modems.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use lastmile::daemon::datagrams;
use lastmile::docsis::decode;
use lastmile::provision::{CmAccess, CmContent, Content, DeviceKind, ElementDesired, ElementKind, ElementState};
use lastmile::provisioner::follow;
use lastmile::provisioner::modem::ModemSettings;
use lastmile::provisioner::mta::OpenedSecrets;
use lastmile::provisioner::plant::Plant;
use lastmile::provisioner::snapshot;
use lastmile::provisioner::tftp::TftpServer;
use lastmile::store::devices::{self, Fetched};
use lastmile::store::elements::{self, ElementRow};
use lastmile::store::plant::{self, Device, DeviceFilter, config_file_name};
use lastmile::store::{Store, StoreConfig};
use lastmile::telemetry::{Heartbeats, Metrics};
use lastmile::vocabulary::{Clock, MacAddress, Secret, Timestamp};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::harness::daemon::{CMTS_SECRET, Site};
use crate::harness::{postgres, temp_dir, wait_for};

const MAC: &str = "00:11:22:33:44:55";
const SECRET: &str = "example-secret-1";

struct Bench {
    store: Store,
    plant: Plant,
    metrics: Metrics,
    address: SocketAddr,
    folder: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

impl Bench {
    async fn start() -> Self {
        Self::serving(UdpSocket::bind("127.0.0.1:0").await.expect("a port")).await
    }

    async fn serving(socket: UdpSocket) -> Self {
        let folder = temp_dir();
        let path = folder.path().join("lastmile.db");
        let config = StoreConfig {
            url: format!("sqlite://{}", path.display()),
            key_file: None,
            previous_key_file: None,
            owner: "tftp test".to_owned(),
        };
        let store = Store::open(&config).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        seed_account(&path).await;
        let plant = Plant::open(store.sealer().clone(), settings(), Some(snapshot::beside(&path)));
        let (metrics, hearts) = (Metrics::new(), Heartbeats::new());
        let address = socket.local_addr().expect("an address");
        let server = TftpServer {
            plant: plant.clone(),
            store: store.clone(),
            leases: None,
            kea: None,
            metrics: metrics.clone(),
            clock: Clock::fixed(at("2026-11-21T10:00:00Z")),
        };
        tokio::spawn(server.serve(socket, hearts.register("tftp")));
        tokio::spawn(follow::changes(plant.clone(), store.clone(), hearts.register("plant")));
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(follow::fetches(plant.clone(), store.clone(), hearts.register("fetches"), stopping));
        Self { store, plant, metrics, address, folder, _stop: stop }
    }

    /// Stores the desired content of the modem, as a push does, without telling the plant.
    async fn push(&self, access: CmAccess) {
        push(&self.store, access).await;
    }

    async fn element(&self) -> ElementRow {
        let mut tx = self.store.read().await.expect("a transaction");
        elements::by_key(&mut tx, ElementKind::Cm, MAC).await.expect("a row").expect("the modem")
    }

    async fn device(&self) -> Device {
        let mut tx = self.store.read().await.expect("a transaction");
        let filter = DeviceFilter { tenant: Some("acme".to_owned()), limit: 10, ..DeviceFilter::default() };
        let mut listed = plant::devices(&mut tx, self.store.sealer(), &filter).await.expect("devices");
        assert_eq!(listed.len(), 1);
        listed.remove(0)
    }

    fn name(&self, revision: i64) -> String {
        let mac: MacAddress = MAC.parse().expect("a MAC");
        config_file_name(self.store.sealer(), DeviceKind::Cm, mac, revision)
    }

    async fn curl(&self, name: &str, more: &[&str]) -> Output {
        let url = format!("tftp://{}/{name}", self.address);
        let mut command = Command::new("curl");
        command.args(["--silent", "--max-time", "10"]).args(more).arg(url);
        output(command).await
    }

    async fn until_fetched(&self, revision: i64) -> ElementRow {
        for _ in 0..100 {
            let element = self.element().await;
            if element.fetched_revision == Some(revision) {
                return element;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the fetch of revision {revision} was not recorded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetched_file_is_the_evidence_that_its_revision_is_applied() {
    let bench = Bench::start().await;
    bench.push(CmAccess::Active).await;
    let name = bench.device().await.config_file;
    assert_eq!(name, bench.name(1));

    // The plant has not heard of it yet: the name itself leads to the store.
    let answer = bench.curl(&name, &[]).await;
    assert!(answer.status.success(), "{answer:?}");
    let text = decode(&answer.stdout, Some(SECRET.as_bytes())).expect("a configuration file").toml;
    assert!(
        text.contains("{ CmtsMic = \"automatic\" }") && text.contains("{ MaxRateSustained = 100000000 }"),
        "{text}"
    );

    let element = bench.until_fetched(1).await;
    assert_eq!((element.state, element.applied_revision), (ElementState::Applied, Some(1)));
    let evidence = format!("fetched {name} from 127.0.0.1 at 2026-11-21T10:00:00Z");
    assert_eq!(element.evidence.as_deref(), Some(evidence.as_str()));
    let device = bench.device().await;
    assert_eq!((device.state.as_str(), device.fetched_revision), ("applied", Some(1)));
    assert_eq!(device.last_seen, Some(at("2026-11-21T10:00:00Z")));
    assert!(bench.metrics.render().contains("lastmile_tftp_transfers_total{result=\"done\"} 1\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_revision_is_served_beside_the_new_one_and_proves_nothing() {
    let bench = Bench::start().await;
    bench.push(CmAccess::Active).await;
    bench.push(CmAccess::Blocked).await;
    let (old, new) = (bench.curl(&bench.name(1), &[]).await, bench.curl(&bench.name(2), &[]).await);
    assert!(old.status.success() && new.status.success() && old.stdout != new.stdout);
    bench.push(CmAccess::Garden).await;
    assert!(bench.curl(&bench.name(2), &[]).await.status.success());
    let element = bench.until_fetched(2).await;
    assert_eq!((element.state, element.desired_revision), (ElementState::Pending, 3));
    // curl reports "file not found" as 68.
    bench.plant.learn(&bench.element().await, OpenedSecrets::new());
    assert_eq!(bench.curl(&bench.name(1), &[]).await.status.code(), Some(68));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_debian_client_fetches_with_and_without_options() {
    let bench = Bench::start().await;
    let target = bench.folder.path().join("fetched");
    let unknown = bench.curl("unprovisioned.cm", &["--tftp-blksize", "1448"]).await;
    let plain = bench.curl("unprovisioned.cm", &["--tftp-no-options"]).await;
    assert!(!plain.stdout.is_empty() && plain.stdout == unknown.stdout);
    debian(&bench, "unprovisioned.cm", &target).await;
    assert_eq!(std::fs::read(&target).expect("fetched"), plain.stdout);
    let text = decode(&plain.stdout, Some(SECRET.as_bytes())).expect("a configuration file").toml;
    assert!(text.contains("{ NetworkAccess = 0 }") && text.contains("{ CmtsMic = \"automatic\" }"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobodys_name_a_write_and_another_mode_are_refused() {
    let bench = Bench::start().await;
    for name in ["1-001122334455-0123456789.cm", "x", "%2e%2e/etc/passwd"] {
        assert!(!bench.curl(name, &[]).await.status.success(), "{name}");
    }
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    for (request, code) in [
        (&b"\0\x02unprovisioned.cm\0octet\0"[..], 2),
        (b"\0\x01unprovisioned.cm\0netascii\0", 4),
        (b"\0\x01a\\b\0octet\0", 2),
        (b"\0\x01nothing.cm\0octet\0", 1),
    ] {
        client.send_to(request, bench.address).await.expect("sent");
        let mut buffer = [0u8; 600];
        let (octets, _) = tokio::time::timeout(Duration::from_secs(5), client.recv_from(&mut buffer))
            .await
            .expect("an answer")
            .expect("octets");
        assert_eq!(buffer[..4], [0, 5, 0, code], "{:?}", &buffer[..octets]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_in_a_transfer_gets_error_5_and_the_transfer_goes_on() {
    let bench = Bench::start().await;
    let (client, stranger) =
        (UdpSocket::bind("127.0.0.1:0").await.expect("a port"), UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
    client.send_to(b"\0\x01unprovisioned.cm\0octet\0", bench.address).await.expect("sent");
    let mut buffer = [0u8; 600];
    let (_, transfer) = client.recv_from(&mut buffer).await.expect("the first block");
    assert_eq!(buffer[..4], [0, 3, 0, 1]);
    assert_ne!(transfer.port(), bench.address.port());
    stranger.send_to(&[0, 4, 0, 1], transfer).await.expect("sent");
    stranger.recv_from(&mut buffer).await.expect("an answer");
    assert_eq!(buffer[..4], [0, 5, 0, 5]);
    // The block comes again after a second: the stranger's ACK was none.
    let (_, again) = client.recv_from(&mut buffer).await.expect("the block again");
    assert_eq!((again, &buffer[..4]), (transfer, &[0u8, 3, 0, 1][..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_database_serves_what_was_known() {
    let bench = Bench::start().await;
    bench.push(CmAccess::Active).await;
    let name = bench.name(1);
    let first = bench.curl(&name, &[]).await;
    bench.until_fetched(1).await;
    let path = snapshot::beside(&bench.folder.path().join("lastmile.db"));
    for _ in 0..300 {
        if Plant::open(bench.store.sealer().clone(), settings(), Some(path.clone())).device_count() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let plant = Plant::open(bench.store.sealer().clone(), settings(), Some(path));
    bench.store.close().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let hearts = Heartbeats::new();
    let server = TftpServer {
        plant: plant.clone(),
        store: bench.store.clone(),
        leases: None,
        kea: None,
        metrics: Metrics::new(),
        clock: Clock::fixed(at("2026-11-21T11:00:00Z")),
    };
    tokio::spawn(server.serve(socket, hearts.register("tftp")));
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "10", &format!("tftp://{address}/{name}")]);
    let second = output(command).await;
    assert!(second.status.success() && second.stdout == first.stdout);

    // A genuine name of a later revision: nobody can tell yet, and an error would end the modem's boot.
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let request = format!("\0\u{1}{}\0octet\0", bench.name(2));
    client.send_to(request.as_bytes(), address).await.expect("sent");
    let mut buffer = [0u8; 600];
    let answer = tokio::time::timeout(Duration::from_secs(2), client.recv_from(&mut buffer)).await;
    assert!(answer.is_err(), "{:?}", &buffer[..4]);
}

async fn push(store: &Store, access: CmAccess) {
    let content = CmContent {
        mac: MAC.parse().expect("a MAC"),
        model: Some("arris-tm3402".to_owned()),
        access,
        downstream: Some("100M".parse().expect("a rate")),
        upstream: Some("20M".parse().expect("a rate")),
        max_cpe: 2,
        docsis: "3.0".to_owned(),
        voice: false,
        mta_mac: None,
        static_ips: Vec::new(),
        plan: Some("res-100".to_owned()),
        ..CmContent::blocked("00:11:22:33:44:55".parse().expect("a MAC"))
    };
    let desired = ElementDesired {
        kind: ElementKind::Cm,
        key: MAC.to_owned(),
        services: vec!["100234-1".to_owned()],
        content: Content::Cm(content),
    };
    let mut tx = store.write().await.expect("a transaction");
    let now = at("2026-11-21T09:59:00Z");
    elements::settle(&mut tx, "acme", 1, &[desired], 0, now).await.expect("settled");
    tx.commit().await.expect("committed");
}

async fn debian(bench: &Bench, name: &str, target: &Path) {
    let mut command = Command::new("tftp");
    command.args(["-m", "binary", "127.0.0.1", &bench.address.port().to_string(), "-c", "get", name]).arg(target);
    let answer = output(command).await;
    assert!(answer.status.success(), "{answer:?}");
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("the client is installed")).await.expect("it ran")
}

fn settings() -> ModemSettings {
    ModemSettings { shared_secret: Secret::new(SECRET), community: None }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant of the test")
}

/// One account to hang modems on. Pushing accounts is another journey.
async fn seed_account(path: &Path) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("the database");
    for statement in SEED {
        sqlx::query(statement).execute(&pool).await.expect("a row");
    }
    pool.close().await;
}

const SEED: [&str; 2] = [
    "INSERT INTO tenant (id, name, catalog_version, created_at) VALUES ('acme', 'Acme', 1, 0)",
    "INSERT INTO account (id, tenant, source, external_id, revision, status, bill_cycle, document, etag, created_at, updated_at)
     VALUES (1, 'acme', 'default', '100234', 1, 'active', 'c15', '{}', '', 0, 0)",
];

#[test]
fn the_daemon_serves_modems_and_lists_them() {
    let site = Site::sqlite();
    site.succeed(&["migrate"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(seed_account(&site.path("lastmile.db")));
    let daemon = site.spawn();
    let url = format!("tftp://127.0.0.1:{}/unprovisioned.cm", site.tftp_port);
    let file = wait_for("the daemon serves TFTP", Duration::from_secs(20), || {
        let fetched = Command::new("curl").args(["--silent", "--max-time", "3", &url]).output().expect("curl runs");
        fetched.status.success().then_some(fetched.stdout)
    });
    let text = decode(&file, Some(CMTS_SECRET.as_bytes())).expect("a configuration file").toml;
    assert!(text.contains("{ CmtsMic = \"automatic\" }"), "{text}");
    assert_eq!(site.json(&["device", "list"]), serde_json::json!([]));
    assert_eq!(site.lastmile(&["device", "show", MAC]).status.code(), Some(3));
    assert!(daemon.stop() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_comes_from_the_address_that_was_asked() {
    for (listen, asked) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "::1")] {
        let socket = datagrams(listen.parse().expect("an address"), 1 << 16).expect("a port");
        let client = UdpSocket::bind(SocketAddr::new(asked.parse().expect("an address"), 0)).await.expect("a port");
        let port = socket.local_addr().expect("an address").port();
        let server = SocketAddr::new(asked.parse().expect("an address"), port);
        // A modem that asks while the daemon starts.
        client.send_to(b"\0\x01unprovisioned.cm\0octet\0", server).await.expect("sent");
        let _bench = Bench::serving(socket).await;
        let mut buffer = [0u8; 600];
        let answer = tokio::time::timeout(Duration::from_secs(5), client.recv_from(&mut buffer)).await;
        let (_, from) = answer.expect("in time").expect("an answer");
        assert_eq!(from.ip(), server.ip(), "{listen}");
        assert_eq!(buffer[..4], [0, 3, 0, 1]);
    }
}

#[test]
fn devices_and_their_fetches_are_stored_alike_on_postgresql() {
    let url = postgres::database();
    let dir = temp_dir();
    let key = dir.path().join("key");
    std::fs::write(&key, "0123456789abcdef".repeat(4)).expect("a key file");
    let config =
        StoreConfig { url: url.clone(), key_file: Some(key), previous_key_file: None, owner: "tftp test".to_owned() };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(&config).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let pool = sqlx::PgPool::connect(&url).await.expect("the database");
        for statement in SEED {
            sqlx::query(statement).execute(&pool).await.expect("a row");
        }
        pool.close().await;
        push(&store, CmAccess::Active).await;
        let mut tx = store.write().await.expect("a transaction");
        let id = elements::by_key(&mut tx, ElementKind::Cm, MAC).await.expect("a row").expect("the modem").id;
        let now = at("2026-11-21T10:00:00Z");
        let fetched = Fetched { revision: 1, digest: "a", at: now, seen: true, evidence: Some("fetched") };
        assert!(elements::record_fetched(&mut tx, id, &fetched, "10.7.3.9").await.expect("recorded"));
        tx.commit().await.expect("committed");
        let mut tx = store.read().await.expect("a transaction");
        let filter = DeviceFilter {
            tenant: Some("acme".to_owned()),
            source: Some("default".to_owned()),
            account: Some("100234".to_owned()),
            mac: Some(MAC.parse().expect("a MAC")),
            after: 0,
            limit: 10,
        };
        let listed = plant::devices(&mut tx, store.sealer(), &filter).await.expect("devices");
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].state.as_str(), listed[0].fetched_revision), ("applied", Some(1)));
        assert_eq!((listed[0].model.as_deref(), listed[0].last_seen), (Some("arris-tm3402"), Some(now)));
        drop(tx);
        wishes_end_with_a_boot(&store).await;
        store.close().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_of_its_own_ends_the_wish_for_a_reset() {
    let bench = Bench::start().await;
    bench.push(CmAccess::Active).await;
    wishes_end_with_a_boot(&bench.store).await;
}

async fn wishes_end_with_a_boot(store: &Store) {
    let mut tx = store.write().await.expect("a transaction");
    let id = elements::by_key(&mut tx, ElementKind::Cm, MAC).await.expect("a row").expect("the modem").id;
    let wished = at("2026-11-21T12:00:00Z");
    devices::want_reset(&mut tx, id, "noc", true, 1, wished).await.expect("noted");
    for (fetched_at, wish_stands) in [("2026-11-21T11:59:59Z", true), ("2026-11-21T12:00:01Z", false)] {
        let fetched = Fetched { revision: 1, digest: "a", at: at(fetched_at), seen: true, evidence: Some("fetched") };
        devices::record_fetch(&mut tx, id, &fetched).await.expect("recorded");
        let row = devices::one(&mut tx, id).await.expect("a row");
        assert_eq!((row.reset_forced, row.reset_wanted_by.is_some()), (wish_stands, wish_stands), "{fetched_at}");
    }
    tx.commit().await.expect("committed");
}
