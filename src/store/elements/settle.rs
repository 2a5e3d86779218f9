//! Settling: the elements that accounts must have against those that stand; what changed gets its next revision and a job.

use std::collections::{BTreeSet, HashMap};

use super::{ElementRow, by_places_locked, json, of_accounts_locked};
use crate::provision::{Content, ElementDesired, ElementKind, ElementState};
use crate::store::many::{Many, Of};
use crate::store::{StoreError, Tx, jobs};
use crate::vocabulary::{Timestamp, to_micros};

/// An element whose desired content a push changed, and the job that brings it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub element_id: i64,
    pub kind: ElementKind,
    pub key: String,
    pub desired_revision: i64,
    pub job_id: i64,
}

static INSERT: Many<7> = Many::new(
    [
        ("kind", Of::Text),
        ("key", Of::Text),
        ("tenant", Of::Text),
        ("account_id", Of::Integer),
        ("services", Of::Text),
        ("desired", Of::Text),
        ("at", Of::Integer),
    ],
    "INSERT INTO element (tenant, account_id, kind, key, services, desired, desired_revision, state, updated_at)
     SELECT tenant, account_id, kind, key, services, desired, 1, 'pending', at FROM new
     RETURNING id, kind, key",
);
static CHANGE: Many<4> = Many::new(
    [("id", Of::Integer), ("services", Of::Text), ("desired", Of::Text), ("at", Of::Integer)],
    "UPDATE element
     SET services = new.services, previous = element.desired, desired = new.desired,
         desired_revision = element.desired_revision + 1, state = 'pending', last_error = NULL, updated_at = new.at
     FROM new WHERE element.id = new.id",
);
static CHANGE_SERVICES: Many<3> = Many::new(
    [("id", Of::Integer), ("services", Of::Text), ("at", Of::Integer)],
    "UPDATE element SET services = new.services, updated_at = new.at FROM new WHERE element.id = new.id",
);
// Apart from what changes with every push: SQLite writes an index anew for each column that a statement sets.
static CHANGE_OWNER: Many<3> = Many::new(
    [("id", Of::Integer), ("tenant", Of::Text), ("account_id", Of::Integer)],
    "UPDATE element SET tenant = new.tenant, account_id = new.account_id FROM new WHERE element.id = new.id",
);

/// Whose elements are settled, and what they must be.
#[derive(Debug, Clone, Copy)]
pub struct Settling<'a> {
    pub tenant: &'a str,
    pub account_id: i64,
    pub desired: &'a [ElementDesired],
    pub lane: i64,
    /// Elements that wait in the bulk lane whatever `lane` says.
    pub bulk: Option<&'a BTreeSet<(ElementKind, String)>>,
}

impl Settling<'_> {
    fn lane_of(&self, element: &ElementRow) -> i64 {
        let bulk = self.bulk.is_some_and(|bulk| bulk.contains(&(element.kind, element.key.clone())));
        if bulk { jobs::LANE_BULK } else { self.lane }
    }
}

/// Makes `desired` the elements of an account: what changed gets the next revision and a job, what the account had and
/// no longer needs becomes `Absent`. Called in the push's own transaction; equal contents cost one read.
pub async fn settle(
    tx: &mut Tx,
    tenant: &str,
    account_id: i64,
    desired: &[ElementDesired],
    lane: i64,
    now: Timestamp,
) -> Result<Vec<Settled>, StoreError> {
    settle_one(tx, Settling { tenant, account_id, desired, lane, bulk: None }, now).await
}

/// As `settle`, for one account of many that a catalog changes: the elements in `bulk` only change because of the catalog
/// and wait in the bulk lane; the others, whose time has come by chance, do not.
pub async fn settle_moved(
    tx: &mut Tx,
    tenant: &str,
    account_id: i64,
    desired: &[ElementDesired],
    bulk: &BTreeSet<(ElementKind, String)>,
    now: Timestamp,
) -> Result<Vec<Settled>, StoreError> {
    let lane = jobs::LANE_SINGLE;
    settle_one(tx, Settling { tenant, account_id, desired, lane, bulk: Some(bulk) }, now).await
}

