//! Pushes: what each asks against what is stored, then accounts, services, holders, secrets, elements and jobs. Many pushes
//! share each statement: all that they need is read, each is decided from values alone, and all that follows is written.
//!
//! Pushes of one round touch nothing in common: neither the account, nor a MAC, name, address or number, nor an element.
//! So each meets what it would have met alone; what does touch the same waits for the next round of the same transaction.

mod draft;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use draft::{Draft, Known, apart, draft, holdings};
use serde_json::json;

use super::guard::{self, Guard};
use super::{Done, Ground, Push, Stop, holding, lineage, service_changes};
use crate::account::{
    Account, Decision, Hold, Loss, Pushed, SecretChange, SecretDigests, Service, Status, Stored, content_tag, decide,
    losses,
};
use crate::intake::catalogs::TenantCatalog;
use crate::intake::problem::Problem;
use crate::intake::view;
use crate::provision::ElementKind;
use crate::store::accounts::{self, AccountRow, Written};
use crate::store::breaker::{self, NewHeld, Waiting};
use crate::store::elements::{After, ElementRow, Settling, Standing};
use crate::store::events::{EventType, Told};
use crate::store::holders::Refused;
use crate::store::secrets::{self, Put, SecretPlace};
use crate::store::{Sealer, StoreError, Tx, audit, elements, exceptions, follow};
use crate::vocabulary::{AccountKey, TenantId, Timestamp, Zone, hex};

/// What became of a push; `None`: it is not its turn yet.
type Turn = Option<Result<Done, Stop>>;

/// Does pushes; the outcomes are in their order, and pushes of one account are done in it. A push that is refused has
/// written nothing.
pub(super) async fn push_all(
    asked: &[&Push],
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<Vec<Result<Done, Stop>>, StoreError> {
    let mut turns: Vec<Turn> = asked.iter().map(|_| None).collect();
    let mut left: Vec<usize> = (0..asked.len()).collect();
    while !left.is_empty() {
        let mut accounts = HashSet::with_capacity(left.len());
        // Nobody overtakes a push that must wait for the one before it.
        let first = |place: &usize| accounts.insert(&asked[*place].key);
        let round: Vec<usize> = left.iter().copied().take_while(first).collect();
        let pushes: Vec<&Push> = round.iter().map(|place| asked[*place]).collect();
        for (place, turn) in round.into_iter().zip(push_round(&pushes, tx, ground, now).await?) {
            turns[place] = turn;
        }
        left.retain(|place| turns[*place].is_none());
    }
    Ok(turns.into_iter().map(|turn| turn.unwrap_or_else(|| Err(Problem::internal().into()))).collect())
}

/// A push with what is stored of its account, and what is to be done.
struct Considered<'a> {
    place: usize,
    asked: &'a Push,
    /// The pushed account with the day of each change that waits.
    account: Cow<'a, Account>,
    catalog: Arc<TenantCatalog>,
    row: Option<AccountRow>,
    before: SecretDigests,
    after: SecretDigests,
    tag: String,
    decision: Decision,
}

