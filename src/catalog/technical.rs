//! The parts of a catalog that end up in configuration files: plans' `docsis`, `docsis_addon` and `voice`, `[[device_model]]`,
//! `[garden]`, and operators' templates.
//!
//! A template is a list of TLVs as `lastmile docsis encode` reads them, with placeholders; each entry is tried with sample
//! values, so that a fault is named here, with its place and TLV path, and not by a modem at night.

use crate::account::{
    AddonProfile, Boost, DeviceModel, DocsisProfile, Firmware, FlowProfile, GardenFilters, GardenProfile, VoiceProfile,
    VoiceServer,
};
use crate::docsis::{
    CALL_AGENT_PORT, CallAgent, Framing, HashFamily, MOST_DESTINATIONS, MtaFlow, SnmpStyle, Template, sample_of,
};
use crate::provision::{CM_PLACEHOLDERS, LINE_PLACEHOLDERS, MTA_PLACEHOLDERS};
use crate::vocabulary::{BitRate, Cidr, Section, Value};

/// `docsis = { … }` of a plan.
pub(super) fn docsis(mut section: Section<'_>) -> Option<DocsisProfile> {
    let downstream = section.required("downstream").and_then(|value| flow(&value));
    let upstream = section.required("upstream").and_then(|value| flow(&value));
    let max_cpe = optional(section.value("max_cpe"), |value| value.integer(0..255).and_then(|n| u8::try_from(n).ok()));
    let version = optional(section.value("version"), |value| value.choice(VERSIONS));
    let template = optional(section.value("template"), |value| template(value, Framing::Cm, CM_PLACEHOLDERS));
    section.finish();
    let ((downstream, downstream_qos), (upstream, upstream_qos)) = (downstream?, upstream?);
    Some(DocsisProfile {
        downstream,
        upstream,
        max_cpe: max_cpe?,
        version: version?.map(str::to_owned),
        downstream_qos,
        upstream_qos,
        template: template?,
    })
}

/// A rate, or a table of everything that is said of one direction.
fn flow(value: &Value<'_>) -> Option<(BitRate, FlowProfile)> {
    if value.is_text() {
        return Some((value.parse()?, FlowProfile::default()));
    }
    let mut section = value.section()?;
    let rate = section.required_parsed::<BitRate>("rate");
    let peak = optional(section.value("peak"), |value| value.parse::<BitRate>());
    let burst = optional(section.value("burst"), |value| {
        value.integer(LEAST_BURST..u64::from(u32::MAX) + 1).and_then(|octets| u32::try_from(octets).ok())
    });
    let priority = optional(section.value("priority"), |value| value.integer(0..8).and_then(|n| u8::try_from(n).ok()));
    let min_reserved = optional(section.value("min_reserved"), |value| value.parse::<BitRate>());
    let service_class = optional(section.value("service_class"), |value| {
        let name = value.text()?;
        let fits = (1..=MOST_CLASS_OCTETS).contains(&name.len()) && name.is_ascii();
        if !fits {
            value.fault(format!("a service class has a name of 1 to {MOST_CLASS_OCTETS} ASCII characters"));
        }
        fits.then(|| name.to_owned())
    });
    section.finish();
    let (rate, peak, min_reserved) = (rate?, peak?, min_reserved?);
    for (what, other, wrong) in [
        ("peak", peak, peak.is_some_and(|peak| peak < rate)),
        ("min_reserved", min_reserved, min_reserved.is_some_and(|reserved| reserved > rate)),
    ] {
        if let Some(other) = other.filter(|_| wrong) {
            value.fault(format!("`{what}` is {other}, which a rate of {rate} cannot have"));
            return None;
        }
    }
    let qos = FlowProfile { peak, burst: burst?, priority: priority?, min_reserved, service_class: service_class? };
    Some((rate, qos))
}

/// `docsis_addon = { … }` of a plan that is bought as an add-on.
pub(super) fn addon(mut section: Section<'_>) -> Option<AddonProfile> {
    let downstream = optional(section.value("downstream"), |value| value.parse::<Boost>());
    let upstream = optional(section.value("upstream"), |value| value.parse::<Boost>());
    let max_cpe = optional(section.value("max_cpe"), |value| value.integer(0..255).and_then(|n| u8::try_from(n).ok()));
    let template = optional(section.value("template"), |value| template(value, Framing::Cm, CM_PLACEHOLDERS));
    section.finish();
    Some(AddonProfile {
        downstream: downstream?,
        upstream: upstream?,
        max_cpe: max_cpe?.unwrap_or(0),
        template: template?,
    })
}

