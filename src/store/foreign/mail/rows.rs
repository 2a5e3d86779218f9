//! The steps inside one transaction on the mail host's tables: read what stands there, decide, write.

use super::tables::Statements;
use super::{
    Access, Closed, Left, LeftMaildir, MailboxRow, NO_PASSWORD, Owner, Put, Standing, StandingAlias, Terms, Written,
};
use crate::store::StoreError;
use crate::store::foreign::{ForeignTx, on_foreign};

/// Before a hash: crypt(3) makes no hash with such a setting, so that no password fits. What follows is kept.
const LOCK: &str = "{CRYPT}!";
/// Before the digest of a password whose mailbox was closed: with the account its secrets were forgotten, and should it
/// come back without a word about the password, the one before is meant.
const CLOSED: &str = "closed:";
/// Stands for the digest of a password that is kept although none is wanted.
pub(super) const KEPT: &str = "kept";
/// Folders of one address that are tried before it is given up.
const FOLDERS_MAX: usize = 1000;
const FOLDER_LOCK: i64 = 0x6c61_7374_6d61_696c;

const LIST_OF: &str = "SELECT password_digest, owner, kick FROM lastmile_mailbox WHERE username = $1";
const OF_OWNER: &str = "SELECT username FROM lastmile_mailbox WHERE owner = $1 ORDER BY username LIMIT 1";
const PUT_LIST: &str = "INSERT INTO lastmile_mailbox (username, password_digest, owner, kick) VALUES ($1, $2, $3, $4)
     ON CONFLICT (username) DO UPDATE
     SET password_digest = excluded.password_digest, owner = excluded.owner, kick = excluded.kick";
const DROP_LIST: &str = "DELETE FROM lastmile_mailbox WHERE username = $1";
const SET_DIGEST: &str = "UPDATE lastmile_mailbox SET password_digest = $2 WHERE username = $1";
const SET_KICK: &str = "UPDATE lastmile_mailbox SET kick = $2 WHERE username = $1";
const HOLDER_OF: &str = "SELECT mailbox, until_at FROM lastmile_alias WHERE address = $1";
const HELD_BY: &str = "SELECT address, until_at FROM lastmile_alias WHERE mailbox = $1 ORDER BY address LIMIT 10000";
const HOLD: &str = "INSERT INTO lastmile_alias (address, mailbox, until_at) VALUES ($1, $2, $3)
     ON CONFLICT (address) DO UPDATE SET mailbox = excluded.mailbox, until_at = excluded.until_at";
const DISOWN: &str = "DELETE FROM lastmile_alias WHERE address = $1";
const LEAVE_FOLDER: &str = "INSERT INTO lastmile_maildir (maildir, address, owner, left_at, remove_at)
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (maildir) DO NOTHING";
const LEFT_FOLDERS: &str = "SELECT maildir, address, owner, left_at, remove_at FROM lastmile_maildir
     ORDER BY remove_at, maildir LIMIT 100000";
const IS_LEFT: &str = "SELECT COUNT(*) FROM lastmile_maildir WHERE maildir = $1";
const FORGET_FOLDER: &str = "DELETE FROM lastmile_maildir WHERE maildir = $1";
const LOCK_FOLDERS: &str = "SELECT pg_advisory_xact_lock($1)";

/// A row of the mailbox table with ours beside it.
struct Found {
    password: String,
    maildir: String,
    quota: i64,
    active: bool,
    listed: Option<Listed>,
}

/// A row of `lastmile_mailbox`.
struct Listed {
    digest: String,
    owner: String,
    kick: String,
}

