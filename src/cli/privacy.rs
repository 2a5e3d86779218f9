//! `account export`, `account erase`, `account hold-legal`, `account release-legal`: what a person may ask of a provider, and
//! what a court may.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::context::Context;
use super::deed::person;
use super::exit::{CliError, Exit};
use crate::intake::{account_view, audit_view};
use crate::store::accounts::{self, AccountRow};
use crate::store::audit::{self, AuditFilter};
use crate::store::billing::{self, LineFilter};
use crate::store::usage::{self, SessionFilter};
use crate::store::{Store, StoreError, Tx, charges, privacy};
use crate::vocabulary::{AccountKey, Timestamp};

/// `account export`: everything that is held of a person, as one JSON document.
pub async fn export(store: &Store, key: &AccountKey, context: &Context) -> Result<Exit, CliError> {
    let now = context.clock().now();
    let mut tx = store.write().await?;
    let Some(row) = accounts::find(&mut tx, key).await? else {
        return Ok(context.not_found(&format!("There is no account {}.", accounts::subject(key))));
    };
    note(&mut tx, &row, "account.export", &json!({}), now).await?;
    tx.commit().await?;
    let mut tx = store.read_snapshot().await?;
    let mut document = json!({
        "exported_at": now,
        "account": account_view(&mut tx, &row).await?,
        "closed_at": row.closed_at,
        "erased_at": privacy::erased_at(&mut tx, row.id).await?,
        "legal_holds": privacy::holds(&mut tx, row.id).await?,
    });
    let rows = privacy::rows_of(&mut tx, &row).await?;
    if let Some(document) = document.as_object_mut() {
        document.extend(rows);
    }
    document["sessions"] = json!(sessions(&mut tx, row.id).await?);
    document["lines"] = json!(lines(&mut tx, row.id).await?);
    document["charges"] = json!(posted(&mut tx, row.id).await?);
    document["audit"] = json!(deeds(&mut tx, row.id).await?);
    context.print_json(&document)?;
    Ok(Exit::Done)
}

async fn sessions(tx: &mut Tx, account_id: i64) -> Result<Vec<usage::SessionView>, StoreError> {
    let mut filter = SessionFilter { account_id: Some(account_id), limit: PAGE, ..SessionFilter::default() };
    let mut all = Vec::new();
    loop {
        let page = usage::list(tx, &filter).await?;
        let Some(last) = page.last() else { return Ok(all) };
        filter.after = last.id;
        all.extend(page);
    }
}

async fn lines(tx: &mut Tx, account_id: i64) -> Result<Vec<Value>, StoreError> {
    let mut filter = LineFilter { account_id: Some(account_id), limit: PAGE, ..LineFilter::default() };
    let mut all = Vec::new();
    loop {
        let page = billing::lines(tx, &filter).await?;
        let Some(last) = page.last() else { return Ok(all) };
        filter.after = Some(last.line.id.clone());
        all.extend(page.iter().map(|stored| json!(stored.line)));
    }
}

