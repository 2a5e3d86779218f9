//! The contract of requests and orders about live sessions, run on SQLite and on PostgreSQL alike.

use std::collections::BTreeMap;

use lastmile::provision::{
    AaaAccess, AaaContent, Authorization, Content, ElementDesired, ElementKind, Login, SecretRef,
};
use lastmile::store::elements::{self, ElementRow};
use lastmile::store::nas_control::{
    self, Action, Attempted, Change, DueOrder, LANE_BULK, LANE_HAND, LANE_SINGLE, NewOrder, Outcome, RequestRow, Wish,
};
use lastmile::store::{Store, StoreConfig, jobs};
use lastmile::vocabulary::{Timestamp, from_micros, to_micros};

use crate::harness::{postgres, temp_dir};

type Contract = std::pin::Pin<Box<dyn Future<Output = ()>>>;

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::run_on_sqlite(|store| Box::pin(super::$name(store))); })*
        }
        mod postgres_15 {
            $(#[test] fn $name() { super::run_on_postgres(|store| Box::pin(super::$name(store))); })*
        }
    };
}

contract!(
    a_change_makes_one_request_and_none_makes_none,
    a_reversal_before_anything_was_sent_remembers_the_beginning,
    a_reversal_after_something_was_sent_does_not,
    a_newer_desired_state_holds_orders_back,
    urgent_orders_come_first_and_finished_ones_never,
    sessions_of_every_holder_of_a_name_are_found,
    a_late_answer_to_a_dropped_order_is_noted,
    what_is_old_is_forgotten,
);

async fn a_change_makes_one_request_and_none_makes_none(store: Store) {
    let row = push(&store, "gold", jobs::LANE_SINGLE).await;
    assert_eq!(note(&store, &row, "1M", "1M", 10).await, None);
    let request = note(&store, &row, "1M", "9M", 10).await;
    assert!(request.is_some());
    let row = push(&store, "silver", jobs::LANE_SINGLE).await;
    assert_eq!(note(&store, &row, "9M", "9M", 20).await, request, "a password, say: the request stays good");
    let due = due(&store).await;
    assert_eq!((due.len(), due[0].revision, due[0].lane), (1, row.desired_revision, LANE_SINGLE));
    assert_eq!(due[0].cause, "Rate changed");
}

async fn a_reversal_before_anything_was_sent_remembers_the_beginning(store: Store) {
    let row = push(&store, "gold", jobs::LANE_BULK).await;
    note(&store, &row, "1M", "9M", 10).await;
    note(&store, &row, "9M", "1M", 20).await;
    let due = due(&store).await;
    assert_eq!(due.len(), 1, "the older request is finished");
    let change = due[0].change.clone().expect("a change of a login");
    assert_eq!((change.origin, change.previous, change.target), (rate("1M"), rate("9M"), rate("1M")));
    assert_eq!((change.since_at, change.written_at, due[0].lane), (at(10), at(20), LANE_BULK));
}

async fn a_reversal_after_something_was_sent_does_not(store: Store) {
    let row = push(&store, "gold", jobs::LANE_SINGLE).await;
    let session = session(&store, "s1", 1, "ada").await;
    note(&store, &row, "1M", "9M", 10).await;
    order(&store, &due(&store).await[0], &[session]).await;
    let sent = due_orders(&store, 30).await.remove(0);
    record(&store, &sent, Outcome::Ack, true).await;
    note(&store, &row, "9M", "1M", 20).await;
    let change = due(&store).await[0].change.clone().expect("a change of a login");
    assert_eq!((change.origin, change.since_at), (rate("9M"), at(20)));
}

