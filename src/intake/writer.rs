//! The group-committing writer: what queued during the last commit goes into the next transaction, and exactly what was
//! committed is answered. A group is done again with a savepoint a deed when one of them must be undone alone.
//!
//! An idle writer commits a lone deed at once. A busy one gives those whom it answered a moment to send again what they have
//! next: else they and those who queued meanwhile go on in two groups by turns, and each group costs as much as both.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::deeds::{self, Deed, Done, Ground, Stop};
use super::problem::Problem;
use crate::store::{Dialect, Store, StoreError, Tx};
use crate::telemetry::{Heartbeat, Heartbeats};
use crate::vocabulary::Clock;

/// Hands deeds to the writer's tasks; cheap to clone.
#[derive(Clone)]
pub struct Writer {
    queues: Vec<mpsc::Sender<Work>>,
}

struct Work {
    deed: Deed,
    answer: oneshot::Sender<Result<Done, Refusal>>,
}

/// Why a deed was not done.
#[derive(Debug)]
pub enum Refusal {
    Problem(Problem),
    /// The document must be checked against the new catalog first.
    CatalogMoved,
}

/// The tasks of a writer, to be run by the daemon.
pub struct WriterTasks {
    tasks: Vec<WriterTask>,
}

/// Who was there when the last group was done.
#[derive(Default)]
struct Crowd {
    /// Whose deeds were in it, and those who queued behind it.
    callers: usize,
    answered_at: Option<Instant>,
}

struct WriterTask {
    queue: mpsc::Receiver<Work>,
    store: Store,
    clock: Clock,
    ground: Ground,
    /// Notified after a commit that may have made jobs due.
    jobs: Arc<Notify>,
    beat: Heartbeat,
}

/// More than this waiting means that the database does not keep up: the caller is told to come again.
const QUEUE_MAX: usize = 2048;
/// Deeds of one transaction.
const GROUP_MAX: usize = 256;
/// SQLite has one writer; PostgreSQL gains from a second one while the first waits for the disk, and from large groups more
/// than from many. Deeds of one account always meet the same task.
const POSTGRES_TASKS: usize = 2;
/// A database that hangs must not hang the callers.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const BEAT_EVERY: Duration = Duration::from_secs(3);
/// How long those who were answered may take to come again.
const COME_AGAIN: Duration = Duration::from_millis(2);

impl Writer {
    pub fn new(
        store: &Store,
        clock: &Clock,
        ground: &Ground,
        jobs: &Arc<Notify>,
        hearts: &Heartbeats,
    ) -> (Self, WriterTasks) {
        let count = match store.dialect() {
            Dialect::Sqlite => 1,
            Dialect::Postgres => POSTGRES_TASKS,
        };
        let (mut queues, mut tasks) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (sender, queue) = mpsc::channel(QUEUE_MAX);
            queues.push(sender);
            let beat = hearts.register(format!("account writer {number}"));
            let (store, clock, ground, jobs) = (store.clone(), clock.clone(), ground.clone(), jobs.clone());
            tasks.push(WriterTask { queue, store, clock, ground, jobs, beat });
        }
        (Self { queues }, WriterTasks { tasks })
    }

    /// Does a deed; returns once it is durable, or refused.
    pub async fn perform(&self, deed: Deed) -> Result<Done, Refusal> {
        let busy = || Refusal::Problem(Problem::unavailable("Too many requests wait for the database; come again."));
        let (answer, answered) = oneshot::channel();
        let mut hash = DefaultHasher::new();
        deeds::subject(&deed).hash(&mut hash);
        let place = usize::try_from(hash.finish() % self.queues.len() as u64).unwrap_or(0);
        self.queues[place].try_send(Work { deed, answer }).map_err(|_| busy())?;
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(outcome)) => outcome,
            // Unknown, not refused: a push is safe to repeat.
            Ok(Err(_)) | Err(_) => {
                Err(Refusal::Problem(Problem::unavailable("The database did not answer in time; send it again.")))
            }
        }
    }
}

