//! When an event happened: what a NAS's clock tells, how far that clock is off, and what is believed instead.
//!
//! In: Event-Timestamp, Acct-Delay-Time and arrival of reports. Out: the instant of the event, and per NAS an offset that
//! many reports agree on. Offsets take effect from an instant of arrival on and are kept, so that a record that is read
//! again is dated again as it was.
//! Source: RFC 2869 section 5.3, RFC 2866 section 5.2.

use std::collections::VecDeque;

use jiff::SignedDuration;

use super::Record;
use crate::vocabulary::{Timestamp, to_micros};

/// What a report says of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// Event-Timestamp: when it happened by the clock of the NAS, the same in every copy of the report.
    pub event_at: Option<Timestamp>,
    /// Acct-Delay-Time: how long the NAS has been sending it, which differs from copy to copy.
    pub delay_seconds: Option<u32>,
}

/// When an event happened, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTime {
    pub at: Timestamp,
    /// It is arrival − delay.
    pub arrival_based: bool,
    /// The NAS's clock was not believed as it is.
    pub doubtful: bool,
}

/// Event-Timestamp plus the clock's offset where that can be true, else arrival − Acct-Delay-Time. Never both: the delay
/// says nothing of an event whose own time is known.
pub fn event_time(told: Told, arrived_at: Timestamp, offset_seconds: i64) -> EventTime {
    let corrected = told.event_at.and_then(|at| at.checked_add(SignedDuration::from_secs(offset_seconds)).ok());
    if let Some(at) = corrected.filter(|at| is_plausible(*at, arrived_at)) {
        return EventTime { at, arrival_based: false, doubtful: offset_seconds != 0 };
    }
    let clock_failed = told.event_at.is_some();
    let Some(delay) = told.delay_seconds else {
        return EventTime { at: arrived_at, arrival_based: true, doubtful: clock_failed };
    };
    let sent_first = arrived_at.checked_sub(SignedDuration::from_secs(i64::from(delay))).ok();
    match sent_first.filter(|at| is_plausible(*at, arrived_at)) {
        Some(at) => EventTime { at, arrival_based: true, doubtful: clock_failed },
        None => EventTime { at: arrived_at, arrival_based: true, doubtful: true },
    }
}

/// Neither in the future, where it could open the next period, nor older than any record that is waited for.
fn is_plausible(at: Timestamp, arrived_at: Timestamp) -> bool {
    let age = arrived_at.duration_since(at);
    SignedDuration::from_secs(-TOLERANCE) <= age && age <= AGE_MAX
}

impl Record {
    /// Dates the event anew, by a clock that is off by so much. A record without Event-Timestamp stays as it is.
    pub fn correct_clock(&mut self, offset_seconds: i64) {
        if self.told.event_at.is_none() {
            return;
        }
        let time = event_time(self.told, self.arrived_at, offset_seconds);
        self.event_at = time.at;
        (self.flags.arrival_based, self.flags.clock_doubtful) = (time.arrival_based, time.doubtful);
    }

    /// Seconds by which the NAS's clock seems to be behind: arrival − delay − Event-Timestamp.
    pub fn clock_sample(&self) -> Option<i64> {
        let event_at = self.told.event_at?;
        let delay = i64::from(self.told.delay_seconds.unwrap_or(0));
        Some((to_micros(self.arrived_at) - to_micros(event_at)).div_euclid(1_000_000) - delay)
    }
}

/// What the last reports of one NAS say of its clock.
///
/// Lateness only ever adds to a sample: a report that waited for its server looks like a clock that is behind. So of
/// each minute the smallest sample stands, and of several minutes the median, if most agree on it: a burst of old
/// reports after an outage is a few minutes, and they do not agree.
#[derive(Debug, Clone, Default)]
pub struct Skew {
    /// (minute of arrival, smallest sample), ascending.
    minutes: VecDeque<(i64, i64)>,
}

impl Skew {
    /// Takes in a sample. Those that arrive out of order are left out.
    pub fn observe(&mut self, arrived_at: Timestamp, sample: i64) {
        let minute = to_micros(arrived_at).div_euclid(60_000_000);
        match self.minutes.back_mut() {
            Some((last, least)) if *last == minute => *least = sample.min(*least),
            Some((last, _)) if *last > minute => {}
            _ => self.minutes.push_back((minute, sample)),
        }
        if self.minutes.len() > MINUTES {
            self.minutes.pop_front();
        }
    }

