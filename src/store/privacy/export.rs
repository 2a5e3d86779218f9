//! What is held of a person, as they may carry it elsewhere, besides what lists of their own give page by page. Nothing that is
//! sealed is opened: what came is told by when, how and as what it was read.

use serde_json::{Map, Value, json};

use super::{HELD_VALUES, identity, inputs, words};
use crate::store::accounts::AccountRow;
use crate::store::many::{Many, Of};
use crate::store::{StoreError, Tx, audit, on};
use crate::vocabulary::{Timestamp, from_micros};

/// Name of a list, a statement that gives its rows as JSON-ready columns, and what the columns are called: $1 is the account.
/// A name that ends in `_at` is an instant.
const OF_ACCOUNT: [(&str, &str, &[&str]); 8] = [
    (
        "calls",
        "SELECT number, destination, CAST(seconds AS TEXT), started_at FROM call_record
         WHERE account_id = $1 ORDER BY id LIMIT 1000000",
        &["number", "destination", "seconds", "started_at"],
    ),
    (
        "quarantine",
        "SELECT kind, value, NULL, until_at FROM quarantine WHERE account_id = $1 ORDER BY kind, value LIMIT 10000",
        &["kind", "value", "", "until_at"],
    ),
    (
        "operator_holds",
        "SELECT kind, service, placed_by, from_at FROM operator_hold WHERE account_id = $1 ORDER BY id LIMIT 100000",
        &["kind", "service", "placed_by", "from_at"],
    ),
    (
        "elements",
        "SELECT kind || ' ' || key, desired, state || COALESCE(': ' || last_error, '') || COALESCE(' ' || evidence, ''), updated_at
         FROM element WHERE account_id = $1 ORDER BY id LIMIT 100000",
        &["element", "desired", "state", "updated_at"],
    ),
    (
        "devices",
        "SELECT element.key, device.health, device.running_digest, element.last_seen_at FROM device
         JOIN element ON element.id = device.element_id WHERE element.account_id = $1 ORDER BY element.id LIMIT 100000",
        &["device", "health", "running_digest", "last_seen_at"],
    ),
    (
        "jobs",
        "SELECT kind, state, last_error, created_at FROM job WHERE account_id = $1 ORDER BY id LIMIT 100000",
        &["kind", "state", "last_error", "created_at"],
    ),
    (
        "session_changes",
        "SELECT username, cause, COALESCE(target, ''), created_at FROM nas_request WHERE account_id = $1
         ORDER BY id LIMIT 100000",
        &["username", "cause", "target", "created_at"],
    ),
    (
        "devices_seen",
        "SELECT device_seen.mac, device_seen.vendor || ' ' || device_seen.model || ' ' || device_seen.serial,
                device_seen.cmts, device_seen.last_seen_at
         FROM device_seen JOIN holder ON holder.kind = 'mac' AND holder.value IN (device_seen.mac, device_seen.behind)
         WHERE holder.account_id = $1 ORDER BY device_seen.mac LIMIT 100000",
        &["mac", "device", "cmts", "last_seen_at"],
    ),
];
/// As above, of what is kept by the account's name: $1 tenant, $2 source, $3 external id.
const BY_NAME: [(&str, &str, &[&str]); 4] = [
    (
        "held_changes",
        "SELECT kind, losses, actor, held_at FROM held_change WHERE tenant = $1 AND source = $2 AND account = $3
         ORDER BY id LIMIT 1000",
        &["kind", "losses", "sent_by", "held_at"],
    ),
    (
        "observations",
        "SELECT would, places, losses, last_at FROM observation WHERE tenant = $1 AND source = $2 AND account = $3
         ORDER BY last_at LIMIT 1000",
        &["would", "places", "losses", "last_at"],
    ),
    (
        "put_aside",
        "SELECT CAST(ingest_fault.ingest AS TEXT), CAST(ingest_fault.record AS TEXT), ingest_fault.faults,
                ingest_fault.created_at
         FROM ingest_fault JOIN ingest ON ingest.id = ingest_fault.ingest
         WHERE ingest.tenant = $1 AND ingest.source = $2 AND ingest_fault.account = $3
         ORDER BY ingest_fault.ingest, ingest_fault.record LIMIT 100000",
        &["input", "record", "faults", "created_at"],
    ),
    (
        "events",
        "SELECT type, subject, payload, occurred_at FROM event
         WHERE tenant = $1 AND (subject = $2 || '/' || $3 OR subject LIKE $2 || '/' || $3 || '/%')
         ORDER BY sequence LIMIT 100000",
        &["type", "subject", "data", "occurred_at"],
    ),
];
/// Where the person is named in passing, as an erasure would find it.
static NAMED: [(&str, Many<2>, &[&str]); 4] = [
    (
        "exceptions",
        Many::new(
            [("word", Of::Text), ("tenant", Of::Text)],
            "SELECT kind, subject, detail, opened_at FROM exception WHERE EXISTS (SELECT 1 FROM new
                WHERE (exception.tenant = new.tenant OR exception.tenant IS NULL)
                  AND (LOWER(subject) LIKE new.word ESCAPE '!' OR LOWER(detail) LIKE new.word ESCAPE '!'))
             ORDER BY id LIMIT 10000",
        ),
        &["kind", "subject", "detail", "opened_at"],
    ),
    (
        "findings",
        Many::new(
            [("word", Of::Text), ("tenant", Of::Text)],
            "SELECT kind, subject, detail, found_at FROM bill_finding WHERE EXISTS (SELECT 1 FROM new
                WHERE bill_finding.tenant = new.tenant
                  AND (LOWER(subject) LIKE new.word ESCAPE '!' OR LOWER(detail) LIKE new.word ESCAPE '!'))
             ORDER BY id LIMIT 10000",
        ),
        &["kind", "subject", "detail", "found_at"],
    ),
    (
        "named_in_events",
        Many::new(
            [("word", Of::Text), ("tenant", Of::Text)],
            "SELECT type, subject, payload, occurred_at FROM event WHERE EXISTS (SELECT 1 FROM new
                WHERE event.tenant = new.tenant
                  AND (LOWER(payload) LIKE new.word ESCAPE '!' OR LOWER(subject) LIKE new.word ESCAPE '!'))
             ORDER BY sequence LIMIT 10000",
        ),
        &["type", "subject", "data", "occurred_at"],
    ),
    (
        "deliveries",
        Many::new(
            [("word", Of::Text), ("tenant", Of::Text)],
            "SELECT outlet, subject, state || COALESCE(': ' || detail, ''), updated_at FROM delivery
             WHERE outlet IN (SELECT id FROM outlet WHERE tenant IN (SELECT tenant FROM new))
               AND EXISTS (SELECT 1 FROM new WHERE LOWER(delivery.detail) LIKE new.word ESCAPE '!'
                   OR LOWER(delivery.subject) LIKE new.word ESCAPE '!')
             ORDER BY outlet, sequence LIMIT 10000",
        ),
        &["outlet", "subject", "state", "updated_at"],
    ),
];
const INPUT: &str =
    "SELECT profile, way || COALESCE(' ' || name, ''), CASE WHEN sealed IS NULL THEN 'gone' ELSE 'kept' END,
        received_at FROM ingest WHERE id = $1";
