//! `line list` and `line explain`: invoice lines, and the whole computation of one down to its ledger entries, or further
//! down to the records in the journal; and the pack that proves a line to somebody else.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::pack::{self, Pack};
use super::replayed::{self, from_journal};
use crate::billing::explain::Explanation;
use crate::billing::lines::{BucketKind, Line};
use crate::store::billing::{LineFilter, lines};
use crate::store::ledger::LedgerEntry;
use crate::store::rating::{LineGround, line_ground};
use crate::store::{Tx, accounts, catalog, ledger, sessions};
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
        /// Also when that batch is still a draft.
        #[arg(long, requires = "batch")]
        draft: bool,
        #[arg(long, default_value_t = 1000)]
        limit: i64,
    },
    /// Recompute a line from its ledger entries and compare; exit 3 when it does not match.
    Explain {
        line: String,
        /// Fold the records of its sessions anew, compare the ledger with them, and rate what they give.
        #[arg(long)]
        from_journal: bool,
        /// Write a dispute pack into a new folder: a page to read, all it was made from, and a program that checks it.
        #[arg(long, value_name = "DIR")]
        pack: Option<PathBuf>,
    },
}

/// Headings of a list of lines.
pub const HEADINGS: [&str; 8] = ["line", "account", "service", "charge", "kind", "period", "quantity", "amount"];

