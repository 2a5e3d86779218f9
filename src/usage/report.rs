//! What one report says against the one before it: growth of the counters, wraps, resets, and who comes first.
//!
//! In: reports of one session in order. Out: how much was used between them, and doubts a person may want to see.

use std::cmp::Ordering;

use super::amount::Amount;
use super::{FoldError, Record, RecordKind};
use crate::vocabulary::to_micros;

/// The part of a record that the fold keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    pub kind: ReportKind,
    pub event_at: i64,
    pub seconds: Option<i64>,
    pub in_octets: Option<i64>,
    pub out_octets: Option<i64>,
    /// The event time rests on the arrival, so that two copies of this report may differ in it.
    pub arrival_based: bool,
    /// The counters are those since the report before, not since the start.
    pub interval: bool,
    /// By how much the NAS's clock was corrected. Known of a report that has just come only, as is the next.
    pub corrected_by: i64,
    /// When it happened by the NAS's own clock.
    pub told_at: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ReportKind {
    Start,
    Interim,
    Stop,
}

/// Where the counters stand after some reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub event_at: i64,
    pub seconds: i64,
    pub in_octets: i64,
    pub out_octets: i64,
    pub stopped: bool,
}

/// How the counters of a session are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// Gigawords were seen from this identity: its counters never wrap.
    pub gigawords: bool,
    pub max_bits_per_second: u64,
    /// Some event times rest on arrival: session time orders the reports.
    pub by_seconds: bool,
    /// Another session tells of the same octets: nothing of this one is billed.
    pub informative: bool,
    /// A further link of a multilink session: its time is the first link's.
    pub further_link: bool,
}

/// Usage between two reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub from: i64,
    pub until: i64,
    pub amount: Amount,
    pub marks: u16,
    /// Octets, in and out, that the other reading of an ambiguous fall would have counted besides.
    pub favoured: [i64; 2],
}

/// What somebody looking at a session should know; bits of the column `flags`.
pub mod mark {
    /// A 32-bit counter passed 2^32.
    pub const WRAPPED: u16 = 1;
    /// A counter started again from zero inside the session.
    pub const RESET: u16 = 2;
    /// A fall could be read as a wrap or as a reset; the reading that favours the customer was taken.
    pub const AMBIGUOUS: u16 = 4;
    /// A report after the Stop carried larger counters, and corrected it.
    pub const CORRECTED_AFTER_STOP: u16 = 8;
    /// Some event times were not believable or absent, and rest on the arrival.
    pub const CLOCK_DOUBTFUL: u16 = 16;
    /// A counter rose faster than the link can carry.
    pub const RATE_DOUBTFUL: u16 = 32;
    /// A report came after Accounting-On or -Off had closed the session.
    pub const REOPENED: u16 = 64;
    /// A session time beyond what is believable was cut.
    pub const CLIPPED: u16 = 128;
    /// Another session tells of the same octets: this one is shown and never billed.
    pub const INFORMATIVE: u16 = 256;
    /// A further link of a multilink session: its octets count, its time does not.
    pub const FURTHER_LINK: u16 = 512;

    /// The marks as words, for people.
    pub fn words(marks: i64) -> Vec<&'static str> {
        let names = [
            (WRAPPED, "wrapped"),
            (RESET, "reset"),
            (AMBIGUOUS, "ambiguous"),
            (CORRECTED_AFTER_STOP, "corrected_after_stop"),
            (CLOCK_DOUBTFUL, "clock_doubtful"),
            (RATE_DOUBTFUL, "rate_doubtful"),
            (REOPENED, "reopened"),
            (CLIPPED, "clipped"),
            (INFORMATIVE, "informative"),
            (FURTHER_LINK, "further_link"),
        ];
        names.iter().filter(|(bit, _)| marks & i64::from(*bit) != 0).map(|(_, word)| *word).collect()
    }
}

