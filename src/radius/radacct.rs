//! Rows of FreeRADIUS's `radacct` table become the reports that such a row sums up.
//!
//! In: a row as texts, from a database or a CSV dump. Out: a Start, and a Stop or, while the session is open, an
//! Interim, as packets their NAS could have sent. A value that decides about a session and cannot be read is a fault.

use std::net::IpAddr;

use jiff::SignedDuration;
use jiff::civil::DateTime;

use super::attribute;
use super::dictionary::Dictionary;
use super::message::{BuildError, RequestBuilder};
use crate::vocabulary::{Timestamp, Zone, parse_instant};

/// The columns that say something about a session; `None` is NULL or a column that is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RadacctRow {
    pub session: Option<String>,
    pub user: Option<String>,
    /// An address, with or without its prefix length.
    pub nas_address: Option<String>,
    /// Not a standard column; some installations add it.
    pub nas_identifier: Option<String>,
    /// Instants: seconds since 1970, RFC 3339, or `2026-11-22 07:56:48` with or without an offset.
    pub started: Option<String>,
    pub updated: Option<String>,
    pub stopped: Option<String>,
    pub session_seconds: Option<String>,
    pub in_octets: Option<String>,
    pub out_octets: Option<String>,
    pub calling_station: Option<String>,
    pub terminate_cause: Option<String>,
    pub framed_address: Option<String>,
}

/// A row, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RadacctSession {
    pub session: String,
    pub nas_address: Option<IpAddr>,
    pub nas_identifier: Option<String>,
    user: Option<String>,
    started_at: Option<Timestamp>,
    end: Option<End>,
    in_octets: Option<u64>,
    out_octets: Option<u64>,
    calling_station: Option<String>,
    terminate_cause: Option<String>,
    framed_address: Option<IpAddr>,
}

/// What the row says last of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    at: Timestamp,
    seconds: Option<u64>,
    stopped: bool,
}

/// One report of a row: when it happened, and its packet to sign.
#[derive(Debug, Clone)]
pub struct RadacctReport {
    pub at: Timestamp,
    pub packet: RequestBuilder,
    /// The server closed the row itself (its NAS rebooted, or was silent): nobody reported this end.
    pub assumed_end: bool,
}

impl RadacctRow {
    /// **Errors**: the first column that cannot be read, as a sentence.
    pub fn read(self, zone: Option<&Zone>) -> Result<RadacctSession, String> {
        let session = filled(self.session).ok_or("acctsessionid is empty")?;
        let started_at = instant("acctstarttime", self.started, zone)?;
        let updated_at = instant("acctupdatetime", self.updated, zone)?;
        let stopped_at = instant("acctstoptime", self.stopped, zone)?;
        let seconds = number("acctsessiontime", self.session_seconds)?;
        let later = |at: Timestamp| started_at.is_none_or(|start| start <= at);
        if !stopped_at.is_none_or(later) || !updated_at.is_none_or(later) {
            return Err("the session ends before it starts".to_owned());
        }
        let terminate_cause = filled(self.terminate_cause);
        let between =
            |at: Timestamp| started_at.and_then(|start| u64::try_from(at.duration_since(start).as_secs()).ok());
        let end = match (stopped_at, updated_at) {
            (Some(stop), Some(update)) if is_assumed(terminate_cause.as_deref()) && update < stop => {
                // The last report is the last moment anyone knows of.
                Some(End { at: update, seconds: between(update).or(seconds), stopped: true })
            }
            (Some(stop), _) => Some(End { at: stop, seconds: seconds.or_else(|| between(stop)), stopped: true }),
            (None, Some(update)) => {
                Some(End { at: update, seconds: seconds.or_else(|| between(update)), stopped: false })
            }
            (None, None) => match (started_at, seconds.filter(|seconds| *seconds > 0)) {
                (Some(start), Some(seconds)) => {
                    let at =
                        i64::try_from(seconds).ok().and_then(|s| start.checked_add(SignedDuration::from_secs(s)).ok());
                    let at = at.ok_or("acctsessiontime is no length of a session")?;
                    Some(End { at, seconds: Some(seconds), stopped: false })
                }
                (Some(_), None) => None,
                (None, _) => return Err("neither acctstarttime nor acctstoptime is known".to_owned()),
            },
        };
        Ok(RadacctSession {
            session,
            nas_address: address("nasipaddress", self.nas_address)?,
            nas_identifier: filled(self.nas_identifier),
            user: filled(self.user),
            started_at,
            end,
            in_octets: number("acctinputoctets", self.in_octets)?,
            out_octets: number("acctoutputoctets", self.out_octets)?,
            calling_station: filled(self.calling_station),
            terminate_cause,
            // FreeRADIUS writes an empty text or 0.0.0.0 for "none".
            framed_address: address("framedipaddress", self.framed_address)?
                .filter(|address| !address.is_unspecified()),
        })
    }
}

