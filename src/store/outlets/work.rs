//! What whoever works for an outlet reads and records. A claim lends an outlet to one daemon; each claim raises its epoch, and
//! what an older epoch records is refused, so that a daemon that was frozen for a while cannot undo what another did.

use super::{OutletRow, Row, select_outlet};
use crate::store::events::{self, Event, EventFilter};
use crate::store::many::{Many, Of};
use crate::store::{Dialect, StoreError, Tx, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// An outlet lent to this daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    pub row: OutletRow,
    pub epoch: i64,
}

/// An event of the list whose time has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    pub event: Event,
    pub attempts: i64,
}

/// What is written to the list of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub sequence: i64,
    pub subject: String,
    pub state: &'static str,
    pub attempts: i64,
    pub next_at: Option<Timestamp>,
    pub status: Option<u16>,
    pub detail: Option<String>,
}

/// How an outlet does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub failures: i64,
    pub failing_since: Option<Timestamp>,
    pub slow_until: Timestamp,
    /// More that were delivered since the last record.
    pub delivered: i64,
    pub last_delivered_at: Option<Timestamp>,
    /// Why it is disabled from now on.
    pub disabled: Option<String>,
}

/// What became of an outlet's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress<'a> {
    pub position: i64,
    pub entries: &'a [Entry],
    /// Subjects whose events in the list may be sent now.
    pub released: &'a [String],
    /// The receiver is back: what waits for its next attempt is due now.
    pub revived: bool,
    pub health: &'a Health,
}

/// How far behind outlets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    pub kind: String,
    /// When the oldest event happened that no attempt was made for.
    pub oldest: Option<Timestamp>,
    /// Events in lists that are tried again.
    pub waiting: i64,
}

const WITH_WORK: &str = "SELECT outlet.id FROM outlet
     LEFT JOIN event_sequence ON event_sequence.tenant = outlet.tenant
     WHERE outlet.state = 'enabled' AND outlet.slow_until <= $1
       AND (outlet.claimed_until < $4 OR outlet.claimed_by = $2)
       AND (COALESCE(event_sequence.last, 0) > outlet.position
            OR EXISTS (SELECT 1 FROM delivery WHERE delivery.outlet = outlet.id AND delivery.state = 'pending'
                       AND delivery.next_at <= $1)
            OR EXISTS (SELECT 1 FROM delivery WHERE delivery.outlet = outlet.id AND delivery.state = 'sending'))
     ORDER BY outlet.claimed_until, outlet.id LIMIT $3";
const CLAIM: &str = "UPDATE outlet SET claimed_by = $2, claimed_until = $3, epoch = epoch + 1
     WHERE id = $1 AND state = 'enabled' AND (claimed_until < $4 OR claimed_by = $2)
     RETURNING epoch";
pub(super) const BY_ID: &str = select_outlet!("WHERE id = $1");
const RELEASE: &str = "UPDATE outlet SET claimed_until = 0, claimed_by = NULL WHERE id = $1 AND epoch = $2";
const BLOCKED: &str = "SELECT DISTINCT subject FROM delivery WHERE outlet = $1 AND state = 'pending' LIMIT 100000";
const LISTED_AFTER: &str = "SELECT sequence FROM delivery WHERE outlet = $1 AND sequence > $2 LIMIT 1000000";
const IS_LENT: &str = "SELECT COUNT(*) FROM outlet WHERE id = $1 AND epoch = $2 AND state = 'enabled'";
const COUNT_WAITING: &str = "SELECT COUNT(*) FROM delivery WHERE outlet = $1 AND state = 'pending'";
const DUE: &str =
    "SELECT delivery.attempts, event.tenant, event.sequence, event.type, event.subject, event.occurred_at,
        event.payload
     FROM delivery JOIN event ON event.tenant = $2 AND event.sequence = delivery.sequence
     WHERE delivery.outlet = $1 AND delivery.state = 'pending' AND delivery.next_at <= $3
     ORDER BY delivery.sequence LIMIT $4";
