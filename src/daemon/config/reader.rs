//! A tolerant reader of a TOML tree: it never stops at the first fault, knows where every value stands, and notices
//! every key nobody asked for.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing wrong with the configuration.
///
/// **Shape**: `line` and `column` count from 1, in characters; `key` is the dotted path, empty for a fault of the syntax.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigFault {
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub key: String,
    pub detail: String,
}

impl std::fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.detail)
    }
}

/// A value of the file with the place it stands at.
#[derive(Debug, Clone)]
pub struct Found<T> {
    pub value: T,
    pub key: String,
    pub at: usize,
}

/// A value without parts.
#[derive(Debug, Clone, Copy)]
pub enum Scalar<'t> {
    Text(&'t str),
    Number(i64),
    Flag(bool),
}

/// The text being read, and what was found wrong with it.
pub struct Reader<'t> {
    file: String,
    text: &'t str,
    directory: PathBuf,
    credentials: Option<PathBuf>,
    faults: RefCell<Vec<ConfigFault>>,
    warnings: RefCell<Vec<ConfigFault>>,
}

impl<'t> Reader<'t> {
    /// Reads `text` of `file`; `credentials` is the directory systemd puts credentials in.
    pub fn new(file: &Path, text: &'t str, credentials: Option<PathBuf>) -> Self {
        Self {
            file: file.display().to_string(),
            text,
            directory: file.parent().map(Path::to_path_buf).unwrap_or_default(),
            credentials,
            faults: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// The file being read.
    pub fn file(&self) -> &Path {
        Path::new(&self.file)
    }

    /// The tree, with every fault of the syntax noted.
    pub fn tree(&self) -> Spanned<DeTable<'t>> {
        let (tree, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            self.fault(error.span().map_or(0, |span| span.start), "", error.message());
        }
        tree
    }

    /// Whether nothing is wrong so far.
    pub fn is_clean(&self) -> bool {
        self.faults.borrow().is_empty()
    }

    pub fn fault(&self, at: usize, key: &str, detail: impl Into<String>) {
        self.faults.borrow_mut().push(self.place(at, key, detail.into()));
    }

    pub fn warn(&self, at: usize, key: &str, detail: impl Into<String>) {
        self.warnings.borrow_mut().push(self.place(at, key, detail.into()));
    }

    /// Faults and warnings, each in the order of the file.
    pub fn finish(self) -> (Vec<ConfigFault>, Vec<ConfigFault>) {
        let sorted = |cell: RefCell<Vec<ConfigFault>>| {
            let mut list = cell.into_inner();
            list.sort_by_key(|fault| (fault.line, fault.column));
            list
        };
        (sorted(self.faults), sorted(self.warnings))
    }

    /// A path of the file: absolute as it is, else beside the configuration file.
    pub fn path(&self, text: &str) -> PathBuf {
        self.directory.join(text)
    }

    /// A path that may be a systemd credential: a relative name is looked up among the credentials first.
    pub fn credential(&self, text: &str) -> PathBuf {
        // `LoadCredential=lastmile:/etc/lastmile/credentials` names each file of the directory `lastmile_<file>`.
        let names = [text.to_owned(), format!("lastmile_{text}")];
        let candidates = self.credentials.iter().flat_map(|directory| names.iter().map(|name| directory.join(name)));
        candidates.into_iter().find(|path| path.exists()).unwrap_or_else(|| self.path(text))
    }

    fn place(&self, at: usize, key: &str, detail: String) -> ConfigFault {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConfigFault {
            file: self.file.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            key: key.to_owned(),
            detail,
        }
    }
}

/// One table of the file. Whatever is still unread when it is closed is an unknown key.
pub struct Section<'r, 't> {
    reader: &'r Reader<'t>,
    table: &'r DeTable<'t>,
    path: String,
    at: usize,
    asked: RefCell<Vec<&'static str>>,
}

impl<'r, 't> Section<'r, 't> {
    pub fn root(reader: &'r Reader<'t>, tree: &'r Spanned<DeTable<'t>>) -> Self {
        Self { reader, table: tree.get_ref(), path: String::new(), at: tree.span().start, asked: RefCell::default() }
    }

