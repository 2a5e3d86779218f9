//! `serve`: the daemon in the foreground.

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::daemon;

/// Runs the daemon until it is told to stop.
pub async fn run(context: &Context) -> Result<Exit, CliError> {
    daemon::serve(&context.config_path).await?;
    Ok(Exit::Done)
}
