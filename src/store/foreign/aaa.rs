//! FreeRADIUS's standard tables (`radcheck`, `radreply`, `radusergroup`): all rows of one user go in, in one
//! transaction, or come out. What the groups say (`radgroupcheck`, `radgroupreply`) belongs to whoever runs FreeRADIUS.
//!
//! Two habits of its `rlm_sql`, tried against 3.2.1, are met here. It reads the value column as text with backslash
//! escapes, and a value that begins and ends with the same quote as a quoted one (in backquotes it would even be
//! *run*): `value_text` writes values so that they are read back unchanged. And it looks names up after replacing every
//! ASCII character it thinks unsafe by `=XX`, unless `auto_escape` is set: `lookup_names` gives the spellings under
//! which a user is found either way.

use super::{Foreign, ForeignTx, Schema, on_foreign};
use crate::store::StoreError;

/// The AAA server's database; cheap to clone.
#[derive(Debug, Clone)]
pub struct AaaDatabase(Foreign);

/// One attribute with its operator (`:=` sets, `=` adds when there is none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeRow {
    pub attribute: String,
    pub op: &'static str,
    /// As the attribute must be, unescaped.
    pub value: String,
}

/// Everything that stands under one username.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRows {
    pub username: String,
    pub check: Vec<AttributeRow>,
    pub reply: Vec<AttributeRow>,
    /// Groups in the order of their priority.
    pub groups: Vec<String>,
}

