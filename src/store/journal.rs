//! The accounting journal: appended in order by one writer a lane, read in order by the fold. What stands here was or
//! may be acknowledged; nothing here is ever changed.

use sqlx::{Connection, Postgres, QueryBuilder, Sqlite};

use super::{Db, Store, StoreError, Tx, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// A verified packet on its way into the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    pub arrived_at: Timestamp,
    /// Name of the configured client the packet came from.
    pub nas: String,
    /// Address and port it came from.
    pub source: String,
    /// The packet's octets, passwords blanked.
    pub packet: Vec<u8>,
}

/// A journal entry with its place: lanes are writers' incarnations, `seq` is commit order within one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    pub lane: i64,
    pub seq: i64,
    pub entry: JournalEntry,
}

/// Why an append failed, by what is known of its entries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Nothing was stored.
    #[error("nothing was stored: {0}")]
    NotStored(StoreError),
    /// COMMIT was sent and its outcome is not known: answer nothing, and write no more on this lane.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(StoreError),
}

/// The one writer of a lane. After any error drop it and open another: a new lane is a new beginning.
pub struct JournalWriter {
    connection: Connections,
    lane: i64,
    next_seq: i64,
}

enum Connections {
    Sqlite(sqlx::pool::PoolConnection<Sqlite>),
    Postgres(sqlx::pool::PoolConnection<Postgres>),
}

/// Rows of one multi-row `VALUES` (HOUSE decision 4).
const ROWS_A_STATEMENT: usize = 128;

const OPEN_LANE: &str = "INSERT INTO lane (opened_by, opened_at) VALUES ($1, $2) RETURNING id";
const TOUCH_LANE: &str = "UPDATE lane SET opened_by = opened_by WHERE id = $1";
const INSERT_SQLITE: &str = "INSERT INTO journal (lane, seq, arrived_at, nas, source, packet) ";
const INSERT_POSTGRES: &str = "INSERT INTO journal (lane, seq, arrived_at, nas, source, packet)
     SELECT $1, entry.seq, entry.arrived_at, entry.nas, entry.source, entry.packet
     FROM UNNEST($2::BIGINT[], $3::BIGINT[], $4::TEXT[], $5::TEXT[], $6::BYTEA[])
         AS entry (seq, arrived_at, nas, source, packet)";
const LANES: &str = "SELECT id FROM lane ORDER BY id LIMIT 100000";
const READ_AFTER: &str = "SELECT lane, seq, arrived_at, nas, source, packet FROM journal
     WHERE lane = $1 AND seq > $2 ORDER BY seq LIMIT $3";
const LAST_SEQ: &str = "SELECT CAST(COALESCE(MAX(seq), 0) AS BIGINT) FROM journal WHERE lane = $1";

impl Store {
    /// Opens a new lane for this process.
    pub async fn open_journal(&self, now: Timestamp) -> Result<JournalWriter, StoreError> {
        let (mut connection, owner, at) = match &self.inner.db {
            Db::Sqlite { accounting, .. } => {
                (Connections::Sqlite(accounting.durable.acquire().await?), self.owner(), to_micros(now))
            }
            Db::Postgres { journal, .. } => {
                (Connections::Postgres(journal.acquire().await?), self.owner(), to_micros(now))
            }
        };
        let lane = match &mut connection {
            Connections::Sqlite(c) => sqlx::query_scalar(OPEN_LANE).bind(owner).bind(at).fetch_one(&mut **c).await?,
            Connections::Postgres(c) => sqlx::query_scalar(OPEN_LANE).bind(owner).bind(at).fetch_one(&mut **c).await?,
        };
        Ok(JournalWriter { connection, lane, next_seq: 1 })
    }
}

impl JournalWriter {
    pub fn lane(&self) -> i64 {
        self.lane
    }

