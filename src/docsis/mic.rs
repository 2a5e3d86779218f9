//! The two message integrity checks of a modem's file.
//!
//! Comes in: the file's items and, for the CMTS' check, the shared secret. Goes out: sixteen bytes.
//!
//! | check | TLV | algorithm | over |
//! |---|---|---|---|
//! | CM MIC | 6 | MD5 | every byte of the file before TLV 6 |
//! | CMTS MIC | 7 | HMAC-MD5, key = shared secret | whole TLVs of the types in `CMTS_ORDER`, type by type |
//!
//! Source: CM-SP-MULPI Annex D.2; checked against two independent encoders.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};

use super::tlv::{CM_MIC, Framing, Item, write, write_item};

/// A MIC's length.
pub const MIC_OCTETS: usize = 16;

/// The types under the CMTS MIC, in the order they are hashed: 43 before 6 and 29 before 26 are no slip.
pub const CMTS_ORDER: [u8; 21] = [1, 2, 3, 4, 17, 43, 6, 18, 19, 20, 22, 23, 24, 25, 28, 29, 26, 35, 36, 37, 40];

const IPV4_MODEM: u8 = 20;
const IPV6_MODEM: u8 = 59;

/// The CM MIC of a file whose items up to, and without, TLV 6 are `before`.
pub fn cm_mic(before: &[Item]) -> [u8; MIC_OCTETS] {
    let mut bytes = Vec::new();
    for item in before {
        write_item(Framing::Cm, item, &mut bytes);
    }
    Md5::digest(&bytes).into()
}

/// The CMTS MIC of a file. `items` holds the CM MIC already; TLV 7, padding and the end are passed over.
///
/// Where the modem's address is provisioned as IPv6 only (TLV 59 and no TLV 20), 59 takes the place of 20.
pub fn cmts_mic(items: &[Item], secret: &[u8]) -> [u8; MIC_OCTETS] {
    let has_ipv4 = items.iter().any(|item| matches!(item, Item::Tlv(tlv) if tlv.code == IPV4_MODEM));
    let mut mac = Hmac::<Md5>::new_from_slice(secret).expect("HMAC takes a key of any length");
    for code in CMTS_ORDER {
        let code = if code == IPV4_MODEM && !has_ipv4 { IPV6_MODEM } else { code };
        for item in items {
            if let Item::Tlv(tlv) = item
                && tlv.code == code
            {
                let mut bytes = Vec::new();
                write(Framing::Cm, tlv, &mut bytes);
                mac.update(&bytes);
            }
        }
    }
    mac.finalize().into_bytes().into()
}

/// The value that stands at `index` of `items` if it is a CM MIC, computed anew.
pub fn expected_cm_mic(items: &[Item]) -> Option<[u8; MIC_OCTETS]> {
    let index = items.iter().position(|item| matches!(item, Item::Tlv(tlv) if tlv.code == CM_MIC))?;
    Some(cm_mic(&items[..index]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docsis::tlv::{Tlv, parse};

    #[test]
    fn both_checks_of_the_reference_file_come_out() {
        let file = include_bytes!("../../tests/golden/docsis/v1_res_100_20_d30.cm");
        let items = parse(Framing::Cm, file).expect("a file");
        let value = |code| {
            items.iter().find_map(|item| match item {
                Item::Tlv(tlv) if tlv.code == code => Some(tlv.value.clone()),
                _ => None,
            })
        };
        assert_eq!(expected_cm_mic(&items).map(Vec::from), value(6));
        assert_eq!(Some(cmts_mic(&items, b"example-secret-1").to_vec()), value(7));
    }

    #[test]
    fn the_cmts_check_covers_a_type_wherever_it_stands_but_not_the_unlisted() {
        let tlv = |code, byte| Item::Tlv(Tlv::new(code, vec![byte]));
        let base = cmts_mic(&[tlv(3, 1), tlv(18, 2)], b"k");
        assert_eq!(cmts_mic(&[tlv(18, 2), tlv(3, 1)], b"k"), base);
        assert_eq!(cmts_mic(&[tlv(3, 1), tlv(18, 2), tlv(39, 1)], b"k"), base);
        assert_ne!(cmts_mic(&[tlv(3, 0), tlv(18, 2)], b"k"), base);
        assert_ne!(cmts_mic(&[tlv(3, 1), tlv(18, 2)], b"K"), base);
    }
}
