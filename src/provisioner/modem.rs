//! What a modem's configuration file says in each state of its subscriber, built and proven before it is offered.
//!
//! Comes in: the desired content of a `cm` element and the plant's own settings. Goes out: the file's bytes, the same
//! for the same content and settings. Knows no database and no socket.
//!
//! | access | network access | CPEs | rates |
//! |---|---|---|---|
//! | active, throttled | on | as sold | as sold, or as throttled |
//! | garden | on | 1 and the MTA | `GARDEN_RATE` |
//! | voice only | on | the MTA alone, by address where the model bears it | `GARDEN_RATE` |
//! | blocked | off | 1 | `BLOCKED_RATE` |
//!
//! A subscriber who has not paid keeps the telephone: only `Blocked` takes it away, and only a treatment that says so
//! makes `Blocked` of an account with voice.

use std::net::Ipv4Addr;

use crate::account::{FlowProfile, GardenFilters};
use crate::docsis::{
    CmSettings, ExtendedMic, Filling, FirmwareSource, Flow, Framing, GardenFilter, Generation, SnmpAccess, SnmpStyle,
    Tlv, cm_file, verify,
};
use crate::provision::{CmAccess, CmContent};
use crate::vocabulary::{BitRate, Secret};

/// What every file of the installation has in common.
#[derive(Debug, Clone)]
pub struct ModemSettings {
    /// The CMTS' shared secret; empty where the CMTS checks none.
    pub shared_secret: Secret,
    /// Community for reading and resetting modems; none = the modems keep what they have.
    pub community: Option<Secret>,
}

/// What depends on who asks for the file, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving {
    /// The address the modem asks from: the CMTS refuses the file to any other modem (TLV 20).
    pub modem_address: Option<Ipv4Addr>,
    /// Seconds since 1900 (TLV 19): the CMTS refuses the file later on.
    pub tftp_timestamp: Option<u32>,
    /// Where the CMTS checks an extended MIC.
    pub extended_mic: Option<ExtendedMic>,
}

/// Walled garden and voice only: enough for a portal and two calls.
pub const GARDEN_RATE: u64 = 256_000;
/// A blocked modem still talks to its CMTS and to SNMP.
pub const BLOCKED_RATE: u64 = 64_000;

/// Models whose telephone loses one direction of speech when its MTA is listed as a CPE (TLV 14).
const MODELS_WITHOUT_CPE_LIST: [&str; 1] = ["arris"];

/// The file of a modem.
///
/// **Errors**: a sentence for NOC, when the content makes no valid file; a person must mend catalog or account.
pub fn build(content: &CmContent, settings: &ModemSettings, serving: &Serving) -> Result<Vec<u8>, String> {
    if !content.fault.is_empty() {
        return Err(content.fault.clone());
    }
    let generation: Generation = content
        .docsis
        .parse()
        .map_err(|error| format!("plan {}: {error}", content.plan.as_deref().unwrap_or("(none)")))?;
    let template: Result<Vec<Tlv>, String> =
        content.template.iter().map(|tlv| tlv.tlv(Framing::Cm, &|_| Filling::Absent)).collect();
    let file = CmSettings {
        template: template.map_err(|fault| format!("the template: {fault}"))?,
        replaced: content.replaced.clone(),
        firmware: content
            .firmware
            .as_ref()
            .map(|firmware| FirmwareSource { file: firmware.file.clone(), server: firmware.server }),
        modem_address: serving.modem_address,
        tftp_timestamp: serving.tftp_timestamp,
        extended_mic: serving.extended_mic.clone(),
        ..recipe(content, generation, settings)
    };
    proven(&file, settings)
}

/// The file of a modem that belongs to no account.
pub fn build_unprovisioned(settings: &ModemSettings) -> Result<Vec<u8>, String> {
    proven(&blocked(Generation::V11, None, settings), settings)
}

