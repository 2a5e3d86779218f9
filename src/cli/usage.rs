//! `usage show` and `usage unattributed`: what a subscriber used, and what nobody is known to have used.

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::session::which_account;
use crate::billing::view::{self, By};
use crate::store::usage::{accounts_named, of_account, unattributed};
use crate::store::{Store, cycles};
use crate::vocabulary::Timestamp;

/// The commands of `lastmile usage`.
#[derive(Subcommand)]
pub enum UsageCommand {
    /// Show an account's usage; without a range, of its running period.
    Show {
        /// The account's external id.
        account: String,
        /// Whose account it is, where several have that id.
        #[arg(long)]
        tenant: Option<String>,
        /// Of which billing system it is, where several have that id.
        #[arg(long)]
        source: Option<String>,
        /// From this instant on, for example 2026-11-01T00:00:00Z.
        #[arg(long)]
        from: Option<Timestamp>,
        /// Up to this instant.
        #[arg(long)]
        to: Option<Timestamp>,
        /// The width of a row: hour, day or cycle.
        #[arg(long, default_value = "cycle")]
        by: By,
    },
    /// List usage whose user name nobody holds.
    Unattributed {
        /// At most so many rows.
        #[arg(long, default_value_t = 1000)]
        limit: i64,
    },
}

/// Runs one of them.
pub async fn run(command: UsageCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match command {
        UsageCommand::Show { account, tenant, source, from, to, by } => {
            let mut tx = store.read().await?;
            let found = accounts_named(&mut tx, &account, tenant.as_deref(), source.as_deref(), 2).await?;
            tx.rollback().await?;
            let [(id, ..)] = found.as_slice() else { return which_account(&account, found.len(), context) };
            show(&store, (*id, &account), (from, to), by, context).await
        }
        UsageCommand::Unattributed { limit } => list_unattributed(&store, limit, context).await,
    }
}

async fn show(
    store: &Store,
    (id, account): (i64, &str),
    (from, to): (Option<Timestamp>, Option<Timestamp>),
    by: By,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut tx = store.read().await?;
    let cycle = cycles::of_account(&mut tx, id).await?.unwrap_or_else(view::fallback_cycle);
    let period = cycle.period_at(from.unwrap_or_else(|| context.clock.now()))?;
    let (from, to) = (from.unwrap_or(period.start), to.unwrap_or(period.end));
    let edges = view::edges(&cycle, from, to)?;
    let pieces = of_account(&mut tx, id, from, to, &edges).await?;
    let rows = view::sum(pieces.into_iter().map(|piece| (piece.service, piece.bucket)), &cycle, by)?;
    let total = view::total(&rows)?;
    if context.json {
        let items: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({ "service": row.service, "from": row.from, "to": row.until, "in_octets": row.amount.in_octets,
                    "out_octets": row.amount.out_octets, "seconds": row.amount.seconds, "sessions": row.amount.sessions })
            })
            .collect();
        let total = json!({ "in_octets": total.in_octets, "out_octets": total.out_octets, "seconds": total.seconds,
            "sessions": total.sessions });
        let document = json!({ "account": account, "cycle": cycle.id, "timezone": cycle.timezone, "from": from,
            "to": to, "items": items, "total": total });
        context.print_json(&document)?;
        return Ok(Exit::Done);
    }
    let mut table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let numbers = [row.amount.in_octets, row.amount.out_octets, row.amount.seconds, row.amount.sessions];
            let words = [row.service.clone(), row.from.to_string(), row.until.to_string()];
            words.into_iter().chain(numbers.map(|number| number.to_string())).collect()
        })
        .collect();
    let numbers = [total.in_octets, total.out_octets, total.seconds, total.sessions];
    let words = ["total".to_owned(), from.to_string(), to.to_string()];
    table.push(words.into_iter().chain(numbers.map(|number| number.to_string())).collect());
    context.print_table(&["SERVICE", "FROM", "TO", "IN", "OUT", "SECONDS", "SESSIONS"], &table)?;
    Ok(Exit::Done)
}

async fn list_unattributed(store: &Store, limit: i64, context: &Context) -> Result<Exit, CliError> {
    let mut tx = store.read().await?;
    let found = unattributed(&mut tx, limit).await?;
    if context.json {
        context.print_json(&found)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = found
        .into_iter()
        .map(|row| {
            vec![
                row.user.unwrap_or_else(|| "-".to_owned()),
                row.nas,
                row.sessions.to_string(),
                row.in_octets.to_string(),
                row.out_octets.to_string(),
                row.first_at.to_string(),
                row.last_at.to_string(),
            ]
        })
        .collect();
    context.print_table(&["USER", "NAS", "SESSIONS", "IN", "OUT", "FIRST", "LAST"], &rows)?;
    Ok(Exit::Done)
}
