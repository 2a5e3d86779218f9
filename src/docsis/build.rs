//! A modem's file from a subscriber's settings, and the proof that the file says what was meant.
//!
//! Comes in: `CmSettings` and the CMTS' shared secret. Goes out: bytes, always the same for the same settings.
//! Type by type: 3, 29, 18, 14, 4 or 24 and 25, 19, 20, 11 or 54 and 53, then both MICs.

use std::net::Ipv4Addr;
use std::str::FromStr;

use super::ber::{Oid, Value, VarBind};
use super::check::faults;
use super::mic::{cmts_mic, expected_cm_mic};
use super::text::seal;
use super::tlv::{CM_MIC, CMTS_MIC, Framing, Item, Tlv, parse, write};
use crate::vocabulary::{Fault, Faults, MacAddress, Secret};

/// The DOCSIS generation a file is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    V10,
    V11,
    V20,
    V30,
    V31,
    V40,
}

/// One direction's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Maximum sustained rate in bit/s. `None` = the CMTS' own limit.
    pub rate: Option<u64>,
    /// Peak rate in bit/s; `None` = a fifth above `rate`. Only from DOCSIS 3.0.
    pub peak: Option<u64>,
    /// Maximum burst in octets; `None` = 20 ms at `rate`, at least `LEAST_BURST`.
    pub burst: Option<u32>,
}

/// Who may manage the modem by SNMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnmpAccess {
    pub community: Secret,
    pub write: bool,
    /// Managers' addresses; none = any.
    pub managers: Vec<Ipv4Addr>,
}

/// What a modem's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CmSettings {
    pub generation: Generation,
    /// Whether CPEs may send at all (TLV 3). Off, the modem still registers and can be managed.
    pub network_access: bool,
    /// 1 to 254: CPEs and MTAs together (TLV 18).
    pub max_cpe: u8,
    /// The only CPEs let through (TLV 14); none = learned.
    pub cpe_macs: Vec<MacAddress>,
    pub upstream: Flow,
    pub downstream: Flow,
    /// Seconds since 1900 (TLV 19): with it the CMTS refuses the file when it is older than its ToD.
    pub tftp_timestamp: Option<u32>,
    /// The only modem address that may use the file (TLV 20).
    pub modem_address: Option<Ipv4Addr>,
    pub snmp: Option<SnmpAccess>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no DOCSIS version; versions are 1.0, 1.1, 2.0, 3.0, 3.1, 4.0")]
pub struct GenerationError(String);

/// A burst below two full frames stalls a modem. CM-SP-MULPI C.2.2.7.3 names it as default.
pub const LEAST_BURST: u32 = 3044;

const BURST_PER_SECOND: u64 = 50;
const UPSTREAM_REFERENCE: u16 = 1;
const DOWNSTREAM_REFERENCE: u16 = 2;
const BEST_EFFORT: u8 = 2;
const ALL_QOS_SETS: u8 = 7;
const READ_ONLY: u8 = 1;
const READ_WRITE: u8 = 2;
const VIEW: &[u8] = b"lastmile";
/// docsDevNmAccessTable of RFC 4639.
const NM_ACCESS: &str = "1.3.6.1.2.1.69.1.2.1";

impl FromStr for Generation {
    type Err = GenerationError;

    fn from_str(text: &str) -> Result<Self, GenerationError> {
        Ok(match text {
            "1.0" => Self::V10,
            "1.1" => Self::V11,
            "2.0" => Self::V20,
            "3.0" => Self::V30,
            "3.1" => Self::V31,
            "4.0" => Self::V40,
            _ => return Err(GenerationError(text.chars().take(20).collect())),
        })
    }
}

/// Builds the file.
///
/// **Source**: CM-SP-MULPI Annex C; recipes for each state of an account are the caller's.
pub fn cm_file(settings: &CmSettings, secret: &Secret) -> Vec<u8> {
    let mut tlvs = vec![Tlv::new(3, vec![u8::from(settings.network_access)])];
    if settings.generation == Generation::V10 {
        tlvs.push(Tlv::new(18, vec![settings.max_cpe.max(1)]));
        tlvs.push(Tlv::new(4, class_of_service(settings)));
    } else {
        tlvs.push(Tlv::new(29, vec![1]));
        tlvs.push(Tlv::new(18, vec![settings.max_cpe.max(1)]));
        tlvs.push(Tlv::new(24, upstream_flow(settings)));
        tlvs.push(Tlv::new(25, downstream_flow(settings)));
    }
    tlvs.extend(settings.cpe_macs.iter().map(|mac| Tlv::new(14, mac.octets().to_vec())));
    tlvs.extend(settings.tftp_timestamp.map(|seconds| Tlv::new(19, seconds.to_be_bytes().to_vec())));
    tlvs.extend(settings.modem_address.map(|address| Tlv::new(20, address.octets().to_vec())));
    if let Some(access) = &settings.snmp {
        match settings.generation {
            Generation::V10 | Generation::V11 | Generation::V20 => tlvs.extend(access_table(access)),
            _ => tlvs.extend(coexistence(access)),
        }
    }
    seal(tlvs, secret.expose().as_bytes())
}

