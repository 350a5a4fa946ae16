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

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::IntoResponse as _,
    routing::get,
};
use error::Refusal;
use http::Response;
pub use listener::{Drained, Listener, Stop};
pub use proxy::Proxy;
pub use settings::{CorsOrigins, Settings};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{forward::REQUEST_ID, telemetry::Metrics};

/// What clients reach, from the outside in: request ids and CORS, the net under panics, the probes, the proxy.
pub fn routes(proxy: Arc<Proxy>) -> Router {
    let outermost = axum::middleware::from_fn_with_state(Arc::clone(&proxy), outermost);
    Router::new()
        .route("/health", get(probe::health))
        .method_not_allowed_fallback(async || Refusal::no_such_route())
        .fallback(proxy::handle)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(outermost)
        .with_state(proxy)
}

/// Every answer carries the request's id and says which pages may read it.
async fn outermost(State(proxy): State<Arc<Proxy>>, mut request: Request, next: Next) -> Response<Body> {
    let id = proxy::request_id(request.headers());
    request.extensions_mut().insert(proxy::RequestId(id.clone()));
    let mut answer = cors::cors(&proxy, request, next).await;
    answer.headers_mut().insert(REQUEST_ID, id);
    answer
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
