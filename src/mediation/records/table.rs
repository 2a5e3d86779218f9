//! Records out of lines: separated values and fixed columns, with banners, trailers, and records of several rows.
//!
//! A printed report is a table too: rows to skip, a row that ends it, and a test that tells where a record begins.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher};
use std::io::BufRead;
use std::sync::Arc;

use super::csv::{CsvRow, Dialect};
use super::octets::{LineRead, Octets, decode};
use super::{Completeness, Part, ROWS_MAX, Record, counted};
use crate::mediation::figure::shown;
use crate::mediation::profile::{Counts, Group, Header, LineTest, Profile, Reading};
use crate::mediation::tree::Tree;

pub struct TableRecords<R> {
    octets: Octets<R>,
    /// A copy: readers outlive the borrow of a profile that is replaced while a long file is read.
    reading: Arc<Reading>,
    /// Columns of separated values, known behind the header.
    columns: Option<Vec<Arc<str>>>,
    /// Columns some template looks at.
    wanted: Vec<Arc<str>>,
    pending: Option<Pending>,
    /// A row that was read and begins the next record.
    waiting: Option<Row>,
    rows: u64,
    told: Option<String>,
    stopped: bool,
    at_end: bool,
    /// Hashes of the keys that have had their record.
    done: HashSet<u64, foldhash::fast::RandomState>,
}

/// A row's cells with their columns' names.
type Cells = Vec<(Arc<str>, Tree)>;

struct Row {
    line: u64,
    raw: Vec<u8>,
    cells: Cells,
}

/// A record whose rows are still coming.
struct Pending {
    key: Option<String>,
    first: Row,
    more: Vec<Row>,
    octets: usize,
}

/// What a line turned out to be.
enum Line {
    Row(Row),
    Nothing,
    Refused(Part),
    End,
}

impl<R: BufRead> TableRecords<R> {
    pub fn new(input: R, profile: &Profile) -> Self {
        let columns = match &profile.reading.header {
            Header::Given(columns) => Some(columns.clone()),
            _ => None,
        };
        Self {
            octets: Octets::new(input),
            reading: profile.reading.clone(),
            columns,
            wanted: profile.columns(),
            pending: None,
            waiting: None,
            rows: 0,
            told: None,
            stopped: false,
            at_end: false,
            done: HashSet::default(),
        }
    }

    pub fn completeness(&self, records: u64) -> Completeness {
        if self.reading.stop.is_some() && !self.stopped {
            return Completeness::Refuted("the row that ends the report did not come".to_owned());
        }
        if self.reading.trailer.is_some() && self.told.is_none() {
            return Completeness::Refuted("the trailer did not come".to_owned());
        }
        match self.reading.counts {
            Counts::Records => counted(self.told.as_deref(), records, "records"),
            Counts::Rows => counted(self.told.as_deref(), self.rows, "rows"),
        }
    }

    /// **Errors**: fatal; nothing behind it can be read.
    pub fn next_part(&mut self) -> Result<Part, String> {
        loop {
            if self.at_end {
                return Ok(self.finished().unwrap_or(Part::End));
            }
            let line = match self.waiting.take() {
                Some(row) => Line::Row(row),
                None => self.read()?,
            };
            match line {
                Line::Nothing => {}
                Line::Refused(part) => return Ok(part),
                Line::End => self.at_end = true,
                Line::Row(row) => {
                    if let Some(part) = self.add(row)? {
                        return Ok(part);
                    }
                }
            }
        }
    }

    /// Adds a row to the pending record; a record that is whole, or a row that has none, comes out.
    fn add(&mut self, row: Row) -> Result<Option<Part>, String> {
        let begins = match &self.reading.group {
            Group::None => {
                return Ok(Some(Part::Record(Record { tree: Tree::Map(row.cells), line: row.line, raw: row.raw })));
            }
            Group::By(column) => {
                let Some(Tree::Text(key)) = cell(&row.cells, column).filter(|tree| !is_blank(tree)) else {
                    let detail = format!("{column} is empty, by which rows are put together");
                    return Ok(Some(Part::Refused { line: row.line, detail, raw: row.raw }));
                };
                let same = self.pending.as_ref().is_some_and(|pending| pending.key.as_deref() == Some(key));
                (!same).then(|| Some(key.clone()))
            }
            Group::Start(test) => test.holds(&row.cells, &row.raw, self.reading.encoding).then_some(None),
        };
        match begins {
            Some(key) => {
                if let Some(part) = self.finished() {
                    self.waiting = Some(row);
                    return Ok(Some(part));
                }
                let octets = row.raw.len();
                self.pending = Some(Pending { key, first: row, more: Vec::new(), octets });
            }
            None => {
                let Some(pending) = &mut self.pending else {
                    let detail = "the row belongs to no record".to_owned();
                    return Ok(Some(Part::Refused { line: row.line, detail, raw: row.raw }));
                };
                pending.octets += row.raw.len();
                if pending.more.len() + 1 >= ROWS_MAX || pending.octets > super::RECORD_MAX {
                    return Err(format!(
                        "line {}: the record that begins at line {} has too many rows",
                        row.line, pending.first.line
                    ));
                }
                pending.more.push(row);
            }
        }
        Ok(None)
    }

