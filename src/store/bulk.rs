//! Multi-row statements of SQLite: `HEAD VALUES (?, …), (?, …) TAIL`, their texts made once for each of a few sizes.

use std::sync::{Arc, OnceLock};

use sqlx::error::BoxDynError;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, Type};

use super::{SqliteTx, StoreError};

/// One statement for any number of rows.
pub(super) struct Bulk {
    head: &'static str,
    columns: usize,
    tail: &'static str,
    texts: [OnceLock<Arc<str>>; SIZES.len()],
}

/// The values of the rows of one statement, in their order.
pub(super) struct Values {
    arguments: SqliteArguments,
    refused: Option<BoxDynError>,
}

/// Rows of one statement: few sizes, so that few statements are prepared.
const SIZES: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];

impl Bulk {
    pub const fn new(head: &'static str, columns: usize, tail: &'static str) -> Self {
        Self { head, columns, tail, texts: [const { OnceLock::new() }; SIZES.len()] }
    }

    /// Executes the statement for all rows; `put` gives a row's values, one for each column.
    pub async fn execute<T>(
        &self,
        held: &mut SqliteTx,
        rows: &[T],
        put: impl Fn(&T, &mut Values),
    ) -> Result<(), StoreError> {
        let mut rest = rows;
        while let Some(index) = SIZES.iter().position(|size| *size <= rest.len()) {
            let (piece, left) = rest.split_at(SIZES[index]);
            rest = left;
            let mut values = Values { arguments: SqliteArguments::default(), refused: None };
            values.arguments.reserve(piece.len() * self.columns, 0);
            piece.iter().for_each(|row| put(row, &mut values));
            if let Some(refused) = values.refused {
                return Err(sqlx::Error::Encode(refused).into());
            }
            let text = AssertSqlSafe(Arc::clone(self.text(index)));
            sqlx::query_with(text, values.arguments).execute(&mut *held.transaction).await?;
        }
        Ok(())
    }

    fn text(&self, index: usize) -> &Arc<str> {
        self.texts[index].get_or_init(|| {
            let row = format!("({})", vec!["?"; self.columns].join(", "));
            format!("{} VALUES {}{}", self.head, vec![row.as_str(); SIZES[index]].join(", "), self.tail).into()
        })
    }
}

impl Values {
    pub fn put<'v, V: Encode<'v, Sqlite> + Type<Sqlite>>(&mut self, value: V) -> &mut Self {
        if let Err(refused) = self.arguments.add(value) {
            self.refused.get_or_insert(refused);
        }
        self
    }
}