pub(super) async fn put(
    tx: &mut ForeignTx,
    statements: &Statements,
    row: &MailboxRow,
    terms: Terms,
) -> Result<Put, StoreError> {
    let owner = row.owner.text();
    let mut found = mailbox(tx, statements, &row.address).await?;
    let left_by = found.as_ref().and_then(|found| found.listed.as_ref()).map(|listed| listed.owner.clone());
    let left_by = left_by.filter(|other| !other.is_empty() && !row.owner.is_account_of(other));
    match (left_by, terms.left) {
        (None, _) | (Some(_), Left::Inherit) => {}
        (Some(_), Left::Ask) => return Ok(Put::LeftByOther),
        (Some(_), Left::Retire) => {
            retire(tx, statements, &row.address, terms.now, terms.remove_at).await?;
            found = None;
        }
    }
    let mut was = address_of(tx, &row.owner).await?.filter(|address| *address != row.address);
    if let (Some(former), Some(_)) = (&was, &found) {
        // Two mailboxes of one account become one: the address wins, the other one's folder is kept aside.
        retire(tx, statements, former, terms.now, terms.remove_at).await?;
        was = None;
    }
    let moving = match &was {
        Some(former) => mailbox(tx, statements, former).await?,
        None => None,
    };
    if moving.is_none() {
        was = None;
    }
    let standing = found.as_ref().or(moving.as_ref());
    let Some(password) = row.password.clone().or_else(|| kept_password(standing, row)) else {
        return Ok(Put::PasswordNeeded);
    };
    if let Some(refusal) = refusal(tx, statements, row, was.as_deref()).await? {
        return Ok(refusal);
    }
    let kick = terms.kick.then(|| kick(standing, row, was.as_deref())).flatten();
    let unnamed_password = keeps_unnamed(standing, row);
    add_domains(tx, statements, row).await?;
    let maildir = match standing {
        Some(standing) => standing.maildir.clone(),
        None => free_maildir(tx, statements, &row.address).await?,
    };
    let stored = if row.access == Access::Locked { format!("{LOCK}{password}") } else { password };
    let (local_part, domain) = split(&row.address);
    let statement = if standing.is_some() { &statements.change_mailbox } else { &statements.add_mailbox };
    let former = was.as_deref().unwrap_or(&row.address);
    on_foreign!(tx, c => {
        let query = sqlx::query(statement.sql())
            .bind(&row.address)
            .bind(&stored)
            .bind(&maildir)
            .bind(row.quota_bytes)
            .bind(local_part)
            .bind(domain)
            .bind(row.access != Access::Shut);
        let query = if standing.is_some() { query.bind(former) } else { query };
        query.execute(&mut *c).await.map(drop)
    })?;
    if let Some(former) = &was {
        move_names(tx, statements, former, &row.address).await?;
    }
    on_foreign!(tx, c => sqlx::query(PUT_LIST)
        .bind(&row.address)
        .bind(if unnamed_password { KEPT } else { &row.password_digest })
        .bind(&owner)
        .bind(kick.as_deref().unwrap_or_default())
        .execute(&mut *c)
        .await.map(drop))?;
    let former_until = put_aliases(tx, statements, row, was.as_deref(), terms).await?;
    Ok(Put::Written(Written { renamed_from: was, kick, former_until, unnamed_password }))
}

/// The hash that stands there, if it was made for the wanted password; one that is not ours, if none is wanted.
fn kept_password(standing: Option<&Found>, row: &MailboxRow) -> Option<String> {
    let standing = standing?;
    let password = unlocked(&standing.password);
    let fits = match &standing.listed {
        Some(listed) => match listed.digest.strip_prefix(CLOSED) {
            Some(digest) => digest == row.password_digest || row.password_digest == NO_PASSWORD,
            None => {
                listed.digest == row.password_digest || (listed.digest == KEPT && row.password_digest == NO_PASSWORD)
            }
        },
        None => row.password_digest == NO_PASSWORD,
    };
    (fits && !password.is_empty()).then(|| password.to_owned())
}

/// Whether a password is kept although none is wanted: one that somebody else set, or that was there before the close.
fn keeps_unnamed(standing: Option<&Found>, row: &MailboxRow) -> bool {
    let unnamed = row.password.is_none() && row.password_digest == NO_PASSWORD;
    unnamed
        && standing.is_some_and(|standing| match &standing.listed {
            Some(listed) => listed.digest != NO_PASSWORD && listed.digest != format!("{CLOSED}{NO_PASSWORD}"),
            None => true,
        })
}

fn unlocked(password: &str) -> &str {
    password.strip_prefix(LOCK).unwrap_or(password)
}

