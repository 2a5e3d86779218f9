//! The configuration file of an installation: its shape, and reading it so that every fault comes at once with its place.
//!
//! Only `[database]` and `[api]` are required; a section that is missing turns its part off. A `*_file` names a file
//! with the secret: a relative name is looked up among systemd's credentials first (`$CREDENTIALS_DIRECTORY`), then
//! beside the configuration file. Unknown keys are faults.

mod cmts;
mod coa;
mod devices;
mod dhcp;
mod exports;
mod mail;
mod notify;
mod probe;
mod radsec;
mod reader;
mod sections;
mod sources;
mod webhooks;

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use devices::{Reset, Snmp};
pub use notify::{Notify, Sms, Smtp};

use crate::collector::{CertificateName, RadSecSettings};
use crate::dhcp::Options;
use crate::dispatcher::Export;
use crate::intake::sources::SourceSettings;
use crate::provisioner::PasswordStorage;
use crate::provisioner::cmts::Cmts;
use crate::provisioner::doveadm::Doveadm;
use crate::provisioner::mailbox::{MailHost, MailRules};
use crate::radius::{IdentityRule, Profile};
use crate::store::foreign::mail::{MailDatabase, MailMap};
use crate::store::{StoreConfig, StoreError};
use crate::tls::TlsFiles;
use crate::vocabulary::{BitRate, Cidr, Secret, TenantId, Zone};

pub use reader::ConfigFault;

/// Everything the file says, with its defaults filled in.
#[derive(Debug, Clone)]
pub struct Config {
    pub path: PathBuf,
    pub database: Database,
    pub secrets: Secrets,
    pub api: Api,
    pub radius: Option<Radius>,
    pub tftp: Option<Tftp>,
    pub tod: Option<Tod>,
    pub docsis: Option<Docsis>,
    pub cmts: Vec<Cmts>,
    pub snmp: Option<Snmp>,
    pub reset: Reset,
    /// `[sweep] every_hours`: how often all rows elsewhere are compared with what is desired; `None`: never.
    pub sweep_every: Option<Duration>,
    pub samis: Option<Samis>,
    pub dhcp: Option<Dhcp>,
    pub mail: Option<Mail>,
    pub aaa: Option<AaaTables>,
    /// `[sources]` and `[[source]]`: billing systems and their profiles.
    pub sources: SourceSettings,
    pub webhooks: Webhooks,
    /// `[[export]]`: where closed batches are written to.
    pub exports: Vec<Export>,
    pub notify: Option<Notify>,
    pub log: Log,
}

/// `[database]`: `sqlite:///path` or `postgres://…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub url: String,
}

/// `[secrets]`: the key that seals recoverable secrets. On SQLite it defaults to a file made beside the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    pub key_file: Option<PathBuf>,
}

/// `[api]`: where HTTP listens. `tls` absent is plain HTTP, `rate_limit` absent is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    pub listen: SocketAddr,
    pub tls: Option<TlsFiles>,
    pub rate_limit: Option<RateLimit>,
}

/// Requests per API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub per_second: u32,
    pub burst: u32,
}

/// `[radius]`: `accounting` defaults to port 1813 on every IPv4 address; `dictionaries` are directories or files in
/// FreeRADIUS' syntax, read on top of the built-in one. `profiles`, which the NAS below name, are directories of TOML
/// files or files, read on top of the shipped ones.
#[derive(Debug, Clone)]
pub struct Radius {
    pub accounting: Vec<SocketAddr>,
    pub radsec: Option<RadSec>,
    pub dictionaries: Vec<PathBuf>,
    /// Days the journal keeps records.
    pub keep_days: u32,
    /// Folder to which days are archived before they are dropped.
    pub archive: Option<PathBuf>,
    pub nas: Vec<Nas>,
}

/// `[radius] radsec` and what goes with it: RADIUS inside TLS (RFC 6614), port 2083 unless the address says another.
#[derive(Debug, Clone)]
pub struct RadSec {
    pub listen: Vec<SocketAddr>,
    pub settings: RadSecSettings,
}

