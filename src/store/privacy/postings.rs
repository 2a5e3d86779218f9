//! What somebody wrote into the description of a posted charge, and its end: on the charge, and on its lines. Amounts, ids and
//! everything that was rated stay; a batch that lost a description has a new digest and keeps the one it was closed with.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::billing::charges::Posting;
use crate::billing::lines::StoredLine;
use crate::store::{StoreError, Tx, billing, on};
use crate::vocabulary::hex;

const CHARGES: &str = "SELECT id, document FROM posted_charge WHERE account_id = $1 ORDER BY id LIMIT 1000000";
const WRITE_CHARGE: &str = "UPDATE posted_charge SET document = $2 WHERE id = $1";
const LINES: &str = "SELECT id, batch, document FROM line WHERE account_id = $1 AND document LIKE '%\"posted\":%'
     ORDER BY id LIMIT 1000000";
const WRITE_LINE: &str = "UPDATE line SET document = $2 WHERE id = $1";
const WRITE_DIGEST: &str = "UPDATE batch SET closed_digest = COALESCE(closed_digest, digest), digest = $2
     WHERE id = $1 AND digest IS NOT NULL";

/// What was written into the charges of an account.
pub(super) async fn texts(tx: &mut Tx, account_id: i64) -> Result<BTreeSet<String>, StoreError> {
    Ok(charges(tx, account_id).await?.into_iter().filter_map(|(_, posting)| posting.description).collect())
}

/// Takes the descriptions out. Returns how many charges and lines had one.
pub(super) async fn forget(tx: &mut Tx, account_id: i64) -> Result<u64, StoreError> {
    let mut gone = 0;
    for (id, posting) in charges(tx, account_id).await? {
        let Some(clean) = posting.without_description() else { continue };
        let document = serde_json::to_string(&clean).map_err(|error| StoreError::Database(error.to_string()))?;
        on!(&mut *tx, c => sqlx::query(WRITE_CHARGE).bind(id).bind(document).execute(c).await.map(drop))?;
        gone += 1;
    }
    let lines: Vec<(String, String, String)> =
        on!(&mut *tx, c => sqlx::query_as(LINES).bind(account_id).fetch_all(c).await)?;
    let mut batches = BTreeSet::new();
    for (id, batch, document) in lines {
        let corrupt = || StoreError::Corrupt { table: "line", column: "document", id: id.clone() };
        let mut stored: StoredLine = serde_json::from_str(&document).map_err(|_| corrupt())?;
        if !stored.forget_description() {
            continue;
        }
        let document = serde_json::to_string(&stored).map_err(|_| corrupt())?;
        on!(&mut *tx, c => sqlx::query(WRITE_LINE).bind(&id).bind(document).execute(c).await.map(drop))?;
        batches.insert(batch);
        gone += 1;
    }
    for batch in batches {
        let digest = digest(tx, &batch).await?;
        on!(&mut *tx, c => sqlx::query(WRITE_DIGEST).bind(&batch).bind(digest).execute(c).await.map(drop))?;
    }
    Ok(gone)
}

async fn charges(tx: &mut Tx, account_id: i64) -> Result<Vec<(i64, Posting)>, StoreError> {
    let rows: Vec<(i64, String)> = on!(tx, c => sqlx::query_as(CHARGES).bind(account_id).fetch_all(c).await)?;
    rows.into_iter()
        .map(|(id, document)| match serde_json::from_str(&document) {
            Ok(posting) => Ok((id, posting)),
            Err(_) => Err(StoreError::Corrupt { table: "posted_charge", column: "document", id: id.to_string() }),
        })
        .collect()
}

/// As the biller makes it when the batch is closed.
async fn digest(tx: &mut Tx, batch: &str) -> Result<String, StoreError> {
    let (mut hash, mut after) = (Sha256::new(), String::new());
    loop {
        let page = billing::texts(tx, batch, &after, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(hex(hash.finalize())) };
        after.clone_from(last);
        for (_, text) in &page {
            hash.update(text.as_bytes());
            hash.update(b"\n");
        }
    }
}

/// Lines read in one go.
const PAGE: i64 = 2000;
