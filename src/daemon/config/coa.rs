//! Reads `coa` of a `[[radius.nas]]`: where and how its NAS are told about live sessions (RFC 5176).

use std::net::IpAddr;

use super::Coa;
use super::reader::{Found, Section};
use super::sections::Door;
use crate::radius::{Dictionary, IdentityRule, shipped_dictionary};
use crate::vocabulary::{Cidr, Secret};

/// What the client is besides its `coa`.
pub(super) struct Around<'a> {
    pub network: Option<Cidr>,
    pub secret: Option<&'a Secret>,
    pub identity: IdentityRule,
    /// To know attributes by; `None`: names are not looked at.
    pub dictionary: Option<&'a Dictionary>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Coa,
    Disconnect,
    None,
}

impl Door<'_, '_> {
    /// Inner `None`: sessions of this client are left alone. Outer `None`: given and unusable.
    pub(super) fn coa(&self, client: &Section<'_, '_>, around: &Around<'_>) -> Option<Option<Coa>> {
        let Some(section) = client.table("coa") else { return Some(None) };
        let mode = section.word("mode", &[("coa", Mode::Coa), ("disconnect", Mode::Disconnect), ("none", Mode::None)]);
        let given = section.string("address");
        let address = given.as_ref().map(|found| section.parse::<IpAddr>(found).map(|found| found.value));
        let port = section.number("port", 1).map(|port| (u16::try_from(port), port));
        let secret = self.secret(&section, "secret", "secret_file");
        let listed = section.strings("attributes");
        let per_second = section.number("per_second", 1);
        let timeout_seconds = section.number("timeout_seconds", 1);
        if mode == Some(Mode::None) {
            section.close();
            return Some(None);
        }
        let attributes = self.changeable(listed.as_deref().unwrap_or_default(), around.dictionary);
        match (mode, &listed) {
            (Some(Mode::Coa), None) => section.fault(
                "mode coa needs attributes: the reply attributes that can change while a session goes on; for all others \
                 the session is ended",
            ),
            (Some(Mode::Disconnect), Some(_)) => {
                section.fault("attributes are for mode coa; with mode disconnect every change ends the session");
            }
            _ => {}
        }
        let host = around.network.filter(|network| network.is_host()).map(|network| network.address());
        let address = match address {
            Some(None) => None,
            Some(Some(address)) => Some(Some(address)),
            None if around.identity == IdentityRule::NasIp => Some(None),
            None if host.is_some() => Some(host),
            None => {
                section.fault(
                    "address is required: the client is a network or known by its certificate, and only with identity \
                     nas-ip each NAS names its own address",
                );
                None
            }
        };
        let port = match port {
            None => Some(DEFAULT_PORT),
            Some((Ok(port), _)) => Some(port),
            Some((Err(_), port)) => {
                section.fault(format!("port {port} does not exist; ports end at 65535"));
                None
            }
        };
        let secret = match secret {
            None => None,
            Some(Some(secret)) => Some(secret),
            Some(None) => match around.secret {
                Some(secret) => Some(secret.clone()),
                None => {
                    section.fault("secret or secret_file is required: this client has no secret of its own for UDP");
                    None
                }
            },
        };
        section.close();
        Some(Some(Coa {
            address: address?,
            port: port?,
            secret: secret?,
            attributes: attributes?,
            per_second: per_second.unwrap_or(DEFAULT_PER_SECOND),
            timeout_seconds: timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS),
            host,
        }))
    }

    fn changeable(&self, listed: &[Found<&str>], dictionary: Option<&Dictionary>) -> Option<Vec<String>> {
        let mut usable = true;
        for found in listed {
            let plain = found.value.rsplit_once(':').map_or(found.value, |(plain, _)| plain);
            if IDENTIFYING.iter().any(|name| name.eq_ignore_ascii_case(plain)) {
                let detail = format!("{plain} tells the NAS which session is meant and cannot be changed");
                self.reader.fault(found.at, &found.key, detail);
                usable = false;
            } else if dictionary
                .is_some_and(|loaded| ![loaded, shipped_dictionary()].iter().any(|known| known.named(plain).is_some()))
            {
                let detail = format!("no dictionary knows the attribute {plain}; add one to [radius] dictionaries");
                self.reader.fault(found.at, &found.key, detail);
                usable = false;
            }
        }
        usable.then(|| listed.iter().map(|found| found.value.to_owned()).collect())
    }
}

/// Attributes that identify session and NAS in a request. RFC 5176 section 3.
const IDENTIFYING: [&str; 15] = [
    "User-Name",
    "NAS-Port",
    "NAS-IP-Address",
    "NAS-IPv6-Address",
    "NAS-Identifier",
    "NAS-Port-Id",
    "Framed-IP-Address",
    "Framed-Interface-Id",
    "Framed-IPv6-Prefix",
    "Called-Station-Id",
    "Calling-Station-Id",
    "Acct-Session-Id",
    "Acct-Multi-Session-Id",
    "Event-Timestamp",
    "Message-Authenticator",
];
/// RFC 5176 section 2.1.
const DEFAULT_PORT: u16 = 3799;
const DEFAULT_PER_SECOND: u32 = 20;
/// The whole time a request is sent again and waited for. RFC 5080 section 2.2.1: MRD.
const DEFAULT_TIMEOUT_SECONDS: u32 = 30;
