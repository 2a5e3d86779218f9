//! What the TM Forum faces list: services, jobs, ledger entries and lines by place and number, as their `offset`, `limit` and
//! total count want it. Pages are read by row; what stands in them comes from the rooms that own it.

use std::collections::HashMap;

use super::elements::{self, ElementRow};
use super::jobs::{self, JobRow};
use super::{StoreError, Tx, on};
use crate::account::ServiceType;
use crate::billing::lines::StoredLine;
use crate::provision::{ElementState, JobState};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// Which services a list is about; those that are in service.
#[derive(Debug, Clone, Default)]
pub struct ServiceScope {
    pub tenant: String,
    pub source: Option<String>,
    pub account_id: Option<i64>,
    pub plan: Option<String>,
    /// `internet`, `voice` or `email`.
    pub service_type: Option<String>,
}

/// One service in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePlace {
    pub account_id: i64,
    pub external_id: String,
    pub created_at: Timestamp,
}

/// Which jobs a list is about.
#[derive(Debug, Clone, Default)]
pub struct JobScope {
    pub tenant: String,
    pub source: Option<String>,
    pub account_id: Option<i64>,
    pub stage: Stage,
}

/// How far a job is. One that has offered a device its file has ended, and is open all the same until the device runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    #[default]
    Any,
    Open,
    Done,
    /// Given up, or called off.
    Failed,
}

/// Which lines of closed batches a list is about.
#[derive(Debug, Clone, Default)]
pub struct LineScope {
    pub tenant: String,
    pub source: Option<String>,
    pub account_id: Option<i64>,
}

/// A ledger entry with the service it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    pub sequence: i64,
    /// External id.
    pub service: String,
    pub service_type: ServiceType,
    pub from_at: Timestamp,
    pub until_at: Timestamp,
    pub in_octets: i64,
    pub out_octets: i64,
    pub seconds: i64,
    pub sessions: i64,
    pub cause: String,
    pub recorded_at: Timestamp,
}

/// Up to which entry lines of closed batches have counted a service's usage of a period.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Counted {
    pub service: String,
    pub period_start_at: i64,
    pub period_end_at: i64,
    pub watermark: i64,
}

/// Which part of a list, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub offset: i64,
    pub limit: i64,
}

macro_rules! of_services {
    ($what:literal, $of:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM service JOIN account ON account.id = service.account_id
             WHERE account.tenant = $1 AND account.closed_at IS NULL AND service.ended_at IS NULL
               AND ($2 IS NULL OR account.source = $2)
               AND ($3 IS NULL OR service.plan = $3)
               AND ($4 IS NULL OR service.type = $4)
               AND ",
            $of,
            $rest
        )
    };
}
const SERVICE_PAGE: &str = of_services!(
    "service.account_id, service.external_id, service.created_at",
    "CAST($5 AS BIGINT) IS NULL",
    " ORDER BY service.id LIMIT $6 OFFSET $7"
);
const SERVICE_PAGE_OF: &str = of_services!(
    "service.account_id, service.external_id, service.created_at",
    "service.account_id = $5",
    " ORDER BY service.id LIMIT $6 OFFSET $7"
);
const SERVICE_COUNT: &str = of_services!("COUNT(*)", "CAST($5 AS BIGINT) IS NULL", "");
const SERVICE_COUNT_OF: &str = of_services!("COUNT(*)", "service.account_id = $5", "");

