//! From a packet's attributes to the record that is folded: which NAS, which session, when, and what was counted.
//!
//! In: a packet view, the rule of the NAS it came from, its arrival. Out: a `usage::Record`, or why a person must look
//! at it. A value that decides about octets is never guessed: it is read exactly, or the record is quarantined.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::SignedDuration;
use thiserror::Error;

use super::attribute;
use super::packet::PacketView;
use super::profile::{IdentityRule, Ipv6Octets, Profile};
use super::value::{hex, text};
use crate::usage::{Record, RecordFlags, RecordKind};
use crate::vocabulary::Timestamp;

/// How records of one configured client are read.
#[derive(Debug, Clone, Copy)]
pub struct NasRule<'a> {
    /// Name of the configured client.
    pub name: &'a str,
    pub identity: IdentityRule,
    pub profile: &'static Profile,
}

/// Why a correctly signed packet cannot become a record: it stays in the journal and waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Uninterpretable {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{attribute} holds {octets} octets, not 4")]
    Length { attribute: &'static str, octets: usize },
    #[error("{0} stands twice with different values")]
    Ambiguous(&'static str),
}

/// Reads one Accounting-Request.
///
/// **Shape**: octets are 64 bits, gigawords joined (RFC 2869 section 5.1), IPv6 added where the profile says so, `in` =
/// from the subscriber. A sum beyond 2^63−1 is left out and flagged, never clamped.
/// **Errors**: [`Uninterpretable`]; quarantine it, it was acknowledged.
pub fn record(view: &PacketView<'_>, nas: &NasRule<'_>, arrived_at: Timestamp) -> Result<Record, Uninterpretable> {
    let status = integer(view, attribute::ACCT_STATUS_TYPE, "Acct-Status-Type")?
        .ok_or(Uninterpretable::Missing("Acct-Status-Type"))?;
    let kind = RecordKind::from_status_type(status);
    let session = view.first(attribute::ACCT_SESSION_ID).map(text).unwrap_or_default();
    if kind.is_session() && session.is_empty() {
        return Err(Uninterpretable::Missing("Acct-Session-Id"));
    }
    if view.all(attribute::ACCT_SESSION_ID).any(|other| text(other) != session) {
        return Err(Uninterpretable::Ambiguous("Acct-Session-Id"));
    }

    let mut flags = RecordFlags::default();
    let identity = identity(view, nas).unwrap_or_else(|| {
        flags.identity_missing = true;
        nas.name.to_owned()
    });
    let event_at = event_at(view, arrived_at, &mut flags);
    let counters = Counters::read(view, nas.profile)?;
    let mut counted = |octets: Option<Octets>| match octets {
        Some(Octets::Exact(octets)) => Some(octets),
        Some(Octets::Overflow) => {
            flags.counter_doubtful = true;
            None
        }
        None => None,
    };
    let (input, output) = (counted(counters.input), counted(counters.output));
    let (in_octets, out_octets) = if nas.profile.swapped { (output, input) } else { (input, output) };

    Ok(Record {
        nas: identity,
        session,
        kind,
        user: view.first(attribute::USER_NAME).map(text).filter(|user| !user.is_empty()),
        event_at,
        arrived_at,
        session_seconds: integer(view, attribute::ACCT_SESSION_TIME, "Acct-Session-Time")?.map(u64::from),
        in_octets,
        out_octets,
        gigawords: counters.gigawords,
        class: view.first(attribute::CLASS).map(text).filter(|class| !class.is_empty()),
        framed_ip: framed_ip(view),
        calling_station: view.first(attribute::CALLING_STATION_ID).map(text).filter(|station| !station.is_empty()),
        terminate_cause: view.first(attribute::ACCT_TERMINATE_CAUSE).and_then(number),
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
    (!inner.is_empty()).then(|| format!("{}/{inner}", nas.name))
}

/// Event-Timestamp where it can be true, else arrival − Acct-Delay-Time.
fn event_at(view: &PacketView<'_>, arrived_at: Timestamp, flags: &mut RecordFlags) -> Timestamp {
    if let Some(value) = view.first(attribute::EVENT_TIMESTAMP) {
        let told = number(value).and_then(|seconds| Timestamp::from_second(i64::from(seconds)).ok());
        match told.filter(|at| is_plausible(*at, arrived_at)) {
            Some(at) => return at,
            None => flags.clock_doubtful = true,
        }
    }
    flags.arrival_based = true;
    let Some(value) = view.first(attribute::ACCT_DELAY_TIME) else { return arrived_at };
    let delayed = number(value)
        .and_then(|seconds| arrived_at.checked_sub(SignedDuration::from_secs(i64::from(seconds))).ok())
        .filter(|at| is_plausible(*at, arrived_at));
    flags.clock_doubtful |= delayed.is_none();
    delayed.unwrap_or(arrived_at)
}

fn is_plausible(at: Timestamp, arrived_at: Timestamp) -> bool {
    let age = arrived_at.duration_since(at);
    -CLOCK_AHEAD_MAX <= age && age <= AGE_MAX
}

/// One direction of a report.
enum Octets {
    Exact(u64),
    Overflow,
}

struct Counters {
    input: Option<Octets>,
    output: Option<Octets>,
    gigawords: bool,
}

impl Counters {
    fn read(view: &PacketView<'_>, profile: &Profile) -> Result<Self, Uninterpretable> {
        let mut input = Parts::default();
        let mut output = Parts::default();
        input.add(
            integer(view, attribute::ACCT_INPUT_OCTETS, "Acct-Input-Octets")?,
            integer(view, attribute::ACCT_INPUT_GIGAWORDS, "Acct-Input-Gigawords")?,
        );
        output.add(
            integer(view, attribute::ACCT_OUTPUT_OCTETS, "Acct-Output-Octets")?,
            integer(view, attribute::ACCT_OUTPUT_GIGAWORDS, "Acct-Output-Gigawords")?,
        );
        let gigawords = view.first(attribute::ACCT_INPUT_GIGAWORDS).is_some()
            || view.first(attribute::ACCT_OUTPUT_GIGAWORDS).is_some();
        if let Ipv6Octets::Separate { vendor, input: v6_input, input_gigawords, output: v6_output, output_gigawords } =
            profile.ipv6
        {
            let part = |kind, name| single(view.vendor(vendor, kind), name);
            input.add(
                part(v6_input, "the vendor's IPv6 input octets")?,
                part(input_gigawords, "the vendor's IPv6 input gigawords")?,
            );
            output.add(
                part(v6_output, "the vendor's IPv6 output octets")?,
                part(output_gigawords, "the vendor's IPv6 output gigawords")?,
            );
        }
        Ok(Self { input: input.sum(), output: output.sum(), gigawords })
    }
}

/// Sums the parts of one direction; at most 2·2^64, so it cannot leave `u128`.
#[derive(Default)]
struct Parts {
    octets: Option<u128>,
}

impl Parts {
    fn add(&mut self, octets: Option<u32>, gigawords: Option<u32>) {
        // Gigawords without octets say nothing about the low half; a NAS that counts always sends both.
        let Some(octets) = octets else { return };
        let part = u128::from(gigawords.unwrap_or(0)) << 32 | u128::from(octets);
        self.octets = Some(self.octets.unwrap_or(0) + part);
    }

    fn sum(&self) -> Option<Octets> {
        let octets = self.octets?;
        // Columns are 64 bits with a sign.
        Some(i64::try_from(octets).map_or(Octets::Overflow, |octets| Octets::Exact(octets.unsigned_abs())))
    }
}

fn framed_ip(view: &PacketView<'_>) -> Option<IpAddr> {
    [attribute::FRAMED_IP_ADDRESS, attribute::FRAMED_IPV6_ADDRESS]
        .into_iter()
        .find_map(|kind| view.first(kind).and_then(address))
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
        let value = number(value).ok_or(Uninterpretable::Length { attribute, octets: value.len() })?;
        if found.is_some_and(|earlier| earlier != value) {
            return Err(Uninterpretable::Ambiguous(attribute));
        }
        found = Some(value);
    }
    Ok(found)
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

const CLOCK_AHEAD_MAX: SignedDuration = SignedDuration::from_mins(10);
const AGE_MAX: SignedDuration = SignedDuration::from_hours(400 * 24);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::RequestBuilder;
    use super::*;
    use crate::vocabulary::{Secret, parse_instant};

    const BNG: NasRule<'static> = NasRule { name: "bng1", identity: IdentityRule::Client, profile: &STANDARD };
    const STANDARD: Profile = Profile { name: "default", swapped: false, ipv6: Ipv6Octets::Included };

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

    fn rule(profile: &str) -> NasRule<'static> {
        NasRule { profile: Profile::named(profile).expect("a profile"), ..BNG }
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
        let record = read(builder, &BNG).expect("a record");
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
        let record = read(stop(), &BNG).expect("a record");
        assert_eq!((record.in_octets, record.out_octets, record.session_seconds), (None, None, None));
        assert!(!record.gigawords);
    }

    #[test]
    fn a_counter_beyond_a_column_is_flagged_and_left_out() {
        let record = read(stop().integer(42, 5).integer(52, 0x8000_0000).integer(43, 5), &BNG).expect("a record");
        assert_eq!((record.in_octets, record.out_octets), (None, Some(5)));
        assert!(record.flags.counter_doubtful);
    }

    #[test]
    fn coovachilli_counts_the_other_way_round() {
        let record = read(stop().integer(42, 100).integer(43, 7), &rule("coovachilli")).expect("a record");
        assert_eq!((record.in_octets, record.out_octets), (Some(7), Some(100)));
    }

    #[test]
    fn huawei_counts_ipv6_apart_and_juniper_does_not() {
        let four = |value: u32| value.to_be_bytes();
        let with_part = |vendor, input, output, gigawords| {
            stop()
                .integer(42, 100)
                .integer(43, 1000)
                .vendor(vendor, input, &four(1))
                .vendor(vendor, output, &four(2))
                .vendor(vendor, gigawords, &four(3))
        };
        let huawei = read(with_part(2011, 144, 145, 148), &rule("huawei")).expect("a record");
        assert_eq!((huawei.in_octets, huawei.out_octets), (Some(101 + (3 << 32)), Some(1002)));
        let identical = read(with_part(2011, 144, 145, 148), &rule("huawei-identical")).expect("a record");
        assert_eq!((identical.in_octets, identical.out_octets), (Some(100), Some(1000)));
        let juniper = read(with_part(4874, 151, 152, 155), &rule("juniper")).expect("a record");
        assert_eq!((juniper.in_octets, juniper.out_octets), (Some(100), Some(1000)));
    }

    #[test]
    fn event_time_is_the_nas_clock_only_when_that_can_be_true() {
        let at = |text| parse_instant(text).expect("an instant");
        let seconds = |text| u32::try_from(at(text).as_second()).expect("this century");
        let cases = [
            (Some("2026-11-22T02:59:00Z"), None, "2026-11-22T02:59:00Z", false),
            (Some("2026-11-22T03:10:00Z"), Some(30), "2026-11-22T03:10:00Z", false),
            (Some("2026-11-22T03:10:01Z"), Some(30), "2026-11-22T02:59:30Z", true),
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
            let record = read(builder, &BNG).expect("a record");
            assert_eq!((record.event_at, record.flags.clock_doubtful), (at(expected), doubtful), "{event:?} {delay:?}");
        }
    }

    #[test]
    fn identity_behind_a_proxy_is_the_attribute_asked_for() {
        let by_identifier = NasRule { identity: IdentityRule::NasIdentifier, ..BNG };
        let by_address = NasRule { identity: IdentityRule::NasIp, ..BNG };
        let nas_ip = "192.0.2.7".parse().expect("an address");
        let both = stop().text(32, "olt-4").address(4, nas_ip);
        assert_eq!(read(both.clone(), &by_identifier).expect("a record").nas, "bng1/olt-4");
        assert_eq!(read(both.clone(), &by_address).expect("a record").nas, "bng1/192.0.2.7");
        assert_eq!(read(both, &BNG).expect("a record").nas, "bng1");
        let v6 = stop().address(95, "2001:db8::7".parse().expect("an address"));
        assert_eq!(read(v6, &by_address).expect("a record").nas, "bng1/2001:db8::7");
        let neither = read(stop(), &by_identifier).expect("a record");
        assert_eq!((neither.nas.as_str(), neither.flags.identity_missing), ("bng1", true));
    }

    #[test]
    fn ids_that_are_no_text_become_hex() {
        let start = |session: &[u8]| RequestBuilder::accounting(1).integer(40, 1).octets(44, session);
        assert_eq!(read(start(&[0xff, 0x00, 0x12]), &BNG).expect("a record").session, "0xff0012");
        assert_eq!(read(start(b"a\0b"), &BNG).expect("a record").session, "0x610062");
        assert_eq!(read(start("zoë".as_bytes()), &BNG).expect("a record").session, "zoë");
    }

    #[test]
    fn what_cannot_be_counted_is_named() {
        let status = |value: &[u8]| RequestBuilder::accounting(1).octets(40, value).text(44, "s");
        assert_eq!(
            read(RequestBuilder::accounting(1).text(44, "s"), &BNG),
            Err(Uninterpretable::Missing("Acct-Status-Type"))
        );
        assert_eq!(
            read(status(&[0, 0, 2]), &BNG),
            Err(Uninterpretable::Length { attribute: "Acct-Status-Type", octets: 3 })
        );
        assert_eq!(
            read(RequestBuilder::accounting(1).integer(40, 2), &BNG),
            Err(Uninterpretable::Missing("Acct-Session-Id"))
        );
        assert_eq!(
            read(stop().integer(42, 1).integer(42, 2), &BNG),
            Err(Uninterpretable::Ambiguous("Acct-Input-Octets"))
        );
        assert_eq!(read(stop().text(44, "s-2"), &BNG), Err(Uninterpretable::Ambiguous("Acct-Session-Id")));
        assert_eq!(
            read(stop().octets(46, &[1]), &BNG),
            Err(Uninterpretable::Length { attribute: "Acct-Session-Time", octets: 1 })
        );
        assert_eq!(read(stop().integer(42, 1).integer(42, 1), &BNG).expect("a record").in_octets, Some(1));
    }

    #[test]
    fn unknown_status_types_and_reboots_need_no_session() {
        let status = |value| RequestBuilder::accounting(1).integer(40, value);
        assert_eq!(read(status(7), &BNG).expect("a record").kind, RecordKind::AccountingOn);
        assert_eq!(read(status(8), &BNG).expect("a record").kind, RecordKind::AccountingOff);
        assert_eq!(read(status(12), &BNG).expect("a record").kind, RecordKind::Other(12));
    }

    proptest! {
        #[test]
        fn no_attributes_make_reading_panic(
            attributes in proptest::collection::vec(
                (prop_oneof![Just(26u8), 40u8..56, any::<u8>()], proptest::collection::vec(any::<u8>(), 0..12)), 0..12),
            rule_name in proptest::sample::select(Profile::names().collect::<Vec<_>>()),
        ) {
            let builder = attributes.iter().fold(stop(), |builder, (kind, value)| builder.octets(*kind, value));
            for identity in [IdentityRule::Client, IdentityRule::NasIdentifier, IdentityRule::NasIp] {
                let _ = read(builder.clone(), &NasRule { identity, ..rule(rule_name) });
            }
        }

        #[test]
        fn joined_counters_are_exact(octets in any::<u32>(), gigawords in 0u32..0x8000_0000) {
            let record = read(stop().integer(43, octets).integer(53, gigawords), &BNG).expect("a record");
            prop_assert_eq!(record.out_octets, Some((u64::from(gigawords) << 32) + u64::from(octets)));
            prop_assert!(!record.flags.counter_doubtful);
        }
    }
}
