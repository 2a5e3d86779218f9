//! Counts on paper: who counts on which day, and what each rule makes of it.

use super::*;
use crate::billing::calendar::Every;
use crate::vocabulary::Zone;

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant of the test")
}

fn member(account: &str, service: &str, plan: &str, from: &str, until: Option<&str>) -> Member {
    Member {
        account: account.to_owned(),
        service: service.to_owned(),
        service_type: ServiceType::Internet,
        plan: plan.to_owned(),
        status: Status::Active,
        from: at(from),
        until: until.map(at),
    }
}

/// Days of November that each is there: a/1 1 to 10, a/2 6 to 30, b/1 10 to 12; a/1 comes back on the 20th.
fn census() -> Census {
    Census {
        tenant: "small".to_owned(),
        members: vec![
            member("default/a", "1", "slow", "2026-10-01T00:00:00Z", Some("2026-11-10T15:00:00Z")),
            member("default/a", "1", "slow", "2026-11-20T23:59:59Z", None),
            member("default/a", "2", "fast", "2026-11-06T01:00:00Z", None),
            member("default/b", "1", "slow", "2026-11-10T00:00:00Z", Some("2026-11-13T00:00:00Z")),
        ],
    }
}

fn counted(what: Counted, rule: CountRule, plans: &[&str]) -> Tally {
    let cycle = BillCycle {
        id: "c".to_owned(),
        anchor_day: 1,
        every: Every::Month,
        zone: Zone::UTC,
        timezone: "UTC".to_owned(),
    };
    let period = cycle.named("2026-11").expect("a period");
    let plans = plans.iter().map(|plan| (*plan).to_owned()).collect();
    let count = Count::of(what, rule, (Vec::new(), plans, vec![Status::Active]));
    tally(&count, &census(), &cycle, &period, &[(period.start, period.end)]).expect("in range")
}

#[test]
fn each_rule_counts_as_on_paper() {
    use CountRule::*;
    use Counted::*;
    for (what, rule, plans, expected) in [
        // On the 10th: a/1 until the afternoon, a/2, b/1.
        (Services, ActiveOn(10), &[][..], "3"),
        (Accounts, ActiveOn(10), &[], "2"),
        (Services, ActiveOn(12), &[], "2"),
        (Services, ActiveOn(99), &[], "2"),
        (Services, ActiveOn(1), &["fast"], "0"),
        (Services, Any, &[], "3"),
        (Accounts, Any, &["slow"], "2"),
        // Services: 10 + 11 days of a/1, 25 of a/2, 3 of b/1: 49 of 30 days. Accounts: 30 of a, 3 of b: 1.1.
        (Services, AverageDaily, &[], "1.63333333333333333333"),
        (Accounts, AverageDaily, &[], "1.1"),
        (Services, Peak, &[], "3"),
    ] {
        assert_eq!(counted(what, rule, plans).quantity.to_string(), expected, "{what:?} {rule:?} {plans:?}");
    }
}

#[test]
fn list_names_whom_it_counted_and_its_digest_tells_every_change() {
    let peak = counted(Counted::Services, CountRule::Peak, &[]).list;
    assert_eq!(peak.days, "2026-11-10");
    let ids: Vec<&str> = peak.members.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["default/a/1", "default/a/2", "default/b/1"]);
    let mut other = peak.clone();
    other.members.pop();
    assert_ne!(peak.digest(), other.digest());
    let mut renamed = peak.clone();
    renamed.tenant.push('x');
    assert_ne!(peak.digest(), renamed.digest());
}
