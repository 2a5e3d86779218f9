//! Reads an account's whole ledger and all its lines, for whoever proves where the octets went.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::billing::{instant, parsed};
use super::{StoreError, Tx, accounts, ledger, on, sessions};
use crate::billing::assurance::AccountLedger;
use crate::billing::facts::UsageEntry;

/// An account to be proven.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ProvenAccount {
    pub id: i64,
    pub tenant: String,
    pub source: String,
    pub external_id: String,
    pub bill_cycle: String,
}

const ACCOUNTS: &str = "SELECT id, tenant, source, external_id, bill_cycle FROM account
     WHERE id > $1 ORDER BY id LIMIT $2";
const COUNT: &str = "SELECT COUNT(*) FROM account";
const LINES: &str = "SELECT line.document FROM line JOIN batch ON batch.id = line.batch
     WHERE line.account_id = $1 AND batch.state <> 'building'
     ORDER BY line.period_start_at, line.id LIMIT 10000000";
// A call's entry has the opposite of its id.
const STRAY: &str = "SELECT COUNT(*), CAST(COALESCE(SUM(in_octets + out_octets), 0) AS BIGINT) FROM ledger
     WHERE account_id = $1 AND NOT EXISTS (SELECT 1 FROM session WHERE session.id = ledger.session_id)
       AND NOT EXISTS (SELECT 1 FROM call_record WHERE call_record.id = -ledger.session_id)";

/// The next accounts by row, of all tenants.
pub async fn accounts_after(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<ProvenAccount>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(ACCOUNTS).bind(after).bind(limit).fetch_all(c).await)?)
}

pub async fn count_accounts(tx: &mut Tx) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(COUNT).fetch_one(c).await)?)
}

/// Everything an account has: its lines, its ledger by service, and what is pending.
pub async fn account_ledger(tx: &mut Tx, account_id: i64) -> Result<AccountLedger, StoreError> {
    let services: HashMap<i64, String> =
        accounts::services(tx, account_id).await?.into_iter().map(|row| (row.id, row.external_id)).collect();
    let mut entries: BTreeMap<String, Vec<UsageEntry>> = BTreeMap::new();
    let mut after = 0;
    loop {
        let found = ledger::of_account(tx, account_id, after, ENTRIES_AT_ONCE).await?;
        let Some(last) = found.last() else { break };
        after = last.sequence;
        for entry in found {
            // Of a service that is not this account's: named, so that its octets are missed nowhere.
            let service = services.get(&entry.service_id).cloned();
            let service = service.unwrap_or_else(|| format!("service row {}", entry.service_id));
            entries.entry(service).or_default().push(UsageEntry {
                sequence: entry.sequence,
                session: entry.session_id,
                class: entry.class.map(Arc::from),
                call: entry.called.map(Arc::from),
                from: instant(entry.from_at, "ledger")?,
                until: instant(entry.until_at, "ledger")?,
                in_octets: entry.in_octets,
                out_octets: entry.out_octets,
                seconds: entry.seconds,
                sessions: entry.sessions,
            });
        }
    }
    let mut pending = Vec::new();
    for session in sessions::pending_of_accounts(tx, &[account_id]).await? {
        let octets = |(at, amount): (i64, crate::usage::Amount)| {
            (at, i128::from(amount.in_octets) + i128::from(amount.out_octets))
        };
        pending.extend(session.state.pending().iter().map(octets));
    }
    let rows: Vec<String> = on!(tx, c => sqlx::query_scalar(LINES).bind(account_id).fetch_all(c).await)?;
    let lines = rows.iter().map(|document| parsed(document)).collect::<Result<_, _>>()?;
    Ok(AccountLedger { lines, entries, pending })
}

/// Ledger entries of sessions that are not there: how many, and their octets.
pub async fn stray_entries(tx: &mut Tx, account_id: i64) -> Result<(i64, i64), StoreError> {
    Ok(on!(tx, c => sqlx::query_as(STRAY).bind(account_id).fetch_one(c).await)?)
}

const ENTRIES_AT_ONCE: i64 = 5_000;
