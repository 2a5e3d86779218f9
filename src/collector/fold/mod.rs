//! The fold: reads the journal behind the watermark, folds it into sessions, the ledger and totals, and moves the
//! watermark in the same transaction.
//!
//! In: the journal, the configuration's rules, a wake-up after each commit. Out: derived state that the journal can
//! always give again. It answers no NAS and never stops for a database that is away: it waits and goes on.
//! Two daemons on one database never fold at once: PostgreSQL's advisory lock, SQLite's write lock, and the watermark
//! read again under it.

mod calendars;
mod desk;
pub(in crate::collector) mod rules;
mod sweep;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::collector::NasTable;
use crate::store::journal::{self, JournalRow};
use crate::store::{Store, StoreError, exceptions, fold, ledger, sessions};
use crate::telemetry::{Direction, Heartbeat, Metrics};
use crate::usage::Record;
use crate::vocabulary::{Clock, to_micros};
use calendars::Calendars;
use desk::{Desk, Written};
use sweep::Sweeper;

/// The task that folds.
pub struct Fold {
    store: Store,
    clock: Clock,
    /// Notified after each commit to the journal.
    wake: Arc<Notify>,
    nas: watch::Receiver<Arc<NasTable>>,
    metrics: Metrics,
    beat: Heartbeat,
    watermarks: HashMap<i64, i64>,
    calendars: Calendars,
    newest_holder: i64,
    /// Turns of the loop that came to a sweep.
    sweeps: u64,
    swept: Option<Instant>,
}

/// What became of one batch.
enum Batch {
    Folded,
    /// Somebody else folds, or had folded what was read: look again.
    Elsewhere,
}

impl Fold {
    pub fn new(
        store: Store,
        clock: Clock,
        wake: Arc<Notify>,
        nas: watch::Receiver<Arc<NasTable>>,
        metrics: Metrics,
        beat: Heartbeat,
    ) -> Self {
        Self {
            store,
            clock,
            wake,
            nas,
            metrics,
            beat,
            watermarks: HashMap::new(),
            calendars: Calendars::default(),
            newest_holder: 0,
            sweeps: 0,
            swept: None,
        }
    }

