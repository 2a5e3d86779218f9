//! The octets of a client's message, read once and without copying where that is possible.
//!
//! | octets | field | | octets | field |
//! |---|---|---|---|---|
//! | 0 | op = 1 | | 16..20 | yiaddr |
//! | 1 | htype = 1 | | 20..24 | siaddr |
//! | 2 | hlen = 6 | | 24..28 | giaddr |
//! | 3 | hops | | 28..44 | chaddr |
//! | 4..8 | xid | | 44..108 | sname |
//! | 8..10 | secs | | 108..236 | file |
//! | 10..12 | flags | | 236..240 | cookie |
//! | 12..16 | ciaddr | | 240.. | options |
//!
//! RFC 2131 section 2. Only Ethernet clients are read: every device of a cable plant is one.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use super::{COOKIE, HEADER, option};
use crate::vocabulary::MacAddress;

/// What a client wants. RFC 2132 section 9.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    Discover,
    Request,
    Decline,
    Release,
    Inform,
}

/// Why octets are no message of a client. They are counted and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("shorter than a DHCP message")]
    Short,
    #[error("not from a client")]
    NotRequest,
    #[error("not from an Ethernet device")]
    Hardware,
    #[error("no DHCP options")]
    NoOptions,
    #[error("an option reaches beyond the message")]
    Truncated,
    #[error("no message type that a client sends")]
    Type,
}

/// A client's message.
///
/// **Shape**: an option that came several times is joined (RFC 3396); options in `file` and `sname` count where option 52
/// says so. Absent or of a wrong length is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    pub kind: MessageType,
    pub xid: [u8; 4],
    /// Seconds since the client began to ask.
    pub seconds: u16,
    pub flags: [u8; 2],
    /// What the client has and uses.
    pub client: Ipv4Addr,
    /// giaddr.
    pub relay: Ipv4Addr,
    pub mac: MacAddress,
    pub requested: Option<Ipv4Addr>,
    pub server: Option<Ipv4Addr>,
    pub parameters: Cow<'a, [u8]>,
    pub class: Cow<'a, [u8]>,
    pub vendor: Cow<'a, [u8]>,
    pub host_name: Cow<'a, [u8]>,
    /// As it came, for it must go back as it came.
    pub relay_information: Option<Cow<'a, [u8]>>,
    /// Echoed by RFC 6842.
    pub client_id: Option<Cow<'a, [u8]>>,
}

/// What option 82 tells. RFC 3046.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayInformation {
    /// Sub-option 2 of six octets: the cable modem behind which the client is.
    pub modem: Option<MacAddress>,
    /// Sub-option 19: the relay sends from a port of its own and wants the answer there (RFC 8357).
    pub own_port: bool,
}

impl<'a> Request<'a> {
    /// Reads a datagram.
    ///
    /// **Errors**: it is no message of a client; nothing is answered.
    pub fn parse(octets: &'a [u8]) -> Result<Self, Malformed> {
        let header: &[u8; HEADER] = octets.first_chunk().ok_or(Malformed::Short)?;
        if header[0] != 1 {
            return Err(Malformed::NotRequest);
        }
        if header[1] != 1 || header[2] != 6 {
            return Err(Malformed::Hardware);
        }
        let mac: [u8; 6] = array(&header[28..34]);
        let mac = MacAddress::from_octets(mac).map_err(|_| Malformed::Hardware)?;
        if header[236..240] != COOKIE {
            return Err(Malformed::NoOptions);
        }
        let mut found = Options::default();
        found.read(&octets[HEADER..])?;
        // Bit 0: file, bit 1: sname. RFC 2131 section 4.1: file before sname.
        let overload = match found.overload.as_deref() {
            Some(&[bits]) => bits,
            _ => 0,
        };
        if overload & 1 != 0 {
            found.read(&octets[108..236])?;
        }
        if overload & 2 != 0 {
            found.read(&octets[44..108])?;
        }
        let kind = match found.kind.as_deref() {
            Some([1]) => MessageType::Discover,
            Some([3]) => MessageType::Request,
            Some([4]) => MessageType::Decline,
            Some([7]) => MessageType::Release,
            Some([8]) => MessageType::Inform,
            _ => return Err(Malformed::Type),
        };
        Ok(Self {
            kind,
            xid: array(&header[4..8]),
            seconds: u16::from_be_bytes([header[8], header[9]]),
            flags: [header[10], header[11]],
            client: array::<4>(&header[12..16]).into(),
            relay: array::<4>(&header[24..28]).into(),
            mac,
            requested: address(found.requested.as_deref()),
            server: address(found.server.as_deref()),
            parameters: found.parameters.unwrap_or_default(),
            class: found.class.unwrap_or_default(),
            vendor: found.vendor.unwrap_or_default(),
            host_name: found.host_name.unwrap_or_default(),
            relay_information: found.relay,
            client_id: found.client_id,
        })
    }

