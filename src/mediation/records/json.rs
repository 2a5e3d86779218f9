//! Records out of JSON (RFC 8259), one after another: memory holds one record, whatever the document's length.
//!
//! Strict: no duplicate keys, no comments, no NaN, no trailing comma. Numbers keep their digits. One document, or
//! several after one another (JSON lines); `each` names the list whose items are the records.

use std::collections::HashSet;
use std::io::BufRead;
use std::sync::Arc;

use super::octets::Octets;
use super::{DEPTH_MAX, MEMBERS_MAX, NODES_MAX, Names, Part, Record};
use crate::mediation::tree::Tree;

#[derive(Debug)]
pub struct JsonRecords<R> {
    octets: Octets<R>,
    each: Vec<Box<str>>,
    count: Vec<Box<str>>,
    /// Further documents may follow.
    several: bool,
    state: State,
    /// Objects that were entered on the way to the records, with their keys so far.
    open: Vec<HashSet<String>>,
    names: Names,
    nodes: usize,
    documents: u64,
    told: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    /// In the list of records, before an item; whether it is the first.
    Items(bool),
    /// Behind the records, inside the objects around them.
    Around,
    End,
}

impl<R: BufRead> JsonRecords<R> {
    pub fn new(input: R, each: &[Box<str>], count: &[Box<str>], several: bool) -> Self {
        Self {
            octets: Octets::new(input),
            each: each.to_vec(),
            count: count.to_vec(),
            several,
            state: State::Between,
            open: Vec::new(),
            names: Names::default(),
            nodes: 0,
            documents: 0,
            told: None,
        }
    }

    /// What the document says of the number of its records.
    pub fn told(&self) -> Option<&str> {
        self.told.as_deref()
    }

    /// **Errors**: fatal; nothing behind it can be read.
    pub fn next_part(&mut self) -> Result<Part, String> {
        let part = self.step();
        if part.is_err() {
            self.state = State::End;
        }
        part.map_err(|detail| format!("{}: {detail}", self.octets.place()))
    }

    fn step(&mut self) -> Result<Part, String> {
        loop {
            self.octets.begin();
            self.nodes = 0;
            match self.state {
                State::End => return Ok(Part::End),
                State::Between => {
                    self.octets.start()?;
                    self.blanks()?;
                    if self.octets.peek()?.is_none() {
                        self.state = State::End;
                        return match self.documents {
                            0 => Err("there is nothing".to_owned()),
                            _ => Ok(Part::End),
                        };
                    }
                    if self.documents > 0 && !self.several {
                        return Err("something stands behind the end of the document".to_owned());
                    }
                    self.documents += 1;
                    if let Some(record) = self.descend()? {
                        return Ok(Part::Record(record));
                    }
                }
                State::Items(first) => {
                    self.blanks()?;
                    match (self.octets.peek()?, first) {
                        (Some(b']'), _) => {
                            self.octets.bump();
                            self.state = State::Around;
                            continue;
                        }
                        (Some(b','), false) => {
                            self.octets.bump();
                            self.blanks()?;
                        }
                        (_, true) => {}
                        _ => return Err("a comma or ] is expected".to_owned()),
                    }
                    self.state = State::Items(false);
                    return self.record().map(Part::Record);
                }
                State::Around => match self.open.is_empty() {
                    true => self.state = State::Between,
                    false => self.members_behind()?,
                },
            }
        }
    }

    fn record(&mut self) -> Result<Record, String> {
        self.octets.begin();
        let line = self.octets.line;
        let depth = self.open.len() + 1;
        let tree = self.value(depth, true)?;
        Ok(Record { tree, line, raw: self.octets.kept().to_vec() })
    }

    /// Goes to the records of a document that begins here.
    fn descend(&mut self) -> Result<Option<Record>, String> {
        for index in 0..self.each.len() {
            self.blanks()?;
            if self.octets.peek()? != Some(b'{') {
                return Err(format!("an object with {:?} is expected", self.each[index]));
            }
            self.octets.bump();
            self.open.push(HashSet::new());
            if !self.members_until(index)? {
                return Err(format!("there is no {:?}, which must hold the records", self.each[..=index].join("/")));
            }
        }
        self.blanks()?;
        if self.octets.peek()? == Some(b'[') {
            self.octets.bump();
            self.state = State::Items(true);
            return Ok(None);
        }
        self.state = State::Around;
        self.record().map(Some)
    }