/// One push an account. The first one is always done.
async fn push_round(asked: &[&Push], tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Vec<Turn>, StoreError> {
    let mut turns: Vec<Turn> = asked.iter().map(|_| None).collect();
    let (mut unchanged, mut writing) = (Vec::new(), Vec::new());
    let mut considered = consider(asked, &mut turns, tx, ground, now).await?;
    let known = considered.iter().filter(|considered| considered.row.is_some());
    let known: Vec<&AccountKey> = known.map(|considered| &considered.asked.key).collect();
    let mut waiting = guard::waiting(tx, &known).await?;
    let mut guard = Guard::default();
    // Places with what waited of their account, and those that take something away.
    let (mut superseding, mut losing) = (Vec::new(), Vec::new());
    for considered in considered.drain(..) {
        let Considered { place, asked, .. } = considered;
        let mut decision = considered.decision;
        if let Some(waits) = waiting.remove(&accounts::subject(&asked.key)) {
            // What is older than what waits for an operator is old, although it is newer than what is stored.
            if !asked.released && guard::is_older(asked.pushed.source_revision, &waits) {
                decision = Decision::Stale;
            }
            superseding.push((place, waits.id));
        }
        let lost = lost(&considered, decision);
        if ground.sources.observes(&asked.key.tenant, &asked.key.source)
            && let Some(would) = would(decision)
        {
            let states = (considered.row.as_ref().map(|row| &row.document), Some(&*considered.account));
            turns[place] = Some(Ok(guard::observe(&asked.key, would, states, &lost, tx, now).await?));
            continue;
        }
        match (decision, &considered.row) {
            (Decision::PreconditionFailed, _) => {
                let problem = Problem::precondition_failed("The account is not as the request expects it.");
                turns[place] = Some(Err(Stop::Declined(problem)));
            }
            (Decision::RevisionReused, _) => {
                turns[place] = Some(Err(Stop::Declined(Problem::conflict(
                    "revision-reused",
                    "Source revision reused",
                    "This source_revision came before with other content; count it up with every change.",
                ))));
            }
            (Decision::Stale, Some(row)) => {
                guard::tell_stale(&asked.key, tx, ground, now).await?;
                turns[place] = Some(Ok(stale(row, &asked.key, tx, now).await?));
            }
            (Decision::Unchanged, Some(_)) => unchanged.push(considered),
            (_, Some(row)) if !lost.is_empty() && !asked.released => {
                if guard.passes(&asked.key, tx, ground, now).await? {
                    losing.push(place);
                    writing.push(considered);
                } else {
                    let new = NewHeld {
                        key: &asked.key,
                        service: None,
                        kind: Waiting::Push,
                        content: &asked.pushed.document(),
                        source_revision: asked.pushed.source_revision,
                        losses: &lost,
                        actor: &asked.actor,
                        origin: asked.origin.as_ref(),
                    };
                    turns[place] = Some(Ok(guard.hold(&new, row.id, tx, ground, now).await?));
                }
            }
            _ => writing.push(considered),
        }
    }
    leave_unchanged(unchanged, &mut turns, tx).await?;
    write(writing, &mut turns, tx, ground, now).await?;
    let taken_over =
        |place: usize| matches!(&turns[place], Some(Ok(done)) if !matches!(done.outcome, "held" | "stale"));
    for place in losing {
        if taken_over(place) {
            guard.count(&asked[place].key);
        }
    }
    let over: Vec<i64> = superseding.into_iter().filter(|(place, _)| taken_over(*place)).map(|(_, id)| id).collect();
    breaker::end(tx, &over).await?;
    guard.settle(tx, ground, now).await?;
    for (push, turn) in asked.iter().zip(&turns) {
        if let Some(Ok(done)) = turn
            && push.pushed.source_revision.is_some()
            && done.outcome != "stale"
        {
            ground.memory.fresh(&push.key);
        }
    }
    Ok(turns)
}

/// What a push takes away from the account it changes.
fn lost(considered: &Considered<'_>, decision: Decision) -> Vec<Loss> {
    match (&considered.row, decision) {
        (Some(row), Decision::Update) => losses(&row.document, &considered.account, &considered.catalog.known),
        _ => Vec::new(),
    }
}

/// What a push would do; `None`: it is refused, observed or not.
fn would(decision: Decision) -> Option<&'static str> {
    match decision {
        Decision::Create => Some("create"),
        Decision::Update => Some("update"),
        Decision::Unchanged => Some("unchanged"),
        Decision::Stale => Some("stale"),
        Decision::RevisionReused | Decision::PreconditionFailed => None,
    }
}

