//! What NAS are asked to do with live sessions: a request is one change of a login (or one wish of an operator), and its
//! orders are what follows for each session. Written by whoever changed the AAA rows, worked off by `nas_control`.
//!
//! A login has at most one unfinished request. A newer change takes its place: orders not sent yet are dropped, and what
//! the sessions began with (`origin`) is carried over, so that a change and its reversal leave them alone.

mod rows;

use std::collections::HashSet;
use std::time::Duration;

pub use rows::{
    Action, Again, Attempted, Authorized, Change, DueOrder, LANE_BULK, LANE_HAND, LANE_SINGLE, LiveSession, NewOrder,
    OrderView, Outcome, RequestRow, Wish,
};
use rows::{Active, Due, Live, Request, View, json, parse};

use super::many::{Many, Of};
use super::{Dialect, Store, StoreError, Tx, on};
use crate::provision::Authorization;
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// Finished requests are kept this long.
pub const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

const ACTIVE: &str = "SELECT id, origin, target, since_at, written_at, revision FROM nas_request
     WHERE element_id = $1 AND finished_at IS NULL";
const WAS_SENT: &str = "SELECT COUNT(*) FROM nas_order WHERE request_id = $1 AND sent_at IS NOT NULL";
const CARRY: &str = "UPDATE nas_request SET revision = $2, updated_at = $3 WHERE id = $1";
const DROP_ORDERS: &str = "UPDATE nas_order SET outcome = 'dropped', finished_at = $2, updated_at = $2,
         detail = 'a newer change of the login took its place'
     WHERE request_id = $1 AND finished_at IS NULL";
const FINISH: &str = "UPDATE nas_request SET finished_at = $2, updated_at = $2 WHERE id = $1 AND finished_at IS NULL";
const LANE_OF_JOB: &str = "SELECT lane FROM job WHERE element_id = $1 AND finished_at IS NULL";
const INSERT: &str = "INSERT INTO nas_request
         (tenant, account_id, element_id, session_id, username, revision, cause, origin, previous, target, lane,
          since_at, written_at, run_at, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14, $14)
     RETURNING id";
macro_rules! select_request {
    ($rest:literal) => {
        concat!(
            "SELECT id, element_id, session_id, username, revision, cause, origin, previous, target, lane, since_at,
                    written_at, looks, created_at FROM nas_request ",
            $rest
        )
    };
}
const DUE_REQUESTS: &str =
    select_request!("WHERE finished_at IS NULL AND run_at <= $1 ORDER BY lane, run_at, id LIMIT $2");
// A user name may have moved from account to account: the sessions of every holder it had count. A session that only
// informs (the mark 256) is not one the NAS can be asked about.
const LIVE_OF_USER: &str = "SELECT session.id, session.nas, session.session, session.user_name, session.framed_ip,
        session.calling_station, session.started_at,
        CASE WHEN own.id IS NULL THEN 0 ELSE 1 END AS ordered
     FROM session LEFT JOIN nas_order AS own ON own.request_id = $2 AND own.session_id = session.id
     WHERE session.account_id IN
           (SELECT holder.account_id FROM holder WHERE holder.kind = 'username' AND LOWER(holder.value) = LOWER($1))
       AND LOWER(session.user_name) = LOWER($1) AND session.ended_at IS NULL AND (session.flags & 256) = 0
     ORDER BY session.id LIMIT 1000";
const LIVE_BY_ID: &str = "SELECT session.id, session.nas, session.session, session.user_name, session.framed_ip,
        session.calling_station, session.started_at,
        CASE WHEN own.id IS NULL THEN 0 ELSE 1 END AS ordered
     FROM session LEFT JOIN nas_order AS own ON own.request_id = $2 AND own.session_id = session.id
     WHERE session.id = $1 AND session.ended_at IS NULL";
const DISCONNECTED_AT: &str = "SELECT MIN(sent_at) FROM nas_order
     WHERE request_id = $1 AND action = 'disconnect' AND outcome = 'ack'";
const INSERT_ORDER: &str = "INSERT INTO nas_order
         (request_id, session_id, client, action, attributes, lane, run_at, outcome, detail, created_at, updated_at,
          finished_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11)
     ON CONFLICT (request_id, session_id) DO NOTHING";
