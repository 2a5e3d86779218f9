//! Records of a billing system: what came is kept, each record is done as a push or a closing, and what cannot be done is put
//! aside with every reason; all in one transaction, in the order in which it came.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::close::close;
use super::guard;
use super::push::push_all;
use super::{Close, Done, Ground, Push, Stop};
use crate::account::{Conditions, parse};
use crate::intake::problem::Problem;
use crate::intake::sources::Shelved;
use crate::mediation::{AliasKind, Change, Operation, Outcome, Refusal, apply};
use crate::store::accounts::{self, AccountRow};
use crate::store::holders::{self, HeldKind};
use crate::store::ingest::{self, NewIngest, Tally, Way};
use crate::store::jobs::LANE_SINGLE;
use crate::store::{StoreError, Tx, exceptions};
use crate::vocabulary::{AccountKey, Fault, MacAddress, SourceId, TenantId, Timestamp};

/// Records, complete: nothing more is needed from the request.
#[derive(Debug)]
pub struct Ingest {
    pub tenant: TenantId,
    pub source: SourceId,
    pub actor: String,
    pub profile: Arc<Shelved>,
    pub input: Input,
    /// In their order.
    pub records: Vec<Outcome>,
    /// These are the last ones: it ends in this state, `done` or `refused`.
    pub ends: Option<&'static str>,
}

/// Where the records come from.
#[derive(Debug)]
pub enum Input {
    /// Something that just came.
    New(NewInput),
    /// What follows of it.
    More { id: i64 },
    /// What was put aside of it is tried again. Unless `forced`, an account that changed since is left as it is.
    Again { id: i64, received_at: Timestamp, forced: bool },
}

#[derive(Debug)]
pub struct NewInput {
    pub way: Way,
    pub name: Option<String>,
    pub event: Option<String>,
    pub digest: String,
    pub sealed: Option<Vec<u8>>,
    pub expires_at: Timestamp,
}

/// What became of one record.
enum Became {
    Ignored,
    Done(Done),
    Aside(Option<String>, Vec<Fault>),
}

pub(super) async fn ingest(asked: &Ingest, tx: &mut Tx, ground: &Ground, now: Timestamp) -> Result<Done, Stop> {
    let shelved = &asked.profile;
    ingest::keep_profile(tx, &shelved.digest, &shelved.profile.name, &shelved.text, now).await?;
    let (id, settled_before) = match &asked.input {
        Input::New(new) => match begin(asked, new, tx, now).await? {
            Ok(id) => (id, 1),
            // It was cut off in the middle, and goes on there.
            Err(known) if known.state == "reading" => (known.id, known.next_record),
            Err(known) => {
                let body = json!({ "ingest": known.id.to_string(), "duplicate": true, "state": known.state });
                return Ok(Done { status: 200, etag: None, body, outcome: "replayed" });
            }
        },
        Input::More { id } => {
            let known = ingest::one(tx, *id).await?.ok_or_else(|| Stop::Declined(Problem::not_found()))?;
            (known.id, known.next_record)
        }
        Input::Again { id, .. } => (*id, 1),
    };
    let again = matches!(asked.input, Input::Again { .. });
    let origin = json!({
        "profile": shelved.profile.name, "profile_digest": shelved.digest, "ingest": id.to_string(),
    });
    let mut tally = Tally::default();
    let mut results = Vec::new();
    let mut touched = HashSet::new();
    let mut next_record = settled_before;
    // Why the first one was put aside, and where it stands.
    let mut first: Option<String> = None;
    for record in &asked.records {
        let number = i64::try_from(record.number).unwrap_or(i64::MAX);
        if number < settled_before {
            continue;
        }
        next_record = number.saturating_add(1);
        let became = match &record.result {
            Ok(None) => Became::Ignored,
            Err(refusal) => Became::Aside(None, refused(refusal)),
            Ok(Some(change)) => done(asked, change, &origin, &mut touched, tx, ground, now).await?,
        };
        if again && !matches!(became, Became::Aside(..)) {
            ingest::replayed(tx, id, number, &asked.actor, now).await?;
        }
        let line = i64::try_from(record.line).unwrap_or(i64::MAX);
        results.push(match became {
            Became::Ignored => {
                tally.ignored += 1;
                json!({ "record": number, "result": "ignored" })
            }
            Became::Done(done) => {
                match done.outcome {
                    "held" => tally.held += 1,
                    _ => tally.changes += 1,
                }
                let account = record.result.as_ref().ok().and_then(Option::as_ref).and_then(|change| change.account.clone());
                json!({ "record": number, "result": done.outcome, "account": done.body["id"].as_str().map(str::to_owned).or(account) })
            }
            Became::Aside(account, faults) => {
                tally.quarantined += 1;
                if let (None, Some(Fault { pointer, detail })) = (&first, faults.first()) {
                    first = Some(format!("record {number}, line {line}: {pointer} {detail}"));
                }
                ingest::put_aside(tx, id, (number, line), account.as_deref(), &json!(faults), now).await?;
                json!({ "record": number, "line": line, "result": "quarantined", "account": account, "errors": faults })
            }
        });
    }
    if !again {
        ingest::advance(tx, id, next_record, tally, asked.ends.unwrap_or("reading"), asked.ends.map(|_| now)).await?;
    }
    tell(asked, id, &tally, first.as_deref(), tx, now).await?;
    let body = json!({
        "ingest": id.to_string(),
        "changes": tally.changes,
        "ignored": tally.ignored,
        "held": tally.held,
        "quarantined": tally.quarantined,
        "results": results,
    });
    let outcome = if tally.changes > 0 { "ingested" } else { "unchanged" };
    Ok(Done { status: 200, etag: None, body, outcome })
}

