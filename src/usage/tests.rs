//! The fold as its caller drives it: records of one session id in any order, against what a perfect collector knows.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// Everything the daemon keeps for one session id, in memory.
#[derive(Default)]
struct Book {
    journal: Vec<Record>,
    states: Vec<SessionState>,
    ledger: Vec<Vec<LedgerBucket>>,
    refolds: usize,
}

impl Book {
    fn take(&mut self, record: &Record, facts: &FoldFacts<'_>) {
        self.journal.push(record.clone());
        let index = match choose(&self.states, record) {
            Choice::Known(index) => index,
            Choice::New => {
                self.states.push(SessionState::new(facts));
                self.ledger.push(Vec::new());
                self.states.len() - 1
            }
        };
        let outcome = self.states[index].fold(record, facts).expect("fits");
        if outcome == Outcome::NeedsRefold {
            self.refold(facts);
        }
        supersede(&mut self.states.iter_mut().collect::<Vec<_>>());
        for (state, ledger) in self.states.iter_mut().zip(&mut self.ledger) {
            *state = SessionState::decode(&state.encode()).expect("own octets");
            ledger.extend(state.take_ready(facts.cuts));
        }
    }

    fn refold(&mut self, facts: &FoldFacts<'_>) {
        self.refolds += 1;
        let fresh = refold(&self.journal, facts).expect("fits");
        let continues = continued(&self.states.iter().collect::<Vec<_>>(), &fresh);
        for state in &mut self.states {
            state.void();
        }
        for (state, old) in fresh.into_iter().zip(continues) {
            match old {
                Some(old) => self.states[old] = state,
                None => {
                    self.states.push(state);
                    self.ledger.push(Vec::new());
                }
            }
        }
        for (state, ledger) in self.states.iter_mut().zip(&self.ledger) {
            state.settle(ledger, facts.cuts).expect("fits");
        }
    }

    fn totals(&self) -> Amount {
        self.states.iter().fold(Amount::default(), |sum, state| sum.plus(state.totals()).expect("fits"))
    }

    /// Ledger and pending usage by hour.
    fn hours(&self, edges: &[Timestamp]) -> BTreeMap<i64, Amount> {
        let mut all = Buckets::default();
        for (state, ledger) in self.states.iter().zip(&self.ledger) {
            let pending = state.pending().iter();
            for (start, amount) in pending.chain(ledger.iter().map(|entry| (entry.from_at, entry.amount))) {
                all.add(entry_bounds(start, Cuts::at(edges)).0, amount).expect("fits");
            }
        }
        all.iter().collect()
    }
}

fn at(seconds: i64) -> Timestamp {
    from_micros(BASE + seconds * 1_000_000).expect("in range")
}

fn record(kind: RecordKind, event: i64, session_seconds: Option<u64>, octets: Option<(u64, u64)>) -> Record {
    Record {
        nas: "bng1".into(),
        session: "80000001".into(),
        kind,
        user: Some("ada@acme".into()),
        event_at: at(event),
        arrived_at: at(event + 1),
        told: Told::default(),
        session_seconds,
        in_octets: octets.map(|(value, _)| value),
        out_octets: octets.map(|(_, value)| value),
        gigawords: false,
        class: None,
        framed_ip: None,
        framed_prefix: None,
        calling_station: None,
        terminate_cause: None,
        counting: Counting::default(),
        flags: RecordFlags::default(),
    }
}

/// An interim report that arrives at a second of the epoch and tells another.
pub(super) fn record_at(arrived: i64, told: i64) -> Record {
    let second = |second: i64| from_micros(second * 1_000_000).expect("in range");
    let told = Told { event_at: Some(second(told)), delay_seconds: None };
    Record { arrived_at: second(arrived), event_at: second(arrived), told, ..interim(0, 300, 50) }
}

fn start(event: i64) -> Record {
    record(RecordKind::Start, event, None, None)
}

fn interim(event: i64, seconds: u64, octets: u64) -> Record {
    record(RecordKind::Interim, event, Some(seconds), Some((octets, octets * 2)))
}

fn stop(event: i64, seconds: u64, octets: u64) -> Record {
    record(RecordKind::Stop, event, Some(seconds), Some((octets, octets * 2)))
}

fn fold_all(records: &[Record]) -> Book {
    let mut book = Book::default();
    records.iter().for_each(|record| book.take(record, &FACTS));
    book
}

