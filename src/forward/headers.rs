//! Which headers travel: from the client to an upstream, and back.
//!
//! What goes is taken out of the map that came; what stays is never copied.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONNECTION};

use crate::{
    redact::{self, Traces},
    types::{Key, Secret},
};

const ORGANIZATION: HeaderName = HeaderName::from_static("openai-organization");
const PROJECT: HeaderName = HeaderName::from_static("openai-project");
/// The request's id: ours towards the client.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The id that the upstream gave its answer.
pub const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");

/// Leaves of a client's headers what goes upstream, whichever key it goes with.
pub fn strip_request(headers: &mut HeaderMap) {
    strip(headers, stays_here);
}

/// Adds the account that `key` names, its organization and project, to a request whose own is gone.
pub fn add_account(headers: &mut HeaderMap, key: &Key) {
    let settings = key.settings();
    for (name, value) in [(ORGANIZATION, &settings.organization), (PROJECT, &settings.project)] {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
}

/// Leaves of an upstream's headers what the client gets: without `secret`, should the upstream repeat it. Whoever
/// answers with what was asked for has no reason to repeat a part.
pub fn strip_answer(status: StatusCode, headers: &mut HeaderMap, secret: &Secret) {
    strip(headers, names_our_account);
    let traces = Traces::of(secret);
    let is_told = if status.is_success() { Traces::is_told } else { Traces::is_told_in_part };
    for value in headers.values_mut() {
        if is_told(&traces, value.as_bytes())
            && let Some(scrubbed) = redact::scrub_header(value, &[secret])
        {
            *value = scrubbed;
        }
    }
    if let Some(id) = headers.remove(REQUEST_ID) {
        headers.insert(UPSTREAM_REQUEST_ID, id);
    }
}

/// Takes out what belongs to one connection (RFC 9110 §7.6.1), what `Connection` names, and what `stays`.
fn strip(headers: &mut HeaderMap, stays: impl Fn(&str) -> bool) {
    let connection: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    for named in connection.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','))
    {
        headers.remove(named.trim());
    }
    // Few headers stay behind, so there are as many passes as there are of those, and one.
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name.as_str()) || stays(name.as_str())) {
        let name = name.clone();
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// A subprotocol that stands for a key of the client's: browsers can put one nowhere else.
pub const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

/// Whether a subprotocol is a credential of the client's, or names its account.
pub(super) fn is_clients_own(protocol: &str) -> bool {
    let begins =
        |start: &str| protocol.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start));
    [KEY_PROTOCOL, "openai-organization.", "openai-project."].into_iter().any(begins)
}

/// What a client sends that must not go upstream: its credentials, its account, its network, and what is set anew.
fn stays_here(name: &str) -> bool {
    matches!(
        name,
        "api-key"
            | "authorization"
            | "content-length"
            | "cookie"
            | "expect"
            | "forwarded"
            | "host"
            | "openai-organization"
            | "openai-project"
            // Browsers put a key among the protocols. Those that go upstream are set anew.
            | "sec-websocket-protocol"
            | "x-api-key"
            | "x-goog-api-key"
            | "x-goog-user-project"
            | "x-proxy-key"
            | "x-real-ip"
    ) || name.starts_with("x-forwarded-")
}

/// What an upstream sends that is about our account or for our connection to it, and CORS, which is ours to answer.
fn names_our_account(name: &str) -> bool {
    matches!(
        name,
        "alt-svc" | "openai-organization" | "openai-project" | "set-cookie" | "strict-transport-security"
    ) || name.starts_with("access-control-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        forward::Api,
        types::{BaseUrl, Dialect, KeySettings, PoolName},
    };
    use http::header::AUTHORIZATION;

    fn base(text: &str) -> BaseUrl {
        BaseUrl::parse(text).unwrap()
    }

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn sent(mut client: HeaderMap, key: &Key) -> HeaderMap {
        strip_request(&mut client);
        Api::default().sign(Dialect::OpenAi, key, &mut client);
        add_account(&mut client, key);
        client
    }

    /// Names and values, by name: the order of different names means nothing (RFC 9110 §5.3).
    fn sorted(headers: &HeaderMap) -> Vec<(&str, &str)> {
        let mut pairs: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        pairs.sort_by_key(|(name, _)| *name);
        pairs
    }

    #[test]
    fn credentials_accounts_and_networks_of_the_client_stay_here() {
        let entry = (Secret::new("sk-pool").unwrap(), KeySettings::at(base("https://up.example")));
        let key = Key::pool(&PoolName::default(), vec![entry]).remove(0);
        let client = map(&[
            ("authorization", "Bearer client"),
            ("x-api-key", "client"),
            ("api-key", "client"),
            ("x-goog-api-key", "client"),
            ("x-proxy-key", "client"),
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.client"),
            ("cookie", "client"),
            ("openai-organization", "client"),
            ("openai-project", "client"),
            ("x-goog-user-project", "client"),
            ("forwarded", "for=client"),
            ("x-forwarded-for", "client"),
            ("x-forwarded-anything", "client"),
            ("x-real-ip", "client"),
            ("host", "client"),
            ("expect", "100-continue"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("openai-beta", "a"),
            ("openai-beta", "b"),
        ]);
        let sent = sent(client, &key);
        let left = [("authorization", "Bearer sk-pool"), ("openai-beta", "a"), ("openai-beta", "b")];
        assert_eq!(sorted(&sent), left);
        assert!(sent[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn a_key_sends_its_own_organization_and_project() {
        let settings = KeySettings {
            organization: Some(HeaderValue::from_static("org-1")),
            project: Some(HeaderValue::from_static("proj-1")),
            ..KeySettings::at(base("https://up.example"))
        };
        let key = Key::pool(&PoolName::default(), vec![(Secret::new("sk").unwrap(), settings)]).remove(0);
        let sent = sent(map(&[("openai-organization", "client")]), &key);
        assert_eq!(sent.get_all(ORGANIZATION).iter().collect::<Vec<_>>(), ["org-1"]);
        assert_eq!(sent[PROJECT], "proj-1");
    }

    #[test]
    fn an_answer_names_neither_our_account_nor_our_connection() {
        let mut answer = map(&[
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("openai-organization", "org"),
            ("openai-project", "proj"),
            ("access-control-allow-origin", "*"),
            ("transfer-encoding", "chunked"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("x-request-id", "req_1"),
            ("strict-transport-security", "max-age=1"),
            ("x-echo", "Bearer sk-pool"),
            ("vary", "a"),
            ("vary", "b"),
        ]);
        strip_answer(StatusCode::OK, &mut answer, &Secret::new("sk-pool").unwrap());
        assert_eq!(
            sorted(&answer),
            [
                ("vary", "a"),
                ("vary", "b"),
                ("x-echo", "Bearer [redacted]"),
                ("x-upstream-request-id", "req_1")
            ]
        );
    }
}
