//! Rollouts and their members as stored: begun by an operator, moved on by one daemon at a time, kept for the record.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{StoreError, Tx, audit, devices, exceptions, follow, jobs, on};
use crate::provision::{MemberFacts, Phase, RolloutMode, RolloutPolicy, Tally};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// A rollout as listed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rollout {
    pub id: i64,
    pub tenant: String,
    pub reason: String,
    pub policy: RolloutPolicy,
    /// `running`, `paused`, `halted`, `finished`, `cancelled`, `rolled_back`.
    pub state: String,
    /// Why it stands where it stands, in words.
    pub note: Option<String>,
    /// The catalog version a rollback goes back to.
    pub before_version: i64,
    pub created_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub waiting: i64,
    pub moved: i64,
    pub back: i64,
    pub lost: i64,
    pub skipped: i64,
}

/// A device a rollout is to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    pub element_id: i64,
    pub account_id: i64,
    pub mac: String,
    pub cmts: String,
    pub voice: bool,
}

/// A member with where it stands, as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedMember {
    /// Its place in the rollout.
    pub position: i64,
    pub mac: String,
    pub cmts: String,
    pub voice: bool,
    pub phase: String,
    pub moved_at: Option<Timestamp>,
    /// Where the device itself stands.
    pub state: String,
    pub evidence: Option<String>,
}

/// A new rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRollout<'a> {
    pub tenant: &'a str,
    pub reason: &'a str,
    pub policy: &'a RolloutPolicy,
    pub by: &'a str,
}

/// A moved member and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedMember {
    pub element_id: i64,
    pub facts: MemberFacts,
}

/// Which rollouts a list shows, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutFilter {
    pub tenant: Option<String>,
    pub state: Option<String>,
    pub id: Option<i64>,
    /// Only those begun before this one.
    pub before: Option<i64>,
    pub limit: i64,
}

impl Default for RolloutFilter {
    fn default() -> Self {
        Self { tenant: None, state: None, id: None, before: None, limit: LISTED_MOST }
    }
}

