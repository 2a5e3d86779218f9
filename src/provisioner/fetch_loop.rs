//! Modems that fetch their file again and again within minutes: what a CMTS makes them do that has another shared secret.
//!
//! Comes in: complete fetches of modems. Goes out: how many of them belong to one loop. While a secret is rotated, every
//! second file of a loop is signed with the one before: whichever the CMTS has, the modem comes up.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::SignedDuration;

use crate::vocabulary::{MacAddress, Timestamp};

/// Fetches this close together belong to one loop: a modem that is refused ranges and asks again within two minutes.
const TOGETHER: SignedDuration = SignedDuration::from_mins(5);
/// Fetches with the current secret before the previous one has its turn: a modem may lose power while it boots.
const PATIENCE: u32 = 2;
/// Modems remembered; each is some 40 octets.
const MOST: usize = 200_000;

/// What every modem fetched lately.
#[derive(Debug, Default)]
pub struct FetchLoops(Mutex<HashMap<MacAddress, (Timestamp, u32)>>);

impl FetchLoops {
    /// Notes a complete fetch.
    pub fn note(&self, mac: MacAddress, at: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, (last, _)| is_together(*last, at));
            if known.len() >= MOST {
                known.clear();
            }
        }
        let entry = known.entry(mac).or_insert((at, 0));
        *entry = (at, if is_together(entry.0, at) { entry.1.saturating_add(1) } else { 1 });
    }

    /// Whether the file a modem asks for now is the previous secret's turn; then how often it fetched in this loop.
    pub fn turn_of_previous(&self, mac: MacAddress, now: Timestamp) -> Option<u32> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, count) = known.get(&mac).copied()?;
        (is_together(last, now) && count >= PATIENCE && count % 2 == 0).then_some(count)
    }
}

fn is_together(before: Timestamp, after: Timestamp) -> bool {
    after.duration_since(before) <= TOGETHER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_secret_has_every_second_turn_of_a_loop_and_none_after_it() {
        let loops = FetchLoops::default();
        let mac: MacAddress = "00:11:22:33:44:55".parse().expect("a MAC");
        let at = |second| Timestamp::from_second(second).expect("an instant");
        let mut turns = Vec::new();
        for second in [0, 60, 120, 180, 240] {
            turns.push(loops.turn_of_previous(mac, at(second)));
            loops.note(mac, at(second));
        }
        assert_eq!(turns, [None, None, Some(2), None, Some(4)]);
        assert_eq!(loops.turn_of_previous(mac, at(1000)), None, "a boot of another day begins anew");
        loops.note(mac, at(1000));
        loops.note(mac, at(1010));
        assert_eq!(loops.turn_of_previous(mac, at(1020)), Some(2));
        let other = "00:11:22:33:44:66".parse().expect("a MAC");
        assert_eq!(loops.turn_of_previous(other, at(1020)), None);
    }
}
