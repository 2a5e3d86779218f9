//! Reconciliations: what another company sent (sealed), what was found, which plan was applied; and what of ours is read
//! for them.

use std::collections::{HashMap, HashSet};

use super::many::{Many, Of};
use super::{StoreError, Tx, on};
use crate::reconcile::{Class, Finding, Report, Steps};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// A reconciliation as it begins.
#[derive(Debug, Clone, Copy)]
pub struct NewSync<'a> {
    pub id: &'a str,
    pub tenant: &'a str,
    pub source: &'a str,
    pub profile: Option<&'a str>,
    /// Who says that everybody is in it.
    pub said_complete: Option<&'a str>,
    /// How many records a manifest tells of.
    pub told_records: Option<u64>,
    /// The steps that are asked for; `None`: all.
    pub only: Option<&'a Steps>,
    pub as_of: Timestamp,
    pub requested_by: &'a str,
}

/// A reconciliation as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncRow {
    pub id: String,
    pub tenant: String,
    pub source: String,
    pub profile: Option<String>,
    pub said_complete: Option<String>,
    pub told_records: Option<u64>,
    pub only: Option<Steps>,
    pub as_of: Timestamp,
    /// `receiving`, `received`, `planned`, `applying`, `applied` or `failed`.
    pub state: String,
    pub octets: i64,
    pub report: Option<Report>,
    pub plan_hash: Option<String>,
    pub allow_deletions: Option<u64>,
    /// JSON: what applying it did.
    pub result: Option<String>,
    pub error: Option<String>,
    pub requested_by: String,
    pub applied_by: Option<String>,
    pub created_at: Timestamp,
}

const CREATE: &str = "INSERT INTO sync
         (id, tenant, source, profile, said_complete, told_records, only_steps, as_of_at, state, octets, requested_by,
          created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'receiving', 0, $9, $10)";
const CLEAR_PARTS: &str = "DELETE FROM sync_part WHERE sync = $1";
const FORGET_ONE: &str = "DELETE FROM sync WHERE id = $1";
const ADD_PART: &str = "INSERT INTO sync_part (sync, number, sealed) VALUES ($1, $2, $3)";
const PART: &str = "SELECT sealed FROM sync_part WHERE sync = $1 AND number = $2";
const RECEIVED: &str = "UPDATE sync SET state = 'received', octets = $2 WHERE id = $1 AND state = 'receiving'";
const PLANNED: &str =
    "UPDATE sync SET state = 'planned', report = $2, plan_hash = $3, planned_at = $4, claimed_until = NULL,
        error = NULL
     WHERE id = $1";
const COMPARED: &str = "UPDATE sync SET report = $2, plan_hash = $3 WHERE id = $1";
const TOLD: &str = "UPDATE sync SET error = $2 WHERE id = $1";
const ASK_TO_APPLY: &str = "UPDATE sync SET state = 'applying', allow_deletions = $3, applied_by = $4
     WHERE id = $1 AND state = 'planned' AND plan_hash = $2 RETURNING id";
const APPLIED: &str = "UPDATE sync SET state = 'applied', losses = $2, result = $3, applied_by = $4, applied_at = $5,
        claimed_until = NULL
     WHERE id = $1";
const FAILED: &str = "UPDATE sync SET state = 'failed', error = $2, claimed_until = NULL WHERE id = $1";
macro_rules! select_sync {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, source, profile, said_complete, told_records, only_steps, as_of_at, state, octets, report, plan_hash,
                    allow_deletions, result, error, requested_by, applied_by, created_at FROM sync ",
            $rest
        )
    };
}
const FIND: &str = select_sync!("WHERE tenant = $1 AND id = $2");
const LIST: &str = select_sync!(
    "WHERE tenant = $1 AND (CAST($2 AS TEXT) IS NULL OR source = $2)
       AND (created_at < $3 OR (created_at = $3 AND id < $4))
     ORDER BY created_at DESC, id DESC LIMIT $5"
);
const WAITING: &str = select_sync!(
    "WHERE state IN ('received', 'applying') AND (claimed_until IS NULL OR claimed_until < $1)
     ORDER BY created_at, id LIMIT 1"
);
const CLAIM: &str = "UPDATE sync SET claimed_until = $3
     WHERE id = $1 AND state = $4 AND (claimed_until IS NULL OR claimed_until < $2) RETURNING id";
