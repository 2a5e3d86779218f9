//! A guard before whoever reads rows of text: a row without an end is refused before it fills the memory. Octets in, the same
//! octets out.

use std::io::{Error, ErrorKind, Read, Result};

/// Lets rows through as long as none is longer than `ROW_MAX`; a line break between quotes does not end one.
pub struct Rows<R> {
    input: R,
    length: usize,
    quoted: bool,
    refused: bool,
}

/// A row of honest exports is far shorter.
pub const ROW_MAX: usize = 1 << 20;

impl<R> Rows<R> {
    pub fn new(input: R) -> Self {
        Self { input, length: 0, quoted: false, refused: false }
    }
}

impl<R: Read> Read for Rows<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        // Whoever reads on after the refusal finds the end.
        if self.refused {
            return Ok(0);
        }
        let count = self.input.read(buffer)?;
        for octet in &buffer[..count] {
            self.length += 1;
            match octet {
                b'"' => self.quoted = !self.quoted,
                b'\n' | b'\r' if !self.quoted => self.length = 0,
                _ => {}
            }
            if self.length > ROW_MAX {
                self.refused = true;
                let what = format!("a row is longer than {ROW_MAX} octets, or a quote in it never ends");
                return Err(Error::new(ErrorKind::InvalidData, what));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::repeat;

    use super::*;

    fn read(input: impl Read) -> Result<usize> {
        let mut all = Vec::new();
        Rows::new(input).read_to_end(&mut all)
    }

    #[test]
    fn long_rows_are_refused_and_many_rows_are_not() {
        assert!(read(repeat(b'a').take(ROW_MAX as u64)).is_ok());
        assert!(read(repeat(b'a').take(ROW_MAX as u64 + 1)).is_err());
        assert_eq!(read("a,b\n".repeat(1_000_000).as_bytes()).ok(), Some(4_000_000));
        assert!(read("\"a\n".as_bytes().chain("b\n".repeat(1_000_000).as_bytes())).is_err(), "the quote never ends");
    }
}
