//! One socket's loop: keeps its share of the window (or of the rate) in flight, takes answers, sends again, spoils things.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lastmile::radius::response_is_genuine;
use lastmile::vocabulary::Secret;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use crate::ledger::{Ledger, Tally};
use crate::options::{Options, Resend, WINDOW_MAX};
use crate::plan::Plan;
use crate::random::Random;
use crate::wire::{accounting_on, authenticator, forged, packet};

pub struct Line {
    options: Options,
    ledger: Arc<Ledger>,
    secret: Secret,
    socket: UdpSocket,
    number: usize,
    started: Instant,
}

/// A session on this line and how far it is reported.
struct Session {
    plan: Rc<Plan>,
    /// Place in the plan's order of the next report.
    next: usize,
    in_flight: u32,
    answered: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A session's report, by its place in the plan.
    Report { session: usize, place: usize },
    /// A copy of an answered report, signed anew: to be answered, and counts nothing.
    Copy,
    /// Never to be answered.
    Forged,
}

/// A packet that waits for its answer; its place in the list is its identifier.
struct Flight {
    purpose: Purpose,
    plan: Rc<Plan>,
    place: usize,
    octets: Vec<u8>,
    authenticator: [u8; 16],
    /// When it was to be sent for the first time.
    due: Instant,
    first_sent: Instant,
    last_sent: Instant,
    sends: u32,
}

/// Something to send later.
enum Later {
    Octets(Vec<u8>),
    Anew { plan: Rc<Plan>, place: usize, first_sent: Instant },
}

struct Running {
    line: Line,
    random: Random,
    sessions: BTreeMap<usize, Session>,
    begun: usize,
    all_begun: bool,
    /// Sessions that can send.
    ready: VecDeque<usize>,
    flights: Vec<Option<Flight>>,
    free: VecDeque<u8>,
    /// Unanswered packets that count for the window.
    flying: usize,
    later: BTreeMap<(Instant, u64), Later>,
    later_number: u64,
    looked_at: Instant,
    /// Reports sent so far, for the rate.
    paced: u64,
    tally: Tally,
}

/// Forged packets are waited for so long.
const FORGED_WAIT: Duration = Duration::from_millis(300);
/// How often what is unanswered is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// With a rate: at most so long between two looks at the socket.
const RATE_NAP: Duration = Duration::from_micros(500);
/// A copy signed anew says at least this delay, as a real one does.
const COPY_DELAY_SECONDS: u32 = 1;
/// A datagram that a burst left no room for would look like one the collector lost.
const RECEIVE_BUFFER: usize = 4 << 20;

impl Line {
    pub fn new(number: usize, options: Options, ledger: Arc<Ledger>, started: Instant) -> io::Result<Self> {
        let socket = match options.sources.get(number % options.sources.len().max(1)) {
            Some(source) => UdpSocket::bind((*source, 0))?,
            None if options.target.is_ipv4() => UdpSocket::bind("0.0.0.0:0")?,
            None => UdpSocket::bind("[::]:0")?,
        };
        socket.connect(options.target)?;
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        let secret = Secret::new(options.secret.clone());
        Ok(Self { options, ledger, secret, socket, number, started })
    }

    pub fn run(self) -> io::Result<()> {
        let now = Instant::now();
        let mut running = Running {
            random: Random::of(self.options.seed ^ 0x11e5, self.number as u64),
            line: self,
            sessions: BTreeMap::new(),
            begun: 0,
            all_begun: false,
            ready: VecDeque::new(),
            flights: (0..256).map(|_| None).collect(),
            // Identifiers in turn, so that one is reused as late as possible.
            free: (0..=u8::MAX).collect(),
            flying: 0,
            later: BTreeMap::new(),
            later_number: 0,
            looked_at: now,
            paced: 0,
            tally: Tally::default(),
        };
        running.turns()
    }

    fn share(&self) -> usize {
        self.options.window.div_ceil(self.options.sockets).min(WINDOW_MAX)
    }

    /// When the line's report number `paced` is due, with a rate.
    fn due(&self, paced: u64) -> Option<Instant> {
        let rate = self.options.rate;
        (rate > 0).then(|| {
            let before = paced * self.options.sockets as u64 + self.number as u64;
            self.started + Duration::from_nanos(before * 1_000_000_000 / rate)
        })
    }
}