/// `[[radius.nas]]`: a client that may send accounting. The longest prefix wins.
#[derive(Debug, Clone)]
pub struct Nas {
    pub name: String,
    /// Absent only with `certificate`: then it may send from anywhere.
    pub address: Option<Cidr>,
    /// For UDP. Absent only with `certificate`: then it may send over RadSec only.
    pub secret: Option<Secret>,
    pub previous_secret: Option<Secret>,
    /// `certificate`, one name or a list: what the certificate of its RadSec connections is recognized by.
    pub certificates: Vec<CertificateName>,
    /// `require` (default `optional`): over UDP a request without Message-Authenticator is dropped.
    pub message_authenticator: bool,
    /// Counter semantics of the vendor; default `default`.
    pub profile: Arc<Profile>,
    /// Which NAS behind this client a packet belongs to; default `client`.
    pub identity: IdentityRule,
    /// What a port can carry; decides what a counter can have done. Default 10G.
    pub max_rate: BitRate,
    /// Default 600.
    pub interim_seconds: u32,
    /// Absent: any tenant, then the realm decides.
    pub tenants: Option<Vec<TenantId>>,
    /// How its NAS are told about live sessions; absent: they are not.
    pub coa: Option<Coa>,
}

/// `coa` of a NAS: Disconnect and Change of Authorization (RFC 5176).
#[derive(Debug, Clone, PartialEq)]
pub struct Coa {
    /// Default the client's own address. `None`: each NAS at its own, which is its identity (`nas-ip`).
    pub address: Option<IpAddr>,
    /// Default 3799.
    pub port: u16,
    /// Default the client's.
    pub secret: Secret,
    /// Reply attributes that can change while a session goes on. None: every change ends the session.
    pub attributes: Vec<String>,
    /// Sessions a second; default 20.
    pub per_second: u32,
    /// How long an answer is waited for, retransmissions included; default 30.
    pub timeout_seconds: u32,
    /// The client's address where it is one host.
    pub host: Option<IpAddr>,
}

/// `[tftp]`; `listen` defaults to port 69 on every IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tftp {
    pub listen: SocketAddr,
}

/// `[docsis]`: the shared secret of the CMTS MIC, unless a CMTS has its own.
#[derive(Debug, Clone)]
pub struct Docsis {
    pub shared_secret: Option<Secret>,
}

/// `[samis]`: what counts of the usage records a CMTS exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samis {
    /// Service classes that count; `*` stands for all.
    pub service_classes: Vec<String>,
    /// What the CMTS counts as an octet: `L2` (Ethernet frames, the default, as DOCSIS defines the counters) or `L3`. It
    /// is kept with each record and shown; nothing is converted.
    pub octets: String,
}

/// `[dhcp]`: who hands out addresses.
#[derive(Debug, Clone)]
pub struct Dhcp {
    pub driver: DhcpDriver,
    /// Days for which it is known who had which address.
    pub keep_days: u32,
}

/// `driver`.
#[derive(Debug, Clone)]
pub enum DhcpDriver {
    /// Kea, whose PostgreSQL tables we write and read.
    Kea { url: String, options: Box<Options> },
    /// This daemon itself, for what CMTS relay to it.
    Builtin(Box<BuiltinDhcp>),
}

/// What the builtin server needs; `listen` defaults to port 67 on every IPv4 address.
#[derive(Debug, Clone)]
pub struct BuiltinDhcp {
    pub listen: SocketAddr,
    pub options: Options,
    pub zone: Option<Zone>,
}

/// `[tod]`: time of day (RFC 868) over UDP and TCP; `listen` defaults to port 37 on every IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tod {
    pub listen: SocketAddr,
}

/// `[aaa]`: FreeRADIUS's database and how passwords stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AaaTables {
    pub url: String,
    /// `crypt` (the default) or `cleartext`.
    pub password: PasswordStorage,
}

