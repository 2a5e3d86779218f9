//! How far elements are: what services saw applied, offered or fetched, and why an attempt did not work out.

use super::{ElementRow, by_id_locked, json};
use crate::provision::{Content, ElementState};
use crate::store::devices::{self, DeviceNotes, Fetched};
use crate::store::many::{Many, Of};
use crate::store::{StoreError, Tx, jobs, on};
use crate::vocabulary::{Timestamp, to_micros};

/// How a success shows on its element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub state: ElementState,
    pub evidence: String,
    /// Whether the revision is in force; otherwise it is only on offer (a modem has to fetch its file).
    pub applied: bool,
}

static SUCCEEDED: Many<6> = Many::new(
    [
        ("id", Of::Integer),
        ("revision", Of::Integer),
        ("content", Of::Text),
        ("state", Of::Text),
        ("evidence", Of::Text),
        ("at", Of::Integer),
    ],
    "UPDATE element
     SET applied_revision = new.revision, applied = new.content, state = new.state, evidence = new.evidence,
         last_error = NULL, updated_at = new.at
     FROM new WHERE element.id = new.id",
);
// A modem may fetch its file before the job that offers it has ended: what it proved stays.
static OFFERED: Many<5> = Many::new(
    [("id", Of::Integer), ("revision", Of::Integer), ("state", Of::Text), ("evidence", Of::Text), ("at", Of::Integer)],
    "UPDATE element
     SET offered_revision = new.revision,
         state = CASE WHEN element.applied_revision = new.revision THEN element.state ELSE new.state END,
         evidence = CASE WHEN element.applied_revision = new.revision THEN element.evidence ELSE new.evidence END,
         last_error = NULL, updated_at = new.at
     FROM new WHERE element.id = new.id",
);
// What a device proved stays proved: only its newest revision's progress is written here, and a fetch that came
// meanwhile has its own row.
static DEVICE: Many<7> = Many::new(
    [
        ("id", Of::Integer),
        ("revision", Of::Integer),
        ("state", Of::Text),
        ("evidence", Of::Text),
        ("trouble", Of::Text),
        ("confirmed", Of::Integer),
        ("at", Of::Integer),
    ],
    "UPDATE element
     SET offered_revision = new.revision, state = new.state, evidence = new.evidence, last_error = new.trouble,
         confirmed_revision = COALESCE(new.confirmed, element.confirmed_revision), updated_at = new.at
     FROM new WHERE element.id = new.id",
);
static TROUBLED: Many<4> = Many::new(
    [("id", Of::Integer), ("state", Of::Text), ("error", Of::Text), ("at", Of::Integer)],
    "UPDATE element SET state = new.state, last_error = new.error, updated_at = new.at FROM new WHERE element.id = new.id",
);
const TOLD: &str = "UPDATE element SET offered_revision = $2
     WHERE id = $1 AND (offered_revision IS NULL OR offered_revision <> $2)";
const FETCHED: &str = "UPDATE element
     SET fetched_revision = $2, last_seen_at = $3, last_seen_from = $4, updated_at = $3
     WHERE id = $1";

/// Notes that DHCP told a device the name of the file of `revision`.
pub async fn record_offered(tx: &mut Tx, id: i64, revision: i64) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(TOLD).bind(id).bind(revision).execute(c).await.map(drop))?;
    Ok(())
}

/// Notes that a device fetched a file from `from`. Whether that is proof enough is its job's to say, which is woken when
/// there is something to find out. `false`: no such element.
pub async fn record_fetched(tx: &mut Tx, id: i64, fetched: &Fetched<'_>, from: &str) -> Result<bool, StoreError> {
    let Some(row) = by_id_locked(tx, id).await? else { return Ok(false) };
    let now = fetched.at;
    // The fetch itself came in meanwhile, and says more.
    if !fetched.seen && devices::one(tx, id).await?.took(fetched.revision) {
        jobs::wake_for_news(tx, id, now).await?;
        return Ok(true);
    }
    on!(tx, c => sqlx::query(FETCHED)
        .bind(id)
        .bind(fetched.revision)
        .bind(to_micros(now))
        .bind(from)
        .execute(c)
        .await.map(drop))?;
    devices::record_fetch(tx, id, fetched).await?;
    if row.desired == Content::Absent {
        return Ok(true);
    }
    let newest = fetched.revision == row.desired_revision;
    // After a power cut a whole city boots with files it ran before: nothing is new then.
    let proven = fetched.evidence.is_some() || row.confirmed_revision == Some(row.desired_revision);
    let known = proven && row.state == ElementState::Applied && row.applied_revision == Some(row.desired_revision);
    match fetched.evidence {
        Some(evidence) if newest => {
            let progress = Progress { state: ElementState::Applied, evidence: evidence.to_owned(), applied: true };
            let (revision, state) = (fetched.revision, progress.state);
            let reached = Reached { row: &row, revision, progress: &progress, state };
            record_all(tx, &[reached], &[], &[], now).await?;
        }
        _ if newest && known => {}
        _ => jobs::wake_for_news(tx, id, now).await?,
    }
    Ok(true)
}

