//! The demo's other side: a billing system over HTTP, a modem over TFTP, a NAS over RADIUS. Nothing here knows the
//! daemon from inside.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::scenario::{Report, Session};
use crate::radius::{RequestBuilder, attribute, response_is_genuine};
use crate::vocabulary::Secret;

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    pub body: Value,
}

/// Sends one request as a billing system does, on a connection of its own.
pub async fn http(api: SocketAddr, key: &str, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
    let content = body.map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {api}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{content}",
        content.len()
    );
    let mut stream = TcpStream::connect(api).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut octets = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut octets)).await??;
    answer(&String::from_utf8_lossy(&octets)).ok_or_else(|| io::Error::other("no HTTP answer"))
}

fn answer(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let header = |name: &str| {
        head.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    let etag = header("etag").map(|(_, value)| value.trim().to_owned());
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    Some(Answer { status, etag, body })
}

/// Fetches a file in octet mode, block by block (RFC 1350).
pub async fn tftp(server: SocketAddr, name: &str) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(any_port(server)).await?;
    let request = [&[0, 1], name.as_bytes(), b"\0octet\0"].concat();
    socket.send_to(&request, server).await?;
    let (mut file, mut next) = (Vec::new(), 1u16);
    let mut datagram = [0u8; 1024];
    loop {
        let (length, from) = tokio::time::timeout(PATIENCE, socket.recv_from(&mut datagram)).await??;
        match &datagram[..length] {
            [0, 3, high, low, block @ ..] if u16::from_be_bytes([*high, *low]) == next => {
                socket.send_to(&[0, 4, *high, *low], from).await?;
                file.extend_from_slice(block);
                next = next.wrapping_add(1);
                if block.len() < TFTP_BLOCK {
                    return Ok(file);
                }
            }
            [0, 5, _, code, text @ ..] => {
                let text = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
                return Err(io::Error::other(format!("TFTP error {code}: {text}")));
            }
            // A block that was sent again.
            _ => {}
        }
    }
}

/// A NAS: it sends reports and insists on a genuine answer to each.
pub struct Nas {
    socket: UdpSocket,
    secret: Secret,
    identifier: u8,
}

impl Nas {
    pub async fn connect(server: SocketAddr, secret: &str) -> io::Result<Self> {
        let socket = UdpSocket::bind(any_port(server)).await?;
        socket.connect(server).await?;
        Ok(Self { socket, secret: Secret::new(secret), identifier: 0 })
    }

    /// Sends one report, and again unchanged if it says so. `false`: no genuine answer came.
    pub async fn send(&mut self, session: &Session, report: &Report) -> io::Result<bool> {
        self.identifier = self.identifier.wrapping_add(1);
        let packet = self.packet(session, report)?;
        let mut answered = self.exchange(&packet).await?;
        if report.twice {
            answered &= self.exchange(&packet).await?;
        }
        Ok(answered)
    }

    async fn exchange(&self, packet: &[u8]) -> io::Result<bool> {
        let mut authenticator = [0u8; 16];
        authenticator.copy_from_slice(&packet[4..20]);
        self.socket.send(packet).await?;
        let mut datagram = [0u8; 4096];
        match tokio::time::timeout(SILENCE, self.socket.recv(&mut datagram)).await {
            Err(_) => Ok(false),
            Ok(length) => Ok(response_is_genuine(&datagram[..length?], self.identifier, &authenticator, &self.secret)),
        }
    }

    fn packet(&self, session: &Session, report: &Report) -> io::Result<Vec<u8>> {
        // The 32-bit counters and their gigawords (RFC 2869 section 5.1); the low half is what remains.
        let halves = |octets: u64| ((octets >> 32) as u32, octets as u32);
        let ((in_high, in_low), (out_high, out_low)) = (halves(report.in_octets), halves(report.out_octets));
        let at = u32::try_from(report.at.as_second()).map_err(io::Error::other)?;
        let mut packet = RequestBuilder::accounting(self.identifier)
            .integer(attribute::ACCT_STATUS_TYPE, report.kind as u32)
            .text(attribute::ACCT_SESSION_ID, &session.id)
            .text(attribute::USER_NAME, &session.user)
            .text(attribute::NAS_IDENTIFIER, "demo-bng")
            .address(attribute::FRAMED_IP_ADDRESS, session.address.into())
            .integer(attribute::EVENT_TIMESTAMP, at)
            .integer(attribute::ACCT_DELAY_TIME, 0);
        if report.session_seconds > 0 {
            packet = packet
                .integer(attribute::ACCT_SESSION_TIME, report.session_seconds)
                .integer(attribute::ACCT_INPUT_OCTETS, in_low)
                .integer(attribute::ACCT_INPUT_GIGAWORDS, in_high)
                .integer(attribute::ACCT_OUTPUT_OCTETS, out_low)
                .integer(attribute::ACCT_OUTPUT_GIGAWORDS, out_high);
        }
        packet.sign(&self.secret).map_err(io::Error::other)
    }
}

/// A port of the kernel's choice on the side `server` is on.
fn any_port(server: SocketAddr) -> SocketAddr {
    SocketAddr::new(server.ip(), 0)
}

const TFTP_BLOCK: usize = 512;
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a NAS waits for an answer. Also how long the demo listens to be sure that none comes.
const SILENCE: Duration = Duration::from_secs(3);
