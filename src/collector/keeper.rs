//! The keeper of the journal: behind the fold it seals pages into runs, merges the runs of a day, archives days that
//! are over and drops those that are too old.
//!
//! In: the journal, the fold's watermarks, how long to keep. Out: the same records in less room, archives. It never
//! touches what is not folded, works in small steps with rests between them, and may be stopped anywhere: what it left
//! half done is invisible and is removed later. Several daemons may keep one journal; each step has one winner.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::BEAT_EVERY;
use crate::store::journal::{ArchiveFault, Run};
use crate::store::{Store, StoreError, fold};
use crate::telemetry::{Heartbeat, Metrics};
use crate::vocabulary::Clock;

/// How long records are kept, and where days go before they are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    pub keep_days: u32,
    pub archive: Option<PathBuf>,
}

/// The task that keeps the journal.
pub struct Keeper {
    pub store: Store,
    pub clock: Clock,
    pub keeping: Keeping,
    pub metrics: Metrics,
    pub beat: Heartbeat,
}

impl Keeper {
    /// Keeps the journal until it is dropped.
    pub async fn run(self) -> Result<(), Infallible> {
        let mut complained: Option<Instant> = None;
        loop {
            self.beat.beat();
            let began = Instant::now();
            let rest = match self.turn().await {
                Ok(true) => (began.elapsed() * RESTS).clamp(REST_LEAST, REST_MOST),
                Ok(false) => IDLE,
                Err(error) => {
                    if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                        tracing::warn!(
                            "The accounting journal is not sealed, archived or shortened: {error}. It grows and stays \
                             readable; trying again every {} s.",
                            IDLE.as_secs()
                        );
                        complained = Some(Instant::now());
                    }
                    IDLE
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// One step of whatever is next. `true`: there may be more to do.
    ///
    /// **Errors**: the database or the archive's folder; nothing is lost, call again.
    pub async fn turn(&self) -> Result<bool, ArchiveFault> {
        let now = self.clock.now();
        if self.tidy().await? || self.seal_one().await? {
            return Ok(true);
        }
        if let Some(runs) = self.store.runs_to_merge(now).await? {
            return Ok(self.beating(self.store.merge_runs(&runs, now)).await?);
        }
        if let Some(folder) = &self.keeping.archive
            && let Some(runs) = self.store.runs_to_archive(now).await?
        {
            return self.beating(self.archive(folder, &runs)).await;
        }
        let dropped = self.store.drop_days(self.keeping.keep_days, self.keeping.archive.is_some(), now).await?;
        if dropped > 0 {
            tracing::info!(
                "Accounting records older than {} days were dropped from the journal ({dropped} runs). Usage and lines stay.",
                self.keeping.keep_days
            );
        }
        Ok(dropped > 0)
    }

    /// Beats while something long works; it has an end of its own.
    async fn beating<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(BEAT_EVERY) => self.beat.beat(),
            }
        }
    }

    async fn tidy(&self) -> Result<bool, StoreError> {
        let began = Instant::now();
        let mut did = false;
        while began.elapsed() < TIDY_AT_ONCE && self.store.tidy_journal(self.clock.now()).await? {
            did = true;
            tokio::task::yield_now().await;
        }
        Ok(did)
    }

    /// Seals the next run of the first lane that has one.
    async fn seal_one(&self) -> Result<bool, StoreError> {
        let mut tx = self.store.read().await?;
        let watermarks: HashMap<i64, i64> = fold::watermarks(&mut tx).await?;
        tx.rollback().await?;
        for lane in self.store.lanes_to_seal().await? {
            let Some(watermark) = watermarks.get(&lane).copied() else { continue };
            let now = self.clock.now();
            let Some(stretch) = self.store.stretch_to_seal(lane, watermark, now).await? else { continue };
            self.beat.beat();
            let records = stretch.records();
            let sorted = tokio::task::spawn_blocking(|| stretch.into_run()).await;
            let run = sorted.map_err(|error| StoreError::Database(format!("sealing broke off: {error}")))??;
            if self.store.seal(run, now).await? {
                self.metrics.journal_sealed_records.inc_by(records.unsigned_abs());
                tracing::debug!(lane, records, "A run of the journal was sealed.");
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn archive(&self, folder: &Path, runs: &[Run]) -> Result<bool, ArchiveFault> {
        let now = self.clock.now();
        let day = &runs[0].day_on;
        fs::create_dir_all(folder)?;
        let part = folder.join(format!(".journal-{day}.{}.part", std::process::id()));
        let mut out = BufWriter::new(private_file(&part)?);
        let header = self.store.write_archive(runs, now, &mut out).await?;
        let (folder, day_of_file) = (folder.to_path_buf(), day.clone());
        // Syncing gigabytes takes long, and other tasks need this thread.
        let finished = tokio::task::spawn_blocking(move || finish(out, &part, &folder, &day_of_file)).await;
        let file = finished.map_err(io::Error::other)??;
        if !self.store.mark_archived(runs, &file.display().to_string()).await? {
            fs::remove_file(&file)?;
            return Ok(false);
        }
        tracing::info!("{} accounting records of {day} were archived to {}.", header.records, file.display());
        Ok(true)
    }
}

/// Makes a written archive durable under its name.
fn finish(mut out: BufWriter<File>, part: &Path, folder: &Path, day: &str) -> io::Result<PathBuf> {
    out.flush()?;
    out.get_ref().sync_all()?;
    let file = free_name(folder, day);
    fs::rename(part, &file)?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// A name that is not taken: records that come later for an archived day go to a file of their own.
fn free_name(folder: &Path, day: &str) -> PathBuf {
    let name = |number: u32| match number {
        1 => folder.join(format!("journal-{day}.lmj")),
        number => folder.join(format!("journal-{day}.{number}.lmj")),
    };
    (1..10_000).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(10_000))
}

fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Looks for work although there was none.
const IDLE: Duration = Duration::from_secs(5);
/// Rest after a step, by how long the step took: the keeper takes a twentieth of one core at most.
const RESTS: u32 = 19;
const REST_LEAST: Duration = Duration::from_millis(50);
const REST_MOST: Duration = Duration::from_secs(5);
const TIDY_AT_ONCE: Duration = Duration::from_millis(100);
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_never_takes_the_name_of_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = free_name(folder.path(), "2026-11-10");
        assert!(first.ends_with("journal-2026-11-10.lmj"));
        File::create(&first).expect("a file");
        assert!(free_name(folder.path(), "2026-11-10").ends_with("journal-2026-11-10.2.lmj"));
    }
}
