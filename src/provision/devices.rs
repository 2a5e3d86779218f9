//! What a gateway's two devices must be: its cable modem and its telephone adapter, each from all services and holds on it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::element::{
    CmAccess, CmContent, Content, ElementDesired, ElementKind, FirmwareContent, GardenContent, MtaContent, MtaLine,
    MtaLocation, MtaSip,
};
use super::elements::{Basis, in_force, living, plan, prepared_only, secret, treatment};
use super::placeholders::{SipServer, of_line, of_modem, of_mta};
use crate::account::{
    Addon, AddonProfile, Boost, Device, DeviceModel, DocsisProfile, FlowProfile, Known, Service, ServiceType,
    Treatment, VoiceLine, VoiceServer, sip_password,
};
use crate::docsis::{Generation, HashFamily};
use crate::vocabulary::{BitRate, Timestamp};

/// DOCSIS version of a plan that names none.
pub const DEFAULT_DOCSIS: &str = "3.0";
/// The MIB family of an MTA whose model the catalog does not know: CableLabs'.
pub const DEFAULT_MTA_HASH: HashFamily = HashFamily::Na;
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
    let addons = internet.map(|service| addons(basis, service, now)).unwrap_or_default();
    let model = basis.known.model(device.model.as_deref());
    let open = matches!(access, CmAccess::Active | CmAccess::Throttled { .. });
    let boosted = |rate: BitRate, of: fn(&AddonProfile) -> Option<Boost>| {
        addons
            .iter()
            .filter_map(|(addon, quantity)| Some((of(addon)?, *quantity)))
            .fold(rate, |rate, (boost, quantity)| boost.on(rate, quantity))
    };
    let sold_down = profile.map(|plan| boosted(plan.downstream, |addon| addon.downstream));
    let sold_up = profile.map(|plan| boosted(plan.upstream, |addon| addon.upstream));
    let (downstream, upstream) = match &access {
        CmAccess::Throttled { profile: throttle } => {
            let (down, up) = throttled_rates(throttle, basis.known);
            // A throttle never makes a plan faster.
            (Some(sold_down.map_or(down, |sold| sold.min(down))), Some(sold_up.map_or(up, |sold| sold.min(up))))
        }
        _ => (sold_down, sold_up),
    };
    let own = internet.and_then(|service| service.max_cpe.or(profile.and_then(|plan| plan.max_cpe)));
    let more: usize = addons.iter().map(|(addon, quantity)| usize::from(addon.max_cpe) * *quantity as usize).sum();
    let cpes_and_mta = (own.map_or(1, usize::from) + more + usize::from(has_voice)).min(CPE_MAX);
    let max_cpe = u8::try_from(cpes_and_mta).unwrap_or(u8::MAX);
    let qos = |of: fn(&DocsisProfile) -> &FlowProfile| match (&access, profile) {
        (CmAccess::Active, Some(plan)) => of(plan).clone(),
        // The class and priority stay; a peak or a reserve would be above the throttle.
        (CmAccess::Throttled { .. }, Some(plan)) => {
            let FlowProfile { priority, service_class, .. } = of(plan).clone();
            FlowProfile { priority, service_class, ..FlowProfile::default() }
        }
        _ => FlowProfile::default(),
    };
    let mut content = CmContent {
        model: device.model.clone(),
        downstream,
        upstream,
        max_cpe,
        docsis: version(profile.and_then(|plan| plan.version.as_deref()), model),
        voice,
        mta_mac: device.mta_mac.filter(|_| has_voice),
        static_ips: internet.map(sorted_addresses).unwrap_or_default(),
        plan: internet.map(|service| service.plan.clone()),
        downstream_qos: qos(|plan| &plan.downstream_qos),
        upstream_qos: qos(|plan| &plan.upstream_qos),
        snmp: model.and_then(|model| model.snmp),
        cpe_mac_list: model.and_then(|model| model.cpe_mac_list),
        firmware: model.and_then(|model| model.firmware.as_ref()).map(|firmware| FirmwareContent {
            file: firmware.file.clone(),
            server: firmware.server,
            version: firmware.version.clone(),
        }),
        garden: (access == CmAccess::Garden).then(|| GardenContent {
            allow: basis.known.garden.allow.clone(),
            filter_groups: basis.known.garden.filter_groups.clone(),
            downstream: basis.known.garden.downstream,
            upstream: basis.known.garden.upstream,
            filters: model.map(|model| model.garden_filters).unwrap_or_default(),
        }),
        access,
        ..CmContent::blocked(device.cm_mac)
    };
    // A model's needs are there in every state; what a plan or an add-on gives is given while it is.
    let of_plan = profile.and_then(|plan| plan.template.as_ref()).into_iter().filter(|_| open);
    let of_addons = addons.iter().filter_map(|(addon, _)| addon.template.as_ref()).filter(|_| open);
    let templates = model.and_then(|model| model.cm_template.as_ref()).into_iter().chain(of_plan).chain(of_addons);
    for template in templates {
        content.replaced.extend_from_slice(template.replaced());
        match template.fill(&|name| of_modem(name, basis.external_id, device, internet, max_cpe)) {
            Ok(tlvs) => content.template.extend(tlvs),
            Err(fault) => content.fault = format!("the template: {fault}"),
        }
    }
    content.replaced.sort_unstable();
    content.replaced.dedup();
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
    let location = |service: &&Service| {
        let address = service.service_address.clone()?;
        Some(MtaLocation { service: service.id.clone(), address })
    };
    let model = basis.known.model(device.model.as_deref());
    let mut content = MtaContent {
        mac,
        cm_mac: device.cm_mac,
        model: device.model.clone(),
        family: model.map_or(DEFAULT_MTA_HASH, |model| model.mta_hash),
        flow: model.map(|model| model.mta_flow).unwrap_or_default(),
        enabled: services.iter().any(|service| works(service)),
        lines: Vec::new(),
        locations: services.iter().filter_map(location).collect(),
        template: Vec::new(),
        fault: String::new(),
    };
    if let Some(template) = model.and_then(|model| model.mta_template.as_ref()) {
        match template.fill(&|name| of_mta(name, basis.external_id, device)) {
            Ok(tlvs) => content.template = tlvs,
            Err(fault) => content.fault = format!("the template: {fault}"),
        }
    }
    for service in &services {
        for line in &service.lines {
            match mta_line(basis, device, service, line, line.enabled && works(service)) {
                Ok(line) => content.lines.push(line),
                Err(fault) => content.fault = format!("line {}: {fault}", line.port),
            }
        }
    }
    content.lines.sort_by(|a, b| (a.port, &a.service).cmp(&(b.port, &b.service)));
    Some(ElementDesired {
        kind: ElementKind::Mta,
        key: mac.to_string(),
        services: services.iter().map(|service| service.id.clone()).collect(),
        content: Content::Mta(content),
    })
}

