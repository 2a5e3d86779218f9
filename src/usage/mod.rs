//! Records of RADIUS accounting become sessions and ledger entries, cut at hours, period edges and the edges of windows.
//!
//! In: records the `radius` room has read, and the facts the store knows. Out: states, ledger buckets, verdicts.
//! Never a socket, a statement or a clock: the fold of a session is a function of the set of its distinct reports
//! (HOUSE, decision 3). Any order and any duplicates give the same totals and the same buckets, and the buckets always
//! add up to the totals.
//!
//! A record finds its incarnation (`choose`), the incarnation folds it (`SessionState::fold`), whole hours leave for
//! the ledger (`SessionState::take_ready`). Disorder beyond the bounded tail asks for all records again (`refold`).

mod amount;
mod calls;
mod clock;
mod codec;
mod fingerprint;
mod incarnation;
mod record;
mod report;
mod silence;
mod state;
#[cfg(test)]
mod tests;

pub use amount::{Amount, Buckets, Cuts, LedgerBucket, Wide, entry_bounds};
pub use calls::{Call, CallError, CallLine, CallProfile};
pub use clock::{EventTime, Skew, Told, event_time};
pub use fingerprint::Fingerprint;
pub use incarnation::{Choice, Traced, choose, continued, refold, refold_with, supersede};
pub use record::{Counting, Record, RecordFlags, RecordKind};
pub use report::mark;
pub use silence::{Reported, Silence, SilenceKind, silences};
pub use state::{CloseReason, FoldFacts, Outcome, SessionState, Straddling};

/// Why a record could not be folded: a person must look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// A total would leave 64 bits.
    #[error("the octets of the session leave 64 bits")]
    Overflow,
}
