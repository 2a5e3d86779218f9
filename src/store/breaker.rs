//! Changes of billing systems that would take too much away: those that wait for an operator, sealed, and how much each
//! source took away by the hour.

use serde_json::Value as Json;

use super::many::{Many, Of};
use super::{Sealer, StoreError, Tx, on};
use crate::account::Loss;
use crate::vocabulary::{AccountKey, SourceId, TenantId, Timestamp, from_micros, to_micros};

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    Push,
    Close,
    /// An operator's hold on one service.
    Suspend,
}

/// A change that waits for an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldChange {
    pub id: i64,
    pub key: AccountKey,
    /// External id of the service whose suspension waits.
    pub service: Option<String>,
    pub kind: Waiting,
    sealed: Vec<u8>,
    pub source_revision: Option<i64>,
    pub losses: Vec<Loss>,
    /// Who sent it.
    pub actor: String,
    /// The profile and input it came by.
    pub origin: Option<Json>,
    /// How often it came, or a newer one in its place.
    pub times: i64,
    pub held_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A change that is to wait.
#[derive(Debug, Clone, Copy)]
pub struct NewHeld<'a> {
    pub key: &'a AccountKey,
    /// Of a suspension alone.
    pub service: Option<&'a str>,
    pub kind: Waiting,
    /// The document, or what the closing or the suspension asked for; may have secrets.
    pub content: &'a Json,
    pub source_revision: Option<i64>,
    pub losses: &'a [Loss],
    pub actor: &'a str,
    pub origin: Option<&'a Json>,
}

macro_rules! select_held {
    ($rest:literal) => {
        concat!(
            "SELECT held_change.id, held_change.tenant, held_change.source, held_change.account, held_change.service,
                    held_change.kind,
                    held_change.sealed, held_change.source_revision, held_change.losses, held_change.actor,
                    held_change.origin, held_change.times, held_change.held_at, held_change.updated_at
             FROM ",
            $rest
        )
    };
}

static OF_ACCOUNTS: Many<3> = Many::new(
    [("tenant", Of::Text), ("source", Of::Text), ("account", Of::Text)],
    select_held!(
        "new CROSS JOIN held_change
         WHERE held_change.tenant = new.tenant AND held_change.source = new.source
           AND held_change.account = new.account AND held_change.service = ''
         ORDER BY held_change.id"
    ),
);
const ONE: &str = select_held!("held_change WHERE id = $1");
const LIST: &str = select_held!(
    "held_change
     WHERE ($1 IS NULL OR tenant = $1) AND ($2 IS NULL OR source = $2) AND id > $3
     ORDER BY id LIMIT $4"
);
const HOLD: &str = "INSERT INTO held_change
         (tenant, source, account, service, kind, sealed, source_revision, losses, actor, origin, times, held_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, $11)
     ON CONFLICT (tenant, source, account, service) DO UPDATE
     SET kind = excluded.kind, sealed = excluded.sealed, source_revision = excluded.source_revision,
         losses = excluded.losses, actor = excluded.actor, origin = excluded.origin,
         times = held_change.times + 1, updated_at = excluded.updated_at
     RETURNING id";
static END: Many<1> = Many::new([("id", Of::Integer)], "DELETE FROM held_change WHERE id IN (SELECT id FROM new)");
const END_SUSPENSIONS: &str = "DELETE FROM held_change
     WHERE tenant = $1 AND source = $2 AND account = $3 AND service <> '' AND ($4 IS NULL OR service = $4)";
const COUNT: &str = "SELECT COUNT(*) FROM held_change";
const COUNT_OF: &str = "SELECT COUNT(*) FROM held_change WHERE tenant = $1 AND source = $2";
const TAKEN: &str = "SELECT CAST(COALESCE(SUM(accounts), 0) AS BIGINT) FROM source_loss
     WHERE tenant = $1 AND source = $2 AND hour_at > $3";
const TAKE: &str = "INSERT INTO source_loss (tenant, source, hour_at, accounts) VALUES ($1, $2, $3, $4)
     ON CONFLICT (tenant, source, hour_at) DO UPDATE SET accounts = source_loss.accounts + excluded.accounts";
const FORGET: &str = "DELETE FROM source_loss WHERE hour_at < $1";
const LIVING: &str = "SELECT COUNT(*) FROM account WHERE tenant = $1 AND source = $2 AND closed_at IS NULL";

const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_HOURS: i64 = 24;

/// The push or closing that waits of each of these accounts.
pub async fn of_accounts(tx: &mut Tx, keys: &[&AccountKey]) -> Result<Vec<HeldChange>, StoreError> {
    let place = |key: &&'_ AccountKey| {
        [key.tenant.as_str(), key.source.as_str(), &key.external_id].map(|text| text.to_owned().into())
    };
    let rows: Vec<Row> = OF_ACCOUNTS.fetch(tx, keys.iter().map(place).collect()).await?;
    rows.into_iter().map(HeldChange::try_from).collect()
}

/// One that waits.
pub async fn one(tx: &mut Tx, id: i64) -> Result<Option<HeldChange>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(ONE).bind(id).fetch_optional(c).await)?;
    row.map(HeldChange::try_from).transpose()
}

/// Those that wait, the oldest first, after row `after`.
pub async fn list(
    tx: &mut Tx,
    tenant: Option<&str>,
    source: Option<&str>,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<HeldChange>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(tenant)
        .bind(source)
        .bind(after.unwrap_or(0))
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(HeldChange::try_from).collect()
}

