//! Reading the journal: a lane in commit order, one record, and the records of one session, wherever they stand by now.

use std::collections::HashMap;

use super::key::SessionKey;
use super::page::{PageView, checked};
use super::runs::{Run, sealed_until, select};
use super::sealed::unpack;
use super::{JournalRow, damaged};
use crate::store::{StoreError, Tx, on};

const LANES: &str = "SELECT id FROM lane ORDER BY id LIMIT 100000";
const PAGES_AFTER: &str = "SELECT first_seq, body FROM journal
     WHERE lane = $1 AND first_seq + records - 1 > $2 AND first_seq >= COALESCE(
         (SELECT MAX(first_seq) FROM journal WHERE lane = $1 AND first_seq <= $2 + 1), 0)
     ORDER BY first_seq LIMIT $3";
const PAGES_SINCE: &str = "SELECT first_seq, body FROM journal
     WHERE lane = $1 AND first_seq > $2 AND first_seq <= $3 AND arrived_until >= $4
     ORDER BY first_seq LIMIT $5";
const LAST_SEQ: &str = "SELECT first_seq + records - 1 FROM journal WHERE lane = $1 ORDER BY first_seq DESC LIMIT 1";
const RUN_OF: &str = "WHERE lane = $1 AND first_seq <= $2 AND last_seq >= $2 AND state IN ('sealed', 'dropped')
     ORDER BY first_seq DESC LIMIT 1";
const RUNS_SINCE: &str = "WHERE arrived_until >= $1 AND state IN ('sealed', 'dropped')
     ORDER BY lane, first_seq LIMIT 1000000";
const PAGE_BY_NUMBER: &str =
    "SELECT key_until, page, body FROM journal_segment WHERE run = $1 AND (key_until, page) > ($2, $3)
     ORDER BY key_until, page LIMIT 1";
const PAGE_OF_KEY: &str = "SELECT key_from, key_until, page, body FROM journal_segment
     WHERE run = $1 AND key_until >= $2 AND page > $3 ORDER BY key_until, page LIMIT 1";

/// What became of the record at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Here(JournalRow),
    /// Its day was dropped; the file it was archived in, if it was.
    Dropped(Box<Run>),
    /// There never was one.
    Nothing,
}

/// The records of a session that the journal still holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SessionRecords {
    /// By lane and `seq`.
    pub rows: Vec<JournalRow>,
    /// The first day, ISO, that may hold more and was dropped.
    pub dropped: Option<String>,
}

/// Every lane there is, oldest first.
pub async fn lanes(tx: &mut Tx) -> Result<Vec<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(LANES).fetch_all(c).await)?)
}

/// The newest `seq` of a lane, 0 when it is empty.
pub async fn last_seq(tx: &mut Tx, lane: i64) -> Result<i64, StoreError> {
    let seq: Option<i64> = on!(&mut *tx, c => sqlx::query_scalar(LAST_SEQ).bind(lane).fetch_optional(c).await)?;
    match seq {
        Some(seq) => Ok(seq),
        None => sealed_until(tx, lane).await,
    }
}

/// The next entries of a lane after `seq`, in commit order, at most `limit`; from a sealed run, which is read whole for
/// any of them, at most as many as [`SEALED_AT_ONCE`] if that is more. Nothing more comes before a dropped day is
/// stepped over: an answer may begin later than `seq + 1`.
///
/// **Errors**: `Corrupt` names the page that is damaged.
pub async fn read_after(tx: &mut Tx, lane: i64, seq: i64, limit: i64) -> Result<Vec<JournalRow>, StoreError> {
    let wanted = usize::try_from(limit).unwrap_or(0);
    let mut rows = Vec::new();
    let mut after = seq;
    while rows.len() < wanted {
        let pages = i64::try_from(wanted - rows.len()).unwrap_or(i64::MAX).min(PAGES_AT_ONCE);
        let found: Vec<(i64, Vec<u8>)> =
            on!(&mut *tx, c => sqlx::query_as(PAGES_AFTER).bind(lane).bind(after).bind(pages).fetch_all(c).await)?;
        if found.first().is_none_or(|(first_seq, _)| *first_seq > after + 1) {
            if !rows.is_empty() {
                break;
            }
            match run_of(tx, lane, after + 1).await? {
                Some(run) if run.state == "dropped" => after = run.last_seq,
                Some(run) => return stretch_of(tx, &run, after, wanted.max(SEALED_AT_ONCE)).await,
                None if found.is_empty() => break,
                None => return Err(damaged("journal", lane, after + 1)),
            }
            continue;
        }
        for (first_seq, body) in found {
            let broken = |_| damaged("journal", lane, first_seq);
            let view = PageView::open(&body).map_err(broken)?;
            if first_seq > after + 1 {
                // What stands between was sealed meanwhile.
                return Ok(rows);
            }
            for (seq, record) in (first_seq..).zip(view.records()) {
                let record = record.map_err(broken)?;
                if seq > after && rows.len() < wanted {
                    rows.push(JournalRow { lane, seq, entry: record.to_entry() });
                }
            }
            after = after.max(first_seq + view.len() as i64 - 1);
        }
    }
    Ok(rows)
}

