//! A request for another protocol: what it asks for, and which of its headers go along.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
    request::Parts,
    uri::PathAndQuery,
};
use hyper::upgrade::OnUpgrade;

use super::{
    Attempt, Forwarder, Inbound, Passed, alarm::Alarm, body::Rest, error::ForwardError,
    headers::is_clients_own, transport::Fault,
};
use crate::{
    provider::told,
    types::{Key, Verdict},
};

/// What a client wants to speak in place of HTTP.
#[derive(Debug)]
pub(super) struct Wish {
    /// As it named it.
    token: HeaderValue,
    /// The subprotocols that it offers, without those that are credentials.
    protocols: Option<HeaderValue>,
    /// Its connection, once that speaks HTTP no more.
    client: Option<OnUpgrade>,
}

/// A request for another protocol that can't be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUpgrade {
    /// It has a body.
    #[error("a request with `Upgrade` has no body")]
    Body,
    /// It is no handshake of a WebSocket.
    #[error("a WebSocket begins with a GET that has one `Sec-WebSocket-Key`")]
    WebSocket,
}

impl Wish {
    /// What `parts` asks for, if it asks for another protocol.
    ///
    /// # Errors
    /// [`BadUpgrade`].
    pub(super) fn of(parts: &mut Parts) -> Result<Option<Box<Self>>, BadUpgrade> {
        let Some(token) = asked(parts) else { return Ok(None) };
        if is_websocket(&token) {
            let mut keys = parts.headers.get_all(SEC_WEBSOCKET_KEY).iter();
            if parts.method != Method::GET || keys.next().is_none() || keys.next().is_some() {
                return Err(BadUpgrade::WebSocket);
            }
        }
        let protocols = protocols(&parts.headers);
        let client = parts.extensions.remove::<OnUpgrade>();
        Ok(Some(Box::new(Self { token, protocols, client })))
    }

    /// The client's connection.
    pub(super) fn take_client(&mut self) -> Option<OnUpgrade> {
        self.client.take()
    }

    /// Adds what asks for it.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.token.clone());
        if let Some(protocols) = &self.protocols {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols.clone());
        }
    }

    /// Whether that is what was asked for.
    pub(super) fn is_met_by(&self, headers: &HeaderMap) -> bool {
        let asked = self.token.to_str().unwrap_or_default();
        let given = headers.get(UPGRADE).and_then(|token| token.to_str().ok()).map(str::trim);
        given.is_some_and(|given| asked.split(',').any(|token| token.trim().eq_ignore_ascii_case(given)))
    }
}

/// Whether this names the protocol of WebSockets (RFC 6455).
pub(super) fn is_websocket(token: &HeaderValue) -> bool {
    token.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket")
}

/// The protocol that is asked for. HTTP/2 in clear text (`h2c`) is none: whoever asks for it is content with HTTP/1.1,
/// and RFC 9113 knows it no more.
fn asked(parts: &Parts) -> Option<HeaderValue> {
    if parts.version != Version::HTTP_11 || !lists(&parts.headers, &CONNECTION, "upgrade") {
        return None;
    }
    let mut tokens = parts.headers.get_all(UPGRADE).iter();
    let (token, more) = (tokens.next()?, tokens.next());
    let is_http = token.as_bytes().to_ascii_lowercase().starts_with(b"h2");
    (more.is_none() && !is_http && !token.as_bytes().trim_ascii().is_empty()).then(|| token.clone())
}

fn lists(headers: &HeaderMap, name: &HeaderName, item: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(item))
}

/// The subprotocols that go upstream.
fn protocols(headers: &HeaderMap) -> Option<HeaderValue> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let items = values.flat_map(|value| value.split(',')).map(str::trim);
    let items: Vec<_> = items.filter(|item| !item.is_empty() && !is_clients_own(item)).collect();
    if items.is_empty() { None } else { HeaderValue::from_str(&items.join(", ")).ok() }
}

impl Forwarder {
    /// One upstream call for another protocol, and what it came to.
    pub(super) async fn upgrade(
        &self,
        key: &Arc<Key>,
        inbound: &Inbound,
        wish: &Wish,
        (target, mut headers): (PathAndQuery, HeaderMap),
        limit: Duration,
        alarm: &mut Alarm,
    ) -> Result<Attempt, ForwardError> {
        wish.ask(&mut headers);
        let asking = self.transport.upgrade(&key.settings().base, inbound.method.clone(), target, headers);
        let until = self.clock.mono() + limit;
        let (answer, switched) = match alarm.limit(until, asking).await {
            Some(Ok(answered)) => answered,
            asked => return Ok(Attempt::without_answer(key, asked.and_then(Result::err).as_ref())),
        };
        let Some(switched) = switched else {
            return self.answered(answer, key, inbound, limit, until, alarm).await;
        };
        if !wish.is_met_by(answer.headers()) {
            let fault = Fault::Broken("the protocol is none that was asked for".to_owned());
            return Ok(Attempt::without_answer(key, Some(&fault)));
        }
        let told = told(answer.headers(), &[], self.clock.wall());
        let (parts, _) = answer.into_parts();
        let (start, rest, switched) = (Bytes::new(), Rest::Ended, Some(Box::new(switched)));
        let passed = Passed {
            parts,
            start,
            rest,
            verdict: Verdict::SUCCESS,
            told,
            watched: None,
            meter: None,
            has_extra: false,
            switched,
        };
        Ok(Attempt::Passed(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(method: &str, lines: &[(&'static str, &'static str)]) -> Result<Option<Box<Wish>>, BadUpgrade> {
        let mut request = http::Request::builder().method(method);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        Wish::of(&mut request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn what_is_asked_for_is_what_both_headers_say() {
        let (upgrade, key) = (("connection", "keep-alive, Upgrade"), ("sec-websocket-key", "k"));
        assert!(wish("GET", &[upgrade, ("upgrade", "WebSocket"), key]).unwrap().is_some());
        assert!(wish("POST", &[upgrade, ("upgrade", "tcp")]).unwrap().is_some());
        for lines in [
            &[("upgrade", "websocket"), key][..],
            &[upgrade, key],
            &[upgrade, ("upgrade", "h2c"), key],
            &[upgrade, ("upgrade", ""), key],
            &[("connection", "upgraded"), ("upgrade", "websocket"), key],
        ] {
            assert!(wish("GET", lines).unwrap().is_none(), "{lines:?}");
        }
        assert_eq!(wish("GET", &[upgrade, ("upgrade", "websocket")]).unwrap_err(), BadUpgrade::WebSocket);
        assert_eq!(
            wish("GET", &[upgrade, ("upgrade", "websocket"), key, key]).unwrap_err(),
            BadUpgrade::WebSocket
        );
        assert_eq!(
            wish("POST", &[upgrade, ("upgrade", "websocket"), key]).unwrap_err(),
            BadUpgrade::WebSocket
        );
    }

    #[test]
    fn credentials_among_the_subprotocols_stay_here() {
        let sent = |value: &'static str| {
            let lines = [
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-key", "k"),
                ("sec-websocket-protocol", value),
            ];
            let mut headers = HeaderMap::new();
            wish("GET", &lines).unwrap().unwrap().ask(&mut headers);
            headers.get(SEC_WEBSOCKET_PROTOCOL).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(
            sent("realtime, openai-insecure-api-key.sk-client,openai-beta.realtime-v1").as_deref(),
            Some("realtime, openai-beta.realtime-v1")
        );
        assert_eq!(sent("openai-organization.o, openai-project.p, OpenAI-Insecure-Api-Key.k"), None);
    }
}