/// Reads the accounts and decides each push.
async fn consider<'a>(
    asked: &[&'a Push],
    turns: &mut [Turn],
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<Vec<Considered<'a>>, StoreError> {
    let mut on_time = Vec::with_capacity(asked.len());
    for (place, asked) in asked.iter().enumerate() {
        match ground.catalogs.current(tx, &asked.key.tenant).await {
            Ok(catalog) if catalog.version == asked.catalog_version => on_time.push((place, *asked, catalog)),
            Ok(_) => turns[place] = Some(Err(Stop::CatalogMoved)),
            Err(problem) => turns[place] = Some(Err(Stop::Declined(problem))),
        }
    }
    let keys: Vec<&AccountKey> = on_time.iter().map(|(_, asked, _)| &asked.key).collect();
    let rows = accounts::these_locked(tx, &keys).await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let mut digests = secrets::digests(tx, &ids).await?;
    let mut rows: HashMap<String, AccountRow> = rows.into_iter().map(|row| (accounts::subject_of(&row), row)).collect();
    let considered = on_time.into_iter().map(|(place, asked, catalog)| {
        let row = rows.remove(&accounts::subject(&asked.key));
        let before = row.as_ref().and_then(|row| digests.remove(&row.id)).unwrap_or_default();
        let after = digests_after(&before, &asked.pushed, &asked.key, &ground.sealer);
        let tag = content_tag(&asked.pushed.account, &after);
        let stored = row.as_ref().map(|row| Stored {
            tag: row.etag.clone(),
            source_revision: row.source_revision,
            closed: row.closed_at.is_some(),
        });
        let decision = decide(stored.as_ref(), &tag, asked.pushed.source_revision, &asked.conditions);
        let account = with_days(&asked.pushed.account, row.as_ref(), &catalog, now);
        Considered { place, asked, account, catalog, row, before, after, tag, decision }
    });
    Ok(considered.collect())
}

/// Answers pushes that say what is stored.
async fn leave_unchanged(unchanged: Vec<Considered<'_>>, turns: &mut [Turn], tx: &mut Tx) -> Result<(), StoreError> {
    let mut rows: Vec<(usize, AccountRow)> = Vec::with_capacity(unchanged.len());
    let mut seen = Vec::new();
    for Considered { place, asked, row, .. } in unchanged {
        let Some(mut row) = row else { continue };
        let newest = asked.pushed.source_revision.or(row.source_revision);
        if newest != row.source_revision || row.stale_pushes > 0 {
            seen.push((row.id, newest));
            row.source_revision = newest;
        }
        rows.push((place, row));
    }
    accounts::record_all_seen(tx, &seen).await?;
    let shown: Vec<&AccountRow> = rows.iter().map(|(_, row)| row).collect();
    let bodies = view::accounts(tx, &shown).await?;
    for ((place, row), body) in rows.into_iter().zip(bodies) {
        turns[place] = Some(Ok(Done { status: 200, etag: Some(row.etag), body, outcome: "unchanged" }));
    }
    Ok(())
}

/// The account with the day of each change that waits; those it had before keep theirs.
fn with_days<'a>(
    account: &'a Account,
    row: Option<&AccountRow>,
    catalog: &TenantCatalog,
    now: Timestamp,
) -> Cow<'a, Account> {
    if account.services.iter().all(|service| service.scheduled.is_empty()) {
        return Cow::Borrowed(account);
    }
    let mut account = account.clone();
    let before = row.filter(|row| row.closed_at.is_none()).map(|row| &row.document);
    let cycle = catalog.cycles.get(&account.bill_cycle);
    let next_cycle = cycle.and_then(|cycle| cycle.period_at(now).ok()).map(|period| period.end);
    account.settle_schedule(before, catalog.known.zone.as_ref().unwrap_or(&Zone::UTC), next_cycle);
    Cow::Owned(account)
}

