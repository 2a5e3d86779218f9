//! Accounting that was recorded elsewhere comes in: each record becomes an entry of the journal, and the same fold makes
//! sessions and usage of it.
//!
//! In: candidates, packets put together from a file or a table. Out: journal entries on a lane of this command's own, and
//! a summary. Nothing that is known is appended again: known is what was imported before, and what the folded sessions
//! hold already. What only the journal can compare is appended, and the fold finds it to be a copy. So an import that was
//! interrupted is simply repeated. A running daemon folds what comes; without one it waits for the next start.
//!
//! An entry's `arrived_at` is the moment the other server received it, never the moment of the import: whether an event's
//! time can be true is judged as it was then, and a fold from the beginning decides the same.

mod cdr;
mod detail;
mod lines;
mod place;
mod radacct;
mod samis;
mod summary;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::NasTable;
use super::fold::rules;
use crate::store::imports::{self, EventKey};
use crate::store::journal::{AppendError, JournalEntry, JournalWriter};
use crate::store::sessions::{self, StoredSession};
use crate::store::{Store, StoreError, fold};
use crate::usage::{Choice, Record, RecordKind, choose};
use crate::vocabulary::{Clock, to_micros};

pub use cdr::{CallSummary, attribute as attribute_calls, import as import_calls};
pub use detail::{DetailReader, import as import_detail};
pub use lines::Lines;
pub use place::NasChoice;
pub use radacct::{RadacctReader, import_csv as import_radacct_csv, import_table as import_radacct_table, is_database};
pub use samis::{FlowChoice, import as import_samis};
pub use summary::{Counts, Refusal, Summary};

/// One record that wants to come in.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Where it stands, for messages: a line or a row.
    pub line: u64,
    pub entry: JournalEntry,
    /// The counters are a session's totals so far, not one report: a session that counted as much knows it.
    pub total: bool,
    /// Its end was not told by its NAS: it says nothing new about a session whose counters are known.
    pub assumed_end: bool,
}

/// Why an import stopped. What it had appended stays; repeat it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{0}")]
    Store(#[from] StoreError),
    /// It cannot be known whether the last records are in the journal.
    #[error("{0}. Import it again: what is there already is not counted twice")]
    Append(#[from] AppendError),
    #[error("cannot read {file}: {error}")]
    Read { file: String, error: std::io::Error },
}

/// What becomes of what was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folding {
    /// Nothing was appended.
    Nothing,
    /// Everything appended is folded.
    Done,
    /// A daemon is folding it.
    Going,
    /// No daemon folds: it waits in the journal for the next start.
    Waiting,
}

/// Takes candidates in, a batch at a time.
pub struct Importer<'a> {
    store: &'a Store,
    nas: &'a NasTable,
    clock: Clock,
    dry_run: bool,
    writer: Option<JournalWriter>,
    last_seq: i64,
    waiting: Vec<Waiting>,
    /// Events that a dry run would have appended; bounded, beyond it repetitions in one file are counted as new.
    would_append: HashSet<EventKey>,
    summary: Summary,
}

struct Waiting {
    candidate: Candidate,
    record: Record,
    key: EventKey,
}

/// How a candidate stands to what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Known,
    New,
    /// Older than the session remembers: the fold will compare it with the journal.
    Older,
}

impl<'a> Importer<'a> {
    pub fn new(store: &'a Store, nas: &'a NasTable, clock: Clock, dry_run: bool) -> Self {
        Self {
            store,
            nas,
            clock,
            dry_run,
            writer: None,
            last_seq: 0,
            waiting: Vec::with_capacity(BATCH),
            would_append: HashSet::new(),
            summary: Summary::default(),
        }
    }

    /// Begins a file, a table or a dump; what follows is counted under its name.
    pub fn begin(&mut self, name: &str) {
        self.summary.begin(name);
    }

    /// Notes something that cannot come in, and why.
    pub fn refuse(&mut self, line: u64, reason: impl Into<String>) {
        self.summary.refuse(line, reason.into());
    }

