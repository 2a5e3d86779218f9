//! Brings one mailbox to what is desired, in the mail host's tables. The password is hashed here, only when it changed.

use super::backend::{ApplyError, foreign, foreign_content, open_secret};
use super::password::{self, PasswordError, Scheme};
use crate::provision::{Content, ElementState, MailboxContent};
use crate::store::Store;
use crate::store::elements::{ElementRow, Progress};
use crate::store::foreign::mail::{MailDatabase, MailboxRow, Put};
use crate::vocabulary::{Secret, Timestamp};

const DATABASE: &str = "the mail database";
const OCTETS_PER_MB: i64 = 1024 * 1024;
/// Stands for the digest of a mailbox without a password.
const NO_PASSWORD: &str = "none";

pub(super) async fn apply(
    mail: &MailDatabase,
    store: &Store,
    element: &ElementRow,
    now: Timestamp,
) -> Result<Progress, ApplyError> {
    match &element.desired {
        Content::Mailbox(content) => {
            put(mail, store, element, content).await?;
            Ok(Progress { state: ElementState::Applied, evidence: evidence(content, now), applied: true })
        }
        Content::Absent => {
            mail.remove(&element.key).await.map_err(|error| foreign(DATABASE, error))?;
            let evidence = format!("removed from the mail tables at {now:.0}");
            Ok(Progress { state: ElementState::Gone, evidence, applied: true })
        }
        other => Err(foreign_content(element, other)),
    }
}

async fn put(
    mail: &MailDatabase,
    store: &Store,
    element: &ElementRow,
    content: &MailboxContent,
) -> Result<(), ApplyError> {
    let mut row = row(content)?;
    let mut put = mail.put(&row).await.map_err(|error| foreign(DATABASE, error))?;
    if put == Put::PasswordNeeded {
        row.password = Some(hashed(store, element, content).await?);
        put = mail.put(&row).await.map_err(|error| foreign(DATABASE, error))?;
    }
    match put {
        Put::Written => Ok(()),
        Put::PasswordNeeded => Err(ApplyError::Retry("the password was not taken".to_owned())),
        Put::HeldBy(mailbox) => {
            Err(ApplyError::Retry(format!("the address or one of its aliases still belongs to mailbox {mailbox}")))
        }
        Put::Taken { address } => Err(ApplyError::Fail(format!(
            "alias {address} was made by somebody else in the mail tables and leads elsewhere; remove it there or here"
        ))),
    }
}

fn row(content: &MailboxContent) -> Result<MailboxRow, ApplyError> {
    let (local_part, domain) = content.address.rsplit_once('@').unwrap_or((&content.address, ""));
    // The maildir is named after them.
    let no_folder = |part: &str| part.is_empty() || part.starts_with('.') || part.contains(['/', '\0']);
    if no_folder(local_part) || no_folder(domain) {
        return Err(ApplyError::Fail(format!("{:?} cannot be the address of a mailbox", content.address)));
    }
    Ok(MailboxRow {
        address: content.address.clone(),
        active: content.active,
        quota_bytes: i64::from(content.quota_mb) * OCTETS_PER_MB,
        aliases: content.aliases.iter().filter(|alias| **alias != content.address).cloned().collect(),
        forward_to: content.forward_to.clone(),
        password_digest: content.password.digest.clone().unwrap_or_else(|| NO_PASSWORD.to_owned()),
        password: None,
    })
}

async fn hashed(store: &Store, element: &ElementRow, content: &MailboxContent) -> Result<String, ApplyError> {
    // Without a password nobody may log in: it becomes one that nobody knows.
    let password = match open_secret(store, element, &content.password).await? {
        Some(password) => password,
        None => nobody_knows()?,
    };
    password::hash(Scheme::default(), password).await.map_err(|error| match error {
        PasswordError::Hash(_) => ApplyError::Retry(error.to_string()),
        PasswordError::Nul => ApplyError::Fail(error.to_string()),
    })
}

fn nobody_knows() -> Result<Secret, ApplyError> {
    let mut octets = [0u8; 32];
    getrandom::fill(&mut octets).map_err(|error| ApplyError::Retry(format!("no randomness: {error}")))?;
    Ok(Secret::new(octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>()))
}

fn evidence(content: &MailboxContent, now: Timestamp) -> String {
    let login = match (content.active, &content.password.digest) {
        (false, _) => "suspended: no login, mail is kept",
        (true, None) => "no login: no password is set",
        (true, Some(_)) => "login allowed",
    };
    format!(
        "{login}; {} MB, {} aliases, {} forwards; in the mail tables since {now:.0}",
        content.quota_mb,
        content.aliases.len(),
        content.forward_to.len()
    )
}
