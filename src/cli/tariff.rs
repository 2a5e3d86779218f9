//! `tariff check`, `tariff price` and `tariff simulate`: a tariff file on its own, or over recorded history. Only the last
//! one needs a database.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::simulate::{self, SimulateArguments};
use crate::billing::quote::{Quote, QuoteError, Sample, quote};
use crate::billing::tariff::Tariff;
use crate::daemon::config;
use crate::vocabulary::Fault;

/// The commands of `lastmile tariff`.
#[derive(Subcommand)]
pub enum TariffCommand {
    /// Tell whether a tariff file is sound; exit 3 with every fault when it is not.
    Check { file: PathBuf },
    /// Price quantities by a tariff file, exactly.
    Price {
        file: PathBuf,
        /// The quantities: {"quantities": {"data": "1234.5"}, "events": {"data": 7}}.
        #[arg(long, value_name = "FILE")]
        usage: PathBuf,
    },
    /// Rate a period's recorded history by a tariff file and compare each account; or name the cheapest plans.
    Simulate(SimulateArguments),
}

/// Runs one of them.
pub async fn run(command: TariffCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        TariffCommand::Check { file } => check(&file, context),
        TariffCommand::Price { file, usage } => price(&file, &usage, context),
        TariffCommand::Simulate(arguments) => simulate::run(arguments, context).await,
    }
}

fn check(file: &Path, context: &Context) -> Result<Exit, CliError> {
    let (exit, faults) = match read(file)? {
        Ok(tariff) => {
            if !context.json {
                let digest = &tariff.digest[..12];
                context.print(&format!("{} version {} is sound, digest {digest}\n", tariff.id, tariff.version))?;
            }
            (Exit::Done, Vec::new())
        }
        Err(faults) => {
            tell(&faults);
            (Exit::No, faults)
        }
    };
    if context.json {
        context.print_json(&json!({ "sound": faults.is_empty(), "errors": faults }))?;
    }
    Ok(exit)
}

fn price(file: &Path, usage: &Path, context: &Context) -> Result<Exit, CliError> {
    let tariff = match read(file)? {
        Ok(tariff) => tariff,
        Err(faults) => {
            tell(&faults);
            return Ok(Exit::Failed);
        }
    };
    let sample: Sample = serde_json::from_str(&text_of(usage)?)
        .map_err(|error| CliError::failed(format!("{}: {error}", usage.display())))?;
    let priced = match quote(&tariff, &sample) {
        Ok(priced) => priced,
        Err(QuoteError::Sample(faults)) => {
            tell(&faults);
            return Ok(Exit::Failed);
        }
        Err(error) => return Err(error.into()),
    };
    if context.json {
        context.print_json(&priced)?;
    } else {
        table(&priced, context)?;
    }
    Ok(Exit::Done)
}

fn table(priced: &Quote, context: &Context) -> Result<(), CliError> {
    let rows: Vec<Vec<String>> = priced
        .lines
        .iter()
        .map(|line| {
            let tax: Vec<String> = line.tax.iter().map(|tax| format!("{} {}", tax.id, tax.amount)).collect();
            vec![
                line.charge.clone(),
                line.quantity.clone(),
                line.amount_exact.clone(),
                line.amount.clone(),
                tax.join(", "),
            ]
        })
        .collect();
    context.print_table(&["charge", "quantity", "exact", "amount", "tax"], &rows)?;
    context.print(&format!("total {} {}\n", priced.total, priced.currency))
}

pub(super) fn read(file: &Path) -> Result<Result<Tariff, Vec<Fault>>, CliError> {
    Ok(Tariff::read(&file.display().to_string(), &text_of(file)?))
}

fn text_of(file: &Path) -> Result<String, CliError> {
    config::text_of(file).map_err(|error| CliError::failed(format!("cannot read {}: {error}", file.display())))
}

/// Every fault on stderr, a line each.
pub(super) fn tell(faults: &[Fault]) {
    for fault in faults {
        eprintln!("{}: {}", fault.pointer, fault.detail);
    }
}