async fn a_newer_desired_state_holds_orders_back(store: Store) {
    let row = push(&store, "gold", jobs::LANE_SINGLE).await;
    let session = session(&store, "s1", 1, "ada").await;
    note(&store, &row, "1M", "9M", 10).await;
    order(&store, &due(&store).await[0], &[session]).await;
    assert_eq!(due_orders(&store, 30).await.len(), 1);
    let newer = push(&store, "silver", jobs::LANE_SINGLE).await;
    assert_eq!(due_orders(&store, 30).await.len(), 0, "its rows are about to be written");
    note(&store, &newer, "9M", "5M", 20).await;
    let views = of_session(&store, session).await;
    assert_eq!(views[0].outcome, Some(Outcome::Dropped));
    order(&store, &due(&store).await[0], &[session]).await;
    assert_eq!(due_orders(&store, 30).await.len(), 1);
}

async fn urgent_orders_come_first_and_finished_ones_never(store: Store) {
    let bulk = push(&store, "gold", jobs::LANE_BULK).await;
    let (first, second) = (session(&store, "s1", 1, "ada").await, session(&store, "s2", 1, "ada").await);
    note(&store, &bulk, "1M", "9M", 10).await;
    order(&store, &due(&store).await[0], &[first, second]).await;
    order(&store, &due(&store).await[0], &[first]).await;
    let mut tx = store.write().await.expect("a transaction");
    let wish = Wish { tenant: Some("acme"), account_id: Some(1), session_id: second, username: None, cause: "by hand" };
    nas_control::wish(&mut tx, &wish, at(25)).await.expect("wished");
    tx.commit().await.expect("committed");
    let wished = due(&store).await.into_iter().find(|request| request.change.is_none()).expect("the wish");
    assert_eq!((wished.session_id, wished.lane), (Some(second), LANE_HAND));
    order(&store, &wished, &[second]).await;
    let due = due_orders(&store, 30).await;
    assert_eq!(
        due.iter().map(|order| (order.session_id, order.lane)).collect::<Vec<_>>(),
        [(second, LANE_HAND), (first, LANE_BULK), (second, LANE_BULK)]
    );
    record(&store, &due[1], Outcome::Unknown, true).await;
    assert_eq!(due_orders(&store, 30).await.len(), 2);
    assert_eq!(state_of(&store, first).await, "stale", "the NAS does not know it");
    assert_eq!(state_of(&store, second).await, "open");
}

async fn sessions_of_every_holder_of_a_name_are_found(store: Store) {
    let row = push(&store, "gold", jobs::LANE_SINGLE).await;
    let own = session(&store, "s1", 1, "Ada").await;
    let former = session(&store, "s2", 2, "ada").await;
    session(&store, "s3", 1, "bob").await;
    session(&store, "s4", 3, "ada").await;
    note(&store, &row, "1M", "9M", 10).await;
    let mut tx = store.read().await.expect("a transaction");
    let request = nas_control::due_requests(&mut tx, at(30), 10).await.expect("read").remove(0);
    let found = nas_control::live_sessions(&mut tx, &request).await.expect("read");
    assert_eq!(found.iter().map(|session| session.id).collect::<Vec<_>>(), [own, former]);
}

async fn a_late_answer_to_a_dropped_order_is_noted(store: Store) {
    let row = push(&store, "gold", jobs::LANE_SINGLE).await;
    let session = session(&store, "s1", 1, "ada").await;
    note(&store, &row, "1M", "9M", 10).await;
    order(&store, &due(&store).await[0], &[session]).await;
    let under_way = due_orders(&store, 30).await.remove(0);
    note(&store, &row, "9M", "5M", 20).await;
    record(&store, &under_way, Outcome::Ack, true).await;
    assert_eq!(of_session(&store, session).await[0].outcome, Some(Outcome::Ack));
    assert_eq!(due_orders(&store, 30).await.len(), 0);
}

async fn what_is_old_is_forgotten(store: Store) {
    let row = push(&store, "gold", jobs::LANE_SINGLE).await;
    let session = session(&store, "s1", 1, "ada").await;
    note(&store, &row, "1M", "9M", 10).await;
    let request = due(&store).await.remove(0);
    order(&store, &request, &[session]).await;
    record(&store, &due_orders(&store, 30).await[0], Outcome::Ack, true).await;
    let mut tx = store.write().await.expect("a transaction");
    assert_eq!(nas_control::forget(&mut tx, at(1000), 10).await, Ok(0), "it is not finished");
    nas_control::finish(&mut tx, &request, at(40)).await.expect("finished");
    assert_eq!(nas_control::forget(&mut tx, at(40), 10).await, Ok(0));
    assert_eq!(nas_control::forget(&mut tx, at(41), 10).await, Ok(1));
    tx.commit().await.expect("committed");
    assert_eq!(of_session(&store, session).await, []);
}

