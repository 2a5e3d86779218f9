//! The only room that knows SQL; SQLite and PostgreSQL from one text. Opens databases, hands out transactions, and
//! holds every statement in a file by topic. It decides nothing: rows go in and out as the types of the floors below.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection, PgPool, Postgres, Sqlite, SqlitePool, Transaction};
use tokio::sync::Mutex;

pub mod accounts;
pub mod assurance;
pub mod audit;
pub mod audit_chain;
pub mod backup;
pub mod billing;
mod blast;
pub mod breaker;
mod bulk;
pub mod calls;
pub mod catalog;
pub mod census;
pub mod charges;
pub mod clock;
pub mod completeness;
pub mod cycles;
pub mod devices;
pub mod domains;
pub mod drift;
pub mod elements;
mod error;
pub mod events;
pub mod exceptions;
pub mod faces;
pub mod families;
pub mod find;
pub mod findings;
pub mod fold;
pub mod follow;
pub mod foreign;
pub mod grants;
pub mod handshake;
pub mod held;
pub mod holders;
pub mod holds;
pub mod idempotency;
pub mod imports;
pub mod ingest;
pub mod jobs;
pub mod journal;
pub mod keys;
pub mod leases;
pub mod ledger;
pub mod ledger_totals;
mod line_ground;
pub mod lineage;
pub mod mailboxes;
mod many;
pub mod migrate;
pub mod month_end;
pub mod nas;
pub mod nas_control;
pub mod outlets;
pub mod plant;
pub mod privacy;
pub mod quarantine;
pub mod rating;
pub mod rollout_scope;
pub mod rollouts;
pub mod running;
pub mod seal;
pub mod secrets;
pub mod sessions;
pub mod simulate;
pub mod sources;
mod sqlite;
pub mod syncs;
pub mod thresholds;
pub mod timeline;
pub mod usage;
pub mod verify;

pub use error::StoreError;
pub use seal::Sealer;
use sqlite::{SqliteFile, Turn, accounting_path, sqlite_path};

/// Runs one body against whichever database a transaction belongs to: `on!(tx, c => sqlx::query(SQL).execute(c).await)`.
macro_rules! on {
    ($tx:expr, $conn:ident => $body:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(held) => {
                let $conn = &mut *held.transaction;
                $body
            }
            $crate::store::Tx::Postgres(transaction) => {
                let $conn = &mut **transaction;
                $body
            }
        }
    };
}
pub(crate) use on;

/// Where the databases are and which key seals secrets.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// `sqlite:///var/lib/lastmile/lastmile.db` or `postgres://user@host/db`.
    pub url: String,
    /// File with the AEAD key; for SQLite made beside the database when absent.
    pub key_file: Option<PathBuf>,
    /// The key before the last rotation.
    pub previous_key_file: Option<PathBuf>,
    /// Name of this daemon or command in lanes and claims, for example `host:pid`.
    pub owner: String,
}

/// The door to the databases; cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    sealer: Sealer,
    owner: String,
    /// The last probe and what it found.
    probed: Mutex<Option<(Instant, Result<(), StoreError>)>>,
}

enum Db {
    Sqlite { main: SqliteFile, accounting: SqliteFile },
    Postgres { pool: PgPool, fold: PgPool, journal: PgPool },
}

/// One transaction on either database. Dropping it without `commit` rolls back.
///
/// Events that are told in it are appended by `commit`, after everything else: whoever tells holds nobody else back.
pub enum Tx {
    Sqlite(SqliteTx),
    Postgres(PostgresTx),
}

/// A PostgreSQL transaction; it stands for its connection.
pub struct PostgresTx {
    transaction: Transaction<'static, Postgres>,
    outbox: Outbox,
}

/// Events told in a transaction, and how many there were when its savepoint was opened.
#[derive(Default)]
struct Outbox {
    told: Vec<events::Told>,
    before_savepoint: usize,
}

/// A SQLite transaction together with its turn to write, given back after the transaction ended.
pub struct SqliteTx {
    pub(in crate::store) transaction: Transaction<'static, Sqlite>,
    turn: Option<Turn>,
    outbox: Outbox,
}

impl SqliteTx {
    pub(in crate::store) fn new(transaction: Transaction<'static, Sqlite>, turn: Option<Turn>) -> Self {
        Self { transaction, turn, outbox: Outbox::default() }
    }
}

impl std::ops::Deref for PostgresTx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl std::ops::DerefMut for PostgresTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}

impl From<Transaction<'static, Postgres>> for Tx {
    fn from(transaction: Transaction<'static, Postgres>) -> Self {
        Tx::Postgres(PostgresTx { transaction, outbox: Outbox::default() })
    }
}

