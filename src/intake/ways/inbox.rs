//! Folders in which billing systems put files. A file is read when it has its final name and stood still for a while, each
//! one once; then it goes to `done/`, or to `refused/` when nothing of it could be used, beside a report of what was put
//! aside. What was done stands in the database with the file's digest, so that a stop at any instant costs nothing: the file
//! is found again and goes on where it was, or only finds its folder.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{RECORDS_AT_ONCE, actor, count, counted, digest, expires_at, tell};
use crate::intake::deeds::Deed;
use crate::intake::deeds::ingest::{Ingest, Input, NewInput};
use crate::intake::desk::Desk;
use crate::intake::problem::Problem;
use crate::intake::sources::{Shelved, Source};
use crate::mediation::Outcome;
use crate::store::ingest::{self, IngestRow, Tally, Way};
use crate::store::{Dialect, Sealer, StoreError, Tx, billing};
use crate::telemetry::{Heartbeat, Metrics};
use crate::vocabulary::Timestamp;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Files of one folder that a look takes.
const FILES_MAX: usize = 1_000;
/// For how long a folder is one daemon's.
const CLAIMED_SECONDS: i64 = 30;
/// After which the claim is renewed.
const CLAIM_AGAIN: Duration = Duration::from_secs(10);
/// How long it is known that a file was processed.
const KEPT_DAYS: u32 = 400;
/// Records in a report.
const REPORTED_MAX: i64 = 1_000;
/// Endings of files that are still written.
const UNFINISHED: [&str; 4] = [".tmp", ".part", ".filepart", "~"];

/// How a file stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::intake) struct Stand {
    length: u64,
    pub modified: Option<SystemTime>,
    inode: u64,
}

/// Watches the folders of all sources, and the files of profiles, until it is dropped.
pub(super) async fn watch(desk: Desk, metrics: Metrics, beat: Heartbeat) {
    let mut seen: HashMap<PathBuf, Stand> = HashMap::new();
    let mut told = Vec::new();
    loop {
        beat.beat();
        tokio::time::sleep(LOOK_EVERY).await;
        let sources = desk.sources.clone();
        match tokio::task::spawn_blocking(move || sources.refresh()).await {
            Ok(Ok(true)) => {
                told.clear();
                tracing::info!("Source profiles were read again.");
            }
            Ok(Ok(false)) => told.clear(),
            Ok(Err(faults)) if faults != told => {
                let first = faults.first().map(|fault| format!("{} {}", fault.pointer, fault.detail));
                tracing::error!("Source profiles stay as they were: {}", first.unwrap_or_default());
                told = faults;
            }
            _ => {}
        }
        let settings = desk.sources.now();
        let mut still = HashMap::new();
        for source in settings.sources.iter().filter(|source| source.inbox.is_some()) {
            let (Some(folder), [profile]) = (&source.inbox, source.profiles.as_slice()) else { continue };
            let Some(profile) = settings.shelf.named(profile) else { continue };
            for (path, stand) in files(folder).await {
                let quiet =
                    seen.get(&path) == Some(&stand) && is_old(&stand, desk.clock.now(), settings.settle_seconds);
                still.insert(path.clone(), stand);
                if !quiet {
                    continue;
                }
                let reader =
                    FileReader { desk: &desk, metrics: &metrics, beat: &beat, source, profile: &profile, folder };
                if let Err(reason) = reader.file(&path, stand).await {
                    // Nothing is lost: it is found again at the next look.
                    tracing::warn!(file = %path.display(), "File not taken yet: {reason}. It is tried again.");
                    break;
                }
            }
        }
        seen = still;
    }
}

/// Files with their final name, in the order of their names.
pub(in crate::intake) async fn files(folder: &Path) -> Vec<(PathBuf, Stand)> {
    let folder = folder.to_path_buf();
    let listing = tokio::task::spawn_blocking(move || {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(metadata) = fs::symlink_metadata(entry.path()).ok().filter(fs::Metadata::is_file) else {
                continue;
            };
            if name.starts_with('.') || UNFINISHED.iter().any(|ending| name.to_lowercase().ends_with(ending)) {
                continue;
            }
            files.push((entry.path(), stand(&metadata)));
        }
        files.sort_by(|(one, _), (other, _)| one.cmp(other));
        files.truncate(FILES_MAX);
        files
    });
    listing.await.unwrap_or_default()
}

pub(in crate::intake) fn stand(metadata: &fs::Metadata) -> Stand {
    Stand { length: metadata.len(), modified: metadata.modified().ok(), inode: metadata.ino() }
}

/// Whether a file has not been written for a while. The folder's clock may be another machine's: one from the future is
/// believed to be old.
pub(in crate::intake) fn is_old(stand: &Stand, now: Timestamp, settle_seconds: u32) -> bool {
    let Some(modified) = stand.modified.and_then(|at| Timestamp::try_from(at).ok()) else { return true };
    let age = now.as_second() - modified.as_second();
    !(0..i64::from(settle_seconds)).contains(&age)
}

