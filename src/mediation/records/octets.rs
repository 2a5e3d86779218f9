//! Octets on their way in: where they stand, kept as long as a record lasts, and bounded whatever comes.

use std::io::{self, BufRead, Chain, Cursor, Read};

use super::{Encoding, RECORD_MAX};

/// Counts lines, keeps what one record was made of, and refuses to go on when that grows too long.
///
/// Between records keep `begin` called, so that nothing piles up.
#[derive(Debug)]
pub struct Octets<R> {
    /// What was looked at to know the encoding, and behind it the rest.
    input: Chain<Cursor<Vec<u8>>, R>,
    /// The line being read, from 1.
    pub line: u64,
    column: u64,
    kept: Vec<u8>,
    started: bool,
}

impl<R: BufRead> Octets<R> {
    pub fn new(input: R) -> Self {
        let input = Cursor::new(Vec::new()).chain(input);
        Self { input, line: 1, column: 1, kept: Vec::new(), started: false }
    }

    /// Looks at the beginning: a mark of UTF-8 is skipped, UTF-16 is told by name.
    pub fn start(&mut self) -> Result<(), String> {
        if self.started {
            return Ok(());
        }
        self.started = true;
        let (looked_at, input) = self.input.get_mut();
        // One by one: what is behind may come in pieces of any length.
        let mut first = Vec::with_capacity(MARK.len());
        while first.len() < MARK.len() {
            let Some(octet) = input.fill_buf().map_err(unreadable)?.first().copied() else { break };
            input.consume(1);
            first.push(octet);
        }
        match first[..] {
            [0xef, 0xbb, 0xbf] => first.clear(),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(UTF_16.to_owned()),
            [0, other, ..] | [other, 0, ..] if other != 0 => return Err(UTF_16.to_owned()),
            _ => {}
        }
        *looked_at = Cursor::new(first);
        Ok(())
    }

    /// From here on octets belong to a new record.
    pub fn begin(&mut self) {
        self.kept.clear();
    }

    /// The record's octets so far.
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    pub fn place(&self) -> String {
        format!("line {}, column {}", self.line, self.column)
    }

    pub fn peek(&mut self) -> Result<Option<u8>, String> {
        Ok(self.input.fill_buf().map_err(unreadable)?.first().copied())
    }

    /// Takes the octet that was peeked at.
    pub fn bump(&mut self) {
        let Ok([octet, ..]) = self.input.fill_buf() else { return };
        let octet = *octet;
        self.kept.push(octet);
        self.input.consume(1);
        self.count(octet);
    }

    fn count(&mut self, octet: u8) {
        if octet == b'\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
    }

    /// Takes octets while `more` says so, and adds them to `into` where given; stops at what it refuses or the end.
    pub fn take_while(&mut self, mut into: Option<&mut Vec<u8>>, more: impl Fn(u8) -> bool) -> Result<(), String> {
        loop {
            let ahead = self.input.fill_buf().map_err(unreadable)?;
            let length = ahead.iter().position(|octet| !more(*octet)).unwrap_or(ahead.len());
            if length == 0 {
                return Ok(());
            }
            let taken = &ahead[..length];
            if let Some(into) = &mut into {
                into.extend_from_slice(taken);
            }
            self.kept.extend_from_slice(taken);
            match taken.iter().rposition(|octet| *octet == b'\n') {
                None => self.column += length as u64,
                Some(last) => {
                    self.line += taken.iter().filter(|octet| **octet == b'\n').count() as u64;
                    self.column = (length - last) as u64;
                }
            }
            self.input.consume(length);
            self.bounded()?;
        }
    }

    pub fn bounded(&self) -> Result<(), String> {
        match self.kept.len() > RECORD_MAX {
            true => Err(format!("a record is longer than {} KiB", RECORD_MAX >> 10)),
            false => Ok(()),
        }
    }

    /// The next line without its end, added to `kept` with a line feed where `kept` holds something already.
    ///
    /// **Errors**: a line longer than a record may be is skipped to its end; an input that cannot be read.
    pub fn line(&mut self) -> Result<LineRead, String> {
        self.start()?;
        let before = self.kept.len();
        if before > 0 {
            self.kept.push(b'\n');
        }
        let begun = self.kept.len();
        let (mut any, mut too_long) = (false, false);
        loop {
            let ahead = self.input.fill_buf().map_err(unreadable)?;
            if ahead.is_empty() {
                if !any {
                    self.kept.truncate(before);
                    return Ok(LineRead::End);
                }
                break;
            }
            any = true;
            let end = ahead.iter().position(|octet| *octet == b'\n');
            let length = end.unwrap_or(ahead.len());
            too_long |= self.kept.len() + length > RECORD_MAX;
            if !too_long {
                self.kept.extend_from_slice(&ahead[..length]);
            }
            self.input.consume(length + usize::from(end.is_some()));
            if end.is_some() {
                break;
            }
        }
        self.line += 1;
        if too_long {
            return Ok(LineRead::TooLong);
        }
        if self.kept.len() > begun && self.kept.last() == Some(&b'\r') {
            self.kept.pop();
        }
        Ok(LineRead::Line(begun))
    }
}

/// What reading a line gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineRead {
    /// It stands in `kept` from this index on.
    Line(usize),
    TooLong,
    End,
}

/// Octets as text.
pub fn decode(octets: &[u8], encoding: Encoding) -> Result<String, String> {
    if octets.contains(&0) {
        return Err("holds a zero octet; is it UTF-16?".to_owned());
    }
    match encoding {
        Encoding::Utf8 => match std::str::from_utf8(octets) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => {
                let at = error.valid_up_to();
                let octet = octets.get(at).copied().unwrap_or_default();
                Err(format!("octet {} is {octet:#04x} and no UTF-8; [read] encoding names another one", at + 1))
            }
        },
        Encoding::Windows1252 => Ok(octets.iter().map(|octet| windows_1252(*octet)).collect()),
    }
}

fn windows_1252(octet: u8) -> char {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match octet {
        0x80..=0x9f => HIGH[usize::from(octet - 0x80)],
        other => char::from(other),
    }
}

/// For the XML reader, which asks for octets itself.
impl<R: BufRead> Read for Octets<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let ahead = self.fill_buf()?;
        let length = ahead.len().min(out.len());
        out[..length].copy_from_slice(&ahead[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Octets<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.bounded().map_err(io::Error::other)?;
        self.input.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        if let Ok(ahead) = self.input.fill_buf() {
            let taken = &ahead[..length.min(ahead.len())];
            self.kept.extend_from_slice(taken);
            self.line += taken.iter().filter(|octet| **octet == b'\n').count() as u64;
        }
        self.input.consume(length);
    }
}

fn unreadable(error: io::Error) -> String {
    format!("it cannot be read further: {error}")
}

/// The byte order mark in UTF-8.
const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
const UTF_16: &str = "it is UTF-16; have it written as UTF-8";
