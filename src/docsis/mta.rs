//! An MTA's file: its two delimiters, and the hash by which a device in a BASIC flow trusts it.
//!
//! Comes in: the items between `fe 01 01` and `fe 01 ff`. Goes out: the whole file. The hash is SHA-1 over the file
//! without the hash's own TLV, which then stands just before the final delimiter. Source: PKT-SP-PROV1.5; RFC 4682.
//! The family belongs to the device's model and is never guessed: a device refuses a file with another family's object.

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::ber::{Oid, Value, VarBind};
use super::tlv::{Framing, Item, MTA_DELIMITER, Tlv, View, views, write, write_all};

/// Which MIB an MTA's hash object is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashFamily {
    /// CableLabs, pktcMtaDevConfigHash of 4491.
    Na,
    /// tComLabs Excentis, of 7432.
    Eu,
    /// RFC 4682, of mib-2.140.
    Ietf,
}

/// How an MTA is provisioned; DHCP option 122.6 names it. PKT-SP-PROV1.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MtaFlow {
    /// The hash stands in the file; no final INFORM.
    #[default]
    #[serde(rename = "BASIC.1")]
    Basic1,
    /// The hash stands in the file; the MTA reports the end by an INFORM.
    #[serde(rename = "BASIC.2")]
    Basic2,
    /// No hash in the file: file name and hash are set by SNMP when the MTA enrols.
    #[serde(rename = "HYBRID.1")]
    Hybrid1,
    #[serde(rename = "HYBRID.2")]
    Hybrid2,
}

impl MtaFlow {
    pub const ALL: [MtaFlow; 4] = [MtaFlow::Basic1, MtaFlow::Basic2, MtaFlow::Hybrid1, MtaFlow::Hybrid2];

    /// The realm name that DHCP option 122.6 carries.
    pub fn as_str(self) -> &'static str {
        match self {
            MtaFlow::Basic1 => "BASIC.1",
            MtaFlow::Basic2 => "BASIC.2",
            MtaFlow::Hybrid1 => "HYBRID.1",
            MtaFlow::Hybrid2 => "HYBRID.2",
        }
    }

    /// Whether the MTA looks for the hash in the file itself.
    pub fn hash_in_file(self) -> bool {
        matches!(self, MtaFlow::Basic1 | MtaFlow::Basic2)
    }
}

const SNMP_OBJECT: u8 = 11;
const OPENS: u8 = 1;
const CLOSES: u8 = 255;

impl HashFamily {
    pub const ALL: [HashFamily; 3] = [HashFamily::Na, HashFamily::Eu, HashFamily::Ietf];

    pub fn as_str(self) -> &'static str {
        match self {
            HashFamily::Na => "na",
            HashFamily::Eu => "eu",
            HashFamily::Ietf => "ietf",
        }
    }

    /// The object that carries the hash.
    pub fn oid(self) -> Oid {
        match self {
            HashFamily::Na => Oid::of(&[1, 3, 6, 1, 4, 1, 4491, 2, 2, 1, 1, 2, 7, 0]),
            HashFamily::Eu => Oid::of(&[1, 3, 6, 1, 4, 1, 7432, 1, 1, 2, 9, 0]),
            HashFamily::Ietf => Oid::of(&[1, 3, 6, 1, 2, 1, 140, 1, 2, 11, 0]),
        }
    }
}

/// The delimiter that opens a file: what is inside is written behind it, and then `seal` closes it.
pub const OPENING: [u8; 3] = [MTA_DELIMITER, 1, OPENS];
const CLOSING: [u8; 3] = [MTA_DELIMITER, 1, CLOSES];

/// Closes a file that lacks its final delimiter, with the hash in front of it when the flow wants one.
pub fn seal(file: &mut Vec<u8>, family: Option<HashFamily>) {
    if let Some(family) = family {
        let hash = hash_object(family, file);
        write(Framing::Mta, &hash, file);
    }
    file.extend_from_slice(&CLOSING);
}

