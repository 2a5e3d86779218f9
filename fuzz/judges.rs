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
use lastmile::mediation::{self as sources, Frame, RECORD_MAX, apply, shipped_names};
use lastmile::radius::{
    Dictionary, IdentityRule, NasRule, PacketView, Profile, Source, answer, attribute, decode, parse_detail, record,
    redacted, verify,
};
use lastmile::store::journal::{entries_of_unsealed, unsealed_page};
use lastmile::tftp::{Outcome as Sent, Refusal, Transfer, parse_request};
use lastmile::tmf::{Listing, Order, listens_to};
use lastmile::usage::{CallLine, CallProfile};
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

/// Messages on a connection: the first octet chooses the frame, the second how much comes at once. However they come they are
/// the same messages, and nothing is lost between them.
pub fn frame(octets: &[u8]) {
    let [choice, step, wire @ ..] = octets else { return };
    let frames = [Frame::End(b"</e>".to_vec()), Frame::End(b";".to_vec()), Frame::Length(1), Frame::Length(4)];
    let frame = &frames[usize::from(*choice) % frames.len()];
    let messages = |step: usize| {
        let (mut held, mut looked_at, mut found, mut taken) = (Vec::new(), 0, Vec::new(), 0);
        for piece in wire.chunks(step) {
            held.extend_from_slice(piece);
            loop {
                match frame.cut(&held, &mut looked_at) {
                    Ok(Some((message, whole))) => {
                        assert!(whole > 0 && whole <= held.len() && message.len() <= RECORD_MAX);
                        assert!(held[..whole].ends_with(&message), "a message is what came");
                        held.drain(..whole);
                        (looked_at, taken) = (0, taken + whole);
                        found.push(message);
                    }
                    Ok(None) => break,
                    Err(_) => return (found, None),
                }
            }
        }
        assert_eq!(taken + held.len(), wire.len(), "nothing is lost");
        (found, Some(held))
    };
    let at_once = messages(wire.len().max(1));
    assert_eq!(at_once, messages(usize::from(*step).max(1)), "the same messages however they come");
    if let Frame::Length(_) = frame {
        for message in at_once.0 {
            let sent = frame.framed(&message);
            assert_eq!(frame.cut(&sent, &mut 0), Ok(Some((message, sent.len()))), "what is sent can be read");
        }
    }
}

/// Orders, listeners and questions in TM Forum's words: read, or told what is wrong where.
pub fn order(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    if let Ok(body) = serde_json::from_str::<serde_json::Value>(&text) {
        for whole in [true, false] {
            let read = Order::read(&body, whole);
            assert_eq!(read, Order::read(&body, whole), "the same body means the same");
            match read {
                Ok(order) => assert!(!whole || order.account.is_some(), "an order says whose service it is"),
                Err(faults) => {
                    assert!(!faults.is_empty(), "a refusal has a reason");
                    for fault in faults {
                        assert!(fault.pointer.is_empty() || fault.pointer.starts_with('/'), "{fault:?} is a pointer");
                        assert!(!fault.detail.is_empty(), "{fault:?} says nothing");
                        let found = body.pointer(&fault.pointer).is_some();
                        let parent = fault.pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
                        assert!(found || body.pointer(parent).is_some(), "{fault:?} is nowhere in {body}");
                    }
                }
            }
        }
    }
    if let Err(detail) = listens_to(&text) {
        assert!(!detail.is_empty());
    }
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let pairs: Vec<(String, String)> = text.split('&').filter_map(pair).collect();
    match Listing::read(&pairs, &["id", "state", "serviceDate", "relatedParty.id"]) {
        Ok(listing) => {
            assert!((1..=1000).contains(&listing.limit) && listing.offset >= 0);
            let resource = serde_json::json!({ "id": "1", "state": "active", "serviceDate": "2026-11-01T00:00:00Z",
                "relatedParty": [{ "id": "7" }] });
            let _ = listing.takes(&resource);
            assert_eq!(listing.select(resource)["id"], "1", "the id always comes");
        }
        Err(detail) => assert!(!detail.is_empty()),
    }
}

/// Gives an octet at a time.
struct Slow<'o>(&'o [u8]);

impl std::io::Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let least = into.len().min(1);
        std::io::Read::read(&mut self.0, &mut into[..least])
    }
}

/// Files of calls: the first octet chooses a profile, the others are the file; and as a profile they are read or told what is
/// wrong. Every line is a call, or says what it is not.
pub fn calls(octets: &[u8]) {
    let Some((choice, file)) = octets.split_first() else { return };
    let columns = "[columns]\nnumber = \"src\"\ndestination = \"dst\"\nstarted = \"at\"\nseconds = \"sec\"\n";
    let profiles = [
        format!("{columns}id = \"id\"\n[format]\ntime = \"rfc3339\"\n"),
        format!("{columns}[format]\nseparator = \";\"\ntime = \"%Y-%m-%d %H:%M:%S\"\ntimezone = \"America/Chicago\"\n"),
        "[columns]\nnumber = \"1\"\ndestination = \"2\"\nstarted = \"3\"\nseconds = \"4\"\n[format]\nheader = false\n\
         time = \"unix_ms\"\n[numbers]\ninternational = \"011\"\nnational = \"1\"\ncountry = \"1\"\n"
            .to_owned(),
    ];
    let profile = CallProfile::read("ours", &profiles[usize::from(*choice) % profiles.len()]).expect("a profile");
    let read = |slow: bool| -> Option<Vec<_>> {
        let file: Box<dyn std::io::Read> = match slow {
            true => Box::new(Slow(file)),
            false => Box::new(file),
        };
        profile.calls(file).ok().map(Iterator::collect)
    };
    let found = read(false);
    assert_eq!(found, read(true), "the same octets mean the same");
    let lines = 1 + file.iter().filter(|octet| matches!(octet, b'\n' | b'\r')).count() as u64;
    for (line, what) in found.into_iter().flatten() {
        assert!(line <= lines, "line {line} of {lines}");
        match what {
            Ok(CallLine::Call(call)) => {
                assert!(call.seconds > 0 && !call.number.is_empty() && !call.destination.is_empty(), "{call:?}");
                assert_eq!(call.digest.len(), 64);
            }
            Ok(CallLine::Unanswered) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    if let Err(faults) = CallProfile::read("fuzz", &String::from_utf8_lossy(file)) {
        assert!(!faults.is_empty());
        assert!(faults.iter().all(|fault| fault.pointer.starts_with("fuzz")), "{faults:?}");
    }
}
