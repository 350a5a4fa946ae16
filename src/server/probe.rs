//! Answers about ourselves.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, HOST, ORIGIN},
    uri::Authority,
};
use hyper::body::Incoming;

use super::{
    AnswerBody, Proxy, Refusal, cors,
    health::{self, Health},
    origin::is_loopback,
};
use crate::{
    telemetry::{Metrics, Process},
    types::Dialect,
};

const HEALTH: &str = "/health";
const DETAILED: &str = "/health/detailed";
const LIVE: &str = "/livez";
const READY: &str = "/readyz";

/// Headers of those who pass on the requests of others.
const PASSED_ON: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

/// Whether a path is one of the probes that clients reach.
pub(super) fn is_probe(path: &str) -> bool {
    [HEALTH, DETAILED, LIVE, READY].contains(&path)
}

/// Answers a probe on the listener for clients.
pub(super) fn answer(
    proxy: &Proxy,
    peer: IpAddr,
    id: &HeaderValue,
    request: &Request<Incoming>,
) -> http::Response<AnswerBody> {
    let asks = matches!(*request.method(), Method::GET | Method::HEAD);
    let answer = match request.uri().path() {
        HEALTH | LIVE if asks => alive().into_response(),
        READY if asks => ready(proxy),
        DETAILED if asks && is_local(peer, request.uri(), request.headers()) => {
            detailed(proxy).into_response()
        }
        _ => return Refusal::no_such_route().answer(Dialect::OpenAi, id),
    };
    answer.map(AnswerBody::Own)
}

/// What Prometheus and orchestrators reach.
pub fn metrics_routes(proxy: Arc<Proxy>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(prometheus))
        .route(HEALTH, get(async || alive()))
        .route(LIVE, get(async || alive()))
        .route(READY, get(async |State((proxy, _)): State<(Arc<Proxy>, Arc<Metrics>)>| ready(&proxy)))
        .route(DETAILED, get(async |State((proxy, _)): State<(Arc<Proxy>, Arc<Metrics>)>| detailed(&proxy)))
        .with_state((proxy, metrics))
}

/// The process serves.
fn alive() -> &'static str {
    "OK"
}

/// Whether it is worth sending requests here.
fn ready(proxy: &Proxy) -> Response {
    match health::unready(proxy, &proxy.snapshots()) {
        None => "ready".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why.as_str()).into_response(),
    }
}

fn detailed(proxy: &Proxy) -> Json<Health> {
    Json(Health::of(proxy))
}

/// Prometheus text.
async fn prometheus(
    State((proxy, metrics)): State<(Arc<Proxy>, Arc<Metrics>)>,
) -> ([(http::HeaderName, &'static str); 1], String) {
    let pools = proxy.snapshots();
    let process = Process {
        connections: proxy.connections(),
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        ready: health::unready(&proxy, &pools).is_none(),
    };
    let text = metrics.render(&pools, process);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// Whether somebody on this machine asks for himself: not for another as reverse proxies do, and not a web page from
/// elsewhere, by a name that was made to lead here or because any page may call us.
fn is_local(peer: IpAddr, target: &Uri, headers: &HeaderMap) -> bool {
    // In HTTP/2 the host is part of the target; where it is both, the target counts (RFC 9112 §3.2.2).
    let host = || headers.get(HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    let host = target.authority().cloned().or_else(host);
    peer.to_canonical().is_loopback()
        && !PASSED_ON.iter().any(|name| headers.contains_key(*name))
        && host.is_some_and(|host: Authority| is_loopback(host.host()))
        && headers.get(ORIGIN).is_none_or(cors::is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_somebody_on_this_machine_who_asks_for_himself_is_local() {
        let local = |peer: &str, host: &'static str, more: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static(host));
            if let Some(name) = more {
                headers.insert(name, HeaderValue::from_static("x"));
            }
            is_local(peer.parse().unwrap(), &Uri::from_static("/health/detailed"), &headers)
        };
        for host in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
            assert!(local("127.0.0.1", host, None) && local("::1", host, None), "{host}");
            assert!(local("::ffff:127.0.0.1", host, None), "{host}");
        }
        assert!(!local("192.0.2.1", "localhost", None));
        assert!(!local("127.0.0.1", "rebound.example", None));
        assert!(!local("127.0.0.1", "", None));
        for name in PASSED_ON {
            assert!(!local("127.0.0.1", "localhost", Some(name)), "{name}");
        }
    }
}
