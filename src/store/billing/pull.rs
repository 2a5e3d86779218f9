//! Lines as whoever bills pulls them: in the order in which their batches were closed, so that a line that is new never stands
//! behind a place where somebody has been.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{LineFilter, parsed};
use crate::billing::lines::StoredLine;
use crate::store::many::{Many, Of};
use crate::store::{StoreError, Tx, accounts, on};
use crate::vocabulary::to_micros;

/// A place in a tenant's lines: after this line. **Shape** as text: the number of the closed batch, a dot, the line's id.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The batch's number among the closed ones; 0 is before all.
    pub sequence: i64,
    pub line: String,
}

/// A line with where it stands and the row of its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    pub place: Place,
    pub account_id: i64,
    pub stored: StoredLine,
}

/// By what the network knows a service, the last that it had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub username: Option<String>,
    pub number: Option<String>,
}

/// A text that is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no place in a tenant's lines")]
pub struct PlaceError;

macro_rules! select_pulled {
    ($below:literal, $under:literal) => {
        concat!(
            $below,
            "SELECT batch.closed_sequence, line.id, line.account_id, line.document
             FROM batch JOIN line ON line.batch = batch.id
             WHERE batch.tenant = $1 AND batch.closed_sequence >= $2
               AND (batch.closed_sequence > $2 OR line.id > $3)
               AND ($4 IS NULL OR line.cycle = $4)
               AND ($5 = 0 OR line.period_start_at = $6)
               AND ($7 = 0 OR line.account_id = $8)
               AND ($9 IS NULL OR line.batch = $9) ",
            $under,
            " ORDER BY batch.closed_sequence, line.id LIMIT $10"
        )
    };
}
const PULL: &str = select_pulled!("", "");
const PULL_UNDER: &str = select_pulled!(
    "WITH RECURSIVE below (external_id) AS (
         SELECT CAST($12 AS TEXT)
         UNION
         SELECT account_parent.child FROM below JOIN account_parent
           ON account_parent.tenant = $1 AND account_parent.source = $11 AND account_parent.parent = below.external_id
     ) ",
    "AND line.account_id IN (SELECT account.id FROM below JOIN account
           ON account.tenant = $1 AND account.source = $11 AND account.external_id = below.external_id)"
);
static NAMES: Many<2> = Many::new(
    [("account_id", Of::Integer), ("service", Of::Text)],
    "SELECT service.account_id, service.external_id,
        (SELECT holder.value FROM holder WHERE holder.account_id = service.account_id AND holder.service_id = service.id
            AND holder.kind = 'username' ORDER BY holder.until_at IS NULL DESC, holder.from_at DESC, holder.id DESC LIMIT 1),
        (SELECT holder.value FROM holder WHERE holder.account_id = service.account_id AND holder.service_id = service.id
            AND holder.kind = 'number' ORDER BY holder.until_at IS NULL DESC, holder.from_at DESC, holder.value LIMIT 1)
     FROM new JOIN service ON service.account_id = new.account_id AND service.external_id = new.service",
);
const TEXTS: &str = "SELECT id, document FROM line WHERE batch = $1 AND id > $2 ORDER BY id LIMIT $3";

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.sequence, self.line)
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (sequence, line) = text.split_once('.').ok_or(PlaceError)?;
        Ok(Self { sequence: sequence.parse().map_err(|_| PlaceError)?, line: line.to_owned() })
    }
}

/// Lines of a tenant's closed batches after a place; of the filter `tenant` must be there, and `after` and `drafts` do not
/// count.
pub async fn pull(tx: &mut Tx, filter: &LineFilter, after: &Place) -> Result<Vec<Pulled>, StoreError> {
    let statement = if filter.under.is_some() { PULL_UNDER } else { PULL };
    let rows: Vec<(i64, String, i64, String)> = on!(tx, c => {
        let query = sqlx::query_as(statement)
        .bind(filter.tenant.as_deref().unwrap_or_default())
        .bind(after.sequence)
        .bind(&after.line)
        .bind(&filter.cycle)
        .bind(i64::from(filter.period_start.is_some()))
        .bind(filter.period_start.map_or(0, to_micros))
        .bind(i64::from(filter.account_id.is_some()))
        .bind(filter.account_id.unwrap_or(0))
        .bind(&filter.batch)
        .bind(filter.limit);
        let query = match &filter.under {
            Some((source, account)) => query.bind(source).bind(account),
            None => query,
        };
        query.fetch_all(c).await
    })?;
    rows.into_iter()
        .map(|(sequence, line, account_id, document)| {
            Ok(Pulled { place: Place { sequence, line }, account_id, stored: parsed(&document)? })
        })
        .collect()
}

