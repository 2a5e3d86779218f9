//! Where an answer goes: a datagram from a port to its peer, or a place in the queue of a connection's writer.
//!
//! A place is taken before the request is read, so giving the answer to it never waits and never fails for want of room:
//! a peer that does not read its answers holds up its own requests and nobody else's.

use tokio::sync::mpsc;

use super::port::Peer;

/// Where the answer to a request goes.
#[derive(Debug)]
pub enum Reply {
    /// From the port of this index, from the address that was asked.
    Datagram { port: usize, peer: Peer },
    /// To the writer of the connection the request came on. Dropped unused, the place is free again.
    #[expect(dead_code, reason = "connections are accepted by the next change")]
    Stream(mpsc::OwnedPermit<Vec<u8>>),
}
