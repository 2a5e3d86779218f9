//! What must hold for any octets whatever, by parser; shared by the fuzzer and by the tests that replay its corpus.
//!
//! A judge returns when all is well and panics otherwise.

use jiff::Timestamp;
use lastmile::dhcp::client::{ClientMessage, ServerReply};
use lastmile::dhcp::{
    About, Access, Asker, Change, Context, Facts, Network, NetworkKind, Options, Outcome, Request, Site, Subscriber,
    Table, decide,
};
use lastmile::docsis::{self, VarBind};
use lastmile::mediation::{self as sources, RECORD_MAX, apply, shipped_names};
use lastmile::radius::{
    Dictionary, IdentityRule, NasRule, PacketView, Profile, Source, answer, attribute, decode, parse_detail, record,
    redacted, verify,
};
use lastmile::store::journal::{entries_of_unsealed, unsealed_page};
use lastmile::tftp::{Outcome as Sent, Refusal, Transfer, parse_request};
use lastmile::vocabulary::Secret;

/// RADIUS: packet view, walk over the attributes, verification, decoding by dictionary, interpretation, answer.
pub fn packet(octets: &[u8]) {
    let Ok(view) = PacketView::parse(octets) else { return };
    assert!(view.octets().len() >= 20 && view.octets().len() <= octets.len());
    assert!(octets.starts_with(view.octets()), "a view shows what came");
    // RFC 2865 section 5: the attributes fill the packet, one after another.
    let mut at = 20;
    for found in view.attributes() {
        assert_eq!(found.offset, at + 2, "attributes follow one another");
        assert_eq!(&view.octets()[found.offset..found.offset + found.value.len()], found.value);
        assert!(found.value.len() <= 253);
        assert_eq!(view.octets()[at], found.kind);
        at = found.offset + found.value.len();
    }
    assert_eq!(at, view.octets().len(), "the walk ends with the packet");
    let kept = redacted(&view);
    assert_eq!(kept.len(), view.octets().len(), "blanking a password moves nothing");
    let again = PacketView::parse(&kept).expect("a kept packet is a packet");
    assert_eq!(again.attributes().count(), view.attributes().count());
    let secret = Secret::new("testing123");
    if verify(&view, &[&secret]).is_ok() {
        let mut forged = view.octets().to_vec();
        forged[4] ^= 1;
        let forged = PacketView::parse(&forged).expect("as long as before");
        assert!(verify(&forged, &[&secret]).is_err(), "another authenticator is a forgery");
    }
    let answered = answer(&view, &secret);
    let answered = PacketView::parse(&answered).expect("an answer is a packet");
    assert_eq!((answered.code(), answered.identifier()), (5, view.identifier()));
    assert!(answered.all(attribute::PROXY_STATE).eq(view.all(attribute::PROXY_STATE)), "Proxy-State in order");
    for decoded in decode(&view, dictionary_of_all()) {
        // Whatever it is, it can be shown.
        assert!(format!("{decoded:?}").len() > 1);
    }
    for profile in ["default", "mikrotik", "juniper", "huawei", "cisco"] {
        let profile = Profile::named(profile).expect("a shipped profile");
        let rule = NasRule { name: "fuzz", identity: IdentityRule::Client, profile: &profile };
        let arrived_at = Timestamp::from_second(1_800_000_000).expect("an instant");
        let read = record(&view, &rule, arrived_at);
        assert_eq!(read, record(&view, &rule, arrived_at), "the same octets mean the same");
    }
}

/// Dictionaries in FreeRADIUS syntax: every fault is named with its line, and what was good can be looked up.
pub fn dictionary(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let mut dictionary = Dictionary::standard();
    let before = dictionary.len();
    let read = dictionary.extend(&[Source { file: "fuzz", text: &text }], &|_| None);
    if let Err(faults) = read {
        assert!(!faults.is_empty());
        for fault in faults {
            assert!(fault.pointer.starts_with("fuzz"), "{fault:?} names its place");
        }
    }
    assert!(dictionary.len() >= before || before > 0);
    assert!(dictionary.attribute(attribute::USER_NAME).is_some(), "the standard is not lost");
    // A second reading finds the same.
    let found = dictionary.len();
    let _ = dictionary.extend(&[Source { file: "fuzz", text: &text }], &|_| None);
    assert_eq!(dictionary.len(), found);
}

/// FreeRADIUS detail files: records and faults with their lines, whatever stands there.
pub fn detail(octets: &[u8]) {
    let lines = octets.split(|octet| *octet == b'\n').count() as u64;
    for found in parse_detail(octets) {
        let line = match found {
            Ok(record) => record.line,
            Err(fault) => {
                assert!(!fault.detail.is_empty(), "a fault says what it is");
                fault.line
            }
        };
        assert!(line >= 1 && line <= lines, "line {line} of {lines}");
    }
}

