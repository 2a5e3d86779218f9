//! The contract of elements, jobs and exceptions, run on SQLite and on PostgreSQL alike.

use std::sync::Arc;
use std::time::Duration;

use lastmile::provision::{
    AaaAccess, AaaContent, Content, ElementDesired, ElementKind, ElementState, JobError, JobState, SecretRef,
};
use lastmile::provisioner::{Backends, Engine};
use lastmile::store::devices::{self, DeviceNotes, Fetched};
use lastmile::store::elements::{self, ElementRow, Progress};
use lastmile::store::jobs::{self, ClaimedJob, Ending, JobFilter, JobRow, LANE_BULK, LANE_SINGLE};
use lastmile::store::{Store, StoreConfig, Tx, exceptions};
use lastmile::telemetry::{Heartbeats, Metrics};
use lastmile::vocabulary::{Clock, Timestamp, from_micros};

use crate::harness::{postgres, temp_dir};

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
    equal_contents_make_no_job,
    element_no_longer_wanted_becomes_absent,
    claimed_job_is_claimed_once,
    jobs_of_a_dead_daemon_are_taken_over_after_their_lease,
    newest_desired_state_wins,
    late_result_of_a_lost_lease_is_dropped,
    single_pushes_go_before_bulk,
    jobs_go_with_their_element_to_another_account,
    jobs_that_nobody_here_can_do_are_put_off_with_the_reason,
    failed_job_opens_an_exception_that_success_releases,
    retried_and_cancelled_jobs_obey,
    waiting_jobs_hurry_when_their_backend_is_back,
    fetch_during_an_attempt_is_looked_at_at_once,
    fetch_that_nobody_saw_is_no_turn_of_a_loop,
);

async fn equal_contents_make_no_job(store: Store) {
    assert_eq!(push(&store, &[login("ada", "gold")]).await, 1);
    assert_eq!(push(&store, &[login("ada", "gold")]).await, 0);
    assert_eq!(push(&store, &[login("ada", "silver")]).await, 1);
    let row = element(&store, "ada").await;
    assert_eq!((row.desired_revision, row.state), (2, ElementState::Pending));
    assert_eq!(row.previous, Some(login("ada", "gold").content));
    assert_eq!(claim(&store, "one", 0).await.len(), 1, "an element has one job, however often it changed");
}

async fn element_no_longer_wanted_becomes_absent(store: Store) {
    push(&store, &[login("ada", "gold"), login("bob", "gold")]).await;
    assert_eq!(push(&store, &[login("bob", "gold")]).await, 1);
    assert_eq!(element(&store, "ada").await.desired, Content::Absent);
    assert_eq!(push(&store, &[login("bob", "gold")]).await, 0, "what is gone is not removed twice");
}

async fn claimed_job_is_claimed_once(store: Store) {
    push(&store, &[login("ada", "gold")]).await;
    assert_eq!(claim(&store, "one", 0).await.len(), 1);
    assert_eq!(claim(&store, "two", 1).await.len(), 0);
}

async fn jobs_of_a_dead_daemon_are_taken_over_after_their_lease(store: Store) {
    push(&store, &[login("ada", "gold")]).await;
    claim(&store, "dead", 0).await;
    assert_eq!(claim(&store, "alive", 59).await.len(), 0);
    let taken = claim(&store, "alive", 60).await;
    assert_eq!(taken[0].attempts, 2);
    assert_eq!(end(&store, &taken[0], "alive", done()).await, Some(JobState::Done { revision: 1 }));
}

async fn newest_desired_state_wins(store: Store) {
    push(&store, &[login("ada", "gold")]).await;
    let old = claim(&store, "one", 0).await.remove(0);
    push(&store, &[login("ada", "silver")]).await;
    assert_eq!(end(&store, &old, "one", done()).await, Some(JobState::NEW), "the older success does not end the job");
    assert_eq!(element(&store, "ada").await.state, ElementState::Pending);
    let new = claim(&store, "one", 1).await.remove(0);
    assert_eq!(new.element.desired, login("ada", "silver").content);
    assert_eq!(end(&store, &new, "one", done()).await, Some(JobState::Done { revision: 2 }));
    let row = element(&store, "ada").await;
    assert_eq!((row.applied_revision, row.state), (Some(2), ElementState::Applied));
    assert_eq!(row.evidence.as_deref(), Some("rows written"));
}

