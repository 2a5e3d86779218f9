//! One message against the table: what is answered, and what must be written down before.
//!
//! | message | answered |
//! |---|---|
//! | DISCOVER | OFFER of the address the device has or had, else of a free one; silence for whom nothing is meant |
//! | REQUEST after an offer | ACK, or NAK when that address is not the device's any more |
//! | REQUEST for an address from before | ACK when it fits the relay and is free, else NAK |
//! | REQUEST that renews | ACK; NAK when account or network say otherwise since |
//! | INFORM | ACK without an address |
//! | RELEASE, DECLINE | nothing; the lease ends, a declined address rests |
//!
//! Who gets what: a modem always gets an address, an unknown one for a short time and with the file of the unknown. An MTA
//! only behind the modem of its account and while its account may telephone. A CPE only behind the modem of an account
//! that has internet; in the walled garden for a short time, so that the end of the hold is noticed. RFC 2131 section 4.3.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use super::ClientKind;
use super::message::{MessageType, Request};
use super::network::{Network, NetworkKind};
use super::reply::{Body, Options, ReplyKind, encode, realm_labels, sub};
use super::table::{Lease, LeaseState, Table, later};
use crate::vocabulary::{MacAddress, Timestamp};

/// A CMTS with the networks behind it.
#[derive(Debug, Clone)]
pub struct Site {
    pub cmts: Arc<str>,
    pub networks: Vec<Network>,
}

/// What the account of a modem allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    pub access: Access,
    /// It may telephone.
    pub voice: bool,
    pub mta: Option<MacAddress>,
    /// Addresses of its CPEs that nobody else gets.
    pub static_addresses: Vec<Ipv4Addr>,
    /// CPEs its modem lets through.
    pub most_cpes: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Open,
    Garden,
    /// No internet; the MTA works.
    VoiceOnly,
    Blocked,
}

/// What the installation knows about the device that asks.
pub struct Facts<'a> {
    /// The account of the modem that asks, or behind which the device is.
    pub subscriber: Option<&'a Subscriber>,
    /// File for a modem or MTA.
    pub boot_file: Option<&'a str>,
    /// 122.6: how the MTA is provisioned.
    pub realm: Option<&'a str>,
    /// Whether an address is the static address of another modem's account.
    pub reserved: &'a dyn Fn(Ipv4Addr) -> bool,
}

/// Where and when a message came.
pub struct Context<'a> {
    pub now: Timestamp,
    /// Our address that it was sent to; the server identifier.
    pub local: Ipv4Addr,
    pub source: SocketAddr,
    pub options: &'a Options,
    /// `None`: no CMTS relays with this address.
    pub site: Option<&'a Site>,
}

/// What comes of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Silent(Silence),
    Answer(Answer),
    /// A lease ended; nothing is answered.
    Ended(Lease),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub kind: ReplyKind,
    pub to: SocketAddrV4,
    pub octets: Vec<u8>,
    pub change: Change,
}

/// What an answer changes.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// Somebody has an address from now on: on the disk first, then the answer.
    Bound(Lease),
    /// The same as before for longer: it may be written later.
    Renewed(Lease),
}

/// Why nothing is answered. The word is a label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Neither through a relay nor a client that renews.
    NotRelayed,
    UnknownRelay,
    /// No network for this kind of device behind this CMTS.
    NoNetwork,
    /// Behind a modem of no account, or not behind a modem at all.
    UnknownModem,
    /// The account has no service for it.
    NoService,
    /// Behind this modem are as many as may be.
    TooMany,
    /// No free address.
    Full,
    OtherServer,
    /// Nothing that concerns us.
    Nothing,
}

impl Silence {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRelayed => "not_relayed",
            Self::UnknownRelay => "unknown_relay",
            Self::NoNetwork => "no_network",
            Self::UnknownModem => "unknown_modem",
            Self::NoService => "no_service",
            Self::TooMany => "too_many_cpes",
            Self::Full => "pool_full",
            Self::OtherServer => "other_server",
            Self::Nothing => "nothing",
        }
    }
}

