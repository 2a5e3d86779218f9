//! What the placeholders of operators' templates stand for, on a modem, on an MTA and on each of its lines.
//!
//! Comes in: an account's device, service or line. Goes out: the value of a name. A SIP password has none here: it is put
//! in when the file is built.

use crate::account::{Device, Service, Sip, VoiceLine};
use crate::docsis::{Filling, interface_of};
use crate::vocabulary::{MacAddress, hex};

/// Names that a modem's templates may use, each with a value of its kind.
pub const CM_PLACEHOLDERS: &[(&str, &str)] = &[
    ("mac", "00:11:22:33:44:55"),
    ("mac_plain", "001122334455"),
    ("mta_mac", "00:11:22:33:44:56"),
    ("model", "model"),
    ("serial", "A1"),
    ("device", "gw1"),
    ("account", "100234"),
    ("service", "100234-1"),
    ("plan", "res-100"),
    ("max_cpe", "2"),
    ("static_ip", "192.0.2.7"),
];

/// Names that an MTA's templates may use.
pub const MTA_PLACEHOLDERS: &[(&str, &str)] = &[
    ("mac", "00:11:22:33:44:56"),
    ("mac_plain", "001122334456"),
    ("cm_mac", "00:11:22:33:44:55"),
    ("model", "model"),
    ("serial", "A1"),
    ("device", "gw1"),
    ("account", "100234"),
];

/// Names that templates of a line may use besides those of its MTA.
pub const LINE_PLACEHOLDERS: &[(&str, &str)] = &[
    ("mac", "00:11:22:33:44:56"),
    ("mac_plain", "001122334456"),
    ("cm_mac", "00:11:22:33:44:55"),
    ("model", "model"),
    ("serial", "A1"),
    ("device", "gw1"),
    ("account", "100234"),
    ("service", "100234-2"),
    ("port", "1"),
    ("port0", "0"),
    ("line", "9"),
    ("number", "+15125550100"),
    ("number_plain", "15125550100"),
    ("enabled", "1"),
    ("display_name", "Ada"),
    ("sip_user", "u"),
    (SIP_PASSWORD, "password"),
    ("registrar", "sip.example"),
    ("proxy", "proxy.example"),
    ("sip_port", "5060"),
];

/// The one placeholder whose value is a secret.
pub const SIP_PASSWORD: &str = "sip_password";

/// The server of a SIP line, as its plan names it.
pub(super) struct SipServer<'a> {
    pub registrar: &'a str,
    pub proxy: Option<&'a str>,
    pub port: u16,
}

pub(super) fn of_modem(name: &str, account: &str, device: &Device, service: Option<&Service>, max_cpe: u8) -> Filling {
    match name {
        "mac" => text(device.cm_mac),
        "mac_plain" => text(plain(device.cm_mac)),
        "mta_mac" => maybe(device.mta_mac),
        "service" => maybe(service.map(|service| &service.id)),
        "plan" => maybe(service.map(|service| &service.plan)),
        "max_cpe" => text(max_cpe),
        "static_ip" => maybe(service.and_then(|service| service.static_ips.iter().min())),
        _ => of_device(name, account, device),
    }
}

pub(super) fn of_mta(name: &str, account: &str, device: &Device) -> Filling {
    match name {
        "mac" => maybe(device.mta_mac),
        "mac_plain" => maybe(device.mta_mac.map(plain)),
        "cm_mac" => text(device.cm_mac),
        _ => of_device(name, account, device),
    }
}

pub(super) fn of_line(
    name: &str,
    account: &str,
    device: &Device,
    (service, line, works): (&Service, &VoiceLine, bool),
    server: Option<&SipServer>,
) -> Filling {
    let sip = line.sip.as_ref();
    match name {
        "service" => text(&service.id),
        "port" => text(line.port),
        "port0" => text(line.port.saturating_sub(1)),
        "line" => text(interface_of(line.port)),
        "number" => text(&line.number),
        "number_plain" => text(line.number.trim_start_matches('+')),
        "enabled" => text(u8::from(works)),
        // A telephone shows the number where no name is known.
        "display_name" => text(sip.and_then(|sip: &Sip| sip.display_name.as_ref()).unwrap_or(&line.number)),
        "sip_user" => maybe(sip.map(|sip| &sip.user)),
        SIP_PASSWORD if sip.is_some() => Filling::Secret,
        SIP_PASSWORD => Filling::Absent,
        "registrar" => maybe(server.map(|server| server.registrar)),
        "proxy" => maybe(server.and_then(|server| server.proxy)),
        "sip_port" => maybe(server.map(|server| server.port)),
        _ => of_mta(name, account, device),
    }
}

fn of_device(name: &str, account: &str, device: &Device) -> Filling {
    match name {
        "model" => maybe(device.model.as_ref()),
        "serial" => maybe(device.serial.as_ref()),
        "device" => text(&device.id),
        "account" => text(account),
        _ => Filling::Unknown,
    }
}

fn plain(mac: MacAddress) -> String {
    hex(mac.octets())
}

fn text(value: impl ToString) -> Filling {
    Filling::Text(value.to_string())
}

fn maybe(value: Option<impl ToString>) -> Filling {
    value.map_or(Filling::Absent, text)
}
