//! Does what reconciliations that were sent ask for, one at a time, whichever daemon is free; one that died at it is
//! followed by another.

use std::sync::Arc;
use std::time::Duration;

use jiff::ToSpan;

use super::{Form, GRACE_SECONDS, Input, Order, Reconciler, SyncError};
use crate::intake::App;
use crate::mediation::Profile;
use crate::reconcile::{Class, Report};
use crate::store::StoreError;
use crate::store::syncs::{self, SyncRow};
use crate::telemetry::{Heartbeat, Kind};
use crate::vocabulary::Timestamp;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const BEAT_EVERY: Duration = Duration::from_secs(3);
const BEATS_PER_RENEWAL: u32 = 7;
/// A daemon that did not say so for as long is gone.
const CLAIM_SECONDS: i64 = 120;
/// A thousand looks are about a quarter of an hour.
const LOOKS_PER_CLEANING: u32 = 1000;
const KEPT_DAYS: i64 = 35;
/// A list that is received for as long does not come any more.
const ABANDONED_DAYS: i64 = 1;

/// Runs until it is dropped.
pub async fn run(app: App, beat: Heartbeat) {
    let mut looks = 0u32;
    loop {
        beat.beat();
        // An outage is told by the part that watches the database; here it only means: next time.
        match claim(&app).await {
            Ok(Some(row)) => work(&app, row, &beat).await,
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(LOOKS_PER_CLEANING) {
            let _ = forget(&app).await;
        }
    }
}

async fn claim(app: &App) -> Result<Option<SyncRow>, StoreError> {
    let now = app.clock.now();
    // Looking costs nobody a turn to write.
    let mut tx = app.store.read().await?;
    let waiting = syncs::waiting(&mut tx, now).await?;
    tx.rollback().await?;
    if !waiting {
        return Ok(None);
    }
    let mut tx = app.store.write().await?;
    let row = syncs::claim(&mut tx, now, until(now)).await?;
    tx.commit().await?;
    Ok(row)
}

async fn work(app: &App, row: SyncRow, beat: &Heartbeat) {
    let id = row.id.clone();
    let working = one(app, row);
    tokio::pin!(working);
    let mut beats = 0u32;
    let outcome = loop {
        tokio::select! {
            outcome = &mut working => break outcome,
            () = tokio::time::sleep(BEAT_EVERY) => {
                beat.beat();
                beats += 1;
                if beats.is_multiple_of(BEATS_PER_RENEWAL) {
                    let _ = renew(app, &id).await;
                }
            }
        }
    };
    let Err(error) = outcome else { return };
    match error {
        // Its claim ends by itself, and it is taken up again.
        SyncError::Store(error) if error.is_unavailable() => {
            tracing::warn!("Reconciliation {id} was interrupted: {error}. Taken up again within {CLAIM_SECONDS} s.");
        }
        error @ (SyncError::PlanMoved(_) | SyncError::Guarded(_)) => {
            tracing::warn!("The plan of reconciliation {id} was not applied: {error}.");
            let _ = told(app, &id, &error.to_string()).await;
        }
        error => {
            tracing::error!("Reconciliation {id} failed: {error}.");
            let _ = fail(app, &id, &error.to_string()).await;
        }
    }
}

async fn one(app: &App, row: SyncRow) -> Result<(), SyncError> {
    let desk = Reconciler::of(app);
    let form = Arc::new(match &row.profile {
        None => Form::Documents,
        Some(name) => {
            let shelved = app.sources.now().shelf.named(name);
            let shelved = shelved.ok_or_else(|| SyncError::List(format!("no profile is called {name:?}")))?;
            let profile = Profile::read(name, &shelved.text);
            Form::Profile(Box::new(profile.map_err(|_| SyncError::List(format!("the profile {name:?} has faults")))?))
        }
    });
    let name = |error: crate::vocabulary::IdError| SyncError::List(error.to_string());
    let applying = row.state == "applying";
    let actor = if applying { row.applied_by.clone() } else { None };
    let order = Order {
        sync: row.id.clone(),
        tenant: row.tenant.parse().map_err(name)?,
        source: row.source.parse().map_err(name)?,
        as_of: row.as_of,
        grace_seconds: GRACE_SECONDS,
        said_complete: row.said_complete.clone(),
        told_records: row.told_records,
        allow_deletions: row.allow_deletions,
        only: row.only,
        with_matched: false,
        actor: actor.unwrap_or(row.requested_by),
    };
    let input = Input::Sent(row.id);
    let quiet = |_: &'static str, _: u64, _: u64| {};
    match row.plan_hash.filter(|_| applying) {
        Some(hash) => {
            desk.apply(&order, &input, &form, &hash, &quiet).await?;
        }
        None => {
            let found = desk.reconcile(&order, &input, &form, &quiet).await?;
            count(app, &found.report);
        }
    }
    Ok(())
}

/// Counts what was found by class.
fn count(app: &App, report: &Report) {
    for sums in [&report.subscribers, &report.services] {
        for class in Class::ALL {
            app.metrics.reconcile_findings.get_or_create(&Kind::new(class.as_str())).inc_by(sums.of(class));
        }
    }
}

fn until(now: Timestamp) -> Timestamp {
    now.checked_add(CLAIM_SECONDS.seconds()).unwrap_or(Timestamp::MAX)
}

async fn renew(app: &App, id: &str) -> Result<(), StoreError> {
    let mut tx = app.store.write().await?;
    syncs::renew(&mut tx, id, until(app.clock.now())).await?;
    tx.commit().await
}

async fn told(app: &App, id: &str, error: &str) -> Result<(), StoreError> {
    let mut tx = app.store.write().await?;
    syncs::told(&mut tx, id, error).await?;
    tx.commit().await
}

async fn fail(app: &App, id: &str, error: &str) -> Result<(), StoreError> {
    let mut tx = app.store.write().await?;
    syncs::failed(&mut tx, id, error).await?;
    tx.commit().await
}

async fn forget(app: &App) -> Result<(), StoreError> {
    let ago = |days: i64| app.clock.now().checked_sub((days * 24).hours()).unwrap_or(Timestamp::MIN);
    let mut tx = app.store.write().await?;
    syncs::forget(&mut tx, ago(KEPT_DAYS), ago(ABANDONED_DAYS)).await?;
    tx.commit().await
}
