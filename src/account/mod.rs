//! Desired state of a subscriber: the pushed document becomes an account, or every fault with its pointer.

mod decide;
mod digest;
mod facts;
mod hold;
mod identity;
pub mod json;
mod known;
mod lineage;
mod losses;
mod model;
mod parse;
mod parse_service;
#[cfg(test)]
mod parse_tests;
mod patch;
mod schedule;
mod technical;
mod text;
mod walk;

pub use decide::{Conditions, Decision, Stored, Tags, decide};
pub use digest::{SecretDigests, content_tag, in_order};
pub use facts::ServiceFacts;
pub use hold::{Hold, HoldBilling, HoldError, HoldKind, Treatment};
pub use known::{
    DEFAULT_GARDEN_GROUP, Known, KnownPlan, QuarantineDays, RadiusProfile, ReplyValues, ServiceType, ServiceTypeError,
};
pub use lineage::{loop_of, roll_up};
pub use losses::{Loss, differences, losses};
pub use model::{
    Account, Addon, Address, Device, Due, MAILBOX_PASSWORD, Mailbox, Moment, NextCycle, PriceOverride, Promo, Pushed,
    RADIUS_PASSWORD, Radius, Scheduled, ScheduledAt, SecretChange, Service, Sip, Status, TaxExempt, VoiceLine,
    sip_password,
};
pub use parse::operator_hold;
pub use parse::parse;
pub use patch::{merge, merge_service};
pub use technical::{
    AddonProfile, Boost, DeviceModel, DocsisProfile, Firmware, FlowProfile, GardenFilters, GardenProfile, VoiceProfile,
    VoiceServer,
};
pub(crate) use walk::{Node, Sink};