/// A device told something of itself unasked: its job looks at it now.
pub async fn record_report(tx: &mut Tx, id: i64, now: Timestamp) -> Result<(), StoreError> {
    match by_id_locked(tx, id).await? {
        Some(row) if row.desired != Content::Absent => jobs::wake_for_news(tx, id, now).await,
        _ => Ok(()),
    }
}

/// What a successful attempt for `revision` reached; `row` is the element as it was when claimed.
pub(in crate::store) struct Reached<'a> {
    pub row: &'a ElementRow,
    pub revision: i64,
    pub progress: &'a Progress,
    /// What is shown: not what was reached where something newer is desired by now.
    pub state: ElementState,
}

/// How far a device is after a step of its job; `row` is the element as it was when claimed.
pub(in crate::store) struct Stepped<'a> {
    pub row: &'a ElementRow,
    pub progress: &'a Progress,
    pub state: ElementState,
    pub notes: &'a DeviceNotes,
}

/// Why an attempt did not work out.
pub(in crate::store) struct Troubled<'a> {
    pub id: i64,
    pub state: ElementState,
    pub reason: &'a str,
}

/// Writes what became of attempts, each on an element of its own.
pub(in crate::store) async fn record_all(
    tx: &mut Tx,
    reached: &[Reached<'_>],
    stepped: &[Stepped<'_>],
    troubled: &[Troubled<'_>],
    now: Timestamp,
) -> Result<(), StoreError> {
    let at = to_micros(now);
    let (mut succeeded, mut offered, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    let in_force = stepped.iter().filter(|step| step.progress.applied).map(|step| Reached {
        row: step.row,
        revision: step.row.desired_revision,
        progress: step.progress,
        state: step.state,
    });
    for Reached { row, revision, progress, state } in reached.iter().chain(&in_force.collect::<Vec<_>>()) {
        let (id, revision) = (row.id.into(), (*revision).into());
        let (state, evidence) = (state.as_str().into(), (&progress.evidence).into());
        match progress.applied {
            true => succeeded.push([id, revision, json(&row.desired)?.into(), state, evidence, at.into()]),
            false => offered.push([id, revision, state, evidence, at.into()]),
        }
    }
    for Stepped { row, progress, state, notes } in stepped {
        devices.push([
            row.id.into(),
            row.desired_revision.into(),
            state.as_str().into(),
            (&progress.evidence).into(),
            notes.trouble.as_ref().into(),
            notes.confirmed_revision.into(),
            at.into(),
        ]);
    }
    let notes: Vec<_> = stepped.iter().map(|step| (step.row.id, step.row.desired_revision, step.notes)).collect();
    devices::record(tx, &notes).await?;
    SUCCEEDED.execute(tx, succeeded).await?;
    OFFERED.execute(tx, offered).await?;
    DEVICE.execute(tx, devices).await?;
    let mut rows = Vec::with_capacity(troubled.len());
    for Troubled { id, state, reason } in troubled {
        rows.push([(*id).into(), state.as_str().into(), (*reason).into(), at.into()]);
    }
    TROUBLED.execute(tx, rows).await
}

/// Writes why an attempt did not work out.
pub(in crate::store) async fn record_trouble(
    tx: &mut Tx,
    id: i64,
    state: ElementState,
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    record_all(tx, &[], &[], &[Troubled { id, state, reason }], now).await
}
