//! What is known of a device beyond what is desired of it: the file it runs, resets sent to it, what it last said.

use std::collections::HashMap;

use serde::Serialize;

use super::elements::ElementRow;
use super::leases::{self, DeviceFacts};
use super::many::{Many, Of};
use super::{StoreError, Tx, accounts, audit, elements, jobs, on};
use crate::provision::{Content, DeviceKind, Finding, Health, ResetSent, Running, findings, summary, tenths};
use crate::vocabulary::{MacAddress, Timestamp, from_micros, to_micros};

/// One device as known; a device nobody saw yet has no row and is `DeviceRow::default()`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceRow {
    pub running: Option<Running>,
    /// Whether its fetch was seen; otherwise the device said itself that it runs the file, then.
    pub fetch_seen: bool,
    /// Fetches of the running file, each within `FETCH_LOOP` of the one before: a modem that is refused goes round.
    pub fetches: u32,
    pub reset: Option<ResetSent>,
    /// Through whom the newest reset went.
    pub reset_by: Option<String>,
    /// Who asked for a reset that is not sent yet.
    pub reset_wanted_by: Option<String>,
    /// Whether that reset is wanted even if the file is the same.
    pub reset_forced: bool,
    /// Since when a reset waits for a call to end.
    pub deferred_at: Option<Timestamp>,
    /// Effective digest of the newest file on offer.
    pub offered_digest: Option<String>,
}

impl DeviceRow {
    /// When it last fetched its file.
    pub fn fetched_at(&self) -> Option<Timestamp> {
        self.running.as_ref().map(|running| running.fetched_at)
    }

    /// Whether the file on offer differs, for the device, from the one it runs.
    pub fn is_behind(&self) -> bool {
        let running = self.running.as_ref().map(|running| &running.digest);
        self.offered_digest.is_some() && self.offered_digest.as_ref() != running
    }

    /// Whether it is known to run a revision, taken after its last reset.
    pub fn took(&self, revision: i64) -> bool {
        let after_reset = |running: &Running| self.reset.is_none_or(|reset| reset.at < running.fetched_at);
        self.running.as_ref().is_some_and(|running| running.revision == revision && after_reset(running))
    }
}

/// What an attempt on a device did, to be recorded with its ending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceNotes {
    /// The newest fetch the attempt knew of.
    pub seen_fetch_at: Option<Timestamp>,
    /// Effective digest of the file on offer.
    pub offered_digest: Option<String>,
    /// A reset was sent for the claimed revision.
    pub reset: Option<(Timestamp, String)>,
    /// A reset waits for a call to end, since then.
    pub deferred_at: Option<Timestamp>,
    /// The device said itself that it runs this revision.
    pub confirmed_revision: Option<i64>,
    /// It answered.
    pub answered_at: Option<Timestamp>,
    /// What is wrong, for the screen.
    pub trouble: Option<String>,
    /// Whether a person must look: an exception is opened.
    pub alarm: bool,
}

/// A complete fetch of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched<'a> {
    pub revision: i64,
    /// Effective digest of the bytes.
    pub digest: &'a str,
    pub at: Timestamp,
    /// `false`: the device says that it runs it, and nobody saw it fetch.
    pub seen: bool,
    /// What was seen, where the fetch of the newest revision is all the proof there can be; `None`: the device is asked.
    pub evidence: Option<&'a str>,
}

/// Two fetches of one file this close together belong to one loop.
const FETCH_LOOP_US: i64 = 5 * 60 * 1_000_000;

const ONE: &str =
    "SELECT running_revision, running_digest, fetched_at, fetch_seen, fetches, reset_revision, reset_at, resets,
        reset_by, reset_wanted_by, reset_forced, deferred_at, offered_digest
     FROM device WHERE element_id = $1";
