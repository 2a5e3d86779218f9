//! Usage records of a CMTS come in: each becomes the accounting report that its service flow would send, if modems spoke
//! RADIUS.
//!
//! | attribute | holds |
//! |---|---|
//! | NAS-Identifier | the CMTS's host name, which is also the NAS identity |
//! | Acct-Session-Id | modem MAC, service flow, `up` or `down`, and when the flow was created where that is known |
//! | Calling-Station-Id | the modem's MAC: usage is attributed by it |
//! | Acct-Status-Type | Interim-Update, Stop or Start, as RecType says |
//! | Event-Timestamp | when the counters were read |
//! | Acct-Session-Time | how long the flow has existed, where up time and creation tell |
//! | Acct-Input-Octets, -Gigawords | octets of an upstream flow, 64 bits |
//! | Acct-Output-Octets, -Gigawords | octets of a downstream flow, 64 bits |
//! | Filter-Id | the service class |
//! | Connect-Info | `SAMIS L2` or `SAMIS L3`: what the CMTS counts as an octet, as the configuration declares it |

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::detail::source_of;
use super::{Candidate, ImportError, Importer};
use crate::docsis::{FlowDirection, FlowReport, FlowUsage, SamisReader};
use crate::radius::{RequestBuilder, attribute};
use crate::store::journal::{JournalEntry, PacketSource};
use crate::vocabulary::{Secret, Zone};

/// What counts of a CMTS's records, and how.
#[derive(Debug, Clone)]
pub struct FlowChoice {
    /// Service classes that count; `*` stands for all, named or not.
    pub service_classes: BTreeSet<String>,
    /// `L2` or `L3`.
    pub octets: String,
    /// Of instants without an offset; `None`: they are refused.
    pub zone: Option<Zone>,
}

/// Reads a document from its beginning to its end, or to where it cannot be read further.
///
/// **Errors**: the file or the database; what is wrong in the file is refused in the summary.
pub async fn import(importer: &mut Importer<'_>, choice: &FlowChoice, path: &Path) -> Result<(), ImportError> {
    let name = path.display().to_string();
    importer.begin(&name);
    let file = File::open(path).map_err(|error| ImportError::Read { file: name, error })?;
    let mut reader = SamisReader::new(BufReader::with_capacity(1 << 16, file), choice.zone.as_ref());
    let source = source_of(path);
    while let Some(found) = reader.next_flow() {
        match found {
            Err(fault) => importer.refuse(fault.line, fault.detail),
            Ok(flow) if !choice.counts(&flow) => importer.skip(&match &flow.class {
                Some(class) => format!("service class {class:?} does not count"),
                None => "no service class".to_owned(),
            }),
            Ok(flow) => match candidate(&flow, choice, &source) {
                Ok(candidate) => importer.add(candidate).await?,
                Err(reason) => importer.refuse(flow.line, reason),
            },
        }
    }
    importer.settle().await
}

impl FlowChoice {
    fn counts(&self, flow: &FlowUsage) -> bool {
        self.service_classes.contains("*")
            || flow.class.as_ref().is_some_and(|class| self.service_classes.contains(class))
    }
}

fn candidate(flow: &FlowUsage, choice: &FlowChoice, source: &PacketSource) -> Result<Candidate, String> {
    let status = match flow.report {
        FlowReport::Start => 1,
        FlowReport::Stop => 2,
        FlowReport::Interim => 3,
    };
    let event = u32::try_from(flow.recorded_at.as_second()).map_err(|_| "its time is before 1970".to_owned())?;
    // Both directions of a modem are flows of their own, and so are sessions.
    let (direction, octets, gigawords) = match flow.direction {
        FlowDirection::Upstream => ("up", attribute::ACCT_INPUT_OCTETS, attribute::ACCT_INPUT_GIGAWORDS),
        FlowDirection::Downstream => ("down", attribute::ACCT_OUTPUT_OCTETS, attribute::ACCT_OUTPUT_GIGAWORDS),
    };
    let created = flow.created_ticks.map_or_else(String::new, |ticks| format!("/{ticks}"));
    let mut packet = RequestBuilder::accounting(0)
        .integer(attribute::ACCT_STATUS_TYPE, status)
        .text(attribute::NAS_IDENTIFIER, &flow.cmts)
        .text(attribute::ACCT_SESSION_ID, &format!("{}/{}/{direction}{created}", flow.modem, flow.flow))
        .text(attribute::CALLING_STATION_ID, &flow.modem.to_string())
        .integer(attribute::EVENT_TIMESTAMP, event)
        .integer(octets, (flow.octets & u64::from(u32::MAX)) as u32)
        // A counter of 64 bits never wraps; that gigawords are there says so.
        .integer(gigawords, (flow.octets >> 32) as u32)
        .text(attribute::CONNECT_INFO, &format!("SAMIS {}", choice.octets));
    if let Some(seconds) = flow.age_seconds.and_then(|seconds| u32::try_from(seconds).ok()) {
        packet = packet.integer(attribute::ACCT_SESSION_TIME, seconds);
    }
    if let Some(class) = &flow.class {
        packet = packet.text(attribute::FILTER_ID, class);
    }
    let packet = packet.sign(&Secret::new("")).map_err(|fault| fault.to_string())?;
    let entry =
        JournalEntry { arrived_at: flow.recorded_at, nas: flow.cmts.as_str().into(), source: source.clone(), packet };
    Ok(Candidate { line: flow.line, entry, total: false, assumed_end: false })
}
