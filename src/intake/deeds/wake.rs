//! What time alone changes in an account: its closing is due, a hold begins or ends, a service begins.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::close::{Closing, finish};
use super::threshold::end_holds;
use super::{Done, Ground, Stop, known_digests, operator_holds, settle_services};
use crate::account::Status;
use crate::intake::catalogs::TenantCatalog;
use crate::provision::{self, Basis, ElementDesired, ElementKind, OperatorHold};
use crate::store::accounts::{self, AccountRow};
use crate::store::elements::ElementRow;
use crate::store::{StoreError, Tx, audit, elements, follow, jobs, secrets, thresholds};
use crate::vocabulary::{TenantId, Timestamp, to_micros};

/// Something of the account changed by itself: its closing is due, a hold began or ended, a service begins.
pub(super) async fn wake(account_id: i64, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    let done = Done { status: 200, etag: None, body: Value::Null, outcome: "woken" };
    let row = accounts::by_id_locked(tx, account_id).await?;
    let Some(row) = row.filter(|row| row.closed_at.is_none()) else {
        // It was closed, and the time in which it could come back as it was is over.
        secrets::remove_all(tx, account_id).await?;
        accounts::wake_at(tx, account_id, None).await?;
        return Ok(done);
    };
    let tenant = TenantId::parse(&row.tenant).map_err(|_| StoreError::Corrupt {
        table: "account",
        column: "tenant",
        id: row.id.to_string(),
    })?;
    if row.close_at.is_some_and(|at| at <= now) {
        let catalog = ground.catalogs.current(tx, &tenant).await.map_err(Stop::Refused)?;
        let (quarantine, source_revision) = (catalog.known.quarantine, row.source_revision);
        finish(tx, &row, &tenant, Closing { quarantine, source_revision, lane: jobs::LANE_SINGLE }, now).await?;
        let subject = format!("{}/{}/{}", row.tenant, row.source, row.external_id);
        let entry = audit::Entry {
            tenant: Some(&row.tenant),
            actor: "lastmile",
            action: "account.close",
            account_id: Some(row.id),
            subject: &subject,
            detail: &json!({ "arranged_for": row.close_at }),
        };
        audit::append(tx, &entry, now).await?;
        return Ok(done);
    }
    let ended = end_holds(tx, &row, now).await?;
    reassess(tx, &row, ground, ended.as_ref(), now).await?;
    if ended.is_some() {
        ask_of_new_period(tx, &row, ground, now).await?;
    }
    Ok(done)
}

/// What held a service in the period before may be so in the new one from its first moment: a prepaid service without a
/// bucket left is not served again until its first record.
async fn ask_of_new_period(tx: &mut Tx, row: &AccountRow, ground: &Ground, now: Timestamp) -> Result<(), StoreError> {
    let Some(prices) = ground.prices.of(tx, &row.tenant).await? else { return Ok(()) };
    let cycle = prices.catalog.cycles.get(&row.document.bill_cycle).map(|cycle| &cycle.calendar);
    let Some(period) = cycle.and_then(|cycle| cycle.period_at(now).ok()) else { return Ok(()) };
    for service in accounts::services(tx, row.id).await?.iter().filter(|service| service.ended_at.is_none()) {
        thresholds::ask_one(tx, service.id, to_micros(period.start)).await?;
    }
    Ok(())
}

/// What changes only because restrictions of use begin or end: it costs no modem a boot.
pub(super) struct Quiet {
    /// The operators' holds as they were, restrictions of use included.
    pub before: Vec<OperatorHold>,
    /// Everything that so changes is one of many and waits in the bulk lane, not only what modems and MTAs run.
    pub all: bool,
}

/// The catalog an account is on.
struct Standing {
    on: Arc<TenantCatalog>,
    /// The version that it comes from, or would move to: it tells which changes come from a catalog alone.
    other: Option<Arc<TenantCatalog>>,
    /// It is on its way, as one of many, and arrives now.
    arriving: bool,
}

async fn standing(tx: &mut Tx, ground: &Ground, tenant: &TenantId, row: &AccountRow) -> Result<Standing, Stop> {
    let newest = ground.catalogs.current(tx, tenant).await.map_err(Stop::Refused)?;
    let Some(following) = follow::of(tx, row.id).await? else {
        return Ok(Standing { on: newest, other: None, arriving: false });
    };
    let from = ground.catalogs.version(tx, tenant, following.from_version).await.map_err(Stop::Refused)?;
    let sells_all = || row.document.services.iter().all(|service| from.known.plans.contains_key(&service.plan));
    if following.held && sells_all() {
        return Ok(Standing { on: from, other: Some(newest), arriving: false });
    }
    Ok(Standing { on: newest, other: Some(from), arriving: true })
}

/// The elements that stand as they would without one thing, another catalog or a restriction of use: what changes in them
/// now comes from that alone.
fn changed_by_one_thing(stored: &[ElementRow], before: &[ElementDesired]) -> BTreeSet<(ElementKind, String)> {
    let stood = |element: &&ElementDesired| {
        stored.iter().any(|row| row.kind == element.kind && row.key == element.key && row.desired == element.content)
    };
    before.iter().filter(stood).map(|element| (element.kind, element.key.clone())).collect()
}

/// Works the elements of a living account out again and arranges the next look.
pub(super) async fn reassess(
    tx: &mut Tx,
    row: &AccountRow,
    ground: &Ground,
    quiet: Option<&Quiet>,
    now: Timestamp,
) -> Result<(), Stop> {
    let tenant = TenantId::parse(&row.tenant).map_err(|_| StoreError::Corrupt {
        table: "account",
        column: "tenant",
        id: row.id.to_string(),
    })?;
    let Standing { on: catalog, other, arriving } = standing(tx, ground, &tenant, row).await?;
    let held = operator_holds(tx, row.id).await?;
    let digests = known_digests(tx, row.id).await?;
    let basis = Basis {
        account: &row.document,
        external_id: &row.external_id,
        known: &catalog.known,
        operator_holds: &held,
        secrets: &digests,
        closed: row.document.status == Status::Terminated,
    };
    let desired = provision::elements(&basis, &[], now);
    if other.is_none() && quiet.is_none() {
        elements::settle(tx, tenant.as_str(), row.id, &desired, jobs::LANE_SINGLE, now).await?;
    } else {
        let stored = elements::of_account(tx, row.id).await?;
        let mut bulk = BTreeSet::new();
        if let Some(other) = other {
            let before = provision::elements(&Basis { known: &other.known, ..basis }, &[], now);
            bulk.extend(changed_by_one_thing(&stored, &before));
        }
        if let Some(quiet) = quiet {
            let before = provision::elements(&Basis { operator_holds: &quiet.before, ..basis }, &[], now);
            let changed = changed_by_one_thing(&stored, &before);
            bulk.extend(changed.into_iter().filter(|(kind, _)| quiet.all || kind.device().is_some()));
        }
        elements::settle_moved(tx, tenant.as_str(), row.id, &desired, &bulk, now).await?;
    }
    if arriving {
        follow::arrived(tx, row.id).await?;
    }
    settle_services(tx, row.id, &row.document, &held, now).await?;
    let next = provision::next_change(&basis, now).into_iter().chain(row.close_at).min();
    accounts::wake_at(tx, row.id, next).await?;
    Ok(())
}
