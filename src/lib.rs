//! THE MAP (completed as rooms are built).

pub mod account;
pub mod biller;
pub mod billing;
pub mod catalog;
pub mod cli;
pub mod collector;
pub mod daemon;
pub mod docsis;
pub mod intake;
pub mod provision;
pub mod provisioner;
pub mod radius;
pub mod store;
pub mod telemetry;
pub mod tftp;
pub mod usage;
pub mod vocabulary;
