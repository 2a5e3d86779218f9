//! One account of a snapshot beside the one that is stored: a class for the subscriber and for each service, and what
//! would make ours like theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::differ::{Difference, differences};
use crate::account::{Account, SecretDigests, Service, ServiceType, Status, in_order};

/// Where a subscriber or a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Both have it, and all of it is the same.
    Matched,
    /// Both have it, and it differs.
    Mismatch,
    /// They have it, we do not.
    MissingHere,
    /// We have it, they do not.
    MissingThere,
    /// The snapshot tells it once more.
    Duplicate,
    /// It differs, and a change is under way here.
    InFlight,
    /// The snapshot's record of it cannot be read.
    Quarantined,
}

/// An account as the snapshot has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Theirs {
    account: Account,
    source_revision: Option<i64>,
    secrets: BTreeMap<(String, String), Option<String>>,
}

/// An account as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Ours {
    account: Account,
    pub tag: String,
    pub source_revision: Option<i64>,
    pub closed: bool,
    /// Why a difference may be a matter of time alone.
    pub fresh: Option<&'static str>,
    pub secrets: SecretDigests,
}

/// What the snapshot says of one account.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Nothing,
    /// Its rows, at least one.
    Rows(Vec<Theirs>),
    /// A row of it cannot be read: how many rows it has, and why.
    Unreadable {
        rows: u64,
        reason: String,
    },
}

/// What a service counts as.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Kind {
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    pub plan: String,
    /// The stricter of the account's and the service's.
    pub status: Status,
}

/// A subscriber (`service: None`) or a service, classified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub account: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    pub class: Class,
    /// How many rows of the snapshot it stands for; 0: it is not there.
    pub there: u64,
    /// Whether we have it.
    pub here: bool,
    /// What a service counts as on each side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Kind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ours: Option<Kind>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What would make our account like theirs; bound to what both were when it was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Create {
        content: String,
    },
    Update {
        tag: String,
        content: String,
        /// Services that go.
        removes: u64,
    },
    /// Only where the snapshot is proven to hold everybody.
    Delete {
        tag: String,
    },
}

/// One account, decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub findings: Vec<Finding>,
    pub action: Option<Action>,
}

impl Theirs {
    /// `secrets` are the keyed hashes of what it names; `None`: it takes one away.
    pub fn new(
        account: Account,
        source_revision: Option<i64>,
        secrets: BTreeMap<(String, String), Option<String>>,
    ) -> Self {
        Self { account: comparable(account), source_revision, secrets }
    }

    pub fn account(&self) -> &Account {
        &self.account
    }

    /// SHA-256 of what it says, however it was written down. Hex.
    pub fn content(&self) -> String {
        let document = serde_json::to_vec(&self.account).expect("an account document has only string keys");
        let mut hash = Sha256::new();
        hash.update(&document);
        for ((service, field), digest) in &self.secrets {
            for part in [service, field, digest.as_deref().unwrap_or_default()] {
                hash.update([0]);
                hash.update(part.as_bytes());
            }
        }
        crate::vocabulary::hex(hash.finalize())
    }
}

impl Ours {
    pub fn new(account: Account, tag: String) -> Self {
        let account = comparable(account);
        Self { account, tag, source_revision: None, closed: false, fresh: None, secrets: SecretDigests::new() }
    }

    pub fn account(&self) -> &Account {
        &self.account
    }
}

/// Decides one account.
///
/// Of several rows the one with the newest revision counts, of equal ones the one whose content hash is the least: an order
/// of rows is no fact. Where they contradict each other nothing is planned.
pub fn classify(id: &str, told: &Told, stored: Option<&Ours>) -> Verdict {
    let living = stored.filter(|ours| !ours.closed);
    match told {
        Told::Unreadable { rows, reason } => {
            let mut findings = vec![Finding { there: *rows, ..subscriber(id, Class::Quarantined, living) }];
            findings.extend(living.iter().flat_map(|ours| ours_alone(id, ours, Class::Quarantined)));
            findings.iter_mut().for_each(|finding| finding.reason = Some(reason.clone()));
            Verdict { findings, action: None }
        }
        Told::Nothing => living.map_or_else(Verdict::default, |ours| gone(id, ours)),
        Told::Rows(rows) => {
            let rows = in_turn(rows);
            let Some(((first, content), others)) = rows.split_first() else { return Verdict::default() };
            let mut verdict = match living {
                Some(ours) => both(id, first, ours),
                None => new(id, first, stored),
            };
            let contradicted = others.iter().any(|(_, other)| other != content);
            if contradicted {
                verdict.action = None;
            }
            for (other, _) in others {
                let word = if contradicted { "told again, otherwise" } else { "told again" };
                let mut again = alone(id, other, Class::Duplicate);
                again.iter_mut().for_each(|finding| finding.reason = Some(word.to_owned()));
                verdict.findings.extend(again);
            }
            verdict
        }
    }
}

