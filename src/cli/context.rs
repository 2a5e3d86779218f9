//! What every command gets: the global options, the configuration when it asks for it, and one way to print.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::{Cell, ContentArrangement, Table, presets};
use indicatif::ProgressBar;
use serde::Serialize;

use super::exit::{CliError, Exit};
use crate::daemon::config::Config;
use crate::store::Store;
use crate::vocabulary::Clock;

/// Where the configuration is when neither `--config` nor `$LASTMILE_CONFIG` names it.
pub const DEFAULT_CONFIG: &str = "/etc/lastmile/lastmile.toml";

/// The global options of one invocation.
pub struct Context {
    pub config_path: PathBuf,
    pub json: bool,
    /// The machine's clock; the demo moves its own.
    pub clock: Clock,
}

impl Context {
    /// The configuration file, read.
    ///
    /// **Errors**: exit 1 with every fault; `check-config` tells more.
    pub fn config(&self) -> Result<Config, CliError> {
        Ok(Config::load(&self.config_path)?.config)
    }

    /// The database, brought up by `serve` or `migrate`.
    ///
    /// **Errors**: exit 4 when it cannot be reached, exit 1 when it is not at this version's schema.
    pub async fn store(&self) -> Result<Store, CliError> {
        let store = self.open_store().await?;
        let pending = store.pending_migrations().await?;
        if !pending.is_empty() {
            return Err(CliError::failed(format!(
                "the database lacks {} migrations of this version; run `lastmile migrate` first",
                pending.len()
            )));
        }
        Ok(store)
    }

    /// The database as it is, whatever its schema.
    pub async fn open_store(&self) -> Result<Store, CliError> {
        Ok(Store::open(&self.config()?.store_config()).await?)
    }

    /// What time it is for this command.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Prints `value` as one JSON document on stdout.
    pub fn print_json(&self, value: &impl Serialize) -> Result<(), CliError> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        self.print(&text)
    }

    /// Prints rows under headings: framed on a terminal, bare aligned columns in a pipe.
    ///
    /// For `--json` call `print_json` with the same facts instead.
    pub fn print_table(&self, headings: &[&str], rows: &[Vec<String>]) -> Result<(), CliError> {
        let mut table = Table::new();
        if std::io::stdout().is_terminal() {
            table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.load_style(presets::NOTHING);
        }
        if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            table.force_no_tty();
        }
        table.set_header(headings.iter().map(Cell::new));
        for row in rows {
            table.add_row(row.iter().map(Cell::new));
        }
        self.print(&format!("{table}\n"))
    }

    /// A sign of life for work of unknown length; invisible unless stderr is a terminal.
    pub fn spinner(&self, doing: &'static str) -> ProgressBar {
        let bar = ProgressBar::new_spinner().with_message(doing);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// A progress bar over `length` pieces; invisible unless stderr is a terminal.
    pub fn progress(&self, length: u64, doing: &'static str) -> ProgressBar {
        ProgressBar::new(length).with_message(doing)
    }

    /// Writes text to stdout. A reader that went away (`| head`) is not a failure.
    pub fn print(&self, text: &str) -> Result<(), CliError> {
        match std::io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }

    /// Prints the answer "no" for a person on stderr and gives the exit code for it.
    pub fn not_found(&self, message: &str) -> Exit {
        eprintln!("{}", super::exit::visible(message));
        Exit::No
    }
}
