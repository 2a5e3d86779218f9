//! RADIUS packets out of a stream: their Length field is the frame (RFC 6613 section 2.6.2), and a wrong one ends the
//! stream, for nobody can tell where the next packet begins.

use crate::radius::{Malformed, PACKET_MAX};

/// What has been received and not taken yet.
#[derive(Debug)]
pub struct Frames {
    room: Box<[u8; ROOM_OCTETS]>,
    begin: usize,
    end: usize,
}

impl Frames {
    pub fn new() -> Self {
        Self { room: Box::new([0; ROOM_OCTETS]), begin: 0, end: 0 }
    }

    /// The next whole packet, or `None` while more must be received.
    ///
    /// **Errors**: its Length is below 20 or above 4096: close the connection (RFC 6613 section 2.6.4).
    pub fn take(&mut self) -> Result<Option<&[u8]>, Malformed> {
        let held = &self.room[self.begin..self.end];
        let &[_, _, high, low, ..] = held else { return Ok(None) };
        let said = u16::from_be_bytes([high, low]);
        let length = usize::from(said);
        if !(HEADER_OCTETS..=PACKET_MAX).contains(&length) {
            return Err(Malformed::Length(said));
        }
        if held.len() < length {
            return Ok(None);
        }
        let packet = self.begin..self.begin + length;
        self.begin += length;
        Ok(Some(&self.room[packet]))
    }

    /// Whether a packet has begun and is not whole.
    pub fn is_partial(&self) -> bool {
        self.begin < self.end
    }

    /// Room to receive into; never empty after `take` gave `None`.
    pub fn space(&mut self) -> &mut [u8] {
        // What is held is less than one packet then, so it is little to move.
        self.room.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        &mut self.room[self.end..]
    }

    /// Says how many octets were received into `space`.
    pub fn received(&mut self, octets: usize) {
        self.end = (self.end + octets).min(ROOM_OCTETS);
    }
}

const HEADER_OCTETS: usize = 20;
/// Several usual packets, and always more than the longest one.
const ROOM_OCTETS: usize = 4 * PACKET_MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(length: usize, fill: u8) -> Vec<u8> {
        let [high, low] = u16::try_from(length).expect("short").to_be_bytes();
        let mut octets = vec![fill; length];
        octets[..4].copy_from_slice(&[4, fill, high, low]);
        octets
    }

    #[test]
    fn length_out_of_bounds_ends_the_stream() {
        for said in [0, 19, 4097, 65535] {
            let mut frames = Frames::new();
            let [high, low] = u16::to_be_bytes(said);
            frames.space()[..4].copy_from_slice(&[4, 1, high, low]);
            frames.received(4);
            assert_eq!(frames.take(), Err(Malformed::Length(said)));
        }
    }

    proptest! {
        #[test]
        fn packets_come_out_however_the_stream_was_cut(
            lengths in proptest::collection::vec(20usize..=PACKET_MAX, 0..12),
            cuts in proptest::collection::vec(1usize..5000, 1..40),
        ) {
            let sent: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(at, &length)| packet(length, at as u8)).collect();
            let stream = sent.concat();
            let (mut frames, mut at, mut taken) = (Frames::new(), 0, Vec::new());
            let mut cuts = cuts.into_iter().cycle();
            loop {
                while let Some(packet) = frames.take().expect("well formed") {
                    taken.push(packet.to_vec());
                }
                let space = frames.space();
                prop_assert!(!space.is_empty());
                let piece = cuts.next().expect("a cycle").min(space.len()).min(stream.len() - at);
                if piece == 0 {
                    break;
                }
                space[..piece].copy_from_slice(&stream[at..at + piece]);
                frames.received(piece);
                at += piece;
            }
            prop_assert_eq!(taken, sent);
            prop_assert!(!frames.is_partial());
        }
    }
}
