//! Claims of due jobs: a lease is committed before anything outside is touched, and when its holder dies the job is due
//! again at the lease's end.

use std::collections::HashMap;
use std::time::Duration;

use super::{JobRow, LANE_BULK, LANE_SINGLE, one, out_of_order, store, store_all, these};
use crate::provision::{ElementKind, JobEvent, JobState};
use crate::store::devices::{self, DeviceRow};
use crate::store::elements::{self, ElementRow};
use crate::store::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

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
const OF_DEAD: &str = "SELECT id FROM job WHERE finished_at IS NULL AND state = 'running' AND claimed_by <> $1
     ORDER BY id LIMIT 10000";

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
