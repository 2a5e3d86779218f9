//! Call detail records: telephone calls as a switch writes them, one a line of CSV, read by a small profile.
//!
//! In: the text of a profile, the text of a file. Out: calls, or what is wrong with a line. It attributes and rates
//! nothing.
//!
//! ```toml
//! [columns]                       # names of the first line, or numbers from 1 where `header = false`
//! number = "src"                  # the subscriber's number
//! destination = "dst"             # the number called
//! started = "calldate"
//! seconds = "billsec"             # of talk; calls without any are not billed
//! id = "uniqueid"                 # optional: what tells two calls apart
//! [format]
//! header = true
//! separator = ","
//! time = "%Y-%m-%d %H:%M:%S"      # or rfc3339, unix, unix_ms
//! timezone = "America/Chicago"    # of times without an offset
//! [numbers]                       # optional: how numbers become +1512…
//! international = "011"           # dialled before a country code
//! national = "1"                  # dialled before an area code
//! country = "1"
//! ```

use std::io::Read;

use jiff::civil::DateTime;
use sha2::{Digest, Sha256};

use crate::vocabulary::{Fault, Rows, Section, Timestamp, TomlFile, Value, Zone, hex, parse_instant, to_micros};

/// How a file of calls is written.
#[derive(Debug, Clone)]
pub struct CallProfile {
    columns: Columns,
    header: bool,
    separator: u8,
    time: TimeFormat,
    zone: Zone,
    numbers: Numbers,
}

/// One call, numbers with their country code where the profile tells how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The subscriber's.
    pub number: String,
    pub destination: String,
    pub started_at: Timestamp,
    pub seconds: i64,
    /// What makes two records the same call: its id, or everything it says.
    pub digest: String,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallLine {
    Call(Box<Call>),
    /// Nobody talked.
    Unanswered,
}

/// Why a file, or one line of it, cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("the first line has no column {0:?}")]
    Column(String),
    #[error("{column} {text:?} {why}")]
    Field { column: &'static str, text: String, why: &'static str },
    #[error("the line is no CSV: {0}")]
    Csv(String),
}

#[derive(Debug, Clone)]
struct Columns {
    number: String,
    destination: String,
    started: String,
    seconds: String,
    id: Option<String>,
}

#[derive(Debug, Clone)]
enum TimeFormat {
    Rfc3339,
    Unix { per_second: i64 },
    Written(String),
}

#[derive(Debug, Clone, Default)]
struct Numbers {
    international: Option<String>,
    national: Option<String>,
    country: Option<String>,
}

impl CallProfile {
    /// Reads a profile. **Errors**: every fault of the text, with its place.
    pub fn read(name: &str, text: &str) -> Result<Self, Vec<Fault>> {
        let file = TomlFile::new(name, text);
        let profile = file.read().and_then(|table| {
            let mut root = file.section(&table);
            let profile = profile(&mut root);
            root.finish();
            profile.filter(|_| !file.has_faults())
        });
        profile.ok_or_else(|| file.into_faults())
    }

    /// Reads a file, line by line: each call or what is wrong with it, with the number of its line.
    ///
    /// **Errors**: the first line does not name the columns.
    pub fn calls<'t>(
        &'t self,
        input: impl Read + 't,
    ) -> Result<impl Iterator<Item = (u64, Result<CallLine, CallError>)> + 't, CallError> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(self.separator)
            .has_headers(self.header)
            .flexible(true)
            .from_reader(Rows::new(input));
        let header = match self.header {
            true => Some(reader.headers().map_err(|error| CallError::Csv(error.to_string()))?.clone()),
            false => None,
        };
        let place = |name: &String| -> Result<usize, CallError> {
            let missing = || CallError::Column(name.clone());
            match &header {
                Some(header) => header.iter().position(|column| column.trim() == name).ok_or_else(missing),
                None => name.parse::<usize>().ok().and_then(|number| number.checked_sub(1)).ok_or_else(missing),
            }
        };
        let Columns { number, destination, started, seconds, id } = &self.columns;
        let places = [place(number)?, place(destination)?, place(started)?, place(seconds)?];
        let id = id.as_ref().map(place).transpose()?;
        Ok(reader.into_records().map(move |record| match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                (line, self.call(&record, places, id))
            }
            Err(error) => (error.position().map_or(0, csv::Position::line), Err(CallError::Csv(error.to_string()))),
        }))
    }

    fn call(&self, record: &csv::StringRecord, places: [usize; 4], id: Option<usize>) -> Result<CallLine, CallError> {
        let field = |place: usize| record.get(place).unwrap_or_default().trim();
        let wrong = |column, text: &str, why| CallError::Field { column, text: text.chars().take(60).collect(), why };
        let [number, destination, started, seconds] = places.map(field);
        if number.is_empty() || destination.is_empty() {
            return Err(wrong("number", if number.is_empty() { number } else { destination }, "is missing"));
        }
        let talked: i64 = seconds.parse().map_err(|_| wrong("seconds", seconds, "is no whole number"))?;
        if !(0..=LONGEST_CALL).contains(&talked) {
            return Err(wrong("seconds", seconds, "is no length of a call"));
        }
        if talked == 0 {
            return Ok(CallLine::Unanswered);
        }
        let started_at = self.instant(started).ok_or_else(|| wrong("started", started, "is no instant"))?;
        let (number, destination) = (self.numbers.full(number), self.numbers.full(destination));
        let told = match id.map(field).filter(|id| !id.is_empty()) {
            Some(id) => format!("id|{id}"),
            None => format!("call|{number}|{destination}|{}|{talked}", to_micros(started_at)),
        };
        let digest = hex(Sha256::digest(told.as_bytes()));
        Ok(CallLine::Call(Box::new(Call { number, destination, started_at, seconds: talked, digest })))
    }

    fn instant(&self, text: &str) -> Option<Timestamp> {
        match &self.time {
            TimeFormat::Rfc3339 => parse_instant(text),
            TimeFormat::Unix { per_second } => {
                let number: i64 = text.parse().ok()?;
                Timestamp::from_microsecond(number.checked_mul(1_000_000 / per_second)?).ok()
            }
            TimeFormat::Written(format) => {
                let local = DateTime::strptime(format, text).ok()?;
                local.to_zoned(self.zone.clone()).ok().map(|zoned| zoned.timestamp())
            }
        }
    }
}

