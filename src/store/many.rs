//! One statement for many rows, on both databases from one text: the rows come in as a table named `new`. Many rows of a
//! statement share one journey to the database and back, which costs more than most rows do.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, FromRow};

use super::{StoreError, Tx};

/// A statement that reads its rows from `new (columns…)`.
///
/// **Shape**: the first column of a row is never NULL.
pub(super) struct Many<const N: usize> {
    columns: [(&'static str, Of); N],
    tail: &'static str,
    sqlite: [OnceLock<Arc<str>>; SIZES.len()],
    postgres: OnceLock<Arc<str>>,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Integer,
    Text,
    Octets,
}

/// One value of a row.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Integer(i64),
    Text(Cow<'a, str>),
    Octets(Cow<'a, [u8]>),
}

/// Rows of one statement on SQLite: few sizes, so that few statements are prepared. Places that no row fills are NULL.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];
const ROWS_MAX: usize = SIZES[SIZES.len() - 1];

impl<const N: usize> Many<N> {
    pub const fn new(columns: [(&'static str, Of); N], tail: &'static str) -> Self {
        let sqlite = [const { OnceLock::new() }; SIZES.len()];
        Self { columns, tail, sqlite, postgres: OnceLock::new() }
    }

    /// Executes it for all rows; without any, nothing happens.
    pub async fn execute(&self, tx: &mut Tx, rows: Vec<[Value<'_>; N]>) -> Result<(), StoreError> {
        for rows in rows.chunks(ROWS_MAX) {
            match tx {
                Tx::Sqlite(held) => {
                    let query = sqlx::query_with(self.sqlite_text(rows.len()), sqlite_arguments(rows)?);
                    query.execute(&mut *held.transaction).await?;
                }
                Tx::Postgres(transaction) => {
                    let query = sqlx::query_with(self.postgres_text(), self.postgres_arguments(rows)?);
                    query.execute(&mut **transaction).await?;
                }
            }
        }
        Ok(())
    }

    /// As `execute`; returns what the statement gives back, in no certain order.
    pub async fn fetch<Row>(&self, tx: &mut Tx, rows: Vec<[Value<'_>; N]>) -> Result<Vec<Row>, StoreError>
    where
        Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let mut found = Vec::new();
        for rows in rows.chunks(ROWS_MAX) {
            match tx {
                Tx::Sqlite(held) => {
                    let query = sqlx::query_as_with(self.sqlite_text(rows.len()), sqlite_arguments(rows)?);
                    found.extend(query.fetch_all(&mut *held.transaction).await?);
                }
                Tx::Postgres(transaction) => {
                    let query = sqlx::query_as_with(self.postgres_text(), self.postgres_arguments(rows)?);
                    found.extend(query.fetch_all(&mut **transaction).await?);
                }
            }
        }
        Ok(found)
    }

    fn names(&self) -> String {
        self.columns.map(|(name, _)| name).join(", ")
    }

    fn sqlite_text(&self, rows: usize) -> AssertSqlSafe<Arc<str>> {
        let index = SIZES.iter().position(|size| rows <= *size).unwrap_or(SIZES.len() - 1);
        let text = self.sqlite[index].get_or_init(|| {
            let row = format!("({})", ["?"; N].join(", "));
            let rows = vec![row.as_str(); SIZES[index]].join(", ");
            let (names, tail) = (self.names(), self.tail);
            format!("WITH new ({names}) AS (SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL) {tail}").into()
        });
        AssertSqlSafe(Arc::clone(text))
    }

    fn postgres_text(&self) -> AssertSqlSafe<Arc<str>> {
        let text = self.postgres.get_or_init(|| {
            let mut places = Vec::with_capacity(N);
            for (number, (_, of)) in self.columns.iter().enumerate() {
                places.push(format!("${}::{}[]", number + 1, of.postgres()));
            }
            let (names, places, tail) = (self.names(), places.join(", "), self.tail);
            format!("WITH new ({names}) AS (SELECT * FROM UNNEST({places})) {tail}").into()
        });
        AssertSqlSafe(Arc::clone(text))
    }

    fn postgres_arguments(&self, rows: &[[Value<'_>; N]]) -> Result<PgArguments, StoreError> {
        let mut arguments = PgArguments::default();
        for (index, (_, of)) in self.columns.iter().enumerate() {
            let column = rows.iter().map(|row| &row[index]);
            let added = match of {
                Of::Integer => arguments.add(column.map(Value::integer).collect::<Vec<Option<i64>>>()),
                Of::Text => arguments.add(column.map(Value::text).collect::<Vec<Option<&str>>>()),
                Of::Octets => arguments.add(column.map(Value::octets).collect::<Vec<Option<&[u8]>>>()),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        Ok(arguments)
    }
}

fn sqlite_arguments<const N: usize>(rows: &[[Value<'_>; N]]) -> Result<SqliteArguments, StoreError> {
    let mut arguments = SqliteArguments::default();
    Arguments::reserve(&mut arguments, rows.len() * N, 0);
    for value in rows.iter().flatten() {
        let added = match value {
            Value::Null => Arguments::add(&mut arguments, None::<i64>),
            Value::Integer(number) => Arguments::add(&mut arguments, *number),
            Value::Text(text) => Arguments::add(&mut arguments, text.as_ref()),
            Value::Octets(octets) => Arguments::add(&mut arguments, octets.as_ref()),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

impl Of {
    fn postgres(self) -> &'static str {
        match self {
            Of::Integer => "BIGINT",
            Of::Text => "TEXT",
            Of::Octets => "BYTEA",
        }
    }
}

impl Value<'_> {
    fn integer(&self) -> Option<i64> {
        if let Value::Integer(number) = self { Some(*number) } else { None }
    }

    fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    fn octets(&self) -> Option<&[u8]> {
        if let Value::Octets(octets) = self { Some(octets) } else { None }
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Integer(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(octets: Vec<u8>) -> Self {
        Value::Octets(Cow::Owned(octets))
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}
