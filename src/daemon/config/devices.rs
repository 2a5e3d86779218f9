//! Reads `[snmp]` and `[reset]`: how modems are asked, and when one may be made to boot.

use std::net::SocketAddr;
use std::time::Duration;

use super::reader::Section;
use super::sections::Door;
use crate::provisioner::lines::{LineStatus, ModelPattern};
use crate::provisioner::snmp::{Access, AuthKind, Oid, PrivacyKind, SnmpSettings, User};
use crate::provisioner::window::{USUAL, Window};
use crate::vocabulary::{Secret, Zone};

/// `[snmp]`.
#[derive(Debug, Clone)]
pub struct Snmp {
    /// What modem files grant read and write access to (TLV 53, or the access table of older modems).
    pub community: Option<Secret>,
    /// How modems are asked and reset; `None`: they are not.
    pub modems: Option<SnmpSettings>,
    /// How often each modem's health is read; `None`: never.
    pub poll: Option<Duration>,
    /// Where INFORMs of MTAs that enrol are received; `None`: nowhere.
    pub informs: Option<SocketAddr>,
}

/// `[reset]`.
#[derive(Debug, Clone)]
pub struct Reset {
    /// The maintenance window, every day.
    pub window: Window,
    /// Modems with voice are reset whatever their lines do.
    pub voice_any: bool,
    pub line_status: Vec<LineStatus>,
}

impl Default for Reset {
    fn default() -> Self {
        let window = Window::parse(USUAL, Zone::UTC).expect("the usual window is one");
        Self { window, voice_any: false, line_status: Vec::new() }
    }
}

const DEFAULT_POLL_MINUTES: u32 = 60;
pub(super) const DEFAULT_SWEEP: Duration = Duration::from_secs(24 * 3600);

impl Door<'_, '_> {
    pub(super) fn snmp(&self, section: Section<'_, '_>) -> Option<Snmp> {
        let community = self.secret(&section, "community", "community_file");
        let user = section.table("user").map(|table| self.snmp_user(table));
        let port = section.number("port", 1).map(|port| (port, u16::try_from(port)));
        if let Some((port, Err(_))) = port {
            section.fault(format!("port is {port}; ports end at 65535"));
        }
        let timeout_ms = section.number("timeout_ms", 1);
        let retries = section.number("retries", 0);
        let poll_minutes = section.number("poll_minutes", 0).unwrap_or(DEFAULT_POLL_MINUTES);
        let informs = section.string("informs").map(|found| self.address(&found));
        if informs.is_some() && user.is_none() && matches!(community, Some(None)) {
            section.fault("informs needs a community or a user: an MTA that enrols is told its file by SNMP");
        }
        section.close();
        let informs = informs.map_or(Some(None), |informs| informs.map(Some))?;
        let (community, user) = (community?, user.map_or(Some(None), |user| user.map(Some))?);
        let access = user.map(Access::User).or_else(|| community.clone().map(Access::Community));
        let modems = access.map(|access| {
            let usual = SnmpSettings::with(access);
            SnmpSettings {
                port: port.and_then(|(_, port)| port.ok()).unwrap_or(usual.port),
                timeout: timeout_ms.map_or(usual.timeout, |ms| Duration::from_millis(u64::from(ms))),
                retries: retries.unwrap_or(usual.retries),
                ..usual
            }
        });
        let poll = (poll_minutes > 0).then(|| Duration::from_secs(u64::from(poll_minutes) * 60));
        Some(Snmp { community, modems, poll, informs })
    }

    /// SNMPv3, RFC 3414.
    pub(super) fn snmp_user(&self, section: Section<'_, '_>) -> Option<User> {
        let name = section.required("name").map(|found| found.value.to_owned());
        let auth = section.word(
            "auth",
            &[
                ("md5", AuthKind::Md5),
                ("sha", AuthKind::Sha),
                ("sha256", AuthKind::Sha256),
                ("sha512", AuthKind::Sha512),
            ],
        );
        let auth_password = self.secret(&section, "auth_password", "auth_password_file");
        let privacy = section.word(
            "privacy",
            &[("des", PrivacyKind::Des), ("aes", PrivacyKind::Aes128), ("aes256", PrivacyKind::Aes256)],
        );
        let privacy_password = self.secret(&section, "privacy_password", "privacy_password_file");
        let (auth_password, privacy_password) = (auth_password?, privacy_password?);
        for (what, kind, password) in
            [("auth", auth.is_some(), &auth_password), ("privacy", privacy.is_some(), &privacy_password)]
        {
            match (kind, password) {
                (true, None) => section.fault(format!("{what} needs {what}_password or {what}_password_file")),
                (false, Some(_)) => section.fault(format!("{what}_password needs {what}")),
                // RFC 3414, section 11.2: shorter ones are refused by agents.
                (true, Some(password)) if password.expose().len() < 8 => {
                    section.fault(format!("{what}_password must have at least 8 characters"));
                }
                _ => {}
            }
        }
        if privacy.is_some() && auth.is_none() {
            section.fault("privacy needs auth: SNMPv3 knows no encryption without authentication");
        }
        section.close();
        Some(User { name: name?, auth: auth.zip(auth_password), privacy: privacy.zip(privacy_password) })
    }

    /// `[sweep]`; `every_hours = 0` turns it off.
    pub(super) fn sweep(&self, section: Section<'_, '_>) -> Option<Duration> {
        let hours = section.number("every_hours", 0);
        section.close();
        match hours {
            None => Some(DEFAULT_SWEEP),
            Some(0) => None,
            Some(hours) => Some(Duration::from_secs(u64::from(hours) * 3600)),
        }
    }

    pub(super) fn reset(&self, section: Section<'_, '_>) -> Option<Reset> {
        let zone = match section.string("timezone") {
            None => Some(Zone::UTC),
            Some(found) => {
                let zone = Zone::get(found.value).ok();
                if zone.is_none() {
                    self.reader.fault(found.at, &found.key, format!("{:?} is no time zone", found.value));
                }
                zone
            }
        };
        let window = match section.string("window") {
            None => Some(USUAL),
            Some(found) => match Window::parse(found.value, Zone::UTC) {
                Ok(_) => Some(found.value),
                Err(error) => {
                    self.reader.fault(found.at, &found.key, error.to_string());
                    None
                }
            },
        };
        let voice_any = section.word("voice", &[("idle", false), ("any", true)]).unwrap_or(false);
        let line_status: Vec<Option<LineStatus>> =
            section.tables("line_status").into_iter().map(|table| self.line_status(table)).collect();
        section.close();
        let window = Window::parse(window?, zone?).ok()?;
        Some(Reset { window, voice_any, line_status: line_status.into_iter().collect::<Option<_>>()? })
    }

    fn line_status(&self, section: Section<'_, '_>) -> Option<LineStatus> {
        let model = section.parsed::<ModelPattern>("model").map(|found| found.value);
        let column = section.required("oid").and_then(|found| {
            let column: Option<Oid> = found.value.trim_start_matches('.').parse().ok();
            if column.is_none() {
                self.reader.fault(found.at, &found.key, format!("{:?} is no OID in numbers", found.value));
            }
            column
        });
        let idle = section.number("idle", 0);
        if idle.is_none() {
            section.fault("idle is required: the value at which a line is not in use");
        }
        section.close();
        let model = model.or_else(|| "*".parse().ok());
        Some(LineStatus { model: model?, column: column?.arcs().to_vec(), idle: vec![i64::from(idle?)] })
    }
}