fn inward(book: &Book) -> (i64, i64) {
    (book.totals().in_octets, book.totals().seconds)
}

const BASE: i64 = 1_793_000_000_000_000;
const FACTS: FoldFacts<'static> = FoldFacts {
    gigawords: false,
    max_bits_per_second: 10_000_000_000,
    edges: &[],
    cuts: Cuts::NONE,
    straddling: Straddling::Prorata,
    rebooted_at: None,
};

#[test]
fn duplicate_stop_bills_once() {
    let resigned = Record { arrived_at: at(900), ..stop(600, 600, 70) };
    let book = fold_all(&[start(0), interim(300, 300, 50), stop(600, 600, 70), stop(600, 600, 70), resigned]);
    assert_eq!(inward(&book), (70, 600));
    assert_eq!(book.states.len(), 1);
    assert_eq!(book.states[0].word(), "stopped");
}

#[test]
fn lost_start_begins_where_session_time_says() {
    let book = fold_all(&[interim(300, 300, 50)]);
    assert_eq!(book.states[0].started_at(), BASE);
    assert_eq!(inward(&book), (50, 300));
}

#[test]
fn lost_stop_closes_at_the_last_report_and_a_late_stop_still_applies() {
    let mut book = fold_all(&[start(0), interim(300, 300, 50)]);
    let facts = FoldFacts { rebooted_at: Some(at(700)), ..FACTS };
    assert!(book.states[0].close_if_rebooted(facts.rebooted_at));
    assert_eq!(book.states[0].ended_at(), Some(BASE + 300_000_000));
    assert_eq!(book.states[0].word(), "closed");
    book.take(&stop(600, 600, 80), &facts);
    assert_eq!((inward(&book), book.states[0].word()), ((80, 600), "stopped"));
}

#[test]
fn accounting_on_closes_no_newer_session() {
    let mut book = fold_all(&[start(0), interim(300, 300, 50)]);
    assert!(!book.states[0].close_if_rebooted(Some(at(200))), "it reported after that");
    let mut newer = fold_all(&[start(400)]);
    assert!(!newer.states[0].close_if_rebooted(Some(at(399))));
    assert!(book.states[0].close_if_rebooted(Some(at(399))));
}

#[test]
fn interim_after_stop_counts_only_if_larger() {
    let mut book = fold_all(&[start(0), stop(600, 600, 70), interim(650, 600, 60)]);
    assert_eq!(inward(&book), (70, 600));
    book.take(&interim(660, 600, 75), &FACTS);
    assert_eq!(inward(&book), (75, 600));
    assert_ne!(book.states[0].marks() & mark::CORRECTED_AFTER_STOP, 0);
}

#[test]
fn stop_without_counters_says_only_that_it_is_over() {
    let told = |octets| record(RecordKind::Stop, 600, Some(600), octets);
    let before = record(RecordKind::Interim, 300, Some(300), Some((0, 300)));
    for (octets, out_octets) in [(None, 300), (Some((0, 0)), 300), (Some((0, 500)), 500), (Some((7, 400)), 400)] {
        let book = fold_all(&[start(0), before.clone(), told(octets)]);
        assert_eq!((book.totals().out_octets, book.states[0].word()), (out_octets, "stopped"), "{octets:?}");
    }
}

#[test]
fn reused_session_id_is_a_new_incarnation() {
    let second = [start(1230), interim(1530, 300, 9), stop(1830, 600, 20)];
    let first = [start(0), interim(300, 300, 50), interim(600, 600, 60), stop(1200, 1200, 100)];
    let mut records: Vec<Record> = first.iter().chain(&second).cloned().collect();
    for _ in 0..records.len() {
        records.rotate_left(1);
        let book = fold_all(&records);
        assert_eq!((inward(&book), book.states.len()), ((120, 1800), 2));
    }
    let lost = fold_all(&[first[0].clone(), first[1].clone(), second[1].clone()]);
    assert_eq!(lost.states.iter().map(SessionState::word).collect::<Vec<_>>(), vec!["closed", "open"]);
    assert_eq!(lost.states[0].ended_at(), Some(BASE + 300_000_000));
}

