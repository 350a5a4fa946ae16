//! Answers about ourselves.

use std::sync::Arc;

use axum::extract::State;
use http::header::CONTENT_TYPE;

use super::Proxy;
use crate::telemetry::Metrics;

/// The process serves.
pub(super) async fn health() -> &'static str {
    "OK"
}

/// Prometheus text.
pub(super) async fn metrics(
    State((proxy, metrics)): State<(Arc<Proxy>, Arc<Metrics>)>,
) -> ([(http::HeaderName, &'static str); 1], String) {
    let pool = proxy.forwarder().pool();
    let text = metrics.render(pool.name(), &pool.snapshot());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