    /// What the relay tells about where the client is; only a message that came through a relay has it.
    pub fn relayed(&self) -> RelayInformation {
        relay_information(self.relay_information.as_deref().unwrap_or_default())
    }

    /// Whether the client asked for an option (55).
    pub fn asks(&self, code: u8) -> bool {
        self.parameters.contains(&code)
    }
}

/// The modem that option 82 names.
pub fn modem_of(octets: &[u8]) -> Option<MacAddress> {
    relay_information(octets).modem
}

fn relay_information(octets: &[u8]) -> RelayInformation {
    let mut told = RelayInformation::default();
    let mut rest = octets;
    while let Some((code, value, next)) = sub_option(rest) {
        match code {
            2 => told.modem = <[u8; 6]>::try_from(value).ok().and_then(|mac| MacAddress::from_octets(mac).ok()),
            19 => told.own_port = true,
            _ => {}
        }
        rest = next;
    }
    told
}

/// The first `code, length, value` of a list of sub-options and what follows it; `None` at the end or where it breaks off.
pub(super) fn sub_option(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[code, length], rest) = octets.split_first_chunk::<2>()?;
    let (value, next) = rest.split_at_checked(usize::from(length))?;
    Some((code, value, next))
}

/// The options a server looks at.
#[derive(Default)]
struct Options<'a> {
    kind: Option<Cow<'a, [u8]>>,
    overload: Option<Cow<'a, [u8]>>,
    requested: Option<Cow<'a, [u8]>>,
    server: Option<Cow<'a, [u8]>>,
    parameters: Option<Cow<'a, [u8]>>,
    class: Option<Cow<'a, [u8]>>,
    vendor: Option<Cow<'a, [u8]>>,
    host_name: Option<Cow<'a, [u8]>>,
    relay: Option<Cow<'a, [u8]>>,
    client_id: Option<Cow<'a, [u8]>>,
}

impl<'a> Options<'a> {
    /// Walks one field of options. Every step consumes at least one octet.
    fn read(&mut self, field: &'a [u8]) -> Result<(), Malformed> {
        let mut rest = field;
        loop {
            match rest {
                // Some clients leave the end out.
                [] | [option::END, ..] => return Ok(()),
                [0, next @ ..] => rest = next,
                _ => {
                    let (code, value, next) = sub_option(rest).ok_or(Malformed::Truncated)?;
                    self.take(code, value);
                    rest = next;
                }
            }
        }
    }

    fn take(&mut self, code: u8, value: &'a [u8]) {
        let place = match code {
            option::MESSAGE_TYPE => &mut self.kind,
            option::OVERLOAD => &mut self.overload,
            option::REQUESTED_ADDRESS => &mut self.requested,
            option::SERVER => &mut self.server,
            option::PARAMETERS => &mut self.parameters,
            option::CLASS => &mut self.class,
            option::VENDOR => &mut self.vendor,
            option::HOST_NAME => &mut self.host_name,
            option::RELAY => &mut self.relay,
            option::CLIENT => &mut self.client_id,
            _ => return,
        };
        match place {
            None => *place = Some(Cow::Borrowed(value)),
            Some(begun) => begun.to_mut().extend_from_slice(value),
        }
    }
}

fn address(value: Option<&[u8]>) -> Option<Ipv4Addr> {
    Some(<[u8; 4]>::try_from(value?).ok()?.into())
}

/// A slice whose length the caller has just cut.
fn array<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut copy = [0; N];
    copy.copy_from_slice(octets);
    copy
}