impl WriterTasks {
    /// Runs until every `Writer` is gone and what they queued is done.
    pub async fn run(self) {
        let mut running = tokio::task::JoinSet::new();
        for task in self.tasks {
            running.spawn(task.run());
        }
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

impl WriterTask {
    async fn run(mut self) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        let mut crowd = Crowd::default();
        loop {
            self.beat.beat();
            match tokio::time::timeout(BEAT_EVERY, self.queue.recv_many(&mut group, GROUP_MAX)).await {
                Err(_) => continue,
                Ok(0) => return,
                Ok(_) => self.gather(&mut group, &crowd).await,
            }
            let (deeds, answers): (Vec<Deed>, Vec<_>) = group.drain(..).map(|work| (work.deed, work.answer)).unzip();
            let outcomes = self.settle(&deeds).await;
            if outcomes.iter().flatten().any(Done::changed) {
                self.jobs.notify_one();
            }
            for (deed, outcome) in deeds.iter().zip(&outcomes) {
                tell(deed, outcome);
            }
            crowd = Crowd { callers: deeds.len() + self.queue.len(), answered_at: Some(Instant::now()) };
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // A caller that went away does not undo what is durable.
                let _ = answer.send(outcome);
            }
        }
    }

    /// Waits for those who were answered a moment ago.
    async fn gather(&mut self, group: &mut Vec<Work>, crowd: &Crowd) {
        let Some(answered_at) = crowd.answered_at else { return };
        let callers = crowd.callers.min(GROUP_MAX);
        while group.len() < callers {
            let more = self.queue.recv_many(group, GROUP_MAX - group.len());
            if !matches!(tokio::time::timeout_at(answered_at + COME_AGAIN, more).await, Ok(1..)) {
                return;
            }
        }
    }

    /// The group in one transaction; where that fails as a whole, each deed in one of its own.
    async fn settle(&self, deeds: &[Deed]) -> Vec<Result<Done, Refusal>> {
        let mut settled = self.together(deeds, Guard::Group).await;
        if deeds.len() > 1 && matches!(settled, Err(Failed::Undone(_))) {
            settled = self.together(deeds, Guard::Each).await;
        }
        match settled {
            Ok(outcomes) => outcomes,
            Err(Failed::Commit(error)) => {
                // Perhaps durable, perhaps not: nothing is claimed, and a commit is never retried.
                tracing::error!("A group of {} account changes may not be stored: {error}", deeds.len());
                all_refused(deeds.len(), &error)
            }
            Err(Failed::Undone(refusal)) if deeds.len() == 1 => vec![Err(refusal)],
            Err(Failed::Before(error)) if deeds.len() == 1 && !matters_again(&error) => {
                vec![Err(Refusal::Problem(error.into()))]
            }
            Err(Failed::Begin(error)) => all_refused(deeds.len(), &error),
            Err(Failed::Before(_) | Failed::Undone(_)) => self.one_by_one(deeds).await,
        }
    }

    /// Each deed in a transaction of its own, until the database cannot be used: it would not be for the rest either,
    /// and waiting for it once a deed would hang the callers.
    async fn one_by_one(&self, deeds: &[Deed]) -> Vec<Result<Done, Refusal>> {
        let mut outcomes = Vec::with_capacity(deeds.len());
        let mut away = None;
        for deed in deeds {
            if away.is_some() {
                break;
            }
            self.beat.beat();
            outcomes.push(match self.together(std::slice::from_ref(deed), Guard::Group).await {
                Ok(mut one) => one.pop().unwrap_or_else(|| Err(Refusal::Problem(Problem::internal()))),
                Err(Failed::Undone(refusal)) => Err(refusal),
                Err(Failed::Begin(error) | Failed::Before(error) | Failed::Commit(error)) => {
                    away = Some(error.clone()).filter(StoreError::is_unavailable);
                    Err(Refusal::Problem(error.into()))
                }
            });
        }
        if let Some(error) = away {
            outcomes.extend(all_refused(deeds.len() - outcomes.len(), &error));
        }
        outcomes
    }

    async fn together(&self, deeds: &[Deed], guard: Guard) -> Result<Vec<Result<Done, Refusal>>, Failed> {
        let mut tx = self.store.write().await.map_err(Failed::Begin)?;
        let ground = Ground { catalogs: self.ground.catalogs.of_transaction(), ..self.ground.clone() };
        let done = match guard {
            Guard::Group => self.bare(deeds, &mut tx, &ground).await,
            Guard::Each => self.guarded(deeds, &mut tx, &ground).await.map_err(Failed::Before),
        };
        match done {
            Ok(outcomes) => {
                tx.commit().await.map_err(Failed::Commit)?;
                Ok(outcomes)
            }
            Err(failed) => {
                // Not waiting for the rollback would make the next writer wait for it.
                let _ = tx.rollback().await;
                Err(failed)
            }
        }
    }