const LOOKED: &str = "UPDATE nas_request SET looks = looks + 1, run_at = $2, updated_at = $3
     WHERE id = $1 AND finished_at IS NULL";
const UNFINISHED: &str = "SELECT COUNT(*) FROM nas_order WHERE request_id = $1 AND finished_at IS NULL";
const WAITING: &str =
    "SELECT client, COUNT(*) FROM nas_order WHERE finished_at IS NULL GROUP BY client ORDER BY client";
// While a newer desired state is on its way its change takes the place of this one.
const DUE_ORDERS: &str = "SELECT nas_order.id, nas_order.request_id, nas_order.session_id, nas_order.client,
        nas_order.action, nas_order.attributes, nas_order.lane, nas_order.attempt, nas_order.detail, session.nas,
        session.session, session.user_name, session.framed_ip, session.calling_station,
        CASE WHEN session.ended_at IS NULL THEN 0 ELSE 1 END AS ended
     FROM nas_order
     JOIN nas_request ON nas_request.id = nas_order.request_id
     JOIN session ON session.id = nas_order.session_id
     LEFT JOIN element ON element.id = nas_request.element_id
     WHERE nas_order.finished_at IS NULL AND nas_order.client = $1 AND nas_order.run_at <= $2
       AND (element.id IS NULL OR element.desired_revision <= nas_request.revision)
     ORDER BY nas_order.lane, nas_order.run_at, nas_order.id LIMIT $3";
static MARK_SENT: Many<2> = Many::new(
    [("id", Of::Integer), ("at", Of::Integer)],
    "UPDATE nas_order SET sent_at = new.at, updated_at = new.at
     FROM new WHERE nas_order.id = new.id AND finished_at IS NULL RETURNING nas_order.id",
);
// Dropped while it was under way: what the NAS said is noted all the same.
const RECORD: &str = "UPDATE nas_order
     SET outcome = $2, error_cause = $3, detail = $4, attempt = $5, run_at = $6, action = $7,
         sent_at = COALESCE($8, sent_at), updated_at = $9,
         finished_at = CASE WHEN finished_at IS NULL THEN $10 ELSE finished_at END
     WHERE id = $1 AND (finished_at IS NULL OR outcome = 'dropped')";
const CALL_STALE: &str = "UPDATE session SET state = 'stale' WHERE id = $1 AND ended_at IS NULL AND state = 'open'";
const OUTCOMES: &str = "SELECT nas_order.action, session.nas, nas_order.outcome, nas_order.sent_at, nas_order.detail
     FROM nas_order JOIN session ON session.id = nas_order.session_id
     WHERE nas_order.request_id = $1 ORDER BY nas_order.id LIMIT 10";
const TELL_ELEMENT: &str = "UPDATE element SET evidence = evidence || $3
     WHERE id = $1 AND applied_revision = $2 AND desired_revision = $2 AND evidence IS NOT NULL";
macro_rules! select_view {
    ($rest:literal) => {
        concat!(
            "SELECT nas_order.request_id, nas_order.session_id, nas_order.action, nas_request.cause, nas_order.outcome,
                    nas_order.error_cause, nas_order.detail, nas_order.attempt, nas_order.created_at,
                    nas_order.sent_at, nas_order.run_at, nas_order.finished_at
             FROM nas_order JOIN nas_request ON nas_request.id = nas_order.request_id ",
            $rest
        )
    };
}
const OF_SESSION: &str = select_view!("WHERE nas_order.session_id = $1 ORDER BY nas_order.id DESC LIMIT $2");
const OF_REQUEST: &str = select_view!("WHERE nas_order.request_id = $1 ORDER BY nas_order.id LIMIT 1000");
const FORGET: &str = "DELETE FROM nas_request WHERE id IN
     (SELECT id FROM nas_request WHERE finished_at < $1 ORDER BY finished_at LIMIT $2)";
const FORGET_ORDERS: &str = "DELETE FROM nas_order WHERE request_id IN
     (SELECT id FROM nas_request WHERE finished_at < $1 ORDER BY finished_at LIMIT $2)";

