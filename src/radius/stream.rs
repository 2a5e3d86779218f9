//! RADIUS inside TLS: what a request of a connection asks for, and its answer, as historic RADIUS or RADIUS/1.1.
//!
//! Historic RADIUS keeps identifier and authenticators and signs with a secret everyone knows; TLS is the protection. In
//! RADIUS/1.1 a token stands where the authenticator stood and nothing is signed:
//!
//! ```text
//! +---------------+---------------+-------------------------------+
//! |     Code      |  Reserved (0) |            Length             |
//! +---------------+---------------+-------------------------------+
//! |                     Token (4 octets)                          |
//! +---------------------------------------------------------------+
//! |                     Reserved (12 octets, 0)                   |
//! +---------------------------------------------------------------+
//! ```
//! Sources: RFC 6614 sections 2.3 and 2.5, RFC 9765 section 4.

use std::sync::LazyLock;

use super::authenticator::{Refusal, signature, verify, verify_signed};
use super::message::{answer, push, write_length};
use super::packet::{HEADER_OCTETS, PACKET_MAX, PacketView};
use super::{attribute, code};
use crate::vocabulary::Secret;

/// Which RADIUS a connection speaks; agreed on by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamVersion {
    /// As over UDP, with the secret "radsec".
    Historic,
    /// RADIUS/1.1: no MD5, a token instead of the identifier.
    V1_1,
}

/// What a genuine request of a connection asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamRequest {
    /// To record it; the answer is for when that is durable.
    Record { answer: Vec<u8> },
    /// Whether a record would be taken (Status-Server).
    Status { answer: Vec<u8> },
    /// Something an accounting server does not do and must say so (RFC 6614 section 2.5).
    Unwanted { answer: Vec<u8> },
    /// Something to be passed over in silence; the connection may stay (RFC 6613 section 2.6.4).
    Unknown(u8),
}

impl StreamRequest {
    /// **Errors**: a signature does not hold: close the connection.
    pub fn of(view: &PacketView<'_>, version: StreamVersion) -> Result<Self, Refusal> {
        let secret: &Secret = &RADSEC;
        let signed = version == StreamVersion::Historic;
        match view.code() {
            code::ACCOUNTING_REQUEST | code::STATUS_SERVER => {
                if signed {
                    verify(view, &[secret])?;
                }
                let answer = match version {
                    StreamVersion::Historic => answer(view, secret),
                    StreamVersion::V1_1 => reply(view, code::ACCOUNTING_RESPONSE, version, None),
                };
                let records = view.code() == code::ACCOUNTING_REQUEST;
                Ok(if records { Self::Record { answer } } else { Self::Status { answer } })
            }
            kind @ (code::COA_REQUEST | code::DISCONNECT_REQUEST) => {
                if signed {
                    verify_signed(view, &[secret])?;
                }
                let nak = if kind == code::COA_REQUEST { code::COA_NAK } else { code::DISCONNECT_NAK };
                Ok(Self::Unwanted { answer: reply(view, nak, version, Some(UNSUPPORTED_EXTENSION)) })
            }
            other => Ok(Self::Unknown(other)),
        }
    }
}

/// Says in a packet of its own, in answer to nothing, why a connection is closed (RFC 9765 section 3.4.1).
pub fn protocol_error(text: &str) -> Vec<u8> {
    let mut octets = vec![code::PROTOCOL_ERROR, 0, 0, 0];
    octets.extend_from_slice(&[0; 16]);
    push(&mut octets, attribute::ERROR_CAUSE, &UNSUPPORTED_EXTENSION.to_be_bytes());
    let end = text.floor_char_boundary(TEXT_MAX);
    push(&mut octets, attribute::REPLY_MESSAGE, &text.as_bytes()[..end]);
    write_length(&mut octets);
    octets
}

fn reply(request: &PacketView<'_>, kind: u8, version: StreamVersion, error_cause: Option<u32>) -> Vec<u8> {
    let mut octets = vec![kind, 0, 0, 0];
    let authenticator = request.authenticator();
    match version {
        StreamVersion::Historic => {
            octets[1] = request.identifier();
            octets.extend_from_slice(&authenticator);
        }
        StreamVersion::V1_1 => {
            octets.extend_from_slice(&authenticator[..TOKEN_OCTETS]);
            octets.resize(HEADER_OCTETS, 0);
        }
    }
    for state in request.all(attribute::PROXY_STATE) {
        push(&mut octets, attribute::PROXY_STATE, state);
    }
    // A request full of Proxy-State leaves no room for the reason; the NAK says enough.
    if let Some(cause) = error_cause.filter(|_| octets.len() + 6 <= PACKET_MAX) {
        push(&mut octets, attribute::ERROR_CAUSE, &cause.to_be_bytes());
    }
    write_length(&mut octets);
    if version == StreamVersion::Historic {
        let signed = signature(&octets, &authenticator, RADSEC.expose().as_bytes());
        octets[4..HEADER_OCTETS].copy_from_slice(&signed);
    }
    octets
}

