//! The mail host's tables as PostfixAdmin lays them out, which Postfix and Dovecot read: one mailbox with its aliases
//! and forwards goes in, in one transaction, or comes out.
//!
//! What the rows mean to them: a row of `mailbox` is a login; a row of `alias` whose address is a mailbox says where its
//! mail goes (`goto`: itself, and the forwards); every other row of `alias` is another name. When a mailbox is
//! suspended its alias rows are inactive too: with `mailbox.active` alone Postfix would still take the mail in through
//! the alias and then have to bounce what Dovecot refuses, to senders that may be forged. So a suspended address is
//! refused in the SMTP dialogue (550), and what the mailbox holds stays. Domains are added, never removed.
//!
//! Which aliases are ours stands in `lastmile_alias` beside them, so that rows made by hand are never touched; and of
//! which password the hash was made, in `lastmile_mailbox`, so that it is hashed anew only when it changed.

use super::{Foreign, ForeignTx, Schema, on_foreign};
use crate::store::StoreError;

/// The mail host's database; cheap to clone.
#[derive(Debug, Clone)]
pub struct MailDatabase(Foreign);

/// One mailbox as it must stand in the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxRow {
    /// `local@domain`, lower case.
    pub address: String,
    /// Whether it can log in and receive.
    pub active: bool,
    /// 0: no limit.
    pub quota_bytes: i64,
    pub aliases: Vec<String>,
    /// Copies go there; the mailbox keeps its own.
    pub forward_to: Vec<String>,
    /// Tells which password it is: the keyed hash of the secret, or a word of ours for "none".
    pub password_digest: String,
    /// `{SCHEME}hash`; `None` keeps the one that stands there, if it was made for the same digest.
    pub password: Option<String>,
}

/// What became of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    Written,
    /// Nothing was written: the password was to be kept, and another one or none stands there.
    PasswordNeeded,
    /// Nothing was written: the address is an alias of another of our mailboxes, which may be giving it up just now.
    HeldBy(String),
    /// Nothing was written: somebody else made `address` an alias with another destination.
    Taken {
        address: String,
    },
}

