//! The lines of a run, account by account: while one chunk is rated, the next one is read and those before are written.
//!
//! Rating is pure and runs on several threads; lines are written in the order of the accounts, so that neither the size
//! of a chunk nor the threads change an octet. Lines of many chunks share a transaction: their ids come from all over the
//! indices of a large table, and each page of an index that they share is written once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::edges::Edges;
use super::handshakes::Handshakes;
use super::totals::Totals;
use super::{BillerError, Claim, FAILED, Ground, Order, Watch};
use crate::billing::count::CountList;
use crate::billing::facts::{AccountFacts, RunContext};
use crate::billing::run::{Held, RunError, RunResult, lines, lines_of};
use crate::store::billing::{self, BilledAccount, NewLine};
use crate::store::held::{self, Verdict};
use crate::store::{Store, StoreError, Tx, census, exceptions, ledger, rating, sessions};

/// What a run has built.
#[derive(Default)]
pub struct Built {
    pub accounts: u64,
    pub totals: Totals,
    pub handshakes: Handshakes,
    pub held: Vec<(String, Held)>,
    /// What was said of held corrections, held still or no more.
    pub verdicts: usize,
    pub failed: Vec<(String, String)>,
}

/// Accounts and what is known of them; those that are rated together stand together.
struct Chunk {
    /// The last account of the list that was read.
    last: i64,
    units: Vec<Unit>,
    /// Those that the cycle bills; `None`: all of them.
    billed: Option<HashSet<i64>>,
}

/// Accounts that are rated together.
type Unit = Vec<(BilledAccount, Result<AccountFacts, RunError>)>;

/// Accounts as they are read: in units, and those of them that the cycle bills.
struct Units {
    list: Vec<Vec<BilledAccount>>,
    /// `None`: all of them.
    billed: Option<HashSet<i64>>,
}

/// Accounts and what a run has for them.
type Rated = Vec<(BilledAccount, Result<AccountLines, RunError>)>;

struct AccountLines {
    lines: Vec<NewLine>,
    /// Whom the count lines counted.
    counts: Vec<CountList>,
    held: Vec<Held>,
    verdicts: Vec<Verdict>,
}

/// What a run writes in one transaction.
#[derive(Default)]
struct Block {
    lines: Vec<NewLine>,
    counts: Vec<CountList>,
    verdicts: Vec<Verdict>,
    /// Subject and reason of accounts that could not be rated.
    failed: Vec<(String, String)>,
    /// Subjects of those that can be rated again.
    mended: Vec<String>,
}

impl Block {
    fn is_silent(&self) -> bool {
        self.lines.is_empty() && self.verdicts.is_empty() && self.failed.is_empty() && self.mended.is_empty()
    }
}

/// Builds all lines. In a preview nothing stays written.
pub async fn build(
    store: &Store,
    order: &Order,
    ground: &Arc<Ground>,
    claim: &Claim<'_>,
    watch: &mut dyn Watch,
) -> Result<Built, BillerError> {
    let mut built = Built::default();
    let (chunks, read) = mpsc::channel(CHUNKS_AHEAD);
    let (blocks, due) = mpsc::channel(BLOCKS_AHEAD);
    // Ends with this run, however that ends.
    let mut reading = JoinSet::new();
    reading.spawn(read_all(store.clone(), order.clone(), Arc::clone(ground), chunks));
    let rating = rate_all(order, ground, read, blocks, &mut built, watch);
    let (rated, written) = tokio::join!(rating, write_all(store, order, ground, claim, due));
    written?;
    rated?;
    match reading.join_next().await {
        // A task that panics is a fault of this program: the run ends and shows nothing.
        Some(Err(error)) => Err(StoreError::Database(format!("reading stopped: {error}")).into()),
        _ => Ok(built),
    }
}

