//! The journal's life on both databases: pages in, records out, damage noticed.

use std::net::SocketAddr;

use lastmile::store::journal::{self, JournalEntry, SessionKey};
use lastmile::store::{Store, StoreConfig, StoreError};
use lastmile::vocabulary::{Timestamp, from_micros};
use sqlx::Connection;

use crate::harness::{postgres, temp_dir};

/// Runs a contract on both databases.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::on_sqlite(|site| Box::pin(super::$name(site))); })*
        }
        mod postgres_15 {
            $(#[test] fn $name() { super::on_postgres(|site| Box::pin(super::$name(site))); })*
        }
    };
}

contract!(
    reading_starts_and_stops_in_the_middle_of_pages,
    a_damaged_page_is_named_and_nothing_of_it_is_read,
    records_of_a_session_are_found_among_others,
);

async fn reading_starts_and_stops_in_the_middle_of_pages(site: Site) {
    let mut writer = site.store.open_journal(at(0)).await.expect("a lane");
    let mut number = 0..;
    for size in [3, 1, 500, 1, 1, 40] {
        let entries: Vec<JournalEntry> = number.by_ref().take(size).map(|number| entry(number, "s")).collect();
        writer.append(&entries).await.expect("stored");
    }
    let mut tx = site.store.read_journal().await.expect("a transaction");
    for (after, limit, expected) in
        [(0, 600, 1..=546), (1, 1, 2..=2), (2, 4, 3..=6), (400, 120, 401..=520), (545, 9, 546..=546)]
    {
        let rows = journal::read_after(&mut tx, writer.lane(), after, limit).await.expect("rows");
        let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
        assert_eq!(seqs, expected.collect::<Vec<_>>(), "after {after}");
        for row in rows {
            assert_eq!(row.entry, entry(row.seq - 1, "s"));
        }
    }
    assert!(journal::read_after(&mut tx, writer.lane(), 546, 9).await.expect("rows").is_empty());
    assert_eq!(journal::last_seq(&mut tx, writer.lane()).await.expect("a number"), 546);
}

async fn a_damaged_page_is_named_and_nothing_of_it_is_read(site: Site) {
    let mut writer = site.store.open_journal(at(0)).await.expect("a lane");
    for page in 0..3 {
        writer.append(&[entry(2 * page, "s"), entry(2 * page + 1, "s")]).await.expect("stored");
    }
    let lane = writer.lane();
    site.sql("UPDATE journal SET body = REPLACE_OCTET WHERE first_seq = 3").await;
    let mut tx = site.store.read_journal().await.expect("a transaction");
    let id = format!("{lane}:3");
    let corrupt = StoreError::Corrupt { table: "journal", column: "body", id };
    assert_eq!(journal::read_after(&mut tx, lane, 2, 10).await, Err(corrupt.clone()));
    assert_eq!(journal::of_session(&mut tx, lane, 6, &SessionKey::new("bng1", "s"), 0, 10).await, Err(corrupt));
    assert_eq!(journal::read_after(&mut tx, lane, 4, 10).await.expect("the page behind is whole").len(), 2);
}

async fn records_of_a_session_are_found_among_others(site: Site) {
    let mut writer = site.store.open_journal(at(0)).await.expect("a lane");
    for page in 0..90i64 {
        let entries: Vec<JournalEntry> = ["a", "b", "c"].into_iter().map(|id| entry(page, id)).collect();
        writer.append(&entries).await.expect("stored");
    }
    let other = JournalEntry { nas: "bng2".into(), ..entry(90, "b") };
    writer.append(&[other]).await.expect("stored");
    let since = lastmile::vocabulary::to_micros(at(10));
    let mut tx = site.store.read_journal().await.expect("a transaction");
    let key = SessionKey::new("bng1", "b");
    let rows = journal::of_session(&mut tx, writer.lane(), 240, &key, since, 1000).await.expect("rows");
    let found: Vec<(i64, JournalEntry)> = rows.into_iter().map(|row| (row.seq, row.entry)).collect();
    let expected: Vec<(i64, JournalEntry)> = (10..80).map(|page| (page * 3 + 2, entry(page, "b"))).collect();
    assert_eq!(found, expected);
}

struct Site {
    store: Store,
    url: String,
    accounting: Option<String>,
}

impl Site {
    /// Runs a statement where the journal is. `REPLACE_OCTET` stands for the body with one octet turned.
    async fn sql(&self, statement: &str) {
        match &self.accounting {
            Some(url) => {
                let text =
                    statement.replace("REPLACE_OCTET", "CAST(substr(body, 1, 9) || x'ff' || substr(body, 11) AS BLOB)");
                let mut c = sqlx::SqliteConnection::connect(url).await.expect("connects");
                sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut c).await.expect("a statement of the test");
            }
            None => {
                let text = statement.replace("REPLACE_OCTET", "set_byte(body, 9, 255)");
                let mut c = sqlx::PgConnection::connect(&self.url).await.expect("connects");
                sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut c).await.expect("a statement of the test");
            }
        }
    }
}

/// A packet with an Acct-Session-Id and a number.
fn entry(number: i64, session: &str) -> JournalEntry {
    let mut packet = vec![4, number as u8, 0, 0];
    packet.extend_from_slice(&[0; 16]);
    packet.extend_from_slice(&[44, 2 + session.len() as u8]);
    packet.extend_from_slice(session.as_bytes());
    packet.extend_from_slice(&[46, 6]);
    packet.extend_from_slice(&(number as u32).to_be_bytes());
    packet[3] = packet.len() as u8;
    let source = SocketAddr::from(([192, 0, 2, 1], 4000 + (number % 7) as u16)).into();
    JournalEntry { arrived_at: at(number), nas: "bng1".into(), source, packet }
}

fn at(seconds: i64) -> Timestamp {
    from_micros(1_780_000_000_000_000 + seconds * 1_000_000).expect("an instant of the test")
}

type Contract = std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn on_sqlite(contract: impl FnOnce(Site) -> Contract) {
    let dir = temp_dir();
    let accounting = format!("sqlite://{}", dir.path().join("lastmile-accounting.db").display());
    run(&format!("sqlite://{}", dir.path().join("lastmile.db").display()), None, Some(accounting), contract);
}

fn on_postgres(contract: impl FnOnce(Site) -> Contract) {
    let dir = temp_dir();
    let key = dir.path().join("key");
    std::fs::write(&key, "0123456789abcdef".repeat(4)).expect("a key file");
    run(&postgres::database(), Some(key), None, contract);
}

fn run(
    url: &str,
    key_file: Option<std::path::PathBuf>,
    accounting: Option<String>,
    contract: impl FnOnce(Site) -> Contract,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = StoreConfig { url: url.to_owned(), key_file, previous_key_file: None, owner: "test".to_owned() };
        let store = Store::open(&config).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        contract(Site { store: store.clone(), url: url.to_owned(), accounting }).await;
        store.close().await;
    });
}
