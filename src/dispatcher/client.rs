//! A small HTTP/1.1 client for receivers we do not trust: a name is looked up once and the guard's address is the one that is
//! connected to, redirects are not followed, everything has a bound, connections are kept for the next request.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::outgoing::{Allowed, Answer, Target};
use crate::vocabulary::Timestamp;

/// For the whole of it: lookup, connection, request, answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Octets of an answer that are read; a longer one ends the connection.
const ANSWER_MAX: usize = 64 * 1024;
/// Octets of an answer's head.
const HEAD_MAX: usize = 32 * 1024;
/// A connection that was idle for longer is not used again: its receiver may be closing it.
const IDLE_MAX: Duration = Duration::from_secs(20);
const AGENT: &str = concat!("lastmile/", env!("CARGO_PKG_VERSION"));

/// How names are looked up; a test gives its own.
pub type Resolver = Arc<dyn Fn(String, u16) -> Looking + Send + Sync>;
type Looking = std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;

/// What all requests share; cheap to clone.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    allowed: Arc<Allowed>,
    resolver: Resolver,
}

/// Connections to one receiver.
pub struct Pool {
    target: Target,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: tokio::time::Instant,
}

/// A request with a body.
#[derive(Clone)]
pub struct Post {
    pub method: Method,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub content_type: HeaderValue,
    pub body: Bytes,
}

/// Why a request was not answered, for a person; `stale`: it never left, or its kept connection had ended.
struct Broken {
    why: String,
    stale: bool,
}

impl Client {
    pub fn new(tls: ClientConfig, allowed: Allowed) -> Self {
        let resolver: Resolver = Arc::new(|host, port| Box::pin(look_up(host, port)));
        Self { tls: TlsConnector::from(Arc::new(tls)), allowed: Arc::new(allowed), resolver }
    }

    /// With another way to look names up.
    pub fn with_resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = resolver;
        self
    }

    /// Sends a request and judges nothing: whatever was answered is told.
    pub async fn send(&self, pool: &Pool, post: &Post, now: Timestamp) -> Answer {
        match timeout(PATIENCE, self.try_send(pool, post, now)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(broken)) => Answer::Failed(broken.why),
            Err(_) => Answer::Failed(format!("no answer within {PATIENCE:?}")),
        }
    }

    async fn try_send(&self, pool: &Pool, post: &Post, now: Timestamp) -> Result<Answer, Broken> {
        if let Some(sender) = pool.kept() {
            match self.exchange(pool, sender, post, now).await {
                // Both sides may end an idle connection at any time; that is no word of the receiver.
                Err(broken) if broken.stale => {}
                done => return done,
            }
        }
        let sender = self.connect(&pool.target).await.map_err(|why| Broken { why, stale: false })?;
        self.exchange(pool, sender, post, now).await
    }

    /// Opens a connection to an address that the guard lets pass.
    async fn connect(&self, target: &Target) -> Result<SendRequest<Full<Bytes>>, String> {
        let host = &target.host;
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => {
                let found = (self.resolver)(host.clone(), target.port).await;
                found.map_err(|error| format!("{host} cannot be looked up: {error}"))?
            }
        };
        let allowed = self.allowed.of(target, &addresses).map_err(|error| format!("the URL {error}"))?;
        let mut why = String::new();
        for address in allowed.into_iter().take(ADDRESSES_MAX) {
            let address = SocketAddr::new(address, target.port);
            match self.open(target, address).await {
                Ok(sender) => return Ok(sender),
                Err(error) => why = format!("{address}: {error}"),
            }
        }
        Err(why)
    }

    async fn open(&self, target: &Target, address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("no connection: {error}"))?;
        let _ = stream.set_nodelay(true);
        if !target.secure {
            return hands(TokioIo::new(stream)).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_| "the host is no name".to_owned())?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| format!("no TLS: {error}"))?;
        hands(TokioIo::new(stream)).await
    }

    async fn exchange(
        &self,
        pool: &Pool,
        mut sender: SendRequest<Full<Bytes>>,
        post: &Post,
        now: Timestamp,
    ) -> Result<Answer, Broken> {
        let request = pool.request(post).map_err(|why| Broken { why, stale: false })?;
        let answered = match sender.send_request(request).await {
            Ok(answered) => answered,
            Err(error) => {
                let stale = error.is_canceled() || error.is_closed() || error.is_incomplete_message();
                return Err(Broken { why: format!("the connection ended: {error}"), stale });
            }
        };
        let code = answered.status().as_u16();
        let retry_after = answered.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, now));
        // What stands in the answer is of no interest; a connection is good again once it was read.
        if is_short(answered).await {
            pool.keep(sender);
        }
        Ok(Answer::Status { code, retry_after })
    }
}

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