impl RadacctSession {
    /// The reports the row sums up, in order.
    ///
    /// `nas_identifier` stands in for the one the row lacks.
    pub fn reports(&self, dictionary: &Dictionary, nas_identifier: Option<&str>) -> Vec<RadacctReport> {
        let mut reports = Vec::with_capacity(2);
        if let Some(at) = self.started_at {
            reports.push(RadacctReport { at, packet: self.packet(START, at, nas_identifier), assumed_end: false });
        }
        if let Some(End { at, seconds, stopped }) = self.end {
            let mut packet = self.packet(if stopped { STOP } else { INTERIM }, at, nas_identifier);
            if let Some(seconds) = seconds.and_then(|seconds| u32::try_from(seconds).ok()) {
                packet = packet.integer(attribute::ACCT_SESSION_TIME, seconds);
            }
            packet = octets(packet, self.in_octets, attribute::ACCT_INPUT_OCTETS, attribute::ACCT_INPUT_GIGAWORDS);
            packet = octets(packet, self.out_octets, attribute::ACCT_OUTPUT_OCTETS, attribute::ACCT_OUTPUT_GIGAWORDS);
            let cause = self.terminate_cause.as_deref().filter(|_| stopped);
            let cause = cause.and_then(|name| dictionary.value_number("Acct-Terminate-Cause", name));
            if let Some(cause) = cause.and_then(|cause| u32::try_from(cause).ok()) {
                packet = packet.integer(attribute::ACCT_TERMINATE_CAUSE, cause);
            }
            reports.push(RadacctReport { at, packet, assumed_end: is_assumed(self.terminate_cause.as_deref()) });
        }
        reports
    }

    fn packet(&self, status: u32, at: Timestamp, nas_identifier: Option<&str>) -> RequestBuilder {
        let mut packet = RequestBuilder::accounting(0)
            .integer(attribute::ACCT_STATUS_TYPE, status)
            .text(attribute::ACCT_SESSION_ID, &self.session);
        let texts = [
            (attribute::USER_NAME, self.user.as_deref()),
            (attribute::NAS_IDENTIFIER, self.nas_identifier.as_deref().or(nas_identifier)),
            (attribute::CALLING_STATION_ID, self.calling_station.as_deref()),
        ];
        for (kind, text) in texts {
            packet = text.into_iter().fold(packet, |packet, text| packet.text(kind, text));
        }
        let addresses = [
            (attribute::NAS_IP_ADDRESS, attribute::NAS_IPV6_ADDRESS, self.nas_address),
            (attribute::FRAMED_IP_ADDRESS, attribute::FRAMED_IPV6_ADDRESS, self.framed_address),
        ];
        for (four, six, address) in addresses {
            packet = match address {
                Some(address @ IpAddr::V4(_)) => packet.address(four, address),
                Some(address @ IpAddr::V6(_)) => packet.address(six, address),
                None => packet,
            };
        }
        match u32::try_from(at.as_second()) {
            Ok(seconds) => packet.integer(attribute::EVENT_TIMESTAMP, seconds),
            // Before 1970: it counts as dated by its arrival, which is the same instant.
            Err(_) => packet,
        }
    }

    /// **Errors**: a text is longer than an attribute.
    pub fn fits(&self) -> Result<(), BuildError> {
        self.packet(START, Timestamp::UNIX_EPOCH, None).sign(&crate::vocabulary::Secret::new("")).map(drop)
    }
}

