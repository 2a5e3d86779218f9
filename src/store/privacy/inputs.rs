//! What billing systems sent, as it came: which of it names a person, and its end.
//!
//! An input may name many accounts. Whoever is forgotten takes the whole of it along, since nobody can say for every format
//! which of its octets are whose; what else was in it can no longer be replayed. Where it also names an account under a legal
//! hold it is kept, with the person's words overwritten.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::words::Needle;
use crate::store::accounts::{self, AccountRow};
use crate::store::{Sealer, Store, StoreError, Tx, ingest, on};
use crate::vocabulary::{Timestamp, hex, to_micros};

/// Inputs that name a person, and up to which one all were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    pub ids: BTreeSet<i64>,
    pub looked_at: i64,
}

/// An input's number, its digest and its sealed octets.
type Kept = (i64, String, Vec<u8>);

const KEPT: &str = "SELECT id, digest, sealed FROM ingest WHERE tenant = $1 AND id > $2 AND sealed IS NOT NULL
     ORDER BY id LIMIT $3";
const ONE: &str = "SELECT id, digest, sealed FROM ingest WHERE tenant = $1 AND id = $2 AND sealed IS NOT NULL";
const PUT_ASIDE: &str =
    "SELECT DISTINCT ingest_fault.ingest FROM ingest_fault JOIN ingest ON ingest.id = ingest_fault.ingest
     WHERE ingest.tenant = $1 AND ingest.source = $2 AND ingest_fault.account = $3 ORDER BY 1 LIMIT 1000000";
const DEEDS: &str =
    "SELECT detail FROM audit WHERE account_id = $1 AND detail LIKE '%\"ingest\"%' ORDER BY id LIMIT 1000000";
const OTHERS_HELD: &str =
    "SELECT legal_hold.account_id FROM legal_hold JOIN account ON account.id = legal_hold.account_id
     WHERE account.tenant = $1 AND legal_hold.lifted_at IS NULL AND account.id <> $2 ORDER BY 1 LIMIT 10000";
const END: &str =
    "UPDATE ingest SET sealed = NULL, digest = CASE WHEN way = 'inbox' THEN digest ELSE 'erased:' || id END
     WHERE id = $1";
const SEAL_ANEW: &str = "UPDATE ingest SET sealed = $2, digest = $3 WHERE id = $1";
/// Where an input is gone, a fault of nobody may be of the person.
const SCRUB_FAULTS: &str = "UPDATE ingest_fault
     SET faults = '[{\"pointer\":\"\",\"detail\":\"erased\"}]', replayed_at = COALESCE(replayed_at, $4),
         replayed_by = COALESCE(replayed_by, $5)
     WHERE ingest = $1 AND (account = $2 AND (SELECT source FROM ingest WHERE id = $1) = $3 OR account IS NULL AND $6 = 1)";
const FILES: &str = "SELECT name FROM ingest WHERE id = $1 AND way = 'inbox' AND name IS NOT NULL";

impl Store {
    /// Looks through everything that is kept of what came for a tenant, in small steps; what comes meanwhile is looked at when
    /// the person is erased.
    ///
    /// **Errors**: the database; `Corrupt` where something was sealed with another key.
    pub async fn inputs_naming(&self, row: &AccountRow, words: &BTreeSet<String>) -> Result<Named, StoreError> {
        let needle = Needle::new(words);
        let mut named = Named::default();
        loop {
            let mut tx = self.read().await?;
            if !step(&mut tx, self.sealer(), &row.tenant, &needle, &mut named).await? {
                return Ok(named);
            }
        }
    }
}

/// Looks at some more of them; `false`: there are no more.
async fn step(
    tx: &mut Tx,
    sealer: &Sealer,
    tenant: &str,
    needle: &Needle,
    named: &mut Named,
) -> Result<bool, StoreError> {
    let page: Vec<Kept> = on!(tx, c => sqlx::query_as(KEPT)
        .bind(tenant)
        .bind(named.looked_at)
        .bind(PAGE)
        .fetch_all(c)
        .await)?;
    for (id, digest, sealed) in &page {
        if needle.is_in(&sealer.open_bytes(&ingest::place(tenant, digest), sealed)?) {
            named.ids.insert(*id);
        }
        named.looked_at = *id;
    }
    Ok(!page.is_empty())
}

