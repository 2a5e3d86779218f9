//! MTAs that speak up over SNMP: one of a HYBRID flow that enrols is told where its file is and what its hash must be, and
//! how any says that its provisioning ended is evidence.
//!
//! Comes in: SNMPv2c notifications of anybody. Goes out: the response an INFORM waits for; to an MTA of ours that enrols one
//! SET of pktcMtaDevConfigFile and pktcMtaDevConfigHash (RFC 4682, PKT-SP-PROV1.5 §7); and the state that an MTA names at
//! the end of its flow, for its job. The two are told apart by pktcMtaDevProvisioningState, which only the last has. Who it is follows from its lease, not
//! from what it says: the name of a file opens the file. Works from the plant in memory, whatever the database does.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_snmp::VarBind;
use async_snmp::notification::NotificationReceiver;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::device::{Devices, mta_provisioning_state};
use super::leases::Leases;
use super::plant::Report;
use super::snmp::{SnmpSettings, Value, number};
use crate::docsis::HashFamily;
use crate::telemetry::Heartbeat;
use crate::vocabulary::{Clock, MacAddress};

/// ifPhysAddress of the interface an MTA enrols by, and of any other: it names itself.
const PHYSICAL_ADDRESS: [u32; 10] = [1, 3, 6, 1, 2, 1, 2, 2, 1, 6];
/// MTAs told at once; another waits in vain for its SET and enrols again.
const MOST_AT_ONCE: usize = 256;
const BEAT_EVERY: Duration = Duration::from_secs(5);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);
const TFTP_PORT: u16 = 69;

/// What enrolment needs.
pub struct Enrolment {
    pub devices: Devices,
    /// Where DHCP is ours, or Kea's is read.
    pub leases: Option<Leases>,
    pub tftp_port: u16,
    pub clock: Clock,
}

/// Binds the port of notifications.
///
/// **Errors**: in words, when the address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<NotificationReceiver> {
    let bound = NotificationReceiver::builder().bind(address.to_string()).accept_all_notifications().build().await;
    bound.map_err(|error| std::io::Error::other(error.to_string()))
}

impl Enrolment {
    /// Serves until the task is dropped.
    pub async fn serve(self, receiver: NotificationReceiver, beat: Heartbeat) -> std::io::Result<()> {
        let enrolment = Arc::new(self);
        let busy: Arc<Mutex<HashSet<MacAddress>>> = Arc::default();
        let mut told = JoinSet::new();
        loop {
            beat.beat();
            while told.try_join_next().is_some() {}
            let received = match timeout(BEAT_EVERY, receiver.recv()).await {
                Err(_) => continue,
                Ok(Ok(received)) => received,
                Ok(Err(error)) => {
                    tracing::debug!("SNMP notifications: {error}");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                }
            };
            let from = received.source.ip().to_canonical();
            let binds = received.notification.varbinds();
            if let Some(state) = ending(binds) {
                enrolment.note_ending(from, binds, state);
                continue;
            }
            // A trap waits for nothing and begins no exchange.
            if received.inform_ack.is_none() || told.len() >= MOST_AT_ONCE {
                continue;
            }
            let Some(mac) = enrolment.who(from, binds) else { continue };
            // An INFORM that is repeated meanwhile is the same one.
            if !lock(&busy).insert(mac) {
                continue;
            }
            let (enrolment, busy) = (Arc::clone(&enrolment), Arc::clone(&busy));
            told.spawn(async move {
                enrolment.tell(mac, from).await;
                lock(&busy).remove(&mac);
            });
        }
    }

    /// Whose address it is; without leases, who it says it is, if it speaks from a network of the plant.
    fn who(&self, from: IpAddr, binds: &[VarBind]) -> Option<MacAddress> {
        match &self.leases {
            Some(leases) => leases.at(from, self.clock.now()).map(|lease| lease.mac),
            None => {
                self.devices.plant().cmts_of(from)?;
                let named = binds.iter().find(|bind| bind.oid.arcs().starts_with(&PHYSICAL_ADDRESS))?;
                MacAddress::from_octets(named.value.as_bytes()?.try_into().ok()?).ok()
            }
        }
    }