    /// Deeds without savepoints: what one leaves behind when it stops half-way undoes the whole group.
    async fn bare(&self, deeds: &[Deed], tx: &mut Tx, ground: &Ground) -> Result<Vec<Result<Done, Refusal>>, Failed> {
        let failed = |error: StoreError| match fails_all(&error) {
            true => Failed::Before(error),
            false => Failed::Undone(Refusal::Problem(error.into())),
        };
        let outcomes = deeds::perform(deeds, tx, ground, self.clock.now()).await.map_err(failed)?;
        let outcomes = outcomes.into_iter().map(|outcome| match outcome {
            Ok(done) => Ok(Ok(done)),
            Err(Stop::Declined(problem)) => Ok(Err(Refusal::Problem(problem))),
            Err(Stop::CatalogMoved) => Ok(Err(Refusal::CatalogMoved)),
            Err(Stop::Refused(problem)) => Err(Failed::Undone(Refusal::Problem(problem))),
            Err(Stop::Store(error)) => Err(failed(error)),
        });
        outcomes.collect()
    }

    /// Each deed behind a savepoint of its own. An error fails the whole group.
    async fn guarded(
        &self,
        deeds: &[Deed],
        tx: &mut Tx,
        ground: &Ground,
    ) -> Result<Vec<Result<Done, Refusal>>, StoreError> {
        let mut outcomes = Vec::with_capacity(deeds.len());
        for deed in deeds {
            self.beat.beat();
            tx.savepoint().await?;
            let alone = deeds::perform(std::slice::from_ref(deed), tx, ground, self.clock.now()).await;
            let outcome = match alone {
                Ok(mut one) => one.pop().unwrap_or_else(|| Err(Problem::internal().into())),
                Err(error) => Err(Stop::Store(error)),
            };
            let refusal = match outcome {
                Ok(done) => {
                    tx.release_savepoint().await?;
                    outcomes.push(Ok(done));
                    continue;
                }
                Err(Stop::Refused(problem) | Stop::Declined(problem)) => Refusal::Problem(problem),
                Err(Stop::CatalogMoved) => Refusal::CatalogMoved,
                Err(Stop::Store(error)) if fails_all(&error) => return Err(error),
                // A fault in one account's rows is logged and must not stop the others.
                Err(Stop::Store(error)) => Refusal::Problem(error.into()),
            };
            tx.rollback_to_savepoint().await?;
            outcomes.push(Err(refusal));
        }
        Ok(outcomes)
    }
}

/// Where a deed that stops half-way is undone.
#[derive(Debug, Clone, Copy)]
enum Guard {
    /// With its whole group, which is then done again: a savepoint a deed costs two statements, and such a stop is rare.
    Group,
    /// Alone, behind a savepoint.
    Each,
}

fn all_refused(count: usize, error: &StoreError) -> Vec<Result<Done, Refusal>> {
    (0..count).map(|_| Err(Refusal::Problem(error.clone().into()))).collect()
}

fn fails_all(error: &StoreError) -> bool {
    matters_again(error) || error.is_unavailable()
}

/// Logs what changed an account, once it is durable.
fn tell(deed: &Deed, outcome: &Result<Done, Refusal>) {
    if let Ok(done) = outcome
        && matches!(done.outcome, "created" | "updated" | "closed")
    {
        let subject = deeds::subject(deed);
        tracing::info!(account.id = %subject, revision = done.body["revision"].as_i64(), "Account {}.", done.outcome);
    }
    if let Ok(done) = outcome
        && done.outcome == "held"
    {
        let (subject, held) = (deeds::subject(deed), done.body["held"]["id"].as_str().unwrap_or_default());
        tracing::warn!(
            account.id = %subject,
            "A change that takes service away waits for an operator, since its source took much away: lastmile held release {held}."
        );
    }
}

/// Whether the same deed can succeed at once: two daemons, or two tasks, met at one row.
fn matters_again(error: &StoreError) -> bool {
    matches!(error, StoreError::Conflict { .. })
}

enum Failed {
    Begin(StoreError),
    Before(StoreError),
    /// A deed was refused after it had written something; everything is rolled back.
    Undone(Refusal),
    Commit(StoreError),
}

