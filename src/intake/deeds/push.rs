//! A push: what it asks against what is stored, then the account, its services, holders, secrets, elements and jobs.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::{Done, Ground, Push, Stop, known_digests, operator_holds, settle_services};
use crate::account::{
    Account, Decision, Pushed, SecretChange, SecretDigests, ServiceType, Status, Stored, content_tag, decide, hex,
};
use crate::intake::catalogs::TenantCatalog;
use crate::intake::problem::Problem;
use crate::intake::view;
use crate::provision::{self, Basis, ElementDesired};
use crate::store::accounts::{self, AccountRow, Written};
use crate::store::elements::{ElementRow, Settled};
use crate::store::holders::{self, Held, HeldKind, Holding, Refused};
use crate::store::secrets::{self, SecretPlace};
use crate::store::{Sealer, StoreError, Tx, audit, elements, exceptions, follow, jobs};
use crate::vocabulary::{AccountKey, TenantId, Timestamp};

pub(super) async fn push(asked: &Push, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    let catalog = ground.catalogs.current(tx, &asked.key.tenant).await.map_err(Stop::Refused)?;
    if catalog.version != asked.catalog_version {
        return Err(Stop::CatalogMoved);
    }
    let row = accounts::find_locked(tx, &asked.key).await?;
    let before = match &row {
        Some(row) => known_digests(tx, row.id).await?,
        None => SecretDigests::new(),
    };
    let account = &asked.pushed.account;
    let after = digests_after(&before, &asked.pushed, &asked.key, &ground.sealer);
    let tag = content_tag(account, &after);
    let stored = row.as_ref().map(|row| Stored {
        tag: row.etag.clone(),
        source_revision: row.source_revision,
        closed: row.closed_at.is_some(),
    });
    let decision = decide(stored.as_ref(), &tag, asked.pushed.source_revision, &asked.conditions);
    match (decision, row) {
        (Decision::PreconditionFailed, _) => {
            Err(Stop::Declined(Problem::precondition_failed("The account is not as the request expects it.")))
        }
        (Decision::RevisionReused, _) => Err(Stop::Declined(Problem::conflict(
            "revision-reused",
            "Source revision reused",
            "This source_revision came before with other content; count it up with every change.",
        ))),
        (Decision::Stale, Some(row)) => stale(&row, &asked.key, tx, now).await,
        (Decision::Unchanged, Some(row)) => unchanged(row, asked, tx).await,
        (_, row) => {
            let written = Writing { asked, catalog: &catalog, tag: &tag, before: &before, after: &after };
            write(written, row, decision, tx, ground, now).await
        }
    }
}

async fn held_on(
    tx: &mut Tx,
    ground: &Ground,
    key: &AccountKey,
    account_id: i64,
    account: &Account,
) -> Result<Option<Arc<TenantCatalog>>, Stop> {
    let Some(following) = follow::of(tx, account_id).await?.filter(|following| following.held) else { return Ok(None) };
    let from = ground.catalogs.version(tx, &key.tenant, following.from_version).await.map_err(Stop::Refused)?;
    if account.services.iter().all(|service| from.known.plans.contains_key(&service.plan)) {
        return Ok(Some(from));
    }
    follow::arrived(tx, account_id).await?;
    Ok(None)
}

struct Writing<'a> {
    asked: &'a Push,
    catalog: &'a TenantCatalog,
    tag: &'a str,
    before: &'a SecretDigests,
    after: &'a SecretDigests,
}

