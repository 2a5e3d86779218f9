//! Brings one modem or MTA to the file it must run: offers it, makes the device boot, and waits until it says so itself.
//!
//! Comes in: the claimed job of a `cm` or `mta` element. Goes out: how far it is, what was done to the device, and when to look
//! again. Each attempt takes the one step that `provision::next_step` names; what was seen stands in the store, so that
//! any attempt may be the last of its process. Resets only what must boot, and never during a call.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use super::backend::{ApplyError, Outcome};
use super::cmts::{Cmts, ResetDriver};
use super::leases::Leases;
use super::lines::{LineStatus, Lines};
use super::mta::OpenedSecrets;
use super::plant::{Fetch, Offer, Plant};
use super::snmp::{Access, Oid, Snmp, SnmpError, SnmpSettings, Value, number, oid, row, text};
use super::window::Window;
use crate::docsis::HashFamily;
use crate::provision::{
    BOOT_ALLOWANCE, CmAccess, CmtsAnswer, Content, DeviceFacts, DeviceKind, ElementKind, ElementState, Means,
    ModemAnswer, Settled, Standing, Step, Verdict, backoff, judge_cmts, judge_modem, judge_mta, next_step,
};
use crate::store::devices::{self, DeviceNotes, DeviceRow};
use crate::store::elements::{self, ElementRow, Progress};
use crate::store::jobs::{ClaimedJob, LANE_SINGLE};
use crate::store::plant::config_file_name;
use crate::store::{Store, StoreError};
use crate::vocabulary::{MacAddress, Timestamp};

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

/// docsDevResetNow.0 of RFC 4639.
const RESET_NOW: [u32; 11] = [1, 3, 6, 1, 2, 1, 69, 1, 1, 3, 0];
/// docsDevServerConfigFile.0 of RFC 4639.
const CONFIG_FILE: [u32; 11] = [1, 3, 6, 1, 2, 1, 69, 1, 4, 5, 0];
/// docsDevServerBootState.0 of RFC 4639.
const BOOT_STATE: [u32; 11] = [1, 3, 6, 1, 2, 1, 69, 1, 4, 1, 0];
/// docsIfCmStatusValue of RFC 4546, for the cable interface, which is 2 in every modem.
const CM_STATUS: [u32; 13] = [1, 3, 6, 1, 2, 1, 10, 127, 1, 2, 2, 1, 1];
/// docsIf3CmStatusValue of DOCS-IF3-MIB.
const CM3_STATUS: [u32; 14] = [1, 3, 6, 1, 4, 1, 4491, 2, 1, 20, 1, 1, 1, 1];
const CABLE_INTERFACE: u32 = 2;
/// docsIfCmtsCmPtr of RFC 4546, by MAC address.
const CMTS_POINTER: [u32; 13] = [1, 3, 6, 1, 2, 1, 10, 127, 1, 3, 7, 1, 2];
/// docsIfCmtsCmStatusValue of RFC 4546.
const CMTS_STATUS: [u32; 13] = [1, 3, 6, 1, 2, 1, 10, 127, 1, 3, 3, 1, 9];
/// docsIf3CmtsCmRegStatusValue of DOCS-IF3-MIB.
const CMTS3_STATUS: [u32; 14] = [1, 3, 6, 1, 4, 1, 4491, 2, 1, 20, 1, 3, 1, 6];
/// cdxCmCpeDeleteNow of CISCO-DOCS-EXT-MIB, by MAC address.
const CISCO_DELETE: [u32; 14] = [1, 3, 6, 1, 4, 1, 9, 9, 116, 1, 3, 1, 1, 9];
/// casaCmtsCmCpeResetNow, by MAC address.
const CASA_RESET: [u32; 13] = [1, 3, 6, 1, 4, 1, 20858, 10, 12, 1, 3, 1, 7];
/// Motorola BSR, now ARRIS: takes the MAC address as its value.
const ARRIS_RESET: [u32; 11] = [1, 3, 6, 1, 4, 1, 4981, 2, 2, 2, 0];

