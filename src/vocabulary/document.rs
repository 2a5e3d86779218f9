//! A TOML text read with the place of everything in it, so that a door can name every fault at once instead of the first.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Faults};

/// One TOML file while it is being read; it gathers the faults found in it.
#[derive(Debug)]
pub struct TomlFile {
    name: String,
    text: String,
    faults: RefCell<Faults>,
}

/// A table being read: every key it was asked for is known, every other one is a fault when the section is finished.
#[derive(Debug)]
pub struct Section<'d> {
    file: &'d TomlFile,
    table: &'d DeTable<'d>,
    at: Range<usize>,
    known: BTreeSet<&'static str>,
}

/// One value and its place.
#[derive(Debug, Clone)]
pub struct Value<'d> {
    file: &'d TomlFile,
    value: &'d DeValue<'d>,
    at: Range<usize>,
}

impl TomlFile {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), faults: RefCell::new(Faults::new()) }
    }

    /// The table of the text; `None` when it is no TOML, with the faults noted.
    pub fn read(&self) -> Option<Spanned<DeTable<'_>>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        for error in errors.iter().take(SYNTAX_FAULTS_MAX) {
            self.fault(error.span().unwrap_or(0..0).start, error.message());
        }
        // A file of another kind has a fault on each of its lines.
        if errors.len() > SYNTAX_FAULTS_MAX {
            self.fault_of_file(format!("has {} more such faults; it may be no TOML", errors.len() - SYNTAX_FAULTS_MAX));
        }
        errors.is_empty().then_some(table)
    }

    pub fn section<'d>(&'d self, table: &'d Spanned<DeTable<'d>>) -> Section<'d> {
        Section { file: self, table: table.get_ref(), at: table.span(), known: BTreeSet::new() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Notes a fault of the whole file.
    pub fn fault_of_file(&self, detail: impl Into<String>) {
        self.faults.borrow_mut().add(self.name.clone(), detail);
    }

    pub fn has_faults(&self) -> bool {
        !self.faults.borrow().is_empty()
    }

    pub fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner().into_vec()
    }

    fn fault(&self, offset: usize, detail: impl Into<String>) {
        self.faults.borrow_mut().add(self.place(offset), detail);
    }

    /// `file:line:column`, both counted from 1, the column in characters.
    fn place(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        format!("{}:{line}:{column}", self.name)
    }
}

impl<'d> Section<'d> {
    /// The value of `key`, which is from now on a known key.
    pub fn value(&mut self, key: &'static str) -> Option<Value<'d>> {
        self.known.insert(key);
        let value = self.table.get(key)?;
        Some(Value { file: self.file, value: value.get_ref(), at: value.span() })
    }

    /// The value of a key that must be there.
    pub fn required(&mut self, key: &'static str) -> Option<Value<'d>> {
        let value = self.value(key);
        if value.is_none() {
            self.fault(format!("`{key}` is missing"));
        }
        value
    }

    /// The value of `key` as a parsed text.
    pub fn parsed<T>(&mut self, key: &'static str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.value(key)?.parse()
    }

    pub fn required_parsed<T>(&mut self, key: &'static str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.required(key)?.parse()
    }

    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.value(key)?.text().map(str::to_owned)
    }

    pub fn required_text(&mut self, key: &'static str) -> Option<String> {
        self.required(key)?.text().map(str::to_owned)
    }

    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.value(key)?.flag()
    }

    pub fn integer(&mut self, key: &'static str, range: Range<u64>) -> Option<u64> {
        self.value(key)?.integer(range)
    }

    /// One of the words a key allows.
    pub fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.value(key)?.choice(words)
    }

    /// The tables of a list; an absent list is empty.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'d>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        value.list().into_iter().flatten().filter_map(|item| item.section()).collect()
    }

    /// Every key with its value, for tables whose keys are free.
    pub fn entries(&self) -> Vec<(String, Value<'d>)> {
        let entry = |(key, value): (&'d Spanned<_>, &'d Spanned<DeValue<'d>>)| {
            let key: &std::borrow::Cow<'d, str> = key.get_ref();
            (key.to_string(), Value { file: self.file, value: value.get_ref(), at: value.span() })
        };
        self.table.iter().map(entry).collect()
    }

    pub fn fault(&self, detail: impl Into<String>) {
        self.file.fault(self.at.start, detail);
    }

    /// Ends the reading: a key nobody asked for is a fault.
    pub fn finish(self) {
        for (key, _) in self.table {
            if !self.known.contains(key.get_ref().as_ref()) {
                let known: Vec<&str> = self.known.iter().copied().collect();
                self.file.fault(
                    key.span().start,
                    format!("unknown key `{}`; this table knows {}", key.get_ref(), known.join(", ")),
                );
            }
        }
    }
}