#[test]
fn clock_that_cannot_be_right_still_tells_ids_used_again_apart() {
    // Half an hour ahead, and everything was held up on its way: it arrives within a moment, in no order.
    let first = [start(0), interim(300, 300, 50), interim(600, 600, 60), stop(1200, 1200, 100)];
    let second = [start(1230), interim(1530, 300, 9), stop(1830, 600, 20)];
    let records: Vec<Record> = first.into_iter().chain(second).collect();
    let arriving = |order: &[usize]| -> Vec<Record> {
        let ahead = |(place, index): (usize, &usize)| {
            let mut record = records[*index].clone();
            record.told.event_at = from_micros(to_micros(record.event_at) + 1_800_000_000);
            record.arrived_at = from_micros(BASE + place as i64 * 1_000).expect("in range");
            record.event_at = record.arrived_at;
            (record.flags.arrival_based, record.flags.clock_doubtful) = (true, true);
            record
        };
        order.iter().enumerate().map(ahead).collect()
    };
    let mut order: Vec<usize> = (0..records.len()).collect();
    for turn in 0..records.len() {
        order.rotate_left(1);
        if turn % 2 == 1 {
            order.swap(0, 2);
        }
        let book = fold_all(&arriving(&order));
        assert_eq!((inward(&book), book.states.len()), ((120, 1800), 2), "{order:?}");
    }
}

#[test]
fn id_used_again_in_the_same_second_is_told_by_its_session_time() {
    let book = fold_all(&[start(0), stop(600, 600, 70), interim(900, 300, 20), stop(1200, 600, 30)]);
    assert_eq!((inward(&book), book.states.len()), ((100, 1200), 2));
}

#[test]
fn arrival_based_times_are_ordered_by_session_time() {
    let doubtful = |mut record: Record, event_millis: i64| {
        record.event_at = from_micros(BASE + event_millis * 1000).expect("in range");
        record.flags.arrival_based = true;
        record
    };
    let records = [
        doubtful(interim(0, 600, 60), 5),
        doubtful(start(0), 6),
        doubtful(interim(0, 300, 50), 9),
        doubtful(stop(0, 900, 70), 7),
        doubtful(interim(0, 300, 50), 11),
    ];
    let book = fold_all(&records);
    assert_eq!((inward(&book), book.states.len()), ((70, 900), 1));
    assert_eq!(book.states[0].marks(), mark::CLOCK_DOUBTFUL);
}

#[test]
fn first_report_dated_by_its_arrival_puts_those_before_it_in_order() {
    let mut dated_by_arrival = stop(302, 320, 70);
    dated_by_arrival.flags.arrival_based = true;
    let records = [interim(300, 310, 60), interim(305, 300, 50), dated_by_arrival];
    let mut book = fold_all(&records);
    assert_eq!((inward(&book), book.states.len(), book.refolds), ((70, 320), 1, 0));
    let marks = book.states[0].marks();
    book.refold(&FACTS);
    assert_eq!((inward(&book), marks), ((70, 320), book.states[0].marks()), "as from the journal");
}

#[test]
fn a_record_older_than_the_tail_is_found_by_a_refold() {
    let mut records: Vec<Record> =
        (1..40).map(|i| interim(i * 600, i.unsigned_abs() * 600, 1000 * i.unsigned_abs())).collect();
    let late = records.remove(3);
    records.push(late);
    let book = fold_all(&records);
    assert_eq!(book.refolds, 1);
    assert_eq!(inward(&book), (39_000, 39 * 600));
    let straight = {
        records.sort_by_key(|record| record.event_at);
        fold_all(&records)
    };
    assert_eq!(book.hours(&[]), straight.hours(&[]));
}

#[test]
fn first_gigawords_of_a_session_that_wrapped_before_its_tail_ask_for_a_refold() {
    let counters = |octets: u64| Some((octets, octets));
    // The counters fall from 4.2 GB before the tail, or never.
    let before = |first: u64| {
        let rest = (2..40).map(|i| record(RecordKind::Interim, i * 600, Some(i.unsigned_abs() * 600), counters(1_000)));
        let mut records = vec![record(RecordKind::Interim, 600, Some(600), counters(first))];
        records.extend(rest);
        records
    };
    let with_gigawords = Record { gigawords: true, ..stop(24_000, 24_000, 5_000_000_000) };
    let mut wrapped = fold_all(&before(4_200_000_000));
    assert_eq!((wrapped.states[0].marks() & mark::WRAPPED, wrapped.refolds), (mark::WRAPPED, 0));
    wrapped.take(&with_gigawords, &FACTS);
    assert_eq!(wrapped.refolds, 1, "what was read as a wrap was none");
    let mut straight = before(4_200_000_000);
    straight.push(with_gigawords.clone());
    straight.rotate_right(1);
    assert_eq!(inward(&wrapped), inward(&fold_all(&straight)));
    let mut level = fold_all(&before(1_000));
    level.take(&with_gigawords, &FACTS);
    assert_eq!(level.refolds, 0);
}