#[cfg(test)]
mod tests {
    use super::super::catalogs::Catalogs;
    use super::super::deeds::Close;
    use super::*;
    use crate::account::Conditions;
    use crate::store::StoreConfig;
    use crate::vocabulary::{AccountKey, SourceId, TenantId, parse_instant};

    #[tokio::test]
    async fn a_change_calls_the_provisioner_and_a_refusal_does_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = StoreConfig {
            url: format!("sqlite://{}", directory.path().join("lastmile.db").display()),
            key_file: None,
            previous_key_file: None,
            owner: "test".into(),
        };
        let store = Store::open(&config).await.expect("a store");
        store.migrate().await.expect("tables");
        let ground = Ground {
            sealer: store.sealer().clone(),
            catalogs: Catalogs::default(),
            prices: Default::default(),
            sources: Default::default(),
            memory: Default::default(),
        };
        let clock = Clock::fixed(parse_instant("2026-11-22T03:00:00Z").expect("an instant"));
        let jobs = Arc::default();
        let (writer, tasks) = Writer::new(&store, &clock, &ground, &jobs, &Heartbeats::new());
        let running = tokio::spawn(tasks.run());
        let called = || tokio::time::timeout(Duration::ZERO, jobs.notified());

        let unknown = Close {
            key: AccountKey {
                tenant: TenantId::parse("acme").expect("a tenant"),
                source: SourceId::parse("default").expect("a source"),
                external_id: "nobody".into(),
            },
            actor: "test".into(),
            effective: None,
            source_revision: None,
            conditions: Conditions::default(),
            origin: None,
            released: false,
            lane: crate::store::jobs::LANE_SINGLE,
        };
        assert!(matches!(writer.perform(Deed::Close(unknown)).await, Err(Refusal::Problem(_))));
        assert!(called().await.is_err(), "nothing changed, nobody is called");

        writer.perform(Deed::Wake { account_id: 1 }).await.expect("done");
        assert!(called().await.is_ok(), "jobs may be due, the provisioner is called");

        drop(writer);
        running.await.expect("the writer ends with its last handle");
    }

    /// A task with `queued` deeds in its queue.
    async fn task(queued: usize) -> (tempfile::TempDir, mpsc::Sender<Work>, WriterTask) {
        let directory = tempfile::tempdir().expect("a directory");
        let config = StoreConfig {
            url: format!("sqlite://{}", directory.path().join("lastmile.db").display()),
            key_file: None,
            previous_key_file: None,
            owner: "test".into(),
        };
        let store = Store::open(&config).await.expect("a store");
        let ground = Ground {
            sealer: store.sealer().clone(),
            catalogs: Catalogs::default(),
            prices: Default::default(),
            sources: Default::default(),
            memory: Default::default(),
        };
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        for _ in 0..queued {
            sender.send(work()).await.expect("room");
        }
        let clock = Clock::fixed(parse_instant("2026-11-22T03:00:00Z").expect("an instant"));
        let (jobs, beat) = (Arc::default(), Heartbeats::new().register("test"));
        (directory, sender, WriterTask { queue, store, clock, ground, jobs, beat })
    }

    fn work() -> Work {
        Work { deed: Deed::Wake { account_id: 1 }, answer: oneshot::channel().0 }
    }

    #[tokio::test]
    async fn those_who_come_again_in_time_are_in_one_group_with_those_who_waited() {
        let (_directory, sender, mut task) = task(1).await;
        let much_later = Instant::now() + Duration::from_secs(60);
        let coming = tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                sender.send(work()).await.expect("room");
            }
            sender
        });
        let mut group = vec![work()];
        task.gather(&mut group, &Crowd { callers: 5, answered_at: Some(much_later) }).await;
        assert_eq!(group.len(), 5, "all who were there before, and nobody waits for more");
        drop(coming.await.expect("sent"));
    }

    #[tokio::test]
    async fn nobody_waits_for_callers_who_were_not_there_or_are_gone() {
        let (_directory, _sender, mut task) = task(2).await;
        let mut group = vec![work()];
        task.gather(&mut group, &Crowd::default()).await;
        task.gather(&mut group, &Crowd { callers: 1, answered_at: Some(Instant::now() + Duration::from_secs(60)) })
            .await;
        assert_eq!(group.len(), 1, "a lone deed is done at once");
        let long_ago = Instant::now() - COME_AGAIN;
        task.gather(&mut group, &Crowd { callers: 100, answered_at: Some(long_ago) }).await;
        assert_eq!(group.len(), 3, "what is there is taken");
    }
}
