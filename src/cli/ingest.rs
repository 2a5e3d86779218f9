//! `ingest list|show|replay`: what billing systems sent, what of it was put aside, and trying that again.

use clap::Subcommand;
use serde_json::Value;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::who_acts;
use crate::intake::desk::Desk;
use crate::intake::ways::{ReplayError, ingest_detailed, ingest_shown, replay};
use crate::store::ingest::{self, IngestFilter, IngestRow};
use crate::store::{Store, StoreError};

/// The commands of `lastmile ingest`.
#[derive(Subcommand)]
pub enum IngestCommand {
    /// List inputs, the newest first.
    List {
        #[arg(long)]
        tenant: Option<String>,
        #[arg(long)]
        source: Option<String>,
        /// Only those of which records are put aside.
        #[arg(long)]
        open: bool,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one with the records that were put aside, and why.
    Show { ingest: i64 },
    /// Read what was put aside again, by the profile as it is now.
    Replay {
        ingest: i64,
        /// Also for accounts that changed after it came.
        #[arg(long)]
        force: bool,
        /// Who does it; the user of this shell unless named.
        #[arg(long)]
        by: Option<String>,
    },
}

/// Rows read in one go.
const PAGE: i64 = 500;

/// Runs one of them.
pub async fn run(command: IngestCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match command {
        IngestCommand::List { tenant, source, open, limit } => {
            let filter = IngestFilter { tenant, source, open, before: None, limit: PAGE };
            list(&store, filter, limit, context).await
        }
        IngestCommand::Show { ingest } => {
            let Some(row) = one(&store, ingest).await? else {
                return Ok(context.not_found(&format!("There is no input {ingest}.")));
            };
            let document = ingest_detailed(&mut store.read().await?, &row).await?;
            show(&document, context)
        }
        IngestCommand::Replay { ingest, force, by } => {
            let Some(row) = one(&store, ingest).await? else {
                return Ok(context.not_found(&format!("There is no input {ingest}.")));
            };
            let desk = Desk::alone(&store, &context.clock(), context.config()?.sources);
            match replay(&desk, &row, force, &who_acts(by)).await {
                Ok(replayed) => {
                    let document = replayed.document();
                    if context.json {
                        context.print_json(&document)?;
                    } else {
                        context.print(&told(&document))?;
                    }
                    Ok(if replayed.tally.quarantined == 0 { Exit::Done } else { Exit::No })
                }
                Err(ReplayError::Store(error)) => Err(error.into()),
                Err(error) => Err(CliError::no(format!("input {ingest} cannot be replayed: {error}"))),
            }
        }
    }
}

async fn one(store: &Store, id: i64) -> Result<Option<IngestRow>, StoreError> {
    ingest::one(&mut store.read().await?, id).await
}

async fn list(store: &Store, mut filter: IngestFilter, limit: usize, context: &Context) -> Result<Exit, CliError> {
    let mut rows: Vec<IngestRow> = Vec::new();
    while rows.len() < limit {
        let page = ingest::list(&mut store.read().await?, &filter).await?;
        let more = page.len() as i64 == filter.limit;
        filter.before = page.last().map(|row| row.id);
        rows.extend(page);
        if !more {
            break;
        }
    }
    rows.truncate(limit);
    if context.json {
        context.print_json(&rows.iter().map(ingest_shown).collect::<Vec<_>>())?;
    } else {
        let headings = [
            "INPUT", "TENANT", "SOURCE", "PROFILE", "WAY", "NAME", "STATE", "CHANGES", "HELD", "ASIDE", "OPEN",
            "RECEIVED",
        ];
        let cells = |row: &IngestRow| {
            vec![
                row.id.to_string(),
                row.tenant.clone(),
                row.source.clone(),
                format!("{}@{}", row.profile, row.profile_digest.get(..8).unwrap_or_default()),
                row.way.as_str().to_owned(),
                row.name.clone().or_else(|| row.event.clone()).unwrap_or_else(|| "-".to_owned()),
                row.state.clone(),
                row.tally.changes.to_string(),
                row.tally.held.to_string(),
                row.tally.quarantined.to_string(),
                row.open.to_string(),
                format!("{:.0}", row.received_at),
            ]
        };
        context.print_table(&headings, &rows.iter().map(cells).collect::<Vec<_>>())?;
    }
    Ok(Exit::Done)
}

fn show(document: &Value, context: &Context) -> Result<Exit, CliError> {
    if context.json {
        context.print_json(document)?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for (name, value) in document.as_object().into_iter().flatten().filter(|(name, _)| *name != "put_aside") {
        text.push_str(&format!("{name}: {}\n", plain(value)));
    }
    for fault in document["put_aside"].as_array().into_iter().flatten() {
        let account = fault["account"].as_str().map_or(String::new(), |account| format!(", account {account}"));
        let over = if fault["replayed_at"].is_null() { "" } else { " (replayed)" };
        text.push_str(&format!("record {}, line {}{account}{over}\n", fault["record"], fault["line"]));
        for error in fault["errors"].as_array().into_iter().flatten() {
            text.push_str(&format!("  {} {}\n", plain(&error["pointer"]), plain(&error["detail"])));
        }
    }
    context.print(&text)?;
    Ok(Exit::Done)
}

fn told(document: &Value) -> String {
    let mut text = format!(
        "Input {} by profile version {}: {} changes, {} ignored, {} held, {} still aside.\n",
        plain(&document["ingest"]),
        plain(&document["profile_digest"]),
        document["changes"],
        document["ignored"],
        document["held"],
        document["quarantined"],
    );
    let results = document["results"].as_array().into_iter().flatten();
    for result in results.filter(|result| result["result"] == "quarantined") {
        for error in result["errors"].as_array().into_iter().flatten() {
            let (pointer, detail) = (plain(&error["pointer"]), plain(&error["detail"]));
            text.push_str(&format!("  record {}: {pointer} {detail}\n", result["record"]));
        }
    }
    text
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
