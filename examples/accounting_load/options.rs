//! The generator's options: where, how much, how fast, and which faults of a hundred.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Sends RADIUS accounting and measures the answers; prints a JSON summary. Fails when a report was never answered, a
/// forged one was, or a copy that was signed anew was not.
#[derive(Parser, Clone)]
pub struct Options {
    /// Where the collector listens.
    #[arg(long, default_value = "127.0.0.1:1813")]
    pub target: SocketAddr,
    #[arg(long, default_value = "testing123")]
    pub secret: String,
    /// Addresses to send from, in turn; default: what the kernel chooses.
    #[arg(long, value_delimiter = ',')]
    pub sources: Vec<IpAddr>,
    /// Sockets to send from, each with 250 identifiers and a thread of its own.
    #[arg(long, default_value_t = 1)]
    pub sockets: usize,

    /// Sessions to run, each Start, Interims, Stop.
    #[arg(long, default_value_t = 1000)]
    pub sessions: usize,
    #[arg(long, default_value_t = 3)]
    pub interims: usize,
    /// User names repeat after so many sessions.
    #[arg(long, default_value_t = 100)]
    pub users: usize,
    /// The user name; `{}` becomes the user's number.
    #[arg(long, default_value = "user{}@acme")]
    pub user_pattern: String,
    /// Several NAS send, named by the identifier and a number.
    #[arg(long, default_value_t = 1)]
    pub nas: usize,
    #[arg(long, default_value = "load-1")]
    pub nas_identifier: String,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Closed loop: unanswered reports at a time, over all sockets.
    #[arg(long, default_value_t = 64)]
    pub window: usize,
    /// Open loop: reports a second, whether answered or not, over all sockets; latency counts from when each was due.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Ends after so many seconds, whatever is left.
    #[arg(long, default_value_t = 600)]
    pub max_seconds: u64,
    /// Milliseconds until a report is sent again.
    #[arg(long, default_value_t = 1000)]
    pub retry_ms: u64,
    /// Sends of one report before it is given up.
    #[arg(long, default_value_t = 30)]
    pub sends: u32,
    /// How a report is sent again: signed anew with its delay (RFC 2866 section 4.1), the same octets, or either.
    #[arg(long, value_enum, default_value_t = Resend::Anew)]
    pub resend: Resend,

    /// Instant of the first Start, seconds since 1970; default: so that the last Stop is now.
    #[arg(long)]
    pub start: Option<u32>,
    /// Seconds between two reports of a session.
    #[arg(long, default_value_t = 600)]
    pub interval: u32,
    /// An instant every session is open at, seconds since 1970.
    #[arg(long)]
    pub boundary: Option<u32>,
    /// Largest number of octets in one interval and direction.
    #[arg(long, default_value_t = 2_000_000_000)]
    pub octets_max: u64,
    /// Leave Gigawords out, as some NAS do; counters then wrap at 2^32.
    #[arg(long)]
    pub no_gigawords: bool,
    /// Leave Event-Timestamp out.
    #[arg(long)]
    pub no_event_timestamp: bool,
    #[arg(long)]
    pub message_authenticator: bool,

    /// Percent of reports sent twice, byte by byte.
    #[arg(long, default_value_t = 0)]
    pub duplicates: u64,
    /// Percent of reports sent again signed anew, although they are answered.
    #[arg(long, default_value_t = 0)]
    pub resigned: u64,
    /// A copy follows after at most so many milliseconds.
    #[arg(long, default_value_t = 20)]
    pub copy_delay_ms: u64,
    /// Percent of sessions in which a report overtakes its predecessor.
    #[arg(long, default_value_t = 0)]
    pub reorder: u64,
    /// Percent of first answers that do not arrive.
    #[arg(long, default_value_t = 0)]
    pub drop_answers: u64,
    /// Percent of Starts that are never sent.
    #[arg(long, default_value_t = 0)]
    pub lost_starts: u64,
    #[arg(long, default_value_t = 0)]
    pub lost_interims: u64,
    #[arg(long, default_value_t = 0)]
    pub lost_stops: u64,
    /// Percent of reports followed by a forged or malformed one that claims much usage.
    #[arg(long, default_value_t = 0)]
    pub forged: u64,
    /// Percent of sessions whose counters pass 2^32.
    #[arg(long, default_value_t = 0)]
    pub wraps: u64,
    /// Percent of sessions whose counters begin anew in the middle.
    #[arg(long, default_value_t = 0)]
    pub resets: u64,
    /// Percent of session ids that are used again after their Stop.
    #[arg(long, default_value_t = 0)]
    pub reuse: u64,
    /// Percent of NAS that send Accounting-On at the end.
    #[arg(long, default_value_t = 0)]
    pub reboots: u64,
    /// Percent of NAS whose clock is wrong by `--skew-seconds`.
    #[arg(long, default_value_t = 0)]
    pub skewed: u64,
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub skew_seconds: i64,

    /// CSV a session: user,session,in_octets,out_octets,unacked,tags and what was carried before the boundary, by policy.
    #[arg(long)]
    pub truth: Option<PathBuf>,
    /// Every acknowledged report: session,report,kind,in_octets,out_octets.
    #[arg(long)]
    pub ack_log: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Resend {
    Anew,
    Same,
    Mixed,
}

/// Identifiers of one socket that may be unanswered; a few stay free for forged packets and copies.
pub const WINDOW_MAX: usize = 250;

impl Options {
    /// What cannot work, in words.
    pub fn fault(&self) -> Option<String> {
        if self.sockets == 0 || self.window.div_ceil(self.sockets.max(1)) > WINDOW_MAX {
            return Some(format!(
                "a window of {} needs at least {} sockets",
                self.window,
                self.window.div_ceil(WINDOW_MAX).max(1)
            ));
        }
        if self.interval < 2 {
            return Some("an interval has at least 2 seconds".to_owned());
        }
        None
    }

    /// Whether NAS `number` of all belongs to the first `percent` of a hundred, in a random order.
    pub fn chosen(&self, number: usize, percent: u64, what: u64) -> bool {
        crate::random::Random::of(self.seed ^ what, number as u64).percent(percent)
    }

    pub fn nas_name(&self, number: usize) -> String {
        if self.nas <= 1 { self.nas_identifier.clone() } else { format!("{}-{number:03}", self.nas_identifier) }
    }

    /// Seconds NAS `number`'s clock is wrong.
    pub fn skew_of(&self, number: usize) -> i64 {
        if self.chosen(number, self.skewed, SKEW) { self.skew_seconds } else { 0 }
    }

    pub fn reboots(&self, number: usize) -> bool {
        self.chosen(number, self.reboots, REBOOT)
    }
}

const SKEW: u64 = 0x5eed_0001;
const REBOOT: u64 = 0x5eed_0002;
