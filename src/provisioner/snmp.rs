//! SNMP towards modems, MTAs and CMTSs: the one place that knows the library, with one socket for all of them.
//!
//! Comes in: whom to ask, as whom, and object identifiers. Goes out: values as far as they are there, or why nobody
//! answered. Every exchange is bounded in time; what does not answer never holds up what does.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_snmp::transport::{UdpHandle, UdpTransport};
use async_snmp::{
    Auth, AuthProtocol, Client, EngineCache, Error, ErrorStatus, MasterKeys, PrivProtocol, Retry, UsmConfig,
};
pub use async_snmp::{Oid, Value};
use tokio::sync::OnceCell;

use crate::vocabulary::Secret;

/// How agents are spoken to (`[snmp]`, or a CMTS of its own).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnmpSettings {
    pub access: Access,
    pub port: u16,
    /// For one request; it is sent `1 + retries` times.
    pub timeout: Duration,
    pub retries: u32,
}

impl SnmpSettings {
    /// With the usual port and patience: modems answer within a second or not at all.
    pub fn with(access: Access) -> Self {
        Self { access, port: PORT, timeout: TIMEOUT, retries: RETRIES }
    }
}

/// RFC 3417.
const PORT: u16 = 161;
const TIMEOUT: Duration = Duration::from_secs(2);
const RETRIES: u32 = 1;

/// As whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// SNMPv2c.
    Community(Secret),
    /// SNMPv3 with the user-based security model, RFC 3414.
    User(User),
}

/// An SNMPv3 user. Without `auth` it speaks noAuthNoPriv, without `privacy` authNoPriv.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub auth: Option<(AuthKind, Secret)>,
    pub privacy: Option<(PrivacyKind, Secret)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthKind {
    Md5,
    Sha,
    Sha256,
    Sha512,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivacyKind {
    Des,
    Aes128,
    Aes256,
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnmpError {
    /// Nobody answered in time.
    #[error("no SNMP answer from {0}")]
    Silent(IpAddr),
    /// The agent answered that it will not.
    #[error("{0} refused over SNMP: {1}")]
    Refused(IpAddr, String),
    /// What came is no answer, or we could not ask.
    #[error("SNMP with {0}: {1}")]
    Broken(IpAddr, String),
}

/// The SNMP side; cheap to clone.
#[derive(Clone)]
pub struct Snmp(Arc<Inner>);

struct Inner {
    sockets: [OnceCell<UdpTransport>; 2],
    /// SNMPv3 engines once discovered, so that a second question costs one exchange.
    engines: Arc<EngineCache>,
    /// Deriving keys from a password takes a million octets of hashing: once for each user.
    keys: Mutex<HashMap<String, MasterKeys>>,
}

impl fmt::Debug for Snmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snmp")
    }
}

impl Default for Snmp {
    fn default() -> Self {
        Self(Arc::new(Inner { sockets: Default::default(), engines: Arc::default(), keys: Mutex::default() }))
    }
}

impl Snmp {
    /// Values in the order asked for; `None` where the agent has no such object.
    pub async fn get(
        &self,
        address: IpAddr,
        settings: &SnmpSettings,
        objects: &[Oid],
    ) -> Result<Vec<Option<Value>>, SnmpError> {
        let client = self.client(address, settings).await?;
        let answer = client.get_many(objects).await.map_err(|error| told(address, &error))?;
        let found = |object: &Oid| {
            let bind = answer.varbinds.iter().find(|bind| bind.oid == *object)?;
            let there = !matches!(bind.value, Value::NoSuchObject | Value::NoSuchInstance | Value::EndOfMibView);
            there.then(|| bind.value.clone())
        };
        Ok(objects.iter().map(found).collect())
    }

    /// Sets one object.
    pub async fn set(
        &self,
        address: IpAddr,
        settings: &SnmpSettings,
        object: &Oid,
        value: Value,
    ) -> Result<(), SnmpError> {
        let client = self.client(address, settings).await?;
        client.set(object, value).await.map(drop).map_err(|error| told(address, &error))
    }

    /// Sets objects in one request: all of them or none.
    pub async fn set_together(
        &self,
        address: IpAddr,
        settings: &SnmpSettings,
        objects: &[(Oid, Value)],
    ) -> Result<(), SnmpError> {
        let client = self.client(address, settings).await?;
        client.set_many(objects).await.map(drop).map_err(|error| told(address, &error))
    }