/// What an operator does to a rollout that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// No more devices are moved for now.
    Pause,
    /// Go on, also after it halted by itself.
    Resume,
    /// It ends; what it has not reached stays as it is.
    Cancel,
    /// What it moved goes back to the catalog before.
    RollBack,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnRefusal {
    #[error("Rollout {id} is {state} and cannot become {wanted}")]
    State { id: i64, state: String, wanted: &'static str },
    #[error("Rollout {0} was taken back before, or is a rollback itself; nothing is done")]
    TakenBack(i64),
}

/// Rollouts a list shows when nobody says how many.
const LISTED_MOST: i64 = 1000;
pub const RUNNING: &str = "running";
/// Kind of the exception that a halted rollout opens.
pub const EXCEPTION_KIND: &str = "rollout";

macro_rules! select_rollout {
    ($rest:literal) => {
        concat!(
            "SELECT rollout.id, rollout.tenant, rollout.reason, rollout.policy, rollout.state, rollout.note,
                    rollout.before_version, rollout.created_by, rollout.created_at, rollout.updated_at,
                    rollout.finished_at,
                    CAST(COALESCE(SUM(CASE WHEN member.phase = 'waiting' THEN 1 ELSE 0 END), 0) AS BIGINT) AS waiting,
                    CAST(COALESCE(SUM(CASE WHEN member.phase = 'moved' THEN 1 ELSE 0 END), 0) AS BIGINT) AS moved,
                    CAST(COALESCE(SUM(CASE WHEN member.phase = 'back' THEN 1 ELSE 0 END), 0) AS BIGINT) AS back,
                    CAST(COALESCE(SUM(CASE WHEN member.phase = 'lost' THEN 1 ELSE 0 END), 0) AS BIGINT) AS lost,
                    CAST(COALESCE(SUM(CASE WHEN member.phase = 'skipped' THEN 1 ELSE 0 END), 0) AS BIGINT) AS skipped
             FROM rollout LEFT JOIN rollout_member AS member ON member.rollout_id = rollout.id ",
            $rest
        )
    };
}

const LIST: &str = select_rollout!(
    "WHERE ($1 IS NULL OR rollout.tenant = $1) AND ($2 IS NULL OR rollout.state = $2) AND ($3 IS NULL OR rollout.id = $3)
       AND rollout.id < $4
     GROUP BY rollout.id ORDER BY rollout.id DESC LIMIT $5"
);
const INSERT: &str = "INSERT INTO rollout
         (tenant, reason, policy, state, before_version, created_by, created_at, updated_at)
     SELECT id, $2, $3, 'running', CASE WHEN catalog_version > 1 THEN catalog_version - 1 ELSE catalog_version END,
            $4, $5, $5
     FROM tenant WHERE id = $1
     RETURNING id";
const INSERT_MEMBERS_SQLITE: &str = "INSERT INTO rollout_member
         (rollout_id, element_id, account_id, position, cmts, voice, phase)
     SELECT ?, json_extract(member.value, '$[0]'), json_extract(member.value, '$[1]'),
            json_extract(member.value, '$[2]'), json_extract(member.value, '$[3]'), json_extract(member.value, '$[4]'),
            'waiting'
     FROM json_each(?) AS member";
const INSERT_MEMBERS_POSTGRES: &str = "INSERT INTO rollout_member
         (rollout_id, element_id, account_id, position, cmts, voice, phase)
     SELECT $1, member.element_id, member.account_id, member.position, member.cmts, member.voice, 'waiting'
     FROM UNNEST($2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::TEXT[], $6::BOOLEAN[])
          AS member (element_id, account_id, position, cmts, voice)";
const LOCK: &str = "SELECT id FROM rollout WHERE id = $1 FOR UPDATE";
const MEMBERS: &str =
    "SELECT member.position, element.key AS mac, member.cmts, member.voice, member.phase, member.moved_at, element.state,
            element.evidence
     FROM rollout_member AS member JOIN element ON element.id = member.element_id
     WHERE member.rollout_id = $1 AND ($2 IS NULL OR member.phase = $2) AND member.position > $3
     ORDER BY member.position LIMIT $4";
const WAITING: &str = "SELECT element_id, account_id, cmts FROM rollout_member
     WHERE rollout_id = $1 AND phase = 'waiting' AND cmts = $2 ORDER BY position LIMIT $3";
const CMTSES: &str =
    "SELECT DISTINCT cmts FROM rollout_member WHERE rollout_id = $1 AND phase = 'waiting' ORDER BY cmts";
const MOVED_LATELY: &str = "SELECT cmts, COUNT(*) FROM rollout_member WHERE rollout_id = $1 AND moved_at > $2
     GROUP BY cmts ORDER BY cmts";
const MOVE: &str = "UPDATE rollout_member SET phase = 'moved', moved_at = $3
     WHERE rollout_id = $1 AND element_id = $2 AND phase = 'waiting'";
const SET_PHASE: &str = "UPDATE rollout_member SET phase = $3 WHERE rollout_id = $1 AND element_id = $2";
const SET_STATE: &str = "UPDATE rollout SET state = $2, note = $3, updated_at = $4, finished_at = $5 WHERE id = $1";
const TAKEN: &str = "SELECT element_id, account_id FROM rollout_member
     WHERE rollout_id = $1 AND phase <> 'waiting' ORDER BY position";
const MOVED: &str = "SELECT member.element_id, member.moved_at, element.state, element.desired_revision,
            element.applied_revision, element.last_seen_from, device.fetched_at, device.running_digest,
            device.offered_digest, device.reset_at, device.reset_wanted_at, account.wake_at,
            (SELECT COUNT(*) FROM catalog_follow WHERE catalog_follow.account_id = member.account_id
                AND NOT catalog_follow.held) AS moving,
            (SELECT COUNT(*) FROM job WHERE job.element_id = member.element_id AND job.finished_at IS NULL) AS jobs
     FROM rollout_member AS member
     JOIN element ON element.id = member.element_id
     JOIN account ON account.id = element.account_id
     LEFT JOIN device ON device.element_id = member.element_id
     WHERE member.rollout_id = $1 AND member.phase = 'moved'
     ORDER BY member.position LIMIT $2";

/// Begins a rollout over the members, in their order. `None`: no such tenant.
pub async fn begin(
    tx: &mut Tx,
    new: &NewRollout<'_>,
    members: &[Member],
    now: Timestamp,
) -> Result<Option<i64>, StoreError> {
    let policy = json(new.policy)?;
    let id: Option<i64> = on!(tx, c => sqlx::query_scalar(INSERT)
        .bind(new.tenant)
        .bind(new.reason)
        .bind(&policy)
        .bind(new.by)
        .bind(to_micros(now))
        .fetch_optional(c)
        .await)?;
    let Some(id) = id else { return Ok(None) };
    insert_members(tx, id, members).await?;
    let detail = serde_json::json!({ "rollout": id, "policy": new.policy, "members": members.len() });
    note(tx, new.tenant, new.by, "rollout.begin", id, &detail, now).await?;
    Ok(Some(id))
}

async fn insert_members(tx: &mut Tx, id: i64, members: &[Member]) -> Result<(), StoreError> {
    let positions: Vec<i64> = (0..).take(members.len()).collect();
    match tx {
        Tx::Sqlite(held) => {
            let rows: Vec<(i64, i64, i64, &str, bool)> = members
                .iter()
                .zip(&positions)
                .map(|(member, at)| (member.element_id, member.account_id, *at, member.cmts.as_str(), member.voice))
                .collect();
            sqlx::query(INSERT_MEMBERS_SQLITE).bind(id).bind(json(&rows)?).execute(&mut *held.transaction).await?;
        }
        Tx::Postgres(transaction) => {
            let query = sqlx::query(INSERT_MEMBERS_POSTGRES).bind(id);
            let query = query.bind(members.iter().map(|member| member.element_id).collect::<Vec<_>>());
            let query = query.bind(members.iter().map(|member| member.account_id).collect::<Vec<_>>());
            let query = query.bind(positions);
            let query = query.bind(members.iter().map(|member| member.cmts.clone()).collect::<Vec<_>>());
            let query = query.bind(members.iter().map(|member| member.voice).collect::<Vec<_>>());
            query.execute(&mut **transaction).await?;
        }
    }
    Ok(())
}

/// Rollouts, the newest first, with their counts.
pub async fn list(tx: &mut Tx, filter: &RolloutFilter) -> Result<Vec<Rollout>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(filter.tenant.as_deref())
        .bind(filter.state.as_deref())
        .bind(filter.id)
        .bind(filter.before.unwrap_or(i64::MAX))
        .bind(filter.limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(Rollout::try_from).collect()
}

/// A rollout that stays as it is until the transaction ends: what an operator and the daemon do to it comes in turn.
pub async fn locked(tx: &mut Tx, id: i64) -> Result<Option<Rollout>, StoreError> {
    if let Tx::Postgres(transaction) = tx {
        sqlx::query(LOCK).bind(id).fetch_optional(&mut **transaction).await?;
    }
    Ok(list(tx, &RolloutFilter { id: Some(id), ..RolloutFilter::default() }).await?.pop())
}

/// An operator's turn on a rollout that was read `locked`. Returns the rollout that takes it back, where that was asked.
pub async fn turn(
    tx: &mut Tx,
    rollout: &Rollout,
    turn: Turn,
    by: &str,
    now: Timestamp,
) -> Result<Result<Option<i64>, TurnRefusal>, StoreError> {
    let (wanted, from): (&str, &[&str]) = match turn {
        Turn::Pause => ("paused", &[RUNNING]),
        Turn::Resume => (RUNNING, &["paused", "halted"]),
        Turn::Cancel => ("cancelled", &[RUNNING, "paused", "halted"]),
        Turn::RollBack if rollout.state == "rolled_back" || rollout.policy.keep_held => {
            return Ok(Err(TurnRefusal::TakenBack(rollout.id)));
        }
        Turn::RollBack => ("rolled_back", &[]),
    };
    if turn != Turn::RollBack && !from.contains(&rollout.state.as_str()) {
        return Ok(Err(TurnRefusal::State { id: rollout.id, state: rollout.state.clone(), wanted }));
    }
    let back = match turn {
        Turn::RollBack => roll_back(tx, rollout, by, now).await?,
        _ => {
            set_state(tx, rollout, wanted, None, by, now).await?;
            None
        }
    };
    exceptions::release_subject(tx, EXCEPTION_KIND, &format!("rollout {}", rollout.id), by, now).await?;
    Ok(Ok(back))
}

/// Members of a rollout in their order, behind the place `after`; `phase` narrows.
pub async fn members(
    tx: &mut Tx,
    id: i64,
    phase: Option<Phase>,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<ListedMember>, StoreError> {
    type MemberRow = (i64, String, String, bool, String, Option<i64>, String, Option<String>);
    let rows: Vec<MemberRow> = on!(tx, c => sqlx::query_as(MEMBERS)
        .bind(id)
        .bind(phase.map(Phase::as_str))
        .bind(after.unwrap_or(-1))
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let listed = |(position, mac, cmts, voice, phase, moved_at, state, evidence): MemberRow| ListedMember {
        position,
        mac,
        cmts,
        voice,
        phase,
        moved_at: moved_at.and_then(from_micros),
        state,
        evidence,
    };
    Ok(rows.into_iter().map(listed).collect())
}

/// What became of the members so far; `since` bounds what counts as lately.
pub async fn tally(tx: &mut Tx, rollout: &Rollout, since: Timestamp) -> Result<Tally, StoreError> {
    let lately: Vec<(String, i64)> = on!(tx, c => sqlx::query_as(MOVED_LATELY)
        .bind(rollout.id)
        .bind(to_micros(since))
        .fetch_all(c)
        .await)?;
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(Tally {
        waiting: count(rollout.waiting),
        moved: count(rollout.moved),
        back: count(rollout.back),
        lost: count(rollout.lost),
        skipped: count(rollout.skipped),
        moved_lately: lately.into_iter().map(|(cmts, n)| (cmts, u32::try_from(n).unwrap_or(u32::MAX))).collect(),
    })
}

/// Moves at most `most` waiting members, behind each CMTS at most `per_minute` less what was moved there lately: their
/// accounts leave the catalog they are held on. Returns how many were moved.
pub async fn advance(
    tx: &mut Tx,
    rollout: &Rollout,
    most: u64,
    lately: &BTreeMap<String, u32>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let places: Vec<String> = on!(tx, c => sqlx::query_scalar(CMTSES).bind(rollout.id).fetch_all(c).await)?;
    let mut moved = 0;
    for cmts in places {
        let room = rollout.policy.per_minute.saturating_sub(lately.get(&cmts).copied().unwrap_or(0));
        let room = u64::from(room).min(most - moved);
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let waiting: Vec<(i64, i64, String)> =
            on!(tx, c => sqlx::query_as(WAITING).bind(rollout.id).bind(&cmts).bind(limit).fetch_all(c).await)?;
        for (element_id, account_id, _) in waiting {
            move_one(tx, rollout, element_id, account_id, now).await?;
            moved += 1;
        }
        if moved >= most {
            break;
        }
    }
    Ok(moved)
}

async fn move_one(
    tx: &mut Tx,
    rollout: &Rollout,
    element_id: i64,
    account_id: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(MOVE)
        .bind(rollout.id)
        .bind(element_id)
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    if !rollout.policy.keep_held && follow::of(tx, account_id).await?.is_some_and(|following| following.held) {
        follow::set_off(tx, account_id, now).await?;
    }
    Ok(())
}

/// Moved members with what is known of each.
pub async fn moved(tx: &mut Tx, id: i64, limit: i64, now: Timestamp) -> Result<Vec<MovedMember>, StoreError> {
    let rows: Vec<MovedRow> = on!(tx, c => sqlx::query_as(MOVED).bind(id).bind(limit).fetch_all(c).await)?;
    let member = |row: MovedRow| {
        let applied =
            row.state == "gone" || (row.state == "applied" && row.applied_revision == Some(row.desired_revision));
        MovedMember {
            element_id: row.element_id,
            facts: MemberFacts {
                moved_at: row.moved_at.and_then(from_micros).unwrap_or(Timestamp::UNIX_EPOCH),
                settled: row.moving == 0 && row.wake_at.is_none_or(|at| at > to_micros(now)),
                applied,
                behind: row.offered_digest.is_some() && row.offered_digest != row.running_digest,
                fetched_at: row.fetched_at.and_then(from_micros),
                out_of_reach: row.last_seen_from.is_none() || row.state == "offline",
                under_way: row.jobs > 0,
                reset_asked: row.reset_wanted_at.is_some() || row.reset_at >= row.moved_at,
            },
        }
    };
    Ok(rows.into_iter().map(member).collect())
}

/// Asks for the reset of a moved member.
pub async fn ask_reset(tx: &mut Tx, rollout: &Rollout, element_id: i64, now: Timestamp) -> Result<(), StoreError> {
    let by = format!("rollout {}", rollout.id);
    let forced = rollout.policy.mode == RolloutMode::ResetAll;
    devices::want_reset(tx, element_id, &by, forced, jobs::LANE_BULK, now).await.map(drop)
}

/// Notes where a member stands now.
pub async fn set_phase(tx: &mut Tx, id: i64, element_id: i64, phase: Phase) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(SET_PHASE).bind(id).bind(element_id).bind(phase.as_str()).execute(c).await.map(drop))?;
    Ok(())
}

/// Gives a rollout another state, with the reason in words and by whom.
pub async fn set_state(
    tx: &mut Tx,
    rollout: &Rollout,
    state: &str,
    reason: Option<&str>,
    by: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let ended = matches!(state, "finished" | "cancelled" | "rolled_back");
    on!(tx, c => sqlx::query(SET_STATE)
        .bind(rollout.id)
        .bind(state)
        .bind(reason)
        .bind(to_micros(now))
        .bind(ended.then(|| to_micros(now)))
        .execute(c)
        .await.map(drop))?;
    let detail = serde_json::json!({ "state": state, "reason": reason });
    note(tx, &rollout.tenant, by, "rollout.state", rollout.id, &detail, now).await
}

/// Takes back what a rollout moved: its accounts stay on the catalog version before, and the devices that were reset for
/// the new one are reset again, at the rollout's rate, as a rollout of its own. Returns that rollout.
async fn roll_back(tx: &mut Tx, rollout: &Rollout, by: &str, now: Timestamp) -> Result<Option<i64>, StoreError> {
    let taken: Vec<(i64, i64)> = on!(tx, c => sqlx::query_as(TAKEN).bind(rollout.id).fetch_all(c).await)?;
    let mut members = Vec::with_capacity(taken.len());
    let listed = members_of(tx, rollout.id).await?;
    for (element_id, account_id) in taken {
        follow::hold(tx, account_id, rollout.before_version, now).await?;
        if let Some(member) = listed.get(&element_id) {
            members.push(Member { element_id, account_id, ..member.clone() });
        }
    }
    let reason = format!("rollback of rollout {}", rollout.id);
    // Whoever got the bad file gets the good one without a canary: it ran before.
    let policy = RolloutPolicy { canary: 0, halt_percent: 100, keep_held: true, ..rollout.policy.clone() };
    let new = NewRollout { tenant: &rollout.tenant, reason: &reason, policy: &policy, by };
    set_state(tx, rollout, "rolled_back", Some("taken back by an operator"), by, now).await?;
    begin(tx, &new, &members, now).await
}

async fn members_of(tx: &mut Tx, id: i64) -> Result<BTreeMap<i64, Member>, StoreError> {
    const ALL: &str = "SELECT member.element_id, member.account_id, element.key, member.cmts, member.voice
         FROM rollout_member AS member JOIN element ON element.id = member.element_id WHERE member.rollout_id = $1";
    let rows: Vec<(i64, i64, String, String, bool)> = on!(tx, c => sqlx::query_as(ALL).bind(id).fetch_all(c).await)?;
    let member =
        |(element_id, account_id, mac, cmts, voice)| (element_id, Member { element_id, account_id, mac, cmts, voice });
    Ok(rows.into_iter().map(member).collect())
}

async fn note(
    tx: &mut Tx,
    tenant: &str,
    by: &str,
    action: &str,
    id: i64,
    detail: &serde_json::Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let subject = format!("rollout {id}");
    let entry = audit::Entry { tenant: Some(tenant), actor: by, action, account_id: None, subject: &subject, detail };
    audit::append(tx, &entry, now).await
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(format!("a document cannot be written: {error}")))
}

