//! Brings one modem or MTA to the file it must run: offers it, makes the device boot, and waits until it says so itself.
//!
//! Comes in: the claimed job of a `cm` or `mta` element. Goes out: how far it is, what was done to the device, and when to look
//! again. Each attempt takes the one step that `provision::next_step` names; what was seen stands in the store, so that
//! any attempt may be the last of its process. Resets only what must boot, and never during a call.

mod ask;
mod reset;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use super::backend::{ApplyError, Outcome};
use super::cmts::{Cmts, ResetDriver};
use super::leases::Leases;
use super::lines::LineStatus;
use super::mta::OpenedSecrets;
use super::plant::{Offer, Plant};
use super::snmp::{Snmp, SnmpSettings};
use super::window::Window;
use crate::provision::{
    BOOT_ALLOWANCE, Content, DeviceFacts, DeviceKind, ElementKind, ElementState, Means, Settled, Step, Verdict,
    next_step,
};
use crate::store::devices::{DeviceNotes, DeviceRow};
use crate::store::elements::{self, ElementRow, Progress};
use crate::store::jobs::{ClaimedJob, LANE_SINGLE};
use crate::store::plant::config_file_name;
use crate::store::{Store, StoreError};
use crate::vocabulary::{MacAddress, Timestamp};

pub(super) use ask::mta_provisioning_state;

/// What the configuration says about reaching devices.
#[derive(Debug, Clone)]
pub struct DeviceSettings {
    /// `None`: modems are not asked anything.
    pub modems: Option<SnmpSettings>,
    /// Which object tells whether a line is in a call, by model.
    pub lines: Vec<LineStatus>,
    /// Modems with voice are reset whatever their lines do.
    pub voice_any: bool,
    /// How often each modem is asked how it is; `None`: never.
    pub poll: Option<Duration>,
    /// When a reset that waits for a silent line may go ahead.
    pub window: Window,
    /// The TFTP server as devices reach it; `None`: this machine, at the address a device reaches it by.
    pub tftp_server: Option<IpAddr>,
}

/// The devices' side of the provisioner; cheap to clone.
#[derive(Clone)]
pub struct Devices {
    plant: Plant,
    /// Where DHCP is ours, or Kea's is read.
    leases: Option<Leases>,
    snmp: Snmp,
    settings: Arc<RwLock<Arc<DeviceSettings>>>,
    /// When this process made its first attempt: what was sent before may have been answered to nobody.
    began: Arc<OnceLock<Timestamp>>,
}

/// What contradicts a fetch this young may be older than the fetch.
const GRACE: Duration = Duration::from_secs(60);

impl Devices {
    pub fn new(plant: Plant, leases: Option<Leases>, settings: DeviceSettings) -> Self {
        let settings = Arc::new(RwLock::new(Arc::new(settings)));
        Self { plant, leases, snmp: Snmp::default(), settings, began: Arc::default() }
    }

    /// New settings, from the next attempt on.
    pub fn reload(&self, settings: DeviceSettings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.snmp.forget_keys();
    }

    pub fn settings(&self) -> Arc<DeviceSettings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn plant(&self) -> &Plant {
        &self.plant
    }

    pub fn snmp(&self) -> &Snmp {
        &self.snmp
    }

    /// Takes the next step of a device. Safe to repeat.
    ///
    /// **Errors**: `Fail` when its content makes no valid file; `Retry` when the store cannot be read.
    pub async fn apply(
        &self,
        store: &Store,
        job: &ClaimedJob,
        secrets: OpenedSecrets,
        random: u64,
        now: Timestamp,
    ) -> Result<Outcome, ApplyError> {
        self.began.get_or_init(|| now);
        let element = &job.element;
        let kind = element.kind.device().ok_or_else(|| ApplyError::Fail(format!("{} is no device", element.key)))?;
        let offer = self.plant.offer(element, secrets).map_err(ApplyError::Fail)?;
        let mac: MacAddress =
            element.key.parse().map_err(|_| ApplyError::Fail(format!("{:?} is no MAC address", element.key)))?;
        let lines_at = telephone_side(store, element)
            .await
            .map_err(|error| ApplyError::Retry(format!("what is known of the device could not be read: {error}")))?;
        let attempt = Attempt::new(self, store, job, (kind, mac), offer, lines_at, random, now);
        Ok(Outcome::Device(Box::new(attempt.run().await)))
    }
}

/// Whose word a verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Cmts,
    /// The device's, when it was asked.
    Answer,
    /// The device's, of its own accord and after its fetch.
    Report,
}

/// How an attempt on a device ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOutcome {
    pub progress: Progress,
    pub notes: DeviceNotes,
    /// When to look again, and why; `None`: nothing more to do until something is seen.
    pub again: Option<(Timestamp, String)>,
}

