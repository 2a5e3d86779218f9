//! Jobs: woken with the desired state they serve, claimed by one daemon at a time, ended with what became of it. The
//! rules of the states stand in `provision::JobState`; this file reads a row, asks them, and writes the answer.
//!
//! Claims stand in `claims.rs`, endings in `endings.rs`. Lane 0 (one person's push) goes before lane 1 (bulk). Whoever
//! locks an element and its job locks the element first.

mod claims;
mod endings;

use std::collections::HashMap;
use std::str::FromStr;

pub use claims::{ClaimedJob, Limits, claim, free_those_of_the_dead, next_due};
pub use endings::{DEVICE_EXCEPTION, EXCEPTION_KIND, Ending, end, end_all};

use super::elements::{self, ElementRow};
use super::many::{Many, Of};
use super::{StoreError, Tx, on};
use crate::provision::{ElementKind, ElementState, JobError, JobEvent, JobState};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// The lane of pushes of single accounts.
pub const LANE_SINGLE: i64 = 0;
/// The lane of catalog changes, syncs and everything else that comes by the thousand.
pub const LANE_BULK: i64 = 1;

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

macro_rules! select_job_from {
    ($rest:literal) => {
        concat!(
            "SELECT job.id, job.element_id, job.tenant, job.account_id, account.source,
                    account.external_id AS account, element.kind, element.key, job.lane, job.state, job.attempt,
                    job.target_revision, element.desired_revision, job.run_at, job.claimed_by, job.claimed_until,
                    job.last_error, job.created_at, job.updated_at, job.finished_at
             FROM ",
            $rest
        )
    };
}
macro_rules! select_job {
    ($rest:literal) => {
        concat!(
            select_job_from!(
                "job JOIN element ON element.id = job.element_id JOIN account ON account.id = job.account_id "
            ),
            $rest
        )
    };
}

const ACTIVE_OF_ELEMENT: &str = select_job!("WHERE job.element_id = $1 AND job.finished_at IS NULL");
macro_rules! active_of_elements {
    ($rest:literal) => {
        concat!(
            select_job_from!(
                "new CROSS JOIN job CROSS JOIN element CROSS JOIN account
                 WHERE job.element_id = new.element AND job.finished_at IS NULL
                   AND element.id = job.element_id AND account.id = job.account_id
                 ORDER BY job.id "
            ),
            $rest
        )
    };
}
static ACTIVE_OF: Many<1> = Many::new([("element", Of::Integer)], active_of_elements!(""));
static ACTIVE_OF_LOCKED: Many<1> = Many::new([("element", Of::Integer)], active_of_elements!("FOR UPDATE OF job"));
macro_rules! these_jobs {
    ($rest:literal) => {
        concat!(
            select_job_from!(
                "new CROSS JOIN job CROSS JOIN element CROSS JOIN account
                 WHERE job.id = new.job AND element.id = job.element_id AND account.id = job.account_id
                 ORDER BY job.id "
            ),
            $rest
        )
    };
}
static THESE: Many<1> = Many::new([("job", Of::Integer)], these_jobs!(""));
static THESE_LOCKED: Many<1> = Many::new([("job", Of::Integer)], these_jobs!("FOR UPDATE OF job"));
const ONE: &str = select_job!("WHERE job.id = $1");
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
static INSERT: Many<3> = Many::new(
    [("element", Of::Integer), ("job_lane", Of::Integer), ("at", Of::Integer)],
    "INSERT INTO job
         (element_id, tenant, account_id, kind, lane, state, attempt, target_revision, run_at, created_at, updated_at)
     SELECT element.id, element.tenant, element.account_id, element.kind, new.job_lane, 'pending', 0,
            element.desired_revision, new.at, new.at, new.at
     FROM new CROSS JOIN element WHERE element.id = new.element
     RETURNING element_id, id",
);
// SQLite writes an index anew for each column that a statement sets, whether it changes or not: what seldom changes has
// statements of its own.
static STEP: Many<9> = Many::new(
    [
        ("id", Of::Integer),
        ("state", Of::Text),
        ("attempt", Of::Integer),
        ("revision", Of::Integer),
        ("run_at", Of::Integer),
        ("claimed_by", Of::Text),
        ("claimed_until", Of::Integer),
        ("error", Of::Text),
        ("at", Of::Integer),
    ],
    "UPDATE job
     SET state = new.state, attempt = new.attempt, target_revision = new.revision, run_at = new.run_at,
         claimed_by = new.claimed_by, claimed_until = new.claimed_until, last_error = new.error, updated_at = new.at
     FROM new WHERE job.id = new.id",
);
static END: Many<2> = Many::new(
    [("id", Of::Integer), ("finished_at", Of::Integer)],
    "UPDATE job SET finished_at = new.finished_at FROM new WHERE job.id = new.id",
);
static MOVE: Many<4> = Many::new(
    [("id", Of::Integer), ("tenant", Of::Text), ("account_id", Of::Integer), ("job_lane", Of::Integer)],
    "UPDATE job SET tenant = new.tenant, account_id = new.account_id, lane = new.job_lane FROM new WHERE job.id = new.id",
);
const COUNTS: &str = "SELECT kind, state, COUNT(*) AS jobs, MIN(created_at) AS oldest_at FROM job
     WHERE finished_at IS NULL GROUP BY kind, state ORDER BY kind, state";
