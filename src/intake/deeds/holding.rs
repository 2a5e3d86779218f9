//! What accounts must hold (MACs, names, addresses, numbers) against what they and others hold: who has to give up what,
//! and what a push cannot have.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::account::{Account, QuarantineDays, ServiceType, Status};
use crate::store::accounts::KnownService;
use crate::store::holders::{self, Claim, HeldKind, HeldRow, Refused, Taken};
use crate::store::quarantine::{self, GivenUp, Kept, is_kept};
use crate::store::{Dialect, StoreError, Tx, domains};
use crate::vocabulary::{TenantId, Timestamp};

/// Something an account must hold from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub kind: HeldKind,
    pub value: String,
    /// External id of the service it belongs to.
    pub service: Option<String>,
}

/// What changes in what an account holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holding<'a> {
    /// Rows that end.
    released: Vec<i64>,
    /// What nobody else may have for a while.
    given_up: Vec<(HeldKind, &'a str)>,
    /// By the word of their kind and by value; with the service, and its row where that is known.
    claimed: BTreeMap<(&'static str, &'a str), Claimed<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claimed<'a> {
    kind: HeldKind,
    service: Option<&'a str>,
    service_id: Option<i64>,
}

/// What an account must hold: only what a living service, or a device of a living account, needs.
pub(super) fn wanted(account: &Account) -> Vec<Wanted> {
    if account.status == Status::Terminated {
        return Vec::new();
    }
    let living = || account.services.iter().filter(|service| account.status_of(service) != Status::Terminated);
    let mut all = Vec::new();
    let mut add = |kind: HeldKind, value: String, service: Option<&String>| {
        all.push(Wanted { kind, value, service: service.cloned() });
    };
    for device in &account.devices {
        let on = |wanted: ServiceType| {
            let mut found = living()
                .filter(|service| service.service_type == wanted && service.device.as_ref() == Some(&device.id));
            found.next().map(|service| &service.id)
        };
        add(HeldKind::Mac, device.cm_mac.to_string(), on(ServiceType::Internet).or(on(ServiceType::Voice)));
        if let Some(mta) = device.mta_mac {
            add(HeldKind::Mac, mta.to_string(), on(ServiceType::Voice));
        }
    }
    for service in living() {
        let of = Some(&service.id);
        for address in &service.static_ips {
            add(HeldKind::Address, address.to_string(), of);
        }
        for line in &service.lines {
            add(HeldKind::Number, line.number.clone(), of);
        }
        if let Some(radius) = &service.radius {
            add(HeldKind::Username, radius.username.clone(), of);
            radius.framed_ip.iter().for_each(|address| add(HeldKind::Address, address.to_string(), of));
            radius.ipv6_delegated.iter().for_each(|prefix| add(HeldKind::Address, prefix.clone(), of));
        }
        if let Some(mailbox) = &service.mailbox {
            add(HeldKind::Mailbox, mailbox.address.clone(), of);
            mailbox.aliases.iter().for_each(|alias| add(HeldKind::Mailbox, alias.clone(), of));
        }
    }
    all
}

/// What must change so that an account that holds `held` holds `wanted`; `services` are those it has now.
pub(super) fn plan<'a>(wanted: &'a [Wanted], held: &'a [HeldRow], services: &[KnownService]) -> Holding<'a> {
    let row_of = |id: &str| services.iter().find(|known| known.row.external_id == id).map(|known| known.row.id);
    let claim = |wanted: &'a Wanted| {
        let service = wanted.service.as_deref();
        let claimed = Claimed { kind: wanted.kind, service, service_id: service.and_then(row_of) };
        ((wanted.kind.as_str(), wanted.value.as_str()), claimed)
    };
    let lives = |id: i64| {
        let known = services.iter().find(|known| known.row.id == id);
        known.is_some_and(|known| wanted.iter().any(|one| one.service.as_deref() == Some(&known.row.external_id)))
    };
    let mut holding = Holding { claimed: wanted.iter().map(claim).collect(), ..Holding::default() };
    for row in held {
        let place = (row.kind.as_str(), row.value.as_str());
        let claimed = holding.claimed.get(&place);
        // A service that is new has no row yet, and nothing is held for it.
        if claimed.is_some_and(|claimed| {
            claimed.service_id == row.service_id && claimed.service.is_some() == claimed.service_id.is_some()
        }) {
            holding.claimed.remove(&place);
            continue;
        }
        // An address that a service merely changes is free at once; only what is deleted must be able to come back.
        let moved_on = row.kind == HeldKind::Address && row.service_id.is_some_and(&lives);
        if claimed.is_none() && is_kept(row.kind) && !moved_on {
            holding.given_up.push((row.kind, &row.value));
        }
        holding.released.push(row.id);
    }
    holding
}

