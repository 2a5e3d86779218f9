//! What a request to NAS and its orders are, and how rows are read into them.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Serialize;

use crate::provision::Authorization;
use crate::store::{StoreError, elements};
use crate::vocabulary::{Timestamp, from_micros};

/// A wish of an operator: it waits for nobody.
pub const LANE_HAND: i64 = 0;
/// A push of a single account.
pub const LANE_SINGLE: i64 = 1;
/// What comes by the thousand.
pub const LANE_BULK: i64 = 2;

/// A change of a login that was just written to the AAA tables.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    pub element: &'a elements::ElementRow,
    pub before: &'a Authorization,
    pub after: &'a Authorization,
    /// When the rows had been written.
    pub written_at: Timestamp,
}

/// A wish of an operator.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    pub tenant: Option<&'a str>,
    pub account_id: Option<i64>,
    pub session_id: i64,
    pub username: Option<&'a str>,
    /// For people: who asked.
    pub cause: &'a str,
}

/// A request whose sessions are to be looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestRow {
    pub id: i64,
    pub element_id: Option<i64>,
    /// The one session an operator means.
    pub session_id: Option<i64>,
    pub username: Option<String>,
    pub revision: i64,
    pub cause: String,
    /// `None`: asked by an operator.
    pub change: Option<Authorized>,
    pub lane: i64,
    /// How often sessions were looked for.
    pub looks: i64,
    pub created_at: Timestamp,
}

/// What the sessions of a login were authorized with, and are to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorized {
    /// Of sessions that began up to `since_at`.
    pub origin: Authorization,
    /// Of sessions that began between `since_at` and `written_at`.
    pub previous: Authorization,
    pub target: Authorization,
    pub since_at: Timestamp,
    pub written_at: Timestamp,
}

/// A live session that a request may concern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSession {
    pub id: i64,
    /// The NAS's identity: a client's name, or `client/inner`.
    pub nas: String,
    /// Acct-Session-Id.
    pub session: String,
    pub user_name: Option<String>,
    pub framed_ip: Option<String>,
    pub calling_station: Option<String>,
    pub started_at: Timestamp,
    /// When an order of this request for it, or for another session of the login, ended; `None`: there is none.
    pub ordered: bool,
}

/// An order as it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewOrder {
    pub session_id: i64,
    /// Name of the configured client; empty where none is known.
    pub client: String,
    pub action: Action,
    /// Of a Change of Authorization.
    pub attributes: BTreeMap<String, Vec<String>>,
    pub run_at: Timestamp,
    /// Nothing can be sent: why.
    pub hopeless: Option<String>,
}

/// What a NAS is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Disconnect,
    Coa,
}

/// An order that is due, with the session it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct DueOrder {
    pub id: i64,
    pub request_id: i64,
    pub session_id: i64,
    pub client: String,
    pub action: Action,
    pub attributes: BTreeMap<String, Vec<String>>,
    pub lane: i64,
    /// Attempts made so far.
    pub attempts: i64,
    pub nas: String,
    pub session: String,
    pub user_name: Option<String>,
    pub framed_ip: Option<String>,
    pub calling_station: Option<String>,
    /// It ended meanwhile.
    pub ended: bool,
    /// What was said when the NAS was to change the session; now it is to end it.
    pub instead_of: Option<String>,
}

/// How an order stands; the text is the `outcome` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The NAS did it.
    Ack,
    /// The NAS refused.
    Nak,
    /// The NAS does not know the session (Error-Cause 503).
    Unknown,
    /// The NAS did not answer.
    Silent,
    /// The configuration gives no way to ask this NAS, or the order cannot be put into a packet.
    NoMeans,
    /// The session ended by itself first.
    Ended,
    /// A newer change of the login took its place.
    Dropped,
}

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    pub outcome: Outcome,
    pub error_cause: Option<u32>,
    pub detail: String,
    /// `None`: the order is finished.
    pub again: Option<Again>,
    /// Whether a packet was sent.
    pub sent: bool,
}

/// The next attempt of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    pub run_at: Timestamp,
    /// A NAS that refuses to change a session may still end it.
    pub action: Action,
    /// Begin to count anew.
    pub afresh: bool,
}

/// An order as people look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderView {
    pub request: i64,
    pub session: i64,
    pub action: Action,
    pub cause: String,
    /// `None`: it waits to be sent.
    pub outcome: Option<Outcome>,
    pub error_cause: Option<i64>,
    pub detail: Option<String>,
    pub attempts: i64,
    pub asked_at: Timestamp,
    pub sent_at: Option<Timestamp>,
    pub next_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Disconnect => "disconnect",
            Action::Coa => "coa",
        }
    }
}

impl FromStr for Action {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Action::Disconnect, Action::Coa].into_iter().find(|action| action.as_str() == text).ok_or(())
    }
}

impl Outcome {
    pub const ALL: [Outcome; 7] = [
        Outcome::Ack,
        Outcome::Nak,
        Outcome::Unknown,
        Outcome::Silent,
        Outcome::NoMeans,
        Outcome::Ended,
        Outcome::Dropped,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ack => "ack",
            Outcome::Nak => "nak",
            Outcome::Unknown => "unknown",
            Outcome::Silent => "silent",
            Outcome::NoMeans => "no_means",
            Outcome::Ended => "ended",
            Outcome::Dropped => "dropped",
        }
    }
}