/// Reads all accounts, chunk by chunk, until nobody wants them any more.
async fn read_all(store: Store, order: Order, ground: Arc<Ground>, chunks: mpsc::Sender<Result<Chunk, BillerError>>) {
    let mut after = 0;
    loop {
        let chunk = match read(&store, &order, &ground, after).await {
            Ok(Some(chunk)) => Ok(chunk),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let last = chunk.as_ref().ok().map(|chunk| chunk.last);
        if chunks.send(chunk).await.is_err() {
            return;
        }
        let Some(last) = last else { return };
        after = last;
    }
}

/// Rates chunks and hands on what is to be written.
async fn rate_all(
    order: &Order,
    ground: &Arc<Ground>,
    mut chunks: mpsc::Receiver<Result<Chunk, BillerError>>,
    blocks: mpsc::Sender<Block>,
    built: &mut Built,
    watch: &mut dyn Watch,
) -> Result<(), BillerError> {
    let mut block = Block::default();
    let mut sent = Instant::now();
    while let Some(chunk) = chunks.recv().await {
        let rated = rate(chunk?, ground).await?;
        collect(order, ground, rated, built, &mut block, watch);
        if ground.context.batch.is_none() {
            block = Block::default();
        } else if block.lines.len() >= ground.pace.lines || sent.elapsed() >= RENEW_EVERY {
            sent = Instant::now();
            if blocks.send(std::mem::take(&mut block)).await.is_err() {
                // Whoever writes says why it does not any more.
                return Ok(());
            }
        }
    }
    if !block.is_silent() {
        let _ = blocks.send(block).await;
    }
    Ok(())
}

/// Writes blocks in their order. One without anything to write tells that the run lives.
async fn write_all(
    store: &Store,
    order: &Order,
    ground: &Ground,
    claim: &Claim<'_>,
    mut blocks: mpsc::Receiver<Block>,
) -> Result<(), BillerError> {
    while let Some(block) = blocks.recv().await {
        write(store, order, ground, claim, &block).await?;
    }
    Ok(())
}

/// The next accounts with their facts; `None`: there are no more.
async fn read(store: &Store, order: &Order, ground: &Ground, after: i64) -> Result<Option<Chunk>, BillerError> {
    if order.dry_run {
        // A preview has written the usage of open hours only to read it.
        let mut tx = store.write().await?;
        let accounts = billing::accounts(&mut tx, &order.tenant, &order.cycle, after, ground.pace.chunk).await?;
        let units = units(&mut tx, order, ground, &accounts).await?;
        flush(&mut tx, &units.list.concat(), &ground.context, &ground.edges).await?;
        let chunk = chunk(&mut tx, order, ground, units, &accounts).await;
        tx.rollback().await?;
        return chunk;
    }
    let mut tx = store.read().await?;
    let accounts = billing::accounts(&mut tx, &order.tenant, &order.cycle, after, ground.pace.chunk).await?;
    let units = units(&mut tx, order, ground, &accounts).await?;
    let all = units.list.concat();
    let ids: Vec<i64> = all.iter().map(|account| account.id).collect();
    let pending = sessions::any_pending(&mut tx, &ids).await?;
    drop(tx);
    if accounts.is_empty() {
        return Ok(None);
    }
    if pending {
        let mut tx = store.write().await?;
        flush(&mut tx, &all, &ground.context, &ground.edges).await?;
        tx.commit().await?;
    }
    let mut tx = store.read_snapshot().await?;
    chunk(&mut tx, order, ground, units, &accounts).await
}

/// The accounts with those they share an allowance with. Each family is the business of the chunk that its first account
/// stands in, so that it is read at one moment and rated at once, whatever the size of chunks.
async fn units(tx: &mut Tx, order: &Order, ground: &Ground, accounts: &[BilledAccount]) -> Result<Units, StoreError> {
    let mut list = rating::units_of(tx, &order.tenant, accounts, &ground.context).await?;
    let first = accounts.first().map_or(0, |first| first.id);
    if list.iter().all(|unit| unit.len() == 1) {
        return Ok(Units { list, billed: None });
    }
    let ids: Vec<i64> = list.iter().flatten().map(|account| account.id).collect();
    let billed = billing::billed_of(tx, &order.cycle, &ids).await?;
    // Who has nothing to do with the cycle is only looked at: its use of a pool would be on another calendar.
    let leads = |unit: &Vec<BilledAccount>| {
        let leader = unit.iter().map(|account| account.id).find(|id| billed.contains(id));
        leader.is_some_and(|leader| first <= leader)
    };
    list.retain(leads);
    Ok(Units { list, billed: Some(billed) })
}

async fn chunk(
    tx: &mut Tx,
    order: &Order,
    ground: &Ground,
    units: Units,
    accounts: &[BilledAccount],
) -> Result<Option<Chunk>, BillerError> {
    let Some(last) = accounts.last().map(|last| last.id) else { return Ok(None) };
    let Units { list, billed } = units;
    let facts = rating::facts_of(tx, &list, &order.tenant, &ground.context, &ground.plans).await?;
    let mut facts = facts.into_iter();
    let units = list.into_iter().map(|unit| unit.into_iter().zip(facts.by_ref()).collect()).collect();
    Ok(Some(Chunk { last, units, billed }))
}

/// Writes into the ledger what these accounts have used and it does not hold yet, up to the period's end.
pub(super) async fn flush(
    tx: &mut Tx,
    accounts: &[BilledAccount],
    context: &RunContext,
    edges: &Edges,
) -> Result<(), StoreError> {
    let ids: Vec<i64> = accounts.iter().map(|account| account.id).collect();
    let cycles: HashMap<i64, &str> = accounts.iter().map(|account| (account.id, account.bill_cycle.as_str())).collect();
    let until = context.period.end.min(context.now);
    let fine = edges.fine(tx, &ids).await?;
    let cutting = |account: i64| {
        let cycle = cycles.get(&account).copied().unwrap_or_default();
        edges.of_cycle(cycle, fine.contains(&account))
    };
    ledger::flush(tx, &ids, until, &cutting, context.now).await?;
    Ok(())
}

/// Rates a chunk in parts, each on a thread of its own.
async fn rate(chunk: Chunk, ground: &Arc<Ground>) -> Result<Rated, BillerError> {
    let size = chunk.units.len().div_ceil(ground.pace.threads.max(1)).max(1);
    let mut left = chunk.units.into_iter();
    let mut parts = Vec::new();
    loop {
        let part: Vec<Unit> = left.by_ref().take(size).collect();
        if part.is_empty() {
            break;
        }
        let ground = Arc::clone(ground);
        parts.push(tokio::task::spawn_blocking(move || -> Rated {
            part.into_iter().flat_map(|unit| rate_unit(unit, &ground)).collect()
        }));
    }
    let mut rated = Vec::new();
    for part in parts {
        // A thread that panics is a fault of this program: the run ends and shows nothing.
        let part = part.await.map_err(|error| StoreError::Database(format!("rating stopped: {error}")))?;
        let billed =
            |(account, _): &(BilledAccount, _)| chunk.billed.as_ref().is_none_or(|ids| ids.contains(&account.id));
        rated.extend(part.into_iter().filter(billed));
    }
    Ok(rated)
}

fn rate_unit(unit: Unit, ground: &Ground) -> Rated {
    let (accounts, facts): (Vec<_>, Vec<_>) = unit.into_iter().unzip();
    if facts.len() == 1 || facts.iter().any(Result::is_err) {
        // Those that share something with one that cannot be read were told so.
        let one = |(account, facts): (BilledAccount, Result<AccountFacts, RunError>)| {
            let lines = facts.and_then(|facts| {
                let result = lines(&facts, &ground.context)?;
                Ok(account_lines(account.id, &facts, result))
            });
            (account, lines)
        };
        return accounts.into_iter().zip(facts).map(one).collect();
    }
    let facts: Vec<AccountFacts> = facts.into_iter().flatten().collect();
    let found = lines_of(&facts, &ground.context);
    let rated = accounts.into_iter().zip(&facts).zip(found);
    rated
        .map(|((account, facts), found)| {
            let lines = found.map(|result| account_lines(account.id, facts, result));
            (account, lines)
        })
        .collect()
}

fn account_lines(account_id: i64, facts: &AccountFacts, result: RunResult) -> AccountLines {
    let new = |stored: crate::billing::lines::StoredLine| NewLine {
        account_id,
        amount_minor: stored.line.amount_minor(),
        document: serde_json::to_string(&stored).expect("a line is plain data"),
        stored,
    };
    let mut verdicts: Vec<Verdict> = result
        .held
        .iter()
        .map(|held| Verdict { account_id, key: held.key.clone(), held: Some(held.clone()) })
        .collect();
    let released = facts.held.iter().filter(|key| !result.held.iter().any(|held| held.key == **key));
    verdicts.extend(released.map(|key| Verdict { account_id, key: key.clone(), held: None }));
    let lines = result.lines.into_iter().map(new).collect();
    AccountLines { lines, counts: result.counts, held: result.held, verdicts }
}

/// Tells of what was rated, and adds it to what is written next.
fn collect(order: &Order, ground: &Ground, rated: Rated, built: &mut Built, block: &mut Block, watch: &mut dyn Watch) {
    let of = u64::try_from(ground.accounts).unwrap_or(0);
    for (account, result) in rated {
        let name = format!("{}/{}", account.source, account.external_id);
        let subject = format!("{}/{name}", order.tenant);
        let result = result.map_err(|error| error.to_string());
        // A sum that no amount holds stops the account that owes it: it has no lines, and the others go on.
        let result = result.and_then(|lines| built.totals.with(&lines.lines).map(|grown| (lines, grown)));
        match result {
            Ok((lines, grown)) => {
                built.totals = grown;
                for new in &lines.lines {
                    built.handshakes.note(&new.stored.line);
                    watch.line(&new.stored);
                }
                built.verdicts += lines.verdicts.len();
                block.lines.extend(lines.lines);
                block.counts.extend(lines.counts);
                block.verdicts.extend(lines.verdicts);
                built.held.extend(lines.held.into_iter().map(|held| (name.clone(), held)));
                if ground.failed_before.contains(&subject) {
                    block.mended.push(subject);
                }
            }
            Err(detail) => {
                tracing::error!(
                    account.id = account.id,
                    period.start = %ground.context.period.start,
                    "Account {name} of {} was not billed: {detail}. It has no lines in this batch; the next run tries \
                     again.",
                    order.tenant
                );
                built.failed.push((name, detail.clone()));
                block.failed.push((subject, detail));
            }
        }
        built.accounts += 1;
        watch.account(built.accounts, of);
    }
}

async fn write(
    store: &Store,
    order: &Order,
    ground: &Ground,
    claim: &Claim<'_>,
    block: &Block,
) -> Result<(), BillerError> {
    let Some(batch) = &ground.context.batch else { return Ok(()) };
    let now = ground.context.now;
    let mut tx = store.write_much().await?;
    claim.renew(&mut tx).await?;
    billing::insert_lines(&mut tx, (batch, &order.tenant, &order.cycle), &block.lines).await?;
    census::keep_lists(&mut tx, &block.counts, now).await?;
    held::insert(&mut tx, (batch, &order.cycle), &block.verdicts, now).await?;
    for (subject, detail) in &block.failed {
        exceptions::open(&mut tx, Some(&order.tenant), FAILED, subject, detail, now).await?;
    }
    for subject in &block.mended {
        exceptions::release_subject(&mut tx, FAILED, subject, "the biller: it was billed", now).await?;
    }
    Ok(tx.commit().await?)
}

/// Accounts read and rated at once.
pub(super) const CHUNK: i64 = 200;
/// Threads that rate a chunk.
pub(super) const THREADS: usize = 2;
/// Chunks that are read before they are wanted.
const CHUNKS_AHEAD: usize = 1;
/// Lines of one transaction: more cost less each, and others who write wait longer.
pub(super) const LINES_AT_ONCE: usize = 4096;
/// Transactions that are rated before they are written.
const BLOCKS_AHEAD: usize = 1;
/// A run that has nothing to write tells often enough that it lives.
const RENEW_EVERY: Duration = Duration::from_secs(5);