/// The record at a place.
///
/// **Errors**: `Corrupt` names the page that is damaged.
pub async fn record(tx: &mut Tx, lane: i64, seq: i64) -> Result<Found, StoreError> {
    if let Some(run) = run_of(tx, lane, seq).await?
        && run.state == "dropped"
    {
        return Ok(Found::Dropped(Box::new(run)));
    }
    let rows = match run_of(tx, lane, seq).await? {
        Some(run) => stretch_of(tx, &run, seq - 1, 1).await?,
        None => read_after(tx, lane, seq - 1, 1).await?,
    };
    Ok(rows.into_iter().find(|row| row.seq == seq).map_or(Found::Nothing, Found::Here))
}

/// The file a record was archived in; `None`: it was not, or not yet.
pub async fn archive_of(tx: &mut Tx, lane: i64, seq: i64) -> Result<Option<String>, StoreError> {
    Ok(run_of(tx, lane, seq).await?.and_then(|run| run.archive))
}

/// Records of one session, arrived at or after `since`, up to each lane's place in `until`; a lane that is not in it is
/// left out. At most `limit`, the oldest of each lane first.
///
/// Among them may be records of another NAS behind the same client; the caller reads them anyway and knows.
///
/// **Errors**: `Corrupt` names the page that is damaged.
pub async fn of_session(
    tx: &mut Tx,
    session: &SessionKey<'_>,
    since: i64,
    until: &HashMap<i64, i64>,
    limit: usize,
) -> Result<SessionRecords, StoreError> {
    let mut found = SessionRecords::default();
    for run in runs_since(tx, since).await? {
        let Some(until_seq) = until.get(&run.lane) else { continue };
        if run.state == "dropped" {
            found.dropped.get_or_insert(run.day_on);
            continue;
        }
        for key in session.hashes() {
            let wanted = |row: &JournalRow| row.seq <= *until_seq && session.is_entry(&row.entry);
            found.rows.extend(rows_of_key(tx, &run, key).await?.into_iter().filter(wanted));
        }
    }
    let mut lanes: Vec<(i64, i64)> = until.iter().map(|(lane, seq)| (*lane, *seq)).collect();
    lanes.sort_unstable();
    for (lane, until_seq) in lanes {
        live_of_session(tx, lane, until_seq, session, since, &mut found.rows).await?;
    }
    found.rows.sort_unstable_by_key(|row| (row.lane, row.seq));
    found.rows.dedup_by_key(|row| (row.lane, row.seq));
    found.rows.truncate(limit);
    Ok(found)
}

async fn live_of_session(
    tx: &mut Tx,
    lane: i64,
    until_seq: i64,
    session: &SessionKey<'_>,
    since: i64,
    rows: &mut Vec<JournalRow>,
) -> Result<(), StoreError> {
    let mut after = sealed_until(tx, lane).await?;
    loop {
        let found: Vec<(i64, Vec<u8>)> = on!(&mut *tx, c => sqlx::query_as(PAGES_SINCE)
            .bind(lane)
            .bind(after)
            .bind(until_seq)
            .bind(since)
            .bind(PAGES_AT_ONCE)
            .fetch_all(c)
            .await)?;
        let Some((last, _)) = found.last() else { return Ok(()) };
        after = *last;
        for (first_seq, body) in found {
            let broken = |_| damaged("journal", lane, first_seq);
            let view = PageView::open(&body).map_err(broken)?;
            for (seq, record) in (first_seq..=until_seq).zip(view.records()) {
                let record = record.map_err(broken)?;
                if session.is_of(record.nas, record.packet) {
                    rows.push(JournalRow { lane, seq, entry: record.to_entry() });
                }
            }
        }
    }
}

