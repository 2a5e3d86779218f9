//! Lines of a file of any size, each in bounded memory.

use std::io::{self, BufRead};

/// Reads line after line. Of a line longer than its bound the first octets are given and the rest is passed over.
pub struct Lines<R> {
    reader: R,
    longest: usize,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Lines of up to `longest` octets are given whole, longer ones as their first `longest` + 1.
    pub fn new(reader: R, longest: usize) -> Self {
        Self { reader, longest, line: Vec::new() }
    }

    /// The next line without its line feed; `None` at the end.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let mut began = false;
        loop {
            let available = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if available.is_empty() {
                return Ok(began.then_some(&self.line[..]));
            }
            began = true;
            let end = available.iter().position(|octet| *octet == b'\n');
            let piece = &available[..end.unwrap_or(available.len())];
            let room = (self.longest + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            let used = end.map_or(available.len(), |end| end + 1);
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some(&self.line[..]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_and_the_next_line_is_whole() {
        let text: &[u8] = b"one\n\n0123456789abcdef\nlast";
        let mut lines = Lines::new(io::BufReader::with_capacity(3, text), 8);
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().expect("reads") {
            found.push(String::from_utf8_lossy(line).into_owned());
        }
        assert_eq!(found, ["one", "", "012345678", "last"]);
    }
}
