//! Writing the journal: one writer a lane, one page and one statement a commit.

use std::sync::Arc;

use sqlx::{Connection, Postgres, Sqlite};

use super::JournalEntry;
use super::page::{PAGE_RECORDS_MAX, Page, encode};
use crate::store::sqlite::Log;
use crate::store::{Db, Store, StoreError};
use crate::vocabulary::{Timestamp, to_micros};

/// Why an append failed, by what is known of its entries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Nothing was stored.
    #[error("nothing was stored: {0}")]
    NotStored(StoreError),
    /// The commit may have happened: answer nothing, and write no more on this lane.
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
    /// With the log whose turns it takes; others are who seals.
    Sqlite(sqlx::pool::PoolConnection<Sqlite>, Arc<Log>),
    Postgres(sqlx::pool::PoolConnection<Postgres>),
}

const OPEN_LANE: &str = "INSERT INTO lane (opened_by, opened_at) VALUES ($1, $2) RETURNING id";
const TOUCH_LANE: &str = "UPDATE lane SET opened_by = opened_by WHERE id = $1";
/// With `?`: sqlx looks up the name of every `$n` each time.
const INSERT_SQLITE: &str =
    "INSERT INTO journal (lane, first_seq, records, arrived_from, arrived_until, body) VALUES (?, ?, ?, ?, ?, ?)";
const INSERT_POSTGRES: &str = "INSERT INTO journal (lane, first_seq, records, arrived_from, arrived_until, body)
     VALUES ($1, $2, $3, $4, $5, $6)";

impl Store {
    /// Opens a new lane for this process.
    ///
    /// In a transaction of its own: a statement that returns a row is committed after the row is given, and who takes
    /// only the row never learns that its commit failed.
    pub async fn open_journal(&self, now: Timestamp) -> Result<JournalWriter, StoreError> {
        let (mut connection, owner, at) = match &self.inner.db {
            Db::Sqlite { accounting, .. } => {
                let log = Arc::clone(&accounting.log);
                (Connections::Sqlite(accounting.foreground.acquire().await?, log), self.owner(), to_micros(now))
            }
            Db::Postgres { journal, .. } => {
                (Connections::Postgres(journal.acquire().await?), self.owner(), to_micros(now))
            }
        };
        let lane = match &mut connection {
            Connections::Sqlite(c, log) => {
                let _turn = log.turn().await?;
                let mut transaction = c.begin_with("BEGIN IMMEDIATE").await?;
                let lane = sqlx::query_scalar(OPEN_LANE).bind(owner).bind(at).fetch_one(&mut *transaction).await?;
                transaction.commit().await?;
                lane
            }
            Connections::Postgres(c) => {
                let mut transaction = c.begin().await?;
                let lane = sqlx::query_scalar(OPEN_LANE).bind(owner).bind(at).fetch_one(&mut *transaction).await?;
                transaction.commit().await?;
                lane
            }
        };
        Ok(JournalWriter { connection, lane, next_seq: 1 })
    }
}

impl JournalWriter {
    pub fn lane(&self) -> i64 {
        self.lane
    }

    /// Appends all entries as one page; once this returns `Ok` they are durable. Gives the last `seq`.
    ///
    /// The one statement is its own transaction on both databases: its answer is the commit's, and nothing else goes to
    /// and fro. At most [`PAGE_RECORDS_MAX`] entries.
    pub async fn append(&mut self, entries: &[JournalEntry]) -> Result<i64, AppendError> {
        if entries.is_empty() {
            return Ok(self.next_seq - 1);
        }
        if entries.len() > PAGE_RECORDS_MAX {
            let text = format!("{} entries for a page that holds {PAGE_RECORDS_MAX}", entries.len());
            return Err(AppendError::NotStored(StoreError::Database(text)));
        }
        let Page { arrived_from, arrived_until, body } = encode(entries);
        let records = i64::try_from(entries.len()).expect("a page is bounded");
        match &mut self.connection {
            Connections::Sqlite(connection, log) => {
                let turn = log.turn().await.map_err(AppendError::NotStored)?;
                let inserted = sqlx::query(INSERT_SQLITE)
                    .bind(self.lane)
                    .bind(self.next_seq)
                    .bind(records)
                    .bind(arrived_from)
                    .bind(arrived_until)
                    .bind(body)
                    .execute(&mut **connection)
                    .await;
                inserted.map(|_| turn.committed())
            }
            Connections::Postgres(connection) => sqlx::query(INSERT_POSTGRES)
                .bind(self.lane)
                .bind(self.next_seq)
                .bind(records)
                .bind(arrived_from)
                .bind(arrived_until)
                .bind(body)
                .execute(&mut **connection)
                .await
                .map(drop),
        }
        .map_err(outcome)?;
        self.next_seq += records;
        Ok(self.next_seq - 1)
    }

    /// Would a commit succeed now? Commits a row that says nothing new. For Status-Server and health.
    pub async fn probe(&mut self) -> Result<(), StoreError> {
        match &mut self.connection {
            Connections::Sqlite(connection, log) => {
                let _turn = log.turn().await?;
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
            Connections::Sqlite(connection, _) => drop(connection.detach()),
            Connections::Postgres(connection) => drop(connection.detach()),
        }
    }
}

/// What an error says of a statement that is its own transaction.
fn outcome(error: sqlx::Error) -> AppendError {
    let code = error.as_database_error().and_then(|refusal| refusal.code()).unwrap_or_default().into_owned();
    let error = StoreError::from(error);
    if refused(&code) { AppendError::NotStored(error) } else { AppendError::Unknown(error) }
}

/// Whether a database that says this code has surely not committed.
///
/// SQLite: 1 error in the statement, 5 busy, 6 locked, 8 read-only, 13 full, 14 cannot open, 18 too large, 19 constraint.
/// An I/O error (10) may be the fsync's after the commit was written, and everything else is not ours to judge.
/// PostgreSQL: classes 22 data, 23 constraint, 25 transaction state (read-only), 42 statement, 53 resources, 54 limits,
/// 55 object state and 40 rollback, except 40003, which means what it says: completion unknown. A shutdown (57P) may
/// come between the commit and its answer.
fn refused(code: &str) -> bool {
    if code.len() == 5 {
        return ["22", "23", "25", "40", "42", "53", "54", "55"].contains(&&code[..2]) && code != "40003";
    }
    code.parse::<u32>().is_ok_and(|number| matches!(number & 0xff, 1 | 5 | 6 | 8 | 13 | 14 | 18 | 19))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sure_refusal_means_not_stored() {
        for code in ["1", "5", "517", "8", "1032", "13", "1555", "42P01", "53100", "25006", "40001"] {
            assert!(refused(code), "{code}");
        }
        for code in ["", "10", "1034", "7", "11", "40003", "57P01", "58030", "08006", "XX000"] {
            assert!(!refused(code), "{code}");
        }
    }
}
