//! Which incarnation of a session id a record belongs to. A NAS uses ids again, after a reboot or a counter's turn.
//!
//! In: the incarnations known of one (NAS identity, Acct-Session-Id), and a record. Out: one of them, or a new one.

use super::amount::Buckets;
use super::report::{Report, ReportKind, step};
use super::state::{FoldFacts, Outcome, OwnClock, SessionState};
use super::{FoldError, Record};

/// Where a record belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The incarnation at this index of the slice.
    Known(usize),
    /// None of those known.
    New,
}

/// Chooses among `known` incarnations, given in any order, by when the record says its session began.
///
/// A Start, or a report whose implied start is later than all an incarnation reported, begins a new one.
pub fn choose<'a>(known: impl IntoIterator<Item = &'a SessionState>, record: &Record) -> Choice {
    let Some(report) = Report::of(record) else { return Choice::New };
    let known: Vec<&SessionState> = known.into_iter().collect();
    // A clock that cannot be right is right about what came after what; arrivals are not, when reports are held up.
    if let Some(told) = report.by_own_clock()
        && let Some(dated) = known.iter().map(|state| Dated::by_own_clock(state)).collect::<Option<Vec<_>>>()
    {
        return choose_among(dated, &told);
    }
    choose_among(known.into_iter().map(Dated::of).collect(), &report)
}

/// An incarnation, its span by one clock or another.
#[derive(Clone, Copy)]
struct Dated<'a> {
    state: &'a SessionState,
    started_at: i64,
    last_at: i64,
    corrected_by: i64,
}

impl<'a> Dated<'a> {
    fn of(state: &'a SessionState) -> Self {
        Self { state, started_at: state.started_at, last_at: state.last_at, corrected_by: state.corrected_by }
    }

    fn by_own_clock(state: &'a SessionState) -> Option<Self> {
        let OwnClock { started_at, last_at } = state.own_clock?;
        Some(Self { state, started_at, last_at, corrected_by: 0 })
    }
}

fn choose_among(known: Vec<Dated<'_>>, report: &Report) -> Choice {
    let mut sorted: Vec<(usize, Dated<'_>)> = known.into_iter().enumerate().collect();
    sorted.sort_by_key(|(index, state)| (state.started_at, *index));
    // With a clock that is corrected the reports' start is as sure as without.
    let by_event = report.arrival_based && report.corrected_by == 0;
    let began_at = if by_event { report.event_at } else { report.implied_start() };
    let began_in = |state: &Dated<'_>| began_at.max(began_at - report.corrected_by + state.corrected_by);
    let after =
        sorted.iter().rposition(|(_, state)| state.started_at <= began_in(state) + SLACK).map_or(0, |last| last + 1);
    let Some((index, candidate)) = after.checked_sub(1).map(|at| sorted[at]) else {
        return before_all(&sorted, report);
    };
    // A clock found off, or mended, between two reports moves the later one; it is of a later session only if it is by
    // both clocks.
    let otherwise_dated = report.as_dated_in(candidate.corrected_by);
    if begins_anew(&candidate, report) && begins_anew(&candidate, &otherwise_dated) {
        // A Start may come after the reports it belongs before.
        return match sorted.get(after) {
            Some((later, state)) if is_late_start(state, report) => Choice::Known(*later),
            _ => Choice::New,
        };
    }
    Choice::Known(index)
}

/// Closes, at their last report, all open incarnations but the newest. Gives the indexes of those it closed.
pub fn supersede(states: &mut [&mut SessionState]) -> Vec<usize> {
    let newest = (0..states.len()).max_by_key(|index| (states[*index].started_at, *index));
    (0..states.len()).filter(|index| Some(*index) != newest && states[*index].close_superseded()).collect()
}

/// Folds all records of one session id anew. The states' pending usage is their whole allocation: `settle` it against
/// what the ledger holds.
///
/// **Errors**: a total leaves 64 bits.
pub fn refold(records: &[Record], facts: &FoldFacts<'_>) -> Result<Vec<SessionState>, FoldError> {
    refold_with(records, facts, |_| ())
}

/// What one record did when all records of a session id were folded anew.
#[derive(Debug)]
pub struct Traced<'t> {
    /// Which of the states that come out it belongs to.
    pub state: usize,
    /// Its place among the records.
    pub record: usize,
    /// When it reported.
    pub event_at: i64,
    /// The usage it brought, by bucket. A copy of a known report brings nothing.
    pub change: &'t Buckets,
    /// Octets that the other reading of an ambiguous fall would have counted besides, in and out.
    pub favoured: [i64; 2],
}

