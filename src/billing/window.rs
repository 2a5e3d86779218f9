//! Windows of the week in which usage counts or costs otherwise, as stretches of time in a zone.
//!
//! A window begins and ends at instants of the local clock and belongs to the day it begins on. Where the clock shows an
//! instant twice the first one is meant; where it skips one, the first instant after the gap. So windows that tile the
//! week tile time, whatever the clock does.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Time, Weekday};
use jiff::tz::AmbiguousOffset;
use thiserror::Error;

use super::calendar::CalendarError;
use super::tariff::PartPrice;
use crate::vocabulary::{Date, Timestamp, Zone};

/// A window of some days of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub id: String,
    pub days: Days,
    /// Minutes of the day, 0 to 1439.
    pub from: u16,
    /// 1 to 1440; at or before `from` it is one of the next day.
    pub until: u16,
    pub price: PartPrice,
}

/// A set of days of the week; bit 0 is Monday.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Days(u8);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DaysError {
    #[error("{0:?} names no days of the week; write for example mon-fri, or sat,sun")]
    Form(String),
}

/// Which window holds at which time, over a stretch of time.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    /// From this instant on this window, by its place in the list; ascending.
    changes: Vec<(Timestamp, Option<usize>)>,
}

impl Timeline {
    /// The windows over `[from, until)`. **Errors**: the time leaves the calendar.
    pub fn of(windows: &[Window], zone: &Zone, from: Timestamp, until: Timestamp) -> Result<Self, CalendarError> {
        let found = intervals(windows, zone, from, until)?;
        let mut edges: Vec<Timestamp> = found.iter().flat_map(|(begins, ends, _)| [*begins, *ends]).collect();
        edges.push(from);
        edges.sort();
        edges.dedup();
        let mut changes: Vec<(Timestamp, Option<usize>)> = Vec::with_capacity(edges.len());
        let mut first_open = 0;
        for edge in edges {
            // No window is longer than a day and the clock's changes.
            let long_ago = edge.as_second() - LONGEST_SECONDS;
            while found.get(first_open).is_some_and(|(begins, ..)| begins.as_second() < long_ago) {
                first_open += 1;
            }
            let open = found[first_open..].iter().take_while(|(begins, ..)| *begins <= edge);
            let holds = open.filter(|(_, ends, _)| edge < *ends).map(|(.., index)| *index).min();
            if changes.last().is_none_or(|(_, before)| *before != holds) {
                changes.push((edge, holds));
            }
        }
        Ok(Self { changes })
    }

    /// The parts of `[from, until)`, each with its window, in order; together they are the whole.
    pub fn pieces(&self, from: Timestamp, until: Timestamp) -> Vec<(Timestamp, Timestamp, Option<usize>)> {
        let after = self.changes.partition_point(|(at, _)| *at <= from);
        let mut window = after.checked_sub(1).and_then(|index| self.changes[index].1);
        let mut pieces = Vec::with_capacity(1);
        let mut begins = from;
        for (at, next) in &self.changes[after..] {
            if *at >= until {
                break;
            }
            pieces.push((begins, *at, window));
            (begins, window) = (*at, *next);
        }
        pieces.push((begins, until, window));
        pieces
    }
}

