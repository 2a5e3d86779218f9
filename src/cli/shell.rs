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

/// Prints the manual page in troff, every command on the one page.
pub fn man(context: &Context) -> Result<Exit, CliError> {
    let mut command = super::Cli::command();
    command.build();
    let page = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    text.extend_from_slice(b".SH COMMANDS\n");
    describe(&command, "lastmile", &mut text);
    text.extend_from_slice(EXIT_STATUS.as_bytes());
    context.print(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}

/// One paragraph a command that does something, in the order of the help.
fn describe(command: &clap::Command, path: &str, text: &mut Vec<u8>) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        if sub.has_subcommands() {
            describe(sub, &path, text);
            continue;
        }
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let usage = sub.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").replace('-', "\\-");
        text.extend_from_slice(format!(".TP\n.B {usage}\n{about}.\n").as_bytes());
    }
}

const EXIT_STATUS: &str = ".SH \"EXIT STATUS\"\n0 done, 1 failed, 2 usage, 3 the answer is no (not found, differences found, \
check not passed), 4 daemon or database unreachable.\n";
