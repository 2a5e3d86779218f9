//! Tells NAS about live sessions whose login changed: Change of Authorization or Disconnect, asked for in the store.
//!
//! In: requests (one a change of a login, or a wish of an operator) that others committed. Each is turned into orders, one
//! a live session that runs with something else than its login is to get; orders are sent at the rate a NAS bears, and
//! what the NAS said is recorded. An order is finished only by that record: after `kill -9` it is sent again, which a
//! Disconnect bears. A session that begins after its rows were written is never touched, so that whoever was disconnected
//! and came back is left alone.
//! What it never does: write AAA rows, or end a session in our books; that is the Stop's doing.

mod channel;
mod decide;
mod pace;
mod target;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::radius::DynamicRequest;
use crate::store::nas_control::{self as orders, DueOrder, KEEP, LANE_HAND, Outcome, RequestRow};
use crate::store::{Dialect, Store, StoreError, billing, exceptions};
use crate::telemetry::{Heartbeat, Metrics, Nas, NasResult};
use crate::vocabulary::{Clock, Timestamp};

use channel::{Channel, Reply};
use pace::Pace;
pub use target::{Target, Targets};

/// How often requests and orders are looked for when nobody calls.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Requests turned into orders by one transaction.
const REQUESTS_AT_ONCE: i64 = 200;
/// Orders under way to the NAS of one client; fewer than a socket has identifiers.
const UNDER_WAY: usize = 32;
/// An operator's wishes find room beside them.
const UNDER_WAY_BY_HAND: usize = 8;
/// A session whose login was checked just before the change may begin, and be known to us, only now.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// A request whose orders are under way is looked at again after this long.
const LOOK_LATER: Duration = Duration::from_secs(60);
const LOOKS: i64 = 2;
/// A client whose NAS left so many orders unanswered in a row is away: one at a time asks whether it is back.
const AWAY_AFTER: u32 = 3;
const DATABASE_PAUSE: Duration = Duration::from_secs(2);
const FORGET_EVERY: Duration = Duration::from_secs(3600);
const FORGET_AT_ONCE: i64 = 1000;
/// One daemon of several does this work, so that rates and identifiers hold.
const CLAIM: &str = "nas_control";
const CLAIM_FOR: Duration = Duration::from_secs(15);
const CLAIM_EVERY: Duration = Duration::from_secs(5);
/// Kind of the exception about a NAS that does not do what it is asked.
const EXCEPTION_KIND: &str = "nas_control";
const RELEASED_BY: &str = "nas_control";

/// What the service works with.
pub struct NasControl {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Metrics,
    pub targets: watch::Receiver<Arc<Targets>>,
    /// Called by whoever stored a request.
    pub wake: Arc<Notify>,
}

/// How the NAS of one client do.
struct Line {
    pace: Pace,
    unanswered: u32,
    /// Whether an exception about it may be open; unknown at first.
    complained: Option<bool>,
}

/// A request that may go to its NAS.
struct Sendable {
    order: DueOrder,
    channel: Arc<Channel>,
    request: DynamicRequest,
    patience: Duration,
}

/// What an attempt gave.
struct Ended {
    order: DueOrder,
    reply: Reply,
    took: Duration,
}

struct Running {
    control: NasControl,
    lines: HashMap<String, Line>,
    channels: HashMap<(String, SocketAddr), Arc<Channel>>,
    under_way: HashMap<i64, String>,
    asking: JoinSet<Ended>,
    /// Replies that wait to be recorded: the database was away.
    ended: Vec<Ended>,
    targets: Arc<Targets>,
    claimed: Option<Instant>,
    forgotten: Option<Instant>,
    database_away: bool,
}

