//! Counting: no octet is lost or made, whatever windows, classes, days and sessions a charge tells apart.

use proptest::prelude::*;

use super::*;
use crate::billing::parts::{Metered, meter};
use crate::billing::tariff::{Charge, ChargeKind, Tariff};

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant of the test")
}

fn charge(keys: &str) -> Charge {
    let text = format!(
        "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"data\"\n\
         type = \"usage\"\nmeter = \"octets\"\nunit = \"MB\"\nmodel = \"standard\"\nunit_amount = \"1\"\n{keys}\n"
    );
    Tariff::read("t.toml", &text).expect("a sound tariff of the test").charges.remove(0)
}

fn metered(charge: &Charge, zone: &str, entries: &[UsageEntry]) -> Metered {
    let ChargeKind::Usage(usage) = &charge.kind else { panic!("a usage charge") };
    let coverage = [(at("2026-10-24T00:00:00Z"), at("2026-11-12T00:00:00Z"))];
    meter(charge, usage, &Zone::get(zone).expect("a zone"), &coverage, entries).expect("in range")
}

fn entry(sequence: i64, from: &str, until: &str, up: i64, down: i64) -> UsageEntry {
    let (from, until) = (at(from), at(until));
    UsageEntry {
        sequence,
        session: 1,
        class: None,
        call: None,
        from,
        until,
        in_octets: up,
        out_octets: down,
        seconds: until.as_second() - from.as_second(),
        sessions: 0,
    }
}

fn shown(metered: &Metered) -> Vec<String> {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
    let part = |part: &super::super::parts::Part| {
        format!("{} {} {} {}", name(&part.class), name(&part.window), part.raw, part.quantity)
    };
    metered.parts.iter().map(part).collect()
}

const NIGHT: &str =
    "windows = [{ id = \"night\", days = \"mon-sun\", from = \"01:30\", to = \"07:00\", weight = \"0\" }]";

#[test]
fn an_entry_over_a_windows_edge_is_split_to_the_octet() {
    let charge = charge(&format!("direction = \"down\"\n{NIGHT}"));
    let hour = entry(1, "2026-11-10T01:00:00Z", "2026-11-10T02:00:00Z", 0, 3_000_001);
    let found = metered(&charge, "UTC", &[hour]);
    assert_eq!(shown(&found), ["- - 1500000 1.5", "- night 1500001 1.500001"]);
    assert_eq!((found.raw, found.quantity.to_string().as_str()), (3_000_001, "1.5"));
}

#[test]
fn quarter_hours_of_a_zone_are_exact() {
    let charge = charge(&format!("direction = \"down\"\n{NIGHT}"));
    // In Kathmandu, 5:45 ahead, the night begins at 19:45 UTC.
    let quarter = |sequence, from: &str, until: &str, down| entry(sequence, from, until, 0, down);
    let entries = [
        quarter(1, "2026-11-10T19:00:00Z", "2026-11-10T19:45:00Z", 700),
        quarter(2, "2026-11-10T19:45:00Z", "2026-11-10T20:00:00Z", 11),
    ];
    let found = metered(&charge, "Asia/Kathmandu", &entries);
    assert_eq!(shown(&found), ["- - 700 0.0007", "- night 11 0.000011"]);
}

#[test]
fn a_class_is_rated_by_its_own_price_in_its_own_direction() {
    let charge = charge(&format!(
        "direction = \"sum\"\n{NIGHT}\nclasses = {{ zero-rated = \"0\", voip = {{ unit_amount = \"0.5\", direction = \"up\" }}, half = {{ weight = \"0.5\" }} }}"
    ));
    let of = |sequence, class: Option<&str>| UsageEntry {
        class: class.map(Arc::from),
        ..entry(sequence, "2026-11-10T02:00:00Z", "2026-11-10T03:00:00Z", 2_000_000, 8_000_000)
    };
    let day = UsageEntry {
        class: Some(Arc::from("half")),
        ..entry(5, "2026-11-10T12:00:00Z", "2026-11-10T13:00:00Z", 0, 6_000_000)
    };
    let entries = [of(1, Some("zero-rated")), of(2, Some("voip")), of(3, None), of(4, Some("unheard-of")), day];
    let found = metered(&charge, "UTC", &entries);
    assert_eq!(
        shown(&found),
        ["- night 20000000 20", "half - 6000000 6", "voip - 2000000 2", "zero-rated - 10000000 10"]
    );
    assert_eq!((found.quantity.to_string(), found.apart.to_string()), ("3".to_owned(), "1".to_owned()));
    assert_eq!(found.raw, 38_000_000);
}

#[test]
fn the_larger_direction_is_chosen_for_the_whole_billed_time() {
    let charge = charge(&format!("direction = \"max\"\n{NIGHT}"));
    let entries = [
        entry(1, "2026-11-10T02:00:00Z", "2026-11-10T03:00:00Z", 900, 100),
        entry(2, "2026-11-10T12:00:00Z", "2026-11-10T13:00:00Z", 100, 1_000),
    ];
    assert_eq!(shown(&metered(&charge, "UTC", &entries)), ["- - 1000 0.001", "- night 100 0.0001"]);
}

