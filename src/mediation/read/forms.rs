//! The account document as a profile may fill it: which fields there are and of what kind (CONTRACT s6).

use super::{Reader, kind_of};
use crate::mediation::profile::{Form, Gate};
use crate::vocabulary::Value;

/// What may stand at a place of the document.
pub(super) enum Shape {
    Text,
    /// Identifies something: half of it is another thing's.
    Key,
    Whole,
    Flag,
    Secret,
    Object(&'static [(&'static str, Shape)]),
    /// Items with `when` and `repeat`.
    Items(&'static [(&'static str, Shape)]),
    Texts,
    /// Free names.
    Words,
}

use Shape::{Flag, Items, Key, Object, Secret, Text, Texts, Whole, Words};

const ADDRESS: &[(&str, Shape)] =
    &[("line1", Text), ("line2", Text), ("city", Text), ("region", Text), ("postal_code", Text), ("country", Text)];

pub(super) const ACCOUNT: &[(&str, Shape)] = &[
    ("source_revision", Whole),
    ("status", Text),
    ("kind", Text),
    ("name", Text),
    ("email", Text),
    ("phone", Text),
    ("language", Text),
    ("tax_exempt", Flag),
    ("billing_address", Object(ADDRESS)),
    ("parent", Key),
    ("tier_label", Text),
    ("bill_cycle", Key),
    ("holds", Items(&[("kind", Text), ("treatment", Text), ("billing", Text), ("from", Text), ("until", Text)])),
    ("tags", Words),
];

pub(super) const DEVICE: &[(&str, Shape)] =
    &[("id", Key), ("cm_mac", Text), ("mta_mac", Text), ("model", Text), ("serial", Text)];

pub(super) const SERVICE: &[(&str, Shape)] = &[
    ("id", Key),
    ("type", Text),
    ("plan", Key),
    ("status", Text),
    ("device", Key),
    ("max_cpe", Whole),
    ("static_ips", Texts),
    ("radius", Object(&[("username", Key), ("password", Secret), ("framed_ip", Text), ("ipv6_delegated", Text)])),
    ("service_address", Object(ADDRESS)),
    (
        "lines",
        Items(&[
            ("port", Whole),
            ("number", Text),
            ("enabled", Flag),
            ("sip", Object(&[("user", Key), ("password", Secret), ("display_name", Text)])),
        ]),
    ),
    (
        "mailbox",
        Object(&[
            ("address", Key),
            ("password", Secret),
            ("quota_mb", Whole),
            ("aliases", Texts),
            ("forward_to", Texts),
            ("keep_copy", Flag),
        ]),
    ),
    ("network_from", Text),
    ("billing_from", Text),
    ("billing_until", Text),
    ("price_override", Text),
    ("addons", Items(&[("id", Key), ("plan", Key), ("quantity", Whole), ("from", Text), ("until", Text)])),
    ("promos", Items(&[("code", Text), ("from", Text), ("until", Text)])),
];

impl Reader<'_> {
    pub(super) fn form(&self, value: &Value<'_>, shape: &'static Shape) -> Option<Form> {
        match shape {
            Text | Key | Whole | Flag | Secret => {
                self.template(value).map(|template| Form::Value(template, kind_of(shape)))
            }
            Object(fields) => {
                let mut table = value.section()?;
                let when = self.tests(table.value("when"));
                let fields = self.fields(&mut table, fields);
                table.finish();
                Some(match when.is_empty() {
                    true => Form::Object(fields),
                    false => Form::Gated(when, Box::new(Form::Object(fields))),
                })
            }
            Words => {
                let mut fields = Vec::new();
                for (name, value) in value.section()?.entries() {
                    if let Some(template) = self.template(&value) {
                        fields.push((name, Form::Value(template, kind_of(&Text))));
                    }
                }
                Some(Form::Object(fields))
            }
            Texts => {
                let mut items = Vec::new();
                for value in value.list()? {
                    if let Some(template) = self.template(&value) {
                        items.push((Gate::default(), Form::Value(template, kind_of(&Text))));
                    }
                }
                Some(Form::List(items))
            }
            Items(fields) => {
                let mut items = Vec::new();
                for value in value.list()? {
                    let Some(mut table) = value.section() else { continue };
                    let gate = self.gate(&mut table);
                    let fields = self.fields(&mut table, fields);
                    table.finish();
                    items.push((gate, Form::Object(fields)));
                }
                Some(Form::List(items))
            }
        }
    }
}
