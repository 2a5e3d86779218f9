//! HTTP in: account pushes, queries, bill runs; and the other ways in of billing systems (`ways`). The only room that knows
//! axum.
//!
//! A route lives in the file of its topic, as a handler that begins with `Caller` (who calls, already authenticated and
//! inside its tenant) and returns `Result<_, Problem>`; the file's `routes()` is merged in `router`. Whatever writes an
//! account goes through the group-committing `writer`.

mod accounts;
mod audits;
pub mod billing;
pub mod caller;
mod catalog;
mod catalogs;
mod charges;
mod counts;
mod deeds;
pub mod desk;
mod devices;
mod events;
mod exceptions;
mod handshake;
mod health;
pub mod held;
mod history;
pub mod idempotency;
mod jobs;
mod keyring;
mod openapi;
pub mod problem;
mod quarantine;
pub mod request;
pub mod rollouts;
mod serve;
mod sessions;
pub mod sources;
pub mod syncs;
pub mod systems;
mod thresholds;
mod tmf;
mod usage;
mod view;
mod waker;
pub mod ways;
mod webhooks;
mod writer;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::outgoing::Allowed;
use crate::store::Store;
use crate::store::running::PriceBook;
use crate::telemetry::{Metrics, Request as RequestLabels};
use crate::vocabulary::Clock;

pub use audits::shown as audit_view;
pub use events::shown as event_view;
pub use keyring::{NewKey, RateLimit, new_key};
pub use problem::Problem;
pub use serve::{Intake, IntakeError, Options, Settings};
pub use view::account as account_view;
pub use webhooks::{delivery as delivery_view, new_secret, shown as webhook_view, try_out as try_webhook};

use catalogs::Catalogs;
use keyring::Keyring;
use writer::Writer;

/// What every handler may use; cheap to clone.
#[derive(Clone)]
pub struct App {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Metrics,
    pub(crate) keyring: Keyring,
    pub(crate) catalogs: Catalogs,
    pub(crate) prices: PriceBook,
    pub(crate) writer: Writer,
    pub(crate) biller: billing::Biller,
    pub(crate) network: rollouts::Network,
    pub(crate) sources: sources::Sources,
    pub(crate) allowed: Arc<Allowed>,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Lastmile",
    description = "Accounts in, provisioning and invoice lines out. Errors are application/problem+json (RFC 9457), below /tmf-api in TM Forum's shape."
))]
struct Api;

/// Every route with its declaration.
fn routes() -> (Router<App>, utoipa::openapi::OpenApi) {
    OpenApiRouter::<App>::with_openapi(Api::openapi())
        .merge(health::routes())
        .merge(history::routes())
        .merge(accounts::routes())
        .merge(audits::routes())
        .merge(jobs::routes())
        .merge(billing::routes())
        .merge(charges::routes())
        .merge(counts::routes())
        .merge(catalog::routes())
        .merge(devices::routes())
        .merge(events::routes())
        .merge(exceptions::routes())
        .merge(held::routes())
        .merge(handshake::routes())
        .merge(sessions::routes())
        .merge(syncs::routes())
        .merge(quarantine::routes())
        .merge(rollouts::routes())
        .merge(systems::routes())
        .merge(tmf::routes())
        .merge(usage::routes())
        .merge(ways::routes())
        .merge(webhooks::routes())
        .split_for_parts()
}

/// The OpenAPI document as the handlers declare it.
fn declared() -> serde_json::Value {
    serde_json::to_value(routes().1).unwrap_or_default()
}

fn router(app: App) -> Router {
    let (router, _) = routes();
    let openapi = events::documented(openapi::document(declared()).to_string());
    router
        .route(
            "/openapi.json",
            get(|| async move { ([(axum::http::header::CONTENT_TYPE, "application/json")], openapi) }),
        )
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { method_not_allowed() })
        .layer(from_fn(tmf::faced))
        .layer(from_fn_with_state(app.clone(), measured))
        .with_state(app)
}

fn method_not_allowed() -> Problem {
    let status = axum::http::StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(status, "method-not-allowed", "Method not allowed", "This address knows other methods.")
}

async fn measured(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().to_string();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    // A method nobody defined must not become a label.
    let method = if KNOWN_METHODS.contains(&method.as_str()) { method } else { "other".to_owned() };
    let labels = RequestLabels::new(method, route, response.status().as_str());
    app.metrics.http_requests.get_or_create(&labels).inc();
    app.metrics.http_request_seconds.observe(started.elapsed().as_secs_f64());
    response
}

const KNOWN_METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"];
