//! Which NAS can be asked, where, and what a request to one says: from the configuration and a session to attributes.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::provision::SessionMeans;
use crate::radius::{
    Dictionary, DynamicKind, DynamicRequest, IdentityRule, Kind, Printed, Unencodable, attribute, encode,
    shipped_dictionary,
};
use crate::store::nas_control::{Action, DueOrder};
use crate::vocabulary::Secret;

/// `coa` of one configured client.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The client's name.
    pub client: String,
    /// How its NAS are told apart in the accounting; so they are named in a request.
    pub identity: IdentityRule,
    /// `None`: each NAS at its own NAS-IP-Address, which is its identity.
    pub address: Option<IpAddr>,
    pub port: u16,
    pub secret: Secret,
    /// What can change while a session goes on; empty: sessions are ended instead.
    pub attributes: Vec<String>,
    /// The NAS's own address, where the client is one NAS.
    pub nas_address: Option<IpAddr>,
    /// Whether the NAS knows the session by the user name we hold; not where its profile cuts the name.
    pub names_user: bool,
    /// Sessions a second.
    pub per_second: u32,
    /// How long an answer is waited for, retransmissions included.
    pub patience: Duration,
}

/// All clients with a `coa`, and the names of their attributes.
#[derive(Debug, Default)]
pub struct Targets {
    by_client: HashMap<String, Arc<Target>>,
    dictionary: Dictionary,
}

/// Why an order cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    #[error("its identity {0} is no address to send to")]
    NoAddress(String),
    #[error("{0}")]
    Attribute(#[from] Unencodable),
}

impl Targets {
    pub fn new(targets: Vec<Target>, dictionary: Dictionary) -> Self {
        let by_client = targets.into_iter().map(|target| (target.client.clone(), Arc::new(target))).collect();
        Self { by_client, dictionary }
    }

    /// The target of a client.
    pub fn named(&self, client: &str) -> Option<&Arc<Target>> {
        self.by_client.get(client)
    }

    /// The target of a NAS's identity: its name is the client's, or `client/inner`.
    pub fn of_identity(&self, identity: &str) -> Option<&Arc<Target>> {
        self.named(identity).or_else(|| self.named(identity.split_once('/')?.0))
    }

    pub fn clients(&self) -> impl Iterator<Item = &str> {
        self.by_client.keys().map(String::as_str)
    }

    /// What is sent for an order, and where.
    ///
    /// **Errors**: [`Unsendable`]; trying again is of no use until the configuration changes.
    pub fn request(&self, target: &Target, order: &DueOrder) -> Result<(SocketAddr, DynamicRequest), Unsendable> {
        let inner = order.nas.strip_prefix(&target.client).and_then(|rest| rest.strip_prefix('/'));
        let own_address = inner.and_then(|inner| inner.parse::<IpAddr>().ok());
        let address = target.address.or(own_address).ok_or_else(|| Unsendable::NoAddress(order.nas.clone()))?;
        let mut attributes = Vec::new();
        let mut text = |kind, value: &str| attributes.push((kind, value.as_bytes().to_vec()));
        if let Some(user) = order.user_name.as_deref().filter(|_| target.names_user) {
            text(attribute::USER_NAME, user);
        }
        text(attribute::ACCT_SESSION_ID, &order.session);
        match (target.identity, inner) {
            (IdentityRule::NasIdentifier, Some(identifier)) => text(attribute::NAS_IDENTIFIER, identifier),
            (IdentityRule::NasIp, _) => attributes.extend(own_address.map(nas_address)),
            _ => attributes.extend(target.nas_address.map(nas_address)),
        }
        if let Some(Ok(IpAddr::V4(address))) = order.framed_ip.as_deref().map(str::parse) {
            attributes.push((attribute::FRAMED_IP_ADDRESS, address.octets().to_vec()));
        }
        let kind = match order.action {
            Action::Disconnect => DynamicKind::Disconnect,
            Action::Coa => {
                attributes.extend(self.encoded(&order.attributes)?);
                DynamicKind::Coa
            }
        };
        Ok((SocketAddr::new(address, target.port), DynamicRequest { kind, attributes }))
    }

    fn encoded(&self, values: &BTreeMap<String, Vec<String>>) -> Result<Vec<(u8, Vec<u8>)>, Unencodable> {
        let mut attributes = Vec::new();
        for (name, values) in values {
            for value in values {
                let by = |dictionary| encode(dictionary, name, &printed(dictionary, name, value), None);
                let encoded = match by(&self.dictionary) {
                    Err(Unencodable::Unknown(_)) => by(shipped_dictionary()),
                    other => other,
                };
                attributes.extend(encoded?.0);
            }
        }
        Ok(attributes)
    }
}

impl Target {
    pub fn means(&self) -> SessionMeans<'_> {
        if self.attributes.is_empty() {
            SessionMeans::Disconnect
        } else {
            SessionMeans::Coa { attributes: &self.attributes }
        }
    }
}

/// RFC 2865 section 5.4, RFC 3162 section 2.1.
fn nas_address(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (attribute::NAS_IP_ADDRESS, address.octets().to_vec()),
        IpAddr::V6(address) => (attribute::NAS_IPV6_ADDRESS, address.octets().to_vec()),
    }
}

