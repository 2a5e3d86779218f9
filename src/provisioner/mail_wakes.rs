//! Gives a job to each mailbox whose instant has come: its grace is over, a former address ends, a session could not be
//! ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::store::{Store, StoreError, mailboxes};
use crate::telemetry::Heartbeat;
use crate::vocabulary::Clock;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Mailboxes woken in one look; the rest is due again at the next.
const WOKEN_MAX: i64 = 200;

/// Runs until it is dropped; `jobs` is notified of new ones.
pub async fn run(store: Store, clock: Clock, jobs: Arc<Notify>, beat: Heartbeat) -> Result<(), StoreError> {
    loop {
        beat.beat();
        tokio::time::sleep(LOOK_EVERY).await;
        // An outage is told by the part that watches the database; here it only means: next time.
        if let Ok(woken) = wake(&store, &clock).await
            && woken > 0
        {
            jobs.notify_one();
        }
    }
}

async fn wake(store: &Store, clock: &Clock) -> Result<usize, StoreError> {
    let now = clock.now();
    // Looking is free for everybody else; only what is due takes the turn to write.
    let mut tx = store.read().await?;
    let due = mailboxes::is_due(&mut tx, now).await?;
    drop(tx);
    if !due {
        return Ok(0);
    }
    let mut tx = store.write().await?;
    let woken = mailboxes::wake_due(&mut tx, now, WOKEN_MAX).await?;
    tx.commit().await?;
    Ok(woken)
}