const RENEW: &str = "UPDATE sync SET claimed_until = $2 WHERE id = $1";
const CLEAR_FINDINGS: &str = "DELETE FROM sync_finding WHERE sync = $1";
static ADD_FINDINGS: Many<5> = Many::new(
    [("sync", Of::Text), ("account", Of::Text), ("number", Of::Integer), ("class", Of::Text), ("document", Of::Text)],
    "INSERT INTO sync_finding (sync, account, number, class, document)
     SELECT sync, account, number, class, document FROM new WHERE sync IS NOT NULL
     ON CONFLICT (sync, account, number) DO NOTHING",
);
const FINDINGS: &str = "SELECT account, number, document FROM sync_finding
     WHERE sync = $1 AND (CAST($2 AS TEXT) IS NULL OR class = $2) AND (account > $3 OR (account = $3 AND number > $4))
     ORDER BY account, number LIMIT $5";
const LOSSES: &str = "SELECT CAST(COALESCE(SUM(losses), 0) AS BIGINT) FROM sync
     WHERE tenant = $1 AND source = $2 AND applied_at > $3";
const ABANDON: &str = "UPDATE sync SET state = 'failed', error = 'it was never received whole'
     WHERE state = 'receiving' AND created_at < $1";
const FORGET_PARTS: &str = "DELETE FROM sync_part WHERE sync IN
     (SELECT id FROM sync WHERE created_at < $1 OR state IN ('applied', 'failed'))";
const FORGET_FINDINGS: &str = "DELETE FROM sync_finding WHERE sync IN (SELECT id FROM sync WHERE created_at < $1)";
const FORGET: &str = "DELETE FROM sync WHERE created_at < $1
     AND id NOT IN (SELECT sync FROM sync_part) AND id NOT IN (SELECT sync FROM sync_finding)";

const LIVING: &str = "SELECT id FROM account
     WHERE tenant = $1 AND source = $2 AND closed_at IS NULL AND id > $3 ORDER BY id LIMIT $4";
const COUNT_LIVING: &str = "SELECT COUNT(*) FROM account WHERE tenant = $1 AND source = $2 AND closed_at IS NULL";
static WITH_NEW_JOBS: Many<2> = Many::new(
    [("id", Of::Integer), ("since", Of::Integer)],
    "SELECT DISTINCT job.account_id FROM new CROSS JOIN job
     WHERE job.account_id = new.id AND job.finished_at IS NULL AND job.created_at > new.since",
);
static BILLED: Many<2> = Many::new(
    [("id", Of::Integer), ("at", Of::Integer)],
    "SELECT line.account_id, line.service FROM new CROSS JOIN line JOIN batch ON batch.id = line.batch
     WHERE line.account_id = new.id AND line.period_start_at <= new.at AND line.period_end_at > new.at
       AND line.service IS NOT NULL AND batch.state <> 'building'
     GROUP BY line.account_id, line.service HAVING SUM(line.amount_minor) > 0",
);
const WHOLESALE: &str = "SELECT line.document FROM tenant AS child JOIN line ON line.tenant = child.parent
       JOIN batch ON batch.id = line.batch
     WHERE child.id = $1 AND line.kind = 'count' AND line.period_start_at <= $2 AND line.period_end_at > $2
       AND batch.state <> 'building'
     ORDER BY line.created_at, line.id LIMIT 10000";
const ZOMBIES: &str = "SELECT account.external_id, service.external_id, session.session, session.nas,
        session.last_event_at, service.ended_at
     FROM service JOIN account ON account.id = service.account_id
       JOIN session ON session.account_id = account.id AND session.service_id = service.id
     WHERE account.tenant = $1 AND account.source = $2 AND service.ended_at > $3
       AND session.last_event_at > service.ended_at + $4
     ORDER BY account.external_id, service.external_id, session.id LIMIT $5";

