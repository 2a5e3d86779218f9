//! The maintenance window: the hours of each day in which a modem may boot without anybody being asked.

use std::str::FromStr;

use crate::vocabulary::{Timestamp, Zone};

/// Hours of every day in a zone, `[from, until)`; over midnight when `until` is before `from`.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    from: Minute,
    until: Minute,
    zone: Zone,
}

/// Minutes since midnight.
type Minute = u32;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no window; write the hours as \"02:00-05:00\"")]
pub struct WindowError(String);

/// The window where the configuration names none.
pub const USUAL: &str = "02:00-05:00";

impl Window {
    /// Reads `HH:MM-HH:MM`.
    pub fn parse(text: &str, zone: Zone) -> Result<Self, WindowError> {
        let wrong = || WindowError(text.chars().take(40).collect());
        let (from, until) = text.split_once('-').ok_or_else(wrong)?;
        let (from, until) = (minute(from).ok_or_else(wrong)?, minute(until).ok_or_else(wrong)?);
        if from == until { Err(wrong()) } else { Ok(Self { from, until, zone }) }
    }

    pub fn holds(&self, now: Timestamp) -> bool {
        let minute = self.minute_of(now);
        if self.from < self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }

    /// When it opens next; `now` itself while it is open.
    pub fn next(&self, now: Timestamp) -> Timestamp {
        if self.holds(now) {
            return now;
        }
        let local = now.to_zoned(self.zone.clone());
        let hours = i8::try_from(self.from / 60).unwrap_or(0);
        let minutes = i8::try_from(self.from % 60).unwrap_or(0);
        let at = |date: jiff::civil::Date| {
            date.at(hours, minutes, 0, 0).to_zoned(self.zone.clone()).map_or(Timestamp::MAX, |zoned| zoned.timestamp())
        };
        let today = at(local.date());
        if today > now { today } else { local.date().tomorrow().map_or(Timestamp::MAX, at) }
    }

    fn minute_of(&self, now: Timestamp) -> Minute {
        let local = now.to_zoned(self.zone.clone());
        u32::try_from(local.hour()).unwrap_or(0) * 60 + u32::try_from(local.minute()).unwrap_or(0)
    }
}

fn minute(text: &str) -> Option<Minute> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let two = |part: &str, below: u32| {
        (part.len() == 2).then(|| u32::from_str(part).ok()).flatten().filter(|number| *number < below)
    };
    Some(two(hours, 24)? * 60 + two(minutes, 60)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        Window::parse(text, Zone::get("America/Chicago").expect("a zone")).expect("a window")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[test]
    fn it_is_open_at_its_hours_and_says_when_it_opens() {
        let night = window("02:00-05:00");
        // Chicago is six hours behind in winter.
        assert!(night.holds(at("2026-11-22T08:00:00Z")) && !night.holds(at("2026-11-22T11:00:00Z")));
        assert_eq!(night.next(at("2026-11-22T07:30:00Z")), at("2026-11-22T08:00:00Z"));
        assert_eq!(night.next(at("2026-11-22T11:00:00Z")), at("2026-11-23T08:00:00Z"));
        assert_eq!(night.next(at("2026-11-22T09:00:00Z")), at("2026-11-22T09:00:00Z"));
        let over_midnight = window("23:30-01:00");
        assert!(over_midnight.holds(at("2026-11-22T06:00:00Z")) && !over_midnight.holds(at("2026-11-22T07:00:00Z")));
        assert_eq!(over_midnight.next(at("2026-11-22T12:00:00Z")), at("2026-11-23T05:30:00Z"));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in ["", "02:00", "2:00-5:00", "02:00-24:00", "02:00-02:00", "aa:bb-cc:dd"] {
            assert!(Window::parse(text, Zone::UTC).is_err(), "{text:?}");
        }
    }
}