    /// Reads members until the one that leads to the records; false: the object ended without it.
    fn members_until(&mut self, index: usize) -> Result<bool, String> {
        loop {
            let Some(key) = self.key()? else { return Ok(false) };
            if *key == *self.each[index] {
                return Ok(true);
            }
            self.aside(&key)?;
        }
    }

    /// Reads the rest of the innermost object that is open.
    fn members_behind(&mut self) -> Result<(), String> {
        while let Some(key) = self.key()? {
            self.aside(&key)?;
        }
        Ok(())
    }

    /// The next key of the innermost open object with its colon; `None`: the object is closed.
    fn key(&mut self) -> Result<Option<String>, String> {
        self.octets.begin();
        self.blanks()?;
        let first = self.open.last().is_some_and(HashSet::is_empty);
        match self.octets.peek()? {
            Some(b'}') => {
                self.octets.bump();
                self.open.pop();
                return Ok(None);
            }
            Some(b',') if !first => {
                self.octets.bump();
                self.blanks()?;
            }
            _ if first => {}
            _ => return Err("a comma or } is expected".to_owned()),
        }
        let key = self.string()?;
        self.colon()?;
        let known = self.open.last_mut().expect("an object is open");
        if known.len() >= MEMBERS_MAX {
            return Err(format!("an object has more than {MEMBERS_MAX} members"));
        }
        if !known.insert(key.clone()) {
            return Err(format!("{:?} is written twice in the same object", super::shown(&key)));
        }
        Ok(Some(key))
    }

    /// A value outside the records: the number of records, or nothing to us.
    fn aside(&mut self, key: &str) -> Result<(), String> {
        self.blanks()?;
        let depth = self.open.len();
        let counted = self.count.len() == depth
            && self.count.last().is_some_and(|last| **last == *key)
            && self.count[..depth - 1].iter().eq(self.each.iter().take(depth - 1));
        let tree = self.value(depth, counted)?;
        if let (true, Tree::Text(text)) = (counted, tree) {
            self.told = Some(text);
        }
        Ok(())
    }

    fn blanks(&mut self) -> Result<(), String> {
        self.octets.take_while(None, |octet| matches!(octet, b' ' | b'\t' | b'\n' | b'\r'))
    }

    fn colon(&mut self) -> Result<(), String> {
        self.blanks()?;
        match self.octets.peek()? {
            Some(b':') => {
                self.octets.bump();
                self.blanks()
            }
            _ => Err("a colon is expected".to_owned()),
        }
    }

    /// A value that begins here; kept only where `build` says so.
    fn value(&mut self, depth: usize, build: bool) -> Result<Tree, String> {
        if build {
            self.nodes += 1;
            if self.nodes > NODES_MAX {
                return Err(format!("a record has more than {NODES_MAX} values"));
            }
        } else {
            // What is not kept is not counted: a list beside the records may be long.
            self.octets.begin();
        }
        match self.octets.peek()? {
            Some(b'{') => self.object(deeper(depth)?, build),
            Some(b'[') => self.list(deeper(depth)?, build),
            Some(b'"') => self.string().map(Tree::Text),
            Some(b't') => self.word("true").map(Tree::Text),
            Some(b'f') => self.word("false").map(Tree::Text),
            Some(b'n') => self.word("null").map(|_| Tree::Null),
            Some(b'-' | b'0'..=b'9') => self.number().map(Tree::Text),
            Some(_) => Err("no value of JSON begins like this".to_owned()),
            None => Err("the document ends too early".to_owned()),
        }
    }

    fn object(&mut self, depth: usize, build: bool) -> Result<Tree, String> {
        self.octets.bump();
        let mut members: Vec<(Arc<str>, Tree)> = Vec::new();
        let mut first = true;
        loop {
            self.blanks()?;
            match (self.octets.peek()?, first) {
                (Some(b'}'), _) => {
                    self.octets.bump();
                    return Ok(Tree::Map(members));
                }
                (Some(b','), false) => {
                    self.octets.bump();
                    self.blanks()?;
                }
                (_, true) => {}
                (None, _) => return Err("the document ends too early".to_owned()),
                _ => return Err("a comma or } is expected".to_owned()),
            }
            first = false;
            let key = self.string()?;
            if build && members.iter().any(|(known, _)| **known == *key) {
                return Err(format!("{:?} is written twice in the same object", super::shown(&key)));
            }
            self.colon()?;
            let value = self.value(depth, build)?;
            if build {
                if members.len() >= MEMBERS_MAX {
                    return Err(format!("an object has more than {MEMBERS_MAX} members"));
                }
                members.push((self.names.of(&key), value));
            }
        }
    }