/// Records in every order that a rotation gives, some of them twice.
fn rotations(records: &[Record]) -> Vec<Vec<Record>> {
    let mut all = Vec::new();
    let mut turned = records.to_vec();
    for _ in 0..records.len() {
        turned.rotate_left(1);
        all.push([&turned[..], &turned[..2]].concat());
    }
    all
}

#[test]
fn class_and_name_that_change_split_no_session() {
    let mut records = [start(0), interim(300, 300, 50), stop(600, 600, 70)];
    for (record, word) in records.iter_mut().zip(["a", "b", "c"]) {
        (record.user, record.class) = (Some(word.to_owned()), Some(word.to_owned()));
        record.framed_ip = Some(std::net::Ipv4Addr::new(100, 64, 0, word.len() as u8).into());
    }
    let book = fold_all(&records);
    assert_eq!((inward(&book), book.states.len()), ((70, 600), 1));
}

#[test]
fn reboot_without_accounting_on_is_told_by_session_time() {
    // Power was lost: no Stop, no Accounting-On, and the NAS counts its ids from the same number again.
    let book = fold_all(&[start(0), interim(300, 300, 50), interim(1200, 300, 80), stop(1500, 600, 90)]);
    assert_eq!((inward(&book), book.states.len()), ((50 + 90, 300 + 600), 2));
    assert_eq!(book.states.iter().map(SessionState::word).collect::<Vec<_>>(), ["closed", "stopped"]);
    assert_eq!(book.states[0].ended_at(), Some(BASE + 300_000_000), "at its last report, not when the next one came");
}

#[test]
fn clock_found_off_inside_a_session_makes_no_second_one_and_hides_none() {
    // The NAS is two hours behind, which is known from the second report on.
    let told = |mut record: Record, offset: i64| {
        record.told.event_at = Some(record.event_at);
        record.arrived_at = from_micros(to_micros(record.event_at) + 7_200_000_000).expect("in range");
        record.correct_clock(offset);
        record
    };
    let known = |record| told(record, 7_200);
    let one = [told(interim(300, 300, 50), 0), known(interim(600, 600, 60)), known(stop(900, 900, 70))];
    for order in rotations(&one) {
        let book = fold_all(&order);
        assert_eq!((inward(&book), book.states.len()), ((70, 900), 1));
        assert_ne!(book.states[0].marks() & mark::CLOCK_DOUBTFUL, 0);
    }
    let mended = Record { event_at: at(900 + 7_200), ..stop(900, 900, 70) };
    let book = fold_all(&[known(interim(300, 300, 50)), known(interim(600, 600, 60)), mended]);
    assert_eq!((inward(&book), book.states.len()), ((70, 900), 1), "its clock was set right");
    let two = [known(interim(300, 300, 50)), known(stop(600, 600, 60)), known(interim(1500, 300, 7))];
    let book = fold_all(&two);
    assert_eq!((inward(&book), book.states.len()), ((67, 900), 2), "used again an hour before that");
}

#[test]
fn informative_session_is_kept_and_gives_the_ledger_nothing() {
    let informative = |mut record: Record| {
        record.counting.informative = true;
        record
    };
    // Only one report of it tells: what the others gave is taken back, in any order.
    for told in 0..4 {
        let mut records = vec![start(0), interim(3600, 3600, 50), interim(7200, 7200, 60), stop(10_800, 10_800, 70)];
        records[told] = informative(records[told].clone());
        for order in rotations(&records) {
            let book = fold_all(&order);
            assert_eq!(inward(&book), (70, 10_800), "it is still shown");
            assert_eq!(book.states[0].marks(), mark::INFORMATIVE);
            let owed = book.hours(&[]).values().try_fold(Amount::default(), |sum, part| sum.plus(*part));
            assert_eq!(owed, Ok(Amount::default()), "told by report {told}");
        }
    }
}

