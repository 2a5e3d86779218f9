//! Brings one mailbox to what is desired, in the mail host's tables, through its whole life: made, changed, given another
//! address, suspended, closed with days of grace, removed. The password is hashed here, only when it changed.
//!
//! ```text
//!              another address, and the same mail
//!                ┌────┐
//!  (none) ──► open ◄──┴──► locked or shut (suspended)        `[mail] suspended` decides which
//!               │ ▲
//!        closed │ │ pushed again: all is as it was
//!               ▼ │
//!              shut ── grace over ──► rows removed, the folder waits in `lastmile mail purge list`
//! ```
//!
//! Each attempt looks at the facts (the desired content, who gave the address up and when, what stands in the tables)
//! and takes the step they ask for, so that an attempt cut off anywhere is simply repeated. What time alone brings is
//! arranged in `store::mailboxes`.

use std::time::Duration;

use super::backend::{ApplyError, foreign, foreign_content, open_secret};
use super::doveadm::Doveadm;
use super::password::{self, PasswordError, Scheme};
use crate::provision::{Content, ElementState, MailboxContent};
use crate::store::elements::{ElementRow, Progress};
use crate::store::foreign::mail::{
    Access, Closed, Left, MailDatabase, MailboxRow, NO_PASSWORD, Owner, Put, Terms, Written,
};
use crate::store::holders::{self, HeldKind};
use crate::store::{Store, StoreError, elements, mailboxes, quarantine};
use crate::vocabulary::{Secret, Timestamp, from_micros, hex, to_micros};

/// The mail host as it is configured; cheap to clone.
#[derive(Debug, Clone)]
pub struct MailHost {
    pub database: MailDatabase,
    pub rules: MailRules,
    /// Ends sessions; `None`: they go on until they end by themselves.
    pub doveadm: Option<Doveadm>,
}

/// How mailboxes are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailRules {
    /// Days in which a closed mailbox can come back with its mail.
    pub grace_days: u32,
    /// Days in which a former address leads to the new one.
    pub former_days: u32,
    pub suspended: Suspended,
    pub scheme: Scheme,
}

/// What becomes of mail to a suspended mailbox; nobody logs in either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspended {
    /// It is taken in and kept.
    Accept,
    /// Senders are refused while they wait (550).
    Refuse,
}

impl Default for MailRules {
    fn default() -> Self {
        Self { grace_days: 0, former_days: 30, suspended: Suspended::Accept, scheme: Scheme::default() }
    }
}

const DATABASE: &str = "the mail database";
const OCTETS_PER_MB: i64 = 1024 * 1024;
const HOURS_PER_DAY: i64 = 24;
/// When a session that could not be ended is tried again.
const KICK_AGAIN: Duration = Duration::from_secs(60);

impl MailHost {
    /// Takes the step the facts ask for. Safe to repeat.
    pub async fn apply(&self, store: &Store, element: &ElementRow, now: Timestamp) -> Result<Progress, ApplyError> {
        let (progress, again) = match &element.desired {
            Content::Mailbox(content) => self.keep(store, element, content, now).await?,
            Content::Absent => self.end(store, element, now).await?,
            other => return Err(foreign_content(element, other)),
        };
        arrange(store, element.id, again).await?;
        Ok(progress)
    }

    /// Tells in words how the mail host's rows differ from what is desired; `None`: they do not. Applying heals it.
    pub async fn check(
        &self,
        store: &Store,
        element: &ElementRow,
        now: Timestamp,
    ) -> Result<Option<String>, ApplyError> {
        let standing = self.database.standing(&element.key).await.map_err(|error| foreign(DATABASE, error))?;
        let content = match &element.desired {
            Content::Mailbox(content) => content,
            Content::Absent => {
                let Some(standing) = standing else { return Ok(None) };
                let fate = self.fate(store, element, now).await?;
                let ours = !standing.owner.is_empty() && owner(element).is_account_of(&standing.owner);
                return Ok(match fate {
                    _ if !ours => None,
                    Fate::MovesTo(_) => None,
                    Fate::Grace { .. } if standing.access == Access::Shut => None,
                    Fate::Grace { .. } => Some("it was closed, and its rows are still active".to_owned()),
                    Fate::Over { .. } => Some("its grace is over, and its rows are still there".to_owned()),
                });
            }
            other => return Err(foreign_content(element, other)),
        };
        Ok(self.row(element, content)?.differences(standing.as_ref()))
    }

