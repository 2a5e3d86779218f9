//! Reads FreeRADIUS's `detail` text, line by line, into records of printed attributes.
//!
//! ```text
//! Sun Nov 22 07:56:48 2026                     the moment of writing, not indented
//! <TAB>Acct-Session-Id = "0001"                attributes: a name, an operator, a value
//! <TAB>Acct-Status-Type = Start
//! <TAB>Timestamp = 1795334208                  seconds since 1970: when that server received the packet
//!                                              an empty line ends the record
//! ```
//! In: lines. Out: a record or a fault at the end of each. A record without `Timestamp` or without the empty line behind
//! it was cut off while it was written: it is a fault, never half a record. What attributes mean is not decided here.

use thiserror::Error;

use super::encode::Printed;
use crate::vocabulary::Timestamp;

/// Octets of the longest line: an attribute of 253 octets, each escaped by four, and its name.
pub const LINE_MAX: usize = 4096;
/// A packet of 4096 octets has at most so many attributes; a server adds a few.
const ATTRIBUTES_MAX: usize = 2_200;

/// One line of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetailAttribute {
    /// Line of the file, from 1.
    pub line: u64,
    pub name: String,
    pub value: Printed,
}

/// One whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetailRecord {
    /// Line its header stands on.
    pub line: u64,
    /// When the server that wrote it received the packet.
    pub received_at: Timestamp,
    /// Everything but the timestamp, in order.
    pub attributes: Vec<DetailAttribute>,
}

/// What cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {detail}")]
pub struct DetailFault {
    pub line: u64,
    pub detail: String,
}

impl DetailRecord {
    /// The first attribute of a name.
    pub fn first(&self, name: &str) -> Option<&DetailAttribute> {
        self.attributes.iter().find(|attribute| attribute.name.eq_ignore_ascii_case(name))
    }
}

/// Reads a whole text at once: every record and fault in order.
pub fn parse(text: &[u8]) -> Vec<Result<DetailRecord, DetailFault>> {
    let mut parser = DetailParser::default();
    let mut found = Vec::new();
    let mut lines: Vec<&[u8]> = text.split(|octet| *octet == b'\n').collect();
    // What stands behind the last line feed is a line only when it is not empty.
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    for line in lines {
        found.extend(parser.line(line));
    }
    found.extend(parser.end().map(Err));
    found
}

/// Keeps at most one record.
#[derive(Debug, Default)]
pub struct DetailParser {
    line: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    line: u64,
    received_at: Option<Timestamp>,
    attributes: Vec<DetailAttribute>,
    fault: Option<DetailFault>,
}

impl DetailParser {
    /// Takes the next line, without its line feed. Of a line longer than [`LINE_MAX`] the first octets are enough.
    pub fn line(&mut self, line: &[u8]) -> Option<Result<DetailRecord, DetailFault>> {
        self.line += 1;
        let number = self.line;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let fault = |detail: String| DetailFault { line: number, detail };
        let indented = line.first().is_some_and(|octet| matches!(octet, b'\t' | b' '));
        let content = line.trim_ascii();
        if content.is_empty() {
            return self.open.take().map(Open::close);
        }
        if !indented {
            let begun = Open { line: number, received_at: None, attributes: Vec::new(), fault: None };
            // The writer of the record before was cut off, or that record has no end for another reason.
            return self.open.replace(begun).map(|before| match before.fault {
                Some(known) => Err(known),
                None => Err(DetailFault { line: before.line, detail: UNFINISHED.to_owned() }),
            });
        }
        let Some(open) = &mut self.open else {
            return Some(Err(fault("an attribute stands outside any record".to_owned())));
        };
        if open.fault.is_some() {
            return None;
        }
        if line.len() > LINE_MAX {
            open.fault = Some(fault(format!("a line is longer than {LINE_MAX} octets")));
        } else if open.attributes.len() >= ATTRIBUTES_MAX {
            open.fault = Some(fault(format!("a record has more than {ATTRIBUTES_MAX} attributes")));
        } else {
            open.fault = open.attribute(number, content).err().map(fault);
        }
        None
    }

    /// At the end of the file: the fault of a record that has no end.
    pub fn end(self) -> Option<DetailFault> {
        let open = self.open?;
        // A fault in the very last line is the cut itself.
        let known = open.fault.filter(|fault| fault.line < self.line);
        Some(known.unwrap_or(DetailFault { line: open.line, detail: UNFINISHED.to_owned() }))
    }
}

