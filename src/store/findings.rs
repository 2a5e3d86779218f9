//! What checks and comparisons of a period found, and which of it somebody has decided to live with.

use serde::Serialize;
use serde_json::Value;

use super::{StoreError, Tx, audit, on};
use crate::billing::month_end::Finding;
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// A finding as stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredFinding {
    pub id: String,
    pub cycle: String,
    pub period_start: Timestamp,
    pub kind: String,
    pub subject: String,
    pub detail: String,
    pub advice: String,
    pub numbers: Value,
    pub found_at: Timestamp,
    pub waived: Option<Waiver>,
}

/// Who lives with a finding, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiver {
    pub at: Timestamp,
    pub by: String,
    pub because: String,
}

/// Whose findings, of which period.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub tenant: &'a str,
    pub cycle: &'a str,
    pub period_start: Timestamp,
}

/// What findings come from: each replaces only its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Check,
    Comparison,
}

const PUT: &str =
    "INSERT INTO bill_finding (id, tenant, cycle, period_start_at, kind, subject, detail, advice, numbers,
        found_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
     ON CONFLICT (id) DO UPDATE SET detail = excluded.detail, numbers = excluded.numbers, found_at = excluded.found_at";
const GONE: &str = "DELETE FROM bill_finding
     WHERE tenant = $1 AND cycle = $2 AND period_start_at = $3 AND found_at < $4 AND waived_at IS NULL
       AND (kind LIKE 'compare.%') = ($5 = 1)";
const LIST: &str = "SELECT id, cycle, period_start_at, kind, subject, detail, advice, numbers, found_at, waived_at,
        waived_by, waived_because
     FROM bill_finding
     WHERE tenant = $1 AND cycle = $2 AND period_start_at = $3 AND found_at >= $4
       AND ($5 = 2 OR (kind LIKE 'compare.%') = ($5 = 1))
     ORDER BY kind, subject, id LIMIT $6";
const TENANT_OF: &str = "SELECT tenant FROM bill_finding WHERE id = $1";
const WAIVE: &str = "UPDATE bill_finding SET waived_at = $3, waived_by = $4, waived_because = $5
     WHERE id = $1 AND ($2 IS NULL OR tenant = $2)";

/// Puts what was found now in the place of what was found before; what was waived stays known.
pub async fn replace(
    tx: &mut Tx,
    place: Place<'_>,
    origin: Origin,
    found: &[Finding],
    now: Timestamp,
) -> Result<(), StoreError> {
    let (start, at) = (to_micros(place.period_start), to_micros(now));
    for finding in found {
        on!(tx, c => sqlx::query(PUT)
            .bind(finding.id(place.tenant, place.cycle, place.period_start))
            .bind(place.tenant)
            .bind(place.cycle)
            .bind(start)
            .bind(finding.kind)
            .bind(&finding.subject)
            .bind(&finding.detail)
            .bind(finding.advice)
            .bind(finding.numbers.to_string())
            .bind(at)
            .execute(c)
            .await.map(drop))?;
    }
    let comparison = i64::from(origin == Origin::Comparison);
    on!(tx, c => sqlx::query(GONE)
        .bind(place.tenant)
        .bind(place.cycle)
        .bind(start)
        .bind(at)
        .bind(comparison)
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Findings of a period that were found at `since` or later; `origin` `None`: whatever they come from.
pub async fn list(
    tx: &mut Tx,
    place: Place<'_>,
    origin: Option<Origin>,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<StoredFinding>, StoreError> {
    let origin: i64 = match origin {
        Some(Origin::Check) => 0,
        Some(Origin::Comparison) => 1,
        None => 2,
    };
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(place.tenant)
        .bind(place.cycle)
        .bind(to_micros(place.period_start))
        .bind(to_micros(since))
        .bind(origin)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(StoredFinding::try_from).collect()
}

/// Somebody lives with a finding. `false`: there is no such finding of this tenant's.
pub async fn waive(
    tx: &mut Tx,
    tenant: Option<&str>,
    id: &str,
    by: &str,
    because: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let changed = on!(&mut *tx, c => sqlx::query(WAIVE)
        .bind(id)
        .bind(tenant)
        .bind(to_micros(now))
        .bind(by)
        .bind(because)
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    if changed != 1 {
        return Ok(false);
    }
    let tenant: String = on!(&mut *tx, c => sqlx::query_scalar(TENANT_OF).bind(id).fetch_one(c).await)?;
    let entry = audit::Entry {
        tenant: Some(&tenant),
        actor: by,
        action: "bill.waive",
        account_id: None,
        subject: id,
        detail: &serde_json::json!({ "reason": because }),
    };
    audit::append(tx, &entry, now).await?;
    Ok(true)
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    cycle: String,
    period_start_at: i64,
    kind: String,
    subject: String,
    detail: String,
    advice: String,
    numbers: String,
    found_at: i64,
    waived_at: Option<i64>,
    waived_by: Option<String>,
    waived_because: Option<String>,
}

impl TryFrom<Row> for StoredFinding {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "bill_finding", column, id: row.id.clone() };
        let at = |micros: i64| from_micros(micros).ok_or_else(|| corrupt("an instant"));
        let waived = match row.waived_at {
            Some(when) => Some(Waiver {
                at: at(when)?,
                by: row.waived_by.clone().unwrap_or_default(),
                because: row.waived_because.clone().unwrap_or_default(),
            }),
            None => None,
        };
        Ok(Self {
            period_start: at(row.period_start_at)?,
            found_at: at(row.found_at)?,
            numbers: serde_json::from_str(&row.numbers).map_err(|_| corrupt("numbers"))?,
            waived,
            id: row.id,
            cycle: row.cycle,
            kind: row.kind,
            subject: row.subject,
            detail: row.detail,
            advice: row.advice,
        })
    }
}
