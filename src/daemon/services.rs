//! Starts each service the configuration names and keeps the handles a reload swaps values through.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};

use super::config::Config;
use super::parts::Parts;
use crate::biller::{self, AutoClose, BillerError};
use crate::collector::fold::Fold;
use crate::collector::keeper::{Keeper, Keeping};
use crate::collector::{self, NasClient, NasTable, RadSecSettings, Ready};
use crate::intake::billing::BillRefusal;
use crate::intake::{self, Intake, IntakeError, Settings};
use crate::provisioner::cmts::{Cmts, CmtsTable};
use crate::provisioner::device::{DeviceSettings, Devices};
use crate::provisioner::modem::ModemSettings;
use crate::provisioner::plant::{Plant, PlantSettings};
use crate::provisioner::{Aaa, Backends, Engine, follow, snapshot, tftp};
use crate::store::foreign::aaa::AaaDatabase;
use crate::store::foreign::mail::MailDatabase;
use crate::store::rating::RatingError;
use crate::store::{Store, StoreError};
use crate::telemetry::{Heartbeats, Metrics, Outcome};
use crate::tls::TlsFault;
use crate::vocabulary::{Clock, Secret};

/// What every service is built from.
#[derive(Clone)]
pub struct Ground {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Metrics,
    pub hearts: Heartbeats,
    /// Wakes the provisioner: notified by whoever stored a job.
    pub jobs: Arc<Notify>,
}

/// HTTP: account pushes, queries, health and metrics.
///
/// **Errors**: an unfit TLS file.
pub fn start_intake(
    ground: &Ground,
    config: &Config,
    listener: TcpListener,
    parts: &mut Parts,
) -> Result<Settings, IntakeError> {
    let Ground { store, clock, metrics, hearts, jobs } = ground.clone();
    let options = intake_options(config);
    let intake = Intake::new(&options, store.clone(), clock.clone(), metrics.clone(), &jobs, &hearts)?
        .with_biller(lent_biller(store, clock, metrics));
    let settings = intake.settings();
    parts.spawn("HTTP", intake.serve(listener, parts.stopping()));
    Ok(settings)
}

/// The biller as HTTP sees it: services never import one another, so the daemon stands between.
fn lent_biller(store: Store, clock: Clock, metrics: Metrics) -> intake::billing::Biller {
    intake::billing::Biller::new(move |order| {
        let (store, clock, metrics) = (store.clone(), clock.clone(), metrics.clone());
        Box::pin(async move {
            let intake::billing::BillOrder { tenant, cycle, period, dry_run } = order;
            let order = biller::Order { tenant, cycle, period, dry_run };
            let mut lines = biller::Kept::default();
            let report = biller::close_period(&store, &clock, &order, &mut lines).await;
            let outcome = if report.is_ok() { "closed" } else { "failed" };
            if !dry_run {
                metrics.bill_runs.get_or_create(&Outcome::new(outcome)).inc();
                metrics.bill_lines.inc_by(u64::try_from(lines.0.len()).unwrap_or(0));
            }
            let report = report.map_err(refusal)?;
            Ok(
                json!({ "id": report.batch, "batch": report.batch, "period": report.period, "lines": lines.0, "totals": report.totals }),
            )
        })
    })
}

fn refusal(error: BillerError) -> BillRefusal {
    match error {
        BillerError::Store(error) | BillerError::Rating(RatingError::Store(error)) => BillRefusal::Store(error),
        BillerError::Rating(RatingError::NoTenant(_) | RatingError::NoCycle { .. }) => BillRefusal::NotFound,
        BillerError::Rating(error) => BillRefusal::Period(format!("{error}.")),
        error @ (BillerError::Running(_) | BillerError::Busy(_)) => BillRefusal::Conflict(format!("{error}.")),
    }
}

/// What HTTP is told besides its address.
pub fn intake_options(config: &Config) -> intake::Options {
    let limit = config.api.rate_limit;
    let rate_limit = limit.map(|limit| intake::RateLimit { per_second: limit.per_second, burst: limit.burst });
    intake::Options { tls: config.api.tls.clone(), rate_limit }
}