/// A transaction for requests and orders, which bear repeating: on SQLite it does not wait for the disk, for what a power
/// cut takes it takes in order, the progress recorded after it first. On PostgreSQL it is an ordinary one.
pub async fn begin(store: &Store) -> Result<Tx, StoreError> {
    match store.dialect() {
        Dialect::Sqlite => store.write_derived().await,
        Dialect::Postgres => store.write().await,
    }
}

/// Asks that the live sessions of a login follow a change of its rows. Returns the request, if any session may need one.
///
/// Committed before the element's own progress is: when the daemon dies between the two it is asked twice, never not.
pub async fn note(tx: &mut Tx, change: &Change<'_>) -> Result<Option<i64>, StoreError> {
    let element = change.element;
    let now = change.written_at;
    let active: Option<Active> = on!(tx, c => sqlx::query_as(ACTIVE).bind(element.id).fetch_optional(c).await)?;
    let (mut origin, mut since_at) = (change.before.clone(), now);
    if let Some(active) = active {
        let corrupt = |column| StoreError::Corrupt { table: "nas_request", column, id: active.id.to_string() };
        let target: Option<Authorization> = parse(active.target.as_deref()).map_err(|_| corrupt("target"))?;
        if change.before == change.after && target.as_ref() == Some(change.after) {
            // Only what concerns no session changed, a password for example: the request stays good.
            on!(tx, c => sqlx::query(CARRY)
                .bind(active.id)
                .bind(element.desired_revision)
                .bind(to_micros(now))
                .execute(c)
                .await.map(drop))?;
            return Ok(Some(active.id));
        }
        let sent: i64 = on!(tx, c => sqlx::query_scalar(WAS_SENT).bind(active.id).fetch_one(c).await)?;
        if sent == 0
            && let Some(first) = parse(active.origin.as_deref()).map_err(|_| corrupt("origin"))?
        {
            origin = first;
            since_at = from_micros(active.since_at).ok_or_else(|| corrupt("since_at"))?;
        }
        on!(tx, c => sqlx::query(DROP_ORDERS).bind(active.id).bind(to_micros(now)).execute(c).await.map(drop))?;
        on!(tx, c => sqlx::query(FINISH).bind(active.id).bind(to_micros(now)).execute(c).await.map(drop))?;
    }
    if change.before == change.after && origin == *change.after {
        return Ok(None);
    }
    let lane: Option<i64> = on!(tx, c => sqlx::query_scalar(LANE_OF_JOB).bind(element.id).fetch_optional(c).await)?;
    let lane = if lane == Some(super::jobs::LANE_BULK) { LANE_BULK } else { LANE_SINGLE };
    let cause =
        if change.before == change.after { origin.cause(change.after) } else { change.before.cause(change.after) };
    let id = on!(tx, c => sqlx::query_scalar(INSERT)
        .bind(&element.tenant)
        .bind(element.account_id)
        .bind(element.id)
        .bind(None::<i64>)
        .bind(&element.key)
        .bind(element.desired_revision)
        .bind(cause)
        .bind(json(&origin)?)
        .bind(json(change.before)?)
        .bind(json(change.after)?)
        .bind(lane)
        .bind(to_micros(since_at))
        .bind(to_micros(now))
        .bind(to_micros(now))
        .fetch_one(c)
        .await)?;
    Ok(Some(id))
}

/// Whether a login has an unfinished request.
pub async fn is_active(tx: &mut Tx, element_id: i64) -> Result<bool, StoreError> {
    let active: Option<Active> = on!(tx, c => sqlx::query_as(ACTIVE).bind(element_id).fetch_optional(c).await)?;
    Ok(active.is_some())
}

/// Asks that one session end, whatever its login may do. Returns the request.
pub async fn wish(tx: &mut Tx, wish: &Wish<'_>, now: Timestamp) -> Result<i64, StoreError> {
    let now = to_micros(now);
    let nothing = None::<String>;
    Ok(on!(tx, c => sqlx::query_scalar(INSERT)
        .bind(wish.tenant)
        .bind(wish.account_id)
        .bind(None::<i64>)
        .bind(wish.session_id)
        .bind(wish.username)
        .bind(0i64)
        .bind(wish.cause)
        .bind(&nothing)
        .bind(&nothing)
        .bind(&nothing)
        .bind(LANE_HAND)
        .bind(now)
        .bind(now)
        .bind(now)
        .fetch_one(c)
        .await)?)
}

