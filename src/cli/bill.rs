//! `bill …`: closes periods and previews them, and everything around it: check, approval, held corrections, rating anew,
//! another system's lines beside ours.

use std::path::PathBuf;

use clap::Subcommand;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::context::Context;
use super::deed::note;
use super::exit::{CliError, Exit};
use super::{bill_compare, bill_month};
use crate::biller::{BillerError, Order, Report, Watch, close_period};
use crate::billing::lines::{Line, StoredLine};
use crate::store::rating::RatingError;

/// The commands of `lastmile bill`.
#[derive(Subcommand)]
pub enum BillCommand {
    /// Close a period: emit what is due and was not issued yet. Safe to repeat.
    ///
    /// Where the cycle says `approval = "required"` the run leaves a draft instead.
    Run {
        #[command(flatten)]
        of: PeriodArguments,
        /// Show the lines and keep nothing; also for a running period.
        #[arg(long)]
        dry_run: bool,
    },
    /// What to look at before the bills of a period go out; exit 3 until everything is mended or waived.
    Check {
        #[command(flatten)]
        of: PeriodArguments,
    },
    /// Live with findings of `check` or `compare`.
    Waive {
        #[arg(required = true)]
        findings: Vec<String>,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Who decided; the user of this shell unless named.
        #[arg(long)]
        by: Option<String>,
    },
    /// Approve a checked draft: that closes it.
    Approve {
        batch: String,
        /// Who approves; the user of this shell unless named.
        #[arg(long)]
        by: Option<String>,
    },
    /// Throw a draft away.
    Discard { batch: String },
    /// List batches, drafts too.
    List {
        #[arg(long)]
        tenant: String,
    },
    /// What each level of a source's trees costs: its own lines of a period, and those of all below it.
    Rollup(super::tree::RollupArguments),
    /// Corrections that the tenant's policy keeps off the invoices.
    Held {
        #[arg(long)]
        tenant: String,
        #[arg(long)]
        cycle: Option<String>,
    },
    /// Rate a closed period anew with this program: shows what would change. Nothing else ever does that.
    Rerate {
        #[command(flatten)]
        of: PeriodArguments,
        /// Issue the differences.
        #[arg(long)]
        approve: bool,
    },
    /// Compare another system's lines of a period with ours; exit 3 while a difference is not accepted with `waive`.
    Compare {
        /// CSV with a line of headings.
        file: PathBuf,
        #[command(flatten)]
        of: PeriodArguments,
        #[command(flatten)]
        columns: bill_compare::Columns,
    },
}

/// Which period of which cycle.
#[derive(clap::Args)]
pub struct PeriodArguments {
    #[arg(long)]
    pub tenant: String,
    #[arg(long)]
    pub cycle: String,
    /// The period by its first day, `2026-11-15`, or its month, `2026-11`; the latest ended one unless named.
    #[arg(long)]
    pub period: Option<String>,
}

/// Runs one of them.
pub async fn run(command: BillCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        BillCommand::Run { of, dry_run } => close(of, dry_run, context).await,
        BillCommand::Check { of } => bill_month::check(of, context).await,
        BillCommand::Waive { findings, reason, by } => bill_month::waive(&findings, &reason, by, context).await,
        BillCommand::Approve { batch, by } => bill_month::approve(&batch, by, context).await,
        BillCommand::Discard { batch } => bill_month::discard(&batch, context).await,
        BillCommand::List { tenant } => bill_month::list(&tenant, context).await,
        BillCommand::Rollup(asked) => super::tree::sums(asked, context).await,
        BillCommand::Held { tenant, cycle } => bill_month::held(&tenant, cycle.as_deref(), context).await,
        BillCommand::Rerate { of, approve } => rerate(of, approve, context).await,
        BillCommand::Compare { file, of, columns } => bill_compare::run(&file, of, &columns, context).await,
    }
}

async fn close(of: PeriodArguments, dry_run: bool, context: &Context) -> Result<Exit, CliError> {
    let order = Order { tenant: of.tenant, cycle: of.cycle, period: of.period, dry_run, rerate: false };
    let (report, lines) = match made(&order, !context.json && !dry_run, context).await? {
        Ok(made) => made,
        Err(exit) => return Ok(exit),
    };
    tell(&report);
    if context.json {
        let drafted = report.draft;
        let mut answer = document(&report, &lines);
        if drafted {
            answer["draft"] = json!(true);
        }
        context.print_json(&answer)?;
    } else {
        print(&report, &lines, dry_run, context)?;
    }
    Ok(if report.failed.is_empty() { Exit::Done } else { Exit::Failed })
}

