//! A published head: how far a tenant's chain had come at an instant, signed, as one line of text.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::Hash;
use crate::vocabulary::{Timestamp, to_micros};

/// How far a chain has come.
///
/// **Shape** as text: `TENANT SEQUENCE HASH INSTANT SIGNATURE`, hashes as 64 hex digits; `-` is the installation. The
/// signature is an HMAC-SHA-256 over `signed()`, under the installation's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Empty: the installation.
    pub tenant: String,
    pub sequence: i64,
    pub hash: Hash,
    pub at: Timestamp,
    pub signature: Hash,
}

/// Why a text is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a head reads TENANT SEQUENCE HASH INSTANT SIGNATURE")]
pub struct HeadError;

impl Head {
    /// What is signed of a head.
    pub fn signed(tenant: &str, sequence: i64, hash: &Hash, at: Timestamp) -> Vec<u8> {
        let mut octets = tenant.as_bytes().to_vec();
        octets.push(0);
        octets.extend(sequence.to_be_bytes());
        octets.extend(hash);
        octets.extend(to_micros(at).to_be_bytes());
        octets
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenant = if self.tenant.is_empty() { INSTALLATION } else { &self.tenant };
        write!(f, "{tenant} {} {} {} {}", self.sequence, hex(&self.hash), self.at, hex(&self.signature))
    }
}

impl FromStr for Head {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [tenant, sequence, hash, at, signature] = words[..] else { return Err(HeadError) };
        Ok(Self {
            tenant: if tenant == INSTALLATION { String::new() } else { tenant.to_owned() },
            sequence: sequence.parse().map_err(|_| HeadError)?,
            hash: unhex(hash).ok_or(HeadError)?,
            at: at.parse().map_err(|_| HeadError)?,
            signature: unhex(signature).ok_or(HeadError)?,
        })
    }
}

fn hex(octets: &Hash) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn unhex(text: &str) -> Option<Hash> {
    let mut octets = [0; 32];
    if text.len() != octets.len() * 2 || !text.is_ascii() {
        return None;
    }
    for (index, octet) in octets.iter_mut().enumerate() {
        *octet = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(octets)
}

const INSTALLATION: &str = "-";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vocabulary::from_micros;

    proptest! {
        #[test]
        fn a_head_reads_as_it_was_written(
            tenant in "[a-z]{0,8}", sequence in 1i64.., hash: Hash, signature: Hash, at in 0i64..4_000_000_000_000_000,
        ) {
            let head = Head { tenant, sequence, hash, at: from_micros(at).expect("an instant"), signature };
            prop_assert_eq!(head.to_string().parse::<Head>(), Ok(head));
        }

        #[test]
        fn no_text_makes_reading_a_head_panic(text: String) {
            let _ = text.parse::<Head>();
        }
    }
}
