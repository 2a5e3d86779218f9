//! Dates and times as billing systems write them, by a pattern of fixed words; never by guessing which form it is.
//!
//! `YYYY` `YY` year · `MM` `M` month, `MON` its English name in three letters · `DD` `D` day · `HH` hour · `mm` minute ·
//! `ss` second · `ZZ` offset (`Z`, `+01:00`, `-0700`) · anything else stands for itself. `unix` alone: seconds since 1970.

use crate::vocabulary::{Date, Timestamp, Zone, from_micros};

/// A form of writing dates or instants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Year4,
    Year2,
    Month2,
    Month1,
    MonthName,
    Day2,
    Day1,
    Hour,
    Minute,
    Second,
    Offset,
    Unix,
    Literal(char),
}

const WORDS: [(&str, Part); 12] = [
    ("unix", Part::Unix),
    ("YYYY", Part::Year4),
    ("MON", Part::MonthName),
    ("YY", Part::Year2),
    ("MM", Part::Month2),
    ("DD", Part::Day2),
    ("HH", Part::Hour),
    ("mm", Part::Minute),
    ("ss", Part::Second),
    ("ZZ", Part::Offset),
    ("M", Part::Month1),
    ("D", Part::Day1),
];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// What was read, before it is known to be a date.
#[derive(Default)]
struct Draft {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    offset_seconds: Option<i64>,
    unix: Option<i64>,
}

