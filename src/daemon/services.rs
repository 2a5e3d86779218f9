//! Starts each service the configuration names and keeps the handles a reload swaps values through.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_snmp::notification::NotificationReceiver;
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};

use super::DaemonError;
use super::config::{self, Config, DhcpDriver, Mail, Nas, Smtp};
use super::parts::Parts;
use crate::biller::{self, ApprovalError, AutoClose, BillerError, CheckOrder};
use crate::collector::fold::Fold;
use crate::collector::keeper::{Keeper, Keeping};
use crate::collector::{self, NasClient, NasTable, RadSecSettings, Ready, dictionaries};
use crate::custodian::{Chain, Retention};
use crate::dispatcher::{self, Client, Dispatcher, Gateway, Relay};
use crate::intake::billing::{BillAsk, BillRefusal};
use crate::intake::ways::Listening;
use crate::intake::{self, Intake, IntakeError, Settings};
use crate::nas_control::{NasControl, Target, Targets};
use crate::outgoing::Allowed;
use crate::provision::ElementKind;
use crate::provisioner::cmts::{Cmts, CmtsTable};
use crate::provisioner::device::{DeviceSettings, Devices};
use crate::provisioner::dhcp::{DhcpServer, DhcpSettings, SettingsHandle};
use crate::provisioner::enrolment::Enrolment;
use crate::provisioner::health::Poller;
use crate::provisioner::kea::{self, Kea};
use crate::provisioner::leases::{self, Leases};
use crate::provisioner::modem::ModemSettings;
use crate::provisioner::plant::{Plant, PlantSettings};
use crate::provisioner::rollout::Rollouts;
use crate::provisioner::sweep::Sweeper;
use crate::provisioner::{Aaa, Backends, Engine, follow, lease_journal, mail_wakes, snapshot, tftp, tod};
use crate::store::foreign::aaa::AaaDatabase;
use crate::store::rating::RatingError;
use crate::store::{Store, StoreError};
use crate::telemetry::{Heartbeats, Metrics, Outcome};
use crate::tls::{self, TlsFault};
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
    /// Wakes whoever tells NAS about live sessions: notified when their login changed.
    pub sessions: Arc<Notify>,
}

/// HTTP: account pushes, queries, health and metrics; and the other ways in of billing systems.
///
/// **Errors**: an unfit TLS file.
pub fn start_intake(
    ground: &Ground,
    config: &Config,
    cmts: watch::Receiver<CmtsTable>,
    (listener, listening): (TcpListener, Vec<Listening>),
    parts: &mut Parts,
) -> Result<Settings, IntakeError> {
    let Ground { store, clock, metrics, hearts, jobs, .. } = ground.clone();
    let options = intake_options(config);
    let intake = Intake::new(&options, store.clone(), clock.clone(), metrics.clone(), &jobs, &hearts)?
        .with_biller(lent_biller(store, clock, metrics, interims(config)))
        .with_network(lent_network(cmts))
        .with_listening(listening)
        .with_allowed(allowed(config));
    let settings = intake.settings();
    parts.spawn("HTTP", intake.serve(listener, parts.stopping()));
    Ok(settings)
}

/// How often each configured NAS reports, seconds.
fn interims(config: &Config) -> BTreeMap<String, u32> {
    let nas = config.radius.iter().flat_map(|radius| &radius.nas);
    nas.map(|nas| (nas.name.clone(), nas.interim_seconds)).collect()
}

/// The biller as HTTP sees it: services never import one another, so the daemon stands between.
fn lent_biller(
    store: Store,
    clock: Clock,
    metrics: Metrics,
    interims: BTreeMap<String, u32>,
) -> intake::billing::Biller {
    intake::billing::Biller::new(move |ask| {
        let (store, clock, metrics, interims) = (store.clone(), clock.clone(), metrics.clone(), interims.clone());
        Box::pin(async move {
            match ask {
                BillAsk::Run(order) => bill_run(&store, &clock, &metrics, order).await,
                BillAsk::Check { tenant, cycle, period } => {
                    let order = CheckOrder { tenant, cycle, period, interims };
                    let checked = biller::check(&store, &clock, &order).await.map_err(refusal)?;
                    Ok(json!({ "period": checked.period, "batch": checked.batch.as_ref().map(|batch| &batch.id),
                        "state": checked.batch.as_ref().map(|batch| &batch.state), "passed": checked.passed(),
                        "findings": checked.findings }))
                }
                BillAsk::Approve { tenant, batch, by } => {
                    let batch = biller::approve(&store, &clock, &tenant, &batch, &by).await.map_err(unapproved)?;
                    Ok(json!({ "id": batch.id, "state": batch.state, "approved_by": batch.approved_by }))
                }
                BillAsk::Discard { tenant, batch } => {
                    biller::discard(&store, &clock, &tenant, &batch).await.map_err(unapproved)?;
                    Ok(json!({ "discarded": batch }))
                }
            }
        })
    })
}

