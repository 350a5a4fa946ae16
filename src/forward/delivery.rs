//! What the client gets: an answer, a refusal, or what is said when there is no further attempt.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, UPGRADE},
};

use super::{
    Forwarder, Passed, Tunnel,
    alarm::Alarm,
    body::{LeasedBody, Rest},
    error::{ForwardError, Unavailable},
    headers::strip_answer,
    leases::{Ask, Lease, NoLease, NoLeaseWhy},
    refusal::Refusal,
    tries::{Missed, Tries},
    upgrade::is_websocket,
    upload::Upload,
};
use crate::{
    pool::{Causes, Reason},
    redact,
    telemetry::access::Access,
    types::{Class, Key, Verdict},
};

/// `x-should-retry`: whether the official SDKs try again by themselves.
pub const SHOULD_RETRY: &str = "x-should-retry";

impl Forwarder {
    /// What goes on behind an answer that switches to another protocol.
    #[must_use]
    pub fn tunnel(&self, headers: &HeaderMap, mut body: LeasedBody) -> Option<Tunnel> {
        let switched = body.take_switched()?;
        let is_websocket = headers.get(UPGRADE).is_some_and(is_websocket);
        Some(Tunnel::new(*switched, body, Arc::clone(&self.metrics), is_websocket))
    }