#[test]
fn links_of_a_multilink_session_add_octets_and_not_time() {
    let mut second = [start(60), interim(360, 300, 50), stop(660, 600, 70)];
    second[0].counting.further_link = true;
    for order in rotations(&second) {
        let totals = fold_all(&order).totals();
        assert_eq!(totals, Amount { in_octets: 70, out_octets: 140, seconds: 0, sessions: 0 });
    }
}

#[test]
fn counters_since_the_last_report_are_added_once_each() {
    let since_last = |mut record: Record| {
        record.counting.interval = true;
        record
    };
    let records: Vec<Record> = (1..30u64)
        .map(|i| interim(i.cast_signed() * 300, i * 300, 7))
        .chain([stop(9000, 9000, 3)])
        .map(since_last)
        .collect();
    for order in rotations(&records) {
        assert_eq!(inward(&fold_all(&order)), (29 * 7 + 3, 9000));
    }
}

/// One incarnation as a NAS would report it, with what it truly carried.
fn life(began: i64, deltas: &[(u32, u32)], reset_at: Option<usize>, wraps: bool) -> (Vec<Record>, Amount) {
    let mut records = vec![start(began)];
    let (mut seen, mut true_sum) = ((0u64, 0u64), (0u64, 0u64));
    for (index, (up, down)) in deltas.iter().enumerate() {
        let (mut up, mut down) = (u64::from(*up), u64::from(*down));
        if reset_at == Some(index) && seen.0 > 0 && seen.1 > 0 {
            (up, down) = (up % seen.0, down % seen.1);
            seen = (0, 0);
        }
        seen = (seen.0 + up, seen.1 + down);
        true_sum = (true_sum.0 + up, true_sum.1 + down);
        let seconds = 300 * (index as u64 + 1);
        let kind = if index + 1 == deltas.len() { RecordKind::Stop } else { RecordKind::Interim };
        let shown = if wraps { (seen.0 % (1 << 32), seen.1 % (1 << 32)) } else { seen };
        let mut report = record(kind, began + 300 * (index as i64 + 1), Some(seconds), Some(shown));
        report.gigawords = !wraps;
        records.push(report);
    }
    let amount = Amount {
        in_octets: true_sum.0.cast_signed(),
        out_octets: true_sum.1.cast_signed(),
        seconds: 300 * deltas.len() as i64,
        sessions: 1,
    };
    (records, amount)
}

fn shuffled(records: &[Record], keys: &[u16]) -> Vec<Record> {
    let mut keyed: Vec<(u16, usize, &Record)> =
        records.iter().enumerate().map(|(at, record)| (keys[at % keys.len()] ^ at as u16, at, record)).collect();
    keyed.sort_by_key(|(key, at, _)| (*key, *at));
    keyed.into_iter().map(|(_, _, record)| record.clone()).collect()
}

#[test]
fn session_knows_what_it_holds_and_what_only_the_journal_can_tell() {
    let book = fold_all(&[start(0), interim(300, 300, 50), interim(600, 600, 80)]);
    let state = &book.states[0];
    assert_eq!(state.knows(&start(0)), Some(true));
    assert_eq!(state.knows(&start(1)), Some(false));
    assert_eq!(state.knows(&interim(300, 300, 50)), Some(true));
    assert_eq!(state.knows(&interim(300, 300, 51)), Some(false), "other octets are another report");
    assert_eq!(state.knows(&interim(450, 450, 60)), Some(false), "it would find its place");
    assert_eq!((state.last_at(), state.counters()), (BASE + 600_000_000, Some((80, 160))));
    assert!(!state.may_be_coarse());
    // Beyond the bounded tail: the last of what left it is known, what lies before it is not.
    let long: Vec<Record> = (1..=30).map(|i| interim(300 * i, 300 * i as u64, 10 * i as u64)).collect();
    let book = fold_all(&long);
    let state = &book.states[0];
    assert_eq!(state.knows(&interim(300, 300, 10)), None);
    assert_eq!(state.knows(&interim(4_200, 4_200, 140)), Some(true), "where the tail begins");
    assert_eq!(state.knows(&interim(4_200, 4_200, 141)), None);
    assert_eq!(state.knows(&interim(9_000, 9_000, 300)), Some(true));
}

