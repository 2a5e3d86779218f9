//! How far elements are: what services saw applied, offered or fetched, and why an attempt did not work out.

use std::collections::{HashMap, HashSet};

use serde_json::json;

use super::{ElementRow, by_id_locked, json};
use crate::provision::{Content, ElementState};
use crate::store::devices::{self, DeviceNotes, Fetched};
use crate::store::events::{EventType, Told};
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
/// The living elements of the accounts that these elements belong to, and whether each is as it is desired.
static BESIDE: Many<1> = Many::new(
    [("id", Of::Integer)],
    "SELECT element.id, element.account_id, account.tenant, account.source, account.external_id, element.kind, element.key,
            element.services,
            CAST(CASE WHEN element.state = 'applied' AND element.applied_revision = element.desired_revision THEN 1 ELSE 0 END
                 AS BIGINT) AS applied
     FROM element JOIN account ON account.id = element.account_id
     WHERE element.account_id IN (SELECT own.account_id FROM element AS own JOIN new ON own.id = new.id)
       AND element.desired NOT LIKE '{\"kind\":\"absent\"%'
     ORDER BY element.id",
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
    TROUBLED.execute(tx, rows).await?;
    tell(tx, reached, stepped, troubled, now).await
}

/// Tells which services have all they need from now on, and which lack something that could not be brought about.
async fn tell(
    tx: &mut Tx,
    reached: &[Reached<'_>],
    stepped: &[Stepped<'_>],
    troubled: &[Troubled<'_>],
    now: Timestamp,
) -> Result<(), StoreError> {
    let newly = |row: &ElementRow, revision: i64, applied: bool, state: ElementState| {
        applied
            && state == ElementState::Applied
            && row.applied_revision != Some(revision)
            && row.desired != Content::Absent
    };
    let of_reached = reached.iter().filter(|of| newly(of.row, of.revision, of.progress.applied, of.state));
    let of_stepped = stepped.iter().filter(|of| newly(of.row, of.row.desired_revision, of.progress.applied, of.state));
    let applied: HashSet<i64> = of_reached.map(|of| of.row.id).chain(of_stepped.map(|of| of.row.id)).collect();
    let failed: HashMap<i64, &str> =
        troubled.iter().filter(|of| of.state == ElementState::Failed).map(|of| (of.id, of.reason)).collect();
    if applied.is_empty() && failed.is_empty() {
        return Ok(());
    }
    let ids = applied.iter().chain(failed.keys()).map(|id| [(*id).into()]);
    let beside: Vec<Beside> = BESIDE.fetch(tx, ids.collect()).await?;
    for (index, element) in beside.iter().enumerate() {
        let services = element.services()?;
        for service in services {
            let of = (element.tenant.as_str(), element.source.as_str(), element.external_id.as_str());
            if let Some(reason) = failed.get(&element.id) {
                let element = json!({ "kind": element.kind, "key": element.key });
                let detail = json!({ "element": element, "reason": reason });
                tx.tell(told(EventType::ServiceFailed, of, &service, detail, now));
            }
            if applied.contains(&element.id) {
                let same = |other: &&Beside| other.account_id == element.account_id;
                let others: Vec<&Beside> = beside.iter().filter(same).collect();
                let mut all = true;
                for other in &others {
                    all &= other.applied == 1 || !other.services()?.contains(&service);
                }
                // Of several that were applied together the first tells.
                let first = beside[..index].iter().filter(same).filter(|other| applied.contains(&other.id));
                let mut told_before = false;
                for other in first {
                    told_before |= other.services()?.contains(&service);
                }
                if all && !told_before {
                    tx.tell(told(EventType::ServiceProvisioned, of, &service, json!({}), now));
                }
            }
        }
    }
    Ok(())
}

fn told(
    kind: EventType,
    (tenant, source, account): (&str, &str, &str),
    service: &str,
    detail: serde_json::Value,
    at: Timestamp,
) -> Told {
    let mut payload = json!({ "account": account, "source": source, "service": service });
    if let (Some(payload), Some(detail)) = (payload.as_object_mut(), detail.as_object()) {
        payload.extend(detail.clone());
    }
    Told { tenant: tenant.to_owned(), kind, subject: format!("{source}/{account}/{service}"), payload, at }
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

#[derive(sqlx::FromRow)]
struct Beside {
    id: i64,
    account_id: i64,
    tenant: String,
    source: String,
    external_id: String,
    kind: String,
    key: String,
    services: String,
    applied: i64,
}

impl Beside {
    fn services(&self) -> Result<Vec<String>, StoreError> {
        serde_json::from_str(&self.services).map_err(|_| StoreError::Corrupt {
            table: "element",
            column: "services",
            id: self.id.to_string(),
        })
    }
}
