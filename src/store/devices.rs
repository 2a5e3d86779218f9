//! What is known of a device beyond what is desired of it: the file it runs, resets sent to it, what it last said.

use super::{StoreError, Tx, on};
use crate::provision::{ResetSent, Running};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// One device as known; a device nobody saw yet has no row and is `DeviceRow::default()`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceRow {
    pub running: Option<Running>,
    /// Fetches of the running file, each within `FETCH_LOOP` of the one before: a modem that is refused goes round.
    pub fetches: u32,
    pub reset: Option<ResetSent>,
    /// Through whom the newest reset went.
    pub reset_by: Option<String>,
    /// Who asked for a reset that is not sent yet.
    pub reset_wanted_by: Option<String>,
    /// Since when a reset waits for a call to end.
    pub deferred_at: Option<Timestamp>,
}

/// What an attempt on a device did, to be recorded with its ending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceNotes {
    /// A reset was sent for the claimed revision.
    pub reset: Option<(Timestamp, String)>,
    /// A reset waits for a call to end, since then.
    pub deferred_at: Option<Timestamp>,
    /// The device said itself that it runs this revision.
    pub confirmed_revision: Option<i64>,
    /// It answered.
    pub answered_at: Option<Timestamp>,
    /// What is wrong, for the screen.
    pub trouble: Option<String>,
    /// Whether a person must look: an exception is opened.
    pub alarm: bool,
}

/// A complete fetch of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched<'a> {
    pub revision: i64,
    /// Effective digest of the bytes.
    pub digest: &'a str,
    pub at: Timestamp,
    /// What was seen, where the fetch of the newest revision is all the proof there can be; `None`: the device is asked.
    pub evidence: Option<&'a str>,
}

/// Two fetches of one file this close together belong to one loop.
const FETCH_LOOP_US: i64 = 5 * 60 * 1_000_000;

const ONE: &str = "SELECT running_revision, running_digest, fetched_at, fetches, reset_revision, reset_at, resets,
        reset_by, reset_wanted_by, deferred_at
     FROM device WHERE element_id = $1";
const FETCHED: &str = "INSERT INTO device (element_id, running_revision, running_digest, fetched_at, fetches)
     VALUES ($1, $2, $3, $4, 1)
     ON CONFLICT (element_id) DO UPDATE
     SET fetches = CASE WHEN device.running_revision = $2 AND device.fetched_at > $4 - $5 THEN device.fetches + 1 ELSE 1
                   END,
         running_revision = $2, running_digest = $3, fetched_at = $4";
const RESET: &str = "INSERT INTO device (element_id, reset_revision, reset_at, resets, reset_by)
     VALUES ($1, $2, $3, 1, $4)
     ON CONFLICT (element_id) DO UPDATE
     SET resets = CASE WHEN device.reset_revision = $2 THEN device.resets + 1 ELSE 1 END,
         reset_revision = $2, reset_at = $3, reset_by = $4, reset_wanted_at = NULL, reset_wanted_by = NULL,
         deferred_at = NULL";
const WANT_RESET: &str = "INSERT INTO device (element_id, reset_wanted_at, reset_wanted_by) VALUES ($1, $2, $3)
     ON CONFLICT (element_id) DO UPDATE SET reset_wanted_at = $2, reset_wanted_by = $3";
const DEFERRED: &str = "INSERT INTO device (element_id, deferred_at) VALUES ($1, $2)
     ON CONFLICT (element_id) DO UPDATE SET deferred_at = $2";
const ANSWERED: &str = "INSERT INTO device (element_id, answered_at) VALUES ($1, $2)
     ON CONFLICT (element_id) DO UPDATE SET answered_at = $2";

/// What is known of a device.
pub async fn one(tx: &mut Tx, element_id: i64) -> Result<DeviceRow, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(ONE).bind(element_id).fetch_optional(c).await)?;
    row.map_or_else(|| Ok(DeviceRow::default()), |row| row.device(element_id))
}

/// Notes a complete fetch.
pub async fn record_fetch(tx: &mut Tx, element_id: i64, fetched: &Fetched<'_>) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(FETCHED)
        .bind(element_id)
        .bind(fetched.revision)
        .bind(fetched.digest)
        .bind(to_micros(fetched.at))
        .bind(FETCH_LOOP_US)
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Asks for a reset whatever the file: the device's job, once woken, sends it.
pub async fn want_reset(tx: &mut Tx, element_id: i64, by: &str, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(WANT_RESET).bind(element_id).bind(to_micros(now)).bind(by).execute(c).await.map(drop))?;
    Ok(())
}

/// Records what an attempt for `revision` did.
pub(super) async fn record(tx: &mut Tx, element_id: i64, revision: i64, notes: &DeviceNotes) -> Result<(), StoreError> {
    if let Some((at, by)) = &notes.reset {
        on!(tx, c => sqlx::query(RESET)
            .bind(element_id)
            .bind(revision)
            .bind(to_micros(*at))
            .bind(by)
            .execute(c)
            .await.map(drop))?;
    }
    if let Some(at) = notes.deferred_at {
        on!(tx, c => sqlx::query(DEFERRED).bind(element_id).bind(to_micros(at)).execute(c).await.map(drop))?;
    }
    if let Some(at) = notes.answered_at {
        on!(tx, c => sqlx::query(ANSWERED).bind(element_id).bind(to_micros(at)).execute(c).await.map(drop))?;
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Row {
    running_revision: Option<i64>,
    running_digest: Option<String>,
    fetched_at: Option<i64>,
    fetches: i64,
    reset_revision: Option<i64>,
    reset_at: Option<i64>,
    resets: i64,
    reset_by: Option<String>,
    reset_wanted_by: Option<String>,
    deferred_at: Option<i64>,
}

impl Row {
    fn device(self, element_id: i64) -> Result<DeviceRow, StoreError> {
        let corrupt =
            |column: &'static str| StoreError::Corrupt { table: "device", column, id: element_id.to_string() };
        let instant = |column: &'static str, at: Option<i64>| {
            at.map(|at| from_micros(at).ok_or_else(|| corrupt(column))).transpose()
        };
        let running = match (self.running_revision, self.running_digest, instant("fetched_at", self.fetched_at)?) {
            (Some(revision), Some(digest), Some(fetched_at)) => Some(Running { revision, digest, fetched_at }),
            _ => None,
        };
        let reset = match (self.reset_revision, instant("reset_at", self.reset_at)?) {
            (Some(revision), Some(at)) => {
                Some(ResetSent { revision, at, count: u32::try_from(self.resets).unwrap_or(u32::MAX) })
            }
            _ => None,
        };
        Ok(DeviceRow {
            running,
            fetches: u32::try_from(self.fetches).unwrap_or(u32::MAX),
            reset,
            reset_by: self.reset_by,
            reset_wanted_by: self.reset_wanted_by,
            deferred_at: instant("deferred_at", self.deferred_at)?,
        })
    }
}