macro_rules! of_jobs {
    ($what:literal, $of:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM job JOIN account ON account.id = job.account_id JOIN element ON element.id = job.element_id
             WHERE job.tenant = $1
               AND ($2 IS NULL OR account.source = $2)
               AND $3 IN ('any', CASE
                    WHEN job.state IN ('failed', 'cancelled') THEN 'failed'
                    WHEN job.state = 'done' AND (element.state = 'gone'
                        OR COALESCE(element.applied_revision, -1) >= job.target_revision) THEN 'done'
                    ELSE 'open' END)
               AND ",
            $of,
            $rest
        )
    };
}
const JOB_PAGE: &str = of_jobs!("job.id", "CAST($4 AS BIGINT) IS NULL", " ORDER BY job.id DESC LIMIT $5 OFFSET $6");
const JOB_PAGE_OF: &str = of_jobs!("job.id", "job.account_id = $4", " ORDER BY job.id DESC LIMIT $5 OFFSET $6");
const JOB_COUNT: &str = of_jobs!("COUNT(*)", "CAST($4 AS BIGINT) IS NULL", "");
const JOB_COUNT_OF: &str = of_jobs!("COUNT(*)", "job.account_id = $4", "");

macro_rules! of_lines {
    ($what:literal, $of:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM batch JOIN line ON line.batch = batch.id JOIN account ON account.id = line.account_id
             WHERE batch.tenant = $1 AND batch.closed_sequence > 0
               AND ($2 IS NULL OR account.source = $2)
               AND ",
            $of,
            $rest
        )
    };
}
const LINE_PAGE: &str = of_lines!(
    "line.id, line.document",
    "CAST($3 AS BIGINT) IS NULL",
    " ORDER BY batch.closed_sequence, line.id LIMIT $4 OFFSET $5"
);
const LINE_PAGE_OF: &str = of_lines!(
    "line.id, line.document",
    "line.account_id = $3",
    " ORDER BY batch.closed_sequence, line.id LIMIT $4 OFFSET $5"
);
const LINE_COUNT_OF: &str = of_lines!("COUNT(*)", "line.account_id = $3", "");
const LINE_COUNT_OF_SOURCE: &str = of_lines!("COUNT(*)", "CAST($3 AS BIGINT) IS NULL", "");
// A closed batch knows how many lines it has.
const LINE_COUNT: &str =
    "SELECT CAST(COALESCE(SUM(lines), 0) AS BIGINT) FROM batch WHERE tenant = $1 AND closed_sequence > 0";

macro_rules! of_ledger {
    ($what:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM ledger JOIN service ON service.id = ledger.service_id
             WHERE ledger.account_id = $1 AND ",
            $rest
        )
    };
}
const LEDGER_PAGE: &str = of_ledger!(
    "ledger.sequence, service.external_id, service.type, ledger.from_at, ledger.until_at, ledger.in_octets,
     ledger.out_octets, ledger.seconds, ledger.sessions, ledger.cause, ledger.recorded_at",
    "TRUE ORDER BY ledger.sequence LIMIT $2 OFFSET $3"
);
const LEDGER_ONE: &str = of_ledger!(
    "ledger.sequence, service.external_id, service.type, ledger.from_at, ledger.until_at, ledger.in_octets,
     ledger.out_octets, ledger.seconds, ledger.sessions, ledger.cause, ledger.recorded_at",
    "ledger.sequence = $2"
);
const LEDGER_COUNT: &str = of_ledger!("COUNT(*)", "TRUE");
const COUNTED: &str = "SELECT line.service, line.period_start_at, line.period_end_at,
        CAST(MAX(line.watermark) AS BIGINT) AS watermark
     FROM line JOIN batch ON batch.id = line.batch
     WHERE line.account_id = $1 AND line.watermark IS NOT NULL AND line.service IS NOT NULL AND batch.closed_sequence > 0
     GROUP BY line.service, line.period_start_at, line.period_end_at
     ORDER BY line.service, line.period_start_at LIMIT 100000";
const CREATED: &str = "SELECT created_at FROM service WHERE account_id = $1 AND external_id = $2";
impl Stage {
    /// Of a job and its element, as the lists have it.
    pub fn of(job: &JobRow, element: &ElementRow) -> Self {
        let in_force = element.state == ElementState::Gone
            || element.applied_revision.is_some_and(|applied| applied >= job.target_revision);
        match &job.state {
            JobState::Failed { .. } | JobState::Cancelled => Stage::Failed,
            JobState::Done { .. } if in_force => Stage::Done,
            _ => Stage::Open,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Stage::Any => "any",
            Stage::Open => "open",
            Stage::Done => "done",
            Stage::Failed => "failed",
        }
    }
}