const PROGRESS: &str = "UPDATE outlet
     SET position = $3, failures = $4, failing_since = $5, slow_until = $6, delivered = delivered + $7,
         last_delivered_at = COALESCE($8, last_delivered_at),
         state = CASE WHEN $9 IS NULL THEN state ELSE 'disabled' END, because = COALESCE($9, because),
         claimed_until = $10
     WHERE id = $1 AND epoch = $2";
static ENTRIES: Many<9> = Many::new(
    [
        ("outlet", Of::Text),
        ("sequence", Of::Integer),
        ("subject", Of::Text),
        ("state", Of::Text),
        ("attempts", Of::Integer),
        ("next_at", Of::Integer),
        ("status", Of::Integer),
        ("detail", Of::Text),
        ("updated_at", Of::Integer),
    ],
    "INSERT INTO delivery (outlet, sequence, subject, state, attempts, next_at, status, detail, updated_at)
     SELECT outlet, sequence, subject, state, attempts, next_at, status, detail, updated_at FROM new WHERE TRUE
     ON CONFLICT (outlet, sequence) DO UPDATE SET state = excluded.state, attempts = excluded.attempts,
        next_at = excluded.next_at, status = COALESCE(excluded.status, delivery.status),
        detail = COALESCE(excluded.detail, delivery.detail), updated_at = excluded.updated_at",
);
const REVIVE: &str = "UPDATE delivery SET next_at = $2 WHERE outlet = $1 AND state = 'pending' AND next_at > $2";
static FREE: Many<3> = Many::new(
    [("outlet", Of::Text), ("subject", Of::Text), ("at", Of::Integer)],
    "UPDATE delivery SET next_at = new.at FROM new
     WHERE delivery.outlet = new.outlet AND delivery.subject = new.subject AND delivery.state = 'pending'
       AND delivery.next_at IS NULL",
);
static STILL: Many<2> = Many::new(
    [("outlet", Of::Text), ("subject", Of::Text)],
    "SELECT DISTINCT delivery.subject FROM delivery JOIN new
        ON delivery.outlet = new.outlet AND delivery.subject = new.subject AND delivery.state = 'pending'",
);
const MINE: &str = "UPDATE outlet SET epoch = epoch WHERE id = $1 AND epoch = $2";
const UNCLEAR: &str = "UPDATE delivery SET state = 'dead', next_at = NULL, updated_at = $2,
         detail = 'the daemon ended while it was being sent; it may have arrived, so it is not sent again by itself'
     WHERE outlet = $1 AND state = 'sending'";
const UNSTICK: &str = "UPDATE delivery SET next_at = $2
     WHERE outlet = $1 AND state = 'pending' AND next_at IS NULL
       AND NOT EXISTS (SELECT 1 FROM delivery AS earlier WHERE earlier.outlet = delivery.outlet
            AND earlier.subject = delivery.subject AND earlier.state = 'pending' AND earlier.next_at IS NOT NULL)";
const FORGET: &str = "DELETE FROM delivery WHERE state IN ('delivered', 'dead') AND (outlet, sequence) IN
     (SELECT outlet, sequence FROM delivery WHERE state IN ('delivered', 'dead') AND updated_at < $1
      ORDER BY updated_at LIMIT $2)";
const LAG: &str = "SELECT outlet.kind, CAST(MIN(event.occurred_at) AS BIGINT),
        CAST(COALESCE(SUM((SELECT COUNT(*) FROM delivery WHERE delivery.outlet = outlet.id
                  AND delivery.state = 'pending')), 0) AS BIGINT)
     FROM outlet LEFT JOIN event ON event.tenant = outlet.tenant AND event.sequence = outlet.position + 1
     WHERE outlet.state = 'enabled' GROUP BY outlet.kind ORDER BY outlet.kind";

/// Enabled outlets that have something to do and that no other daemon works for.
pub async fn with_work(tx: &mut Tx, owner: &str, now: Timestamp, limit: i64) -> Result<Vec<String>, StoreError> {
    let dialect = tx.dialect();
    Ok(on!(tx, c => sqlx::query_scalar(WITH_WORK)
        .bind(to_micros(now))
        .bind(owner)
        .bind(limit)
        .bind(standing_from(dialect, now))
        .fetch_all(c)
        .await)?)
}

