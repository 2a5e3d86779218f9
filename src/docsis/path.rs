//! The place of a TLV in a file, in the words of a message: `24[2].8 (UsServiceFlow.MaxRateSustained)`.

use std::fmt;

/// Types from the top level down, each with its occurrence where it is not the first of its type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path {
    codes: String,
    names: String,
}

impl Path {
    /// The place of the `nth` (from 1) TLV of a type below this one.
    pub fn child(&self, code: u8, nth: usize, name: Option<&str>) -> Self {
        let occurrence = if nth > 1 { format!("[{nth}]") } else { String::new() };
        let unnamed = format!("Tlv{code}");
        Self {
            codes: joined(&self.codes, &format!("{code}{occurrence}")),
            names: joined(&self.names, name.unwrap_or(&unnamed)),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.codes, self.names)
    }
}

/// Counts the occurrences of each type among siblings.
#[derive(Debug, Default)]
pub struct Occurrences(std::collections::BTreeMap<u8, usize>);

impl Occurrences {
    pub fn next(&mut self, code: u8) -> usize {
        let count = self.0.entry(code).or_default();
        *count += 1;
        *count
    }
}

fn joined(parent: &str, child: &str) -> String {
    if parent.is_empty() { child.to_owned() } else { format!("{parent}.{child}") }
}
