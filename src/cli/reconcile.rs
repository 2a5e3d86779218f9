//! `reconcile`: another company's list of subscribers beside ours, and the plan that makes ours like theirs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::context::Context;
use super::exit::{CliError, Exit};
use super::profile::read_profile;
use crate::intake::syncs::{Applied, Form, GRACE_SECONDS, Input, Order, Reconciler, SyncError};
use crate::mediation::shown_cell;
use crate::reconcile::{Finding, Report, Steps};
use crate::store::syncs::{self, NewSync};
use crate::store::{Store, StoreError};
use crate::vocabulary::{SourceId, TenantId, Timestamp, hex, parse_instant, to_micros};

/// Compares a billing system's list of all its accounts with what is stored; exit 3 when they differ.
#[derive(Args)]
pub struct ReconcileCommand {
    #[arg(long)]
    tenant: TenantId,
    #[arg(long, default_value_t)]
    source: SourceId,
    /// The list: account documents, one a line, or what the profile reads. It is read more than once.
    snapshot: PathBuf,
    /// A profile's file, or the name of a shipped one.
    #[arg(long)]
    profile: Option<String>,
    /// The instant the list tells of; absent: now.
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
    /// Say that everybody is in the list. A last line {"trailer": {"records": N}}, a profile's own count or a manifest
    /// proves it.
    #[arg(long)]
    complete: bool,
    /// A JSON file beside it, {"sha256": "…", "records": N}: the list must be that one, and is whole.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// What changed here less than so many seconds before the list's instant is in flight.
    #[arg(long, default_value_t = GRACE_SECONDS, value_name = "SECONDS")]
    grace: i64,
    /// Apply the plan, if it is still the one with this hash.
    #[arg(long, value_name = "HASH")]
    apply: Option<String>,
    /// Accounts and services that may be taken away a day; absent: 25, or 2 % of the living accounts if that is more.
    #[arg(long, value_name = "N")]
    allow_deletions: Option<u64>,
    /// Plan only these steps: create, update, close, with commas between.
    #[arg(long, value_name = "STEPS")]
    only: Option<Steps>,
    /// List what is the same on both sides too.
    #[arg(long)]
    all: bool,
    /// How the report is written; `--json` means json.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
    Csv,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    sha256: String,
    #[serde(default)]
    records: Option<u64>,
}

const PAGE: i64 = 1000;
const CHUNK: usize = 1 << 20;

/// Runs it.
pub async fn run(command: ReconcileCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let form = Arc::new(match &command.profile {
        None => Form::Documents,
        Some(name) => match read_profile(name)? {
            Some(profile) => Form::Profile(Box::new(profile)),
            None => return Ok(Exit::Failed),
        },
    });
    if command.snapshot == Path::new("-") {
        return Err(CliError::usage("the list is read more than once: name a file"));
    }
    let now = context.clock().now();
    let as_of = match command.as_of.as_deref() {
        None => now,
        Some(text) => parse_instant(text)
            .ok_or_else(|| CliError::usage(format!("--as-of {text}: write for example 2026-11-01T00:00:00Z")))?,
    };
    let manifest = command.manifest.as_deref().map(|path| manifest(path, &command.snapshot)).transpose()?;
    let said = match (&manifest, command.complete) {
        (Some(_), _) => Some("a manifest".to_owned()),
        (None, true) => Some("the sender's word".to_owned()),
        (None, false) => None,
    };
    let actor = format!("command line ({})", std::env::var("USER").unwrap_or_else(|_| "unknown user".to_owned()));
    let order = Order {
        sync: new_id(&command, now, store.owner()),
        tenant: command.tenant.clone(),
        source: command.source.clone(),
        as_of,
        grace_seconds: command.grace.max(0),
        said_complete: said,
        told_records: manifest.and_then(|manifest| manifest.records),
        allow_deletions: command.allow_deletions,
        only: command.only.clone(),
        with_matched: command.all,
        actor,
    };
    begin(&store, &order, command.profile.as_deref(), now).await?;
    let bar = Arc::new(context.progress(0, "comparing"));
    let shown = bar.clone();
    let progress = move |doing: &'static str, done: u64, total: u64| tell(&shown, doing, done, total);
    let desk = Reconciler::alone(store.clone(), context.clock());
    let input = Input::File(command.snapshot.clone());
    let outcome = match &command.apply {
        None => desk.reconcile(&order, &input, &form, &progress).await.map(|found| (found, None)),
        Some(hash) => {
            let applied = desk.apply(&order, &input, &form, hash, &progress).await;
            applied.map(|(found, applied)| (found, Some(applied)))
        }
    };
    bar.finish_and_clear();
    let (found, applied) = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return stopped(&store, &order, error).await,
    };
    let default = if context.json { Format::Json } else { Format::Text };
    print(&store, &order, &found.report, applied.as_ref(), command.format.unwrap_or(default)).await?;
    store.close().await;
    match applied {
        Some(applied) => Ok(if applied.refused == 0 { Exit::Done } else { Exit::No }),
        None => Ok(if found.report.differs() { Exit::No } else { Exit::Done }),
    }
}

