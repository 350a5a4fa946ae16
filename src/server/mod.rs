//! The listener that clients talk to.

mod answer;
mod auth;
mod cors;
mod error;
mod framing;
mod health;
mod listener;
mod lists;
mod origin;
mod peer;
mod probe;
mod proxy;
mod settings;
mod shape;
mod way;

use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc};

pub use answer::AnswerBody;
use cors::Cors;
use error::Refusal;
use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
pub use listener::{Afterwards, Answers, Connections, Drained, Listener, Stop};
pub use probe::metrics_routes;
pub use proxy::{Proxy, Stages};
pub use settings::{CorsOrigins, Settings};
use way::Way;

use crate::forward::headers::REQUEST_ID;

/// What clients reach: the probes and the proxy.
///
/// No framework stands between hyper and the proxy: most of what such layers cost is paid per request, and the proxy
/// needs none of what they give. The probes are routed by axum.
impl Answers for Arc<Proxy> {
    type Body = AnswerBody;

    /// Every answer carries the request's id and says which pages may read it.
    async fn answer(
        &self,
        peer: IpAddr,
        request: Request<Incoming>,
        after: &Afterwards,
    ) -> Response<AnswerBody> {
        let id = proxy::request_id(request.headers());
        let cors = Cors::of(&self.settings().cors, request.headers());
        let mut answer = match cors.preflight(request.method(), request.headers()) {
            Some(answer) => answer,
            None if probe::is_probe(request.uri().path()) => probe::answer(self, peer, &id, &request),
            None => {
                let routes = self.router().routes();
                let way = Way::of(request.uri().path(), request.headers(), routes);
                let spoken = way.told_in(routes);
                // Boxed, since a connection keeps the room of what is awaited here for as long as it lives.
                let handled = Box::pin(proxy::handle(self, peer, &id, way, request, after));
                // One request's panic is its own; the message may hold anything, so only the panic hook tells it.
                let caught = AssertUnwindSafe(handled).catch_unwind().await;
                caught.unwrap_or_else(|_| Refusal::internal().answer(spoken, &id))
            }
        };
        cors.say(answer.headers_mut());
        answer.headers_mut().insert(REQUEST_ID, id);
        answer
    }
}