    /// Notes something that is not wanted.
    pub fn skip(&mut self, reason: &str) {
        self.summary.skip(reason);
    }

    /// Notes an attribute that could not be taken along.
    pub fn leave_out(&mut self, name: &str) {
        self.summary.leave_out(name);
    }

    /// Takes one candidate in. It is durable after the next `settle`.
    ///
    /// **Errors**: the database; the candidate itself is refused in the summary.
    pub async fn add(&mut self, candidate: Candidate) -> Result<(), ImportError> {
        self.summary.read(1);
        if candidate.entry.arrived_at > self.clock.now() + AHEAD_MAX {
            let reason = format!("it is dated {}, in the future", candidate.entry.arrived_at);
            self.summary.refuse(candidate.line, reason);
            return Ok(());
        }
        match rules::read_entry(self.nas, &candidate.entry) {
            Ok(record) => {
                let key = event_key(&record);
                self.waiting.push(Waiting { candidate, record, key });
            }
            Err(reason) => self.summary.refuse(candidate.line, reason),
        }
        if self.waiting.len() >= BATCH { self.settle().await } else { Ok(()) }
    }

    /// Appends what waits and is new.
    pub async fn settle(&mut self) -> Result<(), ImportError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.waiting);
        let standings = self.compare(&batch).await?;
        let mut entries = Vec::with_capacity(batch.len());
        let mut keys = Vec::with_capacity(batch.len());
        for (waiting, standing) in batch.into_iter().zip(standings) {
            keys.push(waiting.key);
            match standing {
                Standing::Known => self.summary.known(),
                Standing::New | Standing::Older => {
                    self.summary.new_record(standing == Standing::Older);
                    entries.push(waiting.candidate.entry);
                }
            }
        }
        if self.dry_run {
            if self.would_append.len() < DRY_RUN_MAX {
                self.would_append.extend(keys);
            }
            return Ok(());
        }
        self.append(&entries).await?;
        // After the journal: a crash in between appends some records twice, which the fold sees to be copies.
        let mut tx = self.store.write().await?;
        imports::remember(&mut tx, &keys).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Appends what is left, and gives what came of everything.
    pub async fn finish(mut self) -> Result<(Summary, Folding), ImportError> {
        self.settle().await?;
        let folding = match &self.writer {
            None => Folding::Nothing,
            Some(writer) => self.watch(writer.lane()).await?,
        };
        Ok((self.summary, folding))
    }

    async fn compare(&self, batch: &[Waiting]) -> Result<Vec<Standing>, StoreError> {
        let keys: Vec<EventKey> = batch.iter().map(|waiting| waiting.key).collect();
        let wanted: HashSet<(&str, &str)> = batch
            .iter()
            .filter(|waiting| waiting.record.kind.is_session())
            .map(|waiting| (waiting.record.nas.as_str(), waiting.record.session.as_str()))
            .collect();
        let identities: HashSet<&str> = batch
            .iter()
            .filter(|waiting| waiting.record.kind.is_reboot())
            .map(|waiting| waiting.record.nas.as_str())
            .collect();
        let mut tx = self.store.read().await?;
        let mut seen = imports::known(&mut tx, &keys).await?;
        let stored = sessions::of_keys(&mut tx, &wanted.into_iter().collect::<Vec<_>>()).await?;
        let identities = fold::identities(&mut tx, &identities.into_iter().collect::<Vec<_>>()).await?;
        tx.rollback().await?;
        let mut sessions: HashMap<(&str, &str), Vec<&StoredSession>> = HashMap::new();
        for session in &stored {
            sessions.entry((&session.nas, &session.session)).or_default().push(session);
        }
        let rebooted: BTreeMap<&str, i64> =
            identities.iter().filter_map(|identity| Some((identity.nas.as_str(), identity.rebooted_at?))).collect();
        let mut standings = Vec::with_capacity(batch.len());
        for waiting in batch {
            // The second of two in one batch is known by the first.
            let again = !seen.insert(waiting.key) || self.would_append.contains(&waiting.key);
            standings.push(match again {
                true => Standing::Known,
                false => standing(waiting, &sessions, &rebooted),
            });
        }
        Ok(standings)
    }

    async fn append(&mut self, entries: &[JournalEntry]) -> Result<(), ImportError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.store.open_journal(self.clock.now()).await?,
        };
        let began = Instant::now();
        self.last_seq = writer.append(entries).await?;
        self.writer = Some(writer);
        // A daemon commits to the same journal, and its NAS wait for it: it gets at least every second turn.
        tokio::time::sleep(began.elapsed().clamp(PAUSE_MIN, PAUSE_MAX)).await;
        Ok(())
    }

    /// Waits a little for a daemon to fold this lane.
    async fn watch(&self, lane: i64) -> Result<Folding, StoreError> {
        let began = Instant::now();
        loop {
            let mut tx = self.store.read().await?;
            let folded = fold::watermark(&mut tx, lane).await?;
            tx.rollback().await?;
            match folded {
                folded if folded >= self.last_seq => return Ok(Folding::Done),
                0 if began.elapsed() >= WATCH => return Ok(Folding::Waiting),
                _ if began.elapsed() >= WATCH => return Ok(Folding::Going),
                _ => tokio::time::sleep(WATCH_EVERY).await,
            }
        }
    }
}

