//! The fold: reads the journal behind the watermark, folds it into sessions, the ledger and totals, and moves the
//! watermark in the same transaction.
//!
//! In: what the committer has just committed, the journal for everything else, the configuration's rules. Out: derived
//! state that the journal can always give again. It answers no NAS and never stops for a database that is away: it waits
//! and goes on. One process of an installation folds, for all lanes (see `lease`); the others stand by.

mod calendars;
mod clocks;
mod crossings;
mod desk;
mod flow;
mod keyed;
mod lease;
mod owners;
mod replay;
pub(in crate::collector) mod rules;
mod silent;
mod sweep;
mod verify;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::feed::{Committed, Fed};
use super::stopped;
use crate::collector::NasTable;
use crate::store::journal::{self, JournalRow};
use crate::store::{Dialect, Store, StoreError, exceptions, fold, sessions};
use crate::telemetry::{Direction, Heartbeat, Metrics};
use crate::usage::Record;
use crate::vocabulary::{Clock, to_micros};
use calendars::Calendars;
use clocks::Clocks;
use desk::{Desk, Written};
pub use flow::{Flow, FlowKey, Flows};
use keyed::Memory;
use lease::Lease;
pub use replay::{Replay, ReplayOrder, ReplayedEntry, ReplayedRecord, replay};
pub use silent::{SilenceOrder, SilentSession, silent_sessions};
use sweep::Sweeper;
pub use verify::{FINDINGS_MAX, Finding, Verdict, Verifier, What};

/// The task that folds.
pub struct Fold {
    store: Store,
    clock: Clock,
    /// What was just committed by this process.
    fed: Fed,
    /// Taken from `fed`, not folded yet.
    waiting: VecDeque<Committed>,
    nas: watch::Receiver<Arc<NasTable>>,
    metrics: Metrics,
    beat: Heartbeat,
    lease: Lease,
    /// Sessions, and up to where each lane is folded; true as long as `lease` says that nobody else wrote.
    memory: Memory,
    watermarks: HashMap<i64, i64>,
    calendars: Calendars,
    clocks: Clocks,
    newest_holder: i64,
    /// Turns of the loop that came to a sweep.
    sweeps: u64,
    swept: Option<Instant>,
    /// When the journal was last looked at for records that were not fed, and found to hold none.
    looked: Option<Instant>,
    /// When the same was found of every lane there is, not only of the newest.
    looked_at_all: Option<Instant>,
    /// The last rows were the journal's, so that what was fed is next; and of which lane they were.
    took_from_journal: bool,
    last_lane: i64,
    /// Another process folds; this one asks now and then whether it let go.
    stands_by: bool,
    asked: Option<Instant>,
}

/// When a step's folding ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Nothing is left.
    Nothing,
    /// So little is left that it may gather until the next step.
    Paced,
}

/// Where rows were read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// In memory, just committed here: more is coming.
    Feed,
    Journal,
}

/// What became of one batch.
enum Batch {
    Folded,
    /// Somebody had folded meanwhile: what was read may be folded already.
    Outdated,
    /// Another process folds.
    Elsewhere,
}

impl Fold {
    pub fn new(
        store: Store,
        clock: Clock,
        fed: Fed,
        nas: watch::Receiver<Arc<NasTable>>,
        metrics: Metrics,
        beat: Heartbeat,
    ) -> Self {
        let lease = Lease::new(format!("{}/{:08x}", store.owner(), FOLDS.fetch_add(1, Ordering::Relaxed)));
        Self {
            store,
            clock,
            fed,
            waiting: VecDeque::new(),
            nas,
            metrics,
            beat,
            lease,
            memory: Memory::default(),
            watermarks: HashMap::new(),
            calendars: Calendars::default(),
            clocks: Clocks::default(),
            newest_holder: 0,
            sweeps: 0,
            swept: None,
            looked: None,
            looked_at_all: None,
            took_from_journal: false,
            last_lane: 0,
            stands_by: false,
            asked: None,
        }
    }

