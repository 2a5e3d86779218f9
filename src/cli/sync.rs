//! `sync list|show|apply`: reconciliations of before, whoever asked for them: a command, a request, a list in a watched folder;
//! and the plan of one whose list is kept.

use std::sync::Arc;

use clap::Subcommand;
use serde_json::Value;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::reconcile::{self, Format};
use super::who_acts;
use crate::intake::syncs::{Asked, HASH_DIGITS_MIN, NotApplied, Reconciler, SyncError, apply_kept, shown};
use crate::store::Store;
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
    /// Apply the plan of one whose list was sent or came into a watched folder, if it still is the plan.
    ///
    /// Everything is compared anew first; whatever changed since, the plan is another one and nothing is done. If this command
    /// is ended in the middle of it, a daemon goes on.
    Apply {
        id: String,
        #[arg(long)]
        tenant: TenantId,
        /// The plan's hash, as `sync show` and `sync list` print it; its first 12 digits are enough.
        #[arg(long, value_name = "HASH", value_parser = plan_hash)]
        plan: String,
        /// Accounts and services that may be taken away a day; absent: 25, or 2 % of the living accounts if that is more.
        #[arg(long, value_name = "N")]
        allow_deletions: Option<u64>,
        /// Who does it; the user of this shell unless named.
        #[arg(long)]
        by: Option<String>,
        /// How the report is written; `--json` means json.
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
}

/// What is to be applied, and how it is told.
struct Wanted {
    id: String,
    tenant: TenantId,
    plan: String,
    allow_deletions: Option<u64>,
    by: String,
    format: Format,
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
            let Some(row) = found else { return Ok(unknown(&tenant, &id, context)) };
            let Some(report) = &row.report else {
                let why = row.error.map(|error| format!(": {error}")).unwrap_or_default();
                return Ok(context.not_found(&format!("Reconciliation {id} has no report; it is {}{why}.", row.state)));
            };
            let format = format.unwrap_or(if context.json { Format::Json } else { Format::Text });
            reconcile::show(&store, &id, report, None, format).await?;
            Ok(if report.differs() { Exit::No } else { Exit::Done })
        }
        SyncCommand::Apply { id, tenant, plan, allow_deletions, by, format } => {
            let format = format.unwrap_or(if context.json { Format::Json } else { Format::Text });
            let wanted = Wanted { id, tenant, plan, allow_deletions, by: who_acts(by), format };
            apply(&store, &wanted, context).await
        }
    }
}

fn unknown(tenant: &TenantId, id: &str, context: &Context) -> Exit {
    context
        .not_found(&format!("{tenant} has no reconciliation {id}; `lastmile sync list --tenant {tenant}` lists them."))
}

async fn apply(store: &Store, wanted: &Wanted, context: &Context) -> Result<Exit, CliError> {
    let found = syncs::find(&mut store.read().await?, wanted.tenant.as_str(), &wanted.id).await?;
    let Some(row) = found else { return Ok(unknown(&wanted.tenant, &wanted.id, context)) };
    let shelf = context.config()?.sources.shelf;
    let bar = Arc::new(context.progress(0, "comparing"));
    let shown = bar.clone();
    let progress = move |doing: &'static str, done: u64, total: u64| reconcile::tell(&shown, doing, done, total);
    let desk = Reconciler::alone(store.clone(), context.clock());
    let asked = Asked { plan: &wanted.plan, allow_deletions: wanted.allow_deletions, by: &wanted.by };
    let outcome = apply_kept(&desk, &row, &shelf, asked, &progress).await;
    bar.finish_and_clear();
    let (found, applied) = match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(SyncError::Store(error))) => return Err(error.into()),
        Ok(Err(error @ (SyncError::PlanMoved(_) | SyncError::Guarded(_)))) => return Err(refused(&row, error)),
        Ok(Err(error)) => return Err(CliError::failed(error.to_string())),
        Err(NotApplied::Store(error)) => return Err(error.into()),
        Err(error) => return Err(refused(&row, error)),
    };
    reconcile::show(store, &row.id, &found.report, Some(&applied), wanted.format).await?;
    reconcile::tell_applied(&applied);
    store.close().await;
    Ok(if applied.refused == 0 { Exit::Done } else { Exit::No })
}

/// Nothing was applied; why, and what helps.
fn refused(row: &SyncRow, why: impl std::error::Error) -> CliError {
    let SyncRow { id, tenant, state, .. } = row;
    let next = match state.as_str() {
        "planned" => format!("look at it with `lastmile sync show {id} --tenant {tenant}`"),
        "applied" => "it was applied before; a plan is applied once".to_owned(),
        "applying" => "it is being applied; `sync show` tells when it is done".to_owned(),
        "failed" => "the list must be sent again".to_owned(),
        _ => "a running daemon compares it; try again when `sync list` says planned".to_owned(),
    };
    CliError::no(format!("nothing of {id} was applied: {why}; {next}"))
}

fn plan_hash(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('…').to_ascii_lowercase();
    match text.len() {
        HASH_DIGITS_MIN..=64 if text.bytes().all(|digit| digit.is_ascii_hexdigit()) => Ok(text),
        _ => Err(format!("a plan's hash is 64 hexadecimal digits; at least the first {HASH_DIGITS_MIN} are needed")),
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
        report.map(|report| report.plan.hash.chars().take(HASH_DIGITS_MIN).collect()).unwrap_or_default(),
        row.requested_by.clone(),
    ]
}
