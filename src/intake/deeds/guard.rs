//! Guards the network from a source that is wrong as a whole: what would take too much away waits for an operator, what an
//! observed source says is only noted, and many old revisions in a row are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::push::{STALE_KIND, STALE_MANY};
use super::{Done, Ground};
use crate::account::{Account, Loss, differences};
use crate::store::breaker::{self, HeldChange, NewHeld, Waiting};
use crate::store::{StoreError, Tx, accounts, audit, exceptions, sources};
use crate::vocabulary::{AccountKey, SourceId, TenantId, Timestamp};

/// A source of a tenant.
type Of = (TenantId, SourceId);

/// What the guard remembers between transactions; losing it costs a question to the database, or some patience.
#[derive(Clone, Default)]
pub struct Memory {
    living: Arc<Mutex<HashMap<Of, (i64, Timestamp)>>>,
    stale: Arc<Mutex<HashMap<Of, i64>>>,
}

/// How much the sources of one transaction took away.
#[derive(Default)]
pub(super) struct Guard {
    rates: HashMap<Of, Rate>,
    /// Changes held, by source.
    held: HashMap<Of, i64>,
}

struct Rate {
    /// In the last 24 hours, with what this transaction lets pass.
    taken: i64,
    /// Written by this transaction.
    written: i64,
}

/// How long the number of a source's living accounts is believed.
const BELIEVED_SECONDS: i64 = 60;
/// The kind of the exception that tells of changes that wait.
pub const HELD_KIND: &str = "changes-held";

impl Guard {
    /// Whether one more change of this source may take something away.
    pub(super) async fn passes(
        &mut self,
        key: &AccountKey,
        tx: &mut Tx,
        ground: &Ground,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (tenant, source) = (key.tenant.as_str(), key.source.as_str());
        let of = (key.tenant.clone(), key.source.clone());
        let settings = ground.sources.breaker(&key.tenant, &key.source);
        if !self.rates.contains_key(&of) {
            let taken = breaker::taken(tx, tenant, source, now).await?;
            self.rates.insert(of.clone(), Rate { taken, written: 0 });
        }
        let taken = self.rates[&of].taken;
        // Counting the living costs more than the usual change is worth; below the least there may be no need.
        let passes = match settings.allows(0) {
            None => true,
            Some(least) if taken < least => true,
            Some(_) => {
                let living = ground.memory.living(&of, tx, now).await?;
                settings.allows(living).is_none_or(|allowed| taken < allowed)
            }
        };
        if passes && let Some(rate) = self.rates.get_mut(&of) {
            rate.taken += 1;
        }
        Ok(passes)
    }

    /// One that passed is written.
    pub(super) fn count(&mut self, key: &AccountKey) {
        if let Some(rate) = self.rates.get_mut(&(key.tenant.clone(), key.source.clone())) {
            rate.written += 1;
        }
    }

    /// Holds a change until an operator decides.
    pub(super) async fn hold(
        &mut self,
        new: &NewHeld<'_>,
        account_id: i64,
        tx: &mut Tx,
        ground: &Ground,
        now: Timestamp,
    ) -> Result<Done, StoreError> {
        let id = breaker::hold(tx, &ground.sealer, new, now).await?;
        *self.held.entry((new.key.tenant.clone(), new.key.source.clone())).or_default() += 1;
        let reasons: Vec<String> = new.losses.iter().map(Loss::words).collect();
        let subject = accounts::subject(new.key);
        let detail = json!({ "held": id, "losses": new.losses, "source_revision": new.source_revision });
        let entry = audit::Entry {
            tenant: Some(new.key.tenant.as_str()),
            actor: new.actor,
            action: "change.hold",
            account_id: Some(account_id),
            subject: &subject,
            detail: &with_origin(detail, new.origin),
        };
        audit::append(tx, &entry, now).await?;
        let body = json!({
            "applied": false,
            "held": { "id": id.to_string(), "reasons": reasons },
            "source_revision": new.source_revision,
        });
        Ok(Done { status: 202, etag: None, body, outcome: "held" })
    }

