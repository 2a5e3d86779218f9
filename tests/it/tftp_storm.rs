//! A source that floods TFTP with requests it never answers, and another with garbage: every other modem is served at once,
//! and the daemon's memory stays bounded.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::acme::CATALOG;
use crate::harness::daemon::Site;
use crate::harness::http;
use crate::harness::modem::fetch;

const FLOODER: Ipv4Addr = Ipv4Addr::new(127, 0, 91, 1);
const GARBAGE: Ipv4Addr = Ipv4Addr::new(127, 0, 91, 2);
const FETCHES: u32 = 60;
/// Who is served within this was not pushed aside: a request that is lost is repeated after two seconds.
const AT_ONCE: Duration = Duration::from_millis(900);
/// Modems whose request may get lost on a machine that is busy with the flood's own sending.
const MOST_LATE: u32 = FETCHES / 10;
/// Ports of the flooder: many more than it may have transfers.
const PORTS: usize = 600;
const MOST_GROWTH_KB: u64 = 48 * 1024;

#[test]
fn a_storm_of_requests_and_garbage_delays_no_other_modem() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let daemon = site.start();
    let server = SocketAddr::from(([127, 0, 0, 1], site.tftp_port));
    let expected = fetch(Ipv4Addr::new(127, 0, 91, 3), server, "unprovisioned.cm").expect("a file");
    let before = resident_kb(daemon.pid());

    let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flood = {
        let (over, sent) = (over.clone(), sent.clone());
        std::thread::spawn(move || {
            let sockets: Vec<UdpSocket> = (0..PORTS).map(|_| UdpSocket::bind((FLOODER, 0)).expect("a port")).collect();
            while !over.load(Ordering::Relaxed) {
                for socket in &sockets {
                    let _ = socket.send_to(b"\0\x01unprovisioned.cm\0octet\0", server);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                // Some 12,000 requests a second: the machine is to be left room for the other modems.
                std::thread::sleep(Duration::from_millis(50));
            }
        })
    };
    let garbage = {
        let (over, sent) = (over.clone(), sent.clone());
        std::thread::spawn(move || {
            let socket = UdpSocket::bind((GARBAGE, 0)).expect("a port");
            let mut chance = 0x1eaf_u64;
            while !over.load(Ordering::Relaxed) {
                for _ in 0..100 {
                    let mut junk = [0u8; 700];
                    for octet in &mut junk {
                        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        *octet = (chance >> 56) as u8;
                    }
                    // Some begin like a request, an acknowledgement or an error.
                    junk[0] &= 1;
                    junk[1] &= 7;
                    let _ = socket.send_to(&junk[..(chance >> 33) as usize % junk.len()], server);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        })
    };

    std::thread::sleep(Duration::from_millis(500));
    let (mut slowest, mut late, mut most) = (Duration::ZERO, 0, 0);
    for number in 0..FETCHES {
        let begun = Instant::now();
        let from = Ipv4Addr::new(127, 0, 92, 1 + number as u8);
        assert_eq!(fetch(from, server, "unprovisioned.cm").as_ref(), Some(&expected), "modem {number}");
        slowest = slowest.max(begun.elapsed());
        late += u32::from(begun.elapsed() > AT_ONCE);
        most = most.max(resident_kb(daemon.pid()));
        std::thread::sleep(Duration::from_millis(50));
    }
    over.store(true, Ordering::Relaxed);
    flood.join().expect("it ends");
    garbage.join().expect("it ends");

    let metrics = http::request(site.http_port, "GET", "/metrics", &[], None).expect("metrics").body;
    let count = |result: &str| -> u64 {
        let name = format!("lastmile_tftp_transfers_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    println!(
        "PROOF: TFTP storm: {} datagrams of flood and garbage, {} over the limit of a source, {} rejected; {FETCHES} other \
         modems served, {late} late, the slowest in {slowest:?}; memory {before} -> {most} kB",
        sent.load(Ordering::Relaxed),
        count("busy"),
        count("rejected")
    );
    assert!(count("busy") > 0 && count("rejected") > 0, "{metrics}");
    assert!(late <= MOST_LATE, "{late} of {FETCHES} took longer than {AT_ONCE:?}, the slowest {slowest:?}");
    assert!(most < before + MOST_GROWTH_KB, "{before} kB grew to {most} kB");
    assert!(daemon.stop() < Duration::from_secs(5));
}

/// Memory of a process that is really there, in kB.
fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}
