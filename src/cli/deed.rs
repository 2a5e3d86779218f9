//! What the commands tell the audit: who sits at the command line, and one deed noted.

use serde_json::Value;

use super::context::Context;
use super::exit::CliError;
use crate::store::{Store, audit};

/// The person named, else the user of this shell.
pub fn person(named: Option<String>) -> String {
    let user = || std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).ok();
    named.or_else(user).unwrap_or_else(|| "command line".to_owned())
}

/// Notes a deed that had no transaction of its own to be noted in: it went on for many, or happened elsewhere.
pub async fn note(
    store: &Store,
    tenant: Option<&str>,
    action: &str,
    subject: &str,
    detail: &Value,
    context: &Context,
) -> Result<(), CliError> {
    let by = person(None);
    let mut tx = store.write().await?;
    let entry = audit::Entry { tenant, actor: &by, action, account_id: None, subject, detail };
    audit::append(&mut tx, &entry, context.clock().now()).await?;
    Ok(tx.commit().await?)
}
