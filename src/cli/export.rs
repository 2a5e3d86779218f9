//! `export`: sessions and usage as CSV or JSON lines, a page at a time, whatever their number.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Subcommand, ValueEnum};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::billing::lines::{StoredLine, TaxShape};
use crate::dispatcher::{ExportError, Lines, batch_facts, document_writer};
use crate::mediation::{Facts, Profile, Subject, Written, shown_cell};
use crate::store::billing::{self, LineFilter, Place};
use crate::store::usage::{self, SessionFilter, SessionView, UsageEntry};
use crate::store::{Store, catalog};
use crate::vocabulary::Money;

/// The commands of `lastmile export`.
#[derive(Subcommand)]
pub enum ExportCommand {
    /// Every RADIUS session.
    Sessions {
        #[command(flatten)]
        options: ExportOptions,
    },
    /// Every entry of the usage ledger.
    Usage {
        #[command(flatten)]
        options: ExportOptions,
        #[command(flatten)]
        words: WordOptions,
    },
    /// Every invoice line of the closed batches, in the order in which they were closed.
    Lines {
        #[command(flatten)]
        options: ExportOptions,
        #[command(flatten)]
        words: WordOptions,
        /// Only this batch's.
        #[arg(long)]
        batch: Option<String>,
    },
}

/// How to write rows in a source's own words.
#[derive(clap::Args)]
pub struct WordOptions {
    /// A source profile's file, or the name of a shipped one.
    #[arg(long, requires_all = ["out", "tenant"], conflicts_with = "format")]
    profile: Option<String>,
    /// Which [out.NAME] of it.
    #[arg(long, requires = "profile")]
    out: Option<String>,
    /// Put the file there under its own name, whole or not at all, never over another; absent: stdout.
    #[arg(long, value_name = "DIR", requires = "profile")]
    directory: Option<PathBuf>,
    /// What templates may name besides.
    #[arg(long = "set", value_name = "NAME=TEXT", requires = "profile")]
    facts: Vec<String>,
}

/// What exports have in common.
#[derive(clap::Args)]
pub struct ExportOptions {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<String>,
    /// How to write them; `--json` means jsonl.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Csv,
    Jsonl,
}