static THESE: Many<1> = Many::new(
    [("element", Of::Integer)],
    "SELECT element_id, running_revision, running_digest, fetched_at, fetch_seen, fetches, reset_revision, reset_at, resets,
            reset_by, reset_wanted_by, reset_forced, deferred_at, offered_digest
     FROM new CROSS JOIN device WHERE element_id = new.element",
);
// A device that boots by itself has what a wish for a reset is for. What nobody saw is no fetch of a loop.
const FETCHED: &str =
    "INSERT INTO device (element_id, running_revision, running_digest, fetched_at, fetch_seen, fetches)
     VALUES ($1, $2, $3, $4, $6, CASE WHEN $6 THEN 1 ELSE 0 END)
     ON CONFLICT (element_id) DO UPDATE
     SET fetches = CASE WHEN NOT $6 THEN 0
                        WHEN device.running_revision = $2 AND device.fetched_at > $4 - $5 THEN device.fetches + 1
                        ELSE 1
                   END,
         running_revision = $2, running_digest = $3, fetched_at = $4, fetch_seen = $6,
         reset_wanted_by = CASE WHEN device.reset_wanted_at < $4 THEN NULL ELSE device.reset_wanted_by END,
         reset_forced = (device.reset_forced AND device.reset_wanted_at >= $4),
         reset_wanted_at = CASE WHEN device.reset_wanted_at < $4 THEN NULL ELSE device.reset_wanted_at END";
static RESET: Many<4> = Many::new(
    [("element", Of::Integer), ("revision", Of::Integer), ("at", Of::Integer), ("through", Of::Text)],
    "INSERT INTO device (element_id, reset_revision, reset_at, resets, reset_by)
     SELECT element, revision, at, 1, through FROM new WHERE TRUE
     ON CONFLICT (element_id) DO UPDATE
     SET resets = CASE WHEN device.reset_revision = excluded.reset_revision THEN device.resets + 1 ELSE 1 END,
         reset_revision = excluded.reset_revision, reset_at = excluded.reset_at, reset_by = excluded.reset_by,
         reset_wanted_at = NULL, reset_wanted_by = NULL, reset_forced = FALSE, deferred_at = NULL",
);
const WANT_RESET: &str = "INSERT INTO device (element_id, reset_wanted_at, reset_wanted_by, reset_forced)
     VALUES ($1, $2, $3, $4)
     ON CONFLICT (element_id) DO UPDATE
     SET reset_wanted_at = $2, reset_wanted_by = $3, reset_forced = (device.reset_forced OR $4)";
static DROP_WISH: Many<1> = Many::new(
    [("element", Of::Integer)],
    "UPDATE device SET reset_wanted_at = NULL, reset_wanted_by = NULL, reset_forced = FALSE
     FROM new WHERE device.element_id = new.element AND device.reset_wanted_at IS NOT NULL",
);
// A modem that nobody saw has no address to be asked at.
const TO_POLL: &str = "SELECT element.id, element.key, element.last_seen_from, element.applied_revision, device.health
     FROM device JOIN element ON element.id = device.element_id
     WHERE element.kind = 'cm' AND element.last_seen_from IS NOT NULL AND element.state <> 'gone'
       AND (device.polled_at IS NULL OR device.polled_at < $1)
     ORDER BY device.polled_at, element.id LIMIT $2";
const POLLED: &str = "UPDATE device
     SET polled_at = $2, answered_at = CASE WHEN $3 IS NULL THEN answered_at ELSE $2 END,
         health_before = CASE WHEN $3 IS NULL THEN health_before ELSE health END, health = COALESCE($3, health)
     WHERE element_id = $1";
const LAST_ANSWER: &str = "SELECT health, health_before, polled_at, answered_at FROM device WHERE element_id = $1";
static OFFERED: Many<2> = Many::new(
    [("element", Of::Integer), ("digest", Of::Text)],
    "INSERT INTO device (element_id, offered_digest) SELECT element, digest FROM new WHERE TRUE
     ON CONFLICT (element_id) DO UPDATE SET offered_digest = excluded.offered_digest
     WHERE device.offered_digest IS NULL OR device.offered_digest <> excluded.offered_digest",
);
static DEFERRED: Many<2> = Many::new(
    [("element", Of::Integer), ("at", Of::Integer)],
    "INSERT INTO device (element_id, deferred_at) SELECT element, at FROM new WHERE TRUE
     ON CONFLICT (element_id) DO UPDATE SET deferred_at = excluded.deferred_at",
);
static ANSWERED: Many<2> = Many::new(
    [("element", Of::Integer), ("at", Of::Integer)],
    "INSERT INTO device (element_id, answered_at) SELECT element, at FROM new WHERE TRUE
     ON CONFLICT (element_id) DO UPDATE SET answered_at = excluded.answered_at",
);

/// What is known of a device.
pub async fn one(tx: &mut Tx, element_id: i64) -> Result<DeviceRow, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(ONE).bind(element_id).fetch_optional(c).await)?;
    row.map_or_else(|| Ok(DeviceRow::default()), |row| row.device(element_id))
}

