//! Journeys of modems, MTAs and CPEs through the machine.

use super::client::{ClientMessage, ServerReply};
use super::message::MessageType::{Decline, Discover, Inform, Release, Request as Ask};
use super::*;
use crate::vocabulary::{MacAddress, Timestamp};
use std::net::{Ipv4Addr, SocketAddr};

const RELAY: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);

pub(super) fn mac(last: u8) -> MacAddress {
    MacAddress::from_octets([0, 0x10, 0x18, 0, 0, last]).expect("a device's address")
}

pub(super) fn network(kind: NetworkKind, third: u8) -> Network {
    Network {
        kind,
        subnet: format!("10.10.{third}.0/24").parse().expect("a network"),
        pools: vec![format!("10.10.{third}.10-10.10.{third}.12").parse().expect("a pool")],
        routers: vec![Ipv4Addr::new(10, 10, third, 1)],
        name_servers: vec![Ipv4Addr::new(192, 0, 2, 53)],
        domain: None,
        lease_seconds: 3600,
        kea_subnet_id: None,
    }
}

pub(super) fn subscriber(access: Access) -> Subscriber {
    Subscriber { access, voice: true, mta: Some(mac(101)), static_addresses: Vec::new(), most_cpes: 2 }
}

/// A server with modem 1 of an account, its MTA 101, and whatever stands behind it.
pub(super) struct Desk {
    pub table: Table,
    pub site: Site,
    pub options: Options,
    pub subscriber: Option<Subscriber>,
    pub now: Timestamp,
}

impl Desk {
    pub fn new() -> Self {
        let kinds = [(NetworkKind::Cm, 1), (NetworkKind::Mta, 2), (NetworkKind::Cpe, 3)];
        Self {
            table: Table::default(),
            site: Site {
                cmts: "cmts1".into(),
                networks: kinds.into_iter().map(|(kind, third)| network(kind, third)).collect(),
            },
            options: Options {
                time_servers: vec![SERVER],
                time_offset: Some(-3600),
                unknown_lease_seconds: 300,
                garden_lease_seconds: 120,
                ..Options::default()
            },
            subscriber: Some(subscriber(Access::Open)),
            now: Timestamp::from_second(1_800_000_000).expect("an instant"),
        }
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now = self.now.checked_add(jiff::SignedDuration::from_secs(seconds)).expect("an instant");
    }

    pub fn send(&mut self, message: &ClientMessage) -> Outcome {
        let source = if message.relay.is_unspecified() { message.client } else { message.relay };
        self.send_from(message, SocketAddr::from((source, 68)))
    }

    pub fn send_from(&mut self, message: &ClientMessage, source: SocketAddr) -> Outcome {
        let octets = message.encode();
        let request = Request::parse(&octets).expect("a message");
        let asker = Asker::of(&request, &self.table);
        let known = asker.modem == Some(mac(1));
        let reserved = |address: Ipv4Addr| address == Ipv4Addr::new(10, 10, 3, 11);
        let none = |_: Ipv4Addr| false;
        let facts = Facts {
            subscriber: self.subscriber.as_ref().filter(|_| known),
            boot_file: Some(if known { "12-001018000001-0123456789.cm" } else { "unprovisioned.cm" }),
            realm: (asker.kind == ClientKind::Mta).then_some("BASIC.1"),
            reserved: if self.options.log_servers.is_empty() { &none } else { &reserved },
        };
        let context = Context { now: self.now, local: SERVER, source, options: &self.options, site: Some(&self.site) };
        decide(&mut self.table, &request, asker, &facts, &context)
    }

    /// The answer and the change it waits for, which is confirmed at once.
    pub fn answer(&mut self, message: &ClientMessage) -> ServerReply {
        match self.send(message) {
            Outcome::Answer(answer) => {
                if let Change::Bound(lease) = &answer.change {
                    assert!(self.table.confirm(lease));
                }
                ServerReply::parse(&answer.octets).expect("an answer")
            }
            other => panic!("no answer to {message:?}: {other:?}"),
        }
    }

    pub fn silence(&mut self, message: &ClientMessage) -> Silence {
        match self.send(message) {
            Outcome::Silent(silence) => silence,
            other => panic!("an answer to {message:?}: {other:?}"),
        }
    }

