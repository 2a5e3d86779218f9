//! From the committer to the fold: what was just committed, so that it need not be read from the journal again.
//!
//! A shortcut and nothing more: bounded, and when it is full the fold reads the journal instead.

use tokio::sync::mpsc;

use crate::store::journal::JournalEntry;

/// Entries of one commit, in their order.
#[derive(Debug)]
pub struct Committed {
    pub lane: i64,
    pub first_seq: i64,
    pub entries: Vec<JournalEntry>,
}

/// The committer's end.
#[derive(Debug, Clone)]
pub struct Feed(mpsc::Sender<Committed>);

/// The fold's end.
pub type Fed = mpsc::Receiver<Committed>;

impl Feed {
    pub fn new() -> (Self, Fed) {
        let (sender, receiver) = mpsc::channel(COMMITS_MAX);
        (Self(sender), receiver)
    }

    /// Tells the fold. When it is far behind, or gone, these entries only stand in the journal.
    pub fn tell(&self, committed: Committed) {
        let _: Result<(), _> = self.0.try_send(committed);
    }
}

/// Commits that wait for the fold; at 512 records each about 10 MiB.
const COMMITS_MAX: usize = 64;