/// RFC 6614 section 2.3: the secret of every connection.
static RADSEC: LazyLock<Secret> = LazyLock::new(|| Secret::new("radsec"));
const TOKEN_OCTETS: usize = 4;
/// Error-Cause "Unsupported Extension". RFC 5176 section 3.5.
const UNSUPPORTED_EXTENSION: u32 = 406;
const TEXT_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{RequestBuilder, response_is_genuine};
    use super::*;

    fn request(octets: &[u8]) -> PacketView<'_> {
        PacketView::parse(octets).expect("well formed")
    }

    fn signed(code: u8) -> Vec<u8> {
        let mut octets = RequestBuilder::accounting(9).octets(33, b"proxy").sign(&RADSEC).expect("small");
        octets[0] = code;
        let authenticator = signature(&octets, &[0; 16], b"radsec");
        octets[4..HEADER_OCTETS].copy_from_slice(&authenticator);
        octets
    }

    #[test]
    fn historic_requests_are_signed_with_the_secret_of_the_rfc() {
        let good = signed(4);
        let Ok(StreamRequest::Record { answer }) = StreamRequest::of(&request(&good), StreamVersion::Historic) else {
            panic!("a record");
        };
        assert!(response_is_genuine(&answer, 9, &request(&good).authenticator(), &RADSEC));
        let other = RequestBuilder::accounting(9).sign(&Secret::new("testing123")).expect("small");
        assert_eq!(StreamRequest::of(&request(&other), StreamVersion::Historic), Err(Refusal::Authenticator));
    }

    #[test]
    fn coa_and_disconnect_are_declined_with_their_reason() {
        for (asked, nak) in [(43, 45), (40, 42)] {
            let octets = signed(asked);
            let Ok(StreamRequest::Unwanted { answer }) = StreamRequest::of(&request(&octets), StreamVersion::Historic)
            else {
                panic!("declined");
            };
            let view = request(&answer);
            assert_eq!((view.code(), view.identifier()), (nak, 9));
            assert_eq!(view.first(101), Some(&406u32.to_be_bytes()[..]));
            assert_eq!(view.first(33), Some(&b"proxy"[..]));
            assert_eq!(view.authenticator(), signature(&answer, &request(&octets).authenticator(), b"radsec"));
            let mut forged = octets.clone();
            forged[4] ^= 1;
            assert!(StreamRequest::of(&request(&forged), StreamVersion::Historic).is_err());
        }
        assert_eq!(StreamRequest::of(&request(&signed(1)), StreamVersion::Historic), Ok(StreamRequest::Unknown(1)));
    }

    #[test]
    fn token_comes_back_and_reserved_fields_are_zero() {
        // RFC 9765 section 4.1: the receiver ignores the reserved fields, the sender zeroes them.
        let mut octets = signed(4);
        octets[1] = 77;
        octets[4..20].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        let Ok(StreamRequest::Record { answer }) = StreamRequest::of(&request(&octets), StreamVersion::V1_1) else {
            panic!("a record");
        };
        assert_eq!(answer[..4], [5, 0, 0, 27]);
        assert_eq!(answer[4..20], [0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(request(&answer).first(33), Some(&b"proxy"[..]));
        assert_eq!(request(&answer).first(80), None);
    }

    #[test]
    fn status_server_needs_no_message_authenticator_in_radius_1_1_only() {
        let octets = [&[12, 0, 0, 20][..], &[7; 16]].concat();
        assert_eq!(StreamRequest::of(&request(&octets), StreamVersion::Historic), Err(Refusal::Unsigned));
        assert!(matches!(StreamRequest::of(&request(&octets), StreamVersion::V1_1), Ok(StreamRequest::Status { .. })));
    }

    #[test]
    fn protocol_error_is_a_packet_with_its_reason() {
        let octets = protocol_error(&"RADIUS/1.1 is required here. é".repeat(20));
        let view = request(&octets);
        assert_eq!((view.code(), view.authenticator()), (52, [0; 16]));
        assert!(std::str::from_utf8(view.first(18).expect("a text")).is_ok());
    }

    proptest! {
        #[test]
        fn any_packet_is_judged_without_a_panic(
            code in any::<u8>(),
            rest in proptest::collection::vec(any::<u8>(), 16..200),
        ) {
            let mut octets = [&[code, 1, 0, 0][..], &rest].concat();
            let length = u16::try_from(octets.len()).expect("short").to_be_bytes();
            octets[2..4].copy_from_slice(&length);
            if let Ok(view) = PacketView::parse(&octets) {
                for version in [StreamVersion::Historic, StreamVersion::V1_1] {
                    let _ = StreamRequest::of(&view, version);
                }
            }
        }
    }
}
