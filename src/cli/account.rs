//! `account list|show|history|balance` and the doors to `timeline`, `export`, `erase` and legal holds: subscribers as they are
//! stored, and what was done to them.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use super::{noc, privacy};
use crate::billing::balance::BalanceItem;
use crate::intake::account_view;
use crate::store::accounts::{self, AccountRow};
use crate::store::billing::BilledAccount;
use crate::store::{Store, audit, running};
use crate::vocabulary::{AccountKey, SourceId, TenantId};

/// The commands of `lastmile account`.
#[derive(Subcommand)]
pub enum AccountCommand {
    /// List the accounts of a tenant.
    List {
        #[arg(long)]
        tenant: TenantId,
        /// Only those of this source.
        #[arg(long)]
        source: Option<SourceId>,
        /// Closed ones too.
        #[arg(long)]
        closed: bool,
        /// At most so many.
        #[arg(long, default_value_t = 100_000)]
        limit: usize,
    },
    /// Show one account and how far its services are provisioned.
    Show(OneAccount),
    /// What was done to an account, the newest first.
    History(OneAccount),
    /// What happened with an account, the newest first: deeds, jobs, sessions, leases, lines, calls, exceptions.
    Timeline {
        #[command(flatten)]
        one: OneAccount,
        /// Since when, with its offset from UTC; absent: 30 days back.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Until when; absent: now.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// The number of the case it is for; it stands in the audit.
        #[arg(long)]
        case: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: i64,
    },
    /// Everything that is held of an account's person, as one JSON document.
    Export(OneAccount),
    /// Forget the person of closed accounts: totals, lines and the audit's chain stay, who it was goes. Exit 3: something
    /// stands in the way.
    Erase {
        /// Their external ids.
        #[arg(required = true)]
        ids: Vec<String>,
        #[arg(long)]
        tenant: TenantId,
        #[arg(long, default_value_t)]
        source: SourceId,
        /// Why; it stands in the audit.
        #[arg(long)]
        reason: String,
        /// Who decided it; the user of this shell unless named.
        #[arg(long)]
        by: Option<String>,
    },
    /// Put an account under a legal hold: nothing of it is erased or dropped for its age while that stands.
    HoldLegal {
        #[command(flatten)]
        one: OneAccount,
        /// Why.
        #[arg(long)]
        reason: String,
        /// The number of the case.
        #[arg(long)]
        case: Option<String>,
        /// Who decided it; the user of this shell unless named.
        #[arg(long)]
        by: Option<String>,
    },
    /// Lift the legal hold of an account.
    ReleaseLegal {
        #[command(flatten)]
        one: OneAccount,
        /// Who decided it; the user of this shell unless named.
        #[arg(long)]
        by: Option<String>,
    },
    /// Who stands under whom: below one account, or every tree of a source.
    Tree {
        /// The account at the top.
        id: Option<String>,
        #[command(flatten)]
        of: super::tree::TreeArguments,
    },
    /// What an account has used and owes of the period that runs, as a bill run would count it now.
    Balance(OneAccount),
}

/// Which account.
#[derive(Args)]
pub struct OneAccount {
    /// Its external id.
    id: String,
    #[arg(long)]
    tenant: TenantId,
    #[arg(long, default_value_t)]
    source: SourceId,
}

/// Rows read in one go.
const PAGE: i64 = 1000;

