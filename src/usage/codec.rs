//! A session's state as the octets of one database column, small because there are many, versioned because it stays.
//!
//! **Shape**: version (one octet), flags, then integers as zigzag LEB128, instants relative to the start:
//! `started_at last_at max_rate marks corrected_by [close] [base] tail-count tail… totals pending-count pending…`.

use super::amount::{Amount, Buckets};
use super::report::{Cursor, Reading, Report, ReportKind};
use super::state::{CloseReason, SessionState};

/// The octets are no state this program wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session's state cannot be read")]
pub struct DecodeError;

impl SessionState {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let flags = u8::from(self.has_start)
            | u8::from(self.reading.gigawords) << 1
            | u8::from(self.reading.by_seconds) << 2
            | u8::from(self.base.is_some()) << 3
            | match self.closed {
                None => 0,
                Some((CloseReason::Reboot, _)) => 1 << 4,
                Some((CloseReason::Superseded, _)) => 2 << 4,
            }
            | u8::from(self.reading.informative) << 6
            | u8::from(self.reading.further_link) << 7;
        out.push(flags);
        put(&mut out, self.started_at);
        put(&mut out, self.last_at.wrapping_sub(self.started_at));
        put_unsigned(&mut out, self.reading.max_bits_per_second);
        put_unsigned(&mut out, u64::from(self.base_marks));
        put(&mut out, self.corrected_by);
        if let Some((_, at)) = self.closed {
            put(&mut out, at.wrapping_sub(self.started_at));
        }
        if let Some(base) = self.base {
            out.push(u8::from(base.stopped));
            put(&mut out, base.event_at.wrapping_sub(self.started_at));
            put(&mut out, base.seconds);
            put(&mut out, base.in_octets);
            put(&mut out, base.out_octets);
        }
        put_unsigned(&mut out, self.tail.len() as u64);
        for report in &self.tail {
            put_report(&mut out, report, self.started_at);
        }
        put_amount(&mut out, self.totals);
        put_unsigned(&mut out, self.pending.len() as u64);
        for (start, amount) in self.pending.iter() {
            put(&mut out, start.wrapping_sub(self.started_at));
            put_amount(&mut out, amount);
        }
        out
    }

    /// **Errors**: the octets are cut short, too long, of another version, or impossible: the row is corrupt.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Input(octets);
        if input.octet()? != VERSION {
            return Err(DecodeError);
        }
        let flags = input.octet()?;
        let started_at = input.signed()?;
        let last_at = started_at.wrapping_add(input.signed()?);
        let max_bits_per_second = input.unsigned()?;
        let base_marks = u16::try_from(input.unsigned()?).map_err(|_| DecodeError)?;
        let corrected_by = input.signed()?;
        let closed = match flags >> 4 & 3 {
            0 => None,
            1 => Some((CloseReason::Reboot, started_at.wrapping_add(input.signed()?))),
            2 => Some((CloseReason::Superseded, started_at.wrapping_add(input.signed()?))),
            _ => return Err(DecodeError),
        };
        let base = if flags & 8 == 0 { None } else { Some(input.cursor(started_at)?) };
        let mut tail = Vec::new();
        for _ in 0..input.count()? {
            tail.push(input.report(started_at)?);
        }
        let totals = input.amount()?;
        let mut pending = Buckets::default();
        for _ in 0..input.count()? {
            let start = started_at.wrapping_add(input.signed()?);
            let amount = input.amount()?;
            pending.add(start, amount).map_err(|_| DecodeError)?;
        }
        if !input.0.is_empty() {
            return Err(DecodeError);
        }
        let reading = Reading {
            gigawords: flags & 2 != 0,
            max_bits_per_second,
            by_seconds: flags & 4 != 0,
            informative: flags & 64 != 0,
            further_link: flags & 128 != 0,
        };
        let has_start = flags & 1 != 0;
        Ok(Self {
            started_at,
            has_start,
            last_at,
            reading,
            base_marks,
            corrected_by,
            base,
            tail,
            totals,
            pending,
            closed,
        })
    }
}

fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn put_amount(out: &mut Vec<u8>, amount: Amount) {
    for value in [amount.in_octets, amount.out_octets, amount.seconds, amount.sessions] {
        put(out, value);
    }
}

fn put_report(out: &mut Vec<u8>, report: &Report, started_at: i64) {
    let kind = match report.kind {
        ReportKind::Start => 0,
        ReportKind::Interim => 1,
        ReportKind::Stop => 2,
    };
    let fields = [report.seconds, report.in_octets, report.out_octets];
    let present = fields.iter().enumerate().fold(0, |bits, (at, field)| bits | u8::from(field.is_some()) << at);
    out.push(kind | present << 2 | u8::from(report.arrival_based) << 5 | u8::from(report.interval) << 6);
    put(out, report.event_at.wrapping_sub(started_at));
    fields.into_iter().flatten().for_each(|value| put(out, value));
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn octet(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.0.split_first().ok_or(DecodeError)?;
        self.0 = rest;
        Ok(*first)
    }

    fn unsigned(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let octet = self.octet()?;
            let part = u64::from(octet & 0x7f);
            if shift == 63 && part > 1 {
                return Err(DecodeError);
            }
            value |= part << shift;
            if octet & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError)
    }

    fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.unsigned()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    fn count(&mut self) -> Result<usize, DecodeError> {
        // Every item takes at least one octet, which bounds the count by the input.
        usize::try_from(self.unsigned()?).ok().filter(|count| *count <= self.0.len()).ok_or(DecodeError)
    }

    fn amount(&mut self) -> Result<Amount, DecodeError> {
        Ok(Amount {
            in_octets: self.signed()?,
            out_octets: self.signed()?,
            seconds: self.signed()?,
            sessions: self.signed()?,
        })
    }

    fn cursor(&mut self, started_at: i64) -> Result<Cursor, DecodeError> {
        Ok(Cursor {
            stopped: self.octet()? != 0,
            event_at: started_at.wrapping_add(self.signed()?),
            seconds: self.signed()?,
            in_octets: self.signed()?,
            out_octets: self.signed()?,
        })
    }

    fn report(&mut self, started_at: i64) -> Result<Report, DecodeError> {
        let head = self.octet()?;
        let kind = match head & 3 {
            0 => ReportKind::Start,
            1 => ReportKind::Interim,
            2 => ReportKind::Stop,
            _ => return Err(DecodeError),
        };
        let event_at = started_at.wrapping_add(self.signed()?);
        let mut field = |bit: u8| if head & bit == 0 { Ok(None) } else { self.signed().map(Some) };
        let (seconds, in_octets, out_octets) = (field(4)?, field(8)?, field(16)?);
        let (arrival_based, interval) = (head & 32 != 0, head & 64 != 0);
        Ok(Report { kind, event_at, seconds, in_octets, out_octets, arrival_based, interval, corrected_by: 0 })
    }
}

/// First octet of every state this program writes.
const VERSION: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_octets_decode_or_are_refused(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut octets = octets;
            if let Some(first) = octets.first_mut() { *first = VERSION; }
            if let Ok(state) = SessionState::decode(&octets) {
                prop_assert_eq!(SessionState::decode(&state.encode()), Ok(state));
            }
        }
    }
}
