//! What a person may ask of us: legal holds, the rows that tell who an account's person is, and taking them out. Totals, lines
//! and the audit's chain stay; who it was does not.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::accounts::AccountRow;
use super::audit_chain::{Meeting, Sealed};
use super::journal::RedactedSession;
use super::{Db, Store, StoreError, Tx, accounts, audit, audit_chain, on, secrets};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// A legal hold that stands, or stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LegalHold {
    pub reason: String,
    pub case: Option<String>,
    pub placed_by: String,
    pub from_at: Timestamp,
    pub lifted_at: Option<Timestamp>,
    pub lifted_by: Option<String>,
}

/// Everything that tells who an account's person is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// As they stand in documents and columns.
    pub words: BTreeSet<String>,
    /// As octets, as they stand in packets too.
    pub octets: Vec<Vec<u8>>,
    pub sessions: Vec<RedactedSession>,
    /// (MAC, from, until) as the account held them; microseconds.
    pub macs: Vec<(String, i64, i64)>,
}

/// What an erasure took out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    pub sessions: u64,
    pub leases: u64,
    pub elements: u64,
    pub deeds: u64,
    pub calls: u64,
    /// Answers, exceptions, events and findings in which the person was named.
    pub mentions: u64,
}

const PLACE_HOLD: &str = "INSERT INTO legal_hold (account_id, reason, case_number, placed_by, from_at)
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (account_id) WHERE lifted_at IS NULL DO NOTHING";
const LIFT_HOLD: &str =
    "UPDATE legal_hold SET lifted_at = $2, lifted_by = $3 WHERE account_id = $1 AND lifted_at IS NULL";
const HOLDS: &str = "SELECT reason, case_number, placed_by, from_at, lifted_at, lifted_by FROM legal_hold
     WHERE account_id = $1 ORDER BY from_at DESC LIMIT 100";
const HELD_ACCOUNTS: &str =
    "SELECT account_id FROM legal_hold WHERE lifted_at IS NULL ORDER BY account_id LIMIT 1000000";
const LIVING_ELEMENTS: &str = "SELECT COUNT(*) FROM element WHERE account_id = $1 AND (state <> 'gone'
     OR EXISTS (SELECT 1 FROM job WHERE job.element_id = element.id AND job.finished_at IS NULL))";
const OPEN_SESSIONS: &str = "SELECT COUNT(*) FROM session WHERE account_id = $1 AND ended_at IS NULL";
const QUARANTINED: &str = "SELECT COUNT(*) FROM quarantine
     WHERE account_id = $1 AND until_at > $2 AND released_at IS NULL";
const HELD_VALUES: &str = "SELECT kind, value, from_at, until_at FROM holder WHERE account_id = $1
     ORDER BY id LIMIT 100000";
const SESSIONS: &str = "SELECT nas, session, started_at, user_name, framed_ip, framed_prefix,
        calling_station FROM session WHERE account_id = $1 ORDER BY id LIMIT 1000000";
const ERASURE: &str = "SELECT erased_at FROM erasure WHERE account_id = $1";
const PUT_ERASURE: &str = "INSERT INTO erasure (account_id, reason, erased_by, erased_at) VALUES ($1, $2, $3, $4)
     ON CONFLICT (account_id) DO UPDATE SET reason = excluded.reason, erased_by = excluded.erased_by,
        erased_at = excluded.erased_at";
const SCRUB_ACCOUNT: &str = "UPDATE account SET document = $2, etag = $3 WHERE id = $1";
const SCRUB_HOLDERS: &str = "UPDATE holder SET value = 'erased:' || id WHERE account_id = $1";
const SCRUB_SESSIONS: &str = "UPDATE session SET user_name = NULL, framed_ip = NULL, framed_prefix = NULL,
        calling_station = NULL, class = NULL WHERE account_id = $1";
const SCRUB_CALLS: &str =
    "UPDATE call_record SET number = 'erased:' || id, destination = 'erased' WHERE account_id = $1";
