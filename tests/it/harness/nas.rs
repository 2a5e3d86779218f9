//! A NAS with many subscribers: signed accounting over UDP, resent as RFC 2866 section 4.1 says until answered, with known truth.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
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
    /// When each of them was answered.
    pub answered_at: Vec<Instant>,
    /// Last counters of each session that was answered to its Stop: (user, in, out).
    pub finished: BTreeMap<String, (String, u64, u64)>,
    /// Reports that were given up.
    pub given_up: u32,
}

/// How a NAS behaves.
#[derive(Debug, Clone)]
pub struct Habits {
    /// Its collectors. With several it goes to the next in the middle of each session, and when one is silent; every
    /// fourth report goes to all of them.
    pub collectors: Vec<SocketAddr>,
    /// Subscribers at a time, each one session after another.
    pub links: u32,
    /// What its session ids begin with.
    pub prefix: String,
    /// Instant of the first Start, seconds since 1970.
    pub began: i64,
    /// How long a report waits for its answer before it is sent again.
    pub resend_after: Duration,
    /// Ends by itself after so many sessions a link.
    pub sessions: Option<u64>,
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
/// Seconds between two reports of a session.
const INTERVAL: u32 = 300;
/// Seconds from one session's Start to the next one's on the same link.
const TURN: i64 = 2000;
/// Reports each session sends.
pub const REPORTS: u32 = INTERIMS + 2;
const RESEND_AFTER: Duration = Duration::from_millis(300);
/// Unanswered sends after which another collector is asked.
const PATIENCE: u32 = 2;
/// A link gives a report up after this, so that no test hangs.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

impl Habits {
    /// A NAS of one collector.
    pub fn new(collector: u16, links: u32, prefix: &str, began: i64) -> Self {
        Self {
            collectors: vec![SocketAddr::from(([127, 0, 0, 1], collector))],
            links,
            prefix: prefix.to_owned(),
            began,
            resend_after: RESEND_AFTER,
            sessions: None,
        }
    }
}

impl Nas {
    /// `links` subscribers at a time, one session after another, towards `port`; session ids begin with `prefix`.
    pub fn start(port: u16, links: u32, prefix: &str, began: i64) -> Self {
        Self::with(&Habits::new(port, links, prefix, began))
    }

    pub fn with(habits: &Habits) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let truth = Arc::new(Mutex::new(Truth::default()));
        let links = (0..habits.links)
            .map(|number| {
                let (stop, truth, habits) = (stop.clone(), truth.clone(), habits.clone());
                std::thread::spawn(move || Link::new(number, habits).run(&stop, &truth))
            })
            .collect();
        Self { stop, truth, links }
    }

    pub fn acked(&self) -> Vec<Acked> {
        self.truth.lock().expect("no link panicked").acked.clone()
    }

    /// When the first report was answered that was answered after `since`.
    pub fn first_answer_after(&self, since: Instant) -> Option<Instant> {
        self.truth.lock().expect("no link panicked").answered_at.iter().copied().find(|at| *at > since)
    }

    /// How many reports were answered after `since`.
    pub fn answers_after(&self, since: Instant) -> usize {
        self.truth.lock().expect("no link panicked").answered_at.iter().filter(|at| **at > since).count()
    }

    /// Lets every link end its session, and gives the truth.
    pub fn finish(self) -> Truth {
        self.stop.store(true, Ordering::Relaxed);
        self.wait()
    }

    /// Waits until every link has run its sessions, and gives the truth.
    pub fn wait(self) -> Truth {
        for link in self.links {
            link.join().expect("a link ends");
        }
        self.truth.lock().expect("no link panicked").clone()
    }
}

/// One subscriber's port.
struct Link {
    number: u32,
    habits: Habits,
    /// A socket a collector.
    sockets: Vec<UdpSocket>,
    current: usize,
    identifier: u8,
    secret: Secret,
}

struct Sent<'a> {
    user: &'a str,
    session: &'a str,
    kind: u32,
    seconds: u32,
    at: i64,
    octets: (u64, u64),
}

