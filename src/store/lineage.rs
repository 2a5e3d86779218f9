//! Which account stands under which, by the source's own ids; and whole trees of it.

use super::many::{Many, Of};
use super::{StoreError, Tx, on};
use crate::vocabulary::AccountKey;

/// An account in a tree, with how far below the root it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub external_id: String,
    pub parent: Option<String>,
    /// 0: the root.
    pub depth: i64,
    /// `None`: nobody has pushed it.
    pub account_id: Option<i64>,
    pub tier_label: Option<String>,
    pub closed: bool,
}

static PARENTS: Many<3> = Many::new(
    [("tenant", Of::Text), ("source", Of::Text), ("child", Of::Text)],
    "SELECT account_parent.tenant, account_parent.source, account_parent.child, account_parent.parent
     FROM new CROSS JOIN account_parent
     WHERE account_parent.tenant = new.tenant AND account_parent.source = new.source
       AND account_parent.child = new.child",
);
static SET: Many<4> = Many::new(
    [("tenant", Of::Text), ("source", Of::Text), ("child", Of::Text), ("parent", Of::Text)],
    "INSERT INTO account_parent (tenant, source, child, parent)
     SELECT tenant, source, child, parent FROM new WHERE tenant IS NOT NULL
     ON CONFLICT (tenant, source, child) DO UPDATE SET parent = excluded.parent",
);
static CUT: Many<3> = Many::new(
    [("tenant", Of::Text), ("source", Of::Text), ("child", Of::Text)],
    "DELETE FROM account_parent WHERE (tenant, source, child) IN (SELECT tenant, source, child FROM new)",
);
const LOCK: &str = "SELECT pg_advisory_xact_lock($1)";
/// Key of the advisory lock under which accounts move in trees: two moves that look at each other's past would make a loop.
const TREES_LOCK: i64 = 0x6c61_7374_7472_6565;
// UNION, not UNION ALL: it ends whatever the rows say.
macro_rules! below {
    ($document:literal) => {
        concat!(
            "WITH RECURSIVE below (external_id, parent, depth) AS (
                 SELECT CAST($3 AS TEXT), CAST(NULL AS TEXT), CAST(0 AS BIGINT)
                 UNION
                 SELECT account_parent.child, account_parent.parent, below.depth + 1
                 FROM below JOIN account_parent ON account_parent.tenant = $1 AND account_parent.source = $2
                   AND account_parent.parent = below.external_id
                 WHERE below.depth < $4
             )
             SELECT below.external_id, below.parent, below.depth, account.id, ",
            $document,
            " AS tier_label, CASE WHEN account.closed_at IS NULL THEN 0 ELSE 1 END AS closed
             FROM below LEFT JOIN account ON account.tenant = $1 AND account.source = $2
               AND account.external_id = below.external_id
             ORDER BY below.depth, below.external_id LIMIT $5"
        )
    };
}
const BELOW_SQLITE: &str = below!("json_extract(account.document, '$.tier_label')");
const BELOW_POSTGRES: &str = below!("account.document::jsonb ->> 'tier_label'");
const TOPS: &str = "SELECT DISTINCT parent FROM account_parent AS edge
     WHERE tenant = $1 AND source = $2 AND NOT EXISTS
       (SELECT 1 FROM account_parent AS above
        WHERE above.tenant = edge.tenant AND above.source = edge.source AND above.child = edge.parent)
     ORDER BY parent LIMIT $3";

/// Makes others who move accounts wait until the transaction ends. SQLite has one writer.
pub async fn lock(tx: &mut Tx) -> Result<(), StoreError> {
    if let Tx::Postgres(transaction) = tx {
        sqlx::query(LOCK).bind(TREES_LOCK).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// (account, its parent) of those that have one.
pub async fn parents(tx: &mut Tx, keys: &[&AccountKey]) -> Result<Vec<(AccountKey, String)>, StoreError> {
    let rows =
        keys.iter().map(|key| [key.tenant.as_str().into(), key.source.as_str().into(), (&key.external_id).into()]);
    let found: Vec<(String, String, String, String)> = PARENTS.fetch(tx, rows.collect()).await?;
    let edge = |(tenant, source, child, parent): (String, String, String, String)| {
        let corrupt = |column| StoreError::Corrupt { table: "account_parent", column, id: child.clone() };
        let tenant = tenant.parse().map_err(|_| corrupt("tenant"))?;
        let source = source.parse().map_err(|_| corrupt("source"))?;
        Ok((AccountKey { tenant, source, external_id: child }, parent))
    };
    found.into_iter().map(edge).collect()
}

/// Puts accounts under others.
pub async fn set(tx: &mut Tx, moves: &[(&AccountKey, &str)]) -> Result<(), StoreError> {
    let rows = moves.iter().map(|(key, parent)| {
        [key.tenant.as_str().into(), key.source.as_str().into(), (&key.external_id).into(), (*parent).into()]
    });
    SET.execute(tx, rows.collect()).await
}

/// Makes accounts stand under nobody.
pub async fn cut(tx: &mut Tx, keys: &[&AccountKey]) -> Result<(), StoreError> {
    let rows =
        keys.iter().map(|key| [key.tenant.as_str().into(), key.source.as_str().into(), (&key.external_id).into()]);
    CUT.execute(tx, rows.collect()).await
}

/// An account and everything below it, at most `levels` down, level by level.
pub async fn below(tx: &mut Tx, key: &AccountKey, levels: i64, limit: i64) -> Result<Vec<Node>, StoreError> {
    type Row<C = i64> = (String, Option<String>, i64, Option<i64>, Option<String>, C);
    let statement = match tx {
        Tx::Sqlite(_) => BELOW_SQLITE,
        Tx::Postgres(_) => BELOW_POSTGRES,
    };
    let rows: Vec<Row> = match tx {
        Tx::Sqlite(held) => {
            let query = sqlx::query_as(statement).bind(key.tenant.as_str()).bind(key.source.as_str());
            query.bind(&key.external_id).bind(levels).bind(limit).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            let rows: Vec<Row<i32>> = sqlx::query_as(statement)
                .bind(key.tenant.as_str())
                .bind(key.source.as_str())
                .bind(&key.external_id)
                .bind(levels)
                .bind(limit)
                .fetch_all(&mut **transaction)
                .await?;
            rows.into_iter()
                .map(|(id, parent, depth, row, label, closed)| (id, parent, depth, row, label, closed.into()))
                .collect()
        }
    };
    let node = |(external_id, parent, depth, account_id, tier_label, closed): Row| Node {
        external_id,
        parent,
        depth,
        account_id,
        tier_label,
        closed: closed != 0,
    };
    Ok(rows.into_iter().map(node).collect())
}

/// Accounts of a source that have others below them and stand under nobody.
pub async fn tops(tx: &mut Tx, tenant: &str, source: &str, limit: i64) -> Result<Vec<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(TOPS).bind(tenant).bind(source).bind(limit).fetch_all(c).await)?)
}
