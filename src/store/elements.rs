//! Elements: what must be provisioned and how far it is. A push settles the elements of an account and wakes their jobs
//! in one transaction; services record here what they saw applied, offered or fetched. Contents hold no secrets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;

use super::devices::{self, DeviceNotes, Fetched};
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
const BY_IDS_SQLITE: &str = select_element!("WHERE id IN (SELECT value FROM json_each($1))");
const BY_IDS_POSTGRES: &str = select_element!("WHERE id = ANY($1)");
const BY_ID_LOCKED: &str = select_element!("WHERE id = $1 FOR UPDATE");
const BY_KEY_LOCKED: &str = select_element!("WHERE kind = $1 AND key = $2 FOR UPDATE");
const OF_ACCOUNT_LOCKED: &str = select_element!("WHERE account_id = $1 ORDER BY kind, key LIMIT 10000 FOR UPDATE");
const OF_KIND: &str = select_element!("WHERE kind = $1 AND id > $2 ORDER BY id LIMIT $3");
const CHANGED_SINCE: &str =
    select_element!("WHERE kind = $1 AND (updated_at, id) > ($2, $3) ORDER BY updated_at, id LIMIT $4");
const INSERT_SQLITE: &str = "INSERT INTO element
         (tenant, account_id, kind, key, services, desired, desired_revision, state, updated_at)
     SELECT ?, ?, json_extract(new.value, '$[0]'), json_extract(new.value, '$[1]'), json_extract(new.value, '$[2]'),
            json_extract(new.value, '$[3]'), 1, 'pending', ?
     FROM json_each(?) AS new WHERE TRUE
     ON CONFLICT (kind, key) DO NOTHING
     RETURNING id, kind, key";
const INSERT_POSTGRES: &str = "INSERT INTO element
         (tenant, account_id, kind, key, services, desired, desired_revision, state, updated_at)
     SELECT $1, $2, new.kind, new.key, new.services, new.desired, 1, 'pending', $3
     FROM UNNEST($4::TEXT[], $5::TEXT[], $6::TEXT[], $7::TEXT[]) AS new (kind, key, services, desired)
     ON CONFLICT (kind, key) DO NOTHING
     RETURNING id, kind, key";
const CHANGE: &str = "UPDATE element
     SET tenant = $2, account_id = $3, services = $4, previous = desired, desired = $5,
         desired_revision = desired_revision + 1, state = 'pending', last_error = NULL, updated_at = $6
     WHERE id = $1";
const CHANGE_SERVICES: &str =
    "UPDATE element SET tenant = $2, account_id = $3, services = $4, updated_at = $5 WHERE id = $1";
const SUCCEEDED: &str = "UPDATE element
     SET applied_revision = $2, applied = $3, state = $4, evidence = $5, last_error = NULL, updated_at = $6
     WHERE id = $1";
// A modem may fetch its file before the job that offers it has ended: what it proved stays.
const OFFERED: &str = "UPDATE element
     SET offered_revision = $2, state = CASE WHEN applied_revision = $2 THEN state ELSE $3 END,
         evidence = CASE WHEN applied_revision = $2 THEN evidence ELSE $4 END, last_error = NULL, updated_at = $5
     WHERE id = $1";
// What a device proved stays proved: only its newest revision's progress is written here, and a fetch that came
// meanwhile has its own row.
const DEVICE: &str = "UPDATE element
     SET offered_revision = $2, state = $3, evidence = $4, last_error = $5,
         confirmed_revision = COALESCE($6, confirmed_revision), updated_at = $7
     WHERE id = $1";
const TROUBLED: &str = "UPDATE element SET state = $2, last_error = $3, updated_at = $4 WHERE id = $1";
const TOLD: &str = "UPDATE element SET offered_revision = $2
     WHERE id = $1 AND (offered_revision IS NULL OR offered_revision <> $2)";
const FETCHED: &str = "UPDATE element
     SET fetched_revision = $2, last_seen_at = $3, last_seen_from = $4, updated_at = $3
     WHERE id = $1";

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
    settle_in(tx, Whose { tenant, account_id, lane, bulk: None, now }, desired).await
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
    settle_in(tx, Whose { tenant, account_id, lane: jobs::LANE_SINGLE, bulk: Some(bulk), now }, desired).await
}

async fn settle_in(tx: &mut Tx, whose: Whose<'_>, desired: &[ElementDesired]) -> Result<Vec<Settled>, StoreError> {
    let known = of_account_locked(tx, whose.account_id).await?;
    let is = |row: &ElementRow, element: &ElementDesired| row.kind == element.kind && row.key == element.key;
    let missing: Vec<&ElementDesired> =
        desired.iter().filter(|element| !known.iter().any(|row| is(row, element))).collect();
    let mut settled = insert(tx, whose, &missing).await?;
    for row in known {
        match desired.iter().find(|element| is(&row, element)) {
            Some(element) => settled.extend(change(tx, whose, row, &element.services, &element.content).await?),
            None if row.desired == Content::Absent => {}
            None => {
                let services = row.services.clone();
                settled.extend(change(tx, whose, row, &services, &Content::Absent).await?);
            }
        }
    }
    Ok(settled)
}