    async fn client(&self, address: IpAddr, settings: &SnmpSettings) -> Result<Client<UdpHandle>, SnmpError> {
        let broken = |error: Box<Error>| SnmpError::Broken(address, error.to_string());
        let auth = self.auth(&settings.access).map_err(|reason| SnmpError::Broken(address, reason))?;
        let retry = Retry::fixed(settings.retries, Duration::ZERO).unwrap_or_else(|_| Retry::none());
        let builder = Client::builder(SocketAddr::new(address, settings.port), auth)
            .request_timeout(settings.timeout)
            .engine_cache(Arc::clone(&self.0.engines))
            .retry(retry);
        builder.build_with(self.socket(address).await.map_err(broken)?).await.map_err(broken)
    }

    async fn socket(&self, address: IpAddr) -> Result<&UdpTransport, Box<Error>> {
        let (cell, any) = match address {
            IpAddr::V4(_) => (&self.0.sockets[0], "0.0.0.0:0"),
            IpAddr::V6(_) => (&self.0.sockets[1], "[::]:0"),
        };
        cell.get_or_try_init(|| async {
            UdpTransport::builder().bind(any).warn_on_source_mismatch(false).build().await
        })
        .await
    }

    fn auth(&self, access: &Access) -> Result<Auth, String> {
        match access {
            Access::Community(community) => Ok(Auth::v2c(community.expose().to_owned())),
            Access::User(user) => self.usm(user).map(Auth::from),
        }
    }

    fn usm(&self, user: &User) -> Result<UsmConfig, String> {
        let config = UsmConfig::new(user.name.as_bytes().to_vec());
        let Some((auth, password)) = &user.auth else { return Ok(config) };
        let mut keys = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let derived = match keys.get(&user.name) {
            Some(derived) => derived.clone(),
            None => {
                let mut derived = MasterKeys::new(protocol(*auth), password.expose().as_bytes())
                    .map_err(|error| format!("user {}: {error}", user.name))?;
                if let Some((privacy, password)) = &user.privacy {
                    derived = derived
                        .with_privacy(cipher(*privacy), password.expose().as_bytes())
                        .map_err(|error| format!("user {}: {error}", user.name))?;
                }
                keys.insert(user.name.clone(), derived.clone());
                derived
            }
        };
        config.with_master_keys(derived).map_err(|error| format!("user {}: {error}", user.name))
    }

    /// Forgets derived keys: the configuration changed.
    pub fn forget_keys(&self) {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// An object identifier of ours.
pub fn oid(arcs: &[u32]) -> Oid {
    Oid::from_slice(arcs)
}

/// An object in a table, by its index.
pub fn row(column: &[u32], index: &[u32]) -> Oid {
    Oid::new(column.iter().chain(index).copied())
}

/// A text as agents write it, without a terminating NUL.
pub fn text(value: &Value) -> Option<String> {
    let octets = value.as_bytes()?;
    Some(String::from_utf8_lossy(octets).trim_end_matches('\0').to_owned())
}

/// A whole number of whatever type.
pub fn number(value: &Value) -> Option<i64> {
    let unsigned = || value.as_u64().and_then(|number| i64::try_from(number).ok());
    value.as_i32().map(i64::from).or_else(unsigned)
}

fn protocol(kind: AuthKind) -> AuthProtocol {
    match kind {
        AuthKind::Md5 => AuthProtocol::Md5,
        AuthKind::Sha => AuthProtocol::Sha1,
        AuthKind::Sha256 => AuthProtocol::Sha256,
        AuthKind::Sha512 => AuthProtocol::Sha512,
    }
}

fn cipher(kind: PrivacyKind) -> PrivProtocol {
    match kind {
        PrivacyKind::Des => PrivProtocol::Des,
        PrivacyKind::Aes128 => PrivProtocol::Aes128,
        PrivacyKind::Aes256 => PrivProtocol::Aes256Blumenthal,
    }
}

fn told(address: IpAddr, error: &Error) -> SnmpError {
    match error.exchange_source() {
        Error::Timeout { .. } => SnmpError::Silent(address),
        Error::Snmp { status, .. } => SnmpError::Refused(address, word(status)),
        Error::Auth { .. } => SnmpError::Refused(address, "the user or its passwords are not accepted".to_owned()),
        other => SnmpError::Broken(address, other.to_string()),
    }
}

fn word(status: &ErrorStatus) -> String {
    status.as_str().map_or_else(|| format!("error status {}", status.as_i32()), str::to_owned)
}
