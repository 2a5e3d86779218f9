//! `record show LANE:SEQ`: one journalled accounting record, decoded by the dictionaries, and what is read from it.

use std::str::FromStr;

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::collector::dictionaries;
use crate::daemon::config::Config;
use crate::radius::{Decoded, IdentityRule, NasRule, PacketView, Profile, decode, record};
use crate::store::clock::{self, ClockOffset};
use crate::store::journal::{self, Found, JournalRow};
use crate::usage::Record;
use crate::vocabulary::to_micros;

/// The commands of `lastmile record`.
#[derive(Subcommand)]
pub enum RecordCommand {
    /// Show one record: where it came from, every attribute, and what is counted from it.
    Show {
        /// Its place in the journal, for example 3:1207.
        #[arg(value_name = "LANE:SEQ")]
        place: Place,
    },
}

/// A record's place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    lane: i64,
    seq: i64,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = text.split_once(':').and_then(|(lane, seq)| Some((lane.parse().ok()?, seq.parse().ok()?)));
        match place {
            Some((lane, seq)) if lane > 0 && seq > 0 => Ok(Self { lane, seq }),
            _ => Err("write the lane and the number in it, for example 3:1207".to_owned()),
        }
    }
}

/// Runs one of them.
pub async fn run(command: RecordCommand, context: &Context) -> Result<Exit, CliError> {
    let RecordCommand::Show { place } = command;
    let config = context.config()?;
    let store = context.store().await?;
    let mut tx = store.read_journal().await?;
    let found = journal::record(&mut tx, place.lane, place.seq).await?;
    drop(tx);
    let mut main = store.read().await?;
    let offsets = clock::all(&mut main).await?;
    drop(main);
    store.close().await;
    let Place { lane, seq } = place;
    let row = match found {
        Found::Here(row) => row,
        Found::Nothing => return Ok(context.not_found(&format!("No record {lane}:{seq} in the journal."))),
        Found::Dropped(run) => {
            let whence = run.archive.map_or_else(
                || "that day was dropped from the journal".to_owned(),
                |file| format!("that day was archived to {file} and dropped; `lastmile journal read` reads it"),
            );
            return Ok(context.not_found(&format!("Record {lane}:{seq} arrived on {}: {whence}.", run.day_on)));
        }
    };
    let view = PacketView::parse(&row.entry.packet)
        .map_err(|fault| CliError::failed(format!("record {}:{} is damaged: {fault}", row.lane, row.seq)))?;
    let attributes = decode(&view, &dictionary(&config));
    let reading = read(&config, &row, &view).map(|mut record| {
        let offsets: Vec<ClockOffset> = offsets.into_iter().filter(|offset| offset.nas == record.nas).collect();
        let offset = clock::in_force(&offsets, to_micros(record.arrived_at));
        if offset != 0 {
            record.correct_clock(offset);
        }
        record
    });
    if context.json {
        context.print_json(&document(&row, &view, &attributes, &reading))?;
    } else {
        context.print(&page(&row, &view, &attributes, &reading))?;
    }
    Ok(Exit::Done)
}

/// The dictionaries of the configuration; a broken one is told and the built-in one serves.
pub(super) fn dictionary(config: &Config) -> crate::radius::Dictionary {
    let paths = config.radius.as_ref().map_or(&[][..], |radius| &radius.dictionaries);
    dictionaries::load(paths).unwrap_or_else(|faults| {
        for fault in faults {
            eprintln!("lastmile: {}: {}", fault.pointer, fault.detail);
        }
        crate::radius::Dictionary::standard()
    })
}

/// What is counted from the record, or the sentence why a person must look at it. A NAS that left the configuration is
/// read by the default rules.
pub(super) fn read(config: &Config, row: &JournalRow, view: &PacketView<'_>) -> Result<Record, String> {
    let nas = config.radius.iter().flat_map(|radius| &radius.nas).find(|nas| *nas.name == *row.entry.nas);
    let identity = nas.map_or(IdentityRule::Client, |nas| nas.identity);
    let profile = nas.map_or(Profile::standard(), |nas| &nas.profile);
    let rule = NasRule { name: &row.entry.nas, identity, profile };
    record(view, &rule, row.entry.arrived_at).map_err(|fault| fault.to_string())
}

fn document(
    row: &JournalRow,
    view: &PacketView<'_>,
    attributes: &[Decoded],
    reading: &Result<Record, String>,
) -> Value {
    let read = match reading {
        Err(fault) => json!({ "quarantined": fault }),
        Ok(record) => json!({
            "nas": record.nas,
            "session": record.session,
            "kind": record.kind.to_string(),
            "user": record.user,
            "event_at": record.event_at,
            "session_seconds": record.session_seconds,
            "in_octets": record.in_octets,
            "out_octets": record.out_octets,
            "framed_ip": record.framed_ip,
            "billed": !record.counting.informative,
            "doubts": doubts(record),
        }),
    };
    json!({
        "record": format!("{}:{}", row.lane, row.seq),
        "arrived_at": row.entry.arrived_at,
        "nas": *row.entry.nas,
        "source": row.entry.source.to_string(),
        "code": view.code(),
        "identifier": view.identifier(),
        "octets": view.octets().len(),
        "attributes": attributes,
        "read": read,
    })
}

fn page(row: &JournalRow, view: &PacketView<'_>, attributes: &[Decoded], reading: &Result<Record, String>) -> String {
    let mut page = format!(
        "Record {}:{}, {} octets from {} ({}), arrived {}\n\n",
        row.lane,
        row.seq,
        view.octets().len(),
        row.entry.source,
        row.entry.nas,
        row.entry.arrived_at
    );
    let width = attributes.iter().map(|found| found.name.len()).max().unwrap_or(0);
    for found in attributes {
        page.push_str(&format!("  {:width$}  {}\n", found.name, found.value));
    }
    page.push('\n');
    match reading {
        Err(fault) => page.push_str(&format!("Quarantined: {fault}. It was answered and counts for nobody.\n")),
        Ok(record) => {
            page.push_str(&format!(
                "Read as {} of session {:?} at {}, event at {}",
                record.kind, record.session, record.nas, record.event_at
            ));
            for (octets, direction) in [(record.in_octets, "up"), (record.out_octets, "down")] {
                if let Some(octets) = octets {
                    page.push_str(&format!(", {octets} octets {direction}"));
                }
            }
            page.push_str(".\n");
            if record.counting.informative {
                page.push_str("Another session tells of the same octets: this one is shown, and never billed.\n");
            }
            for doubt in doubts(record) {
                page.push_str(&format!("Doubt: {doubt}.\n"));
            }
        }
    }
    page
}

fn doubts(record: &Record) -> Vec<&'static str> {
    let flags = record.flags;
    [
        (
            flags.clock_doubtful,
            "the NAS's clock is off; the event is dated by what is known of the clock, or by its arrival",
        ),
        (flags.identity_missing, "the attribute that tells NAS apart is missing; the client's name stands in"),
        (flags.counter_doubtful, "a counter is larger than can be stored and was left out"),
    ]
    .into_iter()
    .filter_map(|(doubtful, doubt)| doubtful.then_some(doubt))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_two_numbers() {
        assert_eq!("3:1207".parse(), Ok(Place { lane: 3, seq: 1207 }));
        for text in ["", "3", "3:", ":7", "0:1", "1:-1", "a:1"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