/// PostfixAdmin 3.3's tables as far as mail is concerned, with its names and defaults, and our own list of aliases.
static SCHEMA: Schema = Schema {
    landmark: "lastmile_mailbox",
    sqlite: &[
        "CREATE TABLE IF NOT EXISTS domain (
            domain VARCHAR(255) NOT NULL PRIMARY KEY,
            description VARCHAR(255) NOT NULL DEFAULT '',
            aliases INT NOT NULL DEFAULT 0,
            mailboxes INT NOT NULL DEFAULT 0,
            maxquota BIGINT NOT NULL DEFAULT 0,
            quota BIGINT NOT NULL DEFAULT 0,
            transport VARCHAR(255) NOT NULL DEFAULT 'virtual',
            backupmx TINYINT(1) NOT NULL DEFAULT 0,
            created DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
            modified DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
            active TINYINT(1) NOT NULL DEFAULT 1,
            password_expiry INT DEFAULT 0
        )",
        "CREATE TABLE IF NOT EXISTS mailbox (
            username VARCHAR(255) NOT NULL PRIMARY KEY,
            password VARCHAR(255) NOT NULL,
            name VARCHAR(255) NOT NULL DEFAULT '',
            maildir VARCHAR(255) NOT NULL,
            quota BIGINT NOT NULL DEFAULT 0,
            local_part VARCHAR(255) NOT NULL,
            domain VARCHAR(255) NOT NULL,
            created DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
            modified DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
            active TINYINT(1) NOT NULL DEFAULT 1,
            phone VARCHAR(30) NOT NULL DEFAULT '',
            email_other VARCHAR(255) NOT NULL DEFAULT '',
            token VARCHAR(255) NOT NULL DEFAULT '',
            token_validity DATETIME NOT NULL DEFAULT '2000-01-01 00:00:00',
            password_expiry DATETIME NOT NULL DEFAULT '2000-01-01 00:00:00'
        )",
        "CREATE TABLE IF NOT EXISTS alias (
            address VARCHAR(255) NOT NULL PRIMARY KEY,
            goto TEXT NOT NULL,
            domain VARCHAR(255) NOT NULL,
            created DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
            modified DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
            active TINYINT(1) NOT NULL DEFAULT 1
        )",
        "CREATE TABLE IF NOT EXISTS alias_domain (
            alias_domain VARCHAR(255) NOT NULL PRIMARY KEY,
            target_domain VARCHAR(255) NOT NULL,
            created DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
            modified DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
            active TINYINT(1) NOT NULL DEFAULT 1
        )",
        "CREATE TABLE IF NOT EXISTS quota2 (
            username VARCHAR(255) NOT NULL PRIMARY KEY,
            bytes BIGINT NOT NULL DEFAULT 0,
            messages INT NOT NULL DEFAULT 0
        )",
        "CREATE TABLE IF NOT EXISTS lastmile_alias (
            address VARCHAR(255) NOT NULL PRIMARY KEY,
            mailbox VARCHAR(255) NOT NULL
        )",
        "CREATE TABLE IF NOT EXISTS lastmile_mailbox (
            username VARCHAR(255) NOT NULL PRIMARY KEY,
            password_digest VARCHAR(255) NOT NULL
        )",
    ],
    postgres: &[
        "CREATE TABLE IF NOT EXISTS domain (
            domain VARCHAR(255) NOT NULL PRIMARY KEY,
            description VARCHAR(255) NOT NULL DEFAULT '',
            aliases INT NOT NULL DEFAULT 0,
            mailboxes INT NOT NULL DEFAULT 0,
            maxquota BIGINT NOT NULL DEFAULT 0,
            quota BIGINT NOT NULL DEFAULT 0,
            transport VARCHAR(255) NOT NULL DEFAULT 'virtual',
            backupmx BOOLEAN NOT NULL DEFAULT FALSE,
            created TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
            modified TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
            active BOOLEAN NOT NULL DEFAULT TRUE,
            password_expiry INT DEFAULT 0
        )",
        "CREATE TABLE IF NOT EXISTS mailbox (
            username VARCHAR(255) NOT NULL PRIMARY KEY,
            password VARCHAR(255) NOT NULL,
            name VARCHAR(255) NOT NULL DEFAULT '',
            maildir VARCHAR(255) NOT NULL,
            quota BIGINT NOT NULL DEFAULT 0,
            local_part VARCHAR(255) NOT NULL,
            domain VARCHAR(255) NOT NULL REFERENCES domain (domain),
            created TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
            modified TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
            active BOOLEAN NOT NULL DEFAULT TRUE,
            phone VARCHAR(30) NOT NULL DEFAULT '',
            email_other VARCHAR(255) NOT NULL DEFAULT '',
            token VARCHAR(255) NOT NULL DEFAULT '',
            token_validity TIMESTAMPTZ NOT NULL DEFAULT '2000-01-01 00:00:00+00',
            password_expiry TIMESTAMPTZ NOT NULL DEFAULT '2000-01-01 00:00:00+00'
        )",
        "CREATE TABLE IF NOT EXISTS alias (
            address VARCHAR(255) NOT NULL PRIMARY KEY,
            goto TEXT NOT NULL,
            domain VARCHAR(255) NOT NULL REFERENCES domain (domain),
            created TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
            modified TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
            active BOOLEAN NOT NULL DEFAULT TRUE
        )",
        "CREATE TABLE IF NOT EXISTS alias_domain (
            alias_domain VARCHAR(255) NOT NULL PRIMARY KEY,
            target_domain VARCHAR(255) NOT NULL REFERENCES domain (domain),
            created TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
            modified TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
            active BOOLEAN NOT NULL DEFAULT TRUE
        )",
        "CREATE TABLE IF NOT EXISTS quota2 (
            username VARCHAR(255) NOT NULL PRIMARY KEY,
            bytes BIGINT NOT NULL DEFAULT 0,
            messages INT NOT NULL DEFAULT 0
        )",
        "CREATE TABLE IF NOT EXISTS lastmile_alias (
            address VARCHAR(255) NOT NULL PRIMARY KEY,
            mailbox VARCHAR(255) NOT NULL
        )",
        "CREATE TABLE IF NOT EXISTS lastmile_mailbox (
            username VARCHAR(255) NOT NULL PRIMARY KEY,
            password_digest VARCHAR(255) NOT NULL
        )",
    ],
};

