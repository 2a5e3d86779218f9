//! A fault names one place in a document and what is wrong there; a door that refuses a document answers with all of them.

use serde::Serialize;

/// One thing wrong with a document.
///
/// **Shape**: `pointer` is a JSON Pointer (RFC 6901) into the refused body, or `file:line:column` for a text file;
/// `detail` is one sentence for the person who must mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub pointer: String,
    pub detail: String,
}

/// Collects every fault of a document, so that nobody mends them one push at a time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Fault { pointer: pointer.into(), detail: detail.into() });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }

    /// `Ok(value)` when nothing was wrong, else every fault.
    pub fn settle<T>(self, value: T) -> Result<T, Vec<Fault>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}
