//! Asks Dovecot's doveadm over HTTP to end sessions and to tell how full a mailbox is.
//!
//! Shape: `POST /doveadm/v1` with `[[command, {parameters}, tag]]`, answered by `[["doveadmResponse", [...], tag]]` or
//! `[["error", {"type": ..., "exitCode": ...}, tag]]`, always with status 200; a wrong key is 401. One command a request:
//! one that fails fatally takes the answers of its neighbours along. Source: doc.dovecot.org, Doveadm HTTP API, and
//! Dovecot 2.3.19 itself (`kick` names its users `mask`).

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::vocabulary::Secret;

/// Where doveadm listens and what opens it; cheap enough to clone.
#[derive(Debug, Clone)]
pub struct Doveadm {
    url: DoveadmUrl,
    /// `doveadm_api_key`.
    key: Secret,
    /// When its last failure was logged.
    told: Arc<Mutex<Option<Instant>>>,
}

/// `http://host:port`, perhaps with a path before `/doveadm/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoveadmUrl {
    /// As it stands in `Host`.
    authority: String,
    host: String,
    port: u16,
    path: String,
}

/// How full a mailbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaUse {
    pub octets: i64,
    pub messages: i64,
    /// `None`: no limit.
    pub limit_octets: Option<i64>,
}

/// Why doveadm did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoveadmError {
    #[error("doveadm does not answer: {0}")]
    Away(String),
    #[error("doveadm refuses the key")]
    Key,
    #[error("doveadm knows no such user")]
    NoUser,
    #[error("doveadm refuses {command}: {reason}")]
    Refused { command: &'static str, reason: String },
}

const DEFAULT_PORT: u16 = 8080;
const LIMIT: Duration = Duration::from_secs(5);
const TELL_EVERY: Duration = Duration::from_secs(60);
const ANSWER_MAX: usize = 256 * 1024;
/// sysexits.h: EX_NOUSER, of a mailbox that does not exist.
const NO_USER: i64 = 67;
/// sysexits.h: EX_NOHOST, which `kick` ends with when the user is not logged in.
const NOT_LOGGED_IN: i64 = 68;
const OCTETS_PER_KIB: i64 = 1024;

impl FromStr for DoveadmUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || format!("{text:?} is no address of doveadm; write for example http://127.0.0.1:8080");
        let Some(rest) = text.strip_prefix("http://") else {
            let tls = text.starts_with("https://");
            return Err(if tls {
                "https is not spoken; let doveadm listen on loopback or in a tunnel".into()
            } else {
                shape()
            });
        };
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let uri: hyper::http::uri::Authority = authority.parse().map_err(|_| shape())?;
        if uri.as_str().contains('@') {
            return Err("must not hold a user; the key stands in key or key_file".into());
        }
        let host = uri.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => port.parse().map_err(|_| shape())?,
            _ => DEFAULT_PORT,
        };
        if host.is_empty() {
            return Err(shape());
        }
        let path = path.trim_end_matches('/');
        let path = path.strip_suffix("doveadm/v1").unwrap_or(path).trim_end_matches('/');
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Self { authority: authority.to_owned(), host, port, path })
    }
}

impl PartialEq for Doveadm {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url && self.key == other.key
    }
}

impl Eq for Doveadm {}

impl Doveadm {
    pub fn new(url: DoveadmUrl, key: Secret) -> Self {
        Self { url, key, told: Arc::default() }
    }

