//! A modem's file from a subscriber's settings, and the proof that the file says what was meant.
//!
//! Comes in: `CmSettings` and the CMTS' shared secret. Goes out: bytes, always the same for the same settings.
//! Type by type: 3, 29, 18, 4 or 24 and 25, the garden's filters, 14, subscriber management (35, 36, 67, 37), firmware
//! (9, 21), 19, 20, SNMP access (11, or 54 and 53), what templates add, the extended CMTS MIC, then both MICs.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ber::{Oid, Value, VarBind};
use super::check::faults_of;
use super::garden::{GardenFilter, drop_classifiers, ip_filters};
use super::mic::{ExtendedMic, cm_mic_of, cmts_mic_of, extended_verifies};
use super::tlv::{CM_MIC, CMTS_MIC, Framing, Tlv, views};
use super::writer::{Group, Writer};
use crate::vocabulary::{Fault, MacAddress, Secret};

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flow {
    /// Maximum sustained rate in bit/s. `None` = the CMTS' own limit.
    pub rate: Option<u64>,
    /// Peak rate in bit/s; `None` = a fifth above `rate`. Only from DOCSIS 3.0.
    pub peak: Option<u64>,
    /// Maximum burst in octets; `None` = 20 ms at `rate`, at least `LEAST_BURST`.
    pub burst: Option<u32>,
    /// Traffic priority, 0 to 7.
    pub priority: Option<u8>,
    /// Minimum reserved rate in bit/s.
    pub min_reserved: Option<u64>,
    /// A service class that the CMTS knows, 1 to 15 octets.
    pub service_class: Option<String>,
}

/// How a modem is told who may manage it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnmpStyle {
    /// TLV 53 and 54, from DOCSIS 3.0.
    Coexistence,
    /// docsDevNmAccessTable of RFC 4639, older modems.
    AccessTable,
}

/// Who may manage the modem by SNMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnmpAccess {
    pub community: Secret,
    pub write: bool,
    /// Managers' addresses; none = any.
    pub managers: Vec<Ipv4Addr>,
    /// `None`: as the generation does.
    pub style: Option<SnmpStyle>,
}

/// The software a modem must run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareSource {
    /// Name on the server, 1 to 64 octets (TLV 9).
    pub file: String,
    /// TLV 21; `None` = the server the configuration file came from.
    pub server: Option<Ipv4Addr>,
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
    /// Addresses that belong to the subscriber; the CMTS lets no others of them through (TLV 35, 36, 67).
    pub static_ips: Vec<IpAddr>,
    /// Filter groups of the CMTS (TLV 37): subscriber down and up, modem down and up, and up to six more.
    pub filter_groups: Vec<u16>,
    /// The walled garden's filters in the modem itself; `None` = everything passes.
    pub garden: Option<GardenFilter>,
    pub firmware: Option<FirmwareSource>,
    /// Seconds since 1900 (TLV 19): with it the CMTS refuses the file when it is older than its ToD.
    pub tftp_timestamp: Option<u32>,
    /// The only modem address that may use the file (TLV 20).
    pub modem_address: Option<Ipv4Addr>,
    pub snmp: Option<SnmpAccess>,
    /// What templates add, in order.
    pub template: Vec<Tlv>,
    /// Types of which only the template's TLVs stand in the file; the MICs are never among them.
    pub replaced: Vec<u8>,
    pub extended_mic: Option<ExtendedMic>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no DOCSIS version; versions are 1.0, 1.1, 2.0, 3.0, 3.1, 4.0")]
pub struct GenerationError(String);

/// A burst below two full frames stalls a modem. CM-SP-MULPI C.2.2.7.3 names it as default.
pub const LEAST_BURST: u32 = 3044;
/// References of the recipe's own service flows.
pub const UPSTREAM_REFERENCE: u16 = 1;
pub const DOWNSTREAM_REFERENCE: u16 = 2;

