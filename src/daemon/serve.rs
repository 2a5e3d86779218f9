//! `serve`: the daemon under a service manager — ready, reload on SIGHUP, drain on SIGTERM, loud when a part dies.

use std::os::unix::process::CommandExt;
use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config::{Config, DhcpDriver};
use super::log::LevelHandle;
use super::{Daemon, DaemonError, clock, log, notify};
use crate::telemetry::Outcome;

/// Runs until SIGTERM or SIGINT; where a write to the database's disk failed, it begins afresh once the disk writes again.
///
/// **Errors**: the daemon did not start, or a part stopped by itself; the process must end with a failure so that the
/// service manager starts it again.
pub async fn serve(path: &Path) -> Result<(), DaemonError> {
    let loaded = Config::load(path)?;
    let level = log::start(&loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut running = loaded.config;
    log_panics();
    // Before the sockets: a signal in the first moment must not be the kernel's business.
    let mut signals = Signals::new()?;
    let mut daemon = Daemon::start(&running, clock::system()).await?;
    let mut feeder = notify::Feeder::new(&daemon.ground.hearts);
    let serving = daemon.addresses.to_string();
    notify::ready(if daemon.database_up() { &serving } else { "Waiting for the database." });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "{serving}");
    loop {
        tokio::select! {
            failure = daemon.failure() => {
                if matches!(failure, DaemonError::FreshStart) {
                    tracing::error!("{failure}: the daemon begins afresh in this process.");
                    return Err(begin_afresh().into());
                }
                tracing::error!("{failure}. The daemon stops so that it is started afresh.");
                notify::stopping();
                daemon.stop().await;
                return Err(failure);
            }
            signal = signals.next() => match signal {
                Received::Stop => break,
                Received::Reload => {
                    notify::reloading();
                    reload(path, &mut running, &daemon, &level);
                    notify::ready(&serving);
                }
            },
            () = look_time(feeder.as_ref()) => {
                if let Some(feeder) = &mut feeder {
                    feeder.look();
                }
            }
        }
    }
    tracing::info!("Stopping: answering what is committed.");
    notify::stopping();
    daemon.stop().await;
    tracing::info!("Stopped.");
    Ok(())
}

/// Becomes a new daemon under the same pid, as after `kill -9`: nothing is closed, and what was acknowledged is durable.
/// Comes back only with the reason why that was impossible.
fn begin_afresh() -> std::io::Error {
    let become_it = |program: &Path| {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        std::process::Command::new(program).arg0(name).args(arguments).exec()
    };
    match std::env::current_exe() {
        Ok(program) if program.exists() => become_it(&program),
        // It was replaced and removed; what runs is still there.
        _ => become_it(Path::new("/proc/self/exe")),
    }
}

/// Reads the whole new configuration first; with any fault in it the old one stays in force.
fn reload(path: &Path, running: &mut Config, daemon: &Daemon, level: &LevelHandle) {
    let loaded = match Config::check(path) {
        Ok(loaded) => loaded,
        Err(error) => {
            let why = one_line(&error.to_string());
            tracing::error!("The configuration was not reloaded, the old one stays in force: {why}");
            daemon.ground.metrics.reloads.get_or_create(&Outcome::new("refused")).inc();
            return;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = level.set(&loaded.config.log.level) {
        tracing::error!("The log level stays: {error}");
    }
    daemon.reload(&loaded.config);
    for section in needs_restart(running, &loaded.config) {
        tracing::warn!("{section} changed; that takes effect at the next start.");
    }
    daemon.ground.metrics.reloads.get_or_create(&Outcome::new("applied")).inc();
    tracing::info!("The configuration was reloaded.");
    *running = loaded.config;
}

/// The first faults on one line of the log; `check-config` has them all.
fn one_line(listing: &str) -> String {
    let faults: Vec<&str> = listing.lines().collect();
    let shown = faults.iter().take(FAULTS_SHOWN).copied().collect::<Vec<_>>().join("; ");
    match faults.len().saturating_sub(FAULTS_SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more, which check-config names"),
    }
}

/// What a reload cannot swap under running services.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let accounting = |config: &Config| config.radius.as_ref().map(|radius| radius.accounting.clone());
    let listen = |radius: &super::config::Radius| radius.radsec.as_ref().map(|radsec| radsec.listen.clone());
    let radsec = |config: &Config| config.radius.as_ref().and_then(listen);
    let dhcp = |config: &Config| match config.dhcp.as_ref().map(|dhcp| &dhcp.driver) {
        Some(DhcpDriver::Builtin(builtin)) => Some((Some(builtin.listen), None)),
        Some(DhcpDriver::Kea { url, .. }) => Some((None, Some(url.clone()))),
        None => None,
    };
    let sources = |config: &Config| -> Vec<_> { config.sources.sources.iter().filter_map(|one| one.listen).collect() };
    let informs = |config: &Config| config.snmp.as_ref().and_then(|snmp| snmp.informs);
    [
        ("[database]", old.database != new.database),
        ("[secrets]", old.secrets != new.secrets),
        ("[api] listen", old.api.listen != new.api.listen),
        ("[api] tls", old.api.tls.is_some() != new.api.tls.is_some()),
        ("[radius] accounting", accounting(old) != accounting(new)),
        ("[radius] radsec", radsec(old) != radsec(new)),
        ("[tftp]", old.tftp != new.tftp),
        ("[dhcp] listen", dhcp(old) != dhcp(new)),
        ("[tod]", old.tod != new.tod),
        ("[snmp] informs", informs(old) != informs(new)),
        ("[mail]", old.mail != new.mail),
        ("[aaa]", old.aaa != new.aaa),
        ("[[source]] listen", sources(old) != sources(new)),
        ("[webhooks]", old.webhooks != new.webhooks),
        ("[notify]", format!("{:?}", old.notify) != format!("{:?}", new.notify)),
        ("[[export]]", format!("{:?}", old.exports) != format!("{:?}", new.exports)),
        ("[log] format", old.log.format != new.log.format),
    ]
    .into_iter()
    .filter_map(|(section, changed)| changed.then_some(section))
    .collect()
}

/// A panic becomes one line of the log, where the person who must act looks.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("a value that is no text");
        tracing::error!(place, "A part of the daemon panicked: {text}");
    }));
}

async fn look_time(feeder: Option<&notify::Feeder>) {
    match feeder {
        Some(feeder) => feeder.wait().await,
        None => std::future::pending().await,
    }
}

enum Received {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received::Stop,
            _ = self.interrupt.recv() => Received::Stop,
            _ = self.hang_up.recv() => Received::Reload,
        }
    }
}

const FAULTS_SHOWN: usize = 3;
