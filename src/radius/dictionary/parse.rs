//! Reads FreeRADIUS dictionary syntax line by line.
//!
//! ```text
//! VENDOR        NAME NUMBER [format=TYPE,LENGTH[,c]]
//! BEGIN-VENDOR  NAME [format=EVS-ATTRIBUTE]           END-VENDOR NAME
//! BEGIN-TLV     NAME                                  END-TLV    NAME
//! ATTRIBUTE     NAME NUMBER[.NUMBER…] TYPE [FLAG[,FLAG…] | VENDOR]
//! VALUE         ATTRIBUTE NAME NUMBER
//! $INCLUDE      FILE                                  # a comment
//! ```
//! Anything else is a fault with `file:line`; reading goes on, so that every fault is told at once.

use super::{AttributeDefinition, Dictionary, Kind, Path, Source, VendorDefinition};
use crate::radius::VendorFormat;
use crate::vocabulary::{Fault, Faults};

pub(super) fn extend(
    dictionary: &mut Dictionary,
    sources: &[Source<'_>],
    include: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Vec<Fault>> {
    let mut reader = Reader { dictionary, include, faults: Faults::new(), named_values: Vec::new(), included: 0 };
    for source in sources {
        reader.text(*source, 0);
    }
    // A VALUE may stand before its ATTRIBUTE, also in another file.
    for (place, attribute) in reader.named_values {
        if !reader.dictionary.attribute_paths.contains_key(&attribute.to_ascii_lowercase()) {
            reader.faults.add(place, format!("VALUE for {attribute}, which no ATTRIBUTE defines"));
        }
    }
    reader.faults.settle(())
}

struct Reader<'a> {
    dictionary: &'a mut Dictionary,
    include: &'a dyn Fn(&str) -> Option<String>,
    faults: Faults,
    /// Place and attribute name of every VALUE line.
    named_values: Vec<(String, String)>,
    /// Files read because another one names them.
    included: usize,
}

/// Which BEGIN lines are open in a file.
#[derive(Default)]
struct Scope {
    vendor: u32,
    /// Attribute that an extended vendor space hangs under.
    base: Option<Path>,
    tlvs: Vec<Path>,
}

impl Reader<'_> {
    fn text(&mut self, source: Source<'_>, depth: usize) {
        let mut scope = Scope::default();
        for (index, line) in source.text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = content.split_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            let place = format!("{}:{}", source.file, index + 1);
            if let Err(detail) = self.line(&words, &mut scope, &place, depth) {
                self.faults.add(place, detail);
            }
        }
        if scope.vendor != 0 || !scope.tlvs.is_empty() {
            self.faults.add(format!("{}:{}", source.file, source.text.lines().count()), "a BEGIN has no END");
        }
    }

    fn line(&mut self, words: &[&str], scope: &mut Scope, place: &str, depth: usize) -> Result<(), String> {
        match (words[0].to_ascii_uppercase().as_str(), &words[1..]) {
            ("$INCLUDE", &[file]) => self.included(file, depth, false),
            ("$INCLUDE-", &[file]) => self.included(file, depth, true),
            ("VENDOR", &[name, number]) => self.vendor(name, number, None),
            ("VENDOR", &[name, number, format]) => self.vendor(name, number, Some(format)),
            ("BEGIN-VENDOR", &[name, ref format @ ..]) => self.begin_vendor(name, format, scope),
            ("END-VENDOR", &[name]) => {
                if self.vendor_number(name)? != scope.vendor {
                    return Err(format!("END-VENDOR {name} ends no open BEGIN-VENDOR"));
                }
                *scope = Scope::default();
                Ok(())
            }
            ("BEGIN-TLV", &[name]) => {
                scope.tlvs.push(self.path(name)?);
                Ok(())
            }
            ("END-TLV", &[name]) => {
                let ended = self.path(name)?;
                scope
                    .tlvs
                    .pop()
                    .filter(|open| *open == ended)
                    .map(drop)
                    .ok_or_else(|| format!("END-TLV {name} ends no open BEGIN-TLV"))
            }
            ("ATTRIBUTE", &[name, number, kind, ref flags @ ..]) => self.attribute(name, number, kind, flags, scope),
            ("VALUE", &[attribute, name, number]) => {
                let number = integer(number)?;
                let values = self.dictionary.values.entry(attribute.to_ascii_lowercase()).or_default();
                values.insert(number, name.to_owned());
                let numbers = self.dictionary.value_numbers.entry(attribute.to_ascii_lowercase()).or_default();
                numbers.insert(name.to_ascii_lowercase(), number);
                self.named_values.push((place.to_owned(), attribute.to_owned()));
                Ok(())
            }
            (
                keyword @ ("$INCLUDE" | "VENDOR" | "BEGIN-VENDOR" | "END-VENDOR" | "BEGIN-TLV" | "END-TLV"
                | "ATTRIBUTE" | "VALUE"),
                rest,
            ) => Err(format!("{keyword} with {} words behind it", rest.len())),
            _ => Err(format!("{:?} is no dictionary keyword", words[0])),
        }
    }

    fn included(&mut self, file: &str, depth: usize, optional: bool) -> Result<(), String> {
        if depth >= INCLUDE_DEPTH_MAX {
            return Err(format!("$INCLUDE {file} is nested more than {INCLUDE_DEPTH_MAX} deep"));
        }
        self.included += 1;
        if self.included > INCLUDES_MAX {
            return Err(format!("$INCLUDE {file} is more than the {INCLUDES_MAX}th"));
        }
        match (self.include)(file) {
            Some(text) => self.text(Source { file, text: &text }, depth + 1),
            None if optional => {}
            None => return Err(format!("$INCLUDE {file}: there is no such file")),
        }
        Ok(())
    }

    fn vendor(&mut self, name: &str, number: &str, format: Option<&str>) -> Result<(), String> {
        let number = short(number)?;
        let format = format.map_or(Ok(VendorFormat::default()), vendor_format)?;
        self.dictionary.vendor_numbers.insert(name.to_ascii_lowercase(), number);
        self.dictionary.vendors.insert(number, VendorDefinition { name: name.to_owned(), format });
        Ok(())
    }

    fn vendor_number(&self, name: &str) -> Result<u32, String> {
        let number = self.dictionary.vendor_numbers.get(&name.to_ascii_lowercase());
        number.copied().ok_or_else(|| format!("no VENDOR line names {name}"))
    }

    fn begin_vendor(&mut self, name: &str, format: &[&str], scope: &mut Scope) -> Result<(), String> {
        let number = self.vendor_number(name)?;
        if scope.vendor != 0 {
            return Err(format!("BEGIN-VENDOR {name} inside another vendor"));
        }
        scope.vendor = number;
        scope.base = match format {
            [] => None,
            [format] => {
                let evs = format.strip_prefix("format=").ok_or_else(|| format!("{format:?} is no format="))?;
                Some(self.path(evs)?)
            }
            more => return Err(format!("BEGIN-VENDOR {name} with {} words behind it", more.len())),
        };
        Ok(())
    }

    fn path(&self, attribute: &str) -> Result<Path, String> {
        let path = self.dictionary.attribute_paths.get(&attribute.to_ascii_lowercase());
        path.cloned().ok_or_else(|| format!("no ATTRIBUTE line names {attribute}"))
    }

    fn attribute(&mut self, name: &str, number: &str, kind: &str, flags: &[&str], scope: &Scope) -> Result<(), String> {
        let own: Vec<u32> = number.split('.').map(short).collect::<Result<_, _>>()?;
        let mut path = match (scope.tlvs.last(), &scope.base) {
            (Some(tlv), _) => Path { vendor: tlv.vendor, numbers: [&tlv.numbers[..], &own].concat() },
            // An extended vendor space has the vendor's number as a step of its path.
            (None, Some(base)) => Path { vendor: 0, numbers: [&base.numbers[..], &[scope.vendor], &own].concat() },
            (None, None) => Path { vendor: scope.vendor, numbers: own },
        };
        let mut definition = AttributeDefinition {
            name: name.to_owned(),
            kind: kind_of(kind)?,
            has_tag: false,
            hidden: false,
            array: false,
        };
        for flag in flags.iter().flat_map(|flags| flags.split(',')).filter(|flag| !flag.is_empty()) {
            match flag {
                "has_tag" => definition.has_tag = true,
                "array" => definition.array = true,
                "secret" => definition.hidden = true,
                "concat" | "virtual" => {}
                _ if flag.starts_with("encrypt=") => definition.hidden = true,
                // The form before BEGIN-VENDOR existed.
                vendor => {
                    path.vendor =
                        self.vendor_number(vendor).map_err(|_| format!("{vendor:?} is neither a flag nor a vendor"))?;
                }
            }
        }
        self.dictionary.attribute_paths.insert(name.to_ascii_lowercase(), path.clone());
        self.dictionary.attributes.insert(path, definition);
        Ok(())
    }
}

