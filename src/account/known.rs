//! The facts of a tenant's catalog that an account is checked against and provisioned from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::hold::{HoldKind, Treatment};
use super::technical::{AddonProfile, DeviceModel, DocsisProfile, GardenProfile, VoiceProfile};
use crate::vocabulary::Zone;

/// What an account buys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceType {
    Internet,
    Voice,
    Email,
}

/// A tenant's catalog as far as accounts depend on it. Built by the catalog room from the version in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    pub plans: BTreeMap<String, KnownPlan>,
    pub bill_cycles: BTreeSet<String>,
    /// Domains in lower case.
    pub mail_domains: BTreeSet<String>,
    /// The tenant's treatment of a kind of hold, where it differs from `HoldKind::default_treatment`.
    pub treatments: BTreeMap<HoldKind, Treatment>,
    /// The tenant's zone, in which a bare date begins; missing: UTC.
    pub zone: Option<Zone>,
    /// RADIUS group of logins in the walled garden; missing: `DEFAULT_GARDEN_GROUP`.
    pub garden_group: Option<String>,
    /// RADIUS group of logins that a hold blocks; missing: they are refused.
    pub blocked_group: Option<String>,
    pub quarantine: QuarantineDays,
    /// Whoever looks at address or session history must name the case.
    pub history_needs_case: bool,
    /// In the order they are tried.
    pub models: Vec<DeviceModel>,
    pub garden: GardenProfile,
}

/// For how many days nobody but its last account may have what an account gave up. 0: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineDays {
    /// Mailbox addresses and aliases.
    pub mailbox: u32,
    /// Phone numbers.
    pub number: u32,
    /// For how long what was deleted comes back as it was (`delete_grace` of the tenant): a mailbox with its mail, a number,
    /// a static address. `None`: addresses for `ADDRESS_DAYS`, and the mail host's own rule for mailboxes.
    pub grace: Option<u32>,
}

/// Days for which a deleted account's static address is nobody else's, unless the tenant says otherwise.
const ADDRESS_DAYS: u32 = 30;

impl QuarantineDays {
    /// Static addresses of deleted accounts and services. Passwords of deleted accounts are kept as long.
    pub fn address(self) -> u32 {
        self.grace.unwrap_or(ADDRESS_DAYS)
    }

    /// With a grace that is at least kept by everything.
    pub fn with_grace(self, grace: Option<u32>) -> Self {
        let least = grace.unwrap_or(0);
        Self { mailbox: self.mailbox.max(least), number: self.number.max(least), grace }
    }
}

impl Default for QuarantineDays {
    fn default() -> Self {
        Self { mailbox: 180, number: 90, grace: None }
    }
}

/// A plan's technical profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownPlan {
    /// `None`: an add-on that fits every type of service and cannot be a service's own plan.
    pub service: Option<ServiceType>,
    pub docsis: Option<DocsisProfile>,
    pub addon: Option<AddonProfile>,
    pub voice: Option<VoiceProfile>,
    pub radius: Option<RadiusProfile>,
    /// Mailbox quota where the mailbox names none, in megabytes.
    pub quota_mb: Option<u32>,
}

/// What a plan puts into the AAA tables; an add-on's is laid over its service's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RadiusProfile {
    pub group: Option<String>,
    pub reply: BTreeMap<String, ReplyValues>,
    /// The login needs its password in clear: CHAP and MS-CHAP work with nothing less.
    pub chap: bool,
}

/// The values of one reply attribute, in order; most have one, `Cisco-AVPair` and `Framed-Route` often several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "OneOrMany")]
pub struct ReplyValues(Vec<String>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl ReplyValues {
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl From<&str> for ReplyValues {
    fn from(value: &str) -> Self {
        Self(vec![value.to_owned()])
    }
}

impl From<Vec<String>> for ReplyValues {
    fn from(values: Vec<String>) -> Self {
        Self(values)
    }
}

impl From<OneOrMany> for ReplyValues {
    fn from(values: OneOrMany) -> Self {
        match values {
            OneOrMany::One(value) => Self(vec![value]),
            OneOrMany::Many(values) => Self(values),
        }
    }
}

impl From<ReplyValues> for OneOrMany {
    fn from(values: ReplyValues) -> Self {
        match <[String; 1]>::try_from(values.0) {
            Ok([value]) => Self::One(value),
            Err(values) => Self::Many(values),
        }
    }
}

/// Where the catalog names no group for the walled garden.
pub const DEFAULT_GARDEN_GROUP: &str = "garden";

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no type of service; types are internet, voice, email")]
pub struct ServiceTypeError(String);

impl Known {
    /// What a hold of this kind does when it does not say so itself.
    pub fn treatment(&self, kind: HoldKind) -> Treatment {
        self.treatments.get(&kind).cloned().unwrap_or_else(|| kind.default_treatment())
    }

    /// The first entry that an account's word for a model fits.
    pub fn model(&self, model: Option<&str>) -> Option<&DeviceModel> {
        self.models.iter().find(|entry| entry.is(model.unwrap_or_default()))
    }

    pub fn garden_group(&self) -> &str {
        self.garden_group.as_deref().unwrap_or(DEFAULT_GARDEN_GROUP)
    }
}

impl ServiceType {
    pub const ALL: [ServiceType; 3] = [ServiceType::Internet, ServiceType::Voice, ServiceType::Email];

    pub fn as_str(self) -> &'static str {
        match self {
            ServiceType::Internet => "internet",
            ServiceType::Voice => "voice",
            ServiceType::Email => "email",
        }
    }
}

impl fmt::Display for ServiceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ServiceType {
    type Err = ServiceTypeError;
    fn from_str(text: &str) -> Result<Self, ServiceTypeError> {
        Self::ALL
            .into_iter()
            .find(|service| service.as_str() == text)
            .ok_or_else(|| ServiceTypeError(text.chars().take(40).collect()))
    }
}
