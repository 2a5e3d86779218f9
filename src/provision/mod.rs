//! From an account to the elements that must exist for it, and the life of the job that brings each there.

mod devices;
mod element;
mod elements;
mod job;
mod state;

pub use devices::{DEFAULT_DOCSIS, THROTTLED_RATE_BPS};
pub use element::{
    AaaAccess, AaaContent, CmAccess, CmContent, Content, DeviceKind, ElementDesired, ElementKind, ElementKindError,
    MailboxContent, MtaContent, MtaFlow, MtaLine, MtaLocation, MtaSip, SecretRef,
};
pub use elements::{Basis, DEFAULT_QUOTA_MB, OperatorHold, elements, next_change, treatment};
pub use job::{JobError, JobEvent, JobState, backoff};
pub use state::{ElementState, ElementStateError};
