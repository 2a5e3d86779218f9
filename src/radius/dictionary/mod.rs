//! Names for numbers: attributes, vendors and values, read at run time from texts in FreeRADIUS syntax.
//!
//! In: dictionary texts (the shell reads the files). Out: a [`Dictionary`] to look names up in, or every fault with
//! `file:line`. For the wire it is only for people's eyes: nothing that is counted depends on a dictionary.

mod parse;

use std::collections::HashMap;

use super::packet::VendorFormat;
use crate::vocabulary::Fault;

/// Names of attributes, vendors and values.
#[derive(Debug, Clone, Default)]
pub struct Dictionary {
    vendors: HashMap<u32, VendorDefinition>,
    vendor_numbers: HashMap<String, u32>,
    attributes: HashMap<Path, AttributeDefinition>,
    attribute_paths: HashMap<String, Path>,
    /// By lower-case attribute name: attributes of the same name share their values.
    values: HashMap<String, HashMap<u64, String>>,
    /// By lower-case attribute name and lower-case value name: a number may have several names.
    value_numbers: HashMap<String, HashMap<String, u64>>,
}

/// Where an attribute stands: its vendor (0 = the standard space) and its number, TLV within TLV.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Path {
    pub vendor: u32,
    pub numbers: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VendorDefinition {
    pub name: String,
    pub format: VendorFormat,
}

/// What a dictionary says about one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeDefinition {
    pub name: String,
    pub kind: Kind,
    /// The first octet of the value is a tag (RFC 2868).
    pub has_tag: bool,
    /// The value is encrypted or a secret: it is never shown.
    pub hidden: bool,
    /// The value is a row of values.
    pub array: bool,
}

/// The type of a value. Widths are octets on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    String,
    Octets,
    /// Unsigned, big endian, of so many octets: 1, 2, 4 or 8.
    Unsigned(u8),
    /// Two's complement, 4 octets.
    Signed,
    Ipv4Address,
    Ipv6Address,
    /// 4 octets: IPv4, 16: IPv6.
    AnyAddress,
    Ipv4Prefix,
    Ipv6Prefix,
    InterfaceId,
    /// A MAC address.
    Ethernet,
    /// Seconds since 1970.
    Date,
    Tlv,
    VendorSpecific,
    /// RFC 6929 section 2.1.
    Extended,
    /// RFC 6929 section 2.2.
    LongExtended,
    /// RFC 6929 section 2.4.
    ExtendedVendorSpecific,
}

/// One text to read: its name for messages and its content.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub file: &'a str,
    pub text: &'a str,
}

impl Dictionary {
    /// The attributes of the RFCs that accounting uses, built in.
    pub fn standard() -> Self {
        let mut dictionary = Self::default();
        dictionary
            .extend(&[Source { file: "the built-in dictionary", text: STANDARD }], &|_| None)
            .expect("the built-in dictionary has no faults");
        dictionary
    }

