//! A dispute pack: one line with everything it was made from, in files that anybody can read, and a program that computes
//! it anew without us.
//!
//! In: a line, its tariff, its ledger entries and its records. Out: a folder that must not be there yet or be empty. The
//! files: `index.html` (to read), `line.json`, `before.json`, `tariff.toml`, `ledger.csv`, `records.jsonl`, `records.bin`,
//! `explain.json`, `verify.py`, `manifest.sha256`; and where the line has it: `counted.csv` (whom a count counted),
//! `posted.json` (the row of a posted charge; `posting.json` is the text of its digest when it names no tariff),
//! `allowance.json` (the figures of an allowance that an account's services or periods share), `pool.json` and `pool.csv` (what
//! one with top-ups, or over several accounts, was computed from) and the tariffs of those that share it, `tariff-2.toml` and on.

mod page;
mod pool;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::exit::CliError;
use super::replayed::{self, FromJournal};
use crate::billing::charges::POSTED;
use crate::billing::count::CountList;
use crate::billing::explain::Explanation;
use crate::billing::tariff::Tariff;
use crate::store::charges::{self, PostedRow};
use crate::store::ledger::LedgerEntry;
use crate::store::rating::LineGround;
use crate::vocabulary::{from_micros, hex, to_micros};

/// What goes into a pack.
pub struct Pack<'p> {
    pub ground: &'p LineGround,
    pub explanation: &'p Explanation,
    /// The line's ledger entries with the session each is of: (entry, NAS identity, Acct-Session-Id).
    pub entries: &'p [(LedgerEntry, String, String)],
    pub journal: Option<&'p FromJournal>,
}

