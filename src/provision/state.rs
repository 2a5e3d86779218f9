//! Where an element stands between what is desired and what the outside really has; the word the API shows.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Where an element stands. The text form is the `state` column of `element`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementState {
    /// The newest desired content is not known to be in force yet.
    Pending,
    /// The newest desired content is in force, with evidence.
    Applied,
    /// It cannot be brought there until a person mends something.
    Failed,
    /// The device does not answer; it is brought there when it comes back.
    Offline,
    /// It was removed, as desired.
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no state of an element; states are pending, applied, failed, offline, gone")]
pub struct ElementStateError(String);

impl ElementState {
    pub const ALL: [ElementState; 5] =
        [ElementState::Pending, ElementState::Applied, ElementState::Failed, ElementState::Offline, ElementState::Gone];

    pub fn as_str(self) -> &'static str {
        match self {
            ElementState::Pending => "pending",
            ElementState::Applied => "applied",
            ElementState::Failed => "failed",
            ElementState::Offline => "offline",
            ElementState::Gone => "gone",
        }
    }
}

impl fmt::Display for ElementState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ElementState {
    type Err = ElementStateError;
    fn from_str(text: &str) -> Result<Self, ElementStateError> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| ElementStateError(text.to_owned()))
    }
}
