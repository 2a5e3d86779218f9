//! An operator decides on a change that waits: it is done now, whatever it takes away, or it is dropped.

use serde_json::json;

use super::close::close;
use super::guard::HELD_KIND;
use super::push::push_all;
use super::service::{Suspension, suspend};
use super::{Close, Done, Ground, OfService, Push, Settle, Stop};
use crate::account::{Conditions, Hold, Moment, parse};
use crate::intake::idempotency::Asking;
use crate::intake::problem::Problem;
use crate::store::breaker::{self, HeldChange, Waiting};
use crate::store::{StoreError, Tx, accounts, audit, exceptions};
use crate::vocabulary::Timestamp;

pub(super) async fn settle(asked: &Settle, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    let held = breaker::one(tx, asked.id).await?.filter(|held| held.key == asked.key);
    let held = held.ok_or_else(|| Stop::Declined(Problem::not_found()))?;
    let row = accounts::find_locked(tx, &asked.key).await?;
    let done = if asked.release {
        let done = release(asked, &held, tx, ground, now).await?;
        if done.outcome == "observed" {
            let detail = "The source is only observed; change its mode first.";
            return Err(Stop::Refused(Problem::conflict("observed", "Source is observed", detail)));
        }
        done
    } else {
        let body = json!({ "dropped": held.id.to_string(), "id": held.key.external_id });
        Done { status: 200, etag: None, body, outcome: "unchanged" }
    };
    breaker::end(tx, &[held.id]).await?;
    let subject = accounts::subject(&held.key);
    let entry = audit::Entry {
        tenant: Some(held.key.tenant.as_str()),
        actor: &asked.actor,
        action: if asked.release { "change.release" } else { "change.drop" },
        account_id: row.map(|row| row.id),
        subject: &subject,
        detail: &json!({ "held": held.id, "losses": held.losses, "source_revision": held.source_revision,
            "sent_by": held.actor, "held_at": held.held_at }),
    };
    audit::append(tx, &entry, now).await?;
    end_alarm(&held, &asked.actor, tx, now).await?;
    Ok(done)
}

async fn release(
    asked: &Settle,
    held: &HeldChange,
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<Done, Stop> {
    let content = held.content(&ground.sealer)?;
    let actor = format!("{}, released by {}", held.actor, asked.actor);
    match held.kind {
        Waiting::Close => {
            let effective: Option<Moment> = serde_json::from_value(content["effective"].clone()).unwrap_or_default();
            let deed = Close {
                key: held.key.clone(),
                actor,
                effective,
                source_revision: held.source_revision,
                conditions: Conditions::default(),
                origin: held.origin.clone(),
                released: true,
            };
            close(&deed, tx, ground, now).await
        }
        Waiting::Suspend => {
            let corrupt = || StoreError::Corrupt { table: "held_change", column: "sealed", id: held.id.to_string() };
            let hold: Hold = serde_json::from_value(content["hold"].clone()).map_err(|_| corrupt())?;
            let of = OfService {
                key: held.key.clone(),
                service: held.service.clone().unwrap_or_default(),
                actor,
                asking: Asking::nothing(),
            };
            let suspension = Suspension { hold: &hold, reason: content["reason"].as_str(), released: true };
            suspend(&of, suspension, tx, ground, now).await
        }
        Waiting::Push => {
            let catalog = ground.catalogs.current(tx, &held.key.tenant).await.map_err(Stop::Declined)?;
            let mut content = content;
            if let Some(map) = content.as_object_mut()
                && held.source_revision.is_none()
            {
                // A new epoch began meanwhile.
                map.shift_remove("source_revision");
            }
            let pushed = parse(&content, &held.key, &catalog.known)
                .map_err(|faults| Stop::Declined(Problem::invalid(faults)))?;
            let deed = Push {
                key: held.key.clone(),
                actor,
                pushed,
                conditions: Conditions::default(),
                catalog_version: catalog.version,
                origin: held.origin.clone(),
                released: true,
            };
            let mut one = push_all(&[&deed], tx, ground, now).await?;
            one.pop().unwrap_or_else(|| Err(Problem::internal().into()))
        }
    }
}

/// When nothing of the source waits any more, nobody need look.
async fn end_alarm(held: &HeldChange, by: &str, tx: &mut Tx, now: Timestamp) -> Result<(), StoreError> {
    let (tenant, source) = (&held.key.tenant, &held.key.source);
    if breaker::count_of(tx, tenant.as_str(), source.as_str()).await? == 0 {
        exceptions::release_subject(tx, HELD_KIND, &format!("{tenant}/{source}"), by, now).await?;
    }
    Ok(())
}
