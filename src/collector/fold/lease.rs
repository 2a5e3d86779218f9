//! Who folds: at most one process of an installation, and whether what it remembers is still true.
//!
//! Every folding transaction begins with a turn of the claim in the database, whose epoch grows by one each time. A turn
//! that is not the one after ours means that another process, or a bill run, wrote meanwhile: nothing remembered holds.
//! On PostgreSQL a holder that takes no turn for three seconds is replaced; SQLite has one daemon, which takes it at once.

use std::time::{Duration, Instant};

use crate::store::{Dialect, StoreError, Tx, fold};
use crate::vocabulary::Timestamp;

/// This process's hold on the claim.
#[derive(Debug)]
pub(super) struct Lease {
    owner: String,
    /// Epoch of our last committed turn; `None` when its end is not known.
    epoch: Option<i64>,
    /// Another holder's name and last turn, and since when we see it unchanged.
    other: Option<(String, i64, Instant)>,
}

/// A turn that was taken; it counts once its transaction is committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    epoch: i64,
    /// Nobody wrote since our last turn: what is remembered of sessions and watermarks is true.
    pub continued: bool,
}

impl Lease {
    /// `owner` must differ from that of every other fold, of this process too.
    pub fn new(owner: String) -> Self {
        Self { owner, epoch: None, other: None }
    }

    /// Whether our last turn was committed and no later one failed.
    pub fn is_held(&self) -> bool {
        self.epoch.is_some()
    }

    /// Begins a folding transaction; `None` while another process folds.
    pub async fn turn(&mut self, tx: &mut Tx, now: Timestamp) -> Result<Option<Turn>, StoreError> {
        let last = self.epoch.take();
        let epoch = match fold::take_turn(tx, &self.owner, now).await? {
            Some(epoch) => Some(epoch),
            None => self.take_over(tx, now).await?,
        };
        Ok(epoch.map(|epoch| Turn { epoch, continued: last.is_some_and(|last| last + 1 == epoch) }))
    }

    /// The turn's transaction is committed.
    pub fn keep(&mut self, turn: Turn) {
        self.epoch = Some(turn.epoch);
        self.other = None;
    }

    /// Lets another process fold at once.
    pub async fn release(&mut self, tx: &mut Tx) -> Result<(), StoreError> {
        self.epoch = None;
        fold::release(tx, &self.owner).await
    }

    async fn take_over(&mut self, tx: &mut Tx, now: Timestamp) -> Result<Option<i64>, StoreError> {
        let (owner, renewed_at) = fold::claim(tx).await?;
        let free = owner.is_empty() || tx.dialect() == Dialect::Sqlite;
        let seen = match &self.other {
            Some((name, at, since)) if (name, *at) == (&owner, renewed_at) => since.elapsed(),
            _ => {
                self.other = Some((owner.clone(), renewed_at, Instant::now()));
                Duration::ZERO
            }
        };
        if !free && seen < PATIENCE {
            return Ok(None);
        }
        let epoch = fold::take_over(tx, &self.owner, (&owner, renewed_at), now).await?;
        if epoch.is_some() && !owner.is_empty() && !free {
            tracing::warn!(
                "{owner} stopped folding accounting records without a word; this daemon goes on in its place."
            );
        }
        Ok(epoch)
    }
}

/// A holder that took no turn for so long is gone: it takes one a second when it has nothing to do.
const PATIENCE: Duration = Duration::from_secs(3);
