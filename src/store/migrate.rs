//! Brings the databases to this version's schema; twin migrations, append-only.

use sqlx::migrate::{Migrate, Migrator};

use super::{Db, Store, StoreError};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static SQLITE_ACCOUNTING: Migrator = sqlx::migrate!("migrations/sqlite-accounting");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// One migration that was or would be applied.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Migration {
    pub database: &'static str,
    pub version: i64,
    pub description: String,
}

impl Store {
    /// The migrations this database still lacks, in order.
    ///
    /// **Errors**: `Configuration` when the database is newer than this program, or a migration was changed.
    pub async fn pending_migrations(&self) -> Result<Vec<Migration>, StoreError> {
        match &self.inner.db {
            Db::Sqlite { main, accounting } => {
                let mut pending = Vec::new();
                for (name, migrator, file) in [("main", &SQLITE, main), ("accounting", &SQLITE_ACCOUNTING, accounting)]
                {
                    if file.path.exists() {
                        let mut connection = file.foreground.acquire().await?;
                        pending.extend(lacking(name, migrator, &mut *connection).await?);
                    } else {
                        pending.extend(every(name, migrator));
                    }
                }
                Ok(pending)
            }
            Db::Postgres { pool, .. } => {
                let mut connection = pool.acquire().await?;
                lacking("main", &POSTGRES, &mut *connection).await
            }
        }
    }

    /// Applies what is lacking. Safe to repeat and to run from two processes at once.
    pub async fn migrate(&self) -> Result<Vec<Migration>, StoreError> {
        let pending = self.pending_migrations().await?;
        if pending.is_empty() {
            return Ok(pending);
        }
        match &self.inner.db {
            Db::Sqlite { main, accounting } => {
                let _turn = main.log.turn().await?;
                // Through connections that sort on the disk: an index may be made of a large table.
                SQLITE.run(&main.readers).await.map_err(refused)?;
                SQLITE_ACCOUNTING.run(&accounting.readers).await.map_err(refused)?;
            }
            Db::Postgres { pool, .. } => POSTGRES.run(pool).await.map_err(refused)?,
        }
        Ok(pending)
    }
}

async fn lacking(
    name: &'static str,
    migrator: &'static Migrator,
    connection: &mut impl Migrate,
) -> Result<Vec<Migration>, StoreError> {
    let table = &migrator.table_name;
    // A database that was never migrated has no table of versions yet.
    let applied = match connection.list_applied_migrations(table).await {
        Ok(applied) => applied,
        Err(sqlx::migrate::MigrateError::Execute(sqlx::Error::Database(_))) => Vec::new(),
        Err(error) => return Err(refused(error)),
    };
    for done in &applied {
        match migrator.iter().find(|known| known.version == done.version) {
            None => {
                return Err(StoreError::Configuration(format!(
                    "the database is at schema version {}, which this program does not know; install the newer program again or restore a backup",
                    done.version
                )));
            }
            Some(known) if known.checksum != done.checksum => {
                return Err(StoreError::Configuration(format!(
                    "schema version {} of the database differs from this program's; it was made by another build",
                    done.version
                )));
            }
            Some(_) => {}
        }
    }
    Ok(every(name, migrator).filter(|known| !applied.iter().any(|done| done.version == known.version)).collect())
}

fn every(name: &'static str, migrator: &'static Migrator) -> impl Iterator<Item = Migration> {
    migrator.iter().map(move |known| Migration {
        database: name,
        version: known.version,
        description: known.description.to_string(),
    })
}

fn refused(error: sqlx::migrate::MigrateError) -> StoreError {
    match error {
        sqlx::migrate::MigrateError::Execute(error) => error.into(),
        other => StoreError::Database(other.to_string()),
    }
}
