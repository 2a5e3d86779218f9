//! An account that changes its bill cycle with something left of its top-ups.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::shared_tests::{GB, explained, grant, later, octets, of_data, rated_by};
use super::tests::{at, close, entry, facts};
use super::*;
use crate::billing::facts::{Grant, Stretch, UsageEntry};
use crate::billing::groups::{Sharing, grants_of, taken_elsewhere};
use crate::vocabulary::Timestamp;

/// An account that leaves the cycle of the fifteenth for the one of the first, as the runs of both see it.
struct Mover {
    old: AccountFacts,
    new: AccountFacts,
}

impl Mover {
    fn of(from: &str, moves: &str) -> Self {
        let (mut old, mut new) = (facts(from), facts(from));
        let before = Stretch { until: Some(at(moves)), ..old.services[0].stretches[0].clone() };
        let after = Stretch { from: at(moves), until: None, tariff: before.tariff.clone() };
        old.services[0].stretches = vec![before.clone()];
        old.services[0].elsewhere = vec![after.clone()];
        new.services[0].stretches = vec![after];
        new.services[0].elsewhere = vec![before];
        Self { old, new }
    }

    fn know(&mut self, usage: &[UsageEntry], grants: &[Grant], moves: &str) {
        for (facts, is_old) in [(&mut self.old, true), (&mut self.new, false)] {
            facts.services[0].usage = usage.to_vec();
            facts.watermark = usage.last().map_or(0, |entry| entry.sequence);
            let seen = |grant: &Grant| Grant { foreign: (grant.from < at(moves)) != is_old, ..grant.clone() };
            facts.grants = grants.iter().map(seen).collect();
        }
    }

    fn close(&mut self, old: bool, context: &RunContext) -> Vec<String> {
        let (own, other) = if old { (&mut self.old, &self.new) } else { (&mut self.new, &self.old) };
        let tells = |line: &&StoredLine| line.basis.pool.as_ref().is_some_and(|pool| !pool.grants.is_empty());
        own.issued_elsewhere = other.issued.iter().filter(tells).cloned().collect();
        of_data(&close(own, context))
    }

    /// What the lines of both cycles have used of a top-up, in octets.
    fn taken(&self, id: &str) -> Exact {
        let both = [&self.old, &self.new];
        let sides =
            both.map(|facts| AccountFacts { issued_elsewhere: facts.issued.clone(), ..AccountFacts::default() });
        taken_elsewhere(&sides, id).expect("in range")
    }
}

/// As `rated_by`, on the cycle of the first.
fn on_the_first(period: &str, keys: &str) -> RunContext {
    let mut context = rated_by("2026-10-15", keys);
    (context.cycle.id, context.cycle.anchor_day) = ("c01".to_owned(), 1);
    context.period = context.cycle.named(period).expect("a period");
    context.now = context.period.end;
    context
}

#[test]
fn rest_of_a_top_up_follows_the_account_to_another_cycle_and_back_never_twice() {
    let keys = octets("");
    let moves = "2026-11-01T05:00:00Z";
    let mut mover = Mover::of("2026-09-15T05:00:00Z", moves);
    let mut usage = vec![
        entry(1, "2026-09-20T15:00:00Z", 10 * GB),
        entry(2, "2026-10-20T15:00:00Z", 20 * GB),
        entry(3, "2026-11-05T15:00:00Z", 12 * GB),
        entry(4, "2026-12-05T15:00:00Z", 15 * GB),
    ];
    // Until the middle of December by the old calendar, so all of December by the new one.
    let grants = [
        grant("ch_1", 50, "2026-09-16T05:00:00Z", Some("2026-12-15T06:00:00Z")),
        // Posted after the change, it pays for nothing that was used before it on the old cycle.
        grant("ch_2", 1, "2026-11-02T05:00:00Z", Some("2026-12-01T06:00:00Z")),
    ];
    mover.know(&usage, &grants, moves);
    assert_eq!(mover.close(true, &rated_by("2026-09-15", &keys)), ["data 2026-09-15 usage 10 0.00"]);
    assert_eq!(mover.close(true, &rated_by("2026-10-15", &keys)), ["data 2026-10-15 usage 20 0.00"]);
    // 20 are left, and one more; November uses 12 of them, December has 9 for its 15.
    assert_eq!(mover.close(false, &on_the_first("2026-11-01", &keys)), ["data 2026-11-01 usage 12 0.00"]);
    assert_eq!(mover.close(false, &on_the_first("2026-12-01", &keys)), ["data 2026-12-01 usage 15 6.00"]);
    assert_eq!(mover.taken("ch_1").floor(), 50 * i128::from(GB));
    assert_eq!(mover.taken("ch_2").floor(), i128::from(GB));
    // What comes late on the old cycle finds nothing left; what is taken back there is free for the new one.
    usage.push(entry(5, "2026-10-21T15:00:00Z", 2 * GB));
    mover.know(&usage, &grants, moves);
    let old = |minutes: usize| later(rated_by("2026-10-15", &keys), 100 + minutes);
    let new = |minutes: usize| later(on_the_first("2026-12-01", &keys), minutes);
    assert_eq!(mover.close(true, &old(1)), ["data 2026-10-15 adjustment 2 2.00"]);
    assert_eq!(mover.close(false, &new(1)), Vec::<String>::new());
    usage.push(entry(6, "2026-09-20T15:00:00Z", -5 * GB));
    mover.know(&usage, &grants, moves);
    let back = mover.close(true, &old(2));
    assert_eq!(back, ["data 2026-09-15 adjustment -5 0.00", "data 2026-10-15 credit 0 -2.00"]);
    assert_eq!(mover.close(false, &new(2)), ["data 2026-12-01 credit 0 -3.00"]);
    assert_eq!((mover.close(true, &old(3)), mover.close(false, &new(3))), (Vec::new(), Vec::new()));
    assert_eq!(mover.taken("ch_1").floor(), 50 * i128::from(GB));
    for facts in [&mover.old, &mover.new] {
        assert_eq!(explained(facts, &new(4)), Vec::<String>::new());
    }
}

