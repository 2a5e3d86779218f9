//! A reconciliation whose list is kept: what it asks for, whether its plan may be applied, and how whoever works at it says so.
//! The daemon's worker, the route and the command line go through the same door.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::ToSpan;
use thiserror::Error;

use super::{Applied, Form, Found, GRACE_SECONDS, Input, Order, Progress, Reconciler, SyncError};
use crate::intake::sources::Shelf;
use crate::mediation::Profile;
use crate::store::syncs::{self, SyncRow};
use crate::store::{Store, StoreError, Tx};
use crate::vocabulary::{Clock, Timestamp};

const BEAT_EVERY: Duration = Duration::from_secs(3);
const BEATS_PER_RENEWAL: u32 = 7;
/// Whoever did not say so for as long is gone.
const CLAIM_SECONDS: i64 = 120;
/// Digits of a plan's hash that name it; lists show as many.
pub const HASH_DIGITS_MIN: usize = 12;

/// What is asked of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its hash, or the first `HASH_DIGITS_MIN` digits of it or more.
    pub plan: &'a str,
    /// An operator's word.
    pub allow_deletions: Option<u64>,
    pub by: &'a str,
}

/// Why a plan is not applied. Nothing was changed.
#[derive(Debug, Error)]
pub enum NotApplied {
    #[error("its list is not compared yet, or could not be; its state is {0}")]
    NotPlanned(String),
    #[error("its list is not kept here: a command read it from a file, or it was empty")]
    NotKept,
    #[error("{0}; an operator can allow more")]
    Guarded(String),
    #[error("its plan is {hash}, and its state {state}")]
    Other { hash: String, state: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Asks that a plan be applied, if it is this one, its list is kept, and it takes not too much away.
pub(super) async fn ask(tx: &mut Tx, row: &SyncRow, asked: Asked<'_>) -> Result<(), NotApplied> {
    let Some(report) = &row.report else { return Err(NotApplied::NotPlanned(row.state.clone())) };
    let plan = &report.plan;
    let other = || NotApplied::Other { hash: plan.hash.clone(), state: row.state.clone() };
    if row.state != "planned" || asked.plan.len() < HASH_DIGITS_MIN || !plan.hash.starts_with(asked.plan) {
        return Err(other());
    }
    if syncs::part(tx, &row.id, 0).await?.is_none() {
        return Err(NotApplied::NotKept);
    }
    if let (Some(refused), None) = (&plan.refused, asked.allow_deletions) {
        return Err(NotApplied::Guarded(refused.clone()));
    }
    match syncs::ask_to_apply(tx, &row.id, &plan.hash, asked.allow_deletions, asked.by).await? {
        true => Ok(()),
        false => Err(other()),
    }
}

/// Applies the plan of a list that is kept, and says all the while that it is at it. A process that dies at it is followed by a
/// daemon.
///
/// **Errors**: as `ask` before anything is done; then those of `Reconciler::apply`, which stand in the row.
pub async fn apply_kept(
    desk: &Reconciler,
    row: &SyncRow,
    shelf: &Shelf,
    asked: Asked<'_>,
    progress: &Progress,
) -> Result<Result<(Found, Applied), SyncError>, NotApplied> {
    let now = desk.clock.now();
    let mut tx = desk.store.write().await?;
    ask(&mut tx, row, asked).await?;
    if !syncs::take(&mut tx, &row.id, "applying", now, until(now)).await? {
        return Err(NotApplied::Other { hash: asked.plan.to_owned(), state: "applying".to_owned() });
    }
    tx.commit().await?;
    let plan = row.plan_hash.clone().unwrap_or_default();
    let asked = SyncRow {
        state: "applying".to_owned(),
        applied_by: Some(asked.by.to_owned()),
        allow_deletions: asked.allow_deletions,
        ..row.clone()
    };
    let outcome = match order(&asked, shelf) {
        Ok((order, form)) => {
            let input = Input::Sent(row.id.clone());
            let working = desk.apply(&order, &input, &form, &plan, progress);
            held(&desk.store, &desk.clock, &row.id, || (), working).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &outcome {
        settle(&desk.store, &row.id, error).await?;
    }
    Ok(outcome)
}

/// What a stored one asks for.
pub(super) fn order(row: &SyncRow, shelf: &Shelf) -> Result<(Order, Arc<Form>), SyncError> {
    let form = match &row.profile {
        None => Form::Documents,
        Some(name) => {
            let shelved = shelf.named(name);
            let shelved = shelved.ok_or_else(|| SyncError::List(format!("no profile is called {name:?}")))?;
            let profile = Profile::read(name, &shelved.text);
            Form::Profile(Box::new(profile.map_err(|_| SyncError::List(format!("the profile {name:?} has faults")))?))
        }
    };
    let name = |error: crate::vocabulary::IdError| SyncError::List(error.to_string());
    let actor = if row.state == "applying" { row.applied_by.clone() } else { None };
    let order = Order {
        sync: row.id.clone(),
        tenant: row.tenant.parse().map_err(name)?,
        source: row.source.parse().map_err(name)?,
        as_of: row.as_of,
        grace_seconds: GRACE_SECONDS,
        said_complete: row.said_complete.clone(),
        told_records: row.told_records,
        allow_deletions: row.allow_deletions,
        only: row.only.clone(),
        with_matched: false,
        actor: actor.unwrap_or_else(|| row.requested_by.clone()),
    };
    Ok((order, Arc::new(form)))
}

/// Works, and says every few seconds that it goes on.
pub(super) async fn held<T>(
    store: &Store,
    clock: &Clock,
    id: &str,
    beat: impl Fn(),
    working: impl Future<Output = T>,
) -> T {
    tokio::pin!(working);
    let mut beats = 0u32;
    loop {
        tokio::select! {
            outcome = &mut working => return outcome,
            () = tokio::time::sleep(BEAT_EVERY) => {
                beat();
                beats += 1;
                if beats.is_multiple_of(BEATS_PER_RENEWAL) {
                    let _ = renew(store, id, until(clock.now())).await;
                }
            }
        }
    }
}

/// Keeps with it why it was not done. Where the database was away nothing is kept: its claim ends by itself, and it is taken up
/// again.
pub(super) async fn settle(store: &Store, id: &str, error: &SyncError) -> Result<(), StoreError> {
    match error {
        SyncError::Store(error) if error.is_unavailable() => {
            tracing::warn!("Reconciliation {id} was interrupted: {error}. Taken up again within {CLAIM_SECONDS} s.");
            return Ok(());
        }
        SyncError::PlanMoved(_) | SyncError::Guarded(_) => {
            tracing::warn!("The plan of reconciliation {id} was not applied: {error}.");
        }
        error => tracing::error!("Reconciliation {id} failed: {error}."),
    }
    let mut tx = store.write().await?;
    match error {
        SyncError::PlanMoved(_) | SyncError::Guarded(_) => syncs::told(&mut tx, id, &error.to_string()).await?,
        error => syncs::failed(&mut tx, id, &error.to_string()).await?,
    }
    tx.commit().await
}

/// Until when a claim holds.
pub(super) fn until(now: Timestamp) -> Timestamp {
    now.checked_add(CLAIM_SECONDS.seconds()).unwrap_or(Timestamp::MAX)
}

async fn renew(store: &Store, id: &str, until: Timestamp) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    syncs::renew(&mut tx, id, until).await?;
    tx.commit().await
}
