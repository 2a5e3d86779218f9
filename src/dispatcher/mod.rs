//! Events out: each outlet of a tenant is told what happened, in the order of its subject, until it took it.
//!
//! In: events that others committed with what they tell. Out: signed requests to webhooks, files of invoice
//! lines in declared folders, mail and short messages. An event is done with only by the
//! record that is committed after the receiver took it: after `kill -9` it is sent again under the same `webhook-id`. One
//! daemon at a time works for an outlet (a claim with an epoch), each outlet has a worker of its own and a bound on what is
//! under way, so that a receiver that hangs delays nobody else.
//! What it never does: decide where may be sent to and when again (that is `outgoing`), or change what an event says.

mod client;
mod engine;
mod files;
mod notify;
mod smtp;
mod webhook;
mod worker;

pub use client::{Client, Resolver};
pub use engine::{Dispatcher, run};
pub use files::{Export, ExportError, Lines, facts as batch_facts, writer as document_writer};
pub use notify::{Gateway, Notify};
pub use smtp::{Relay, Security};
