//! The mail host's tables as PostfixAdmin lays them out, which Postfix and Dovecot read: one mailbox with its aliases
//! and forwards goes in, in one transaction, or comes out.
//!
//! What the rows mean to them: a row of `mailbox` is a login; a row of `alias` whose address is a mailbox says where its
//! mail goes (`goto`: itself, and the forwards); every other row of `alias` is another name. A mailbox that is shut is
//! inactive, and so are its alias rows: with `mailbox.active` alone Postfix would still take the mail in through the
//! alias and then have to bounce what Dovecot refuses, to senders that may be forged. A mailbox that is locked takes
//! mail and lets nobody in: its rows are active, and what stands before its password hash fits no password (as
//! `passwd -l` does it), so that the lookups of every PostfixAdmin guide do what they should. Domains are added, never
//! removed.
//!
//! Whose mailbox a row is stands in `lastmile_mailbox`, so that a changed address keeps its mail and nobody inherits a
//! predecessor's; which aliases are ours in `lastmile_alias`, so that rows made by hand are never touched; and which
//! folders are left behind in `lastmile_maildir`.

mod drift;
mod map;
mod rows;
mod schema;
mod tables;

use std::sync::{Arc, Mutex};

use super::{Foreign, ForeignTx, NO_SCHEMA, Place};
use crate::store::StoreError;
pub use map::{Constant, MailMap, MailTable, Role};
use tables::Statements;

/// The mail host's database; cheap to clone.
#[derive(Debug, Clone)]
pub struct MailDatabase {
    base: Foreign,
    map: Arc<MailMap>,
    /// PostgreSQL: what was learnt of the tables, until one of them answers otherwise.
    learnt: Arc<Mutex<Option<Arc<Statements>>>>,
}

/// Who may do what with a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Logs in and receives.
    Open,
    /// Receives, and nobody logs in.
    Locked,
    /// Neither; senders are told.
    Shut,
}

/// Whose a mailbox is: one service of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub tenant: String,
    pub account_id: i64,
    /// External id of the service.
    pub service: String,
}

/// One mailbox as it must stand in the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxRow {
    pub owner: Owner,
    /// `local@domain`, lower case.
    pub address: String,
    pub access: Access,
    /// 0: no limit.
    pub quota_bytes: i64,
    pub aliases: Vec<String>,
    /// Where mail goes besides, or instead.
    pub forward_to: Vec<String>,
    /// Whether the mailbox keeps what is forwarded.
    pub keep_copy: bool,
    /// Tells which password it is: the keyed hash of the secret, or a word of ours for "none".
    pub password_digest: String,
    /// `{SCHEME}hash`; `None` keeps the one that stands there, if it was made for the same digest.
    pub password: Option<String>,
}

/// What goes along with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Microseconds since 1970.
    pub now: i64,
    /// Until when a former address leads to the new one; not after `now`: not at all.
    pub former_until: i64,
    /// When the folder of a mailbox that is put aside may be removed.
    pub remove_at: i64,
    pub left: Left,
    /// Whether sessions are to be ended when the rows do not end them: somebody will do it.
    pub kick: bool,
}

/// What becomes of a mailbox of the same address that another account left, rows and mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing is written, and the caller is asked.
    Ask,
    /// It is put aside: the new mailbox is empty.
    Retire,
    /// The new owner gets it with its mail.
    Inherit,
}

/// What became of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    Written(Written),
    /// Nothing was written: the password was to be kept, and another one or none stands there.
    PasswordNeeded,
    /// Nothing was written: another account left a mailbox of this address, with mail in it.
    LeftByOther,
    /// Nothing was written: the address is an alias of another of our mailboxes, which may be giving it up just now.
    HeldBy(String),
    /// Nothing was written: somebody else made `address` an alias with another destination.
    Taken {
        address: String,
    },
}

/// What a change did besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// The address it had before.
    pub renamed_from: Option<String>,
    /// The address whose sessions wait to be ended.
    pub kick: Option<String>,
    /// When the next former address ends; microseconds since 1970.
    pub former_until: Option<i64>,
    /// No password is wanted, and one is there that is not taken away: somebody else's, or from before the close.
    pub unnamed_password: bool,
}

/// A mailbox whose owner left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// It is shut; its rows and mail are still there.
    Shut { kick: Option<String> },
    /// There is no row of ours, or it belongs to another account by now.
    NotThere,
}

/// What stands in the tables for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub access: Access,
    pub quota_bytes: Option<i64>,
    pub maildir: String,
    /// Of which password the hash was made; `None`: not by us.
    pub password_digest: Option<String>,
    /// As it was written by us; empty in rows of older versions.
    pub owner: String,
    /// Where mail for the address goes; `None`: there is no alias row, or it is inactive.
    pub goto: Option<Vec<String>>,
    pub aliases: Vec<StandingAlias>,
}

/// One of our aliases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingAlias {
    pub address: String,
    /// Where it leads; `None`: its row is missing or inactive.
    pub goto: Option<String>,
    /// Whether it is a former address of the mailbox, which leads there for a while.
    pub former: bool,
}

/// A folder whose mailbox is gone.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LeftMaildir {
    pub maildir: String,
    pub address: String,
    /// `tenant/account row/service`.
    pub owner: String,
    /// Microseconds since 1970.
    pub left_at: i64,
    /// From when on it may be removed.
    pub remove_at: i64,
}

/// Stands for the digest of a mailbox without a password.
pub const NO_PASSWORD: &str = "none";

