//! Devices out: brings elements from applied to desired.

pub mod follow;
pub mod modem;
pub mod password;
pub mod plant;
mod pktinfo;
pub mod snapshot;
pub mod tftp;
