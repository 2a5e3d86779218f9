//! The engine: claims due jobs, lets backends act on them, and records what became of it. Commit, act, record.
//!
//! Each kind of element has a lane of its own here, with its own claims, workers and outages: a mail database that
//! hangs never delays a modem. A lane whose backend is away tries one job at a time until that works again, instead of
//! wearing out the attempts of thousands. What it will never do: act on a job whose claim is not committed, or hold a
//! transaction of ours while a backend works.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backend::{ApplyError, Backends, Outcome};
use super::device::DeviceOutcome;
use super::results::{Ended, Results};
use crate::provision::{ElementKind, ElementState, JobState};
use crate::store::elements::ElementRow;
use crate::store::jobs::{self, ClaimedJob, Ending};
use crate::store::{Dialect, Store, StoreError, Tx, exceptions};
use crate::telemetry::{Heartbeat, Heartbeats, Metrics, Target, TargetState};
use crate::vocabulary::{Clock, Timestamp};

/// Jobs of one kind under way at once, where another program's database does the work.
const WORKERS: usize = 4;
/// Devices looked at at once: most of the time goes by waiting for an answer that may never come.
const DEVICE_WORKERS: usize = 256;
/// Jobs claimed in one transaction.
const CLAIM_MOST: usize = 128;
/// With fewer places than this the lane waits `GATHER_ENDED` for more: a claim for each would be a write for each.
const CLAIM_LEAST: usize = 32;
const GATHER_ENDED: Duration = Duration::from_millis(10);
/// The part of the workers that bulk jobs leave to single pushes.
const RESERVED: usize = 4;
/// Bulk jobs claimed at once while single pushes are due: enough that they go on, too few to be waited for.
const BESIDE_SINGLE: usize = 8;
/// How often due jobs are looked for when nobody calls.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The first call is heard at once, those that follow it within this time are one: a storm of pushes must not become a storm
/// of claims.
const GATHER: Duration = Duration::from_millis(25);
/// How long a lane whose backend or database is away waits between two tries.
const AWAY_PAUSE: Duration = Duration::from_secs(5);
/// A claim is for this long; a job of a daemon that died is due again after it.
const LEASE: Duration = Duration::from_secs(60);
/// One attempt may take this long, so that its result is recorded well before the lease ends.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// How often the queue is counted for the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// Ended jobs are kept this long.
const KEEP_ENDED: Duration = Duration::from_secs(30 * 24 * 3600);
const FORGET_EVERY: Duration = Duration::from_secs(3600);
const FORGET_AT_ONCE: i64 = 1000;

/// What the engine works with; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Metrics,
    pub backends: Backends,
    /// Called by whoever stored a job, so that it is not first found by looking.
    pub wake: Arc<Notify>,
}

/// How an attempt ended, for the lane it ran on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    /// The backend works, whatever became of the job.
    Backend,
    /// The backend as a whole is away.
    NoBackend,
}

/// Runs until `stopping` turns true, then lets the attempts under way end.
pub async fn run(engine: Engine, hearts: Heartbeats, mut stopping: watch::Receiver<bool>) -> Result<(), StoreError> {
    let (call, called) = watch::channel(());
    let mut lanes = JoinSet::new();
    for kind in ElementKind::ALL {
        let beat = hearts.register(format!("provisioner {kind}"));
        let (engine, called, stopping) = (engine.clone(), called.clone(), stopping.clone());
        lanes.spawn(async move {
            let (results, recording) = Results::of(&engine);
            Lane::new(engine, kind, results).run(beat, called, stopping).await;
            // What attempts left behind is written before the daemon says that it has stopped.
            let _ = recording.await;
        });
    }
    let beat = hearts.register("provisioner");
    let mut counted: Option<Instant> = None;
    let mut forgotten: Option<Instant> = None;
    while !*stopping.borrow() {
        beat.beat();
        if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
            counted = Some(Instant::now());
            // The lanes log an outage; a gauge that stands still for its length is no news.
            let _ = count(&engine).await;
        }
        if forgotten.is_none_or(|at| at.elapsed() >= FORGET_EVERY) {
            forgotten = Some(Instant::now());
            let _ = forget(&engine).await;
        }
        let called = tokio::select! {
            () = engine.wake.notified() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
            _ = stopping.wait_for(|stop| *stop) => false,
            ended = lanes.join_next() => {
                if let Some(Err(error)) = ended {
                    return Err(StoreError::Database(format!("a lane of the provisioner ended: {error}")));
                }
                false
            }
        };
        if called {
            call.send_replace(());
            tokio::time::sleep(GATHER).await;
        }
    }
    while lanes.join_next().await.is_some() {}
    Ok(())
}

