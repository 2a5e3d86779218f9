//! `bill check|waive|approve|discard|list|held`: the month's end, for a person.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::bill::{PeriodArguments, refused};
use super::context::Context;
use super::deed::{note, person};
use super::exit::{CliError, Exit};
use crate::biller::{self, ApprovalError, CheckOrder};
use crate::store::billing::{self, BatchRow};
use crate::store::findings::{self, StoredFinding};
use crate::store::{Store, catalog, held as store_held};

/// `bill check`.
pub async fn check(of: PeriodArguments, context: &Context) -> Result<Exit, CliError> {
    let radius = context.config()?.radius;
    let interims: BTreeMap<String, u32> =
        radius.iter().flat_map(|radius| &radius.nas).map(|nas| (nas.name.clone(), nas.interim_seconds)).collect();
    let store = context.store().await?;
    let order = CheckOrder { tenant: of.tenant, cycle: of.cycle, period: of.period, interims };
    let checked = match refused(biller::check(&store, &context.clock(), &order).await, context)? {
        Ok(checked) => checked,
        Err(exit) => return Ok(exit),
    };
    let passed = checked.passed();
    if context.json {
        context.print_json(&json!({
            "period": checked.period, "batch": checked.batch.as_ref().map(batch_document), "passed": passed,
            "findings": checked.findings,
        }))?;
    } else {
        print_findings(&checked.findings, context)?;
        let open = checked.findings.iter().filter(|finding| finding.waived.is_none()).count();
        let said = match (&checked.batch, open) {
            (None, _) => "This period has no batch yet; make one with `bill run`.\n".to_owned(),
            (Some(batch), 0) => format!("Batch {} ({}) is clean.\n", batch.id, batch.state),
            (Some(batch), open) => format!("Batch {} ({}): {open} findings are open.\n", batch.id, batch.state),
        };
        context.print(&said)?;
    }
    Ok(if passed { Exit::Done } else { Exit::No })
}

