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

use crate::docsis::{CmSettings, Flow, Generation, SnmpAccess, cm_file, verify};
use crate::provision::{CmAccess, CmContent};
use crate::vocabulary::Secret;

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
    let generation: Generation = content
        .docsis
        .parse()
        .map_err(|error| format!("plan {}: {error}", content.plan.as_deref().unwrap_or("(none)")))?;
    let file = CmSettings {
        modem_address: serving.modem_address,
        tftp_timestamp: serving.tftp_timestamp,
        ..recipe(content, generation, settings)
    };
    proven(&file, settings)
}

/// The file of a modem that belongs to no account.
pub fn build_unprovisioned(settings: &ModemSettings) -> Result<Vec<u8>, String> {
    proven(&blocked(Generation::V11, settings), settings)
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
    let slow = Flow { rate: Some(GARDEN_RATE), peak: Some(GARDEN_RATE), burst: None };
    let sold = |rate: Option<crate::vocabulary::BitRate>| Flow {
        rate: rate.map(|rate| rate.bits_per_second()),
        ..Flow::default()
    };
    let open = CmSettings { network_access: true, ..blocked(generation, settings) };
    match &content.access {
        CmAccess::Active | CmAccess::Throttled { .. } => CmSettings {
            max_cpe: content.max_cpe.max(1),
            upstream: sold(content.upstream),
            downstream: sold(content.downstream),
            ..open
        },
        CmAccess::Garden => CmSettings { max_cpe: 1 + mtas, upstream: slow, downstream: slow, ..open },
        CmAccess::VoiceOnly if content.mta_mac.is_some() => {
            let listed = content.mta_mac.filter(|_| bears_cpe_list(content.model.as_deref()));
            let cpe_macs = listed.into_iter().collect();
            CmSettings { max_cpe: 1, cpe_macs, upstream: slow, downstream: slow, ..open }
        }
        CmAccess::VoiceOnly | CmAccess::Blocked => blocked(generation, settings),
    }
}

fn blocked(generation: Generation, settings: &ModemSettings) -> CmSettings {
    let least = Flow { rate: Some(BLOCKED_RATE), peak: Some(BLOCKED_RATE), burst: None };
    CmSettings {
        generation,
        network_access: false,
        max_cpe: 1,
        cpe_macs: Vec::new(),
        upstream: least,
        downstream: least,
        tftp_timestamp: None,
        modem_address: None,
        snmp: settings.community.clone().map(|community| SnmpAccess { community, write: true, managers: Vec::new() }),
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
