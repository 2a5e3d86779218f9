//! Outlets: where a tenant's events go, and what of them waits, was delivered late or given up. What a worker of an outlet
//! reads and records stands in `work.rs`.

pub mod files;
mod work;

use serde_json::json;

use super::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

pub use work::{
    Claimed, Due, Entry, Health, Lag, Progress, blocked, claim, count_waiting, due, fetch, forget, is_lent, lag,
    listed_after, mark_sending, record, release, unclear, with_work,
};

/// What an outlet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutletKind {
    Webhook,
    Mail,
    Sms,
    File,
}

/// In which form an outlet's events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Standard Webhooks: type, timestamp, data.
    Standard,
    /// TM Forum's envelope.
    Tmf,
}

/// One outlet.
#[derive(Debug, Clone, PartialEq)]
pub struct OutletRow {
    pub id: String,
    pub tenant: String,
    pub kind: OutletKind,
    pub shape: Shape,
    /// The endpoint's URL; of others the name of what the configuration describes.
    pub url: String,
    /// Types of events it wants; empty: all.
    pub types: Vec<String>,
    pub description: String,
    pub enabled: bool,
    /// Why it is disabled.
    pub because: Option<String>,
    pub secret: Option<Vec<u8>>,
    /// The secret before a rotation, which signs too until an instant.
    pub previous: Option<(Vec<u8>, Timestamp)>,
    /// Every event up to here was delivered, or stands in the list.
    pub position: i64,
    pub slow_until: Timestamp,
    pub failures: i64,
    pub failing_since: Option<Timestamp>,
    pub delivered: i64,
    pub last_delivered_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An event in an outlet's list.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryRow {
    pub outlet: String,
    pub sequence: i64,
    pub subject: String,
    /// `pending`, `sending`, `delivered` or `dead`.
    pub state: String,
    pub attempts: i64,
    /// `None` while it waits behind an earlier event of its subject, or nothing more is tried.
    pub next_at: Option<Timestamp>,
    pub status: Option<i64>,
    pub detail: Option<String>,
    pub updated_at: Timestamp,
}

/// What of a webhook is changed; `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub url: Option<String>,
    pub types: Option<Vec<String>>,
    pub description: Option<String>,
    pub enabled: Option<bool>,
}

/// Which events are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// Those with these numbers, both included.
    Range { from: i64, to: i64 },
    /// Those that were given up.
    Dead,
}

/// Events one request may send again.
pub const REPLAY_MAX: i64 = 10_000;

macro_rules! select_outlet {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, kind, shape, url, types, description, state, because, secret, previous_secret, previous_until,
                    position, slow_until, failures, failing_since, delivered, last_delivered_at, created_at, updated_at
             FROM outlet ",
            $rest
        )
    };
}
use select_outlet;

const INSERT: &str =
    "INSERT INTO outlet (id, tenant, kind, url, types, description, state, secret, position, created_at,
        updated_at, shape)
     SELECT $1, $2, $3, $4, $5, $6, 'enabled', $7,
        COALESCE((SELECT last FROM event_sequence WHERE event_sequence.tenant = $2), 0), $8, $8, $9
     WHERE NOT EXISTS (SELECT 1 FROM outlet WHERE id = $1) AND EXISTS (SELECT 1 FROM tenant WHERE tenant.id = $2)";
const OF_TENANT: &str = select_outlet!("WHERE tenant = $1 AND kind = $2 AND id > $3 ORDER BY id LIMIT $4");
const ALL: &str = select_outlet!("WHERE ($1 IS NULL OR tenant = $1) ORDER BY tenant, kind, id LIMIT 10000");
const ONE: &str = select_outlet!("WHERE tenant = $1 AND id = $2");
const COUNT: &str = "SELECT COUNT(*) FROM outlet WHERE tenant = $1 AND kind = $2";
const UPDATE: &str = "UPDATE outlet
     SET url = COALESCE($3, url), types = COALESCE($4, types), description = COALESCE($5, description),
         state = COALESCE($6, state), because = CASE WHEN $6 IS NULL THEN because ELSE $7 END,
         slow_until = CASE WHEN $6 = 'enabled' THEN 0 ELSE slow_until END,
         epoch = epoch + 1, claimed_until = 0, updated_at = $8
     WHERE tenant = $1 AND id = $2";