struct Attempt<'a> {
    devices: &'a Devices,
    settings: Arc<DeviceSettings>,
    element: &'a ElementRow,
    attempts: u32,
    random: u64,
    now: Timestamp,
    kind: DeviceKind,
    mac: MacAddress,
    /// `None`: the device must be gone.
    offer: Option<Offer>,
    known: DeviceRow,
    /// Where the gateway's telephone side answers.
    lines_at: Option<IpAddr>,
    facts: DeviceFacts,
    address: Option<IpAddr>,
    cmts: Option<Arc<Cmts>>,
    /// Name of the file the device fetched last.
    running_name: Option<String>,
}

impl<'a> Attempt<'a> {
    #[expect(clippy::too_many_arguments, reason = "an attempt is made of what its caller has at hand, once")]
    fn new(
        devices: &'a Devices,
        store: &Store,
        job: &'a ClaimedJob,
        (kind, mac): (DeviceKind, MacAddress),
        offer: Option<Offer>,
        lines_at: Option<IpAddr>,
        random: u64,
        now: Timestamp,
    ) -> Self {
        let (element, known) = (&job.element, job.device.clone());
        let settings = devices.settings();
        // A lease tells where it is now, the last fetch where it was.
        let lease = devices.leases.as_ref().and_then(|leases| leases.of(mac, now));
        let seen = || element.last_seen_from.as_deref().and_then(|from| from.parse().ok());
        let address: Option<IpAddr> = lease.as_ref().map(|lease| lease.address.into()).or_else(seen);
        let behind = lease.and_then(|lease| devices.plant.cmts_of_relay(lease.relay));
        let cmts = behind.or_else(|| devices.plant.cmts_of(address?));
        // A CMTS that fetches for its modems is where the fetch came from: the modem's own address is not known then.
        let address = address.filter(|address| !cmts.as_ref().is_some_and(|cmts| cmts.is_itself(*address)));
        // An MTA that is removed loses its service with the file and the boot of its modem.
        let apart = kind == DeviceKind::Cm;
        let means = Means {
            snmp: settings.modems.is_some() && (apart || offer.is_some()),
            cmts: apart && cmts.as_ref().is_some_and(|cmts| cmts.reset != ResetDriver::None && cmts.can_be_asked()),
        };
        let facts = DeviceFacts {
            desired_revision: element.desired_revision,
            wanted: offer.as_ref().map(|offer| offer.digest.clone()),
            running: known.running.clone(),
            reset: known.reset,
            reachable: address.is_some(),
            may_reset: job.lane == LANE_SINGLE || known.reset_wanted_by.is_some(),
            forced: known.reset_forced,
            means,
        };
        let running_name =
            known.running.as_ref().map(|running| config_file_name(store.sealer(), kind, mac, running.revision));
        Self {
            devices,
            settings,
            element,
            attempts: job.attempts,
            random,
            now,
            kind,
            mac,
            offer,
            known,
            lines_at,
            facts,
            address,
            cmts,
            running_name,
        }
    }

    async fn run(self) -> DeviceOutcome {
        let offered = self.offer.as_ref().map(|offer| offer.digest.clone());
        let seen_fetch_at = self.known.running.as_ref().map(|running| running.fetched_at);
        let mut outcome = self.step().await;
        outcome.notes.seen_fetch_at = seen_fetch_at;
        outcome.notes.offered_digest = offered;
        outcome
    }

    async fn step(self) -> DeviceOutcome {
        match next_step(&self.facts, self.now) {
            Step::Settle(settled) => self.settle(settled),
            Step::AwaitFetch { until } => {
                if self.fetch_may_be_missed() && self.runs_the_offer().await {
                    return self.fetch_missed();
                }
                let reason =
                    format!("{}; waiting for the {} to fetch {}", self.reset_words(), self.what(), self.offered());
                self.wait(until, reason)
            }
            Step::Reset => self.reset().await,
            Step::Confirm { revision, fetched_at } => self.confirm(revision, fetched_at).await,
        }
    }

    fn settle(&self, settled: Settled) -> DeviceOutcome {
        let offered = self.offered();
        let (state, applied, evidence) = match settled {
            Settled::Fetched => (ElementState::Applied, true, self.fetched_words()),
            Settled::NextBoot | Settled::NeverSeen => (
                ElementState::Pending,
                false,
                format!("offered {offered}; waiting for the {} to fetch it", self.what()),
            ),
            Settled::Away => (
                ElementState::Offline,
                false,
                format!("offered {offered}; where it is now is not known, it takes the file when it boots"),
            ),
            Settled::NotBack { resets } => (
                ElementState::Offline,
                false,
                format!(
                    "offered {offered}; the device did not come back after {resets} resets, the last at {}; it takes the \
                     file when it boots",
                    self.known.reset.map_or_else(|| "an unknown time".to_owned(), |reset| format!("{:.0}", reset.at))
                ),
            ),
            Settled::OtherFile { revision } => {
                let trouble = format!(
                    "it was reset {} times and fetched revision {revision} each time: DHCP does not hand out {offered}",
                    self.known.reset.map_or(0, |reset| reset.count)
                );
                let mut outcome = self.done(ElementState::Failed, false, trouble.clone());
                outcome.notes.trouble = Some(trouble);
                outcome.notes.alarm = true;
                return outcome;
            }
            Settled::Removed => {
                (ElementState::Gone, true, format!("removed; {}; its file is served no longer", self.reset_words()))
            }
            Settled::RemovedUnreached => (ElementState::Gone, true, "removed; its file is served no longer".to_owned()),
        };
        self.done(state, applied, evidence)
    }

