//! Jobs: woken with the desired state they serve, claimed by one daemon at a time, ended with what became of it. The
//! rules of the states stand in `provision::JobState`; this file reads a row, asks them, and writes the answer.
//!
//! A claim is a lease: the claiming daemon commits it before it touches anything outside, and when it dies the job is
//! due again at the lease's end. Lane 0 (one person's push) goes before lane 1 (bulk). Whoever locks an element and its
//! job locks the element first.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::time::Duration;

use super::devices::{self, DeviceNotes, DeviceRow};
use super::elements::{self, ElementRow, Progress};
use super::many::{Many, Of};
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
    /// What was known of the device then; of others nothing is.
    pub device: DeviceRow,
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
const DUE_SQLITE: &str = "SELECT id FROM job
     WHERE finished_at IS NULL AND kind = $1 AND lane = $2 AND run_at <= $3
     ORDER BY run_at, id LIMIT $4";
const DUE_POSTGRES: &str = "SELECT id FROM job
     WHERE finished_at IS NULL AND kind = $1 AND lane = $2 AND run_at <= $3
     ORDER BY run_at, id LIMIT $4 FOR UPDATE SKIP LOCKED";
// One look at the beginning of each lane: of both together every active job would be read.
const NEXT_DUE: &str = "SELECT MIN(lanes.run_at) FROM (
         SELECT MIN(run_at) AS run_at FROM job WHERE finished_at IS NULL AND kind = $1 AND lane = 0
         UNION ALL
         SELECT MIN(run_at) AS run_at FROM job WHERE finished_at IS NULL AND kind = $1 AND lane = 1
     ) AS lanes";
static STORE: Many<13> = Many::new(
    [
        ("id", Of::Integer),
        ("tenant", Of::Text),
        ("account_id", Of::Integer),
        ("state", Of::Text),
        ("attempt", Of::Integer),
        ("revision", Of::Integer),
        ("run_at", Of::Integer),
        ("claimed_by", Of::Text),
        ("claimed_until", Of::Integer),
        ("error", Of::Text),
        ("lane", Of::Integer),
        ("finished_at", Of::Integer),
        ("at", Of::Integer),
    ],
    "UPDATE job
     SET tenant = new.tenant, account_id = new.account_id, state = new.state, attempt = new.attempt,
         target_revision = new.revision, run_at = new.run_at, claimed_by = new.claimed_by,
         claimed_until = new.claimed_until, last_error = new.error, lane = new.lane, finished_at = new.finished_at,
         updated_at = new.at
     FROM new WHERE job.id = new.id",
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
const OF_DEAD: &str = "SELECT id FROM job WHERE finished_at IS NULL AND state = 'running' AND claimed_by <> $1
     ORDER BY id LIMIT 10000";

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
    let (mut jobs, mut new, mut superseded) = (HashMap::with_capacity(wanting.len()), Vec::new(), Vec::new());
    for wanting in wanting {
        let Some(mut job) = active.remove(&wanting.element_id) else {
            new.push((wanting.element_id, wanting.lane));
            continue;
        };
        jobs.insert(wanting.element_id, job.id);
        wanting.tenant.clone_into(&mut job.tenant);
        job.account_id = wanting.account_id;
        job.lane = job.lane.min(wanting.lane);
        let state = job.state.clone().step(JobEvent::Supersede).map_err(out_of_order)?;
        superseded.push((job, state));
    }
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

/// How many jobs are claimed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub all: i64,
    /// Of them, bulk ones at most.
    pub bulk: i64,
    /// As `bulk`, while single ones are due.
    pub beside: i64,
}