async fn write(
    writing: Writing<'_>,
    row: Option<AccountRow>,
    decision: Decision,
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<Done, Stop> {
    let Writing { asked, catalog, tag, before, after } = writing;
    let (key, account) = (&asked.key, &asked.pushed.account);
    let source_revision = asked.pushed.source_revision.or(row.as_ref().and_then(|row| row.source_revision));
    let held_by_hand = match &row {
        Some(row) => operator_holds(tx, row.id).await?,
        None => Vec::new(),
    };
    // An account that a rollout has not moved yet stays on the catalog before, unless it buys what only the newest has.
    let held_on = match &row {
        Some(row) => held_on(tx, ground, key, row.id, account).await?,
        None => None,
    };
    let basis = Basis {
        account,
        known: held_on.as_ref().map_or(&catalog.known, |held_on| &held_on.known),
        external_id: &key.external_id,
        operator_holds: &held_by_hand,
        secrets: after,
        closed: account.status == Status::Terminated,
    };
    let wake_at = provision::next_change(&basis, now);
    let written = Written { document: account, etag: tag, source_revision, wake_at };
    let id = match &row {
        None => accounts::insert(tx, key, &written, now).await?,
        Some(row) => {
            accounts::update(tx, row.id, &written, now).await?;
            row.id
        }
    };
    let services = settle_services(tx, id, account, &held_by_hand, row.is_none(), now).await?;
    let holding = Holding {
        account_id: id,
        tenant: key.tenant.as_str(),
        new_account: row.is_none(),
        quarantine: catalog.known.quarantine,
    };
    let refused = holders::settle(tx, holding, &held(account, &services), now).await?;
    if !refused.is_empty() {
        return Err(conflict(&refused, &key.tenant).into());
    }
    keep_secrets(tx, ground, asked, id, before, after, now).await?;
    let desired = provision::elements(&basis, &[], now);
    let tenant = key.tenant.as_str();
    let settled = match &row {
        None => elements::settle_first(tx, tenant, id, &desired, jobs::LANE_SINGLE, now).await?,
        Some(_) => elements::settle(tx, tenant, id, &desired, jobs::LANE_SINGLE, now).await?,
    };
    let created = decision == Decision::Create;
    let entry = audit::Entry {
        tenant: Some(key.tenant.as_str()),
        actor: &asked.actor,
        action: if created { "account.create" } else { "account.update" },
        account_id: Some(id),
        subject: &accounts::subject(key),
        detail: &accounts::audit_detail(row.as_ref().map_or(1, |row| row.revision + 1), source_revision, tag),
    };
    audit::append(tx, &entry, now).await?;
    if row.as_ref().is_some_and(|row| row.stale_pushes >= STALE_MANY) {
        exceptions::release_subject(tx, STALE_KIND, &accounts::subject(key), &asked.actor, now).await?;
    }
    let revision = row.as_ref().map_or(1, |row| row.revision + 1);
    let first = row.is_none();
    let row = AccountRow {
        id,
        tenant: key.tenant.to_string(),
        source: key.source.to_string(),
        external_id: key.external_id.clone(),
        revision,
        source_revision,
        document: account.clone(),
        etag: tag.to_owned(),
        stale_pushes: 0,
        created_at: row.as_ref().map_or(now, |row| row.created_at),
        updated_at: now,
        close_at: None,
        closed_at: None,
    };
    let body = match made(&row, first, &desired, &settled, now) {
        Some((elements, jobs)) => view::made(&row, &elements, &jobs),
        None => view::account(tx, &row).await?,
    };
    Ok(Done {
        status: if created { 201 } else { 200 },
        etag: Some(tag.to_owned()),
        body,
        outcome: if created { "created" } else { "updated" },
    })
}

/// Elements, and (element, job) of their jobs.
type Made = (Vec<ElementRow>, Vec<(i64, i64)>);

/// The elements and jobs of an account as just written. `None`: it has others too, which must be read.
fn made(
    row: &AccountRow,
    first: bool,
    desired: &[ElementDesired],
    settled: &[Settled],
    now: Timestamp,
) -> Option<Made> {
    if !first || settled.len() != desired.len() || settled.iter().any(|settled| settled.desired_revision != 1) {
        return None;
    }
    let pairs = desired.iter().zip(settled);
    if pairs.clone().any(|(element, settled)| (element.kind, &element.key) != (settled.kind, &settled.key)) {
        return None;
    }
    let mut rows: Vec<ElementRow> =
        pairs.map(|(element, settled)| elements::made(&row.tenant, row.id, element, settled, now)).collect();
    rows.sort_by(|a, b| (a.kind.as_str(), &a.key).cmp(&(b.kind.as_str(), &b.key)));
    Some((rows, settled.iter().map(|settled| (settled.element_id, settled.job_id)).collect()))
}

async fn unchanged(row: AccountRow, asked: &Push, tx: &mut Tx) -> Result<Done, Stop> {
    let newest = asked.pushed.source_revision.or(row.source_revision);
    let mut row = row;
    if newest != row.source_revision || row.stale_pushes > 0 {
        accounts::record_seen(tx, row.id, newest).await?;
        row.source_revision = newest;
    }
    let body = view::account(tx, &row).await?;
    Ok(Done { status: 200, etag: Some(row.etag), body, outcome: "unchanged" })
}

pub(super) async fn stale(row: &AccountRow, key: &AccountKey, tx: &mut Tx, now: Timestamp) -> Result<Done, Stop> {
    let count = accounts::count_stale(tx, row.id).await?;
    if count >= STALE_MANY {
        let detail = format!(
            "{count} pushes in a row were older than revision {}: the source may have been restored from a backup.",
            row.source_revision.unwrap_or_default()
        );
        let tenant = Some(key.tenant.as_str());
        exceptions::open(tx, tenant, STALE_KIND, &accounts::subject(key), &detail, now).await?;
    }
    let body = json!({ "applied": false, "reason": "stale", "source_revision": row.source_revision });
    let etag = row.closed_at.is_none().then(|| row.etag.clone());
    Ok(Done { status: 200, etag, body, outcome: "stale" })
}

/// The secrets there will be after a push: what it names changes, what its services cannot have goes, the rest stays.
fn digests_after(before: &SecretDigests, pushed: &Pushed, key: &AccountKey, sealer: &Sealer) -> SecretDigests {
    let mut after = before.clone();
    for change in &pushed.secrets {
        let place = (change.service.clone(), change.field.clone());
        match digest(change, key, sealer) {
            Some(digest) => after.insert(place, digest),
            None => after.remove(&place),
        };
    }
    let can_have: BTreeSet<(String, String)> = pushed
        .account
        .services
        .iter()
        .flat_map(|service| service.secret_fields().into_iter().map(|field| (service.id.clone(), field)))
        .collect();
    after.retain(|place, _| can_have.contains(place));
    after
}

/// A keyed hash bound to the secret's place: equal passwords of two people do not look equal.
fn digest(change: &SecretChange, key: &AccountKey, sealer: &Sealer) -> Option<String> {
    let secret = change.value.as_ref()?;
    let label = format!("secret\u{0}{}\u{0}{}\u{0}{}", accounts::subject(key), change.service, change.field);
    Some(hex(&sealer.keyed_hash(&label, secret.expose().as_bytes())[..16]))
}

async fn keep_secrets(
    tx: &mut Tx,
    ground: &Ground,
    asked: &Push,
    account_id: i64,
    before: &SecretDigests,
    after: &SecretDigests,
    now: Timestamp,
) -> Result<(), StoreError> {
    let tenant = asked.key.tenant.as_str();
    for change in &asked.pushed.secrets {
        let place = (change.service.clone(), change.field.clone());
        let (Some(secret), Some(digest)) = (&change.value, after.get(&place)) else { continue };
        if before.get(&place) != Some(digest) {
            let place = SecretPlace { tenant, account_id, service: &change.service, field: &change.field };
            secrets::put(tx, &ground.sealer, place, secret, digest, now).await?;
        }
    }
    for (service, field) in before.keys().filter(|place| !after.contains_key(*place)) {
        secrets::remove(tx, SecretPlace { tenant, account_id, service, field }).await?;
    }
    Ok(())
}

/// What the account must hold: only what a living service, or a device of a living account, needs.
fn held(account: &Account, services: &[(String, i64)]) -> Vec<Held> {
    if account.status == Status::Terminated {
        return Vec::new();
    }
    let row_of = |id: &str| services.iter().find(|(external_id, _)| external_id == id).map(|(_, row)| *row);
    let living = || account.services.iter().filter(|service| account.status_of(service) != Status::Terminated);
    let mut all = Vec::new();
    let mut add = |kind: HeldKind, value: String, service_id: Option<i64>| all.push(Held { kind, value, service_id });
    for device in &account.devices {
        let on = |wanted: ServiceType| {
            let mut found = living()
                .filter(|service| service.service_type == wanted && service.device.as_ref() == Some(&device.id));
            found.next().and_then(|service| row_of(&service.id))
        };
        add(HeldKind::Mac, device.cm_mac.to_string(), on(ServiceType::Internet).or(on(ServiceType::Voice)));
        if let Some(mta) = device.mta_mac {
            add(HeldKind::Mac, mta.to_string(), on(ServiceType::Voice));
        }
    }
    for service in living() {
        let row = row_of(&service.id);
        for address in &service.static_ips {
            add(HeldKind::Address, address.to_string(), row);
        }
        for line in &service.lines {
            add(HeldKind::Number, line.number.clone(), row);
        }
        if let Some(radius) = &service.radius {
            add(HeldKind::Username, radius.username.clone(), row);
            radius.framed_ip.iter().for_each(|address| add(HeldKind::Address, address.to_string(), row));
            radius.ipv6_delegated.iter().for_each(|prefix| add(HeldKind::Address, prefix.clone(), row));
        }
        if let Some(mailbox) = &service.mailbox {
            add(HeldKind::Mailbox, mailbox.address.clone(), row);
            mailbox.aliases.iter().for_each(|alias| add(HeldKind::Mailbox, alias.clone(), row));
        }
    }
    all
}

/// The other account is named only inside the caller's own tenant.
fn conflict(refused: &Refused, tenant: &TenantId) -> Problem {
    let mut sentences = Vec::new();
    let mut conflicts = Vec::new();
    for one in &refused.kept {
        let (word, value, until) = (one.kind.title(), &one.value, one.until_at);
        let mut conflict = json!({ "kind": one.kind.as_str(), "value": value, "quarantined_until": until });
        let by = if one.tenant == tenant.as_str() {
            conflict["account"] = json!(one.account);
            conflict["source"] = json!(one.source);
            format!("account {} of source {}", one.account, one.source)
        } else {
            "a subscriber of another provider".to_owned()
        };
        sentences.push(format!("The {word} {value} was given up by {by} and is kept from others until {until:.0}."));
        conflicts.push(conflict);
    }
    for one in &refused.taken {
        let (word, value) = (one.kind.title(), &one.value);
        if one.tenant == tenant.as_str() {
            sentences.push(format!("The {word} {value} is held by account {} of source {}.", one.account, one.source));
            conflicts.push(json!({
                "kind": one.kind.as_str(), "value": value, "account": one.account, "source": one.source,
            }));
        } else {
            sentences.push(format!("The {word} {value} is held by another provider."));
            conflicts.push(json!({ "kind": one.kind.as_str(), "value": value, "held_by": "another provider" }));
        }
    }
    for domain in &refused.domains {
        sentences.push(format!("The mail domain {domain} is held by another provider."));
        conflicts.push(json!({ "kind": "mail_domain", "value": domain, "held_by": "another provider" }));
    }
    let (code, title) = match refused.taken.is_empty() && refused.domains.is_empty() {
        true => ("quarantined", "Given up not long ago"),
        false => ("already-held", "Already held"),
    };
    Problem::conflict(code, title, sentences.join(" ")).with("conflicts", conflicts)
}

/// This many stale pushes in a row look like a source that was restored from a backup.
const STALE_MANY: i64 = 20;
const STALE_KIND: &str = "stale-pushes";