/// Runs that may hold what arrived at or after `since`.
pub(super) async fn runs_since(tx: &mut Tx, since: i64) -> Result<Vec<Run>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(select(RUNS_SINCE)).bind(since).fetch_all(c).await)?)
}

async fn run_of(tx: &mut Tx, lane: i64, seq: i64) -> Result<Option<Run>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(select(RUN_OF)).bind(lane).bind(seq).fetch_optional(c).await)?)
}

/// The records of a run after `after`, in commit order, at most `limit`. A run's numbers have no gap, so they are known
/// before they are found.
async fn stretch_of(tx: &mut Tx, run: &Run, after: i64, limit: usize) -> Result<Vec<JournalRow>, StoreError> {
    let until = after.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX)).min(run.last_seq);
    let wanted = usize::try_from(until - after).unwrap_or(0);
    let mut rows = Vec::with_capacity(wanted);
    let mut pages = Pages::of(run);
    while rows.len() < wanted
        && let Some(page) = pages.next(tx).await?
    {
        rows.extend(page.into_iter().filter(|row| row.seq > after && row.seq <= until));
    }
    rows.sort_unstable_by_key(|row| row.seq);
    if rows.len() < wanted {
        return Err(damaged("journal_segment", run.lane, run.first_seq));
    }
    Ok(rows)
}

/// The records of a run that have a key, and those that share their pages' edge with it.
async fn rows_of_key(tx: &mut Tx, run: &Run, key: i64) -> Result<Vec<JournalRow>, StoreError> {
    let mut rows = Vec::new();
    let mut after = -1;
    loop {
        let next: Option<(i64, i64, i64, Vec<u8>)> = on!(&mut *tx, c => sqlx::query_as(PAGE_OF_KEY)
            .bind(run.id)
            .bind(key)
            .bind(after)
            .fetch_optional(c)
            .await)?;
        let Some((key_from, key_until, page, body)) = next.filter(|(key_from, ..)| *key_from <= key) else { break };
        debug_assert!(key_from <= key_until);
        rows.extend(unpack(run.lane, &body).map_err(|_| damaged("journal_segment", run.lane, run.first_seq))?);
        if key_until > key {
            break;
        }
        after = page;
    }
    Ok(rows)
}

/// The pages of a run, one after another.
pub(super) struct Pages {
    run: i64,
    lane: i64,
    first_seq: i64,
    after: (i64, i64),
}

impl Pages {
    pub fn of(run: &Run) -> Self {
        Self { run: run.id, lane: run.lane, first_seq: run.first_seq, after: (i64::MIN, -1) }
    }

    /// The records of the next page, by key and `seq`.
    pub async fn next(&mut self, tx: &mut Tx) -> Result<Option<Vec<JournalRow>>, StoreError> {
        let Some((key_until, page, body)) = self.next_body(tx).await? else { return Ok(None) };
        self.after = (key_until, page);
        unpack(self.lane, &body).map(Some).map_err(|_| damaged("journal_segment", self.lane, self.first_seq))
    }

    /// The octets of the next page, which are whole.
    pub async fn next_checked(&mut self, tx: &mut Tx) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((key_until, page, body)) = self.next_body(tx).await? else { return Ok(None) };
        self.after = (key_until, page);
        checked(&body).map_err(|_| damaged("journal_segment", self.lane, self.first_seq))?;
        Ok(Some(body))
    }

    async fn next_body(&self, tx: &mut Tx) -> Result<Option<(i64, i64, Vec<u8>)>, StoreError> {
        Ok(on!(tx, c => sqlx::query_as(PAGE_BY_NUMBER)
            .bind(self.run)
            .bind(self.after.0)
            .bind(self.after.1)
            .fetch_optional(c)
            .await)?)
    }
}

/// Pages read by one statement: up to 512 records each.
const PAGES_AT_ONCE: i64 = 64;
/// Records given at once from a sealed run.
pub const SEALED_AT_ONCE: usize = 16_384;
