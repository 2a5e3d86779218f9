//! A sealed page: records of a run in the order of their sessions, compressed.
//!
//! In: records with their `seq`. Out: octets, and from octets the records again, or that they are damaged. Packets of
//! one kind of NAS bear the same attributes in the same order, so a page holds each such order once and the values of
//! an attribute one beside another, the first octets of all before the second ones: that alone saves a third, and LZ4
//! finds the rest. (zstd makes a tenth less of it for three times the time and a C library.)
//!
//! **Shape** (integers and strings as in [`crate::vocabulary::octets`], names as in [`super::page`]):
//!
//! ```text
//! octet      version, 1
//! unsigned   octets of the content
//! …          the content as one LZ4 block
//! 4 octets   CRC-32 (IEEE 802.3) of everything before it, big-endian
//!
//! content:
//! names      of NAS and of sources
//! unsigned   number of records, then for all of them, one column after another:
//!            signed seq since the record before, signed arrival since the record before in microseconds,
//!            unsigned place of the NAS name, unsigned place of the source,
//!            unsigned order: 0 is a packet kept whole, n the nth of the following
//! unsigned   number of orders, each a string: type and length of every attribute in turn
//!            for all packets that have one: their codes, their identifiers, their authenticators
//!            for all packets kept whole: the packet as a string
//!            for every (type, length) in the order of first mention: the values, turned: all first octets, all second …
//! ```

use std::collections::HashMap;

use super::page::{Names, checked, seal};
use super::{JournalEntry, JournalRow};
use crate::vocabulary::octets::{Input, Unreadable, put_octets, put_signed, put_unsigned};
use crate::vocabulary::{from_micros, to_micros};

/// Packs records in the order given.
pub(super) fn pack(rows: &[JournalRow]) -> Vec<u8> {
    let (names, places) = Names::of(rows.iter().map(|row| &row.entry));
    let mut shapes = Shapes::default();
    let orders: Vec<u32> = rows.iter().map(|row| shapes.take(&row.entry.packet)).collect();
    let mut content = Vec::with_capacity(rows.iter().map(|row| row.entry.packet.len() + RECORD_OVERHEAD).sum());
    names.put(&mut content);
    put_unsigned(&mut content, rows.len() as u64);
    put_differences(&mut content, rows.iter().map(|row| row.seq));
    put_differences(&mut content, rows.iter().map(|row| to_micros(row.entry.arrived_at)));
    places.iter().for_each(|(nas, _)| put_unsigned(&mut content, u64::from(*nas)));
    places.iter().for_each(|(_, source)| put_unsigned(&mut content, u64::from(*source)));
    orders.iter().for_each(|order| put_unsigned(&mut content, u64::from(*order)));
    shapes.put(&mut content);
    let mut body = vec![VERSION];
    put_unsigned(&mut body, content.len() as u64);
    let head = body.len();
    body.resize(head + lz4_flex::block::get_maximum_output_size(content.len()), 0);
    let length = lz4_flex::block::compress_into(&content, &mut body[head..]).expect("there is room for the worst case");
    body.truncate(head + length);
    seal(&mut body);
    body
}

/// The records of a sealed page, in its order.
///
/// **Errors**: the octets are damaged: the CRC is wrong, or no page of ours has that shape.
pub(super) fn unpack(lane: i64, body: &[u8]) -> Result<Vec<JournalRow>, Unreadable> {
    let mut input = Input(checked(body)?);
    if input.octet()? != VERSION {
        return Err(Unreadable);
    }
    let length = usize::try_from(input.unsigned()?).ok().filter(|length| *length <= CONTENT_MAX).ok_or(Unreadable)?;
    let content = lz4_flex::block::decompress(input.0, length).map_err(|_| Unreadable)?;
    let mut input = Input(&content);
    let names = Names::take(&mut input)?;
    let count = input.count()?;
    let seqs = take_differences(&mut input, count)?;
    let arrivals = take_differences(&mut input, count)?;
    let nas = take_unsigned(&mut input, count)?;
    let sources = take_unsigned(&mut input, count)?;
    let orders = take_unsigned(&mut input, count)?;
    let mut packets = Packets::take(&mut input, &orders)?;
    let mut rows = Vec::with_capacity(count);
    for at in 0..count {
        let entry = JournalEntry {
            arrived_at: from_micros(arrivals[at]).ok_or(Unreadable)?,
            nas: names.nas(nas[at])?.clone(),
            source: names.source(sources[at])?.clone(),
            packet: packets.next(orders[at])?,
        };
        rows.push(JournalRow { lane, seq: seqs[at], entry });
    }
    Ok(rows)
}

