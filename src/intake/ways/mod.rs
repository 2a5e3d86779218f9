//! The ways in of billing systems besides the account push: requests, files in a watched folder, framed messages over TCP.
//! Each of them checks who sends, reads the octets by the source's profile, and hands the records to the writer, which keeps
//! what came and does it in one order; each is answered in the words of the profile once that is durable.

pub mod callback;
mod http;
pub(super) mod inbox;
mod replay;
mod wire;

use std::io::Cursor;
use std::sync::Arc;

pub(super) use http::routes;
pub use inbox::{detailed as ingest_detailed, shown as ingest_shown};
pub use replay::{ReplayError, Replayed, replay};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::App;
use super::deeds::Deed;
use super::deeds::ingest::{Ingest, Input, NewInput};
use super::desk::Desk;
use super::problem::Problem;
use super::sources::Shelved;
use crate::mediation::{Outcome, Profile};
use crate::store::ingest::{Tally, Way, place};
use crate::store::{Sealer, StoreError};
use crate::telemetry::{Heartbeat, Outcome as OutcomeLabel};
use crate::vocabulary::hex;
use crate::vocabulary::{SourceId, TenantId, Timestamp};

pub use wire::Listening;

/// Records of one transaction: a long input must not make others wait.
const RECORDS_AT_ONCE: usize = 50;
/// Records of one request or message.
const RECORDS_MAX: usize = 10_000;

/// Something that came, from somebody who may send it.
struct Arrived {
    tenant: TenantId,
    source: SourceId,
    actor: String,
    profile: Arc<Shelved>,
    way: Way,
    event: Option<String>,
    octets: Vec<u8>,
    records: Vec<Outcome>,
}

/// What became of it.
struct Taken {
    ingest: String,
    tally: Tally,
    results: Vec<Value>,
    duplicate: bool,
}

impl Taken {
    fn document(&self) -> Value {
        if self.duplicate {
            return json!({ "ingest": self.ingest, "duplicate": true });
        }
        let Tally { changes, ignored, held, quarantined } = self.tally;
        json!({
            "ingest": self.ingest, "changes": changes, "ignored": ignored, "held": held, "quarantined": quarantined,
            "results": self.results,
        })
    }

    /// Status, content type and body in the source's own words; a profile without words gets ours.
    fn answer(&self, profile: &Profile) -> (u16, String, String) {
        let answer = match self.tally.quarantined {
            0 => &profile.reply.accepted,
            _ => &profile.reply.quarantined,
        };
        let body = match answer.body.is_empty() {
            true => self.document().to_string(),
            false => answer.body.clone(),
        };
        (answer.status, answer.content_type.clone(), body)
    }
}

/// Reads octets by a profile.
///
/// **Errors**: more records than one input of this way may have.
async fn read(profile: &Arc<Shelved>, octets: Vec<u8>) -> Result<(Vec<u8>, Vec<Outcome>), Problem> {
    let profile = Arc::clone(profile);
    let reading = tokio::task::spawn_blocking(move || {
        let mut records = Vec::new();
        for mut outcome in profile.profile.changes(Cursor::new(&octets)) {
            // What came is kept as a whole.
            outcome.raw = Vec::new();
            records.push(outcome);
            if records.len() > RECORDS_MAX {
                return Err(());
            }
        }
        Ok((octets, records))
    });
    match reading.await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(())) => {
            let detail = format!("One request has at most {RECORDS_MAX} records; send a file.");
            Err(Problem::new(axum::http::StatusCode::PAYLOAD_TOO_LARGE, "too-many-records", "Too many records", detail))
        }
        Err(error) => {
            tracing::error!("A record could not be read: {error}");
            Err(Problem::internal())
        }
    }
}

/// A keyed digest of octets: the same ones again are known without keeping them readable.
fn digest(sealer: &Sealer, sha256: &[u8]) -> String {
    hex(&sealer.keyed_hash("ingest", sha256)[..16])
}