/// Requests whose sessions are to be looked for now, the urgent first.
pub async fn due_requests(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<RequestRow>, StoreError> {
    let rows: Vec<Request> =
        on!(tx, c => sqlx::query_as(DUE_REQUESTS).bind(to_micros(now)).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(RequestRow::try_from).collect()
}

/// The live sessions a request may concern.
pub async fn live_sessions(tx: &mut Tx, request: &RequestRow) -> Result<Vec<LiveSession>, StoreError> {
    let rows: Vec<Live> = match (request.session_id, &request.username) {
        (Some(id), _) => on!(tx, c => sqlx::query_as(LIVE_BY_ID).bind(id).bind(request.id).fetch_all(c).await)?,
        (None, Some(name)) => {
            on!(tx, c => sqlx::query_as(LIVE_OF_USER).bind(name).bind(request.id).fetch_all(c).await)?
        }
        (None, None) => Vec::new(),
    };
    rows.into_iter()
        .map(|row| {
            let corrupt = || StoreError::Corrupt { table: "session", column: "started_at", id: row.id.to_string() };
            Ok(LiveSession {
                id: row.id,
                nas: row.nas,
                session: row.session,
                user_name: row.user_name,
                framed_ip: row.framed_ip,
                calling_station: row.calling_station,
                started_at: from_micros(row.started_at).ok_or_else(corrupt)?,
                ordered: row.ordered != 0,
            })
        })
        .collect()
}

/// When a NAS was first sent a Disconnect of this request that it obeyed: what began after it began with the new rows.
pub async fn disconnected_at(tx: &mut Tx, request_id: i64) -> Result<Option<Timestamp>, StoreError> {
    let at: Option<i64> = on!(tx, c => sqlx::query_scalar(DISCONNECTED_AT).bind(request_id).fetch_one(c).await)?;
    Ok(at.and_then(from_micros))
}

/// Writes the orders of a request; one that a session has already stays as it is.
pub async fn order(tx: &mut Tx, request: &RequestRow, orders: &[NewOrder], now: Timestamp) -> Result<(), StoreError> {
    let now = to_micros(now);
    for order in orders {
        let hopeless = order.hopeless.as_ref().map(|_| Outcome::NoMeans.as_str());
        on!(tx, c => sqlx::query(INSERT_ORDER)
            .bind(request.id)
            .bind(order.session_id)
            .bind(&order.client)
            .bind(order.action.as_str())
            .bind(json(&order.attributes)?)
            .bind(request.lane)
            .bind(to_micros(order.run_at))
            .bind(hopeless)
            .bind(&order.hopeless)
            .bind(now)
            .bind(hopeless.map(|_| now))
            .execute(c)
            .await.map(drop))?;
    }
    Ok(())
}

/// Notes that a request's sessions were looked for, and when to look again.
pub async fn looked(tx: &mut Tx, id: i64, again: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(LOOKED)
        .bind(id)
        .bind(to_micros(again))
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// How many orders of a request are not finished.
pub async fn unfinished(tx: &mut Tx, request_id: i64) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(UNFINISHED).bind(request_id).fetch_one(c).await)?)
}

