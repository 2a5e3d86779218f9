//! Records of a `detail` file become packets as their NAS sent them.
//!
//! In: records as `radius::detail` reads them, the dictionary, what is known of the NAS. Out: candidates. Attributes that
//! the other server made for itself stay behind; one that decides about a session and cannot be read refuses the record.

use std::fs::File;
use std::io::BufReader;
use std::net::IpAddr;
use std::path::Path;

use super::lines::Lines;
use super::place::{NasChoice, NasHints};
use super::{Candidate, ImportError, Importer};
use crate::collector::NasTable;
use crate::radius::{
    DetailAttribute, DetailParser, DetailRecord, Dictionary, Encoded, LINE_MAX, Printed, RequestBuilder, Unencodable,
    attribute, encode, shipped_dictionary,
};
use crate::store::journal::{JournalEntry, PacketSource};
use crate::vocabulary::{Secret, Zone};

/// How the records of a file are read.
pub struct DetailReader<'a> {
    pub nas: &'a NasTable,
    pub dictionary: &'a Dictionary,
    pub choice: &'a NasChoice,
    /// Of the server that wrote it, for dates; `None`: dates must be in UTC.
    pub zone: Option<&'a Zone>,
}

/// Reads a file from its beginning to its end.
///
/// **Errors**: the file or the database; what is wrong in the file is refused in the summary.
pub async fn import(importer: &mut Importer<'_>, reader: &DetailReader<'_>, path: &Path) -> Result<(), ImportError> {
    let name = path.display().to_string();
    importer.begin(&name);
    let unreadable = |error| ImportError::Read { file: name.clone(), error };
    let file = File::open(path).map_err(unreadable)?;
    let mut lines = Lines::new(BufReader::with_capacity(1 << 16, file), LINE_MAX);
    let mut parser = DetailParser::default();
    let source = source_of(path);
    while let Some(line) = lines.next_line().map_err(unreadable)? {
        match parser.line(line) {
            None => {}
            Some(Err(fault)) => importer.refuse(fault.line, fault.detail),
            Some(Ok(record)) => match reader.candidate(&record, &source) {
                Ok((candidate, left_out)) => {
                    left_out.iter().for_each(|name| importer.leave_out(name));
                    importer.add(candidate).await?;
                }
                Err((line, reason)) => importer.refuse(line, reason),
            },
        }
    }
    if let Some(fault) = parser.end() {
        importer.refuse(fault.line, fault.detail);
    }
    importer.settle().await
}

impl DetailReader<'_> {
    /// The packet of a record, and the names of attributes that could not be taken along.
    ///
    /// **Errors**: the line and why the record cannot come in.
    fn candidate(
        &self,
        record: &DetailRecord,
        source: &PacketSource,
    ) -> Result<(Candidate, Vec<String>), (u64, String)> {
        let hints = hints(record);
        let refused = |reason: String| (record.line, reason);
        let client = self.choice.find(self.nas, &hints).map_err(refused)?;
        // A NAS whose profile counts by a vendor's attributes must not lose one of them.
        let vendors_decide = client.profile.reads_more_than_standard();
        let mut packet = RequestBuilder::accounting(0);
        let mut left_out = Vec::new();
        for found in &record.attributes {
            let plain = found.name.split(':').next().unwrap_or_default();
            if plain.eq_ignore_ascii_case("Packet-Type") {
                if found.value != Printed::Bare("Accounting-Request".to_owned()) {
                    return Err((found.line, "it is no Accounting-Request".to_owned()));
                }
                continue;
            }
            if is_of_the_server(plain) {
                continue;
            }
            match self.encode(found) {
                Ok(Encoded(attributes)) => {
                    for (kind, value) in attributes.iter().filter(|(kind, _)| !is_of_the_hop(*kind)) {
                        packet = packet.octets(*kind, value);
                    }
                }
                Err(Unencodable::Internal(_)) => {}
                Err(reason @ Unencodable::Unknown(_)) if vendors_decide => {
                    return Err((found.line, reason.to_string()));
                }
                Err(Unencodable::Unknown(name)) => left_out.push(name),
                Err(reason) if decides(plain) || vendors_decide => return Err((found.line, reason.to_string())),
                Err(_) => left_out.push(found.name.clone()),
            }
        }
        if let (Some(identifier), None) = (&self.choice.identifier, &hints.nas_identifier) {
            packet = packet.text(attribute::NAS_IDENTIFIER, identifier);
        }
        // Nobody verifies it again: what a journal's reader asks is that its lengths are right.
        let packet = packet.sign(&Secret::new("")).map_err(|fault| refused(fault.to_string()))?;
        let entry =
            JournalEntry { arrived_at: record.received_at, nas: client.name.clone(), source: source.clone(), packet };
        Ok((Candidate { line: record.line, entry, total: false, assumed_end: false }, left_out))
    }

    /// By the configured dictionaries, else by those that are compiled in.
    fn encode(&self, found: &DetailAttribute) -> Result<Encoded, Unencodable> {
        match encode(self.dictionary, &found.name, &found.value, self.zone) {
            Err(Unencodable::Unknown(_)) => encode(shipped_dictionary(), &found.name, &found.value, self.zone),
            known => known,
        }
    }
}

