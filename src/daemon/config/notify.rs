//! Reads `[notify]`: who is told of which events by mail and short message.

use std::collections::BTreeMap;
use std::path::Path;

use super::reader::{Found, Section};
use super::sections::Door;
use crate::dispatcher::Security;
use crate::outgoing::{Letters, Mailbox, TEMPLATE_MAX, Target, filled};
use crate::store::events::EventType;
use crate::vocabulary::Secret;

/// `[notify]`.
#[derive(Debug, Clone)]
pub struct Notify {
    /// The shipped templates and those of `templates`, a folder of `LANGUAGE/TYPE.mail.txt`, `LANGUAGE/TYPE.sms.txt` and
    /// `TENANT/LANGUAGE/…`; `language` (default `en`) is that of accounts that have none.
    pub letters: Letters,
    pub smtp: Option<Smtp>,
    pub from: Mailbox,
    /// Default: usage.threshold, hold.placed, hold.lifted.
    pub to_account: Vec<String>,
    /// `operator`: where what the operator must know goes; absent: nowhere.
    pub operator: Option<Mailbox>,
    /// Default: service.failed, exception.opened, reconcile.completed.
    pub to_operator: Vec<String>,
    pub sms: Option<Sms>,
}

/// `smtp`: the relay; `security` is `none` (default), `starttls` or `tls`.
#[derive(Debug, Clone)]
pub struct Smtp {
    pub host: String,
    pub port: u16,
    pub security: Security,
    pub login: Option<(String, Secret)>,
}

/// `sms`: an HTTP gateway.
#[derive(Debug, Clone)]
pub struct Sms {
    pub target: Target,
    pub content_type: String,
    /// One header with a secret, as gateways want it.
    pub header: Option<(String, Secret)>,
    pub body: String,
    pub types: Vec<String>,
}

const TO_ACCOUNT: [EventType; 3] = [EventType::UsageThreshold, EventType::HoldPlaced, EventType::HoldLifted];
const TO_OPERATOR: [EventType; 3] =
    [EventType::ServiceFailed, EventType::ExceptionOpened, EventType::ReconcileCompleted];
const BY_SMS: [EventType; 1] = [EventType::UsageThreshold];
/// Files of a folder of templates.
const TEMPLATES_MAX: usize = 2000;

impl Door<'_, '_> {
    pub(super) fn notify(&self, section: Section<'_, '_>) -> Option<Notify> {
        let language = section.string("language").map_or("en", |found| found.value).to_owned();
        let letters = self.letters(section.string("templates"), &language);
        let from = section.required("from").and_then(|found| section.parse::<Mailbox>(&found));
        let operator = section.parsed::<Mailbox>("operator").map(|found| found.value);
        let smtp = section.table("smtp").map(|section| self.smtp(section));
        let sms = section.table("sms").map(|section| self.sms(section));
        let to_account = self.types(&section, "to_account", &TO_ACCOUNT);
        let to_operator = self.types(&section, "to_operator", &TO_OPERATOR);
        section.close();
        let wrong = matches!(smtp, Some(None)) || matches!(sms, Some(None));
        (!wrong).then_some(())?;
        Some(Notify {
            letters: letters?,
            smtp: smtp.flatten(),
            from: from?.value,
            to_account,
            operator,
            to_operator,
            sms: sms.flatten(),
        })
    }

    fn types(&self, section: &Section<'_, '_>, name: &'static str, usual: &[EventType]) -> Vec<String> {
        let Some(listed) = section.strings(name) else {
            return usual.iter().map(|kind| kind.as_str().to_owned()).collect();
        };
        for found in &listed {
            if !EventType::ALL.iter().any(|kind| kind.as_str() == found.value) {
                self.reader.fault(found.at, &found.key, format!("{:?} is no type of event", found.value));
            }
        }
        listed.iter().map(|found| found.value.to_owned()).collect()
    }

