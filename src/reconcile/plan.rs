//! The plan: how many accounts would be made, changed and closed, under one hash, and how many closings are allowed.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::classify::Action;
use crate::mediation::Completeness;
use crate::vocabulary::hex;

/// Whether absence from a snapshot means anything, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "detail", rename_all = "snake_case")]
pub enum Proof {
    /// By its own trailer, a manifest, or whoever sent it.
    Proven(String),
    Unproven,
    /// It is not what it says it is.
    Refuted(String),
}

/// What a plan can do to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Create,
    Update,
    Close,
}

/// The steps that are wanted, as `create,update`; absent: all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steps(BTreeSet<Step>);

/// What is to be done, added up step by step in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub creates: u64,
    pub updates: u64,
    /// Services that updates take away.
    pub removes: u64,
    /// Accounts that the snapshot does not name.
    pub absent: u64,
    kept: Vec<[u8; 32]>,
    deleting: Vec<[u8; 32]>,
}

/// How much a plan may take away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Accounts closed and services taken away, a day.
    pub allowed: u64,
    /// By plans of the last 24 hours.
    pub used: u64,
}

impl Plan {
    /// An account that stays as it is, for this step is not wanted.
    pub fn pass(&mut self, action: &Action) {
        self.absent += u64::from(action.step() == Step::Close);
    }

    pub fn add(&mut self, account: &str, action: &Action) {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        match action {
            Action::Create { content } => {
                ["create", account, "", content].into_iter().for_each(&mut part);
                self.creates += 1;
            }
            Action::Update { tag, content, removes } => {
                ["update", account, tag, content].into_iter().for_each(&mut part);
                self.updates += 1;
                self.removes += removes;
            }
            Action::Delete { tag } => {
                ["delete", account, tag, ""].into_iter().for_each(&mut part);
                self.absent += 1;
            }
        }
        let digest = hash.finalize().into();
        match action {
            Action::Delete { .. } => self.deleting.push(digest),
            _ => self.kept.push(digest),
        }
    }

    /// Accounts it closes: none, unless the snapshot is proven whole.
    pub fn deletes(&self, proof: &Proof) -> u64 {
        if proof.is_proven() { self.deleting.len() as u64 } else { 0 }
    }

    pub fn is_empty(&self, proof: &Proof) -> bool {
        self.creates + self.updates + self.deletes(proof) == 0
    }

    /// SHA-256 over whose plan it is and every step, whatever the order they came in. Hex.
    pub fn hash(&self, tenant: &str, source: &str, proof: &Proof) -> String {
        let mut steps: Vec<&[u8; 32]> = self.kept.iter().collect();
        if proof.is_proven() {
            steps.extend(&self.deleting);
        }
        steps.sort_unstable();
        let mut hash = Sha256::new();
        for part in ["lastmile plan 1", tenant, source] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        for step in steps {
            hash.update(step);
        }
        hex(hash.finalize())
    }

    /// Closings and services taken away.
    pub fn losses(&self, proof: &Proof) -> u64 {
        self.deletes(proof) + self.removes
    }
}

impl Guard {
    /// Unless somebody says otherwise: 25 a day or 2 % of our living accounts, whichever is more.
    pub fn new(ours: u64, used: u64, said: Option<u64>) -> Self {
        Self { allowed: said.unwrap_or_else(|| DELETIONS_ALWAYS.max(ours / DELETIONS_PART)), used }
    }

    /// Why a plan with so many losses may not be applied.
    pub fn refusal(&self, losses: u64) -> Option<String> {
        let (allowed, used) = (self.allowed, self.used);
        let before =
            if used > 0 { format!(", and {used} were taken away in the last 24 hours") } else { String::new() };
        (losses > 0 && losses.saturating_add(used) > allowed)
            .then(|| format!("the plan takes away {losses} accounts and services{before}; {allowed} a day are allowed"))
    }
}

impl Action {
    pub fn step(&self) -> Step {
        match self {
            Action::Create { .. } => Step::Create,
            Action::Update { .. } => Step::Update,
            Action::Delete { .. } => Step::Close,
        }
    }
}

impl Step {
    const ALL: [Step; 3] = [Step::Create, Step::Update, Step::Close];

    pub fn as_str(self) -> &'static str {
        match self {
            Step::Create => "create",
            Step::Update => "update",
            Step::Close => "close",
        }
    }
}

impl Steps {
    pub fn holds(&self, step: Step) -> bool {
        self.0.contains(&step)
    }
}

impl FromStr for Steps {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let step = |word: &str| {
            let found = Step::ALL.into_iter().find(|step| step.as_str() == word.trim());
            found.ok_or_else(|| format!("{word:?} is no step; they are create, update, close"))
        };
        text.split(',').map(step).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(|step| step.as_str()).collect();
        f.write_str(&words.join(","))
    }
}

impl Proof {
    /// `said`: whoever sent it says that it is whole, or a manifest does; that never outweighs a snapshot that is not what
    /// it says itself.
    pub fn of(completeness: &Completeness, said: Option<&str>) -> Self {
        match (completeness, said) {
            (Completeness::Refuted(why), _) => Proof::Refuted(why.clone()),
            (Completeness::Proven, _) => Proof::Proven("its own count".to_owned()),
            (Completeness::Unproven, Some(said)) => Proof::Proven(said.to_owned()),
            (Completeness::Unproven, None) => Proof::Unproven,
        }
    }

    pub fn is_proven(&self) -> bool {
        matches!(self, Proof::Proven(_))
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proof::Proven(by) => write!(f, "proven by {by}"),
            Proof::Unproven => f.write_str("not proven, so that nobody is closed for being absent"),
            Proof::Refuted(why) => write!(f, "refuted ({why}), so that nobody is closed for being absent"),
        }
    }
}

const DELETIONS_ALWAYS: u64 = 25;
const DELETIONS_PART: u64 = 50;
