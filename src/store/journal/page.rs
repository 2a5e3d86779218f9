//! A page: the records of one commit as the octets of one column.
//!
//! In: journal entries. Out: octets, and from octets the entries again, or that they are damaged. It allocates nothing
//! per record when it writes.
//!
//! **Shape** (integers and strings as in [`crate::vocabulary::octets`]):
//!
//! ```text
//! octet      version, 1
//! unsigned   number of NAS names, then each as a string
//! unsigned   number of sources, then each: octet 4, IPv4 address, port
//!                                        | octet 6, IPv6 address, port, flow, scope
//!                                        | octet 0, string
//! unsigned   number of records
//! a record   signed arrival since the record before it (the first: since 1970) in microseconds,
//!            unsigned place of its NAS name, unsigned place of its source, its packet as a string
//! 4 octets   CRC-32 (IEEE 802.3) of everything before it, big-endian
//! ```

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use super::{JournalEntry, PacketSource};
use crate::vocabulary::octets::{Input, Unreadable, put_octets, put_signed, put_unsigned};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// Records of one page at most: what one append may bring.
pub const PAGE_RECORDS_MAX: usize = 4096;

/// A page ready to be written, with what its row tells besides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Earliest and latest arrival, microseconds.
    pub arrived_from: i64,
    pub arrived_until: i64,
    pub body: Vec<u8>,
}

/// A record of a page, its packet still in the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageRecord<'a, 'n> {
    pub arrived_at: Timestamp,
    pub nas: &'n Arc<str>,
    pub source: &'n PacketSource,
    pub packet: &'a [u8],
}

impl PageRecord<'_, '_> {
    pub fn to_entry(self) -> JournalEntry {
        JournalEntry {
            arrived_at: self.arrived_at,
            nas: Arc::clone(self.nas),
            source: self.source.clone(),
            packet: self.packet.to_vec(),
        }
    }
}

/// Names that records speak of, each written once.
#[derive(Debug, Default)]
pub(super) struct Names {
    nas: Vec<Arc<str>>,
    sources: Vec<PacketSource>,
}

/// A page whose CRC is right, open for reading.
#[derive(Debug)]
pub(super) struct PageView<'a> {
    names: Names,
    records: usize,
    rest: Input<'a>,
}

/// Packs entries, at least one and at most [`PAGE_RECORDS_MAX`].
pub(super) fn encode(entries: &[JournalEntry]) -> Page {
    let (names, places) = Names::of(entries);
    let packets: usize = entries.iter().map(|entry| entry.packet.len()).sum();
    let mut body = Vec::with_capacity(packets + entries.len() * RECORD_OVERHEAD + NAMES_ROOM);
    body.push(VERSION);
    names.put(&mut body);
    put_unsigned(&mut body, entries.len() as u64);
    let (mut arrived_from, mut arrived_until, mut before) = (i64::MAX, i64::MIN, 0i64);
    for (entry, (nas, source)) in entries.iter().zip(places) {
        let arrived_at = to_micros(entry.arrived_at);
        (arrived_from, arrived_until) = (arrived_from.min(arrived_at), arrived_until.max(arrived_at));
        put_signed(&mut body, arrived_at.wrapping_sub(before));
        before = arrived_at;
        put_unsigned(&mut body, u64::from(nas));
        put_unsigned(&mut body, u64::from(source));
        put_octets(&mut body, &entry.packet);
    }
    seal(&mut body);
    Page { arrived_from, arrived_until, body }
}

impl<'a> PageView<'a> {
    /// **Errors**: the octets are damaged: the CRC is wrong, or no page of ours has that shape.
    pub fn open(body: &'a [u8]) -> Result<Self, Unreadable> {
        let mut rest = Input(checked(body)?);
        if rest.octet()? != VERSION {
            return Err(Unreadable);
        }
        let names = Names::take(&mut rest)?;
        let records = rest.count()?;
        Ok(Self { names, records, rest })
    }

    pub fn len(&self) -> usize {
        self.records
    }

