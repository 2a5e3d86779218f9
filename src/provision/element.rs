//! The elements of an installation and what each must look like; secrets appear only as references with a keyed hash.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::account::{Address, FlowProfile, GardenFilters, ReplyValues};
use crate::docsis::{CallAgent, FilledTlv, HashFamily, MtaFlow, SnmpStyle};
use crate::vocabulary::{BitRate, Cidr, MacAddress};

/// What kind of thing is provisioned. The text form is the `kind` column of `element`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ElementKind {
    /// A cable modem: one configuration file.
    Cm,
    /// The telephone adapter in a gateway: a configuration file of its own.
    Mta,
    /// A mailbox with its aliases and forwards.
    Mailbox,
    /// A subscriber's login at the AAA server.
    Aaa,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no kind of element; kinds are cm, mta, mailbox, aaa")]
pub struct ElementKindError(String);

impl ElementKind {
    pub const ALL: [ElementKind; 4] = [ElementKind::Cm, ElementKind::Mta, ElementKind::Mailbox, ElementKind::Aaa];

    pub fn as_str(self) -> &'static str {
        match self {
            ElementKind::Cm => "cm",
            ElementKind::Mta => "mta",
            ElementKind::Mailbox => "mailbox",
            ElementKind::Aaa => "aaa",
        }
    }

    /// The kind of device it is, where it is one.
    pub fn device(self) -> Option<DeviceKind> {
        match self {
            ElementKind::Cm => Some(DeviceKind::Cm),
            ElementKind::Mta => Some(DeviceKind::Mta),
            ElementKind::Mailbox | ElementKind::Aaa => None,
        }
    }
}

/// The kinds of device that get a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    Cm,
    Mta,
}

impl DeviceKind {
    pub const ALL: [DeviceKind; 2] = [DeviceKind::Cm, DeviceKind::Mta];

    /// The word in the API, and the ending of its files' names.
    pub fn as_str(self) -> &'static str {
        self.element().as_str()
    }

    pub fn element(self) -> ElementKind {
        match self {
            DeviceKind::Cm => ElementKind::Cm,
            DeviceKind::Mta => ElementKind::Mta,
        }
    }
}

impl fmt::Display for ElementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ElementKind {
    type Err = ElementKindError;
    fn from_str(text: &str) -> Result<Self, ElementKindError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| ElementKindError(text.to_owned()))
    }
}

/// One element as it must be, a pure function of the account, the catalog and the holds in force.
///
/// **Shape**: `key` is the MAC in lower case with colons, the mailbox address, or the RADIUS username; `services` are
/// the external ids of the services it serves, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementDesired {
    pub kind: ElementKind,
    pub key: String,
    pub services: Vec<String>,
    pub content: Content,
}

/// The desired content of an element. Two equal contents need no job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "most elements are modems, and a content is held alone")]
pub enum Content {
    Cm(CmContent),
    Mta(MtaContent),
    Mailbox(MailboxContent),
    Aaa(AaaContent),
    /// The element must not exist any more.
    Absent,
}

/// What a modem's configuration file must say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CmContent {
    pub mac: MacAddress,
    pub model: Option<String>,
    pub access: CmAccess,
    pub downstream: Option<BitRate>,
    pub upstream: Option<BitRate>,
    /// CPEs and MTAs together, as TLV 18 counts them.
    pub max_cpe: u8,
    /// Version of DOCSIS, for example `3.0`.
    pub docsis: String,
    pub voice: bool,
    pub mta_mac: Option<MacAddress>,
    pub static_ips: Vec<IpAddr>,
    pub plan: Option<String>,
    /// What the plan says of each direction besides its rate.
    #[serde(default, skip_serializing_if = "FlowProfile::is_plain")]
    pub downstream_qos: FlowProfile,
    #[serde(default, skip_serializing_if = "FlowProfile::is_plain")]
    pub upstream_qos: FlowProfile,
    /// `None`: as the generation does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snmp: Option<SnmpStyle>,
    /// Whether CPEs may be listed by address (TLV 14); `None`: by the model's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpe_mac_list: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareContent>,
    /// The garden's walls, while the modem is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub garden: Option<GardenContent>,
    /// What templates add: whole TLVs in hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub template: Vec<FilledTlv>,
    /// Types that stand in the template alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<u8>,
    /// Why no file can be made of the catalog for this device; empty when it can.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fault: String,
}

/// The software a modem must run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareContent {
    pub file: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Ipv4Addr>,
    /// As the modem reports it (docsDevSwCurrentVers) when it runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What a modem in the garden lets through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GardenContent {
    /// Networks that may be reached, as texts.
    pub allow: Vec<Cidr>,
    /// Filter groups of the CMTS (TLV 37).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter_groups: Vec<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downstream: Option<BitRate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<BitRate>,
    /// Whether the modem itself filters: by classifiers, by SNMP rows, or not.
    pub filters: GardenFilters,
}

impl Content {
    /// The address of the modem whose boot a device's file waits for; `None`: this is no device's content.
    pub fn gateway(&self) -> Option<MacAddress> {
        match self {
            Content::Cm(content) => Some(content.mac),
            Content::Mta(content) => Some(content.cm_mac),
            Content::Mailbox(_) | Content::Aaa(_) | Content::Absent => None,
        }
    }

    /// The content as far as a device's file shows it: of equal ones the files are equal.
    pub fn as_file(&self) -> Content {
        match self {
            Content::Cm(content) => Content::Cm(content.as_file()),
            Content::Mta(content) => Content::Mta(content.as_file()),
            other => other.clone(),
        }
    }
}

