//! Dynamic authorization: the Disconnect-Request and CoA-Request that we send to a NAS, and what its answer means.
//!
//! ```text
//! Disconnect-Request 40 → Disconnect-ACK 41 | Disconnect-NAK 42
//! CoA-Request        43 → CoA-ACK        44 | CoA-NAK        45     (a NAK may carry Error-Cause, attribute 101)
//! ```
//! The Request Authenticator is MD5 over the packet with sixteen zero octets in its place and the secret, as for accounting;
//! the Message-Authenticator, which comes first, is computed over those zeros before it.
//! Source: RFC 5176 sections 2.1 to 3.5. In: values. Out: bytes, or a meaning. No socket, no clock.

use thiserror::Error;

use super::authenticator::reply_is_signed;
use super::message::{BuildError, RequestBuilder};
use super::packet::PacketView;
use super::{attribute, code};
use crate::vocabulary::{Secret, Timestamp};

/// What a NAS is asked to do with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DynamicKind {
    /// End it.
    Disconnect,
    /// Go on with other attributes.
    Coa,
}

/// One request, all but its identifier.
///
/// **Shape**: `attributes` as they stand in the packet (type, value), those that name the NAS and the session first; they
/// must identify exactly one session (RFC 5176 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicRequest {
    pub kind: DynamicKind,
    pub attributes: Vec<(u8, Vec<u8>)>,
}

/// What a genuine answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DynamicAnswer {
    Ack,
    /// With the first Error-Cause of four octets, if any.
    Nak(Option<u32>),
}

/// Why a datagram is no answer to a request. It is dropped, and the request waits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoAnswer {
    #[error("it is no RADIUS packet")]
    Malformed,
    #[error("its code or identifier belongs to no request that waits")]
    Unasked,
    #[error(
        "its Response Authenticator or Message-Authenticator is wrong: the NAS has another secret, or it is forged"
    )]
    Forged,
}

impl DynamicKind {
    pub fn as_str(self) -> &'static str {
        match self {
            DynamicKind::Disconnect => "disconnect",
            DynamicKind::Coa => "coa",
        }
    }

    fn code(self) -> u8 {
        match self {
            DynamicKind::Disconnect => code::DISCONNECT_REQUEST,
            DynamicKind::Coa => code::COA_REQUEST,
        }
    }

    fn answers(self) -> (u8, u8) {
        match self {
            DynamicKind::Disconnect => (code::DISCONNECT_ACK, code::DISCONNECT_NAK),
            DynamicKind::Coa => (code::COA_ACK, code::COA_NAK),
        }
    }
}

impl DynamicRequest {
    /// The signed packet. A retransmission sends the same octets again; with a newer time it takes another identifier
    /// (RFC 5176 section 2.3).
    ///
    /// **Errors**: an attribute or the packet is too long.
    pub fn sign(&self, identifier: u8, secret: &Secret, now: Timestamp) -> Result<Vec<u8>, BuildError> {
        let builder = RequestBuilder::dynamic(self.kind.code(), identifier).message_authenticator();
        // A NAS drops what is more than 300 seconds off its own clock: a recorded request cannot be played back later.
        let seconds = u32::try_from(now.as_second()).unwrap_or(u32::MAX);
        let builder = builder.integer(attribute::EVENT_TIMESTAMP, seconds);
        self.attributes.iter().fold(builder, |builder, (kind, value)| builder.octets(*kind, value)).sign(secret)
    }
}

/// Reads `datagram` as the answer to the request `sent`, which was signed with `secret`.
///
/// **Errors**: [`NoAnswer`].
pub fn dynamic_answer(datagram: &[u8], sent: &PacketView<'_>, secret: &Secret) -> Result<DynamicAnswer, NoAnswer> {
    let view = PacketView::parse(datagram).map_err(|_| NoAnswer::Malformed)?;
    let kind = match sent.code() {
        code::COA_REQUEST => DynamicKind::Coa,
        _ => DynamicKind::Disconnect,
    };
    let (ack, nak) = kind.answers();
    if view.identifier() != sent.identifier() || ![ack, nak].contains(&view.code()) {
        return Err(NoAnswer::Unasked);
    }
    if !reply_is_signed(&view, &sent.authenticator(), secret) {
        return Err(NoAnswer::Forged);
    }
    if view.code() == ack {
        return Ok(DynamicAnswer::Ack);
    }
    let cause = view.first(attribute::ERROR_CAUSE).and_then(|value| <[u8; 4]>::try_from(value).ok());
    Ok(DynamicAnswer::Nak(cause.map(u32::from_be_bytes)))
}