fn standing(
    waiting: &Waiting,
    sessions: &HashMap<(&str, &str), Vec<&StoredSession>>,
    rebooted: &BTreeMap<&str, i64>,
) -> Standing {
    let record = &waiting.record;
    if record.kind.is_reboot() {
        let known = rebooted.get(record.nas.as_str()).is_some_and(|at| *at >= to_micros(record.event_at));
        return if known { Standing::Known } else { Standing::New };
    }
    let Some(known) = sessions.get(&(record.nas.as_str(), record.session.as_str())) else { return Standing::New };
    let Choice::Known(index) = choose(known.iter().map(|session| &session.state), record) else {
        return Standing::New;
    };
    let state = &known[index].state;
    match state.knows(record) {
        Some(true) => Standing::Known,
        _ if waiting.candidate.total && counted(waiting, known[index]) => Standing::Known,
        Some(false) => Standing::New,
        None => Standing::Older,
    }
}

/// Whether a session holds these totals already. An end that is new is news, unless nobody told it.
fn counted(waiting: &Waiting, session: &StoredSession) -> bool {
    let record = &waiting.record;
    let Some((known_in, known_out)) = session.state.counters() else { return false };
    let covers = |told: Option<u64>, known: i64| told.is_none_or(|told| i64::try_from(told).is_ok_and(|t| t <= known));
    let covered = covers(record.in_octets, known_in) && covers(record.out_octets, known_out);
    let ends = record.kind == RecordKind::Stop && !waiting.candidate.assumed_end;
    covered && (!ends || session.state.ended_at().is_some())
}

/// The event of a record: what a retransmission has in common with the first one, whatever its delay or identifier.
fn event_key(record: &Record) -> EventKey {
    let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    let facts = [
        record.nas.clone(),
        record.session.clone(),
        record.kind.to_string(),
        number(record.session_seconds),
        number(record.in_octets),
        number(record.out_octets),
    ];
    let mut hash = Sha256::new();
    for fact in facts {
        hash.update((fact.len() as u64).to_be_bytes());
        hash.update(fact);
    }
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    (to_micros(record.event_at), i64::from_be_bytes(first))
}

/// Records of one commit to the journal.
const BATCH: usize = 512;
const DRY_RUN_MAX: usize = 1_000_000;
/// As far as a clock may be ahead of ours.
const AHEAD_MAX: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// A daemon looks at other lanes about once a second.
const WATCH: Duration = Duration::from_secs(4);
const WATCH_EVERY: Duration = Duration::from_millis(100);