/// Builds, then reads back as the modem and its CMTS would.
fn proven(file: &CmSettings, settings: &ModemSettings) -> Result<Vec<u8>, String> {
    let bytes = cm_file(file, &settings.shared_secret);
    verify(&bytes, &settings.shared_secret).map_err(|faults| {
        let named: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        format!("the configuration file would be refused: {}", named.join("; "))
    })?;
    Ok(bytes)
}

fn recipe(content: &CmContent, generation: Generation, settings: &ModemSettings) -> CmSettings {
    let mtas = u8::from(content.mta_mac.is_some());
    let slow = || limited(GARDEN_RATE);
    let open = CmSettings { network_access: true, ..blocked(generation, content.snmp, settings) };
    match &content.access {
        CmAccess::Active | CmAccess::Throttled { .. } => CmSettings {
            max_cpe: content.max_cpe.max(1),
            upstream: sold(content.upstream, &content.upstream_qos),
            downstream: sold(content.downstream, &content.downstream_qos),
            static_ips: content.static_ips.clone(),
            ..open
        },
        CmAccess::Garden => {
            let walls = content.garden.as_ref();
            // The garden is never faster than what was bought.
            let rate = |named: Option<BitRate>, sold: Option<BitRate>| {
                let named = named.map_or(GARDEN_RATE, |rate| rate.bits_per_second());
                limited(sold.map_or(named, |sold| named.min(sold.bits_per_second())))
            };
            CmSettings {
                max_cpe: 1 + mtas,
                upstream: rate(walls.and_then(|garden| garden.upstream), content.upstream),
                downstream: rate(walls.and_then(|garden| garden.downstream), content.downstream),
                filter_groups: walls.map(|garden| garden.filter_groups.clone()).unwrap_or_default(),
                garden: walls.filter(|garden| garden.filters != GardenFilters::None).map(|garden| GardenFilter {
                    allow: garden.allow.clone(),
                    in_classifiers: garden.filters == GardenFilters::Auto,
                }),
                ..open
            }
        }
        CmAccess::VoiceOnly if content.mta_mac.is_some() => {
            let bears = content.cpe_mac_list.unwrap_or_else(|| bears_cpe_list(content.model.as_deref()));
            let cpe_macs = content.mta_mac.filter(|_| bears).into_iter().collect();
            CmSettings { max_cpe: 1, cpe_macs, upstream: slow(), downstream: slow(), ..open }
        }
        CmAccess::VoiceOnly | CmAccess::Blocked => blocked(generation, content.snmp, settings),
    }
}

fn sold(rate: Option<BitRate>, qos: &FlowProfile) -> Flow {
    let bits = |rate: BitRate| rate.bits_per_second();
    Flow {
        rate: rate.map(bits),
        peak: qos.peak.map(bits),
        burst: qos.burst,
        priority: qos.priority,
        min_reserved: qos.min_reserved.map(bits),
        service_class: qos.service_class.clone(),
    }
}

fn limited(rate: u64) -> Flow {
    Flow { rate: Some(rate), peak: Some(rate), ..Flow::default() }
}

fn blocked(generation: Generation, style: Option<SnmpStyle>, settings: &ModemSettings) -> CmSettings {
    let snmp = |community| SnmpAccess { community, write: true, managers: Vec::new(), style };
    CmSettings {
        upstream: limited(BLOCKED_RATE),
        downstream: limited(BLOCKED_RATE),
        snmp: settings.community.clone().map(snmp),
        ..CmSettings::closed(generation)
    }
}