// Real PostfixAdmin tables on SQLite lack some defaults, so that every column of mail's is written.
const ADD_DOMAIN: &str = "INSERT INTO domain
         (domain, description, aliases, mailboxes, maxquota, quota, transport, backupmx, created, modified, active)
     VALUES ($1, '', 0, 0, 0, 0, 'virtual', $2, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, $3)
     ON CONFLICT (domain) DO NOTHING";
const STORED_PASSWORD: &str = "SELECT password FROM mailbox WHERE username = $1";
const PASSWORD_OF: &str = "SELECT mailbox.password FROM mailbox
     JOIN lastmile_mailbox ON lastmile_mailbox.username = mailbox.username
     WHERE mailbox.username = $1 AND lastmile_mailbox.password_digest = $2 AND mailbox.password <> ''";
const PUT_DIGEST: &str = "INSERT INTO lastmile_mailbox (username, password_digest) VALUES ($1, $2)
     ON CONFLICT (username) DO UPDATE SET password_digest = excluded.password_digest";
const DELETE_DIGEST: &str = "DELETE FROM lastmile_mailbox WHERE username = $1";
const PUT_MAILBOX: &str = "INSERT INTO mailbox
         (username, password, name, maildir, quota, local_part, domain, created, modified, active)
     VALUES ($1, $2, '', $3, $4, $5, $6, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, $7)
     ON CONFLICT (username) DO UPDATE
     SET password = excluded.password, quota = excluded.quota, active = excluded.active,
         modified = excluded.modified";
const PUT_ALIAS: &str = "INSERT INTO alias (address, goto, domain, created, modified, active)
     VALUES ($1, $2, $3, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, $4)
     ON CONFLICT (address) DO UPDATE
     SET goto = excluded.goto, active = excluded.active, modified = excluded.modified";
const GOTO_OF: &str = "SELECT goto FROM alias WHERE address = $1";
const OWNER_OF: &str = "SELECT mailbox FROM lastmile_alias WHERE address = $1";
const OWNED_BY: &str = "SELECT address FROM lastmile_alias WHERE mailbox = $1 ORDER BY address LIMIT 10000";
const OWN: &str = "INSERT INTO lastmile_alias (address, mailbox) VALUES ($1, $2) ON CONFLICT (address) DO NOTHING";
const DISOWN: &str = "DELETE FROM lastmile_alias WHERE address = $1";
const DELETE_ALIAS: &str = "DELETE FROM alias WHERE address = $1";
const DELETE_MAILBOX: &str = "DELETE FROM mailbox WHERE username = $1";
const DELETE_QUOTA: &str = "DELETE FROM quota2 WHERE username = $1";