/// `voice = { … }` of a plan.
pub(super) fn voice(mut section: Section<'_>) -> Option<VoiceProfile> {
    #[derive(Clone, Copy)]
    enum Protocol {
        Ncs,
        Sip,
    }
    let protocol =
        section.required("protocol").and_then(|value| value.choice(&[("ncs", Protocol::Ncs), ("sip", Protocol::Sip)]));
    let template = optional(section.value("template"), |value| template(value, Framing::Mta, LINE_PLACEHOLDERS));
    let port = |section: &mut Section<'_>, least: u64, usual: u16| {
        optional(section.value("port"), |value| value.integer(least..65_536).and_then(|n| u16::try_from(n).ok()))
            .map(|port| port.unwrap_or(usual))
    };
    let server = match protocol {
        Some(Protocol::Ncs) => {
            let id = section.required("call_agent").and_then(|value| name(&value));
            let port = port(&mut section, LEAST_CALL_AGENT_PORT, CALL_AGENT_PORT);
            id.zip(port).map(|(id, port)| VoiceServer::Ncs(CallAgent { id, port }))
        }
        Some(Protocol::Sip) => {
            let registrar = section.required("registrar").and_then(|value| name(&value));
            let proxy = optional(section.value("proxy"), name);
            let port = port(&mut section, 1, SIP_PORT);
            registrar.zip(proxy).zip(port).map(|((registrar, proxy), port)| VoiceServer::Sip { registrar, proxy, port })
        }
        None => None,
    };
    section.finish();
    Some(VoiceProfile { server: server?, template: template? })
}

/// One `[[device_model]]`.
pub(super) fn model(mut section: Section<'_>) -> Option<DeviceModel> {
    let id = section.required_text("id");
    let matches = section.required_text("match");
    let version = optional(section.value("docsis"), |value| value.choice(VERSIONS));
    let mta_hash = optional(section.value("mta_hash"), |value| {
        value.choice(&[("na", HashFamily::Na), ("eu", HashFamily::Eu), ("ietf", HashFamily::Ietf)])
    });
    let mta_flow =
        optional(section.value("mta_flow"), |value| value.choice(&MtaFlow::ALL.map(|flow| (flow.as_str(), flow))));
    let snmp = optional(section.value("snmp"), |value| {
        value.choice(&[("coexistence", SnmpStyle::Coexistence), ("access_table", SnmpStyle::AccessTable)])
    });
    let cpe_mac_list = optional(section.value("cpe_mac_list"), Value::flag);
    let garden_filters = optional(section.value("garden_filters"), |value| {
        value.choice(&[
            ("auto", GardenFilters::Auto),
            ("ip_filters", GardenFilters::IpFilters),
            ("none", GardenFilters::None),
        ])
    });
    let firmware = optional(section.value("firmware"), |value| value.section().and_then(firmware));
    let mut of = |key: &'static str, framing: Framing, placeholders: Placeholders| {
        optional(section.value(key), |value| template(value, framing, placeholders))
    };
    let cm_template = of("cm_template", Framing::Cm, CM_PLACEHOLDERS);
    let mta_template = of("mta_template", Framing::Mta, MTA_PLACEHOLDERS);
    let sip_template = of("sip_template", Framing::Mta, LINE_PLACEHOLDERS);
    section.finish();
    Some(DeviceModel {
        id: id?,
        matches: matches?,
        version: version?.map(str::to_owned),
        mta_hash: mta_hash?.unwrap_or(crate::provision::DEFAULT_MTA_HASH),
        mta_flow: mta_flow?.unwrap_or_default(),
        snmp: snmp?,
        cpe_mac_list: cpe_mac_list?,
        garden_filters: garden_filters?.unwrap_or_default(),
        firmware: firmware?,
        cm_template: cm_template?,
        mta_template: mta_template?,
        sip_template: sip_template?,
    })
}

