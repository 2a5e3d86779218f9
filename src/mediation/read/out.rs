//! `[out.NAME]` of a profile: files in the source's own words.

use std::collections::BTreeMap;

use super::{Reader, unique, zone};
use crate::mediation::function::Customs;
use crate::mediation::template::Template;
use crate::mediation::tree::{Path, Step};
use crate::mediation::write::{Align, Cell, Out, OutFormat, RowForm, Subject};
use crate::vocabulary::{Section as Table, Value};

pub(super) fn outs(root: &mut Table<'_>, customs: &Customs) -> BTreeMap<String, Out> {
    let mut outs = BTreeMap::new();
    let Some(table) = root.value("out").and_then(|value| value.section()) else { return outs };
    for (name, value) in table.entries() {
        if let Some(table) = value.section()
            && let Some(out) =
                (OutReader { reader: Reader { vocabularies: &customs.vocabularies } }).out(table, customs)
        {
            outs.insert(name, out);
        }
    }
    outs
}

struct OutReader<'a> {
    reader: Reader<'a>,
}

impl OutReader<'_> {
    fn out(&self, mut table: Table<'_>, customs: &Customs) -> Option<Out> {
        let of = super::required_choice(&mut table, "of", &[("lines", Subject::Lines), ("usage", Subject::Usage)]);
        let format = super::required_choice(
            &mut table,
            "format",
            &[
                ("csv", OutFormat::Csv),
                ("fixed", OutFormat::Fixed),
                ("jsonl", OutFormat::JsonLines),
                ("xml", OutFormat::Xml),
            ],
        );
        let mut customs = customs.clone();
        if let Some(sign) = table.choice("decimal", &[(".", '.'), (",", ',')]) {
            customs.decimal = sign;
        }
        if let Some(zone) = table.value("timezone").and_then(|value| zone(&value)) {
            customs.zone = zone;
        }
        let when = self.reader.tests(table.value("when"));
        let delimiter = table.value("delimiter").and_then(|value| one_sign(&value)).unwrap_or(',');
        let quoted = table.flag("quoted").unwrap_or(true);
        let newline = table.choice("newline", &[("lf", "\n"), ("crlf", "\r\n")]).unwrap_or("\n");
        let names = table.flag("names").unwrap_or(true);
        let (root, element) = (table.text("root"), table.text("element"));
        let file = table.required("file").and_then(|value| self.template(&value));
        let columns = table.value("columns").map(|value| self.cells(&value));
        let rows: Vec<RowForm> = match (columns, table.value("rows")) {
            (Some(cells), None) => vec![RowForm { when: Vec::new(), cells }],
            (None, Some(value)) => value.list().into_iter().flatten().filter_map(|row| self.row(&row)).collect(),
            _ => {
                table.fault("has either `columns` or `rows`");
                Vec::new()
            }
        };
        let header = self.lists(table.value("header"));
        let trailer = self.lists(table.value("trailer"));
        let (of, format) = (of?, format?);
        self.check(&table, format, &rows, [&header, &trailer]);
        let xml_names = [root.as_deref().unwrap_or("lines"), element.as_deref().unwrap_or("line")];
        for name in xml_names {
            if !is_xml_name(name) {
                table.fault(format!("{name:?} is no name of an element"));
            }
        }
        let [root, element] = xml_names.map(str::to_owned);
        table.finish();
        Some(Out {
            of,
            format,
            customs,
            when,
            delimiter,
            quoted,
            newline,
            names,
            root,
            element,
            file: file?,
            header,
            rows,
            trailer,
        })
    }

    fn check(&self, table: &Table<'_>, format: OutFormat, rows: &[RowForm], more: [&[Vec<Cell>]; 2]) {
        let all = rows.iter().map(|row| &row.cells).chain(more.into_iter().flatten());
        for cells in all {
            if cells.is_empty() {
                table.fault("a row has no cells");
            }
            if format == OutFormat::Fixed && cells.iter().any(|cell| cell.width.is_none()) {
                table.fault("every cell of fixed columns has its `width`");
            }
            // Rounded money would no longer add up to what was billed.
            let money = |path: &Path| matches!(path.steps.last(), Some(Step::Member(name)) if matches!(&**name, "amount" | "amount_exact" | "sum" | "total" | "net" | "taxes"));
            if cells.iter().any(|cell| cell.template.rounds(money)) {
                table.fault("an amount is never rounded on its way out; write number('2')");
            }
            let named = matches!(format, OutFormat::JsonLines | OutFormat::Xml);
            if named && cells.iter().any(|cell| cell.name.is_none()) {
                table.fault("every column has its `name`");
            }
            if let Err(twice) = unique(cells.iter().filter_map(|cell| cell.name.clone())) {
                table.fault(format!("the column {twice:?} stands twice"));
            }
            if format == OutFormat::Xml && !cells.iter().flat_map(|cell| &cell.name).all(|name| is_xml_name(name)) {
                table.fault("a column's name is no name of an element");
            }
        }
        let plain = matches!(format, OutFormat::Csv | OutFormat::Fixed);
        if !plain && (rows.len() != 1 || more.into_iter().any(|rows| !rows.is_empty())) {
            table.fault("this format has `columns`, and no `rows`, `header` or `trailer`");
        }
    }

    /// A list of cells, or `{ when = …, cells = […] }`.
    fn row(&self, value: &Value<'_>) -> Option<RowForm> {
        if value.is_list() {
            return Some(RowForm { when: Vec::new(), cells: self.cells(value) });
        }
        let mut table = value.section()?;
        let when = self.reader.tests(table.value("when"));
        let cells = table.required("cells").map(|value| self.cells(&value)).unwrap_or_default();
        table.finish();
        Some(RowForm { when, cells })
    }

    fn lists(&self, value: Option<Value<'_>>) -> Vec<Vec<Cell>> {
        value.and_then(|value| value.list()).into_iter().flatten().map(|row| self.cells(&row)).collect()
    }

    fn cells(&self, value: &Value<'_>) -> Vec<Cell> {
        value.list().into_iter().flatten().filter_map(|cell| self.cell(&cell)).collect()
    }

    /// A template, or `{ name, value, width, align, pad, cut, number }`.
    fn cell(&self, value: &Value<'_>) -> Option<Cell> {
        if value.is_text() {
            return Some(Cell {
                name: None,
                template: self.template(value)?,
                width: None,
                align: Align::Left,
                pad: ' ',
                cut: false,
                number: false,
            });
        }
        let mut table = value.section()?;
        let name = table.text("name");
        let template = table.required("value").and_then(|value| self.template(&value));
        let width = table.integer("width", 1..1_000).map(|width| width as usize);
        let align = table.choice("align", &[("left", Align::Left), ("right", Align::Right)]).unwrap_or(Align::Left);
        let pad = table.value("pad").and_then(|value| one_sign(&value)).unwrap_or(' ');
        let cut = table.flag("cut").unwrap_or(false);
        let number = table.flag("number").unwrap_or(false);
        table.finish();
        Some(Cell { name, template: template?, width, align, pad, cut, number })
    }

    fn template(&self, value: &Value<'_>) -> Option<Template> {
        self.reader.template(value)
    }
}

fn one_sign(value: &Value<'_>) -> Option<char> {
    let text = value.text()?;
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) if !matches!(letter, '\n' | '\r' | '"') => Some(letter),
        _ => {
            value.fault("is one sign");
            None
        }
    }
}

fn is_xml_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.'))
        && !name.to_ascii_lowercase().starts_with("xml")
}
