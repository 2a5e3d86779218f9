//! TM Forum's words for what the other rooms know: service activation (TMF640), service inventory (TMF638), usage (TMF635) and
//! customer bills (TMF678), all of version 4. Our values in, their documents out, and an order of theirs into the account
//! document that a push takes. No model of its own, and nothing is decided here.
//!
//! **Source**: the Swagger documents of TM Forum's open APIs, version 4.0.0; `billCycle` is of TMF678 version 5.

mod bill;
mod event;
mod id;
mod listing;
mod monitor;
mod order;
mod service;
mod state;
#[cfg(test)]
mod tests;
mod usage;

pub use bill::{cycle, rate};
pub use event::{Listened, envelope, listens_to};
pub use id::{ACTIVATION, BILLS, INVENTORY, ItemId, MALFORMED, USAGE};
pub use listing::Listing;
pub use monitor::{MonitorState, monitor};
pub use order::{Order, without};
pub use service::{Seen, service};
pub use state::{Standing, State, state};
pub use usage::{Used, usage};

use serde_json::{Map, Value, json};

/// The reference to whoever buys, as all resources show it.
fn customer(account: &str) -> Value {
    json!({ "id": account, "role": "customer", "@type": "RelatedParty", "@referredType": "Customer" })
}

/// Begins a resource with what each has.
fn resource(kind: &str, id: &str, base: &str, collection: &str) -> Map<String, Value> {
    let mut resource = Map::new();
    let mut put = |key: &str, text: String| resource.insert(key.to_owned(), Value::String(text));
    put("id", id.to_owned());
    put("href", format!("{base}/{collection}/{id}"));
    put("@type", kind.to_owned());
    put("@baseType", "Entity".to_owned());
    put("@schemaLocation", format!("/openapi.json#/components/schemas/Tmf{kind}"));
    resource
}

/// An amount or a rate in their shape. It is a number where a number says exactly that, and a text where it would not.
fn number(decimal: &str) -> Value {
    let short = match decimal.contains('.') {
        true => decimal.trim_end_matches('0').trim_end_matches('.'),
        false => decimal,
    };
    match short.parse::<serde_json::Number>() {
        Ok(number) if number.to_string() == short => Value::Number(number),
        _ => Value::String(decimal.to_owned()),
    }
}
