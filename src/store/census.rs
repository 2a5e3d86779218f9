//! Who a tenant's subscribers were at any time, for counts; and the lists of whom a count counted.

use super::many::{Many, Of};
use super::{StoreError, Tx, on};
use crate::account::ServiceFacts;
use crate::billing::count::{Census, CountList, Member};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

const HISTORY: &str = "SELECT account.source, account.external_id, service.external_id, history.from_at, history.detail
     FROM service_history AS history
       JOIN service ON service.id = history.service_id
       JOIN account ON account.id = history.account_id
     WHERE account.tenant = $1
     ORDER BY history.service_id, history.from_at, history.id LIMIT 100000000";
const CHILDREN: &str = "SELECT id FROM tenant WHERE parent = $1 ORDER BY id LIMIT 100000";
static KEEP_LISTS: Many<4> = Many::new(
    [("digest", Of::Text), ("tenant", Of::Text), ("document", Of::Text), ("created_at", Of::Integer)],
    "INSERT INTO count_list (digest, tenant, document, created_at)
     SELECT digest, tenant, document, created_at FROM new WHERE digest IS NOT NULL
     ON CONFLICT (digest) DO NOTHING",
);
const LIST: &str = "SELECT document FROM count_list WHERE digest = $1";

/// Everybody a tenant had, with what they had when.
pub async fn census(tx: &mut Tx, tenant: &str) -> Result<Census, StoreError> {
    let rows: Vec<(String, String, String, i64, String)> =
        on!(tx, c => sqlx::query_as(HISTORY).bind(tenant).fetch_all(c).await)?;
    let mut members = Vec::with_capacity(rows.len());
    for (index, (source, account, service, from_at, detail)) in rows.iter().enumerate() {
        let corrupt = |column: &'static str| StoreError::Corrupt {
            table: "service_history",
            column,
            id: format!("{tenant}/{source}/{account}/{service}"),
        };
        let instant = |micros: i64| from_micros(micros).ok_or_else(|| corrupt("from_at"));
        let facts: ServiceFacts = serde_json::from_str(detail).map_err(|_| corrupt("detail"))?;
        let next = rows.get(index + 1).filter(|row| (&row.0, &row.1, &row.2) == (source, account, service));
        let (from, until) = (instant(*from_at)?, next.map(|row| instant(row.3)).transpose()?);
        let mut parts = vec![(from, facts.clone())];
        parts.extend(facts.scheduled_between(from, until));
        for (part, (begins, facts)) in parts.iter().enumerate() {
            members.push(Member {
                account: format!("{source}/{account}"),
                service: service.clone(),
                service_type: facts.service_type,
                plan: facts.plan.clone(),
                status: facts.status,
                from: *begins,
                until: parts.get(part + 1).map(|(next, _)| *next).or(until),
            });
        }
    }
    // Sorted here: how a database orders texts is its own matter.
    members.sort_by(|one, other| {
        (&one.account, &one.service, one.from).cmp(&(&other.account, &other.service, other.from))
    });
    Ok(Census { tenant: tenant.to_owned(), members })
}

/// Tenants whose parent a tenant is.
pub async fn children(tx: &mut Tx, tenant: &str) -> Result<Vec<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(CHILDREN).bind(tenant).fetch_all(c).await)?)
}

/// Keeps whom counts counted, each list under its digest.
pub async fn keep_lists(tx: &mut Tx, lists: &[CountList], now: Timestamp) -> Result<(), StoreError> {
    let at = to_micros(now);
    let mut rows = Vec::with_capacity(lists.len());
    for list in lists {
        let document = serde_json::to_string(list).map_err(|error| StoreError::Database(error.to_string()))?;
        rows.push([list.digest().into(), list.tenant.as_str().into(), document.into(), at.into()]);
    }
    KEEP_LISTS.execute(tx, rows).await
}

/// The list of a digest.
pub async fn list(tx: &mut Tx, digest: &str) -> Result<Option<CountList>, StoreError> {
    let document: Option<String> = on!(tx, c => sqlx::query_scalar(LIST).bind(digest).fetch_optional(c).await)?;
    let corrupt = |_| StoreError::Corrupt { table: "count_list", column: "document", id: digest.to_owned() };
    document.map(|document| serde_json::from_str(&document).map_err(corrupt)).transpose()
}