/// As `one`, by element, for many; those nobody saw yet are absent.
pub async fn these(tx: &mut Tx, elements: &[i64]) -> Result<HashMap<i64, DeviceRow>, StoreError> {
    let rows: Vec<OfElement> = THESE.fetch(tx, elements.iter().map(|id| [(*id).into()]).collect()).await?;
    rows.into_iter().map(|OfElement { element_id, row }| Ok((element_id, row.device(element_id)?))).collect()
}

/// Notes a complete fetch.
pub async fn record_fetch(tx: &mut Tx, element_id: i64, fetched: &Fetched<'_>) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(FETCHED)
        .bind(element_id)
        .bind(fetched.revision)
        .bind(fetched.digest)
        .bind(to_micros(fetched.at))
        .bind(FETCH_LOOP_US)
        .bind(fetched.seen)
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Asks for a reset, which the device's job sends; `forced`: even if the device runs that file already. Returns the job.
pub async fn want_reset(
    tx: &mut Tx,
    element_id: i64,
    by: &str,
    forced: bool,
    lane: i64,
    now: Timestamp,
) -> Result<i64, StoreError> {
    on!(tx, c => sqlx::query(WANT_RESET)
        .bind(element_id)
        .bind(to_micros(now))
        .bind(by)
        .bind(forced)
        .execute(c)
        .await.map(drop))?;
    jobs::wake(tx, element_id, lane, now).await
}

/// Whose device may be meant; `None`: anybody's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Whose<'a> {
    pub tenant: Option<&'a str>,
    pub source: Option<&'a str>,
}

/// An operator makes a device boot, whatever it runs: noted with who asked. Returns the element and the job that sends the
/// reset; `None`: no account has such a device.
pub async fn ask_reset(
    tx: &mut Tx,
    mac: MacAddress,
    whose: Whose<'_>,
    by: &str,
    now: Timestamp,
) -> Result<Option<(ElementRow, i64)>, StoreError> {
    let mut found = None;
    for kind in DeviceKind::ALL {
        let element = elements::by_key(tx, kind.element(), &mac.to_string()).await?;
        found = found.or(element.filter(|element| element.desired != Content::Absent));
    }
    let Some(element) = found else { return Ok(None) };
    let account = accounts::by_id(tx, element.account_id).await?;
    let is_of = |asked: Option<&str>, own: &str| asked.is_none_or(|asked| asked == own);
    if !account.is_some_and(|account| is_of(whose.tenant, &account.tenant) && is_of(whose.source, &account.source)) {
        return Ok(None);
    }
    let job = want_reset(tx, element.id, "an operator", true, jobs::LANE_SINGLE, now).await?;
    let (subject, detail) = (jobs::subject(&element), serde_json::json!({ "job": job }));
    let entry = audit::Entry {
        tenant: Some(&element.tenant),
        actor: by,
        action: "device.reset",
        account_id: Some(element.account_id),
        subject: &subject,
        detail: &detail,
    };
    audit::append(tx, &entry, now).await?;
    Ok(Some((element, job)))
}

/// A modem whose turn it is to be asked how it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ToPoll {
    pub element_id: i64,
    pub mac: String,
    pub address: String,
    /// The revision in force, where one is.
    pub applied_revision: Option<i64>,
    pub health: Option<Health>,
}

/// What a modem answered; `None`: nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Polled {
    pub element_id: i64,
    pub health: Option<Health>,
}

/// Modems that were seen and not asked since `before`, the longest waiting first.
pub async fn to_poll(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<Vec<ToPoll>, StoreError> {
    type PollRow = (i64, String, String, Option<i64>, Option<String>);
    let rows: Vec<PollRow> =
        on!(tx, c => sqlx::query_as(TO_POLL).bind(to_micros(before)).bind(limit).fetch_all(c).await)?;
    let modem = |(element_id, mac, address, applied_revision, health): PollRow| ToPoll {
        element_id,
        mac,
        address,
        applied_revision,
        health: health.and_then(|text| serde_json::from_str(&text).ok()),
    };
    Ok(rows.into_iter().map(modem).collect())
}

/// Notes that modems were asked, and what they answered; an older answer stays beside silence.
pub async fn record_polled(tx: &mut Tx, polled: &[Polled], now: Timestamp) -> Result<(), StoreError> {
    for modem in polled {
        let health = modem.health.as_ref().map(serde_json::to_string).transpose().unwrap_or_default();
        on!(tx, c => sqlx::query(POLLED)
            .bind(modem.element_id)
            .bind(to_micros(now))
            .bind(health)
            .execute(c)
            .await.map(drop))?;
    }
    Ok(())
}

/// A device's last answer: what it told, what it told the time before, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastAnswer {
    pub health: Option<Health>,
    pub before: Option<Health>,
    pub polled_at: Option<Timestamp>,
    pub answered_at: Option<Timestamp>,
}