/// Pages of the journal: refused, or entries that make the same page again.
pub fn page(octets: &[u8]) {
    if let Some(entries) = entries_of_unsealed(octets)
        && !entries.is_empty()
    {
        assert_eq!(entries_of_unsealed(&unsealed_page(&entries)), Some(entries));
    }
}

/// Configuration files of modems and MTAs: what is shown makes the same octets again, with the shared secret and without.
pub fn config_file(octets: &[u8]) {
    for secret in [None, Some(&b"example-secret-1"[..])] {
        let Ok(shown) = docsis::decode(octets, secret) else { return };
        let again = docsis::encode(&shown.toml, secret).expect("what was shown can be written");
        assert_eq!(again.bytes, octets, "the same octets again");
    }
    // Judged, whatever they are.
    let _ = docsis::verify(octets, &Secret::new("example-secret-1"));
    let _ = docsis::verify_mta(octets, None);
    assert_eq!(docsis::effective_digest(octets).len(), 64);
}

/// SNMP objects in BER: refused, or written as they were read; their OIDs are read from their own text.
pub fn ber(octets: &[u8]) {
    let Ok(bind) = VarBind::parse(octets) else { return };
    assert_eq!(bind.encode(), octets, "the same octets again");
    assert_eq!(bind.oid.to_string().parse(), Ok(bind.oid.clone()));
    assert_eq!(VarBind::new(bind.oid.clone(), bind.value.clone()), bind);
}

/// DHCP: a message of a client is read or refused; what is answered carries the relay's information back and an address of
/// the networks served, and the same message again is answered alike.
pub fn dhcp(octets: &[u8]) {
    // An answer is never mistaken for a question, nor the other way round.
    if let Some(reply) = ServerReply::parse(octets) {
        assert!(Request::parse(octets).is_err(), "{reply:?}");
    }
    let Ok(request) = Request::parse(octets) else { return };
    let about = About::of(&request);
    for text in [&about.class, &about.vendor, &about.model, &about.serial, &about.software] {
        assert!(text.len() <= 64 && text.chars().all(|letter| (' '..='~').contains(&letter)), "{text:?} can be shown");
    }
    let network = |kind, subnet: &str, pool: &str| Network {
        kind,
        subnet: subnet.parse().expect("a network"),
        pools: vec![pool.parse().expect("a pool")],
        routers: Vec::new(),
        name_servers: Vec::new(),
        domain: Some("isp.example".to_owned()),
        lease_seconds: 3600,
        kea_subnet_id: None,
    };
    let site = Site {
        cmts: "cmts1".into(),
        networks: vec![
            network(NetworkKind::Cm, "10.0.0.0/24", "10.0.0.2-10.0.0.4"),
            network(NetworkKind::Mta, "10.0.1.0/24", "10.0.1.2-10.0.1.4"),
            network(NetworkKind::Cpe, "10.0.2.0/24", "10.0.2.2-10.0.2.4"),
        ],
    };
    let subscriber = Subscriber {
        access: Access::Open,
        voice: true,
        mta: Some(request.mac),
        static_addresses: Vec::new(),
        most_cpes: 2,
    };
    let options = Options { unknown_lease_seconds: 300, garden_lease_seconds: 300, ..Options::default() };
    let mut table = Table::default();
    for (turn, known) in [true, true, false].into_iter().enumerate() {
        let asker = Asker::of(&request, &table);
        let facts = Facts {
            subscriber: known.then_some(&subscriber),
            boot_file: Some("1-001122334455-0123456789.cm"),
            realm: Some("BASIC.1"),
            reserved: &|_| false,
        };
        let context = Context {
            now: Timestamp::from_second(1_800_000_000 + turn as i64).expect("an instant"),
            local: [192, 0, 2, 1].into(),
            source: (request.client, 68).into(),
            options: &options,
            site: Some(&site),
        };
        match decide(&mut table, &request, asker, &facts, &context) {
            Outcome::Answer(answer) => {
                let reply = ServerReply::parse(&answer.octets).expect("an answer is an answer");
                assert_eq!(reply.option(82), request.relay_information.as_deref(), "option 82 as it came");
                assert_eq!(reply.mac, request.mac.octets());
                assert!(answer.octets.len() >= 300);
                let served = site.networks.iter().any(|network| network.subnet.is_host(reply.address));
                assert!(reply.address.is_unspecified() || served, "{} is served nowhere", reply.address);
                if let Change::Bound(lease) = answer.change {
                    assert!(table.confirm(&lease), "who is decided to have it has it");
                }
            }
            Outcome::Ended(lease) => assert_eq!(lease.mac, request.mac),
            Outcome::Silent(_) => {}
        }
    }
    // What a relay would send of it is read as the same.
    let again = ClientMessage {
        seconds: request.seconds,
        client: request.client,
        relay: request.relay,
        requested: request.requested,
        server: request.server,
        class: request.class.to_vec(),
        vendor: request.vendor.to_vec(),
        parameters: request.parameters.to_vec(),
        relay_information: request.relay_information.as_deref().unwrap_or_default().to_vec(),
        ..ClientMessage::new(request.kind, request.mac, u32::from_be_bytes(request.xid))
    }
    .encode();
    let again = Request::parse(&again).expect("a message");
    assert_eq!(
        (again.kind, again.mac, &again.class, &again.vendor),
        (request.kind, request.mac, &request.class, &request.vendor)
    );
    assert_eq!(
        (again.client, again.relay, again.requested, again.server),
        (request.client, request.relay, request.requested, request.server)
    );
}