impl Pool {
    pub fn new(target: Target) -> Self {
        Self { target, idle: Mutex::default() }
    }

    fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Idle { sender, since }) = idle.pop() {
            if since.elapsed() < IDLE_MAX && sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        if !sender.is_closed() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(Idle { sender, since: tokio::time::Instant::now() });
        }
    }

    fn request(&self, post: &Post) -> Result<Request<Full<Bytes>>, String> {
        let mut builder = Request::builder()
            .method(post.method.clone())
            .uri(self.target.path.as_str())
            .header(HOST, self.target.authority())
            .header(USER_AGENT, AGENT)
            .header(CONTENT_TYPE, post.content_type.clone());
        for (name, value) in &post.headers {
            builder = builder.header(name, value);
        }
        builder.body(Full::new(post.body.clone())).map_err(|error| format!("the request cannot be made: {error}"))
    }
}

async fn look_up(host: String, port: u16) -> std::io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((host, port)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

async fn hands<S>(stream: TokioIo<S>) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(stream)
        .await
        .map_err(|error| format!("no HTTP: {error}"))?;
    // It ends with its sender, or when the receiver closes it.
    tokio::spawn(connection);
    sender.ready().await.map_err(|error| format!("no HTTP: {error}"))?;
    Ok(sender)
}

/// Reads an answer's body to its end. `false`: it is too long or broke off.
async fn is_short(answered: Response<hyper::body::Incoming>) -> bool {
    let mut body = answered.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > ANSWER_MAX {
            return false;
        }
    }
    true
}

/// Seconds, or an HTTP date. RFC 9110 s10.2.3.
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let wait = at.duration_since(now);
    Duration::try_from(wait).ok().or(Some(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-01T00:00:00Z".parse().expect("an instant");
        let read = |text: &'static str| retry_after(&HeaderValue::from_static(text), now);
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Sun, 01 Nov 2026 00:01:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(read("Sat, 31 Oct 2026 00:00:00 GMT"), Some(Duration::ZERO), "it is over");
        assert_eq!(read("soon"), None);
    }

    /// A name that first passes the guard and then names this machine: each connection looks anew and each is judged.
    #[tokio::test]
    async fn a_name_that_turns_to_this_machine_is_refused() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let resolver: Resolver =
            Arc::new(|_, _| Box::pin(async { Ok(vec!["127.0.0.1".parse().expect("an address")]) }));
        let tls = crate::tls::client_config(None).expect("settings");
        let client = Client::new(tls, Allowed::default()).with_resolver(resolver);
        let target = Target::parse(&format!("https://rebinding.example:{port}/")).expect("a URL");
        let post = Post {
            method: Method::POST,
            headers: Vec::new(),
            content_type: HeaderValue::from_static("application/json"),
            body: Bytes::from_static(b"{}"),
        };
        let answer = client.send(&Pool::new(target), &post, Timestamp::UNIX_EPOCH).await;
        let Answer::Failed(why) = answer else { panic!("{answer:?}") };
        assert!(why.contains("127.0.0.1, which is not on the public Internet"), "{why}");
        let waited = timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(waited.is_err(), "nothing connected");
    }
}
