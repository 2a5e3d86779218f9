//! `key create`, `key list`, `key revoke`: the API keys of billing systems and people. A key is printed once.

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::intake::new_key;
use crate::store::keys::KeyRow;
use crate::store::{accounts, audit, keys};
use crate::vocabulary::{Role, SourceId, TenantId};

/// The commands of `lastmile key`.
#[derive(Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it; it is shown only now.
    Create {
        /// The tenant it belongs to; only the role `platform` has none.
        #[arg(long)]
        tenant: Option<TenantId>,
        /// push, read, csr, operator, billing, admin or platform.
        #[arg(long)]
        role: Role,
        /// Bind it to one source.
        #[arg(long)]
        source: Option<SourceId>,
        /// What it is for.
        #[arg(long, default_value = "")]
        name: String,
    },
    /// List keys, without the keys themselves.
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<TenantId>,
    },
    /// End a key; it is refused within seconds.
    Revoke {
        /// Its id, from `key list`.
        id: String,
    },
}

const NAME_MAX: usize = 128;

/// Runs one of them.
pub async fn run(command: KeyCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        KeyCommand::Create { tenant, role, source, name } => create(tenant, role, source, name, context).await,
        KeyCommand::List { tenant } => list(tenant.as_ref(), context).await,
        KeyCommand::Revoke { id } => revoke(&id, context).await,
    }
}

async fn create(
    tenant: Option<TenantId>,
    role: Role,
    source: Option<SourceId>,
    name: String,
    context: &Context,
) -> Result<Exit, CliError> {
    match (role, &tenant) {
        (Role::Platform, Some(_)) => return Err(CliError::usage("a key with the role platform belongs to no tenant")),
        (Role::Platform, None) if source.is_some() => {
            return Err(CliError::usage("a key with the role platform has no source"));
        }
        (Role::Platform, None) | (_, Some(_)) => {}
        (_, None) => return Err(CliError::usage(format!("a key with the role {role} needs --tenant"))),
    }
    if name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(CliError::usage(format!("--name is at most {NAME_MAX} visible characters")));
    }
    let store = context.store().await?;
    let now = context.clock().now();
    let new = new_key().map_err(|error| CliError::failed(format!("no randomness for a key: {error}")))?;
    let row = KeyRow { id: new.id, tenant, role, source, name, hash: new.hash, created_at: now, revoked_at: None };
    let mut tx = store.write().await?;
    if let Some(tenant) = &row.tenant
        && accounts::catalog_version(&mut tx, tenant).await?.is_none()
    {
        return Err(CliError::no(format!("there is no tenant {tenant}; apply its catalog first")));
    }
    keys::insert(&mut tx, &row).await?;
    let entry = audit::Entry {
        tenant: row.tenant.as_ref().map(TenantId::as_str),
        actor: "command line",
        action: "key.create",
        account_id: None,
        subject: &row.id,
        detail: &json!({ "role": row.role, "source": row.source, "name": row.name }),
    };
    audit::append(&mut tx, &entry, now).await?;
    tx.commit().await?;
    store.close().await;
    if context.json {
        let mut shown = shown(&row);
        shown["key"] = json!(new.text);
        context.print_json(&shown)?;
    } else {
        context.print(&format!("{}\n", new.text))?;
        eprintln!("This key ({}) is shown only now.", row.id);
    }
    Ok(Exit::Done)
}

async fn list(tenant: Option<&TenantId>, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let rows = keys::list(&mut store.read().await?, tenant.map(TenantId::as_str)).await?;
    store.close().await;
    if context.json {
        context.print_json(&rows.iter().map(shown).collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    }
    let text = |row: &KeyRow| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            row.id.clone(),
            or_dash(row.tenant.as_ref().map(ToString::to_string)),
            row.role.to_string(),
            or_dash(row.source.as_ref().map(ToString::to_string)),
            row.name.clone(),
            row.created_at.to_string(),
            or_dash(row.revoked_at.map(|at| at.to_string())),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(text).collect();
    context.print_table(&["ID", "TENANT", "ROLE", "SOURCE", "NAME", "CREATED", "REVOKED"], &rows)?;
    Ok(Exit::Done)
}

async fn revoke(id: &str, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let now = context.clock().now();
    let mut tx = store.write().await?;
    let revoked = keys::revoke(&mut tx, id, now).await?;
    if revoked {
        let entry = audit::Entry {
            tenant: None,
            actor: "command line",
            action: "key.revoke",
            account_id: None,
            subject: id,
            detail: &json!({}),
        };
        audit::append(&mut tx, &entry, now).await?;
    }
    tx.commit().await?;
    store.close().await;
    if context.json {
        context.print_json(&json!({ "id": id, "revoked": revoked }))?;
    }
    match revoked {
        true => Ok(Exit::Done),
        false => Ok(context.not_found(&format!("There is no living key {id}."))),
    }
}

fn shown(row: &KeyRow) -> serde_json::Value {
    json!({
        "id": row.id,
        "tenant": row.tenant,
        "role": row.role,
        "source": row.source,
        "name": row.name,
        "created_at": row.created_at,
        "revoked_at": row.revoked_at,
    })
}