/// A part of the services, in the order they came.
pub async fn services(tx: &mut Tx, scope: &ServiceScope, part: Part) -> Result<Vec<ServicePlace>, StoreError> {
    let statement = if scope.account_id.is_some() { SERVICE_PAGE_OF } else { SERVICE_PAGE };
    let rows: Vec<(i64, String, i64)> = on!(tx, c => sqlx::query_as(statement)
        .bind(&scope.tenant)
        .bind(&scope.source)
        .bind(&scope.plan)
        .bind(&scope.service_type)
        .bind(scope.account_id)
        .bind(part.limit)
        .bind(part.offset)
        .fetch_all(c)
        .await)?;
    rows.into_iter()
        .map(|(account_id, external_id, created_at)| {
            Ok(ServicePlace { account_id, external_id, created_at: instant(created_at, "service")? })
        })
        .collect()
}

pub async fn count_services(tx: &mut Tx, scope: &ServiceScope) -> Result<i64, StoreError> {
    let statement = if scope.account_id.is_some() { SERVICE_COUNT_OF } else { SERVICE_COUNT };
    Ok(on!(tx, c => sqlx::query_scalar(statement)
        .bind(&scope.tenant)
        .bind(&scope.source)
        .bind(&scope.plan)
        .bind(&scope.service_type)
        .bind(scope.account_id)
        .fetch_one(c)
        .await)?)
}

/// When a service of an account came first.
pub async fn created_at(tx: &mut Tx, account_id: i64, service: &str) -> Result<Option<Timestamp>, StoreError> {
    let at: Option<i64> =
        on!(tx, c => sqlx::query_scalar(CREATED).bind(account_id).bind(service).fetch_optional(c).await)?;
    at.map(|at| instant(at, "service")).transpose()
}

/// A part of the jobs, the newest first, each with its element.
pub async fn jobs(tx: &mut Tx, scope: &JobScope, part: Part) -> Result<Vec<(JobRow, ElementRow)>, StoreError> {
    let statement = if scope.account_id.is_some() { JOB_PAGE_OF } else { JOB_PAGE };
    let ids: Vec<i64> = on!(tx, c => sqlx::query_scalar(statement)
        .bind(&scope.tenant)
        .bind(&scope.source)
        .bind(scope.stage.as_str())
        .bind(scope.account_id)
        .bind(part.limit)
        .bind(part.offset)
        .fetch_all(c)
        .await)?;
    let mut found = with_elements(tx, &ids).await?;
    found.sort_by_key(|(job, _)| std::cmp::Reverse(job.id));
    Ok(found)
}

pub async fn count_jobs(tx: &mut Tx, scope: &JobScope) -> Result<i64, StoreError> {
    let statement = if scope.account_id.is_some() { JOB_COUNT_OF } else { JOB_COUNT };
    Ok(on!(tx, c => sqlx::query_scalar(statement)
        .bind(&scope.tenant)
        .bind(&scope.source)
        .bind(scope.stage.as_str())
        .bind(scope.account_id)
        .fetch_one(c)
        .await)?)
}

/// Jobs with their elements.
pub async fn with_elements(tx: &mut Tx, ids: &[i64]) -> Result<Vec<(JobRow, ElementRow)>, StoreError> {
    let rows = jobs::these(tx, ids).await?;
    let wanted: Vec<i64> = rows.iter().map(|job| job.element_id).collect();
    let elements: HashMap<i64, ElementRow> = elements::by_ids(tx, &wanted).await?;
    let with = |job: JobRow| elements.get(&job.element_id).cloned().map(|element| (job, element));
    Ok(rows.into_iter().filter_map(with).collect())
}

