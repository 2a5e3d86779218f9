//! Closes periods, previews them, keeps batches.
//!
//! A run reads accounts in chunks, asks `billing` for their lines and writes those of many chunks at once; the batch shows
//! with its final row. A run that was killed left nothing visible: the next one empties its batch and builds it again. An
//! account that cannot be rated has no lines in the batch and an exception; the others go on.
//!
//! ```text
//! building ─▶ closed ─▶ acknowledged
//!     └─▶ draft ⇄ checked ─▶ closed        where the cycle says `approval = "required"`; `approve` closes
//! ```

mod approval;
pub mod assurance;
mod auto;
mod build;
mod check;
pub mod completeness;
mod edges;
mod handshakes;
mod simulate;
mod totals;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::ToSpan;
use serde_json::json;
use sha2::{Digest, Sha256};
use thiserror::Error;

pub use approval::{ApprovalError, approve, discard};
pub use auto::AutoClose;
pub use check::{CheckOrder, Checked, check};
pub use handshakes::CountedHandshake;
pub use simulate::{Outcome, Simulated, Simulation, simulate};
pub use totals::Total;

use crate::billing::facts::RunContext;
use crate::billing::history::PlanTariffs;
use crate::billing::lines::{Line, StoredLine};
use crate::billing::run::Held;
use crate::catalog::Approval;
use crate::store::billing::{self, BatchRow, Closing};
use crate::store::events::{EventType, Told};
use crate::store::rating::{self, RatingError};
use crate::store::{Store, StoreError, Tx, catalog, exceptions, held, journal, sessions};
use crate::vocabulary::hex;
use crate::vocabulary::{Clock, Period, Timestamp};
use build::{Built, build};
use edges::Edges;

/// What is to be closed or previewed.
#[derive(Debug, Clone)]
pub struct Order {
    pub tenant: String,
    pub cycle: String,
    /// First day or month; `None`: the latest period that has ended.
    pub period: Option<String>,
    /// Computes everything and keeps nothing.
    pub dry_run: bool,
    /// Rates every item of the period anew, whatever has changed; only a person asks for that.
    pub rerate: bool,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// `None`: a preview, or nothing was due.
    pub batch: Option<String>,
    /// The batch waits for a check and an approval.
    pub draft: bool,
    pub period: Period,
    pub accounts: u64,
    pub lines: u64,
    pub totals: Vec<Total>,
    /// The hashes of the tenants that its lines count.
    pub handshakes: Vec<CountedHandshake>,
    /// Corrections the tenant's policy keeps off the invoice, with their account.
    pub held: Vec<(String, Held)>,
    /// Accounts that could not be rated, and why.
    pub failed: Vec<(String, String)>,
}

/// Why nothing was closed.
#[derive(Debug, Error)]
pub enum BillerError {
    #[error("{0}")]
    Rating(#[from] RatingError),
    #[error("the period that starts on {0} has not ended; preview it with a dry run")]
    Running(String),
    #[error("cycle {0} is being closed by another process; try again when it is done")]
    Busy(String),
    #[error("batch {0} is a draft of this cycle; approve or discard it first")]
    Draft(String),
    #[error("{0}")]
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

/// How a run goes about its work. It never changes a byte of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Accounts that are read and rated at once.
    pub chunk: i64,
    /// Threads that rate them.
    pub threads: usize,
    /// Lines after which a transaction ends, with the chunk they are of.
    pub lines: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { chunk: build::CHUNK, threads: build::THREADS, lines: build::LINES_AT_ONCE }
    }
}

/// Closes or previews one period.
pub async fn close_period(
    store: &Store,
    clock: &Clock,
    order: &Order,
    watch: &mut dyn Watch,
) -> Result<Report, BillerError> {
    close_period_at(Pace::default(), store, clock, order, watch).await
}

/// Closes or previews one period at another pace than the usual one.
pub async fn close_period_at(
    pace: Pace,
    store: &Store,
    clock: &Clock,
    order: &Order,
    watch: &mut dyn Watch,
) -> Result<Report, BillerError> {
    let now = clock.now();
    let mut tx = store.read().await?;
    let mut ground = ground(&mut tx, order, pace, now).await?;
    drop(tx);
    if ground.context.period.end > now && !order.dry_run {
        let day = ground.context.cycle.name(&ground.context.period);
        return Err(BillerError::Running(day));
    }
    if !order.dry_run {
        wait_for_fold(store, now).await?;
    }
    let claim = Claim::new(store, clock, &order.tenant, &order.cycle);
    if !order.dry_run {
        claim.take().await?;
        let result = begin(store, order, &mut ground, &claim, now).await;
        if let Err(error) = result {
            claim.give_back().await?;
            return Err(error);
        }
    }
    let ground = Arc::new(ground);
    let built = match build(store, order, &ground, &claim, watch).await {
        Ok(built) => built,
        Err(error) => {
            // What was built is invisible; the next run empties it.
            let _ = claim.give_back().await;
            return Err(error);
        }
    };
    let batch = if order.dry_run { None } else { finish(store, order, &ground, &built, &claim, now).await? };
    Ok(Report {
        draft: ground.approval && batch.is_some(),
        batch,
        period: ground.context.period.clone(),
        accounts: built.accounts,
        lines: built.totals.lines,
        totals: built.totals.list(),
        handshakes: built.handshakes.list(),
        held: built.held,
        failed: built.failed,
    })
}

