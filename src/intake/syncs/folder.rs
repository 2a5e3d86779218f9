//! Folders in which billing systems put lists of all their accounts: each list is kept like one that was sent, compared, and put
//! away beside its report. A list is known by its octets and its time, so that a stop at any instant costs nothing: the file is
//! found again and goes on where it was.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::ToSpan;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::mpsc;

use super::keep::Keeping;
use super::text_of;
use crate::intake::App;
use crate::intake::sources::{Lists, Source};
use crate::intake::ways::inbox::{DONE, REFUSED, Stand, files, hash, is_old, put_away, stand};
use crate::store::syncs::{self, NewSync, SyncRow};
use crate::store::{StoreError, billing, exceptions};
use crate::telemetry::Heartbeat;
use crate::vocabulary::{Date, Timestamp, hex, to_micros};

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// For how long a folder is one daemon's; a list is kept in less.
const CLAIMED_SECONDS: i64 = 60;
/// Pieces of a list between two renewals of the claim.
const PIECES_PER_CLAIM: u64 = 64;
const PIECE: usize = 1 << 20;
/// What an exception is called that tells of a list that did not come.
pub const MISSING_KIND: &str = "list-missing";

#[derive(Debug, Error)]
enum Later {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Input(#[from] std::io::Error),
    #[error("it was written while it was read")]
    Moving,
}

/// Watches the folders of all sources until it is dropped.
pub async fn run(app: App, beat: Heartbeat) {
    let mut watch = Watch { seen: HashMap::new(), ids: HashMap::new(), told: HashMap::new() };
    loop {
        beat.beat();
        tokio::time::sleep(LOOK_EVERY).await;
        let settings = app.sources.now();
        let mut still = HashMap::new();
        for source in &settings.sources {
            let Some(lists) = &source.lists else { continue };
            let look = Look { app: &app, beat: &beat, source, lists };
            if let Err(error) = look.at_folder(&mut watch, &mut still, settings.settle_seconds).await {
                // Nothing is lost: it is found again at the next look.
                tracing::warn!(folder = %lists.folder.display(), "Lists not taken yet: {error}. Tried again.");
            }
        }
        watch.ids.retain(|path, _| still.contains_key(path));
        watch.seen = still;
    }
}

/// What was seen before.
struct Watch {
    seen: HashMap<PathBuf, Stand>,
    /// By which name a file's reconciliation goes.
    ids: HashMap<PathBuf, (Stand, String)>,
    /// The day of which a source was told that its list did not come.
    told: HashMap<String, Date>,
}

struct Look<'a> {
    app: &'a App,
    beat: &'a Heartbeat,
    source: &'a Source,
    lists: &'a Lists,
}

