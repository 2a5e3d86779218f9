//! Finds whatever somebody has in hand: an account or service by its id, a MAC, address, login, mailbox or number, a session,
//! a line, a batch, or a word of an account's document.

use serde::Serialize;

use super::{StoreError, Tx, audit, on};
use crate::vocabulary::{MacAddress, Timestamp, from_micros};

/// Something that was found, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Match {
    /// `account`, `service`, `mac`, `username`, `mailbox`, `address`, `number`, `session`, `line`, `batch`, `document`.
    pub what: String,
    pub value: String,
    pub tenant: Option<String>,
    pub source: Option<String>,
    /// External id.
    pub account: Option<String>,
    /// When it was, for what ended.
    pub until: Option<Timestamp>,
}

/// Whose things are looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Within<'a> {
    pub tenant: Option<&'a str>,
    pub source: Option<&'a str>,
}

/// Each gives what, value, tenant, source, account, until: $1 is the word, $2 the tenant, $3 the source, $4 how many.
const EXACT: [&str; 6] = [
    "SELECT 'account' AS what, external_id AS value, tenant, source, external_id, closed_at FROM account
     WHERE external_id = $1 AND ($2 IS NULL OR tenant = $2) AND ($3 IS NULL OR source = $3) ORDER BY id LIMIT $4",
    "SELECT 'service' AS what, service.external_id AS value, account.tenant, account.source, account.external_id,
            service.ended_at
     FROM service JOIN account ON account.id = service.account_id
     WHERE service.external_id = $1 AND ($2 IS NULL OR account.tenant = $2) AND ($3 IS NULL OR account.source = $3)
     ORDER BY service.id LIMIT $4",
    "SELECT holder.kind AS what, holder.value, account.tenant, account.source, account.external_id, holder.until_at
     FROM holder JOIN account ON account.id = holder.account_id
     WHERE LOWER(holder.value) = LOWER($1) AND ($2 IS NULL OR account.tenant = $2) AND ($3 IS NULL OR account.source = $3)
     ORDER BY holder.id DESC LIMIT $4",
    "SELECT 'session' AS what, session.session AS value, account.tenant, account.source, account.external_id,
            session.ended_at
     FROM session LEFT JOIN account ON account.id = session.account_id
     WHERE (session.session = $1 OR session.framed_ip = $1 OR session.calling_station = $1)
       AND ($2 IS NULL OR account.tenant = $2) AND ($3 IS NULL OR account.source = $3)
     ORDER BY session.id DESC LIMIT $4",
    "SELECT 'line' AS what, line.id AS value, account.tenant, account.source, account.external_id,
            CAST(NULL AS BIGINT)
     FROM line JOIN account ON account.id = line.account_id JOIN batch ON batch.id = line.batch
     WHERE line.id = $1 AND batch.state <> 'building' AND ($2 IS NULL OR account.tenant = $2)
       AND ($3 IS NULL OR account.source = $3) ORDER BY line.id LIMIT $4",
    "SELECT 'batch' AS what, id AS value, tenant, CAST(NULL AS TEXT), CAST(NULL AS TEXT), CAST(NULL AS BIGINT)
     FROM batch WHERE id = $1 AND ($2 IS NULL OR tenant = $2) AND $3 IS NULL ORDER BY id LIMIT $4",
];
const IN_DOCUMENTS: &str =
    "SELECT 'document' AS what, external_id AS value, tenant, source, external_id, closed_at FROM account
     WHERE LOWER(document) LIKE $1 ESCAPE '!' AND ($2 IS NULL OR tenant = $2) AND ($3 IS NULL OR source = $3)
     ORDER BY id LIMIT $4";

type Row = (String, String, Option<String>, Option<String>, Option<String>, Option<i64>);

/// What has this word as its id or name; only when nothing has, the accounts whose document has it in a text.
pub async fn find(tx: &mut Tx, word: &str, within: Within<'_>, limit: i64) -> Result<Vec<Match>, StoreError> {
    // A MAC is sought in the spelling it is stored in; a session may have any.
    let mac = word.parse::<MacAddress>().ok().map(|mac| mac.to_string());
    let mut found: Vec<Match> = Vec::new();
    for spelling in mac.as_deref().into_iter().filter(|mac| *mac != word).chain([word]) {
        for statement in EXACT {
            found.extend(rows(tx, statement, spelling, within, limit).await?);
        }
    }
    if found.is_empty() && word.chars().count() >= WORD_LEAST {
        let like = format!("%{}%", audit::literal(&word.to_lowercase()));
        found = rows(tx, IN_DOCUMENTS, &like, within, limit).await?;
    }
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(found)
}

async fn rows(
    tx: &mut Tx,
    statement: &'static str,
    word: &str,
    within: Within<'_>,
    limit: i64,
) -> Result<Vec<Match>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(statement)
        .bind(word)
        .bind(within.tenant)
        .bind(within.source)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let matched = |(what, value, tenant, source, account, until): Row| Match {
        what,
        value,
        tenant,
        source,
        account,
        until: until.and_then(from_micros),
    };
    Ok(rows.into_iter().map(matched).collect())
}

/// Shorter words stand in every document.
const WORD_LEAST: usize = 3;
