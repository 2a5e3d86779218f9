//! A source profile as it is used: what its file says, checked, with every template and pattern ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex_lite::Regex;

use super::frame::Frame;
use super::function::Customs;
use super::records::Dialect;
use super::records::Encoding;
use super::template::Template;
use super::tree::{Path, Step};
use super::verify::Verify;
use super::write::Out;
use crate::vocabulary::Fault;

/// How one billing system writes its accounts, and wants its lines.
#[derive(Debug)]
pub struct Profile {
    pub name: String,
    /// One line for a list of profiles.
    pub about: String,
    pub format: Format,
    pub repeats: Repeats,
    pub scope: Scope,
    /// How the source proves that a record is its own; `None`: only by an API key.
    pub verify: Option<Verify>,
    /// Where one message ends on a connection that carries many.
    pub frame: Option<Frame>,
    /// What the source calls an event: one that comes again is the same.
    pub(super) event_id: Option<Template>,
    pub(super) customs: Customs,
    pub(super) reading: Arc<Reading>,
    /// Only records for which all of these hold are meant for us.
    pub(super) accept: Vec<Template>,
    pub(super) operation: Option<OperationRule>,
    pub(super) id: Option<Template>,
    pub(super) aliases: Vec<(AliasKind, Template)>,
    pub(super) account: Vec<(String, Form)>,
    pub(super) devices: Vec<Section>,
    pub(super) services: Vec<ServiceSection>,
    pub reply: Reply,
    pub outs: BTreeMap<String, Out>,
    /// Places that are known to be of no use here.
    pub(super) ignore: Vec<Path>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Xml,
    Csv,
    Fixed,
    Form,
    Environment,
}

/// What one input of this source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// What just happened; absence means nothing.
    Event,
    /// Everything there is, if it is proven complete.
    Snapshot,
}

/// How much one record knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole account: what it does not have is not there.
    Full,
    /// The account without its services.
    Account,
    /// Some services of an account.
    Service,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Upsert,
    Suspend,
    Resume,
    Delete,
    Ignore,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upsert => "upsert",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Delete => "delete",
            Self::Ignore => "ignore",
        }
    }
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Account => "account",
            Self::Service => "service",
        }
    }
}

/// Which word of the source means which operation.
#[derive(Debug)]
pub struct OperationRule {
    pub from: Template,
    pub words: BTreeMap<String, Operation>,
    /// Words that are not listed are of no interest; else they quarantine.
    pub others_ignored: bool,
}

/// What an event may know of an account whose id it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AliasKind {
    /// A RADIUS user name.
    Username,
    /// A service's external id.
    Service,
    /// A telephone number.
    Number,
    /// A modem's or MTA's address.
    Mac,
    /// A mailbox.
    Mailbox,
}

