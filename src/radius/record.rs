//! From a packet's attributes to the record that is folded: which NAS, which session, when, and what was counted.
//!
//! In: a packet view, the rule of the NAS it came from, its arrival. Out: a `usage::Record`, or why a person must look
//! at it. A value that decides about octets is never guessed: it is read exactly, or the record is quarantined.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use super::attribute;
use super::packet::PacketView;
use super::profile::{self, IdentityRule, Profile, TunnelLinks};
use super::value::{hex, text};
use crate::usage::{Counting, Record, RecordFlags, RecordKind, Told, event_time};
use crate::vocabulary::{MacAddress, Timestamp};

/// How records of one configured client are read.
#[derive(Debug, Clone, Copy)]
pub struct NasRule<'a> {
    /// Name of the configured client.
    pub name: &'a str,
    pub identity: IdentityRule,
    pub profile: &'a Profile,
}

/// Why a correctly signed packet cannot become a record: it stays in the journal and waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Uninterpretable {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{attribute} holds {octets} octets, not {wanted}")]
    Length { attribute: Cow<'static, str>, octets: usize, wanted: usize },
    #[error("{0} stands twice with different values")]
    Ambiguous(Cow<'static, str>),
}

/// Reads one Accounting-Request.
///
/// **Shape**: octets are 64 bits, gigawords joined (RFC 2869 section 5.1), what the profile adds is added and in its unit,
/// `in` = from the subscriber. A sum beyond 2^63−1 is left out and flagged, never clamped.
/// **Errors**: [`Uninterpretable`]; quarantine it, it was acknowledged.
pub fn record(view: &PacketView<'_>, nas: &NasRule<'_>, arrived_at: Timestamp) -> Result<Record, Uninterpretable> {
    let status = integer(view, attribute::ACCT_STATUS_TYPE, "Acct-Status-Type")?
        .ok_or(Uninterpretable::Missing("Acct-Status-Type"))?;
    let kind = match RecordKind::from_status_type(status) {
        RecordKind::Other(TUNNEL_LINK_START) if nas.profile.tunnel_links != TunnelLinks::Recorded => RecordKind::Start,
        RecordKind::Other(TUNNEL_LINK_STOP) if nas.profile.tunnel_links != TunnelLinks::Recorded => RecordKind::Stop,
        kind => kind,
    };
    let session = view.first(attribute::ACCT_SESSION_ID).map(text).unwrap_or_default();
    if kind.is_session() && session.is_empty() {
        return Err(Uninterpretable::Missing("Acct-Session-Id"));
    }
    if view.all(attribute::ACCT_SESSION_ID).skip(1).any(|other| text(other) != session) {
        return Err(Uninterpretable::Ambiguous("Acct-Session-Id".into()));
    }

    let mut flags = RecordFlags::default();
    let identity = identity(view, nas).unwrap_or_else(|| {
        flags.identity_missing = true;
        nas.name.to_owned()
    });
    let told = told(view);
    let event = event_time(told, arrived_at, 0);
    (flags.arrival_based, flags.clock_doubtful) = (event.arrival_based, event.doubtful);
    let counted = profile::count(view, nas.profile)?;
    let mut fitting = |octets: Option<u128>| {
        // Columns are 64 bits with a sign.
        let fits = octets.and_then(|octets| i64::try_from(octets).ok()).map(i64::unsigned_abs);
        flags.counter_doubtful |= octets.is_some() && fits.is_none();
        fits
    };
    let (input, output) = (fitting(counted.input), fitting(counted.output));
    let (in_octets, out_octets) = if nas.profile.swapped { (output, input) } else { (input, output) };
    let is_tunnel_link = [TUNNEL_LINK_START, TUNNEL_LINK_STOP].contains(&status);
    let counting = Counting {
        informative: is_tunnel_link && nas.profile.tunnel_links == TunnelLinks::Informative
            || nas.profile.informative.iter().any(|rule| rule.holds(view)),
        further_link: kind == RecordKind::Start && is_further_link(view, &session)?,
        interval: counted.interval,
    };

    Ok(Record {
        nas: identity,
        session,
        kind,
        user: user(view, nas.profile),
        event_at: event.at,
        arrived_at,
        told,
        session_seconds: integer(view, attribute::ACCT_SESSION_TIME, "Acct-Session-Time")?.map(u64::from),
        in_octets,
        out_octets,
        gigawords: counted.wide,
        class: view.first(attribute::CLASS).map(text).filter(|class| !class.is_empty()),
        framed_ip: framed_ip(view),
        framed_prefix: framed_prefix(view),
        calling_station: calling_station(view),
        terminate_cause: view.first(attribute::ACCT_TERMINATE_CAUSE).and_then(number),
        counting,
        flags,
    })
}

/// The NAS identity as one text: the client's name, and behind a proxy the attribute that tells its NAS apart.
fn identity(view: &PacketView<'_>, nas: &NasRule<'_>) -> Option<String> {
    let inner = match nas.identity {
        IdentityRule::Client => return Some(nas.name.to_owned()),
        IdentityRule::NasIdentifier => view.first(attribute::NAS_IDENTIFIER).map(text)?,
        IdentityRule::NasIp => [attribute::NAS_IP_ADDRESS, attribute::NAS_IPV6_ADDRESS]
            .into_iter()
            .find_map(|kind| view.first(kind))
            .map(|octets| address(octets).map_or_else(|| hex(octets), |address| address.to_string()))?,
    };
    (!inner.is_empty()).then(|| [nas.name, "/", &inner].concat())
}

/// What the packet says of time; a value of another length says what cannot be true.
fn told(view: &PacketView<'_>) -> Told {
    let seconds = |kind| view.first(kind).map(|value| number(value).unwrap_or(u32::MAX));
    let event = seconds(attribute::EVENT_TIMESTAMP).and_then(|at| Timestamp::from_second(i64::from(at)).ok());
    Told { event_at: event, delay_seconds: seconds(attribute::ACCT_DELAY_TIME) }
}

/// Whether a Start opens another link of a multilink session that has one already.
///
/// Acct-Link-Count is the number of links known so far, and the session goes by the identifier its first link made.
/// RFC 2866 sections 5.11 and 5.12.
fn is_further_link(view: &PacketView<'_>, session: &str) -> Result<bool, Uninterpretable> {
    let Some(bundle) = view.first(attribute::ACCT_MULTI_SESSION_ID) else { return Ok(false) };
    let links = integer(view, attribute::ACCT_LINK_COUNT, "Acct-Link-Count")?;
    Ok(links.is_some_and(|links| links > 1) && text(bundle) != session)
}

/// User-Name as its holder holds it: without the realm where the profile says so.
fn user(view: &PacketView<'_>, profile: &Profile) -> Option<String> {
    let name = view.first(attribute::USER_NAME).map(text)?;
    let held = if profile.without_realm {
        let local = name.rsplit_once('@').map_or(name.as_str(), |(local, _)| local);
        local.split_once('\\').map_or(local, |(_, local)| local).to_owned()
    } else {
        name
    };
    (!held.is_empty()).then_some(held)
}

/// Calling-Station-Id; a MAC in the one spelling we hold it in. Twelve digits alone may as well be a phone number.
fn calling_station(view: &PacketView<'_>) -> Option<String> {
    let station = view.first(attribute::CALLING_STATION_ID).map(text).filter(|station| !station.is_empty())?;
    let is_number = station.chars().all(|letter| letter.is_ascii_digit());
    let Some(mac) = station.parse::<MacAddress>().ok().filter(|_| !is_number) else { return Some(station) };
    let spelled = |letter: u8| letter == b':' || letter.is_ascii_digit() || letter.is_ascii_lowercase();
    if station.len() == MAC_LETTERS && station.contains(':') && station.bytes().all(spelled) {
        return Some(station);
    }
    Some(mac.to_string())
}

fn framed_ip(view: &PacketView<'_>) -> Option<IpAddr> {
    [attribute::FRAMED_IP_ADDRESS, attribute::FRAMED_IPV6_ADDRESS]
        .into_iter()
        .find_map(|kind| view.first(kind).and_then(address))
}

/// The prefix routed to the subscriber, as an account's document writes it. RFC 4818 section 3, RFC 3162 section 2.3: a
/// reserved octet, the length, then only the octets the prefix needs.
fn framed_prefix(view: &PacketView<'_>) -> Option<String> {
    [attribute::DELEGATED_IPV6_PREFIX, attribute::FRAMED_IPV6_PREFIX].into_iter().find_map(|kind| {
        let [_, length @ 1..=128, prefix @ ..] = view.first(kind)? else { return None };
        let mut octets = [0; 16];
        octets.get_mut(..prefix.len())?.copy_from_slice(prefix);
        let bits = u128::from_be_bytes(octets) & u128::MAX << (128 - u32::from(*length));
        Some(format!("{}/{length}", Ipv6Addr::from_bits(bits)))
    })
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).into())
}

