//! The spellings in which a person's words stand elsewhere: in packets, in JSON, and in what billing systems sent.

use std::collections::BTreeSet;

use crate::vocabulary::MacAddress;

/// A word as packets write it: as it stands, an address as its octets, a MAC in the usual spellings.
pub(super) fn written(word: &str) -> Vec<Vec<u8>> {
    let mut spellings = vec![word.as_bytes().to_vec()];
    if let Ok(address) = word.parse::<std::net::IpAddr>() {
        spellings.push(match address {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        });
    }
    for text in of_mac(word) {
        spellings.extend([text.to_uppercase().into_bytes(), text.into_bytes()]);
    }
    spellings
}

/// A word as texts of ours write it, in small letters: as it stands, as JSON has it, a MAC in the usual spellings.
pub(super) fn in_texts(word: &str) -> BTreeSet<String> {
    let mut spellings: BTreeSet<String> = BTreeSet::from([word.to_lowercase()]);
    let json = serde_json::Value::from(word).to_string().to_lowercase();
    spellings.extend(json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).map(str::to_owned));
    spellings.extend(of_mac(word));
    spellings
}

/// What an input must have to name a person: any of the words, or all parts of a name none of which is short.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needle {
    words: Vec<Vec<u8>>,
    names: Vec<Vec<Vec<u8>>>,
}

impl Needle {
    pub fn new<'a>(words: impl IntoIterator<Item = &'a String>) -> Self {
        let mut needle = Needle::default();
        let mut seen = BTreeSet::new();
        for word in words.into_iter().filter(|word| word.chars().count() >= LEAST) {
            let mut spellings = in_texts(word);
            // A number without its plus sign, and without its country.
            if let Some(digits) = word.strip_prefix('+').filter(|rest| rest.bytes().all(|octet| octet.is_ascii_digit()))
            {
                spellings.insert(digits.to_owned());
                if let Some(national) = digits.len().checked_sub(NATIONAL).and_then(|at| digits.get(at..)) {
                    spellings.insert(national.to_owned());
                }
            }
            let xml = word.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;").to_lowercase();
            spellings.insert(xml);
            seen.extend(spellings);
            let parts: Vec<Vec<u8>> = word.split_whitespace().map(|part| part.to_lowercase().into_bytes()).collect();
            if parts.len() > 1 && parts.iter().all(|part| part.len() >= PART_LEAST) {
                needle.names.push(parts);
            }
        }
        needle.words = seen.into_iter().map(String::into_bytes).collect();
        needle
    }

    /// Whether octets of a billing system name the person, in UTF-8 or UTF-16.
    pub fn is_in(&self, octets: &[u8]) -> bool {
        let text = small(octets);
        self.words.iter().any(|word| places(&text, word).next().is_some())
            || self.names.iter().any(|parts| parts.iter().all(|part| places(&text, part).next().is_some()))
    }

    /// The octets with the person's words overwritten; each keeps its length. In UTF-16 nothing can be overwritten: `None`.
    pub fn overwritten(&self, octets: &[u8]) -> Option<Vec<u8>> {
        let text = small(octets);
        // Small letters of other lengths would put the places elsewhere.
        if text.len() != octets.len() {
            return None;
        }
        let mut clean = octets.to_vec();
        let named = self.names.iter().filter(|parts| parts.iter().all(|part| places(&text, part).next().is_some()));
        for word in self.words.iter().chain(named.flatten()) {
            for at in places(&text, word) {
                clean[at..at + word.len()].fill(b'x');
            }
        }
        Some(clean)
    }
}

/// Text in small letters, as UTF-8; ASCII letters alone where that would move what follows.
fn small(octets: &[u8]) -> Vec<u8> {
    let wide = |pair: fn([u8; 2]) -> u16| {
        let units = octets.chunks_exact(2).map(|two| pair([two[0], two[1]]));
        char::decode_utf16(units).map(|letter| letter.unwrap_or('?')).collect::<String>().to_lowercase().into_bytes()
    };
    match octets {
        [0xff, 0xfe, ..] | [_, 0, _, 0, ..] => return wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] | [0, _, 0, _, ..] => return wide(u16::from_be_bytes),
        _ => {}
    }
    match std::str::from_utf8(octets).map(str::to_lowercase) {
        Ok(text) if text.len() == octets.len() => text.into_bytes(),
        _ => octets.to_ascii_lowercase(),
    }
}

fn places<'t>(text: &'t [u8], word: &'t [u8]) -> impl Iterator<Item = usize> + 't {
    let first = word.first().copied();
    text.iter()
        .enumerate()
        .filter_map(move |(at, octet)| (Some(*octet) == first && text[at..].starts_with(word)).then_some(at))
}

fn of_mac(word: &str) -> Vec<String> {
    let Ok(mac) = word.parse::<MacAddress>() else { return Vec::new() };
    let text = mac.to_string();
    let plain = text.replace(':', "");
    let dotted = [&plain[..4], &plain[4..8], &plain[8..]].join(".");
    vec![text.clone(), text.replace(':', "-"), plain, dotted]
}

/// Shorter words are in every text.
pub(super) const LEAST: usize = 5;
/// Shorter parts of a name are in every input.
const PART_LEAST: usize = 4;
/// Digits of a number without its country, where nothing tells how long that is.
const NATIONAL: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn needle() -> Needle {
        Needle::new(&["Zoë Quixotic".to_owned(), "00:1a:2b:77:88:99".to_owned(), "+15125551177".to_owned()])
    }

    #[test]
    fn a_person_is_found_however_a_billing_system_writes_them() {
        let utf16: Vec<u8> = "\u{feff}ZOË QUIXOTIC".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let wide = Needle::new(&["ada lovelace".to_owned()]);
        let big: Vec<u8> = "Ada Lovelace".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for text in [
            "{\"name\": \"Zoë Quixotic\"}".as_bytes(),
            b"<mac>001A2B778899</mac>",
            b"001a.2b77.8899",
            b"5125551177",
            utf16.as_slice(),
        ] {
            assert!(needle().is_in(text), "{text:?}");
        }
        assert!(wide.is_in(&big));
        assert!(Needle::new(&["Adele Lovelace".to_owned()]).is_in(b"last=LOVELACE\nmiddle=\nfirst=adele"));
        for text in [&b"Quixote"[..], b"00:1a:2b:77:88:98", b"", b"512555117"] {
            assert!(!needle().is_in(text), "{text:?}");
        }
    }

    #[test]
    fn what_is_overwritten_keeps_its_length_and_the_others() {
        let input = b"id=7;mac=00-1A-2B-77-88-99;tel=+15125551177\nid=8;mac=00-1A-2B-77-88-98;tel=+15125551178";
        let clean = needle().overwritten(input).expect("eight bits");
        let expected = "id=7;mac=xxxxxxxxxxxxxxxxx;tel=xxxxxxxxxxxx\nid=8;mac=00-1A-2B-77-88-98;tel=+15125551178";
        assert_eq!(String::from_utf8_lossy(&clean), expected);
        let utf16: Vec<u8> = "\u{feff}+15125551177".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(needle().overwritten(&utf16), None);
    }
}