/// Of whose login something changed: its sessions must end that began with another password, another name, or before
/// it was refused; and what Dovecot remembers of it (also that there was no such user) must be forgotten.
fn kick(standing: Option<&Found>, row: &MailboxRow, was: Option<&str>) -> Option<String> {
    let Some(standing) = standing else { return Some(row.address.clone()) };
    if let Some(former) = was {
        return Some(former.to_owned());
    }
    let listed = standing.listed.as_ref();
    // One that could not be ended yet still waits.
    if let Some(waiting) = listed.map(|listed| &listed.kick).filter(|waiting| !waiting.is_empty()) {
        return Some(waiting.clone());
    }
    let could_log_in = standing.active && !standing.password.starts_with(LOCK);
    let before = listed.map(|listed| listed.digest.strip_prefix(CLOSED).unwrap_or(&listed.digest));
    let kept = |digest: &str| digest == KEPT && row.password_digest == NO_PASSWORD;
    let other_password = before.is_some_and(|digest| digest != row.password_digest && !kept(digest));
    let other_access = could_log_in != (row.access == Access::Open);
    (other_password || other_access).then(|| row.address.clone())
}

/// Why `row` must not be written over what others put there.
async fn refusal(
    tx: &mut ForeignTx,
    statements: &Statements,
    row: &MailboxRow,
    was: Option<&str>,
) -> Result<Option<Put>, StoreError> {
    for address in std::iter::once(&row.address).chain(&row.aliases) {
        match holder(tx, address).await? {
            // A former address gives way to whoever may have it now.
            Some((_, Some(_))) => drop_alias(tx, statements, address).await?,
            Some((mailbox, None)) if mailbox == row.address && *address != row.address => {}
            // Of a mailbox that moves here, the names move along.
            Some((mailbox, None)) if was == Some(mailbox.as_str()) => {
                if *address == row.address {
                    drop_alias(tx, statements, address).await?;
                }
            }
            Some((mailbox, None)) => return Ok(Some(Put::HeldBy(mailbox))),
            None if *address == row.address || was == Some(address.as_str()) => {}
            None => match mailbox(tx, statements, address).await?.filter(|found| found.listed.is_some()) {
                // One that was left may become a name of another.
                Some(found) if found.active => return Ok(Some(Put::HeldBy(address.clone()))),
                Some(_) => {}
                None => {
                    let goto = alias(tx, statements, address).await?.map(|(goto, _)| goto);
                    if goto.is_some_and(|goto| goto != row.address) {
                        return Ok(Some(Put::Taken { address: address.clone() }));
                    }
                }
            },
        }
    }
    Ok(None)
}

/// Lets everything that named a mailbox by its former address name it by the new one.
async fn move_names(
    tx: &mut ForeignTx,
    statements: &Statements,
    former: &str,
    address: &str,
) -> Result<(), StoreError> {
    if let (Some(drop_quota), Some(move_quota)) = (&statements.drop_quota, &statements.move_quota) {
        on_foreign!(tx, c => sqlx::query(drop_quota.sql()).bind(address).execute(&mut *c).await.map(drop))?;
        on_foreign!(tx, c => sqlx::query(move_quota.sql()).bind(address).bind(former).execute(&mut *c).await.map(drop))?;
    }
    on_foreign!(tx, c => sqlx::query(DROP_LIST).bind(former).execute(&mut *c).await.map(drop))?;
    on_foreign!(tx, c => sqlx::query(statements.drop_alias.sql()).bind(former).execute(&mut *c).await.map(drop))?;
    for (alias, until_at) in held(tx, former).await? {
        on_foreign!(tx, c => sqlx::query(HOLD).bind(&alias).bind(address).bind(until_at).execute(&mut *c).await.map(drop))?;
    }
    Ok(())
}

/// Writes where the address and each alias lead, and drops what leads here no longer. Gives the end of the next former
/// address.
async fn put_aliases(
    tx: &mut ForeignTx,
    statements: &Statements,
    row: &MailboxRow,
    was: Option<&str>,
    terms: Terms,
) -> Result<Option<i64>, StoreError> {
    let active = row.access != Access::Shut;
    let standing = alias(tx, statements, &row.address).await?.map(|(goto, _)| goto);
    let goto = destinations(row, standing.as_deref());
    put_alias(tx, statements, &row.address, &goto, active).await?;
    for alias in &row.aliases {
        put_alias(tx, statements, alias, &row.address, active).await?;
        on_foreign!(tx, c => sqlx::query(HOLD).bind(alias).bind(&row.address).bind(None::<i64>).execute(&mut *c).await
            .map(drop))?;
    }
    if let Some(former) =
        was.filter(|former| terms.former_until > terms.now && !row.aliases.iter().any(|a| a == former))
    {
        on_foreign!(tx, c => sqlx::query(HOLD)
            .bind(former)
            .bind(&row.address)
            .bind(terms.former_until)
            .execute(&mut *c)
            .await.map(drop))?;
    }
    let mut next: Option<i64> = None;
    for (alias, until_at) in held(tx, &row.address).await? {
        if row.aliases.contains(&alias) {
            continue;
        }
        match until_at.filter(|until| *until > terms.now) {
            Some(until) => {
                put_alias(tx, statements, &alias, &row.address, active).await?;
                next = Some(next.map_or(until, |known| known.min(until)));
            }
            None => drop_alias(tx, statements, &alias).await?,
        }
    }
    Ok(next)
}

