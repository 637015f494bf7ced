//! `/healthz`, `/readyz` and `/metrics`. Serves what it is told and changes
//! nothing; a replica that stands by is as ready as the one that leads.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{Error, metrics::Metrics};

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the endpoints tell.
#[derive(Clone)]
pub(crate) struct Health {
    /// What is measured.
    pub(crate) metrics: Arc<Metrics>,
    /// When the API server last answered; `None` until it first did.
    pub(crate) alive: watch::Receiver<Option<Instant>>,
    /// How long an answer counts.
    pub(crate) stale_after: Duration,
}

/// Listens on `address` until `stop`.
///
/// # Errors
/// [`Error::Listen`].
pub(crate) async fn serve(
    address: SocketAddr,
    health: Health,
    stop: CancellationToken,
) -> Result<(), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
        .map_err(failed)
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    match *health.alive.borrow() {
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the API server has not answered yet\n",
        ),
        Some(at) if at.elapsed() > health.stale_after => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the API server does not answer any more\n",
        ),
        Some(_) => (StatusCode::OK, "ok\n"),
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    match health.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