    /// Folds until `stopping` turns true. What is not folded then is folded at the next start.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) -> Result<(), Infallible> {
        let mut backoff = BACKOFF_FIRST;
        let mut complained: Option<Instant> = None;
        while !*stopping.borrow() {
            self.beat.beat();
            let pause = match self.step(Until::Paced).await {
                Ok(()) => {
                    if complained.take().is_some() {
                        tracing::info!("Folding accounting records goes on: the database answers again.");
                    }
                    backoff = BACKOFF_FIRST;
                    PACE
                }
                Err(error) => {
                    if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                        tracing::warn!(
                            "Accounting records are not folded: {error}. They wait in the journal; trying again every {BACKOFF_LAST:?}."
                        );
                        complained = Some(Instant::now());
                    }
                    self.forget();
                    backoff = (backoff * 2).min(BACKOFF_LAST);
                    backoff
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopped(&mut stopping) => {}
            }
            if pause == PACE && self.waiting.is_empty() {
                tokio::select! {
                    () = self.listen() => {}
                    () = stopped(&mut stopping) => {}
                }
            }
        }
        if let Err(error) = self.release().await {
            tracing::debug!(
                "The fold's claim was not given back: {error}. Another daemon takes it after three seconds."
            );
        }
        Ok(())
    }

    /// Waits until something is committed here, or it is time to look for what others committed.
    async fn listen(&mut self) {
        match tokio::time::timeout(IDLE, self.fed.recv()).await {
            Ok(Some(committed)) => self.waiting.push_back(committed),
            // Without a committer only the journal tells.
            Ok(None) => tokio::time::sleep(IDLE).await,
            Err(_) => {}
        }
    }

    /// Lets another daemon fold at once.
    pub async fn release(&mut self) -> Result<(), StoreError> {
        let mut tx = self.store.write_derived().await?;
        self.lease.release(&mut tx).await?;
        tx.commit().await
    }

    /// Folds everything there is, then sweeps when it is time.
    ///
    /// **Errors**: the database; nothing is lost, call again.
    pub async fn turn(&mut self) -> Result<(), StoreError> {
        (self.looked, self.stands_by) = (None, false);
        self.step(Until::Nothing).await
    }

    async fn step(&mut self, until: Until) -> Result<(), StoreError> {
        if self.stands_by {
            self.waiting.clear();
            if self.asked.is_none_or(|at| at.elapsed() >= IDLE) {
                self.asked = Some(Instant::now());
                self.take_turn().await?;
            }
        }
        if !self.stands_by {
            self.catch_up(until).await?;
        }
        if self.swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
            self.sweep().await?;
            self.swept = Some(Instant::now());
        }
        Ok(())
    }

    async fn catch_up(&mut self, until: Until) -> Result<(), StoreError> {
        let mut outdated = 0;
        while let Some((rows, origin)) = self.next_rows().await? {
            self.beat.beat();
            let age = to_micros(self.clock.now()) - to_micros(rows[0].entry.arrived_at);
            self.metrics.fold_lag_seconds.set(age.max(0) as f64 / 1e6);
            match self.batch(&rows).await? {
                Batch::Folded => outdated = 0,
                Batch::Outdated if outdated < OUTDATED_MAX => outdated += 1,
                Batch::Outdated | Batch::Elsewhere => return Ok(()),
            }
            if until == Until::Paced && origin == Origin::Feed && rows.len() < BATCH / 2 && !self.look_is_due() {
                return Ok(());
            }
        }
        self.metrics.fold_lag_seconds.set(0.0);
        Ok(())
    }

    /// What is to be folded next: what was fed if it follows the watermark, and in turn with it what the journal holds of
    /// others and of processes that ended. What is fed never waits for a long backlog, nor that for a quiet moment.
    async fn next_rows(&mut self) -> Result<Option<(Vec<JournalRow>, Origin)>, StoreError> {
        if self.watermarks.is_empty() {
            let mut tx = self.store.read().await?;
            self.watermarks = fold::watermarks(&mut tx).await?;
            tx.rollback().await?;
        }
        while let Some(committed) = self.fed.try_recv() {
            self.waiting.push_back(committed);
        }
        let journal_had_its_turn = std::mem::take(&mut self.took_from_journal);
        if !journal_had_its_turn && let Some(rows) = self.look_in_journal().await? {
            return Ok(Some((rows, Origin::Journal)));
        }
        if let Some(next) = self.fed_rows().await? {
            return Ok(Some(next));
        }
        Ok(self.look_in_journal().await?.map(|rows| (rows, Origin::Journal)))
    }

    /// What was fed of one lane, as much as makes a batch.
    async fn fed_rows(&mut self) -> Result<Option<(Vec<JournalRow>, Origin)>, StoreError> {
        let mut rows = Vec::new();
        while rows.len() < BATCH
            && let Some(next) = self.waiting.front()
        {
            let (lane, first) = (next.lane, next.first_seq);
            let folded = self.watermarks.get(&lane).copied().unwrap_or(0);
            let after = rows.last().map_or(folded, |row: &JournalRow| row.seq);
            if rows.first().is_some_and(|row| row.lane != lane) {
                break;
            }
            if first > after + 1 {
                if !rows.is_empty() {
                    break;
                }
                // Not everything was fed; what stands between is in the journal.
                if let Some(rows) = self.rows_of(&[lane]).await? {
                    return Ok(Some((rows, Origin::Journal)));
                }
            }
            let Committed { first_seq, entries, .. } = self.waiting.pop_front().expect("looked at");
            let fresh = (first_seq..).zip(entries).filter(|(seq, _)| *seq > after);
            rows.extend(fresh.map(|(seq, entry)| JournalRow { lane, seq, entry }));
        }
        Ok((!rows.is_empty()).then_some((rows, Origin::Feed)))
    }

    /// Whether the journal may hold something that was not fed.
    fn look_is_due(&self) -> bool {
        self.looked.is_none_or(|at| at.elapsed() >= IDLE)
    }

    /// The next rows of a lane that is not fed just now, each lane in its turn, when it is time to look for them.
    async fn look_in_journal(&mut self) -> Result<Option<Vec<JournalRow>>, StoreError> {
        if !self.look_is_due() {
            return Ok(None);
        }
        let mut tx = self.store.read_journal().await?;
        let mut lanes = journal::lanes(&mut tx).await?;
        tx.rollback().await?;
        // Every process opens a lane of its own; the old ones are looked at only now and then.
        let all = self.looked_at_all.is_none_or(|at| at.elapsed() >= ALL_LANES_EVERY);
        if !all {
            lanes.drain(..lanes.len().saturating_sub(RECENT_LANES));
        }
        let had_its_turn = lanes.iter().position(|lane| *lane > self.last_lane).unwrap_or(0);
        lanes.rotate_left(had_its_turn);
        let fed = self.waiting.front().map(|committed| committed.lane);
        lanes.retain(|lane| Some(*lane) != fed);
        let rows = self.rows_of(&lanes).await?;
        match &rows {
            Some(rows) => (self.took_from_journal, self.last_lane) = (true, rows[0].lane),
            None => {
                self.looked = Some(Instant::now());
                self.looked_at_all = if all { self.looked } else { self.looked_at_all };
            }
        }
        Ok(rows)
    }

    /// The next rows of the first of these lanes that has any after its watermark.
    async fn rows_of(&self, lanes: &[i64]) -> Result<Option<Vec<JournalRow>>, StoreError> {
        let mut tx = self.store.read_journal().await?;
        for lane in lanes {
            let after = self.watermarks.get(lane).copied().unwrap_or(0);
            let rows = journal::read_after(&mut tx, *lane, after, BATCH as i64).await?;
            if !rows.is_empty() {
                tx.rollback().await?;
                return Ok(Some(rows));
            }
        }
        tx.rollback().await?;
        Ok(None)
    }

    /// Forgets everything that is true only while nobody else writes.
    fn forget(&mut self) {
        self.memory.clear();
        self.watermarks.clear();
        self.clocks.forget();
        (self.looked, self.looked_at_all) = (None, None);
    }

    /// Leaves the folding to another process.
    fn stand_by(&mut self) {
        self.forget();
        self.waiting.clear();
        self.stands_by = true;
    }

    /// Folds rows of one lane that follow its watermark.
    async fn batch(&mut self, rows: &[JournalRow]) -> Result<Batch, StoreError> {
        let (Some(lane), Some(last)) = (rows.first().map(|row| row.lane), rows.last().map(|row| row.seq)) else {
            return Ok(Batch::Folded);
        };
        let began = Instant::now();
        let nas = self.nas.borrow().clone();
        let mut quarantined = Quarantine::default();
        let mut records: Vec<Record> = Vec::with_capacity(rows.len());
        let mut sources: Vec<&JournalRow> = Vec::with_capacity(rows.len());
        for piece in rows.chunks(RECORDS_AT_ONCE) {
            for row in piece {
                match rules::read(&nas, row) {
                    Ok(record) => {
                        records.push(record);
                        sources.push(row);
                    }
                    Err(reason) => quarantined.add(row, &reason),
                }
            }
            tokio::task::yield_now().await;
        }
        let now = self.clock.now();
        let mut tx = self.store.write_derived().await?;
        let turn = match self.lease.turn(&mut tx, now).await? {
            Some(turn) if turn.continued => turn,
            Some(turn) => {
                // The claim is kept, so that the next turn continues this one.
                tx.commit().await?;
                self.forget();
                self.lease.keep(turn);
                return Ok(Batch::Outdated);
            }
            None => {
                tx.rollback().await?;
                self.stand_by();
                return Ok(Batch::Elsewhere);
            }
        };
        self.clocks.load(&mut tx).await?;
        for record in &mut records {
            self.clocks.correct(record);
            self.clocks.observe(record);
        }
        self.clocks.save(&mut tx, now).await?;
        let mut desk = Desk::load(&mut tx, &records, &mut self.memory).await?;
        self.calendars.refresh(&mut tx, now).await?;
        self.calendars.learn(&mut tx, desk.accounts(), now).await?;
        for (records, sources) in records.chunks(RECORDS_AT_ONCE).zip(sources.chunks(RECORDS_AT_ONCE)) {
            for (record, row) in records.iter().zip(sources) {
                if let Err(error) = desk.fold(record, &nas, &self.calendars) {
                    quarantined.add(row, &error.to_string());
                }
            }
            tokio::task::yield_now().await;
        }
        desk.close();
        desk.attribute(&mut tx, &nas).await?;
        self.calendars.learn(&mut tx, desk.accounts(), now).await?;
        let written = desk.save(&mut tx, &self.calendars, now).await?;
        for ((client, reason), (count, lane, seq)) in &quarantined.0 {
            let subject = format!("{client}: {reason}");
            let detail =
                serde_json::json!({ "nas": client, "reason": reason, "records": count, "lane": lane, "seq": seq });
            exceptions::open(&mut tx, None, "record_quarantined", &subject, &detail.to_string(), now).await?;
        }
        fold::move_watermark(&mut tx, lane, last, now).await?;
        tx.commit().await?;
        self.lease.keep(turn);
        desk.remember(&mut self.memory);
        self.watermarks.insert(lane, last);
        self.count(rows.len(), &written, quarantined.count(), began);
        Ok(Batch::Folded)
    }

    async fn sweep(&mut self) -> Result<(), StoreError> {
        self.sweeps += 1;
        let nas = self.nas.borrow().clone();
        let now = self.clock.now();
        if !self.take_turn().await? {
            return self.measure_lag().await;
        }
        let mut tx = self.store.read().await?;
        self.calendars.refresh(&mut tx, now).await?;
        self.clocks.load(&mut tx).await?;
        tx.rollback().await?;
        if self.sweeps.is_multiple_of(OWNERS_AGAIN_EVERY) {
            self.newest_holder = 0;
        }
        let mut sweeper = Sweeper {
            store: &self.store,
            nas: &nas,
            calendars: &mut self.calendars,
            lease: &mut self.lease,
            memory: &mut self.memory,
            clocks: &self.clocks,
            now,
        };
        self.newest_holder = sweeper.attach(self.newest_holder).await?;
        let mut steps = 0;
        while steps < STEPS_A_SWEEP && (sweeper.close_rebooted().await? || sweeper.refold_one().await?) {
            steps += 1;
            self.beat.beat();
        }
        sweeper.report_impossible().await?;
        if self.sweeps % STALE_EVERY == 1 {
            let stale = sweeper.mark_stale().await?;
            if stale > 0 {
                tracing::info!(
                    sessions = stale,
                    "Sessions sent no report for three intervals; they stay open, marked stale."
                );
            }
            let mut tx = self.store.read().await?;
            self.metrics.sessions_active.set(sessions::count_open(&mut tx).await?);
            tx.rollback().await?;
        }
        self.measure_lag().await
    }

    /// Whether this process folds. On PostgreSQL it also shows the others that it lives.
    async fn take_turn(&mut self) -> Result<bool, StoreError> {
        if self.store.dialect() == Dialect::Sqlite && self.lease.is_held() {
            return Ok(true);
        }
        let mut tx = self.store.write_derived().await?;
        let turn = self.lease.turn(&mut tx, self.clock.now()).await?;
        tx.commit().await?;
        match turn {
            Some(turn) if turn.continued => {}
            Some(_) => self.forget(),
            None => self.stand_by(),
        }
        self.stands_by = turn.is_none();
        turn.into_iter().for_each(|turn| self.lease.keep(turn));
        Ok(turn.is_some())
    }

    async fn measure_lag(&self) -> Result<(), StoreError> {
        let mut tx = self.store.read_journal().await?;
        let lanes = journal::lanes(&mut tx).await?;
        let mut main = self.store.read().await?;
        let watermarks = fold::watermarks(&mut main).await?;
        main.rollback().await?;
        let mut lag = 0;
        for lane in lanes.iter().rev().take(RECENT_LANES) {
            let folded = watermarks.get(lane).copied().unwrap_or(0);
            lag += (journal::last_seq(&mut tx, *lane).await? - folded).max(0);
        }
        self.metrics.fold_lag_records.set(lag);
        tx.rollback().await
    }

    fn count(&self, records: usize, written: &Written, quarantined: u64, began: Instant) {
        self.metrics.fold_records.inc_by(records as u64);
        self.metrics.fold_seconds.observe(began.elapsed().as_secs_f64());
        self.metrics.radius_quarantined.inc_by(quarantined);
        self.metrics.fold_duplicates.inc_by(written.duplicates);
        for (direction, octets) in [("in", written.in_octets), ("out", written.out_octets)] {
            self.metrics.usage_bytes.get_or_create(&Direction::new(direction)).inc_by(octets.max(0).cast_unsigned());
        }
    }
}

