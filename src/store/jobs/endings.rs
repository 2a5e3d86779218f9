//! Endings of attempts: what became of each is written on its job, its element and its exceptions together, for as many at
//! once as ended.

use std::collections::{HashMap, HashSet};

use super::{ClaimedJob, JobRow, LANE_BULK, store_all, subject, these_locked};
use crate::provision::{ElementState, JobEvent, JobState};
use crate::store::devices::{self, DeviceNotes, DeviceRow};
use crate::store::elements::{self, ElementRow, Progress};
use crate::store::{StoreError, Tx, drift, exceptions};
use crate::vocabulary::Timestamp;

/// Kind of the exception that a failed job opens.
pub const EXCEPTION_KIND: &str = "provisioning";
/// Kind of the exception of a device that runs otherwise than desired.
pub const DEVICE_EXCEPTION: &str = "device";
/// Who releases that exception when the element is fine again.
const RELEASED_BY: &str = "provisioner";

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
