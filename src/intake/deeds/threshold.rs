//! What follows when a service has used as much as a threshold of its tariff says: it is marked, told as an event, and the
//! service is throttled or blocked until its period ends, all in one transaction.
//!
//! The restriction is a hold whose owner is `usage`: it ends by itself shortly after the period, each at a moment of its
//! own so that thousands do not come back at once, or before that when the account changes so that it no longer follows.
//! A modem is never reset because of it: it takes its file at its next boot.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::wake::{Quiet, reassess};
use super::{Done, Ground, Stop};
use crate::account::{Hold, HoldBilling, HoldKind, Treatment};
use crate::billing::thresholds::{Mark, Standing, Verdict, decide};
use crate::provision::OperatorHold;
use crate::store::accounts::{self, AccountRow};
use crate::store::events::{EventType, Told};
use crate::store::holds::{self, HoldRow};
use crate::store::running::{self, Judged, Other};
use crate::store::thresholds::{self, Crossed, Guard, Look};
use crate::store::{StoreError, Tx, audit, fold};
use crate::vocabulary::{Period, Timestamp};

/// The owner of holds that follow from use.
pub(super) const USAGE: &str = "usage";

/// Looks at one service's thresholds and does what follows. Safe to repeat.
pub(super) async fn look(
    (service_id, period_start_at): (i64, i64),
    account_id: i64,
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<Done, Stop> {
    let row = accounts::by_id_locked(tx, account_id).await?.filter(|row| row.closed_at.is_none());
    // What moves from a session to the ledger meanwhile would be counted twice, or not at all.
    fold::hold_still(tx).await?;
    // Read before the usage is: what is asked from here on stays asked.
    let Some(look) = thresholds::look(tx, service_id, period_start_at).await? else { return Ok(nothing()) };
    let prices = match &row {
        Some(row) => ground.prices.of(tx, &row.tenant).await?,
        None => None,
    };
    let (Some(row), Some(prices)) = (row, prices) else {
        thresholds::done(tx, &look).await?;
        return Ok(nothing());
    };
    match running::standings(tx, &prices, &look, now).await? {
        Judged::Gone => {
            // Its restrictions end by themselves, or with the next look at a period that is the account's.
            thresholds::drop_guard(tx, &look).await?;
            thresholds::done(tx, &look).await?;
            Ok(nothing())
        }
        Judged::Unratable { period, error } => {
            tracing::error!(
                account.id = row.id,
                period.start = %period.start,
                "The thresholds of service {} of {}/{} are not looked at: {error}. It is tried again when the account or \
                 its catalog changes.",
                look.service, row.tenant, row.external_id
            );
            let guard = Guard {
                catalog_version: prices.version,
                facts_id: look.facts_id,
                totals: Default::default(),
                distance: Default::default(),
            };
            thresholds::put_guard(tx, service_id, &period, &guard).await?;
            thresholds::done(tx, &look).await?;
            Ok(nothing())
        }
        Judged::Known { period, standings, totals, distance, others } => {
            let marks = thresholds::marks(tx, service_id, period_start_at).await?;
            let verdict = decide(&standings, &marks);
            let told = mark(tx, &row, &look, &period, &verdict, now).await?;
            let changed = now < period.end && restrict(tx, ground, &row, &look, &period, &verdict, now).await?;
            // The hold itself is among the service's facts.
            let facts_id = thresholds::look(tx, service_id, period_start_at).await?.map_or(0, |look| look.facts_id);
            let own = Guard { catalog_version: prices.version, facts_id, totals, distance };
            let mut guards = guards_of(&others, prices.version);
            guards.push((service_id, own));
            // All in one order, whoever writes them.
            guards.sort_by_key(|(service_id, _)| *service_id);
            for (service_id, guard) in &guards {
                thresholds::put_guard(tx, *service_id, &period, guard).await?;
            }
            thresholds::done(tx, &look).await?;
            for service_id in crossed_of(tx, &others, period_start_at).await? {
                thresholds::ask_one(tx, service_id, period_start_at).await?;
            }
            for (kind, payload) in told {
                tell(tx, &row, &look, kind, payload, now);
            }
            Ok(done(changed))
        }
    }
}

/// Until when those need not be looked at that share an allowance with a service.
pub(in crate::intake) fn guards_of(others: &[Other], catalog_version: i64) -> Vec<(i64, Guard)> {
    let guard = |other: &Other| Guard {
        catalog_version,
        facts_id: other.facts_id,
        totals: other.totals,
        distance: other.distance,
    };
    others.iter().map(|other| (other.service_id, guard(other))).collect()
}

/// Those of them that have crossed something, or no longer stand beyond it: each is looked at by itself, under the lock of
/// its own account.
pub(in crate::intake) async fn crossed_of(
    tx: &mut Tx,
    others: &[Other],
    period_start_at: i64,
) -> Result<Vec<i64>, StoreError> {
    let mut found = Vec::new();
    for other in others.iter().filter(|other| !other.standings.is_empty()) {
        let marks = thresholds::marks(tx, other.service_id, period_start_at).await?;
        let verdict = decide(&other.standings, &marks);
        if !verdict.crossed.is_empty() || !verdict.rearmed.is_empty() {
            found.push(other.service_id);
        }
    }
    Ok(found)
}

/// Whether `look` would do more than put a guard there.
pub(in crate::intake) fn is_due(
    look: &Look,
    period: &Period,
    standings: &[Standing],
    marks: &[Mark],
    held: &[HoldRow],
    now: Timestamp,
) -> bool {
    let verdict = decide(standings, marks);
    let restricts = || {
        let Restrictions { gone, new } = restrictions(look, period, &verdict.treatments, held);
        !gone.is_empty() || !new.is_empty()
    };
    !verdict.crossed.is_empty() || !verdict.rearmed.is_empty() || (now < period.end && restricts())
}

/// Marks what was crossed and what is armed again; gives the events that tell of it.
async fn mark(
    tx: &mut Tx,
    row: &AccountRow,
    look: &Look,
    period: &Period,
    verdict: &Verdict<'_>,
    now: Timestamp,
) -> Result<Vec<(EventType, Value)>, StoreError> {
    let mut told = Vec::new();
    let place = (look.service_id, look.period_start_at);
    for standing in &verdict.rearmed {
        thresholds::rearm(tx, place, &standing.key, now).await?;
    }
    for standing in &verdict.crossed {
        let crossed = Crossed { key: &standing.key, bound: standing.bound, used: standing.used };
        if !thresholds::mark(tx, place, &crossed, now).await? {
            continue;
        }
        tracing::info!(
            account.id = row.id,
            period.start = %period.start,
            "Service {} of {}/{} has used {} {} of {}, which is {} of {}.",
            look.service, row.tenant, row.external_id, standing.used, standing.unit, standing.key.meter, standing.key.at,
            standing.bound
        );
        if standing.notifies() {
            told.push((EventType::UsageThreshold, payload(row, look, period, standing)));
        }
    }
    Ok(told)
}

fn payload(row: &AccountRow, look: &Look, period: &Period, standing: &Standing) -> Value {
    json!({
        "account": row.external_id,
        "source": row.source,
        "service": look.service,
        "cycle": look.cycle,
        "period": period,
        "tariff": { "id": standing.key.tariff, "version": standing.version },
        "meter": standing.key.meter,
        "at": standing.key.at,
        "threshold": standing.bound.to_string(),
        "used": standing.used.to_string(),
        "unit": standing.unit,
    })
}

/// What is to change in a service's holds that follow from use.
struct Restrictions<'h> {
    gone: Vec<&'h HoldRow>,
    new: Vec<Treatment>,
}

