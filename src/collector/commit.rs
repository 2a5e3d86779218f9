//! The committer: makes what has queued durable in one transaction, then answers exactly that set.
//!
//! In: requests in the order of their arrival. Out: journal entries, answers, a word to the fold. It answers nothing that
//! is not known to be durable: a commit that failed and one of unknown outcome look the same from outside.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::complaints::{Complaints, and_more};
use super::door::{Pending, What};
use super::feed::{Committed, Feed};
use super::port::{Peer, Port};
use super::reply::Reply;
use super::seen::{RequestKey, Seen};
use super::tally::Tally;
use super::{BEAT_EVERY, Wiring};
use crate::store::Store;
use crate::store::journal::{AppendError, JournalEntry, JournalWriter};
use crate::telemetry::{Heartbeat, Metrics};
use crate::vocabulary::Clock;

/// Owns the lane of this process.
pub struct Committer {
    store: Store,
    clock: Clock,
    metrics: Metrics,
    feed: Feed,
    ports: Vec<Arc<Port>>,
    queue: mpsc::Receiver<Pending>,
    seen: Arc<Seen>,
    complaints: Complaints,
    /// `None` until the first request, and after an error.
    writer: Option<JournalWriter>,
    /// Whether the last attempt failed, so that the recovery is told once.
    failing: bool,
}

impl Committer {
    pub fn new(wiring: &Wiring, ports: Vec<Arc<Port>>, queue: mpsc::Receiver<Pending>) -> Self {
        Self {
            store: wiring.store.clone(),
            clock: wiring.clock.clone(),
            metrics: wiring.metrics.clone(),
            feed: wiring.feed.clone(),
            ports,
            queue,
            seen: Arc::default(),
            complaints: Complaints::default(),
            writer: None,
            failing: false,
        }
    }