fn at(second: i64) -> Timestamp {
    from_micros((1_780_000_000 + second) * 1_000_000).expect("an instant of the test")
}

fn rate(value: &str) -> Authorization {
    let attributes = BTreeMap::from([("Rate".to_owned(), vec![value.to_owned()])]);
    Authorization { login: Login::Accepted, group: None, attributes }
}

/// Makes the login of `ada` what is desired, and gives its element.
async fn push(store: &Store, group: &str, lane: i64) -> ElementRow {
    let content = AaaContent {
        username: "ada".to_owned(),
        access: AaaAccess::Accept,
        group: Some(group.to_owned()),
        reply: BTreeMap::new(),
        framed_ip: None,
        ipv6_delegated: None,
        chap: false,
        password: SecretRef { service: "1".to_owned(), field: "radius.password".to_owned(), digest: None },
    };
    let services = vec!["1".to_owned()];
    let desired =
        ElementDesired { kind: ElementKind::Aaa, key: "ada".to_owned(), services, content: Content::Aaa(content) };
    let mut tx = store.write().await.expect("a transaction");
    elements::settle(&mut tx, "acme", 1, &[desired], lane, at(0)).await.expect("settled");
    let row = elements::by_key(&mut tx, ElementKind::Aaa, "ada").await.expect("read").expect("an element");
    tx.commit().await.expect("committed");
    row
}

async fn note(store: &Store, element: &ElementRow, before: &str, after: &str, second: i64) -> Option<i64> {
    let (before, after) = (rate(before), rate(after));
    let mut tx = store.write().await.expect("a transaction");
    let change = Change { element, before: &before, after: &after, written_at: at(second) };
    let request = nas_control::note(&mut tx, &change).await.expect("noted");
    tx.commit().await.expect("committed");
    request
}

async fn due(store: &Store) -> Vec<RequestRow> {
    let mut tx = store.read().await.expect("a transaction");
    nas_control::due_requests(&mut tx, at(30), 10).await.expect("read")
}

async fn order(store: &Store, request: &RequestRow, sessions: &[i64]) {
    let orders: Vec<NewOrder> = sessions
        .iter()
        .map(|session_id| NewOrder {
            session_id: *session_id,
            client: "bng1".to_owned(),
            action: Action::Disconnect,
            attributes: BTreeMap::new(),
            run_at: at(25),
            hopeless: None,
        })
        .collect();
    let mut tx = store.write().await.expect("a transaction");
    nas_control::order(&mut tx, request, &orders, at(25)).await.expect("ordered");
    tx.commit().await.expect("committed");
}

async fn due_orders(store: &Store, second: i64) -> Vec<DueOrder> {
    let mut tx = store.read().await.expect("a transaction");
    nas_control::due_orders(&mut tx, "bng1", at(second), 10).await.expect("read")
}

async fn record(store: &Store, order: &DueOrder, outcome: Outcome, sent: bool) {
    let attempted = Attempted { outcome, error_cause: None, detail: "said".to_owned(), again: None, sent };
    let mut tx = store.write().await.expect("a transaction");
    assert!(nas_control::record(&mut tx, order, &attempted, at(31)).await.expect("recorded"));
    tx.commit().await.expect("committed");
}

async fn of_session(store: &Store, session: i64) -> Vec<nas_control::OrderView> {
    let mut tx = store.read().await.expect("a transaction");
    nas_control::of_session(&mut tx, session, 10).await.expect("read")
}

