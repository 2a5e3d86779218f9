//! Counts another tenant's subscribers or services in a period, by a declared rule, and keeps whom it counted.
//!
//! A census is who was there when, as the history tells it. The same census and rule give the same number, list and digest.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::calendar::{BillCycle, days_between};
use super::tariff::{Count, CountRule, Counted};
use crate::account::{ServiceType, Status};
use crate::vocabulary::{Exact, ExactError, Period, Timestamp, hex};

/// Everybody a tenant had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    pub tenant: String,
    /// Sorted by account and service.
    pub members: Vec<Member>,
}

/// One service as it was in `[from, until)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// `SOURCE/EXTERNAL ID`.
    pub account: String,
    /// External id.
    pub service: String,
    pub service_type: ServiceType,
    pub plan: String,
    pub status: Status,
    pub from: Timestamp,
    pub until: Option<Timestamp>,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    pub quantity: Exact,
    /// Subjects, for a daily average subject-days.
    pub raw: i64,
    pub list: CountList,
}

/// Whom a count counted: the evidence of its line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountList {
    pub tenant: String,
    pub rule: String,
    /// Local days, as `first..last`, that were looked at.
    pub days: String,
    /// Each counted subject with the days on which it counts, in order.
    pub members: Vec<(String, u32)>,
}

impl CountList {
    /// SHA-256 over tenant, rule, days and members.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.tenant, &self.rule, &self.days] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        for (id, days) in &self.members {
            hash.update((id.len() as u64).to_be_bytes());
            hash.update(id.as_bytes());
            hash.update(days.to_be_bytes());
        }
        hex(&hash.finalize())
    }
}

impl CountRule {
    /// How the list names the rule.
    pub fn name(self) -> String {
        match self {
            CountRule::ActiveOn(day) => format!("active_on {day}"),
            CountRule::Any => "any".to_owned(),
            CountRule::AverageDaily => "average_daily".to_owned(),
            CountRule::Peak => "peak".to_owned(),
        }
    }
}

/// Counts the census in the covered time of a period.
pub fn tally(
    count: &Count,
    census: &Census,
    cycle: &BillCycle,
    period: &Period,
    coverage: &[(Timestamp, Timestamp)],
) -> Result<Tally, ExactError> {
    let first = cycle.day_of(period.start);
    let length = usize::try_from(cycle.days(period)).unwrap_or(0);
    let day = |at: Timestamp| days_between(first, cycle.day_of(at));
    let mut covered = vec![false; length];
    for (from, until) in coverage {
        mark(&mut covered, day(*from), day(last_moment(*until)));
    }
    let mut per_day = vec![0i64; length];
    let mut subjects: Vec<(String, Vec<bool>)> = Vec::new();
    for member in census.members.iter().filter(|member| counts(count, member)) {
        let until = member.until.unwrap_or(period.end).min(period.end);
        if member.from >= until || until <= period.start {
            continue;
        }
        let id = match count.what {
            Counted::Accounts => member.account.clone(),
            Counted::Services => format!("{}/{}", member.account, member.service),
        };
        if subjects.last().is_none_or(|(last, _)| *last != id) {
            subjects.push((id, vec![false; length]));
        }
        if let Some((_, days)) = subjects.last_mut() {
            mark(days, day(member.from.max(period.start)), day(last_moment(until)));
        }
    }
    for (_, days) in &mut subjects {
        for (index, here) in days.iter_mut().enumerate() {
            *here &= covered[index];
            per_day[index] += i64::from(*here);
        }
    }
    let chosen = match count.rule {
        CountRule::ActiveOn(on) => Some(usize::from(on).min(length).saturating_sub(1)),
        // Of several days with most the first.
        CountRule::Peak => (0..length).max_by_key(|index| (per_day[*index], length - index)),
        CountRule::Any | CountRule::AverageDaily => None,
    };
    let mut members = Vec::new();
    for (id, days) in subjects {
        let there = match chosen {
            Some(index) => u32::from(days.get(index).copied().unwrap_or(false)),
            None => u32::try_from(days.iter().filter(|here| **here).count()).unwrap_or(u32::MAX),
        };
        if there > 0 {
            members.push((id, there));
        }
    }
    let raw: i64 = match count.rule {
        CountRule::AverageDaily => members.iter().map(|(_, days)| i64::from(*days)).sum(),
        _ => i64::try_from(members.len()).map_err(|_| ExactError::Overflow)?,
    };
    let quantity = match count.rule {
        CountRule::AverageDaily => Exact::ratio(i128::from(raw), i128::try_from(length.max(1)).unwrap_or(1))?,
        _ => Exact::from_int(i128::from(raw)),
    };
    let on = |index: usize| {
        let from = i64::try_from(index).unwrap_or(0);
        first.checked_add(jiff::Span::new().days(from)).map_or_else(|_| String::new(), |day| day.to_string())
    };
    let days = match chosen {
        Some(index) => on(index),
        None => format!("{}..{}", on(0), on(length.saturating_sub(1))),
    };
    let list = CountList { tenant: census.tenant.clone(), rule: count.rule.name(), days, members };
    Ok(Tally { quantity, raw, list })
}

fn counts(count: &Count, member: &Member) -> bool {
    count.statuses.contains(&member.status)
        && (count.types.is_empty() || count.types.contains(&member.service_type))
        && (count.plans.is_empty() || count.plans.contains(&member.plan))
}

fn mark(days: &mut [bool], from: i64, until: i64) {
    for (index, day) in days.iter_mut().enumerate() {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        *day |= from <= index && index <= until;
    }
}

fn last_moment(until: Timestamp) -> Timestamp {
    until.checked_sub(jiff::Span::new().microseconds(1)).unwrap_or(until)
}

#[cfg(test)]
mod tests;
