//! Takes a person out of every row of their account, and out of what names them in passing.
//!
//! `tests/it/identity.md` lists each table and column, and which of the statements here, or why none, sees to it.

use std::collections::BTreeSet;

use serde_json::json;

use super::inputs::{self, Named};
use super::words::{self, in_texts};
use super::{ERASED, Erased, Identity, devices, postings};
use crate::store::accounts::{self, AccountRow};
use crate::store::audit_chain::{self, Meeting, Sealed};
use crate::store::many::{Many, Of};
use crate::store::{Db, Store, StoreError, Tx, audit, on, secrets};
use crate::vocabulary::{Timestamp, to_micros};

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
const DROP_SEEN: &str = "DELETE FROM device_seen WHERE (mac = $1 OR behind = $1)
     AND NOT EXISTS (SELECT 1 FROM holder WHERE kind = 'mac' AND value = device_seen.mac AND until_at IS NULL)";
/// Rows of an account that only its person is told by; children before their parents.
const DROPPED: [&str; 11] = [
    "DELETE FROM nas_order WHERE request_id IN (SELECT id FROM nas_request WHERE account_id = $1)
        OR session_id IN (SELECT id FROM session WHERE account_id = $1)",
    "DELETE FROM nas_order WHERE request_id IN
        (SELECT id FROM nas_request WHERE session_id IN (SELECT id FROM session WHERE account_id = $1))",
    "DELETE FROM nas_request WHERE account_id = $1
        OR session_id IN (SELECT id FROM session WHERE account_id = $1)",
    "DELETE FROM drift WHERE element_id IN (SELECT id FROM element WHERE account_id = $1)",
    "DELETE FROM device WHERE element_id IN (SELECT id FROM element WHERE account_id = $1)",
    "DELETE FROM mailbox_wake WHERE element_id IN (SELECT id FROM element WHERE account_id = $1)",
    "DELETE FROM rollout_member WHERE account_id = $1",
    "DELETE FROM job WHERE account_id = $1",
    "DELETE FROM quarantine WHERE account_id = $1",
    "DELETE FROM catalog_follow WHERE account_id = $1",
    "DELETE FROM element WHERE account_id = $1",
];
/// What ways in keep by the account's name: tenant, source and external id. Of lists that are compared the whole goes: nobody
/// can say which of its octets are whose, and one without a piece must not be taken for a whole one.
const BY_NAME: [&str; 5] = [
    "UPDATE sync SET state = 'failed', error = 'a person in it was erased; send it again', claimed_until = NULL
     WHERE tenant = $1 AND source = $2 AND state IN ('receiving', 'received', 'planned', 'applying')
       AND CAST($3 AS TEXT) IS NOT NULL",
    "DELETE FROM sync_part WHERE sync IN (SELECT id FROM sync WHERE tenant = $1 AND source = $2)
       AND CAST($3 AS TEXT) IS NOT NULL",
    "DELETE FROM sync_finding WHERE account = $3 AND sync IN (SELECT id FROM sync WHERE tenant = $1 AND source = $2)",
    "DELETE FROM held_change WHERE tenant = $1 AND source = $2 AND account = $3",
    "DELETE FROM observation WHERE tenant = $1 AND source = $2 AND account = $3",
];

