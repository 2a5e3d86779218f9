//! What is done to an account inside one transaction: read, decide (pure rooms), write. The writer calls it; nothing here
//! touches the network or commits.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::catalogs::{Catalogs, TenantCatalog};
use super::idempotency::{AskError, Asking};
use super::problem::Problem;
use super::view;
use crate::account::{
    Account, Conditions, Decision, Hold, Pushed, SecretChange, SecretDigests, ServiceFacts, ServiceType, Status,
    Stored, content_tag, decide, hex,
};
use crate::provision::{self, Basis, ElementDesired, OperatorHold};
use crate::store::accounts::{self, AccountRow, Written};
use crate::store::elements::{ElementRow, Settled};
use crate::store::holders::{self, Held, HeldKind, Taken};
use crate::store::secrets::{self, SecretPlace};
use crate::store::{Sealer, StoreError, Tx, audit, elements, exceptions, holds, jobs};
use crate::vocabulary::{AccountKey, TenantId, Timestamp};

/// One deed, complete: nothing more is needed from the request.
#[derive(Debug)]
pub enum Deed {
    Push(Box<Push>),
    Close(Close),
    Suspend {
        of: OfService,
        hold: Hold,
        reason: Option<String>,
    },
    Resume {
        of: OfService,
    },
    Reprovision {
        of: OfService,
    },
    /// Something of the account changes by itself now.
    Wake {
        account_id: i64,
    },
}

#[derive(Debug)]
pub struct Push {
    pub key: AccountKey,
    pub actor: String,
    pub pushed: Pushed,
    pub conditions: Conditions,
    /// Version of the catalog it was checked against.
    pub catalog_version: i64,
}

#[derive(Debug)]
pub struct Close {
    pub key: AccountKey,
    pub actor: String,
    /// `None`: now.
    pub effective: Option<crate::account::Moment>,
    pub source_revision: Option<i64>,
    pub conditions: Conditions,
}

/// A service, who wants something of it, and the request's idempotency.
#[derive(Debug)]
pub struct OfService {
    pub key: AccountKey,
    pub service: String,
    pub actor: String,
    pub asking: Asking,
}

/// What is answered once the transaction is durable.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    pub status: u16,
    pub etag: Option<String>,
    pub body: Value,
    /// How the push counts in the metrics.
    pub outcome: &'static str,
}

/// Why nothing is written.
#[derive(Debug)]
pub enum Stop {
    /// Refused, perhaps after something was written: the caller undoes it.
    Refused(Problem),
    /// Refused before anything was written: there is nothing to undo.
    Declined(Problem),
    /// The catalog changed since the document was checked: check it again.
    CatalogMoved,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Stop::Store(error)
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Stop::Refused(problem)
    }
}

impl From<AskError> for Stop {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Store(error) => Stop::Store(error),
            AskError::Reused => Stop::Refused(error.into()),
        }
    }
}

/// What a deed may look at besides the database.
#[derive(Clone)]
pub struct Ground {
    pub sealer: Sealer,
    pub catalogs: Catalogs,
}

/// This many stale pushes in a row look like a source that was restored from a backup.
const STALE_MANY: i64 = 20;
const STALE_KIND: &str = "stale-pushes";

/// Does it. On `Stop` the caller undoes what was written.
pub async fn perform(deed: &Deed, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    match deed {
        Deed::Push(asked) => push(asked, tx, ground, now).await,
        Deed::Close(asked) => close(asked, tx, ground, now).await,
        Deed::Suspend { of, hold, reason } => suspend(of, hold, reason.as_deref(), tx, ground, now).await,
        Deed::Resume { of } => resume(of, tx, ground, now).await,
        Deed::Reprovision { of } => reprovision(of, tx, now).await,
        Deed::Wake { account_id } => wake(*account_id, tx, ground, now).await,
    }
}

/// The account a deed is about; deeds of one account are never done at the same time.
pub fn subject(deed: &Deed) -> String {
    match deed {
        Deed::Push(asked) => accounts::subject(&asked.key),
        Deed::Close(asked) => accounts::subject(&asked.key),
        Deed::Suspend { of, .. } | Deed::Resume { of } | Deed::Reprovision { of } => accounts::subject(&of.key),
        Deed::Wake { account_id } => account_id.to_string(),
    }
}

