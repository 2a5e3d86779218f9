//! Deposits: taken with the period in which a service first has the tariff, given back with the one in which it has it for
//! the last time. What is given back is what the version took, whatever a later version asks for.

use super::coverage::{self, Edges};
use super::facts::{KnownVersion, RunContext, ServiceFacts};
use super::run::RunError;
use super::tariff::{Charge, ChargeKind, Scope};
use crate::vocabulary::{Period, Timestamp};

/// One side of a deposit.
pub struct DepositPart<'r> {
    pub version: &'r KnownVersion,
    pub charge: &'r Charge,
    pub period: Period,
    /// The day on which it is taken or given back.
    pub coverage: (Timestamp, Timestamp),
    pub returned: bool,
}

/// The deposits of a service that are taken or given back up to the run's advance.
pub fn deposits<'r>(service: &ServiceFacts, context: &'r RunContext) -> Result<Vec<DepositPart<'r>>, RunError> {
    let mut parts = Vec::new();
    if service.scope != Scope::Service {
        return Ok(parts);
    }
    let mut seen: Vec<&str> = Vec::new();
    for stretch in &service.stretches {
        let tariff = stretch.tariff.as_str();
        let has_deposit = |version: &KnownVersion| {
            version.tariff.charges.iter().any(|charge| matches!(charge.kind, ChargeKind::Deposit { .. }))
        };
        if seen.contains(&tariff) || !context.tariffs.get(tariff).is_some_and(|known| known.iter().any(has_deposit)) {
            continue;
        }
        seen.push(tariff);
        parts.extend(of_tariff(service, tariff, stretch.from, context)?);
    }
    Ok(parts)
}

fn of_tariff<'r>(
    service: &ServiceFacts,
    tariff: &str,
    from: Timestamp,
    context: &'r RunContext,
) -> Result<Vec<DepositPart<'r>>, RunError> {
    let cycle = &context.cycle;
    let taken_here = coverage::first_on(service, tariff) == Some(from);
    let opening = cycle.period_at(from)?;
    let pieces = coverage::pieces(service, &opening, context, Edges::Exact)?;
    let version = pieces.iter().find(|piece| piece.version.tariff.id == tariff).map(|piece| piece.version);
    let ahead = cycle.next(&context.period)?;
    let mut parts = Vec::new();
    let Some(version) = version.filter(|_| taken_here && opening.start <= ahead.start) else { return Ok(parts) };
    let goes_on = |stretch: &super::facts::Stretch| stretch.tariff == tariff && stretch.until.is_none();
    let all = || service.stretches.iter().chain(&service.elsewhere);
    let ended = match all().any(goes_on) {
        true => None,
        false => all().filter(|stretch| stretch.tariff == tariff).filter_map(|stretch| stretch.until).max(),
    };
    let last = ended.map(|end| end.checked_sub(jiff::Span::new().microseconds(1)).unwrap_or(end));
    let closing = last.map(|last| cycle.period_at(last)).transpose()?;
    // Taken and given back in one period: it was never due.
    if closing.as_ref() == Some(&opening) {
        return Ok(parts);
    }
    for charge in version.tariff.charges.iter().filter(|charge| matches!(charge.kind, ChargeKind::Deposit { .. })) {
        parts.push(DepositPart {
            version,
            charge,
            period: opening.clone(),
            coverage: day(from, context)?,
            returned: false,
        });
        if let (Some(last), Some(period)) = (last, &closing)
            && period.start <= context.period.start
        {
            let coverage = day(last, context)?;
            parts.push(DepositPart { version, charge, period: period.clone(), coverage, returned: true });
        }
    }
    Ok(parts)
}

fn day(at: Timestamp, context: &RunContext) -> Result<(Timestamp, Timestamp), RunError> {
    let day = context.cycle.day_of(at);
    let next = day.tomorrow().map_err(|_| super::calendar::CalendarError::OutOfRange)?;
    Ok((context.cycle.midnight(day)?, context.cycle.midnight(next)?))
}
