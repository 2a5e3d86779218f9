//! From an account to the elements that must exist for it, and the life of the job that brings each there.

mod authorization;
mod convergence;
mod devices;
mod element;
mod elements;
mod job;
mod proof;
mod state;

pub use authorization::{Authorization, Login, SessionMeans, SessionPush};
pub use convergence::{BOOT_ALLOWANCE, DeviceFacts, Means, ResetSent, Running, Settled, Step, next_step};
pub use devices::{DEFAULT_DOCSIS, THROTTLED_RATE_BPS};
pub use element::{
    AaaAccess, AaaContent, CmAccess, CmContent, Content, DeviceKind, ElementDesired, ElementKind, ElementKindError,
    MailboxContent, MtaContent, MtaFlow, MtaLine, MtaLocation, MtaSip, SecretRef,
};
pub use elements::{Basis, DEFAULT_QUOTA_MB, OperatorHold, elements, next_change, treatment};
pub use job::{JobError, JobEvent, JobState, backoff};
pub use proof::{CmtsAnswer, ModemAnswer, Standing, Verdict, judge_cmts, judge_modem, judge_mta, refused};
pub use state::{ElementState, ElementStateError};
