//! Which web pages may call us. Preflights are answered here; every answer, errors too, carries the headers.

use http::{HeaderName, HeaderValue, Uri};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

use super::{CorsOrigins, proxy};
use crate::forward;

pub(super) fn layer(origins: &CorsOrigins) -> CorsLayer {
    let origin = match origins {
        CorsOrigins::Any => AllowOrigin::any(),
        CorsOrigins::Loopback => AllowOrigin::predicate(|origin, _| is_loopback(origin)),
        CorsOrigins::List(list) => AllowOrigin::list(list.iter().cloned()),
    };
    let exposed = [
        forward::REQUEST_ID,
        forward::UPSTREAM_REQUEST_ID,
        http::header::RETRY_AFTER,
        HeaderName::from_static("retry-after-ms"),
        HeaderName::from_static(forward::SHOULD_RETRY),
        proxy::DEBUG_KEY,
        proxy::DEBUG_ATTEMPTS,
    ];
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(exposed))
        .max_age(std::time::Duration::from_secs(3600))
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
