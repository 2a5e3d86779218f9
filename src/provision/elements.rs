//! What must exist for an account at an instant: a pure function of its document, the catalog and the holds in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::devices::{cm, mta};
use super::element::{AaaAccess, AaaContent, Content, ElementDesired, ElementKind, MailboxContent, SecretRef};
use crate::account::{
    Account, Addon, Hold, HoldKind, Known, KnownPlan, MAILBOX_PASSWORD, Moment, RADIUS_PASSWORD, RadiusProfile,
    SecretDigests, Service, Status, Treatment,
};
use crate::vocabulary::{Timestamp, Zone};

/// A hold of an operator; it survives every push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorHold {
    /// External id of the one service it covers; `None`: all of them.
    pub service: Option<String>,
    pub hold: Hold,
}

/// Everything the elements of one account follow from.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    pub account: &'a Account,
    /// The account's id at its billing system.
    pub external_id: &'a str,
    pub known: &'a Known,
    pub operator_holds: &'a [OperatorHold],
    /// Keyed hashes of the account's secrets.
    pub secrets: &'a SecretDigests,
    /// The account was closed: nothing of it may remain.
    pub closed: bool,
}

/// Quota of a mailbox where neither it nor its plan names one.
pub const DEFAULT_QUOTA_MB: u32 = 1024;

/// The elements that must exist at `now`, and as `Absent` those of `existing` that must go.
///
/// **Shape**: sorted by kind and key, each once.
pub fn elements(basis: &Basis, existing: &[(ElementKind, String)], now: Timestamp) -> Vec<ElementDesired> {
    let account = basis.account.at(now);
    let basis = &Basis { account: &account, ..*basis };
    let mut wanted: BTreeMap<(ElementKind, String), ElementDesired> = BTreeMap::new();
    let mut add = |element: ElementDesired| {
        wanted.insert((element.kind, element.key.clone()), element);
    };
    if !basis.closed {
        for device in &basis.account.devices {
            cm(basis, device, now).into_iter().for_each(&mut add);
            mta(basis, device, now).into_iter().for_each(&mut add);
        }
        for service in living(basis.account) {
            aaa(basis, service, now).into_iter().for_each(&mut add);
            mailbox(basis, service, now).into_iter().for_each(&mut add);
        }
    }
    for (kind, key) in existing {
        wanted.entry((*kind, key.clone())).or_insert_with(|| ElementDesired {
            kind: *kind,
            key: key.clone(),
            services: Vec::new(),
            content: Content::Absent,
        });
    }
    wanted.into_values().collect()
}

/// The next instant after `now` at which the elements may become others by themselves: the edge of a hold, or the
/// beginning of a service. `None`: only a push or an operator changes them.
pub fn next_change(basis: &Basis, now: Timestamp) -> Option<Timestamp> {
    if basis.closed {
        return None;
    }
    let account = basis.account.at(now);
    let basis = &Basis { account: &account, ..*basis };
    let holds = basis.account.holds.iter().chain(basis.operator_holds.iter().map(|held| &held.hold));
    let edges = holds.flat_map(|hold| [hold.from, hold.until]).flatten();
    let starts = living(basis.account).filter_map(|service| network_from(service, basis.known));
    let addons = living(basis.account).flat_map(|service| &service.addons);
    let addons = addons.flat_map(|addon| self::edges(addon, basis.known)).flatten();
    let scheduled = basis.account.next_scheduled(now);
    edges.chain(starts).chain(addons).chain(scheduled).filter(|at| *at > now).min()
}

/// What the strictest hold in force does to a service, `Treatment::None` without one.
pub fn treatment(basis: &Basis, service: &Service, now: Timestamp) -> Treatment {
    let by_status = (basis.account.status_of(service) == Status::Suspended).then(|| {
        let pushed = basis.account.holds.iter().find(|hold| hold.kind == HoldKind::Nonpay && hold.in_force(now));
        pushed.and_then(|hold| hold.treatment.clone()).unwrap_or_else(|| basis.known.treatment(HoldKind::Nonpay))
    });
    let operator = basis.operator_holds.iter().filter(|held| held.service.as_ref().is_none_or(|id| *id == service.id));
    let holds = basis.account.holds.iter().chain(operator.map(|held| &held.hold));
    holds
        .filter(|hold| hold.in_force(now))
        .map(|hold| hold.treatment.clone().unwrap_or_else(|| basis.known.treatment(hold.kind)))
        .chain(by_status)
        .reduce(|a, b| stricter(a, b, basis.known))
        .unwrap_or(Treatment::None)
}

/// The stricter of two treatments; of two throttles the slower.
fn stricter(a: Treatment, b: Treatment, known: &Known) -> Treatment {
    match (&a, &b) {
        (Treatment::Throttle(first), Treatment::Throttle(second)) => {
            let rate = |profile: &str| super::devices::throttled_rates(profile, known).0;
            if (rate(second), second) < (rate(first), first) { b } else { a }
        }
        _ => a.max(b),
    }
}