pub(super) async fn close(
    tx: &mut ForeignTx,
    statements: &Statements,
    address: &str,
    owner: &Owner,
    kick: bool,
) -> Result<Closed, StoreError> {
    let Some(found) = ours(tx, statements, address, owner).await? else { return Ok(Closed::NotThere) };
    on_foreign!(tx, c => sqlx::query(statements.shut_mailbox.sql()).bind(address).execute(&mut *c).await.map(drop))?;
    let digest = found.listed.as_ref().map(|listed| listed.digest.as_str()).unwrap_or_default();
    if !digest.starts_with(CLOSED) {
        on_foreign!(tx, c => sqlx::query(SET_DIGEST)
            .bind(address)
            .bind(format!("{CLOSED}{digest}"))
            .execute(&mut *c)
            .await.map(drop))?;
    }
    // It may have become a name of another mailbox by now.
    if holder(tx, address).await?.is_none() && alias(tx, statements, address).await?.is_some() {
        put_alias(tx, statements, address, address, false).await?;
    }
    for (alias, _) in held(tx, address).await? {
        drop_alias(tx, statements, &alias).await?;
    }
    let waiting = found.listed.map(|listed| listed.kick).filter(|waiting| !waiting.is_empty());
    let kick = kick.then(|| waiting.or_else(|| found.active.then(|| address.to_owned()))).flatten();
    if let Some(kick) = &kick {
        on_foreign!(tx, c => sqlx::query(SET_KICK).bind(address).bind(kick).execute(&mut *c).await.map(drop))?;
    }
    Ok(Closed::Shut { kick })
}

pub(super) async fn remove(
    tx: &mut ForeignTx,
    statements: &Statements,
    address: &str,
    owner: &Owner,
    now: i64,
) -> Result<(), StoreError> {
    if ours(tx, statements, address, owner).await?.is_some() {
        retire(tx, statements, address, now, now).await?;
    }
    Ok(())
}

/// Removes every row of a mailbox and puts its folder into the list of those that may be removed from `remove_at` on.
async fn retire(
    tx: &mut ForeignTx,
    statements: &Statements,
    address: &str,
    now: i64,
    remove_at: i64,
) -> Result<(), StoreError> {
    let Some(found) = mailbox(tx, statements, address).await? else { return Ok(()) };
    for (alias, _) in held(tx, address).await? {
        drop_alias(tx, statements, &alias).await?;
    }
    if !found.maildir.is_empty() {
        let owner = found.listed.map(|listed| listed.owner).unwrap_or_default();
        on_foreign!(tx, c => sqlx::query(LEAVE_FOLDER)
            .bind(&found.maildir)
            .bind(address)
            .bind(owner)
            .bind(now)
            .bind(remove_at)
            .execute(&mut *c)
            .await.map(drop))?;
    }
    let own_alias = holder(tx, address).await?.is_none().then_some(&statements.drop_alias);
    let rows = [own_alias, Some(&statements.drop_mailbox), statements.drop_quota.as_ref()];
    for statement in rows.into_iter().flatten() {
        on_foreign!(tx, c => sqlx::query(statement.sql()).bind(address).execute(&mut *c).await.map(drop))?;
    }
    on_foreign!(tx, c => sqlx::query(DROP_LIST).bind(address).execute(&mut *c).await.map(drop))?;
    Ok(())
}

pub(super) async fn kicked(tx: &mut ForeignTx, address: &str) -> Result<(), StoreError> {
    on_foreign!(tx, c => sqlx::query(SET_KICK).bind(address).bind("").execute(&mut *c).await.map(drop))?;
    Ok(())
}

