//! Jobs: woken with the desired state they serve, claimed by one daemon at a time, ended with what became of it. The
//! rules of the states stand in `provision::JobState`; this file reads a row, asks them, and writes the answer.
//!
//! A claim is a lease: the claiming daemon commits it before it touches anything outside, and when it dies the job is
//! due again at the lease's end. Lane 0 (one person's push) goes before lane 1 (bulk). Whoever locks an element and its
//! job locks the element first.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use super::devices::{self, DeviceNotes};
use super::elements::{self, ElementRow, Progress};
use super::{StoreError, Tx, drift, exceptions, on};
use crate::provision::{ElementKind, ElementState, JobError, JobEvent, JobState};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// The lane of pushes of single accounts.
pub const LANE_SINGLE: i64 = 0;
/// The lane of catalog changes, syncs and everything else that comes by the thousand.
pub const LANE_BULK: i64 = 1;

/// Kind of the exception that a failed job opens.
pub const EXCEPTION_KIND: &str = "provisioning";
/// Kind of the exception of a device that runs otherwise than desired.
pub const DEVICE_EXCEPTION: &str = "device";
/// Who releases that exception when the element is fine again.
const RELEASED_BY: &str = "provisioner";

/// One job as stored, with what it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    pub id: i64,
    pub element_id: i64,
    pub tenant: String,
    pub account_id: i64,
    /// Source and external id of the account.
    pub source: String,
    pub account: String,
    pub kind: ElementKind,
    pub key: String,
    pub lane: i64,
    pub state: JobState,
    pub attempts: u32,
    /// The revision it was last claimed for.
    pub target_revision: i64,
    pub desired_revision: i64,
    /// When it is due, or for a running job, when its lease ends.
    pub run_at: Timestamp,
    pub claimed_by: Option<String>,
    pub last_error: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// A job that this daemon must bring to an end before its lease does.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedJob {
    pub id: i64,
    /// Attempts made, this one included.
    pub attempts: u32,
    /// `LANE_SINGLE`: somebody waits for it. `LANE_BULK`: one of thousands.
    pub lane: i64,
    /// The element as it was when claimed: the content to apply is `element.desired`.
    pub element: ElementRow,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Succeeded(Progress),
    /// A step on a device; the next one is due when `again` says, because of its reason.
    Device {
        progress: Progress,
        notes: Box<DeviceNotes>,
        again: Option<(Timestamp, String)>,
    },
    /// A passing fault; `random` spreads the next attempt.
    Retry {
        reason: String,
        random: u64,
    },
    /// A person must mend something first.
    Failed {
        reason: String,
    },
}

/// Which jobs a list shows.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    pub tenant: Option<String>,
    pub account_id: Option<i64>,
    pub source: Option<String>,
    /// External id of the account.
    pub account: Option<String>,
    /// A state's word.
    pub state: Option<String>,
    /// Only jobs before this one; lists run from the newest back.
    pub before: Option<i64>,
    pub limit: i64,
}

macro_rules! select_job {
    ($rest:literal) => {
        concat!(
            "SELECT job.id, job.element_id, job.tenant, job.account_id, account.source,
                    account.external_id AS account, element.kind, element.key, job.lane, job.state, job.attempt,
                    job.target_revision, element.desired_revision, job.run_at, job.claimed_by, job.claimed_until,
                    job.last_error, job.created_at, job.updated_at, job.finished_at
             FROM job
             JOIN element ON element.id = job.element_id
             JOIN account ON account.id = job.account_id ",
            $rest
        )
    };
}