impl<'d> Value<'d> {
    pub fn fault(&self, detail: impl Into<String>) {
        self.file.fault(self.at.start, detail);
    }

    pub fn text(&self) -> Option<&'d str> {
        match self.value {
            DeValue::String(text) => Some(text.as_ref()),
            other => {
                self.fault(format!("a string is expected, not {}", kind(other)));
                None
            }
        }
    }

    pub fn parse<T>(&self) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        match self.text()?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(error.to_string());
                None
            }
        }
    }

    pub fn flag(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(flag) => Some(*flag),
            other => {
                self.fault(format!("true or false is expected, not {}", kind(other)));
                None
            }
        }
    }

    pub fn integer(&self, range: Range<u64>) -> Option<u64> {
        let found = match self.value {
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            other => {
                self.fault(format!("a whole number is expected, not {}", kind(other)));
                return None;
            }
        };
        let inside = found.filter(|number| range.contains(number));
        if inside.is_none() {
            self.fault(format!("must be a whole number from {} to {}", range.start, range.end - 1));
        }
        inside
    }

    pub fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.fault(format!("{text:?} is not one of {}", known.join(", ")));
        }
        found
    }

    pub fn list(&self) -> Option<Vec<Value<'d>>> {
        match self.value {
            DeValue::Array(items) => Some(
                items.iter().map(|item| Value { file: self.file, value: item.get_ref(), at: item.span() }).collect(),
            ),
            other => {
                self.fault(format!("a list is expected, not {}", kind(other)));
                None
            }
        }
    }

    pub fn section(&self) -> Option<Section<'d>> {
        match self.value {
            DeValue::Table(table) => {
                Some(Section { file: self.file, table, at: self.at.clone(), known: BTreeSet::new() })
            }
            other => {
                self.fault(format!("a table is expected, not {}", kind(other)));
                None
            }
        }
    }

    pub fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    /// The value as such, without its place.
    pub fn plain(&self) -> toml::Value {
        plain(self.value)
    }

    pub fn is_text(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }
}

fn plain(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| toml::Value::String(integer.as_str().to_owned()), toml::Value::Integer),
        DeValue::Float(float) => toml::Value::String(float.as_str().to_owned()),
        DeValue::Boolean(flag) => toml::Value::Boolean(*flag),
        DeValue::Datetime(at) => toml::Value::Datetime(*at),
        DeValue::Array(items) => toml::Value::Array(items.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(table) => {
            let entry = |(key, item): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                (key.to_string(), plain(item.get_ref()))
            };
            toml::Value::Table(table.iter().map(entry).collect())
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a float (write decimals as strings)",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Faults of the syntax that are told of one file.
const SYNTAX_FAULTS_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_named_with_line_and_column() {
        let file = TomlFile::new("a.toml", "id = 7\nspeed = \"x\"\nother = 1\n[[item]]\nn = 9\n");
        let table = file.read().expect("TOML");
        let mut root = file.section(&table);
        assert_eq!(root.required_text("id"), None);
        assert_eq!(root.parsed::<u32>("speed"), None);
        for mut item in root.sections("item") {
            assert_eq!(item.integer("n", 1..5), None);
            item.finish();
        }
        root.required("name");
        root.finish();
        drop(table);
        let places: Vec<String> = file.into_faults().into_iter().map(|fault| fault.pointer).collect();
        assert_eq!(places, ["a.toml:1:6", "a.toml:2:9", "a.toml:5:5", "a.toml:1:1", "a.toml:3:1"]);
    }

    #[test]
    fn text_that_is_no_toml_is_a_fault_at_its_place() {
        let file = TomlFile::new("b.toml", "id = \n");
        assert!(file.read().is_none());
        assert_eq!(file.into_faults()[0].pointer, "b.toml:1:6");
    }
}