const SCRUB_DEEDS: &str = "UPDATE audit SET subject = '', detail = 'null', chain_salt = NULL
     WHERE account_id = $1 AND chain_sequence IS NOT NULL";
const DROP_LEASES: &str =
    "DELETE FROM address_lease WHERE (mac = $1 OR behind = $1) AND since_at < $3 AND until_at > $2";
const DROP_SEEN: &str = "DELETE FROM device_seen WHERE mac = $1
     AND NOT EXISTS (SELECT 1 FROM holder WHERE kind = 'mac' AND value = $1 AND until_at IS NULL)";
/// Rows of an account that only its person is told by; children before their parents.
const DROPPED: [&str; 9] = [
    "DELETE FROM nas_order WHERE request_id IN (SELECT id FROM nas_request WHERE account_id = $1)",
    "DELETE FROM nas_request WHERE account_id = $1",
    "DELETE FROM drift WHERE element_id IN (SELECT id FROM element WHERE account_id = $1)",
    "DELETE FROM device WHERE element_id IN (SELECT id FROM element WHERE account_id = $1)",
    "DELETE FROM mailbox_wake WHERE element_id IN (SELECT id FROM element WHERE account_id = $1)",
    "DELETE FROM rollout_member WHERE account_id = $1",
    "DELETE FROM job WHERE account_id = $1",
    "DELETE FROM quarantine WHERE account_id = $1",
    "DELETE FROM catalog_follow WHERE account_id = $1",
];
const DROP_ELEMENTS: &str = "DELETE FROM element WHERE account_id = $1";
/// Where somebody may be named in passing: $1 is a word as LIKE takes it, $2 the tenant.
const MENTIONS: [&str; 7] = [
    "DELETE FROM idempotency WHERE tenant = $2 AND response LIKE $1 ESCAPE '!'",
    "UPDATE exception SET subject = 'erased:' || id, detail = 'erased'
     WHERE tenant = $2 AND (subject LIKE $1 ESCAPE '!' OR detail LIKE $1 ESCAPE '!')",
    "UPDATE event SET payload = '{\"erased\":true}' WHERE tenant = $2 AND payload LIKE $1 ESCAPE '!'",
    "UPDATE event SET subject = 'erased' WHERE tenant = $2 AND subject LIKE $1 ESCAPE '!'",
    "UPDATE bill_finding SET subject = 'erased:' || id, detail = 'erased', numbers = '{}'
     WHERE tenant = $2 AND (subject LIKE $1 ESCAPE '!' OR detail LIKE $1 ESCAPE '!')",
    "DELETE FROM sync_finding WHERE document LIKE $1 ESCAPE '!' AND sync IN (SELECT id FROM sync WHERE tenant = $2)",
    "UPDATE sync SET report = NULL, result = NULL
     WHERE tenant = $2 AND (report LIKE $1 ESCAPE '!' OR result LIKE $1 ESCAPE '!')",
];
const SCRUB_OLD_SESSIONS: &str = "UPDATE session SET user_name = NULL, framed_ip = NULL, framed_prefix = NULL,
        calling_station = NULL
     WHERE id IN (SELECT session.id FROM session JOIN account ON account.id = session.account_id
        WHERE account.tenant = $1 AND session.ended_at < $2
          AND (session.user_name IS NOT NULL OR session.framed_ip IS NOT NULL OR session.framed_prefix IS NOT NULL
               OR session.calling_station IS NOT NULL)
          AND NOT EXISTS (SELECT 1 FROM legal_hold
                          WHERE legal_hold.account_id = session.account_id AND legal_hold.lifted_at IS NULL)
        ORDER BY session.id LIMIT $3)";
const DROP_OLD_LEASES: &str = "DELETE FROM address_lease
     WHERE id IN (SELECT address_lease.id FROM address_lease
        JOIN holder ON holder.kind = 'mac' AND holder.value IN (address_lease.mac, address_lease.behind)
             AND holder.from_at < address_lease.until_at
             AND (holder.until_at IS NULL OR holder.until_at > address_lease.since_at)
        JOIN account ON account.id = holder.account_id
        WHERE account.tenant = $1 AND address_lease.until_at < $2
          AND NOT EXISTS (SELECT 1 FROM legal_hold
                          WHERE legal_hold.account_id = account.id AND legal_hold.lifted_at IS NULL)
        ORDER BY address_lease.id LIMIT $3)";
