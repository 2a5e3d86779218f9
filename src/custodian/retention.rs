//! Lets go of what a tenant's catalog no longer keeps, class by class, in small steps with rests between them: raw records
//! and their archives, names and addresses of sessions, the audit, answers to requests. Totals, ledger and lines stay.
//!
//! One daemon does it at a time (a claim); what an account's legal hold covers waits for the hold to be lifted. The journal is
//! shared by all tenants: it is kept as long as the longest of them says, and whole while any hold stands.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::ToSpan;

use crate::catalog::Retention as Kept;
use crate::store::{Store, StoreError, audit_chain, billing, catalog, privacy};
use crate::telemetry::Heartbeat;
use crate::vocabulary::{Clock, Date, Timestamp};

/// The task that enforces retention.
pub struct Retention {
    pub store: Store,
    pub clock: Clock,
    /// Where the journal's days are archived.
    pub archive: Option<PathBuf>,
    pub beat: Heartbeat,
}

/// What one look did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    pub runs: u64,
    pub files: u64,
    pub sessions: u64,
    pub deeds: u64,
    pub answers: u64,
}

impl Retention {
    /// Enforces it until it is dropped.
    pub async fn run(self) -> Result<(), Infallible> {
        let mut next = Instant::now();
        let mut complained: Option<Instant> = None;
        loop {
            self.beat.beat();
            if Instant::now() >= next {
                next = Instant::now() + EVERY;
                match self.turn().await {
                    Ok(_) => {}
                    Err(error) => {
                        next = Instant::now() + AGAIN;
                        if !error.is_unavailable() && complained.is_none_or(|at| at.elapsed() >= EVERY) {
                            tracing::warn!("What is older than its retention is kept for now: {error}. Trying again.");
                            complained = Some(Instant::now());
                        }
                    }
                }
            }
            tokio::time::sleep(BEAT_EVERY).await;
        }
    }

    /// One look at everything; nothing where another daemon looks.
    ///
    /// **Errors**: the database; what was done is done, call again.
    pub async fn turn(&self) -> Result<Forgotten, StoreError> {
        let now = self.clock.now();
        let mut tx = self.store.write().await?;
        let until = now.checked_add(CLAIM_SECONDS.seconds()).unwrap_or(now);
        if !billing::claim(&mut tx, CLAIM, self.store.owner(), until, now).await? {
            return Ok(Forgotten::default());
        }
        tx.commit().await?;
        let mut tx = self.store.read().await?;
        let mut kept: Vec<(String, Kept)> = Vec::new();
        for tenant in catalog::tenants(&mut tx).await? {
            if let Some(current) = catalog::in_force(&mut tx, &tenant).await? {
                kept.push((tenant, current.catalog.retention));
            }
        }
        let held = privacy::held_accounts(&mut tx).await?;
        tx.rollback().await?;
        if let Some(before) = before(now, Some(WISH_DAYS)) {
            let mut tx = self.store.write().await?;
            privacy::devices::forget_wishes(&mut tx, before).await?;
            tx.commit().await?;
        }
        let mut done = Forgotten::default();
        for (tenant, kept) in &kept {
            if let Some(before) = before(now, kept.sessions) {
                done.sessions += self.steps(tenant, "names and addresses in sessions", before, Class::Sessions).await?;
            }
            if let Some(before) = before(now, kept.ingest) {
                done.answers += self.steps(tenant, "kept answers", before, Class::Answers).await?;
            }
            if let Some(before) = before(now, kept.audit) {
                done.deeds += self.deeds(tenant, before, &|account| held.contains(&account)).await?;
            }
        }
        let raw: Option<Vec<u32>> = kept.iter().map(|(_, kept)| kept.raw).collect();
        if let Some(days) = raw.and_then(|days| days.into_iter().max())
            && held.is_empty()
        {
            done.runs = self.store.drop_days(days, false, now).await?;
            if done.runs > 0 {
                tracing::info!("Retention: {} runs of raw accounting records older than {days} days went.", done.runs);
            }
            if let (Some(folder), Some(before)) = (&self.archive, before(now, Some(days))) {
                done.files = archives(folder, before);
            }
        }
        Ok(done)
    }