#[test]
fn state_comes_back_from_its_octets_as_it_was() {
    let arrived =
        |record: Record| Record { flags: RecordFlags { arrival_based: true, ..RecordFlags::default() }, ..record };
    let giga = |record: Record| Record { gigawords: true, ..record };
    let lives = [
        vec![start(0), interim(300, 300, 50)],
        vec![giga(start(0)), giga(interim(300, 300, 50)), giga(stop(600, 600, 70))],
        vec![arrived(interim(300, 300, 50)), arrived(interim(600, 600, 60))],
        (1..=30).map(|i| interim(300 * i, 300 * i.unsigned_abs(), 10 * i.unsigned_abs())).collect(),
    ];
    for records in lives {
        for gigawords in [false, true] {
            let facts = FoldFacts { gigawords, ..FACTS };
            let mut state = SessionState::new(&facts);
            for record in &records {
                state.fold(record, &facts).expect("fits");
                assert_eq!(SessionState::decode(&state.encode()).expect("own octets"), state);
            }
            state.close_if_rebooted(Some(at(20_000)));
            assert_eq!(SessionState::decode(&state.encode()).expect("own octets"), state);
        }
    }
}

#[test]
fn usage_without_an_owner_is_kept_by_the_hour_only_after_three_weeks() {
    let three_weeks = 2_016 * 900;
    let lived = |seconds: i64| fold_all(&[start(0), interim(seconds, seconds as u64, 5)]).states.remove(0);
    assert!(!lived(three_weeks).may_be_coarse());
    assert!(lived(three_weeks + 1).may_be_coarse());
}

#[test]
fn long_session_is_cut_the_same_bit_by_bit_and_folded_anew() {
    const DAY: i64 = 86_400;
    // A window that begins half an hour into an hour; and usage that is kept by five minutes.
    let half = [at(DAY / 2 + 1_800)];
    for cuts in [Cuts::at(&half), Cuts { at: &[], fine: true }] {
        let facts = FoldFacts { cuts, ..FACTS };
        let mut records = vec![start(0)];
        records.extend((1..=15).map(|of| interim(of * 3 * DAY, (of * 3 * DAY) as u64, of as u64 * 1_000_000_007)));
        records.push(stop(46 * DAY, (46 * DAY) as u64, 16_000_000_112));
        let mut book = Book::default();
        records.iter().for_each(|record| book.take(record, &facts));
        let mut anew = refold(&records, &facts).expect("fits").remove(0);
        assert_eq!(book.refolds, 0, "each came in its order");
        assert!(anew.pending().len() > 4_000, "{} buckets", anew.pending().len());
        let whole = |entries: Vec<LedgerBucket>| {
            let mut sums = Buckets::default();
            entries.iter().for_each(|entry| sums.add(entry.from_at, entry.amount).expect("fits"));
            sums
        };
        assert_eq!(whole(anew.take_ready(cuts)), whole(book.ledger.remove(0)));
    }
}

#[test]
fn reboot_closes_what_reported_before_it_and_nothing_else() {
    let open = || fold_all(&[start(100), interim(300, 200, 50)]).states.remove(0);
    assert!(!open().close_if_rebooted(None));
    assert!(!open().close_if_rebooted(Some(at(299))), "it reported after that");
    assert!(open().close_if_rebooted(Some(at(300))), "at its last report");
    let mut closed = open();
    assert!(closed.close_if_rebooted(Some(at(400))) && !closed.close_if_rebooted(Some(at(500))), "once");
    let mut stopped = fold_all(&[start(100), stop(300, 200, 50)]).states.remove(0);
    assert!(!stopped.close_if_rebooted(Some(at(400))));
    // A report after the reboot opens it again, and tells.
    closed.fold(&interim(401, 301, 60), &FoldFacts { rebooted_at: Some(at(400)), ..FACTS }).expect("fits");
    assert_eq!(closed.ended_at(), None);
}

#[test]
fn flush_takes_what_began_before_its_instant() {
    let mut state = fold_all(&[start(0), interim(300, 300, 30), interim(7_500, 7_500, 750)]).states.remove(0);
    let early = state.take_until(at(3_600), Cuts::NONE);
    let before: i64 = early.iter().map(|entry| entry.amount.in_octets).sum();
    assert!(early.iter().all(|entry| entry.from_at < BASE + 3_600_000_000), "{early:?}");
    let late = state.take_until(at(100_000), Cuts::NONE);
    let rest: i64 = late.iter().map(|entry| entry.amount.in_octets).sum();
    assert!(!late.is_empty());
    assert!(before + rest <= 750 && rest > 0);
    assert_eq!(state.take_until(at(100_000), Cuts::NONE), []);
}

