//! What the demo does as the operator of the installation: the same calls the commands make, on the daemon's own store.

use serde_json::Value;

use super::checks::Checks;
use crate::biller::{self, Order};
use crate::billing::explain::Explanation;
use crate::billing::lines::{Line, StoredLine};
use crate::catalog::{Bundle, read};
use crate::cli::CliError;
use crate::daemon::Daemon;
use crate::daemon::config::Config;
use crate::intake;
use crate::store::foreign::aaa::AaaDatabase;
use crate::store::{accounts, catalog, keys, ledger, rating};
use crate::vocabulary::{AccountKey, Role, SourceId, TenantId, Timestamp, to_micros};

/// Makes an admin key of the tenant.
pub async fn make_key(daemon: &Daemon, tenant: &str) -> Result<String, CliError> {
    let made = intake::new_key()?;
    let row = keys::KeyRow {
        id: made.id,
        tenant: Some(TenantId::parse(tenant)?),
        role: Role::Admin,
        source: None,
        name: "demo".to_owned(),
        hash: made.hash,
        created_at: daemon.ground.clock.now(),
        revoked_at: None,
    };
    let mut tx = daemon.ground.store.write().await?;
    keys::insert(&mut tx, &row).await?;
    tx.commit().await?;
    Ok(made.text)
}

/// The mailbox is there with a hash Dovecot reads, and the password itself is nowhere.
pub async fn check_mailbox(config: &Config, address: &str, pushed: &str, checks: &mut Checks) -> Result<(), CliError> {
    let Some(mail) = &config.mail else { return Err(CliError::failed("the demo has no [mail]")) };
    let stored = mail.host()?.database.password(address).await?.unwrap_or_default();
    let scheme: String = stored.split_inclusive('$').take(2).collect();
    checks.equal(&format!("scheme of the password of mailbox {address}"), "{SHA512-CRYPT}$6$", scheme);
    checks.holds("the password itself is not in the table", !stored.contains(pushed), "only its hash");
    Ok(())
}

/// FreeRADIUS would accept the user.
pub async fn check_aaa(config: &Config, username: &str, pushed: &str, checks: &mut Checks) -> Result<(), CliError> {
    let Some(aaa) = &config.aaa else { return Err(CliError::failed("the demo has no [aaa]")) };
    let rows = AaaDatabase::open(&aaa.url)?.checked_by(username).await?;
    let hashed = rows.iter().any(|(attribute, _, value)| attribute == "Crypt-Password" && value.starts_with("$6$"));
    let rejected = rows.iter().any(|(attribute, _, _)| attribute == "Auth-Type");
    let names: Vec<&str> = rows.iter().map(|(attribute, _, _)| attribute.as_str()).collect();
    checks.holds(&format!("FreeRADIUS would let {username} in"), hashed && !rejected, names.join(", "));
    let in_clear = rows.iter().any(|(_, _, value)| value.contains(pushed));
    checks.holds("the password itself is not in the table", !in_clear, "only its hash");
    Ok(())
}

/// What the ledger holds of an account between two instants: (in, out).
pub async fn ledger_octets(
    daemon: &Daemon,
    tenant: &str,
    account: &str,
    (from, until): (Timestamp, Timestamp),
) -> Result<(u64, u64), CliError> {
    let key =
        AccountKey { tenant: TenantId::parse(tenant)?, source: SourceId::default(), external_id: account.to_owned() };
    let mut tx = daemon.ground.store.read().await?;
    let row = accounts::find(&mut tx, &key).await?;
    let row = row.ok_or_else(|| CliError::no(format!("no account {account}")))?;
    let entries = ledger::of_account(&mut tx, row.id, 0, ENTRIES_AT_MOST).await?;
    let inside = entries.iter().filter(|entry| (to_micros(from)..to_micros(until)).contains(&entry.from_at));
    let sum = inside.fold((0, 0), |(up, down), entry| (up + entry.in_octets, down + entry.out_octets));
    // Differences may be negative, their sum is not.
    Ok((u64::try_from(sum.0)?, u64::try_from(sum.1)?))
}

/// Applies the catalog as `catalog apply` does.
pub async fn apply_catalog(daemon: &Daemon, text: &str) -> Result<(), CliError> {
    let catalog = read(&Bundle::single("demo.toml", text)).map_err(|faults| {
        let list: Vec<String> =
            faults.into_iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        CliError::failed(list.join("\n"))
    })?;
    let mut tx = daemon.ground.store.write().await?;
    let now = daemon.ground.clock.now();
    let assessed = catalog::assess(&mut tx, &catalog, now).await?;
    catalog::apply(&mut tx, &catalog, assessed, false, "demo", now).await?;
    tx.commit().await?;
    Ok(())
}

/// Closes a period as `bill run` does; the lines as the API shows them.
pub async fn close_period(daemon: &Daemon, tenant: &str, cycle: &str, period: &str) -> Result<Vec<Value>, CliError> {
    let order = Order {
        tenant: tenant.to_owned(),
        cycle: cycle.to_owned(),
        period: Some(period.to_owned()),
        dry_run: false,
        rerate: false,
    };
    let mut seen = Seen(Vec::new());
    let report = biller::close_period(&daemon.ground.store, &daemon.ground.clock, &order, &mut seen).await?;
    if let Some((account, reason)) = report.failed.first() {
        return Err(CliError::failed(format!("account {account} was not billed: {reason}")));
    }
    Ok(seen.0.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
}

/// A line's computation, and whether it came out the same again.
pub async fn explain(daemon: &Daemon, line: &str) -> Result<Explanation, CliError> {
    let mut tx = daemon.ground.store.read().await?;
    let explanation = rating::explain(&mut tx, None, line).await?;
    explanation.ok_or_else(|| CliError::no(format!("no line {line}")))
}

/// The lines of a run as they come.
struct Seen(Vec<Line>);

impl biller::Watch for Seen {
    fn account(&mut self, _done: u64, _of: u64) {}

    fn line(&mut self, line: &StoredLine) {
        self.0.push(line.line.clone());
    }
}

const ENTRIES_AT_MOST: i64 = 100_000;