fn kind_of(text: &str) -> Result<Kind, String> {
    // `octets[16]` fixes a length; a value of another length is shown all the same.
    let plain = text.split('[').next().unwrap_or_default().to_ascii_lowercase();
    Ok(match plain.as_str() {
        "string" | "text" => Kind::String,
        "octets" | "abinary" => Kind::Octets,
        "byte" | "uint8" => Kind::Unsigned(1),
        "short" | "uint16" => Kind::Unsigned(2),
        "integer" | "uint32" => Kind::Unsigned(4),
        "integer64" | "uint64" => Kind::Unsigned(8),
        "signed" | "int32" => Kind::Signed,
        "ipaddr" | "ipv4addr" => Kind::Ipv4Address,
        "ipv6addr" => Kind::Ipv6Address,
        "combo-ip" => Kind::AnyAddress,
        "ipv4prefix" => Kind::Ipv4Prefix,
        "ipv6prefix" => Kind::Ipv6Prefix,
        "ifid" => Kind::InterfaceId,
        "ether" => Kind::Ethernet,
        "date" => Kind::Date,
        "tlv" => Kind::Tlv,
        "vsa" => Kind::VendorSpecific,
        "extended" => Kind::Extended,
        "long-extended" => Kind::LongExtended,
        "evs" => Kind::ExtendedVendorSpecific,
        _ => return Err(format!("{text:?} is no attribute type")),
    })
}