struct FileReader<'a> {
    desk: &'a Desk,
    metrics: &'a Metrics,
    beat: &'a Heartbeat,
    source: &'a Source,
    profile: &'a Arc<Shelved>,
    folder: &'a Path,
}

/// Some records of a file; the last ones say how it ended.
struct Chunk {
    records: Vec<Outcome>,
    ends: Option<&'static str>,
}

impl FileReader<'_> {
    /// Takes one file from its folder.
    ///
    /// **Errors**: why not now.
    async fn file(&self, path: &Path, stood: Stand) -> Result<(), String> {
        if !self.claim().await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let opened = path.to_path_buf();
        let hashed = tokio::task::spawn_blocking(move || hash(&opened)).await.map_err(|error| error.to_string())?;
        let hashed = hashed.map_err(|error| error.to_string())?;
        let digest = digest(self.desk.store.sealer(), &hashed);
        let row = self.records(path, &name, digest).await?;
        if fs::symlink_metadata(path).map(|metadata| stand(&metadata)).ok() != Some(stood) {
            return Err("it was written while it was read".to_owned());
        }
        self.put_away(path, &row).await
    }

    /// Whether this folder is ours for a while. On SQLite there is no other daemon.
    async fn claim(&self) -> Result<bool, StoreError> {
        if self.desk.store.dialect() == Dialect::Sqlite {
            return Ok(true);
        }
        let name = format!("inbox {}/{} {}", self.source.tenant, self.source.source, self.profile.profile.name);
        let now = self.desk.clock.now();
        let until = now.checked_add(jiff::SignedDuration::from_secs(CLAIMED_SECONDS)).unwrap_or(now);
        let mut tx = self.desk.store.write().await?;
        let ours = billing::claim(&mut tx, &name, self.desk.store.owner(), until, now).await?;
        tx.commit().await?;
        Ok(ours)
    }

    async fn records(&self, path: &Path, name: &str, digest: String) -> Result<IngestRow, String> {
        let (sender, mut chunks) = mpsc::channel(2);
        let (profile, opened) = (Arc::clone(self.profile), path.to_path_buf());
        let reading = tokio::task::spawn_blocking(move || read(&profile, &opened, &sender));
        let expires_at = expires_at(self.desk.clock.now(), KEPT_DAYS.max(self.desk.sources.now().raw_days));
        let new =
            NewInput { way: Way::Inbox, name: Some(name.to_owned()), event: None, digest, sealed: None, expires_at };
        let mut input = Some(Input::New(new));
        let (mut tally, mut id, mut claimed) = (Tally::default(), None, Instant::now());
        let mut ended = false;
        while let Some(Chunk { records, ends }) = chunks.recv().await {
            self.beat.beat();
            let more = || id.map(|id| Input::More { id });
            let asked = Ingest {
                tenant: self.source.tenant.clone(),
                source: self.source.source.clone(),
                actor: actor(&self.source.source, self.profile),
                profile: Arc::clone(self.profile),
                input: input.take().or_else(more).ok_or("it has no number")?,
                records,
                ends,
            };
            let done = self.desk.perform(Deed::Ingest(Box::new(asked))).await.map_err(|problem| refusal(&problem))?;
            id = done.body["ingest"].as_str().and_then(|id| id.parse().ok());
            ended = ends.is_some();
            if done.body["duplicate"] == true {
                ended = true;
                break;
            }
            tally.add(counted(&done.body).0);
            if claimed.elapsed() >= CLAIM_AGAIN {
                claimed = Instant::now();
                self.claim().await.map_err(|error| error.to_string())?;
            }
        }
        drop(chunks);
        reading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let id = id.filter(|_| ended).ok_or("it could not be read to its end")?;
        let taken = super::Taken { ingest: id.to_string(), tally, results: Vec::new(), duplicate: false };
        count(self.metrics, &taken);
        tell(&self.source.tenant, &self.source.source, self.profile, &taken);
        let read = async { ingest::one(&mut self.desk.store.read().await?, id).await };
        read.await.map_err(|error: StoreError| error.to_string())?.ok_or_else(|| "its row is gone".to_owned())
    }

    /// Moves a settled file to its folder, under a name that nothing has there, with a report where something was put aside.
    async fn put_away(&self, path: &Path, row: &IngestRow) -> Result<(), String> {
        let report = match row.tally.quarantined > 0 {
            true => {
                let told = async { detailed(&mut self.desk.store.read().await?, row).await };
                Some(format!("{:#}\n", told.await.map_err(|error: StoreError| error.to_string())?))
            }
            false => None,
        };
        let folder = self.folder.join(if row.state == "refused" { REFUSED } else { DONE });
        let path = path.to_path_buf();
        let moving = tokio::task::spawn_blocking(move || {
            put_away(&path, &folder, report.as_deref().map(|report| ("report.json", report)))
        });
        moving.await.map_err(|error| error.to_string())?.map_err(|error| format!("it cannot be moved: {error}"))
    }
}

