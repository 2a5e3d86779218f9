//! A cable plant on loopback: a CMTS that relays DHCP for its modems, and modems that fetch their files.
//!
//! Addresses of 127/8 are all this machine's: a modem that leased 127.77.1.10 can send from it. The relay says that it has a
//! port of its own (RFC 8357), so no test needs port 67 for itself.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lastmile::dhcp::MessageType::{Discover, Request};
use lastmile::dhcp::client::{ClientMessage, ServerReply};
use lastmile::vocabulary::MacAddress;

/// A minute of `PATIENCE`.
const ASKS: u32 = 12;
/// How long a server may take; silence is believed after `SILENCE`.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(700);

static NEXT_XID: AtomicU32 = AtomicU32::new(1);

/// The relay agent of a CMTS.
pub struct Relay {
    socket: UdpSocket,
    server: SocketAddr,
    pub address: Ipv4Addr,
}

/// A device as it asks: what it is, and the modem it is or stands behind.
#[derive(Debug, Clone)]
pub struct Device {
    pub mac: MacAddress,
    pub modem: MacAddress,
    pub class: &'static str,
    /// Option 43.
    pub vendor: Vec<u8>,
}

impl Device {
    pub fn modem(mac: &str) -> Self {
        let mac = mac.parse().expect("a MAC");
        let told: [(u8, &[u8]); 5] = [(2, b"ECM"), (4, b"S-4711"), (6, b"1.2.3"), (9, b"TM402"), (10, b"Acme")];
        let vendor = told.iter().flat_map(|(code, text)| [&[*code, text.len() as u8], *text].concat()).collect();
        Self { mac, modem: mac, class: "docsis3.1:052401", vendor }
    }

    pub fn mta(mac: &str, modem: &str) -> Self {
        Self {
            mac: mac.parse().expect("a MAC"),
            modem: modem.parse().expect("a MAC"),
            class: "pktc1.5:0501",
            vendor: Vec::new(),
        }
    }

    pub fn cpe(mac: &str, modem: &str) -> Self {
        Self { class: "MSFT 5.0", ..Self::mta(mac, modem) }
    }
}

impl Relay {
    /// A relay at `address` that passes everything on to `port` of this machine.
    pub fn at(address: &str, port: u16) -> Self {
        let address: Ipv4Addr = address.parse().expect("an address");
        let socket = UdpSocket::bind((address, 0)).expect("an address of loopback");
        Self { socket, server: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), address }
    }

    /// A relay on the port of relays, for a server of another machine that answers only there.
    pub fn on_port_67(address: &str, server: &str) -> Self {
        let address: Ipv4Addr = address.parse().expect("an address");
        let socket = UdpSocket::bind((address, 67)).expect("port 67 of this address");
        Self { socket, server: server.parse().expect("an address"), address }
    }

    /// The message of a device as this relay passes it on.
    pub fn message(&self, device: &Device) -> ClientMessage {
        let xid = NEXT_XID.fetch_add(1, Ordering::Relaxed);
        let mut message = ClientMessage {
            class: device.class.as_bytes().to_vec(),
            vendor: device.vendor.clone(),
            parameters: vec![1, 2, 3, 4, 6, 7, 66, 67, 122],
            ..ClientMessage::new(Discover, device.mac, xid).behind(self.address, device.modem)
        };
        message.relay_information.extend([19, 0]);
        message
    }

    /// Sends a message and waits for its answer; repeated for about a minute as devices do (RFC 2131 section 4.1): a lease
    /// is acknowledged when the disk has it, and a busy disk takes its time.
    pub fn ask(&self, message: &ClientMessage) -> ServerReply {
        for _ in 0..ASKS {
            if let Some(reply) = self.once(message, PATIENCE) {
                return reply;
            }
        }
        panic!("no answer to {message:?}");
    }

    /// Whether nothing is answered.
    pub fn is_silent(&self, message: &ClientMessage) -> bool {
        self.once(message, SILENCE).is_none()
    }

    pub fn once(&self, message: &ClientMessage, patience: Duration) -> Option<ServerReply> {
        let began = std::time::Instant::now();
        self.socket.send_to(&message.encode(), self.server).expect("it is sent");
        let mut buffer = [0u8; 1500];
        while let Some(left) = patience.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left)).expect("a socket");
            let Ok(octets) = self.socket.recv(&mut buffer) else { return None };
            if let Some(reply) = ServerReply::parse(&buffer[..octets]).filter(|reply| reply.xid == message.xid) {
                assert_eq!(reply.mac, message.mac.octets());
                assert_eq!(reply.option(82), Some(&message.relay_information[..]), "option 82 comes back as it was");
                return Some(reply);
            }
        }
        None
    }

    /// What a device is offered.
    pub fn offer(&self, device: &Device) -> ServerReply {
        let offer = self.ask(&self.message(device));
        assert_eq!(offer.kind, 2, "an offer");
        offer
    }

    /// DISCOVER, OFFER, REQUEST, ACK.
    pub fn boot(&self, device: &Device) -> ServerReply {
        let offer = self.offer(device);
        let message = ClientMessage {
            kind: Request,
            requested: Some(offer.address),
            server: offer.server(),
            ..self.message(device)
        };
        let ack = self.ask(&message);
        assert_eq!((ack.kind, ack.address), (5, offer.address), "an acknowledgement of what was offered");
        ack
    }

    /// A device that has an address asks for it to go on, through the relay; gives option 53 of the answer.
    pub fn rebind(&self, device: &Device, address: Ipv4Addr) -> u8 {
        self.ask(&ClientMessage { kind: Request, client: address, ..self.message(device) }).kind
    }
}

/// Fetches a file by TFTP from a given address of this machine, as a modem does: one block of 1448.
///
/// **Errors**: the server's own words, or silence.
pub fn fetch(from: Ipv4Addr, port: u16, name: &str) -> Result<Vec<u8>, String> {
    let socket = UdpSocket::bind((from, 0)).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let request = [&[0, 1], name.as_bytes(), b"\0octet\0blksize\0", b"1448\0"].concat();
    socket.send_to(&request, (Ipv4Addr::LOCALHOST, port)).map_err(|error| error.to_string())?;
    let (mut file, mut buffer, mut next) = (Vec::new(), [0u8; 2000], 1u16);
    loop {
        let (octets, server) = socket.recv_from(&mut buffer).map_err(|error| format!("silence: {error}"))?;
        let acknowledge = |block: u16| socket.send_to(&[&[0, 4], &block.to_be_bytes()[..]].concat(), server);
        match buffer[..octets] {
            [0, 6, ..] => drop(acknowledge(0)),
            [0, 3, a, b, ref data @ ..] => {
                let block = u16::from_be_bytes([a, b]);
                acknowledge(block).map_err(|error| error.to_string())?;
                if block == next {
                    file.extend_from_slice(data);
                    next += 1;
                    if data.len() < 1448 {
                        return Ok(file);
                    }
                }
            }
            [0, 5, _, code, ref text @ ..] => {
                return Err(format!("{code}: {}", String::from_utf8_lossy(text).trim_end_matches('\0')));
            }
            _ => return Err("no TFTP".to_owned()),
        }
    }
}
