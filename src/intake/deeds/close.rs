//! A closing: at once, or arranged for later; its tombstone makes older pushes stale.

use serde_json::{Value, json};

use super::guard::{self, Guard};
use super::push::stale;
use super::{Close, Done, Ground, Stop, operator_holds};
use crate::account::{Loss, QuarantineDays, SecretDigests, ServiceFacts, Status};
use crate::intake::catalogs::TenantCatalog;
use crate::intake::problem::Problem;
use crate::provision::{self, Basis};
use crate::store::accounts::{self, AccountRow};
use crate::store::breaker::{self, NewHeld, Waiting};
use crate::store::events::{EventType, Told};
use crate::store::{StoreError, Tx, audit, elements, holders, jobs};
use crate::vocabulary::{TenantId, Timestamp};

pub(super) async fn close(asked: &Close, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    let row = accounts::find_locked(tx, &asked.key).await?;
    let row = row.ok_or_else(|| Stop::Declined(Problem::not_found()))?;
    if !asked.conditions.hold(row.closed_at.is_none().then_some(row.etag.as_str())) {
        let problem = Problem::precondition_failed("The account is not as the request expects it.");
        return Err(Stop::Declined(problem));
    }
    let newest = asked.source_revision.max(row.source_revision);
    if row.closed_at.is_some() {
        if newest != row.source_revision {
            accounts::record_seen(tx, row.id, newest).await?;
        }
        return Ok(Done { status: 204, etag: None, body: Value::Null, outcome: "unchanged" });
    }
    if asked.source_revision.is_some_and(|revision| row.source_revision.is_some_and(|known| revision < known)) {
        guard::tell_stale(&asked.key, tx, ground, now).await?;
        return Ok(stale(&row, &asked.key, tx, now).await?);
    }
    let waits = guard::waiting(tx, &[&asked.key]).await?.remove(&accounts::subject(&asked.key));
    if !asked.released && waits.as_ref().is_some_and(|waits| guard::is_older(asked.source_revision, waits)) {
        return Ok(stale(&row, &asked.key, tx, now).await?);
    }
    if ground.sources.observes(&asked.key.tenant, &asked.key.source) {
        let states = (Some(&row.document), None);
        return Ok(guard::observe(&asked.key, "close", states, &[Loss::Deleted], tx, now).await?);
    }
    let mut guard = Guard::default();
    if !asked.released && row.document.status != Status::Terminated {
        if !guard.passes(&asked.key, tx, ground, now).await? {
            let new = NewHeld {
                key: &asked.key,
                service: None,
                kind: Waiting::Close,
                content: &json!({ "effective": asked.effective }),
                source_revision: asked.source_revision,
                losses: &[Loss::Deleted],
                actor: &asked.actor,
                origin: asked.origin.as_ref(),
            };
            let held = guard.hold(&new, row.id, tx, ground, now).await?;
            guard.settle(tx, ground, now).await?;
            return Ok(held);
        }
        guard.count(&asked.key);
        guard.settle(tx, ground, now).await?;
    }
    if let Some(waits) = waits {
        breaker::end(tx, &[waits.id]).await?;
    }
    let catalog = ground.catalogs.current(tx, &asked.key.tenant).await.map_err(Stop::Refused)?;
    let zone = catalog.known.zone.clone().unwrap_or(crate::vocabulary::Zone::UTC);
    let later = asked.effective.map(|effective| effective.at(&zone)).filter(|at| *at > now);
    let entry = |action: &'static str, detail: Value| (action, detail);
    let (action, detail) = match later {
        Some(close_at) => {
            let wake_at = next_change(tx, &row, &catalog, now).await?.map_or(close_at, |at| at.min(close_at));
            accounts::close_later(tx, row.id, close_at, wake_at, newest, now).await?;
            entry("account.close-later", json!({ "close_at": close_at, "source_revision": newest }))
        }
        None => {
            finish(tx, &row, &asked.key.tenant, catalog.known.quarantine, newest, now).await?;
            entry("account.close", json!({ "source_revision": newest }))
        }
    };
    let subject = accounts::subject(&asked.key);
    let noted = audit::Entry {
        tenant: Some(asked.key.tenant.as_str()),
        actor: &asked.actor,
        action,
        account_id: Some(row.id),
        subject: &subject,
        detail: &guard::with_origin(detail, asked.origin.as_ref()),
    };
    audit::append(tx, &noted, now).await?;
    tracing::info!(account.id = %subject, "Account closing.");
    let body = json!({
        "id": row.external_id,
        "source": row.source,
        "source_revision": newest,
        "close_at": later.unwrap_or(now),
        "closed": later.is_none(),
    });
    Ok(Done { status: 202, etag: None, body, outcome: "closed" })
}

/// Closes an account: history ends, what it held is free or kept for a while, its elements must go.
pub(super) async fn finish(
    tx: &mut Tx,
    row: &AccountRow,
    tenant: &TenantId,
    quarantine: QuarantineDays,
    source_revision: Option<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    accounts::close(tx, row.id, source_revision, now).await?;
    breaker::end_suspensions(tx, (&row.tenant, &row.source, &row.external_id), None).await?;
    let document = row.document.at(now);
    let mut changes = Vec::new();
    for known in accounts::known_services(tx, &[row.id]).await? {
        if let Some(service) = document.service(&known.row.external_id) {
            let facts = ServiceFacts { status: Status::Terminated, ..ServiceFacts::of(&document, service, &[]) };
            changes.extend(known.change(facts, true, now)?);
        }
    }
    accounts::change_services(tx, &changes, now).await?;
    holders::release_all(tx, row.id, tenant.as_str(), quarantine, now).await?;
    elements::settle(tx, tenant.as_str(), row.id, &[], jobs::LANE_SINGLE, now).await?;
    // With its passwords what is pushed again within the grace is as it was; then they go.
    let forget_at = forget_at(now, quarantine);
    accounts::wake_at(tx, row.id, Some(forget_at)).await?;
    tx.tell(Told {
        tenant: row.tenant.clone(),
        kind: EventType::AccountClosed,
        subject: format!("{}/{}", row.source, row.external_id),
        payload: json!({ "account": row.external_id, "source": row.source, "source_revision": source_revision }),
        at: now,
    });
    Ok(())
}

/// When a closed account's passwords are forgotten.
fn forget_at(now: Timestamp, quarantine: QuarantineDays) -> Timestamp {
    let grace = jiff::SignedDuration::from_hours(24 * i64::from(quarantine.address()));
    now.checked_add(grace).unwrap_or(Timestamp::MAX)
}

async fn next_change(
    tx: &mut Tx,
    row: &AccountRow,
    catalog: &TenantCatalog,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let held = operator_holds(tx, row.id).await?;
    let basis = Basis {
        account: &row.document,
        external_id: &row.external_id,
        known: &catalog.known,
        operator_holds: &held,
        secrets: &SecretDigests::new(),
        closed: false,
    };
    Ok(provision::next_change(&basis, now))
}
