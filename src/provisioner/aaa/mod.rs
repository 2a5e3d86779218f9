//! Brings one RADIUS login to what is desired, in FreeRADIUS's tables, and tells how far they differ from that. The
//! password is hashed here, only when it changed. What becomes of the login's live sessions is asked for in the store,
//! after the rows are written: `nas_control` sees to it.

mod differ;
mod rows;
mod session;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::backend::{ApplyError, foreign, foreign_content, open_named_secret, open_secret};
use super::password::{self, PasswordError, Scheme};
use crate::provision::{AaaAccess, AaaContent, Content, ElementState};
use crate::store::elements::{ElementRow, Progress};
use crate::store::foreign::aaa::{AaaDatabase, GroupRows, Password, Put, Replaced};
use crate::store::{Store, StoreError, exceptions, nas_control};
use crate::vocabulary::{Clock, Timestamp};

const DATABASE: &str = "the AAA database";
/// Kind of the exception for a group that restricts nobody because nothing is said of it.
const GROUP_EXCEPTION: &str = "aaa_group";
const RELEASED_BY: &str = "provisioner";
const CRYPT_PREFIX: &str = "{SHA512-CRYPT}";

/// How passwords stand in the tables: `[aaa] password`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PasswordStorage {
    /// As a crypt(3) hash, except for logins whose plan says `chap = true`.
    #[default]
    Crypt,
    /// All in clear.
    Cleartext,
}

/// The AAA server's tables and how they are filled; cheap to clone.
#[derive(Clone)]
pub struct Aaa {
    database: AaaDatabase,
    passwords: PasswordStorage,
    /// Restricting groups that were looked at, and whether anything is said of them: an exception is opened or released
    /// once a change, not once a login.
    groups: Arc<Mutex<HashMap<String, bool>>>,
    clock: Clock,
    /// Wakes whoever tells NAS about live sessions.
    sessions: Arc<Notify>,
}

impl Aaa {
    /// `sessions` is notified when live sessions are to follow a change.
    pub fn new(database: AaaDatabase, passwords: PasswordStorage, clock: Clock, sessions: Arc<Notify>) -> Self {
        Self { database, passwords, groups: Arc::default(), clock, sessions }
    }

    /// Makes file and tables where they are missing.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.database.prepare().await
    }

    fn in_clear(&self, content: &AaaContent) -> bool {
        content.chap || self.passwords == PasswordStorage::Cleartext
    }

    /// Whether this says something new of a group.
    fn is_news(&self, group: &str, exists: bool) -> bool {
        let mut known = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(group.to_owned(), exists) != Some(exists)
    }
}

pub(super) async fn apply(
    aaa: &Aaa,
    store: &Store,
    element: &ElementRow,
    now: Timestamp,
) -> Result<Progress, ApplyError> {
    match &element.desired {
        Content::Aaa(content) => {
            let (password, replaced) = put(aaa, store, element, content).await?;
            follow(aaa, store, element, &replaced).await?;
            let bare = bare_group(content, &replaced.groups);
            if let Some((group, exists)) = restricting_group(content, &replaced.groups)
                && aaa.is_news(group, exists)
            {
                tell_of_group(store, group, exists, now).await;
            }
            let evidence = evidence(content, password, bare, now);
            Ok(Progress { state: ElementState::Applied, evidence, applied: true })
        }
        Content::Absent => {
            let removed = aaa.database.remove(&element.key).await.map_err(|error| foreign(DATABASE, error))?;
            follow(aaa, store, element, &removed).await?;
            let evidence = format!("removed from the AAA tables at {now:.0}");
            Ok(Progress { state: ElementState::Gone, evidence, applied: true })
        }
        other => Err(foreign_content(element, other)),
    }
}

/// How the rows of a login differ from what is desired, in words without secrets; `None`: not at all. `apply` heals it.
///
/// **Errors**: the database is away, or the password cannot be read.
pub async fn check(aaa: &Aaa, store: &Store, element: &ElementRow) -> Result<Option<String>, ApplyError> {
    let standings = aaa.database.standings(&element.key).await.map_err(|error| foreign(DATABASE, error))?;
    let differences = match &element.desired {
        Content::Aaa(content) => {
            let password = match (&content.password.digest, aaa.in_clear(content)) {
                (None, _) => Password::Missing,
                (Some(digest), false) => Password::Crypt { digest: digest.clone(), hash: None },
                (Some(_), true) => match open_secret(store, element, &content.password).await? {
                    Some(secret) => Password::Clear(secret),
                    None => Password::Missing,
                },
            };
            let wanted = rows::rows(content, password);
            standings.iter().flat_map(|standing| differ::differences(&wanted, standing)).collect()
        }
        Content::Absent if standings.iter().all(|standing| standing.is_empty()) => Vec::new(),
        Content::Absent => vec!["the AAA tables still hold rows of this removed login".to_owned()],
        other => return Err(foreign_content(element, other)),
    };
    Ok((!differences.is_empty()).then(|| differences.join("; ")))
}