proptest! {
    #![proptest_config(crate::vocabulary::cases(1_000))]

    /// An account that changes its cycle at any day, billed by both in any order, while usage and top-ups come in: no top-up
    /// ever gives more than was granted, and in the end nobody pays in a period while there is one left for it.
    #[test]
    fn top_ups_of_an_account_that_changes_its_cycle_are_used_once_and_not_lost(
        used in prop::collection::vec((-20_000_000_000i64..90_000_000_000, 0i64..120), 1..10),
        granted in prop::collection::vec((1i64..60, 0i64..100, prop::option::of(1i64..120)), 1..4),
        moves in 1i64..100,
        runs in prop::collection::vec((0usize..10, any::<bool>()), 0..8),
        included in 0i64..40,
    ) {
        let keys = octets(&format!("allowance = {{ amount = \"{included}\" }}"));
        let start = at("2026-08-15T05:00:00Z").as_second();
        let day = |day: i64| Timestamp::from_second(start + day * 86_400).expect("in range").to_string();
        let moves = day(moves);
        // Taken back is only what was used on that day.
        let mut usage: Vec<UsageEntry> = Vec::new();
        for (octets, on) in &used {
            let sequence = usage.len() as i64 + 1;
            let there: i64 = usage.iter().filter(|entry| entry.from == at(&day(*on))).map(|entry| entry.out_octets).sum();
            usage.push(entry(sequence, &day(*on), (*octets).max(-there)));
        }
        let grants: Vec<Grant> = granted
            .iter()
            .enumerate()
            .map(|(index, (gigabytes, from, more))| {
                grant(&format!("ch_{index}"), *gigabytes, &day(*from), more.map(|more| day(from + more)).as_deref())
            })
            .collect();
        let mut mover = Mover::of("2026-08-15T05:00:00Z", &moves);
        let old_periods = ["2026-08-15", "2026-09-15", "2026-10-15", "2026-11-15"];
        let new_periods = ["2026-08-01", "2026-09-01", "2026-10-01", "2026-11-01", "2026-12-01"];
        let mut minutes = 0;
        let mut close = |mover: &mut Mover, old: bool| {
            let mut found = Vec::new();
            let periods: &[&str] = if old { &old_periods } else { &new_periods };
            for period in periods {
                minutes += 100_000;
                let context = if old { rated_by(period, &keys) } else { on_the_first(period, &keys) };
                found.extend(mover.close(old, &later(context, minutes)));
            }
            found
        };
        for (count, old) in runs {
            mover.know(&usage[..count.min(usage.len())], &grants[..1 + count % grants.len()], &moves);
            close(&mut mover, old);
            for grant in &grants {
                prop_assert!(mover.taken(&grant.id) <= Exact::from_int(i128::from(grant.amount)), "{}", grant.id);
            }
        }
        mover.know(&usage, &grants, &moves);
        let mut last = Vec::new();
        for turn in 0..8 {
            last = close(&mut mover, turn % 2 == 0);
            if turn > 2 && last.is_empty() {
                break;
            }
        }
        prop_assert_eq!(last, Vec::<String>::new(), "both come to rest");
        for facts in [&mover.old, &mover.new] {
            let is_old = facts.services[0].stretches[0].until.is_some();
            let context = if is_old { rated_by("2026-11-15", &keys) } else { on_the_first("2026-12-01", &keys) };
            let lines = facts.issued.iter().filter(|line| line.line.charge == "data");
            let newest: BTreeMap<Timestamp, &StoredLine> = lines.map(|line| (line.line.period.start, line)).collect();
            for line in newest.values().filter(|line| line.basis.quantity.0 > line.basis.allowance_used.0) {
                let open = |grant: &&Grant| mover.taken(&grant.id) < Exact::from_int(i128::from(grant.amount));
                let there = grants_of(std::slice::from_ref(facts), Sharing::Service(0, "1"), "data", &line.line.period);
                let left: Vec<&str> = there.into_iter().filter(open).map(|grant| grant.id.as_str()).collect();
                prop_assert!(left.is_empty(), "{} pays while {left:?} are left", line.line.description);
            }
            prop_assert_eq!(explained(facts, &context), Vec::<String>::new());
        }
    }
}