impl Open {
    fn attribute(&mut self, line: u64, content: &[u8]) -> Result<(), String> {
        let wrong = || "a line is not NAME = VALUE".to_owned();
        let at = content.iter().position(|octet| octet.is_ascii_whitespace()).ok_or_else(wrong)?;
        let name = std::str::from_utf8(&content[..at]).map_err(|_| wrong())?;
        let rest = content[at..].trim_ascii_start();
        let operator = OPERATORS.iter().find(|operator| rest.starts_with(operator)).ok_or_else(wrong)?;
        let printed = rest[operator.len()..].trim_ascii_start();
        let value = match printed.split_first() {
            Some((quote @ (b'"' | b'\''), inside)) => Printed::Quoted(unquoted(inside, *quote)?),
            // A cut-off line goes on with the next record's header, which has spaces.
            _ if printed.iter().any(u8::is_ascii_whitespace) => return Err(wrong()),
            _ => Printed::Bare(String::from_utf8(printed.to_vec()).map_err(|_| wrong())?),
        };
        // `detail`'s own reader overwrites the beginning of the word once it has read a record.
        if matches!(name, "Timestamp" | "Donestamp") {
            let Printed::Bare(text) = &value else { return Err("Timestamp is no number".to_owned()) };
            // A fraction of a second is written by some versions.
            let seconds = text.split('.').next().unwrap_or_default().parse::<i64>().ok();
            let at = seconds.filter(|seconds| *seconds > 0).and_then(|seconds| Timestamp::from_second(seconds).ok());
            let at = at.ok_or_else(|| format!("Timestamp = {text} is no time"))?;
            if self.received_at.is_some_and(|earlier| earlier != at) {
                return Err("Timestamp stands twice in one record".to_owned());
            }
            self.received_at = Some(at);
            return Ok(());
        }
        self.attributes.push(DetailAttribute { line, name: name.to_owned(), value });
        Ok(())
    }

    fn close(self) -> Result<DetailRecord, DetailFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let unfinished = DetailFault { line: self.line, detail: "the record has no Timestamp".to_owned() };
        let received_at = self.received_at.ok_or(unfinished)?;
        Ok(DetailRecord { line: self.line, received_at, attributes: self.attributes })
    }
}

/// The octets of a quoted value: `\"`, `\\`, `\n`, `\r`, `\t` and three octal digits are one octet each.
fn unquoted(inside: &[u8], quote: u8) -> Result<Vec<u8>, String> {
    let mut octets = Vec::with_capacity(inside.len());
    let mut rest = inside;
    loop {
        match rest {
            [] => return Err("a quoted value has no end".to_owned()),
            [end] if *end == quote => return Ok(octets),
            [end, ..] if *end == quote => return Err("something stands behind a quoted value".to_owned()),
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                octets.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                octets.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other if other.is_ascii_alphanumeric() => {
                        return Err(format!("\\{} is no escape that is known", char::from(*other)));
                    }
                    other => *other,
                });
                rest = tail;
            }
            [octet, tail @ ..] => {
                octets.push(*octet);
                rest = tail;
            }
        }
    }
}

