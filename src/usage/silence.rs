//! Time in which a session said nothing although it should have: between two reports, or after the last one.
//!
//! In: what each report of one incarnation brought, in order. Out: stretches longer than a limit, inside a period, with
//! the octets that were used in them: known where the counters went on, estimated at the session's own rate where no
//! report came any more.

/// One report: when, and the octets it brought in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reported {
    pub at: i64,
    pub octets: i128,
}

/// A stretch without a report, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    pub kind: SilenceKind,
    pub from: i64,
    pub until: i64,
    pub octets: i128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SilenceKind {
    /// The next report told of the octets; when they were used is spread evenly.
    Between,
    /// No Stop and no further report came: the octets are an estimate, and nobody has counted them.
    After,
}

impl SilenceKind {
    pub fn as_str(self) -> &'static str {
        match self {
            SilenceKind::Between => "between_reports",
            SilenceKind::After => "after_last_report",
        }
    }
}

/// The silences of one incarnation that began at `started_at` which are longer than `longest` and touch `within`.
///
/// `over_at`: when it must have been over without a Stop, for example because the next one began; `None`: it stopped.
pub fn silences(
    reports: &[Reported],
    started_at: i64,
    over_at: Option<i64>,
    longest: i64,
    within: (i64, i64),
) -> Vec<Silence> {
    let mut found = Vec::new();
    let mut last = started_at;
    for report in reports {
        if report.at - last > longest {
            found.extend(clipped(SilenceKind::Between, (last, report.at), report.octets, within));
        }
        last = last.max(report.at);
    }
    let over_at = over_at.unwrap_or(last);
    if over_at - last > longest {
        let used: i128 = reports.iter().map(|report| report.octets).sum();
        let length = i128::from(last - started_at);
        let octets = if length > 0 { used * i128::from(over_at - last) / length } else { 0 };
        found.extend(clipped(SilenceKind::After, (last, over_at), octets, within));
    }
    found
}

/// The part inside `within`, with its part of the octets.
fn clipped(kind: SilenceKind, (from, until): (i64, i64), octets: i128, within: (i64, i64)) -> Option<Silence> {
    let (inner_from, inner_until) = (from.max(within.0), until.min(within.1));
    if inner_from >= inner_until {
        return None;
    }
    let upto = |at: i64| octets * i128::from(at - from) / i128::from(until - from);
    Some(Silence { kind, from: inner_from, until: inner_until, octets: upto(inner_until) - upto(inner_from) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: (i64, i64) = (i64::MIN / 4, i64::MAX / 4);

    fn reports(times: &[(i64, i128)]) -> Vec<Reported> {
        times.iter().map(|(at, octets)| Reported { at: *at, octets: *octets }).collect()
    }

    #[test]
    fn regular_session_has_no_silence() {
        let regular = reports(&[(0, 0), (600, 60), (1200, 60), (1800, 60)]);
        assert_eq!(silences(&regular, 0, None, 1800, ALWAYS), []);
        assert_eq!(silences(&regular, 0, Some(3600), 1800, ALWAYS), [], "just within the limit");
        assert_eq!(silences(&reports(&[(0, 0), (1800, 60)]), 0, None, 1800, ALWAYS), [], "just within it, too");
    }

    #[test]
    fn gap_between_reports_has_the_octets_that_came_after_it() {
        let late = reports(&[(0, 0), (600, 60), (4200, 300), (4800, 10)]);
        let gap = Silence { kind: SilenceKind::Between, from: 600, until: 4200, octets: 300 };
        assert_eq!(silences(&late, 0, None, 1800, ALWAYS), [gap]);
        let half = Silence { from: 2400, octets: 150, ..gap };
        assert_eq!(silences(&late, 0, None, 1800, (2400, 90_000)), [half], "a period's edge cuts it");
        assert_eq!(silences(&late, 0, None, 1800, (4200, 90_000)), []);
    }

    #[test]
    fn what_came_after_the_last_report_is_estimated_at_the_rate_before_it() {
        let lost = reports(&[(0, 0), (600, 60), (1200, 60)]);
        let after = Silence { kind: SilenceKind::After, from: 1200, until: 7200, octets: 600 };
        assert_eq!(silences(&lost, 0, Some(7200), 1800, ALWAYS), [after]);
        assert_eq!(silences(&lost[..1], 0, Some(7200), 1800, ALWAYS)[0].octets, 0, "of nothing nothing is estimated");
    }
}
