//! Sealed runs: consecutive records of one lane and one day, sorted by session, in compressed pages.
//!
//! A run is made beside what it replaces and becomes visible with one small statement, so that the journal's writer
//! never waits for more than a few pages. What it replaced is ignored from then on, and removed piece by piece; after a
//! crash whoever tidies next finishes. Two daemons may make the same run: the second finds its place taken.
//!
//! ```text
//! making ──▶ sealed ──▶ dropped (retention: its pages are gone, its row stays and says so)
//!    │          └─────▶ replaced (by the run it was merged into)
//!    └ abandoned ─────▶ replaced ──▶ no more
//! ```

use sqlx::FromRow;

use super::key::session_key;
use super::page::{PAGE_RECORDS_MAX, PageView};
use super::sealed::pack;
use super::{JournalRow, damaged};
use crate::store::{Db, SqliteTx, Store, StoreError, Tx, on};
use crate::vocabulary::{Timestamp, Zone, from_micros, to_micros};

/// A run's row.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Run {
    pub id: i64,
    pub lane: i64,
    pub first_seq: i64,
    pub last_seq: i64,
    pub records: i64,
    /// UTC day its records arrived on, ISO.
    pub day_on: String,
    pub arrived_from: i64,
    pub arrived_until: i64,
    /// What its pages hold, compressed.
    pub octets: i64,
    /// 0 as sealed from live pages, 1 merged.
    pub level: i64,
    /// `sealed` or `dropped`; the others are nobody's business.
    pub state: String,
    /// The file that holds it too.
    pub archive: Option<String>,
}

/// A run ready to be written.
#[derive(Debug)]
pub struct NewRun {
    lane: i64,
    first_seq: i64,
    last_seq: i64,
    day_on: String,
    arrived_from: i64,
    arrived_until: i64,
    records: i64,
    pages: Vec<NewPage>,
}

#[derive(Debug)]
pub(super) struct NewPage {
    pub key_from: i64,
    pub key_until: i64,
    pub records: i64,
    pub body: Vec<u8>,
}

/// Live pages that are ready to become a run.
#[derive(Debug)]
pub struct Stretch {
    lane: i64,
    day: i64,
    arrived_from: i64,
    arrived_until: i64,
    records: i64,
    pages: Vec<(i64, Vec<u8>)>,
}

const COLUMNS: &str = "id, lane, first_seq, last_seq, records, day_on, arrived_from, arrived_until, octets, level,
     state, archive";
const PAGES_FROM: &str = "SELECT first_seq, records, arrived_from, arrived_until, body FROM journal
     WHERE lane = $1 AND first_seq > $2 AND first_seq <= $3 ORDER BY first_seq LIMIT $4";
const SEALED_UNTIL: &str = "SELECT last_seq FROM journal_run WHERE lane = $1 AND state IN ('sealed', 'dropped')
     ORDER BY first_seq DESC LIMIT 1";
const FIRST_ARRIVAL: &str =
    "SELECT arrived_from FROM journal WHERE lane = $1 AND first_seq > $2 ORDER BY first_seq LIMIT 1";
const FIRST_PAGE: &str = "SELECT first_seq FROM journal WHERE lane = $1 ORDER BY first_seq LIMIT 1";
const LANES_WITH_PAGES: &str = "SELECT id FROM lane WHERE EXISTS
     (SELECT 1 FROM journal WHERE journal.lane = lane.id) ORDER BY id LIMIT 100000";
const BEGIN_RUN: &str = "INSERT INTO journal_run (lane, first_seq, last_seq, records, day_on, arrived_from,
     arrived_until, octets, level, state, made_by, made_at)
     SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, 'making', $10, $11
     WHERE NOT EXISTS (SELECT 1 FROM journal_run WHERE lane = $1 AND state = 'making' AND made_at > $12)
     RETURNING id";
const PUT_PAGE: &str = "INSERT INTO journal_segment (run, key_until, page, key_from, records, body)
     VALUES ($1, $2, $3, $4, $5, $6)";
