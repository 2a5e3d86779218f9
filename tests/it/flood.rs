//! Strangers and forgers flood the port while a known NAS reports: they get no answer, it gets its own, memory stays.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lastmile::radius::RequestBuilder;
use lastmile::vocabulary::Secret;

use crate::harness::acme::CATALOG;
use crate::harness::daemon::{NAS_SECRET, Site};
use crate::harness::{http, is_long, program, release_program, wait_for};

/// Packets a second, and how long.
struct Flood {
    strangers: u64,
    forgers: u64,
    known: u64,
    seconds: u64,
}

/// The figures that are promised, of a release build.
const FULL: Flood = Flood { strangers: 20_000, forgers: 5_000, known: 500, seconds: 30 };
/// What a debug build bears beside the other tests.
const REDUCED: Flood = Flood { strangers: 1_000, forgers: 250, known: 50, seconds: 6 };
const GROWTH_MAX_KB: u64 = 16 * 1024;
const P99_MAX_MS: f64 = 50.0;
/// Source addresses strangers send from.
const STRANGERS: u8 = 64;
/// Sends before the flood, so that everything is warm.
const WARM_UP_SECONDS: u64 = 3;

#[test]
fn flood_of_strangers_and_forgers_harms_nobody() {
    let flood = if is_long() { FULL } else { REDUCED };
    let site = Site::sqlite();
    site.edit("127.0.0.0/8", "127.0.0.1/32");
    site.edit("level = \"info\"", "level = \"warn\"");
    site.prepare(CATALOG);
    let config = site.config.display().to_string();
    let (daemon, generator) = if is_long() {
        (
            site.spawn_program(&release_program("lastmile"), &["--config", &config, "serve"]),
            release_program("examples/accounting_load"),
        )
    } else {
        (site.spawn(), program("examples/accounting_load"))
    };
    wait_for("the daemon is ready", Duration::from_secs(20), || {
        http::request(site.http_port, "GET", "/readyz", &[], None).ok().filter(|answer| answer.status == 200)
    });
    let known = |seconds: u64, seed: u64| {
        let sessions = (flood.known * seconds / 5).max(1);
        Command::new(&generator)
            .args(["--target", &format!("127.0.0.1:{}", site.radius_port), "--secret", NAS_SECRET])
            .args(["--sources", "127.0.0.1", "--sockets", "2", "--rate", &flood.known.to_string()])
            .args(["--sessions", &sessions.to_string(), "--seed", &seed.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the load generator runs")
    };
    let warm = known(WARM_UP_SECONDS, 1).wait_with_output().expect("the generator ends");
    assert!(warm.status.success());
    let before = resident_kb(daemon.pid());
    let stop = Arc::new(AtomicBool::new(false));
    let tally = Arc::new(Tally::default());
    let senders = [
        (flood.strangers / 2, false, 1u8),
        (flood.strangers - flood.strangers / 2, false, 2),
        (flood.forgers, true, 0),
    ]
    .map(|(rate, forger, net)| {
        let (stop, tally, port) = (stop.clone(), tally.clone(), site.radius_port);
        std::thread::spawn(move || send(port, rate, forger, net, &stop, &tally))
    });
    let began = Instant::now();
    let told = known(flood.seconds, 2).wait_with_output().expect("the generator ends");
    let (sent, seconds) = (tally.sent.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
    let after = resident_kb(daemon.pid());
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.join().expect("a sender ends");
    }
    let summary: serde_json::Value = serde_json::from_slice(&told.stdout).expect("a summary");
    let answered = tally.answered.load(Ordering::Relaxed);
    let growth = after.saturating_sub(before);
    println!(
        "PROOF: flood: {:.0} packets/s of strangers and forgers for {seconds:.0} s, answered {answered}; known NAS p99 {} ms, \
         given up {}; memory {before} kB, grown by {growth} kB",
        sent as f64 / seconds,
        summary["p99_ms"],
        summary["given_up"]
    );
    assert!(told.status.success(), "every report of the known NAS is answered: {summary}");
    assert_eq!(answered, 0, "no stranger and no forger is answered");
    assert!(growth < GROWTH_MAX_KB, "{growth} kB");
    if is_long() {
        assert!(summary["p99_ms"].as_f64().is_some_and(|p99| p99 < P99_MAX_MS), "{summary}");
        assert!(sent as f64 / seconds > 0.9 * (flood.strangers + flood.forgers) as f64, "the flood came at its rate");
    }
    let dropped = http::request(site.http_port, "GET", "/metrics", &[], None).expect("an answer").body;
    for reason in ["unknown_nas", "bad_authenticator"] {
        let counted = dropped.lines().any(|line| line.contains(reason) && !line.ends_with(" 0"));
        assert!(counted, "{reason} is counted:\n{dropped}");
    }
    // A line a cause and minute, not one a packet.
    assert!(site.log_text().lines().count() < 100, "{}", site.log_text().lines().count());
    daemon.stop();
}

#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    answered: AtomicU64,
}

/// Sends at a rate until told to stop, from many addresses of one net, or forged from the known one.
fn send(port: u16, rate: u64, forger: bool, net: u8, stop: &AtomicBool, tally: &Tally) {
    let addresses: Vec<Ipv4Addr> = if forger {
        vec![Ipv4Addr::LOCALHOST; 8]
    } else {
        (0..STRANGERS / 2).map(|host| Ipv4Addr::new(127, 9, net, host + 1)).collect()
    };
    let sockets: Vec<UdpSocket> = addresses
        .iter()
        .map(|address| {
            let socket = UdpSocket::bind((*address, 0)).expect("a socket");
            socket.connect(("127.0.0.1", port)).expect("an address");
            socket.set_nonblocking(true).expect("nonblocking");
            socket
        })
        .collect();
    // Strangers may even know the secret.
    let secret = Secret::new(if forger { "not-the-secret" } else { NAS_SECRET });
    let packets: Vec<Vec<u8>> = (0..=255u8)
        .map(|identifier| {
            RequestBuilder::accounting(identifier)
                .integer(40, 1)
                .text(44, &format!("flood-{identifier}"))
                .text(1, "flood@acme")
                .text(32, "bng1")
                .sign(&secret)
                .expect("fits")
        })
        .collect();
    let began = Instant::now();
    let (mut sent, mut room) = (0u64, [0u8; 64]);
    while !stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_micros() as u64 * rate / 1_000_000).saturating_sub(sent);
        for _ in 0..due {
            let at = sent as usize;
            // A full buffer of our own is a packet less.
            if sockets[at % sockets.len()].send(&packets[at % packets.len()]).is_ok() {
                tally.sent.fetch_add(1, Ordering::Relaxed);
            }
            sent += 1;
        }
        for socket in &sockets {
            while socket.recv(&mut room).is_ok() {
                tally.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Resident memory of a process.
fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running daemon");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
