//! One service of the pushed document: what its type needs and cannot have, its parts, its secrets, its waiting changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::known::{Known, ServiceType};
use super::model::{
    Addon, Device, MAILBOX_PASSWORD, Mailbox, Moment, NextCycle, PriceOverride, Promo, RADIUS_PASSWORD, Radius,
    Scheduled, ScheduledAt, SecretChange, Service, Sip, Status, VoiceLine, sip_password,
};
use super::parse::address;
use super::patch::merge;
use super::text;
use super::walk::{Fields, Node, Presence, Sink};
use crate::vocabulary::Date;

/// What a service is checked against besides itself: the catalog, the account's devices, the services before it.
pub(crate) struct Surroundings<'k> {
    known: &'k Known,
    devices: BTreeMap<String, bool>,
    carried: BTreeSet<String>,
    unique: BTreeSet<(&'static str, String)>,
}

impl<'k> Surroundings<'k> {
    /// `named` are the ids of all devices of the document, also of those that have a fault of their own.
    pub(crate) fn new(known: &'k Known, devices: &[Device], named: BTreeSet<String>) -> Self {
        let mut has_mta: BTreeMap<String, bool> = named.into_iter().map(|id| (id, true)).collect();
        // Of two devices with one id, which is a fault already, the first counts.
        has_mta.extend(devices.iter().rev().map(|device| (device.id.clone(), device.mta_mac.is_some())));
        Self { known, devices: has_mta, carried: BTreeSet::new(), unique: BTreeSet::new() }
    }

    fn claim(&mut self, node: &Node, what: &'static str, value: &str) {
        if !self.unique.insert((what, value.to_owned())) {
            node.fault(format!("{what} {value:?} is used twice in this document"));
        }
    }
}

pub(crate) struct ParsedService {
    pub(crate) service: Service,
    pub(crate) secrets: Vec<SecretChange>,
}

const COMMON: [&str; 15] = [
    "id",
    "type",
    "plan",
    "status",
    "service_address",
    "network_from",
    "billing_from",
    "billing_until",
    "tax_jurisdiction",
    "price_override",
    "addons",
    "promos",
    "scheduled",
    "attributes",
    "device",
];
const INTERNET: [&str; 3] = ["max_cpe", "static_ips", "radius"];
const VOICE: [&str; 1] = ["lines"];
const EMAIL: [&str; 1] = ["mailbox"];
const STATIC_IPS_MAX: usize = 64;
const LINES_MAX: usize = 64;
const PORT_MAX: i64 = 64;
const ALIASES_MAX: usize = 64;
const FORWARDS_MAX: usize = 32;
const QUOTA_MB_MAX: i64 = 10_000_000;
const ADDONS_MAX: usize = 64;
const QUANTITY_MAX: i64 = 1_000_000;
const PROMOS_MAX: usize = 64;
const SCHEDULED_MAX: usize = 32;
/// Octets of a service's attributes.
const ATTRIBUTES_MAX: usize = 16 * 1024;

