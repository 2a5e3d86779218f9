//! Builds, wires, starts and stops the services; the configuration file, the system clock and the log are its own.

pub mod clock;
pub mod config;
mod database;
pub mod log;
mod notify;
mod parts;
mod serve;
mod services;
mod sockets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::intake::{IntakeError, Settings};
use crate::nas_control::Targets;
use crate::provisioner::cmts::CmtsTable;
use crate::provisioner::device::Devices;
use crate::provisioner::dhcp::SettingsHandle;
use crate::store::{Durability, Store, StoreError};
use crate::telemetry::{Heartbeats, Metrics};
use crate::tls::TlsFault;
use crate::vocabulary::Clock;
use config::{Config, ConfigError};
use parts::Parts;
use services::{Ground, NasSwitch};
use sockets::Sockets;

pub use serve::serve;
pub use services::nas_table;
pub use sockets::{Addresses, datagrams};

/// Why the daemon did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{what} {address} cannot be bound: {error}")]
    Bind { what: &'static str, address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Intake(#[from] IntakeError),
    #[error("[radius] radsec_tls.{0}")]
    RadSec(TlsFault),
    #[error("[webhooks] {0}")]
    Webhooks(TlsFault),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not a fault of its own: the process is to be replaced, without closing the database (see `Store::fresh_start_due`).
    #[error("a write to the database's disk failed and the disk writes again; its log is read afresh")]
    FreshStart,
    /// A part that must run forever ended or panicked.
    #[error("{name} stopped by itself: {reason}")]
    Part { name: &'static str, reason: String },
}

/// The running daemon: every part of the configuration, wired together in this process.
pub struct Daemon {
    pub ground: Ground,
    pub addresses: Addresses,
    parts: Parts,
    up: watch::Receiver<bool>,
    intake: Settings,
    nas: Option<NasSwitch>,
    targets: watch::Sender<Arc<Targets>>,
    cmts: watch::Sender<CmtsTable>,
    devices: Option<Devices>,
    dhcp: Option<SettingsHandle>,
}

impl Daemon {
    /// Binds every socket, opens the database and starts every part the configuration names.
    ///
    /// A database that is away is waited for in the background; HTTP answers 503 meanwhile.
    ///
    /// **Errors**: an unfit TLS file, an address that cannot be bound, a database that is newer than this program or misconfigured.
    pub async fn start(config: &Config, clock: Clock) -> Result<Self, DaemonError> {
        Self::start_with(config, clock, Durability::Full).await
    }

    /// As `start`, with a choice of what SQLite's commits wait for.
    ///
    /// **Errors**: as `start`.
    pub async fn start_with(config: &Config, clock: Clock, durability: Durability) -> Result<Self, DaemonError> {
        // Before anything is bound or migrated: a certificate that does not fit is mended and the start repeated.
        if let Some(tls) = services::intake_options(config).tls {
            tls.check().map_err(IntakeError::Tls)?;
        }
        if let Some(settings) = services::radsec_settings(config) {
            settings.ready().map_err(DaemonError::RadSec)?;
        }
        let sockets = Sockets::bind(config).await?;
        let addresses = sockets.addresses()?;
        let store = Store::open_with(&config.store_config(), durability).await?;
        let up = database::bring_up(&store).await?;
        let (up, up_seen) = watch::channel(up);
        let ground = Ground {
            store,
            clock,
            metrics: Metrics::new(),
            hearts: Heartbeats::new(),
            jobs: Arc::default(),
            sessions: Arc::default(),
        };
        let mut parts = Parts::new();
        let beat = ground.hearts.register("database");
        let keeper = database::keep(ground.store.clone(), up, ground.metrics.clone(), beat, addresses.to_string());
        parts.spawn_dropped("database", keeper);
        let (cmts, cmts_seen) = watch::channel(services::cmts_table(config));
        let intake = services::start_intake(&ground, config, cmts_seen, (sockets.api, sockets.sources), &mut parts)?;
        let nas = match sockets.accounting.is_empty() && sockets.radsec.is_empty() {
            true => None,
            false => {
                let (ports, listeners) = (sockets.accounting, sockets.radsec);
                Some(
                    services::start_collector(&ground, config, ports, listeners, &mut parts)
                        .map_err(DaemonError::RadSec)?,
                )
            }
        };
        let leases = services::start_leases(&ground, config, &mut parts);
        // DHCP names the files that TFTP serves: either of them needs the plant.
        let serves = sockets.tftp.is_some() || sockets.dhcp.is_some();
        let plant = serves.then(|| services::start_plant(&ground, config, &mut parts));
        let kea = services::start_kea(&ground, config, leases.as_ref(), &mut parts)?;
        if let (Some(plant), Some(socket)) = (&plant, sockets.tftp) {
            services::start_tftp(&ground, plant, (leases.clone(), kea.clone()), socket, &mut parts);
        }
        let dhcp = match (&plant, &leases, sockets.dhcp) {
            (Some(plant), Some(leases), Some(socket)) => {
                Some(services::start_dhcp(&ground, config, plant, leases, socket, &mut parts)?)
            }
            _ => None,
        };
        if let Some((socket, listener)) = sockets.tod {
            services::start_tod(&ground, socket, listener, &mut parts);
        }
        services::start_biller(&ground, &mut parts);
        services::start_custodian(&ground, config, &mut parts);
        services::start_dispatcher(&ground, config, &mut parts).map_err(DaemonError::Webhooks)?;
        let devices = plant.map(|plant| Devices::new(plant, leases.clone(), services::device_settings(config)));
        services::start_provisioner(&ground, config, devices.clone(), kea, &mut parts)?;
        if let Some(devices) = devices.clone() {
            if let Some(receiver) = sockets.informs {
                let tftp = addresses.tftp.map_or(0, |address| address.port());
                services::start_enrolment(&ground, (devices.clone(), leases, tftp), receiver, &mut parts);
            }
            services::start_rollouts(&ground, devices, &mut parts);
        }
        let targets = services::start_nas_control(&ground, config, &mut parts);
        Ok(Self { ground, addresses, parts, up: up_seen, intake, nas, targets, cmts, devices, dhcp })
    }

    /// Whether the database was up and migrated at least once.
    pub fn database_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Swaps what can change under running services. The configuration has been checked as a whole.
    pub fn reload(&self, config: &Config) {
        if let Err(error) = self.intake.reload(&services::intake_options(config)) {
            tracing::error!("The certificates stay as they were: {error}");
        }
        if let Some(nas) = &self.nas
            && let Err(error) = nas.swap(config)
        {
            tracing::error!("RadSec keeps its certificates: [radius] radsec_tls.{error}");
        }
        self.targets.send_replace(Arc::new(services::coa_targets(config)));
        self.cmts.send_replace(services::cmts_table(config));
        if let Some(devices) = &self.devices {
            devices.plant().reload(services::plant_settings(config));
            devices.reload(services::device_settings(config));
        }
        if let (Some(running), Some(settings)) = (&self.dhcp, services::dhcp_settings(config)) {
            running.replace(settings);
        }
    }

    /// Waits for a part that stopped by itself (a daemon without one of its parts must not look alive), or for the database
    /// to need a fresh start.
    pub async fn failure(&mut self) -> DaemonError {
        tokio::select! {
            failure = self.parts.failure() => failure,
            () = self.ground.store.fresh_start_due() => DaemonError::FreshStart,
        }
    }

    /// Answers what is committed, ends the parts and closes the database, within `DRAIN_LIMIT`.
    pub async fn stop(mut self) {
        if !self.parts.stop(DRAIN_LIMIT).await {
            tracing::warn!("A part did not drain in {DRAIN_LIMIT:?}; it is cut off. What was acknowledged is durable.");
        }
        if tokio::time::timeout(CLOSE_LIMIT, self.ground.store.close()).await.is_err() {
            tracing::warn!(
                "The database did not close in {CLOSE_LIMIT:?}; its own log repairs that at the next start."
            );
        }
    }
}

/// SIGTERM is answered within five seconds; the rest is for closing the database.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