/// Reads a file back and judges it as a modem and its CMTS would.
///
/// **Errors**: every broken rule, and a MIC that does not verify. The file must not be offered then.
pub fn verify(bytes: &[u8], secret: &Secret) -> Result<(), Vec<Fault>> {
    let items = match parse(Framing::Cm, bytes) {
        Ok(items) => items,
        Err(error) => return Err(vec![Fault { pointer: String::new(), detail: error.to_string() }]),
    };
    let mut found = Faults::new();
    let value = |code: u8| {
        items.iter().find_map(|item| match item {
            Item::Tlv(tlv) if tlv.code == code => Some(tlv.value.as_slice()),
            _ => None,
        })
    };
    if value(CM_MIC) != expected_cm_mic(&items).as_ref().map(|mic| mic.as_slice()) {
        found.add("6 (CmMic)", "does not verify");
    }
    if value(CMTS_MIC) != Some(&cmts_mic(&items, secret.expose().as_bytes())) {
        found.add("7 (CmtsMic)", "does not verify");
    }
    for fault in faults(Framing::Cm, &items).into_vec() {
        found.add(fault.pointer, fault.detail);
    }
    found.settle(())
}

fn upstream_flow(settings: &CmSettings) -> Vec<u8> {
    let mut group = Group::default();
    group.add(1, &UPSTREAM_REFERENCE.to_be_bytes());
    group.add(6, &[ALL_QOS_SETS]);
    let unit = add_rates(&mut group, &settings.upstream);
    // Zero is "no limit": concatenation is not used from DOCSIS 3.0 on, and 1522 octets would strangle older ones.
    group.add(14, &0u16.to_be_bytes());
    group.add(15, &[BEST_EFFORT]);
    add_peak(&mut group, &settings.upstream, settings.generation, unit);
    group.bytes
}

fn downstream_flow(settings: &CmSettings) -> Vec<u8> {
    let mut group = Group::default();
    group.add(1, &DOWNSTREAM_REFERENCE.to_be_bytes());
    group.add(6, &[ALL_QOS_SETS]);
    let unit = add_rates(&mut group, &settings.downstream);
    add_peak(&mut group, &settings.downstream, settings.generation, unit);
    group.bytes
}

/// Rate and burst; gives the unit that both rates of the flow are written in.
fn add_rates(group: &mut Group, flow: &Flow) -> RateUnit {
    let Some(rate) = flow.rate else { return RateUnit::Bit };
    let unit = RateUnit::for_rate(rate.max(peak_of(flow, rate)));
    group.add(8, &unit.scaled(rate).to_be_bytes());
    let burst = flow.burst.unwrap_or_else(|| u32::try_from(rate / 8 / BURST_PER_SECOND).unwrap_or(u32::MAX));
    group.add(9, &burst.max(LEAST_BURST).to_be_bytes());
    unit
}

fn add_peak(group: &mut Group, flow: &Flow, generation: Generation, unit: RateUnit) {
    let Some(rate) = flow.rate.filter(|rate| *rate > 0) else { return };
    if generation >= Generation::V30 {
        group.add(27, &unit.scaled(peak_of(flow, rate)).to_be_bytes());
    }
    if unit != RateUnit::Bit {
        group.add(41, &[unit as u8]);
    }
}

fn peak_of(flow: &Flow, rate: u64) -> u64 {
    flow.peak.unwrap_or_else(|| rate.saturating_add(rate / 5)).max(rate)
}

/// The unit of a flow's rates (24/25.41). CM-SP-MULPI C.2.2.7.13.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RateUnit {
    Bit = 0,
    Kilobit = 1,
    Megabit = 2,
    Gigabit = 3,
}

impl RateUnit {
    /// The smallest unit in which a rate fits 32 bits.
    fn for_rate(rate: u64) -> Self {
        [Self::Bit, Self::Kilobit, Self::Megabit]
            .into_iter()
            .find(|unit| rate.div_ceil(unit.bits()) <= u64::from(u32::MAX))
            .unwrap_or(Self::Gigabit)
    }

    fn bits(self) -> u64 {
        1000u64.pow(self as u32)
    }

    /// The rate in this unit, rounded up: the subscriber gets what was sold.
    fn scaled(self, rate: u64) -> u32 {
        u32::try_from(rate.div_ceil(self.bits())).unwrap_or(u32::MAX)
    }
}

fn class_of_service(settings: &CmSettings) -> Vec<u8> {
    let rate = |flow: &Flow| flow.rate.map(|rate| u32::try_from(rate).unwrap_or(u32::MAX).to_be_bytes());
    let mut group = Group::default();
    group.add(1, &[1]);
    if let Some(down) = rate(&settings.downstream) {
        group.add(2, &down);
    }
    if let Some(up) = rate(&settings.upstream) {
        group.add(3, &up);
    }
    group.bytes
}