pub(crate) fn service(node: &Node, around: &mut Surroundings) -> Option<ParsedService> {
    // `provisioning` stands in answers; it is ignored, so that an answer can be changed and pushed back.
    let every: Vec<&str> =
        COMMON.iter().chain(&INTERNET).chain(&VOICE).chain(&EMAIL).chain(&["provisioning"]).copied().collect();
    let fields = node.fields(&every)?;
    let id = fields.required("id").and_then(|node| node.text(text::NAME));
    let service_type: Option<ServiceType> = fields.required("type").and_then(|node| node.parsed());
    let plan = fields.required("plan").and_then(|node| plan(&node, service_type, around.known, false));
    let status: Option<Status> = fields.optional("status").and_then(|node| node.parsed());
    if let Some(service_type) = service_type {
        refuse_foreign_fields(&fields, service_type);
    }
    let living = status != Some(Status::Terminated);
    let device = device(&fields, service_type, living, around);
    let mut secrets = Secrets::default();
    let radius = fields.optional("radius").and_then(|node| radius(&node, around, &mut secrets));
    let lines = lines(&fields, around, &mut secrets);
    let mailbox = fields.optional("mailbox").and_then(|node| mailbox(&node, around, &mut secrets));
    match service_type {
        Some(ServiceType::Internet) if fields.optional("device").is_none() && fields.optional("radius").is_none() => {
            node.fault("an internet service needs a `device` or `radius`");
        }
        Some(ServiceType::Voice) => {
            if fields.optional("device").is_none() {
                fields.fault("device", "is required: a voice service needs a device with an MTA");
            }
            if fields.optional("lines").is_none_or(|lines| lines.value.as_array().is_some_and(Vec::is_empty)) {
                fields.fault("lines", "is required: a voice service has at least one line");
            }
        }
        Some(ServiceType::Email) if fields.optional("mailbox").is_none() => {
            fields.fault("mailbox", "is required: an email service is a mailbox");
        }
        _ => {}
    }
    let billing_from = fields.optional("billing_from").and_then(|node| node.date());
    let billing_until = fields.optional("billing_until").and_then(|node| node.date());
    in_order(&fields, "billing_until", billing_from, billing_until);
    let scheduled = scheduled(node, &fields, around.known);
    let max_cpe = fields.optional("max_cpe").and_then(|node| node.integer(1..=254)).and_then(|n| u8::try_from(n).ok());
    let service = Service {
        static_ips: static_ips(&fields, around),
        service_address: fields.optional("service_address").and_then(|node| address(&node)),
        network_from: fields.optional("network_from").and_then(|node| node.checked(moment)),
        tax_jurisdiction: fields.text("tax_jurisdiction", text::SHORT),
        price_override: fields.optional("price_override").and_then(|node| price_override(&node)),
        addons: addons(&fields, service_type, around.known),
        promos: promos(&fields),
        attributes: fields.optional("attributes").and_then(|node| attributes(&node)),
        id: id?,
        service_type: service_type?,
        plan: plan?,
        status,
        device,
        max_cpe,
        radius,
        lines,
        mailbox,
        billing_from,
        billing_until,
        scheduled,
    };
    let secrets = secrets.of(&service.id);
    Some(ParsedService { service, secrets })
}

/// Secrets met on the way, before the service's id is certain.
#[derive(Default)]
struct Secrets(Vec<(String, Option<crate::vocabulary::Secret>)>);

impl Secrets {
    fn take(&mut self, fields: &Fields, field: impl FnOnce() -> String) {
        match fields.presence("password") {
            Presence::Absent => {}
            Presence::Null => self.0.push((field(), None)),
            Presence::Given(node) => {
                if let Some(secret) = node.secret() {
                    self.0.push((field(), Some(secret)));
                }
            }
        }
    }

    fn of(self, service: &str) -> Vec<SecretChange> {
        let change = |(field, value)| SecretChange { service: service.to_owned(), field, value };
        self.0.into_iter().map(change).collect()
    }
}

fn plan(node: &Node, service_type: Option<ServiceType>, known: &Known, addon: bool) -> Option<String> {
    let id = node.text(text::SHORT)?;
    match (known.plans.get(&id).map(|plan| plan.service), service_type) {
        (None, _) => node.fault(format!("{id:?} is no plan of the catalog")),
        (Some(None), _) if !addon => node.fault(format!("plan {id:?} is an add-on and no service of its own")),
        (Some(Some(of)), Some(wanted)) if of != wanted => {
            node.fault(format!("plan {id:?} is for {of} services, this one is {wanted}"));
        }
        _ => {}
    }
    Some(id)
}

fn refuse_foreign_fields(fields: &Fields, service_type: ServiceType) {
    let foreign: &[&[&str]] = match service_type {
        ServiceType::Internet => &[&VOICE, &EMAIL],
        ServiceType::Voice => &[&INTERNET, &EMAIL],
        ServiceType::Email => &[&INTERNET, &VOICE, &["device"]],
    };
    for key in foreign.iter().copied().flatten() {
        // An empty list says nothing, and many sources write every field.
        let empty = |node: &Node| node.value.as_array().is_some_and(Vec::is_empty);
        if fields.optional(key).is_some_and(|node| !empty(&node)) {
            fields.fault(key, format!("does not belong to a service of type {service_type}"));
        }
    }
}