impl From<i64> for Limits {
    fn from(all: i64) -> Self {
        Self { all, bulk: all, beside: all }
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
    let mut ids = due(tx, kind, LANE_SINGLE, now, limits.all).await?;
    let left = limits.all - i64::try_from(ids.len()).unwrap_or(limits.all);
    let bulk = if ids.is_empty() { limits.bulk } else { limits.beside }.min(left);
    if bulk > 0 {
        ids.extend(due(tx, kind, LANE_BULK, now, bulk).await?);
    }
    let mut jobs: HashMap<i64, JobRow> = these(tx, &ids).await?.into_iter().map(|job| (job.id, job)).collect();
    let of_jobs: Vec<i64> = jobs.values().map(|job| job.element_id).collect();
    let mut elements = elements::by_ids(tx, &of_jobs).await?;
    let mut known = match kind.device() {
        Some(_) => devices::these(tx, &of_jobs).await?,
        None => HashMap::new(),
    };
    let (mut claimed, mut stored) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
    // The longest due comes first.
    for id in ids {
        let Some(mut job) = jobs.remove(&id) else { continue };
        let Some(element) = elements.remove(&job.element_id) else { continue };
        let Some((state, attempts)) = claimed_state(&job, &element, now, lease_until) else { continue };
        let device = known.remove(&element.id).unwrap_or_default();
        claimed.push(ClaimedJob { id, attempts, lane: job.lane, element, device });
        job.claimed_by = Some(owner.to_owned());
        stored.push((job, state));
    }
    store_all(tx, &stored, now).await?;
    Ok(claimed)
}

/// The state of a job that is claimed, and the attempts with this one. `None`: it cannot be.
fn claimed_state(
    job: &JobRow,
    element: &ElementRow,
    now: Timestamp,
    lease_until: Timestamp,
) -> Option<(JobState, u32)> {
    let mut state = job.state.clone();
    if matches!(state, JobState::Running { .. }) {
        state = state.step(JobEvent::LeaseExpired { now }).ok()?;
    }
    let state = state.step(JobEvent::Claim { now, revision: element.desired_revision, lease_until }).ok()?;
    let JobState::Running { attempts, .. } = state else { return None };
    Some((state, attempts))
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
    Ok(end_all(tx, &[(claimed, ending)], owner, now).await?.pop().flatten())
}

/// As `end`, for many; the states are in the order of `ended`.
pub async fn end_all(
    tx: &mut Tx,
    ended: &[(&ClaimedJob, Ending)],
    owner: &str,
    now: Timestamp,
) -> Result<Vec<Option<JobState>>, StoreError> {
    let mut states = vec![None; ended.len()];
    let mut left: Vec<usize> = (0..ended.len()).collect();
    while !left.is_empty() {
        // A job whose lease ended may have been claimed again meanwhile: one attempt after the other.
        let (mut round, mut elements) = (Vec::with_capacity(left.len()), HashSet::new());
        left.retain(|place| {
            let first = elements.insert(ended[*place].0.element.id);
            round.extend(first.then_some(*place));
            !first
        });
        let group: Vec<&(&ClaimedJob, Ending)> = round.iter().map(|place| &ended[*place]).collect();
        for (place, state) in round.iter().zip(end_each_once(tx, &group, owner, now).await?) {
            states[*place] = state;
        }
    }
    Ok(states)
}

/// What endings leave behind besides their jobs.
#[derive(Default)]
struct Traces<'a> {
    progress: Vec<elements::Reached<'a>>,
    devices: Vec<elements::Stepped<'a>>,
    troubles: Vec<elements::Troubled<'a>>,
    healed: Vec<i64>,
    released: Vec<(&'static str, &'a str)>,
    /// Tenant, kind, subject, detail.
    opened: Vec<(&'a str, &'static str, &'a str, &'a str)>,
}

/// Ends attempts on elements that differ from one another.
async fn end_each_once(
    tx: &mut Tx,
    ended: &[&(&ClaimedJob, Ending)],
    owner: &str,
    now: Timestamp,
) -> Result<Vec<Option<JobState>>, StoreError> {
    let ids: Vec<i64> = ended.iter().map(|(claimed, _)| claimed.element.id).collect();
    let elements = elements::by_ids_locked(tx, &ids).await?;
    let ids: Vec<i64> = ended.iter().map(|(claimed, _)| claimed.id).collect();
    let jobs: HashMap<i64, JobRow> = these_locked(tx, &ids).await?.into_iter().map(|job| (job.id, job)).collect();
    let stepped = ended.iter().filter(|(_, ending)| matches!(ending, Ending::Device { .. }));
    let ids: Vec<i64> = stepped.map(|(claimed, _)| claimed.element.id).collect();
    let devices = devices::these(tx, &ids).await?;
    let subjects: Vec<String> = ended.iter().map(|(claimed, _)| subject(&claimed.element)).collect();
    let (mut states, mut stored, mut traces) = (Vec::with_capacity(ended.len()), Vec::new(), Traces::default());
    for ((claimed, ending), subject) in ended.iter().zip(&subjects) {
        let (element, job) = (elements.get(&claimed.element.id), jobs.get(&claimed.id));
        let fetched_at = devices.get(&claimed.element.id).and_then(DeviceRow::fetched_at);
        let Some((element, job, state)) = element.zip(job).and_then(|(element, job)| {
            let ours =
                job.claimed_by.as_deref() == Some(owner) && job.target_revision == claimed.element.desired_revision;
            let state = job.state.clone().step(event(ending, fetched_at, now)).ok().filter(|_| ours)?;
            Some((element, job, state))
        }) else {
            states.push(None);
            continue;
        };
        leave(&mut traces, claimed, ending, element, subject);
        states.push(Some(state.clone()));
        stored.push((job.clone(), state));
    }
    store_all(tx, &stored, now).await?;
    elements::record_all(tx, &traces.progress, &traces.devices, &traces.troubles, now).await?;
    drift::healed(tx, &traces.healed, now).await?;
    exceptions::release_subjects(tx, &traces.released, RELEASED_BY, now).await?;
    for (tenant, kind, subject, detail) in traces.opened {
        exceptions::open(tx, Some(tenant), kind, subject, detail, now).await?;
    }
    Ok(states)
}

