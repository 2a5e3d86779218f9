//! The store's contract, run on SQLite and on PostgreSQL alike.

use lastmile::account::Account;
use lastmile::biller::{Kept, Order, close_period};
use lastmile::billing::calendar::{BillCycle, Every};
use lastmile::billing::charges::Posting;
use lastmile::billing::facts::{PeriodSum, UsageEntry};
use lastmile::billing::run::lines;
use lastmile::billing::tariff::Pool;
use lastmile::billing::top_up::NewGrant;
use lastmile::catalog::{self, Bundle};
use lastmile::store::accounts::{self, ServiceChange, Written};
use lastmile::store::billing::{self, BilledAccount};
use lastmile::store::charges::{self, NewCharge};
use lastmile::store::events::{self, EventFilter, EventType, NewEvent};
use lastmile::store::grants::{self, For};
use lastmile::store::journal::{self, JournalEntry};
use lastmile::store::ledger::{self, Cause, NewEntry};
use lastmile::store::sessions::Owner;
use lastmile::store::{Store, StoreConfig, StoreError, Tx, catalog as catalogs, families, ledger_totals, nas, rating};
use lastmile::usage::{Amount, LedgerBucket};
use lastmile::vocabulary::{AccountKey, Clock, Timestamp, Zone, from_micros, to_micros};

use crate::harness::{postgres, temp_dir};

/// Runs a contract on both databases.
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
    migrations_run_once,
    appended_entries_are_read_in_commit_order,
    lanes_are_separate,
    an_uncommitted_write_is_gone,
    newest_use_of_a_previous_secret_is_kept,
    events_are_numbered_without_a_gap,
    sums_kept_with_the_ledger_are_the_sums_of_its_entries,
    an_account_is_billed_on_the_cycle_it_moved_to,
    cycle_an_account_left_bills_its_own_months_usage_alone,
    usage_that_comes_months_late_corrects_its_period_once,
    accounts_that_ever_had_a_parent_in_common_are_one_family,
    a_posted_charge_grants_once,
);

async fn migrations_run_once(store: Store) {
    assert_eq!(store.pending_migrations().await.expect("a list"), vec![]);
    assert_eq!(store.migrate().await.expect("nothing to do"), vec![]);
    store.probe().await.expect("a commit succeeds");
}

async fn appended_entries_are_read_in_commit_order(store: Store) {
    let mut writer = store.open_journal(at(0)).await.expect("a lane");
    let first: Vec<JournalEntry> = (0..300).map(entry).collect();
    assert_eq!(writer.append(&first).await.expect("stored"), 300);
    assert_eq!(writer.append(&[entry(300)]).await.expect("stored"), 301);
    let mut tx = store.read_journal().await.expect("a transaction");
    let rows = journal::read_after(&mut tx, writer.lane(), 299, 10).await.expect("rows");
    let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, [300, 301]);
    assert_eq!(rows[1].entry, entry(300));
    assert_eq!(journal::last_seq(&mut tx, writer.lane()).await.expect("a number"), 301);
}

async fn newest_use_of_a_previous_secret_is_kept(store: Store) {
    let mut tx = store.write().await.expect("a transaction");
    for (client, second) in [("bng1", 5), ("bng2", 1), ("bng1", 9), ("bng1", 7)] {
        nas::note_previous_secret(&mut tx, client, at(second)).await.expect("stored");
    }
    tx.commit().await.expect("stored");
    let mut tx = store.read().await.expect("a transaction");
    let used = nas::previous_secrets(&mut tx).await.expect("a list");
    let expected = [("bng1", at(9)), ("bng2", at(1))].map(|(client, used)| (client.to_owned(), to_micros(used)));
    assert_eq!(used, expected.into_iter().collect());
    assert_eq!(nas::reports(&mut tx, 10).await.expect("a list"), vec![]);
}