/// As `refold`; `trace` is told of each record that counted, in the order of each incarnation.
pub fn refold_with(
    records: &[Record],
    facts: &FoldFacts<'_>,
    mut trace: impl FnMut(Traced<'_>),
) -> Result<Vec<SessionState>, FoldError> {
    let gigawords = facts.gigawords || records.iter().any(|record| record.gigawords);
    let facts = FoldFacts { gigawords, ..*facts };
    let reports = || records.iter().enumerate().filter_map(|(place, record)| Some((place, Report::of(record)?)));
    let by_seconds = reports().any(|(_, report)| report.arrival_based);
    let mut states: Vec<SessionState> = Vec::new();
    let mut members: Vec<Vec<(usize, Report)>> = Vec::new();
    // First pass, by event time: who belongs together. Second pass, in each one's own order: nothing is too old.
    let mut sorted: Vec<(usize, Report)> = reports().collect();
    let by_own_clock = sorted.iter().any(|(_, report)| report.by_own_clock().is_some())
        && sorted.iter().all(|(_, report)| report.told_at.is_some() && report.corrected_by == 0);
    let dated = |report: &Report| Report {
        event_at: report.told_at.filter(|_| by_own_clock).unwrap_or(report.event_at),
        ..*report
    };
    sorted.sort_by(|(_, a), (_, b)| dated(a).order(&dated(b), false));
    for (place, report) in sorted {
        let record = &records[place];
        let index = match choose(&states, record) {
            Choice::Known(index) => index,
            Choice::New => {
                let mut state = SessionState::new(&facts);
                // This pass only tells whose record it is; how it counts must not stop it.
                (state.reading.informative, state.reading.further_link) = (true, true);
                states.push(state);
                members.push(Vec::new());
                states.len() - 1
            }
        };
        states[index].fold(record, &facts)?;
        members[index].push((place, report));
    }
    let mut folded = Vec::new();
    for (index, mut reports) in members.into_iter().enumerate() {
        reports.sort_by(|(_, a), (_, b)| a.order(b, by_seconds));
        let mut state = SessionState::new(&facts);
        state.reading.by_seconds = by_seconds;
        state.reading.informative = reports.iter().any(|(place, _)| records[*place].counting.informative);
        state.reading.further_link = reports.iter().any(|(place, _)| records[*place].counting.further_link);
        let mut cursor = None;
        for (place, report) in reports {
            let outcome = state.fold(&records[place], &facts)?;
            debug_assert_ne!(outcome, Outcome::NeedsRefold, "sorted records are never too old");
            if let Outcome::Changed(change) = &outcome {
                let (next, step) = step(cursor, &report, state.reading)?;
                cursor = Some(next);
                let (event_at, favoured) = (report.event_at, step.favoured);
                trace(Traced { state: index, record: place, event_at, change, favoured });
            }
        }
        folded.push(state);
    }
    let mut all: Vec<&mut SessionState> = folded.iter_mut().collect();
    supersede(&mut all);
    Ok(folded)
}

/// Says for each of `new`, folded anew, which of `old` it continues; those of `old` that nobody continues were a
/// mistake of a time when less was known, and are to be voided.
pub fn continued(old: &[&SessionState], new: &[SessionState]) -> Vec<Option<usize>> {
    let mut free: Vec<bool> = vec![true; old.len()];
    let mut continues = vec![None; new.len()];
    let mut pairs: Vec<(u64, usize, usize)> = Vec::new();
    for (n, fresh) in new.iter().enumerate() {
        for (o, stored) in old.iter().enumerate() {
            let overlap = fresh.started_at <= stored.last_at.saturating_add(SLACK)
                && stored.started_at <= fresh.last_at.saturating_add(SLACK);
            if overlap {
                pairs.push((fresh.started_at.abs_diff(stored.started_at), n, o));
            }
        }
    }
    pairs.sort_unstable();
    for (_, n, o) in pairs {
        if continues[n].is_none() && free[o] {
            continues[n] = Some(o);
            free[o] = false;
        }
    }
    continues
}

fn before_all(sorted: &[(usize, Dated<'_>)], report: &Report) -> Choice {
    match sorted.first() {
        // It reaches into the first incarnation, or is the Start that one lacked: its beginning, told late.
        Some((index, first))
            if report.event_at.max(report.as_dated_in(first.corrected_by).event_at) >= first.started_at
                || is_late_start(first, report) =>
        {
            Choice::Known(*index)
        }
        _ => Choice::New,
    }
}

fn begins_anew(candidate: &Dated<'_>, report: &Report) -> bool {
    let state = candidate.state;
    let later = report.event_at > candidate.last_at;
    if report.kind == ReportKind::Start {
        let copy_of_start = state.has_start && report.event_at == candidate.started_at;
        let recent = report.arrival_based
            && !state.stopped()
            && report.event_at - if state.has_start { candidate.started_at } else { candidate.last_at } <= RESEND;
        return later && !copy_of_start && !recent;
    }
    if report.seconds.is_none() {
        // Without session time only a counter that fell after the Stop tells of a new session.
        let Some(last) = state.cursor().filter(|last| last.stopped && later) else { return false };
        let fell = |was: i64, now: Option<i64>| !report.interval && now.is_some_and(|now| now < was);
        return report.event_at > candidate.last_at + SLACK
            && (fell(last.in_octets, report.in_octets) || fell(last.out_octets, report.out_octets))
            && report.kind != ReportKind::Stop;
    }
    let began_at = report.implied_start();
    let slack = if state.only_start() { START_LAG } else { SLACK };
    if began_at > candidate.last_at + slack {
        return true;
    }
    // Used again at once: it began when the last one ended, and its session time started over.
    let started_over = state.cursor().is_some_and(|last| report.seconds.unwrap_or(0) < last.seconds);
    later && started_over && began_at >= candidate.last_at - SLACK && !state.only_start()
}

fn is_late_start(state: &Dated<'_>, report: &Report) -> bool {
    report.kind == ReportKind::Start && !state.state.has_start && state.started_at - report.event_at <= START_LAG
}

/// Rounding to seconds, and a clock that was corrected a little: 5 seconds.
const SLACK: i64 = 5_000_000;
/// From a Start to the moment session time counts from (addresses, second link): 60 seconds.
const START_LAG: i64 = 60_000_000;
/// Within this an arrival-based Start after another is a copy: 30 seconds.
const RESEND: i64 = 30_000_000;