/// Claims that end before this no longer count. On SQLite there is no other daemon: whoever had one is gone.
fn standing_from(dialect: Dialect, now: Timestamp) -> i64 {
    match dialect {
        Dialect::Sqlite => i64::MAX,
        Dialect::Postgres => to_micros(now),
    }
}

/// Lends an outlet to this daemon until an instant. `None`: another has it, or it is disabled.
pub async fn claim(
    tx: &mut Tx,
    id: &str,
    owner: &str,
    until: Timestamp,
    now: Timestamp,
) -> Result<Option<Claimed>, StoreError> {
    let standing_from = standing_from(tx.dialect(), now);
    let epoch: Option<i64> = on!(tx, c => sqlx::query_scalar(CLAIM)
        .bind(id)
        .bind(owner)
        .bind(to_micros(until))
        .bind(standing_from)
        .fetch_optional(c)
        .await)?;
    let Some(epoch) = epoch else { return Ok(None) };
    let row: Option<Row> = on!(tx, c => sqlx::query_as(BY_ID).bind(id).fetch_optional(c).await)?;
    row.map(|row| Ok(Claimed { row: OutletRow::try_from(row)?, epoch })).transpose()
}

/// Gives an outlet back.
pub async fn release(tx: &mut Tx, id: &str, epoch: i64) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(RELEASE).bind(id).bind(epoch).execute(c).await.map(drop))?;
    Ok(())
}

/// Subjects of which an event waits in the list.
pub async fn blocked(tx: &mut Tx, id: &str) -> Result<Vec<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(BLOCKED).bind(id).fetch_all(c).await)?)
}

/// Events after a number that stand in the list already, in whatever state: whoever recorded them did not come to record
/// what was before them.
pub async fn listed_after(tx: &mut Tx, id: &str, position: i64) -> Result<Vec<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(LISTED_AFTER).bind(id).bind(position).fetch_all(c).await)?)
}

/// Whether an outlet is still lent under this epoch, enabled and as it was.
pub async fn is_lent(tx: &mut Tx, claimed: &Claimed) -> Result<bool, StoreError> {
    let count: i64 =
        on!(tx, c => sqlx::query_scalar(IS_LENT).bind(&claimed.row.id).bind(claimed.epoch).fetch_one(c).await)?;
    Ok(count == 1)
}

/// How many events wait in the list.
pub async fn count_waiting(tx: &mut Tx, id: &str) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(COUNT_WAITING).bind(id).fetch_one(c).await)?)
}

/// Events after a number, of every type.
pub async fn fetch(tx: &mut Tx, tenant: &str, after: i64, limit: i64) -> Result<Vec<Event>, StoreError> {
    events::list(tx, &EventFilter { tenant, after, kind: None, limit }).await
}