impl Told {
    /// The row that counts.
    pub fn first(&self) -> Option<&Theirs> {
        match self {
            Told::Rows(rows) => in_turn(rows).first().map(|(row, _)| *row),
            _ => None,
        }
    }
}

/// Rows of one account, the one that counts first, each with its content where there are several.
fn in_turn(rows: &[Theirs]) -> Vec<(&Theirs, Option<String>)> {
    let mut turns: Vec<(&Theirs, Option<String>)> =
        rows.iter().map(|row| (row, (rows.len() > 1).then(|| row.content()))).collect();
    turns.sort_by(|(row, content), (other, against)| {
        other.source_revision.cmp(&row.source_revision).then_with(|| content.cmp(against))
    });
    turns
}

/// They do not name it.
fn gone(id: &str, ours: &Ours) -> Verdict {
    let class = if ours.fresh.is_some() { Class::InFlight } else { Class::MissingThere };
    let mut findings = vec![subscriber(id, class, Some(ours))];
    findings.extend(ours_alone(id, ours, class));
    explain(&mut findings, ours.fresh);
    let action = (class == Class::MissingThere).then(|| Action::Delete { tag: ours.tag.clone() });
    Verdict { findings, action }
}

/// We do not have it, or not any more.
fn new(id: &str, theirs: &Theirs, tombstone: Option<&Ours>) -> Verdict {
    let fresh = tombstone.and_then(|ours| ours.fresh.or(older(theirs, ours, true)));
    let class = if fresh.is_some() { Class::InFlight } else { Class::MissingHere };
    let mut findings = alone(id, theirs, class);
    explain(&mut findings, fresh);
    let action = (class == Class::MissingHere).then(|| Action::Create { content: theirs.content() });
    Verdict { findings, action }
}

/// Both have it.
fn both(id: &str, theirs: &Theirs, ours: &Ours) -> Verdict {
    let fresh = ours.fresh.or(older(theirs, ours, false));
    let unlike = |class: Class| if fresh.is_some() { Class::InFlight } else { class };
    let (we, they) = (ours.account(), theirs.account());
    let mut findings = Vec::with_capacity(1 + they.services.len());
    // Most are alike; only what is not is taken apart.
    let differs = if we == they { Vec::new() } else { differences(&document(we), &document(they)) };
    let class = if differs.is_empty() { Class::Matched } else { unlike(Class::Mismatch) };
    findings.push(Finding { there: 1, differences: differs, ..subscriber(id, class, Some(ours)) });
    let names: BTreeSet<&str> = we.services.iter().chain(&they.services).map(|service| service.id.as_str()).collect();
    let mut removes = 0;
    for name in names {
        let (here, there) = (we.service(name), they.service(name));
        let (class, differs) = match (here, there) {
            (Some(here), Some(there)) => {
                let differs = service_differences((we, here, &ours.secrets), (they, there, &theirs.secrets));
                (if differs.is_empty() { Class::Matched } else { unlike(Class::Mismatch) }, differs)
            }
            (Some(_), None) => {
                removes += 1;
                (unlike(Class::MissingThere), Vec::new())
            }
            _ => (unlike(Class::MissingHere), Vec::new()),
        };
        findings.push(Finding {
            account: id.to_owned(),
            service: Some(name.to_owned()),
            class,
            there: u64::from(there.is_some()),
            here: here.is_some(),
            theirs: there.map(|service| Kind::of(they, service)),
            ours: here.map(|service| Kind::of(we, service)),
            differences: differs,
            reason: None,
        });
    }
    explain(&mut findings, fresh);
    let differs = findings.iter().any(|finding| !matches!(finding.class, Class::Matched | Class::InFlight));
    let action = differs.then(|| Action::Update { tag: ours.tag.clone(), content: theirs.content(), removes });
    Verdict { findings, action }
}

