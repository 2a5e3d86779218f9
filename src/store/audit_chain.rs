//! The audit's chain as it stands in the database: deeds that wait for their place, the places they are given, signed heads,
//! and a walk over a whole chain that stops at the first row that cannot be true (`audit` decides what that is).

use std::collections::BTreeSet;

use super::many::{Many, Of};
use super::{Sealer, StoreError, Tx, on};
use crate::audit::{Break, Checker, Deed, Hash, Head, ROOT, Row, SALT_LENGTH, commitment, link};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// What one step of sealing did.
#[derive(Debug, Clone, PartialEq)]
pub enum Sealed {
    /// Nothing waited, or another daemon seals this chain now.
    Nothing,
    /// So many deeds were given their places, and this is the new head.
    Deeds { count: usize, head: Head },
    /// The chain does not end as its signed head says: somebody changed it. Nothing was sealed.
    Refused(Break),
}

/// What a walk over the chains found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Walked {
    pub deeds: u64,
    pub erased: u64,
    /// Appended within the last seconds; the next step seals them.
    pub waiting: u64,
    /// The first break of each chain that has one.
    pub breaks: Vec<Break>,
}

#[derive(sqlx::FromRow)]
struct ChainRow {
    sequence: i64,
    hash: Vec<u8>,
    sealed_at: i64,
    signature: Vec<u8>,
    floor_sequence: i64,
    floor_hash: Vec<u8>,
    floor_at: i64,
    floor_signature: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct WaitingRow {
    id: i64,
    at: i64,
    actor: String,
    action: String,
    account_id: Option<i64>,
    subject: String,
    detail: String,
}

#[derive(sqlx::FromRow)]
struct PlacedRow {
    chain_sequence: i64,
    id: i64,
    at: i64,
    actor: String,
    action: String,
    account_id: Option<i64>,
    subject: String,
    detail: String,
    chain_salt: Option<Vec<u8>>,
    chain_commitment: Option<Vec<u8>>,
    chain_hash: Option<Vec<u8>>,
}

const WAITING_TENANTS: &str = "SELECT DISTINCT COALESCE(tenant, '') AS name FROM audit
     WHERE chain_sequence IS NULL ORDER BY name LIMIT 10000";
const TENANTS: &str = "SELECT tenant AS name FROM audit_chain
     UNION SELECT DISTINCT COALESCE(tenant, '') FROM audit ORDER BY name LIMIT 100000";
const BEGIN: &str = "INSERT INTO audit_chain (tenant, sequence, hash, sealed_at, signature,
        floor_sequence, floor_hash, floor_at, floor_signature)
     VALUES ($1, 0, $2, $3, $4, 0, $2, $3, $4) ON CONFLICT (tenant) DO NOTHING";
macro_rules! select_chain {
    ($rest:literal) => {
        concat!(
            "SELECT sequence, hash, sealed_at, signature, floor_sequence, floor_hash, floor_at, floor_signature
             FROM audit_chain WHERE tenant = $1",
            $rest
        )
    };
}
const CHAIN: &str = select_chain!("");
// The row is the claim: whoever holds it seals, the others do something else.
const CHAIN_CLAIMED: &str = select_chain!(" FOR UPDATE SKIP LOCKED");
const CHAIN_LOCKED: &str = select_chain!(" FOR UPDATE");
const WAITING: &str = "SELECT id, at, actor, action, account_id, subject, detail FROM audit
     WHERE chain_sequence IS NULL AND COALESCE(tenant, '') = $1 ORDER BY id LIMIT $2";
const HASH_AT: &str = "SELECT chain_hash FROM audit WHERE COALESCE(tenant, '') = $1 AND chain_sequence = $2";
static PLACE: Many<5> = Many::new(
    [
        ("id", Of::Integer),
        ("sequence", Of::Integer),
        ("salt", Of::Octets),
        ("commitment", Of::Octets),
        ("hash", Of::Octets),
    ],
    "UPDATE audit SET chain_sequence = new.sequence, chain_salt = new.salt, chain_commitment = new.commitment,
        chain_hash = new.hash
     FROM new WHERE audit.id = new.id",
);
const MOVE_HEAD: &str =
    "UPDATE audit_chain SET sequence = $2, hash = $3, sealed_at = $4, signature = $5 WHERE tenant = $1";
