//! One SQLite file: its connections, and the log that its commits are written to before they reach the file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_UNLCK, F_WRLCK, SEEK_SET, flock};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection, SqlitePool};
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard};

use super::{ACQUIRE_TIMEOUT, Durability, StoreError};

/// One file. Every commit waits for the disk (synchronous=FULL), derived state's too: a frame of the log that was
/// committed without waiting and whose write fails later would be a hole, and everything behind it, synced or not, is
/// lost with the power.
pub(in crate::store) struct SqliteFile {
    pub path: PathBuf,
    pub readers: SqlitePool,
    /// Who is waited for: pushes on the main file, accounting on the journal's.
    pub foreground: SqlitePool,
    /// The fold and the keeper, with more of the file in memory.
    pub background: SqlitePool,
    /// Bill runs; its memory is given back soon after the last of them.
    pub bulk: SqlitePool,
    pub log: Arc<Log>,
}

/// The write-ahead log of a file: whose turn it is to write, and when it is copied into the file (a checkpoint).
///
/// SQLite copies as much as no reader needs, syncs the file only when it copied everything, notes what need not be
/// copied again, and does not tell when a copy fails that a commit began. So a write that fails between two copies would
/// be noticed by neither, and the log begun anew over the only good octets. The kernel tells every open file of a failed
/// write once. Therefore one connection, open before anything is written, makes every copy; after its first error nothing
/// is copied any more, the log keeps everything, and only a process that begins afresh, alone, copies all of it again.
pub(in crate::store) struct Log {
    options: SqliteConnectOptions,
    /// SQLite lets one transaction write at a time; writers queue here fairly instead of polling the file lock.
    turn: Arc<Mutex<()>>,
    checkpointer: OnceCell<Mutex<Checkpointer>>,
    opened: Instant,
    /// Milliseconds after `opened`; `NEVER` while a copy is made and after one failed.
    due: AtomicU64,
    doubted: AtomicBool,
    /// To ask for locks; never closed before the process ends, for that would give up this process's own (fcntl(2)).
    locks: OnceLock<File>,
}

/// The one connection that copies the log; `None` after it was closed.
struct Checkpointer {
    connection: Option<SqliteConnection>,
    copied_at: Instant,
}

/// A turn to write a file, given back when dropped.
pub(in crate::store) struct Turn {
    log: Arc<Log>,
    _held: OwnedMutexGuard<()>,
}

const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const SQLITE_READERS: u32 = 4;
/// Page cache of a SQLite connection in KiB; the idle daemon stays small.
const SQLITE_CACHE_KIB: &str = "-2048";
/// Of the connection that pushes write through: the places of MACs, names and addresses are all over their indices. It grows
/// only as far as it is used.
const SQLITE_PUSH_CACHE_KIB: &str = "-16384";
/// Prepared statements of a connection: those for many rows are one for each of a few numbers of rows.
const SQLITE_STATEMENTS: usize = 400;
/// Of the connection that folds: its keys come from all over the tables, and their pages should not be read anew each
/// time. It grows only as far as it is used.
const SQLITE_FOLD_CACHE_KIB: &str = "-65536";
/// Of the connection of bill runs, as far as it is used: what one transaction changes should fit.
const SQLITE_BULK_CACHE_KIB: &str = "-65536";
const SQLITE_BULK_IDLE: Duration = Duration::from_secs(10);

/// What the log should hold when it is copied, in frames of a page each. What changes often is copied once.
const LOG_FRAMES: f64 = 4000.0;
/// From here on its room on the disk is given back.
const LOG_FRAMES_MOST: i64 = 16_384;
const COPY_FIRST: Duration = Duration::from_secs(1);
const COPY_SOONEST: Duration = Duration::from_millis(250);
const COPY_LATEST: Duration = Duration::from_secs(2);
const NEVER: u64 = u64::MAX;
/// How long a start waits for other processes to leave the file.
const ALONE_WITHIN: Duration = Duration::from_secs(2);