fn mta_line(
    basis: &Basis,
    device: &Device,
    service: &Service,
    line: &VoiceLine,
    enabled: bool,
) -> Result<MtaLine, String> {
    let profile = plan(basis, service).and_then(|plan| plan.voice.as_ref());
    let server = profile.map(|voice| &voice.server);
    let (call_agent, sip_server) = match server {
        Some(VoiceServer::Ncs(agent)) => (Some(agent.clone()), None),
        Some(VoiceServer::Sip { registrar, proxy, port }) => {
            (None, Some(SipServer { registrar, proxy: proxy.as_deref(), port: *port }))
        }
        None => (None, None),
    };
    let speaks_sip = line.sip.is_some() && call_agent.is_none();
    let model = basis.known.model(device.model.as_deref());
    let of_model = model.and_then(|model| model.sip_template.as_ref()).filter(|_| speaks_sip);
    let of_plan = profile.and_then(|voice| voice.template.as_ref());
    let mut template = Vec::new();
    for part in of_model.into_iter().chain(of_plan) {
        let given =
            |name: &str| of_line(name, basis.external_id, device, (service, line, enabled), sip_server.as_ref());
        template.extend(part.fill(&given)?);
    }
    Ok(MtaLine {
        port: line.port,
        number: line.number.clone(),
        enabled,
        service: service.id.clone(),
        call_agent,
        sip: line.sip.as_ref().map(|sip| MtaSip {
            user: sip.user.clone(),
            display_name: sip.display_name.clone(),
            password: secret(basis, service, &sip_password(line.port)),
        }),
        template,
    })
}

/// The add-ons of a service in force at `now` that say something about its modem, with their quantities.
fn addons<'a>(basis: &Basis<'a>, service: &Service, now: Timestamp) -> Vec<(&'a AddonProfile, u32)> {
    let profile = |addon: &Addon| Some((basis.known.plans.get(&addon.plan)?.addon.as_ref()?, addon.quantity));
    let living = service.addons.iter().filter(|addon| in_force(addon, basis.known, now));
    living.filter_map(profile).collect()
}

/// The older of the plan's and the model's DOCSIS.
fn version(plan: Option<&str>, model: Option<&DeviceModel>) -> String {
    let sold = plan.unwrap_or(DEFAULT_DOCSIS);
    let older = |model: &&str| {
        let of = |text: &str| text.parse::<Generation>().ok();
        of(model).zip(of(sold)).is_some_and(|(model, sold)| model < sold)
    };
    model.and_then(|model| model.version.as_deref()).filter(older).unwrap_or(sold).to_owned()
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
