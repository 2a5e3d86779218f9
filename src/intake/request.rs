//! What handlers take from a request: the address, the query, the body; each refusal is a problem document.

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::App;
use super::problem::Problem;
use crate::account::json;
use crate::vocabulary::Fault;

/// An account document with everything in it stays far below this.
pub const BODY_MAX: usize = 1024 * 1024;

/// The parts of the address, by the names in the route's pattern.
pub struct At<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for At<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if parts.uri.path().contains(NUL) {
            return Err(Problem::not_found());
        }
        Path::from_request_parts(parts, app).await.map(|Path(at)| Self(at)).map_err(|_| Problem::not_found())
    }
}

/// The query; a parameter it does not know is refused (with `deny_unknown_fields` on `T`).
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Asked<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if parts.uri.query().is_some_and(|query| query.contains(NUL)) {
            return Err(Problem::bad_request("The query holds a NUL character."));
        }
        let query = Query::from_request_parts(parts, app).await;
        query
            .map(|Query(asked)| Self(asked))
            .map_err(|error| Problem::bad_request(format!("The query cannot be read: {}", error.body_text())))
    }
}

/// A JSON body, read strictly; with its octets, for digests.
pub struct Document {
    pub value: Value,
    pub octets: axum::body::Bytes,
}

impl Document {
    /// For addresses that take no body.
    pub fn nothing(&self) -> Result<(), Problem> {
        match self.value.as_object() {
            Some(fields) if fields.is_empty() => Ok(()),
            _ => Err(Problem::bad_request("This address takes no body.")),
        }
    }
}

impl FromRequest<App> for Document {
    type Rejection = Problem;
    async fn from_request(request: Request, _app: &App) -> Result<Self, Problem> {
        let octets = octets(request, BODY_MAX).await?;
        let value = json::read(&octets).map_err(Problem::unreadable)?;
        without_nul(&value, &octets)?;
        Ok(Self { value, octets })
    }
}

/// A JSON body that may be missing: then it is `{}`.
pub struct OptionalDocument(pub Document);

impl FromRequest<App> for OptionalDocument {
    type Rejection = Problem;
    async fn from_request(request: Request, _app: &App) -> Result<Self, Problem> {
        let octets = octets(request, BODY_MAX).await?;
        let value = match octets.is_empty() {
            true => Value::Object(serde_json::Map::new()),
            false => json::read(&octets).map_err(Problem::unreadable)?,
        };
        without_nul(&value, &octets)?;
        Ok(Self(Document { value, octets }))
    }
}

/// Refuses the one character that no database of ours takes in a text, wherever it stands.
fn without_nul(value: &Value, octets: &[u8]) -> Result<(), Problem> {
    // JSON can write it in no other way.
    if !octets.windows(ESCAPED_NUL.len()).any(|window| window == ESCAPED_NUL) {
        return Ok(());
    }
    let mut faults = Vec::new();
    look_for_nul(value, String::new(), &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(Problem::invalid(faults)) }
}

fn look_for_nul(value: &Value, pointer: String, faults: &mut Vec<Fault>) {
    let has = |text: &str| text.contains('\0');
    match value {
        _ if faults.len() >= NUL_SHOWN => {}
        Value::String(text) if has(text) => {
            faults.push(Fault { pointer, detail: "holds a NUL character".to_owned() });
        }
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                look_for_nul(item, json::step(&pointer, &place.to_string()), faults);
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields {
                let pointer = json::step(&pointer, key);
                if has(key) {
                    faults
                        .push(Fault { pointer: pointer.clone(), detail: "its name holds a NUL character".to_owned() });
                }
                look_for_nul(item, pointer, faults);
            }
        }
        _ => {}
    }
}

/// A NUL as addresses write it.
const NUL: &str = "%00";
const ESCAPED_NUL: &[u8] = b"\\u0000";
const NUL_SHOWN: usize = 20;

/// The whole body, at most `max` octets; one that announces more is refused before it is read.
pub async fn octets(request: Request, max: usize) -> Result<axum::body::Bytes, Problem> {
    let announced = request.headers().get(axum::http::header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > max) {
        return Err(Problem::too_large(max));
    }
    to_bytes(request.into_body(), max).await.map_err(|error| {
        let too_long =
            std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("length limit"));
        match too_long {
            true => Problem::too_large(max),
            false => Problem::bad_request("The body ended before it was complete."),
        }
    })
}

const LIMIT_DEFAULT: i64 = 100;
const LIMIT_MAX: i64 = 1000;

/// `limit` of a list: 1 to 1000, 100 when it is not named.
pub fn limit(asked: Option<i64>) -> Result<i64, Problem> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        _ => Err(Problem::bad_request(format!("limit must be 1 to {LIMIT_MAX}."))),
    }
}

/// A cursor that is a row's number; it came from `next` of the page before.
pub fn cursor(asked: Option<&str>) -> Result<Option<i64>, Problem> {
    let number = |text: &str| text.parse().map_err(|_| Problem::bad_request("cursor must be the `next` of a page."));
    asked.map(number).transpose()
}

/// The page of a list: `next` is the cursor of the last row when the page is full.
pub fn page(items: Vec<Value>, limit: i64, last: Option<String>) -> Value {
    let full = i64::try_from(items.len()).unwrap_or(i64::MAX) >= limit;
    let next = last.filter(|_| full);
    serde_json::json!({ "items": items, "next": next })
}

/// `?limit=&cursor=`, for lists without a filter of their own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}