async fn events_are_numbered_without_a_gap(store: Store) {
    let payload = serde_json::json!({});
    let append = async |store: &Store, tenant: &str, keep: bool| {
        let mut tx = store.write().await.expect("a transaction");
        let event = NewEvent { tenant, kind: EventType::HoldPlaced, subject: "default/1", payload: &payload };
        events::append(&mut tx, &event, at(1)).await.expect("appended");
        if keep { tx.commit().await.expect("stored") } else { tx.rollback().await.expect("undone") }
    };
    let many = async |tenant: &'static str, every: usize| {
        for number in 0..30 {
            append(&store, tenant, number % every != 0).await;
        }
    };
    tokio::join!(many("acme", 2), many("acme", 3), many("other", 2));
    let mut tx = store.read().await.expect("a transaction");
    for (tenant, kept) in [("acme", 15 + 20), ("other", 15), ("nobody", 0)] {
        let filter = EventFilter { tenant, after: 0, kind: None, limit: 1000 };
        let found = events::list(&mut tx, &filter).await.expect("a list");
        let numbers: Vec<i64> = found.iter().map(|event| event.sequence).collect();
        assert_eq!(numbers, (1..=kept).collect::<Vec<i64>>(), "{tenant}");
    }
    drop(tx);
    // What is forgotten keeps its number: nobody gets it again.
    let mut tx = store.write().await.expect("a transaction");
    assert_eq!(events::forget(&mut tx, at(2), 1000).await.expect("deleted"), 50);
    tx.commit().await.expect("stored");
    append(&store, "acme", true).await;
    let mut tx = store.read().await.expect("a transaction");
    let filter = EventFilter { tenant: "acme", after: 35, kind: Some("hold.placed"), limit: 1000 };
    let found = events::list(&mut tx, &filter).await.expect("a list");
    assert_eq!(found.iter().map(events::Event::id).collect::<Vec<_>>(), ["acme.36"]);
}

async fn sums_kept_with_the_ledger_are_the_sums_of_its_entries(store: Store) {
    let cycle = BillCycle {
        id: "c1".to_owned(),
        anchor_day: 1,
        every: Every::Month,
        zone: Zone::UTC,
        timezone: "UTC".to_owned(),
    };
    let period = cycle.period_at(at(0)).expect("a period");
    let start = Some(to_micros(period.start));
    let new = |service_id: i64, hour: i64, octets: i64, period_start_at: Option<i64>| NewEntry {
        owner: Owner { account_id: 1, service_id },
        session_id: 1,
        bucket: LedgerBucket {
            from_at: to_micros(period.start) + hour * 3_600_000_000,
            until_at: to_micros(period.start) + (hour + 1) * 3_600_000_000,
            amount: Amount { in_octets: octets, out_octets: 2 * octets, seconds: 3600, sessions: 1 },
        },
        cause: Cause::Usage,
        period_start_at,
        class: None,
    };
    // Two transactions for one service; another has an entry of an unknown period, a third one that no line can carry.
    for hours in [[1, 2], [2, 3]] {
        let mut tx = store.write().await.expect("a transaction");
        let entries = hours.map(|hour| new(10, hour, 1_000_000 + hour, start));
        ledger::append(&mut tx, &entries, at(0)).await.expect("appended");
        ledger::append(&mut tx, &[new(11, 1, 5, start), new(11, 2, 5, None)], at(0)).await.expect("appended");
        ledger::append(&mut tx, &[new(12, 1, 1 << 60, start)], at(0)).await.expect("appended");
        tx.commit().await.expect("committed");
    }
    let mut tx = store.read().await.expect("a transaction");
    let sums = ledger_totals::of_services(&mut tx, &[10, 11, 12, 13], &cycle).await.expect("sums");
    let mut expected = PeriodSum::default();
    for row in ledger::of_account(&mut tx, 1, 0, 100).await.expect("entries").iter().filter(|row| row.service_id == 10)
    {
        expected.count(&UsageEntry {
            sequence: row.sequence,
            session: row.session_id,
            class: None,
            call: None,
            from: from_micros(row.from_at).expect("an instant"),
            until: from_micros(row.until_at).expect("an instant"),
            in_octets: row.in_octets,
            out_octets: row.out_octets,
            seconds: row.seconds,
            sessions: row.sessions,
        });
    }
    assert_eq!(expected.records, 4);
    assert_eq!(sums[&10], Some([(period.start, expected)].into()));
    assert_eq!((&sums[&11], &sums[&12]), (&None, &None), "their entries must be read");
    assert_eq!(sums[&13], Some([].into()), "nothing was used");
    // Another calendar's periods are not these.
    let other = BillCycle { anchor_day: 15, ..cycle };
    let sums = ledger_totals::of_services(&mut tx, &[10], &other).await.expect("sums");
    assert_eq!(sums[&10], None);
}

