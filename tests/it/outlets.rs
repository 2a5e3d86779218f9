//! The store of outlets on both databases: a claim fences off whoever had it before, events told in a transaction stand in it
//! without a gap, and what a savepoint undid is not told.

use std::time::Duration;

use lastmile::store::Dialect;
use lastmile::store::events::{self, EventFilter, EventType, Told};
use lastmile::store::outlets::{self, Entry, Health, NewOutlet, OutletKind, Progress, Replayed, Shape};
use lastmile::vocabulary::Timestamp;
use serde_json::json;

use crate::fold::{Bench, at, on_postgres, on_sqlite};

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::on_sqlite(|bench| Box::pin(super::$name(bench))); })*
        }
        mod postgres_15 {
            $(#[test] fn $name() { super::on_postgres(|bench| Box::pin(super::$name(bench))); })*
        }
    };
}

on_both!(
    an_older_claim_records_nothing,
    what_is_released_is_due_and_what_is_behind_is_not,
    what_a_savepoint_undid_is_not_told,
    many_that_tell_at_once_leave_no_gap,
);

fn told(subject: &str, number: i64) -> Told {
    Told {
        tenant: "acme".into(),
        kind: EventType::AccountUpdated,
        subject: subject.into(),
        payload: json!({ "number": number }),
        at: at(number),
    }
}

async fn outlet(bench: &Bench) -> &'static str {
    bench.account("ada@acme").await;
    let mut tx = bench.store.write().await.expect("a transaction");
    let new = NewOutlet {
        id: "wh_1",
        tenant: "acme",
        kind: OutletKind::Webhook,
        shape: Shape::Standard,
        url: "https://a.example/",
        types: &[],
        description: "",
        secret: Some(b"x"),
    };
    assert!(outlets::insert(&mut tx, &new, at(0)).await.expect("made"));
    assert!(!outlets::insert(&mut tx, &new, at(0)).await.expect("asked"), "it is there");
    for number in 1..=4 {
        tx.tell(told(if number % 2 == 1 { "a" } else { "b" }, number));
    }
    tx.commit().await.expect("committed");
    "wh_1"
}

fn health() -> Health {
    Health {
        failures: 0,
        failing_since: None,
        slow_until: Timestamp::UNIX_EPOCH,
        delivered: 1,
        last_delivered_at: Some(at(1)),
        disabled: None,
    }
}

fn entry(sequence: i64, subject: &str, next_at: Option<Timestamp>) -> Entry {
    Entry { sequence, subject: subject.into(), state: "pending", attempts: 1, next_at, status: Some(500), detail: None }
}

async fn an_older_claim_records_nothing(bench: Bench) {
    let id = outlet(&bench).await;
    let later = |seconds| at(seconds) + Duration::from_secs(60);
    let claim = async |owner: &str, now: Timestamp| {
        let mut tx = bench.store.write().await.expect("a transaction");
        let claimed = outlets::claim(&mut tx, id, owner, now + Duration::from_secs(60), now).await.expect("asked");
        tx.commit().await.expect("committed");
        claimed
    };
    let first = claim("one", at(10)).await.expect("it is free");
    if bench.store.dialect() == Dialect::Postgres {
        assert_eq!(claim("two", at(20)).await, None, "it is lent");
        let found = outlets::with_work(&mut bench.store.read().await.expect("a transaction"), "two", at(20), 10).await;
        assert_eq!(found.expect("asked"), Vec::<String>::new());
    }
    let second = claim("two", later(20)).await.expect("the first claim is over");
    let record = async |claimed: &outlets::Claimed, position| {
        let health = health();
        let progress = Progress { position, entries: &[], released: &[], revived: false, health: &health };
        let mut tx = bench.store.write().await.expect("a transaction");
        let done = outlets::record(&mut tx, claimed, &progress, later(90), at(90)).await.expect("asked");
        tx.commit().await.expect("committed");
        done.is_some()
    };
    assert!(!record(&first, 4).await, "it was frozen meanwhile");
    assert!(record(&second, 2).await);
    let row = outlets::by_id(&mut bench.store.read().await.expect("a transaction"), id).await.expect("asked");
    assert_eq!(row.map(|row| (row.position, row.delivered)), Some((2, 1)));
}