const COUNT_FAILED: &str =
    "SELECT kind, COUNT(*) AS jobs FROM element WHERE state = 'failed' GROUP BY kind ORDER BY kind";
static ACTIVE_OF_ACCOUNTS: Many<1> = Many::new(
    [("account", Of::Integer)],
    "SELECT element_id, id FROM new CROSS JOIN job
     WHERE account_id = new.account AND finished_at IS NULL ORDER BY id",
);
const ACTIVE_OF_ACCOUNT: &str = "SELECT element_id, id FROM job
     WHERE account_id = $1 AND finished_at IS NULL ORDER BY id LIMIT 10000";
const HURRY: &str = "UPDATE job SET run_at = $2, updated_at = $2
     WHERE finished_at IS NULL AND state = 'waiting' AND kind = $1 AND run_at > $2";
const HURRY_ELEMENT: &str = "UPDATE job SET run_at = $2, updated_at = $2
     WHERE finished_at IS NULL AND element_id = $1 AND state IN ('waiting', 'pending') AND run_at > $2";
const IS_ACTIVE: &str = "SELECT COUNT(*) FROM job WHERE finished_at IS NULL AND element_id = $1";
const FORGET: &str = "DELETE FROM job
     WHERE id IN (SELECT id FROM job WHERE finished_at < $1 ORDER BY id LIMIT $2)";

/// (element, job) of every job of an account that has not ended.
pub async fn active_of_account(tx: &mut Tx, account_id: i64) -> Result<Vec<(i64, i64)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(ACTIVE_OF_ACCOUNT).bind(account_id).fetch_all(c).await)?)
}

/// As `active_of_account`, for many.
pub async fn active_of_accounts(tx: &mut Tx, accounts: &[i64]) -> Result<Vec<(i64, i64)>, StoreError> {
    ACTIVE_OF_ACCOUNTS.fetch(tx, accounts.iter().map(|id| [(*id).into()]).collect()).await
}

/// An element that needs a job from now on, as it stands now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanting<'a> {
    pub element_id: i64,
    pub tenant: &'a str,
    pub account_id: i64,
    pub lane: i64,
}

/// Makes sure that a job will bring the element to its newest desired revision, from now on. Returns the job.
///
/// Called with the element locked or just written. The active job is superseded; without one a new job begins.
pub async fn wake(tx: &mut Tx, element_id: i64, lane: i64, now: Timestamp) -> Result<i64, StoreError> {
    let gone = || StoreError::Database("the element is gone".to_owned());
    let element = elements::by_id(tx, element_id).await?.ok_or_else(gone)?;
    let wanting = Wanting { element_id, tenant: &element.tenant, account_id: element.account_id, lane };
    wake_all(tx, &[wanting], now).await?.remove(&element_id).ok_or_else(gone)
}

/// As `wake`, for many. Returns the jobs by their elements.
pub(super) async fn wake_all(
    tx: &mut Tx,
    wanting: &[Wanting<'_>],
    now: Timestamp,
) -> Result<HashMap<i64, i64>, StoreError> {
    let statement = match tx {
        Tx::Sqlite(_) => &ACTIVE_OF,
        Tx::Postgres(_) => &ACTIVE_OF_LOCKED,
    };
    let rows = wanting.iter().map(|wanting| [wanting.element_id.into()]).collect();
    let rows: Vec<Row> = statement.fetch(tx, rows).await?;
    let mut active = HashMap::with_capacity(rows.len());
    for row in rows {
        let job = JobRow::try_from(row)?;
        active.insert(job.element_id, job);
    }
    let (mut jobs, mut new) = (HashMap::with_capacity(wanting.len()), Vec::new());
    let (mut superseded, mut moved) = (Vec::new(), Vec::new());
    for wanting in wanting {
        let Some(job) = active.remove(&wanting.element_id) else {
            new.push((wanting.element_id, wanting.lane));
            continue;
        };
        jobs.insert(wanting.element_id, job.id);
        let (stands, lane) = ((job.tenant.as_str(), job.account_id, job.lane), job.lane.min(wanting.lane));
        if stands != (wanting.tenant, wanting.account_id, lane) {
            moved.push([job.id.into(), wanting.tenant.into(), wanting.account_id.into(), lane.into()]);
        }
        let state = job.state.clone().step(JobEvent::Supersede).map_err(out_of_order)?;
        superseded.push((job, state));
    }
    MOVE.execute(tx, moved).await?;
    store_all(tx, &superseded, now).await?;
    jobs.extend(begin(tx, &new, now).await?);
    Ok(jobs)
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
        begin(tx, &[(element_id, LANE_BULK)], now).await?;
    }
    Ok(())
}