pub(super) async fn standing(
    tx: &mut ForeignTx,
    statements: &Statements,
    address: &str,
) -> Result<Option<Standing>, StoreError> {
    let Some(found) = mailbox(tx, statements, address).await? else { return Ok(None) };
    let goto = alias(tx, statements, address).await?.filter(|(_, active)| *active).map(|(goto, _)| listed(&goto));
    let mut aliases = Vec::new();
    for (name, until_at) in held(tx, address).await? {
        let goto = alias(tx, statements, &name).await?.filter(|(_, active)| *active).map(|(goto, _)| goto);
        aliases.push(StandingAlias { address: name, goto, former: until_at.is_some() });
    }
    let access = match (found.active, found.password.starts_with(LOCK)) {
        (false, _) => Access::Shut,
        (true, true) => Access::Locked,
        (true, false) => Access::Open,
    };
    let (password_digest, owner) = match found.listed {
        Some(listed) => (Some(listed.digest), listed.owner),
        None => (None, String::new()),
    };
    let quota_bytes = statements.has_quota.then_some(found.quota);
    Ok(Some(Standing { access, quota_bytes, maildir: found.maildir, password_digest, owner, goto, aliases }))
}

pub(super) async fn password(
    tx: &mut ForeignTx,
    statements: &Statements,
    address: &str,
) -> Result<Option<String>, StoreError> {
    Ok(mailbox(tx, statements, address).await?.map(|found| found.password))
}

pub(super) async fn address_of(tx: &mut ForeignTx, owner: &Owner) -> Result<Option<String>, StoreError> {
    let owner = owner.text();
    Ok(on_foreign!(tx, c => sqlx::query_scalar(OF_OWNER).bind(owner).fetch_optional(&mut *c).await)?)
}

pub(super) async fn left_maildirs(tx: &mut ForeignTx) -> Result<Vec<LeftMaildir>, StoreError> {
    Ok(on_foreign!(tx, c => sqlx::query_as(LEFT_FOLDERS).fetch_all(&mut *c).await)?)
}

pub(super) async fn forget_maildir(tx: &mut ForeignTx, maildir: &str) -> Result<bool, StoreError> {
    let gone = on_foreign!(tx, c => sqlx::query(FORGET_FOLDER).bind(maildir).execute(&mut *c).await
        .map(|done| done.rows_affected()))?;
    Ok(gone > 0)
}

async fn mailbox(tx: &mut ForeignTx, statements: &Statements, address: &str) -> Result<Option<Found>, StoreError> {
    let found: Option<(String, String, i64, i64)> =
        on_foreign!(tx, c => sqlx::query_as(statements.mailbox.sql()).bind(address).fetch_optional(&mut *c).await)?;
    let Some((password, maildir, quota, active)) = found else { return Ok(None) };
    let listed: Option<(String, String, String)> =
        on_foreign!(tx, c => sqlx::query_as(LIST_OF).bind(address).fetch_optional(&mut *c).await)?;
    let listed = listed.map(|(digest, owner, kick)| Listed { digest, owner, kick });
    Ok(Some(Found { password, maildir, quota, active: active != 0, listed }))
}

/// The mailbox of an address if it is ours and not another account's by now.
async fn ours(
    tx: &mut ForeignTx,
    statements: &Statements,
    address: &str,
    owner: &Owner,
) -> Result<Option<Found>, StoreError> {
    let found = mailbox(tx, statements, address).await?;
    let is_ours = |listed: &Listed| listed.owner.is_empty() || owner.is_account_of(&listed.owner);
    Ok(found.filter(|found| found.listed.as_ref().is_some_and(is_ours)))
}

/// A folder that no mailbox is in and none left: `domain/local/`, else with a number.
async fn free_maildir(tx: &mut ForeignTx, statements: &Statements, address: &str) -> Result<String, StoreError> {
    if let ForeignTx::Postgres(transaction) = tx {
        sqlx::query(LOCK_FOLDERS).bind(FOLDER_LOCK).execute(&mut **transaction).await?;
    }
    let (local_part, domain) = split(address);
    for number in 1..=FOLDERS_MAX {
        let folder = match number {
            1 => format!("{domain}/{local_part}/"),
            _ => format!("{domain}/{local_part}-{number}/"),
        };
        let used: i64 = on_foreign!(tx, c => sqlx::query_scalar(statements.in_maildir.sql())
            .bind(&folder)
            .fetch_one(&mut *c)
            .await)?;
        let left: i64 = on_foreign!(tx, c => sqlx::query_scalar(IS_LEFT).bind(&folder).fetch_one(&mut *c).await)?;
        if used + left == 0 {
            return Ok(folder);
        }
    }
    Err(StoreError::Database(format!(
        "{FOLDERS_MAX} folders of {domain}/{local_part} are taken; remove those left behind"
    )))
}

