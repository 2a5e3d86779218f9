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
use crate::mediation::{Frame, RECORD_MAX};
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
        if let Some((message, rest)) = cut(&frame, &octets, &mut looked_at)? {
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
            let answer = framed(&frame, body.as_bytes());
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

/// The first whole message, and how many octets it took. `looked_at`: so far no end was found.
///
/// **Errors**: it is longer than a record may be.
fn cut(frame: &Frame, octets: &[u8], looked_at: &mut usize) -> Result<Option<(Vec<u8>, usize)>, String> {
    let too_long = || Err(format!("a message is longer than {RECORD_MAX} octets"));
    match frame {
        Frame::End(end) => {
            let from = looked_at.saturating_sub(end.len().saturating_sub(1));
            let found = octets[from..].windows(end.len()).position(|window| window == end.as_slice());
            match found.map(|at| from + at + end.len()) {
                // What stands between two messages is of neither.
                Some(whole) if whole <= RECORD_MAX => Ok(Some((octets[..whole].trim_ascii_start().to_vec(), whole))),
                None if octets.len() <= RECORD_MAX => {
                    *looked_at = octets.len();
                    Ok(None)
                }
                _ => too_long(),
            }
        }
        Frame::Length(count) => {
            let head = usize::from(*count);
            let Some(told) = octets.get(..head) else { return Ok(None) };
            let length = told.iter().fold(0usize, |length, octet| length << 8 | usize::from(*octet));
            if length > RECORD_MAX {
                return too_long();
            }
            Ok(octets.get(head..head + length).map(|message| (message.to_vec(), head + length)))
        }
    }
}

fn framed(frame: &Frame, body: &[u8]) -> Vec<u8> {
    match frame {
        Frame::End(_) => body.to_vec(),
        Frame::Length(count) => {
            let length = (body.len() as u64).to_be_bytes();
            [&length[length.len() - usize::from(*count)..], body].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_ends_where_its_frame_says() {
        let end = Frame::End(b"</event>".to_vec());
        let octets = b"<event>1</event>\n<event>2</event><ev";
        assert_eq!(cut(&end, octets, &mut 0), Ok(Some((b"<event>1</event>".to_vec(), 16))));
        assert_eq!(cut(&end, &octets[16..], &mut 0), Ok(Some((b"<event>2</event>".to_vec(), 17))));
        assert_eq!(cut(&end, &octets[33..], &mut 0), Ok(None));
        assert!(cut(&end, &vec![b'x'; RECORD_MAX + 1], &mut 0).is_err(), "an end that never comes");
        let length = Frame::Length(2);
        assert_eq!(cut(&length, &[0, 3, b'a', b'b', b'c', 0], &mut 0), Ok(Some((b"abc".to_vec(), 5))));
        assert_eq!(cut(&length, &[0, 3, b'a', b'b'], &mut 0), Ok(None));
        assert_eq!(cut(&length, &[0], &mut 0), Ok(None));
        assert!(cut(&Frame::Length(4), &[0xff; 8], &mut 0).is_err(), "longer than a record");
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>().prop_filter("no end, no space", |b| *b != b';' && !b.is_ascii_whitespace()), 0..40), 0..8),
            step in 1usize..50,
            by_length in any::<bool>(),
        ) {
            let frame = if by_length { Frame::Length(3) } else { Frame::End(b";".to_vec()) };
            let wire: Vec<u8> = messages.iter().flat_map(|message| match by_length {
                true => framed(&frame, message),
                false => [message.as_slice(), b";"].concat(),
            }).collect();
            let (mut held, mut looked_at, mut found) = (Vec::new(), 0, Vec::new());
            for piece in wire.chunks(step) {
                held.extend_from_slice(piece);
                while let Some((message, taken)) = cut(&frame, &held, &mut looked_at).expect("short messages") {
                    held.drain(..taken);
                    looked_at = 0;
                    found.push(message);
                }
            }
            let sent: Vec<Vec<u8>> = messages.iter().map(|message| match by_length {
                true => message.clone(),
                false => [message.as_slice(), b";"].concat(),
            }).collect();
            prop_assert_eq!(found, sent);
            prop_assert!(held.is_empty());
        }
    }
}