/// The tables `rlm_sql` asks when it authorizes, and the one it logs logins to. Accounting comes to us, not to
/// `radacct`.
static SCHEMA: Schema = Schema {
    landmark: "radusergroup",
    sqlite: &[
        "CREATE TABLE IF NOT EXISTS radcheck (id INTEGER PRIMARY KEY AUTOINCREMENT,
            username VARCHAR(253) NOT NULL DEFAULT '', attribute VARCHAR(64) NOT NULL DEFAULT '',
            op CHAR(2) NOT NULL DEFAULT '==', value VARCHAR(253) NOT NULL DEFAULT '')",
        "CREATE INDEX IF NOT EXISTS check_username ON radcheck (username)",
        "CREATE TABLE IF NOT EXISTS radreply (id INTEGER PRIMARY KEY AUTOINCREMENT,
            username VARCHAR(253) NOT NULL DEFAULT '', attribute VARCHAR(64) NOT NULL DEFAULT '',
            op CHAR(2) NOT NULL DEFAULT '=', value VARCHAR(253) NOT NULL DEFAULT '')",
        "CREATE INDEX IF NOT EXISTS reply_username ON radreply (username)",
        "CREATE TABLE IF NOT EXISTS radgroupcheck (id INTEGER PRIMARY KEY AUTOINCREMENT,
            groupname VARCHAR(64) NOT NULL DEFAULT '', attribute VARCHAR(64) NOT NULL DEFAULT '',
            op CHAR(2) NOT NULL DEFAULT '==', value VARCHAR(253) NOT NULL DEFAULT '')",
        "CREATE INDEX IF NOT EXISTS check_groupname ON radgroupcheck (groupname)",
        "CREATE TABLE IF NOT EXISTS radgroupreply (id INTEGER PRIMARY KEY AUTOINCREMENT,
            groupname VARCHAR(64) NOT NULL DEFAULT '', attribute VARCHAR(64) NOT NULL DEFAULT '',
            op CHAR(2) NOT NULL DEFAULT '=', value VARCHAR(253) NOT NULL DEFAULT '')",
        "CREATE INDEX IF NOT EXISTS reply_groupname ON radgroupreply (groupname)",
        "CREATE TABLE IF NOT EXISTS radusergroup (id INTEGER PRIMARY KEY AUTOINCREMENT,
            username VARCHAR(253) NOT NULL DEFAULT '', groupname VARCHAR(64) NOT NULL DEFAULT '',
            priority INTEGER NOT NULL DEFAULT 1)",
        "CREATE INDEX IF NOT EXISTS usergroup_username ON radusergroup (username)",
        "CREATE TABLE IF NOT EXISTS radpostauth (id INTEGER PRIMARY KEY AUTOINCREMENT,
            username VARCHAR(253) NOT NULL DEFAULT '', pass VARCHAR(64) NOT NULL DEFAULT '',
            reply VARCHAR(32) NOT NULL DEFAULT '', authdate TIMESTAMP NOT NULL, class VARCHAR(64))",
    ],
    postgres: &[
        "CREATE TABLE IF NOT EXISTS radcheck (id SERIAL PRIMARY KEY,
            username TEXT NOT NULL DEFAULT '', attribute TEXT NOT NULL DEFAULT '',
            op VARCHAR(2) NOT NULL DEFAULT '==', value TEXT NOT NULL DEFAULT '')",
        "CREATE INDEX IF NOT EXISTS radcheck_username ON radcheck (username, attribute)",
        "CREATE TABLE IF NOT EXISTS radreply (id SERIAL PRIMARY KEY,
            username TEXT NOT NULL DEFAULT '', attribute TEXT NOT NULL DEFAULT '',
            op VARCHAR(2) NOT NULL DEFAULT '=', value TEXT NOT NULL DEFAULT '')",
        "CREATE INDEX IF NOT EXISTS radreply_username ON radreply (username, attribute)",
        "CREATE TABLE IF NOT EXISTS radgroupcheck (id SERIAL PRIMARY KEY,
            groupname TEXT NOT NULL DEFAULT '', attribute TEXT NOT NULL DEFAULT '',
            op VARCHAR(2) NOT NULL DEFAULT '==', value TEXT NOT NULL DEFAULT '')",
        "CREATE INDEX IF NOT EXISTS radgroupcheck_groupname ON radgroupcheck (groupname, attribute)",
        "CREATE TABLE IF NOT EXISTS radgroupreply (id SERIAL PRIMARY KEY,
            groupname TEXT NOT NULL DEFAULT '', attribute TEXT NOT NULL DEFAULT '',
            op VARCHAR(2) NOT NULL DEFAULT '=', value TEXT NOT NULL DEFAULT '')",
        "CREATE INDEX IF NOT EXISTS radgroupreply_groupname ON radgroupreply (groupname, attribute)",
        "CREATE TABLE IF NOT EXISTS radusergroup (id SERIAL PRIMARY KEY,
            username TEXT NOT NULL DEFAULT '', groupname TEXT NOT NULL DEFAULT '',
            priority INTEGER NOT NULL DEFAULT 0)",
        "CREATE INDEX IF NOT EXISTS radusergroup_username ON radusergroup (username)",
        "CREATE TABLE IF NOT EXISTS radpostauth (id BIGSERIAL PRIMARY KEY,
            username TEXT NOT NULL, pass TEXT, reply TEXT, calledstationid TEXT, callingstationid TEXT,
            authdate TIMESTAMPTZ NOT NULL DEFAULT now(), class TEXT)",
    ],
};

const CHECK_OF: &str = "SELECT attribute, op, value FROM radcheck WHERE username = $1 ORDER BY id LIMIT 100";
const DELETE_CHECK: &str = "DELETE FROM radcheck WHERE username = $1";
const DELETE_REPLY: &str = "DELETE FROM radreply WHERE username = $1";
const DELETE_GROUPS: &str = "DELETE FROM radusergroup WHERE username = $1";
const INSERT_CHECK: &str = "INSERT INTO radcheck (username, attribute, op, value) VALUES ($1, $2, $3, $4)";
const INSERT_REPLY: &str = "INSERT INTO radreply (username, attribute, op, value) VALUES ($1, $2, $3, $4)";
const INSERT_GROUP: &str = "INSERT INTO radusergroup (username, groupname, priority) VALUES ($1, $2, $3)";

/// What `rlm_sql` leaves as it is in a name, unless configured otherwise; so are characters beyond ASCII.
const SAFE_CHARACTERS: &str = "@abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_: /";

