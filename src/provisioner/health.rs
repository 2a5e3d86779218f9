//! Asks every modem now and then how it is: levels, uptime, firmware, resets, and whether it still runs its file.
//!
//! A bounded number is asked at once, the longest waiting first; a silent modem costs one time limit and delays nobody. One
//! daemon at a time does it. A modem that runs another file than the one in force is listed as a difference and, in the
//! maintenance window, reset, a few in a minute.

use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::device::Devices;
use super::snmp::{Oid, Snmp, SnmpSettings, number, oid, row, text};
use crate::provision::{DeviceKind, ElementKind, Health};
use crate::store::devices::{self, Polled, ToPoll};
use crate::store::jobs::LANE_BULK;
use crate::store::plant::{config_file_name, parse_config_file_name};
use crate::store::{Store, StoreError, billing, drift};
use crate::telemetry::{Heartbeat, Metrics, Outcome};
use crate::vocabulary::{Clock, MacAddress, Timestamp};

/// Modems asked at once.
const AT_ONCE: usize = 64;
/// Modems read from and written to the store at once.
const PAGE: i64 = 256;
const IDLE: Duration = Duration::from_secs(5);
const CLAIM: Duration = Duration::from_secs(60);
const CLAIM_NAME: &str = "modem health";
/// Modems that run another file, reset in a minute of the maintenance window.
const HEALED_PER_MINUTE: u32 = 10;
/// A reset that did not help is not repeated in the same night: another server hands out that file.
const HEALED_AGAIN: Duration = Duration::from_secs(12 * 3600);
/// Differences looked at for it.
const OPEN_MOST: i64 = 1000;
const HEAL_EVERY: Duration = Duration::from_secs(60);

/// What is asked, in this order.
fn objects() -> [Oid; 13] {
    const CABLE: [u32; 1] = [2];
    const DOWNSTREAM: [u32; 1] = [3];
    let transmission = |rest: &[u32], index: &[u32]| row(&[&[1, 3, 6, 1, 2, 1, 10, 127, 1], rest].concat(), index);
    [
        oid(&[1, 3, 6, 1, 2, 1, 1, 3, 0]),
        oid(&[1, 3, 6, 1, 2, 1, 69, 1, 3, 5, 0]),
        oid(&[1, 3, 6, 1, 2, 1, 69, 1, 1, 4, 0]),
        oid(&[1, 3, 6, 1, 2, 1, 69, 1, 4, 5, 0]),
        transmission(&[2, 2, 1, 1], &CABLE),
        transmission(&[1, 1, 1, 6], &DOWNSTREAM),
        transmission(&[1, 4, 1, 5], &DOWNSTREAM),
        transmission(&[2, 2, 1, 3], &CABLE),
        transmission(&[2, 2, 1, 4], &CABLE),
        transmission(&[2, 2, 1, 5], &CABLE),
        transmission(&[1, 4, 1, 2], &DOWNSTREAM),
        transmission(&[1, 4, 1, 3], &DOWNSTREAM),
        transmission(&[1, 4, 1, 4], &DOWNSTREAM),
    ]
}

/// Asks one modem. `None`: it does not answer.
pub async fn ask(snmp: &Snmp, address: IpAddr, settings: &SnmpSettings) -> Option<Health> {
    let values = snmp.get(address, settings, &objects()).await.ok()?;
    let at = |index: usize| values.get(index).and_then(Option::as_ref);
    let whole = |index: usize| at(index).and_then(number);
    let health = Health {
        // TimeTicks are hundredths of a second.
        uptime_seconds: whole(0).map(|ticks| ticks / 100),
        firmware: at(1).and_then(text),
        serial: at(2).and_then(text),
        config_file: at(3).and_then(text),
        status: whole(4),
        downstream_power: whole(5),
        downstream_snr: whole(6),
        upstream_power: whole(7),
        resets: whole(8),
        lost_syncs: whole(9),
        codewords_unerrored: whole(10),
        codewords_corrected: whole(11),
        codewords_uncorrectable: whole(12),
    };
    Some(health)
}

/// The poller.
pub struct Poller {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Metrics,
    pub devices: Devices,
}

impl Poller {
    /// Polls for ever.
    pub async fn run(self, beat: Heartbeat) -> Result<(), StoreError> {
        let mut healed = Instant::now();
        loop {
            beat.beat();
            let mut asked = 0;
            // An outage is told by the part that watches the database; here it only means: later.
            if let Ok(count) = self.turn(&beat).await {
                asked = count;
            }
            if healed.elapsed() >= HEAL_EVERY {
                healed = Instant::now();
                let _ = self.heal().await;
            }
            if asked == 0 {
                tokio::time::sleep(IDLE).await;
            }
        }
    }