/// What a commit of accounting and of business data waits for on SQLite. A configuration knows only `Full`; `Normal` is
/// there for the proof that a power cut loses without it what it does not lose with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The log is on the disk (`synchronous=FULL`).
    Full,
    /// The log is with the kernel (`synchronous=NORMAL`): a crash of the program keeps it, a power cut does not.
    Normal,
}

/// Which of the two databases a store speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

const PROBE: &str = "INSERT INTO probe (id, filling) VALUES (1, $1)
     ON CONFLICT (id) DO UPDATE SET filling = excluded.filling";
/// As much as a busy group of changes writes: a smaller commit may still fit where a real one does not.
const PROBE_OCTETS: usize = 64 * 1024;
const PROBE_HOLDS: Duration = Duration::from_millis(500);
const DURABLE: &str = "SET LOCAL synchronous_commit = on";
const BEGIN_IMMEDIATE: &str = "BEGIN IMMEDIATE";
const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
const POSTGRES_CONNECTIONS: u32 = 10;

impl Store {
    /// Opens the databases without touching their schema; connections are made when first used.
    ///
    /// **Errors**: a URL of neither kind, an unreadable or malformed key file. An unreachable server is no error here.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        Self::open_with(config, Durability::Full).await
    }

    /// As `open`, with a choice of what SQLite's commits wait for.
    ///
    /// **Errors**: as `open`.
    pub async fn open_with(config: &StoreConfig, durability: Durability) -> Result<Self, StoreError> {
        let (db, default_key) = if let Some(path) = sqlite_path(&config.url) {
            let accounting = SqliteFile::open(accounting_path(&path), durability)?;
            let key = path.with_extension("key");
            (Db::Sqlite { main: SqliteFile::open(path, durability)?, accounting }, Some(key))
        } else if config.url.starts_with("postgres://") || config.url.starts_with("postgresql://") {
            (open_postgres(&config.url)?, None)
        } else {
            return Err(StoreError::Configuration(format!(
                "{:?} is no database URL; write sqlite:///path/file.db or postgres://user@host/db",
                without_password(&config.url)
            )));
        };
        let sealer =
            Sealer::load(config.key_file.as_deref(), config.previous_key_file.as_deref(), default_key.as_deref())?;
        let inner = Inner { db, sealer, owner: config.owner.clone(), probed: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn dialect(&self) -> Dialect {
        match self.inner.db {
            Db::Sqlite { .. } => Dialect::Sqlite,
            Db::Postgres { .. } => Dialect::Postgres,
        }
    }

    /// Path of the SQLite main file; `None` on PostgreSQL.
    pub fn sqlite_file(&self) -> Option<&Path> {
        match &self.inner.db {
            Db::Sqlite { main, .. } => Some(&main.path),
            Db::Postgres { .. } => None,
        }
    }

    /// Path of the SQLite journal file; `None` on PostgreSQL.
    pub fn sqlite_accounting_file(&self) -> Option<&Path> {
        match &self.inner.db {
            Db::Sqlite { accounting, .. } => Some(&accounting.path),
            Db::Postgres { .. } => None,
        }
    }

    pub fn sealer(&self) -> &Sealer {
        &self.inner.sealer
    }

    /// Name of this process in lanes and claims.
    pub fn owner(&self) -> &str {
        &self.inner.owner
    }

    /// A transaction for reading a consistent picture of the main database.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        match &self.inner.db {
            Db::Sqlite { main, .. } => {
                let transaction = main.readers.begin().await?;
                Ok(Tx::Sqlite(SqliteTx::new(transaction, None)))
            }
            Db::Postgres { pool, .. } => Ok(Tx::from(pool.begin().await?)),
        }
    }

    /// As `read`, and on PostgreSQL too all statements see the same moment.
    pub async fn read_snapshot(&self) -> Result<Tx, StoreError> {
        match &self.inner.db {
            Db::Sqlite { .. } => self.read().await,
            Db::Postgres { pool, .. } => Ok(Tx::from(pool.begin_with(BEGIN_SNAPSHOT).await?)),
        }
    }

    /// A transaction that writes; durable once `commit` returned.
    pub async fn write(&self) -> Result<Tx, StoreError> {
        match &self.inner.db {
            Db::Sqlite { main, .. } => sqlite_write(main, &main.foreground).await,
            Db::Postgres { pool, .. } => Ok(Tx::from(pool.begin().await?)),
        }
    }

    /// As `write`, for many rows at once that stand all over their tables: with more of the file in memory.
    pub async fn write_much(&self) -> Result<Tx, StoreError> {
        match &self.inner.db {
            Db::Sqlite { main, .. } => sqlite_write(main, &main.bulk).await,
            Db::Postgres { .. } => self.write().await,
        }
    }

    /// A transaction for derived state that the journal can give again: on PostgreSQL a power cut may undo it.
    pub async fn write_derived(&self) -> Result<Tx, StoreError> {
        match &self.inner.db {
            Db::Sqlite { main, .. } => sqlite_write(main, &main.background).await,
            Db::Postgres { fold, .. } => Ok(Tx::from(fold.begin().await?)),
        }
    }

    /// A transaction that reads the accounting journal (the same database on PostgreSQL).
    pub async fn read_journal(&self) -> Result<Tx, StoreError> {
        match &self.inner.db {
            Db::Sqlite { accounting, .. } => {
                let transaction = accounting.readers.begin().await?;
                Ok(Tx::Sqlite(SqliteTx::new(transaction, None)))
            }
            // What is sealed meanwhile moves from one table to another: all statements must see the same moment.
            Db::Postgres { fold, .. } => Ok(Tx::from(fold.begin_with(BEGIN_SNAPSHOT).await?)),
        }
    }

    /// Would a commit succeed now, in the main database and in the journal? Writes for it, so that a full disk is
    /// noticed; an answer serves everybody who asks within half a second. For `/readyz`.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let mut last = self.inner.probed.lock().await;
        if let Some((at, outcome)) = &*last
            && at.elapsed() < PROBE_HOLDS
        {
            return outcome.clone();
        }
        let outcome = self.commit_something().await;
        *last = Some((Instant::now(), outcome.clone()));
        outcome
    }

    async fn commit_something(&self) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        // SQLite writes only pages that change.
        let mut pattern = [0u8; 8];
        getrandom::fill(&mut pattern).map_err(|error| StoreError::Database(format!("no randomness: {error}")))?;
        let filling = pattern.repeat(PROBE_OCTETS / pattern.len());
        on!(&mut tx, c => sqlx::query(PROBE).bind(&filling).execute(c).await.map(drop))?;
        tx.commit().await?;
        if let Db::Sqlite { accounting, .. } = &self.inner.db {
            let turn = accounting.log.turn().await?;
            let mut transaction = accounting.background.begin_with(BEGIN_IMMEDIATE).await?;
            sqlx::query(PROBE).bind(&filling).execute(&mut *transaction).await?;
            transaction.commit().await?;
            turn.committed();
        }
        Ok(())
    }

    /// Brings what an earlier process left in SQLite's logs into the files, before anything else is read or written.
    ///
    /// **Errors**: the disk.
    pub async fn begin_logs(&self) -> Result<(), StoreError> {
        if let Db::Sqlite { main, accounting } = &self.inner.db {
            main.log.begin().await?;
            accounting.log.begin().await?;
        }
        Ok(())
    }

    /// Waits until a SQLite log can no longer be copied into its file with certainty (a write to the disk has failed), the
    /// disk writes again and no other process has the files open: now this process should begin afresh, without closing
    /// the store. Commits are safe meanwhile; the log grows.
    pub async fn fresh_start_due(&self) {
        let Db::Sqlite { main, accounting } = &self.inner.db else { return std::future::pending().await };
        loop {
            let doubted = main.log.doubted() || accounting.log.doubted();
            if doubted && main.log.alone() && accounting.log.alone() && self.probe().await.is_ok() {
                return;
            }
            tokio::time::sleep(PROBE_HOLDS).await;
        }
    }

    /// Ends all connections; open transactions end first.
    pub async fn close(&self) {
        match &self.inner.db {
            Db::Sqlite { main, accounting } => {
                // Who closes a file last copies its log and ends it.
                if !main.log.doubted() && !accounting.log.doubted() {
                    main.close().await;
                    accounting.close().await;
                }
            }
            Db::Postgres { pool, fold, journal } => {
                for pool in [pool, fold, journal] {
                    pool.close().await;
                }
            }
        }
    }
}