/// Runs one of them.
pub async fn run(command: ExportCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match &command {
        ExportCommand::Usage { options, words } if words.profile.is_some() => {
            return in_words(&store, Subject::Usage, options, words, None, context).await;
        }
        ExportCommand::Lines { options, words, batch } if words.profile.is_some() => {
            return in_words(&store, Subject::Lines, options, words, batch.as_deref(), context).await;
        }
        _ => {}
    }
    let (ExportCommand::Sessions { options }
    | ExportCommand::Usage { options, .. }
    | ExportCommand::Lines { options, .. }) = &command;
    let default = if context.json { Format::Jsonl } else { Format::Csv };
    let mut out = Rows::new(options.format.unwrap_or(default));
    let written = match &command {
        ExportCommand::Sessions { options } => sessions(&store, options, &mut out).await,
        ExportCommand::Usage { options, .. } => entries(&store, options, &mut out).await,
        ExportCommand::Lines { options, batch, .. } => lines(&store, options, batch.as_deref(), &mut out).await,
    };
    match written.and_then(|()| Ok(out.end()?)) {
        // The reader has seen enough (`| head`).
        Err(Stopped::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(Stopped::Output(error)) => Err(error.into()),
        Err(Stopped::Command(error)) => Err(error),
        Ok(()) => Ok(Exit::Done),
    }
}

async fn sessions(store: &Store, options: &ExportOptions, out: &mut Rows) -> Result<(), Stopped> {
    out.headings(&SESSION_HEADINGS)?;
    let mut filter = SessionFilter { tenant: options.tenant.clone(), limit: PAGE, ..SessionFilter::default() };
    loop {
        // A transaction a page: an export that runs for minutes must not hold back the database's own cleaning.
        let mut tx = store.read().await?;
        let page = usage::list(&mut tx, &filter).await?;
        tx.rollback().await?;
        let Some(last) = page.last() else { return Ok(()) };
        filter.after = last.id;
        for view in &page {
            out.row(view, || session_row(view))?;
        }
    }
}

async fn entries(store: &Store, options: &ExportOptions, out: &mut Rows) -> Result<(), Stopped> {
    out.headings(&USAGE_HEADINGS)?;
    let mut after = (0, 0);
    loop {
        let mut tx = store.read().await?;
        let page = usage::entries(&mut tx, options.tenant.as_deref(), after, PAGE).await?;
        tx.rollback().await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = (last.account_id, last.sequence);
        for entry in &page {
            out.row(&usage_document(entry), || usage_row(entry))?;
        }
    }
}

async fn lines(store: &Store, options: &ExportOptions, batch: Option<&str>, out: &mut Rows) -> Result<(), Stopped> {
    out.headings(&LINE_HEADINGS)?;
    let tenants = match &options.tenant {
        Some(tenant) => vec![tenant.clone()],
        None => catalog::tenants(&mut store.read().await?).await?,
    };
    for tenant in tenants {
        let batch = batch.map(str::to_owned);
        let filter = LineFilter { tenant: Some(tenant), batch, limit: PAGE, ..LineFilter::default() };
        let mut after = Place::default();
        loop {
            let mut tx = store.read().await?;
            let page = billing::pull(&mut tx, &filter, &after).await?;
            let Some(last) = page.last() else { break };
            after = last.place.clone();
            let documents = billing::documents(&mut tx, &page).await?;
            tx.rollback().await?;
            for (pulled, document) in page.iter().zip(&documents) {
                out.row(document, || line_row(&pulled.stored, document))?;
            }
        }
    }
    Ok(())
}

/// Lines or usage of a tenant as a profile's file.
async fn in_words(
    store: &Store,
    of: Subject,
    options: &ExportOptions,
    words: &WordOptions,
    batch: Option<&str>,
    context: &Context,
) -> Result<Exit, CliError> {
    let (Some(profile), Some(out), Some(tenant)) = (&words.profile, &words.out, &options.tenant) else {
        return Err(CliError::usage("--profile needs --out and --tenant"));
    };
    let Some(profile) = super::profile::read_profile(profile)? else { return Ok(Exit::Failed) };
    if profile.outs.get(out).is_none_or(|out| out.of != of) {
        let known: Vec<&str> =
            profile.outs.iter().filter(|(_, out)| out.of == of).map(|(name, _)| name.as_str()).collect();
        let known = known.join(", ");
        return Ok(context.not_found(&format!("{} has no such [out.{out}]; it has {known}", profile.name)));
    }
    let now = context.clock().now();
    let mut facts: Facts = vec![("tenant".to_owned(), tenant.clone()), ("created_at".to_owned(), now.to_string())];
    if let Some(id) = batch {
        let row = billing::batch(&mut store.read().await?, tenant, id).await?;
        match row.filter(|row| matches!(row.state.as_str(), "closed" | "acknowledged")) {
            Some(row) => facts = batch_facts(&row),
            None => return Ok(context.not_found(&format!("there is no closed batch {id}"))),
        }
    }
    facts.extend(super::profile::facts(&words.facts)?);
    let profile = Arc::new(profile);
    let directory = words.directory.as_deref();
    let placing = directory.map(|directory| super::profile::Placing::begin(&profile, out, &facts, directory));
    let placing = placing.transpose()?;
    let sink: Box<dyn Write + Send> = match &placing {
        Some(placing) => Box::new(io::BufWriter::new(placing.file()?)),
        None => Box::new(io::BufWriter::new(io::stdout())),
    };
    let written = match of {
        Subject::Lines => {
            let (tenant, batch) = (Some(tenant.clone()), batch.map(str::to_owned));
            let filter = LineFilter { tenant, batch, limit: PAGE, ..LineFilter::default() };
            let lines = Lines { store, filter, source: None };
            lines.write(&profile, out, facts, sink).await.map(|(written, _)| written)
        }
        Subject::Usage => usage_in_words(store, tenant, &profile, out, facts, sink).await,
    };
    let written = written.map_err(|error| CliError::failed(error.to_string()))?;
    if let Some(placing) = placing {
        eprintln!("{}", placing.end()?.display());
    }
    eprintln!("{} written, {} in all", written.documents, written.sum);
    Ok(Exit::Done)
}

async fn usage_in_words(
    store: &Store,
    tenant: &str,
    profile: &Arc<Profile>,
    out: &str,
    facts: Facts,
    sink: Box<dyn Write + Send>,
) -> Result<Written, ExportError> {
    let (send, writing) = document_writer(profile, out, facts, sink);
    let mut after = (0, 0);
    loop {
        let mut tx = store.read().await?;
        let page = usage::entries(&mut tx, Some(tenant), after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = (last.account_id, last.sequence);
        let services: Vec<(i64, &str)> = page.iter().map(|entry| (entry.account_id, entry.service.as_str())).collect();
        let names = billing::names(&mut tx, &services).await?;
        tx.rollback().await?;
        let document = |entry: &UsageEntry| {
            let names = names.get(&(entry.account_id, entry.service.clone())).cloned().unwrap_or_default();
            let mut document = json!(usage_document(entry));
            document["id"] = json!(format!("{}.{}.{}", entry.source, entry.account, entry.sequence));
            document["username"] = json!(names.username);
            document["number"] = json!(names.number);
            document
        };
        // Whoever writes has stopped; why, it tells below.
        if send.send(page.iter().map(document).collect()).await.is_err() {
            break;
        }
    }
    drop(send);
    let ended = writing.await.map_err(|error| ExportError::Refused(error.to_string()))?;
    ended.0.map_err(|fault| ExportError::Refused(fault.to_string()))
}

fn usage_document(entry: &UsageEntry) -> UsageDocument<'_> {
    UsageDocument {
        entry,
        from: entry.from().map(|at| at.to_string()),
        to: entry.until().map(|at| at.to_string()),
        recorded_at: entry.recorded().map(|at| at.to_string()),
    }
}

/// Rows on their way to stdout.
struct Rows {
    sink: Sink,
    written: u64,
    began: Instant,
    bar: Option<ProgressBar>,
}

enum Sink {
    Csv(Box<csv::Writer<io::StdoutLock<'static>>>),
    Jsonl(io::BufWriter<io::StdoutLock<'static>>),
}

impl Rows {
    fn new(format: Format) -> Self {
        let out = io::stdout().lock();
        let sink = match format {
            Format::Csv => Sink::Csv(Box::new(csv::Writer::from_writer(out))),
            Format::Jsonl => Sink::Jsonl(io::BufWriter::new(out)),
        };
        Self { sink, written: 0, began: Instant::now(), bar: None }
    }

    fn headings(&mut self, names: &[&str]) -> io::Result<()> {
        match &mut self.sink {
            Sink::Csv(out) => out.write_record(names).map_err(io::Error::from),
            Sink::Jsonl(_) => Ok(()),
        }
    }

    fn row(&mut self, document: &impl Serialize, columns: impl FnOnce() -> Vec<String>) -> io::Result<()> {
        match &mut self.sink {
            // Names and descriptions come from outside: nothing of them is computed by whoever opens the table.
            Sink::Csv(out) => out.write_record(columns().iter().map(|cell| shown_cell(cell).into_owned()))?,
            Sink::Jsonl(out) => {
                serde_json::to_writer(&mut *out, document)?;
                out.write_all(b"\n")?;
            }
        }
        self.written += 1;
        self.show_progress();
        Ok(())
    }

    fn show_progress(&mut self) {
        if !self.written.is_multiple_of(1000) || self.began.elapsed() < QUICK || !io::stderr().is_terminal() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| ProgressBar::new_spinner().with_message("rows"));
        bar.set_position(self.written);
    }

    fn end(mut self) -> io::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        match &mut self.sink {
            Sink::Csv(out) => out.flush(),
            Sink::Jsonl(out) => out.flush(),
        }
    }
}

/// Why an export ended early.
enum Stopped {
    Output(io::Error),
    Command(CliError),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<crate::store::StoreError> for Stopped {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Command(error.into())
    }
}

#[derive(Serialize)]
struct UsageDocument<'a> {
    #[serde(flatten)]
    entry: &'a UsageEntry,
    from: Option<String>,
    to: Option<String>,
    recorded_at: Option<String>,
}

