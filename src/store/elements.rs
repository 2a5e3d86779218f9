//! Elements: what must be provisioned and how far it is. A push settles the elements of an account and wakes their jobs
//! in one transaction; services record here what they saw applied, offered or fetched. Contents hold no secrets.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;

use super::devices::{self, DeviceNotes, Fetched};
use super::many::{Many, Of, Value};
use super::{StoreError, Tx, jobs, on};
use crate::provision::{Content, ElementDesired, ElementKind, ElementState};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// One element as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ElementRow {
    pub id: i64,
    pub tenant: String,
    pub account_id: i64,
    pub kind: ElementKind,
    pub key: String,
    /// External ids of the services it serves.
    pub services: Vec<String>,
    pub desired: Content,
    /// The desired content before the newest one.
    pub previous: Option<Content>,
    /// The content last brought there.
    pub applied: Option<Content>,
    pub desired_revision: i64,
    pub offered_revision: Option<i64>,
    pub fetched_revision: Option<i64>,
    pub confirmed_revision: Option<i64>,
    pub applied_revision: Option<i64>,
    pub state: ElementState,
    /// How we know that the applied revision is in force, one sentence.
    pub evidence: Option<String>,
    pub last_error: Option<String>,
    pub last_seen_at: Option<Timestamp>,
    pub last_seen_from: Option<String>,
    pub updated_at: Timestamp,
}

/// An element whose desired content a push changed, and the job that brings it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub element_id: i64,
    pub kind: ElementKind,
    pub key: String,
    pub desired_revision: i64,
    pub job_id: i64,
}

/// How a success shows on its element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub state: ElementState,
    pub evidence: String,
    /// Whether the revision is in force; otherwise it is only on offer (a modem has to fetch its file).
    pub applied: bool,
}

macro_rules! these_elements {
    ($rest:literal) => {
        concat!(
            "SELECT element.id, element.tenant, element.account_id, element.kind, element.key, element.services,
                    element.desired, element.previous, element.applied, element.desired_revision,
                    element.offered_revision, element.fetched_revision, element.confirmed_revision,
                    element.applied_revision, element.state, element.evidence, element.last_error,
                    element.last_seen_at, element.last_seen_from, element.updated_at
             FROM new CROSS JOIN element ",
            $rest
        )
    };
}
macro_rules! select_element {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, account_id, kind, key, services, desired, previous, applied, desired_revision,
                    offered_revision, fetched_revision, confirmed_revision, applied_revision, state, evidence,
                    last_error, last_seen_at, last_seen_from, updated_at FROM element ",
            $rest
        )
    };
}

const OF_ACCOUNT: &str = select_element!("WHERE account_id = $1 ORDER BY kind, key LIMIT 10000");
const BY_KEY: &str = select_element!("WHERE kind = $1 AND key = $2");
const BY_ID: &str = select_element!("WHERE id = $1");
const BY_ID_LOCKED: &str = select_element!("WHERE id = $1 FOR UPDATE");
const OF_KIND: &str = select_element!("WHERE kind = $1 AND id > $2 ORDER BY id LIMIT $3");
const CHANGED_SINCE: &str =
    select_element!("WHERE kind = $1 AND (updated_at, id) > ($2, $3) ORDER BY updated_at, id LIMIT $4");
static BY_IDS: Many<1> =
    Many::new([("element", Of::Integer)], these_elements!("WHERE element.id = new.element ORDER BY element.id"));
static BY_IDS_LOCKED: Many<1> = Many::new(
    [("element", Of::Integer)],
    these_elements!("WHERE element.id = new.element ORDER BY element.id FOR UPDATE OF element"),
);
static OF_ACCOUNTS: Many<1> = Many::new(
    [("account", Of::Integer)],
    these_elements!("WHERE element.account_id = new.account ORDER BY element.id"),
);
static OF_ACCOUNTS_LOCKED: Many<1> = Many::new(
    [("account", Of::Integer)],
    these_elements!("WHERE element.account_id = new.account ORDER BY element.id FOR UPDATE OF element"),
);
const PLACE: [(&str, Of); 2] = [("kind", Of::Text), ("key", Of::Text)];
static BY_PLACES: Many<2> =
    Many::new(PLACE, these_elements!("WHERE element.kind = new.kind AND element.key = new.key ORDER BY element.id"));