const DROP_OLD_ANSWERS: &str = "DELETE FROM idempotency WHERE tenant = $1 AND key IN
        (SELECT key FROM idempotency WHERE tenant = $1 AND created_at < $2 ORDER BY key LIMIT $3)";

/// Places a legal hold; `false`: one stands already.
pub async fn hold(
    tx: &mut Tx,
    account_id: i64,
    reason: &str,
    case: Option<&str>,
    by: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let placed = on!(tx, c => sqlx::query(PLACE_HOLD)
        .bind(account_id)
        .bind(reason)
        .bind(case)
        .bind(by)
        .bind(to_micros(now))
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(placed == 1)
}

/// Lifts the legal hold; `false`: none stands.
pub async fn lift(tx: &mut Tx, account_id: i64, by: &str, now: Timestamp) -> Result<bool, StoreError> {
    let lifted = on!(tx, c => sqlx::query(LIFT_HOLD)
        .bind(account_id)
        .bind(to_micros(now))
        .bind(by)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(lifted == 1)
}

/// The legal holds of an account, the newest first.
pub async fn holds(tx: &mut Tx, account_id: i64) -> Result<Vec<LegalHold>, StoreError> {
    type Row = (String, Option<String>, String, i64, Option<i64>, Option<String>);
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(HOLDS).bind(account_id).fetch_all(c).await)?;
    let instant = |at: i64| {
        from_micros(at).ok_or_else(|| StoreError::Corrupt {
            table: "legal_hold",
            column: "from_at",
            id: account_id.to_string(),
        })
    };
    let hold = |(reason, case, placed_by, from_at, lifted_at, lifted_by): Row| {
        let lifted_at = lifted_at.map(instant).transpose()?;
        Ok(LegalHold { reason, case, placed_by, from_at: instant(from_at)?, lifted_at, lifted_by })
    };
    rows.into_iter().map(hold).collect()
}

/// Accounts under a legal hold.
pub async fn held_accounts(tx: &mut Tx) -> Result<BTreeSet<i64>, StoreError> {
    let ids: Vec<i64> = on!(tx, c => sqlx::query_scalar(HELD_ACCOUNTS).fetch_all(c).await)?;
    Ok(ids.into_iter().collect())
}

/// When the account's person was erased; `None`: never.
pub async fn erased_at(tx: &mut Tx, account_id: i64) -> Result<Option<Timestamp>, StoreError> {
    let at: Option<i64> = on!(tx, c => sqlx::query_scalar(ERASURE).bind(account_id).fetch_optional(c).await)?;
    Ok(at.and_then(from_micros))
}

/// Why the person of an account cannot be erased now, each with what to do; empty: they can.
pub async fn obstacles(tx: &mut Tx, row: &AccountRow, now: Timestamp) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    if let Some(hold) = holds(tx, row.id).await?.into_iter().find(|hold| hold.lifted_at.is_none()) {
        found.push(format!("it is under a legal hold since {:.0} ({}); lift that first", hold.from_at, hold.reason));
    }
    if row.closed_at.is_none() {
        found.push("it is not closed; close it and let it be deprovisioned first".to_owned());
    }
    let count = |count: i64, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let elements: i64 = on!(&mut *tx, c => sqlx::query_scalar(LIVING_ELEMENTS).bind(row.id).fetch_one(c).await)?;
    found.extend(count(elements, "of its elements are not taken down yet; see `job list`"));
    let open: i64 = on!(&mut *tx, c => sqlx::query_scalar(OPEN_SESSIONS).bind(row.id).fetch_one(c).await)?;
    found.extend(count(open, "of its sessions are open; end them with `session disconnect`"));
    let kept: i64 = on!(tx, c => sqlx::query_scalar(QUARANTINED).bind(row.id).bind(to_micros(now)).fetch_one(c).await)?;
    found.extend(count(kept, "of its addresses or numbers are kept from others; wait, or `quarantine release` them"));
    Ok(found)
}