/// What contradicts a fetch this young may be older than the fetch.
const GRACE: Duration = Duration::from_secs(60);
/// How long a call may put a reset off before the maintenance window is waited for.
const DEFERRAL_MOST: Duration = Duration::from_secs(4 * 3600);
const LINES_AGAIN: Duration = Duration::from_secs(60);

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
        let known = read(store, element)
            .await
            .map_err(|error| ApplyError::Retry(format!("what is known of the device could not be read: {error}")))?;
        let attempt = Attempt::new(self, store, job, (kind, mac), offer, known, random, now);
        Ok(Outcome::Device(Box::new(attempt.run().await)))
    }
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
        (known, lines_at): (DeviceRow, Option<IpAddr>),
        random: u64,
        now: Timestamp,
    ) -> Self {
        let element = &job.element;
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

    /// Makes the modem boot: by itself, else by its CMTS; with voice only when no call is heard.
    async fn reset(self) -> DeviceOutcome {
        if let Some(wait) = self.call_in_the_way().await {
            return wait;
        }
        let mut refusals = Vec::new();
        let mut sent = None;
        if let (Some(address), Some(settings)) = (self.address, &self.settings.modems) {
            match self.reset_itself(address, settings).await {
                Ok(true) => sent = Some(format!("SNMP to {address}")),
                Ok(false) => return self.fetch_missed(),
                Err(error) => refusals.push(error.to_string()),
            }
        }
        if sent.is_none()
            && self.facts.means.cmts
            && let Some(cmts) = self.cmts.as_deref()
        {
            match self.reset_through(cmts).await {
                Ok(()) => sent = Some(cmts.name.clone()),
                Err(error) => refusals.push(format!("{}: {error}", cmts.name)),
            }
        }
        let Some(by) = sent else {
            let delay = backoff(self.attempts, self.random);
            let reason = format!("not reset: {}, attempt {}", refusals.join("; "), self.attempts);
            let mut outcome = self.wait(later(self.now, delay), reason.clone());
            // A modem that is off takes its file when it boots: nobody needs to act.
            outcome.progress.state = ElementState::Offline;
            outcome.notes.trouble = Some(reason);
            return outcome;
        };
        let evidence = match &self.offer {
            Some(offer) => {
                format!("reset by {by} at {:.0}; waiting for the {} to fetch {}", self.now, self.what(), offer.name)
            }
            None => format!("removed; reset by {by} at {:.0}; its file is served no longer", self.now),
        };
        let mut outcome = match &self.offer {
            Some(_) => self.wait(later(self.now, FIRST_LOOK), evidence),
            None => self.done(ElementState::Gone, true, evidence),
        };
        outcome.notes.reset = Some((self.now, by));
        outcome
    }

    /// Asks first whether it is there, then sets once: a device that boots at once never answers the set, and a set sent again
    /// could find it just booted. `false`: it runs the file on offer already and is left alone.
    async fn reset_itself(&self, address: IpAddr, settings: &SnmpSettings) -> Result<bool, SnmpError> {
        let object = self.reset_object();
        let values = self.devices.snmp.get(address, settings, &[object.clone(), oid(&CONFIG_FILE)]).await?;
        if self.would_boot_for_the_offer() && self.is_the_offer(values.get(1).and_then(Option::as_ref)) {
            return Ok(false);
        }
        let once = SnmpSettings { retries: 0, ..settings.clone() };
        match self.devices.snmp.set(address, &once, &object, Value::Integer(1)).await {
            Ok(()) | Err(SnmpError::Silent(_)) => Ok(true),
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether the reset was sent by a process before this one: nobody may have been there when the fetch ended.
    fn fetch_may_be_missed(&self) -> bool {
        let began = self.devices.began.get().copied().unwrap_or(self.now);
        self.would_boot_for_the_offer() && self.known.reset.is_some_and(|reset| reset.at < began)
    }

    /// Whether the device is to boot because it is known to run something else than what is on offer.
    fn would_boot_for_the_offer(&self) -> bool {
        let running = self.known.running.as_ref().map(|running| &running.digest);
        !self.facts.forced && self.offer.as_ref().is_some_and(|offer| Some(&offer.digest) != running)
    }

    fn is_the_offer(&self, told: Option<&Value>) -> bool {
        let told = told.and_then(text);
        let name = told.as_deref().and_then(|told| told.rsplit('/').next());
        name.is_some() && name == self.offer.as_ref().map(|offer| offer.name.as_str())
    }

    async fn runs_the_offer(&self) -> bool {
        let (Some(address), Some(settings)) = (self.address, &self.settings.modems) else { return false };
        let values = self.devices.snmp.get(address, settings, &[oid(&CONFIG_FILE)]).await.unwrap_or_default();
        self.is_the_offer(values.first().and_then(Option::as_ref))
    }

    /// The device says that it runs the file on offer, and its fetch was not seen, as when the daemon was killed at that
    /// moment: from here on it counts as seen, and no boot is spent.
    fn fetch_missed(&self) -> DeviceOutcome {
        if let (Some(offer), Some(from)) = (&self.offer, self.address) {
            let fetch = Fetch {
                revision: self.element.desired_revision,
                from,
                mac: self.mac,
                name: offer.name.clone(),
                kind: self.kind,
                digest: offer.digest.clone(),
                at: self.now,
            };
            self.devices.plant.note_fetch(self.element.id, fetch);
        }
        let reason = format!("the {} says that it runs {}; its fetch was not seen", self.what(), self.offered());
        self.wait(later(self.now, FIRST_LOOK), reason)
    }

    async fn reset_through(&self, cmts: &Cmts) -> Result<(), SnmpError> {
        let Some((address, settings)) = self.cmts_snmp(cmts) else {
            return Err(SnmpError::Broken(
                IpAddr::from([0, 0, 0, 0]),
                "[[cmts]] address and community are not set".into(),
            ));
        };
        let index = mac_index(self.mac);
        let (object, value) = match cmts.reset {
            ResetDriver::Cisco => (row(&CISCO_DELETE, &index), Value::Integer(1)),
            ResetDriver::Casa => (row(&CASA_RESET, &index), Value::Integer(1)),
            ResetDriver::Arris => (oid(&ARRIS_RESET), Value::OctetString(self.mac.octets().to_vec().into())),
            ResetDriver::None => return Ok(()),
        };
        self.devices.snmp.set(address, &settings, &object, value).await
    }

    /// `Some`: a call, or the chance of one, puts the reset off.
    async fn call_in_the_way(&self) -> Option<DeviceOutcome> {
        let voice = [Some(&self.element.desired), self.element.applied.as_ref()].into_iter().flatten().any(|content| {
            match content {
                Content::Cm(cm) => cm.voice,
                Content::Mta(mta) => mta.enabled,
                _ => false,
            }
        });
        if !voice || self.settings.voice_any || self.settings.window.holds(self.now) {
            return None;
        }
        let since = self.known.deferred_at.unwrap_or(self.now);
        let window = self.settings.window.next(self.now);
        let (until, reason) = match self.lines().await {
            Lines::Idle => return None,
            Lines::Busy if self.now < later(since, DEFERRAL_MOST) => (
                later(self.now, LINES_AGAIN).min(window),
                format!(
                    "a call is up since the reset was due at {since:.0}; the lines are looked at again every minute"
                ),
            ),
            Lines::Busy => (window, format!("calls put the reset off since {since:.0}; it waits for {window:.0}")),
            Lines::Unreadable(why) => (
                window,
                format!(
                    "whether a call is up cannot be read ({why}); the reset waits for the maintenance window at {window:.0}"
                ),
            ),
        };
        let mut outcome = self.wait(until, format!("offered {}; {reason}", self.offered()));
        outcome.notes.deferred_at = Some(since);
        Some(outcome)
    }

    async fn lines(&self) -> Lines {
        let model = match &self.element.desired {
            Content::Cm(cm) => cm.model.as_deref().unwrap_or_default(),
            Content::Mta(mta) => mta.model.as_deref().unwrap_or_default(),
            _ => "",
        };
        let Some(status) = self.settings.lines.iter().find(|status| status.model.holds(model)) else {
            return Lines::Unreadable("no [[reset.line_status]] is for this model".to_owned());
        };
        let (Some(address), Some(settings)) = (self.lines_at.or(self.address), &self.settings.modems) else {
            return Lines::Unreadable("its address is not known".to_owned());
        };
        match self.devices.snmp.get(address, settings, &status.objects()).await {
            Ok(values) => status.judge(&values.iter().map(|value| value.as_ref().and_then(number)).collect::<Vec<_>>()),
            Err(error) => Lines::Unreadable(error.to_string()),
        }
    }

    /// Asks the modem, and when it is silent its CMTS, whether it runs the file it fetched.
    async fn confirm(self, revision: i64, fetched_at: Timestamp) -> DeviceOutcome {
        let file = self.running_name.clone().unwrap_or_default();
        let standing = standing(&self.element.desired);
        let asked = match (self.address, &self.settings.modems) {
            (Some(address), Some(settings)) => match self.family() {
                Some(family) => self.ask_mta(address, settings, family).await,
                None => self.ask_modem(address, settings).await.map(|answer| judge_modem(&file, standing, &answer)),
            },
            _ => Err("it is not asked: no SNMP for modems is configured".to_owned()),
        };
        let verdict = match asked {
            Ok(verdict) => return self.judged(revision, fetched_at, verdict, true),
            Err(silence) if self.kind == DeviceKind::Mta => Verdict::NotYet(silence),
            Err(silence) => match self.ask_cmts().await {
                Some((cmts, Ok(answer))) => match judge_cmts(&cmts, standing, &answer, self.known.fetches) {
                    Verdict::Proven(words) => Verdict::Proven(format!("{words}; {silence}")),
                    other => other,
                },
                Some((_, Err(error))) => Verdict::NotYet(format!("{silence}; {error}")),
                None => Verdict::NotYet(silence),
            },
        };
        self.judged(revision, fetched_at, verdict, false)
    }

    fn judged(self, revision: i64, fetched_at: Timestamp, verdict: Verdict, by_itself: bool) -> DeviceOutcome {
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
                if age > GRACE {
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

    async fn ask_modem(&self, address: IpAddr, settings: &SnmpSettings) -> Result<ModemAnswer, String> {
        let objects = [
            oid(&CONFIG_FILE),
            row(&CM3_STATUS, &[CABLE_INTERFACE]),
            row(&CM_STATUS, &[CABLE_INTERFACE]),
            oid(&BOOT_STATE),
        ];
        let values = self.devices.snmp.get(address, settings, &objects).await.map_err(|error| error.to_string())?;
        let at = |index: usize| values.get(index).and_then(Option::as_ref);
        Ok(ModemAnswer {
            config_file: at(0).and_then(text),
            if3_status: at(1).and_then(number),
            if_status: at(2).and_then(number),
            boot_state: at(3).and_then(number),
        })
    }

    async fn ask_mta(&self, address: IpAddr, settings: &SnmpSettings, family: HashFamily) -> Result<Verdict, String> {
        let objects = [mta_provisioning_state(family)];
        let values = self.devices.snmp.get(address, settings, &objects).await.map_err(|error| error.to_string())?;
        Ok(judge_mta(values.first().and_then(Option::as_ref).and_then(number)))
    }

    /// The MIB an MTA speaks; `None` for a modem.
    fn family(&self) -> Option<HashFamily> {
        match &self.element.desired {
            Content::Mta(mta) => Some(mta.family),
            _ => None,
        }
    }

    fn reset_object(&self) -> Oid {
        self.family().map_or_else(|| oid(&RESET_NOW), mta_reset_now)
    }

    /// `None`: there is no CMTS to ask.
    async fn ask_cmts(&self) -> Option<(String, Result<CmtsAnswer, SnmpError>)> {
        let cmts = self.cmts.as_deref()?;
        let (address, settings) = self.cmts_snmp(cmts)?;
        Some((cmts.name.clone(), self.cmts_says(address, &settings).await))
    }

    async fn cmts_says(&self, address: IpAddr, settings: &SnmpSettings) -> Result<CmtsAnswer, SnmpError> {
        let snmp = &self.devices.snmp;
        let pointer = snmp.get(address, settings, &[row(&CMTS_POINTER, &mac_index(self.mac))]).await?;
        let Some(index) = pointer.first().and_then(Option::as_ref).and_then(number) else {
            return Ok(CmtsAnswer::default());
        };
        let Ok(index) = u32::try_from(index) else { return Ok(CmtsAnswer::default()) };
        let objects: [Oid; 2] = [row(&CMTS_STATUS, &[index]), row(&CMTS3_STATUS, &[index])];
        let values = snmp.get(address, settings, &objects).await?;
        let at = |index: usize| values.get(index).and_then(Option::as_ref).and_then(number);
        Ok(CmtsAnswer { if_status: at(0), if3_status: at(1) })
    }

    fn cmts_snmp(&self, cmts: &Cmts) -> Option<(IpAddr, SnmpSettings)> {
        let (address, access) = cmts_access(cmts)?;
        let base = self.settings.modems.clone().unwrap_or_else(|| SnmpSettings::with(access.clone()));
        Some((address, SnmpSettings { access, ..base }))
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

/// A blocked modem proves itself by not forwarding.
fn standing(content: &Content) -> Standing {
    match content {
        Content::Cm(cm) if cm.access == CmAccess::Blocked => Standing::ForwardingDisabled,
        _ => Standing::Operational,
    }
}

/// pktcMtaDevResetNow.0 of the MTA's family.
fn mta_reset_now(family: HashFamily) -> Oid {
    match family {
        HashFamily::Na => oid(&[1, 3, 6, 1, 4, 1, 4491, 2, 2, 1, 1, 1, 1, 0]),
        HashFamily::Eu => oid(&[1, 3, 6, 1, 4, 1, 7432, 1, 1, 1, 1, 0]),
        HashFamily::Ietf => oid(&[1, 3, 6, 1, 2, 1, 140, 1, 1, 1, 0]),
    }
}

/// pktcMtaDevProvisioningState.0 of the MTA's family. The European number follows RFC 4682's order and is not verified.
fn mta_provisioning_state(family: HashFamily) -> Oid {
    match family {
        HashFamily::Na => oid(&[1, 3, 6, 1, 4, 1, 4491, 2, 2, 1, 1, 1, 9, 0]),
        HashFamily::Eu => oid(&[1, 3, 6, 1, 4, 1, 7432, 1, 1, 1, 8, 0]),
        HashFamily::Ietf => oid(&[1, 3, 6, 1, 2, 1, 140, 1, 1, 8, 0]),
    }
}

fn cmts_access(cmts: &Cmts) -> Option<(IpAddr, Access)> {
    Some((cmts.address?, Access::Community(cmts.community.clone()?)))
}

fn mac_index(mac: MacAddress) -> [u32; 6] {
    mac.octets().map(u32::from)
}

/// What is known of the device, and where its gateway's telephone side was seen.
async fn read(store: &Store, element: &ElementRow) -> Result<(DeviceRow, Option<IpAddr>), StoreError> {
    let mut tx = store.read().await?;
    let known = devices::one(&mut tx, element.id).await?;
    let mta =
        [Some(&element.desired), element.applied.as_ref()].into_iter().flatten().find_map(|content| match content {
            Content::Cm(cm) => cm.mta_mac,
            _ => None,
        });
    let Some(mta) = mta else { return Ok((known, None)) };
    let mta = elements::by_key(&mut tx, ElementKind::Mta, &mta.to_string()).await?;
    Ok((known, mta.and_then(|mta| mta.last_seen_from).and_then(|from| from.parse().ok())))
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