/// The jobs of one kind.
struct Lane {
    engine: Engine,
    kind: ElementKind,
    running: JoinSet<Met>,
    results: Results,
    /// Whether jobs left behind by the last run were seen to.
    started: bool,
    backend_away: bool,
    database_away: bool,
    /// While something is away: when to try again, whatever else happens.
    not_before: Option<Instant>,
}

impl Lane {
    fn new(engine: Engine, kind: ElementKind, results: Results) -> Self {
        Self {
            engine,
            kind,
            running: JoinSet::new(),
            results,
            started: false,
            backend_away: false,
            database_away: false,
            not_before: None,
        }
    }

    async fn run(mut self, beat: Heartbeat, mut called: watch::Receiver<()>, mut stopping: watch::Receiver<bool>) {
        if let Err(error) = self.engine.backends.prepare(self.kind).await {
            tracing::warn!("{} database not ready: {error}. Its jobs are tried all the same.", self.kind);
        }
        while !*stopping.borrow() {
            beat.beat();
            called.mark_unchanged();
            let room = self.room();
            if room > 0 && self.claim(room).await >= CLAIM_MOST {
                continue;
            }
            // With a full hand the next claim comes as soon as attempts end.
            let away = self.not_before.map(|at| at.saturating_duration_since(Instant::now()));
            let pause = away.unwrap_or(LOOK_EVERY);
            tokio::select! {
                Some(ended) = self.running.join_next() => self.note(ended),
                _ = called.changed() => {}
                () = tokio::time::sleep(pause) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
            self.note_all_ended();
            if !self.running.is_empty() && self.room() < CLAIM_LEAST.min(workers(self.kind) / 2) {
                tokio::time::sleep(GATHER_ENDED).await;
                self.note_all_ended();
            }
        }
        while self.running.join_next().await.is_some() {}
    }

    /// How many more jobs may be claimed now.
    fn room(&mut self) -> usize {
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return 0;
        }
        self.not_before = None;
        let workers = if self.backend_away { 1 } else { workers(self.kind) };
        workers.saturating_sub(self.running.len())
    }

    /// How many were claimed or put off.
    async fn claim(&mut self, room: usize) -> usize {
        match self.take(room).await {
            Ok(Taken { claimed, put_off }) => {
                if self.database_away {
                    self.database_away = false;
                    tracing::info!("The database answers again; {} jobs go on.", self.kind);
                }
                let count = claimed.len() + put_off;
                for job in claimed {
                    let (engine, results) = (self.engine.clone(), self.results.clone());
                    self.running.spawn(async move { engine.attempt(job, &results).await });
                }
                count
            }
            Err(error) => {
                if !self.database_away {
                    self.database_away = true;
                    tracing::warn!("{} jobs cannot be claimed: {error}. Trying again every {AWAY_PAUSE:?}.", self.kind);
                }
                self.not_before = Some(Instant::now() + AWAY_PAUSE);
                0
            }
        }
    }

