//! Bytes we send or keep: the answer to a request, signed requests (for our own probes, demo and load generator), and
//! the redacted copy of a packet that goes into the journal.

use std::net::IpAddr;

use thiserror::Error;

use super::authenticator::{message_signature, signature};
use super::packet::{HEADER_OCTETS, PACKET_MAX, PacketView};
use super::{attribute, code};
use crate::vocabulary::Secret;

const VALUE_MAX: usize = 253;

/// The Accounting-Response to a verified request: same identifier, every Proxy-State in order, nothing else.
///
/// **Source**: RFC 2866 sections 3 and 4.2; for Status-Server RFC 5997 section 3.
pub fn answer(request: &PacketView<'_>, secret: &Secret) -> Vec<u8> {
    let mut octets = vec![code::ACCOUNTING_RESPONSE, request.identifier(), 0, 0];
    octets.extend_from_slice(&request.authenticator());
    for state in request.all(attribute::PROXY_STATE) {
        push(&mut octets, attribute::PROXY_STATE, state);
    }
    write_length(&mut octets);
    let authenticator = signature(&octets, &request.authenticator(), secret.expose().as_bytes());
    octets[4..HEADER_OCTETS].copy_from_slice(&authenticator);
    octets
}

/// The packet as it may be kept: passwords are overwritten with zeros, all lengths and places stay.
pub fn redacted(packet: &PacketView<'_>) -> Vec<u8> {
    let mut octets = packet.octets().to_vec();
    for secret in packet.attributes().filter(|found| is_password(found.kind)) {
        octets[secret.offset..secret.offset + secret.value.len()].fill(0);
    }
    octets
}

fn is_password(kind: u8) -> bool {
    matches!(kind, attribute::USER_PASSWORD | attribute::CHAP_PASSWORD | attribute::TUNNEL_PASSWORD)
}

/// What cannot be put into a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BuildError {
    #[error("attribute {0} holds more than 253 octets")]
    Value(u8),
    #[error("the packet would be longer than 4096 octets")]
    Packet,
}

/// Puts a request together and signs it.
#[derive(Debug, Clone)]
pub struct RequestBuilder {
    octets: Vec<u8>,
    message_authenticator: Option<usize>,
    fault: Option<BuildError>,
}

impl RequestBuilder {
    /// An Accounting-Request; its authenticator follows from the content.
    pub fn accounting(identifier: u8) -> Self {
        Self::new(code::ACCOUNTING_REQUEST, identifier, [0; 16])
    }

    /// A Status-Server packet; `random` becomes its authenticator. Carries a Message-Authenticator (RFC 5997 section 3).
    pub fn status_server(identifier: u8, random: [u8; 16]) -> Self {
        Self::new(code::STATUS_SERVER, identifier, random).message_authenticator()
    }

    /// A Disconnect-Request or CoA-Request; its authenticator follows from the content (RFC 5176 section 2.3).
    pub(super) fn dynamic(code: u8, identifier: u8) -> Self {
        Self::new(code, identifier, [0; 16])
    }

    fn new(code: u8, identifier: u8, authenticator: [u8; 16]) -> Self {
        let mut octets = vec![code, identifier, 0, 0];
        octets.extend_from_slice(&authenticator);
        Self { octets, message_authenticator: None, fault: None }
    }

    pub fn octets(mut self, kind: u8, value: &[u8]) -> Self {
        if value.len() > VALUE_MAX {
            self.fault.get_or_insert(BuildError::Value(kind));
        } else if self.octets.len() + 2 + value.len() > PACKET_MAX {
            self.fault.get_or_insert(BuildError::Packet);
        } else {
            push(&mut self.octets, kind, value);
        }
        self
    }

    pub fn text(self, kind: u8, value: &str) -> Self {
        self.octets(kind, value.as_bytes())
    }

    pub fn integer(self, kind: u8, value: u32) -> Self {
        self.octets(kind, &value.to_be_bytes())
    }

    pub fn address(self, kind: u8, value: IpAddr) -> Self {
        match value {
            IpAddr::V4(address) => self.octets(kind, &address.octets()),
            IpAddr::V6(address) => self.octets(kind, &address.octets()),
        }
    }

    /// A vendor's sub-attribute in the usual form (RFC 2865 section 5.26).
    pub fn vendor(mut self, vendor: u32, kind: u8, value: &[u8]) -> Self {
        let Some(length) = u8::try_from(value.len() + 2).ok().filter(|_| value.len() + 6 <= VALUE_MAX) else {
            self.fault.get_or_insert(BuildError::Value(attribute::VENDOR_SPECIFIC));
            return self;
        };
        let inner = [&vendor.to_be_bytes()[..], &[kind, length], value].concat();
        self.octets(attribute::VENDOR_SPECIFIC, &inner)
    }

    /// Adds a Message-Authenticator; `sign` fills it.
    pub fn message_authenticator(mut self) -> Self {
        if self.message_authenticator.is_none() {
            let offset = self.octets.len() + 2;
            self = self.octets(attribute::MESSAGE_AUTHENTICATOR, &[0; 16]);
            self.message_authenticator = Some(offset).filter(|offset| offset + 16 <= self.octets.len());
        }
        self
    }

