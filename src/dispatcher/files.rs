//! Files of invoice lines in a source's own words: written beside their place, made durable, then put there whole under a name
//! that was never used, with a manifest beside them.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::mediation::{Facts, Profile, WriteFault, Written};
use crate::outgoing::Answer;
use crate::store::billing::{self, BatchRow, LineFilter, Place};
use crate::store::events::Event;
use crate::store::outlets::files::{self, FileRow};
use crate::store::{Store, StoreError};
use crate::vocabulary::Timestamp;
use crate::vocabulary::hex;

/// Where a tenant's closed batches are written to.
#[derive(Debug, Clone)]
pub struct Export {
    pub tenant: String,
    /// Names it within the tenant.
    pub name: String,
    pub profile: Arc<Profile>,
    /// Which `[out.NAME]` of the profile.
    pub out: String,
    pub directory: PathBuf,
    /// Only lines of this source's accounts.
    pub source: Option<String>,
}

/// Why a file was not written.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The profile cannot say it, or its name is taken: again is of no use.
    #[error("{0}")]
    Refused(String),
    #[error("{path}: {error}")]
    Disk { path: String, error: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Lines read in one go: the bound on memory.
const PAGE: i64 = 1000;

impl Export {
    /// The id of its outlet.
    pub fn id(&self) -> String {
        format!("export.{}.{}", self.tenant, self.name)
    }

    /// Writes the batch an event tells of. Safe to repeat, whenever the last attempt ended.
    pub async fn send(&self, event: &Event, store: &Store, now: Timestamp) -> Answer {
        match self.write(event, store, now).await {
            Ok(()) => Answer::Taken,
            Err(ExportError::Refused(why)) => Answer::Refused(why),
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    async fn write(&self, event: &Event, store: &Store, now: Timestamp) -> Result<(), ExportError> {
        let id = event.payload["batch"].as_str().unwrap_or_default();
        let mut tx = store.read().await?;
        let batch = billing::batch(&mut tx, &self.tenant, id).await?;
        let batch = batch.ok_or_else(|| ExportError::Refused(format!("there is no batch {id}")))?;
        let known = files::of_batch(&mut tx, &self.id(), id).await?;
        tx.rollback().await?;
        let file = match known {
            Some(file) if file.state == "placed" => return Ok(()),
            Some(file) => file,
            None => self.prepare(&batch, store, now).await?,
        };
        let directory = self.directory.clone();
        let placed = file.clone();
        tokio::task::spawn_blocking(move || place(&directory, &placed)).await.map_err(broke_off)??;
        let mut tx = store.write().await?;
        files::placed(&mut tx, &file.outlet, &file.batch).await?;
        tx.commit().await?;
        tracing::info!(
            "Wrote {} with {} lines of batch {}.",
            self.directory.join(&file.name).display(),
            file.documents,
            id
        );
        Ok(())
    }

    /// Writes file and manifest beside their places, and notes them.
    async fn prepare(&self, batch: &BatchRow, store: &Store, now: Timestamp) -> Result<FileRow, ExportError> {
        let facts = facts(batch);
        let out = self.profile.outs.get(&self.out);
        let out = out.ok_or_else(|| ExportError::Refused(format!("the profile has no [out.{}]", self.out)))?;
        let name = out.file_name(&facts).map_err(|fault| ExportError::Refused(fault.to_string()))?;
        let path = partial(&self.directory, &name);
        let cannot = |error| disk(&path, error);
        let sink = Hashing { inner: BufWriter::new(File::create(&path).map_err(cannot)?), hash: Sha256::new() };
        let filter = LineFilter {
            tenant: Some(self.tenant.clone()),
            batch: Some(batch.id.clone()),
            limit: PAGE,
            ..LineFilter::default()
        };
        let lines = Lines { store, filter, source: self.source.as_deref() };
        let (written, sink) = lines.write(&self.profile, &self.out, facts, sink).await?;
        let sha256 = hex(sink.hash.finalize());
        let file = sink.inner.into_inner().map_err(|error| cannot(error.into_error()))?;
        file.sync_all().map_err(cannot)?;
        let documents = i64::try_from(written.documents).unwrap_or(i64::MAX);
        let (totals, handshakes) = batch.sums();
        let manifest = json!({
            "file": name, "batch": batch.id, "cycle": batch.cycle, "period": batch.period, "documents": documents,
            "sum": written.sum.to_string(), "sha256": sha256,
            "totals": totals, "handshakes": handshakes, "written_at": now,
        });
        let manifest_path = partial(&self.directory, &manifest_name(&name));
        let mut file = File::create(&manifest_path).map_err(|error| disk(&manifest_path, error))?;
        let whole = file.write_all(format!("{manifest:#}\n").as_bytes()).and_then(|()| file.sync_all());
        whole.map_err(|error| disk(&manifest_path, error))?;
        let row = FileRow {
            outlet: self.id(),
            name,
            batch: batch.id.clone(),
            state: "writing".to_owned(),
            sha256,
            documents,
        };
        let mut tx = store.write().await?;
        if !files::begin(&mut tx, &row, now).await? {
            let why = format!("the name {} was used for another batch; no name is used twice", row.name);
            return Err(ExportError::Refused(why));
        }
        tx.commit().await?;
        Ok(row)
    }
}

/// Lines that are written as a source wants them.
pub struct Lines<'a> {
    pub store: &'a Store,
    /// With a tenant, and `limit` as the size of a page.
    pub filter: LineFilter,
    /// Only of this source's accounts.
    pub source: Option<&'a str>,
}

impl Lines<'_> {
    /// Writes them to `sink`, page by page.
    ///
    /// **Errors**: a line that the profile cannot write; what was written must be thrown away.
    pub async fn write<W: Write + Send + 'static>(
        &self,
        profile: &Arc<Profile>,
        out: &str,
        facts: Facts,
        sink: W,
    ) -> Result<(Written, W), ExportError> {
        let (send, writing) = writer(profile, out, facts, sink);
        let mut after = Place::default();
        loop {
            let mut tx = self.store.read().await?;
            let page = billing::pull(&mut tx, &self.filter, &after).await?;
            let Some(last) = page.last() else { break };
            after = last.place.clone();
            let own = |document: &Value| self.source.is_none_or(|source| document["source"] == source);
            let documents = billing::documents(&mut tx, &page).await?;
            tx.rollback().await?;
            // Whoever writes has stopped; why, it tells below.
            if send.send(documents.into_iter().filter(own).collect()).await.is_err() {
                break;
            }
        }
        drop(send);
        let (written, sink) = writing.await.map_err(broke_off)?;
        match written {
            Ok(written) => Ok((written, sink)),
            Err(WriteFault::Output(error)) => Err(ExportError::Disk { path: "the output".to_owned(), error }),
            Err(fault) => Err(ExportError::Refused(fault.to_string())),
        }
    }
}

