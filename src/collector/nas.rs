//! Who may send accounting: the configured clients by network, longest prefix first, by certificate, and by name.

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;

use super::radsec::certificate::{CertificateName, Presented};
use crate::radius::{IdentityRule, NasRule, Profile};
use crate::vocabulary::{BitRate, Cidr, Secret, TenantId};

/// One configured RADIUS client.
#[derive(Debug, Clone)]
pub struct NasClient {
    /// Shared with every record of it.
    pub name: Arc<str>,
    /// Where it sends from, over UDP and, when it has certificates too, over RadSec. `None`: anywhere, by certificate.
    pub network: Option<Cidr>,
    /// For UDP; without one it may send over RadSec only.
    pub secret: Option<Secret>,
    /// Still accepted while the NAS is being moved to `secret`.
    pub previous_secret: Option<Secret>,
    /// What its certificate is recognized by; any of them. None: UDP only.
    pub certificates: Vec<CertificateName>,
    /// Over UDP an Accounting-Request without Message-Authenticator is dropped.
    pub message_authenticator: bool,
    pub profile: Arc<Profile>,
    pub identity: IdentityRule,
    /// What a port can carry: decides what a counter can have done.
    pub max_rate: BitRate,
    pub interim_seconds: u32,
    /// `None`: any tenant, then the realm decides.
    pub tenants: Option<Vec<TenantId>>,
}

impl NasClient {
    /// How its records are read.
    pub fn rule(&self) -> NasRule<'_> {
        NasRule { name: &self.name, identity: self.identity, profile: &self.profile }
    }

    /// The secrets to try, the current one first.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.secret.iter().chain(self.previous_secret.as_ref())
    }
}

/// All configured clients.
#[derive(Debug, Default)]
pub struct NasTable {
    clients: Vec<NasClient>,
    by_name: HashMap<Arc<str>, usize>,
    by_network: HashMap<Cidr, usize>,
    by_certificate: HashMap<CertificateName, usize>,
    /// The prefix lengths in use, longest first.
    prefixes: Vec<u8>,
}

impl NasTable {
    /// The table of these clients. Of two with one network or name the later counts; the configuration refuses both.
    pub fn new(clients: Vec<NasClient>) -> Self {
        let by_name = clients.iter().enumerate().map(|(index, client)| (Arc::clone(&client.name), index)).collect();
        let networks = || clients.iter().enumerate().filter_map(|(index, client)| Some((client.network?, index)));
        let by_network = networks().collect();
        let by_certificate = clients
            .iter()
            .enumerate()
            .flat_map(|(index, client)| client.certificates.iter().map(move |name| (name.clone(), index)))
            .collect();
        let mut prefixes: Vec<u8> = networks().map(|(network, _)| network.prefix()).collect();
        prefixes.sort_unstable_by(|left, right| right.cmp(left));
        prefixes.dedup();
        Self { clients, by_name, by_network, by_certificate, prefixes }
    }

    /// The client an address belongs to: the longest prefix wins.
    pub fn of(&self, address: IpAddr) -> Option<&NasClient> {
        self.index_of(address).map(|index| &self.clients[index])
    }

    pub(super) fn index_of(&self, address: IpAddr) -> Option<usize> {
        self.prefixes
            .iter()
            .filter_map(|&prefix| Cidr::around(address, prefix))
            .find_map(|network| self.by_network.get(&network).copied())
    }

    /// The client a certificate belongs to: by its fingerprint first, its common name last.
    pub fn of_certificate(&self, presented: &Presented) -> Option<&NasClient> {
        presented.names.iter().find_map(|name| self.by_certificate.get(name)).map(|&index| &self.clients[index])
    }

    /// The client of a name.
    pub fn named(&self, name: &str) -> Option<&NasClient> {
        self.by_name.get(name).map(|&index| &self.clients[index])
    }

    /// The client an identity belongs to: its name is the client's, or `client/inner` behind a proxy.
    pub fn of_identity(&self, identity: &str) -> Option<&NasClient> {
        let outer = || identity.split_once('/').and_then(|(client, _)| self.named(client));
        self.named(identity).or_else(outer)
    }

    pub fn clients(&self) -> &[NasClient] {
        &self.clients
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str, network: &str) -> NasClient {
        NasClient {
            name: name.into(),
            network: Some(network.parse().expect("a network")),
            secret: Some(Secret::new("s")),
            previous_secret: None,
            certificates: Vec::new(),
            message_authenticator: false,
            profile: Arc::clone(Profile::standard()),
            identity: IdentityRule::Client,
            max_rate: BitRate::from_bits_per_second(10_000_000_000),
            interim_seconds: 600,
            tenants: None,
        }
    }

    #[test]
    fn the_longest_prefix_wins() {
        let table = NasTable::new(vec![
            client("all", "0.0.0.0/0"),
            client("pool", "192.0.2.0/24"),
            client("one", "192.0.2.7"),
            client("six", "2001:db8::/32"),
        ]);
        for (address, name) in [
            ("192.0.2.7", Some("one")),
            ("192.0.2.8", Some("pool")),
            ("198.51.100.1", Some("all")),
            ("::ffff:192.0.2.7", Some("one")),
            ("2001:db8::1", Some("six")),
            ("2001:db9::1", None),
        ] {
            let found = table.of(address.parse().expect("an address")).map(|client| &*client.name);
            assert_eq!(found, name, "{address}");
        }
        assert!(table.named("pool").is_some() && table.named("nobody").is_none());
    }
}