    /// Asks a page of modems whose turn it is; returns how many.
    async fn turn(&self, beat: &Heartbeat) -> Result<usize, StoreError> {
        let settings = self.devices.settings();
        let (Some(modems), Some(every)) = (settings.modems.clone(), settings.poll) else { return Ok(0) };
        let now = self.clock.now();
        let before = now.checked_sub(every).unwrap_or(Timestamp::UNIX_EPOCH);
        let due = devices::to_poll(&mut self.store.read().await?, before, PAGE).await?;
        if due.is_empty() || !self.claim(now).await? {
            return Ok(0);
        }
        let mut asking: JoinSet<(ToPoll, Option<Health>)> = JoinSet::new();
        let (mut waiting, mut answered) = (due.into_iter(), Vec::new());
        loop {
            while asking.len() < AT_ONCE
                && let Some(modem) = waiting.next()
            {
                let (snmp, modems) = (self.devices.snmp().clone(), modems.clone());
                asking.spawn(async move {
                    let health = match modem.address.parse() {
                        Ok(address) => ask(&snmp, address, &modems).await,
                        Err(_) => None,
                    };
                    (modem, health)
                });
            }
            beat.beat();
            match asking.join_next().await {
                Some(Ok(answer)) => answered.push(answer),
                Some(Err(error)) => tracing::error!("Asking a modem broke off: {error}."),
                None => break,
            }
        }
        self.record(&answered, now).await?;
        Ok(answered.len())
    }

    async fn claim(&self, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.store.write_derived().await?;
        let until = now.checked_add(CLAIM).unwrap_or(Timestamp::MAX);
        let ours = billing::claim(&mut tx, CLAIM_NAME, self.store.owner(), until, now).await?;
        tx.commit().await?;
        Ok(ours)
    }

    async fn record(&self, answered: &[(ToPoll, Option<Health>)], now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.store.write_derived().await?;
        let polled: Vec<Polled> = answered
            .iter()
            .map(|(modem, health)| Polled { element_id: modem.element_id, health: health.clone() })
            .collect();
        devices::record_polled(&mut tx, &polled, now).await?;
        for (modem, health) in answered {
            let result = if health.is_some() { "answered" } else { "silent" };
            self.metrics.modems_polled.get_or_create(&Outcome::new(result)).inc();
            match health.as_ref().and_then(|health| self.other_file(modem, health)) {
                Some(detail) => drift::found(&mut tx, modem.element_id, &detail, now).await?,
                None if health.is_some() => {
                    drift::healed(&mut tx, &[modem.element_id], now).await?;
                }
                None => {}
            }
        }
        tx.commit().await
    }

    /// `Some`: the modem does not run the file that is in force.
    fn other_file(&self, modem: &ToPoll, health: &Health) -> Option<String> {
        let (revision, told) = (modem.applied_revision?, health.config_file.as_deref()?);
        let mac: MacAddress = modem.mac.parse().ok()?;
        let told = told.rsplit('/').next().unwrap_or(told);
        // Under an older name of its own it may run the same content: its job judges that.
        let of = parse_config_file_name(self.store.sealer(), told).map(|(_, mac, _)| mac);
        let ours = of == Some(mac);
        let file = config_file_name(self.store.sealer(), DeviceKind::Cm, mac, revision);
        (!ours && told != file).then(|| format!("the modem runs {told:?} instead of {file}"))
    }

    /// Resets some of the modems that run another file, in the maintenance window.
    async fn heal(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        if !self.devices.settings().window.holds(now) || !self.claim(now).await? {
            return Ok(());
        }
        let mut tx = self.store.write().await?;
        let open = drift::list(&mut tx, (None, None), Some(ElementKind::Cm.as_str()), false, 0, OPEN_MOST).await?;
        let again = now.checked_sub(HEALED_AGAIN).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut healed = 0;
        for found in open {
            let reset = devices::one(&mut tx, found.element_id).await?.reset;
            if healed < HEALED_PER_MINUTE && reset.is_none_or(|reset| reset.at < again) {
                devices::want_reset(&mut tx, found.element_id, "the sweep", true, LANE_BULK, now).await?;
                healed += 1;
            }
        }
        tx.commit().await
    }
}