impl SqliteFile {
    pub fn open(path: PathBuf, durability: Durability) -> Result<Self, StoreError> {
        let synchronous = match durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        };
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", "0")
            // What is deleted is overwritten: whoever is erased must not be found in a free page.
            .pragma("secure_delete", "ON")
            .synchronous(synchronous)
            .statement_cache_capacity(SQLITE_STATEMENTS)
            .disable_statement_logging();
        let pool = |options: &SqliteConnectOptions, connections: u32, cache: &'static str, idle: Option<Duration>| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(idle)
                .max_lifetime(None)
                // A full disk makes SQLite roll back by itself; sqlx then counts a transaction that is not there and
                // refuses every BEGIN. Such a connection is closed and another one opened.
                .before_acquire(|connection, _| {
                    let usable = !connection.is_in_transaction();
                    Box::pin(async move { Ok(usable) })
                })
                .connect_lazy_with(options.clone().pragma("cache_size", cache))
        };
        // A statement of many rows keeps every page that it changes as it was, for it may fail at its last row: in memory, for
        // writing them all to a file costs as much as the log. Readers sort what is large on the disk.
        let writing = options.clone().pragma("temp_store", "MEMORY");
        Ok(Self {
            readers: pool(&options, SQLITE_READERS, SQLITE_CACHE_KIB, None),
            foreground: pool(&writing, 1, SQLITE_PUSH_CACHE_KIB, None),
            background: pool(&writing, 1, SQLITE_FOLD_CACHE_KIB, None),
            bulk: pool(&writing, 1, SQLITE_BULK_CACHE_KIB, Some(SQLITE_BULK_IDLE)),
            path,
            log: Arc::new(Log::of(options)),
        })
    }

    /// Ends all connections, the log's last: who closes a file last copies its log.
    pub async fn close(&self) {
        for pool in [&self.readers, &self.background, &self.bulk, &self.foreground] {
            pool.close().await;
        }
        self.log.close().await;
    }
}

impl Log {
    fn of(options: SqliteConnectOptions) -> Self {
        Self {
            options,
            turn: Arc::default(),
            checkpointer: OnceCell::new(),
            opened: Instant::now(),
            due: AtomicU64::new(millis(COPY_FIRST)),
            doubted: AtomicBool::new(false),
            locks: OnceLock::new(),
        }
    }

    /// Waits for the turn to write.
    ///
    /// **Errors**: the file cannot be opened.
    pub async fn turn(self: &Arc<Self>) -> Result<Turn, StoreError> {
        self.checkpointer().await?;
        let held = Arc::clone(&self.turn).lock_owned().await;
        Ok(Turn { log: Arc::clone(self), _held: held })
    }

    /// Whether a copy of the log failed: what is committed is safe in the log as long as nobody copies it.
    pub fn doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    /// Whether a fresh start would find the file open in no other process: only then SQLite reads its log itself.
    pub fn alone(&self) -> bool {
        let file = match self.locks.get() {
            Some(file) => file,
            None => match File::open(self.options.get_filename()) {
                Ok(file) => self.locks.get_or_init(|| file),
                Err(_) => return false,
            },
        };
        let ask = flock {
            l_type: F_WRLCK as i16,
            l_whence: SEEK_SET as i16,
            l_start: SHARED_LOCK_FIRST,
            l_len: SHARED_LOCK_OCTETS,
            l_pid: 0,
        };
        let mut answer = ask;
        fcntl(file, FcntlArg::F_GETLK(&mut answer)).is_ok() && i32::from(answer.l_type) == F_UNLCK
    }

    /// Copies all that an earlier process left in the log and ends it, as the only one who has the file open: then SQLite
    /// reads the log itself, and believes nobody's note of what need not be copied. Frames whose fsync failed before that
    /// process ended stand in the kernel's memory, perhaps not on the disk; what is committed behind them would be lost.
    ///
    /// Beside another process, such as a long import, the log is copied as far as that allows: while a file is open
    /// somewhere there is an index of its log, and what failed is not in it.
    ///
    /// **Errors**: the disk.
    pub async fn begin(&self) -> Result<(), StoreError> {
        if !self.options.get_filename().exists() {
            return Ok(());
        }
        let alone = self.options.clone().locking_mode(SqliteLockingMode::Exclusive).busy_timeout(ALONE_WITHIN);
        match begin_with(&alone).await {
            Err(error) if code_of(&error) == Some(BUSY) => {
                begin_with(&self.options.clone().busy_timeout(ALONE_WITHIN)).await?
            }
            outcome => outcome?,
        }
        Ok(())
    }