    fn list(&mut self, depth: usize, build: bool) -> Result<Tree, String> {
        self.octets.bump();
        let mut items = Vec::new();
        let mut first = true;
        loop {
            self.blanks()?;
            match (self.octets.peek()?, first) {
                (Some(b']'), _) => {
                    self.octets.bump();
                    return Ok(Tree::List(items));
                }
                (Some(b','), false) => {
                    self.octets.bump();
                    self.blanks()?;
                }
                (_, true) => {}
                (None, _) => return Err("the document ends too early".to_owned()),
                _ => return Err("a comma or ] is expected".to_owned()),
            }
            first = false;
            let item = self.value(depth, build)?;
            if build {
                items.push(item);
            }
        }
    }

    fn word(&mut self, word: &'static str) -> Result<String, String> {
        for wanted in word.bytes() {
            if self.octets.peek()? != Some(wanted) {
                return Err(format!("{word} is expected"));
            }
            self.octets.bump();
        }
        Ok(word.to_owned())
    }

    fn number(&mut self) -> Result<String, String> {
        let mut digits = Vec::new();
        let sign = |octet: u8| matches!(octet, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        self.octets.take_while(Some(&mut digits), sign)?;
        let text = String::from_utf8(digits).expect("only ASCII was taken");
        match is_number(&text) && text.len() <= 256 {
            true => Ok(text),
            false => Err(format!("{:?} is no number of JSON", super::shown(&text))),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        if self.octets.peek()? != Some(b'"') {
            return Err("a string is expected".to_owned());
        }
        self.octets.bump();
        let mut text = Vec::new();
        loop {
            self.octets.take_while(Some(&mut text), |octet| octet != b'"' && octet != b'\\' && octet >= 0x20)?;
            match self.octets.peek()? {
                Some(b'"') => {
                    self.octets.bump();
                    return String::from_utf8(text).map_err(|_| "a string is not UTF-8".to_owned());
                }
                Some(b'\\') => {
                    self.octets.bump();
                    let letter = self.escaped()?;
                    text.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(_) => return Err("a control character stands in a string".to_owned()),
                None => return Err("the document ends in a string".to_owned()),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        let letter = self.octets.peek()?.ok_or("the document ends in a string")?;
        self.octets.bump();
        Ok(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex()?;
                let alone = || format!("\\u{high:04x} is half a character");
                match high {
                    0xd800..=0xdbff => {
                        for wanted in [b'\\', b'u'] {
                            if self.octets.peek()? != Some(wanted) {
                                return Err(alone());
                            }
                            self.octets.bump();
                        }
                        let low = self.hex()?;
                        if !(0xdc00..=0xdfff).contains(&low) {
                            return Err(alone());
                        }
                        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).ok_or_else(alone)?
                    }
                    other => char::from_u32(other).ok_or_else(alone)?,
                }
            }
            _ => return Err("there is no such escape in JSON".to_owned()),
        })
    }

    fn hex(&mut self) -> Result<u32, String> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.octets.peek()?.and_then(|octet| char::from(octet).to_digit(16));
            value = value * 16 + digit.ok_or("\\u is followed by four hexadecimal digits")?;
            self.octets.bump();
        }
        Ok(value)
    }
}

fn deeper(depth: usize) -> Result<usize, String> {
    match depth < DEPTH_MAX {
        true => Ok(depth + 1),
        false => Err(format!("it is nested deeper than {DEPTH_MAX} levels")),
    }
}

/// RFC 8259 s6.
fn is_number(text: &str) -> bool {
    let rest = text.strip_prefix('-').unwrap_or(text);
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(rest);
    if whole == 0 || whole > 1 && rest.starts_with('0') {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let length = digits(exponent);
        if length == 0 {
            return false;
        }
        rest = &exponent[length..];
    }
    rest.is_empty()
}
