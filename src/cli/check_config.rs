//! `check-config`: every fault of the configuration with its place, touching nothing.

use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::daemon::config::{Config, ConfigError, ConfigFault, Loaded};

/// Prints faults and warnings; exit 3 when there are faults.
pub fn run(context: &Context) -> Result<Exit, CliError> {
    let (faults, warnings) = match Config::check(&context.config_path) {
        Ok(Loaded { warnings, .. }) => (Vec::new(), warnings),
        Err(ConfigError::Faults { faults, warnings }) => (faults, warnings),
        Err(error) => return Err(error.into()),
    };
    if context.json {
        context.print_json(&json!({ "ok": faults.is_empty(), "faults": faults, "warnings": warnings }))?;
    } else {
        context.print(&listing("", &faults))?;
        context.print(&listing("warning: ", &warnings))?;
        let path = context.config_path.display();
        match faults.len() {
            0 => eprintln!("{path} is valid."),
            1 => eprintln!("{path} has 1 fault; the daemon would not start with it."),
            count => eprintln!("{path} has {count} faults; the daemon would not start with it."),
        }
    }
    Ok(if faults.is_empty() { Exit::Done } else { Exit::No })
}

fn listing(prefix: &str, faults: &[ConfigFault]) -> String {
    faults.iter().map(|fault| format!("{prefix}{fault}\n")).collect()
}
