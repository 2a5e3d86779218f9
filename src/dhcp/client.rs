//! The other side: messages as a relay passes them on, and answers read. For the demo, load programs and tests.

use std::net::Ipv4Addr;

use super::message::{MessageType, sub_option};
use super::{COOKIE, HEADER, option};
use crate::vocabulary::MacAddress;

/// A client's message to be written.
#[derive(Debug, Clone)]
pub struct ClientMessage {
    pub kind: MessageType,
    pub xid: u32,
    pub mac: MacAddress,
    pub seconds: u16,
    pub client: Ipv4Addr,
    pub relay: Ipv4Addr,
    pub requested: Option<Ipv4Addr>,
    pub server: Option<Ipv4Addr>,
    pub class: Vec<u8>,
    pub vendor: Vec<u8>,
    pub parameters: Vec<u8>,
    /// Option 82.
    pub relay_information: Vec<u8>,
}

impl ClientMessage {
    /// A message that nobody relayed and that asks for nothing special.
    pub fn new(kind: MessageType, mac: MacAddress, xid: u32) -> Self {
        Self {
            kind,
            xid,
            mac,
            seconds: 0,
            client: Ipv4Addr::UNSPECIFIED,
            relay: Ipv4Addr::UNSPECIFIED,
            requested: None,
            server: None,
            class: Vec::new(),
            vendor: Vec::new(),
            parameters: Vec::new(),
            relay_information: Vec::new(),
        }
    }

    /// As a CMTS relays it that has this modem: giaddr, and option 82 with a circuit and the modem's MAC.
    pub fn behind(mut self, relay: Ipv4Addr, modem: MacAddress) -> Self {
        self.relay = relay;
        self.relay_information = [&[1, 4, 0, 0, 0, 7, 2, 6][..], &modem.octets()].concat();
        self
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        out[..4].copy_from_slice(&[1, 1, 6, u8::from(!self.relay.is_unspecified())]);
        out[4..8].copy_from_slice(&self.xid.to_be_bytes());
        out[8..10].copy_from_slice(&self.seconds.to_be_bytes());
        out[12..16].copy_from_slice(&self.client.octets());
        out[24..28].copy_from_slice(&self.relay.octets());
        out[28..34].copy_from_slice(&self.mac.octets());
        out[236..240].copy_from_slice(&COOKIE);
        let kind = match self.kind {
            MessageType::Discover => 1,
            MessageType::Request => 3,
            MessageType::Decline => 4,
            MessageType::Release => 7,
            MessageType::Inform => 8,
        };
        let mut put = |code: u8, value: &[u8]| {
            for piece in value.chunks(usize::from(u8::MAX)) {
                out.extend([code, piece.len() as u8]);
                out.extend_from_slice(piece);
            }
        };
        put(option::MESSAGE_TYPE, &[kind]);
        put(option::REQUESTED_ADDRESS, self.requested.map(|address| address.octets()).as_ref().map_or(&[], |a| a));
        put(option::SERVER, self.server.map(|address| address.octets()).as_ref().map_or(&[], |a| a));
        put(option::CLASS, &self.class);
        put(option::VENDOR, &self.vendor);
        put(option::PARAMETERS, &self.parameters);
        put(option::RELAY, &self.relay_information);
        out.push(option::END);
        out
    }
}

/// A server's answer.
///
/// **Shape**: `kind` is option 53: 2 OFFER, 5 ACK, 6 NAK; `options` in the order of the datagram, joined where an option came
/// several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReply {
    pub kind: u8,
    pub xid: u32,
    pub address: Ipv4Addr,
    pub next_server: Ipv4Addr,
    pub relay: Ipv4Addr,
    pub mac: [u8; 6],
    pub file: String,
    pub options: Vec<(u8, Vec<u8>)>,
}

impl ServerReply {
    /// `None`: no DHCP answer.
    pub fn parse(octets: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = octets.first_chunk()?;
        if header[0] != 2 || header[236..240] != COOKIE {
            return None;
        }
        let mut options: Vec<(u8, Vec<u8>)> = Vec::new();
        let mut rest = &octets[HEADER..];
        while let Some(code) = rest.first().copied().filter(|code| *code != option::END) {
            if code == 0 {
                rest = &rest[1..];
                continue;
            }
            let (code, value, next) = sub_option(rest)?;
            match options.iter_mut().find(|(known, _)| *known == code) {
                Some((_, begun)) => begun.extend_from_slice(value),
                None => options.push((code, value.to_vec())),
            }
            rest = next;
        }
        let four = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let file = header[108..236].split(|octet| *octet == 0).next().unwrap_or_default();
        let kind = options.iter().find(|(code, _)| *code == option::MESSAGE_TYPE)?.1.first().copied()?;
        Some(Self {
            kind,
            xid: u32::from_be_bytes(four(4)),
            address: four(16).into(),
            next_server: four(20).into(),
            relay: four(24).into(),
            mac: [header[28], header[29], header[30], header[31], header[32], header[33]],
            file: String::from_utf8_lossy(file).into_owned(),
            options,
        })
    }

    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_slice())
    }

    /// Option 51.
    pub fn lease_seconds(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.option(option::LEASE_TIME)?.try_into().ok()?))
    }

    /// Option 54.
    pub fn server(&self) -> Option<Ipv4Addr> {
        Some(<[u8; 4]>::try_from(self.option(option::SERVER)?).ok()?.into())
    }
}