    /// DISCOVER, OFFER, REQUEST, ACK.
    pub fn boot(&mut self, from: &ClientMessage) -> ServerReply {
        let offer = self.answer(&ClientMessage { kind: Discover, ..from.clone() });
        assert_eq!(offer.kind, 2);
        let ask = ClientMessage { kind: Ask, requested: Some(offer.address), server: offer.server(), ..from.clone() };
        let ack = self.answer(&ask);
        assert_eq!((ack.kind, ack.address), (5, offer.address));
        ack
    }
}

pub(super) fn cm(last: u8) -> ClientMessage {
    let class = b"docsis3.1:052401".to_vec();
    ClientMessage { class, ..ClientMessage::new(Discover, mac(last), 7).behind(RELAY, mac(last)) }
}

fn mta() -> ClientMessage {
    ClientMessage { class: b"pktc1.5:0501".to_vec(), ..ClientMessage::new(Discover, mac(101), 8).behind(RELAY, mac(1)) }
}

pub(super) fn cpe(last: u8) -> ClientMessage {
    ClientMessage::new(Discover, mac(last), 9).behind(RELAY, mac(1))
}

#[test]
fn a_modem_gets_its_file_servers_and_option_82_back() {
    let mut desk = Desk::new();
    let ask = ClientMessage { parameters: vec![1, 3, 66, 67], ..cm(1) };
    let ack = desk.boot(&ask);
    assert_eq!((ack.address, ack.next_server, ack.relay), (Ipv4Addr::new(10, 10, 1, 10), SERVER, RELAY));
    assert_eq!(ack.file, "12-001018000001-0123456789.cm");
    assert_eq!(ack.option(82), Some(&ask.relay_information[..]));
    assert_eq!((ack.option(1), ack.option(3)), (Some(&[255, 255, 255, 0][..]), Some(&[10, 10, 1, 1][..])));
    assert_eq!((ack.option(2), ack.option(4)), (Some(&(-3600i32).to_be_bytes()[..]), Some(&SERVER.octets()[..])));
    assert_eq!((ack.lease_seconds(), ack.server()), (Some(3600), Some(SERVER)));
    assert_eq!(ack.option(66), Some(&b"192.0.2.5"[..]));
    assert_eq!(ack.option(67), Some(&b"12-001018000001-0123456789.cm"[..]));
    assert_eq!(ack.option(122), Some(&[1, 4, 192, 0, 2, 5][..]), "the MTA inside may ask here");
    assert_eq!(desk.boot(&cm(1)).option(66), None, "66 and 67 only for whom it asks");
}

#[test]
fn an_unknown_modem_gets_a_short_lease_and_nobody_behind_it_anything() {
    let mut desk = Desk::new();
    let ack = desk.boot(&cm(2));
    assert_eq!((ack.file.as_str(), ack.lease_seconds()), ("unprovisioned.cm", Some(300)));
    assert_eq!(ack.option(122), Some(&[1, 4, 0, 0, 0, 0][..]), "its MTA stays silent");
    let behind = ClientMessage::new(Discover, mac(50), 1).behind(RELAY, mac(2));
    assert_eq!(desk.silence(&behind), Silence::UnknownModem);
    let nowhere = ClientMessage { relay: RELAY, ..ClientMessage::new(Discover, mac(50), 1) };
    assert_eq!(desk.silence(&nowhere), Silence::UnknownModem);
}

#[test]
fn the_telephone_works_where_the_account_has_one_and_behind_its_own_modem() {
    let mut desk = Desk::new();
    let ack = desk.boot(&mta());
    assert_eq!(ack.address, Ipv4Addr::new(10, 10, 2, 10));
    assert_eq!(ack.option(122), Some(&b"\x06\x09\x05BASIC\x011\x00"[..]));
    let elsewhere = ClientMessage { ..mta().behind(RELAY, mac(2)) };
    assert_eq!(desk.silence(&elsewhere), Silence::UnknownModem);
    for (access, voice, works) in [
        (Access::VoiceOnly, true, true),
        (Access::Garden, true, true),
        (Access::Blocked, true, false),
        (Access::Open, false, false),
    ] {
        desk.subscriber = Some(Subscriber { voice, ..subscriber(access) });
        assert_eq!(matches!(desk.send(&mta()), Outcome::Answer(_)), works, "{access:?} {voice}");
        let server = if works { SERVER } else { Ipv4Addr::UNSPECIFIED };
        assert_eq!(desk.boot(&cm(1)).option(122), Some(&[&[1, 4], &server.octets()[..]].concat()[..]), "{access:?}");
    }
}