const BURST_PER_SECOND: u64 = 50;
const BEST_EFFORT: u8 = 2;
const ALL_QOS_SETS: u8 = 7;
const READ_ONLY: u8 = 1;
const READ_WRITE: u8 = 2;
const VIEW: &[u8] = b"lastmile";
/// docsDevNmAccessEntry of RFC 4639.
const NM_ACCESS: [u32; 10] = [1, 3, 6, 1, 2, 1, 69, 1, 2, 1];
/// docsDevSwAdminStatus.0; 2 = allowProvisioningUpgrade. RFC 4639.
const SW_ADMIN_STATUS: [u32; 10] = [1, 3, 6, 1, 2, 1, 69, 1, 3, 3];
const ALLOW_PROVISIONING_UPGRADE: i64 = 2;
const SUBSCRIBER_ACTIVE: u8 = 1;
const SUBSCRIBER_LEARNABLE: u8 = 2;

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

impl CmSettings {
    /// A modem that registers and lets nothing pass.
    pub fn closed(generation: Generation) -> Self {
        Self {
            generation,
            network_access: false,
            max_cpe: 1,
            cpe_macs: Vec::new(),
            upstream: Flow::default(),
            downstream: Flow::default(),
            static_ips: Vec::new(),
            filter_groups: Vec::new(),
            garden: None,
            firmware: None,
            tftp_timestamp: None,
            modem_address: None,
            snmp: None,
            template: Vec::new(),
            replaced: Vec::new(),
            extended_mic: None,
        }
    }
}

/// Builds the file.
///
/// **Source**: CM-SP-MULPI Annex C; recipes for each state of an account are the caller's.
pub fn cm_file(settings: &CmSettings, secret: &Secret) -> Vec<u8> {
    let mut file = Writer::new(&settings.replaced);
    file.add(3, &[u8::from(settings.network_access)]);
    if settings.generation == Generation::V10 {
        file.add(18, &[settings.max_cpe.max(1)]);
        file.group(4, |group| class_of_service(settings, group));
    } else {
        file.add(29, &[1]);
        file.add(18, &[settings.max_cpe.max(1)]);
        file.group(24, |group| upstream_flow(settings, group));
        file.group(25, |group| downstream_flow(settings, group));
    }
    if let Some(garden) = &settings.garden {
        match garden.in_classifiers && settings.generation >= Generation::V30 {
            true => drop_classifiers(garden, &mut file),
            false => ip_filters(garden).for_each(|bind| file.object(&bind)),
        }
    }
    for mac in &settings.cpe_macs {
        file.add(14, &mac.octets());
    }
    subscriber_management(settings, &mut file);
    if let Some(firmware) = &settings.firmware {
        file.add(9, firmware.file.as_bytes());
        if let Some(server) = firmware.server {
            file.add(21, &server.octets());
        }
        let status = Oid::below(&SW_ADMIN_STATUS, &[0]);
        file.object(&VarBind::new(status, Value::Integer(ALLOW_PROVISIONING_UPGRADE)));
    }
    if let Some(seconds) = settings.tftp_timestamp {
        file.add(19, &seconds.to_be_bytes());
    }
    if let Some(address) = settings.modem_address {
        file.add(20, &address.octets());
    }
    if let Some(access) = &settings.snmp {
        let modern = settings.generation >= Generation::V30;
        match access.style.unwrap_or(if modern { SnmpStyle::Coexistence } else { SnmpStyle::AccessTable }) {
            SnmpStyle::AccessTable => access_table(access, &mut file),
            SnmpStyle::Coexistence => coexistence(access, &mut file),
        }
    }
    file.extend_from(&settings.template);
    file.sealed(secret.expose().as_bytes(), settings.extended_mic.as_ref())
}

