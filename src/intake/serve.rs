//! The HTTP server itself: plain or TLS, a rate limit that can change, a shutdown that lets running requests end.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::sync::{Notify, watch};

use super::billing::Biller;
use super::catalogs::Catalogs;
use super::deeds::Ground;
use super::keyring::{Keyring, RateLimit};
use super::rollouts::Network;
use super::sources::{SourceSettings, Sources};
use super::ways::{self, Listening};
use super::writer::{Writer, WriterTasks};
use super::{App, router, syncs, thresholds, waker};
use crate::outgoing::Allowed;
use crate::store::Store;
use crate::store::running::PriceBook;
use crate::telemetry::{Heartbeat, Heartbeats, Metrics};
use crate::tls::{TlsFault, TlsFiles};
use crate::vocabulary::Clock;

/// What the configuration says about HTTP besides the address.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub tls: Option<TlsFiles>,
    /// `None`: no limit.
    pub rate_limit: Option<RateLimit>,
    pub sources: SourceSettings,
}

/// Why HTTP cannot be served.
#[derive(Debug, Error)]
pub enum IntakeError {
    #[error("[api] tls.{0}")]
    Tls(#[from] TlsFault),
    #[error("HTTP cannot be served: {0}")]
    Io(#[from] std::io::Error),
}

/// The HTTP service, ready to run.
pub struct Intake {
    app: App,
    tls: Option<RustlsConfig>,
    writing: WriterTasks,
    waking: Heartbeat,
    looking: Heartbeat,
    watching: Heartbeat,
    listening: Vec<Listening>,
    reconciling: Heartbeat,
    listing: Heartbeat,
}

/// Changes a running service's settings.
#[derive(Clone)]
pub struct Settings {
    keyring: Keyring,
    tls: Option<RustlsConfig>,
    sources: Sources,
}

/// Requests that run when the daemon stops may take this long.
const DRAIN: Duration = Duration::from_secs(2);

impl Intake {
    /// Reads the TLS files and prepares everything; nothing is served yet. `jobs` is notified when jobs may be due.
    ///
    /// **Errors**: an unreadable or unfit TLS file.
    pub fn new(
        options: &Options,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        jobs: &Arc<Notify>,
        hearts: &Heartbeats,
    ) -> Result<Self, IntakeError> {
        let tls = match &options.tls {
            Some(files) => Some(RustlsConfig::from_config(Arc::new(server_config(files)?))),
            None => None,
        };
        let keyring = Keyring::new(options.rate_limit);
        let catalogs = Catalogs::default();
        let prices = PriceBook::default();
        let sources = Sources::new(options.sources.clone());
        let ground = Ground {
            sealer: store.sealer().clone(),
            catalogs: catalogs.clone(),
            prices: prices.clone(),
            sources: sources.clone(),
            memory: Default::default(),
        };
        let (writer, writing) = Writer::new(&store, &clock, &ground, jobs, hearts);
        let waking = hearts.register("account waker");
        let looking = hearts.register("thresholds");
        let watching = hearts.register("inboxes");
        let reconciling = hearts.register("reconciliations");
        let listing = hearts.register("lists");
        Ok(Self {
            app: App {
                store,
                clock,
                metrics,
                keyring,
                catalogs,
                prices,
                writer,
                biller: Biller::default(),
                network: Network::default(),
                sources,
                allowed: Arc::default(),
            },
            tls,
            writing,
            waking,
            looking,
            watching,
            listening: Vec::new(),
            reconciling,
            listing,
        })
    }

    /// Lends it the biller, so that bill runs can be asked for over HTTP.
    pub fn with_biller(mut self, biller: Biller) -> Self {
        self.app.biller = biller;
        self
    }

    /// Lends it the CMTS of the installation, so that a rollout knows them.
    pub fn with_network(mut self, network: Network) -> Self {
        self.app.network = network;
        self
    }

    /// Gives it the sockets on which billing systems connect.
    pub fn with_listening(mut self, listening: Vec<Listening>) -> Self {
        self.listening = listening;
        self
    }

    /// Lends it the networks that webhooks may reach although they are not public.
    pub fn with_allowed(mut self, allowed: Allowed) -> Self {
        self.app.allowed = Arc::new(allowed);
        self
    }

    /// The handle through which settings change while it serves.
    pub fn settings(&self) -> Settings {
        Settings { keyring: self.app.keyring.clone(), tls: self.tls.clone(), sources: self.app.sources.clone() }
    }

    /// Serves until `stopping` turns true, then lets running requests end.
    pub async fn serve(self, listener: TcpListener, stopping: watch::Receiver<bool>) -> Result<(), IntakeError> {
        let handle = Handle::new();
        let stopper = handle.clone();
        let mut stopping = stopping;
        let waiter = tokio::spawn(async move {
            // A sender that is gone means the daemon is gone.
            let _ = stopping.wait_for(|stop| *stop).await;
            stopper.graceful_shutdown(Some(DRAIN));
        });
        let writing = tokio::spawn(self.writing.run());
        let waker = tokio::spawn(waker::run(self.app.clone(), self.waking));
        let looker = tokio::spawn(thresholds::run(self.app.clone(), self.looking));
        let watcher = tokio::spawn(ways::run(self.app.clone(), self.listening, self.watching));
        let reconciler = tokio::spawn(syncs::run(self.app.clone(), self.reconciling));
        let lister = tokio::spawn(syncs::watch(self.app.clone(), self.listing));
        let service = router(self.app).into_make_service_with_connect_info::<std::net::SocketAddr>();
        let served = match self.tls {
            None => {
                axum_server::from_tcp(listener)?.acceptor(NoDelayAcceptor::new()).handle(handle).serve(service).await
            }
            Some(tls) => {
                let acceptor = RustlsAcceptor::new(tls).acceptor(NoDelayAcceptor::new());
                axum_server::from_tcp(listener)?.acceptor(acceptor).handle(handle).serve(service).await
            }
        };
        waiter.abort();
        waker.abort();
        looker.abort();
        watcher.abort();
        reconciler.abort();
        lister.abort();
        // With the last request gone the queues close, and the writer ends when they are empty.
        let _ = tokio::time::timeout(DRAIN, writing).await;
        Ok(served?)
    }
}

impl Settings {
    /// Takes over a changed rate limit, billing systems with their profiles, and renewed certificates; switching TLS on or off needs a restart.
    ///
    /// **Errors**: unfit TLS files; the old ones stay in force.
    pub fn reload(&self, options: &Options) -> Result<(), IntakeError> {
        self.keyring.limit(options.rate_limit);
        self.sources.replace(options.sources.clone());
        if let (Some(running), Some(files)) = (&self.tls, &options.tls) {
            running.reload_from_config(Arc::new(server_config(files)?));
        }
        Ok(())
    }
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsFault> {
    let mut config = files.server_config(rustls::DEFAULT_VERSIONS)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
