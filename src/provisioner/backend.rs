//! The backends an element can be brought to, and what they answer: how far it is, or whether trying again helps.
//!
//! Comes in: an element as claimed. Goes out: `Progress`, or an `ApplyError` that says what next. A backend that the
//! configuration does not name lets its jobs wait, with the reason.

use super::aaa::{self, Aaa};
use super::device::{DeviceOutcome, Devices};
use super::kea::Kea;
use super::mailbox::MailHost;
use super::mta::{OpenedSecrets, secrets_of};
use crate::provision::{Content, ElementKind, SecretRef};
use crate::store::elements::{ElementRow, Progress};
use crate::store::jobs::ClaimedJob;
use crate::store::secrets::{self, SecretPlace};
use crate::store::{Store, StoreError};
use crate::vocabulary::{Secret, Timestamp};

/// Where elements are brought. `None`: the section is missing from the configuration.
#[derive(Clone, Default)]
pub struct Backends {
    pub devices: Option<Devices>,
    pub kea: Option<Kea>,
    pub mail: Option<MailHost>,
    pub aaa: Option<Aaa>,
}

/// How far an attempt came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Rows of another program: they stand.
    Reached(Progress),
    /// A device: one step of several.
    Device(Box<DeviceOutcome>),
}

/// Why an element was not brought to its desired state. The sentence goes to `job list` and the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The backend as a whole cannot be used now: other elements would fare the same. Try again later.
    #[error("{0}")]
    Away(String),
    /// The configuration names no such backend. The job waits for one.
    #[error("{0}")]
    NotHere(String),
    /// This element cannot be brought there now. Try again later.
    #[error("{0}")]
    Retry(String),
    /// A person must mend something first.
    #[error("{0}")]
    Fail(String),
}

impl Backends {
    /// Makes the files and tables of a backend where they are missing, before the first element comes.
    pub async fn prepare(&self, kind: ElementKind) -> Result<(), StoreError> {
        match kind {
            ElementKind::Mailbox => match &self.mail {
                Some(mail) => mail.database.prepare().await,
                None => Ok(()),
            },
            ElementKind::Aaa => match &self.aaa {
                Some(aaa) => aaa.prepare().await,
                None => Ok(()),
            },
            ElementKind::Cm | ElementKind::Mta => Ok(()),
        }
    }

    /// Why no element of a kind is brought anywhere: the configuration names no backend for it.
    pub fn missing(&self, kind: ElementKind) -> Option<ApplyError> {
        let is_there = match kind {
            ElementKind::Cm | ElementKind::Mta => self.devices.is_some(),
            ElementKind::Mailbox => self.mail.is_some(),
            ElementKind::Aaa => self.aaa.is_some(),
        };
        (!is_there).then(|| not_here(kind))
    }

    /// Brings an element to its desired content, or a step nearer. Safe to repeat. `random` spreads what is tried again.
    pub async fn apply(
        &self,
        store: &Store,
        job: &ClaimedJob,
        random: u64,
        now: Timestamp,
    ) -> Result<Outcome, ApplyError> {
        let element = &job.element;
        let missing = || not_here(element.kind);
        match element.kind {
            ElementKind::Cm | ElementKind::Mta => {
                let devices = self.devices.as_ref().ok_or_else(missing)?;
                let mut opened = OpenedSecrets::new();
                for reference in secrets_of(&element.desired) {
                    if let Some(secret) = open_secret(store, element, reference).await? {
                        opened.insert((reference.service.clone(), reference.field.clone()), secret);
                    }
                }
                if let Some(kea) = &self.kea {
                    // What Kea is told must have a file that works; and Kea must know it before the device boots.
                    devices.plant().offer(element, opened.clone()).map_err(ApplyError::Fail)?;
                    kea.apply(store.sealer(), element).await?;
                }
                devices.apply(store, job, opened, random, now).await
            }
            ElementKind::Mailbox => {
                let mail = self.mail.as_ref().ok_or_else(missing)?;
                mail.apply(store, element, now).await.map(Outcome::Reached)
            }
            ElementKind::Aaa => {
                let aaa = self.aaa.as_ref().ok_or_else(missing)?;
                aaa::apply(aaa, store, element, now).await.map(Outcome::Reached)
            }
        }
    }
}

