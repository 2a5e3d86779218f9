//! Usage as a person looks at it: summed by hour, by local day, or by billing period.
//!
//! In: pieces of at most an hour, and the account's cycle. Out: sums that add up to the pieces. It rates nothing.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::calendar::{BillCycle, CalendarError};
use crate::usage::Wide;
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// How wide a row of the view is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Hour,
    /// Days of the cycle's zone.
    Day,
    Cycle,
}

/// Usage of one service in one row of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    pub service: String,
    pub from: Timestamp,
    pub until: Timestamp,
    pub amount: Wide,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    #[error("the range holds more than {ROWS_MAX} rows; ask for less, or by day")]
    TooLong,
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "hour" => Ok(Self::Hour),
            "day" => Ok(Self::Day),
            "cycle" => Ok(Self::Cycle),
            other => Err(format!("{other:?} is no width; write hour, day or cycle")),
        }
    }
}

/// Sums pieces (service, when it begins in microseconds, how much) by service and row, in order of service and time. Rows without usage are left out.
pub fn sum(
    pieces: impl IntoIterator<Item = (String, i64, Wide)>,
    cycle: &BillCycle,
    by: By,
) -> Result<Vec<UsageRow>, ViewError> {
    let mut rows: BTreeMap<(String, Timestamp), (Timestamp, Wide)> = BTreeMap::new();
    for (service, from_at, amount) in pieces {
        let (from, until) = row_of(from_at, cycle, by)?;
        let row = rows.entry((service, from)).or_insert((until, Wide::default()));
        row.1 = row.1.plus(amount);
        if rows.len() > ROWS_MAX {
            return Err(ViewError::TooLong);
        }
    }
    let row = |((service, from), (until, amount))| UsageRow { service, from, until, amount };
    Ok(rows.into_iter().map(row).filter(|row| !row.amount.is_zero()).collect())
}

fn row_of(at: i64, cycle: &BillCycle, by: By) -> Result<(Timestamp, Timestamp), ViewError> {
    let instant = |micros: i64| from_micros(micros).ok_or(CalendarError::OutOfRange);
    match by {
        By::Hour => {
            let from = at - at.rem_euclid(HOUR);
            Ok((instant(from)?, instant(from + HOUR)?))
        }
        By::Day => {
            let day = cycle.day_of(instant(at)?);
            let next = day.tomorrow().map_err(|_| CalendarError::OutOfRange)?;
            Ok((cycle.midnight(day)?, cycle.midnight(next)?))
        }
        By::Cycle => {
            let period = cycle.period_at(instant(at)?)?;
            Ok((period.start, period.end))
        }
    }
}

/// The sum over all rows.
pub fn total(rows: &[UsageRow]) -> Wide {
    rows.iter().fold(Wide::default(), |sum, row| sum.plus(row.amount))
}

/// A sum as JSON: a number, or where a number of 64 bits does not hold it, its digits.
pub fn digits(sum: i128) -> serde_json::Value {
    match (i64::try_from(sum), u64::try_from(sum)) {
        (Ok(number), _) => number.into(),
        (_, Ok(number)) => number.into(),
        _ => sum.to_string().into(),
    }
}

/// The cycle of a subscriber whose own is not in the catalog: calendar months in UTC.
pub fn fallback_cycle() -> BillCycle {
    BillCycle {
        id: "utc".to_owned(),
        anchor_day: 1,
        every: super::calendar::Every::Month,
        zone: crate::vocabulary::Zone::UTC,
        timezone: "UTC".to_owned(),
    }
}

/// Edges of the cycle's periods from the one that holds `from` to `until`, to cut usage that is not in the ledger yet.
pub fn edges(cycle: &BillCycle, from: Timestamp, until: Timestamp) -> Result<Vec<Timestamp>, CalendarError> {
    let mut period = cycle.period_at(from)?;
    let mut edges = vec![period.start];
    while to_micros(period.end) <= to_micros(until) && edges.len() < ROWS_MAX {
        edges.push(period.end);
        period = cycle.next(&period)?;
    }
    Ok(edges)
}