/// What each account cannot have, in the order of `holdings`; `of` tells its row, where it has one, and its tenant.
pub(super) async fn refused(
    tx: &mut Tx,
    of: &[(Option<i64>, &TenantId)],
    holdings: &[Holding<'_>],
    now: Timestamp,
) -> Result<Vec<Refused>, StoreError> {
    let claims = || holdings.iter().flat_map(|holding| &holding.claimed);
    let all: Vec<(HeldKind, &str)> = claims().map(|((_, value), claimed)| (claimed.kind, *value)).collect();
    let taken: HashMap<(HeldKind, String), Taken> = holders::who_holds(tx, &all)
        .await?
        .into_iter()
        .map(|taken| ((taken.kind, taken.value.clone()), taken))
        .collect();
    let kinds: Vec<(HeldKind, &str)> = all.iter().copied().filter(|(kind, _)| is_kept(*kind)).collect();
    let kept: HashMap<(HeldKind, String), Kept> = quarantine::kept(tx, &kinds, now)
        .await?
        .into_iter()
        .map(|kept| ((kept.kind, kept.value.clone()), kept))
        .collect();
    let domains: BTreeSet<&str> = all.iter().filter_map(|(kind, value)| domain(*kind, value)).collect();
    let owners = domains::owners(tx, &domains).await?;
    let refused = holdings.iter().zip(of).map(|(holding, (account_id, tenant))| {
        let mut refused = Refused::default();
        let mut foreign = BTreeSet::new();
        for ((_, value), Claimed { kind, .. }) in &holding.claimed {
            let place = (*kind, (*value).to_owned());
            refused.taken.extend(taken.get(&place).filter(|taken| Some(taken.account_id) != *account_id).cloned());
            refused.kept.extend(kept.get(&place).filter(|kept| Some(kept.account_id) != *account_id).cloned());
            let owned = |domain: &&str| owners.get(*domain).is_some_and(|owner| owner != tenant.as_str());
            foreign.extend(domain(*kind, value).filter(owned));
        }
        refused.domains = foreign.into_iter().map(str::to_owned).collect();
        refused
    });
    Ok(refused.collect())
}

fn domain(kind: HeldKind, value: &str) -> Option<&str> {
    let (_, domain) = value.rsplit_once('@').filter(|_| kind == HeldKind::Mailbox)?;
    Some(domain)
}

/// Whose holding is settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Of<'a> {
    pub account_id: i64,
    pub tenant: &'a TenantId,
    pub new_account: bool,
    /// For how long what it gives up is kept from others.
    pub quarantine: QuarantineDays,
}

/// Writes what `plan` found and `refused` allows; `new_services` are the rows of services that are new.
///
/// **Errors**: `Conflict` when another transaction was a moment faster.
pub(super) async fn settle(
    tx: &mut Tx,
    of: &[Of<'_>],
    holdings: &[Holding<'_>],
    new_services: &HashMap<(i64, String), i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (mut released, mut given_up, mut claims, mut again) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (holding, of) in holdings.iter().zip(of) {
        released.extend(&holding.released);
        given_up.extend(holding.given_up.iter().map(|(kind, value)| GivenUp {
            kind: *kind,
            value,
            account_id: of.account_id,
            tenant: of.tenant.as_str(),
            days: of.quarantine,
        }));
        for ((_, value), Claimed { kind, service, service_id }) in &holding.claimed {
            let new = || service.and_then(|id| new_services.get(&(of.account_id, id.to_owned())).copied());
            claims.push(Claim { kind: *kind, value, account_id: of.account_id, service_id: service_id.or_else(new) });
            if is_kept(*kind) && !of.new_account {
                again.push((*kind, *value, of.account_id));
            }
        }
    }
    // Transactions that want the same meet in the same order.
    claims.sort_by_key(|claim| (claim.kind, claim.value));
    holders::release(tx, &released, now).await?;
    quarantine::keep(tx, &given_up, now).await?;
    quarantine::give_back(tx, &again).await?;
    holders::claim(tx, &claims, now).await?;
    // Whoever gave one up at the same time has committed by now, and what it left is seen.
    let kinds = claims.iter().filter(|claim| is_kept(claim.kind));
    let kinds: Vec<(HeldKind, &str)> = kinds.map(|claim| (claim.kind, claim.value)).collect();
    if tx.dialect() == Dialect::Postgres
        && let Some(kept) = quarantine::kept(tx, &kinds, now).await?.first()
    {
        return Err(StoreError::Conflict { constraint: format!("the {} was just given up", kept.kind.title()) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::accounts::ServiceRow;

    fn wanted(kind: HeldKind, value: &str, service: &str) -> Wanted {
        Wanted { kind, value: value.to_owned(), service: Some(service.to_owned()) }
    }

    fn held(id: i64, kind: HeldKind, value: &str, service_id: i64) -> HeldRow {
        HeldRow { id, account_id: 1, kind, value: value.to_owned(), service_id: Some(service_id) }
    }

    fn service(id: i64, external_id: &str) -> KnownService {
        let row = ServiceRow {
            id,
            account_id: 1,
            external_id: external_id.to_owned(),
            service_type: ServiceType::Email,
            plan: "mail".to_owned(),
            created_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
        };
        KnownService { row, last: None }
    }

    #[test]
    fn only_what_differs_changes_and_what_is_given_up_is_kept() {
        let services = [service(7, "m1")];
        let before = [
            held(1, HeldKind::Mailbox, "ada@acme.example", 7),
            held(2, HeldKind::Mailbox, "old@acme.example", 7),
            held(3, HeldKind::Username, "ada", 7),
            held(4, HeldKind::Number, "+15125550100", 7),
        ];
        let after = [
            wanted(HeldKind::Mailbox, "ada@acme.example", "m1"),
            wanted(HeldKind::Mailbox, "new@acme.example", "m1"),
            wanted(HeldKind::Number, "+15125550100", "v1"),
        ];
        let holding = plan(&after, &before, &services);
        assert_eq!(holding.released, [2, 3, 4], "what stays is not touched; a number that moves is claimed anew");
        assert_eq!(holding.given_up, [(HeldKind::Mailbox, "old@acme.example")]);
        let claimed: Vec<_> = holding.claimed.iter().map(|((_, value), to)| (*value, to.service_id)).collect();
        assert_eq!(claimed, [("new@acme.example", Some(7)), ("+15125550100", None)]);
    }
}
