//! Approves or discards a draft: the bills of a cycle that says `approval = "required"`.

use thiserror::Error;

use super::{BillerError, Claim, drop_batch, settle_closed};
use crate::store::billing::{self, BatchRow};
use crate::store::{Store, StoreError, audit};
use crate::vocabulary::Clock;

/// Why a draft was not approved or discarded.
#[derive(Debug, Error)]
pub enum ApprovalError {
    #[error("there is no batch {0}")]
    NoBatch(String),
    #[error("batch {id} is {state}; only a checked draft can be approved, only a draft discarded")]
    State { id: String, state: String },
    #[error("{0}")]
    Run(#[from] BillerError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Approves a checked draft and closes it: from here on its lines are pulled. Again is no fault.
pub async fn approve(
    store: &Store,
    clock: &Clock,
    tenant: &str,
    id: &str,
    by: &str,
) -> Result<BatchRow, ApprovalError> {
    let mut tx = store.read().await?;
    let batch = billing::batch(&mut tx, tenant, id).await?.ok_or_else(|| ApprovalError::NoBatch(id.to_owned()))?;
    drop(tx);
    // A run that replaces the draft meanwhile would take its lines away.
    let claim = Claim::new(store, clock, tenant, &batch.cycle);
    claim.take().await?;
    let approved = close(store, clock, tenant, id, by).await;
    claim.give_back().await?;
    approved
}

async fn close(store: &Store, clock: &Clock, tenant: &str, id: &str, by: &str) -> Result<BatchRow, ApprovalError> {
    let mut tx = store.write().await?;
    let now = clock.now();
    if billing::approve(&mut tx, tenant, id, by, now).await? {
        settle_closed(&mut tx, tenant, id, now).await?;
        let entry = audit::Entry {
            tenant: Some(tenant),
            actor: by,
            action: "bill.approve",
            account_id: None,
            subject: id,
            detail: &serde_json::json!({}),
        };
        audit::append(&mut tx, &entry, now).await?;
    }
    let batch = billing::batch(&mut tx, tenant, id).await?.ok_or_else(|| ApprovalError::NoBatch(id.to_owned()))?;
    if batch.approved_at.is_none() {
        return Err(ApprovalError::State { id: id.to_owned(), state: batch.state });
    }
    tx.commit().await?;
    tracing::info!(
        period.start = %batch.period.start,
        "Closed cycle {} of {}: batch {id}, {} lines, approved by {by}.", batch.cycle, tenant, batch.lines
    );
    Ok(batch)
}

/// Throws a draft away. The next run makes a new one.
pub async fn discard(store: &Store, clock: &Clock, tenant: &str, id: &str) -> Result<(), ApprovalError> {
    let mut tx = store.read().await?;
    let batch = billing::batch(&mut tx, tenant, id).await?.ok_or_else(|| ApprovalError::NoBatch(id.to_owned()))?;
    drop(tx);
    let claim = Claim::new(store, clock, tenant, &batch.cycle);
    claim.take().await?;
    let thrown = throw_away(store, &claim, tenant, id).await;
    claim.give_back().await?;
    thrown
}

async fn throw_away(store: &Store, claim: &Claim<'_>, tenant: &str, id: &str) -> Result<(), ApprovalError> {
    let mut tx = store.read().await?;
    let batch = billing::batch(&mut tx, tenant, id).await?.ok_or_else(|| ApprovalError::NoBatch(id.to_owned()))?;
    drop(tx);
    if !matches!(batch.state.as_str(), "draft" | "checked") {
        return Err(ApprovalError::State { id: id.to_owned(), state: batch.state });
    }
    Ok(drop_batch(store, claim, id).await?)
}