    /// The records in their order.
    pub fn records(&self) -> impl Iterator<Item = Result<PageRecord<'a, '_>, Unreadable>> {
        let (mut rest, mut before) = (self.rest, 0i64);
        (0..self.records).map(move |_| {
            before = before.wrapping_add(rest.signed()?);
            let arrived_at = from_micros(before).ok_or(Unreadable)?;
            let nas = self.names.nas(rest.unsigned()?)?;
            let source = self.names.source(rest.unsigned()?)?;
            Ok(PageRecord { arrived_at, nas, source, packet: rest.octets()? })
        })
    }
}

impl Names {
    /// The names of these entries, and for each entry the places of its NAS and its source among them.
    pub fn of<'e>(entries: impl IntoIterator<Item = &'e JournalEntry>) -> (Self, Vec<(u32, u32)>) {
        let (mut nas, mut sources) = (Table::default(), Table::default());
        let places = entries.into_iter().map(|entry| (nas.place(&entry.nas), sources.place(&entry.source))).collect();
        (Self { nas: nas.names, sources: sources.names }, places)
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        put_unsigned(out, self.nas.len() as u64);
        self.nas.iter().for_each(|name| put_octets(out, name.as_bytes()));
        put_unsigned(out, self.sources.len() as u64);
        self.sources.iter().for_each(|source| put_source(out, source));
    }

    pub fn take(input: &mut Input<'_>) -> Result<Self, Unreadable> {
        let nas = (0..input.count()?).map(|_| take_text(input)).collect::<Result<_, _>>()?;
        let sources = (0..input.count()?).map(|_| take_source(input)).collect::<Result<_, _>>()?;
        Ok(Self { nas, sources })
    }

    pub fn nas(&self, place: u64) -> Result<&Arc<str>, Unreadable> {
        at(&self.nas, place)
    }

    pub fn source(&self, place: u64) -> Result<&PacketSource, Unreadable> {
        at(&self.sources, place)
    }
}

/// Names in the order of their first use.
struct Table<T> {
    names: Vec<T>,
    places: HashMap<T, u32>,
    last: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { names: Vec::new(), places: HashMap::new(), last: 0 }
    }
}

impl<T: Clone + Eq + Hash> Table<T> {
    fn place(&mut self, name: &T) -> u32 {
        // Neighbours mostly speak of the same, and comparing is cheaper than hashing.
        if self.names.get(self.last as usize) != Some(name) {
            self.last = *self.places.entry(name.clone()).or_insert_with(|| {
                self.names.push(name.clone());
                self.names.len() as u32 - 1
            });
        }
        self.last
    }
}

fn put_source(out: &mut Vec<u8>, source: &PacketSource) {
    match source {
        PacketSource::Peer(SocketAddr::V4(peer)) => {
            out.push(4);
            out.extend_from_slice(&peer.ip().octets());
            out.extend_from_slice(&peer.port().to_be_bytes());
        }
        PacketSource::Peer(SocketAddr::V6(peer)) => {
            out.push(6);
            out.extend_from_slice(&peer.ip().octets());
            out.extend_from_slice(&peer.port().to_be_bytes());
            out.extend_from_slice(&peer.flowinfo().to_be_bytes());
            out.extend_from_slice(&peer.scope_id().to_be_bytes());
        }
        PacketSource::Named(name) => {
            out.push(0);
            put_octets(out, name.as_bytes());
        }
    }
}

fn take_source(input: &mut Input<'_>) -> Result<PacketSource, Unreadable> {
    Ok(match input.octet()? {
        4 => {
            let address = Ipv4Addr::from(array(input)?);
            PacketSource::Peer(SocketAddrV4::new(address, u16::from_be_bytes(array(input)?)).into())
        }
        6 => {
            let address = Ipv6Addr::from(array(input)?);
            let port = u16::from_be_bytes(array(input)?);
            let flow = u32::from_be_bytes(array(input)?);
            PacketSource::Peer(SocketAddrV6::new(address, port, flow, u32::from_be_bytes(array(input)?)).into())
        }
        0 => PacketSource::Named(take_text(input)?),
        _ => return Err(Unreadable),
    })
}

