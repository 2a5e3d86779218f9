//! Events: what happened, written in the transaction of what it tells, numbered per tenant without a gap in the order of
//! commits. Whoever follows them keeps the last number as its place.
//!
//! Write them in a transaction that is durable once committed (`Store::write`): a number that was shown must not come back
//! with something else after a power cut.

use serde_json::{Value, json};
use sqlx::FromRow;

use super::many::{Many, Of};
use super::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// An event on its way to the end of its transaction (`Tx::tell`).
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub tenant: String,
    pub kind: EventType,
    /// What it is about; events of one subject are delivered in order.
    pub subject: String,
    pub payload: Value,
    pub at: Timestamp,
}

/// What an event tells; the text is the `type` column and the word in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// A service has used as much as a threshold of its tariff says.
    UsageThreshold,
    /// A bill run's batch is closed and its lines can be read.
    InvoiceBatchClosed,
    HoldPlaced,
    HoldLifted,
    /// An account was pushed that was not there, or was closed before.
    AccountCreated,
    /// A push changed what an account is.
    AccountUpdated,
    AccountClosed,
    /// A service is in service that was not.
    ServiceCreated,
    /// A push changed what a service is.
    ServiceChanged,
    /// A service has ended, or left its account.
    ServiceClosed,
    /// Everything a service needs is as it is desired.
    ServiceProvisioned,
    /// Something a service needs could not be brought about; a person must look.
    ServiceFailed,
    /// Something a person must look at is new.
    ExceptionOpened,
    /// A reconciliation with a billing system has ended.
    ReconcileCompleted,
    /// Sent to try one webhook out; no other outlet is told.
    WebhookTest,
}

/// An event on its way into the store.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a> {
    pub tenant: &'a str,
    pub kind: EventType,
    /// What it is about; events of one subject are delivered in order.
    pub subject: &'a str,
    pub payload: &'a Value,
}

/// An event as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub tenant: String,
    /// 1 is the tenant's first; the next is one more.
    pub sequence: i64,
    pub kind: String,
    pub subject: String,
    pub occurred_at: Timestamp,
    pub payload: Value,
}

/// Which events a list shows, in the order of their numbers.
#[derive(Debug, Clone, Copy)]
pub struct EventFilter<'a> {
    pub tenant: &'a str,
    /// Only events after this number.
    pub after: i64,
    /// Only of this type.
    pub kind: Option<&'a str>,
    pub limit: i64,
}

const NEXT: &str = "INSERT INTO event_sequence (tenant, last) VALUES ($1, 1)
     ON CONFLICT (tenant) DO UPDATE SET last = event_sequence.last + 1 RETURNING last";
const NEXT_MANY: &str = "INSERT INTO event_sequence (tenant, last) VALUES ($1, $2)
     ON CONFLICT (tenant) DO UPDATE SET last = event_sequence.last + excluded.last RETURNING last";
static INSERT_MANY: Many<6> = Many::new(
    [
        ("tenant", Of::Text),
        ("sequence", Of::Integer),
        ("type", Of::Text),
        ("subject", Of::Text),
        ("occurred_at", Of::Integer),
        ("payload", Of::Text),
    ],
    "INSERT INTO event (tenant, sequence, type, subject, occurred_at, payload)
     SELECT tenant, sequence, type, subject, occurred_at, payload FROM new",
);
const INSERT: &str = "INSERT INTO event (tenant, sequence, type, subject, occurred_at, payload)
     VALUES ($1, $2, $3, $4, $5, $6)";
const LIST: &str = "SELECT tenant, sequence, type, subject, occurred_at, payload FROM event
     WHERE tenant = $1 AND sequence > $2 AND (CAST($3 AS TEXT) IS NULL OR type = $3)
     ORDER BY sequence LIMIT $4";
const FORGET: &str = "DELETE FROM event WHERE (tenant, sequence) IN
     (SELECT tenant, sequence FROM event WHERE occurred_at < $1 ORDER BY occurred_at LIMIT $2)";

