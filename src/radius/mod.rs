//! RADIUS accounting as values: a view over the datagram, its authenticators, the dictionary that names attributes,
//! and the way from a packet to the `usage::Record` that is folded.
//!
//! In: bytes, secrets, an arrival time, a NAS profile. Out: what they mean, and the bytes of an answer. No socket, no
//! clock, no randomness; nothing here panics on any input.
//! Sources: RFC 2865, 2866, 2868, 2869, 3162, 5080, 5176, 5997, 6613, 6614, 6929, 9765.

mod authenticator;

mod decode;
mod detail;
mod dictionary;
mod dynamic;
mod encode;
mod message;
mod numbers;
mod packet;
mod profile;
mod radacct;
mod record;
mod redact;
mod stream;
#[cfg(test)]
mod tests;
mod value;

pub use authenticator::{Refusal, response_is_genuine, verify};
pub use decode::{Decoded, decode};
pub use detail::{DetailAttribute, DetailFault, DetailParser, DetailRecord, LINE_MAX, parse as parse_detail};
pub use dictionary::{AttributeDefinition, Dictionary, Kind, Source, VendorDefinition};
pub use dynamic::{
    DynamicAnswer, DynamicKind, DynamicRequest, NoAnswer, SESSION_CONTEXT_NOT_FOUND, dynamic_answer, error_cause,
    may_pass,
};
pub use encode::{Encoded, Printed, Unencodable, encode, parse_date};
pub use message::{BuildError, RequestBuilder, answer, redacted};
pub use numbers::{attribute, code};
pub use packet::{
    Attribute, Attributes, Malformed, PACKET_MAX, PacketView, VendorAttribute, VendorFormat, VendorSpecific,
};
pub use profile::{IdentityRule, Profile, Profiles, StreamRule, TunnelLinks, shipped_dictionary};
pub use radacct::{RadacctReport, RadacctRow, RadacctSession};
pub use record::{NasRule, Uninterpretable, record};
pub use redact::redact;
pub use stream::{StreamRequest, StreamVersion, protocol_error};