/// Begins one that is being received.
pub async fn create(tx: &mut Tx, new: &NewSync<'_>, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(CREATE)
        .bind(new.id)
        .bind(new.tenant)
        .bind(new.source)
        .bind(new.profile)
        .bind(new.said_complete)
        .bind(new.told_records.map(|told| i64::try_from(told).unwrap_or(i64::MAX)))
        .bind(new.only.map(Steps::to_string))
        .bind(to_micros(new.as_of))
        .bind(new.requested_by)
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Keeps a piece of what is sent; pieces count from 0.
pub async fn add_part(tx: &mut Tx, id: &str, number: i64, sealed: &[u8]) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(ADD_PART).bind(id).bind(number).bind(sealed).execute(c).await.map(drop))?;
    Ok(())
}

/// Forgets the pieces of one that is sent anew.
pub async fn clear_parts(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(CLEAR_PARTS).bind(id).execute(c).await.map(drop))?;
    Ok(())
}

/// Forgets one that was being received.
pub async fn forget_one(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    for statement in [CLEAR_PARTS, FORGET_ONE] {
        on!(tx, c => sqlx::query(statement).bind(id).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// A piece. `None`: there are no more.
pub async fn part(tx: &mut Tx, id: &str, number: i64) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(PART).bind(id).bind(number).fetch_optional(c).await)?)
}

/// All of it is there.
pub async fn received(tx: &mut Tx, id: &str, octets: i64) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(RECEIVED).bind(id).bind(octets).execute(c).await.map(drop))?;
    Ok(())
}

/// Keeps what was found.
pub async fn planned(tx: &mut Tx, id: &str, report: &Report, now: Timestamp) -> Result<(), StoreError> {
    let document = serde_json::to_string(report).map_err(|error| StoreError::Database(error.to_string()))?;
    on!(tx, c => sqlx::query(PLANNED)
        .bind(id)
        .bind(&document)
        .bind(&report.plan.hash)
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Keeps what was found again by one that is being applied.
pub async fn compared(tx: &mut Tx, id: &str, report: &Report) -> Result<(), StoreError> {
    let document = serde_json::to_string(report).map_err(|error| StoreError::Database(error.to_string()))?;
    on!(tx, c => sqlx::query(COMPARED).bind(id).bind(&document).bind(&report.plan.hash).execute(c).await.map(drop))?;
    Ok(())
}

/// Why a plan was not applied; it stays as it is.
pub async fn told(tx: &mut Tx, id: &str, error: &str) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(TOLD).bind(id).bind(error).execute(c).await.map(drop))?;
    Ok(())
}

/// Asks that a plan be applied. `false`: it is not planned, or the plan has another hash.
pub async fn ask_to_apply(
    tx: &mut Tx,
    id: &str,
    hash: &str,
    allow_deletions: Option<u64>,
    by: &str,
) -> Result<bool, StoreError> {
    let allowed = allow_deletions.map(|allowed| i64::try_from(allowed).unwrap_or(i64::MAX));
    let asked: Option<String> = on!(tx, c => sqlx::query_scalar(ASK_TO_APPLY)
        .bind(id)
        .bind(hash)
        .bind(allowed)
        .bind(by)
        .fetch_optional(c)
        .await)?;
    Ok(asked.is_some())
}

/// It is applied; `result` is JSON.
pub async fn applied(
    tx: &mut Tx,
    id: &str,
    losses: u64,
    result: &str,
    by: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(APPLIED)
        .bind(id)
        .bind(i64::try_from(losses).unwrap_or(i64::MAX))
        .bind(result)
        .bind(by)
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// It cannot be done; why.
pub async fn failed(tx: &mut Tx, id: &str, error: &str) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(FAILED).bind(id).bind(error).execute(c).await.map(drop))?;
    Ok(())
}

/// One of a tenant's.
pub async fn find(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<SyncRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(FIND).bind(tenant).bind(id).fetch_optional(c).await)?;
    row.map(SyncRow::try_from).transpose()
}

/// A tenant's, the newest first; `before` is the last of the page before.
pub async fn list(
    tx: &mut Tx,
    tenant: &str,
    source: Option<&str>,
    before: Option<(Timestamp, &str)>,
    limit: i64,
) -> Result<Vec<SyncRow>, StoreError> {
    let (at, id) = before.map_or((i64::MAX, ""), |(at, id)| (to_micros(at), id));
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(tenant)
        .bind(source)
        .bind(at)
        .bind(id)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(SyncRow::try_from).collect()
}

/// Whether one waits for a daemon.
pub async fn waiting(tx: &mut Tx, now: Timestamp) -> Result<bool, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(WAITING).bind(to_micros(now)).fetch_optional(c).await)?;
    Ok(row.is_some())
}