    fn smtp(&self, section: Section<'_, '_>) -> Option<Smtp> {
        let host = section.required("host").map(|found| found.value.to_owned());
        let words = [("none", Security::None), ("starttls", Security::StartTls), ("tls", Security::Tls)];
        let security = section.word("security", &words).unwrap_or(Security::None);
        let usual = match security {
            Security::None => 25,
            Security::StartTls => 587,
            Security::Tls => 465,
        };
        let port = section.number("port", 1).map_or(Some(usual), |port| u16::try_from(port).ok());
        if port.is_none() {
            section.fault("port does not exist; ports end at 65535");
        }
        let user = section.string("user").map(|found| found.value.to_owned());
        let password = self.secret(&section, "password", "password_file");
        let login = match (user, password) {
            (None, Some(None)) => Some(None),
            (Some(user), Some(Some(password))) => Some(Some((user, password))),
            (_, None) => None,
            _ => {
                section.fault("user and password (or password_file) go together");
                None
            }
        };
        if matches!(login, Some(Some(_))) && security == Security::None {
            section.fault("a password is not sent in clear: security must be starttls or tls");
        }
        section.close();
        Some(Smtp { host: host?, port: port?, security, login: login? })
    }

    fn sms(&self, section: Section<'_, '_>) -> Option<Sms> {
        let target = section.required("url").and_then(|found| match Target::parse(found.value) {
            Ok(target) => Some(target),
            Err(error) => {
                self.reader.fault(found.at, &found.key, error.to_string());
                None
            }
        });
        let content_type = section.string("content_type").map_or("application/json", |found| found.value).to_owned();
        let body = section.required("body").and_then(|found| {
            let sample = serde_json::json!({ "phone": "+15125550100", "text": "text", "id": "acme.1" });
            match filled(found.value, &sample) {
                Ok(_) => Some(found.value.to_owned()),
                Err(error) => {
                    self.reader.fault(found.at, &found.key, error.to_string());
                    None
                }
            }
        });
        let name = section.string("header").map(|found| found.value.to_owned());
        let value = self.secret(&section, "header_value", "header_value_file");
        let header = match (name, value) {
            (None, Some(None)) => Some(None),
            (Some(name), Some(Some(value))) => Some(Some((name, value))),
            (_, None) => None,
            _ => {
                section.fault("header and header_value (or header_value_file) go together");
                None
            }
        };
        let types = self.types(&section, "types", &BY_SMS);
        section.close();
        Some(Sms { target: target?, content_type, header: header?, body: body?, types })
    }

    fn letters(&self, folder: Option<Found<&str>>, language: &str) -> Option<Letters> {
        let mut own = BTreeMap::new();
        let Some(found) = &folder else { return Letters::new(own, language).ok() };
        if let Err(detail) = gather(&self.reader.path(found.value), "", &mut own) {
            self.reader.fault(found.at, &found.key, detail);
            return None;
        }
        match Letters::new(own, language) {
            Ok(letters) => Some(letters),
            Err(faults) => {
                for fault in faults {
                    self.reader.fault(found.at, &found.key, fault.to_string());
                }
                None
            }
        }
    }
}

/// Texts below a folder, by their names; folders are two deep at most.
fn gather(folder: &Path, prefix: &str, texts: &mut BTreeMap<String, String>) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        if path.is_dir() {
            if name.matches('/').count() < 2 {
                gather(&path, &format!("{name}/"), texts)?;
            }
        } else if name.ends_with(".txt") {
            if entry.metadata().map_err(cannot)?.len() > TEMPLATE_MAX as u64 || texts.len() >= TEMPLATES_MAX {
                return Err(format!("{} is too long, or one too many", path.display()));
            }
            let text = std::fs::read_to_string(&path);
            texts.insert(name, text.map_err(|error| format!("cannot read {}: {error}", path.display()))?);
        }
    }
    Ok(())
}