    /// The signed packet.
    ///
    /// **Errors**: the first thing that did not fit.
    pub fn sign(mut self, secret: &Secret) -> Result<Vec<u8>, BuildError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let key = secret.expose().as_bytes();
        write_length(&mut self.octets);
        if let Some(offset) = self.message_authenticator {
            let mut authenticator = [0; 16];
            authenticator.copy_from_slice(&self.octets[4..HEADER_OCTETS]);
            let signed = message_signature(&self.octets, offset, &authenticator, key);
            self.octets[offset..offset + 16].copy_from_slice(&signed);
        }
        if [code::ACCOUNTING_REQUEST, code::DISCONNECT_REQUEST, code::COA_REQUEST].contains(&self.octets[0]) {
            let signed = signature(&self.octets, &[0; 16], key);
            self.octets[4..HEADER_OCTETS].copy_from_slice(&signed);
        }
        Ok(self.octets)
    }
}

pub(super) fn push(octets: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u8::try_from(value.len() + 2).expect("a value has at most 253 octets");
    octets.extend_from_slice(&[kind, length]);
    octets.extend_from_slice(value);
}

pub(super) fn write_length(octets: &mut [u8]) {
    let length = u16::try_from(octets.len()).expect("a packet has at most 4096 octets");
    octets[2..4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{response_is_genuine, verify};
    use super::*;

    #[test]
    fn proxy_states_come_back_in_order_and_nothing_else() {
        let secret = Secret::new("testing123");
        let request = RequestBuilder::accounting(42)
            .octets(33, b"first")
            .text(1, "ada@acme")
            .octets(33, b"")
            .octets(33, b"third")
            .sign(&secret)
            .expect("small");
        let view = PacketView::parse(&request).expect("well formed");
        let response = answer(&view, &secret);
        let answered = PacketView::parse(&response).expect("well formed");
        assert_eq!((answered.code(), answered.identifier()), (5, 42));
        let states: Vec<&[u8]> = answered.attributes().map(|found| found.value).collect();
        assert_eq!(states, [&b"first"[..], b"", b"third"]);
        assert!(response_is_genuine(&response, 42, &view.authenticator(), &secret));
        assert!(!response_is_genuine(&response, 42, &view.authenticator(), &Secret::new("other")));
    }

    #[test]
    fn passwords_are_not_kept() {
        let request = RequestBuilder::accounting(1)
            .octets(2, &[9; 16])
            .text(1, "ada")
            .octets(3, &[8; 17])
            .sign(&Secret::new("s"))
            .expect("small");
        let kept = redacted(&PacketView::parse(&request).expect("well formed"));
        let kept = PacketView::parse(&kept).expect("lengths stay");
        assert_eq!(kept.first(2), Some(&[0; 16][..]));
        assert_eq!(kept.first(3), Some(&[0; 17][..]));
        assert_eq!(kept.first(1), Some(&b"ada"[..]));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let secret = Secret::new("s");
        assert_eq!(RequestBuilder::accounting(1).octets(25, &[0; 254]).sign(&secret), Err(BuildError::Value(25)));
        assert_eq!(RequestBuilder::accounting(1).vendor(9, 1, &[0; 248]).sign(&secret), Err(BuildError::Value(26)));
        assert_eq!(RequestBuilder::accounting(1).vendor(9, 1, &[0; 300]).sign(&secret), Err(BuildError::Value(26)));
        let full = (0..17).fold(RequestBuilder::accounting(1), |builder, _| builder.octets(25, &[0; 253]));
        assert_eq!(full.sign(&secret), Err(BuildError::Packet));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(
            identifier in any::<u8>(),
            attributes in proptest::collection::vec(
                (1u8..=255, proptest::collection::vec(any::<u8>(), 0..60)), 0..20),
            secret in "[a-z]{1,20}",
            signed in any::<bool>(),
        ) {
            let secret = Secret::new(secret);
            let attributes: Vec<(u8, Vec<u8>)> = attributes.into_iter().filter(|(kind, _)| *kind != 80).collect();
            let mut builder = RequestBuilder::accounting(identifier);
            if signed {
                builder = builder.message_authenticator();
            }
            for (kind, value) in &attributes {
                builder = builder.octets(*kind, value);
            }
            let request = builder.sign(&secret).expect("small");
            let view = PacketView::parse(&request).expect("our own packet");
            prop_assert_eq!(verify(&view, &[&secret]), Ok(0));
            let decoded: Vec<(u8, Vec<u8>)> = view
                .attributes()
                .filter(|found| found.kind != 80)
                .map(|found| (found.kind, found.value.to_vec()))
                .collect();
            prop_assert_eq!(decoded, attributes);
            let response = answer(&view, &secret);
            prop_assert!(response_is_genuine(&response, identifier, &view.authenticator(), &secret));
        }

        /// `radius` (radius-rs) is a second opinion that nobody here wrote.
        #[test]
        fn the_radius_crate_agrees_on_requests_and_answers(
            identifier in any::<u8>(),
            user in "[a-z]{0,40}",
            octets in any::<u32>(),
            secret in "[a-z]{1,20}",
        ) {
            use radius::core::packet::Packet;
            let ours = RequestBuilder::accounting(identifier)
                .text(1, &user)
                .integer(42, octets)
                .sign(&Secret::new(secret.clone()))
                .expect("small");
            prop_assert!(Packet::is_authentic_request(&ours, secret.as_bytes()));
            let theirs = Packet::decode(&ours, secret.as_bytes()).expect("a packet");
            prop_assert_eq!(radius::core::rfc2865::lookup_user_name(&theirs).and_then(Result::ok), Some(user));
            prop_assert_eq!(
                radius::core::rfc2866::lookup_acct_input_octets(&theirs).and_then(Result::ok), Some(octets));
            let response = answer(&PacketView::parse(&ours).expect("our own packet"), &Secret::new(secret.clone()));
            prop_assert!(Packet::is_authentic_response(&response, &ours, secret.as_bytes()));
        }
    }
}
