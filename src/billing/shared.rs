//! The figures of a shared allowance as the lines of its members keep them, so that what each of them may use can be computed
//! again, by us and by others.
//!
//! In: a line and the lines of its account. Out: who shared with it, what each had and used, what was carried there. Top-ups
//! and what several accounts share are not among them: `explain` computes those.

use serde::Serialize;

use super::allowance::{Carry, Left, Member, share};
use super::lines::{Ratio, StoredLine};
use super::tariff::{Allowance, ChargeKind, Pool, Rollover, Tariff};
use crate::vocabulary::{Exact, ExactError};

/// One period of a shared allowance, as it was when a line was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SharedFigures {
    /// As the cycle counts periods.
    pub period: i64,
    pub rollover: Option<RolloverShape>,
    /// The line that carried something here.
    pub carried_by: Option<String>,
    pub carried: Vec<Left>,
    /// In the order in which they are served.
    pub members: Vec<MemberShape>,
    pub carried_on: Vec<Left>,
    /// Whether sharing these figures out gives what the lines say. It does not where a correction of a member is held back:
    /// no line tells of it.
    pub holds: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RolloverShape {
    pub max: Ratio,
    pub expires_cycles: u32,
}

/// One item that shares the allowance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberShape {
    pub line: String,
    pub service: String,
    pub tariff: String,
    pub version: u32,
    /// Its own allowance of the period.
    pub own: Ratio,
    pub quantity: Ratio,
    /// What it uses of everything.
    pub used: Ratio,
}

/// The figures behind a line's part of a shared allowance; `None`: it shares none.
///
/// `services`: external ids in the order in which a run looks at them; `tariff_of`: the tariff a line was rated by.
/// **Errors**: an exact value left 128 bits.
pub fn shared_figures(
    line: &StoredLine,
    issued: &[StoredLine],
    services: &[String],
    tariff_of: &dyn Fn(&StoredLine) -> Option<Tariff>,
) -> Result<Option<SharedFigures>, ExactError> {
    let Some(allowance) = line.basis.granted.and_then(|_| allowance_of(line, tariff_of)) else { return Ok(None) };
    let pooled = allowance.pool == Pool::Account;
    let of_chain: Vec<(&StoredLine, Allowance)> = issued
        .iter()
        .filter(|other| other.line.charge == line.line.charge && other.line.created_at <= line.line.created_at)
        .filter(|other| pooled || other.line.service == line.line.service)
        .filter_map(|other| Some((other, allowance_of(other, tariff_of)?)))
        .filter(|(_, allowance)| (allowance.pool == Pool::Account) == pooled)
        .collect();
    let here = |other: &StoredLine| other.line.period.start == line.line.period.start;
    let mut members: Vec<(&StoredLine, Allowance)> = Vec::new();
    for one in of_chain.iter().filter(|(other, _)| here(other) && other.basis.granted.is_some()) {
        match members.iter_mut().find(|(known, _)| known.item() == one.0.item()) {
            Some(known) if known.0.basis.revision < one.0.basis.revision => *known = *one,
            Some(_) => {}
            None => members.push(*one),
        }
    }
    let place = |other: &StoredLine| services.iter().position(|id| Some(id) == other.line.service.as_ref());
    members.sort_by_key(|(other, _)| (place(other), other.item()));
    let Some(period) = members.iter().find_map(|(other, _)| other.basis.carry.as_ref().map(|carry| carry.period))
    else {
        return Ok(None);
    };
    let before = of_chain
        .iter()
        .map(|(other, _)| *other)
        .filter(|other| other.line.period.start < line.line.period.start && other.basis.carry.is_some())
        .max_by_key(|other| {
            let watermark = other.line.usage.as_ref().map_or(0, |usage| usage.watermark);
            (other.line.period.start, other.line.created_at, watermark, other.basis.revision)
        });
    let carried = before.and_then(|other| other.basis.carry.clone()).unwrap_or_default();
    let rollover = members.iter().rev().find_map(|(_, allowance)| allowance.rollover);
    figures(period, rollover, (before, carried), &members).map(Some)
}

fn figures(
    period: i64,
    rollover: Option<Rollover>,
    (before, carried): (Option<&StoredLine>, Carry),
    members: &[(&StoredLine, Allowance)],
) -> Result<SharedFigures, ExactError> {
    let own: Vec<Member> =
        members.iter().map(|(line, allowance)| member(line, *allowance)).collect::<Result<_, _>>()?;
    let shared = share(&carried, period, rollover, &own, &[])?;
    let told = members.iter().map(|(line, _)| line.basis.granted.map(|granted| granted.0));
    let same_use = told.eq(shared.used.iter().copied().map(Some));
    let on = members.last().and_then(|(line, _)| line.basis.carry.clone()).unwrap_or_default();
    let shape = |((line, _), own): (&(&StoredLine, Allowance), &Member)| MemberShape {
        line: line.line.id.clone(),
        service: line.line.service.clone().unwrap_or_default(),
        tariff: line.line.tariff.id.clone(),
        version: line.line.tariff.version,
        own: Ratio(own.own),
        quantity: Ratio(own.quantity),
        used: line.basis.granted.unwrap_or(Ratio(Exact::ZERO)),
    };
    Ok(SharedFigures {
        period,
        rollover: rollover
            .map(|rollover| RolloverShape { max: Ratio(rollover.max), expires_cycles: rollover.expires_cycles }),
        carried_by: before.map(|line| line.line.id.clone()),
        carried: carried.left,
        members: members.iter().zip(&own).map(shape).collect(),
        holds: same_use && on == shared.carry,
        carried_on: on.left,
    })
}

fn member(line: &StoredLine, allowance: Allowance) -> Result<Member, ExactError> {
    let basis = &line.basis;
    let own = match (basis.coverage.is_empty(), allowance.prorate) {
        (true, _) => Exact::ZERO,
        (false, true) => allowance.amount.checked_mul(basis.share.0)?,
        (false, false) => allowance.amount,
    };
    Ok(Member { own, quantity: basis.quantity.0 })
}

/// The allowance of a line's charge, where it is shared with others or with later periods.
fn allowance_of(line: &StoredLine, tariff_of: &dyn Fn(&StoredLine) -> Option<Tariff>) -> Option<Allowance> {
    let tariff = tariff_of(line)?;
    let ChargeKind::Usage(usage) = &tariff.charge(&line.line.charge)?.kind else { return None };
    usage.allowance.filter(|allowance| allowance.pool == Pool::Account || allowance.rollover.is_some())
}
