//! The journal's life on both databases: pages in, records out, damage noticed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use lastmile::collector::keeper::{Keeper, Keeping};
use lastmile::store::journal::{self, ArchiveReader, Found, JournalEntry, JournalRow, SessionKey};
use lastmile::store::{Store, StoreConfig, StoreError, fold};
use lastmile::telemetry::{Heartbeats, Metrics};
use lastmile::vocabulary::{Clock, Timestamp, from_micros};
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
    sealed_records_keep_their_places,
    only_what_is_folded_and_full_or_of_a_day_that_is_over_is_sealed,
    a_run_that_was_not_finished_is_invisible_and_goes,
    two_keepers_seal_each_record_once,
    a_day_is_archived_before_it_is_dropped_and_readers_say_so,
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
    let until = HashMap::from([(lane, 6)]);
    assert_eq!(journal::of_session(&mut tx, &SessionKey::new("bng1", "s"), 0, &until, 10).await, Err(corrupt));
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
    let until = HashMap::from([(writer.lane(), 240)]);
    let found = journal::of_session(&mut tx, &key, since, &until, 1000).await.expect("rows");
    assert_eq!(found.dropped, None);
    let found: Vec<(i64, JournalEntry)> = found.rows.into_iter().map(|row| (row.seq, row.entry)).collect();
    let expected: Vec<(i64, JournalEntry)> = (10..80).map(|page| (page * 3 + 2, entry(page, "b"))).collect();
    assert_eq!(found, expected);
}

/// Three days of reports of a few sessions, folded, kept: everything can be read as before, from much less room.
async fn sealed_records_keep_their_places(site: Site) {
    let written = site.three_days(0).await;
    let lane = written[0].lane;
    let mut later = site.store.open_journal(at(3 * DAY)).await.expect("another lane");
    later.append(&[entry(3 * DAY + 5, "s3")]).await.expect("stored");
    for folded in [500, 1000, 1500, written.len() as i64] {
        site.folded(&[(lane, folded), (later.lane(), 1)]).await;
        site.keep(at(3 * DAY + 700), None, 400).await;
    }
    let live = site.number("SELECT CAST(COALESCE(SUM(records), 0) AS BIGINT) FROM journal").await;
    assert_eq!(live, 1, "what arrived today stays as it is");
    assert_eq!(site.number("SELECT COUNT(*) FROM journal_run").await, 4, "two of the first day, one of each other");
    assert_eq!(site.number("SELECT COUNT(*) FROM journal_run WHERE level = 1").await, 2, "pieces of a day are merged");

    let mut tx = site.store.read_journal().await.expect("a transaction");
    for after in [0, 1, 700, 3000, written.len() as i64 - 1] {
        let rows = journal::read_after(&mut tx, lane, after, 10).await.expect("rows");
        assert_eq!(rows[..], written[after as usize..][..rows.len()], "after {after}");
        assert!(!rows.is_empty());
    }
    assert_eq!(journal::last_seq(&mut tx, lane).await.expect("a number"), written.len() as i64);
    assert!(journal::read_after(&mut tx, lane, written.len() as i64, 10).await.expect("none").is_empty());
    for row in written.iter().step_by(997) {
        assert_eq!(journal::record(&mut tx, lane, row.seq).await.expect("a record"), Found::Here(row.clone()));
    }
    assert_eq!(journal::record(&mut tx, lane, 1_000_000).await.expect("none"), Found::Nothing);

    let until = HashMap::from([(lane, written.len() as i64 - 50), (later.lane(), 1)]);
    let found = journal::of_session(&mut tx, &SessionKey::new("bng1", "s3"), 0, &until, 100_000).await.expect("rows");
    let mut expected: Vec<JournalRow> =
        written[..written.len() - 50].iter().filter(|row| row.entry.packet[22..24] == *b"s3").cloned().collect();
    expected.push(JournalRow { lane: later.lane(), seq: 1, entry: entry(3 * DAY + 5, "s3") });
    assert_eq!(found.rows, expected);
}

async fn only_what_is_folded_and_full_or_of_a_day_that_is_over_is_sealed(site: Site) {
    let written = site.three_days(0).await;
    let (lane, all) = (written[0].lane, written.len() as i64);
    let first_day = written.iter().filter(|row| row.entry.arrived_at < at(DAY)).count() as i64;
    let sealed = "SELECT CAST(COALESCE(SUM(records), 0) AS BIGINT) FROM journal_segment";
    site.keep(at(9 * DAY), None, 400).await;
    assert_eq!(site.number(sealed).await, 0, "nothing is folded yet");
    site.folded(&[(lane, 700)]).await;
    site.keep(at(DAY - 5), None, 400).await;
    assert_eq!(site.number(sealed).await, 0, "the day is not over");
    site.keep(at(DAY + 700), None, 400).await;
    assert_eq!(site.number(sealed).await, 700 - 700 % PAGE as i64, "whole pages that are folded");
    site.folded(&[(lane, all)]).await;
    site.keep(at(DAY + 700), None, 400).await;
    assert_eq!(site.number(sealed).await, first_day, "the first day alone");
    assert_eq!(site.number("SELECT CAST(SUM(records) AS BIGINT) FROM journal").await, all - first_day);
}