/// Runs one of them.
pub async fn run(command: AccountCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let exit = match command {
        AccountCommand::List { tenant, source, closed, limit } => {
            list(&store, &tenant, source.as_ref(), closed, limit, context).await
        }
        AccountCommand::Tree { id, of } => super::tree::show(id.as_deref(), &of, context).await,
        AccountCommand::Show(one) => show(&store, &one.key()?, context).await,
        AccountCommand::History(one) => history(&store, &one.key()?, context).await,
        AccountCommand::Balance(one) => balance(&store, &one.key()?, context).await,
        AccountCommand::Timeline { one, since, until, case, limit } => {
            let range = (since.as_deref(), until.as_deref(), limit);
            noc::timeline(&store, &one.key()?, range, case.as_deref(), context).await
        }
        AccountCommand::Export(one) => privacy::export(&store, &one.key()?, context).await,
        AccountCommand::Erase { ids, tenant, source, reason, by } => {
            let key = |id: String| OneAccount { id, tenant: tenant.clone(), source: source.clone() }.key();
            let keys = ids.into_iter().map(key).collect::<Result<Vec<_>, _>>()?;
            privacy::erase(&store, &keys, &reason, by, context).await
        }
        AccountCommand::HoldLegal { one, reason, case, by } => {
            privacy::legal_hold(&store, &one.key()?, Some((&reason, case.as_deref())), by, context).await
        }
        AccountCommand::ReleaseLegal { one, by } => privacy::legal_hold(&store, &one.key()?, None, by, context).await,
    };
    store.close().await;
    exit
}

impl OneAccount {
    fn key(&self) -> Result<AccountKey, CliError> {
        let external_id = AccountKey::parse_external_id(&self.id)
            .map_err(|error| CliError::usage(format!("the account's id {error}")))?;
        Ok(AccountKey { tenant: self.tenant.clone(), source: self.source.clone(), external_id })
    }
}