    /// The offset in seconds that should be in force instead of `in_force`, if it is to change. Within the tolerance it
    /// is 0: then the NAS is believed.
    pub fn change(&self, in_force: i64) -> Option<i64> {
        if self.minutes.len() < MINUTES_LEAST {
            return None;
        }
        let mut samples: Vec<i64> = self.minutes.iter().map(|(_, sample)| *sample).collect();
        samples.sort_unstable();
        let median = samples[samples.len() / 2];
        let agreeing = samples.iter().filter(|sample| sample.abs_diff(median) <= AGREEMENT).count();
        if agreeing * 3 < samples.len() * 2 {
            return None;
        }
        let offset = if median.abs() <= TOLERANCE { 0 } else { snapped(median) };
        (offset != in_force && (offset == 0 || offset.abs_diff(in_force) > TOLERANCE.unsigned_abs())).then_some(offset)
    }

    /// In how many minutes samples came.
    pub fn samples(&self) -> usize {
        self.minutes.len()
    }
}

/// A clock that is right but set to a zone is off by a multiple of 15 minutes exactly; the rest is the way of the packet.
fn snapped(offset: i64) -> i64 {
    let quarter = (offset + QUARTER / 2).div_euclid(QUARTER) * QUARTER;
    if quarter != 0 && offset.abs_diff(quarter) <= SNAP { quarter } else { offset }
}

