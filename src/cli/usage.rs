//! `usage show` and `usage unattributed`: what a subscriber used, and what nobody is known to have used.

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::session::which_account;
use crate::billing::view::{self, By};
use crate::daemon::config::Config;
use crate::store::calls::UnattributedCalls;
use crate::store::fold::{Holder, holders_of};
use crate::store::usage::{Unattributed, accounts_named, of_account, unattributed};
use crate::store::{Store, cycles};
use crate::vocabulary::{Timestamp, from_micros};

/// The commands of `lastmile usage`.
#[derive(Subcommand)]
pub enum UsageCommand {
    /// Show an account's usage; without a range, of its running period.
    Show {
        /// The account's external id.
        account: String,
        /// Whose account it is, where several have that id.
        #[arg(long)]
        tenant: Option<String>,
        /// Of which billing system it is, where several have that id.
        #[arg(long)]
        source: Option<String>,
        /// From this instant on, for example 2026-11-01T00:00:00Z.
        #[arg(long)]
        from: Option<Timestamp>,
        /// Up to this instant.
        #[arg(long)]
        to: Option<Timestamp>,
        /// The width of a row: hour, day or cycle.
        #[arg(long, default_value = "cycle")]
        by: By,
    },
    /// List usage that nobody owns, with why.
    Unattributed {
        /// At most so many rows.
        #[arg(long, default_value_t = 1000)]
        limit: i64,
    },
}

/// Runs one of them.
pub async fn run(command: UsageCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match command {
        UsageCommand::Show { account, tenant, source, from, to, by } => {
            let mut tx = store.read().await?;
            let found = accounts_named(&mut tx, &account, tenant.as_deref(), source.as_deref(), 2).await?;
            tx.rollback().await?;
            let [(id, ..)] = found.as_slice() else { return which_account(&account, found.len(), context) };
            show(&store, (*id, &account), (from, to), by, context).await
        }
        UsageCommand::Unattributed { limit } => list_unattributed(&store, limit, context).await,
    }
}

async fn show(
    store: &Store,
    (id, account): (i64, &str),
    (from, to): (Option<Timestamp>, Option<Timestamp>),
    by: By,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut tx = store.read().await?;
    let cycle = cycles::of_account(&mut tx, id).await?.unwrap_or_else(view::fallback_cycle);
    let period = cycle.period_at(from.unwrap_or_else(|| context.clock.now()))?;
    let (from, to) = (from.unwrap_or(period.start), to.unwrap_or(period.end));
    let edges = view::edges(&cycle, from, to)?;
    let pieces = of_account(&mut tx, id, from, to, &edges).await?;
    let rows = view::sum(pieces.into_iter().map(|piece| (piece.service, piece.from_at, piece.amount)), &cycle, by)?;
    let total = view::total(&rows);
    if context.json {
        let items: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({ "service": row.service, "from": row.from, "to": row.until,
                    "in_octets": view::digits(row.amount.in_octets), "out_octets": view::digits(row.amount.out_octets),
                    "seconds": view::digits(row.amount.seconds), "sessions": view::digits(row.amount.sessions) })
            })
            .collect();
        let total = json!({ "in_octets": view::digits(total.in_octets), "out_octets": view::digits(total.out_octets),
            "seconds": view::digits(total.seconds), "sessions": view::digits(total.sessions) });
        let document = json!({ "account": account, "cycle": cycle.id, "timezone": cycle.timezone, "from": from,
            "to": to, "items": items, "total": total });
        context.print_json(&document)?;
        return Ok(Exit::Done);
    }
    let mut table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let numbers = [row.amount.in_octets, row.amount.out_octets, row.amount.seconds, row.amount.sessions];
            let words = [row.service.clone(), row.from.to_string(), row.until.to_string()];
            words.into_iter().chain(numbers.map(|number| number.to_string())).collect()
        })
        .collect();
    let numbers = [total.in_octets, total.out_octets, total.seconds, total.sessions];
    let words = ["total".to_owned(), from.to_string(), to.to_string()];
    table.push(words.into_iter().chain(numbers.map(|number| number.to_string())).collect());
    context.print_table(&["SERVICE", "FROM", "TO", "IN", "OUT", "SECONDS", "SESSIONS"], &table)?;
    Ok(Exit::Done)
}