fn device(fields: &Fields, of: Option<ServiceType>, living: bool, around: &mut Surroundings) -> Option<String> {
    let node = fields.optional("device")?;
    let id = node.text(text::NAME)?;
    match around.devices.get(&id) {
        None => node.fault(format!("device {id:?} is not in `devices`")),
        Some(false) if of == Some(ServiceType::Voice) => node.fault(format!("device {id:?} has no `mta_mac`")),
        _ => {}
    }
    if living && of == Some(ServiceType::Internet) && !around.carried.insert(id.clone()) {
        node.fault(format!("device {id:?} already carries an internet service"));
    }
    Some(id)
}

fn radius(node: &Node, around: &mut Surroundings, secrets: &mut Secrets) -> Option<Radius> {
    let fields = node.fields(&["username", "password", "framed_ip", "ipv6_delegated"])?;
    secrets.take(&fields, || RADIUS_PASSWORD.to_owned());
    let username = fields.required("username").and_then(|node| {
        let username = node.text(text::SECRET_MAX)?;
        around.claim(&node, "RADIUS username", &username);
        Some(username)
    });
    let framed_ip = fields.optional("framed_ip").and_then(|node| {
        let address = node.checked(text::ipv4)?;
        around.claim(&node, "address", &address.to_string());
        Some(address)
    });
    let ipv6_delegated = fields.optional("ipv6_delegated").and_then(|node| {
        let prefix = node.checked(text::ipv6_prefix)?;
        around.claim(&node, "prefix", &prefix);
        Some(prefix)
    });
    Some(Radius { username: username?, framed_ip, ipv6_delegated })
}

fn static_ips(fields: &Fields, around: &mut Surroundings) -> Vec<IpAddr> {
    let address = |text: &str| match text.contains(':') {
        true => text::ipv6(text).map(IpAddr::V6),
        false => text::ipv4(text).map(IpAddr::V4),
    };
    let mut addresses = Vec::new();
    for node in fields.list("static_ips", STATIC_IPS_MAX) {
        if let Some(found) = node.checked(address) {
            around.claim(&node, "address", &found.to_string());
            addresses.push(found);
        }
    }
    addresses
}

fn lines(fields: &Fields, around: &mut Surroundings, secrets: &mut Secrets) -> Vec<VoiceLine> {
    let mut ports = BTreeSet::new();
    let mut lines = Vec::new();
    for node in fields.list("lines", LINES_MAX) {
        let Some(fields) = node.fields(&["port", "number", "enabled", "sip"]) else { continue };
        let port = fields.required("port").and_then(|node| {
            let port = u8::try_from(node.integer(1..=PORT_MAX)?).ok()?;
            if !ports.insert(port) {
                node.fault(format!("port {port} is used twice"));
            }
            Some(port)
        });
        let number = fields.required("number").and_then(|node| {
            let number = node.checked(text::phone)?;
            around.claim(&node, "number", &number);
            Some(number)
        });
        let enabled = fields.flag("enabled", true);
        let sip = fields.optional("sip").and_then(|node| {
            let fields = node.fields(&["user", "password", "display_name"])?;
            if let Some(port) = port {
                secrets.take(&fields, || sip_password(port));
            }
            let display_name = fields.text("display_name", text::NAME);
            let user = fields.required("user").and_then(|node| node.text(text::NAME));
            Some(Sip { user: user?, display_name })
        });
        if let (Some(port), Some(number)) = (port, number) {
            lines.push(VoiceLine { port, number, enabled, sip });
        }
    }
    lines
}

