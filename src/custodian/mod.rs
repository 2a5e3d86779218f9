//! Keeps what must be kept as it was, and lets go of what must not be kept: chains the audit, drops what is older than a
//! tenant's retention. In: the store and the clock. Out: signed heads in the log and the metrics. It serves nobody.

mod chain;

pub use chain::Chain;
