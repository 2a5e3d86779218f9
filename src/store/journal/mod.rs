//! The accounting journal: appended in order by one writer a lane, read in order by the fold. What stands here was or
//! may be acknowledged; no record here is ever changed.
//!
//! A commit's records stand together in one row, a page ([`page`]); a record's place is its lane and its `seq`, which
//! within a page are consecutive. Behind the fold pages are sealed into runs ([`runs`]), runs of a day are merged
//! ([`merge`]), days are archived and dropped ([`archive`]); a record keeps its place, and [`read`] finds it.

mod archive;
mod days;
mod key;
mod merge;
mod page;
mod read;
mod redact;
mod runs;
mod sealed;
mod slices;
mod write;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::StoreError;
use crate::vocabulary::Timestamp;

pub use archive::{ArchiveError, ArchiveFault, ArchiveHeader, ArchiveReader};
pub use days::{Day, days};
pub use key::SessionKey;
pub use page::PAGE_RECORDS_MAX;
pub use read::{Found, SEALED_AT_ONCE, SessionRecords, archive_of, lanes, last_seq, of_session, read_after, record};
pub use redact::RedactedSession;
pub use runs::{NewRun, Run, Stretch};
pub use slices::{Extent, extent, slice, slices};
pub use write::{AppendError, JournalWriter};

/// A verified packet on its way into the journal. Cloning it copies the packet alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    pub arrived_at: Timestamp,
    /// Name of the configured client the packet came from.
    pub nas: Arc<str>,
    pub source: PacketSource,
    /// The packet's octets, passwords blanked.
    pub packet: Vec<u8>,
}

/// The entries of a page whose octets lack their checksum; `None` when no page has that shape. For a fuzzer: with the
/// checksum it would never get past it.
pub fn entries_of_unsealed(octets: &[u8]) -> Option<Vec<JournalEntry>> {
    let mut body = octets.to_vec();
    page::seal(&mut body);
    let page = page::PageView::open(&body).ok()?;
    page.records().map(|record| record.map(page::PageRecord::to_entry).ok()).collect()
}

/// A page of entries, without its checksum.
pub fn unsealed_page(entries: &[JournalEntry]) -> Vec<u8> {
    let mut body = page::encode(entries).body;
    body.truncate(body.len() - page::CHECKSUM_OCTETS);
    body
}

/// Where a packet came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PacketSource {
    /// Address and port of the peer that sent it.
    Peer(SocketAddr),
    /// Anything else, by a name that an operator understands.
    Named(Arc<str>),
}

/// A journal entry with its place: lanes are writers' incarnations, `seq` is commit order within one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    pub lane: i64,
    pub seq: i64,
    pub entry: JournalEntry,
}

impl From<SocketAddr> for PacketSource {
    fn from(peer: SocketAddr) -> Self {
        Self::Peer(peer)
    }
}

impl fmt::Display for PacketSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(address) => address.fmt(f),
            Self::Named(name) => f.write_str(name),
        }
    }
}

fn damaged(table: &'static str, lane: i64, seq: i64) -> StoreError {
    StoreError::Corrupt { table, column: "body", id: format!("{lane}:{seq}") }
}