    fn judged(self, revision: i64, fetched_at: Timestamp, verdict: Verdict, word: Word) -> DeviceOutcome {
        let by_itself = word != Word::Cmts;
        let age = Duration::try_from(self.now.duration_since(fetched_at)).unwrap_or_default();
        let fetched = self.fetched_words();
        let mut outcome = match verdict {
            Verdict::Proven(words) => {
                let mut outcome = self.done(ElementState::Applied, true, format!("{words}; {fetched}"));
                // A file of the same effective content may have been fetched under an older revision's name.
                outcome.notes.confirmed_revision = Some(revision).filter(|_| by_itself);
                outcome
            }
            Verdict::NotYet(words) => {
                let mut outcome = self.wait(later(self.now, look_again(age)), format!("{fetched}; {words}"));
                if age > BOOT_ALLOWANCE {
                    outcome.progress.state = ElementState::Offline;
                    outcome.notes.trouble = Some(words);
                }
                outcome
            }
            Verdict::Wrong(words) => {
                let mut outcome = self.wait(later(self.now, look_again(age)), format!("{fetched}; {words}"));
                if age > GRACE || word == Word::Report {
                    outcome.progress.state = ElementState::Failed;
                    outcome.notes.trouble = Some(words);
                    outcome.notes.alarm = true;
                }
                outcome
            }
        };
        outcome.notes.answered_at = by_itself.then_some(self.now);
        outcome
    }

    fn done(&self, state: ElementState, applied: bool, evidence: String) -> DeviceOutcome {
        let progress = Progress { state, evidence, applied };
        DeviceOutcome { progress, notes: DeviceNotes::default(), again: None }
    }

    fn wait(&self, until: Timestamp, reason: String) -> DeviceOutcome {
        let progress = Progress { state: ElementState::Pending, evidence: reason.clone(), applied: false };
        DeviceOutcome { progress, notes: DeviceNotes::default(), again: Some((until, reason)) }
    }

    fn what(&self) -> &'static str {
        match self.kind {
            DeviceKind::Cm => "modem",
            DeviceKind::Mta => "MTA",
        }
    }

    fn offered(&self) -> &str {
        self.offer.as_ref().map_or("its file", |offer| offer.name.as_str())
    }

    fn fetched_words(&self) -> String {
        let (Some(running), Some(name)) = (&self.known.running, &self.running_name) else { return String::new() };
        let from = self.element.last_seen_from.as_deref().unwrap_or("an unknown address");
        if !self.known.fetch_seen {
            return format!("at {:.0} it said itself that it runs {name}, its fetch was not seen", running.fetched_at);
        }
        format!("fetched {name} from {from} at {:.0}", running.fetched_at)
    }

    fn reset_words(&self) -> String {
        match (&self.known.reset, &self.known.reset_by) {
            (Some(reset), Some(by)) => format!("reset by {by} at {:.0}", reset.at),
            _ => "not reset".to_owned(),
        }
    }
}

/// A boot takes minutes, a simulated one seconds; a fetch wakes the job at once anyway.
const FIRST_LOOK: Duration = Duration::from_secs(15);
const CONFIRM_SOONEST: Duration = Duration::from_secs(2);
const CONFIRM_LATEST: Duration = Duration::from_secs(60);
const SLOW_LOOK: Duration = Duration::from_secs(600);
const SLOWEST_LOOK: Duration = Duration::from_secs(3600);

/// When a modem that fetched `age` ago is asked again: soon at first, then ever more rarely.
fn look_again(age: Duration) -> Duration {
    if age < Duration::from_secs(600) {
        (age / 2).clamp(CONFIRM_SOONEST, CONFIRM_LATEST)
    } else if age < Duration::from_secs(3600) {
        SLOW_LOOK
    } else {
        SLOWEST_LOOK
    }
}

fn later(now: Timestamp, delay: Duration) -> Timestamp {
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// Where the telephone side of a device's gateway was seen.
async fn telephone_side(store: &Store, element: &ElementRow) -> Result<Option<IpAddr>, StoreError> {
    let mta =
        [Some(&element.desired), element.applied.as_ref()].into_iter().flatten().find_map(|content| match content {
            Content::Cm(cm) => cm.mta_mac,
            _ => None,
        });
    let Some(mta) = mta else { return Ok(None) };
    let mut tx = store.read().await?;
    let mta = elements::by_key(&mut tx, ElementKind::Mta, &mta.to_string()).await?;
    Ok(mta.and_then(|mta| mta.last_seen_from).and_then(|from| from.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modem_is_asked_soon_after_its_fetch_and_rarely_later() {
        let looks = [0, 10, 60, 300, 700, 4000].map(|age| look_again(Duration::from_secs(age)).as_secs());
        assert_eq!(looks, [2, 5, 30, 60, 600, 3600]);
    }
}
