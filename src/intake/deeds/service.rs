//! What is asked of one service: an operator's hold placed or lifted, its elements brought there again.

use serde_json::{Value, json};

use super::guard::Guard;
use super::threshold::{USAGE, tell_of_hold};
use super::wake::reassess;
use super::{Done, Ground, OfService, Stop};
use crate::account::{Hold, Loss, Status};
use crate::intake::problem::Problem;
use crate::intake::view;
use crate::provision::OperatorHold;
use crate::store::accounts::{self, AccountRow};
use crate::store::breaker::{self, NewHeld, Waiting};
use crate::store::events::EventType;
use crate::store::holds::HoldRow;
use crate::store::{StoreError, Tx, audit, elements, holds};
use crate::vocabulary::Timestamp;

/// An operator's hold as it is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspension<'a> {
    pub hold: &'a Hold,
    pub reason: Option<&'a str>,
    /// An operator let it pass, whatever it takes away.
    pub released: bool,
}

/// Places an operator's hold, unless too much was taken away before it: then it waits, whoever asks.
pub(super) async fn suspend(
    of: &OfService,
    Suspension { hold, reason, released }: Suspension<'_>,
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<Done, Stop> {
    if let Some(done) = answered(of, tx).await? {
        return Ok(done);
    }
    let row = living(of, tx).await?;
    let hold = Hold { from: hold.from.or(Some(now)), ..hold.clone() };
    let wanted = OperatorHold { service: Some(of.service.clone()), hold };
    let known = holds::living(tx, row.id).await?;
    let is_own = |held: &&HoldRow| held.held.service == wanted.service && held.placed_by != USAGE;
    let mine: Vec<_> = known.iter().filter(is_own).collect();
    let same = |held: &OperatorHold| {
        let (a, b) = (&held.hold, &wanted.hold);
        (a.kind, &a.treatment, a.billing, a.until) == (b.kind, &b.treatment, b.billing, b.until)
    };
    let mut guard = Guard::default();
    if mine.is_empty() && !released && takes_away(of, &row, &wanted.hold, tx, ground).await? {
        if !guard.passes(&of.key, tx, ground, now).await? {
            let new = NewHeld {
                key: &of.key,
                service: Some(&of.service),
                kind: Waiting::Suspend,
                content: &json!({ "hold": wanted.hold, "reason": reason }),
                source_revision: None,
                losses: &[Loss::ServiceSuspended { service: of.service.clone() }],
                actor: &of.actor,
                origin: None,
            };
            let held = guard.hold(&new, row.id, tx, ground, now).await?;
            guard.settle(tx, ground, now).await?;
            of.asking.keep(tx, of.key.tenant.as_str(), held.status, &held.body.to_string(), now).await?;
            return Ok(held);
        }
        guard.count(&of.key);
    }
    // What waited of it is done, or was asked for otherwise now.
    breaker::end_suspensions(tx, named(of), Some(&of.service)).await?;
    if !mine.iter().any(|held| same(&held.held)) {
        for held in &mine {
            holds::lift(tx, held.id, now).await?;
        }
        holds::place(tx, row.id, &wanted, &of.actor, now).await?;
        reassess(tx, &row, ground, None, now).await?;
        note(of, "service.suspend", &row, json!({ "hold": wanted.hold, "reason": reason }), tx, now).await?;
        tell_of_hold(tx, &row, EventType::HoldPlaced, &wanted, now);
        for held in &mine {
            tell_of_hold(tx, &row, EventType::HoldLifted, &held.held, now);
        }
    }
    guard.settle(tx, ground, now).await?;
    answer(of, row, 200, tx, now).await
}

/// Whether a service that works now would not, or not as before.
async fn takes_away(of: &OfService, row: &AccountRow, hold: &Hold, tx: &mut Tx, ground: &Ground) -> Result<bool, Stop> {
    let works =
        row.document.service(&of.service).is_some_and(|service| row.document.status_of(service) == Status::Active);
    if !works {
        return Ok(false);
    }
    let catalog = ground.catalogs.current(tx, &of.key.tenant).await.map_err(Stop::Refused)?;
    Ok(hold.restricts(&catalog.known))
}

pub(super) async fn resume(of: &OfService, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    if let Some(done) = answered(of, tx).await? {
        return Ok(done);
    }
    let row = living(of, tx).await?;
    let known = holds::living(tx, row.id).await?;
    let is_own = |held: &&HoldRow| held.held.service.as_deref() == Some(of.service.as_str()) && held.placed_by != USAGE;
    let mine: Vec<_> = known.iter().filter(is_own).collect();
    breaker::end_suspensions(tx, named(of), Some(&of.service)).await?;
    if !mine.is_empty() {
        for held in &mine {
            holds::lift(tx, held.id, now).await?;
        }
        reassess(tx, &row, ground, None, now).await?;
        note(of, "service.resume", &row, json!({ "lifted": mine.len() }), tx, now).await?;
        for held in &mine {
            tell_of_hold(tx, &row, EventType::HoldLifted, &held.held, now);
        }
    }
    answer(of, row, 200, tx, now).await
}

pub(super) async fn reprovision(of: &OfService, tx: &mut Tx, now: Timestamp) -> Result<Done, Stop> {
    if let Some(done) = answered(of, tx).await? {
        return Ok(done);
    }
    let row = living(of, tx).await?;
    let woken = elements::reprovision(tx, row.id, Some(&of.service), now).await?;
    let ids: Vec<String> = woken.iter().map(ToString::to_string).collect();
    note(of, "service.reprovision", &row, json!({ "jobs": ids }), tx, now).await?;
    answer(of, row, 202, tx, now).await
}

fn named(of: &OfService) -> (&str, &str, &str) {
    (of.key.tenant.as_str(), of.key.source.as_str(), &of.key.external_id)
}

async fn answered(of: &OfService, tx: &mut Tx) -> Result<Option<Done>, Stop> {
    let before = of.asking.answered(tx, of.key.tenant.as_str()).await?;
    Ok(before.map(|(status, text)| Done {
        status,
        etag: None,
        body: serde_json::from_str(&text).unwrap_or_default(),
        outcome: "replayed",
    }))
}

/// The account of a service, both living.
async fn living(of: &OfService, tx: &mut Tx) -> Result<AccountRow, Stop> {
    let row = accounts::find_locked(tx, &of.key).await?.filter(|row| row.closed_at.is_none());
    let row = row.filter(|row| row.document.service(&of.service).is_some());
    row.ok_or_else(|| Stop::Refused(Problem::not_found()))
}

async fn note(
    of: &OfService,
    action: &'static str,
    row: &AccountRow,
    detail: Value,
    tx: &mut Tx,
    now: Timestamp,
) -> Result<(), StoreError> {
    let entry = audit::Entry {
        tenant: Some(of.key.tenant.as_str()),
        actor: &of.actor,
        action,
        account_id: Some(row.id),
        subject: &format!("{}/{}", accounts::subject(&of.key), of.service),
        detail: &detail,
    };
    audit::append(tx, &entry, now).await
}

async fn answer(of: &OfService, row: AccountRow, status: u16, tx: &mut Tx, now: Timestamp) -> Result<Done, Stop> {
    let body = view::account(tx, &row).await?;
    of.asking.keep(tx, of.key.tenant.as_str(), status, &body.to_string(), now).await?;
    Ok(Done { status, etag: Some(row.etag), body, outcome: "updated" })
}
