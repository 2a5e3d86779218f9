//! How a command ends: the exit codes scripts rely on, and the error that carries one.

use std::error::Error;
use std::process::ExitCode;

use crate::store::StoreError;

/// The exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It failed; the message says why.
    Failed = 1,
    /// The command line itself was wrong.
    Usage = 2,
    /// The answer is "no": not found, differences found, check not passed.
    No = 3,
    /// The daemon or its database cannot be reached.
    Unreachable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command stopped: one line for the person at the keyboard, and the exit code.
///
/// A `StoreError` that says the database is away becomes exit 4, anything else exit 1.
///
/// Deliberately no `std::error::Error` itself, so that `?` can turn any error into one.
#[derive(Debug)]
pub struct CliError {
    pub exit: Exit,
    pub message: String,
}

impl CliError {
    /// Exit 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }
    /// Exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }
    /// Exit 3.
    pub fn no(message: impl Into<String>) -> Self {
        Self { exit: Exit::No, message: message.into() }
    }
    /// Exit 4.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, message: message.into() }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        Self { exit: if database_down(&error) { Exit::Unreachable } else { Exit::Failed }, message: sentence(&error) }
    }
}

/// A text so that a terminal shows it and does nothing else: what was read from elsewhere may be among it.
pub fn visible(text: &str) -> String {
    let safe = |letter: &char| !letter.is_control() || matches!(letter, '\n' | '\t');
    text.chars().fold(String::with_capacity(text.len()), |mut shown, letter| {
        match safe(&letter) {
            true => shown.push(letter),
            false => shown.extend(letter.escape_default()),
        }
        shown
    })
}

/// Whether the error, or what caused it, is a database that cannot be used now.
fn database_down(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<StoreError>().is_some_and(StoreError::is_unavailable)
        || error.source().is_some_and(database_down)
}

/// The error and its causes on one line, without saying the same thing twice.
fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_only_shown() {
        assert_eq!(visible("id \u{1b}[2J\u{7}\n\ttwo é\r"), "id \\u{1b}[2J\\u{7}\n\ttwo é\\r");
    }

    use crate::biller::{ApprovalError, BillerError};
    use crate::store::rating::RatingError;

    #[test]
    fn database_that_is_away_is_exit_4_however_deep_it_lies() {
        let away = || StoreError::Unavailable("the disk is full".to_owned());
        let run = || BillerError::Rating(RatingError::Store(away()));
        for error in [
            CliError::from(away()),
            CliError::from(BillerError::Store(away())),
            CliError::from(run()),
            CliError::from(ApprovalError::Run(run())),
            CliError::from(ApprovalError::Store(away())),
        ] {
            assert_eq!(error.exit, Exit::Unreachable, "{}", error.message);
            assert_eq!(error.message.matches("the disk is full").count(), 1, "{}", error.message);
        }
        assert_eq!(CliError::from(BillerError::Busy("c15".to_owned())).exit, Exit::Failed);
    }
}
