//! Brings the database to this version, waiting for it as long as it is away, and tells afterwards whether it answers.

use std::time::Duration;

use tokio::sync::watch;

use crate::store::migrate::Migration;
use crate::store::{Store, StoreError};
use crate::telemetry::{Heartbeat, Metrics};

use super::notify;

/// Migrates once.
///
/// **Errors**: `false` means the database is away and is to be tried again; an error means a person must act, for
/// example because the schema is newer than this program.
pub async fn bring_up(store: &Store) -> Result<bool, StoreError> {
    match migrated(store).await {
        Ok(applied) => {
            for step in &applied {
                tracing::info!(database = step.database, version = step.version, "Schema brought up to date.");
            }
            Ok(true)
        }
        Err(error) if error.is_unavailable() => {
            tracing::error!("{error}. HTTP answers 503 and accounting is not acknowledged; trying again.");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn migrated(store: &Store) -> Result<Vec<Migration>, StoreError> {
    store.begin_logs().await?;
    store.migrate().await
}

/// Keeps trying until the database is up, then watches it; one log line a change.
pub async fn keep(
    store: Store,
    up: watch::Sender<bool>,
    metrics: Metrics,
    beat: Heartbeat,
    serving: String,
) -> Result<(), StoreError> {
    let mut answered = *up.borrow();
    loop {
        metrics.database_up.set(i64::from(answered));
        beat.beat();
        tokio::time::sleep(LOOK_EVERY).await;
        let now = if *up.borrow() {
            store.read().await.map(drop)
        } else {
            match migrated(&store).await {
                Ok(_) => {
                    up.send_replace(true);
                    Ok(())
                }
                Err(error) if error.is_unavailable() => Err(error),
                Err(error) => return Err(error),
            }
        };
        match (&now, answered) {
            (Ok(()), false) => {
                tracing::info!("The database answers again.");
                notify::status(&serving);
            }
            (Err(error), true) => {
                tracing::error!("{error}. HTTP answers 503 and accounting is not acknowledged until it is back.");
                notify::status("Waiting for the database.");
            }
            _ => {}
        }
        answered = now.is_ok();
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