const RETYPE: &str = "UPDATE outlet SET types = $2 WHERE id = $1 AND types <> $2";
const ROTATE: &str = "UPDATE outlet
     SET previous_secret = secret, previous_until = $4, secret = $3, epoch = epoch + 1, claimed_until = 0, updated_at = $5
     WHERE tenant = $1 AND id = $2";
const DELETE: &str = "DELETE FROM outlet WHERE tenant = $1 AND id = $2";
macro_rules! select_delivery {
    ($rest:literal) => {
        concat!(
            "SELECT outlet, sequence, subject, state, attempts, next_at, status, detail, updated_at FROM delivery ",
            $rest
        )
    };
}
const DELIVERIES: &str =
    select_delivery!("WHERE outlet = $1 AND sequence > $2 AND ($3 IS NULL OR state = $3) ORDER BY sequence LIMIT $4");
const REPLAY_RANGE: &str = "INSERT INTO delivery (outlet, sequence, subject, state, attempts, next_at, updated_at)
     SELECT $1, event.sequence, event.subject, 'pending', 0, $5, $5 FROM event
     WHERE event.tenant = $2 AND event.sequence >= $3 AND event.sequence <= $4
       AND ($6 = '[]' OR $6 LIKE '%\"' || event.type || '\"%')
       AND (event.type <> 'webhook.test' OR event.subject = $1)
       AND event.sequence <= (SELECT position FROM outlet WHERE outlet.id = $1)
     ORDER BY event.sequence LIMIT $7
     ON CONFLICT (outlet, sequence) DO UPDATE SET state = 'pending', attempts = 0, next_at = excluded.next_at,
        detail = NULL, status = NULL, updated_at = excluded.updated_at
     WHERE delivery.state <> 'sending' AND (delivery.state <> 'pending' OR delivery.next_at IS NOT NULL)";
const REPLAY_DEAD: &str = "UPDATE delivery SET state = 'pending', attempts = 0, next_at = $2, updated_at = $2
     WHERE outlet = $1 AND sequence IN (SELECT sequence FROM delivery WHERE outlet = $1 AND state = 'dead'
        ORDER BY sequence LIMIT $3)";

impl OutletKind {
    pub fn as_str(self) -> &'static str {
        match self {
            OutletKind::Webhook => "webhook",
            OutletKind::Mail => "mail",
            OutletKind::Sms => "sms",
            OutletKind::File => "file",
        }
    }

    /// For the log.
    pub fn title(self) -> &'static str {
        match self {
            OutletKind::Webhook => "Webhook",
            OutletKind::Mail => "Mail",
            OutletKind::Sms => "SMS",
            OutletKind::File => "Export",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [OutletKind::Webhook, OutletKind::Mail, OutletKind::Sms, OutletKind::File]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

impl Shape {
    pub fn as_str(self) -> &'static str {
        match self {
            Shape::Standard => "standard",
            Shape::Tmf => "tmf",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Shape::Standard, Shape::Tmf].into_iter().find(|shape| shape.as_str() == text)
    }
}

/// Where a secret of an outlet is sealed to.
pub fn secret_place(tenant: &str, id: &str) -> String {
    format!("{tenant}/outlet/{id}/secret")
}

/// What a new outlet is.
#[derive(Debug, Clone, Copy)]
pub struct NewOutlet<'a> {
    pub id: &'a str,
    pub tenant: &'a str,
    pub kind: OutletKind,
    pub shape: Shape,
    pub url: &'a str,
    pub types: &'a [String],
    pub description: &'a str,
    /// Sealed.
    pub secret: Option<&'a [u8]>,
}