async fn a_run_that_was_not_finished_is_invisible_and_goes(site: Site) {
    let written = site.three_days(0).await;
    let (lane, all) = (written[0].lane, written.len() as i64);
    site.folded(&[(lane, all)]).await;
    let made = |at: i64| {
        format!(
            "INSERT INTO journal_run (lane, first_seq, last_seq, records, day_on, arrived_from, arrived_until, octets,
                level, state, made_by, made_at) VALUES ({lane}, 1, 900, 900, '2026-05-28', 0, {FAR}, 0, 0, 'making', 'x', {at})"
        )
    };
    site.sql(&made(lastmile::vocabulary::to_micros(at(3 * DAY)))).await;
    site.sql(&format!(
        "INSERT INTO journal_segment (run, key_until, page, key_from, records, body)
        SELECT id, 0, 0, 0, 900, {} FROM journal_run",
        site.blob()
    ))
    .await;
    let mut tx = site.store.read_journal().await.expect("a transaction");
    let rows = journal::read_after(&mut tx, lane, 0, 900).await.expect("rows");
    assert_eq!(rows[..], written[..900]);
    let until = HashMap::from([(lane, all)]);
    journal::of_session(&mut tx, &SessionKey::new("bng1", "s1"), 0, &until, 10).await.expect("it is not looked at");
    tx.rollback().await.expect("an end");
    site.keep(at(3 * DAY + 700), None, 400).await;
    let making = "SELECT COUNT(*) FROM journal_run WHERE state = 'making'";
    assert_eq!(site.number(making).await, 1, "its maker may be alive");
    assert_eq!(site.number("SELECT COUNT(*) FROM journal_run").await, 1, "and nobody else seals the lane");
    site.keep(at(3 * DAY + 3600), None, 400).await;
    assert_eq!(site.number(making).await, 0);
    assert_eq!(site.number("SELECT CAST(SUM(records) AS BIGINT) FROM journal_segment").await, all);
    let mut tx = site.store.read_journal().await.expect("a transaction");
    assert_eq!(journal::read_after(&mut tx, lane, 0, 900).await.expect("rows")[..900], written[..900]);
}

async fn two_keepers_seal_each_record_once(site: Site) {
    let written = site.three_days(0).await;
    let (lane, all) = (written[0].lane, written.len() as i64);
    site.folded(&[(lane, all)]).await;
    let (one, two) = (site.keeper(at(4 * DAY), None, 400), site.keeper(at(4 * DAY), None, 400));
    for _ in 0..60 {
        let (first, second) = tokio::join!(one.turn(), two.turn());
        first.expect("kept");
        second.expect("kept");
    }
    let held = site.number("SELECT CAST(SUM(records) AS BIGINT) FROM journal_segment").await;
    assert_eq!(held, all);
    assert_eq!(site.number("SELECT COUNT(*) FROM journal").await, 0);
    let mut tx = site.store.read_journal().await.expect("a transaction");
    let mut read: Vec<JournalRow> = Vec::new();
    loop {
        let rows = journal::read_after(&mut tx, lane, read.len() as i64, 1).await.expect("rows");
        if rows.is_empty() {
            break;
        }
        read.extend(rows);
    }
    assert_eq!(read, written);
}

