//! The shipped profiles against packets as each vendor's gear sends them, and profiles somebody else wrote.

use super::*;
use crate::radius::{NasRule, PacketView, RequestBuilder, Uninterpretable, record};
use crate::usage::{Record, RecordKind};
use crate::vocabulary::{Secret, parse_instant};

const ERX: u32 = 4874;
const HUAWEI: u32 = 2011;
const H3C: u32 = 25506;
const NOKIA: u32 = 6527;
const CAMBIUM: u32 = 17713;
const ERICSSON: u32 = 2352;

fn interim() -> RequestBuilder {
    RequestBuilder::accounting(1).integer(40, 3).text(44, "s-1").text(1, "ada@acme").integer(46, 600)
}

/// 1,000 octets in and 20,000 out in the standard counters, each with one gigaword.
fn standard() -> RequestBuilder {
    interim().integer(42, 1_000).integer(43, 20_000).integer(52, 1).integer(53, 1)
}

const GIGA: u64 = 1 << 32;

fn read_by(profile: &Profile, builder: RequestBuilder) -> Result<Record, Uninterpretable> {
    let octets = builder.sign(&Secret::new("s")).expect("small");
    let nas = NasRule { name: "bng1", identity: IdentityRule::Client, profile };
    let arrival = parse_instant("2026-11-22T03:00:00Z").expect("an instant");
    record(&PacketView::parse(&octets).expect("well formed"), &nas, arrival)
}

fn counted(profile: &str, builder: RequestBuilder) -> (Option<u64>, Option<u64>) {
    let record = read_by(&Profile::named(profile).expect("shipped"), builder).expect("a record");
    (record.in_octets, record.out_octets)
}

fn is_informative(profile: &str, builder: RequestBuilder) -> bool {
    read_by(&Profile::named(profile).expect("shipped"), builder).expect("a record").counting.informative
}

fn vendor(mut builder: RequestBuilder, number: u32, counters: &[(u8, u32)]) -> RequestBuilder {
    for (kind, value) in counters {
        builder = builder.vendor(number, *kind, &value.to_be_bytes());
    }
    builder
}