/// Makes an outlet for what happens from now on. `false`: it is there, or its tenant is not.
pub async fn insert(tx: &mut Tx, new: &NewOutlet<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let done = on!(tx, c => sqlx::query(INSERT)
        .bind(new.id)
        .bind(new.tenant)
        .bind(new.kind.as_str())
        .bind(new.url)
        .bind(json!(new.types).to_string())
        .bind(new.description)
        .bind(new.secret)
        .bind(to_micros(now))
        .bind(new.shape.as_str())
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    Ok(done == 1)
}

/// A page of a tenant's outlets of a kind, by id.
pub async fn of_tenant(
    tx: &mut Tx,
    tenant: &str,
    kind: OutletKind,
    after: &str,
    limit: i64,
) -> Result<Vec<OutletRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(OF_TENANT)
        .bind(tenant)
        .bind(kind.as_str())
        .bind(after)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(OutletRow::try_from).collect()
}

/// All outlets, or those of one tenant.
pub async fn all(tx: &mut Tx, tenant: Option<&str>) -> Result<Vec<OutletRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(ALL).bind(tenant).fetch_all(c).await)?;
    rows.into_iter().map(OutletRow::try_from).collect()
}

pub async fn one(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<OutletRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(ONE).bind(tenant).bind(id).fetch_optional(c).await)?;
    row.map(OutletRow::try_from).transpose()
}

/// An outlet of whatever tenant.
pub async fn by_id(tx: &mut Tx, id: &str) -> Result<Option<OutletRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(work::BY_ID).bind(id).fetch_optional(c).await)?;
    row.map(OutletRow::try_from).transpose()
}

pub async fn count(tx: &mut Tx, tenant: &str, kind: OutletKind) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(COUNT).bind(tenant).bind(kind.as_str()).fetch_one(c).await)?)
}

/// Changes an outlet; whoever works for it begins anew with what it is now. `false`: it is not there.
pub async fn update(tx: &mut Tx, tenant: &str, id: &str, change: &Change, now: Timestamp) -> Result<bool, StoreError> {
    let state = change.enabled.map(|enabled| if enabled { "enabled" } else { "disabled" });
    let because = (change.enabled == Some(false)).then_some("somebody disabled it");
    let done = on!(tx, c => sqlx::query(UPDATE)
        .bind(tenant)
        .bind(id)
        .bind(&change.url)
        .bind(change.types.as_ref().map(|types| json!(types).to_string()))
        .bind(&change.description)
        .bind(state)
        .bind(because)
        .bind(to_micros(now))
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    Ok(done == 1)
}

/// Says anew which types of events an outlet of the configuration wants.
pub async fn retype(tx: &mut Tx, id: &str, types: &[String]) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(RETYPE).bind(id).bind(json!(types).to_string()).execute(c).await.map(drop))?;
    Ok(())
}