impl Report {
    /// The report of a Start, Stop or Interim; `None` for other records.
    pub fn of(record: &Record) -> Option<Self> {
        let kind = match record.kind {
            RecordKind::Start => ReportKind::Start,
            RecordKind::Interim => ReportKind::Interim,
            RecordKind::Stop => ReportKind::Stop,
            RecordKind::AccountingOn | RecordKind::AccountingOff | RecordKind::Other(_) => return None,
        };
        let fits = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
        // A Start opens; whatever counters it carries belong to nobody.
        let counters = kind != ReportKind::Start;
        let believed = record.flags.clock_doubtful && !record.flags.arrival_based;
        let told_at = record.told.event_at.filter(|_| believed).unwrap_or(record.event_at);
        Some(Self {
            kind,
            event_at: to_micros(record.event_at),
            seconds: fits(record.session_seconds).filter(|_| counters),
            in_octets: fits(record.in_octets).filter(|_| counters),
            out_octets: fits(record.out_octets).filter(|_| counters),
            arrival_based: record.flags.arrival_based || record.flags.clock_doubtful,
            interval: record.counting.interval,
            corrected_by: to_micros(record.event_at) - to_micros(told_at),
            told_at: record.told.event_at.map(to_micros),
        })
    }

    /// The report as it would be dated by a clock that is corrected by `corrected_by`.
    pub fn as_dated_in(&self, corrected_by: i64) -> Self {
        Self { event_at: self.event_at - self.corrected_by + corrected_by, corrected_by, ..*self }
    }

    /// The report dated by the NAS's own clock, when the daemon's arrival dated it because that clock cannot be right.
    /// Wrong as it is, it orders what it dated.
    pub fn by_own_clock(&self) -> Option<Self> {
        let event_at = self.told_at.filter(|_| self.arrival_based && self.corrected_by == 0)?;
        Some(Self { event_at, arrival_based: false, ..*self })
    }

    /// When the session began, as far as this report tells.
    pub fn implied_start(&self) -> i64 {
        let seconds = self.seconds.unwrap_or(0).clamp(0, LONGEST_SECONDS);
        self.event_at - seconds * 1_000_000
    }

    /// Whether `other` is a copy: the same facts, whatever Acct-Delay-Time, identifier or authenticator it came with.
    pub fn is_copy_of(&self, other: &Self) -> bool {
        let apart = self.event_at.abs_diff(other.event_at);
        // Without Event-Timestamp a copy moves by the rounding of its delay. An idle session that sends no session
        // time either repeats itself honestly, so only close ones are copies then.
        let told_apart_otherwise = self.seconds.is_some() || self.kind == ReportKind::Start;
        let arrival_based = self.arrival_based || other.arrival_based;
        let same_time = apart == 0 || arrival_based && (told_apart_otherwise || apart <= RESEND_SPAN);
        (self.kind, self.seconds, self.in_octets, self.out_octets, self.interval)
            == (other.kind, other.seconds, other.in_octets, other.out_octets, other.interval)
            && same_time
    }

    /// The report with counters since the session's start, whose counters stand at `last`.
    fn since_start(&self, last: &Cursor) -> Result<Self, FoldError> {
        let added = |was: i64, counted: Option<i64>| match counted {
            Some(counted) if self.interval => was.checked_add(counted).map(Some).ok_or(FoldError::Overflow),
            counted => Ok(counted),
        };
        let (in_octets, out_octets) =
            (added(last.in_octets, self.in_octets)?, added(last.out_octets, self.out_octets)?);
        Ok(Self { in_octets, out_octets, ..*self })
    }

    pub fn order(&self, other: &Self, by_seconds: bool) -> Ordering {
        let time = |r: &Self| (r.event_at, r.seconds.unwrap_or(0));
        let lead = |r: &Self| if by_seconds { (time(r).1, time(r).0) } else { time(r) };
        let rest = |r: &Self| (r.kind, r.seconds, r.in_octets, r.out_octets, r.arrival_based, r.interval);
        lead(self).cmp(&lead(other)).then_with(|| rest(self).cmp(&rest(other)))
    }
}