    async fn take(&mut self, room: usize) -> Result<Taken, StoreError> {
        let store = &self.engine.store;
        let now = self.engine.clock.now();
        if !self.started {
            let mut tx = store.write().await?;
            jobs::free_those_of_the_dead(&mut tx, store.owner(), now).await?;
            jobs::hurry(&mut tx, self.kind, now).await?;
            tx.commit().await?;
            self.started = true;
        }
        // Looking is free for everybody else; only a due job takes the turn to write.
        let mut tx = store.read().await?;
        let due = jobs::next_due(&mut tx, self.kind).await?.is_some_and(|at| at <= now);
        drop(tx);
        if !due {
            return Ok(Taken::default());
        }
        let mut tx = begin(store).await?;
        if let Some(missing) = self.engine.backends.missing(self.kind) {
            return Ok(Taken { put_off: self.put_off(tx, &missing, now).await?, ..Taken::default() });
        }
        let reserved = workers(self.kind) / RESERVED;
        let number = |jobs: usize| i64::try_from(jobs).unwrap_or(1);
        let bulk = number(room.saturating_sub(reserved)).max(i64::from(self.backend_away));
        let limits = jobs::Limits { all: number(room.min(CLAIM_MOST)), bulk, beside: bulk.min(number(BESIDE_SINGLE)) };
        let claimed = jobs::claim(&mut tx, self.kind, store.owner(), limits, now, LEASE).await?;
        tx.commit().await?;
        Ok(Taken { claimed, put_off: 0 })
    }

    /// Puts off due jobs that nobody here can do, as many as are claimed at once. Returns how many.
    async fn put_off(&self, mut tx: Tx, missing: &ApplyError, now: Timestamp) -> Result<usize, StoreError> {
        let (engine, owner) = (&self.engine, self.engine.store.owner());
        let most = i64::try_from(CLAIM_MOST).unwrap_or(1);
        let jobs = jobs::claim(&mut tx, self.kind, owner, most, now, LEASE).await?;
        let endings: Vec<_> = jobs.iter().map(|job| (job, ending(Err(missing.clone())))).collect();
        let states = jobs::end_all(&mut tx, &endings, owner, now).await?;
        tx.commit().await?;
        let attempts = TargetState::new(self.kind.as_str(), "retry");
        engine.metrics.job_attempts.get_or_create(&attempts).inc_by(jobs.len() as u64);
        for (job, state) in jobs.iter().zip(&states) {
            if let Some(state) = state {
                log(job, &Err(missing.clone()), state, now);
            }
        }
        Ok(jobs.len())
    }

    fn note_all_ended(&mut self) {
        while let Some(ended) = self.running.try_join_next() {
            self.note(ended);
        }
    }

    /// Takes note of an attempt that ended.
    fn note(&mut self, ended: Result<Met, tokio::task::JoinError>) {
        match ended {
            Ok(Met::Backend) => {
                if self.backend_away {
                    self.backend_away = false;
                    self.not_before = None;
                    // What was put off because of the outage need not wait any longer.
                    self.started = false;
                    tracing::info!("The backend for {} answers again; its jobs go on.", self.kind);
                }
            }
            Ok(Met::NoBackend) => {
                self.backend_away = true;
                self.not_before = Some(Instant::now() + AWAY_PAUSE);
            }
            Err(error) => {
                tracing::error!(
                    "An attempt on a {} broke off: {error}. Its job is repeated after its lease.",
                    self.kind
                );
            }
        }
    }
}

/// Due jobs, seen to.
#[derive(Default)]
struct Taken {
    claimed: Vec<ClaimedJob>,
    /// How many wait for a backend that is not here.
    put_off: usize,
}

fn workers(kind: ElementKind) -> usize {
    match kind {
        ElementKind::Cm | ElementKind::Mta => DEVICE_WORKERS,
        ElementKind::Mailbox | ElementKind::Aaa => WORKERS,
    }
}