/// Gives an outlet a new secret (sealed); the old one signs too until an instant.
pub async fn rotate(
    tx: &mut Tx,
    (tenant, id): (&str, &str),
    secret: &[u8],
    previous_until: Timestamp,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = on!(tx, c => sqlx::query(ROTATE)
        .bind(tenant)
        .bind(id)
        .bind(secret)
        .bind(to_micros(previous_until))
        .bind(to_micros(now))
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    Ok(done == 1)
}

/// Takes an outlet away, with its list.
pub async fn delete(tx: &mut Tx, tenant: &str, id: &str) -> Result<bool, StoreError> {
    let done = on!(tx, c => sqlx::query(DELETE).bind(tenant).bind(id).execute(c).await
        .map(|done| done.rows_affected()))?;
    Ok(done == 1)
}

/// A page of an outlet's list.
pub async fn deliveries(
    tx: &mut Tx,
    outlet: &str,
    after: i64,
    state: Option<&str>,
    limit: i64,
) -> Result<Vec<DeliveryRow>, StoreError> {
    let rows: Vec<ListRow> = on!(tx, c => sqlx::query_as(DELIVERIES)
        .bind(outlet)
        .bind(after)
        .bind(state)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(DeliveryRow::try_from).collect()
}

/// Asks for events again; at most `REPLAY_MAX`, and none that the outlet has not come to yet. How many there are.
pub async fn replay(tx: &mut Tx, outlet: &OutletRow, what: Replayed, now: Timestamp) -> Result<u64, StoreError> {
    let at = to_micros(now);
    let done = match what {
        Replayed::Range { from, to } => on!(tx, c => sqlx::query(REPLAY_RANGE)
            .bind(&outlet.id)
            .bind(&outlet.tenant)
            .bind(from)
            .bind(to)
            .bind(at)
            .bind(json!(outlet.types).to_string())
            .bind(REPLAY_MAX)
            .execute(c)
            .await.map(|done| done.rows_affected()))?,
        Replayed::Dead => on!(tx, c => sqlx::query(REPLAY_DEAD)
            .bind(&outlet.id)
            .bind(at)
            .bind(REPLAY_MAX)
            .execute(c)
            .await.map(|done| done.rows_affected()))?,
    };
    Ok(done)
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    tenant: String,
    kind: String,
    shape: String,
    url: String,
    types: String,
    description: String,
    state: String,
    because: Option<String>,
    secret: Option<Vec<u8>>,
    previous_secret: Option<Vec<u8>>,
    previous_until: Option<i64>,
    position: i64,
    slow_until: i64,
    failures: i64,
    failing_since: Option<i64>,
    delivered: i64,
    last_delivered_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for OutletRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "outlet", column, id: row.id.clone() };
        let at = |micros: i64, column| from_micros(micros).ok_or_else(|| corrupt(column));
        let maybe = |micros: Option<i64>, column| micros.map(|micros| at(micros, column)).transpose();
        Ok(Self {
            kind: OutletKind::parse(&row.kind).ok_or_else(|| corrupt("kind"))?,
            shape: Shape::parse(&row.shape).ok_or_else(|| corrupt("shape"))?,
            types: serde_json::from_str(&row.types).map_err(|_| corrupt("types"))?,
            enabled: row.state == "enabled",
            previous: row.previous_secret.zip(maybe(row.previous_until, "previous_until")?),
            slow_until: at(row.slow_until, "slow_until")?,
            failing_since: maybe(row.failing_since, "failing_since")?,
            last_delivered_at: maybe(row.last_delivered_at, "last_delivered_at")?,
            created_at: at(row.created_at, "created_at")?,
            updated_at: at(row.updated_at, "updated_at")?,
            id: row.id.clone(),
            tenant: row.tenant,
            url: row.url,
            description: row.description,
            because: row.because,
            secret: row.secret,
            position: row.position,
            failures: row.failures,
            delivered: row.delivered,
        })
    }
}

#[derive(sqlx::FromRow)]
struct ListRow {
    outlet: String,
    sequence: i64,
    subject: String,
    state: String,
    attempts: i64,
    next_at: Option<i64>,
    status: Option<i64>,
    detail: Option<String>,
    updated_at: i64,
}

impl TryFrom<ListRow> for DeliveryRow {
    type Error = StoreError;

    fn try_from(row: ListRow) -> Result<Self, StoreError> {
        let corrupt =
            |column| StoreError::Corrupt { table: "delivery", column, id: format!("{}.{}", row.outlet, row.sequence) };
        Ok(Self {
            next_at: row.next_at.map(|at| from_micros(at).ok_or_else(|| corrupt("next_at"))).transpose()?,
            updated_at: from_micros(row.updated_at).ok_or_else(|| corrupt("updated_at"))?,
            outlet: row.outlet,
            sequence: row.sequence,
            subject: row.subject,
            state: row.state,
            attempts: row.attempts,
            status: row.status,
            detail: row.detail,
        })
    }
}