fn mailbox(node: &Node, around: &mut Surroundings, secrets: &mut Secrets) -> Option<Mailbox> {
    let fields = node.fields(&["address", "password", "quota_mb", "aliases", "forward_to", "keep_copy"])?;
    secrets.take(&fields, || MAILBOX_PASSWORD.to_owned());
    let ours = |node: Node, around: &mut Surroundings| {
        let address = node.checked(text::mailbox)?;
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        if !around.known.mail_domains.contains(domain) {
            node.fault(format!("{domain:?} is not one of the tenant's mail_domains"));
        }
        around.claim(&node, "mail address", &address);
        Some(address)
    };
    let address = fields.required("address").and_then(|node| ours(node, around));
    let quota_mb = fields.optional("quota_mb").and_then(|node| node.integer(1..=QUOTA_MB_MAX));
    let mut aliases = Vec::new();
    for node in fields.list("aliases", ALIASES_MAX) {
        aliases.extend(ours(node, around));
    }
    let forward_to: Vec<String> =
        fields.list("forward_to", FORWARDS_MAX).iter().filter_map(|node| node.checked(text::email)).collect();
    let quota_mb = quota_mb.and_then(|mb| u32::try_from(mb).ok());
    let keep_copy = fields.flag("keep_copy", true);
    if !keep_copy && forward_to.is_empty() {
        fields.fault("keep_copy", "without `forward_to` the mail would be nowhere");
    }
    Some(Mailbox { address: address?, quota_mb, aliases, forward_to, keep_copy })
}

fn moment(text: &str) -> Result<Moment, String> {
    match text.len() {
        10 => text::date(text).map(Moment::Day),
        _ => text::instant(text).map(Moment::Instant),
    }
}

fn price_override(node: &Node) -> Option<PriceOverride> {
    if node.value.is_string() {
        let amount = node.checked(text::decimal)?;
        return Some(PriceOverride { charge: None, amount, from: None, until: None });
    }
    let fields = node.fields(&["charge", "amount", "from", "until"])?;
    let amount = fields.required("amount").and_then(|node| node.checked(text::decimal));
    let charge = fields.optional("charge").and_then(|node| node.checked(text::word));
    let (from, until) = from_until(&fields);
    Some(PriceOverride { charge, amount: amount?, from, until })
}

fn addons(fields: &Fields, service_type: Option<ServiceType>, known: &Known) -> Vec<Addon> {
    let mut ids = BTreeSet::new();
    let mut addons = Vec::new();
    for node in fields.list("addons", ADDONS_MAX) {
        let Some(fields) = node.fields(&["id", "plan", "quantity", "from", "until"]) else { continue };
        let id = fields.required("id").and_then(|node| node.text(text::NAME));
        if let Some(id) = &id
            && !ids.insert(id.clone())
        {
            fields.fault("id", format!("add-on {id:?} is listed twice"));
        }
        let plan = fields.required("plan").and_then(|node| plan(&node, service_type, known, true));
        let quantity = fields.optional("quantity").map_or(Some(1), |node| node.integer(1..=QUANTITY_MAX));
        let (from, until) = from_until(&fields);
        if let (Some(id), Some(plan), Some(quantity)) = (id, plan, quantity.and_then(|n| u32::try_from(n).ok())) {
            addons.push(Addon { id, plan, quantity, from, until });
        }
    }
    addons
}

fn promos(fields: &Fields) -> Vec<Promo> {
    let mut promos = Vec::new();
    for node in fields.list("promos", PROMOS_MAX) {
        let Some(fields) = node.fields(&["code", "from", "until"]) else { continue };
        let code = fields.required("code").and_then(|node| node.text(text::SHORT));
        let (from, until) = from_until(&fields);
        promos.extend(code.map(|code| Promo { code, from, until }));
    }
    promos
}

/// What is kept besides, readable: it must hold no secret.
fn attributes(node: &Node) -> Option<Value> {
    let members = node.value.as_object();
    match members {
        None => node.fault("must be an object"),
        Some(_) if node.value.to_string().len() > ATTRIBUTES_MAX => {
            node.fault(format!("is longer than {ATTRIBUTES_MAX} octets"));
        }
        Some(_) if names_password(node.value) => {
            node.fault("must not hold a password: it is kept readable");
        }
        Some(members) if !members.is_empty() => return Some(sorted(node.value)),
        Some(_) => {}
    }
    None
}

fn names_password(value: &Value) -> bool {
    let is_password = |text: &str| text.to_lowercase().contains("password");
    match value {
        Value::Object(members) => members.iter().any(|(key, value)| {
            is_password(key) || (key == "name" && value.as_str().is_some_and(is_password)) || names_password(value)
        }),
        Value::Array(items) => items.iter().any(names_password),
        _ => false,
    }
}

