//! Telephone calls: each kept once, and in the ledger of whoever held the number when it began.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::FromRow;

use super::ledger::{self, Cause, NewEntry};
use super::sessions::Owner;
use super::{StoreError, Tx, cycles, fold, on};
use crate::billing::calendar::BillCycle;
use crate::usage::{Amount, Call, LedgerBucket};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// What became of the calls of one import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recorded {
    pub new: u64,
    pub known: u64,
}

/// Calls of a number that nobody held when they began.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct UnattributedCalls {
    pub number: String,
    pub calls: i64,
    pub seconds: i64,
    pub first_at: i64,
    pub last_at: i64,
}

const INSERT: &str = "INSERT INTO call_record (digest, number, destination, started_at, seconds, imported_at)
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (digest) DO NOTHING";
const UNATTRIBUTED: &str = "SELECT id, number, started_at, seconds FROM call_record
     WHERE account_id IS NULL AND id > $1 ORDER BY id LIMIT $2";
const ATTRIBUTE: &str = "UPDATE call_record SET account_id = $2, service_id = $3 WHERE id = $1 AND account_id IS NULL";
const UNATTRIBUTED_NUMBERS: &str = "SELECT number, COUNT(*) AS calls, CAST(SUM(seconds) AS BIGINT) AS seconds,
        MIN(started_at) AS first_at, MAX(started_at) AS last_at
     FROM call_record WHERE account_id IS NULL
     GROUP BY number ORDER BY MAX(started_at) DESC, number LIMIT $1";

/// Keeps calls; one that is known changes nothing.
pub async fn record(tx: &mut Tx, calls: &[Call], now: Timestamp) -> Result<Recorded, StoreError> {
    let mut recorded = Recorded::default();
    for call in calls {
        let inserted = on!(tx, c => sqlx::query(INSERT)
            .bind(&call.digest)
            .bind(&call.number)
            .bind(&call.destination)
            .bind(to_micros(call.started_at))
            .bind(call.seconds)
            .bind(to_micros(now))
            .execute(c)
            .await.map(|done| done.rows_affected()))?;
        recorded.new += inserted;
        recorded.known += 1 - inserted;
    }
    Ok(recorded)
}

/// Gives calls nobody owns, by id after `after`, to whoever held their number: into the ledger and the totals. Returns
/// the last id looked at, `None` when there was none, and how many found an owner. Waits for the fold's transaction.
pub async fn attribute(tx: &mut Tx, after: i64, limit: i64, now: Timestamp) -> Result<(Option<i64>, u64), StoreError> {
    fold::interrupt(tx).await?;
    let waiting: Vec<Waiting> = on!(tx, c => sqlx::query_as(UNATTRIBUTED).bind(after).bind(limit).fetch_all(c).await)?;
    let last = waiting.last().map(|call| call.id);
    if waiting.is_empty() {
        return Ok((None, 0));
    }
    let mut numbers: Vec<(&str, &str)> = waiting.iter().map(|call| ("number", call.number.as_str())).collect();
    numbers.sort();
    numbers.dedup();
    let mut holders: HashMap<String, Vec<fold::Holder>> = HashMap::new();
    for holder in fold::holders_keyed(tx, &numbers).await? {
        holders.entry(holder.value.clone()).or_default().push(holder);
    }
    let owners: HashMap<i64, Owner> = waiting
        .iter()
        .filter_map(|call| {
            let held = holders.get(&call.number).map(Vec::as_slice).unwrap_or_default();
            Some((call.id, owner_at(held, call.started_at)?))
        })
        .collect();
    let calendars = calendars(tx, owners.values().map(|owner| owner.account_id).collect()).await?;
    let mut entries = Vec::new();
    let mut totals: BTreeMap<(i64, i64), Amount> = BTreeMap::new();
    for call in &waiting {
        let Some(owner) = owners.get(&call.id).copied() else { continue };
        let amount = Amount { seconds: call.seconds, sessions: 1, ..Amount::default() };
        // Without duration: a call belongs whole to the moment it began, whatever period it ends in.
        let bucket = LedgerBucket { from_at: call.started_at, until_at: call.started_at, amount };
        // The opposite of its number stands for the session, of which it has none.
        let cycle = calendars.get(&owner.account_id);
        let period_start_at = cycle.and_then(|cycle| period_start(cycle, call.started_at));
        let (session_id, cause) = (-call.id, Cause::Call);
        entries.push(NewEntry { owner, session_id, bucket, cause, period_start_at, class: None });
        if let Some(period) = period_start_at {
            let sum = totals.entry((owner.service_id, period)).or_default();
            *sum = sum.plus(amount).map_err(|error| StoreError::Database(error.to_string()))?;
        }
        on!(tx, c => sqlx::query(ATTRIBUTE).bind(call.id).bind(owner.account_id).bind(owner.service_id).execute(c)
            .await.map(drop))?;
    }
    ledger::append(tx, &entries, now).await?;
    ledger::add_totals(tx, &totals).await?;
    Ok((last, entries.len() as u64))
}

/// Calls nobody owns, by number, the latest first.
pub async fn unattributed(tx: &mut Tx, limit: i64) -> Result<Vec<UnattributedCalls>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(UNATTRIBUTED_NUMBERS).bind(limit).fetch_all(c).await)?)
}

/// Before the first holder of a number it is the first, afterwards whoever held it then.
fn owner_at(holders: &[fold::Holder], started_at: i64) -> Option<Owner> {
    let first = holders.first()?;
    if started_at < first.from_at {
        return Some(first.owner);
    }
    let holder = holders.iter().rev().find(|holder| holder.from_at <= started_at)?;
    holder.until_at.is_none_or(|until| started_at < until).then_some(holder.owner)
}

fn period_start(cycle: &BillCycle, at: i64) -> Option<i64> {
    let period = cycle.period_at(from_micros(at)?).ok()?;
    Some(to_micros(period.start))
}

/// The cycle each of these accounts follows, where its catalog knows it.
async fn calendars(tx: &mut Tx, accounts: BTreeSet<i64>) -> Result<HashMap<i64, BillCycle>, StoreError> {
    let accounts: Vec<i64> = accounts.into_iter().collect();
    let mut of_tenants: HashMap<String, Vec<BillCycle>> = HashMap::new();
    let mut found = HashMap::new();
    for (account, tenant, cycle) in fold::cycles_of(tx, &accounts).await? {
        if !of_tenants.contains_key(&tenant) {
            of_tenants.insert(tenant.clone(), cycles::in_force(tx, &tenant).await?.cycles);
        }
        let known = of_tenants[&tenant].iter().find(|known| known.id == cycle);
        found.extend(known.map(|known| (account, known.clone())));
    }
    Ok(found)
}

#[derive(FromRow)]
struct Waiting {
    id: i64,
    number: String,
    started_at: i64,
    seconds: i64,
}
