//! `audit list`, `audit head` and the walk of `audit verify` over the audit's chain: who did what, and the proof that nobody
//! changed it afterwards.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::audit::Head;
use crate::intake::audit_view;
use crate::store::audit::{self, AuditFilter, AuditRow};
use crate::store::audit_chain::{self, Walked};
use crate::store::{Store, accounts};
use crate::vocabulary::{AccountKey, SourceId, TenantId, parse_instant};

/// Which deeds.
#[derive(Args)]
pub struct ListArguments {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Only what concerns this account of the tenant.
    #[arg(long, requires = "tenant")]
    account: Option<String>,
    #[arg(long, default_value_t)]
    source: SourceId,
    /// Only since this instant, with its offset from UTC.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only where the actor (a person, a key's id or name, a role) has this in it.
    #[arg(long)]
    actor: Option<String>,
    /// Only actions that begin so, for example account.
    #[arg(long)]
    action: Option<String>,
    /// At most so many, the newest first.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
}

/// `audit list`. Exit 3: no such account.
pub async fn list(arguments: ListArguments, context: &Context) -> Result<Exit, CliError> {
    let since = arguments.since.as_deref().map(|text| {
        parse_instant(text).ok_or_else(|| CliError::usage(format!("{text:?} is no instant with its offset from UTC")))
    });
    let since = since.transpose()?;
    let store = context.store().await?;
    let mut account_id = None;
    if let (Some(tenant), Some(id)) = (&arguments.tenant, &arguments.account) {
        let key = AccountKey { tenant: tenant.clone(), source: arguments.source.clone(), external_id: id.clone() };
        match accounts::find(&mut store.read().await?, &key).await? {
            Some(row) => account_id = Some(row.id),
            None => return Ok(context.not_found(&format!("There is no account {}.", accounts::subject(&key)))),
        }
    }
    let mut filter = AuditFilter {
        tenant: arguments.tenant.as_ref().map(TenantId::as_str),
        account_id,
        since,
        actor: arguments.actor.as_deref(),
        action: arguments.action.as_deref(),
        before: None,
        limit: PAGE,
    };
    let mut deeds: Vec<AuditRow> = Vec::new();
    while deeds.len() < arguments.limit {
        let page = audit::list(&mut store.read().await?, &filter).await?;
        let full = page.len() as i64 == PAGE;
        filter.before = page.last().map(|deed| deed.id);
        deeds.extend(page);
        if !full {
            break;
        }
    }
    deeds.truncate(arguments.limit);
    if context.json {
        context.print_json(&deeds.iter().map(audit_view).collect::<Vec<Value>>())?;
        return Ok(Exit::Done);
    }
    let row = |deed: &AuditRow| {
        let subject = if deed.erased { "(erased)".to_owned() } else { deed.subject.clone() };
        let tenant = deed.tenant.clone().unwrap_or_else(|| "-".to_owned());
        let sequence = deed.sequence.map_or_else(|| "-".to_owned(), |sequence| sequence.to_string());
        let at = format!("{:.0}", deed.at);
        vec![at, tenant, sequence, deed.action.clone(), subject, deed.actor.clone(), deed.detail.to_string()]
    };
    let rows: Vec<Vec<String>> = deeds.iter().map(row).collect();
    context.print_table(&["AT", "TENANT", "DEED", "WHAT", "OF", "BY", "DETAIL"], &rows)?;
    Ok(Exit::Done)
}

/// `audit head`: how far each chain has come, signed. Kept elsewhere, it proves later that nothing before it was changed.
pub async fn head(tenant: Option<TenantId>, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let heads = audit_chain::heads(&mut store.read().await?, tenant.as_ref().map(TenantId::as_str)).await?;
    if context.json {
        let shown = |head: &Head| {
            json!({
                "tenant": (!head.tenant.is_empty()).then_some(&head.tenant),
                "sequence": head.sequence,
                "at": head.at,
                "head": head.to_string(),
            })
        };
        context.print_json(&heads.iter().map(shown).collect::<Vec<Value>>())?;
    } else {
        context.print(&heads.iter().map(|head| format!("{head}\n")).collect::<String>())?;
    }
    Ok(Exit::Done)
}

/// Heads that were kept: the lines of `audit head`, or of the daemon's log.
///
/// **Errors**: the file, or a line that has a head's beginning and is none.
pub fn published(file: &Path) -> Result<Vec<Head>, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CliError::failed(format!("{} cannot be read: {error}", file.display())))?;
    let mut heads = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // A log line may have anything before and behind it.
        let logged = line.split_once("Audit head: ");
        let words: Vec<&str> = logged.map_or(line, |(_, head)| head).split_whitespace().take(HEAD_WORDS).collect();
        if words.is_empty() || (logged.is_none() && words[0].starts_with('#')) {
            continue;
        }
        let head = words.join(" ").parse();
        heads
            .push(head.map_err(|error| CliError::failed(format!("{}, line {}: {error}", file.display(), number + 1)))?);
    }
    Ok(heads)
}

/// Walks every chain.
pub async fn walk(store: &Store, published: &[Head], context: &Context) -> Result<Walked, CliError> {
    let bar = context.spinner("Following the audit's chains");
    let mut tx = store.read_snapshot().await?;
    let walked = audit_chain::walk(&mut tx, store.sealer(), published, |deeds| bar.set_position(deeds)).await;
    bar.finish_and_clear();
    Ok(walked?)
}

/// What the walk found, for `--json`.
pub fn document(walked: &Walked) -> Value {
    let breaks = walked.breaks.iter().map(|found| {
        json!({
            "tenant": (!found.tenant.is_empty()).then_some(&found.tenant),
            "deed": found.sequence,
            "row": found.id,
            "why": found.why,
        })
    });
    json!({
        "deeds": walked.deeds,
        "erased": walked.erased,
        "waiting": walked.waiting,
        "breaks": breaks.collect::<Vec<_>>(),
    })
}

/// What the walk found, for a person.
pub fn page(walked: &Walked) -> String {
    let mut page = String::new();
    for found in &walked.breaks {
        let tenant = if found.tenant.is_empty() { "the installation" } else { &found.tenant };
        let row = found.id.map_or_else(String::new, |id| format!(" (row {id})"));
        page.push_str(&format!("The audit of {tenant} is broken at deed {}{row}: {}.\n", found.sequence, found.why));
    }
    page.push_str(&format!(
        "{} deeds of the audit followed, {} of them of erased accounts, {} not sealed yet: {} chains are broken.\n",
        walked.deeds,
        walked.erased,
        walked.waiting,
        walked.breaks.len()
    ));
    page
}

/// Rows read in one go.
const PAGE: i64 = 1000;
const HEAD_WORDS: usize = 5;
