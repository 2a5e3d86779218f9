//! Reads FreeRADIUS's `radacct` table, a page at a time, and never writes to it.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, SqliteConnection};

use crate::radius::RadacctRow;
use crate::store::{StoreError, sqlite_path, without_password};

/// Another server's accounting table, open for reading.
pub struct RadacctTable {
    connection: Connections,
    last: i64,
}

enum Connections {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// The columns that every version of the table has; as texts, because their types differ between versions.
const PAGE: &str = "SELECT CAST(radacctid AS BIGINT) AS id,
        CAST(acctsessionid AS TEXT) AS session,
        CAST(username AS TEXT) AS username,
        CAST(nasipaddress AS TEXT) AS nas_address,
        CAST(acctstarttime AS TEXT) AS started,
        CAST(acctupdatetime AS TEXT) AS updated,
        CAST(acctstoptime AS TEXT) AS stopped,
        CAST(acctsessiontime AS TEXT) AS session_seconds,
        CAST(acctinputoctets AS TEXT) AS in_octets,
        CAST(acctoutputoctets AS TEXT) AS out_octets,
        CAST(callingstationid AS TEXT) AS calling_station,
        CAST(acctterminatecause AS TEXT) AS terminate_cause,
        CAST(framedipaddress AS TEXT) AS framed_address
     FROM radacct WHERE radacctid > $1 ORDER BY radacctid LIMIT $2";
const ROWS_A_PAGE: i64 = 500;

impl RadacctTable {
    /// Opens the database of a `sqlite://` or `postgres://` URL.
    ///
    /// **Errors**: another kind of URL; a database that cannot be reached.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let wrong = |error: sqlx::Error| StoreError::Configuration(format!("{}: {error}", without_password(url)));
        let connection = if let Some(path) = sqlite_path(url) {
            let options = SqliteConnectOptions::new().filename(path).read_only(true).disable_statement_logging();
            Connections::Sqlite(SqliteConnection::connect_with(&options).await?)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = PgConnectOptions::from_str(url)
                .map_err(wrong)?
                .application_name("lastmile")
                // Instants come with their offset, whatever the server's zone is.
                .options([("TimeZone", "UTC"), ("default_transaction_read_only", "on"), ("DateStyle", "ISO")])
                .disable_statement_logging();
            Connections::Postgres(PgConnection::connect_with(&options).await?)
        } else {
            return Err(StoreError::Configuration(format!(
                "{:?} is no database that can be read; write sqlite:///path/file.db or postgres://user@host/db",
                without_password(url)
            )));
        };
        Ok(Self { connection, last: i64::MIN })
    }

    /// The next rows with their `radacctid`; empty at the end.
    pub async fn page(&mut self) -> Result<Vec<(i64, RadacctRow)>, StoreError> {
        let rows: Vec<Row> = match &mut self.connection {
            Connections::Sqlite(c) => sqlx::query_as(PAGE).bind(self.last).bind(ROWS_A_PAGE).fetch_all(c).await?,
            Connections::Postgres(c) => sqlx::query_as(PAGE).bind(self.last).bind(ROWS_A_PAGE).fetch_all(c).await?,
        };
        if let Some(last) = rows.last() {
            self.last = last.id;
        }
        Ok(rows.into_iter().map(|row| (row.id, row.into())).collect())
    }
}

/// The URL as it may be shown.
pub fn shown(url: &str) -> String {
    without_password(url)
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    session: Option<String>,
    username: Option<String>,
    nas_address: Option<String>,
    started: Option<String>,
    updated: Option<String>,
    stopped: Option<String>,
    session_seconds: Option<String>,
    in_octets: Option<String>,
    out_octets: Option<String>,
    calling_station: Option<String>,
    terminate_cause: Option<String>,
    framed_address: Option<String>,
}

impl From<Row> for RadacctRow {
    fn from(row: Row) -> Self {
        Self {
            session: row.session,
            user: row.username,
            nas_address: row.nas_address,
            nas_identifier: None,
            started: row.started,
            updated: row.updated,
            stopped: row.stopped,
            session_seconds: row.session_seconds,
            in_octets: row.in_octets,
            out_octets: row.out_octets,
            calling_station: row.calling_station,
            terminate_cause: row.terminate_cause,
            framed_address: row.framed_address,
        }
    }
}