/// Events of the list whose time has come, in the order of their numbers.
pub async fn due(tx: &mut Tx, outlet: &OutletRow, now: Timestamp, limit: i64) -> Result<Vec<Due>, StoreError> {
    let rows: Vec<DueRow> = on!(tx, c => sqlx::query_as(DUE)
        .bind(&outlet.id)
        .bind(&outlet.tenant)
        .bind(to_micros(now))
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(|row| Ok(Due { attempts: row.attempts, event: row.event.try_into()? })).collect()
}

/// Records what became of events and how the outlet does, and keeps the claim until an instant. `None`: the outlet is no
/// longer lent to this daemon; nothing was written. Else those of the released subjects that still have events in the list.
pub async fn record(
    tx: &mut Tx,
    claimed: &Claimed,
    progress: &Progress<'_>,
    until: Timestamp,
    now: Timestamp,
) -> Result<Option<Vec<String>>, StoreError> {
    let (id, at) = (claimed.row.id.as_str(), to_micros(now));
    let Health { failures, failing_since, slow_until, delivered, last_delivered_at, disabled } = progress.health;
    let mine = on!(tx, c => sqlx::query(PROGRESS)
        .bind(id)
        .bind(claimed.epoch)
        .bind(progress.position)
        .bind(failures)
        .bind(failing_since.map(to_micros))
        .bind(to_micros(*slow_until))
        .bind(delivered)
        .bind(last_delivered_at.map(to_micros))
        .bind(disabled.as_deref())
        .bind(to_micros(until))
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    if mine == 0 {
        return Ok(None);
    }
    let mut rows = Vec::with_capacity(progress.entries.len());
    for entry in progress.entries {
        rows.push([
            id.into(),
            entry.sequence.into(),
            entry.subject.as_str().into(),
            entry.state.into(),
            entry.attempts.into(),
            entry.next_at.map(to_micros).into(),
            entry.status.map(i64::from).into(),
            entry.detail.as_deref().into(),
            at.into(),
        ]);
    }
    ENTRIES.execute(tx, rows).await?;
    if progress.revived {
        on!(tx, c => sqlx::query(REVIVE).bind(id).bind(at).execute(c).await.map(drop))?;
    }
    if progress.released.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let subjects = progress.released.iter().map(|subject| [id.into(), subject.as_str().into(), at.into()]);
    FREE.execute(tx, subjects.collect()).await?;
    let subjects = progress.released.iter().map(|subject| [id.into(), subject.as_str().into()]);
    let still: Vec<(String,)> = STILL.fetch(tx, subjects.collect()).await?;
    Ok(Some(still.into_iter().map(|(subject,)| subject).collect()))
}

/// Notes, before it is done, that an event is being sent that must not be sent twice. `false`: the outlet is no longer lent
/// to this daemon.
pub async fn mark_sending(tx: &mut Tx, claimed: &Claimed, entry: &Entry, now: Timestamp) -> Result<bool, StoreError> {
    let id = claimed.row.id.as_str();
    let mine = on!(tx, c => sqlx::query(MINE).bind(id).bind(claimed.epoch).execute(c).await
        .map(|done| done.rows_affected()))?;
    if mine == 0 {
        return Ok(false);
    }
    let row = [
        id.into(),
        entry.sequence.into(),
        entry.subject.as_str().into(),
        "sending".into(),
        entry.attempts.into(),
        None::<i64>.into(),
        None::<i64>.into(),
        None::<&str>.into(),
        to_micros(now).into(),
    ];
    ENTRIES.execute(tx, vec![row]).await?;
    Ok(true)
}

/// Puts aside what an ended daemon was sending, and lets go what waits behind nothing. How many were put aside.
pub async fn unclear(tx: &mut Tx, id: &str, now: Timestamp) -> Result<u64, StoreError> {
    let at = to_micros(now);
    let unclear = on!(tx, c => sqlx::query(UNCLEAR).bind(id).bind(at).execute(c).await
        .map(|done| done.rows_affected()))?;
    on!(tx, c => sqlx::query(UNSTICK).bind(id).bind(at).execute(c).await.map(drop))?;
    Ok(unclear)
}

/// Deletes at most `limit` ended events from lists, from before an instant.
pub async fn forget(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
    Ok(on!(tx, c => sqlx::query(FORGET).bind(to_micros(before)).bind(limit).execute(c).await
        .map(|done| done.rows_affected()))?)
}

/// How far behind the enabled outlets are, by kind.
pub async fn lag(tx: &mut Tx) -> Result<Vec<Lag>, StoreError> {
    let rows: Vec<(String, Option<i64>, i64)> = on!(tx, c => sqlx::query_as(LAG).fetch_all(c).await)?;
    Ok(rows
        .into_iter()
        .map(|(kind, oldest, waiting)| Lag { kind, oldest: oldest.and_then(from_micros), waiting })
        .collect())
}

#[derive(sqlx::FromRow)]
struct DueRow {
    attempts: i64,
    #[sqlx(flatten)]
    event: events::Row,
}
