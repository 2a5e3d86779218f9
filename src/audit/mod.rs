//! The audit's chain as values: how a deed is written down for hashing, how links follow one another, what a published
//! head says, and where a chain breaks. Deeds come in, hashes and the first broken row go out; it never reads a table.
//!
//! ```text
//! commitment = SHA-256("lastmile audit part" 00, salt, subject, detail)
//! hash       = SHA-256("lastmile audit link" 00, hash before, tenant, sequence, id, at, actor, action, account, commitment)
//! ```
//!
//! Texts are written with their length before them (8 octets, big-endian), numbers as 8 octets. What may tell of a person
//! (subject and detail) stands in the chain by its commitment only: it can be erased with its salt, and the chain stays.

mod check;
mod head;

use sha2::{Digest, Sha256};

pub use check::{Break, Checker, Row};
pub use head::{Head, HeadError};

/// A SHA-256.
pub type Hash = [u8; 32];

/// What the first deed of a chain follows.
pub const ROOT: Hash = [0; 32];
/// Octets of a salt: enough that nobody finds an erased detail by trying.
pub const SALT_LENGTH: usize = 16;

/// The part of a deed that stays for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deed<'a> {
    /// Empty: the installation.
    pub tenant: &'a str,
    /// Dense per tenant, from 1.
    pub sequence: i64,
    pub id: i64,
    /// Microseconds since 1970.
    pub at: i64,
    pub actor: &'a str,
    pub action: &'a str,
    pub account_id: Option<i64>,
    pub commitment: Hash,
}

/// What the chain knows of a deed's subject and detail.
pub fn commitment(salt: &[u8], subject: &str, detail: &str) -> Hash {
    let mut hash = Sha256::new_with_prefix(b"lastmile audit part\0");
    text(&mut hash, salt);
    text(&mut hash, subject.as_bytes());
    text(&mut hash, detail.as_bytes());
    hash.finalize().into()
}

/// The hash of a deed that follows the one with hash `before`.
pub fn link(before: &Hash, deed: &Deed<'_>) -> Hash {
    let mut hash = Sha256::new_with_prefix(b"lastmile audit link\0");
    hash.update(before);
    text(&mut hash, deed.tenant.as_bytes());
    hash.update(deed.sequence.to_be_bytes());
    hash.update(deed.id.to_be_bytes());
    hash.update(deed.at.to_be_bytes());
    text(&mut hash, deed.actor.as_bytes());
    text(&mut hash, deed.action.as_bytes());
    // Ids are above 0.
    hash.update(deed.account_id.unwrap_or(0).to_be_bytes());
    hash.update(deed.commitment);
    hash.finalize().into()
}

fn text(hash: &mut Sha256, octets: &[u8]) {
    hash.update((octets.len() as u64).to_be_bytes());
    hash.update(octets);
}
