//! The place of a TLV in a file, in the words of a message: `24[2].8 (UsServiceFlow.MaxRateSustained)`.
//!
//! A path only borrows its parents and becomes text when a fault is told: most TLVs have none.

use std::fmt;

/// Types from the top level down, each with its occurrence where it is not the first of its type.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path<'p> {
    /// `None`: the file itself.
    parent: Option<&'p Path<'p>>,
    code: u8,
    nth: usize,
    name: Option<&'p str>,
}

impl<'p> Path<'p> {
    /// The place of the `nth` (from 1) TLV of a type below this one.
    pub fn child(&'p self, code: u8, nth: usize, name: Option<&'p str>) -> Path<'p> {
        Self { parent: Some(self), code, nth, name }
    }

    fn codes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.open(f, Self::codes)? {
            write!(f, "{}", self.code)?;
            if self.nth > 1 {
                write!(f, "[{}]", self.nth)?;
            }
        }
        Ok(())
    }

    fn names(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.open(f, Self::names)?, self.name) {
            (false, _) => Ok(()),
            (true, Some(name)) => f.write_str(name),
            (true, None) => write!(f, "Tlv{}", self.code),
        }
    }

    /// Writes the parents and a point behind them; tells whether there is anything of its own to write.
    fn open(
        &self,
        f: &mut fmt::Formatter<'_>,
        write: impl Fn(&Path<'p>, &mut fmt::Formatter<'_>) -> fmt::Result,
    ) -> Result<bool, fmt::Error> {
        let Some(parent) = self.parent else { return Ok(false) };
        write(parent, f)?;
        if parent.parent.is_some() {
            f.write_str(".")?;
        }
        Ok(true)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.codes(f)?;
        f.write_str(" (")?;
        self.names(f)?;
        f.write_str(")")
    }
}

/// Counts the occurrences of each type among siblings.
#[derive(Debug, Default)]
pub struct Occurrences {
    /// The first types that were met, in place: most groups hold no more.
    first: [(u8, usize); IN_PLACE],
    met: usize,
    more: Vec<(u8, usize)>,
}

const IN_PLACE: usize = 8;

impl Occurrences {
    pub fn next(&mut self, code: u8) -> usize {
        let in_place = self.first[..self.met].iter_mut();
        if let Some((_, count)) = in_place.chain(&mut self.more).find(|(of, _)| *of == code) {
            *count += 1;
            return *count;
        }
        match self.first.get_mut(self.met) {
            Some(room) => {
                *room = (code, 1);
                self.met += 1;
            }
            None => self.more.push((code, 1)),
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_counted_by_itself_however_many_there_are() {
        let mut occurrences = Occurrences::default();
        for round in 1..=3 {
            for code in 0..=u8::MAX {
                assert_eq!(occurrences.next(code), round, "type {code}");
            }
        }
    }
}