/// Writes the pack; gives the names of its files.
///
/// **Errors**: the folder has something in it, or cannot be written.
pub fn write(folder: &Path, pack: &Pack<'_>) -> Result<Vec<String>, CliError> {
    let unwritable = |error: std::io::Error| CliError::failed(format!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(unwritable)?;
    if fs::read_dir(folder)?.next().is_some() {
        return Err(CliError::failed(format!("{} is not empty; name a new folder", folder.display())));
    }
    let (records, packets) = records(pack);
    let ground = pack.ground;
    let names = pool::Pseudonyms::of(ground);
    let explanation = &names.explanation(pack.explanation);
    let pack = &Pack { explanation, ..*pack };
    let mut tariffs = Tariffs { files: vec![(price_file(pack).to_owned(), ground.tariff.clone())] };
    let shared = pool::told(ground).map(|told| (pool::document(told, &mut tariffs), pool::entries(told)));
    let mut files: Vec<(&str, Vec<u8>)> = vec![
        ("index.html", page::page(pack).into_bytes()),
        ("line.json", pretty(&json!(names.line(&ground.stored)))?),
        ("before.json", pretty(&json!(ground.before.as_ref().map(|line| names.line(line))))?),
        ("ledger.csv", ledger(pack)?.into_bytes()),
        ("records.jsonl", records.into_bytes()),
        ("records.bin", packets),
        ("explain.json", pretty(&explained(pack))?),
        ("verify.py", VERIFY.as_bytes().to_vec()),
    ];
    if let Some(list) = &ground.counted {
        files.push(("counted.csv", counted(list)?.into_bytes()));
    }
    if let Some(row) = &ground.posted {
        files.push(("posted.json", pretty(&posted(row))?));
    }
    match (shared, &ground.shared) {
        (Some((document, entries)), _) => {
            files.push(("pool.json", pretty(&document)?));
            files.push(("pool.csv", entries?.into_bytes()));
        }
        (None, Some(figures)) => files.push(("allowance.json", pretty(&json!(figures))?)),
        (None, None) => {}
    }
    files.extend(tariffs.files.iter().map(|(name, tariff)| (name.as_str(), tariff.document.clone().into_bytes())));
    let mut manifest = String::new();
    for (name, octets) in &files {
        writeln!(manifest, "{}  {name}", hex(Sha256::digest(octets))).expect("a text takes any text");
    }
    files.push((MANIFEST, manifest.into_bytes()));
    let written: std::io::Result<()> = files.iter().try_for_each(|(name, octets)| fs::write(folder.join(name), octets));
    if let Err(error) = written {
        // A part of a pack proves nothing, and would keep the whole one from being written here.
        files.iter().for_each(|(name, _)| drop(fs::remove_file(folder.join(name))));
        return Err(unwritable(error));
    }
    Ok(files.iter().map(|(name, _)| (*name).to_owned()).collect())
}

/// The tariffs of a pack with their files; the line's own is the first.
struct Tariffs {
    files: Vec<(String, Tariff)>,
}

impl Tariffs {
    fn file(&mut self, tariff: &Tariff) -> String {
        let same = |known: &&(String, Tariff)| known.1.document == tariff.document;
        if let Some((name, _)) = self.files.iter().find(same) {
            return name.clone();
        }
        let name = format!("tariff-{}.toml", self.files.len() + 1);
        self.files.push((name.clone(), tariff.clone()));
        name
    }
}

fn explained(pack: &Pack<'_>) -> Value {
    let mut document = json!(pack.explanation);
    document["journal"] = json!(pack.journal.map(replayed::document));
    document
}

/// The file whose digest the line names.
fn price_file(pack: &Pack<'_>) -> &'static str {
    if pack.ground.tariff.id == POSTED { "posting.json" } else { "tariff.toml" }
}

/// The row of a posted charge.
fn posted(row: &PostedRow) -> Value {
    json!({
        "id": charges::public_id(row.id),
        "charge": row.posting,
        "cycle": row.cycle,
        "on": row.on,
        "currency": row.currency,
        "posted_by": row.posted_by,
        "created_at": row.created_at,
    })
}

/// Whom a count counted, as the list was kept.
fn counted(list: &CountList) -> Result<String, CliError> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(["subject", "days"])?;
    for (subject, days) in &list.members {
        out.write_record([subject.as_str(), &days.to_string()])?;
    }
    text_of(out)
}

/// The entries as they were counted; instants twice, for people and for programs.
fn ledger(pack: &Pack<'_>) -> Result<String, CliError> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(LEDGER)?;
    for (entry, nas, session) in pack.entries {
        let at = |micros| from_micros(micros).map(|at| at.to_string()).unwrap_or_default();
        out.write_record([
            entry.sequence.to_string(),
            at(entry.from_at),
            at(entry.until_at),
            entry.in_octets.to_string(),
            entry.out_octets.to_string(),
            entry.seconds.to_string(),
            entry.sessions.to_string(),
            nas.clone(),
            session.clone(),
            entry.class.clone().unwrap_or_default(),
            entry.called.clone().unwrap_or_default(),
            entry.cause.clone(),
            at(entry.recorded_at),
            entry.session_id.to_string(),
            entry.from_at.to_string(),
            entry.until_at.to_string(),
        ])?;
    }
    text_of(out)
}

fn text_of(out: csv::Writer<Vec<u8>>) -> Result<String, CliError> {
    let octets = out.into_inner().map_err(|error| CliError::failed(error.to_string()))?;
    String::from_utf8(octets).map_err(|error| CliError::failed(error.to_string()))
}

/// The records as lines of JSON, and their octets one after the other.
fn records(pack: &Pack<'_>) -> (String, Vec<u8>) {
    let (mut lines, mut packets) = (String::new(), Vec::new());
    for known in pack.journal.iter().flat_map(|journal| &journal.replay.records) {
        let mut document = replayed::record(known);
        document["offset"] = json!(packets.len());
        document["octets"] = json!(known.row.entry.packet.len());
        document["event_us"] = json!(to_micros(known.read.event_at));
        lines.push_str(&document.to_string());
        lines.push('\n');
        packets.extend_from_slice(&known.row.entry.packet);
    }
    (lines, packets)
}

fn pretty(value: &Value) -> Result<Vec<u8>, CliError> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text.into_bytes())
}

const LEDGER: [&str; 16] = [
    "sequence",
    "from",
    "until",
    "in_octets",
    "out_octets",
    "seconds",
    "sessions",
    "nas",
    "session",
    "class",
    "called",
    "cause",
    "recorded_at",
    "session_id",
    "from_us",
    "until_us",
];
const VERIFY: &str = include_str!("verify.py");
const MANIFEST: &str = "manifest.sha256";