impl EventType {
    /// Every type, in the order of the documentation.
    pub const ALL: [EventType; 15] = [
        EventType::AccountCreated,
        EventType::AccountUpdated,
        EventType::AccountClosed,
        EventType::ServiceCreated,
        EventType::ServiceChanged,
        EventType::ServiceClosed,
        EventType::ServiceProvisioned,
        EventType::ServiceFailed,
        EventType::UsageThreshold,
        EventType::InvoiceBatchClosed,
        EventType::HoldPlaced,
        EventType::HoldLifted,
        EventType::ExceptionOpened,
        EventType::ReconcileCompleted,
        EventType::WebhookTest,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            EventType::UsageThreshold => "usage.threshold",
            EventType::InvoiceBatchClosed => "invoice_batch.closed",
            EventType::HoldPlaced => "hold.placed",
            EventType::HoldLifted => "hold.lifted",
            EventType::AccountCreated => "account.created",
            EventType::AccountUpdated => "account.updated",
            EventType::AccountClosed => "account.closed",
            EventType::ServiceCreated => "service.created",
            EventType::ServiceChanged => "service.changed",
            EventType::ServiceClosed => "service.closed",
            EventType::ServiceProvisioned => "service.provisioned",
            EventType::ServiceFailed => "service.failed",
            EventType::ExceptionOpened => "exception.opened",
            EventType::ReconcileCompleted => "reconcile.completed",
            EventType::WebhookTest => "webhook.test",
        }
    }
}

impl EventType {
    /// What it tells, for the documentation.
    pub fn about(self) -> &'static str {
        match self {
            EventType::AccountCreated => "An account was pushed that was not there, or was closed before.",
            EventType::AccountUpdated => "A push changed what an account is.",
            EventType::AccountClosed => "An account is closed.",
            EventType::ServiceCreated => "A service is in service that was not.",
            EventType::ServiceChanged => "A push changed what a service is.",
            EventType::ServiceClosed => "A service has ended, or left its account.",
            EventType::ServiceProvisioned => "Everything a service needs is in force.",
            EventType::ServiceFailed => "Something a service needs could not be brought about; a person must look.",
            EventType::HoldPlaced => "A hold restricts an account or one of its services.",
            EventType::HoldLifted => "A hold has ended.",
            EventType::UsageThreshold => "A service has used as much as a threshold of its tariff says.",
            EventType::InvoiceBatchClosed => "A batch is closed: its manifest; its lines can be pulled.",
            EventType::ExceptionOpened => "Something a person must look at is new.",
            EventType::ReconcileCompleted => {
                "A billing system's list is compared with what is stored: what differs, and the plan."
            }
            EventType::WebhookTest => "Sent to try one webhook out.",
        }
    }

    /// The members of its data.
    pub fn members(self) -> &'static [&'static str] {
        match self {
            EventType::AccountCreated | EventType::AccountUpdated => {
                &["account", "source", "revision", "source_revision", "status"]
            }
            EventType::AccountClosed => &["account", "source", "source_revision"],
            EventType::ServiceCreated
            | EventType::ServiceChanged
            | EventType::ServiceClosed
            | EventType::ServiceProvisioned => &["account", "source", "service"],
            EventType::ServiceFailed => &["account", "source", "service", "element", "reason"],
            EventType::HoldPlaced | EventType::HoldLifted => &["account", "source", "service", "hold"],
            EventType::UsageThreshold => &[
                "account",
                "source",
                "service",
                "cycle",
                "period",
                "tariff",
                "meter",
                "at",
                "threshold",
                "used",
                "unit",
            ],
            EventType::InvoiceBatchClosed => {
                &["batch", "cycle", "period", "run", "lines", "totals", "handshakes", "sha256"]
            }
            EventType::ExceptionOpened => &["exception", "kind", "subject", "detail"],
            EventType::ReconcileCompleted => {
                &["sync", "report", "source", "as_of", "differs", "subscribers", "services", "plan"]
            }
            EventType::WebhookTest => &["webhook"],
        }
    }
}

