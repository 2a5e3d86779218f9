//! `migrate`: brings the database to this version's schema, or tells what that would do.

use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};

/// Applies what is lacking, or only lists it.
pub async fn run(dry_run: bool, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store().await?;
    let migrations = if dry_run { store.pending_migrations().await? } else { store.migrate().await? };
    store.close().await;
    if context.json {
        context.print_json(&json!({ "applied": !dry_run, "migrations": migrations }))?;
        return Ok(Exit::Done);
    }
    if migrations.is_empty() {
        eprintln!("The database is at this version.");
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = migrations
        .iter()
        .map(|step| vec![step.database.to_owned(), step.version.to_string(), step.description.clone()])
        .collect();
    context.print_table(&["DATABASE", "VERSION", "MIGRATION"], &rows)?;
    eprintln!("{}", if dry_run { "Nothing was changed." } else { "The database is now at this version." });
    Ok(Exit::Done)
}
