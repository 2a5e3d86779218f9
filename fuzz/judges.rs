//! What must hold for any octets whatever, by parser; shared by the fuzzer and by the tests that replay its corpus.
//!
//! A judge returns when all is well and panics otherwise.

use jiff::Timestamp;
use lastmile::docsis::{self, VarBind};
use lastmile::radius::{
    Dictionary, IdentityRule, NasRule, PacketView, Profile, Source, answer, attribute, decode, parse_detail, record,
    redacted, verify,
};
use lastmile::store::journal::{entries_of_unsealed, unsealed_page};
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

/// The standard dictionary and those of vendors that the product ships.
fn dictionary_of_all() -> &'static Dictionary {
    static DICTIONARY: std::sync::OnceLock<Dictionary> = std::sync::OnceLock::new();
    DICTIONARY.get_or_init(Dictionary::standard)
}
