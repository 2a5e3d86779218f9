//! Disk full, database gone, packets and names that must not be answered: a clear error, nothing lost, no restart.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lastmile::radius::RequestBuilder;
use lastmile::vocabulary::Secret;

use crate::harness::acme::{CATALOG, Report, household, internet, radclient_raw, radclient_tries};
use crate::harness::daemon::{Daemon, NAS_SECRET, Site};
use crate::harness::postgres::Cluster;
use crate::harness::{http, temp_dir, wait_for};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn full_disk_is_told_and_passes_without_restart() {
    let dir = temp_dir();
    let mount = dir.path().join("small");
    std::fs::create_dir(&mount).expect("a folder");
    let target = mount.display().to_string();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs", &target]).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("NOT RUN: full_disk_is_told_and_passes_without_restart: this machine mounts no tmpfs");
        return;
    }
    let _unmount = Unmount(target);
    let site = Site::new(dir, &format!("sqlite://{}", mount.join("lastmile.db").display()));
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let daemon = site.start();
    assert_eq!(push(&daemon, &key, 1), 201);
    wait_for("accounting is answered", SOON, || start_session(&site, "before").then_some(()));

    let filler = mount.join("filler");
    let _ = Command::new("dd")
        .args(["if=/dev/zero", &format!("of={}", filler.display()), "bs=4k"])
        .stderr(std::process::Stdio::null())
        .status();
    let refused = wait_for("a push is refused", SOON, || {
        let number = 1000 + u32::try_from(Timestamp::now().as_millisecond() % 1_000_000).expect("small");
        let answer = daemon.api(&key, "PUT", &format!("acme/accounts/f{number}"), Some(&internet(number)));
        (answer.status != 201).then_some(answer)
    });
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.header("content-type").is_some_and(|kind| kind.starts_with("application/problem+json")));
    // What still fits into pages of the journal may be answered; in the end it is silent.
    wait_for("accounting is silent", Duration::from_secs(60), || {
        (!start_session(&site, &unique("full"))).then_some(())
    });

    // SQLite may win room back by starting its log over; then the daemon is ready, and says so.
    wait_for("readiness tells whether a push succeeds", SOON, || {
        (readiness(&site) == 503 || push(&daemon, &key, 3) < 300).then_some(())
    });

    std::fs::remove_file(&filler).expect("space again");
    wait_for("the daemon is ready again", SOON, || (readiness(&site) == 200).then_some(()));
    wait_for("pushes are taken again", SOON, || (push(&daemon, &key, 2) < 300).then_some(()));
    wait_for("accounting is answered again", SOON, || start_session(&site, &unique("after")).then_some(()));
    let listed = site.succeed(&["export", "sessions", "--format", "csv"]);
    wait_for("what was answered is folded", SOON, || {
        let csv = site.succeed(&["export", "sessions", "--format", "csv"]);
        csv.contains("before").then_some(())
    });
    drop(listed);
    assert!(daemon.stop() < Duration::from_secs(5), "the same process served all the time");
}

#[test]
fn absent_postgres_is_told_and_passes_without_restart() {
    let mut cluster = Cluster::start(&[]);
    let site = Site::new(temp_dir(), &cluster.database());
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let billing_from = jiff::civil::date(2026, 11, 1);
    assert_eq!(daemon.api(&key, "PUT", "acme/accounts/a1", Some(&household(billing_from))).status, 201);
    wait_for("accounting is answered", SOON, || start_session(&site, "before").then_some(()));
    let name = modem_file(&daemon, &key);

    cluster.crash();
    let began = Instant::now();
    let answer = daemon.api(&key, "PUT", "acme/accounts/a2", Some(&internet(2)));
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/problem+json")));
    assert!(began.elapsed() < Duration::from_secs(10), "told in time: {:?}", began.elapsed());
    assert!(!start_session(&site, "down"), "accounting is silent");
    let ready = http::request(site.http_port, "GET", "/readyz", &[], None).expect("an answer");
    assert_eq!(ready.status, 503);
    let alive = http::request(site.http_port, "GET", "/healthz", &[], None).expect("an answer");
    assert_eq!(alive.status, 200, "an outage of the database is no reason for a restart");
    assert!(tftp_get(&site, &name).is_some_and(|file| file.len() > 60), "modems boot without the database");

    cluster.launch(&[]);
    let back = Instant::now();
    wait_for("accounting is answered again", SOON, || start_session(&site, &unique("after")).then_some(()));
    assert!(back.elapsed() < Duration::from_secs(8), "soon after its return: {:?}", back.elapsed());
    wait_for("pushes are taken again", SOON, || (push(&daemon, &key, 2) < 300).then_some(()));
    assert!(daemon.stop() < Duration::from_secs(5), "the same process served all the time");
}

