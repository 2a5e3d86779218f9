//! Looks at services that may have crossed a threshold, as the fold asked for, and has done what follows. Every daemon
//! looks; what follows is done once, under the account's lock.
//!
//! Most looks find nothing but how far the next threshold is. Those are worked out without the turn to write, and their
//! guards are written many at a time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::App;
use super::deeds::{Deed, threshold};
use super::writer::Refusal;
use crate::billing::thresholds::nearest;
use crate::store::running::{self, Judged};
use crate::store::thresholds::{self as stored, Guard, Look};
use crate::store::{StoreError, events, holds};
use crate::telemetry::Heartbeat;
use crate::vocabulary::{Period, Timestamp};

/// A crossing is acted upon within two seconds of its record; this is a part of that.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks of one round, and of the transaction that writes their guards.
const LOOKS_AT_ONCE: i64 = 200;
/// A look that failed is tried again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// A few thousand rounds are some ten minutes.
const ROUNDS_PER_CLEANING: u32 = 3000;
const FORGET_AT_ONCE: i64 = 5000;
/// Guards of periods that are over are of no use once late reports no longer count.
const GUARDS_KEPT_DAYS: i64 = 3;
const MARKS_KEPT_DAYS: i64 = 400;
/// Whoever follows events has this long to come back.
const EVENTS_KEPT_DAYS: i64 = 90;

/// Looks that failed, by (service, period start), and when.
type Failed = HashMap<(i64, i64), Instant>;

/// Runs until it is dropped.
pub async fn run(app: App, beat: Heartbeat) {
    let mut failed = Failed::new();
    let mut rounds = 0u32;
    loop {
        beat.beat();
        // An outage is told by the part that watches the database; here it only means: next time.
        let more = round(&app, &beat, &mut failed).await.unwrap_or(false);
        if !more {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(ROUNDS_PER_CLEANING) {
            let _ = forget(&app).await;
        }
    }
}

/// What a look found.
enum Found {
    /// Nothing follows; the guard says until when.
    Quiet(Period, Guard),
    /// Something is to be done.
    Due,
}

/// One round. True: there are more looks.
async fn round(app: &App, beat: &Heartbeat, failed: &mut Failed) -> Result<bool, StoreError> {
    failed.retain(|_, at| at.elapsed() < AGAIN_AFTER);
    let looks = stored::looks(&mut app.store.read().await?, LOOKS_AT_ONCE).await?;
    let count = looks.len();
    let mut quiet: Vec<(Look, Period, Guard)> = Vec::new();
    let mut due = Vec::new();
    for look in looks {
        if failed.contains_key(&(look.service_id, look.period_start_at)) {
            continue;
        }
        beat.beat();
        match judge(app, &look, app.clock.now()).await {
            Ok(Found::Quiet(period, guard)) => quiet.push((look, period, guard)),
            Ok(Found::Due) => due.push(look),
            Err(error) if error.is_unavailable() => return Err(error),
            Err(error) => note(failed, &look, &error.to_string()),
        }
    }
    let done = quiet.len() + due.len();
    if !quiet.is_empty() {
        let mut tx = app.store.write().await?;
        for (look, period, guard) in &quiet {
            stored::put_guard(&mut tx, look.service_id, period, guard).await?;
            stored::done(&mut tx, look).await?;
        }
        tx.commit().await?;
    }
    for look in due {
        beat.beat();
        let Look { account_id, service_id, period_start_at, .. } = look;
        let deed = Deed::Look { account_id, service_id, period_start_at };
        if let Err(Refusal::Problem(problem)) = app.writer.perform(deed).await
            && problem.status() != axum::http::StatusCode::SERVICE_UNAVAILABLE
        {
            note(failed, &look, "what follows could not be written");
        }
    }
    Ok(done > 0 && i64::try_from(count).unwrap_or(0) >= LOOKS_AT_ONCE)
}

async fn judge(app: &App, look: &Look, now: Timestamp) -> Result<Found, StoreError> {
    let mut tx = app.store.read_snapshot().await?;
    let Some(prices) = app.prices.of(&mut tx, &look.tenant).await? else { return Ok(Found::Due) };
    let judged = running::standings(&mut tx, &prices, look, now).await?;
    let Judged::Known { period, standings, totals } = judged else { return Ok(Found::Due) };
    let marks = stored::marks(&mut tx, look.service_id, look.period_start_at).await?;
    let held = holds::living(&mut tx, look.account_id).await?;
    if threshold::is_due(look, &period, &standings, &marks, &held, now) {
        return Ok(Found::Due);
    }
    let distance = nearest(&standings);
    let guard = Guard { catalog_version: prices.version, facts_id: look.facts_id, totals, distance };
    Ok(Found::Quiet(period, guard))
}

fn note(failed: &mut Failed, look: &Look, why: &str) {
    tracing::error!(
        account.id = look.account_id,
        "The thresholds of service {} of {}/{} were not looked at: {why}. Trying again in {AGAIN_AFTER:?}.",
        look.service,
        look.tenant,
        look.account
    );
    failed.insert((look.service_id, look.period_start_at), Instant::now());
}

async fn forget(app: &App) -> Result<(), StoreError> {
    let now = app.clock.now();
    let ago = |days: i64| now.checked_sub(jiff::SignedDuration::from_hours(24 * days)).unwrap_or(Timestamp::MIN);
    let mut tx = app.store.write().await?;
    stored::forget(&mut tx, ago(GUARDS_KEPT_DAYS), ago(MARKS_KEPT_DAYS), FORGET_AT_ONCE).await?;
    events::forget(&mut tx, ago(EVENTS_KEPT_DAYS), FORGET_AT_ONCE).await?;
    tx.commit().await
}
