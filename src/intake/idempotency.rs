//! `Idempotency-Key`: the same POST again gets the first answer and does nothing new.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::App;
use super::problem::Problem;
use crate::store::idempotency::{self, Kept};
use crate::store::{StoreError, Tx};
use crate::vocabulary::{Timestamp, hex};

/// The key of a request, with what the request asks for; an extractor. Without the header it remembers nothing.
#[derive(Debug, Clone)]
pub struct Once {
    key: Option<String>,
    /// Method and address; the body is added by `of`.
    address: String,
}

/// A request that may have been answered before.
#[derive(Debug, Clone)]
pub struct Asking {
    key: Option<String>,
    digest: String,
}

const KEY_MAX: usize = 255;

impl FromRequestParts<App> for Once {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        let key = match parts.headers.get("idempotency-key") {
            None => None,
            Some(value) => {
                let text = value.to_str().unwrap_or("").trim().trim_matches('"');
                if text.is_empty() || text.len() > KEY_MAX {
                    let detail = format!("Idempotency-Key must be 1 to {KEY_MAX} visible ASCII characters.");
                    return Err(Problem::bad_request(detail));
                }
                Some(text.to_owned())
            }
        };
        Ok(Self { key, address: format!("{} {}", parts.method, parts.uri) })
    }
}

impl Once {
    /// The request with its body.
    pub fn of(self, body: &[u8]) -> Asking {
        let mut hash = Sha256::new();
        hash.update(self.address.as_bytes());
        hash.update([0]);
        hash.update(body);
        Asking { key: self.key, digest: hex(hash.finalize()) }
    }
}

impl Asking {
    /// A deed that no request asks for: nothing is remembered.
    pub fn nothing() -> Self {
        Self { key: None, digest: String::new() }
    }

    /// The answer this request already got: status and body.
    ///
    /// **Errors**: the same key came with another request.
    pub async fn answered(&self, tx: &mut Tx, tenant: &str) -> Result<Option<(u16, String)>, AskError> {
        let Some(key) = &self.key else { return Ok(None) };
        match idempotency::find(tx, tenant, key).await? {
            Some(kept) if kept.request_digest == self.digest => Ok(Some((kept.status, kept.response))),
            Some(_) => Err(AskError::Reused),
            None => Ok(None),
        }
    }

    /// Keeps the answer in the transaction of the deed.
    pub async fn keep(
        &self,
        tx: &mut Tx,
        tenant: &str,
        status: u16,
        body: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(key) = &self.key else { return Ok(()) };
        let kept = Kept { request_digest: self.digest.clone(), status, response: body.to_owned() };
        idempotency::keep(tx, tenant, key, &kept, now).await
    }
}

/// The answer that was kept: status and body.
pub fn again((status, body): (u16, String)) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    (status, Json(body)).into_response()
}

/// Why an earlier answer cannot be given.
#[derive(Debug)]
pub enum AskError {
    Reused,
    Store(StoreError),
}

impl From<StoreError> for AskError {
    fn from(error: StoreError) -> Self {
        AskError::Store(error)
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Store(error) => error.into(),
            AskError::Reused => Problem::new(
                axum::http::StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "Idempotency key reused",
                "This Idempotency-Key was used with another request.",
            ),
        }
    }
}