/// Takes the one that waits longest until `until`; another daemon takes it after that.
pub async fn claim(tx: &mut Tx, now: Timestamp, until: Timestamp) -> Result<Option<SyncRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(WAITING).bind(to_micros(now)).fetch_optional(c).await)?;
    let Some(row) = row.map(SyncRow::try_from).transpose()? else { return Ok(None) };
    Ok(take(tx, &row.id, &row.state, now, until).await?.then_some(row))
}

/// Takes one in a state until `until`. `false`: somebody else has it, or it is in another state.
pub async fn take(tx: &mut Tx, id: &str, state: &str, now: Timestamp, until: Timestamp) -> Result<bool, StoreError> {
    let taken: Option<String> = on!(tx, c => sqlx::query_scalar(CLAIM)
        .bind(id)
        .bind(to_micros(now))
        .bind(to_micros(until))
        .bind(state)
        .fetch_optional(c)
        .await)?;
    Ok(taken.is_some())
}

/// Keeps it for longer.
pub async fn renew(tx: &mut Tx, id: &str, until: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(RENEW).bind(id).bind(to_micros(until)).execute(c).await.map(drop))?;
    Ok(())
}

/// Forgets the findings of an attempt before.
pub async fn clear_findings(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(CLEAR_FINDINGS).bind(id).execute(c).await.map(drop))?;
    Ok(())
}

/// Keeps findings, each with its place among those of its account.
pub async fn add_findings(tx: &mut Tx, id: &str, findings: &[(i64, Finding)]) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(findings.len());
    for (number, finding) in findings {
        let document = serde_json::to_string(finding).map_err(|error| StoreError::Database(error.to_string()))?;
        let [account, class] = [finding.account.as_str(), finding.class.as_str()].map(Into::into);
        rows.push([id.into(), account, (*number).into(), class, document.into()]);
    }
    ADD_FINDINGS.execute(tx, rows).await
}

/// Findings in the order of accounts, each with its place; `after` is the last of the page before.
pub async fn findings(
    tx: &mut Tx,
    id: &str,
    class: Option<Class>,
    after: Option<(&str, i64)>,
    limit: i64,
) -> Result<Vec<(i64, Finding)>, StoreError> {
    let (account, number) = after.unwrap_or(("", -1));
    let rows: Vec<(String, i64, String)> = on!(tx, c => sqlx::query_as(FINDINGS)
        .bind(id)
        .bind(class.map(Class::as_str))
        .bind(account)
        .bind(number)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let read = |(account, number, document): (String, i64, String)| {
        let corrupt =
            |_| StoreError::Corrupt { table: "sync_finding", column: "document", id: format!("{id}/{account}") };
        Ok((number, serde_json::from_str(&document).map_err(corrupt)?))
    };
    rows.into_iter().map(read).collect()
}

/// What plans of a source took away since an instant.
pub async fn losses(tx: &mut Tx, tenant: &str, source: &str, since: Timestamp) -> Result<u64, StoreError> {
    let losses: i64 = on!(tx, c => sqlx::query_scalar(LOSSES)
        .bind(tenant)
        .bind(source)
        .bind(to_micros(since))
        .fetch_one(c)
        .await)?;
    Ok(u64::try_from(losses).unwrap_or(0))
}

/// Forgets everything of before an instant, and what was sent for those that are applied or failed; one whose receiving
/// began before `abandoned_before` has failed.
pub async fn forget(tx: &mut Tx, before: Timestamp, abandoned_before: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(ABANDON).bind(to_micros(abandoned_before)).execute(c).await.map(drop))?;
    for statement in [FORGET_PARTS, FORGET_FINDINGS, FORGET] {
        on!(tx, c => sqlx::query(statement).bind(to_micros(before)).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Rows of a source's living accounts after row `after`.
pub async fn living(tx: &mut Tx, tenant: &str, source: &str, after: i64, limit: i64) -> Result<Vec<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(LIVING)
        .bind(tenant)
        .bind(source)
        .bind(after)
        .bind(limit)
        .fetch_all(c)
        .await)?)
}

