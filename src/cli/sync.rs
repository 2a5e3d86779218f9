//! `sync list|show`: reconciliations of before, whoever asked for them: a command, a request, a list in a watched folder.

use clap::Subcommand;
use serde_json::Value;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::reconcile::{self, Format};
use crate::intake::syncs::shown;
use crate::store::syncs::{self, SyncRow};
use crate::vocabulary::TenantId;

/// The commands of `lastmile sync`.
#[derive(Subcommand)]
pub enum SyncCommand {
    /// Reconciliations of a tenant, the newest first.
    List {
        #[arg(long)]
        tenant: TenantId,
        #[arg(long)]
        source: Option<String>,
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
        limit: i64,
    },
    /// One of them: its report with every row that differs.
    Show {
        id: String,
        #[arg(long)]
        tenant: TenantId,
        /// How the report is written; `--json` means json.
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
}

/// Runs one of them.
pub async fn run(command: SyncCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match command {
        SyncCommand::List { tenant, source, limit } => {
            let mut tx = store.read().await?;
            let rows = syncs::list(&mut tx, tenant.as_str(), source.as_deref(), None, limit).await?;
            if context.json {
                context.print_json(&rows.iter().map(shown).collect::<Vec<Value>>())?;
            } else {
                let headings = ["SYNC", "SOURCE", "AS OF", "STATE", "DIFFERS", "PLAN", "BY"];
                context.print_table(&headings, &rows.iter().map(cells).collect::<Vec<_>>())?;
            }
            Ok(Exit::Done)
        }
        SyncCommand::Show { id, tenant, format } => {
            let found = syncs::find(&mut store.read().await?, tenant.as_str(), &id).await?;
            let Some(row) = found else {
                return Ok(context.not_found(&format!("{tenant} has no reconciliation {id}.")));
            };
            let Some(report) = &row.report else {
                let why = row.error.map(|error| format!(": {error}")).unwrap_or_default();
                return Ok(context.not_found(&format!("Reconciliation {id} has no report; it is {}{why}.", row.state)));
            };
            let format = format.unwrap_or(if context.json { Format::Json } else { Format::Text });
            reconcile::show(&store, &id, report, None, format).await?;
            Ok(if report.differs() { Exit::No } else { Exit::Done })
        }
    }
}

fn cells(row: &SyncRow) -> Vec<String> {
    let report = row.report.as_ref();
    vec![
        row.id.clone(),
        row.source.clone(),
        format!("{:.0}", row.as_of),
        row.state.clone(),
        report.map(|report| if report.differs() { "yes" } else { "no" }).unwrap_or_default().to_owned(),
        report.map(|report| report.plan.hash.chars().take(12).collect()).unwrap_or_default(),
        row.requested_by.clone(),
    ]
}
