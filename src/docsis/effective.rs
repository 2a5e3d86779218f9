//! What of a configuration file changes how the device behaves, as one digest.
//!
//! Comes in: a file's bytes. Goes out: 64 hexadecimal digits, and whether CPEs may send. A file that was only signed with
//! another secret, or bound to another address or time, has the same digest: a device that runs it need not boot for the
//! new one.

use sha2::{Digest, Sha256};

use super::schema::{DOCSIS_EXTENSION, VENDOR_ID};
use super::tlv::{CM_MIC, CMTS_MIC, Framing, Item, Tlv, parse, parse_nested, views, write_item};
use crate::vocabulary::hex;

const NETWORK_ACCESS: u8 = 3;
const TFTP_TIMESTAMP: u8 = 19;
const MODEM_ADDRESS: u8 = 20;
const VENDOR: u8 = 43;
const EXTENDED_CMTS_MIC: u8 = 6;

/// SHA-256 over a file's TLVs, without both MICs (6, 7), the time stamp (19), the modem's address (20), the extended
/// CMTS MIC (43.6 of DOCSIS' own extensions), padding and end. Bytes that are no file are digested as they are.
pub fn effective_digest(bytes: &[u8]) -> String {
    let framing = Framing::of(bytes);
    let mut digest = Sha256::new();
    match parse(framing, bytes) {
        Ok(items) => {
            let mut kept = Vec::with_capacity(bytes.len());
            for item in items.iter().filter(|item| matters(framing, item)) {
                write_item(framing, item, &mut kept);
            }
            digest.update(&kept);
        }
        Err(_) => digest.update(bytes),
    }
    hex(digest.finalize())
}

/// Whether a modem with this file lets its CPEs send: its Network Access Control (TLV 3) is on. A file without one is
/// refused at registration; it counts as on.
pub fn network_access(bytes: &[u8]) -> bool {
    let views = views(Framing::Cm, bytes).unwrap_or_default();
    views.iter().find(|view| view.code == NETWORK_ACCESS).is_none_or(|view| view.value != [0])
}

fn matters(framing: Framing, item: &Item) -> bool {
    match (framing, item) {
        (_, Item::Pad(_) | Item::End(_)) => false,
        (Framing::Mta, Item::Tlv(_)) => true,
        (Framing::Cm, Item::Tlv(tlv)) => {
            !matches!(tlv.code, CM_MIC | CMTS_MIC | TFTP_TIMESTAMP | MODEM_ADDRESS) && !is_extended_mic(tlv)
        }
    }
}

/// The extended CMTS MIC stands alone in its extension: only the OUI is beside it.
fn is_extended_mic(tlv: &Tlv) -> bool {
    let Ok(inner) = parse_nested(&tlv.value) else { return false };
    tlv.code == VENDOR
        && inner.iter().any(|sub| sub.code == VENDOR_ID && sub.value == DOCSIS_EXTENSION)
        && inner.iter().any(|sub| sub.code == EXTENDED_CMTS_MIC)
        && inner.iter().all(|sub| matches!(sub.code, VENDOR_ID | EXTENDED_CMTS_MIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both MICs, an address and a time stamp behind the same settings.
    #[test]
    fn only_what_a_device_would_do_otherwise_changes_the_digest() {
        let plain = [3, 1, 1, 18, 1, 2, 255, 0];
        let bound = [3, 1, 1, 18, 1, 2, 19, 4, 0, 0, 0, 9, 20, 4, 10, 0, 0, 1, 6, 1, 7, 7, 1, 7, 255, 0, 0, 0];
        let extended = [3, 1, 1, 43, 7, 8, 3, 255, 255, 255, 6, 0, 18, 1, 2, 255];
        assert_eq!(effective_digest(&plain), effective_digest(&bound));
        assert_eq!(effective_digest(&plain), effective_digest(&extended));
        let other_vendor = [3, 1, 1, 43, 7, 8, 3, 0, 16, 24, 6, 0, 18, 1, 2, 255];
        for different in [&other_vendor[..], &[3, 1, 0, 18, 1, 2, 255, 0], &[18, 1, 2, 3, 1, 1, 255, 0], &[3, 1]] {
            assert_ne!(effective_digest(&plain), effective_digest(different), "{different:?}");
        }
    }

    #[test]
    fn network_access_is_what_stands_on_the_top_level() {
        assert!(network_access(&[18, 1, 2, 3, 1, 1, 255]));
        assert!(!network_access(&[18, 1, 2, 3, 1, 0, 255]));
        assert!(network_access(&[43, 8, 8, 3, 0, 16, 24, 3, 1, 0, 3, 1, 1, 255]), "a vendor's 3 is another");
    }
}
