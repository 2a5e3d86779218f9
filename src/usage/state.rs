//! One incarnation of a session: its last reports, its totals, and the usage that is not in the ledger yet.
//!
//! In: records of this incarnation in any order, any number of times. Out: changed totals and buckets. It never looks
//! back further than its tail: what is older was summed up in `base`, and a record from before it asks for a refold.
//!
//! ```text
//! Open ── Stop ──────────────────────────▶ Stopped (a later, larger report corrects it)
//!   │ ── On/Off, new incarnation ────────▶ Closed at the last report ── true Stop, late ──▶ Stopped
//!   ◀── report after the On/Off ─────────── Closed
//! ```

use super::amount::{Amount, Buckets, Cuts, HOUR, LedgerBucket, QUARTER, bucket_of};
use super::report::{Cursor, Reading, Report, ReportKind, Step, mark, step};
use super::{FoldError, Record};
use crate::vocabulary::{Timestamp, to_micros};

/// What the fold must be told besides the record.
#[derive(Debug, Clone, Copy)]
pub struct FoldFacts<'a> {
    /// The identity sent Gigawords at some time, in this session or another.
    pub gigawords: bool,
    /// What the link can carry, when a counter fell: the plan's rate or the NAS's `max_rate`.
    pub max_bits_per_second: u64,
    /// Starts of billing periods, ascending.
    pub edges: &'a [Timestamp],
    /// The edges, and where else entries are cut. They only cut; sums do not depend on them.
    pub cuts: Cuts<'a>,
    /// Which period the usage between two reports belongs to that an edge lies between.
    pub straddling: Straddling,
    /// Instant of the identity's newest Accounting-On or -Off.
    pub rebooted_at: Option<Timestamp>,
}

/// The tenant's policy for usage between two reports of different periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Straddling {
    /// Each period has its share by time, to the octet.
    #[default]
    Prorata,
    /// All of it belongs to the period in which the later report falls; a report at the very edge ends the earlier one.
    Report,
}

/// What a record did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The session changed; usage by bucket changed by this, which may be nothing.
    Changed(Buckets),
    /// The report is known: nothing changed.
    Duplicate,
    /// The report is older than what the tail remembers: read all records of the session again and `refold`.
    /// Nothing changed.
    NeedsRefold,
}

/// Why a session without a Stop is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Accounting-On or -Off of its identity.
    Reboot,
    /// Its id was used again.
    Superseded,
}

/// An incarnation as the fold knows it; `encode` puts it into one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    pub(super) started_at: i64,
    /// A Start told `started_at`; else it is the earliest start that any report implies.
    pub(super) has_start: bool,
    pub(super) last_at: i64,
    pub(super) reading: Reading,
    /// Marks of what is summed up in `base`, and those that stay whatever comes.
    pub(super) base_marks: u16,
    /// By how much the NAS's clock was corrected in the newest report that was.
    pub(super) corrected_by: i64,
    /// `started_at` and `last_at` by the NAS's own clock; `None` when a report did not tell its time.
    pub(super) own_clock: Option<OwnClock>,
    pub(super) base: Option<Cursor>,
    pub(super) tail: Vec<Report>,
    pub(super) totals: Amount,
    pub(super) pending: Buckets,
    pub(super) closed: Option<(CloseReason, i64)>,
}

/// When a session began and when it was last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnClock {
    pub started_at: i64,
    pub last_at: i64,
}

impl SessionState {
    /// A session that has no report yet. `fold` must follow.
    pub fn new(facts: &FoldFacts<'_>) -> Self {
        let reading = Reading {
            gigawords: facts.gigawords,
            max_bits_per_second: facts.max_bits_per_second,
            by_seconds: false,
            informative: false,
            further_link: false,
        };
        Self {
            started_at: i64::MAX,
            has_start: false,
            last_at: i64::MIN,
            reading,
            base_marks: 0,
            corrected_by: 0,
            own_clock: Some(OwnClock { started_at: i64::MAX, last_at: i64::MIN }),
            base: None,
            tail: Vec::new(),
            totals: Amount::default(),
            pending: Buckets::default(),
            closed: None,
        }
    }