fn take_text(input: &mut Input<'_>) -> Result<Arc<str>, Unreadable> {
    std::str::from_utf8(input.octets()?).map(Arc::from).map_err(|_| Unreadable)
}

fn array<const N: usize>(input: &mut Input<'_>) -> Result<[u8; N], Unreadable> {
    Ok(input.take(N)?.try_into().expect("N octets were taken"))
}

fn at<T>(names: &[T], place: u64) -> Result<&T, Unreadable> {
    usize::try_from(place).ok().and_then(|place| names.get(place)).ok_or(Unreadable)
}

/// Ends octets with their CRC.
pub(super) fn seal(body: &mut Vec<u8>) {
    let crc = crc32fast::hash(body);
    body.extend_from_slice(&crc.to_be_bytes());
}

/// Octets without their CRC, when it is right.
pub(super) fn checked(body: &[u8]) -> Result<&[u8], Unreadable> {
    let (content, crc) = body.split_last_chunk::<CHECKSUM_OCTETS>().ok_or(Unreadable)?;
    if crc32fast::hash(content) == u32::from_be_bytes(*crc) { Ok(content) } else { Err(Unreadable) }
}

/// What `seal` adds.
pub(super) const CHECKSUM_OCTETS: usize = 4;
/// First octet of every page this program writes.
const VERSION: u8 = 1;
/// Of a usual record besides its packet.
const RECORD_OVERHEAD: usize = 8;
const NAMES_ROOM: usize = 256;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(body: &[u8]) -> Result<Vec<JournalEntry>, Unreadable> {
        PageView::open(body)?.records().map(|record| record.map(PageRecord::to_entry)).collect()
    }

    fn source() -> impl Strategy<Value = PacketSource> {
        prop_oneof![
            any::<(u32, u16)>().prop_map(|(address, port)| SocketAddr::from((Ipv4Addr::from(address), port)).into()),
            any::<(u128, u16, u32, u32)>().prop_map(|(address, port, flow, scope)| {
                SocketAddr::from(SocketAddrV6::new(Ipv6Addr::from(address), port, flow, scope)).into()
            }),
            ".{0,12}".prop_map(|name: String| PacketSource::Named(name.into())),
        ]
    }

    pub fn entry() -> impl Strategy<Value = JournalEntry> {
        let packet = proptest::collection::vec(any::<u8>(), 0..80);
        (any::<i32>(), "[a-c]{0,2}", source(), packet).prop_map(|(seconds, nas, source, packet)| JournalEntry {
            arrived_at: from_micros(i64::from(seconds) * 1_000_003).expect("within the calendar"),
            nas: nas.into(),
            source,
            packet,
        })
    }

    proptest! {
        #[test]
        fn a_page_gives_back_what_was_packed(entries in proptest::collection::vec(entry(), 1..40)) {
            let page = encode(&entries);
            let arrivals = entries.iter().map(|entry| to_micros(entry.arrived_at));
            prop_assert_eq!(Some(page.arrived_from), arrivals.clone().min());
            prop_assert_eq!(Some(page.arrived_until), arrivals.max());
            prop_assert_eq!(PageView::open(&page.body).map(|view| view.len()), Ok(entries.len()));
            prop_assert_eq!(decode(&page.body), Ok(entries));
        }

        #[test]
        fn one_flipped_bit_is_noticed(entries in proptest::collection::vec(entry(), 1..10), place: proptest::sample::Index) {
            let mut body = encode(&entries).body;
            let bit = place.index(body.len() * 8);
            body[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(&body), Err(Unreadable));
        }

        #[test]
        fn any_octets_are_entries_or_refused(mut octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&octets);
            if let Some(first) = octets.first_mut() { *first = VERSION; }
            seal(&mut octets);
            if let Ok(entries) = decode(&octets) && !entries.is_empty() {
                prop_assert_eq!(decode(&encode(&entries).body), Ok(entries));
            }
        }
    }
}
