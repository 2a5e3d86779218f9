//! From the committer to the fold: what was just committed, so that it need not be read from the journal again.
//!
//! A shortcut and nothing more: bounded, and when it is full the fold reads the journal instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
pub struct Feed {
    sender: mpsc::UnboundedSender<Committed>,
    /// Entries on their way.
    waiting: Arc<AtomicUsize>,
}

/// The fold's end.
#[derive(Debug)]
pub struct Fed {
    receiver: mpsc::UnboundedReceiver<Committed>,
    waiting: Arc<AtomicUsize>,
}

impl Feed {
    pub fn new() -> (Self, Fed) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        (Self { sender, waiting: Arc::clone(&waiting) }, Fed { receiver, waiting })
    }

    /// Tells the fold. When it is far behind, or gone, these entries only stand in the journal.
    pub fn tell(&self, committed: Committed) {
        let entries = committed.entries.len();
        if self.waiting.load(Ordering::Relaxed) + entries > ENTRIES_MAX {
            return;
        }
        self.waiting.fetch_add(entries, Ordering::Relaxed);
        // Nobody listens when the fold has ended.
        let _: Result<(), _> = self.sender.send(committed);
    }
}

impl Fed {
    /// The next commit; `None` when there will be none.
    pub async fn recv(&mut self) -> Option<Committed> {
        let committed = self.receiver.recv().await;
        committed.inspect(|committed| self.took(committed))
    }

    /// The next commit that is already there.
    pub fn try_recv(&mut self) -> Option<Committed> {
        let committed = self.receiver.try_recv().ok();
        committed.inspect(|committed| self.took(committed))
    }

    fn took(&self, committed: &Committed) {
        self.waiting.fetch_sub(committed.entries.len(), Ordering::Relaxed);
    }
}

/// Entries that wait for the fold; about 10 MiB.
const ENTRIES_MAX: usize = 32_768;
