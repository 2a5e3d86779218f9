//! The whole codec against the reference files, and its two properties: no bytes panic, and bytes come back.

use proptest::prelude::*;

use super::text::{DocsisError, decode, encode};

const RESIDENTIAL: &[u8] = include_bytes!("../../tests/golden/docsis/v1_res_100_20_d30.cm");
const DISABLED: &[u8] = include_bytes!("../../tests/golden/docsis/v3_disabled.cm");
const MTA: &[u8] = include_bytes!("../../tests/golden/docsis/v5_mta_na.bin");
const SECRET: &[u8] = b"example-secret-1";

/// Compares with a golden file; `LASTMILE_GOLDEN=write` writes it anew for the reviewer to read.
pub(super) fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/docsis").join(name);
    if std::env::var("LASTMILE_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, text).expect("the golden file can be written");
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{name} differs");
}

fn there_and_back(bytes: &[u8], secret: Option<&[u8]>) -> String {
    let text = decode(bytes, secret).expect("the file parses").toml;
    let again = encode(&text, secret).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    assert_eq!(again.bytes, bytes, "{text}");
    text
}

fn refused(text: &str) -> String {
    match encode(text, Some(SECRET)) {
        Err(DocsisError::Faults(faults)) => {
            faults.iter().map(|fault| format!("{}: {}\n", fault.pointer, fault.detail)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_residential_file_is_readable() {
    golden("v1_res_100_20_d30.toml", &there_and_back(RESIDENTIAL, Some(SECRET)));
}

#[test]
fn an_mta_file_is_readable_and_its_hash_is_left_to_be_computed() {
    golden("v5_mta_na.toml", &there_and_back(MTA, None));
}

#[test]
fn without_the_secret_the_cmts_mic_is_kept_literally() {
    for file in [RESIDENTIAL, DISABLED] {
        let text = there_and_back(file, None);
        assert!(text.contains("{ CmMic = \"automatic\" }") && !text.contains("CmtsMic = \"automatic\""), "{text}");
        assert!(there_and_back(file, Some(b"another")).contains("does not verify"));
        assert!(there_and_back(file, Some(SECRET)).contains("{ CmtsMic = \"automatic\" }"));
    }
}

#[test]
fn a_hand_written_list_gets_both_mics_an_end_and_padding() {
    let text = "kind = \"cm\"\n[[tlv]]\nNetworkAccess = false\nGlobalPrivacyEnable = true\nMaxCPE = 1\n\
                [[tlv]]\nUsServiceFlow = { UsServiceFlowRef = 1, QosParamSetType = 7, MaxRateSustained = 64000, SchedulingType = 2 }\n\
                DsServiceFlow = { DsServiceFlowRef = 2, QosParamSetType = 7, MaxRateSustained = 64000 }\n";
    assert_eq!(encode(text, Some(SECRET)).expect("a file").bytes, DISABLED);
    assert!(matches!(encode(text, None), Err(DocsisError::NoSecret)));
}

#[test]
fn every_broken_rule_is_named_with_its_path() {
    let text = "kind = \"cm\"\ntlv = [ { MaxCPE = 0 }, { ClassOfService = { ClassID = 17 } }, \
                { UsServiceFlow = { UsServiceFlowRef = 1, TrafficPriority = 9 } }, \
                { DsServiceFlow = { DsServiceFlowRef = 1, ServiceClassName = \"a-name-that-is-too-long\" } }, \
                { DsPacketClass = { ServiceFlowRef = 7 } }, { SNMPv1v2cCoexistenceConfig = [] }, { DownstreamFrequency = 100000001 } ]";
    golden("broken_rules.txt", &refused(text));
}

#[test]
fn a_value_that_cannot_be_written_is_named_with_its_path() {
    let text = "kind = \"cm\"\nsurprise = 1\ntlv = [ { NetworkAccess = 300 }, { Nonsense = 1 }, \
                { UsServiceFlow = { UsServiceFlowRef = \"one\" } }, { SnmpMibObject = { oid = \"sysName\", integer = 1 } } ]";
    golden("unwritable_values.txt", &refused(text));
}

#[test]
fn odd_files_are_kept_as_they_are() {
    let odd: [&[u8]; 7] = [
        &[],
        &[255],
        &[3, 1, 1, 0, 0, 0, 255, 0, 9],
        &[3, 2, 1, 1, 18, 0, 24, 1, 9],
        &[43, 8, 8, 3, 1, 2, 3, 1, 1, 7],
        &[0xfe, 1, 1, 64, 0, 2, 5, 5, 0xfe, 1, 0xff, 0, 0],
        &[11, 8, 0x30, 6, 6, 1, 0x2b, 2, 1, 0x80, 12, 4, 1, 2, 3, 4],
    ];
    for file in odd {
        there_and_back(file, Some(SECRET));
    }
}

#[test]
fn an_extended_mic_is_made_verified_and_made_again() {
    let list = "tlv = [ { NetworkAccess = 1 }, { MaxCPE = 1 }, { DocsisTwoEnable = 1 } ]\n";
    for header in ["explicit = true", "explicit = false", "explicit = true, bitmap = \"1000\""] {
        let text = format!("kind = \"cm\"\nextended_mic = {{ {header} }}\n{list}");
        let mut bytes = encode(&text, Some(SECRET)).expect("a file").bytes;
        let secret = crate::vocabulary::Secret::new("example-secret-1");
        assert_eq!(super::verify(&bytes, &secret), Ok(()), "{header}");
        let shown = there_and_back(&bytes, Some(SECRET));
        assert!(shown.contains(header) && !shown.contains("VendorSpecific"), "{shown}");
        // Whoever has not the secret sees it as it stands.
        assert!(there_and_back(&bytes, None).contains("ExtendedCMTSMICBitmap"));
        bytes[2] = 0;
        assert!(super::verify(&bytes, &secret).is_err());
        there_and_back(&bytes, Some(SECRET));
    }
}

#[test]
fn a_long_certificate_is_split_in_order() {
    let long: String = (0..300u32).map(|n| format!("{:02x}", n % 251)).collect();
    let text = format!("kind = \"cm\"\ntlv = [ {{ NetworkAccess = 1 }}, {{ ManufacturerCVCChain = \"{long}\" }} ]");
    let bytes = encode(&text, Some(SECRET)).expect("a file").bytes;
    assert_eq!(&bytes[3..6], &[81, 254, 0]);
    assert_eq!(&bytes[3 + 2 + 254..][..3], &[81, 46, 3]);
    there_and_back(&bytes, Some(SECRET));
}

#[test]
fn a_cut_file_is_refused_with_the_place() {
    let error = decode(&RESIDENTIAL[..40], None).expect_err("cut");
    assert_eq!(error.to_string(), "TLV 24 at byte 9: 35 bytes are announced, 29 are left");
}

proptest! {
    #[test]
    fn any_bytes_that_parse_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(shown) = decode(&bytes, Some(SECRET)) {
            let again = encode(&shown.toml, Some(SECRET)).expect("what was shown can be written");
            prop_assert_eq!(again.bytes, bytes);
        }
    }

    #[test]
    fn a_changed_reference_file_comes_back(at in 0..RESIDENTIAL.len(), byte: u8, mta: bool) {
        let mut bytes = if mta { MTA.to_vec() } else { RESIDENTIAL.to_vec() };
        bytes[at] = byte;
        if let Ok(shown) = decode(&bytes, None) {
            let again = encode(&shown.toml, None).expect("what was shown can be written");
            prop_assert_eq!(again.bytes, bytes);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[ -~\\n]{0,200}") {
        let _ = encode(&text, Some(SECRET));
        let _ = encode(&format!("kind = \"cm\"\ntlv = [{text}]"), None);
    }
}
