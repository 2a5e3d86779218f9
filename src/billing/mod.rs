//! Calendar, tariffs, rating and lines; late usage and corrections. Everything here is a function of its arguments: no
//! database, no clock.
//!
//! `calendar` cuts time into periods, `tariff` reads prices, `price` prices one quantity, `run` turns an account's facts
//! into the lines of one run.

pub mod calendar;
pub mod tariff;
