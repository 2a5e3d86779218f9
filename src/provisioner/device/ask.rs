//! Asks a device, and when it is silent its CMTS, what it runs.

use std::net::IpAddr;

use super::{Attempt, DeviceOutcome, Word};
use crate::docsis::HashFamily;
use crate::provision::{
    CmtsAnswer, Content, DeviceKind, ModemAnswer, Standing, Verdict, judge_cmts, judge_modem, judge_mta,
};
use crate::provisioner::cmts::Cmts;
use crate::provisioner::snmp::{Access, Oid, SnmpError, SnmpSettings, number, oid, row, text};
use crate::vocabulary::{MacAddress, Timestamp};

/// docsDevServerConfigFile.0 of RFC 4639.
pub(super) const CONFIG_FILE: [u32; 11] = [1, 3, 6, 1, 2, 1, 69, 1, 4, 5, 0];
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

impl Attempt<'_> {
    /// Asks the modem, and when it is silent its CMTS, whether it runs the file it fetched.
    pub(super) async fn confirm(self, revision: i64, fetched_at: Timestamp) -> DeviceOutcome {
        let file = self.running_name.clone().unwrap_or_default();
        let standing = self.standing();
        if let Some(verdict) = self.reported(fetched_at) {
            return self.judged(revision, fetched_at, verdict, Word::Report);
        }
        let asked = match (self.address, &self.settings.modems) {
            (Some(address), Some(settings)) => match self.family() {
                Some(family) => self.ask_mta(address, settings, family).await,
                None => self.ask_modem(address, settings).await.map(|answer| judge_modem(&file, standing, &answer)),
            },
            _ => Err("it is not asked: no SNMP for modems is configured".to_owned()),
        };
        let verdict = match asked {
            Ok(verdict) => return self.judged(revision, fetched_at, verdict, Word::Answer),
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
        self.judged(revision, fetched_at, verdict, Word::Cmts)
    }

    /// How the MTA said by INFORM that this boot ended.
    fn reported(&self, fetched_at: Timestamp) -> Option<Verdict> {
        let report = self.devices.plant.report_of(self.mac).filter(|_| self.kind == DeviceKind::Mta)?;
        let by = |words: String| format!("{words}, by INFORM at {:.0}", report.at);
        match judge_mta(Some(report.state)) {
            _ if report.at < fetched_at => None,
            Verdict::Proven(words) => Some(Verdict::Proven(by(words))),
            Verdict::Wrong(words) => Some(Verdict::Wrong(by(words))),
            Verdict::NotYet(_) => None,
        }
    }

    /// What proves the file: a blocked modem proves itself by not forwarding, whoever's word in the catalog blocks it.
    fn standing(&self) -> Standing {
        match &self.offer {
            Some(offer) if !offer.forwards => Standing::ForwardingDisabled,
            _ => Standing::Operational,
        }
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
    pub(super) fn family(&self) -> Option<HashFamily> {
        match &self.element.desired {
            Content::Mta(mta) => Some(mta.family),
            _ => None,
        }
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

    pub(super) fn cmts_snmp(&self, cmts: &Cmts) -> Option<(IpAddr, SnmpSettings)> {
        let (address, access) = cmts_access(cmts)?;
        let base = self.settings.modems.clone().unwrap_or_else(|| SnmpSettings::with(access.clone()));
        Some((address, SnmpSettings { access, ..base }))
    }
}

/// pktcMtaDevProvisioningState.0 of the MTA's family. The European number follows RFC 4682's order and is not verified.
pub fn mta_provisioning_state(family: HashFamily) -> Oid {
    match family {
        HashFamily::Na => oid(&[1, 3, 6, 1, 4, 1, 4491, 2, 2, 1, 1, 1, 9, 0]),
        HashFamily::Eu => oid(&[1, 3, 6, 1, 4, 1, 7432, 1, 1, 1, 8, 0]),
        HashFamily::Ietf => oid(&[1, 3, 6, 1, 2, 1, 140, 1, 1, 8, 0]),
    }
}

fn cmts_access(cmts: &Cmts) -> Option<(IpAddr, Access)> {
    Some((cmts.address?, cmts.access.clone()?))
}

pub(super) fn mac_index(mac: MacAddress) -> [u32; 6] {
    mac.octets().map(u32::from)
}