/// Who asks, and behind which modem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    pub kind: ClientKind,
    /// The modem itself, or the one the device is behind.
    pub modem: Option<MacAddress>,
}

impl Asker {
    /// A device behind a modem cannot pass for a modem: the relay tells what is behind it.
    pub fn of(request: &Request<'_>, table: &Table) -> Self {
        let mac = request.mac;
        if request.relay.is_unspecified() {
            // It renews without the relay: what the relay told is in its lease.
            let lease = table.at(request.client).filter(|lease| lease.mac == mac);
            let kind = lease.map_or(ClientKind::Cpe, |lease| lease.kind);
            let modem = lease.and_then(|lease| lease.behind);
            return Self { kind, modem };
        }
        let told = request.relayed().modem;
        match ClientKind::of_class(&request.class) {
            ClientKind::Cm if told.is_none_or(|modem| modem == mac) => Self { kind: ClientKind::Cm, modem: Some(mac) },
            ClientKind::Cm => Self { kind: ClientKind::Cpe, modem: told },
            kind => Self { kind, modem: told },
        }
    }
}

/// What a device may have.
struct Terms<'a> {
    networks: Vec<&'a Network>,
    /// Instead of the network's own.
    lease_seconds: Option<u32>,
    static_addresses: &'a [Ipv4Addr],
    /// CPEs behind the modem, at most.
    most: Option<usize>,
}

/// An offer is kept this long for its client.
const OFFER_SECONDS: u32 = 60;
/// An address somebody found taken rests this long.
const DECLINED_SECONDS: u32 = 600;
/// A subscriber who changes the router still has the lease of the old one.
const LEASES_PER_CPE: usize = 2;
const LEAST_CPE_LEASES: usize = 4;

/// Decides one message.
pub fn decide(
    table: &mut Table,
    request: &Request<'_>,
    asker: Asker,
    facts: &Facts<'_>,
    context: &Context<'_>,
) -> Outcome {
    if request.relay.is_unspecified() && !renews_directly(request, context) {
        return Outcome::Silent(Silence::NotRelayed);
    }
    let Some(site) = context.site else { return Outcome::Silent(Silence::UnknownRelay) };
    let machine = Machine { request, asker, facts, context, site };
    match request.kind {
        MessageType::Discover => machine.discover(table),
        MessageType::Request => machine.request(table),
        MessageType::Inform => machine.inform(),
        MessageType::Release => machine.end(table, request.client, LeaseState::Released),
        MessageType::Decline => {
            let address = request.requested.unwrap_or(Ipv4Addr::UNSPECIFIED);
            machine.end(table, address, LeaseState::Declined)
        }
    }
}

/// RFC 2131 section 4.3.6: who renews, gives back or informs speaks to the server directly, from the address it has.
fn renews_directly(request: &Request<'_>, context: &Context<'_>) -> bool {
    let own = !request.client.is_unspecified() && context.source.ip() == IpAddr::from(request.client);
    let kind = match request.kind {
        MessageType::Request => request.server.is_none() && request.requested.is_none(),
        MessageType::Release | MessageType::Inform => true,
        MessageType::Discover | MessageType::Decline => false,
    };
    own && kind
}

struct Machine<'a> {
    request: &'a Request<'a>,
    asker: Asker,
    facts: &'a Facts<'a>,
    context: &'a Context<'a>,
    site: &'a Site,
}

