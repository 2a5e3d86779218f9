//! Records out of XML, one after another: no document type, no entities but the five of XML, names without their prefix.
//!
//! `each` is the path of the records' element below the document's; empty: the document is one record. Attributes are
//! members named `@name`; an element with attributes or elements keeps its own text as `#text`.

use std::io::BufRead;
use std::sync::Arc;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::octets::Octets;
use super::{DEPTH_MAX, NODES_MAX, Names, Part, Record};
use crate::mediation::tree::{INNER_TEXT, Tree};

pub struct XmlRecords<R> {
    xml: Reader<Octets<R>>,
    buffer: Vec<u8>,
    each: Vec<Box<str>>,
    count: Vec<Box<str>>,
    /// Names of the open elements.
    open: Vec<Arc<str>>,
    /// Elements of the record that are open.
    building: Vec<Draft>,
    line: u64,
    nodes: usize,
    names: Names,
    seen: bool,
    started: bool,
    ended: bool,
    told: Option<String>,
    aside: String,
}

#[derive(Default)]
struct Draft {
    members: Vec<(Arc<str>, Tree)>,
    text: String,
}

impl<R: BufRead> XmlRecords<R> {
    pub fn new(input: R, each: &[Box<str>], count: &[Box<str>]) -> Self {
        let mut xml = Reader::from_reader(Octets::new(input));
        xml.config_mut().check_end_names = true;
        Self {
            xml,
            buffer: Vec::new(),
            each: each.to_vec(),
            count: count.to_vec(),
            open: Vec::new(),
            building: Vec::new(),
            line: 0,
            nodes: 0,
            names: Names::default(),
            seen: false,
            started: false,
            ended: false,
            told: None,
            aside: String::new(),
        }
    }

    pub fn told(&self) -> Option<&str> {
        self.told.as_deref()
    }

    /// **Errors**: fatal; nothing behind it can be read.
    pub fn next_part(&mut self) -> Result<Part, String> {
        if self.ended {
            return Ok(Part::End);
        }
        let part = self.step();
        if part.is_err() {
            self.ended = true;
        }
        part.map_err(|detail| format!("line {}: {detail}", self.xml.get_ref().line))
    }

    fn step(&mut self) -> Result<Part, String> {
        if !self.started {
            self.started = true;
            self.xml.get_mut().start()?;
        }
        loop {
            if self.building.is_empty() {
                self.xml.get_mut().begin();
                self.line = self.xml.get_ref().line;
            }
            self.buffer.clear();
            let mut buffer = std::mem::take(&mut self.buffer);
            let outcome = match self.xml.read_event_into(&mut buffer) {
                Ok(event) => self.piece(&event),
                Err(quick_xml::Error::Io(error)) => Err(error.to_string()),
                Err(error) => Err(format!("the XML cannot be read further: {error}")),
            };
            self.buffer = buffer;
            if let Some(part) = outcome? {
                return Ok(part);
            }
        }
    }

