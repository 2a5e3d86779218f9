//! What can go wrong in a database, sorted by what the caller does about it.

use thiserror::Error;

/// Why a store call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The database cannot be reached or cannot write now (down, busy, disk full, read-only). Try again later; nothing
    /// is known to be stored.
    #[error("the database cannot be used now: {0}")]
    Unavailable(String),
    /// A uniqueness or other constraint refused the row; `constraint` names it as far as the database tells.
    #[error("the database refused a row: {constraint}")]
    Conflict { constraint: String },
    /// A row that cannot be true. A person must look.
    #[error("{table}.{column} of row {id} holds a value that cannot be true")]
    Corrupt { table: &'static str, column: &'static str, id: String },
    /// The configuration names no usable database or key.
    #[error("{0}")]
    Configuration(String),
    /// Anything else the database said: a fault of ours.
    #[error("database error: {0}")]
    Database(String),
}

impl StoreError {
    /// Whether the same call can succeed later without anyone mending anything of ours.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, StoreError::Unavailable(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => StoreError::Unavailable(error.to_string()),
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default().into_owned();
                if refusal.is_unique_violation() || refusal.is_foreign_key_violation() || refusal.is_check_violation() {
                    let constraint = refusal.constraint().unwrap_or(refusal.message()).to_owned();
                    StoreError::Conflict { constraint }
                } else if is_passing(&code) {
                    StoreError::Unavailable(refusal.message().to_owned())
                } else {
                    StoreError::Database(refusal.message().to_owned())
                }
            }
            _ => StoreError::Database(error.to_string()),
        }
    }
}

/// Codes of states that pass: SQLite result codes (busy, locked, read-only, I/O error, full, cannot open) with their
/// extended forms, and PostgreSQL's classes 08, 53, 57P and 58 and serialization failures.
fn is_passing(code: &str) -> bool {
    if let Ok(number) = code.parse::<u32>()
        && code.len() != 5
    {
        return matches!(number & 0xff, 5 | 6 | 8 | 10 | 13 | 14);
    }
    code.starts_with("08")
        || code.starts_with("53")
        || code.starts_with("57P")
        || code.starts_with("58")
        || matches!(code, "40001" | "40P01" | "25006" | "55P03" | "3D000" | "28000")
}
