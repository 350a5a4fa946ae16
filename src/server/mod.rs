//! The listener that clients talk to.

mod auth;
mod cors;
mod error;
mod listener;
mod peer;
mod probe;
mod proxy;
mod settings;

use std::{any::Any, sync::Arc};

use axum::{Router, body::Body, response::IntoResponse as _, routing::get};
use error::Refusal;
use http::Response;
pub use listener::{Drained, Listener, Stop};
pub use proxy::Proxy;
pub use settings::{CorsOrigins, Settings};
use tower_http::catch_panic::CatchPanicLayer;

use crate::telemetry::Metrics;

/// What clients reach, from the outside in: CORS, the net under panics, the probes, the proxy.
pub fn routes(proxy: Arc<Proxy>) -> Router {
    let cors = axum::middleware::from_fn_with_state(Arc::clone(&proxy), cors::cors);
    Router::new()
        .route("/health", get(probe::health))
        .fallback(proxy::handle)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(cors)
        .with_state(proxy)
}

/// What Prometheus reaches.
pub fn metrics_routes(proxy: Arc<Proxy>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(probe::metrics))
        .route("/health", get(probe::health))
        .with_state((proxy, metrics))
}

/// One request's panic is its own; the message may hold anything, so it is logged by the panic hook at most.
fn panicked(_: Box<dyn Any + Send>) -> Response<Body> {
    Refusal::internal().into_response()
}