impl Numbers {
    /// The number as holders hold it: with `+` and its country code where that can be told.
    fn full(&self, text: &str) -> String {
        let kept: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '.' | '/')).collect();
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if kept.starts_with('+') || !is_digits(&kept) {
            return kept;
        }
        if let Some(rest) = self.international.as_ref().and_then(|prefix| kept.strip_prefix(prefix.as_str())) {
            return format!("+{rest}");
        }
        let Some(country) = &self.country else { return kept };
        let local = self.national.as_ref().and_then(|prefix| kept.strip_prefix(prefix.as_str()));
        format!("+{country}{}", local.unwrap_or(&kept))
    }
}

fn profile(root: &mut Section<'_>) -> Option<CallProfile> {
    let columns = root.required("columns").and_then(|value| value.section()).and_then(columns);
    let mut format = root.required("format").and_then(|value| value.section());
    let numbers = match root.value("numbers") {
        Some(value) => value.section().and_then(numbers),
        None => Some(Numbers::default()),
    };
    let format = format.as_mut()?;
    let header = format.flag("header").unwrap_or(true);
    let separator = match format.value("separator") {
        Some(value) => separator(&value),
        None => Some(b','),
    };
    let time = format.required("time").and_then(|value| time_format(&value));
    let zone = match (format.value("timezone"), &time) {
        (Some(value), _) => zone(&value),
        (None, Some(TimeFormat::Written(_))) => {
            format.fault("`timezone` is missing: times without an offset are somewhere");
            None
        }
        (None, _) => Some(Zone::UTC),
    };
    Some(CallProfile { columns: columns?, header, separator: separator?, time: time?, zone: zone?, numbers: numbers? })
}

fn columns(mut section: Section<'_>) -> Option<Columns> {
    let number = section.required_text("number");
    let destination = section.required_text("destination");
    let started = section.required_text("started");
    let seconds = section.required_text("seconds");
    let id = section.text("id");
    section.finish();
    Some(Columns { number: number?, destination: destination?, started: started?, seconds: seconds?, id })
}

fn numbers(mut section: Section<'_>) -> Option<Numbers> {
    let found = Numbers {
        international: section.text("international"),
        national: section.text("national"),
        country: section.text("country"),
    };
    section.finish();
    Some(found)
}

fn separator(value: &Value<'_>) -> Option<u8> {
    match value.text()?.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        _ => {
            value.fault("a separator is one character");
            None
        }
    }
}

fn time_format(value: &Value<'_>) -> Option<TimeFormat> {
    Some(match value.text()? {
        "rfc3339" => TimeFormat::Rfc3339,
        "unix" => TimeFormat::Unix { per_second: 1 },
        "unix_ms" => TimeFormat::Unix { per_second: 1_000 },
        format if format.contains('%') => TimeFormat::Written(format.to_owned()),
        other => {
            value.fault(format!(
                "{other:?} is no form of time; write rfc3339, unix, unix_ms or for example %Y-%m-%d %H:%M:%S"
            ));
            return None;
        }
    })
}

