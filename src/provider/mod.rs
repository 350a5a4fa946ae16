//! What each API's answers mean. The one place that looks at a status code.
//!
//! Answers come in as [`Answer`], failures to get one as [`Fault`]; both leave as a [`Verdict`]. Everything here is
//! pure: an answer and a moment in, a verdict out.

mod account;
mod ask;
mod complaint;
mod demand;
mod endpoint;
mod form;
mod form_place;
mod google;
mod headroom;
mod known;
mod limit_header;
pub mod limits;
mod media;
mod openai;
mod scan;
mod sniff;
pub mod stream;
mod told;
mod usage;
mod words;

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

pub use ask::with_usage_asked;
pub use demand::demand;
pub use endpoint::{Endpoint, Spending, classify, spending, takes_stream_options};
pub use form::{BadForm, FormReader, model_in_form};
pub use form_place::model_at_in_form;
pub use known::{KNOWN, Known, NAMES};
pub use media::Media;
pub use sniff::{Place, SniffError, Sniffed, sniff};
pub use told::{Told, told};
pub use usage::Meter;

use crate::types::{Class, Scope, Verdict};

/// An answer as far as it must be known to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body without content coding, up to 64 KiB; empty where [`reads_body`] says no.
    pub body: &'a [u8],
}

/// How an attempt ended without an answer that could be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No connection (DNS, TCP, TLS): nothing was sent.
    Connect,
    /// No response head in time.
    HeadTimeout,
    /// The connection broke after something was written and before a head came.
    Broken,
    /// The body broke off.
    BrokenBody,
    /// Nothing more of the body came.
    SilentBody,
}

/// Whether an answer with this status must be read before it can be judged: refusals and failures.
#[must_use]
pub fn reads_body(status: StatusCode) -> bool {
    status.as_u16() >= 400
}

/// What `answer` means for the key, account and host it came from.
///
/// A redirect is nobody's fault and is never followed: it is delivered as it came after one attempt, like a
/// client's fault, and touches nothing. `304 Not Modified` is what a conditional GET asked for.
#[must_use]
pub fn judge(answer: &Answer<'_>, endpoint: Endpoint, wall: SystemTime) -> Verdict {
    match answer.status.as_u16() {
        ..300 | 304 => Verdict::SUCCESS,
        300..400 => Verdict::CLIENT_FAULT,
        400.. => openai::judge_refusal(answer, endpoint, wall),
    }
}

/// What it means that no answer came. None of these is a key's fault alone.
#[must_use]
pub const fn judge_fault(fault: Fault) -> Verdict {
    match fault {
        Fault::Connect => Verdict::new(Class::Unreachable, Scope::Host),
        Fault::HeadTimeout | Fault::SilentBody => Verdict::new(Class::TimedOut, Scope::Host),
        Fault::Broken | Fault::BrokenBody => Verdict::new(Class::Broken, Scope::Host),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_refusal_is_judged_by_its_status_alone() {
        let headers = HeaderMap::new();
        for (status, class) in [
            (200, Class::Success),
            (204, Class::Success),
            (101, Class::Success),
            (304, Class::Success),
            (302, Class::ClientFault),
            (308, Class::ClientFault),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(!reads_body(status));
            let answer = Answer { status, headers: &headers, body: b"" };
            assert_eq!(judge(&answer, Endpoint::Inference, SystemTime::UNIX_EPOCH).class, class, "{status}");
        }
        assert!(reads_body(StatusCode::BAD_REQUEST) && reads_body(StatusCode::BAD_GATEWAY));
    }

    proptest! {
        #[test]
        fn any_answer_is_judged_and_no_wait_is_endless(
            status in 100..1000_u16,
            body in proptest::collection::vec(any::<u8>(), 0..64),
            message in ".{0,40}|.{0,8}(limit: 0|try again in |retry after )[0-9.hms ]{0,12}",
            wall in any::<u32>(),
        ) {
            let status = StatusCode::from_u16(status).unwrap();
            let told = serde_json::json!({ "error": { "message": message, "code": "rate_limit_exceeded" } });
            for body in [&body[..], told.to_string().as_bytes()] {
                let answer = Answer { status, headers: &HeaderMap::new(), body };
                let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(wall.into());
                let verdict = judge(&answer, Endpoint::Inference, wall);
                prop_assert!(verdict.wait.is_none_or(|wait| wait <= limits::MAX_WAIT));
                prop_assert_eq!(verdict.class == Class::Success, status.as_u16() < 300 || status == 304);
            }
        }
    }

    #[test]
    fn faults_are_the_hosts_and_only_a_failed_connect_did_nothing() {
        for fault in [Fault::Connect, Fault::HeadTimeout, Fault::Broken, Fault::BrokenBody, Fault::SilentBody]
        {
            let verdict = judge_fault(fault);
            assert_eq!(verdict.scope, Scope::Host);
            assert_eq!(verdict.nothing_done(), fault == Fault::Connect, "{fault:?}");
        }
    }
}
