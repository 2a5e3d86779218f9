//! Events over HTTP: what happened to a tenant's accounts and bills, in an order without a gap.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, READERS};
use super::problem::Problem;
use super::request::{Asked, cursor, limit};
use crate::store::events::{self, Event, EventFilter, EventType};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventQuery {
    r#type: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Events after the cursor, the oldest first. Their sequences have no gap and never change, so `next` is a place to go on
/// from also when nothing is there yet.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/events",
    params(("tenant" = String, Path), ("type" = Option<String>, Query), ("limit" = Option<i64>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of events")))]
async fn list(State(app): State<App>, caller: Caller, Asked(query): Asked<EventQuery>) -> Result<Json<Value>, Problem> {
    caller.may(READERS)?;
    let after = cursor(query.cursor.as_deref())?.unwrap_or(0);
    let filter = EventFilter {
        tenant: caller.tenant.as_str(),
        after,
        kind: query.r#type.as_deref(),
        limit: limit(query.limit)?,
    };
    let events = events::list(&mut app.store.read().await?, &filter).await?;
    let next = events.last().map_or(after, |event| event.sequence).to_string();
    Ok(Json(json!({ "items": events.iter().map(shown).collect::<Vec<_>>(), "next": next })))
}

/// Adds what webhooks are sent to an OpenAPI document: one entry of `webhooks` (OpenAPI 3.1) a type of event.
pub(super) fn documented(openapi: String) -> String {
    let Ok(mut document) = serde_json::from_str::<Value>(&openapi) else { return openapi };
    let text = |what: &str| json!({ "type": "string", "description": what });
    let header =
        |name: &str, what: &str| json!({ "name": name, "in": "header", "required": true, "schema": text(what) });
    let mut webhooks = serde_json::Map::new();
    for kind in EventType::ALL {
        let members = kind.members().iter().map(|name| ((*name).to_owned(), json!({})));
        let data = json!({ "type": "object", "required": kind.members(), "properties": members.collect::<serde_json::Map<_, _>>() });
        let body = json!({
            "type": "object",
            "required": ["type", "timestamp", "data"],
            "properties": {
                "type": { "const": kind.as_str() },
                "timestamp": { "type": "string", "format": "date-time" },
                "data": data,
            },
        });
        let post = json!({
            "summary": kind.about(),
            "parameters": [
                header("webhook-id", "Names the event; the same at every attempt and when it is sent again."),
                header("webhook-timestamp", "When this attempt was made, in seconds since 1970."),
                header("webhook-signature", "v1, and base64 of HMAC-SHA256; several while a secret is rotated."),
            ],
            "requestBody": { "required": true, "content": { "application/json": { "schema": body } } },
            "responses": {
                "2XX": { "description": "Taken. Anything else is sent again, for three days." },
                "410": { "description": "The webhook is disabled." },
            },
        });
        webhooks.insert(kind.as_str().to_owned(), json!({ "post": post }));
    }
    document["webhooks"] = Value::Object(webhooks);
    document.to_string()
}

/// An event as the API and the command line show it.
pub fn shown(event: &Event) -> Value {
    json!({
        "id": event.id(),
        "sequence": event.sequence,
        "type": event.kind,
        "subject": event.subject,
        "occurred_at": event.occurred_at,
        "data": event.payload,
    })
}
