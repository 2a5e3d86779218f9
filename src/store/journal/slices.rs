//! The journal by sessions instead of by time: all records whose session hashes into a part of the hash's range.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::key::session_key;
use super::page::PageView;
use super::read::runs_since;
use super::runs::sealed_until;
use super::sealed::unpack;
use super::{JournalRow, damaged};
use crate::store::{StoreError, Tx, on};

const PAGES_OF_KEYS: &str = "SELECT page, key_from, key_until, body FROM journal_segment
     WHERE run = $1 AND key_until >= $2 AND page > $3 ORDER BY key_until, page LIMIT $4";
const LIVE_PAGES: &str = "SELECT first_seq, body FROM journal WHERE lane = $1 AND first_seq > $2 AND first_seq <= $3
     ORDER BY first_seq LIMIT $4";

/// What the journal holds up to some watermarks, and what it no longer does.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Extent {
    pub records: i64,
    /// Days that were dropped, ISO, ascending.
    pub dropped_days: Vec<String>,
    /// Arrival of the last dropped record, microseconds.
    pub dropped_until: Option<i64>,
}

/// How much there is up to each lane's place.
pub async fn extent(tx: &mut Tx, until: &HashMap<i64, i64>) -> Result<Extent, StoreError> {
    let mut extent = Extent { records: until.values().sum(), ..Extent::default() };
    for run in runs_since(tx, i64::MIN).await?.into_iter().filter(|run| run.state == "dropped") {
        extent.records -= run.records;
        extent.dropped_until = extent.dropped_until.max(Some(run.arrived_until));
        extent.dropped_days.push(run.day_on);
    }
    extent.dropped_days.sort();
    extent.dropped_days.dedup();
    Ok(extent)
}

/// Equal parts of the hash's range.
pub fn slices(count: u32) -> impl Iterator<Item = RangeInclusive<i64>> {
    let count = i128::from(count.max(1));
    let edge = move |at: i128| i64::try_from(i128::from(i64::MIN) + (at << 64) / count).unwrap_or(i64::MAX);
    (0..count).map(move |at| edge(at)..=if at + 1 == count { i64::MAX } else { edge(at + 1) - 1 })
}

/// All records of the slice up to each lane's place. In memory at once: choose slices small enough.
///
/// **Errors**: `Corrupt` names the page that is damaged.
pub async fn slice(
    tx: &mut Tx,
    keys: &RangeInclusive<i64>,
    until: &HashMap<i64, i64>,
) -> Result<Vec<JournalRow>, StoreError> {
    let mut rows = Vec::new();
    let inside = |row: &JournalRow, until_seq: i64| {
        row.seq <= until_seq && keys.contains(&session_key(&row.entry.nas, &row.entry.packet))
    };
    for run in runs_since(tx, i64::MIN).await?.into_iter().filter(|run| run.state == "sealed") {
        let Some(until_seq) = until.get(&run.lane).copied() else { continue };
        let mut after = -1;
        'pages: loop {
            let pages: Vec<(i64, i64, i64, Vec<u8>)> = on!(&mut *tx, c => sqlx::query_as(PAGES_OF_KEYS)
                .bind(run.id)
                .bind(*keys.start())
                .bind(after)
                .bind(SEALED_PAGES_AT_ONCE)
                .fetch_all(c)
                .await)?;
            if pages.is_empty() {
                break;
            }
            for (page, key_from, _, body) in pages {
                if key_from > *keys.end() {
                    break 'pages;
                }
                let found = unpack(run.lane, &body).map_err(|_| damaged("journal_segment", run.lane, run.first_seq))?;
                rows.extend(found.into_iter().filter(|row| inside(row, until_seq)));
                after = page;
            }
        }
    }
    for (lane, until_seq) in until {
        let mut after = sealed_until(tx, *lane).await?;
        loop {
            let pages: Vec<(i64, Vec<u8>)> = on!(&mut *tx, c => sqlx::query_as(LIVE_PAGES)
                .bind(*lane)
                .bind(after)
                .bind(*until_seq)
                .bind(LIVE_PAGES_AT_ONCE)
                .fetch_all(c)
                .await)?;
            let Some((last, _)) = pages.last() else { break };
            after = *last;
            for (first_seq, body) in pages {
                let broken = |_| damaged("journal", *lane, first_seq);
                let view = PageView::open(&body).map_err(broken)?;
                for (seq, record) in (first_seq..=*until_seq).zip(view.records()) {
                    let record = record.map_err(broken)?;
                    if keys.contains(&session_key(record.nas, record.packet)) {
                        rows.push(JournalRow { lane: *lane, seq, entry: record.to_entry() });
                    }
                }
            }
        }
    }
    Ok(rows)
}

const SEALED_PAGES_AT_ONCE: i64 = 4;
const LIVE_PAGES_AT_ONCE: i64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_every_hash_once() {
        for count in [1, 2, 3, 7, 1000] {
            let slices: Vec<_> = slices(count).collect();
            assert_eq!(slices.len(), count as usize);
            assert_eq!((*slices[0].start(), *slices[slices.len() - 1].end()), (i64::MIN, i64::MAX));
            assert!(slices.windows(2).all(|pair| pair[0].end() + 1 == *pair[1].start()), "{count}");
        }
    }
}
