//! What a supervisor and a scraper ask, without a key: alive, ready, metrics.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::problem::Problem;

const READY_WITHIN: Duration = Duration::from_secs(3);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "The process answers")))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// A commit would succeed now.
#[utoipa::path(get, path = "/readyz",
    responses((status = 200, description = "A commit would succeed now"), (status = 503, description = "It would not")))]
async fn readyz(State(app): State<App>) -> Result<&'static str, Problem> {
    match tokio::time::timeout(READY_WITHIN, app.store.probe()).await {
        Ok(Ok(())) => Ok("ready\n"),
        Ok(Err(error)) => Err(Problem::unavailable(format!("Not ready: {error}."))),
        Err(_) => Err(Problem::unavailable("Not ready: the database did not answer in time.")),
    }
}

/// Prometheus text.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "Prometheus text")))]
async fn metrics(State(app): State<App>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render()).into_response()
}