const MOVE_FLOOR: &str = "UPDATE audit_chain
     SET floor_sequence = $2, floor_hash = $3, floor_at = $4, floor_signature = $5 WHERE tenant = $1";
const PAGE_OF_CHAIN: &str = "SELECT chain_sequence, id, at, actor, action, account_id, subject, detail, chain_salt,
        chain_commitment, chain_hash FROM audit
     WHERE COALESCE(tenant, '') = $1 AND chain_sequence > $2 ORDER BY chain_sequence, id LIMIT $3";
const COUNT_PLACED: &str = "SELECT COUNT(*) FROM audit WHERE COALESCE(tenant, '') = $1 AND chain_sequence IS NOT NULL";
const COUNT_WAITING: &str = "SELECT COUNT(*) FROM audit WHERE COALESCE(tenant, '') = $1 AND chain_sequence IS NULL";
const OVERDUE: &str = "SELECT MIN(id) FROM audit
     WHERE COALESCE(tenant, '') = $1 AND chain_sequence IS NULL AND at < $2";
const ERASED: &str = "SELECT account_id FROM erasure ORDER BY account_id LIMIT 10000000";
const OLDEST: &str = "SELECT chain_sequence, id, at, actor, action, account_id, subject, detail, chain_salt,
        chain_commitment, chain_hash FROM audit
     WHERE COALESCE(tenant, '') = $1 AND chain_sequence > $2 AND chain_sequence <= $3
     ORDER BY chain_sequence LIMIT $4";
const DROP_UP_TO: &str = "DELETE FROM audit WHERE COALESCE(tenant, '') = $1 AND chain_sequence <= $2";

/// Tenants with deeds that wait for their place; empty is the installation.
pub async fn waiting(tx: &mut Tx) -> Result<Vec<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(WAITING_TENANTS).fetch_all(c).await)?)
}

/// What is done where another process seals the same chain now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// Something else.
    Pass,
    /// Wait for it.
    Wait,
}