pub(super) fn living(account: &Account) -> impl Iterator<Item = &Service> {
    account.services.iter().filter(|service| account.status_of(service) != Status::Terminated)
}

fn network_from(service: &Service, known: &Known) -> Option<Timestamp> {
    service.network_from.map(|from| from.at(known.zone.as_ref().unwrap_or(&Zone::UTC)))
}

/// Whether the service is only prepared: pushed as pending, or its day has not come.
pub(super) fn prepared_only(basis: &Basis, service: &Service, now: Timestamp) -> bool {
    basis.account.status_of(service) == Status::Pending
        || network_from(service, basis.known).is_some_and(|from| now < from)
}

fn aaa(basis: &Basis, service: &Service, now: Timestamp) -> Option<ElementDesired> {
    let radius = service.radius.as_ref()?;
    let RadiusProfile { mut group, mut reply, chap } = radius_profile(basis, service, now);
    let access = match prepared_only(basis, service, now) {
        true => AaaAccess::Reject,
        false => match treatment(basis, service, now) {
            Treatment::None => AaaAccess::Accept,
            Treatment::Garden => AaaAccess::Garden { group: basis.known.garden_group().to_owned() },
            Treatment::Block | Treatment::BlockVoice => match &basis.known.blocked_group {
                Some(group) => AaaAccess::Blocked { group: group.clone() },
                None => AaaAccess::Reject,
            },
            Treatment::Throttle(profile) => {
                let slow = basis.known.plans.get(&profile).and_then(|plan| plan.radius.clone()).unwrap_or_default();
                group = Some(slow.group.unwrap_or(profile));
                reply = slow.reply;
                AaaAccess::Accept
            }
        },
    };
    let content = AaaContent {
        username: radius.username.clone(),
        access,
        group,
        reply,
        framed_ip: radius.framed_ip.map(IpAddr::V4),
        ipv6_delegated: radius.ipv6_delegated.clone(),
        chap,
        password: secret(basis, service, RADIUS_PASSWORD),
    };
    Some(one_service(ElementKind::Aaa, &radius.username, service, Content::Aaa(content)))
}

/// What the service's plan says of its login, with its add-ons of today laid over: an attribute that an add-on names
/// replaces the plan's, a group too, and of several add-ons the last in the document wins.
fn radius_profile(basis: &Basis, service: &Service, now: Timestamp) -> RadiusProfile {
    let mut profile = plan(basis, service).and_then(|plan| plan.radius.clone()).unwrap_or_default();
    for addon in service.addons.iter().filter(|addon| in_force(addon, basis.known, now)) {
        let Some(own) = basis.known.plans.get(&addon.plan).and_then(|plan| plan.radius.as_ref()) else { continue };
        profile.group = own.group.clone().or(profile.group);
        profile.reply.extend(own.reply.clone());
        profile.chap |= own.chap;
    }
    profile
}

pub(super) fn in_force(addon: &Addon, known: &Known, now: Timestamp) -> bool {
    let [from, until] = edges(addon, known);
    from.is_none_or(|from| from <= now) && until.is_none_or(|until| now < until)
}

/// When an add-on begins and ends: at the midnights of its days.
fn edges(addon: &Addon, known: &Known) -> [Option<Timestamp>; 2] {
    let zone = known.zone.clone().unwrap_or(Zone::UTC);
    [addon.from, addon.until].map(|day| day.map(|day| Moment::Day(day).at(&zone)))
}

fn mailbox(basis: &Basis, service: &Service, now: Timestamp) -> Option<ElementDesired> {
    let mailbox = service.mailbox.as_ref()?;
    let held = treatment(basis, service, now) >= Treatment::Garden;
    let by_plan = plan(basis, service).and_then(|plan| plan.quota_mb);
    let sorted = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let content = MailboxContent {
        address: mailbox.address.clone(),
        active: !held && !prepared_only(basis, service, now),
        prepared: prepared_only(basis, service, now),
        keep_copy: mailbox.keep_copy,
        quota_mb: mailbox.quota_mb.or(by_plan).unwrap_or(DEFAULT_QUOTA_MB),
        aliases: sorted(&mailbox.aliases),
        forward_to: sorted(&mailbox.forward_to),
        password: secret(basis, service, MAILBOX_PASSWORD),
    };
    Some(one_service(ElementKind::Mailbox, &mailbox.address, service, Content::Mailbox(content)))
}

fn one_service(kind: ElementKind, key: &str, service: &Service, content: Content) -> ElementDesired {
    ElementDesired { kind, key: key.to_owned(), services: vec![service.id.clone()], content }
}

pub(super) fn secret(basis: &Basis, service: &Service, field: &str) -> SecretRef {
    let digest = basis.secrets.get(&(service.id.clone(), field.to_owned())).cloned();
    SecretRef { service: service.id.clone(), field: field.to_owned(), digest }
}

pub(super) fn plan<'a>(basis: &Basis<'a>, service: &Service) -> Option<&'a KnownPlan> {
    basis.known.plans.get(&service.plan)
}

#[cfg(test)]
#[path = "elements_tests.rs"]
mod tests;