/// Everything that tells who the account's person is, as it stands now.
pub async fn identity(tx: &mut Tx, row: &AccountRow) -> Result<Identity, StoreError> {
    let mut words = row.document.identity();
    let mut macs = Vec::new();
    let held: Vec<(String, String, i64, Option<i64>)> =
        on!(&mut *tx, c => sqlx::query_as(HELD_VALUES).bind(row.id).fetch_all(c).await)?;
    for (kind, value, from, until) in held.into_iter().filter(|(_, value, ..)| !value.starts_with(ERASED)) {
        if kind == "mac" {
            macs.push((value.clone(), from, until.unwrap_or(i64::MAX)));
        }
        words.insert(value);
    }
    type Session = (String, String, i64, Option<String>, Option<String>, Option<String>, Option<String>);
    let rows: Vec<Session> = on!(tx, c => sqlx::query_as(SESSIONS).bind(row.id).fetch_all(c).await)?;
    let mut sessions = Vec::with_capacity(rows.len());
    for (nas, session, started_at, user, address, prefix, station) in rows {
        words.extend([user, address, prefix, station].into_iter().flatten());
        sessions.push(RedactedSession { nas, session, from: started_at - ARRIVAL_SLACK });
    }
    let mut octets: BTreeSet<Vec<u8>> = BTreeSet::new();
    for word in &words {
        octets.extend(written(word));
    }
    Ok(Identity { words, octets: octets.into_iter().collect(), sessions, macs })
}

/// A word as packets write it: as it stands, an address as its octets, a MAC in the usual spellings.
fn written(word: &str) -> Vec<Vec<u8>> {
    let mut spellings = vec![word.as_bytes().to_vec()];
    if let Ok(address) = word.parse::<std::net::IpAddr>() {
        spellings.push(match address {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        });
    }
    if let Ok(mac) = word.parse::<crate::vocabulary::MacAddress>() {
        let plain: String = mac.to_string().replace(':', "");
        let dotted = [&plain[..4], &plain[4..8], &plain[8..]].join(".");
        for text in [mac.to_string(), mac.to_string().replace(':', "-"), plain, dotted] {
            spellings.extend([text.to_uppercase().into_bytes(), text.into_bytes()]);
        }
    }
    spellings
}