/// TLV 54 and 53: a view over all of `internet` and the community that may use it. Modems from DOCSIS 3.0.
fn coexistence(access: &SnmpAccess) -> [Tlv; 2] {
    let mut view = Group::default();
    view.add(1, VIEW);
    view.add(2, &oid("1.3.6.1").encode());
    view.add(4, &[1]);
    let mut community = Group::default();
    community.add(1, access.community.expose().as_bytes());
    for (address, mask) in managers(access) {
        let mut transport = Group::default();
        transport.add(1, &[&address.octets()[..], &[0, 0]].concat());
        transport.add(2, &[&mask.octets()[..], &[0, 0]].concat());
        community.add(2, &transport.bytes);
    }
    community.add(3, &[if access.write { READ_WRITE } else { READ_ONLY }]);
    community.add(4, VIEW);
    [Tlv::new(54, view.bytes), Tlv::new(53, community.bytes)]
}

/// Rows of docsDevNmAccessTable (RFC 4639), for modems before DOCSIS 3.0.
fn access_table(access: &SnmpAccess) -> Vec<Tlv> {
    let control = if access.write { 3 } else { 2 };
    let row = |(index, (address, mask)): (usize, (Ipv4Addr, Ipv4Addr))| {
        let community = access.community.expose().as_bytes().to_vec();
        [
            (2, Value::Ip(address)),
            (3, Value::Ip(mask)),
            (4, Value::Octets(community)),
            (5, Value::Integer(control)),
            (6, Value::Octets(b"@".to_vec())),
            (7, Value::Integer(4)),
        ]
        .map(|(column, value)| {
            let oid = oid(&format!("{NM_ACCESS}.{column}.{}", index + 1));
            Tlv::new(11, VarBind::new(oid, value).encode())
        })
    };
    managers(access).into_iter().enumerate().flat_map(row).collect()
}

fn managers(access: &SnmpAccess) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    match access.managers.as_slice() {
        [] => vec![(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)],
        some => some.iter().map(|address| (*address, Ipv4Addr::BROADCAST)).collect(),
    }
}

fn oid(text: &str) -> Oid {
    text.parse().expect("the OIDs of this file are well-formed")
}

/// Sub-TLVs being put together.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
}

impl Group {
    fn add(&mut self, code: u8, value: &[u8]) {
        write(Framing::Cm, &Tlv::new(code, value.to_vec()), &mut self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docsis::decode;

    fn secret() -> Secret {
        Secret::new("example-secret-1")
    }

    fn settings() -> CmSettings {
        CmSettings {
            generation: Generation::V30,
            network_access: true,
            max_cpe: 2,
            cpe_macs: Vec::new(),
            upstream: Flow { rate: Some(20_000_000), ..Flow::default() },
            downstream: Flow { rate: Some(100_000_000), ..Flow::default() },
            tftp_timestamp: None,
            modem_address: None,
            snmp: None,
        }
    }

    fn shown(settings: &CmSettings) -> String {
        let bytes = cm_file(settings, &secret());
        assert_eq!(verify(&bytes, &secret()), Ok(()));
        decode(&bytes, Some(secret().expose().as_bytes())).expect("our own file").toml
    }

    #[test]
    fn a_residential_file_reads_as_sold() {
        crate::docsis::tests::golden("built_residential.toml", &shown(&settings()));
    }

    #[test]
    fn ten_gigabit_is_written_in_kilobits() {
        let fast = Flow { rate: Some(10_000_000_000), ..Flow::default() };
        let text = shown(&CmSettings { downstream: fast, generation: Generation::V31, ..settings() });
        assert!(text.contains("{ MaxRateSustained = 10000000 }"), "{text}");
        assert!(text.contains("{ DownstreamPeakTrafficRate = 12000000 }"), "{text}");
        assert!(text.contains("{ DataRateUnitSetting = 1 }"), "{text}");
    }

    #[test]
    fn a_docsis_1_0_modem_gets_a_class_of_service_and_no_flows() {
        let text = shown(&CmSettings { generation: Generation::V10, ..settings() });
        assert!(text.contains("ClassOfService") && !text.contains("ServiceFlow"), "{text}");
    }

    #[test]
    fn snmp_access_is_granted_in_the_way_of_the_generation() {
        let access = SnmpAccess { community: Secret::new("kept"), write: true, managers: vec![[10, 0, 0, 1].into()] };
        let modern = shown(&CmSettings { snmp: Some(access.clone()), ..settings() });
        assert!(modern.contains("SNMPv1v2cCommunityName = \"kept\"") && !modern.contains("SnmpMibObject"), "{modern}");
        assert!(modern.contains("SNMPv1v2cTransportAddress = \"10.0.0.1:0\""), "{modern}");
        let older = shown(&CmSettings { snmp: Some(access), generation: Generation::V20, ..settings() });
        assert!(
            older.contains("1.3.6.1.2.1.69.1.2.1.4.1\", string = \"kept\"") && !older.contains("Coexistence"),
            "{older}"
        );
    }

    #[test]
    fn another_secret_or_a_changed_byte_does_not_verify() {
        let mut bytes = cm_file(&settings(), &secret());
        assert!(verify(&bytes, &Secret::new("other")).is_err());
        bytes[2] ^= 1;
        assert!(verify(&bytes, &secret()).is_err());
    }
}