    async fn keep(
        &self,
        store: &Store,
        element: &ElementRow,
        content: &MailboxContent,
        now: Timestamp,
    ) -> Result<(Progress, Option<Timestamp>), ApplyError> {
        let mut row = self.row(element, content)?;
        let mut terms = Terms {
            now: to_micros(now),
            former_until: to_micros(days_after(now, self.rules.former_days)),
            remove_at: to_micros(days_after(now, self.rules.grace_days)),
            left: Left::Ask,
            kick: self.doveadm.is_some(),
        };
        // Each answer but the last is met once: at most one more attempt a question.
        let mut written = None;
        for _ in 0..3 {
            match self.database.put(&row, terms).await.map_err(|error| foreign(DATABASE, error))? {
                Put::Written(done) => {
                    written = Some(done);
                    break;
                }
                Put::PasswordNeeded => row.password = Some(self.hashed(store, element, content).await?),
                Put::LeftByOther => terms.left = left(store, &element.key).await?,
                Put::HeldBy(mailbox) => {
                    return Err(ApplyError::Retry(format!(
                        "the address or one of its aliases still belongs to mailbox {mailbox}"
                    )));
                }
                Put::Taken { address } => {
                    return Err(ApplyError::Fail(format!(
                        "alias {address} was made by somebody else in the mail tables and leads elsewhere; remove it there or here"
                    )));
                }
            }
        }
        let Some(written) = written else {
            return Err(ApplyError::Retry("the mail tables changed meanwhile".to_owned()));
        };
        let ended = self.end_sessions(&element.key, written.kick.as_deref()).await;
        let former = written.former_until.and_then(from_micros);
        let evidence = evidence(&row, content, &written, ended.as_ref().err(), now);
        let again = former.into_iter().chain(ended.err().map(|_| after(now, KICK_AGAIN))).min();
        Ok((Progress { state: ElementState::Applied, evidence, applied: true }, again))
    }

    /// The account does not want the mailbox any more.
    async fn end(
        &self,
        store: &Store,
        element: &ElementRow,
        now: Timestamp,
    ) -> Result<(Progress, Option<Timestamp>), ApplyError> {
        let gone = |evidence: String| Progress { state: ElementState::Gone, evidence, applied: true };
        let owner = owner(element);
        let away = |error| foreign(DATABASE, error);
        match self.fate(store, element, now).await? {
            Fate::MovesTo(address) => Ok((gone(format!("its mail goes on as {address}, said at {now:.0}")), None)),
            Fate::Over { besides } => {
                for address in besides.iter().chain([&element.key]) {
                    self.database.remove(address, &owner, to_micros(now)).await.map_err(away)?;
                }
                let evidence = format!(
                    "removed from the mail tables at {now:.0}; its folder, if it had one, is in `lastmile mail purge list`"
                );
                Ok((gone(evidence), None))
            }
            Fate::Grace { since, until, besides } => {
                let mut shut = false;
                let mut ended = Ok(());
                for address in besides.iter().chain([&element.key]) {
                    match self.database.close(address, &owner, self.doveadm.is_some()).await.map_err(away)? {
                        Closed::NotThere => {}
                        Closed::Shut { kick } => {
                            shut = true;
                            ended = ended.and(self.end_sessions(address, kick.as_deref()).await);
                        }
                    }
                }
                if !shut {
                    return Ok((gone(format!("not in the mail tables at {now:.0}")), None));
                }
                let mut evidence = format!(
                    "closed since {since:.0}: no login, no mail; it comes back with its mail if pushed again before {until:.0}"
                );
                if let Err(reason) = &ended {
                    evidence.push_str(&format!("; sessions not ended yet: {reason}"));
                }
                let again = ended.err().map_or(until, |_| after(now, KICK_AGAIN).min(until));
                Ok((gone(evidence), Some(again)))
            }
        }
    }

