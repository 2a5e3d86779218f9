//! `exception list|show|release|snooze`: the one queue of what a person must look at.

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use super::deed::person;
use super::exit::{CliError, Exit};
use crate::store::exceptions::{self, ExceptionFilter, ExceptionRow};
use crate::store::{Store, StoreError, Tx, audit};
use crate::vocabulary::{Timestamp, parse_instant};

/// The commands of `lastmile exception`.
#[derive(Subcommand)]
pub enum ExceptionCommand {
    /// List what waits for a person, the newest first.
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        /// Only those of this kind.
        #[arg(long)]
        kind: Option<String>,
        /// Also what is snoozed or released.
        #[arg(long)]
        all: bool,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Show one.
    Show { exception: i64 },
    /// Close one that was dealt with. If it happens again, it opens again.
    Release {
        exception: i64,
        /// Who dealt with it; the user of this shell unless named.
        #[arg(long)]
        by: Option<String>,
    },
    /// Keep one out of the list for a while.
    Snooze {
        exception: i64,
        /// Until when, for example 2026-11-23T08:00:00Z.
        #[arg(long, value_parser = instant)]
        until: Timestamp,
    },
}

/// Rows read in one go.
const PAGE: i64 = 1000;

/// Runs one of them.
pub async fn run(command: ExceptionCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let now = context.clock().now();
    match command {
        ExceptionCommand::List { tenant, kind, all, limit } => {
            let filter = ExceptionFilter { tenant, kind, all, before: None, limit: PAGE };
            list(&store, filter, limit, now, context).await
        }
        ExceptionCommand::Show { exception } => show(&store, exception, context).await,
        ExceptionCommand::Release { exception, by } => {
            let by = person(by);
            let mut tx = store.write().await?;
            let released = exceptions::release(&mut tx, exception, &by, now).await?;
            if released {
                note(&mut tx, exception, "exception.release", &by, &json!({}), now).await?;
            }
            tx.commit().await?;
            changed(&store, exception, released, "released", context).await
        }
        ExceptionCommand::Snooze { exception, until } => {
            if until <= now {
                return Err(CliError::usage(format!("{until:.0} is past; name an instant to come")));
            }
            let mut tx = store.write().await?;
            let snoozed = exceptions::snooze(&mut tx, exception, until, now).await?;
            if snoozed {
                note(&mut tx, exception, "exception.snooze", &person(None), &json!({ "until": until }), now).await?;
            }
            tx.commit().await?;
            changed(&store, exception, snoozed, "snoozed", context).await
        }
    }
}

async fn list(
    store: &Store,
    mut filter: ExceptionFilter,
    limit: usize,
    now: Timestamp,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut listed: Vec<ExceptionRow> = Vec::new();
    while listed.len() < limit {
        let page = page(store, &filter, now).await?;
        let more = page.len() as i64 == filter.limit;
        filter.before = page.last().map(|exception| exception.id);
        listed.extend(page);
        if !more {
            break;
        }
    }
    listed.truncate(limit);
    if context.json {
        context.print_json(&listed.iter().map(document).collect::<Vec<_>>())?;
    } else {
        let headings = ["EXCEPTION", "TENANT", "KIND", "SUBJECT", "TIMES", "SINCE", "LAST", "DETAIL"];
        context.print_table(&headings, &listed.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(Exit::Done)
}

async fn page(store: &Store, filter: &ExceptionFilter, now: Timestamp) -> Result<Vec<ExceptionRow>, StoreError> {
    let mut tx = store.read().await?;
    exceptions::list(&mut tx, filter, now).await
}

async fn show(store: &Store, id: i64, context: &Context) -> Result<Exit, CliError> {
    let Some(exception) = one(store, id).await? else {
        return Ok(context.not_found(&format!("There is no exception {id}.")));
    };
    if context.json {
        context.print_json(&document(&exception))?;
        return Ok(Exit::Done);
    }
    let text = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
    let facts = [
        ("exception", exception.id.to_string()),
        ("tenant", exception.tenant.clone().unwrap_or_else(|| "-".to_owned())),
        ("kind", exception.kind.clone()),
        ("subject", exception.subject.clone()),
        ("detail", exception.detail.clone()),
        ("times", exception.occurrences.to_string()),
        ("since", text(Some(exception.opened_at))),
        ("last", text(Some(exception.updated_at))),
        ("snoozed until", text(exception.snoozed_until)),
        ("released", text(exception.released_at)),
        ("released by", exception.released_by.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    let rows: Vec<Vec<String>> = facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    context.print_table(&["EXCEPTION", ""], &rows)?;
    Ok(Exit::Done)
}

async fn one(store: &Store, id: i64) -> Result<Option<ExceptionRow>, StoreError> {
    let mut tx = store.read().await?;
    exceptions::one(&mut tx, id).await
}

/// Notes what was done to an exception, in the transaction that does it.
async fn note(tx: &mut Tx, id: i64, action: &str, by: &str, detail: &Value, now: Timestamp) -> Result<(), StoreError> {
    let Some(exception) = exceptions::one(tx, id).await? else { return Ok(()) };
    let entry = audit::Entry {
        tenant: exception.tenant.as_deref(),
        actor: by,
        action,
        account_id: None,
        subject: &format!("exception {id} {}", exception.kind),
        detail,
    };
    audit::append(tx, &entry, now).await
}

async fn changed(store: &Store, id: i64, done: bool, what: &str, context: &Context) -> Result<Exit, CliError> {
    let Some(exception) = one(store, id).await? else {
        return Ok(context.not_found(&format!("There is no exception {id}.")));
    };
    if !done {
        return Err(CliError::no(format!("exception {id} was released before")));
    }
    if context.json {
        context.print_json(&document(&exception))?;
    } else {
        context.print(&format!("Exception {id} ({} {}) is {what}.\n", exception.kind, exception.subject))?;
    }
    Ok(Exit::Done)
}

/// An exception as `--json` shows it.
fn document(exception: &ExceptionRow) -> Value {
    json!({
        "id": exception.id.to_string(),
        "tenant": exception.tenant,
        "kind": exception.kind,
        "subject": exception.subject,
        "detail": exception.detail,
        "occurrences": exception.occurrences,
        "opened_at": exception.opened_at,
        "updated_at": exception.updated_at,
        "snoozed_until": exception.snoozed_until,
        "released_at": exception.released_at,
        "released_by": exception.released_by,
    })
}

fn row(exception: &ExceptionRow) -> Vec<String> {
    vec![
        exception.id.to_string(),
        exception.tenant.clone().unwrap_or_else(|| "-".to_owned()),
        exception.kind.clone(),
        exception.subject.clone(),
        exception.occurrences.to_string(),
        format!("{:.0}", exception.opened_at),
        format!("{:.0}", exception.updated_at),
        exception.detail.clone(),
    ]
}

fn instant(text: &str) -> Result<Timestamp, String> {
    parse_instant(text).ok_or_else(|| format!("{text:?} is no instant; write one like 2026-11-23T08:00:00Z"))
}
