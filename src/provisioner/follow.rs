//! Keeps the plant and the store in step: changes of other processes come in, complete fetches go out.
//!
//! Two loops. `changes` reads every modem once and then what changed; `fetches` writes what TFTP saw. Both wait out a
//! database that is away: TFTP goes on serving what is known, and no fetch is forgotten meanwhile.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::cmts::Cmts;
use super::mta::{OpenedSecrets, secrets_of};
use super::plant::{Fetch, Found, Plant};
use crate::provision::{Content, DeviceKind, MtaContent, MtaLocation};
use crate::store::devices::Fetched;
use crate::store::elements::ElementRow;
use crate::store::secrets::{self, SecretPlace};
use crate::store::{Store, StoreError, Tx, elements, exceptions, jobs};
use crate::telemetry::Heartbeat;
use crate::vocabulary::{MacAddress, Secret, Timestamp};

/// Kind of the exception of a telephone that is elsewhere than registered.
pub const LOCATION_EXCEPTION: &str = "emergency_location";

/// How often the store is asked for changes, and how long after a failure.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A transaction may commit later than the instant it wrote: what is this young is read again.
const OVERLAP: Duration = Duration::from_secs(10);
/// Snapshots are at least this far apart.
const SAVE_EVERY: Duration = Duration::from_secs(10);
const PAGE: i64 = 1000;
/// Fetches recorded in one transaction.
const MOST_FETCHES: usize = 200;
/// How long a modem that asks for a revision we do not know yet may have to wait for the store.
const ASK_LIMIT: Duration = Duration::from_millis(700);

/// Reads the plant from the store, then its changes; writes the snapshot. Ends never.
pub async fn changes(plant: Plant, store: Store, beat: Heartbeat) -> Result<(), StoreError> {
    let mut reader = Reader { plant, store, since: None };
    let mut failing = false;
    let mut saved: Option<Instant> = None;
    loop {
        beat.beat();
        match reader.read().await {
            Ok(()) if failing => {
                failing = false;
                tracing::info!("The database answers again; modem changes are read.");
            }
            Ok(()) => {}
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(
                    "Modem changes are not read: {error}. TFTP goes on with {} known devices.",
                    reader.plant.device_count()
                );
            }
            Err(_) => {}
        }
        if saved.is_none_or(|at| at.elapsed() >= SAVE_EVERY) {
            saved = Some(Instant::now());
            save(&reader.plant).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Records complete fetches until `stopping` turns true, then what is left.
pub async fn fetches(
    plant: Plant,
    store: Store,
    beat: Heartbeat,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), StoreError> {
    let mut failing = false;
    loop {
        beat.beat();
        let stop = *stopping.borrow();
        match record(&plant, &store).await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!("Fetches of modem files are not recorded: {error}. They are kept and written later.");
            }
            Err(_) => {}
        }
        if stop {
            save(&plant).await;
            return Ok(());
        }
        let pause = async {
            if failing {
                tokio::time::sleep(LOOK_EVERY).await;
            } else {
                let _ = tokio::time::timeout(LOOK_EVERY * 5, plant.fetched()).await;
            }
        };
        tokio::select! {
            () = pause => {}
            _ = stopping.changed() => {}
        }
    }
}

/// The file of a name, asking the store once when the name is genuine and newer than what is known. `Later`: the store did
/// not answer in time, so that nobody here can tell yet.
pub async fn find(plant: &Plant, store: &Store, name: &str, from: IpAddr, now: Timestamp) -> Found {
    let found = plant.find(name, from, now);
    let Found::Later(kind, mac) = found else { return found };
    match tokio::time::timeout(ASK_LIMIT, ask(plant, store, kind, mac)).await {
        Ok(Ok(())) => match plant.find(name, from, now) {
            // The store knows no such revision: a database that was restored, or another installation's.
            Found::Later(..) => Found::Nothing,
            found => found,
        },
        Ok(Err(_)) | Err(_) => found,
    }
}

struct Reader {
    plant: Plant,
    store: Store,
    /// Up to when changes were read, by kind of device; `None`: nothing was read yet.
    since: Option<[Timestamp; DeviceKind::ALL.len()]>,
}