/// The CMTS as HTTP sees them, as the configuration has them now.
fn lent_network(cmts: watch::Receiver<CmtsTable>) -> intake::rollouts::Network {
    let slowest = cmts.clone();
    intake::rollouts::Network {
        cmts_of: Arc::new(move |address| cmts.borrow().of_address(address).map(|cmts| cmts.name.clone())),
        resets_per_minute: Arc::new(move || slowest.borrow().resets_per_minute()),
    }
}

/// The CMTS of the configuration.
pub fn cmts_table(config: &Config) -> CmtsTable {
    CmtsTable::new(config.cmts.clone())
}

async fn bill_run(
    store: &Store,
    clock: &Clock,
    metrics: &Metrics,
    order: intake::billing::BillOrder,
) -> Result<serde_json::Value, BillRefusal> {
    let intake::billing::BillOrder { tenant, cycle, period, dry_run } = order;
    let order = biller::Order { tenant, cycle, period, dry_run, rerate: false };
    let mut lines = biller::Kept::default();
    let report = biller::close_period(store, clock, &order, &mut lines).await;
    let outcome = if report.is_ok() { "closed" } else { "failed" };
    if !dry_run {
        metrics.bill_runs.get_or_create(&Outcome::new(outcome)).inc();
        metrics.bill_lines.inc_by(u64::try_from(lines.0.len()).unwrap_or(0));
    }
    let report = report.map_err(refusal)?;
    let mut answer = json!({
        "id": report.batch, "batch": report.batch, "period": report.period, "lines": lines.0, "totals": report.totals,
        "handshakes": report.handshakes,
    });
    if report.draft {
        answer["draft"] = json!(true);
    }
    Ok(answer)
}

fn unapproved(error: ApprovalError) -> BillRefusal {
    match error {
        ApprovalError::NoBatch(_) => BillRefusal::NotFound,
        error @ ApprovalError::State { .. } => BillRefusal::Conflict(format!("{error}.")),
        ApprovalError::Run(error) => refusal(error),
        ApprovalError::Store(error) => BillRefusal::Store(error),
    }
}

fn refusal(error: BillerError) -> BillRefusal {
    match error {
        BillerError::Store(error) | BillerError::Rating(RatingError::Store(error)) => BillRefusal::Store(error),
        BillerError::Rating(RatingError::NoTenant(_) | RatingError::NoCycle { .. }) => BillRefusal::NotFound,
        BillerError::Rating(error) => BillRefusal::Period(format!("{error}.")),
        error @ (BillerError::Running(_) | BillerError::Busy(_) | BillerError::Draft(_)) => {
            BillRefusal::Conflict(format!("{error}."))
        }
    }
}

