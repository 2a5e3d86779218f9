//! A dispute pack: one line with everything it was made from, in files that anybody can read, and a program that computes
//! it anew without us.
//!
//! In: a line, its tariff, its ledger entries and its records. Out: a folder that must not be there yet or be empty. The
//! files: `index.html` (to read), `line.json`, `before.json`, `tariff.toml`, `ledger.csv`, `records.jsonl`, `records.bin`,
//! `explain.json`, `verify.py`, `manifest.sha256`.

mod page;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::exit::CliError;
use super::replayed::{self, FromJournal};
use crate::billing::explain::Explanation;
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
pub fn write(folder: &Path, pack: &Pack<'_>) -> Result<Vec<&'static str>, CliError> {
    fs::create_dir_all(folder)?;
    if fs::read_dir(folder)?.next().is_some() {
        return Err(CliError::failed(format!("{} is not empty; name a new folder", folder.display())));
    }
    let (records, packets) = records(pack);
    let files: [(&str, Vec<u8>); 9] = [
        ("index.html", page::page(pack).into_bytes()),
        ("line.json", pretty(&json!(pack.ground.stored))?),
        ("before.json", pretty(&json!(pack.ground.before))?),
        ("tariff.toml", pack.ground.tariff.document.clone().into_bytes()),
        ("ledger.csv", ledger(pack)?.into_bytes()),
        ("records.jsonl", records.into_bytes()),
        ("records.bin", packets),
        ("explain.json", pretty(&explained(pack))?),
        ("verify.py", VERIFY.as_bytes().to_vec()),
    ];
    let mut manifest = String::new();
    for (name, octets) in &files {
        fs::write(folder.join(name), octets)?;
        writeln!(manifest, "{}  {name}", hex(Sha256::digest(octets))).expect("a text takes any text");
    }
    fs::write(folder.join(MANIFEST), manifest)?;
    Ok(files.iter().map(|(name, _)| *name).chain([MANIFEST]).collect())
}

fn explained(pack: &Pack<'_>) -> Value {
    let mut document = json!(pack.explanation);
    document["journal"] = json!(pack.journal.map(replayed::document));
    document
}

/// The entries as they were counted; instants twice, for people and for programs.
fn ledger(pack: &Pack<'_>) -> Result<String, CliError> {
    let mut csv = String::from(
        "sequence,from,until,in_octets,out_octets,seconds,sessions,nas,session,cause,recorded_at,from_us,until_us\n",
    );
    for (entry, nas, session) in pack.entries {
        let at = |micros| from_micros(micros).map(|at| at.to_string()).unwrap_or_default();
        let mut out = csv::Writer::from_writer(Vec::new());
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
            entry.cause.clone(),
            at(entry.recorded_at),
            entry.from_at.to_string(),
            entry.until_at.to_string(),
        ])?;
        let row = out.into_inner().map_err(|error| CliError::failed(error.to_string()))?;
        csv.push_str(&String::from_utf8_lossy(&row));
    }
    Ok(csv)
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

const VERIFY: &str = include_str!("verify.py");
const MANIFEST: &str = "manifest.sha256";
