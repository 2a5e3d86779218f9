//! `bill run`: closes the latest ended period of a cycle or the named one, or previews one.

use clap::Subcommand;
use indicatif::ProgressBar;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::biller::{BillerError, Order, Report, Watch, close_period};
use crate::billing::lines::{Line, StoredLine};
use crate::store::rating::RatingError;

/// The commands of `lastmile bill`.
#[derive(Subcommand)]
pub enum BillCommand {
    /// Close a period: emit what is due and was not issued yet. Safe to repeat.
    Run {
        #[arg(long)]
        tenant: String,
        #[arg(long)]
        cycle: String,
        /// The period by its first day, `2026-11-15`, or its month, `2026-11`.
        #[arg(long)]
        period: Option<String>,
        /// Show the lines and keep nothing; also for a running period.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs one of them.
pub async fn run(command: BillCommand, context: &Context) -> Result<Exit, CliError> {
    let BillCommand::Run { tenant, cycle, period, dry_run } = command;
    let order = Order { tenant, cycle, period, dry_run };
    let store = context.store().await?;
    let mut seen = Seen { bar: context.progress(0, "accounts"), lines: Vec::new(), quiet: !context.json && !dry_run };
    let result = close_period(&store, &context.clock(), &order, &mut seen).await;
    seen.bar.finish_and_clear();
    let report = match result {
        Ok(report) => report,
        Err(BillerError::Rating(error @ (RatingError::NoTenant(_) | RatingError::NoCycle { .. }))) => {
            return Ok(context.not_found(&format!("{error}.")));
        }
        Err(BillerError::Rating(error @ RatingError::Calendar(_))) => return Err(CliError::usage(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    for (account, reason) in &report.failed {
        eprintln!("Account {account} was not billed: {reason}. It is in the exceptions; the next run tries again.");
    }
    for (account, held) in &report.held {
        eprintln!(
            "Account {account}: a correction of {} {} ({} of {}) was held back by the tenant's policy.",
            held.amount, held.amount.currency, held.charge, held.service
        );
    }
    if context.json {
        context.print_json(&json!({ "batch": report.batch, "lines": seen.lines, "totals": report.totals }))?;
    } else {
        print(&report, &seen.lines, dry_run, context)?;
    }
    Ok(if report.failed.is_empty() { Exit::Done } else { Exit::Failed })
}

fn print(report: &Report, lines: &[Line], dry_run: bool, context: &Context) -> Result<(), CliError> {
    if dry_run && !lines.is_empty() {
        let rows: Vec<Vec<String>> = lines.iter().map(super::line::row).collect();
        context.print_table(&super::line::HEADINGS, &rows)?;
    }
    let what = match (&report.batch, dry_run) {
        (_, true) => "preview".to_owned(),
        (Some(batch), false) => format!("batch {batch}"),
        (None, false) => "nothing new".to_owned(),
    };
    let start = report.period.start;
    context
        .print(&format!("{what}: {} lines for {} accounts, period from {start}\n", report.lines, report.accounts))?;
    for total in &report.totals {
        context.print(&format!("  {} {} + tax {} = {}\n", total.currency, total.amount, total.tax, total.total))?;
    }
    Ok(())
}

/// Shows progress and keeps the lines where they are printed.
struct Seen {
    bar: ProgressBar,
    lines: Vec<Line>,
    quiet: bool,
}

impl Watch for Seen {
    fn account(&mut self, done: u64, of: u64) {
        self.bar.set_length(of);
        self.bar.set_position(done);
    }
    fn line(&mut self, line: &StoredLine) {
        if !self.quiet {
            self.lines.push(line.line.clone());
        }
    }
}