static BY_PLACES_LOCKED: Many<2> = Many::new(
    PLACE,
    these_elements!(
        "WHERE element.kind = new.kind AND element.key = new.key ORDER BY element.id FOR UPDATE OF element"
    ),
);
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
static CHANGE: Many<6> = Many::new(
    [
        ("id", Of::Integer),
        ("tenant", Of::Text),
        ("account_id", Of::Integer),
        ("services", Of::Text),
        ("desired", Of::Text),
        ("at", Of::Integer),
    ],
    "UPDATE element
     SET tenant = new.tenant, account_id = new.account_id, services = new.services, previous = element.desired,
         desired = new.desired, desired_revision = element.desired_revision + 1, state = 'pending', last_error = NULL,
         updated_at = new.at
     FROM new WHERE element.id = new.id",
);
static CHANGE_SERVICES: Many<5> = Many::new(
    [
        ("id", Of::Integer),
        ("tenant", Of::Text),
        ("account_id", Of::Integer),
        ("services", Of::Text),
        ("at", Of::Integer),
    ],
    "UPDATE element
     SET tenant = new.tenant, account_id = new.account_id, services = new.services, updated_at = new.at
     FROM new WHERE element.id = new.id",
);
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
    let (mut new, mut changed, mut moved) = (Vec::new(), Vec::new(), Vec::new());
    for row in plans.iter().flat_map(|plan| &plan.rows) {
        let ElementRow { id, tenant, account_id, services, .. } = &row.element;
        let (id, tenant, account_id) = ((*id).into(), tenant.into(), (*account_id).into());
        let services = json(services)?.into();
        match row.written {
            Written::No => {}
            Written::Services => moved.push([id, tenant, account_id, services, to_micros(now).into()]),
            Written::Content => {
                let desired = json(&row.element.desired)?.into();
                changed.push([id, tenant, account_id, services, desired, to_micros(now).into()]);
            }
            Written::All => {
                let [kind, key] = [row.element.kind.as_str(), &row.element.key].map(Into::into);
                let desired = json(&row.element.desired)?.into();
                new.push([kind, key, tenant, account_id, services, desired, to_micros(now).into()]);
            }
        }
    }
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
        for Planned { element, written } in &plan.rows {
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
}

/// What of an element is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    No,
    /// Whose it is and for which services.
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
            rows.push(Planned { element: fresh(settling, element, now), written: Written::All });
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
        rows.push(Planned { element: row, written });
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

/// The elements of an account, removed ones included.
pub async fn of_account(tx: &mut Tx, account_id: i64) -> Result<Vec<ElementRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(OF_ACCOUNT).bind(account_id).fetch_all(c).await)?;
    rows.into_iter().map(ElementRow::try_from).collect()
}

/// One element by what it is.
pub async fn by_key(tx: &mut Tx, kind: ElementKind, key: &str) -> Result<Option<ElementRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(BY_KEY).bind(kind.as_str()).bind(key).fetch_optional(c).await)?;
    row.map(ElementRow::try_from).transpose()
}

/// One element by its row.
pub async fn by_id(tx: &mut Tx, id: i64) -> Result<Option<ElementRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(BY_ID).bind(id).fetch_optional(c).await)?;
    row.map(ElementRow::try_from).transpose()
}

/// Elements by their ids.
pub(super) async fn by_ids(tx: &mut Tx, ids: &[i64]) -> Result<HashMap<i64, ElementRow>, StoreError> {
    let rows = fetch(tx, &BY_IDS, ids.iter().map(|id| [(*id).into()]).collect()).await?;
    Ok(rows.into_iter().map(|element| (element.id, element)).collect())
}

/// As `by_ids`; on PostgreSQL nobody else changes them until the transaction ends.
pub(super) async fn by_ids_locked(tx: &mut Tx, ids: &[i64]) -> Result<HashMap<i64, ElementRow>, StoreError> {
    let statement = locked(tx, &BY_IDS, &BY_IDS_LOCKED);
    let rows = fetch(tx, statement, ids.iter().map(|id| [(*id).into()]).collect()).await?;
    Ok(rows.into_iter().map(|element| (element.id, element)).collect())
}

/// The elements of accounts, removed ones included.
pub async fn of_accounts(tx: &mut Tx, accounts: &[i64]) -> Result<Vec<ElementRow>, StoreError> {
    fetch(tx, &OF_ACCOUNTS, accounts.iter().map(|id| [(*id).into()]).collect()).await
}

/// As `of_accounts`; on PostgreSQL nobody else changes them until the transaction ends.
pub async fn of_accounts_locked(tx: &mut Tx, accounts: &[i64]) -> Result<Vec<ElementRow>, StoreError> {
    let statement = locked(tx, &OF_ACCOUNTS, &OF_ACCOUNTS_LOCKED);
    fetch(tx, statement, accounts.iter().map(|id| [(*id).into()]).collect()).await
}

/// Elements by what they are; on PostgreSQL nobody else changes them until the transaction ends.
pub async fn by_places_locked(tx: &mut Tx, places: &[(ElementKind, &str)]) -> Result<Vec<ElementRow>, StoreError> {
    let statement = locked(tx, &BY_PLACES, &BY_PLACES_LOCKED);
    fetch(tx, statement, places.iter().map(|(kind, key)| [kind.as_str().into(), (*key).into()]).collect()).await
}

fn locked<const N: usize>(tx: &Tx, sqlite: &'static Many<N>, postgres: &'static Many<N>) -> &'static Many<N> {
    match tx {
        Tx::Sqlite(_) => sqlite,
        Tx::Postgres(_) => postgres,
    }
}

