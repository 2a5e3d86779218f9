//! Sends real, signed RADIUS accounting at a bounded rate and writes down the truth: a load generator for `lastmile serve`.
//!
//! A closed loop: at most `--window` reports are unanswered. A session's next report goes out after its former one was
//! answered or given up, as a NAS does (with `--reorder`, sometimes before). A report that is not answered is sent again
//! with a new identifier, authenticator and Acct-Delay-Time (RFC 2866 section 4.1). What was acknowledged is logged, so
//! that a store can be compared with it after a crash. The same seed gives the same sessions.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use lastmile::radius::{BuildError, RequestBuilder, attribute, response_is_genuine};
use lastmile::vocabulary::Secret;

/// Sends RADIUS accounting and measures the answers; prints a JSON summary.
#[derive(Parser)]
struct Options {
    /// Where the collector listens.
    #[arg(long, default_value = "127.0.0.1:1813")]
    target: SocketAddr,
    #[arg(long, default_value = "testing123")]
    secret: String,
    /// Sessions to run, each Start, Interims, Stop.
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    #[arg(long, default_value_t = 3)]
    interims: usize,
    /// Unanswered reports at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=250))]
    window: u16,
    /// User names repeat after so many sessions.
    #[arg(long, default_value_t = 100)]
    users: usize,
    /// The user name; `{}` becomes the user's number.
    #[arg(long, default_value = "user{}@acme")]
    user_pattern: String,
    #[arg(long, default_value = "load-1")]
    nas_identifier: String,
    /// Instant of the first Start, seconds since 1970; default: so that the last Stop is now.
    #[arg(long)]
    start: Option<u32>,
    /// Seconds between two reports of a session.
    #[arg(long, default_value_t = 600)]
    interval: u32,
    /// Largest number of octets in one interval and direction.
    #[arg(long, default_value_t = 2_000_000_000)]
    octets_max: u64,
    /// Milliseconds until a report is sent again.
    #[arg(long, default_value_t = 1000)]
    retry_ms: u64,
    /// Sends of one report before it is given up.
    #[arg(long, default_value_t = 30)]
    sends: u32,
    /// Percent of reports sent twice, byte by byte.
    #[arg(long, default_value_t = 0)]
    duplicates: u64,
    /// Percent of reports that overtake their predecessor.
    #[arg(long, default_value_t = 0)]
    reorder: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave Gigawords out, as some NAS do; counters then wrap at 2^32.
    #[arg(long)]
    no_gigawords: bool,
    /// CSV: user,session,in_octets,out_octets,unacked,tags.
    #[arg(long)]
    truth: Option<PathBuf>,
    /// Every acknowledged report: session,report,kind,in_octets,out_octets.
    #[arg(long)]
    ack_log: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match Load::new(&options).and_then(Load::run) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(given_up) => {
            eprintln!("{given_up} reports were never answered");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("accounting_load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One session and how far it is reported.
struct Session {
    number: usize,
    user: usize,
    started_at: u32,
    /// Counters at each report, Start first.
    counters: Vec<(u64, u64)>,
    next: usize,
    in_flight: u32,
    acknowledged: Option<usize>,
    given_up: u32,
    overtaken: bool,
}

/// A report that waits for its answer; its place in the list is its identifier.
struct Flight {
    session: usize,
    report: usize,
    authenticator: [u8; 16],
    first_sent: Instant,
    last_sent: Instant,
    sends: u32,
}

struct Load<'a> {
    options: &'a Options,
    secret: Secret,
    socket: UdpSocket,
    random: Random,
    started_at: u32,
    sessions: BTreeMap<usize, Session>,
    begun: usize,
    /// Sessions that can send.
    ready: VecDeque<usize>,
    flights: Vec<Option<Flight>>,
    free: VecDeque<u8>,
    truth: Option<BufWriter<File>>,
    ack_log: Option<BufWriter<File>>,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    acknowledged: u64,
    sent: u64,
    resent: u64,
    duplicates: u64,
    given_up: u64,
    strays: u64,
    mismatched: u64,
    latencies_us: Vec<u32>,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> io::Result<Self> {
        let local = if options.target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(local)?;
        socket.connect(options.target)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let reports = u64::try_from(options.interims + 1).unwrap_or(u64::MAX);
        let length = reports.saturating_mul(u64::from(options.interval));
        let started_at = options.start.unwrap_or(u32::try_from(now.saturating_sub(length)).unwrap_or(u32::MAX));
        Ok(Self {
            options,
            secret: Secret::new(options.secret.clone()),
            socket,
            random: Random(options.seed),
            started_at,
            sessions: BTreeMap::new(),
            begun: 0,
            ready: VecDeque::new(),
            flights: (0..256).map(|_| None).collect(),
            // Identifiers in turn, so that one is reused as late as possible.
            free: (0..=u8::MAX).collect(),
            truth: create(options.truth.as_deref(), "user,session,in_octets,out_octets,unacked,tags")?,
            ack_log: create(options.ack_log.as_deref(), "session,report,kind,in_octets,out_octets")?,
            tally: Tally::default(),
        })
    }

    fn run(mut self) -> io::Result<u64> {
        let started = Instant::now();
        loop {
            self.fill_window()?;
            if self.flying() == 0 {
                break;
            }
            self.receive()?;
            self.send_again()?;
        }
        let seconds = started.elapsed().as_secs_f64();
        for file in [&mut self.truth, &mut self.ack_log].into_iter().flatten() {
            file.flush()?;
        }
        println!("{}", self.tally.summary(seconds));
        Ok(self.tally.given_up)
    }

    fn flying(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    fn fill_window(&mut self) -> io::Result<()> {
        while self.flying() < usize::from(self.options.window) {
            let Some(number) = self.ready.pop_front().or_else(|| self.begin()) else { return Ok(()) };
            let overtakes = self.random.percent(self.options.reorder);
            let Some(session) = self.sessions.get_mut(&number) else { continue };
            let report = session.next;
            let more = report + 2 < session.counters.len();
            session.next += 1;
            session.in_flight += 1;
            if overtakes && more {
                // The report after this one goes out first.
                session.overtaken = true;
                session.next += 1;
                session.in_flight += 1;
                self.launch(number, report + 1)?;
            }
            self.launch(number, report)?;
        }
        Ok(())
    }

    /// Makes the next session; `None` when all have begun.
    fn begin(&mut self) -> Option<usize> {
        if self.begun == self.options.sessions {
            return None;
        }
        let number = self.begun;
        self.begun += 1;
        let mut counters = vec![(0, 0)];
        for _ in 0..=self.options.interims {
            let (up, down) = *counters.last().expect("the Start is there");
            let below = self.options.octets_max.max(1);
            counters.push((up + self.random.next() % below, down + self.random.next() % below));
        }
        let started_at = self.started_at + (number as u32 % 60);
        let session = Session {
            number,
            user: number % self.options.users.max(1),
            started_at,
            counters,
            next: 0,
            in_flight: 0,
            acknowledged: None,
            given_up: 0,
            overtaken: false,
        };
        self.sessions.insert(number, session);
        Some(number)
    }

    fn launch(&mut self, session: usize, report: usize) -> io::Result<()> {
        let Some(identifier) = self.free.pop_front() else { return Err(io::Error::other("no identifier is free")) };
        let now = Instant::now();
        let packet = self.packet(identifier, session, report, 0)?;
        let flight = Flight {
            session,
            report,
            authenticator: authenticator(&packet),
            first_sent: now,
            last_sent: now,
            sends: 1,
        };
        self.flights[usize::from(identifier)] = Some(flight);
        self.send(&packet)?;
        if self.random.percent(self.options.duplicates) {
            self.tally.duplicates += 1;
            self.send(&packet)?;
        }
        Ok(())
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.tally.sent += 1;
        match self.socket.send(packet) {
            // The collector is down, as told by ICMP: the retries will find it again.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            other => other.map(drop),
        }
    }

    fn packet(&self, identifier: u8, session: usize, report: usize, delay: u32) -> io::Result<Vec<u8>> {
        let session = &self.sessions[&session];
        let elapsed = u32::try_from(report).unwrap_or(0) * self.options.interval;
        let (up, down) = session.counters[report];
        let low = |octets: u64| (octets & u64::from(u32::MAX)) as u32;
        let host = u32::try_from(session.number).unwrap_or(0);
        let mut builder = RequestBuilder::accounting(identifier)
            .integer(attribute::ACCT_STATUS_TYPE, session.kind(report))
            .text(attribute::ACCT_SESSION_ID, &session.id(self.options.seed))
            .text(attribute::USER_NAME, &self.user(session.user))
            .text(attribute::NAS_IDENTIFIER, &self.options.nas_identifier)
            .address(attribute::NAS_IP_ADDRESS, [192, 0, 2, 1].into())
            .integer(attribute::NAS_PORT, host)
            .address(attribute::FRAMED_IP_ADDRESS, (0x6440_0000_u32 | (host & 0x3f_ffff)).to_be_bytes().into())
            .text(
                attribute::CALLING_STATION_ID,
                &format!("02-00-{:02X}-{:02X}-{:02X}-00", host >> 16 & 255, host >> 8 & 255, host & 255),
            )
            .integer(attribute::ACCT_DELAY_TIME, delay)
            .integer(attribute::EVENT_TIMESTAMP, session.started_at + elapsed);
        if report > 0 {
            builder = builder
                .integer(attribute::ACCT_SESSION_TIME, elapsed)
                .integer(attribute::ACCT_INPUT_OCTETS, low(up))
                .integer(attribute::ACCT_OUTPUT_OCTETS, low(down));
            if !self.options.no_gigawords {
                builder = builder
                    .integer(attribute::ACCT_INPUT_GIGAWORDS, low(up >> 32))
                    .integer(attribute::ACCT_OUTPUT_GIGAWORDS, low(down >> 32));
            }
        }
        if session.kind(report) == STOP {
            builder = builder.integer(attribute::ACCT_TERMINATE_CAUSE, 1);
        }
        builder.sign(&self.secret).map_err(|error: BuildError| io::Error::other(error))
    }

    fn user(&self, user: usize) -> String {
        self.options.user_pattern.replace("{}", &user.to_string())
    }

    /// Waits for an answer at most until the next retry may be due, then takes all that are there.
    fn receive(&mut self) -> io::Result<()> {
        let mut room = [0; 4096];
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(Some(Duration::from_millis(self.options.retry_ms.clamp(1, 50))))?;
        let mut received = self.socket.recv(&mut room);
        self.socket.set_nonblocking(true)?;
        loop {
            match received {
                Ok(length) => self.answered(&room[..length])?,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::thread::sleep(Duration::from_millis(10));
                    break;
                }
                Err(error) => return Err(error),
            }
            received = self.socket.recv(&mut room);
        }
        self.socket.set_nonblocking(false)
    }

    fn answered(&mut self, answer: &[u8]) -> io::Result<()> {
        let Some(&identifier) = answer.get(1) else { return Ok(()) };
        let Some(flight) = self.flights[usize::from(identifier)].take() else {
            // The second answer to a duplicate, or one that came after its retry.
            self.tally.strays += 1;
            return Ok(());
        };
        if !response_is_genuine(answer, identifier, &flight.authenticator, &self.secret) {
            // Forged, or late: the identifier has gone to another report since.
            self.tally.mismatched += 1;
            self.flights[usize::from(identifier)] = Some(flight);
            return Ok(());
        }
        self.free.push_back(identifier);
        self.tally.acknowledged += 1;
        let waited = flight.first_sent.elapsed().as_micros();
        self.tally.latencies_us.push(u32::try_from(waited).unwrap_or(u32::MAX));
        let seed = self.options.seed;
        if let Some(session) = self.sessions.get_mut(&flight.session) {
            session.acknowledged = session.acknowledged.max(Some(flight.report));
            if let Some(log) = &mut self.ack_log {
                let (up, down) = session.counters[flight.report];
                writeln!(log, "{},{},{},{up},{down}", session.id(seed), flight.report, session.kind(flight.report))?;
            }
        }
        self.landed(flight.session)
    }

    fn send_again(&mut self) -> io::Result<()> {
        let patience = Duration::from_millis(self.options.retry_ms);
        for identifier in 0..=u8::MAX {
            let due = self.flights[usize::from(identifier)].as_ref().is_some_and(|f| f.last_sent.elapsed() >= patience);
            if !due {
                continue;
            }
            let Some(mut flight) = self.flights[usize::from(identifier)].take() else { continue };
            self.free.push_back(identifier);
            if flight.sends >= self.options.sends {
                self.tally.given_up += 1;
                if let Some(session) = self.sessions.get_mut(&flight.session) {
                    session.given_up += 1;
                }
                self.landed(flight.session)?;
                continue;
            }
            let Some(anew) = self.free.pop_front() else { continue };
            let delay = u32::try_from(flight.first_sent.elapsed().as_secs()).unwrap_or(u32::MAX);
            let packet = self.packet(anew, flight.session, flight.report, delay)?;
            flight.authenticator = authenticator(&packet);
            flight.last_sent = Instant::now();
            flight.sends += 1;
            self.flights[usize::from(anew)] = Some(flight);
            self.tally.resent += 1;
            self.send(&packet)?;
        }
        Ok(())
    }

    /// A report is answered or given up: the session goes on, or its truth is written.
    fn landed(&mut self, number: usize) -> io::Result<()> {
        let Some(session) = self.sessions.get_mut(&number) else { return Ok(()) };
        session.in_flight -= 1;
        if session.in_flight > 0 {
            return Ok(());
        }
        if session.next < session.counters.len() {
            self.ready.push_back(number);
            return Ok(());
        }
        let Some(session) = self.sessions.remove(&number) else { return Ok(()) };
        let user = self.user(session.user);
        if let Some(truth) = &mut self.truth {
            let (up, down) = session.acknowledged.map_or((0, 0), |report| session.counters[report]);
            let tags = if session.overtaken { "reorder" } else { "" };
            let id = session.id(self.options.seed);
            writeln!(truth, "{user},{id},{up},{down},{},{tags}", session.given_up)?;
        }
        Ok(())
    }
}

impl Session {
    fn id(&self, seed: u64) -> String {
        format!("{seed:x}-{:08x}", self.number)
    }

    fn kind(&self, report: usize) -> u32 {
        match report {
            0 => START,
            last if last + 1 == self.counters.len() => STOP,
            _ => INTERIM,
        }
    }
}

impl Tally {
    fn summary(&mut self, seconds: f64) -> serde_json::Value {
        self.latencies_us.sort_unstable();
        let percentile = |part: usize| {
            let at = (self.latencies_us.len() * part / 1000).min(self.latencies_us.len().saturating_sub(1));
            self.latencies_us.get(at).map_or(0.0, |&us| f64::from(us) / 1000.0)
        };
        serde_json::json!({
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "acked": self.acknowledged,
            "acked_per_second": (self.acknowledged as f64 / seconds).round(),
            "p50_ms": percentile(500),
            "p99_ms": percentile(990),
            "max_ms": percentile(1000),
            "sent": self.sent,
            "resent": self.resent,
            "duplicates": self.duplicates,
            "given_up": self.given_up,
            "stray_answers": self.strays,
            "mismatched_answers": self.mismatched,
        })
    }
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn percent(&mut self, percent: u64) -> bool {
        percent > 0 && self.next() % 100 < percent
    }
}

fn authenticator(packet: &[u8]) -> [u8; 16] {
    let mut authenticator = [0; 16];
    authenticator.copy_from_slice(&packet[4..20]);
    authenticator
}

fn create(path: Option<&Path>, header: &str) -> io::Result<Option<BufWriter<File>>> {
    let Some(path) = path else { return Ok(None) };
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "{header}")?;
    Ok(Some(file))
}

const START: u32 = 1;
const STOP: u32 = 2;
const INTERIM: u32 = 3;