/// Those of the period before end by themselves, each in its time, and are left alone.
fn restrictions<'h>(
    look: &'h Look,
    period: &Period,
    wanted: &BTreeSet<Treatment>,
    held: &'h [HoldRow],
) -> Restrictions<'h> {
    let own = |held: &&HoldRow| {
        let hold = &held.held;
        held.placed_by == USAGE && hold.service.as_deref() == Some(look.service.as_str())
    };
    let ended_by = later(period.start, RESTORED_WITHIN);
    let current = held.iter().filter(own).filter(|held| held.held.hold.until.is_none_or(|until| ended_by < until));
    let until = Some(ends_at(look.service_id, period));
    let stays = |held: &&HoldRow| {
        let hold = &held.held.hold;
        hold.treatment.as_ref().is_some_and(|treatment| wanted.contains(treatment)) && hold.until == until
    };
    let (kept, gone): (Vec<&HoldRow>, Vec<&HoldRow>) = current.partition(stays);
    let has = |treatment: &&Treatment| kept.iter().any(|held| held.held.hold.treatment.as_ref() == Some(*treatment));
    let new = wanted.iter().filter(|treatment| !has(treatment)).cloned().collect();
    Restrictions { gone, new }
}

/// Makes what follows the service's holds of use. True: something changed.
async fn restrict(
    tx: &mut Tx,
    ground: &Ground,
    row: &AccountRow,
    look: &Look,
    period: &Period,
    verdict: &Verdict<'_>,
    now: Timestamp,
) -> Result<bool, Stop> {
    let known = holds::living(tx, row.id).await?;
    let Restrictions { gone, new } = restrictions(look, period, &verdict.treatments, &known);
    if gone.is_empty() && new.is_empty() {
        return Ok(false);
    }
    let until = ends_at(look.service_id, period);
    for held in &gone {
        holds::lift(tx, held.id, now).await?;
    }
    let mut told = Vec::new();
    for treatment in new {
        let hold = Hold {
            kind: HoldKind::Admin,
            treatment: Some(treatment),
            billing: HoldBilling::Full,
            from: Some(now),
            until: Some(until),
        };
        let held = OperatorHold { service: Some(look.service.clone()), hold };
        holds::place(tx, row.id, &held, USAGE, now).await?;
        told.push((EventType::HoldPlaced, shown(row, &held)));
    }
    told.extend(gone.iter().map(|held| (EventType::HoldLifted, shown(row, &held.held))));
    let quiet = Quiet { before: in_force_still(&known), all: false };
    reassess(tx, row, ground, Some(&quiet), now).await?;
    let entry = audit::Entry {
        tenant: Some(&row.tenant),
        actor: USAGE,
        action: "service.usage_hold",
        account_id: Some(row.id),
        subject: &format!("{}/{}/{}/{}", row.tenant, row.source, row.external_id, look.service),
        detail: &json!({ "treatments": verdict.treatments, "until": until }),
    };
    audit::append(tx, &entry, now).await?;
    for (kind, payload) in told {
        tell(tx, row, look, kind, payload, now);
    }
    Ok(true)
}

