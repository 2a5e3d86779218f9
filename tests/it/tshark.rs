//! Another program's reading of our modem files: tshark's DOCSIS dissector finds nothing to complain of in any of them.
//!
//! A modem sends what its file says in a REG-REQ; so each file's TLVs are put into one, in a capture of DOCSIS frames.

use std::process::Command;

use lastmile::account::{FlowProfile, GardenFilters};
use lastmile::docsis::{ExtendedMic, SnmpStyle};
use lastmile::provision::{CmAccess, CmContent, FirmwareContent, GardenContent};
use lastmile::provisioner::modem::{ModemSettings, Serving, build, build_unprovisioned};
use lastmile::vocabulary::Secret;

use crate::harness::temp_dir;

/// LINKTYPE_DOCSIS.
const LINK_TYPE: u32 = 143;
const REG_REQ: u8 = 6;
const END: u8 = 255;
/// Types of the register that the dissector of Wireshark 4.0 shows as octets: SNMP access, dropping classifiers, and inside
/// a flow the unit of its rates (41).
const NOT_IN_THE_DISSECTOR: [u8; 4] = [41, 53, 54, 60];

#[test]
fn tshark_reads_every_kind_of_file_without_complaint() {
    let files = files();
    let shown = dissected(&files.iter().map(|(_, bytes)| bytes.as_slice()).collect::<Vec<_>>());
    let frames: Vec<&str> = shown.split("DOCSIS Registration Requests").skip(1).collect();
    assert_eq!(frames.len(), files.len(), "{shown}");
    for ((name, _), frame) in files.iter().zip(frames) {
        for word in ["Malformed", "Expert Info", "Wrong", "Undefined"] {
            assert!(!frame.contains(word), "{name}: {word}\n{frame}");
        }
        let unknown = frame.lines().filter(|line| line.contains("Unknown TLV"));
        let of_type = |line: &str| Some(line.rsplit_once("(Type: ")?.1.split_once(',')?.0.parse().expect("a type"));
        for code in unknown.filter_map(of_type) {
            assert!(NOT_IN_THE_DISSECTOR.contains(&code), "{name}: type {code}\n{frame}");
        }
        assert!(frame.contains("6 CM MIC:") && frame.contains("7 CMTS MIC:"), "{name}\n{frame}");
        assert!(frame.contains("3 Network Access: "), "{name}\n{frame}");
    }
    println!("PROOF: tshark reads {} kinds of modem files without complaint", files.len());
}

#[test]
fn tshark_does_complain_of_a_broken_file() {
    // A rate of three octets.
    let file = [3, 1, 1, 24, 9, 1, 2, 0, 1, 8, 3, 0, 0, 1, END];
    let shown = dissected(&[&file]);
    assert!(shown.contains("Expert Info") || shown.contains("Malformed"), "{shown}");
}

fn files() -> Vec<(String, Vec<u8>)> {
    let plain = ModemSettings { shared_secret: Secret::new("example-secret-1"), community: None };
    let managed = ModemSettings { community: Some(Secret::new("kept")), ..plain.clone() };
    let mut files = vec![("unprovisioned".to_owned(), build_unprovisioned(&managed).expect("a file"))];
    for docsis in ["1.0", "1.1", "2.0", "3.0", "3.1"] {
        for access in [
            CmAccess::Active,
            CmAccess::Throttled { profile: "slow".to_owned() },
            CmAccess::Garden,
            CmAccess::VoiceOnly,
            CmAccess::Blocked,
        ] {
            for rows in [false, true] {
                let content = content(access.clone(), docsis, rows);
                let serving = Serving {
                    modem_address: Some([10, 10, 0, 9].into()),
                    tftp_timestamp: Some(3_900_000_000),
                    extended_mic: None,
                };
                let name = format!("{access:?}, DOCSIS {docsis}, rows: {rows}");
                files.push((name, build(&content, &managed, &serving).expect("a file")));
            }
        }
    }
    let extended = Serving { extended_mic: Some(ExtendedMic::of_all(true)), ..Serving::default() };
    let content = content(CmAccess::Active, "3.0", false);
    files.push(("extended MIC".to_owned(), build(&content, &plain, &extended).expect("a file")));
    files
}

fn content(access: CmAccess, docsis: &str, rows: bool) -> CmContent {
    let garden = GardenContent {
        allow: vec!["192.0.2.10/32".parse().expect("a network"), "2001:db8::/64".parse().expect("a network")],
        filter_groups: vec![1, 2, 3, 4],
        filters: if rows { GardenFilters::IpFilters } else { GardenFilters::Auto },
        ..GardenContent::default()
    };
    let qos = FlowProfile {
        priority: Some(3),
        min_reserved: "1M".parse().ok(),
        service_class: Some("gold".to_owned()),
        ..FlowProfile::default()
    };
    CmContent {
        docsis: docsis.to_owned(),
        garden: (access == CmAccess::Garden).then_some(garden),
        access,
        // Only from 3.1 on can a file say this.
        downstream: if docsis == "3.1" { "10G" } else { "100M" }.parse().ok(),
        upstream: "20M".parse().ok(),
        max_cpe: 3,
        mta_mac: "00:11:22:33:44:56".parse().ok(),
        static_ips: vec!["192.0.2.77".parse().expect("an address")],
        snmp: rows.then_some(SnmpStyle::AccessTable),
        firmware: rows.then(|| FirmwareContent {
            file: "fw-9.1.bin".to_owned(),
            server: Some([192, 0, 2, 9].into()),
            version: None,
        }),
        downstream_qos: qos.clone(),
        upstream_qos: qos,
        ..CmContent::blocked("00:11:22:33:44:55".parse().expect("a MAC"))
    }
}

/// What `tshark -V` prints of the files, one frame each.
fn dissected(files: &[&[u8]]) -> String {
    let folder = temp_dir();
    let path = folder.path().join("files.pcap");
    let mut capture = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, LINK_TYPE] {
        capture.extend(word.to_le_bytes());
    }
    for file in files {
        let frame = frame(file);
        let length = u32::try_from(frame.len()).expect("a short frame").to_le_bytes();
        capture.extend([[0; 4], [0; 4], length, length].concat());
        capture.extend(frame);
    }
    std::fs::write(&path, capture).expect("the capture is written");
    let output = Command::new("tshark").args(["-V", "-r"]).arg(&path).output().expect("tshark is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A DOCSIS MAC frame with a REG-REQ of a file's TLVs. CM-SP-MULPI 6.2, 6.4.7.
fn frame(file: &[u8]) -> Vec<u8> {
    let mut end = 0;
    while file.get(end).is_some_and(|code| *code != END) {
        end += 2 + usize::from(file[end + 1]);
    }
    let mut message = vec![0, 0, 3, 1, REG_REQ, 0, 0, 1];
    message.extend(&file[..end]);
    let mut management = vec![0x01, 0xe0, 0x2f, 0, 0, 1, 0, 0x11, 0x22, 0x33, 0x44, 0x55];
    management.extend(u16::try_from(message.len()).expect("a short message").to_be_bytes());
    management.extend(message);
    let check = crc32(&management);
    management.extend(check.to_le_bytes());
    let mut frame = vec![0xc2, 0];
    frame.extend(u16::try_from(management.len()).expect("a short message").to_be_bytes());
    let header_check = crc16(&frame);
    frame.extend(header_check.to_le_bytes());
    frame.extend(management);
    frame
}

/// CRC-16 of ITU-T X.25.
fn crc16(bytes: &[u8]) -> u16 {
    !bytes.iter().fold(0xffffu16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x8408 } else { crc >> 1 })
    })
}

/// CRC-32 of Ethernet.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