async fn list_unattributed(store: &Store, limit: i64, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let mut tx = store.read().await?;
    let found = unattributed(&mut tx, limit).await?;
    let mut parked = Vec::with_capacity(found.len());
    for rows in found.chunks(NAMES_AT_ONCE) {
        let names: Vec<&str> = rows.iter().filter_map(|row| row.user.as_deref()).collect();
        let holders = if names.is_empty() { Vec::new() } else { holders_of(&mut tx, &names).await? };
        parked.extend(rows.iter().map(|row| (reason(row, &holders, &config), row)));
    }
    let calls = crate::store::calls::unattributed(&mut tx, limit).await?;
    tx.rollback().await?;
    if context.json {
        let rows: Result<Vec<_>, _> = parked
            .iter()
            .map(|(reason, row)| {
                let mut document = serde_json::to_value(row)?;
                document["reason"] = json!(reason);
                Ok::<_, serde_json::Error>(document)
            })
            .collect();
        let mut rows = rows.map_err(|error| CliError::failed(error.to_string()))?;
        rows.extend(calls.iter().map(|row| {
            json!({ "number": row.number, "calls": row.calls, "seconds": row.seconds,
                "first_at": from_micros(row.first_at), "last_at": from_micros(row.last_at), "reason": NO_NUMBER })
        }));
        context.print_json(&rows)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = parked
        .into_iter()
        .map(|(reason, row)| {
            vec![
                row.user.clone().unwrap_or_else(|| "-".to_owned()),
                row.nas.clone(),
                row.sessions.to_string(),
                row.in_octets.to_string(),
                row.out_octets.to_string(),
                row.first_at.to_string(),
                row.last_at.to_string(),
                reason.to_owned(),
            ]
        })
        .collect();
    if !calls.is_empty() {
        let at = |micros: i64| from_micros(micros).map(|at| at.to_string()).unwrap_or_default();
        let row = |row: &UnattributedCalls| {
            let numbers = [row.calls.to_string(), row.seconds.to_string(), at(row.first_at), at(row.last_at)];
            std::iter::once(row.number.clone()).chain(numbers).chain([NO_NUMBER.to_owned()]).collect()
        };
        let called: Vec<Vec<String>> = calls.iter().map(row).collect();
        context.print_table(&["NUMBER", "CALLS", "SECONDS", "FIRST", "LAST", "REASON"], &called)?;
    }
    context.print_table(&["USER", "NAS", "SESSIONS", "IN", "OUT", "FIRST", "LAST", "REASON"], &rows)?;
    Ok(Exit::Done)
}

/// Why nobody owns it, as of now. It is attached as soon as somebody holds the name, the address or the MAC.
fn reason(row: &Unattributed, holders: &[Holder], config: &Config) -> &'static str {
    let Some(user) = row.user.as_deref() else { return "no user name, and nobody holds its address or MAC" };
    let mut named = holders.iter().filter(|holder| holder.value.to_lowercase() == user.to_lowercase()).peekable();
    if named.peek().is_none() {
        return "nobody ever held this user name";
    }
    let clients = config.radius.iter().flat_map(|radius| &radius.nas);
    let behind = |name: &str| row.nas == name || row.nas.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    let tenants = clients.filter(|client| behind(&client.name)).find_map(|client| client.tenants.as_ref());
    let allowed =
        |holder: &&Holder| tenants.is_none_or(|tenants| tenants.iter().any(|tenant| tenant.as_str() == holder.tenant));
    if named.any(|holder| allowed(&holder)) {
        "nobody held this user name when the session began"
    } else {
        "held by a tenant that is not allowed behind this NAS"
    }
}

const NO_NUMBER: &str = "nobody held this number when the call began";
/// User names of one question to the database.
const NAMES_AT_ONCE: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sessions::Owner;

    #[test]
    fn reason_of_parked_usage_is_told() {
        let text = "[database]\nurl = \"sqlite:///tmp/a.db\"\n[api]\nlisten = \"127.0.0.1:8080\"\n\
                    [radius]\n[[radius.nas]]\nname = \"bng1\"\naddress = \"192.0.2.1\"\nsecret = \"s\"\n\
                    tenants = [\"acme\"]\n";
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("lastmile.toml");
        std::fs::write(&file, text).expect("written");
        let config = Config::load(&file).expect("valid").config;
        let holder = |value: &str, tenant: &str| Holder {
            kind: "username".into(),
            value: value.into(),
            owner: Owner { account_id: 1, service_id: 1 },
            tenant: tenant.into(),
            from_at: 0,
            until_at: Some(1),
        };
        let holders = [holder("ada", "acme"), holder("bob", "other")];
        let row = |user: Option<&str>, nas: &str| Unattributed {
            user: user.map(str::to_owned),
            nas: nas.to_owned(),
            sessions: 1,
            in_octets: 0,
            out_octets: 0,
            first_at: Timestamp::UNIX_EPOCH,
            last_at: Timestamp::UNIX_EPOCH,
        };
        for (user, nas, expected) in [
            (None, "bng1", "no user name, and nobody holds its address or MAC"),
            (Some("eve"), "bng1", "nobody ever held this user name"),
            (Some("Ada"), "bng1", "nobody held this user name when the session began"),
            (Some("bob"), "bng1", "held by a tenant that is not allowed behind this NAS"),
            (Some("bob"), "bng1/olt-4", "held by a tenant that is not allowed behind this NAS"),
            (Some("bob"), "bng2", "nobody held this user name when the session began"),
        ] {
            assert_eq!(reason(&row(user, nas), &holders, &config), expected, "{user:?} {nas}");
        }
    }
}
