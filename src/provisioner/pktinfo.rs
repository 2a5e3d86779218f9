//! Receives a datagram together with the local address it was sent to, so that the answer comes from there: a modem
//! drops an answer from another address of the same server.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
    setsockopt, sockopt::Ipv4PacketInfo, sockopt::Ipv6RecvPacketInfo,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A datagram as it came.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    pub octets: usize,
    pub peer: SocketAddr,
    /// The address of ours that it was sent to.
    pub local: IpAddr,
}

/// Asks the kernel to tell the local address; needed once, and only where the socket listens on every address.
pub fn enable(socket: &UdpSocket) -> io::Result<()> {
    match socket.local_addr()? {
        SocketAddr::V4(_) => setsockopt(socket, Ipv4PacketInfo, &true)?,
        SocketAddr::V6(_) => setsockopt(socket, Ipv6RecvPacketInfo, &true)?,
    }
    Ok(())
}

/// The next datagram; what does not fit `buffer` is cut off.
pub async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    let bound = socket.local_addr()?.ip();
    socket.async_io(Interest::READABLE, || receive_now(socket.as_raw_fd(), buffer, bound)).await
}

fn receive_now(fd: i32, buffer: &mut [u8], bound: IpAddr) -> io::Result<Received> {
    let mut control = nix::cmsg_space!(nix::libc::in_pktinfo, nix::libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
    let told = message.cmsgs()?.find_map(|item| match item {
        ControlMessageOwned::Ipv4PacketInfo(told) => {
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(told.ipi_spec_dst.s_addr))))
        }
        ControlMessageOwned::Ipv6PacketInfo(told) => Some(IpAddr::V6(Ipv6Addr::from(told.ipi6_addr.s6_addr))),
        _ => None,
    });
    let peer =
        message.address.as_ref().and_then(peer_address).ok_or_else(|| io::Error::other("a datagram without sender"))?;
    Ok(Received { octets: message.bytes, peer, local: told.unwrap_or(bound) })
}

fn peer_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}

/// The next datagram if one has come already.
pub fn try_receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    let bound = socket.local_addr()?.ip();
    socket.try_io(Interest::READABLE, || receive_now(socket.as_raw_fd(), buffer, bound))
}

/// Sends from one of our addresses without waiting; from any thread.
///
/// **Errors**: the kernel has no room for it, or no way there.
pub fn send(socket: &UdpSocket, octets: &[u8], to: SocketAddr, local: IpAddr) -> io::Result<()> {
    let parts = [IoSlice::new(octets)];
    let flags = MsgFlags::MSG_DONTWAIT;
    match (to, local.to_canonical()) {
        (SocketAddr::V4(to), IpAddr::V4(local)) => {
            let from = nix::libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: nix::libc::in_addr { s_addr: u32::from(local).to_be() },
                ipi_addr: nix::libc::in_addr { s_addr: 0 },
            };
            let told = [ControlMessage::Ipv4PacketInfo(&from)];
            sendmsg(socket.as_raw_fd(), &parts, &told, flags, Some(&SockaddrIn::from(to)))?;
        }
        (SocketAddr::V6(to), _) => {
            sendmsg(socket.as_raw_fd(), &parts, &[], flags, Some(&SockaddrIn6::from(to)))?;
        }
        (SocketAddr::V4(to), IpAddr::V6(_)) => {
            sendmsg(socket.as_raw_fd(), &parts, &[], flags, Some(&SockaddrIn::from(to)))?;
        }
    }
    Ok(())
}