async fn begin(
    asked: &Ingest,
    new: &NewInput,
    tx: &mut Tx,
    now: Timestamp,
) -> Result<Result<i64, ingest::IngestRow>, StoreError> {
    let new = NewIngest {
        tenant: asked.tenant.as_str(),
        source: asked.source.as_str(),
        profile: &asked.profile.profile.name,
        profile_digest: &asked.profile.digest,
        way: new.way,
        name: new.name.as_deref(),
        event: new.event.as_deref(),
        digest: &new.digest,
        sealed: new.sealed.as_deref(),
        expires_at: new.expires_at,
    };
    ingest::begin(tx, &new, now).await
}

/// Opens the exception of what was put aside, and ends it when a replay leaves nothing aside.
async fn tell(
    asked: &Ingest,
    id: i64,
    tally: &Tally,
    first: Option<&str>,
    tx: &mut Tx,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (tenant, source, profile) = (asked.tenant.as_str(), asked.source.as_str(), &asked.profile.profile.name);
    let subject = format!("{tenant}/{source}/{profile}");
    if tally.quarantined > 0 {
        let detail = format!(
            "{} records of input {id} of source {source} were put aside; {}. See `lastmile ingest show {id}`; mend the profile or \
             the source, then `lastmile ingest replay {id}`.",
            tally.quarantined,
            first.unwrap_or("it could not be read")
        );
        exceptions::open(tx, Some(tenant), ASIDE_KIND, &subject, &detail, now).await?;
    } else if matches!(asked.input, Input::Again { .. }) && ingest::open_of(tx, tenant, source, profile).await? == 0 {
        exceptions::release_subject(tx, ASIDE_KIND, &subject, &asked.actor, now).await?;
    }
    Ok(())
}

/// Does what a record asks for.
async fn done(
    asked: &Ingest,
    change: &Change,
    origin: &Value,
    touched: &mut HashSet<i64>,
    tx: &mut Tx,
    ground: &Ground,
    now: Timestamp,
) -> Result<Became, Stop> {
    let (key, service) = match whose(asked, change, tx).await? {
        Ok(found) => found,
        // What is not there, or no more, is gone: that is what is wanted, however often it is said.
        Err(_) if change.operation == Operation::Delete => return Ok(Became::Ignored),
        Err(detail) => return Ok(Became::Aside(None, vec![fault("/id", detail)])),
    };
    let account = || Some(key.external_id.clone());
    let aside = |faults: Vec<Fault>| Ok(Became::Aside(account(), faults));
    let row = accounts::find_locked(tx, &key).await?;
    let living = row.as_ref().filter(|row| row.closed_at.is_none());
    if let (Input::Again { received_at, forced: false, .. }, Some(row)) = (&asked.input, &row)
        && row.updated_at > *received_at
        && !touched.contains(&row.id)
    {
        let detail =
            format!("the account changed at {:.0}, after this came: it is replayed only by force", row.updated_at);
        return aside(vec![fault("", detail)]);
    }
    touched.extend(row.as_ref().map(|row| row.id));
    let mut change = change.clone();
    if let (Some(service), Some(row)) = (service, living) {
        let known: Vec<&str> = row.document.services.iter().map(|service| service.id.as_str()).collect();
        change.name_service(&known, &service);
    }
    if change.operation == Operation::Delete && living.is_none() {
        return Ok(Became::Ignored);
    }
    let base = match living {
        Some(row) => Some(said(row, &key, tx, ground).await?),
        None => None,
    };
    let document = match apply(&change, base.as_ref()) {
        Ok(document) => document,
        Err(detail) => return aside(vec![fault("", detail)]),
    };
    let outcome = match document {
        None => {
            let deed = Close {
                key: key.clone(),
                actor: asked.actor.clone(),
                effective: None,
                source_revision: None,
                conditions: Conditions::default(),
                origin: Some(origin.clone()),
                released: false,
                lane: LANE_SINGLE,
            };
            close(&deed, tx, ground, now).await
        }
        Some(document) => {
            let catalog = ground.catalogs.current(tx, &key.tenant).await.map_err(Stop::Refused)?;
            let pushed = match parse(&document, &key, &catalog.known) {
                Ok(pushed) => pushed,
                Err(faults) => return aside(faults),
            };
            let deed = Push {
                key: key.clone(),
                actor: asked.actor.clone(),
                pushed,
                conditions: Conditions::default(),
                catalog_version: catalog.version,
                origin: Some(origin.clone()),
                released: false,
                lane: LANE_SINGLE,
            };
            let mut one = push_all(&[&deed], tx, ground, now).await?;
            one.pop().unwrap_or_else(|| Err(Problem::internal().into()))
        }
    };
    match outcome {
        Ok(done) => Ok(Became::Done(done)),
        // Each of them is told before anything is written.
        Err(Stop::Declined(problem) | Stop::Refused(problem)) if problem.status().is_client_error() => {
            let detail = problem.document()["detail"].as_str().unwrap_or_default().to_owned();
            aside(vec![fault("", detail)])
        }
        Err(Stop::Store(error)) => Err(Stop::Store(error)),
        // Something is written already: all of it is undone, and whoever sent it sends it again.
        Err(Stop::Declined(problem) | Stop::Refused(problem)) => Err(Stop::Refused(problem)),
        Err(Stop::CatalogMoved) => Err(Stop::Refused(Problem::unavailable("The catalog is changing; send it again."))),
    }
}