fn bears_cpe_list(model: Option<&str>) -> bool {
    let model = model.unwrap_or_default().to_ascii_lowercase();
    !MODELS_WITHOUT_CPE_LIST.iter().any(|maker| model.contains(maker))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::docsis::decode;
    use crate::provision::{FirmwareContent, GardenContent};

    pub fn settings() -> ModemSettings {
        ModemSettings { shared_secret: Secret::new("example-secret-1"), community: None }
    }

    pub fn content(access: CmAccess) -> CmContent {
        CmContent {
            mac: "00:11:22:33:44:55".parse().expect("a MAC"),
            model: None,
            access,
            downstream: Some("100M".parse().expect("a rate")),
            upstream: Some("20M".parse().expect("a rate")),
            max_cpe: 3,
            docsis: "3.0".to_owned(),
            voice: true,
            mta_mac: Some("00:11:22:33:44:56".parse().expect("a MAC")),
            static_ips: Vec::new(),
            plan: Some("res-100".to_owned()),
            ..CmContent::blocked("00:11:22:33:44:55".parse().expect("a MAC"))
        }
    }

    fn shown(content: &CmContent) -> String {
        let bytes = build(content, &settings(), &Serving::default()).expect("a valid file");
        decode(&bytes, Some(b"example-secret-1")).expect("our own file").toml
    }

    #[test]
    fn every_access_has_its_recipe() {
        let cases = [
            (CmAccess::Active, 1, 3, 100_000_000, false),
            (CmAccess::Throttled { profile: "slow".to_owned() }, 1, 3, 100_000_000, false),
            (CmAccess::Garden, 1, 2, GARDEN_RATE, false),
            (CmAccess::VoiceOnly, 1, 1, GARDEN_RATE, true),
            (CmAccess::Blocked, 0, 1, BLOCKED_RATE, false),
        ];
        for (access, network, cpes, down, lists_mta) in cases {
            let text = shown(&content(access.clone()));
            assert!(text.contains(&format!("{{ NetworkAccess = {network} }}")), "{access:?} {text}");
            assert!(text.contains(&format!("{{ MaxCPE = {cpes} }}")), "{access:?} {text}");
            assert!(text.contains(&format!("{{ MaxRateSustained = {down} }}")), "{access:?} {text}");
            assert_eq!(text.contains("CpeMacAddress = \"00:11:22:33:44:56\""), lists_mta, "{access:?} {text}");
        }
    }

    /// Every state on every generation and on models with their ways, as a reviewer reads it.
    #[test]
    fn each_state_on_each_generation_and_model_is_as_reviewed() {
        let mut text = String::new();
        for (generation, model) in
            [("1.0", "plain"), ("2.0", "plain"), ("3.0", "plain"), ("3.1", "plain"), ("3.0", "old ways")]
        {
            for access in [
                CmAccess::Active,
                CmAccess::Throttled { profile: "slow".to_owned() },
                CmAccess::Garden,
                CmAccess::VoiceOnly,
                CmAccess::Blocked,
            ] {
                let content = in_state(access.clone(), generation, model == "old ways");
                let settings = ModemSettings { community: Some(Secret::new("kept")), ..settings() };
                let bytes = build(&content, &settings, &Serving::default()).expect("a valid file");
                let shown = decode(&bytes, Some(b"example-secret-1")).expect("our own file");
                assert!(shown.faults.is_empty(), "{:?}", shown.faults);
                text.push_str(&format!("\n# {access:?}, DOCSIS {generation}, {model}\n{}", shown.toml));
            }
        }
        golden("states.txt", &text);
    }

    fn in_state(access: CmAccess, generation: &str, old_ways: bool) -> CmContent {
        let garden = GardenContent {
            allow: vec!["192.0.2.10/32".parse().expect("a network")],
            filter_groups: if old_ways { vec![1, 2, 3, 4] } else { Vec::new() },
            filters: if old_ways { GardenFilters::IpFilters } else { GardenFilters::Auto },
            ..GardenContent::default()
        };
        let firmware =
            FirmwareContent { file: "fw-9.1.bin".to_owned(), server: Some([192, 0, 2, 9].into()), version: None };
        CmContent {
            docsis: generation.to_owned(),
            garden: (access == CmAccess::Garden).then_some(garden),
            static_ips: vec!["192.0.2.77".parse().expect("an address"), "2001:db8::7".parse().expect("an address")],
            snmp: old_ways.then_some(SnmpStyle::AccessTable),
            cpe_mac_list: old_ways.then_some(false),
            firmware: old_ways.then_some(firmware),
            downstream_qos: FlowProfile {
                priority: Some(3),
                service_class: Some("gold".to_owned()),
                ..FlowProfile::default()
            },
            ..content(access)
        }
    }

    fn golden(name: &str, text: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/docsis").join(name);
        if std::env::var("LASTMILE_GOLDEN").is_ok_and(|mode| mode == "write") {
            std::fs::write(&path, text).expect("the golden file can be written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = text.lines().zip(kept.lines()).find(|(made, kept)| made != kept);
        assert!(text == kept, "{name} differs, first at {differs:?}");
    }

    #[test]
    fn a_template_adds_and_replaces_and_its_fault_is_told() {
        let filled = |hex: &str| crate::docsis::FilledTlv::Whole(hex.to_owned());
        let own = CmContent {
            template: vec![filled("120109"), filled("270101")],
            replaced: vec![18],
            ..content(CmAccess::Active)
        };
        let text = shown(&own);
        assert!(text.contains("{ MaxCPE = 9 }") && text.contains("{ DocsisTwoEnable = 1 }"), "{text}");
        assert_eq!(text.matches("MaxCPE").count(), 1, "{text}");
        let odd = CmContent { template: vec![filled("120109")], ..content(CmAccess::Active) };
        let reason = build(&odd, &settings(), &Serving::default()).expect_err("MaxCPE twice");
        assert!(reason.contains("18[2] (MaxCPE): may stand once"), "{reason}");
        let faulty = CmContent { fault: "the template: x".to_owned(), ..content(CmAccess::Active) };
        assert_eq!(build(&faulty, &settings(), &Serving::default()), Err("the template: x".to_owned()));
    }

    #[test]
    fn what_only_signs_or_binds_a_file_has_no_effect() {
        let digest = |settings: &ModemSettings, serving: &Serving| {
            let bytes = build(&content(CmAccess::Active), settings, serving).expect("a valid file");
            crate::docsis::effective_digest(&bytes)
        };
        let plain = digest(&settings(), &Serving::default());
        let bound = Serving {
            modem_address: Some([10, 10, 0, 9].into()),
            tftp_timestamp: Some(3_900_000_000),
            extended_mic: Some(ExtendedMic::of_all(true)),
        };
        let rotated = ModemSettings { shared_secret: Secret::new("another"), ..settings() };
        assert_eq!(digest(&rotated, &bound), plain);
        let throttled = CmContent { downstream: "1M".parse().ok(), ..content(CmAccess::Active) };
        let slow = build(&throttled, &settings(), &Serving::default()).expect("a valid file");
        assert_ne!(crate::docsis::effective_digest(&slow), plain);
    }

    #[test]
    fn an_arris_gateway_does_not_list_its_mta() {
        let arris = CmContent { model: Some("ARRIS-TM3402".to_owned()), ..content(CmAccess::VoiceOnly) };
        assert!(!shown(&arris).contains("CpeMacAddress"));
    }

    #[test]
    fn voice_only_without_an_mta_is_blocked() {
        let text = shown(&CmContent { mta_mac: None, ..content(CmAccess::VoiceOnly) });
        assert!(text.contains("{ NetworkAccess = 0 }"), "{text}");
    }

    #[test]
    fn an_unknown_docsis_version_is_a_person_s_business() {
        let odd = CmContent { docsis: "5".to_owned(), ..content(CmAccess::Active) };
        let reason = build(&odd, &settings(), &Serving::default()).expect_err("no such version");
        assert_eq!(reason, "plan res-100: \"5\" is no DOCSIS version; versions are 1.0, 1.1, 2.0, 3.0, 3.1, 4.0");
    }
}