/// A counter as two attributes. Gigawords only where there are any: a zero would say that this NAS sends them, and that
/// its counters never wrap.
fn octets(packet: RequestBuilder, octets: Option<u64>, low: u8, high: u8) -> RequestBuilder {
    let Some(octets) = octets else { return packet };
    let packet = packet.integer(low, (octets & u64::from(u32::MAX)) as u32);
    match (octets >> 32) as u32 {
        0 => packet,
        gigawords => packet.integer(high, gigawords),
    }
}

fn is_assumed(cause: Option<&str>) -> bool {
    cause.is_some_and(|cause| ASSUMED.iter().any(|assumed| assumed.eq_ignore_ascii_case(cause)))
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty() && text != "\\N" && text != "NULL")
}

fn number(column: &str, text: Option<String>) -> Result<Option<u64>, String> {
    let Some(text) = filled(text) else { return Ok(None) };
    // Columns are 64 bits with a sign, here and there.
    let number = text.trim().parse::<i64>().ok().and_then(|number| u64::try_from(number).ok());
    number.map(Some).ok_or_else(|| format!("{column} is {text:?}, no number of 0 or more"))
}

fn address(column: &str, text: Option<String>) -> Result<Option<IpAddr>, String> {
    let Some(text) = filled(text) else { return Ok(None) };
    let plain = text.split('/').next().unwrap_or_default().trim();
    plain.parse().map(Some).map_err(|_| format!("{column} is {text:?}, no address"))
}

fn instant(column: &str, text: Option<String>, zone: Option<&Zone>) -> Result<Option<Timestamp>, String> {
    let Some(text) = filled(text) else { return Ok(None) };
    let text = text.trim();
    // MySQL's way to say "none".
    if text.starts_with("0000-00-00") || text == "0" {
        return Ok(None);
    }
    let wrong = || format!("{column} is {text:?}, no instant");
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).map(Some).map_err(|_| wrong());
    }
    if let Some(at) = parse_instant(text).or_else(|| parse_instant(&with_minutes(text)?)) {
        return Ok(Some(at));
    }
    let local: DateTime = text.parse().map_err(|_| wrong())?;
    let zone = zone.ok_or_else(|| format!("{column} is {text:?} without a time zone; give it with --timezone"))?;
    let at = zone.to_ambiguous_timestamp(local).unambiguous();
    at.map(Some)
        .map_err(|_| format!("{column} is {text:?}, an hour that comes twice or never that day; write its offset"))
}

/// PostgreSQL prints `+00` where RFC 3339 has `+00:00`.
fn with_minutes(text: &str) -> Option<String> {
    let sign = text.rfind(['+', '-']).filter(|at| *at > 10)?;
    let digits = &text[sign + 1..];
    (digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| format!("{text}:00"))
}

