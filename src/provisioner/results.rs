//! What became of attempts, written down: many in one transaction, for each alone would wait for the disk alone.
//!
//! Comes in: claimed jobs with what their backend said, in the order of their ends. Goes out: rows, and a line in the log
//! once they are durable. An attempt gives its place on the lane back before that, so that the next device is not kept
//! waiting by a disk; how many results may wait is bounded. What it will never do: write down half of a result.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::backend::{ApplyError, Outcome};
use super::engine::{Engine, begin, ending, log};
use crate::provision::JobState;
use crate::store::StoreError;
use crate::store::jobs::{self, ClaimedJob};

/// An attempt that ended.
pub struct Ended {
    pub job: ClaimedJob,
    pub applied: Result<Outcome, ApplyError>,
}

/// Where attempts of one lane leave their results; cheap to clone.
#[derive(Clone)]
pub struct Results {
    queue: mpsc::Sender<Ended>,
}

/// Results of one transaction. A push that comes meanwhile waits for it.
const GROUP_MOST: usize = 128;
/// Results that wait; with more, attempts keep their places on the lane.
const WAITING_MOST: usize = 1024;
/// How long a result is held while our own database is away; then the lease ends and the job is repeated.
const RECORD_LIMIT: Duration = Duration::from_secs(20);
const RECORD_PAUSE: Duration = Duration::from_secs(1);

impl Results {
    /// The task ends when every `Results` is gone and all is written.
    pub fn of(engine: &Engine) -> (Self, JoinHandle<()>) {
        let (queue, results) = mpsc::channel(WAITING_MOST);
        (Self { queue }, tokio::spawn(write(engine.clone(), results)))
    }

    pub async fn take(&self, ended: Ended) {
        if self.queue.send(ended).await.is_err() {
            tracing::error!("The task that records results is gone. Jobs are repeated after their lease.");
        }
    }
}

async fn write(engine: Engine, mut queue: mpsc::Receiver<Ended>) {
    let mut group = Vec::with_capacity(GROUP_MOST);
    while queue.recv_many(&mut group, GROUP_MOST).await > 0 {
        settle(&engine, std::mem::take(&mut group)).await;
    }
}

/// A group in one transaction, patiently; where one result fails it, each in one of its own.
async fn settle(engine: &Engine, group: Vec<Ended>) {
    let lost = |ended: &Ended, error: &StoreError| {
        let id = ended.job.id;
        tracing::warn!(job.id = id, "The result of job {id} is not recorded: {error}. It is repeated after its lease.");
    };
    match patiently(engine, &group).await {
        Ok(states) => told(engine, &group, &states),
        Err(error) if group.len() == 1 || error.is_unavailable() => {
            group.iter().for_each(|ended| lost(ended, &error));
        }
        Err(_) => {
            for ended in group.chunks(1) {
                match patiently(engine, ended).await {
                    Ok(states) => told(engine, ended, &states),
                    Err(error) => lost(&ended[0], &error),
                }
            }
        }
    }
}

async fn patiently(engine: &Engine, group: &[Ended]) -> Result<Vec<Option<JobState>>, StoreError> {
    let started = Instant::now();
    loop {
        match together(engine, group).await {
            Err(StoreError::Unavailable(_)) if started.elapsed() < RECORD_LIMIT => {
                tokio::time::sleep(RECORD_PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn together(engine: &Engine, group: &[Ended]) -> Result<Vec<Option<JobState>>, StoreError> {
    let endings: Vec<_> = group.iter().map(|ended| (&ended.job, ending(ended.applied.clone()))).collect();
    let mut tx = begin(&engine.store).await?;
    match jobs::end_all(&mut tx, &endings, engine.store.owner(), engine.clock.now()).await {
        Ok(states) => {
            tx.commit().await?;
            Ok(states)
        }
        Err(error) => {
            // Not waiting for the rollback would make the next writer wait for it.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

fn told(engine: &Engine, group: &[Ended], states: &[Option<JobState>]) {
    for (Ended { job, applied }, state) in group.iter().zip(states) {
        match state {
            Some(state) => log(job, applied, state, engine.clock.now()),
            None => tracing::debug!(job.id = job.id, "The job was taken over or withdrawn; its result is dropped."),
        }
    }
}