/// Packets taken apart.
#[derive(Default)]
struct Shapes {
    places: HashMap<Box<[u8]>, u32>,
    orders: Vec<Order>,
    columns: Vec<Column>,
    column_of: HashMap<(u8, u8), usize>,
    codes: Vec<u8>,
    identifiers: Vec<u8>,
    authenticators: Vec<u8>,
    whole: Vec<u8>,
    scratch: Vec<u8>,
}

struct Order {
    pairs: Box<[u8]>,
    columns: Vec<usize>,
}

/// Values of one attribute type and length.
struct Column {
    width: usize,
    values: Vec<u8>,
}

impl Shapes {
    /// Takes a packet in and gives the place of its order; 0 when it is kept whole.
    fn take(&mut self, packet: &[u8]) -> u32 {
        self.scratch.clear();
        if !pairs_of(packet, &mut self.scratch) {
            put_octets(&mut self.whole, packet);
            return 0;
        }
        let place = match self.places.get(&self.scratch[..]) {
            Some(place) => *place,
            None => self.learn(),
        };
        self.codes.push(packet[0]);
        self.identifiers.push(packet[1]);
        self.authenticators.extend_from_slice(&packet[4..HEADER]);
        let mut at = HEADER;
        for column in &self.orders[place as usize - 1].columns {
            let column = &mut self.columns[*column];
            column.values.extend_from_slice(&packet[at + 2..at + 2 + column.width]);
            at += 2 + column.width;
        }
        place
    }

    fn learn(&mut self) -> u32 {
        let pairs: Box<[u8]> = self.scratch.as_slice().into();
        let columns = pairs
            .chunks_exact(2)
            .map(|pair| {
                *self.column_of.entry((pair[0], pair[1])).or_insert_with(|| {
                    self.columns.push(Column { width: usize::from(pair[1]) - 2, values: Vec::new() });
                    self.columns.len() - 1
                })
            })
            .collect();
        self.orders.push(Order { pairs: pairs.clone(), columns });
        let place = self.orders.len() as u32;
        self.places.insert(pairs, place);
        place
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_unsigned(out, self.orders.len() as u64);
        self.orders.iter().for_each(|order| put_octets(out, &order.pairs));
        out.extend_from_slice(&self.codes);
        out.extend_from_slice(&self.identifiers);
        out.extend_from_slice(&self.authenticators);
        out.extend_from_slice(&self.whole);
        for column in &self.columns {
            for octet in 0..column.width {
                out.extend(column.values.iter().skip(octet).step_by(column.width));
            }
        }
    }
}

/// Packets being put together again.
struct Packets<'a> {
    orders: Vec<(&'a [u8], Vec<usize>)>,
    columns: Vec<Turned<'a>>,
    codes: &'a [u8],
    identifiers: &'a [u8],
    authenticators: &'a [u8],
    whole: std::vec::IntoIter<&'a [u8]>,
    taken: usize,
}

struct Turned<'a> {
    width: usize,
    count: usize,
    taken: usize,
    values: &'a [u8],
}

