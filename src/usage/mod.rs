//! Records of RADIUS accounting become sessions and ledger entries, cut at hours and period edges.
//!
//! In: records the `radius` room has read, and the facts the store knows. Out: states, ledger buckets, verdicts.
//! Never a socket, a statement or a clock: the fold of a session is a function of the set of its distinct reports.

mod record;

pub use record::{Record, RecordFlags, RecordKind};