impl Link {
    fn new(number: u32, habits: Habits) -> Self {
        let sockets = habits.collectors.iter().map(|collector| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.connect(collector).expect("an address");
            socket.set_read_timeout(Some(habits.resend_after)).expect("a timeout");
            socket
        });
        let sockets = sockets.collect();
        Self { number, habits, sockets, current: 0, identifier: 0, secret: Secret::new(NAS_SECRET) }
    }

    fn run(mut self, stop: &AtomicBool, truth: &Mutex<Truth>) {
        let mut number = 0u64;
        while !stop.load(Ordering::Relaxed) && self.habits.sessions.is_none_or(|sessions| number < sessions) {
            let session = format!("{}-{}-{number}", self.habits.prefix, self.number);
            let user = format!("user{}@acme", self.number);
            let start_at = self.habits.began + i64::try_from(number).expect("few sessions") * TURN;
            let (step_in, step_out) = (1_000_003 * (number + 1), 2_900_000_017 + u64::from(self.number));
            let mut last = (0, 0);
            let mut whole = true;
            for report in 0..REPORTS {
                let kind = match report {
                    0 => START,
                    n if n + 1 == REPORTS => STOP,
                    _ => INTERIM,
                };
                let seconds = report * INTERVAL;
                last = (step_in * u64::from(report), step_out * u64::from(report));
                let at = start_at + i64::from(seconds);
                let sent = Sent { user: &user, session: &session, kind, seconds, at, octets: last };
                if report == REPORTS / 2 {
                    self.current = (self.current + 1) % self.sockets.len();
                }
                if !self.until_answered(&sent) {
                    truth.lock().expect("no link panicked").given_up += 1;
                    whole = false;
                    break;
                }
                {
                    let mut truth = truth.lock().expect("no link panicked");
                    truth.acked.push((session.clone(), kind, seconds));
                    truth.answered_at.push(Instant::now());
                }
                if self.sockets.len() > 1 && (number + u64::from(report)).is_multiple_of(4) {
                    self.send_to_others(&sent);
                }
            }
            if whole {
                truth.lock().expect("no link panicked").finished.insert(session, (user, last.0, last.1));
            }
            number += 1;
        }
    }

    /// Sends a report, again with another identifier and delay until it is answered.
    fn until_answered(&mut self, sent: &Sent<'_>) -> bool {
        let begun = Instant::now();
        let mut sends = 0u32;
        while begun.elapsed() < GIVE_UP_AFTER {
            if sends > 0 && sends.is_multiple_of(PATIENCE) {
                self.current = (self.current + 1) % self.sockets.len();
            }
            sends += 1;
            if self.send_once(self.current, sent, begun.elapsed()) {
                return true;
            }
        }
        false
    }

    /// The same report, signed anew, to the collectors that were not asked; they may be down.
    fn send_to_others(&mut self, sent: &Sent<'_>) {
        for other in (0..self.sockets.len()).filter(|other| *other != self.current).collect::<Vec<_>>() {
            self.send_once(other, sent, Duration::ZERO);
        }
    }

    /// Sends once and waits for the answer; whether it came in time.
    fn send_once(&mut self, collector: usize, sent: &Sent<'_>, delay: Duration) -> bool {
        self.identifier = self.identifier.wrapping_add(1);
        let packet = packet(self.identifier, sent, delay, &self.secret);
        let authenticator: [u8; 16] = packet[4..20].try_into().expect("sixteen octets");
        let socket = &self.sockets[collector];
        if socket.send(&packet).is_err() {
            // Nobody listens while the daemon is down.
            std::thread::sleep(Duration::from_millis(20));
            return false;
        }
        let due = Instant::now() + self.habits.resend_after;
        let mut answer = [0u8; 4096];
        // Late answers to what was sent before may come first.
        while Instant::now() < due {
            match socket.recv(&mut answer) {
                Ok(length) if response_is_genuine(&answer[..length], self.identifier, &authenticator, &self.secret) => {
                    return true;
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    std::thread::sleep(Duration::from_millis(20));
                    return false;
                }
                Err(_) => return false,
            }
        }
        false
    }
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
