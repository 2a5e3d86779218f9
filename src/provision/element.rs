//! The elements of an installation and what each must look like; secrets appear only as references with a keyed hash.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::vocabulary::{BitRate, MacAddress};

/// What kind of thing is provisioned. The text form is the `kind` column of `element`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ElementKind {
    /// A cable modem: one configuration file.
    Cm,
    /// A mailbox with its aliases and forwards.
    Mailbox,
    /// A subscriber's login at the AAA server.
    Aaa,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no kind of element; kinds are cm, mailbox, aaa")]
pub struct ElementKindError(String);

impl ElementKind {
    pub const ALL: [ElementKind; 3] = [ElementKind::Cm, ElementKind::Mailbox, ElementKind::Aaa];

    pub fn as_str(self) -> &'static str {
        match self {
            ElementKind::Cm => "cm",
            ElementKind::Mailbox => "mailbox",
            ElementKind::Aaa => "aaa",
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
pub enum Content {
    Cm(CmContent),
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

/// What the mail system must hold for one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxContent {
    pub address: String,
    pub active: bool,
    pub quota_mb: u32,
    pub aliases: Vec<String>,
    pub forward_to: Vec<String>,
    pub password: SecretRef,
}

/// What the AAA server must hold for one username.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AaaContent {
    pub username: String,
    pub access: AaaAccess,
    pub group: Option<String>,
    pub reply: BTreeMap<String, String>,
    pub framed_ip: Option<IpAddr>,
    pub ipv6_delegated: Option<String>,
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
