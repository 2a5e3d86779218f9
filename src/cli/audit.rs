//! `audit verify [--repair]`: folds the whole accounting journal anew, compares sessions, ledger and totals, computes
//! every line again, proves for each period that every octet of the records is on a line or has a reason not to be, and
//! follows the audit's chains. Beside it `audit list` and `audit head`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value, json};

use super::audit_trail::{self, ListArguments};
use super::balance_sheet::{self, Row};
use super::completeness::{self, CompletenessArguments};
use super::context::Context;
use super::deed::note;
use super::exit::{CliError, Exit};
use crate::biller::assurance::{Proof, prove};
use crate::collector::fold::{Finding, Verdict, Verifier, What};
use crate::daemon::nas_table;
use crate::store::{Store, verify};
use crate::usage::Amount;
use crate::vocabulary::TenantId;

/// The commands of `lastmile audit`.
#[derive(Subcommand)]
pub enum AuditCommand {
    /// Fold the whole journal anew and compare sessions, ledger, totals and lines with it: every octet of every period
    /// is billed, in an allowance, not metered, not billed yet, nobody's or refused. And follow the audit's chains. Exit 3:
    /// something differs; the first broken deed is named.
    Verify {
        /// Only the audit's chains.
        #[arg(long, conflicts_with = "repair")]
        chain: bool,
        /// Heads that were kept elsewhere: what `audit head` printed, or the daemon's log.
        #[arg(long, value_name = "FILE")]
        heads: Option<PathBuf>,
        /// Rebuild what differs: new ledger entries for the differences, sessions and totals as they must be.
        #[arg(long)]
        repair: bool,
    },
    /// Tell what accounting may have missed: modems online without it, sessions that were silent; in octets and in
    /// money. Exit 3: something was found.
    Completeness(CompletenessArguments),
    /// Who did what to whom, the newest first.
    List(ListArguments),
    /// How far each chain of the audit has come, signed: keep it elsewhere, for `audit verify --heads`.
    Head {
        #[arg(long)]
        tenant: Option<TenantId>,
    },
}

/// Runs one of them.
pub async fn run(command: AuditCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        AuditCommand::Verify { chain: true, heads, .. } => verify_chains(heads, context).await,
        AuditCommand::Verify { repair, heads, .. } => verify_all(repair, heads, context).await,
        AuditCommand::List(arguments) => audit_trail::list(arguments, context).await,
        AuditCommand::Head { tenant } => audit_trail::head(tenant, context).await,
        AuditCommand::Completeness(arguments) => completeness::run(arguments, context).await,
    }
}

async fn verify_chains(heads: Option<PathBuf>, context: &Context) -> Result<Exit, CliError> {
    let heads = heads.as_deref().map(audit_trail::published).transpose()?.unwrap_or_default();
    let store = context.store().await?;
    let walked = audit_trail::walk(&store, &heads, context).await;
    store.close().await;
    let walked = walked?;
    match context.json {
        true => context
            .print_json(&json!({ "equal": walked.breaks.is_empty(), "audit": audit_trail::document(&walked) }))?,
        false => context.print(&audit_trail::page(&walked))?,
    }
    Ok(if walked.breaks.is_empty() { Exit::Done } else { Exit::No })
}

