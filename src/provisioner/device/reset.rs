//! Makes a device boot, by SNMP or through its CMTS, and never during a call.

use std::net::IpAddr;
use std::time::Duration;

use super::ask::{CONFIG_FILE, mac_index};
use super::{Attempt, DeviceOutcome, FIRST_LOOK, later};
use crate::docsis::HashFamily;
use crate::provision::{Content, ElementState, backoff};
use crate::provisioner::cmts::{Cmts, ResetDriver};
use crate::provisioner::lines::Lines;
use crate::provisioner::plant::Fetch;
use crate::provisioner::snmp::{Oid, SnmpError, SnmpSettings, Value, number, oid, row, text};

/// docsDevResetNow.0 of RFC 4639.
const RESET_NOW: [u32; 11] = [1, 3, 6, 1, 2, 1, 69, 1, 1, 3, 0];
/// cdxCmCpeDeleteNow of CISCO-DOCS-EXT-MIB, by MAC address.
const CISCO_DELETE: [u32; 14] = [1, 3, 6, 1, 4, 1, 9, 9, 116, 1, 3, 1, 1, 9];
/// casaCmtsCmCpeResetNow, by MAC address.
const CASA_RESET: [u32; 13] = [1, 3, 6, 1, 4, 1, 20858, 10, 12, 1, 3, 1, 7];
/// Motorola BSR, now ARRIS: takes the MAC address as its value.
const ARRIS_RESET: [u32; 11] = [1, 3, 6, 1, 4, 1, 4981, 2, 2, 2, 0];

/// How long a call may put a reset off before the maintenance window is waited for.
const DEFERRAL_MOST: Duration = Duration::from_secs(4 * 3600);
const LINES_AGAIN: Duration = Duration::from_secs(60);

impl Attempt<'_> {
    /// Makes the modem boot: by itself, else by its CMTS; with voice only when no call is heard.
    pub(super) async fn reset(self) -> DeviceOutcome {
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
    pub(super) fn fetch_may_be_missed(&self) -> bool {
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

    pub(super) async fn runs_the_offer(&self) -> bool {
        let (Some(address), Some(settings)) = (self.address, &self.settings.modems) else { return false };
        let values = self.devices.snmp.get(address, settings, &[oid(&CONFIG_FILE)]).await.unwrap_or_default();
        self.is_the_offer(values.first().and_then(Option::as_ref))
    }

    /// The device says that it runs the file on offer, and its fetch was not seen, as when the daemon was killed at that
    /// moment: from here on it counts as seen, and no boot is spent.
    pub(super) fn fetch_missed(&self) -> DeviceOutcome {
        if let (Some(offer), Some(from)) = (&self.offer, self.address) {
            let fetch = Fetch {
                revision: self.element.desired_revision,
                from,
                mac: self.mac,
                name: offer.name.clone(),
                kind: self.kind,
                digest: offer.digest.clone(),
                at: self.now,
                seen: false,
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
                "[[cmts]] address and community or user are not set".into(),
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

    fn reset_object(&self) -> Oid {
        self.family().map_or_else(|| oid(&RESET_NOW), mta_reset_now)
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