#[test]
fn holds_decide_what_cpes_get() {
    let mut desk = Desk::new();
    let ack = desk.boot(&cpe(50));
    assert_eq!((ack.address, ack.lease_seconds()), (Ipv4Addr::new(10, 10, 3, 10), Some(3600)));
    assert_eq!((ack.file.as_str(), ack.next_server, ack.option(122)), ("", Ipv4Addr::UNSPECIFIED, None));
    let renew = ClientMessage { kind: Ask, client: ack.address, ..cpe(50) };
    desk.subscriber = Some(subscriber(Access::Garden));
    assert_eq!(desk.answer(&renew).lease_seconds(), Some(120));
    desk.subscriber = Some(subscriber(Access::Blocked));
    assert_eq!(desk.answer(&renew).kind, 6, "who may not any more asks anew");
    assert_eq!(desk.silence(&cpe(50)), Silence::NoService);
    desk.subscriber = Some(subscriber(Access::Garden));
    desk.site.networks.push(network(NetworkKind::Garden, 4));
    assert_eq!(desk.answer(&renew).kind, 6, "the garden has a network of its own");
    assert_eq!(desk.boot(&cpe(50)).address.octets()[2], 4);
}

#[test]
fn a_static_address_is_its_accounts_alone() {
    let mut desk = Desk::new();
    let dynamic = desk.boot(&cpe(50)).address;
    let fixed = Ipv4Addr::new(10, 10, 3, 200);
    desk.subscriber = Some(Subscriber { static_addresses: vec![fixed], ..subscriber(Access::Open) });
    let renew = ClientMessage { kind: Ask, client: dynamic, ..cpe(50) };
    assert_eq!(desk.answer(&renew).kind, 6);
    assert_eq!(desk.boot(&cpe(50)).address, fixed);
    assert_ne!(desk.boot(&cpe(51)).address, fixed, "a second device gets one of the pool");
    // 10.10.3.11 is of another account.
    desk.options.log_servers = vec![SERVER];
    desk.subscriber = Some(subscriber(Access::Open));
    let wish = ClientMessage { requested: Some(Ipv4Addr::new(10, 10, 3, 11)), ..cpe(52) };
    assert_ne!(desk.answer(&wish).address, Ipv4Addr::new(10, 10, 3, 11));
}

#[test]
fn a_device_that_only_says_it_is_a_modem_is_none() {
    let mut desk = Desk::new();
    let pretender = ClientMessage { class: b"docsis3.1:".to_vec(), ..cpe(50) };
    let ack = desk.boot(&pretender);
    assert_eq!((ack.address, ack.file.as_str()), (Ipv4Addr::new(10, 10, 3, 10), ""));
}

#[test]
fn only_what_a_known_relay_sends_is_answered_and_who_renews_what_it_has() {
    let mut desk = Desk::new();
    let address = desk.boot(&cm(1)).address;
    let local = ClientMessage { relay: Ipv4Addr::UNSPECIFIED, ..cm(1) };
    assert_eq!(desk.silence(&local), Silence::NotRelayed);
    let renew = ClientMessage { kind: Ask, client: address, ..local.clone() };
    assert_eq!(desk.answer(&renew).kind, 5);
    let forged = desk.send_from(&renew, SocketAddr::from((Ipv4Addr::new(10, 10, 3, 66), 68)));
    assert_eq!(forged, Outcome::Silent(Silence::NotRelayed));
    let stranger = ClientMessage { mac: mac(66), ..renew };
    assert_eq!(desk.answer(&stranger).kind, 6, "it is not its address");
    assert_eq!(desk.table.at(address).map(|lease| (lease.mac, lease.relay)), Some((mac(1), RELAY)));
}