/// Everything of a run that is the same for each account.
struct Ground {
    pace: Pace,
    context: RunContext,
    plans: PlanTariffs,
    run: i64,
    accounts: i64,
    /// Whether the cycle's bills are approved by a person before they are closed.
    approval: bool,
    edges: Edges,
    /// Subjects of accounts that could not be rated before.
    failed_before: BTreeSet<String>,
}

async fn ground(tx: &mut Tx, order: &Order, pace: Pace, now: Timestamp) -> Result<Ground, BillerError> {
    let mut context = rating::context(tx, &order.tenant, &order.cycle, order.period.as_deref(), now).await?;
    if order.rerate {
        context.causes.rerate = Some(context.period.start);
    }
    let run = billing::runs_of(tx, &order.tenant, &order.cycle, &context.period).await? + 1;
    let in_force = catalog::in_force(tx, &order.tenant).await?;
    let in_force = in_force.ok_or_else(|| RatingError::NoTenant(order.tenant.clone()))?.catalog;
    Ok(Ground {
        pace,
        plans: catalog::plan_tariffs(tx, &order.tenant).await?,
        accounts: billing::count_accounts(tx, &order.tenant, &order.cycle).await?,
        approval: in_force.cycles.get(&order.cycle).is_some_and(|cycle| cycle.approval == Approval::Required),
        edges: Edges::of(&in_force, now),
        failed_before: exceptions::open_subjects(tx, &order.tenant, FAILED).await?,
        context,
        run,
    })
}

/// Empties what a killed run left and the draft that this run replaces, and begins the batch.
async fn begin(
    store: &Store,
    order: &Order,
    ground: &mut Ground,
    claim: &Claim<'_>,
    now: Timestamp,
) -> Result<(), BillerError> {
    let mut tx = store.read().await?;
    if let Some(draft) = billing::draft_of(&mut tx, &order.tenant, &order.cycle).await?
        && draft.period.start != ground.context.period.start
    {
        return Err(BillerError::Draft(draft.id));
    }
    let left = billing::unfinished(&mut tx, &order.tenant, &order.cycle, &ground.context.period).await?;
    drop(tx);
    for id in left {
        drop_batch(store, claim, &id).await?;
    }
    let mut tx = store.write().await?;
    claim.renew(&mut tx).await?;
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
        handshakes: None,
        digest: None,
        closed_digest: None,
        created_at: now,
        closed_at: None,
        acknowledged_at: None,
        checked_at: None,
        approved_at: None,
        approved_by: None,
    };
    billing::begin_batch(&mut tx, &batch).await?;
    tx.commit().await?;
    ground.context.batch = Some(id);
    Ok(())
}

/// Takes away a batch that is not closed, in short transactions: other writers wait for none of them long.
async fn drop_batch(store: &Store, claim: &Claim<'_>, id: &str) -> Result<(), BillerError> {
    loop {
        let mut tx = store.write().await?;
        claim.renew(&mut tx).await?;
        let gone = billing::drop_some(&mut tx, id).await?;
        tx.commit().await?;
        if gone {
            return Ok(());
        }
    }
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
    let empty = built.totals.lines == 0 && ground.run > 1;
    let silent = empty && (built.verdicts == 0 || !held::is_news(&mut store.read().await?, &id).await?);
    if silent {
        drop_batch(store, claim, &id).await?;
        claim.give_back().await?;
        tracing::info!(
            period.start = %ground.context.period.start,
            "Cycle {} of {} was closed before and has nothing new.", order.cycle, order.tenant
        );
        return Ok(None);
    }
    let digest = digest(store, claim, &id).await?;
    let mut tx = store.write().await?;
    claim.renew(&mut tx).await?;
    let lines = i64::try_from(built.totals.lines).unwrap_or(i64::MAX);
    let totals = serde_json::to_string(&built.totals.list()).unwrap_or_else(|_| "[]".to_owned());
    let handshakes = serde_json::to_string(&built.handshakes.list()).unwrap_or_else(|_| "[]".to_owned());
    let closing = Closing { lines, totals: &totals, handshakes: &handshakes, digest: &digest };
    if ground.approval {
        billing::leave_draft(&mut tx, &id, &closing).await?;
    } else {
        billing::close_batch(&mut tx, &id, &closing, now).await?;
        settle_closed(&mut tx, &order.tenant, &id, now).await?;
    }
    billing::release(&mut tx, &claim.name, &claim.owner).await?;
    tx.commit().await?;
    let (did, next) = match ground.approval {
        true => ("Drafted", " It waits for `bill check` and `bill approve`."),
        false => ("Closed", ""),
    };
    tracing::info!(
        period.start = %ground.context.period.start,
        "{did} cycle {} of {}: {} lines for {} accounts.{next}",
        order.cycle, order.tenant, built.totals.lines, built.accounts
    );
    Ok(Some(id))
}

