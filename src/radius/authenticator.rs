//! Who sent a packet: Request Authenticator, Response Authenticator and Message-Authenticator, checked against secrets.
//!
//! In: a packet view and the secrets a NAS may use (current first, then the previous one while it is being rotated).
//! Out: which secret it was signed with, or why it was not.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::packet::{HEADER_OCTETS, PacketView};
use super::{attribute, code};
use crate::vocabulary::Secret;

/// Why a packet of a known NAS is not accepted. It is dropped in silence and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("packet code {0} does not belong on an accounting port")]
    Code(u8),
    #[error("the Request Authenticator fits no secret of this NAS")]
    Authenticator,
    #[error("the Message-Authenticator is wrong")]
    MessageAuthenticator,
    #[error("a Status-Server packet needs a Message-Authenticator")]
    Unsigned,
}

/// Tells which of `secrets` signed an Accounting-Request or Status-Server packet; the answer is signed with the same.
///
/// **Errors**: [`Refusal`]; in every case nothing is answered.
/// **Source**: Accounting-Request: MD5 over the packet with a zero authenticator and the secret (RFC 2866 section 3),
/// and a Message-Authenticator, where there is one, over the packet with zero authenticator. Status-Server: the
/// authenticator is random, the Message-Authenticator mandatory (RFC 5997 section 3).
pub fn verify(view: &PacketView<'_>, secrets: &[&Secret]) -> Result<usize, Refusal> {
    match view.code() {
        code::ACCOUNTING_REQUEST => verify_signed(view, secrets),
        code::STATUS_SERVER => {
            view.first(attribute::MESSAGE_AUTHENTICATOR).ok_or(Refusal::Unsigned)?;
            secrets
                .iter()
                .position(|secret| message_authenticator_holds(view, &view.authenticator(), secret) == Some(true))
                .ok_or(Refusal::MessageAuthenticator)
        }
        other => Err(Refusal::Code(other)),
    }
}

/// Tells which of `secrets` signed a request whose authenticator is MD5 over its content: Accounting-Request, and by RFC
/// 5176 section 2.3 CoA-Request and Disconnect-Request.
pub(super) fn verify_signed(view: &PacketView<'_>, secrets: &[&Secret]) -> Result<usize, Refusal> {
    let signer = secrets
        .iter()
        .position(|secret| {
            equal(&signature(view.octets(), &[0; 16], secret.expose().as_bytes()), &view.authenticator())
        })
        .ok_or(Refusal::Authenticator)?;
    match message_authenticator_holds(view, &[0; 16], secrets[signer]) {
        Some(false) => Err(Refusal::MessageAuthenticator),
        Some(true) | None => Ok(signer),
    }
}

/// Whether `datagram` is a genuine answer to the request with this identifier and authenticator.
///
/// **Source**: RFC 2866 section 3, Response Authenticator.
pub fn response_is_genuine(datagram: &[u8], identifier: u8, request_authenticator: &[u8; 16], secret: &Secret) -> bool {
    let Ok(view) = PacketView::parse(datagram) else { return false };
    view.code() == code::ACCOUNTING_RESPONSE
        && view.identifier() == identifier
        && reply_is_signed(&view, request_authenticator, secret)
}

/// Whether an answer was signed for the request with this authenticator; a Message-Authenticator must hold if there is one.
///
/// **Source**: RFC 2865 section 3, RFC 3579 section 3.2.
pub(super) fn reply_is_signed(view: &PacketView<'_>, request_authenticator: &[u8; 16], secret: &Secret) -> bool {
    equal(&signature(view.octets(), request_authenticator, secret.expose().as_bytes()), &view.authenticator())
        && message_authenticator_holds(view, request_authenticator, secret) != Some(false)
}

/// MD5 over a packet whose authenticator field is replaced by `authenticator`, followed by the secret.
pub(super) fn signature(packet: &[u8], authenticator: &[u8; 16], secret: &[u8]) -> [u8; 16] {
    let mut digest = Md5::new();
    digest.update(&packet[..4]);
    digest.update(authenticator);
    digest.update(&packet[HEADER_OCTETS..]);
    digest.update(secret);
    digest.finalize().into()
}

/// HMAC-MD5 over a packet whose authenticator field is replaced by `authenticator` and whose sixteen octets at
/// `offset` (the Message-Authenticator's value) count as zero. RFC 3579 section 3.2.
pub(super) fn message_signature(packet: &[u8], offset: usize, authenticator: &[u8; 16], secret: &[u8]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(secret).expect("an HMAC key may have any length");
    mac.update(&packet[..4]);
    mac.update(authenticator);
    mac.update(&packet[HEADER_OCTETS..offset]);
    mac.update(&[0; 16]);
    mac.update(&packet[offset + 16..]);
    mac.finalize().into_bytes().into()
}