const TWO_CYCLES: &str = r#"
[tenant]
id = "acme"
currency = "USD"
timezone = "UTC"
[[bill_cycle]]
id = "month"
every = "month"
[[bill_cycle]]
id = "quarter"
every = { months = 3 }
[[plan]]
id = "res"
service = "internet"
tariff = "res"
radius = { group = "res" }
[[tariff]]
id = "res"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "down"
unit = "GB"
model = "standard"
unit_amount = "1.00"
"#;

async fn an_account_is_billed_on_the_cycle_it_moved_to(store: Store) {
    let read = catalog::read(&Bundle::single("catalog.toml", TWO_CYCLES)).expect("a catalog");
    let mut tx = store.write().await.expect("a transaction");
    let assessed = catalogs::assess(&mut tx, &read, at(0)).await.expect("assessed");
    catalogs::apply(&mut tx, &read, assessed, false, "test", at(0)).await.expect("applied");
    let key = AccountKey {
        tenant: "acme".parse().expect("a tenant"),
        source: "default".parse().expect("a source"),
        external_id: "A".to_owned(),
    };
    let mut id = None;
    for (before, cycle) in [(None, "month"), (Some("month"), "month"), (Some("month"), "quarter")] {
        let document = serde_json::json!({"status": "active", "kind": "person", "bill_cycle": cycle});
        let document: Account = serde_json::from_value(document).expect("an account");
        let (key, document) = (&key, &document);
        let written =
            Written { key, id, cycle_before: before, document, etag: "1", source_revision: None, wake_at: None };
        id = Some(accounts::write(&mut tx, &[written], at(1)).await.expect("written")[0]);
        let billed = billing::accounts(&mut tx, "acme", cycle, 0, 10).await.expect("accounts");
        assert_eq!(billed.iter().map(|account| Some(account.id)).collect::<Vec<_>>(), [id], "{before:?}, {cycle}");
    }
    assert_eq!(billing::accounts(&mut tx, "acme", "month", 0, 10).await.expect("accounts"), []);
}

