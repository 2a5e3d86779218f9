//! Binds every socket of the configuration before anything is served, so that "ready" is true when it is said.

use std::net::{Ipv6Addr, SocketAddr};

use async_snmp::notification::NotificationReceiver;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use super::DaemonError;
use super::config::{Config, DhcpDriver};
use crate::intake::ways::Listening;
use crate::provisioner::enrolment;

/// All sockets, bound and not yet served.
pub struct Sockets {
    pub api: std::net::TcpListener,
    /// For billing systems that connect.
    pub sources: Vec<Listening>,
    pub accounting: Vec<UdpSocket>,
    pub radsec: Vec<TcpListener>,
    pub tftp: Option<UdpSocket>,
    pub dhcp: Option<UdpSocket>,
    pub tod: Option<(UdpSocket, TcpListener)>,
    pub informs: Option<NotificationReceiver>,
}

/// Where the daemon answers; a configured port 0 has become a real one.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub api: SocketAddr,
    /// For billing systems that connect.
    pub sources: Vec<SocketAddr>,
    pub accounting: Vec<SocketAddr>,
    pub radsec: Vec<SocketAddr>,
    pub tftp: Option<SocketAddr>,
    pub dhcp: Option<SocketAddr>,
    pub tod: Option<SocketAddr>,
    /// INFORMs of MTAs.
    pub informs: Option<SocketAddr>,
}

impl std::fmt::Display for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Serving HTTP on {}", self.api)?;
        for address in &self.sources {
            write!(f, ", billing systems on {address}")?;
        }
        for address in &self.accounting {
            write!(f, ", RADIUS accounting on {address}")?;
        }
        for address in &self.radsec {
            write!(f, ", RadSec on {address}")?;
        }
        if let Some(address) = self.tftp {
            write!(f, ", TFTP on {address}")?;
        }
        if let Some(address) = self.dhcp {
            write!(f, ", DHCP on {address}")?;
        }
        if let Some(address) = self.tod {
            write!(f, ", time of day on {address}")?;
        }
        if let Some(address) = self.informs {
            write!(f, ", SNMP INFORMs on {address}")?;
        }
        f.write_str(".")
    }
}

impl Sockets {
    /// **Errors**: the first address that cannot be bound, by name; the daemon does not start half.
    pub async fn bind(config: &Config) -> Result<Self, DaemonError> {
        let api = listener(config.api.listen).map_err(|error| bind_error("[api] listen", config.api.listen, error))?;
        let mut sources = Vec::new();
        for address in config.sources.sources.iter().filter_map(|source| source.listen) {
            let listener = listener(address).map_err(|error| bind_error("[[source]] listen", address, error))?;
            sources.push(Listening { configured: address, listener });
        }
        let mut accounting = Vec::new();
        for &address in config.radius.iter().flat_map(|radius| &radius.accounting) {
            let socket = datagrams(address, ACCOUNTING_BUFFER_BYTES);
            accounting.push(socket.map_err(|error| bind_error("[radius] accounting", address, error))?);
        }
        let mut radsec = Vec::new();
        for &address in
            config.radius.iter().filter_map(|radius| radius.radsec.as_ref()).flat_map(|radsec| &radsec.listen)
        {
            let bound = listener(address).and_then(TcpListener::from_std);
            radsec.push(bound.map_err(|error| bind_error("[radius] radsec", address, error))?);
        }
        let tftp = match &config.tftp {
            None => None,
            Some(tftp) => {
                let socket = datagrams(tftp.listen, TFTP_BUFFER_BYTES);
                Some(socket.map_err(|error| bind_error("[tftp] listen", tftp.listen, error))?)
            }
        };
        let dhcp = match config.dhcp.as_ref().map(|dhcp| &dhcp.driver) {
            Some(DhcpDriver::Builtin(builtin)) => {
                let socket = datagrams(builtin.listen, DHCP_BUFFER_BYTES);
                Some(socket.map_err(|error| bind_error("[dhcp] listen", builtin.listen, error))?)
            }
            Some(DhcpDriver::Kea { .. }) | None => None,
        };
        let tod = match &config.tod {
            None => None,
            Some(tod) => {
                let both = datagrams(tod.listen, TOD_BUFFER_BYTES)
                    .and_then(|socket| Ok((socket, listener(tod.listen).and_then(TcpListener::from_std)?)));
                Some(both.map_err(|error| bind_error("[tod] listen", tod.listen, error))?)
            }
        };
        let informs = match config.snmp.as_ref().and_then(|snmp| snmp.informs) {
            None => None,
            Some(address) => {
                let bound = enrolment::bind(address).await;
                Some(bound.map_err(|error| bind_error("[snmp] informs", address, error))?)
            }
        };
        Ok(Self { api, sources, accounting, radsec, tftp, dhcp, tod, informs })
    }

    pub fn addresses(&self) -> std::io::Result<Addresses> {
        Ok(Addresses {
            api: self.api.local_addr()?,
            sources: self.sources.iter().map(|one| one.listener.local_addr()).collect::<Result<_, _>>()?,
            accounting: self.accounting.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?,
            radsec: self.radsec.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?,
            tftp: self.tftp.as_ref().map(UdpSocket::local_addr).transpose()?,
            dhcp: self.dhcp.as_ref().map(UdpSocket::local_addr).transpose()?,
            tod: self.tod.as_ref().map(|(socket, _)| socket.local_addr()).transpose()?,
            informs: self.informs.as_ref().map(NotificationReceiver::local_addr),
        })
    }
}

fn listener(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = open(address, Type::STREAM, Protocol::TCP)?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A bound UDP socket; on every address of the machine it tells the one a datagram was sent to (IP_PKTINFO, RFC 3542).
///
/// That is asked for before it is bound: of what arrives until it is served the kernel could not tell it later, and the
/// answer would leave from another address.
pub fn datagrams(address: SocketAddr, buffer_bytes: usize) -> std::io::Result<UdpSocket> {
    let socket = open(address, Type::DGRAM, Protocol::UDP)?;
    match address {
        _ if !address.ip().is_unspecified() => {}
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    // The kernel gives what it allows; a smaller buffer only drops sooner in a burst.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    // With 0.0.0.0 and [::] both configured the IPv6 socket must leave IPv4 alone.
    if address.is_ipv6() && address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bind_error(what: &'static str, address: SocketAddr, error: std::io::Error) -> DaemonError {
    DaemonError::Bind { what, address, error }
}

const BACKLOG: i32 = 1024;
const ACCOUNTING_BUFFER_BYTES: usize = 8 << 20;
const TFTP_BUFFER_BYTES: usize = 1 << 20;
/// After an outage a whole plant asks at once.
const DHCP_BUFFER_BYTES: usize = 8 << 20;
const TOD_BUFFER_BYTES: usize = 1 << 20;
