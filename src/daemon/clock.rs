//! The system clock: the only place of the program that reads it. Everything else is handed a `Clock` or an instant.

use crate::vocabulary::{Clock, Timestamp};

/// The machine's clock. Nothing outside the program can shift it.
pub fn system() -> Clock {
    Clock::new(Timestamp::now)
}