fn session_row(view: &SessionView) -> Vec<String> {
    vec![
        text(view.user.as_ref()),
        view.session.clone(),
        view.in_octets.to_string(),
        view.out_octets.to_string(),
        view.nas.clone(),
        view.started_at.to_string(),
        text(view.ended_at),
        view.state.clone(),
        view.incarnation.to_string(),
        view.seconds.to_string(),
        text(view.tenant.as_ref()),
        text(view.source.as_ref()),
        text(view.account.as_ref()),
        text(view.service.as_ref()),
        text(view.framed_ip.as_ref()),
        text(view.calling_station.as_ref()),
        text(view.terminate_cause),
        view.flags.join(" "),
    ]
}

fn line_row(stored: &StoredLine, document: &Value) -> Vec<String> {
    let name = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    let line = &stored.line;
    let tax: i64 = line.tax.iter().map(TaxShape::amount_minor).sum();
    let tax = line.currency.parse().map_or_else(|_| tax.to_string(), |code| Money::new(tax, code).to_string());
    vec![
        line.id.clone(),
        line.tenant.clone(),
        stored.basis.source.clone(),
        line.account.clone(),
        text(line.service.as_ref()),
        line.charge.clone(),
        line.kind.as_str().to_owned(),
        line.cycle.clone(),
        line.period.start.to_string(),
        line.period.end.to_string(),
        line.tariff.id.clone(),
        line.tariff.version.to_string(),
        line.quantity_raw.clone(),
        line.quantity.clone(),
        line.unit.clone(),
        line.amount_exact.clone(),
        line.amount.clone(),
        tax,
        line.currency.clone(),
        text(line.corrects.as_ref()),
        text(line.batch.as_ref()),
        line.created_at.to_string(),
        line.description.clone(),
        name("username"),
        name("number"),
    ]
}