pub(super) fn tell(bar: &ProgressBar, doing: &'static str, done: u64, total: u64) {
    if bar.message() != doing {
        bar.set_message(doing);
    }
    bar.set_length(total);
    bar.set_position(done);
}

fn new_id(command: &ReconcileCommand, now: Timestamp, owner: &str) -> String {
    let name = format!("{}\u{0}{}\u{0}{}\u{0}{owner}", command.tenant, command.source, to_micros(now));
    format!("sy_{}", hex(&Sha256::digest(name.as_bytes())[..12]))
}

async fn begin(store: &Store, order: &Order, profile: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
    let new = NewSync {
        id: &order.sync,
        tenant: order.tenant.as_str(),
        source: order.source.as_str(),
        profile,
        said_complete: order.said_complete.as_deref(),
        told_records: order.told_records,
        only: order.only.as_ref(),
        as_of: order.as_of,
        requested_by: &order.actor,
    };
    let mut tx = store.write().await?;
    syncs::create(&mut tx, &new, now).await.map_err(|error| match error {
        StoreError::Conflict { .. } => StoreError::Configuration(format!("there is no tenant {}", order.tenant)),
        other => other,
    })?;
    tx.commit().await
}

async fn stopped(store: &Store, order: &Order, error: SyncError) -> Result<Exit, CliError> {
    let mut tx = store.write().await?;
    syncs::failed(&mut tx, &order.sync, &error.to_string()).await?;
    tx.commit().await?;
    match error {
        SyncError::PlanMoved(_) | SyncError::Guarded(_) => Err(CliError::no(format!("nothing was applied: {error}"))),
        SyncError::Store(error) => Err(error.into()),
        other => Err(CliError::failed(other.to_string())),
    }
}

/// Checks that the list is the one a manifest is of.
fn manifest(path: &Path, snapshot: &Path) -> Result<Manifest, CliError> {
    let cannot = |path: &Path, error: io::Error| CliError::failed(format!("cannot read {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| cannot(path, error))?;
    let manifest: Manifest = serde_json::from_str(&text)
        .map_err(|error| CliError::failed(format!("{} is no manifest: {error}", path.display())))?;
    let mut file = File::open(snapshot).map_err(|error| cannot(snapshot, error))?;
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk).map_err(|error| cannot(snapshot, error))? {
            0 => break,
            length => digest.update(&chunk[..length]),
        }
    }
    let found = hex(digest.finalize());
    if !manifest.sha256.eq_ignore_ascii_case(&found) {
        return Err(CliError::failed(format!(
            "the manifest is of another list: it says sha256 {}, this one has {found}",
            manifest.sha256
        )));
    }
    Ok(manifest)
}

async fn print(
    store: &Store,
    order: &Order,
    report: &Report,
    applied: Option<&Applied>,
    format: Format,
) -> Result<(), CliError> {
    show(store, &order.sync, report, applied, format).await?;
    if let Some(applied) = applied {
        tell_applied(applied);
    } else if format == Format::Text && report.plan.creates + report.plan.updates + report.plan.deletes > 0 {
        eprintln!("To apply it: the same command with --apply {}", report.plan.hash);
    }
    Ok(())
}

