//! The one integration binary: house rules, the store's contract on both databases, journeys with real peers.

mod aaa;
mod demo;
mod docsis;
mod fold;
mod harness;
mod house_rules;
mod job_contract;
mod mail;
mod ops;
mod store_contract;
mod tftp;