fn firmware(mut section: Section<'_>) -> Option<Firmware> {
    let file = section.required("file").and_then(|value| {
        let name = value.text()?;
        let fits = (1..=MOST_FIRMWARE_OCTETS).contains(&name.len());
        if !fits {
            value.fault(format!("a firmware file has a name of 1 to {MOST_FIRMWARE_OCTETS} characters"));
        }
        fits.then(|| name.to_owned())
    });
    let server = optional(section.value("server"), |value| value.parse());
    let version = optional(section.value("version"), |value| value.text().map(str::to_owned));
    section.finish();
    Some(Firmware { file: file?, server: server?, version: version? })
}

/// `[garden]`.
pub(super) fn garden(mut section: Section<'_>) -> Option<GardenProfile> {
    let allow = optional(section.value("allow"), |value| {
        let networks: Option<Vec<Cidr>> = value.list()?.iter().map(|item| item.parse::<Cidr>()).collect();
        if networks.as_ref().is_some_and(|all| all.len() > MOST_DESTINATIONS) {
            value.fault(format!("a garden has at most {MOST_DESTINATIONS} destinations"));
            return None;
        }
        networks
    });
    let filter_groups = optional(section.value("filter_groups"), |value| {
        let number = |item: &Value<'_>| item.integer(0..65_536).and_then(|number| u16::try_from(number).ok());
        let groups: Option<Vec<u16>> = value.list()?.iter().map(number).collect();
        if groups.as_ref().is_some_and(|groups| ![4, 6, 8, 10].contains(&groups.len())) {
            value.fault("4, 6, 8 or 10 groups are expected: subscriber down and up, modem down and up, and so on");
            return None;
        }
        groups
    });
    let downstream = optional(section.value("downstream"), |value| value.parse::<BitRate>());
    let upstream = optional(section.value("upstream"), |value| value.parse::<BitRate>());
    section.finish();
    Some(GardenProfile {
        allow: allow?.unwrap_or_default(),
        filter_groups: filter_groups?.unwrap_or_default(),
        downstream: downstream?,
        upstream: upstream?,
    })
}

type Placeholders = &'static [(&'static str, &'static str)];

/// A list of TLVs, or `{ tlv = [ … ], override = [ … ] }` whose TLVs stand in place of the recipe's.
fn template(value: &Value<'_>, framing: Framing, placeholders: Placeholders) -> Option<Template> {
    let mut template = Template::new(framing);
    let mut sound = true;
    let list = if value.is_list() {
        value.list()?
    } else {
        let mut section = value.section()?;
        let list = section.required("tlv").and_then(|value| value.list());
        for name in section.value("override").and_then(|value| value.list()).unwrap_or_default() {
            if let Some(text) = name.text()
                && let Err(fault) = template.replace(text)
            {
                name.fault(fault);
                sound = false;
            }
        }
        section.finish();
        list?
    };
    let sample = sample_of(placeholders);
    for item in &list {
        for (name, entry) in item.section()?.entries() {
            if let Err(faults) = template.add(name, entry.plain(), &sample) {
                faults.into_iter().for_each(|fault| entry.fault(fault));
                sound = false;
            }
        }
    }
    sound.then_some(template)
}

/// A name of a server: what the MIBs take, 3 to 255 characters.
fn name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let fits = (3..=255).contains(&text.len()) && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if !fits {
        value.fault("a name of 3 to 255 characters without blanks is expected");
    }
    fits.then(|| text.to_owned())
}

/// A key that may be absent: `Some(None)` then, and `None` where it is there and wrong.
fn optional<'d, T>(value: Option<Value<'d>>, read: impl FnOnce(&Value<'d>) -> Option<T>) -> Option<Option<T>> {
    match value {
        Some(value) => read(&value).map(Some),
        None => Some(None),
    }
}

const VERSIONS: &[(&str, &str)] =
    &[("1.0", "1.0"), ("1.1", "1.1"), ("2.0", "2.0"), ("3.0", "3.0"), ("3.1", "3.1"), ("4.0", "4.0")];
/// 24.4 holds 16 octets with its NUL.
const MOST_CLASS_OCTETS: usize = 15;
const LEAST_BURST: u64 = 1522;
const MOST_FIRMWARE_OCTETS: usize = 64;
/// pktcNcsEndPntConfigCallAgentUdpPort: 1025 to 65535.
const LEAST_CALL_AGENT_PORT: u64 = 1025;
const SIP_PORT: u16 = 5060;