async fn rerate(of: PeriodArguments, approve: bool, context: &Context) -> Result<Exit, CliError> {
    let order = Order { tenant: of.tenant, cycle: of.cycle, period: of.period, dry_run: !approve, rerate: true };
    let (report, lines) = match made(&order, false, context).await? {
        Ok(made) => made,
        Err(exit) => return Ok(exit),
    };
    tell(&report);
    if context.json {
        context.print_json(&document(&report, &lines))?;
    } else {
        print(&report, &lines, true, context)?;
        context.print(match (approve, lines.is_empty()) {
            (true, _) => "",
            (false, true) => "Rated anew it is what was billed.\n",
            (false, false) => "Nothing was changed; repeat with --approve to issue these lines.\n",
        })?;
    }
    Ok(if report.failed.is_empty() { Exit::Done } else { Exit::Failed })
}

fn document(report: &Report, lines: &[Line]) -> Value {
    json!({ "batch": report.batch, "lines": lines, "totals": report.totals, "handshakes": report.handshakes })
}

/// Makes a run, with its lines unless it is `quiet`; the inner error is an answer "no" that was told.
async fn made(order: &Order, quiet: bool, context: &Context) -> Result<Result<(Report, Vec<Line>), Exit>, CliError> {
    let store = context.store().await?;
    let mut seen = Seen { bar: context.progress(0, "accounts"), lines: Vec::new(), quiet };
    let result = close_period(&store, &context.clock(), order, &mut seen).await;
    seen.bar.finish_and_clear();
    match refused(result, context)? {
        Ok(report) if order.dry_run => Ok(Ok((report, seen.lines))),
        Ok(report) => {
            let action = if order.rerate { "bill.rerate" } else { "bill.run" };
            let detail = json!({ "batch": report.batch, "period": report.period, "lines": report.lines });
            note(&store, Some(&order.tenant), action, &order.cycle, &detail, context).await?;
            Ok(Ok((report, seen.lines)))
        }
        Err(exit) => Ok(Err(exit)),
    }
}

/// Tells what is a "no" and what is a wrong command line.
pub fn refused<T>(result: Result<T, BillerError>, context: &Context) -> Result<Result<T, Exit>, CliError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(BillerError::Rating(error @ (RatingError::NoTenant(_) | RatingError::NoCycle { .. }))) => {
            Ok(Err(context.not_found(&format!("{error}."))))
        }
        Err(BillerError::Rating(error @ RatingError::Calendar(_))) => Err(CliError::usage(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn tell(report: &Report) {
    for (account, reason) in &report.failed {
        eprintln!("Account {account} was not billed: {reason}. It is in the exceptions; the next run tries again.");
    }
    for (account, held) in &report.held {
        eprintln!(
            "Account {account}: a correction of {} {} ({} of {}) was held back by the tenant's policy.",
            held.amount, held.amount.currency, held.key.charge, held.key.service
        );
    }
}

fn print(report: &Report, lines: &[Line], show: bool, context: &Context) -> Result<(), CliError> {
    if show && !lines.is_empty() {
        let rows: Vec<Vec<String>> = lines.iter().map(super::line::row).collect();
        context.print_table(&super::line::HEADINGS, &rows)?;
    }
    let what = match (&report.batch, report.draft) {
        (Some(batch), true) => format!("draft {batch}"),
        (Some(batch), false) => format!("batch {batch}"),
        (None, _) if show => "preview".to_owned(),
        (None, _) => "nothing new".to_owned(),
    };
    let start = report.period.start;
    context
        .print(&format!("{what}: {} lines for {} accounts, period from {start}\n", report.lines, report.accounts))?;
    for total in &report.totals {
        context.print(&format!("  {} {} + tax {} = {}\n", total.currency, total.amount, total.tax, total.total))?;
    }
    report.handshakes.iter().try_for_each(|one| {
        context.print(&format!("  handshake of {} on {} ({}): {}\n", one.tenant, one.day, one.timezone, one.root))
    })
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