/// Jobs for elements that have no active one, each in a lane. Returns (element, job).
pub(super) async fn begin(tx: &mut Tx, elements: &[(i64, i64)], now: Timestamp) -> Result<Vec<(i64, i64)>, StoreError> {
    let rows = elements.iter().map(|(element, lane)| [(*element).into(), (*lane).into(), to_micros(now).into()]);
    INSERT.fetch(tx, rows.collect()).await
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

/// Jobs by their ids.
pub(super) async fn these(tx: &mut Tx, ids: &[i64]) -> Result<Vec<JobRow>, StoreError> {
    let rows: Vec<Row> = THESE.fetch(tx, ids.iter().map(|id| [(*id).into()]).collect()).await?;
    rows.into_iter().map(JobRow::try_from).collect()
}

/// As `these`; on PostgreSQL nobody else changes them until the transaction ends.
async fn these_locked(tx: &mut Tx, ids: &[i64]) -> Result<Vec<JobRow>, StoreError> {
    let statement = match tx {
        Tx::Sqlite(_) => &THESE,
        Tx::Postgres(_) => &THESE_LOCKED,
    };
    let rows: Vec<Row> = statement.fetch(tx, ids.iter().map(|id| [(*id).into()]).collect()).await?;
    rows.into_iter().map(JobRow::try_from).collect()
}

async fn one_locked(tx: &mut Tx, id: i64) -> Result<Option<JobRow>, StoreError> {
    if let Tx::Postgres(transaction) = tx {
        sqlx::query(LOCK).bind(id).fetch_optional(&mut **transaction).await?;
    }
    one(tx, id).await
}

/// Writes a job's next state; `job` is as it is stored, but for who claims it, and gives what the state does not carry.
async fn store(tx: &mut Tx, job: &JobRow, state: JobState, now: Timestamp) -> Result<(), StoreError> {
    store_all(tx, &[(job.clone(), state)], now).await
}

/// As `store`, for many.
async fn store_all(tx: &mut Tx, jobs: &[(JobRow, JobState)], now: Timestamp) -> Result<(), StoreError> {
    let (mut steps, mut ends) = (Vec::with_capacity(jobs.len()), Vec::new());
    for (job, state) in jobs {
        let running = matches!(state, JobState::Running { .. });
        let (attempts, revision, run_at, error, finished) = match state {
            JobState::Pending { attempts } => (*attempts, job.target_revision, now, job.last_error.as_ref(), false),
            JobState::Running { revision, attempts, lease_until, .. } => {
                (*attempts, *revision, *lease_until, job.last_error.as_ref(), false)
            }
            JobState::Waiting { attempts, retry_at, reason } => {
                (*attempts, job.target_revision, *retry_at, Some(reason), false)
            }
            JobState::Done { revision } => (job.attempts, *revision, job.run_at, None, true),
            JobState::Failed { attempts, reason } => (*attempts, job.target_revision, job.run_at, Some(reason), true),
            JobState::Cancelled => (job.attempts, job.target_revision, job.run_at, job.last_error.as_ref(), true),
        };
        let (now, run_at) = (to_micros(now), to_micros(run_at));
        steps.push([
            job.id.into(),
            state.word().into(),
            i64::from(attempts).into(),
            revision.into(),
            run_at.into(),
            job.claimed_by.as_ref().filter(|_| running).into(),
            running.then_some(run_at).into(),
            error.into(),
            now.into(),
        ]);
        if finished || job.finished_at.is_some() {
            ends.push([job.id.into(), finished.then_some(now).into()]);
        }
    }
    STEP.execute(tx, steps).await?;
    END.execute(tx, ends).await
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
