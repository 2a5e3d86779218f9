//! Ids and addresses of the faces: one text that names a thing of an account, the same for ever.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::vocabulary::{DEFAULT_SOURCE, SourceId};

/// Where the service activation API stands.
pub const ACTIVATION: &str = "/tmf-api/ServiceActivationAndConfiguration/v4";
/// Where the service inventory API stands.
pub const INVENTORY: &str = "/tmf-api/serviceInventory/v4";
/// Where the usage API stands.
pub const USAGE: &str = "/tmf-api/usageManagement/v4";
/// Where the customer bill API stands.
pub const BILLS: &str = "/tmf-api/customerBillManagement/v4";

/// Names a service of an account, or an entry of its ledger.
///
/// **Shape**: `account:item`, or `source:account:item` for another source than `default`; what is no letter, digit, `.`, `_`,
/// `-` or `@` is written `=` and two hexadecimal digits an octet. One thing has one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemId {
    pub source: SourceId,
    /// External id of the account.
    pub account: String,
    /// External id of the service, or number of the entry.
    pub item: String,
}

/// A text that is no such id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{MALFORMED}")]
pub struct ItemIdError;

/// For whoever sent a wrong one.
pub const MALFORMED: &str = "is no id of ours: it is account:service, or source:account:service";

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.as_str() != DEFAULT_SOURCE {
            write!(f, "{}:", self.source)?;
        }
        write!(f, "{}:{}", escaped(&self.account), escaped(&self.item))
    }
}

impl FromStr for ItemId {
    type Err = ItemIdError;

    fn from_str(text: &str) -> Result<Self, ItemIdError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, account, item) = match parts.as_slice() {
            [account, item] => (DEFAULT_SOURCE, account, item),
            [source, account, item] => (*source, account, item),
            _ => return Err(ItemIdError),
        };
        let plain = |part: &str| unescaped(part).filter(|part| !part.is_empty()).ok_or(ItemIdError);
        let source = SourceId::parse(source).map_err(|_| ItemIdError)?;
        let id = Self { source, account: plain(account)?, item: plain(item)? };
        // Of several ways to write it one is right, so that nobody keeps two ids of one thing.
        if id.to_string() == text { Ok(id) } else { Err(ItemIdError) }
    }
}

impl ItemId {
    /// The address of the service in the activation API.
    pub fn href(&self) -> String {
        format!("{ACTIVATION}/service/{self}")
    }

    /// The id in the address of a service, absolute or not, of whichever API.
    pub fn of_href(href: &str) -> Option<Self> {
        let (_, last) = href.trim_end_matches('/').rsplit_once("/service/")?;
        last.parse().ok()
    }
}

fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"._-@".contains(&octet)
}

fn escaped(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for octet in part.bytes() {
        match is_plain(octet) {
            true => text.push(char::from(octet)),
            false => text.push_str(&format!("={octet:02X}")),
        }
    }
    text
}

fn unescaped(part: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        if *first != b'=' {
            octets.push(*first);
            rest = others;
            continue;
        }
        let digits = std::str::from_utf8(others.get(..2)?).ok()?;
        octets.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &others[2..];
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(source: &str, account: &str, item: &str) -> ItemId {
        let source = SourceId::parse(source).expect("a source");
        ItemId { source, account: account.to_owned(), item: item.to_owned() }
    }

    #[test]
    fn an_id_is_short_where_it_can_be_and_never_needs_an_escape_in_an_address() {
        assert_eq!(id("default", "100234", "100234-1").to_string(), "100234:100234-1");
        assert_eq!(id("splynx", "7/b", "ä %").to_string(), "splynx:7=2Fb:=C3=A4=20=25");
        assert_eq!(ItemId::of_href("https://x.example/tmf-api/a/v4/service/1:2"), Some(id("default", "1", "2")));
        assert_eq!(ItemId::of_href("/service/1"), None);
    }

    #[test]
    fn a_second_way_to_write_an_id_is_refused() {
        for wrong in
            ["", "1", "1:", ":1", "default:1:2", "a:b:c:d", "=31:2", "1:=2f", "1:=2", "1:=GG", "1:a b", "1:=FF"]
        {
            assert!(wrong.parse::<ItemId>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_id_reads_as_it_was_written(source in "[a-z]{1,8}", account in "\\PC{1,12}", item in "\\PC{1,12}") {
            let id = id(&source, &account, &item);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            if let Ok(id) = text.parse::<ItemId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