/// What HTTP is told besides its address.
pub fn intake_options(config: &Config) -> intake::Options {
    let limit = config.api.rate_limit;
    let rate_limit = limit.map(|limit| intake::RateLimit { per_second: limit.per_second, burst: limit.burst });
    intake::Options { tls: config.api.tls.clone(), rate_limit, sources: config.sources.clone() }
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

/// Who has which address, recorded in the store; `None`: nobody hands out addresses that we know of.
pub fn start_leases(ground: &Ground, config: &Config, parts: &mut Parts) -> Option<Leases> {
    let dhcp = config.dhcp.as_ref()?;
    let leases = Leases::default();
    let (store, clock) = (ground.store.clone(), ground.clock.clone());
    let beat = ground.hearts.register("leases");
    let journaled = matches!(dhcp.driver, DhcpDriver::Builtin(_));
    let kept = (dhcp.keep_days, journaled);
    parts.spawn("leases", leases::record(leases.clone(), store, clock, kept, beat, parts.stopping()));
    Some(leases)
}

/// The cable plant from its snapshot, followed in the store.
pub fn start_plant(ground: &Ground, config: &Config, parts: &mut Parts) -> Plant {
    let snapshot = state_file(config, &ground.store, "plant.sealed");
    let plant = Plant::open(ground.store.sealer().clone(), plant_settings(config), Some(snapshot));
    let changes = follow::changes(plant.clone(), ground.store.clone(), ground.hearts.register("modem changes"));
    let beat = ground.hearts.register("modem fetches");
    let fetches = follow::fetches(plant.clone(), ground.store.clone(), beat, parts.stopping());
    parts.spawn_dropped("modem changes", changes);
    parts.spawn("modem fetches", fetches);
    plant
}

/// How devices are reached.
pub fn device_settings(config: &Config) -> DeviceSettings {
    DeviceSettings {
        modems: config.snmp.as_ref().and_then(|snmp| snmp.modems.clone()),
        poll: config.snmp.as_ref().and_then(|snmp| snmp.poll),
        lines: config.reset.line_status.clone(),
        voice_any: config.reset.voice_any,
        window: config.reset.window.clone(),
        tftp_server: tftp_server(config).map(IpAddr::V4),
    }
}

/// The TFTP server that DHCP names.
fn tftp_server(config: &Config) -> Option<Ipv4Addr> {
    match &config.dhcp.as_ref()?.driver {
        DhcpDriver::Kea { options, .. } => options.tftp_server,
        DhcpDriver::Builtin(builtin) => builtin.options.tftp_server,
    }
}

/// TFTP from the plant.
pub fn start_tftp(
    ground: &Ground,
    plant: &Plant,
    (leases, kea): (Option<Leases>, Option<Kea>),
    socket: UdpSocket,
    parts: &mut Parts,
) {
    let server = tftp::TftpServer {
        plant: plant.clone(),
        store: ground.store.clone(),
        leases,
        kea,
        metrics: ground.metrics.clone(),
        clock: ground.clock.clone(),
    };
    parts.spawn_dropped("TFTP", server.serve(socket, ground.hearts.register("TFTP")));
}

/// Kea's tables and leases, where Kea hands out the addresses.
///
/// **Errors**: a URL that is not PostgreSQL's.
pub fn start_kea(
    ground: &Ground,
    config: &Config,
    leases: Option<&Leases>,
    parts: &mut Parts,
) -> Result<Option<Kea>, StoreError> {
    let driver = config.dhcp.as_ref().map(|dhcp| &dhcp.driver);
    let (Some(DhcpDriver::Kea { url, options }), Some(leases)) = (driver, leases) else { return Ok(None) };
    let kea = Kea::open(url, CmtsTable::new(config.cmts.clone()), (**options).clone())?;
    parts.spawn_dropped(
        "Kea's leases",
        kea::follow(kea.clone(), leases.clone(), ground.hearts.register("Kea's leases")),
    );
    Ok(Some(kea))
}

/// The builtin DHCP server, from its journal; on a machine that has none, from what the database says.
///
/// **Errors**: the journal cannot be read or written.
pub fn start_dhcp(
    ground: &Ground,
    config: &Config,
    plant: &Plant,
    leases: &Leases,
    socket: UdpSocket,
    parts: &mut Parts,
) -> Result<SettingsHandle, DaemonError> {
    let path = state_file(config, &ground.store, "leases.journal");
    let journal = lease_journal::open(&path, leases, ground.clock.now()).map_err(|error| {
        let told = format!("the journal of leases {} cannot be opened: {error}", path.display());
        std::io::Error::new(error.kind(), told)
    })?;
    let settings = dhcp_settings(config).ok_or_else(|| std::io::Error::other("[dhcp] is not builtin"))?;
    let settings = SettingsHandle::new(settings);
    let taken_over = journal.was_empty.then(|| ground.store.clone());
    let server = DhcpServer {
        plant: plant.clone(),
        leases: leases.clone(),
        journal,
        settings: settings.clone(),
        metrics: ground.metrics.clone(),
        clock: ground.clock.clone(),
    };
    let (leases, clock) = (leases.clone(), ground.clock.clone());
    let beat = ground.hearts.register("DHCP");
    parts.spawn_dropped("DHCP", async move {
        if let Some(store) = taken_over {
            leases::take_over(&leases, &store, clock.now(), &beat).await;
        }
        server.serve(socket, beat).await
    });
    Ok(settings)
}

/// What the builtin DHCP server is told; `None`: it is not configured.
pub fn dhcp_settings(config: &Config) -> Option<DhcpSettings> {
    let DhcpDriver::Builtin(builtin) = &config.dhcp.as_ref()?.driver else { return None };
    Some(DhcpSettings {
        cmts: CmtsTable::new(config.cmts.clone()),
        options: builtin.options.clone(),
        zone: builtin.zone.clone(),
        tells_time: config.tod.is_some(),
    })
}

/// Time of day over UDP and TCP.
pub fn start_tod(ground: &Ground, socket: UdpSocket, listener: tokio::net::TcpListener, parts: &mut Parts) {
    let (clock, metrics) = (ground.clock.clone(), ground.metrics.clone());
    let beat = ground.hearts.register("time of day");
    parts.spawn_dropped("time of day", tod::serve_udp(socket, clock.clone(), metrics.clone(), beat));
    parts.spawn_dropped("time of day over TCP", tod::serve_tcp(listener, clock, metrics));
}

/// The engine that works off provisioning jobs.
///
/// **Errors**: a `[mail]` or `[aaa]` URL of neither kind of database.
pub fn start_provisioner(
    ground: &Ground,
    config: &Config,
    devices: Option<Devices>,
    kea: Option<Kea>,
    parts: &mut Parts,
) -> Result<(), StoreError> {
    let backends = Backends {
        devices,
        kea,
        mail: config.mail.as_ref().map(Mail::host).transpose()?,
        aaa: match &config.aaa {
            Some(aaa) => {
                let database = AaaDatabase::open(&aaa.url)?;
                Some(Aaa::new(database, aaa.password, ground.clock.clone(), ground.sessions.clone()))
            }
            None => None,
        },
    };
    if backends.mail.is_some() {
        let (store, clock, jobs) = (ground.store.clone(), ground.clock.clone(), ground.jobs.clone());
        let wakes = mail_wakes::run(store, clock, jobs, ground.hearts.register("mailbox instants"));
        parts.spawn_dropped("mailbox instants", wakes);
    }
    for kind in ElementKind::ALL.into_iter().filter(|kind| backends.checks(*kind)) {
        let Some(every) = config.sweep_every else { break };
        let Ground { store, clock, metrics, hearts, .. } = ground.clone();
        let sweeper = Sweeper { store, clock, metrics, backends: backends.clone(), every };
        parts.spawn_dropped("sweep", sweeper.run(kind, hearts.register(format!("sweep {kind}"))));
    }
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

/// Moves rollouts on, and asks modems how they are.
pub fn start_rollouts(ground: &Ground, devices: Devices, parts: &mut Parts) {
    let Ground { store, clock, metrics, hearts, .. } = ground.clone();
    let poller = Poller { store: store.clone(), clock: clock.clone(), metrics, devices: devices.clone() };
    parts.spawn_dropped("modem health", poller.run(hearts.register("modem health")));
    let rollouts = Rollouts { store, clock, devices };
    parts.spawn("rollouts", rollouts.run(hearts.register("rollouts"), parts.stopping()));
}

/// Answers MTAs that enrol; `tftp_port` is this machine's.
pub fn start_enrolment(
    ground: &Ground,
    (devices, leases, tftp_port): (Devices, Option<Leases>, u16),
    receiver: NotificationReceiver,
    parts: &mut Parts,
) {
    let enrolment = Enrolment { devices, leases, tftp_port, clock: ground.clock.clone() };
    parts.spawn_dropped("enrolment", enrolment.serve(receiver, ground.hearts.register("enrolment")));
}

/// Tells NAS about live sessions whose login changed. The sender swaps whom it can tell.
pub fn start_nas_control(ground: &Ground, config: &Config, parts: &mut Parts) -> watch::Sender<Arc<Targets>> {
    let (swap, targets) = watch::channel(Arc::new(coa_targets(config)));
    let control = NasControl {
        store: ground.store.clone(),
        clock: ground.clock.clone(),
        metrics: ground.metrics.clone(),
        targets,
        wake: ground.sessions.clone(),
    };
    let beat = ground.hearts.register("NAS control");
    parts.spawn("NAS control", crate::nas_control::run(control, beat, parts.stopping()));
    swap
}

/// The clients whose NAS can be told about live sessions.
pub fn coa_targets(config: &Config) -> Targets {
    let Some(radius) = &config.radius else { return Targets::default() };
    let target = |nas: &Nas| {
        let coa = nas.coa.as_ref()?;
        Some(Target {
            client: nas.name.clone(),
            identity: nas.identity,
            address: coa.address,
            port: coa.port,
            secret: coa.secret.clone(),
            attributes: coa.attributes.clone(),
            nas_address: coa.host,
            names_user: !nas.profile.without_realm,
            per_second: coa.per_second,
            patience: Duration::from_secs(u64::from(coa.timeout_seconds)),
        })
    };
    // What is wrong with a dictionary was told when the configuration was checked.
    let dictionary = dictionaries::load(&radius.dictionaries).unwrap_or_default();
    Targets::new(radius.nas.iter().filter_map(target).collect(), dictionary)
}

/// Closes the periods of cycles with `close = "auto"` when their grace is over.
pub fn start_biller(ground: &Ground, parts: &mut Parts) {
    let Ground { store, clock, metrics, hearts, .. } = ground.clone();
    let auto = AutoClose { store, clock, metrics, heart: hearts.register("biller") };
    parts.spawn("biller", auto.run(parts.stopping()));
}

/// The sealer of the audit, and who lets go of what is too old.
pub fn start_custodian(ground: &Ground, config: &Config, parts: &mut Parts) {
    let Ground { store, clock, metrics, hearts, .. } = ground.clone();
    let chain = Chain::new(store.clone(), clock.clone(), metrics, hearts.register("audit"));
    parts.spawn_dropped("audit", chain.run());
    let archive = config.radius.as_ref().and_then(|radius| radius.archive.clone());
    let retention = Retention { store, clock, archive, beat: hearts.register("retention") };
    parts.spawn_dropped("retention", retention.run());
}

/// Tells webhooks and people what happened, and writes closed batches to files.
///
/// **Errors**: the file of authorities is unfit.
pub fn start_dispatcher(ground: &Ground, config: &Config, parts: &mut Parts) -> Result<(), TlsFault> {
    let Ground { store, clock, metrics, hearts, .. } = ground.clone();
    let tls = tls::client_config(config.webhooks.ca.as_deref())?;
    let client = Client::new(tls, allowed(config));
    let at_once = usize::try_from(config.webhooks.at_once).unwrap_or(usize::MAX);
    let notify = config.notify.as_ref().map(|notify| notifier(notify, config)).transpose()?.map(Arc::new);
    let exports = config.exports.iter().cloned().map(Arc::new).collect();
    let work = Dispatcher { store, clock, metrics, client, at_once, exports, notify };
    parts.spawn("dispatcher", dispatcher::run(work, hearts.register("dispatcher"), parts.stopping()));
    Ok(())
}

fn notifier(notify: &config::Notify, config: &Config) -> Result<dispatcher::Notify, TlsFault> {
    let tls = Arc::new(tls::client_config(config.webhooks.ca.as_deref())?);
    let config::Notify { letters, smtp, from, to_account, operator, to_operator, sms } = notify.clone();
    let relay = smtp.map(|Smtp { host, port, security, login }| Relay { host, port, security, login, tls });
    let gateway = sms.map(|sms| Gateway {
        target: sms.target,
        content_type: sms.content_type,
        headers: sms.header.into_iter().collect(),
        body: sms.body,
        types: sms.types,
    });
    Ok(dispatcher::Notify { letters: Arc::new(letters), relay, from, to_account, operator, to_operator, gateway })
}

/// Networks that webhooks may reach although they are not public.
fn allowed(config: &Config) -> Allowed {
    Allowed::new(config.webhooks.allow.clone())
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
fn state_file(config: &Config, store: &Store, name: &str) -> PathBuf {
    if let Some(database) = store.sqlite_file() {
        return snapshot::named_beside(database, name);
    }
    // systemd joins several folders with colons; the first is ours.
    let folders = std::env::var("STATE_DIRECTORY").ok();
    let folder = folders.and_then(|folders| folders.split(':').next().map(PathBuf::from));
    folder.unwrap_or_else(|| config.path.with_file_name("")).join(format!("lastmile-{name}"))
}
