//! Foreign records one after another, out of any of the six formats; each reader bounds what it holds in memory.
//!
//! In: octets. Out: records with their line and their own octets, refused pieces with their line, and at the end whether
//! the whole is proven complete. Nothing is interpreted here.

mod csv;
mod json;
mod octets;
mod pairs;
mod table;
mod xml;

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;

pub use self::csv::Dialect;
use self::json::JsonRecords;
use self::octets::Octets;
pub(in crate::mediation) use self::octets::decode;
pub use self::table::ROWS;
use self::table::TableRecords;
use self::xml::XmlRecords;
use super::figure::shown;
use super::profile::{Format, Profile, Repeats};
use super::tree::Tree;

/// Longest record, in octets. A line, too, since it may be a record.
pub const RECORD_MAX: usize = 1 << 20;
/// Values in one record.
pub const NODES_MAX: usize = 20_000;
/// Members of one object; names of one form.
pub const MEMBERS_MAX: usize = 1_000;
/// Nesting that no honest record reaches.
pub const DEPTH_MAX: usize = 32;
/// Rows of one record.
pub const ROWS_MAX: usize = 2_000;

/// How octets become letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    #[default]
    Utf8,
    Windows1252,
}

/// One foreign record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub tree: Tree,
    /// Where it begins, from 1.
    pub line: u64,
    /// Its octets, for the one who must look at it.
    pub raw: Vec<u8>,
}

/// What a reader comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Record(Record),
    /// Something here is no record; what follows can be read.
    Refused {
        line: u64,
        detail: String,
        raw: Vec<u8>,
    },
    End,
}

/// Whether nothing is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completeness {
    /// The input says how much it is, and it is that.
    Proven,
    /// It says nothing about it.
    Unproven,
    /// It says so, and it is not.
    Refuted(String),
}

/// A reader of one input.
pub struct Records<R> {
    kind: Kind<R>,
    encoding: Encoding,
    records: u64,
    refused: bool,
    ended: bool,
}

enum Kind<R> {
    Json(Box<JsonRecords<R>>),
    Xml(Box<XmlRecords<R>>),
    Table(Box<TableRecords<R>>),
    Form(Octets<R>),
    Environment(Octets<R>),
}

impl<R: BufRead> Records<R> {
    pub fn new(profile: &Profile, input: R) -> Self {
        let reading = &profile.reading;
        let several = profile.repeats == Repeats::Snapshot;
        let kind = match profile.format {
            Format::Json => Kind::Json(Box::new(JsonRecords::new(input, &reading.each, &reading.count, several))),
            Format::Xml => Kind::Xml(Box::new(XmlRecords::new(input, &reading.each, &reading.count))),
            Format::Csv | Format::Fixed => Kind::Table(Box::new(TableRecords::new(input, profile))),
            Format::Form => Kind::Form(Octets::new(input)),
            Format::Environment => Kind::Environment(Octets::new(input)),
        };
        Self { kind, encoding: reading.encoding, records: 0, refused: false, ended: false }
    }

    /// **Errors**: fatal; nothing behind it can be read, and what came is no whole.
    pub fn next_part(&mut self) -> Result<Part, String> {
        if self.ended {
            return Ok(Part::End);
        }
        let part = match &mut self.kind {
            Kind::Json(json) => json.next_part(),
            Kind::Xml(xml) => xml.next_part(),
            Kind::Table(table) => table.next_part(),
            Kind::Form(octets) => whole(octets, |body| pairs::form(body, self.encoding)),
            Kind::Environment(octets) => whole(octets, |body| pairs::environment(body, self.encoding)),
        };
        match &part {
            Ok(Part::Record(_)) => {
                self.records += 1;
                self.ended = matches!(self.kind, Kind::Form(_) | Kind::Environment(_));
            }
            Ok(Part::Refused { .. }) => self.refused = true,
            Ok(Part::End) => self.ended = true,
            Err(_) => (self.refused, self.ended) = (true, true),
        }
        part
    }

    /// Meaningful at the end.
    pub fn completeness(&self) -> Completeness {
        if !self.ended || self.refused {
            return Completeness::Refuted("not all of it could be read".to_owned());
        }
        let told = match &self.kind {
            Kind::Json(json) => json.told(),
            Kind::Xml(xml) => xml.told(),
            Kind::Table(table) => return table.completeness(self.records),
            Kind::Form(_) | Kind::Environment(_) => None,
        };
        counted(told, self.records, "records")
    }
}

/// Compares what an input says of itself with what came.
fn counted(told: Option<&str>, came: u64, what: &str) -> Completeness {
    match told {
        None => Completeness::Unproven,
        Some(text) if text.trim().parse() == Ok(came) => Completeness::Proven,
        Some(text) => {
            Completeness::Refuted(format!("it says that it has {} {what}, and {came} came", shown(text.trim())))
        }
    }
}

/// The whole input as one record.
fn whole<R: BufRead>(octets: &mut Octets<R>, read: impl Fn(&[u8]) -> Result<Tree, String>) -> Result<Part, String> {
    octets.start()?;
    octets.take_while(None, |_| true)?;
    let raw = octets.kept().to_vec();
    read(&raw).map(|tree| Part::Record(Record { tree, line: 1, raw }))
}

/// Names that come again in every record are kept once.
#[derive(Debug, Default)]
pub(in crate::mediation) struct Names(HashMap<Box<str>, Arc<str>, foldhash::fast::RandomState>);

impl Names {
    pub fn of(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let new: Arc<str> = Arc::from(name);
        // Hostile names must not pile up.
        if self.0.len() < NAMES_MAX && name.len() <= 256 {
            self.0.insert(name.into(), new.clone());
        }
        new
    }
}

const NAMES_MAX: usize = 4_096;
