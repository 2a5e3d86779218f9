//! The octets of an answer: the header of the request turned round, and options in ascending order with the relay's own
//! at the end, exactly as they came (RFC 3046 section 2.2).

use std::net::Ipv4Addr;

use super::message::Request;
use super::network::Network;
use super::{COOKIE, HEADER, option};

/// What goes into answers besides the address; from the configuration. An address that is absent is the one the request
/// was sent to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// siaddr.
    pub tftp_server: Option<Ipv4Addr>,
    /// Option 4; empty: not sent.
    pub time_servers: Vec<Ipv4Addr>,
    pub log_servers: Vec<Ipv4Addr>,
    /// Option 2, seconds east of UTC.
    pub time_offset: Option<i32>,
    /// 122.1 for modems with a telephone.
    pub voice_server: Option<Ipv4Addr>,
    /// 122.3: 0 and a name in DNS labels, or 1 and an IPv4 address. RFC 3495 section 5.1.
    pub mta_provisioning: Option<Vec<u8>>,
    pub unknown_lease_seconds: u32,
    pub garden_lease_seconds: u32,
}

/// Which answer it is. RFC 2132 section 9.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    Offer = 2,
    Ack = 5,
    Nak = 6,
}

/// What an answer says; what is absent is not written.
#[derive(Debug, Default)]
pub struct Body<'a> {
    pub address: Option<Ipv4Addr>,
    pub network: Option<&'a Network>,
    /// `None` in answers to INFORM.
    pub lease_seconds: Option<u32>,
    pub next_server: Option<Ipv4Addr>,
    pub boot_file: Option<&'a str>,
    pub time_offset: Option<i32>,
    pub time_servers: &'a [Ipv4Addr],
    pub log_servers: &'a [Ipv4Addr],
    pub host_name: Option<&'a str>,
    /// The sub-options of 122.
    pub cablelabs: Vec<u8>,
}

const BROADCAST_FLAG: u8 = 0x80;
/// RFC 1542 section 2.1: relays drop what is shorter.
const LEAST_OCTETS: usize = 300;
const MOST_FILE_OCTETS: usize = 127;

/// Writes an answer.
pub fn encode(request: &Request<'_>, kind: ReplyKind, server: Ipv4Addr, body: &Body<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend([2, 1, 6, 0]);
    out.extend(request.xid);
    out.extend([0, 0]);
    // Who is refused has no address that a relay could send to.
    let flags = request.flags[0] | if kind == ReplyKind::Nak { BROADCAST_FLAG } else { 0 };
    out.extend([flags, request.flags[1]]);
    let client = if kind == ReplyKind::Ack { request.client } else { Ipv4Addr::UNSPECIFIED };
    out.extend(client.octets());
    out.extend(body.address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    out.extend(body.next_server.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    out.extend(request.relay.octets());
    out.extend(request.mac.octets());
    out.resize(108, 0);
    if let Some(file) = body.boot_file.filter(|file| file.len() <= MOST_FILE_OCTETS) {
        out.extend_from_slice(file.as_bytes());
    }
    out.resize(HEADER - COOKIE.len(), 0);
    out.extend(COOKIE);
    put(&mut out, option::MESSAGE_TYPE, &[kind as u8]);
    put(&mut out, option::SERVER, &server.octets());
    if kind != ReplyKind::Nak {
        configuration(&mut out, request, body);
    }
    if let Some(client_id) = &request.client_id {
        put(&mut out, option::CLIENT, client_id);
    }
    if let Some(relay) = &request.relay_information {
        put(&mut out, option::RELAY, relay);
    }
    out.push(option::END);
    if out.len() < LEAST_OCTETS {
        out.resize(LEAST_OCTETS, 0);
    }
    out
}

fn configuration(out: &mut Vec<u8>, request: &Request<'_>, body: &Body<'_>) {
    if let Some(network) = body.network {
        put(out, option::SUBNET_MASK, &network.subnet.mask().octets());
        addresses(out, option::ROUTER, &network.routers);
        addresses(out, option::NAME_SERVER, &network.name_servers);
        if let Some(domain) = &network.domain {
            put(out, option::DOMAIN_NAME, domain.as_bytes());
        }
    }
    if let Some(seconds) = body.time_offset {
        put(out, option::TIME_OFFSET, &seconds.to_be_bytes());
    }
    addresses(out, option::TIME_SERVER, body.time_servers);
    addresses(out, option::LOG_SERVER, body.log_servers);
    if let Some(name) = body.host_name {
        put(out, option::HOST_NAME, name.as_bytes());
    }
    if let Some(seconds) = body.lease_seconds {
        put(out, option::LEASE_TIME, &seconds.to_be_bytes());
        put(out, option::RENEWAL_TIME, &(seconds / 2).to_be_bytes());
        put(out, option::REBINDING_TIME, &((u64::from(seconds) * 7 / 8) as u32).to_be_bytes());
    }
    if let Some(server) = body.next_server.filter(|_| request.asks(option::TFTP_SERVER)) {
        put(out, option::TFTP_SERVER, server.to_string().as_bytes());
    }
    if let Some(file) = body.boot_file.filter(|_| request.asks(option::BOOT_FILE)) {
        put(out, option::BOOT_FILE, file.as_bytes());
    }
    if !body.cablelabs.is_empty() {
        put(out, option::CABLELABS, &body.cablelabs);
    }
}

/// One sub-option of 122.
pub fn sub(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    if let Ok(length) = u8::try_from(value.len()) {
        out.extend([code, length]);
        out.extend_from_slice(value);
    }
}

/// A realm or host name as 122.3 and 122.6 want it: each label behind its length, then 0. RFC 3495 section 5.
///
/// `None`: an empty or too long label.
pub fn realm_labels(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    Some(out)
}

fn addresses(out: &mut Vec<u8>, code: u8, list: &[Ipv4Addr]) {
    if !list.is_empty() {
        let octets: Vec<u8> = list.iter().take(MOST_ADDRESSES).flat_map(|address| address.octets()).collect();
        put(out, code, &octets);
    }
}

/// An option of a relay or client may be longer than one length octet says: it came in pieces and goes in pieces. RFC 3396.
fn put(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    if value.is_empty() {
        out.extend([code, 0]);
    }
    for piece in value.chunks(usize::from(u8::MAX)) {
        out.extend([code, piece.len() as u8]);
        out.extend_from_slice(piece);
    }
}

const MOST_ADDRESSES: usize = 8;
