//! Journal archives: the sealed runs of one day in one file that says itself how it is read.
//!
//! In: runs and their pages as they stand in the database. Out: a stream of octets; and from such a stream the records
//! again, or that it is damaged or cut short. Opening, naming and syncing files is the caller's.
//!
//! **Shape**: [`PREAMBLE`], which ends with an empty line; one line of JSON ([`ArchiveHeader`]); blocks; the end.
//! A block is the length of what follows it (4 octets), the lane (8 octets) and a sealed page ([`super::sealed`]). The
//! end is 4 octets of zero and the SHA-256 of everything before it. Integers are big-endian.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::JournalRow;
use super::read::Pages;
use super::runs::{DAY, DAY_SETTLES, Run, day_of, day_on, lock, select};
use super::sealed::unpack;
use crate::store::{Store, StoreError, on, privacy};
use crate::vocabulary::{Timestamp, to_micros};

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveHeader {
    /// The UTC day the records arrived on.
    pub day: String,
    pub records: i64,
    pub runs: Vec<ArchivedRun>,
    pub made_at: String,
    pub made_by: String,
}

/// Consecutive records of one lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedRun {
    pub lane: i64,
    pub first_seq: i64,
    pub last_seq: i64,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it is no journal archive")]
    Foreign,
    #[error("it is cut short or damaged after {0} records")]
    Damaged(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// First lines of every archive.
pub const PREAMBLE: &str = "LASTMILE JOURNAL ARCHIVE 1
RADIUS accounting records of one UTC day, as they were received. `lastmile journal read FILE --json` prints them.
An empty line ends this text. One line of JSON tells what the file holds. Then blocks, integers big-endian:
  4 octets  length n of the rest of the block; 0 ends the file, and the SHA-256 of everything before the last 32 octets follows
  8 octets  lane
  n-8       a page: octet version 1; content length (LEB128); the content as an LZ4 block; CRC-32 of the page before it
Content (u = LEB128, s = zigzag LEB128, string = u length and octets):
  u count and strings: names of NAS; u count and sources: 4 + IPv4 + port | 6 + IPv6 + port + flow + scope | 0 + string
  u count of records; then columns: s seq and s arrival in microseconds, each less the one before; u NAS; u source; u order
  u count of orders, each a string of (type, length) pairs: the attributes of a packet in turn
  for packets with an order (from 1): codes, identifiers, authenticators of 16; for packets of order 0: the packet as a string
  for each (type, length) in the order of first mention: the values turned, all first octets, then all second octets, and so on

";

const ARCHIVABLE: &str = "WHERE state = 'sealed' AND archive IS NULL AND day_on < $1 ORDER BY day_on, lane, first_seq
     LIMIT 100000";
const LIVE_BEFORE: &str = "SELECT 1 FROM journal WHERE arrived_from < $1 LIMIT 1";
const MARK_ARCHIVED: &str =
    "UPDATE journal_run SET archive = $2 WHERE id = $1 AND state = 'sealed' AND archive IS NULL";
const DROP_ARCHIVED: &str = "UPDATE journal_run SET state = 'dropped' WHERE state = 'sealed' AND day_on < $1
     AND archive IS NOT NULL";
const DROP_ANY: &str = "UPDATE journal_run SET state = 'dropped' WHERE state = 'sealed' AND day_on < $1";

impl Store {
    /// The runs of the oldest day that is over, wholly sealed and not archived; `None`: there is none.
    pub async fn runs_to_archive(&self, now: Timestamp) -> Result<Option<Vec<Run>>, StoreError> {
        let today = day_on(day_of(to_micros(now) - DAY_SETTLES));
        let mut tx = self.read_journal().await?;
        let mut runs: Vec<Run> = on!(&mut tx, c => sqlx::query_as(select(ARCHIVABLE)).bind(&today).fetch_all(c).await)?;
        let Some(day) = runs.first().map(|run| run.day_on.clone()) else { return tx.rollback().await.map(|()| None) };
        runs.retain(|run| run.day_on == day);
        let ends_at = runs.iter().map(|run| (day_of(run.arrived_from) + 1) * DAY).max().unwrap_or(i64::MIN);
        let live: Option<i64> = on!(&mut tx, c => sqlx::query_scalar(LIVE_BEFORE).bind(ends_at).fetch_optional(c).await.map(
                |found: Option<i32>| found.map(i64::from)))?;
        tx.rollback().await?;
        Ok(live.is_none().then_some(runs))
    }

    /// Writes the archive of these runs; the caller makes it durable before [`Store::mark_archived`].
    pub async fn write_archive(
        &self,
        runs: &[Run],
        now: Timestamp,
        out: &mut (impl Write + Send),
    ) -> Result<ArchiveHeader, ArchiveFault> {
        let place = |run: &Run| ArchivedRun { lane: run.lane, first_seq: run.first_seq, last_seq: run.last_seq };
        let header = ArchiveHeader {
            day: runs.first().map(|run| run.day_on.clone()).unwrap_or_default(),
            records: runs.iter().map(|run| run.records).sum(),
            runs: runs.iter().map(place).collect(),
            made_at: now.to_string(),
            made_by: self.owner().to_owned(),
        };
        let mut out = Hashing { inner: out, hash: Sha256::new() };
        out.write_all(PREAMBLE.as_bytes())?;
        out.write_all(serde_json::to_string(&header).expect("texts and numbers are JSON").as_bytes())?;
        out.write_all(b"\n")?;
        for run in runs {
            let mut pages = Pages::of(run);
            loop {
                let mut tx = self.read_journal().await?;
                let body = pages.next_checked(&mut tx).await?;
                tx.rollback().await?;
                let Some(body) = body else { break };
                let length = u32::try_from(body.len() + 8).expect("a page is bounded");
                out.write_all(&length.to_be_bytes())?;
                out.write_all(&run.lane.to_be_bytes())?;
                out.write_all(&body)?;
            }
        }
        out.write_all(&[0; 4])?;
        let digest = out.hash.clone().finalize();
        out.inner.write_all(&digest)?;
        Ok(header)
    }

    /// Says which file holds these runs too. `false`: somebody else archived one of them meanwhile.
    pub async fn mark_archived(&self, runs: &[Run], file: &str) -> Result<bool, StoreError> {
        let mut tx = self.write_journal().await?;
        lock(&mut tx).await?;
        for run in runs {
            let done = on!(&mut tx, c => sqlx::query(MARK_ARCHIVED).bind(run.id).bind(file).execute(c).await
                .map(|done| done.rows_affected()))?;
            if done != 1 {
                tx.rollback().await?;
                return Ok(false);
            }
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Drops the days that are older than `keep_days`, only archived ones if so asked; none while a legal hold stands. Gives
    /// how many runs went.
    pub async fn drop_days(&self, keep_days: u32, archived_only: bool, now: Timestamp) -> Result<u64, StoreError> {
        // The journal is everybody's: while a court may ask for somebody's records, all of them stay.
        if !privacy::held_accounts(&mut self.read().await?).await?.is_empty() {
            return Ok(0);
        }
        let before = day_on(day_of(to_micros(now)) - i64::from(keep_days));
        let statement = if archived_only { DROP_ARCHIVED } else { DROP_ANY };
        let mut tx = self.write_journal().await?;
        lock(&mut tx).await?;
        let dropped = on!(&mut tx, c => sqlx::query(statement).bind(&before).execute(c).await
            .map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(dropped)
    }
}

/// Why an archive was not written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the archive cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// An archive being read.
pub struct ArchiveReader<R> {
    input: Hashing<R>,
    pub header: ArchiveHeader,
    read: u64,
    ended: bool,
}

impl<R: Read> ArchiveReader<R> {
    /// **Errors**: `Foreign` when the file does not begin like an archive.
    pub fn open(input: R) -> Result<Self, ArchiveError> {
        let mut input = Hashing { inner: input, hash: Sha256::new() };
        let mut preamble = [0; PREAMBLE.len()];
        input.read_exact(&mut preamble).map_err(|_| ArchiveError::Foreign)?;
        if preamble != *PREAMBLE.as_bytes() {
            return Err(ArchiveError::Foreign);
        }
        let mut line = Vec::new();
        while line.len() < HEADER_MAX {
            let mut octet = [0];
            input.read_exact(&mut octet).map_err(|_| ArchiveError::Damaged(0))?;
            if octet == *b"\n" {
                break;
            }
            line.push(octet[0]);
        }
        let header = serde_json::from_slice(&line).map_err(|_| ArchiveError::Damaged(0))?;
        Ok(Self { input, header, read: 0, ended: false })
    }

    /// The records of the next page; `None` at the end, when the digest was right.
    ///
    /// **Errors**: `Damaged`; what was read before is good.
    pub fn next_page(&mut self) -> Result<Option<Vec<JournalRow>>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        let damaged = ArchiveError::Damaged(self.read);
        let mut length = [0; 4];
        if self.input.read_exact(&mut length).is_err() {
            return Err(damaged);
        }
        let length = u32::from_be_bytes(length);
        if length == 0 {
            let digest = self.input.hash.clone().finalize();
            let mut said = [0; 32];
            let whole = self.input.inner.read_exact(&mut said).is_ok() && said[..] == digest[..];
            if !whole || self.read != self.header.records.unsigned_abs() {
                return Err(damaged);
            }
            self.ended = true;
            return Ok(None);
        }
        if !(8..=BLOCK_MAX).contains(&length) {
            return Err(damaged);
        }
        let mut block = vec![0; length as usize];
        if self.input.read_exact(&mut block).is_err() {
            return Err(damaged);
        }
        let (lane, body) = block.split_first_chunk::<8>().expect("a block has a lane");
        let Ok(rows) = unpack(i64::from_be_bytes(*lane), body) else { return Err(damaged) };
        self.read += rows.len() as u64;
        Ok(Some(rows))
    }
}

/// A stream and the digest of what went through it.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<&mut W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(octets)?;
        self.hash.update(&octets[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(room)?;
        self.hash.update(&room[..read]);
        Ok(read)
    }
}

const HEADER_MAX: usize = 16 * 1024 * 1024;
const BLOCK_MAX: u32 = 32 * 1024 * 1024;
