//! Configuration files of cable modems and MTAs: TLVs, the CM MIC and CMTS MIC, the MTA's hash, and a readable form.
//!
//! Comes in: settings, bytes or TOML. Goes out: bytes, TOML, faults with the path of their TLV. Never touches a socket,
//! a file or a clock. CM-SP-MULPI Annex C and D.
//!
//! `tlv` cuts bytes · `schema` names them · `value` and `tree` make them readable · `check` judges them ·
//! `mic` and `mta` seal them · `effective` tells whether two files differ for the device · `text` is the TOML door ·
//! `build` and `mta_file` are the doors for the device backend. `samis` reads the usage records of a CMTS.

mod ber;
mod build;
mod check;
mod effective;
mod garden;
mod mic;
mod mta;
mod mta_file;
mod path;
mod samis;
mod schema;
mod template;
mod text;
mod tlv;
mod tree;
mod value;
mod writer;

pub use ber::{BerError, Oid, Value, VarBind};
pub use build::{
    CmSettings, DOWNSTREAM_REFERENCE, FirmwareSource, Flow, Generation, SnmpAccess, SnmpStyle, UPSTREAM_REFERENCE,
    cm_file, verify,
};
pub use effective::{effective_digest, network_access};
pub use garden::{GardenFilter, MOST_DESTINATIONS};
pub use mic::ExtendedMic;
pub use mta::{HashFamily, MtaFlow};
pub use mta_file::{
    CALL_AGENT_PORT, CallAgent, LineSettings, MOST_LINES, MtaAnnouncement, MtaSettings, announce, interface_of,
    mta_file, mta_object, verify_mta,
};
pub use samis::{FlowDirection, FlowReport, FlowUsage, SamisFault, SamisReader};
pub use template::{FilledTlv, Filling, Template, sample_of};
pub use text::{Decoded, DocsisError, Encoded, decode, encode};
pub use tlv::{Framing, MAX_FILE_OCTETS, Tlv, TlvError, write as write_tlv};

#[cfg(test)]
mod tests;
