//! What billing systems sent, as it came: sealed for a time, with the version of the profile that read it, how far it was
//! read, and what of it was put aside.

use serde_json::Value as Json;

use super::{Sealer, StoreError, Tx, on};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// How an input came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Http,
    /// A file in a watched folder.
    Inbox,
    Tcp,
}

/// An input that begins to be read.
#[derive(Debug, Clone, Copy)]
pub struct NewIngest<'a> {
    pub tenant: &'a str,
    pub source: &'a str,
    pub profile: &'a str,
    pub profile_digest: &'a str,
    pub way: Way,
    /// A file's name.
    pub name: Option<&'a str>,
    /// What the source calls it.
    pub event: Option<&'a str>,
    pub digest: &'a str,
    /// `None`: a file, which is kept in its folder.
    pub sealed: Option<&'a [u8]>,
    pub expires_at: Timestamp,
}

/// What became of an input's records so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub changes: i64,
    pub ignored: i64,
    /// Changes that wait for an operator.
    pub held: i64,
    pub quarantined: i64,
}

/// An input as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestRow {
    pub id: i64,
    pub tenant: String,
    pub source: String,
    pub profile: String,
    pub profile_digest: String,
    pub way: Way,
    pub name: Option<String>,
    pub event: Option<String>,
    pub digest: String,
    /// `reading`, `done`, or `refused`: a file of which nothing could be used.
    pub state: String,
    /// Records before this one are settled.
    pub next_record: i64,
    pub tally: Tally,
    pub received_at: Timestamp,
    pub expires_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// Records put aside that nothing came of yet.
    pub open: i64,
}

/// A record that was put aside.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRow {
    pub record: i64,
    /// Where it begins.
    pub line: i64,
    pub account: Option<String>,
    /// `[{pointer, detail}]`.
    pub faults: Json,
    pub created_at: Timestamp,
    pub replayed_at: Option<Timestamp>,
    pub replayed_by: Option<String>,
}

/// Which inputs a list shows.
#[derive(Debug, Clone, Default)]
pub struct IngestFilter {
    pub tenant: Option<String>,
    pub source: Option<String>,
    /// Only those of which something is put aside.
    pub open: bool,
    /// Only rows before this one; lists run from the newest back.
    pub before: Option<i64>,
    pub limit: i64,
}

macro_rules! select_ingest {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, source, profile, profile_digest, way, name, event, digest, state, next_record, changes,
                    ignored, held, quarantined, received_at, expires_at, finished_at,
                    (SELECT COUNT(*) FROM ingest_fault
                     WHERE ingest_fault.ingest = ingest.id AND replayed_at IS NULL) AS open
             FROM ingest ",
            $rest
        )
    };
}

const KEEP_PROFILE: &str = "INSERT INTO profile_version (digest, name, document, first_used_at) VALUES ($1, $2, $3, $4)
     ON CONFLICT (digest) DO NOTHING";
const BEGIN: &str = "INSERT INTO ingest
         (tenant, source, profile, profile_digest, way, name, event, digest, sealed, state, next_record, changes, ignored,
          held, quarantined, received_at, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'reading', 1, 0, 0, 0, 0, $10, $11)
     ON CONFLICT DO NOTHING
     RETURNING id";
const BY_EVENT: &str = select_ingest!("WHERE tenant = $1 AND source = $2 AND profile = $3 AND event = $4");
const BY_FILE: &str =
    select_ingest!("WHERE tenant = $1 AND source = $2 AND profile = $3 AND digest = $4 AND way = 'inbox'");
const ONE: &str = select_ingest!("WHERE id = $1");
const LIST: &str = select_ingest!(
    "WHERE ($1 IS NULL OR tenant = $1)
       AND ($2 IS NULL OR source = $2)
       AND ($3 = 0 OR EXISTS (SELECT 1 FROM ingest_fault AS fault
                              WHERE fault.ingest = ingest.id AND fault.replayed_at IS NULL))
       AND id < $4
     ORDER BY id DESC LIMIT $5"
);
const ADVANCE: &str = "UPDATE ingest
     SET next_record = $2, changes = changes + $3, ignored = ignored + $4, held = held + $5,
         quarantined = quarantined + $6, state = $7, finished_at = $8
     WHERE id = $1";
const SEALED: &str = "SELECT sealed FROM ingest WHERE id = $1";
const PUT_ASIDE: &str = "INSERT INTO ingest_fault (ingest, record, line, account, faults, created_at)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (ingest, record) DO UPDATE
     SET line = excluded.line, account = excluded.account, faults = excluded.faults";
const FAULTS: &str = "SELECT record, line, account, faults, created_at, replayed_at, replayed_by FROM ingest_fault
     WHERE ingest = $1 AND ($2 = 0 OR replayed_at IS NULL) AND record > $3 ORDER BY record LIMIT $4";