/// Goes from `cursor` (`None` before the first report) to the next report.
///
/// **Errors**: a sum leaves 64 bits.
pub(super) fn step(cursor: Option<Cursor>, report: &Report, reading: Reading) -> Result<(Cursor, Step), FoldError> {
    let Some(last) = cursor else {
        return Ok(first_step(report));
    };
    let report = &report.since_start(&last)?;
    let still =
        Step { from: last.event_at, until: report.event_at, amount: Amount::default(), marks: 0, favoured: [0; 2] };
    let silent = silent_stop(&last, report);
    let (now_in, now_out) = if silent { (None, None) } else { (report.in_octets, report.out_octets) };
    let seconds = match report.seconds {
        Some(seconds) => seconds.clamp(0, LONGEST_SECONDS).max(last.seconds),
        None if report.kind == ReportKind::Start => last.seconds,
        None => last.seconds + (report.event_at - last.event_at).max(0) / 1_000_000,
    };
    if last.stopped {
        let (grown_in, grown_out) = (now_in.unwrap_or(last.in_octets), now_out.unwrap_or(last.out_octets));
        let larger = grown_in >= last.in_octets
            && grown_out >= last.out_octets
            && (grown_in, grown_out) != (last.in_octets, last.out_octets);
        if !larger {
            return Ok((last, still));
        }
        let amount = Amount {
            in_octets: grown_in - last.in_octets,
            out_octets: grown_out - last.out_octets,
            seconds: seconds - last.seconds,
            sessions: 0,
        };
        let next = Cursor {
            event_at: report.event_at.max(last.event_at),
            seconds,
            in_octets: grown_in,
            out_octets: grown_out,
            stopped: true,
        };
        return Ok((next, Step { amount, marks: mark::CORRECTED_AFTER_STOP, ..still }));
    }
    let elapsed = (report.event_at - last.event_at).max((seconds - last.seconds).saturating_mul(1_000_000)).max(0);
    let grown = growth(&last, now_in, now_out, elapsed, reading);
    let amount = Amount {
        in_octets: grown.in_octets,
        out_octets: grown.out_octets,
        seconds: seconds - last.seconds,
        sessions: 0,
    };
    let next = Cursor {
        event_at: report.event_at,
        seconds,
        in_octets: now_in.unwrap_or(last.in_octets),
        out_octets: now_out.unwrap_or(last.out_octets),
        stopped: report.kind == ReportKind::Stop,
    };
    Ok((next, Step { amount, marks: grown.marks, favoured: grown.favoured, ..still }))
}

fn first_step(report: &Report) -> (Cursor, Step) {
    let said = report.seconds.unwrap_or(0);
    let seconds = said.clamp(0, LONGEST_SECONDS);
    let cursor = Cursor {
        event_at: report.event_at,
        seconds,
        in_octets: report.in_octets.unwrap_or(0),
        out_octets: report.out_octets.unwrap_or(0),
        stopped: report.kind == ReportKind::Stop,
    };
    let amount = Amount { in_octets: cursor.in_octets, out_octets: cursor.out_octets, seconds, sessions: 0 };
    let marks = if said == seconds { 0 } else { mark::CLIPPED };
    (cursor, Step { from: report.implied_start(), until: report.event_at, amount, marks, favoured: [0; 2] })
}

/// A Stop without counters, or with zeros where there was traffic, says only that it is over.
fn silent_stop(last: &Cursor, report: &Report) -> bool {
    report.kind == ReportKind::Stop
        && report.in_octets.unwrap_or(0) == 0
        && report.out_octets.unwrap_or(0) == 0
        && (last.in_octets, last.out_octets) != (0, 0)
}

struct Growth {
    in_octets: i64,
    out_octets: i64,
    marks: u16,
    favoured: [i64; 2],
}