async fn list(
    store: &Store,
    tenant: &TenantId,
    source: Option<&SourceId>,
    closed: bool,
    limit: usize,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut rows: Vec<AccountRow> = Vec::new();
    loop {
        // A transaction a page: a long list must not hold back the database's own cleaning.
        let mut tx = store.read().await?;
        let after = rows.last().map(|row| row.id);
        let page = accounts::list(&mut tx, tenant.as_str(), source.map(SourceId::as_str), closed, after, PAGE).await?;
        let full = i64::try_from(page.len()).unwrap_or(PAGE) >= PAGE;
        rows.extend(page);
        if !full || rows.len() >= limit {
            break;
        }
    }
    rows.truncate(limit);
    if context.json {
        let shown: Vec<Value> = rows.iter().map(summary).collect();
        context.print_json(&shown)?;
        return Ok(Exit::Done);
    }
    let text = |row: &AccountRow| {
        let status = if row.closed_at.is_some() { "closed" } else { row.document.status.as_str() };
        vec![
            row.external_id.clone(),
            row.source.clone(),
            status.to_owned(),
            row.document.services.len().to_string(),
            row.document.bill_cycle.clone(),
            row.revision.to_string(),
            row.updated_at.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(text).collect();
    context.print_table(&["ACCOUNT", "SOURCE", "STATUS", "SERVICES", "CYCLE", "REVISION", "UPDATED"], &rows)?;
    Ok(Exit::Done)
}

fn summary(row: &AccountRow) -> Value {
    json!({
        "id": row.external_id,
        "tenant": row.tenant,
        "source": row.source,
        "status": row.document.status,
        "services": row.document.services.iter().map(|service| &service.id).collect::<Vec<_>>(),
        "bill_cycle": row.document.bill_cycle,
        "revision": row.revision,
        "source_revision": row.source_revision,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "closed_at": row.closed_at,
    })
}

async fn show(store: &Store, key: &AccountKey, context: &Context) -> Result<Exit, CliError> {
    let mut tx = store.read().await?;
    let Some(row) = accounts::find(&mut tx, key).await? else {
        return Ok(context.not_found(&format!("There is no account {}.", accounts::subject(key))));
    };
    let mut view = account_view(&mut tx, &row).await?;
    view["closed_at"] = json!(row.closed_at);
    if context.json {
        context.print_json(&view)?;
        return Ok(Exit::Done);
    }
    let status = if row.closed_at.is_some() { "closed" } else { row.document.status.as_str() };
    let source_revision = row.source_revision.map_or("-".to_owned(), |revision| revision.to_string());
    context.print(&format!(
        "{}: {status}, bill cycle {}, revision {} (the source's {source_revision}), changed {}\n",
        accounts::subject(key),
        row.document.bill_cycle,
        row.revision,
        row.updated_at
    ))?;
    let services = view["services"].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().map_or_else(|| "-".to_owned(), str::to_owned);
    let text = |service: &Value| {
        let state = &service["provisioning"];
        let trouble = if state["last_error"].is_null() { &state["evidence"] } else { &state["last_error"] };
        vec![word(&service["id"]), word(&service["type"]), word(&service["plan"]), word(&state["state"]), word(trouble)]
    };
    let rows: Vec<Vec<String>> = services.iter().map(text).collect();
    context.print_table(&["SERVICE", "TYPE", "PLAN", "STATE", "WHY"], &rows)?;
    Ok(Exit::Done)
}

async fn history(store: &Store, key: &AccountKey, context: &Context) -> Result<Exit, CliError> {
    let mut tx = store.read().await?;
    let Some(row) = accounts::find(&mut tx, key).await? else {
        return Ok(context.not_found(&format!("There is no account {}.", accounts::subject(key))));
    };
    let deeds = audit::of_account(&mut tx, row.id, None, PAGE).await?;
    if context.json {
        let shown = |deed: &audit::AuditRow| {
            json!({
                "at": deed.at, "actor": deed.actor, "action": deed.action, "subject": deed.subject,
                "detail": deed.detail,
            })
        };
        context.print_json(&deeds.iter().map(shown).collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    }
    let text = |deed: &audit::AuditRow| {
        vec![
            deed.at.to_string(),
            deed.action.clone(),
            deed.subject.clone(),
            deed.actor.clone(),
            deed.detail.to_string(),
        ]
    };
    context.print_table(&["AT", "WHAT", "OF", "BY", "DETAIL"], &deeds.iter().map(text).collect::<Vec<_>>())?;
    Ok(Exit::Done)
}

async fn balance(store: &Store, key: &AccountKey, context: &Context) -> Result<Exit, CliError> {
    let mut tx = store.read_snapshot().await?;
    let row = accounts::find(&mut tx, key).await?.filter(|row| row.closed_at.is_none());
    let prices = running::read(&mut tx, key.tenant.as_str()).await?;
    let (Some(row), Some(prices)) = (row, prices) else {
        return Ok(context.not_found(&format!("There is no account {} of source {}.", key.external_id, key.source)));
    };
    let bill_cycle = row.document.bill_cycle.clone();
    let account = BilledAccount { id: row.id, source: row.source, external_id: row.external_id, bill_cycle };
    let found = running::balance(&mut tx, &prices, &row.document.bill_cycle, &account, context.clock().now()).await;
    let balance = found.map_err(|error| CliError::failed(format!("the balance cannot be computed: {error}")))?;
    if context.json {
        context.print_json(&balance)?;
        return Ok(Exit::Done);
    }
    let shown = |item: &BalanceItem| {
        let left = item.allowance_left.clone().unwrap_or_default();
        let tax: Vec<String> = item.tax.iter().map(|tax| format!("{} {}", tax.id, tax.amount)).collect();
        let service = item.service.clone().unwrap_or_default();
        let used = format!("{} {}", item.used, item.unit);
        vec![service, item.charge.clone(), used, left, format!("{} {}", item.amount, item.currency), tax.join(", ")]
    };
    let rows: Vec<Vec<String>> = balance.items.iter().map(shown).collect();
    eprintln!("Cycle {}, {:.0} to {:.0}.", balance.cycle, balance.period.start, balance.period.end);
    context.print_table(&["SERVICE", "CHARGE", "USED", "ALLOWANCE LEFT", "AMOUNT", "TAX"], &rows)?;
    Ok(Exit::Done)
}
