//! Messages over TCP, for gateways that keep a connection open: each ends as its profile's [frame] says, is done, and is
//! answered on the same connection in the profile's words. One message after the other; nothing is read ahead of its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::http::shares;
use super::{Arrived, actor, read, take};
use crate::intake::desk::Desk;
use crate::intake::sources::Source;
use crate::store::ingest::Way;
use crate::telemetry::{Metrics, Reason};

/// A socket that is bound for a source, by the address of the configuration.
pub struct Listening {
    pub configured: SocketAddr,
    pub listener: std::net::TcpListener,
}

/// Connections of one socket.
const CONNECTIONS_MAX: usize = 64;
/// A connection on which nothing comes for so long ends.
const SILENCE: Duration = Duration::from_secs(600);
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// After an accept that failed, perhaps for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Accepts connections until it is dropped.
pub(super) async fn serve(desk: Desk, metrics: Metrics, listening: Listening) {
    let Listening { configured, listener } = listening;
    let listener = match listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(address = %configured, "Messages over TCP cannot be waited for: {error}");
            return;
        }
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(address = %configured, "A connection could not be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (desk, metrics) = (desk.clone(), metrics.clone());
        connections.spawn(async move {
            let _permit = permit;
            if let Err(reason) = talk(&desk, &metrics, configured, stream, peer).await {
                metrics.ingest_refused.get_or_create(&Reason::new("connection")).inc();
                tracing::warn!(address = %configured, %peer, "A connection of a billing system ended: {reason}.");
            }
        });
    }
}

/// One connection to its end.
async fn talk(
    desk: &Desk,
    metrics: &Metrics,
    configured: SocketAddr,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), String> {
    let mut octets: Vec<u8> = Vec::new();
    let mut looked_at = 0;
    loop {
        // As the configuration is now: a source that is gone is gone.
        let settings = desk.sources.now();
        let source = settings.sources.iter().find(|source| source.listen == Some(configured));
        let source: &Source = source.ok_or("its source is no longer configured")?;
        if !source.sends_from(peer.ip()) {
            return Err("it may not send from there".to_owned());
        }
        let profile = source.profiles.first().and_then(|name| settings.shelf.named(name));
        let profile = profile.ok_or("its profile is gone")?;
        let frame = profile.profile.frame.clone().ok_or("its profile has no [frame]")?;
        let found = frame.cut(&octets, &mut looked_at);
        if let Some((message, rest)) = found.map_err(|error| error.to_string())? {
            octets.drain(..rest);
            looked_at = 0;
            let (message, records) = read(&profile, message).await.map_err(|problem| told(&problem))?;
            if profile.profile.verify.is_some() && !shares(&profile, source, &records) {
                return Err("a message does not prove its sender".to_owned());
            }
            let event = match records.as_slice() {
                [one] => one.event.clone(),
                _ => None,
            };
            let arrived = Arrived {
                tenant: source.tenant.clone(),
                source: source.source.clone(),
                actor: actor(&source.source, &profile),
                profile: Arc::clone(&profile),
                way: Way::Tcp,
                event,
                octets: message,
                records,
            };
            // Without an answer the gateway sends it again.
            let taken = take(desk, metrics, arrived).await.map_err(|problem| told(&problem))?;
            let (_, _, body) = taken.answer(&profile.profile);
            let answer = frame.framed(body.as_bytes());
            let written = tokio::time::timeout(WRITE_WITHIN, stream.write_all(&answer)).await;
            written.map_err(|_| "it does not take its answer".to_owned())?.map_err(|error| error.to_string())?;
            continue;
        }
        let mut more = [0u8; 16 * 1024];
        let count = match tokio::time::timeout(SILENCE, stream.read(&mut more)).await {
            Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(0)) if octets.iter().all(u8::is_ascii_whitespace) => return Ok(()),
            Ok(Ok(0)) => return Err("it ended in the middle of a message".to_owned()),
            Ok(Ok(count)) => count,
        };
        octets.extend_from_slice(&more[..count]);
    }
}

fn told(problem: &crate::intake::problem::Problem) -> String {
    problem.document()["detail"].as_str().unwrap_or("it was refused").trim_end_matches('.').to_owned()
}
