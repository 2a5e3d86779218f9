//! The two message integrity checks of a modem's file.
//!
//! Comes in: the file's items and, for the CMTS' check, the shared secret. Goes out: sixteen bytes.
//!
//! | check | TLV | algorithm | over |
//! |---|---|---|---|
//! | CM MIC | 6 | MD5 | every byte of the file before TLV 6 |
//! | CMTS MIC | 7 | HMAC-MD5, key = shared secret | whole TLVs of the types in `CMTS_ORDER`, type by type |
//! | extended | 7, or 43.6.3 | HMAC-MD5, key = shared secret | whole TLVs of the types in its bitmap, in the file's order |
//!
//! Source: CM-SP-MULPI Annex D.2; checked against two independent encoders.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};

use super::schema::{DOCSIS_EXTENSION, VENDOR_ID};
use super::tlv::{CM_MIC, CMTS_MIC, END, Framing, Item, PAD, Tlv, View, nested, views, write, write_item};

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

/// The value TLV 7 must have behind `items`: the ordinary CMTS MIC, or the extended one where they announce that it stands
/// there. Padding is passed over.
pub fn expected_cmts_mic(items: &[Item], secret: &[u8]) -> [u8; MIC_OCTETS] {
    let bytes = written(items);
    let tlvs = views(Framing::Cm, &bytes).expect("what was written whole is read whole");
    match extended_of(&tlvs) {
        Some((mic, None)) => mic.digest(&tlvs, secret),
        _ => cmts_mic_of(&tlvs, secret),
    }
}

/// The setting of an extended MIC that stands at the end of `items`, when it is the one that `extended_setting` makes.
pub fn made_setting(items: &[Item], secret: &[u8]) -> Option<ExtendedMic> {
    let (last, before) = items.split_last()?;
    let Item::Tlv(last) = last else { return None };
    let mut own = Vec::new();
    write(Framing::Cm, last, &mut own);
    let own = views(Framing::Cm, &own).ok()?;
    let (mic, _) = extended_of(&own)?;
    let bytes = written(before);
    let before = views(Framing::Cm, &bytes).expect("what was written whole is read whole");
    (extended_of(&before).is_none() && extended_setting(&mic, &before, secret) == *last).then_some(mic)
}

/// The setting that stands behind `items`.
pub fn setting_behind(items: &[Item], mic: &ExtendedMic, secret: &[u8]) -> Tlv {
    let bytes = written(items);
    let before = views(Framing::Cm, &bytes).expect("what was written whole is read whole");
    extended_setting(mic, &before, secret)
}

fn written(items: &[Item]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        // A type that is a single byte in a file could not be read again as a TLV; no list holds one.
        if let Item::Tlv(tlv) = item
            && !matches!(tlv.code, PAD | END)
        {
            write(Framing::Cm, tlv, &mut bytes);
        }
    }
    bytes
}

/// The CM MIC over the bytes before TLV 6.
pub fn cm_mic_of(before: &[u8]) -> [u8; MIC_OCTETS] {
    Md5::digest(before).into()
}

/// The ordinary CMTS MIC over a file's TLVs, the CM MIC among them and TLV 7 not.
///
/// Where the modem's address is provisioned as IPv6 only (TLV 59 and no TLV 20), 59 takes the place of 20.
pub fn cmts_mic_of(tlvs: &[View], secret: &[u8]) -> [u8; MIC_OCTETS] {
    let mut stands = [false; 256];
    let mut octets = 0;
    for tlv in tlvs {
        stands[usize::from(tlv.code)] = true;
        octets += tlv.whole.len();
    }
    let ipv6_only = !stands[usize::from(IPV4_MODEM)];
    // One run of bytes: digesting piece by piece costs more than the copy.
    let mut covered = Vec::with_capacity(octets);
    for code in CMTS_ORDER {
        let code = if code == IPV4_MODEM && ipv6_only { IPV6_MODEM } else { code };
        if stands[usize::from(code)] {
            tlvs.iter().filter(|tlv| tlv.code == code).for_each(|tlv| covered.extend_from_slice(tlv.whole));
        }
    }
    let mut mac = keyed(secret);
    mac.update(&covered);
    mac.finalize().into_bytes().into()
}