/// A value of the tables as FreeRADIUS takes it: hex only where the attribute holds octets.
fn printed(dictionary: &Dictionary, name: &str, value: &str) -> Printed {
    let plain = name.rsplit_once(':').map_or(name, |(plain, _)| plain);
    match dictionary.named(plain).map(|(_, _, definition)| definition.kind) {
        Some(Kind::String) => Printed::Quoted(value.as_bytes().to_vec()),
        Some(Kind::Octets) if !value.starts_with("0x") => Printed::Quoted(value.as_bytes().to_vec()),
        _ => Printed::Bare(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(identity: IdentityRule) -> Target {
        Target {
            client: "bng".to_owned(),
            identity,
            address: Some("192.0.2.1".parse().expect("an address")),
            port: 3799,
            secret: Secret::new("s"),
            attributes: vec!["Filter-Id".to_owned()],
            nas_address: Some("192.0.2.9".parse().expect("an address")),
            names_user: true,
            per_second: 20,
            patience: Duration::from_secs(30),
        }
    }

    fn order(nas: &str, action: Action, attributes: &[(&str, &str)]) -> DueOrder {
        DueOrder {
            id: 1,
            request_id: 1,
            session_id: 1,
            client: "bng".to_owned(),
            action,
            attributes: attributes.iter().map(|(name, value)| ((*name).into(), vec![(*value).into()])).collect(),
            lane: 1,
            attempts: 0,
            nas: nas.to_owned(),
            session: "0a1b".to_owned(),
            user_name: Some("ada@acme".to_owned()),
            framed_ip: Some("10.0.0.7".to_owned()),
            calling_station: None,
            ended: false,
            instead_of: None,
        }
    }

    #[test]
    fn a_request_names_session_and_nas_as_the_accounting_did() {
        let targets = Targets::default();
        let session = [(1, &b"ada@acme"[..]), (44, b"0a1b")];
        for (identity, nas, own) in [
            (IdentityRule::Client, "bng", (4, &[192, 0, 2, 9][..])),
            (IdentityRule::NasIdentifier, "bng/edge-7", (32, b"edge-7")),
            (IdentityRule::NasIp, "bng/198.51.100.3", (4, &[198, 51, 100, 3])),
            (IdentityRule::NasIp, "bng/2001:db8::1", (95, &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])),
        ] {
            let (address, request) =
                targets.request(&target(identity), &order(nas, Action::Disconnect, &[])).expect("sendable");
            let expected: Vec<(u8, Vec<u8>)> = session
                .iter()
                .chain([&own, &(8, &[10, 0, 0, 7][..])])
                .map(|(kind, value)| (*kind, value.to_vec()))
                .collect();
            assert_eq!(request, DynamicRequest { kind: DynamicKind::Disconnect, attributes: expected }, "{nas}");
            assert_eq!(address.to_string(), "192.0.2.1:3799");
        }
    }

    #[test]
    fn a_nas_without_a_configured_address_is_asked_at_its_own() {
        let own = Target { address: None, names_user: false, nas_address: None, ..target(IdentityRule::NasIp) };
        let targets = Targets::default();
        let (address, request) =
            targets.request(&own, &order("bng/198.51.100.3", Action::Disconnect, &[])).expect("sendable");
        assert_eq!(address.to_string(), "198.51.100.3:3799");
        assert!(request.attributes.iter().all(|(kind, _)| *kind != 1), "its profile cuts user names");
        let nowhere = targets.request(&own, &order("bng", Action::Disconnect, &[]));
        assert_eq!(nowhere, Err(Unsendable::NoAddress("bng".to_owned())));
    }

    #[test]
    fn changed_attributes_follow_the_session_in_their_types() {
        let targets = Targets::new(vec![target(IdentityRule::Client)], Dictionary::standard());
        let values = [("Acct-Interim-Interval", "600"), ("Filter-Id", "0xfast"), ("Session-Timeout", "3600")];
        let (_, request) = targets
            .request(targets.named("bng").expect("a target"), &order("bng", Action::Coa, &values))
            .expect("sendable");
        assert_eq!(request.kind, DynamicKind::Coa);
        let tail: Vec<(u8, &[u8])> = request.attributes.iter().skip(4).map(|(kind, v)| (*kind, v.as_slice())).collect();
        assert_eq!(tail[..2], [(85, &[0, 0, 2, 88][..]), (11, b"0xfast")]);
        let unknown = targets.request(&target(IdentityRule::Client), &order("bng", Action::Coa, &[("Nobodys", "1")]));
        assert!(matches!(unknown, Err(Unsendable::Attribute(_))));
    }

    #[test]
    fn identities_lead_to_their_client() {
        let targets = Targets::new(vec![target(IdentityRule::Client)], Dictionary::default());
        for (identity, found) in [("bng", true), ("bng/edge-7", true), ("bng2", false), ("other/bng", false)] {
            assert_eq!(targets.of_identity(identity).is_some(), found, "{identity}");
        }
    }
}
