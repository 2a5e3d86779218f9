//! Bill cycles: a calendar that cuts time into periods `[start, end)` at local midnights of a zone.
//!
//! Every edge is a function of its local date alone, so periods tile time without gap or overlap whatever the zone's
//! clocks do. A day of the month that a month does not have is that month's last day; the anchor itself is kept.

use jiff::ToSpan;
use jiff::civil::Weekday;
use thiserror::Error;

use crate::vocabulary::{Date, Period, Timestamp, Zone};

/// How long a period of a cycle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    Month,
    /// `anchor_day` 1 is Monday.
    Week,
    Day,
    /// Counted from 1970-01-01, moved by `anchor_day` − 1 days.
    Days(u16),
    /// Counted from January of year 0, so that 3 months are the calendar's quarters.
    Months(u16),
}

/// A bill cycle of a tenant's catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillCycle {
    pub id: String,
    pub anchor_day: u8,
    pub every: Every,
    pub zone: Zone,
    /// The zone's IANA name.
    pub timezone: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CalendarError {
    #[error("the period would leave the calendar's years -9999 to 9999")]
    OutOfRange,
    #[error("there is no time zone {0:?} in this system's database")]
    Zone(String),
    #[error("{0:?} names no period; write its first day, for example 2026-11-15, or its month, for example 2026-11")]
    Form(String),
    #[error("cycle {cycle} has no period that starts on {on}; the period of that day starts on {starts_on}")]
    NoStart { cycle: String, on: Date, starts_on: Date },
    #[error("cycle {cycle} has {count} periods that start in {month}; name one by its first day")]
    Ambiguous { cycle: String, month: String, count: usize },
}

impl BillCycle {
    /// The period `instant` lies in.
    pub fn period_at(&self, instant: Timestamp) -> Result<Period, CalendarError> {
        let date = instant.to_zoned(self.zone.clone()).date();
        let mut ordinal = self.ordinal_of(date)?;
        loop {
            let period = self.period(ordinal)?;
            if instant < period.start {
                ordinal -= 1;
            } else if instant >= period.end {
                ordinal += 1;
            } else {
                return Ok(period);
            }
        }
    }

    /// The period that starts where `period` ends.
    pub fn next(&self, period: &Period) -> Result<Period, CalendarError> {
        self.period_at(period.end)
    }

    /// The period that ends where `period` starts.
    pub fn previous(&self, period: &Period) -> Result<Period, CalendarError> {
        let before = period.start.checked_sub(1.microsecond()).map_err(|_| CalendarError::OutOfRange)?;
        self.period_at(before)
    }

    /// Where the periods begin from the one `from` lies in to the one `until` lies in, ascending: whoever places many
    /// instants finds the period of each by `partition_point`.
    pub fn starts(&self, from: Timestamp, until: Timestamp) -> Result<Vec<Timestamp>, CalendarError> {
        let mut period = self.period_at(from)?;
        let mut starts = vec![period.start];
        while period.end <= until {
            period = self.next(&period)?;
            starts.push(period.start);
        }
        Ok(starts)
    }

    /// The latest period that has ended at `now`.
    pub fn latest_ended(&self, now: Timestamp) -> Result<Period, CalendarError> {
        self.previous(&self.period_at(now)?)
    }

    /// The period that `name` means: its first day `2026-11-15`, or `2026-11` when one period starts in that month.
    pub fn named(&self, name: &str) -> Result<Period, CalendarError> {
        let form = || CalendarError::Form(name.chars().take(40).collect());
        if name.len() == 7 {
            let first: Date = format!("{name}-01").parse().map_err(|_| form())?;
            return self.only_start_in(first, name);
        }
        if name.len() != 10 {
            return Err(form());
        }
        let on: Date = name.parse().map_err(|_| form())?;
        let period = self.period_at(self.midnight(on)?)?;
        let starts_on = self.first_day(&period);
        if starts_on == on { Ok(period) } else { Err(CalendarError::NoStart { cycle: self.id.clone(), on, starts_on }) }
    }

    /// How the period is called: its first day.
    pub fn name(&self, period: &Period) -> String {
        self.first_day(period).to_string()
    }