impl Backends {
    /// How the rows of another program differ from what is desired, in words; `None`: not at all, or nothing can be read.
    ///
    /// **Errors**: the backend is away, or what is needed to compare cannot be read.
    pub async fn check(
        &self,
        store: &Store,
        element: &ElementRow,
        now: Timestamp,
    ) -> Result<Option<String>, ApplyError> {
        match (element.kind, &self.aaa, &self.mail) {
            (ElementKind::Aaa, Some(aaa), _) => aaa::check(aaa, store, element).await,
            (ElementKind::Mailbox, _, Some(mail)) => mail.check(store, element, now).await,
            (ElementKind::Cm | ElementKind::Mta, ..) => match &self.kea {
                Some(kea) => {
                    let drift = kea.check(store.sealer(), element).await?;
                    Ok((!drift.is_empty()).then(|| drift.join("; ")))
                }
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Whether `check` can tell anything of a kind.
    pub fn checks(&self, kind: ElementKind) -> bool {
        match kind {
            ElementKind::Aaa => self.aaa.is_some(),
            ElementKind::Mailbox => self.mail.is_some(),
            ElementKind::Cm | ElementKind::Mta => self.kea.is_some(),
        }
    }
}

/// The secret an element's content names. `None`: none is stored.
pub(super) async fn open_secret(
    store: &Store,
    element: &ElementRow,
    reference: &SecretRef,
) -> Result<Option<Secret>, ApplyError> {
    Ok(open_named_secret(store, element, reference).await?.map(|(secret, _)| secret))
}

/// As `open_secret`, with the digest of the secret that is stored now, as content names it.
pub(super) async fn open_named_secret(
    store: &Store,
    element: &ElementRow,
    reference: &SecretRef,
) -> Result<Option<(Secret, String)>, ApplyError> {
    let place = SecretPlace {
        tenant: &element.tenant,
        account_id: element.account_id,
        service: &reference.service,
        field: &reference.field,
    };
    let read = async {
        let mut tx = store.read().await?;
        secrets::open_named(&mut tx, store.sealer(), place).await
    };
    read.await.map_err(|error| match error {
        StoreError::Corrupt { .. } => ApplyError::Fail(format!(
            "the stored {} does not open with the key in force; push it again",
            reference.field
        )),
        error => ApplyError::Retry(format!("the {} could not be read: {error}", reference.field)),
    })
}

/// What an error of another program's database means for the element.
pub(super) fn foreign(database: &str, error: StoreError) -> ApplyError {
    match error {
        StoreError::Unavailable(reason) => ApplyError::Away(format!("{database} cannot be used now: {reason}")),
        StoreError::Configuration(reason) => ApplyError::Away(format!("{database}: {reason}")),
        // A missing table or right concerns every element alike and is mended over there, without a word to us.
        StoreError::Database(reason) => ApplyError::Away(format!("{database} answers: {reason}")),
        StoreError::Conflict { constraint } => ApplyError::Fail(format!("{database} refused the rows: {constraint}")),
        error @ StoreError::Corrupt { .. } => ApplyError::Fail(format!("{database}: {error}")),
    }
}

/// A content of another kind than its element's can only be a fault of ours.
pub(super) fn foreign_content(element: &ElementRow, content: &Content) -> ApplyError {
    let kind = match content {
        Content::Cm(_) => "cm",
        Content::Mta(_) => "mta",
        Content::Mailbox(_) => "mailbox",
        Content::Aaa(_) => "aaa",
        Content::Absent => "absent",
    };
    ApplyError::Fail(format!("the element is of kind {} and its content of kind {kind}", element.kind))
}

fn not_here(kind: ElementKind) -> ApplyError {
    let (section, what) = match kind {
        ElementKind::Cm | ElementKind::Mta => ("[tftp]", "modems"),
        ElementKind::Mailbox => ("[mail]", "mailboxes"),
        ElementKind::Aaa => ("[aaa]", "RADIUS logins"),
    };
    ApplyError::NotHere(format!("no {section} section: {what} are not provisioned here"))
}