/// `None` without a Message-Authenticator; two of them, or one of another length than 16, never hold.
fn message_authenticator_holds(view: &PacketView<'_>, authenticator: &[u8; 16], secret: &Secret) -> Option<bool> {
    let mut present = view.attributes().filter(|found| found.kind == attribute::MESSAGE_AUTHENTICATOR);
    let found = present.next()?;
    if found.value.len() != 16 || present.next().is_some() {
        return Some(false);
    }
    let expected = message_signature(view.octets(), found.offset, authenticator, secret.expose().as_bytes());
    Some(equal(&expected, found.value))
}

fn equal(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

#[cfg(test)]
mod tests {
    use super::super::{RequestBuilder, answer};
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    /// RFC 5997 section 6.2: Status-Server to the accounting port, and its answer.
    const STATUS_SERVER: [u8; 38] = [
        0x0c, 0xb3, 0x00, 0x26, 0x92, 0x5f, 0x6b, 0x66, 0xdd, 0x5f, 0xed, 0x57, 0x1f, 0xcb, 0x1d, 0xb7, 0xad, 0x38,
        0x82, 0x60, 0x50, 0x12, 0xe8, 0xd6, 0xea, 0xbd, 0xa9, 0x10, 0x87, 0x5c, 0xd9, 0x1f, 0xda, 0xde, 0x26, 0x36,
        0x78, 0x58,
    ];
    const STATUS_ANSWER: [u8; 20] = [
        0x05, 0xb3, 0x00, 0x14, 0x0f, 0x6f, 0x92, 0x14, 0x5f, 0x10, 0x7e, 0x2f, 0x50, 0x4e, 0x86, 0x0a, 0x48, 0x60,
        0x66, 0x9c,
    ];

    #[test]
    fn status_server_of_rfc_5997_is_verified_and_answered() {
        let secret = secret("xyzzy5461");
        let view = PacketView::parse(&STATUS_SERVER).expect("the RFC's packet");
        assert_eq!(verify(&view, &[&secret]), Ok(0));
        assert_eq!(answer(&view, &secret), STATUS_ANSWER);
        assert!(response_is_genuine(&STATUS_ANSWER, 0xb3, &view.authenticator(), &secret));
    }

    #[test]
    fn status_server_without_message_authenticator_is_refused() {
        let octets = [&[12, 1, 0, 20][..], &[7; 16]].concat();
        let view = PacketView::parse(&octets).expect("well formed");
        assert_eq!(verify(&view, &[&secret("s")]), Err(Refusal::Unsigned));
    }

    #[test]
    fn the_previous_secret_still_signs() {
        let (current, previous) = (secret("new"), secret("old"));
        let request = RequestBuilder::accounting(9).integer(40, 1).sign(&previous).expect("small");
        let view = PacketView::parse(&request).expect("well formed");
        assert_eq!(verify(&view, &[&current, &previous]), Ok(1));
        assert_eq!(verify(&view, &[&current]), Err(Refusal::Authenticator));
    }

    #[test]
    fn one_changed_octet_is_noticed() {
        let secret = secret("testing123");
        let request =
            RequestBuilder::accounting(1).message_authenticator().text(44, "abc").sign(&secret).expect("small");
        assert_eq!(verify(&PacketView::parse(&request).expect("well formed"), &[&secret]), Ok(0));
        for index in (0..request.len()).filter(|index| !(2..4).contains(index)) {
            let mut forged = request.clone();
            forged[index] ^= 1;
            if let Ok(view) = PacketView::parse(&forged) {
                assert!(verify(&view, &[&secret]).is_err(), "octet {index}");
            }
        }
    }

    #[test]
    fn a_wrong_message_authenticator_is_refused_though_the_packet_is_signed() {
        let secret = secret("testing123");
        let request = RequestBuilder::accounting(1).octets(80, &[1; 16]).sign(&secret).expect("small");
        let view = PacketView::parse(&request).expect("well formed");
        assert_eq!(verify(&view, &[&secret]), Err(Refusal::MessageAuthenticator));
    }

    #[test]
    fn access_requests_do_not_belong_here() {
        let octets = [&[1, 1, 0, 20][..], &[7; 16]].concat();
        let view = PacketView::parse(&octets).expect("well formed");
        assert_eq!(verify(&view, &[&secret("s")]), Err(Refusal::Code(1)));
    }
}