    async fn close(&self) {
        let Some(checkpointer) = self.checkpointer.get() else { return };
        if let Some(connection) = checkpointer.lock().await.connection.take() {
            // The log stays and is copied at the next start.
            let _ = connection.close().await;
        }
    }

    async fn checkpointer(&self) -> Result<&Mutex<Checkpointer>, StoreError> {
        let open = async || {
            // Writers stand still while the log is ended: for no reader.
            let connection = self.options.clone().busy_timeout(Duration::ZERO).connect().await?;
            Ok(Mutex::new(Checkpointer { connection: Some(connection), copied_at: Instant::now() }))
        };
        self.checkpointer.get_or_try_init(open).await
    }

    /// Copies the log when that is due, in a task of its own: nobody waits for it but who writes in its last moment.
    fn tend(self: Arc<Self>) {
        let due = self.due.load(Ordering::Relaxed);
        if millis(self.opened.elapsed()) < due
            || self.due.compare_exchange(due, NEVER, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        tokio::spawn(async move {
            let next = match self.copy().await {
                Ok(Copied { frames, since }) => copy_again_in(frames, since),
                Err(error) if matches!(code_of(&error), Some(BUSY | LOCKED | FULL)) => COPY_FIRST,
                Err(_) => return self.doubted.store(true, Ordering::Relaxed),
            };
            self.due.store(millis(self.opened.elapsed() + next), Ordering::Relaxed);
        });
    }

    /// Copies the whole log into the file and empties it, so that nothing that was changed since stands on the disk.
    /// `false`: somebody reads, and the log stays.
    ///
    /// **Errors**: the disk.
    pub async fn empty(&self) -> Result<bool, StoreError> {
        let checkpointer = self.checkpointer().await?;
        let mut checkpointer = checkpointer.lock().await;
        let Some(connection) = checkpointer.connection.as_mut() else { return Ok(false) };
        let _turn = self.turn.lock().await;
        let (busy, ..): (i64, i64, i64) =
            sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await?;
        Ok(busy == 0)
    }

    /// Most of it beside the writers, the rest in between two of them, so that nothing is left and the next one begins
    /// the log anew.
    async fn copy(&self) -> Result<Copied, sqlx::Error> {
        let nothing = Copied { frames: 0, since: Duration::ZERO };
        let Some(checkpointer) = self.checkpointer.get() else { return Ok(nothing) };
        let mut checkpointer = checkpointer.lock().await;
        let Some(connection) = checkpointer.connection.as_mut() else { return Ok(nothing) };
        checkpoint(connection, "PASSIVE").await?;
        let _turn = self.turn.lock().await;
        let frames = checkpoint(connection, "PASSIVE").await?;
        if frames > LOG_FRAMES_MOST {
            checkpoint(connection, "TRUNCATE").await?;
        }
        let since = checkpointer.copied_at.elapsed();
        checkpointer.copied_at = Instant::now();
        Ok(Copied { frames, since })
    }
}

/// How long the log was when it was copied, and how long after the last time.
struct Copied {
    frames: i64,
    since: Duration,
}

/// When the log will have grown to `LOG_FRAMES` if it goes on like this.
fn copy_again_in(frames: i64, since: Duration) -> Duration {
    let growth = frames.max(1) as f64;
    since.mul_f64(LOG_FRAMES / growth).clamp(COPY_SOONEST, COPY_LATEST)
}

impl Turn {
    /// Ends the turn of who has committed something.
    pub fn committed(self) {
        let log = Arc::clone(&self.log);
        drop(self);
        log.tend();
    }
}

async fn begin_with(options: &SqliteConnectOptions) -> Result<(), sqlx::Error> {
    let mut connection = options.connect().await?;
    checkpoint(&mut connection, "TRUNCATE").await?;
    connection.close().await
}

/// Gives the frames in the log.
async fn checkpoint(connection: &mut SqliteConnection, mode: &'static str) -> Result<i64, sqlx::Error> {
    let statement = AssertSqlSafe(format!("PRAGMA wal_checkpoint({mode})"));
    let (_busy, frames, _copied): (i64, i64, i64) = sqlx::query_as(statement).fetch_one(connection).await?;
    Ok(frames)
}

/// Where whoever has a file open holds a lock (SQLite's file format of locks, `os.h`).
const SHARED_LOCK_FIRST: i64 = 0x4000_0002;
const SHARED_LOCK_OCTETS: i64 = 510;
/// SQLite's primary result codes.
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const FULL: u32 = 13;

fn code_of(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER)
}