/// Reads a file back and judges it as a modem and its CMTS would.
///
/// **Errors**: every broken rule, and a MIC that does not verify. The file must not be offered then.
pub fn verify(bytes: &[u8], secret: &Secret) -> Result<(), Vec<Fault>> {
    let tlvs = match views(Framing::Cm, bytes) {
        Ok(tlvs) => tlvs,
        Err(error) => return Err(vec![Fault { pointer: String::new(), detail: error.to_string() }]),
    };
    let key = secret.expose().as_bytes();
    let mut found = faults_of(Framing::Cm, &tlvs);
    let mic = tlvs.iter().position(|tlv| tlv.code == CM_MIC);
    // What stands before TLV 6: the distance of its first byte from the file's.
    let before = mic.map(|at| &bytes[..tlvs[at].whole.as_ptr().addr() - bytes.as_ptr().addr()]);
    if mic.zip(before).is_none_or(|(at, before)| tlvs[at].value != cm_mic_of(before)) {
        found.add("6 (CmMic)", "does not verify");
    }
    let last = tlvs.iter().position(|tlv| tlv.code == CMTS_MIC);
    let covered = &tlvs[..last.unwrap_or(tlvs.len())];
    let value = last.map(|at| tlvs[at].value);
    match extended_verifies(covered, value, key) {
        Some(true) => {}
        Some(false) => found.add("43.6 (VendorSpecific.ExtendedCMTSMICConfigurationSetting)", "does not verify"),
        None if value != Some(&cmts_mic_of(covered, key)[..]) => found.add("7 (CmtsMic)", "does not verify"),
        None => {}
    }
    found.settle(())
}

fn upstream_flow(settings: &CmSettings, group: &mut Group) {
    let flow = &settings.upstream;
    group.add(1, &UPSTREAM_REFERENCE.to_be_bytes());
    let unit = add_service(group, flow);
    // Zero is "no limit": concatenation is not used from DOCSIS 3.0 on, and 1522 octets would strangle older ones.
    group.add(14, &0u16.to_be_bytes());
    group.add(15, &[BEST_EFFORT]);
    add_peak(group, flow, settings.generation, unit);
}

fn downstream_flow(settings: &CmSettings, group: &mut Group) {
    let flow = &settings.downstream;
    group.add(1, &DOWNSTREAM_REFERENCE.to_be_bytes());
    let unit = add_service(group, flow);
    add_peak(group, flow, settings.generation, unit);
}

/// Class, priority, rates and burst; gives the unit that all rates of the flow are written in.
fn add_service(group: &mut Group, flow: &Flow) -> RateUnit {
    if let Some(class) = &flow.service_class {
        group.add(4, &[class.as_bytes(), &[0]].concat());
    }
    group.add(6, &[ALL_QOS_SETS]);
    if let Some(priority) = flow.priority {
        group.add(7, &[priority]);
    }
    let greatest = flow.rate.map_or(0, |rate| peak_of(flow, rate)).max(flow.min_reserved.unwrap_or(0));
    let unit = RateUnit::for_rate(greatest);
    if let Some(rate) = flow.rate {
        group.add(8, &unit.scaled(rate).to_be_bytes());
        let burst = flow.burst.unwrap_or_else(|| u32::try_from(rate / 8 / BURST_PER_SECOND).unwrap_or(u32::MAX));
        group.add(9, &burst.max(LEAST_BURST).to_be_bytes());
    } else if let Some(burst) = flow.burst {
        group.add(9, &burst.max(LEAST_BURST).to_be_bytes());
    }
    if let Some(reserved) = flow.min_reserved {
        group.add(10, &unit.scaled(reserved).to_be_bytes());
    }
    unit
}

