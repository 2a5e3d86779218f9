//! Tries again what was put aside: what came is opened, read by the profile as it is now, and the records nothing came of go
//! the way of all records. What was cut off in the middle is read to its end first.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use thiserror::Error;

use super::{RECORDS_AT_ONCE, actor, counted, inbox};
use crate::intake::deeds::Deed;
use crate::intake::deeds::ingest::{Ingest, Input};
use crate::intake::desk::Desk;
use crate::intake::problem::Problem;
use crate::intake::sources::Shelved;
use crate::mediation::Outcome;
use crate::store::ingest::{self, IngestRow, Tally, Way};
use crate::store::{StoreError, ingest::FaultRow};
use crate::vocabulary::{SourceId, TenantId};

/// What became of records that were tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    pub ingest: i64,
    pub profile_digest: String,
    pub tally: Tally,
    pub results: Vec<Value>,
}

/// Why nothing is tried.
#[derive(Debug, Error)]
pub enum ReplayError {
    #[error("what came is no longer kept")]
    Gone,
    #[error("there is no profile {0} any more")]
    NoProfile(String),
    #[error("{}", .0.document()["detail"].as_str().unwrap_or("it was refused"))]
    Refused(Problem),
    #[error("{0}")]
    Store(StoreError),
}

impl Replayed {
    pub fn document(&self) -> Value {
        let Tally { changes, ignored, held, quarantined } = self.tally;
        json!({
            "ingest": self.ingest.to_string(), "profile_digest": self.profile_digest, "changes": changes,
            "ignored": ignored, "held": held, "quarantined": quarantined, "results": self.results,
        })
    }
}

/// Where the octets are.
enum Kept {
    Octets(Vec<u8>),
    File(PathBuf),
}

/// Tries what was put aside of an input again. `forced`: also for accounts that changed after it came.
///
/// **Errors**: as `ReplayError`; what was done before an error stays done, and another replay goes on there.
pub async fn replay(desk: &Desk, row: &IngestRow, forced: bool, by: &str) -> Result<Replayed, ReplayError> {
    let settings = desk.sources.now();
    let profile = settings.shelf.named(&row.profile).ok_or_else(|| ReplayError::NoProfile(row.profile.clone()))?;
    let corrupt = |column| StoreError::Corrupt { table: "ingest", column, id: row.id.to_string() };
    let tenant = TenantId::parse(&row.tenant).map_err(|_| corrupt("tenant"))?;
    let source = SourceId::parse(&row.source).map_err(|_| corrupt("source"))?;
    let kept = match row.way {
        Way::Http | Way::Tcp => {
            let raw = ingest::raw(&mut desk.store.read().await?, desk.store.sealer(), row).await?;
            Kept::Octets(raw.ok_or(ReplayError::Gone)?)
        }
        Way::Inbox => {
            let sealer = desk.store.sealer().clone();
            let folders: Vec<PathBuf> =
                settings.of(&tenant, &source).filter_map(|source| source.inbox.clone()).collect();
            let (name, digest) = (row.name.clone().unwrap_or_default(), row.digest.clone());
            let found = tokio::task::spawn_blocking(move || inbox::kept(&folders, &name, &digest, &sealer)).await;
            Kept::File(found.ok().flatten().ok_or(ReplayError::Gone)?)
        }
    };
    let open = open_records(desk, row).await?;
    let unread = (row.state == "reading").then_some(row.next_record);
    let records = wanted(&profile, kept, open, unread).await?;
    let mut replayed = Replayed {
        ingest: row.id,
        profile_digest: profile.digest.clone(),
        tally: Tally::default(),
        results: Vec::new(),
    };
    let named = format!("{}, replayed by {by}", actor(&source, &profile));
    let is_unread =
        |record: &Outcome| unread.is_some_and(|next| i64::try_from(record.number).is_ok_and(|number| number >= next));
    let (rest, again): (Vec<Outcome>, Vec<Outcome>) = records.into_iter().partition(is_unread);
    let asked = |input, records, ends| Ingest {
        tenant: tenant.clone(),
        source: source.clone(),
        actor: named.clone(),
        profile: Arc::clone(&profile),
        input,
        records,
        ends,
    };
    let mut deeds = Vec::new();
    if unread.is_some() {
        let chunks = chunks(rest);
        let last = chunks.len().saturating_sub(1);
        for (index, records) in chunks.into_iter().enumerate() {
            deeds.push(asked(Input::More { id: row.id }, records, (index == last).then_some("done")));
        }
    }
    for records in chunks(again).into_iter().filter(|records| !records.is_empty()) {
        let input = Input::Again { id: row.id, received_at: row.received_at, forced };
        deeds.push(asked(input, records, None));
    }
    for deed in deeds {
        let done = desk.perform(Deed::Ingest(Box::new(deed))).await.map_err(ReplayError::Refused)?;
        let (tally, results) = counted(&done.body);
        replayed.tally.add(tally);
        replayed.results.extend(results);
    }
    Ok(replayed)
}

/// At least one, so that an input without records ends too.
fn chunks(mut records: Vec<Outcome>) -> Vec<Vec<Outcome>> {
    let mut chunks = Vec::new();
    loop {
        let rest = records.split_off(records.len().min(RECORDS_AT_ONCE));
        chunks.push(std::mem::replace(&mut records, rest));
        if records.is_empty() {
            return chunks;
        }
    }
}

async fn open_records(desk: &Desk, row: &IngestRow) -> Result<BTreeSet<i64>, StoreError> {
    const PAGE: i64 = 1_000;
    let mut open = BTreeSet::new();
    loop {
        let after = open.last().copied().unwrap_or(0);
        let page: Vec<FaultRow> = ingest::faults(&mut desk.store.read().await?, row.id, true, after, PAGE).await?;
        open.extend(page.iter().map(|fault| fault.record));
        if (page.len() as i64) < PAGE {
            return Ok(open);
        }
    }
}

/// The records that are tried again, and those from `unread` on.
async fn wanted(
    profile: &Arc<Shelved>,
    kept: Kept,
    open: BTreeSet<i64>,
    unread: Option<i64>,
) -> Result<Vec<Outcome>, ReplayError> {
    let profile = Arc::clone(profile);
    let reading = tokio::task::spawn_blocking(move || {
        let is_wanted = |outcome: &Outcome| {
            let number = i64::try_from(outcome.number).unwrap_or(i64::MAX);
            open.contains(&number) || unread.is_some_and(|next| number >= next)
        };
        let bare = |mut outcome: Outcome| {
            outcome.raw = Vec::new();
            outcome
        };
        match kept {
            Kept::Octets(octets) => {
                Some(profile.profile.changes(Cursor::new(octets)).filter(is_wanted).map(bare).collect())
            }
            Kept::File(path) => {
                let file = BufReader::new(File::open(path).ok()?);
                Some(profile.profile.changes(file).filter(is_wanted).map(bare).collect())
            }
        }
    });
    reading.await.ok().flatten().ok_or(ReplayError::Gone)
}