fn usage_row(entry: &UsageEntry) -> Vec<String> {
    vec![
        entry.tenant.clone(),
        entry.source.clone(),
        entry.account.clone(),
        entry.service.clone(),
        entry.sequence.to_string(),
        text(entry.from()),
        text(entry.until()),
        entry.in_octets.to_string(),
        entry.out_octets.to_string(),
        entry.seconds.to_string(),
        entry.sessions.to_string(),
        entry.nas.clone(),
        entry.session.clone(),
        entry.cause.clone(),
        text(entry.recorded()),
    ]
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

const SESSION_HEADINGS: [&str; 18] = [
    "user",
    "session",
    "in_octets",
    "out_octets",
    "nas",
    "started_at",
    "ended_at",
    "state",
    "incarnation",
    "seconds",
    "tenant",
    "source",
    "account",
    "service",
    "framed_ip",
    "calling_station",
    "terminate_cause",
    "flags",
];
const LINE_HEADINGS: [&str; 25] = [
    "line",
    "tenant",
    "source",
    "account",
    "service",
    "charge",
    "kind",
    "cycle",
    "period_start",
    "period_end",
    "tariff",
    "tariff_version",
    "quantity_raw",
    "quantity",
    "unit",
    "amount_exact",
    "amount",
    "tax",
    "currency",
    "corrects",
    "batch",
    "created_at",
    "description",
    "username",
    "number",
];
const USAGE_HEADINGS: [&str; 15] = [
    "tenant",
    "source",
    "account",
    "service",
    "sequence",
    "from",
    "to",
    "in_octets",
    "out_octets",
    "seconds",
    "sessions",
    "nas",
    "session",
    "cause",
    "recorded_at",
];
/// Rows read in one go: the bound on memory.
const PAGE: i64 = 2_000;
/// Work longer than this shows how far it is.
const QUICK: Duration = Duration::from_secs(1);