impl Look<'_> {
    async fn at_folder(
        &self,
        watch: &mut Watch,
        still: &mut HashMap<PathBuf, Stand>,
        settle_seconds: u32,
    ) -> Result<(), Later> {
        let now = self.app.clock.now();
        let found = files(&self.lists.folder).await;
        if found.is_empty() && self.lists.at.is_none() {
            return Ok(());
        }
        let quiet: Vec<(PathBuf, Stand)> = found
            .iter()
            .filter(|(path, stand)| watch.seen.get(path) == Some(stand) && is_old(stand, now, settle_seconds))
            .cloned()
            .collect();
        still.extend(found.iter().cloned());
        let Some((today, is_time)) = self.time(now).await? else { return Ok(()) };
        if !is_time {
            return Ok(());
        }
        if found.is_empty() {
            return self.tell_missing(watch, today, now).await;
        }
        if quiet.is_empty() || !self.claim().await? {
            return Ok(());
        }
        for (path, stood) in quiet {
            let id = match watch.ids.get(&path).filter(|(stand, _)| *stand == stood) {
                Some((_, id)) => id.clone(),
                None => {
                    let id = self.name(&path, &stood).await?;
                    watch.ids.insert(path.clone(), (stood, id.clone()));
                    id
                }
            };
            self.go_on(&path, &stood, &id).await?;
        }
        Ok(())
    }

    /// The tenant's day, and whether lists are taken yet. `None`: it has no catalog.
    async fn time(&self, now: Timestamp) -> Result<Option<(Date, bool)>, StoreError> {
        let mut tx = self.app.store.read().await?;
        let catalog = self.app.catalogs.current(&mut tx, &self.source.tenant).await;
        Ok(catalog.ok().map(|catalog| {
            let zoned = now.to_zoned(catalog.zone.clone());
            (zoned.date(), self.lists.at.is_none_or(|at| zoned.time() >= at))
        }))
    }

    /// A list is another one when its octets or its time are others.
    async fn name(&self, path: &Path, stood: &Stand) -> Result<String, Later> {
        let opened = path.to_path_buf();
        let hashing = tokio::task::spawn_blocking(move || hash(&opened));
        let hashed = self.beating(hashing).await.map_err(std::io::Error::other)??;
        let (tenant, source) = (&self.source.tenant, &self.source.source);
        let name = format!("{tenant}\u{0}{source}\u{0}{}\u{0}{}", hex(hashed), to_micros(as_of(stood, Timestamp::MAX)));
        Ok(format!("sy_{}", hex(&Sha256::digest(name.as_bytes())[..12])))
    }

    async fn go_on(&self, path: &Path, stood: &Stand, id: &str) -> Result<(), Later> {
        let found = syncs::find(&mut self.app.store.read().await?, self.source.tenant.as_str(), id).await?;
        match found {
            None => self.keep(path, stood, id).await,
            Some(row) => match row.state.as_str() {
                "receiving" => self.keep(path, stood, id).await,
                "planned" | "applying" | "applied" => {
                    let Some(report) = &row.report else { return Ok(()) };
                    let text = text_of(&mut self.app.store.read().await?, id, report).await?;
                    let text = format!("Reconciliation {id}\n\n{text}");
                    self.put_away(path, DONE, text, &row).await
                }
                "failed" => {
                    let why = row.error.clone().unwrap_or_default();
                    self.put_away(path, REFUSED, format!("Reconciliation {id} failed: {why}.\n"), &row).await
                }
                // The worker has it.
                _ => Ok(()),
            },
        }
    }

    async fn keep(&self, path: &Path, stood: &Stand, id: &str) -> Result<(), Later> {
        let now = self.app.clock.now();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let by = format!("source {} by its list {name}", self.source.source);
        let new = NewSync {
            id,
            tenant: self.source.tenant.as_str(),
            source: self.source.source.as_str(),
            profile: self.lists.profile.as_deref(),
            said_complete: self.lists.is_complete.then_some("the configuration's word"),
            told_records: None,
            only: None,
            as_of: as_of(stood, now),
            requested_by: &by,
        };
        let mut keeping = Keeping::begin(self.app, &new).await?;
        let mut pieces = read(path);
        let mut kept = 0u64;
        while let Some(piece) = pieces.recv().await {
            keeping.add(&piece?).await?;
            self.beat.beat();
            kept += 1;
            if kept.is_multiple_of(PIECES_PER_CLAIM) {
                self.claim().await?;
            }
        }
        let is_same = fs::symlink_metadata(path).map(|metadata| stand(&metadata)).ok() == Some(*stood);
        if !is_same {
            keeping.drop_all().await?;
            return Err(Later::Moving);
        }
        let (octets, _) = keeping.end().await?;
        let mut tx = self.app.store.write().await?;
        syncs::received(&mut tx, id, octets).await?;
        exceptions::release_subject(&mut tx, MISSING_KIND, &self.subject(), &by, now).await?;
        tx.commit().await?;
        tracing::info!(sync.id = %id, tenant = %self.source.tenant, source = %self.source.source, "List {name} taken.");
        Ok(())
    }

    async fn put_away(&self, path: &Path, folder: &str, report: String, row: &SyncRow) -> Result<(), Later> {
        let (path, folder) = (path.to_path_buf(), self.lists.folder.join(folder));
        let moving = move || put_away(&path, &folder, Some(("report.txt", &report)));
        tokio::task::spawn_blocking(moving).await.map_err(std::io::Error::other)??;
        tracing::info!(sync.id = %row.id, "The list's report stands beside it.");
        Ok(())
    }

    /// Once a day, when its time has come and there is nothing.
    async fn tell_missing(&self, watch: &mut Watch, today: Date, now: Timestamp) -> Result<(), Later> {
        let subject = self.subject();
        if watch.told.get(&subject) == Some(&today) || !self.claim().await? {
            return Ok(());
        }
        let (tenant, source) = (self.source.tenant.as_str(), self.source.source.as_str());
        let mut tx = self.app.store.write().await?;
        let last = syncs::list(&mut tx, tenant, Some(source), None, 1).await?;
        let day_ago = now.checked_sub(24.hours()).unwrap_or(Timestamp::MIN);
        if last.first().is_none_or(|row| row.created_at < day_ago) {
            let folder = self.lists.folder.display();
            let detail = format!("no list of all its accounts came into {folder} in the last 24 hours");
            exceptions::open(&mut tx, Some(tenant), MISSING_KIND, &subject, &detail, now).await?;
            tx.commit().await?;
        }
        watch.told.insert(subject, today);
        Ok(())
    }

    /// Waits for something that may take longer than the watchdog does.
    async fn beating<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(LOOK_EVERY) => self.beat.beat(),
            }
        }
    }

    fn subject(&self) -> String {
        format!("{}/{}", self.source.tenant, self.source.source)
    }

    /// Whether this folder is ours for a while.
    async fn claim(&self) -> Result<bool, StoreError> {
        let name = format!("lists {}", self.subject());
        let now = self.app.clock.now();
        let until = now.checked_add(CLAIMED_SECONDS.seconds()).unwrap_or(now);
        let mut tx = self.app.store.write().await?;
        let ours = billing::claim(&mut tx, &name, self.app.store.owner(), until, now).await?;
        tx.commit().await?;
        Ok(ours)
    }
}

/// A list tells of the instant at which it was written.
fn as_of(stood: &Stand, now: Timestamp) -> Timestamp {
    let written = stood.modified.and_then(|at| Timestamp::try_from(at).ok());
    written.map_or(now, |written| written.min(now))
}

fn read(path: &Path) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (pieces, taken) = mpsc::channel(2);
    let path = path.to_path_buf();
    tokio::task::spawn_blocking(move || {
        let mut file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) => {
                let _ = pieces.blocking_send(Err(error));
                return;
            }
        };
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            match file.by_ref().take(PIECE as u64).read_to_end(&mut piece) {
                Ok(0) => return,
                Ok(_) if pieces.blocking_send(Ok(piece)).is_ok() => {}
                // Nobody wants the rest.
                Ok(_) => return,
                Err(error) => {
                    let _ = pieces.blocking_send(Err(error));
                    return;
                }
            }
        }
    });
    taken
}
