//! Finds outlets with something to do, claims them and gives each a worker; tells how far behind they are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use super::client::Client;
use super::files::Export;
use super::notify::{Notify, Teller, Whom};
use super::webhook::Webhook;
use super::worker::{LENT_FOR, Worker};
use crate::outgoing::Answer;
use crate::store::events::{Event, EventType};
use crate::store::outlets::{self, NewOutlet, OutletKind, OutletRow, Shape};
use crate::store::{Store, StoreError, catalog};
use crate::telemetry::{Heartbeat, Kind, Metrics};
use crate::vocabulary::{Clock, Timestamp};

/// What the service works with.
#[derive(Clone)]
pub struct Dispatcher {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Metrics,
    pub client: Client,
    /// Requests under way to one webhook.
    pub at_once: usize,
    pub exports: Vec<Arc<Export>>,
    pub notify: Option<Arc<Notify>>,
}

/// What workers share.
pub(super) type Ground = Dispatcher;

/// How an outlet's events leave.
pub(super) enum Way {
    Webhook { webhook: Webhook, at_once: usize },
    File(Arc<Export>),
    People(Teller),
}

const LOOK_EVERY: Duration = Duration::from_millis(200);
const DATABASE_PAUSE: Duration = Duration::from_secs(2);
/// Outlets that are worked for at a time. One whose receiver hangs rests after each failure and makes room.
const WORKERS_MAX: usize = 256;
/// Mails under way for one tenant.
const PEOPLE_AT_ONCE: usize = 4;
/// An outlet that cannot be worked for is looked at again after this.
const UNFIT_FOR: Duration = Duration::from_secs(60);
/// A tenant may come with a catalog at any time.
const DECLARE_EVERY: Duration = Duration::from_secs(10);
const MEASURE_EVERY: Duration = Duration::from_secs(5);
const FORGET_EVERY: Duration = Duration::from_secs(600);
const FORGET_AT_ONCE: i64 = 5000;
/// What was delivered late or given up is kept this long.
const KEPT_DAYS: i64 = 30;

impl Way {
    /// Whether an attempt must not be made again when it is not known how it ended.
    pub fn only_once(&self) -> bool {
        match self {
            // A file is put into its place once, however often it is tried.
            Way::Webhook { .. } | Way::File(_) => false,
            Way::People(_) => true,
        }
    }

    /// Attempts under way at a time.
    pub fn at_once(&self) -> usize {
        match self {
            Way::Webhook { at_once, .. } => *at_once,
            Way::File(_) => 1,
            Way::People(_) => PEOPLE_AT_ONCE,
        }
    }

    /// Where it leads, for the log.
    pub fn place(&self) -> &str {
        match self {
            Way::Webhook { webhook, .. } => &webhook.host,
            Way::File(export) => export.directory.to_str().unwrap_or_default(),
            Way::People(teller) => teller.place(),
        }
    }

    pub async fn send(&self, event: &Event, ground: &Ground) -> Answer {
        match self {
            Way::Webhook { webhook, .. } => webhook.send(event, ground.clock.now()).await,
            Way::File(export) => export.send(event, &ground.store, ground.clock.now()).await,
            Way::People(teller) => teller.send(event, &ground.store, ground.clock.now()).await,
        }
    }
}

struct Running {
    dispatcher: Dispatcher,
    workers: JoinSet<()>,
    names: HashMap<Id, String>,
    unfit: HashMap<String, Instant>,
    /// Unfit ones that the log was told of.
    complained: HashSet<String>,
    stopping: watch::Receiver<bool>,
    declared: Option<Instant>,
    measured: Option<Instant>,
    forgotten: Option<Instant>,
    database_away: bool,
}