async fn settle_one(tx: &mut Tx, settling: Settling<'_>, now: Timestamp) -> Result<Vec<Settled>, StoreError> {
    let known = of_accounts_locked(tx, &[settling.account_id]).await?;
    let places = places_beyond(settling.desired, &known);
    let elsewhere = by_places_locked(tx, &places).await?;
    let after = settle_all(tx, &[settling], vec![Standing { known, elsewhere }], now).await?;
    Ok(after.into_iter().flat_map(|after| after.settled).collect())
}

/// What stands of an account's elements before they are settled, all locked.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// The account's own.
    pub known: Vec<ElementRow>,
    /// Those that other accounts had before and this one wants; they are taken over.
    pub elsewhere: Vec<ElementRow>,
}

/// An account's elements after they were settled.
#[derive(Debug, Clone, Default)]
pub struct After {
    /// All of them, by kind and key.
    pub elements: Vec<ElementRow>,
    /// Those that changed.
    pub settled: Vec<Settled>,
}

/// The places that an account wants and that are not among its own elements: nobody's yet, or another account's before.
pub fn places_beyond<'a>(desired: &'a [ElementDesired], known: &[ElementRow]) -> Vec<(ElementKind, &'a str)> {
    let own = |element: &&ElementDesired| known.iter().any(|row| row.kind == element.kind && row.key == element.key);
    desired.iter().filter(|element| !own(element)).map(|element| (element.kind, element.key.as_str())).collect()
}