async fn sqlite_write(file: &SqliteFile, pool: &SqlitePool) -> Result<Tx, StoreError> {
    let turn = file.log.turn().await?;
    let transaction = pool.begin_with(BEGIN_IMMEDIATE).await?;
    Ok(Tx::Sqlite(SqliteTx::new(transaction, Some(turn))))
}

impl Tx {
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let told = std::mem::take(&mut self.outbox().told);
        if !told.is_empty() {
            if let Tx::Postgres(connection) = &mut self {
                // A number that was shown must not come back with something else after a power cut.
                sqlx::query(DURABLE).execute(&mut **connection).await?;
            }
            events::append_all(&mut self, &told).await?;
        }
        match self {
            Tx::Sqlite(held) => {
                held.transaction.commit().await?;
                held.turn.into_iter().for_each(Turn::committed);
            }
            Tx::Postgres(held) => held.transaction.commit().await?,
        }
        Ok(())
    }

    /// Tells an event: it is appended when the transaction commits.
    pub fn tell(&mut self, told: events::Told) {
        self.outbox().told.push(told);
    }

    fn outbox(&mut self) -> &mut Outbox {
        match self {
            Tx::Sqlite(held) => &mut held.outbox,
            Tx::Postgres(held) => &mut held.outbox,
        }
    }

    /// Undoes everything and waits until it is undone, so that the next writer need not.
    pub async fn rollback(self) -> Result<(), StoreError> {
        match self {
            Tx::Sqlite(held) => held.transaction.rollback().await?,
            Tx::Postgres(held) => held.transaction.rollback().await?,
        }
        Ok(())
    }

    pub fn dialect(&self) -> Dialect {
        match self {
            Tx::Sqlite(_) => Dialect::Sqlite,
            Tx::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Opens a savepoint, so that one entry of a group can fail alone. Savepoints do not nest.
    pub async fn savepoint(&mut self) -> Result<(), StoreError> {
        on!(self, c => sqlx::query("SAVEPOINT entry").execute(c).await.map(drop))?;
        let outbox = self.outbox();
        outbox.before_savepoint = outbox.told.len();
        Ok(())
    }

    /// Keeps what was written since the savepoint.
    pub async fn release_savepoint(&mut self) -> Result<(), StoreError> {
        on!(self, c => sqlx::query("RELEASE SAVEPOINT entry").execute(c).await.map(drop))?;
        Ok(())
    }

    /// Undoes what was written since the savepoint; the transaction goes on.
    pub async fn rollback_to_savepoint(&mut self) -> Result<(), StoreError> {
        on!(self, c => sqlx::query("ROLLBACK TO SAVEPOINT entry").execute(c).await.map(drop))?;
        let outbox = self.outbox();
        outbox.told.truncate(outbox.before_savepoint);
        self.release_savepoint().await
    }
}

fn open_postgres(url: &str) -> Result<Db, StoreError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| StoreError::Configuration(format!("{}: {error}", without_password(url))))?
        .application_name("lastmile")
        // A plan made while a table was empty would read the whole table for ever after.
        .options([("plan_cache_mode", "force_custom_plan")])
        .disable_statement_logging();
    let pool = |connections: u32, options: PgConnectOptions| {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(Duration::from_secs(600))
            .connect_lazy_with(options)
    };
    Ok(Db::Postgres {
        pool: pool(POSTGRES_CONNECTIONS, options.clone()),
        fold: pool(
            2,
            options.clone().options([
                ("synchronous_commit", "off"),
                // A daemon that is frozen in the middle of a transaction must not keep the others from folding.
                ("idle_in_transaction_session_timeout", "5000"),
                // It looks up a few keys in tables that grow for ever; reading one whole is never the way.
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
            ]),
        ),
        journal: pool(2, options),
    })
}

