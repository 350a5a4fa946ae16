//! Which web pages may call us. Preflights are answered here; every answer, errors too, carries the headers.

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

use super::{CorsOrigins, Proxy};

/// What a page may read of an answer's headers, beside what every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-upstream-request-id, retry-after, retry-after-ms, x-should-retry, x-key-cycle-key, \
     x-key-cycle-attempts",
);
/// How long a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("3600");

/// Answers preflights, which carry no credentials, and adds to every other answer who may read it.
pub(super) async fn cors(proxy: &Proxy, request: Request, next: Next) -> Response {
    let origins = &proxy.settings().cors;
    let asked = request.headers();
    let origin = allowed(origins, asked.get(ORIGIN));
    // Fetch §3.2.2. Any other OPTIONS is a question to the upstream.
    let mut answer = if *request.method() == Method::OPTIONS
        && asked.contains_key(ORIGIN)
        && let Some(method) = asked.get(ACCESS_CONTROL_REQUEST_METHOD)
    {
        let mut answer = StatusCode::NO_CONTENT.into_response();
        let headers = answer.headers_mut();
        if origin.is_some() {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method.clone());
            if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
        for name in ["access-control-request-method", "access-control-request-headers"] {
            headers.append(VARY, HeaderValue::from_static(name));
        }
        answer
    } else {
        let mut answer = next.run(request).await;
        answer.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        answer
    };
    allow(answer.headers_mut(), origins, origin);
    answer
}

/// The value that lets the page of this origin read the answer.
fn allowed(origins: &CorsOrigins, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
    match origins {
        CorsOrigins::Any => Some(HeaderValue::from_static("*")),
        CorsOrigins::Loopback => origin.filter(|origin| is_loopback(origin)).cloned(),
        CorsOrigins::List(list) => origin.filter(|origin| list.contains(origin)).cloned(),
    }
}

/// Whether a web page sends the request that may not read the answer. A browser lets it send some requests all the
/// same (Fetch §2.2.8), and where no client key is asked for, that would be enough to spend a key.
pub(super) fn is_foreign_page(origins: &CorsOrigins, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    // Programs that are no web pages name schemes of their own.
    let page = origin.as_bytes().starts_with(b"http") || origin == "null";
    page && allowed(origins, Some(origin)).is_none()
}

fn allow(headers: &mut HeaderMap, origins: &CorsOrigins, origin: Option<HeaderValue>) {
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    if *origins != CorsOrigins::Any {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}

/// A page served from this machine, on any port.
fn is_loopback(origin: &HeaderValue) -> bool {
    let Ok(origin) = Uri::try_from(origin.as_bytes()) else { return false };
    let Some(host) = origin.host() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_from_elsewhere_are_foreign_and_programs_are_not() {
        let foreign = |origin: Option<&'static str>| {
            let origin = origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin)));
            is_foreign_page(&CorsOrigins::Loopback, &origin.into_iter().collect())
        };
        assert!(foreign(Some("https://example.com")) && foreign(Some("null")));
        assert!(!foreign(None) && !foreign(Some("http://localhost:5173")) && !foreign(Some("app://notes")));
    }

    #[test]
    fn loopback_is_this_machine_by_any_of_its_names() {
        let is = |text| is_loopback(&HeaderValue::from_static(text));
        for text in [
            "http://localhost",
            "http://localhost:5173",
            "https://127.0.0.1:1",
            "http://[::1]:80",
            "http://app.localhost",
        ] {
            assert!(is(text), "{text}");
        }
        for text in
            ["null", "https://example.com", "http://localhost.evil.com", "http://127.0.0.1.evil.com", ""]
        {
            assert!(!is(text), "{text}");
        }
    }
}