/// As `settle`, for accounts whose elements the caller has read and locked; what is not in `standing` is made.
///
/// **Errors**: `Conflict` when another transaction made one of them in the meantime.
pub async fn settle_all(
    tx: &mut Tx,
    settling: &[Settling<'_>],
    standing: Vec<Standing>,
    now: Timestamp,
) -> Result<Vec<After>, StoreError> {
    let mut plans: Vec<Plan> =
        settling.iter().zip(standing).map(|(settling, standing)| plan(settling, standing, now)).collect();
    let (mut new, mut changed, mut moved, mut owned) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in plans.iter().flat_map(|plan| &plan.rows) {
        let ElementRow { id, tenant, account_id, services, .. } = &row.element;
        let (tenant, account_id) = (tenant.into(), (*account_id).into());
        let services = json(services)?.into();
        match row.written {
            Written::No => {}
            Written::Services => moved.push([(*id).into(), services, to_micros(now).into()]),
            Written::Content => {
                let desired = json(&row.element.desired)?.into();
                changed.push([(*id).into(), services, desired, to_micros(now).into()]);
            }
            Written::All => {
                let [kind, key] = [row.element.kind.as_str(), &row.element.key].map(Into::into);
                let desired = json(&row.element.desired)?.into();
                new.push([kind, key, tenant, account_id, services, desired, to_micros(now).into()]);
                continue;
            }
        }
        if row.taken_over {
            owned.push([(*id).into(), tenant, account_id]);
        }
    }
    CHANGE_OWNER.execute(tx, owned).await?;
    CHANGE_SERVICES.execute(tx, moved).await?;
    CHANGE.execute(tx, changed).await?;
    let inserted: Vec<(i64, String, String)> = INSERT.fetch(tx, new).await?;
    let ids: HashMap<(&str, &str), i64> =
        inserted.iter().map(|(id, kind, key)| ((kind.as_str(), key.as_str()), *id)).collect();
    let made = plans.iter_mut().flat_map(|plan| &mut plan.rows).filter(|row| row.written == Written::All);
    for Planned { element, .. } in made {
        let id = ids.get(&(element.kind.as_str(), element.key.as_str()));
        element.id = *id.ok_or_else(|| StoreError::Database("a new element got no row".to_owned()))?;
    }
    wake_changed(tx, settling, plans, now).await
}

/// Gives what changed its job, and tells what stands.
async fn wake_changed(
    tx: &mut Tx,
    settling: &[Settling<'_>],
    plans: Vec<Plan>,
    now: Timestamp,
) -> Result<Vec<After>, StoreError> {
    let (mut wanting, mut new) = (Vec::new(), Vec::new());
    for (plan, settling) in plans.iter().zip(settling) {
        for Planned { element, written, .. } in &plan.rows {
            match written {
                Written::No | Written::Services => {}
                // An element made in this transaction has no job to look for.
                Written::All => new.push((element.id, settling.lane)),
                Written::Content => wanting.push(jobs::Wanting {
                    element_id: element.id,
                    tenant: &element.tenant,
                    account_id: element.account_id,
                    lane: settling.lane_of(element),
                }),
            }
        }
    }
    let mut jobs = jobs::wake_all(tx, &wanting, now).await?;
    jobs.extend(jobs::begin(tx, &new, now).await?);
    let mut after = Vec::with_capacity(plans.len());
    for plan in plans {
        let mut settled = Vec::new();
        for Planned { element, .. } in plan.rows.iter().filter(|row| row.written.changes()) {
            let job = jobs.get(&element.id).copied();
            settled.push(Settled {
                element_id: element.id,
                kind: element.kind,
                key: element.key.clone(),
                desired_revision: element.desired_revision,
                job_id: job.ok_or_else(|| StoreError::Database("a changed element got no job".to_owned()))?,
            });
        }
        let mut elements: Vec<ElementRow> = plan.rows.into_iter().map(|row| row.element).collect();
        elements.sort_by(|a, b| (a.kind.as_str(), &a.key).cmp(&(b.kind.as_str(), &b.key)));
        after.push(After { elements, settled });
    }
    Ok(after)
}

struct Plan {
    rows: Vec<Planned>,
}

/// An element as it stands after its account was settled.
struct Planned {
    element: ElementRow,
    written: Written,
    /// It was another account's before.
    taken_over: bool,
}

/// What of an element is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    No,
    /// For which services it is, and whose.
    Services,
    Content,
    All,
}

impl Written {
    fn changes(self) -> bool {
        matches!(self, Written::Content | Written::All)
    }
}

fn plan(settling: &Settling<'_>, standing: Standing, now: Timestamp) -> Plan {
    let is = |row: &ElementRow, element: &ElementDesired| row.kind == element.kind && row.key == element.key;
    let mut rows = Vec::with_capacity(settling.desired.len());
    for element in settling.desired {
        let missing = !standing.known.iter().chain(&standing.elsewhere).any(|row| is(row, element));
        if missing && element.content != Content::Absent {
            rows.push(Planned { element: fresh(settling, element, now), written: Written::All, taken_over: false });
        }
    }
    for mut row in standing.known.into_iter().chain(standing.elsewhere) {
        let wanted = settling.desired.iter().find(|element| is(&row, element));
        let (services, content) = match wanted {
            Some(element) => (&element.services, &element.content),
            None => (&row.services.clone(), &Content::Absent),
        };
        let mine = row.account_id == settling.account_id && row.services == *services;
        let written = match (row.desired == *content, mine || wanted.is_none()) {
            (false, _) => Written::Content,
            (true, false) => Written::Services,
            (true, true) => Written::No,
        };
        let stands = (row.tenant.as_str(), row.account_id);
        let taken_over = written != Written::No && stands != (settling.tenant, settling.account_id);
        if written != Written::No {
            settling.tenant.clone_into(&mut row.tenant);
            row.account_id = settling.account_id;
            row.services.clone_from(services);
            row.updated_at = now;
        }
        if written == Written::Content {
            row.previous = Some(std::mem::replace(&mut row.desired, content.clone()));
            row.desired_revision += 1;
            row.state = ElementState::Pending;
            row.last_error = None;
        }
        rows.push(Planned { element: row, written, taken_over });
    }
    Plan { rows }
}

/// An element that nobody had, as its row will be; the row's number is not known yet.
fn fresh(settling: &Settling<'_>, element: &ElementDesired, now: Timestamp) -> ElementRow {
    ElementRow {
        id: 0,
        tenant: settling.tenant.to_owned(),
        account_id: settling.account_id,
        kind: element.kind,
        key: element.key.clone(),
        services: element.services.clone(),
        desired: element.content.clone(),
        previous: None,
        applied: None,
        desired_revision: 1,
        offered_revision: None,
        fetched_revision: None,
        confirmed_revision: None,
        applied_revision: None,
        state: ElementState::Pending,
        evidence: None,
        last_error: None,
        last_seen_at: None,
        last_seen_from: None,
        updated_at: now,
    }
}