    /// Takes in one record of this incarnation. On an error or `NeedsRefold` the state is as before.
    pub fn fold(&mut self, record: &Record, facts: &FoldFacts<'_>) -> Result<Outcome, FoldError> {
        let Some(report) = Report::of(record) else {
            return Ok(Outcome::Duplicate);
        };
        let reading = Reading {
            gigawords: self.reading.gigawords || facts.gigawords || record.gigawords,
            by_seconds: self.reading.by_seconds || report.arrival_based,
            informative: self.reading.informative || record.counting.informative,
            further_link: self.reading.further_link || record.counting.further_link,
            ..self.reading
        };
        if reading == self.reading && self.is_newest(&report) {
            return self.append(&report, facts);
        }
        let mut tail = self.tail.clone();
        match self.place(&report, &mut tail, reading) {
            Place::Known if reading == self.reading => return Ok(Outcome::Duplicate),
            Place::TooOld => return Ok(Outcome::NeedsRefold),
            Place::Known | Place::Inserted => {}
        }
        let (old, new) = (self.steps(&self.tail, self.reading)?, self.steps(&tail, reading)?);
        let mut change = Buckets::default();
        spread_difference(&old.steps, &new.steps, facts, &mut change)?;
        let (started_at, has_start) = self.start_with(&report);
        self.move_start(started_at, facts.cuts, &mut change)?;
        let change = self.take_in(change, reading)?;
        self.note_own_clock(&report);
        (self.started_at, self.has_start, self.reading, self.tail) = (started_at, has_start, reading, tail);
        self.last_at = new.last_at.max(self.base.map_or(i64::MIN, |base| base.event_at));
        self.settle_down(&report, facts)?;
        Ok(Outcome::Changed(change))
    }

    /// Whether the report comes after all that are known, so that none of their steps changes.
    fn is_newest(&self, report: &Report) -> bool {
        let by_seconds = self.reading.by_seconds;
        let after_tail = self.tail.last().is_some_and(|last| last.order(report, by_seconds).is_lt());
        after_tail && !self.tail.iter().any(|known| known.is_copy_of(report))
    }

    /// The usual case of `fold`: one step more, everything else stays.
    fn append(&mut self, report: &Report, facts: &FoldFacts<'_>) -> Result<Outcome, FoldError> {
        let (cursor, step) = step(self.walk()?.end, report, self.reading)?;
        let mut change = Buckets::default();
        step.spread(facts, &mut change)?;
        let (started_at, has_start) = self.start_with(report);
        self.move_start(started_at, facts.cuts, &mut change)?;
        let change = self.take_in(change, self.reading)?;
        self.note_own_clock(report);
        (self.started_at, self.has_start) = (started_at, has_start);
        self.tail.push(*report);
        self.last_at = self.last_at.max(cursor.event_at);
        self.settle_down(report, facts)?;
        Ok(Outcome::Changed(change))
    }

    /// Counts the session where it began.
    fn move_start(&self, started_at: i64, cuts: Cuts<'_>, change: &mut Buckets) -> Result<(), FoldError> {
        if started_at == self.started_at {
            return Ok(());
        }
        let one = Amount { sessions: 1, ..Amount::default() };
        if self.started_at != i64::MAX {
            change.add(bucket_of(self.started_at, cuts), one.negated())?;
        }
        change.add(bucket_of(started_at, cuts), one)
    }

    /// Adds to totals and pending usage, both or neither, what of a change counts in this reading. Gives what is pending
    /// by it.
    fn take_in(&mut self, mut change: Buckets, reading: Reading) -> Result<Buckets, FoldError> {
        if reading.further_link {
            change = change.without_time()?;
        }
        let totals = self.totals.plus(change.total()?)?;
        if reading.informative {
            change = Buckets::default();
        }
        self.pending.takes(&change)?;
        self.pending.merge(&change)?;
        self.totals = totals;
        Ok(change)
    }

