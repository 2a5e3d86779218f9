//! Does what reconciliations that were sent ask for, one at a time, whichever daemon is free; one that died at it is
//! followed by another.

use std::time::Duration;

use jiff::ToSpan;

use super::{Input, Reconciler, SyncError, stored};
use crate::intake::App;
use crate::reconcile::{Class, Report};
use crate::store::StoreError;
use crate::store::syncs::{self, SyncRow};
use crate::telemetry::{Heartbeat, Kind};
use crate::vocabulary::Timestamp;

const LOOK_EVERY: Duration = Duration::from_secs(1);
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
    let row = syncs::claim(&mut tx, now, stored::until(now)).await?;
    tx.commit().await?;
    Ok(row)
}

async fn work(app: &App, row: SyncRow, beat: &Heartbeat) {
    let id = row.id.clone();
    let outcome = stored::held(&app.store, &app.clock, &id, || beat.beat(), one(app, row)).await;
    if let Err(error) = outcome {
        // Where that cannot be kept either, its claim ends by itself.
        let _ = stored::settle(&app.store, &id, &error).await;
    }
}

async fn one(app: &App, row: SyncRow) -> Result<(), SyncError> {
    let desk = Reconciler::of(app);
    let (order, form) = stored::order(&row, &app.sources.now().shelf)?;
    let input = Input::Sent(row.id);
    let quiet = |_: &'static str, _: u64, _: u64| {};
    match row.plan_hash.filter(|_| row.state == "applying") {
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

async fn forget(app: &App) -> Result<(), StoreError> {
    let ago = |days: i64| app.clock.now().checked_sub((days * 24).hours()).unwrap_or(Timestamp::MIN);
    let mut tx = app.store.write().await?;
    syncs::forget(&mut tx, ago(KEPT_DAYS), ago(ABANDONED_DAYS)).await?;
    tx.commit().await
}
