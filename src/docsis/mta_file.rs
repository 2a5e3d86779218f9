//! An MTA's file from the settings of its lines, and the proof that the MTA will take it.
//!
//! Comes in: `MtaSettings`. Goes out: bytes, always the same for the same settings. Objects by the standard MIBs of the
//! device's family; what only its vendor knows comes in as finished objects.
//!
//! | object | when |
//! |---|---|
//! | pktcMtaDevEnabled | always |
//! | pktcNcsEndPntConfigCallAgentId, …UdpPort | per line that speaks NCS |
//! | the model's own objects | per line and per device, as templates made them |
//! | ifAdminStatus | per line: 1 up, 2 down |
//! | pktcMtaDevConfigHash | in a BASIC flow |
//!
//! Source: PKT-SP-PROV1.5, PKT-SP-MIB-MTA1.5, PKT-SP-MIB-SIG1.5, RFC 4682, RFC 5098.

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::ber::{Oid, Value, VarBind};
use super::check::faults_of;
use super::mta::{HashFamily, OPENING, family_of, seal};
use super::tlv::{Framing, LONG_SNMP_OBJECT, Tlv, views, write};
use crate::vocabulary::{Fault, Faults};

/// What an MTA's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MtaSettings {
    /// Whose MIB the device speaks.
    pub family: HashFamily,
    /// Whether the hash stands in the file (BASIC) or is set by SNMP (HYBRID).
    pub hash_in_file: bool,
    /// pktcMtaDevEnabled.
    pub enabled: bool,
    pub lines: Vec<LineSettings>,
    /// What the device's model wants besides, in order.
    pub objects: Vec<Tlv>,
}

/// One line of an MTA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineSettings {
    /// 1 is the first.
    pub port: u8,
    pub enabled: bool,
    pub call_agent: Option<CallAgent>,
    /// What the model wants for this line.
    pub objects: Vec<Tlv>,
}

/// The server of a line that speaks NCS (MGCP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallAgent {
    /// `name@domain` or `domain`, 3 to 255 octets.
    pub id: String,
    /// UDP port, 1025 to 65535.
    pub port: u16,
}

/// The port of a call agent that names none.
pub const CALL_AGENT_PORT: u16 = 2727;
/// Lines a device can have: interface numbers from 9 on, and the port number is an octet.
pub const MOST_LINES: usize = 32;

/// What an enrolled MTA of a HYBRID flow is told by SNMP SET: where its file is and what its hash must be.
///
/// **Source**: pktcMtaDevConfigFile, pktcMtaDevConfigHash; RFC 4682.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MtaAnnouncement {
    pub file: VarBind,
    pub hash: VarBind,
}

/// Files of one device are below this.
const USUAL_OCTETS: usize = 512;
/// Lines have interface numbers from here on. PKT-SP-PROV1.5 §7.
const FIRST_INTERFACE: u32 = 9;
const SNMP_OBJECT: u8 = 11;
const UP: i64 = 1;
const DOWN: i64 = 2;
const TRUE: i64 = 1;
const FALSE: i64 = 2;
const IF_ADMIN_STATUS: [u32; 10] = [1, 3, 6, 1, 2, 1, 2, 2, 1, 7];

/// Builds the file.
pub fn mta_file(settings: &MtaSettings) -> Vec<u8> {
    let family = settings.family;
    let mut file = Vec::with_capacity(USUAL_OCTETS);
    file.extend_from_slice(&OPENING);
    put(family.enabled_oid(), truth(settings.enabled), &mut file);
    settings.objects.iter().for_each(|tlv| write(Framing::Mta, tlv, &mut file));
    for line in &settings.lines {
        let interface = interface_of(line.port);
        if let Some(agent) = &line.call_agent {
            let id = Value::Octets(agent.id.as_bytes().to_vec());
            put(family.call_agent_oid(1, interface), id, &mut file);
            put(family.call_agent_oid(2, interface), Value::Integer(agent.port.into()), &mut file);
        }
        line.objects.iter().for_each(|tlv| write(Framing::Mta, tlv, &mut file));
        // Last: a line comes up when everything about it is known.
        let status = Value::Integer(if line.enabled { UP } else { DOWN });
        put(Oid::below(&IF_ADMIN_STATUS, &[interface]), status, &mut file);
    }
    seal(&mut file, settings.hash_in_file.then_some(family));
    file
}