fn queue(of: u16, value: u64) -> Vec<u8> {
    [&of.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

fn written(text: &str) -> Result<Profiles, Vec<String>> {
    let mut profiles = Profiles::shipped().clone();
    match profiles.extend(&[Source { file: "p.toml", text }], &Dictionary::standard()) {
        Ok(()) => Ok(profiles),
        Err(faults) => Err(faults.into_iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect()),
    }
}

#[test]
fn the_profiles_of_the_contract_are_shipped() {
    let names: Vec<&str> = Profiles::shipped().names().collect();
    for name in [
        "default",
        "mikrotik",
        "cisco",
        "juniper",
        "huawei",
        "nokia",
        "cambium",
        "coovachilli",
        "accel-ppp",
        "opnsense",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(Profile::standard().name, "default");
    assert!(Profile::named("nokia-9000").is_none());
}

#[test]
fn every_shipped_file_is_compiled_in_under_its_own_name() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("the profiles directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter_map(|name| Some(name.strip_suffix(".toml")?.to_owned()))
        .collect();
    files.sort();
    assert_eq!(files, Profiles::shipped().names().collect::<Vec<_>>());
}

#[test]
fn standard_counters_are_joined_with_their_gigawords() {
    for profile in
        ["default", "mikrotik", "cisco", "juniper", "huawei", "nokia", "nokia-session", "cambium", "accel-ppp"]
    {
        let tied = standard().text(50, if profile == "nokia-session" { "queue-1" } else { "s-1" });
        assert_eq!(counted(profile, tied), (Some(1_000 + GIGA), Some(20_000 + GIGA)), "{profile}");
    }
}

#[test]
fn coovachilli_counts_the_other_way_round() {
    assert_eq!(counted("coovachilli", standard()), (Some(20_000 + GIGA), Some(1_000 + GIGA)));
    assert_eq!(counted("swapped", standard()), (Some(20_000 + GIGA), Some(1_000 + GIGA)));
}

#[test]
fn same_packet_under_juniper_and_huawei_rules_gives_different_octets() {
    let ipv6 = [(144, 100), (145, 2_000), (148, 1), (149, 0)];
    let packet = || vendor(standard(), HUAWEI, &ipv6);
    assert_eq!(counted("huawei", packet()), (Some(1_100 + 2 * GIGA), Some(22_000 + GIGA)));
    assert_eq!(counted("huawei-identical", packet()), (Some(1_000 + GIGA), Some(20_000 + GIGA)));
    let juniper = vendor(standard(), ERX, &[(151, 100), (152, 2_000), (155, 1), (156, 0)]);
    assert_eq!(counted("juniper", juniper), (Some(1_000 + GIGA), Some(20_000 + GIGA)), "IPv6 is contained");
}

#[test]
fn huawei_session_of_ipv6_alone_counts() {
    let packet = vendor(interim(), HUAWEI, &[(144, 100), (145, 2_000)]);
    assert_eq!(counted("huawei", packet), (Some(100), Some(2_000)));
}

#[test]
fn h3c_adds_ipv6_with_its_own_gigawords_and_no_interval_counters() {
    let ipv6 = [(144, 100), (145, 2_000), (146, 0), (147, 2), (201, 7), (202, 7), (205, 1), (206, 1)];
    let packet = vendor(standard(), H3C, &ipv6);
    assert_eq!(counted("h3c", packet), (Some(1_100 + GIGA), Some(22_000 + 3 * GIGA)));
}

#[test]
fn h3c_interval_counters_serve_alone_and_are_no_totals() {
    let packet = vendor(interim(), H3C, &[(201, 7), (202, 9), (206, 1)]);
    let record = read_by(&Profile::named("h3c").expect("shipped"), packet).expect("a record");
    assert_eq!((record.in_octets, record.out_octets, record.counting.interval), (Some(7), Some(9 + GIGA), true));
}

#[test]
fn juniper_service_sessions_only_inform() {
    let service = standard().vendor(ERX, 83, b"\x01video(100m)");
    assert!(is_informative("juniper", service.clone()));
    assert!(!is_informative("juniper", standard()), "the subscriber's own session is billed");
    assert!(!is_informative("default", service), "another profile, another rule");
}

#[test]
fn nokia_queues_and_policers_are_added_each_once() {
    let packet = interim()
        .vendor(NOKIA, 19, &queue(1, 10 * GIGA))
        .vendor(NOKIA, 19, &queue(2, 5))
        .vendor(NOKIA, 19, &queue(0x8001, 3))
        .vendor(NOKIA, 20, &queue(1, 100))
        .vendor(NOKIA, 19, &queue(2, 5))
        .vendor(NOKIA, 21, &queue(1, 7))
        .vendor(NOKIA, 22, &queue(1, 70));
    let record = read_by(&Profile::named("nokia").expect("shipped"), packet.clone()).expect("a record");
    assert_eq!((record.in_octets, record.out_octets), (Some(10 * GIGA + 108), Some(77)));
    assert!(record.gigawords, "64-bit counters never wrap");
    assert_eq!(counted("default", packet.clone()), (None, None));
    assert_eq!(counted("nokia", packet.integer(42, 1).integer(43, 2)), (Some(1), Some(2)), "the sum goes first");
    let twice = interim().vendor(NOKIA, 19, &queue(2, 5)).vendor(NOKIA, 19, &queue(2, 6));
    let nokia = Profile::named("nokia").expect("shipped");
    assert_eq!(read_by(&nokia, twice), Err(Uninterpretable::Ambiguous("Alc-Acct-I-Inprof-Octets-64".into())));
    let short = interim().vendor(NOKIA, 19, &[0; 4]);
    assert_eq!(
        read_by(&nokia, short),
        Err(Uninterpretable::Length { attribute: "Alc-Acct-I-Inprof-Octets-64".into(), octets: 4, wanted: 10 })
    );
}

/// The reports of each accounting mode, by what Acct-Multi-Session-Id names.
#[test]
fn of_two_nokia_streams_exactly_one_is_billed() {
    let alone = || standard();
    let names_itself = || standard().text(50, "s-1");
    let names_another = || standard().text(50, "s-2");
    let billed = |profile: &str, streams: &[RequestBuilder]| {
        streams.iter().filter(|stream| !is_informative(profile, (*stream).clone())).count()
    };
    for (profile, modes, streams) in [
        ("nokia", "queue instance", vec![alone()]),
        ("nokia", "queue instance and session", vec![names_itself(), names_another()]),
        ("nokia", "session and host", vec![names_itself(), names_another()]),
        ("nokia-session", "session or host", vec![names_another()]),
        ("nokia-session", "queue instance and session", vec![names_itself(), names_another()]),
    ] {
        assert_eq!(billed(profile, &streams), 1, "{profile}: {modes}");
    }
    let service = names_itself().vendor(NOKIA, 151, b"svc-1");
    assert!(is_informative("nokia", service.clone()) && is_informative("nokia-session", service));
    let assurance = RequestBuilder::accounting(1).integer(40, 3).text(44, "esm|ada").integer(42, 1);
    assert!(is_informative("nokia", assurance));
}

#[test]
fn cambium_traffic_classes_are_a_part_unless_they_are_all() {
    let class = |input: u32, output: u32| {
        let octets = |kind: u8, value: u32| [&[kind, 6][..], &value.to_be_bytes()].concat();
        [&[1, 5][..], b"web", &octets(2, input), &octets(3, output)].concat()
    };
    let classes = |builder: RequestBuilder| {
        builder.vendor(CAMBIUM, 159, &class(10, 200)).vendor(CAMBIUM, 159, &class(10, 200)).vendor(
            CAMBIUM,
            159,
            &class(1, 2),
        )
    };
    assert_eq!(counted("cambium", classes(standard())), (Some(1_000 + GIGA), Some(20_000 + GIGA)));
    assert_eq!(counted("cambium", classes(interim())), (Some(21), Some(402)));
}

#[test]
fn opnsense_counters_have_no_upper_half() {
    let record = read_by(&Profile::named("opnsense").expect("shipped"), interim().integer(42, 7).integer(43, 9));
    let record = record.expect("a record");
    assert_eq!((record.in_octets, record.out_octets, record.gigawords), (Some(7), Some(9), false));
}

#[test]
fn ericsson_counts_in_64_bits() {
    let wide = |kind: u8, value: u64| (kind, value.to_be_bytes());
    let packet = [wide(128, 3 * GIGA), wide(129, 4 * GIGA + 1)]
        .iter()
        .fold(standard(), |packet, (kind, value)| packet.vendor(ERICSSON, *kind, value));
    assert_eq!(counted("ericsson", packet), (Some(3 * GIGA), Some(4 * GIGA + 1)));
    assert_eq!(counted("ericsson", standard()), (Some(1_000 + GIGA), Some(20_000 + GIGA)));
}

#[test]
fn units_multiply_and_such_counters_do_not_wrap_at_2_to_the_32() {
    let text = "name = \"ma5600t\"\n[[counters]]\n\
                input = [{ octets = \"Acct-Input-Octets\", gigawords = \"Acct-Input-Gigawords\", unit = \"KB\" }]\n\
                output = [{ octets = \"Acct-Output-Octets\", unit = \"MiB\" }]\n";
    let profile = written(text).expect("no faults").named("ma5600t").expect("added");
    let record = read_by(&profile, standard()).expect("a record");
    assert_eq!(record.in_octets, Some((1_000 + GIGA) * 1_000));
    assert_eq!(record.out_octets, Some(20_000 << 20));
    assert!(record.gigawords);
    let beyond = read_by(&profile, interim().integer(42, u32::MAX).integer(52, u32::MAX)).expect("a record");
    assert_eq!((beyond.in_octets, beyond.flags.counter_doubtful), (None, true), "more than a column holds");
}

#[test]
fn tunnel_links_are_sessions_only_where_the_profile_says_so() {
    let link_stop = || RequestBuilder::accounting(1).integer(40, 13).text(44, "t-1").integer(42, 5).integer(43, 6);
    let by = |word: &str| {
        let text = format!("name = \"lns\"\ntunnel_links = \"{word}\"\n");
        let profile = written(&text).expect("no faults").named("lns").expect("added");
        let record = read_by(&profile, link_stop()).expect("a record");
        (record.kind, record.counting.informative)
    };
    assert_eq!(by("recorded"), (RecordKind::Other(13), false));
    assert_eq!(by("informative"), (RecordKind::Stop, true));
    assert_eq!(by("billed"), (RecordKind::Stop, false));
    let shipped = read_by(Profile::standard(), link_stop()).expect("a record");
    assert_eq!(shipped.kind, RecordKind::Other(13));
}

#[test]
fn realm_is_left_out_of_the_name_where_the_profile_says_so() {
    let profile = written("name = \"acme\"\nuser_name = \"without-realm\"\n").expect("no faults").named("acme");
    let profile = profile.expect("added");
    let named = |name: &str| RequestBuilder::accounting(1).integer(40, 3).text(44, "s-1").text(1, name);
    for (told, held) in [
        ("ada@acme", Some("ada")),
        ("ACME\\ada", Some("ada")),
        ("ada", Some("ada")),
        ("ada@home@acme", Some("ada@home")),
        ("@acme", None),
        ("", None),
    ] {
        assert_eq!(read_by(&profile, named(told)).expect("a record").user.as_deref(), held, "{told}");
    }
    let whole = read_by(Profile::standard(), named("ada@acme")).expect("a record");
    assert_eq!(whole.user.as_deref(), Some("ada@acme"));
}

#[test]
fn further_links_of_a_multilink_session_are_told_by_their_start() {
    let start = |session: &str, links: u32| {
        let packet = RequestBuilder::accounting(1).integer(40, 1).text(44, session).text(50, "10").integer(51, links);
        read_by(Profile::standard(), packet).expect("a record").counting.further_link
    };
    // The example of RFC 2866 section 5.12.
    assert_eq!([start("10", 1), start("11", 2), start("12", 3), start("13", 4)], [false, true, true, true]);
}

#[test]
fn a_profile_of_ones_own_takes_the_place_of_a_shipped_one() {
    let profiles = written("name = \"mikrotik\"\ninput = \"to-user\"\n").expect("no faults");
    assert!(profiles.named("mikrotik").is_some_and(|profile| profile.swapped));
    assert!(Profile::named("mikrotik").is_some_and(|profile| !profile.swapped));
}

#[test]
fn numbers_serve_where_no_dictionary_has_a_name() {
    let text = "name = \"acme\"\n[[counters]]\ninput = [{ octets = \"Attr-26.65000.7\", form = \"integer64\" }]\n\
                output = [{ octets = \"Attr-26.65000.9.2\", form = \"integer\", repeated = \"sum\" }]\n";
    let profile = written(text).expect("no faults").named("acme").expect("added");
    let tlv = |value: u32| [&[2, 6][..], &value.to_be_bytes()].concat();
    let packet =
        interim().vendor(65000, 7, &(5 * GIGA).to_be_bytes()).vendor(65000, 9, &tlv(3)).vendor(65000, 9, &tlv(3));
    let record = read_by(&profile, packet).expect("a record");
    assert_eq!((record.in_octets, record.out_octets), (Some(5 * GIGA), Some(6)));
}

#[test]
fn every_fault_of_a_profile_is_told_with_its_place() {
    let text = "name = \"My Profile\"\ninput = \"sideways\"\nspeed = 1\n\
                [[counters]]\ninput = []\noutput = [{ octets = \"Nobody\", unit = \"parsec\" }]\n\
                [[counters]]\ninput = [{ octets = \"User-Name\" }]\n\
                output = [{ octets = \"Acct-Output-Octets-64\", gigawords = \"Acct-Session-Id\" }]\n\
                [[informative]]\nattribute = \"Acct-Session-Id\"\nis = \"present\"\nlike = \"x\"\nbecause = \"b\"\n\
                [[informative]]\nattribute = \"Acct-Session-Id\"\n";
    assert_eq!(
        written(text).expect_err("faults"),
        [
            "p.toml:1:8: a profile's name is of lower-case letters, digits and hyphens",
            "p.toml:2:9: \"sideways\" is not one of from-user, to-user",
            "p.toml:5:9: a direction needs at least one counter",
            "p.toml:6:22: no dictionary names the attribute \"Nobody\"; [radius] dictionaries adds one",
            "p.toml:6:39: \"parsec\" is not one of octet, KB, KiB, MB, MiB, GB, GiB",
            "p.toml:8:10: User-Name is no integer in the dictionary; say its `form`",
            "p.toml:9:59: Acct-Session-Id is no integer of 4 octets in the dictionary",
            "p.toml:9:11: only a counter of 4 octets has gigawords",
            "p.toml:10:1: a rule has one of `is`, `like`, `differs_from` and `same_as`",
            "p.toml:15:1: `because` is missing",
            "p.toml:15:1: a rule has one of `is`, `like`, `differs_from` and `same_as`",
            "p.toml:3:1: unknown key `speed`; this table knows counters, informative, input, name, tunnel_links, user_name",
        ]
    );
}

#[test]
fn one_name_in_two_files_is_a_fault() {
    let mut profiles = Profiles::shipped().clone();
    let text = "name = \"acme\"\n";
    let files = [Source { file: "a.toml", text }, Source { file: "b.toml", text }];
    let faults = profiles.extend(&files, &Dictionary::standard()).expect_err("a fault");
    assert_eq!(faults[0].pointer, "b.toml:1:1");
    assert!(profiles.named("acme").is_none(), "nothing is added");
}