/// Ends a request, and says at its element what became of the sessions.
pub async fn finish(tx: &mut Tx, request: &RequestRow, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(FINISH).bind(request.id).bind(to_micros(now)).execute(c).await.map(drop))?;
    let Some(element) = request.element_id else { return Ok(()) };
    type Found = (String, String, Option<String>, Option<i64>, Option<String>);
    let found: Vec<Found> = on!(tx, c => sqlx::query_as(OUTCOMES).bind(request.id).fetch_all(c).await)?;
    let mut told = String::new();
    for (action, nas, outcome, sent_at, detail) in found {
        let action = if action == "coa" { "changed" } else { "ended" };
        let at = sent_at.and_then(from_micros).map_or(String::new(), |at| format!(" at {at:.0}"));
        let said = match outcome.as_deref() {
            Some("ack") => format!("; session on {nas} {action}{at}"),
            Some("ended") => format!("; session on {nas} ended by itself"),
            Some("unknown") => format!("; {nas} does not know the session any more"),
            _ => format!("; session on {nas} not {action}: {}", detail.unwrap_or_default()),
        };
        told.push_str(&said);
    }
    if !told.is_empty() {
        on!(tx, c => sqlx::query(TELL_ELEMENT)
            .bind(element)
            .bind(request.revision)
            .bind(told)
            .execute(c)
            .await.map(drop))?;
    }
    Ok(())
}

/// How many orders each client's NAS wait for, sent ones without an answer included.
pub async fn waiting(tx: &mut Tx) -> Result<Vec<(String, i64)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(WAITING).fetch_all(c).await)?)
}

/// Orders for the NAS of a client that are due, an operator's first, then single pushes, then bulk.
pub async fn due_orders(tx: &mut Tx, client: &str, now: Timestamp, limit: i64) -> Result<Vec<DueOrder>, StoreError> {
    let rows: Vec<Due> =
        on!(tx, c => sqlx::query_as(DUE_ORDERS).bind(client).bind(to_micros(now)).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(DueOrder::try_from).collect()
}

/// Notes that these orders go to their NAS now. Returns those that nobody dropped meanwhile: only they may go.
pub async fn mark_sent(tx: &mut Tx, ids: &[i64], now: Timestamp) -> Result<HashSet<i64>, StoreError> {
    let rows = ids.iter().map(|id| [(*id).into(), to_micros(now).into()]).collect();
    let going: Vec<(i64,)> = MARK_SENT.fetch(tx, rows).await?;
    Ok(going.into_iter().map(|(id,)| id).collect())
}

/// Records what became of an attempt. `false`: the order is not there any more, or was finished before.
pub async fn record(tx: &mut Tx, order: &DueOrder, attempted: &Attempted, now: Timestamp) -> Result<bool, StoreError> {
    let at = to_micros(now);
    let attempts = match attempted.again {
        Some(again) if again.afresh => 0,
        _ => order.attempts + i64::from(attempted.sent),
    };
    let done = on!(tx, c => sqlx::query(RECORD)
        .bind(order.id)
        .bind(attempted.outcome.as_str())
        .bind(attempted.error_cause.map(i64::from))
        .bind(&attempted.detail)
        .bind(attempts)
        .bind(attempted.again.map_or(at, |again| to_micros(again.run_at)))
        .bind(attempted.again.map_or(order.action, |again| again.action).as_str())
        .bind(attempted.sent.then_some(at))
        .bind(at)
        .bind(attempted.again.is_none().then_some(at))
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    if attempted.outcome == Outcome::Unknown {
        on!(tx, c => sqlx::query(CALL_STALE).bind(order.session_id).execute(c).await.map(drop))?;
    }
    Ok(done > 0)
}

/// The newest orders about a session, the newest first.
pub async fn of_session(tx: &mut Tx, session_id: i64, limit: i64) -> Result<Vec<OrderView>, StoreError> {
    let rows: Vec<View> = on!(tx, c => sqlx::query_as(OF_SESSION).bind(session_id).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(OrderView::try_from).collect()
}

/// The orders of a request, and whether more may follow.
pub async fn of_request(tx: &mut Tx, request_id: i64) -> Result<Vec<OrderView>, StoreError> {
    let rows: Vec<View> = on!(tx, c => sqlx::query_as(OF_REQUEST).bind(request_id).fetch_all(c).await)?;
    rows.into_iter().map(OrderView::try_from).collect()
}

/// Deletes at most `limit` requests that were finished before an instant, with their orders.
pub async fn forget(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
    let before = to_micros(before);
    on!(tx, c => sqlx::query(FORGET_ORDERS).bind(before).bind(limit).execute(c).await.map(drop))?;
    Ok(on!(tx, c => sqlx::query(FORGET)
        .bind(before)
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?)
}