/// October begins a month and a quarter, so the sums that are kept of the two have one start.
async fn cycle_an_account_left_bills_its_own_months_usage_alone(store: Store) {
    let instant = |text: &str| text.parse::<Timestamp>().expect("an instant");
    let (october, november) = (instant("2026-10-01T00:00:00Z"), instant("2026-11-01T00:00:00Z"));
    let read = catalog::read(&Bundle::single("catalog.toml", TWO_CYCLES)).expect("a catalog");
    let mut tx = store.write().await.expect("a transaction");
    let assessed = catalogs::assess(&mut tx, &read, october).await.expect("assessed");
    catalogs::apply(&mut tx, &read, assessed, false, "test", october).await.expect("applied");
    let key = AccountKey {
        tenant: "acme".parse().expect("a tenant"),
        source: "default".parse().expect("a source"),
        external_id: "A".to_owned(),
    };
    let document = serde_json::json!({"status": "active", "kind": "person", "bill_cycle": "quarter"});
    let document: Account = serde_json::from_value(document).expect("an account");
    let written = Written {
        key: &key,
        id: None,
        cycle_before: None,
        document: &document,
        etag: "1",
        source_revision: None,
        wake_at: None,
    };
    let account = accounts::write(&mut tx, &[written], october).await.expect("written")[0];
    let on = |cycle: &str| {
        let facts = serde_json::json!({"type": "internet", "plan": "res", "bill_cycle": cycle, "status": "active"});
        ServiceChange::new(account, "s1", serde_json::from_value(facts).expect("facts")).expect("a change")
    };
    let rows = accounts::change_services(&mut tx, &[on("month")], october).await.expect("written");
    let service = rows[&(account, "s1".to_owned())];
    let moved = ServiceChange { id: Some(service), ..on("quarter") };
    accounts::change_services(&mut tx, &[moved], november).await.expect("written");
    let used = |from: Timestamp, octets: i64| NewEntry {
        owner: Owner { account_id: account, service_id: service },
        session_id: 1,
        bucket: LedgerBucket {
            from_at: to_micros(from),
            until_at: to_micros(from) + 3_600_000_000,
            amount: Amount { in_octets: 0, out_octets: octets, seconds: 3600, sessions: 1 },
        },
        cause: Cause::Usage,
        period_start_at: Some(to_micros(october)),
        class: None,
    };
    let entries = [used(october, 10_000_000_000), used(november, 20_000_000_000)];
    ledger::append(&mut tx, &entries, november).await.expect("appended");

    let billed = BilledAccount {
        id: account,
        source: "default".to_owned(),
        external_id: "A".to_owned(),
        bill_cycle: "quarter".to_owned(),
    };
    let now = instant("2027-01-05T00:00:00Z");
    let plans = catalogs::plan_tariffs(&mut tx, "acme").await.expect("plans");
    // 10 GB in October; 20 GB in the quarter that goes on from there.
    for (cycle, period, amount) in [("month", "2026-10", "10.00"), ("quarter", "2026-10-01", "20.00")] {
        let context = rating::context(&mut tx, "acme", cycle, Some(period), now).await.expect("a context");
        let facts = rating::facts(&mut tx, &billed, "acme", &context, &plans).await.expect("read").expect("facts");
        let found = lines(&facts, &context).expect("rated").lines;
        let amounts: Vec<&str> = found.iter().map(|stored| stored.line.amount.as_str()).collect();
        assert_eq!(amounts, [amount], "{cycle}");
    }
}