/// What a device last told.
pub async fn last_answer(tx: &mut Tx, element_id: i64) -> Result<LastAnswer, StoreError> {
    type AnswerRow = (Option<String>, Option<String>, Option<i64>, Option<i64>);
    let row: Option<AnswerRow> = on!(tx, c => sqlx::query_as(LAST_ANSWER).bind(element_id).fetch_optional(c).await)?;
    let read = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
    Ok(row.map_or_else(LastAnswer::default, |(health, before, polled_at, answered_at)| LastAnswer {
        health: read(health),
        before: read(before),
        polled_at: polled_at.and_then(from_micros),
        answered_at: answered_at.and_then(from_micros),
    }))
}

/// Everything the screen of one device shows beside its revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceDetails {
    pub evidence: Option<String>,
    /// Where it was last seen.
    pub address: Option<String>,
    pub running_revision: Option<i64>,
    pub fetched_at: Option<Timestamp>,
    /// `false`: nobody saw it fetch what it runs; at `fetched_at` it said so itself.
    pub fetch_seen: bool,
    pub reset_at: Option<Timestamp>,
    pub reset_by: Option<String>,
    /// Who asked for a reset that is not sent yet.
    pub reset_wanted_by: Option<String>,
    pub answered_at: Option<Timestamp>,
    pub polled_at: Option<Timestamp>,
    pub health: Option<Health>,
    /// Is it us or the line?
    pub findings: Vec<Finding>,
    pub summary: Option<String>,
    /// What it told of itself when it asked for an address last; `None`: it never asked here.
    pub dhcp: Option<DeviceFacts>,
}

/// The details of a device.
pub async fn details(tx: &mut Tx, element_id: i64) -> Result<DeviceDetails, StoreError> {
    let element = elements::by_id(tx, element_id).await?;
    let known = one(tx, element_id).await?;
    let last = last_answer(tx, element_id).await?;
    let dhcp = match element.as_ref().and_then(|element| element.key.parse().ok()) {
        Some(mac) => leases::facts(tx, mac).await?,
        None => None,
    };
    let findings = last.health.as_ref().map(|now| findings(now, last.before.as_ref()));
    Ok(DeviceDetails {
        evidence: element.as_ref().and_then(|element| element.evidence.clone()),
        address: element.and_then(|element| element.last_seen_from),
        running_revision: known.running.as_ref().map(|running| running.revision),
        fetched_at: known.running.map(|running| running.fetched_at),
        fetch_seen: known.fetch_seen,
        reset_at: known.reset.map(|reset| reset.at),
        reset_by: known.reset_by,
        reset_wanted_by: known.reset_wanted_by,
        answered_at: last.answered_at,
        polled_at: last.polled_at,
        health: last.health,
        summary: findings.as_deref().map(summary),
        findings: findings.unwrap_or_default(),
        dhcp,
    })
}