    /// Notes a fault of this table as a whole.
    pub fn fault(&self, detail: impl Into<String>) {
        self.reader.fault(self.at, &self.path, detail);
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A table below this one.
    pub fn table(&self, name: &'static str) -> Option<Section<'r, 't>> {
        let (span, value) = self.value(name)?;
        self.section(self.key(name), span, value)
    }

    /// The elements of an array of tables.
    pub fn tables(&self, name: &'static str) -> Vec<Section<'r, 't>> {
        let Some((span, value)) = self.value(name) else { return Vec::new() };
        let DeValue::Array(list) = value else {
            self.wrong(&self.key(name), span.start, "a list of tables", value);
            return Vec::new();
        };
        let element = |(at, element): (usize, &'r Spanned<DeValue<'t>>)| {
            self.section(format!("{}[{at}]", self.key(name)), element.span(), element.get_ref())
        };
        list.iter().enumerate().filter_map(element).collect()
    }

    pub fn string(&self, name: &'static str) -> Option<Found<&'r str>> {
        let (span, value) = self.value(name)?;
        self.text_of(self.key(name), span, value)
    }

    /// A string that must be there.
    pub fn required(&self, name: &'static str) -> Option<Found<&'r str>> {
        if !self.table.contains_key(name) {
            self.asked.borrow_mut().push(name);
            self.reader.fault(self.at, &self.key(name), "is required");
        }
        self.string(name)
    }

    pub fn strings(&self, name: &'static str) -> Option<Vec<Found<&'r str>>> {
        let (span, value) = self.value(name)?;
        let DeValue::Array(list) = value else {
            self.wrong(&self.key(name), span.start, "a list of strings", value);
            return None;
        };
        let element = |(at, element): (usize, &'r Spanned<DeValue<'t>>)| {
            self.text_of(format!("{}[{at}]", self.key(name)), element.span(), element.get_ref())
        };
        Some(list.iter().enumerate().filter_map(element).collect())
    }

    /// A string or a list of strings; absent is an empty list.
    pub fn one_or_more(&self, name: &'static str) -> Vec<Found<&'r str>> {
        match self.table.get(name).map(Spanned::get_ref) {
            Some(DeValue::Array(_)) => self.strings(name).unwrap_or_default(),
            _ => self.string(name).into_iter().collect(),
        }
    }

    /// A whole number of at least `least`.
    pub fn number(&self, name: &'static str, least: u32) -> Option<u32> {
        let (span, value) = self.value(name)?;
        let number = match value {
            DeValue::Integer(integer) => u32::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        };
        if number.is_none_or(|number| number < least) {
            self.reader.fault(span.start, &self.key(name), format!("must be a whole number of at least {least}"));
            return None;
        }
        number
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &'static str) -> Option<bool> {
        let (span, value) = self.value(name)?;
        let DeValue::Boolean(flag) = value else {
            self.wrong(&self.key(name), span.start, "true or false", value);
            return None;
        };
        Some(*flag)
    }

    /// A string read by its type's own parser.
    pub fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, name: &'static str) -> Option<Found<T>> {
        let found = self.string(name)?;
        self.parse(&found)
    }

    /// Reads a found string by its type's own parser.
    pub fn parse<T: FromStr<Err: std::fmt::Display>>(&self, found: &Found<&str>) -> Option<Found<T>> {
        match found.value.parse() {
            Ok(value) => Some(Found { value, key: found.key.clone(), at: found.at }),
            Err(error) => {
                self.reader.fault(found.at, &found.key, error.to_string());
                None
            }
        }
    }

    /// One word out of `words`.
    pub fn word<T: Copy>(&self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let found = self.string(name)?;
        let word = words.iter().find(|(word, _)| *word == found.value).map(|(_, value)| *value);
        if word.is_none() {
            let known = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            self.reader.fault(found.at, &found.key, format!("is {:?}; it can be {known}", found.value));
        }
        word
    }

    /// The entries of a table whose keys are the operator's own. Closes it: no key is unknown.
    pub fn scalars(self) -> Vec<Found<Scalar<'r>>> {
        let mut all = Vec::new();
        for (name, value) in self.table {
            let (key, at) = (self.key(name.get_ref()), value.span().start);
            let scalar = match value.get_ref() {
                DeValue::String(text) => Some(Scalar::Text(text)),
                DeValue::Boolean(flag) => Some(Scalar::Flag(*flag)),
                DeValue::Integer(number) => {
                    i64::from_str_radix(number.as_str(), number.radix()).ok().map(Scalar::Number)
                }
                _ => None,
            };
            match scalar {
                Some(value) => all.push(Found { value, key, at }),
                None => self.reader.fault(at, &key, "must be a string, a whole number, true or false"),
            }
        }
        all
    }

    /// Notes every key nobody asked for, with the nearest known one.
    pub fn close(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            let near = asked.iter().filter(|known| similar(known, name)).min_by_key(|known| distance(known, name));
            let hint = match near {
                Some(known) => format!("did you mean {known}?"),
                None => format!("known here: {}", asked.join(", ")),
            };
            self.reader.fault(key.span().start, &self.key(name), format!("is an unknown key; {hint}"));
        }
    }

    fn value(&self, name: &'static str) -> Option<(Range<usize>, &'r DeValue<'t>)> {
        self.asked.borrow_mut().push(name);
        self.table.get(name).map(|value| (value.span(), value.get_ref()))
    }

    fn section(&self, path: String, span: Range<usize>, value: &'r DeValue<'t>) -> Option<Section<'r, 't>> {
        let DeValue::Table(table) = value else {
            self.wrong(&path, span.start, "a table", value);
            return None;
        };
        Some(Section { reader: self.reader, table, path, at: span.start, asked: RefCell::default() })
    }

    fn text_of(&self, key: String, span: Range<usize>, value: &'r DeValue<'t>) -> Option<Found<&'r str>> {
        match value {
            DeValue::String(text) => Some(Found { value: text, key, at: span.start }),
            other => {
                self.wrong(&key, span.start, "a string", other);
                None
            }
        }
    }

    fn wrong(&self, key: &str, at: usize, wanted: &str, value: &DeValue<'_>) {
        let is = match value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.reader.fault(at, key, format!("must be {wanted}, not {is}"));
    }
}

fn similar(known: &str, name: &str) -> bool {
    distance(known, name) <= 1 + name.len() / 4
}

/// Levenshtein distance: how many letters a typing error changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
