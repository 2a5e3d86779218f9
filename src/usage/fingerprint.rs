//! The fingerprint of a set of ledger entries: a sum, so that it can be kept while entries are written and is the same
//! in whatever order they are read.
//!
//! Each entry's SHA-256 is cut into eight numbers of 32 bits, which are added up lane by lane; the digest is the SHA-256
//! of the count and the eight sums. Whoever changes, removes or adds an entry changes it.

use sha2::{Digest, Sha256};

use crate::vocabulary::hex;

/// The sums of the entries' hashes, lane by lane. 2^31 entries fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint(pub [i64; 8]);

impl Fingerprint {
    /// Of one entry: its sequence, start and end in microseconds, octets up and down, seconds, sessions.
    pub fn of(numbers: [i64; 7]) -> Self {
        let mut hash = Sha256::new();
        for number in numbers {
            hash.update(number.to_be_bytes());
        }
        let digest = hash.finalize();
        let mut lanes = [0i64; 8];
        for (lane, bytes) in lanes.iter_mut().zip(digest.chunks_exact(4)) {
            *lane = i64::from(u32::from_be_bytes(bytes.try_into().expect("four octets")));
        }
        Self(lanes)
    }

    /// Takes in the entries of another set.
    pub fn add(&mut self, other: Self) {
        for (lane, more) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_add(more);
        }
    }

    /// What stands on a line that counts `records` entries.
    pub fn digest(&self, records: u64) -> String {
        let mut hash = Sha256::new();
        hash.update(records.to_be_bytes());
        for lane in self.0 {
            hash.update(lane.to_be_bytes());
        }
        hex(&hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_changes_nothing_and_every_number_counts() {
        let entries = [[1, 10, 20, 5, 6, 7, 1], [2, 20, 30, 0, 1, 2, 0], [3, 30, 40, 9, 9, 9, 1]];
        let digest = |entries: &[[i64; 7]]| {
            let mut sum = Fingerprint::default();
            entries.iter().for_each(|entry| sum.add(Fingerprint::of(*entry)));
            sum.digest(entries.len() as u64)
        };
        let whole = digest(&entries);
        assert_eq!(digest(&[entries[2], entries[0], entries[1]]), whole);
        assert_ne!(digest(&entries[..2]), whole);
        for place in 0..7 {
            let mut other = entries;
            other[1][place] += 1;
            assert_ne!(digest(&other), whole, "number {place}");
        }
    }
}
