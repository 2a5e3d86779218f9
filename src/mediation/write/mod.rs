//! Invoice lines and usage in a source's own words: separated values, fixed columns, JSON lines or XML.
//!
//! In: documents of ours, one after another, and facts of the whole. Out: the file's octets and what was written. A
//! line that cannot be written as the profile wants it fails the file: half a bill is worse than none.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;

use super::function::{Customs, Scope, Trouble, Val};
use super::template::Template;
use super::tree::Tree;
use crate::vocabulary::Exact;

/// A file of a source.
#[derive(Debug)]
pub struct Out {
    pub of: Subject,
    pub(super) format: OutFormat,
    pub(super) customs: Customs,
    /// Only documents for which all of these hold.
    pub(super) when: Vec<Template>,
    pub(super) delimiter: char,
    pub(super) quoted: bool,
    pub(super) newline: &'static str,
    /// The columns' names come first.
    pub(super) names: bool,
    pub(super) root: String,
    pub(super) element: String,
    pub(super) file: Template,
    pub(super) header: Vec<Vec<Cell>>,
    pub(super) rows: Vec<RowForm>,
    pub(super) trailer: Vec<Vec<Cell>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Lines,
    Usage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutFormat {
    Csv,
    Fixed,
    JsonLines,
    Xml,
}

#[derive(Debug)]
pub struct RowForm {
    pub when: Vec<Template>,
    pub cells: Vec<Cell>,
}

#[derive(Debug)]
pub struct Cell {
    pub name: Option<String>,
    pub template: Template,
    /// Letters, of fixed columns.
    pub width: Option<usize>,
    pub align: Align,
    pub pad: char,
    /// A text that is too long loses its end.
    pub cut: bool,
    /// A number of JSON, not a string.
    pub number: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// What is known of the whole file: `batch`, `created_at`, whatever its templates name.
pub type Facts = Vec<(String, String)>;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub documents: u64,
    /// Of their `amount`; documents without one count nothing.
    pub sum: Exact,
    /// Of their `total`: with exclusive taxes.
    pub total: Exact,
}

/// What an amount and its taxes come to. Books need them, and a profile has no sums of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sums {
    amount: Exact,
    /// What is owed: with exclusive taxes.
    total: Exact,
    /// What is earned: without any tax.
    net: Exact,
    taxes: Exact,
}

impl Sums {
    /// Those of a line. `Ok(None)`: it has no amount.
    ///
    /// **Errors**: a text among them is no amount, or they do not fit.
    fn of(document: &Value) -> Result<Option<Self>, String> {
        let Some(amount) = document.get("amount").and_then(Value::as_str) else { return Ok(None) };
        let exact = |text: &str| text.parse::<Exact>().map_err(|_| format!("{text:?} is no amount"));
        let amount = exact(amount)?;
        let (mut exclusive, mut inclusive) = (Exact::ZERO, Exact::ZERO);
        for tax in document.get("tax").and_then(Value::as_array).into_iter().flatten() {
            let of = if tax["inclusive"] == true { &mut inclusive } else { &mut exclusive };
            let tax = exact(tax["amount"].as_str().unwrap_or_default())?;
            *of = of.checked_add(tax).map_err(|error| format!("the taxes: {error}"))?;
        }
        let fits = |sum: Result<Exact, _>| sum.map_err(|error: crate::vocabulary::ExactError| error.to_string());
        Ok(Some(Self {
            amount,
            total: fits(amount.checked_add(exclusive))?,
            net: fits(inclusive.checked_neg().and_then(|less| amount.checked_add(less)))?,
            taxes: fits(exclusive.checked_add(inclusive))?,
        }))
    }
}

