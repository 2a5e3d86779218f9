//! `handshake show|compare`: the hash that two companies compute of the same services, and where they differ.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::billing::handshake::Tree;
use crate::store::handshake::{HandshakeDay, HandshakeError, tree};
use crate::vocabulary::{Date, SourceId, TenantId, Zone};

/// The commands of `lastmile handshake`.
#[derive(Subcommand)]
pub enum HandshakeCommand {
    /// Print the hash of a day's services, or one node of its tree, or its lines.
    Show {
        #[command(flatten)]
        of: DayArguments,
        /// A node of the tree by its hexadecimal digits.
        #[arg(long)]
        path: Option<String>,
        /// Print every line, as the other side must have it.
        #[arg(long, conflicts_with = "path")]
        lines: bool,
    },
    /// Compare the other side's lines with ours, down through unequal nodes; exit 3 when they differ.
    Compare {
        /// Its lines: source, account, service, plan, status, day, with tabs between.
        file: PathBuf,
        #[command(flatten)]
        of: DayArguments,
    },
}

/// Which day of whom.
#[derive(Args)]
pub struct DayArguments {
    #[arg(long)]
    tenant: TenantId,
    /// Only this source's services.
    #[arg(long)]
    source: Option<SourceId>,
    /// The day; yesterday unless named.
    #[arg(long, value_name = "DAY")]
    on: Option<Date>,
    /// The zone the day ends in; the tenant's unless named.
    #[arg(long)]
    timezone: Option<String>,
}

/// Runs one of them.
pub async fn run(command: HandshakeCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        HandshakeCommand::Show { of, path, lines } => show(&of, path.as_deref(), lines, context).await,
        HandshakeCommand::Compare { file, of } => compare(&file, &of, context).await,
    }
}

async fn show(of: &DayArguments, path: Option<&str>, lines: bool, context: &Context) -> Result<Exit, CliError> {
    let day = read(of, context).await?;
    if lines {
        for line in day.tree.lines("") {
            context.print(&format!("{line}\n"))?;
        }
        return Ok(Exit::Done);
    }
    if let Some(path) = path {
        let node = day.tree.node(path).ok_or_else(|| CliError::usage("a path is of hexadecimal digits, at most 64"))?;
        if context.json {
            context.print_json(&node)?;
            return Ok(Exit::Done);
        }
        context.print(&format!("{} {} ({} services)\n", node.path, node.hash, node.rows))?;
        for child in &node.children {
            context.print(&format!("  {} {} ({})\n", child.path, child.hash, child.rows))?;
        }
        for line in &node.items {
            context.print(&format!("  {line}\n"))?;
        }
        return Ok(Exit::Done);
    }
    if context.json {
        context.print_json(&json!({
            "day": day.day, "timezone": day.timezone, "provisional": day.provisional, "rows": day.tree.len(),
            "root": day.tree.root(),
        }))?;
        return Ok(Exit::Done);
    }
    if day.provisional {
        eprintln!("{} is not over in {}: this is as it is now.", day.day, day.timezone);
    }
    context.print(&format!("{} {} ({} services, {})\n", day.day, day.tree.root(), day.tree.len(), day.timezone))?;
    Ok(Exit::Done)
}

async fn compare(file: &std::path::Path, of: &DayArguments, context: &Context) -> Result<Exit, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CliError::failed(format!("cannot read {}: {error}", file.display())))?;
    let theirs = Tree::of_lines(text.lines().filter(|line| !line.is_empty())).map_err(|number| {
        let wanted = "source, account, service, plan, status and day with tabs between";
        CliError::failed(format!("{}: line {number} is not {wanted}", file.display()))
    })?;
    let day = read(of, context).await?;
    let (ours_root, their_root) = (day.tree.root(), theirs.root());
    let found = day.tree.unlike(&theirs);
    if context.json {
        context.print_json(&json!({
            "day": day.day, "ours": ours_root, "theirs": their_root, "equal": ours_root == their_root, "unlike": found,
        }))?;
    } else if ours_root == their_root {
        context.print(&format!("{}: equal, {ours_root}, {} services\n", day.day, day.tree.len()))?;
    } else {
        context.print(&format!("{}: ours {ours_root}, theirs {their_root}\n", day.day))?;
        for (word, lines) in [("ours  ", &found.only_ours), ("theirs", &found.only_theirs)] {
            for line in lines {
                context.print(&format!("{word} {line}\n"))?;
            }
        }
        eprintln!("{} nodes were compared.", found.questions);
    }
    Ok(if ours_root == their_root { Exit::Done } else { Exit::No })
}

async fn read(of: &DayArguments, context: &Context) -> Result<HandshakeDay, CliError> {
    let zone = of.timezone.as_ref().map(|name| Zone::get(name).map(|zone| (name.clone(), zone))).transpose();
    let zone = zone.map_err(|error| CliError::usage(format!("--timezone: {error}")))?;
    let store = context.store().await?;
    let mut tx = store.read_snapshot().await?;
    let source = of.source.as_ref().map(SourceId::as_str);
    match tree(&mut tx, of.tenant.as_str(), source, of.on, zone, context.clock().now()).await {
        Ok(day) => Ok(day),
        Err(error @ (HandshakeError::NoTenant(_) | HandshakeError::Future)) => Err(CliError::no(error.to_string())),
        Err(HandshakeError::Store(error)) => Err(error.into()),
        Err(error) => Err(CliError::failed(error.to_string())),
    }
}