    pub(super) fn deliver(
        &self,
        answer: Passed,
        lease: Option<Lease>,
        upload: Option<Arc<Upload>>,
        key: &Key,
        mut access: Access,
        alarm: Alarm,
    ) -> Response<LeasedBody> {
        let Passed { mut parts, start, rest, watched, meter, has_extra, told, switched, .. } = answer;
        let is_counted = told.left.tokens.is_some() || lease.as_ref().is_some_and(Lease::counts_tokens);
        access.head(parts.status.as_u16());
        let token = switched.is_some().then(|| parts.headers.remove(UPGRADE)).flatten();
        strip_answer(parts.status, &mut parts.headers, key.secret());
        if let Some(token) = token {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, token);
        }
        let start = Some(start).filter(|start| !start.is_empty());
        let mut body = LeasedBody::new(start, rest, lease, self.policy.idle_timeout, alarm, access);
        if let Some(switched) = switched {
            body = body.switched(switched);
        }
        if let Some(upload) = upload {
            body = body.answering(upload);
        }
        if let Some(endpoint) = watched {
            body = body.watched(endpoint);
        }
        if let Some(meter) = meter.filter(|meter| is_counted || meter.is_spent()) {
            body = body.metered(meter, is_counted);
        }
        if has_extra {
            // It may get shorter.
            parts.headers.remove(CONTENT_LENGTH);
            body = body.without_extra();
        }
        respond(parts.status, parts.headers, body)
    }

    /// Gives a refusal of `key` to the client: as it came, or `scrubbed` when it may be about the key.
    pub(super) fn deliver_refusal(
        &self,
        refusal: Refusal,
        verdict: &Verdict,
        key: &Key,
        scrubbed: bool,
        mut access: Access,
        alarm: Alarm,
    ) -> Response<LeasedBody> {
        access.head(refusal.status.as_u16());
        if refusal.status.is_success() {
            access.failed(verdict);
        }
        let secret = key.secret();
        let clean = scrubbed.then(|| redact::scrub(&refusal.text(), &[secret]).into_owned());
        let mut headers = refusal.headers;
        strip_answer(refusal.status, &mut headers, secret);
        let (start, rest) = if let Some(text) = clean.map(Bytes::from) {
            for value in headers.values_mut() {
                if let Some(scrubbed) = redact::scrub_header(value, &[secret]) {
                    *value = scrubbed;
                }
            }
            headers.remove(CONTENT_ENCODING);
            headers.remove(CONTENT_LENGTH);
            let rest = match refusal.rest {
                Rest::Ended | Rest::Coming(_) => {
                    headers.insert(CONTENT_LENGTH, text.len().into());
                    Rest::Ended
                }
                Rest::Broken => Rest::Broken,
            };
            (text, rest)
        } else {
            (refusal.start, refusal.rest)
        };
        let start = Some(start).filter(|start| !start.is_empty());
        let body = LeasedBody::new(start, rest, None, self.policy.idle_timeout, alarm, access);
        respond(refusal.status, headers, body)
    }

    /// What the client gets when there is no further attempt: what the upstream says of the request
    /// or of itself, never what it says of our keys. What is served elsewhere if it `falls_back` gets no answer yet.
    pub(super) fn conclude(
        &self,
        mut tries: Tries,
        no_lease: Option<&NoLease>,
        ask: &Ask,
        falls_back: bool,
        access: Access,
        alarm: Alarm,
    ) -> Result<Response<LeasedBody>, (ForwardError, Access)> {
        let now = self.clock.now();
        let why = no_lease.map(|no_lease| no_lease.why);
        let causes = || match no_lease {
            Some(no_lease) => no_lease.causes.clone(),
            None => self.pool.causes(ask),
        };
        let unavailable = |causes: Causes| {
            let soonest = || causes.soonest().map(|at| at.saturating_duration_since(now.mono));
            let free_in = no_lease.map_or_else(soonest, |no_lease| no_lease.free_in);
            Unavailable { free_in, causes: Box::new(causes), now }
        };
        let of_the_keys = || {
            let causes = causes();
            if causes.is_model_missing() {
                return ForwardError::ModelUnavailable { model: ask.model.clone() };
            }
            let down = causes.host_down > 0 && causes.host_down == causes.keys();
            let hopeless = causes.is_hopeless();
            let unavailable = unavailable(causes);
            if down {
                ForwardError::Unreachable(unavailable)
            } else if hopeless {
                ForwardError::NoUsableKey(unavailable)
            } else {
                ForwardError::AllKeysCooling(unavailable)
            }
        };
        let Tries { last, .. } = &mut tries;
        let Some(Missed { key, verdict, refusal, .. }) = last.take().map(|missed| *missed) else {
            let error = match why {
                Some(NoLeaseWhy::NoKeyForModel) => ForwardError::ModelNotFound { model: ask.model.clone() },
                Some(NoLeaseWhy::LineFull) => ForwardError::TooManyWaiting(unavailable(causes())),
                Some(NoLeaseWhy::NoneFree) | None => of_the_keys(),
            };
            return Err((error, access));
        };
        let error = match (verdict.class, refusal) {
            (
                Class::UnknownRefusal
                | Class::ServerError
                | Class::Overloaded
                | Class::EgressRefused
                | Class::ModelUnavailable,
                Some(_),
            ) if falls_back => ForwardError::Elsewhere,
            (Class::UnknownRefusal, Some(refusal)) if tries.unknown.len() == tries.keys.len() => {
                // They all say the same: it is the request that is refused, and no key should rest for it.
                self.pool.lift(&tries.unknown, Reason::Refused);
                return Ok(self.deliver_refusal(refusal, &verdict, &key, true, access, alarm));
            }
            (
                Class::ServerError | Class::Overloaded | Class::EgressRefused | Class::ModelUnavailable,
                Some(refusal),
            ) => {
                let again = tries.keys.len() > 1;
                let mut answer = self.deliver_refusal(refusal, &verdict, &key, true, access, alarm);
                if again {
                    // We have retried, whatever the upstream says: an SDK that does so too would multiply the calls.
                    answer.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
                }
                return Ok(answer);
            }
            (Class::NotPermitted, _) if tries.denied.len() == tries.keys.len() => {
                ForwardError::NotPermitted { purpose: ask.purpose.clone() }
            }
            (Class::TimedOut, _) => ForwardError::TimedOut,
            (Class::Unreachable, _) => ForwardError::Unreachable(unavailable(causes())),
            (Class::Broken, _) => ForwardError::Broken,
            _ => of_the_keys(),
        };
        Err((error, access))
    }
}

fn respond(status: StatusCode, headers: HeaderMap, body: LeasedBody) -> Response<LeasedBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
