//! Reads what the configuration says about RadSec: the listeners and their certificates, and by which certificate a NAS is
//! known.

use std::net::SocketAddr;
use std::time::Duration;

use super::RadSec;
use super::reader::{Found, Section};
use super::sections::Door;
use crate::collector::{CertificateName, RadSecSettings, Radius11};
use crate::vocabulary::Secret;

/// The certificates of all NAS read so far, with the place of each: one certificate is one NAS.
#[derive(Default)]
pub(super) struct Certificates(Vec<(CertificateName, String)>);

impl Door<'_, '_> {
    /// `[radius] radsec` and its other keys. Inner `None`: RadSec is off. Outer `None`: it is on and unusable.
    pub(super) fn radsec(&self, section: &Section<'_, '_>) -> Option<Option<RadSec>> {
        let listen = section.strings("radsec");
        let tls = section.table("radsec_tls").map(|tls| {
            let (cert, key, client_ca) = (tls.required("cert"), tls.required("key"), tls.required("client_ca"));
            tls.close();
            // Without an authority nobody would be asked for a certificate, and nobody would be known.
            client_ca.as_ref()?;
            self.tls_files(cert, key, client_ca)
        });
        let connections = section.number("radsec_connections", 1);
        let per_nas = section.number("radsec_connections_per_nas", 1);
        let idle_seconds = section.number("radsec_idle_seconds", IDLE_LEAST_SECONDS);
        let radius_1_1 = section.word(
            "radius_1_1",
            &[("allow", Radius11::Allow), ("require", Radius11::Require), ("forbid", Radius11::Forbid)],
        );
        let Some(listen) = listen else {
            if tls.is_some() {
                section.fault(
                    "radsec_tls is given, but no radsec to listen on; write for example radsec = [\"[::]:2083\"]",
                );
            }
            return Some(None);
        };
        if tls.is_none() {
            section.fault("radsec needs radsec_tls = { cert, key, client_ca }: a NAS is known by its certificate");
        }
        let listen: Vec<SocketAddr> = listen.iter().filter_map(|found| self.address(found)).collect();
        Some(Some(RadSec {
            listen,
            settings: RadSecSettings {
                tls: tls??,
                radius_1_1: radius_1_1.unwrap_or_default(),
                connections: connections.unwrap_or(DEFAULT_CONNECTIONS),
                connections_per_nas: per_nas.unwrap_or(DEFAULT_CONNECTIONS_PER_NAS),
                idle: Duration::from_secs(u64::from(idle_seconds.unwrap_or(DEFAULT_IDLE_SECONDS))),
            },
        }))
    }

    /// What a NAS' certificate is recognized by. `None`: given and unusable.
    pub(super) fn certificates(
        &self,
        client: &Section<'_, '_>,
        seen: &mut Certificates,
        radsec_is_off: bool,
    ) -> Option<Vec<CertificateName>> {
        let given = client.one_or_more("certificate");
        if radsec_is_off && let Some(found) = given.first() {
            self.reader.warn(found.at, &found.key, "has no effect: [radius] radsec is off");
        }
        let mut names = Vec::with_capacity(given.len());
        let mut usable = true;
        for found in &given {
            match client.parse::<CertificateName>(found) {
                Some(name) => {
                    self.distinct_certificate(seen, found, &name.value);
                    names.push(name.value);
                }
                None => usable = false,
            }
        }
        usable.then_some(names)
    }

    /// A secret for UDP. The one RadSec uses is known to everybody (RFC 6614 section 2.3) and protects nothing there.
    pub(super) fn udp_secret(
        &self,
        client: &Section<'_, '_>,
        name: &'static str,
        file: &'static str,
    ) -> Option<Option<Secret>> {
        let secret = self.secret(client, name, file)?;
        if secret.as_ref().is_some_and(|secret| secret.expose() == RADSEC_SECRET) {
            client.fault(format!(
                "{name} is \"{RADSEC_SECRET}\", which everybody knows and which protects only inside TLS; a NAS that sends \
                 over UDP needs one of its own, one that sends over RadSec only needs none"
            ));
            return None;
        }
        Some(secret)
    }

    fn distinct_certificate(&self, seen: &mut Certificates, found: &Found<&str>, name: &CertificateName) {
        if let Some((_, first)) = seen.0.iter().find(|(other, _)| other == name) {
            self.reader.fault(found.at, &found.key, format!("{name} is already given as {first}"));
        }
        seen.0.push((name.clone(), found.key.clone()));
    }
}

const RADSEC_SECRET: &str = "radsec";
const DEFAULT_CONNECTIONS: u32 = 1024;
const DEFAULT_CONNECTIONS_PER_NAS: u32 = 16;
/// A NAS that sends interim reports every ten minutes keeps its connection.
const DEFAULT_IDLE_SECONDS: u32 = 3600;
/// Below it a watchdog at the usual 30 seconds (RFC 3539) could come too late.
const IDLE_LEAST_SECONDS: u32 = 60;