/// What was closed long ago is not read anew for each run, and is there when it is needed.
async fn usage_that_comes_months_late_corrects_its_period_once(store: Store) {
    let instant = |text: &str| text.parse::<Timestamp>().expect("an instant");
    let began = instant("2026-01-01T00:00:00Z");
    let read = catalog::read(&Bundle::single("catalog.toml", TWO_CYCLES)).expect("a catalog");
    let mut tx = store.write().await.expect("a transaction");
    let assessed = catalogs::assess(&mut tx, &read, began).await.expect("assessed");
    catalogs::apply(&mut tx, &read, assessed, false, "test", began).await.expect("applied");
    let key = AccountKey {
        tenant: "acme".parse().expect("a tenant"),
        source: "default".parse().expect("a source"),
        external_id: "A".to_owned(),
    };
    let document = serde_json::json!({"status": "active", "kind": "person", "bill_cycle": "month"});
    let document: Account = serde_json::from_value(document).expect("an account");
    let written = Written {
        key: &key,
        id: None,
        cycle_before: None,
        document: &document,
        etag: "1",
        source_revision: None,
        wake_at: None,
    };
    let account = accounts::write(&mut tx, &[written], began).await.expect("written")[0];
    let facts = serde_json::json!({"type": "internet", "plan": "res", "bill_cycle": "month", "status": "active"});
    let change = ServiceChange::new(account, "s1", serde_json::from_value(facts).expect("facts")).expect("a change");
    let rows = accounts::change_services(&mut tx, &[change], began).await.expect("written");
    let service = rows[&(account, "s1".to_owned())];
    tx.commit().await.expect("committed");
    let use_in = async |month: &str, gigabytes: i64| {
        let start = instant(&format!("2026-{month}-01T00:00:00Z"));
        let entry = NewEntry {
            owner: Owner { account_id: account, service_id: service },
            session_id: 1,
            bucket: LedgerBucket {
                from_at: to_micros(start),
                until_at: to_micros(start) + 3_600_000_000,
                amount: Amount { in_octets: 0, out_octets: gigabytes * 1_000_000_000, seconds: 3600, sessions: 1 },
            },
            cause: Cause::Usage,
            period_start_at: Some(to_micros(start)),
            class: None,
        };
        let mut tx = store.write().await.expect("a transaction");
        ledger::append(&mut tx, &[entry], start).await.expect("appended");
        tx.commit().await.expect("committed");
    };
    let close = async |month: &str, now: &str| {
        let order = Order {
            tenant: "acme".to_owned(),
            cycle: "month".to_owned(),
            period: Some(format!("2026-{month}")),
            dry_run: false,
            rerate: false,
        };
        let mut kept = Kept::default();
        let clock = Clock::fixed(instant(now));
        close_period(&store, &clock, &order, &mut kept).await.expect("closed");
        kept.0
            .into_iter()
            .map(|line| (line.period.start.to_string(), line.amount, line.corrects.is_some()))
            .collect::<Vec<_>>()
    };
    let line =
        |month: &str, amount: &str, corrects: bool| (format!("2026-{month}-01T00:00:00Z"), amount.to_owned(), corrects);
    // Given: half a year, closed month by month.
    for (month, next) in [("01", "02"), ("02", "03"), ("03", "04"), ("04", "05"), ("05", "06")] {
        use_in(month, 10).await;
        assert_eq!(close(month, &format!("2026-{next}-02T00:00:00Z")).await, [line(month, "10.00", false)]);
    }
    let now = instant("2026-07-02T00:00:00Z");
    let facts_now = async || {
        let mut tx = store.read().await.expect("a transaction");
        let context = rating::context(&mut tx, "acme", "month", Some("2026-06"), now).await.expect("a context");
        let plans = catalogs::plan_tariffs(&mut tx, "acme").await.expect("plans");
        let billed = BilledAccount {
            id: account,
            source: "default".to_owned(),
            external_id: "A".to_owned(),
            bill_cycle: "month".to_owned(),
        };
        rating::facts(&mut tx, &billed, "acme", &context, &plans).await.expect("read").expect("facts")
    };
    let facts = facts_now().await;
    let whole: Vec<String> = facts.issued.iter().map(|stored| stored.line.period.start.to_string()).collect();
    assert_eq!((whole, facts.looked.len()), (vec!["2026-05-01T00:00:00Z".to_owned()], 4), "the rest is not read");

    // When: usage comes for January. Then: June's run corrects January, and a further one has nothing to say.
    use_in("06", 20).await;
    use_in("01", 1).await;
    assert_eq!(facts_now().await.issued.len(), 5, "now all of it is");
    let found = close("06", "2026-07-02T00:00:00Z").await;
    assert_eq!(found, [line("01", "1.00", true), line("06", "20.00", false)]);
    assert_eq!(close("06", "2026-07-03T00:00:00Z").await, []);
    use_in("01", 2).await;
    assert_eq!(close("06", "2026-07-04T00:00:00Z").await, [line("01", "2.00", true)], "what was seen is known");
}

/// An account with one service, for whoever needs its row; the service's row beside it.
async fn account_of(tx: &mut Tx, id: &str, parent: Option<&str>, now: Timestamp) -> (i64, i64) {
    let key = AccountKey {
        tenant: "acme".parse().expect("a tenant"),
        source: "default".parse().expect("a source"),
        external_id: id.to_owned(),
    };
    let document = serde_json::json!({"status": "active", "kind": "person", "bill_cycle": "month"});
    let document: Account = serde_json::from_value(document).expect("an account");
    let written = Written {
        key: &key,
        id: None,
        cycle_before: None,
        document: &document,
        etag: "1",
        source_revision: None,
        wake_at: None,
    };
    let account = accounts::write(tx, &[written], now).await.expect("written")[0];
    let rows = accounts::change_services(tx, &[under(account, parent)], now).await.expect("written");
    (account, rows[&(account, "s1".to_owned())])
}

