//! Which events were brought in from elsewhere already, so that importing a file again adds nothing to the journal.

use std::collections::HashSet;

use super::sessions::json;
use super::{StoreError, Tx};

/// What makes two records the same event: its instant in microseconds, and a digest of everything else.
pub type EventKey = (i64, i64);

const KNOWN_SQLITE: &str = "SELECT imported.event_at, imported.digest
     FROM json_each($1) AS key CROSS JOIN imported
       ON imported.event_at = json_extract(key.value, '$[0]') AND imported.digest = json_extract(key.value, '$[1]')";
const KNOWN_POSTGRES: &str = "SELECT imported.event_at, imported.digest
     FROM UNNEST($1::BIGINT[], $2::BIGINT[]) AS key (event_at, digest) JOIN imported USING (event_at, digest)";
const REMEMBER_SQLITE: &str = "INSERT INTO imported (event_at, digest)
     SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each($1) WHERE TRUE
     ON CONFLICT DO NOTHING";
const REMEMBER_POSTGRES: &str = "INSERT INTO imported (event_at, digest)
     SELECT key.event_at, key.digest FROM UNNEST($1::BIGINT[], $2::BIGINT[]) AS key (event_at, digest)
     ON CONFLICT DO NOTHING";

/// Those of these events that were imported before.
pub async fn known(tx: &mut Tx, keys: &[EventKey]) -> Result<HashSet<EventKey>, StoreError> {
    let rows: Vec<EventKey> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(KNOWN_SQLITE).bind(json(&keys)).fetch_all(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => {
            let (at, digests): (Vec<i64>, Vec<i64>) = keys.iter().copied().unzip();
            sqlx::query_as(KNOWN_POSTGRES).bind(at).bind(digests).fetch_all(&mut **transaction).await?
        }
    };
    Ok(rows.into_iter().collect())
}

/// Notes events as imported; noting one again changes nothing.
pub async fn remember(tx: &mut Tx, keys: &[EventKey]) -> Result<(), StoreError> {
    match tx {
        Tx::Sqlite(held) => {
            sqlx::query(REMEMBER_SQLITE).bind(json(&keys)).execute(&mut *held.transaction).await?;
        }
        Tx::Postgres(transaction) => {
            let (at, digests): (Vec<i64>, Vec<i64>) = keys.iter().copied().unzip();
            sqlx::query(REMEMBER_POSTGRES).bind(at).bind(digests).execute(&mut **transaction).await?;
        }
    }
    Ok(())
}