/// A clock this near is right enough, in seconds.
const TOLERANCE: i64 = 90;
const AGE_MAX: SignedDuration = SignedDuration::from_hours(400 * 24);
/// Minutes with samples that are looked at, and how many there must be.
const MINUTES: usize = 9;
const MINUTES_LEAST: usize = 5;
/// Samples this near to one another, in seconds, speak of one offset.
const AGREEMENT: u64 = 30;
const QUARTER: i64 = 900;
const SNAP: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::from_micros;

    const BASE: i64 = 1_793_000_000;

    fn at(second: i64) -> Timestamp {
        from_micros(second * 1_000_000).expect("in range")
    }

    fn told(event: Option<i64>, delay: Option<u32>) -> Told {
        Told { event_at: event.map(at), delay_seconds: delay }
    }

    #[test]
    fn clocks_that_cannot_be_right_give_way_to_the_arrival() {
        let year = |year: i64| (year - 1970) * 31_556_952;
        for (name, event, delay, expected) in [
            ("a second ago", Some(BASE - 1), Some(7), (BASE - 1, false, false)),
            ("within the tolerance ahead", Some(BASE + 90), None, (BASE + 90, false, false)),
            ("in the future", Some(BASE + 91), Some(30), (BASE - 30, true, true)),
            ("zero", Some(0), Some(30), (BASE - 30, true, true)),
            ("since its boot in 1970", Some(600), None, (BASE, true, true)),
            ("since its boot in 2000", Some(year(2000) + 600), None, (BASE, true, true)),
            ("a year and a month old", Some(BASE - 395 * 86_400), None, (BASE - 395 * 86_400, false, false)),
            ("none", None, Some(60), (BASE - 60, true, false)),
            ("none, and the delay is absurd", None, Some(u32::MAX), (BASE, true, true)),
            ("nothing at all", None, None, (BASE, true, false)),
        ] {
            let time = event_time(told(event, delay), at(BASE), 0);
            assert_eq!(
                (time.at, time.arrival_based, time.doubtful),
                (at(expected.0), expected.1, expected.2),
                "{name}"
            );
        }
    }

    #[test]
    fn known_offset_is_added_and_told() {
        let behind = event_time(told(Some(BASE - 7_260), None), at(BASE), 7_200);
        assert_eq!((behind.at, behind.arrival_based, behind.doubtful), (at(BASE - 60), false, true));
        let boot_clock = event_time(told(Some(600), None), at(BASE), BASE - 600 - 2);
        assert_eq!(boot_clock.at, at(BASE - 2), "also of a clock that began in 1970");
        let ahead = event_time(told(Some(BASE + 200), Some(5)), at(BASE), 0);
        assert_eq!(ahead.at, at(BASE - 5), "what would be in the future is dated by its arrival");
    }

    /// Feeds a minute's samples, one each.
    fn skew(samples: &[i64]) -> Skew {
        let mut skew = Skew::default();
        for (minute, sample) in samples.iter().enumerate() {
            skew.observe(at(BASE + 60 * i64::try_from(minute).expect("few")), *sample);
        }
        skew
    }

    #[test]
    fn offset_is_what_most_minutes_agree_on() {
        for (name, samples, in_force, expected) in [
            ("too few minutes", &[7_200, 7_200, 7_200, 7_200][..], 0, None),
            ("two hours behind", &[7_201, 7_200, 7_203, 7_201, 7_200], 0, Some(7_200)),
            ("three hours and 7 minutes ahead", &[-11_220, -11_219, -11_221, -11_220, -11_220], 0, Some(-11_220)),
            ("a zone of 5:45", &[20_701, 20_700, 20_702, 20_700, 20_701], 0, Some(20_700)),
            ("within the tolerance", &[80, 81, 82, 80, 81], 0, None),
            ("an outage's backlog for two minutes", &[0, 1, 0, 1, 0, 3_000, 2_400, 0, 1], 0, None),
            ("a backlog that does not agree", &[600, 1_200, 1_800, 2_400, 3_000], 0, None),
            ("already known", &[7_201, 7_200, 7_203, 7_201, 7_200], 7_200, None),
            ("mended", &[1, 0, 1, 0, 2], 7_200, Some(0)),
            ("changed by the summer", &[10_801, 10_800, 10_802, 10_800, 10_801], 7_200, Some(10_800)),
        ] {
            assert_eq!(skew(samples).change(in_force), expected, "{name}");
        }
    }

    #[test]
    fn one_live_report_a_minute_outweighs_any_number_of_old_ones() {
        let mut skew = Skew::default();
        for minute in 0..9 {
            for late in [3_500, 9, 2_000, 1, 777] {
                skew.observe(at(BASE + 60 * minute), late);
            }
        }
        assert_eq!(skew.change(0), None);
        assert_eq!(skew.samples(), 9);
    }

    #[test]
    fn clock_without_a_battery_is_learned_only_while_it_runs() {
        let standing: Vec<i64> = (0..9).map(|minute| BASE + 60 * minute).collect();
        assert_eq!(skew(&standing).change(0), None, "always 0: every minute tells another offset");
        let running = vec![BASE - 600; 6];
        assert!(skew(&running).change(0).is_some());
    }

    #[test]
    fn limits_of_agreement_tolerance_and_snapping() {
        let all = |sample: i64| vec![sample; 6];
        // Off by a quarter of an hour and the way of the packet.
        assert_eq!(skew(&all(900 + SNAP as i64)).change(0), Some(900));
        assert_eq!(skew(&all(900 - SNAP as i64)).change(0), Some(900));
        assert_eq!(skew(&all(900 + SNAP as i64 + 1)).change(0), Some(900 + SNAP as i64 + 1));
        assert_eq!(skew(&all(TOLERANCE)).change(5_000), Some(0));
        assert_eq!(skew(&all(TOLERANCE + 1)).change(0), Some(TOLERANCE + 1), "near no zone: as it is");
        // Another offset within the tolerance of the one in force is the same.
        assert_eq!(skew(&all(1_500)).change(1_500 - TOLERANCE), None);
        assert_eq!(skew(&all(1_500)).change(1_500 - TOLERANCE - 1), Some(1_500));
        // Two thirds must agree with the median, within their span.
        let agree = AGREEMENT as i64;
        assert_eq!(skew(&[1_500, 1_500, 1_500, 1_500 + agree, 9_000, 99_000]).change(0), Some(1_500 + agree));
        assert_eq!(skew(&[1_500, 1_500, 1_500, 1_500 + agree + 1, 9_000, 99_000]).change(0), None);
    }

    #[test]
    fn record_is_dated_by_the_corrected_clock_and_gives_a_sample() {
        let mut record = crate::usage::tests::record_at(BASE, BASE - 7_200);
        assert_eq!(record.clock_sample(), Some(7_200));
        record.correct_clock(7_200);
        assert_eq!((record.event_at, record.flags.arrival_based, record.flags.clock_doubtful), (at(BASE), false, true));
        record.told.event_at = None;
        assert_eq!(record.clock_sample(), None);
    }
}