/// Growth of both counters, deciding what a fall means.
///
/// Both fell: the session's counters started again, unless both stood near the top. One fell while the other rose: a
/// wrap, if the link could have carried it. What stays open is read as a reset, which favours the customer.
fn growth(last: &Cursor, now_in: Option<i64>, now_out: Option<i64>, elapsed: i64, reading: Reading) -> Growth {
    let now_in = now_in.unwrap_or(last.in_octets);
    let now_out = now_out.unwrap_or(last.out_octets);
    let possible = |octets: i64| {
        let carried = i128::from(reading.max_bits_per_second) * i128::from(elapsed + 1_000_000) / 8_000_000;
        i128::from(octets) <= carried
    };
    let wrapped = |was: i64, now: i64| (!reading.gigawords && was < TOP).then(|| TOP - was + now);
    let near_top = |was: i64| was >= TOP - TOP / 8;
    let (fell_in, fell_out) = (now_in < last.in_octets, now_out < last.out_octets);
    let rose = now_in > last.in_octets || now_out > last.out_octets;
    let near = (!fell_in || near_top(last.in_octets)) && (!fell_out || near_top(last.out_octets));
    let mut marks = 0;
    let mut favoured = [0; 2];
    let mut read = |was: i64, now: i64, place: usize| {
        if now >= was {
            if !possible(now - was) {
                marks |= mark::RATE_DOUBTFUL;
            }
            return now - was;
        }
        match wrapped(was, now).filter(|octets| possible(*octets)) {
            Some(octets) if rose || near => {
                marks |= mark::WRAPPED;
                octets
            }
            Some(octets) => {
                marks |= mark::RESET | mark::AMBIGUOUS;
                favoured[place] = octets - now;
                now
            }
            None => {
                marks |= mark::RESET;
                now
            }
        }
    };
    let (in_octets, out_octets) = (read(last.in_octets, now_in, 0), read(last.out_octets, now_out, 1));
    Growth { in_octets, out_octets, marks, favoured }
}