    fn settle_down(&mut self, report: &Report, facts: &FoldFacts<'_>) -> Result<(), FoldError> {
        if report.arrival_based {
            self.base_marks |= mark::CLOCK_DOUBTFUL;
            if report.corrected_by != 0 {
                self.corrected_by = report.corrected_by;
            }
        }
        self.reopen_after(report.event_at);
        self.close_if_rebooted(facts.rebooted_at);
        self.compact(facts)
    }

    /// Whether this report is among those the session holds: folding it would change nothing. `None`: it lies before the
    /// tail, and only the journal can tell.
    pub fn knows(&self, record: &Record) -> Option<bool> {
        let Some(report) = Report::of(record) else { return Some(false) };
        if report.kind == ReportKind::Start && self.has_start && self.started_at == report.event_at {
            return Some(true);
        }
        let copied = self.tail.iter().any(|known| known.is_copy_of(&report));
        let mut tail = self.tail.clone();
        match self.place(&report, &mut tail, self.reading) {
            _ if copied => Some(true),
            Place::Known => Some(true),
            Place::TooOld => None,
            Place::Inserted => Some(false),
        }
    }

    /// The counters (in, out) as its last report left them, octets.
    pub fn counters(&self) -> Option<(i64, i64)> {
        self.cursor().map(|last| (last.in_octets, last.out_octets))
    }

    /// Closes the session at its last report, if its identity rebooted at or after all it reported. True if it did.
    pub fn close_if_rebooted(&mut self, rebooted_at: Option<Timestamp>) -> bool {
        let Some(at) = rebooted_at.map(to_micros) else { return false };
        let older = self.started_at <= at && self.last_at <= at;
        if !older || self.ended_at().is_some() {
            return false;
        }
        self.closed = Some((CloseReason::Reboot, at));
        true
    }

    /// Closes the session at its last report, because its id was used again. True if it was open.
    pub fn close_superseded(&mut self) -> bool {
        let open = self.ended_at().is_none();
        if open {
            self.closed = Some((CloseReason::Superseded, i64::MAX));
        }
        open
    }

    /// Takes out the hours that are complete: a later report exists, or the session is over.
    pub fn take_ready(&mut self, cuts: Cuts<'_>) -> Vec<LedgerBucket> {
        let complete_until = if self.ended_at().is_some() { i64::MAX } else { self.last_at };
        self.pending.take(i64::MAX, complete_until, cuts)
    }

    /// Takes out everything that began before `until`, complete or not: a bill run asks.
    pub fn take_until(&mut self, until: Timestamp, cuts: Cuts<'_>) -> Vec<LedgerBucket> {
        self.pending.take(to_micros(until), i64::MAX, cuts)
    }

    /// Empties an incarnation that turned out never to have been; `settle` then takes back what the ledger holds of it.
    pub fn void(&mut self) {
        self.tail.clear();
        self.base = None;
        self.totals = Amount::default();
        self.pending = Buckets::default();
        self.close_superseded();
    }

    /// Takes away what the ledger already holds from a state that was folded from all its records anew; what stays
    /// pending is the difference.
    pub fn settle(&mut self, emitted: &[LedgerBucket], cuts: Cuts<'_>) -> Result<(), FoldError> {
        emitted.iter().try_for_each(|entry| self.pending.take_back(entry, cuts))
    }

    /// It lived so long without an owner that its usage may be kept by the hour only.
    pub fn may_be_coarse(&self) -> bool {
        self.last_at.saturating_sub(self.started_at) > PENDING_FINE as i64 * QUARTER
    }

    pub fn started_at(&self) -> i64 {
        self.started_at
    }

    /// Event time of the newest report that counted.
    pub fn last_at(&self) -> i64 {
        self.last_at
    }

    /// When the session ended: its Stop, or its last report when it was closed without one.
    pub fn ended_at(&self) -> Option<i64> {
        (self.stopped() || self.closed.is_some()).then_some(self.last_at)
    }

