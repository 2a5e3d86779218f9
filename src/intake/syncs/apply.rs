//! Applies a plan: closes, makes and changes accounts by the same deeds as pushes, in the bulk lane. Each deed stands under
//! the condition that its account is as it was compared; what is refused is told, and the rest goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::engine::{ACCOUNTS_AT_ONCE, Comparison, Findings, Found, Wanted};
use super::{Form, Input, Order, Progress, Reconciler, SyncError, read};
use crate::account::{Conditions, Tags};
use crate::intake::deeds::{Close, Deed, Done, Push};
use crate::intake::writer::Refusal;
use crate::reconcile::Action;
use crate::store::jobs::LANE_BULK;
use crate::store::{audit, syncs};

/// What applying a plan did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    pub created: u64,
    pub updated: u64,
    pub closed: u64,
    /// Services that updates took away.
    pub removed: u64,
    pub refused: u64,
    /// The first of those.
    pub refusals: Vec<Refused>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    pub account: String,
    pub reason: String,
}

/// Deeds under way at once: enough that they share commits.
const DEEDS_AT_ONCE: usize = 256;
const REFUSALS_SHOWN: usize = 1_000;
/// Refused ones that are tried once more when all others are done: what they want may be free by then.
const SECOND_TRIES: usize = 10_000;

impl Reconciler {
    /// Compares anew, and applies the plan if it is the one with this hash and takes not too much away.
    ///
    /// **Errors**: `PlanMoved`, `Guarded`, and those of `reconcile`; then nothing was changed.
    pub async fn apply(
        &self,
        order: &Order,
        input: &Input,
        form: &Arc<Form>,
        hash: &str,
        progress: &Progress,
    ) -> Result<(Found, Applied), SyncError> {
        let found = self.compare(order, input, form, progress).await?;
        let refused = match &found.report.plan {
            plan if plan.hash != hash => Some(SyncError::PlanMoved(plan.hash.clone())),
            plan => plan.refused.clone().map(SyncError::Guarded),
        };
        if let Some(refused) = refused {
            // What is there now can be looked at.
            self.keep(order, &found.report).await?;
            return Err(refused);
        }
        let mut tx = self.store.write().await?;
        syncs::compared(&mut tx, &order.sync, &found.report).await?;
        tx.commit().await?;
        let mut applying = Applying { desk: self, order, applied: Applied::default(), again: Vec::new() };
        applying.close(&found).await?;
        applying.push(&found, input, form, progress).await?;
        let applied = applying.applied;
        self.note(order, hash, &applied).await?;
        Ok((found, applied))
    }

    async fn note(&self, order: &Order, hash: &str, applied: &Applied) -> Result<(), SyncError> {
        let now = self.clock.now();
        let result = json!(applied);
        let mut tx = self.store.write().await?;
        let losses = applied.closed + applied.removed;
        syncs::applied(&mut tx, &order.sync, losses, &result.to_string(), &order.actor, now).await?;
        let subject = format!("{}/{}", order.tenant, order.source);
        let detail = json!({ "plan": hash, "created": applied.created, "updated": applied.updated,
            "closed": applied.closed, "refused": applied.refused });
        let entry = audit::Entry {
            tenant: Some(order.tenant.as_str()),
            actor: &order.actor,
            action: "sync.apply",
            account_id: None,
            subject: &subject,
            detail: &detail,
        };
        audit::append(&mut tx, &entry, now).await?;
        tx.commit().await?;
        tracing::info!(
            "A plan of {subject} is applied: {} accounts made, {} changed, {} closed, {} refused.",
            applied.created,
            applied.updated,
            applied.closed,
            applied.refused
        );
        Ok(())
    }
}

struct Applying<'a> {
    desk: &'a Reconciler,
    order: &'a Order,
    applied: Applied,
    again: Vec<Wanted>,
}

