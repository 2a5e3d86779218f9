//! The daemon with SQLite's `synchronous=NORMAL`: the control of the power-cut proof, which must lose records here.
//!
//! `undurable CONFIG` serves until it is killed. No configuration can make `lastmile serve` behave like this.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lastmile::daemon::config::Config;
use lastmile::daemon::{Daemon, DaemonError, clock};
use lastmile::store::Durability;

#[derive(Parser)]
struct Options {
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = serve(&Options::parse()).await;
    eprintln!("undurable: {error}");
    ExitCode::FAILURE
}

async fn serve(options: &Options) -> Result<std::convert::Infallible, DaemonError> {
    let loaded = Config::load(&options.config)?;
    let mut daemon = Daemon::start_with(&loaded.config, clock::system(), Durability::Normal).await?;
    Err(daemon.failure().await)
}