#[test]
fn daemon_starts_while_postgres_is_away_and_serves_modems() {
    let mut cluster = Cluster::start(&[]);
    let site = Site::new(temp_dir(), &cluster.database());
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let pushed = daemon.api(&key, "PUT", "acme/accounts/a1", Some(&household(jiff::civil::date(2026, 11, 1))));
    assert_eq!(pushed.status, 201);
    let name = modem_file(&daemon, &key);
    wait_for("the file is served", SOON, || tftp_get(&site, &name));
    daemon.stop();
    cluster.crash();
    let daemon = site.spawn();
    let file = wait_for("the file is served from the snapshot", SOON, || tftp_get(&site, &name));
    assert!(file.len() > 60);
    cluster.launch(&[]);
    wait_for("the daemon becomes ready", SOON, || {
        http::request(site.http_port, "GET", "/readyz", &[], None).ok().filter(|answer| answer.status == 200)
    });
    assert_eq!(daemon.api(&key, "GET", "acme/accounts/a1", None).status, 200);
}

#[test]
fn forged_and_malformed_packets_meet_silence_and_are_counted() {
    let site = Site::sqlite();
    site.edit("127.0.0.0/8", "127.0.0.1/32");
    site.prepare(CATALOG);
    let _daemon = site.start();
    let good = RequestBuilder::accounting(1)
        .text(1, "x")
        .text(32, "bng1")
        .integer(40, 1)
        .text(44, "s")
        .sign(&Secret::new(NAS_SECRET))
        .expect("fits");
    let wrongly_signed =
        RequestBuilder::accounting(2).integer(40, 1).text(44, "s").sign(&Secret::new("wrong")).expect("fits");
    let mut unsigned = good.clone();
    unsigned[4..20].fill(0);
    let mut short_attribute = good.clone();
    short_attribute[21] = 1;
    let mut long = good.clone();
    long[2..4].copy_from_slice(&4000u16.to_be_bytes());
    let bad: [(&str, Vec<u8>); 7] = [
        ("wrongly signed", wrongly_signed),
        ("unsigned", unsigned),
        ("an attribute of length 1", short_attribute),
        ("shorter than it says", long),
        ("19 octets", good[..19].to_vec()),
        ("nothing", vec![0]),
        ("an Access-Request", [&[1], &good[1..]].concat()),
    ];
    for (what, packet) in bad {
        assert!(!answered(&site, "127.0.0.1", &packet), "{what}");
    }
    assert!(!answered(&site, "127.0.0.9", &good), "an unknown NAS");
    assert!(answered(&site, "127.0.0.1", &good), "the good one is answered");
    let metrics = http::request(site.http_port, "GET", "/metrics", &[], None).expect("an answer").body;
    for reason in ["bad_authenticator", "malformed", "unknown_nas"] {
        let counted =
            metrics.lines().any(|line| line.contains(&format!("reason=\"{reason}\"")) && !line.ends_with(" 0"));
        assert!(counted, "{reason} is not counted:\n{metrics}");
    }
}