const ACTIVE_OF_ELEMENT: &str = select_job!("WHERE job.element_id = $1 AND job.finished_at IS NULL");
const ONE: &str = select_job!("WHERE job.id = $1");
const THESE_SQLITE: &str = select_job!("WHERE job.id IN (SELECT value FROM json_each($1))");
const THESE_POSTGRES: &str = select_job!("WHERE job.id = ANY($1)");
const LIST: &str = select_job!(
    "WHERE ($1 IS NULL OR job.tenant = $1)
       AND ($2 IS NULL OR account.source = $2)
       AND ($3 IS NULL OR account.external_id = $3)
       AND ($4 IS NULL OR job.state = $4)
       AND ($5 IS NULL OR job.account_id = $5)
       AND job.id < $6
     ORDER BY job.id DESC LIMIT $7"
);
const LOCK: &str = "SELECT id FROM job WHERE id = $1 FOR UPDATE";
const LOCK_ACTIVE: &str = "SELECT id FROM job WHERE element_id = $1 AND finished_at IS NULL FOR UPDATE";
const INSERT_SQLITE: &str = "INSERT INTO job
         (element_id, tenant, account_id, kind, lane, state, attempt, target_revision, run_at, created_at, updated_at)
     SELECT id, tenant, account_id, kind, $1, 'pending', 0, desired_revision, $2, $2, $2
     FROM element WHERE id IN (SELECT value FROM json_each($3))
     RETURNING element_id, id";
const INSERT_POSTGRES: &str = "INSERT INTO job
         (element_id, tenant, account_id, kind, lane, state, attempt, target_revision, run_at, created_at, updated_at)
     SELECT id, tenant, account_id, kind, $1, 'pending', 0, desired_revision, $2, $2, $2
     FROM element WHERE id = ANY($3)
     RETURNING element_id, id";
const DUE_SQLITE: &str = "SELECT id FROM job
     WHERE finished_at IS NULL AND kind = $1 AND lane = $2 AND run_at <= $3
     ORDER BY run_at, id LIMIT $4";
const DUE_POSTGRES: &str = "SELECT id FROM job
     WHERE finished_at IS NULL AND kind = $1 AND lane = $2 AND run_at <= $3
     ORDER BY run_at, id LIMIT $4 FOR UPDATE SKIP LOCKED";
const NEXT_DUE: &str = "SELECT MIN(run_at) FROM job WHERE finished_at IS NULL AND kind = $1";
const STORE: &str = "UPDATE job
     SET state = $2, attempt = $3, target_revision = $4, run_at = $5, claimed_by = $6, claimed_until = $7,
         last_error = $8, lane = $9, finished_at = $10, updated_at = $11
     WHERE id = $1";
const MOVE: &str = "UPDATE job SET tenant = $2, account_id = $3 WHERE id = $1";
const COUNTS: &str = "SELECT kind, state, COUNT(*) AS jobs, MIN(created_at) AS oldest_at FROM job
     WHERE finished_at IS NULL GROUP BY kind, state ORDER BY kind, state";
const COUNT_FAILED: &str =
    "SELECT kind, COUNT(*) AS jobs FROM element WHERE state = 'failed' GROUP BY kind ORDER BY kind";
const ACTIVE_OF_ACCOUNT: &str = "SELECT element_id, id FROM job
     WHERE account_id = $1 AND finished_at IS NULL ORDER BY id LIMIT 10000";
const HURRY: &str = "UPDATE job SET run_at = $2, updated_at = $2
     WHERE finished_at IS NULL AND state = 'waiting' AND kind = $1 AND run_at > $2";
const HURRY_ELEMENT: &str = "UPDATE job SET run_at = $2, updated_at = $2
     WHERE finished_at IS NULL AND element_id = $1 AND state IN ('waiting', 'pending') AND run_at > $2";
const IS_ACTIVE: &str = "SELECT COUNT(*) FROM job WHERE finished_at IS NULL AND element_id = $1";
const FORGET: &str = "DELETE FROM job
     WHERE id IN (SELECT id FROM job WHERE finished_at < $1 ORDER BY id LIMIT $2)";
const OF_DEAD: &str = "SELECT id FROM job WHERE finished_at IS NULL AND state = 'running' AND claimed_by <> $1
     ORDER BY id LIMIT 10000";

/// (element, job) of every job of an account that has not ended.
pub async fn active_of_account(tx: &mut Tx, account_id: i64) -> Result<Vec<(i64, i64)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(ACTIVE_OF_ACCOUNT).bind(account_id).fetch_all(c).await)?)
}

