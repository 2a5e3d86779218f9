//! `event list`: what happened to a tenant's accounts and bills, in the order of its numbers.

use clap::Subcommand;
use serde_json::Value;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::intake::event_view;
use crate::store::Store;
use crate::store::events::{self, Event, EventFilter};
use crate::vocabulary::TenantId;

/// The commands of `lastmile event`.
#[derive(Subcommand)]
pub enum EventCommand {
    /// List a tenant's events, the oldest first.
    List {
        #[arg(long)]
        tenant: TenantId,
        /// Only events after this number.
        #[arg(long, default_value_t = 0)]
        after: i64,
        /// Only of this type, for example usage.threshold.
        #[arg(long = "type")]
        kind: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
}

/// Rows read in one go.
const PAGE: i64 = 1000;

/// Runs one of them.
pub async fn run(command: EventCommand, context: &Context) -> Result<Exit, CliError> {
    let EventCommand::List { tenant, after, kind, limit } = command;
    let store = context.store().await?;
    let found = read(&store, tenant.as_str(), after, kind.as_deref(), limit).await;
    store.close().await;
    let found = found?;
    if context.json {
        context.print_json(&found.iter().map(event_view).collect::<Vec<Value>>())?;
        return Ok(Exit::Done);
    }
    let row = |event: &Event| {
        let at = format!("{:.0}", event.occurred_at);
        vec![event.sequence.to_string(), at, event.kind.clone(), event.subject.clone(), event.payload.to_string()]
    };
    context.print_table(&["EVENT", "AT", "TYPE", "SUBJECT", "DATA"], &found.iter().map(row).collect::<Vec<_>>())?;
    Ok(Exit::Done)
}

async fn read(
    store: &Store,
    tenant: &str,
    mut after: i64,
    kind: Option<&str>,
    limit: usize,
) -> Result<Vec<Event>, CliError> {
    let mut found = Vec::new();
    while found.len() < limit {
        let filter = EventFilter { tenant, after, kind, limit: PAGE };
        let page = events::list(&mut store.read().await?, &filter).await?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        found.extend(page);
    }
    found.truncate(limit);
    Ok(found)
}