impl Pattern {
    /// A pattern to read dates or instants by.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pattern = Self::parse_any(text)?;
        let has = |wanted: &[Part]| pattern.parts.iter().any(|part| wanted.contains(part));
        let date = has(&[Part::Year4, Part::Year2])
            && has(&[Part::Month2, Part::Month1, Part::MonthName])
            && has(&[Part::Day2, Part::Day1]);
        match date || pattern.parts == [Part::Unix] {
            true => Ok(pattern),
            false => Err(format!("{text:?} has no year, month and day")),
        }
    }

    /// A pattern to write instants by, which may leave anything out.
    pub fn parse_any(text: &str) -> Result<Self, String> {
        if text.len() > 64 {
            return Err("a date's pattern has at most 64 octets".to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            match WORDS.iter().find(|(word, _)| rest.starts_with(word)) {
                Some((word, part)) => {
                    parts.push(part.clone());
                    rest = &rest[word.len()..];
                }
                // `T` and `Z` of ISO 8601 stand for themselves; other letters are typing errors.
                None if letter.is_ascii_alphabetic() && !matches!(letter, 'T' | 'Z') => {
                    return Err(format!("{letter:?} is no word of a date's pattern; write for example MM/DD/YYYY"));
                }
                None => {
                    parts.push(Part::Literal(letter));
                    rest = &rest[letter.len_utf8()..];
                }
            }
        }
        Ok(Self { parts, text: text.to_owned() })
    }

    pub fn date(&self, text: &str) -> Result<Date, String> {
        let draft = self.read(text)?;
        if let Some(unix) = draft.unix {
            let instant = Timestamp::from_second(unix).map_err(|_| self.refused(text))?;
            return Ok(instant.to_zoned(Zone::UTC).date());
        }
        self.day(&draft, text)
    }

    /// The instant; where the text has no offset, its clock is `zone`'s.
    pub fn instant(&self, text: &str, zone: &Zone) -> Result<Timestamp, String> {
        let draft = self.read(text)?;
        if let Some(unix) = draft.unix {
            return Timestamp::from_second(unix).map_err(|_| self.refused(text));
        }
        let narrow = |number: i64| i8::try_from(number).unwrap_or(-1);
        let time = jiff::civil::Time::new(narrow(draft.hour), narrow(draft.minute), narrow(draft.second), 0)
            .map_err(|_| self.refused(text))?;
        let local = self.day(&draft, text)?.to_datetime(time);
        match draft.offset_seconds {
            Some(offset) => {
                let utc = local.to_zoned(Zone::UTC).map_err(|_| self.refused(text))?.timestamp();
                let micros = utc.as_microsecond() - offset * 1_000_000;
                from_micros(micros).ok_or_else(|| self.refused(text))
            }
            None => Ok(local.to_zoned(zone.clone()).map_err(|_| self.refused(text))?.timestamp()),
        }
    }

    /// Writes an instant on `zone`'s clock.
    pub fn write(&self, at: Timestamp, zone: &Zone) -> String {
        use std::fmt::Write;
        let local = at.to_zoned(zone.clone());
        let mut out = String::with_capacity(24);
        for part in &self.parts {
            // Writing to a text cannot fail.
            let _ = match part {
                Part::Year4 => write!(out, "{:04}", local.year()),
                Part::Year2 => write!(out, "{:02}", local.year().rem_euclid(100)),
                Part::Month2 => write!(out, "{:02}", local.month()),
                Part::Month1 => write!(out, "{}", local.month()),
                Part::MonthName => {
                    let name = MONTHS[local.month().unsigned_abs() as usize - 1];
                    write!(out, "{}{}", name[..1].to_ascii_uppercase(), &name[1..])
                }
                Part::Day2 => write!(out, "{:02}", local.day()),
                Part::Day1 => write!(out, "{}", local.day()),
                Part::Hour => write!(out, "{:02}", local.hour()),
                Part::Minute => write!(out, "{:02}", local.minute()),
                Part::Second => write!(out, "{:02}", local.second()),
                Part::Offset => {
                    let seconds = local.offset().seconds();
                    let sign = if seconds < 0 { '-' } else { '+' };
                    write!(out, "{sign}{:02}:{:02}", seconds.abs() / 3600, seconds.abs() / 60 % 60)
                }
                Part::Unix => write!(out, "{}", at.as_second()),
                Part::Literal(letter) => write!(out, "{letter}"),
            };
        }
        out
    }

    fn day(&self, draft: &Draft, text: &str) -> Result<Date, String> {
        let year = i16::try_from(draft.year).map_err(|_| self.refused(text))?;
        let narrow = |number: i64| i8::try_from(number).unwrap_or(-1);
        Date::new(year, narrow(draft.month), narrow(draft.day)).map_err(|_| self.refused(text))
    }

    fn refused(&self, text: &str) -> String {
        let shown: String = text.chars().take(40).collect();
        format!("{shown:?} is no date written as {}", self.text)
    }

    fn read(&self, text: &str) -> Result<Draft, String> {
        let mut draft = Draft::default();
        let mut rest = text.trim();
        let refused = || self.refused(text);
        for part in &self.parts {
            match part {
                Part::Year4 => draft.year = number(&mut rest, 4, 4).ok_or_else(refused)?,
                // POSIX: 69 to 99 are of the twentieth century.
                Part::Year2 => {
                    let year = number(&mut rest, 2, 2).ok_or_else(refused)?;
                    draft.year = if year >= 69 { 1900 + year } else { 2000 + year };
                }
                Part::Month2 => draft.month = number(&mut rest, 2, 2).ok_or_else(refused)?,
                Part::Month1 => draft.month = number(&mut rest, 1, 2).ok_or_else(refused)?,
                Part::MonthName => {
                    let name = rest.get(..3).ok_or_else(refused)?.to_ascii_lowercase();
                    let index = MONTHS.iter().position(|month| *month == name).ok_or_else(refused)?;
                    draft.month = index as i64 + 1;
                    rest = &rest[3..];
                }
                Part::Day2 => draft.day = number(&mut rest, 2, 2).ok_or_else(refused)?,
                Part::Day1 => draft.day = number(&mut rest, 1, 2).ok_or_else(refused)?,
                Part::Hour => draft.hour = number(&mut rest, 2, 2).ok_or_else(refused)?,
                Part::Minute => draft.minute = number(&mut rest, 2, 2).ok_or_else(refused)?,
                Part::Second => draft.second = number(&mut rest, 2, 2).ok_or_else(refused)?,
                Part::Offset => draft.offset_seconds = Some(offset(&mut rest).ok_or_else(refused)?),
                Part::Unix => draft.unix = Some(number(&mut rest, 1, 12).ok_or_else(refused)?),
                Part::Literal(letter) => rest = rest.strip_prefix(*letter).ok_or_else(refused)?,
            }
        }
        if rest.is_empty() { Ok(draft) } else { Err(refused()) }
    }
}

