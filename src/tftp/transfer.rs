//! One read transfer from its request to the last ACK.
//!
//! ```text
//!            options granted                     ACK 0
//! request ──────────────────▶ Offering ────────────────▶ Sending ──ACK of the last block──▶ Done
//!    └───────────── no options ─────────────────────────────▲  ▲ └──ERROR, 5 silences──▶ Failed
//!                                                              └── ACK inside the window: next window
//! ```
//!
//! A datagram is sent again only when the timer runs out, never because an ACK came twice: that would double every
//! packet behind it for the rest of the transfer (the sorcerer's apprentice, RFC 1123 §4.2.3.1).

use std::sync::Arc;
use std::time::Duration;

use super::{ACK, DATA, ERROR, Request, word};

/// What the caller does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Datagrams to send now, in order.
    pub send: Vec<Vec<u8>>,
    pub outcome: Outcome,
}

/// How a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Wait for a datagram, at most until `wake_at` (time since the transfer began), then call `on_timer`.
    Waiting { wake_at: Duration },
    /// The client has acknowledged the last block.
    Done,
    /// The client gave up with an ERROR.
    Refused,
    /// Nothing was heard for all retransmissions.
    Silent,
}

/// The server's side of one transfer.
#[derive(Debug)]
pub struct Transfer {
    bytes: Arc<[u8]>,
    block_octets: usize,
    window_blocks: usize,
    /// A timeout the client asked for; without one the waits double.
    timeout: Option<Duration>,
    offer: Option<Vec<u8>>,
    /// Blocks the client has acknowledged, counted without wrapping.
    acknowledged: usize,
    /// Blocks sent at least once.
    sent: usize,
    silences: u32,
    wake_at: Duration,
}

/// Octets of a block when none were negotiated. RFC 1350.
pub const DEFAULT_BLOCK_OCTETS: u16 = 512;
/// Retransmissions before a transfer is given up: after 1, 2, 4, 8 and 16 s.
pub const MOST_RETRANSMISSIONS: u32 = 5;

const FIRST_WAIT: Duration = Duration::from_secs(1);

impl Transfer {
    /// Answers a request with the file's first datagrams. `now` is zero unless the request waited somewhere.
    pub fn start(request: &Request, bytes: Arc<[u8]>, now: Duration) -> (Self, Step) {
        let options = request.options;
        let offer = options.acknowledge(bytes.len());
        let mut transfer = Self {
            bytes,
            block_octets: options.block_octets.unwrap_or(DEFAULT_BLOCK_OCTETS).into(),
            window_blocks: options.window_blocks.unwrap_or(1).into(),
            timeout: options.timeout,
            offer,
            acknowledged: 0,
            sent: 0,
            silences: 0,
            wake_at: now,
        };
        let step = transfer.send(now);
        (transfer, step)
    }

    /// A datagram from the client's own address and port. Anything that is no proper answer leaves the timer alone.
    pub fn on_datagram(&mut self, datagram: &[u8], now: Duration) -> Step {
        match (word(datagram, 0), word(datagram, 2)) {
            (Some(ERROR), _) => Step { send: Vec::new(), outcome: Outcome::Refused },
            (Some(ACK), Some(0)) if self.offer.is_some() => {
                self.offer = None;
                self.progress(now)
            }
            (Some(ACK), Some(block)) if self.offer.is_none() => self.on_acknowledgement(block, now),
            _ => self.wait(),
        }
    }

    /// Nothing was heard until `wake_at`.
    pub fn on_timer(&mut self, now: Duration) -> Step {
        if now < self.wake_at {
            return self.wait();
        }
        if self.silences == MOST_RETRANSMISSIONS {
            return Step { send: Vec::new(), outcome: Outcome::Silent };
        }
        self.silences += 1;
        self.send(now)
    }

    fn on_acknowledgement(&mut self, block: u16, now: Duration) -> Step {
        // Block numbers wrap at 65536; the window is far smaller, so the distance is unambiguous.
        let ahead = usize::from(block.wrapping_sub(self.acknowledged as u16));
        if ahead == 0 || ahead > self.sent - self.acknowledged {
            return self.wait();
        }
        self.acknowledged += ahead;
        if self.acknowledged == self.blocks() {
            return Step { send: Vec::new(), outcome: Outcome::Done };
        }
        self.progress(now)
    }

    fn progress(&mut self, now: Duration) -> Step {
        self.silences = 0;
        self.send(now)
    }

    /// Sends the offer, or the window behind the last acknowledged block.
    fn send(&mut self, now: Duration) -> Step {
        self.wake_at = now + self.timeout.unwrap_or(FIRST_WAIT * 2u32.pow(self.silences));
        let send = match &self.offer {
            Some(offer) => vec![offer.clone()],
            None => {
                let until = (self.acknowledged + self.window_blocks).min(self.blocks());
                self.sent = self.sent.max(until);
                (self.acknowledged..until).map(|index| self.block(index)).collect()
            }
        };
        Step { send, outcome: Outcome::Waiting { wake_at: self.wake_at } }
    }

    fn wait(&self) -> Step {
        Step { send: Vec::new(), outcome: Outcome::Waiting { wake_at: self.wake_at } }
    }