const HOUR: i64 = 3_600_000_000;
/// A year of hours for one service, a day of hours for hundreds.
const ROWS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{Zone, parse_instant};

    fn piece(from: &str, in_octets: i128) -> (String, i64, Wide) {
        let from_at = to_micros(parse_instant(from).expect(from));
        ("A-1".to_owned(), from_at, Wide { in_octets, ..Wide::default() })
    }

    #[test]
    fn sums_that_leave_64_bits_are_sums() {
        let most = i128::from(i64::MAX);
        let pieces = (0..3).map(|_| piece("2026-11-10T06:00:00Z", most));
        let rows = sum(pieces, &fallback_cycle(), By::Hour).expect("sums");
        assert_eq!((rows[0].amount.in_octets, total(&rows).in_octets), (3 * most, 3 * most));
        assert_eq!(digits(most).to_string(), "9223372036854775807");
        assert_eq!(digits(2 * most).to_string(), "18446744073709551614");
        assert_eq!(digits(3 * most).to_string(), "\"27670116110564327421\"");
        assert_eq!(digits(-3 * most).to_string(), "\"-27670116110564327421\"");
    }

    #[test]
    fn days_are_those_of_the_zone() {
        let cycle = BillCycle {
            zone: Zone::get("America/Chicago").expect("a zone"),
            timezone: "America/Chicago".to_owned(),
            ..fallback_cycle()
        };
        let pieces =
            vec![piece("2026-11-10T05:00:00Z", 1), piece("2026-11-10T06:00:00Z", 2), piece("2026-11-11T05:00:00Z", 4)];
        let rows = sum(pieces, &cycle, By::Day).expect("sums");
        let seen: Vec<(String, i128)> = rows.iter().map(|row| (row.from.to_string(), row.amount.in_octets)).collect();
        assert_eq!(seen, [("2026-11-09T06:00:00Z".to_owned(), 1), ("2026-11-10T06:00:00Z".to_owned(), 6)]);
        assert_eq!(total(&rows).in_octets, 7);
    }

    #[test]
    fn hours_and_cycles_are_rows_too() {
        let pieces =
            vec![piece("2026-10-31T23:59:59Z", 1), piece("2026-11-10T06:00:00Z", 2), piece("2026-11-10T06:59:59Z", 4)];
        let shown = |by: &str| {
            let rows = sum(pieces.clone(), &fallback_cycle(), by.parse().expect("a width")).expect("sums");
            let row = |row: &UsageRow| format!("{} {} {}", row.from, row.until, row.amount.in_octets);
            rows.iter().map(row).collect::<Vec<String>>()
        };
        assert_eq!(
            shown("hour"),
            ["2026-10-31T23:00:00Z 2026-11-01T00:00:00Z 1", "2026-11-10T06:00:00Z 2026-11-10T07:00:00Z 6"]
        );
        assert_eq!(
            shown("cycle"),
            ["2026-10-01T00:00:00Z 2026-11-01T00:00:00Z 1", "2026-11-01T00:00:00Z 2026-12-01T00:00:00Z 6"]
        );
        assert_eq!(shown("day").len(), 2);
        assert!("week".parse::<By>().is_err());
    }

    #[test]
    fn rows_that_cancel_are_left_out_and_services_are_apart() {
        let other = |from: &str, octets: i128| {
            let (_, from_at, amount) = piece(from, octets);
            ("B-2".to_owned(), from_at, amount)
        };
        let pieces = vec![
            piece("2026-11-10T06:00:00Z", 5),
            piece("2026-11-10T06:00:00Z", -5),
            other("2026-11-10T06:00:00Z", 7),
            piece("2026-11-10T08:00:00Z", 1),
        ];
        let rows = sum(pieces, &fallback_cycle(), By::Hour).expect("sums");
        let shown: Vec<(&str, i128)> = rows.iter().map(|row| (row.service.as_str(), row.amount.in_octets)).collect();
        assert_eq!(shown, [("A-1", 1), ("B-2", 7)]);
        let most = |number: i64| {
            let pieces = (0..number).map(|hour| {
                let (service, from_at, amount) = piece("2026-11-10T06:00:00Z", 1);
                (service, from_at + hour * HOUR, amount)
            });
            sum(pieces, &fallback_cycle(), By::Hour).map(|rows| rows.len())
        };
        assert_eq!((most(10_000), most(10_001)), (Ok(10_000), Err(ViewError::TooLong)));
    }

    #[test]
    fn edges_are_those_from_the_period_of_the_first_instant_on() {
        let day = |text: &str| parse_instant(text).expect(text);
        let edges = |from: &str, until: &str| {
            let edges = edges(&fallback_cycle(), day(from), day(until)).expect("in range");
            edges.iter().map(|edge| edge.to_string()[..10].to_owned()).collect::<Vec<String>>()
        };
        assert_eq!(edges("2026-10-20T00:00:00Z", "2026-12-01T00:00:00Z"), ["2026-10-01", "2026-11-01", "2026-12-01"]);
        assert_eq!(edges("2026-10-20T00:00:00Z", "2026-11-30T23:59:59Z"), ["2026-10-01", "2026-11-01"]);
    }
}
