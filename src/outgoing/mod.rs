//! What leaves this house: where an event may be sent to, how it is signed, in which order, and when it is sent again.
//!
//! In: texts, addresses, answers, instants and random numbers. Out: decisions. It opens no socket, looks no name up and
//! knows no clock; `dispatcher` does what is decided here, and `intake` refuses what may not be registered.

mod address;
mod letter;
mod mail;
mod order;
mod schedule;
mod sign;

pub use address::{Allowed, Target, TargetError, is_public};
pub use letter::{Letter, LetterError, Letters, Medium, TEMPLATE_MAX, filled};
pub use mail::{Mail, Mailbox, MailboxError, message};
pub use order::{Held, Order};
pub use schedule::{Answer, Verdict, judge};
pub use sign::{SECRET_PREFIX, SigningKey, SigningKeyError, signatures};
