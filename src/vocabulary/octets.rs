//! Integers and octet strings packed one after another: what the binary columns and files of this program are made of.
//!
//! **Shape**: unsigned integers are LEB128, signed ones zigzag LEB128, a string is its length and its octets.

/// The octets end too early, or hold what no writer of ours puts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the octets cannot be read")]
pub struct Unreadable;

pub fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

pub fn put_octets(out: &mut Vec<u8>, octets: &[u8]) {
    put_unsigned(out, octets.len() as u64);
    out.extend_from_slice(octets);
}

/// What is left to read.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn octet(&mut self) -> Result<u8, Unreadable> {
        let (first, rest) = self.0.split_first().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn unsigned(&mut self) -> Result<u64, Unreadable> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let octet = self.octet()?;
            let part = u64::from(octet & 0x7f);
            if shift == 63 && part > 1 {
                return Err(Unreadable);
            }
            value |= part << shift;
            if octet & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    pub fn signed(&mut self) -> Result<i64, Unreadable> {
        let value = self.unsigned()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// The number of items that follow: each takes at least one octet, which bounds the count by the input.
    pub fn count(&mut self) -> Result<usize, Unreadable> {
        usize::try_from(self.unsigned()?).ok().filter(|count| *count <= self.0.len()).ok_or(Unreadable)
    }

    pub fn octets(&mut self) -> Result<&'a [u8], Unreadable> {
        let length = self.count()?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_put_is_read(numbers: Vec<(u64, i64)>, text: Vec<u8>) {
            let mut out = Vec::new();
            for (unsigned, signed) in &numbers {
                put_unsigned(&mut out, *unsigned);
                put_signed(&mut out, *signed);
            }
            put_octets(&mut out, &text);
            let mut input = Input(&out);
            for (unsigned, signed) in numbers {
                prop_assert_eq!(input.unsigned(), Ok(unsigned));
                prop_assert_eq!(input.signed(), Ok(signed));
            }
            prop_assert_eq!(input.octets(), Ok(&text[..]));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn any_octets_are_read_or_refused(octets: Vec<u8>) {
            let mut input = Input(&octets);
            while input.octets().is_ok() && !input.is_empty() {}
            let mut input = Input(&octets);
            while input.signed().is_ok() {}
        }
    }
}