#[test]
fn id_used_again_is_told_by_time_and_counters() {
    let sessions = |records: &[Record]| fold_all(records).states.len();
    let first = [start(0), interim(300, 300, 50)];
    let then = |record: Record| sessions(&[first.to_vec(), vec![record]].concat());
    assert_eq!(then(interim(600, 300, 60)), 1, "it lasted as long as the clock says, and five seconds are nothing");
    assert_eq!(then(interim(610, 305, 60)), 1);
    assert_eq!(then(interim(610, 304, 60)), 2, "it began after the last report");
    assert_eq!(then(start(600)), 2, "a later Start begins anew");
    assert_eq!(then(start(0)), 1, "the same one again");
    // Without session time only a counter that fell after the Stop tells, and not within five seconds.
    let ended = [start(0), stop(300, 300, 50)];
    let untimed = |event: i64, octets: u64| record(RecordKind::Interim, event, None, Some((octets, octets * 2)));
    let after = |record: Record| sessions(&[ended.to_vec(), vec![record]].concat());
    assert_eq!(after(untimed(306, 49)), 2);
    assert_eq!(after(untimed(305, 49)), 1);
    assert_eq!(after(untimed(306, 50)), 1, "nothing fell");
    assert_eq!(after(record(RecordKind::Stop, 306, None, Some((49, 98)))), 1, "a second Stop");
    assert_eq!(after(record(RecordKind::Interim, 306, None, Some((60, 99)))), 2, "one that fell is enough");
    assert_eq!(after(record(RecordKind::Interim, 306, None, None)), 1);
}

proptest! {
    #![proptest_config(crate::vocabulary::cases(200))]

    #[test]
    fn any_order_and_any_duplicates_give_the_same_ledger(
        first in proptest::collection::vec((1u32..50_000_000, 1u32..400_000_000), 1..30),
        second in proptest::collection::vec((1u32..50_000_000, 1u32..400_000_000), 0..6),
        reset in proptest::option::of(1usize..30),
        twice in proptest::collection::vec(any::<proptest::sample::Index>(), 0..10),
        keys in proptest::collection::vec(any::<u16>(), 50..60),
        edges in proptest::collection::btree_set(0i64..12_000, 0..3),
    ) {
        let (mut records, mut truth) = life(0, &first, reset, false);
        if !second.is_empty() {
            let (again, more) = life(300 * first.len() as i64 + 90, &second, None, false);
            records.extend(again);
            truth = truth.plus(more).expect("fits");
        }
        let edges: Vec<Timestamp> = edges.into_iter().map(at).collect();
        let straddling = if keys[0] % 2 == 0 { Straddling::Prorata } else { Straddling::Report };
        let facts = FoldFacts { gigawords: true, edges: &edges, cuts: Cuts::at(&edges), straddling, ..FACTS };
        let mut straight = Book::default();
        records.iter().for_each(|record| straight.take(record, &facts));
        prop_assert_eq!(straight.totals(), truth);
        for index in &twice {
            records.push(index.get(&records).clone());
        }
        let mut book = Book::default();
        for record in shuffled(&records, &keys) {
            book.take(&record, &facts);
            let sum = book.hours(&edges).values().try_fold(Amount::default(), |sum, part| sum.plus(*part));
            prop_assert_eq!(sum.expect("fits"), book.totals(), "buckets always add up to the totals");
        }
        prop_assert_eq!(book.totals(), truth);
        prop_assert_eq!(book.hours(&edges), straight.hours(&edges));
    }

    #[test]
    fn wraps_without_gigawords_are_counted_in_any_order(
        deltas in proptest::collection::vec((1u32..(1 << 28), (1u32 << 31)..u32::MAX), 1..15),
        keys in proptest::collection::vec(any::<u16>(), 20..30),
    ) {
        let (records, truth) = life(0, &deltas, None, true);
        let mut book = Book::default();
        shuffled(&records, &keys).iter().for_each(|record| book.take(record, &FACTS));
        prop_assert_eq!(book.totals(), truth);
    }
}