impl MailDatabase {
    /// The database behind a URL; nothing is connected yet.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Foreign::open(url, &SCHEMA).map(Self)
    }

    /// Makes file and tables where they are missing.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.0.prepare().await
    }

    /// Brings a mailbox with all its aliases and forwards to what `row` says, or writes nothing and says why.
    pub async fn put(&self, row: &MailboxRow) -> Result<Put, StoreError> {
        let mut tx = self.0.begin().await?;
        let standing: Option<String> = on_foreign!(&mut tx, c => sqlx::query_scalar(PASSWORD_OF)
            .bind(&row.address)
            .bind(&row.password_digest)
            .fetch_optional(&mut *c)
            .await)?;
        let Some(password) = row.password.clone().or(standing) else {
            return Ok(Put::PasswordNeeded);
        };
        if let Some(refusal) = refusal(&mut tx, row).await? {
            return Ok(refusal);
        }
        let (local_part, domain) = split(&row.address);
        for address in std::iter::once(&row.address).chain(&row.aliases) {
            on_foreign!(&mut tx, c => sqlx::query(ADD_DOMAIN)
                .bind(split(address).1)
                .bind(false)
                .bind(true)
                .execute(&mut *c)
                .await.map(drop))?;
        }
        on_foreign!(&mut tx, c => sqlx::query(PUT_MAILBOX)
            .bind(&row.address)
            .bind(&password)
            .bind(format!("{domain}/{local_part}/"))
            .bind(row.quota_bytes)
            .bind(local_part)
            .bind(domain)
            .bind(row.active)
            .execute(&mut *c)
            .await.map(drop))?;
        on_foreign!(&mut tx, c => sqlx::query(PUT_DIGEST)
            .bind(&row.address)
            .bind(&row.password_digest)
            .execute(&mut *c)
            .await.map(drop))?;
        put_alias(&mut tx, &row.address, &destinations(row), row.active).await?;
        for alias in &row.aliases {
            put_alias(&mut tx, alias, &row.address, row.active).await?;
            on_foreign!(&mut tx, c => sqlx::query(OWN)
                .bind(alias)
                .bind(&row.address)
                .execute(&mut *c)
                .await.map(drop))?;
        }
        for alias in owned(&mut tx, &row.address).await? {
            if !row.aliases.contains(&alias) {
                drop_alias(&mut tx, &alias).await?;
            }
        }
        tx.commit().await?;
        Ok(Put::Written)
    }

    /// The stored hash of a mailbox's password; `None` when there is no such mailbox.
    pub async fn password(&self, address: &str) -> Result<Option<String>, StoreError> {
        let mut tx = self.0.begin().await?;
        let found =
            on_foreign!(&mut tx, c => sqlx::query_scalar(STORED_PASSWORD).bind(address).fetch_optional(&mut *c).await)?;
        tx.commit().await?;
        Ok(found)
    }

    /// Removes the rows of a mailbox and its aliases; the mail on disk is the mail host's to remove. Safe to repeat.
    pub async fn remove(&self, address: &str) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        for alias in owned(&mut tx, address).await? {
            drop_alias(&mut tx, &alias).await?;
        }
        for statement in [DELETE_ALIAS, DELETE_MAILBOX, DELETE_QUOTA, DELETE_DIGEST] {
            on_foreign!(&mut tx, c => sqlx::query(statement).bind(address).execute(&mut *c).await.map(drop))?;
        }
        tx.commit().await
    }
}

/// Why `row` must not be written over what others put there.
async fn refusal(tx: &mut ForeignTx, row: &MailboxRow) -> Result<Option<Put>, StoreError> {
    if let Some(holder) = owner(tx, &row.address).await? {
        return Ok(Some(Put::HeldBy(holder)));
    }
    for alias in &row.aliases {
        match owner(tx, alias).await? {
            Some(holder) if holder == row.address => {}
            Some(holder) => return Ok(Some(Put::HeldBy(holder))),
            None => {
                let goto: Option<String> =
                    on_foreign!(tx, c => sqlx::query_scalar(GOTO_OF).bind(alias).fetch_optional(&mut *c).await)?;
                if goto.is_some_and(|goto| goto != row.address) {
                    return Ok(Some(Put::Taken { address: alias.clone() }));
                }
            }
        }
    }
    Ok(None)
}

async fn owner(tx: &mut ForeignTx, alias: &str) -> Result<Option<String>, StoreError> {
    Ok(on_foreign!(tx, c => sqlx::query_scalar(OWNER_OF).bind(alias).fetch_optional(&mut *c).await)?)
}

async fn owned(tx: &mut ForeignTx, mailbox: &str) -> Result<Vec<String>, StoreError> {
    Ok(on_foreign!(tx, c => sqlx::query_scalar(OWNED_BY).bind(mailbox).fetch_all(&mut *c).await)?)
}

async fn put_alias(tx: &mut ForeignTx, address: &str, goto: &str, active: bool) -> Result<(), StoreError> {
    on_foreign!(tx, c => sqlx::query(PUT_ALIAS)
        .bind(address)
        .bind(goto)
        .bind(split(address).1)
        .bind(active)
        .execute(&mut *c)
        .await.map(drop))?;
    Ok(())
}

async fn drop_alias(tx: &mut ForeignTx, address: &str) -> Result<(), StoreError> {
    for statement in [DELETE_ALIAS, DISOWN] {
        on_foreign!(tx, c => sqlx::query(statement).bind(address).execute(&mut *c).await.map(drop))?;
    }
    Ok(())
}

/// Where a mailbox's mail goes: to itself first, then to each forward once.
fn destinations(row: &MailboxRow) -> String {
    let mut all = vec![row.address.as_str()];
    for forward in &row.forward_to {
        if !all.contains(&forward.as_str()) {
            all.push(forward);
        }
    }
    all.join(",")
}

fn split(address: &str) -> (&str, &str) {
    address.rsplit_once('@').unwrap_or((address, ""))
}
