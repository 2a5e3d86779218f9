//! Asks a source back over HTTP whether an event is its own, and what it was: for sources that sign nothing. Only the place
//! that the configuration names is asked; what came tells no more than the path below it.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::intake::sources::Callback;

const LIMIT: Duration = Duration::from_secs(10);
const ANSWER_MAX: usize = 1024 * 1024;
const PATH_MAX: usize = 256;
const DEFAULT_PORT: u16 = 80;

/// Where `http://host[:port]/path` is.
///
/// **Errors**: a sentence for the configuration's reader.
pub fn parse(url: &str) -> Result<(String, u16, String), String> {
    let rest = url.strip_prefix("http://").ok_or("must begin with http://; for TLS put a proxy of yours in between")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        // An IPv6 address has colons of its own, within brackets.
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| "has a port that is no number".to_owned())?)
        }
        _ => (authority, DEFAULT_PORT),
    };
    if host.is_empty() || host.contains(['@', ' ']) {
        return Err("names no host".to_owned());
    }
    Ok((host.to_owned(), port, path.trim_end_matches('/').to_owned()))
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
    let (host, port, base) = parse(&callback.url)?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, port)).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let talking = tokio::spawn(connection);
    let mut request = Request::get(format!("{base}/{path}"))
        .header(HOST, format!("{host}:{port}"))
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
        let parts = |host: &str, port, path: &str| Ok((host.to_owned(), port, path.to_owned()));
        assert_eq!(parse("http://crm.example/crm/api/v1.0/"), parts("crm.example", 80, "/crm/api/v1.0"));
        assert_eq!(parse("http://127.0.0.1:8080"), parts("127.0.0.1", 8080, ""));
        assert_eq!(parse("http://[::1]:81/x"), parts("[::1]", 81, "/x"));
        assert_eq!(parse("http://[::1]/x"), parts("[::1]", 80, "/x"));
        for bad in ["https://x", "crm.example", "http://", "http://x:y/", "http://u@h/"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