impl AliasKind {
    pub const ALL: [(&'static str, AliasKind); 5] = [
        ("username", AliasKind::Username),
        ("service", AliasKind::Service),
        ("number", AliasKind::Number),
        ("mac", AliasKind::Mac),
        ("mailbox", AliasKind::Mailbox),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

/// Where the records stand in the octets.
#[derive(Debug, Default)]
pub struct Reading {
    pub encoding: Encoding,
    pub each: Vec<Box<str>>,
    pub count: Vec<Box<str>>,
    /// Separated values; `None`: fixed columns.
    pub dialect: Option<Dialect>,
    pub header: Header,
    pub optional: Vec<String>,
    pub fields: Vec<FixedField>,
    pub length: Option<usize>,
    pub skip: Vec<LineTest>,
    pub stop: Option<LineTest>,
    pub group: Group,
    pub trailer: Option<Regex>,
    pub counts: Counts,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Header {
    /// The first row that is not skipped.
    #[default]
    First,
    /// There is none; columns are `c0`, `c1`, …
    Numbered,
    /// There is none; these are the columns.
    Given(Vec<Arc<str>>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedField {
    pub name: Arc<str>,
    pub start: usize,
    pub length: usize,
}

/// A question to a row: to one of its cells or, without a column, to the whole line.
#[derive(Debug, Clone)]
pub struct LineTest {
    pub column: Option<String>,
    pub matches: Regex,
}

/// Which rows are one record.
#[derive(Debug, Clone, Default)]
pub enum Group {
    #[default]
    None,
    /// Neighbours with the same text in this column.
    By(String),
    /// A row for which this holds, and those behind it.
    Start(LineTest),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counts {
    #[default]
    Records,
    Rows,
}

/// When a section counts, and how often.
#[derive(Debug, Default)]
pub struct Gate {
    pub when: Vec<Template>,
    pub repeat: Option<Path>,
}

/// How a value of the account document is made.
#[derive(Debug)]
pub enum Form {
    Value(Template, Kind),
    Object(Vec<(String, Form)>),
    /// An object that is there only where all tests hold.
    Gated(Vec<Template>, Box<Form>),
    List(Vec<(Gate, Form)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Of which no part may be missing.
    Key,
    Whole,
    Flag,
    Secret,
}

#[derive(Debug)]
pub struct Section {
    pub gate: Gate,
    pub fields: Vec<(String, Form)>,
}

#[derive(Debug)]
pub struct ServiceSection {
    pub section: Section,
    /// Where `when` does not hold and all of these do, the service is taken away.
    pub remove_when: Vec<Template>,
}

/// What this source takes for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub accepted: Answer,
    /// For a record that is kept and looked at by a person.
    pub quarantined: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

impl Profile {
    /// Reads one profile's file.
    ///
    /// **Errors**: every fault as `file:line:column`.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<Fault>> {
        super::read::profile(file, text)
    }

    /// Every place some template looks at, from the record's beginning where that can be said.
    pub(super) fn looked_at(&self) -> Vec<Path> {
        let mut looked = Looked(Vec::new());
        let asked = self.event_id.iter().chain(self.verify.as_ref().and_then(Verify::template));
        let whose = self.accept.iter().chain(&self.id).chain(self.aliases.iter().map(|(_, template)| template));
        for template in whose.chain(asked) {
            looked.template(template, None);
        }
        if let Some(rule) = &self.operation {
            looked.template(&rule.from, None);
        }
        looked.fields(&self.account, None);
        for section in &self.devices {
            looked.section(section);
        }
        for service in &self.services {
            for template in &service.remove_when {
                looked.template(template, None);
            }
            looked.section(&service.section);
        }
        looked.0
    }

    /// Columns that some template or test looks at, for a format that has columns.
    pub(super) fn columns(&self) -> Vec<Arc<str>> {
        let mut columns: Vec<Arc<str>> = Vec::new();
        let mut add = |name: &str| {
            if !columns.iter().any(|known| **known == *name) {
                columns.push(Arc::from(name));
            }
        };
        for path in self.looked_at() {
            let first = match path.steps.as_slice() {
                [Step::Member(rows), Step::Member(name), ..] if **rows == *super::ROWS => name,
                [Step::Member(rows), Step::Index(_), Step::Member(name), ..] if **rows == *super::ROWS => name,
                [Step::Member(rows), ..] if **rows == *super::ROWS => continue,
                [Step::Member(name), ..] => name,
                _ => continue,
            };
            add(first);
        }
        if let Group::By(column) = &self.reading.group {
            add(column);
        }
        columns
    }
}

struct Looked(Vec<Path>);

impl Looked {
    fn template(&mut self, template: &Template, item: Option<&Path>) {
        for path in template.paths() {
            let steps = match item {
                Some(item) if !path.absolute => item.steps.iter().chain(&path.steps).cloned().collect(),
                _ => path.steps.clone(),
            };
            self.0.push(Path { absolute: false, steps });
        }
    }

    fn section(&mut self, section: &Section) {
        let item = self.gate(&section.gate, None);
        self.fields(&section.fields, item.as_ref());
    }

    /// Notes what a gate looks at; gives where its items stand.
    fn gate(&mut self, gate: &Gate, item: Option<&Path>) -> Option<Path> {
        let inner = match (&gate.repeat, item) {
            (None, _) => item.cloned(),
            (Some(repeat), Some(item)) if !repeat.absolute => {
                Some(Path { absolute: false, steps: item.steps.iter().chain(&repeat.steps).cloned().collect() })
            }
            (Some(repeat), _) => Some(Path { absolute: false, steps: repeat.steps.clone() }),
        };
        for template in &gate.when {
            self.template(template, inner.as_ref());
        }
        inner
    }

    fn fields(&mut self, fields: &[(String, Form)], item: Option<&Path>) {
        for (_, form) in fields {
            self.form(form, item);
        }
    }

    fn form(&mut self, form: &Form, item: Option<&Path>) {
        match form {
            Form::Value(template, _) => self.template(template, item),
            Form::Object(fields) => self.fields(fields, item),
            Form::Gated(tests, form) => {
                for test in tests {
                    self.template(test, item);
                }
                self.form(form, item);
            }
            Form::List(items) => {
                for (gate, form) in items {
                    let inner = self.gate(gate, item);
                    self.form(form, inner.as_ref());
                }
            }
        }
    }
}
