//! Answers about ourselves.

use std::{net::IpAddr, sync::Arc};

use axum::{Router, extract::State, routing::get};
use http::{Method, Request, Response, header::CONTENT_TYPE};
use hyper::body::Incoming;

use super::{AnswerBody, Proxy, Refusal};
use crate::telemetry::Metrics;

/// Whether a path is one of the probes that clients reach.
pub(super) fn is_probe(path: &str) -> bool {
    path == "/health"
}

/// Answers a probe.
pub(super) async fn answer(_: &Proxy, _: IpAddr, request: Request<Incoming>) -> Response<AnswerBody> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Refusal::no_such_route().into();
    }
    Response::new(AnswerBody::Own("OK".into()))
}

/// What Prometheus reaches.
pub fn metrics_routes(proxy: Arc<Proxy>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(prometheus))
        .route("/health", get(async || "OK"))
        .with_state((proxy, metrics))
}

/// Prometheus text.
async fn prometheus(
    State((proxy, metrics)): State<(Arc<Proxy>, Arc<Metrics>)>,
) -> ([(http::HeaderName, &'static str); 1], String) {
    let pool = proxy.forwarder().pool();
    let text = metrics.render(pool.name(), &pool.snapshot());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