    /// Appends all entries in one transaction; once this returns `Ok` they are durable. Gives the last `seq`.
    pub async fn append(&mut self, entries: &[JournalEntry]) -> Result<i64, AppendError> {
        let not_stored = |error: sqlx::Error| AppendError::NotStored(error.into());
        let unknown = |error: sqlx::Error| AppendError::Unknown(error.into());
        let first = self.next_seq;
        match &mut self.connection {
            Connections::Sqlite(connection) => {
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(not_stored)?;
                let mut seq = first;
                for rows in entries.chunks(ROWS_A_STATEMENT) {
                    let mut insert = QueryBuilder::<Sqlite>::new(INSERT_SQLITE);
                    insert.push_values(rows, |mut row, entry| {
                        row.push_bind(self.lane)
                            .push_bind(seq)
                            .push_bind(to_micros(entry.arrived_at))
                            .push_bind(entry.nas.as_str())
                            .push_bind(entry.source.as_str())
                            .push_bind(entry.packet.as_slice());
                        seq += 1;
                    });
                    insert.build().execute(&mut *transaction).await.map_err(not_stored)?;
                }
                transaction.commit().await.map_err(unknown)?;
            }
            Connections::Postgres(connection) => {
                let seqs: Vec<i64> = (first..).take(entries.len()).collect();
                let arrived: Vec<i64> = entries.iter().map(|entry| to_micros(entry.arrived_at)).collect();
                let nas: Vec<&str> = entries.iter().map(|entry| entry.nas.as_str()).collect();
                let sources: Vec<&str> = entries.iter().map(|entry| entry.source.as_str()).collect();
                let packets: Vec<&[u8]> = entries.iter().map(|entry| entry.packet.as_slice()).collect();
                // One statement is its own transaction: its answer is the commit's.
                sqlx::query(INSERT_POSTGRES)
                    .bind(self.lane)
                    .bind(&seqs)
                    .bind(&arrived)
                    .bind(&nas)
                    .bind(&sources)
                    .bind(&packets)
                    .execute(&mut **connection)
                    .await
                    .map_err(unknown)?;
            }
        }
        self.next_seq = first + i64::try_from(entries.len()).expect("a batch is bounded");
        Ok(self.next_seq - 1)
    }

    /// Would a commit succeed now? Commits a row that says nothing new. For Status-Server and health.
    pub async fn probe(&mut self) -> Result<(), StoreError> {
        match &mut self.connection {
            Connections::Sqlite(connection) => {
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                sqlx::query(TOUCH_LANE).bind(self.lane).execute(&mut *transaction).await?;
                transaction.commit().await?;
            }
            Connections::Postgres(connection) => {
                sqlx::query(TOUCH_LANE).bind(self.lane).execute(&mut **connection).await?;
            }
        }
        Ok(())
    }

    /// Leaves the lane and closes its connection: after an error its state is not known, and it must not be used again.
    pub fn discard(self) {
        match self.connection {
            Connections::Sqlite(connection) => drop(connection.detach()),
            Connections::Postgres(connection) => drop(connection.detach()),
        }
    }
}

/// Every lane there is, oldest first.
pub async fn lanes(tx: &mut Tx) -> Result<Vec<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(LANES).fetch_all(c).await)?)
}

/// The next entries of a lane after `seq`, in commit order, at most `limit`.
pub async fn read_after(tx: &mut Tx, lane: i64, seq: i64, limit: i64) -> Result<Vec<JournalRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(READ_AFTER).bind(lane).bind(seq).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(JournalRow::try_from).collect()
}

/// The newest `seq` of a lane, 0 when it is empty.
pub async fn last_seq(tx: &mut Tx, lane: i64) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(LAST_SEQ).bind(lane).fetch_one(c).await)?)
}

#[derive(sqlx::FromRow)]
struct Row {
    lane: i64,
    seq: i64,
    arrived_at: i64,
    nas: String,
    source: String,
    packet: Vec<u8>,
}

impl TryFrom<Row> for JournalRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let arrived_at = from_micros(row.arrived_at).ok_or_else(|| StoreError::Corrupt {
            table: "journal",
            column: "arrived_at",
            id: format!("{}:{}", row.lane, row.seq),
        })?;
        let entry = JournalEntry { arrived_at, nas: row.nas, source: row.source, packet: row.packet };
        Ok(JournalRow { lane: row.lane, seq: row.seq, entry })
    }
}