async fn fetch<const N: usize>(
    tx: &mut Tx,
    statement: &Many<N>,
    rows: Vec<[Value<'_>; N]>,
) -> Result<Vec<ElementRow>, StoreError> {
    let rows: Vec<Row> = statement.fetch(tx, rows).await?;
    rows.into_iter().map(ElementRow::try_from).collect()
}

/// Elements of one kind in the order of their rows, after row `after`.
pub async fn of_kind(tx: &mut Tx, kind: ElementKind, after: i64, limit: i64) -> Result<Vec<ElementRow>, StoreError> {
    let rows: Vec<Row> =
        on!(tx, c => sqlx::query_as(OF_KIND).bind(kind.as_str()).bind(after).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(ElementRow::try_from).collect()
}

/// Elements of one kind changed after (`since`, row `after`), in the order of change.
pub async fn changed_since(
    tx: &mut Tx,
    kind: ElementKind,
    since: Timestamp,
    after: i64,
    limit: i64,
) -> Result<Vec<ElementRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(CHANGED_SINCE)
        .bind(kind.as_str())
        .bind(to_micros(since))
        .bind(after)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(ElementRow::try_from).collect()
}

/// Asks for an account's elements again although nothing changed; `service` narrows it to the elements of one service.
/// Returns the jobs.
pub async fn reprovision(
    tx: &mut Tx,
    account_id: i64,
    service: Option<&str>,
    now: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let mut woken = Vec::new();
    for row in of_account(tx, account_id).await? {
        if row.state == ElementState::Gone || service.is_some_and(|id| !row.services.iter().any(|s| s == id)) {
            continue;
        }
        woken.push(jobs::wake(tx, row.id, jobs::LANE_SINGLE, now).await?);
    }
    Ok(woken)
}

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
pub(super) struct Reached<'a> {
    pub row: &'a ElementRow,
    pub revision: i64,
    pub progress: &'a Progress,
    /// What is shown: not what was reached where something newer is desired by now.
    pub state: ElementState,
}

/// How far a device is after a step of its job; `row` is the element as it was when claimed.
pub(super) struct Stepped<'a> {
    pub row: &'a ElementRow,
    pub progress: &'a Progress,
    pub state: ElementState,
    pub notes: &'a DeviceNotes,
}

/// Why an attempt did not work out.
pub(super) struct Troubled<'a> {
    pub id: i64,
    pub state: ElementState,
    pub reason: &'a str,
}

/// Writes what became of attempts, each on an element of its own.
pub(super) async fn record_all(
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
pub(super) async fn record_trouble(
    tx: &mut Tx,
    id: i64,
    state: ElementState,
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    record_all(tx, &[], &[], &[Troubled { id, state, reason }], now).await
}

/// Reads and, on PostgreSQL, locks an element. Whoever locks both locks the element before its job.
pub(super) async fn by_id_locked(tx: &mut Tx, id: i64) -> Result<Option<ElementRow>, StoreError> {
    let row: Option<Row> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(BY_ID).bind(id).fetch_optional(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => sqlx::query_as(BY_ID_LOCKED).bind(id).fetch_optional(&mut **transaction).await?,
    };
    row.map(ElementRow::try_from).transpose()
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(format!("a document cannot be written: {error}")))
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    tenant: String,
    account_id: i64,
    kind: String,
    key: String,
    services: String,
    desired: String,
    previous: Option<String>,
    applied: Option<String>,
    desired_revision: i64,
    offered_revision: Option<i64>,
    fetched_revision: Option<i64>,
    confirmed_revision: Option<i64>,
    applied_revision: Option<i64>,
    state: String,
    evidence: Option<String>,
    last_error: Option<String>,
    last_seen_at: Option<i64>,
    last_seen_from: Option<String>,
    updated_at: i64,
}

impl TryFrom<Row> for ElementRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let id = row.id;
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "element", column, id: id.to_string() };
        // What was applied once may have a shape of an older version: then it is only not known to be equal.
        let past = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
        Ok(Self {
            id,
            tenant: row.tenant,
            account_id: row.account_id,
            kind: ElementKind::from_str(&row.kind).map_err(|_| corrupt("kind"))?,
            key: row.key,
            services: serde_json::from_str(&row.services).map_err(|_| corrupt("services"))?,
            desired: serde_json::from_str(&row.desired).map_err(|_| corrupt("desired"))?,
            previous: past(row.previous),
            applied: past(row.applied),
            desired_revision: row.desired_revision,
            offered_revision: row.offered_revision,
            fetched_revision: row.fetched_revision,
            confirmed_revision: row.confirmed_revision,
            applied_revision: row.applied_revision,
            state: ElementState::from_str(&row.state).map_err(|_| corrupt("state"))?,
            evidence: row.evidence,
            last_error: row.last_error,
            last_seen_at: row
                .last_seen_at
                .map(|at| from_micros(at).ok_or_else(|| corrupt("last_seen_at")))
                .transpose()?,
            last_seen_from: row.last_seen_from,
            updated_at: from_micros(row.updated_at).ok_or_else(|| corrupt("updated_at"))?,
        })
    }
}