    /// The last word of a flow: nothing is told, the MTA has its file.
    fn note_ending(&self, from: IpAddr, binds: &[VarBind], state: i64) {
        let Some(mac) = self.who(from, binds) else { return };
        let report = Report { state, at: self.clock.now() };
        if self.devices.plant().note_report(mac, report) {
            tracing::debug!(%mac, "The MTA {mac} at {from} says that its provisioning ended with state {state}.");
        }
    }

    async fn tell(&self, mac: MacAddress, at: IpAddr) {
        let Some(settings) = self.devices.settings().modems.clone() else { return };
        match self.announce(mac, at, &settings).await {
            Ok(Some(url)) => tracing::info!(%mac, "The MTA {mac} at {at} enrolled and was told its file {url}."),
            Ok(None) => tracing::debug!(%mac, "The MTA {mac} at {at} sent an INFORM; it needs nothing from us."),
            Err(reason) => tracing::warn!(
                %mac,
                "The MTA {mac} at {at} enrolled and could not be told its file: {reason}. It tries again by itself."
            ),
        }
    }

    /// **Returns** the URL it was told; `None`: no MTA of ours, or DHCP told it everything.
    async fn announce(&self, mac: MacAddress, at: IpAddr, settings: &SnmpSettings) -> Result<Option<String>, String> {
        let url = |name: &str| Ok(format!("tftp://{}/{name}", self.server(at).map_err(|error| error.to_string())?));
        let Some(told) = self.devices.plant().announcement(mac, at, self.clock.now(), &url)? else { return Ok(None) };
        let binds = [&told.file, &told.hash].map(|bind| {
            let octets = match &bind.value {
                crate::docsis::Value::Octets(octets) => octets.clone(),
                // An announcement has no other type.
                _ => Vec::new(),
            };
            (super::snmp::oid(bind.oid.arcs()), Value::OctetString(octets.into()))
        });
        self.devices.snmp().set_together(at, settings, &binds).await.map_err(|error| error.to_string())?;
        Ok(super::snmp::text(&binds[0].1))
    }

    fn server(&self, device: IpAddr) -> std::io::Result<String> {
        let address = match self.devices.settings().tftp_server {
            Some(address) => return Ok(host(address)),
            None => route_to(device)?,
        };
        Ok(match self.tftp_port {
            TFTP_PORT => host(address),
            port => format!("{}:{port}", host(address)),
        })
    }
}

/// The state an MTA names when its provisioning ended; `None`: this notification is about something else.
fn ending(binds: &[VarBind]) -> Option<i64> {
    let objects = HashFamily::ALL.map(mta_provisioning_state);
    binds.iter().find(|bind| objects.contains(&bind.oid)).and_then(|bind| number(&bind.value))
}

/// Our address on the way to another. Sends nothing.
fn route_to(other: IpAddr) -> std::io::Result<IpAddr> {
    let any = if other.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect((other, TFTP_PORT))?;
    Ok(socket.local_addr()?.ip())
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provisioner::device::DeviceSettings;
    use crate::provisioner::modem::ModemSettings;
    use crate::provisioner::plant::Plant;
    use crate::provisioner::window::{USUAL, Window};
    use crate::store::Sealer;
    use crate::vocabulary::{Secret, Timestamp, Zone};

    fn settings(tftp_server: Option<IpAddr>) -> DeviceSettings {
        DeviceSettings {
            modems: None,
            lines: Vec::new(),
            voice_any: false,
            poll: None,
            window: Window::parse(USUAL, Zone::UTC).expect("a window"),
            tftp_server,
        }
    }

    #[test]
    fn a_reload_changes_where_files_are() {
        let modem = ModemSettings { shared_secret: Secret::new("example-secret-1"), community: None };
        let plant = Plant::open(Sealer::from_key([7; 32]), modem, None);
        let devices = Devices::new(plant, None, settings(None));
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let enrolment = Enrolment { devices: devices.clone(), leases: None, tftp_port: 6969, clock };
        let server = || enrolment.server([127, 0, 0, 9].into()).expect("an address");
        assert_eq!(server(), "127.0.0.1:6969");
        devices.reload(settings(Some([192, 0, 2, 9].into())));
        assert_eq!(server(), "192.0.2.9");
    }
}
