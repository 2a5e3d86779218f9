//! Looks after accounts in which something changes by itself: a closing that is due, a hold's edge, a service's first day.

use std::time::Duration;

use super::App;
use super::deeds::Deed;
use super::writer::Refusal;
use crate::store::{StoreError, accounts, breaker, idempotency, ingest};
use crate::telemetry::Heartbeat;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Accounts woken in one look; the rest is due again at the next.
const WOKEN_MAX: i64 = 200;
/// Answers to idempotency keys are kept at least this long.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// A few thousand looks are about half an hour.
const LOOKS_PER_CLEANING: u32 = 3600;
/// What waits for operators is counted every ten seconds.
const LOOKS_PER_COUNT: u32 = 20;
/// Inputs forgotten in one transaction, and transactions of one cleaning.
const FORGOTTEN_MAX: i64 = 500;
const FORGOTTEN_STEPS: u32 = 200;

/// Runs until it is dropped.
pub async fn run(app: App, beat: Heartbeat) {
    let mut looks = 0u32;
    loop {
        beat.beat();
        tokio::time::sleep(LOOK_EVERY).await;
        // An outage is told by the part that watches the database; here it only means: next time.
        let Ok(due) = due(&app).await else { continue };
        for account_id in due {
            beat.beat();
            if let Err(Refusal::Problem(problem)) = app.writer.perform(Deed::Wake { account_id }).await
                && !problem.status().is_server_error()
            {
                tracing::error!(account.row = account_id, "An account due for a change could not be looked at.");
            }
        }
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(LOOKS_PER_COUNT)
            && let Ok(held) = held(&app).await
        {
            app.metrics.changes_held.set(held);
        }
        if looks.is_multiple_of(LOOKS_PER_CLEANING) {
            let _ = forget(&app).await;
        }
    }
}

async fn due(app: &App) -> Result<Vec<i64>, StoreError> {
    accounts::due(&mut app.store.read().await?, app.clock.now(), WOKEN_MAX).await
}

async fn held(app: &App) -> Result<i64, StoreError> {
    breaker::count(&mut app.store.read().await?).await
}

async fn forget(app: &App) -> Result<(), StoreError> {
    let before = app.clock.now().checked_sub(KEPT_FOR).unwrap_or(crate::vocabulary::Timestamp::MIN);
    let mut tx = app.store.write().await?;
    idempotency::forget(&mut tx, before).await?;
    breaker::forget(&mut tx, app.clock.now()).await?;
    tx.commit().await?;
    // What came is kept as it came only for a time; step by step, for others write too.
    for _ in 0..FORGOTTEN_STEPS {
        let mut tx = app.store.write().await?;
        let gone = ingest::forget(&mut tx, app.clock.now(), FORGOTTEN_MAX).await?;
        tx.commit().await?;
        if gone < FORGOTTEN_MAX.unsigned_abs() {
            break;
        }
    }
    Ok(())
}
