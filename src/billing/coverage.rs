//! Which part of a period a service pays at which version of a tariff.
//!
//! A day counts when the service was billed at any time of it; a day on which the tariff changes belongs to the tariff in
//! force at its end. So the parts of a period never overlap, and without a change they are the whole period.

use super::calendar::{BillCycle, CalendarError, days_between};
use super::facts::{KnownVersion, RunContext, ServiceFacts, Stretch};
use super::tariff::{Apply, Audience, Proration, RefundOnEnd, Timing};
use crate::vocabulary::{Date, Exact, ExactError, Period, Timestamp};
use jiff::ToSpan;

/// A part of a period under one version.
#[derive(Debug, Clone)]
pub struct Piece<'r> {
    pub version: &'r KnownVersion,
    pub from: Timestamp,
    pub until: Timestamp,
    /// The first part of the period that is billed at all.
    pub first: bool,
    /// The service ends with this part.
    pub ends: bool,
}

/// The billed part of a period, from 0 to 1, and the time it covers.
pub type BilledPart = (Exact, Vec<(Timestamp, Timestamp)>);

/// How the edges of billed time are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edges {
    /// Widened to local days.
    Days,
    /// As they happened, for amounts by the second.
    Exact,
}

/// The parts of `period`, in order. Time for which no version is in force has no part.
pub fn pieces<'r>(
    service: &ServiceFacts,
    period: &Period,
    context: &'r RunContext,
    edges: Edges,
) -> Result<Vec<Piece<'r>>, CalendarError> {
    let cycle = &context.cycle;
    let mut found: Vec<Piece<'r>> = Vec::new();
    for (index, stretch) in service.stretches.iter().enumerate() {
        let next = service.stretches.get(index + 1);
        // Where another cycle goes on at once, the day of the change is that one's.
        let goes_on = service.elsewhere.iter().find(|other| Some(other.from) == stretch.until);
        let next_from = next.or(goes_on).map(|next| next.from);
        let (from, until) = match edges {
            Edges::Days => whole_days(cycle, stretch, next_from)?,
            Edges::Exact => (stretch.from, stretch.until),
        };
        let (from, until) = (from.max(period.start), until.unwrap_or(period.end).min(period.end));
        if from >= until {
            continue;
        }
        let Some(versions) = context.tariffs.get(&stretch.tariff) else { continue };
        let began = first_on(service, &stretch.tariff);
        for (from, until, version) in by_version(versions, (from, until), began, period, context)? {
            found.push(Piece {
                version,
                from,
                until,
                first: found.is_empty(),
                ends: next.is_none()
                    && goes_on.is_none()
                    && stretch.until.is_some_and(|end| end <= period.end)
                    && until < period.end,
            });
        }
    }
    // Only the last part can be the one the service ends with.
    if let Some((_, earlier)) = found.split_last_mut() {
        for piece in earlier {
            piece.ends = false;
        }
    }
    Ok(found)
}