    /// `open`, `stopped`, or `closed` (no Stop came, and none can any more be waited for).
    pub fn word(&self) -> &'static str {
        match (self.stopped(), self.closed) {
            (true, _) => "stopped",
            (false, Some(_)) => "closed",
            (false, None) => "open",
        }
    }

    pub fn totals(&self) -> Amount {
        self.totals
    }

    pub fn pending(&self) -> &Buckets {
        &self.pending
    }

    /// Bits of [`mark`].
    pub fn marks(&self) -> u16 {
        let steps = self.walk().map_or(0, |walk| walk.marks);
        let informative = if self.reading.informative { mark::INFORMATIVE } else { 0 };
        let further_link = if self.reading.further_link { mark::FURTHER_LINK } else { 0 };
        self.base_marks | steps | informative | further_link
    }

    /// Counters, session time and Stop as of the last report that counted.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.walk().ok().and_then(|walk| walk.end)
    }

    /// Nothing but a Start is known.
    pub(super) fn only_start(&self) -> bool {
        self.base.is_none() && self.tail.iter().all(|report| report.kind == ReportKind::Start)
    }

    pub(super) fn stopped(&self) -> bool {
        // A Stop of the tail that was not the last in order still stopped the session.
        self.base.is_some_and(|base| base.stopped) || self.tail.iter().any(|report| report.kind == ReportKind::Stop)
    }

    fn place(&self, report: &Report, tail: &mut Vec<Report>, reading: Reading) -> Place {
        let changed = reading != self.reading;
        let wrapped_before = reading.gigawords != self.reading.gigawords && self.base_marks & mark::WRAPPED != 0;
        let reordered = reading.by_seconds != self.reading.by_seconds;
        let counts = |reading: Reading| (reading.informative, reading.further_link);
        if counts(reading) != counts(self.reading) && (self.base.is_some() || !self.tail.is_empty()) {
            // What was counted before was counted otherwise.
            return Place::TooOld;
        }
        if self.base.is_some() && changed && (wrapped_before || reordered) {
            return Place::TooOld;
        }
        if reordered {
            tail.sort_by(|a, b| a.order(b, reading.by_seconds));
        }
        if let Some(known) = tail.iter().position(|known| known.is_copy_of(report)) {
            if report.event_at >= tail[known].event_at {
                return Place::Known;
            }
            // Of copies that differ in their event time the earliest stands for all, in whatever order they come.
            tail.remove(known);
        }
        let at = tail.partition_point(|known| known.order(report, reading.by_seconds).is_lt());
        if at == 0
            && let Some(base) = self.base
        {
            let told = (report.event_at, report.seconds, report.in_octets, report.out_octets);
            let same = !report.interval
                && told == (base.event_at, Some(base.seconds), Some(base.in_octets), Some(base.out_octets));
            return if same { Place::Known } else { Place::TooOld };
        }
        tail.insert(at, *report);
        Place::Inserted
    }

    fn start_with(&self, report: &Report) -> (i64, bool) {
        let has_start = self.has_start || report.kind == ReportKind::Start;
        (self.start_among(self.started_at, report), has_start)
    }

    fn start_among(&self, started_at: i64, report: &Report) -> i64 {
        match (self.has_start, report.kind) {
            (false, ReportKind::Start) => report.event_at,
            (true, ReportKind::Start) => started_at.min(report.event_at),
            (true, _) => started_at,
            (false, _) => started_at.min(report.implied_start()),
        }
    }

    fn note_own_clock(&mut self, report: &Report) {
        self.own_clock = self.own_clock.zip(report.told_at).map(|(known, told_at)| {
            let told = Report { event_at: told_at, ..*report };
            OwnClock { started_at: self.start_among(known.started_at, &told), last_at: known.last_at.max(told_at) }
        });
    }

    fn reopen_after(&mut self, event_at: i64) {
        if let Some((CloseReason::Reboot, at)) = self.closed
            && event_at > at
        {
            self.closed = None;
            self.base_marks |= mark::REOPENED;
        }
    }

    /// Bounds what is kept. Usage that is cut for an account stays as it is cut, so that it is the same whether the ledger
    /// takes it bit by bit or, folded anew, all at once.
    fn compact(&mut self, facts: &FoldFacts<'_>) -> Result<(), FoldError> {
        while self.tail.len() > TAIL {
            let (cursor, done) = step(self.base, &self.tail[0], self.reading)?;
            self.base = Some(cursor);
            self.base_marks |= done.marks;
            self.tail.remove(0);
        }
        if self.pending.len() > PENDING_FINE && facts.cuts.is_none() {
            let mut hours = Buckets::default();
            for (start, amount) in self.pending.iter() {
                hours.add(start - start.rem_euclid(HOUR), amount)?;
            }
            self.pending = hours;
        }
        Ok(())
    }

    /// Goes through the tail and keeps only where it ends.
    fn walk(&self) -> Result<Walk, FoldError> {
        let mut walk = Walk { steps: Vec::new(), end: self.base, marks: 0, last_at: i64::MIN };
        self.tail.iter().try_for_each(|report| walk.go(report, self.reading).map(drop))?;
        Ok(walk)
    }

    fn steps(&self, tail: &[Report], reading: Reading) -> Result<Walk, FoldError> {
        let mut walk = Walk { steps: Vec::with_capacity(tail.len()), end: self.base, marks: 0, last_at: i64::MIN };
        for report in tail {
            let step = walk.go(report, reading)?;
            walk.steps.push(step);
        }
        Ok(walk)
    }
}