impl Running {
    fn turns(&mut self) -> io::Result<()> {
        let ends = self.line.started + Duration::from_secs(self.line.options.max_seconds);
        loop {
            self.fill()?;
            let idle = self.sessions.is_empty() && self.all_begun;
            if (idle && self.free.len() == self.flights.len() && self.later.is_empty()) || Instant::now() > ends {
                break;
            }
            self.receive()?;
            self.send_later()?;
            self.send_again()?;
        }
        for session in std::mem::take(&mut self.sessions).into_values() {
            self.tally.unfinished += 1;
            self.line.ledger.over(&session.plan, &session.answered)?;
        }
        self.line.ledger.add(std::mem::take(&mut self.tally));
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        let paced = self.line.options.rate > 0;
        // An open loop is bounded by the identifiers alone.
        let most = if paced { WINDOW_MAX } else { self.line.share() };
        while self.flying < most && self.free.len() > 2 {
            let due = self.line.due(self.paced);
            if due.is_some_and(|due| due > Instant::now()) {
                return Ok(());
            }
            let Some(number) = self.ready.pop_front().or_else(|| self.begin()) else { return Ok(()) };
            let Some(session) = self.sessions.get_mut(&number) else { continue };
            let at = session.next;
            let plan = session.plan.clone();
            if plan.order.is_empty() {
                // Every report of it was lost before it was sent.
                self.over(number)?;
                continue;
            }
            self.paced += 1;
            let overtaken = plan.overtaken_at == Some(at);
            let places = if overtaken { vec![plan.order[at + 1], plan.order[at]] } else { vec![plan.order[at]] };
            session.next += places.len();
            session.in_flight += places.len() as u32;
            for place in places {
                self.launch(Purpose::Report { session: number, place }, plan.clone(), place, due)?;
                self.spoil(&plan, place)?;
            }
        }
        Ok(())
    }

    /// Takes the next session; `None` when all have begun.
    fn begin(&mut self) -> Option<usize> {
        if self.all_begun {
            return None;
        }
        let Some(plan) = self.line.ledger.begin() else {
            self.all_begun = true;
            return None;
        };
        let number = self.begun;
        self.begun += 1;
        let answered = vec![false; plan.reports.len()];
        self.sessions.insert(number, Session { plan: Rc::new(plan), next: 0, in_flight: 0, answered });
        Some(number)
    }

    fn launch(&mut self, purpose: Purpose, plan: Rc<Plan>, place: usize, due: Option<Instant>) -> io::Result<()> {
        let Some(identifier) = self.free.pop_front() else { return Err(io::Error::other("no identifier is free")) };
        let now = Instant::now();
        let report = &plan.reports[place];
        let (options, secret) = (&self.line.options, &self.line.secret);
        let octets = match purpose {
            Purpose::Forged => forged(options, secret, &plan, report, identifier, &mut self.random)?,
            Purpose::Copy => packet(options, secret, &plan, report, identifier, COPY_DELAY_SECONDS)?,
            Purpose::Report { .. } => packet(options, secret, &plan, report, identifier, 0)?,
        };
        self.send(&octets)?;
        let authenticator = authenticator(&octets);
        let due = due.unwrap_or(now);
        let flight =
            Flight { purpose, plan, place, octets, authenticator, due, first_sent: now, last_sent: now, sends: 1 };
        self.flights[usize::from(identifier)] = Some(flight);
        self.flying += usize::from(purpose != Purpose::Forged);
        Ok(())
    }

    /// Copies of a report, and packets that only look like it.
    fn spoil(&mut self, plan: &Rc<Plan>, place: usize) -> io::Result<()> {
        let options = &self.line.options;
        let (duplicates, resigned, forged) = (options.duplicates, options.resigned, options.forged);
        let wait = Duration::from_millis(self.random.below(options.copy_delay_ms + 1));
        let now = Instant::now();
        if self.random.percent(duplicates) {
            let sent =
                self.flights.iter().flatten().find(|flight| Rc::ptr_eq(&flight.plan, plan) && flight.place == place);
            if let Some(octets) = sent.map(|flight| flight.octets.clone()) {
                self.tally.duplicates += 1;
                self.put_off(now + wait, Later::Octets(octets));
            }
        }
        if self.random.percent(resigned) {
            self.put_off(now + wait, Later::Anew { plan: plan.clone(), place, first_sent: now });
        }
        if self.random.percent(forged) && self.free.len() > 2 {
            self.tally.forged += 1;
            self.launch(Purpose::Forged, plan.clone(), place, None)?;
        }
        Ok(())
    }