    /// Folds until `stopping` turns true. What is not folded then is folded at the next start.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) -> Result<(), Infallible> {
        let mut backoff = BACKOFF_FIRST;
        let mut complained: Option<Instant> = None;
        while !*stopping.borrow() {
            self.beat.beat();
            let pause = match self.turn().await {
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
                    self.watermarks.clear();
                    backoff = (backoff * 2).min(BACKOFF_LAST);
                    backoff
                }
            };
            let waiting = async {
                tokio::time::sleep(pause).await;
                if pause == PACE {
                    let _ = tokio::time::timeout(IDLE, self.wake.notified()).await;
                }
            };
            tokio::select! {
                () = waiting => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        }
        Ok(())
    }

    /// Folds everything there is, then sweeps when it is time.
    ///
    /// **Errors**: the database; nothing is lost, call again.
    pub async fn turn(&mut self) -> Result<(), StoreError> {
        self.catch_up().await?;
        if self.swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
            self.sweep().await?;
            self.swept = Some(Instant::now());
        }
        Ok(())
    }

    async fn catch_up(&mut self) -> Result<(), StoreError> {
        if self.watermarks.is_empty() {
            let mut tx = self.store.read().await?;
            self.watermarks = fold::watermarks(&mut tx).await?;
            tx.rollback().await?;
        }
        let mut elsewhere = 0;
        loop {
            let Some((lane, after, rows)) = self.next_rows().await? else {
                self.metrics.fold_lag_seconds.set(0.0);
                return Ok(());
            };
            self.beat.beat();
            let age = to_micros(self.clock.now()) - to_micros(rows[0].entry.arrived_at);
            self.metrics.fold_lag_seconds.set(age.max(0) as f64 / 1e6);
            match self.batch(lane, after, &rows).await? {
                Batch::Folded => elsewhere = 0,
                Batch::Elsewhere => {
                    elsewhere += 1;
                    if elsewhere > ELSEWHERE_MAX {
                        return Ok(());
                    }
                    tokio::time::sleep(ELSEWHERE_PAUSE).await;
                    let mut tx = self.store.read().await?;
                    self.watermarks = fold::watermarks(&mut tx).await?;
                    tx.rollback().await?;
                }
            }
        }
    }

    /// The next rows of the oldest lane that has any after its watermark.
    async fn next_rows(&self) -> Result<Option<(i64, i64, Vec<JournalRow>)>, StoreError> {
        let mut tx = self.store.read_journal().await?;
        let lanes = journal::lanes(&mut tx).await?;
        // Every process opens a lane of its own; the old ones are looked at only now and then.
        let recent = lanes.len().saturating_sub(RECENT_LANES);
        let from = if self.sweeps.is_multiple_of(ALL_LANES_EVERY) { 0 } else { recent };
        for lane in &lanes[from..] {
            let after = self.watermarks.get(lane).copied().unwrap_or(0);
            let rows = journal::read_after(&mut tx, *lane, after, BATCH).await?;
            if !rows.is_empty() {
                tx.rollback().await?;
                return Ok(Some((*lane, after, rows)));
            }
        }
        tx.rollback().await?;
        Ok(None)
    }

    async fn batch(&mut self, lane: i64, after: i64, rows: &[JournalRow]) -> Result<Batch, StoreError> {
        let began = Instant::now();
        let nas = self.nas.borrow().clone();
        let mut quarantined = Quarantine::default();
        let mut records: Vec<Record> = Vec::with_capacity(rows.len());
        let mut sources: Vec<&JournalRow> = Vec::with_capacity(rows.len());
        for row in rows {
            match rules::read(&nas, row) {
                Ok(record) => {
                    records.push(record);
                    sources.push(row);
                }
                Err(reason) => quarantined.add(row, &reason),
            }
        }
        let now = self.clock.now();
        let mut tx = self.store.write_derived().await?;
        if !ledger::try_fold_lock(&mut tx).await? || fold::watermark(&mut tx, lane).await? != after {
            tx.rollback().await?;
            return Ok(Batch::Elsewhere);
        }
        let mut desk = Desk::load(&mut tx, &records).await?;
        self.calendars.refresh(&mut tx, now).await?;
        self.calendars.learn(&mut tx, desk.accounts(), now).await?;
        for (record, row) in records.iter().zip(sources) {
            if let Err(error) = desk.fold(record, &nas, &self.calendars) {
                quarantined.add(row, &error.to_string());
            }
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
        let last = rows.last().map_or(after, |row| row.seq);
        fold::move_watermark(&mut tx, lane, last, now).await?;
        tx.commit().await?;
        self.watermarks.insert(lane, last);
        self.count(rows.len(), &written, quarantined.count(), began);
        Ok(Batch::Folded)
    }

    async fn sweep(&mut self) -> Result<(), StoreError> {
        self.sweeps += 1;
        let nas = self.nas.borrow().clone();
        let now = self.clock.now();
        let mut tx = self.store.read().await?;
        self.calendars.refresh(&mut tx, now).await?;
        tx.rollback().await?;
        if self.sweeps.is_multiple_of(OWNERS_AGAIN_EVERY) {
            self.newest_holder = 0;
        }
        let mut sweeper = Sweeper { store: &self.store, nas: &nas, calendars: &mut self.calendars, now };
        self.newest_holder = sweeper.attach(self.newest_holder).await?;
        let mut steps = 0;
        while steps < STEPS_A_SWEEP && (sweeper.close_rebooted().await? || sweeper.refold_one().await?) {
            steps += 1;
            self.beat.beat();
        }
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

    async fn measure_lag(&self) -> Result<(), StoreError> {
        let mut tx = self.store.read_journal().await?;
        let lanes = journal::lanes(&mut tx).await?;
        let mut lag = 0;
        for lane in lanes.iter().rev().take(RECENT_LANES) {
            let folded = self.watermarks.get(lane).copied().unwrap_or(0);
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

/// Records of one transaction (HOUSE, decision 4).
const BATCH: i64 = 1_000;
/// Between two turns, so that commits gather records.
const PACE: Duration = Duration::from_millis(10);
/// Looks for other daemons' lanes and new owners although nobody woke it.
const IDLE: Duration = Duration::from_secs(1);
const SWEEP_EVERY: Duration = Duration::from_millis(900);
const STEPS_A_SWEEP: u32 = 20;
/// In sweeps, about a second each.
const STALE_EVERY: u64 = 30;
const OWNERS_AGAIN_EVERY: u64 = 900;
const ALL_LANES_EVERY: u64 = 60;
const RECENT_LANES: usize = 8;
const ELSEWHERE_MAX: u32 = 20;
const ELSEWHERE_PAUSE: Duration = Duration::from_millis(50);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(3);
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
