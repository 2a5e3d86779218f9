//! `profile`: source profiles tried on samples, shown to be adapted, and lines written in a source's words; no database.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit, visible};
use crate::account::json;
use crate::mediation::{Change, Completeness, Facts, Outcome, PROFILE_MAX, Profile, Refusal, shipped, shipped_names};

/// The commands of `lastmile profile`.
#[derive(Subcommand)]
pub enum ProfileCommand {
    /// Show what a profile makes of a sample, record by record; exit 3 when a record is put aside.
    Check {
        /// A profile's file, or the name of a shipped one.
        profile: String,
        /// A file as the billing system writes it; - is stdin.
        sample: PathBuf,
        /// Show so many of the records that are sound; those that were put aside are always shown, up to 1000.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Also show the octets of records that were put aside; they may hold secrets.
        #[arg(long)]
        raw: bool,
    },
    /// The shipped profiles.
    List,
    /// Print a shipped profile's file, to be adapted.
    Show { name: String },
    /// Write lines or usage in the source's own words, from JSON lines (`lastmile export lines --format jsonl`).
    Write {
        /// A profile's file, or the name of a shipped one.
        profile: String,
        /// Which [out.NAME] of it.
        out: String,
        /// JSON lines; - is stdin.
        documents: PathBuf,
        /// What templates may name besides, for example batch=b42; the file's name is made of it.
        #[arg(long = "set", value_name = "NAME=TEXT")]
        facts: Vec<String>,
        /// Put the file there under its own name, whole or not at all, never over another; absent: stdout.
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

/// Runs one of them.
pub fn run(command: ProfileCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        ProfileCommand::Check { profile, sample, limit, raw } => check(&profile, &sample, limit, raw, context),
        ProfileCommand::List => list(context),
        ProfileCommand::Show { name } => match shipped(&name) {
            Some(text) => context.print(text).map(|()| Exit::Done),
            None => Ok(context.not_found(&format!("no shipped profile is called {name:?}{}", meant(&name)))),
        },
        ProfileCommand::Write { profile, out, documents, facts, directory } => {
            write(&profile, &out, &documents, &facts, directory.as_deref(), context)
        }
    }
}

/// Refused records that are shown.
const REFUSED_MAX: usize = 1_000;
/// Octets of a refused record that are shown.
const RAW_SHOWN: usize = 4_096;

fn check(profile: &str, sample: &Path, limit: usize, raw: bool, context: &Context) -> Result<Exit, CliError> {
    let Some(profile) = read_profile(profile)? else { return Ok(Exit::Failed) };
    let mut changes = profile.changes(open(sample)?).with_inventory();
    let (mut shown, mut refused) = (0, 0);
    let mut records = Vec::new();
    let spinner = context.spinner("records");
    for outcome in changes.by_ref() {
        spinner.set_position(outcome.number);
        let room = match &outcome.result {
            Ok(_) => {
                shown += 1;
                shown <= limit
            }
            Err(_) => {
                refused += 1;
                refused <= REFUSED_MAX
            }
        };
        match (room, context.json) {
            (false, _) => {}
            (true, true) => records.push(document(&outcome, raw)),
            (true, false) => context.print(&visible(&text(&outcome, raw)?))?,
        }
    }
    spinner.finish_and_clear();
    let summary = changes.summary();
    let inventory = changes.inventory();
    let unmapped: Vec<(&str, u64)> = inventory.iter().flat_map(|inventory| inventory.unmapped()).collect();
    let words: Vec<(&str, &str, u64)> = inventory.iter().flat_map(|inventory| inventory.words()).collect();
    let complete = match &summary.completeness {
        Completeness::Proven => "proven: absence may mean deletion".to_owned(),
        Completeness::Unproven => "unproven: absence means nothing".to_owned(),
        Completeness::Refuted(why) => format!("refuted: {why}; absence means nothing"),
    };
    if context.json {
        context.print_json(&json!({
            "profile": profile.name,
            "records": records,
            "unmapped": unmapped.iter().map(|(place, count)| json!({ "field": place, "records": count })).collect::<Vec<_>>(),
            "unknown_words": words
                .iter()
                .map(|(vocabulary, word, count)| json!({ "vocabulary": vocabulary, "word": word, "records": count }))
                .collect::<Vec<_>>(),
            "summary": {
                "records": summary.records,
                "changes": summary.changes,
                "ignored": summary.ignored,
                "quarantined": summary.quarantined,
                "complete": summary.completeness == Completeness::Proven,
                "completeness": complete,
            },
        }))?;
    } else {
        let mut told = String::new();
        for (place, count) in &unmapped {
            told.push_str(&format!("not mapped: {place} ({count} times)\n"));
        }
        for (vocabulary, word, count) in &words {
            told.push_str(&format!("no meaning: {word:?} in {vocabulary} ({count} times)\n"));
        }
        told.push_str(&format!(
            "{} records: {} changes, {} not for us, {} put aside; completeness {complete}\n",
            summary.records, summary.changes, summary.ignored, summary.quarantined
        ));
        context.print(&told)?;
    }
    Ok(if summary.quarantined > 0 { Exit::No } else { Exit::Done })
}

fn document(outcome: &Outcome, raw: bool) -> Value {
    let mut document = json!({ "record": outcome.number, "line": outcome.line });
    match &outcome.result {
        Ok(Some(change)) => document["change"] = change.shown(true),
        Ok(None) => document["ignored"] = json!(true),
        Err(refusal) => {
            document["errors"] = json!(refusal.faults);
            if raw {
                document["raw"] = json!(octets(&outcome.raw));
            }
        }
    }
    document
}

fn text(outcome: &Outcome, raw: bool) -> Result<String, CliError> {
    let place = format!("record {}, line {}", outcome.number, outcome.line);
    Ok(match &outcome.result {
        Ok(Some(change)) => {
            format!("{place}: {}\n{}\n", whose(change), serde_json::to_string_pretty(&change.shown(true))?)
        }
        Ok(None) => format!("{place}: not for us\n"),
        Err(Refusal { faults, .. }) => {
            let mut told = format!("{place}: PUT ASIDE\n");
            for fault in faults {
                told.push_str(&format!("  {} {}\n", fault.pointer, fault.detail));
            }
            if raw {
                told.push_str(&format!("  {}\n", octets(&outcome.raw)));
            }
            told
        }
    })
}

fn whose(change: &Change) -> String {
    let account = change.account.as_deref().map(|account| format!("account {account}"));
    let alias = change.aliases.first().map(|(kind, text)| format!("whoever has {} {text}", kind.as_str()));
    format!("{} {}", change.operation.as_str(), account.or(alias).unwrap_or_default())
}

/// Octets so that a terminal shows them and does nothing else.
fn octets(raw: &[u8]) -> String {
    let shown = &raw[..raw.len().min(RAW_SHOWN)];
    String::from_utf8_lossy(shown).escape_debug().to_string()
}

fn list(context: &Context) -> Result<Exit, CliError> {
    let profiles: Vec<Profile> = shipped_names().filter_map(Profile::named).collect();
    if context.json {
        let document = |profile: &Profile| {
            let outs: Vec<&String> = profile.outs.keys().collect();
            json!({ "name": profile.name, "about": profile.about, "scope": profile.scope.as_str(), "out": outs })
        };
        context.print_json(&profiles.iter().map(document).collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    }
    let row = |profile: &Profile| {
        let outs: Vec<&str> = profile.outs.keys().map(String::as_str).collect();
        vec![profile.name.clone(), profile.scope.as_str().to_owned(), outs.join(", "), profile.about.clone()]
    };
    let rows: Vec<Vec<String>> = profiles.iter().map(row).collect();
    context.print_table(&["name", "scope", "out", "about"], &rows)?;
    Ok(Exit::Done)
}

fn write(
    profile: &str,
    out: &str,
    documents: &Path,
    facts: &[String],
    directory: Option<&Path>,
    context: &Context,
) -> Result<Exit, CliError> {
    let Some(profile) = read_profile(profile)? else { return Ok(Exit::Failed) };
    let Some(form) = profile.outs.get(out) else {
        let known: Vec<&str> = profile.outs.keys().map(String::as_str).collect();
        return Ok(context.not_found(&format!("{} has no [out.{out}]; it has {}", profile.name, known.join(", "))));
    };
    let known = self::facts(facts)?;
    let mut broken = None;
    let mut number = 0u64;
    let values = open(documents)?.split(b'\n').map_while(|line| {
        number += 1;
        match line.map_err(|error| error.to_string()) {
            Ok(line) if line.iter().all(u8::is_ascii_whitespace) => Some(None),
            Ok(line) => match json::read(&line) {
                Ok(value) => Some(Some(value)),
                Err(faults) => {
                    broken = Some(format!("line {number}: {}", faults[0].detail));
                    None
                }
            },
            Err(error) => {
                broken = Some(format!("line {number}: {error}"));
                None
            }
        }
    });
    let values = values.flatten();
    let written = match directory {
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            let written = form.write(values, &known, &mut out).map_err(|fault| CliError::failed(fault.to_string()))?;
            out.flush()?;
            written
        }
        Some(directory) => {
            let placing = Placing::begin(&profile, out, &known, directory)?;
            let mut file = BufWriter::new(placing.file()?);
            let written = form.write(values, &known, &mut file).map_err(|fault| CliError::failed(fault.to_string()))?;
            file.flush()?;
            if let Some(broken) = broken.take() {
                return Err(CliError::failed(format!("{}: {broken}", documents.display())));
            }
            eprintln!("{}", placing.end()?.display());
            written
        }
    };
    if let Some(broken) = broken {
        return Err(CliError::failed(format!("{}: {broken}", documents.display())));
    }
    eprintln!("{} written, {} in all", written.documents, written.sum);
    Ok(Exit::Done)
}

/// `NAME=TEXT` of a command line.
pub(super) fn facts(given: &[String]) -> Result<Facts, CliError> {
    let fact = |fact: &String| match fact.split_once('=') {
        Some((name, text)) => Ok((name.to_owned(), text.to_owned())),
        None => Err(CliError::usage(format!("--set {fact}: write NAME=TEXT"))),
    };
    given.iter().map(fact).collect()
}

/// A file on its way to its place; one that does not come there leaves nothing behind.
pub(super) struct Placing {
    target: PathBuf,
    partial: PathBuf,
}

impl Placing {
    pub fn begin(profile: &Profile, out: &str, facts: &Facts, directory: &Path) -> Result<Self, CliError> {
        let form = profile.outs.get(out).ok_or_else(|| CliError::failed(format!("there is no [out.{out}]")))?;
        let name = form.file_name(facts).map_err(|fault| CliError::failed(fault.to_string()))?;
        Ok(Self { target: directory.join(&name), partial: directory.join(format!(".{name}.partial")) })
    }