/// Works out and writes what changes accounts. What touches the same as a push before it is left for the next round.
async fn write(
    writing: Vec<Considered<'_>>,
    turns: &mut [Turn],
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<(), StoreError> {
    let ids: Vec<i64> = writing.iter().filter_map(|considered| considered.row.as_ref()).map(|row| row.id).collect();
    let mut known = Known::read(tx, &ids).await?;
    let mut drafts = Vec::with_capacity(writing.len());
    for considered in writing {
        let place = considered.place;
        match draft(considered, &mut known, tx, ground, now).await {
            Ok(draft) => drafts.push(draft),
            Err(Stop::Store(error)) => return Err(error),
            Err(stop) => turns[place] = Some(Err(stop)),
        }
    }
    let drafts = apart(drafts);
    let whose: Vec<_> = drafts.iter().map(|draft| (draft.id(), &draft.key().tenant)).collect();
    let refused = holding::refused(tx, &whose, &holdings(&drafts), now).await?;
    let mut free = Vec::with_capacity(drafts.len());
    for (draft, refused) in drafts.into_iter().zip(refused) {
        if refused.is_empty() {
            free.push(draft);
        } else {
            let problem = conflict(&refused, &draft.key().tenant);
            turns[draft.considered.place] = Some(Err(Stop::Declined(problem)));
        }
    }
    let drafts = keep_trees(free, turns, tx).await?;
    if drafts.is_empty() {
        return Ok(());
    }
    let (ids, after) = write_drafts(&drafts, tx, ground, now).await?;
    for ((draft, id), after) in drafts.into_iter().zip(ids).zip(after) {
        let place = draft.considered.place;
        turns[place] = Some(Ok(done(draft, id, &after, &known.jobs, now)));
    }
    Ok(())
}

/// Refuses those whose parent would stand under them.
async fn keep_trees<'a>(drafts: Vec<Draft<'a>>, turns: &mut [Turn], tx: &mut Tx) -> Result<Vec<Draft<'a>>, StoreError> {
    let refused = lineage::refused(tx, &moves(&drafts)).await?;
    let mut kept = Vec::with_capacity(drafts.len());
    for (draft, refused) in drafts.into_iter().zip(refused) {
        match refused {
            None => kept.push(draft),
            Some(problem) => turns[draft.considered.place] = Some(Err(Stop::Declined(problem))),
        }
    }
    Ok(kept)
}