/// Records that could not be interpreted, by client and reason: how many, and where the last one stands.
#[derive(Default)]
struct Quarantine(BTreeMap<(String, String), (u64, i64, i64)>);

impl Quarantine {
    fn add(&mut self, row: &JournalRow, reason: &str) {
        let place = self.0.entry((row.entry.nas.to_string(), reason.to_owned())).or_insert((0, row.lane, row.seq));
        *place = (place.0 + 1, row.lane, row.seq);
    }

    fn count(&self) -> u64 {
        self.0.values().map(|(count, ..)| count).sum()
    }
}

/// Tells the folds of one process apart.
static FOLDS: AtomicU32 = AtomicU32::new(0);
/// Records of one transaction. A session that reports often is written once in each.
const BATCH: usize = 8_192;
/// Records folded before other tasks of this thread get their turn.
const RECORDS_AT_ONCE: usize = 64;
/// Between two turns, so that a session that reports several times meanwhile is written once.
const PACE: Duration = Duration::from_millis(150);
/// Looks for other daemons' lanes and new owners although nobody woke it.
const IDLE: Duration = Duration::from_millis(500);
const SWEEP_EVERY: Duration = Duration::from_millis(900);
const STEPS_A_SWEEP: u32 = 20;
/// In sweeps, about a second each.
const STALE_EVERY: u64 = 30;
const OWNERS_AGAIN_EVERY: u64 = 900;
const ALL_LANES_EVERY: Duration = Duration::from_secs(60);
const RECENT_LANES: usize = 8;
/// Looks again so often when others write between two turns, as a bill run does; then waits for the next turn.
const OUTDATED_MAX: u32 = 20;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(3);
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