    /// The pending record as a whole.
    fn finished(&mut self) -> Option<Part> {
        let Pending { key, first, more, .. } = self.pending.take()?;
        let line = first.line;
        let mut raw = first.raw;
        let mut members = first.cells.clone();
        let mut rows = vec![Tree::Map(first.cells)];
        for row in more {
            if key.is_some() {
                for ((_, known), (_, other)) in members.iter_mut().zip(&row.cells) {
                    if known != other {
                        *known = Tree::Conflict;
                    }
                }
            }
            raw.push(b'\n');
            raw.extend_from_slice(&row.raw);
            rows.push(Tree::Map(row.cells));
        }
        if let Some(key) = key {
            // A record torn apart would be two halves, of which the second takes away what the first gave.
            let mut hasher = self.done.hasher().build_hasher();
            hasher.write(key.as_bytes());
            if !self.done.insert(hasher.finish()) {
                let detail = format!("{:?} came before; its rows must stand together", shown(&key));
                return Some(Part::Refused { line, detail, raw });
            }
        }
        members.push((Arc::from(ROWS), Tree::List(rows)));
        Some(Part::Record(Record { tree: Tree::Map(members), line, raw }))
    }

    fn read(&mut self) -> Result<Line, String> {
        self.octets.begin();
        let line = self.octets.line;
        let refused = |detail: String, raw: Vec<u8>| Ok(Line::Refused(Part::Refused { line, detail, raw }));
        let mut row = CsvRow::default();
        let reading = self.reading.clone();
        loop {
            let begun = match self.octets.line().map_err(|detail| format!("line {line}: {detail}"))? {
                LineRead::End if self.octets.kept().is_empty() => return Ok(Line::End),
                LineRead::End => {
                    let raw = self.octets.kept().to_vec();
                    return refused("a quoted cell is never closed".to_owned(), raw);
                }
                LineRead::TooLong => {
                    return refused(format!("the line is longer than {} KiB", super::RECORD_MAX >> 10), Vec::new());
                }
                LineRead::Line(begun) => begun,
            };
            let octets = &self.octets.kept()[begun..];
            if self.stopped || octets.iter().all(u8::is_ascii_whitespace) && begun == 0 {
                return Ok(Line::Nothing);
            }
            let text = match decode(octets, reading.encoding) {
                Ok(text) => text,
                Err(detail) => return refused(detail, octets.to_vec()),
            };
            if begun == 0
                && let Some(line) = self.aside(&text)?
            {
                return Ok(line);
            }
            let cells = match reading.dialect {
                Some(dialect) => match row.line(&text, dialect) {
                    Ok(false) => continue,
                    Ok(true) => self.named(std::mem::take(&mut row).cells)?,
                    Err(detail) => Err(detail),
                },
                None => self.cut(&text).map(Some),
            };
            let raw = self.octets.kept().to_vec();
            let cells = match cells {
                Ok(Some(cells)) => cells,
                Ok(None) => return Ok(Line::Nothing),
                Err(detail) => return refused(detail, raw),
            };
            if reading.stop.as_ref().is_some_and(|test| test.holds(&cells, &raw, reading.encoding)) {
                self.stopped = true;
                return Ok(Line::Nothing);
            }
            if reading.skip.iter().any(|test| test.holds(&cells, &raw, reading.encoding)) {
                return Ok(Line::Nothing);
            }
            self.rows += 1;
            return Ok(Line::Row(Row { line, raw, cells }));
        }
    }