impl Engine {
    async fn attempt(&self, job: ClaimedJob, results: &Results) -> Met {
        let started = Instant::now();
        let applied = self.backends.apply(&self.store, &job, random(), self.clock.now());
        let applied = tokio::time::timeout(ATTEMPT_LIMIT, applied)
            .await
            .unwrap_or_else(|_| Err(ApplyError::Away(format!("no answer in {ATTEMPT_LIMIT:?}"))));
        let kind = job.element.kind.as_str();
        self.metrics.job_seconds.get_or_create(&Target::new(kind)).observe(started.elapsed().as_secs_f64());
        let met = if matches!(applied, Err(ApplyError::Away(_))) { Met::NoBackend } else { Met::Backend };
        let outcome = match &applied {
            Ok(Outcome::Device(device)) if device.again.is_some() => "step",
            Ok(_) => "done",
            Err(ApplyError::Away(_) | ApplyError::Retry(_) | ApplyError::NotHere(_)) => "retry",
            Err(ApplyError::Fail(_)) => "failed",
        };
        self.metrics.job_attempts.get_or_create(&TargetState::new(kind, outcome)).inc();
        results.take(Ended { job, applied }).await;
        met
    }
}

/// Jobs bear repeating, so that on SQLite neither claim nor result waits for the disk: a power cut costs an attempt.
/// There pushes and jobs share one writer, and a push waits for its own fsync only.
pub(super) async fn begin(store: &Store) -> Result<Tx, StoreError> {
    match store.dialect() {
        Dialect::Sqlite => store.write_derived().await,
        Dialect::Postgres => store.write().await,
    }
}

pub(super) fn ending(applied: Result<Outcome, ApplyError>) -> Ending {
    match applied {
        Ok(Outcome::Reached(progress)) => Ending::Succeeded(progress),
        Ok(Outcome::Device(device)) => {
            Ending::Device { progress: device.progress, notes: Box::new(device.notes), again: device.again }
        }
        Err(ApplyError::Away(reason) | ApplyError::Retry(reason) | ApplyError::NotHere(reason)) => {
            Ending::Retry { reason, random: random() }
        }
        Err(ApplyError::Fail(reason)) => Ending::Failed { reason },
    }
}

/// Randomness for the next delay; without any, jobs merely come back together.
fn random() -> u64 {
    let mut octets = [0u8; 8];
    let _ = getrandom::fill(&mut octets);
    u64::from_le_bytes(octets)
}

/// One line a journey for NOC. Addresses and user names of people stay out of it; the job's number leads to them.
pub(super) fn log(job: &ClaimedJob, applied: &Result<Outcome, ApplyError>, state: &JobState, now: Timestamp) {
    let element = &job.element;
    let name = name(element);
    match (applied, state) {
        (Ok(Outcome::Reached(progress)), _) => tracing::info!(
            job.id = job.id,
            job.attempt = job.attempts,
            account.id = element.account_id,
            revision = element.desired_revision,
            "{name} provisioned: {}.",
            progress.state
        ),
        (Ok(Outcome::Device(device)), _) => log_device(job, &name, device),
        (Err(ApplyError::NotHere(reason)), _) => tracing::debug!(job.id = job.id, "{name} not provisioned: {reason}."),
        (Err(error), JobState::Waiting { retry_at, .. }) => tracing::warn!(
            job.id = job.id,
            job.attempt = job.attempts,
            account.id = element.account_id,
            "{name} not provisioned: {}, attempt {}. Retrying at {retry_at:.0}.",
            said(element.kind, error),
            job.attempts
        ),
        (Err(error), JobState::Failed { .. }) => tracing::error!(
            job.id = job.id,
            job.attempt = job.attempts,
            account.id = element.account_id,
            "{name} not provisioned: {}. Mend it, then run `lastmile job retry {}`.",
            said(element.kind, error),
            job.id
        ),
        (Err(_), _) => tracing::info!(
            job.id = job.id,
            account.id = element.account_id,
            "{name} not provisioned as it was wanted before {now:.0}; the newer state is tried at once."
        ),
    }
}

