//! `journal list` and `journal read FILE`: what the accounting journal holds day by day, and the records of an archive.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::radius::{Dictionary, PacketView, decode};
use crate::store::journal::{self, ArchiveReader, Day, JournalRow};
use crate::vocabulary::hex;

/// The commands of `lastmile journal`.
#[derive(Subcommand)]
pub enum JournalCommand {
    /// List the days the journal holds: records, bytes, and where they were archived.
    List,
    /// Print the records of an archive, one a line. Needs no database.
    Read {
        /// A file that the daemon wrote to `[radius] archive`.
        file: PathBuf,
    },
}

/// Runs one of them.
pub async fn run(command: JournalCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        JournalCommand::List => list(context).await,
        JournalCommand::Read { file } => read(&file, context),
    }
}

async fn list(context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let mut tx = store.read_journal().await?;
    let days = journal::days(&mut tx).await?;
    drop(tx);
    store.close().await;
    if context.json {
        let days: Vec<_> = days
            .iter()
            .map(|day| {
                json!({ "day": day.day_on, "state": day.state, "records": day.records, "parts": day.parts,
                    "bytes": day.octets, "archive": day.archive })
            })
            .collect();
        context.print_json(&json!({ "days": days }))?;
    } else {
        let rows: Vec<Vec<String>> = days.iter().map(row_of).collect();
        context.print_table(&["day", "state", "records", "bytes", "bytes a record", "archive"], &rows)?;
    }
    Ok(Exit::Done)
}

fn row_of(day: &Day) -> Vec<String> {
    let each = day.octets.checked_div(day.records).unwrap_or(0);
    vec![
        day.day_on.clone(),
        day.state.clone(),
        day.records.to_string(),
        day.octets.to_string(),
        each.to_string(),
        day.archive.clone().unwrap_or_default(),
    ]
}

fn read(file: &Path, context: &Context) -> Result<Exit, CliError> {
    let failed = |why: &dyn std::fmt::Display| CliError::failed(format!("{}: {why}", file.display()));
    let input = File::open(file).map_err(|error| failed(&error))?;
    let mut archive = ArchiveReader::open(BufReader::new(input)).map_err(|error| failed(&error))?;
    let dictionary = Dictionary::standard();
    let mut out = io::BufWriter::new(io::stdout().lock());
    while let Some(rows) = archive.next_page().map_err(|error| failed(&error))? {
        for row in rows {
            let line = if context.json { document(&row, &dictionary) } else { line(&row) };
            match writeln!(out, "{line}") {
                Ok(()) => {}
                // Whoever reads us has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
                Err(error) => return Err(error.into()),
            }
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn document(row: &JournalRow, dictionary: &Dictionary) -> String {
    let attributes = PacketView::parse(&row.entry.packet).map(|view| decode(&view, dictionary));
    json!({
        "record": format!("{}:{}", row.lane, row.seq),
        "arrived_at": row.entry.arrived_at,
        "nas": *row.entry.nas,
        "source": row.entry.source.to_string(),
        "packet": hex(&row.entry.packet),
        "attributes": attributes.ok(),
    })
    .to_string()
}

fn line(row: &JournalRow) -> String {
    let entry = &row.entry;
    format!("{}:{} {} {} {} {}", row.lane, row.seq, entry.arrived_at, entry.nas, entry.source, hex(&entry.packet))
}