pub(in crate::intake) const DONE: &str = "done";
pub(in crate::intake) const REFUSED: &str = "refused";

fn refusal(problem: &Problem) -> String {
    problem.document()["detail"].as_str().unwrap_or("it was refused").to_owned()
}

pub(in crate::intake) fn hash(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut octets = vec![0u8; 256 * 1024];
    loop {
        match file.read(&mut octets)? {
            0 => return Ok(hash.finalize().to_vec()),
            count => hash.update(&octets[..count]),
        }
    }
}

/// Reads a file's records in chunks. A file of which nothing could be read ends as `refused`.
fn read(profile: &Shelved, path: &Path, sender: &mpsc::Sender<Chunk>) -> std::io::Result<()> {
    let mut changes = profile.profile.changes(BufReader::new(File::open(path)?));
    let mut records = Vec::with_capacity(RECORDS_AT_ONCE);
    let mut sound = false;
    for mut outcome in changes.by_ref() {
        outcome.raw = Vec::new();
        sound |= outcome.result.is_ok();
        records.push(outcome);
        if records.len() == RECORDS_AT_ONCE {
            let full = std::mem::replace(&mut records, Vec::with_capacity(RECORDS_AT_ONCE));
            if sender.blocking_send(Chunk { records: full, ends: None }).is_err() {
                // Nobody wants the rest.
                return Ok(());
            }
        }
    }
    let broken = changes.summary().broken.is_some();
    let ends = if sound && !broken { "done" } else { "refused" };
    let _ = sender.blocking_send(Chunk { records, ends: Some(ends) });
    Ok(())
}

/// Moves a file to a folder under a name that nothing has there, beside a report with an ending of its own.
pub(in crate::intake) fn put_away(path: &Path, folder: &Path, report: Option<(&str, &str)>) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let free = (1..10_000u32)
        .map(|number| if number == 1 { name.clone() } else { format!("{name}.{number}") })
        .find(|name| fs::symlink_metadata(folder.join(name)).is_err());
    let free = free.ok_or_else(|| std::io::Error::other("too many files of this name are there"))?;
    if let Some((ending, report)) = report {
        let (made, kept) = (folder.join(format!(".{free}.report")), folder.join(format!("{free}.{ending}")));
        fs::write(&made, report)?;
        File::open(&made)?.sync_all()?;
        fs::rename(made, kept)?;
    }
    fs::rename(path, folder.join(free))?;
    File::open(folder)?.sync_all()
}

/// Where a file that was taken is kept now, by its name and digest.
pub(super) fn kept(folders: &[PathBuf], name: &str, digest: &str, sealer: &Sealer) -> Option<PathBuf> {
    for folder in folders {
        for inside in [folder.join(DONE), folder.join(REFUSED), folder.clone()] {
            for entry in fs::read_dir(inside).into_iter().flatten().flatten() {
                let of_name = entry.file_name().to_string_lossy().starts_with(name);
                let same = |path: &Path| hash(path).is_ok_and(|hashed| super::digest(sealer, &hashed) == digest);
                if of_name && entry.path().is_file() && same(&entry.path()) {
                    return Some(entry.path());
                }
            }
        }
    }
    None
}

/// An input as lists show it.
pub fn shown(row: &IngestRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "tenant": row.tenant,
        "source": row.source,
        "profile": row.profile,
        "profile_digest": row.profile_digest,
        "way": row.way.as_str(),
        "name": row.name,
        "event": row.event,
        "state": row.state,
        "records": row.next_record - 1,
        "changes": row.tally.changes,
        "ignored": row.tally.ignored,
        "held": row.tally.held,
        "quarantined": row.tally.quarantined,
        "open": row.open,
        "received_at": row.received_at,
        "kept_until": row.expires_at,
        "finished_at": row.finished_at,
    })
}

/// With the records that were put aside, the first `REPORTED_MAX` of them.
pub fn detailed(tx: &mut Tx, row: &IngestRow) -> impl Future<Output = Result<Value, StoreError>> {
    let mut document = shown(row);
    let id = row.id;
    async move {
        let faults = ingest::faults(tx, id, false, 0, REPORTED_MAX).await?;
        let fault = |fault: &ingest::FaultRow| {
            json!({
                "record": fault.record, "line": fault.line, "account": fault.account, "errors": fault.faults,
                "replayed_at": fault.replayed_at, "replayed_by": fault.replayed_by,
            })
        };
        document["put_aside"] = faults.iter().map(fault).collect();
        Ok(document)
    }
}