/// The items of a whole file: delimiters around `inside`, and the hash when the flow wants one.
pub fn wrap(inside: Vec<Item>, family: Option<HashFamily>) -> Vec<Item> {
    let mut items = vec![delimiter(OPENS)];
    items.extend(inside);
    if let Some(family) = family {
        let hash = hash_object(family, &write_all(Framing::Mta, &items));
        items.push(Item::Tlv(hash));
    }
    items.push(delimiter(CLOSES));
    items
}

/// Takes apart what `wrap` made: what is inside, and the family of a hash that verifies.
/// `None` when the delimiters do not stand at both ends.
pub fn unwrap(items: &[Item]) -> Option<(&[Item], Option<HashFamily>)> {
    let bytes = write_all(Framing::Mta, items);
    let family = family_of(&bytes, &views(Framing::Mta, &bytes).ok()?)?;
    let [_, inside @ .., _] = items else { return None };
    let before = inside.len() - usize::from(family.is_some());
    Some((&inside[..before], family))
}

/// The family of a file's hash, when it verifies. `None` when the delimiters do not stand at both ends.
///
/// **Shape**: `tlvs` are those of `bytes`.
pub fn family_of(bytes: &[u8], tlvs: &[View]) -> Option<Option<HashFamily>> {
    let [.., last] = tlvs else { return None };
    if !bytes.starts_with(&OPENING) || !bytes.ends_with(&CLOSING) || last.whole != CLOSING {
        return None;
    }
    let before_last = &bytes[..bytes.len() - CLOSING.len()];
    let [_, .., hash, _] = tlvs else { return Some(None) };
    // Padding between the hash and the delimiter: then it is no hash.
    let Some(before) = before_last.strip_suffix(hash.whole) else { return Some(None) };
    let digest = digest_behind(before);
    let verified = |family: &HashFamily| {
        let expected = bind_of(*family, &digest);
        hash.code == SNMP_OBJECT && hash.value == expected.encode()
    };
    Some(HashFamily::ALL.into_iter().find(verified))
}

fn delimiter(value: u8) -> Item {
    Item::Tlv(Tlv::new(MTA_DELIMITER, vec![value]))
}

/// The hash of a file of which everything in front of the hash is `before`.
fn hash_object(family: HashFamily, before: &[u8]) -> Tlv {
    Tlv::new(SNMP_OBJECT, bind_of(family, &digest_behind(before)).encode())
}

fn digest_behind(before: &[u8]) -> [u8; 20] {
    Sha1::new().chain_update(before).chain_update(CLOSING).finalize().into()
}

fn bind_of(family: HashFamily, digest: &[u8]) -> VarBind {
    VarBind::new(family.oid(), Value::Octets(digest.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docsis::tlv::parse;
    use crate::vocabulary::hex;

    #[test]
    fn the_hash_object_has_the_bytes_of_each_family() {
        let cases = [
            (HashFamily::Na, "0b283026060e2b06010401a30b020201010207000414"),
            (HashFamily::Eu, "0b263024060c2b06010401ba080101020900 0414"),
            (HashFamily::Ietf, "0b253023060b2b06010201810c01020b000414"),
        ];
        for (family, head) in cases {
            let mut bytes = Vec::new();
            write(Framing::Mta, &hash_object(family, &[]), &mut bytes);
            assert!(hex(&bytes).starts_with(&head.replace(' ', "")), "{}", family.as_str());
        }
    }

    #[test]
    fn the_reference_file_carries_a_hash_that_verifies() {
        let file = include_bytes!("../../tests/golden/docsis/v5_mta_na.bin");
        let items = parse(Framing::Mta, file).expect("an MTA file");
        let (inside, family) = unwrap(&items).expect("delimiters");
        assert_eq!(family, Some(HashFamily::Na));
        assert_eq!(write_all(Framing::Mta, &wrap(inside.to_vec(), family)), file);
    }
}