impl<'a> Machine<'a> {
    fn discover(&self, table: &mut Table) -> Outcome {
        let terms = match self.terms() {
            Ok(terms) => terms,
            Err(silence) => return Outcome::Silent(silence),
        };
        let (address, network) = match self.choose(table, &terms, self.request.requested) {
            Ok(chosen) => chosen,
            Err(silence) => return Outcome::Silent(silence),
        };
        let now = self.context.now;
        let held = table.at(address).is_some_and(|lease| lease.mac == self.request.mac && lease.is_held(now));
        if !held {
            table.put(self.lease(address, LeaseState::Offered, now, OFFER_SECONDS));
        }
        let seconds = terms.lease_seconds.unwrap_or(network.lease_seconds);
        self.answer(ReplyKind::Offer, Some((address, network)), Some(seconds), Change::None)
    }

    fn request(&self, table: &mut Table) -> Outcome {
        let request = self.request;
        if request.server.is_some_and(|server| server != self.context.local) {
            table.withdraw_offers(request.mac);
            return Outcome::Silent(Silence::OtherServer);
        }
        let wanted = request.requested.unwrap_or(request.client);
        if wanted.is_unspecified() {
            return Outcome::Silent(Silence::Nothing);
        }
        // Who has an address that is not meant for it must ask anew.
        let Ok(terms) = self.terms() else { return self.refuse() };
        let Ok((address, network)) = self.choose(table, &terms, Some(wanted)) else { return self.refuse() };
        if address != wanted {
            return self.refuse();
        }
        let seconds = terms.lease_seconds.unwrap_or(network.lease_seconds);
        let now = self.context.now;
        let fresh = self.lease(address, LeaseState::Binding, now, seconds);
        let known = table.at(address).filter(|lease| self.continues(lease));
        let lease = match known {
            Some(lease) => Lease { since: lease.since, state: lease.state, relay: lease.relay, ..fresh },
            // It renews what has just ended; its relay is the one of before.
            None if request.relay.is_unspecified() => {
                let relay = table.at(address).map_or(request.relay, |lease| lease.relay);
                Lease { relay, ..fresh }
            }
            None => fresh,
        };
        let change = match lease.state {
            LeaseState::Bound => Change::Renewed(lease.clone()),
            // Not on the disk yet: this answer waits as the first one does.
            _ => Change::Bound(lease.clone()),
        };
        table.put(lease);
        self.answer(ReplyKind::Ack, Some((address, network)), Some(seconds), change)
    }

    fn inform(&self) -> Outcome {
        let network = self.site.networks.iter().find(|network| network.subnet.contains(self.request.client));
        let Some(network) = network.filter(|network| network.kind.device() == self.asker.kind) else {
            return Outcome::Silent(Silence::NoNetwork);
        };
        if self.terms().is_err() {
            return Outcome::Silent(Silence::NoService);
        }
        let octets = encode(self.request, ReplyKind::Ack, self.context.local, &self.body(None, Some(network), None));
        // RFC 2131 section 4.3.5: to the client itself.
        let to = SocketAddrV4::new(self.request.client, CLIENT_PORT);
        Outcome::Answer(Answer { kind: ReplyKind::Ack, to, octets, change: Change::None })
    }

    fn end(&self, table: &mut Table, address: Ipv4Addr, state: LeaseState) -> Outcome {
        let now = self.context.now;
        let Some(lease) = table.at(address).filter(|lease| lease.mac == self.request.mac && lease.is_live(now)) else {
            return Outcome::Silent(Silence::Nothing);
        };
        let was_held = lease.is_held(now);
        let ended = Lease { state, seen_at: now, expires_at: now, ..lease.clone() };
        let rest = if state == LeaseState::Declined { later(now, DECLINED_SECONDS) } else { now };
        table.put(Lease { expires_at: rest, ..ended.clone() });
        if was_held { Outcome::Ended(ended) } else { Outcome::Silent(Silence::Nothing) }
    }

