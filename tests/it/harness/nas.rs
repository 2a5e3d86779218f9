//! A NAS with many subscribers: signed accounting over UDP, resent as RFC 2866 section 4.1 says until answered, with known truth.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lastmile::radius::{RequestBuilder, response_is_genuine};
use lastmile::vocabulary::Secret;

use super::daemon::NAS_SECRET;

/// What of one report was answered: (session, Acct-Status-Type, Acct-Session-Time).
pub type Acked = (String, u32, u32);

/// What a NAS knows in the end.
#[derive(Debug, Default, Clone)]
pub struct Truth {
    /// Every answered report.
    pub acked: Vec<Acked>,
    /// Last counters of each session that was answered to its Stop: (user, in, out).
    pub finished: BTreeMap<String, (String, u64, u64)>,
}

/// Several links of a NAS sending at once, until told to stop.
pub struct Nas {
    stop: Arc<AtomicBool>,
    truth: Arc<Mutex<Truth>>,
    links: Vec<std::thread::JoinHandle<()>>,
}

const START: u32 = 1;
const STOP: u32 = 2;
const INTERIM: u32 = 3;
const INTERIMS: u32 = 3;
const RESEND_AFTER: Duration = Duration::from_millis(300);
/// A link gives a report up after this, so that no test hangs.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

impl Nas {
    /// `links` subscribers at a time, one session after another, towards `port`; session ids begin with `prefix`.
    pub fn start(port: u16, links: u32, prefix: &str, began: i64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let truth = Arc::new(Mutex::new(Truth::default()));
        let links = (0..links)
            .map(|link| {
                let (stop, truth, prefix) = (stop.clone(), truth.clone(), prefix.to_owned());
                std::thread::spawn(move || run_link(port, link, &prefix, began, &stop, &truth))
            })
            .collect();
        Self { stop, truth, links }
    }

    pub fn acked(&self) -> Vec<Acked> {
        self.truth.lock().expect("no link panicked").acked.clone()
    }

    /// Lets every link end its session, and gives the truth.
    pub fn finish(self) -> Truth {
        self.stop.store(true, Ordering::Relaxed);
        for link in self.links {
            link.join().expect("a link ends");
        }
        self.truth.lock().expect("no link panicked").clone()
    }
}

fn run_link(port: u16, link: u32, prefix: &str, began: i64, stop: &AtomicBool, truth: &Mutex<Truth>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(("127.0.0.1", port)).expect("an address");
    socket.set_read_timeout(Some(RESEND_AFTER)).expect("a timeout");
    let mut identifier = 0u8;
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let session = format!("{prefix}-{link}-{number}");
        let user = format!("user{link}@acme");
        let start_at = began + i64::try_from(number).expect("few sessions") * 2000;
        let (step_in, step_out) = (1_000_003 * (number + 1), 2_900_000_017 + u64::from(link));
        let mut last = (0, 0);
        let mut whole = true;
        for report in 0..=INTERIMS + 1 {
            let kind = match report {
                0 => START,
                n if n == INTERIMS + 1 => STOP,
                _ => INTERIM,
            };
            let seconds = report * 300;
            last = (step_in * u64::from(report), step_out * u64::from(report));
            let at = start_at + i64::from(seconds);
            let sent = Sent { user: &user, session: &session, kind, seconds, at, octets: last };
            if !until_answered(&socket, &mut identifier, &sent) {
                whole = false;
                break;
            }
            truth.lock().expect("no link panicked").acked.push((session.clone(), kind, seconds));
        }
        if whole {
            truth.lock().expect("no link panicked").finished.insert(session, (user, last.0, last.1));
        }
        number += 1;
    }
}

struct Sent<'a> {
    user: &'a str,
    session: &'a str,
    kind: u32,
    seconds: u32,
    at: i64,
    octets: (u64, u64),
}

/// Sends a report, again with another identifier and delay until it is answered.
fn until_answered(socket: &UdpSocket, identifier: &mut u8, sent: &Sent<'_>) -> bool {
    let secret = Secret::new(NAS_SECRET);
    let begun = Instant::now();
    while begun.elapsed() < GIVE_UP_AFTER {
        *identifier = identifier.wrapping_add(1);
        let packet = packet(*identifier, sent, begun.elapsed(), &secret);
        let authenticator: [u8; 16] = packet[4..20].try_into().expect("sixteen octets");
        if socket.send(&packet).is_err() {
            // Nobody listens while the daemon is down.
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        let mut answer = [0u8; 4096];
        match socket.recv(&mut answer) {
            Ok(length) if response_is_genuine(&answer[..length], *identifier, &authenticator, &secret) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(_) => {}
        }
    }
    false
}

fn packet(identifier: u8, sent: &Sent<'_>, delay: Duration, secret: &Secret) -> Vec<u8> {
    let low = |octets: u64| u32::try_from(octets & 0xffff_ffff).expect("32 bits");
    let high = |octets: u64| u32::try_from(octets >> 32).expect("32 bits");
    RequestBuilder::accounting(identifier)
        .text(1, sent.user)
        .text(32, "bng1")
        .integer(40, sent.kind)
        .text(44, sent.session)
        .integer(46, sent.seconds)
        .integer(42, low(sent.octets.0))
        .integer(52, high(sent.octets.0))
        .integer(43, low(sent.octets.1))
        .integer(53, high(sent.octets.1))
        .integer(41, u32::try_from(delay.as_secs()).expect("a short delay"))
        .integer(55, u32::try_from(sent.at).expect("before 2106"))
        .sign(secret)
        .expect("the packet fits")
}
