//! Devices out: brings elements from applied to desired. Jobs come from the store, one lane a kind; modems get their
//! files by TFTP from memory, mailboxes and RADIUS logins their rows in the databases of the programs that serve them.

pub mod aaa;
pub mod backend;
pub mod cmts;
pub mod device;
pub mod dhcp;
pub mod doveadm;
pub mod engine;
pub mod enrolment;
pub mod fetch_loop;
pub mod follow;
mod forgetting;
pub mod health;
pub mod kea;
pub mod lease_journal;
pub mod leases;
pub mod lines;
pub mod mail_wakes;
pub mod mailbox;
pub mod modem;
pub mod mta;
pub mod password;
mod pktinfo;
pub mod plant;
pub mod results;
pub mod rollout;
pub mod snapshot;
pub mod snmp;
pub mod sweep;
pub mod tftp;
pub mod tod;
pub mod window;

pub use aaa::{Aaa, PasswordStorage};
pub use backend::Backends;
pub use engine::{Engine, run};
