//! TFTP as protocol machines: what a request asks for, and what one read transfer sends next.
//!
//! Comes in: datagrams and the time since the transfer began. Goes out: datagrams and when to wake. Owns no socket, no
//! timer, no file. RFC 1350 with the options of RFC 2347 (negotiation), 2348 (blksize), 2349 (timeout, tsize) and
//! 7440 (windowsize). Read-only: a write request is answered with error 2.
//!
//! | opcode | layout |
//! |---|---|
//! | 1 RRQ, 2 WRQ | `opcode u16`, name, 0, mode, 0, { option, 0, value, 0 } |
//! | 3 DATA | `opcode u16`, `block u16`, up to blksize octets |
//! | 4 ACK | `opcode u16`, `block u16` |
//! | 5 ERROR | `opcode u16`, `code u16`, text, 0 |
//! | 6 OACK | `opcode u16`, { option, 0, value, 0 } |

mod request;
mod transfer;

pub use request::{Options, Refusal, Request, clean_name, parse_request};
pub use transfer::{Outcome, Step, Transfer};

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Error codes of RFC 1350 and RFC 2347.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    NotFound = 1,
    Access = 2,
    Full = 3,
    Illegal = 4,
    UnknownTransfer = 5,
}

/// An ERROR datagram.
pub fn error_datagram(code: ErrorCode, text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + text.len());
    out.extend(ERROR.to_be_bytes());
    out.extend((code as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    out
}

/// Whether a datagram is an ERROR: it must never be answered.
pub fn is_error(datagram: &[u8]) -> bool {
    word(datagram, 0) == Some(ERROR)
}

fn word(datagram: &[u8], at: usize) -> Option<u16> {
    datagram.get(at..at + 2).map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
}