impl MailDatabase {
    /// The database behind a URL; nothing is connected yet.
    pub fn open(url: &str, map: MailMap) -> Result<Self, StoreError> {
        Ok(Self { base: Foreign::open(url, &NO_SCHEMA)?, map: Arc::new(map), learnt: Arc::default() })
    }

    /// Looks whether the tables are as the map says, and makes what may be made.
    ///
    /// **Errors**: `Configuration` names every table, column and right that is missing.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.forget();
        let (tx, _) = self.begin().await?;
        tx.commit().await
    }

    /// What a database administrator runs where the daemon's user may not create tables; PostgreSQL.
    pub fn sql_of_ours(user: &str) -> String {
        let table = |(name, statement)| {
            format!("{};\nGRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {user};\n", tidy(statement))
        };
        let tables = schema::OURS.map(table);
        let theirs = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON domain, mailbox, alias, quota2 TO {user};\n");
        tables.concat() + &theirs
    }

    /// Brings a mailbox with all its aliases and forwards to what `row` says, or writes nothing and says why.
    pub async fn put(&self, row: &MailboxRow, terms: Terms) -> Result<Put, StoreError> {
        let (mut tx, statements) = self.begin().await?;
        let put = self.noted(rows::put(&mut tx, &statements, row, terms).await)?;
        if matches!(put, Put::Written(_)) {
            tx.commit().await?;
        }
        Ok(put)
    }

    /// Shuts a mailbox that `owner`'s account left and drops its aliases; rows and mail stay.
    pub async fn close(&self, address: &str, owner: &Owner, kick: bool) -> Result<Closed, StoreError> {
        let (mut tx, statements) = self.begin().await?;
        let closed = self.noted(rows::close(&mut tx, &statements, address, owner, kick).await)?;
        tx.commit().await?;
        Ok(closed)
    }

    /// Removes the rows of a mailbox that `owner`'s account left, and notes its folder. Safe to repeat.
    pub async fn remove(&self, address: &str, owner: &Owner, now: i64) -> Result<(), StoreError> {
        let (mut tx, statements) = self.begin().await?;
        self.noted(rows::remove(&mut tx, &statements, address, owner, now).await)?;
        tx.commit().await
    }

    /// Notes that the sessions of a former state of `address` are ended.
    pub async fn kicked(&self, address: &str) -> Result<(), StoreError> {
        let (mut tx, _) = self.begin().await?;
        self.noted(rows::kicked(&mut tx, address).await)?;
        tx.commit().await
    }

    /// What stands there for an address; `None`: no mailbox.
    pub async fn standing(&self, address: &str) -> Result<Option<Standing>, StoreError> {
        let (mut tx, statements) = self.begin().await?;
        let standing = self.noted(rows::standing(&mut tx, &statements, address).await)?;
        tx.commit().await?;
        Ok(standing)
    }

    /// The stored hash of a mailbox's password; `None` when there is no such mailbox.
    pub async fn password(&self, address: &str) -> Result<Option<String>, StoreError> {
        let (mut tx, statements) = self.begin().await?;
        let found = self.noted(rows::password(&mut tx, &statements, address).await)?;
        tx.commit().await?;
        Ok(found)
    }

    /// The address at which a mailbox of `owner` stands.
    pub async fn address_of(&self, owner: &Owner) -> Result<Option<String>, StoreError> {
        let (mut tx, _) = self.begin().await?;
        let address = self.noted(rows::address_of(&mut tx, owner).await)?;
        tx.commit().await?;
        Ok(address)
    }

    /// Folders whose mailbox is gone, the oldest first.
    pub async fn left_maildirs(&self) -> Result<Vec<LeftMaildir>, StoreError> {
        let (mut tx, _) = self.begin().await?;
        let left = self.noted(rows::left_maildirs(&mut tx).await)?;
        tx.commit().await?;
        Ok(left)
    }

    /// Forgets a folder that was removed from the disk. `false`: it was not in the list.
    pub async fn maildir_removed(&self, maildir: &str) -> Result<bool, StoreError> {
        let (mut tx, _) = self.begin().await?;
        let removed = self.noted(rows::forget_maildir(&mut tx, maildir).await)?;
        tx.commit().await?;
        Ok(removed)
    }

    async fn begin(&self) -> Result<(ForeignTx, Arc<Statements>), StoreError> {
        let mut tx = self.base.begin().await?;
        if let Some(known) = self.known() {
            return Ok((tx, known));
        }
        let statements = Arc::new(tables::learn(&mut tx, &self.map).await?);
        // A SQLite file may be replaced at any time, and looking at its tables costs less than the commit's fsync. On
        // PostgreSQL the tables made here are there only after this transaction; another learns them again till then.
        if let Place::Postgres(_) = self.base.inner.place {
            tx.commit().await?;
            tx = self.base.begin().await?;
            *self.learnt.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(statements.clone());
        }
        Ok((tx, statements))
    }

    fn known(&self) -> Option<Arc<Statements>> {
        self.learnt.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn forget(&self) {
        *self.learnt.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    /// Whatever the database refused may be because its tables changed: they are looked at again.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(result, Err(StoreError::Database(_))) {
            self.forget();
        }
        result
    }
}

impl Owner {
    /// As it stands in `lastmile_mailbox.owner`.
    fn text(&self) -> String {
        format!("{}/{}/{}", self.tenant, self.account_id, self.service)
    }

    /// Whether what stands there is the same account's.
    pub fn is_account_of(&self, text: &str) -> bool {
        text.strip_prefix(&format!("{}/{}/", self.tenant, self.account_id)).is_some()
    }
}

fn tidy(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ")
}
