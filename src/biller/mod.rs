//! Closes periods, previews them, keeps batches.
//!
//! A run reads accounts in chunks, asks `billing` for their lines and writes them in chunks; the batch shows with its
//! final row. A run that was killed left nothing visible: the next one empties its batch and builds it again. An account
//! that cannot be rated has no lines in the batch and an exception; the others go on.

pub mod assurance;
mod auto;
pub mod completeness;
mod simulate;
mod totals;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::ToSpan;
use serde_json::json;
use thiserror::Error;

pub use auto::AutoClose;
pub use simulate::{Outcome, Simulated, Simulation, simulate};
pub use totals::Total;

use crate::billing::facts::RunContext;
use crate::billing::lines::{Line, StoredLine};
use crate::billing::run::{Held, HeldReason, lines};
use crate::store::billing::{self, BatchRow, BilledAccount};
use crate::store::events::{self, EventType, NewEvent};
use crate::store::rating::{self, RatingError};
use crate::store::{Store, StoreError, Tx, catalog, exceptions, journal, ledger};
use crate::vocabulary::{Clock, Period, Timestamp};
use totals::Totals;

/// What is to be closed or previewed.
#[derive(Debug, Clone)]
pub struct Order {
    pub tenant: String,
    pub cycle: String,
    /// First day or month; `None`: the latest period that has ended.
    pub period: Option<String>,
    /// Computes everything and keeps nothing.
    pub dry_run: bool,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// `None`: a preview, or nothing was due.
    pub batch: Option<String>,
    pub period: Period,
    pub accounts: u64,
    pub lines: u64,
    pub totals: Vec<Total>,
    /// Corrections the tenant's policy keeps off the invoice, with their account.
    pub held: Vec<(String, Held)>,
    /// Accounts that could not be rated, and why.
    pub failed: Vec<(String, String)>,
}