impl Applying<'_> {
    /// First of all: what a closed account held is free for others.
    async fn close(&mut self, found: &Found) -> Result<(), SyncError> {
        let mut comparison = Comparison::begin(self.desk, self.order, &found.survey, Findings::Dropped).await?;
        for some in found.absent.chunks(ACCOUNTS_AT_ONCE) {
            let mut deeds = Vec::with_capacity(some.len());
            for (_, (key, action)) in comparison.compare_unseen(some).await? {
                let Action::Delete { tag } = action else { continue };
                let id = key.external_id.clone();
                let deed = Deed::Close(Close {
                    key,
                    actor: self.order.actor.clone(),
                    effective: None,
                    source_revision: None,
                    conditions: only_as(&tag),
                    lane: LANE_BULK,
                    origin: None,
                    // A plan has a guard of its own.
                    released: true,
                });
                deeds.push((id, deed));
            }
            for (account, outcome) in self.perform(deeds).await {
                match outcome {
                    Ok(_) => self.applied.closed += 1,
                    Err(reason) => self.refuse(account, reason),
                }
            }
        }
        Ok(())
    }

    async fn push(
        &mut self,
        found: &Found,
        input: &Input,
        form: &Arc<Form>,
        progress: &Progress,
    ) -> Result<(), SyncError> {
        let mut comparison = Comparison::begin(self.desk, self.order, &found.survey, Findings::Dropped).await?;
        let version = comparison.catalog.version;
        let mut batches = read::accounts(input, form, &self.desk.store, &comparison.reading());
        let (mut repeated, mut done) = (BTreeMap::new(), 0);
        while let Some(batch) = batches.recv().await {
            let batch = batch.map_err(SyncError::List)?;
            done += batch.len() as u64;
            let singles = comparison.sort_out(batch, &found.survey, &mut repeated)?;
            let wanted = comparison.compare(singles).await?;
            self.push_all(wanted, version, true).await;
            progress("applying", done, found.survey.records);
        }
        let mut repeated: Vec<_> = repeated.into_iter().collect();
        while !repeated.is_empty() {
            let some = repeated.split_off(repeated.len().saturating_sub(ACCOUNTS_AT_ONCE));
            let wanted = comparison.compare(some).await?;
            self.push_all(wanted, version, true).await;
        }
        let again = std::mem::take(&mut self.again);
        self.push_all(again, version, false).await;
        Ok(())
    }

    async fn push_all(&mut self, wanted: Vec<Wanted>, catalog_version: i64, again: bool) {
        let mut rest = wanted.into_iter();
        loop {
            let some: Vec<Wanted> = rest.by_ref().take(DEEDS_AT_ONCE).collect();
            if some.is_empty() {
                return;
            }
            let deeds = some.iter().map(|wanted| (wanted.key.external_id.clone(), self.deed(wanted, catalog_version)));
            let mut outcomes: BTreeMap<String, Result<Done, String>> =
                self.perform(deeds.collect()).await.into_iter().collect();
            for wanted in some {
                let removes = if let Action::Update { removes, .. } = wanted.action { removes } else { 0 };
                match outcomes.remove(&wanted.key.external_id) {
                    Some(Ok(done)) if done.outcome == "created" => self.applied.created += 1,
                    Some(Ok(done)) if done.outcome == "stale" => {
                        self.refuse(wanted.key.external_id, "something newer was pushed meanwhile".to_owned());
                    }
                    Some(Ok(_)) => {
                        self.applied.updated += 1;
                        self.applied.removed += removes;
                    }
                    Some(Err(_)) if again && self.again.len() < SECOND_TRIES => self.again.push(wanted),
                    Some(Err(reason)) => self.refuse(wanted.key.external_id, reason),
                    None => {}
                }
            }
        }
    }

    fn deed(&self, wanted: &Wanted, catalog_version: i64) -> Deed {
        let conditions = match &wanted.action {
            Action::Update { tag, .. } | Action::Delete { tag } => only_as(tag),
            Action::Create { .. } => Conditions { if_match: None, if_none_match: Some(Tags::Any) },
        };
        let mut pushed = wanted.pushed.clone();
        // The same revision with other content would be refused; that it differs is what this is about.
        pushed.source_revision = pushed.source_revision.filter(|told| Some(*told) != wanted.known_revision);
        Deed::Push(Box::new(Push {
            key: wanted.key.clone(),
            actor: self.order.actor.clone(),
            pushed,
            conditions,
            catalog_version,
            lane: LANE_BULK,
            origin: None,
            // A plan has a guard of its own.
            released: true,
        }))
    }

    async fn perform(&self, deeds: Vec<(String, Deed)>) -> Vec<(String, Result<Done, String>)> {
        let mut running = JoinSet::new();
        for (account, deed) in deeds {
            let writer = self.desk.writer.clone();
            running.spawn(async move {
                let outcome = writer.perform(deed).await.map_err(|refusal| match refusal {
                    Refusal::Problem(problem) => problem.sentence(),
                    Refusal::CatalogMoved => "the catalog changed meanwhile".to_owned(),
                });
                (account, outcome)
            });
        }
        running.join_all().await
    }

    fn refuse(&mut self, account: String, reason: String) {
        self.applied.refused += 1;
        if self.applied.refusals.len() < REFUSALS_SHOWN {
            self.applied.refusals.push(Refused { account, reason });
        }
    }
}

fn only_as(tag: &str) -> Conditions {
    Conditions { if_match: Some(Tags::Listed(vec![tag.to_owned()])), if_none_match: None }
}