/// TFTP: a request is read or refused, and whatever the client then sends, the transfer ends and never sends more than its
/// window at once. The first octets, up to the first of value 255, are the request; what follows are its datagrams.
pub fn tftp(octets: &[u8]) {
    let mut pieces = octets.split(|octet| *octet == 255);
    let request = match parse_request(pieces.next().unwrap_or_default()) {
        Ok(request) => request,
        Err(refusal) => {
            if let Refusal::Answer(..) = refusal {
                let datagram = refusal.datagram().expect("an answer has octets");
                assert_eq!(&datagram[..2], &[0, 5]);
            }
            return;
        }
    };
    assert!(!request.name.contains("..") && !request.name.contains('\\') && request.name.len() <= 255);
    let file: std::sync::Arc<[u8]> = vec![7u8; 3000].into();
    let window = usize::from(request.options.window_blocks.unwrap_or(1).max(1));
    let (mut machine, mut step) = Transfer::start(&request, file, std::time::Duration::ZERO);
    let mut now = std::time::Duration::ZERO;
    let mut datagrams = pieces;
    for _ in 0..4000 {
        assert!(step.send.len() <= window, "{} datagrams in a window of {window}", step.send.len());
        let Sent::Waiting { wake_at } = step.outcome else { return };
        step = match datagrams.next() {
            Some(datagram) => machine.on_datagram(datagram, now),
            None => {
                now = wake_at.max(now);
                machine.on_timer(now)
            }
        };
    }
    panic!("a transfer that nobody answers does not end");
}

/// The standard dictionary and those of vendors that the product ships.
fn dictionary_of_all() -> &'static Dictionary {
    static DICTIONARY: std::sync::OnceLock<Dictionary> = std::sync::OnceLock::new();
    DICTIONARY.get_or_init(Dictionary::standard)
}

/// Foreign records: the first octet chooses a shipped profile, the others are what came. Every record is told once,
/// the same octets mean the same however they arrive, and what came of them can be applied and shown.
pub fn source(octets: &[u8]) {
    static PROFILES: std::sync::OnceLock<Vec<sources::Profile>> = std::sync::OnceLock::new();
    let profiles = PROFILES.get_or_init(|| shipped_names().filter_map(sources::Profile::named).collect());
    let Some((choice, input)) = octets.split_first() else { return };
    let profile = &profiles[usize::from(*choice) % profiles.len()];
    let mut changes = profile.changes(input).with_inventory();
    let outcomes: Vec<sources::Outcome> = changes.by_ref().collect();
    let summary = changes.summary();
    assert_eq!(summary.records, outcomes.len() as u64);
    assert_eq!(summary.records, summary.changes + summary.ignored + summary.quarantined);
    let slow = std::io::BufReader::with_capacity(1, input);
    assert!(profile.changes(slow).eq(outcomes.iter().cloned()), "the same octets mean the same");
    for outcome in &outcomes {
        assert!(outcome.raw.len() <= RECORD_MAX);
        match &outcome.result {
            Ok(Some(change)) => {
                assert!(change.account.is_some() || !change.aliases.is_empty(), "a change tells whose it is");
                assert!(!change.shown(true).to_string().is_empty());
                if let Ok(Some(document)) = apply(change, None) {
                    assert!(document.is_object());
                    assert!(apply(change, Some(&document)).is_ok(), "a change can come again");
                }
            }
            Ok(None) => {}
            Err(refusal) => assert!(!refusal.faults.is_empty(), "a refusal has a reason"),
        }
    }
}

/// A source profile's own file: a profile, or faults with their places.
pub fn source_profile(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    if let Err(faults) = sources::Profile::read("fuzz", &text) {
        assert!(!faults.is_empty());
        assert!(faults.iter().all(|fault| fault.pointer.starts_with("fuzz")), "{faults:?}");
    }
}