#[derive(Debug, Error)]
pub enum WriteFault {
    /// The place is the document's `id`, or its number.
    #[error("{place}: {detail}")]
    Document { place: String, detail: String },
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl Out {
    /// The file's name; it holds no path.
    pub fn file_name(&self, facts: &Facts) -> Result<String, WriteFault> {
        let record = of_facts(facts, None);
        let name = self.text(&self.file, &record).map_err(|detail| of_file("its name", detail))?;
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || name.len() > 200 || !name.chars().all(plain) {
            return Err(of_file("its name", format!("{name:?} is no name of a file")));
        }
        Ok(name)
    }

    /// Writes the file.
    ///
    /// **Errors**: the first document that cannot be written; the file must then be thrown away.
    pub fn write(
        &self,
        documents: impl IntoIterator<Item = Value>,
        facts: &Facts,
        out: &mut impl io::Write,
    ) -> Result<Written, WriteFault> {
        let begin = of_facts(facts, None);
        let mut text = String::new();
        if self.format == OutFormat::Xml {
            text.push_str(&format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{0}<{1}>{0}", self.newline, self.root));
        }
        for cells in &self.header {
            self.row(cells, &begin, &mut text).map_err(|detail| of_file("its header", detail))?;
        }
        if let ([row], true, OutFormat::Csv) = (self.rows.as_slice(), self.names, self.format)
            && row.cells.iter().all(|cell| cell.name.is_some())
        {
            let names = row.cells.iter().filter_map(|cell| cell.name.clone());
            self.csv_row(names, &mut text).map_err(|detail| of_file("its header", detail))?;
        }
        out.write_all(text.as_bytes())?;
        let mut written = Written { documents: 0, sum: Exact::ZERO, total: Exact::ZERO };
        for document in documents {
            let place = document.get("id").and_then(Value::as_str).map(str::to_owned);
            let place = || place.clone().unwrap_or_else(|| format!("document {}", written.documents + 1));
            let wrong = |detail: String| WriteFault::Document { place: place(), detail };
            let sums = Sums::of(&document).map_err(wrong)?;
            let record = tree(&document, facts, (written.documents + 1, sums));
            if !self.all(&self.when, &record).map_err(wrong)? {
                continue;
            }
            text.clear();
            for row in &self.rows {
                if self.all(&row.when, &record).map_err(wrong)? {
                    self.row(&row.cells, &record, &mut text).map_err(wrong)?;
                }
            }
            if let Some(Sums { amount, total, .. }) = sums {
                let grown = |sum: Exact, by| sum.checked_add(by).map_err(|error| wrong(format!("the sum: {error}")));
                written.sum = grown(written.sum, amount)?;
                written.total = grown(written.total, total)?;
            }
            written.documents += 1;
            out.write_all(text.as_bytes())?;
        }
        text.clear();
        let end = of_facts(facts, Some(&written));
        for cells in &self.trailer {
            self.row(cells, &end, &mut text).map_err(|detail| of_file("its trailer", detail))?;
        }
        if self.format == OutFormat::Xml {
            text.push_str(&format!("</{}>{}", self.root, self.newline));
        }
        out.write_all(text.as_bytes())?;
        Ok(written)
    }

    fn row(&self, cells: &[Cell], record: &Tree, text: &mut String) -> Result<(), String> {
        let mut values = Vec::with_capacity(cells.len());
        for cell in cells {
            let value = self.text(&cell.template, record);
            let value = value.map_err(|detail| match &cell.name {
                Some(name) => format!("column {name}: {detail}"),
                None => detail,
            })?;
            values.push(value);
        }
        match self.format {
            OutFormat::Csv => self.csv_row(values, text),
            OutFormat::Fixed => {
                for (cell, value) in cells.iter().zip(values) {
                    fixed(cell, &value, text)?;
                }
                text.push_str(self.newline);
                Ok(())
            }
            OutFormat::JsonLines => {
                let mut document = Value::Object(serde_json::Map::new());
                for (cell, value) in cells.iter().zip(values) {
                    let name = cell.name.as_deref().unwrap_or_default();
                    let value = match (cell.number, value.is_empty()) {
                        (_, true) => Value::Null,
                        (true, false) => number(&value)?,
                        (false, false) => Value::String(value),
                    };
                    put(&mut document, name, value)?;
                }
                text.push_str(&document.to_string());
                text.push_str(self.newline);
                Ok(())
            }
            OutFormat::Xml => {
                text.push_str(&format!("<{}>", self.element));
                for (cell, value) in cells.iter().zip(values) {
                    let name = cell.name.as_deref().unwrap_or_default();
                    // XML 1.0 s2.2 has no sign for these at all.
                    let hidden = |letter: char| letter.is_control() && !matches!(letter, '\t' | '\n' | '\r');
                    if value.chars().any(|letter| hidden(letter) || matches!(letter, '\u{fffe}' | '\u{ffff}')) {
                        return Err(format!("column {name} holds a control character"));
                    }
                    text.push_str(&format!("<{name}>{}</{name}>", quick_xml::escape::escape(value.as_str())));
                }
                text.push_str(&format!("</{}>{}", self.element, self.newline));
                Ok(())
            }
        }
    }

    fn csv_row(&self, values: impl IntoIterator<Item = String>, text: &mut String) -> Result<(), String> {
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                text.push(self.delimiter);
            }
            let special = |letter: char| {
                letter == self.delimiter || matches!(letter, '\n' | '\r') || letter == '"' && self.quoted
            };
            let guard = is_formula(&value);
            match (value.contains(special), self.quoted) {
                (false, _) => {
                    if guard {
                        text.push('\'');
                    }
                    text.push_str(&value);
                }
                (true, true) => {
                    text.push('"');
                    if guard {
                        text.push('\'');
                    }
                    text.push_str(&value.replace('"', "\"\""));
                    text.push('"');
                }
                (true, false) => {
                    return Err(format!("{:?} holds a sign of the file's own", super::figure::shown(&value)));
                }
            }
        }
        text.push_str(self.newline);
        Ok(())
    }