#[test]
fn an_address_is_taken_over_only_when_its_lease_has_ended() {
    let mut desk = Desk::new();
    let all: Vec<Ipv4Addr> = (1..=3).map(|last| desk.boot(&cm(last)).address).collect();
    assert_eq!(desk.silence(&cm(4)), Silence::Full);
    // 2 and 3 are unknown: their leases are short.
    desk.pass(301);
    assert!(all[1..].contains(&desk.boot(&cm(4)).address));
    let back = ClientMessage { kind: Ask, client: all[0], ..cm(1) };
    assert_eq!(desk.answer(&back).kind, 5);
    desk.pass(10 * 24 * 3600);
    assert_eq!(desk.boot(&cm(1)).address, all[0], "who comes back after long gets what it had");
}

#[test]
fn a_repeated_request_is_not_acknowledged_before_the_first_is_on_the_disk() {
    let mut desk = Desk::new();
    let offer = desk.answer(&cm(1));
    let ask = ClientMessage { kind: Ask, requested: Some(offer.address), server: offer.server(), ..cm(1) };
    let change = |outcome: Outcome| match outcome {
        Outcome::Answer(answer) => answer.change,
        other => panic!("{other:?}"),
    };
    let Change::Bound(first) = change(desk.send(&ask)) else { panic!("it waits for the disk") };
    desk.pass(1);
    let Change::Bound(again) = change(desk.send(&ask)) else { panic!("it waits as well") };
    assert_eq!(first.since, again.since);
    assert!(desk.table.confirm(&first));
    assert!(matches!(change(desk.send(&ask)), Change::Renewed(lease) if lease.since == first.since));
}

#[test]
fn released_declined_and_refused_addresses_are_free_rest_and_stay() {
    let mut desk = Desk::new();
    let address = desk.boot(&cpe(50)).address;
    let release = ClientMessage { kind: Release, client: address, ..cpe(50) };
    assert!(matches!(desk.send(&release), Outcome::Ended(lease) if lease.state == LeaseState::Released));
    assert_eq!(desk.silence(&release), Silence::Nothing, "once");
    assert_eq!(desk.boot(&cpe(50)).address, address);
    let decline = ClientMessage { kind: Decline, requested: Some(address), ..cpe(50) };
    assert!(matches!(desk.send(&decline), Outcome::Ended(_)));
    assert_ne!(desk.boot(&cpe(50)).address, address);
    // Another server was chosen: the offer is free at once.
    let offer = desk.answer(&cpe(51));
    let other = ClientMessage { kind: Ask, requested: Some(offer.address), server: Some(RELAY), ..cpe(51) };
    assert_eq!(desk.silence(&other), Silence::OtherServer);
    assert!(desk.table.at(offer.address).is_none());
}

#[test]
fn one_modem_does_not_empty_the_pool() {
    let mut desk = Desk::new();
    desk.site.networks[2].pools = vec!["10.10.3.10-10.10.3.250".parse().expect("a pool")];
    for last in 50..54 {
        desk.boot(&cpe(last));
    }
    assert_eq!(desk.silence(&cpe(54)), Silence::TooMany);
    assert_eq!(desk.boot(&cpe(50)).kind, 5, "who has one keeps it");
    desk.pass(3601);
    assert_eq!(desk.boot(&cpe(54)).kind, 5);
}

#[test]
fn inform_tells_everything_but_an_address() {
    let mut desk = Desk::new();
    let address = desk.boot(&cpe(50)).address;
    let inform = ClientMessage { kind: Inform, client: address, ..cpe(50) };
    let Outcome::Answer(answer) = desk.send(&inform) else { panic!("an answer") };
    assert_eq!((*answer.to.ip(), answer.to.port()), (address, 68));
    let ack = ServerReply::parse(&answer.octets).expect("an answer");
    assert_eq!((ack.kind, ack.address, ack.lease_seconds()), (5, Ipv4Addr::UNSPECIFIED, None));
    assert_eq!(ack.option(6), Some(&[192, 0, 2, 53][..]));
}

