//! What a catalog says about modems and telephones: plans' and add-ons' settings, device models, the walled garden.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::docsis::{CallAgent, HashFamily, MtaFlow, SnmpStyle, Template};
use crate::vocabulary::{BitRate, Cidr};

/// What a plan puts into a modem's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocsisProfile {
    pub downstream: BitRate,
    pub upstream: BitRate,
    pub max_cpe: Option<u8>,
    pub version: Option<String>,
    pub downstream_qos: FlowProfile,
    pub upstream_qos: FlowProfile,
    pub template: Option<Template>,
}

/// One direction of a plan besides its rate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowProfile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<BitRate>,
    /// Octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// 0 to 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_reserved: Option<BitRate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_class: Option<String>,
}

impl FlowProfile {
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// What an add-on changes in the modem's file of the service it is bought for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddonProfile {
    pub downstream: Option<Boost>,
    pub upstream: Option<Boost>,
    /// CPEs more, for each of its quantity.
    pub max_cpe: u8,
    pub template: Option<Template>,
}

/// How an add-on changes a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boost {
    /// At least this.
    AtLeast(BitRate),
    /// More by this for each of its quantity (`+50M`).
    More(BitRate),
}

/// What a voice plan puts into an MTA's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoiceProfile {
    pub server: VoiceServer,
    /// For each line.
    pub template: Option<Template>,
}

/// Who answers a line's calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VoiceServer {
    Ncs(CallAgent),
    /// Known to the model's template by placeholders.
    Sip {
        registrar: String,
        proxy: Option<String>,
        port: u16,
    },
}

/// One kind of device, found by the account's word for its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceModel {
    pub id: String,
    /// What the account's `model` must look like: letters in either case, `*` for any run of characters.
    pub matches: String,
    /// The newest DOCSIS its file is written for.
    pub version: Option<String>,
    pub mta_hash: HashFamily,
    pub mta_flow: MtaFlow,
    pub snmp: Option<SnmpStyle>,
    pub cpe_mac_list: Option<bool>,
    pub garden_filters: GardenFilters,
    pub firmware: Option<Firmware>,
    pub cm_template: Option<Template>,
    pub mta_template: Option<Template>,
    /// For each line that speaks SIP.
    pub sip_template: Option<Template>,
}

/// The software a model must run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    pub file: String,
    pub server: Option<Ipv4Addr>,
    pub version: Option<String>,
}

/// `[garden]`: what can be reached from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GardenProfile {
    pub allow: Vec<Cidr>,
    /// Filter groups of the CMTS (TLV 37), in the order subscriber down, up, modem down, up and so on.
    pub filter_groups: Vec<u16>,
    pub downstream: Option<BitRate>,
    pub upstream: Option<BitRate>,
}

/// How a modem is made to drop what the garden forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GardenFilters {
    /// Classifiers from DOCSIS 3.0 on, rows of docsDevFilterIpTable before.
    #[default]
    Auto,
    IpFilters,
    /// Not by the modem: the CMTS' filter groups do it.
    None,
}

impl DeviceModel {
    /// Whether an account's word for a model is this one.
    pub fn is(&self, model: &str) -> bool {
        fits(&self.matches.to_lowercase(), &model.to_lowercase())
    }
}

impl Boost {
    pub fn on(self, rate: BitRate, quantity: u32) -> BitRate {
        match self {
            Boost::AtLeast(least) => rate.max(least),
            Boost::More(more) => {
                let added = more.bits_per_second().saturating_mul(quantity.into());
                BitRate::from_bits_per_second(rate.bits_per_second().saturating_add(added))
            }
        }
    }
}

impl std::str::FromStr for Boost {
    type Err = crate::vocabulary::RateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('+') {
            Some(more) => more.parse().map(Boost::More),
            None => text.parse().map(Boost::AtLeast),
        }
    }
}

/// `*` stands for any run of characters, and every other one for itself.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_between() {
        for (pattern, text, expected) in [
            ("tm3402", "tm3402", true),
            ("tm3402", "tm3402b", false),
            ("arris-*", "arris-tm3402", true),
            ("*3402*", "arris-tm3402", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_boost_adds_for_each_or_lifts_once() {
        let rate: BitRate = "100M".parse().expect("a rate");
        let on = |text: &str, quantity| text.parse::<Boost>().expect("a boost").on(rate, quantity).to_string();
        assert_eq!(on("+50M", 2), "200M");
        assert_eq!((on("300M", 2), on("10M", 1)), ("300M".to_owned(), "100M".to_owned()));
    }
}
