//! `audit verify [--repair]`: folds the whole accounting journal anew and compares sessions, ledger and totals.

use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::collector::fold::{Finding, Verdict, Verifier};
use crate::daemon::nas_table;
use crate::store::{Store, verify};
use crate::usage::Amount;

/// The commands of `lastmile audit`.
#[derive(Subcommand)]
pub enum AuditCommand {
    /// Fold the whole journal anew and compare sessions, ledger and totals with it. Exit 3: they differ.
    Verify {
        /// Rebuild what differs: new ledger entries for the differences, sessions and totals as they must be.
        #[arg(long)]
        repair: bool,
    },
}

/// Runs one of them.
pub async fn run(command: AuditCommand, context: &Context) -> Result<Exit, CliError> {
    let AuditCommand::Verify { repair } = command;
    let config = context.config()?;
    let store = context.store().await?;
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
    store.close().await;
    if context.json {
        context.print_json(&json!({
            "equal": verdict.differences == 0,
            "records": verdict.records,
            "sessions": verdict.sessions,
            "accounts": verdict.accounts,
            "differences": verdict.differences,
            "repaired": verdict.repaired,
            "not_compared": verdict.excluded,
            "dropped_days": verdict.dropped_days,
            "findings": findings,
        }))?;
    } else {
        context.print(&page(&verdict, &findings))?;
    }
    Ok(if verdict.differences == 0 { Exit::Done } else { Exit::No })
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
