//! What time alone changes in an account: its closing is due, a hold begins or ends, a service begins.

use serde_json::{Value, json};

use super::close::finish;
use super::{Done, Ground, Stop, known_digests, operator_holds, settle_services};
use crate::account::Status;
use crate::provision::{self, Basis};
use crate::store::accounts::{self, AccountRow};
use crate::store::{StoreError, Tx, audit, elements, jobs};
use crate::vocabulary::{TenantId, Timestamp};

/// Something of the account changed by itself: its closing is due, a hold began or ended, a service begins.
pub(super) async fn wake(account_id: i64, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    let done = Done { status: 200, etag: None, body: Value::Null, outcome: "woken" };
    let Some(row) = accounts::by_id_locked(tx, account_id).await?.filter(|row| row.closed_at.is_none()) else {
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
        finish(tx, &row, &tenant, catalog.known.quarantine, row.source_revision, now).await?;
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
    reassess(tx, &row, ground, now).await?;
    Ok(done)
}

/// Works the elements of a living account out again and arranges the next look.
pub(super) async fn reassess(tx: &mut Tx, row: &AccountRow, ground: &Ground, now: Timestamp) -> Result<(), Stop> {
    let tenant = TenantId::parse(&row.tenant).map_err(|_| StoreError::Corrupt {
        table: "account",
        column: "tenant",
        id: row.id.to_string(),
    })?;
    let catalog = ground.catalogs.current(tx, &tenant).await.map_err(Stop::Refused)?;
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
    elements::settle(tx, tenant.as_str(), row.id, &desired, jobs::LANE_SINGLE, now).await?;
    settle_services(tx, row.id, &row.document, &held, false, now).await?;
    let next = provision::next_change(&basis, now).into_iter().chain(row.close_at).min();
    accounts::wake_at(tx, row.id, next).await?;
    Ok(())
}