const REPLAYED: &str = "UPDATE ingest_fault SET replayed_at = $3, replayed_by = $4 WHERE ingest = $1 AND record = $2";
const OPEN_OF: &str = "SELECT COUNT(*) FROM ingest JOIN ingest_fault ON ingest_fault.ingest = ingest.id
     WHERE ingest.tenant = $1 AND ingest.source = $2 AND ingest.profile = $3 AND ingest_fault.replayed_at IS NULL";
const FORGET_FAULTS: &str = "DELETE FROM ingest_fault
     WHERE ingest IN (SELECT id FROM ingest WHERE expires_at <= $1
         AND NOT EXISTS (SELECT 1 FROM legal_hold JOIN account ON account.id = legal_hold.account_id
                         WHERE account.tenant = ingest.tenant AND legal_hold.lifted_at IS NULL)
         ORDER BY expires_at, id LIMIT $2)";
const FORGET: &str = "DELETE FROM ingest
     WHERE id IN (SELECT id FROM ingest WHERE expires_at <= $1
         AND NOT EXISTS (SELECT 1 FROM legal_hold JOIN account ON account.id = legal_hold.account_id
                         WHERE account.tenant = ingest.tenant AND legal_hold.lifted_at IS NULL)
         ORDER BY expires_at, id LIMIT $2)";

/// Keeps the text of a profile's version, so that what was read by it can be understood later.
pub async fn keep_profile(
    tx: &mut Tx,
    digest: &str,
    name: &str,
    document: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(KEEP_PROFILE)
        .bind(digest)
        .bind(name)
        .bind(document)
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Begins an input. `Err` inside: it came before, and is this one.
pub async fn begin(tx: &mut Tx, new: &NewIngest<'_>, now: Timestamp) -> Result<Result<i64, IngestRow>, StoreError> {
    let id: Option<i64> = on!(tx, c => sqlx::query_scalar(BEGIN)
        .bind(new.tenant)
        .bind(new.source)
        .bind(new.profile)
        .bind(new.profile_digest)
        .bind(new.way.as_str())
        .bind(new.name)
        .bind(new.event)
        .bind(new.digest)
        .bind(new.sealed)
        .bind(to_micros(now))
        .bind(to_micros(new.expires_at))
        .fetch_optional(c)
        .await)?;
    if let Some(id) = id {
        return Ok(Ok(id));
    }
    let known = match new.event {
        Some(event) => by_event(tx, (new.tenant, new.source, new.profile), event).await?,
        None => None,
    };
    let known = match known {
        Some(known) => Some(known),
        None => by_file(tx, new.tenant, new.source, new.profile, new.digest).await?,
    };
    known.map(Err).ok_or_else(|| StoreError::Conflict { constraint: "an input came at the same moment".to_owned() })
}

/// The input that a source calls by this name. Several profiles may each read its part of one event.
async fn by_event(
    tx: &mut Tx,
    (tenant, source, profile): (&str, &str, &str),
    event: &str,
) -> Result<Option<IngestRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(BY_EVENT)
        .bind(tenant)
        .bind(source)
        .bind(profile)
        .bind(event)
        .fetch_optional(c)
        .await)?;
    row.map(IngestRow::try_from).transpose()
}

/// The file with these octets.
pub async fn by_file(
    tx: &mut Tx,
    tenant: &str,
    source: &str,
    profile: &str,
    digest: &str,
) -> Result<Option<IngestRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(BY_FILE)
        .bind(tenant)
        .bind(source)
        .bind(profile)
        .bind(digest)
        .fetch_optional(c)
        .await)?;
    row.map(IngestRow::try_from).transpose()
}

/// One input.
pub async fn one(tx: &mut Tx, id: i64) -> Result<Option<IngestRow>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(ONE).bind(id).fetch_optional(c).await)?;
    row.map(IngestRow::try_from).transpose()
}

/// A page of inputs, the newest first.
pub async fn list(tx: &mut Tx, filter: &IngestFilter) -> Result<Vec<IngestRow>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(filter.tenant.as_deref())
        .bind(filter.source.as_deref())
        .bind(i64::from(filter.open))
        .bind(filter.before.unwrap_or(i64::MAX))
        .bind(filter.limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(IngestRow::try_from).collect()
}