#[test]
fn answers_go_to_the_relay_and_to_its_own_port_where_it_says_so() {
    let mut desk = Desk::new();
    let to = |outcome: Outcome| match outcome {
        Outcome::Answer(answer) => answer.to.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(to(desk.send_from(&cm(1), SocketAddr::from((RELAY, 9999)))), "10.10.0.1:67");
    let mut own = cm(1);
    own.relay_information.extend([19, 0]);
    assert_eq!(to(desk.send_from(&own, SocketAddr::from((RELAY, 9999)))), "10.10.0.1:9999");
}

#[test]
fn what_a_restart_restores_is_kept_for_as_long_as_it_may_have_been_renewed() {
    let mut desk = Desk::new();
    let address = desk.boot(&cm(1)).address;
    let stored = desk.table.at(address).cloned().expect("a lease");
    desk.pass(30 * 24 * 3600);
    desk.table = Table::default();
    desk.table.restore(stored, desk.now);
    assert!(desk.table.at(address).is_some_and(|lease| lease.is_held(desk.now)));
    let renew = ClientMessage { kind: Ask, client: address, ..cm(1) };
    assert_eq!(desk.answer(&renew).kind, 5);
    let after: Vec<Ipv4Addr> = [2, 3].into_iter().map(|last| desk.boot(&cm(last)).address).collect();
    assert!(!after.contains(&address));
}

#[test]
fn an_offer_of_a_moved_modem_fits_the_new_place() {
    let mut desk = Desk::new();
    desk.boot(&cm(1));
    desk.site = Site { cmts: "cmts2".into(), networks: vec![network(NetworkKind::Cm, 9)] };
    let moved = cm(1).behind(Ipv4Addr::new(10, 10, 9, 1), mac(1));
    assert_eq!(desk.boot(&moved).address, Ipv4Addr::new(10, 10, 9, 10));
    let old = ClientMessage { kind: Ask, requested: Some(Ipv4Addr::new(10, 10, 1, 10)), ..moved };
    assert_eq!(desk.answer(&old).kind, 6);
}

#[test]
fn options_in_pieces_and_in_other_fields_are_read() {
    let mut octets = ClientMessage { class: vec![b'x'; 300], ..cm(1) }.encode();
    let request = Request::parse(&octets).expect("a message");
    assert_eq!(request.class.len(), 300);
    let end = octets.len() - 1;
    octets.truncate(end);
    octets.extend([52, 1, 1, 255]);
    octets[108..116].copy_from_slice(&[50, 4, 10, 0, 0, 9, 255, 0]);
    let request = Request::parse(&octets).expect("a message");
    assert_eq!(request.requested, Some(Ipv4Addr::new(10, 0, 0, 9)));
    octets.truncate(octets.len() - 2);
    assert_eq!(Request::parse(&octets), Err(Malformed::Truncated));
    assert_eq!(Request::parse(&octets[..200]), Err(Malformed::Short));
}

#[test]
fn a_device_tells_what_it_is() {
    let vendor =
        [&[2, 3][..], b"ECM", &[4, 4], b"S-01", &[6, 3], b"1.2", &[9, 6], b"TM\x00402", &[10, 4], b"Acme"].concat();
    let octets = ClientMessage { vendor, ..cm(1) }.encode();
    let about = About::of(&Request::parse(&octets).expect("a message"));
    let told = (about.class.as_str(), about.vendor.as_str(), about.model.as_str(), about.serial.as_str());
    assert_eq!(told, ("docsis3.1", "Acme", "TM402", "S-01"));
    assert_eq!(about.software, "1.2");
}

#[test]
fn networks_and_pools_are_read() {
    let subnet: Subnet = "10.10.0.0/22".parse().expect("a network");
    assert_eq!((subnet.mask().to_string(), subnet.to_string()), ("255.255.252.0".into(), "10.10.0.0/22".into()));
    assert!(!subnet.is_host("10.10.3.255".parse().expect("an address")));
    assert!(subnet.is_host("10.10.2.255".parse().expect("an address")));
    assert!(subnet.overlaps("10.10.2.0/24".parse().expect("a network")));
    assert!(!subnet.overlaps("10.10.4.0/24".parse().expect("a network")));
    assert!("2001:db8::/32".parse::<Subnet>().is_err() && "10.0.0.1/8".parse::<Subnet>().is_err());
    assert!("10.0.0.9-10.0.0.1".parse::<Pool>().is_err() && "10.0.0.9".parse::<Pool>().is_err());
}