fn integer(view: &PacketView<'_>, kind: u8, name: &'static str) -> Result<Option<u32>, Uninterpretable> {
    single(view.all(kind), name)
}

/// An integer that may stand at most once; repeated with the same value it is still one.
fn single<'a>(values: impl Iterator<Item = &'a [u8]>, attribute: &'static str) -> Result<Option<u32>, Uninterpretable> {
    let mut found = None;
    for value in values {
        let value = number(value).ok_or({
            let octets = value.len();
            Uninterpretable::Length { attribute: attribute.into(), octets, wanted: 4 }
        })?;
        if found.is_some_and(|earlier| earlier != value) {
            return Err(Uninterpretable::Ambiguous(attribute.into()));
        }
        found = Some(value);
    }
    Ok(found)
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// `00:1a:2b:3c:4d:5e`.
const MAC_LETTERS: usize = 17;
/// Acct-Status-Type, RFC 2867 section 3.
const TUNNEL_LINK_START: u32 = 12;
const TUNNEL_LINK_STOP: u32 = 13;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Profiles, RequestBuilder};
    use super::*;
    use crate::vocabulary::{Secret, parse_instant};

    fn bng() -> NasRule<'static> {
        NasRule { name: "bng1", identity: IdentityRule::Client, profile: Profile::standard() }
    }

    fn arrival() -> Timestamp {
        parse_instant("2026-11-22T03:00:00Z").expect("an instant")
    }

    fn stop() -> RequestBuilder {
        RequestBuilder::accounting(1).integer(40, 2).text(44, "s-1").text(1, "ada@acme")
    }

    fn read(builder: RequestBuilder, nas: &NasRule<'_>) -> Result<Record, Uninterpretable> {
        let octets = builder.sign(&Secret::new("s")).expect("small");
        record(&PacketView::parse(&octets).expect("well formed"), nas, arrival())
    }

    #[test]
    fn a_stop_becomes_a_record() {
        let framed = "100.64.0.9".parse().expect("an address");
        let builder = stop()
            .integer(46, 3600)
            .integer(42, 7)
            .integer(52, 2)
            .integer(43, 9)
            .integer(53, 1)
            .integer(49, 1)
            .address(8, framed)
            .octets(25, b"class-1")
            .text(31, "00:11:22:33:44:55");
        let record = read(builder, &bng()).expect("a record");
        assert_eq!((record.nas.as_str(), record.session.as_str(), record.kind), ("bng1", "s-1", RecordKind::Stop));
        assert_eq!((record.in_octets, record.out_octets), (Some(7 + (2 << 32)), Some(9 + (1 << 32))));
        assert_eq!((record.session_seconds, record.terminate_cause), (Some(3600), Some(1)));
        assert_eq!((record.user.as_deref(), record.class.as_deref()), (Some("ada@acme"), Some("class-1")));
        assert_eq!((record.framed_ip, record.gigawords), (Some(framed), true));
        assert_eq!(record.event_at, arrival());
        assert_eq!(record.flags, RecordFlags { arrival_based: true, ..RecordFlags::default() });
    }

    #[test]
    fn absent_counters_are_absent_not_zero() {
        let record = read(stop(), &bng()).expect("a record");
        assert_eq!((record.in_octets, record.out_octets, record.session_seconds), (None, None, None));
        assert!(!record.gigawords);
    }

    #[test]
    fn a_counter_beyond_a_column_is_flagged_and_left_out() {
        let record = read(stop().integer(42, 5).integer(52, 0x8000_0000).integer(43, 5), &bng()).expect("a record");
        assert_eq!((record.in_octets, record.out_octets), (None, Some(5)));
        assert!(record.flags.counter_doubtful);
    }

    #[test]
    fn event_time_is_the_nas_clock_only_when_that_can_be_true() {
        let at = |text| parse_instant(text).expect("an instant");
        let seconds = |text| u32::try_from(at(text).as_second()).expect("this century");
        let cases = [
            (Some("2026-11-22T02:59:00Z"), None, "2026-11-22T02:59:00Z", false),
            (Some("2026-11-22T03:01:30Z"), Some(30), "2026-11-22T03:01:30Z", false),
            (Some("2026-11-22T03:01:31Z"), Some(30), "2026-11-22T02:59:30Z", true),
            (Some("1970-01-01T00:10:00Z"), None, "2026-11-22T03:00:00Z", true),
            (Some("2025-10-18T03:00:00Z"), None, "2025-10-18T03:00:00Z", false),
            (Some("2025-10-18T02:59:59Z"), None, "2026-11-22T03:00:00Z", true),
            (None, Some(60), "2026-11-22T02:59:00Z", false),
            (None, Some(u32::MAX), "2026-11-22T03:00:00Z", true),
            (None, None, "2026-11-22T03:00:00Z", false),
        ];
        for (event, delay, expected, doubtful) in cases {
            let builder = event.into_iter().fold(stop(), |builder, event| builder.integer(55, seconds(event)));
            let builder = delay.into_iter().fold(builder, |builder, delay| builder.integer(41, delay));
            let record = read(builder, &bng()).expect("a record");
            assert_eq!((record.event_at, record.flags.clock_doubtful), (at(expected), doubtful), "{event:?} {delay:?}");
        }
    }

    #[test]
    fn identity_behind_a_proxy_is_the_attribute_asked_for() {
        let by_identifier = NasRule { identity: IdentityRule::NasIdentifier, ..bng() };
        let by_address = NasRule { identity: IdentityRule::NasIp, ..bng() };
        let nas_ip = "192.0.2.7".parse().expect("an address");
        let both = stop().text(32, "olt-4").address(4, nas_ip);
        assert_eq!(read(both.clone(), &by_identifier).expect("a record").nas, "bng1/olt-4");
        assert_eq!(read(both.clone(), &by_address).expect("a record").nas, "bng1/192.0.2.7");
        assert_eq!(read(both, &bng()).expect("a record").nas, "bng1");
        let v6 = stop().address(95, "2001:db8::7".parse().expect("an address"));
        assert_eq!(read(v6, &by_address).expect("a record").nas, "bng1/2001:db8::7");
        let neither = read(stop(), &by_identifier).expect("a record");
        assert_eq!((neither.nas.as_str(), neither.flags.identity_missing), ("bng1", true));
    }

    #[test]
    fn prefixes_have_one_spelling() {
        let by = |kind: u8, octets: &[u8]| read(stop().octets(kind, octets), &bng()).expect("a record").framed_prefix;
        let routed = [0, 56, 0x20, 0x01, 0x0d, 0xb8, 0, 7, 0xff, 0xff];
        assert_eq!(by(123, &routed).as_deref(), Some("2001:db8:7:ff00::/56"), "no bits beyond its length");
        assert_eq!(by(97, &routed[..8]).as_deref(), Some("2001:db8:7::/56"));
        for broken in [&[0][..], &[0, 129, 1], &[0, 0], &[0; 19]] {
            assert_eq!(by(123, broken), None, "{broken:?}");
        }
    }

    #[test]
    fn calling_stations_that_are_macs_have_one_spelling() {
        let by = |station: &str| read(stop().text(31, station), &bng()).expect("a record").calling_station;
        for station in ["00-1A-2B-3C-4D-5E", "001a.2b3c.4d5e", "00:1a:2b:3c:4d:5e"] {
            assert_eq!(by(station).as_deref(), Some("00:1a:2b:3c:4d:5e"), "{station}");
        }
        assert_eq!(by("441632960000").as_deref(), Some("441632960000"), "a phone number stays one");
        assert_eq!((by("eth 1/2").as_deref(), by("")), (Some("eth 1/2"), None));
    }

    #[test]
    fn ids_that_are_no_text_become_hex() {
        let start = |session: &[u8]| RequestBuilder::accounting(1).integer(40, 1).octets(44, session);
        assert_eq!(read(start(&[0xff, 0x00, 0x12]), &bng()).expect("a record").session, "0xff0012");
        assert_eq!(read(start(b"a\0b"), &bng()).expect("a record").session, "0x610062");
        assert_eq!(read(start("zoë".as_bytes()), &bng()).expect("a record").session, "zoë");
    }

    #[test]
    fn what_cannot_be_counted_is_named() {
        let status = |value: &[u8]| RequestBuilder::accounting(1).octets(40, value).text(44, "s");
        assert_eq!(
            read(RequestBuilder::accounting(1).text(44, "s"), &bng()),
            Err(Uninterpretable::Missing("Acct-Status-Type"))
        );
        assert_eq!(
            read(status(&[0, 0, 2]), &bng()),
            Err(Uninterpretable::Length { attribute: "Acct-Status-Type".into(), octets: 3, wanted: 4 })
        );
        assert_eq!(
            read(RequestBuilder::accounting(1).integer(40, 2), &bng()),
            Err(Uninterpretable::Missing("Acct-Session-Id"))
        );
        assert_eq!(
            read(stop().integer(42, 1).integer(42, 2), &bng()),
            Err(Uninterpretable::Ambiguous("Acct-Input-Octets".into()))
        );
        assert_eq!(read(stop().text(44, "s-2"), &bng()), Err(Uninterpretable::Ambiguous("Acct-Session-Id".into())));
        assert_eq!(
            read(stop().octets(46, &[1]), &bng()),
            Err(Uninterpretable::Length { attribute: "Acct-Session-Time".into(), octets: 1, wanted: 4 })
        );
        assert_eq!(read(stop().integer(42, 1).integer(42, 1), &bng()).expect("a record").in_octets, Some(1));
    }

    #[test]
    fn unknown_status_types_and_reboots_need_no_session() {
        let status = |value| RequestBuilder::accounting(1).integer(40, value);
        assert_eq!(read(status(7), &bng()).expect("a record").kind, RecordKind::AccountingOn);
        assert_eq!(read(status(8), &bng()).expect("a record").kind, RecordKind::AccountingOff);
        assert_eq!(read(status(12), &bng()).expect("a record").kind, RecordKind::Other(12));
    }

    proptest! {
        #[test]
        fn no_attributes_make_reading_panic(
            attributes in proptest::collection::vec(
                (prop_oneof![Just(26u8), 40u8..56, any::<u8>()], proptest::collection::vec(any::<u8>(), 0..12)), 0..12),
            profile in proptest::sample::select(Profiles::shipped().names().collect::<Vec<_>>()),
        ) {
            let builder = attributes.iter().fold(stop(), |builder, (kind, value)| builder.octets(*kind, value));
            let profile = Profile::named(profile).expect("a profile");
            for identity in [IdentityRule::Client, IdentityRule::NasIdentifier, IdentityRule::NasIp] {
                let _ = read(builder.clone(), &NasRule { name: "bng1", identity, profile: &profile });
            }
        }

        #[test]
        fn joined_counters_are_exact(octets in any::<u32>(), gigawords in 0u32..0x8000_0000) {
            let record = read(stop().integer(43, octets).integer(53, gigawords), &bng()).expect("a record");
            prop_assert_eq!(record.out_octets, Some((u64::from(gigawords) << 32) + u64::from(octets)));
            prop_assert!(!record.flags.counter_doubtful);
        }
    }
}