/// The SNMP object TLV of an MTA file: type 11, or 64 with its two length bytes where 11 cannot carry it.
pub fn mta_object(bind: &VarBind) -> Tlv {
    let bytes = bind.encode();
    let code = if bytes.len() > MOST_OF_SHORT { LONG_SNMP_OBJECT } else { SNMP_OBJECT };
    Tlv::new(code, bytes)
}

/// The interface number of a line: 9 is the first.
pub fn interface_of(port: u8) -> u32 {
    FIRST_INTERFACE + u32::from(port.max(1)) - 1
}

/// Reads a file back and judges it as the MTA would.
///
/// **Errors**: every broken rule; a hash that is missing, of another family, or does not verify.
pub fn verify_mta(bytes: &[u8], hash: Option<HashFamily>) -> Result<(), Vec<Fault>> {
    let tlvs = match views(Framing::Mta, bytes) {
        Ok(tlvs) => tlvs,
        Err(error) => return Err(vec![Fault { pointer: String::new(), detail: error.to_string() }]),
    };
    let mut found = Faults::new();
    match (family_of(bytes, &tlvs), hash) {
        (None, _) => found.add("254 (MtaConfigDelimiter)", "must open (1) and close (255) the file"),
        (Some(verified), wanted) if verified != wanted => {
            let said = |family: Option<HashFamily>| family.map_or("none", HashFamily::as_str);
            found.add("11 (SnmpMibObject)", format!("the hash is of {}, not of {}", said(verified), said(wanted)));
        }
        _ => {}
    }
    for fault in faults_of(Framing::Mta, &tlvs).into_vec() {
        found.add(fault.pointer, fault.detail);
    }
    found.settle(())
}

/// What a HYBRID device is told about `file`, which it finds at `url`.
pub fn announce(family: HashFamily, url: &str, file: &[u8]) -> MtaAnnouncement {
    let hash = Sha1::digest(file).to_vec();
    MtaAnnouncement {
        file: VarBind::new(family.file_oid(), Value::Octets(url.as_bytes().to_vec())),
        hash: VarBind::new(family.oid(), Value::Octets(hash)),
    }
}

impl HashFamily {
    /// pktcMtaDevEnabled.0
    fn enabled_oid(self) -> Oid {
        match self {
            HashFamily::Na => Oid::of(&[1, 3, 6, 1, 4, 1, 4491, 2, 2, 1, 1, 1, 7, 0]),
            HashFamily::Eu => Oid::of(&[1, 3, 6, 1, 4, 1, 7432, 1, 1, 1, 6, 0]),
            HashFamily::Ietf => Oid::of(&[1, 3, 6, 1, 2, 1, 140, 1, 1, 6, 0]),
        }
    }

    /// pktcMtaDevConfigFile.0
    fn file_oid(self) -> Oid {
        match self {
            HashFamily::Na => Oid::of(&[1, 3, 6, 1, 4, 1, 4491, 2, 2, 1, 1, 2, 5, 0]),
            HashFamily::Eu => Oid::of(&[1, 3, 6, 1, 4, 1, 7432, 1, 1, 2, 7, 0]),
            HashFamily::Ietf => Oid::of(&[1, 3, 6, 1, 2, 1, 140, 1, 2, 9, 0]),
        }
    }

    /// A column of pktcNcsEndPntConfigTable (pktcSigEndPntConfigTable of RFC 5098).
    fn call_agent_oid(self, column: u32, interface: u32) -> Oid {
        let table: &[u32] = match self {
            HashFamily::Na => &[1, 3, 6, 1, 4, 1, 4491, 2, 2, 2, 1, 2, 1, 1],
            HashFamily::Eu => &[1, 3, 6, 1, 4, 1, 7432, 2, 1, 2, 1, 1],
            HashFamily::Ietf => &[1, 3, 6, 1, 2, 1, 169, 1, 2, 1, 1],
        };
        Oid::below(table, &[column, interface])
    }
}

fn put(oid: Oid, value: Value, file: &mut Vec<u8>) {
    write(Framing::Mta, &mta_object(&VarBind::new(oid, value)), file);
}