/// How many accounts of a source live.
pub async fn count_living(tx: &mut Tx, tenant: &str, source: &str) -> Result<u64, StoreError> {
    let count: i64 = on!(tx, c => sqlx::query_scalar(COUNT_LIVING).bind(tenant).bind(source).fetch_one(c).await)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Those of the accounts that have a job which began after an instant and is not done.
pub async fn with_new_jobs(tx: &mut Tx, accounts: &[i64], since: Timestamp) -> Result<HashSet<i64>, StoreError> {
    let rows = accounts.iter().map(|id| [(*id).into(), to_micros(since).into()]).collect();
    let found: Vec<(i64,)> = WITH_NEW_JOBS.fetch(tx, rows).await?;
    Ok(found.into_iter().map(|(id,)| id).collect())
}

/// The services (external ids) of accounts that issued lines charge for in the period that holds an instant.
pub async fn billed(tx: &mut Tx, accounts: &[i64], at: Timestamp) -> Result<HashMap<i64, HashSet<String>>, StoreError> {
    let rows = accounts.iter().map(|id| [(*id).into(), to_micros(at).into()]).collect();
    let found: Vec<(i64, String)> = BILLED.fetch(tx, rows).await?;
    let mut billed: HashMap<i64, HashSet<String>> = HashMap::new();
    for (account, service) in found {
        billed.entry(account).or_default().insert(service);
    }
    Ok(billed)
}

/// Documents of the issued count lines by which a tenant's parent charges it, or another child, for the period that holds an
/// instant.
pub async fn wholesale_lines(tx: &mut Tx, tenant: &str, at: Timestamp) -> Result<Vec<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(WHOLESALE).bind(tenant).bind(to_micros(at)).fetch_all(c).await)?)
}

/// Usage of a service after its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zombie {
    pub account: String,
    pub service: String,
    pub session: String,
    pub nas: String,
    pub last_event_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

/// Sessions that went on for more than `slack_seconds` after the end of their service, of services that ended after
/// `since`.
pub async fn zombies(
    tx: &mut Tx,
    tenant: &str,
    source: &str,
    since: Timestamp,
    slack_seconds: i64,
    limit: i64,
) -> Result<Vec<Zombie>, StoreError> {
    let rows: Vec<(String, String, String, String, i64, i64)> = on!(tx, c => sqlx::query_as(ZOMBIES)
        .bind(tenant)
        .bind(source)
        .bind(to_micros(since))
        .bind(slack_seconds * 1_000_000)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let zombie = |(account, service, session, nas, last, ended)| Zombie {
        account,
        service,
        session,
        nas,
        last_event_at: from_micros(last),
        ended_at: from_micros(ended),
    };
    Ok(rows.into_iter().map(zombie).collect())
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    tenant: String,
    source: String,
    profile: Option<String>,
    said_complete: Option<String>,
    told_records: Option<i64>,
    only_steps: Option<String>,
    as_of_at: i64,
    state: String,
    octets: i64,
    report: Option<String>,
    plan_hash: Option<String>,
    allow_deletions: Option<i64>,
    result: Option<String>,
    error: Option<String>,
    requested_by: String,
    applied_by: Option<String>,
    created_at: i64,
}

impl TryFrom<Row> for SyncRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "sync", column, id: row.id.clone() };
        let instant = |column: &'static str, at: i64| from_micros(at).ok_or_else(|| corrupt(column));
        let report = |text: &String| serde_json::from_str(text).map_err(|_| corrupt("report"));
        let only = |text: &String| text.parse().map_err(|_| corrupt("only_steps"));
        Ok(Self {
            only: row.only_steps.as_ref().map(only).transpose()?,
            told_records: row.told_records.map(|told| u64::try_from(told).unwrap_or(0)),
            as_of: instant("as_of_at", row.as_of_at)?,
            created_at: instant("created_at", row.created_at)?,
            report: row.report.as_ref().map(report).transpose()?,
            id: row.id,
            tenant: row.tenant,
            source: row.source,
            profile: row.profile,
            said_complete: row.said_complete,
            state: row.state,
            octets: row.octets,
            plan_hash: row.plan_hash,
            allow_deletions: row.allow_deletions.map(|allowed| u64::try_from(allowed).unwrap_or(0)),
            result: row.result,
            error: row.error,
            requested_by: row.requested_by,
            applied_by: row.applied_by,
        })
    }
}
