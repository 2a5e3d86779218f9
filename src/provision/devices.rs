//! What a gateway's two devices must be: its cable modem and its telephone adapter, each from all services and holds on it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::element::{
    CmAccess, CmContent, Content, ElementDesired, ElementKind, MtaContent, MtaFlow, MtaLine, MtaLocation, MtaSip,
};
use super::elements::{Basis, living, plan, prepared_only, secret, treatment};
use crate::account::{Device, Known, Service, ServiceType, Treatment, sip_password};
use crate::docsis::HashFamily;
use crate::vocabulary::{BitRate, Timestamp};

/// DOCSIS version of a plan that names none.
pub const DEFAULT_DOCSIS: &str = "3.0";
/// Rate of `throttle:PROFILE` when PROFILE is no plan of the catalog: slow, but a bill can still be paid.
pub const THROTTLED_RATE_BPS: u64 = 256_000;
/// TLV 18 counts to 254.
const CPE_MAX: usize = 254;

/// The modem of a device, while a service is on it.
pub(super) fn cm(basis: &Basis, device: &Device, now: Timestamp) -> Option<ElementDesired> {
    let on_device = || living(basis.account).filter(|service| service.device.as_ref() == Some(&device.id));
    let internet = on_device().find(|service| service.service_type == ServiceType::Internet);
    let mut voices = on_device().filter(|service| service.service_type == ServiceType::Voice).peekable();
    if internet.is_none() && voices.peek().is_none() {
        return None;
    }
    let has_voice = voices.peek().is_some() && device.mta_mac.is_some();
    let voice = has_voice
        && voices.any(|service| {
            !prepared_only(basis, service, now) && treatment(basis, service, now) < Treatment::BlockVoice
        });
    let data = internet.map_or(Data::Off, |service| match prepared_only(basis, service, now) {
        true => Data::Off,
        false => match treatment(basis, service, now) {
            Treatment::None => Data::On(CmAccess::Active),
            Treatment::Throttle(profile) => Data::On(CmAccess::Throttled { profile }),
            Treatment::Garden => Data::On(CmAccess::Garden),
            Treatment::Block | Treatment::BlockVoice => Data::Off,
        },
    });
    let access = match (data, voice) {
        (Data::On(access), _) => access,
        (Data::Off, true) => CmAccess::VoiceOnly,
        (Data::Off, false) => CmAccess::Blocked,
    };
    let profile = internet.and_then(|service| plan(basis, service)?.docsis.as_ref());
    let (downstream, upstream) = match &access {
        CmAccess::Throttled { profile: throttle } => {
            let (down, up) = throttled_rates(throttle, basis.known);
            // A throttle never makes a plan faster.
            (
                Some(profile.map_or(down, |plan| plan.downstream.min(down))),
                Some(profile.map_or(up, |plan| plan.upstream.min(up))),
            )
        }
        _ => (profile.map(|plan| plan.downstream), profile.map(|plan| plan.upstream)),
    };
    let cpes =
        internet.and_then(|service| service.max_cpe.or(profile.and_then(|plan| plan.max_cpe))).map_or(1, usize::from);
    let cpes_and_mta = (cpes + usize::from(has_voice)).min(CPE_MAX);
    let content = CmContent {
        mac: device.cm_mac,
        model: device.model.clone(),
        access,
        downstream,
        upstream,
        max_cpe: u8::try_from(cpes_and_mta).unwrap_or(u8::MAX),
        docsis: profile.and_then(|plan| plan.version.clone()).unwrap_or_else(|| DEFAULT_DOCSIS.to_owned()),
        voice,
        mta_mac: device.mta_mac.filter(|_| has_voice),
        static_ips: internet.map(sorted_addresses).unwrap_or_default(),
        plan: internet.map(|service| service.plan.clone()),
    };
    let services: BTreeSet<String> = on_device().map(|service| service.id.clone()).collect();
    Some(ElementDesired {
        kind: ElementKind::Cm,
        key: device.cm_mac.to_string(),
        services: services.into_iter().collect(),
        content: Content::Cm(content),
    })
}

enum Data {
    On(CmAccess),
    Off,
}

/// The MTA of a device, while a voice service is on it. A line works unless its service is only prepared or a hold says
/// `block_voice`: who has not paid can still call for help.
pub(super) fn mta(basis: &Basis, device: &Device, now: Timestamp) -> Option<ElementDesired> {
    let mac = device.mta_mac?;
    let mut services: Vec<&Service> = living(basis.account)
        .filter(|service| service.service_type == ServiceType::Voice && service.device.as_ref() == Some(&device.id))
        .collect();
    services.sort_by(|a, b| a.id.cmp(&b.id));
    if services.is_empty() {
        return None;
    }
    let works = |service: &Service| {
        !prepared_only(basis, service, now) && treatment(basis, service, now) < Treatment::BlockVoice
    };
    let mut lines: Vec<MtaLine> = services.iter().flat_map(|service| lines(basis, service, works(service))).collect();
    lines.sort_by(|a, b| (a.port, &a.service).cmp(&(b.port, &b.service)));
    let location = |service: &&Service| {
        let address = service.service_address.clone()?;
        Some(MtaLocation { service: service.id.clone(), address })
    };
    let content = MtaContent {
        mac,
        cm_mac: device.cm_mac,
        model: device.model.clone(),
        family: HashFamily::Na,
        flow: MtaFlow::Basic1,
        enabled: services.iter().any(|service| works(service)),
        lines,
        locations: services.iter().filter_map(location).collect(),
    };
    Some(ElementDesired {
        kind: ElementKind::Mta,
        key: mac.to_string(),
        services: services.iter().map(|service| service.id.clone()).collect(),
        content: Content::Mta(content),
    })
}

fn lines(basis: &Basis, service: &Service, works: bool) -> Vec<MtaLine> {
    let line = |line: &crate::account::VoiceLine| MtaLine {
        port: line.port,
        number: line.number.clone(),
        enabled: line.enabled && works,
        service: service.id.clone(),
        call_agent: None,
        sip: line.sip.as_ref().map(|sip| MtaSip {
            user: sip.user.clone(),
            display_name: sip.display_name.clone(),
            password: secret(basis, service, &sip_password(line.port)),
        }),
    };
    service.lines.iter().map(line).collect()
}

fn sorted_addresses(service: &Service) -> Vec<IpAddr> {
    let framed = service.radius.as_ref().and_then(|radius| radius.framed_ip).map(IpAddr::V4);
    let all: BTreeSet<IpAddr> = service.static_ips.iter().copied().chain(framed).collect();
    all.into_iter().collect()
}

/// Down and up of `throttle:PROFILE`.
pub(super) fn throttled_rates(profile: &str, known: &Known) -> (BitRate, BitRate) {
    let slow = BitRate::from_bits_per_second(THROTTLED_RATE_BPS);
    known
        .plans
        .get(profile)
        .and_then(|plan| plan.docsis.as_ref())
        .map_or((slow, slow), |docsis| (docsis.downstream, docsis.upstream))
}