    /// What is to become of a mailbox that is not desired any more.
    async fn fate(&self, store: &Store, element: &ElementRow, now: Timestamp) -> Result<Fate, ApplyError> {
        let read = async {
            let mut tx = store.read().await?;
            let siblings = elements::of_account(&mut tx, element.account_id).await?;
            let given_up = holders::given_up_at(&mut tx, HeldKind::Mailbox, &element.key, element.account_id).await?;
            let kept = quarantine::of(&mut tx, HeldKind::Mailbox, &element.key).await?;
            let ours = kept.filter(|kept| kept.account_id == element.account_id);
            Ok::<_, StoreError>((siblings, given_up, ours.and_then(|kept| kept.recover_until)))
        };
        let (siblings, given_up, recover_until) = read.await.map_err(|error| unread(&error))?;
        let goes_on = siblings.iter().find(|other| {
            matches!(other.desired, Content::Mailbox(_))
                && other.services == element.services
                && other.key != element.key
        });
        let stands = self.database.address_of(&owner(element)).await.map_err(|error| foreign(DATABASE, error))?;
        if let Some(other) = goes_on {
            // Its own job moves the rows there; until then they are not to be touched.
            if stands.as_ref() == Some(&element.key) || stands.as_ref() == Some(&other.key) {
                return Ok(Fate::MovesTo(other.key.clone()));
            }
        }
        let since = given_up.unwrap_or(now);
        // The tenant may promise more than the installation.
        let until = days_after(since, self.rules.grace_days).max(recover_until.unwrap_or(Timestamp::MIN));
        // A change of address that was overtaken by the end: the rows are still under the former one, whose own job
        // left them to the change.
        let living = |address: &String| {
            siblings.iter().any(|other| other.key == *address && matches!(other.desired, Content::Mailbox(_)))
        };
        let besides = stands.filter(|address| *address != element.key && !living(address));
        Ok(if now < until { Fate::Grace { since, until, besides } } else { Fate::Over { besides } })
    }

    fn row(&self, element: &ElementRow, content: &MailboxContent) -> Result<MailboxRow, ApplyError> {
        let (local_part, domain) = content.address.rsplit_once('@').unwrap_or((&content.address, ""));
        // The maildir is named after them.
        let no_folder = |part: &str| part.is_empty() || part.starts_with('.') || part.contains(['/', '\0']);
        if no_folder(local_part) || no_folder(domain) {
            return Err(ApplyError::Fail(format!("{:?} cannot be the address of a mailbox", content.address)));
        }
        let access = match (content.active, content.prepared, self.rules.suspended) {
            (true, _, _) => Access::Open,
            (false, true, _) | (false, false, Suspended::Refuse) => Access::Shut,
            (false, false, Suspended::Accept) => Access::Locked,
        };
        Ok(MailboxRow {
            owner: owner(element),
            address: content.address.clone(),
            access,
            quota_bytes: i64::from(content.quota_mb) * OCTETS_PER_MB,
            aliases: content.aliases.iter().filter(|alias| **alias != content.address).cloned().collect(),
            forward_to: content.forward_to.clone(),
            keep_copy: content.keep_copy,
            password_digest: content.password.digest.clone().unwrap_or_else(|| NO_PASSWORD.to_owned()),
            password: None,
        })
    }

    async fn hashed(
        &self,
        store: &Store,
        element: &ElementRow,
        content: &MailboxContent,
    ) -> Result<String, ApplyError> {
        // Without a password nobody may log in: it becomes one that nobody knows.
        let password = match open_secret(store, element, &content.password).await? {
            Some(password) => password,
            None => nobody_knows()?,
        };
        password::hash(self.rules.scheme, password).await.map_err(|error| match error {
            PasswordError::Hash(_) => ApplyError::Retry(error.to_string()),
            PasswordError::Nul => ApplyError::Fail(error.to_string()),
        })
    }

