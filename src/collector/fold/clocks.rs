//! The clocks of all NAS: how far each is off, since when, and what the newest reports say of it.
//!
//! In: records in the order they are folded. Out: records dated by the offset that was in force when they arrived, and
//! new offsets, each from the next arrival on. What is folded again is dated as it was: only what is new is observed.

use std::collections::HashMap;

use crate::store::clock::{self, ClockOffset};
use crate::store::{StoreError, Tx, exceptions};
use crate::usage::{Record, Skew};
use crate::vocabulary::{Timestamp, to_micros};

/// What is known of the clocks; true as long as nobody else folds.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    known: HashMap<String, Known>,
    loaded: bool,
    /// Appended since the last `save`.
    fresh: Vec<ClockOffset>,
}

#[derive(Debug, Default)]
struct Known {
    /// The oldest first.
    offsets: Vec<ClockOffset>,
    skew: Skew,
    /// Newest arrival of a record that was observed.
    newest: i64,
}

impl Clocks {
    /// Reads the offsets, unless they are known.
    pub async fn load(&mut self, tx: &mut Tx) -> Result<(), StoreError> {
        if self.loaded {
            return Ok(());
        }
        for offset in clock::all(tx).await? {
            self.known.entry(offset.nas.clone()).or_default().offsets.push(offset);
        }
        self.loaded = true;
        Ok(())
    }

    /// Forgets everything: somebody else may have appended.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Dates a record by the offset that was in force when it arrived.
    pub fn correct(&self, record: &mut Record) {
        let Some(known) = self.known.get(&record.nas) else { return };
        let offset = clock::in_force(&known.offsets, to_micros(record.arrived_at));
        if offset != 0 {
            record.correct_clock(offset);
        }
    }

    /// Learns from a record that is folded for the first time.
    pub fn observe(&mut self, record: &Record) {
        let Some(sample) = record.clock_sample() else { return };
        if !self.known.contains_key(&record.nas) {
            self.known.insert(record.nas.clone(), Known::default());
        }
        let known = self.known.get_mut(&record.nas).expect("just met");
        let arrived_at = to_micros(record.arrived_at);
        known.newest = known.newest.max(arrived_at);
        let last = known.offsets.last();
        if last.is_some_and(|last| arrived_at < last.from_at) {
            // It was dated by an older offset, and says nothing of the one since.
            return;
        }
        known.skew.observe(record.arrived_at, sample);
        if let Some(offset_s) = known.skew.change(last.map_or(0, |last| last.offset_s)) {
            let samples = i64::try_from(known.skew.samples()).expect("few");
            let offset = ClockOffset { nas: record.nas.clone(), from_at: known.newest + 1, offset_s, samples };
            known.offsets.push(offset.clone());
            self.fresh.push(offset);
        }
    }

    /// Appends what is new, and tells people of it.
    pub async fn save(&mut self, tx: &mut Tx, now: Timestamp) -> Result<(), StoreError> {
        for offset in self.fresh.drain(..) {
            clock::append(tx, &offset).await?;
            let ClockOffset { nas, offset_s, .. } = &offset;
            if *offset_s == 0 {
                tracing::info!(nas, "The NAS's clock is right again; its event times are believed.");
                exceptions::release_subject(tx, "nas_clock", nas, "fold", now).await?;
                continue;
            }
            let side = if *offset_s > 0 { "behind" } else { "ahead" };
            let seconds = offset_s.unsigned_abs();
            tracing::warn!(
                nas,
                seconds,
                "The NAS's clock is {side}; from now on its event times are corrected by that."
            );
            let detail = serde_json::json!({ "nas": nas, "offset_seconds": offset_s });
            exceptions::open(tx, None, "nas_clock", nas, &detail.to_string(), now).await?;
        }
        Ok(())
    }
}