/// As `settle`, for an account made in this transaction: it has no elements yet, so none are read.
pub async fn settle_first(
    tx: &mut Tx,
    tenant: &str,
    account_id: i64,
    desired: &[ElementDesired],
    lane: i64,
    now: Timestamp,
) -> Result<Vec<Settled>, StoreError> {
    insert(tx, Whose { tenant, account_id, lane, bulk: None, now }, &desired.iter().collect::<Vec<_>>()).await
}

/// Whose elements are settled, with which urgency, when.
#[derive(Debug, Clone, Copy)]
struct Whose<'a> {
    tenant: &'a str,
    account_id: i64,
    lane: i64,
    /// Elements that wait in the bulk lane whatever `lane` says.
    bulk: Option<&'a BTreeSet<(ElementKind, String)>>,
    now: Timestamp,
}

impl Whose<'_> {
    fn lane_of(&self, kind: ElementKind, key: &str) -> i64 {
        let bulk = self.bulk.is_some_and(|bulk| bulk.contains(&(kind, key.to_owned())));
        if bulk { jobs::LANE_BULK } else { self.lane }
    }
}

/// Stores elements that the account does not have; those that another account had before are taken over.
async fn insert(tx: &mut Tx, whose: Whose<'_>, missing: &[&ElementDesired]) -> Result<Vec<Settled>, StoreError> {
    let new: Vec<&ElementDesired> =
        missing.iter().copied().filter(|element| element.content != Content::Absent).collect();
    let mut inserted = insert_rows(tx, whose, &new).await?;
    let ids: Vec<i64> = inserted.values().copied().collect();
    let jobs = jobs::begin(tx, &ids, whose.lane, whose.now).await?;
    let mut settled = Vec::with_capacity(missing.len());
    for element in missing {
        let place = (element.kind.as_str().to_owned(), element.key.clone());
        if let Some(element_id) = inserted.remove(&place) {
            let job = jobs.iter().find(|(of, _)| *of == element_id);
            let (_, job_id) = job.ok_or_else(|| StoreError::Database("a new element got no job".to_owned()))?;
            let (kind, key) = (element.kind, element.key.clone());
            settled.push(Settled { element_id, kind, key, desired_revision: 1, job_id: *job_id });
            continue;
        }
        match by_key_locked(tx, element.kind, &element.key).await? {
            Some(row) => settled.extend(change(tx, whose, row, &element.services, &element.content).await?),
            None if element.content == Content::Absent => {}
            // Two pushes made the same element at once; the loser is repeated by its caller.
            None => return Err(StoreError::Unavailable("another push changes this element".to_owned())),
        }
    }
    Ok(settled)
}

/// The rows of the elements that nobody had, by kind and key.
async fn insert_rows(
    tx: &mut Tx,
    whose: Whose<'_>,
    new: &[&ElementDesired],
) -> Result<BTreeMap<(String, String), i64>, StoreError> {
    if new.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut rows = Vec::with_capacity(new.len());
    for element in new {
        rows.push((element.kind.as_str(), element.key.as_str(), json(&element.services)?, json(&element.content)?));
    }
    let now = to_micros(whose.now);
    let inserted: Vec<(i64, String, String)> = match tx {
        Tx::Sqlite(held) => {
            let query = sqlx::query_as(INSERT_SQLITE).bind(whose.tenant).bind(whose.account_id).bind(now);
            query.bind(json(&rows)?).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            let query = sqlx::query_as(INSERT_POSTGRES).bind(whose.tenant).bind(whose.account_id).bind(now);
            let query = query.bind(rows.iter().map(|row| row.0).collect::<Vec<&str>>());
            let query = query.bind(rows.iter().map(|row| row.1).collect::<Vec<&str>>());
            let query = query.bind(rows.iter().map(|row| row.2.as_str()).collect::<Vec<&str>>());
            let query = query.bind(rows.iter().map(|row| row.3.as_str()).collect::<Vec<&str>>());
            query.fetch_all(&mut **transaction).await?
        }
    };
    Ok(inserted.into_iter().map(|(id, kind, key)| ((kind, key), id)).collect())
}

/// Brings a stored element, locked by the caller, to what is desired of it now.
async fn change(
    tx: &mut Tx,
    whose: Whose<'_>,
    row: ElementRow,
    services: &[String],
    content: &Content,
) -> Result<Option<Settled>, StoreError> {
    let now = to_micros(whose.now);
    if row.desired == *content {
        if row.services != services || row.account_id != whose.account_id {
            on!(tx, c => sqlx::query(CHANGE_SERVICES)
                .bind(row.id)
                .bind(whose.tenant)
                .bind(whose.account_id)
                .bind(json(&services)?)
                .bind(now)
                .execute(c)
                .await.map(drop))?;
        }
        return Ok(None);
    }
    on!(tx, c => sqlx::query(CHANGE)
        .bind(row.id)
        .bind(whose.tenant)
        .bind(whose.account_id)
        .bind(json(&services)?)
        .bind(json(content)?)
        .bind(now)
        .execute(c)
        .await.map(drop))?;
    let job_id = jobs::wake(tx, row.id, whose.lane_of(row.kind, &row.key), whose.now).await?;
    let desired_revision = row.desired_revision + 1;
    Ok(Some(Settled { element_id: row.id, kind: row.kind, key: row.key, desired_revision, job_id }))
}

