//! What an import did: read, new, already known, refused with the place and the reason.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counts of one import; `faults` is bounded, the counts are not.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Files, tables or dumps in their order.
    pub files: Vec<Counts>,
    /// The first faults.
    pub faults: Vec<Refusal>,
    /// What was not wanted, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Attributes that no dictionary explains and that decide nothing, by name: their records came in without them.
    pub left_out: BTreeMap<String, u64>,
}

/// Counts of one file.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub name: String,
    /// Records that were found whole.
    pub read: u64,
    pub new: u64,
    /// Of the new ones: older than their session remembers; the fold compares them with the journal.
    pub older: u64,
    pub known: u64,
    /// Records or places that cannot come in.
    pub refused: u64,
}

/// Something that did not come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub file: String,
    pub line: u64,
    pub detail: String,
}

impl Summary {
    pub(super) fn begin(&mut self, name: &str) {
        self.files.push(Counts { name: name.to_owned(), ..Counts::default() });
    }

    pub(super) fn read(&mut self, records: u64) {
        self.current().read += records;
    }

    pub(super) fn new_record(&mut self, older: bool) {
        let current = self.current();
        current.new += 1;
        current.older += u64::from(older);
    }

    pub(super) fn known(&mut self) {
        self.current().known += 1;
    }

    pub(super) fn refuse(&mut self, line: u64, detail: String) {
        let current = self.current();
        current.refused += 1;
        let file = current.name.clone();
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Refusal { file, line, detail });
        }
    }

    pub(super) fn skip(&mut self, reason: &str) {
        count(&mut self.skipped, reason);
    }

    pub(super) fn leave_out(&mut self, name: &str) {
        count(&mut self.left_out, name);
    }

    /// Everything together.
    pub fn total(&self) -> Counts {
        self.files.iter().fold(Counts::default(), |sum, one| Counts {
            name: String::new(),
            read: sum.read + one.read,
            new: sum.new + one.new,
            older: sum.older + one.older,
            known: sum.known + one.known,
            refused: sum.refused + one.refused,
        })
    }

    fn current(&mut self) -> &mut Counts {
        if self.files.is_empty() {
            self.begin("");
        }
        self.files.last_mut().expect("just begun")
    }
}

/// Names come from files: only so many of them are told apart.
fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    let name = if counts.len() < NAMES_MAX || counts.contains_key(name) { name } else { "others" };
    *counts.entry(name.to_owned()).or_default() += 1;
}

const FAULTS_MAX: usize = 1_000;
const NAMES_MAX: usize = 200;
