//! A session's state as the octets of one database column, small because there are many, versioned because it stays.
//!
//! **Shape** (integers as in [`crate::vocabulary::octets`]): version (one octet), flags, then integers, instants relative
//! to the start: `started_at last_at max_rate marks corrected_by own-clock [close] [base] tail-count tail… totals pending-count pending…`.

use super::amount::{Amount, Buckets};
use super::report::{Cursor, Reading, Report, ReportKind};
use super::state::{CloseReason, OwnClock, SessionState};
use crate::vocabulary::octets::{Input, Unreadable, put_signed, put_unsigned};

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
        put_signed(&mut out, self.started_at);
        put_signed(&mut out, self.last_at.wrapping_sub(self.started_at));
        put_unsigned(&mut out, self.reading.max_bits_per_second);
        put_unsigned(&mut out, u64::from(self.base_marks));
        put_signed(&mut out, self.corrected_by);
        match self.own_clock {
            None => out.push(0),
            Some(OwnClock { started_at, last_at }) if (started_at, last_at) == (self.started_at, self.last_at) => {
                out.push(1);
            }
            Some(OwnClock { started_at, last_at }) => {
                out.push(2);
                put_signed(&mut out, started_at.wrapping_sub(self.started_at));
                put_signed(&mut out, last_at.wrapping_sub(self.started_at));
            }
        }
        if let Some((_, at)) = self.closed {
            put_signed(&mut out, at.wrapping_sub(self.started_at));
        }
        if let Some(base) = self.base {
            out.push(u8::from(base.stopped));
            put_signed(&mut out, base.event_at.wrapping_sub(self.started_at));
            put_signed(&mut out, base.seconds);
            put_signed(&mut out, base.in_octets);
            put_signed(&mut out, base.out_octets);
        }
        put_unsigned(&mut out, self.tail.len() as u64);
        for report in &self.tail {
            put_report(&mut out, report, self.started_at);
        }
        put_amount(&mut out, self.totals);
        put_unsigned(&mut out, self.pending.len() as u64);
        for (start, amount) in self.pending.iter() {
            put_signed(&mut out, start.wrapping_sub(self.started_at));
            put_amount(&mut out, amount);
        }
        out
    }

    /// **Errors**: the octets are cut short, too long, of another version, or impossible: the row is corrupt.
    pub fn decode(octets: &[u8]) -> Result<Self, Unreadable> {
        let mut input = Input(octets);
        if input.octet()? != VERSION {
            return Err(Unreadable);
        }
        let flags = input.octet()?;
        let started_at = input.signed()?;
        let last_at = started_at.wrapping_add(input.signed()?);
        let max_bits_per_second = input.unsigned()?;
        let base_marks = u16::try_from(input.unsigned()?).map_err(|_| Unreadable)?;
        let corrected_by = input.signed()?;
        let own_clock = match input.octet()? {
            0 => None,
            1 => Some(OwnClock { started_at, last_at }),
            2 => {
                let mut instant = || input.signed().map(|since| started_at.wrapping_add(since));
                Some(OwnClock { started_at: instant()?, last_at: instant()? })
            }
            _ => return Err(Unreadable),
        };
        let closed = match flags >> 4 & 3 {
            0 => None,
            1 => Some((CloseReason::Reboot, started_at.wrapping_add(input.signed()?))),
            2 => Some((CloseReason::Superseded, started_at.wrapping_add(input.signed()?))),
            _ => return Err(Unreadable),
        };
        let base = if flags & 8 == 0 { None } else { Some(cursor(&mut input, started_at)?) };
        let mut tail = Vec::new();
        for _ in 0..input.count()? {
            tail.push(report(&mut input, started_at)?);
        }
        let totals = amount(&mut input)?;
        let mut pending = Buckets::default();
        for _ in 0..input.count()? {
            let start = started_at.wrapping_add(input.signed()?);
            let amount = amount(&mut input)?;
            pending.add(start, amount).map_err(|_| Unreadable)?;
        }
        if !input.0.is_empty() {
            return Err(Unreadable);
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
            own_clock,
            base,
            tail,
            totals,
            pending,
            closed,
        })
    }
}

fn put_amount(out: &mut Vec<u8>, amount: Amount) {
    for value in [amount.in_octets, amount.out_octets, amount.seconds, amount.sessions] {
        put_signed(out, value);
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
    put_signed(out, report.event_at.wrapping_sub(started_at));
    fields.into_iter().flatten().for_each(|value| put_signed(out, value));
}

fn amount(input: &mut Input<'_>) -> Result<Amount, Unreadable> {
    Ok(Amount {
        in_octets: input.signed()?,
        out_octets: input.signed()?,
        seconds: input.signed()?,
        sessions: input.signed()?,
    })
}

fn cursor(input: &mut Input<'_>, started_at: i64) -> Result<Cursor, Unreadable> {
    Ok(Cursor {
        stopped: input.octet()? != 0,
        event_at: started_at.wrapping_add(input.signed()?),
        seconds: input.signed()?,
        in_octets: input.signed()?,
        out_octets: input.signed()?,
    })
}

fn report(input: &mut Input<'_>, started_at: i64) -> Result<Report, Unreadable> {
    let head = input.octet()?;
    let kind = match head & 3 {
        0 => ReportKind::Start,
        1 => ReportKind::Interim,
        2 => ReportKind::Stop,
        _ => return Err(Unreadable),
    };
    let event_at = started_at.wrapping_add(input.signed()?);
    let mut field = |bit: u8| if head & bit == 0 { Ok(None) } else { input.signed().map(Some) };
    let (seconds, in_octets, out_octets) = (field(4)?, field(8)?, field(16)?);
    let (arrival_based, interval) = (head & 32 != 0, head & 64 != 0);
    let (corrected_by, told_at) = (0, None);
    Ok(Report { kind, event_at, seconds, in_octets, out_octets, arrival_based, interval, corrected_by, told_at })
}

/// First octet of every state this program writes.
const VERSION: u8 = 3;

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