/// Inputs by which an account came, as its deeds and what was put aside of it say.
pub(super) async fn came_by(tx: &mut Tx, row: &AccountRow) -> Result<BTreeSet<i64>, StoreError> {
    let ids: Vec<i64> = on!(&mut *tx, c => sqlx::query_scalar(PUT_ASIDE)
        .bind(&row.tenant)
        .bind(&row.source)
        .bind(&row.external_id)
        .fetch_all(c)
        .await)?;
    let mut ids: BTreeSet<i64> = ids.into_iter().collect();
    let details: Vec<String> = on!(tx, c => sqlx::query_scalar(DEEDS).bind(row.id).fetch_all(c).await)?;
    for detail in &details {
        let detail: serde_json::Value = serde_json::from_str(detail).unwrap_or_default();
        ids.extend(detail["origin"]["ingest"].as_str().and_then(|id| id.parse::<i64>().ok()));
    }
    Ok(ids)
}

/// Forgets the inputs that name the person, and what was put aside of the account. Returns how many inputs, and the names of
/// files that came into a watched folder and stand there still.
pub(super) async fn forget(
    tx: &mut Tx,
    sealer: &Sealer,
    row: &AccountRow,
    (words, mut named): (&BTreeSet<String>, Named),
    by: &str,
    now: Timestamp,
) -> Result<(u64, Vec<String>), StoreError> {
    let needle = Needle::new(words);
    while step(tx, sealer, &row.tenant, &needle, &mut named).await? {}
    named.ids.extend(came_by(tx, row).await?);
    let held = held_by_law(tx, row).await?;
    let (mut gone, mut files) = (0, Vec::new());
    for id in named.ids {
        let names: Vec<String> = on!(&mut *tx, c => sqlx::query_scalar(FILES).bind(id).fetch_all(c).await)?;
        files.extend(names);
        let kept: Option<Kept> =
            on!(&mut *tx, c => sqlx::query_as(ONE).bind(&row.tenant).bind(id).fetch_optional(c).await)?;
        let mut stays = false;
        if let Some((_, digest, sealed)) = kept {
            gone += 1;
            let octets = sealer.open_bytes(&ingest::place(&row.tenant, &digest), &sealed)?;
            stays = held.iter().any(|(ids, of_other)| ids.contains(&id) || of_other.is_in(&octets));
            let clean = if stays { needle.overwritten(&octets) } else { None };
            match clean {
                Some(clean) => {
                    let digest = hex(&sealer.keyed_hash("ingest", &Sha256::digest(&clean))[..16]);
                    let sealed = sealer.seal_bytes(&ingest::place(&row.tenant, &digest), &clean)?;
                    on!(&mut *tx, c => sqlx::query(SEAL_ANEW)
                        .bind(id)
                        .bind(sealed)
                        .bind(&digest)
                        .execute(c)
                        .await
                        .map(drop))?;
                }
                // What cannot be overwritten waits for the other's hold, and its own time.
                None if stays => {}
                None => on!(&mut *tx, c => sqlx::query(END).bind(id).execute(c).await.map(drop))?,
            }
        }
        on!(&mut *tx, c => sqlx::query(SCRUB_FAULTS)
            .bind(id)
            .bind(&row.external_id)
            .bind(&row.source)
            .bind(to_micros(now))
            .bind(by)
            .bind(i64::from(!stays))
            .execute(c)
            .await
            .map(drop))?;
    }
    Ok((gone, files))
}

/// Other accounts of the tenant under a legal hold: the inputs they came by, and the words that tell them.
async fn held_by_law(tx: &mut Tx, row: &AccountRow) -> Result<Vec<(BTreeSet<i64>, Needle)>, StoreError> {
    let ids: Vec<i64> =
        on!(&mut *tx, c => sqlx::query_scalar(OTHERS_HELD).bind(&row.tenant).bind(row.id).fetch_all(c).await)?;
    let mut held = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(other) = accounts::by_id(tx, id).await? else { continue };
        held.push((came_by(tx, &other).await?, Needle::new(&other.document.identity())));
    }
    Ok(held)
}

/// Inputs opened at once.
const PAGE: i64 = 20;