    /// Adds texts, in order; a later definition replaces an earlier one.
    ///
    /// `include` gives the text of a file that `$INCLUDE` names, or `None` when there is none.
    /// **Errors**: every fault as `file:line`; the dictionary holds what was good.
    pub fn extend(
        &mut self,
        sources: &[Source<'_>],
        include: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), Vec<Fault>> {
        parse::extend(self, sources, include)
    }

    pub fn vendor(&self, number: u32) -> Option<&VendorDefinition> {
        self.vendors.get(&number)
    }

    /// A standard attribute by its number.
    pub fn attribute(&self, number: u8) -> Option<&AttributeDefinition> {
        self.at(0, &[u32::from(number)])
    }

    /// A vendor's attribute by its number.
    pub fn vendor_attribute(&self, vendor: u32, number: u32) -> Option<&AttributeDefinition> {
        self.at(vendor, &[number])
    }

    pub(super) fn at(&self, vendor: u32, numbers: &[u32]) -> Option<&AttributeDefinition> {
        self.attributes.get(&Path { vendor, numbers: numbers.to_vec() })
    }

    /// Where the attribute of a name stands and what it is: its vendor (0 is the standard space) and its numbers, TLV
    /// within TLV. The name may be in any case.
    pub fn named(&self, name: &str) -> Option<(u32, &[u32], &AttributeDefinition)> {
        let path = self.attribute_paths.get(&name.to_ascii_lowercase())?;
        Some((path.vendor, &path.numbers, self.attributes.get(path)?))
    }

    /// The (vendor, number) of a name in any case, vendor 0 being the standard space. `None` also for parts of a TLV.
    pub fn number(&self, name: &str) -> Option<(u32, u32)> {
        let path = self.attribute_paths.get(&name.to_ascii_lowercase())?;
        let &[number] = path.numbers.as_slice() else { return None };
        Some((path.vendor, number))
    }

    /// The name an attribute's value has.
    pub fn value_name(&self, attribute: &str, value: u64) -> Option<&str> {
        self.values.get(&attribute.to_ascii_lowercase())?.get(&value).map(String::as_str)
    }

    /// The number that a value's name stands for, in any case; a number may have several names.
    pub fn value_number(&self, attribute: &str, name: &str) -> Option<u64> {
        self.value_numbers.get(&attribute.to_ascii_lowercase())?.get(&name.to_ascii_lowercase()).copied()
    }

    /// How many attributes are known.
    pub fn len(&self) -> usize {
        self.attributes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }
}

const STANDARD: &str = include_str!("standard.txt");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_dictionary_names_what_accounting_carries() {
        let dictionary = Dictionary::standard();
        for (number, name) in [
            (1, "User-Name"),
            (40, "Acct-Status-Type"),
            (52, "Acct-Input-Gigawords"),
            (55, "Event-Timestamp"),
            (80, "Message-Authenticator"),
            (97, "Framed-IPv6-Prefix"),
            (123, "Delegated-IPv6-Prefix"),
            (168, "Framed-IPv6-Address"),
        ] {
            assert_eq!(dictionary.attribute(number).map(|found| found.name.as_str()), Some(name));
            assert_eq!(dictionary.number(&name.to_lowercase()), Some((0, u32::from(number))));
        }
        assert_eq!(dictionary.value_name("Acct-Status-Type", 3), Some("Interim-Update"));
        assert_eq!(dictionary.value_name("Acct-Terminate-Cause", 18), Some("Host-Request"));
        assert_eq!(dictionary.value_number("acct-terminate-cause", "host-request"), Some(18));
        assert_eq!(dictionary.value_number("Acct-Terminate-Cause", "nonsense"), None);
    }

    #[test]
    fn the_shipped_dictionaries_load_over_the_built_in_one_and_agree_with_it() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dictionaries");
        let built_in = Dictionary::standard();
        let mut dictionary = built_in.clone();
        let mut files: Vec<_> = std::fs::read_dir(&directory)
            .expect("the dictionaries directory")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dictionary.")))
            .collect();
        files.sort();
        assert!(files.len() >= 10, "{files:?}");
        for file in &files {
            let text = std::fs::read_to_string(file).expect("a text");
            assert!(text.contains("CC-BY"), "{} keeps its licence notice", file.display());
            let name = file.display().to_string();
            assert_eq!(dictionary.extend(&[Source { file: &name, text: &text }], &|_| None), Ok(()));
        }
        for (path, ours) in &built_in.attributes {
            let theirs = &dictionary.attributes[path];
            assert_eq!((&ours.name, ours.kind), (&theirs.name, theirs.kind), "{path:?}");
        }
        assert_eq!(dictionary.vendor(14988).map(|vendor| vendor.name.as_str()), Some("Mikrotik"));
        assert_eq!(dictionary.number("Mikrotik-Rate-Limit"), Some((14988, 8)));
    }

    #[test]
    fn every_dictionary_of_an_installed_freeradius_is_understood() {
        let directory = std::path::Path::new("/usr/share/freeradius");
        if !directory.join("dictionary").exists() {
            return;
        }
        let read = |name: &str| {
            let octets = std::fs::read(directory.join(name)).ok()?;
            Some(String::from_utf8_lossy(&octets).into_owned())
        };
        let text = read("dictionary").expect("the main file");
        let mut dictionary = Dictionary::default();
        let result = dictionary.extend(&[Source { file: "dictionary", text: &text }], &read);
        assert_eq!(result, Ok(()));
        assert!(dictionary.len() > 5000, "{}", dictionary.len());
    }
}
