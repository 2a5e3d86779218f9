//! How a source proves that what came is its own: a signature over the body, a secret in a header or in the record, the
//! address it came from, or by being asked back. Compares without telling by its time how much was right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::function::{Scope as Ground, Val};
use super::profile::Profile;
use super::template::Template;
use super::tree::Tree;
use crate::vocabulary::Secret;

/// `[verify]` of a profile.
#[derive(Debug)]
pub enum Verify {
    /// A header has the HMAC of the body under the shared secret.
    Hmac { header: String, hash: Hash, encoding: Encoding, prefix: String },
    /// A header has the shared secret.
    Header { header: String },
    /// Each record has the shared secret.
    Field { value: Template },
    /// The source is asked for this path, and what it answers is read in place of what came.
    Callback { path: Template },
    /// Nothing but the sender's address.
    Address,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    Sha1,
    Sha256,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Hexadecimal,
    Base64,
}

/// What a source's configuration must have so that its profile's `[verify]` can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Secret,
    Callback,
    Addresses,
}

impl Verify {
    pub fn wanted(&self) -> Wanted {
        match self {
            Verify::Hmac { .. } | Verify::Header { .. } | Verify::Field { .. } => Wanted::Secret,
            Verify::Callback { .. } => Wanted::Callback,
            Verify::Address => Wanted::Addresses,
        }
    }

    /// Whether headers and body prove one of these secrets. True where the proof stands elsewhere.
    ///
    /// **Shape**: `header` gives a header's text by its name.
    pub fn signed<'h>(&self, header: impl Fn(&str) -> Option<&'h str>, body: &[u8], secrets: &[&Secret]) -> bool {
        match self {
            Verify::Hmac { header: name, hash, encoding, prefix } => {
                let Some(text) = header(name).and_then(|text| text.trim().strip_prefix(prefix.as_str())) else {
                    return false;
                };
                let Some(told) = encoding.decode(text.trim()) else { return false };
                secrets.iter().any(|secret| hash.code(secret, body).ct_eq(&told).into())
            }
            Verify::Header { header: name } => header(name).is_some_and(|text| known(text, secrets)),
            Verify::Field { .. } | Verify::Callback { .. } | Verify::Address => true,
        }
    }

    /// Whether what a record brought as its proof is one of these secrets. True where the proof stands elsewhere.
    pub fn shares(&self, proof: Option<&str>, secrets: &[&Secret]) -> bool {
        match self {
            Verify::Field { .. } => proof.is_some_and(|proof| known(proof, secrets)),
            _ => true,
        }
    }

    pub(super) fn template(&self) -> Option<&Template> {
        match self {
            Verify::Field { value } => Some(value),
            Verify::Callback { path } => Some(path),
            _ => None,
        }
    }
}

impl Hash {
    fn code(self, secret: &Secret, body: &[u8]) -> Vec<u8> {
        let key = secret.expose().as_bytes();
        const ANY_LENGTH: &str = "HMAC takes keys of any length";
        match self {
            Hash::Sha1 => {
                let mac = <Hmac<Sha1> as KeyInit>::new_from_slice(key).expect(ANY_LENGTH);
                mac.chain_update(body).finalize().into_bytes().to_vec()
            }
            Hash::Sha256 => {
                let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect(ANY_LENGTH);
                mac.chain_update(body).finalize().into_bytes().to_vec()
            }
        }
    }
}

impl Encoding {
    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Encoding::Base64 => STANDARD.decode(text).ok(),
            Encoding::Hexadecimal => {
                let pairs = text.as_bytes().chunks(2);
                pairs
                    .map(|pair| match pair {
                        [_, _] => std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()),
                        _ => None,
                    })
                    .collect()
            }
        }
    }
}

fn known(text: &str, secrets: &[&Secret]) -> bool {
    secrets.iter().any(|secret| bool::from(secret.expose().as_bytes().ct_eq(text.as_bytes())))
}

/// What a record brings besides its change: what the source calls the event, and its proof.
pub(super) fn besides(profile: &Profile, record: &Tree) -> (Option<String>, Option<String>) {
    let ground = Ground { record, item: record, customs: &profile.customs };
    let text = |template: &Template| match template.key(&ground) {
        Ok(Val::Text(text)) => Some(text.into_owned()),
        _ => None,
    };
    (profile.event_id.as_ref().and_then(text), profile.verify.as_ref().and_then(Verify::template).and_then(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hmac(hash: Hash, encoding: Encoding, prefix: &str) -> Verify {
        Verify::Hmac { header: "X-Signature".to_owned(), hash, encoding, prefix: prefix.to_owned() }
    }

    #[test]
    fn a_signature_holds_for_its_body_and_secret_alone() {
        // RFC 2202 s3 and RFC 4231 s4.3, case 2: key "Jefe".
        let body = b"what do ya want for nothing?";
        let sha1 = "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79";
        let sha256 = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let (jefe, other) = (Secret::new("Jefe"), Secret::new("Jeff"));
        for (verify, told) in [
            (hmac(Hash::Sha1, Encoding::Hexadecimal, ""), sha1),
            (hmac(Hash::Sha256, Encoding::Hexadecimal, "sha256="), sha256),
            (hmac(Hash::Sha1, Encoding::Base64, ""), "7/zfauXrL6LSdBbV8YTfnCWafHk="),
        ] {
            let header = |name: &str| (name == "X-Signature").then_some(told);
            assert!(verify.signed(header, body, &[&jefe]), "{told}");
            assert!(verify.signed(header, body, &[&other, &jefe]), "one of two while rotating");
            assert!(!verify.signed(header, body, &[&other]), "another secret");
            assert!(!verify.signed(header, b"what do ya want for nothing!", &[&jefe]), "another body");
            assert!(!verify.signed(|_| None, body, &[&jefe]), "no header");
            assert!(!verify.signed(|_| Some("zz"), body, &[&jefe]), "no signature at all");
            assert!(!verify.signed(|_| Some(""), body, &[&jefe]), "an empty one");
            assert!(!verify.signed(header, body, &[]), "no secret is configured");
        }
    }

    #[test]
    fn a_shared_secret_is_compared_whole() {
        let secret = Secret::new("s3cret");
        let header = Verify::Header { header: "X-Key".to_owned() };
        assert!(header.signed(|_| Some("s3cret"), b"", &[&secret]));
        assert!(!header.signed(|_| Some("s3cre"), b"", &[&secret]));
        let field = Verify::Field { value: Template::parse("{key}", &[]).expect("a template") };
        assert!(field.shares(Some("s3cret"), &[&secret]));
        assert!(!field.shares(Some("S3cret"), &[&secret]) && !field.shares(None, &[&secret]));
    }
}