/// Writes a report that is stored, with every finding.
pub(super) async fn show(
    store: &Store,
    sync: &str,
    report: &Report,
    applied: Option<&Applied>,
    format: Format,
) -> Result<(), CliError> {
    match write(store, sync, report, applied, format).await {
        // The reader has seen enough (`| head`).
        Err(Stopped::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Stopped::Output(error)) => Err(error.into()),
        Err(Stopped::Store(error)) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

enum Stopped {
    Output(io::Error),
    Store(StoreError),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

pub(super) fn tell_applied(applied: &Applied) {
    eprintln!(
        "Applied: {} accounts made, {} changed ({} services taken away), {} closed, {} refused.",
        applied.created, applied.updated, applied.removed, applied.closed, applied.refused
    );
    for refused in &applied.refusals {
        eprintln!("  {} refused: {}", refused.account, refused.reason);
    }
}

/// The report with every finding, a page at a time.
async fn write(
    store: &Store,
    sync: &str,
    report: &Report,
    applied: Option<&Applied>,
    format: Format,
) -> Result<(), Stopped> {
    let mut out = io::BufWriter::new(io::stdout());
    match format {
        Format::Text => write!(out, "{}\nWhat differs:\n", report.head())?,
        Format::Csv => write_cells(&mut out, CSV_HEADINGS.map(str::to_owned).to_vec())?,
        Format::Json => write!(
            out,
            "{{\"sync\": {}, \"report\": {}, \"applied\": {}, \"items\": [",
            json!(sync),
            json!(report),
            json!(applied)
        )?,
    }
    let (mut after, mut first) = (None::<(String, i64)>, true);
    loop {
        let mut tx = store.read().await?;
        let place = after.as_ref().map(|(account, number)| (account.as_str(), *number));
        let page = syncs::findings(&mut tx, sync, None, place, PAGE).await?;
        tx.rollback().await?;
        let Some((number, last)) = page.last() else { break };
        after = Some((last.account.clone(), *number));
        for (_, finding) in &page {
            match format {
                Format::Text => write!(out, "{}", Report::row(finding))?,
                Format::Csv => cells(finding).into_iter().try_for_each(|cells| write_cells(&mut out, cells))?,
                Format::Json => write!(out, "{}\n{}", if first { "" } else { "," }, json!(finding))?,
            }
            first = false;
        }
    }
    match format {
        Format::Text if first => write!(out, "  nothing\n{}", report.foot())?,
        Format::Text => write!(out, "{}", report.foot())?,
        Format::Csv => {}
        Format::Json => writeln!(out, "\n]}}")?,
    }
    Ok(out.flush()?)
}

const CSV_HEADINGS: [&str; 10] =
    ["class", "account", "service", "type", "plan", "status", "field", "ours", "theirs", "reason"];

/// A row for each field that differs; for what is not on both sides one row.
fn cells(finding: &Finding) -> Vec<Vec<String>> {
    let kind = finding.theirs.as_ref().or(finding.ours.as_ref());
    let of = |part: fn(&crate::reconcile::Kind) -> String| kind.map(part).unwrap_or_default();
    let row = |field: &str, ours: &Value, theirs: &Value| {
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        vec![
            finding.class.to_string(),
            finding.account.clone(),
            finding.service.clone().unwrap_or_default(),
            of(|kind| kind.service_type.to_string()),
            of(|kind| kind.plan.clone()),
            of(|kind| kind.status.to_string()),
            field.to_owned(),
            text(ours),
            text(theirs),
            finding.reason.clone().unwrap_or_default(),
        ]
    };
    match finding.differences.is_empty() {
        true => vec![row("", &Value::Null, &Value::Null)],
        false => finding.differences.iter().map(|found| row(&found.field, &found.ours, &found.theirs)).collect(),
    }
}

/// Cells that a spreadsheet would compute get a sign in front.
fn write_cells(out: &mut impl Write, cells: Vec<String>) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    let safe = cells.iter().map(|cell| shown_cell(cell).into_owned());
    writer.write_record(safe).map_err(io::Error::other)?;
    out.write_all(&writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?)
}