    async fn steps(&self, tenant: &str, what: &str, before: Timestamp, class: Class) -> Result<u64, StoreError> {
        let mut gone = 0;
        loop {
            self.beat.beat();
            let mut tx = self.store.write().await?;
            let step = match class {
                Class::Sessions => privacy::forget_sessions(&mut tx, tenant, before, STEP).await?,
                Class::Answers => privacy::forget_answers(&mut tx, tenant, before, STEP).await?,
            };
            tx.commit().await?;
            gone += step;
            if step < STEP.unsigned_abs() {
                break;
            }
            tokio::time::sleep(REST).await;
        }
        told(tenant, what, gone, before);
        Ok(gone)
    }

    async fn deeds(
        &self,
        tenant: &str,
        before: Timestamp,
        held: &(impl Fn(i64) -> bool + Sync),
    ) -> Result<u64, StoreError> {
        let (mut gone, now) = (0, self.clock.now());
        loop {
            self.beat.beat();
            let mut tx = self.store.write().await?;
            let step = audit_chain::drop_oldest(&mut tx, self.store.sealer(), tenant, before, STEP, now, held).await?;
            tx.commit().await?;
            gone += step;
            if step < STEP.unsigned_abs() {
                break;
            }
            tokio::time::sleep(REST).await;
        }
        told(tenant, "deeds of the audit", gone, before);
        Ok(gone)
    }
}

#[derive(Debug, Clone, Copy)]
enum Class {
    Sessions,
    Answers,
}

fn told(tenant: &str, what: &str, gone: u64, before: Timestamp) {
    if gone > 0 {
        tracing::info!(tenant, "Retention of {tenant}: {gone} {what} from before {before:.0} went.");
    }
}

fn before(now: Timestamp, days: Option<u32>) -> Option<Timestamp> {
    now.checked_sub((i64::from(days?) * 24).hours()).ok()
}

/// Removes archived days from before `before`; one that cannot be removed is told and tried again.
fn archives(folder: &Path, before: Timestamp) -> u64 {
    let mut removed = 0;
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let day = path.file_name().and_then(|name| name.to_str()).and_then(day_of);
        // A day is over a day after it began.
        let is_old = day
            .and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .and_then(|start| start.checked_add(1.day()).ok())
            .is_some_and(|end| end.timestamp() <= before);
        if !is_old {
            continue;
        }
        match std::fs::remove_file(&path) {
            Ok(()) => {
                tracing::info!("Retention: the archive {} went.", path.display());
                removed += 1;
            }
            Err(error) => tracing::warn!("The archive {} is too old and stays: {error}.", path.display()),
        }
    }
    removed
}

/// The day of an archive's name, `journal-DAY.lmj` or `journal-DAY.2.lmj`.
fn day_of(name: &str) -> Option<Date> {
    let rest = name.strip_prefix("journal-")?.strip_suffix(".lmj")?;
    rest.split('.').next()?.parse().ok()
}

const CLAIM: &str = "retention";
const CLAIM_SECONDS: i64 = 3000;
/// So long a DHCP server has to let go of a device; the journals of leases keep what ended for half of it.
const WISH_DAYS: u32 = 60;
/// How often everything is looked at.
const EVERY: Duration = Duration::from_secs(3600);
const AGAIN: Duration = Duration::from_secs(60);
const BEAT_EVERY: Duration = Duration::from_secs(3);
/// Rows of one transaction, and the rest after it.
const STEP: i64 = 500;
const REST: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_archives_of_days_that_are_too_old_go() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in
            ["journal-2026-11-01.lmj", "journal-2026-11-01.2.lmj", "journal-2026-11-02.lmj", "journal-x.lmj", "notes"]
        {
            std::fs::File::create(folder.path().join(name)).expect("a file");
        }
        let before: Timestamp = "2026-11-02T12:00:00Z".parse().expect("an instant");
        assert_eq!(archives(folder.path(), before), 2);
        let mut left: Vec<String> = std::fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["journal-2026-11-02.lmj", "journal-x.lmj", "notes"]);
    }
}
