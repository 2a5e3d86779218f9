//! What holds for any octets and any order of messages.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::client::{ClientMessage, ServerReply};
use super::message::MessageType::{Decline, Discover, Release, Request as Ask};
use super::tests::{Desk, cm, cpe, subscriber};
use super::*;

proptest! {
    #[test]
    fn any_octets_are_read_or_refused(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Request::parse(&octets).map(|request| (About::of(&request), request.relayed()));
        let _ = ServerReply::parse(&octets);
    }

    #[test]
    fn any_options_are_read_or_refused(options in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut octets = cm(1).encode();
        octets.truncate(HEADER);
        octets.extend([53, 1, 1]);
        octets.extend(options);
        if let Ok(request) = Request::parse(&octets) {
            let mut desk = Desk::new();
            let asker = Asker::of(&request, &desk.table);
            let facts = Facts { subscriber: None, boot_file: None, realm: None, reserved: &|_| false };
            let site = desk.site.clone();
            let context = Context {
                now: desk.now,
                local: Ipv4Addr::new(192, 0, 2, 5),
                source: ([10, 10, 0, 1], 67).into(),
                options: &desk.options,
                site: Some(&site),
            };
            if let Outcome::Answer(answer) = decide(&mut desk.table, &request, asker, &facts, &context) {
                let reply = ServerReply::parse(&answer.octets).expect("an answer");
                prop_assert_eq!(reply.option(82), request.relay_information.as_deref());
            }
        }
    }

    /// Whatever devices do, an address is acknowledged to one of them at a time.
    #[test]
    fn no_two_devices_have_one_address(
        steps in proptest::collection::vec((0u8..8, 0u8..8, 0u8..4, 0i64..900), 1..120)
    ) {
        let mut desk = Desk::new();
        // Until when each address was acknowledged, and to whom.
        let mut held: HashMap<Ipv4Addr, (u8, Timestamp)> = HashMap::new();
        let mut last: HashMap<u8, (Ipv4Addr, Option<Ipv4Addr>)> = HashMap::new();
        for (device, action, access, pause) in steps {
            desk.pass(pause);
            let access = [Access::Open, Access::Garden, Access::VoiceOnly, Access::Blocked][usize::from(access)];
            desk.subscriber = Some(subscriber(access));
            let who = if device < 4 { cm(device + 1) } else { cpe(device + 50) };
            let (known, server) = last.get(&device).copied().unwrap_or((Ipv4Addr::new(10, 10, 1, 11), None));
            let message = match action {
                0..=2 => ClientMessage { kind: Discover, ..who },
                3..=4 => ClientMessage { kind: Ask, requested: Some(known), server, ..who },
                5 => ClientMessage { kind: Ask, client: known, ..who },
                6 => ClientMessage { kind: Release, client: known, ..who },
                _ => ClientMessage { kind: Decline, requested: Some(known), ..who },
            };
            match desk.send(&message) {
                Outcome::Answer(answer) => {
                    if let Change::Bound(lease) = &answer.change {
                        prop_assert!(desk.table.confirm(lease));
                    }
                    let reply = ServerReply::parse(&answer.octets).expect("an answer");
                    if reply.kind != 6 {
                        last.insert(device, (reply.address, reply.server()));
                    }
                    if reply.kind == 5 {
                        if let Some((other, until)) = held.get(&reply.address) {
                            prop_assert!(*other == device || *until <= desk.now, "{} is of {other}", reply.address);
                        }
                        let seconds = reply.lease_seconds().expect("a lease");
                        held.insert(reply.address, (device, super::table::later(desk.now, seconds)));
                    }
                }
                Outcome::Ended(lease) => {
                    held.remove(&lease.address);
                }
                Outcome::Silent(_) => {}
            }
        }
        // One row an address, and every index leads to it.
        for lease in desk.table.all() {
            prop_assert_eq!(desk.table.of(lease.mac).filter(|other| other.address == lease.address).count(), 1);
        }
    }
}

use crate::vocabulary::Timestamp;