impl<'a> Packets<'a> {
    fn take(input: &mut Input<'a>, order_places: &[u64]) -> Result<Self, Unreadable> {
        let (mut orders, mut columns) = (Vec::new(), Vec::<Turned<'a>>::new());
        let mut column_of: HashMap<(u8, u8), usize> = HashMap::new();
        for _ in 0..input.count()? {
            let pairs = input.octets()?;
            if pairs.len() % 2 != 0 || pairs.chunks_exact(2).any(|pair| pair[1] < 2) {
                return Err(Unreadable);
            }
            let places: Vec<usize> = pairs
                .chunks_exact(2)
                .map(|pair| {
                    *column_of.entry((pair[0], pair[1])).or_insert_with(|| {
                        columns.push(Turned { width: usize::from(pair[1]) - 2, count: 0, taken: 0, values: &[] });
                        columns.len() - 1
                    })
                })
                .collect();
            orders.push((pairs, places));
        }
        let mut whole = 0;
        for place in order_places {
            match place.checked_sub(1) {
                None => whole += 1,
                Some(place) => {
                    let order = usize::try_from(place).ok().and_then(|place| orders.get(place)).ok_or(Unreadable)?;
                    order.1.iter().for_each(|column| columns[*column].count += 1);
                }
            }
        }
        let apart = order_places.len() - whole;
        let codes = input.take(apart)?;
        let identifiers = input.take(apart)?;
        let authenticators = input.take(apart * 16)?;
        let whole: Vec<&[u8]> = (0..whole).map(|_| input.octets()).collect::<Result<_, _>>()?;
        for column in &mut columns {
            column.values = input.take(column.count * column.width)?;
        }
        if !input.is_empty() {
            return Err(Unreadable);
        }
        Ok(Self { orders, columns, codes, identifiers, authenticators, whole: whole.into_iter(), taken: 0 })
    }

    fn next(&mut self, place: u64) -> Result<Vec<u8>, Unreadable> {
        let Some(place) = place.checked_sub(1) else { return Ok(self.whole.next().ok_or(Unreadable)?.to_vec()) };
        let (pairs, places) = &self.orders[usize::try_from(place).map_err(|_| Unreadable)?];
        let length = HEADER + pairs.chunks_exact(2).map(|pair| usize::from(pair[1])).sum::<usize>();
        let mut packet = Vec::with_capacity(length);
        packet.push(self.codes[self.taken]);
        packet.push(self.identifiers[self.taken]);
        packet.extend_from_slice(&u16::try_from(length).map_err(|_| Unreadable)?.to_be_bytes());
        packet.extend_from_slice(&self.authenticators[self.taken * 16..][..16]);
        self.taken += 1;
        for (pair, column) in pairs.chunks_exact(2).zip(places) {
            let column = &mut self.columns[*column];
            packet.extend_from_slice(pair);
            packet.extend((0..column.width).map(|octet| column.values[octet * column.count + column.taken]));
            column.taken += 1;
        }
        Ok(packet)
    }
}

/// Type and length of every attribute; `false` when the packet cannot be put together again from them.
fn pairs_of(packet: &[u8], pairs: &mut Vec<u8>) -> bool {
    let said = packet.get(2..4).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
    if packet.len() < HEADER || said != Some(packet.len()) {
        return false;
    }
    let mut rest = &packet[HEADER..];
    while let [kind, length, ..] = *rest {
        let Some((_, next)) = rest.split_at_checked(usize::from(length)).filter(|_| length >= 2) else { return false };
        pairs.extend_from_slice(&[kind, length]);
        rest = next;
    }
    rest.is_empty()
}

fn put_differences(out: &mut Vec<u8>, values: impl Iterator<Item = i64>) {
    let mut before = 0i64;
    for value in values {
        put_signed(out, value.wrapping_sub(before));
        before = value;
    }
}

fn take_differences(input: &mut Input<'_>, count: usize) -> Result<Vec<i64>, Unreadable> {
    let mut before = 0i64;
    let mut next = || {
        before = before.wrapping_add(input.signed()?);
        Ok(before)
    };
    (0..count).map(|_| next()).collect()
}

fn take_unsigned(input: &mut Input<'_>, count: usize) -> Result<Vec<u64>, Unreadable> {
    (0..count).map(|_| input.unsigned()).collect()
}

/// Code, identifier, length and authenticator (RFC 2866 section 3).
const HEADER: usize = 20;
/// First octet of every sealed page this program writes.
const VERSION: u8 = 1;
/// Content that is believed; a page of the largest packets is far smaller.
const CONTENT_MAX: usize = 16 * 1024 * 1024;
const RECORD_OVERHEAD: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::page::tests::entry;
    use super::*;
    use proptest::prelude::*;