    fn text(&self, template: &Template, record: &Tree) -> Result<String, String> {
        let scope = Scope { record, item: record, customs: &self.customs };
        match template.value(&scope).map_err(detail)? {
            Val::Missing | Val::Empty => Ok(String::new()),
            Val::Text(text) => Ok(text.into_owned()),
            Val::List(texts) => Ok(texts.join(" ")),
            Val::Test(holds) => Ok(holds.to_string()),
        }
    }

    fn all(&self, tests: &[Template], record: &Tree) -> Result<bool, String> {
        let scope = Scope { record, item: record, customs: &self.customs };
        for test in tests {
            if !test.holds(&scope).map_err(detail)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Puts a value where a column's name says: `a/b` is the member `b` of the object `a`, `a/0` the first of the list `a`.
fn put(document: &mut Value, name: &str, value: Value) -> Result<(), String> {
    let mut place = document;
    for step in name.split('/') {
        let index = step.parse::<usize>().ok().filter(|_| name.contains('/'));
        place = match index {
            Some(index) => {
                if place.is_null() {
                    *place = Value::Array(Vec::new());
                }
                let list = place.as_array_mut().ok_or_else(|| format!("column {name} is in no list"))?;
                if index == list.len() {
                    list.push(Value::Null);
                }
                list.get_mut(index).ok_or_else(|| format!("column {name} leaves places of its list empty"))?
            }
            None => {
                if place.is_null() {
                    *place = Value::Object(serde_json::Map::new());
                }
                let object = place.as_object_mut().ok_or_else(|| format!("column {name} is in no object"))?;
                object.entry(step.to_owned()).or_insert(Value::Null)
            }
        };
    }
    *place = value;
    Ok(())
}

fn of_file(place: &str, detail: String) -> WriteFault {
    WriteFault::Document { place: place.to_owned(), detail }
}

fn detail(trouble: Trouble) -> String {
    match trouble {
        Trouble::Wrong(detail) => detail,
        Trouble::Word { vocabulary, word } => format!("[{vocabulary}] has no meaning for the word {word:?}"),
    }
}

/// A cell as a spreadsheet shows it: with a sign in front where it would compute it.
pub fn shown_cell(value: &str) -> Cow<'_, str> {
    if is_formula(value) { Cow::Owned(format!("'{value}")) } else { Cow::Borrowed(value) }
}

/// Whether a spreadsheet would compute the cell instead of showing it. Numbers with a sign are only numbers.
fn is_formula(value: &str) -> bool {
    let begins = value
        .trim_start_matches(['\'', ' '])
        .starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '|', '%', '＝', '＋', '－', '＠']);
    let number = value.strip_prefix(['+', '-']).is_some_and(|rest| {
        rest.starts_with(|letter: char| letter.is_ascii_digit())
            && rest.chars().all(|letter| letter.is_ascii_digit() || matches!(letter, '.' | ','))
    });
    begins && !number
}