/// Runs until `stopping` turns true; what is under way then is asked again at the next start.
pub async fn run(control: NasControl, beat: Heartbeat, mut stopping: watch::Receiver<bool>) -> Result<(), StoreError> {
    let targets = control.targets.borrow().clone();
    let mut running = Running {
        control,
        lines: HashMap::new(),
        channels: HashMap::new(),
        under_way: HashMap::new(),
        asking: JoinSet::new(),
        ended: Vec::new(),
        targets,
        claimed: None,
        forgotten: None,
        database_away: false,
    };
    while !*stopping.borrow() {
        beat.beat();
        let pause = match running.turn().await {
            Ok(()) => {
                if running.database_away {
                    running.database_away = false;
                    tracing::info!("The database answers again; requests to NAS go on.");
                }
                LOOK_EVERY
            }
            Err(error) => {
                if !running.database_away {
                    running.database_away = true;
                    tracing::warn!("Requests to NAS wait: {error}. Trying again every {DATABASE_PAUSE:?}.");
                }
                DATABASE_PAUSE
            }
        };
        tokio::select! {
            Some(ended) = running.asking.join_next() => running.take(ended),
            () = running.control.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }
    Ok(())
}

impl Running {
    async fn turn(&mut self) -> Result<(), StoreError> {
        while let Some(ended) = self.asking.try_join_next() {
            self.take(ended);
        }
        self.record().await?;
        if !self.hold().await? {
            return Ok(());
        }
        self.follow_configuration();
        self.look_for_sessions().await?;
        self.send_due().await?;
        self.forget().await
    }

    /// Whether this daemon is the one that does the work. On SQLite there is no other.
    async fn hold(&mut self) -> Result<bool, StoreError> {
        let store = &self.control.store;
        if store.dialect() == Dialect::Sqlite || self.claimed.is_some_and(|at| at.elapsed() < CLAIM_EVERY) {
            return Ok(true);
        }
        let now = self.control.clock.now();
        let until = now.checked_add(CLAIM_FOR).unwrap_or(Timestamp::MAX);
        let mut tx = store.write().await?;
        let held = billing::claim(&mut tx, CLAIM, store.owner(), until, now).await?;
        tx.commit().await?;
        self.claimed = held.then(Instant::now);
        Ok(held)
    }

    /// A reload brings other targets: sockets are opened anew, for secret or address may be others.
    fn follow_configuration(&mut self) {
        let targets = self.control.targets.borrow().clone();
        if !Arc::ptr_eq(&targets, &self.targets) {
            self.targets = targets;
            self.channels.clear();
            self.lines.clear();
        }
    }

    /// Turns due requests into orders.
    async fn look_for_sessions(&mut self) -> Result<(), StoreError> {
        let now = self.control.clock.now();
        let mut tx = self.control.store.read().await?;
        let due = orders::due_requests(&mut tx, now, REQUESTS_AT_ONCE).await?;
        drop(tx);
        if due.is_empty() {
            return Ok(());
        }
        let mut tx = orders::begin(&self.control.store).await?;
        for request in &due {
            let sessions = orders::live_sessions(&mut tx, request).await?;
            let disconnected_at = orders::disconnected_at(&mut tx, request.id).await?;
            let made = decide::orders(request, &sessions, disconnected_at, &self.targets, now);
            orders::order(&mut tx, request, &made, now).await?;
            self.end_or_look_again(&mut tx, request, now).await?;
        }
        tx.commit().await
    }

    async fn end_or_look_again(
        &self,
        tx: &mut crate::store::Tx,
        request: &RequestRow,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let by_hand = request.change.is_none();
        let last = by_hand || request.looks + 1 >= LOOKS;
        if last && orders::unfinished(tx, request.id).await? == 0 {
            return orders::finish(tx, request, now).await;
        }
        let pause = if by_hand || last { LOOK_LATER } else { LOOK_AGAIN };
        orders::looked(tx, request.id, now.checked_add(pause).unwrap_or(Timestamp::MAX), now).await
    }

    /// Sends what is due and what each NAS bears.
    async fn send_due(&mut self) -> Result<(), StoreError> {
        let now = self.control.clock.now();
        let mut tx = self.control.store.read().await?;
        let waiting = orders::waiting(&mut tx).await?;
        let mut due: Vec<DueOrder> = Vec::new();
        for (client, _) in &waiting {
            let limit = i64::try_from(2 * (UNDER_WAY + UNDER_WAY_BY_HAND)).unwrap_or(i64::MAX);
            due.extend(orders::due_orders(&mut tx, client, now, limit).await?);
        }
        drop(tx);
        self.count(&waiting);
        let mut sendable: Vec<Sendable> = Vec::new();
        for order in due {
            if self.under_way.contains_key(&order.id) || self.ended.iter().any(|ended| ended.order.id == order.id) {
                continue;
            }
            let beside = sendable.iter().filter(|other| other.order.client == order.client).count();
            sendable.extend(self.prepare(order, beside).await);
        }
        self.send(sendable, now).await?;
        self.record().await
    }

    /// Sends requests once it is written down that they go: whoever changes a login back meanwhile must know that its
    /// session may have changed. An order that was dropped since it was read is not sent.
    async fn send(&mut self, sendable: Vec<Sendable>, now: Timestamp) -> Result<(), StoreError> {
        if sendable.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = sendable.iter().map(|sendable| sendable.order.id).collect();
        let mut tx = orders::begin(&self.control.store).await?;
        let going = orders::mark_sent(&mut tx, &ids, now).await?;
        tx.commit().await?;
        for Sendable { order, channel, request, patience } in sendable {
            if !going.contains(&order.id) {
                continue;
            }
            self.under_way.insert(order.id, order.client.clone());
            self.asking.spawn(async move {
                let started = Instant::now();
                let reply = channel.ask(&request, now, patience, random()).await;
                Ended { order, reply, took: started.elapsed() }
            });
        }
        Ok(())
    }

    /// What an order is as a request, if its NAS bears one now; `beside` others of its client go in the same turn.
    async fn prepare(&mut self, order: DueOrder, beside: usize) -> Option<Sendable> {
        let done = |order, reply| Ended { order, reply, took: Duration::ZERO };
        if order.ended {
            self.ended.push(done(order, Reply::Unsendable(String::new())));
            return None;
        }
        let Some(target) = self.targets.named(&order.client).cloned() else {
            let why = format!("the configuration gives no coa for {} any more", order.client);
            self.ended.push(done(order, Reply::Unsendable(why)));
            return None;
        };
        let line = self.lines.entry(order.client.clone()).or_insert_with(|| Line {
            pace: Pace::new(target.per_second, Instant::now()),
            unanswered: 0,
            complained: None,
        });
        let busy = beside + self.under_way.values().filter(|client| **client == order.client).count();
        let by_hand = order.lane == LANE_HAND;
        let room = match (by_hand, line.unanswered >= AWAY_AFTER) {
            (true, _) => UNDER_WAY + UNDER_WAY_BY_HAND,
            (false, true) => 1,
            (false, false) => UNDER_WAY,
        };
        if busy >= room || !(by_hand || line.pace.admits(order.lane, Instant::now(), random())) {
            return None;
        }
        let (address, request) = match self.targets.request(&target, &order) {
            Ok(sendable) => sendable,
            Err(why) => {
                self.ended.push(done(order, Reply::Unsendable(why.to_string())));
                return None;
            }
        };
        let key = (order.client.clone(), address);
        let channel = match self.channels.get(&key) {
            Some(channel) => channel.clone(),
            None => match Channel::open(address, target.secret.clone()).await {
                Ok(channel) => self.channels.entry(key).or_insert(Arc::new(channel)).clone(),
                Err(error) => {
                    tracing::warn!(nas.address = %address, "No socket to NAS {}: {error}.", order.client);
                    self.ended.push(done(order, Reply::Silent { forged: false, refused: true, sent: 0 }));
                    return None;
                }
            },
        };
        Some(Sendable { order, channel, request, patience: target.patience })
    }

    fn take(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(ended) => self.ended.push(ended),
            Err(error) => tracing::error!("A request to a NAS broke off: {error}. It is sent again at the next start."),
        }
    }

    /// Writes what came of attempts; they stay in memory until that is committed.
    async fn record(&mut self) -> Result<(), StoreError> {
        if self.ended.is_empty() {
            return Ok(());
        }
        let now = self.control.clock.now();
        let mut tx = orders::begin(&self.control.store).await?;
        let mut told: Vec<(orders::Attempted, usize)> = Vec::new();
        let mut requests = HashSet::new();
        for (index, ended) in self.ended.iter().enumerate() {
            let attempted = match ended.order.ended {
                true => orders::Attempted {
                    outcome: Outcome::Ended,
                    error_cause: None,
                    detail: "the session ended by itself".to_owned(),
                    again: None,
                    sent: false,
                },
                false => decide::attempted(&ended.order, &ended.reply, now, random()),
            };
            orders::record(&mut tx, &ended.order, &attempted, now).await?;
            requests.insert(ended.order.request_id);
            told.push((attempted, index));
        }
        let complaints = self.complaints(&told);
        for (client, complaint) in &complaints {
            match complaint {
                Some(detail) => {
                    exceptions::open(&mut tx, None, EXCEPTION_KIND, client, detail, now).await?;
                }
                None => {
                    exceptions::release_subject(&mut tx, EXCEPTION_KIND, client, RELEASED_BY, now).await?;
                }
            }
        }
        tx.commit().await?;
        for (client, complaint) in complaints {
            if let Some(line) = self.lines.get_mut(&client) {
                line.complained = Some(complaint.is_some());
            }
        }
        for ((attempted, _), ended) in told.iter().zip(std::mem::take(&mut self.ended)) {
            self.under_way.remove(&ended.order.id);
            self.note(&ended, attempted);
        }
        Ok(())
    }

    /// Exceptions to open (with the sentence) or to release, by client.
    fn complaints(&self, told: &[(orders::Attempted, usize)]) -> HashMap<String, Option<String>> {
        let mut complaints = HashMap::new();
        for (attempted, index) in told {
            let order = &self.ended[*index].order;
            let complained = self.lines.get(&order.client).and_then(|line| line.complained);
            match attempted.outcome {
                Outcome::Ack | Outcome::Unknown if complained != Some(false) => {
                    complaints.insert(order.client.clone(), None);
                }
                Outcome::Nak | Outcome::Silent if attempted.again.is_none() => {
                    let detail = format!(
                        "NAS {} was asked to {} session {} of {}: {}. The session goes on as it is; ask again with \
                         `lastmile session disconnect {}`.",
                        order.nas,
                        order.action.as_str(),
                        order.session,
                        order.user_name.as_deref().unwrap_or("nobody known"),
                        attempted.detail,
                        order.session_id
                    );
                    complaints.insert(order.client.clone(), Some(detail));
                }
                _ => {}
            }
        }
        complaints
    }

    fn note(&mut self, ended: &Ended, attempted: &orders::Attempted) {
        let order = &ended.order;
        let (kind, result) = (order.action.as_str(), attempted.outcome.as_str());
        if attempted.sent {
            let labels = NasResult::new(&order.client, kind, result);
            self.control.metrics.nas_control_requests.get_or_create(&labels).inc();
            self.control.metrics.nas_control_seconds.observe(ended.took.as_secs_f64());
        }
        let Some(line) = self.lines.get_mut(&order.client) else { return };
        let was_away = line.unanswered >= AWAY_AFTER;
        match ended.reply {
            Reply::Answered(_) => line.unanswered = 0,
            Reply::Silent { .. } => line.unanswered = line.unanswered.saturating_add(1),
            Reply::Unsendable(_) => {}
        }
        let is_away = line.unanswered >= AWAY_AFTER;
        let gauge = self.control.metrics.nas_control_away.get_or_create(&Nas::new(&order.client)).clone();
        gauge.set(i64::from(is_away));
        match (was_away, is_away) {
            (false, true) => tracing::warn!(
                "NAS {} left {AWAY_AFTER} requests about sessions unanswered: {}. It is asked one at a time until it answers.",
                order.client,
                attempted.detail
            ),
            (true, false) => tracing::info!("NAS {} answers requests about sessions again.", order.client),
            _ => {}
        }
        match (attempted.outcome, attempted.again) {
            (Outcome::Nak | Outcome::Silent | Outcome::NoMeans, None) => tracing::warn!(
                session.id = order.session_id,
                "Session {} on {} was not asked with success to {kind}: {}. It goes on as it is.",
                order.session_id,
                order.nas,
                attempted.detail
            ),
            (outcome, again) => tracing::debug!(
                session.id = order.session_id,
                "{kind} of session {} on {}: {} ({}), again: {again:?}.",
                order.session_id,
                order.nas,
                outcome.as_str(),
                attempted.detail
            ),
        }
    }

    fn count(&self, waiting: &[(String, i64)]) {
        let metrics = &self.control.metrics;
        for client in self.targets.clients() {
            let orders = waiting.iter().find(|(name, _)| name == client).map_or(0, |(_, orders)| *orders);
            metrics.nas_control_waiting.get_or_create(&Nas::new(client)).set(orders);
        }
    }

    async fn forget(&mut self) -> Result<(), StoreError> {
        if self.forgotten.is_some_and(|at| at.elapsed() < FORGET_EVERY) {
            return Ok(());
        }
        if let Ok(before) = self.control.clock.now().checked_sub(KEEP) {
            let mut tx = orders::begin(&self.control.store).await?;
            orders::forget(&mut tx, before, FORGET_AT_ONCE).await?;
            tx.commit().await?;
        }
        self.forgotten = Some(Instant::now());
        Ok(())
    }
}

/// Randomness for waits; without any they merely come together.
fn random() -> u64 {
    let mut octets = [0u8; 8];
    let _ = getrandom::fill(&mut octets);
    u64::from_le_bytes(octets)
}
