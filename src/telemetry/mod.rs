//! What the daemon tells about itself: counters for `/metrics` and the heartbeats that feed the watchdog.
//!
//! Services get a `Metrics` (cheap to clone) and one `Heartbeat` a loop; the daemon renders and watches. Never a label
//! per account, session or modem.

mod heartbeat;
mod labels;
mod metrics;
mod process;

pub use heartbeat::{Heartbeat, Heartbeats, Watch};
pub use labels::{
    Direction, Kind, KindResult, Nas, NasKind, NasReason, NasResult, Outcome, Reason, Request, Target, TargetState,
    Tenant,
};
pub use metrics::Metrics;
