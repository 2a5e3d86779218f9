//! `nas list`: who reports, when last, and who is late.

use std::collections::{BTreeMap, HashMap, HashSet};

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::collector::{ReportState, report_state};
use crate::daemon::config::Nas;
use crate::store::nas::{NasReports, previous_secrets, reports};
use crate::vocabulary::{Timestamp, from_micros};

/// The commands of `lastmile nas`.
#[derive(Subcommand)]
pub enum NasCommand {
    /// List every NAS: when it last reported, what it has open, whether its reports are late.
    List {
        /// Only those whose reports are overdue; exit 3 when there are any.
        #[arg(long)]
        overdue: bool,
    },
}

/// Identities shown.
const LIMIT: i64 = 100_000;

/// Runs one of them.
pub async fn run(command: NasCommand, context: &Context) -> Result<Exit, CliError> {
    let NasCommand::List { overdue } = command;
    let config = context.config()?;
    let store = context.store().await?;
    let mut tx = store.read().await?;
    let found = reports(&mut tx, LIMIT).await?;
    let secrets = previous_secrets(&mut tx).await?;
    tx.rollback().await?;
    let now = context.clock().now();
    let clients: BTreeMap<&str, &Nas> =
        config.radius.iter().flat_map(|radius| &radius.nas).map(|nas| (nas.name.as_str(), nas)).collect();
    let mut rows: Vec<Row> = found.iter().map(|nas| Row::of(nas, &clients, &secrets, now)).collect();
    let known: HashSet<String> = rows.iter().map(|row| row.client.clone()).collect();
    let silent = clients.iter().filter(|(name, _)| !known.contains(**name));
    let silent: Vec<Row> = silent.map(|(name, nas)| Row::never(name, nas, secrets.get(*name).copied())).collect();
    rows.extend(silent);
    if overdue {
        rows.retain(|row| row.state == "overdue");
    }
    rows.sort_by(|left, right| left.nas.cmp(&right.nas));
    if context.json {
        context.print_json(&rows.iter().map(Row::json).collect::<Vec<_>>())?;
    } else {
        let headings = ["nas", "reports", "last report", "age", "open", "stale", "every", "previous secret used"];
        context.print_table(&headings, &rows.iter().map(|row| row.cells()).collect::<Vec<_>>())?;
    }
    Ok(if overdue && !rows.is_empty() { Exit::No } else { Exit::Done })
}

struct Row {
    nas: String,
    client: String,
    /// `fresh`, `overdue`, `gone`, `never`.
    state: &'static str,
    last_report_at: Option<Timestamp>,
    age_seconds: Option<i64>,
    open: i64,
    stale: i64,
    interim_seconds: Option<u32>,
    previous_secret_at: Option<Timestamp>,
}

impl Row {
    fn of(nas: &NasReports, clients: &BTreeMap<&str, &Nas>, secrets: &HashMap<String, i64>, now: Timestamp) -> Self {
        let outer = nas.nas.split_once('/').map_or(nas.nas.as_str(), |(client, _)| client);
        let client = if clients.contains_key(nas.nas.as_str()) { nas.nas.as_str() } else { outer };
        let interim_seconds = clients.get(client).map(|client| client.interim_seconds);
        let state = match report_state(nas, interim_seconds, now) {
            ReportState::Fresh => "fresh",
            ReportState::Overdue => "overdue",
            ReportState::Gone => "gone",
        };
        let last_report_at = from_micros(nas.last_seen_at);
        Self {
            nas: nas.nas.clone(),
            client: client.to_owned(),
            state,
            last_report_at,
            age_seconds: last_report_at.map(|last| now.duration_since(last).as_secs().max(0)),
            open: nas.open_sessions,
            stale: nas.stale_sessions,
            interim_seconds,
            previous_secret_at: secrets.get(client).copied().and_then(from_micros),
        }
    }

    fn never(name: &str, nas: &Nas, previous_secret_at: Option<i64>) -> Self {
        Self {
            nas: name.to_owned(),
            client: name.to_owned(),
            state: "never",
            last_report_at: None,
            age_seconds: None,
            open: 0,
            stale: 0,
            interim_seconds: Some(nas.interim_seconds),
            previous_secret_at: previous_secret_at.and_then(from_micros),
        }
    }

    fn json(&self) -> Value {
        json!({
            "nas": self.nas,
            "client": self.client,
            "reports": self.state,
            "last_report_at": self.last_report_at.map(|at| at.to_string()),
            "last_report_age_seconds": self.age_seconds,
            "open_sessions": self.open,
            "stale_sessions": self.stale,
            "interim_seconds": self.interim_seconds,
            "previous_secret_used_at": self.previous_secret_at.map(|at| at.to_string()),
        })
    }

    fn cells(&self) -> Vec<String> {
        let instant = |at: Option<Timestamp>| at.map_or_else(String::new, |at| format!("{at:.0}"));
        vec![
            self.nas.clone(),
            self.state.to_owned(),
            instant(self.last_report_at),
            self.age_seconds.map_or_else(String::new, |seconds| format!("{seconds} s")),
            self.open.to_string(),
            self.stale.to_string(),
            self.interim_seconds.map_or_else(String::new, |seconds| format!("{seconds} s")),
            instant(self.previous_secret_at),
        ]
    }
}