/// Notes how far an input is read, what more became of its records, and its state; a finished one has `finished_at`.
pub async fn advance(
    tx: &mut Tx,
    id: i64,
    next_record: i64,
    more: Tally,
    state: &str,
    finished_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(ADVANCE)
        .bind(id)
        .bind(next_record)
        .bind(more.changes)
        .bind(more.ignored)
        .bind(more.held)
        .bind(more.quarantined)
        .bind(state)
        .bind(finished_at.map(to_micros))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// What came, opened. `None`: it was a file, or its time is over.
pub async fn raw(tx: &mut Tx, sealer: &Sealer, row: &IngestRow) -> Result<Option<Vec<u8>>, StoreError> {
    let sealed: Option<Option<Vec<u8>>> =
        on!(tx, c => sqlx::query_scalar(SEALED).bind(row.id).fetch_optional(c).await)?;
    let place = place(&row.tenant, &row.digest);
    sealed.flatten().map(|sealed| sealer.open_bytes(&place, &sealed)).transpose()
}

/// What the octets of an input are sealed to.
pub fn place(tenant: &str, digest: &str) -> String {
    format!("{tenant}\u{0}ingest\u{0}{digest}\u{0}sealed")
}

/// Puts a record aside, or tells anew why it is.
pub async fn put_aside(
    tx: &mut Tx,
    ingest: i64,
    (record, line): (i64, i64),
    account: Option<&str>,
    faults: &Json,
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(PUT_ASIDE)
        .bind(ingest)
        .bind(record)
        .bind(line)
        .bind(account)
        .bind(faults.to_string())
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Records of an input that were put aside, after record `after`; `open`: only those nothing came of yet.
pub async fn faults(tx: &mut Tx, ingest: i64, open: bool, after: i64, limit: i64) -> Result<Vec<FaultRow>, StoreError> {
    type Row = (i64, i64, Option<String>, String, i64, Option<i64>, Option<String>);
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(FAULTS)
        .bind(ingest)
        .bind(i64::from(open))
        .bind(after)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let fault = |(record, line, account, faults, created_at, replayed_at, replayed_by): Row| {
        let corrupt = |column| StoreError::Corrupt { table: "ingest_fault", column, id: format!("{ingest}/{record}") };
        Ok(FaultRow {
            record,
            line,
            account,
            faults: serde_json::from_str(&faults).map_err(|_| corrupt("faults"))?,
            created_at: from_micros(created_at).ok_or_else(|| corrupt("created_at"))?,
            replayed_at: replayed_at.and_then(from_micros),
            replayed_by,
        })
    };
    rows.into_iter().map(fault).collect()
}

/// Something came of a record that was put aside.
pub async fn replayed(tx: &mut Tx, ingest: i64, record: i64, by: &str, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(REPLAYED)
        .bind(ingest)
        .bind(record)
        .bind(to_micros(now))
        .bind(by)
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// How many records of a source's profile are put aside and nothing came of yet.
pub async fn open_of(tx: &mut Tx, tenant: &str, source: &str, profile: &str) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(OPEN_OF)
        .bind(tenant)
        .bind(source)
        .bind(profile)
        .fetch_one(c)
        .await)?)
}

/// Forgets inputs whose time is over, at most `limit`, but of no tenant that has an account under a legal hold. Returns how many.
pub async fn forget(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<u64, StoreError> {
    on!(tx, c => sqlx::query(FORGET_FAULTS).bind(to_micros(now)).bind(limit).execute(c).await.map(drop))?;
    let gone = on!(tx, c => sqlx::query(FORGET)
        .bind(to_micros(now))
        .bind(limit)
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    Ok(gone)
}

impl Way {
    pub fn as_str(self) -> &'static str {
        match self {
            Way::Http => "http",
            Way::Inbox => "inbox",
            Way::Tcp => "tcp",
        }
    }
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.changes += other.changes;
        self.ignored += other.ignored;
        self.held += other.held;
        self.quarantined += other.quarantined;
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    tenant: String,
    source: String,
    profile: String,
    profile_digest: String,
    way: String,
    name: Option<String>,
    event: Option<String>,
    digest: String,
    state: String,
    next_record: i64,
    changes: i64,
    ignored: i64,
    held: i64,
    quarantined: i64,
    received_at: i64,
    expires_at: i64,
    finished_at: Option<i64>,
    open: i64,
}

impl TryFrom<Row> for IngestRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "ingest", column, id: row.id.to_string() };
        let way = [Way::Http, Way::Inbox, Way::Tcp].into_iter().find(|way| way.as_str() == row.way);
        Ok(Self {
            way: way.ok_or_else(|| corrupt("way"))?,
            received_at: from_micros(row.received_at).ok_or_else(|| corrupt("received_at"))?,
            expires_at: from_micros(row.expires_at).ok_or_else(|| corrupt("expires_at"))?,
            finished_at: row.finished_at.and_then(from_micros),
            tally: Tally { changes: row.changes, ignored: row.ignored, held: row.held, quarantined: row.quarantined },
            id: row.id,
            tenant: row.tenant,
            source: row.source,
            profile: row.profile,
            profile_digest: row.profile_digest,
            name: row.name,
            event: row.event,
            digest: row.digest,
            state: row.state,
            next_record: row.next_record,
            open: row.open,
        })
    }
}
