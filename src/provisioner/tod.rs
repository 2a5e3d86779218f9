//! Time of day, RFC 868: modems ask for it at every boot and stamp their log with it.
//!
//! Comes in: any datagram, or a connection. Goes out: four octets, seconds since 1900.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

use super::pktinfo;
use crate::telemetry::{Heartbeat, Metrics};
use crate::vocabulary::{Clock, Timestamp};

/// From 1900-01-01 to 1970-01-01, in seconds. RFC 868.
const UNIX_EPOCH: i64 = 2_208_988_800;
/// Services of other machines that answer anything: who answered one would be answered for ever. echo, daytime, quote of
/// the day, character generator, time.
const TALKATIVE_PORTS: [u16; 5] = [7, 13, 17, 19, 37];
const BEAT_EVERY: Duration = Duration::from_secs(5);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// Seconds since 1900-01-01T00:00:00Z modulo 2^32, as RFC 868 counts them: it wraps in 2036.
pub fn seconds_since_1900(now: Timestamp) -> u32 {
    // Within 2^32 by the remainder.
    (now.as_second() + UNIX_EPOCH).rem_euclid(1 << 32) as u32
}

/// Answers over UDP until the task is dropped.
pub async fn serve_udp(socket: UdpSocket, clock: Clock, metrics: Metrics, beat: Heartbeat) -> io::Result<()> {
    pktinfo::enable(&socket)?;
    // What the question says does not matter.
    let mut buffer = [0u8; 16];
    loop {
        beat.beat();
        let received = match timeout(BEAT_EVERY, pktinfo::receive(&socket, &mut buffer)).await {
            Err(_) => continue,
            Ok(Ok(received)) => received,
            Ok(Err(error)) => {
                tracing::debug!("Time of day: {error}");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                continue;
            }
        };
        if TALKATIVE_PORTS.contains(&received.peer.port()) {
            continue;
        }
        let answer = seconds_since_1900(clock.now()).to_be_bytes();
        // A lost answer is asked for again.
        let _ = pktinfo::send(&socket, &answer, received.peer, received.local);
        metrics.tod_answers.inc();
    }
}

/// Answers over TCP until the task is dropped: the time is written as soon as the connection stands.
pub async fn serve_tcp(listener: TcpListener, clock: Clock, metrics: Metrics) -> io::Result<()> {
    loop {
        let Ok((mut stream, peer)) = listener.accept().await else {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            continue;
        };
        let _: SocketAddr = peer;
        let answer = seconds_since_1900(clock.now()).to_be_bytes();
        // Four octets fit any new connection's buffer: nobody keeps this waiting.
        let _ = timeout(WRITE_LIMIT, stream.write_all(&answer)).await;
        metrics.tod_answers.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_and_the_wrap() {
        let at = |second| seconds_since_1900(Timestamp::from_second(second).expect("an instant"));
        // RFC 868: 2,208,988,800 is 1970, 2,398,291,200 is 1976.
        assert_eq!(at(0), 2_208_988_800);
        assert_eq!(at(189_302_400), 2_398_291_200);
        assert_eq!(at((1 << 32) - UNIX_EPOCH + 7), 7);
    }
}