#[test]
fn sessions_and_days_are_quantized_one_by_one() {
    let entries = [
        entry(1, "2026-11-10T05:00:00Z", "2026-11-10T05:30:00Z", 0, 100_000),
        UsageEntry { session: 2, ..entry(2, "2026-11-10T05:30:00Z", "2026-11-10T06:30:00Z", 0, 300_000) },
        entry(3, "2026-11-10T08:00:00Z", "2026-11-10T09:00:00Z", 0, 500_000),
    ];
    for (level, quantity) in [("session", "2"), ("day", "2"), ("cycle", "0.9")] {
        let charge = charge(&format!("direction = \"down\"\nquantize = {{ to = \"1 MB\", level = \"{level}\" }}"));
        // In Chicago the day begins at 06:00 UTC: 250,000 octets before it, 650,000 after it.
        assert_eq!(metered(&charge, "America/Chicago", &entries).quantity.to_string(), quantity, "{level}");
    }
    let corrected = [&entries[..], &[entry(4, "2026-11-10T08:00:00Z", "2026-11-10T09:00:00Z", 0, -500_000)]].concat();
    let by_day = charge("direction = \"down\"\nquantize = { to = \"0.1 MB\", level = \"day\" }");
    // 250,000 and 150,000 octets become 0.3 and 0.2.
    assert_eq!(metered(&by_day, "America/Chicago", &corrected).quantity.to_string(), "0.5");
}

fn random_entries() -> impl Strategy<Value = Vec<UsageEntry>> {
    let one = (0i64..2_000, 1i64..3_700, 0i64..4_000_000_000, 0i64..4_000_000_000, 0i64..4, 0usize..4);
    prop::collection::vec(one, 1..12).prop_map(|list| {
        let start = at("2026-10-25T00:00:00Z").as_second();
        let classes = [None, Some("a"), Some("b"), Some("c")];
        let entry = |(index, (place, length, up, down, session, class)): (usize, (i64, i64, i64, i64, i64, usize))| {
            let from = Timestamp::from_second(start + place * 700).expect("in range");
            let until = Timestamp::from_second(start + place * 700 + length).expect("in range");
            let (in_octets, out_octets, class) = (up, down, classes[class].map(Arc::from));
            UsageEntry {
                sequence: index as i64,
                session,
                class,
                call: None,
                from,
                until,
                in_octets,
                out_octets,
                seconds: length,
                sessions: 1,
            }
        };
        list.into_iter().enumerate().map(entry).collect()
    })
}

proptest! {
    #![proptest_config(crate::vocabulary::cases(10_000))]

    /// Σ parts = what was used, for every direction and level of rounding; an entry and its opposite cancel.
    #[test]
    fn octets_are_conserved(
        entries in random_entries(),
        direction in prop::sample::select(vec!["up", "down", "sum"]),
        level in prop::sample::select(vec!["session", "day", "cycle"]),
        zone in prop::sample::select(vec!["America/Chicago", "Asia/Kathmandu", "UTC"]),
        from in 0u16..24, until in 0u16..24, minutes in prop::sample::select(vec!["00", "15", "30", "45"]),
    ) {
        prop_assume!(from != until);
        let charge = charge(&format!(
            "direction = \"{direction}\"\nquantize = {{ to = \"1 octet\", level = \"{level}\" }}\n\
             windows = [{{ id = \"w\", days = \"sat-wed\", from = \"{from:02}:{minutes}\", to = \"{until:02}:{minutes}\", weight = \"0.5\" }}]\n\
             classes = {{ a = \"0\", b = {{ weight = \"0\" }} }}"
        ));
        let found = metered(&charge, zone, &entries);
        let used = |entry: &UsageEntry| match direction {
            "up" => entry.in_octets,
            "down" => entry.out_octets,
            _ => entry.in_octets + entry.out_octets,
        };
        prop_assert_eq!(found.raw, entries.iter().map(used).sum::<i64>());
        prop_assert_eq!(found.parts.iter().map(|part| part.raw).sum::<i64>(), found.raw);
        prop_assert_eq!(found.events, entries.len() as u64);
        let opposite = |entry: &UsageEntry| UsageEntry {
            sequence: entry.sequence + 100,
            in_octets: -entry.in_octets, out_octets: -entry.out_octets, seconds: -entry.seconds, sessions: -entry.sessions,
            ..entry.clone()
        };
        let with_opposites: Vec<UsageEntry> = entries.iter().cloned().chain(entries.iter().map(opposite)).collect();
        prop_assert_eq!(metered(&charge, zone, &with_opposites).parts, vec![]);
    }

    /// Entries cut at any instant count as the whole entry does, and their order does not matter.
    #[test]
    fn cutting_entries_where_windows_change_moves_nothing(entries in random_entries(), rotation in 0usize..12) {
        let charge = charge(&format!("direction = \"sum\"\n{NIGHT}"));
        let whole = metered(&charge, "Asia/Kathmandu", &entries);
        let ChargeKind::Usage(usage) = &charge.kind else { panic!("a usage charge") };
        let zone = Zone::get("Asia/Kathmandu").expect("a zone");
        let mut cut = Vec::new();
        for entry in &entries {
            let timeline = Timeline::of(&usage.windows, &zone, entry.from, entry.until).expect("in range");
            for (from, until, _) in timeline.pieces(entry.from, entry.until) {
                let share = |total: i64| part(i128::from(total), entry, (from, until)) as i64;
                let sessions = i64::from(from == entry.from);
                let (in_octets, out_octets) = (share(entry.in_octets), share(entry.out_octets));
                cut.push(UsageEntry { from, until, in_octets, out_octets, seconds: 0, sessions, ..entry.clone() });
            }
        }
        let places = cut.len();
        cut.rotate_left(rotation % places);
        prop_assert_eq!(metered(&charge, "Asia/Kathmandu", &cut).parts, whole.parts);
    }
}