fn vendor_format(text: &str) -> Result<VendorFormat, String> {
    let wrong = || format!("{text:?} is no vendor format; write format=1,1");
    let parts: Vec<&str> = text.strip_prefix("format=").ok_or_else(wrong)?.split(',').collect();
    let (kind, length, continuation) = match parts.as_slice() {
        [kind, length] => (kind, length, false),
        [kind, length, "c"] => (kind, length, true),
        _ => return Err(wrong()),
    };
    match (kind.parse(), length.parse()) {
        (Ok(type_octets @ (1 | 2 | 4)), Ok(length_octets @ 0..=2)) => {
            Ok(VendorFormat { type_octets, length_octets, continuation })
        }
        _ => Err(wrong()),
    }
}

fn integer(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| format!("{text:?} is no number"))
}

fn short(text: &str) -> Result<u32, String> {
    u32::try_from(integer(text)?).map_err(|_| format!("{text} is too big a number"))
}

const INCLUDE_DEPTH_MAX: usize = 16;
/// A file that names itself twice would double with each depth. FreeRADIUS has some 250 files.
const INCLUDES_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Dictionary, Vec<String>) {
        let mut dictionary = Dictionary::standard();
        let include = |file: &str| (file == "more").then(|| "ATTRIBUTE From-More 250 byte".to_owned());
        let faults = dictionary.extend(&[Source { file: "d", text }], &include).err().unwrap_or_default();
        (dictionary, faults.into_iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect())
    }

    #[test]
    fn vendors_attributes_and_values_are_read() {
        let (dictionary, faults) = read(
            "VENDOR Acme 65000 format=2,1 # ours\nBEGIN-VENDOR Acme\nATTRIBUTE Acme-Mode 0x0101 integer has_tag\n\
             ATTRIBUTE Acme-Key 2 string encrypt=2\nEND-VENDOR Acme\nVALUE Acme-Mode On 0x1\n$INCLUDE more\n",
        );
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(dictionary.vendor(65000).map(|vendor| vendor.format.type_octets), Some(2));
        let mode = dictionary.vendor_attribute(65000, 0x0101).expect("defined");
        assert!(mode.has_tag && !mode.hidden);
        assert!(dictionary.vendor_attribute(65000, 2).is_some_and(|key| key.hidden));
        assert_eq!(dictionary.value_name("ACME-MODE", 1), Some("On"));
        assert_eq!(dictionary.attribute(250).map(|found| found.kind), Some(Kind::Unsigned(1)));
    }

    #[test]
    fn every_fault_is_told_with_its_line() {
        let (_, faults) = read(
            "ATTRIBUTE A 300x integer\nPROTOCOL RADIUS 1\n\nATTRIBUTE B 200 colour\nATTRIBUTE C 201 integer spicy\n\
             VALUE Nobody X 1\nBEGIN-VENDOR Missing\nVENDOR V 1 format=3,1\n$INCLUDE nowhere\nVALUE X\nEND-TLV User-Name\n",
        );
        assert_eq!(
            faults,
            [
                "d:1: \"300x\" is no number",
                "d:2: \"PROTOCOL\" is no dictionary keyword",
                "d:4: \"colour\" is no attribute type",
                "d:5: \"spicy\" is neither a flag nor a vendor",
                "d:7: no VENDOR line names Missing",
                "d:8: \"format=3,1\" is no vendor format; write format=1,1",
                "d:9: $INCLUDE nowhere: there is no such file",
                "d:10: VALUE with 1 words behind it",
                "d:11: END-TLV User-Name ends no open BEGIN-TLV",
                "d:6: VALUE for Nobody, which no ATTRIBUTE defines",
            ]
        );
    }

    #[test]
    fn an_open_vendor_and_an_endless_include_are_faults() {
        assert_eq!(read("VENDOR V 1\nBEGIN-VENDOR V\n").1, ["d:2: a BEGIN has no END"]);
        let mut dictionary = Dictionary::default();
        let itself = |_: &str| Some("$INCLUDE d".to_owned());
        let faults = dictionary.extend(&[Source { file: "d", text: "$INCLUDE d" }], &itself).expect_err("endless");
        assert!(faults[0].detail.contains("nested more than 16 deep"), "{faults:?}");
        let twice = |_: &str| Some("$INCLUDE d\n$INCLUDE d".to_owned());
        let faults = dictionary.extend(&[Source { file: "d", text: "$INCLUDE d" }], &twice).expect_err("endless");
        assert!(faults.iter().any(|fault| fault.detail.contains("more than the 2000th")), "{}", faults.len());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(lines in proptest::collection::vec(
            "((VENDOR|BEGIN-VENDOR|END-VENDOR|ATTRIBUTE|VALUE|BEGIN-TLV|END-TLV|\\$INCLUDE) )?[a-zA-Z0-9=,.# -]{0,30}", 0..12,
        )) {
            read(&lines.join("\n"));
        }
    }
}