async fn verify_all(repair: bool, heads: Option<PathBuf>, context: &Context) -> Result<Exit, CliError> {
    let heads = heads.as_deref().map(audit_trail::published).transpose()?.unwrap_or_default();
    let config = context.config()?;
    let store = context.store().await?;
    let walked = audit_trail::walk(&store, &heads, context).await?;
    let bar = context.progress(1, "Folding the journal anew");
    let verifier = Verifier::new(store.clone(), context.clock(), Arc::new(nas_table(&config)), repair);
    let verdict = verifier
        .run(|done, of| {
            bar.set_length(of);
            bar.set_position(done);
        })
        .await;
    bar.finish_and_clear();
    let verdict = verdict?;
    let findings = named(&store, &verdict.findings).await?;
    let bar = context.progress(1, "Computing the lines anew");
    let proof = prove(&store, &verdict.flows.moved, |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    let proof = proof?;
    if verdict.repaired > 0 {
        let detail = json!({ "differences": verdict.differences, "repaired": verdict.repaired });
        note(&store, None, "audit.repair", "what the journal says", &detail, context).await?;
    }
    store.close().await;
    // What was repaired was counted before; another look proves the octets.
    let rows = if verdict.repaired == 0 { balance_sheet::rows(&verdict, &proof) } else { Vec::new() };
    let broken = rows.iter().filter(|row| row.difference() != 0).count();
    let equal = verdict.differences == 0 && proof.faults == 0 && broken == 0 && walked.breaks.is_empty();
    if context.json {
        context.print_json(&json!({
            "equal": equal,
            "records": verdict.records,
            "sessions": verdict.sessions,
            "accounts": verdict.accounts,
            "differences": verdict.differences,
            "repaired": verdict.repaired,
            "not_compared": verdict.excluded,
            "dropped_days": verdict.dropped_days,
            "findings": findings,
            "octets": balance_sheet::document(&rows),
            "lines": proof.lines,
            "line_faults": proof.faults,
            "faults": proof.listed.iter().map(fault).collect::<Vec<_>>(),
            "audit": audit_trail::document(&walked),
        }))?;
    } else {
        context.print(&page(&verdict, &findings))?;
        balance_sheet::print(&rows, context)?;
        context.print(&proof_page(&proof, &rows))?;
        context.print(&audit_trail::page(&walked))?;
    }
    Ok(if equal { Exit::Done } else { Exit::No })
}

fn fault(fault: &crate::biller::assurance::ProofFault) -> Value {
    json!({
        "tenant": fault.tenant,
        "account": fault.account,
        "service": fault.fault.as_ref().map(|fault| &fault.service),
        "line": fault.fault.as_ref().map(|fault| &fault.line),
        "period": fault.fault.as_ref().map(|fault| fault.period),
        "detail": fault.detail,
    })
}

fn proof_page(proof: &Proof, rows: &[Row]) -> String {
    let mut page = String::new();
    for found in &proof.listed {
        let about = match &found.fault {
            Some(fault) => format!("line {} of service {}, period from {}", fault.line, fault.service, fault.period),
            None => "its ledger".to_owned(),
        };
        page.push_str(&format!("{} account {}, {about}: {}\n", found.tenant, found.account, found.detail));
    }
    if proof.faults > proof.listed.len() as u64 {
        page.push_str(&format!("and {} more\n", proof.faults - proof.listed.len() as u64));
    }
    let broken: Vec<&Row> = rows.iter().filter(|row| row.difference() != 0).collect();
    if let Some(first) = broken.first() {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        page.push_str(&format!(
            "{} periods do not add up; the first is that of cycle {} of {} from {}: {} octets are missing.\n",
            broken.len(),
            text(&first.cycle),
            text(&first.tenant),
            first.start.map_or_else(|| "all time".to_owned(), |start| start.to_string()),
            first.difference(),
        ));
    }
    page.push_str(&format!(
        "{} lines of {} accounts computed anew: {} differ. {} periods add up to the octet, {} do not.\n",
        proof.lines,
        proof.accounts,
        proof.faults,
        rows.len() - broken.len(),
        broken.len()
    ));
    page
}

/// The findings with the names accounts and services have outside.
async fn named(store: &Store, findings: &[Finding]) -> Result<Vec<Value>, CliError> {
    let mut tx = store.read().await?;
    let mut shown = Vec::with_capacity(findings.len());
    for finding in findings {
        let names = match finding.service_id {
            Some(service) => verify::names(&mut tx, service).await?,
            None => None,
        };
        let (tenant, account, service) =
            names.map_or((None, None, None), |(tenant, account, service)| (Some(tenant), Some(account), Some(service)));
        shown.push(json!({
            "what": finding.what.as_str(),
            "tenant": tenant,
            "account": account,
            "service": service,
            "nas": finding.nas,
            "session": finding.session,
            "period": finding.period,
            "stored": amount(finding.stored),
            "refolded": amount(finding.refolded),
        }));
    }
    Ok(shown)
}

fn amount(amount: Amount) -> Value {
    json!({
        "in_octets": amount.in_octets,
        "out_octets": amount.out_octets,
        "seconds": amount.seconds,
        "sessions": amount.sessions,
    })
}

fn page(verdict: &Verdict, findings: &[Value]) -> String {
    let mut page = String::new();
    for finding in findings {
        let text = |name: &str| finding[name].as_str().unwrap_or("-").to_owned();
        let sums = |side: &str| {
            let number = |name: &str| finding[side][name].as_i64().unwrap_or(0);
            format!("{} up, {} down, {} s", number("in_octets"), number("out_octets"), number("seconds"))
        };
        if finding["what"] == What::Beyond.as_str() {
            page.push_str(&format!(
                "{}: account {}, service {}, period {}, session {} of {}: its usage adds up to more than 64 bits hold\n",
                text("what"),
                text("account"),
                text("service"),
                text("period"),
                text("session"),
                text("nas"),
            ));
            continue;
        }
        page.push_str(&format!(
            "{}: account {}, service {}, period {}, session {} of {}: stored {}; refolded {}\n",
            text("what"),
            text("account"),
            text("service"),
            text("period"),
            text("session"),
            text("nas"),
            sums("stored"),
            sums("refolded"),
        ));
    }
    if verdict.differences > findings.len() as u64 {
        page.push_str(&format!("and {} more\n", verdict.differences - findings.len() as u64));
    }
    page.push_str(&format!(
        "{} records, {} sessions and {} accounts compared: {} differences, {} repaired.\n",
        verdict.records, verdict.sessions, verdict.accounts, verdict.differences, verdict.repaired
    ));
    if !verdict.dropped_days.is_empty() {
        let (first, last) = (&verdict.dropped_days[0], &verdict.dropped_days[verdict.dropped_days.len() - 1]);
        page.push_str(&format!(
            "{} days from {first} to {last} were dropped from the journal; {} sessions that may have begun on them were not compared.\n",
            verdict.dropped_days.len(),
            verdict.excluded
        ));
    }
    page
}
