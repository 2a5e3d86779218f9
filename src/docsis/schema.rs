//! What each TLV is called and what its value is: the register of CM-SP-MULPI Annex C, CM-SP-SEC, CM-SP-eRouter and
//! CL-SP-CANN as tables.
//!
//! Comes in: a TLV's type and the table it stands in. Goes out: its `Field`. A type that is not here is legal and stays
//! raw bytes. Names are the keywords that operators know from the free `docsis` encoder.

use super::tlv::{CM_MIC, CMTS_MIC, Framing, LONG_SNMP_OBJECT, MTA_DELIMITER};

/// One type of TLV inside one table.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    pub code: u8,
    pub name: &'static str,
    pub kind: Kind,
}

/// The shape of a value. All integers are unsigned and big-endian; bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    U8(u8, u8),
    U16(u16, u16),
    U32(u32, u32),
    U8List,
    U16List,
    Ip4,
    Ip6,
    /// Four or sixteen octets.
    Ip,
    Ip4List,
    Ip6List,
    Mac,
    /// A transport address or its mask: IPv4 with port (6 octets) or IPv6 with port (18).
    Transport,
    /// Text without a terminating NUL, length bounds in octets.
    Text(usize, usize),
    /// Text with a terminating NUL, length bounds including it.
    TextZero(usize, usize),
    /// An OID with its BER tag and length.
    Oid,
    /// A BER VarBind. RFC 3416.
    VarBind,
    /// An OID with tag and length, then 0 (allow) or 1 (deny). TLV 10.
    WriteControl,
    /// Octets without an inner meaning here; the lengths allowed, none = any.
    Hex(&'static [usize]),
    /// A MIC: 16 octets, or computed when a file is written.
    Mic,
    Group(&'static [Field]),
    /// Vendor extension: opens with sub-TLV 8, the OUI; `FFFFFF` is DOCSIS' own extension table.
    Vendor,
}

/// The table of a file's top level.
pub fn top(framing: Framing) -> &'static [Field] {
    match framing {
        Framing::Cm => CM,
        Framing::Mta => MTA,
    }
}

/// The table inside a vendor extension whose OUI is `vendor`.
pub fn vendor(vendor: &[u8]) -> &'static [Field] {
    if vendor == DOCSIS_EXTENSION { EXTENSION } else { FOREIGN }
}