/// The elements of an account, removed ones included.
pub async fn of_account(tx: &mut Tx, account_id: i64) -> Result<Vec<ElementRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(OF_ACCOUNT).bind(account_id).fetch_all(c).await)?;
    rows.into_iter().map(ElementRow::try_from).collect()
}

/// The row of an element that `settle_first` made in this transaction, as reading would give it.
pub fn made(tenant: &str, account_id: i64, element: &ElementDesired, settled: &Settled, now: Timestamp) -> ElementRow {
    ElementRow {
        id: settled.element_id,
        tenant: tenant.to_owned(),
        account_id,
        kind: element.kind,
        key: element.key.clone(),
        services: element.services.clone(),
        desired: element.content.clone(),
        previous: None,
        applied: None,
        desired_revision: settled.desired_revision,
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
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<Row> = match tx {
        Tx::Sqlite(held) => {
            let query = sqlx::query_as(BY_IDS_SQLITE).bind(serde_json::json!(ids).to_string());
            query.fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => sqlx::query_as(BY_IDS_POSTGRES).bind(ids).fetch_all(&mut **transaction).await?,
    };
    rows.into_iter().map(|row| ElementRow::try_from(row).map(|element| (element.id, element))).collect()
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
            record_progress(tx, &row, fetched.revision, &progress, now).await?;
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

/// Writes what a successful attempt for `revision` reached; `row` is the element as it was when claimed.
pub(super) async fn record_progress(
    tx: &mut Tx,
    row: &ElementRow,
    revision: i64,
    progress: &Progress,
    now: Timestamp,
) -> Result<(), StoreError> {
    if progress.applied {
        let content = json(&row.desired)?;
        on!(tx, c => sqlx::query(SUCCEEDED)
            .bind(row.id)
            .bind(revision)
            .bind(content)
            .bind(progress.state.as_str())
            .bind(&progress.evidence)
            .bind(to_micros(now))
            .execute(c)
            .await.map(drop))?;
    } else {
        on!(tx, c => sqlx::query(OFFERED)
            .bind(row.id)
            .bind(revision)
            .bind(progress.state.as_str())
            .bind(&progress.evidence)
            .bind(to_micros(now))
            .execute(c)
            .await.map(drop))?;
    }
    Ok(())
}

/// Writes how far a device is after a step of its job; `row` is the element as it was when claimed.
pub(super) async fn record_device(
    tx: &mut Tx,
    row: &ElementRow,
    progress: &Progress,
    notes: &DeviceNotes,
    now: Timestamp,
) -> Result<(), StoreError> {
    if progress.applied {
        record_progress(tx, row, row.desired_revision, progress, now).await?;
    }
    on!(tx, c => sqlx::query(DEVICE)
        .bind(row.id)
        .bind(row.desired_revision)
        .bind(progress.state.as_str())
        .bind(&progress.evidence)
        .bind(&notes.trouble)
        .bind(notes.confirmed_revision)
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Writes why an attempt did not work out.
pub(super) async fn record_trouble(
    tx: &mut Tx,
    id: i64,
    state: ElementState,
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(TROUBLED)
        .bind(id)
        .bind(state.as_str())
        .bind(reason)
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Reads and, on PostgreSQL, locks an element. Whoever locks both locks the element before its job.
pub(super) async fn by_id_locked(tx: &mut Tx, id: i64) -> Result<Option<ElementRow>, StoreError> {
    let row: Option<Row> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(BY_ID).bind(id).fetch_optional(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => sqlx::query_as(BY_ID_LOCKED).bind(id).fetch_optional(&mut **transaction).await?,
    };
    row.map(ElementRow::try_from).transpose()
}

async fn of_account_locked(tx: &mut Tx, account_id: i64) -> Result<Vec<ElementRow>, StoreError> {
    let statement = match tx {
        Tx::Sqlite(_) => OF_ACCOUNT,
        Tx::Postgres(_) => OF_ACCOUNT_LOCKED,
    };
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(statement).bind(account_id).fetch_all(c).await)?;
    rows.into_iter().map(ElementRow::try_from).collect()
}

async fn by_key_locked(tx: &mut Tx, kind: ElementKind, key: &str) -> Result<Option<ElementRow>, StoreError> {
    let kind = kind.as_str();
    let row: Option<Row> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(BY_KEY).bind(kind).bind(key).fetch_optional(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => {
            sqlx::query_as(BY_KEY_LOCKED).bind(kind).bind(key).fetch_optional(&mut **transaction).await?
        }
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
