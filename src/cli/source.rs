//! `source list|report|forget|epoch new`: billing systems, what one that is only observed would have changed, and the next
//! epoch of revisions after one was restored from a backup.

use clap::Subcommand;
use serde_json::Value;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::who_acts;
use crate::intake::desk::Desk;
use crate::intake::systems::{named, observation, shown};
use crate::store::sources;
use crate::vocabulary::{SourceId, TenantId};

/// The commands of `lastmile source`.
#[derive(Subcommand)]
pub enum SourceCommand {
    /// List a tenant's billing systems: ways in, mode, guard, what is held and observed.
    List {
        #[arg(long)]
        tenant: TenantId,
    },
    /// Tell what a source with `mode = "observe"` would have changed: the last push of each account.
    Report {
        #[arg(long)]
        tenant: TenantId,
        #[arg(long, default_value = "default")]
        source: SourceId,
        /// Only create, update, unchanged, stale or close.
        #[arg(long)]
        would: Option<String>,
        /// At most so many accounts.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Forget what was observed of a source, to begin again.
    Forget {
        #[arg(long)]
        tenant: TenantId,
        #[arg(long, default_value = "default")]
        source: SourceId,
    },
    /// Epochs of a source's revisions.
    #[command(subcommand)]
    Epoch(EpochCommand),
}

/// The commands of `lastmile source epoch`.
#[derive(Subcommand)]
pub enum EpochCommand {
    /// Open the next one: revisions count anew, lower ones too.
    New {
        #[arg(long)]
        tenant: TenantId,
        #[arg(long, default_value = "default")]
        source: SourceId,
        #[arg(long)]
        reason: Option<String>,
        /// Who decided it; the user of this shell unless named.
        #[arg(long)]
        by: Option<String>,
    },
    /// List those that were opened, the newest first.
    List {
        #[arg(long)]
        tenant: TenantId,
        #[arg(long, default_value = "default")]
        source: SourceId,
    },
}

/// Rows read in one go.
const PAGE: i64 = 500;

/// Runs one of them.
pub async fn run(command: SourceCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match command {
        SourceCommand::List { tenant } => {
            let settings = context.config()?.sources;
            let mut tx = store.read().await?;
            let mut all = Vec::new();
            for source in named(&settings, &tenant) {
                all.push(shown(&mut tx, &settings, &tenant, &source, context.clock().now()).await?);
            }
            if context.json {
                context.print_json(&all)?;
            } else {
                let headings = ["SOURCE", "MODE", "PROFILES", "LIVING", "TAKEN IN 24 H", "HELD", "EPOCH"];
                context.print_table(&headings, &all.iter().map(row).collect::<Vec<_>>())?;
            }
            Ok(Exit::Done)
        }
        SourceCommand::Report { tenant, source, would, limit } => {
            let of = (tenant.as_str(), source.as_str());
            let mut tx = store.read().await?;
            let counts = sources::observed_counts(&mut tx, of.0, of.1).await?;
            let mut seen = Vec::new();
            while seen.len() < limit {
                let after = seen.last().map_or(String::new(), |one: &sources::Observation| one.account.clone());
                let page = sources::observations(&mut tx, of, would.as_deref(), &after, PAGE).await?;
                let more = page.len() as i64 == PAGE;
                seen.extend(page);
                if !more {
                    break;
                }
            }
            seen.truncate(limit);
            let accounts: Vec<Value> = seen.iter().map(observation).collect();
            if context.json {
                let counts: serde_json::Map<String, Value> =
                    counts.into_iter().map(|(would, count)| (would, count.into())).collect();
                context.print_json(&serde_json::json!({ "counts": counts, "accounts": accounts }))?;
            } else {
                let told: Vec<String> = counts.iter().map(|(would, count)| format!("{count} {would}")).collect();
                context.print(&format!("Would have: {}.\n", told.join(", ")))?;
                let list = |value: &Value| {
                    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                    texts.collect::<Vec<_>>().join(" ")
                };
                let rows = accounts.iter().map(|one| {
                    let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
                    vec![
                        text("account"),
                        text("would"),
                        list(&one["places"]),
                        list(&one["losses"]),
                        one["times"].to_string(),
                        text("last_at"),
                    ]
                });
                let headings = ["ACCOUNT", "WOULD", "PLACES", "LOSSES", "TIMES", "LAST"];
                context.print_table(&headings, &rows.collect::<Vec<_>>())?;
            }
            Ok(Exit::Done)
        }
        SourceCommand::Forget { tenant, source } => {
            let mut tx = store.write().await?;
            sources::forget_observations(&mut tx, tenant.as_str(), source.as_str()).await?;
            tx.commit().await?;
            context.print("Forgotten.\n")?;
            Ok(Exit::Done)
        }
        SourceCommand::Epoch(EpochCommand::New { tenant, source, reason, by }) => {
            let desk = Desk::alone(&store, &context.clock(), context.config()?.sources);
            let epoch = desk.open_epoch(&tenant, &source, &who_acts(by), reason.as_deref()).await?;
            if context.json {
                context.print_json(&serde_json::json!({ "tenant": tenant, "source": source, "epoch": epoch }))?;
            } else {
                context.print(&format!("Epoch {epoch} of source {source} is open: its revisions count anew.\n"))?;
            }
            Ok(Exit::Done)
        }
        SourceCommand::Epoch(EpochCommand::List { tenant, source }) => {
            let epochs = sources::epochs(&mut store.read().await?, tenant.as_str(), source.as_str()).await?;
            if context.json {
                let epochs: Vec<Value> = epochs
                    .iter()
                    .map(|one| serde_json::json!({ "epoch": one.epoch, "opened_at": one.opened_at, "opened_by": one.opened_by, "reason": one.reason }))
                    .collect();
                context.print_json(&epochs)?;
            } else {
                let rows = epochs.iter().map(|one| {
                    let reason = one.reason.clone().unwrap_or_else(|| "-".to_owned());
                    vec![one.epoch.to_string(), format!("{:.0}", one.opened_at), one.opened_by.clone(), reason]
                });
                context.print_table(&["EPOCH", "OPENED", "BY", "REASON"], &rows.collect::<Vec<_>>())?;
            }
            Ok(Exit::Done)
        }
    }
}

fn row(source: &Value) -> Vec<String> {
    let ways = source["ways"].as_array().into_iter().flatten();
    let profiles = ways.flat_map(|way| way["profiles"].as_array().into_iter().flatten());
    let profiles: Vec<&str> = profiles.filter_map(|profile| profile["name"].as_str()).collect();
    let text = |key: &str| source[key].as_str().map_or_else(|| source[key].to_string(), str::to_owned);
    let profiles = if profiles.is_empty() { "-".to_owned() } else { profiles.join(" ") };
    vec![text("source"), text("mode"), profiles, text("living"), text("taken_in_24_hours"), text("held"), text("epoch")]
}