/// Holds a change, in place of the one that waited of its account. Returns its row.
pub async fn hold(tx: &mut Tx, sealer: &Sealer, new: &NewHeld<'_>, now: Timestamp) -> Result<i64, StoreError> {
    let content = sealer.seal_bytes(&place(new.key, new.service), new.content.to_string().as_bytes())?;
    let losses = serde_json::to_string(new.losses).unwrap_or_default();
    let id = on!(tx, c => sqlx::query_scalar(HOLD)
        .bind(new.key.tenant.as_str())
        .bind(new.key.source.as_str())
        .bind(&new.key.external_id)
        .bind(new.service.unwrap_or_default())
        .bind(new.kind.as_str())
        .bind(&content)
        .bind(new.source_revision)
        .bind(&losses)
        .bind(new.actor)
        .bind(new.origin.map(Json::to_string))
        .bind(to_micros(now))
        .fetch_one(c)
        .await)?;
    Ok(id)
}

/// They wait no longer.
pub async fn end(tx: &mut Tx, ids: &[i64]) -> Result<(), StoreError> {
    END.execute(tx, ids.iter().map(|id| [(*id).into()]).collect()).await
}

/// Suspensions of an account's service, or of all its services, wait no longer.
pub async fn end_suspensions(
    tx: &mut Tx,
    (tenant, source, account): (&str, &str, &str),
    service: Option<&str>,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(END_SUSPENSIONS)
        .bind(tenant)
        .bind(source)
        .bind(account)
        .bind(service)
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// How many wait in all.
pub async fn count(tx: &mut Tx) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(COUNT).fetch_one(c).await)?)
}

/// How many wait of a source.
pub async fn count_of(tx: &mut Tx, tenant: &str, source: &str) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(COUNT_OF).bind(tenant).bind(source).fetch_one(c).await)?)
}

/// How many changes of a source took away in the last 24 hours, the running hour included.
pub async fn taken(tx: &mut Tx, tenant: &str, source: &str, now: Timestamp) -> Result<i64, StoreError> {
    let since = hour(now) - DAY_HOURS * HOUR_MICROS;
    Ok(on!(tx, c => sqlx::query_scalar(TAKEN).bind(tenant).bind(source).bind(since).fetch_one(c).await)?)
}

/// Counts changes that took away.
pub async fn take(tx: &mut Tx, tenant: &str, source: &str, accounts: i64, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(TAKE)
        .bind(tenant)
        .bind(source)
        .bind(hour(now))
        .bind(accounts)
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Forgets counts that no longer matter.
pub async fn forget(tx: &mut Tx, now: Timestamp) -> Result<(), StoreError> {
    let before = hour(now) - 2 * DAY_HOURS * HOUR_MICROS;
    on!(tx, c => sqlx::query(FORGET).bind(before).execute(c).await.map(drop))?;
    Ok(())
}

/// How many accounts of a source live.
pub async fn living(tx: &mut Tx, tenant: &str, source: &str) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(LIVING).bind(tenant).bind(source).fetch_one(c).await)?)
}

fn hour(now: Timestamp) -> i64 {
    let micros = to_micros(now);
    micros - micros.rem_euclid(HOUR_MICROS)
}

fn place(key: &AccountKey, service: Option<&str>) -> String {
    let of = service.map(|service| format!("\u{0}{service}")).unwrap_or_default();
    format!("{}\u{0}held_change\u{0}{}\u{0}{}{of}\u{0}sealed", key.tenant, key.source, key.external_id)
}

impl Waiting {
    pub fn as_str(self) -> &'static str {
        match self {
            Waiting::Push => "push",
            Waiting::Close => "close",
            Waiting::Suspend => "suspend",
        }
    }
}

impl HeldChange {
    /// What was asked for.
    ///
    /// **Errors**: `Corrupt` when it was sealed with another key.
    pub fn content(&self, sealer: &Sealer) -> Result<Json, StoreError> {
        let clear = sealer.open_bytes(&place(&self.key, self.service.as_deref()), &self.sealed)?;
        let corrupt = || StoreError::Corrupt { table: "held_change", column: "sealed", id: self.id.to_string() };
        serde_json::from_slice(&clear).map_err(|_| corrupt())
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    tenant: String,
    source: String,
    account: String,
    service: String,
    kind: String,
    sealed: Vec<u8>,
    source_revision: Option<i64>,
    losses: String,
    actor: String,
    origin: Option<String>,
    times: i64,
    held_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for HeldChange {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt =
            |column: &'static str| StoreError::Corrupt { table: "held_change", column, id: row.id.to_string() };
        let instant = |at: i64, column: &'static str| from_micros(at).ok_or_else(|| corrupt(column));
        let kind = [Waiting::Push, Waiting::Close, Waiting::Suspend].into_iter().find(|kind| kind.as_str() == row.kind);
        let origin = row.origin.as_deref().map(serde_json::from_str).transpose();
        Ok(Self {
            key: AccountKey {
                tenant: TenantId::parse(&row.tenant).map_err(|_| corrupt("tenant"))?,
                source: SourceId::parse(&row.source).map_err(|_| corrupt("source"))?,
                external_id: row.account.clone(),
            },
            service: Some(row.service.clone()).filter(|service| !service.is_empty()),
            kind: kind.ok_or_else(|| corrupt("kind"))?,
            losses: serde_json::from_str(&row.losses).map_err(|_| corrupt("losses"))?,
            origin: origin.map_err(|_| corrupt("origin"))?,
            held_at: instant(row.held_at, "held_at")?,
            updated_at: instant(row.updated_at, "updated_at")?,
            id: row.id,
            sealed: row.sealed,
            source_revision: row.source_revision,
            actor: row.actor,
            times: row.times,
        })
    }
}
