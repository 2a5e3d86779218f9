//! Consistent copies of SQLite databases while they are in use.

use std::path::{Path, PathBuf};

use super::{Db, SqliteFile, Store, StoreError, accounting_path, sqlite_path};

const VACUUM_INTO: &str = "VACUUM INTO $1";

impl Store {
    /// Copies both files into `folder`: the state first, the journal second, so that the copied journal holds everything
    /// the copied state was derived from. Writers go on meanwhile. `None` on PostgreSQL, which has tools of its own.
    ///
    /// **Errors**: a file of that name exists already, or the disk is full.
    pub async fn copy_into(&self, folder: &Path) -> Result<Option<Vec<PathBuf>>, StoreError> {
        match &self.inner.db {
            Db::Sqlite { main, accounting } => {
                Ok(Some(vec![copy(main, folder).await?, copy(accounting, folder).await?]))
            }
            Db::Postgres { .. } => Ok(None),
        }
    }
}

/// Where the main database and its journal lie, without opening either; `None` for PostgreSQL.
pub fn sqlite_files(url: &str) -> Option<[PathBuf; 2]> {
    let main = sqlite_path(url)?;
    let accounting = accounting_path(&main);
    Some([main, accounting])
}

async fn copy(file: &SqliteFile, folder: &Path) -> Result<PathBuf, StoreError> {
    let name = file.path.file_name().unwrap_or_else(|| file.path.as_os_str());
    let target = folder.join(name);
    let mut connection = file.readers.acquire().await?;
    sqlx::query(VACUUM_INTO).bind(target.display().to_string()).execute(&mut *connection).await?;
    Ok(target)
}