/// Whether we know something newer than the snapshot. After a closing an equal revision is older too.
fn older(theirs: &Theirs, ours: &Ours, closed: bool) -> Option<&'static str> {
    let (told, known) = (theirs.source_revision?, ours.source_revision?);
    (told < known || (closed && told == known)).then_some("the snapshot tells an older revision than was pushed")
}

fn explain(findings: &mut [Finding], fresh: Option<&'static str>) {
    for finding in findings.iter_mut().filter(|finding| finding.class == Class::InFlight) {
        finding.reason = fresh.map(str::to_owned);
    }
}

fn subscriber(id: &str, class: Class, ours: Option<&Ours>) -> Finding {
    Finding {
        account: id.to_owned(),
        service: None,
        class,
        there: 0,
        here: ours.is_some(),
        theirs: None,
        ours: None,
        differences: Vec::new(),
        reason: None,
    }
}

/// A row of theirs by itself.
fn alone(id: &str, theirs: &Theirs, class: Class) -> Vec<Finding> {
    let mut findings = vec![Finding { there: 1, ..subscriber(id, class, None) }];
    findings.extend(theirs.account.services.iter().map(|service| Finding {
        service: Some(service.id.clone()),
        there: 1,
        theirs: Some(Kind::of(&theirs.account, service)),
        ..subscriber(id, class, None)
    }));
    findings
}

/// The services of ours by themselves.
fn ours_alone(id: &str, ours: &Ours, class: Class) -> Vec<Finding> {
    let finding = |service: &Service| Finding {
        service: Some(service.id.clone()),
        ours: Some(Kind::of(&ours.account, service)),
        ..subscriber(id, class, Some(ours))
    };
    ours.account.services.iter().map(finding).collect()
}

fn document(account: &Account) -> Value {
    let mut document = json!(account);
    if let Some(members) = document.as_object_mut() {
        members.shift_remove("services");
    }
    document
}

/// Digests of the secrets a list names, by (service, field); `None`: it takes one away.
type NamedSecrets = BTreeMap<(String, String), Option<String>>;

fn service_differences(
    (we, here, kept): (&Account, &Service, &SecretDigests),
    (they, there, named): (&Account, &Service, &NamedSecrets),
) -> Vec<Difference> {
    let (own, their) = (we.status_of(here), they.status_of(there));
    let mut found = if here == there { Vec::new() } else { differences(&json!(here), &json!(there)) };
    if own != their {
        // It counts by this one; what the service says of itself follows from it.
        found.retain(|difference| difference.field != "/status");
        found.insert(0, Difference { field: "/status".to_owned(), ours: json!(own), theirs: json!(their) });
    }
    for ((service, field), digest) in named.iter().filter(|((service, _), _)| *service == here.id) {
        let known = kept.get(&(service.clone(), field.clone()));
        if known != digest.as_ref() {
            let shown = |secret: Option<&String>| secret.map_or(Value::Null, |_| json!("(secret)"));
            let field = format!("/{}", field.replace('.', "/"));
            found.push(Difference { field, ours: shown(known), theirs: shown(digest.as_ref()) });
        }
    }
    found
}

/// An account as it is compared: in order, and without the days that we worked out ourselves.
fn comparable(account: Account) -> Account {
    let mut account = in_order(account);
    for change in account.services.iter_mut().flat_map(|service| &mut service.scheduled) {
        change.due = None;
    }
    account
}

impl Kind {
    pub fn of(account: &Account, service: &Service) -> Self {
        Self { service_type: service.service_type, plan: service.plan.clone(), status: account.status_of(service) }
    }
}

impl Class {
    pub const ALL: [Class; 7] = [
        Class::Matched,
        Class::Mismatch,
        Class::MissingHere,
        Class::MissingThere,
        Class::Duplicate,
        Class::InFlight,
        Class::Quarantined,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Class::Matched => "matched",
            Class::Mismatch => "mismatch",
            Class::MissingHere => "missing_here",
            Class::MissingThere => "missing_there",
            Class::Duplicate => "duplicate",
            Class::InFlight => "in_flight",
            Class::Quarantined => "quarantined",
        }
    }

    /// Whether somebody must do something about it.
    pub fn is_difference(self) -> bool {
        !matches!(self, Class::Matched | Class::InFlight)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Class {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let words = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| format!("classes are {}", words()))
    }
}