fn hints(record: &DetailRecord) -> NasHints {
    let address = |name: &str| match &record.first(name)?.value {
        Printed::Bare(text) => text.parse::<IpAddr>().ok(),
        Printed::Quoted(_) => None,
    };
    let first = |names: &[&str]| names.iter().find_map(|name| address(name));
    let identifier = record.first("NAS-Identifier").map(|found| match &found.value {
        Printed::Quoted(octets) => String::from_utf8_lossy(octets).into_owned(),
        Printed::Bare(text) => text.clone(),
    });
    NasHints {
        packet_source: first(&["Packet-Src-IP-Address", "Packet-Src-IPv6-Address", "Client-IP-Address"]),
        nas_address: first(&["NAS-IP-Address", "NAS-IPv6-Address"]),
        nas_identifier: identifier,
    }
}

/// What stands in the journal as the place a record came from.
pub(super) fn source_of(path: &Path) -> PacketSource {
    let name: String = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().chars().take(200).collect();
    PacketSource::Named(name.into())
}

/// Attributes that FreeRADIUS makes for itself; they never came from a NAS.
fn is_of_the_server(name: &str) -> bool {
    SERVER_MADE.iter().any(|made| made.eq_ignore_ascii_case(name))
        || SERVER_PREFIXES.iter().any(|prefix| name.get(..prefix.len()).is_some_and(|n| n.eq_ignore_ascii_case(prefix)))
}

/// Proxy-State and Message-Authenticator belong to the way a packet took, not to what it says.
fn is_of_the_hop(kind: u8) -> bool {
    matches!(kind, attribute::PROXY_STATE | attribute::MESSAGE_AUTHENTICATOR)
}

/// Attributes that decide which session a record belongs to, when it was and what was counted.
fn decides(name: &str) -> bool {
    DECISIVE.iter().any(|decisive| decisive.eq_ignore_ascii_case(name))
        || ["Acct-", "Framed-IP"].iter().any(|prefix| name.starts_with(prefix))
}

const DECISIVE: [&str; 8] = [
    "User-Name",
    "NAS-IP-Address",
    "NAS-IPv6-Address",
    "NAS-Identifier",
    "Event-Timestamp",
    "Calling-Station-Id",
    "Class",
    "Vendor-Specific",
];

const SERVER_MADE: [&str; 22] = [
    "Acct-Unique-Session-Id",
    "Acct-Type",
    "Client-IP-Address",
    "Client-Shortname",
    "Home-Server-Pool",
    "Huntgroup-Name",
    "Ldap-UserDn",
    "NAS-Client-Shortname",
    "Packet-Authentication-Vector",
    "Packet-Dst-IP-Address",
    "Packet-Dst-IPv6-Address",
    "Packet-Dst-Port",
    "Packet-Original-Timestamp",
    "Packet-Src-IP-Address",
    "Packet-Src-IPv6-Address",
    "Packet-Src-Port",
    "Proxy-To-Realm",
    "Realm",
    "Request-Authenticator",
    "SQL-User-Name",
    "Stripped-User-Domain",
    "Stripped-User-Name",
];
const SERVER_PREFIXES: [&str; 4] = ["Tmp-", "Module-", "FreeRADIUS-", "Post-"];