async fn late_result_of_a_lost_lease_is_dropped(store: Store) {
    push(&store, &[login("ada", "gold")]).await;
    let lost = claim(&store, "slow", 0).await.remove(0);
    let taken = claim(&store, "fast", 60).await.remove(0);
    assert_eq!(end(&store, &lost, "slow", done()).await, None);
    assert_eq!(element(&store, "ada").await.applied_revision, None);
    assert!(end(&store, &taken, "fast", done()).await.is_some());
}

async fn single_pushes_go_before_bulk(store: Store) {
    push_in(&store, &[login("bulk1", "gold"), login("bulk2", "gold")], LANE_BULK).await;
    let all = [login("bulk1", "gold"), login("bulk2", "gold"), login("single", "gold")];
    push_in(&store, &all, LANE_SINGLE).await;
    let mut tx = store.write().await.expect("a transaction");
    let claimed = jobs::claim(&mut tx, ElementKind::Aaa, "one", 2, at(0), LEASE).await.expect("claimed");
    tx.commit().await.expect("committed");
    let keys: Vec<&str> = claimed.iter().map(|job| job.element.key.as_str()).collect();
    assert_eq!(keys, ["single", "bulk1"]);
}

async fn jobs_go_with_their_element_to_another_account(store: Store) {
    push_in(&store, &[login("ada", "gold")], LANE_BULK).await;
    let mut tx = store.write().await.expect("a transaction");
    let settled = elements::settle(&mut tx, "acme", 2, &[login("ada", "silver")], LANE_SINGLE, at(1)).await;
    let job = settled.expect("settled")[0].job_id;
    tx.commit().await.expect("committed");
    let mut tx = store.read().await.expect("a transaction");
    let row = jobs::one(&mut tx, job).await.expect("read").expect("a job");
    assert_eq!((row.account_id, row.account.as_str(), row.lane), (2, "100235", LANE_SINGLE));
    assert_eq!(jobs::active_of_account(&mut tx, 2).await.expect("read").len(), 1);
    assert_eq!(jobs::active_of_account(&mut tx, 1).await.expect("read").len(), 0);
    let row = element(&store, "ada").await;
    assert_eq!((row.account_id, row.desired_revision, row.desired), (2, 2, login("ada", "silver").content));
}