fn under(account: i64, parent: Option<&str>) -> ServiceChange {
    let facts = serde_json::json!(
        {"type": "internet", "plan": "res", "bill_cycle": "month", "status": "active", "parent": parent}
    );
    ServiceChange::new(account, "s1", serde_json::from_value(facts).expect("facts")).expect("a change")
}

async fn applied(tx: &mut Tx, now: Timestamp) {
    let read = catalog::read(&Bundle::single("catalog.toml", TWO_CYCLES)).expect("a catalog");
    let assessed = catalogs::assess(tx, &read, now).await.expect("assessed");
    catalogs::apply(tx, &read, assessed, false, "test", now).await.expect("applied");
}

async fn accounts_that_ever_had_a_parent_in_common_are_one_family(store: Store) {
    let mut tx = store.write().await.expect("a transaction");
    applied(&mut tx, at(0)).await;
    let mut rows = Vec::new();
    // P is a head itself, Q is none of our accounts; E is alone.
    for (id, parent) in
        [("A", Some("P")), ("B", Some("P")), ("E", None), ("P", None), ("C", Some("Q")), ("F", Some("R"))]
    {
        rows.push(account_of(&mut tx, id, parent, at(1)).await);
    }
    let all = |rows: &[(i64, i64)]| -> Vec<BilledAccount> {
        let names = ["A", "B", "E", "P", "C", "F"];
        let billed = |((id, _), name): (&(i64, i64), &str)| BilledAccount {
            id: *id,
            source: "default".to_owned(),
            external_id: name.to_owned(),
            bill_cycle: "month".to_owned(),
        };
        rows.iter().zip(names).map(billed).collect()
    };
    let accounts = all(&rows);
    let names = |families: &[Vec<BilledAccount>]| -> Vec<String> {
        families.iter().map(|one| one.iter().map(|account| account.external_id.as_str()).collect()).collect()
    };
    let found = families::of(&mut tx, "acme", &accounts).await.expect("families");
    assert_eq!(names(&found), ["ABP", "E", "C", "F"]);
    // B goes to another parent: its past stays with the first.
    let moved = ServiceChange { id: Some(rows[1].1), ..under(rows[1].0, Some("Q")) };
    accounts::change_services(&mut tx, &[moved], at(2)).await.expect("written");
    for place in [0, 3, 4] {
        let found = families::of(&mut tx, "acme", &accounts[place..=place]).await.expect("families");
        assert_eq!(names(&found), ["ABPC"], "whoever is asked for");
    }
    assert_eq!(names(&families::of(&mut tx, "other", &accounts[2..3]).await.expect("families")), ["E"]);
}