/// The extended CMTS MIC of a file being made. CM-SP-MULPI Annex D.2.1, C.1.1.18.1.6.
///
/// **Shape**: `bitmap` is a bit string, the first byte's highest bit stands for type 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedMic {
    /// The digest stands in 43.6.3 beside an ordinary TLV 7; else it is the value of TLV 7.
    pub explicit: bool,
    pub bitmap: Vec<u8>,
}

const VENDOR: u8 = 43;
const SETTING: u8 = 6;
const HMAC_TYPE: u8 = 1;
const BITMAP: u8 = 2;
const DIGEST: u8 = 3;
/// HMAC-MD5; the other algorithms of the register (2 = MMH16, 43 = a vendor's) are not computed here.
const HMAC_MD5: u8 = 1;

impl ExtendedMic {
    /// Over every type that a file can hold, its two MICs and the capabilities aside; implicit ones cover the CM MIC too.
    pub fn of_all(explicit: bool) -> Self {
        let left_out = |code: u8| matches!(code, 0 | 5 | CMTS_MIC) || (explicit && code == CM_MIC);
        let mut bitmap = vec![0u8; 12];
        for code in (0..96u8).filter(|code| !left_out(*code)) {
            bitmap[usize::from(code / 8)] |= 0x80 >> (code % 8);
        }
        Self { explicit, bitmap }
    }

    /// The digest over the TLVs of a file whose setting (43.6) stands in place, its explicit digest as zeros.
    pub fn digest(&self, tlvs: &[View], secret: &[u8]) -> [u8; MIC_OCTETS] {
        let mut mac = keyed(secret);
        for tlv in tlvs.iter().filter(|tlv| covers(&self.bitmap, tlv.code) && tlv.code != CMTS_MIC) {
            if self.explicit && tlv.code == CM_MIC {
                continue;
            }
            match explicit_at(tlv) {
                Some(at) if self.explicit => {
                    mac.update(&tlv.whole[..at]);
                    mac.update(&[0; MIC_OCTETS]);
                    mac.update(&tlv.whole[at + MIC_OCTETS..]);
                }
                _ => mac.update(tlv.whole),
            }
        }
        mac.finalize().into_bytes().into()
    }
}

/// The TLV 43 that tells of the extended MIC, to stand behind `before` and in front of TLV 6.
pub fn extended_setting(mic: &ExtendedMic, before: &[View], secret: &[u8]) -> Tlv {
    let value = |digest: &[u8]| {
        let mut setting = Vec::new();
        write(Framing::Cm, &Tlv::new(HMAC_TYPE, vec![HMAC_MD5]), &mut setting);
        write(Framing::Cm, &Tlv::new(BITMAP, mic.bitmap.clone()), &mut setting);
        if mic.explicit {
            write(Framing::Cm, &Tlv::new(DIGEST, digest.to_vec()), &mut setting);
        }
        let mut inside = Vec::new();
        write(Framing::Cm, &Tlv::new(VENDOR_ID, DOCSIS_EXTENSION.to_vec()), &mut inside);
        write(Framing::Cm, &Tlv::new(SETTING, setting), &mut inside);
        inside
    };
    let unsigned = value(&[0; MIC_OCTETS]);
    if !mic.explicit {
        return Tlv::new(VENDOR, unsigned);
    }
    let mut whole = Vec::new();
    write(Framing::Cm, &Tlv::new(VENDOR, unsigned), &mut whole);
    let own = View { code: VENDOR, value: &whole[2..], whole: &whole };
    let all: Vec<View> = before.iter().copied().chain([own]).collect();
    Tlv::new(VENDOR, value(&mic.digest(&all, secret)))
}

/// Whether the extended MIC that a file's TLV 43 announces verifies. `None`: it announces none, or one in an algorithm
/// that is not computed here; then TLV 7 is an ordinary one.
///
/// **Shape**: `tlvs` are those before TLV 7, whose value is `cmts_mic`.
pub fn extended_verifies(tlvs: &[View], cmts_mic: Option<&[u8]>, secret: &[u8]) -> Option<bool> {
    let (mic, digest) = extended_of(tlvs)?;
    let expected = mic.digest(tlvs, secret);
    match digest {
        // What the ordinary check covers counts as well.
        Some(digest) => Some(digest == expected && cmts_mic == Some(&cmts_mic_of(tlvs, secret)[..])),
        None => Some(cmts_mic == Some(&expected[..])),
    }
}

