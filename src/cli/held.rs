//! `held list|show|release|drop`: changes of billing systems that would take too much away and wait for an operator.

use clap::Subcommand;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::who_acts;
use crate::account::Loss;
use crate::intake::desk::Desk;
use crate::intake::held::{SettleError, shown};
use crate::store::breaker::{self, HeldChange};
use crate::store::{Store, StoreError};

/// The commands of `lastmile held`.
#[derive(Subcommand)]
pub enum HeldCommand {
    /// List what waits, the oldest first.
    List {
        #[arg(long)]
        tenant: Option<String>,
        #[arg(long)]
        source: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Show one: what it takes away, who sent it, how often.
    Show { held: i64 },
    /// Do it now, whatever it takes away.
    Release {
        #[command(flatten)]
        which: Which,
    },
    /// Drop it: the account stays as it is until its source sends it again.
    Drop {
        #[command(flatten)]
        which: Which,
    },
}

/// Some by their numbers, or all of a source.
#[derive(clap::Args)]
pub struct Which {
    /// Their numbers.
    #[arg(required_unless_present = "all")]
    held: Vec<i64>,
    /// Everything of a source.
    #[arg(long, requires = "tenant", conflicts_with = "held")]
    all: bool,
    #[arg(long)]
    tenant: Option<String>,
    #[arg(long, default_value = "default")]
    source: String,
    /// Who decided it; the user of this shell unless named.
    #[arg(long)]
    by: Option<String>,
}

/// Rows read in one go.
const PAGE: i64 = 500;

/// Runs one of them.
pub async fn run(command: HeldCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match command {
        HeldCommand::List { tenant, source, limit } => {
            let held = read(&store, tenant.as_deref(), source.as_deref(), limit).await?;
            if context.json {
                context.print_json(&held.iter().map(shown).collect::<Vec<_>>())?;
            } else {
                let headings =
                    ["HELD", "TENANT", "SOURCE", "ACCOUNT", "KIND", "TAKES AWAY", "TIMES", "SINCE", "SENT BY"];
                context.print_table(&headings, &held.iter().map(row).collect::<Vec<_>>())?;
            }
            Ok(Exit::Done)
        }
        HeldCommand::Show { held } => {
            let Some(found) = breaker::one(&mut store.read().await?, held).await? else {
                return Ok(context.not_found(&format!("Nothing with the number {held} waits.")));
            };
            if context.json {
                context.print_json(&shown(&found))?;
            } else {
                context.print(&format!("{:#}\n", shown(&found)))?;
            }
            Ok(Exit::Done)
        }
        HeldCommand::Release { which } => settle(&store, which, true, context).await,
        HeldCommand::Drop { which } => settle(&store, which, false, context).await,
    }
}

async fn settle(store: &Store, which: Which, release: bool, context: &Context) -> Result<Exit, CliError> {
    let mut held = Vec::new();
    if which.all {
        held = read(store, which.tenant.as_deref(), Some(&which.source), usize::MAX).await?;
    }
    for id in which.held {
        match breaker::one(&mut store.read().await?, id).await? {
            Some(found) => held.push(found),
            None => return Ok(context.not_found(&format!("Nothing with the number {id} waits."))),
        }
    }
    let desk = Desk::alone(store, &context.clock(), context.config()?.sources);
    let by = who_acts(which.by);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for one in &held {
        match desk.settle(one, release, &by).await {
            Ok(_) => done.push(one.id),
            Err(SettleError::Store(error)) => return Err(error.into()),
            Err(error) => failed.push((one.id, error.to_string())),
        }
    }
    let word = if release { "released" } else { "dropped" };
    if context.json {
        let failed: Vec<_> =
            failed.iter().map(|(id, why)| serde_json::json!({ "id": id.to_string(), "reason": why })).collect();
        let done: Vec<String> = done.iter().map(ToString::to_string).collect();
        context.print_json(&serde_json::json!({ word: done, "failed": failed }))?;
    } else {
        context.print(&format!("{} changes are {word}.\n", done.len()))?;
        for (id, why) in &failed {
            context.print(&format!("{id} waits on: {why}\n"))?;
        }
    }
    Ok(if failed.is_empty() { Exit::Done } else { Exit::Failed })
}

async fn read(
    store: &Store,
    tenant: Option<&str>,
    source: Option<&str>,
    limit: usize,
) -> Result<Vec<HeldChange>, StoreError> {
    let mut held: Vec<HeldChange> = Vec::new();
    while held.len() < limit {
        let after = held.last().map(|one| one.id);
        let page = breaker::list(&mut store.read().await?, tenant, source, after, PAGE).await?;
        let more = page.len() as i64 == PAGE;
        held.extend(page);
        if !more {
            break;
        }
    }
    held.truncate(limit);
    Ok(held)
}

fn row(held: &HeldChange) -> Vec<String> {
    vec![
        held.id.to_string(),
        held.key.tenant.to_string(),
        held.key.source.to_string(),
        held.key.external_id.clone(),
        held.kind.as_str().to_owned(),
        held.losses.iter().map(Loss::words).collect::<Vec<_>>().join("; "),
        held.times.to_string(),
        format!("{:.0}", held.held_at),
        held.actor.clone(),
    ]
}