/// `least` to `most` digits from the beginning, as many as there are.
fn number(rest: &mut &str, least: usize, most: usize) -> Option<i64> {
    let digits = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if digits < least {
        return None;
    }
    let (found, after) = rest.split_at(digits);
    *rest = after;
    found.parse().ok()
}

fn offset(rest: &mut &str) -> Option<i64> {
    if let Some(after) = rest.strip_prefix('Z') {
        *rest = after;
        return Some(0);
    }
    let sign = match rest.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    *rest = &rest[1..];
    let hours = number(rest, 2, 2)?;
    *rest = rest.strip_prefix(':').unwrap_or(rest);
    let minutes = number(rest, 2, 2)?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(pattern: &str, text: &str) -> Result<String, String> {
        Pattern::parse(pattern)?.date(text).map(|date| date.to_string())
    }

    #[test]
    fn a_date_is_read_by_its_pattern_only() {
        for (pattern, text, read) in [
            ("YYYY-MM-DD", "2026-11-01", "2026-11-01"),
            ("MM/DD/YYYY", "11/01/2026", "2026-11-01"),
            ("M/D/YY", "1/9/26", "2026-01-09"),
            ("DD.MM.YYYY", "01.11.2026", "2026-11-01"),
            ("YYMMDD", "691231", "1969-12-31"),
            ("DD-MON-YYYY", "05-Feb-2026", "2026-02-05"),
            ("unix", "1793491200", "2026-11-01"),
        ] {
            assert_eq!(date(pattern, text).as_deref(), Ok(read), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("YYYY-MM-DD", "0000-00-00"),
            ("YYYY-MM-DD", "2026-02-30"),
            ("YYYY-MM-DD", "2026-11-01 x"),
            ("MM/DD/YYYY", "2026-11-01"),
            ("MM/DD/YYYY", "13/01/2026"),
            ("YYYY-MM-DD", "２０２６-11-01"),
            ("unix", "-1"),
        ] {
            assert!(date(pattern, text).is_err(), "{pattern} {text}");
        }
        for pattern in ["", "YYYY", "MM/DD", "hh:mm", "YYYY-MM-DDx", "unix "] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn an_instant_keeps_its_offset_and_else_takes_the_zones_clock() {
        let chicago = Zone::get("America/Chicago").expect("a zone");
        for (pattern, text, read) in [
            ("YYYY-MM-DDTHH:mm:ssZZ", "2026-11-01T00:00:00-0700", "2026-11-01T07:00:00Z"),
            ("YYYY-MM-DDTHH:mm:ssZZ", "2026-11-01T00:00:00+01:00", "2026-10-31T23:00:00Z"),
            ("YYYY-MM-DD HH:mm:ss", "2026-07-01 00:00:00", "2026-07-01T05:00:00Z"),
            ("unix", "1793491200", "2026-11-01T00:00:00Z"),
        ] {
            let instant = Pattern::parse(pattern).expect(pattern).instant(text, &chicago).expect(text);
            assert_eq!(instant.to_string(), read);
        }
        let pattern = Pattern::parse("M/D/YY HH:mm:ss ZZ").expect("a pattern");
        let at = "2026-07-04T05:06:07Z".parse().expect("an instant");
        assert_eq!(pattern.write(at, &chicago), "7/4/26 00:06:07 -05:00");
    }
}