fn truth(value: bool) -> Value {
    Value::Integer(if value { TRUE } else { FALSE })
}

/// The length byte could carry 255, which devices in the field take for the end of a file.
const MOST_OF_SHORT: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docsis::decode;

    fn line(port: u8, enabled: bool) -> LineSettings {
        let call_agent = Some(CallAgent { id: "cms1.voice.example".to_owned(), port: CALL_AGENT_PORT });
        LineSettings { port, enabled, call_agent, objects: Vec::new() }
    }

    fn settings() -> MtaSettings {
        let tos = VarBind::new("1.3.6.1.4.1.4491.2.2.2.1.1.8.0".parse().expect("an OID"), Value::Integer(26));
        MtaSettings {
            family: HashFamily::Na,
            hash_in_file: true,
            enabled: true,
            lines: vec![line(1, true), line(2, false)],
            objects: vec![mta_object(&tos)],
        }
    }

    #[test]
    fn two_ncs_lines_are_the_reference_file_byte_for_byte() {
        assert_eq!(mta_file(&settings()), include_bytes!("../../tests/golden/docsis/v5_mta_na.bin"));
    }

    #[test]
    fn each_family_has_its_own_objects_and_hash() {
        for (family, enabled, agent) in [
            (HashFamily::Na, "1.3.6.1.4.1.4491.2.2.1.1.1.7.0", "1.3.6.1.4.1.4491.2.2.2.1.2.1.1.1.9"),
            (HashFamily::Eu, "1.3.6.1.4.1.7432.1.1.1.6.0", "1.3.6.1.4.1.7432.2.1.2.1.1.1.9"),
            (HashFamily::Ietf, "1.3.6.1.2.1.140.1.1.6.0", "1.3.6.1.2.1.169.1.2.1.1.1.9"),
        ] {
            let file = mta_file(&MtaSettings { family, objects: Vec::new(), ..settings() });
            assert_eq!(verify_mta(&file, Some(family)), Ok(()));
            let text = decode(&file, None).expect("our own file").toml;
            assert!(text.contains(&format!("hash = \"{}\"", family.as_str())), "{text}");
            assert!(text.contains(&format!("{{ oid = \"{enabled}\", integer = 1 }}")), "{text}");
            assert!(text.contains(&format!("{{ oid = \"{agent}\", string = \"cms1.voice.example\" }}")), "{text}");
        }
    }

    #[test]
    fn a_hybrid_file_has_no_hash_and_its_announcement_has_it() {
        let file = mta_file(&MtaSettings { hash_in_file: false, ..settings() });
        assert_eq!(verify_mta(&file, None), Ok(()));
        assert!(verify_mta(&file, Some(HashFamily::Na)).is_err());
        let told = announce(HashFamily::Na, "tftp://192.0.2.1/1.mta", &file);
        assert_eq!(told.file.oid.to_string(), "1.3.6.1.4.1.4491.2.2.1.1.2.5.0");
        assert_eq!(told.file.value, Value::Octets(b"tftp://192.0.2.1/1.mta".to_vec()));
        assert_eq!(told.hash, VarBind::new(HashFamily::Na.oid(), Value::Octets(Sha1::digest(&file).to_vec())));
    }

    #[test]
    fn an_object_beyond_one_length_byte_is_written_as_type_64() {
        let long = |octets| {
            VarBind::new("1.3.6.1.4.1.4491.2.2.1.1.2.5.0".parse().expect("an OID"), Value::Octets(vec![b'a'; octets]))
        };
        let overhead = long(200).encode().len() - 200;
        for (octets, code) in [(254 - overhead, 11), (255 - overhead, 64), (600, 64)] {
            let object = mta_object(&long(octets));
            assert_eq!(object.code, code, "{octets}");
            let file = mta_file(&MtaSettings { objects: vec![object], ..settings() });
            assert_eq!(verify_mta(&file, Some(HashFamily::Na)), Ok(()));
        }
    }

    #[test]
    fn a_changed_byte_or_another_family_does_not_verify() {
        let mut file = mta_file(&settings());
        assert!(verify_mta(&file, Some(HashFamily::Eu)).is_err());
        file[30] ^= 1;
        assert!(verify_mta(&file, Some(HashFamily::Na)).is_err());
    }
}