    /// What the device may have, by kind and account.
    fn terms(&self) -> Result<Terms<'a>, Silence> {
        let of = |kind: NetworkKind| -> Vec<&'a Network> {
            self.site.networks.iter().filter(|network| network.kind == kind).collect()
        };
        let options = self.context.options;
        let plain = |networks| Terms { networks, lease_seconds: None, static_addresses: &[], most: None };
        let terms = match (self.asker.kind, self.facts.subscriber) {
            (ClientKind::Cm, Some(_)) => plain(of(NetworkKind::Cm)),
            (ClientKind::Cm, None) => {
                Terms { lease_seconds: Some(options.unknown_lease_seconds), ..plain(of(NetworkKind::Cm)) }
            }
            (_, None) => return Err(Silence::UnknownModem),
            (ClientKind::Mta, Some(subscriber)) => {
                let telephones = subscriber.voice && subscriber.access != Access::Blocked;
                if !telephones || subscriber.mta != Some(self.request.mac) {
                    return Err(Silence::NoService);
                }
                plain(of(NetworkKind::Mta))
            }
            (ClientKind::Cpe, Some(subscriber)) => {
                let (networks, lease_seconds) = match subscriber.access {
                    Access::Open => (of(NetworkKind::Cpe), None),
                    Access::Garden => {
                        let garden = of(NetworkKind::Garden);
                        let networks = if garden.is_empty() { of(NetworkKind::Cpe) } else { garden };
                        (networks, Some(options.garden_lease_seconds))
                    }
                    Access::VoiceOnly | Access::Blocked => return Err(Silence::NoService),
                };
                // An address in the garden is the garden's.
                let is_open = subscriber.access == Access::Open;
                let most = usize::from(subscriber.most_cpes) * LEASES_PER_CPE;
                Terms {
                    networks,
                    lease_seconds,
                    static_addresses: if is_open { &subscriber.static_addresses } else { &[] },
                    most: Some(most.max(LEAST_CPE_LEASES)),
                }
            }
        };
        if terms.networks.is_empty() { Err(Silence::NoNetwork) } else { Ok(terms) }
    }

    /// The address the device gets: its static one, the one it wants and may have, the one it had, a free one.
    fn choose(
        &self,
        table: &mut Table,
        terms: &Terms<'a>,
        wanted: Option<Ipv4Addr>,
    ) -> Result<(Ipv4Addr, &'a Network), Silence> {
        let (mac, now) = (self.request.mac, self.context.now);
        let network_of =
            |address: Ipv4Addr| terms.networks.iter().copied().find(|network| network.subnet.is_host(address));
        let mine = |table: &Table, address: Ipv4Addr| {
            table.at(address).is_some_and(|lease| lease.mac == mac && lease.state != LeaseState::Declined)
        };
        let statics = || terms.static_addresses.iter().copied();
        let own_static = statics().find(|address| mine(table, *address));
        let open_static = || statics().find(|address| table.is_free_for(*address, mac, now));
        if let Some(address) = own_static.or_else(open_static)
            && let Some(network) = network_of(address)
        {
            return Ok((address, network));
        }
        let pooled = |table: &Table, address: Ipv4Addr| {
            let network = network_of(address)?;
            let inside = network.pools.iter().any(|pool| pool.contains(address)) && !network.routers.contains(&address);
            let free = table.is_free_for(address, mac, now) && !(self.facts.reserved)(address);
            (inside && free).then_some((address, network))
        };
        let wanted = wanted.filter(|address| !address.is_unspecified());
        if let Some(found) = wanted.filter(|address| mine(table, *address)).and_then(|address| pooled(table, address)) {
            return Ok(found);
        }
        // The newest first: an older one may be of a place it has left.
        let mut own: Vec<(Timestamp, Ipv4Addr)> = table
            .of(mac)
            .filter(|lease| mine(table, lease.address))
            .map(|lease| (lease.seen_at, lease.address))
            .collect();
        own.sort_unstable_by(|a, b| b.cmp(a));
        let has_live = own.iter().any(|(_, address)| table.at(*address).is_some_and(|lease| lease.is_live(now)));
        if let Some(found) = own.iter().find_map(|(_, address)| pooled(table, *address)) {
            return Ok(found);
        }
        if let (Some(most), Some(modem)) = (terms.most, self.asker.modem)
            && !has_live
            && table.count_behind(modem, now) >= most
        {
            return Err(Silence::TooMany);
        }
        if let Some(found) = wanted.and_then(|address| pooled(table, address)) {
            return Ok(found);
        }
        let reserved = self.facts.reserved;
        let free = terms
            .networks
            .iter()
            .find_map(|network| table.free(network, mac, now, reserved).map(|address| (address, *network)));
        free.ok_or(Silence::Full)
    }

    /// Whether a lease goes on with this request: the same device at the same place, without a gap.
    fn continues(&self, lease: &Lease) -> bool {
        let place = self.request.relay.is_unspecified() || lease.relay == self.request.relay;
        lease.mac == self.request.mac
            && lease.is_held(self.context.now)
            && lease.behind == self.asker.modem
            && lease.cmts == self.site.cmts
            && place
    }

    fn lease(&self, address: Ipv4Addr, state: LeaseState, now: Timestamp, seconds: u32) -> Lease {
        Lease {
            address,
            mac: self.request.mac,
            kind: self.asker.kind,
            behind: self.asker.modem,
            relay: self.request.relay,
            cmts: self.site.cmts.clone(),
            since: now,
            seen_at: now,
            expires_at: later(now, seconds),
            lease_seconds: seconds,
            state,
        }
    }

    fn body(&self, address: Option<Ipv4Addr>, network: Option<&'a Network>, lease_seconds: Option<u32>) -> Body<'a> {
        let (options, local) = (self.context.options, self.context.local);
        let plain = Body { address, network, lease_seconds, ..Body::default() };
        match self.asker.kind {
            ClientKind::Cpe => plain,
            kind => Body {
                next_server: Some(options.tftp_server.unwrap_or(local)),
                boot_file: self.facts.boot_file,
                time_offset: options.time_offset,
                time_servers: &options.time_servers,
                log_servers: &options.log_servers,
                cablelabs: match kind {
                    ClientKind::Cm => self.for_modem(),
                    _ => self.for_mta(),
                },
                ..plain
            },
        }
    }

    /// 122.1 tells the MTA inside whose offers it may take; 0.0.0.0 keeps it silent. RFC 3495 section 4.1.
    fn for_modem(&self) -> Vec<u8> {
        let telephones = self.facts.subscriber.is_some_and(|subscriber| {
            subscriber.voice && subscriber.access != Access::Blocked && subscriber.mta.is_some()
        });
        let server = match telephones {
            true => self.context.options.voice_server.unwrap_or(self.context.local),
            false => Ipv4Addr::UNSPECIFIED,
        };
        let mut out = Vec::new();
        sub(&mut out, 1, &server.octets());
        out
    }

    fn for_mta(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(provisioning) = &self.context.options.mta_provisioning {
            sub(&mut out, 3, provisioning);
        }
        if let Some(realm) = self.facts.realm.and_then(realm_labels) {
            sub(&mut out, 6, &realm);
        }
        out
    }

    fn refuse(&self) -> Outcome {
        self.answer(ReplyKind::Nak, None, None, Change::None)
    }

    fn answer(
        &self,
        kind: ReplyKind,
        grant: Option<(Ipv4Addr, &'a Network)>,
        lease_seconds: Option<u32>,
        change: Change,
    ) -> Outcome {
        let body = self.body(grant.map(|grant| grant.0), grant.map(|grant| grant.1), lease_seconds);
        let octets = encode(self.request, kind, self.context.local, &body);
        let to = match self.request.relay {
            Ipv4Addr::UNSPECIFIED => SocketAddrV4::new(self.request.client, self.context.source.port()),
            relay if self.request.relayed().own_port => SocketAddrV4::new(relay, self.context.source.port()),
            relay => SocketAddrV4::new(relay, SERVER_PORT),
        };
        Outcome::Answer(Answer { kind, to, octets, change })
    }
}

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