#[derive(sqlx::FromRow)]
struct MovedRow {
    element_id: i64,
    moved_at: Option<i64>,
    state: String,
    desired_revision: i64,
    applied_revision: Option<i64>,
    last_seen_from: Option<String>,
    fetched_at: Option<i64>,
    running_digest: Option<String>,
    offered_digest: Option<String>,
    reset_at: Option<i64>,
    reset_wanted_at: Option<i64>,
    wake_at: Option<i64>,
    moving: i64,
    jobs: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    tenant: String,
    reason: String,
    policy: String,
    state: String,
    note: Option<String>,
    before_version: i64,
    created_by: String,
    created_at: i64,
    updated_at: i64,
    finished_at: Option<i64>,
    waiting: i64,
    moved: i64,
    back: i64,
    lost: i64,
    skipped: i64,
}

impl TryFrom<Row> for Rollout {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let id = row.id;
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "rollout", column, id: id.to_string() };
        let instant = |column: &'static str, at: i64| from_micros(at).ok_or_else(|| corrupt(column));
        Ok(Self {
            id,
            policy: serde_json::from_str(&row.policy).map_err(|_| corrupt("policy"))?,
            created_at: instant("created_at", row.created_at)?,
            updated_at: instant("updated_at", row.updated_at)?,
            finished_at: row.finished_at.map(|at| instant("finished_at", at)).transpose()?,
            tenant: row.tenant,
            reason: row.reason,
            state: row.state,
            note: row.note,
            before_version: row.before_version,
            created_by: row.created_by,
            waiting: row.waiting,
            moved: row.moved,
            back: row.back,
            lost: row.lost,
            skipped: row.skipped,
        })
    }
}