/// Asks that the login's live sessions follow, in a transaction that ends before the element's progress is recorded: when
/// the daemon dies between the two, the next attempt asks again.
async fn follow(aaa: &Aaa, store: &Store, element: &ElementRow, replaced: &Replaced) -> Result<(), ApplyError> {
    let Some((before, after)) = session::change(element, replaced) else { return Ok(()) };
    let written_at = aaa.clock.now();
    let noted = async {
        if before == after {
            let mut tx = store.read().await?;
            if !nas_control::is_active(&mut tx, element.id).await? {
                return Ok(None);
            }
        }
        let mut tx = nas_control::begin(store).await?;
        let change = nas_control::Change { element, before: &before, after: &after, written_at };
        let request = nas_control::note(&mut tx, &change).await?;
        tx.commit().await?;
        Ok(request)
    };
    match noted.await {
        Ok(Some(_)) => aaa.sessions.notify_one(),
        Ok(None) => {}
        Err(error) => {
            let error: StoreError = error;
            return Err(ApplyError::Retry(format!("its live sessions could not be asked about: {error}")));
        }
    }
    Ok(())
}

/// How the password stands there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nowhere,
    InClear,
    Hashed,
}

async fn put(
    aaa: &Aaa,
    store: &Store,
    element: &ElementRow,
    content: &AaaContent,
) -> Result<(Kept, Replaced), ApplyError> {
    let password = match (&content.password.digest, aaa.in_clear(content)) {
        (None, _) => Password::Missing,
        (Some(_), true) => match open_secret(store, element, &content.password).await? {
            Some(secret) => Password::Clear(secret),
            None => Password::Missing,
        },
        (Some(digest), false) => Password::Crypt { digest: digest.clone(), hash: None },
    };
    let mut wanted = rows::rows(content, password);
    let mut put = aaa.database.put(&wanted).await.map_err(|error| foreign(DATABASE, error))?;
    if put == Put::HashNeeded {
        wanted.password = hashed(store, element, content).await?;
        put = aaa.database.put(&wanted).await.map_err(|error| foreign(DATABASE, error))?;
    }
    let kept = match &wanted.password {
        Password::Missing => Kept::Nowhere,
        Password::Clear(_) => Kept::InClear,
        Password::Crypt { .. } => Kept::Hashed,
    };
    match put {
        Put::Written(replaced) => Ok((kept, replaced)),
        Put::HashNeeded => Err(ApplyError::Retry("the password was not taken".to_owned())),
    }
}

/// The hash of the password that is stored now, named by that password's own digest: between the claim of the job and
/// this moment a push may have brought another one.
async fn hashed(store: &Store, element: &ElementRow, content: &AaaContent) -> Result<Password, ApplyError> {
    let Some((secret, digest)) = open_named_secret(store, element, &content.password).await? else {
        return Ok(Password::Missing);
    };
    let hash = password::hash(Scheme::Sha512Crypt, secret).await.map_err(|error| match error {
        PasswordError::Hash(_) => ApplyError::Retry(error.to_string()),
        PasswordError::Nul => ApplyError::Fail(error.to_string()),
    })?;
    let hash = hash.strip_prefix(CRYPT_PREFIX).unwrap_or(&hash).to_owned();
    Ok(Password::Crypt { digest, hash: Some(hash) })
}

/// The group that is to hold a login back, and whether the tables say anything of it.
fn restricting_group<'a>(content: &'a AaaContent, groups: &BTreeMap<String, GroupRows>) -> Option<(&'a str, bool)> {
    match &content.access {
        AaaAccess::Garden { group } | AaaAccess::Blocked { group } => {
            Some((group, groups.get(group).is_some_and(|rows| rows.exists)))
        }
        AaaAccess::Accept | AaaAccess::Reject => None,
    }
}

fn bare_group<'a>(content: &'a AaaContent, groups: &BTreeMap<String, GroupRows>) -> Option<&'a str> {
    restricting_group(content, groups).filter(|(_, exists)| !exists).map(|(group, _)| group)
}

/// Opens or releases the exception about a group. The rows stand either way: failing at this is only worth a line.
async fn tell_of_group(store: &Store, group: &str, exists: bool, now: Timestamp) {
    let told = async {
        let mut tx = store.write().await?;
        if exists {
            exceptions::release_subject(&mut tx, GROUP_EXCEPTION, group, RELEASED_BY, now).await?;
        } else {
            let detail = format!(
                "RADIUS group {group} has no row in radgroupreply or radgroupcheck: FreeRADIUS lets the logins in it \
                 through unrestricted. Say in those tables what the group may do."
            );
            exceptions::open(&mut tx, None, GROUP_EXCEPTION, group, &detail, now).await?;
        }
        tx.commit().await
    };
    if !exists {
        tracing::warn!("RADIUS group {group} has no row in radgroupreply or radgroupcheck: it restricts nobody.");
    }
    if let Err(error) = told.await {
        tracing::warn!("The exception about RADIUS group {group} is not recorded: {error}.");
    }
}

fn evidence(content: &AaaContent, password: Kept, bare: Option<&str>, now: Timestamp) -> String {
    let login = match (&content.access, password) {
        (AaaAccess::Reject, _) => "login refused".to_owned(),
        (_, Kept::Nowhere) => "login refused: no password is set".to_owned(),
        (AaaAccess::Garden { group }, _) => format!("login allowed into garden group {group}"),
        (AaaAccess::Blocked { group }, _) => format!("login allowed into blocked group {group}"),
        (AaaAccess::Accept, _) => match &content.group {
            Some(group) => format!("login allowed in group {group}"),
            None => "login allowed".to_owned(),
        },
    };
    let warning = match bare {
        Some(_) => ", of which the tables say nothing, so that it restricts nothing",
        None => "",
    };
    let kept = match password {
        Kept::Nowhere => "",
        Kept::InClear => ", password in clear for CHAP",
        Kept::Hashed => ", password hashed (PAP)",
    };
    format!("{login}{warning}{kept}; in the AAA tables since {now:.0}")
}
