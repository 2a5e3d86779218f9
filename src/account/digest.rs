//! The fingerprint of an account's desired content: equal content gives an equal ETag, whatever order it was written in.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::model::Account;
use crate::vocabulary::hex;

/// Keyed hashes of an account's secrets, by (service, field). Hex.
pub type SecretDigests = BTreeMap<(String, String), String>;

/// Names the desired content, and nothing else: no revision, no progress of provisioning.
///
/// **Shape**: 32 hex digits, the value of a strong ETag without its quotes. The order of services, devices, lines,
/// holds, aliases and addresses does not matter. A secret enters by its keyed hash.
pub fn content_tag(account: &Account, secrets: &SecretDigests) -> String {
    let sorted = in_order(account.clone());
    let document = serde_json::to_vec(&sorted).expect("an account document has only string keys");
    let mut hash = Sha256::new();
    hash.update(&document);
    for ((service, field), digest) in secrets {
        for part in [service, field, digest] {
            hash.update([0]);
            hash.update(part.as_bytes());
        }
    }
    hex(&hash.finalize()[..16])
}

/// The account with every list whose order means nothing sorted, so that two that say the same are equal.
pub fn in_order(mut account: Account) -> Account {
    account.devices.sort_by(|a, b| a.id.cmp(&b.id));
    account.services.sort_by(|a, b| a.id.cmp(&b.id));
    account.holds.sort_by_key(|hold| (hold.kind, hold.from, hold.until, hold.treatment.clone()));
    for service in &mut account.services {
        service.static_ips.sort();
        service.lines.sort_by_key(|line| line.port);
        service.addons.sort_by(|a, b| a.id.cmp(&b.id));
        if let Some(mailbox) = &mut service.mailbox {
            mailbox.aliases.sort();
            mailbox.forward_to.sort();
        }
    }
    account
}
