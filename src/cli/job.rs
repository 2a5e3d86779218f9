//! `job list`, `job retry` and `job cancel`: what is being provisioned, what is stuck and why.

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use super::deed::person;
use super::exit::{CliError, Exit};
use crate::provision::JobError;
use crate::store::jobs::{self, JobFilter, JobRow};
use crate::store::{Store, StoreError, Tx, audit};
use crate::vocabulary::Timestamp;

/// The commands of `lastmile job`.
#[derive(Subcommand)]
pub enum JobCommand {
    /// List jobs, the newest first.
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        /// Only those of accounts of this source.
        #[arg(long)]
        source: Option<String>,
        /// Only those of this account.
        #[arg(long)]
        account: Option<String>,
        /// Only those in this state.
        #[arg(long, value_parser = ["pending", "running", "waiting", "done", "failed", "cancelled"])]
        state: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Try a job again now. An ended job begins anew.
    Retry { job: i64 },
    /// Withdraw a job; its element stays as it is until the next push or retry.
    Cancel { job: i64 },
}

/// Rows read in one go.
const PAGE: i64 = 1000;

/// Runs one of them.
pub async fn run(command: JobCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let now = context.clock().now();
    match command {
        JobCommand::List { tenant, source, account, state, limit } => {
            let filter = JobFilter { tenant, source, account, state, limit: PAGE, ..JobFilter::default() };
            list(&store, filter, limit, context).await
        }
        JobCommand::Retry { job } => {
            let mut tx = store.write().await?;
            let asked = jobs::retry(&mut tx, job, now).await?;
            if let Some(Ok(job)) = &asked {
                note(&mut tx, job, "job.retry", now).await?;
            }
            tx.commit().await?;
            changed(job, asked, "due now", context)
        }
        JobCommand::Cancel { job } => {
            let mut tx = store.write().await?;
            let asked = jobs::cancel(&mut tx, job, now).await?;
            if let Some(Ok(job)) = &asked {
                note(&mut tx, job, "job.cancel", now).await?;
            }
            tx.commit().await?;
            changed(job, asked, "cancelled", context)
        }
    }
}

async fn note(tx: &mut Tx, job: &JobRow, action: &str, now: Timestamp) -> Result<(), StoreError> {
    let entry = audit::Entry {
        tenant: Some(&job.tenant),
        actor: &person(None),
        action,
        account_id: Some(job.account_id),
        subject: &format!("{} {}", job.kind, job.key),
        detail: &json!({ "job": job.id }),
    };
    audit::append(tx, &entry, now).await
}

async fn list(store: &Store, mut filter: JobFilter, limit: usize, context: &Context) -> Result<Exit, CliError> {
    let mut listed: Vec<JobRow> = Vec::new();
    while listed.len() < limit {
        let page = page(store, &filter).await?;
        let more = page.len() as i64 == filter.limit;
        filter.before = page.last().map(|job| job.id);
        listed.extend(page);
        if !more {
            break;
        }
    }
    listed.truncate(limit);
    if context.json {
        context.print_json(&listed.iter().map(document).collect::<Vec<_>>())?;
    } else {
        let headings = ["JOB", "TENANT", "ACCOUNT", "ELEMENT", "STATE", "ATTEMPTS", "DUE", "LAST ERROR"];
        context.print_table(&headings, &listed.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(Exit::Done)
}

/// One page, in a transaction of its own: a long list must not hold back the database's own cleaning.
async fn page(store: &Store, filter: &JobFilter) -> Result<Vec<JobRow>, StoreError> {
    let mut tx = store.read().await?;
    jobs::list(&mut tx, filter).await
}

fn changed(
    asked: i64,
    answer: Option<Result<JobRow, JobError>>,
    what: &str,
    context: &Context,
) -> Result<Exit, CliError> {
    match answer {
        None => Ok(context.not_found(&format!("There is no job {asked}."))),
        Some(Err(refusal)) => Err(CliError::no(format!("job {asked} is left as it is: {refusal}"))),
        Some(Ok(job)) if context.json => {
            context.print_json(&document(&job))?;
            Ok(Exit::Done)
        }
        Some(Ok(job)) => {
            context.print(&format!("Job {} ({} {}) is {what}.\n", job.id, job.kind, job.key))?;
            Ok(Exit::Done)
        }
    }
}

/// A job as `--json` shows it, with the API's names.
fn document(job: &JobRow) -> Value {
    json!({
        "id": job.id.to_string(),
        "tenant": job.tenant,
        "source": job.source,
        "account": job.account,
        "kind": job.kind,
        "key": job.key,
        "state": job.state.word(),
        "lane": if job.lane == jobs::LANE_SINGLE { "single" } else { "bulk" },
        "attempts": job.attempts,
        "target_revision": job.target_revision,
        "desired_revision": job.desired_revision,
        "run_at": job.run_at,
        "claimed_by": job.claimed_by,
        "last_error": job.last_error,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "finished_at": job.finished_at,
    })
}

fn row(job: &JobRow) -> Vec<String> {
    vec![
        job.id.to_string(),
        job.tenant.clone(),
        job.account.clone(),
        format!("{} {}", job.kind, job.key),
        job.state.word().to_owned(),
        job.attempts.to_string(),
        due(job).map_or_else(|| "-".to_owned(), |at| format!("{at:.0}")),
        job.last_error.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// An ended job is due no more.
fn due(job: &JobRow) -> Option<Timestamp> {
    job.finished_at.is_none().then_some(job.run_at)
}
