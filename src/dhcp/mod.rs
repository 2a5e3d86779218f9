//! DHCPv4 for cable plants as a protocol machine: requests that a CMTS relayed come in, answers and lease changes go out.
//!
//! Owns no socket, no timer, no file. RFC 2131 and 2132 with the options of RFC 3046 (relay agent information), 3396
//! (long options), 3495 (CableLabs client configuration) and 8357 (a relay's own source port). It serves only what comes
//! through a relay it knows, and a client that renews what it has; a broadcast on a local network is never answered.
//!
//! - `message`: the octets of a request, read without copying
//! - `reply`: the octets of an answer
//! - `about`: what a device tells of itself (options 43 and 60)
//! - `network`: subnets of a CMTS, by kind of device
//! - `table`: who has which address until when
//! - `client`: the other side, for load programs and tests
//! - `decide`: request, facts and table → answer and change

mod about;
pub mod client;
mod decide;
mod message;
mod network;
mod reply;
mod table;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use about::{About, ClientKind};
pub use decide::{Access, Answer, Asker, Change, Context, Facts, Outcome, Silence, Site, Subscriber, decide};
pub use message::{Malformed, MessageType, RelayInformation, Request, modem_of};
pub use network::{Network, NetworkKind, Pool, PoolError, Subnet, SubnetError};
pub use reply::{Options, ReplyKind, realm_labels};
pub use table::{Lease, LeaseState, Table};

/// Option numbers of RFC 2132 and those of the documents above.
mod option {
    pub const SUBNET_MASK: u8 = 1;
    pub const TIME_OFFSET: u8 = 2;
    pub const ROUTER: u8 = 3;
    pub const TIME_SERVER: u8 = 4;
    pub const NAME_SERVER: u8 = 6;
    pub const LOG_SERVER: u8 = 7;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const VENDOR: u8 = 43;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLASS: u8 = 60;
    pub const CLIENT: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    pub const RELAY: u8 = 82;
    pub const CABLELABS: u8 = 122;
    pub const END: u8 = 255;
}

/// RFC 2131 section 3: the first octets of the options field.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Octets before the options, with the cookie.
const HEADER: usize = 240;