const SHOW_RUN: &str = "UPDATE journal_run SET state = 'sealed' WHERE id = $1 AND state = 'making'
     AND NOT EXISTS (SELECT 1 FROM journal_run AS other WHERE other.lane = journal_run.lane AND other.id <> $1
         AND other.state IN ('sealed', 'dropped') AND other.first_seq <= journal_run.last_seq
         AND other.last_seq >= journal_run.first_seq)";
const GIVE_UP_RUN: &str = "UPDATE journal_run SET state = 'replaced' WHERE id = $1 AND state = 'making'";
const REPLACE_RUN: &str = "UPDATE journal_run SET state = 'replaced' WHERE id = $1 AND state = 'sealed'";
const ABANDONED: &str = "UPDATE journal_run SET state = 'replaced' WHERE state = 'making' AND made_at <= $1";
const COUNT_PAGES: &str = "SELECT CAST(COALESCE(SUM(records), 0) AS BIGINT) FROM journal_segment WHERE run = $1";
const SET_OCTETS: &str = "UPDATE journal_run SET octets = $2 WHERE id = $1";
const TO_CLEAR: &str =
    "SELECT id, state FROM journal_run WHERE state = 'replaced' OR (state = 'dropped' AND octets > 0)
     ORDER BY id LIMIT 1";
const CLEAR_PAGES: &str = "DELETE FROM journal_segment WHERE run = $1 AND (key_until, page) IN
     (SELECT key_until, page FROM journal_segment WHERE run = $1 ORDER BY key_until, page LIMIT $2)";
const FORGET_RUN: &str = "DELETE FROM journal_run WHERE id = $1 AND state = 'replaced'";
const EMPTIED: &str = "UPDATE journal_run SET octets = 0 WHERE id = $1 AND state = 'dropped'";
const CLEAR_LIVE: &str = "DELETE FROM journal WHERE lane = $1 AND first_seq IN
     (SELECT first_seq FROM journal WHERE lane = $1 AND first_seq <= $2 ORDER BY first_seq LIMIT $3)";
const KEEP_LOCK: i64 = 0x6a6f_7572_6e61_6c00;
const LOCK: &str = "SELECT 1 FROM (SELECT pg_advisory_xact_lock($1)) AS held";

impl Store {
    /// A transaction that writes to the journal's database besides its writers: short, or they wait.
    pub(in crate::store) async fn write_journal(&self) -> Result<Tx, StoreError> {
        match &self.inner.db {
            Db::Sqlite { accounting, .. } => {
                let turn = accounting.log.turn().await?;
                let transaction = accounting.background.begin_with("BEGIN IMMEDIATE").await?;
                Ok(Tx::Sqlite(SqliteTx::new(transaction, Some(turn))))
            }
            Db::Postgres { pool, .. } => Ok(Tx::from(pool.begin().await?)),
        }
    }

    /// Lanes that have live pages, oldest first.
    pub async fn lanes_to_seal(&self) -> Result<Vec<i64>, StoreError> {
        let mut tx = self.read_journal().await?;
        let lanes = on!(&mut tx, c => sqlx::query_scalar(LANES_WITH_PAGES).fetch_all(c).await)?;
        tx.rollback().await?;
        Ok(lanes)
    }

