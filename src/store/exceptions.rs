//! Exceptions: anything a person must look at, one queue. A fault that comes again counts up instead of piling up.

use std::collections::BTreeSet;

use serde_json::json;

use super::events::{EventType, Told};
use super::many::{Many, Of};
use super::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// One matter that waits, or waited, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExceptionRow {
    pub id: i64,
    /// `None`: it concerns the installation, not one tenant.
    pub tenant: Option<String>,
    pub kind: String,
    /// What it is about; with `kind` the identity of an open exception.
    pub subject: String,
    pub detail: String,
    pub occurrences: i64,
    pub opened_at: Timestamp,
    pub updated_at: Timestamp,
    pub snoozed_until: Option<Timestamp>,
    pub released_at: Option<Timestamp>,
    pub released_by: Option<String>,
}

/// Which exceptions a list shows.
#[derive(Debug, Clone, Default)]
pub struct ExceptionFilter {
    pub tenant: Option<String>,
    pub kind: Option<String>,
    /// Also released ones, and those asleep.
    pub all: bool,
    /// Only rows before this one; lists run from the newest back.
    pub before: Option<i64>,
    pub limit: i64,
}

macro_rules! select_exception {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, kind, subject, detail, occurrences, opened_at, updated_at, snoozed_until, released_at,
                    released_by FROM exception ",
            $rest
        )
    };
}

const OPEN: &str = "INSERT INTO exception (tenant, kind, subject, detail, opened_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $5)
     ON CONFLICT (kind, subject) WHERE released_at IS NULL
     DO UPDATE SET detail = excluded.detail, updated_at = excluded.updated_at,
                   occurrences = exception.occurrences + 1
     RETURNING id, occurrences";
const RELEASE_SUBJECT: &str = "UPDATE exception SET released_at = $3, updated_at = $3, released_by = $4
     WHERE kind = $1 AND subject = $2 AND released_at IS NULL";
static RELEASE_SUBJECTS: Many<4> = Many::new(
    [("kind", Of::Text), ("subject", Of::Text), ("at", Of::Integer), ("by_whom", Of::Text)],
    "UPDATE exception SET released_at = new.at, updated_at = new.at, released_by = new.by_whom
     FROM new
     WHERE exception.kind = new.kind AND exception.subject = new.subject AND exception.released_at IS NULL",
);
const LIST: &str = select_exception!(
    "WHERE ($1 IS NULL OR tenant = $1)
       AND ($2 IS NULL OR kind = $2)
       AND ($3 = 1 OR (released_at IS NULL AND (snoozed_until IS NULL OR snoozed_until <= $4)))
       AND id < $5
     ORDER BY id DESC LIMIT $6"
);
const UNRELEASED: &str =
    select_exception!("WHERE released_at IS NULL AND (tenant = $1 OR tenant IS NULL) ORDER BY id DESC LIMIT $2");
const ONE: &str = select_exception!("WHERE id = $1");
const RELEASE: &str = "UPDATE exception SET released_at = $2, updated_at = $2, released_by = $3
     WHERE id = $1 AND released_at IS NULL";
const SNOOZE: &str = "UPDATE exception SET snoozed_until = $2, updated_at = $3 WHERE id = $1 AND released_at IS NULL";
const OPEN_SUBJECTS: &str = "SELECT subject FROM exception
     WHERE tenant = $1 AND kind = $2 AND released_at IS NULL ORDER BY subject LIMIT 1000000";
const COUNT_OPEN: &str = "SELECT COUNT(*) FROM exception WHERE released_at IS NULL";

/// Opens an exception, or counts it up when the same one is open. Returns its row. A new one of a tenant is told as an event.
pub async fn open(
    tx: &mut Tx,
    tenant: Option<&str>,
    kind: &str,
    subject: &str,
    detail: &str,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let (id, occurrences): (i64, i64) = on!(tx, c => sqlx::query_as(OPEN)
        .bind(tenant)
        .bind(kind)
        .bind(subject)
        .bind(detail)
        .bind(to_micros(now))
        .fetch_one(c)
        .await)?;
    if let (Some(tenant), 1) = (tenant, occurrences) {
        tx.tell(Told {
            tenant: tenant.to_owned(),
            kind: EventType::ExceptionOpened,
            subject: subject.to_owned(),
            payload: json!({ "exception": id.to_string(), "kind": kind, "subject": subject, "detail": detail }),
            at: now,
        });
    }
    Ok(id)
}