async fn posted(tx: &mut Tx, account_id: i64) -> Result<Vec<Value>, StoreError> {
    let (mut after, mut all) = (0, Vec::new());
    loop {
        let page = charges::list(tx, account_id, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = last.id;
        all.extend(page.iter().map(|row| {
            json!({ "id": charges::public_id(row.id), "charge": row.posting, "cycle": row.cycle, "on": row.on,
                "posted_by": row.posted_by, "created_at": row.created_at })
        }));
    }
}

async fn deeds(tx: &mut Tx, account_id: i64) -> Result<Vec<Value>, StoreError> {
    let mut filter = AuditFilter { account_id: Some(account_id), limit: PAGE, ..AuditFilter::default() };
    let mut all = Vec::new();
    loop {
        let page = audit::list(tx, &filter).await?;
        let Some(last) = page.last() else { return Ok(all) };
        filter.before = Some(last.id);
        all.extend(page.iter().map(audit_view));
    }
}

/// `account erase`: each account's person is forgotten; exit 3 while something stands in the way.
pub async fn erase(
    store: &Store,
    keys: &[AccountKey],
    reason: &str,
    by: Option<String>,
    context: &Context,
) -> Result<Exit, CliError> {
    if reason.trim().is_empty() {
        return Err(CliError::usage("say why: --reason must not be empty"));
    }
    let by = person(by);
    let mut done: BTreeMap<String, Value> = BTreeMap::new();
    let mut refused = false;
    for key in keys {
        let subject = accounts::subject(key);
        let Some(row) = accounts::find(&mut store.read().await?, key).await? else {
            eprintln!("lastmile: There is no account {subject}.");
            refused = true;
            continue;
        };
        match erase_one(store, &row, reason, &by, context).await? {
            Ok(erased) => drop(done.insert(subject, erased)),
            Err(obstacles) => {
                eprintln!("lastmile: {subject} stays as it is: {}.", obstacles.join("; "));
                refused = true;
            }
        }
    }
    let swept = if done.is_empty() { true } else { store.sweep_out().await? };
    if !swept {
        eprintln!("lastmile: somebody reads the database; its log holds what was erased until the daemon empties it.");
    }
    if context.json {
        context.print_json(&json!({ "erased": done, "log_emptied": swept }))?;
    } else {
        for (subject, erased) in &done {
            context.print(&format!("{subject}: its person is forgotten ({erased}).\n"))?;
            for file in erased["files"].as_array().into_iter().flatten() {
                eprintln!("The file {file} of a watched folder brought {subject}; it stands where it is.");
            }
        }
    }
    if !done.is_empty() {
        eprintln!("Backups and archives made before still hold it; let them run out.");
    }
    Ok(if refused { Exit::No } else { Exit::Done })
}

async fn erase_one(
    store: &Store,
    row: &AccountRow,
    reason: &str,
    by: &str,
    context: &Context,
) -> Result<Result<Value, Vec<String>>, CliError> {
    let now = context.clock().now();
    let mut tx = store.read().await?;
    let obstacles = privacy::obstacles(&mut tx, row, now).await?;
    if !obstacles.is_empty() {
        return Ok(Err(obstacles));
    }
    let identity = privacy::identity(&mut tx, row).await?;
    tx.rollback().await?;
    let inputs = store.inputs_naming(row, &identity.words).await?;
    // The journal first: when this breaks off, the sessions still say which records are left.
    let records = store.redact_sessions(&identity.sessions, &identity.octets, now).await?;
    let key = AccountKey {
        tenant: row.tenant.parse().map_err(|_| CliError::failed("its tenant has no name"))?,
        source: row.source.parse().map_err(|_| CliError::failed("its source has no name"))?,
        external_id: row.external_id.clone(),
    };
    let mut tx = store.write().await?;
    let Some(row) = accounts::find_locked(&mut tx, &key).await? else { return Ok(Err(vec!["it is gone".to_owned()])) };
    let obstacles = privacy::obstacles(&mut tx, &row, now).await?;
    if !obstacles.is_empty() {
        return Ok(Err(obstacles));
    }
    let identity = privacy::identity(&mut tx, &row).await?;
    let asked = privacy::Asked { reason, by, inputs };
    let erased = privacy::erase(&mut tx, store, &row, &identity, asked, now).await?;
    tx.commit().await?;
    let mut erased = json!(erased);
    erased["records"] = json!(records);
    Ok(Ok(erased))
}

/// `account hold-legal` and, with `lift`, `account release-legal`. Exit 3: it is so already.
pub async fn legal_hold(
    store: &Store,
    key: &AccountKey,
    asked: Option<(&str, Option<&str>)>,
    by: Option<String>,
    context: &Context,
) -> Result<Exit, CliError> {
    let (by, now) = (person(by), context.clock().now());
    let mut tx = store.write().await?;
    let Some(row) = accounts::find(&mut tx, key).await? else {
        return Ok(context.not_found(&format!("There is no account {}.", accounts::subject(key))));
    };
    let (changed, action, detail) = match asked {
        Some((reason, case)) => {
            let placed = privacy::hold(&mut tx, row.id, reason, case, &by, now).await?;
            (placed, "account.hold-legal", json!({ "reason": reason, "case": case }))
        }
        None => (privacy::lift(&mut tx, row.id, &by, now).await?, "account.release-legal", json!({})),
    };
    let subject = accounts::subject(key);
    if !changed {
        let stands = if asked.is_some() { "already under" } else { "not under" };
        return Err(CliError::no(format!("{subject} is {stands} a legal hold")));
    }
    note(&mut tx, &row, action, &detail, now).await?;
    let holds = privacy::holds(&mut tx, row.id).await?;
    tx.commit().await?;
    if context.json {
        context.print_json(&holds)?;
    } else {
        let what =
            if asked.is_some() { "is under a legal hold: nothing of it is erased or dropped" } else { "is free" };
        context.print(&format!("{subject} {what}.\n"))?;
    }
    Ok(Exit::Done)
}

/// Notes a deed on an account in its own transaction.
pub async fn note(
    tx: &mut Tx,
    row: &AccountRow,
    action: &str,
    detail: &Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let entry = audit::Entry {
        tenant: Some(&row.tenant),
        actor: &person(None),
        action,
        account_id: Some(row.id),
        subject: &accounts::subject_of(row),
        detail,
    };
    audit::append(tx, &entry, now).await
}

/// Rows read in one go.
const PAGE: i64 = 1000;
