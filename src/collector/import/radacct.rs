//! Rows of `radacct` come in: from FreeRADIUS's database, or from a CSV dump of the table.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::detail::source_of;
use super::place::{NasChoice, NasHints};
use super::{Candidate, ImportError, Importer};
use crate::collector::NasTable;
use crate::radius::{Dictionary, RadacctRow};
use crate::store::foreign::radacct::{RadacctTable, shown};
use crate::store::journal::{JournalEntry, PacketSource};
use crate::vocabulary::{Secret, Zone};

/// How rows are read.
pub struct RadacctReader<'a> {
    pub nas: &'a NasTable,
    pub dictionary: &'a Dictionary,
    pub choice: &'a NasChoice,
    /// Of instants without an offset; `None`: they are refused.
    pub zone: Option<&'a Zone>,
}

/// Whether a source is a database's URL.
pub fn is_database(source: &str) -> bool {
    source.contains("://")
}

/// Reads the table behind a URL. Lines of messages are `radacctid`s.
pub async fn import_table(
    importer: &mut Importer<'_>,
    reader: &RadacctReader<'_>,
    url: &str,
) -> Result<(), ImportError> {
    importer.begin(&shown(url));
    let mut table = RadacctTable::open(url).await?;
    let source = PacketSource::Named("radacct".into());
    loop {
        let rows = table.page().await?;
        if rows.is_empty() {
            return importer.settle().await;
        }
        for (id, row) in rows {
            reader.row(importer, id.unsigned_abs(), row, &source).await?;
        }
    }
}

/// Reads a CSV file whose first line names the columns.
pub async fn import_csv(
    importer: &mut Importer<'_>,
    reader: &RadacctReader<'_>,
    path: &Path,
) -> Result<(), ImportError> {
    let name = path.display().to_string();
    importer.begin(&name);
    let unreadable = |error| ImportError::Read { file: name.clone(), error };
    let file = File::open(path).map_err(unreadable)?;
    let bounded = BoundedRows { input: BufReader::with_capacity(1 << 16, file), since: 0 };
    let mut rows = csv::ReaderBuilder::new().flexible(false).from_reader(bounded);
    let columns = match rows.byte_headers().cloned() {
        Ok(headings) => columns(&headings),
        Err(error) => return stopped(importer, 1, &name, error),
    };
    if !["acctsessionid", "acctstarttime"].iter().all(|name| columns.contains_key(*name)) {
        importer.refuse(1, "the first line does not name radacct's columns (acctsessionid, acctstarttime, …)");
        return Ok(());
    }
    let source = source_of(path);
    let mut row = csv::ByteRecord::new();
    loop {
        rows.get_mut().since = 0;
        let line = rows.position().line();
        match rows.read_byte_record(&mut row) {
            Ok(false) => return importer.settle().await,
            Ok(true) => {
                let line = row.position().map_or(line, csv::Position::line);
                match cells(&row, &columns) {
                    Some(read) => reader.row(importer, line, read, &source).await?,
                    None => importer.refuse(line, "the row is not UTF-8"),
                }
            }
            // The next row begins where this one ended.
            Err(error) if matches!(error.kind(), csv::ErrorKind::UnequalLengths { .. }) => {
                importer.refuse(line, error.to_string());
            }
            Err(error) => {
                importer.settle().await?;
                return stopped(importer, line, &name, error);
            }
        }
    }
}

/// The file cannot be read further: a fault of its text is refused, one of the disk ends the import.
fn stopped(importer: &mut Importer<'_>, line: u64, name: &str, error: csv::Error) -> Result<(), ImportError> {
    let told = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
            Err(ImportError::Read { file: name.to_owned(), error })
        }
        _ => {
            importer.refuse(line, format!("the file cannot be read further: {told}"));
            Ok(())
        }
    }
}

impl RadacctReader<'_> {
    async fn row(
        &self,
        importer: &mut Importer<'_>,
        line: u64,
        row: RadacctRow,
        source: &PacketSource,
    ) -> Result<(), ImportError> {
        match self.candidates(line, row, source) {
            Ok(candidates) => {
                for candidate in candidates {
                    importer.add(candidate).await?;
                }
            }
            Err(reason) => importer.refuse(line, reason),
        }
        Ok(())
    }

    fn candidates(&self, line: u64, row: RadacctRow, source: &PacketSource) -> Result<Vec<Candidate>, String> {
        let session = row.read(self.zone)?;
        let hints = NasHints {
            packet_source: None,
            nas_address: session.nas_address,
            nas_identifier: session.nas_identifier.clone(),
        };
        let client = self.choice.find(self.nas, &hints)?;
        let identifier = self.choice.identifier_for(client, &hints)?;
        let mut candidates = Vec::with_capacity(2);
        for report in session.reports(self.dictionary, identifier) {
            let packet = report.packet.sign(&Secret::new("")).map_err(|fault| fault.to_string())?;
            // The table does not keep when a report arrived; it was when it happened.
            let entry =
                JournalEntry { arrived_at: report.at, nas: client.name.clone(), source: source.clone(), packet };
            candidates.push(Candidate { line, entry, total: true, assumed_end: report.assumed_end });
        }
        Ok(candidates)
    }
}

fn columns(headings: &csv::ByteRecord) -> HashMap<String, usize> {
    let name = |heading: &[u8]| {
        // A spreadsheet puts a byte order mark before the first.
        String::from_utf8_lossy(heading).trim_start_matches('\u{feff}').trim().to_ascii_lowercase()
    };
    headings.iter().map(name).zip(0..).collect()
}

fn cells(row: &csv::ByteRecord, columns: &HashMap<String, usize>) -> Option<RadacctRow> {
    let mut utf8 = true;
    let mut cell = |name: &str| {
        let octets = columns.get(name).and_then(|at| row.get(*at))?;
        let text = std::str::from_utf8(octets).ok();
        utf8 &= text.is_some();
        text.map(str::to_owned)
    };
    let read = RadacctRow {
        session: cell("acctsessionid"),
        user: cell("username"),
        nas_address: cell("nasipaddress"),
        nas_identifier: cell("nasidentifier"),
        started: cell("acctstarttime"),
        updated: cell("acctupdatetime"),
        stopped: cell("acctstoptime"),
        session_seconds: cell("acctsessiontime"),
        in_octets: cell("acctinputoctets"),
        out_octets: cell("acctoutputoctets"),
        calling_station: cell("callingstationid"),
        terminate_cause: cell("acctterminatecause"),
        framed_address: cell("framedipaddress"),
    };
    utf8.then_some(read)
}

/// Fails when one row has no end, as behind a quote that is never closed.
struct BoundedRows<R> {
    input: R,
    since: usize,
}

impl<R: Read> Read for BoundedRows<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.since > ROW_MAX {
            let detail = format!("a row is longer than {ROW_MAX} octets; a quote may have no end");
            return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
        }
        let read = self.input.read(into)?;
        self.since += read;
        Ok(read)
    }
}

const ROW_MAX: usize = 1 << 20;