/// Every instant at which one of the windows begins or ends, within `[from, until)`, ascending.
pub fn edges(
    windows: &[Window],
    zone: &Zone,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<Timestamp>, CalendarError> {
    let found = intervals(windows, zone, from, until)?;
    let mut edges: Vec<Timestamp> = found.into_iter().flat_map(|(begins, ends, _)| [begins, ends]).collect();
    edges.retain(|edge| from <= *edge && *edge < until);
    edges.sort();
    edges.dedup();
    Ok(edges)
}

/// Local midnights within `[from, until)`, ascending.
pub fn midnights(zone: &Zone, from: Timestamp, until: Timestamp) -> Result<Vec<Timestamp>, CalendarError> {
    let mut found = Vec::new();
    let mut day = from.to_zoned(zone.clone()).date();
    loop {
        let at = day.to_zoned(zone.clone()).map_err(|_| CalendarError::OutOfRange)?.timestamp();
        if at >= until {
            return Ok(found);
        }
        if at >= from {
            found.push(at);
        }
        day = day.tomorrow().map_err(|_| CalendarError::OutOfRange)?;
    }
}

/// Every window of every day that touches the stretch, by its beginning.
fn intervals(
    windows: &[Window],
    zone: &Zone,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<(Timestamp, Timestamp, usize)>, CalendarError> {
    let mut found = Vec::new();
    if windows.is_empty() {
        return Ok(found);
    }
    let out_of_range = |_| CalendarError::OutOfRange;
    let mut day = from.to_zoned(zone.clone()).date().yesterday().map_err(out_of_range)?;
    let last = until.to_zoned(zone.clone()).date();
    while day <= last {
        let tomorrow = day.tomorrow().map_err(out_of_range)?;
        for (index, window) in windows.iter().enumerate().filter(|(_, window)| window.days.holds(day.weekday())) {
            let begins = instant(zone, day, window.from)?;
            let ends = if window.until > window.from { (day, window.until) } else { (tomorrow, window.until) };
            let ends = instant(zone, ends.0, ends.1)?;
            if begins < ends {
                found.push((begins, ends, index));
            }
        }
        day = tomorrow;
    }
    found.sort();
    Ok(found)
}

/// The instant at which the local clock shows this minute of the day.
fn instant(zone: &Zone, day: Date, minute: u16) -> Result<Timestamp, CalendarError> {
    let out_of_range = |_| CalendarError::OutOfRange;
    let (day, minute) = match minute {
        DAY_MINUTES => (day.tomorrow().map_err(out_of_range)?, 0),
        minute => (day, minute),
    };
    let whole = |number: u16| i8::try_from(number).expect("hours and minutes of a day are small");
    let time = Time::new(whole(minute / 60), whole(minute % 60), 0, 0).map_err(out_of_range)?;
    let shown = zone.to_ambiguous_timestamp(day.to_datetime(time));
    match shown.offset() {
        AmbiguousOffset::Gap { .. } => {
            let after = shown.later().map_err(out_of_range)?;
            Ok(zone.preceding(after).next().map_or(after, |change| change.timestamp()))
        }
        _ => shown.compatible().map_err(out_of_range),
    }
}

impl Days {
    pub fn holds(self, day: Weekday) -> bool {
        self.0 & 1 << day.to_monday_zero_offset() != 0
    }
}

impl FromStr for Days {
    type Err = DaysError;

    fn from_str(text: &str) -> Result<Self, DaysError> {
        let form = || DaysError::Form(text.chars().take(40).collect());
        let day = |word: &str| DAYS.iter().position(|day| *day == word.trim()).ok_or_else(form);
        let mut bits = 0;
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (day(first)?, day(last)?),
                None => (day(part)?, day(part)?),
            };
            // From Saturday to Monday goes over the week's end.
            for step in 0..=(last + 7 - first) % 7 {
                bits |= 1 << ((first + step) % 7);
            }
        }
        Ok(Self(bits))
    }
}