/// The account as its source said it last: what waits for an operator was said after what is stored.
async fn said(row: &AccountRow, key: &AccountKey, tx: &mut Tx, ground: &Ground) -> Result<Value, StoreError> {
    let waits = guard::waiting(tx, &[key]).await?.remove(&accounts::subject(key));
    let mut document = match waits.map(|waits| guard::waits_as_document(&waits, ground)).transpose()?.flatten() {
        Some(document) => document,
        None => json!(row.document),
    };
    if let Some(map) = document.as_object_mut() {
        map.shift_remove("source_revision");
    }
    Ok(document)
}

/// The account a record is about, and the service where an alias found one. `Err` inside: nobody.
async fn whose(
    asked: &Ingest,
    change: &Change,
    tx: &mut Tx,
) -> Result<Result<(AccountKey, Option<String>), String>, StoreError> {
    let of = (asked.tenant.as_str(), asked.source.as_str());
    let key =
        |external_id: String| AccountKey { tenant: asked.tenant.clone(), source: asked.source.clone(), external_id };
    let mut found: Option<(String, Option<String>)> = None;
    for (kind, text) in &change.aliases {
        let one = match kind {
            AliasKind::Service => {
                let accounts = accounts::with_service(tx, of, text).await?;
                if accounts.len() > 1 && change.account.is_none() {
                    return Ok(Err(format!("service {text:?} is of several accounts")));
                }
                accounts.into_iter().next().map(|account| (account, Some(text.clone())))
            }
            AliasKind::Username => holders::of_source(tx, of, HeldKind::Username, text).await?,
            AliasKind::Number => holders::of_source(tx, of, HeldKind::Number, text).await?,
            AliasKind::Mailbox => holders::of_source(tx, of, HeldKind::Mailbox, &text.to_lowercase()).await?,
            AliasKind::Mac => match text.parse::<MacAddress>() {
                Ok(mac) => holders::of_source(tx, of, HeldKind::Mac, &mac.to_string()).await?,
                Err(_) => None,
            },
        };
        if one.is_some() {
            found = one;
            break;
        }
    }
    Ok(match (&change.account, found) {
        (Some(account), Some((found, service))) if *account == found => Ok((key(found), service)),
        (Some(account), _) => Ok((key(account.clone()), None)),
        (None, Some((account, service))) => Ok((key(account), service)),
        (None, None) => {
            let known: Vec<String> =
                change.aliases.iter().map(|(kind, text)| format!("{} {text:?}", kind.as_str())).collect();
            Err(format!("no account of this source has {}", known.join(" or ")))
        }
    })
}

fn refused(refusal: &Refusal) -> Vec<Fault> {
    refusal.faults.clone()
}

fn fault(pointer: &str, detail: String) -> Fault {
    Fault { pointer: pointer.to_owned(), detail }
}

/// The kind of the exception that tells of records that were put aside.
pub const ASIDE_KIND: &str = "records-quarantined";