async fn a_day_is_archived_before_it_is_dropped_and_readers_say_so(site: Site) {
    let written = site.three_days(0).await;
    let lane = written[0].lane;
    site.folded(&[(lane, written.len() as i64)]).await;
    let folder = temp_dir();
    let archive = folder.path().join("archive");
    // The second day is kept for two days: the first goes on the fourth.
    site.keep(at(3 * DAY + 700), Some(&archive), 2).await;
    let file = archive.join("journal-2026-05-28.lmj");
    let first_day: Vec<JournalRow> = written.iter().filter(|row| row.entry.arrived_at < at(DAY)).cloned().collect();
    let mut reader = ArchiveReader::open(std::fs::File::open(&file).expect("the archive")).expect("an archive");
    let mut archived = Vec::new();
    while let Some(rows) = reader.next_page().expect("a whole archive") {
        archived.extend(rows);
    }
    archived.sort_by_key(|row| row.seq);
    assert_eq!(archived, first_day);
    let names = std::fs::read_dir(&archive).expect("a folder").count();
    assert_eq!(names, 3, "each day once, and nothing half written");

    let mut tx = site.store.read_journal().await.expect("a transaction");
    let Found::Dropped(run) = journal::record(&mut tx, lane, 1).await.expect("an answer") else {
        panic!("the first day is still there");
    };
    assert_eq!((run.day_on.as_str(), run.archive.as_deref()), ("2026-05-28", file.to_str()));
    let until = HashMap::from([(lane, written.len() as i64)]);
    let key = SessionKey::new("bng1", "s3");
    let found = journal::of_session(&mut tx, &key, 0, &until, 100_000).await.expect("rows");
    assert_eq!(found.dropped.as_deref(), Some("2026-05-28"));
    let since = lastmile::vocabulary::to_micros(at(DAY));
    let found = journal::of_session(&mut tx, &key, since, &until, 100_000).await.expect("rows");
    assert_eq!(found.dropped, None, "what began later misses nothing");
    let rows = journal::read_after(&mut tx, lane, 0, 1).await.expect("rows");
    assert_eq!(rows[0], written[first_day.len()], "reading steps over the dropped day");
    tx.rollback().await.expect("an end");
    let left = site.number("SELECT CAST(SUM(records) AS BIGINT) FROM journal_segment").await;
    assert_eq!(left, (written.len() - first_day.len()) as i64, "its room is free");

    let mut torn = std::fs::read(&file).expect("the archive");
    let half = torn.len() / 2;
    torn[half] ^= 1;
    let mut reader = ArchiveReader::open(&torn[..]).expect("an archive");
    let damaged = std::iter::repeat_with(|| reader.next_page()).take(100).any(|page| page.is_err());
    assert!(damaged, "one bit was turned");
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

impl Site {
    /// Three days of reports of eleven sessions, a page of [`PAGE`] every few minutes, as they stand in the journal.
    async fn three_days(&self, session_shift: i64) -> Vec<JournalRow> {
        let mut writer = self.store.open_journal(at(0)).await.expect("a lane");
        let mut written = Vec::new();
        for page in 0..3 * DAY / 400 {
            let entries: Vec<JournalEntry> = (0..PAGE as i64)
                .map(|place| entry(page * 400 + place, &format!("s{}", (page + place + session_shift) % 11)))
                .collect();
            let last = writer.append(&entries).await.expect("stored");
            let first = last + 1 - entries.len() as i64;
            let row = |(seq, entry)| JournalRow { lane: writer.lane(), seq, entry };
            written.extend((first..).zip(entries).map(row));
        }
        written
    }

    async fn folded(&self, watermarks: &[(i64, i64)]) {
        let mut tx = self.store.write_derived().await.expect("a transaction");
        for (lane, seq) in watermarks {
            fold::move_watermark(&mut tx, *lane, *seq, at(0)).await.expect("moved");
        }
        tx.commit().await.expect("an end");
    }

    fn keeper(&self, now: Timestamp, archive: Option<&Path>, keep_days: u32) -> Keeper {
        Keeper {
            store: self.store.clone(),
            clock: Clock::fixed(now),
            keeping: Keeping { keep_days, archive: archive.map(Path::to_path_buf) },
            metrics: Metrics::new(),
            beat: Heartbeats::new().register("keeper"),
        }
    }

    /// Keeps until there is nothing more to do.
    async fn keep(&self, now: Timestamp, archive: Option<&Path>, keep_days: u32) {
        let keeper = self.keeper(now, archive, keep_days);
        for _ in 0..200 {
            if !keeper.turn().await.expect("kept") {
                return;
            }
        }
        panic!("the keeper finds no end");
    }

    async fn number(&self, statement: &str) -> i64 {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        match &self.accounting {
            Some(url) => {
                let mut c = sqlx::SqliteConnection::connect(url).await.expect("connects");
                sqlx::query_scalar(statement).fetch_one(&mut c).await.expect("a number")
            }
            None => {
                let mut c = sqlx::PgConnection::connect(&self.url).await.expect("connects");
                sqlx::query_scalar(statement).fetch_one(&mut c).await.expect("a number")
            }
        }
    }

    fn blob(&self) -> &'static str {
        if self.accounting.is_some() { "x'00'" } else { "'\\x00'::BYTEA" }
    }
}

const PAGE: usize = 9;
const DAY: i64 = 86_400;
const FAR: i64 = 4_000_000_000_000_000;

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
    from_micros(1_779_926_400_000_000 + seconds * 1_000_000).expect("an instant of the test")
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
