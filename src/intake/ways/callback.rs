//! Asks a source back over HTTP, or HTTPS, whether an event is its own, and what it was: for sources that sign nothing. Only the place
//! that the configuration names is asked; what came tells no more than the path below it.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::intake::sources::Callback;

const LIMIT: Duration = Duration::from_secs(10);
const ANSWER_MAX: usize = 1024 * 1024;
const PATH_MAX: usize = 256;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Where a source is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Over TLS; the certificate must be of an authority that this machine trusts, or of the callback's `ca`.
    pub secure: bool,
    pub host: String,
    pub port: u16,
    pub path: String,
}

/// Where `http://host[:port]/path` is, or `https://…`.
///
/// **Errors**: a sentence for the configuration's reader.
pub fn parse(url: &str) -> Result<Place, String> {
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err("must begin with https:// or http://".to_owned()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        // An IPv6 address has colons of its own, within brackets.
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| "has a port that is no number".to_owned())?)
        }
        _ => (authority, if secure { HTTPS_PORT } else { HTTP_PORT }),
    };
    if host.is_empty() || host.contains(['@', ' ']) {
        return Err("names no host".to_owned());
    }
    Ok(Place { secure, host: host.to_owned(), port, path: path.trim_end_matches('/').to_owned() })
}

impl Place {
    fn name(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// What the source says under a path. `Ok(None)`: it knows nothing of it.
///
/// **Errors**: it cannot be asked now.
pub async fn ask(callback: &Callback, path: &str) -> Result<Option<Vec<u8>>, String> {
    if !is_plain(path) {
        return Ok(None);
    }
    match tokio::time::timeout(LIMIT, exchange(callback, path)).await {
        Ok(answered) => answered,
        Err(_) => Err(format!("no answer in {} s", LIMIT.as_secs())),
    }
}

/// Whether a path stays below the place it is put behind.
fn is_plain(path: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '/' | '~');
    !path.is_empty()
        && path.len() <= PATH_MAX
        && path.chars().all(plain)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

async fn exchange(callback: &Callback, path: &str) -> Result<Option<Vec<u8>>, String> {
    let place = parse(&callback.url)?;
    let stream = TcpStream::connect((place.name(), place.port)).await.map_err(|error| error.to_string())?;
    if !place.secure {
        return talk(stream, &place, callback, path).await;
    }
    let tls = callback.tls.as_ref().ok_or("there are no authorities to trust")?;
    let name = ServerName::try_from(place.name().to_owned()).map_err(|_| "the host is no name".to_owned())?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let stream = connector.connect(name, stream).await.map_err(|error| format!("no TLS: {error}"))?;
    talk(stream, &place, callback, path).await
}

async fn talk<S>(stream: S, place: &Place, callback: &Callback, path: &str) -> Result<Option<Vec<u8>>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let talking = tokio::spawn(connection);
    let mut request = Request::get(format!("{}/{path}", place.path))
        .header(HOST, format!("{}:{}", place.host, place.port))
        .header(ACCEPT, "application/json");
    if let Some((name, value)) = &callback.header {
        request = request.header(name, value.expose());
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = match status {
        StatusCode::OK => {
            let body =
                Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
            Ok(Some(body.to_bytes().to_vec()))
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
        other => Err(format!("it answered {other}")),
    };
    talking.abort();
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_from_outside_stays_where_it_belongs() {
        for good in ["webhook-events/0a1b-22", "a", "a/b_c.d~e"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in
            ["", "../keys", "a/../b", "/a", "a//b", "a?b", "a#b", "a b", "a%2e", "http://x", "é", &"a".repeat(300)]
        {
            assert!(!is_plain(bad), "{bad}");
        }
    }

    #[test]
    fn a_url_is_host_port_and_path() {
        let place = |secure, host: &str, port, path: &str| {
            Ok(Place { secure, host: host.to_owned(), port, path: path.to_owned() })
        };
        assert_eq!(parse("http://crm.example/crm/api/v1.0/"), place(false, "crm.example", 80, "/crm/api/v1.0"));
        assert_eq!(parse("https://crm.example/crm/"), place(true, "crm.example", 443, "/crm"));
        assert_eq!(parse("https://crm.example:8443"), place(true, "crm.example", 8443, ""));
        assert_eq!(parse("http://127.0.0.1:8080"), place(false, "127.0.0.1", 8080, ""));
        assert_eq!(parse("http://[::1]:81/x"), place(false, "[::1]", 81, "/x"));
        assert_eq!(parse("https://[::1]/x"), place(true, "[::1]", 443, "/x"));
        for bad in ["ftp://x", "crm.example", "http://", "https://", "http://x:y/", "http://u@h/"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