/// With the members of every object in their order, so that equal contents are equal texts.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<&String, Value> = members.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(members.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

fn from_until(fields: &Fields) -> (Option<Date>, Option<Date>) {
    let from = fields.optional("from").and_then(|node| node.date());
    let until = fields.optional("until").and_then(|node| node.date());
    in_order(fields, "until", from, until);
    (from, until)
}

fn in_order(fields: &Fields, key: &str, from: Option<Date>, until: Option<Date>) {
    if let (Some(from), Some(until)) = (from, until)
        && until < from
    {
        fields.fault(key, format!("{until} is before the first day {from}"));
    }
}

/// Checks each waiting change by applying it to the service and looking whether the result would be accepted.
fn scheduled(node: &Node, fields: &Fields, known: &Known) -> Vec<Scheduled> {
    let mut changes = Vec::new();
    for change in fields.list("scheduled", SCHEDULED_MAX) {
        // `due` stands in answers; it is worked out here.
        let Some(fields) = change.fields(&["at", "set", "due"]) else { continue };
        let at = fields.required("at").and_then(|node| {
            node.checked(|text| match text {
                "next_cycle" => Ok(ScheduledAt::Word(NextCycle::NextCycle)),
                _ => moment(text)
                    .map(ScheduledAt::Moment)
                    .map_err(|_| "must be \"next_cycle\", a date or an instant".to_owned()),
            })
        });
        let set = fields.required("set").and_then(|set| checked_set(node, &set, known));
        if let (Some(at), Some(set)) = (at, set) {
            changes.push(Scheduled { at, set, due: None });
        }
    }
    changes
}

/// What may change by itself. The rest is unique in the installation, or secret: whether it is free shows only when it is
/// pushed.
const BY_SCHEDULE: [&str; 11] = [
    "plan",
    "status",
    "max_cpe",
    "service_address",
    "network_from",
    "billing_from",
    "billing_until",
    "tax_jurisdiction",
    "price_override",
    "addons",
    "promos",
];

fn checked_set(service_node: &Node, set: &Node, known: &Known) -> Option<Value> {
    let map = set.value.as_object();
    let Some(map) = map.filter(|map| !map.is_empty()) else {
        set.fault("must be an object with at least one field of the service");
        return None;
    };
    if holds_password(set.value) {
        set.fault("must not hold a password: a scheduled change is kept readable");
        return None;
    }
    let refused: Vec<&String> = map.keys().filter(|key| !BY_SCHEDULE.contains(&key.as_str())).collect();
    for key in &refused {
        set.sink.add(super::json::step(&set.pointer, key), "cannot be changed by schedule");
    }
    if !refused.is_empty() {
        return None;
    }
    let mut base = service_node.value.clone();
    if let Some(base) = base.as_object_mut() {
        base.shift_remove("scheduled");
    }
    let (before, _) = alone(&base, known);
    let (after, parsed) = alone(&merge(&base, set.value), known);
    for fault in after {
        if !before.contains(&fault) {
            set.sink.add(format!("{}{}", set.pointer, fault.pointer), fault.detail);
        }
    }
    // Kept as the service would have it, so that laying it over the service later needs no parser.
    let parsed = serde_json::to_value(parsed?).ok()?;
    let kept = |key: &String| (key.clone(), parsed.get(key).cloned().unwrap_or(Value::Null));
    Some(Value::Object(map.keys().map(kept).collect()))
}

fn holds_password(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| key == "password" || holds_password(value)),
        Value::Array(items) => items.iter().any(holds_password),
        _ => false,
    }
}

/// A service taken by itself, and its faults; its device is trusted, since a schedule cannot change it.
fn alone(service_value: &Value, known: &Known) -> (Vec<crate::vocabulary::Fault>, Option<Service>) {
    let sink = Sink::default();
    let device = service_value.get("device").and_then(Value::as_str).map(str::to_owned);
    let mut around = Surroundings::new(known, &[], device.into_iter().collect());
    let parsed = service(&Node::root(service_value, &sink), &mut around).map(|parsed| parsed.service);
    (sink.into_faults(), parsed)
}