impl MtaContent {
    fn as_file(&self) -> Self {
        let line = |line: &MtaLine| MtaLine {
            number: String::new(),
            service: String::new(),
            // A registration stands in the file where a template puts it, and there it is read from the template.
            sip: line.sip.clone().filter(|_| !line.template.is_empty()),
            ..line.clone()
        };
        Self { model: None, locations: Vec::new(), lines: self.lines.iter().map(line).collect(), ..self.clone() }
    }
}

impl CmContent {
    fn as_file(&self) -> Self {
        let firmware = self.firmware.clone().map(|firmware| FirmwareContent { version: None, ..firmware });
        let plain = Self { model: None, plan: None, voice: false, firmware, ..self.clone() };
        let closed = Self {
            downstream: None,
            upstream: None,
            downstream_qos: FlowProfile::default(),
            upstream_qos: FlowProfile::default(),
            max_cpe: 1,
            static_ips: Vec::new(),
            garden: None,
            ..plain.clone()
        };
        match (&self.access, self.mta_mac) {
            (CmAccess::Active, _) => plain,
            // What a throttle is called shows in no file.
            (CmAccess::Throttled { .. }, _) => Self { access: CmAccess::Active, ..plain },
            (CmAccess::Garden, _) => Self { max_cpe: 1, static_ips: Vec::new(), ..plain },
            (CmAccess::VoiceOnly, Some(_)) => closed,
            (CmAccess::VoiceOnly | CmAccess::Blocked, _) => Self { access: CmAccess::Blocked, mta_mac: None, ..closed },
        }
    }

    /// A modem that nobody pays for.
    pub fn blocked(mac: MacAddress) -> Self {
        Self {
            mac,
            model: None,
            access: CmAccess::Blocked,
            downstream: None,
            upstream: None,
            max_cpe: 1,
            docsis: super::devices::DEFAULT_DOCSIS.to_owned(),
            voice: false,
            mta_mac: None,
            static_ips: Vec::new(),
            plan: None,
            downstream_qos: FlowProfile::default(),
            upstream_qos: FlowProfile::default(),
            snmp: None,
            cpe_mac_list: None,
            firmware: None,
            garden: None,
            template: Vec::new(),
            replaced: Vec::new(),
            fault: String::new(),
        }
    }
}

/// What a modem lets through. The strictest hold decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CmAccess {
    Active,
    /// Network access through a walled garden.
    Garden,
    /// Network access at the rates of a named profile.
    Throttled {
        profile: String,
    },
    /// No internet for CPEs, the MTA keeps working.
    VoiceOnly,
    Blocked,
}

/// What an MTA's configuration file must say, and what its place in the network must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtaContent {
    pub mac: MacAddress,
    /// The modem it sits in.
    pub cm_mac: MacAddress,
    pub model: Option<String>,
    pub family: HashFamily,
    pub flow: MtaFlow,
    /// Whether any telephone of it may work (pktcMtaDevEnabled).
    pub enabled: bool,
    /// In the order of ports.
    pub lines: Vec<MtaLine>,
    /// Where the voice services were registered for emergency calls; no part of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<MtaLocation>,
    /// What templates add for the device as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub template: Vec<FilledTlv>,
    /// Why no file can be made of the catalog for this device; empty when it can.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fault: String,
}

/// One telephone line of an MTA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtaLine {
    /// 1 is the first.
    pub port: u8,
    /// E.164.
    pub number: String,
    pub enabled: bool,
    /// External id of its voice service.
    pub service: String,
    /// The line's server for calls, where it speaks NCS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_agent: Option<CallAgent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip: Option<MtaSip>,
    /// What templates add for this line; a SIP password is put in when the file is built.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub template: Vec<FilledTlv>,
}

/// The registration of a SIP line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtaSip {
    pub user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    pub password: SecretRef,
}

/// Where a voice service's emergency calls come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtaLocation {
    pub service: String,
    pub address: Address,
}

/// What the mail system must hold for one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxContent {
    pub address: String,
    pub active: bool,
    pub quota_mb: u32,
    pub aliases: Vec<String>,
    pub forward_to: Vec<String>,
    /// Whether the mailbox keeps what is forwarded.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub keep_copy: bool,
    /// Its service has not begun: it is there, and neither takes mail nor lets anybody in.
    #[serde(default, skip_serializing_if = "is_no")]
    pub prepared: bool,
    pub password: SecretRef,
}

fn yes() -> bool {
    true
}

fn is_yes(flag: &bool) -> bool {
    *flag
}

fn is_no(flag: &bool) -> bool {
    !*flag
}

/// What the AAA server must hold for one username.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AaaContent {
    pub username: String,
    pub access: AaaAccess,
    pub group: Option<String>,
    pub reply: BTreeMap<String, ReplyValues>,
    pub framed_ip: Option<IpAddr>,
    pub ipv6_delegated: Option<String>,
    /// The password must stand there in clear, for CHAP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chap: bool,
    pub password: SecretRef,
}

/// How a login is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AaaAccess {
    Accept,
    /// Accepted, but into a restricted group.
    Garden {
        group: String,
    },
    /// Accepted, but into a group that lets nothing through: a router that is refused asks again for ever.
    Blocked {
        group: String,
    },
    Reject,
}

/// Names a sealed secret without holding it.
///
/// **Shape**: `service` is the service's external id, `field` for example `radius.password` or `mailbox.password`;
/// `digest` is a keyed hash in hex, so that a changed secret changes the content. `None`: no secret is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRef {
    pub service: String,
    pub field: String,
    pub digest: Option<String>,
}