/// A URL fit for an error message.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => {
            let user = url[scheme + 3..at].split(':').next().unwrap_or_default();
            format!("{}{user}@{}", &url[..scheme + 3], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writing_goes_on_after_the_disk_was_full() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = StoreConfig {
            url: format!("sqlite://{}", directory.path().join("lastmile.db").display()),
            key_file: None,
            previous_key_file: None,
            owner: "test".to_owned(),
        };
        let store = Store::open(&config).await.expect("a store");
        store.migrate().await.expect("tables");
        let mut tx = store.write().await.expect("a transaction");
        // The limit belongs to this connection and makes the database as full as a disk can be.
        on!(&mut tx, c => sqlx::query("PRAGMA max_page_count = 1").execute(c).await.map(drop)).expect("a limit");
        let fill = "CREATE TABLE filler AS SELECT zeroblob(1000000) AS octets";
        let full = on!(&mut tx, c => sqlx::query(fill).execute(c).await.map(drop)).map_err(StoreError::from);
        assert!(full.is_err_and(|error| error.is_unavailable()), "the database is not full");
        drop(tx);
        let mut tx = store.write().await.expect("the next writer gets a connection that works");
        let lift = "PRAGMA max_page_count = 1000000";
        on!(&mut tx, c => sqlx::query(lift).execute(c).await.map(drop)).expect("room again");
        tx.commit().await.expect("an end");
        store.probe().await.expect("a commit succeeds");
    }
}
