//! Bytes become a JSON value, or a fault with its place: no duplicate keys, no deep nesting, no bytes that are not UTF-8.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::vocabulary::{Fault, Faults};

/// Nesting that no honest account document reaches.
pub const DEPTH_MAX: usize = 32;

/// Reads one JSON document strictly (RFC 8259).
///
/// **Errors**: syntax (one fault naming line and column), duplicate keys (one fault each), nesting beyond `DEPTH_MAX`.
pub fn read(bytes: &[u8]) -> Result<Value, Vec<Fault>> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        vec![Fault {
            pointer: String::new(),
            detail: format!("the body is not UTF-8: byte {} is wrong", error.valid_up_to()),
        }]
    })?;
    let faults = RefCell::new(Faults::new());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let seed = Strict { place: &Place::Root, depth: 0, faults: &faults };
    let outcome = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    let mut faults = faults.into_inner();
    match outcome {
        Ok(value) => faults.settle(value),
        Err(error) => {
            if error.is_data() {
                // Our own refusal (depth) has already been noted with its pointer.
                return Err(faults.into_vec());
            }
            faults.add("", format!("the body is not JSON: {error}"));
            Err(faults.into_vec())
        }
    }
}

/// Joins a pointer and one more step (RFC 6901 s3: `~` and `/` are escaped).
pub fn step(pointer: &str, key: &str) -> String {
    let mut longer = String::with_capacity(pointer.len() + key.len() + 1);
    longer.push_str(pointer);
    longer.push('/');
    for character in key.chars().take(KEY_SHOWN) {
        match character {
            '~' => longer.push_str("~0"),
            '/' => longer.push_str("~1"),
            other => longer.push(other),
        }
    }
    longer
}

const KEY_SHOWN: usize = 128;
const DUPLICATES_SHOWN: usize = 100;

enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn pointer(&self) -> String {
        match self {
            Place::Root => String::new(),
            Place::Key(parent, key) => step(&parent.pointer(), key),
            Place::Index(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

struct Strict<'a> {
    place: &'a Place<'a>,
    depth: usize,
    faults: &'a RefCell<Faults>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Strict<'_> {
    fn deeper<E: Error>(&self) -> Result<usize, E> {
        if self.depth >= DEPTH_MAX {
            self.faults.borrow_mut().add(self.place.pointer(), format!("is nested deeper than {DEPTH_MAX} levels"));
            return Err(E::custom("too deep"));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) => Ok(Value::Number(number)),
            None => {
                self.faults.borrow_mut().add(self.place.pointer(), "is no finite number");
                Ok(Value::Null)
            }
        }
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut list = Vec::new();
        loop {
            let place = Place::Index(self.place, list.len());
            match items.next_element_seed(Strict { place: &place, depth, faults: self.faults })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut map = Map::new();
        let mut duplicates = 0;
        while let Some(key) = entries.next_key::<String>()? {
            let place = Place::Key(self.place, &key);
            let value = entries.next_value_seed(Strict { place: &place, depth, faults: self.faults })?;
            if map.contains_key(&key) {
                duplicates += 1;
                if duplicates <= DUPLICATES_SHOWN {
                    self.faults.borrow_mut().add(place.pointer(), "is written twice in the same object");
                }
                continue;
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only_fault(text: &str) -> (String, String) {
        let faults = read(text.as_bytes()).expect_err(text);
        assert_eq!(faults.len(), 1, "{faults:?}");
        (faults[0].pointer.clone(), faults[0].detail.clone())
    }

    #[test]
    fn honest_json_is_read_as_it_is() {
        let value = read(br#"{"a": [1, -2, 1.5, "x", null, true], "b": {}}"#).expect("JSON");
        assert_eq!(value, serde_json::json!({"a": [1, -2, 1.5, "x", null, true], "b": {}}));
    }

    #[test]
    fn duplicate_keys_are_named_by_pointer() {
        assert_eq!(only_fault(r#"{"a": {"b/c": 1, "b/c": 2}}"#).0, "/a/b~1c");
        assert_eq!(only_fault(r#"[{"a": 1, "a": 1}]"#).0, "/0/a");
    }

    #[test]
    fn deep_nesting_is_refused_without_recursing_on() {
        let deep = "[".repeat(100_000);
        assert!(only_fault(&deep).1.contains("nested deeper"));
        let objects = "{\"a\":".repeat(5_000);
        assert!(only_fault(&objects).1.contains("nested deeper"));
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_line() {
        for text in ["", "{", "{\"a\": NaN}", "{\"a\": Infinity}", "{'a': 1}", "{\"a\": 1,}", "nul", "{} {}", "[1e999]"]
        {
            assert!(only_fault(text).1.contains("line 1 column"), "{text}");
        }
        assert!(read(b"{\"a\": \"\xff\"}").expect_err("bytes")[0].detail.contains("UTF-8"));
    }
}