/// The field of a type in a table.
pub fn by_code(table: &'static [Field], code: u8) -> Option<&'static Field> {
    // Tables are in the order of their codes, each once: a code stands at its own number, or so much before it as lacks.
    let most = table.len().min(usize::from(code));
    table[..most].iter().rev().find(|field| field.code <= code).filter(|field| field.code == code)
}

/// The field of a name in a table.
pub fn by_name(table: &'static [Field], name: &str) -> Option<&'static Field> {
    table.iter().find(|field| field.name == name)
}

/// The OUI of a vendor extension; its sub-TLV must come first.
pub const VENDOR_ID: u8 = 8;
/// The OUI that stands for DOCSIS' own extensions.
pub const DOCSIS_EXTENSION: [u8; 3] = [0xff, 0xff, 0xff];

const fn f(code: u8, name: &'static str, kind: Kind) -> Field {
    Field { code, name, kind }
}

const FLAG: Kind = Kind::U8(0, 1);
const U8: Kind = Kind::U8(0, u8::MAX);
const U16: Kind = Kind::U16(0, u16::MAX);
const U32: Kind = Kind::U32(0, u32::MAX);
const REFERENCE: Kind = Kind::U16(1, u16::MAX);
const PRIORITY: Kind = Kind::U8(0, 7);
const CLASS_NAME: Kind = Kind::TextZero(2, 16);
const ANY: Kind = Kind::Hex(&[]);
const MASK: Kind = Kind::Hex(&[4]);
const BYTE: Kind = Kind::Hex(&[1]);
const WORD: Kind = Kind::Hex(&[2]);
const PORT_FROM_TO: Kind = U16;
/// The band a downstream can lie in, in hertz.
const FREQUENCY: Kind = Kind::U32(88_000_000, 1_008_000_000);

const CM: &[Field] = &[
    f(1, "DownstreamFrequency", FREQUENCY),
    f(2, "UpstreamChannelId", U8),
    f(3, "NetworkAccess", FLAG),
    f(4, "ClassOfService", Kind::Group(CLASS_OF_SERVICE)),
    f(5, "ModemCapabilities", ANY),
    f(CM_MIC, "CmMic", Kind::Mic),
    f(CMTS_MIC, "CmtsMic", Kind::Mic),
    f(9, "SwUpgradeFilename", Kind::Text(1, 64)),
    f(10, "SnmpWriteControl", Kind::WriteControl),
    f(11, "SnmpMibObject", Kind::VarBind),
    f(12, "ModemIPAddress", Kind::Ip4),
    f(14, "CpeMacAddress", Kind::Mac),
    f(17, "BaselinePrivacy", Kind::Group(BASELINE_PRIVACY)),
    f(18, "MaxCPE", Kind::U8(1, 254)),
    f(19, "TftpTimestamp", U32),
    f(20, "TftpModemAddress", Kind::Ip4),
    f(21, "SwUpgradeServer", Kind::Ip4),
    f(22, "UsPacketClass", Kind::Group(CLASSIFIER)),
    f(23, "DsPacketClass", Kind::Group(CLASSIFIER)),
    f(24, "UsServiceFlow", Kind::Group(UPSTREAM_FLOW)),
    f(25, "DsServiceFlow", Kind::Group(DOWNSTREAM_FLOW)),
    f(26, "PHS", Kind::Group(HEADER_SUPPRESSION)),
    f(28, "MaxClassifiers", U16),
    f(29, "GlobalPrivacyEnable", FLAG),
    f(32, "MfgCVCData", ANY),
    f(33, "CoSignerCVCData", ANY),
    f(34, "SnmpV3Kickstart", Kind::Group(KICKSTART)),
    f(35, "SubMgmtControl", Kind::Hex(&[3])),
    f(36, "SubscriberManagementCPEIPTable", Kind::Ip4List),
    f(37, "SubMgmtFilters", Kind::U16List),
    f(38, "SnmpV3TrapReceiver", Kind::Group(TRAP_RECEIVER)),
    f(39, "DocsisTwoEnable", FLAG),
    f(40, "EnableTestModes", FLAG),
    f(41, "DsChannelList", Kind::Group(CHANNEL_LIST)),
    f(42, "MulticastMACAddress", Kind::Mac),
    f(43, "VendorSpecific", Kind::Vendor),
    f(45, "DUTFiltering", Kind::Group(&[f(1, "DUTControl", FLAG), f(2, "DUTCMIM", ANY)])),
    f(53, "SNMPv1v2cCoexistenceConfig", Kind::Group(COEXISTENCE)),
    f(54, "SNMPv3AccessViewConfiguration", Kind::Group(ACCESS_VIEW)),
    f(55, "SNMPCPEAccessControl", FLAG),
    f(56, "ChannelAssignmentConfig", Kind::Group(&[f(1, "CaTransmit", U8), f(2, "CaReceive", U32)])),
    f(58, "SwUpgradeServer6", Kind::Ip6),
    f(59, "TFTPProvisionedModemIPv6Address", Kind::Ip6),
    f(60, "UpstreamDropPacketClassification", Kind::Group(DROP_CLASSIFIER)),
    f(61, "SubMgmtCPEIPv6PrefixList", ANY),
    f(62, "UpstreamDropClassifierGroupID", Kind::U8List),
    f(63, "SubMgmtControl6", U16),
    f(64, "CMTSStaticMulticastSessionEncodings", Kind::Group(MULTICAST_SESSION)),
    f(65, "L2VPNMACAgingEncoding", Kind::Group(&[f(1, "L2VPNMACAgingMode", FLAG)])),
    f(66, "ManagementEventControl", U32),
    f(67, "SubscriberManagementCPEIPv6Table", Kind::Ip6List),
    f(68, "DefaultUpstreamTargetBuffer", U16),
    f(69, "MACAddressLearningControlEncoding", Kind::Group(MAC_LEARNING)),
    f(70, "UpstreamAggregateServiceFlow", Kind::Group(UPSTREAM_AGGREGATE)),
    f(71, "DownstreamAggregateServiceFlow", Kind::Group(DOWNSTREAM_AGGREGATE)),
    f(72, "MetroEthernetServiceProfile", Kind::Group(SERVICE_PROFILE)),
    f(73, "NetworkTimingProfile", Kind::Group(SERVICE_PROFILE)),
    f(74, "EnergyManagementParameters", Kind::Group(ENERGY)),
    f(75, "EnergyManagement1x1ModeIndicator", U8),
    f(76, "CMUpstreamAQMDisable", FLAG),
    f(79, "UNIControlEncodings", ANY),
    f(81, "ManufacturerCVCChain", ANY),
    f(82, "CoSignerCVCChain", ANY),
    f(83, "DTPModeConfiguration", U8),
    f(84, "DiplexerBandEdge", Kind::Group(BAND_EDGE)),
    f(91, "LowLatencyDisable", U8),
    f(202, "eRouter", Kind::Group(EROUTER)),
    f(217, "EstbSettings", Kind::Group(ESTB)),
    f(MTA_DELIMITER, "MtaConfigDelimiter", U8),
];

const MTA: &[Field] = &[
    f(11, "SnmpMibObject", Kind::VarBind),
    f(38, "SnmpV3TrapReceiver", Kind::Group(TRAP_RECEIVER)),
    f(43, "VendorSpecific", Kind::Vendor),
    f(53, "SNMPv1v2cCoexistenceConfig", Kind::Group(COEXISTENCE)),
    f(54, "SNMPv3AccessViewConfiguration", Kind::Group(ACCESS_VIEW)),
    f(LONG_SNMP_OBJECT, "SnmpMibObjectLong", Kind::VarBind),
    f(MTA_DELIMITER, "MtaConfigDelimiter", U8),
];

/// DOCSIS 1.0 class of service. Annex C.1.1.4.
const CLASS_OF_SERVICE: &[Field] = &[
    f(1, "ClassID", Kind::U8(1, 16)),
    f(2, "MaxRateDown", U32),
    f(3, "MaxRateUp", U32),
    f(4, "PriorityUp", PRIORITY),
    f(5, "GuaranteedUp", U32),
    f(6, "MaxBurstUp", U16),
    f(7, "PrivacyEnable", FLAG),
];

/// Timers in seconds. CM-SP-SEC Annex A.1.1.1.
const BASELINE_PRIVACY: &[Field] = &[
    f(1, "AuthTimeout", U32),
    f(2, "ReAuthTimeout", U32),
    f(3, "AuthGraceTime", U32),
    f(4, "OperTimeout", U32),
    f(5, "ReKeyTimeout", U32),
    f(6, "TEKGraceTime", U32),
    f(7, "AuthRejectTimeout", U32),
    f(8, "SAMapWaitTimeout", U32),
    f(9, "SAMapMaxRetries", U32),
];

/// Packet classifiers, types 22 and 23. Annex C.2.1.
const CLASSIFIER: &[Field] = &[
    f(1, "ClassifierRef", Kind::U8(1, u8::MAX)),
    f(2, "ClassifierId", U16),
    f(3, "ServiceFlowRef", REFERENCE),
    f(4, "ServiceFlowId", U32),
    f(5, "RulePriority", U8),
    f(6, "ActivationState", FLAG),
    f(7, "DscAction", Kind::U8(0, 2)),
    f(9, "IpPacketClassifier", Kind::Group(CLASSIFIER_IP4)),
    f(10, "LLCPacketClassifier", Kind::Group(CLASSIFIER_LLC)),
    f(11, "IEEE802Classifier", Kind::Group(CLASSIFIER_802)),
    f(12, "PcIPv6PacketClassification", Kind::Group(CLASSIFIER_IP6)),
    f(13, "PcCMIMEncoding", ANY),
    f(14, "STagCTagFrameClassification", Kind::Group(CLASSIFIER_TAGS)),
    f(15, "IEEE8021ahPacketClassification", Kind::Group(&[])),
    f(16, "ICMPv4ICMPv6PacketClassification", Kind::Group(CLASSIFIER_ICMP)),
    f(17, "MPLSClassificationEncoding", Kind::Group(CLASSIFIER_MPLS)),
    f(43, "VendorSpecific", Kind::Vendor),
];

/// Upstream drop classifiers, type 60: a classifier without a flow. Annex C.2.1.3.
const DROP_CLASSIFIER: &[Field] = &[
    f(1, "ClassifierRef", Kind::U8(1, u8::MAX)),
    f(2, "ClassifierId", U16),
    f(5, "RulePriority", U8),
    f(7, "DscAction", Kind::U8(0, 2)),
    f(9, "IpPacketClassifier", Kind::Group(CLASSIFIER_IP4)),
    f(10, "LLCPacketClassifier", Kind::Group(CLASSIFIER_LLC)),
    f(11, "IEEE802Classifier", Kind::Group(CLASSIFIER_802)),
    f(12, "PcIPv6PacketClassification", Kind::Group(CLASSIFIER_IP6)),
    f(13, "PcCMIMEncoding", ANY),
    f(14, "STagCTagFrameClassification", Kind::Group(CLASSIFIER_TAGS)),
    f(15, "IEEE8021ahPacketClassification", Kind::Group(&[])),
    f(16, "ICMPv4ICMPv6PacketClassification", Kind::Group(CLASSIFIER_ICMP)),
    f(17, "MPLSClassificationEncoding", Kind::Group(CLASSIFIER_MPLS)),
    f(43, "VendorSpecific", Kind::Vendor),
];

const CLASSIFIER_IP4: &[Field] = &[
    f(1, "IpTos", Kind::Hex(&[3])),
    f(2, "IpProto", Kind::U16(0, 257)),
    f(3, "IpSrcAddr", Kind::Ip4),
    f(4, "IpSrcMask", Kind::Ip4),
    f(5, "IpDstAddr", Kind::Ip4),
    f(6, "IpDstMask", Kind::Ip4),
    f(7, "SrcPortStart", PORT_FROM_TO),
    f(8, "SrcPortEnd", PORT_FROM_TO),
    f(9, "DstPortStart", PORT_FROM_TO),
    f(10, "DstPortEnd", PORT_FROM_TO),
];

const CLASSIFIER_LLC: &[Field] =
    &[f(1, "DstMacAddress", Kind::Hex(&[12])), f(2, "SrcMacAddress", Kind::Mac), f(3, "EtherType", Kind::Hex(&[3]))];

const CLASSIFIER_802: &[Field] = &[f(1, "UserPriority", WORD), f(2, "VlanID", U16)];

const CLASSIFIER_IP6: &[Field] = &[
    f(1, "PcIPv6TrafficClassRangeAndMask", Kind::Hex(&[3])),
    f(2, "PcIPv6FlowLabel", Kind::Hex(&[4])),
    f(3, "PcIPv6NextHeaderType", Kind::U16(0, 257)),
    f(4, "PcIPv6SourceAddress", Kind::Ip6),
    f(5, "PcIPv6SourcePrefixLength", Kind::U8(0, 128)),
    f(6, "PcIPv6DestAddress", Kind::Ip6),
    f(7, "PcIPv6DestPrefixLength", Kind::U8(0, 128)),
];

const CLASSIFIER_TAGS: &[Field] = &[
    f(1, "STPID", WORD),
    f(2, "SVID", WORD),
    f(3, "SPCP", BYTE),
    f(4, "SDEI", BYTE),
    f(5, "CTPID", WORD),
    f(6, "CVID", WORD),
    f(7, "CPCP", BYTE),
    f(8, "CCFI", BYTE),
    f(9, "STCI", WORD),
    f(10, "CTCI", WORD),
];

const CLASSIFIER_ICMP: &[Field] = &[f(1, "ICMPv4ICMPv6TypeStart", U8), f(2, "ICMPv4ICMPv6TypeEnd", U8)];

const CLASSIFIER_MPLS: &[Field] = &[f(1, "MPLSTCbits", BYTE), f(2, "MPLSLabel", Kind::Hex(&[3]))];

/// Upstream service flow. Annex C.2.2.5, C.2.2.7, C.2.2.8.
const UPSTREAM_FLOW: &[Field] = &[
    f(1, "UsServiceFlowRef", REFERENCE),
    f(2, "UsServiceFlowId", U32),
    f(3, "ServiceIdentifier", U16),
    f(4, "ServiceClassName", CLASS_NAME),
    f(6, "QosParamSetType", Kind::U8(0, 7)),
    f(7, "TrafficPriority", PRIORITY),
    f(8, "MaxRateSustained", U32),
    f(9, "MaxTrafficBurst", Kind::U32(1522, u32::MAX)),
    f(10, "MinReservedRate", U32),
    f(11, "MinResPacketSize", U16),
    f(12, "ActQosParamsTimeout", U16),
    f(13, "AdmQosParamsTimeout", U16),
    f(14, "MaxConcatenatedBurst", U16),
    f(15, "SchedulingType", Kind::U8(1, 6)),
    f(16, "RequestOrTxPolicy", MASK),
    f(17, "NominalPollInterval", U32),
    f(18, "ToleratedPollJitter", U32),
    f(19, "UnsolicitedGrantSize", U16),
    f(20, "NominalGrantInterval", U32),
    f(21, "ToleratedGrantJitter", U32),
    f(22, "GrantsPerInterval", Kind::U8(0, 127)),
    f(23, "IpTosOverwrite", WORD),
    f(26, "MultipliertoNumberofBytesRequested", U8),
    f(27, "UpstreamPeakTrafficRate", U32),
    f(31, "ServiceFlowRequiredAttributeMask", MASK),
    f(32, "ServiceFlowForbiddenAttributeMask", MASK),
    f(33, "ServiceFlowAttributeAggregationRuleMask", MASK),
    f(34, "ApplicationIdentifier", U32),
    f(35, "BufferControl", Kind::Group(BUFFER)),
    f(36, "UpstreamAggregateServiceFlowReference", U16),
    f(37, "UpstreamMESPReference", U16),
    f(40, "AQMEncodings", Kind::Group(AQM)),
    f(41, "DataRateUnitSetting", Kind::U8(0, 3)),
    f(43, "VendorSpecific", Kind::Vendor),
];

/// Downstream service flow. Annex C.2.2.5, C.2.2.7, C.2.2.9.
const DOWNSTREAM_FLOW: &[Field] = &[
    f(1, "DsServiceFlowRef", REFERENCE),
    f(2, "DsServiceFlowId", U32),
    f(3, "ServiceIdentifier", U16),
    f(4, "ServiceClassName", CLASS_NAME),
    f(6, "QosParamSetType", Kind::U8(0, 7)),
    f(7, "TrafficPriority", PRIORITY),
    f(8, "MaxRateSustained", U32),
    f(9, "MaxTrafficBurst", Kind::U32(1522, u32::MAX)),
    f(10, "MinReservedRate", U32),
    f(11, "MinResPacketSize", U16),
    f(12, "ActQosParamsTimeout", U16),
    f(13, "AdmQosParamsTimeout", U16),
    f(14, "MaxDsLatency", U32),
    f(17, "DsResequencing", FLAG),
    f(23, "IpTosOverwrite", WORD),
    f(27, "DownstreamPeakTrafficRate", U32),
    f(31, "ServiceFlowRequiredAttributeMask", MASK),
    f(32, "ServiceFlowForbiddenAttributeMask", MASK),
    f(33, "ServiceFlowAttributeAggregationRuleMask", MASK),
    f(34, "ApplicationIdentifier", U32),
    f(35, "BufferControl", Kind::Group(BUFFER)),
    f(36, "DownstreamAggregateServiceFlowReference", U16),
    f(37, "DownstreamMESPReference", U16),
    f(40, "AQMEncodings", Kind::Group(AQM)),
    f(41, "DataRateUnitSetting", Kind::U8(0, 3)),
    f(43, "VendorSpecific", Kind::Vendor),
];

const BUFFER: &[Field] = &[f(1, "MinimumBuffer", U32), f(2, "TargetBuffer", U32), f(3, "MaximumBuffer", U32)];

const AQM: &[Field] = &[
    f(1, "SFAQMDisable", FLAG),
    f(2, "SFAQMLatencyTarget", U8),
    f(3, "AQMAlgorithm", Kind::U8(0, 2)),
    f(4, "ImmediateAQMMaxThreshold", U16),
    f(5, "ImmediateAQMRangeExponent", U8),
    f(6, "LatencyHistogramEncodings", Kind::U16List),
];

/// Payload header suppression. Annex C.2.3.
const HEADER_SUPPRESSION: &[Field] = &[
    f(1, "PHSClassifierRef", U8),
    f(2, "PHSClassifierId", U16),
    f(3, "PHSServiceFlowRef", U16),
    f(4, "PHSServiceFlowId", U32),
    f(5, "DynamicServiceChangeAction", U8),
    f(7, "PHSField", ANY),
    f(8, "PHSIndex", U8),
    f(9, "PHSMask", ANY),
    f(10, "PHSSize", U8),
    f(11, "PHSVerification", FLAG),
    f(43, "VendorSpecific", Kind::Vendor),
];

const KICKSTART: &[Field] = &[f(1, "SnmpV3SecurityName", Kind::Text(1, 16)), f(2, "SnmpV3MgrPublicNumber", ANY)];

/// SNMP notification receiver. Annex C.1.2.12.
const TRAP_RECEIVER: &[Field] = &[
    f(1, "SnmpV3TrapRxIP", Kind::Ip4),
    f(2, "SnmpV3TrapRxPort", U16),
    f(3, "SnmpV3TrapRxType", Kind::U16(1, 5)),
    f(4, "SnmpV3TrapRxTimeout", U16),
    f(5, "SnmpV3TrapRxRetries", U16),
    f(6, "SnmpV3TrapRxFilterOID", Kind::Oid),
    f(7, "SnmpV3TrapRxSecurityName", Kind::Text(1, 32)),
    f(8, "SnmpV3TrapRxIP6", Kind::Ip6),
];

const CHANNEL_LIST: &[Field] = &[
    f(1, "SingleDsChannel", Kind::Group(&[f(1, "SingleDsTimeout", U16), f(2, "SingleDsFrequency", U32)])),
    f(2, "DsFreqRange", Kind::Group(FREQUENCY_RANGE)),
    f(3, "DefaultScanTimeout", U16),
];

const FREQUENCY_RANGE: &[Field] = &[
    f(1, "DsFreqRangeTimeout", U16),
    f(2, "DsFreqRangeStart", U32),
    f(3, "DsFreqRangeEnd", U32),
    f(4, "DsFreqRangeStepSize", U32),
];

/// DOCSIS' own extensions inside type 43 with OUI FFFFFF. Annex C.1.1.18.
const EXTENSION: &[Field] = &[
    f(1, "CMLoadBalancingPolicyID", U32),
    f(2, "CMLoadBalancingPriority", U32),
    f(3, "CMLoadBalancingGroupID", U32),
    f(4, "CMRangingClassIDExtension", U16),
    f(5, "L2VPNEncoding", Kind::Group(&[])),
    f(6, "ExtendedCMTSMICConfigurationSetting", Kind::Group(EXTENDED_MIC)),
    f(7, "SAVAuthorizationEncoding", Kind::Group(SOURCE_ADDRESSES)),
    f(VENDOR_ID, "VendorIdentifier", Kind::Hex(&[3])),
    f(9, "CMAttributeMasks", Kind::Group(ATTRIBUTE_MASKS)),
    f(10, "IPMulticastJoinAuthorization", Kind::Group(&[])),
    f(11, "ServiceTypeIdentifier", Kind::Text(1, 16)),
    f(12, "DEMARCAutoConfiguration", Kind::Group(&[])),
];

/// Another vendor's extension: only the OUI is known.
const FOREIGN: &[Field] = &[f(VENDOR_ID, "VendorIdentifier", Kind::Hex(&[3]))];

const EXTENDED_MIC: &[Field] = &[
    f(1, "ExtendedCMTSMICHMACtype", U8),
    f(2, "ExtendedCMTSMICBitmap", ANY),
    f(3, "ExplicitExtendedCMTSMICDigest", ANY),
];

const SOURCE_ADDRESSES: &[Field] = &[
    f(1, "SAVGroupName", Kind::Text(1, 15)),
    f(
        2,
        "SAVStaticPrefixRule",
        Kind::Group(&[f(1, "SAVStaticPrefixAddress", Kind::Ip), f(2, "SAVStaticPrefixLength", Kind::U8(0, 128))]),
    ),
];

const ATTRIBUTE_MASKS: &[Field] = &[
    f(1, "CMDownstreamRequiredAttributeMask", MASK),
    f(2, "CMDownstreamForbiddenAttributeMask", MASK),
    f(3, "CMUpstreamRequiredAttributeMask", MASK),
    f(4, "CMUpstreamForbiddenAttributeMask", MASK),
];

/// SNMPv1/v2c coexistence. Annex C.1.2.13.
const COEXISTENCE: &[Field] = &[
    f(1, "SNMPv1v2cCommunityName", Kind::Text(1, 32)),
    f(2, "SNMPv1v2cTransportAddressAccess", Kind::Group(TRANSPORT_ACCESS)),
    f(3, "SNMPv1v2cAccessViewType", Kind::U8(1, 2)),
    f(4, "SNMPv1v2cAccessViewName", Kind::Text(1, 32)),
];

const TRANSPORT_ACCESS: &[Field] =
    &[f(1, "SNMPv1v2cTransportAddress", Kind::Transport), f(2, "SNMPv1v2cTransportAddressMask", Kind::Transport)];

/// SNMPv3 access view. Annex C.1.2.14.
const ACCESS_VIEW: &[Field] = &[
    f(1, "SNMPv3AccessViewName", Kind::Text(1, 32)),
    f(2, "SNMPv3AccessViewSubtree", Kind::Oid),
    f(3, "SNMPv3AccessViewMask", ANY),
    f(4, "SNMPv3AccessViewType", Kind::U8(1, 2)),
];

const MULTICAST_SESSION: &[Field] = &[
    f(1, "CMTSStaticMulticastSessionGroup", Kind::Ip),
    f(2, "CMTSStaticMulticastSessionSource", Kind::Ip),
    f(3, "CMTSStaticMulticastSessionCMIM", ANY),
];

const MAC_LEARNING: &[Field] = &[f(1, "MACAddressLearningControl", FLAG), f(2, "MACAddressLearningHoldoffTimer", U8)];

const UPSTREAM_AGGREGATE: &[Field] = &[
    f(1, "UpstreamServiceFlowReference", U16),
    f(4, "ASFQoSProfileName", CLASS_NAME),
    f(7, "TrafficPriority", PRIORITY),
    f(8, "MaxRateSustained", U32),
    f(9, "MaxTrafficBurst", U32),
    f(10, "MinReservedRate", U32),
    f(11, "MinResPacketSize", U16),
    f(27, "UpstreamPeakTrafficRate", U32),
    f(41, "DataRateUnitSetting", Kind::U8(0, 3)),
];

const DOWNSTREAM_AGGREGATE: &[Field] = &[
    f(1, "DownstreamServiceFlowReference", U16),
    f(4, "ASFQoSProfileName", CLASS_NAME),
    f(7, "TrafficPriority", PRIORITY),
    f(8, "MaxRateSustained", U32),
    f(9, "MaxTrafficBurst", U32),
    f(10, "MinReservedRate", U32),
    f(11, "MinResPacketSize", U16),
    f(27, "DownstreamPeakTrafficRate", U32),
    f(41, "DataRateUnitSetting", Kind::U8(0, 3)),
];

const SERVICE_PROFILE: &[Field] = &[f(1, "ProfileReference", U16), f(2, "ProfileName", Kind::TextZero(2, 16))];

/// Energy management. Annex C.1.1.30.
const ENERGY: &[Field] = &[
    f(1, "EnergyManagementFeatureControl", U32),
    f(2, "DownstreamActivityDetection", Kind::Group(ACTIVITY)),
    f(3, "UpstreamActivityDetection", Kind::Group(ACTIVITY)),
    f(4, "EnergyManagementCyclePeriod", U16),
];

const ACTIVITY: &[Field] = &[
    f(1, "EntryBitrateThreshold", U32),
    f(2, "EntryTimeThreshold", U16),
    f(3, "ExitBitrateThreshold", U32),
    f(4, "ExitTimeThreshold", U16),
];

/// Band edges of a DOCSIS 3.1 modem's diplexer.
const BAND_EDGE: &[Field] =
    &[f(1, "UpstreamUpperBandEdge", U8), f(2, "DownstreamLowerBandEdge", U8), f(3, "DownstreamUpperBandEdge", U8)];

/// Embedded router. CM-SP-eRouter Annex B.
const EROUTER: &[Field] = &[
    f(1, "InitializationMode", Kind::U8(0, 3)),
    f(2, "TR69ManagementServer", Kind::Group(TR69)),
    f(3, "InitializationModeOverride", FLAG),
    f(10, "RATransmissionInterval", U16),
    f(11, "SnmpMibObject", Kind::VarBind),
    f(42, "TopologyModeEncoding", U8),
    f(43, "VendorSpecific", Kind::Vendor),
    f(53, "SNMPv1v2cCoexistenceConfig", Kind::Group(COEXISTENCE)),
    f(54, "SNMPv3AccessViewConfiguration", Kind::Group(ACCESS_VIEW)),
];

const TR69: &[Field] = &[
    f(1, "EnableCWMP", FLAG),
    f(2, "URL", Kind::Text(0, 255)),
    f(3, "Username", Kind::Text(0, 255)),
    f(4, "Password", Kind::Text(0, 255)),
    f(5, "ConnectionRequestUsername", Kind::Text(0, 255)),
    f(6, "ConnectionRequestPassword", Kind::Text(0, 255)),
    f(7, "ACSOverride", FLAG),
];

const ESTB: &[Field] = &[
    f(1, "IpModeControl", U8),
    f(11, "SnmpMibObject", Kind::VarBind),
    f(53, "SNMPv1v2cCoexistenceConfig", Kind::Group(COEXISTENCE)),
    f(54, "SNMPv3AccessViewConfiguration", Kind::Group(ACCESS_VIEW)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn unique(table: &'static [Field]) {
        for (index, field) in table.iter().enumerate() {
            assert_eq!(by_code(table, field.code), Some(field), "{} is not the first {}", field.name, field.code);
            assert_eq!(by_name(table, field.name).map(|found| found.code), Some(field.code), "{}", table[index].name);
            if let Kind::Group(inner) = field.kind {
                unique(inner);
            }
        }
    }

    #[test]
    fn every_code_and_name_stands_once_in_its_table() {
        for table in [CM, MTA, EXTENSION, FOREIGN] {
            unique(table);
        }
    }
}