/// Findings as a table, with what to do about each.
pub fn print_findings(found: &[StoredFinding], context: &Context) -> Result<(), CliError> {
    if found.is_empty() {
        return Ok(());
    }
    let row = |finding: &StoredFinding| {
        let waived = finding.waived.as_ref().map(|waiver| format!("{} ({})", waiver.because, waiver.by));
        vec![
            finding.id.clone(),
            finding.kind.clone(),
            finding.detail.clone(),
            if waived.is_some() { String::new() } else { finding.advice.clone() },
            waived.unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    context.print_table(&["FINDING", "KIND", "WHAT", "WHAT TO DO", "WAIVED"], &rows)
}

/// `bill waive`.
pub async fn waive(ids: &[String], because: &str, by: Option<String>, context: &Context) -> Result<Exit, CliError> {
    if because.trim().is_empty() {
        return Err(CliError::usage("say why: --reason must not be empty"));
    }
    let store = context.store().await?;
    let (by, now) = (person(by), context.clock().now());
    let mut missing = Vec::new();
    let mut tx = store.write().await?;
    for id in ids {
        if !findings::waive(&mut tx, None, id, &by, because, now).await? {
            missing.push(id.as_str());
        }
    }
    tx.commit().await?;
    if context.json {
        context.print_json(&json!({ "waived": ids.len() - missing.len(), "missing": missing }))?;
    } else {
        context.print(&format!("{} findings waived by {by}: {because}\n", ids.len() - missing.len()))?;
    }
    Ok(match missing.is_empty() {
        true => Exit::Done,
        false => context.not_found(&format!("There is no finding {}.", missing.join(", "))),
    })
}

/// `bill approve`.
pub async fn approve(id: &str, by: Option<String>, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let Some(tenant) = tenant_of(&store, id).await? else {
        return Ok(context.not_found(&format!("There is no batch {id}.")));
    };
    match biller::approve(&store, &context.clock(), &tenant, id, &person(by)).await {
        Ok(batch) if context.json => context.print_json(&batch_document(&batch))?,
        Ok(batch) => context.print(&format!("Batch {} is closed: {} lines.\n", batch.id, batch.lines))?,
        Err(error @ ApprovalError::State { .. }) => return Err(CliError::no(error.to_string())),
        Err(error) => return Err(error.into()),
    }
    Ok(Exit::Done)
}

/// `bill discard`.
pub async fn discard(id: &str, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let Some(tenant) = tenant_of(&store, id).await? else {
        return Ok(context.not_found(&format!("There is no batch {id}.")));
    };
    let discarded = biller::discard(&store, &context.clock(), &tenant, id).await;
    if discarded.is_ok() {
        note(&store, Some(&tenant), "bill.discard", id, &json!({}), context).await?;
    }
    match discarded {
        Ok(()) if context.json => context.print_json(&json!({ "discarded": id }))?,
        Ok(()) => context.print(&format!("Draft {id} is gone; the next run makes a new one.\n"))?,
        Err(error @ ApprovalError::State { .. }) => return Err(CliError::no(error.to_string())),
        Err(error) => return Err(error.into()),
    }
    Ok(Exit::Done)
}

/// `bill list`.
pub async fn list(tenant: &str, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let mut tx = store.read().await?;
    if !catalog::is_known(&mut tx, tenant).await? {
        return Ok(context.not_found(&format!("There is no tenant {tenant}.")));
    }
    let batches = billing::batches(&mut tx, tenant, None, true, LIST_MAX).await?;
    if context.json {
        let items: Vec<Value> = batches.iter().map(batch_document).collect();
        context.print_json(&json!({ "items": items }))?;
    } else {
        let row = |batch: &BatchRow| {
            let at = |at: Option<crate::vocabulary::Timestamp>| at.map_or_else(String::new, |at| format!("{at:.0}"));
            vec![
                batch.id.clone(),
                batch.state.clone(),
                format!("{:.0}", batch.period.start),
                batch.lines.to_string(),
                at(batch.closed_at),
                batch.approved_by.clone().unwrap_or_default(),
            ]
        };
        let rows: Vec<Vec<String>> = batches.iter().map(row).collect();
        context.print_table(&["BATCH", "STATE", "PERIOD", "LINES", "CLOSED", "APPROVED BY"], &rows)?;
    }
    Ok(Exit::Done)
}

/// `bill held`.
pub async fn held(tenant: &str, cycle: Option<&str>, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let mut tx = store.read().await?;
    if !catalog::is_known(&mut tx, tenant).await? {
        return Ok(context.not_found(&format!("There is no tenant {tenant}.")));
    }
    let rows = store_held::list(&mut tx, tenant, cycle, None, LIST_MAX).await?;
    if context.json {
        let items: Vec<Value> = rows.iter().map(held_document).collect();
        context.print_json(&json!({ "items": items }))?;
        return Ok(Exit::Done);
    }
    let row = |held: &store_held::HeldCorrection| {
        vec![
            held.account.clone(),
            held.service.clone(),
            held.charge.clone(),
            format!("{:.0}", held.period.start),
            format!("{} {}", held.amount, held.amount.currency),
            held.reason.clone(),
            held.batch.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    context.print_table(&["ACCOUNT", "SERVICE", "CHARGE", "PERIOD", "AMOUNT", "REASON", "RUN"], &rows)?;
    Ok(Exit::Done)
}

fn held_document(held: &store_held::HeldCorrection) -> Value {
    json!({
        "source": held.source, "account": held.account, "cycle": held.cycle, "service": held.service,
        "charge": held.charge, "tariff": held.tariff, "period": held.period, "amount": held.amount.to_string(),
        "currency": held.amount.currency, "reason": held.reason, "held_at": held.held_at, "batch": held.batch,
    })
}

fn batch_document(batch: &BatchRow) -> Value {
    let (totals, handshakes) = batch.sums();
    json!({
        "id": batch.id, "cycle": batch.cycle, "period": batch.period, "run": batch.run, "state": batch.state,
        "lines": batch.lines, "totals": totals, "handshakes": handshakes,
        "created_at": batch.created_at, "checked_at": batch.checked_at, "approved_at": batch.approved_at,
        "approved_by": batch.approved_by, "closed_at": batch.closed_at, "acknowledged_at": batch.acknowledged_at,
    })
}

async fn tenant_of(store: &Store, id: &str) -> Result<Option<String>, CliError> {
    let mut tx = store.read().await?;
    Ok(billing::tenant_of(&mut tx, id).await?)
}

/// Rows a list shows.
const LIST_MAX: i64 = 100_000;