/// Runs one of them.
pub async fn run(command: LineCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        LineCommand::List { tenant, account, source, cycle, period, batch, draft, limit } => {
            let filter =
                LineFilter { tenant: Some(tenant), cycle, batch, drafts: draft, limit, ..LineFilter::default() };
            list(filter, account, &source, period, context).await
        }
        LineCommand::Explain { line, from_journal, pack } => {
            explain_line(&line, from_journal, pack.as_deref(), context).await
        }
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
    if !catalog::is_known(&mut tx, &tenant).await? {
        return Ok(context.not_found(&format!("There is no tenant {tenant}.")));
    }
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

async fn explain_line(id: &str, journal: bool, folder: Option<&Path>, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let mut tx = store.read_snapshot().await?;
    let ground = line_ground(&mut tx, None, id).await?;
    let entries = match &ground {
        Some(ground) if folder.is_some() => entries_of(&mut tx, ground).await?,
        _ => Vec::new(),
    };
    tx.rollback().await?;
    let Some(ground) = ground else {
        return Ok(context.not_found(&format!("There is no line {id}.")));
    };
    let explanation = ground.explain()?;
    let journal = if journal || folder.is_some() { from_journal(&store, &ground, context).await? } else { None };
    let mut packed = Vec::new();
    if let Some(folder) = folder {
        let journal = journal.as_ref();
        packed = pack::write(folder, &Pack { ground: &ground, explanation: &explanation, entries: &entries, journal })?;
    }
    if context.json {
        let mut document = json!(explanation);
        if let Some(journal) = &journal {
            document["journal"] = replayed::document(journal);
        }
        if let Some(folder) = folder {
            document["pack"] = json!({ "folder": folder, "files": packed });
        }
        context.print_json(&document)?;
    } else {
        context.print(&text(&explanation))?;
        if let Some(journal) = &journal {
            context.print(&replayed::text(journal))?;
        }
        if let Some(folder) = folder {
            context.print(&format!("pack of {} files in {}\n", packed.len(), folder.display()))?;
        }
    }
    let equal = explanation.differences.is_empty() && journal.is_none_or(|journal| journal.differences.is_empty());
    Ok(if equal { Exit::Done } else { Exit::No })
}

/// The line's ledger entries with the session each is of.
async fn entries_of(tx: &mut Tx, ground: &LineGround) -> Result<Vec<(LedgerEntry, String, String)>, CliError> {
    let Some(usage) = &ground.stored.line.usage else { return Ok(Vec::new()) };
    let counted: BTreeSet<i64> = ground.entries.iter().map(|entry| entry.sequence).collect();
    let mut sessions: HashMap<i64, (String, String)> = HashMap::new();
    let mut found = Vec::new();
    let mut after = counted.first().map_or(usage.watermark, |first| first - 1);
    loop {
        let page = ledger::of_account(tx, ground.account_id, after, ENTRIES_AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = last.sequence;
        let page: Vec<LedgerEntry> = page.into_iter().filter(|entry| counted.contains(&entry.sequence)).collect();
        let unknown: BTreeSet<i64> =
            page.iter().map(|entry| entry.session_id).filter(|id| !sessions.contains_key(id)).collect();
        for session in sessions::of_ids(tx, &unknown.into_iter().collect::<Vec<_>>()).await? {
            sessions.extend(session.id.map(|id| (id, (session.nas, session.session))));
        }
        for entry in page {
            let (nas, session) = sessions.get(&entry.session_id).cloned().unwrap_or_default();
            found.push((entry, nas, session));
        }
        if after >= usage.watermark {
            return Ok(found);
        }
    }
}

/// The hash by which both companies know that a wholesale line's books say the same.
fn handshake(line: &Line) -> Option<String> {
    let count = line.count.as_ref()?;
    let shape = count.handshake.as_ref()?;
    Some(format!("handshake of {} on {} ({}): {}", count.tenant, shape.day, shape.timezone, shape.root))
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
    if let Some(handshake) = handshake(line) {
        out.push_str(&format!("  {handshake}\n"));
    }
    if let Some(usage) = &line.usage {
        out.push_str(&format!(
            "  {} ledger entries up to sequence {}, digest {}\n",
            usage.records, usage.watermark, usage.digest
        ));
        for entry in &explanation.entries {
            out.push_str(&format!(
                "    {:>6}  {} to {}  up {}  down {}  {} s  {} sessions  {}\n",
                entry.sequence,
                entry.from,
                entry.until,
                entry.in_octets,
                entry.out_octets,
                entry.seconds,
                entry.sessions,
                entry.class.as_deref().unwrap_or("")
            ));
        }
    }
    let now = &explanation.recomputed;
    out.push_str(&format!(
        "  counted {}, quantity {} {}, of it {} in the allowance\n",
        now.quantity_raw, now.quantity, line.unit, now.allowance_used
    ));
    for part in &now.parts {
        let name = |word: &Option<String>, what: &str| word.as_ref().map(|word| format!("{what} {word}"));
        let calls = part.calls.map(|calls| format!("{calls} calls"));
        let words = [name(&part.class, "class"), name(&part.window, "window"), name(&part.prefix, "to"), calls];
        let words: Vec<String> = words.into_iter().flatten().collect();
        let what = if words.is_empty() { "other".to_owned() } else { words.join(", ") };
        let price = match &part.unit_amount {
            Some(price) => format!("at {price} = {}", part.amount_exact),
            None => format!("weight {}", part.weight),
        };
        out.push_str(&format!("    {what}: counted {}, {} {} {price}\n", part.quantity_raw, part.quantity, line.unit));
    }
    if let Some(shared) = &line.allowance {
        let on = shared.carried_on.as_ref().map(|on| format!(", {on} carried on")).unwrap_or_default();
        out.push_str(&format!(
            "    shared allowance: own {}, from earlier periods {}, used here {}{on}\n",
            shared.own, shared.carried_in, shared.used
        ));
        for bucket in &shared.buckets {
            let name = match (&bucket.kind, &bucket.id) {
                (BucketKind::TopUp, Some(id)) => format!("top-up {id}"),
                (BucketKind::Carried, _) => "carried over".to_owned(),
                _ => "of the period".to_owned(),
            };
            let until = bucket.until.map_or("used up".to_owned(), |until| until.to_string());
            let (quantity, used, left) = (&bucket.quantity, &bucket.used, &bucket.left);
            out.push_str(&format!("      {name}: {quantity}, used {used}, left {left}, until {until}\n"));
        }
    }
    for member in explanation.shared.iter().flat_map(|shared| &shared.members) {
        out.push_str(&format!(
            "      {}/{}: own {}, counted {}, given {}\n",
            member.account, member.service, member.own, member.quantity, member.used
        ));
    }
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
        "  exact {}, rounded ({}) {}, residue {}\n  issued before {}, this line {} {}\n",
        now.amount_exact,
        explanation.rounding,
        now.amount,
        now.rounding_residue,
        explanation.issued_before,
        line.amount,
        line.currency
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

const ENTRIES_AT_ONCE: i64 = 5_000;