/// Swaps who may send accounting, for the collector and the fold at once, and what new RadSec connections meet.
pub struct NasSwitch {
    table: watch::Sender<Arc<NasTable>>,
    radsec: Option<watch::Sender<Arc<Ready>>>,
}

impl NasSwitch {
    /// **Errors**: an unfit certificate file; RadSec keeps the old ones, everything else is swapped.
    pub fn swap(&self, config: &Config) -> Result<(), TlsFault> {
        self.table.send_replace(Arc::new(nas_table(config)));
        if let (Some(running), Some(settings)) = (&self.radsec, radsec_settings(config)) {
            running.send_replace(Arc::new(settings.ready()?));
        }
        Ok(())
    }
}

/// What the configuration says about RadSec, when it is on.
pub fn radsec_settings(config: &Config) -> Option<RadSecSettings> {
    config.radius.as_ref()?.radsec.as_ref().map(|radsec| radsec.settings.clone())
}

/// The RADIUS ports, the fold behind them, and the keeper of the journal behind that.
///
/// **Errors**: an unfit certificate file of RadSec.
pub fn start_collector(
    ground: &Ground,
    config: &Config,
    accounting: Vec<UdpSocket>,
    listeners: Vec<tokio::net::TcpListener>,
    parts: &mut Parts,
) -> Result<NasSwitch, TlsFault> {
    let radsec = match radsec_settings(config) {
        Some(settings) => Some(watch::channel(Arc::new(settings.ready()?))),
        None => None,
    };
    let (radsec, settings) = radsec.unzip();
    let sockets = collector::Sockets { accounting, radsec: settings.map(|settings| (listeners, settings)) };
    let (table, nas) = watch::channel(Arc::new(nas_table(config)));
    let (feed, fed) = collector::Feed::new();
    let fold = Fold::new(
        ground.store.clone(),
        ground.clock.clone(),
        fed,
        nas.clone(),
        ground.metrics.clone(),
        ground.hearts.register("fold"),
    );
    parts.spawn("fold", fold.run(parts.stopping()));
    if let Some(radius) = &config.radius {
        let keeper = Keeper {
            store: ground.store.clone(),
            clock: ground.clock.clone(),
            keeping: Keeping { keep_days: radius.keep_days, archive: radius.archive.clone() },
            metrics: ground.metrics.clone(),
            beat: ground.hearts.register("journal keeper"),
        };
        parts.spawn_dropped("journal keeper", keeper.run());
    }
    let wiring = collector::Wiring {
        store: ground.store.clone(),
        clock: ground.clock.clone(),
        metrics: ground.metrics.clone(),
        nas,
        feed,
        hearts: ground.hearts.clone(),
        stopping: parts.stopping(),
    };
    parts.spawn("RADIUS accounting", collector::run(sockets, wiring));
    Ok(NasSwitch { table, radsec })
}

/// The configured RADIUS clients, ready to be looked up.
pub fn nas_table(config: &Config) -> NasTable {
    let clients = config.radius.iter().flat_map(|radius| &radius.nas).map(|nas| NasClient {
        name: nas.name.as_str().into(),
        network: nas.address,
        secret: nas.secret.clone(),
        previous_secret: nas.previous_secret.clone(),
        certificates: nas.certificates.clone(),
        message_authenticator: nas.message_authenticator,
        profile: Arc::clone(&nas.profile),
        identity: nas.identity,
        max_rate: nas.max_rate,
        interim_seconds: nas.interim_seconds,
        tenants: nas.tenants.clone(),
    });
    NasTable::new(clients.collect())
}

