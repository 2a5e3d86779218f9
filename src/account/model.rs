//! The account document after the door: what is desired for one subscriber, in types that cannot be wrong, without secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hold::Hold;
use super::known::ServiceType;
use crate::vocabulary::{Date, MacAddress, Secret, Timestamp, Zone};

/// A subscriber as its billing system wants it. This is what is stored; secrets are kept beside it, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub status: Status,
    /// The billing system's word, `person` unless it says otherwise.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    #[serde(default)]
    pub tax_exempt: TaxExempt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_address: Option<Address>,
    /// External id of the account that pays or owns this one.
    #[serde(default)]
    pub parent: Option<String>,
    #[serde(default)]
    pub tier_label: Option<String>,
    pub bill_cycle: String,
    #[serde(default)]
    pub holds: Vec<Hold>,
    #[serde(default)]
    pub devices: Vec<Device>,
    #[serde(default)]
    pub services: Vec<Service>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Which taxes an account does not pay: all or none, or those of these ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TaxExempt {
    All(bool),
    Taxes(Vec<String>),
}

impl Default for TaxExempt {
    fn default() -> Self {
        TaxExempt::All(false)
    }
}

impl TaxExempt {
    pub fn is_all(&self) -> bool {
        matches!(self, TaxExempt::All(true))
    }

    pub fn taxes(&self) -> &[String] {
        match self {
            TaxExempt::All(_) => &[],
            TaxExempt::Taxes(ids) => ids,
        }
    }
}

/// Where a subscriber or a service stands. Ordered: the stricter is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Active,
    /// A hold of kind `nonpay` that belongs to the source that pushed it.
    Suspended,
    /// Known, not yet in service: prepared, but nothing passes.
    Pending,
    Terminated,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub line1: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line2: Option<String>,
    pub city: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country: String,
}

/// A physical box; its `id` is the account's own word, services name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub id: String,
    pub cm_mac: MacAddress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mta_mac: Option<MacAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

/// One thing an account buys. Which of the optional parts must be there follows from `service_type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub id: String,
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    pub plan: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cpe: Option<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub static_ips: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius: Option<Radius>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_address: Option<Address>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<VoiceLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<Mailbox>,
    /// Before this the service is prepared, but nothing passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_from: Option<Moment>,
    /// First billed day. Missing: the day of the first push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_from: Option<Date>,
    /// First day no longer billed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_until: Option<Date>,
    /// Passed through to the service's invoice lines, for those who use a tax engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_jurisdiction: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_override: Option<PriceOverride>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addons: Vec<Addon>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub promos: Vec<Promo>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduled: Vec<Scheduled>,
    /// What its billing system says of it besides; kept and shown, and nothing follows from it. Members are sorted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Value>,
}

/// The login of an internet service; its password is kept under the field `radius.password`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Radius {
    pub username: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framed_ip: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_delegated: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoiceLine {
    pub port: u8,
    /// E.164.
    pub number: String,
    pub enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip: Option<Sip>,
}

/// Registration of one line; its password is kept under the field `lines.PORT.sip.password`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sip {
    pub user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// One mailbox; its password is kept under the field `mailbox.password`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_mb: Option<u32>,
    #[serde(default)]
    pub aliases: Vec<String>,
    #[serde(default)]
    pub forward_to: Vec<String>,
    /// Whether the mailbox keeps what is forwarded.
    #[serde(default = "keeps", skip_serializing_if = "is_kept")]
    pub keep_copy: bool,
}

fn keeps() -> bool {
    true
}

fn is_kept(keep_copy: &bool) -> bool {
    *keep_copy
}

/// A price of this subscriber alone. Without `charge` it replaces the amount of the plan's recurring charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceOverride {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<String>,
    pub amount: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Date>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Date>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addon {
    pub id: String,
    pub plan: String,
    pub quantity: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Date>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Date>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promo {
    pub code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Date>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Date>,
}

/// A change that waits: `set` is a merge patch of the service it stands in, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    pub at: ScheduledAt,
    pub set: Value,
    /// When that is, worked out with the first push that says so; a repeated push does not move it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Due>,
}

/// An instant and its day in the tenant's zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    pub at: Timestamp,
    pub on: Date,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ScheduledAt {
    Moment(Moment),
    Word(NextCycle),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NextCycle {
    NextCycle,
}

/// An instant, or the beginning of a day in the tenant's zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Moment {
    Instant(Timestamp),
    Day(Date),
}

/// A push as it came through the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    pub source_revision: Option<i64>,
    pub account: Account,
    /// What changes in the secrets. A secret that is not named stays.
    pub secrets: Vec<SecretChange>,
}

/// One secret of a service to be kept from now on, or to be removed (`None`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretChange {
    pub service: String,
    pub field: String,
    pub value: Option<Secret>,
}

pub const RADIUS_PASSWORD: &str = "radius.password";
pub const MAILBOX_PASSWORD: &str = "mailbox.password";

/// The field name of a voice line's SIP password.
pub fn sip_password(port: u8) -> String {
    format!("lines.{port}.sip.password")
}

impl Pushed {
    /// The document that says the same, secrets included: for what is pushed later.
    pub fn document(&self) -> Value {
        let mut document = serde_json::to_value(&self.account).expect("an account document has only string keys");
        if let Some(revision) = self.source_revision {
            document["source_revision"] = revision.into();
        }
        let services = self.account.services.iter().enumerate();
        for (index, service) in services {
            for change in self.secrets.iter().filter(|change| change.service == service.id) {
                let value = change.value.as_ref().map_or(Value::Null, |secret| secret.expose().into());
                let place = &mut document["services"][index];
                match change.field.as_str() {
                    RADIUS_PASSWORD => place["radius"]["password"] = value,
                    MAILBOX_PASSWORD => place["mailbox"]["password"] = value,
                    field => {
                        let line = service.lines.iter().position(|line| sip_password(line.port) == field);
                        if let Some(line) = line {
                            place["lines"][line]["sip"]["password"] = value;
                        }
                    }
                }
            }
        }
        document
    }
}

impl Account {
    pub fn device(&self, id: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    pub fn service(&self, id: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.id == id)
    }

    /// The stricter of the account's and the service's status.
    pub fn status_of(&self, service: &Service) -> Status {
        service.status.map_or(self.status, |own| own.max(self.status))
    }
}

impl Service {
    /// The secrets this service can have; any other stored for it is left over and goes.
    pub fn secret_fields(&self) -> Vec<String> {
        let mut fields = Vec::new();
        if self.radius.is_some() {
            fields.push(RADIUS_PASSWORD.to_owned());
        }
        if self.mailbox.is_some() {
            fields.push(MAILBOX_PASSWORD.to_owned());
        }
        fields.extend(self.lines.iter().filter(|line| line.sip.is_some()).map(|line| sip_password(line.port)));
        fields
    }
}

impl Moment {
    pub fn at(self, zone: &Zone) -> Timestamp {
        match self {
            Moment::Instant(at) => at,
            // A day always begins somewhere: a midnight in a gap moves to the gap's end.
            Moment::Day(day) => day.to_zoned(zone.clone()).map_or(Timestamp::MAX, |start| start.timestamp()),
        }
    }
}

impl Status {
    pub const ALL: [Status; 4] = [Status::Pending, Status::Active, Status::Suspended, Status::Terminated];

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Active => "active",
            Status::Suspended => "suspended",
            Status::Terminated => "terminated",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            format!("{shown:?} is no status; statuses are pending, active, suspended, terminated")
        })
    }
}