    /// Logs a failure, at most once a minute: thousands of mailboxes may wait for the same doveadm.
    pub fn tell(&self, error: &DoveadmError) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(
                "Sessions of mailboxes are not ended: {error}. The mailboxes are as they must be; trying again every minute."
            );
        }
    }

    /// Ends the sessions of a user and forgets what Dovecot remembers of its login and of that of `renamed`, which may
    /// be the same. Nobody logged in is fine.
    pub async fn end_sessions(&self, address: &str, renamed: &str) -> Result<(), DoveadmError> {
        // First, so that a session that is ended cannot begin again with what is remembered.
        self.ask("authCacheFlush", json!({ "user": [address, renamed] })).await?;
        match self.ask("kick", json!({ "mask": [address] })).await {
            Err(Failed::Exit(NOT_LOGGED_IN)) | Ok(_) => Ok(()),
            Err(failed) => Err(failed.of("kick")),
        }
    }

    /// How full a mailbox is; `None`: Dovecot counts nothing for it.
    pub async fn quota(&self, address: &str) -> Result<Option<QuotaUse>, DoveadmError> {
        let answer = match self.ask("quotaGet", json!({ "user": address })).await {
            Ok(answer) => answer,
            Err(failed) => return Err(failed.of("quotaGet")),
        };
        let number = |value: &Value| value.as_str().and_then(|text| text.parse::<i64>().ok()).or(value.as_i64());
        let of = |kind: &str| answer.as_array().and_then(|rows| rows.iter().find(|row| row["type"] == kind));
        let Some(storage) = of("STORAGE") else { return Ok(None) };
        // Dovecot counts in KiB here, and says "-" for no limit.
        let octets = |value: &Value| number(value).and_then(|kib| kib.checked_mul(OCTETS_PER_KIB));
        Ok(octets(&storage["value"]).map(|used| QuotaUse {
            octets: used,
            messages: of("MESSAGE").and_then(|row| number(&row["value"])).unwrap_or(0),
            limit_octets: octets(&storage["limit"]),
        }))
    }

    async fn ask(&self, command: &'static str, parameters: Value) -> Result<Value, Failed> {
        match tokio::time::timeout(LIMIT, self.exchange(command, parameters)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failed::Said(DoveadmError::Away(format!("nothing in {LIMIT:?}")))),
        }
    }

    async fn exchange(&self, command: &'static str, parameters: Value) -> Result<Value, Failed> {
        let away = |error: String| Failed::Said(DoveadmError::Away(error));
        let stream = self.connect().await.map_err(|error| away(error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| away(error.to_string()))?;
        let body = json!([[command, parameters, "lastmile"]]).to_string();
        let request = Request::post(format!("{}/doveadm/v1", self.url.path))
            .header(HOST, &self.url.authority)
            .header(AUTHORIZATION, format!("X-Dovecot-API {}", STANDARD.encode(self.key.expose())))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| away(error.to_string()))?;
        // The connection is driven beside the exchange and dropped with it.
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| away(error.to_string()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| away(error.to_string()))?.to_bytes();
            Ok::<_, Failed>((status, body))
        };
        tokio::pin!(connection);
        tokio::pin!(exchange);
        let (status, body) = tokio::select! {
            answered = &mut exchange => answered?,
            ended = &mut connection => {
                // The whole answer may have come with the end.
                ended.map_err(|error| away(error.to_string()))?;
                exchange.await?
            }
        };
        read(command, status, &body)
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        if let Ok(address) = self.url.host.parse() {
            return TcpStream::connect(SocketAddr::new(address, self.url.port)).await;
        }
        TcpStream::connect((self.url.host.as_str(), self.url.port)).await
    }
}

/// A command that was not done, before it is known what that means.
enum Failed {
    /// The program doveadm would be ended with this code.
    Exit(i64),
    Said(DoveadmError),
}

impl Failed {
    fn of(self, command: &'static str) -> DoveadmError {
        match self {
            Failed::Exit(NO_USER) => DoveadmError::NoUser,
            Failed::Exit(code) => DoveadmError::Refused { command, reason: format!("exit code {code}") },
            Failed::Said(error) => error,
        }
    }
}

impl From<Failed> for DoveadmError {
    fn from(failed: Failed) -> Self {
        failed.of("the command")
    }
}

fn read(command: &'static str, status: StatusCode, body: &[u8]) -> Result<Value, Failed> {
    let refused = |reason: String| Failed::Said(DoveadmError::Refused { command, reason });
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Failed::Said(DoveadmError::Key)),
        other => return Err(refused(format!("HTTP status {}", other.as_u16()))),
    }
    let answer: Value = serde_json::from_slice(body).map_err(|_| refused("no JSON is answered".to_owned()))?;
    let first = &answer[0];
    match first[0].as_str() {
        Some("doveadmResponse") => Ok(first[1].clone()),
        Some("error") => match (first[1]["type"].as_str(), first[1]["exitCode"].as_i64()) {
            (Some("exitCode"), Some(code)) => Err(Failed::Exit(code)),
            (kind, _) => Err(refused(kind.unwrap_or("for no reason that is told").chars().take(40).collect())),
        },
        _ => Err(refused("the answer has another shape".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_refused() {
        let read = |text: &str| text.parse::<DoveadmUrl>().map(|url| (url.host, url.port, url.path));
        assert_eq!(read("http://127.0.0.1:11480"), Ok(("127.0.0.1".into(), 11480, String::new())));
        assert_eq!(read("http://mail.example/"), Ok(("mail.example".into(), 8080, String::new())));
        assert_eq!(read("http://[::1]:8080/doveadm/v1"), Ok(("::1".into(), 8080, String::new())));
        assert_eq!(read("http://mail.example/dovecot/"), Ok(("mail.example".into(), 8080, "/dovecot".into())));
        for text in ["https://mail.example", "mail.example:8080", "http://", "http://a:99999", "http://u:p@a"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let asked = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            read("kick", status, body.as_bytes()).map_err(|failed| failed.of("kick"))
        };
        assert_eq!(asked(200, r#"[["doveadmResponse",[{"result":"a@b"}],"t"]]"#), Ok(json!([{ "result": "a@b" }])));
        let exit = |code: i64| asked(200, &format!(r#"[["error",{{"type":"exitCode","exitCode":{code}}},"t"]]"#));
        assert_eq!(exit(67), Err(DoveadmError::NoUser));
        assert!(exit(75).expect_err("an error").to_string().contains("exit code 75"));
        assert_eq!(asked(401, ""), Err(DoveadmError::Key));
        let unknown = asked(200, r#"[["error",{"type":"unknownMethod","exitCode":0},"t"]]"#).expect_err("an error");
        assert_eq!(unknown.to_string(), "doveadm refuses kick: unknownMethod");
        assert!(asked(200, "").expect_err("an error").to_string().contains("no JSON"));
        assert!(asked(200, "{}").expect_err("an error").to_string().contains("another shape"));
    }
}
