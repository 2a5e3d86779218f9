//! Looks at services that may have crossed a threshold, as the fold asked for, and has done what follows. Every daemon
//! looks; what follows is done once, under the account's lock.
//!
//! Most looks find nothing but how far the next threshold is. Those are worked out without the turn to write, and their
//! guards are written many at a time. A look at one of several that share an allowance says how far all of them are, and
//! asks for a look at each that has crossed something. While no catalog has a threshold nothing is asked for, and only the
//! catalogs' versions are looked at, once a second.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::App;
use super::deeds::{Deed, threshold};
use super::writer::Refusal;
use crate::store::running::{self, Judged};
use crate::store::thresholds::{self as stored, Guard, Look};
use crate::store::{StoreError, catalog, cycles, events, holds};
use crate::telemetry::Heartbeat;
use crate::vocabulary::{Period, Timestamp};

/// A crossing is acted upon within two seconds of its record; this is a part of that.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Without any threshold; a new catalog's are noticed so soon.
const LOOK_IDLE_EVERY: Duration = Duration::from_secs(1);
/// Looks of one round, and of the transaction that writes their guards.
const LOOKS_AT_ONCE: i64 = 200;
/// A look that failed is tried again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
const CLEAN_EVERY: Duration = Duration::from_secs(600);
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
    let mut cleaned = Instant::now();
    let mut catalogs = Catalogs::default();
    loop {
        beat.beat();
        let idle = !catalogs.have_thresholds(&app).await.unwrap_or(true);
        if idle {
            tokio::time::sleep(LOOK_IDLE_EVERY).await;
        } else {
            // An outage is told by the part that watches the database; here it only means: next time.
            let more = round(&app, &beat, &mut failed).await.unwrap_or(false);
            if !more {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        if cleaned.elapsed() >= CLEAN_EVERY {
            cleaned = Instant::now();
            let _ = forget(&app).await;
        }
    }
}

/// Which versions of the catalogs were looked at, and whether any of them has a threshold.
#[derive(Default)]
struct Catalogs {
    versions: Vec<(String, i64)>,
    watched: bool,
    looked_at: Option<Instant>,
}

impl Catalogs {
    async fn have_thresholds(&mut self, app: &App) -> Result<bool, StoreError> {
        if self.looked_at.is_some_and(|at| at.elapsed() < LOOK_IDLE_EVERY) {
            return Ok(self.watched);
        }
        let mut tx = app.store.read().await?;
        let versions = cycles::versions(&mut tx).await?;
        if versions != self.versions {
            let mut watched = false;
            for (tenant, _) in &versions {
                watched |= match catalog::plans_with_thresholds(&mut tx, tenant).await {
                    Ok(plans) => !plans.is_empty(),
                    // What others have is looked at all the same; the fold says what is wrong.
                    Err(StoreError::Corrupt { .. }) => false,
                    Err(error) => return Err(error),
                };
            }
            (self.versions, self.watched) = (versions, watched);
        }
        self.looked_at = Some(Instant::now());
        Ok(self.watched)
    }
}

/// What a look found.
enum Found {
    /// Nothing follows; the guards say until when, by service.
    Quiet { period: Period, guards: Vec<(i64, Guard)>, crossed: Vec<i64> },
    /// Something is to be done.
    Due,
}

/// One round. True: there are more looks.
async fn round(app: &App, beat: &Heartbeat, failed: &mut Failed) -> Result<bool, StoreError> {
    failed.retain(|_, at| at.elapsed() < AGAIN_AFTER);
    let looks = stored::looks(&mut app.store.read().await?, LOOKS_AT_ONCE).await?;
    let count = looks.len();
    let mut quiet: Vec<(Look, Found)> = Vec::new();
    let mut due = Vec::new();
    for look in looks {
        if failed.contains_key(&(look.service_id, look.period_start_at)) {
            continue;
        }
        beat.beat();
        match judge(app, &look, app.clock.now()).await {
            Ok(Found::Due) => due.push(look),
            Ok(found) => quiet.push((look, found)),
            Err(error) if error.is_unavailable() => return Err(error),
            Err(error) => note(failed, &look, &error.to_string()),
        }
    }
    let done = quiet.len() + due.len();
    if !quiet.is_empty() {
        let mut tx = app.store.write().await?;
        for (look, found) in &quiet {
            if let Found::Quiet { period, guards, crossed } = found {
                for (service_id, guard) in guards {
                    stored::put_guard(&mut tx, *service_id, period, guard).await?;
                }
                for service_id in crossed {
                    stored::ask_one(&mut tx, *service_id, look.period_start_at).await?;
                }
            }
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
    let Judged::Known { period, standings, totals, distance, others } = judged else { return Ok(Found::Due) };
    let marks = stored::marks(&mut tx, look.service_id, look.period_start_at).await?;
    let held = holds::living(&mut tx, look.account_id).await?;
    if threshold::is_due(look, &period, &standings, &marks, &held, now) {
        return Ok(Found::Due);
    }
    let own = Guard { catalog_version: prices.version, facts_id: look.facts_id, totals, distance };
    let mut guards = threshold::guards_of(&others, prices.version);
    guards.push((look.service_id, own));
    // All in one order, whoever writes them.
    guards.sort_by_key(|(service_id, _)| *service_id);
    let crossed = threshold::crossed_of(&mut tx, &others, look.period_start_at).await?;
    Ok(Found::Quiet { period, guards, crossed })
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
