//! FreeRADIUS's standard tables (`radcheck`, `radreply`, `radusergroup`): all rows of one user go in, in one
//! transaction, or come out, and can be looked at. What the groups say (`radgroupcheck`, `radgroupreply`) belongs to
//! whoever runs FreeRADIUS; it is only read.
//!
//! Of which password a crypt hash was made stands in `lastmile_login` beside them, so that it is made anew only when the
//! password changed, and so that a hash that somebody else put there is noticed.
//!
//! Two habits of its `rlm_sql`, tried against 3.2.1, are met here. It reads the value column as text with backslash
//! escapes, and a value that begins and ends with the same quote as a quoted one (in backquotes it would even be
//! *run*): `value_text` writes values so that they are read back unchanged. And it looks names up after replacing every
//! ASCII character it thinks unsafe by `=XX`, unless `auto_escape` is set: `lookup_names` gives the spellings under
//! which a user is found either way.

use std::collections::{BTreeMap, BTreeSet};

use super::{Foreign, ForeignTx, Schema, on_foreign};
use crate::store::StoreError;
use crate::vocabulary::Secret;

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

/// Everything that must stand under one username.
#[derive(Debug, Clone)]
pub struct UserRows {
    pub username: String,
    /// Without the password's row.
    pub check: Vec<AttributeRow>,
    pub password: Password,
    pub reply: Vec<AttributeRow>,
    /// Groups in the order of their priority.
    pub groups: Vec<String>,
}

/// How a user's password stands in `radcheck`.
#[derive(Debug, Clone)]
pub enum Password {
    /// None is known: nobody can log in.
    Missing,
    /// In clear, for CHAP.
    Clear(Secret),
    /// As a crypt(3) hash; `digest` tells of which password. `hash: None` keeps the one made for the same digest.
    Crypt { digest: String, hash: Option<String> },
}

/// What became of a user's rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Put {
    Written(Replaced),
    /// Nothing was written: the hash was to be kept, and one of another password or none stands there.
    HashNeeded,
}

/// What stood under a username before it was changed, and what the tables say of the groups it was and is in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replaced {
    pub before: Standing,
    pub groups: BTreeMap<String, GroupRows>,
}

/// What stands under one username, as FreeRADIUS reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    pub check: Vec<FoundRow>,
    pub reply: Vec<FoundRow>,
    /// In the order of their priority.
    pub groups: Vec<String>,
    /// The (digest, hash) of the crypt hash that we put there last.
    pub remembered: Option<(String, String)>,
}

/// A row as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRow {
    pub attribute: String,
    pub op: String,
    /// Unescaped, as the attribute is.
    pub value: String,
}

/// What the tables say of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupRows {
    /// Whether any row names it; a group without rows restricts nothing.
    pub exists: bool,
    pub reply: Vec<FoundRow>,
}

/// The tables `rlm_sql` asks when it authorizes, and the one it logs logins to; and ours. Accounting comes to us, not to
/// `radacct`.
static SCHEMA: Schema = Schema {
    landmark: "lastmile_login",
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
        LOGINS,
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
        LOGINS,
    ],
};

const LOGINS: &str = "CREATE TABLE IF NOT EXISTS lastmile_login (
    username VARCHAR(253) NOT NULL PRIMARY KEY, password_digest VARCHAR(255) NOT NULL, hash VARCHAR(255) NOT NULL)";

const CHECK_OF: &str = "SELECT attribute, op, value FROM radcheck WHERE username = $1 ORDER BY id LIMIT 100";
const REPLY_OF: &str = "SELECT attribute, op, value FROM radreply WHERE username = $1 ORDER BY id LIMIT 100";
const GROUPS_OF: &str = "SELECT groupname FROM radusergroup WHERE username = $1 ORDER BY priority, groupname LIMIT 100";
const REPLY_OF_GROUP: &str =
    "SELECT attribute, op, value FROM radgroupreply WHERE groupname = $1 ORDER BY id LIMIT 100";