/// What a step did to a device. Waiting is no event, nor is a device that is looked at again and stands as it stood.
fn log_device(job: &ClaimedJob, name: &str, device: &DeviceOutcome) {
    let element = &job.element;
    let (id, attempt, account) = (job.id, job.attempts, element.account_id);
    let evidence = &device.progress.evidence;
    match (&device.notes.trouble, &device.again) {
        (Some(trouble), Some(_)) if is_known(element, device.progress.state, trouble) => {
            tracing::debug!(job.id = id, modem.mac = element.key, "{name} still not provisioned: {trouble}.");
        }
        (Some(trouble), Some((at, _))) => tracing::warn!(
            job.id = id,
            job.attempt = attempt,
            modem.mac = element.key,
            account.id = account,
            "{name} not provisioned: {trouble}. Looking again at {at:.0}."
        ),
        (Some(trouble), None) => tracing::warn!(
            job.id = id,
            job.attempt = attempt,
            modem.mac = element.key,
            account.id = account,
            "{name} not provisioned: {trouble}."
        ),
        (None, Some(_)) if device.notes.reset.is_none() => {
            tracing::debug!(job.id = id, modem.mac = element.key, "{name}: {evidence}.");
        }
        (None, _) => tracing::info!(
            job.id = id,
            job.attempt = attempt,
            modem.mac = element.key,
            account.id = account,
            revision = element.desired_revision,
            "{name} {}: {evidence}.",
            if device.again.is_some() { "under way" } else { device.progress.state.as_str() }
        ),
    }
}

/// Whether the trouble of a device is the one it had before; a count or an instant in it makes no other.
fn is_known(element: &ElementRow, state: ElementState, trouble: &str) -> bool {
    let plain = |text: &str| text.chars().filter(|letter| !letter.is_ascii_digit()).collect::<String>();
    element.state == state && element.last_error.as_deref().is_some_and(|before| plain(before) == plain(trouble))
}

fn name(element: &ElementRow) -> String {
    match element.kind {
        ElementKind::Cm => format!("Modem {}", element.key),
        ElementKind::Mta => format!("MTA {}", element.key),
        ElementKind::Mailbox => format!("Mailbox of element {}", element.id),
        ElementKind::Aaa => format!("RADIUS login of element {}", element.id),
    }
}

/// The reason as far as it is about machines.
fn said(kind: ElementKind, error: &ApplyError) -> String {
    match (kind, error) {
        (ElementKind::Cm | ElementKind::Mta, error) | (_, error @ (ApplyError::Away(_) | ApplyError::NotHere(_))) => {
            error.to_string()
        }
        (_, ApplyError::Retry(_) | ApplyError::Fail(_)) => "see `lastmile job list`".to_owned(),
    }
}

async fn count(engine: &Engine) -> Result<(), StoreError> {
    let mut tx = engine.store.read().await?;
    let counts = jobs::counts(&mut tx).await?;
    let open = exceptions::count_open(&mut tx).await?;
    drop(tx);
    for kind in ElementKind::ALL {
        for state in ["pending", "running", "waiting", "failed"] {
            let jobs = counts.iter().find(|(of, is, ..)| of == kind.as_str() && is == state).map_or(0, |(.., n, _)| *n);
            engine.metrics.jobs.get_or_create(&TargetState::new(kind.as_str(), state)).set(jobs);
        }
    }
    let oldest = counts.iter().filter_map(|(.., at)| *at).min();
    let age = oldest.map_or(0.0, |at| engine.clock.now().duration_since(at).as_secs_f64());
    engine.metrics.jobs_oldest_seconds.set(age);
    engine.metrics.exceptions_open.set(open);
    Ok(())
}

async fn forget(engine: &Engine) -> Result<(), StoreError> {
    let Ok(before) = engine.clock.now().checked_sub(KEEP_ENDED) else { return Ok(()) };
    let mut tx = engine.store.write().await?;
    jobs::forget(&mut tx, before, FORGET_AT_ONCE).await?;
    tx.commit().await
}