/// The names of services, by account and the service's external id.
pub async fn names(tx: &mut Tx, services: &[(i64, &str)]) -> Result<HashMap<(i64, String), Names>, StoreError> {
    let mut distinct = services.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let rows = distinct.into_iter().map(|(account, service)| [account.into(), service.into()]);
    let found: Vec<(i64, String, Option<String>, Option<String>)> = NAMES.fetch(tx, rows.collect()).await?;
    let names = |(account, service, username, number)| ((account, service), Names { username, number });
    Ok(found.into_iter().map(names).collect())
}

/// Lines as documents for the files of a source: the line, its `source`, the service's `username` and `number`, and the
/// account's `tags` as they are now.
pub async fn documents(tx: &mut Tx, lines: &[Pulled]) -> Result<Vec<Value>, StoreError> {
    let of = |pulled: &Pulled| Some((pulled.account_id, pulled.stored.line.service.clone()?));
    let services: Vec<(i64, String)> = lines.iter().filter_map(of).collect();
    let services: Vec<(i64, &str)> = services.iter().map(|(account, service)| (*account, service.as_str())).collect();
    let names = names(tx, &services).await?;
    let mut ids: Vec<i64> = lines.iter().map(|pulled| pulled.account_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let rows = if ids.is_empty() { Vec::new() } else { accounts::these_by_id(tx, &ids).await? };
    let tagged = rows.into_iter().filter(|row| !row.document.tags.is_empty());
    let tags: HashMap<i64, Value> = tagged.map(|row| (row.id, json!(row.document.tags))).collect();
    let document = |pulled: &Pulled| {
        let mut document = json!(pulled.stored.line);
        if let Some(tags) = tags.get(&pulled.account_id) {
            document["tags"] = tags.clone();
        }
        let names = of(pulled).and_then(|of| names.get(&of).cloned()).unwrap_or_default();
        document["source"] = json!(pulled.stored.basis.source);
        document["username"] = json!(names.username);
        document["number"] = json!(names.number);
        document
    };
    Ok(lines.iter().map(document).collect())
}

/// The JSON of lines of a batch, whatever its state, in the order of their ids, after one: the id and the octets that the
/// batch's digest covers.
pub async fn texts(tx: &mut Tx, batch: &str, after: &str, limit: i64) -> Result<Vec<(String, String)>, StoreError> {
    let rows: Vec<(String, String)> =
        on!(tx, c => sqlx::query_as(TEXTS).bind(batch).bind(after).bind(limit).fetch_all(c).await)?;
    rows.into_iter()
        .map(|(id, document)| match of_line(&document) {
            Some(text) => Ok((id, text.to_owned())),
            None => Err(StoreError::Corrupt { table: "line", column: "document", id }),
        })
        .collect()
}

/// The line's own JSON in the stored document, which begins with it.
fn of_line(document: &str) -> Option<&str> {
    let rest = document.strip_prefix("{\"line\":")?;
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    rest.get(..values.byte_offset())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_out_of_its_document() {
        let line = r#"{"id":"a","description":"}\",\"basis\":{","tax":[{"id":"vat"}]}"#;
        assert_eq!(of_line(&format!(r#"{{"line":{line},"basis":{{"source":"x"}}}}"#)), Some(line));
        assert_eq!(of_line(r#"{"basis":{}}"#), None);
    }

    #[test]
    fn a_place_reads_as_it_was_written() {
        let place = Place { sequence: 17, line: "il_2026-10.x".into() };
        assert_eq!(place.to_string().parse(), Ok(place));
        assert!("il_x".parse::<Place>().is_err());
    }
}