    fn piece(&mut self, event: &Event<'_>) -> Result<Option<Part>, String> {
        match event {
            Event::Start(element) => self.begin(element).map(|()| None),
            Event::Empty(element) => {
                self.begin(element)?;
                self.end()
            }
            Event::End(_) => self.end(),
            Event::Text(text) => {
                let text = text.decode().map_err(|_| "a text is not UTF-8".to_owned())?;
                self.add_text(&text)
            }
            Event::CData(text) => {
                let text = text.decode().map_err(|_| "a text is not UTF-8".to_owned())?;
                self.add_text(&text)
            }
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|_| "a reference is not UTF-8".to_owned())?;
                let letter = known(&name).or_else(|| reference.resolve_char_ref().ok().flatten());
                let letter = letter.ok_or_else(|| format!("the entity &{}; is not read", super::shown(&name)))?;
                self.add_text(letter.encode_utf8(&mut [0; 4]))
            }
            Event::DocType(_) => Err("a document type is not read".to_owned()),
            Event::Decl(declaration) => {
                let encoding = declaration.encoding().and_then(Result::ok);
                let fits = encoding.is_none_or(|name| {
                    [&b"utf-8"[..], b"us-ascii"].iter().any(|known| name.eq_ignore_ascii_case(known))
                });
                if fits { Ok(None) } else { Err("it is not encoded in UTF-8".to_owned()) }
            }
            Event::Comment(_) | Event::PI(_) => Ok(None),
            Event::Eof => {
                self.ended = true;
                match (self.open.is_empty(), self.seen) {
                    (true, true) => Ok(Some(Part::End)),
                    (true, false) => Err("there is no document".to_owned()),
                    (false, _) => Err("the document has no end; it was cut off".to_owned()),
                }
            }
        }
    }

    fn begin(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        if self.open.is_empty() && self.seen {
            return Err("something stands behind the end of the document".to_owned());
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("elements are nested more than {DEPTH_MAX} deep"));
        }
        self.seen = true;
        let name = self.name(element.local_name().as_ref())?;
        self.open.push(name);
        self.aside.clear();
        let is_record = self.open.len() == self.each.len() + 1
            && self.open.iter().skip(1).zip(&self.each).all(|(open, each)| **open == **each);
        if !self.building.is_empty() || is_record {
            if self.building.is_empty() {
                self.nodes = 0;
            }
            let mut draft = Draft::default();
            self.attributes(element, &mut draft)?;
            self.building.push(draft);
            self.nodes += 1;
            if self.nodes > NODES_MAX {
                return Err(format!("a record has more than {NODES_MAX} elements"));
            }
        }
        Ok(())
    }

    fn attributes(&mut self, element: &BytesStart<'_>, draft: &mut Draft) -> Result<(), String> {
        for attribute in element.attributes() {
            let attribute = attribute.map_err(|error| format!("an attribute cannot be read: {error}"))?;
            if attribute.key.as_namespace_binding().is_some() {
                continue;
            }
            self.nodes += 1;
            if self.nodes > NODES_MAX {
                return Err(format!("a record has more than {NODES_MAX} elements and attributes"));
            }
            let value = std::str::from_utf8(&attribute.value).map_err(|_| "an attribute is not UTF-8".to_owned())?;
            let value = quick_xml::escape::unescape(value).map_err(|error| format!("an attribute: {error}"))?;
            let mut name = b"@".to_vec();
            name.extend_from_slice(attribute.key.local_name().as_ref());
            let name = self.name(&name)?;
            Tree::add(&mut draft.members, name, Tree::Text(value.trim().to_owned()));
        }
        Ok(())
    }

    fn name(&mut self, octets: &[u8]) -> Result<Arc<str>, String> {
        let name = std::str::from_utf8(octets).map_err(|_| "a name is not UTF-8".to_owned())?;
        Ok(self.names.of(name))
    }

    fn end(&mut self) -> Result<Option<Part>, String> {
        let Some(name) = self.open.pop() else { return Err("an element ends that never began".to_owned()) };
        let Some(draft) = self.building.pop() else {
            let depth = self.open.len();
            if depth > 0
                && depth == self.count.len()
                && *name == *self.count[depth - 1]
                && self.open.iter().skip(1).zip(&self.count).all(|(open, count)| **open == **count)
            {
                self.told = Some(self.aside.trim().to_owned());
            }
            return Ok(None);
        };
        let text = draft.text.trim();
        let tree = match draft.members.is_empty() {
            true => Tree::Text(text.to_owned()),
            false => {
                let mut members = draft.members;
                if !text.is_empty() {
                    Tree::add(&mut members, self.names.of(INNER_TEXT), Tree::Text(text.to_owned()));
                }
                Tree::Map(members)
            }
        };
        match self.building.last_mut() {
            Some(parent) => {
                Tree::add(&mut parent.members, name, tree);
                Ok(None)
            }
            None => {
                let raw = self.xml.get_ref().kept().to_vec();
                Ok(Some(Part::Record(Record { tree, line: self.line, raw })))
            }
        }
    }

    fn add_text(&mut self, text: &str) -> Result<Option<Part>, String> {
        if self.open.is_empty() && !text.trim().is_empty() {
            return Err("a text stands outside the document".to_owned());
        }
        match self.building.last_mut() {
            Some(draft) => draft.text.push_str(text),
            None if self.aside.len() + text.len() <= 64 => self.aside.push_str(text),
            None => {}
        }
        Ok(None)
    }
}

fn known(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "apos" => '\'',
        "quot" => '"',
        _ => return None,
    })
}