    /// Lines that are judged as a whole: trailer, banners and the end, whatever their cells.
    fn aside(&mut self, text: &str) -> Result<Option<Line>, String> {
        let reading = self.reading.clone();
        if let Some(found) = reading.trailer.as_ref().and_then(|trailer| trailer.captures(text)) {
            if self.told.is_some() {
                return Err(format!("line {}: a second trailer came", self.octets.line - 1));
            }
            self.told = Some(found.get(1).map_or(String::new(), |count| count.as_str().to_owned()));
            return Ok(Some(Line::Nothing));
        }
        let whole = |test: &LineTest| test.column.is_none() && test.matches.is_match(text);
        if reading.stop.as_ref().is_some_and(whole) {
            self.stopped = true;
            return Ok(Some(Line::Nothing));
        }
        Ok(reading.skip.iter().any(whole).then_some(Line::Nothing))
    }

    /// Cells of separated values with their columns' names; `None`: it was the header.
    fn named(&mut self, cells: Vec<String>) -> Result<Result<Option<Cells>, String>, String> {
        let Some(columns) = &self.columns else {
            if self.reading.header == Header::Numbered {
                return Ok(Ok(Some(
                    cells
                        .into_iter()
                        .enumerate()
                        .map(|(at, cell)| (Arc::from(format!("c{at}")), text(&cell)))
                        .collect(),
                )));
            }
            self.columns = Some(self.header(cells)?);
            return Ok(Ok(None));
        };
        if cells.len() != columns.len() {
            return Ok(Err(format!("the row has {} cells, its header {}", cells.len(), columns.len())));
        }
        Ok(Ok(Some(columns.iter().cloned().zip(cells.iter().map(|cell| text(cell))).collect())))
    }

    /// **Errors**: a column twice, or one that is needed not at all: another file, or another version of it.
    fn header(&self, cells: Vec<String>) -> Result<Vec<Arc<str>>, String> {
        let mut columns: Vec<Arc<str>> = Vec::with_capacity(cells.len());
        for cell in cells {
            let name = cell.trim();
            if !name.is_empty() && columns.iter().any(|known| **known == *name) {
                return Err(format!("line {}: the header has {:?} twice", self.octets.line - 1, shown(name)));
            }
            columns.push(Arc::from(name));
        }
        let lacking = self.wanted.iter().find(|wanted| {
            !columns.contains(wanted) && !self.reading.optional.iter().any(|optional| **optional == ***wanted)
        });
        match lacking {
            None => Ok(columns),
            Some(lacking) => {
                let have: Vec<String> = columns.iter().take(40).map(|column| shown(column)).collect();
                Err(format!("the header has no column {lacking:?}; it has {}", have.join(", ")))
            }
        }
    }

    /// Cells of a line with fixed columns.
    fn cut(&self, line: &str) -> Result<Cells, String> {
        // Most lines are ASCII, where letters are octets.
        let length = if line.is_ascii() { line.len() } else { line.chars().count() };
        if let Some(exact) = self.reading.length
            && length != exact
        {
            return Err(format!("the line has {length} letters, not {exact}"));
        }
        let end = self.reading.fields.iter().map(|field| field.start + field.length).max().unwrap_or(0);
        if length > end && self.reading.length.is_none() && !letters(line, end, length - end).trim().is_empty() {
            return Err(format!("the line has text behind its last column, which ends at {end}"));
        }
        Ok(self
            .reading
            .fields
            .iter()
            .map(|field| (field.name.clone(), text(letters(line, field.start, field.length))))
            .collect())
    }
}

impl LineTest {
    fn holds(&self, cells: &[(Arc<str>, Tree)], raw: &[u8], encoding: super::Encoding) -> bool {
        match &self.column {
            Some(column) => matches!(cell(cells, column), Some(Tree::Text(text)) if self.matches.is_match(text)),
            None => decode(raw, encoding).is_ok_and(|line| self.matches.is_match(&line)),
        }
    }
}

impl Dialect {
    pub fn csv(delimiter: char) -> Self {
        Self { delimiter, quote: Some('"') }
    }
}

fn cell<'c>(cells: &'c [(Arc<str>, Tree)], column: &str) -> Option<&'c Tree> {
    cells.iter().find(|(name, _)| **name == *column).map(|(_, tree)| tree)
}

fn is_blank(tree: &Tree) -> bool {
    matches!(tree, Tree::Text(text) if text.is_empty())
}

fn text(cell: &str) -> Tree {
    Tree::Text(cell.trim().to_owned())
}

fn letters(line: &str, start: usize, length: usize) -> &str {
    if line.is_ascii() {
        let start = start.min(line.len());
        return &line[start..(start + length).min(line.len())];
    }
    let at = |index: usize| line.char_indices().nth(index).map_or(line.len(), |(at, _)| at);
    &line[at(start)..at(start + length)]
}

/// The member that holds a record's rows.
pub const ROWS: &str = "rows";
