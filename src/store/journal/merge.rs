//! Merging runs of a day into larger ones, in which the reports of a session stand together: they take half the room,
//! and a session is found in one place instead of many.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::JournalRow;
use super::key::session_key;
use super::read::Pages;
use super::runs::{DAY_SETTLES, NewPage, PAGE_RECORDS, PAGES_A_COMMIT, Run, day_of, day_on};
use super::runs::{lock, replace, select, set_octets, show};
use crate::store::{Store, StoreError, Tx, on};
use crate::vocabulary::{Timestamp, to_micros};

const SMALL_RUNS: &str = "WHERE state = 'sealed' AND level = 0 AND archive IS NULL
     ORDER BY lane, first_seq LIMIT 4096";

impl Store {
    /// The next runs to merge: as many as a merged run holds, or what is left of a day that is over.
    pub async fn runs_to_merge(&self, now: Timestamp) -> Result<Option<Vec<Run>>, StoreError> {
        let mut tx = self.read_journal().await?;
        let runs: Vec<Run> = on!(&mut tx, c => sqlx::query_as(select(SMALL_RUNS)).fetch_all(c).await)?;
        tx.rollback().await?;
        let today = day_on(day_of(to_micros(now) - DAY_SETTLES));
        let mut group: Vec<Run> = Vec::new();
        for run in runs {
            let follows = group.last().is_none_or(|last| {
                last.lane == run.lane && last.day_on == run.day_on && last.last_seq + 1 == run.first_seq
            });
            if !follows {
                if is_ripe(&group, &today) {
                    return Ok(Some(group));
                }
                group.clear();
            }
            group.push(run);
            if group.len() == RUNS_A_MERGE {
                return Ok(Some(group));
            }
        }
        Ok(is_ripe(&group, &today).then_some(group))
    }

    /// Merges sealed runs that follow one another. `false`: somebody else does or did.
    ///
    /// **Errors**: `Corrupt` names the run that is damaged; nothing is changed then.
    pub async fn merge_runs(&self, runs: &[Run], now: Timestamp) -> Result<bool, StoreError> {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return Ok(false) };
        let merged = Run {
            last_seq: last.last_seq,
            records: runs.iter().map(|run| run.records).sum(),
            arrived_from: runs.iter().map(|run| run.arrived_from).min().unwrap_or(first.arrived_from),
            arrived_until: runs.iter().map(|run| run.arrived_until).max().unwrap_or(first.arrived_until),
            octets: 0,
            level: 1,
            ..first.clone()
        };
        let Some(id) = self.begin_run(&merged, now).await? else { return Ok(false) };
        let mut streams: Vec<Stream> = runs.iter().map(Stream::of).collect();
        let mut heads = BinaryHeap::new();
        for (at, stream) in streams.iter_mut().enumerate() {
            heads.extend(stream.head(self).await?.map(|(key, seq)| Reverse((key, seq, at))));
        }
        let (mut keys, mut rows) = (Vec::with_capacity(PAGE_RECORDS), Vec::with_capacity(PAGE_RECORDS));
        let (mut pages, mut number, mut octets) = (Vec::with_capacity(PAGES_A_COMMIT), 0, 0);
        while let Some(Reverse((key, _, at))) = heads.pop() {
            let stream = &mut streams[at];
            keys.push(key);
            rows.extend(stream.rows.pop_front().map(|(_, row)| row));
            heads.extend(stream.head(self).await?.map(|(key, seq)| Reverse((key, seq, at))));
            if rows.len() == PAGE_RECORDS || heads.is_empty() {
                let page = NewPage::of(&keys, &rows);
                octets += page.body.len() as i64;
                pages.push(page);
                keys.clear();
                rows.clear();
                tokio::task::yield_now().await;
            }
            if pages.len() == PAGES_A_COMMIT || heads.is_empty() {
                self.put_pages(id, number, &pages).await?;
                number += pages.len() as i64;
                pages.clear();
            }
        }
        let mut tx = self.write_journal().await?;
        lock(&mut tx).await?;
        set_octets(&mut tx, id, octets).await?;
        let shown = replace(&mut tx, runs).await? && show(&mut tx, id, merged.records).await?;
        if !shown {
            tx.rollback().await?;
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }
}

fn is_ripe(group: &[Run], today: &str) -> bool {
    group.len() > 1 && group.iter().all(|run| run.day_on.as_str() < today)
}

/// A run being read page by page.
struct Stream {
    pages: Pages,
    rows: VecDeque<(i64, JournalRow)>,
    ended: bool,
}

impl Stream {
    fn of(run: &Run) -> Self {
        Self { pages: Pages::of(run), rows: VecDeque::new(), ended: false }
    }

    /// Key and `seq` of the next record.
    async fn head(&mut self, store: &Store) -> Result<Option<(i64, i64)>, StoreError> {
        if self.rows.is_empty() && !self.ended {
            let mut tx: Tx = store.read_journal().await?;
            let page = self.pages.next(&mut tx).await?;
            tx.rollback().await?;
            self.ended = page.is_none();
            let keyed = |row: JournalRow| (session_key(&row.entry.nas, &row.entry.packet), row);
            self.rows.extend(page.into_iter().flatten().map(keyed));
        }
        Ok(self.rows.front().map(|(key, row)| (*key, row.seq)))
    }
}

/// Runs merged into one: a million records, which is what finding a single one by its number reads.
const RUNS_A_MERGE: usize = 16;