/// Makes sure that a job will bring the element to its newest desired revision, from now on. Returns the job.
///
/// Called with the element locked or just written. The active job is superseded; without one a new job begins.
pub async fn wake(tx: &mut Tx, element_id: i64, lane: i64, now: Timestamp) -> Result<i64, StoreError> {
    if let Tx::Postgres(transaction) = tx {
        sqlx::query(LOCK_ACTIVE).bind(element_id).fetch_optional(&mut **transaction).await?;
    }
    let row: Option<Row> = on!(tx, c => sqlx::query_as(ACTIVE_OF_ELEMENT).bind(element_id).fetch_optional(c).await)?;
    let Some(row) = row else {
        let begun = begin(tx, &[element_id], lane, now).await?;
        return begun.first().map(|(_, id)| *id).ok_or_else(|| StoreError::Database("the element is gone".to_owned()));
    };
    let mut job = JobRow::try_from(row)?;
    let Some(element) = elements::by_id(tx, element_id).await? else { return Ok(job.id) };
    if element.account_id != job.account_id {
        on!(tx, c => sqlx::query(MOVE)
            .bind(job.id)
            .bind(&element.tenant)
            .bind(element.account_id)
            .execute(c)
            .await.map(drop))?;
    }
    job.lane = job.lane.min(lane);
    let state = job.state.clone().step(JobEvent::Supersede).map_err(out_of_order)?;
    store(tx, &job, state, now).await?;
    Ok(job.id)
}

/// Asks for an element again because the outside differs from it: in the bulk lane, behind every push.
pub async fn wake_to_heal(tx: &mut Tx, element_id: i64, now: Timestamp) -> Result<i64, StoreError> {
    elements::by_id_locked(tx, element_id).await?;
    wake(tx, element_id, LANE_BULK, now).await
}

/// Something new was seen of a device: its job looks at it now. A running one looks again by itself soon.
pub(super) async fn wake_for_news(tx: &mut Tx, element_id: i64, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(HURRY_ELEMENT).bind(element_id).bind(to_micros(now)).execute(c).await.map(drop))?;
    let active: i64 = on!(tx, c => sqlx::query_scalar(IS_ACTIVE).bind(element_id).fetch_one(c).await)?;
    if active == 0 {
        begin(tx, &[element_id], LANE_BULK, now).await?;
    }
    Ok(())
}

/// Jobs for elements that have no active one, for example because they were made in this transaction.
/// Returns (element, job).
pub(super) async fn begin(
    tx: &mut Tx,
    elements: &[i64],
    lane: i64,
    now: Timestamp,
) -> Result<Vec<(i64, i64)>, StoreError> {
    if elements.is_empty() {
        return Ok(Vec::new());
    }
    let now = to_micros(now);
    Ok(match tx {
        Tx::Sqlite(held) => {
            let query =
                sqlx::query_as(INSERT_SQLITE).bind(lane).bind(now).bind(serde_json::json!(elements).to_string());
            query.fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            let query = sqlx::query_as(INSERT_POSTGRES).bind(lane).bind(now).bind(elements);
            query.fetch_all(&mut **transaction).await?
        }
    })
}

/// How many jobs are claimed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub all: i64,
    /// Of them, bulk ones at most.
    pub bulk: i64,
}

impl From<i64> for Limits {
    fn from(all: i64) -> Self {
        Self { all, bulk: all }
    }
}

/// Takes due jobs of one kind, single pushes first, for `owner` until `lease` from now. Commit before acting.
pub async fn claim(
    tx: &mut Tx,
    kind: ElementKind,
    owner: &str,
    limits: impl Into<Limits>,
    now: Timestamp,
    lease: Duration,
) -> Result<Vec<ClaimedJob>, StoreError> {
    let limits = limits.into();
    let lease_until = now.checked_add(lease).unwrap_or(Timestamp::MAX);
    let mut claimed = Vec::new();
    for (lane, most) in [(LANE_SINGLE, limits.all), (LANE_BULK, limits.bulk)] {
        let room = most.min(limits.all - i64::try_from(claimed.len()).unwrap_or(limits.all));
        if room <= 0 {
            break;
        }
        let ids = due(tx, kind, lane, now, room).await?;
        let mut jobs = these(tx, &ids).await?;
        let of_jobs: Vec<i64> = jobs.values().map(|job| job.element_id).collect();
        let mut elements = elements::by_ids(tx, &of_jobs).await?;
        // The longest due comes first.
        for id in ids {
            let Some(job) = jobs.remove(&id) else { continue };
            let Some(element) = elements.remove(&job.element_id) else { continue };
            claimed.extend(claim_one(tx, job, element, owner, now, lease_until).await?);
        }
    }
    Ok(claimed)
}