/// The longer ones first.
const OPERATORS: [&[u8]; 5] = [b":=", b"+=", b"==", b"-=", b"="];
const UNFINISHED: &str = "the record has no end; it was cut off, or is still being written";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vocabulary::hex;

    const RECORD: &str = "Sun Nov 22 07:56:48 2026\n\tAcct-Session-Id = \"s\\\"1\\\\\\303\\266\"\n\tAcct-Status-Type = Start\n\
                          \tClass += 0xdead\n\tTimestamp = 1795334208\n\n";

    fn faults(text: &str) -> Vec<String> {
        parse(text.as_bytes()).into_iter().filter_map(Result::err).map(|fault| fault.to_string()).collect()
    }

    #[test]
    fn a_record_is_read() {
        let found = parse(RECORD.repeat(2).as_bytes());
        assert_eq!(found.len(), 2);
        let second = found[1].as_ref().expect("a record");
        assert_eq!((second.line, second.received_at.as_second()), (7, 1_795_334_208));
        let values: Vec<(&str, &Printed)> = second.attributes.iter().map(|a| (a.name.as_str(), &a.value)).collect();
        assert_eq!(
            values,
            [
                ("Acct-Session-Id", &Printed::Quoted("s\"1\\ö".as_bytes().to_vec())),
                ("Acct-Status-Type", &Printed::Bare("Start".to_owned())),
                ("Class", &Printed::Bare("0xdead".to_owned())),
            ]
        );
        assert_eq!(second.first("class").map(|attribute| attribute.line), Some(10));
    }

    #[test]
    fn every_cut_of_a_record_is_a_fault_and_never_a_record() {
        let whole = RECORD.len();
        for at in 1..whole - 1 {
            let found = parse(&RECORD.as_bytes()[..at]);
            assert!(found.iter().all(Result::is_err) && !found.is_empty(), "{at}: {found:?}");
        }
    }

    #[test]
    fn a_record_cut_off_before_another_never_mixes_with_it() {
        let other = RECORD.replace("s\\\"1", "other");
        let wanted = parse(other.as_bytes()).remove(0).expect("a record").attributes;
        let values = |attributes: &[DetailAttribute]| {
            attributes.iter().map(|found| (found.name.clone(), found.value.clone())).collect::<Vec<_>>()
        };
        for at in 1..RECORD.len() {
            let found = parse(format!("{}{other}", &RECORD[..at]).as_bytes());
            // A header is passed over, so that a cut inside it harms nobody.
            let in_header = at < RECORD.find('\t').expect("attributes");
            assert_eq!(found[0].is_ok(), in_header, "{at}: {found:?}");
            for record in found.into_iter().flatten() {
                assert_eq!(values(&record.attributes), values(&wanted), "{at}");
            }
        }
    }

    #[test]
    fn faults_name_their_line_and_reading_goes_on() {
        let text = format!(
            "\tOutside = 1\n\nHeader\n\tAcct-Status-Type Start\n\tTimestamp = 1\n\nHeader\n\tA = \"x\n\tTimestamp = 1\n\n\
             Header\n\tTimestamp = soon\n\nHeader\n\tA = 1\n\n{RECORD}Header\n\tA = \"\\x41\"\n\n"
        );
        assert_eq!(
            faults(&text),
            [
                "line 1: an attribute stands outside any record",
                "line 4: a line is not NAME = VALUE",
                "line 8: a quoted value has no end",
                "line 12: Timestamp = soon is no time",
                "line 14: the record has no Timestamp",
                "line 24: \\x is no escape that is known",
            ]
        );
        assert_eq!(parse(text.as_bytes()).iter().filter(|found| found.is_ok()).count(), 1);
    }

    #[test]
    fn what_has_no_bound_is_refused() {
        let long = format!("Header\n\tA = \"{}\"\n\tTimestamp = 1\n\n", "x".repeat(LINE_MAX));
        assert_eq!(faults(&long), ["line 2: a line is longer than 4096 octets"]);
        let many = format!("Header\n{}\tTimestamp = 1\n\n", "\tA = 1\n".repeat(ATTRIBUTES_MAX + 1));
        assert_eq!(faults(&many), ["line 2202: a record has more than 2200 attributes"]);
    }

    /// As FreeRADIUS prints a text.
    fn quoted(octets: &[u8]) -> String {
        let mut text = String::from("\"");
        for octet in octets {
            match octet {
                b'"' | b'\\' => text.extend(['\\', char::from(*octet)]),
                b'\n' => text.push_str("\\n"),
                b'\r' => text.push_str("\\r"),
                b'\t' => text.push_str("\\t"),
                b' '..=b'~' => text.push(char::from(*octet)),
                other => text.push_str(&format!("\\{other:03o}")),
            }
        }
        text + "\""
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in proptest::collection::vec(
            (1i64..4_000_000_000, proptest::collection::vec(
                ("[A-Za-z][A-Za-z0-9-]{0,20}", any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8)), 0..6,
        )) {
            let mut text = String::new();
            let mut expected = Vec::new();
            for (timestamp, attributes) in &records {
                text.push_str("Sun Nov 22 07:56:48 2026\n");
                let mut values = Vec::new();
                for (name, is_text, octets) in attributes {
                    // "Timestamp" cannot come out of this pattern by chance often enough to matter, but it could.
                    prop_assume!(name != "Timestamp" && name != "Donestamp");
                    let printed = if *is_text { quoted(octets) } else { format!("0x{}", hex(octets)) };
                    text.push_str(&format!("\t{name} = {printed}\n"));
                    values.push((name.clone(), match is_text {
                        true => Printed::Quoted(octets.clone()),
                        false => Printed::Bare(printed),
                    }));
                }
                text.push_str(&format!("\tTimestamp = {timestamp}\n\n"));
                expected.push((*timestamp, values));
            }
            let read: Vec<(i64, Vec<(String, Printed)>)> = parse(text.as_bytes())
                .into_iter()
                .map(|found| {
                    let record = found.expect("a whole record");
                    let values = record.attributes.into_iter().map(|a| (a.name, a.value)).collect();
                    (record.received_at.as_second(), values)
                })
                .collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn no_octets_make_reading_panic(text in proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\t'), Just(b'"'), Just(b'\\'), Just(b'='), Just(b' '), any::<u8>()], 0..300)) {
            parse(&text);
        }
    }
}
