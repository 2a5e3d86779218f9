//! Desired state of a subscriber: the pushed document becomes an account, or every fault with its pointer.

mod hold;
mod known;

pub use hold::{Hold, HoldBilling, HoldError, HoldKind, Treatment};
pub use known::{DEFAULT_GARDEN_GROUP, DocsisProfile, Known, KnownPlan, RadiusProfile, ServiceType, ServiceTypeError};