async fn claim_one(
    tx: &mut Tx,
    mut job: JobRow,
    element: ElementRow,
    owner: &str,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<Option<ClaimedJob>, StoreError> {
    let mut state = job.state.clone();
    if matches!(state, JobState::Running { .. }) {
        let Ok(free) = state.step(JobEvent::LeaseExpired { now }) else { return Ok(None) };
        state = free;
    }
    let event = JobEvent::Claim { now, revision: element.desired_revision, lease_until };
    let Ok(state) = state.step(event) else { return Ok(None) };
    let JobState::Running { attempts, .. } = state else { return Ok(None) };
    job.claimed_by = Some(owner.to_owned());
    store(tx, &job, state, now).await?;
    Ok(Some(ClaimedJob { id: job.id, attempts, lane: job.lane, element }))
}

/// Ends an attempt. Returns the job's new state, or `None` when it was not ours any more and nothing was written.
///
/// A failure opens an exception for the element, a success releases it.
pub async fn end(
    tx: &mut Tx,
    claimed: &ClaimedJob,
    owner: &str,
    ending: Ending,
    now: Timestamp,
) -> Result<Option<JobState>, StoreError> {
    let Some(element) = elements::by_id_locked(tx, claimed.element.id).await? else { return Ok(None) };
    let Some(job) = one_locked(tx, claimed.id).await? else { return Ok(None) };
    if job.claimed_by.as_deref() != Some(owner) || job.target_revision != claimed.element.desired_revision {
        return Ok(None);
    }
    let newer = element.desired_revision != claimed.element.desired_revision;
    let ending = look_again_after_news(tx, element.id, ending, now).await?;
    let event = match &ending {
        Ending::Succeeded(_) | Ending::Device { again: None, .. } => JobEvent::Succeed,
        Ending::Device { again: Some((at, reason)), .. } => JobEvent::Later { at: *at, reason: reason.clone() },
        Ending::Retry { reason, random } => JobEvent::Retry { now, random: *random, reason: reason.clone() },
        Ending::Failed { reason } => JobEvent::Fail { reason: reason.clone() },
    };
    let Ok(state) = job.state.clone().step(event) else { return Ok(None) };
    store(tx, &job, state.clone(), now).await?;
    let subject = subject(&element);
    match ending {
        Ending::Succeeded(mut progress) => {
            if newer {
                progress.state = ElementState::Pending;
            }
            let revision = claimed.element.desired_revision;
            elements::record_progress(tx, &claimed.element, revision, &progress, now).await?;
            if claimed.lane == LANE_BULK && progress.applied {
                drift::healed(tx, element.id, now).await?;
            }
            exceptions::release_subject(tx, EXCEPTION_KIND, &subject, RELEASED_BY, now).await?;
        }
        Ending::Device { mut progress, notes, .. } => {
            let revision = claimed.element.desired_revision;
            if newer {
                progress.state = ElementState::Pending;
            }
            devices::record(tx, element.id, revision, &notes).await?;
            elements::record_device(tx, &claimed.element, &progress, &notes, now).await?;
            match &notes.trouble {
                Some(trouble) if notes.alarm && !newer => {
                    exceptions::open(tx, Some(&element.tenant), DEVICE_EXCEPTION, &subject, trouble, now).await?;
                }
                _ if progress.applied => {
                    drift::healed(tx, element.id, now).await?;
                    exceptions::release_subject(tx, DEVICE_EXCEPTION, &subject, RELEASED_BY, now).await?;
                    exceptions::release_subject(tx, EXCEPTION_KIND, &subject, RELEASED_BY, now).await?;
                }
                _ => {}
            }
        }
        Ending::Retry { reason, .. } => {
            elements::record_trouble(tx, element.id, ElementState::Pending, &reason, now).await?;
        }
        Ending::Failed { reason } => {
            let shown = if newer { ElementState::Pending } else { ElementState::Failed };
            elements::record_trouble(tx, element.id, shown, &reason, now).await?;
            if !newer {
                exceptions::open(tx, Some(&element.tenant), EXCEPTION_KIND, &subject, &reason, now).await?;
            }
        }
    }
    Ok(Some(state))
}

/// A device that fetched while its attempt was under way is looked at again, for the attempt did not know.
async fn look_again_after_news(
    tx: &mut Tx,
    element_id: i64,
    ending: Ending,
    now: Timestamp,
) -> Result<Ending, StoreError> {
    let Ending::Device { progress, notes, again } = ending else { return Ok(ending) };
    let fetched_at = devices::one(tx, element_id).await?.running.map(|running| running.fetched_at);
    let news = (fetched_at != notes.seen_fetch_at).then(|| (now, "it fetched a file meanwhile".to_owned()));
    Ok(Ending::Device { progress, notes, again: news.or(again) })
}

/// When the next job of a kind is due; in the past when one is due now. `None`: there is none.
pub async fn next_due(tx: &mut Tx, kind: ElementKind) -> Result<Option<Timestamp>, StoreError> {
    let at: Option<i64> = on!(tx, c => sqlx::query_scalar(NEXT_DUE).bind(kind.as_str()).fetch_one(c).await)?;
    Ok(at.and_then(from_micros))
}

/// Frees the jobs that other processes hold on this SQLite database: one daemon at a time works on it, so they died.
/// Returns how many. On PostgreSQL nothing happens: other daemons may well be alive, and leases end by themselves.
pub async fn free_those_of_the_dead(tx: &mut Tx, owner: &str, now: Timestamp) -> Result<usize, StoreError> {
    let Tx::Sqlite(held) = tx else { return Ok(0) };
    let ids: Vec<i64> = sqlx::query_scalar(OF_DEAD).bind(owner).fetch_all(&mut *held.transaction).await?;
    for id in &ids {
        let Some(job) = one(tx, *id).await? else { continue };
        let JobState::Running { lease_until, .. } = job.state else { continue };
        let state = job.state.clone().step(JobEvent::LeaseExpired { now: lease_until }).map_err(out_of_order)?;
        store(tx, &job, state, now).await?;
    }
    Ok(ids.len())
}

/// Makes every waiting job of a kind due now, because what they waited for is back. Returns how many.
pub async fn hurry(tx: &mut Tx, kind: ElementKind, now: Timestamp) -> Result<u64, StoreError> {
    Ok(on!(tx, c => sqlx::query(HURRY)
        .bind(kind.as_str())
        .bind(to_micros(now))
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?)
}

/// Deletes at most `limit` jobs that ended before an instant; what they reached stands on their elements.
pub async fn forget(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
    Ok(on!(tx, c => sqlx::query(FORGET)
        .bind(to_micros(before))
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?)
}

/// Jobs, the newest first.
pub async fn list(tx: &mut Tx, filter: &JobFilter) -> Result<Vec<JobRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(filter.tenant.as_deref())
        .bind(filter.source.as_deref())
        .bind(filter.account.as_deref())
        .bind(filter.state.as_deref())
        .bind(filter.account_id)
        .bind(filter.before.unwrap_or(i64::MAX))
        .bind(filter.limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(JobRow::try_from).collect()
}

/// One job, ended or not.
pub async fn one(tx: &mut Tx, id: i64) -> Result<Option<JobRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(ONE).bind(id).fetch_optional(c).await)?;
    row.map(JobRow::try_from).transpose()
}

/// An operator asks for the job again, from now. `None`: no such job. When the element has a newer job, that one is
/// asked; the answer names the job that will run.
pub async fn retry(tx: &mut Tx, id: i64, now: Timestamp) -> Result<Option<Result<JobRow, JobError>>, StoreError> {
    let Some(job) = one(tx, id).await? else { return Ok(None) };
    let Some(element) = elements::by_id_locked(tx, job.element_id).await? else { return Ok(None) };
    let active: Option<Row> =
        on!(tx, c => sqlx::query_as(ACTIVE_OF_ELEMENT).bind(job.element_id).fetch_optional(c).await)?;
    let asked = active.map(JobRow::try_from).transpose()?.map_or(id, |active| active.id);
    let Some(job) = one_locked(tx, asked).await? else { return Ok(None) };
    let state = match job.state.clone().step(JobEvent::Requeue) {
        Ok(state) => state,
        Err(refusal) => return Ok(Some(Err(refusal))),
    };
    store(tx, &job, state, now).await?;
    if element.state == ElementState::Failed {
        let reason = element.last_error.unwrap_or_default();
        elements::record_trouble(tx, element.id, ElementState::Pending, &reason, now).await?;
    }
    Ok(one(tx, asked).await?.map(Ok))
}

/// An operator withdraws the job; the element stays as it is. `None`: no such job.
pub async fn cancel(tx: &mut Tx, id: i64, now: Timestamp) -> Result<Option<Result<JobRow, JobError>>, StoreError> {
    let Some(job) = one_locked(tx, id).await? else { return Ok(None) };
    let state = match job.state.clone().step(JobEvent::Cancel) {
        Ok(state) => state,
        Err(refusal) => return Ok(Some(Err(refusal))),
    };
    store(tx, &job, state, now).await?;
    Ok(one(tx, id).await?.map(Ok))
}

/// Active jobs by kind and state, with when the oldest was made; failed ones are counted by their elements.
pub async fn counts(tx: &mut Tx) -> Result<Vec<(String, String, i64, Option<Timestamp>)>, StoreError> {
    let active: Vec<(String, String, i64, i64)> = on!(tx, c => sqlx::query_as(COUNTS).fetch_all(c).await)?;
    let failed: Vec<(String, i64)> = on!(tx, c => sqlx::query_as(COUNT_FAILED).fetch_all(c).await)?;
    let active = active.into_iter().map(|(kind, state, jobs, at)| (kind, state, jobs, from_micros(at)));
    let failed = failed.into_iter().map(|(kind, jobs)| (kind, "failed".to_owned(), jobs, None));
    Ok(active.chain(failed).collect())
}

/// How an element is named in exceptions and logs: `mailbox ada@acme.example`.
pub fn subject(element: &ElementRow) -> String {
    format!("{} {}", element.kind, element.key)
}

async fn due(tx: &mut Tx, kind: ElementKind, lane: i64, now: Timestamp, limit: i64) -> Result<Vec<i64>, StoreError> {
    let (kind, now) = (kind.as_str(), to_micros(now));
    Ok(match tx {
        Tx::Sqlite(held) => {
            let query = sqlx::query_scalar(DUE_SQLITE).bind(kind).bind(lane).bind(now).bind(limit);
            query.fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            let query = sqlx::query_scalar(DUE_POSTGRES).bind(kind).bind(lane).bind(now).bind(limit);
            query.fetch_all(&mut **transaction).await?
        }
    })
}

/// Jobs by their ids.
async fn these(tx: &mut Tx, ids: &[i64]) -> Result<HashMap<i64, JobRow>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<Row> = match tx {
        Tx::Sqlite(held) => {
            let query = sqlx::query_as(THESE_SQLITE).bind(serde_json::json!(ids).to_string());
            query.fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => sqlx::query_as(THESE_POSTGRES).bind(ids).fetch_all(&mut **transaction).await?,
    };
    rows.into_iter().map(|row| JobRow::try_from(row).map(|job| (job.id, job))).collect()
}

async fn one_locked(tx: &mut Tx, id: i64) -> Result<Option<JobRow>, StoreError> {
    if let Tx::Postgres(transaction) = tx {
        sqlx::query(LOCK).bind(id).fetch_optional(&mut **transaction).await?;
    }
    one(tx, id).await
}

/// Writes a job's next state; `job` gives what the state does not carry.
async fn store(tx: &mut Tx, job: &JobRow, state: JobState, now: Timestamp) -> Result<(), StoreError> {
    let running = matches!(state, JobState::Running { .. });
    let (attempts, revision, run_at, error, finished) = match &state {
        JobState::Pending { attempts } => (*attempts, job.target_revision, now, job.last_error.clone(), false),
        JobState::Running { revision, attempts, lease_until, .. } => {
            (*attempts, *revision, *lease_until, job.last_error.clone(), false)
        }
        JobState::Waiting { attempts, retry_at, reason } => {
            (*attempts, job.target_revision, *retry_at, Some(reason.clone()), false)
        }
        JobState::Done { revision } => (job.attempts, *revision, job.run_at, None, true),
        JobState::Failed { attempts, reason } => {
            (*attempts, job.target_revision, job.run_at, Some(reason.clone()), true)
        }
        JobState::Cancelled => (job.attempts, job.target_revision, job.run_at, job.last_error.clone(), true),
    };
    on!(tx, c => sqlx::query(STORE)
        .bind(job.id)
        .bind(state.word())
        .bind(i64::from(attempts))
        .bind(revision)
        .bind(to_micros(run_at))
        .bind(job.claimed_by.as_deref().filter(|_| running))
        .bind(running.then(|| to_micros(run_at)))
        .bind(&error)
        .bind(job.lane)
        .bind(finished.then(|| to_micros(now)))
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

fn out_of_order(error: JobError) -> StoreError {
    StoreError::Database(format!("a job cannot go on: {error}"))
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    element_id: i64,
    tenant: String,
    account_id: i64,
    source: String,
    account: String,
    kind: String,
    key: String,
    lane: i64,
    state: String,
    attempt: i64,
    target_revision: i64,
    desired_revision: i64,
    run_at: i64,
    claimed_by: Option<String>,
    claimed_until: Option<i64>,
    last_error: Option<String>,
    created_at: i64,
    updated_at: i64,
    finished_at: Option<i64>,
}

impl TryFrom<Row> for JobRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let id = row.id;
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "job", column, id: id.to_string() };
        let instant = |column: &'static str, at: i64| from_micros(at).ok_or_else(|| corrupt(column));
        let attempts = u32::try_from(row.attempt).map_err(|_| corrupt("attempt"))?;
        let run_at = instant("run_at", row.run_at)?;
        let reason = || row.last_error.clone().unwrap_or_default();
        let state = match row.state.as_str() {
            "pending" => JobState::Pending { attempts },
            "running" => JobState::Running {
                revision: row.target_revision,
                attempts,
                lease_until: instant("claimed_until", row.claimed_until.ok_or_else(|| corrupt("claimed_until"))?)?,
                newer: row.desired_revision != row.target_revision,
            },
            "waiting" => JobState::Waiting { attempts, retry_at: run_at, reason: reason() },
            "done" => JobState::Done { revision: row.target_revision },
            "failed" => JobState::Failed { attempts, reason: reason() },
            "cancelled" => JobState::Cancelled,
            _ => return Err(corrupt("state")),
        };
        Ok(Self {
            id,
            element_id: row.element_id,
            kind: ElementKind::from_str(&row.kind).map_err(|_| corrupt("kind"))?,
            state,
            attempts,
            run_at,
            created_at: instant("created_at", row.created_at)?,
            updated_at: instant("updated_at", row.updated_at)?,
            finished_at: row.finished_at.map(|at| instant("finished_at", at)).transpose()?,
            tenant: row.tenant,
            account_id: row.account_id,
            source: row.source,
            account: row.account,
            key: row.key,
            lane: row.lane,
            target_revision: row.target_revision,
            desired_revision: row.desired_revision,
            claimed_by: row.claimed_by,
            last_error: row.last_error,
        })
    }
}