/// SHA-256 of the lines of a batch that nobody else writes, in the order of their ids, each followed by a line feed.
async fn digest(store: &Store, claim: &Claim<'_>, id: &str) -> Result<String, BillerError> {
    let mut hash = Sha256::new();
    let mut after = String::new();
    let mut renewed = std::time::Instant::now();
    loop {
        let page = billing::texts(&mut store.read().await?, id, &after, DIGESTED_AT_ONCE).await?;
        let Some((last, _)) = page.last() else { return Ok(hex(hash.finalize())) };
        after.clone_from(last);
        for (_, text) in &page {
            hash.update(text.as_bytes());
            hash.update(b"\n");
        }
        if renewed.elapsed() > RENEW_AFTER {
            renewed = std::time::Instant::now();
            let mut tx = store.write().await?;
            claim.renew(&mut tx).await?;
            tx.commit().await?;
        }
    }
}

/// What follows from a batch's closing, in the same transaction.
async fn settle_closed(tx: &mut Tx, tenant: &str, id: &str, now: Timestamp) -> Result<(), StoreError> {
    held::settle(tx, id).await?;
    let Some(batch) = billing::batch(tx, tenant, id).await? else { return Ok(()) };
    let (totals, handshakes) = batch.sums();
    let payload = json!({
        "batch": id,
        "cycle": batch.cycle,
        "period": batch.period,
        "run": batch.run,
        "lines": batch.lines,
        "totals": totals,
        "handshakes": handshakes,
        "sha256": batch.digest,
    });
    let (tenant, subject) = (tenant.to_owned(), id.to_owned());
    tx.tell(Told { tenant, kind: EventType::InvoiceBatchClosed, subject, payload, at: now });
    Ok(())
}

/// Waits until what had arrived by `now` is folded, and folded anew where a session asks for it, as long as somebody folds;
/// what comes later becomes a correction.
async fn wait_for_fold(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    let mut idle = 0;
    let mut before = None;
    let mut fewest = i64::MAX;
    while idle < FOLD_PATIENCE {
        let mut tx = store.read().await?;
        let folded = crate::store::fold::watermarks(&mut tx).await?;
        let again = sessions::count_to_refold(&mut tx).await?;
        drop(tx);
        let mut tx = store.read_journal().await?;
        let mut behind = false;
        for lane in journal::lanes(&mut tx).await? {
            let after = folded.get(&lane).copied().unwrap_or(0);
            let next = journal::read_after(&mut tx, lane, after, 1).await?;
            behind |= next.first().is_some_and(|row| row.entry.arrived_at <= now);
        }
        drop(tx);
        if !behind && again == 0 {
            return Ok(());
        }
        // Sessions may ask anew for ever while records come: only fewer of them than ever are a step.
        let moved = if behind { before.as_ref() != Some(&folded) } else { again < fewest };
        idle = if moved { 0 } else { idle + 1 };
        fewest = fewest.min(again);
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
    fn new(store: &'a Store, clock: &'a Clock, tenant: &str, cycle: &str) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        Self {
            store,
            clock,
            name: format!("bill:{tenant}/{cycle}"),
            owner: format!("{}#{}", store.owner(), RUNS.fetch_add(1, Ordering::Relaxed)),
            cycle: cycle.to_owned(),
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

/// The kind of the exception of an account that could not be rated.
const FAILED: &str = "billing.failed";
const CLAIM_SECONDS: i64 = 30;
/// Work that writes nothing renews its claim after this.
const RENEW_AFTER: Duration = Duration::from_secs(5);
/// Lines that are read at once for the digest.
const DIGESTED_AT_ONCE: i64 = 2000;
const CLAIM_POLL: Duration = Duration::from_millis(500);
const CLAIM_TRIES: u32 = 80;
const FOLD_POLL: Duration = Duration::from_millis(50);
/// Polls without progress after which nobody is believed to fold.
const FOLD_PATIENCE: u32 = 40;