impl AaaDatabase {
    /// The database behind a URL; nothing is connected yet.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Foreign::open(url, &SCHEMA).map(Self)
    }

    /// Makes file and tables where they are missing.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.0.prepare().await
    }

    /// Replaces all rows of a user; a login in between sees the old rows or the new ones.
    pub async fn replace(&self, user: &UserRows) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        for name in lookup_names(&user.username) {
            delete(&mut tx, &name).await?;
            for row in &user.check {
                insert(&mut tx, INSERT_CHECK, &name, row).await?;
            }
            for row in &user.reply {
                insert(&mut tx, INSERT_REPLY, &name, row).await?;
            }
            for (group, priority) in user.groups.iter().zip(1i32..) {
                on_foreign!(&mut tx, c => sqlx::query(INSERT_GROUP)
                    .bind(&name)
                    .bind(group)
                    .bind(priority)
                    .execute(&mut *c)
                    .await.map(drop))?;
            }
        }
        tx.commit().await
    }

    /// What a user's login is checked by: (attribute, operator, value).
    pub async fn checked_by(&self, username: &str) -> Result<Vec<(String, String, String)>, StoreError> {
        let mut tx = self.0.begin().await?;
        let rows = on_foreign!(&mut tx, c => sqlx::query_as(CHECK_OF).bind(username).fetch_all(&mut *c).await)?;
        tx.commit().await?;
        Ok(rows)
    }

    /// Removes all rows of a user. Safe to repeat.
    pub async fn remove(&self, username: &str) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        for name in lookup_names(username) {
            delete(&mut tx, &name).await?;
        }
        tx.commit().await
    }
}

async fn delete(tx: &mut ForeignTx, name: &str) -> Result<(), StoreError> {
    for statement in [DELETE_CHECK, DELETE_REPLY, DELETE_GROUPS] {
        on_foreign!(tx, c => sqlx::query(statement).bind(name).execute(&mut *c).await.map(drop))?;
    }
    Ok(())
}

async fn insert(tx: &mut ForeignTx, statement: &'static str, name: &str, row: &AttributeRow) -> Result<(), StoreError> {
    on_foreign!(tx, c => sqlx::query(statement)
        .bind(name)
        .bind(&row.attribute)
        .bind(row.op)
        .bind(value_text(&row.value))
        .execute(&mut *c)
        .await.map(drop))?;
    Ok(())
}

/// The text that `rlm_sql` reads back as `value`: backslashes doubled, and in single quotes when it would be taken for
/// quoted otherwise. A value without backslashes and quotes around it stands as it is.
fn value_text(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\");
    let quoted = matches!(value.chars().next(), Some('\'' | '"' | '`')) && value.chars().next() == value.chars().last();
    if quoted { format!("'{}'", escaped.replace('\'', "\\'")) } else { escaped }
}

/// The spellings under which FreeRADIUS may look a user up: the name itself (`auto_escape = yes`), and the name with
/// its unsafe characters as `=XX` (the default). A name that itself reads like an escaped one has only the latter, lest
/// it meet somebody else's rows.
fn lookup_names(username: &str) -> Vec<String> {
    let escaped: String = username
        .chars()
        .map(|c| match c {
            c if !c.is_ascii() || SAFE_CHARACTERS.contains(c) => c.to_string(),
            c => format!("={:02X}", u32::from(c)),
        })
        .collect();
    if escaped == username || username.contains('=') { vec![escaped] } else { vec![username.to_owned(), escaped] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_values_stand_as_they_are() {
        for value in ["s3cret", "pä ßwörd", "it's", "a\"b", "%{User-Name}", " lead", "20M/100M"] {
            assert_eq!(value_text(value), value);
        }
    }

    #[test]
    fn values_that_would_be_read_otherwise_are_escaped() {
        for (value, text) in
            [("a\\b", "a\\\\b"), ("'abc'", "'\\'abc\\''"), ("`id`", "'`id`'"), ("\"\\\"", "'\"\\\\\"'")]
        {
            assert_eq!(value_text(value), text);
        }
    }

    #[test]
    fn user_is_found_under_the_name_and_under_its_escaped_spelling() {
        assert_eq!(lookup_names("ada@acme"), ["ada@acme"]);
        assert_eq!(lookup_names("pä@acme"), ["pä@acme"]);
        assert_eq!(lookup_names("ada+tv@acme"), ["ada+tv@acme", "ada=2Btv@acme"]);
        assert_eq!(lookup_names("o'neil"), ["o'neil", "o=27neil"]);
        assert_eq!(lookup_names("o=27neil"), ["o=3D27neil"]);
    }
}