/// The cable plant from its snapshot, followed in the store and served by TFTP.
pub fn start_tftp(ground: &Ground, config: &Config, socket: UdpSocket, parts: &mut Parts) -> Plant {
    for cmts in config.cmts.iter().filter(|cmts| cmts.tftp_source_check) {
        tracing::warn!(
            "[[cmts]] {}: tftp_source_check needs the modems' leases, which this version does not read; a file is served to any address that knows its name.",
            cmts.name
        );
    }
    let snapshot = snapshot_file(config, &ground.store);
    let plant = Plant::open(ground.store.sealer().clone(), plant_settings(config), Some(snapshot));
    let server = tftp::TftpServer {
        plant: plant.clone(),
        store: ground.store.clone(),
        metrics: ground.metrics.clone(),
        clock: ground.clock.clone(),
    };
    let changes = follow::changes(plant.clone(), ground.store.clone(), ground.hearts.register("modem changes"));
    let beat = ground.hearts.register("modem fetches");
    let fetches = follow::fetches(plant.clone(), ground.store.clone(), beat, parts.stopping());
    parts.spawn_dropped("TFTP", server.serve(socket, ground.hearts.register("TFTP")));
    parts.spawn_dropped("modem changes", changes);
    parts.spawn("modem fetches", fetches);
    plant
}

/// How devices are reached.
pub fn device_settings(config: &Config) -> DeviceSettings {
    DeviceSettings {
        modems: config.snmp.as_ref().and_then(|snmp| snmp.modems.clone()),
        lines: config.reset.line_status.clone(),
        voice_any: config.reset.voice_any,
        window: config.reset.window.clone(),
    }
}

/// The engine that works off provisioning jobs.
///
/// **Errors**: a `[mail]` or `[aaa]` URL of neither kind of database.
pub fn start_provisioner(
    ground: &Ground,
    config: &Config,
    devices: Option<Devices>,
    parts: &mut Parts,
) -> Result<(), StoreError> {
    let backends = Backends {
        devices,
        mail: config.mail.as_ref().map(|mail| MailDatabase::open(&mail.url)).transpose()?,
        aaa: match &config.aaa {
            Some(aaa) => Some(Aaa::new(AaaDatabase::open(&aaa.url)?, aaa.password)),
            None => None,
        },
    };
    let engine = Engine {
        store: ground.store.clone(),
        clock: ground.clock.clone(),
        metrics: ground.metrics.clone(),
        backends,
        wake: ground.jobs.clone(),
    };
    parts.spawn("provisioner", crate::provisioner::run(engine, ground.hearts.clone(), parts.stopping()));
    Ok(())
}

/// Closes the periods of cycles with `close = "auto"` when their grace is over.
pub fn start_biller(ground: &Ground, parts: &mut Parts) {
    let Ground { store, clock, metrics, hearts, .. } = ground.clone();
    let auto = AutoClose { store, clock, metrics, heart: hearts.register("biller") };
    parts.spawn("biller", auto.run(parts.stopping()));
}

/// What modem files depend on besides the modems.
pub fn plant_settings(config: &Config) -> PlantSettings {
    let snmp = config.snmp.as_ref().is_some_and(|snmp| snmp.modems.is_some());
    let asked = snmp || config.cmts.iter().any(Cmts::can_be_asked);
    PlantSettings { modem: modem_settings(config), cmts: CmtsTable::new(config.cmts.clone()), asked }
}

/// Where no CMTS is known the secret is that of `[docsis]`, else of the first CMTS that has one.
fn modem_settings(config: &Config) -> ModemSettings {
    let of_cmts = || config.cmts.iter().find_map(|cmts| cmts.shared_secret.clone());
    let shared = config.docsis.as_ref().and_then(|docsis| docsis.shared_secret.clone()).or_else(of_cmts);
    ModemSettings {
        shared_secret: shared.unwrap_or_else(|| Secret::new("")),
        community: config.snmp.as_ref().and_then(|snmp| snmp.community.clone()),
    }
}

/// Beside a SQLite database; with PostgreSQL in the state folder systemd gives us, else beside the configuration.
fn snapshot_file(config: &Config, store: &Store) -> PathBuf {
    if let Some(database) = store.sqlite_file() {
        return snapshot::beside(database);
    }
    // systemd joins several folders with colons; the first is ours.
    let folders = std::env::var("STATE_DIRECTORY").ok();
    let folder = folders.and_then(|folders| folders.split(':').next().map(PathBuf::from));
    folder.unwrap_or_else(|| config.path.with_file_name("")).join("lastmile-plant.sealed")
}
