//! `[verify]` and `[frame]` of a profile: how a source proves that it is itself, and where its messages end.

use super::{Reader, required_choice};
use crate::mediation::frame::Frame;
use crate::mediation::verify::{Encoding, Hash, Verify};
use crate::vocabulary::Section as Table;

impl Reader<'_> {
    pub(super) fn verify(&self, mut table: Table<'_>) -> Option<Verify> {
        let by = required_choice(
            &mut table,
            "by",
            &[
                ("hmac", By::Hmac),
                ("header", By::Header),
                ("field", By::Field),
                ("callback", By::Callback),
                ("address", By::Address),
            ],
        );
        let verify = match by {
            Some(By::Hmac) => {
                let header = header(&mut table);
                let hash = required_choice(&mut table, "hash", &[("sha1", Hash::Sha1), ("sha256", Hash::Sha256)]);
                let words = [("hex", Encoding::Hexadecimal), ("base64", Encoding::Base64)];
                let encoding = table.choice("encoding", &words).unwrap_or(Encoding::Hexadecimal);
                let prefix = table.text("prefix").unwrap_or_default();
                header.zip(hash).map(|(header, hash)| Verify::Hmac { header, hash, encoding, prefix })
            }
            Some(By::Header) => header(&mut table).map(|header| Verify::Header { header }),
            Some(By::Field) => {
                let value = table.required("value").and_then(|value| self.template(&value));
                value.map(|value| Verify::Field { value })
            }
            Some(By::Callback) => {
                let path = table.required("path").and_then(|value| self.template(&value));
                path.map(|path| Verify::Callback { path })
            }
            Some(By::Address) => Some(Verify::Address),
            None => None,
        };
        table.finish();
        verify
    }
}

#[derive(Clone, Copy)]
enum By {
    Hmac,
    Header,
    Field,
    Callback,
    Address,
}

fn header(table: &mut Table<'_>) -> Option<String> {
    let value = table.required("header")?;
    let name = value.text()?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        value.fault("is no name of a header");
        return None;
    }
    Some(name.to_ascii_lowercase())
}

pub(super) fn frame(mut table: Table<'_>) -> Option<Frame> {
    let end = table.value("end").and_then(|value| match value.text() {
        Some("") => {
            value.fault("is empty: no message would end");
            None
        }
        text => text.map(|text| Frame::End(text.as_bytes().to_vec())),
    });
    let length = table.integer("length", 1..5).and_then(|octets| u8::try_from(octets).ok()).map(Frame::Length);
    if end.is_some() == length.is_some() {
        table.fault("is { end = \"…\" } or { length = 1 to 4 }");
    }
    table.finish();
    end.or(length)
}