async fn add_domains(tx: &mut ForeignTx, statements: &Statements, row: &MailboxRow) -> Result<(), StoreError> {
    let Some(statement) = &statements.add_domain else { return Ok(()) };
    let all = std::iter::once(&row.address).chain(&row.aliases).map(|address| split(address).1);
    for domain in all.collect::<std::collections::BTreeSet<_>>() {
        on_foreign!(tx, c => sqlx::query(statement.sql()).bind(domain).execute(&mut *c).await.map(drop))?;
    }
    Ok(())
}

async fn alias(
    tx: &mut ForeignTx,
    statements: &Statements,
    address: &str,
) -> Result<Option<(String, bool)>, StoreError> {
    let found: Option<(String, i64)> =
        on_foreign!(tx, c => sqlx::query_as(statements.alias.sql()).bind(address).fetch_optional(&mut *c).await)?;
    Ok(found.map(|(goto, active)| (goto, active != 0)))
}

/// The mailbox whose alias this is, and until when, if it is a former address.
async fn holder(tx: &mut ForeignTx, alias: &str) -> Result<Option<(String, Option<i64>)>, StoreError> {
    Ok(on_foreign!(tx, c => sqlx::query_as(HOLDER_OF).bind(alias).fetch_optional(&mut *c).await)?)
}

async fn held(tx: &mut ForeignTx, mailbox: &str) -> Result<Vec<(String, Option<i64>)>, StoreError> {
    Ok(on_foreign!(tx, c => sqlx::query_as(HELD_BY).bind(mailbox).fetch_all(&mut *c).await)?)
}

async fn put_alias(
    tx: &mut ForeignTx,
    statements: &Statements,
    address: &str,
    goto: &str,
    active: bool,
) -> Result<(), StoreError> {
    let there = alias(tx, statements, address).await?.is_some();
    let statement = if there { &statements.change_alias } else { &statements.add_alias };
    on_foreign!(tx, c => sqlx::query(statement.sql())
        .bind(address)
        .bind(goto)
        .bind(split(address).1)
        .bind(active)
        .execute(&mut *c)
        .await.map(drop))?;
    Ok(())
}

async fn drop_alias(tx: &mut ForeignTx, statements: &Statements, address: &str) -> Result<(), StoreError> {
    on_foreign!(tx, c => sqlx::query(statements.drop_alias.sql()).bind(address).execute(&mut *c).await.map(drop))?;
    on_foreign!(tx, c => sqlx::query(DISOWN).bind(address).execute(&mut *c).await.map(drop))?;
    Ok(())
}

/// Where a mailbox's mail goes: to itself first, then to each forward once. An answering machine that PostfixAdmin put
/// among them (`local#domain@its domain`) stays. Nothing is forwarded while the mailbox is not open: mail is kept.
fn destinations(row: &MailboxRow, standing: Option<&str>) -> String {
    let answering = answering(&row.address);
    let open = row.access == Access::Open;
    let forwards: Vec<&str> = match open {
        true => row.forward_to.iter().map(String::as_str).filter(|forward| *forward != row.address).collect(),
        false => Vec::new(),
    };
    let kept = row.keep_copy || forwards.is_empty();
    let mut all: Vec<String> = if kept { vec![row.address.clone()] } else { Vec::new() };
    for forward in forwards {
        if !all.iter().any(|known| known == forward) {
            all.push(forward.to_owned());
        }
    }
    let machines = standing.map(listed).unwrap_or_default();
    all.extend(machines.into_iter().filter(|machine| machine.starts_with(&answering)));
    all.join(",")
}

/// How the addresses of PostfixAdmin's answering machine for a mailbox begin.
pub(super) fn answering(address: &str) -> String {
    format!("{}@", address.replace('@', "#"))
}

/// Where `row` leads, as `Standing::goto` would say it, without answering machines.
pub(super) fn wanted_destinations(row: &MailboxRow) -> Vec<String> {
    listed(&destinations(row, None))
}

fn listed(goto: &str) -> Vec<String> {
    goto.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

fn split(address: &str) -> (&str, &str) {
    address.rsplit_once('@').unwrap_or((address, ""))
}