/// Gives the oldest waiting deeds of a tenant their places, at most `limit`. `known` is the head this process saw last.
pub async fn seal(
    tx: &mut Tx,
    sealer: &Sealer,
    tenant: &str,
    known: Option<&Head>,
    (limit, meeting): (i64, Meeting),
    now: Timestamp,
) -> Result<Sealed, StoreError> {
    let root = Head::signed(tenant, 0, &ROOT, now);
    let signature = sealer.keyed_hash(HEAD, &root);
    on!(&mut *tx, c => sqlx::query(BEGIN)
        .bind(tenant)
        .bind(ROOT.as_slice())
        .bind(to_micros(now))
        .bind(signature.as_slice())
        .execute(c)
        .await
        .map(drop))?;
    let chain: Option<ChainRow> = match &mut *tx {
        Tx::Sqlite(held) => sqlx::query_as(CHAIN).bind(tenant).fetch_optional(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => {
            let text = if meeting == Meeting::Wait { CHAIN_LOCKED } else { CHAIN_CLAIMED };
            sqlx::query_as(text).bind(tenant).fetch_optional(&mut **transaction).await?
        }
    };
    let Some(chain) = chain else { return Ok(Sealed::Nothing) };
    if let Some(broken) = end_broken(tx, sealer, tenant, &chain, known).await? {
        return Ok(Sealed::Refused(broken));
    }
    let rows: Vec<WaitingRow> =
        on!(&mut *tx, c => sqlx::query_as(WAITING).bind(tenant).bind(limit).fetch_all(c).await)?;
    if rows.is_empty() {
        return Ok(Sealed::Nothing);
    }
    let mut hash = hash_of(&chain.hash, tenant)?;
    let mut salts = vec![0u8; rows.len() * SALT_LENGTH];
    getrandom::fill(&mut salts).map_err(|error| StoreError::Database(format!("no randomness: {error}")))?;
    let mut sequence = chain.sequence;
    let mut placed = Vec::with_capacity(rows.len());
    for (row, salt) in rows.iter().zip(salts.chunks(SALT_LENGTH)) {
        sequence += 1;
        let commitment = commitment(salt, &row.subject, &row.detail);
        let deed = Deed {
            tenant,
            sequence,
            id: row.id,
            at: row.at,
            actor: &row.actor,
            action: &row.action,
            account_id: row.account_id,
            commitment,
        };
        hash = link(&hash, &deed);
        placed.push([
            row.id.into(),
            sequence.into(),
            salt.to_vec().into(),
            commitment.to_vec().into(),
            hash.to_vec().into(),
        ]);
    }
    PLACE.execute(tx, placed).await?;
    let signature = sealer.keyed_hash(HEAD, &Head::signed(tenant, sequence, &hash, now));
    on!(tx, c => sqlx::query(MOVE_HEAD)
        .bind(tenant)
        .bind(sequence)
        .bind(hash.as_slice())
        .bind(to_micros(now))
        .bind(signature.as_slice())
        .execute(c)
        .await
        .map(drop))?;
    let at = from_micros(to_micros(now)).unwrap_or(now);
    Ok(Sealed::Deeds { count: rows.len(), head: Head { tenant: tenant.to_owned(), sequence, hash, at, signature } })
}

/// Whether the chain ends as its head says. A sealer that went on without looking would sign what somebody forged.
async fn end_broken(
    tx: &mut Tx,
    sealer: &Sealer,
    tenant: &str,
    chain: &ChainRow,
    known: Option<&Head>,
) -> Result<Option<Break>, StoreError> {
    let broken = |why: &str| {
        Ok(Some(Break { tenant: tenant.to_owned(), sequence: chain.sequence, id: None, why: why.to_owned() }))
    };
    if !head_is_signed(sealer, tenant, chain)? {
        return broken("the head is not signed with this installation's key");
    }
    if known.is_some_and(|known| known.sequence > chain.sequence) {
        return broken("the chain has become shorter while the daemon ran");
    }
    if chain.sequence == chain.floor_sequence {
        return Ok(None);
    }
    let last: Option<Option<Vec<u8>>> = on!(tx, c => sqlx::query_scalar(HASH_AT)
        .bind(tenant)
        .bind(chain.sequence)
        .fetch_optional(c)
        .await)?;
    match last.flatten() {
        Some(hash) if hash == chain.hash => Ok(None),
        Some(_) => broken("the last row is not the one the head tells of"),
        None => broken("the last row is missing: the head tells of it"),
    }
}

/// The heads of all chains, or of one tenant's.
pub async fn heads(tx: &mut Tx, tenant: Option<&str>) -> Result<Vec<Head>, StoreError> {
    let mut heads = Vec::new();
    for name in tenants(tx).await? {
        if tenant.is_some_and(|tenant| tenant != name) {
            continue;
        }
        if let Some(chain) = chain(tx, &name).await? {
            let corrupt = |column| StoreError::Corrupt { table: "audit_chain", column, id: name.clone() };
            heads.push(Head {
                sequence: chain.sequence,
                hash: hash_of(&chain.hash, &name)?,
                at: from_micros(chain.sealed_at).ok_or_else(|| corrupt("sealed_at"))?,
                signature: chain.signature.as_slice().try_into().map_err(|_| corrupt("signature"))?,
                tenant: name,
            });
        }
    }
    Ok(heads)
}

/// Walks every chain from its floor to its head. `published` are heads that were kept elsewhere: each must be one the chain
/// went through. `count` is told how many rows are behind.
pub async fn walk(
    tx: &mut Tx,
    sealer: &Sealer,
    published: &[Head],
    mut count: impl FnMut(u64),
) -> Result<Walked, StoreError> {
    let erased: Vec<i64> = on!(&mut *tx, c => sqlx::query_scalar(ERASED).fetch_all(c).await)?;
    let erased: BTreeSet<i64> = erased.into_iter().collect();
    let mut walked = Walked::default();
    let mut names: BTreeSet<String> = tenants(tx).await?.into_iter().collect();
    names.extend(published.iter().map(|head| head.tenant.clone()));
    for tenant in names {
        let own: Vec<&Head> = published.iter().filter(|head| head.tenant == tenant).collect();
        let found = walk_one(tx, sealer, &tenant, &own, &erased, &mut walked, &mut count).await?;
        walked.breaks.extend(found);
    }
    Ok(walked)
}

async fn walk_one(
    tx: &mut Tx,
    sealer: &Sealer,
    tenant: &str,
    published: &[&Head],
    erased: &BTreeSet<i64>,
    walked: &mut Walked,
    count: &mut impl FnMut(u64),
) -> Result<Option<Break>, StoreError> {
    let broken = |sequence: i64, why: String| Break { tenant: tenant.to_owned(), sequence, id: None, why };
    if let Some(forged) = published.iter().find(|head| !published_is_signed(sealer, head)) {
        return Ok(Some(broken(
            forged.sequence,
            "the published head is not signed with this installation's key".to_owned(),
        )));
    }
    let waiting: i64 = on!(&mut *tx, c => sqlx::query_scalar(COUNT_WAITING).bind(tenant).fetch_one(c).await)?;
    walked.waiting += waiting.unsigned_abs();
    let placed: i64 = on!(&mut *tx, c => sqlx::query_scalar(COUNT_PLACED).bind(tenant).fetch_one(c).await)?;
    let Some(chain) = chain(tx, tenant).await? else {
        let published = published.iter().map(|head| head.sequence).max().unwrap_or(0);
        let gone = placed > 0 || published > 0;
        return Ok(gone.then(|| broken(1, "the chain has no head".to_owned())));
    };
    if !floor_is_signed(sealer, tenant, &chain)? {
        return Ok(Some(broken(chain.floor_sequence, "the chain's floor is not signed".to_owned())));
    }
    let mut checker = Checker::new(tenant, chain.floor_sequence, hash_of(&chain.floor_hash, tenant)?);
    let mut ahead: Vec<&&Head> = published.iter().filter(|head| head.sequence > chain.floor_sequence).collect();
    ahead.sort_by_key(|head| std::cmp::Reverse(head.sequence));
    loop {
        let rows: Vec<PlacedRow> = on!(&mut *tx, c => sqlx::query_as(PAGE_OF_CHAIN)
            .bind(tenant)
            .bind(checker.sequence())
            .bind(PAGE)
            .fetch_all(c)
            .await)?;
        let full = rows.len() as i64 == PAGE;
        for row in rows {
            let row = Row::from(row);
            if let Err(found) = checker.follow(&row, |account| erased.contains(&account)) {
                return Ok(Some(found));
            }
            walked.deeds += 1;
            walked.erased += u64::from(row.salt.is_none());
            if ahead.last().is_some_and(|head| head.sequence == row.sequence)
                && let Some(head) = ahead.pop()
                && head.hash != checker.hash()
            {
                let why = format!("the head published at {} is that of another chain", head.at);
                return Ok(Some(broken(head.sequence, why)));
            }
        }
        count(walked.deeds);
        if !full {
            break;
        }
    }
    if let Err(found) = checker.end(chain.sequence, &hash_of(&chain.hash, tenant)?) {
        return Ok(Some(found));
    }
    if !head_is_signed(sealer, tenant, &chain)? {
        return Ok(Some(broken(chain.sequence, "the head is not signed with this installation's key".to_owned())));
    }
    if let Some(head) = ahead.first() {
        let why =
            format!("the rows up to {} are missing: a head published at {} tells of them", head.sequence, head.at);
        return Ok(Some(broken(chain.sequence + 1, why)));
    }
    if placed != chain.sequence - chain.floor_sequence {
        return Ok(Some(broken(chain.floor_sequence, "rows stand before the chain's floor".to_owned())));
    }
    let overdue: Option<i64> = on!(tx, c => sqlx::query_scalar(OVERDUE)
        .bind(tenant)
        .bind(chain.sealed_at - OVERDUE_MICROS)
        .fetch_one(c)
        .await)?;
    Ok(overdue.map(|id| Break {
        tenant: tenant.to_owned(),
        sequence: chain.sequence,
        id: Some(id),
        why: "it has no place in the chain, although newer rows have one".to_owned(),
    }))
}

/// Drops the oldest deeds of a tenant that were done before `before`, at most `limit`, and moves the chain's floor behind
/// them. `protected` accounts' deeds stop it. Returns how many went.
pub async fn drop_oldest(
    tx: &mut Tx,
    sealer: &Sealer,
    tenant: &str,
    before: Timestamp,
    limit: i64,
    now: Timestamp,
    protected: impl Fn(i64) -> bool,
) -> Result<u64, StoreError> {
    let chain: Option<ChainRow> = match &mut *tx {
        Tx::Sqlite(held) => sqlx::query_as(CHAIN).bind(tenant).fetch_optional(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => {
            sqlx::query_as(CHAIN_LOCKED).bind(tenant).fetch_optional(&mut **transaction).await?
        }
    };
    let Some(chain) = chain else { return Ok(0) };
    if !head_is_signed(sealer, tenant, &chain)? || !floor_is_signed(sealer, tenant, &chain)? {
        return Ok(0);
    }
    let rows: Vec<PlacedRow> = on!(&mut *tx, c => sqlx::query_as(OLDEST)
        .bind(tenant)
        .bind(chain.floor_sequence)
        .bind(chain.sequence)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    // The floor moves over whole stretches: what stands behind a protected deed waits for it.
    let old = |row: &&PlacedRow| row.at < to_micros(before) && !row.account_id.is_some_and(&protected);
    let gone: Vec<&PlacedRow> = rows.iter().take_while(old).collect();
    let Some(last) = gone.last() else { return Ok(0) };
    let hash = hash_of(last.chain_hash.as_deref().unwrap_or_default(), tenant)?;
    let signature = sealer.keyed_hash(FLOOR, &Head::signed(tenant, last.chain_sequence, &hash, now));
    on!(&mut *tx, c => sqlx::query(MOVE_FLOOR)
        .bind(tenant)
        .bind(last.chain_sequence)
        .bind(hash.as_slice())
        .bind(to_micros(now))
        .bind(signature.as_slice())
        .execute(c)
        .await
        .map(drop))?;
    let dropped = on!(tx, c => sqlx::query(DROP_UP_TO)
        .bind(tenant)
        .bind(last.chain_sequence)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(dropped)
}

async fn tenants(tx: &mut Tx) -> Result<Vec<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(TENANTS).fetch_all(c).await)?)
}

async fn chain(tx: &mut Tx, tenant: &str) -> Result<Option<ChainRow>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(CHAIN).bind(tenant).fetch_optional(c).await)?)
}