async fn push(asked: &Push, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
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
    let basis = Basis {
        account,
        known: &catalog.known,
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
    let taken = holders::settle(tx, id, &held(account, &services), row.is_none(), now).await?;
    if !taken.is_empty() {
        return Err(conflict(&taken, &key.tenant).into());
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

async fn stale(row: &AccountRow, key: &AccountKey, tx: &mut Tx, now: Timestamp) -> Result<Done, Stop> {
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

async fn close(asked: &Close, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    let row = accounts::find_locked(tx, &asked.key).await?;
    let row = row.ok_or_else(|| Stop::Declined(Problem::not_found()))?;
    if !asked.conditions.hold(row.closed_at.is_none().then_some(row.etag.as_str())) {
        let problem = Problem::precondition_failed("The account is not as the request expects it.");
        return Err(Stop::Declined(problem));
    }
    let newest = asked.source_revision.max(row.source_revision);
    if row.closed_at.is_some() {
        if newest != row.source_revision {
            accounts::record_seen(tx, row.id, newest).await?;
        }
        return Ok(Done { status: 204, etag: None, body: Value::Null, outcome: "unchanged" });
    }
    if asked.source_revision.is_some_and(|revision| row.source_revision.is_some_and(|known| revision < known)) {
        return stale(&row, &asked.key, tx, now).await;
    }
    let catalog = ground.catalogs.current(tx, &asked.key.tenant).await.map_err(Stop::Refused)?;
    let zone = catalog.known.zone.clone().unwrap_or(crate::vocabulary::Zone::UTC);
    let later = asked.effective.map(|effective| effective.at(&zone)).filter(|at| *at > now);
    let entry = |action: &'static str, detail: Value| (action, detail);
    let (action, detail) = match later {
        Some(close_at) => {
            let wake_at = next_change(tx, &row, &catalog, now).await?.map_or(close_at, |at| at.min(close_at));
            accounts::close_later(tx, row.id, close_at, wake_at, newest, now).await?;
            entry("account.close-later", json!({ "close_at": close_at, "source_revision": newest }))
        }
        None => {
            finish(tx, &row, &asked.key.tenant, newest, now).await?;
            entry("account.close", json!({ "source_revision": newest }))
        }
    };
    let subject = accounts::subject(&asked.key);
    let noted = audit::Entry {
        tenant: Some(asked.key.tenant.as_str()),
        actor: &asked.actor,
        action,
        account_id: Some(row.id),
        subject: &subject,
        detail: &detail,
    };
    audit::append(tx, &noted, now).await?;
    tracing::info!(account.id = %subject, "Account closing.");
    let body = json!({
        "id": row.external_id,
        "source": row.source,
        "source_revision": newest,
        "close_at": later.unwrap_or(now),
        "closed": later.is_none(),
    });
    Ok(Done { status: 202, etag: None, body, outcome: "closed" })
}

/// Closes an account for good: history ends, what it held is free, its elements must go, its secrets are forgotten.
async fn finish(
    tx: &mut Tx,
    row: &AccountRow,
    tenant: &TenantId,
    source_revision: Option<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    accounts::close(tx, row.id, source_revision, now).await?;
    for known in accounts::services(tx, row.id).await? {
        if let Some(service) = row.document.service(&known.external_id) {
            let facts = ServiceFacts { status: Status::Terminated, ..ServiceFacts::of(&row.document, service, &[]) };
            accounts::update_service(tx, &known, &facts, true, now).await?;
        }
    }
    holders::release_all(tx, row.id, now).await?;
    elements::settle(tx, tenant.as_str(), row.id, &[], jobs::LANE_SINGLE, now).await?;
    secrets::remove_all(tx, row.id).await?;
    Ok(())
}

async fn suspend(
    of: &OfService,
    hold: &Hold,
    reason: Option<&str>,
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<Done, Stop> {
    if let Some(done) = answered(of, tx).await? {
        return Ok(done);
    }
    let row = living(of, tx).await?;
    let hold = Hold { from: hold.from.or(Some(now)), ..hold.clone() };
    let wanted = OperatorHold { service: Some(of.service.clone()), hold };
    let known = holds::living(tx, row.id).await?;
    let mine: Vec<_> = known.iter().filter(|held| held.held.service == wanted.service).collect();
    let same = |held: &OperatorHold| {
        let (a, b) = (&held.hold, &wanted.hold);
        (a.kind, &a.treatment, a.billing, a.until) == (b.kind, &b.treatment, b.billing, b.until)
    };
    if !mine.iter().any(|held| same(&held.held)) {
        for held in mine {
            holds::lift(tx, held.id, now).await?;
        }
        holds::place(tx, row.id, &wanted, &of.actor, now).await?;
        reassess(tx, &row, ground, now).await?;
        note(of, "service.suspend", &row, json!({ "hold": wanted.hold, "reason": reason }), tx, now).await?;
    }
    answer(of, row, 200, tx, now).await
}

async fn resume(of: &OfService, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    if let Some(done) = answered(of, tx).await? {
        return Ok(done);
    }
    let row = living(of, tx).await?;
    let known = holds::living(tx, row.id).await?;
    let mine: Vec<_> = known.iter().filter(|held| held.held.service.as_deref() == Some(of.service.as_str())).collect();
    if !mine.is_empty() {
        for held in &mine {
            holds::lift(tx, held.id, now).await?;
        }
        reassess(tx, &row, ground, now).await?;
        note(of, "service.resume", &row, json!({ "lifted": mine.len() }), tx, now).await?;
    }
    answer(of, row, 200, tx, now).await
}

async fn reprovision(of: &OfService, tx: &mut Tx, now: Timestamp) -> Result<Done, Stop> {
    if let Some(done) = answered(of, tx).await? {
        return Ok(done);
    }
    let row = living(of, tx).await?;
    let woken = elements::reprovision(tx, row.id, Some(&of.service), now).await?;
    let ids: Vec<String> = woken.iter().map(ToString::to_string).collect();
    note(of, "service.reprovision", &row, json!({ "jobs": ids }), tx, now).await?;
    answer(of, row, 202, tx, now).await
}

/// Something of the account changed by itself: its closing is due, a hold began or ended, a service begins.
async fn wake(account_id: i64, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    let done = Done { status: 200, etag: None, body: Value::Null, outcome: "woken" };
    let Some(row) = accounts::by_id_locked(tx, account_id).await?.filter(|row| row.closed_at.is_none()) else {
        accounts::wake_at(tx, account_id, None).await?;
        return Ok(done);
    };
    let tenant = TenantId::parse(&row.tenant).map_err(|_| StoreError::Corrupt {
        table: "account",
        column: "tenant",
        id: row.id.to_string(),
    })?;
    if row.close_at.is_some_and(|at| at <= now) {
        finish(tx, &row, &tenant, row.source_revision, now).await?;
        let subject = format!("{}/{}/{}", row.tenant, row.source, row.external_id);
        let entry = audit::Entry {
            tenant: Some(&row.tenant),
            actor: "lastmile",
            action: "account.close",
            account_id: Some(row.id),
            subject: &subject,
            detail: &json!({ "arranged_for": row.close_at }),
        };
        audit::append(tx, &entry, now).await?;
        return Ok(done);
    }
    reassess(tx, &row, ground, now).await?;
    Ok(done)
}

/// Works the elements of a living account out again and arranges the next look.
async fn reassess(tx: &mut Tx, row: &AccountRow, ground: &Ground, now: Timestamp) -> Result<(), Stop> {
    let tenant = TenantId::parse(&row.tenant).map_err(|_| StoreError::Corrupt {
        table: "account",
        column: "tenant",
        id: row.id.to_string(),
    })?;
    let catalog = ground.catalogs.current(tx, &tenant).await.map_err(Stop::Refused)?;
    let held = operator_holds(tx, row.id).await?;
    let digests = known_digests(tx, row.id).await?;
    let basis = Basis {
        account: &row.document,
        known: &catalog.known,
        operator_holds: &held,
        secrets: &digests,
        closed: row.document.status == Status::Terminated,
    };
    let desired = provision::elements(&basis, &[], now);
    elements::settle(tx, tenant.as_str(), row.id, &desired, jobs::LANE_SINGLE, now).await?;
    settle_services(tx, row.id, &row.document, &held, false, now).await?;
    let next = provision::next_change(&basis, now).into_iter().chain(row.close_at).min();
    accounts::wake_at(tx, row.id, next).await?;
    Ok(())
}

async fn next_change(
    tx: &mut Tx,
    row: &AccountRow,
    catalog: &TenantCatalog,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let held = operator_holds(tx, row.id).await?;
    let basis = Basis {
        account: &row.document,
        known: &catalog.known,
        operator_holds: &held,
        secrets: &SecretDigests::new(),
        closed: false,
    };
    Ok(provision::next_change(&basis, now))
}

async fn answered(of: &OfService, tx: &mut Tx) -> Result<Option<Done>, Stop> {
    let before = of.asking.answered(tx, of.key.tenant.as_str()).await?;
    Ok(before.map(|(status, text)| Done {
        status,
        etag: None,
        body: serde_json::from_str(&text).unwrap_or_default(),
        outcome: "replayed",
    }))
}

/// The account of a service, both living.
async fn living(of: &OfService, tx: &mut Tx) -> Result<AccountRow, Stop> {
    let row = accounts::find_locked(tx, &of.key).await?.filter(|row| row.closed_at.is_none());
    let row = row.filter(|row| row.document.service(&of.service).is_some());
    row.ok_or_else(|| Stop::Refused(Problem::not_found()))
}

async fn note(
    of: &OfService,
    action: &'static str,
    row: &AccountRow,
    detail: Value,
    tx: &mut Tx,
    now: Timestamp,
) -> Result<(), StoreError> {
    let entry = audit::Entry {
        tenant: Some(of.key.tenant.as_str()),
        actor: &of.actor,
        action,
        account_id: Some(row.id),
        subject: &format!("{}/{}", accounts::subject(&of.key), of.service),
        detail: &detail,
    };
    audit::append(tx, &entry, now).await
}

async fn answer(of: &OfService, row: AccountRow, status: u16, tx: &mut Tx, now: Timestamp) -> Result<Done, Stop> {
    let body = view::account(tx, &row).await?;
    of.asking.keep(tx, of.key.tenant.as_str(), status, &body.to_string(), now).await?;
    Ok(Done { status, etag: Some(row.etag), body, outcome: "updated" })
}

async fn operator_holds(tx: &mut Tx, account_id: i64) -> Result<Vec<OperatorHold>, StoreError> {
    Ok(holds::living(tx, account_id).await?.into_iter().map(|row| row.held).collect())
}

async fn known_digests(tx: &mut Tx, account_id: i64) -> Result<SecretDigests, StoreError> {
    let known = secrets::digests(tx, account_id).await?;
    Ok(known.into_iter().map(|(service, field, digest)| ((service, field), digest)).collect())
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

/// Brings the service rows and their history to the document; returns (external id, row) of what it names.
async fn settle_services(
    tx: &mut Tx,
    account_id: i64,
    account: &Account,
    held: &[OperatorHold],
    new_account: bool,
    now: Timestamp,
) -> Result<Vec<(String, i64)>, StoreError> {
    let known = match new_account {
        true => Vec::new(),
        false => accounts::services(tx, account_id).await?,
    };
    let covering = |id: &str| -> Vec<Hold> {
        let covers = |held: &&OperatorHold| held.service.as_deref().is_none_or(|service| service == id);
        held.iter().filter(covers).map(|held| held.hold.clone()).collect()
    };
    let mut rows = Vec::new();
    let mut new = Vec::new();
    for service in &account.services {
        let facts = ServiceFacts::of(account, service, &covering(&service.id));
        match known.iter().find(|row| row.external_id == service.id) {
            None => new.push((service.id.as_str(), facts)),
            Some(row) => {
                let ended = facts.status == Status::Terminated;
                accounts::update_service(tx, row, &facts, ended, now).await?;
                rows.push((service.id.clone(), row.id));
            }
        }
    }
    rows.extend(accounts::insert_services(tx, account_id, &new, now).await?);
    for gone in known.iter().filter(|row| row.ended_at.is_none() && account.service(&row.external_id).is_none()) {
        accounts::end_service(tx, gone, now).await?;
    }
    Ok(rows)
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
fn conflict(taken: &[Taken], tenant: &TenantId) -> Problem {
    let mut sentences = Vec::new();
    let mut conflicts = Vec::new();
    for one in taken {
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
    Problem::conflict("already-held", "Already held", sentences.join(" ")).with("conflicts", conflicts)
}