async fn jobs_that_nobody_here_can_do_are_put_off_with_the_reason(store: Store) {
    const MANY: usize = 150;
    let logins: Vec<ElementDesired> = (0..MANY).map(|number| login(&format!("user{number}"), "gold")).collect();
    push(&store, &logins).await;
    let engine = Engine {
        store: store.clone(),
        clock: Clock::fixed(at(1)),
        metrics: Metrics::new(),
        backends: Backends::default(),
        wake: Arc::default(),
    };
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(lastmile::provisioner::run(engine, Heartbeats::new(), stopping));
    let mut waiting = 0;
    for _ in 0..600 {
        let mut tx = store.read().await.expect("a transaction");
        let filter = JobFilter { state: Some("waiting".to_owned()), limit: 1000, ..JobFilter::default() };
        let jobs = jobs::list(&mut tx, &filter).await.expect("jobs");
        drop(tx);
        waiting = jobs.len();
        if waiting == MANY {
            let said = |job: &JobRow| job.last_error.as_deref().is_some_and(|error| error.contains("no [aaa] section"));
            assert!(jobs.iter().all(|job| job.attempts == 1 && job.claimed_by.is_none() && said(job)));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(waiting, MANY);
    let row = element(&store, "user149").await;
    assert_eq!(row.state, ElementState::Pending);
    assert_eq!(row.last_error.as_deref(), Some("no [aaa] section: RADIUS logins are not provisioned here"));
    stop.send_replace(true);
    running.await.expect("the provisioner ends").expect("without a fault");
}

async fn failed_job_opens_an_exception_that_success_releases(store: Store) {
    push(&store, &[login("ada", "gold")]).await;
    let job = claim(&store, "one", 0).await.remove(0);
    let failed = Ending::Failed { reason: "no such group".to_owned() };
    assert!(matches!(end(&store, &job, "one", failed).await, Some(JobState::Failed { .. })));
    let row = element(&store, "ada").await;
    assert_eq!((row.state, row.last_error.as_deref()), (ElementState::Failed, Some("no such group")));
    assert_eq!(open_exceptions(&store).await, ["aaa ada: no such group"]);
    push(&store, &[login("ada", "silver")]).await;
    let job = claim(&store, "one", 1).await.remove(0);
    end(&store, &job, "one", done()).await;
    assert_eq!(open_exceptions(&store).await, [""; 0]);
}

async fn retried_and_cancelled_jobs_obey(store: Store) {
    push(&store, &[login("ada", "gold")]).await;
    let job = claim(&store, "one", 0).await.remove(0);
    let mut tx = store.write().await.expect("a transaction");
    assert_eq!(jobs::retry(&mut tx, 999, at(1)).await.expect("asked"), None);
    assert_eq!(jobs::cancel(&mut tx, job.id, at(1)).await.expect("asked").expect("a job"), Err(JobError::Running));
    tx.commit().await.expect("committed");
    end(&store, &job, "one", Ending::Retry { reason: "locked".to_owned(), random: 0 }).await;
    assert_eq!(claim(&store, "one", 3).await.len(), 0, "it waits its four seconds");
    let mut tx = store.write().await.expect("a transaction");
    let asked = jobs::retry(&mut tx, job.id, at(3)).await.expect("asked").expect("a job").expect("due");
    assert_eq!(asked.state, JobState::NEW);
    tx.commit().await.expect("committed");
    assert_eq!(claim(&store, "one", 3).await.len(), 1);
    let mut tx = store.write().await.expect("a transaction");
    push_tx(&mut tx, &[login("bob", "gold")], LANE_SINGLE).await;
    let bob = jobs::list(&mut tx, &jobs::JobFilter { limit: 1, ..Default::default() }).await.expect("jobs").remove(0);
    let cancelled = jobs::cancel(&mut tx, bob.id, at(4)).await.expect("asked").expect("a job").expect("cancelled");
    assert_eq!(cancelled.state, JobState::Cancelled);
    let again = jobs::retry(&mut tx, bob.id, at(5)).await.expect("asked").expect("a job").expect("due");
    assert_eq!((again.id, again.state), (bob.id, JobState::NEW));
    tx.commit().await.expect("committed");
}

async fn waiting_jobs_hurry_when_their_backend_is_back(store: Store) {
    push(&store, &[login("ada", "gold")]).await;
    let job = claim(&store, "one", 0).await.remove(0);
    end(&store, &job, "one", Ending::Retry { reason: "locked".to_owned(), random: 0 }).await;
    assert_eq!(claim(&store, "one", 1).await.len(), 0);
    let mut tx = store.write().await.expect("a transaction");
    assert_eq!(jobs::hurry(&mut tx, ElementKind::Aaa, at(1)).await.expect("hurried"), 1);
    tx.commit().await.expect("committed");
    assert_eq!(claim(&store, "one", 1).await.len(), 1);
}

const LEASE: Duration = Duration::from_secs(60);

async fn fetch_during_an_attempt_is_looked_at_at_once(store: Store) {
    push(&store, &[login("ada", "gold")]).await;
    let job = claim(&store, "one", 0).await.remove(0);
    let fetched = Fetched { revision: 1, digest: "a", at: at(3), seen: true, evidence: None };
    let mut tx = store.write().await.expect("a transaction");
    assert!(elements::record_fetched(&mut tx, job.element.id, &fetched, "10.7.3.9").await.expect("recorded"));
    tx.commit().await.expect("committed");
    // The attempt began before it and would look again much later.
    let later = |seen_fetch_at| Ending::Device {
        progress: Progress { state: ElementState::Pending, evidence: "it boots".to_owned(), applied: false },
        notes: Box::new(DeviceNotes { seen_fetch_at, ..DeviceNotes::default() }),
        again: Some((at(3000), "it boots".to_owned())),
    };
    end(&store, &job, "one", later(None)).await;
    let job = claim(&store, "one", 1000).await.pop().expect("the fetch is looked at");
    end(&store, &job, "one", later(Some(at(3)))).await;
    assert_eq!(claim(&store, "one", 2000).await.len(), 0, "the fetch is known: there is nothing new");
    assert_eq!(claim(&store, "one", 3000).await.len(), 1);
}

async fn fetch_that_nobody_saw_is_no_turn_of_a_loop(store: Store) {
    push(&store, &[login("ada", "gold")]).await;
    let id = element(&store, "ada").await.id;
    let told = async |seconds, seen| {
        let fetched = Fetched { revision: 1, digest: "a", at: at(seconds), seen, evidence: None };
        let mut tx = store.write().await.expect("a transaction");
        assert!(elements::record_fetched(&mut tx, id, &fetched, "10.7.3.9").await.expect("recorded"));
        let row = devices::one(&mut tx, id).await.expect("read");
        tx.commit().await.expect("committed");
        (row.running.expect("it runs a file").fetched_at, row.fetches, row.fetch_seen)
    };
    assert_eq!(told(3, false).await, (at(3), 0, false));
    assert_eq!(told(5, true).await, (at(5), 1, true));
    // It says what is known already: the fetch stays the newest that is known of it.
    assert_eq!(told(7, false).await, (at(5), 1, true));
    assert_eq!(told(9, true).await, (at(9), 2, true));
}

fn at(seconds: i64) -> Timestamp {
    from_micros(1_780_000_000_000_000 + seconds * 1_000_000).expect("an instant of the test")
}

fn login(username: &str, group: &str) -> ElementDesired {
    let content = AaaContent {
        username: username.to_owned(),
        access: AaaAccess::Accept,
        group: Some(group.to_owned()),
        reply: Default::default(),
        framed_ip: None,
        ipv6_delegated: None,
        chap: false,
        password: SecretRef { service: "1".to_owned(), field: "radius.password".to_owned(), digest: None },
    };
    ElementDesired {
        kind: ElementKind::Aaa,
        key: username.to_owned(),
        services: vec!["1".to_owned()],
        content: Content::Aaa(content),
    }
}

fn done() -> Ending {
    Ending::Succeeded(Progress { state: ElementState::Applied, evidence: "rows written".to_owned(), applied: true })
}

async fn push(store: &Store, desired: &[ElementDesired]) -> usize {
    push_in(store, desired, LANE_SINGLE).await
}

async fn push_in(store: &Store, desired: &[ElementDesired], lane: i64) -> usize {
    let mut tx = store.write().await.expect("a transaction");
    let changed = push_tx(&mut tx, desired, lane).await;
    tx.commit().await.expect("committed");
    changed
}

async fn push_tx(tx: &mut Tx, desired: &[ElementDesired], lane: i64) -> usize {
    elements::settle(tx, "acme", 1, desired, lane, at(0)).await.expect("settled").len()
}

async fn element(store: &Store, key: &str) -> ElementRow {
    let mut tx = store.read().await.expect("a transaction");
    elements::by_key(&mut tx, ElementKind::Aaa, key).await.expect("read").expect("an element")
}

async fn claim(store: &Store, owner: &str, second: i64) -> Vec<ClaimedJob> {
    let mut tx = store.write().await.expect("a transaction");
    let claimed = jobs::claim(&mut tx, ElementKind::Aaa, owner, 10, at(second), LEASE).await.expect("claimed");
    tx.commit().await.expect("committed");
    claimed
}

async fn end(store: &Store, job: &ClaimedJob, owner: &str, ending: Ending) -> Option<JobState> {
    let mut tx = store.write().await.expect("a transaction");
    let state = jobs::end(&mut tx, job, owner, ending, at(0)).await.expect("ended");
    tx.commit().await.expect("committed");
    state
}

async fn open_exceptions(store: &Store) -> Vec<String> {
    let mut tx = store.read().await.expect("a transaction");
    let filter = exceptions::ExceptionFilter { limit: 10, ..Default::default() };
    let open = exceptions::list(&mut tx, &filter, at(0)).await.expect("exceptions");
    open.into_iter().map(|row| format!("{}: {}", row.subject, row.detail)).collect()
}

type Contract = std::pin::Pin<Box<dyn Future<Output = ()>>>;

const SEED: [&str; 3] = [
    "INSERT INTO tenant (id, name, catalog_version, created_at) VALUES ('acme', 'Acme', 1, 0)",
    "INSERT INTO account (id, tenant, source, external_id, revision, status, bill_cycle, document, etag, created_at,
         updated_at)
     VALUES (1, 'acme', 'default', '100234', 1, 'active', 'c15', '{}', '', 0, 0)",
    "INSERT INTO account (id, tenant, source, external_id, revision, status, bill_cycle, document, etag, created_at,
         updated_at)
     VALUES (2, 'acme', 'default', '100235', 1, 'active', 'c15', '{}', '', 0, 0)",
];

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
        seed(url).await;
        contract(store.clone()).await;
        store.close().await;
    });
}

/// One account to hang elements on. Pushing accounts is another contract.
async fn seed(url: &str) {
    use sqlx::Connection;
    if url.starts_with("sqlite") {
        let mut connection = sqlx::SqliteConnection::connect(url).await.expect("the database");
        for statement in SEED {
            sqlx::query(statement).execute(&mut connection).await.expect("a row");
        }
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await.expect("the database");
        for statement in SEED {
            sqlx::query(statement).execute(&mut connection).await.expect("a row");
        }
    }
}