async fn a_posted_charge_grants_once(store: Store) {
    let mut tx = store.write().await.expect("a transaction");
    applied(&mut tx, at(0)).await;
    let (account, _) = account_of(&mut tx, "A", Some("P"), at(1)).await;
    let posting: Posting =
        serde_json::from_value(serde_json::json!({"type": "top_up", "charge": "data", "grant": "1 GB"})).expect("one");
    let new = NewCharge {
        tenant: "acme",
        account_id: account,
        cycle: "month",
        on: "2026-06-01".parse().expect("a day"),
        currency: "USD".parse().expect("USD"),
        posting: &posting,
        posted_by: "test",
    };
    let charge = charges::insert(&mut tx, &new, at(2)).await.expect("stored");
    let whose = For { charge_id: charge, account_id: account, cycle: "month", service: "s1", tariff: "res", head: "P" };
    let mut granted = NewGrant {
        charge: "data".to_owned(),
        pool: Pool::Parent,
        amount: 1_000_000_000,
        price: "9.99".parse().ok(),
        from: at(3),
        until: Some(at(9)),
    };
    grants::insert(&mut tx, &whose, &granted).await.expect("stored");
    tx.commit().await.expect("stored");
    let mut tx = store.write().await.expect("a transaction");
    let again = grants::insert(&mut tx, &whose, &granted).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })), "{again:?}");
    tx.rollback().await.expect("undone");
    // What cannot be is kept out by the table, too.
    let mut tx = store.write().await.expect("a transaction");
    let other = charges::insert(&mut tx, &new, at(2)).await.expect("stored");
    granted.amount = 0;
    assert!(grants::insert(&mut tx, &For { charge_id: other, ..whose }, &granted).await.is_err());
    tx.rollback().await.expect("undone");
    let mut tx = store.read().await.expect("a transaction");
    let found = grants::of_accounts(&mut tx, &[account], "month").await.expect("a list");
    let [(owner, Ok(row))] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((*owner, row.grant.head.as_deref(), row.grant.amount), (account, Some("P"), 1_000_000_000));
    assert_eq!((row.grant.from, row.grant.until, row.price), (at(3), Some(at(9)), "9.99".parse().ok()));
    let found = grants::of_accounts(&mut tx, &[account], "quarter").await.expect("a list");
    let elsewhere: Vec<bool> = found.iter().flat_map(|(_, row)| row).map(|row| row.grant.foreign).collect();
    assert_eq!((elsewhere, row.grant.foreign), (vec![true], false), "seen from another cycle");
    assert_eq!(grants::these(&mut tx, &[charge]).await.expect("a list"), std::slice::from_ref(row));
}

async fn lanes_are_separate(store: Store) {
    let mut one = store.open_journal(at(0)).await.expect("a lane");
    one.append(&[entry(1)]).await.expect("stored");
    drop(one);
    let mut two = store.open_journal(at(1)).await.expect("a lane");
    two.append(&[entry(2)]).await.expect("stored");
    let mut tx = store.read_journal().await.expect("a transaction");
    let lanes = journal::lanes(&mut tx).await.expect("lanes");
    assert_eq!(lanes.len(), 2);
    for lane in lanes {
        assert_eq!(journal::read_after(&mut tx, lane, 0, 10).await.expect("rows").len(), 1);
    }
}

async fn an_uncommitted_write_is_gone(store: Store) {
    let tx = store.write().await.expect("a transaction");
    drop(tx);
    store.probe().await.expect("the turn to write came back");
}

fn entry(number: i64) -> JournalEntry {
    JournalEntry {
        arrived_at: at(number),
        nas: "bng1".into(),
        source: std::net::SocketAddr::from(([127, 0, 0, 1], 40_000)).into(),
        packet: number.to_be_bytes().to_vec(),
    }
}

fn at(seconds: i64) -> Timestamp {
    from_micros(1_780_000_000_000_000 + seconds * 1_000_000).expect("an instant of the test")
}

type Contract = std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn run_on_sqlite(contract: impl FnOnce(Store) -> Contract) {
    let dir = temp_dir();
    run(&format!("sqlite://{}", dir.path().join("lastmile.db").display()), None, contract);
}

fn run_on_postgres(contract: impl FnOnce(Store) -> Contract) {
    let dir = temp_dir();
    let key = dir.path().join("key");
    std::fs::write(&key, "0123456789abcdef".repeat(4)).expect("a key file");
    run(&postgres::database(), Some(key), contract);
}

fn run(url: &str, key_file: Option<std::path::PathBuf>, contract: impl FnOnce(Store) -> Contract) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config =
            StoreConfig { url: url.to_owned(), key_file, previous_key_file: None, owner: "contract".to_owned() };
        let store = Store::open(&config).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        contract(store.clone()).await;
        store.close().await;
    });
}

#[test]
fn an_unknown_url_is_refused_without_showing_its_password() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = StoreConfig {
        url: "mysql://root:hunter2@db/lastmile".to_owned(),
        key_file: None,
        previous_key_file: None,
        owner: "contract".to_owned(),
    };
    let Err(StoreError::Configuration(message)) = runtime.block_on(Store::open(&config)) else {
        panic!("a MySQL URL was taken");
    };
    assert!(!message.contains("hunter2"), "{message}");
}
