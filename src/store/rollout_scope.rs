//! Which modems a rollout would reach and what moving them means, counted before anything is begun.
//!
//! Comes in: an operator's choice, and a function that knows behind which CMTS an address is. Goes out: the rollout's
//! members in their order, and how many of them boot. Writes nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::elements::{self, ElementRow};
use super::rollouts::Member;
use super::{Store, StoreError, Tx, devices, follow};
use crate::provision::{CmContent, Content, DeviceKind, RolloutMode};
use crate::vocabulary::MacAddress;

/// The modems an operator means: every condition that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// `None`: only those of `macs`.
    pub which: Option<Which>,
    pub plan: Option<String>,
    /// How the model begins.
    pub model: Option<String>,
    /// The CMTS it was last seen behind.
    pub cmts: Option<String>,
    /// Empty: any.
    pub macs: Vec<MacAddress>,
}

/// Where the modems of a rollout stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// Their accounts were left on the catalog before by `catalog apply --hold`.
    Held,
    /// Their file on offer differs from the one they run.
    Behind,
    All,
}

/// What a rollout would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Scope {
    pub modems: u64,
    /// Modems that it makes boot.
    pub reboot: u64,
    pub reboot_with_voice: u64,
    /// Modems that were never seen: they take their file when they boot.
    pub never_seen: u64,
    pub by_cmts: BTreeMap<String, u64>,
}

/// Rows read in one go.
const PAGE: i64 = 1000;
/// Stands for modems that are behind no CMTS that is known.
const NO_CMTS: &str = "-";

impl Choice {
    /// Whether it names any modems at all: a slip must not mean everybody.
    pub fn names_some(&self) -> bool {
        self.which.is_some() || !self.macs.is_empty()
    }
}

/// The modems of a tenant that a choice means, and what moving them in this mode means.
pub async fn choose(
    store: &Store,
    tenant: &str,
    choice: &Choice,
    mode: RolloutMode,
    cmts_of: &(dyn Fn(IpAddr) -> Option<String> + Send + Sync),
) -> Result<(Vec<Member>, Scope), StoreError> {
    let (mut members, mut scope, mut after) = (Vec::new(), Scope::default(), 0);
    loop {
        // A transaction a page: a long list must not hold back the database's own cleaning.
        let mut tx = store.read().await?;
        let page = elements::of_kind(&mut tx, DeviceKind::Cm.element(), after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for element in page.iter().filter(|element| element.tenant == tenant) {
            let Some(cm) = meant(element, choice) else { continue };
            let known = devices::one(&mut tx, element.id).await?;
            let held = choice.which == Some(Which::Held) && is_held(&mut tx, element.account_id).await?;
            let behind = known.is_behind();
            match choice.which {
                Some(Which::Held) if !held => continue,
                Some(Which::Behind) if !behind => continue,
                _ => {}
            }
            let address = element.last_seen_from.as_deref().and_then(|from| from.parse().ok());
            let cmts = address.and_then(cmts_of).unwrap_or_else(|| NO_CMTS.to_owned());
            if choice.cmts.as_ref().is_some_and(|name| *name != cmts) {
                continue;
            }
            scope.count(&cmts, cm.voice, known.running.is_some(), boots(mode, held, behind));
            let (element_id, account_id) = (element.id, element.account_id);
            members.push(Member { element_id, account_id, mac: element.key.clone(), cmts, voice: cm.voice });
        }
    }
    Ok((members, scope))
}

fn meant<'a>(element: &'a ElementRow, choice: &Choice) -> Option<&'a CmContent> {
    let Content::Cm(cm) = &element.desired else { return None };
    let of_plan = choice.plan.is_none() || cm.plan == choice.plan;
    let model = cm.model.as_deref().unwrap_or_default();
    let of_model = choice.model.as_deref().is_none_or(|begin| model.starts_with(begin));
    let named = choice.macs.is_empty() || choice.macs.contains(&cm.mac);
    (of_plan && of_model && named).then_some(cm)
}

async fn is_held(tx: &mut Tx, account_id: i64) -> Result<bool, StoreError> {
    Ok(follow::of(tx, account_id).await?.is_some_and(|following| following.held))
}

/// Whether the rollout makes the modem boot. What a held account will want is known when it is moved: it counts.
fn boots(mode: RolloutMode, held: bool, behind: bool) -> bool {
    match mode {
        RolloutMode::NextBoot => false,
        RolloutMode::Reset => held || behind,
        RolloutMode::ResetAll => true,
    }
}

impl Scope {
    fn count(&mut self, cmts: &str, voice: bool, seen: bool, boots: bool) {
        self.modems += 1;
        *self.by_cmts.entry(cmts.to_owned()).or_default() += 1;
        self.never_seen += u64::from(!seen);
        if boots && seen {
            self.reboot += 1;
            self.reboot_with_voice += u64::from(voice);
        }
    }
}