    /// Where to write.
    pub fn file(&self) -> Result<File, CliError> {
        File::create(&self.partial).map_err(|error| self.cannot(&error))
    }

    /// Gives the whole file its name. A link refuses a name that is there: readers that saw it would never read it again.
    pub fn end(&self) -> Result<&Path, CliError> {
        let folder = self.target.parent().unwrap_or(Path::new("."));
        File::open(&self.partial)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::hard_link(&self.partial, &self.target))
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|error| self.cannot(&error))?;
        Ok(&self.target)
    }

    fn cannot(&self, error: &io::Error) -> CliError {
        CliError::failed(format!("cannot write {}: {error}", self.target.display()))
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        // It may not have come that far.
        let _ = std::fs::remove_file(&self.partial);
    }
}

/// A profile by its file or shipped name; `None`: its faults have been told.
pub(super) fn read_profile(name: &str) -> Result<Option<Profile>, CliError> {
    let path = Path::new(name);
    if !path.exists()
        && let Some(profile) = Profile::named(name)
    {
        return Ok(Some(profile));
    }
    let cannot =
        |error| CliError::failed(format!("{name} is no shipped profile{} and cannot be read: {error}", meant(name)));
    if std::fs::metadata(path).map_err(cannot)?.len() > PROFILE_MAX as u64 {
        return Err(CliError::failed(format!("{name} is too long for a profile")));
    }
    match Profile::read(name, &std::fs::read_to_string(path).map_err(cannot)?) {
        Ok(profile) => Ok(Some(profile)),
        Err(faults) => {
            for fault in faults {
                eprintln!("{}: {}", fault.pointer, fault.detail);
            }
            Ok(None)
        }
    }
}

/// The shipped profiles whose names begin as this one does, to be told beside it.
fn meant(name: &str) -> String {
    let product = name.split('-').next().unwrap_or(name);
    let known: Vec<&str> = shipped_names().filter(|known| known.split('-').next() == Some(product)).collect();
    if known.is_empty() { String::new() } else { format!(" (there is {})", known.join(", ")) }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, CliError> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file =
        File::open(path).map_err(|error| CliError::failed(format!("cannot read {}: {error}", path.display())))?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
}
