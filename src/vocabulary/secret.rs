//! A text that must never reach a log, an answer or a panic message: it shows itself to nobody and cannot be serialized.

use serde::{Deserialize, Deserializer};

/// A password, shared secret or key in clear. No `Display` or `Serialize`, and a `Debug` that shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The clear text, for the one line that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Says only that a secret is there, so that structs holding one can still be debugged.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}
