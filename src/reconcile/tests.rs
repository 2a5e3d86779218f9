//! Ten thousand made-up pairs of lists: one class each, sums that hold, an applied plan that leaves nothing, and an order of
//! rows that changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::account::{Account, ServiceType, Status};
use crate::mediation::Completeness;
use crate::vocabulary::{Currency, Exact};

/// An account as both sides may have it, drawn from few values so that they often meet.
#[derive(Debug, Clone)]
struct Drawn {
    id: u8,
    status: usize,
    name: u8,
    revision: Option<i64>,
    /// (id, plan, status of its own)
    services: Vec<(u8, u8, Option<usize>)>,
    secret: Option<u8>,
}

#[derive(Debug, Clone)]
struct Case {
    theirs: Vec<Drawn>,
    unreadable: Vec<u8>,
    ours: Vec<Drawn>,
    closed: Vec<u8>,
    fresh: Vec<u8>,
    whole: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let service = (0u8..3, 0u8..2, prop::option::of(0usize..4));
    let services = prop::collection::vec(service, 0..3);
    let revision = prop::option::of(0i64..4);
    (0u8..12, 0usize..4, 0u8..2, revision, services, prop::option::of(0u8..2)).prop_map(
        |(id, status, name, revision, mut services, secret)| {
            services.sort();
            services.dedup_by_key(|service| service.0);
            Drawn { id, status, name, revision, services, secret }
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let ids = || prop::collection::vec(0u8..12, 0..3);
    (
        prop::collection::vec(drawn(), 0..10),
        prop::collection::vec(0u8..12, 0..2),
        prop::collection::vec(drawn(), 0..10),
        ids(),
        ids(),
        any::<bool>(),
    )
        .prop_map(|(theirs, unreadable, mut ours, closed, fresh, whole)| {
            ours.sort_by_key(|account| account.id);
            ours.dedup_by_key(|account| account.id);
            Case { theirs, unreadable, ours, closed, fresh, whole }
        })
}

fn account(drawn: &Drawn) -> Account {
    let services: Vec<serde_json::Value> = drawn
        .services
        .iter()
        .map(|(id, plan, status)| {
            let kind = ServiceType::ALL[usize::from(*id) % 3];
            serde_json::json!({ "id": format!("s{id}"), "type": kind, "plan": format!("p{plan}"),
                "status": status.map(|status| Status::ALL[status]) })
        })
        .collect();
    serde_json::from_value(serde_json::json!({
        "status": Status::ALL[drawn.status], "kind": "person", "name": format!("n{}", drawn.name), "bill_cycle": "c1",
        "services": services,
    }))
    .expect("an account")
}

fn secrets(drawn: &Drawn) -> BTreeMap<(String, String), String> {
    let first = drawn.services.first();
    first
        .zip(drawn.secret)
        .map(|((id, ..), secret)| ((format!("s{id}"), "mailbox.password".to_owned()), format!("hash{secret}")))
        .into_iter()
        .collect()
}

fn theirs(drawn: &Drawn) -> Theirs {
    let named = secrets(drawn).into_iter().map(|(place, digest)| (place, Some(digest))).collect();
    Theirs::new(account(drawn), drawn.revision, named)
}

/// What a source's push makes of the account, as the push path does it.
fn pushed(drawn: &Drawn, before: Option<&Ours>, tag: &str) -> Ours {
    let mut kept = before.filter(|before| !before.closed).map(|before| before.secrets.clone()).unwrap_or_default();
    kept.extend(secrets(drawn));
    let names: BTreeSet<String> = drawn.services.iter().map(|(id, ..)| format!("s{id}")).collect();
    kept.retain(|(service, _), _| names.contains(service));
    let mut ours = Ours::new(account(drawn), tag.to_owned());
    ours.source_revision = drawn.revision.or(before.and_then(|before| before.source_revision));
    ours.secrets = kept;
    ours
}

fn stored(case: &Case) -> BTreeMap<String, Ours> {
    let mut stored = BTreeMap::new();
    for drawn in &case.ours {
        let mut ours = pushed(drawn, None, &format!("tag{}", drawn.id));
        ours.closed = case.closed.contains(&drawn.id);
        ours.fresh = case.fresh.contains(&drawn.id).then_some("changed a moment ago");
        stored.insert(format!("a{}", drawn.id), ours);
    }
    stored
}

fn told(case: &Case, rows: &[Drawn]) -> BTreeMap<String, Told> {
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    for drawn in rows {
        let entry = told.entry(format!("a{}", drawn.id)).or_insert_with(|| Told::Rows(Vec::new()));
        if let Told::Rows(rows) = entry {
            rows.push(theirs(drawn));
        }
    }
    for id in &case.unreadable {
        let entry = told.entry(format!("a{id}")).or_insert(Told::Nothing);
        let rows = match &*entry {
            Told::Nothing => 1,
            Told::Rows(rows) => rows.len() as u64 + 1,
            Told::Unreadable { rows, .. } => rows + 1,
        };
        *entry = Told::Unreadable { rows, reason: "no bill cycle".to_owned() };
    }
    told
}

struct Reconciled {
    findings: Vec<Finding>,
    tally: Tally,
    plan: Plan,
    actions: BTreeMap<String, Action>,
}

/// As the shell does it, but in any order.
fn reconcile(told: &BTreeMap<String, Told>, ours: &BTreeMap<String, Ours>, backwards: bool) -> Reconciled {
    let mut ids: Vec<&String> = told.keys().chain(ours.keys()).collect::<BTreeSet<_>>().into_iter().collect();
    if backwards {
        ids.reverse();
    }
    let (mut findings, mut tally, mut plan) = (Vec::new(), Tally::default(), Plan::default());
    let mut actions = BTreeMap::new();
    for id in ids {
        let (row, stored) = (told.get(id).unwrap_or(&Told::Nothing), ours.get(id));
        tally.told(row);
        if let Some(ours) = stored.filter(|ours| !ours.closed) {
            tally.stored(ours.account());
        }
        let verdict = classify(id, row, stored);
        verdict.findings.iter().for_each(|finding| tally.add(finding));
        findings.extend(verdict.findings);
        if let Some(action) = verdict.action {
            plan.add(id, &action);
            actions.insert(id.clone(), action);
        }
    }
    Reconciled { findings, tally, plan, actions }
}

fn proof(case: &Case) -> Proof {
    Proof::of(&Completeness::Unproven, case.whole.then_some("the sender's word"))
}

fn cases() -> Config {
    Config { cases: 10_000, failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn everybody_is_in_exactly_one_class_and_the_sums_hold(case in case()) {
        let (told, ours) = (told(&case, &case.theirs), stored(&case));
        let found = reconcile(&told, &ours, false);
        // Each row of theirs, and each account and service of ours, stands for itself exactly once.
        let mut here: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
        let mut there: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
        for finding in &found.findings {
            let place = (finding.account.clone(), finding.service.clone());
            *here.entry(place.clone()).or_default() += u64::from(finding.here);
            *there.entry(place).or_default() += finding.there;
        }
        let mut expected_here: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
        for (id, stored) in ours.iter().filter(|(_, stored)| !stored.closed) {
            *expected_here.entry((id.clone(), None)).or_default() += 1;
            for service in &stored.account().services {
                *expected_here.entry((id.clone(), Some(service.id.clone()))).or_default() += 1;
            }
        }
        let mut expected_there: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
        for (id, row) in &told {
            match row {
                Told::Nothing => {}
                Told::Unreadable { rows, .. } => *expected_there.entry((id.clone(), None)).or_default() += rows,
                Told::Rows(rows) => {
                    for row in rows {
                        *expected_there.entry((id.clone(), None)).or_default() += 1;
                        for service in &row.account().services {
                            *expected_there.entry((id.clone(), Some(service.id.clone()))).or_default() += 1;
                        }
                    }
                }
            }
        }
        here.retain(|_, count| *count > 0);
        there.retain(|_, count| *count > 0);
        prop_assert_eq!(here, expected_here);
        prop_assert_eq!(there, expected_there);
        // Apart from rows told again, nobody stands in two classes.
        let mut classes = BTreeSet::new();
        for finding in found.findings.iter().filter(|finding| finding.class != Class::Duplicate) {
            prop_assert!(classes.insert((&finding.account, &finding.service)), "{:?} twice", finding);
        }
        for invariant in found.tally.invariants() {
            prop_assert!(invariant.holds(), "{:?}", invariant);
        }
        prop_assert_eq!(found.tally.subscribers.theirs as usize, case.theirs.len() + case.unreadable.len());
    }

    #[test]
    fn an_applied_plan_leaves_nothing_to_do(case in case()) {
        let (told, mut ours) = (told(&case, &case.theirs), stored(&case));
        let proof = proof(&case);
        let found = reconcile(&told, &ours, false);
        for (id, action) in &found.actions {
            let row = || {
                let same: Vec<&Drawn> = case.theirs.iter().filter(|drawn| format!("a{}", drawn.id) == **id).collect();
                same.into_iter().max_by_key(|drawn| drawn.revision).expect("a row that is planned")
            };
            match action {
                Action::Delete { .. } if !proof.is_proven() => {}
                Action::Delete { .. } => ours.get_mut(id).expect("an account that is closed").closed = true,
                Action::Create { content } | Action::Update { content, .. } => {
                    prop_assert_eq!(&theirs(row()).content(), content);
                    let after = pushed(row(), ours.get(id), "new");
                    ours.insert(id.clone(), after);
                }
            }
        }
        let again = reconcile(&told, &ours, false);
        prop_assert!(again.plan.is_empty(&proof), "{:?}", again.actions);
        for finding in &again.findings {
            let planned = found.actions.contains_key(&finding.account);
            let left = match finding.class {
                Class::Matched | Class::Duplicate => false,
                Class::MissingThere => proof.is_proven(),
                _ => true,
            };
            prop_assert!(!(planned && left), "{:?} is left", finding);
        }
    }

    #[test]
    fn the_order_of_rows_never_changes_anything(case in case(), seed in any::<u64>()) {
        let ours = stored(&case);
        let mut mixed = case.theirs.clone();
        let count = mixed.len() as u64;
        for place in 0..mixed.len() {
            let other = seed.wrapping_mul(place as u64 * 2 + 7) % count;
            mixed.swap(place, other as usize);
        }
        let one = reconcile(&told(&case, &case.theirs), &ours, false);
        let other = reconcile(&told(&case, &mixed), &ours, true);
        let (mut first, mut second) = (one.findings, other.findings);
        let place = |finding: &Finding| format!("{finding:?}");
        first.sort_by_key(place);
        second.sort_by_key(place);
        prop_assert_eq!(first, second);
        prop_assert_eq!(one.tally, other.tally);
        let proof = proof(&case);
        prop_assert_eq!(one.plan.hash("acme", "default", &proof), other.plan.hash("acme", "default", &proof));
    }
}

fn one(id: u8, status: usize, services: &[(u8, u8, Option<usize>)]) -> Drawn {
    Drawn { id, status, name: 0, revision: None, services: services.to_vec(), secret: None }
}

fn nothing_drawn() -> Case {
    Case { theirs: vec![], unreadable: vec![], ours: vec![], closed: vec![], fresh: vec![], whole: false }
}

const ACTIVE: usize = 1;
const SUSPENDED: usize = 2;

#[test]
fn each_difference_is_named_with_both_values() {
    let case = Case {
        theirs: vec![one(1, SUSPENDED, &[(0, 0, None)]), one(2, ACTIVE, &[(0, 1, None), (1, 0, None)])],
        ours: vec![one(1, ACTIVE, &[(0, 0, None)]), one(2, ACTIVE, &[(0, 0, None), (2, 0, None)])],
        ..nothing_drawn()
    };
    let found = reconcile(&told(&case, &case.theirs), &stored(&case), false);
    let lines: Vec<String> = found.findings.iter().map(Report::row).collect();
    assert_eq!(
        lines.concat(),
        "  a1 subscriber: mismatch\n      /status: ours \"active\", yours \"suspended\"\n  \
         a1 service s0: mismatch\n      /status: ours \"active\", yours \"suspended\"\n  \
         a2 subscriber: matched\n  \
         a2 service s0: mismatch\n      /plan: ours \"p0\", yours \"p1\"\n  \
         a2 service s1: missing_here (voice, p0, active)\n  \
         a2 service s2: missing_there (email, p0, active)\n"
    );
    let losses: Vec<u64> = found
        .actions
        .values()
        .map(|action| match action {
            Action::Update { removes, .. } => *removes,
            _ => 99,
        })
        .collect();
    assert_eq!(losses, [0, 1]);
}

#[test]
fn nobody_is_closed_by_a_snapshot_that_is_not_proven_whole() {
    let case = Case { ours: vec![one(1, ACTIVE, &[])], ..nothing_drawn() };
    let found = reconcile(&told(&case, &[]), &stored(&case), false);
    assert_eq!(found.tally.subscribers.missing_there, 1);
    let whole = Proof::of(&Completeness::Proven, None);
    for (proof, deletes) in [
        (Proof::of(&Completeness::Unproven, None), 0),
        (Proof::of(&Completeness::Refuted("3 of 4".to_owned()), Some("the sender's word")), 0),
        (Proof::of(&Completeness::Unproven, Some("the sender's word")), 1),
        (whole.clone(), 1),
    ] {
        assert_eq!(found.plan.deletes(&proof), deletes, "{proof}");
        assert_eq!(found.plan.is_empty(&proof), deletes == 0, "{proof}");
    }
    let unproven = found.plan.hash("acme", "default", &Proof::Unproven);
    assert_ne!(unproven, found.plan.hash("acme", "default", &whole), "another plan");
}

#[test]
fn rows_that_contradict_each_other_are_listed_and_never_planned() {
    let (same, otherwise) = (one(1, ACTIVE, &[]), one(1, SUSPENDED, &[]));
    for (rows, planned) in [(vec![same.clone(), same.clone()], true), (vec![same, otherwise], false)] {
        let case = Case { theirs: rows, ..nothing_drawn() };
        let found = reconcile(&told(&case, &case.theirs), &BTreeMap::new(), false);
        assert_eq!((found.tally.subscribers.missing_here, found.tally.subscribers.duplicate), (1, 1));
        assert_eq!(found.actions.contains_key("a1"), planned);
    }
}

#[test]
fn a_guard_counts_what_the_day_has_taken_away() {
    for (ours, used, said, losses, refused) in [
        (10, 0, None, 25, false),
        (10, 0, None, 26, true),
        (10_000, 0, None, 200, false),
        (10_000, 0, None, 201, true),
        (10, 20, None, 6, true),
        (10, 20, None, 0, false),
        (10_000, 0, Some(3), 4, true),
        (10, 20, Some(500), 480, false),
    ] {
        let guard = Guard::new(ours, used, said);
        assert_eq!(guard.refusal(losses).is_some(), refused, "{ours} {used} {said:?} {losses}");
    }
}

#[test]
fn a_difference_is_worth_its_count_times_the_rate_rounded_once() {
    let usd: Currency = "USD".parse().expect("USD");
    let kind = |plan: &str, status| Kind { service_type: ServiceType::Internet, plan: plan.to_owned(), status };
    let cell = |ours, theirs| Cell { ours, theirs, ..Cell::default() };
    let kinds = BTreeMap::from([
        (kind("a", Status::Active), cell(7, 4)),
        (kind("a", Status::Suspended), cell(9, 0)),
        (kind("b", Status::Active), cell(1, 3)),
        (kind("c", Status::Active), cell(5, 5)),
    ]);
    let amount: Exact = "49.955".parse().expect("a decimal");
    let rates = BTreeMap::from([("a".to_owned(), Rate { amount, currency: usd, by: "tariff t".to_owned() })]);
    let found = effects(&kinds, &rates).expect("it fits");
    let shown: Vec<(&str, i64, Option<&str>)> =
        found.iter().map(|effect| (effect.plan.as_str(), effect.delta, effect.amount.as_deref())).collect();
    assert_eq!(shown, [("a", 3, Some("149.87")), ("b", -2, None)]);
}
