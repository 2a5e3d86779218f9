//! Databases of other programs that we fill: the mail host's and the AAA server's. Each is a SQLite file of its own or a
//! PostgreSQL database, expected with its tables or given them when it has none. No transaction here ever spans ours.
//!
//! A SQLite file is opened for each transaction and closed after it, so that a file put in its place by a restore is the
//! file we write next. It is in `journal_mode=DELETE`: readers without permission to write, like Postfix, cannot open a
//! WAL file that nobody holds open. What is only read takes no lock that a reader meets; a commit holds one for its three
//! fsyncs. Postfix 3.7 does not wait for it: a lookup in that moment is fatal for the process that asks, which master(8)
//! starts anew, and the sender tries again (tried: one lookup of a lock held for a second). Where mail is busy it belongs
//! on PostgreSQL.

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, PgPool, Postgres, SqliteConnection, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{StoreError, sqlite_path, without_password};

pub mod aaa;
pub mod kea;
pub mod mail;
pub mod radacct;

/// Runs one body against whichever database a foreign transaction belongs to.
macro_rules! on_foreign {
    ($tx:expr, $conn:ident => $body:expr) => {
        match $tx {
            $crate::store::foreign::ForeignTx::Sqlite { connection, .. } => {
                let $conn = &mut **connection;
                $body
            }
            $crate::store::foreign::ForeignTx::Postgres(transaction) => {
                let $conn = &mut **transaction;
                $body
            }
        }
    };
}
use on_foreign;

/// The tables another program expects, statement by statement, each safe to repeat.
#[derive(Debug)]
struct Schema {
    /// A table that is there when the schema is; PostgreSQL is asked for it, because creating needs rights we may lack.
    landmark: &'static str,
    sqlite: &'static [&'static str],
    postgres: &'static [&'static str],
}

/// Another program's database; cheap to clone.
#[derive(Debug, Clone)]
struct Foreign {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    place: Place,
    schema: &'static Schema,
    /// PostgreSQL: the tables were seen or made.
    ready: AtomicBool,
    /// SQLite has one writer; ours queue here instead of polling the file lock.
    turn: Arc<Mutex<()>>,
}

#[derive(Debug)]
enum Place {
    Sqlite(PathBuf),
    Postgres(PgPool),
}

/// One transaction on another program's database. Dropping it without `commit` rolls back.
enum ForeignTx {
    Sqlite { connection: Box<SqliteConnection>, _turn: OwnedMutexGuard<()> },
    Postgres(Transaction<'static, Postgres>),
}

/// How long a lock that the other program holds is waited for. The job is retried after that.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const POSTGRES_CONNECTIONS: u32 = 4;
/// Owner writes, group reads; the group is the folder's, so that `chgrp dovecot` on the folder decides who reads.
const FILE_MODE: u32 = 0o640;
/// Key of the advisory lock under which daemons make missing tables one after the other.
const SCHEMA_LOCK: i64 = 0x6c61_7374_6d69_6c65;

const TABLE_EXISTS: &str = "SELECT to_regclass($1) IS NOT NULL";
const LOCK_SCHEMA: &str = "SELECT pg_advisory_xact_lock($1)";

/// No tables: whoever begins a transaction sees to them itself.
static NO_SCHEMA: Schema = Schema { landmark: "pg_class", sqlite: &[], postgres: &[] };

impl Foreign {
    fn open(url: &str, schema: &'static Schema) -> Result<Self, StoreError> {
        let place =
            if let Some(path) = sqlite_path(url) { Place::Sqlite(path) } else { Place::Postgres(postgres_pool(url)?) };
        let inner = Inner { place, schema, ready: AtomicBool::new(false), turn: Arc::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    async fn begin(&self) -> Result<ForeignTx, StoreError> {
        match &self.inner.place {
            Place::Sqlite(path) => {
                let turn = self.inner.turn.clone().lock_owned().await;
                create_file(path)?;
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(false)
                    .journal_mode(SqliteJournalMode::Delete)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(BUSY_TIMEOUT);
                let mut connection = SqliteConnection::connect_with(&options).await?;
                sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await?;
                for statement in self.inner.schema.sqlite {
                    sqlx::query(*statement).execute(&mut connection).await?;
                }
                Ok(ForeignTx::Sqlite { connection: Box::new(connection), _turn: turn })
            }
            Place::Postgres(pool) => {
                if !self.inner.ready.load(Ordering::Acquire) {
                    make_postgres_tables(pool, self.inner.schema).await?;
                    self.inner.ready.store(true, Ordering::Release);
                }
                Ok(ForeignTx::Postgres(pool.begin().await?))
            }
        }
    }

    /// Makes file and tables where they are missing, so that the other program can start before the first subscriber.
    async fn prepare(&self) -> Result<(), StoreError> {
        self.begin().await?.commit().await
    }
}

impl ForeignTx {
    async fn commit(self) -> Result<(), StoreError> {
        match self {
            ForeignTx::Sqlite { mut connection, _turn } => {
                sqlx::query("COMMIT").execute(&mut *connection).await?;
                // It is committed; a connection that does not close nicely is closed all the same.
                let _ = connection.close().await;
            }
            ForeignTx::Postgres(transaction) => transaction.commit().await?,
        }
        Ok(())
    }
}

fn postgres_pool(url: &str) -> Result<PgPool, StoreError> {
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(StoreError::Configuration(format!(
            "{:?} is no database URL; write sqlite:///path/file.db or postgres://user@host/db",
            without_password(url)
        )));
    }
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| StoreError::Configuration(format!("{}: {error}", without_password(url))))?
        .application_name("lastmile")
        .options([("lock_timeout", "5s"), ("statement_timeout", "20s")]);
    Ok(PgPoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(Duration::from_secs(60))
        .connect_lazy_with(options))
}

async fn make_postgres_tables(pool: &PgPool, schema: &Schema) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    sqlx::query(LOCK_SCHEMA).bind(SCHEMA_LOCK).execute(&mut *transaction).await?;
    let there: bool = sqlx::query_scalar(TABLE_EXISTS).bind(schema.landmark).fetch_one(&mut *transaction).await?;
    if !there {
        for statement in schema.postgres {
            sqlx::query(*statement).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await?;
    Ok(())
}

/// Makes an empty file that its folder's group may read. SQLite takes an empty file for an empty database.
fn create_file(path: &Path) -> Result<(), StoreError> {
    let unavailable =
        |error: std::io::Error| StoreError::Unavailable(format!("{} cannot be made: {error}", path.display()));
    match fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(file) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let group = fs::metadata(folder).map_err(unavailable)?.gid();
            // Not being allowed to is no fault: a folder with the setgid bit gives the group by itself.
            let _ = std::os::unix::fs::fchown(&file, None, Some(group));
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unavailable(error)),
    }
}