#[test]
fn status_server_is_answered_and_stored_nowhere() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let _daemon = site.start();
    let printed = radclient_raw(site.radius_port, "status", NAS_SECRET, "Message-Authenticator = 0x00\n");
    assert!(printed.contains("Received Accounting-Response"), "{printed}");
    assert_eq!(site.succeed(&["export", "sessions", "--format", "csv"]).lines().count(), 1);
}

#[test]
fn tftp_names_and_modes_that_must_not_be_served() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let _daemon = site.start();
    let request =
        |opcode: u8, name: &str, mode: &str| [&[0, opcode], name.as_bytes(), &[0], mode.as_bytes(), &[0]].concat();
    let long = "x".repeat(300);
    let refused: [(&str, Vec<u8>, Option<u8>); 8] = [
        ("a write", request(2, "unprovisioned.cm", "octet"), Some(2)),
        ("a parent folder", request(1, "../../etc/passwd", "octet"), None),
        ("a parent folder behind a slash", request(1, "/../etc/passwd", "octet"), None),
        ("a backslash", request(1, "..\\boot.ini", "octet"), None),
        ("an unknown name", request(1, "1-001122334455-0123456789.cm", "octet"), Some(1)),
        ("netascii", request(1, "unprovisioned.cm", "netascii"), None),
        ("mail", request(1, "unprovisioned.cm", "mail"), None),
        ("a long name", request(1, &long, "octet"), None),
    ];
    for (what, packet, code) in refused {
        let answer = exchange(site.tftp_port, "127.0.0.1", &packet).unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(answer[1], 5, "{what}: an ERROR packet");
        if let Some(code) = code {
            assert_eq!(answer[3], code, "{what}");
        }
    }
    let unprovisioned = tftp_get(&site, "unprovisioned.cm").expect("served to everyone");
    assert!(unprovisioned.windows(3).any(|tlv| tlv == [3, 1, 0]), "network access is off");
}

fn readiness(site: &Site) -> u16 {
    http::request(site.http_port, "GET", "/readyz", &[], None).expect("an answer").status
}

struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        // Lazily: the daemon may still hold files when a test failed.
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}

fn push(daemon: &Daemon, key: &str, number: u32) -> u16 {
    daemon.api(key, "PUT", &format!("acme/accounts/p{number}"), Some(&internet(number))).status
}

fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", Timestamp::now().as_microsecond())
}

fn start_session(site: &Site, session: &str) -> bool {
    let now = Timestamp::now();
    let report =
        Report { user: "user1@acme", session, kind: "Start", at: now, seconds: 0, in_octets: 0, out_octets: 0 };
    let printed = radclient_tries(2, site.radius_port, "acct", NAS_SECRET, &report.attributes());
    printed.contains("Received Accounting-Response")
}

fn modem_file(daemon: &Daemon, key: &str) -> String {
    wait_for("the modem has a file", SOON, || {
        let devices = daemon.api(key, "GET", "acme/devices", None).json();
        let modem = devices["items"].as_array()?.iter().find(|device| device["kind"] == "cm")?.clone();
        // Until it is offered, only the database knows the file.
        (modem["offered_revision"] == modem["desired_revision"]).then_some(())?;
        modem["config_file"].as_str().map(str::to_owned)
    })
}

fn tftp_get(site: &Site, name: &str) -> Option<Vec<u8>> {
    let url = format!("tftp://127.0.0.1:{}/{name}", site.tftp_port);
    let output = crate::harness::run("curl", "curl", &["-s", "--max-time", "5", &url]);
    output.status.success().then_some(output.stdout)
}

fn answered(site: &Site, from: &str, packet: &[u8]) -> bool {
    exchange(site.radius_port, from, packet).is_some()
}

fn exchange(port: u16, from: &str, packet: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((from, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(700))).expect("a timeout");
    socket.send_to(packet, ("127.0.0.1", port)).expect("sent");
    let mut answer = [0u8; 2048];
    socket.recv(&mut answer).ok().map(|length| answer[..length].to_vec())
}
