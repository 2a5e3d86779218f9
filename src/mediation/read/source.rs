//! `[read]` of a profile: where the records stand in the octets.

use std::sync::Arc;

use super::{path, unique};
use crate::mediation::function::pattern;
use crate::mediation::profile::{Counts, FixedField, Format, Group, Header, LineTest, Reading};
use crate::mediation::records::{Dialect, Encoding};
use crate::mediation::tree::{Path, Step};
use crate::vocabulary::{Section as Table, Value};

pub(super) fn reading(root: &mut Table<'_>, format: Format) -> Option<Reading> {
    let mut reading = Reading::default();
    if format == Format::Csv {
        reading.dialect = Some(Dialect::csv(','));
    }
    let Some(mut table) = root.value("read").and_then(|value| value.section()) else {
        if format == Format::Fixed {
            root.fault("format = \"fixed\" needs [read] with its `fields`");
            return None;
        }
        return Some(reading);
    };
    match format {
        Format::Json | Format::Xml => {
            reading.each = table.value("each").map(|value| members(&value)).unwrap_or_default();
            reading.count = table.value("count").map(|value| members(&value)).unwrap_or_default();
        }
        Format::Form | Format::Environment => {
            reading.encoding = encoding(&mut table);
        }
        Format::Csv | Format::Fixed => lines(&mut table, format, &mut reading),
    }
    table.finish();
    Some(reading)
}

fn lines(table: &mut Table<'_>, format: Format, reading: &mut Reading) {
    reading.encoding = encoding(table);
    reading.skip = table.sections("skip").into_iter().filter_map(line_test).collect();
    reading.stop = table.value("stop").and_then(|value| line_test(value.section()?));
    let by = table.text("group_by").map(Group::By);
    let start = table.value("group_start").and_then(|value| line_test(value.section()?)).map(Group::Start);
    reading.group = match (by, start) {
        (Some(_), Some(_)) => {
            table.fault("rows are put together by `group_by` or by `group_start`");
            Group::None
        }
        (by, start) => by.or(start).unwrap_or_default(),
    };
    if let Some(value) = table.value("trailer") {
        reading.trailer = value.text().and_then(|text| match pattern(text) {
            Ok(regex) if regex.captures_len() == 2 => Some(regex),
            Ok(_) => {
                value.fault("the pattern of a trailer has one group: the number it tells");
                None
            }
            Err(detail) => {
                value.fault(detail);
                None
            }
        });
    }
    reading.counts =
        table.choice("counts", &[("records", Counts::Records), ("rows", Counts::Rows)]).unwrap_or_default();
    if format == Format::Fixed {
        reading.fields = fields(table);
        reading.length = table.integer("length", 1..100_000).map(|length| length as usize);
        return;
    }
    let delimiter = table.value("delimiter").and_then(|value| letter(&value)).unwrap_or(',');
    let quote = match table.value("quote") {
        None => Some('"'),
        Some(value) if value.text() == Some("") => None,
        Some(value) => letter(&value),
    };
    if quote == Some(delimiter) {
        table.fault("`quote` and `delimiter` are one sign");
    }
    reading.dialect = Some(Dialect { delimiter, quote });
    reading.header = match table.value("header") {
        None => Header::First,
        Some(value) if value.is_list() => {
            let names: Vec<String> =
                value.list().unwrap_or_default().iter().filter_map(|name| name.text().map(str::to_owned)).collect();
            if let Err(twice) = unique(names.iter().filter(|name| !name.is_empty()).cloned()) {
                value.fault(format!("{twice:?} stands twice"));
            }
            Header::Given(names.into_iter().map(Arc::from).collect())
        }
        Some(value) => match value.flag() {
            Some(true) | None => Header::First,
            Some(false) => Header::Numbered,
        },
    };
    reading.optional = super::texts(table.value("optional"));
}

fn encoding(table: &mut Table<'_>) -> Encoding {
    table.choice("encoding", &[("utf-8", Encoding::Utf8), ("windows-1252", Encoding::Windows1252)]).unwrap_or_default()
}

/// `{ column = "c0", matches = "^H" }` or `{ line = "^H" }`.
fn line_test(mut table: Table<'_>) -> Option<LineTest> {
    let column = table.text("column");
    let (matches, line) = (table.value("matches"), table.value("line"));
    let value = match (&column, matches, line) {
        (Some(_), Some(value), None) | (None, None, Some(value)) => Some(value),
        _ => {
            table.fault("is { column = …, matches = … } or { line = … }");
            None
        }
    };
    table.finish();
    let value = value?;
    match pattern(value.text()?) {
        Ok(matches) => Some(LineTest { column, matches }),
        Err(detail) => {
            value.fault(detail);
            None
        }
    }
}

/// `name = [start, length]`, in letters, from 0.
fn fields(table: &mut Table<'_>) -> Vec<FixedField> {
    let Some(found) = table.required("fields").and_then(|value| value.section()) else { return Vec::new() };
    let mut fields = Vec::new();
    for (name, value) in found.entries() {
        match value.list().as_deref() {
            Some([start, length]) => {
                if let (Some(start), Some(length)) = (start.integer(0..100_000), length.integer(1..100_000)) {
                    fields.push(FixedField { name: Arc::from(name), start: start as usize, length: length as usize });
                }
            }
            Some(_) => value.fault("is [start, length]"),
            None => {}
        }
    }
    if fields.is_empty() {
        found.fault("names no field");
    }
    fields
}

fn letter(value: &Value<'_>) -> Option<char> {
    let text = value.text()?;
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) if !matches!(letter, '\n' | '\r') => Some(letter),
        _ => {
            value.fault("is one sign");
            None
        }
    }
}

/// A path of plain names.
fn members(value: &Value<'_>) -> Vec<Box<str>> {
    let Some(Path { steps, .. }) = path(value) else { return Vec::new() };
    let mut names = Vec::new();
    for step in steps {
        match step {
            Step::Member(name) => names.push(name),
            _ => value.fault("is a path of plain names"),
        }
    }
    names
}
