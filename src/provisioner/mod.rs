//! Devices out: brings elements from applied to desired.

pub mod follow;
pub mod modem;
pub mod password;
mod pktinfo;
pub mod plant;
pub mod snapshot;
pub mod tftp;