fn head_is_signed(sealer: &Sealer, tenant: &str, chain: &ChainRow) -> Result<bool, StoreError> {
    let Some(at) = from_micros(chain.sealed_at) else { return Ok(false) };
    let signed = Head::signed(tenant, chain.sequence, &hash_of(&chain.hash, tenant)?, at);
    Ok(sealer.is_keyed_hash(HEAD, &signed, &chain.signature))
}

fn floor_is_signed(sealer: &Sealer, tenant: &str, chain: &ChainRow) -> Result<bool, StoreError> {
    let Some(at) = from_micros(chain.floor_at) else { return Ok(false) };
    let hash = hash_of(&chain.floor_hash, tenant)?;
    // A whole chain needs no signature to begin at its root.
    if chain.floor_sequence == 0 {
        return Ok(hash == ROOT);
    }
    let signed = Head::signed(tenant, chain.floor_sequence, &hash, at);
    Ok(sealer.is_keyed_hash(FLOOR, &signed, &chain.floor_signature))
}

fn published_is_signed(sealer: &Sealer, head: &Head) -> bool {
    let signed = Head::signed(&head.tenant, head.sequence, &head.hash, head.at);
    sealer.is_keyed_hash(HEAD, &signed, &head.signature)
}

fn hash_of(octets: &[u8], tenant: &str) -> Result<Hash, StoreError> {
    let corrupt = || StoreError::Corrupt { table: "audit_chain", column: "hash", id: tenant.to_owned() };
    octets.try_into().map_err(|_| corrupt())
}

impl From<PlacedRow> for Row {
    fn from(row: PlacedRow) -> Self {
        Self {
            sequence: row.chain_sequence,
            id: row.id,
            at: row.at,
            actor: row.actor,
            action: row.action,
            account_id: row.account_id,
            subject: row.subject,
            detail: row.detail,
            salt: row.chain_salt,
            commitment: row.chain_commitment.unwrap_or_default(),
            hash: row.chain_hash.unwrap_or_default(),
        }
    }
}

/// What the signatures are for, so that one is never taken for the other.
const HEAD: &str = "audit head";
const FLOOR: &str = "audit floor";
/// Rows read in one go.
const PAGE: i64 = 1000;
/// A deed that waits longer than this while later ones are sealed was not appended the usual way.
const OVERDUE_MICROS: i64 = 600_000_000;
