//! Which web pages may call us. Preflights are answered here; every answer, errors too, carries the headers.

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Uri,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

use super::{AnswerBody, CorsOrigins, origin::is_loopback};

/// What a page may read of an answer's headers, beside what every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-upstream-request-id, retry-after, retry-after-ms, x-should-retry, x-key-cycle-key, \
     x-key-cycle-attempts, x-key-cycle-why",
);
/// How long a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("3600");

/// What the answer to one request says about who may read it.
#[derive(Debug)]
pub(super) struct Cors {
    /// The value that lets the asking page read it.
    origin: Option<HeaderValue>,
    /// Whether a page asks at all.
    asked: bool,
    /// Whether the answer would be another for another origin.
    varies: bool,
}

impl Cors {
    /// For a request with these headers.
    pub(super) fn of(origins: &CorsOrigins, headers: &HeaderMap) -> Self {
        let origin = headers.get(ORIGIN);
        Self {
            origin: allowed(origins, origin),
            asked: origin.is_some(),
            varies: *origins != CorsOrigins::Any,
        }
    }

    /// The answer to a preflight (Fetch §3.2.2), which carries no credentials. Any other OPTIONS is a question to the
    /// upstream.
    pub(super) fn preflight(&self, method: &Method, asked: &HeaderMap) -> Option<Response<AnswerBody>> {
        if *method != Method::OPTIONS || !self.asked {
            return None;
        }
        let method = asked.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let mut answer = Response::new(AnswerBody::Own(axum::body::Body::empty()));
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        if self.origin.is_some() {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method.clone());
            if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
        for name in ["access-control-request-method", "access-control-request-headers"] {
            headers.append(VARY, HeaderValue::from_static(name));
        }
        Some(answer)
    }

    /// Says it.
    pub(super) fn say(self, headers: &mut HeaderMap) {
        if let Some(origin) = self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        if self.asked {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
    }
}

/// The value that lets the page of this origin read the answer.
fn allowed(origins: &CorsOrigins, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
    match origins {
        CorsOrigins::Any => Some(HeaderValue::from_static("*")),
        CorsOrigins::Loopback => origin.filter(|origin| is_ours(origin)).cloned(),
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

/// A page served from this machine, on any port.
pub(super) fn is_ours(origin: &HeaderValue) -> bool {
    let origin = Uri::try_from(origin.as_bytes()).ok();
    origin.as_ref().and_then(Uri::host).is_some_and(is_loopback)
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
        let is = |text| is_ours(&HeaderValue::from_static(text));
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