async fn state_of(_: &Store, session: i64) -> String {
    let sql = format!("SELECT state FROM session WHERE id = {session}");
    URL.with(|url| url.borrow().clone()).query(sql).await
}

/// A live session as the fold writes it, as far as this contract reads it. Gives its number.
async fn session(_: &Store, session: &str, account: i64, user: &str) -> i64 {
    let body = if URL.with(|url| url.borrow().0.starts_with("sqlite")) { "x'00'" } else { "decode('00', 'hex')" };
    let sql = format!(
        "INSERT INTO session (nas, session, incarnation, user_name, account_id, state, started_at, last_event_at,
             in_octets, out_octets, seconds, flags, pending, refold, body)
         VALUES ('bng1', '{session}', 1, '{user}', {account}, 'open', {at}, {at}, 0, 0, 0, 0, FALSE, FALSE, {body})
         RETURNING CAST(id AS TEXT)",
        at = to_micros(at(0))
    );
    let id: String = URL.with(|url| url.borrow().clone()).query(sql).await;
    id.parse().expect("a number")
}

/// The database of the running contract.
#[derive(Clone, Default)]
struct Url(String);

thread_local! {
    static URL: std::cell::RefCell<Url> = std::cell::RefCell::default();
}

impl Url {
    /// The first column of the first row that a statement gives.
    async fn query(&self, sql: String) -> String {
        use sqlx::Connection;
        let sql = sqlx::AssertSqlSafe(sql);
        if self.0.starts_with("sqlite") {
            let mut connection = sqlx::SqliteConnection::connect(&self.0).await.expect("the database");
            return sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("a row");
        }
        let mut connection = sqlx::PgConnection::connect(&self.0).await.expect("the database");
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("a row")
    }
}

fn run_on_sqlite(contract: impl FnOnce(Store) -> Contract) {
    let dir = temp_dir();
    run(dir.path(), &format!("sqlite://{}", dir.path().join("lastmile.db").display()), contract);
}

fn run_on_postgres(contract: impl FnOnce(Store) -> Contract) {
    run(temp_dir().path(), &postgres::database(), contract);
}

fn run(folder: &std::path::Path, url: &str, contract: impl FnOnce(Store) -> Contract) {
    let key = folder.join("key");
    std::fs::write(&key, "0123456789abcdef".repeat(4)).expect("a key file");
    URL.with(|kept| *kept.borrow_mut() = Url(url.to_owned()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = StoreConfig {
            url: url.to_owned(),
            key_file: Some(key),
            previous_key_file: None,
            owner: "contract".to_owned(),
        };
        let store = Store::open(&config).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        for statement in SEED {
            Url(url.to_owned()).query(statement.to_owned()).await;
        }
        contract(store.clone()).await;
        store.close().await;
    });
}

/// Three accounts; the first two hold, or held, the name `ada`.
const SEED: [&str; 6] = [
    "INSERT INTO tenant (id, name, catalog_version, created_at) VALUES ('acme', 'Acme', 1, 0) RETURNING id",
    "INSERT INTO account (id, tenant, source, external_id, revision, status, bill_cycle, document, etag, created_at,
         updated_at) VALUES (1, 'acme', 'default', '1', 1, 'active', 'c15', '{}', '', 0, 0) RETURNING tenant",
    "INSERT INTO account (id, tenant, source, external_id, revision, status, bill_cycle, document, etag, created_at,
         updated_at) VALUES (2, 'acme', 'default', '2', 1, 'active', 'c15', '{}', '', 0, 0) RETURNING tenant",
    "INSERT INTO account (id, tenant, source, external_id, revision, status, bill_cycle, document, etag, created_at,
         updated_at) VALUES (3, 'acme', 'default', '3', 1, 'active', 'c15', '{}', '', 0, 0) RETURNING tenant",
    "INSERT INTO holder (kind, value, account_id, from_at) VALUES ('username', 'ada', 1, 5) RETURNING value",
    "INSERT INTO holder (kind, value, account_id, from_at, until_at) VALUES ('username', 'ada', 2, 0, 5) RETURNING value",
];
