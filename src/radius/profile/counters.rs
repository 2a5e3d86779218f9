//! Where the octets of a report stand, and reading them: parts of several attributes, units, 64-bit and per-queue forms.
//!
//! In: a packet view and a profile's counter groups. Out: exact sums of both directions, or why they cannot be read.

use super::super::attribute;
use super::super::packet::{PacketView, VendorFormat, VendorSpecific};
use super::super::record::Uninterpretable;
use super::Profile;

/// Counters that together hold the octets of both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterGroup {
    /// Each report counts from the one before it, not from the session's start (H3C 201 to 206).
    pub interval: bool,
    /// Added up. Never empty.
    pub input: Vec<Part>,
    pub output: Vec<Part>,
}

/// One counter: an attribute with its unit, and the one that holds the upper half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub octets: Place,
    /// Absent in a packet it is 0: some NAS send it only once it is more.
    pub gigawords: Option<Place>,
    /// Octets of one count.
    pub unit: u64,
    pub form: Form,
    pub repeated: Repeated,
}

/// An attribute by its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    /// 0 is the standard space.
    pub vendor: u32,
    pub format: VendorFormat,
    /// TLV within TLV. Never empty.
    pub numbers: Vec<u32>,
}

/// How a counter's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// 4 octets.
    Integer,
    /// 8 octets.
    Integer64,
    /// 10 octets: which queue or policer (2), its counter (8). One attribute a queue; the queues are added up.
    Queue,
}

/// What an attribute means that stands in one packet several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// The same value again is a copy; another value cannot be understood.
    Same,
    /// Each is a part of the sum.
    Sum,
}

/// What a packet counts. At most a few thousand 64-bit values times a unit, so that the sums cannot leave `u128`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub input: Option<u128>,
    pub output: Option<u128>,
    /// These counters do not start again at 2^32: a Gigawords attribute, 64-bit values, or a unit other than the octet.
    pub wide: bool,
    pub interval: bool,
}

/// Reads both directions, as the NAS names them.
pub fn count(view: &PacketView<'_>, profile: &Profile) -> Result<Counted, Uninterpretable> {
    let holds =
        |group: &&CounterGroup| group.input.iter().chain(&group.output).any(|part| part.octets.first(view).is_some());
    let groups = &profile.counters;
    let chosen = if groups.len() > 1 { groups.iter().find(holds) } else { None };
    let Some(group) = chosen.or(groups.first()) else { return Ok(Counted::default()) };
    let mut wide = false;
    let mut sum = |parts: &[Part]| -> Result<Option<u128>, Uninterpretable> {
        let mut total = None;
        for part in parts {
            if let Some(octets) = part.read(view, &mut wide)? {
                total = Some(total.unwrap_or(0) + octets);
            }
        }
        Ok(total)
    };
    let (input, output) = (sum(&group.input)?, sum(&group.output)?);
    Ok(Counted { input, output, wide, interval: group.interval })
}

impl Part {
    fn read(&self, view: &PacketView<'_>, wide: &mut bool) -> Result<Option<u128>, Uninterpretable> {
        let counts = self.octets.sum(view, self.form, self.repeated)?;
        let gigawords = match &self.gigawords {
            Some(place) => place.sum(view, Form::Integer, self.repeated)?,
            None => None,
        };
        *wide |= gigawords.is_some() || counts.is_some() && (self.form != Form::Integer || self.unit != 1);
        // Gigawords without octets say nothing about the low half; a NAS that counts always sends both.
        Ok(counts.map(|counts| ((gigawords.unwrap_or(0) << 32) + counts) * u128::from(self.unit)))
    }
}

impl Place {
    /// The first value of the packet.
    pub fn first<'a>(&self, view: &PacketView<'a>) -> Option<&'a [u8]> {
        let mut first = None;
        self.each(view, &mut |value| {
            first.get_or_insert(value);
        });
        first
    }

    /// Every value in the packet's order.
    fn each<'a>(&self, view: &PacketView<'a>, take: &mut dyn FnMut(&'a [u8])) {
        if self.vendor == 0 {
            let kind = u8::try_from(self.numbers[0]).ok();
            kind.into_iter().flat_map(|kind| view.all(kind)).for_each(take);
            return;
        }
        let specifics = view.all(attribute::VENDOR_SPECIFIC).filter_map(VendorSpecific::parse);
        for specific in specifics.filter(|specific| specific.vendor == self.vendor) {
            within(specific, self.format, &self.numbers, take);
        }
    }

    fn sum(&self, view: &PacketView<'_>, form: Form, repeated: Repeated) -> Result<Option<u128>, Uninterpretable> {
        let mut fault = None;
        let mut total: Option<u128> = None;
        let mut seen: Option<(&[u8], u64)> = None;
        let mut others: Vec<(&[u8], u64)> = Vec::new();
        self.each(view, &mut |value| {
            let Some((of, number)) = form.read(value) else {
                let (octets, wanted) = (value.len(), form.width());
                let attribute = self.name.clone().into();
                fault.get_or_insert(Uninterpretable::Length { attribute, octets, wanted });
                return;
            };
            if repeated == Repeated::Same {
                match seen.iter().chain(&others).find(|(other, _)| *other == of) {
                    Some((_, same)) if *same == number => return,
                    Some(_) => {
                        fault.get_or_insert(Uninterpretable::Ambiguous(self.name.clone().into()));
                        return;
                    }
                    None if seen.is_none() => seen = Some((of, number)),
                    None => others.push((of, number)),
                }
            }
            total = Some(total.unwrap_or(0) + u128::from(number));
        });
        fault.map_or(Ok(total), Err)
    }
}

/// The values at `numbers` inside a vendor's attribute, TLV within TLV.
fn within<'a>(outer: VendorSpecific<'a>, format: VendorFormat, numbers: &[u32], take: &mut dyn FnMut(&'a [u8])) {
    let Some((number, deeper)) = numbers.split_first() else { return };
    for inner in outer.attributes(format).into_iter().flatten().filter(|inner| inner.kind == *number) {
        if deeper.is_empty() {
            take(inner.value);
        } else {
            let inner = VendorSpecific { vendor: outer.vendor, data: inner.value };
            within(inner, VendorFormat::default(), deeper, take);
        }
    }
}

impl Form {
    /// What the counter is of (a queue, or nothing in particular), and its value.
    fn read(self, value: &[u8]) -> Option<(&[u8], u64)> {
        match self {
            Self::Integer => Some((&[], u32::from_be_bytes(value.try_into().ok()?).into())),
            Self::Integer64 => Some((&[], u64::from_be_bytes(value.try_into().ok()?))),
            Self::Queue => {
                let (queue, counter) = value.split_at_checked(2)?;
                Some((queue, u64::from_be_bytes(counter.try_into().ok()?)))
            }
        }
    }

    fn width(self) -> usize {
        match self {
            Self::Integer => 4,
            Self::Integer64 => 8,
            Self::Queue => 10,
        }
    }
}
