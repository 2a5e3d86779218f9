//! The one integration binary: house rules, the store's contract on both databases, journeys with real peers.

mod aaa;
mod api;
mod auto_close;
mod billing;
mod demo;
mod docsis;
mod fold;
mod harness;
mod house_rules;
mod imports;
mod job_contract;
mod journal;
mod journald;
mod kill;
mod load;
mod mail;
mod main_job;
mod ops;
mod outage;
mod ports;
mod radsec;
mod reload;
mod store_contract;
mod tftp;
mod tls;
