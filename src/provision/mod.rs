//! From an account to the elements that must exist for it, and the life of the job that brings each there.

mod authorization;
mod convergence;
mod devices;
mod element;
mod elements;
mod health;
mod job;
mod placeholders;
mod proof;
mod rollout;
mod state;

pub use authorization::{Authorization, Login, SessionMeans, SessionPush};
pub use convergence::{BOOT_ALLOWANCE, DeviceFacts, Means, ResetSent, Running, Settled, Step, next_step};
pub use devices::{DEFAULT_DOCSIS, DEFAULT_MTA_HASH, THROTTLED_RATE_BPS};
pub use element::{
    AaaAccess, AaaContent, CmAccess, CmContent, Content, DeviceKind, ElementDesired, ElementKind, ElementKindError,
    FirmwareContent, GardenContent, MailboxContent, MtaContent, MtaLine, MtaLocation, MtaSip, SecretRef,
};
pub use elements::{Basis, DEFAULT_QUOTA_MB, OperatorHold, elements, next_change, treatment};
pub use health::{Finding, Health, Severity, findings, summary, tenths};
pub use job::{JobError, JobEvent, JobState, backoff};
pub use placeholders::{CM_PLACEHOLDERS, LINE_PLACEHOLDERS, MTA_PLACEHOLDERS, SIP_PASSWORD};
pub use proof::{CmtsAnswer, ModemAnswer, Standing, Verdict, judge_cmts, judge_modem, judge_mta, refused};
pub use rollout::{
    Decision, MemberFacts, Phase, RolloutMode, RolloutPolicy, Tally, decide_rollout, phase_of, reset_is_due,
};
pub use state::{ElementState, ElementStateError};
