//! From an account to the elements that must exist for it, and the life of the job that brings each there.

mod element;
mod elements;
mod job;
mod state;

pub use element::{
    AaaAccess, AaaContent, CmAccess, CmContent, Content, ElementDesired, ElementKind, ElementKindError, MailboxContent,
    SecretRef,
};
pub use elements::{
    Basis, DEFAULT_DOCSIS, DEFAULT_QUOTA_MB, OperatorHold, THROTTLED_RATE_BPS, elements, next_change, treatment,
};
pub use job::{JobError, JobEvent, JobState, backoff};
pub use state::{ElementState, ElementStateError};