impl FromStr for Outcome {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or(())
    }
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(format!("a document cannot be written: {error}")))
}

pub(super) fn parse(text: Option<&str>) -> Result<Option<Authorization>, serde_json::Error> {
    text.map(serde_json::from_str).transpose()
}

#[derive(sqlx::FromRow)]
pub(super) struct Active {
    pub(super) id: i64,
    pub(super) origin: Option<String>,
    pub(super) target: Option<String>,
    pub(super) since_at: i64,
}

#[derive(sqlx::FromRow)]
pub(super) struct Request {
    id: i64,
    element_id: Option<i64>,
    session_id: Option<i64>,
    username: Option<String>,
    revision: i64,
    cause: String,
    origin: Option<String>,
    previous: Option<String>,
    target: Option<String>,
    lane: i64,
    since_at: i64,
    written_at: i64,
    looks: i64,
    created_at: i64,
}

impl TryFrom<Request> for RequestRow {
    type Error = StoreError;

    fn try_from(row: Request) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "nas_request", column, id: row.id.to_string() };
        let read = |text: &Option<String>, column| parse(text.as_deref()).map_err(|_| corrupt(column));
        let change =
            match (read(&row.origin, "origin")?, read(&row.previous, "previous")?, read(&row.target, "target")?) {
                (Some(origin), Some(previous), Some(target)) => Some(Authorized {
                    origin,
                    previous,
                    target,
                    since_at: from_micros(row.since_at).ok_or_else(|| corrupt("since_at"))?,
                    written_at: from_micros(row.written_at).ok_or_else(|| corrupt("written_at"))?,
                }),
                _ => None,
            };
        Ok(Self {
            id: row.id,
            element_id: row.element_id,
            session_id: row.session_id,
            username: row.username,
            revision: row.revision,
            cause: row.cause,
            change,
            lane: row.lane,
            looks: row.looks,
            created_at: from_micros(row.created_at).ok_or(StoreError::Corrupt {
                table: "nas_request",
                column: "created_at",
                id: row.id.to_string(),
            })?,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct Live {
    pub(super) id: i64,
    pub(super) nas: String,
    pub(super) session: String,
    pub(super) user_name: Option<String>,
    pub(super) framed_ip: Option<String>,
    pub(super) calling_station: Option<String>,
    pub(super) started_at: i64,
    pub(super) ordered: i32,
}

#[derive(sqlx::FromRow)]
pub(super) struct Due {
    id: i64,
    request_id: i64,
    session_id: i64,
    client: String,
    action: String,
    attributes: String,
    lane: i64,
    attempt: i64,
    detail: Option<String>,
    nas: String,
    session: String,
    user_name: Option<String>,
    framed_ip: Option<String>,
    calling_station: Option<String>,
    ended: i32,
}

impl TryFrom<Due> for DueOrder {
    type Error = StoreError;

    fn try_from(row: Due) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "nas_order", column, id: row.id.to_string() };
        let action = row.action.parse().map_err(|()| corrupt("action"))?;
        let attributes: BTreeMap<_, _> = serde_json::from_str(&row.attributes).map_err(|_| corrupt("attributes"))?;
        let instead = action == Action::Disconnect && !attributes.is_empty();
        Ok(Self {
            id: row.id,
            request_id: row.request_id,
            session_id: row.session_id,
            action,
            attributes,
            instead_of: row.detail.filter(|_| instead),
            client: row.client,
            lane: row.lane,
            attempts: row.attempt,
            nas: row.nas,
            session: row.session,
            user_name: row.user_name,
            framed_ip: row.framed_ip,
            calling_station: row.calling_station,
            ended: row.ended != 0,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct View {
    request_id: i64,
    session_id: i64,
    action: String,
    cause: String,
    outcome: Option<String>,
    error_cause: Option<i64>,
    detail: Option<String>,
    attempt: i64,
    created_at: i64,
    sent_at: Option<i64>,
    run_at: i64,
    finished_at: Option<i64>,
}

impl TryFrom<View> for OrderView {
    type Error = StoreError;

    fn try_from(row: View) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "nas_order", column, id: row.request_id.to_string() };
        let at = |micros, column| from_micros(micros).ok_or_else(|| corrupt(column));
        Ok(Self {
            request: row.request_id,
            session: row.session_id,
            action: row.action.parse().map_err(|()| corrupt("action"))?,
            outcome: row.outcome.as_deref().map(str::parse).transpose().map_err(|()| corrupt("outcome"))?,
            error_cause: row.error_cause,
            attempts: row.attempt,
            asked_at: at(row.created_at, "created_at")?,
            sent_at: row.sent_at.map(|micros| at(micros, "sent_at")).transpose()?,
            next_at: match row.finished_at {
                None => Some(at(row.run_at, "run_at")?),
                Some(_) => None,
            },
            finished_at: row.finished_at.map(|micros| at(micros, "finished_at")).transpose()?,
            cause: row.cause,
            detail: row.detail,
        })
    }
}
