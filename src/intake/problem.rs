//! What a refused request is answered with: `application/problem+json` (RFC 9457) with a type that never changes.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::store::StoreError;
use crate::vocabulary::Fault;

/// A refusal. Its `type` is `urn:lastmile:problem:` and a word that never changes; `detail` is for a person.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem(Box<Refusal>);

#[derive(Debug, Clone, PartialEq)]
struct Refusal {
    status: StatusCode,
    word: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<Fault>,
    members: Map<String, Value>,
    header: Option<(HeaderName, String)>,
}

const TYPE_PREFIX: &str = "urn:lastmile:problem:";
const RETRY_SECONDS: u64 = 2;

impl Problem {
    pub fn new(status: StatusCode, word: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let (detail, errors, members) = (detail.into(), Vec::new(), Map::new());
        Self(Box::new(Refusal { status, word, title, detail, errors, members, header: None }))
    }

    /// 404, also for what belongs to another tenant.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", "There is nothing at this address.")
    }

    /// 401.
    pub fn unauthorized() -> Self {
        let detail = "A valid API key is needed: Authorization: Bearer KEY.";
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Not authorized", detail);
        problem.0.header = Some((WWW_AUTHENTICATE, "Bearer".to_owned()));
        problem
    }

    /// 403: the key is good, but not for this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed for this key", detail)
    }

    /// 400: what stands in the address or the headers.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "Bad request", detail)
    }

    /// 400: the body is no JSON we read.
    pub fn unreadable(errors: Vec<Fault>) -> Self {
        let detail = errors.first().map_or(String::new(), |fault| fault.detail.clone());
        Self::new(StatusCode::BAD_REQUEST, "malformed-json", "Malformed JSON", detail).with_errors(errors)
    }

    /// 422: the body is JSON and names what cannot be; every fault is listed.
    pub fn invalid(errors: Vec<Fault>) -> Self {
        let detail = match errors.len() {
            1 => "The document has one fault.".to_owned(),
            count => format!("The document has {count} faults."),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-document", "Invalid document", detail).with_errors(errors)
    }

    /// 409.
    pub fn conflict(word: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, word, title, detail)
    }

    /// 412.
    pub fn precondition_failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", "Precondition failed", detail)
    }

    /// 413.
    pub fn too_large(max: usize) -> Self {
        let detail = format!("The body is longer than {max} octets.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large", detail)
    }

    /// 429.
    pub fn too_many_requests(wait_seconds: u64) -> Self {
        let detail = format!("This key has used up its requests; the next is free in {wait_seconds} s.");
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Too many requests", detail);
        problem.0.header = Some((RETRY_AFTER, wait_seconds.to_string()));
        problem
    }

    /// 503: nothing was stored; the same request may be sent again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let mut problem =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not possible at the moment", detail);
        problem.0.header = Some((RETRY_AFTER, RETRY_SECONDS.to_string()));
        problem
    }

    /// 500; the cause stands in our log, not in the answer.
    pub fn internal() -> Self {
        let detail = "The request met a fault of ours, which has been logged.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    pub fn with_errors(mut self, errors: Vec<Fault>) -> Self {
        self.0.errors = errors;
        self
    }

    /// Adds a member of its own to the document.
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(member.to_owned(), value.into());
        self
    }

    /// Shortens the pointers of faults below `prefix`: they point into what the caller sent.
    pub fn below(mut self, prefix: &str) -> Self {
        for fault in &mut self.0.errors {
            if let Some(rest) = fault.pointer.strip_prefix(prefix) {
                fault.pointer = rest.to_owned();
            }
        }
        self
    }

    /// Rewrites the pointers of faults, for a caller who sent the document in another form.
    pub fn repointed(mut self, pointer: impl Fn(&str) -> String) -> Self {
        for fault in &mut self.0.errors {
            fault.pointer = pointer(&fault.pointer);
        }
        self
    }

    /// The word of its type, its title, what is told of it, and every fault.
    pub fn parts(&self) -> (&'static str, &'static str, &str, &[Fault]) {
        (self.0.word, self.0.title, &self.0.detail, &self.0.errors)
    }

    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What a person reads, with every fault of a refused document.
    pub fn sentence(&self) -> String {
        let faults = self.0.errors.iter().map(|fault| format!(" {} {}", fault.pointer, fault.detail));
        format!("{}{}", self.0.detail, faults.collect::<Vec<_>>().join(";"))
    }

    /// The document as it is sent.
    pub fn document(&self) -> Value {
        let mut document = json!({
            "type": format!("{TYPE_PREFIX}{}", self.0.word),
            "title": self.0.title,
            "status": self.0.status.as_u16(),
            "detail": self.0.detail,
        });
        if !self.0.errors.is_empty() {
            document["errors"] = json!(self.0.errors);
        }
        for (member, value) in &self.0.members {
            document[member] = value.clone();
        }
        document
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.0.status, self.document().to_string()).into_response();
        // For a face that tells it in other words.
        response.extensions_mut().insert(self.clone());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = self.0.header
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            headers.insert(name, value);
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            // The database's own outage is logged once, by the part that watches it.
            StoreError::Unavailable(_) => {
                Problem::unavailable("The database cannot be written now; nothing was stored. Send the request again.")
            }
            other => {
                tracing::error!("A request met a database fault: {other}");
                Problem::internal()
            }
        }
    }
}