/// What an ending is to its job. A device that fetched while its attempt was under way is looked at again, for the attempt
/// did not know.
fn event(ending: &Ending, fetched_at: Option<Timestamp>, now: Timestamp) -> JobEvent {
    match ending {
        Ending::Device { notes, .. } if fetched_at != notes.seen_fetch_at => {
            JobEvent::Later { at: now, reason: "it fetched a file meanwhile".to_owned() }
        }
        Ending::Succeeded(_) | Ending::Device { again: None, .. } => JobEvent::Succeed,
        Ending::Device { again: Some((at, reason)), .. } => JobEvent::Later { at: *at, reason: reason.clone() },
        Ending::Retry { reason, random } => JobEvent::Retry { now, random: *random, reason: reason.clone() },
        Ending::Failed { reason } => JobEvent::Fail { reason: reason.clone() },
    }
}

/// Collects what an ending leaves behind; `element` is as it stands now.
fn leave<'a>(
    traces: &mut Traces<'a>,
    claimed: &'a ClaimedJob,
    ending: &'a Ending,
    element: &'a ElementRow,
    subject: &'a str,
) {
    let newer = element.desired_revision != claimed.element.desired_revision;
    let shown = |state: ElementState| if newer { ElementState::Pending } else { state };
    let row = &claimed.element;
    match ending {
        Ending::Succeeded(progress) => {
            let state = shown(progress.state);
            traces.progress.push(elements::Reached { row, revision: row.desired_revision, progress, state });
            if claimed.lane == LANE_BULK && progress.applied {
                traces.healed.push(row.id);
            }
            traces.released.push((EXCEPTION_KIND, subject));
        }
        Ending::Device { progress, notes, .. } => {
            traces.devices.push(elements::Stepped { row, progress, state: shown(progress.state), notes });
            match &notes.trouble {
                Some(trouble) if notes.alarm && !newer => {
                    traces.opened.push((&element.tenant, DEVICE_EXCEPTION, subject, trouble));
                }
                _ if progress.applied => {
                    traces.healed.push(row.id);
                    traces.released.extend([(DEVICE_EXCEPTION, subject), (EXCEPTION_KIND, subject)]);
                }
                _ => {}
            }
        }
        Ending::Retry { reason, .. } => {
            traces.troubles.push(elements::Troubled { id: row.id, state: ElementState::Pending, reason });
        }
        Ending::Failed { reason } => {
            traces.troubles.push(elements::Troubled { id: row.id, state: shown(ElementState::Failed), reason });
            if !newer {
                traces.opened.push((&element.tenant, EXCEPTION_KIND, subject, reason));
            }
        }
    }
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
async fn these(tx: &mut Tx, ids: &[i64]) -> Result<Vec<JobRow>, StoreError> {
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

/// Writes a job's next state; `job` gives what the state does not carry.
async fn store(tx: &mut Tx, job: &JobRow, state: JobState, now: Timestamp) -> Result<(), StoreError> {
    store_all(tx, &[(job.clone(), state)], now).await
}

/// As `store`, for many.
async fn store_all(tx: &mut Tx, jobs: &[(JobRow, JobState)], now: Timestamp) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(jobs.len());
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
        rows.push([
            job.id.into(),
            (&job.tenant).into(),
            job.account_id.into(),
            state.word().into(),
            i64::from(attempts).into(),
            revision.into(),
            run_at.into(),
            job.claimed_by.as_ref().filter(|_| running).into(),
            running.then_some(run_at).into(),
            error.into(),
            job.lane.into(),
            finished.then_some(now).into(),
            now.into(),
        ]);
    }
    STORE.execute(tx, rows).await
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