fn zone(value: &Value<'_>) -> Option<Zone> {
    let name = value.text()?;
    let zone = Zone::get(name).ok();
    if zone.is_none() {
        value.fault(format!("{name:?} is no time zone of the IANA database"));
    }
    zone
}

/// Four weeks: a switch that says more is wrong.
const LONGEST_CALL: i64 = 28 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASTERISK: &str = "[columns]\nnumber = \"src\"\ndestination = \"dst\"\nstarted = \"calldate\"\n\
        seconds = \"billsec\"\nid = \"uniqueid\"\n[format]\ntime = \"%Y-%m-%d %H:%M:%S\"\n\
        timezone = \"America/Chicago\"\n[numbers]\ninternational = \"011\"\nnational = \"1\"\ncountry = \"1\"\n";

    fn lines(profile: &str, text: &str) -> Vec<String> {
        let profile = CallProfile::read("p.toml", profile).expect("a sound profile");
        let shown = |(line, found): (u64, Result<CallLine, CallError>)| match found {
            Ok(CallLine::Call(call)) => {
                format!("{line} {} {} {} {}", call.number, call.destination, call.started_at, call.seconds)
            }
            Ok(CallLine::Unanswered) => format!("{line} unanswered"),
            Err(error) => format!("{line} {error}"),
        };
        profile.calls(text.as_bytes()).expect("the columns").map(shown).collect()
    }

    #[test]
    fn calls_are_read_by_the_names_of_their_columns() {
        let text = "calldate,uniqueid,src,dst,billsec\n2026-11-01 03:15:00,a1,5125550100,011442071234567,61\n\
                    2026-11-01 03:16:00,a2,(512) 555-0100,+18005550100,0\n2026-11-01 03:17:00,a3,15125550100,*98,7\n\
                    yesterday,a4,5125550100,5125550101,7\n2026-11-01 03:17:00,a5,,5125550101,7\nx\n";
        assert_eq!(
            lines(ASTERISK, text),
            [
                "2 +15125550100 +442071234567 2026-11-01T09:15:00Z 61",
                "3 unanswered",
                "4 +15125550100 *98 2026-11-01T09:17:00Z 7",
                "5 started \"yesterday\" is no instant",
                "6 number \"\" is missing",
                "7 number \"\" is missing",
            ]
        );
    }

    #[test]
    fn columns_may_have_numbers_and_times_may_be_seconds() {
        let profile = "[columns]\nnumber = \"2\"\ndestination = \"3\"\nstarted = \"1\"\nseconds = \"4\"\n\
                       [format]\nheader = false\nseparator = \";\"\ntime = \"unix\"\n";
        assert_eq!(lines(profile, "1793491200;+1512;+4420;9\n"), ["1 +1512 +4420 2026-11-01T00:00:00Z 9"]);
    }

    #[test]
    fn id_makes_two_records_one_call_and_without_one_everything_does() {
        let profile = CallProfile::read("p.toml", ASTERISK).expect("a sound profile");
        let digests = |rows: &str| -> Vec<String> {
            let text = format!("calldate,uniqueid,src,dst,billsec\n{rows}");
            let calls = profile.calls(text.as_bytes()).expect("the columns");
            calls
                .filter_map(|(_, line)| match line {
                    Ok(CallLine::Call(call)) => Some(call.digest),
                    _ => None,
                })
                .collect()
        };
        let with_id = digests("2026-11-01 03:15:00,a1,5125550100,911,61\n2026-11-02 03:15:00,a1,5125550100,911,62\n");
        assert_eq!(with_id[0], with_id[1]);
        let without = digests("2026-11-01 03:15:00,,5125550100,911,61\n2026-11-01 03:15:00,,5125550100,911,62\n");
        assert_ne!(without[0], without[1]);
    }

    #[test]
    fn profile_that_cannot_be_used_says_why() {
        for (from, to, word) in [
            ("timezone = \"America/Chicago\"\n", "", "timezone"),
            ("America/Chicago", "Mars", "no time zone"),
            ("%Y-%m-%d %H:%M:%S", "soon", "no form of time"),
            ("number = \"src\"\n", "", "`number` is missing"),
        ] {
            let faults = CallProfile::read("p.toml", &ASTERISK.replace(from, to)).expect_err(word);
            assert!(faults.iter().any(|fault| fault.detail.contains(word)), "{faults:?}");
        }
        let profile = CallProfile::read("p.toml", ASTERISK).expect("a sound profile");
        assert!(matches!(profile.calls(&b"a,b\n1,2\n"[..]).err(), Some(CallError::Column(_))));
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let profile = CallProfile::read("p.toml", ASTERISK).expect("a sound profile");
            let mut text = b"calldate,uniqueid,src,dst,billsec\n".to_vec();
            text.extend(octets);
            profile.calls(&text[..]).expect("the columns").for_each(drop);
        }
    }
}