impl fmt::Debug for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = DAYS.iter().enumerate().filter(|(index, _)| self.0 & 1 << index != 0).map(|(_, day)| *day);
        f.write_str(&held.collect::<Vec<_>>().join(","))
    }
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
pub const DAY_MINUTES: u16 = 24 * 60;
/// Two days hold a window of a day and whatever the clock does meanwhile.
const LONGEST_SECONDS: i64 = 2 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::Exact;
    use proptest::prelude::*;

    fn window(days: &str, from: u16, until: u16) -> Window {
        Window {
            id: "w".to_owned(),
            days: days.parse().expect("days of the test"),
            from,
            until,
            price: PartPrice::Weight(Exact::ZERO),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant of the test")
    }

    fn inside(windows: &[Window], zone: &str, from: &str, until: &str) -> Vec<String> {
        let zone = Zone::get(zone).expect("a zone");
        let (from, until) = (at(from), at(until));
        let timeline = Timeline::of(windows, &zone, from, until).expect("in range");
        let pieces = timeline.pieces(from, until).into_iter();
        pieces.filter_map(|(from, until, window)| window.map(|_| format!("{from} {until}"))).collect()
    }

    #[test]
    fn night_lasts_as_long_as_the_clock_makes_it() {
        let night = [window("mon-sun", 60, 420)];
        let spring = inside(&night, "America/Chicago", "2026-03-08T05:00:00Z", "2026-03-09T05:00:00Z");
        assert_eq!(spring, ["2026-03-08T07:00:00Z 2026-03-08T12:00:00Z"], "five hours when 02:00 is skipped");
        let autumn = inside(&night, "America/Chicago", "2026-11-01T05:00:00Z", "2026-11-02T05:00:00Z");
        assert_eq!(autumn, ["2026-11-01T06:00:00Z 2026-11-01T13:00:00Z"], "seven hours when 01:00 comes twice");
    }

    #[test]
    fn edge_that_the_clock_skips_is_the_first_instant_after_the_gap() {
        let found =
            inside(&[window("mon-sun", 150, 240)], "America/Chicago", "2026-03-08T05:00:00Z", "2026-03-09T05:00:00Z");
        assert_eq!(found, ["2026-03-08T08:00:00Z 2026-03-08T09:00:00Z"]);
    }

    #[test]
    fn window_over_midnight_belongs_to_the_day_it_begins_on() {
        let friday = [window("fri", 22 * 60, 2 * 60)];
        let found = inside(&friday, "Asia/Kathmandu", "2026-11-25T00:00:00Z", "2026-12-01T00:00:00Z");
        assert_eq!(found, ["2026-11-27T16:15:00Z 2026-11-27T20:15:00Z"]);
    }

    #[test]
    fn days_are_read_as_ranges_and_lists() {
        for (text, shown) in
            [("mon-sun", "mon,tue,wed,thu,fri,sat,sun"), ("sat-mon", "mon,sat,sun"), ("tue,thu", "tue,thu")]
        {
            assert_eq!(format!("{:?}", text.parse::<Days>().expect(text)), shown);
        }
        for text in ["", "monday", "mon-", "mon;tue"] {
            assert!(text.parse::<Days>().is_err(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(crate::vocabulary::cases(2_000))]

        /// Pieces tile time, and each piece is in the window that its local clock names, but for hours shown twice.
        #[test]
        fn pieces_tile_time(
            zone in prop::sample::select(vec!["America/Chicago", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]),
            specs in prop::collection::vec((0u16..1440, 1u16..=1440), 1..4),
            start in 1_767_225_600i64..1_798_761_600, length in 1i64..4_000_000,
        ) {
            let zone = Zone::get(zone).expect("a zone");
            let windows: Vec<Window> = specs.into_iter().map(|(from, until)| window("mon-fri", from, until)).collect();
            let from = Timestamp::from_second(start).expect("in range");
            let until = Timestamp::from_second(start + length).expect("in range");
            let timeline = Timeline::of(&windows, &zone, from, until).expect("in range");
            let pieces = timeline.pieces(from, until);
            prop_assert_eq!((pieces[0].0, pieces[pieces.len() - 1].1), (from, until));
            prop_assert!(pieces.windows(2).all(|pair| pair[0].1 == pair[1].0 && pair[0].2 != pair[1].2));
            prop_assert!(pieces.iter().all(|(from, until, _)| from < until));
            let known = edges(&windows, &zone, from, until).expect("in range");
            prop_assert!(pieces[1..].iter().all(|(begins, ..)| known.contains(begins)));
        }
    }
}