const START: u32 = 1;
const STOP: u32 = 2;
const INTERIM: u32 = 3;
/// Causes under which a server or a script closes a row that no Stop closed.
const ASSUMED: [&str; 3] = ["NAS-Reboot", "Stale-Session", "Clear-Stale-Session"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{PacketView, decode};
    use super::*;
    use crate::vocabulary::Secret;

    fn row() -> RadacctRow {
        let text = |text: &str| Some(text.to_owned());
        RadacctRow {
            session: text("s1"),
            user: text("ada@acme"),
            nas_address: text("192.0.2.1/32"),
            started: text("2026-11-20 10:00:00+00"),
            updated: text("2026-11-20 10:50:00+00"),
            stopped: text("2026-11-20 11:00:00+00"),
            session_seconds: text("3600"),
            in_octets: text("5"),
            out_octets: text("12884901890"),
            terminate_cause: text("User-Request"),
            framed_address: text("100.64.0.9"),
            ..RadacctRow::default()
        }
    }

    fn shown(row: RadacctRow, zone: Option<&Zone>) -> Result<Vec<String>, String> {
        let dictionary = Dictionary::standard();
        let reports = row.read(zone)?.reports(&dictionary, None);
        Ok(reports
            .into_iter()
            .map(|report| {
                let octets = report.packet.sign(&Secret::new("")).expect("small");
                let view = PacketView::parse(&octets).expect("our own packet");
                let all: Vec<String> = decode(&view, &dictionary).into_iter().map(|found| found.value).collect();
                all.join(" ")
            })
            .collect())
    }

    #[test]
    fn a_closed_row_is_a_start_and_a_stop_and_an_open_one_a_start_and_an_interim() {
        let start = "Start s1 ada@acme 192.0.2.1 100.64.0.9 2026-11-20T10:00:00Z";
        let stop = "Stop s1 ada@acme 192.0.2.1 100.64.0.9 2026-11-20T11:00:00Z 3600 5 2 3 User-Request";
        assert_eq!(shown(row(), None), Ok(vec![start.to_owned(), stop.to_owned()]));
        let open = RadacctRow { stopped: None, session_seconds: None, terminate_cause: Some(String::new()), ..row() };
        let interim = "Interim-Update s1 ada@acme 192.0.2.1 100.64.0.9 2026-11-20T10:50:00Z 3000 5 2 3";
        assert_eq!(shown(open.clone(), None), Ok(vec![start.to_owned(), interim.to_owned()]));
        let only_started = RadacctRow { updated: None, ..open };
        assert_eq!(shown(only_started, None), Ok(vec![start.to_owned()]));
    }

    #[test]
    fn an_end_that_nobody_reported_is_the_last_report() {
        let reboot = RadacctRow { terminate_cause: Some("NAS-Reboot".to_owned()), ..row() };
        let reports = reboot.read(None).expect("a row").reports(&Dictionary::standard(), None);
        assert_eq!((reports[1].at.to_string().as_str(), reports[1].assumed_end), ("2026-11-20T10:50:00Z", true));
    }

    #[test]
    fn times_need_a_zone_and_faults_name_their_column() {
        let with = |change: fn(&mut RadacctRow)| {
            let mut changed = row();
            change(&mut changed);
            changed
        };
        let local = with(|row| {
            row.started = Some("2026-11-20 04:00:00".to_owned());
            row.updated = Some("0000-00-00 00:00:00".to_owned());
            row.stopped = Some("1795172400".to_owned());
        });
        let chicago = Zone::get("America/Chicago").expect("a zone");
        let found = shown(local.clone(), Some(&chicago)).expect("a row");
        assert!(found[0].ends_with("2026-11-20T10:00:00Z") && found[1].contains("2026-11-20T11:00:00Z"), "{found:?}");
        let cases: [(RadacctRow, &str); 7] = [
            (local, "acctstarttime is \"2026-11-20 04:00:00\" without a time zone"),
            (with(|row| row.session = None), "acctsessionid is empty"),
            (with(|row| row.in_octets = Some("-1".to_owned())), "acctinputoctets is \"-1\""),
            (with(|row| row.out_octets = Some("9223372036854775808".to_owned())), "acctoutputoctets is"),
            (with(|row| row.stopped = Some("2026-11-20 09:00:00+00".to_owned())), "ends before it starts"),
            (with(|row| row.nas_address = Some("bng1".to_owned())), "nasipaddress is \"bng1\", no address"),
            (
                with(|row| (row.started, row.updated, row.stopped) = (None, None, None)),
                "neither acctstarttime nor acctstoptime",
            ),
        ];
        for (row, words) in cases {
            assert!(shown(row, None).is_err_and(|fault| fault.starts_with(words) || fault.contains(words)), "{words}");
        }
    }

    proptest! {
        #[test]
        fn no_texts_make_reading_panic(texts in proptest::collection::vec(
            proptest::option::of(prop_oneof!["[0-9: +Tz.-]{0,30}", "[0-9]{0,22}", "\\PC{0,10}"]), 13,
        )) {
            let mut texts = texts.into_iter();
            let mut next = || texts.next().flatten();
            let row = RadacctRow {
                session: next(), user: next(), nas_address: next(), nas_identifier: next(), started: next(),
                updated: next(), stopped: next(), session_seconds: next(), in_octets: next(), out_octets: next(),
                calling_station: next(), terminate_cause: next(), framed_address: next(),
            };
            if let Ok(session) = row.read(Some(&Zone::UTC)) {
                let _ = session.fits();
                session.reports(&Dictionary::standard(), Some("x"));
            }
        }
    }
}