impl Reader {
    async fn read(&mut self) -> Result<(), StoreError> {
        match self.since {
            None => self.read_all().await,
            Some(mut since) => {
                for (kind, since) in DeviceKind::ALL.into_iter().zip(&mut since) {
                    self.read_changes(kind, since).await?;
                }
                self.since = Some(since);
                Ok(())
            }
        }
    }

    async fn read_all(&mut self) -> Result<(), StoreError> {
        let mut all = Vec::new();
        for kind in DeviceKind::ALL {
            let mut after = 0;
            loop {
                let mut tx = self.store.read().await?;
                let page = elements::of_kind(&mut tx, kind.element(), after, PAGE).await?;
                let Some(last) = page.last().map(|element| element.id) else { break };
                let mut opened = opened_of_page(&mut tx, &self.store, kind, after, last).await?;
                all.extend(page.into_iter().map(|element| {
                    let secrets = secrets_of(&element.desired).into_iter().filter_map(|reference| {
                        let key = (reference.service.clone(), reference.field.clone());
                        let secret = opened.remove(&(element.account_id, key.0.clone(), key.1.clone()))?;
                        Some((key, secret))
                    });
                    let secrets: OpenedSecrets = secrets.collect();
                    (element, secrets)
                }));
                after = last;
            }
        }
        let newest = all.iter().map(|(element, _)| element.updated_at).max().unwrap_or(Timestamp::UNIX_EPOCH);
        self.plant.replace(all);
        self.since = Some([newest; DeviceKind::ALL.len()]);
        Ok(())
    }

    async fn read_changes(&mut self, kind: DeviceKind, since: &mut Timestamp) -> Result<(), StoreError> {
        let mut from = (since.checked_sub(OVERLAP).unwrap_or(Timestamp::UNIX_EPOCH), 0);
        loop {
            let mut tx = self.store.read().await?;
            let page = elements::changed_since(&mut tx, kind.element(), from.0, from.1, PAGE).await?;
            for element in &page {
                let secrets = opened(&mut tx, &self.store, element).await?;
                self.plant.learn(element, secrets);
            }
            let Some(last) = page.last() else { break };
            from = (last.updated_at, last.id);
            *since = last.updated_at.max(*since);
            if (page.len() as i64) < PAGE {
                break;
            }
        }
        Ok(())
    }
}

async fn ask(plant: &Plant, store: &Store, kind: DeviceKind, mac: MacAddress) -> Result<(), StoreError> {
    let mut tx = store.read().await?;
    if let Some(element) = elements::by_key(&mut tx, kind.element(), &mac.to_string()).await? {
        let secrets = opened(&mut tx, store, &element).await?;
        plant.learn(&element, secrets);
    }
    Ok(())
}