/// The end of a thread that writes, and the sink it wrote to.
pub type Writing<W> = tokio::task::JoinHandle<(Result<Written, WriteFault>, W)>;

/// A thread that writes the documents that are sent to it, until their sender is dropped.
pub fn writer<W: Write + Send + 'static>(
    profile: &Arc<Profile>,
    out: &str,
    facts: Facts,
    mut sink: W,
) -> (mpsc::Sender<Vec<Value>>, Writing<W>) {
    let (send, mut pages) = mpsc::channel::<Vec<Value>>(2);
    let (profile, out) = (profile.clone(), out.to_owned());
    let writing = tokio::task::spawn_blocking(move || {
        let documents = std::iter::from_fn(|| pages.blocking_recv()).flatten();
        let written = match profile.outs.get(&out) {
            Some(out) => out.write(documents, &facts, &mut sink).and_then(|written| {
                sink.flush()?;
                Ok(written)
            }),
            None => Err(WriteFault::Output(io::Error::other(format!("the profile has no [out.{out}]")))),
        };
        (written, sink)
    });
    (send, writing)
}

/// What templates may name of a batch.
pub fn facts(batch: &BatchRow) -> Facts {
    let at = |at: Timestamp| at.to_string();
    [
        ("batch", batch.id.clone()),
        ("tenant", batch.tenant.clone()),
        ("cycle", batch.cycle.clone()),
        ("run", batch.run.to_string()),
        ("period_start", at(batch.period.start)),
        ("period_end", at(batch.period.end)),
        ("created_at", at(batch.closed_at.unwrap_or(batch.created_at))),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .to_vec()
}

fn manifest_name(name: &str) -> String {
    format!("{name}.manifest.json")
}

fn partial(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!(".{name}.partial"))
}

/// Puts manifest and file into their places, in this order, never over another.
fn place(directory: &Path, file: &FileRow) -> Result<(), ExportError> {
    let manifest = manifest_name(&file.name);
    let source = partial(directory, &file.name);
    // Without it the file was put there before, and whoever it is for may have taken it away.
    if source.exists() {
        link(directory, &manifest, None)?;
        link(directory, &file.name, Some(&file.sha256))?;
        sync(directory)?;
        // The manifest's first: while the file's is there all of this is done again.
        remove(&partial(directory, &manifest))?;
        remove(&source)?;
    }
    sync(directory)
}

/// Gives a file its name. A link refuses a name that is there: readers that saw it would never read it again.
fn link(directory: &Path, name: &str, sha256: Option<&str>) -> Result<(), ExportError> {
    let (source, target) = (partial(directory, name), directory.join(name));
    match fs::hard_link(&source, &target) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let ours = match sha256 {
                Some(sha256) => {
                    hex(Sha256::digest(fs::read(&target).map_err(|error| disk(&target, error))?)) == *sha256
                }
                None => true,
            };
            match ours {
                true => Ok(()),
                false => Err(ExportError::Refused(format!("{} is there and is another file", target.display()))),
            }
        }
        // The manifest was put there before.
        Err(error) if error.kind() == io::ErrorKind::NotFound && sha256.is_none() => Ok(()),
        Err(error) => Err(disk(&target, error)),
    }
}

fn sync(directory: &Path) -> Result<(), ExportError> {
    File::open(directory).and_then(|folder| folder.sync_all()).map_err(|error| disk(directory, error))
}

fn remove(path: &Path) -> Result<(), ExportError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(path, error)),
        _ => Ok(()),
    }
}

fn disk(path: &Path, error: io::Error) -> ExportError {
    ExportError::Disk { path: path.display().to_string(), error }
}

fn broke_off(error: tokio::task::JoinError) -> ExportError {
    ExportError::Disk { path: "the writing thread".to_owned(), error: io::Error::other(error) }
}

/// Passes octets on and hashes them.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(octets)?;
        self.hash.update(&octets[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
