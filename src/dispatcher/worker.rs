//! One outlet's worker: takes its events in order, sends as many at a time as the outlet bears, and records what became of
//! them, many to a commit.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::engine::{Ground, Way};
use crate::outgoing::{Answer, Held, Order, Verdict, judge};
use crate::store::events::Event;
use crate::store::outlets::{self, Claimed, Entry, Health, Progress};
use crate::store::{StoreError, exceptions};
use crate::telemetry::KindResult;
use crate::vocabulary::Timestamp;

/// How long an outlet is lent; each record prolongs it.
pub const LENT_FOR: Duration = Duration::from_secs(60);
/// It is prolonged after this, also when there is nothing to record.
const PROLONG_AFTER: Duration = Duration::from_secs(15);
/// With less left nothing new is begun: an attempt takes at most 15 seconds.
const LEFT_LEAST: Duration = Duration::from_secs(25);
/// Events of an outlet in memory.
const WINDOW: usize = 512;
/// Events that wait in an outlet's list. With more no new ones are taken: they wait in the tenant's own sequence.
pub const WAITING_MAX: i64 = 1000;
/// So many are recorded at once, or what there is after a moment.
const RECORD_AT: usize = 200;
const RECORD_AFTER: Duration = Duration::from_millis(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A worker with nothing to do ends after this.
const IDLE_FOR: Duration = Duration::from_secs(10);
const DATABASE_PAUSE: Duration = Duration::from_secs(1);
/// A receiver that failed so often in a row was away; once it takes something, everything that waits is due.
const AWAY_AFTER: i64 = 3;
/// Kind of the exception about an outlet that a person must look at.
const EXCEPTION_KIND: &str = "outlet";
const RELEASED_BY: &str = "dispatcher";

/// What an attempt gave.
struct Ended {
    held: Held<Event>,
    answer: Answer,
}

/// What is not recorded yet.
#[derive(Default)]
struct Unrecorded {
    entries: BTreeMap<i64, Entry>,
    released: BTreeSet<String>,
    done: Vec<i64>,
    revived: bool,
    /// For a person.
    complaint: Option<String>,
    recovered: bool,
}

pub struct Worker {
    ground: Ground,
    way: Arc<Way>,
    claimed: Claimed,
    order: Order<Event>,
    /// Events beyond the position that stand in the list already.
    listed: HashSet<i64>,
    flight: JoinSet<Ended>,
    unrecorded: Unrecorded,
    health: Health,
    recorded_at: Instant,
    lent_at: Instant,
    looked_at: Option<Instant>,
    busy_at: Instant,
}

/// Why a worker goes on or ends.
#[derive(PartialEq, Eq)]
enum Turn {
    Go,
    End,
}

impl Worker {
    /// Reads where the outlet is.
    pub async fn new(ground: Ground, way: Way, claimed: Claimed) -> Result<Self, StoreError> {
        let now = ground.clock.now();
        let row = &claimed.row;
        let mut tx = ground.store.write().await?;
        let unclear = outlets::unclear(&mut tx, &row.id, now).await?;
        if unclear > 0 {
            let detail = format!(
                "{unclear} messages of outlet {} may have been sent when the daemon ended and are not sent again by \
                 themselves; see `lastmile webhook deliveries {} --state dead`.",
                row.id, row.id
            );
            exceptions::open(&mut tx, Some(&row.tenant), EXCEPTION_KIND, &row.id, &detail, now).await?;
        }
        tx.commit().await?;
        let mut tx = ground.store.read().await?;
        let blocked = outlets::blocked(&mut tx, &row.id).await?;
        let listed = outlets::listed_after(&mut tx, &row.id, row.position).await?;
        let health = Health {
            failures: row.failures,
            failing_since: row.failing_since,
            slow_until: row.slow_until,
            delivered: 0,
            last_delivered_at: None,
            disabled: None,
        };
        Ok(Self {
            order: Order::new(row.position, blocked),
            listed: listed.into_iter().collect(),
            flight: JoinSet::new(),
            unrecorded: Unrecorded::default(),
            health,
            recorded_at: Instant::now(),
            lent_at: Instant::now(),
            looked_at: None,
            busy_at: Instant::now(),
            way: Arc::new(way),
            ground,
            claimed,
        })
    }

    /// Works until there is nothing to do, the outlet must rest, or the daemon stops.
    pub async fn work(mut self, mut stopping: watch::Receiver<bool>) {
        loop {
            let ending = *stopping.borrow();
            match self.turn(ending).await {
                Ok(Turn::Go) => {}
                Ok(Turn::End) => return,
                Err(error) if self.lent_at.elapsed() < LENT_FOR => {
                    tracing::debug!("Outlet {}: {error}. Trying again.", self.claimed.row.id);
                    tokio::time::sleep(DATABASE_PAUSE).await;
                    continue;
                }
                // Whatever was not recorded is sent again by whoever works for the outlet next.
                Err(_) => return,
            }
            let pause = if self.unrecorded.done.is_empty() { LOOK_EVERY } else { RECORD_AFTER };
            tokio::select! {
                Some(ended) = self.flight.join_next() => self.take(ended),
                () = tokio::time::sleep(pause) => {}
                _ = stopping.wait_for(|stop| *stop), if !ending => {}
            }
            while let Some(ended) = self.flight.try_join_next() {
                self.take(ended);
            }
        }
    }

    async fn turn(&mut self, stopping: bool) -> Result<Turn, StoreError> {
        let unrecorded = self.unrecorded.done.len();
        let due = unrecorded >= RECORD_AT || self.recorded_at.elapsed() >= RECORD_AFTER || self.flight.is_empty();
        let prolong = self.lent_at.elapsed() >= PROLONG_AFTER;
        if (unrecorded > 0 && due) || prolong {
            if !self.record().await? {
                return Ok(Turn::End);
            }
            self.busy_at = if unrecorded > 0 { Instant::now() } else { self.busy_at };
        }
        let now = self.ground.clock.now();
        let resting = stopping || self.health.disabled.is_some() || now < self.health.slow_until;
        if !resting {
            self.refill(now).await?;
            self.begin().await?;
        }
        let nothing = self.flight.is_empty() && self.unrecorded.done.is_empty();
        let idle = self.order.is_empty() && self.busy_at.elapsed() >= IDLE_FOR;
        if nothing && (resting || idle) {
            let mut tx = self.ground.store.write().await?;
            outlets::release(&mut tx, &self.claimed.row.id, self.claimed.epoch).await?;
            tx.commit().await?;
            return Ok(Turn::End);
        }
        Ok(Turn::Go)
    }

    /// Reads what is due and what is new, as far as there is room.
    async fn refill(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self.order.len() > WINDOW / 2 || self.looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        let Claimed { row, .. } = &self.claimed;
        let limit = i64::try_from(WINDOW).unwrap_or(i64::MAX);
        let mut tx = self.ground.store.read().await?;
        if !outlets::is_lent(&mut tx, &self.claimed).await? {
            // Somebody changed it, or another daemon has it: nothing more is begun.
            self.lent_at = Instant::now().checked_sub(LENT_FOR).unwrap_or(self.lent_at);
            return Ok(());
        }
        let due = outlets::due(&mut tx, row, now, limit).await?;
        let waiting = outlets::count_waiting(&mut tx, &row.id).await?;
        let new = match waiting < WAITING_MAX {
            true => outlets::fetch(&mut tx, &row.tenant, self.order.read(), limit).await?,
            false => Vec::new(),
        };
        tx.rollback().await?;
        // With a whole page there is more.
        let more = new.len() >= WINDOW;
        self.looked_at = (!more).then(Instant::now);
        for due in due {
            let (sequence, subject) = (due.event.sequence, due.event.subject.clone());
            self.order.take_listed(sequence, &subject, due.attempts, due.event);
        }
        for event in new {
            if self.listed.contains(&event.sequence) || !self.wants(&event) {
                self.order.pass(event.sequence);
                continue;
            }
            let (sequence, subject) = (event.sequence, event.subject.clone());
            if let Some(behind) = self.order.take(sequence, &subject, event) {
                self.list_behind(behind);
            }
        }
        // Events that are none of ours move the position, too.
        if self.order.position() > self.claimed.row.position && self.order.is_empty() {
            self.record().await?;
        }
        Ok(())
    }

    fn wants(&self, event: &Event) -> bool {
        let row = &self.claimed.row;
        match event.kind.as_str() {
            TEST => event.subject == row.id,
            kind => row.types.is_empty() || row.types.iter().any(|wanted| wanted == kind),
        }
    }

    /// Begins as many attempts as the outlet bears.
    async fn begin(&mut self) -> Result<(), StoreError> {
        while self.flight.len() < self.way.at_once()
            && self.unrecorded.done.len() < WINDOW
            && self.lent_at.elapsed() + LEFT_LEAST < LENT_FOR
        {
            let Some(held) = self.order.pop() else { break };
            let now = self.ground.clock.now();
            if self.way.only_once() {
                let entry = entry(&held, "sending", held.attempts + 1);
                let mut tx = self.ground.store.write().await?;
                if !outlets::mark_sending(&mut tx, &self.claimed, &entry, now).await? {
                    self.lent_at = Instant::now().checked_sub(LENT_FOR).unwrap_or(self.lent_at);
                    return Ok(());
                }
                tx.commit().await?;
            }
            let (way, ground) = (self.way.clone(), self.ground.clone());
            self.flight.spawn(async move {
                let answer = way.send(&held.what, &ground).await;
                Ended { held, answer }
            });
        }
        Ok(())
    }

    fn take(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(ended) => self.settle(ended),
            // Its event stays in memory unsettled; the claim ends with the worker and it is sent again.
            Err(error) => tracing::error!("A delivery broke off: {error}. It is made again."),
        }
    }

    /// Decides what follows from an attempt.
    fn settle(&mut self, ended: Ended) {
        let now = self.ground.clock.now();
        let Ended { held, answer } = ended;
        let attempts = held.attempts + 1;
        let verdict = judge(&answer, attempts, self.health.failures, now, random());
        let (status, detail) = told(&answer);
        let mut entry = Entry { status, detail, ..entry(&held, "pending", attempts) };
        let result = match &verdict {
            Verdict::Delivered => {
                self.unrecorded.revived |= self.health.failures >= AWAY_AFTER;
                self.recover();
                self.health.delivered += 1;
                self.health.last_delivered_at = Some(now);
                if held.listed || self.way.only_once() {
                    (entry.state, entry.detail) = ("delivered", None);
                    self.unrecorded.entries.insert(held.sequence, entry);
                }
                self.go_on(&held);
                "delivered"
            }
            Verdict::Again { at, pause } => {
                self.fail(now, *pause);
                self.warn(&held, attempts, &format!("Sending again at {at:.0}."), &entry);
                entry.next_at = Some(*at);
                self.unrecorded.entries.insert(held.sequence, entry);
                self.hold_back(&held);
                "failed"
            }
            Verdict::Dead => {
                self.fail(now, None);
                self.complain(&held, attempts, &entry);
                entry.state = "dead";
                self.unrecorded.entries.insert(held.sequence, entry);
                self.go_on(&held);
                "dead"
            }
            Verdict::Gone => {
                self.fail(now, None);
                let row = &self.claimed.row;
                let because = "the receiver answered 410 Gone".to_owned();
                let complaint = format!(
                    "Webhook {} of {} ({}) is disabled: {because}. Events wait; enable it again with PATCH when it is back.",
                    row.id,
                    row.tenant,
                    self.way.place()
                );
                tracing::error!("{complaint}");
                self.unrecorded.complaint = Some(complaint);
                self.health.disabled = Some(because);
                entry.next_at = Some(now);
                self.unrecorded.entries.insert(held.sequence, entry);
                self.hold_back(&held);
                "gone"
            }
        };
        let labels = KindResult::new(self.claimed.row.kind.as_str(), result);
        self.ground.metrics.outlet_deliveries.get_or_create(&labels).inc();
        self.order.settled(held.sequence);
        self.unrecorded.done.push(held.sequence);
    }

    /// The next event of the subject may go.
    fn go_on(&mut self, held: &Held<Event>) {
        self.order.ended(&held.subject);
        if held.listed {
            self.unrecorded.released.insert(held.subject.to_string());
        }
    }

    /// The event goes to the list, and what is behind it in memory, too.
    fn hold_back(&mut self, held: &Held<Event>) {
        for behind in self.order.failed(&held.subject) {
            self.list_behind(behind);
        }
    }

    fn list_behind(&mut self, behind: Held<Event>) {
        self.order.settled(behind.sequence);
        self.unrecorded.done.push(behind.sequence);
        self.unrecorded.entries.insert(behind.sequence, entry(&behind, "pending", behind.attempts));
    }

    fn fail(&mut self, now: Timestamp, pause: Option<Timestamp>) {
        self.health.failures += 1;
        self.health.failing_since.get_or_insert(now);
        if let Some(until) = pause {
            self.health.slow_until = self.health.slow_until.max(until);
        }
    }

    fn recover(&mut self) {
        if let Some(since) = self.health.failing_since.take() {
            let row = &self.claimed.row;
            self.unrecorded.recovered = true;
            if self.health.failures >= AWAY_AFTER {
                tracing::info!(
                    "{} {} of {} ({}) takes events again; it had failed {} times since {since:.0}.",
                    row.kind.title(),
                    row.id,
                    row.tenant,
                    self.way.place(),
                    self.health.failures
                );
            }
        }
        self.health.failures = 0;
    }

    /// Once for a row of failures: what fails is counted, and told again when it is given up.
    fn warn(&self, held: &Held<Event>, attempts: i64, next: &str, entry: &Entry) {
        if self.health.failures == 1 {
            let row = &self.claimed.row;
            tracing::warn!(
                "{} {} of {} ({}) did not take {} ({}): {}, attempt {attempts}. {next}",
                row.kind.title(),
                row.id,
                row.tenant,
                self.way.place(),
                held.what.id(),
                held.what.kind,
                entry.detail.as_deref().unwrap_or("no answer")
            );
        }
    }

    fn complain(&mut self, held: &Held<Event>, attempts: i64, entry: &Entry) {
        let row = &self.claimed.row;
        let complaint = format!(
            "{} {} of {} ({}) did not take {} ({}) in {attempts} attempts: {}. It is given up; send it again with `lastmile \
             webhook replay {} --event {}`.",
            row.kind.title(),
            row.id,
            row.tenant,
            self.way.place(),
            held.what.id(),
            held.what.kind,
            entry.detail.as_deref().unwrap_or("no answer"),
            row.id,
            held.sequence
        );
        tracing::error!("{complaint}");
        self.unrecorded.complaint = Some(complaint);
    }

    /// Writes what became of events, and prolongs the claim. `false`: the outlet is no longer ours; what was sent and not
    /// recorded is sent again by whoever has it.
    async fn record(&mut self) -> Result<bool, StoreError> {
        let now = self.ground.clock.now();
        let began = Instant::now();
        let until = now.checked_add(LENT_FOR).unwrap_or(Timestamp::MAX);
        let entries: Vec<Entry> = self.unrecorded.entries.values().cloned().collect();
        let released: Vec<String> = self.unrecorded.released.iter().cloned().collect();
        let position = self.order.position();
        let progress = Progress {
            position,
            entries: &entries,
            released: &released,
            revived: self.unrecorded.revived,
            health: &self.health,
        };
        let row = &self.claimed.row;
        let mut tx = self.ground.store.write().await?;
        let Some(still) = outlets::record(&mut tx, &self.claimed, &progress, until, now).await? else {
            return Ok(false);
        };
        match &self.unrecorded.complaint {
            Some(detail) => {
                exceptions::open(&mut tx, Some(&row.tenant), EXCEPTION_KIND, &row.id, detail, now).await?;
            }
            None if self.unrecorded.recovered => {
                exceptions::release_subject(&mut tx, EXCEPTION_KIND, &row.id, RELEASED_BY, now).await?;
            }
            None => {}
        }
        tx.commit().await?;
        let Unrecorded { done, released, revived, .. } = std::mem::take(&mut self.unrecorded);
        self.order.recorded(done);
        for subject in released.iter().filter(|subject| !still.contains(subject)) {
            self.order.free(subject);
        }
        (self.lent_at, self.recorded_at) = (began, Instant::now());
        self.claimed.row.position = position;
        self.health.delivered = 0;
        // What was released is due now.
        if !still.is_empty() || revived {
            self.looked_at = None;
        }
        Ok(true)
    }
}

/// The type of the event that only the outlet it names is told.
pub const TEST: &str = "webhook.test";

fn entry(held: &Held<Event>, state: &'static str, attempts: i64) -> Entry {
    Entry {
        sequence: held.sequence,
        subject: held.subject.to_string(),
        state,
        attempts,
        next_at: None,
        status: None,
        detail: None,
    }
}

/// The status and a sentence for a person.
fn told(answer: &Answer) -> (Option<u16>, Option<String>) {
    match answer {
        Answer::Taken => (None, None),
        Answer::Status { code, .. } if (300..400).contains(code) => {
            (Some(*code), Some(format!("HTTP {code}: a redirect, which is not followed")))
        }
        Answer::Status { code, .. } => (Some(*code), Some(format!("HTTP {code}"))),
        Answer::Failed(why) | Answer::Refused(why) => (None, Some(why.clone())),
    }
}

/// From 0 to 1. Without randomness all pauses are the shortest.
fn random() -> f64 {
    let mut octets = [0u8; 4];
    match getrandom::fill(&mut octets) {
        Ok(()) => f64::from(u32::from_le_bytes(octets)) / f64::from(u32::MAX),
        Err(_) => 0.0,
    }
}
