//! Walks a JSON value field by field, noting each fault with its pointer and going on, so that one answer names them all.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::json::step;
use super::text;
use crate::vocabulary::{Date, Fault, Faults, Secret, Timestamp};

/// Where faults are gathered while several nodes of a document are looked at.
#[derive(Default)]
pub(crate) struct Sink(RefCell<Gathered>);

#[derive(Default)]
struct Gathered {
    faults: Faults,
    count: usize,
}

/// More faults than this help nobody and would make the answer longer than the body.
const FAULTS_MAX: usize = 500;

impl Sink {
    pub(crate) fn add(&self, pointer: impl Into<String>, detail: impl Into<String>) {
        let mut gathered = self.0.borrow_mut();
        gathered.count += 1;
        match gathered.count {
            count if count <= FAULTS_MAX => gathered.faults.add(pointer, detail),
            count if count == FAULTS_MAX + 1 => {
                gathered.faults.add("", format!("has more than {FAULTS_MAX} faults; the rest is not listed"));
            }
            _ => {}
        }
    }

    pub(crate) fn into_faults(self) -> Vec<Fault> {
        self.0.into_inner().faults.into_vec()
    }
}

/// One value and where it stands.
pub(crate) struct Node<'a> {
    pub(crate) value: &'a Value,
    pub(crate) pointer: String,
    pub(crate) sink: &'a Sink,
}

/// The fields of one object.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    pub(crate) pointer: String,
    sink: &'a Sink,
}

/// A field whose absence and whose `null` mean different things.
pub(crate) enum Presence<'a> {
    Absent,
    Null,
    Given(Node<'a>),
}

impl<'a> Node<'a> {
    pub(crate) fn root(value: &'a Value, sink: &'a Sink) -> Self {
        Self { value, pointer: String::new(), sink }
    }

    pub(crate) fn fault(&self, detail: impl Into<String>) {
        self.sink.add(self.pointer.clone(), detail);
    }

    fn wrong_type(&self, wanted: &str) {
        self.fault(format!("must be {wanted}, not {}", type_word(self.value)));
    }

    /// The object's fields; every field not in `allowed` is a fault.
    pub(crate) fn fields(&self, allowed: &[&str]) -> Option<Fields<'a>> {
        let Some(map) = self.value.as_object() else {
            self.wrong_type("an object");
            return None;
        };
        for key in map.keys().filter(|key| !allowed.contains(&key.as_str())) {
            self.sink.add(step(&self.pointer, key), "is not a field here; `tags` is for extras");
        }
        Some(Fields { map, pointer: self.pointer.clone(), sink: self.sink })
    }

    /// The object's entries under keys of the sender's choice, at most `max`.
    pub(crate) fn entries(&self, max: usize) -> Vec<(&'a String, Node<'a>)> {
        let Some(map) = self.value.as_object() else {
            self.wrong_type("an object");
            return Vec::new();
        };
        if map.len() > max {
            self.fault(format!("has {} entries, more than {max}", map.len()));
            return Vec::new();
        }
        let entry = |(key, value): (&'a String, &'a Value)| {
            (key, Node { value, pointer: step(&self.pointer, key), sink: self.sink })
        };
        map.iter().map(entry).collect()
    }

    pub(crate) fn list(&self, max: usize) -> Vec<Node<'a>> {
        let Some(items) = self.value.as_array() else {
            self.wrong_type("a list");
            return Vec::new();
        };
        if items.len() > max {
            self.fault(format!("has {} entries, more than {max}", items.len()));
            return Vec::new();
        }
        let item = |(index, value): (usize, &'a Value)| Node {
            value,
            pointer: format!("{}/{index}", self.pointer),
            sink: self.sink,
        };
        items.iter().enumerate().map(item).collect()
    }

    fn string(&self) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type("a string");
        }
        text
    }

    /// A text of 1 to `max` characters without control characters.
    pub(crate) fn text(&self, max: usize) -> Option<String> {
        self.checked(|text| text::plain(text, max).map(str::to_owned))
    }

    /// A text that becomes a type; the type's error is the fault.
    pub(crate) fn parsed<T>(&self) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.checked(|text| {
            text::plain(text, text::LONG)?;
            text.parse().map_err(|error: T::Err| error.to_string())
        })
    }

    pub(crate) fn checked<T>(&self, check: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match check(self.string()?) {
            Ok(value) => Some(value),
            Err(detail) => {
                self.fault(detail);
                None
            }
        }
    }

    pub(crate) fn secret(&self) -> Option<Secret> {
        self.checked(|text| text::plain(text, text::SECRET_MAX).map(Secret::new))
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.wrong_type("true or false");
        }
        value
    }

    pub(crate) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let Some(number) = self.value.as_i64() else {
            self.wrong_type("a whole number");
            return None;
        };
        if !range.contains(&number) {
            self.fault(format!("is {number}; allowed is {} to {}", range.start(), range.end()));
            return None;
        }
        Some(number)
    }

    pub(crate) fn date(&self) -> Option<Date> {
        self.checked(text::date)
    }

    pub(crate) fn instant(&self) -> Option<Timestamp> {
        self.checked(text::instant)
    }
}

impl<'a> Fields<'a> {
    /// A field that is there and not null.
    pub(crate) fn optional(&self, key: &str) -> Option<Node<'a>> {
        match self.presence(key) {
            Presence::Given(node) => Some(node),
            Presence::Absent | Presence::Null => None,
        }
    }

    pub(crate) fn required(&self, key: &str) -> Option<Node<'a>> {
        let node = self.optional(key);
        if node.is_none() {
            self.fault(key, "is required");
        }
        node
    }

    pub(crate) fn presence(&self, key: &str) -> Presence<'a> {
        match self.map.get(key) {
            None => Presence::Absent,
            Some(Value::Null) => Presence::Null,
            Some(value) => Presence::Given(Node { value, pointer: step(&self.pointer, key), sink: self.sink }),
        }
    }

    pub(crate) fn text(&self, key: &str, max: usize) -> Option<String> {
        self.optional(key)?.text(max)
    }

    /// The entries of a list field; absent and null are the empty list.
    pub(crate) fn list(&self, key: &str, max: usize) -> Vec<Node<'a>> {
        self.optional(key).map(|node| node.list(max)).unwrap_or_default()
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> bool {
        self.optional(key).and_then(|node| node.boolean()).unwrap_or(default)
    }

    pub(crate) fn fault(&self, key: &str, detail: impl Into<String>) {
        self.sink.add(step(&self.pointer, key), detail);
    }
}

fn type_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