/// A part of the lines of closed batches, in the order in which they were closed.
pub async fn lines(tx: &mut Tx, scope: &LineScope, part: Part) -> Result<Vec<StoredLine>, StoreError> {
    let statement = if scope.account_id.is_some() { LINE_PAGE_OF } else { LINE_PAGE };
    let rows: Vec<(String, String)> = on!(tx, c => sqlx::query_as(statement)
        .bind(&scope.tenant)
        .bind(&scope.source)
        .bind(scope.account_id)
        .bind(part.limit)
        .bind(part.offset)
        .fetch_all(c)
        .await)?;
    let parsed = |(id, document): (String, String)| {
        serde_json::from_str(&document).map_err(|_| StoreError::Corrupt { table: "line", column: "document", id })
    };
    rows.into_iter().map(parsed).collect()
}

pub async fn count_lines(tx: &mut Tx, scope: &LineScope) -> Result<i64, StoreError> {
    let statement = match (&scope.source, scope.account_id) {
        (None, None) => {
            return Ok(on!(tx, c => sqlx::query_scalar(LINE_COUNT).bind(&scope.tenant).fetch_one(c).await)?);
        }
        (_, Some(_)) => LINE_COUNT_OF,
        (Some(_), None) => LINE_COUNT_OF_SOURCE,
    };
    Ok(on!(tx, c => sqlx::query_scalar(statement)
        .bind(&scope.tenant)
        .bind(&scope.source)
        .bind(scope.account_id)
        .fetch_one(c)
        .await)?)
}

/// A part of an account's ledger, in its order.
pub async fn ledger(tx: &mut Tx, account_id: i64, part: Part) -> Result<Vec<LedgerRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LEDGER_PAGE)
        .bind(account_id)
        .bind(part.limit)
        .bind(part.offset)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(LedgerRow::try_from).collect()
}

pub async fn ledger_entry(tx: &mut Tx, account_id: i64, sequence: i64) -> Result<Option<LedgerRow>, StoreError> {
    let row: Option<Row> =
        on!(tx, c => sqlx::query_as(LEDGER_ONE).bind(account_id).bind(sequence).fetch_optional(c).await)?;
    row.map(LedgerRow::try_from).transpose()
}

pub async fn count_ledger(tx: &mut Tx, account_id: i64) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(LEDGER_COUNT).bind(account_id).fetch_one(c).await)?)
}

/// What of an account's usage lines of closed batches have counted.
pub async fn counted(tx: &mut Tx, account_id: i64) -> Result<Vec<Counted>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(COUNTED).bind(account_id).fetch_all(c).await)?)
}

impl Counted {
    /// Whether it has counted an entry.
    pub fn has(&self, entry: &LedgerRow) -> bool {
        let from = to_micros(entry.from_at);
        self.service == entry.service
            && (self.period_start_at..self.period_end_at).contains(&from)
            && entry.sequence <= self.watermark
    }
}

fn instant(micros: i64, table: &'static str) -> Result<Timestamp, StoreError> {
    from_micros(micros).ok_or_else(|| StoreError::Corrupt { table, column: "at", id: micros.to_string() })
}

#[derive(sqlx::FromRow)]
struct Row {
    sequence: i64,
    external_id: String,
    r#type: String,
    from_at: i64,
    until_at: i64,
    in_octets: i64,
    out_octets: i64,
    seconds: i64,
    sessions: i64,
    cause: String,
    recorded_at: i64,
}

impl TryFrom<Row> for LedgerRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "ledger", column, id: row.sequence.to_string() };
        let at = |micros, column| from_micros(micros).ok_or_else(|| corrupt(column));
        Ok(Self {
            service_type: row.r#type.parse().map_err(|_| corrupt("service_id"))?,
            from_at: at(row.from_at, "from_at")?,
            until_at: at(row.until_at, "until_at")?,
            recorded_at: at(row.recorded_at, "recorded_at")?,
            sequence: row.sequence,
            service: row.external_id,
            in_octets: row.in_octets,
            out_octets: row.out_octets,
            seconds: row.seconds,
            sessions: row.sessions,
            cause: row.cause,
        })
    }
}