const LEASES: &str = "SELECT address, mac, kind, behind, cmts, since_at, until_at FROM address_lease
     WHERE (mac = $1 OR behind = $1) AND since_at < $3 AND until_at > $2 ORDER BY id LIMIT 1000000";

type Row = (Option<String>, Option<String>, Option<String>, Option<i64>);
type Held = (String, String, i64, Option<i64>);
type Lease = (String, String, String, Option<String>, String, i64, i64);

/// An account as a person may carry it elsewhere, list by list.
pub async fn rows_of(tx: &mut Tx, row: &AccountRow) -> Result<Map<String, Value>, StoreError> {
    let mut lists = Map::new();
    let held: Vec<Held> = on!(&mut *tx, c => sqlx::query_as(HELD_VALUES).bind(row.id).fetch_all(c).await)?;
    let mut leases: Vec<Value> = Vec::new();
    for (_, mac, from, until) in held.iter().filter(|(kind, ..)| kind == "mac") {
        let rows: Vec<Lease> = on!(&mut *tx, c => sqlx::query_as(LEASES)
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
    let held = held.into_iter().map(|(kind, value, from, until)| {
        json!({ "kind": kind, "value": value, "from": from_micros(from), "until": until.and_then(from_micros) })
    });
    lists.insert("held".to_owned(), held.collect());
    lists.insert("leases".to_owned(), leases.into());
    for (name, statement, columns) in OF_ACCOUNT {
        let rows: Vec<Row> = on!(&mut *tx, c => sqlx::query_as(statement).bind(row.id).fetch_all(c).await)?;
        lists.insert(name.to_owned(), rows.into_iter().map(|row| shown(row, columns)).collect());
    }
    for (name, statement, columns) in BY_NAME {
        let rows: Vec<Row> = on!(&mut *tx, c => sqlx::query_as(statement)
            .bind(&row.tenant)
            .bind(&row.source)
            .bind(&row.external_id)
            .fetch_all(c)
            .await)?;
        lists.insert(name.to_owned(), rows.into_iter().map(|row| shown(row, columns)).collect());
    }
    let mut inputs = Vec::new();
    for id in inputs::came_by(tx, row).await? {
        let found: Option<Row> = on!(&mut *tx, c => sqlx::query_as(INPUT).bind(id).fetch_optional(c).await)?;
        inputs.extend(found.map(|row| shown(row, &["profile", "way", "octets", "received_at"])));
    }
    lists.insert("inputs".to_owned(), inputs.into());
    let spelled = identity(tx, row).await?.words;
    let spelled = spelled.iter().filter(|word| word.chars().count() >= words::LEAST);
    let spelled: Vec<_> = spelled
        .flat_map(|word| words::in_texts(word))
        .map(|word| [format!("%{}%", audit::literal(&word)).into(), row.tenant.clone().into()])
        .collect();
    for (name, statement, columns) in &NAMED {
        let rows: Vec<Row> = statement.fetch(tx, spelled.clone()).await?;
        lists.insert((*name).to_owned(), rows.into_iter().map(|row| shown(row, columns)).collect());
    }
    Ok(lists)
}

/// A row by its columns' names; a column without a name is none, JSON is shown as such.
fn shown(row: Row, columns: &[&str]) -> Value {
    let text = |text: Option<String>| match text {
        Some(text) if text.starts_with(['{', '[']) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        text => json!(text),
    };
    let at: Option<Timestamp> = row.3.and_then(from_micros);
    let values = [text(row.0), text(row.1), text(row.2), json!(at)];
    let named = columns.iter().zip(values).filter(|(name, _)| !name.is_empty());
    Value::Object(named.map(|(name, value)| ((*name).to_owned(), value)).collect())
}
