//! What each simulated session does on the wire and what it really carried; from that, what a collector must find.
//!
//! A plan follows from the seed and the session's number alone, not from the order in which answers come.

use crate::options::Options;
use crate::random::Random;

pub const START: u32 = 1;
pub const STOP: u32 = 2;
pub const INTERIM: u32 = 3;

/// Octets up and down.
pub type Octets = (u64, u64);

/// One report of a session.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Acct-Status-Type.
    pub kind: u32,
    /// 1 when the session id is used for the second time.
    pub incarnation: usize,
    /// Instant of the event by a right clock, seconds since 1970.
    pub at: u32,
    /// Acct-Session-Time.
    pub seconds: u32,
    /// The counters as the NAS shows them, 64 bits.
    pub shown: Octets,
    /// What the incarnation has really carried so far.
    pub carried: Octets,
    /// Never sent: the NAS gave it up.
    pub lost: bool,
}

/// One session id's life.
#[derive(Debug)]
pub struct Plan {
    pub number: usize,
    pub user: usize,
    pub nas: usize,
    pub id: String,
    pub reports: Vec<Report>,
    /// The reports to send, by place in `reports`.
    pub order: Vec<usize>,
    /// Place in `order` of a report that goes out together with the next one, which it should have followed.
    pub overtaken_at: Option<usize>,
    pub tags: Vec<&'static str>,
}

/// What was carried before and after an edge, by the two policies for a report that spans it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found {
    pub total: Octets,
    /// Each difference spread evenly over its interval.
    pub before_prorata: Octets,
    /// Each difference where the report that ends it falls.
    pub before_report: Octets,
}

/// More than one counter of 32 bits, less than two, every second interval.
const WRAP_STEP: u64 = 1 << 31;
/// From one incarnation's Stop to the next one's Start.
const REUSE_AFTER_SECONDS: u32 = 30;

impl Plan {
    /// Session `number` of the run that `options` describes; `first_at` is the earliest Start.
    pub fn new(number: usize, options: &Options, first_at: u32) -> Self {
        let mut random = Random::of(options.seed, number as u64);
        let user = number % options.users.max(1);
        let wraps = random.percent(options.wraps);
        let resets = !wraps && random.percent(options.resets);
        let reused = random.percent(options.reuse);
        let mut at = first_at + (number % 60) as u32;
        let length = (options.interims as u32 + 1) * options.interval;
        if let Some(edge) = options.boundary {
            at = edge - 1 - random.below(u64::from(length) - 2) as u32;
            if (edge - at).is_multiple_of(options.interval) {
                // A report at the edge itself would belong to neither side.
                at -= 1;
            }
        }
        let mut reports = Vec::new();
        for incarnation in 0..=usize::from(reused) {
            add_incarnation(&mut reports, incarnation, at, wraps, resets, options, &mut random);
            at += length + REUSE_AFTER_SECONDS;
        }
        for report in &mut reports {
            report.lost = match report.kind {
                START => random.percent(options.lost_starts),
                // What a counter lost when it began anew cannot be known without the report before.
                INTERIM => !resets && random.percent(options.lost_interims),
                // Without its Stop nothing tells where one use of the id ends and the next one begins.
                _ => !reused && random.percent(options.lost_stops),
            };
        }
        let order: Vec<usize> = (0..reports.len()).filter(|place| !reports[*place].lost).collect();
        let overtaken_at =
            (order.len() > 1 && random.percent(options.reorder)).then(|| random.below(order.len() as u64 - 1) as usize);
        let lost = |kind| reports.iter().any(|report| report.lost && report.kind == kind);
        let tags = [
            (wraps, "wrap"),
            (resets, "reset"),
            (reused, "reuse"),
            (options.boundary.is_some(), "boundary"),
            (lost(START), "loststart"),
            (lost(INTERIM), "lostinterim"),
            (lost(STOP), "loststop"),
            (overtaken_at.is_some(), "reorder"),
        ];
        let tags = tags.into_iter().filter_map(|(is, tag)| is.then_some(tag)).collect();
        let nas = (number / options.users.max(1) + user) % options.nas.max(1);
        let id = format!("{:x}-{number:08x}", options.seed);
        Self { number, user, nas, id, reports, order, overtaken_at, tags }
    }

    /// What a collector must find from the answered reports alone. `answered` says which they are.
    pub fn found(&self, answered: &[bool], edge: Option<u32>) -> Found {
        let mut found = Found::default();
        for incarnation in 0..=self.reports.last().map_or(0, |last| last.incarnation) {
            let mut before: Option<&Report> = None;
            let known = self
                .reports
                .iter()
                .zip(answered)
                .filter(|(report, answered)| **answered && report.incarnation == incarnation);
            for (report, _) in known {
                let carried = before.map_or((0, 0), |before| before.carried);
                let since = before.map_or(report.at - report.seconds, |before| before.at);
                let step = (report.carried.0 - carried.0, report.carried.1 - carried.1);
                add(&mut found.total, step);
                if let Some(edge) = edge {
                    if report.at < edge {
                        add(&mut found.before_report, step);
                    }
                    let span = u128::from(report.at - since);
                    let part = u128::from(edge.clamp(since, report.at) - since);
                    let share = |octets: u64| (u128::from(octets) * part).checked_div(span).unwrap_or(0) as u64;
                    add(&mut found.before_prorata, (share(step.0), share(step.1)));
                }
                before = Some(report);
            }
        }
        found
    }

    /// The last event of this session that was sent.
    pub fn ended_at(&self) -> u32 {
        self.order.iter().map(|place| self.reports[*place].at).max().unwrap_or(0)
    }
}

fn add_incarnation(
    reports: &mut Vec<Report>,
    incarnation: usize,
    start_at: u32,
    wraps: bool,
    resets: bool,
    options: &Options,
    random: &mut Random,
) {
    let first =
        Report { kind: START, incarnation, at: start_at, seconds: 0, shown: (0, 0), carried: (0, 0), lost: false };
    reports.push(first);
    let last = options.interims + 1;
    // From the second report on: there must be something to fall from.
    let reset_at = resets.then(|| 2 + random.below(options.interims.max(2) as u64 - 1) as usize);
    let (mut shown, mut carried): (Octets, Octets) = ((0, 0), (0, 0));
    for number in 1..=last {
        let mut step = if wraps {
            (random.below(1 << 28), WRAP_STEP + random.below(WRAP_STEP))
        } else {
            (random.below(options.octets_max), random.below(options.octets_max))
        };
        if reset_at == Some(number) {
            // Below the last counter in both directions: a reset that shows.
            step = (random.below(shown.0), random.below(shown.1));
            shown = (0, 0);
        }
        add(&mut shown, step);
        add(&mut carried, step);
        let seconds = number as u32 * options.interval;
        let kind = if number == last { STOP } else { INTERIM };
        reports.push(Report { kind, incarnation, at: start_at + seconds, seconds, shown, carried, lost: false });
    }
}

fn add(sum: &mut Octets, step: Octets) {
    sum.0 += step.0;
    sum.1 += step.1;
}