    /// Ends the sessions that wait for it. What fails is told and tried again; the mailbox itself is as it must be.
    async fn end_sessions(&self, address: &str, kick: Option<&str>) -> Result<(), String> {
        let (Some(doveadm), Some(kick)) = (&self.doveadm, kick) else { return Ok(()) };
        if let Err(error) = doveadm.end_sessions(kick, address).await {
            doveadm.tell(&error);
            return Err(error.to_string());
        }
        self.database.kicked(address).await.map_err(|error| error.to_string())
    }
}

/// What is to become of a mailbox that is not desired any more.
enum Fate {
    /// Its service has another address now, at which the same mail is.
    MovesTo(String),
    /// `besides`: another address under which its rows may still stand.
    Grace {
        since: Timestamp,
        until: Timestamp,
        besides: Option<String>,
    },
    Over {
        besides: Option<String>,
    },
}

fn owner(element: &ElementRow) -> Owner {
    let service = element.services.first().cloned().unwrap_or_default();
    Owner { tenant: element.tenant.clone(), account_id: element.account_id, service }
}

/// Whether an operator gave the predecessor's mail along.
async fn left(store: &Store, address: &str) -> Result<Left, ApplyError> {
    let read = async {
        let mut tx = store.read().await?;
        quarantine::of(&mut tx, HeldKind::Mailbox, address).await
    };
    let kept = read.await.map_err(|error| unread(&error))?;
    Ok(if kept.is_some_and(|kept| kept.with_mail) { Left::Inherit } else { Left::Retire })
}

/// Sets when the mailbox is looked at again, where that changes.
async fn arrange(store: &Store, element_id: i64, again: Option<Timestamp>) -> Result<(), ApplyError> {
    let change = async {
        let mut tx = store.read().await?;
        let known = mailboxes::wake_at(&mut tx, element_id).await?;
        drop(tx);
        if known != again {
            let mut tx = store.write().await?;
            mailboxes::set_wake(&mut tx, element_id, again).await?;
            tx.commit().await?;
        }
        Ok::<_, StoreError>(())
    };
    change.await.map_err(|error| ApplyError::Retry(format!("when to look again could not be stored: {error}")))
}

fn unread(error: &StoreError) -> ApplyError {
    ApplyError::Retry(format!("what is known of the address could not be read: {error}"))
}

fn nobody_knows() -> Result<Secret, ApplyError> {
    let mut octets = [0u8; 32];
    getrandom::fill(&mut octets).map_err(|error| ApplyError::Retry(format!("no randomness: {error}")))?;
    Ok(Secret::new(hex(octets)))
}

fn days_after(at: Timestamp, days: u32) -> Timestamp {
    let span = jiff::Span::new().hours(i64::from(days) * HOURS_PER_DAY);
    at.checked_add(span).unwrap_or(Timestamp::MAX)
}

fn after(at: Timestamp, pause: Duration) -> Timestamp {
    at.checked_add(pause).unwrap_or(Timestamp::MAX)
}

fn evidence(
    row: &MailboxRow,
    content: &MailboxContent,
    written: &Written,
    not_ended: Option<&String>,
    now: Timestamp,
) -> String {
    let login = match (row.access, &content.password.digest) {
        (Access::Shut, _) if content.prepared => "prepared: no login, no mail yet",
        (Access::Shut, _) => "suspended: no login, mail is refused, what is there is kept",
        (Access::Locked, _) => "suspended: no login, mail is taken in and kept",
        (Access::Open, None) if written.unnamed_password => "login allowed, with the password that was there before",
        (Access::Open, None) => "no login: no password is set",
        (Access::Open, Some(_)) => "login allowed",
    };
    let mut text = format!(
        "{login}; {} MB, {} aliases, {} forwards; in the mail tables since {now:.0}",
        content.quota_mb,
        content.aliases.len(),
        content.forward_to.len()
    );
    if let Some(former) = &written.renamed_from {
        text.push_str(&format!("; moved from {former} with its mail"));
    }
    if let Some(reason) = not_ended {
        text.push_str(&format!("; sessions not ended yet: {reason}"));
    }
    text
}