    /// The oldest live pages of a lane that make a run: all of them folded (`watermark`), of one day, and either as
    /// many as a run holds or of a day that is over. `None`: there is nothing to seal yet.
    pub async fn stretch_to_seal(
        &self,
        lane: i64,
        watermark: i64,
        now: Timestamp,
    ) -> Result<Option<Stretch>, StoreError> {
        let mut tx = self.read_journal().await?;
        let mut after = sealed_until(&mut tx, lane).await?;
        let first: Option<i64> =
            on!(&mut tx, c => sqlx::query_scalar(FIRST_ARRIVAL).bind(lane).bind(after).fetch_optional(c).await)?;
        let over = first.is_some_and(|at| to_micros(now) >= (day_of(at) + 1) * DAY + DAY_SETTLES);
        // Numbers in a lane have no gap.
        if !over && watermark - after < RUN_RECORDS + PAGE_RECORDS_MAX as i64 {
            return tx.rollback().await.map(|()| None);
        }
        let mut stretch: Option<Stretch> = None;
        loop {
            let pages: Vec<LivePage> = on!(&mut tx, c => sqlx::query_as(PAGES_FROM)
                .bind(lane)
                .bind(after)
                .bind(watermark)
                .bind(PAGES_AT_ONCE)
                .fetch_all(c)
                .await)?;
            let Some(last) = pages.last() else { break };
            after = last.first_seq;
            let mut full = false;
            for page in pages {
                let whole = page.first_seq + page.records - 1 <= watermark;
                let growing = stretch.get_or_insert_with(|| Stretch::begin(lane, &page));
                full = growing.records > 0
                    && (day_of(page.arrived_from) != growing.day || growing.records + page.records > RUN_RECORDS);
                if !whole || full {
                    break;
                }
                growing.take(page);
            }
            if full || stretch.as_ref().is_some_and(|stretch| stretch.records == RUN_RECORDS) {
                break;
            }
        }
        tx.rollback().await?;
        Ok(stretch.filter(|stretch| stretch.records > 0))
    }

    /// Writes a run beside the live pages it holds, then shows it. `false`: somebody else does or did.
    pub async fn seal(&self, run: NewRun, now: Timestamp) -> Result<bool, StoreError> {
        let octets = run.pages.iter().map(|page| page.body.len() as i64).sum();
        let Some(id) = self.begin_run(&run.describe(octets, 0), now).await? else { return Ok(false) };
        let mut number = 0;
        for pages in run.pages.chunks(PAGES_A_COMMIT) {
            self.put_pages(id, number, pages).await?;
            number += pages.len() as i64;
        }
        let mut tx = self.write_journal().await?;
        lock(&mut tx).await?;
        let shown = show(&mut tx, id, run.records).await?;
        tx.commit().await?;
        Ok(shown)
    }

    pub(super) async fn begin_run(&self, run: &Run, now: Timestamp) -> Result<Option<i64>, StoreError> {
        let mut tx = self.write_journal().await?;
        lock(&mut tx).await?;
        let id: Option<i64> = on!(&mut tx, c => sqlx::query_scalar(BEGIN_RUN)
            .bind(run.lane)
            .bind(run.first_seq)
            .bind(run.last_seq)
            .bind(run.records)
            .bind(&run.day_on)
            .bind(run.arrived_from)
            .bind(run.arrived_until)
            .bind(run.octets)
            .bind(run.level)
            .bind(self.owner())
            .bind(to_micros(now))
            .bind(to_micros(now) - ABANDONED_AFTER)
            .fetch_optional(c)
            .await)?;
        tx.commit().await?;
        Ok(id)
    }

    pub(super) async fn put_pages(&self, run: i64, first: i64, pages: &[NewPage]) -> Result<(), StoreError> {
        let mut tx = self.write_journal().await?;
        for (number, page) in (first..).zip(pages) {
            on!(&mut tx, c => sqlx::query(PUT_PAGE)
                .bind(run)
                .bind(page.key_until)
                .bind(number)
                .bind(page.key_from)
                .bind(page.records)
                .bind(&page.body)
                .execute(c)
                .await
                .map(drop))?;
        }
        tx.commit().await
    }