    /// The last block is shorter than a full one, empty when the size is an exact multiple.
    fn blocks(&self) -> usize {
        self.bytes.len() / self.block_octets + 1
    }

    fn block(&self, index: usize) -> Vec<u8> {
        let start = index * self.block_octets;
        let end = (start + self.block_octets).min(self.bytes.len());
        let mut out = Vec::with_capacity(4 + end - start);
        out.extend(DATA.to_be_bytes());
        out.extend(((index + 1) as u16).to_be_bytes());
        out.extend_from_slice(&self.bytes[start..end]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tftp::Options;

    const AT_START: Duration = Duration::ZERO;

    fn started(size: usize, options: Options) -> (Transfer, Step) {
        let bytes: Vec<u8> = (0..size).map(|index| index as u8).collect();
        Transfer::start(&Request { name: "a".to_owned(), options }, bytes.into(), AT_START)
    }

    fn ack(block: u16) -> Vec<u8> {
        [ACK.to_be_bytes(), block.to_be_bytes()].concat()
    }

    /// A client that acknowledges everything; gives the bytes it got.
    fn fetched(size: usize, options: Options) -> Vec<u8> {
        let (mut transfer, mut step) = started(size, options);
        let mut got = Vec::new();
        while step.outcome != Outcome::Done {
            let last = step.send.last().expect("there is always something to send");
            let block = if word(last, 0) == Some(DATA) { word(last, 2).expect("a block") } else { 0 };
            for datagram in step.send.iter().filter(|datagram| word(datagram, 0) == Some(DATA)) {
                got.extend_from_slice(&datagram[4..]);
            }
            step = transfer.on_datagram(&ack(block), AT_START);
        }
        got
    }

    #[test]
    fn every_size_arrives_whole_under_every_option() {
        let small = Options { block_octets: Some(8), size: true, ..Options::default() };
        let windowed = Options { block_octets: Some(8), window_blocks: Some(4), ..Options::default() };
        for size in [0, 1, 7, 8, 9, 511, 512, 513, 1024] {
            let expected: Vec<u8> = (0..size).map(|index| index as u8).collect();
            for options in [Options::default(), small, windowed] {
                assert_eq!(fetched(size, options), expected, "{size} {options:?}");
            }
        }
        assert_eq!(fetched(70_000 * 8, small).len(), 70_000 * 8);
    }

    #[test]
    fn an_exact_multiple_ends_with_an_empty_block() {
        let (mut transfer, step) = started(512, Options::default());
        assert_eq!(step.send[0].len(), 516);
        assert_eq!(transfer.on_datagram(&ack(1), AT_START).send, vec![vec![0, 3, 0, 2]]);
        assert_eq!(transfer.on_datagram(&ack(2), AT_START).outcome, Outcome::Done);
    }

    #[test]
    fn a_duplicate_acknowledgement_sends_nothing() {
        let (mut transfer, _) = started(2000, Options::default());
        assert_eq!(transfer.on_datagram(&ack(1), AT_START).send.len(), 1);
        assert_eq!(transfer.on_datagram(&ack(1), AT_START).send.len(), 0);
        assert_eq!(transfer.on_datagram(&ack(9), AT_START).send.len(), 0);
    }

    #[test]
    fn silence_is_met_with_doubling_waits_and_then_given_up() {
        let (mut transfer, mut step) = started(10, Options::default());
        let mut sent_at = Vec::new();
        while let Outcome::Waiting { wake_at } = step.outcome {
            step = transfer.on_timer(wake_at);
            sent_at.push(wake_at.as_secs());
        }
        assert_eq!(sent_at, [1, 3, 7, 15, 31, 63]);
        assert_eq!(step, Step { send: Vec::new(), outcome: Outcome::Silent });
    }

    #[test]
    fn a_negotiated_timeout_is_the_wait() {
        let options = Options { timeout: Some(Duration::from_secs(7)), ..Options::default() };
        let (mut transfer, step) = started(10, options);
        assert_eq!(step.outcome, Outcome::Waiting { wake_at: Duration::from_secs(7) });
        assert_eq!(transfer.on_timer(Duration::from_secs(3)).send.len(), 0);
        assert_eq!(transfer.on_timer(Duration::from_secs(7)).send.len(), 1);
    }

    #[test]
    fn a_lost_block_of_a_window_is_sent_again_from_the_gap() {
        let options = Options { block_octets: Some(8), window_blocks: Some(4), ..Options::default() };
        let (mut transfer, _) = started(100, options);
        let first = transfer.on_datagram(&ack(0), AT_START);
        assert_eq!(first.send.len(), 4);
        let resumed = transfer.on_datagram(&ack(2), AT_START);
        let blocks: Vec<_> = resumed.send.iter().filter_map(|datagram| word(datagram, 2)).collect();
        assert_eq!(blocks, [3, 4, 5, 6]);
    }

    #[test]
    fn an_error_ends_it() {
        let (mut transfer, _) = started(10, Options::default());
        assert_eq!(transfer.on_datagram(&[0, 5, 0, 8, 0], AT_START).outcome, Outcome::Refused);
    }
}