/// Error-Cause: the NAS does not know the session. RFC 5176 section 3.5.
pub const SESSION_CONTEXT_NOT_FOUND: u32 = 503;

/// An Error-Cause in the RFC's words. RFC 5176 section 3.5, RFC 5580, RFC 7930.
pub fn error_cause(cause: u32) -> &'static str {
    match cause {
        201 => "Residual Session Context Removed",
        202 => "Invalid EAP Packet",
        401 => "Unsupported Attribute",
        402 => "Missing Attribute",
        403 => "NAS Identification Mismatch",
        404 => "Invalid Request",
        405 => "Unsupported Service",
        406 => "Unsupported Extension",
        407 => "Invalid Attribute Value",
        501 => "Administratively Prohibited",
        502 => "Request Not Routable (Proxy)",
        SESSION_CONTEXT_NOT_FOUND => "Session Context Not Found",
        504 => "Session Context Not Removable",
        505 => "Other Proxy Processing Error",
        506 => "Resources Unavailable",
        507 => "Request Initiated",
        508 => "Multiple Session Selection Unsupported",
        509 => "Location-Info-Required",
        601 => "Response Too Big",
        _ => "a cause without a name",
    }
}

/// Whether the same request may work later: what the NAS lacks is time or room, not understanding.
pub fn may_pass(cause: Option<u32>) -> bool {
    matches!(cause, Some(502 | 504 | 505 | 506))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::authenticator::{message_signature, signature, verify_signed};
    use super::super::message::{push, write_length};
    use super::*;

    const SECRET: &str = "xyzzy5461";
    /// What Debian's `radclient` 3.2.1 sends for the same requests with this secret, at 1780000000.
    const DISCONNECT: &str = "280d00462723effd100b652ea6ae3f73386c43f65012f53d291488659b09d5055e8db710ab8237066a18a500\
                              010a6164614061636d652c0a30613162326333640406c0000201";
    const COA: &str = "2b6500560d0228c4f45a63f35506bc7b595802fb50127c40f457eab3acb8f7013b523b5c404a37066a18a500010a\
                       6164614061636d652c0a30613162326333642006626e67311a1000003a8c080a32304d2f3130304d";

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits")).collect()
    }

    fn then() -> Timestamp {
        Timestamp::from_second(1_780_000_000).expect("an instant")
    }

    fn request(kind: DynamicKind) -> DynamicRequest {
        let last = match kind {
            DynamicKind::Disconnect => vec![(attribute::NAS_IP_ADDRESS, vec![192, 0, 2, 1])],
            DynamicKind::Coa => vec![
                (attribute::NAS_IDENTIFIER, b"bng1".to_vec()),
                (attribute::VENDOR_SPECIFIC, hex("00003a8c080a32304d2f3130304d")),
            ],
        };
        let mut attributes =
            vec![(attribute::USER_NAME, b"ada@acme".to_vec()), (attribute::ACCT_SESSION_ID, b"0a1b2c3d".to_vec())];
        attributes.extend(last);
        DynamicRequest { kind, attributes }
    }

    /// An answer as a NAS makes it.
    fn answer(sent: &[u8], code: u8, attributes: &[(u8, &[u8])], secret: &str, message_authenticator: bool) -> Vec<u8> {
        let mut octets = vec![code, sent[1], 0, 0];
        octets.extend_from_slice(&sent[4..20]);
        if message_authenticator {
            push(&mut octets, 80, &[0; 16]);
        }
        attributes.iter().for_each(|(kind, value)| push(&mut octets, *kind, value));
        write_length(&mut octets);
        let authenticator = <[u8; 16]>::try_from(&sent[4..20]).expect("sixteen octets");
        if message_authenticator {
            let signed = message_signature(&octets, 22, &authenticator, secret.as_bytes());
            octets[22..38].copy_from_slice(&signed);
        }
        let signed = signature(&octets, &authenticator, secret.as_bytes());
        octets[4..20].copy_from_slice(&signed);
        octets
    }

    #[test]
    fn our_requests_are_octet_for_octet_those_of_radclient() {
        for (kind, theirs) in [(DynamicKind::Disconnect, DISCONNECT), (DynamicKind::Coa, COA)] {
            let theirs = hex(theirs);
            let ours = request(kind).sign(theirs[1], &Secret::new(SECRET), then()).expect("small");
            assert_eq!(ours, theirs, "{kind:?}");
            let view = PacketView::parse(&ours).expect("our own packet");
            assert_eq!(verify_signed(&view, &[&Secret::new(SECRET)]), Ok(0));
        }
    }

    #[test]
    fn answers_are_read_and_forgeries_are_not() {
        let secret = Secret::new(SECRET);
        let sent = request(DynamicKind::Disconnect).sign(9, &secret, then()).expect("small");
        let sent_view = PacketView::parse(&sent).expect("our own packet");
        let read = |datagram: &[u8]| dynamic_answer(datagram, &sent_view, &secret);
        let cause = 503u32.to_be_bytes();
        for signed in [false, true] {
            assert_eq!(read(&answer(&sent, 41, &[], SECRET, signed)), Ok(DynamicAnswer::Ack));
            assert_eq!(read(&answer(&sent, 42, &[], SECRET, signed)), Ok(DynamicAnswer::Nak(None)));
            assert_eq!(read(&answer(&sent, 42, &[(101, &cause)], SECRET, signed)), Ok(DynamicAnswer::Nak(Some(503))));
            assert_eq!(read(&answer(&sent, 42, &[(101, &[5])], SECRET, signed)), Ok(DynamicAnswer::Nak(None)));
            assert_eq!(read(&answer(&sent, 41, &[], "other", signed)), Err(NoAnswer::Forged));
            let mut late = answer(&sent, 41, &[], SECRET, signed);
            late[1] = 10;
            assert_eq!(read(&late), Err(NoAnswer::Unasked));
            // The answer of the other kind, and an ACK made for another request.
            assert_eq!(read(&answer(&sent, 44, &[], SECRET, signed)), Err(NoAnswer::Unasked));
        }
        let other = request(DynamicKind::Coa).sign(9, &secret, then()).expect("small");
        assert_eq!(read(&answer(&other, 41, &[], SECRET, true)), Err(NoAnswer::Forged));
        let mut wrong = answer(&sent, 41, &[], SECRET, true);
        wrong[22] ^= 1;
        let signed = {
            let authenticator = sent_view.authenticator();
            signature(&wrong, &authenticator, SECRET.as_bytes())
        };
        wrong[4..20].copy_from_slice(&signed);
        assert_eq!(read(&wrong), Err(NoAnswer::Forged), "only the Message-Authenticator is wrong");
        assert_eq!(read(&[41, 9, 0]), Err(NoAnswer::Malformed));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = DynamicRequest { kind: DynamicKind::Coa, attributes: vec![(25, vec![0; 254])] };
        assert_eq!(long.sign(1, &Secret::new(SECRET), then()), Err(BuildError::Value(25)));
    }

    proptest! {
        #[test]
        fn no_bytes_are_taken_for_an_answer(octets in proptest::collection::vec(any::<u8>(), 0..80), code in 41u8..46) {
            let secret = Secret::new(SECRET);
            let sent = request(DynamicKind::Coa).sign(9, &secret, then()).expect("small");
            let mut octets = octets;
            if octets.len() >= 20 {
                let length = u16::try_from(octets.len()).expect("short").to_be_bytes();
                octets[..4].copy_from_slice(&[code, 9, length[0], length[1]]);
            }
            let view = PacketView::parse(&sent).expect("our own packet");
            prop_assert!(dynamic_answer(&octets, &view, &secret).is_err());
        }
    }
}