    pub fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }

    /// Commits batch after batch until every port has ended and the queue is empty.
    pub async fn run(mut self, beat: Heartbeat, stopping: watch::Receiver<bool>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            beat.beat();
            match timeout(BEAT_EVERY, self.queue.recv_many(&mut batch, BATCH_MAX)).await {
                Ok(0) => return,
                Ok(_) => {}
                // `recv_many` takes nothing from the queue when it is dropped.
                Err(_) => continue,
            }
            let committed = self.turn(std::mem::take(&mut batch)).await;
            if !committed && *stopping.borrow() {
                // Nothing that still waits can be made durable in the time that is left. Its NAS will send again.
                return;
            }
        }
    }

    /// One batch: write, COMMIT, answer. `false` when it was not made durable.
    async fn turn(&mut self, batch: Vec<Pending>) -> bool {
        let mut replies = Vec::with_capacity(batch.len());
        let mut keys = Vec::with_capacity(batch.len());
        let mut entries = Vec::with_capacity(batch.len());
        let mut probes = Vec::new();
        for Pending { what, reply, answer, tally } in batch {
            match what {
                What::Record { key, entry } => {
                    replies.push((reply, answer, tally));
                    keys.push(key);
                    entries.push(entry);
                }
                What::Status => probes.push((reply, answer, tally)),
            }
        }
        let started = Instant::now();
        match self.commit(&entries).await {
            Ok(place) => {
                self.note_success();
                let copies = self.seen.committed(keys.into_iter(), self.clock.now());
                if !entries.is_empty() {
                    self.metrics.journal_commit_seconds.observe(started.elapsed().as_secs_f64());
                    self.metrics.journal_batch_records.observe(entries.len() as f64);
                    self.metrics.journal_records.inc_by(entries.len() as u64);
                }
                if let Some((lane, first_seq)) = place {
                    self.feed.tell(Committed { lane, first_seq, entries });
                }
                let answers = replies.into_iter().zip(copies).map(|(reply, copies)| (reply, 1 + u32::from(copies)));
                for ((reply, answer, tally), times) in answers.chain(probes.into_iter().map(|probe| (probe, 1))) {
                    self.answer(reply, answer, &tally, times).await;
                }
                true
            }
            Err(error) if entries.len() > 1 && is_about_one_entry(&error) => {
                self.note_failure(&error, entries.len());
                self.one_by_one(replies, keys, entries).await
            }
            Err(error) => {
                self.note_failure(&error, entries.len());
                for (_, _, tally) in &replies {
                    tally.not_recorded.inc();
                }
                self.fail(keys.into_iter());
                false
            }
        }
    }

    /// Sends an answer whose record is durable. A connection gets one, its copies cannot have been lost on the way.
    async fn answer(&self, reply: Reply, answer: Vec<u8>, tally: &Tally, times: u32) {
        match reply {
            Reply::Datagram { port, peer } => {
                for _ in 0..times {
                    match self.send(port, &peer, &answer).await {
                        Ok(()) => {
                            tally.responses.inc();
                        }
                        Err(error) => self.note_unsent(peer.address, &error),
                    }
                }
            }
            Reply::Stream(seat) => {
                seat.answer(answer);
                tally.responses.inc();
            }
        }
    }

    async fn send(&self, port: usize, peer: &Peer, answer: &[u8]) -> io::Result<()> {
        // The buffer has room nearly always: a timer for each answer would cost more than the answer.
        match self.ports[port].try_answer(answer, peer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let sent = timeout(SEND_LIMIT, self.ports[port].answer(answer, peer)).await;
                sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
            sent => sent,
        }
    }

    /// The database refuses something in the batch, not the batch: each entry alone, so that one cannot fail the others.
    async fn one_by_one(
        &mut self,
        replies: Vec<(Reply, Vec<u8>, Arc<Tally>)>,
        keys: Vec<RequestKey>,
        entries: Vec<JournalEntry>,
    ) -> bool {
        let mut committed = false;
        for ((reply, key), entry) in replies.into_iter().zip(keys).zip(entries) {
            let (reply, answer, tally) = reply;
            let alone = vec![Pending { what: What::Record { key, entry }, reply, answer, tally }];
            committed |= Box::pin(self.turn(alone)).await;
        }
        committed
    }

    /// Makes the entries durable and gives lane and `seq` of the first, or with none proves that a commit succeeds.
    async fn commit(&mut self, entries: &[JournalEntry]) -> Result<Option<(i64, i64)>, AppendError> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.store.open_journal(self.clock.now()).await.map_err(AppendError::NotStored)?,
        };
        let done = timeout(COMMIT_LIMIT, async {
            if entries.is_empty() {
                writer.probe().await.map_err(AppendError::NotStored).map(|()| None)
            } else {
                let last = writer.append(entries).await?;
                Ok(Some((writer.lane(), last + 1 - entries.len() as i64)))
            }
        });
        match done.await {
            Ok(Ok(place)) => {
                self.writer = Some(writer);
                Ok(place)
            }
            Ok(Err(error)) => {
                writer.discard();
                Err(error)
            }
            Err(_) => {
                writer.discard();
                Err(AppendError::Unknown(crate::store::StoreError::Unavailable(format!(
                    "no answer within {} s",
                    COMMIT_LIMIT.as_secs()
                ))))
            }
        }
    }

    fn fail(&self, keys: impl Iterator<Item = RequestKey>) {
        self.seen.failed(keys);
    }

    fn note_failure(&mut self, error: &AppendError, records: usize) {
        self.failing = true;
        self.metrics.journal_failures.inc();
        if let Some(kept_back) = self.complaints.due("journal", "", self.clock.now()) {
            tracing::error!(
                "{records} accounting records not journalled: {error}. None is answered, the NAS keep them and send again; \
                 retrying with the next packet.{}",
                and_more(kept_back)
            );
        }
    }

    fn note_success(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("Accounting records are journalled and answered again.");
        }
    }

    fn note_unsent(&self, peer: std::net::SocketAddr, error: &io::Error) {
        if let Some(kept_back) = self.complaints.due("answer", "", self.clock.now()) {
            tracing::warn!(
                nas.address = %peer,
                "RADIUS answer to {peer} not sent: {error}. The record is durable; its NAS will ask again.{}",
                and_more(kept_back)
            );
        }
    }
}

/// Whether another batch could succeed where this one failed: the database works and refuses a row.
fn is_about_one_entry(error: &AppendError) -> bool {
    matches!(error, AppendError::NotStored(refusal) if !refusal.is_unavailable())
}

/// Records made durable by one commit (HOUSE decision 4).
const BATCH_MAX: usize = 512;
/// With the time to open a connection below the watchdog's patience for one turn.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);
const SEND_LIMIT: Duration = Duration::from_millis(200);
