//! Calendar, tariffs, rating and lines; late usage and corrections. Everything here is a function of its arguments: no
//! database, no clock.
//!
//! `calendar` cuts time into periods, `tariff` reads prices, `price` and `tax` price one quantity, `ladder` the usual one
//! faster; `items` finds what a run has to look at, `groups`, `allowance` and `top_up` what items share, `coverage`,
//! `measure` and `parts` what is billed of it,
//! `offer`, `deposit`, `count` and `charges` what is special about some, and `run` makes the lines. `balance` and
//! `thresholds` look at a period that runs, `explain` and `shared` at a line that was made.

pub mod allowance;
pub mod assurance;
pub mod balance;
pub mod calendar;
mod calls;
pub mod charges;
pub mod class;
pub mod compare;
pub mod count;
mod coverage;
mod deposit;
pub mod explain;
pub mod facts;
#[cfg(test)]
mod golden;
pub mod groups;
pub mod handshake;
pub mod history;
#[cfg(test)]
mod invariants;
mod items;
mod ladder;
pub mod lines;
mod measure;
pub mod month_end;
mod offer;
mod parts;
mod peak;
#[cfg(test)]
mod peers;
pub mod price;
pub mod quote;
pub mod run;
pub mod shared;
pub mod simulate;
pub mod tariff;
pub mod tax;
pub mod tax_batch;
pub mod thresholds;
pub mod top_up;
pub mod view;
mod wide;
pub mod window;

pub use wide::{account_wide, wholesale};

pub use crate::usage::Straddling;
