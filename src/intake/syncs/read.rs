//! Reads a list: once for how often each account is told and whether it is whole, once more for the accounts themselves,
//! parsed beside the database's work. Runs on threads that may wait.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Form, Input};
use crate::account::{Known, Pushed, json, parse};
use crate::mediation::{Body, Change, Completeness, Operation, Outcome, Profile, Refusal, Scope};
use crate::reconcile::{Document, Documents, named};
use crate::store::{Store, syncs};
use crate::vocabulary::{AccountKey, Fault, SourceId, TenantId, hex};

/// What a first reading tells.
#[derive(Debug)]
pub(super) struct Survey {
    pub records: u64,
    /// SHA-256 over the records' digests in their own order. Hex.
    pub digest: String,
    pub completeness: Completeness,
    /// Hashes of the ids that are told more than once.
    repeated: HashSet<u64>,
}

/// An account as the list tells it.
#[derive(Debug)]
pub(super) struct Record {
    /// From 1.
    pub number: u64,
    /// `None`: it does not say whose it is.
    pub id: Option<String>,
    pub row: Result<Pushed, String>,
}

/// Whose list it is, and what its accounts are checked against.
#[derive(Clone)]
pub(super) struct Reading {
    pub tenant: TenantId,
    pub source: SourceId,
    pub known: Arc<Known>,
}

/// Records that are handed over at once.
const BATCH: usize = 256;
/// Batches that wait to be compared.
const QUEUE: usize = 4;
/// Threads that parse account documents; the database has the rest of the machine.
const PARSERS: usize = 2;
const CHUNK: usize = 1 << 18;

impl Survey {
    pub fn repeats(&self, id: &str) -> bool {
        self.repeated.contains(&hash(id))
    }
}

/// Reads the list for the first time. **Errors**: what cannot be read at all.
pub(super) async fn survey(input: &Input, form: &Arc<Form>, store: &Store) -> Result<Survey, String> {
    let (input, form, store) = (input.clone(), form.clone(), store.clone());
    let handle = Handle::current();
    let surveyed = tokio::task::spawn_blocking(move || {
        let mut seen = Seen::default();
        let octets = open(&input, &store, &handle).map_err(|error| error.to_string())?;
        let completeness = match &*form {
            Form::Documents => {
                let mut documents = Documents::new(octets);
                while let Some(document) = documents.next_document() {
                    seen.add(named(&document.octets).as_deref(), &document.octets);
                }
                documents.completeness()
            }
            Form::Profile(profile) => {
                whole_accounts(profile)?;
                let mut changes = profile.changes(octets);
                for outcome in changes.by_ref() {
                    let id = outcome.result.as_ref().ok().and_then(Option::as_ref).and_then(|c| c.account.as_deref());
                    seen.add(id, &outcome.raw);
                }
                let summary = changes.summary();
                if let Some(broken) = summary.broken {
                    return Err(broken);
                }
                summary.completeness
            }
        };
        Ok(seen.survey(completeness))
    });
    surveyed.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Reads the accounts; they come in batches and in no certain order.
pub(super) fn accounts(
    input: &Input,
    form: &Arc<Form>,
    store: &Store,
    reading: &Reading,
) -> mpsc::Receiver<Result<Vec<Record>, String>> {
    let (batches, taken) = mpsc::channel(QUEUE);
    let (input, form, store, reading) = (input.clone(), form.clone(), store.clone(), reading.clone());
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || {
        let octets = match open(&input, &store, &handle) {
            Ok(octets) => octets,
            Err(error) => {
                let _ = batches.blocking_send(Err(error.to_string()));
                return;
            }
        };
        match &*form {
            Form::Documents => parse_documents(octets, &reading, &batches),
            Form::Profile(profile) => parse_changes(profile, octets, &reading, &batches),
        }
    });
    taken
}

