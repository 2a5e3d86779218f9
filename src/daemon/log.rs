//! Where log lines go: the journal with searchable fields, plain text, or JSON; the level can change while running.

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::config::{Log, LogFormat};

/// Prefix of our fields in the journal: `session.id` is found as `LASTMILE_SESSION_ID`.
const JOURNAL_PREFIX: &str = "LASTMILE";

/// Changes the level of the running program.
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<Targets, Registry>);

impl LevelHandle {
    /// **Errors**: the level cannot be read; the old one stays.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let targets = targets(level)?;
        self.0.reload(targets).map_err(|error| error.to_string())
    }
}

/// Starts logging. A second start in one process keeps the first.
pub fn start(log: &Log) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(targets(&log.level).unwrap_or_else(|_| at(LevelFilter::INFO)));
    let format = match log.format {
        LogFormat::Auto if stderr_is_the_journal() => LogFormat::Journald,
        LogFormat::Auto => LogFormat::Text,
        chosen => chosen,
    };
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Journald => match tracing_journald::layer() {
            Ok(layer) => {
                layer.with_field_prefix(Some(JOURNAL_PREFIX.to_owned())).with_priority_mappings(priorities()).boxed()
            }
            Err(_) => text(),
        },
        LogFormat::Json => fmt::layer().json().with_writer(std::io::stderr).boxed(),
        LogFormat::Text | LogFormat::Auto => text(),
    };
    // Fails only when a subscriber is already there, as in a test that starts two daemons in one process.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    LevelHandle(handle)
}

/// Reads a level (`info`) or levels by part (`info,lastmile::collector=debug`).
///
/// **Errors**: one sentence for the configuration's fault.
pub fn targets(level: &str) -> Result<Targets, String> {
    if level.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    if let Ok(level) = level.trim().parse::<LevelFilter>() {
        return Ok(at(level));
    }
    let fault = || format!("{level:?} is no level; write error, warn, info, debug or trace");
    // A bare word that is no level would silently become the name of a part of the program.
    let parts_are_plain = level.split(',').all(|part| match part.split_once('=') {
        Some((_, level)) => level.trim().parse::<LevelFilter>().is_ok(),
        None => part.trim().parse::<LevelFilter>().is_ok(),
    });
    if parts_are_plain { level.parse().map_err(|_| fault()) } else { Err(fault()) }
}

/// Our own lines at `level`; libraries below us never louder than `warn`.
fn at(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("lastmile", level)
        // What a device answers is told by whoever asked it, in words.
        .with_target("async_snmp", LevelFilter::OFF)
}

/// Syslog's words as administrators use them: our `info` is what `journalctl -p info` shows and `-p notice` hides.
fn priorities() -> PriorityMappings {
    PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    }
}

fn text<S>() -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = std::io::stderr().is_terminal() && !no_color;
    fmt::layer().with_writer(std::io::stderr).with_ansi(ansi).with_target(false).boxed()
}

/// systemd names the journal's stream by device and inode in `$JOURNAL_STREAM`; a redirected stderr is another file.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(meta) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", meta.dev(), meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_and_other_words_refused() {
        for level in ["error", "info", "DEBUG", "off", "info,lastmile::collector=debug"] {
            assert!(targets(level).is_ok(), "{level}");
        }
        for level in ["", "loud", "info,loud", "lastmile=loud"] {
            assert!(targets(level).is_err(), "{level}");
        }
    }
}