/// The extended MIC that a file announces, with its explicit digest.
pub fn extended_of<'a>(tlvs: &[View<'a>]) -> Option<(ExtendedMic, Option<&'a [u8]>)> {
    let setting = tlvs.iter().find_map(setting_of)?;
    let sub = |code: u8| nested(setting).flatten().find(|tlv| tlv.code == code).map(|tlv| tlv.value);
    let bitmap = sub(BITMAP)?.to_vec();
    let digest = sub(DIGEST);
    let computed = sub(HMAC_TYPE) == Some(&[HMAC_MD5]) && digest.is_none_or(|digest| digest.len() == MIC_OCTETS);
    computed.then_some((ExtendedMic { explicit: digest.is_some(), bitmap }, digest))
}

/// The value of 43.6 of DOCSIS' own extension.
fn setting_of<'a>(tlv: &View<'a>) -> Option<&'a [u8]> {
    if tlv.code != VENDOR || !tlv.value.starts_with(&[VENDOR_ID, 3, 0xff, 0xff, 0xff]) {
        return None;
    }
    nested(tlv.value).flatten().find(|sub| sub.code == SETTING).map(|sub| sub.value)
}

/// Where the explicit digest begins in a whole TLV 43.
fn explicit_at(tlv: &View) -> Option<usize> {
    let digest = nested(setting_of(tlv)?).flatten().find(|sub| sub.code == DIGEST)?;
    let at = digest.value.as_ptr().addr() - tlv.whole.as_ptr().addr();
    (digest.value.len() == MIC_OCTETS).then_some(at)
}

fn covers(bitmap: &[u8], code: u8) -> bool {
    bitmap.get(usize::from(code / 8)).is_some_and(|byte| byte & (0x80 >> (code % 8)) != 0)
}

fn keyed(secret: &[u8]) -> Hmac<Md5> {
    Hmac::<Md5>::new_from_slice(secret).expect("HMAC takes a key of any length")
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
        let before = items.iter().position(|item| matches!(item, Item::Tlv(tlv) if tlv.code == CM_MIC)).expect("TLV 6");
        assert_eq!(Some(cm_mic(&items[..before]).to_vec()), value(6));
        assert_eq!(Some(expected_cmts_mic(&items, b"example-secret-1").to_vec()), value(7));
    }

    #[test]
    fn an_extended_mic_covers_its_bitmap_in_the_file_s_order() {
        let tlv = |code, byte| Item::Tlv(Tlv::new(code, vec![byte]));
        for explicit in [false, true] {
            let mic = ExtendedMic::of_all(explicit);
            let sign = |inside: &[Item]| {
                let mut items = inside.to_vec();
                items.push(Item::Tlv(setting_behind(&items, &mic, b"k")));
                items.push(Item::Tlv(Tlv::new(CM_MIC, cm_mic(&items).to_vec())));
                let last = expected_cmts_mic(&items, b"k");
                (items, last)
            };
            let verdict = |items: &[Item], last: &[u8]| {
                let bytes = written(items);
                extended_verifies(&views(Framing::Cm, &bytes).expect("TLVs"), Some(last), b"k")
            };
            let (mut items, last) = sign(&[tlv(3, 1), tlv(39, 1)]);
            assert_eq!(verdict(&items, &last), Some(true), "explicit: {explicit}");
            assert_ne!(last, sign(&[tlv(39, 1), tlv(3, 1)]).1);
            // Type 39 is not under the ordinary MIC, and here the CM MIC is left as it was.
            items[1] = tlv(39, 0);
            assert_eq!(verdict(&items, &last), Some(false), "explicit: {explicit}");
            assert_eq!(verdict(&items[..2], &last), None);
        }
    }

    #[test]
    fn the_cmts_check_covers_a_type_wherever_it_stands_but_not_the_unlisted() {
        let tlv = |code, byte| Item::Tlv(Tlv::new(code, vec![byte]));
        let base = expected_cmts_mic(&[tlv(3, 1), tlv(18, 2)], b"k");
        assert_eq!(expected_cmts_mic(&[tlv(18, 2), tlv(3, 1)], b"k"), base);
        assert_eq!(expected_cmts_mic(&[tlv(3, 1), tlv(18, 2), tlv(39, 1)], b"k"), base);
        assert_ne!(expected_cmts_mic(&[tlv(3, 0), tlv(18, 2)], b"k"), base);
        assert_ne!(expected_cmts_mic(&[tlv(3, 1), tlv(18, 2)], b"K"), base);
    }
}