fn parse_documents(
    octets: Box<dyn BufRead + Send>,
    reading: &Reading,
    batches: &mpsc::Sender<Result<Vec<Record>, String>>,
) {
    let documents = Mutex::new((Documents::new(octets), 0u64));
    std::thread::scope(|scope| {
        for _ in 0..PARSERS {
            scope.spawn(|| {
                loop {
                    let lines = next_lines(&documents);
                    if lines.is_empty() {
                        return;
                    }
                    let records = lines.into_iter().map(|(number, document)| record(number, document, reading));
                    // Whoever compared them has given up.
                    if batches.blocking_send(Ok(records.collect())).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn next_lines(documents: &Mutex<(Documents<Box<dyn BufRead + Send>>, u64)>) -> Vec<(u64, Document)> {
    let mut held = documents.lock().unwrap_or_else(PoisonError::into_inner);
    let (documents, number) = &mut *held;
    let mut lines = Vec::with_capacity(BATCH);
    while lines.len() < BATCH
        && let Some(document) = documents.next_document()
    {
        *number += 1;
        lines.push((*number, document));
    }
    lines
}

fn record(number: u64, document: Document, reading: &Reading) -> Record {
    if let Some(refused) = document.refused {
        return Record { number, id: None, row: Err(refused) };
    }
    let value = match json::read(&document.octets) {
        Ok(value) => value,
        Err(faults) => return whose(number, named(&document.octets), Err(told(&faults))),
    };
    let id = value.get("id").and_then(serde_json::Value::as_str).map(str::to_owned);
    let row = match &id {
        None => Err("/id names the account and is missing".to_owned()),
        Some(id) => parsed(&value, id, reading),
    };
    whose(number, id, row)
}

/// What cannot be an id names nobody.
fn whose(number: u64, id: Option<String>, row: Result<Pushed, String>) -> Record {
    let id = id.map(|id| AccountKey::parse_external_id(&id).map_err(|error| format!("/id {error}"))).transpose();
    match id {
        Ok(id) => Record { number, id, row },
        Err(reason) => Record { number, id: None, row: Err(reason) },
    }
}

fn parse_changes(
    profile: &Profile,
    octets: Box<dyn BufRead + Send>,
    reading: &Reading,
    batches: &mpsc::Sender<Result<Vec<Record>, String>>,
) {
    let mut records = Vec::with_capacity(BATCH);
    for outcome in profile.changes(octets) {
        records.extend(changed(outcome, reading));
        if records.len() >= BATCH && batches.blocking_send(Ok(std::mem::take(&mut records))).is_err() {
            return;
        }
    }
    let _ = batches.blocking_send(Ok(records));
}

/// `None`: it is not for us, or says that the account is gone.
fn changed(outcome: Outcome, reading: &Reading) -> Option<Record> {
    let number = outcome.number;
    let (id, row) = match outcome.result {
        Ok(None) => return None,
        Ok(Some(Change { operation: Operation::Delete, .. })) => return None,
        Ok(Some(Change { account: Some(id), body: Body::Document(document), .. })) => {
            let row = parsed(&document, &id, reading);
            (Some(id), row)
        }
        Ok(Some(change)) => (change.account, Err("tells a part of an account; a list has whole ones".to_owned())),
        Err(Refusal { faults, .. }) => (None, Err(told(&faults))),
    };
    Some(whose(number, id, row))
}

fn parsed(document: &serde_json::Value, id: &str, reading: &Reading) -> Result<Pushed, String> {
    let external_id = AccountKey::parse_external_id(id).map_err(|error| format!("/id {error}"))?;
    let key = AccountKey { tenant: reading.tenant.clone(), source: reading.source.clone(), external_id };
    parse(document, &key, &reading.known).map_err(|faults| told(&faults))
}

fn told(faults: &[Fault]) -> String {
    let shown: Vec<String> =
        faults.iter().take(FAULTS_SHOWN).map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
    shown.join("; ").trim().to_owned()
}

fn whole_accounts(profile: &Profile) -> Result<(), String> {
    match profile.scope {
        Scope::Full => Ok(()),
        _ => Err(format!("the profile {} tells parts of accounts; only whole ones can be reconciled", profile.name)),
    }
}

/// What was seen of ids and records.
#[derive(Default)]
struct Seen {
    ids: Vec<u64>,
    records: Vec<[u8; 32]>,
}

impl Seen {
    fn add(&mut self, id: Option<&str>, record: &[u8]) {
        self.records.push(Sha256::digest(record).into());
        self.ids.extend(id.map(hash));
    }

    fn survey(mut self, completeness: Completeness) -> Survey {
        self.ids.sort_unstable();
        self.records.sort_unstable();
        let repeated = self.ids.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        let mut digest = Sha256::new();
        self.records.iter().for_each(|record| digest.update(record));
        Survey { records: self.records.len() as u64, digest: hex(digest.finalize()), completeness, repeated }
    }
}

/// The same in every reading. Two ids that share it are told apart later, by themselves.
fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

fn open(input: &Input, store: &Store, handle: &Handle) -> io::Result<Box<dyn BufRead + Send>> {
    match input {
        Input::File(path) => Ok(Box::new(BufReader::with_capacity(CHUNK, File::open(path)?))),
        Input::Sent(id) => Ok(Box::new(BufReader::with_capacity(
            CHUNK,
            Sent { id: id.clone(), next: 0, held: Vec::new(), store: store.clone(), handle: handle.clone() },
        ))),
    }
}

/// What was sent, piece by piece out of the store.
struct Sent {
    id: String,
    next: i64,
    /// Of a piece, what is not read yet, from its end.
    held: Vec<u8>,
    store: Store,
    handle: Handle,
}

impl Read for Sent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.held.is_empty() {
            let piece = self.handle.block_on(piece(&self.store, &self.id, self.next)).map_err(io::Error::other)?;
            let Some(mut piece) = piece else { return Ok(0) };
            piece.reverse();
            self.held = piece;
            self.next += 1;
        }
        let length = buffer.len().min(self.held.len());
        let rest = self.held.len() - length;
        for (place, octet) in buffer.iter_mut().zip(self.held.drain(rest..).rev()) {
            *place = octet;
        }
        Ok(length)
    }
}

async fn piece(store: &Store, id: &str, number: i64) -> Result<Option<Vec<u8>>, crate::store::StoreError> {
    let sealed = syncs::part(&mut store.read().await?, id, number).await?;
    sealed.map(|sealed| store.sealer().open_bytes(&place(id, number), &sealed)).transpose()
}

/// What a piece is sealed with.
pub(super) fn place(id: &str, number: i64) -> String {
    format!("sync_part\u{0}{id}\u{0}{number}")
}

const FAULTS_SHOWN: usize = 5;