/// The file of a `sqlite:` URL.
pub(in crate::store) fn sqlite_path(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    Some(PathBuf::from(rest.strip_prefix("//").unwrap_or(rest)))
}

/// `lastmile.db` keeps its journal in `lastmile-accounting.db` beside it.
pub(in crate::store) fn accounting_path(main: &Path) -> PathBuf {
    let stem = main.file_stem().map_or_else(|| "lastmile".into(), |stem| stem.to_string_lossy().into_owned());
    main.with_file_name(format!("{stem}-accounting.db"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn file() -> (tempfile::TempDir, SqliteFile) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = SqliteFile::open(folder.path().join("a.db"), Durability::Full).expect("a file");
        write(&file, "CREATE TABLE t (octets BLOB)").await;
        (folder, file)
    }

    async fn write(file: &SqliteFile, statement: &'static str) {
        let turn = file.log.turn().await.expect("a turn");
        sqlx::query(statement).execute(&file.foreground).await.expect("a statement");
        drop(turn);
    }

    const PAGES: &str = "INSERT INTO t VALUES (zeroblob(40000))";

    #[tokio::test]
    async fn a_log_that_was_copied_is_begun_anew() {
        let (_folder, file) = file().await;
        write(&file, PAGES).await;
        assert!(file.log.copy().await.expect("copied").frames >= 10);
        write(&file, "INSERT INTO t VALUES ('x')").await;
        let after = file.log.copy().await.expect("copied").frames;
        assert!((1..5).contains(&after), "{after} frames");
    }

    #[tokio::test]
    async fn a_log_goes_on_behind_a_reader_and_nobody_waits_for_him() {
        let (_folder, file) = file().await;
        let mut reader = file.readers.begin().await.expect("a reader");
        sqlx::query("SELECT count(*) FROM t").fetch_one(&mut *reader).await.expect("a picture");
        write(&file, PAGES).await;
        let before = file.log.copy().await.expect("copied").frames;
        write(&file, PAGES).await;
        assert!(file.log.copy().await.expect("copied").frames >= before + 10);
        reader.rollback().await.expect("an end");
        file.log.copy().await.expect("copied");
        write(&file, "INSERT INTO t VALUES ('x')").await;
        assert!(file.log.copy().await.expect("copied").frames < before);
    }

    #[tokio::test]
    async fn a_start_ends_the_log_alone_and_copies_it_beside_others() {
        let (folder, file) = file().await;
        write(&file, PAGES).await;
        file.log.begin().await.expect("beside the first");
        let log = folder.path().join("a.db-wal");
        assert_eq!(log.metadata().expect("a log").len(), 0, "copied and ended, for nobody read");
        write(&file, PAGES).await;
        file.close().await;
        file.log.begin().await.expect("alone");
        assert!(!log.exists());
        let reopened = SqliteFile::open(folder.path().join("a.db"), Durability::Full).expect("a file");
        let rows: i64 =
            sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&reopened.readers).await.expect("a count");
        assert_eq!(rows, 2);
    }

    #[test]
    fn a_log_is_copied_before_it_is_long_and_never_all_the_time() {
        let seconds = Duration::from_secs;
        assert_eq!(copy_again_in(8000, seconds(1)), Duration::from_millis(500));
        assert_eq!(copy_again_in(3, seconds(3600)), COPY_LATEST);
        assert_eq!(copy_again_in(1_000_000, seconds(1)), COPY_SOONEST);
        assert_eq!(copy_again_in(0, Duration::ZERO), COPY_SOONEST);
    }
}