fn add_peak(group: &mut Group, flow: &Flow, generation: Generation, unit: RateUnit) {
    if let Some(rate) = flow.rate.filter(|rate| *rate > 0)
        && generation >= Generation::V30
    {
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

fn class_of_service(settings: &CmSettings, group: &mut Group) {
    let bits = |rate: u64| u32::try_from(rate).unwrap_or(u32::MAX).to_be_bytes();
    let (down, up) = (&settings.downstream, &settings.upstream);
    group.add(1, &[1]);
    if let Some(rate) = down.rate {
        group.add(2, &bits(rate));
    }
    if let Some(rate) = up.rate {
        group.add(3, &bits(rate));
    }
    if let Some(priority) = up.priority {
        group.add(4, &[priority]);
    }
    if let Some(reserved) = up.min_reserved {
        group.add(5, &bits(reserved));
    }
    if let Some(burst) = up.burst {
        group.add(6, &u16::try_from(burst).unwrap_or(u16::MAX).to_be_bytes());
    }
}

/// Addresses of the subscriber's own (35, 36, 67) and the CMTS' filter groups (37).
fn subscriber_management(settings: &CmSettings, file: &mut Writer) {
    let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) = settings.static_ips.iter().partition(|address| address.is_ipv4());
    if !settings.static_ips.is_empty() {
        let most = u16::from(settings.max_cpe).to_be_bytes();
        file.add(35, &[most[0], most[1], SUBSCRIBER_ACTIVE | SUBSCRIBER_LEARNABLE]);
    }
    for (code, addresses) in [(36, v4), (67, v6)] {
        let mut table = Vec::new();
        for address in addresses {
            match address {
                IpAddr::V4(address) => table.extend(address.octets()),
                IpAddr::V6(address) => table.extend(address.octets()),
            }
        }
        if !table.is_empty() {
            file.add(code, &table);
        }
    }
    if !settings.filter_groups.is_empty() {
        let groups: Vec<u8> = settings.filter_groups.iter().flat_map(|group| group.to_be_bytes()).collect();
        file.add(37, &groups);
    }
}

/// TLV 54 and 53: a view over all of `internet` and the community that may use it.
fn coexistence(access: &SnmpAccess, file: &mut Writer) {
    file.group(54, |view| {
        view.add(1, VIEW);
        view.add(2, &Oid::of(&[1, 3, 6, 1]).encode());
        view.add(4, &[1]);
    });
    file.group(53, |community| {
        community.add(1, access.community.expose().as_bytes());
        for (address, mask) in managers(access) {
            community.group(2, |transport| {
                transport.add(1, &[&address.octets()[..], &[0, 0]].concat());
                transport.add(2, &[&mask.octets()[..], &[0, 0]].concat());
            });
        }
        community.add(3, &[if access.write { READ_WRITE } else { READ_ONLY }]);
        community.add(4, VIEW);
    });
}

/// Rows of docsDevNmAccessTable (RFC 4639).
fn access_table(access: &SnmpAccess, file: &mut Writer) {
    let control = if access.write { 3 } else { 2 };
    for (index, (address, mask)) in managers(access).into_iter().enumerate() {
        let row = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        let community = access.community.expose().as_bytes().to_vec();
        for (column, value) in [
            (2, Value::Ip(address)),
            (3, Value::Ip(mask)),
            (4, Value::Octets(community)),
            (5, Value::Integer(control)),
            (6, Value::Octets(b"@".to_vec())),
            (7, Value::Integer(4)),
        ] {
            file.object(&VarBind::new(Oid::below(&NM_ACCESS, &[column, row]), value));
        }
    }
}

fn managers(access: &SnmpAccess) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    match access.managers.as_slice() {
        [] => vec![(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)],
        some => some.iter().map(|address| (*address, Ipv4Addr::BROADCAST)).collect(),
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
            network_access: true,
            max_cpe: 2,
            upstream: Flow { rate: Some(20_000_000), ..Flow::default() },
            downstream: Flow { rate: Some(100_000_000), ..Flow::default() },
            ..CmSettings::closed(Generation::V30)
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
        let managers = vec![[10, 0, 0, 1].into()];
        let access = SnmpAccess { community: Secret::new("kept"), write: true, managers, style: None };
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