/// Why nothing was closed.
#[derive(Debug, Error)]
pub enum BillerError {
    #[error(transparent)]
    Rating(#[from] RatingError),
    #[error("the period that starts on {0} has not ended; preview it with a dry run")]
    Running(String),
    #[error("cycle {0} is being closed by another process; try again when it is done")]
    Busy(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Lines and progress of a run as they come.
pub trait Watch: Send {
    /// One account is done.
    fn account(&mut self, done: u64, of: u64);
    /// A line of the batch or the preview.
    fn line(&mut self, line: &StoredLine);
}

/// Keeps the lines of a run, for an answer that holds them all.
#[derive(Debug, Default)]
pub struct Kept(pub Vec<Line>);

impl Watch for Kept {
    fn account(&mut self, _done: u64, _of: u64) {}
    fn line(&mut self, line: &StoredLine) {
        self.0.push(line.line.clone());
    }
}

/// Closes or previews one period.
pub async fn close_period(
    store: &Store,
    clock: &Clock,
    order: &Order,
    watch: &mut dyn Watch,
) -> Result<Report, BillerError> {
    let now = clock.now();
    let mut tx = store.read().await?;
    let mut ground = ground(&mut tx, order, now).await?;
    drop(tx);
    if ground.context.period.end > now && !order.dry_run {
        let day = ground.context.cycle.name(&ground.context.period);
        return Err(BillerError::Running(day));
    }
    if !order.dry_run {
        wait_for_fold(store, now).await?;
    }
    let claim = Claim::new(store, clock, order);
    if !order.dry_run {
        claim.take().await?;
        let result = begin(store, order, &mut ground, now).await;
        if let Err(error) = result {
            claim.give_back().await?;
            return Err(error);
        }
    }
    let built = build(store, order, &ground, &claim, watch).await;
    let built = match built {
        Ok(built) => built,
        Err(error) => {
            // What was built is invisible; the next run empties it.
            let _ = claim.give_back().await;
            return Err(error);
        }
    };
    let batch = if order.dry_run { None } else { finish(store, order, &ground, &built, &claim, now).await? };
    Ok(Report {
        batch,
        period: ground.context.period,
        accounts: built.accounts,
        lines: built.totals.lines,
        totals: built.totals.list(),
        held: built.held,
        failed: built.failed,
    })
}

/// Everything of a run that is the same for each account.
struct Ground {
    context: RunContext,
    plans: crate::billing::history::PlanTariffs,
    run: i64,
    accounts: i64,
}

async fn ground(tx: &mut Tx, order: &Order, now: Timestamp) -> Result<Ground, BillerError> {
    let context = rating::context(tx, &order.tenant, &order.cycle, order.period.as_deref(), now).await?;
    let run = billing::runs_of(tx, &order.tenant, &order.cycle, &context.period).await? + 1;
    Ok(Ground {
        plans: catalog::plan_tariffs(tx, &order.tenant).await?,
        accounts: billing::count_accounts(tx, &order.tenant, &order.cycle).await?,
        context,
        run,
    })
}

/// Empties what a killed run left, and begins the batch.
async fn begin(store: &Store, order: &Order, ground: &mut Ground, now: Timestamp) -> Result<(), BillerError> {
    let mut tx = store.write().await?;
    billing::drop_unfinished(&mut tx, &order.tenant, &order.cycle).await?;
    // Read again under the claim: another process may have closed the period meanwhile.
    ground.run = billing::runs_of(&mut tx, &order.tenant, &order.cycle, &ground.context.period).await? + 1;
    ground.context.closures = billing::closures(&mut tx, &order.tenant, &order.cycle).await?;
    let name = ground.context.cycle.name(&ground.context.period);
    let id = format!("{}.{}.{name}.{}", order.tenant, order.cycle, ground.run);
    let batch = BatchRow {
        id: id.clone(),
        tenant: order.tenant.clone(),
        cycle: order.cycle.clone(),
        period: ground.context.period.clone(),
        run: ground.run,
        state: "building".to_owned(),
        lines: 0,
        totals: "[]".to_owned(),
        created_at: now,
        closed_at: None,
        acknowledged_at: None,
    };
    billing::begin_batch(&mut tx, &batch).await?;
    tx.commit().await?;
    ground.context.batch = Some(id);
    Ok(())
}

#[derive(Default)]
struct Built {
    accounts: u64,
    totals: Totals,
    held: Vec<(String, Held)>,
    failed: Vec<(String, String)>,
}

async fn build(
    store: &Store,
    order: &Order,
    ground: &Ground,
    claim: &Claim<'_>,
    watch: &mut dyn Watch,
) -> Result<Built, BillerError> {
    let mut built = Built::default();
    let mut after = 0;
    let total = u64::try_from(ground.accounts).unwrap_or(0);
    loop {
        let mut tx = store.write().await?;
        if !order.dry_run {
            claim.renew(&mut tx).await?;
        }
        let accounts = billing::accounts(&mut tx, &order.tenant, &order.cycle, after, CHUNK).await?;
        let Some(last) = accounts.last() else {
            tx.rollback().await?;
            return Ok(built);
        };
        after = last.id;
        flush(&mut tx, &accounts, &ground.context).await?;
        for account in &accounts {
            bill(&mut tx, account, order, ground, &mut built, watch).await?;
            built.accounts += 1;
            watch.account(built.accounts, total);
        }
        // A preview has written the usage of open hours only to read it.
        if order.dry_run { tx.rollback().await? } else { tx.commit().await? }
    }
}

async fn flush(tx: &mut Tx, accounts: &[BilledAccount], context: &RunContext) -> Result<(), StoreError> {
    let ids: Vec<i64> = accounts.iter().map(|account| account.id).collect();
    let until = context.period.end.min(context.now);
    let edges = [context.period.start, context.period.end];
    ledger::flush(tx, &ids, until, &edges, context.now).await?;
    Ok(())
}

async fn bill(
    tx: &mut Tx,
    account: &BilledAccount,
    order: &Order,
    ground: &Ground,
    built: &mut Built,
    watch: &mut dyn Watch,
) -> Result<(), BillerError> {
    let name = || format!("{}/{}", account.source, account.external_id);
    let facts = rating::facts(tx, account, &order.tenant, &ground.context, &ground.plans).await?;
    let result = match facts.and_then(|facts| lines(&facts, &ground.context)) {
        Ok(result) => result,
        Err(error) => {
            let detail = error.to_string();
            tracing::error!(
                account.id = account.id,
                period.start = %ground.context.period.start,
                "Account {} of {} was not billed: {detail}. It has no lines in this batch; the next run tries again.",
                name(), order.tenant
            );
            if !order.dry_run {
                let subject = format!("{}/{}", order.tenant, name());
                exceptions::open(tx, Some(&order.tenant), "billing.failed", &subject, &detail, ground.context.now)
                    .await?;
            }
            built.failed.push((name(), detail));
            return Ok(());
        }
    };
    let mut written = Vec::with_capacity(result.lines.len());
    for stored in result.lines {
        built.totals.add(&stored.line);
        watch.line(&stored);
        let minor = stored.line.amount_minor();
        written.push((stored, minor));
    }
    if let Some(batch) = &ground.context.batch {
        billing::insert_lines(tx, batch, account.id, &written).await?;
        for held in &result.held {
            report_held(tx, order, &name(), held, ground.context.now).await?;
        }
    }
    built.held.extend(result.held.into_iter().map(|held| (name(), held)));
    Ok(())
}

async fn report_held(tx: &mut Tx, order: &Order, account: &str, held: &Held, now: Timestamp) -> Result<(), StoreError> {
    let why = match held.reason {
        HeldReason::TooOld => "a debit older than debit_max_age",
        HeldReason::TooSmall => "smaller than min_amount",
    };
    let subject = format!("{}/{account} {} {} {}", order.tenant, held.service, held.charge, held.period.start);
    let detail = format!("A correction of {} {} was held back: {why}.", held.amount, held.amount.currency);
    exceptions::open(tx, Some(&order.tenant), "correction.held", &subject, &detail, now).await?;
    Ok(())
}

/// The batch's final row. A further run of a period that had nothing to say leaves no batch.
async fn finish(
    store: &Store,
    order: &Order,
    ground: &Ground,
    built: &Built,
    claim: &Claim<'_>,
    now: Timestamp,
) -> Result<Option<String>, BillerError> {
    let id = ground.context.batch.clone().unwrap_or_default();
    let mut tx = store.write().await?;
    claim.renew(&mut tx).await?;
    let empty = built.totals.lines == 0 && ground.run > 1;
    if empty {
        billing::drop_batch(&mut tx, &id).await?;
    } else {
        let count = i64::try_from(built.totals.lines).unwrap_or(i64::MAX);
        let totals = serde_json::to_string(&built.totals.list()).unwrap_or_else(|_| "[]".to_owned());
        billing::close_batch(&mut tx, &id, count, &totals, now).await?;
    }
    billing::release(&mut tx, &claim.name, &claim.owner).await?;
    if !empty {
        let payload = json!({
            "batch": id,
            "cycle": order.cycle,
            "period": ground.context.period,
            "run": ground.run,
            "lines": built.totals.lines,
            "totals": built.totals.list(),
        });
        let kind = EventType::InvoiceBatchClosed;
        events::append(&mut tx, &NewEvent { tenant: &order.tenant, kind, subject: &id, payload: &payload }, now)
            .await?;
    }
    tx.commit().await?;
    if empty {
        tracing::info!(
            period.start = %ground.context.period.start,
            "Cycle {} of {} was closed before and has nothing new.", order.cycle, order.tenant
        );
    } else {
        tracing::info!(
            period.start = %ground.context.period.start,
            "Closed cycle {} of {}: {} lines for {} accounts.",
            order.cycle, order.tenant, built.totals.lines, built.accounts
        );
    }
    Ok((!empty).then_some(id))
}

/// Waits until what had arrived by `now` is folded, as long as somebody folds; what comes later becomes a correction.
async fn wait_for_fold(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    let mut idle = 0;
    let mut before = None;
    while idle < FOLD_PATIENCE {
        let folded = {
            let mut tx = store.read().await?;
            crate::store::fold::watermarks(&mut tx).await?
        };
        let mut tx = store.read_journal().await?;
        let mut waiting = false;
        for lane in journal::lanes(&mut tx).await? {
            let after = folded.get(&lane).copied().unwrap_or(0);
            let next = journal::read_after(&mut tx, lane, after, 1).await?;
            waiting |= next.first().is_some_and(|row| row.entry.arrived_at <= now);
        }
        drop(tx);
        if !waiting {
            return Ok(());
        }
        idle = if before.as_ref() == Some(&folded) { idle + 1 } else { 0 };
        before = Some(folded);
        tokio::time::sleep(FOLD_POLL).await;
    }
    tracing::warn!(
        "Accounting records wait to be folded and nobody folds them; their usage becomes a correction of the next run."
    );
    Ok(())
}

/// One process at a time closes a cycle. A killed one loses its claim within seconds.
struct Claim<'a> {
    store: &'a Store,
    clock: &'a Clock,
    name: String,
    owner: String,
    cycle: String,
}

impl<'a> Claim<'a> {
    fn new(store: &'a Store, clock: &'a Clock, order: &Order) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        Self {
            store,
            clock,
            name: format!("bill:{}/{}", order.tenant, order.cycle),
            owner: format!("{}#{}", store.owner(), RUNS.fetch_add(1, Ordering::Relaxed)),
            cycle: order.cycle.clone(),
        }
    }

    /// Waits for another's claim to end or to run out.
    async fn take(&self) -> Result<(), BillerError> {
        for _ in 0..CLAIM_TRIES {
            let mut tx = self.store.write().await?;
            if self.claimed(&mut tx).await? {
                tx.commit().await?;
                return Ok(());
            }
            tx.rollback().await?;
            tokio::time::sleep(CLAIM_POLL).await;
        }
        Err(BillerError::Busy(self.cycle.clone()))
    }

    async fn renew(&self, tx: &mut Tx) -> Result<(), BillerError> {
        match self.claimed(tx).await? {
            true => Ok(()),
            false => Err(BillerError::Busy(self.cycle.clone())),
        }
    }

    async fn give_back(&self) -> Result<(), BillerError> {
        let mut tx = self.store.write().await?;
        billing::release(&mut tx, &self.name, &self.owner).await?;
        Ok(tx.commit().await?)
    }

    async fn claimed(&self, tx: &mut Tx) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let until = now.checked_add(CLAIM_SECONDS.seconds()).unwrap_or(now);
        billing::claim(tx, &self.name, &self.owner, until, now).await
    }
}

/// Accounts in one transaction.
const CHUNK: i64 = 100;
const CLAIM_SECONDS: i64 = 30;
const CLAIM_POLL: Duration = Duration::from_millis(500);
const CLAIM_TRIES: u32 = 80;
const FOLD_POLL: Duration = Duration::from_millis(50);
/// Polls without progress after which nobody is believed to fold.
const FOLD_PATIENCE: u32 = 40;
