//! A job as TMF640's Monitor: what is brought into force, and how far it is.

use serde_json::{Value, json};

use super::id::{ACTIVATION, ItemId};
use super::resource;
use crate::provision::ElementKind;

/// The three words a monitor's state has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitorState {
    InProgress,
    /// It is in force: a file that a device was only offered is not.
    Completed,
    /// It was given up, or called off.
    InError,
}

impl MonitorState {
    pub const ALL: [MonitorState; 3] = [MonitorState::InProgress, MonitorState::Completed, MonitorState::InError];

    pub fn as_str(self) -> &'static str {
        match self {
            MonitorState::InProgress => "InProgress",
            MonitorState::Completed => "Completed",
            MonitorState::InError => "InError",
        }
    }
}

/// A monitor. `services` are those the element serves; of several the first is what is monitored. `answer` tells how it is known
/// to be in force, or what stands in the way.
pub fn monitor(
    job: i64,
    state: MonitorState,
    (kind, key): (ElementKind, &str),
    revision: i64,
    services: &[ItemId],
    answer: Option<&str>,
) -> Value {
    let mut shown = resource("Monitor", &job.to_string(), ACTIVATION, "monitor");
    let mut put = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    put("state", json!(state.as_str()));
    if let Some(service) = services.first() {
        put("sourceHref", json!(service.href()));
    }
    put(
        "request",
        json!({
            "method": "PROVISION", "to": format!("{kind}:{key}"), "body": format!("revision {revision}"),
            "header": [], "@type": "Request",
        }),
    );
    if state != MonitorState::InProgress || answer.is_some() {
        let status = match state {
            MonitorState::InProgress => "202",
            MonitorState::Completed => "200",
            MonitorState::InError => "500",
        };
        put(
            "response",
            json!({ "statusCode": status, "body": answer.unwrap_or_default(), "header": [], "@type": "Response" }),
        );
    }
    Value::Object(shown)
}