    pub fn first_day(&self, period: &Period) -> Date {
        self.day_of(period.start)
    }

    /// The local day an instant lies in.
    pub fn day_of(&self, instant: Timestamp) -> Date {
        instant.to_zoned(self.zone.clone()).date()
    }

    /// The first instant of a local day; where the zone skips midnight, the first instant after the gap.
    pub fn midnight(&self, on: Date) -> Result<Timestamp, CalendarError> {
        on.to_zoned(self.zone.clone()).map(|zoned| zoned.timestamp()).map_err(|_| CalendarError::OutOfRange)
    }

    /// Local days of a period.
    pub fn days(&self, period: &Period) -> i64 {
        days_between(self.day_of(period.start), self.day_of(period.end))
    }

    /// A number that grows by one from period to period.
    pub fn ordinal(&self, period: &Period) -> Result<i64, CalendarError> {
        self.ordinal_of(self.first_day(period))
    }

    fn only_start_in(&self, first: Date, month: &str) -> Result<Period, CalendarError> {
        let last = first.last_of_month();
        let mut found = Vec::new();
        for ordinal in self.ordinal_of(first)?..=self.ordinal_of(last)? {
            let start = self.edge(ordinal)?;
            if first <= start && start <= last {
                found.push(ordinal);
            }
        }
        match found.as_slice() {
            [ordinal] => self.period(*ordinal),
            _ => Err(CalendarError::Ambiguous { cycle: self.id.clone(), month: month.to_owned(), count: found.len() }),
        }
    }

    /// The period of a number.
    pub fn period(&self, ordinal: i64) -> Result<Period, CalendarError> {
        Ok(Period {
            start: self.midnight(self.edge(ordinal)?)?,
            end: self.midnight(self.edge(ordinal + 1)?)?,
            timezone: self.timezone.clone(),
        })
    }

    /// The ordinal of the period whose days hold `date`.
    fn ordinal_of(&self, date: Date) -> Result<i64, CalendarError> {
        let months = |step: i64| -> Result<i64, CalendarError> {
            let month = i64::from(date.year()) * 12 + i64::from(date.month()) - 1;
            let guess = month.div_euclid(step);
            Ok(if self.edge(guess)? <= date { guess } else { guess - 1 })
        };
        let days = |step: i64, shift: i64| (days_between(EPOCH, date) - shift).div_euclid(step);
        match self.every {
            Every::Month => months(1),
            Every::Months(step) => months(i64::from(step)),
            Every::Day => Ok(days(1, 0)),
            Every::Week => Ok(days(7, self.week_shift())),
            Every::Days(step) => Ok(days(i64::from(step), i64::from(self.anchor_day) - 1)),
        }
    }

    /// The first day of a period.
    fn edge(&self, ordinal: i64) -> Result<Date, CalendarError> {
        match self.every {
            Every::Month => self.anchored(ordinal),
            Every::Months(step) => self.anchored(ordinal * i64::from(step)),
            Every::Day => day_number(ordinal),
            Every::Week => day_number(ordinal * 7 + self.week_shift()),
            Every::Days(step) => day_number(ordinal * i64::from(step) + i64::from(self.anchor_day) - 1),
        }
    }

    /// The anchor day in a month counted from year 0, clamped to the month's last day.
    fn anchored(&self, month: i64) -> Result<Date, CalendarError> {
        let year = i16::try_from(month.div_euclid(12)).map_err(|_| CalendarError::OutOfRange)?;
        let month = i8::try_from(month.rem_euclid(12) + 1).expect("a month is 1 to 12");
        let first = Date::new(year, month, 1).map_err(|_| CalendarError::OutOfRange)?;
        let day = i8::try_from(self.anchor_day).unwrap_or(31).min(first.days_in_month());
        Date::new(year, month, day).map_err(|_| CalendarError::OutOfRange)
    }

    /// 1970-01-01 was a Thursday.
    fn week_shift(&self) -> i64 {
        i64::from(self.anchor_day) - i64::from(Weekday::Thursday.to_monday_one_offset())
    }
}