/// `[mail]`: the database whose tables we write, what they are called there, and how mailboxes are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    pub url: String,
    pub map: MailMap,
    pub rules: MailRules,
    pub doveadm: Option<Doveadm>,
}

/// `[webhooks]`: what deliveries of events may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhooks {
    /// Networks that may be reached although they are not public, also by plain http.
    pub allow: Vec<Cidr>,
    /// PEM file with authorities that are trusted besides the machine's.
    pub ca: Option<PathBuf>,
    /// Requests under way to one endpoint; default 16.
    pub at_once: u32,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self { allow: Vec::new(), ca: None, at_once: 16 }
    }
}

/// `[log]`; defaults `auto` and `info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// journald with fields when stderr is the journal, else text.
    Auto,
    Journald,
    Text,
    Json,
}

/// A configuration that was read, with what is doubtful about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<ConfigFault>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {path}: {error}")]
    Unreadable { path: String, error: std::io::Error },
    #[error("{}", listing(faults))]
    Faults { faults: Vec<ConfigFault>, warnings: Vec<ConfigFault> },
}

/// A configuration, catalog or tariff is far shorter.
pub const TEXT_MAX: u64 = 16 * 1024 * 1024;

/// The text of a file that people write.
///
/// **Errors**: it cannot be read, is no UTF-8, or is longer than `TEXT_MAX`.
pub fn text_of(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let length = std::fs::File::open(path)?.take(TEXT_MAX + 1).read_to_string(&mut text)? as u64;
    match length > TEXT_MAX {
        false => Ok(text),
        true => Err(std::io::Error::other(format!("it is longer than {TEXT_MAX} octets"))),
    }
}

impl Config {
    /// Reads the file at `path`, its secrets and nothing else.
    ///
    /// **Errors**: every fault at once.
    pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let text =
            text_of(path).map_err(|error| ConfigError::Unreadable { path: path.display().to_string(), error })?;
        Self::parse(path, &text, credentials, false)
    }

    /// Like `load`, and reads what the daemon will read at its start: dictionaries, TLS files. Touches nothing.
    pub fn check(path: &Path) -> Result<Loaded, ConfigError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let text =
            text_of(path).map_err(|error| ConfigError::Unreadable { path: path.display().to_string(), error })?;
        Self::parse(path, &text, credentials, true)
    }

    /// What the store needs of it. The owner is this machine and process.
    pub fn store_config(&self) -> StoreConfig {
        // A hardened unit hides the first.
        let host =
            ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().find_map(|file| std::fs::read_to_string(file).ok());
        StoreConfig {
            url: self.database.url.clone(),
            key_file: self.secrets.key_file.clone(),
            previous_key_file: None,
            owner: format!("{}:{}", host.as_deref().unwrap_or("localhost").trim(), std::process::id()),
        }
    }

    fn parse(path: &Path, text: &str, credentials: Option<PathBuf>, probing: bool) -> Result<Loaded, ConfigError> {
        let reader = reader::Reader::new(path, text, credentials);
        let tree = reader.tree();
        let config = sections::config(&reader, &tree, path, probing);
        let (faults, warnings) = reader.finish();
        match config {
            Some(config) if faults.is_empty() => Ok(Loaded { config, warnings }),
            _ => Err(ConfigError::Faults { faults, warnings }),
        }
    }
}

impl Mail {
    /// The mail host it describes; nothing is connected yet.
    ///
    /// **Errors**: a URL of neither kind of database.
    pub fn host(&self) -> Result<MailHost, StoreError> {
        let database = MailDatabase::open(&self.url, self.map.clone())?;
        Ok(MailHost { database, rules: self.rules, doveadm: self.doveadm.clone() })
    }
}

fn listing(faults: &[ConfigFault]) -> String {
    let lines: Vec<String> = faults.iter().map(ConfigFault::to_string).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests;