fn moves<'d>(drafts: &'d [Draft<'_>]) -> Vec<lineage::Move<'d>> {
    let of = |draft: &'d Draft<'_>| lineage::Move {
        key: draft.key(),
        before: draft.considered.row.as_ref().and_then(|row| row.document.parent.as_deref()),
        parent: draft.account().parent.as_deref(),
    };
    drafts.iter().map(of).collect()
}

/// Writes what follows from pushes that touch nothing in common. Returns the accounts' rows and their elements.
async fn write_drafts(
    drafts: &[Draft<'_>],
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<(Vec<i64>, Vec<After>), StoreError> {
    let places: Vec<(ElementKind, &str)> =
        drafts.iter().flat_map(|draft| elements::places_beyond(&draft.desired, &draft.elements)).collect();
    let mut elsewhere = elements::by_places_locked(tx, &places).await?;
    let written: Vec<Written> = drafts
        .iter()
        .map(|draft| Written {
            key: draft.key(),
            id: draft.id(),
            cycle_before: draft.considered.row.as_ref().map(|row| row.document.bill_cycle.as_str()),
            document: draft.account(),
            etag: &draft.considered.tag,
            source_revision: draft.source_revision(),
            wake_at: draft.wake_at,
        })
        .collect();
    let ids = accounts::write(tx, &written, now).await?;
    lineage::write(tx, &moves(drafts)).await?;
    for draft in drafts {
        if let Some(row) =
            draft.considered.row.as_ref().filter(|row| row.document.bill_cycle != draft.account().bill_cycle)
        {
            accounts::leave_cycle(tx, row.id, &row.document.bill_cycle, now).await?;
        }
    }
    let mut changes = Vec::new();
    for (draft, id) in drafts.iter().zip(&ids) {
        changes.extend(service_changes(*id, draft.account(), &draft.services, &draft.operator_holds, now)?);
    }
    let new_services = accounts::change_services(tx, &changes, now).await?;
    for (draft, id) in drafts.iter().zip(&ids).filter(|(draft, _)| draft.arrives) {
        debug_assert_eq!(draft.id(), Some(*id), "only a known account was held");
        follow::arrived(tx, *id).await?;
    }
    let of: Vec<holding::Of> = drafts
        .iter()
        .zip(&ids)
        .map(|(draft, id)| holding::Of {
            account_id: *id,
            tenant: &draft.key().tenant,
            new_account: draft.considered.row.is_none(),
            quarantine: draft.considered.catalog.known.quarantine,
        })
        .collect();
    holding::settle(tx, &of, &holdings(drafts), &new_services, now).await?;
    keep_secrets(drafts, &ids, tx, ground, now).await?;
    let settling: Vec<Settling> = drafts
        .iter()
        .zip(&ids)
        .map(|(draft, id)| Settling {
            tenant: draft.key().tenant.as_str(),
            account_id: *id,
            desired: &draft.desired,
            lane: draft.considered.asked.lane,
            bulk: None,
        })
        .collect();
    let standing = drafts.iter().map(|draft| {
        let wants = |row: &mut ElementRow| draft.desired.iter().any(|is| is.kind == row.kind && is.key == row.key);
        Standing { known: draft.elements.clone(), elsewhere: elsewhere.extract_if(.., wants).collect() }
    });
    let standing = standing.collect();
    let after = elements::settle_all(tx, &settling, standing, now).await?;
    note(drafts, &ids, tx, now).await?;
    Ok((ids, after))
}

async fn keep_secrets(
    drafts: &[Draft<'_>],
    ids: &[i64],
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (mut put, mut removed) = (Vec::new(), Vec::new());
    for (draft, id) in drafts.iter().zip(ids) {
        let Considered { asked, before, after, .. } = &draft.considered;
        let place_of =
            |service, field| SecretPlace { tenant: asked.key.tenant.as_str(), account_id: *id, service, field };
        for change in &asked.pushed.secrets {
            let place = (change.service.clone(), change.field.clone());
            let (Some(secret), Some(digest)) = (&change.value, after.get(&place)) else { continue };
            if before.get(&place) != Some(digest) {
                put.push(Put { place: place_of(&change.service, &change.field), secret, digest });
            }
        }
        let gone = before.keys().filter(|place| !after.contains_key(*place));
        removed.extend(gone.map(|(service, field)| place_of(service, field)));
    }
    secrets::put(tx, &ground.sealer, &put, now).await?;
    secrets::remove(tx, &removed).await
}

/// The audit, and the end of what was wrong with the source.
async fn note(drafts: &[Draft<'_>], ids: &[i64], tx: &mut Tx, now: Timestamp) -> Result<(), StoreError> {
    let subjects: Vec<String> = drafts.iter().map(|draft| accounts::subject(draft.key())).collect();
    let detail = |draft: &Draft<'_>| {
        let detail = accounts::audit_detail(draft.revision(), draft.source_revision(), &draft.considered.tag);
        guard::with_origin(detail, draft.considered.asked.origin.as_ref())
    };
    let details: Vec<_> = drafts.iter().map(detail).collect();
    let mut entries = Vec::with_capacity(drafts.len());
    for (((draft, id), subject), detail) in drafts.iter().zip(ids).zip(&subjects).zip(&details) {
        let created = draft.considered.decision == Decision::Create;
        entries.push(audit::Entry {
            tenant: Some(draft.key().tenant.as_str()),
            actor: &draft.considered.asked.actor,
            action: if created { "account.create" } else { "account.update" },
            account_id: Some(*id),
            subject,
            detail,
        });
    }
    audit::append_all(tx, &entries, now).await?;
    tell(drafts, tx, now);
    for (draft, subject) in drafts.iter().zip(&subjects) {
        if draft.considered.row.as_ref().is_some_and(|row| row.stale_pushes >= STALE_MANY) {
            exceptions::release_subject(tx, STALE_KIND, subject, &draft.considered.asked.actor, now).await?;
        }
    }
    Ok(())
}

/// What pushes did, for whoever follows: thin, the account itself is read.
fn tell(drafts: &[Draft<'_>], tx: &mut Tx, now: Timestamp) {
    for draft in drafts {
        let (key, account) = (draft.key(), draft.account());
        let created = draft.considered.decision == Decision::Create;
        let subject = format!("{}/{}", key.source, key.external_id);
        let event =
            |kind, payload| Told { tenant: key.tenant.to_string(), kind, subject: subject.clone(), payload, at: now };
        let kind = if created { EventType::AccountCreated } else { EventType::AccountUpdated };
        tx.tell(event(
            kind,
            json!({
                "account": key.external_id, "source": key.source, "revision": draft.revision(),
                "source_revision": draft.source_revision(), "status": account.status,
            }),
        ));
        let stored = draft.considered.row.as_ref().filter(|row| row.closed_at.is_none()).map(|row| &row.document);
        for (kind, service) in told_of_services(stored, account) {
            let of = (key.tenant.as_str(), key.source.as_str(), key.external_id.as_str());
            tx.tell(Told::of_service(kind, of, service, now));
        }
        let before = stored.map(|stored| stored.holds.as_slice()).unwrap_or_default();
        let changed = |kind, hold: &Hold| {
            event(kind, json!({ "account": key.external_id, "source": key.source, "service": null, "hold": hold }))
        };
        for hold in account.holds.iter().filter(|hold| !before.contains(hold)) {
            tx.tell(changed(EventType::HoldPlaced, hold));
        }
        for hold in before.iter().filter(|hold| !account.holds.contains(hold)) {
            tx.tell(changed(EventType::HoldLifted, hold));
        }
    }
}

/// What a push does to the services of an account, in the order of its document; those that left it come last.
fn told_of_services<'a>(before: Option<&'a Account>, after: &'a Account) -> Vec<(EventType, &'a str)> {
    fn living(account: &Account) -> impl Iterator<Item = &Service> {
        account.services.iter().filter(|service| account.status_of(service) != Status::Terminated)
    }
    let known = |id: &str| living(before?).find(|service| service.id == id);
    let mut told = Vec::new();
    for service in living(after) {
        match known(&service.id) {
            None => told.push((EventType::ServiceCreated, service.id.as_str())),
            Some(stored) if stored != service => told.push((EventType::ServiceChanged, service.id.as_str())),
            Some(_) => {}
        }
    }
    let stays = |id: &str| living(after).any(|service| service.id == id);
    let gone = before.into_iter().flat_map(living).filter(|service| !stays(&service.id));
    told.extend(gone.map(|service| (EventType::ServiceClosed, service.id.as_str())));
    told
}

/// The answer to a push that is written; `jobs` are those that were active before.
fn done(draft: Draft<'_>, id: i64, after: &After, jobs: &HashMap<i64, i64>, now: Timestamp) -> Done {
    let (revision, source_revision) = (draft.revision(), draft.source_revision());
    let Considered { asked, account, row, tag, decision, .. } = draft.considered;
    let key = &asked.key;
    let row = AccountRow {
        id,
        tenant: key.tenant.to_string(),
        source: key.source.to_string(),
        external_id: key.external_id.clone(),
        revision,
        source_revision,
        document: account.into_owned(),
        etag: tag.clone(),
        stale_pushes: 0,
        created_at: row.map_or(now, |row| row.created_at),
        updated_at: now,
        close_at: None,
        closed_at: None,
    };
    let changed: HashMap<i64, i64> = after.settled.iter().map(|settled| (settled.element_id, settled.job_id)).collect();
    let job_of = |element: &ElementRow| changed.get(&element.id).or_else(|| jobs.get(&element.id));
    let active: Vec<(i64, i64)> =
        after.elements.iter().filter_map(|element| Some((element.id, *job_of(element)?))).collect();
    let created = decision == Decision::Create;
    Done {
        status: if created { 201 } else { 200 },
        etag: Some(tag),
        body: view::shown(&row, &after.elements, &active, &draft.holds),
        outcome: if created { "created" } else { "updated" },
    }
}

pub(super) async fn stale(row: &AccountRow, key: &AccountKey, tx: &mut Tx, now: Timestamp) -> Result<Done, StoreError> {
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
pub(in crate::intake) fn digest(change: &SecretChange, key: &AccountKey, sealer: &Sealer) -> Option<String> {
    let secret = change.value.as_ref()?;
    let label = format!("secret\u{0}{}\u{0}{}\u{0}{}", accounts::subject(key), change.service, change.field);
    Some(hex(&sealer.keyed_hash(&label, secret.expose().as_bytes())[..16]))
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
pub(super) const STALE_MANY: i64 = 20;
pub const STALE_KIND: &str = "stale-pushes";
