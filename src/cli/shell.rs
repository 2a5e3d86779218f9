//! What packagers need: shell completions and the manual page, made from the commands themselves.

use clap::CommandFactory;
use clap_complete::Shell;

use super::context::Context;
use super::exit::{CliError, Exit};

/// Prints the completion script of `shell`.
pub fn completions(shell: Shell, context: &Context) -> Result<Exit, CliError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut super::Cli::command(), "lastmile", &mut text);
    context.print(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}

/// Prints the manual page in troff, all commands on one page.
pub fn man(context: &Context) -> Result<Exit, CliError> {
    let mut text = Vec::new();
    clap_mangen::Man::new(super::Cli::command()).render(&mut text)?;
    context.print(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}