fn expires_at(now: Timestamp, days: u32) -> Timestamp {
    let seconds = i64::from(days).saturating_mul(86_400);
    now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// Keeps what came and does it; returns once all of it is durable.
async fn take(desk: &Desk, metrics: &crate::telemetry::Metrics, arrived: Arrived) -> Result<Taken, Problem> {
    let Arrived { tenant, source, actor, profile, way, event, octets, mut records } = arrived;
    let sealer = desk.store.sealer();
    let digest = digest(sealer, &Sha256::digest(&octets));
    let sealed = sealer.seal_bytes(&place(tenant.as_str(), &digest), &octets)?;
    drop(octets);
    let expires_at = expires_at(desk.clock.now(), desk.sources.now().raw_days);
    let new = NewInput { way, name: None, event, digest, sealed: Some(sealed), expires_at };
    let mut input = Some(Input::New(new));
    let mut taken = Taken { ingest: String::new(), tally: Tally::default(), results: Vec::new(), duplicate: false };
    loop {
        let rest = records.split_off(records.len().min(RECORDS_AT_ONCE));
        let ends = rest.is_empty().then_some("done");
        let again = || taken.ingest.parse().ok().map(|id| Input::More { id });
        let asked = Ingest {
            tenant: tenant.clone(),
            source: source.clone(),
            actor: actor.clone(),
            profile: Arc::clone(&profile),
            input: input.take().or_else(again).ok_or_else(Problem::internal)?,
            records: std::mem::replace(&mut records, rest),
            ends,
        };
        let done = desk.perform(Deed::Ingest(Box::new(asked))).await?;
        taken.ingest = done.body["ingest"].as_str().unwrap_or_default().to_owned();
        if done.body["duplicate"] == true {
            taken.duplicate = true;
            break;
        }
        let (tally, results) = counted(&done.body);
        taken.tally.add(tally);
        taken.results.extend(results);
        if ends.is_some() {
            break;
        }
    }
    count(metrics, &taken);
    tell(&tenant, &source, &profile, &taken);
    Ok(taken)
}

fn counted(body: &Value) -> (Tally, Vec<Value>) {
    let number = |key: &str| body[key].as_i64().unwrap_or(0);
    let tally = Tally {
        changes: number("changes"),
        ignored: number("ignored"),
        held: number("held"),
        quarantined: number("quarantined"),
    };
    (tally, body["results"].as_array().cloned().unwrap_or_default())
}

fn count(metrics: &crate::telemetry::Metrics, taken: &Taken) {
    let Tally { changes, ignored, held, quarantined } = taken.tally;
    let duplicates = i64::from(taken.duplicate);
    for (word, count) in [
        ("changed", changes),
        ("ignored", ignored),
        ("held", held),
        ("quarantined", quarantined),
        ("duplicate", duplicates),
    ] {
        let count = u64::try_from(count).unwrap_or(0);
        if count > 0 {
            metrics.ingest_records.get_or_create(&OutcomeLabel::new(word)).inc_by(count);
        }
    }
}

/// One line an input, once it is durable.
fn tell(tenant: &TenantId, source: &SourceId, profile: &Shelved, taken: &Taken) {
    let Tally { changes, ignored, held, quarantined } = taken.tally;
    let (id, name) = (&taken.ingest, &profile.profile.name);
    if taken.duplicate {
        tracing::info!(ingest.id = %id, %tenant, %source, profile = %name, "Input came again; nothing is done twice.");
    } else if quarantined > 0 {
        tracing::warn!(
            ingest.id = %id, %tenant, %source, profile = %name, changes, ignored, held, quarantined,
            "Records of an input were put aside: see `lastmile ingest show {id}`."
        );
    } else {
        tracing::info!(ingest.id = %id, %tenant, %source, profile = %name, changes, ignored, held, "Input taken.");
    }
}

/// Who a record is from, for the audit.
fn actor(source: &SourceId, profile: &Shelved) -> String {
    format!("source {source} by profile {}@{}", profile.profile.name, &profile.digest[..8])
}

impl From<StoreError> for ReplayError {
    fn from(error: StoreError) -> Self {
        ReplayError::Store(error)
    }
}

/// Runs what comes in by itself: the folders that are watched and the connections that are waited for, until it is dropped.
pub(super) async fn run(app: App, listening: Vec<Listening>, beat: Heartbeat) {
    let desk = Desk::of(&app);
    let mut connections = tokio::task::JoinSet::new();
    for listening in listening {
        connections.spawn(wire::serve(desk.clone(), app.metrics.clone(), listening));
    }
    inbox::watch(desk, app.metrics.clone(), beat).await;
}