    /// Removes a bounded piece of what sealed runs hold too, of runs that were replaced, dropped or abandoned.
    /// `true`: there may be more.
    pub async fn tidy_journal(&self, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.write_journal().await?;
        let abandoned = to_micros(now) - ABANDONED_AFTER;
        on!(&mut tx, c => sqlx::query(ABANDONED).bind(abandoned).execute(c).await.map(drop))?;
        let next: Option<(i64, String)> = on!(&mut tx, c => sqlx::query_as(TO_CLEAR).fetch_optional(c).await)?;
        if let Some((run, state)) = next {
            let gone = on!(&mut tx, c => sqlx::query(CLEAR_PAGES).bind(run).bind(PAGES_A_COMMIT as i64).execute(c).await
                .map(|done| done.rows_affected()))?;
            if gone == 0 {
                let end = if state == "dropped" { EMPTIED } else { FORGET_RUN };
                on!(&mut tx, c => sqlx::query(end).bind(run).execute(c).await.map(drop))?;
            }
            tx.commit().await?;
            return Ok(true);
        }
        tx.commit().await?;
        for lane in self.lanes_to_seal().await? {
            let mut tx = self.read_journal().await?;
            let until = sealed_until(&mut tx, lane).await?;
            let first: Option<i64> =
                on!(&mut tx, c => sqlx::query_scalar(FIRST_PAGE).bind(lane).fetch_optional(c).await)?;
            tx.rollback().await?;
            if first.is_none_or(|first| first > until) {
                continue;
            }
            let mut tx = self.write_journal().await?;
            let gone = on!(&mut tx, c => sqlx::query(CLEAR_LIVE)
                .bind(lane)
                .bind(until)
                .bind(LIVE_A_COMMIT)
                .execute(c)
                .await
                .map(|done| done.rows_affected()))?;
            tx.commit().await?;
            if gone > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Up to where a lane is sealed; 0 when nothing is.
pub(super) async fn sealed_until(tx: &mut Tx, lane: i64) -> Result<i64, StoreError> {
    let seq: Option<i64> = on!(tx, c => sqlx::query_scalar(SEALED_UNTIL).bind(lane).fetch_optional(c).await)?;
    Ok(seq.unwrap_or(0))
}

/// Makes a finished run visible; `false` when its place is taken, and it goes.
pub(super) async fn show(tx: &mut Tx, run: i64, records: i64) -> Result<bool, StoreError> {
    let written: i64 = on!(&mut *tx, c => sqlx::query_scalar(COUNT_PAGES).bind(run).fetch_one(c).await)?;
    let mut shown = false;
    if written == records {
        shown = on!(&mut *tx, c => sqlx::query(SHOW_RUN).bind(run).execute(c).await
            .map(|done| done.rows_affected() == 1))?;
    }
    if !shown {
        on!(tx, c => sqlx::query(GIVE_UP_RUN).bind(run).execute(c).await.map(drop))?;
    }
    Ok(shown)
}

/// Takes sealed runs out of sight; `false` when one of them already is.
pub(super) async fn replace(tx: &mut Tx, runs: &[Run]) -> Result<bool, StoreError> {
    for run in runs {
        let done = on!(&mut *tx, c => sqlx::query(REPLACE_RUN).bind(run.id).execute(c).await
            .map(|done| done.rows_affected()))?;
        if done != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) async fn set_octets(tx: &mut Tx, run: i64, octets: i64) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(SET_OCTETS).bind(run).bind(octets).execute(c).await.map(drop))?;
    Ok(())
}

/// One who shows runs at a time; on SQLite the write lock says it all.
pub(super) async fn lock(tx: &mut Tx) -> Result<(), StoreError> {
    if let Tx::Postgres(transaction) = tx {
        sqlx::query(LOCK).bind(KEEP_LOCK).execute(&mut **transaction).await?;
    }
    Ok(())
}

pub(super) fn select(rest: &str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM journal_run {rest}"))
}

#[derive(FromRow)]
struct LivePage {
    first_seq: i64,
    records: i64,
    arrived_from: i64,
    arrived_until: i64,
    body: Vec<u8>,
}

impl Stretch {
    fn begin(lane: i64, page: &LivePage) -> Self {
        let day = day_of(page.arrived_from);
        Self { lane, day, arrived_from: i64::MAX, arrived_until: i64::MIN, records: 0, pages: Vec::new() }
    }

    fn take(&mut self, page: LivePage) {
        self.arrived_from = self.arrived_from.min(page.arrived_from);
        self.arrived_until = self.arrived_until.max(page.arrived_until);
        self.records += page.records;
        self.pages.push((page.first_seq, page.body));
    }

    pub fn records(&self) -> i64 {
        self.records
    }

    /// Sorts and compresses; the long part, to be done where nobody waits.
    ///
    /// **Errors**: `Corrupt` names the page that is damaged; the stretch stays as it is.
    pub fn into_run(self) -> Result<NewRun, StoreError> {
        let mut rows: Vec<(i64, JournalRow)> = Vec::with_capacity(usize::try_from(self.records).unwrap_or(0));
        for (first_seq, body) in self.pages {
            let broken = |_| damaged("journal", self.lane, first_seq);
            let view = PageView::open(&body).map_err(broken)?;
            for (seq, record) in (first_seq..).zip(view.records()) {
                let entry = record.map_err(broken)?.to_entry();
                rows.push((session_key(&entry.nas, &entry.packet), JournalRow { lane: self.lane, seq, entry }));
            }
        }
        let (first_seq, last_seq) =
            (rows.first().map_or(0, |(_, row)| row.seq), rows.last().map_or(0, |(_, row)| row.seq));
        rows.sort_unstable_by_key(|(key, row)| (*key, row.seq));
        let mut pages = Vec::with_capacity(rows.len() / PAGE_RECORDS + 1);
        let mut rest = rows.into_iter().peekable();
        while rest.peek().is_some() {
            let (keys, rows): (Vec<i64>, Vec<JournalRow>) = rest.by_ref().take(PAGE_RECORDS).unzip();
            pages.push(NewPage::of(&keys, &rows));
        }
        Ok(NewRun {
            lane: self.lane,
            first_seq,
            last_seq,
            day_on: day_on(self.day),
            arrived_from: self.arrived_from,
            arrived_until: self.arrived_until,
            records: self.records,
            pages,
        })
    }
}

impl NewPage {
    /// **Shape**: at least one record, sorted by key.
    pub fn of(keys: &[i64], rows: &[JournalRow]) -> Self {
        Self { key_from: keys[0], key_until: keys[keys.len() - 1], records: rows.len() as i64, body: pack(rows) }
    }
}

impl NewRun {
    fn describe(&self, octets: i64, level: i64) -> Run {
        Run {
            id: 0,
            lane: self.lane,
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            records: self.records,
            day_on: self.day_on.clone(),
            arrived_from: self.arrived_from,
            arrived_until: self.arrived_until,
            octets,
            level,
            state: "making".to_owned(),
            archive: None,
        }
    }
}

/// The day of an instant, counted from 1970-01-01, in UTC.
pub(super) fn day_of(micros: i64) -> i64 {
    micros.div_euclid(DAY)
}

/// An ISO day.
pub(super) fn day_on(day: i64) -> String {
    let at = from_micros(day.saturating_mul(DAY)).unwrap_or_default();
    at.to_zoned(Zone::UTC).date().to_string()
}

pub(super) const DAY: i64 = 86_400_000_000;
/// A day is over when no daemon can still be committing what arrived on it.
pub(super) const DAY_SETTLES: i64 = 10 * 60 * 1_000_000;
/// Records of a run sealed from live pages at most; what the sealer holds in memory.
const RUN_RECORDS: i64 = 65_536;
/// Records of a sealed page: what is read to find one session's.
pub(super) const PAGE_RECORDS: usize = 512;
/// Pages written or removed by one transaction, for which the journal's writer may have to wait.
pub(super) const PAGES_A_COMMIT: usize = 8;
const LIVE_A_COMMIT: i64 = 32;
const PAGES_AT_ONCE: i64 = 64;
/// A run not finished by then has lost its maker.
const ABANDONED_AFTER: i64 = 15 * 60 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_cut_in_utc() {
        let day = |text: &str| day_on(day_of(to_micros(text.parse().expect("an instant"))));
        assert_eq!(day("2026-11-22T00:00:00Z"), "2026-11-22");
        assert_eq!(day("2026-11-21T23:59:59.999999Z"), "2026-11-21");
        assert_eq!(day("1969-12-31T12:00:00Z"), "1969-12-31");
    }
}