/// Where somebody may be named in passing: `new.word` is a word in small letters as LIKE takes it. One pass for all words, for
/// none of these has an index that helps.
macro_rules! mention {
    ($text:literal) => {
        Many::new([("word", Of::Text), ("tenant", Of::Text)], concat!($text, " RETURNING CAST(1 AS BIGINT)"))
    };
}
static MENTIONS: [Many<2>; 15] = [
    mention!(
        "DELETE FROM sync_finding WHERE sync IN (SELECT id FROM sync WHERE tenant IN (SELECT tenant FROM new))
            AND EXISTS (SELECT 1 FROM new WHERE LOWER(sync_finding.document) LIKE new.word ESCAPE '!')"
    ),
    mention!(
        "UPDATE sync SET report = NULL, result = NULL,
            error = CASE WHEN error IS NULL THEN NULL ELSE 'a person in it was erased; send it again' END
         WHERE EXISTS (SELECT 1 FROM new WHERE sync.tenant = new.tenant
            AND (LOWER(report) LIKE new.word ESCAPE '!' OR LOWER(result) LIKE new.word ESCAPE '!'
                 OR LOWER(error) LIKE new.word ESCAPE '!'))"
    ),
    mention!(
        "DELETE FROM idempotency WHERE EXISTS (SELECT 1 FROM new WHERE new.tenant = idempotency.tenant
            AND (LOWER(response) LIKE new.word ESCAPE '!' OR LOWER(key) LIKE new.word ESCAPE '!'))"
    ),
    mention!(
        "UPDATE exception SET subject = 'erased:' || id, detail = 'erased' WHERE EXISTS (SELECT 1 FROM new
            WHERE (exception.tenant = new.tenant OR exception.tenant IS NULL)
              AND (LOWER(subject) LIKE new.word ESCAPE '!' OR LOWER(detail) LIKE new.word ESCAPE '!'))"
    ),
    mention!(
        "UPDATE event SET payload = '{\"erased\":true}' WHERE EXISTS (SELECT 1 FROM new
            WHERE event.tenant = new.tenant AND LOWER(payload) LIKE new.word ESCAPE '!')"
    ),
    mention!(
        "UPDATE event SET subject = 'erased' WHERE EXISTS (SELECT 1 FROM new
            WHERE event.tenant = new.tenant AND LOWER(subject) LIKE new.word ESCAPE '!')"
    ),
    mention!(
        "UPDATE delivery SET detail = 'erased' WHERE outlet IN (SELECT id FROM outlet WHERE tenant IN (SELECT tenant FROM new))
            AND EXISTS (SELECT 1 FROM new WHERE LOWER(delivery.detail) LIKE new.word ESCAPE '!')"
    ),
    mention!(
        "UPDATE delivery SET subject = 'erased' WHERE outlet IN (SELECT id FROM outlet WHERE tenant IN (SELECT tenant FROM new))
            AND EXISTS (SELECT 1 FROM new WHERE LOWER(delivery.subject) LIKE new.word ESCAPE '!')"
    ),
    mention!(
        "UPDATE outlet SET because = 'erased' WHERE EXISTS (SELECT 1 FROM new
            WHERE outlet.tenant = new.tenant AND LOWER(because) LIKE new.word ESCAPE '!')"
    ),
    mention!(
        "UPDATE bill_finding SET subject = 'erased:' || id, detail = 'erased', advice = '', numbers = '{}'
         WHERE EXISTS (SELECT 1 FROM new WHERE bill_finding.tenant = new.tenant
            AND (LOWER(subject) LIKE new.word ESCAPE '!' OR LOWER(detail) LIKE new.word ESCAPE '!'
                 OR LOWER(advice) LIKE new.word ESCAPE '!' OR LOWER(numbers) LIKE new.word ESCAPE '!'))"
    ),
    mention!(
        "UPDATE bill_finding SET waived_because = 'erased' WHERE EXISTS (SELECT 1 FROM new
            WHERE bill_finding.tenant = new.tenant AND LOWER(waived_because) LIKE new.word ESCAPE '!')"
    ),
    mention!(
        "UPDATE rollout SET note = 'erased' WHERE EXISTS (SELECT 1 FROM new
            WHERE rollout.tenant = new.tenant AND LOWER(note) LIKE new.word ESCAPE '!')"
    ),
    mention!(
        "UPDATE ingest_fault SET faults = '[{\"pointer\":\"\",\"detail\":\"erased\"}]' WHERE EXISTS (SELECT 1 FROM new
            JOIN ingest ON ingest.tenant = new.tenant
            WHERE ingest.id = ingest_fault.ingest AND LOWER(faults) LIKE new.word ESCAPE '!')"
    ),
    mention!(
        "UPDATE ingest SET event = CASE WHEN event IS NULL THEN NULL ELSE 'erased:' || id END, name = CASE WHEN name IS NULL THEN NULL ELSE 'erased' END
         WHERE EXISTS (SELECT 1 FROM new WHERE ingest.tenant = new.tenant
            AND (LOWER(event) LIKE new.word ESCAPE '!' OR LOWER(name) LIKE new.word ESCAPE '!'))"
    ),
    // A session may have been touched for somebody before its owner was known.
    mention!(
        "UPDATE nas_request SET username = NULL, origin = NULL, previous = NULL, target = NULL
         WHERE finished_at IS NOT NULL AND EXISTS (SELECT 1 FROM new
            WHERE (nas_request.tenant = new.tenant OR nas_request.tenant IS NULL)
              AND (LOWER(username) LIKE new.word ESCAPE '!' OR LOWER(origin) LIKE new.word ESCAPE '!'
                   OR LOWER(previous) LIKE new.word ESCAPE '!' OR LOWER(target) LIKE new.word ESCAPE '!'))"
    ),
];

/// Who asked that a person be forgotten, why, and what was found of them among inputs before.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    pub reason: &'a str,
    pub by: &'a str,
    pub inputs: Named,
}

