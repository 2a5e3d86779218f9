//! One webhook: its URL and secrets made ready, and an event made into the request of Standard Webhooks.

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::client::{Client, Pool, Post};
use crate::outgoing::{Answer, SigningKey, Target, signatures};
use crate::store::Sealer;
use crate::store::events::Event;
use crate::store::outlets::{OutletRow, Shape, secret_place};
use crate::tmf;
use crate::vocabulary::Timestamp;

/// A webhook, ready to be sent to.
pub struct Webhook {
    client: Client,
    pool: Pool,
    keys: Vec<SigningKey>,
    shape: Shape,
    /// For the log, which must not show what a URL's path or query holds.
    pub host: String,
}

impl Webhook {
    /// Opens its secrets.
    ///
    /// **Errors**: for a person; it cannot be sent to until that is mended.
    pub fn new(row: &OutletRow, sealer: &Sealer, client: Client, now: Timestamp) -> Result<Self, String> {
        let target = Target::parse(&row.url).map_err(|error| format!("its URL {error}"))?;
        let place = secret_place(&row.tenant, &row.id);
        let previous = row.previous.as_ref().filter(|(_, until)| now < *until).map(|(sealed, _)| sealed);
        let mut keys = Vec::new();
        for sealed in row.secret.iter().chain(previous) {
            let secret =
                sealer.open(&place, sealed).map_err(|error| format!("its secret cannot be opened: {error}"))?;
            keys.push(SigningKey::parse(&secret).map_err(|error| format!("its secret {error}"))?);
        }
        if keys.is_empty() {
            return Err("it has no secret".to_owned());
        }
        let host = target.host.clone();
        Ok(Self { client, pool: Pool::new(target), keys, shape: row.shape, host })
    }

    /// Sends an event.
    pub async fn send(&self, event: &Event, now: Timestamp) -> Answer {
        let body = body(event, self.shape);
        let id = event.id();
        let signature = signatures(&self.keys, &id, now, &body);
        let seconds = now.as_second().to_string();
        let headers: Result<Vec<_>, _> = [(ID, &id), (AT, &seconds), (SIGNATURE, &signature)]
            .into_iter()
            .map(|(name, text)| HeaderValue::from_str(text).map(|value| (HeaderName::from_static(name), value)))
            .collect();
        let Ok(headers) = headers else { return Answer::Refused("the event's name is no header".to_owned()) };
        let content_type = HeaderValue::from_static("application/json");
        let post = Post { method: Method::POST, headers, content_type, body };
        self.client.send(&self.pool, &post, now).await
    }
}

const ID: &str = "webhook-id";
const AT: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// The same octets at every attempt.
fn body(event: &Event, shape: Shape) -> Bytes {
    let standard = || json!({ "type": event.kind, "timestamp": event.occurred_at, "data": event.payload });
    let document = match shape {
        Shape::Standard => standard(),
        // What TM Forum has no event for (a test, a service that was erased) is told as it is.
        Shape::Tmf => {
            tmf::envelope(&event.id(), &event.kind, event.occurred_at, &event.payload).unwrap_or_else(standard)
        }
    };
    Bytes::from(document.to_string())
}