/// Within this a NAS resends; beyond it an equal report is a new one. 30 seconds.
const RESEND_SPAN: u64 = 30_000_000;
/// 2^32, where a counter without gigawords starts again.
const TOP: i64 = 1 << 32;
/// A session time beyond this is not believed: 400 days.
const LONGEST_SECONDS: i64 = 400 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    const READING: Reading = Reading {
        gigawords: false,
        max_bits_per_second: 10_000_000_000,
        by_seconds: false,
        informative: false,
        further_link: false,
    };

    fn cursor(in_octets: i64, out_octets: i64) -> Cursor {
        Cursor { event_at: 0, seconds: 300, in_octets, out_octets, stopped: false }
    }

    fn interim(in_octets: i64, out_octets: i64) -> Report {
        Report {
            kind: ReportKind::Interim,
            event_at: 300_000_000,
            seconds: Some(600),
            in_octets: Some(in_octets),
            out_octets: Some(out_octets),
            arrival_based: false,
            interval: false,
            corrected_by: 0,
            told_at: None,
        }
    }

    fn grown(last: Cursor, report: Report, reading: Reading) -> (i64, i64, u16) {
        let (_, step) = step(Some(last), &report, reading).expect("fits");
        (step.amount.in_octets, step.amount.out_octets, step.marks)
    }

    #[test]
    fn a_fall_is_read_by_what_the_link_can_carry() {
        let slow = Reading { max_bits_per_second: 20_000_000, ..READING };
        let giga = Reading { gigawords: true, ..READING };
        let top = TOP - 1000;
        let cases = [
            ("one side wrapped", cursor(10, 3_000_000_000), interim(20, 5), READING, (10, TOP - 3_000_000_000 + 5)),
            ("the link is too slow to wrap", cursor(10, 3_000_000_000), interim(20, 5), slow, (10, 5)),
            ("gigawords never wrap", cursor(10, 3_000_000_000), interim(20, 5), giga, (10, 5)),
            ("both fell: reset", cursor(500, 900), interim(100, 200), READING, (100, 200)),
            ("both near the top: wrap", cursor(top, top), interim(1, 2), READING, (1001, 1002)),
        ];
        for (name, last, report, reading, (want_in, want_out)) in cases {
            let (in_octets, out_octets, _) = grown(last, report, reading);
            assert_eq!((in_octets, out_octets), (want_in, want_out), "{name}");
        }
        let (.., marks) = grown(cursor(500, 900), interim(100, 200), READING);
        assert_eq!(marks, mark::RESET | mark::AMBIGUOUS);
    }

    #[test]
    fn a_stop_without_counters_lowers_nothing() {
        for (in_octets, out_octets) in [(None, None), (Some(0), Some(0)), (None, Some(0))] {
            let stop = Report { kind: ReportKind::Stop, in_octets, out_octets, ..interim(0, 0) };
            let (next, step) = step(Some(cursor(70, 80)), &stop, READING).expect("fits");
            assert_eq!((step.amount.in_octets, step.amount.out_octets, step.marks), (0, 0, 0));
            assert_eq!((next.in_octets, next.out_octets, next.stopped), (70, 80, true));
        }
    }

    #[test]
    fn counters_of_an_interval_are_added() {
        let since_last = Report { interval: true, ..interim(30, 4) };
        let (next, step) = step(Some(cursor(500, 900)), &since_last, READING).expect("fits");
        assert_eq!((step.amount.in_octets, step.amount.out_octets, step.marks), (30, 4, 0));
        assert_eq!((next.in_octets, next.out_octets), (530, 904));
    }

    #[test]
    fn after_the_stop_only_larger_counters_count() {
        let stopped = Cursor { stopped: true, ..cursor(70, 80) };
        assert_eq!(grown(stopped, interim(60, 75), READING), (0, 0, 0));
        assert_eq!(grown(stopped, interim(70, 80), READING), (0, 0, 0));
        assert_eq!(grown(stopped, interim(90, 80), READING), (20, 0, mark::CORRECTED_AFTER_STOP));
    }

    #[test]
    fn a_copy_is_told_by_its_facts_and_its_time() {
        let first = interim(60, 75);
        let later = |micros: i64, report: Report| Report { event_at: report.event_at + micros, ..report };
        assert!(first.is_copy_of(&first));
        assert!(!later(1, first).is_copy_of(&first), "another second of the NAS's own clock is another report");
        for (a, b) in [(true, false), (false, true), (true, true)] {
            let one = Report { arrival_based: a, ..first };
            let other = later(3_600_000_000, Report { arrival_based: b, ..first });
            assert!(one.is_copy_of(&other), "its session time tells it, whenever it arrived");
            let untold = |report: Report| Report { seconds: None, ..report };
            assert!(!untold(one).is_copy_of(&untold(other)), "an idle session repeats itself");
            let near = later(RESEND_SPAN.cast_signed(), Report { arrival_based: b, ..first });
            assert!(untold(one).is_copy_of(&untold(near)), "within half a minute a NAS resends");
            assert!(!untold(one).is_copy_of(&untold(later(1, near))));
            let start = |report: Report| Report { kind: ReportKind::Start, ..untold(report) };
            assert!(start(one).is_copy_of(&start(other)), "a session has one Start");
        }
        for other in [
            Report { kind: ReportKind::Stop, ..first },
            Report { seconds: Some(601), ..first },
            Report { in_octets: Some(61), ..first },
            Report { out_octets: None, ..first },
            Report { interval: true, ..first },
        ] {
            assert!(!first.is_copy_of(&other) && !other.is_copy_of(&first), "{other:?}");
        }
    }

    #[test]
    fn start_is_implied_by_the_session_time_that_is_believed() {
        assert_eq!(Report { seconds: Some(300), ..interim(0, 0) }.implied_start(), 0);
        assert_eq!(Report { seconds: None, ..interim(0, 0) }.implied_start(), 300_000_000);
        assert_eq!(Report { seconds: Some(-5), ..interim(0, 0) }.implied_start(), 300_000_000);
        let long = Report { seconds: Some(i64::MAX), ..interim(0, 0) };
        assert_eq!(long.implied_start(), 300_000_000 - 400 * 86_400 * 1_000_000);
    }

    #[test]
    fn every_mark_has_its_word() {
        let all = mark::words(i64::from(u16::MAX));
        assert_eq!(
            all,
            [
                "wrapped",
                "reset",
                "ambiguous",
                "corrected_after_stop",
                "clock_doubtful",
                "rate_doubtful",
                "reopened",
                "clipped",
                "informative",
                "further_link"
            ]
        );
        assert_eq!(mark::words(0), Vec::<&str>::new());
        assert_eq!(mark::words(i64::from(mark::RESET | mark::INFORMATIVE)), ["reset", "informative"]);
    }

    #[test]
    fn report_is_dated_otherwise_by_another_correction() {
        let corrected = Report { corrected_by: 7_000_000, told_at: Some(293_000_000), ..interim(1, 2) };
        let otherwise = corrected.as_dated_in(2_000_000);
        assert_eq!((otherwise.event_at, otherwise.corrected_by), (295_000_000, 2_000_000));
        assert_eq!(otherwise.as_dated_in(7_000_000), corrected);
        assert_eq!((otherwise.seconds, otherwise.in_octets), (Some(600), Some(1)));
        let dated = Report { arrival_based: true, told_at: Some(5), ..interim(1, 2) };
        let own = dated.by_own_clock().expect("its arrival dated it");
        assert_eq!((own.event_at, own.arrival_based, own.in_octets), (5, false, Some(1)));
        for other in [
            Report { arrival_based: false, ..dated },
            Report { corrected_by: 1, ..dated },
            Report { told_at: None, ..dated },
        ] {
            assert_eq!(other.by_own_clock().map(|report| report.event_at), None);
        }
    }

    #[test]
    fn what_a_fall_means_is_marked_and_what_it_costs_is_kept() {
        let fast = Reading { max_bits_per_second: 200_000_000_000, ..READING };
        let near = TOP - TOP / 8;
        let wrapped = |was: i64, now: i64| TOP - was + now;
        let doubtful = mark::RESET | mark::AMBIGUOUS;
        type Case = (&'static str, (i64, i64), (i64, i64), Reading, (i64, i64), u16, [i64; 2]);
        let cases: [Case; 9] = [
            ("both grow", (1, 2), (11, 22), READING, (10, 20), 0, [0, 0]),
            ("nothing moves", (5, 6), (5, 6), READING, (0, 0), 0, [0, 0]),
            (
                "one wraps while the other rises",
                (10, near - 1),
                (11, 0),
                fast,
                (1, wrapped(near - 1, 0)),
                mark::WRAPPED,
                [0, 0],
            ),
            (
                "one falls and the other stands: below the edge",
                (10, near - 1),
                (10, 0),
                fast,
                (0, 0),
                doubtful,
                [0, wrapped(near - 1, 0)],
            ),
            (
                "one falls and the other stands: near the edge",
                (10, near),
                (10, 0),
                fast,
                (0, wrapped(near, 0)),
                mark::WRAPPED,
                [0, 0],
            ),
            (
                "both fall, one of them near the edge",
                (100, near),
                (1, 2),
                fast,
                (1, 2),
                doubtful,
                [wrapped(100, 1) - 1, wrapped(near, 2) - 2],
            ),
            (
                "both fall near the edge",
                (near, near),
                (1, 2),
                fast,
                (wrapped(near, 1), wrapped(near, 2)),
                mark::WRAPPED,
                [0, 0],
            ),
            ("beyond 32 bits nothing wraps", (1, TOP), (2, 7), fast, (1, 7), mark::RESET, [0, 0]),
            (
                "more than the link carries",
                (0, 0),
                (0, 1_000_000_000_000),
                READING,
                (0, 1_000_000_000_000),
                mark::RATE_DOUBTFUL,
                [0, 0],
            ),
        ];
        for (name, was, now, reading, amount, marks, favoured) in cases {
            let found = growth(&cursor(was.0, was.1), Some(now.0), Some(now.1), 300_000_000, reading);
            assert_eq!(
                ((found.in_octets, found.out_octets), found.marks, found.favoured),
                (amount, marks, favoured),
                "{name}"
            );
        }
    }

    #[test]
    fn a_rate_is_possible_up_to_what_the_link_carries_in_the_time_and_a_second() {
        let slow = Reading { max_bits_per_second: 8_000, ..READING };
        // 300 s and one more at 1,000 octets a second.
        let marks = |octets: i64| growth(&cursor(0, 0), Some(octets), Some(0), 300_000_000, slow).marks;
        assert_eq!((marks(301_000), marks(301_001)), (0, mark::RATE_DOUBTFUL));
    }

    #[test]
    fn session_time_that_is_not_believed_is_cut_and_marked() {
        let first = |seconds: i64| {
            let report = Report { seconds: Some(seconds), event_at: 1 << 55, ..interim(10, 20) };
            step(None, &report, READING).expect("fits").1
        };
        assert_eq!((first(LONGEST_SECONDS).amount.seconds, first(LONGEST_SECONDS).marks), (LONGEST_SECONDS, 0));
        let beyond = first(LONGEST_SECONDS + 1);
        assert_eq!((beyond.amount.seconds, beyond.marks), (LONGEST_SECONDS, mark::CLIPPED));
        assert_eq!(beyond.until - beyond.from, 400 * 86_400 * 1_000_000);
    }
}
