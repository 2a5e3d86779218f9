//! `line list` and `line explain`: invoice lines, and the whole computation of one down to its ledger entries.

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::billing::explain::Explanation;
use crate::billing::lines::Line;
use crate::store::billing::{LineFilter, lines};
use crate::store::rating::explain;
use crate::store::{accounts, catalog};
use crate::vocabulary::{AccountKey, SourceId, TenantId};

/// The commands of `lastmile line`.
#[derive(Subcommand)]
pub enum LineCommand {
    /// List invoice lines of closed batches.
    List {
        #[arg(long)]
        tenant: String,
        #[arg(long)]
        account: Option<String>,
        /// The account's source.
        #[arg(long, default_value = crate::vocabulary::DEFAULT_SOURCE)]
        source: String,
        #[arg(long)]
        cycle: Option<String>,
        /// The lines' own period; needs --cycle.
        #[arg(long, requires = "cycle")]
        period: Option<String>,
        #[arg(long)]
        batch: Option<String>,
        #[arg(long, default_value_t = 1000)]
        limit: i64,
    },
    /// Recompute a line from its ledger entries and compare; exit 3 when it does not match.
    Explain { line: String },
}

/// Headings of a list of lines.
pub const HEADINGS: [&str; 8] = ["line", "account", "service", "charge", "kind", "period", "quantity", "amount"];

/// Runs one of them.
pub async fn run(command: LineCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        LineCommand::List { tenant, account, source, cycle, period, batch, limit } => {
            let filter = LineFilter { tenant: Some(tenant), cycle, batch, limit, ..LineFilter::default() };
            list(filter, account, &source, period, context).await
        }
        LineCommand::Explain { line } => explain_line(&line, context).await,
    }
}

async fn list(
    mut filter: LineFilter,
    account: Option<String>,
    source: &str,
    period: Option<String>,
    context: &Context,
) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let mut tx = store.read().await?;
    let tenant = filter.tenant.clone().unwrap_or_default();
    if let Some(external_id) = account {
        let key = AccountKey { tenant: TenantId::parse(&tenant)?, source: SourceId::parse(source)?, external_id };
        match accounts::find(&mut tx, &key).await? {
            Some(row) => filter.account_id = Some(row.id),
            None => return Ok(context.not_found(&format!("There is no account {} of {tenant}.", key.external_id))),
        }
    }
    if let (Some(period), Some(cycle)) = (period, &filter.cycle) {
        let in_force = catalog::in_force(&mut tx, &tenant).await?;
        let Some(known) = in_force.as_ref().and_then(|current| current.catalog.cycles.get(cycle)) else {
            return Ok(context.not_found(&format!("There is no bill cycle {cycle} of {tenant}.")));
        };
        let period = known.calendar.named(&period).map_err(|error| CliError::usage(error.to_string()))?;
        filter.period_start = Some(period.start);
    }
    let found: Vec<Line> = lines(&mut tx, &filter).await?.into_iter().map(|stored| stored.line).collect();
    if context.json {
        context.print_json(&json!({ "items": found }))?;
    } else {
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        context.print_table(&HEADINGS, &rows)?;
    }
    Ok(Exit::Done)
}

/// One line as a row of a table.
pub fn row(line: &Line) -> Vec<String> {
    vec![
        line.id.clone(),
        line.account.clone(),
        line.service.clone().unwrap_or_default(),
        line.charge.clone(),
        line.kind.as_str().to_owned(),
        line.period.start.to_string(),
        format!("{} {}", line.quantity, line.unit),
        format!("{} {}", line.amount, line.currency),
    ]
}

async fn explain_line(id: &str, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let mut tx = store.read().await?;
    let Some(explanation) = explain(&mut tx, None, id).await? else {
        return Ok(context.not_found(&format!("There is no line {id}.")));
    };
    if context.json {
        context.print_json(&explanation)?;
    } else {
        context.print(&text(&explanation))?;
    }
    Ok(if explanation.differences.is_empty() { Exit::Done } else { Exit::No })
}

/// A line's computation for a person.
pub fn text(explanation: &Explanation) -> String {
    let line = &explanation.line;
    let mut out = format!(
        "{} {}\n  account {}, service {}, cycle {}, period {} to {} ({})\n  tariff {} version {}, digest {}\n",
        line.id,
        line.description,
        line.account,
        line.service.as_deref().unwrap_or("-"),
        line.cycle,
        line.period.start,
        line.period.end,
        line.period.timezone,
        line.tariff.id,
        line.tariff.version,
        line.tariff.digest
    );
    for edge in &explanation.coverage {
        out.push_str(&format!("  billed from {} to {}\n", edge.from, edge.until));
    }
    out.push_str(&format!("  share of the period {}\n", explanation.share));
    if let Some(usage) = &line.usage {
        out.push_str(&format!(
            "  {} ledger entries up to sequence {}, digest {}\n",
            usage.records, usage.watermark, usage.digest
        ));
        for entry in &explanation.entries {
            out.push_str(&format!(
                "    {:>6}  {} to {}  up {}  down {}  {} s  {} sessions\n",
                entry.sequence,
                entry.from,
                entry.until,
                entry.in_octets,
                entry.out_octets,
                entry.seconds,
                entry.sessions
            ));
        }
    }
    let now = &explanation.recomputed;
    out.push_str(&format!(
        "  counted {}, quantity {} {}, of it {} in the allowance\n",
        now.quantity_raw, now.quantity, line.unit, now.allowance_used
    ));
    for tier in &now.tiers {
        out.push_str(&format!(
            "    {} x {} + {} = {}\n",
            tier.quantity, tier.unit_amount, tier.flat_amount, tier.amount_exact
        ));
    }
    for step in &now.adjustments {
        out.push_str(&format!("    {} {}\n", step.kind, step.amount_exact));
    }
    out.push_str(&format!(
        "  exact {}, rounded ({}) {}\n  issued before {}, this line {} {}\n",
        now.amount_exact, explanation.rounding, now.amount, explanation.issued_before, line.amount, line.currency
    ));
    for tax in &line.tax {
        out.push_str(&format!("  tax {} {} % of {} = {}\n", tax.id, tax.rate, tax.base, tax.amount));
    }
    if explanation.differences.is_empty() {
        out.push_str("  recomputed: the same to the last digit\n");
    }
    for difference in &explanation.differences {
        out.push_str(&format!("  DIFFERS: {difference}\n"));
    }
    out
}