    /// Writes what was counted, and tells of what is held.
    pub(super) async fn settle(self, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<(), StoreError> {
        for ((tenant, source), rate) in &self.rates {
            if rate.written > 0 {
                breaker::take(tx, tenant.as_str(), source.as_str(), rate.written, now).await?;
            }
        }
        for (tenant, source) in self.held.keys() {
            let waiting = breaker::count_of(tx, tenant.as_str(), source.as_str()).await?;
            let settings = ground.sources.breaker(tenant, source);
            let detail = format!(
                "{waiting} changes of source {source} that take service away wait: it took away more in 24 hours than {} % of \
                 its accounts or {} of them, whichever is more. Look at `lastmile held list --tenant {tenant} --source \
                 {source}`, then release or drop them.",
                settings.percent, settings.accounts
            );
            let subject = format!("{tenant}/{source}");
            exceptions::open(tx, Some(tenant.as_str()), HELD_KIND, &subject, &detail, now).await?;
        }
        Ok(())
    }
}

impl Memory {
    async fn living(&self, of: &Of, tx: &mut Tx, now: Timestamp) -> Result<i64, StoreError> {
        let known = locked(&self.living).get(of).copied();
        if let Some((count, at)) = known
            && now.as_second() - at.as_second() < BELIEVED_SECONDS
        {
            return Ok(count);
        }
        let count = breaker::living(tx, of.0.as_str(), of.1.as_str()).await?;
        locked(&self.living).insert(of.clone(), (count, now));
        Ok(count)
    }

    /// One more old revision of a source. Returns how many came in a row.
    fn stale(&self, key: &AccountKey) -> i64 {
        let mut stale = locked(&self.stale);
        let count = stale.entry((key.tenant.clone(), key.source.clone())).or_default();
        *count += 1;
        *count
    }

    /// The source sent a revision that is new.
    pub(super) fn fresh(&self, key: &AccountKey) {
        let mut stale = locked(&self.stale);
        if !stale.is_empty() {
            stale.remove(&(key.tenant.clone(), key.source.clone()));
        }
    }
}

fn locked<T>(map: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Numbers cannot be left half-written by a panic.
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells when a source sent many old revisions in a row, whatever their accounts: it may have been restored from a backup.
pub(super) async fn tell_stale(
    key: &AccountKey,
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<(), StoreError> {
    let count = ground.memory.stale(key);
    if count % STALE_MANY != 0 {
        return Ok(());
    }
    let (tenant, source) = (&key.tenant, &key.source);
    let detail = format!(
        "{count} pushes of source {source} in a row were older than what is stored: it may have been restored from a backup. \
         If so, open the next epoch of its revisions: `lastmile source epoch new --tenant {tenant} --source {source}`."
    );
    exceptions::open(tx, Some(tenant.as_str()), STALE_KIND, &format!("{tenant}/{source}"), &detail, now).await?;
    Ok(())
}

/// What waits of each account, by its subject.
pub(super) async fn waiting(tx: &mut Tx, keys: &[&AccountKey]) -> Result<HashMap<String, HeldChange>, StoreError> {
    let held = breaker::of_accounts(tx, keys).await?;
    Ok(held.into_iter().map(|held| (accounts::subject(&held.key), held)).collect())
}

/// Whether what comes now is older than what waits.
pub(super) fn is_older(source_revision: Option<i64>, waits: &HeldChange) -> bool {
    matches!((source_revision, waits.source_revision), (Some(pushed), Some(known)) if pushed < known)
}

/// Notes what a push of an observed source would have done, and does nothing else.
pub(super) async fn observe(
    key: &AccountKey,
    would: &'static str,
    (before, after): (Option<&Account>, Option<&Account>),
    losses: &[Loss],
    tx: &mut Tx,
    now: Timestamp,
) -> Result<Done, StoreError> {
    let document = |account: Option<&Account>| account.map_or(Value::Null, |account| json!(account));
    let places = match would {
        "update" => differences(&document(before), &document(after)),
        _ => Vec::new(),
    };
    sources::observe(tx, key, would, &places, losses, now).await?;
    let reasons: Vec<String> = losses.iter().map(Loss::words).collect();
    let body = json!({ "applied": false, "observed": { "would": would, "places": places, "losses": reasons } });
    Ok(Done { status: 200, etag: None, body, outcome: "observed" })
}

/// What the audit says of a deed, with the profile and the input it came by.
pub(super) fn with_origin(mut detail: Value, origin: Option<&Value>) -> Value {
    if let Some(origin) = origin {
        detail["origin"] = origin.clone();
    }
    detail
}

/// What waits becomes what was asked for: a document, or a closing.
pub(super) fn waits_as_document(held: &HeldChange, ground: &Ground) -> Result<Option<Value>, StoreError> {
    match held.kind {
        Waiting::Push => held.content(&ground.sealer).map(Some),
        Waiting::Close | Waiting::Suspend => Ok(None),
    }
}