enum Place {
    Inserted,
    Known,
    TooOld,
}

struct Walk {
    steps: Vec<Step>,
    end: Option<Cursor>,
    marks: u16,
    last_at: i64,
}

impl Walk {
    fn go(&mut self, report: &Report, reading: Reading) -> Result<Step, FoldError> {
        let (cursor, step) = step(self.end, report, reading)?;
        self.last_at = self.last_at.max(cursor.event_at);
        self.marks |= step.marks;
        self.end = Some(cursor);
        Ok(step)
    }
}

impl Step {
    /// Adds the usage of this step, cut as the tenant wants it.
    fn spread(&self, facts: &FoldFacts<'_>, into: &mut Buckets) -> Result<(), FoldError> {
        let from = match facts.straddling {
            Straddling::Prorata => self.from,
            Straddling::Report => {
                let before = facts.edges.partition_point(|edge| to_micros(*edge) < self.until);
                let last = before.checked_sub(1).map(|index| to_micros(facts.edges[index]));
                last.map_or(self.from, |edge| self.from.max(edge))
            }
        };
        into.spread(from, self.until, self.amount, facts.cuts)
    }
}

/// Spreads what `new` has and `old` has not, and takes back the reverse; what both begin and end with cancels out.
fn spread_difference(old: &[Step], new: &[Step], facts: &FoldFacts<'_>, into: &mut Buckets) -> Result<(), FoldError> {
    let same = |(a, b): &(&Step, &Step)| (a.from, a.until, a.amount) == (b.from, b.until, b.amount);
    let front = old.iter().zip(new).take_while(same).count();
    let (old, new) = (&old[front..], &new[front..]);
    let back = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    for gone in &old[..old.len() - back] {
        // Taken back with the same cuts it was given, so that it cancels to nothing.
        let mut given = Buckets::default();
        gone.spread(facts, &mut given)?;
        given.iter().try_for_each(|(start, amount)| into.add(start, amount.negated()))?;
    }
    new[..new.len() - back].iter().try_for_each(|step| step.spread(facts, into))
}

/// Reports kept apart, so that a late one finds its place among them.
pub(super) const TAIL: usize = 16;
/// Quarter hours kept apart in a session that has no account yet (three weeks); beyond it they become hours.
const PENDING_FINE: usize = 2_016;