impl DeviceDetails {
    /// As lines for a person: name and value.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let health = self.health.clone().unwrap_or_default();
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let instant = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        let level = |value: Option<i64>, unit: &str| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{} {unit}", tenths(value)))
        };
        let number = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let told = |of: fn(&DeviceFacts) -> &String| {
            let word = self.dhcp.as_ref().map(of).filter(|word| !word.is_empty());
            word.cloned().unwrap_or_else(|| "-".to_owned())
        };
        vec![
            ("evidence", text(&self.evidence)),
            ("address", text(&self.address)),
            ("running revision", number(self.running_revision)),
            ("fetched at", instant(self.fetched_at)),
            ("reset at", instant(self.reset_at)),
            ("reset by", text(&self.reset_by)),
            ("reset wanted by", text(&self.reset_wanted_by)),
            ("answered at", instant(self.answered_at)),
            ("firmware", text(&health.firmware)),
            ("serial", text(&health.serial)),
            ("uptime s", number(health.uptime_seconds)),
            ("downstream power", level(health.downstream_power, "dBmV")),
            ("downstream SNR", level(health.downstream_snr, "dB")),
            ("upstream power", level(health.upstream_power, "dBmV")),
            ("resets", number(health.resets)),
            ("us or the line", text(&self.summary)),
            ("told DHCP: class", told(|dhcp| &dhcp.class)),
            ("told DHCP: vendor", told(|dhcp| &dhcp.vendor)),
            ("told DHCP: model", told(|dhcp| &dhcp.model)),
            ("told DHCP: serial", told(|dhcp| &dhcp.serial)),
            ("told DHCP: hardware", told(|dhcp| &dhcp.hardware)),
            ("told DHCP: software", told(|dhcp| &dhcp.software)),
            ("asked DHCP at", instant(self.dhcp.as_ref().map(|dhcp| dhcp.last_seen))),
            ("behind CMTS", told(|dhcp| &dhcp.cmts)),
        ]
    }
}

/// Records what attempts did: each for an element and the revision it was claimed for.
pub(super) async fn record(tx: &mut Tx, attempts: &[(i64, i64, &DeviceNotes)]) -> Result<(), StoreError> {
    let (mut offered, mut reached, mut reset) = (Vec::new(), Vec::new(), Vec::new());
    let (mut deferred, mut answered) = (Vec::new(), Vec::new());
    for (element, revision, notes) in attempts {
        let element = || (*element).into();
        offered.extend(notes.offered_digest.as_ref().map(|digest| [element(), digest.into()]));
        // What was asked for is reached; the next change asks for itself.
        reached.extend((notes.confirmed_revision == Some(*revision)).then(|| [element()]));
        let by = notes.reset.as_ref();
        reset.extend(by.map(|(at, by)| [element(), (*revision).into(), to_micros(*at).into(), by.into()]));
        deferred.extend(notes.deferred_at.map(|at| [element(), to_micros(at).into()]));
        answered.extend(notes.answered_at.map(|at| [element(), to_micros(at).into()]));
    }
    OFFERED.execute(tx, offered).await?;
    DROP_WISH.execute(tx, reached).await?;
    RESET.execute(tx, reset).await?;
    DEFERRED.execute(tx, deferred).await?;
    ANSWERED.execute(tx, answered).await
}

#[derive(sqlx::FromRow)]
struct OfElement {
    element_id: i64,
    #[sqlx(flatten)]
    row: Row,
}

#[derive(sqlx::FromRow)]
struct Row {
    running_revision: Option<i64>,
    running_digest: Option<String>,
    fetched_at: Option<i64>,
    fetch_seen: bool,
    fetches: i64,
    reset_revision: Option<i64>,
    reset_at: Option<i64>,
    resets: i64,
    reset_by: Option<String>,
    reset_wanted_by: Option<String>,
    reset_forced: bool,
    deferred_at: Option<i64>,
    offered_digest: Option<String>,
}

impl Row {
    fn device(self, element_id: i64) -> Result<DeviceRow, StoreError> {
        let corrupt =
            |column: &'static str| StoreError::Corrupt { table: "device", column, id: element_id.to_string() };
        let instant = |column: &'static str, at: Option<i64>| {
            at.map(|at| from_micros(at).ok_or_else(|| corrupt(column))).transpose()
        };
        let running = match (self.running_revision, self.running_digest, instant("fetched_at", self.fetched_at)?) {
            (Some(revision), Some(digest), Some(fetched_at)) => Some(Running { revision, digest, fetched_at }),
            _ => None,
        };
        let reset = match (self.reset_revision, instant("reset_at", self.reset_at)?) {
            (Some(revision), Some(at)) => {
                Some(ResetSent { revision, at, count: u32::try_from(self.resets).unwrap_or(u32::MAX) })
            }
            _ => None,
        };
        Ok(DeviceRow {
            running,
            fetch_seen: self.fetch_seen,
            fetches: u32::try_from(self.fetches).unwrap_or(u32::MAX),
            reset,
            reset_by: self.reset_by,
            reset_wanted_by: self.reset_wanted_by,
            reset_forced: self.reset_forced,
            deferred_at: instant("deferred_at", self.deferred_at)?,
            offered_digest: self.offered_digest,
        })
    }
}
