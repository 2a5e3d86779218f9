//! Takes a person out of an accounting packet: who it was and where from, over octets of the same length, so that what was
//! counted, and by whom, can still be read. A packet in, the same packet without the person out.

use super::attribute;

/// Where the first attribute begins (RFC 2866 s3).
const HEADER: usize = 20;
/// Smallest attribute.
const ATTRIBUTE_LEAST: usize = 2;
/// Attributes that are texts about the person or the line: they become `x`.
const TEXTS: [u8; 4] = [attribute::USER_NAME, attribute::CALLING_STATION_ID, NAS_PORT_ID, CHARGEABLE_USER_IDENTITY];
/// Attributes that are addresses: they become 0.
const ADDRESSES: [u8; 5] = [attribute::FRAMED_IP_ADDRESS, 96, 97, 123, 168];
const NAS_PORT_ID: u8 = 87;
const CHARGEABLE_USER_IDENTITY: u8 = 89;

/// Overwrites what tells the person: the attributes that always do, and `words` wherever else they stand. Something that is
/// no packet is overwritten where the words stand only.
///
/// **Source**: RFC 2865, 2866; RFC 3162 and 4818 (IPv6), RFC 2869 s5.17, RFC 4372, RFC 6911.
pub fn redact(packet: &mut [u8], words: &[Vec<u8>]) {
    let mut at = HEADER;
    while at + ATTRIBUTE_LEAST <= packet.len() {
        let (kind, length) = (packet[at], usize::from(packet[at + 1]));
        if length < ATTRIBUTE_LEAST || at + length > packet.len() {
            break;
        }
        let value = &mut packet[at + ATTRIBUTE_LEAST..at + length];
        if TEXTS.contains(&kind) {
            value.fill(b'x');
        } else if ADDRESSES.contains(&kind) {
            value.fill(0);
        }
        at += length;
    }
    for word in words.iter().filter(|word| !word.is_empty()) {
        let mut from = HEADER.min(packet.len());
        while let Some(place) = packet[from..].windows(word.len()).position(|window| window == word.as_slice()) {
            packet[from + place..from + place + word.len()].fill(b'x');
            from += place + word.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(attributes: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut packet = vec![4, 1, 0, 0];
        packet.extend([0; 16]);
        for (kind, value) in attributes {
            packet.extend([*kind, value.len() as u8 + 2]);
            packet.extend(value);
        }
        let length = (packet.len() as u16).to_be_bytes();
        packet[2..4].copy_from_slice(&length);
        packet
    }

    #[test]
    fn the_person_is_gone_and_what_was_counted_stays() {
        let mut found = packet(&[
            (attribute::USER_NAME, b"ada@acme".to_vec()),
            (attribute::ACCT_SESSION_ID, b"session-1".to_vec()),
            (attribute::FRAMED_IP_ADDRESS, vec![10, 0, 0, 7]),
            (attribute::CALLING_STATION_ID, b"00-11-22-33-44-55".to_vec()),
            (26, b"\0\0\0\x09\x01\x16client-mac=001122334455".to_vec()),
            (attribute::ACCT_INPUT_OCTETS, vec![1, 2, 3, 4]),
        ]);
        let length = found.len();
        redact(&mut found, &[b"001122334455".to_vec()]);
        assert_eq!(found.len(), length);
        for word in [&b"ada@acme"[..], b"00-11-22", b"001122334455", &[10, 0, 0, 7]] {
            assert!(!found.windows(word.len()).any(|window| window == word), "{word:?}");
        }
        for word in [&b"session-1"[..], &[1, 2, 3, 4]] {
            assert!(found.windows(word.len()).any(|window| window == word), "{word:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_keep_their_length(mut octets: Vec<u8>, words: Vec<Vec<u8>>) {
            let length = octets.len();
            redact(&mut octets, &words);
            prop_assert_eq!(octets.len(), length);
        }
    }
}
