//! What all lines share: which session is next, the truth written down, and the tally of the run.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::options::Options;
use crate::plan::{Octets, Plan};

pub struct Ledger {
    options: Options,
    /// Earliest Start of a session.
    first_at: u32,
    begun: AtomicUsize,
    kept: Mutex<Kept>,
}

struct Kept {
    truth: Option<BufWriter<File>>,
    ack_log: Option<BufWriter<File>>,
    /// Last event of each NAS.
    ended_at: Vec<u32>,
    tally: Tally,
}

/// What happened, over all lines.
#[derive(Default)]
pub struct Tally {
    pub acknowledged: u64,
    pub sent: u64,
    pub resent: u64,
    pub duplicates: u64,
    pub resigned: u64,
    pub resigned_unanswered: u64,
    pub forged: u64,
    pub forged_answered: u64,
    pub dropped_answers: u64,
    pub given_up: u64,
    pub strays: u64,
    pub mismatched: u64,
    /// Sessions that time ran out for.
    pub unfinished: u64,
    pub latencies_us: Vec<u32>,
}

impl Ledger {
    pub fn new(options: &Options) -> io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let length =
            (options.interims as u64 + 1) * u64::from(options.interval) * if options.reuse > 0 { 2 } else { 1 };
        let first_at = options.start.unwrap_or(u32::try_from(now.saturating_sub(length + 120)).unwrap_or(u32::MAX));
        let truth = create(
            options.truth.as_deref(),
            "user,session,in_octets,out_octets,unacked,tags,in_before_prorata,out_before_prorata,in_before_report,\
             out_before_report",
        )?;
        let ack_log = create(options.ack_log.as_deref(), "session,report,kind,in_octets,out_octets")?;
        let kept = Kept { truth, ack_log, ended_at: vec![0; options.nas.max(1)], tally: Tally::default() };
        Ok(Self { options: options.clone(), first_at, begun: AtomicUsize::new(0), kept: Mutex::new(kept) })
    }

    /// The next session; `None` when all have begun.
    pub fn begin(&self) -> Option<Plan> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        (number < self.options.sessions).then(|| Plan::new(number, &self.options, self.first_at))
    }

    pub fn acknowledged(&self, plan: &Plan, place: usize) -> io::Result<()> {
        if self.options.ack_log.is_none() {
            return Ok(());
        }
        let report = &plan.reports[place];
        let (up, down) = report.shown;
        match &mut self.kept().ack_log {
            Some(log) => writeln!(log, "{},{place},{},{up},{down}", plan.id, report.kind),
            None => Ok(()),
        }
    }

    /// A session is over: writes what a collector must have found.
    pub fn over(&self, plan: &Plan, answered: &[bool]) -> io::Result<()> {
        let mut kept = self.kept();
        kept.ended_at[plan.nas] = kept.ended_at[plan.nas].max(plan.ended_at());
        let Some(truth) = &mut kept.truth else { return Ok(()) };
        let found = plan.found(answered, self.options.boundary);
        let unacked = plan.order.iter().filter(|place| !answered[**place]).count();
        let user = self.options.user_pattern.replace("{}", &plan.user.to_string());
        let tags = plan.tags.join("+");
        let both = |(up, down): Octets| format!("{up},{down}");
        let [total, prorata, report] = [found.total, found.before_prorata, found.before_report].map(both);
        writeln!(truth, "{user},{},{total},{unacked},{tags},{prorata},{report}", plan.id)
    }

    /// When NAS `number` sent its last event.
    pub fn ended_at(&self, number: usize) -> Option<u32> {
        Some(self.kept().ended_at[number]).filter(|at| *at > 0)
    }

    pub fn add(&self, line: Tally) {
        let mut kept = self.kept();
        let sum = &mut kept.tally;
        sum.acknowledged += line.acknowledged;
        sum.sent += line.sent;
        sum.resent += line.resent;
        sum.duplicates += line.duplicates;
        sum.resigned += line.resigned;
        sum.resigned_unanswered += line.resigned_unanswered;
        sum.forged += line.forged;
        sum.forged_answered += line.forged_answered;
        sum.dropped_answers += line.dropped_answers;
        sum.given_up += line.given_up;
        sum.strays += line.strays;
        sum.mismatched += line.mismatched;
        sum.unfinished += line.unfinished;
        sum.latencies_us.extend(line.latencies_us);
    }

    /// Closes the files and prints the summary; gives what went wrong, in words.
    pub fn end(&self, seconds: f64) -> io::Result<Option<String>> {
        let mut kept = self.kept();
        let Kept { truth, ack_log, tally, .. } = &mut *kept;
        for file in [truth, ack_log].into_iter().flatten() {
            file.flush()?;
        }
        println!("{}", tally.summary(seconds));
        let wrong = [
            (tally.given_up, "reports were never answered"),
            (tally.unfinished, "sessions were not finished in time"),
            (tally.forged_answered, "forged packets were answered"),
            (tally.resigned_unanswered, "copies signed anew were never answered"),
        ];
        let wrong: Vec<String> =
            wrong.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        Ok((!wrong.is_empty()).then(|| wrong.join("; ")))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
            "resigned": self.resigned,
            "resigned_unanswered": self.resigned_unanswered,
            "forged": self.forged,
            "forged_answered": self.forged_answered,
            "dropped_answers": self.dropped_answers,
            "given_up": self.given_up,
            "unfinished": self.unfinished,
            "stray_answers": self.strays,
            "mismatched_answers": self.mismatched,
        })
    }
}

fn create(path: Option<&Path>, header: &str) -> io::Result<Option<BufWriter<File>>> {
    let Some(path) = path else { return Ok(None) };
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "{header}")?;
    Ok(Some(file))
}