    fn put_off(&mut self, until: Instant, what: Later) {
        self.later_number += 1;
        self.later.insert((until, self.later_number), what);
    }

    fn send_later(&mut self) -> io::Result<()> {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > Instant::now() {
                break;
            }
            match entry.remove() {
                Later::Octets(octets) => self.send(&octets)?,
                Later::Anew { plan, place, first_sent } => {
                    if self.free.len() <= 2 {
                        // No identifier is free; the copy can wait.
                        self.put_off(Instant::now() + LOOK_EVERY, Later::Anew { plan, place, first_sent });
                        break;
                    }
                    self.tally.resigned += 1;
                    self.launch(Purpose::Copy, plan, place, None)?;
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.tally.sent += 1;
        match self.line.socket.send(octets) {
            // The collector is down, as told by ICMP, or our own buffer is full: the retries will find it again.
            Err(error) if is_passing(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Waits for an answer at most until something else is due, then takes all that are there.
    fn receive(&mut self) -> io::Result<()> {
        let mut room = [0; 4096];
        if self.line.options.rate > 0 {
            std::thread::sleep(RATE_NAP);
        } else {
            let until_later =
                self.later.first_key_value().map(|(key, _)| key.0.saturating_duration_since(Instant::now()));
            let wait = Duration::from_millis(self.line.options.retry_ms.clamp(1, 50))
                .min(until_later.unwrap_or(Duration::MAX));
            self.line.socket.set_read_timeout(Some(wait.max(Duration::from_micros(200))))?;
            match self.line.socket.recv(&mut room) {
                Ok(length) => self.answered(&room[..length])?,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(());
                }
                Err(error) if is_passing(&error) => {
                    std::thread::sleep(Duration::from_millis(10));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        loop {
            match recv(self.line.socket.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from) {
                Ok(length) => self.answered(&room[..length])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_passing(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn answered(&mut self, answer: &[u8]) -> io::Result<()> {
        let Some(&identifier) = answer.get(1) else { return Ok(()) };
        let Some(flight) = &self.flights[usize::from(identifier)] else {
            // The second answer to a duplicate, or one that came after its retry.
            self.tally.strays += 1;
            return Ok(());
        };
        if !response_is_genuine(answer, identifier, &flight.authenticator, &self.line.secret) {
            // Forged, or late: the identifier has gone to another report since.
            self.tally.mismatched += 1;
            return Ok(());
        }
        let dropped = flight.sends == 1 && matches!(flight.purpose, Purpose::Report { .. });
        if dropped && self.random.percent(self.line.options.drop_answers) {
            self.tally.dropped_answers += 1;
            return Ok(());
        }
        let Some(flight) = self.release(identifier) else { return Ok(()) };
        match flight.purpose {
            Purpose::Forged => self.tally.forged_answered += 1,
            Purpose::Copy => {}
            Purpose::Report { session: number, place } => {
                self.tally.acknowledged += 1;
                let waited = flight.due.elapsed().as_micros();
                self.tally.latencies_us.push(u32::try_from(waited).unwrap_or(u32::MAX));
                if let Some(session) = self.sessions.get_mut(&number) {
                    session.answered[place] = true;
                    self.line.ledger.acknowledged(&session.plan, place)?;
                }
                self.landed(number)?;
            }
        }
        Ok(())
    }

    fn release(&mut self, identifier: u8) -> Option<Flight> {
        let flight = self.flights[usize::from(identifier)].take()?;
        self.free.push_back(identifier);
        self.flying -= usize::from(flight.purpose != Purpose::Forged);
        Some(flight)
    }

    fn send_again(&mut self) -> io::Result<()> {
        if self.looked_at.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = Instant::now();
        let patience = Duration::from_millis(self.line.options.retry_ms);
        for identifier in 0..=u8::MAX {
            let Some(flight) = &self.flights[usize::from(identifier)] else { continue };
            let patience = if flight.purpose == Purpose::Forged { FORGED_WAIT } else { patience };
            if flight.last_sent.elapsed() < patience {
                continue;
            }
            if flight.purpose == Purpose::Forged || flight.sends >= self.line.options.sends {
                let Some(flight) = self.release(identifier) else { continue };
                match flight.purpose {
                    Purpose::Forged => {}
                    Purpose::Copy => self.tally.resigned_unanswered += 1,
                    Purpose::Report { session, .. } => {
                        self.tally.given_up += 1;
                        self.landed(session)?;
                    }
                }
                continue;
            }
            self.tally.resent += 1;
            let anew = match self.line.options.resend {
                Resend::Anew => true,
                Resend::Same => false,
                Resend::Mixed => self.random.percent(50),
            };
            self.resend(identifier, anew)?;
        }
        Ok(())
    }

    fn resend(&mut self, identifier: u8, anew: bool) -> io::Result<()> {
        let Some(mut flight) = self.flights[usize::from(identifier)].take() else { return Ok(()) };
        let mut place = identifier;
        if anew {
            self.free.push_back(identifier);
            let Some(free) = self.free.pop_front() else { return Err(io::Error::other("no identifier is free")) };
            place = free;
            let delay = u32::try_from(flight.first_sent.elapsed().as_secs()).unwrap_or(u32::MAX);
            let delay = if flight.purpose == Purpose::Copy { delay + COPY_DELAY_SECONDS } else { delay };
            let report = &flight.plan.reports[flight.place];
            let (options, secret) = (&self.line.options, &self.line.secret);
            flight.octets = packet(options, secret, &flight.plan, report, place, delay)?;
            flight.authenticator = authenticator(&flight.octets);
        }
        flight.last_sent = Instant::now();
        flight.sends += 1;
        self.send(&flight.octets)?;
        self.flights[usize::from(place)] = Some(flight);
        Ok(())
    }

    /// A report is answered or given up: the session goes on, or is over.
    fn landed(&mut self, number: usize) -> io::Result<()> {
        let Some(session) = self.sessions.get_mut(&number) else { return Ok(()) };
        session.in_flight -= 1;
        if session.in_flight > 0 {
            return Ok(());
        }
        if session.next < session.plan.order.len() {
            self.ready.push_back(number);
            return Ok(());
        }
        self.over(number)
    }

    fn over(&mut self, number: usize) -> io::Result<()> {
        match self.sessions.remove(&number) {
            Some(session) => self.line.ledger.over(&session.plan, &session.answered),
            None => Ok(()),
        }
    }
}

/// After all sessions: the NAS that reboot say so, one after another.
pub fn reboot_all(options: &Options, ledger: &Ledger) -> io::Result<()> {
    let socket = UdpSocket::bind(if options.target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(options.target)?;
    socket.set_read_timeout(Some(Duration::from_millis(options.retry_ms)))?;
    let secret = Secret::new(options.secret.clone());
    let mut tally = Tally::default();
    for nas in (0..options.nas.max(1)).filter(|nas| options.reboots(*nas)) {
        let Some(last) = ledger.ended_at(nas) else { continue };
        let mut answered = false;
        for identifier in 0..options.sends.clamp(1, 255) as u8 {
            let octets = accounting_on(options, &secret, nas, identifier, last + 60)?;
            tally.sent += 1;
            // A collector that is down refuses; the next try finds it again.
            answered = socket.send(&octets).is_ok() && is_answered(&socket, identifier, &octets, &secret);
            if answered {
                tally.acknowledged += 1;
                break;
            }
        }
        tally.given_up += u64::from(!answered);
    }
    ledger.add(tally);
    Ok(())
}

/// Waits for the answer to one request; answers to former ones may come before it.
fn is_answered(socket: &UdpSocket, identifier: u8, request: &[u8], secret: &Secret) -> bool {
    let mut room = [0; 4096];
    while let Ok(length) = socket.recv(&mut room) {
        if response_is_genuine(&room[..length], identifier, &authenticator(request), secret) {
            return true;
        }
    }
    false
}

/// Tells of an error that a later send or receive need not meet.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        || error.raw_os_error() == Some(nix::libc::ENOBUFS)
}