/// Releases the open exception of a subject, because what it complained of is over. `false`: none was open.
pub async fn release_subject(
    tx: &mut Tx,
    kind: &str,
    subject: &str,
    by: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let rows = on!(tx, c => sqlx::query(RELEASE_SUBJECT)
        .bind(kind)
        .bind(subject)
        .bind(to_micros(now))
        .bind(by)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// As `release_subject`, for many: each a kind and a subject.
pub async fn release_subjects(
    tx: &mut Tx,
    subjects: &[(&str, &str)],
    by: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows =
        subjects.iter().map(|(kind, subject)| [(*kind).into(), (*subject).into(), to_micros(now).into(), by.into()]);
    RELEASE_SUBJECTS.execute(tx, rows.collect()).await
}

/// Exceptions, the newest first.
pub async fn list(tx: &mut Tx, filter: &ExceptionFilter, now: Timestamp) -> Result<Vec<ExceptionRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(filter.tenant.as_deref())
        .bind(filter.kind.as_deref())
        .bind(i64::from(filter.all))
        .bind(to_micros(now))
        .bind(filter.before.unwrap_or(i64::MAX))
        .bind(filter.limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(ExceptionRow::try_from).collect()
}

/// What nobody has released, asleep or not, of a tenant and of the installation, from the newest back.
pub async fn unreleased(tx: &mut Tx, tenant: &str, limit: i64) -> Result<Vec<ExceptionRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(UNRELEASED).bind(tenant).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(ExceptionRow::try_from).collect()
}

/// One exception, open or not.
pub async fn one(tx: &mut Tx, id: i64) -> Result<Option<ExceptionRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(ONE).bind(id).fetch_optional(c).await)?;
    row.map(ExceptionRow::try_from).transpose()
}

/// A person has dealt with it. `false`: not there, or released before.
pub async fn release(tx: &mut Tx, id: i64, by: &str, now: Timestamp) -> Result<bool, StoreError> {
    let rows = on!(tx, c => sqlx::query(RELEASE)
        .bind(id)
        .bind(to_micros(now))
        .bind(by)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Keeps it out of the list until an instant. `false`: not there, or released.
pub async fn snooze(tx: &mut Tx, id: i64, until: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
    let rows = on!(tx, c => sqlx::query(SNOOZE)
        .bind(id)
        .bind(to_micros(until))
        .bind(to_micros(now))
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(rows > 0)
}

/// Subjects of the open exceptions of a kind.
pub async fn open_subjects(tx: &mut Tx, tenant: &str, kind: &str) -> Result<BTreeSet<String>, StoreError> {
    let rows: Vec<String> = on!(tx, c => sqlx::query_scalar(OPEN_SUBJECTS).bind(tenant).bind(kind).fetch_all(c).await)?;
    Ok(rows.into_iter().collect())
}

/// How many are open.
pub async fn count_open(tx: &mut Tx) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(COUNT_OPEN).fetch_one(c).await)?)
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    tenant: Option<String>,
    kind: String,
    subject: String,
    detail: String,
    occurrences: i64,
    opened_at: i64,
    updated_at: i64,
    snoozed_until: Option<i64>,
    released_at: Option<i64>,
    released_by: Option<String>,
}

impl TryFrom<Row> for ExceptionRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let instant = |column: &'static str, at: i64| {
            from_micros(at).ok_or_else(|| StoreError::Corrupt { table: "exception", column, id: row.id.to_string() })
        };
        Ok(Self {
            id: row.id,
            opened_at: instant("opened_at", row.opened_at)?,
            updated_at: instant("updated_at", row.updated_at)?,
            snoozed_until: row.snoozed_until.map(|at| instant("snoozed_until", at)).transpose()?,
            released_at: row.released_at.map(|at| instant("released_at", at)).transpose()?,
            tenant: row.tenant,
            kind: row.kind,
            subject: row.subject,
            detail: row.detail,
            occurrences: row.occurrences,
            released_by: row.released_by,
        })
    }
}