/// Takes the person out of every row of the account, seals the audit before that, and notes the deed.
///
/// The caller has looked for obstacles in the same transaction, and took the person out of the journal before.
pub async fn erase(
    tx: &mut Tx,
    store: &Store,
    row: &AccountRow,
    identity: &Identity,
    reason: &str,
    by: &str,
    now: Timestamp,
) -> Result<Erased, StoreError> {
    // A deed without a place in the chain could not lose its subject and keep its proof.
    loop {
        let step = (STEP, Meeting::Wait);
        match audit_chain::seal(tx, store.sealer(), &row.tenant, None, step, now).await? {
            Sealed::Deeds { .. } => {}
            Sealed::Nothing => break,
            Sealed::Refused(broken) => {
                let id = broken.sequence.to_string();
                return Err(StoreError::Corrupt { table: "audit", column: "chain_hash", id });
            }
        }
    }
    let mut tag = [0u8; 16];
    getrandom::fill(&mut tag).map_err(|error| StoreError::Database(format!("no randomness: {error}")))?;
    let tag: String = tag.iter().map(|octet| format!("{octet:02x}")).collect();
    let document = json!(row.document.without_identity()).to_string();
    on!(&mut *tx, c => sqlx::query(SCRUB_ACCOUNT).bind(row.id).bind(document).bind(tag).execute(c).await.map(drop))?;
    secrets::remove_all(tx, row.id).await?;
    let mut erased = Erased { sessions: of_account(tx, SCRUB_SESSIONS, row.id).await?, ..Erased::default() };
    for (mac, from, until) in &identity.macs {
        erased.leases += on!(&mut *tx, c => sqlx::query(DROP_LEASES)
            .bind(mac)
            .bind(from)
            .bind(until)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        on!(&mut *tx, c => sqlx::query(DROP_SEEN).bind(mac).execute(c).await.map(drop))?;
    }
    of_account(tx, SCRUB_HOLDERS, row.id).await?;
    erased.calls = of_account(tx, SCRUB_CALLS, row.id).await?;
    for statement in DROPPED {
        of_account(tx, statement, row.id).await?;
    }
    erased.elements = of_account(tx, DROP_ELEMENTS, row.id).await?;
    erased.deeds = of_account(tx, SCRUB_DEEDS, row.id).await?;
    for word in identity.words.iter().filter(|word| word.chars().count() >= MENTION_LEAST) {
        let like = format!("%{}%", audit::literal(word));
        for statement in MENTIONS {
            erased.mentions += on!(&mut *tx, c => sqlx::query(statement)
                .bind(&like)
                .bind(&row.tenant)
                .execute(c)
                .await
                .map(|done| done.rows_affected()))?;
        }
    }
    on!(&mut *tx, c => sqlx::query(PUT_ERASURE)
        .bind(row.id)
        .bind(reason)
        .bind(by)
        .bind(to_micros(now))
        .execute(c)
        .await
        .map(drop))?;
    let subject = accounts::subject_of(row);
    let entry = audit::Entry {
        tenant: Some(&row.tenant),
        actor: by,
        action: "account.erase",
        account_id: Some(row.id),
        subject: &subject,
        detail: &json!({ "reason": reason, "erased": erased }),
    };
    audit::append(tx, &entry, now).await?;
    Ok(erased)
}

async fn of_account(tx: &mut Tx, statement: &'static str, account_id: i64) -> Result<u64, StoreError> {
    Ok(on!(tx, c => sqlx::query(statement)
        .bind(account_id)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?)
}

impl Store {
    /// After an erasure: what the databases' logs and unused room still hold of it goes too. `false`: somebody reads, and the
    /// log is emptied when they have ended.
    ///
    /// **Errors**: the disk.
    pub async fn sweep_out(&self) -> Result<bool, StoreError> {
        match &self.inner.db {
            Db::Sqlite { main, accounting } => {
                // Rows were overwritten in their places; this rids the file of what older programs left in free pages.
                {
                    let _turn = main.log.turn().await?;
                    let mut connection = main.foreground.acquire().await?;
                    sqlx::query("VACUUM").execute(&mut *connection).await?;
                }
                let mut empty = true;
                for file in [main, accounting] {
                    let mut tries = 0;
                    while !file.log.empty().await? {
                        tries += 1;
                        if tries > EMPTY_TRIES {
                            empty = false;
                            break;
                        }
                        tokio::time::sleep(EMPTY_POLL).await;
                    }
                }
                Ok(empty)
            }
            Db::Postgres { pool, .. } => {
                for statement in VACUUMED {
                    sqlx::query(statement).execute(pool).await?;
                }
                Ok(true)
            }
        }
    }
}

/// Takes names and addresses out of a tenant's sessions that ended before `before`, and drops its leases of that age, at most
/// `limit` of each. Accounts under a legal hold keep theirs.
pub async fn forget_sessions(tx: &mut Tx, tenant: &str, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
    let mut gone = 0;
    for statement in [SCRUB_OLD_SESSIONS, DROP_OLD_LEASES] {
        gone += bounded(tx, statement, tenant, before, limit).await?;
    }
    Ok(gone)
}

/// Drops answers that are kept for repeated requests, made before `before`, at most `limit`.
pub async fn forget_answers(tx: &mut Tx, tenant: &str, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
    bounded(tx, DROP_OLD_ANSWERS, tenant, before, limit).await
}

async fn bounded(
    tx: &mut Tx,
    statement: &'static str,
    tenant: &str,
    before: Timestamp,
    limit: i64,
) -> Result<u64, StoreError> {
    Ok(on!(tx, c => sqlx::query(statement)
        .bind(tenant)
        .bind(to_micros(before))
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?)
}

/// An account as a person may carry it elsewhere: what we hold of them, besides what lists of their own give page by page.
pub async fn rows_of(tx: &mut Tx, account_id: i64) -> Result<Value, StoreError> {
    type Held = (String, String, i64, Option<i64>);
    let held: Vec<Held> = on!(&mut *tx, c => sqlx::query_as(HELD_VALUES).bind(account_id).fetch_all(c).await)?;
    type Call = (String, String, i64, i64);
    let calls: Vec<Call> = on!(&mut *tx, c => sqlx::query_as(
        "SELECT number, destination, started_at, seconds FROM call_record WHERE account_id = $1 ORDER BY id LIMIT 1000000")
        .bind(account_id)
        .fetch_all(c)
        .await)?;
    type Lease = (String, String, String, Option<String>, String, i64, i64);
    let mut leases: Vec<Value> = Vec::new();
    for (_, mac, from, until) in held.iter().filter(|(kind, ..)| kind == "mac") {
        let rows: Vec<Lease> = on!(&mut *tx, c => sqlx::query_as(
            "SELECT address, mac, kind, behind, cmts, since_at, until_at FROM address_lease
             WHERE (mac = $1 OR behind = $1) AND since_at < $3 AND until_at > $2 ORDER BY id LIMIT 1000000")
            .bind(mac)
            .bind(from)
            .bind(until.unwrap_or(i64::MAX))
            .fetch_all(c)
            .await)?;
        leases.extend(rows.into_iter().map(|(address, mac, kind, behind, cmts, since, until)| {
            json!({ "address": address, "mac": mac, "kind": kind, "behind": behind, "cmts": cmts,
                "since": from_micros(since), "until": from_micros(until) })
        }));
    }
    let kept: Vec<(String, String, i64)> = on!(tx, c => sqlx::query_as(
        "SELECT kind, value, until_at FROM quarantine WHERE account_id = $1 ORDER BY kind, value LIMIT 10000")
        .bind(account_id)
        .fetch_all(c)
        .await)?;
    let held = held.into_iter().map(|(kind, value, from, until)| {
        json!({ "kind": kind, "value": value, "from": from_micros(from), "until": until.and_then(from_micros) })
    });
    let calls = calls.into_iter().map(|(number, destination, started, seconds)| {
        json!({ "number": number, "destination": destination, "started_at": from_micros(started), "seconds": seconds })
    });
    let kept = kept
        .into_iter()
        .map(|(kind, value, until)| json!({ "kind": kind, "value": value, "until": from_micros(until) }));
    Ok(json!({
        "held": held.collect::<Vec<_>>(),
        "calls": calls.collect::<Vec<_>>(),
        "leases": leases,
        "quarantine": kept.collect::<Vec<_>>(),
    }))
}

const ERASED: &str = "erased:";
/// Deeds sealed at once.
const STEP: i64 = 1024;
/// Shorter words are in every text.
const MENTION_LEAST: usize = 5;
/// Records may arrive so much before what they tell, microseconds: a clock that is a week ahead.
const ARRIVAL_SLACK: i64 = 7 * 86_400_000_000;
const EMPTY_TRIES: u32 = 50;
const EMPTY_POLL: std::time::Duration = std::time::Duration::from_millis(200);
/// What an erasure writes, so that dead rows go too.
const VACUUMED: [&str; 16] = [
    "VACUUM account",
    "VACUUM holder",
    "VACUUM session",
    "VACUUM secret",
    "VACUUM element",
    "VACUUM job",
    "VACUUM address_lease",
    "VACUUM device_seen",
    "VACUUM call_record",
    "VACUUM audit",
    "VACUUM idempotency",
    "VACUUM exception",
    "VACUUM event",
    "VACUUM sync",
    "VACUUM sync_finding",
    "VACUUM journal",
];