fn fixed(cell: &Cell, value: &str, text: &mut String) -> Result<(), String> {
    let width = cell.width.unwrap_or_default();
    if value.chars().any(char::is_control) {
        return Err("a control character would move the columns".to_owned());
    }
    let length = value.chars().count();
    if length > width && !cell.cut {
        return Err(format!("{:?} is longer than its {width} letters", super::figure::shown(value)));
    }
    let blanks = std::iter::repeat_n(cell.pad, width.saturating_sub(length));
    match cell.align {
        Align::Left => text.extend(value.chars().take(width).chain(blanks)),
        Align::Right => text.extend(blanks.chain(value.chars().take(width))),
    }
    Ok(())
}

/// A number with the digits it was given: a float would change them.
fn number(text: &str) -> Result<Value, String> {
    let exact: Result<Exact, _> = text.parse();
    match exact {
        // What a double shows again with the same digits may be one.
        Ok(_) => match serde_json::from_str::<Value>(text) {
            Ok(value) if value.is_i64() || value.is_u64() || is_shown_as(&value, text) => Ok(value),
            _ => Ok(Value::String(text.to_owned())),
        },
        Err(_) => Err(format!("{text:?} is no number")),
    }
}

fn is_shown_as(value: &Value, text: &str) -> bool {
    let shown = value.to_string();
    shown == text
}

fn of_facts(facts: &Facts, written: Option<&Written>) -> Tree {
    let mut members = Vec::new();
    add_facts(&mut members, facts);
    if let Some(written) = written {
        members.push((Arc::from("count"), Tree::Text(written.documents.to_string())));
        members.push((Arc::from("sum"), Tree::Text(written.sum.to_string())));
        members.push((Arc::from("total"), Tree::Text(written.total.to_string())));
    }
    Tree::Map(members)
}

fn add_facts(members: &mut Vec<(Arc<str>, Tree)>, facts: &Facts) {
    for (name, text) in facts {
        if !members.iter().any(|(known, _)| **known == **name) {
            members.push((Arc::from(name.as_str()), Tree::Text(text.clone())));
        }
    }
}

/// A document as a record; `number` counts those that were written, `phone` is the telephone number that stood there, and an
/// amount's `total`, `net` and `taxes` are beside it.
fn tree(document: &Value, facts: &Facts, (number, sums): (u64, Option<Sums>)) -> Tree {
    let mut members = match of_value(document) {
        Tree::Map(members) => members,
        other => vec![(Arc::from("value"), other)],
    };
    add_facts(&mut members, facts);
    let mut put = |name: &str, value: Tree| {
        members.retain(|(known, _)| **known != *name);
        members.push((Arc::from(name), value));
    };
    if let Some(phone) = document.get("number").filter(|number| number.is_string()) {
        put("phone", of_value(phone));
    }
    put("number", Tree::Text(number.to_string()));
    for (name, sum) in sums.iter().flat_map(|sums| [("total", sums.total), ("net", sums.net), ("taxes", sums.taxes)]) {
        put(name, Tree::Text(sum.to_string()));
    }
    Tree::Map(members)
}

/// Recursion is bounded by the reader of the document.
fn of_value(value: &Value) -> Tree {
    match value {
        Value::Null => Tree::Null,
        Value::Bool(flag) => Tree::Text(flag.to_string()),
        Value::Number(number) => Tree::Text(number.to_string()),
        Value::String(text) => Tree::Text(text.clone()),
        Value::Array(items) => Tree::List(items.iter().map(of_value).collect()),
        Value::Object(map) => {
            Tree::Map(map.iter().map(|(name, value)| (Arc::from(name.as_str()), of_value(value))).collect())
        }
    }
}