/// The time these parts of one version bill, merged where they touch.
pub fn coverage(pieces: &[&Piece<'_>]) -> Vec<(Timestamp, Timestamp)> {
    let mut merged: Vec<(Timestamp, Timestamp)> = Vec::new();
    for piece in pieces {
        match merged.last_mut() {
            Some(last) if last.1 == piece.from => last.1 = piece.until,
            _ => merged.push((piece.from, piece.until)),
        }
    }
    merged
}

/// The billed part of the period by days, from 0 to 1.
pub fn day_share(cycle: &BillCycle, period: &Period, coverage: &[(Timestamp, Timestamp)]) -> Result<Exact, ExactError> {
    let billed: i64 =
        coverage.iter().map(|(from, until)| days_between(cycle.day_of(*from), cycle.day_of(*until))).sum();
    Exact::ratio(i128::from(billed), i128::from(cycle.days(period)))
}

/// The billed part of the period for a recurring charge, and the time it covers. `None`: nothing is due.
pub fn recurring_share(
    cycle: &BillCycle,
    period: &Period,
    pieces: &[&Piece<'_>],
    proration: Proration,
    timing: Timing,
    refund: RefundOnEnd,
) -> Result<Option<BilledPart>, ExactError> {
    let mut parts: Vec<Piece<'_>> = pieces.iter().map(|piece| (*piece).clone()).collect();
    if let Some(last) = parts.last_mut()
        && last.ends
        && timing == Timing::Advance
        && refund == RefundOnEnd::None
    {
        // Paid in advance and not given back: the service is charged as if it ran to the end of the period.
        last.until = period.end;
    }
    let parts: Vec<&Piece<'_>> = parts.iter().collect();
    let covered = coverage(&parts);
    let share = match proration {
        Proration::None if parts.iter().any(|piece| piece.first) => Exact::ONE,
        Proration::None => return Ok(None),
        Proration::ActualDays => day_share(cycle, period, &covered)?,
        Proration::Fixed30 => thirty_day_share(cycle, period, &covered)?,
        Proration::PerSecond => time_share(period, &covered)?,
    };
    Ok(Some((share, covered)))
}

/// Every part is the difference of a running share that ends at 1, so that parts of a period add up to it.
fn thirty_day_share(
    cycle: &BillCycle,
    period: &Period,
    covered: &[(Timestamp, Timestamp)],
) -> Result<Exact, ExactError> {
    if !MONTH_DAYS.contains(&cycle.days(period)) {
        return day_share(cycle, period, covered);
    }
    let start = cycle.day_of(period.start);
    let running =
        |at: Timestamp| -> i64 { if at >= period.end { 30 } else { days_between(start, cycle.day_of(at)).min(30) } };
    let thirtieths: i64 = covered.iter().map(|(from, until)| running(*until) - running(*from)).sum();
    Exact::ratio(i128::from(thirtieths), 30)
}

fn time_share(period: &Period, covered: &[(Timestamp, Timestamp)]) -> Result<Exact, ExactError> {
    let micros = |from: Timestamp, until: Timestamp| i128::from(until.as_microsecond() - from.as_microsecond());
    let billed = covered.iter().map(|(from, until)| micros(*from, *until)).sum();
    Exact::ratio(billed, micros(period.start, period.end))
}

/// A stretch widened to whole days, without reaching into the next one.
fn whole_days(
    cycle: &BillCycle,
    stretch: &Stretch,
    next_from: Option<Timestamp>,
) -> Result<(Timestamp, Option<Timestamp>), CalendarError> {
    let from = cycle.midnight(cycle.day_of(stretch.from))?;
    let Some(end) = stretch.until else { return Ok((from, None)) };
    let floor = cycle.midnight(cycle.day_of(end))?;
    let ceil = if floor == end { end } else { cycle.midnight(day_after(cycle.day_of(end))?)? };
    let limit = match next_from {
        Some(next) => cycle.midnight(cycle.day_of(next))?,
        None => ceil,
    };
    Ok((from, Some(ceil.min(limit))))
}

fn day_after(day: Date) -> Result<Date, CalendarError> {
    day.tomorrow().map_err(|_| CalendarError::OutOfRange)
}

/// When the service first had a tariff, on whatever cycle.
pub fn first_on(service: &ServiceFacts, tariff: &str) -> Option<Timestamp> {
    let all = service.stretches.iter().chain(&service.elsewhere);
    all.filter(|stretch| stretch.tariff == tariff).map(|stretch| stretch.from).min()
}

/// Where a version takes effect for a subscriber who took the tariff at `began`; `None`: never.
fn effective_for(
    version: &KnownVersion,
    began: Option<Timestamp>,
    cycle: &BillCycle,
) -> Result<Option<Timestamp>, CalendarError> {
    let from = version.tariff.effective_from;
    let at = cycle.midnight(from)?;
    let Some(began) = began.map(|began| cycle.day_of(began)) else { return Ok(Some(at)) };
    match version.tariff.audience {
        _ if began >= from => Ok(Some(at)),
        Audience::All => Ok(Some(at)),
        Audience::New => Ok(None),
        Audience::Renewing { term_months } => {
            let mut terms = 1i32;
            loop {
                let months = i32::try_from(term_months).unwrap_or(i32::MAX).saturating_mul(terms);
                let renewal = began.checked_add(months.months()).map_err(|_| CalendarError::OutOfRange)?;
                if renewal >= from {
                    return cycle.midnight(renewal).map(Some);
                }
                terms += 1;
            }
        }
    }
}

/// Cuts `[from, until)` where another version takes effect.
fn by_version<'r>(
    versions: &'r [KnownVersion],
    (from, until): (Timestamp, Timestamp),
    began: Option<Timestamp>,
    period: &Period,
    context: &RunContext,
) -> Result<Vec<(Timestamp, Timestamp, &'r KnownVersion)>, CalendarError> {
    let closed_at = context.closures.get(&period.start);
    let mut effective: Vec<(Timestamp, &KnownVersion)> = Vec::new();
    let first = versions.iter().map(|version| version.tariff.effective_from).min();
    for version in versions {
        let too_late = closed_at.is_some_and(|closed| version.known_at > *closed);
        if too_late && !version.tariff.retroactive {
            continue;
        }
        // The first version of all is everybody's: there is no other.
        let began = began.filter(|_| first != Some(version.tariff.effective_from));
        let Some(at) = effective_for(version, began, &context.cycle)? else { continue };
        match version.tariff.apply {
            // The first version of all replaces nothing that the running period could keep.
            Apply::NextPeriod if at > period.start && first != Some(version.tariff.effective_from) => {}
            _ => effective.push((at, version)),
        }
    }
    effective.sort_by_key(|(at, version)| (*at, version.tariff.version));
    let mut edges: Vec<Timestamp> =
        effective.iter().map(|(at, _)| *at).filter(|at| from < *at && *at < until).collect();
    edges.insert(0, from);
    edges.push(until);
    let mut cut = Vec::new();
    for edge in edges.windows(2) {
        let in_force = effective.iter().rev().find(|(at, _)| *at <= edge[0]);
        if let Some((_, version)) = in_force
            && edge[0] < edge[1]
        {
            cut.push((edge[0], edge[1], *version));
        }
    }
    Ok(cut)
}

const MONTH_DAYS: std::ops::RangeInclusive<i64> = 28..=31;
