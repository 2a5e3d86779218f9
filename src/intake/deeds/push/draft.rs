//! Drafts: what each push makes of its account, worked out before anything is written.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Considered;
use crate::account::{Account, Status};
use crate::intake::catalogs::TenantCatalog;
use crate::intake::deeds::holding::{self, Holding, Wanted};
use crate::intake::deeds::{Ground, Stop};
use crate::provision::{self, Basis, ElementDesired, ElementKind, OperatorHold};
use crate::store::accounts::{self, KnownService};
use crate::store::elements::ElementRow;
use crate::store::follow::Following;
use crate::store::holders::{self, HeldKind, HeldRow};
use crate::store::holds::{self, HoldRow};
use crate::store::{StoreError, Tx, elements, follow, jobs};
use crate::vocabulary::{AccountKey, Timestamp};

/// What is stored of accounts besides their rows, each by account.
#[derive(Default)]
pub(super) struct Known {
    pub(super) holds: HashMap<i64, Vec<HoldRow>>,
    pub(super) following: HashMap<i64, Following>,
    pub(super) services: HashMap<i64, Vec<KnownService>>,
    pub(super) held: HashMap<i64, Vec<HeldRow>>,
    pub(super) elements: HashMap<i64, Vec<ElementRow>>,
    pub(super) jobs: HashMap<i64, i64>,
}

impl Known {
    pub(super) async fn read(tx: &mut Tx, accounts: &[i64]) -> Result<Self, StoreError> {
        if accounts.is_empty() {
            return Ok(Self::default());
        }
        let mut known = Self {
            holds: holds::living_of(tx, accounts).await?,
            following: follow::of_many(tx, accounts).await?,
            ..Self::default()
        };
        for service in accounts::known_services(tx, accounts).await? {
            known.services.entry(service.row.account_id).or_default().push(service);
        }
        for held in holders::of_accounts(tx, accounts).await? {
            known.held.entry(held.account_id).or_default().push(held);
        }
        for element in elements::of_accounts_locked(tx, accounts).await? {
            known.elements.entry(element.account_id).or_default().push(element);
        }
        known.jobs = jobs::active_of_accounts(tx, accounts).await?.into_iter().collect();
        Ok(known)
    }
}

/// A push that changes its account, worked out.
pub(super) struct Draft<'a> {
    pub(super) considered: Considered<'a>,
    pub(super) holds: Vec<HoldRow>,
    pub(super) operator_holds: Vec<OperatorHold>,
    pub(super) services: Vec<KnownService>,
    pub(super) held: Vec<HeldRow>,
    pub(super) wanted: Vec<Wanted>,
    pub(super) elements: Vec<ElementRow>,
    pub(super) desired: Vec<ElementDesired>,
    /// The account leaves the version of the catalog that it was held on.
    pub(super) arrives: bool,
    pub(super) wake_at: Option<Timestamp>,
}

impl Draft<'_> {
    pub(super) fn account(&self) -> &Account {
        &self.considered.account
    }

    pub(super) fn key(&self) -> &AccountKey {
        &self.considered.asked.key
    }

    pub(super) fn id(&self) -> Option<i64> {
        self.considered.row.as_ref().map(|row| row.id)
    }

    pub(super) fn source_revision(&self) -> Option<i64> {
        let known = self.considered.row.as_ref().and_then(|row| row.source_revision);
        self.considered.asked.pushed.source_revision.or(known)
    }

    pub(super) fn revision(&self) -> i64 {
        self.considered.row.as_ref().map_or(1, |row| row.revision + 1)
    }

    /// Everything whose owner or content it may change.
    pub(super) fn touches(&self) -> impl Iterator<Item = Touched<'_>> {
        let wanted = self.wanted.iter().map(|wanted| Touched::Held(wanted.kind, &wanted.value));
        let held = self.held.iter().map(|held| Touched::Held(held.kind, &held.value));
        let desired = self.desired.iter().map(|element| Touched::Element(element.kind, &element.key));
        let elements = self.elements.iter().map(|element| Touched::Element(element.kind, &element.key));
        wanted.chain(held).chain(desired).chain(elements)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Touched<'a> {
    Held(HeldKind, &'a str),
    Element(ElementKind, &'a str),
}

pub(super) fn holdings<'a>(drafts: &'a [Draft<'_>]) -> Vec<Holding<'a>> {
    drafts.iter().map(|draft| holding::plan(&draft.wanted, &draft.held, &draft.services)).collect()
}

/// Those that touch nothing that one before them touches.
pub(super) fn apart(drafts: Vec<Draft<'_>>) -> Vec<Draft<'_>> {
    let mut touched = HashSet::new();
    let mut alone = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        let mine: HashSet<Touched> = draft.touches().collect();
        let apart = touched.is_disjoint(&mine);
        // One that waits keeps its place before those behind it.
        touched.extend(mine);
        alone.push(apart);
    }
    drop(touched);
    drafts.into_iter().zip(alone).filter_map(|(draft, alone)| alone.then_some(draft)).collect()
}

/// Works out what a push makes of its account.
pub(super) async fn draft<'a>(
    considered: Considered<'a>,
    known: &mut Known,
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<Draft<'a>, Stop> {
    let (key, account) = (&considered.asked.key, considered.account.as_ref());
    let id = considered.row.as_ref().map(|row| row.id);
    // An account that a rollout has not moved yet stays on the catalog before, unless it buys what only the newest has.
    let following = id.and_then(|id| known.following.remove(&id)).filter(|following| following.held);
    let from = match following {
        Some(following) => Some(ground.catalogs.version(tx, &key.tenant, following.from_version).await?),
        None => None,
    };
    let sells_all = |from: &&Arc<TenantCatalog>| {
        account.services.iter().all(|service| from.known.plans.contains_key(&service.plan))
    };
    let held_on = from.as_ref().filter(sells_all);
    let holds = id.and_then(|id| known.holds.remove(&id)).unwrap_or_default();
    let operator_holds: Vec<OperatorHold> = holds.iter().map(|row| row.held.clone()).collect();
    let basis = Basis {
        account,
        known: held_on.map_or(&considered.catalog.known, |held_on| &held_on.known),
        external_id: &key.external_id,
        operator_holds: &operator_holds,
        secrets: &considered.after,
        closed: account.status == Status::Terminated,
    };
    Ok(Draft {
        wanted: holding::wanted(account),
        desired: provision::elements(&basis, &[], now),
        wake_at: provision::next_change(&basis, now),
        arrives: from.is_some() && held_on.is_none(),
        services: id.and_then(|id| known.services.remove(&id)).unwrap_or_default(),
        held: id.and_then(|id| known.held.remove(&id)).unwrap_or_default(),
        elements: id.and_then(|id| known.elements.remove(&id)).unwrap_or_default(),
        holds,
        operator_holds,
        considered,
    })
}
