//! Telephone calls from files: each kept once and given to whoever held its number, in transactions of bounded size.

use std::path::Path;

use super::{ImportError, Refusal};
use crate::store::{Store, calls};
use crate::usage::{Call, CallLine, CallProfile};
use crate::vocabulary::Clock;

/// What an import of calls did.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CallSummary {
    /// Calls that were answered.
    pub read: u64,
    pub new: u64,
    pub known: u64,
    pub unanswered: u64,
    pub refused: u64,
    /// New or waiting calls whose number somebody held.
    pub attributed: u64,
    /// The first faults.
    pub faults: Vec<Refusal>,
}

/// Reads a file into the store. **Errors**: the file or the database; what is kept stays, repeat the import.
pub async fn import(
    store: &Store,
    clock: &Clock,
    profile: &CallProfile,
    file: &Path,
    dry_run: bool,
    summary: &mut CallSummary,
) -> Result<(), ImportError> {
    let name = file.display().to_string();
    let unreadable = |error: std::io::Error| ImportError::Read { file: name.clone(), error };
    let input = std::fs::File::open(file).map_err(unreadable)?;
    let mut batch: Vec<Call> = Vec::new();
    let lines = match profile.calls(input) {
        Ok(lines) => lines,
        Err(error) => {
            summary.refuse(&name, 1, error.to_string());
            return Ok(());
        }
    };
    for (line, found) in lines {
        match found {
            Ok(CallLine::Call(call)) => {
                summary.read += 1;
                batch.push(*call);
            }
            Ok(CallLine::Unanswered) => summary.unanswered += 1,
            Err(error) => summary.refuse(&name, line, error.to_string()),
        }
        if batch.len() >= BATCH {
            keep(store, clock, &mut batch, dry_run, summary).await?;
        }
    }
    keep(store, clock, &mut batch, dry_run, summary).await
}

/// Gives every call nobody owns yet to whoever held its number, also those of earlier imports.
pub async fn attribute(store: &Store, clock: &Clock, summary: &mut CallSummary) -> Result<(), ImportError> {
    let mut after = 0;
    loop {
        let mut tx = store.write().await?;
        let (last, found) = calls::attribute(&mut tx, after, BATCH as i64, clock.now()).await?;
        tx.commit().await?;
        summary.attributed += found;
        let Some(last) = last else { return Ok(()) };
        after = last;
    }
}

async fn keep(
    store: &Store,
    clock: &Clock,
    batch: &mut Vec<Call>,
    dry_run: bool,
    summary: &mut CallSummary,
) -> Result<(), ImportError> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut tx = store.write().await?;
    let recorded = calls::record(&mut tx, batch, clock.now()).await?;
    if dry_run {
        tx.rollback().await?
    } else {
        tx.commit().await?
    }
    summary.new += recorded.new;
    summary.known += recorded.known;
    batch.clear();
    Ok(())
}

impl CallSummary {
    fn refuse(&mut self, file: &str, line: u64, detail: String) {
        self.refused += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Refusal { file: file.to_owned(), line, detail });
        }
    }
}

/// Calls of one transaction.
const BATCH: usize = 500;
const FAULTS_MAX: usize = 100;
