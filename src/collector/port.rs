//! One bound UDP socket: datagrams with the local address they were sent to, answers from that same address.
//!
//! A socket bound to `0.0.0.0` or `::` serves every address of the machine; a NAS that asked at one of them drops an
//! answer from another. So the kernel tells the addressed one (IP_PKTINFO, RFC 3542) and is told it back.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::radius::PACKET_MAX;

/// A socket on which RADIUS is served.
pub struct Port {
    socket: UdpSocket,
    address: SocketAddr,
}

/// Where a datagram came from, and at which of our addresses it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub address: SocketAddr,
    local: Option<Local>,
}

#[derive(Debug, Clone, Copy)]
enum Local {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

/// Room for one datagram and what the kernel tells about it; used again for each.
pub struct Room {
    octets: Box<[u8; PACKET_MAX]>,
    control: Vec<u8>,
}

/// A datagram in a [`Room`].
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    pub octets: &'a [u8],
    pub peer: Peer,
    /// Datagrams the kernel has dropped on this socket so far because its buffer was full.
    pub overflowed: Option<u32>,
}

impl Room {
    pub fn new() -> Self {
        Self { octets: Box::new([0; PACKET_MAX]), control: cmsg_space!(in6_pktinfo, in_pktinfo, u32) }
    }
}

impl Port {
    /// **Errors**: the kernel refuses to tell the addressed local address.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        if address.ip().is_unspecified() {
            match address {
                SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
                SocketAddr::V6(_) => {
                    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
                    // Without IPV6_V6ONLY the socket also receives IPv4, whose addresses come mapped.
                }
            }
        }
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        Ok(Self { socket, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The next datagram that is already there; `WouldBlock` when there is none. Octets beyond the longest RADIUS
    /// packet can only be padding and are cut off.
    pub fn receive<'r>(&self, room: &'r mut Room) -> io::Result<Datagram<'r>> {
        let Room { octets, control } = room;
        control.resize(control.capacity(), 0);
        let (length, source, local, overflowed) = self.socket.try_io(Interest::READABLE, || {
            let mut slices = [IoSliceMut::new(&mut octets[..])];
            let message = recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(control.as_mut_slice()),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let (mut local, mut overflowed) = (None, None);
            for told in message.cmsgs().into_iter().flatten() {
                match told {
                    ControlMessageOwned::Ipv4PacketInfo(info) => local = Some(Local::V4(info)),
                    ControlMessageOwned::Ipv6PacketInfo(info) => local = Some(Local::V6(info)),
                    ControlMessageOwned::RxqOvfl(count) => overflowed = Some(count),
                    _ => {}
                }
            }
            let source = message.address.as_ref().and_then(socket_address);
            let source = source.ok_or_else(|| io::Error::other("a datagram without a source address"))?;
            Ok((message.bytes, source, local, overflowed))
        })?;
        let octets = &octets[..length.min(PACKET_MAX)];
        Ok(Datagram { octets, peer: Peer { address: source, local }, overflowed })
    }

    /// Sends an answer to a peer from the address it asked at.
    ///
    /// **Errors**: the kernel's; the NAS will ask again.
    pub async fn answer(&self, octets: &[u8], peer: &Peer) -> io::Result<()> {
        match self.try_answer(octets, peer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.socket.writable().await?;
                self.try_answer(octets, peer)
            }
            sent => sent,
        }
    }

    /// As `answer`, without waiting: `WouldBlock` when the send buffer is full.
    pub fn try_answer(&self, octets: &[u8], peer: &Peer) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || {
            let target = SockaddrStorage::from(peer.address);
            let slices = [IoSlice::new(octets)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = self.socket.as_raw_fd();
            match peer.local {
                None => sendmsg(fd, &slices, &[], flags, Some(&target))?,
                Some(Local::V4(info)) => {
                    // The route decides the interface; only the source address is ours to say.
                    let info = in_pktinfo { ipi_ifindex: 0, ..info };
                    sendmsg(fd, &slices, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&target))?
                }
                Some(Local::V6(info)) => {
                    // A link-local address means nothing without its interface.
                    let link_local = info.ipi6_addr.s6_addr[..2] == [0xfe, 0x80];
                    let info = in6_pktinfo { ipi6_ifindex: if link_local { info.ipi6_ifindex } else { 0 }, ..info };
                    sendmsg(fd, &slices, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&target))?
                }
            };
            Ok(())
        })
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        let v4: &SockaddrIn = v4;
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6: &SockaddrIn6 = address.as_sockaddr_in6()?;
    Some(SocketAddr::V6(std::net::SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id())))
}