/// Lifts the account's holds of use that are over. Gives all its holds as if those still held: what differs from that is a
/// restriction that ended by itself.
pub(super) async fn end_holds(tx: &mut Tx, row: &AccountRow, now: Timestamp) -> Result<Option<Quiet>, StoreError> {
    let known = holds::living(tx, row.id).await?;
    let is_over = |held: &&HoldRow| held.placed_by == USAGE && held.held.hold.until.is_some_and(|until| until <= now);
    let over: Vec<&HoldRow> = known.iter().filter(is_over).collect();
    if over.is_empty() {
        return Ok(None);
    }
    for held in over {
        holds::lift(tx, held.id, now).await?;
        tell_of_hold(tx, row, EventType::HoldLifted, &held.held, now);
    }
    Ok(Some(Quiet { before: in_force_still(&known), all: true }))
}

/// A hold as an event tells of it.
pub(super) fn shown(row: &AccountRow, held: &OperatorHold) -> Value {
    json!({ "account": row.external_id, "source": row.source, "service": held.service, "hold": held.hold })
}

pub(super) fn subject(row: &AccountRow, service: Option<&str>) -> String {
    let account = format!("{}/{}", row.source, row.external_id);
    service.map_or(account.clone(), |service| format!("{account}/{service}"))
}

/// Tells that a hold of an account, or of one of its services, began or ended.
pub(super) fn tell_of_hold(tx: &mut Tx, row: &AccountRow, kind: EventType, held: &OperatorHold, now: Timestamp) {
    let subject = subject(row, held.service.as_deref());
    tx.tell(Told { tenant: row.tenant.clone(), kind, subject, payload: shown(row, held), at: now });
}

fn tell(tx: &mut Tx, row: &AccountRow, look: &Look, kind: EventType, payload: Value, now: Timestamp) {
    let subject = subject(row, Some(&look.service));
    tx.tell(Told { tenant: row.tenant.clone(), kind, subject, payload, at: now });
}

/// All holds, those of use without an end.
fn in_force_still(known: &[HoldRow]) -> Vec<OperatorHold> {
    let without_end = |row: &HoldRow| {
        let mut held = row.held.clone();
        if row.placed_by == USAGE {
            held.hold.until = None;
        }
        held
    };
    known.iter().map(without_end).collect()
}

/// When a service's restriction in a period ends.
fn ends_at(service_id: i64, period: &Period) -> Timestamp {
    later(period.end, spread(service_id))
}

/// How long after its period a restriction ends: each service a moment of its own within `RESTORED_WITHIN`, always the same.
fn spread(service_id: i64) -> Duration {
    let hash = service_id.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    Duration::from_millis(hash % u64::try_from(RESTORED_WITHIN.as_millis()).unwrap_or(1))
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn nothing() -> Done {
    done(false)
}

fn done(changed: bool) -> Done {
    let outcome = if changed { "woken" } else { "unchanged" };
    Done { status: 200, etag: None, body: Value::Null, outcome }
}

/// All restrictions of a period have ended so long after it.
const RESTORED_WITHIN: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restrictions_end_apart_and_within_five_minutes() {
        let ends: BTreeSet<u128> = (1..=10_000).map(|service| spread(service).as_millis()).collect();
        assert!(ends.len() > 9_000, "{} moments of 10,000 services", ends.len());
        assert!(ends.iter().all(|end| *end < RESTORED_WITHIN.as_millis()));
        let first_minute = ends.iter().filter(|end| **end < 60_000).count();
        assert!((1_500..2_500).contains(&first_minute), "{first_minute} in the first minute");
    }
}
