//! A snapshot that needs no profile: account documents, one a line, and perhaps a last line that says how many they are.
//!
//! ```text
//! {"id": "100234", "status": "active", …}
//! {"id": "100235", "status": "active", …}
//! {"trailer": {"records": 2}}
//! ```
//! In: octets. Out: the lines of records, and whether the whole is proven complete. Holds one line in memory.

use std::borrow::Cow;
use std::io::{BufRead, Read};

use serde::Deserialize;

use crate::mediation::{Completeness, RECORD_MAX};

/// A reader of such lines.
pub struct Documents<R> {
    input: R,
    line: u64,
    records: u64,
    trailer: Option<u64>,
    broken: Option<String>,
    ended: bool,
}

/// One line that is a record, or that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// From 1.
    pub line: u64,
    pub octets: Vec<u8>,
    /// Why it cannot be read, whatever stands in it.
    pub refused: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trailer {
    trailer: Told,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    records: u64,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
}

impl<R: BufRead> Documents<R> {
    pub fn new(input: R) -> Self {
        Self { input, line: 0, records: 0, trailer: None, broken: None, ended: false }
    }

    /// The next record; blank lines are passed over. `None`: the end.
    pub fn next_document(&mut self) -> Option<Document> {
        while !self.ended {
            let mut octets = Vec::new();
            let limit = RECORD_MAX as u64 + 1;
            if let Err(error) = self.input.by_ref().take(limit).read_until(b'\n', &mut octets) {
                self.broken = Some(format!("it ends early: {error}"));
                self.ended = true;
                return None;
            }
            if octets.is_empty() {
                self.ended = true;
                return None;
            }
            self.line += 1;
            let too_long = octets.len() > RECORD_MAX && octets.last() != Some(&b'\n');
            if too_long && let Err(error) = self.pass_line() {
                self.broken = Some(format!("it ends early: {error}"));
                self.ended = true;
            }
            if self.line == 1 && octets.starts_with(BYTE_ORDER_MARK) {
                octets.drain(..BYTE_ORDER_MARK.len());
            }
            let text = octets.trim_ascii();
            if text.is_empty() {
                continue;
            }
            let short = text.len() <= TRAILER_MAX && text.starts_with(b"{");
            if let Some(Trailer { trailer }) = short.then(|| serde_json::from_slice(text).ok()).flatten() {
                if self.trailer.replace(trailer.records).is_some() {
                    self.broken = Some(format!("line {} is a second trailer", self.line));
                }
                continue;
            }
            if self.trailer.is_some() {
                self.broken = Some(format!("line {} stands behind the trailer", self.line));
            }
            self.records += 1;
            let refused = too_long.then(|| format!("is longer than {RECORD_MAX} octets"));
            return Some(Document { line: self.line, octets: text.to_vec(), refused });
        }
        None
    }

    /// Meaningful at the end.
    pub fn completeness(&self) -> Completeness {
        match (&self.broken, self.trailer) {
            (Some(why), _) => Completeness::Refuted(why.clone()),
            (None, _) if !self.ended => Completeness::Refuted("not all of it was read".to_owned()),
            (None, None) => Completeness::Unproven,
            (None, Some(told)) if told == self.records => Completeness::Proven,
            (None, Some(told)) => {
                Completeness::Refuted(format!("it says that it has {told} records, and {} came", self.records))
            }
        }
    }

    /// Reads on to the end of a line that is too long.
    fn pass_line(&mut self) -> std::io::Result<()> {
        loop {
            let held = self.input.fill_buf()?;
            if held.is_empty() {
                return Ok(());
            }
            let (length, found) = match held.iter().position(|octet| *octet == b'\n') {
                Some(place) => (place + 1, true),
                None => (held.len(), false),
            };
            self.input.consume(length);
            if found {
                return Ok(());
            }
        }
    }
}

/// The account's id that stands in a document, without reading the rest of it.
pub fn named(octets: &[u8]) -> Option<String> {
    serde_json::from_slice::<Named<'_>>(octets).ok()?.id.map(Cow::into_owned)
}

/// A trailer is a short line; the others need not be looked at twice.
const TRAILER_MAX: usize = 200;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Option<String>>, Completeness) {
        let mut documents = Documents::new(text.as_bytes());
        let mut ids = Vec::new();
        while let Some(document) = documents.next_document() {
            ids.push(document.refused.or_else(|| named(&document.octets)));
        }
        (ids, documents.completeness())
    }

    #[test]
    fn a_trailer_proves_that_nobody_is_missing() {
        let id = |text: &str| Some(text.to_owned());
        let (one, two) = ("{\"id\": \"1\", \"x\": {\"id\": 7}}\r\n", "\u{feff}{\"id\":\"2\"}\n");
        assert_eq!(read(&format!("{two}\n{one}")), (vec![id("2"), id("1")], Completeness::Unproven));
        let whole = format!("{one}{{\"trailer\": {{\"records\": 1}}}}\n");
        assert_eq!(read(&whole), (vec![id("1")], Completeness::Proven));
        for (text, why) in [
            (format!("{one}{{\"trailer\": {{\"records\": 2}}}}"), "it says that it has 2 records, and 1 came"),
            (format!("{{\"trailer\": {{\"records\": 1}}}}\n{one}"), "line 2 stands behind the trailer"),
            (format!("{whole}{{\"trailer\": {{\"records\": 1}}}}"), "line 3 is a second trailer"),
        ] {
            assert_eq!(read(&text).1, Completeness::Refuted(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_refused_and_what_follows_is_read() {
        let text = format!("{}\n{{\"id\": \"2\"}}\n", "x".repeat(3 * RECORD_MAX));
        let (ids, complete) = read(&text);
        assert_eq!(ids, [Some(format!("is longer than {RECORD_MAX} octets")), Some("2".to_owned())]);
        assert_eq!(complete, Completeness::Unproven);
    }
}