/// Days from `from` to `until`, negative when `until` is earlier.
pub fn days_between(from: Date, until: Date) -> i64 {
    let span = from.until(until).expect("the days between two dates of the calendar fit");
    i64::from(span.get_days())
}

fn day_number(number: i64) -> Result<Date, CalendarError> {
    let days = i32::try_from(number).map_err(|_| CalendarError::OutOfRange)?;
    EPOCH.checked_add(days.days()).map_err(|_| CalendarError::OutOfRange)
}

const EPOCH: Date = Date::constant(1970, 1, 1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cycle(anchor_day: u8, every: Every, timezone: &str) -> BillCycle {
        BillCycle {
            id: "c".to_owned(),
            anchor_day,
            every,
            zone: Zone::get(timezone).expect("a zone of the test"),
            timezone: timezone.to_owned(),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant of the test")
    }

    #[test]
    fn anchor_is_clamped_in_short_months_and_kept() {
        let cycle = cycle(31, Every::Month, "America/Chicago");
        let mut period = cycle.named("2026-01-31").expect("starts on the anchor");
        let mut starts = Vec::new();
        for _ in 0..4 {
            starts.push(cycle.name(&period));
            period = cycle.next(&period).expect("in range");
        }
        assert_eq!(starts, ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]);
    }

    #[test]
    fn edges_are_local_midnights_across_daylight_saving() {
        let cycle = cycle(15, Every::Month, "America/Chicago");
        let period = cycle.named("2026-10").expect("one start in October");
        assert_eq!(period.start, at("2026-10-15T05:00:00Z"));
        assert_eq!(period.end, at("2026-11-15T06:00:00Z"));
        assert_eq!(cycle.days(&period), 31);
    }

    #[test]
    fn skipped_midnight_starts_after_the_gap() {
        // Sao Paulo's clocks went from 00:00 to 01:00 on 2018-11-04.
        let cycle = cycle(4, Every::Month, "America/Sao_Paulo");
        assert_eq!(cycle.named("2018-11-04").expect("a start").start, at("2018-11-04T03:00:00Z"));
    }

    #[test]
    fn day_the_zone_skipped_belongs_to_no_period() {
        // Apia went from 2011-12-29 straight to 2011-12-31.
        let cycle = cycle(1, Every::Day, "Pacific/Apia");
        let period = cycle.period_at(at("2011-12-30T09:59:59Z")).expect("in range");
        assert_eq!(cycle.name(&period), "2011-12-29");
        assert_eq!(cycle.name(&cycle.next(&period).expect("in range")), "2011-12-31");
    }

    #[test]
    fn latest_ended_is_the_one_before_the_running_period() {
        let cycle = cycle(15, Every::Month, "UTC");
        let name = |now: &str| cycle.name(&cycle.latest_ended(at(now)).expect("in range"));
        assert_eq!(name("2026-11-14T23:59:59Z"), "2026-09-15");
        assert_eq!(name("2026-11-15T00:00:00Z"), "2026-10-15");
    }

    #[test]
    fn names_that_mean_nothing_are_explained() {
        let weekly = cycle(1, Every::Week, "UTC");
        assert!(matches!(weekly.named("2026-11"), Err(CalendarError::Ambiguous { count: 5, .. })));
        assert_eq!(weekly.name(&weekly.named("2026-11-16").expect("a Monday")), "2026-11-16");
        assert!(matches!(weekly.named("2026-11-17"), Err(CalendarError::NoStart { .. })));
        for name in ["2026", "2026-13", "2026-11-31", "november", ""] {
            assert!(matches!(weekly.named(name), Err(CalendarError::Form(_))), "{name}");
        }
    }

    #[test]
    fn three_months_are_the_quarters_of_the_calendar() {
        let cycle = cycle(1, Every::Months(3), "Europe/Paris");
        assert_eq!(cycle.name(&cycle.period_at(at("2026-11-20T00:00:00Z")).expect("in range")), "2026-10-01");
    }

    #[test]
    fn periods_of_days_and_weeks_start_where_their_anchor_says() {
        let starts = |anchor: u8, every: Every, day: &str| {
            let cycle = cycle(anchor, every, "UTC");
            let period = cycle.period_at(at(&format!("{day}T12:00:00Z"))).expect("in range");
            format!("{} {}", cycle.name(&period), cycle.name(&cycle.next(&period).expect("in range")))
        };
        // Ten days from 1970-01-01 on, and from 1970-01-04 on.
        assert_eq!(starts(1, Every::Days(10), "1970-01-10"), "1970-01-01 1970-01-11");
        assert_eq!(starts(4, Every::Days(10), "1970-01-10"), "1970-01-04 1970-01-14");
        assert_eq!(starts(4, Every::Days(10), "1970-01-24"), "1970-01-24 1970-02-03");
        // Mondays and Sundays.
        assert_eq!(starts(1, Every::Week, "2026-11-18"), "2026-11-16 2026-11-23");
        assert_eq!(starts(7, Every::Week, "2026-11-18"), "2026-11-15 2026-11-22");
        assert_eq!(starts(9, Every::Months(2), "2026-11-18"), "2026-11-09 2027-01-09");
        assert_eq!(starts(9, Every::Months(2), "2026-11-08"), "2026-09-09 2026-11-09");
    }

    proptest! {
        #![proptest_config(crate::vocabulary::cases(1_000))]

        /// Invariant 12: no gap and no overlap, whatever the anchor, the length and the zone's clocks.
        #[test]
        fn periods_tile_time(
            anchor in 1u8..=31,
            every in prop_oneof![
                Just(Every::Month), Just(Every::Week), Just(Every::Day),
                (1u16..=60).prop_map(Every::Days), (1u16..=24).prop_map(Every::Months)
            ],
            zone in prop_oneof![
                Just("UTC"), Just("America/Chicago"), Just("Europe/Paris"), Just("Pacific/Apia"),
                Just("America/Sao_Paulo"), Just("Asia/Beirut"), Just("Australia/Lord_Howe")
            ],
            seconds in 0i64..2_500_000_000,
        ) {
            let anchor = if every == Every::Week { (anchor - 1) % 7 + 1 } else { anchor };
            let cycle = cycle(anchor, every, zone);
            let instant = Timestamp::from_second(seconds).expect("in range");
            let period = cycle.period_at(instant).expect("in range");
            prop_assert!(period.contains(instant));
            let next = cycle.next(&period).expect("in range");
            prop_assert_eq!(period.end, next.start);
            prop_assert!(next.start < next.end);
            let previous = cycle.previous(&period).expect("in range");
            prop_assert_eq!(previous.end, period.start);
            prop_assert_eq!(cycle.period_at(period.start).expect("in range"), period.clone());
            prop_assert_eq!(cycle.ordinal(&next).expect("in range") > cycle.ordinal(&period).expect("in range"), true);
            let starts = cycle.starts(previous.start, next.start).expect("in range");
            let place = starts.partition_point(|start| *start <= instant);
            prop_assert_eq!(starts[place - 1], period.start);
            prop_assert_eq!(starts.last(), Some(&next.start));
            prop_assert_eq!(cycle.named(&cycle.name(&period)).expect("its own name"), period);
        }

        /// Invariant 12: an anchor that a month does not have is its last day, and is itself again in the next that has it.
        #[test]
        fn anchor_comes_back_after_short_months(anchor in 1u8..=31, months in 1u16..=5, from in 0i64..2_500_000_000) {
            let cycle = cycle(anchor, Every::Months(months), "Europe/Paris");
            let mut period = cycle.period_at(Timestamp::from_second(from).expect("in range")).expect("in range");
            for _ in 0..14 {
                let first = cycle.first_day(&period);
                prop_assert_eq!(first.day(), i8::try_from(anchor).expect("31 at most").min(first.days_in_month()));
                let next = cycle.first_day(&cycle.next(&period).expect("in range"));
                let apart = |one: Date, other: Date| {
                    i32::from(other.year() - one.year()) * 12 + i32::from(other.month()) - i32::from(one.month())
                };
                prop_assert_eq!(apart(first, next), i32::from(months));
                period = cycle.next(&period).expect("in range");
            }
        }
    }
}
