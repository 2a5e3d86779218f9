//! Builds, wires, starts and stops the services; the configuration file, the system clock and the log are its own.

pub mod clock;
pub mod config;
