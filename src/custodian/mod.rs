//! Keeps what must stay as it was, and lets go of what must not stay: chains the audit, drops what is older than a tenant's
//! retention. In: the store and the clock. Out: signed heads in the log and the metrics, rows that are gone. It serves nobody.

mod chain;
mod retention;

pub use chain::Chain;
pub use retention::{Forgotten, Retention};
