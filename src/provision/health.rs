//! Whether it is us or the line: a modem's levels as read by SNMP, judged against what a healthy plant shows.
//!
//! Comes in: values as the modem gives them, and those of the time before. Goes out: findings in the operator's words.
//! Limits are the usual ones of DOCSIS 3.0 plants; a level outside the good range is worth a look, one outside the limit
//! explains a complaint.

use serde::{Deserialize, Serialize};

/// What a modem told of itself. `None`: it has no such object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub uptime_seconds: Option<i64>,
    /// docsDevSwCurrentVers.
    pub firmware: Option<String>,
    /// docsDevSerialNumber.
    pub serial: Option<String>,
    /// docsDevServerConfigFile.
    pub config_file: Option<String>,
    /// docsIfCmStatusValue.
    pub status: Option<i64>,
    /// Downstream power in 0.1 dBmV.
    pub downstream_power: Option<i64>,
    /// Downstream signal to noise in 0.1 dB.
    pub downstream_snr: Option<i64>,
    /// Upstream transmit power in 0.1 dBmV.
    pub upstream_power: Option<i64>,
    /// docsIfCmStatusResets: resets and re-initializations since the modem counts.
    pub resets: Option<i64>,
    /// docsIfCmStatusLostSyncs.
    pub lost_syncs: Option<i64>,
    pub codewords_unerrored: Option<i64>,
    pub codewords_corrected: Option<i64>,
    pub codewords_uncorrectable: Option<i64>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth a look.
    Warning,
    /// Explains a complaint.
    Bad,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub detail: String,
}

/// Good and tolerable bounds of a level in tenths, inclusive.
struct Range {
    name: &'static str,
    unit: &'static str,
    good: (i64, i64),
    limit: (i64, i64),
}

const DOWNSTREAM_POWER: Range = Range { name: "downstream power", unit: "dBmV", good: (-70, 70), limit: (-150, 150) };
const DOWNSTREAM_SNR: Range = Range { name: "downstream SNR", unit: "dB", good: (330, 999), limit: (300, 999) };
const UPSTREAM_POWER: Range =
    Range { name: "upstream transmit power", unit: "dBmV", good: (350, 490), limit: (250, 510) };
/// Uncorrectable codewords above this part of all since the last look, in percent.
const UNCORRECTABLE_PERCENT: i64 = 1;
/// Resets since the last look that are no coincidence.
const RESETS_MANY: i64 = 3;

/// Everything that is not as it should be; empty: the line is fine. `before` is what the modem told the time before.
pub fn findings(now: &Health, before: Option<&Health>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (range, value) in [
        (&DOWNSTREAM_POWER, now.downstream_power),
        (&DOWNSTREAM_SNR, now.downstream_snr),
        (&UPSTREAM_POWER, now.upstream_power),
    ] {
        found.extend(value.and_then(|value| range.judge(value)));
    }
    found.extend(codewords(now, before));
    if let (Some(resets), Some(earlier)) = (now.resets, before.and_then(|before| before.resets))
        && resets - earlier >= RESETS_MANY
    {
        let detail = format!("{} resets since the last look", resets - earlier);
        found.push(Finding { severity: Severity::Bad, detail });
    }
    found
}

/// One line for a person on the telephone.
pub fn summary(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "the line is fine".to_owned();
    }
    let details: Vec<&str> = findings.iter().map(|finding| finding.detail.as_str()).collect();
    let worst = findings.iter().map(|finding| finding.severity).max();
    let word = if worst == Some(Severity::Bad) { "it is the line" } else { "the line is at its edge" };
    format!("{word}: {}", details.join("; "))
}

/// Codewords since the last look; since the modem booted where it was not looked at before or booted meanwhile.
fn codewords(now: &Health, before: Option<&Health>) -> Option<Finding> {
    let counts = |health: &Health| {
        Some([health.codewords_unerrored?, health.codewords_corrected?, health.codewords_uncorrectable?])
    };
    let newest = counts(now)?;
    let earlier = before.and_then(counts).filter(|earlier| earlier.iter().zip(&newest).all(|(old, new)| old <= new));
    let since = earlier.map_or(newest, |old| [newest[0] - old[0], newest[1] - old[1], newest[2] - old[2]]);
    let all: i64 = since.iter().sum();
    (all > 0 && since[2] * 100 > all * UNCORRECTABLE_PERCENT).then(|| Finding {
        severity: Severity::Bad,
        detail: format!("{} of {all} codewords could not be corrected", since[2]),
    })
}

impl Range {
    fn judge(&self, value: i64) -> Option<Finding> {
        let outside = |(low, high): (i64, i64)| value < low || value > high;
        let (severity, (low, high)) = match (outside(self.limit), outside(self.good)) {
            (true, _) => (Severity::Bad, self.limit),
            (false, true) => (Severity::Warning, self.good),
            (false, false) => return None,
        };
        let bounds = if high >= 999 {
            format!("below {}", tenths(low))
        } else {
            format!("outside {} to {}", tenths(low), tenths(high))
        };
        Some(Finding { severity, detail: format!("{} {} {} is {bounds}", self.name, tenths(value), self.unit) })
    }
}

/// A level in tenths as people write it.
pub fn tenths(value: i64) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}.{}", value.abs() / 10, value.abs() % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Health {
        Health {
            downstream_power: Some(12),
            downstream_snr: Some(385),
            upstream_power: Some(422),
            resets: Some(4),
            codewords_unerrored: Some(1_000_000),
            codewords_corrected: Some(500),
            codewords_uncorrectable: Some(2),
            ..Health::default()
        }
    }

    #[test]
    fn a_healthy_line_is_fine_and_each_level_has_its_words() {
        assert_eq!(summary(&findings(&healthy(), None)), "the line is fine");
        let cases = [
            (
                Health { downstream_power: Some(-123), ..healthy() },
                "the line is at its edge: downstream power -12.3 dBmV is outside -7.0 to 7.0",
            ),
            (
                Health { downstream_power: Some(-151), ..healthy() },
                "it is the line: downstream power -15.1 dBmV is outside -15.0 to 15.0",
            ),
            (
                Health { downstream_snr: Some(315), ..healthy() },
                "the line is at its edge: downstream SNR 31.5 dB is below 33.0",
            ),
            (
                Health { upstream_power: Some(520), ..healthy() },
                "it is the line: upstream transmit power 52.0 dBmV is outside 25.0 to 51.0",
            ),
        ];
        for (health, words) in cases {
            assert_eq!(summary(&findings(&health, None)), words);
        }
    }

    #[test]
    fn counters_count_since_the_last_look_and_anew_after_a_boot() {
        let later = Health { codewords_unerrored: Some(1_000_900), codewords_uncorrectable: Some(102), ..healthy() };
        let found = findings(&later, Some(&healthy()));
        assert_eq!(summary(&found), "it is the line: 100 of 1000 codewords could not be corrected");
        assert!(findings(&later, None).is_empty());
        let booted = Health {
            codewords_unerrored: Some(100),
            codewords_corrected: Some(0),
            codewords_uncorrectable: Some(0),
            ..healthy()
        };
        assert!(findings(&booted, Some(&later)).is_empty());
        let restless = Health { resets: Some(9), ..healthy() };
        assert_eq!(summary(&findings(&restless, Some(&healthy()))), "it is the line: 5 resets since the last look");
    }
}