const CHECKS_OF_GROUP: &str = "SELECT COUNT(*) FROM radgroupcheck WHERE groupname = $1";
const REMEMBERED: &str = "SELECT password_digest, hash FROM lastmile_login WHERE username = $1";
const REMEMBER: &str = "INSERT INTO lastmile_login (username, password_digest, hash) VALUES ($1, $2, $3)
     ON CONFLICT (username) DO UPDATE SET password_digest = excluded.password_digest, hash = excluded.hash";
const FORGET: &str = "DELETE FROM lastmile_login WHERE username = $1";
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
    pub async fn put(&self, user: &UserRows) -> Result<Put, StoreError> {
        let mut tx = self.0.begin().await?;
        let before = standing(&mut tx, &user.username).await?;
        let password = match &user.password {
            Password::Missing => None,
            Password::Clear(secret) => Some(("Cleartext-Password", secret.expose())),
            Password::Crypt { hash: Some(hash), .. } => Some(("Crypt-Password", hash.as_str())),
            Password::Crypt { digest, hash: None } => match &before.remembered {
                Some((made_for, hash)) if made_for == digest => Some(("Crypt-Password", hash.as_str())),
                _ => return Ok(Put::HashNeeded),
            },
        };
        for name in lookup_names(&user.username) {
            delete(&mut tx, &name).await?;
            for row in &user.check {
                insert(&mut tx, INSERT_CHECK, &name, (&row.attribute, row.op, &row.value)).await?;
            }
            if let Some((attribute, value)) = password {
                insert(&mut tx, INSERT_CHECK, &name, (attribute, ":=", value)).await?;
            }
            for row in &user.reply {
                insert(&mut tx, INSERT_REPLY, &name, (&row.attribute, row.op, &row.value)).await?;
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
        match (&user.password, password) {
            (Password::Crypt { digest, .. }, Some((_, hash))) => {
                on_foreign!(&mut tx, c => sqlx::query(REMEMBER)
                    .bind(&user.username)
                    .bind(digest)
                    .bind(hash)
                    .execute(&mut *c)
                    .await.map(drop))?;
            }
            _ => forget(&mut tx, &user.username).await?,
        }
        let groups = groups(&mut tx, before.groups.iter().chain(&user.groups)).await?;
        tx.commit().await?;
        Ok(Put::Written(Replaced { before, groups }))
    }

    /// What stands under a username, once a spelling under which FreeRADIUS may look it up.
    pub async fn standings(&self, username: &str) -> Result<Vec<Standing>, StoreError> {
        let mut tx = self.0.begin().await?;
        let remembered = remembered(&mut tx, username).await?;
        let mut found = Vec::new();
        for name in lookup_names(username) {
            found.push(Standing { remembered: remembered.clone(), ..rows_of(&mut tx, &name).await? });
        }
        tx.commit().await?;
        Ok(found)
    }

    /// What a user's login is checked by: (attribute, operator, value).
    pub async fn checked_by(&self, username: &str) -> Result<Vec<(String, String, String)>, StoreError> {
        let mut tx = self.0.begin().await?;
        let rows = on_foreign!(&mut tx, c => sqlx::query_as(CHECK_OF).bind(username).fetch_all(&mut *c).await)?;
        tx.commit().await?;
        Ok(rows)
    }

    /// Removes all rows of a user, and says what they were. Safe to repeat.
    pub async fn remove(&self, username: &str) -> Result<Replaced, StoreError> {
        let mut tx = self.0.begin().await?;
        let before = standing(&mut tx, username).await?;
        for name in lookup_names(username) {
            delete(&mut tx, &name).await?;
        }
        forget(&mut tx, username).await?;
        let groups = groups(&mut tx, before.groups.iter()).await?;
        tx.commit().await?;
        Ok(Replaced { before, groups })
    }
}

impl Standing {
    pub fn is_empty(&self) -> bool {
        self.check.is_empty() && self.reply.is_empty() && self.groups.is_empty()
    }
}

/// What stands under the first spelling of a name that has rows.
async fn standing(tx: &mut ForeignTx, username: &str) -> Result<Standing, StoreError> {
    let remembered = remembered(tx, username).await?;
    for name in lookup_names(username) {
        let rows = rows_of(tx, &name).await?;
        if !rows.is_empty() {
            return Ok(Standing { remembered, ..rows });
        }
    }
    Ok(Standing { remembered, ..Standing::default() })
}

async fn rows_of(tx: &mut ForeignTx, name: &str) -> Result<Standing, StoreError> {
    let groups = on_foreign!(tx, c => sqlx::query_scalar(GROUPS_OF).bind(name).fetch_all(&mut *c).await)?;
    let check = found(tx, CHECK_OF, name).await?;
    let reply = found(tx, REPLY_OF, name).await?;
    Ok(Standing { check, reply, groups, remembered: None })
}

async fn groups(
    tx: &mut ForeignTx,
    names: impl Iterator<Item = &String>,
) -> Result<BTreeMap<String, GroupRows>, StoreError> {
    let mut groups = BTreeMap::new();
    for name in names.collect::<BTreeSet<_>>() {
        let reply = found(tx, REPLY_OF_GROUP, name).await?;
        let checks: i64 =
            on_foreign!(tx, c => sqlx::query_scalar(CHECKS_OF_GROUP).bind(name).fetch_one(&mut *c).await)?;
        groups.insert(name.clone(), GroupRows { exists: checks > 0 || !reply.is_empty(), reply });
    }
    Ok(groups)
}

async fn remembered(tx: &mut ForeignTx, username: &str) -> Result<Option<(String, String)>, StoreError> {
    Ok(on_foreign!(tx, c => sqlx::query_as(REMEMBERED).bind(username).fetch_optional(&mut *c).await)?)
}

async fn forget(tx: &mut ForeignTx, username: &str) -> Result<(), StoreError> {
    on_foreign!(tx, c => sqlx::query(FORGET).bind(username).execute(&mut *c).await.map(drop))?;
    Ok(())
}

async fn found(tx: &mut ForeignTx, statement: &'static str, name: &str) -> Result<Vec<FoundRow>, StoreError> {
    let rows: Vec<(String, String, String)> =
        on_foreign!(tx, c => sqlx::query_as(statement).bind(name).fetch_all(&mut *c).await)?;
    Ok(rows
        .into_iter()
        .map(|(attribute, op, text)| FoundRow { attribute, op: op.trim().to_owned(), value: value_of(&text) })
        .collect())
}

async fn delete(tx: &mut ForeignTx, name: &str) -> Result<(), StoreError> {
    for statement in [DELETE_CHECK, DELETE_REPLY, DELETE_GROUPS] {
        on_foreign!(tx, c => sqlx::query(statement).bind(name).execute(&mut *c).await.map(drop))?;
    }
    Ok(())
}

async fn insert(
    tx: &mut ForeignTx,
    statement: &'static str,
    name: &str,
    (attribute, op, value): (&str, &str, &str),
) -> Result<(), StoreError> {
    on_foreign!(tx, c => sqlx::query(statement)
        .bind(name)
        .bind(attribute)
        .bind(op)
        .bind(value_text(value))
        .execute(&mut *c)
        .await.map(drop))?;
    Ok(())
}

/// What `rlm_sql` reads from the text of a value column: quotes around it are taken off, backslash escapes undone.
fn value_of(text: &str) -> String {
    let bounded = text.len() >= 2 && matches!(text.chars().next(), Some('\'' | '"' | '`'));
    let inner = if bounded && text.chars().next() == text.chars().last() { &text[1..text.len() - 1] } else { text };
    let mut value = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(escaped) => value.push(escaped),
                None => value.push('\\'),
            },
            letter => value.push(letter),
        }
    }
    value
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
    fn what_is_written_is_read_back() {
        for value in ["s3cret", "a\\b", "'abc'", "`id`", "\"\\\"", "'", "", "it's", "\\", "$6$salt$hash/."] {
            assert_eq!(value_of(&value_text(value)), value);
        }
        assert_eq!(value_of("\"two\\nlines\""), "two\nlines");
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