impl Told {
    /// What is told of one service of an account and says no more than that.
    pub fn of_service(
        kind: EventType,
        (tenant, source, account): (&str, &str, &str),
        service: &str,
        at: Timestamp,
    ) -> Self {
        let payload = json!({ "account": account, "source": source, "service": service });
        Self { tenant: tenant.to_owned(), kind, subject: format!("{source}/{account}/{service}"), payload, at }
    }
}

impl Event {
    /// Names the event in the whole installation.
    pub fn id(&self) -> String {
        format!("{}.{}", self.tenant, self.sequence)
    }
}

/// Appends an event with the tenant's next number. Others who append for the tenant wait until the transaction ends: append
/// last.
pub async fn append(tx: &mut Tx, event: &NewEvent<'_>, now: Timestamp) -> Result<i64, StoreError> {
    let sequence: i64 = on!(tx, c => sqlx::query_scalar(NEXT).bind(event.tenant).fetch_one(c).await)?;
    on!(tx, c => sqlx::query(INSERT)
        .bind(event.tenant)
        .bind(sequence)
        .bind(event.kind.as_str())
        .bind(event.subject)
        .bind(to_micros(now))
        .bind(event.payload.to_string())
        .execute(c)
        .await.map(drop))?;
    Ok(sequence)
}

/// Appends events in their order, each with its tenant's next number.
pub(super) async fn append_all(tx: &mut Tx, told: &[Told]) -> Result<(), StoreError> {
    // Transactions that tell of several tenants meet in the same order.
    let mut tenants: Vec<&str> = told.iter().map(|told| told.tenant.as_str()).collect();
    tenants.sort_unstable();
    tenants.dedup();
    let mut rows = Vec::with_capacity(told.len());
    for tenant in tenants {
        let of: Vec<&Told> = told.iter().filter(|told| told.tenant == tenant).collect();
        let count = i64::try_from(of.len()).unwrap_or(i64::MAX);
        let last: i64 = on!(tx, c => sqlx::query_scalar(NEXT_MANY).bind(tenant).bind(count).fetch_one(c).await)?;
        for (sequence, told) in (last - count + 1..).zip(of) {
            rows.push([
                tenant.into(),
                sequence.into(),
                told.kind.as_str().into(),
                told.subject.as_str().into(),
                to_micros(told.at).into(),
                told.payload.to_string().into(),
            ]);
        }
    }
    INSERT_MANY.execute(tx, rows).await
}

/// A page of a tenant's events.
pub async fn list(tx: &mut Tx, filter: &EventFilter<'_>) -> Result<Vec<Event>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(filter.tenant)
        .bind(filter.after)
        .bind(filter.kind)
        .bind(filter.limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(Event::try_from).collect()
}

/// Deletes at most `limit` events from before an instant. The numbers of those that stay are what they were.
pub async fn forget(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
    Ok(on!(tx, c => sqlx::query(FORGET)
        .bind(to_micros(before))
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?)
}

#[derive(FromRow)]
pub(in crate::store) struct Row {
    tenant: String,
    sequence: i64,
    r#type: String,
    subject: String,
    occurred_at: i64,
    payload: String,
}

impl TryFrom<Row> for Event {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt =
            |column| StoreError::Corrupt { table: "event", column, id: format!("{}.{}", row.tenant, row.sequence) };
        Ok(Self {
            occurred_at: from_micros(row.occurred_at).ok_or_else(|| corrupt("occurred_at"))?,
            payload: serde_json::from_str(&row.payload).map_err(|_| corrupt("payload"))?,
            tenant: row.tenant,
            sequence: row.sequence,
            kind: row.r#type,
            subject: row.subject,
        })
    }
}