/// The secrets an element's content names. One that does not open is left out: the file says so when it is built.
async fn opened(tx: &mut Tx, store: &Store, element: &ElementRow) -> Result<OpenedSecrets, StoreError> {
    let mut secrets = OpenedSecrets::new();
    for reference in secrets_of(&element.desired) {
        let (service, field) = (reference.service.as_str(), reference.field.as_str());
        let place = SecretPlace { tenant: &element.tenant, account_id: element.account_id, service, field };
        match secrets::open(tx, store.sealer(), place).await {
            Ok(Some(secret)) => drop(secrets.insert((service.to_owned(), field.to_owned()), secret)),
            Ok(None) | Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(secrets)
}

/// The SIP passwords of the accounts of a page of elements, by account, service and field.
async fn opened_of_page(
    tx: &mut Tx,
    store: &Store,
    kind: DeviceKind,
    after: i64,
    last: i64,
) -> Result<HashMap<(i64, String, String), Secret>, StoreError> {
    match kind {
        DeviceKind::Cm => Ok(HashMap::new()),
        DeviceKind::Mta => secrets::open_of_elements(tx, store.sealer(), kind.element(), after, last).await,
    }
}

async fn record(plant: &Plant, store: &Store) -> Result<(), StoreError> {
    let mut waiting = plant.take_fetches();
    while !waiting.is_empty() {
        let ids: Vec<i64> = waiting.keys().copied().take(MOST_FETCHES).collect();
        if let Err(error) = record_some(plant, store, &waiting, &ids).await {
            plant.return_fetches(waiting);
            return Err(error);
        }
        for id in ids {
            waiting.remove(&id);
        }
    }
    let reported = plant.take_reported();
    if let Err(error) = record_reports(store, &reported).await {
        plant.return_reported(reported);
        return Err(error);
    }
    Ok(())
}

/// Jobs of devices that told something are due, behind the fetches they tell about.
async fn record_reports(store: &Store, reported: &HashMap<i64, Timestamp>) -> Result<(), StoreError> {
    if reported.is_empty() {
        return Ok(());
    }
    let mut tx = store.write().await?;
    for (id, at) in reported {
        elements::record_report(&mut tx, *id, *at).await?;
    }
    tx.commit().await
}

async fn record_some(
    plant: &Plant,
    store: &Store,
    waiting: &HashMap<i64, Fetch>,
    ids: &[i64],
) -> Result<(), StoreError> {
    let asked = plant.modems_are_asked();
    let mut tx = store.write().await?;
    for id in ids {
        let fetch = &waiting[id];
        let evidence = format!("fetched {} from {} at {:.0}", fetch.name, fetch.from, fetch.at);
        let evidence = (!asked).then_some(evidence.as_str());
        let Fetch { revision, at, seen, .. } = *fetch;
        let fetched = Fetched { revision, digest: &fetch.digest, at, seen, evidence };
        elements::record_fetched(&mut tx, *id, &fetched, &fetch.from.to_string()).await?;
        if fetch.kind == DeviceKind::Mta
            && let Some(cmts) = plant.cmts_of(fetch.from)
        {
            look_where_it_is(&mut tx, *id, &cmts, fetch.at).await?;
        }
    }
    tx.commit().await
}

/// An emergency call is sent to the address a voice service was registered with: a telephone behind a CMTS that does not
/// serve that address needs a person.
async fn look_where_it_is(tx: &mut Tx, element_id: i64, cmts: &Cmts, now: Timestamp) -> Result<(), StoreError> {
    if cmts.areas.is_empty() {
        return Ok(());
    }
    let Some(element) = elements::by_id(tx, element_id).await? else { return Ok(()) };
    let Content::Mta(mta) = &element.desired else { return Ok(()) };
    let subject = jobs::subject(&element);
    match misplaced(mta, cmts) {
        Some(detail) => {
            exceptions::open(tx, Some(&element.tenant), LOCATION_EXCEPTION, &subject, &detail, now).await?;
            tracing::warn!(
                modem.mac = element.key,
                account.id = element.account_id,
                "MTA {} is behind {}, which does not serve its registered address: an emergency call would be sent elsewhere. \
                 Ask the subscriber, then have the address corrected.",
                element.key,
                cmts.name
            );
        }
        None => {
            exceptions::release_subject(tx, LOCATION_EXCEPTION, &subject, "provisioner", now).await?;
        }
    }
    Ok(())
}

/// Which registered address does not fit the CMTS; `None`: all do, or none tells its postal code.
fn misplaced(mta: &MtaContent, cmts: &Cmts) -> Option<String> {
    let code = |location: &MtaLocation| location.address.postal_code.clone();
    let strange = mta
        .locations
        .iter()
        .find(|location| code(location).is_some_and(|code| !cmts.areas.iter().any(|area| area.holds(&code))))?;
    Some(format!(
        "service {} is registered in {} and its MTA is behind {}, which does not serve that area",
        strange.service,
        code(strange).unwrap_or_default(),
        cmts.name
    ))
}

async fn save(plant: &Plant) {
    let writing = plant.clone();
    let outcome = tokio::task::spawn_blocking(move || writing.save()).await;
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => {
            tracing::warn!(
                "The snapshot of the plant was not written: {reason}. A start without database would serve older files."
            );
        }
        Err(error) => tracing::error!("The snapshot of the plant was not written: {error}."),
    }
}