/// Runs until `stopping` turns true; what is under way then is recorded if it ends soon, and sent again at the next start
/// otherwise.
pub async fn run(dispatcher: Dispatcher, beat: Heartbeat, stopping: watch::Receiver<bool>) -> Result<(), StoreError> {
    let mut running = Running {
        dispatcher,
        workers: JoinSet::new(),
        names: HashMap::new(),
        unfit: HashMap::new(),
        complained: HashSet::new(),
        stopping: stopping.clone(),
        declared: None,
        measured: None,
        forgotten: None,
        database_away: false,
    };
    let mut stopping = stopping;
    while !*stopping.borrow() {
        beat.beat();
        let pause = match running.turn().await {
            Ok(()) => {
                if running.database_away {
                    running.database_away = false;
                    tracing::info!("The database answers again; deliveries of events go on.");
                }
                LOOK_EVERY
            }
            Err(error) => {
                if !running.database_away {
                    running.database_away = true;
                    tracing::warn!("Deliveries of events wait: {error}. Trying again every {DATABASE_PAUSE:?}.");
                }
                DATABASE_PAUSE
            }
        };
        tokio::select! {
            Some(ended) = running.workers.join_next_with_id() => running.ended(ended),
            () = tokio::time::sleep(pause) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }
    while running.workers.join_next().await.is_some() {}
    Ok(())
}

impl Running {
    async fn turn(&mut self) -> Result<(), StoreError> {
        while let Some(ended) = self.workers.try_join_next_with_id() {
            self.ended(ended);
        }
        self.unfit.retain(|_, at| at.elapsed() < UNFIT_FOR);
        let Dispatcher { store, clock, .. } = &self.dispatcher;
        let limit = i64::try_from(2 * WORKERS_MAX).unwrap_or(i64::MAX);
        let found = outlets::with_work(&mut store.read().await?, store.owner(), clock.now(), limit).await?;
        for id in found {
            let room = self.names.len() < WORKERS_MAX;
            if room && !self.unfit.contains_key(&id) && !self.names.values().any(|known| *known == id) {
                self.begin(id).await?;
            }
        }
        self.declare().await?;
        self.measure().await?;
        self.forget().await
    }

    /// Makes the outlets that the configuration describes, once their tenant is there.
    async fn declare(&mut self) -> Result<(), StoreError> {
        if self.declared.is_some_and(|at| at.elapsed() < DECLARE_EVERY) {
            return Ok(());
        }
        let Dispatcher { store, clock, exports, notify, .. } = &self.dispatcher;
        let now = clock.now();
        if let Some(notify) = notify {
            let mut tx = store.write().await?;
            for tenant in catalog::tenants(&mut tx).await? {
                for whom in Whom::ALL {
                    let Some(types) = notify.types(whom) else { continue };
                    let id = whom.id(&tenant);
                    let new = NewOutlet {
                        id: &id,
                        tenant: &tenant,
                        kind: whom.kind(),
                        shape: Shape::Standard,
                        url: "",
                        types,
                        description: "[notify]",
                        secret: None,
                    };
                    outlets::insert(&mut tx, &new, now).await?;
                    outlets::retype(&mut tx, &id, types).await?;
                }
            }
            tx.commit().await?;
        }
        if !exports.is_empty() {
            let mut tx = store.write().await?;
            for export in exports {
                let (id, types) = (export.id(), [EventType::InvoiceBatchClosed.as_str().to_owned()]);
                let description = format!("[out.{}] of {}", export.out, export.profile.name);
                let new = NewOutlet {
                    id: &id,
                    tenant: &export.tenant,
                    kind: OutletKind::File,
                    shape: Shape::Standard,
                    url: export.directory.to_str().unwrap_or_default(),
                    types: &types,
                    description: &description,
                    secret: None,
                };
                outlets::insert(&mut tx, &new, now).await?;
            }
            tx.commit().await?;
        }
        self.declared = Some(Instant::now());
        Ok(())
    }

    async fn begin(&mut self, id: String) -> Result<(), StoreError> {
        let Dispatcher { store, clock, .. } = &self.dispatcher;
        let now = clock.now();
        let until = now.checked_add(LENT_FOR).unwrap_or(Timestamp::MAX);
        let mut tx = store.write().await?;
        let claimed = outlets::claim(&mut tx, &id, store.owner(), until, now).await?;
        tx.commit().await?;
        let Some(claimed) = claimed else { return Ok(()) };
        match self.way(&claimed.row, now) {
            Ok(way) => {
                let worker = Worker::new(self.dispatcher.clone(), way, claimed).await?;
                self.complained.remove(&id);
                let task = self.workers.spawn(worker.work(self.stopping.clone()));
                self.names.insert(task.id(), id);
            }
            Err(why) => {
                let row = &claimed.row;
                if self.complained.insert(id.clone()) {
                    tracing::error!(
                        "{} {} of {} cannot be used: {why}. It is looked at again every {UNFIT_FOR:?}.",
                        row.kind.title(),
                        row.id,
                        row.tenant
                    );
                }
                self.unfit.insert(id, Instant::now());
            }
        }
        Ok(())
    }

    fn way(&self, row: &OutletRow, now: Timestamp) -> Result<Way, String> {
        let Dispatcher { store, client, at_once, .. } = &self.dispatcher;
        match row.kind {
            OutletKind::Webhook => {
                let webhook = Webhook::new(row, store.sealer(), client.clone(), now)?;
                Ok(Way::Webhook { webhook, at_once: *at_once })
            }
            OutletKind::File => match self.dispatcher.exports.iter().find(|export| export.id() == row.id) {
                Some(export) => Ok(Way::File(export.clone())),
                None => Err("the configuration does not describe it any more".to_owned()),
            },
            OutletKind::Mail | OutletKind::Sms => {
                let notify = self.dispatcher.notify.as_ref();
                let whom = Whom::ALL.into_iter().find(|whom| whom.id(&row.tenant) == row.id);
                let wanted = notify.zip(whom).filter(|(notify, whom)| notify.types(*whom).is_some());
                let (notify, whom) =
                    wanted.ok_or_else(|| "the configuration does not describe it any more".to_owned())?;
                Ok(Way::People(Teller::new(notify.clone(), whom, client)))
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.names.remove(&id);
    }

    async fn measure(&mut self) -> Result<(), StoreError> {
        if self.measured.is_some_and(|at| at.elapsed() < MEASURE_EVERY) {
            return Ok(());
        }
        self.measured = Some(Instant::now());
        let Dispatcher { store, clock, metrics, .. } = &self.dispatcher;
        let now = clock.now();
        for lag in outlets::lag(&mut store.read().await?).await? {
            let kind = Kind::new(lag.kind);
            let age = lag.oldest.map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0));
            metrics.outlet_lag_seconds.get_or_create(&kind).set(age);
            metrics.outlet_waiting.get_or_create(&kind).set(lag.waiting);
        }
        Ok(())
    }

    async fn forget(&mut self) -> Result<(), StoreError> {
        if self.forgotten.is_some_and(|at| at.elapsed() < FORGET_EVERY) {
            return Ok(());
        }
        self.forgotten = Some(Instant::now());
        let Dispatcher { store, clock, .. } = &self.dispatcher;
        let before = clock.now().checked_sub(jiff::SignedDuration::from_hours(24 * KEPT_DAYS));
        let mut tx = store.write().await?;
        outlets::forget(&mut tx, before.unwrap_or(Timestamp::MIN), FORGET_AT_ONCE).await?;
        tx.commit().await
    }
}
