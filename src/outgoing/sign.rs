//! Signatures of Standard Webhooks: a shared secret and what it makes of a message.
//!
//! **Source**: Standard Webhooks 1.0.0, "Signature scheme": `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; while a
//! secret is rotated several of them, separated by spaces.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::vocabulary::{Secret, Timestamp};

pub const SECRET_PREFIX: &str = "whsec_";
/// Octets of a secret.
const LEAST: usize = 24;
const MOST: usize = 64;

/// A secret, ready to sign.
#[derive(Clone)]
pub struct SigningKey(Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be {SECRET_PREFIX} and the base64 of {LEAST} to {MOST} octets")]
pub struct SigningKeyError;

impl SigningKey {
    /// Reads `whsec_…`.
    pub fn parse(secret: &Secret) -> Result<Self, SigningKeyError> {
        let text = secret.expose().strip_prefix(SECRET_PREFIX).ok_or(SigningKeyError)?;
        let octets = STANDARD.decode(text).map_err(|_| SigningKeyError)?;
        if !(LEAST..=MOST).contains(&octets.len()) {
            return Err(SigningKeyError);
        }
        Ok(Self(octets))
    }

    /// The text of a secret with these octets.
    pub fn text(octets: &[u8; 32]) -> Secret {
        Secret::new(format!("{SECRET_PREFIX}{}", STANDARD.encode(octets)))
    }

    fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The value of `webhook-signature` under every key in force.
pub fn signatures(keys: &[SigningKey], id: &str, at: Timestamp, body: &[u8]) -> String {
    let signed: Vec<String> = keys.iter().map(|key| key.sign(id, at.as_second(), body)).collect();
    signed.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification and of its libraries.
    #[test]
    fn the_published_example_is_signed_alike() {
        let key = SigningKey::parse(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).expect("a secret");
        let at = Timestamp::from_second(1_614_265_330).expect("an instant");
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signed = signatures(std::slice::from_ref(&key), id, at, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let two = signatures(&[key.clone(), key], id, at, b"{}");
        assert_eq!(two.split(' ').count(), 2);
    }

    #[test]
    fn secrets_have_their_length() {
        let made = SigningKey::text(&[7; 32]);
        assert!(SigningKey::parse(&made).is_ok());
        for wrong in ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!"] {
            assert!(SigningKey::parse(&Secret::new(wrong)).is_err(), "{wrong}");
        }
    }
}