    /// A packet whose attributes fill it exactly, as a NAS sends them.
    fn packet() -> impl Strategy<Value = Vec<u8>> {
        let value = proptest::collection::vec(any::<u8>(), 0..6);
        let attributes = proptest::collection::vec((40u8..44, value), 0..6);
        (any::<[u8; 18]>(), attributes).prop_map(|(head, attributes)| {
            let mut packet = head[..2].to_vec();
            packet.extend_from_slice(&[0, 0]);
            packet.extend_from_slice(&head[2..]);
            for (kind, value) in attributes {
                packet.extend_from_slice(&[kind, 2 + value.len() as u8]);
                packet.extend_from_slice(&value);
            }
            packet[3] = packet.len() as u8;
            packet
        })
    }

    fn row() -> impl Strategy<Value = JournalRow> {
        (any::<i64>(), entry(), proptest::option::weighted(0.8, packet())).prop_map(|(seq, mut entry, packet)| {
            entry.packet = packet.unwrap_or(entry.packet);
            JournalRow { lane: 3, seq, entry }
        })
    }

    proptest! {
        #[test]
        fn a_sealed_page_gives_back_what_was_packed(rows in proptest::collection::vec(row(), 0..40)) {
            prop_assert_eq!(unpack(3, &pack(&rows)), Ok(rows));
        }

        #[test]
        fn one_flipped_bit_is_noticed(rows in proptest::collection::vec(row(), 1..10), place: proptest::sample::Index) {
            let mut body = pack(&rows);
            let bit = place.index(body.len() * 8);
            body[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(unpack(3, &body), Err(Unreadable));
        }

        #[test]
        fn any_content_is_records_or_refused(
            rows in proptest::collection::vec(row(), 1..5),
            wrong in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let body = pack(&rows);
            let mut input = Input(&body[1..body.len() - 4]);
            let length = input.unsigned().expect("a length");
            let mut content = lz4_flex::block::decompress(input.0, length as usize).expect("content");
            for (place, octet) in wrong {
                let place = place.index(content.len());
                content[place] = octet;
            }
            let mut body = vec![VERSION];
            put_unsigned(&mut body, content.len() as u64);
            body.extend_from_slice(&lz4_flex::block::compress(&content));
            seal(&mut body);
            let _ = unpack(3, &body);
        }
    }

    #[test]
    fn reports_of_one_nas_shrink_to_what_differs() {
        let rows: Vec<JournalRow> = (0..512u32)
            .map(|number| {
                let attributes = [(40, 3), (46, number * 600), (42, number * 7919), (8, 0x0a00_0000 + number)];
                let mut packet = vec![4, number as u8, 0, 44];
                packet.extend_from_slice(&[7; 16]);
                for (kind, value) in attributes {
                    packet.extend_from_slice(&[kind, 6]);
                    packet.extend_from_slice(&u32::to_be_bytes(value));
                }
                let arrived_at = from_micros(1_780_000_000_000_000 + i64::from(number)).expect("an instant");
                let source = std::net::SocketAddr::from(([192, 0, 2, 1], 1813)).into();
                let entry = JournalEntry { arrived_at, nas: "bng1".into(), source, packet };
                JournalRow { lane: 1, seq: i64::from(number), entry }
            })
            .collect();
        let body = pack(&rows);
        assert!(body.len() < 512 * 12, "{} octets for 512 records of 44", body.len());
        assert_eq!(unpack(1, &body), Ok(rows));
    }
}
