//! Another company's list of its subscribers beside ours: every subscriber and service in exactly one class, the counts of
//! both sides with their sums proven, what the difference is worth, and a plan that is applied by its own hash or not at
//! all.
//!
//! In: accounts as a snapshot tells them and as they are stored, one by one and in any order. Out: findings, sums, steps.
//! Reads no snapshot, no database and no clock, and never guesses: who is whom is decided by external ids alone.
//!
//! ```text
//!            told once             told again          not told            cannot be read
//! stored     matched | mismatch    duplicate           missing_there       quarantined
//! not stored missing_here          duplicate           —                   quarantined
//! ```
//! What differs while a change is under way here (changed or provisioned at about the time of the snapshot, or newer than
//! what it tells) is `in_flight` instead: it is listed, it is no error, and nothing is done about it.

mod classify;
mod differ;
mod documents;
mod money;
mod plan;
mod report;
mod tally;
#[cfg(test)]
mod tests;
mod wholesale;

pub use classify::{Action, Class, Finding, Kind, Ours, Theirs, Told, Verdict, classify};
pub use differ::Difference;
pub use documents::{Document, Documents, named};
pub use money::{Effect, Rate, effects};
pub use plan::{Guard, Plan, Proof, Step, Steps};
pub use report::{KindRow, LISTED_MAX, PlanSummary, Report, Ring, RingClass, WholesaleCount};
pub use tally::{Cell, Invariant, Sums, Tally};
pub use wholesale::{Counting, Filter};
