//! What is asked at 3 a.m.: `find ANY`, `who ADDRESS`, `account timeline`. Whoever looks at addresses and sessions of a person
//! leaves a deed in the audit, with the case it is for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::ToSpan;
use serde_json::json;

use super::context::Context;
use super::deed::person;
use super::exit::{CliError, Exit};
use crate::store::accounts::{self, AccountRow};
use crate::store::find::{self, Match, Within};
use crate::store::leases::{Holder, holders_at};
use crate::store::timeline::{self, Moment};
use crate::store::{Store, Tx, audit, catalog};
use crate::vocabulary::{AccountKey, SourceId, TenantId, Timestamp, parse_instant};

/// `find ANY`. Exit 3: nothing has that word.
pub async fn find(
    word: &str,
    tenant: Option<TenantId>,
    source: Option<SourceId>,
    context: &Context,
) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let within =
        Within { tenant: tenant.as_ref().map(TenantId::as_str), source: source.as_ref().map(SourceId::as_str) };
    let found = find::find(&mut store.read().await?, word, within, FOUND_MOST).await?;
    if context.json {
        context.print_json(&found)?;
    } else if !found.is_empty() {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let row = |found: &Match| {
            let until = found.until.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
            vec![
                found.what.clone(),
                found.value.clone(),
                text(&found.tenant),
                text(&found.source),
                text(&found.account),
                until,
            ]
        };
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        context.print_table(&["WHAT", "VALUE", "TENANT", "SOURCE", "ACCOUNT", "UNTIL"], &rows)?;
    }
    Ok(if found.is_empty() { context.not_found(&format!("Nothing here is called {word}.")) } else { Exit::Done })
}

/// `who ADDRESS`. Exit 3: nobody is known to have had it.
pub async fn who(
    address: IpAddr,
    at: Option<String>,
    case: Option<String>,
    context: &Context,
) -> Result<Exit, CliError> {
    let now = context.clock().now();
    let at = at.as_deref().map_or(Ok(now), instant)?;
    let store = context.store().await?;
    let mut tx = store.write().await?;
    let found = holders_at(&mut tx, address.to_canonical(), at).await?;
    let tenants: BTreeSet<&str> = found.iter().filter_map(|holder| holder.tenant.as_deref()).collect();
    for tenant in tenants {
        allowed(&mut tx, tenant, case.as_deref()).await?;
    }
    let detail = json!({ "address": address, "at": at, "case": case });
    for holder in &found {
        looked(&mut tx, holder.tenant.as_deref(), holder.account_id, "history.who", &detail, now).await?;
    }
    if found.is_empty() {
        looked(&mut tx, None, None, "history.who", &json!({ "case": case }), now).await?;
    }
    tx.commit().await?;
    if context.json {
        context.print_json(&found)?;
    } else if !found.is_empty() {
        let headings = ["BY", "ACCOUNT", "TENANT", "DEVICE", "BEHIND", "SESSION", "USERNAME", "SINCE", "UNTIL"];
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        context.print_table(&headings, &rows)?;
    }
    if found.is_empty() {
        return Ok(context.not_found(&format!("Nobody is known to have had {address} at {at}.")));
    }
    Ok(Exit::Done)
}

/// `account timeline`: what happened with an account, the newest first.
pub async fn timeline(
    store: &Store,
    key: &AccountKey,
    (since, until, limit): (Option<&str>, Option<&str>, i64),
    case: Option<&str>,
    context: &Context,
) -> Result<Exit, CliError> {
    let now = context.clock().now();
    let until = until.map_or(Ok(now), instant)?;
    let usual = until.checked_sub((USUAL_DAYS * 24).hours()).unwrap_or(until);
    let since = since.map_or(Ok(usual), instant)?;
    let mut tx = store.write().await?;
    let Some(row) = accounts::find(&mut tx, key).await? else {
        return Ok(context.not_found(&format!("There is no account {}.", accounts::subject(key))));
    };
    allowed(&mut tx, &row.tenant, case).await?;
    let detail = json!({ "since": since, "until": until, "case": case });
    looked(&mut tx, Some(&row.tenant), Some(row.id), "history.timeline", &detail, now).await?;
    tx.commit().await?;
    let moments = timeline::of_account(&mut store.read().await?, &row, since, until, limit).await?;
    if context.json {
        context.print_json(&moments)?;
        return Ok(Exit::Done);
    }
    let shown = |moment: &Moment| {
        vec![format!("{:.0}", moment.at), moment.kind.clone(), moment.subject.clone(), moment.detail.clone()]
    };
    context.print_table(&["AT", "WHAT", "OF", "DETAIL"], &moments.iter().map(shown).collect::<Vec<_>>())?;
    Ok(Exit::Done)
}

/// Notes that somebody looks at the sessions of an account, or of a user.
pub async fn sessions_seen(
    store: &Store,
    account: Option<&AccountRow>,
    case: Option<&str>,
    context: &Context,
) -> Result<(), CliError> {
    let mut tx = store.write().await?;
    let tenant = account.map(|row| row.tenant.as_str());
    if let Some(tenant) = tenant {
        allowed(&mut tx, tenant, case).await?;
    }
    let detail = json!({ "case": case });
    looked(&mut tx, tenant, account.map(|row| row.id), "history.sessions", &detail, context.clock().now()).await?;
    Ok(tx.commit().await?)
}

/// A tenant may ask that nobody looks without naming a case.
async fn allowed(tx: &mut Tx, tenant: &str, case: Option<&str>) -> Result<(), CliError> {
    let needed = catalog::in_force(tx, tenant).await?.is_some_and(|current| current.catalog.history_needs_case);
    match needed && case.is_none_or(|case| case.trim().is_empty()) {
        true => Err(CliError::failed(format!("{tenant} asks for the number of the case: say --case"))),
        false => Ok(()),
    }
}

async fn looked(
    tx: &mut Tx,
    tenant: Option<&str>,
    account_id: Option<i64>,
    action: &str,
    detail: &serde_json::Value,
    now: Timestamp,
) -> Result<(), CliError> {
    let entry = audit::Entry { tenant, actor: &person(None), action, account_id, subject: "history", detail };
    Ok(audit::append(tx, &entry, now).await?)
}

fn instant(text: &str) -> Result<Timestamp, CliError> {
    parse_instant(text).ok_or_else(|| {
        CliError::usage(format!("{text:?} is no instant; write it with its offset, as in 2026-11-21T10:00:00Z"))
    })
}

fn row(holder: &Holder) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let device = match (&holder.kind, &holder.mac) {
        (Some(kind), Some(mac)) => format!("{kind} {mac}"),
        _ => text(&holder.mac),
    };
    let behind = match (&holder.modem, &holder.cmts) {
        (Some(modem), Some(cmts)) => format!("{modem} at {cmts}"),
        _ => text(&holder.nas),
    };
    vec![
        holder.source.to_owned(),
        text(&holder.account),
        text(&holder.tenant),
        device,
        behind,
        text(&holder.session),
        text(&holder.username),
        format!("{:.0}", holder.since),
        holder.until.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}")),
    ]
}

/// Matches shown at most.
const FOUND_MOST: i64 = 100;
/// How far back a timeline goes unless it is told.
const USUAL_DAYS: i64 = 30;