/// Takes the person out of every row of the account, seals the audit before that, and notes the deed.
///
/// The caller has looked for obstacles in the same transaction, and took the person out of the journal before.
pub async fn erase(
    tx: &mut Tx,
    store: &Store,
    row: &AccountRow,
    identity: &Identity,
    asked: Asked<'_>,
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
    let texts = postings::texts(tx, row.id).await?;
    // What the deeds say of where the account came from is needed, so inputs go before them.
    let found = (&identity.words, asked.inputs);
    let (inputs, files) = inputs::forget(tx, store.sealer(), row, found, asked.by, now).await?;
    let mut erased = Erased {
        sessions: of_account(tx, SCRUB_SESSIONS, row.id).await?,
        inputs,
        files,
        charges: postings::forget(tx, row.id).await?,
        ..Erased::default()
    };
    for (mac, from, until) in &identity.macs {
        erased.leases += on!(&mut *tx, c => sqlx::query(DROP_LEASES)
            .bind(mac)
            .bind(from)
            .bind(until)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        on!(&mut *tx, c => sqlx::query(DROP_SEEN).bind(mac).execute(c).await.map(drop))?;
        devices::ask(tx, store.sealer(), mac, now).await?;
    }
    of_account(tx, SCRUB_HOLDERS, row.id).await?;
    erased.calls = of_account(tx, SCRUB_CALLS, row.id).await?;
    for statement in BY_NAME {
        erased.waiting += on!(&mut *tx, c => sqlx::query(statement)
            .bind(&row.tenant)
            .bind(&row.source)
            .bind(&row.external_id)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
    }
    for statement in DROPPED {
        erased.elements = of_account(tx, statement, row.id).await?;
    }
    erased.deeds = of_account(tx, SCRUB_DEEDS, row.id).await?;
    for rows in mentioned(&identity.words, &texts, &row.tenant) {
        for statement in &MENTIONS {
            let gone: Vec<(i64,)> = statement.fetch(tx, rows.clone()).await?;
            erased.mentions += gone.len() as u64;
        }
    }
    on!(&mut *tx, c => sqlx::query(PUT_ERASURE)
        .bind(row.id)
        .bind(asked.reason)
        .bind(asked.by)
        .bind(to_micros(now))
        .execute(c)
        .await
        .map(drop))?;
    let subject = accounts::subject_of(row);
    let counted = Erased { files: Vec::new(), ..erased.clone() };
    let entry = audit::Entry {
        tenant: Some(&row.tenant),
        actor: asked.by,
        action: "account.erase",
        account_id: Some(row.id),
        subject: &subject,
        detail: &json!({ "reason": asked.reason, "erased": counted }),
    };
    audit::append(tx, &entry, now).await?;
    Ok(erased)
}

type Rows = Vec<[crate::store::many::Value<'static>; 2]>;

/// The words in all their spellings as rows of `MENTIONS`, a bounded number at once. What was written into descriptions is
/// looked for as a whole.
fn mentioned(words: &BTreeSet<String>, texts: &BTreeSet<String>, tenant: &str) -> Vec<Rows> {
    let long = |word: &&String| word.chars().count() >= words::LEAST && !word.starts_with(ERASED);
    let spelled: BTreeSet<String> = words.iter().chain(texts).filter(long).flat_map(|word| in_texts(word)).collect();
    let row = |word: &String| [format!("%{}%", audit::literal(word)).into(), tenant.to_owned().into()];
    let spelled: Vec<String> = spelled.into_iter().collect();
    spelled.chunks(WORDS_AT_ONCE).map(|chunk| chunk.iter().map(row).collect()).collect()
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

/// Deeds sealed at once.
const STEP: i64 = 1024;
/// One statement takes so many rows.
const WORDS_AT_ONCE: usize = 256;
const EMPTY_TRIES: u32 = 50;
const EMPTY_POLL: std::time::Duration = std::time::Duration::from_millis(200);
/// What an erasure writes, so that dead rows go too.
const VACUUMED: [&str; 36] = [
    "VACUUM sync",
    "VACUUM sync_part",
    "VACUUM sync_finding",
    "VACUUM account",
    "VACUUM holder",
    "VACUUM session",
    "VACUUM secret",
    "VACUUM element",
    "VACUUM job",
    "VACUUM device",
    "VACUUM drift",
    "VACUUM mailbox_wake",
    "VACUUM rollout",
    "VACUUM rollout_member",
    "VACUUM quarantine",
    "VACUUM catalog_follow",
    "VACUUM nas_request",
    "VACUUM nas_order",
    "VACUUM address_lease",
    "VACUUM device_seen",
    "VACUUM forgotten_device",
    "VACUUM call_record",
    "VACUUM posted_charge",
    "VACUUM line",
    "VACUUM audit",
    "VACUUM idempotency",
    "VACUUM exception",
    "VACUUM event",
    "VACUUM delivery",
    "VACUUM outlet",
    "VACUUM bill_finding",
    "VACUUM ingest",
    "VACUUM ingest_fault",
    "VACUUM held_change, observation",
    "VACUUM journal",
    "VACUUM journal_segment",
];