async fn what_is_released_is_due_and_what_is_behind_is_not(bench: Bench) {
    let id = outlet(&bench).await;
    let mut tx = bench.store.write().await.expect("a transaction");
    let claimed = outlets::claim(&mut tx, id, "one", at(100), at(10)).await.expect("asked").expect("it is free");
    let entries = [entry(1, "a", Some(at(50))), entry(3, "a", None)];
    let health = health();
    let progress = Progress { position: 4, entries: &entries, released: &[], revived: false, health: &health };
    outlets::record(&mut tx, &claimed, &progress, at(100), at(11)).await.expect("recorded");
    let due = async |tx: &mut lastmile::store::Tx, now| {
        let due = outlets::due(tx, &claimed.row, now, 10).await.expect("asked");
        due.iter().map(|due| (due.event.sequence, due.attempts)).collect::<Vec<_>>()
    };
    assert_eq!(due(&mut tx, at(49)).await, []);
    assert_eq!(due(&mut tx, at(50)).await, [(1, 1)], "3 is behind it");
    assert_eq!(outlets::blocked(&mut tx, id).await.expect("asked"), ["a"]);
    let done = [Entry { state: "delivered", ..entry(1, "a", None) }];
    let released = ["a".to_owned()];
    let progress = Progress { position: 4, entries: &done, released: &released, revived: false, health: &health };
    let still = outlets::record(&mut tx, &claimed, &progress, at(100), at(51)).await.expect("recorded");
    assert_eq!(still, Some(vec!["a".to_owned()]), "3 waits still");
    assert_eq!(due(&mut tx, at(51)).await, [(3, 1)]);
    let row = outlets::by_id(&mut tx, id).await.expect("asked").expect("it is there");
    let count = outlets::replay(&mut tx, &row, Replayed::Range { from: 1, to: 4 }, at(60)).await.expect("asked");
    assert_eq!((count, due(&mut tx, at(60)).await), (4, vec![(1, 0), (2, 0), (3, 0), (4, 0)]));
    tx.rollback().await.expect("undone");
}

async fn what_a_savepoint_undid_is_not_told(bench: Bench) {
    bench.account("ada@acme").await;
    let mut tx = bench.store.write().await.expect("a transaction");
    tx.tell(told("a", 1));
    tx.savepoint().await.expect("opened");
    tx.tell(told("a", 2));
    tx.rollback_to_savepoint().await.expect("undone");
    tx.savepoint().await.expect("opened");
    tx.tell(told("a", 3));
    tx.release_savepoint().await.expect("kept");
    tx.commit().await.expect("committed");
    let mut tx = bench.store.write().await.expect("a transaction");
    tx.tell(told("a", 4));
    tx.rollback().await.expect("undone");
    let filter = EventFilter { tenant: "acme", after: 0, kind: None, limit: 10 };
    let found = events::list(&mut bench.store.read().await.expect("a transaction"), &filter).await.expect("events");
    let found: Vec<_> = found.iter().map(|event| (event.sequence, event.payload["number"].clone())).collect();
    assert_eq!(found, [(1, json!(1)), (2, json!(3))]);
}

async fn many_that_tell_at_once_leave_no_gap(bench: Bench) {
    const TELLERS: i64 = 8;
    bench.account("ada@acme").await;
    let mut tellers = Vec::new();
    for teller in 0..TELLERS {
        let store = bench.store.clone();
        tellers.push(tokio::spawn(async move {
            for round in 0..10 {
                let mut tx = store.write().await.expect("a transaction");
                for part in 0..3 {
                    tx.tell(told(&format!("s{teller}"), round * 3 + part));
                }
                tokio::task::yield_now().await;
                tx.commit().await.expect("committed");
            }
        }));
    }
    // Whoever follows sees every number in its turn.
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let done = tellers.iter().all(tokio::task::JoinHandle::is_finished);
        let filter = EventFilter { tenant: "acme", after, kind: None, limit: 7 };
        let page = events::list(&mut bench.store.read().await.expect("a transaction"), &filter).await.expect("events");
        match page.last() {
            Some(last) => after = last.sequence,
            None if done => break,
            None => {}
        }
        seen.extend(page);
    }
    for teller in tellers {
        teller.await.expect("it told");
    }
    let numbers: Vec<i64> = seen.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=TELLERS * 30).collect::<Vec<_>>());
    for teller in 0..TELLERS {
        let own: Vec<_> = seen.iter().filter(|event| event.subject == format!("s{teller}")).collect();
        let told: Vec<i64> = own.iter().filter_map(|event| event.payload["number"].as_i64()).collect();
        assert_eq!(told, (0..30).collect::<Vec<_>>(), "those of one in the order they were told");
    }
}
